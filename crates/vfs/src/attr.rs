//! What a node is: kind, attributes, flags, times, and the changes that [`setattr`](crate::FileSystem::setattr) makes.

use crate::NodeId;

/// The kind of a node.
///
/// Source: `enum vtype` of DragonFly's `<sys/vfscache.h>`; the numbers of [`Kind::dirent_type`] are those of
/// `<sys/dirent.h>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A kind that its file system cannot name: damaged, or from the future.
    Unknown,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A directory.
    Directory,
    /// A block device.
    BlockDevice,
    /// A regular file.
    Regular,
    /// A symbolic link.
    Symlink,
    /// A socket's name.
    Socket,
}

impl Kind {
    /// The `d_type` of a directory entry (`DT_DIR` and so on); the same numbers on DragonFly and Linux.
    pub const fn dirent_type(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Fifo => 1,
            Self::CharDevice => 2,
            Self::Directory => 4,
            Self::BlockDevice => 6,
            Self::Regular => 8,
            Self::Symlink => 10,
            Self::Socket => 12,
        }
    }

    /// The type bits of `st_mode` (`S_IFDIR` and so on); the same numbers on DragonFly and Linux.
    pub const fn mode_bits(self) -> u32 {
        (self.dirent_type() as u32) << 12
    }
}

/// The number of a device: what kind of device, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct DeviceNumber {
    /// Chooses the driver.
    pub major: u32,
    /// Chooses the driver's device.
    pub minor: u32,
}

/// A moment of the calendar: microseconds since 1970-01-01 00:00 UTC, negative before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `us` microseconds after the epoch.
    pub const fn from_micros(us: i64) -> Self {
        Self(us)
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down also before it, and the microseconds (0 to 999 999) beyond them:
    /// the two halves of `struct timespec`.
    pub const fn split(self) -> (i64, u32) {
        (self.0.div_euclid(1_000_000), self.0.rem_euclid(1_000_000) as u32)
    }
}

bitflags::bitflags! {
    /// File flags: what may be done to a node, whoever asks. Unknown bits are kept.
    ///
    /// Source: chflags(2) of DragonFly; the numbers are those of `<sys/stat.h>`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct FileFlags: u32 {
        /// Do not dump.
        const UF_NODUMP = 0x0000_0001;
        /// May not be changed.
        const UF_IMMUTABLE = 0x0000_0002;
        /// May only be appended to.
        const UF_APPEND = 0x0000_0004;
        /// A directory is opaque when seen through a union stack.
        const UF_OPAQUE = 0x0000_0008;
        /// May not be removed or renamed.
        const UF_NOUNLINK = 0x0000_0010;
        /// Keeps no history: what is overwritten is gone at once.
        const UF_NOHISTORY = 0x0000_0040;
        /// The swap cache may cache what lies below.
        const UF_CACHE = 0x0000_0080;
        /// Cross-links are allowed.
        const UF_XLINK = 0x0000_0100;
        /// Archived.
        const SF_ARCHIVED = 0x0001_0000;
        /// May not be changed; only the super-user sets or clears this.
        const SF_IMMUTABLE = 0x0002_0000;
        /// May only be appended to; only the super-user sets or clears this.
        const SF_APPEND = 0x0004_0000;
        /// May not be removed or renamed; only the super-user sets or clears this.
        const SF_NOUNLINK = 0x0010_0000;
        /// Keeps no history; only the super-user sets or clears this.
        const SF_NOHISTORY = 0x0040_0000;
        /// The swap cache never caches what lies below; only the super-user sets or clears this.
        const SF_NOCACHE = 0x0080_0000;
        /// Cross-links are allowed; only the super-user sets or clears this.
        const SF_XLINK = 0x0100_0000;

        const _ = !0;
    }
}

impl FileFlags {
    /// May not be changed, by whichever flag.
    pub const IMMUTABLE: Self = Self::UF_IMMUTABLE.union(Self::SF_IMMUTABLE);
    /// May only be appended to, by whichever flag.
    pub const APPEND: Self = Self::UF_APPEND.union(Self::SF_APPEND);
    /// May not be removed or renamed, by whichever flag.
    pub const NOUNLINK: Self = Self::UF_NOUNLINK.union(Self::SF_NOUNLINK);
    /// Keeps no history, by whichever flag.
    pub const NOHISTORY: Self = Self::UF_NOHISTORY.union(Self::SF_NOHISTORY);
}

/// The attributes of a node. Make one with [`Attr::new`] and fill in what is known.
///
/// Source: `struct vattr` of DragonFly's `<sys/vnode.h>`, stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attr {
    /// The key of the node in its file system.
    pub node: NodeId,
    /// What the node is.
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky: 0 to 0o7777, never the type bits.
    pub mode: u16,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// How many directory entries name the node.
    pub nlink: u64,
    /// Length in bytes: of a file's contents, of a symbolic link's target.
    pub size: u64,
    /// Bytes that its contents take on the medium.
    pub bytes: u64,
    /// What may be done to it, whoever asks.
    pub flags: FileFlags,
    /// When its contents last changed.
    pub mtime: Timestamp,
    /// When its attributes last changed.
    pub ctime: Timestamp,
    /// When its contents were last read.
    pub atime: Timestamp,
    /// Of a character or block device: which one. Else zero.
    pub rdev: DeviceNumber,
    /// The file system (`st_dev`): two nodes are the same if `fsid` and `fileid` are.
    pub fsid: u64,
    /// The inode number (`st_ino`).
    pub fileid: u64,
    /// Distinguishes two nodes that had the same inode number one after the other.
    pub generation: u64,
    /// The size of I/O that serves best, in bytes (`st_blksize`).
    pub io_bytes: u32,
}

impl Attr {
    /// A node with one link, no permission, no contents, owned by user 0 and group 0, of the epoch.
    pub const fn new(node: NodeId, kind: Kind) -> Self {
        const EPOCH: Timestamp = Timestamp::from_micros(0);
        Self {
            node,
            kind,
            mode: 0,
            uid: 0,
            gid: 0,
            nlink: 1,
            size: 0,
            bytes: 0,
            flags: FileFlags::empty(),
            mtime: EPOCH,
            ctime: EPOCH,
            atime: EPOCH,
            rdev: DeviceNumber { major: 0, minor: 0 },
            fsid: 0,
            fileid: 0,
            generation: 0,
            io_bytes: 4096,
        }
    }
}

/// The time that [`SetAttr`] sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetTime {
    /// The file system's clock at the time of the change.
    Now,
    /// This moment.
    To(Timestamp),
}

/// The changes of one [`setattr`](crate::FileSystem::setattr): a field that is `None` stays as it is.
///
/// Source: chmod(2), chown(2), truncate(2), chflags(2), utimes(2), which one call of VOP_SETATTR serves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SetAttr {
    /// New permission bits, 0 to 0o7777.
    pub mode: Option<u16>,
    /// New owner.
    pub uid: Option<u32>,
    /// New group.
    pub gid: Option<u32>,
    /// New length in bytes; what is added reads as zeros.
    pub size: Option<u64>,
    /// New flags.
    pub flags: Option<FileFlags>,
    /// New time of the last access.
    pub atime: Option<SetTime>,
    /// New time of the last change of contents.
    pub mtime: Option<SetTime>,
}
