//! Time: a monotonic instant and the clock that tells it.

use core::task::Waker;
use core::time::Duration;

/// A point on the machine's monotonic clock, in nanoseconds since an arbitrary start (usually boot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The latest representable instant: a deadline that never comes.
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
/// Callable from every context, interrupts included; never blocks.
pub trait Clock: Send + Sync {
    /// The current instant. Never goes backwards, on whichever CPU it is asked.
    fn now(&self) -> Instant;

    /// Wakes `waker` once, at `at` or soon after. A clock without timers may wake it at once: a waiter looks at
    /// [`Self::now`] again.
    fn wake_at(&self, at: Instant, waker: &Waker);
}
