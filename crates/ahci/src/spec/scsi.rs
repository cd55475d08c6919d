//! The packets of ATAPI devices that are read like disks [MMC-6, SPC-4], and sense data.

use dfly_bio::Failure;
use zerocopy::big_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cdb(pub [u8; 16]);

impl Cdb {
    /// TEST UNIT READY.
    pub const TEST_UNIT_READY: u8 = 0x00;
    /// REQUEST SENSE.
    pub const REQUEST_SENSE: u8 = 0x03;
    /// READ CAPACITY (10).
    pub const READ_CAPACITY: u8 = 0x25;
    /// READ (10).
    pub const READ: u8 = 0x28;

    /// Asks why the packet before failed.
    pub const fn request_sense() -> Self {
        let mut cdb = [0; 16];
        (cdb[0], cdb[4]) = (Self::REQUEST_SENSE, Sense::BYTES as u8);
        Self(cdb)
    }

    /// Asks how large the medium is.
    pub const fn read_capacity() -> Self {
        let mut cdb = [0; 16];
        cdb[0] = Self::READ_CAPACITY;
        Self(cdb)
    }

    /// Reads `blocks` blocks at `lba`.
    pub const fn read(lba: u32, blocks: u16) -> Self {
        let ([l0, l1, l2, l3], [b0, b1]) = (lba.to_be_bytes(), blocks.to_be_bytes());
        Self([Self::READ, 0, l0, l1, l2, l3, 0, b0, b1, 0, 0, 0, 0, 0, 0, 0])
    }
}

/// What READ CAPACITY (10) answers.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Capacity {
    /// The last block's address.
    pub last_lba: U32,
    /// Bytes of a block.
    pub block_bytes: U32,
}

/// A sense key [SPC-4, 4.5.6].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SenseKey(pub u8);

impl SenseKey {
    /// Nothing to say.
    pub const NONE: Self = Self(0);
    /// Something went wrong and was put right.
    pub const RECOVERED: Self = Self(1);
    /// Not ready.
    pub const NOT_READY: Self = Self(2);
    /// The medium.
    pub const MEDIUM: Self = Self(3);
    /// The device.
    pub const HARDWARE: Self = Self(4);
    /// The packet.
    pub const ILLEGAL_REQUEST: Self = Self(5);
    /// Something changed: a medium was inserted, the device was reset.
    pub const UNIT_ATTENTION: Self = Self(6);
    /// Write protected.
    pub const DATA_PROTECT: Self = Self(7);
    /// Given up.
    pub const ABORTED: Self = Self(11);
}

/// Sense data of the fixed format, its first bytes [SPC-4, 4.5.3].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Sense {
    /// 70h or 71h, and a valid bit.
    pub response: u8,
    /// Obsolete.
    pub segment: u8,
    /// The key in the low four bits.
    pub key: u8,
    /// Depends.
    pub information: [u8; 4],
    /// Bytes that follow.
    pub additional_len: u8,
    /// Depends.
    pub command_specific: [u8; 4],
    /// Additional sense code.
    pub asc: u8,
    /// And its qualifier.
    pub ascq: u8,
    /// The rest.
    pub rest: [u8; 6],
}

impl Sense {
    /// Bytes that are asked for.
    pub const BYTES: usize = 20;
    /// Additional sense code: there is no medium.
    pub const NO_MEDIUM: u8 = 0x3a;
    /// Additional sense code: the address is beyond the end.
    pub const LBA_OUT_OF_RANGE: u8 = 0x21;

    /// The key.
    pub const fn key(&self) -> SenseKey {
        SenseKey(self.key & 0xf)
    }

    /// The way the block layer says it.
    pub const fn failure(&self) -> Failure {
        match (self.key(), self.asc) {
            (SenseKey::MEDIUM, _) => Failure::Media,
            (SenseKey::NOT_READY, Self::NO_MEDIUM) => Failure::Gone,
            (SenseKey::ILLEGAL_REQUEST, Self::LBA_OUT_OF_RANGE) => Failure::OutOfRange,
            (SenseKey::ILLEGAL_REQUEST, _) => Failure::Unsupported,
            (SenseKey::DATA_PROTECT, _) => Failure::WriteProtected,
            (SenseKey::ABORTED, _) => Failure::Aborted,
            _ => Failure::Device,
        }
    }
}

const _: () = assert!(size_of::<Sense>() == Sense::BYTES && size_of::<Capacity>() == 8);
