//! The guards of [`Mtx`](super::Mtx) and [`Lockmgr`](super::Lockmgr).

use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use dfly_hal::Wait;

use super::acquire::Exclusive;
use super::error::{Cause, LockError, NotUpgraded};
use super::lockmgr::{Request, Upgraded};
use super::rw::{Ask, RwLock, Want};

/// The whole of a [`Mtx`](super::Mtx) or [`Lockmgr`](super::Lockmgr). Nothing is disabled while it lives, so its holder may block; it stays
/// on its thread, unless it is [detached](Self::detach).
#[must_use = "the lock is released where the guard is dropped"]
pub struct ExclusiveGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    _data: PhantomData<&'a mut T>,
    // `!Send`: who holds a lock is known by its thread.
    _here: PhantomData<*mut ()>,
}

impl<'a, T: ?Sized> ExclusiveGuard<'a, T> {
    /// Whoever calls this has the lock alone.
    #[inline]
    pub(super) fn new(lock: &'a RwLock<T>, at: &'static Location<'static>) -> Self {
        lock.site().took(at);
        Self::known(lock)
    }

    #[inline]
    fn known(lock: &'a RwLock<T>) -> Self {
        Self { lock, _data: PhantomData, _here: PhantomData }
    }

    /// Takes the lock once more, for a callee that wants a guard of its own. Never waits. This guard rests meanwhile;
    /// the lock is released when both are dropped.
    ///
    /// # Panics
    /// If 2^29 guards were forgotten.
    pub fn again(&mut self) -> ExclusiveGuard<'_, T> {
        assert!(self.lock.take_again(), "too many guards of {} were forgotten", self.lock.site());
        ExclusiveGuard::known(self.lock)
    }

    /// How often the lock is held: 1, and 1 more for each living guard from [`again`](Self::again).
    pub fn depth(&self) -> u32 {
        self.lock.depth()
    }

    /// Shares the lock with those who wait to read, up to the next who wants it alone. Nobody comes in between.
    ///
    /// It is refused, and the guard comes back, where the lock is held more than [once](Self::depth): the other guard
    /// would not be alone any more.
    pub fn downgrade(self) -> Result<SharedGuard<'a, T>, Self>
    where
        T: Sync,
    {
        if self.lock.depth() != 1 {
            return Err(self);
        }
        let lock = self.into_lock();
        lock.downgrade();
        Ok(SharedGuard::known(lock))
    }

    /// Makes the lock nobody's in particular (`lockmgr_kernproc`): what comes back may go to another thread, such as the
    /// one that completes the I/O that the lock is held for.
    pub fn detach(self) -> Detached<'a, T> {
        Detached(self.into_lock())
    }

    /// From now on a wait that [agreed to it](Request::cancelable) fails with [`Cause::Cancelled`], those under way
    /// included, until [`cancel_end`](Self::cancel_end), or until the lock is released by its last holder. It stays so
    /// through a downgrade.
    pub fn cancel_begin(&self) {
        self.lock.cancel_begin();
    }

    /// Undoes [`cancel_begin`](Self::cancel_begin).
    pub fn cancel_end(&self) {
        self.lock.cancel_end();
    }

    fn into_lock(self) -> &'a RwLock<T> {
        mem::ManuallyDrop::new(self).lock
    }
}

impl<T: ?Sized> Deref for ExclusiveGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: no other guard gives a reference: one from `again` borrows its outer one mutably. `&self` keeps this one
        // alive and its `deref_mut` away.
        self.lock.data().with(|data| unsafe { &*data })
    }
}

impl<T: ?Sized> DerefMut for ExclusiveGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        self.lock.data().with_mut(|data| unsafe { &mut *data })
    }
}

impl<T: ?Sized> Drop for ExclusiveGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.release_exclusive();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for ExclusiveGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// The whole of a lock, on its way to the thread that will release it. Dropping it releases the lock.
#[must_use = "the lock is released where this is dropped"]
pub struct Detached<'a, T: ?Sized>(&'a RwLock<T>);

impl<'a, T: ?Sized> Detached<'a, T> {
    /// Makes it a guard again, of this thread.
    pub fn attach(self) -> ExclusiveGuard<'a, T> {
        ExclusiveGuard::known(mem::ManuallyDrop::new(self).0)
    }
}

impl<T: ?Sized> Drop for Detached<'_, T> {
    fn drop(&mut self) {
        self.0.release_exclusive();
    }
}

impl<T: ?Sized> fmt::Debug for Detached<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached").finish_non_exhaustive()
    }
}

