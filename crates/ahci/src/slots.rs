//! A port's command slots as numbers [AHCI 1.3.1, 5.5]: which are free, taken, issued, and what came back. Pure.

/// Commands of two classes never run at the same time [5.5.3]: a device would drop the queued ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Native command queueing: as many at a time as the device takes.
    Queued,
    /// One at a time.
    Single,
}

/// What an adapter did that no adapter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Broken {
    /// It says that commands are under way that were never issued.
    #[error("the adapter has commands {slots:#010x} under way, which were never issued")]
    NeverIssued {
        /// A bit for each slot.
        slots: u32,
    },
}

/// The adapter does not use the command of a slot: it has completed, or was not issued since it was seen stopped, or never.
/// There is one of these for each time that a slot was taken.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "the command's memory is still lent"]
pub struct Back {
    slot: u8,
}

impl Back {
    /// The slot.
    pub const fn slot(&self) -> u8 {
        self.slot
    }
}

/// The adapter was seen not to process the port's commands.
#[derive(Debug)]
pub struct Halted(());

impl Halted {
    /// For whoever has looked.
    pub(crate) const fn seen() -> Self {
        Self(())
    }
}

/// The slots of a port.
///
/// ```text
///   free --take--> taken --issue--> issued --arrived--> free
///                    ^  \--withdraw--> free    |
///                    +--recall (it was stopped)+
/// ```
#[derive(Debug)]
pub struct Slots {
    /// A bit for each slot that there is.
    all: u32,
    taken: u32,
    issued: u32,
    class: Class,
}

/// The lowest `count` bits.
const fn ones(count: u8) -> u32 {
    if count >= 32 { u32::MAX } else { (1 << count) - 1 }
}

/// The bits of `mask`, lowest first.
pub(crate) fn bits(mut mask: u32) -> impl Iterator<Item = u8> {
    core::iter::from_fn(move || {
        let slot = mask.trailing_zeros() as u8;
        mask &= mask.wrapping_sub(1);
        (slot < 32).then_some(slot)
    })
}

impl Slots {
    /// `count` free slots, 1 to 32.
    pub const fn new(count: u8) -> Self {
        Self { all: ones(count), taken: 0, issued: 0, class: Class::Single }
    }

    /// A free slot for a command of `class`, if none of the other class is in the way. `depth` is how many queued commands
    /// the device takes: their slots lie below it.
    pub fn take(&mut self, class: Class, depth: u8) -> Option<u8> {
        let room = match class {
            _ if self.taken == 0 => self.all & if class == Class::Queued { ones(depth) } else { 1 },
            Class::Queued if self.class == Class::Queued => self.all & ones(depth) & !self.taken,
            _ => 0,
        };
        let slot = bits(room).next()?;
        self.taken |= 1 << slot;
        self.class = class;
        Some(slot)
    }

    /// Those that are taken and not issued: from now on they are. Write them to PxSACT, if they are queued, and to PxCI.
    pub fn issue(&mut self) -> u32 {
        let new = self.taken & !self.issued;
        self.issued = self.taken;
        new
    }

    /// Those that have completed, by what PxSACT and PxCI say.
    ///
    /// # Errors
    /// [`Broken`]; then nothing has.
    pub fn arrived(&mut self, sact: u32, ci: u32) -> Result<impl Iterator<Item = Back> + use<>, Broken> {
        let pending = match self.class {
            Class::Queued => sact | ci,
            Class::Single => ci,
        };
        let slots = pending & !self.issued;
        if slots != 0 {
            return Err(Broken::NeverIssued { slots });
        }
        let done = self.issued & !pending;
        self.issued &= !done;
        self.taken &= !done;
        Ok(bits(done).map(|slot| Back { slot }))
    }

    /// The adapter has stopped: nothing is issued any more, and everything is still taken.
    pub fn recall(&mut self, _: &Halted) {
        self.issued = 0;
    }

    /// Gives back a slot whose command is not issued.
    pub fn withdraw(&mut self, slot: u8) -> Option<Back> {
        let bit = 1_u32.checked_shl(slot.into())?;
        (self.taken & !self.issued & bit != 0).then(|| {
            self.taken &= !bit;
            Back { slot }
        })
    }

    /// The class of what is taken.
    pub const fn class(&self) -> Class {
        self.class
    }

    /// Those that are taken.
    pub const fn taken(&self) -> u32 {
        self.taken
    }

    /// Those that are issued.
    pub const fn issued(&self) -> u32 {
        self.issued
    }

    /// Whether all are free.
    pub const fn is_idle(&self) -> bool {
        self.taken == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn classes_do_not_mix_and_tags_stay_below_the_depth() {
        let mut slots = Slots::new(32);
        let taken: Vec<_> = std::iter::from_fn(|| slots.take(Class::Queued, 4)).collect();
        assert_eq!(taken, [0, 1, 2, 3]);
        assert_eq!(slots.take(Class::Single, 4), None);
        assert_eq!((slots.issue(), slots.issue()), (0xf, 0));
        assert_eq!(
            slots.arrived(0b0100, 0b1000).unwrap().map(|back| back.slot()).collect::<Vec<_>>(),
            [0, 1]
        );
        assert_eq!(slots.take(Class::Single, 4), None);
        assert_eq!(slots.take(Class::Queued, 4), Some(0));
        assert!(slots.withdraw(0).is_some() && slots.withdraw(0).is_none() && slots.withdraw(2).is_none());
        assert_eq!(slots.arrived(0, 0).unwrap().count(), 2);
        assert_eq!(slots.take(Class::Single, 4), Some(0));
        assert_eq!((slots.take(Class::Single, 4), slots.take(Class::Queued, 4)), (None, None));
    }

    #[test]
    fn what_was_never_issued_cannot_be_under_way() {
        let mut slots = Slots::new(8);
        slots.take(Class::Queued, 8);
        assert_eq!(slots.arrived(1, 0).err(), Some(Broken::NeverIssued { slots: 1 }), "not yet issued");
        slots.issue();
        assert_eq!(slots.arrived(2, 1).err(), Some(Broken::NeverIssued { slots: 2 }));
        assert_eq!(slots.arrived(0, 0).unwrap().count(), 1);
    }

    #[test]
    fn what_is_recalled_is_issued_again_or_withdrawn() {
        let mut slots = Slots::new(32);
        while slots.take(Class::Queued, 32).is_some() {}
        assert_eq!(slots.issue(), u32::MAX);
        slots.recall(&Halted::seen());
        assert!(slots.withdraw(31).is_some());
        assert_eq!((slots.taken(), slots.issued()), (u32::MAX >> 1, 0));
        assert_eq!(slots.issue(), u32::MAX >> 1);
    }
}
