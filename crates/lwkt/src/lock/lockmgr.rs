//! Lockmgr: the blocking lock with everything.

use core::fmt;

use dfly_hal::{Instant, Wait};

use super::acquire::{Exclusive, Mode, Shared};
use super::const_fn;
use super::error::{Cause, LockError};
use super::guard::{ExclusiveGuard, SharedGuard};
use super::rw::{Ask, RwLock, Status, Want};
use super::site::Site;

/// A lock that may be held across I/O, shared or exclusive, with upgrades and with waits that end early.
///
/// - In order of arrival: sharers that follow each other come in together, and nobody passes who waits. Only an
///   [upgrade](SharedGuard::upgrade) goes first, because it holds a share and keeps everybody else out.
/// - Thread context only, and not with a spinlock held. `try_*` and dropping a guard never block, but spin shortly.
/// - To take it again, ask the guard: [`ExclusiveGuard::again`], [`SharedGuard::again`]. Asking the lock waits for
///   oneself; a deadline ends that, and the error names the place.
/// - Uncontended, a pair costs two atomic read-modify-writes. Nothing is allocated.
///
/// ```
/// use dfly_hal::ThreadWait;
/// use dfly_lwkt::lock::{Lockmgr, Request};
///
/// static INODE: Lockmgr<u32> = Lockmgr::named("inode", 1);
/// let mut w = ThreadWait::new();
/// let mut shared = INODE.shared(Request::wait(), &mut w)?;
/// if *shared == 1 {
///     let mut alone = shared.upgrade(Request::wait(), &mut w).map_err(|not| not.error)?;
///     *alone += 1;                                         // it is still 1: nobody came in between
///     shared = alone.downgrade().map_err(|_| "held twice")?;
/// }
/// assert_eq!(*shared, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Lockmgr<T: ?Sized> {
    lock: RwLock<T>,
}

/// How to wait for a [`Lockmgr`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub(super) deadline: Option<Instant>,
    pub(super) cancelable: bool,
    pub(super) sleep_fail: bool,
}

/// What became of what was read under a share that was upgraded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgraded {
    /// It is still true.
    AtOnce,
    /// The lock was released in between: look again.
    AfterRelease,
}

impl Request {
    /// Waits for ever.
    pub const fn wait() -> Self {
        Self { deadline: None, cancelable: false, sleep_fail: false }
    }

    /// Fails with [`Cause::TimedOut`] once `deadline` has passed (`LK_TIMELOCK`).
    #[must_use]
    pub const fn until(mut self, deadline: Instant) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Fails with [`Cause::Cancelled`] if the holder [cancels](ExclusiveGuard::cancel_begin) (`LK_CANCELABLE`).
    #[must_use]
    pub const fn cancelable(mut self) -> Self {
        self.cancelable = true;
        self
    }

    /// Fails with [`Cause::Slept`] if it found the lock taken, once it would have been had (`LK_SLEEPFAIL`): for who has to
    /// look anew at whether that lock is still the one it wants.
    #[must_use]
    pub const fn sleep_fail(mut self) -> Self {
        self.sleep_fail = true;
        self
    }

    /// For who has not found the lock free.
    #[cold]
    #[inline(never)]
    #[track_caller]
    pub(super) fn wait_for<'a, T: ?Sized, M: Mode>(
        self,
        lock: &'a RwLock<T>,
        want: Want,
        w: &mut dyn Wait,
    ) -> Result<M::Guard<'a, T>, LockError> {
        let ask = Ask { want, cancelable: self.cancelable };
        let guard = lock.wait::<M>(ask, w, self.deadline)?;
        if self.sleep_fail { Err(LockError::new(Cause::Slept, lock.site())) } else { Ok(guard) }
    }
}

impl<T> Lockmgr<T> {
    const_fn! {
        /// A free lock around `data`, without a name.
        pub fn new(data: T) -> Self {
            Self { lock: RwLock::new(None, data) }
        }
    }

    const_fn! {
        /// A free lock around `data`.
        pub fn named(name: &'static str, data: T) -> Self {
            Self { lock: RwLock::new(Some(name), data) }
        }
    }

    /// The data, with the lock taken apart.
    pub fn into_inner(self) -> T {
        self.lock.into_inner()
    }
}

impl<T: ?Sized> Lockmgr<T> {
    /// Takes the lock alone, blocking through `w`.
    ///
    /// # Errors
    /// As the request has it; [`Request::wait`] has none.
    #[inline]
    #[track_caller]
    pub fn exclusive(&self, request: Request, w: &mut dyn Wait) -> Result<ExclusiveGuard<'_, T>, LockError> {
        match self.lock.try_exclusive() {
            Some(guard) => Ok(guard),
            None => request.wait_for::<T, Exclusive>(&self.lock, Want::Exclusive, w),
        }
    }

    /// Takes a share of the lock, blocking through `w`.
    ///
    /// # Errors
    /// As the request has it; [`Request::wait`] has none.
    #[inline]
    #[track_caller]
    pub fn shared(&self, request: Request, w: &mut dyn Wait) -> Result<SharedGuard<'_, T>, LockError>
    where
        T: Sync,
    {
        match self.lock.try_shared() {
            Some(guard) => Ok(guard),
            None => request.wait_for::<T, Shared>(&self.lock, Want::Shared, w),
        }
    }

    /// Takes the lock alone if it is free (`LK_NOWAIT`).
    #[inline]
    #[track_caller]
    pub fn try_exclusive(&self) -> Option<ExclusiveGuard<'_, T>> {
        self.lock.try_exclusive()
    }

    /// Takes a share if nobody has the lock alone, nor anybody waits.
    #[inline]
    #[track_caller]
    pub fn try_shared(&self) -> Option<SharedGuard<'_, T>>
    where
        T: Sync,
    {
        self.lock.try_shared()
    }

    /// Who has it, whether somebody waits (`lockstatus`, `lockcountnb`). Old by the time it is read.
    pub fn status(&self) -> Status {
        self.lock.status()
    }

    /// The data, without locking: `&mut self` proves that nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        self.lock.get_mut()
    }

    /// Its name, and where it was taken.
    pub fn site(&self) -> &Site {
        self.lock.site()
    }
}

impl<T: ?Sized> fmt::Debug for Lockmgr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock.debug("Lockmgr", f)
    }
}

impl<T: Default> Default for Lockmgr<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
