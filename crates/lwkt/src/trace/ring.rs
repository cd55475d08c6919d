//! A ring of entries of four words: anybody writes at any instruction, anybody reads, nobody waits.

use alloc::boxed::Box;

use dfly_hal::sync::atomic::{AtomicU64, Ordering, fence};

/// The entries that were written last.
#[repr(align(128))]
pub struct Ring {
    /// How many were ever begun.
    begun: AtomicU64,
    slots: Box<[Slot]>,
}

/// A place for every `slots.len()`-th entry.
struct Slot {
    /// 2 n + 1: entry n is being written. 2 n + 2: it is here. 0: nothing is.
    stamp: AtomicU64,
    words: [AtomicU64; 4],
}

impl Ring {
    /// Room for so many entries, rounded up to a power of two.
    pub fn new(entries: usize) -> Self {
        let slot = |_| Slot { stamp: AtomicU64::new(0), words: [0; 4].map(AtomicU64::new) };
        let room = entries.checked_next_power_of_two().unwrap_or(1);
        Self { begun: AtomicU64::new(0), slots: (0..room).map(slot).collect() }
    }

    fn slot(&self, entry: u64) -> Option<&Slot> {
        self.slots.get(entry as usize & (self.slots.len() - 1))
    }

    /// Writes an entry over the oldest one. If somebody still writes that, or writes a later one there, this one is lost.
    pub fn write(&self, words: [u64; 4]) {
        let entry = self.begun.fetch_add(1, Ordering::Relaxed);
        let Some(slot) = self.slot(entry) else { return };
        let stamp = slot.stamp.load(Ordering::Relaxed);
        let (writing, written) = (2 * entry + 1, 2 * entry + 2);
        // Acquire: what the last writer did is done (pairs with its Release below), so its words are not later than these.
        let mine = stamp % 2 == 0
            && stamp < writing
            && slot.stamp.compare_exchange(stamp, writing, Ordering::Acquire, Ordering::Relaxed).is_ok();
        if !mine {
            return;
        }
        // Release, and the Acquire fence in `read`: who sees one of the words sees the stamp.
        fence(Ordering::Release);
        for (to, word) in slot.words.iter().zip(words) {
            to.store(word, Ordering::Relaxed);
        }
        // Release: pairs with the first load in `read`.
        slot.stamp.store(written, Ordering::Release);
    }

    /// Shows all entries that are whole, oldest first. Those that are being written are left out.
    pub fn read(&self, each: &mut dyn FnMut([u64; 4])) {
        let begun = self.begun.load(Ordering::Relaxed);
        for entry in begun.saturating_sub(self.slots.len() as u64)..begun {
            let Some(slot) = self.slot(entry) else { return };
            let written = 2 * entry + 2;
            if slot.stamp.load(Ordering::Acquire) != written {
                continue;
            }
            let words = slot.words.each_ref().map(|word| word.load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if slot.stamp.load(Ordering::Relaxed) == written {
                each(words);
            }
        }
    }
}

#[cfg(all(test, feature = "std", not(loom)))]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn all(ring: &Ring) -> Vec<[u64; 4]> {
        let mut all = Vec::new();
        ring.read(&mut |words| all.push(words));
        all
    }

    #[test]
    fn the_newest_are_kept_in_order() {
        let ring = Ring::new(3);
        assert_eq!(all(&ring), [[0; 4]; 0]);
        (0..10).for_each(|n| ring.write([n; 4]));
        assert_eq!(all(&ring), [6, 7, 8, 9].map(|n| [n; 4]));
    }

    #[test]
    fn what_is_read_while_it_is_written_is_whole() {
        const ENTRIES: u64 = if cfg!(miri) { 100 } else { 100_000 };
        let ring = Ring::new(4);
        std::thread::scope(|scope| {
            for writer in 0..2 {
                let ring = &ring;
                scope.spawn(move || (0..ENTRIES).for_each(|n| ring.write([2 * n + writer; 4])));
            }
            while ring.begun.load(Ordering::Relaxed) < 2 * ENTRIES {
                for [first, rest @ ..] in all(&ring) {
                    assert_eq!(rest, [first; 3]);
                }
            }
        });
    }
}
