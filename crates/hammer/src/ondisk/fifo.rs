//! The UNDO/REDO FIFO's records.

use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Signature of a record's head.
pub const HEAD_SIGNATURE: u16 = 0xc84e;
/// Signature of a record's tail.
pub const TAIL_SIGNATURE: u16 = 0xc74f;

/// Skips to the next sector. Has neither checksum nor sequence number.
pub const TYPE_PAD: u16 = 0x8040;
/// Fills a fresh FIFO.
pub const TYPE_DUMMY: u16 = 0x0041;
/// Old bytes of a place that was changed.
pub const TYPE_UNDO: u16 = 0x0043;
/// A change to a file that was promised but not yet made.
pub const TYPE_REDO: u16 = 0x0044;

/// [`RedoHead::flags`]: bytes were written.
pub const REDO_WRITE: u32 = 0x01;
/// [`RedoHead::flags`]: the file was cut off.
pub const REDO_TRUNC: u32 = 0x02;
/// [`RedoHead::flags`]: a write reached the tree.
pub const REDO_TERM_WRITE: u32 = 0x04;
/// [`RedoHead::flags`]: a truncation reached the tree.
pub const REDO_TERM_TRUNC: u32 = 0x08;
/// [`RedoHead::flags`]: tells where the oldest unfinished REDO lies.
pub const REDO_SYNC: u32 = 0x10;

/// From version 4 on no record crosses a sector of this many bytes, and every sector begins with a record.
pub const SECTOR: u64 = 512;
/// Records start at multiples of this.
pub const ALIGN: u64 = 8;

/// What every record begins with (`hammer_fifo_head`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FifoHead {
    /// [`HEAD_SIGNATURE`].
    pub signature: U16,
    /// `TYPE_*`.
    pub record_type: U16,
    /// Length of the record with its tail, in bytes.
    pub size: U32,
    /// Sequence number; 0 before version 4.
    pub seq: U32,
    /// Checksum of all other bytes.
    pub crc: U32,
}

/// What every record ends with (`hammer_fifo_tail`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FifoTail {
    /// [`TAIL_SIGNATURE`].
    pub signature: U16,
    /// As in the head.
    pub record_type: U16,
    /// As in the head.
    pub size: U32,
}

/// Follows the head of an UNDO record; the old bytes come next.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UndoHead {
    /// Where the bytes belong: zone 1 or 2.
    pub undo_offset: U64,
    /// How many.
    pub data_bytes: I32,
    /// Zero.
    pub reserved01: I32,
}

/// Follows the head of a REDO record; the new bytes come next.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct RedoHead {
    /// The file.
    pub obj_id: I64,
    /// File offset, or the FIFO position of a [`REDO_SYNC`].
    pub offset: U64,
    /// Bytes that are covered.
    pub data_bytes: I32,
    /// `REDO_*`.
    pub flags: U32,
    /// Pseudo file system of the file, in the upper half.
    pub localization: U32,
    /// Zero.
    pub reserved01: U32,
    /// Zero.
    pub reserved02: U64,
}

const _: () = {
    assert!(size_of::<FifoHead>() == 16 && size_of::<FifoTail>() == 8);
    assert!(size_of::<UndoHead>() == 16 && size_of::<RedoHead>() == 40);
};
