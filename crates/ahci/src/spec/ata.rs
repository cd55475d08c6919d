//! ATA commands [ATA8-ACS, ACS-3]: opcodes, registers, what errors mean, the log page of queued errors, ranges of a TRIM.

use core::fmt;

use dfly_bio::Failure;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// A command's opcode.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command(pub u8);

macro_rules! commands {
    ($($name:ident = $code:literal, $says:literal;)+) => {
        impl Command {
            $(#[doc = $says] #[doc = "."] pub const $name: Self = Self($code);)+

            /// Its name in the standards, if it is listed here.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some($says),)+
                    _ => None,
                }
            }
        }
    };
}

commands! {
    DATA_SET_MANAGEMENT = 0x06, "DATA SET MANAGEMENT";
    READ_DMA_EXT = 0x25, "READ DMA EXT";
    READ_LOG_EXT = 0x2f, "READ LOG EXT";
    WRITE_DMA_EXT = 0x35, "WRITE DMA EXT";
    WRITE_DMA_FUA_EXT = 0x3d, "WRITE DMA FUA EXT";
    READ_LOG_DMA_EXT = 0x47, "READ LOG DMA EXT";
    READ_FPDMA_QUEUED = 0x60, "READ FPDMA QUEUED";
    WRITE_FPDMA_QUEUED = 0x61, "WRITE FPDMA QUEUED";
    PACKET = 0xa0, "PACKET";
    IDENTIFY_PACKET_DEVICE = 0xa1, "IDENTIFY PACKET DEVICE";
    SMART = 0xb0, "SMART";
    READ_DMA = 0xc8, "READ DMA";
    WRITE_DMA = 0xca, "WRITE DMA";
    STANDBY_IMMEDIATE = 0xe0, "STANDBY IMMEDIATE";
    CHECK_POWER_MODE = 0xe5, "CHECK POWER MODE";
    FLUSH_CACHE = 0xe7, "FLUSH CACHE";
    FLUSH_CACHE_EXT = 0xea, "FLUSH CACHE EXT";
    IDENTIFY_DEVICE = 0xec, "IDENTIFY DEVICE";
    SET_FEATURES = 0xef, "SET FEATURES";
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {:02x}", self.0),
        }
    }
}

/// Subcommands and features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Feature(pub u16);

impl Feature {
    /// Of DATA SET MANAGEMENT: the ranges are no longer needed.
    pub const TRIM: Self = Self(0x01);
    /// Of SET FEATURES: enable a feature of Serial ATA, named in the count.
    pub const ENABLE_SATA: Self = Self(0x10);
    /// Of SET FEATURES: disable it.
    pub const DISABLE_SATA: Self = Self(0x90);
    /// Count of [`ENABLE_SATA`](Self::ENABLE_SATA): the device may lower the link's power.
    pub const DEVICE_INITIATED_POWER: Self = Self(0x03);
    /// Of SMART: read the attributes.
    pub const SMART_READ_DATA: Self = Self(0xd0);
    /// Of SMART: read the thresholds.
    pub const SMART_READ_THRESHOLDS: Self = Self(0xd1);
    /// Of SMART: say whether a threshold was passed.
    pub const SMART_RETURN_STATUS: Self = Self(0xda);
    /// Of PACKET: data goes by DMA.
    pub const PACKET_DMA: Self = Self(0x01);
}

/// The registers of a command as it is sent, 48 bits wide.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Features.
    pub features: u16,
    /// LBA, or what a command puts there: 48 bits.
    pub lba: u64,
    /// Count.
    pub count: u16,
    /// Device.
    pub device: u8,
}

/// How a command's data travels. Data by PIO and by DMA look alike to memory: the adapter moves both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// No data.
    None,
    /// From the device.
    In,
    /// To the device.
    Out,
}

/// A command and its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taskfile {
    /// Opcode.
    pub command: Command,
    /// Registers.
    pub registers: Registers,
}

/// Bit of the device register: the address is an LBA.
const LBA: u8 = 0x40;
/// Bit of the device register of queued commands: FUA.
const FUA: u8 = 0x80;

