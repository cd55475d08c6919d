//! The spinlock with an update counter: readers that write nothing.

use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;

use dfly_hal::sync::atomic::{AtomicUsize, Ordering, fence};

use super::const_fn;
use super::site::Site;
use super::spin::{SpinGuard, Spinlock};

/// So often a reader looks before it takes its turn with those who update.
const LOOKS: u32 = 8;

/// Data that is read often and updated seldom. A reader takes no lock and writes to no shared line: it looks at a counter
/// before and after, and looks again if an update came in between. One that meets an update under way, or
/// has looked eight times in vain, takes its turn with those who update, so it does not look for ever.
///
/// The data is read while it may be written, so it is made of atomics, read and written
/// [`Relaxed`](Ordering::Relaxed): the counter orders them. What a reader returns is from one update, never half of it.
///
/// Context, preemption and [`patience`](Spinlock::patience) as for a [`Spinlock`]; a reader that meets no update
/// neither spins nor disables anything.
///
/// ```
/// use dfly_hal::sync::atomic::{AtomicU64, Ordering::Relaxed};
/// use dfly_lwkt::lock::UpdateLock;
///
/// static TIME: UpdateLock<(AtomicU64, AtomicU64)> = UpdateLock::named("time", (AtomicU64::new(0), AtomicU64::new(0)));
/// let time = TIME.update();
/// time.0.store(7, Relaxed);
/// time.1.store(70, Relaxed);
/// drop(time);
/// let read = TIME.read(|(seconds, ticks)| (seconds.load(Relaxed), ticks.load(Relaxed)));
/// assert_eq!(read, (7, 70));
/// ```
pub struct UpdateLock<T: ?Sized> {
    /// Odd while an update is under way.
    count: AtomicUsize,
    turn: Spinlock<()>,
    data: T,
}

impl<T> UpdateLock<T> {
    const_fn! {
        /// `data`, without a name.
        pub fn new(data: T) -> Self {
            Self { count: AtomicUsize::new(0), turn: Spinlock::new(()), data }
        }
    }

    const_fn! {
        /// `data`, with a name.
        pub fn named(name: &'static str, data: T) -> Self {
            Self { count: AtomicUsize::new(0), turn: Spinlock::named(name, ()), data }
        }
    }
}

impl<T: ?Sized> UpdateLock<T> {
    /// Begins an update, spinning until no other is under way. It ends where the guard is dropped.
    #[track_caller]
    pub fn update(&self) -> UpdateGuard<'_, T> {
        let turn = self.turn.lock();
        let count = self.count.load(Ordering::Relaxed);
        self.count.store(count.wrapping_add(1), Ordering::Relaxed);
        // Release: a reader that sees one of our writes sees the odd count, too (pairs with the fence in `read`).
        fence(Ordering::Release);
        UpdateGuard { lock: self, _turn: turn, _here: PhantomData }
    }

    /// What `f` reads, all from the same update. `f` is called again if an update came in between; what it returned
    /// before may be half of one, and is dropped.
    #[track_caller]
    pub fn read<R>(&self, mut f: impl FnMut(&T) -> R) -> R {
        for _ in 0..LOOKS {
            // Acquire: sees what the update wrote that ended with this count (pairs with the Release in
            // `UpdateGuard::drop`).
            let before = self.count.load(Ordering::Acquire);
            if before & 1 != 0 {
                break;
            }
            let read = f(&self.data);
            // Acquire: pairs with the fence in `update`.
            fence(Ordering::Acquire);
            if self.count.load(Ordering::Relaxed) == before {
                return read;
            }
        }
        let _turn = self.turn.lock_shared();
        f(&self.data)
    }

    /// The data, without locking: `&mut self` proves that nobody else looks.
    pub fn get_mut(&mut self) -> &mut T {
        &mut self.data
    }

    /// Its name, and where an update was begun or waited for.
    pub fn site(&self) -> &Site {
        self.turn.site()
    }
}

impl<T: ?Sized> fmt::Debug for UpdateLock<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UpdateLock")
            .field("count", &self.count.load(Ordering::Relaxed))
            .field("turn", &self.turn)
            .finish_non_exhaustive()
    }
}

/// An update under way. One that is forgotten never ends, and readers wait for it.
#[must_use = "the update ends where the guard is dropped"]
pub struct UpdateGuard<'a, T: ?Sized> {
    lock: &'a UpdateLock<T>,
    // A field, so that the turn ends after the count is even again.
    _turn: SpinGuard<'a, ()>,
    _here: PhantomData<*mut ()>,
}

impl<T: ?Sized> Deref for UpdateGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.lock.data
    }
}

impl<T: ?Sized> Drop for UpdateGuard<'_, T> {
    fn drop(&mut self) {
        let count = self.lock.count.load(Ordering::Relaxed);
        // Release: a reader that sees the even count sees the whole update (pairs with the Acquire in `read`).
        self.lock.count.store(count.wrapping_add(1), Ordering::Release);
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for UpdateGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}
