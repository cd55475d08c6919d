//! What ports promise: who answers, in which order, and what comes back when things go wrong.
#![cfg(not(loom))]

use std::cell::Cell;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use dfly_hal::{SpinWait, ThreadWait, host};
use dfly_msgport::{
    Completions, Event, Layer, Message, Msg, NullPort, NullReply, PanicPort, PanicReply, Pool, Port, Put,
    PutOnly, ReplyOnly, Request, ShortCut, SpinPort, Unanswered, WakerPort,
};

type Num = Message<u64>;

fn num(n: u64) -> Msg<u64> {
    Msg::with(n)
}

/// A waiter for what must be there already.
fn now<R>(f: impl FnOnce(&mut SpinWait<'_>) -> R) -> R {
    let looks = Cell::new(0);
    f(&mut SpinWait::new(&mut || {
        looks.set(looks.get() + 1);
        assert!(looks.get() < 1000, "it is not there");
    }))
}

#[derive(Default)]
struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

fn counting() -> (Arc<Count>, Waker) {
    let count = Arc::new(Count::default());
    (count.clone(), count.into())
}

#[test]
fn a_port_that_answers_at_once_is_a_function_call() {
    let double = PutOnly::new(|mut r: Request<u64>| {
        **r *= 2;
        Put::Done(r)
    });
    let msg = now(|w| num(21).call(&double, w));
    assert_eq!((**msg, msg.outcome()), (42, Ok(())));
    // The same message again, by all the other ways.
    let msg = msg.start(&double).try_take().unwrap();
    assert_eq!(**msg, 84);
    let replies = Arc::new(Completions::new());
    msg.send(&double, replies.clone());
    let msg = replies.drain().pop().unwrap();
    assert_eq!(**msg, 168);
    msg.post(&double);
}

#[test]
fn a_port_that_gives_somebody_elses_job_back_hangs_nobody() {
    // The first job is kept; the second put gives the first one back, and keeps the second.
    let kept = Arc::new(std::sync::Mutex::new(None::<Request<u64>>));
    let swap = PutOnly::new({
        let kept = kept.clone();
        move |r: Request<u64>| match kept.lock().unwrap().replace(r) {
            None => Put::Async,
            Some(other) => Put::Done(other),
        }
    });
    let first = num(1).start(&swap);
    let other = kept.clone();
    let mut answer = move || {
        if let Some(r) = other.lock().unwrap().take() {
            r.reply();
        }
    };
    assert_eq!(**num(2).call(&swap, &mut SpinWait::new(&mut answer)), 2);
    assert_eq!(**first.try_take().unwrap(), 1);
}

#[test]
fn a_server_thread_answers_and_its_clients_wait() {
    let port = Arc::new(SpinPort::<Num>::new());
    let server = thread::spawn({
        let port = port.clone();
        move || {
            let w = &mut ThreadWait::new();
            let mut receiver = port.receiver();
            let mut served = 0;
            while let Some(mut r) = receiver.wait(w) {
                **r += 1;
                served += 1;
                r.reply();
            }
            served
        }
    });
    let per_client = if cfg!(miri) { 5 } else { 200 };
    let clients = [0, 1, 2].map(|_| {
        let port = port.clone();
        thread::spawn(move || {
            let w = &mut ThreadWait::new();
            let mut msg = num(0);
            for _ in 0..per_client {
                msg = msg.call(&port, w);
                msg.outcome().unwrap();
            }
            **msg
        })
    });
    for client in clients {
        assert_eq!(client.join().unwrap(), per_client);
    }
    port.close();
    assert_eq!(server.join().unwrap(), 3 * per_client);
    let stats = port.stats();
    assert_eq!((stats.queued, stats.received), (3 * per_client, 3 * per_client));
    assert!((1..=3).contains(&stats.high_water));
}

#[test]
fn urgent_messages_come_first_and_each_class_in_its_order() {
    fn expect(mut get: impl FnMut() -> Option<Request<u64>>) {
        let order: Vec<u64> = std::iter::from_fn(|| get().map(|r| **r)).collect();
        assert_eq!(order, [11, 13, 10, 12, 14]);
    }
    fn send(port: &dyn Port<Num>) {
        for n in 10..15 {
            let mut msg = num(n);
            if n % 2 == 1 {
                msg.set_urgent();
            }
            msg.post(port);
        }
    }
    let spin = SpinPort::new();
    let mut receiver = spin.receiver();
    send(&spin);
    assert_eq!(spin.len(), 5);
    expect(|| receiver.get());
    send(&spin);
    let (mut some, mut all) = (receiver.get_up_to(3), receiver.get_up_to(9));
    assert_eq!((some.len(), all.len()), (3, 2));
    some.append(&mut all);
    expect(|| some.pop());
    assert_eq!((spin.stats().urgent, spin.stats().high_water), (4, 5));

    let lockless = WakerPort::new();
    let mut receiver = lockless.receiver().unwrap();
    send(&lockless);
    expect(|| receiver.get());
    assert_eq!((receiver.stats().urgent, receiver.stats().high_water), (2, 5));
}

#[test]
fn a_receipt_comes_once_when_the_message_is_first_queued() {
    for port in [&SpinPort::<Num>::new() as &dyn Port<Num>, &WakerPort::<Num>::new()] {
        let (receipts, waker) = counting();
        let mut msg = num(1);
        msg.set_receipt(waker);
        let sent = msg.start(port);
        assert_eq!(receipts.0.load(SeqCst), 1);
        assert_eq!(Arc::strong_count(&receipts), 1, "the waker is gone");
        drop(sent);
    }
    // Answered at once, it stands in no queue.
    let (receipts, waker) = counting();
    let mut msg = num(1);
    msg.set_receipt(waker);
    drop(now(|w| msg.call(&NullPort, w)));
    assert_eq!(receipts.0.load(SeqCst), 0);
}

#[test]
fn a_forwarded_message_is_answered_by_the_second_port_to_its_originator() {
    let (first, second) = (SpinPort::new(), SpinPort::new());
    let (mut at_first, mut at_second) = (first.receiver(), second.receiver());
    let sent = num(1).start(&first);
    let mut r = at_first.get().unwrap();
    **r += 10;
    r.forward(&second);
    let mut r = at_second.get().unwrap();
    **r += 100;
    r.reply();
    assert_eq!(**sent.try_take().unwrap(), 111);
    // Forwarded to one that answers at once.
    let sent = num(5).start(&first);
    at_first.get().unwrap().forward(&PutOnly::new(Put::Done::<Num>));
    assert_eq!(**sent.try_take().unwrap(), 5);
}

#[test]
fn a_dropped_request_is_answered_as_orphaned_and_the_next_journey_is_clean() {
    let port = SpinPort::new();
    let mut receiver = port.receiver();
    let sent = num(1).start(&port);
    drop(receiver.get());
    let msg = sent.try_take().unwrap();
    assert_eq!(msg.outcome(), Err(Unanswered::Orphaned));
    let sent = msg.start(&port);
    receiver.get().unwrap().reply();
    assert_eq!(sent.try_take().unwrap().outcome(), Ok(()));
}

#[test]
fn the_end_of_the_last_receiver_closes_the_port() {
    let port = SpinPort::new();
    let before = num(1).start(&port);
    let (one, two) = (port.receiver(), port.receiver());
    drop(one);
    assert!(!before.is_done(), "there is another");
    drop(two);
    assert_eq!(before.try_take().unwrap().outcome(), Err(Unanswered::PortClosed));
    assert_eq!(now(|w| num(2).call(&port, w)).outcome(), Err(Unanswered::PortClosed));
    assert_eq!(port.stats().refused, 2);
    // A receiver that comes too late is told.
    assert!(now(|w| port.receiver().wait(w)).is_none());

    let port = WakerPort::new();
    let [queued, taken] = [1, 2].map(|n| num(n).start(&port));
    let mut receiver = port.receiver().unwrap();
    assert!(port.receiver().is_none(), "there is one");
    receiver.get().unwrap().reply();
    assert_eq!(queued.try_take().unwrap().outcome(), Ok(()));
    let late = num(3).start(&port);
    drop(receiver);
    for sent in [taken, late, num(4).start(&port)] {
        assert_eq!(sent.try_take().unwrap().outcome(), Err(Unanswered::PortClosed));
    }
    assert!(now(|w| port.receiver().unwrap().wait(w)).is_none());
}

#[test]
fn a_port_torn_down_with_messages_queued_answers_them() {
    let (spin, lockless) = (SpinPort::new(), WakerPort::new());
    let sent = [num(1).start(&spin), num(2).start(&lockless)];
    drop((spin, lockless));
    for sent in sent {
        assert_eq!(sent.try_take().unwrap().outcome(), Err(Unanswered::PortClosed));
    }
}

#[test]
fn a_server_that_panics_leaves_no_client_waiting() {
    let port = Arc::new(SpinPort::<Num>::new());
    let server = thread::spawn({
        let port = port.clone();
        move || {
            let mut receiver = port.receiver();
            let _in_hand = receiver.wait(&mut ThreadWait::new());
            panic!("a bad day");
        }
    });
    let w = &mut ThreadWait::new();
    let [a, b] = [1, 2].map(|n| num(n).start(&port));
    let outcomes = [a, b].map(|sent| sent.wait(w).outcome());
    assert!(server.join().is_err());
    assert_eq!(outcomes[0], Err(Unanswered::Orphaned));
    assert_eq!(outcomes[1], Err(Unanswered::PortClosed));
    assert_eq!(num(3).call(&port, w).outcome(), Err(Unanswered::PortClosed));
}

#[test]
fn an_abort_ends_what_is_queued_at_once() {
    let port = SpinPort::new();
    let mut receiver = port.receiver();
    let sents = [1, 2, 3].map(|n| num(n).start(&port));
    sents[1].abort(&port);
    assert_eq!(sents.each_ref().map(|s| s.is_done()), [false, true, false]);
    assert_eq!(port.stats().recalled, 1);
    let [one, two, three] = sents;
    assert_eq!(two.try_take().unwrap().outcome(), Err(Unanswered::Aborted));
    assert_eq!(**receiver.get().unwrap(), 1);
    assert_eq!(**receiver.get().unwrap(), 3);
    assert!(one.is_done() && three.is_done());
    // Aborting what came back changes nothing.
    one.abort(&port);
    assert_eq!(one.try_take().unwrap().outcome(), Err(Unanswered::Orphaned));
}

#[test]
fn an_abort_of_what_a_receiver_keeps_is_told_and_answered_once() {
    let spin = SpinPort::new();
    let mut receiver = spin.receiver();
    keep_and_abort(&spin, |w| receiver.wait_event(w, None).unwrap());
    let lockless = WakerPort::new();
    let mut receiver = lockless.receiver().unwrap();
    keep_and_abort(&lockless, |w| receiver.wait_event(w, None).unwrap());

    fn keep_and_abort(port: &dyn Port<Num>, mut event: impl FnMut(&mut SpinWait<'_>) -> Event<Num>) {
        let sents = [1, 2].map(|n| num(n).start(port));
        let mut kept = dfly_msgport::List::new();
        for _ in 0..2 {
            let Event::Arrived(r) = now(&mut event) else { panic!("no job") };
            kept.push(r);
        }
        sents[0].abort(port);
        assert!(!sents[0].is_done());
        assert!(matches!(now(&mut event), Event::Recall));
        for r in kept.extract(Request::is_abort_asked) {
            r.refuse(Unanswered::Aborted);
        }
        kept.for_each(Request::reply);
        let [one, two] = sents;
        assert_eq!(one.try_take().unwrap().outcome(), Err(Unanswered::Aborted));
        assert_eq!(two.try_take().unwrap().outcome(), Ok(()));
    }
}

#[test]
fn an_aborted_message_that_is_forwarded_ends_at_the_next_port() {
    let (port, next) = (SpinPort::new(), SpinPort::new());
    let (mut receiver, mut at_next) = (port.receiver(), next.receiver());
    let sent = num(1).start(&port);
    let r = receiver.get().unwrap();
    sent.abort(&port);
    r.forward(&next);
    num(2).post(&next);
    assert_eq!(**at_next.get().unwrap(), 2, "what was aborted is not given out");
    let msg = sent.try_take().unwrap();
    assert_eq!(msg.outcome(), Err(Unanswered::Aborted));

    // The receiver that forwards may tell the next port itself.
    let sent = msg.start(&port);
    receiver.get().unwrap().forward(&next);
    sent.abort(&port);
    assert!(!sent.is_done());
    assert!(matches!(now(|w| receiver.wait_event(w, None)).unwrap(), Event::Recall));
    next.sweep();
    assert_eq!(sent.try_take().unwrap().outcome(), Err(Unanswered::Aborted));
}

#[test]
fn withdrawing_works_until_somebody_has_begun() {
    let port = SpinPort::new();
    let mut receiver = port.receiver();
    let msg = num(1).start(&port).withdraw(&port).unwrap();
    assert_eq!((**msg, msg.outcome()), (1, Err(Unanswered::Withdrawn)));
    assert!(receiver.get().is_none());

    let sent = msg.start(&port);
    let r = receiver.get().unwrap();
    let sent = sent.withdraw(&port).unwrap_err();
    // No trace of the attempt is left.
    assert!(!r.is_abort_asked());
    r.forward(&port);
    receiver.get().unwrap().reply();
    assert_eq!(sent.withdraw(&port).unwrap().outcome(), Ok(()), "answered before");

    // Behind a lock-free queue nobody but the receiver reaches it.
    let lockless = WakerPort::new();
    let sent = num(2).start(&lockless).withdraw(&lockless).unwrap_err();
    lockless.receiver().unwrap().get().unwrap().reply();
    assert_eq!(sent.try_take().unwrap().outcome(), Ok(()));
}

#[test]
fn a_call_that_runs_late_can_be_waited_for_again_aborted_or_given_up() {
    let port = SpinPort::new();
    let mut receiver = port.receiver();
    let w = &mut ThreadWait::new();
    let soon = || host::now().saturating_add(Duration::from_millis(1));
    let sent = num(1).call_until(&port, w, soon()).unwrap_err();
    let sent = sent.wait_until(w, soon()).unwrap_err();
    sent.abort(&port);
    assert_eq!(sent.wait(w).outcome(), Err(Unanswered::Aborted));

    let pool = Pool::new(1, || Num::new(7));
    drop(pool.get().unwrap().call_until(&port, w, soon()).unwrap_err());
    assert!(pool.get().is_none(), "the server has it");
    receiver.get().unwrap().reply();
    assert!(pool.get().is_some());
}

#[test]
fn waiting_with_a_deadline_is_told_that_nothing_came() {
    let (spin, lockless) = (SpinPort::<Num>::new(), WakerPort::<Num>::new());
    let w = &mut ThreadWait::new();
    let soon = || Some(host::now().saturating_add(Duration::from_millis(1)));
    assert!(spin.receiver().wait_event(w, soon()).is_err());
    assert!(lockless.receiver().unwrap().wait_event(w, soon()).is_err());
}

#[test]
fn a_receiver_that_gives_up_passes_its_wake_up_on() {
    let port = SpinPort::<Num>::new();
    let (mut one, mut two) = (port.receiver(), port.receiver());
    let (first, second) = (counting(), counting());
    let mut sleeping_two = pin!(two.next());
    {
        let mut sleeping_one = pin!(one.next());
        assert!(sleeping_one.as_mut().poll(&mut Context::from_waker(&first.1)).is_pending());
        assert!(sleeping_two.as_mut().poll(&mut Context::from_waker(&second.1)).is_pending());
        num(1).post(&port);
        assert_eq!((first.0.0.load(SeqCst), second.0.0.load(SeqCst)), (1, 0), "one is woken");
    }
    assert_eq!(second.0.0.load(SeqCst), 1, "the other instead");
    let got = sleeping_two.as_mut().poll(&mut Context::from_waker(&second.1));
    assert!(matches!(got, Poll::Ready(Event::Arrived(_))));
    assert_eq!(port.stats().wakes, 2);
}

#[test]
fn a_receiver_polled_with_another_waker_is_woken_by_the_last() {
    let (spin, lockless) = (SpinPort::<Num>::new(), WakerPort::<Num>::new());
    let (mut one, mut two) = (spin.receiver(), lockless.receiver().unwrap());
    let (mut one, mut two) = (pin!(one.next()), pin!(two.next()));
    let (old, new) = (counting(), counting());
    for waker in [&old.1, &new.1] {
        assert!(one.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
        assert!(two.as_mut().poll(&mut Context::from_waker(waker)).is_pending());
    }
    assert_eq!(Arc::strong_count(&old.0), 2, "the old one is held by nobody but this test");
    num(1).post(&spin);
    num(1).post(&lockless);
    assert_eq!((old.0.0.load(SeqCst), new.0.0.load(SeqCst)), (0, 2));
}

/// So tasks of an executor with several threads may receive and wait.
#[test]
fn futures_of_ports_may_change_threads() {
    fn may_change<F: Future + Send>(_: &F) {}
    let (spin, lockless) = (SpinPort::<Num>::new(), WakerPort::<Num>::new());
    let (mut one, mut two) = (spin.receiver(), lockless.receiver().unwrap());
    may_change(&one.next());
    may_change(&two.next());
    may_change(&num(1).start(&spin));
}

#[test]
fn special_ports_do_their_one_thing() {
    assert_eq!(now(|w| num(1).call(&NullPort, w)).outcome(), Err(Unanswered::PortClosed));
    let pool = Pool::new(1, || Num::new(1));
    let echo = PutOnly::new(Put::Done::<Num>);
    pool.get().unwrap().send(&echo, &NullReply);
    let seen = Arc::new(AtomicUsize::new(0));
    let note = seen.clone();
    let replies = ReplyOnly::new(move |msg: Msg<u64>| _ = note.fetch_add(**msg as usize, SeqCst));
    pool.get().unwrap().send(&echo, Arc::new(replies));
    assert_eq!(seen.load(SeqCst), 1);
    let sent = std::panic::catch_unwind(|| num(1).post(&PanicPort));
    assert!(sent.is_err());
    let sent = std::panic::catch_unwind(|| num(1).send(&PutOnly::new(Put::Done::<Num>), &PanicReply));
    assert!(sent.is_err());
    assert!(pool.get().is_some());
}

#[test]
fn a_layer_and_a_short_cut_pass_aborts_on() {
    let below = Arc::new(SpinPort::<Num>::new());
    let layer = Layer::new(below.clone(), |mut r: Request<u64>, below: &dyn Port<Num>| {
        **r += 1;
        below.put(r)
    });
    let port = ShortCut::new(layer, || false, |r: Request<u64>| Put::Done(r));
    let sent = num(1).start(&port);
    sent.abort(&port);
    let msg = sent.try_take().unwrap();
    assert_eq!((**msg, msg.outcome()), (2, Err(Unanswered::Aborted)));
}
