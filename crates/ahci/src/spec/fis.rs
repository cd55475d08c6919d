//! Frames [Serial ATA 3.x, 10.5]: Register Host to Device, Register Device to Host, Set Device Bits.

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::ata::{Registers, Taskfile};

/// The first byte of a frame [10.5.2].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FisType(pub u8);

impl FisType {
    /// Register, host to device.
    pub const H2D: Self = Self(0x27);
    /// Register, device to host.
    pub const D2H: Self = Self(0x34);
    /// DMA Setup.
    pub const DMA_SETUP: Self = Self(0x41);
    /// PIO Setup.
    pub const PIO_SETUP: Self = Self(0x5f);
    /// Set Device Bits.
    pub const SET_DEVICE_BITS: Self = Self(0xa1);
}

/// Register, host to device [10.5.5].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct H2d {
    /// [`FisType::H2D`].
    pub kind: u8,
    /// Bit 7: a command, and not device control; low four bits: port of a port multiplier.
    pub flags: u8,
    /// Command.
    pub command: u8,
    /// Features, low byte.
    pub features: u8,
    /// LBA, bytes 0 to 2.
    pub lba_low: [u8; 3],
    /// Device: bit 6 says that this is an LBA; bit 7 is FUA of queued commands.
    pub device: u8,
    /// LBA, bytes 3 to 5.
    pub lba_high: [u8; 3],
    /// Features, high byte.
    pub features_high: u8,
    /// Count, low byte first.
    pub count: [u8; 2],
    /// Isochronous command completion.
    pub icc: u8,
    /// Control: bit 2 SRST, bit 1 nIEN.
    pub control: u8,
    /// Auxiliary.
    pub aux: U32,
}

impl H2d {
    /// Its length in words, for [`HeaderFlags::cfl`](super::HeaderFlags::cfl).
    pub const WORDS: u8 = 5;

    /// The frame that carries a command.
    pub fn command(taskfile: &Taskfile) -> Self {
        let Registers { features, lba, count, device } = taskfile.registers;
        let [l0, l1, l2, l3, l4, l5, ..] = lba.to_le_bytes();
        let [features, features_high] = features.to_le_bytes();
        Self {
            kind: FisType::H2D.0,
            flags: 0x80,
            command: taskfile.command.0,
            features,
            lba_low: [l0, l1, l2],
            device,
            lba_high: [l3, l4, l5],
            features_high,
            count: count.to_le_bytes(),
            icc: 0,
            control: 0,
            aux: U32::new(0),
        }
    }

    /// The registers that it carries.
    pub const fn registers(&self) -> Registers {
        let ([l0, l1, l2], [l3, l4, l5]) = (self.lba_low, self.lba_high);
        Registers {
            features: u16::from_le_bytes([self.features, self.features_high]),
            lba: u64::from_le_bytes([l0, l1, l2, l3, l4, l5, 0, 0]),
            count: u16::from_le_bytes(self.count),
            device: self.device,
        }
    }
}

/// Register, device to host [10.5.6].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct D2h {
    /// [`FisType::D2H`].
    pub kind: u8,
    /// Bit 6: an interrupt.
    pub flags: u8,
    /// Status.
    pub status: u8,
    /// Error.
    pub error: u8,
    /// LBA, bytes 0 to 2.
    pub lba_low: [u8; 3],
    /// Device.
    pub device: u8,
    /// LBA, bytes 3 to 5.
    pub lba_high: [u8; 3],
    /// Zero.
    pub reserved: u8,
    /// Count, low byte first.
    pub count: [u8; 2],
    /// Zero.
    pub reserved_2: [u8; 6],
}

impl D2h {
    /// The LBA that it carries.
    pub const fn lba(&self) -> u64 {
        let ([l0, l1, l2], [l3, l4, l5]) = (self.lba_low, self.lba_high);
        u64::from_le_bytes([l0, l1, l2, l3, l4, l5, 0, 0])
    }

    /// The count that it carries.
    pub const fn count(&self) -> u16 {
        u16::from_le_bytes(self.count)
    }
}

/// Set Device Bits [10.5.7].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SetDeviceBits {
    /// [`FisType::SET_DEVICE_BITS`].
    pub kind: u8,
    /// Bit 6: an interrupt; bit 7: a notification.
    pub flags: u8,
    /// The bits of the status that change.
    pub status: u8,
    /// Error.
    pub error: u8,
    /// Queued commands that are done.
    pub done: U32,
}

const _: () = assert!(size_of::<H2d>() == 20 && size_of::<D2h>() == 20 && size_of::<SetDeviceBits>() == 8);
