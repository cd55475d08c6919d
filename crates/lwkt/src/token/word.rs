//! The word of a token: who has it. The numbered transitions are in DESIGN.md.
//!
//! Nobody is woken when it comes free, because nobody is written down: who wants it looks again.

use dfly_hal::sync::atomic::{AtomicUsize, Ordering};

use crate::lock::{Holders, Site, const_fn};

/// One has it alone. What else is in the word then means nothing, and goes with it.
const EXCLUSIVE: usize = 1 << (usize::BITS - 1);
/// Somebody waits to have it alone, and has found it shared. A courtesy: it may be stale.
const REQUESTED: usize = 1 << (usize::BITS - 2);
/// How many share it.
const SHARERS: usize = REQUESTED - 1;
/// So many may, and as many CPUs again may try at the same moment.
const MAX_SHARERS: usize = SHARERS / 2;
/// A share may be added without a look: this many are never added while somebody has the token alone.
const ROOM: bool = usize::BITS >= 64;

/// A token without its data.
#[derive(Debug)]
pub(crate) struct Word {
    word: AtomicUsize,
    site: Site,
}

/// How somebody asks for a share that another one waits to have alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manners {
    /// After the other one.
    Polite,
    /// Now: it has been polite for long enough, or does not ask again.
    Insistent,
}

impl Word {
    const_fn! {
        pub(crate) fn new(name: Option<&'static str>) -> Self {
            Self { word: AtomicUsize::new(0), site: Site::new(name) }
        }
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn holders(&self) -> Holders {
        match self.word.load(Ordering::Relaxed) {
            word if word & EXCLUSIVE != 0 => Holders::Exclusive(1),
            word if word & SHARERS != 0 => Holders::Shared((word & SHARERS) as u32),
            _ => Holders::Nobody,
        }
    }

    /// (1) Free, be it requested or not, to exclusive.
    #[inline]
    pub(crate) fn try_exclusive(&self) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        // Acquire: sees what the last holders did (pairs with the Release in `release_exclusive` and `release_shared`).
        seen & !REQUESTED == 0
            && self.word.compare_exchange(seen, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// (2) One share more, politely, for who asks for the first time, and waits if it is refused.
    #[inline]
    pub(crate) fn share(&self) -> bool {
        // A look would take longer than the share: it waits until the last read-modify-write of this CPU is done.
        if ROOM { self.add(Manners::Polite) } else { self.try_shared(Manners::Polite) }
    }

    /// (2) One share more.
    #[inline]
    pub(crate) fn try_shared(&self, manners: Manners) -> bool {
        let seen = self.word.load(Ordering::Relaxed);
        let gives_way = manners == Manners::Polite && seen & REQUESTED != 0;
        seen & EXCLUSIVE == 0 && !gives_way && seen & SHARERS < MAX_SHARERS && self.add(manners)
    }

    #[inline]
    fn add(&self, manners: Manners) -> bool {
        // Acquire: sees what the last exclusive holder did (pairs with `release_exclusive`; what other sharers do in between
        // does not break its release sequence).
        let before = self.word.fetch_add(1, Ordering::Acquire);
        if before & (EXCLUSIVE | REQUESTED) == 0 {
            return true;
        }
        self.added_late(before, manners)
    }

    #[cold]
    fn added_late(&self, before: usize, manners: Manners) -> bool {
        if before & EXCLUSIVE != 0 {
            // Their release overwrites what was added here, so it must not be taken back.
            return false;
        }
        match manners {
            Manners::Polite => self.release_shared(),
            // If it is stale, nobody else takes it back, and if it is not, whoever waits makes it again.
            Manners::Insistent => _ = self.word.fetch_and(!REQUESTED, Ordering::Relaxed),
        }
        manners == Manners::Insistent
    }

    /// (3) Asks those who come to share it to let the caller pass, if it is shared now.
    pub(crate) fn request(&self) {
        let seen = self.word.load(Ordering::Relaxed);
        if seen & SHARERS != 0 && seen & (EXCLUSIVE | REQUESTED) == 0 {
            // It publishes nothing. If somebody was faster, the caller comes again.
            let _ = self.word.compare_exchange(seen, seen | REQUESTED, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// (4) Exclusive to free, by the holder.
    #[inline]
    pub(crate) fn release_exclusive(&self) {
        // A plain store: nobody else has anything in the word that counts. What late sharers add goes with it: it comes
        // before, because a read-modify-write follows at once, in the order of the word, on what it has read.
        #[cfg(not(loom))]
        self.word.store(0, Ordering::Release);
        // Loom lets a store come between the two.
        #[cfg(loom)]
        self.word.swap(0, Ordering::Release);
    }

    /// (5) One share less, by a sharer.
    #[inline]
    pub(crate) fn release_shared(&self) {
        // Release: who has it alone next sees that this one is done reading.
        self.word.fetch_sub(1, Ordering::Release);
    }
}
