//! What a path costs in atomic read-modify-writes: the figures of DESIGN.md, part "Cost".
// Not under Miri, which lets weak exchanges fail at will.
#![cfg(not(any(loom, miri)))]

use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Waker};

use dfly_hal::SpinWait;
use dfly_hal::sync::count::measure;
use dfly_msgport::{
    Body, Completions, Job, List, Msg as PortMsg, Own, Pool, Put, PutOnly, Request, Returned, ShortCut,
    SpinPort, WakerPort,
};

#[derive(Default)]
struct Msg;

impl Body for Msg {
    type Shared = AtomicU32;
    type Key = ();
    fn orphaned(&mut self) {}
    // `std`'s atomics: not counted.
    fn child_done(&mut self, parent: &AtomicU32) {
        parent.fetch_add(1, Ordering::Relaxed);
    }
}

/// The read-modify-writes of `f`, and its result.
fn rmws<R>(f: impl FnOnce() -> R) -> (u64, R) {
    let (result, counts) = measure(f);
    assert_eq!(counts.fences, 0);
    (counts.rmws, result)
}

#[test]
fn a_message_that_nobody_waits_for_costs_none() {
    let (n, ()) = rmws(|| Own::new(Msg).detached().complete());
    assert_eq!(n, 0);
}

#[test]
fn a_waiter_that_finds_it_done_costs_one() {
    let own = Own::new(Msg);
    let (n, (job, pending)) = rmws(|| own.waitable());
    assert_eq!(n, 0);
    assert_eq!(rmws(|| job.complete()).0, 1);
    assert_eq!(rmws(|| pending.try_take().unwrap()).0, 0);
}

#[test]
fn a_waiter_that_waits_costs_three() {
    let (job, pending) = Own::new(Msg).waitable();
    let mut pending = pin!(pending);
    let mut cx = Context::from_waker(Waker::noop());
    assert_eq!(rmws(|| pending.as_mut().poll(&mut cx).is_pending()), (1, true));
    assert_eq!(rmws(|| job.complete()).0, 2);
    assert_eq!(rmws(|| pending.as_mut().poll(&mut cx).is_ready()), (0, true));
}

#[test]
fn a_reply_queue_costs_one_a_message_and_one_a_batch() {
    let done: &'static Completions<Msg> = Box::leak(Box::new(Completions::new()));
    let list: List<Msg> = (0..32).map(|_| Own::new(Msg).send_to(done)).collect();
    assert_eq!(rmws(|| list.for_each(Job::complete)).0, 32);
    let (n, back) = rmws(|| done.drain());
    assert_eq!((n, back.len()), (1, 32));
}

#[test]
fn a_split_costs_one_a_child_and_one_for_the_family() {
    let children: Returned<Msg> = (0..5).map(|_| Own::new(Msg)).collect();
    let job = Own::new(Msg).detached();
    let (n, ()) = rmws(|| {
        let mut family = job.split();
        children.for_each(|child| family.adopt(child).complete());
    });
    assert_eq!(n, 5 + 1);
}

#[test]
fn a_pool_costs_one_to_take_one_to_come_home_and_one_a_refill() {
    let pool = Pool::new(8, || Msg);
    let (n, all) = rmws(|| std::iter::from_fn(|| pool.get()).take(8).collect::<Returned<_>>());
    assert_eq!(n, 8 + 1);
    let (n, ()) = rmws(|| drop(all));
    assert_eq!(n, 8);
}

#[test]
fn queues_cost_none() {
    let mut a: List<Msg> = (0..4).map(|_| Own::new(Msg).detached()).collect();
    let mut b: List<Msg> = (0..4).map(|_| Own::new(Msg).detached()).collect();
    let (n, ()) = rmws(|| {
        a.append(&mut b);
        while let Some(job) = a.pop() {
            b.push(job);
        }
    });
    assert_eq!((n, b.len()), (0, 8));
}

/// Of a call to a port that answers at once: no wait, hence no switch, or `w` would panic.
#[test]
fn a_call_that_is_answered_at_once_costs_none() {
    let at_once = PutOnly::new(|mut r: Request<u64>| {
        **r += 1;
        Put::Done(r)
    });
    let mut never = || panic!("it waits");
    let w = &mut SpinWait::new(&mut never);
    let msg = PortMsg::with(1);
    let (n, msg) = rmws(|| msg.call(&at_once, w));
    assert_eq!(n, 0);
    // To oneself, through the short cut past a queue.
    let own = ShortCut::new(SpinPort::new(), || true, |r: Request<u64>| Put::Done(r));
    let (n, msg) = rmws(|| msg.call(&own, w));
    assert_eq!((n, **msg), (0, 2));
}

#[test]
fn a_spin_port_costs_one_to_send_and_one_to_receive() {
    let port = SpinPort::new();
    let mut receiver = port.receiver();
    let msg = PortMsg::with(1);
    let (n, sent) = rmws(|| msg.start(&port));
    assert_eq!(n, 1);
    let (n, request) = rmws(|| receiver.get().unwrap());
    assert_eq!(n, 1);
    assert_eq!(rmws(|| request.reply()).0, 1);
    assert_eq!(rmws(|| sent.try_take().unwrap()).0, 0);
}

#[test]
fn a_receiver_that_goes_to_sleep_costs_three_or_two_and_the_put_that_wakes_it_two_or_one() {
    struct Heard;
    impl std::task::Wake for Heard {
        fn wake(self: std::sync::Arc<Self>) {}
    }
    let waker = Waker::from(std::sync::Arc::new(Heard));
    let mut cx = Context::from_waker(&waker);
    let (spin, lockless) = (SpinPort::new(), WakerPort::new());
    let [one, two] = [1, 2].map(PortMsg::with);

    let mut receiver = spin.receiver();
    let mut next = pin!(receiver.next());
    assert_eq!(rmws(|| next.as_mut().poll(&mut cx).is_pending()), (3, true));
    assert_eq!(rmws(|| one.post(&spin)).0, 2);

    let mut receiver = lockless.receiver().unwrap();
    assert_eq!(rmws(|| receiver.poll_next(&mut cx).is_pending()), (2, true));
    assert_eq!(rmws(|| two.post(&lockless)).0, 1);
}

#[test]
fn a_waker_port_costs_one_to_send_and_one_for_all_there_is() {
    let port = WakerPort::new();
    let mut receiver = port.receiver().unwrap();
    let msgs: Returned<dfly_msgport::Message<u64>> = (0..8).map(PortMsg::with).collect();
    assert_eq!(rmws(|| msgs.for_each(|msg| msg.post(&port))).0, 8);
    let (n, all) = rmws(|| std::iter::from_fn(|| receiver.get()).collect::<List<_>>());
    assert_eq!((n, all.len()), (1, 8));
}
