//! What the adapter reads and writes in memory [4]: the command list, command tables, received FISes.

use bitfield_struct::bitfield;
use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// An entry of the command list [4.2.2].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct CommandHeader {
    /// See [`HeaderFlags`].
    pub flags: U16,
    /// Entries of the PRDT.
    pub prdtl: U16,
    /// Bytes that were transferred; means nothing for queued commands.
    pub prdbc: U32,
    /// Where the command table is: a multiple of 128.
    pub ctba: U32,
    /// Upper half.
    pub ctbau: U32,
    /// Zero.
    pub reserved: [U32; 4],
}

/// The first half word of a command header [4.2.2].
#[bitfield(u16)]
#[derive(PartialEq, Eq)]
pub struct HeaderFlags {
    /// Length of the command FIS in words of four bytes.
    #[bits(5)]
    pub cfl: u8,
    /// The ACMD field is to be sent.
    pub a: bool,
    /// Data goes to the device.
    pub w: bool,
    /// Prefetch.
    pub p: bool,
    /// A part of a soft reset.
    pub r: bool,
    /// BIST.
    pub b: bool,
    /// Clear BSY when the FIS was received.
    pub c: bool,
    _0: bool,
    /// Port of a port multiplier.
    #[bits(4)]
    pub pmp: u8,
}

/// Where the command FIS lies in a command table [4.2.3.1].
pub const TABLE_CFIS_AT: usize = 0x00;
/// Where a packet lies in a command table [4.2.3.2].
pub const TABLE_ACMD_AT: usize = 0x40;
/// Where the PRDT begins in a command table [4.2.3].
pub const TABLE_PRDT_AT: usize = 0x80;

/// An entry of the PRDT [4.2.3.3].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Prd {
    /// Where the memory is: a multiple of two.
    pub dba: U32,
    /// Upper half.
    pub dbau: U32,
    /// Zero.
    pub reserved: U32,
    /// Bytes minus one in the low 22 bits, odd; the top bit asks for an interrupt.
    pub dbc_z: U32,
}

impl Prd {
    /// The most bytes of an entry.
    pub const MAX_BYTES: u32 = 1 << 22;

    /// An entry for `len` bytes at `addr`, both even, `len` at most [`MAX_BYTES`](Self::MAX_BYTES) and not zero.
    pub fn new(addr: u64, len: u32) -> Self {
        Self {
            dba: U32::new(addr as u32),
            dbau: U32::new((addr >> 32) as u32),
            reserved: U32::new(0),
            dbc_z: U32::new(len.wrapping_sub(1) & (Self::MAX_BYTES - 1)),
        }
    }

    /// Where the memory is.
    pub const fn addr(&self) -> u64 {
        (self.dbau.get() as u64) << 32 | self.dba.get() as u64
    }

    /// Bytes.
    pub const fn len(&self) -> u32 {
        (self.dbc_z.get() & (Self::MAX_BYTES - 1)) + 1
    }

    /// Never: there is no entry for no bytes.
    pub const fn is_empty(&self) -> bool {
        false
    }
}

/// Bytes of the area for received FISes [4.2.1].
pub const RECEIVED_BYTES: usize = 256;

/// Where each kind of FIS is put [4.2.1].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ReceivedAt {
    /// DMA Setup.
    DmaSetup = 0x00,
    /// PIO Setup.
    PioSetup = 0x20,
    /// D2H Register.
    D2h = 0x40,
    /// Set Device Bits.
    SetDeviceBits = 0x58,
    /// Unknown.
    Unknown = 0x60,
}

const _: () = {
    assert!(size_of::<CommandHeader>() == 32 && size_of::<Prd>() == 16);
};