impl Taskfile {
    /// SMART's mark in the LBA.
    pub const SMART_LBA: u64 = 0xc2_4f00;

    /// A command that has only an opcode.
    pub const fn plain(command: Command) -> Self {
        Self { command, registers: Registers { features: 0, lba: 0, count: 0, device: 0 } }
    }

    /// A queued read or write of `blocks` blocks, 1 to 65536, in slot `tag`.
    pub const fn queued(command: Command, lba: u64, blocks: u32, tag: u8) -> Self {
        // 65536 is said as 0.
        let registers = Registers { features: blocks as u16, lba, count: (tag as u16) << 3, device: LBA };
        Self { command, registers }
    }

    /// A read or write of `blocks` blocks with a 48-bit address, 1 to 65536.
    pub const fn wide(command: Command, lba: u64, blocks: u32) -> Self {
        Self { command, registers: Registers { features: 0, lba, count: blocks as u16, device: LBA } }
    }

    /// A read or write of `blocks` blocks with a 28-bit address, 1 to 256.
    pub const fn narrow(command: Command, lba: u64, blocks: u32) -> Self {
        let device = LBA | (lba >> 24 & 0xf) as u8;
        Self {
            command,
            registers: Registers { features: 0, lba: lba & 0xff_ffff, count: blocks as u16 & 0xff, device },
        }
    }

    /// A queued write that is durable when it completes.
    #[must_use]
    pub const fn with_fua(mut self) -> Self {
        self.registers.device |= FUA;
        self
    }

    /// DATA SET MANAGEMENT with TRIM, of `blocks` 512-byte blocks of ranges.
    pub const fn trim(blocks: u16) -> Self {
        let registers = Registers { features: Feature::TRIM.0, lba: 0, count: blocks, device: LBA };
        Self { command: Command::DATA_SET_MANAGEMENT, registers }
    }

    /// READ LOG EXT of page 10h, queued command errors.
    pub const fn queued_error_log() -> Self {
        let registers = Registers { features: 0, lba: 0x10, count: 1, device: 0 };
        Self { command: Command::READ_LOG_EXT, registers }
    }

    /// SET FEATURES.
    pub const fn set_features(feature: Feature, count: u16) -> Self {
        let registers = Registers { features: feature.0, lba: 0, count, device: 0 };
        Self { command: Command::SET_FEATURES, registers }
    }

    /// SMART.
    pub const fn smart(what: Feature, blocks: u16) -> Self {
        let registers = Registers { features: what.0, lba: Self::SMART_LBA, count: blocks, device: 0 };
        Self { command: Command::SMART, registers }
    }

    /// PACKET with data by DMA.
    pub const fn packet() -> Self {
        // The byte count limit in the LBA register is for PIO; some devices want it all the same.
        let registers = Registers { features: Feature::PACKET_DMA.0, lba: 0xffff << 8, count: 0, device: 0 };
        Self { command: Command::PACKET, registers }
    }
}

/// A device's status register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AtaStatus(pub u8);

impl AtaStatus {
    /// It failed.
    pub const ERR: u8 = 0x01;
    /// It wants to transfer data.
    pub const DRQ: u8 = 0x08;
    /// A fault of the device.
    pub const DF: u8 = 0x20;
    /// It is ready.
    pub const DRDY: u8 = 0x40;
    /// It is busy.
    pub const BSY: u8 = 0x80;
    /// As a device says that all is well.
    pub const GOOD: u8 = 0x50;

    /// Whether it says that a command failed.
    pub const fn is_error(self) -> bool {
        self.0 & (Self::ERR | Self::DF) != 0
    }
}

/// A device's error register, for a command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AtaError(pub u8);

impl AtaError {
    /// The command is unknown, or its registers make no sense.
    pub const ABRT: u8 = 0x04;
    /// No such address.
    pub const IDNF: u8 = 0x10;
    /// The medium could not be read.
    pub const UNC: u8 = 0x40;
    /// A checksum of the interface.
    pub const ICRC: u8 = 0x80;

