//! The word of a token: who has it. The numbered transitions are in DESIGN.md.
//!
//! Nobody is woken when it comes free, because nobody is written down: who wants it looks again.

use dfly_hal::sync::atomic::{AtomicU32, Ordering};

use crate::lock::{Holders, Site, const_fn};

/// One has it alone. Then the word is this and nothing else, and only that one writes it.
const EXCLUSIVE: u32 = 1 << 31;
/// Somebody waits to have it alone, and has found it shared. A courtesy: it may be stale.
const REQUESTED: u32 = 1 << 30;
/// The rest of the word says how many share it.
const MAX_SHARERS: u32 = REQUESTED - 1;

/// A token without its data.
#[derive(Debug)]
pub(crate) struct Word {
    word: AtomicU32,
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
            Self { word: AtomicU32::new(0), site: Site::new(name) }
        }
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn holders(&self) -> Holders {
        match self.word.load(Ordering::Relaxed) & !REQUESTED {
            0 => Holders::Nobody,
            EXCLUSIVE => Holders::Exclusive(1),
            sharers => Holders::Shared(sharers),
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

    /// (2) One share more.
    #[inline]
    pub(crate) fn try_shared(&self, manners: Manners) -> bool {
        let mut seen = self.word.load(Ordering::Relaxed);
        loop {
            let polite = manners == Manners::Polite;
            if seen & EXCLUSIVE != 0 || (polite && seen & REQUESTED != 0) || seen & MAX_SHARERS == MAX_SHARERS
            {
                return false;
            }
            // A request that is not respected is taken back: if it is stale, nobody else does, and if it is not, whoever
            // waits makes it again.
            let new = (seen & !REQUESTED) + 1;
            // Acquire: sees what the last exclusive holder did (pairs with `release_exclusive`; the exchanges of other
            // sharers in between do not break its release sequence).
            match self.word.compare_exchange(seen, new, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
    }

    /// (3) Asks those who come to share it to let the caller pass, if it is shared now.
    pub(crate) fn request(&self) {
        let seen = self.word.load(Ordering::Relaxed);
        if seen & MAX_SHARERS != 0 && seen & REQUESTED == 0 {
            // It publishes nothing. If somebody was faster, the caller comes again.
            let _ = self.word.compare_exchange(seen, seen | REQUESTED, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// (4) Exclusive to free, by the holder.
    #[inline]
    pub(crate) fn release_exclusive(&self) {
        // A plain store: nobody else writes the word.
        self.word.store(0, Ordering::Release);
    }

    /// (5) One share less, by a sharer.
    #[inline]
    pub(crate) fn release_shared(&self) {
        // Release: who has it alone next sees that this one is done reading.
        self.word.fetch_sub(1, Ordering::Release);
    }
}
