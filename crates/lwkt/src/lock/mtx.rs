//! Mtx: the blocking lock for data.

use core::fmt;

use dfly_hal::{Instant, Wait};

use super::acquire::{Acquire, Exclusive, Mode, Shared};
use super::const_fn;
use super::error::LockError;
use super::guard::{ExclusiveGuard, SharedGuard};
use super::rw::{Ask, RwLock, Status, Want};
use super::site::Site;

/// A lock that may be held while its holder blocks, shared or exclusive.
///
/// - It is handed over in order of arrival, to who waits and not to who comes by: whoever is woken has it. Sharers that
///   follow each other come in together.
/// - Thread context only, and not with a spinlock held. `try_*` and dropping a guard never block, but spin shortly.
/// - To take it again, ask the guard: [`ExclusiveGuard::again`], [`SharedGuard::again`]. Asking the lock waits for
///   oneself; a deadline ends that, and the error names the place.
/// - A wait may be started here and ended elsewhere: [`Acquire`].
/// - Uncontended, a pair costs two atomic read-modify-writes. Nothing is allocated.
///
/// ```
/// use dfly_hal::ThreadWait;
/// use dfly_lwkt::lock::Mtx;
///
/// static LOG: Mtx<Vec<u32>> = Mtx::named("log", Vec::new());
/// let mut w = ThreadWait::new();
/// LOG.lock(&mut w).push(7);
/// assert_eq!(LOG.lock_shared(&mut w).len(), 1);
/// ```
pub struct Mtx<T: ?Sized> {
    lock: RwLock<T>,
}

const EXCLUSIVE: Ask = Ask { want: Want::Exclusive, cancelable: false };
const SHARED: Ask = Ask { want: Want::Shared, cancelable: false };

impl<T> Mtx<T> {
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

impl<T: ?Sized> Mtx<T> {
    /// Takes the lock alone, blocking through `w` until it is its turn.
    #[inline]
    #[track_caller]
    pub fn lock(&self, w: &mut dyn Wait) -> ExclusiveGuard<'_, T> {
        match self.lock.try_exclusive() {
            Some(guard) => guard,
            None => self.wait::<Exclusive>(EXCLUSIVE, w),
        }
    }

    /// Takes the lock alone, blocking through `w` until it is its turn or `deadline` has passed.
    ///
    /// # Errors
    /// [`Cause::TimedOut`](super::Cause::TimedOut), with the place where the lock was taken last.
    #[track_caller]
    pub fn lock_until(
        &self,
        w: &mut dyn Wait,
        deadline: Instant,
    ) -> Result<ExclusiveGuard<'_, T>, LockError> {
        match self.lock.try_exclusive() {
            Some(guard) => Ok(guard),
            None => self.lock.wait::<Exclusive>(EXCLUSIVE, w, Some(deadline)),
        }
    }

    /// Takes the lock alone if it is free.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<ExclusiveGuard<'_, T>> {
        self.lock.try_exclusive()
    }

    /// Takes a share, blocking through `w` until nobody has the lock alone and nobody waits who came earlier.
    #[inline]
    #[track_caller]
    pub fn lock_shared(&self, w: &mut dyn Wait) -> SharedGuard<'_, T>
    where
        T: Sync,
    {
        match self.lock.try_shared() {
            Some(guard) => guard,
            None => self.wait::<Shared>(SHARED, w),
        }
    }

    /// As [`lock_shared`](Self::lock_shared), until `deadline` has passed.
    ///
    /// # Errors
    /// [`Cause::TimedOut`](super::Cause::TimedOut), with the place where the lock was taken last.
    #[track_caller]
    pub fn lock_shared_until(
        &self,
        w: &mut dyn Wait,
        deadline: Instant,
    ) -> Result<SharedGuard<'_, T>, LockError>
    where
        T: Sync,
    {
        match self.lock.try_shared() {
            Some(guard) => Ok(guard),
            None => self.lock.wait::<Shared>(SHARED, w, Some(deadline)),
        }
    }

    /// Takes a share if nobody has the lock alone, nor anybody waits.
    #[inline]
    #[track_caller]
    pub fn try_lock_shared(&self) -> Option<SharedGuard<'_, T>>
    where
        T: Sync,
    {
        self.lock.try_shared()
    }

    /// A place in the queue, to take the lock alone later or by an executor.
    #[track_caller]
    pub fn acquire(&self) -> Acquire<'_, T, Exclusive> {
        self.lock.acquire(EXCLUSIVE)
    }

    /// A place in the queue, to take a share later or by an executor.
    #[track_caller]
    pub fn acquire_shared(&self) -> Acquire<'_, T, Shared>
    where
        T: Sync,
    {
        self.lock.acquire(SHARED)
    }

    /// Who has it, and whether somebody waits. Old by the time it is read.
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

    #[cold]
    #[track_caller]
    fn wait<M: Mode>(&self, ask: Ask, w: &mut dyn Wait) -> M::Guard<'_, T> {
        loop {
            // Nobody can cancel or abort it, so it comes once.
            if let Ok(guard) = self.lock.wait::<M>(ask, w, None) {
                return guard;
            }
        }
    }
}

impl<T: ?Sized> fmt::Debug for Mtx<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lock.debug("Mtx", f)
    }
}

impl<T: Default> Default for Mtx<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}
