//! Time: the CPUs' counter, and timers, as `pc64` has them: put to a queue and woken from it in thread context. The interrupt
//! only says that it is time.

use alloc::vec::Vec;
use core::future::poll_fn;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::task::{Poll, Waker};

use atomic_waker::AtomicWaker;
use dfly_hal::sync::Lock;
use dfly_hal::{Instant, Wait, block_on};

use crate::arch;

const NANOS_PER_SECOND: u128 = 1_000_000_000;

static HERTZ: AtomicU64 = AtomicU64::new(1);

/// The counter counts so often in a second. Once, before the clock is asked.
pub fn init(hertz: u64) {
    HERTZ.store(hertz.max(1), Ordering::Relaxed);
}

/// The current instant, on whichever CPU.
pub fn now() -> Instant {
    let nanos = u128::from(arch::counter()) * NANOS_PER_SECOND / u128::from(HERTZ.load(Ordering::Relaxed));
    Instant::from_nanos(nanos as u64)
}

/// Timers that are not due, in no order.
static TIMERS: Lock<Vec<(Instant, Waker)>> = Lock::new(Vec::new());
static IS_DUE: AtomicBool = AtomicBool::new(false);
static SERVER: AtomicWaker = AtomicWaker::new();

/// Wakes `waker` at `at`. Thread context: a timer may need memory.
pub fn wake_at(at: Instant, waker: &Waker) {
    if at <= now() {
        return waker.wake_by_ref();
    }
    // Before the lock: a waker is somebody else's code.
    let waker = waker.clone();
    let mut timers = TIMERS.lock();
    // Asked twice for the same, which waiters do that are polled again: one timer.
    if !timers.iter().any(|(other, its)| *other == at && its.will_wake(&waker)) {
        let is_first = timers.iter().all(|(other, _)| at < *other);
        timers.push((at, waker));
        if is_first {
            arm(at);
        }
    }
}

/// Wakes timers for ever: the work of one thread.
pub fn serve(w: &mut dyn Wait) -> ! {
    loop {
        let due = poll_fn(|cx| {
            SERVER.register(cx.waker());
            // After the registration, so that an interrupt between the two is not missed. Acquire: see `interrupt`.
            if IS_DUE.swap(false, Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
        });
        // Without a deadline it does not time out.
        let _ = block_on(w, due, None);
        while let Some(waker) = take_due() {
            waker.wake();
        }
    }
}

/// A timer that is due. If there is none, the next is waited for.
fn take_due() -> Option<Waker> {
    let mut timers = TIMERS.lock();
    let now = now();
    let due = timers.iter().position(|(at, _)| *at <= now);
    if due.is_none() {
        timers.iter().map(|(at, _)| *at).min().into_iter().for_each(arm);
    }
    due.map(|due| timers.swap_remove(due).1)
}

/// Sets this CPU's timer. That the thread is on another CPU when it fires does not matter.
fn arm(at: Instant) {
    let count = u128::from(at.as_nanos()) * u128::from(HERTZ.load(Ordering::Relaxed)) / NANOS_PER_SECOND;
    arch::set_timer(Some(u64::try_from(count).unwrap_or(u64::MAX - 1).saturating_add(1)));
}

/// The interrupt handler.
pub fn interrupt() {
    // Release: pairs with the Acquire in `serve`.
    IS_DUE.store(true, Ordering::Release);
    SERVER.wake();
}
