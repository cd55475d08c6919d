//! Waiting: who may block, and how.
//!
//! A function that may block takes `w: &mut dyn Wait`, per call, and never stores it. So its signature says that it
//! may block, and a thread's context that protects data can refuse to be lent while a reference into that data lives.

use core::future::Future;
use core::pin::{Pin, pin};
use core::task::{Context, Poll, Waker};

use crate::Instant;

#[cfg(any(feature = "std", loom))]
mod thread;
#[cfg(any(feature = "std", loom))]
pub use thread::ThreadWait;

/// The deadline of a wait passed. What was waited for is still the caller's and can be waited for again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the wait timed out")]
pub struct TimedOut;

/// Whoever may wait: an LWKT thread's context, a parked host thread, a polling loop.
///
/// Thread context only: an interrupt handler has none to lend.
pub trait Wait {
    /// Blocks the caller until `f` completes, or until `deadline` has passed.
    ///
    /// The deadline is told by the clock of the machine that the waiter belongs to; `None` waits for ever. `f` is
    /// polled at least once, and looked at a last time after the deadline before [`TimedOut`] is returned, so what
    /// completed in time is not missed by a waiter that was late. An implementation should return `Ok` only when `f`
    /// has completed; [`block_on`] does not rely on it.
    ///
    /// An implementation may name the place of its caller ([`Location::caller`](core::panic::Location::caller)) to those
    /// who may not wait; through a `dyn Wait` that is lost.
    #[track_caller]
    fn wait(
        &mut self,
        f: Pin<&mut dyn Future<Output = ()>>,
        deadline: Option<Instant>,
    ) -> Result<(), TimedOut>;
}

impl<W: Wait + ?Sized> Wait for &mut W {
    #[track_caller]
    fn wait(
        &mut self,
        f: Pin<&mut dyn Future<Output = ()>>,
        deadline: Option<Instant>,
    ) -> Result<(), TimedOut> {
        (**self).wait(f, deadline)
    }
}

/// Waits for `f` and returns its output. Pass `&mut future`, or a pinned future by `as_mut()`, to keep the future when
/// the wait times out: it can be waited for again.
///
/// What is ready at once is returned without asking `w`, whatever the deadline.
#[track_caller]
pub fn block_on<W, F>(w: &mut W, f: F, deadline: Option<Instant>) -> Result<F::Output, TimedOut>
where
    W: Wait + ?Sized,
    F: Future,
{
    let mut f = pin!(f);
    if let Poll::Ready(v) = f.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Ok(v);
    }
    let mut out = None;
    // What counts is whether the output is there, not what the waiter says: an output must not be lost.
    let _ = w.wait(pin!(async { out = Some(f.await) }), deadline);
    out.ok_or(TimedOut)
}

/// A waiter that looks again and again, and calls `poll` between two looks: for early boot, for tests, for a CPU that
/// polls its device.
///
/// ```
/// use dfly_hal::{Instant, SpinWait, TimedOut, block_on};
/// let mut looks = 0;
/// let mut poll = || looks += 1;                     // drives whatever is waited for
/// let clock = || Instant::from_nanos(5);
/// let mut w = SpinWait::with_clock(&mut poll, &clock);
/// let never = core::future::pending::<()>();
/// assert_eq!(block_on(&mut w, never, Some(Instant::from_nanos(5))), Err(TimedOut));
/// assert_eq!(looks, 1);
/// ```
pub struct SpinWait<'a> {
    poll: &'a mut dyn FnMut(),
    now: Option<&'a dyn Fn() -> Instant>,
}

impl<'a> SpinWait<'a> {
    /// A waiter without a clock: deadlines never pass.
    pub fn new(poll: &'a mut dyn FnMut()) -> Self {
        Self { poll, now: None }
    }

    /// A waiter that keeps deadlines by `now`.
    pub fn with_clock(poll: &'a mut dyn FnMut(), now: &'a dyn Fn() -> Instant) -> Self {
        Self { poll, now: Some(now) }
    }
}

impl Wait for SpinWait<'_> {
    fn wait(
        &mut self,
        mut f: Pin<&mut dyn Future<Output = ()>>,
        deadline: Option<Instant>,
    ) -> Result<(), TimedOut> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut late = false;
        while f.as_mut().poll(&mut cx).is_pending() {
            if late {
                return Err(TimedOut);
            }
            (self.poll)();
            late = matches!((deadline, self.now), (Some(at), Some(now)) if now() >= at);
            crate::sync::hint::spin_loop();
        }
        Ok(())
    }
}
