//! The volume header: the first 1928 bytes of a volume.

use zerocopy::little_endian::{I32, I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First eight bytes of every volume.
pub const SIGNATURE: u64 = 0xc841_4d4d_c552_3031;
/// The signature as a machine of the other byte order wrote it.
pub const SIGNATURE_SWAPPED: u64 = SIGNATURE.swap_bytes();
/// The file-system type's UUID as it lies on the disk.
pub const FSTYPE: [u8; 16] =
    [0xac, 0x63, 0xdc, 0x61, 0x38, 0x6e, 0xdc, 0x11, 0x85, 0x13, 0x01, 0x30, 0x1b, 0xb8, 0xa9, 0xf5];

/// Size of the header within its buffer, in bytes.
pub const HEADER_SIZE: usize = 1928;
/// Big-blocks that the UNDO FIFO can have.
pub const UNDO_BLOCKS: usize = 128;

/// The header (`hammer_volume_ondisk`). Fields named `vol0_*` mean something on the root volume only.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct VolumeHeader {
    /// [`SIGNATURE`].
    pub vol_signature: U64,
    /// Device offset of the boot area.
    pub vol_bot_beg: I64,
    /// Device offset of the memory log.
    pub vol_mem_beg: I64,
    /// Device offset of byte 0 of the raw-buffer zone.
    pub vol_buf_beg: I64,
    /// Device offset behind the last byte of the raw-buffer zone.
    pub vol_buf_end: I64,
    /// Zero.
    pub vol_reserved01: I64,
    /// UUID of the file system, the same on all volumes.
    pub vol_fsid: [u8; 16],
    /// [`FSTYPE`].
    pub vol_fstype: [u8; 16],
    /// Label, padded with NUL.
    pub vol_label: [u8; 64],
    /// Number of this volume.
    pub vol_no: I32,
    /// Number of volumes in the file system.
    pub vol_count: I32,
    /// Version of the file system, 1 to 7.
    pub vol_version: U32,
    /// Checksum of the header. Wrong in fresh images, and verified by nobody.
    pub vol_crc: U32,
    /// Flags, zero.
    pub vol_flags: U32,
    /// Number of the root volume, zero.
    pub vol_rootvol: U32,
    /// Zero.
    pub vol_reserved: [U32; 8],
    /// Big-blocks in all, without freemap and FIFO.
    pub vol0_stat_bigblocks: I64,
    /// Big-blocks that are free.
    pub vol0_stat_freebigblocks: I64,
    /// Zero.
    pub vol0_reserved01: I64,
    /// Inodes.
    pub vol0_stat_inodes: I64,
    /// Zero.
    pub vol0_reserved02: I64,
    /// Address of the B-tree's root node.
    pub vol0_btree_root: U64,
    /// Highest transaction id used so far.
    pub vol0_next_tid: U64,
    /// Zero.
    pub vol0_reserved03: U64,
    /// Where each zone's allocator stands.
    pub vol0_blockmap: [BlockmapEntry; 16],
    /// Addresses of the FIFO's big-blocks; unused ones are all ones, or zero.
    pub vol0_undo_array: [U64; UNDO_BLOCKS],
}

/// One zone of the blockmap (`hammer_blockmap`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct BlockmapEntry {
    /// Freemap: address of the layer-1 table. UNDO: all ones.
    pub phys_offset: U64,
    /// UNDO: the oldest record that is still needed.
    pub first_offset: U64,
    /// The next allocation, or the FIFO's append position.
    pub next_offset: U64,
    /// End of the zone; UNDO: end of the FIFO.
    pub alloc_offset: U64,
    /// Zero.
    pub reserved01: U32,
    /// Checksum of the bytes above. Stale in fresh images, and verified by nobody.
    pub entry_crc: U32,
}

impl BlockmapEntry {
    /// Bytes that [`Self::entry_crc`] covers.
    pub const CRC_LEN: usize = 36;
}

impl VolumeHeader {
    /// The bytes that [`Self::vol_crc`] covers: those before it and those behind it. Both checksums are combined by
    /// exclusive or.
    pub fn crc_bytes(&self) -> (&[u8], &[u8]) {
        let at = core::mem::offset_of!(Self, vol_crc);
        let (before, rest) = self.as_bytes().split_at(at);
        (before, rest.get(size_of::<U32>()..).unwrap_or_default())
    }

    /// The label up to its first NUL.
    pub fn label(&self) -> &[u8] {
        until_nul(&self.vol_label)
    }
}

/// `bytes` up to the first NUL.
pub fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|&b| b == 0).next().unwrap_or_default()
}

const _: () = {
    assert!(size_of::<BlockmapEntry>() == 40);
    assert!(size_of::<VolumeHeader>() == HEADER_SIZE);
    assert!(core::mem::offset_of!(VolumeHeader, vol_crc) == 156);
    assert!(core::mem::offset_of!(VolumeHeader, vol0_btree_root) == 240);
    assert!(core::mem::offset_of!(VolumeHeader, vol0_blockmap) == 264);
    assert!(core::mem::offset_of!(VolumeHeader, vol0_undo_array) == 904);
};
