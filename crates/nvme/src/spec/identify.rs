//! Identify data structures [5.15.2], as far as the driver reads them.

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The first bytes of Identify Controller [5.15.2.2].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyController {
    /// PCI vendor.
    pub vid: U16,
    /// PCI subsystem vendor.
    pub ssvid: U16,
    /// Serial number, ASCII, padded with blanks.
    pub sn: [u8; 20],
    /// Model, ASCII, padded with blanks.
    pub mn: [u8; 40],
    /// Firmware revision.
    pub fr: [u8; 8],
    /// Arbitration burst.
    pub rab: u8,
    /// IEEE OUI.
    pub ieee: [u8; 3],
    /// Multi-path.
    pub cmic: u8,
    /// The longest transfer is 2^MDTS of the smallest pages; 0: no limit.
    pub mdts: u8,
    /// Controller identifier.
    pub cntlid: U16,
    /// Version.
    pub ver: U32,
    _84: [u8; 512 - 84],
    /// Submission entry sizes: smallest in the low, largest in the high half, powers of two.
    pub sqes: u8,
    /// Completion entry sizes.
    pub cqes: u8,
    /// Outstanding commands.
    pub maxcmd: U16,
    /// Number of namespaces.
    pub nn: U32,
    /// Optional commands.
    pub oncs: U16,
    /// Fused operations.
    pub fuses: U16,
    /// Format attributes.
    pub fna: u8,
    /// Volatile write cache: bit 0, there is one.
    pub vwc: u8,
    _526: [u8; 2],
}

/// The first bytes of Identify Namespace [5.15.2.1].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct IdentifyNamespace {
    /// Size in blocks; 0: not active.
    pub nsze: U64,
    /// Capacity.
    pub ncap: U64,
    /// Blocks in use.
    pub nuse: U64,
    /// Features.
    pub nsfeat: u8,
    /// Number of formats, minus one.
    pub nlbaf_z: u8,
    /// The format in use: low four bits of its number, and bits 5 and 6 above them.
    pub flbas: u8,
    _27: [u8; 46 - 27],
    /// Transfers should not cross a multiple of so many blocks; 0: none.
    pub noiob: U16,
    _48: [u8; 99 - 48],
    /// Bit 0: write protected.
    pub nsattr: u8,
    _100: [u8; 128 - 100],
    /// Formats.
    pub lbaf: [U32; 64],
}

impl IdentifyNamespace {
    /// The format in use.
    pub fn format(&self) -> LbaFormat {
        let index = self.flbas & 0xf | (self.flbas >> 5 & 3) << 4;
        self.lbaf.get(usize::from(index)).map_or_else(LbaFormat::new, |f| LbaFormat::from_bits(f.get()))
    }
}

/// A format of blocks [5.15.2.1, LBA Format].
#[bitfield(u32)]
#[derive(PartialEq, Eq)]
pub struct LbaFormat {
    /// Metadata bytes of a block.
    pub ms: u16,
    /// A block has 2^LBADS bytes; 0: there is no such format.
    pub lbads: u8,
    /// Relative performance.
    #[bits(2)]
    pub rp: u8,
    #[bits(6)]
    _0: u8,
}

const _: () = assert!(size_of::<IdentifyController>() == 528 && size_of::<IdentifyNamespace>() == 384);
