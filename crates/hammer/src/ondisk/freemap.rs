//! The freemap: a two-level table that says who owns each big-block.

use zerocopy::little_endian::{I32, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Offset;

/// Entries of the one layer-1 table; each covers 4 TiB of the 60-bit space.
pub const LAYER1_ENTRIES: u64 = 1 << 18;
/// Entries of a layer-2 table, one for each big-block.
pub const LAYER2_ENTRIES: u64 = 1 << 19;
/// Layer-1 entries that belong to one volume.
pub const LAYER1_PER_VOLUME: u64 = 1024;

/// A layer-1 entry (`hammer_blockmap_layer1`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Layer1 {
    /// Big-blocks of these 4 TiB that nobody owns.
    pub blocks_free: U64,
    /// Address of the layer-2 table, or [`Offset::UNAVAILABLE`].
    pub phys_offset: U64,
    /// Zero.
    pub reserved01: U64,
    /// Unused.
    pub layer2_crc: U32,
    /// Checksum of bytes 0..28.
    pub layer1_crc: U32,
}

/// A layer-2 entry (`hammer_blockmap_layer2`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Layer2 {
    /// The zone that owns the big-block.
    pub zone: u8,
    /// Zero.
    pub reserved01: u8,
    /// Zero.
    pub reserved02: U16,
    /// The next byte that was never used, from the start of the big-block.
    pub append_off: U32,
    /// Size of a big-block less the bytes in use. Deduplicated data can make it negative.
    pub bytes_free: I32,
    /// Checksum of bytes 0..12.
    pub entry_crc: U32,
}

impl Layer1 {
    /// Bytes that [`Self::layer1_crc`] covers.
    pub const CRC_LEN: usize = 28;

    /// Position of the entry for `at` within the layer-1 table, in bytes.
    pub const fn position(at: Offset) -> u64 {
        (at.long() >> 42) * size_of::<Self>() as u64
    }
}

impl Layer2 {
    /// Bytes that [`Self::entry_crc`] covers.
    pub const CRC_LEN: usize = 12;

    /// Position of the entry for `at` within its layer-2 table, in bytes.
    pub const fn position(at: Offset) -> u64 {
        ((at.long() >> 23) & (LAYER2_ENTRIES - 1)) * size_of::<Self>() as u64
    }
}

const _: () = assert!(size_of::<Layer1>() == 32 && size_of::<Layer2>() == 16);