    /// Whether the interface got it wrong: to try again may help.
    pub const fn is_transport(self) -> bool {
        self.0 & Self::ICRC != 0
    }

    /// The way the block layer says it, with the status beside it.
    pub const fn failure(self, status: AtaStatus) -> Failure {
        if self.0 & Self::UNC != 0 {
            Failure::Media
        } else if self.0 & Self::IDNF != 0 {
            Failure::OutOfRange
        } else if self.is_transport() || status.0 & AtaStatus::DF != 0 {
            Failure::Device
        } else if self.0 & Self::ABRT != 0 {
            Failure::Unsupported
        } else {
            Failure::Device
        }
    }
}

/// Log page 10h: what went wrong with a queued command [ACS-3, A.14].
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct QueuedError {
    /// Bit 7: the failed command was not queued; low five bits: its tag.
    pub tag: u8,
    /// Zero.
    pub reserved: u8,
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
    pub reserved_11: u8,
    /// Count.
    pub count: U16,
    /// Sense key.
    pub sense_key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// And its qualifier.
    pub ascq: u8,
    /// Other things.
    pub rest: [u8; 494],
    /// Makes the sum of all bytes zero.
    pub checksum: u8,
}

impl QueuedError {
    /// The tag of the queued command that failed, if the page is whole and is about one. A page of zeroes is not.
    pub fn failed_tag(&self) -> Option<u8> {
        let sum = self.as_bytes().iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        (sum == 0 && self.tag & 0x80 == 0 && AtaStatus(self.status).is_error()).then_some(self.tag & 0x1f)
    }

    /// Sets the checksum.
    pub fn seal(&mut self) {
        self.checksum = 0;
        let sum = self.as_bytes().iter().fold(0_u8, |sum, &byte| sum.wrapping_add(byte));
        self.checksum = sum.wrapping_neg();
    }
}

/// A range of a TRIM [ACS-3, 7.5]: 48 bits of LBA, 16 bits of blocks. One of no blocks is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct RangeEntry(pub U64);

impl RangeEntry {
    /// The most blocks of an entry.
    pub const MAX_BLOCKS: u64 = 0xffff;
    /// Entries in each 512 bytes.
    pub const IN_BLOCK: usize = 64;

    /// A range.
    pub const fn new(lba: u64, blocks: u16) -> Self {
        Self(U64::new((blocks as u64) << 48 | lba & 0xffff_ffff_ffff))
    }

    /// First block.
    pub const fn lba(self) -> u64 {
        self.0.get() & 0xffff_ffff_ffff
    }

    /// Blocks.
    pub const fn blocks(self) -> u16 {
        (self.0.get() >> 48) as u16
    }
}

const _: () = assert!(size_of::<QueuedError>() == 512);

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    #[test]
    fn a_log_page_counts_only_whole_and_about_a_queued_command() {
        let mut page = QueuedError::new_zeroed();
        assert_eq!(page.failed_tag(), None, "it says nothing");
        (page.tag, page.status) = (17, 0x41);
        page.seal();
        assert_eq!(page.failed_tag(), Some(17));
        page.error = 0x40;
        assert_eq!(page.failed_tag(), None, "the sum is wrong");
        page.tag = 0x80 | 17;
        page.seal();
        assert_eq!(page.failed_tag(), None, "not queued");
    }

    #[test]
    fn errors_are_said_in_the_block_layers_words() {
        let failure = |error, status| AtaError(error).failure(AtaStatus(status));
        assert_eq!(failure(0x40, 0x41), Failure::Media);
        assert_eq!(failure(0x50, 0x41), Failure::Media);
        assert_eq!(failure(0x10, 0x41), Failure::OutOfRange);
        assert_eq!(failure(0x04, 0x41), Failure::Unsupported);
        assert_eq!(failure(0x84, 0x41), Failure::Device);
        assert_eq!(failure(0x04, 0x61), Failure::Device, "a device fault is not a question of support");
        assert_eq!(failure(0, 0x61), Failure::Device);
    }
}
