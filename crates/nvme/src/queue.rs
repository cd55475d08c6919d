//! A queue pair as numbers [NVMe base 1.4, 4.1]: where the rings stand, which identifiers are out. Pure.

use alloc::vec::Vec;

/// A position in a ring of 2 to 65536 entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ring {
    last_z: u16,
}

impl Ring {
    fn next(self, index: u16) -> u16 {
        if index >= self.last_z { 0 } else { index + 1 }
    }

    /// Steps from `from` on to `to`, both inside the ring.
    fn distance(self, from: u16, to: u16) -> u32 {
        let (from, to) = (u32::from(from), u32::from(to));
        if to >= from { to - from } else { to + u32::from(self.last_z) + 1 - from }
    }
}

/// What a controller did that no controller does. The queue is of no more use: reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// It completed a command that is not under way: never sent, or completed before.
    #[error("the controller completed command {cid:#06x}, which is not under way")]
    UnknownCommand {
        /// The identifier it gave.
        cid: u16,
    },
    /// It named another submission queue.
    #[error("the controller completed a command of queue {sqid} in queue {qid}")]
    WrongQueue {
        /// The queue it named.
        sqid: u16,
        /// The queue it answered in.
        qid: u16,
    },
    /// It claims to have read entries that nobody wrote.
    #[error("the controller claims to have read up to {sqhd} of a queue that stands at {head}..{tail}")]
    BadHead {
        /// Its claim.
        sqhd: u16,
        /// Where it was.
        head: u16,
        /// The end of what was written.
        tail: u16,
    },
}

/// A submission queue: entries from `head` to `tail` belong to the controller.
#[derive(Clone, Copy, Debug)]
pub struct Submission {
    ring: Ring,
    head: u16,
    tail: u16,
    rung: u16,
}

impl Submission {
    /// An empty queue of `size_z` + 1 entries.
    pub const fn new(size_z: u16) -> Self {
        Self { ring: Ring { last_z: size_z }, head: 0, tail: 0, rung: 0 }
    }

    /// Whether there is no room: one entry always stays empty.
    pub fn is_full(&self) -> bool {
        self.ring.next(self.tail) == self.head
    }

    /// The index to write the next entry to, if there is room. The controller does not see it before the doorbell.
    pub fn push(&mut self) -> Option<u16> {
        if self.is_full() {
            return None;
        }
        let index = self.tail;
        self.tail = self.ring.next(index);
        Some(index)
    }

    /// What to write to the doorbell, if anything was pushed since the last time.
    pub fn doorbell(&mut self) -> Option<u16> {
        (self.rung != self.tail).then(|| {
            self.rung = self.tail;
            self.tail
        })
    }

    /// Believes the controller that it has read up to `sqhd`, if it can have.
    ///
    /// # Errors
    /// [`Broken::BadHead`].
    pub fn consumed(&mut self, sqhd: u16) -> Result<(), Broken> {
        let Self { ring, head, rung, .. } = *self;
        if sqhd > ring.last_z || ring.distance(head, sqhd) > ring.distance(head, rung) {
            return Err(Broken::BadHead { sqhd, head, tail: rung });
        }
        self.head = sqhd;
        Ok(())
    }
}

/// A completion queue: the phase tag tells which entries are new.
#[derive(Clone, Copy, Debug)]
pub struct Arrivals {
    ring: Ring,
    head: u16,
    phase: bool,
    rung: u16,
}

impl Arrivals {
    /// An empty queue of `size_z` + 1 zeroed entries.
    pub const fn new(size_z: u16) -> Self {
        Self { ring: Ring { last_z: size_z }, head: 0, phase: true, rung: 0 }
    }

    /// Where the next completion arrives, and the phase tag that says that it has.
    pub const fn expected(&self) -> (u16, bool) {
        (self.head, self.phase)
    }

    /// The expected entry was read.
    pub fn advance(&mut self) {
        self.head = self.ring.next(self.head);
        self.phase ^= self.head == 0;
    }

    /// What to write to the doorbell, if anything was read since the last time.
    pub fn doorbell(&mut self) -> Option<u16> {
        (self.rung != self.head).then(|| {
            self.rung = self.head;
            self.head
        })
    }
}

/// A command that completed: its identifier was out, and is no more. There is one of these for each time that a command was
/// sent.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the command's memory is still lent"]
pub struct Arrived {
    slot: u16,
}

impl Arrived {
    /// The command's slot.
    pub const fn slot(&self) -> u16 {
        self.slot
    }
}

/// The command identifiers of a queue: the low bits are a slot, the high ones count its uses, so that a completion that
/// comes twice, or late, is not taken for another's.
///
/// ```text
///   free --take--> out --arrive--> retired --reuse (after the completion doorbell)--> free
/// ```
#[derive(Debug)]
pub struct Identifiers {
    bits: u32,
    /// The latest identifier of each slot, and whether it is out.
    slots: Vec<(u16, bool)>,
    free: Vec<u16>,
    retired: Vec<u16>,
}

impl Identifiers {
    /// The most slots: at least four bits are left to count.
    pub const MAX_SLOTS: u16 = 4096;

