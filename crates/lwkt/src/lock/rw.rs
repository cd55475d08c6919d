//! What [`Mtx`](super::Mtx) and [`Lockmgr`](super::Lockmgr) have in common: a blocking lock that is shared or exclusive,
//! with a queue in order of arrival. DESIGN.md numbers the transitions of the word and proves that no wake-up is lost.
//!
//! Three rules:
//!
//! 1. `QUEUED` keeps newcomers out. It is set before somebody enters the queue and cleared when the queue is empty, both
//!    with the queue locked.
//! 2. Whoever makes room with a flag set calls `settle`, which lets in the first in the queue as long as there is room
//!    for it. So who waits is let in by the one who made room, and does not compete again.
//! 3. A waiter that gives up leaves with the queue locked. One that had been let in by then has the lock and gives it back.

use core::fmt;
use core::panic::Location;
use core::task::Waker;

use dfly_hal::sync::atomic::{AtomicU32, Ordering};
use dfly_hal::sync::cell::UnsafeCell;
use dfly_hal::sync::wait_queue::{Locked, WaitQueue};

use super::const_fn;
use super::error::Cause;
use super::guard::{ExclusiveGuard, SharedGuard};
use super::site::Site;

/// One has the lock alone; `COUNT` says how often. Without it: how many share it.
const EXCLUSIVE: u32 = 1 << 31;
/// Somebody is in the queue, or about to leave it.
const QUEUED: u32 = 1 << 30;
/// The exclusive holder has cancelled those who agreed to it; until the last holder has gone.
const CANCELLING: u32 = 1 << 29;
const FLAGS: u32 = QUEUED | CANCELLING;
const COUNT: u32 = CANCELLING - 1;

/// Named in the signature of a sealed trait, and nowhere to be had.
#[doc(hidden)]
pub struct RwLock<T: ?Sized> {
    word: AtomicU32,
    queue: WaitQueue<Ask>,
    site: Site,
    data: UnsafeCell<T>,
}

// SAFETY: the data is lent as `&mut T` to one guard at a time, so it is sent; as `&T` to several only where it is `Sync`.
unsafe impl<T: ?Sized + Send> Sync for RwLock<T> {}

/// What a waiter asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) want: Want,
    /// The holder may cancel it.
    pub(super) cancelable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Want {
    Exclusive,
    Shared,
    /// Who asks has a share, and gives it for the whole.
    Upgrade,
}

impl Want {
    /// The word once this one is let in, if there is room. Who waits already is not looked at.
    fn enter(self, word: u32) -> Option<u32> {
        let (exclusive, count) = (word & EXCLUSIVE != 0, word & COUNT);
        match self {
            Self::Exclusive => (count == 0).then_some(word | EXCLUSIVE | 1),
            Self::Shared => (!exclusive && count < COUNT).then_some(word.wrapping_add(1)),
            Self::Upgrade => (!exclusive && count == 1).then_some(word | EXCLUSIVE),
        }
    }
}

/// The last holder ends the cancelling.
fn settled(word: u32) -> u32 {
    if word & COUNT == 0 { word & !CANCELLING } else { word }
}

/// What becomes of a newcomer.
pub(super) enum Entry {
    LetIn,
    Waits,
    Refused(Cause),
}

/// Who has a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holders {
    /// Nobody.
    Nobody,
    /// So many share it.
    Shared(u32),
    /// One has it alone, so many times.
    Exclusive(u32),
}

/// How a blocking lock stood at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Who had it.
    pub holders: Holders,
    /// Somebody waited.
    pub queued: bool,
    /// The holder was cancelling those who waited.
    pub cancelling: bool,
}

impl<T> RwLock<T> {
    const_fn! {
        pub(super) fn new(name: Option<&'static str>, data: T) -> Self {
            Self {
                word: AtomicU32::new(0),
                queue: WaitQueue::new(),
                site: Site::new(name),
                data: UnsafeCell::new(data),
            }
        }
    }

    pub(super) fn into_inner(self) -> T {
        self.data.into_inner()
    }
}

