//! The bytes of Serial ATA AHCI 1.3.1 (sections in brackets), of the frames of Serial ATA, and of the ATA and ATAPI commands
//! that the driver uses, and nothing else.
//!
//! Every bit pattern is a value: a number that is not listed here is representable. Fields that count from zero end in
//! `_z`.

mod ata;
mod fis;
mod identify;
mod memory;
mod regs;
mod scsi;

pub use ata::{
    AtaError, AtaStatus, Command, Feature, QueuedError, RangeEntry, Registers, Taskfile, Transport,
};
pub use fis::{D2h, FisType, H2d, SetDeviceBits};
pub use identify::{Identify, IdentifyError, LogicalSector, text_of};
pub use memory::{
    CommandHeader, HeaderFlags, Prd, RECEIVED_BYTES, ReceivedAt, TABLE_ACMD_AT, TABLE_CFIS_AT, TABLE_PRDT_AT,
};
pub use regs::*;
pub use scsi::{Capacity, Cdb, Sense, SenseKey};
