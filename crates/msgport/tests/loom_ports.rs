//! Models of originators, receivers and ports (L8 to L10 of the fact sheet, and the queues below them).
//!
//! `RUSTFLAGS="--cfg loom" LOOM_MAX_PREEMPTIONS=2 cargo test -p dfly-msgport --release --test loom_ports`
//!
//! As in `loom.rs`, patches in `mutations/` weaken what a model relies on.
#![cfg(loom)]

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize as Counter;
use std::sync::atomic::Ordering::SeqCst;
use std::task::{Context, Poll, Wake, Waker};

use dfly_msgport::{Body, Event, Message, Msg, Pending, SpinPort, Unanswered, WakerPort};
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

/// Content whose plain field shows a race, and whose drops are counted.
struct Load {
    value: u32,
    drops: Arc<Counter>,
}

impl Load {
    fn msg(value: u32, drops: &Arc<Counter>) -> Msg<Load> {
        Msg::with(Self { value, drops: drops.clone() })
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.drops.fetch_add(1, SeqCst);
    }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

impl Flag {
    fn woken(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
    fn wait(&self) {
        while !self.woken() {
            thread::yield_now();
        }
    }
}

/// Waits as a thread does: sleeps only when it was told that it will be woken.
fn wait<T: Body>(mut sent: Pending<T>) -> dfly_msgport::Own<T> {
    let flag = Arc::new(Flag::default());
    let waker = Waker::from(flag.clone());
    match Future::poll(pin!(&mut sent), &mut Context::from_waker(&waker)) {
        Poll::Ready(own) => own,
        Poll::Pending => {
            flag.wait();
            sent.try_take().unwrap()
        }
    }
}

type Spin = SpinPort<Message<Load>>;
type Lockless = WakerPort<Message<Load>>;

/// The next event, by a receiver that sleeps as a thread does.
fn next(receiver: &mut dfly_msgport::Receiver<'_, Message<Load>>) -> Event<Message<Load>> {
    let mut next = pin!(receiver.next());
    loop {
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        match next.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(event) => return event,
            Poll::Pending => flag.wait(),
        }
    }
}

/// L8: the reply, the originator that waits and frees at once, and the receiver that slept.
#[test]
fn a_server_that_sleeps_hears_of_a_message_and_its_answer_is_seen() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Spin::new());
        let server = {
            let port = port.clone();
            thread::spawn(move || {
                let mut receiver = port.receiver();
                let Event::Arrived(mut request) = next(&mut receiver) else { panic!("no request") };
                request.value += 1;
                request.reply();
            })
        };
        let msg = wait(Load::msg(6, &drops).start(&*port));
        assert_eq!((msg.value, msg.outcome()), (7, Ok(())));
        drop(msg);
        server.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// L9: withdrawing against receiving and forwarding.
#[test]
fn a_withdrawn_message_is_received_or_comes_back_and_never_both() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let ports = loom::sync::Arc::new([Spin::new(), Spin::new()]);
        let sent = Load::msg(1, &drops).start(&ports[0]);
        let server = {
            let ports = ports.clone();
            thread::spawn(move || {
                let [mut first, mut second] = ports.each_ref().map(SpinPort::receiver);
                let Some(mut request) = first.get() else { return 0 };
                request.value += 1;
                request.forward(&ports[1]);
                let Some(request) = second.get() else { return 1 };
                request.reply();
                2
            })
        };
        let withdrawn = sent.withdraw(&ports[0]);
        let stage = server.join().unwrap();
        match withdrawn {
            Ok(msg) => match msg.outcome() {
                Ok(()) => assert_eq!((stage, msg.value), (2, 2)),
                outcome => {
                    assert_eq!(outcome, Err(Unanswered::Withdrawn));
                    assert_eq!(msg.value, 1 + u32::from(stage == 1));
                    assert!(stage < 2);
                }
            },
            // The server has it, had it, or ended it because it saw the wish.
            Err(sent) => {
                let msg = wait(sent);
                match msg.outcome() {
                    Ok(()) => assert_eq!(stage, 2),
                    outcome => assert_eq!((outcome, stage < 2), (Err(Unanswered::Withdrawn), true)),
                }
            }
        }
        assert_eq!(drops.load(SeqCst), 1);
    });
}

/// L10: a receiver that keeps a request and sleeps hears of the abort; one that answers wins or loses, not both.
#[test]
fn an_abort_finds_what_is_kept_and_races_the_answer_to_one_outcome() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Spin::new());
        let sent = Load::msg(1, &drops).start(&*port);
        let server = {
            let port = port.clone();
            thread::spawn(move || {
                let mut receiver = port.receiver();
                // Aborted in the queue: nothing to keep.
                let Some(kept) = receiver.get() else { return true };
                loop {
                    match next(&mut receiver) {
                        Event::Recall if kept.is_abort_asked() => break,
                        Event::Recall => {}
                        _ => panic!("nothing else comes"),
                    }
                }
                kept.refuse(Unanswered::Aborted);
                false
            })
        };
        sent.abort(&*port);
        assert_eq!(wait(sent).outcome(), Err(Unanswered::Aborted));
        server.join().unwrap();
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn an_abort_that_races_an_answer_has_one_outcome() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Spin::new());
        let sent = Load::msg(1, &drops).start(&*port);
        let server = {
            let port = port.clone();
            thread::spawn(move || {
                let mut receiver = port.receiver();
                let Some(mut request) = receiver.get() else { return false };
                request.value = 2;
                if request.is_abort_asked() {
                    request.refuse(Unanswered::Aborted);
                    false
                } else {
                    request.reply();
                    true
                }
            })
        };
        sent.abort(&*port);
        let msg = wait(sent);
        let answered = server.join().unwrap();
        assert_eq!(msg.outcome(), if answered { Ok(()) } else { Err(Unanswered::Aborted) });
        assert!(!answered || msg.value == 2);
    });
}