/// A share of a [`Mtx`](super::Mtx) or [`Lockmgr`](super::Lockmgr). Nothing is disabled while it lives; it stays on its thread.
#[must_use = "the lock is released where the guard is dropped"]
pub struct SharedGuard<'a, T: ?Sized> {
    lock: &'a RwLock<T>,
    // As in `ExclusiveGuard`.
    _here: PhantomData<*mut ()>,
}

impl<'a, T: ?Sized> SharedGuard<'a, T> {
    /// Whoever calls this has a share, and `T` is `Sync`.
    #[inline]
    pub(super) fn new(lock: &'a RwLock<T>, at: &'static Location<'static>) -> Self {
        lock.site().took(at);
        Self::known(lock)
    }

    #[inline]
    fn known(lock: &'a RwLock<T>) -> Self {
        Self { lock, _here: PhantomData }
    }

    /// Another share. Never waits, even with somebody in the queue who wants the lock alone; asking the lock would wait
    /// behind that one, who waits for us.
    ///
    /// # Panics
    /// If 2^29 guards were forgotten.
    pub fn again(&self) -> SharedGuard<'a, T> {
        assert!(self.lock.share_again(), "too many guards of {} were forgotten", self.lock.site());
        SharedGuard::known(self.lock)
    }

    /// Makes this the whole lock, if it is the only share. Never waits.
    pub fn try_upgrade(self) -> Result<ExclusiveGuard<'a, T>, Self> {
        if self.lock.try_upgrade() { Ok(ExclusiveGuard::known(self.into_lock())) } else { Err(self) }
    }

    /// Makes this the whole lock (`LK_EXCLUPGRADE`), blocking through `w` until all other shares are gone. Goes before
    /// everybody in the queue, so what was read is still true.
    ///
    /// With a second share of the same thread it waits for ever, or to its deadline.
    ///
    /// # Errors
    /// [`Cause::Upgrading`], at once, if another sharer waits for the same: one of the two must drop its share.
    /// [`Cause::TimedOut`], [`Cause::Cancelled`] and [`Cause::Slept`] as the request has it. The share comes back with the
    /// error.
    #[track_caller]
    pub fn upgrade(
        self,
        request: Request,
        w: &mut dyn Wait,
    ) -> Result<ExclusiveGuard<'a, T>, NotUpgraded<'a, T>>
    where
        T: Sync,
    {
        let lock = self.lock;
        let alone = match self.try_upgrade() {
            Ok(alone) => return Ok(alone),
            // It is dropped after the wait, should that unwind.
            Err(share) => {
                let ask = Ask { want: Want::Upgrade, cancelable: request.cancelable };
                match lock.wait::<Exclusive>(ask, w, request.deadline) {
                    Ok(alone) => {
                        // It was given for the whole.
                        mem::forget(share);
                        alone
                    }
                    Err(error) => return Err(NotUpgraded { guard: share, error }),
                }
            }
        };
        if !request.sleep_fail {
            return Ok(alone);
        }
        let error = LockError::new(Cause::Slept, lock.site());
        match alone.downgrade() {
            Ok(guard) => Err(NotUpgraded { guard, error }),
            // It is held once.
            Err(alone) => Ok(alone),
        }
    }

    /// Makes this the whole lock (`LK_UPGRADE`): as [`upgrade`](Self::upgrade), but where another sharer upgrades
    /// already, drops the share and takes a place in the queue. [`Upgraded`] says whether what was read may have changed.
    ///
    /// # Errors
    /// As the request has it. The share is gone then.
    #[track_caller]
    pub fn upgrade_or_relock(
        self,
        request: Request,
        w: &mut dyn Wait,
    ) -> Result<(ExclusiveGuard<'a, T>, Upgraded), LockError>
    where
        T: Sync,
    {
        let lock = self.lock;
        match self.upgrade(request, w) {
            Ok(alone) => Ok((alone, Upgraded::AtOnce)),
            Err(NotUpgraded { guard, error }) if error.cause == Cause::Upgrading => {
                drop(guard);
                let alone = match lock.try_exclusive() {
                    Some(alone) => alone,
                    None => request.wait_for::<T, Exclusive>(lock, Want::Exclusive, w)?,
                };
                Ok((alone, Upgraded::AfterRelease))
            }
            Err(NotUpgraded { error, .. }) => Err(error),
        }
    }

    fn into_lock(self) -> &'a RwLock<T> {
        mem::ManuallyDrop::new(self).lock
    }
}

impl<T: ?Sized> Deref for SharedGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: with a share held, nobody has the lock alone.
        self.lock.data().with(|data| unsafe { &*data })
    }
}

impl<T: ?Sized> Drop for SharedGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.lock.release_shared();
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for SharedGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
