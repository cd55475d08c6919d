//! What records carry: inodes, directory entries, pseudo file systems, snapshots.

use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Domain of inodes, and of directory entries of newer directories: low half of a localization.
pub const LOCALIZE_INODE: u32 = 1;
/// Domain of everything else.
pub const LOCALIZE_MISC: u32 = 2;

/// The object id of every pseudo file system's root directory.
pub const OBJ_ROOT: i64 = 1;

/// Type of a record. An open enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecType(pub u16);

impl RecType {
    /// An inode.
    pub const INODE: Self = Self(0x01);
    /// File data.
    pub const DATA: Self = Self(0x10);
    /// A directory entry.
    pub const DIRENTRY: Self = Self(0x11);
    /// A record of a record-oriented file; never written by anyone.
    pub const DB: Self = Self(0x12);
    /// An extended attribute; never written by anyone.
    pub const EXT: Self = Self(0x13);
    /// Something fixed about an object: key 1 is a symlink's target.
    pub const FIX: Self = Self(0x14);
    /// A pseudo file system.
    pub const PFS: Self = Self(0x15);
    /// A snapshot.
    pub const SNAPSHOT: Self = Self(0x16);
    /// Configuration text.
    pub const CONFIG: Self = Self(0x17);
}

/// Key of the [`RecType::FIX`] record that holds a symlink's target.
pub const FIX_KEY_SYMLINK: i64 = 1;

/// Type of an object. An open enum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjType(pub u8);

impl ObjType {
    /// Directory.
    pub const DIRECTORY: Self = Self(1);
    /// Regular file.
    pub const REGULAR: Self = Self(2);
    /// Record-oriented file.
    pub const DBFILE: Self = Self(3);
    /// Named pipe.
    pub const FIFO: Self = Self(4);
    /// Character device.
    pub const CHAR_DEVICE: Self = Self(5);
    /// Block device.
    pub const BLOCK_DEVICE: Self = Self(6);
    /// Symbolic link.
    pub const SYMLINK: Self = Self(7);
    /// Pseudo file system.
    pub const PSEUDOFS: Self = Self(8);
    /// Socket.
    pub const SOCKET: Self = Self(9);
}

/// `cap_flags`: which hash a directory's entries use.
pub const CAP_HASH_MASK: u8 = 0x03;
/// `cap_flags`: the hash of versions before 6.
pub const CAP_HASH_ALG0: u8 = 0x00;
/// `cap_flags`: the hash from version 6 on.
pub const CAP_HASH_ALG1: u8 = 0x01;
/// `cap_flags`: the directory's entries lie in [`LOCALIZE_INODE`].
pub const CAP_LOCAL_ENTRIES: u8 = 0x04;

/// The length of a symlink's target up to which it is stored in the inode.
pub const SYMLINK_INLINE: usize = 24;

/// An inode (`hammer_inode_data`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct InodeData {
    /// 1.
    pub version: U16,
    /// Permission bits and set-id bits; the type is [`Self::obj_type`].
    pub mode: U16,
    /// `chflags` bits.
    pub uflags: U32,
    /// Device major number.
    pub rmajor: U32,
    /// Device minor number.
    pub rminor: U32,
    /// Change time, in microseconds since the epoch.
    pub ctime: U64,
    /// The directory that the object was made in; 0 in the root of a pseudo file system.
    pub parent_obj_id: I64,
    /// Owner: UUID whose last four bytes are the user id.
    pub uid: UnixId,
    /// Group, likewise.
    pub gid: UnixId,
    /// Type of the object.
    pub obj_type: u8,
    /// `CAP_*` bits of a directory.
    pub cap_flags: u8,
    /// Zero.
    pub reserved01: U16,
    /// Zero.
    pub reserved02: U32,
    /// Names that the object has.
    pub nlinks: U64,
    /// Size, in bytes.
    pub size: U64,
    /// A symlink's target when it is short.
    pub symlink: [u8; SYMLINK_INLINE],
    /// Modification time, in microseconds since the epoch; changed in place.
    pub mtime: U64,
    /// Access time, in microseconds since the epoch; changed in place.
    pub atime: U64,
}

impl InodeData {
    /// Bytes that the record's checksum covers: all but the two times that change in place.
    pub const CRC_LEN: usize = 112;
}

/// A user or group id in the form of a UUID.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct UnixId {
    /// Zero.
    pub zero: [u8; 12],
    /// The id.
    pub id: U32,
}

/// The head of a directory entry; the name follows (`hammer_direntry_data`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct DirentHead {
    /// The object that the entry names.
    pub obj_id: I64,
    /// Its pseudo file system, in the upper half.
    pub localization: U32,
    /// Zero.
    pub reserved02: U32,
}

/// A pseudo file system (`hammer_pseudofs_data`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct PfsData {
    /// Lowest transaction id that pruning kept.
    pub sync_low_tid: U64,
    /// Start of what a slave got.
    pub sync_beg_tid: U64,
    /// End of what a slave got: a slave is seen as of this.
    pub sync_end_tid: U64,
    /// Start time.
    pub sync_beg_ts: U64,
    /// End time.
    pub sync_end_ts: U64,
    /// The same on a master and its slaves.
    pub shared_uuid: [u8; 16],
    /// Different on each.
    pub unique_uuid: [u8; 16],
    /// Zero.
    pub reserved01: I32,
    /// `PFS_*` bits.
    pub mirror_flags: U32,
    /// Label, padded with NUL.
    pub label: [u8; 64],
    /// Directory for snapshot links.
    pub snapshots: [u8; 64],
    /// Zero.
    pub reserved02: [I32; 3],
    /// Shortest age of what pruning may remove, in seconds.
    pub prune_min: I32,
    /// Longest, in seconds.
    pub prune_max: I32,
    /// Zero.
    pub reserved03: [I32; 16],
}

/// `mirror_flags`: written by mirroring only.
pub const PFS_SLAVE: u32 = 0x0000_0001;
/// `mirror_flags`: destroyed.
pub const PFS_DELETED: u32 = 0x8000_0000;

/// A snapshot (`hammer_snapshot_data`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct SnapshotData {
    /// The view that it names.
    pub tid: U64,
    /// When it was made, in microseconds since the epoch.
    pub ts: U64,
    /// Zero.
    pub reserved01: [U64; 2],
    /// Label, padded with NUL.
    pub label: [u8; 64],
    /// Zero.
    pub reserved02: [U64; 4],
}

const _: () = {
    assert!(size_of::<InodeData>() == 128);
    assert!(core::mem::offset_of!(InodeData, mtime) == InodeData::CRC_LEN);
    assert!(size_of::<DirentHead>() == 16);
    assert!(size_of::<PfsData>() == 292);
    assert!(size_of::<SnapshotData>() == 128);
};
