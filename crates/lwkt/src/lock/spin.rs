//! The spinlock: exclusive and shared.
//!
//! `holders` says who has it, and only an exchange of a value that was seen changes it, so an exclusive holder, alone in
//! it, gives back by a plain store. `waiting` counts those who want it exclusively; who comes to share lets them pass.

use core::fmt;
use core::marker::PhantomData;
use core::mem;
use core::ops::{Deref, DerefMut};
use core::panic::Location;

use dfly_hal::sync::NoPreemption;
use dfly_hal::sync::atomic::{AtomicU32, Ordering};
use dfly_hal::sync::cell::UnsafeCell;
use dfly_hal::sync::hint::Backoff;

use super::const_fn;
use super::site::Site;

/// In `holders`: one has it alone. Without it: how many share it.
const EXCLUSIVE: u32 = 1 << 31;
/// So many may share it, so that the count never runs into `EXCLUSIVE`.
const MAX_SHARERS: u32 = EXCLUSIVE - 1;
/// So often a sharer lets those pass who want it exclusively; then it is its turn, too.
const COURTESY: u32 = 64;

/// A spinning lock for a few instructions, which any number may share to read.
///
/// - Its thread is not preempted from before the first attempt until the guard is gone.
/// - Nothing that blocks may be called meanwhile, and no second guard of the same lock be asked for.
/// - Thread context only, `try_lock` and `try_lock_shared` excepted: they never spin.
/// - Who wants it exclusively goes before who comes to share it; who has waited long to share it goes like anybody.
/// - Who waits absurdly long panics, and names the lock, the place where it waits and the place where it was taken last:
///   see [`patience`](Self::patience).
///
/// Uncontended, exclusively it costs an atomic read-modify-write and a store, shared it costs two read-modify-writes.
///
/// ```
/// use dfly_lwkt::lock::Spinlock;
/// static FREE: Spinlock<u32> = Spinlock::named("free", 7);
/// *FREE.lock() += 1;
/// let (a, b) = (FREE.lock_shared(), FREE.lock_shared());
/// assert_eq!((*a, *b), (8, 8));
/// ```
pub struct Spinlock<T: ?Sized> {
    holders: AtomicU32,
    waiting: AtomicU32,
    patience: u32,
    site: Site,
    data: UnsafeCell<T>,
}

// SAFETY: the data is lent as `&mut T` to one guard at a time, so it is sent; as `&T` to several only where it is `Sync`.
unsafe impl<T: ?Sized + Send> Sync for Spinlock<T> {}

impl<T> Spinlock<T> {
    /// How many rounds a waiter spins by default before it reports: a minute or more.
    pub const PATIENCE: u32 = 100_000_000;

    const_fn! {
        /// A free lock around `data`, without a name.
        pub fn new(data: T) -> Self {
            Self::with_site(Site::new(None), data)
        }
    }

    const_fn! {
        /// A free lock around `data`.
        pub fn named(name: &'static str, data: T) -> Self {
            Self::with_site(Site::new(Some(name)), data)
        }
    }

    const_fn! {
        fn with_site(site: Site, data: T) -> Self {
            Self {
                holders: AtomicU32::new(0),
                waiting: AtomicU32::new(0),
                patience: Self::PATIENCE,
                site,
                data: UnsafeCell::new(data),
            }
        }
    }

    /// Sets how many rounds a waiter spins before it panics with a report. A round is some hundred instructions, or on a
    /// host (feature `std`) a turn of other threads. `u32::MAX` waits for ever.
    ///
    /// ```
    /// # use dfly_lwkt::lock::Spinlock;
    /// static LOCK: Spinlock<u32> = Spinlock::named("lock", 0).patience(1_000_000);
    /// ```
    #[must_use]
    pub const fn patience(mut self, rounds: u32) -> Self {
        self.patience = rounds;
        self
    }

    /// The data, with the lock taken apart.
    pub fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

impl<T: ?Sized> Spinlock<T> {
    /// Takes the lock, spinning until it is free.
    ///
    /// # Panics
    /// If it does not come free for absurdly long: see [`patience`](Self::patience).
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> SpinGuard<'_, T> {
        let alone = NoPreemption::new();
        if !self.take() {
            self.wait(Location::caller());
        }
        SpinGuard::new(self, alone, Location::caller())
    }