    /// Identifiers for `slots` commands at a time, at most [`MAX_SLOTS`](Self::MAX_SLOTS). Allocates; nothing else here does.
    pub fn new(slots: u16) -> Self {
        let slots = slots.clamp(1, Self::MAX_SLOTS);
        Self {
            bits: u16::BITS - (slots - 1).leading_zeros(),
            slots: (0..slots).map(|slot| (slot, false)).collect(),
            free: (0..slots).rev().collect(),
            retired: Vec::with_capacity(slots.into()),
        }
    }

    /// A free slot and its new identifier.
    pub fn take(&mut self) -> Option<(u16, u16)> {
        let slot = self.free.pop()?;
        let (cid, out) = self.slots.get_mut(usize::from(slot))?;
        let sequence = (u32::from(*cid) >> self.bits) + 1;
        *cid = (sequence << self.bits) as u16 | slot;
        // An error log says all ones for "of no command".
        if *cid == u16::MAX {
            *cid = slot;
        }
        *out = true;
        Some((slot, *cid))
    }

    /// Gives back a slot whose command was never shown to the controller.
    pub fn untake(&mut self, slot: u16) {
        if let Some((_, out @ true)) = self.slots.get_mut(usize::from(slot)) {
            *out = false;
            self.free.push(slot);
        }
    }

    /// A command has completed.
    ///
    /// # Errors
    /// [`Broken::UnknownCommand`].
    pub fn arrive(&mut self, cid: u16) -> Result<Arrived, Broken> {
        let slot = (u32::from(cid) & ((1 << self.bits) - 1)) as u16;
        match self.slots.get_mut(usize::from(slot)) {
            Some((latest, out @ true)) if *latest == cid => {
                *out = false;
                self.retired.push(slot);
                Ok(Arrived { slot })
            }
            _ => Err(Broken::UnknownCommand { cid }),
        }
    }

    /// The completion doorbell was rung: what arrived may be used again. Not before, because there are controllers that
    /// mistake an identifier that comes back sooner.
    pub fn reuse(&mut self) {
        self.free.append(&mut self.retired);
    }

    /// How many commands are out.
    pub fn out(&self) -> usize {
        self.slots.len() - self.free.len() - self.retired.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "many cases of safe and pure code")]
    fn a_ring_of_any_size_wraps_and_is_full_one_before_its_size() {
        for size_z in [1, 2, 62, 63, 1000, u16::MAX] {
            let mut sq = Submission::new(size_z);
            let mut cq = Arrivals::new(size_z);
            let mut expected = 0;
            for lap in 0..3 {
                for _ in 0..size_z {
                    assert_eq!(sq.push(), Some(expected));
                    expected = if expected == size_z { 0 } else { expected + 1 };
                }
                assert_eq!((sq.push(), sq.is_full()), (None, true), "{size_z} lap {lap}");
                assert_eq!((sq.doorbell(), sq.doorbell()), (Some(expected), None));
                sq.consumed(expected).unwrap();
            }
            for lap in 0..3 {
                for index in 0..=size_z {
                    assert_eq!(cq.expected(), (index, lap % 2 == 0));
                    cq.advance();
                }
            }
        }
    }

    #[test]
    fn a_head_beyond_what_was_rung_is_not_believed() {
        let mut sq = Submission::new(7);
        for _ in 0..3 {
            sq.push();
        }
        assert!(sq.consumed(1).is_err());
        sq.doorbell();
        sq.consumed(2).unwrap();
        assert_eq!(sq.consumed(1), Err(Broken::BadHead { sqhd: 1, head: 2, tail: 3 }));
        assert!(sq.consumed(8).is_err());
        sq.consumed(3).unwrap();
    }

    #[test]
    #[cfg_attr(miri, ignore = "many cases of safe and pure code")]
    fn an_identifier_is_known_once_and_comes_back_after_the_doorbell() {
        for slots in [1, 2, 3, 63, 4096] {
            let mut ids = Identifiers::new(slots);
            assert!(ids.arrive(0).is_err());
            let mut seen = std::collections::HashSet::new();
            for _ in 0..slots {
                let (slot, cid) = ids.take().unwrap();
                assert!(slot < slots && seen.insert(cid));
            }
            assert!(ids.take().is_none());
            for &cid in &seen {
                assert!(ids.arrive(cid).unwrap().slot() < slots);
                assert_eq!(ids.arrive(cid), Err(Broken::UnknownCommand { cid }));
            }
            assert!(ids.take().is_none());
            ids.reuse();
            let (slot, cid) = ids.take().unwrap();
            assert!(!seen.contains(&cid), "a slot's next identifier is another one");
            ids.untake(slot);
            assert!(ids.arrive(cid).is_err());
            assert_eq!(ids.out(), 0);
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "many cases of safe and pure code")]
    fn no_identifier_is_all_ones_and_none_comes_twice_in_a_row() {
        for slots in [1, 2, 64, 4096] {
            let mut ids = Identifiers::new(slots);
            let mut last = std::collections::HashMap::new();
            for _ in 0..70_000_u32 {
                let (slot, cid) = ids.take().unwrap();
                assert_ne!(cid, u16::MAX);
                assert_ne!(last.insert(slot, cid), Some(cid));
                assert_eq!(ids.arrive(cid).unwrap().slot(), slot);
                ids.reuse();
            }
        }
    }
}
