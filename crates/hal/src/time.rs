//! Time: a monotonic instant and the clock that tells it.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use core::time::Duration;

/// A point on the machine's monotonic clock, in nanoseconds since an arbitrary start (usually boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The latest representable instant, 584 years after the start: a deadline that never comes.
    pub const FAR_FUTURE: Self = Self(u64::MAX);

    /// The instant `ns` nanoseconds after the clock's start.
    pub const fn from_nanos(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the clock's start.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// This instant moved `d` into the future, or [`Self::FAR_FUTURE`] where that would overflow.
    pub fn saturating_add(self, d: Duration) -> Self {
        Self(u64::try_from(d.as_nanos()).map_or(u64::MAX, |ns| self.0.saturating_add(ns)))
    }

    /// Time from `earlier` to `self`, zero if `earlier` is later.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The machine's monotonic clock.
///
/// Callable from every context, interrupts included, except that `wake_at` may be limited to thread context by an
/// implementation that says so; never blocks.
///
/// # Implementation safety
/// Nothing unsafe may rely on a clock. `conformance::check_clock` checks the promises below.
pub trait Clock: Send + Sync {
    /// The current instant. Never goes backwards, on whichever CPU it is asked.
    fn now(&self) -> Instant;

    /// Wakes `waker` once, at `at` or soon after. A clock without timers may wake it at once: a waiter looks at
    /// [`Self::now`] again.
    fn wake_at(&self, at: Instant, waker: &Waker);
}

crate::forward! {
    impl Clock for &T, Box<T>, Arc<T> {
        fn now(&self) -> Instant;
        fn wake_at(&self, at: Instant, waker: &Waker);
    }
}

/// A future that completes when `clock` has reached `at`. Dropping it leaves at most one needless wake behind.
///
/// ```
/// # #[cfg(feature = "std")] {
/// use core::time::Duration;
/// use dfly_hal::{Clock, ThreadWait, block_on, host::HostClock, sleep_until};
/// let clock = HostClock::new();
/// let soon = clock.now().saturating_add(Duration::from_millis(2));
/// block_on(&mut ThreadWait::new(), sleep_until(&clock, soon), None).unwrap();
/// assert!(clock.now() >= soon);
/// # }
/// ```
pub fn sleep_until<C: Clock + ?Sized>(clock: &C, at: Instant) -> SleepUntil<'_, C> {
    SleepUntil { clock, at }
}

/// What [`sleep_until`] returns.
#[derive(Debug)]
#[must_use = "a future does nothing until it is polled"]
pub struct SleepUntil<'a, C: ?Sized> {
    clock: &'a C,
    at: Instant,
}

impl<C: Clock + ?Sized> Future for SleepUntil<'_, C> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.at {
            return Poll::Ready(());
        }
        // At each poll anew: the waker may be another one, and the clock may have woken us early.
        self.clock.wake_at(self.at, cx.waker());
        Poll::Pending
    }
}