/// For the guards.
impl<T: ?Sized> RwLock<T> {
    pub(super) fn queue(&self) -> &WaitQueue<Ask> {
        &self.queue
    }

    pub(super) fn data(&self) -> &UnsafeCell<T> {
        &self.data
    }

    pub(super) fn get_mut(&mut self) -> &mut T {
        // SAFETY: `&mut self` is exclusive, and the reference lives no longer.
        self.data.with_mut(|data| unsafe { &mut *data })
    }

    pub(super) fn site(&self) -> &Site {
        &self.site
    }

    pub(super) fn status(&self) -> Status {
        let word = self.word.load(Ordering::Relaxed);
        let holders = match word & COUNT {
            0 => Holders::Nobody,
            depth if word & EXCLUSIVE != 0 => Holders::Exclusive(depth),
            sharers => Holders::Shared(sharers),
        };
        Status { holders, queued: word & QUEUED != 0, cancelling: word & CANCELLING != 0 }
    }

    /// (1)
    #[inline]
    fn take(&self) -> bool {
        // Acquire: sees what the last holders did (pairs with the Release in `release_exclusive` and `release_shared`).
        self.word.compare_exchange(0, EXCLUSIVE | 1, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// (2)
    #[inline]
    fn share(&self) -> bool {
        let mut seen = self.word.load(Ordering::Relaxed);
        while seen & (EXCLUSIVE | FLAGS) == 0 && seen < COUNT {
            // Acquire: as in `take`.
            match self.word.compare_exchange(seen, seen + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// (3) Another share, by one who has a share: nobody in the queue keeps it out. Returns whether there is room.
    pub(super) fn share_again(&self) -> bool {
        // Relaxed: the share that is held has seen everything.
        let more = |word: u32| (word & COUNT < COUNT).then_some(word.wrapping_add(1));
        self.word.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// (4) Once more, by the exclusive holder. Returns whether there is room.
    pub(super) fn take_again(&self) -> bool {
        self.share_again()
    }

    /// The exclusive holder: how often it has the lock.
    pub(super) fn depth(&self) -> u32 {
        self.word.load(Ordering::Relaxed) & COUNT
    }

    /// (5) By a sharer: the only share becomes the whole.
    pub(super) fn try_upgrade(&self) -> bool {
        // Acquire: as in `take`.
        let whole = |word: u32| Want::Upgrade.enter(word);
        self.word.fetch_update(Ordering::Acquire, Ordering::Relaxed, whole).is_ok()
    }

    /// (6) By the exclusive holder, who has it once: the whole becomes a share.
    pub(super) fn downgrade(&self) {
        // Release: who shares from now on sees what this one wrote (pairs with the Acquire in `share` and `let_in`).
        let before = self.word.fetch_sub(EXCLUSIVE, Ordering::Release);
        if before & QUEUED != 0 {
            self.settle();
        }
    }

    /// (7) By the exclusive holder.
    #[inline]
    pub(super) fn release_exclusive(&self) {
        // Release: the next holder sees what this one wrote (pairs with the Acquire in `take`, `share` and `let_in`).
        let free = self.word.compare_exchange(EXCLUSIVE | 1, 0, Ordering::Release, Ordering::Relaxed);
        if free.is_err() {
            self.release_exclusive_slowly();
        }
    }

    #[cold]
    fn release_exclusive_slowly(&self) {
        if self.depth() > 1 {
            self.word.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        // Release: as in `release_exclusive`.
        self.word.fetch_sub(EXCLUSIVE | 1, Ordering::Release);
        self.settle();
    }

    /// (8) By a sharer.
    #[inline]
    pub(super) fn release_shared(&self) {
        // Release: who has it alone next does so after our reads (pairs as in `release_exclusive`).
        let before = self.word.fetch_sub(1, Ordering::Release);
        // The last but one may leave one who waits to upgrade.
        if before & FLAGS != 0 && before & COUNT <= 2 {
            self.settle();
        }
    }

    /// (9) By the exclusive holder: from now on until the last holder has gone, who agreed to it does not wait.
    pub(super) fn cancel_begin(&self) {
        // Relaxed: who comes later sees it with the queue locked, and who came earlier is in the queue.
        self.word.fetch_or(CANCELLING, Ordering::Relaxed);
        self.refuse();
    }

    /// Sends off all those in the queue who agreed to it.
    fn refuse(&self) {
        loop {
            let waker = self.queue.lock().refuse_first(|ask| ask.cancelable);
            let Some(waker) = waker else { break };
            self.wake(waker, Self::refuse);
        }
        self.settle();
    }

    /// (10) By the exclusive holder.
    pub(super) fn cancel_end(&self) {
        self.word.fetch_and(!CANCELLING, Ordering::Relaxed);
    }

    /// (11) Lets in the first in the queue as long as there is room for it, and puts the flags right.
    #[cold]
    pub(super) fn settle(&self) {
        // One at a time: a waker is somebody else's code, so it is called with the queue unlocked.
        while let Some(waker) = self.let_in() {
            self.wake(waker, Self::settle);
        }
    }

    /// Somebody else's code: if it panics, what is left to do is done all the same.
    fn wake(&self, waker: Waker, rest: fn(&Self)) {
        let rest = OnUnwind(|| rest(self));
        waker.wake();
        core::mem::forget(rest);
    }

    fn let_in(&self) -> Option<Waker> {
        let mut queue = self.queue.lock();
        let first = queue.first();
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let entered = first.and_then(|ask| ask.want.enter(settled(seen)));
            let mut next = entered.unwrap_or(settled(seen));
            if queue.is_empty() || (entered.is_some() && queue.has_one()) {
                next &= !QUEUED;
            }
            if next == seen {
                return None;
            }
            // Acquire: what all those did who have released by now is passed on to the one let in, who learns of it
            // with the queue locked (pairs with the Release in `release_exclusive` and `release_shared`).
            match self.word.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if entered.is_some() => return queue.choose(),
                Ok(_) => return None,
                Err(now) => seen = now,
            }
        }
    }

    /// (12) A newcomer, with the queue locked: in, into the queue, or off.
    pub(super) fn enter(&self, queue: &mut Locked<'_, Ask>, ask: Ask) -> Entry {
        let upgrade = ask.want == Want::Upgrade;
        if upgrade && queue.first().is_some_and(|first| first.want == Want::Upgrade) {
            return Entry::Refused(Cause::Upgrading);
        }
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let calm = settled(seen);
            if calm & CANCELLING != 0 && ask.cancelable {
                return Entry::Refused(Cause::Cancelled);
            }
            let room = if seen & QUEUED == 0 || upgrade { ask.want.enter(calm) } else { None };
            let exchanged = match room {
                // Acquire: as in `take`.
                Some(next) => self.word.compare_exchange(seen, next, Ordering::Acquire, Ordering::Relaxed),
                // With the queue locked it stays set.
                None if seen & QUEUED != 0 => return Entry::Waits,
                None => self.word.compare_exchange(seen, calm | QUEUED, Ordering::Relaxed, Ordering::Relaxed),
            };
            match exchanged {
                Ok(_) if room.is_some() => return Entry::LetIn,
                Ok(_) => return Entry::Waits,
                Err(now) => seen = now,
            }
        }
    }
}

/// For the locks.
impl<T: ?Sized> RwLock<T> {
    #[inline]
    #[track_caller]
    pub(super) fn try_exclusive(&self) -> Option<ExclusiveGuard<'_, T>> {
        if self.take() { Some(ExclusiveGuard::new(self, Location::caller())) } else { None }
    }

    #[inline]
    #[track_caller]
    pub(super) fn try_shared(&self) -> Option<SharedGuard<'_, T>>
    where
        T: Sync,
    {
        if self.share() { Some(SharedGuard::new(self, Location::caller())) } else { None }
    }

    pub(super) fn debug(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct(name).field("status", &self.status()).field("site", &self.site).finish_non_exhaustive()
    }
}

struct OnUnwind<F: Fn()>(F);

impl<F: Fn()> Drop for OnUnwind<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