#[test]
fn the_end_of_the_last_receiver_and_a_put_leave_no_message_behind() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Spin::new());
        let receiver = port.receiver();
        let client = {
            let (port, drops) = (port.clone(), drops.clone());
            thread::spawn(move || wait(Load::msg(1, &drops).start(&*port)).outcome())
        };
        drop(receiver);
        assert_eq!(client.join().unwrap(), Err(Unanswered::PortClosed));
        assert_eq!(drops.load(SeqCst), 1);
    });
}

#[test]
fn a_receiver_that_gives_up_leaves_the_message_to_one_that_sleeps() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Spin::new());
        let (mut fickle, mut steady) = (port.receiver(), port.receiver());
        let client = {
            let (port, drops) = (port.clone(), drops.clone());
            thread::spawn(move || Load::msg(1, &drops).post(&*port))
        };
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(flag.clone());
        let mut giving_up = Box::pin(fickle.next());
        let mut sleeping = pin!(steady.next());
        let unheard = Waker::from(Arc::new(Flag::default()));
        let first = giving_up.as_mut().poll(&mut Context::from_waker(&unheard)).is_ready();
        let second = sleeping.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        drop(giving_up);
        client.join().unwrap();
        assert!(first || second || flag.woken(), "a message stands in the port, and all sleep");
    });
}

/// The queue without a lock: nothing is lost, each sender's order is kept, and what was written is seen.
#[test]
fn what_two_push_one_takes_in_each_ones_order() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Lockless::new());
        let other = {
            let (port, drops) = (port.clone(), drops.clone());
            thread::spawn(move || Load::msg(10, &drops).post(&*port))
        };
        let mut receiver = port.receiver().unwrap();
        Load::msg(1, &drops).post(&*port);
        let mut seen: Vec<u32> = receiver.get().into_iter().map(|r| r.value).collect();
        Load::msg(2, &drops).post(&*port);
        other.join().unwrap();
        seen.extend(std::iter::from_fn(|| receiver.get()).map(|r| r.value));
        seen.retain(|&value| value != 10);
        assert_eq!(seen, [1, 2]);
        assert_eq!(drops.load(SeqCst), 3);
    });
}

/// Receives both messages of a client, waiting to be woken only when it has looked in vain so often.
fn receive_two(looks_in_vain: usize) {
    loom::model(move || {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Lockless::new());
        let client = {
            let (port, drops) = (port.clone(), drops.clone());
            thread::spawn(move || {
                Load::msg(1, &drops).post(&*port);
                Load::msg(2, &drops).post(&*port);
            })
        };
        let mut receiver = port.receiver().unwrap();
        let mut values = 0;
        let mut flags = Vec::new();
        while values < 3 {
            let flag = Arc::new(Flag::default());
            let waker = Waker::from(flag.clone());
            match receiver.poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Event::Arrived(request)) => values += request.value,
                Poll::Ready(_) => panic!("nothing else comes"),
                // It has woken itself: the other thread is to go on.
                Poll::Pending if flag.woken() => thread::yield_now(),
                Poll::Pending if flags.len() < looks_in_vain => {}
                Poll::Pending => flag.wait(),
            }
            drop(waker);
            flags.push(flag);
        }
        client.join().unwrap();
        drop(receiver);
        assert!(flags.iter().all(|flag| Arc::strong_count(flag) == 1), "a waker stays behind");
        assert_eq!(drops.load(SeqCst), 2);
    });
}

#[test]
fn a_waker_port_wakes_a_receiver_that_sleeps_again_with_another_waker() {
    receive_two(0);
}

/// So it may find its waker in the hands of the sender that it has the message of.
#[test]
fn a_waker_port_wakes_a_receiver_that_looks_before_it_is_woken() {
    receive_two(3);
}

#[test]
fn a_sweep_of_a_waker_port_is_heard_by_a_receiver_that_keeps_a_request() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Lockless::new());
        let mut receiver = port.receiver().unwrap();
        let sent = Load::msg(1, &drops).start(&*port);
        let kept = receiver.get().unwrap();
        let client = {
            let port = port.clone();
            thread::spawn(move || {
                sent.abort(&*port);
                sent
            })
        };
        loop {
            let flag = Arc::new(Flag::default());
            let waker = Waker::from(flag.clone());
            match receiver.poll_next(&mut Context::from_waker(&waker)) {
                Poll::Ready(Event::Recall) => break,
                Poll::Ready(_) => panic!("nothing else comes"),
                Poll::Pending => flag.wait(),
            }
        }
        assert!(kept.is_abort_asked(), "the wish is seen with the event");
        kept.refuse(Unanswered::Aborted);
        assert!(client.join().unwrap().is_done());
    });
}

#[test]
fn a_waker_port_that_closes_answers_what_is_pushed_meanwhile() {
    loom::model(|| {
        let drops = Arc::new(Counter::new(0));
        let port = loom::sync::Arc::new(Lockless::new());
        let receiver = port.receiver().unwrap();
        let client = {
            let (port, drops) = (port.clone(), drops.clone());
            thread::spawn(move || wait(Load::msg(1, &drops).start(&*port)).outcome())
        };
        drop(receiver);
        assert_eq!(client.join().unwrap(), Err(Unanswered::PortClosed));
        assert_eq!(drops.load(SeqCst), 1);
    });
}
