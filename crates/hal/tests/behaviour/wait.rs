use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use dfly_hal::{Instant, SpinWait, ThreadWait, TimedOut, Wait, block_on, host};

fn soon(ms: u64) -> Option<Instant> {
    Some(host::now().saturating_add(Duration::from_millis(ms)))
}

#[test]
fn what_is_ready_at_once_is_returned_even_after_the_deadline() {
    let past = Some(Instant::from_nanos(0));
    assert_eq!(block_on(&mut ThreadWait::new(), async { 1 }, past), Ok(1));
}

#[test]
fn a_parked_thread_times_out_and_can_wait_again_for_the_same() {
    let mut w = ThreadWait::new();
    let open = Arc::new(AtomicBool::new(false));
    let mut gate = pin!({
        let open = open.clone();
        poll_fn(move |cx| {
            if open.load(Ordering::Acquire) {
                return Poll::Ready(5);
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    });
    // It is woken all the time, and times out nevertheless.
    assert_eq!(block_on(&mut w, gate.as_mut(), soon(2)), Err(TimedOut));
    open.store(true, Ordering::Release);
    assert_eq!(block_on(&mut w, gate.as_mut(), soon(2)), Ok(5));
    let deadline = soon(2);
    assert_eq!(block_on(&mut w, pending::<()>(), deadline), Err(TimedOut));
    assert!(Some(host::now()) >= deadline);
}

#[test]
fn a_wake_whose_unpark_was_eaten_is_not_lost() {
    let mut w = ThreadWait::new();
    let mut polls = 0;
    let f = poll_fn(|cx| {
        polls += 1;
        if polls == 4 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        // Something inside parks for its own reasons, and gets our token.
        std::thread::park_timeout(Duration::from_millis(1));
        Poll::Pending
    });
    assert_eq!(block_on(&mut w, f, soon(60_000)), Ok(()));
}

#[test]
fn a_thread_is_woken_by_another() {
    let (open, waker) = (AtomicBool::new(false), std::sync::Mutex::new(None));
    std::thread::scope(|s| {
        s.spawn(|| {
            loop {
                if let Some(waker) = waker.lock().unwrap().take() {
                    let waker: std::task::Waker = waker;
                    open.store(true, Ordering::Release);
                    return waker.wake();
                }
                std::thread::yield_now();
            }
        });
        // The first look has a waker that wakes nobody, so the gate is closed until the second.
        let mut looks = 0;
        let f = poll_fn(|cx| {
            looks += 1;
            if open.load(Ordering::Acquire) {
                return Poll::Ready(());
            }
            if looks == 2 {
                *waker.lock().unwrap() = Some(cx.waker().clone());
            }
            Poll::Pending
        });
        assert_eq!(block_on(&mut ThreadWait::new(), f, None), Ok(()));
    });
}

#[test]
fn a_spinning_waiter_drives_what_it_waits_for() {
    let n = Cell::new(0);
    let mut poll = || n.set(n.get() + 1);
    let f = poll_fn(|_| if n.get() == 3 { Poll::Ready("done") } else { Poll::Pending });
    assert_eq!(block_on(&mut SpinWait::new(&mut poll), f, None), Ok("done"));
    assert_eq!(n.get(), 3);
}

#[test]
fn a_spinning_waiter_looks_a_last_time_after_the_deadline() {
    let n = Cell::new(0);
    let mut poll = || n.set(n.get() + 1);
    let now = || Instant::from_nanos(n.get());
    let f = poll_fn(|_| if n.get() == 1 { Poll::Ready(()) } else { Poll::Pending });
    let mut w = SpinWait::with_clock(&mut poll, &now);
    assert_eq!(block_on(&mut w, f, Some(Instant::from_nanos(1))), Ok(()));
}

/// Says what it likes.
struct Liar(Result<(), TimedOut>);

impl Wait for Liar {
    fn wait(&mut self, f: Pin<&mut dyn Future<Output = ()>>, _: Option<Instant>) -> Result<(), TimedOut> {
        if self.0.is_err() {
            let _ = f.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
        }
        self.0
    }
}

#[test]
fn what_a_waiter_says_cannot_lose_or_invent_an_output() {
    let mut looks = 0;
    let f = poll_fn(|_| {
        looks += 1;
        if looks == 2 { Poll::Ready(Box::new(1)) } else { Poll::Pending }
    });
    assert_eq!(block_on(&mut Liar(Err(TimedOut)), f, None), Ok(Box::new(1)));
    assert_eq!(block_on(&mut Liar(Ok(())), pending::<u8>(), None), Err(TimedOut));
}

#[test]
fn a_waiter_can_be_passed_by_reference_and_erased() {
    fn inner(w: &mut dyn Wait) -> u8 {
        block_on(w, async { 3 }, None).unwrap()
    }
    let mut w = ThreadWait::new();
    assert_eq!(inner(&mut &mut w), 3);
}
