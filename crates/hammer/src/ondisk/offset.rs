//! The 64-bit address of the file system: zone, volume, byte.

use core::fmt;

use super::{BIG_BLOCK_SIZE, BUFFER_SIZE};

/// What lies at an address, and which rule translates it: the top four bits of an [`Offset`].
///
/// An open enum: every four-bit value is representable.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Zone(pub u8);

impl Zone {
    /// Owner of a big-block that nobody owns.
    pub const FREE: Self = Self(0);
    /// Byte offset from the start of the device.
    pub const RAW_VOLUME: Self = Self(1);
    /// Byte offset from the start of the volume's buffer area.
    pub const RAW_BUFFER: Self = Self(2);
    /// Position in the UNDO/REDO FIFO.
    pub const UNDO: Self = Self(3);
    /// The tables that say who owns which big-block.
    pub const FREEMAP: Self = Self(4);
    /// B-tree nodes.
    pub const BTREE: Self = Self(8);
    /// Inodes, directory entries and other small records.
    pub const META: Self = Self(9);
    /// File data in records of 16 KiB and more.
    pub const LARGE_DATA: Self = Self(10);
    /// File data in smaller records.
    pub const SMALL_DATA: Self = Self(11);
    /// Owner of a big-block that lies behind the end of the volume.
    pub const UNAVAILABLE: Self = Self(15);

    /// Whether addresses in this zone name a volume and translate to [`Zone::RAW_BUFFER`] by replacing the zone.
    pub const fn is_direct(self) -> bool {
        matches!(self.0, 2 | 4 | 8..=15)
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "zone {}", self.0)
    }
}

/// An address in the file system (`hammer_off_t`): zone in bits 63..60, volume in bits 59..52, byte in bits 51..0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// "No address".
    pub const NONE: Self = Self(0);
    /// "Bad address": also marks freemap slots without space behind them.
    pub const UNAVAILABLE: Self = Self(u64::MAX);

    const SHORT_MASK: u64 = (1 << 52) - 1;

    /// The address of `byte` in `zone` of `volume`. Bits that do not fit are cut off.
    pub const fn new(zone: Zone, volume: u8, byte: u64) -> Self {
        Self(((zone.0 as u64) << 60) | ((volume as u64) << 52) | (byte & Self::SHORT_MASK))
    }

    /// The zone.
    pub const fn zone(self) -> Zone {
        Zone((self.0 >> 60) as u8)
    }

    /// The volume. Meaningless in [`Zone::UNDO`].
    pub const fn volume(self) -> u8 {
        (self.0 >> 52) as u8
    }

    /// The byte within the volume's part of the zone.
    pub const fn byte(self) -> u64 {
        self.0 & Self::SHORT_MASK
    }

    /// The low 60 bits: volume and byte as one number, the index space of the freemap.
    pub const fn long(self) -> u64 {
        self.0 & ((1 << 60) - 1)
    }

    /// The same place, named by another zone.
    pub const fn in_zone(self, zone: Zone) -> Self {
        Self(self.long() | ((zone.0 as u64) << 60))
    }

    /// The start of the buffer that holds this address.
    pub const fn buffer(self) -> Self {
        Self(self.0 & !(BUFFER_SIZE as u64 - 1))
    }

    /// The position within that buffer, in bytes.
    pub const fn in_buffer(self) -> usize {
        (self.0 & (BUFFER_SIZE as u64 - 1)) as usize
    }

    /// The position within the big-block, in bytes.
    pub const fn in_big_block(self) -> u64 {
        self.0 & (BIG_BLOCK_SIZE - 1)
    }

    /// `bytes` further on, or `None` where that would leave the volume's part of the zone.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.byte().checked_add(bytes) {
            Some(b) if b <= Self::SHORT_MASK => Some(Self((self.0 & !Self::SHORT_MASK) | b)),
            _ => None,
        }
    }
}

impl fmt::Debug for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_takes_apart_into_zone_volume_and_byte() {
        let o = Offset(0xa01_0000000800123);
        assert_eq!((o.zone(), o.volume(), o.byte()), (Zone::LARGE_DATA, 1, 0x800123));
        assert_eq!(Offset::new(Zone::LARGE_DATA, 1, 0x800123), o);
        assert_eq!(o.in_zone(Zone::RAW_BUFFER), Offset(0x201_0000000800123));
        assert_eq!((o.buffer(), o.in_buffer()), (Offset(0xa01_0000000800000), 0x123));
        assert_eq!(o.in_big_block(), 0x123);
    }

    #[test]
    fn adding_never_carries_into_the_volume() {
        let o = Offset::new(Zone::META, 3, (1 << 52) - 16);
        assert_eq!(o.checked_add(15).map(Offset::volume), Some(3));
        assert_eq!(o.checked_add(16), None);
        assert_eq!(o.checked_add(u64::MAX), None);
    }
}
