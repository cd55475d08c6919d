//! Why a lock was not had.

use core::fmt;
use core::panic::Location;

use super::guard::SharedGuard;
use super::site::{Report, Site};

/// Why a lock was not had, which one, and who was in the way.
#[derive(Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{cause}: {}", self.report())]
#[non_exhaustive]
pub struct LockError {
    /// Why.
    pub cause: Cause,
    /// The lock's name.
    pub name: Option<&'static str>,
    /// Where it was taken last.
    pub taken_at: Option<&'static Location<'static>>,
}

/// Why a lock was not had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// The deadline passed first (`EWOULDBLOCK`).
    #[error("not free before the deadline")]
    TimedOut,
    /// The holder cancelled those who wait and agreed to it (`ENOLCK`).
    #[error("the holder cancelled the wait")]
    Cancelled,
    /// The wait was aborted by [`Acquire::abort`](super::Acquire::abort) (`ENOLCK`).
    #[error("the wait was aborted")]
    Aborted,
    /// It could have been had, but not without sleeping (`LK_SLEEPFAIL`, `ENOLCK`).
    #[error("not free without sleeping")]
    Slept,
    /// Somebody else who shares the lock waits to have it alone: two would wait for each other (`EBUSY`).
    #[error("another holder upgrades already")]
    Upgrading,
}

impl LockError {
    pub(super) fn new(cause: Cause, site: &Site) -> Self {
        Self { cause, name: site.name(), taken_at: site.taken_at() }
    }

    fn report(&self) -> Report {
        Report { name: self.name, taken_at: self.taken_at }
    }
}

impl fmt::Debug for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LockError({self})")
    }
}

/// A share that did not become the whole lock. The share is still held, here.
#[derive(thiserror::Error)]
#[error("not upgraded: {error}")]
pub struct NotUpgraded<'a, T: ?Sized> {
    /// The share.
    pub guard: SharedGuard<'a, T>,
    /// Why.
    pub error: LockError,
}

impl<T: ?Sized> fmt::Debug for NotUpgraded<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotUpgraded").field("error", &self.error).finish_non_exhaustive()
    }
}