    /// Takes the lock if it is free. Never spins.
    #[inline]
    #[track_caller]
    pub fn try_lock(&self) -> Option<SpinGuard<'_, T>> {
        let alone = NoPreemption::new();
        if self.take() { Some(SpinGuard::new(self, alone, Location::caller())) } else { None }
    }

    /// Takes the lock to read, spinning until nobody has it exclusively.
    ///
    /// # Panics
    /// If it does not come free for absurdly long: see [`patience`](Self::patience); if 2^31 guards were forgotten.
    #[inline]
    #[track_caller]
    pub fn lock_shared(&self) -> SpinSharedGuard<'_, T>
    where
        T: Sync,
    {
        let alone = NoPreemption::new();
        if !(self.nobody_waits() && self.share()) {
            self.wait_shared(Location::caller());
        }
        SpinSharedGuard::new(self, alone, Location::caller())
    }

    /// Takes the lock to read if nobody has it exclusively, nor waits to. Never spins.
    ///
    /// # Panics
    /// If 2^31 guards were forgotten.
    #[inline]
    #[track_caller]
    pub fn try_lock_shared(&self) -> Option<SpinSharedGuard<'_, T>>
    where
        T: Sync,
    {
        let alone = NoPreemption::new();
        if self.nobody_waits() && self.share() {
            Some(SpinSharedGuard::new(self, alone, Location::caller()))
        } else {
            None
        }
    }

    /// The data, without locking: `&mut self` proves that nobody else has the lock.
    pub fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` is exclusive, and the reference lives no longer.
        self.data.with_mut(|data| unsafe { &mut *data })
    }

    /// Its name, and where it was taken.
    pub fn site(&self) -> &Site {
        &self.site
    }

    #[inline]
    fn take(&self) -> bool {
        // Acquire: sees what the last holder wrote, and that all sharers are done reading (pairs with the Release in
        // `SpinGuard::drop` and `SpinSharedGuard::drop`).
        self.holders.compare_exchange(0, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[inline]
    fn nobody_waits(&self) -> bool {
        // A courtesy, which orders nothing.
        self.waiting.load(Ordering::Relaxed) == 0
    }

    #[inline]
    fn share(&self) -> bool {
        let mut seen = self.holders.load(Ordering::Relaxed);
        while seen & EXCLUSIVE == 0 {
            if seen == MAX_SHARERS {
                too_many(&self.site);
            }
            // Acquire: sees what the last exclusive holder wrote (pairs with its Release store; the exchanges of other
            // sharers in between do not break the sequence).
            match self.holders.compare_exchange(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    #[cold]
    fn wait(&self, at: &'static Location<'static>) {
        let _announced = Announced::new(&self.waiting);
        let mut rounds = Rounds::new(self.patience, &self.site, at);
        // A look before the exchange: a line that is only read is not torn from its holder.
        while self.holders.load(Ordering::Relaxed) != 0 || !self.take() {
            rounds.next();
        }
    }

    #[cold]
    fn wait_shared(&self, at: &'static Location<'static>) {
        let mut rounds = Rounds::new(self.patience, &self.site, at);
        while !((self.nobody_waits() || rounds.done >= COURTESY) && self.share()) {
            rounds.next();
        }
    }
}

#[cold]
fn too_many(site: &Site) -> ! {
    panic!("{MAX_SHARERS} guards share {site}: they were forgotten")
}

/// Somebody waits to have the lock alone. It ends with the wait, be it by a panic.
struct Announced<'a>(&'a AtomicU32);

impl<'a> Announced<'a> {
    fn new(waiting: &'a AtomicU32) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Announced<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The rounds of one wait.
struct Rounds<'a> {
    backoff: Backoff,
    done: u32,
    patience: u32,
    site: &'a Site,
    at: &'static Location<'static>,
}

impl<'a> Rounds<'a> {
    fn new(patience: u32, site: &'a Site, at: &'static Location<'static>) -> Self {
        site.collided();
        Self { backoff: Backoff::new(), done: 0, patience, site, at }
    }

    fn next(&mut self) {
        self.backoff.snooze();
        self.done = self.done.saturating_add(1);
        if self.done >= self.patience && self.patience != u32::MAX {
            self.report();
        }
    }

    #[cold]
    fn report(&self) -> ! {
        panic!("spun {} rounds at {} for {}", self.done, self.at, self.site)
    }
}

impl<T: ?Sized> fmt::Debug for Spinlock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holders = self.holders.load(Ordering::Relaxed);
        f.debug_struct("Spinlock")
            .field("exclusive", &(holders & EXCLUSIVE != 0))
            .field("sharers", &(holders & MAX_SHARERS))
            .field("waiting", &self.waiting.load(Ordering::Relaxed))
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

impl<T: Default> Default for Spinlock<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

/// The whole of a [`Spinlock`]. While it lives, its thread is not preempted; it stays on its thread.
#[must_use = "the lock is released where the guard is dropped"]
pub struct SpinGuard<'a, T: ?Sized> {
    lock: &'a Spinlock<T>,
    // A field, so that it goes after `drop` has released the lock: preemption comes back last.
    alone: NoPreemption,
    // `!Send`: another thread could not give this thread its preemption back.
    _here: PhantomData<*mut ()>,
}

impl<'a, T: ?Sized> SpinGuard<'a, T> {
    /// Whoever calls this has taken the lock.
    #[inline]
    fn new(lock: &'a Spinlock<T>, alone: NoPreemption, at: &'static Location<'static>) -> Self {
        lock.site.took(at);
        Self { lock, alone, _here: PhantomData }
    }

    /// Shares the lock with whoever comes to read.
    pub fn downgrade(self) -> SpinSharedGuard<'a, T>
    where
        T: Sync,
    {
        let (lock, alone) = self.into_parts();
        // Release: as in `drop`.
        lock.holders.store(1, Ordering::Release);
        SpinSharedGuard { lock, alone, _here: PhantomData }
    }

    fn into_parts(self) -> (&'a Spinlock<T>, NoPreemption) {
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: `this` is not used again and not dropped, so the field is moved out once.
        (this.lock, unsafe { core::ptr::read(&this.alone) })
    }
}

impl<T: ?Sized> Deref for SpinGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one, and `&self` keeps it alive and its `deref_mut` away.
        self.lock.data.with(|data| unsafe { &*data })
    }
}

impl<T: ?Sized> DerefMut for SpinGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this guard is the only one, and `&mut self` makes this its only reference.
        self.lock.data.with_mut(|data| unsafe { &mut *data })
    }
}

impl<T: ?Sized> Drop for SpinGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: the next holder sees what this one wrote (pairs with the Acquire in `take` and `share`). A plain store
        // will do: with `EXCLUSIVE` set, nobody else changes the word.
        self.lock.holders.store(0, Ordering::Release);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for SpinGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

/// A share of a [`Spinlock`]. While it lives, its thread is not preempted; it stays on its thread.
#[must_use = "the lock is released where the guard is dropped"]
pub struct SpinSharedGuard<'a, T: ?Sized> {
    lock: &'a Spinlock<T>,
    // As in `SpinGuard`.
    alone: NoPreemption,
    _here: PhantomData<*mut ()>,
}

impl<'a, T: ?Sized> SpinSharedGuard<'a, T> {
    /// Whoever calls this has taken a share.
    #[inline]
    fn new(lock: &'a Spinlock<T>, alone: NoPreemption, at: &'static Location<'static>) -> Self {
        lock.site.took(at);
        Self { lock, alone, _here: PhantomData }
    }

    /// Makes this the whole lock, if it is the only share. Never spins.
    pub fn try_upgrade(self) -> Result<SpinGuard<'a, T>, Self> {
        // Acquire: as in `take`.
        match self.lock.holders.compare_exchange(1, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {
                let this = mem::ManuallyDrop::new(self);
                // SAFETY: `this` is not used again and not dropped, so the field is moved out once.
                let alone = unsafe { core::ptr::read(&this.alone) };
                Ok(SpinGuard { lock: this.lock, alone, _here: PhantomData })
            }
            Err(_) => Err(self),
        }
    }
}

impl<T: ?Sized> Deref for SpinSharedGuard<'_, T> {
    type Target = T;
    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: with a share held, nobody has the lock exclusively.
        self.lock.data.with(|data| unsafe { &*data })
    }
}

impl<T: ?Sized> Drop for SpinSharedGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        // Release: whoever takes the lock exclusively does so after our reads (pairs with the Acquire in `take`).
        self.lock.holders.fetch_sub(1, Ordering::Release);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for SpinSharedGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
