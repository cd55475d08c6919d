//! The short lock: spins, and keeps its thread on its CPU.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use super::atomic::{AtomicBool, Ordering};
use super::cell::UnsafeCell;
use super::hint::Backoff;
use super::preempt::NoPreemption;

/// A spinning lock for a few instructions' worth of work.
///
/// - Preemption is disabled *before* the first attempt and until the guard is gone ([`register_preemption`]), so a
///   holder is never descheduled while others spin for it.
/// - Thread context only. Interrupt handlers never take it, so it does not mask interrupts.
/// - Nothing that blocks may be called while the guard lives.
/// - It is not fair. Who can wait long wants a [`WaitLock`](super::WaitLock).
/// - Locking twice on one thread spins for ever, as with every spinning lock.
///
/// Uncontended it costs one atomic read-modify-write and one release store. A guard that is forgotten leaves the lock
/// taken and preemption disabled, and harms nothing else.
///
/// ```
/// use dfly_hal::sync::Lock;
/// static FREE: Lock<u32> = Lock::new(7);
/// *FREE.lock() += 1;
/// assert_eq!(*FREE.lock(), 8);
/// ```
///
/// [`register_preemption`]: super::register_preemption
pub struct Lock<T: ?Sized> {
    taken: AtomicBool,
    data: UnsafeCell<T>,
}

// SAFETY: the lock lends its data to one thread at a time, so to share the lock is to send the data.
unsafe impl<T: ?Sized + Send> Sync for Lock<T> {}

impl<T> Lock<T> {
    /// A free lock around `data`.
    #[cfg(not(loom))]
    pub const fn new(data: T) -> Self {
        Self { taken: AtomicBool::new(false), data: UnsafeCell::new(data) }
    }

    /// A free lock around `data`.
    #[cfg(loom)]
    pub fn new(data: T) -> Self {
        Self { taken: AtomicBool::new(false), data: UnsafeCell::new(data) }
    }

    /// The data, with the lock taken apart.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> Lock<T> {
    /// Takes the lock, spinning until it is free.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> LockGuard<'_, T> {
        let alone = NoPreemption::new();
        if !self.attempt() {
            self.spin();
        }
        LockGuard { lock: self, _alone: alone, _here: PhantomData }
    }

    /// Takes the lock if it is free. Never spins.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<LockGuard<'_, T>> {
        let alone = NoPreemption::new();
        if self.attempt() { Some(LockGuard { lock: self, _alone: alone, _here: PhantomData }) } else { None }
    }

    /// The data, without locking: `&mut self` proves that nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` is exclusive, and the reference lives no longer.
        self.data.with_mut(|data| unsafe { &mut *data })
    }

    #[inline]
    fn attempt(&self) -> bool {
        // Acquire: sees what the last holder wrote (pairs with the Release store in `LockGuard::drop`).
        self.taken.compare_exchange(false, true, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn spin(&self) {
        let backoff = Backoff::new();
        // Look before trying: a failed exchange takes the cache line away from the holder, a load shares it.
        while self.taken.load(Ordering::Relaxed) || !self.attempt() {
            backoff.snooze();
        }
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Lock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.try_lock() {
            Some(data) => f.debug_tuple("Lock").field(&&*data).finish(),
            None => f.write_str("Lock(<taken>)"),
        }
    }
}

impl<T: Default> Default for Lock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// The right to the data of a [`Lock`]. While it lives, its thread is not preempted; it stays on its thread.
#[must_use = "the lock is released where the guard is dropped"]
pub struct LockGuard<'a, T: ?Sized> {
    lock: &'a Lock<T>,
    // A field, so that it goes after `drop` has released the lock: preemption comes back last.
    _alone: NoPreemption,
    // `!Send`: another thread could not give this thread its preemption back.
    _here: PhantomData<*mut ()>,
}

impl<T: ?Sized> Deref for LockGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, and `&self` keeps it alive and its `deref_mut` away.
        self.lock.data.with(|data| unsafe { &*data })
    }
}

impl<T: ?Sized> DerefMut for LockGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and `&mut self` makes this its only reference.
        self.lock.data.with_mut(|data| unsafe { &mut *data })
    }
}

impl<T: ?Sized> Drop for LockGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: the next holder sees what this one wrote (pairs with the Acquire in `Lock::attempt`).
        self.lock.taken.store(false, Ordering::Release);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for LockGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
