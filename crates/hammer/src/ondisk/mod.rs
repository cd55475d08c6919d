//! The bytes on the disk: layouts, constants and nothing else.
//!
//! Every structure is a [`zerocopy`] view, so it can be looked at where it lies in a buffer; everything is
//! little-endian and unaligned. The engine above never does offset arithmetic on them. `DESIGN.md` draws the layouts.

pub mod fifo;
pub mod freemap;
pub mod node;
pub mod offset;
pub mod record;
pub mod volume;

pub use offset::{Offset, Zone};

/// Every metadata transfer, and the unit of the buffer cache, in bytes.
pub const BUFFER_SIZE: usize = 16 * 1024;

/// Space is owned by zones in units of this many bytes.
pub const BIG_BLOCK_SIZE: u64 = 8 * 1024 * 1024;

/// The largest record payload, in bytes.
pub const MAX_RECORD_DATA: usize = 64 * 1024;

/// File offsets below this are stored in records of [`SMALL_BLOCK`], from it on in records of [`LARGE_BLOCK`].
pub const BLOCK_DEMARC: u64 = 1024 * 1024;
/// Record length of file data below [`BLOCK_DEMARC`].
pub const SMALL_BLOCK: u64 = 16 * 1024;
/// Record length of file data from [`BLOCK_DEMARC`] on.
pub const LARGE_BLOCK: u64 = 64 * 1024;

/// The longest file name, in bytes.
pub const MAX_NAME: usize = 255;

/// The number of volumes that one file system can have.
pub const MAX_VOLUMES: usize = 256;

/// The version that introduced the FIFO with sequence numbers in every 512-byte sector.
pub const VERSION_FIFO_SEQ: u32 = 4;
/// The version that introduced CRC-32C.
pub const VERSION_CRC32C: u32 = 7;
/// The highest version that this crate (and the original) knows.
pub const VERSION_MAX: u32 = 7;
