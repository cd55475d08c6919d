//! The interface of a file system.

use core::fmt;
use core::ops::{ControlFlow, Range};

use dfly_hal::Wait;

use crate::{Access, Attr, Cred, DeviceNumber, Errno, Error, Kind, Name, SetAttr};

/// What an operation gives: a value, or an [`Error`] with its number, its words and its place.
pub type Result<T> = core::result::Result<T, Error>;

/// The key of a node in its file system: opaque, small, copied freely.
///
/// A key is no object: holding one keeps nothing alive, dropping one frees nothing, and it can travel to another
/// process and back. The file system chooses the three numbers. HAMMER takes the object id, the pseudo file system and
/// the transaction of its as-of view, so that a view of the past is another root and needs no other interface.
///
/// A key of a node that is gone gets `ESTALE` (or `ENOENT`) from every operation, never another node, as long as its
/// file system lives.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub [u64; 3]);

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.0;
        write!(f, "NodeId({a:#x}, {b:#x}, {c:#x})")
    }
}

/// What every operation takes along: on whose behalf it runs, and who waits for it. Made per call, never stored.
pub struct Call<'w> {
    /// On whose behalf.
    pub cred: Cred,
    /// Who waits when the file system must wait for a device or a lock.
    pub wait: &'w mut dyn Wait,
}

impl<'w> Call<'w> {
    /// A call of the kernel's own, with all permissions.
    pub fn new(wait: &'w mut dyn Wait) -> Self {
        Self { cred: Cred::ROOT, wait }
    }

    /// A call on behalf of `cred`.
    pub fn on_behalf_of(cred: Cred, wait: &'w mut dyn Wait) -> Self {
        Self { cred, wait }
    }
}

/// A file that is open, in its file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OpenId(pub u64);

/// What [`FileSystem::open`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// What [`FileSystem::close`] takes.
    pub open: OpenId,
    /// The node to read and write: the one that was asked for, or the one that opening it made (a cloned device).
    pub node: NodeId,
}

/// One entry of a directory, lent to the sink of [`FileSystem::readdir`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The name as its file system stores it, `.` and `..` included. Bytes from a medium: let [`Name::new`] check
    /// them before they become part of a path elsewhere.
    pub name: &'a [u8],
    /// The node that it names.
    pub node: NodeId,
    /// The kind of that node, [`Kind::Unknown`] where only its attributes tell.
    pub kind: Kind,
    /// Its inode number (`d_ino`).
    pub fileid: u64,
    /// The cookie to go on with after this entry.
    pub next: u64,
}

/// The cookie of the first entry after `.` (cookie 0) and `..` (cookie 1). Larger cookies are the file system's own.
pub const FIRST_COOKIE: u64 = 2;

/// A node that [`FileSystem::nmknod`] makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// A named pipe.
    Fifo,
    /// The name of a socket.
    Socket,
    /// A character device.
    CharDevice(DeviceNumber),
    /// A block device.
    BlockDevice(DeviceNumber),
}

impl Special {
    /// The kind of the node.
    pub const fn kind(self) -> Kind {
        match self {
            Self::Fifo => Kind::Fifo,
            Self::Socket => Kind::Socket,
            Self::CharDevice(_) => Kind::CharDevice,
            Self::BlockDevice(_) => Kind::BlockDevice,
        }
    }
}

/// Where [`FileSystem::write`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAt {
    /// At this byte.
    Offset(u64),
    /// At the end of the file, wherever that is when the write happens (`O_APPEND`).
    End,
}

bitflags::bitflags! {
    /// How a file system is mounted.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct MountFlags: u32 {
        /// Nothing can be changed.
        const READ_ONLY = 1;
        /// Reading a file leaves its access time alone.
        const NO_ATIME = 2;
    }
}

/// A file system's figures. Source: statvfs(2), VFS_STATVFS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct StatFs {
    /// The file system's type, as mount(8) knows it: `hammer`, `devfs`.
    pub type_name: &'static str,
    /// The unit of the block counts, in bytes.
    pub block_bytes: u32,
    /// All blocks.
    pub blocks: u64,
    /// Free blocks.
    pub blocks_free: u64,
    /// Free blocks for others than the super-user.
    pub blocks_available: u64,
    /// All nodes; 0 where there is no limit.
    pub files: u64,
    /// Free nodes; 0 where there is no limit.
    pub files_free: u64,
    /// The longest name of an entry.
    pub name_max_bytes: u32,
    /// The `fsid` of its nodes' attributes.
    pub fsid: u64,
    /// How it is mounted.
    pub flags: MountFlags,
}

impl StatFs {
    /// An empty file system of this type.
    pub const fn new(type_name: &'static str) -> Self {
        Self {
            type_name,
            block_bytes: 512,
            blocks: 0,
            blocks_free: 0,
            blocks_available: 0,
            files: 0,
            files_free: 0,
            name_max_bytes: crate::NAME_MAX as u32,
            fsid: 0,
            flags: MountFlags::empty(),
        }
    }
}

/// The sink of [`FileSystem::readlink`].
pub type LinkSink<'a> = dyn FnMut(&[u8]) + 'a;
/// The sink of [`FileSystem::read`].
pub type ReadSink<'a> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'a;
/// The sink of [`FileSystem::readdir`].
pub type DirSink<'a> = dyn FnMut(Entry<'_>) -> ControlFlow<()> + 'a;

const READ_ONLY: Error = Error::new(Errno::EROFS);

/// A file system, in the style of DragonFly's name cache: operations on names take the directory and the name
/// together, and nothing is locked between a look-up and the operation that it was for.
///
/// **Context.** Every operation that takes a [`Call`] may block, through the waiter in it, and no other way. None may be
/// called from an interrupt. Sinks run inside the operation, perhaps under its locks: a sink must not call the file
/// system and should only copy or compare.
///
/// **Who checks what.** Permission to search, create and remove is checked above, by the path walk and by
/// [`At`](crate::At), as DragonFly's `nlookup()` does; a file system checks what only it knows (a read-only view, a
/// directory that is not empty) and, in `setattr`, whether `cred` may change that attribute.
///
/// **Errors.** Beside those listed with each operation, all give `EIO` for what the medium holds wrong, with words and
/// place; `ESTALE` for a node that is gone; `ENOTDIR` if `dir` is no directory. Every wait on a device has a deadline,
/// which is the device's: `ETIMEDOUT`.
///
/// **The writing half** has defaults that answer `EROFS`, so that a read-only file system is complete without it.
pub trait FileSystem: Send + Sync {
    /// The root directory. Never blocks. DragonFly: VFS_ROOT.
    fn root(&self) -> NodeId;

    /// The figures of the file system. DragonFly: VFS_STATVFS.
    fn statfs(&self, c: &mut Call<'_>) -> Result<StatFs>;

    /// The attributes of a node. DragonFly: VOP_GETATTR.
    fn getattr(&self, c: &mut Call<'_>, node: NodeId) -> Result<Attr>;

    /// Looks up one name in a directory; the last component is not followed if it is a symbolic link.
    ///
    /// Errors: `ENOENT` if there is no such entry. DragonFly: VOP_NRESOLVE.
    fn nresolve(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<Attr>;

    /// The directory that holds `dir`; the root's is the root. DragonFly: VOP_NLOOKUPDOTDOT.
    ///
    /// Errors: `ENOENT` if it is in no directory any more.
    fn nlookupdotdot(&self, c: &mut Call<'_>, dir: NodeId) -> Result<Attr>;

    /// Hands the target of a symbolic link to `out`, in one slice or several. The bytes are as stored: variables in it
    /// are the path walk's business.
    ///
    /// Errors: `EINVAL` if the node is no symbolic link. DragonFly: VOP_READLINK.
    fn readlink(&self, c: &mut Call<'_>, node: NodeId, out: &mut LinkSink<'_>) -> Result<()>;

    /// Opens a node. It and its contents stay readable until [`close`](Self::close), also when its last name goes.
    ///
    /// Errors: `EROFS` to write in a read-only view, `EISDIR` to write a directory. DragonFly: VOP_OPEN.
    fn open(&self, c: &mut Call<'_>, node: NodeId, how: Access) -> Result<Opened>;

    /// Closes what [`open`](Self::open) opened. Never blocks and never fails, so that a handle can do it when it is
    /// dropped: what closing sets off (the end of a file without a name) happens later, and errors of writing belong to
    /// [`fsync`](Self::fsync). An `open` that is not open is ignored. DragonFly: VOP_CLOSE.
    fn close(&self, open: OpenId);

    /// Hands the bytes from `offset` on to `out`, at most `len`, in order, in slices of the file system's own memory as
    /// they come. Holes are zeros. Stops early when `out` breaks, and at the end of the file.
    ///
    /// Returns the number of bytes handed out. When it fails, those handed out before are right. The node need not be
    /// open, but may go away if it is not. Errors: `EISDIR` for a directory (unless its file system reads it as a file),
    /// `EINVAL` for what has no contents. DragonFly: VOP_READ.
    fn read(
        &self,
        c: &mut Call<'_>,
        node: NodeId,
        offset: u64,
        len: u64,
        out: &mut ReadSink<'_>,
    ) -> Result<u64>;

    /// The next stretch of a file that is not a hole: the first at or after `offset`, cut to begin there; `None` from
    /// there to the end are only holes. Bytes outside such a stretch read as zeros.
    ///
    /// The default says that all of the file is data. Source: `SEEK_DATA`, `SEEK_HOLE` of lseek(2).
    fn next_data(&self, c: &mut Call<'_>, node: NodeId, offset: u64) -> Result<Option<Range<u64>>> {
        let size = self.getattr(c, node)?.size;
        Ok((offset < size).then_some(offset..size))
    }

    /// Hands the entries of a directory to `out`, from `cookie` on, until `out` breaks or there are no more.
    ///
    /// Cookie 0 is `.`, cookie 1 is `..`, the file system's own begin at [`FIRST_COOKIE`]. A cookie stays good while the
    /// directory changes: an entry that is neither made nor removed meanwhile is seen exactly once by a reader who goes
    /// on with [`Entry::next`] of the last entry seen. DragonFly: VOP_READDIR.
    fn readdir(&self, c: &mut Call<'_>, dir: NodeId, cookie: u64, out: &mut DirSink<'_>) -> Result<()>;

    /// Makes a regular file, owned by `c.cred`'s user and the directory's group.
    ///
    /// Errors: `EEXIST`, `ENOSPC`, `EROFS`. DragonFly: VOP_NCREATE.
    fn ncreate(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, mode: u16) -> Result<Attr> {
        let _ = (c, dir, name, mode);
        Err(READ_ONLY)
    }

    /// Makes a directory. Errors as [`ncreate`](Self::ncreate). DragonFly: VOP_NMKDIR.
    fn nmkdir(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, mode: u16) -> Result<Attr> {
        let _ = (c, dir, name, mode);
        Err(READ_ONLY)
    }

    /// Makes a device, a named pipe or a socket's name. Errors as [`ncreate`](Self::ncreate). DragonFly: VOP_NMKNOD.
    fn nmknod(
        &self,
        c: &mut Call<'_>,
        dir: NodeId,
        name: Name<'_>,
        what: Special,
        mode: u16,
    ) -> Result<Attr> {
        let _ = (c, dir, name, what, mode);
        Err(READ_ONLY)
    }

    /// Makes a symbolic link to `target`, any bytes but NUL, shorter than [`PATH_MAX`](crate::PATH_MAX).
    ///
    /// Errors as [`ncreate`](Self::ncreate), `ENAMETOOLONG`. DragonFly: VOP_NSYMLINK.
    fn nsymlink(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>, target: &[u8]) -> Result<Attr> {
        let _ = (c, dir, name, target);
        Err(READ_ONLY)
    }

    /// Gives `node` one more name. Errors as [`ncreate`](Self::ncreate); `EPERM` for a directory, `EMLINK`, `EXDEV`.
    /// DragonFly: VOP_NLINK.
    fn nlink(&self, c: &mut Call<'_>, node: NodeId, dir: NodeId, name: Name<'_>) -> Result<Attr> {
        let _ = (c, node, dir, name);
        Err(READ_ONLY)
    }

    /// Removes a name, and with the last one the node once nobody has it open.
    ///
    /// Errors: `ENOENT`, `EISDIR` for a directory, `EPERM` by its flags, `EROFS`. DragonFly: VOP_NREMOVE.
    fn nremove(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<()> {
        let _ = (c, dir, name);
        Err(READ_ONLY)
    }

    /// Removes an empty directory.
    ///
    /// Errors: `ENOENT`, `ENOTDIR`, `ENOTEMPTY`, `EPERM` by its flags, `EROFS`. DragonFly: VOP_NRMDIR.
    fn nrmdir(&self, c: &mut Call<'_>, dir: NodeId, name: Name<'_>) -> Result<()> {
        let _ = (c, dir, name);
        Err(READ_ONLY)
    }

    /// Renames, in one step: a node that had the new name loses it. Two names of one node stay as they are.
    ///
    /// Errors: `ENOENT`; `EISDIR` to put a file over a directory, `ENOTDIR` a directory over a file, `ENOTEMPTY` over a
    /// directory with entries; `EINVAL` to put a directory below itself; `EXDEV`, `EPERM`, `EROFS`.
    /// DragonFly: VOP_NRENAME.
    fn nrename(&self, c: &mut Call<'_>, from: (NodeId, Name<'_>), to: (NodeId, Name<'_>)) -> Result<()> {
        let _ = (c, from, to);
        Err(READ_ONLY)
    }

    /// Changes attributes, all of them or none, and returns the new ones. The file system decides whether `c.cred` may.
    ///
    /// Errors: `EPERM`, `EACCES`, `EISDIR` for the size of a directory, `EINVAL`, `EFBIG`, `ENOSPC`, `EROFS`.
    /// DragonFly: VOP_SETATTR.
    fn setattr(&self, c: &mut Call<'_>, node: NodeId, change: &SetAttr) -> Result<Attr> {
        let _ = (c, node, change);
        Err(READ_ONLY)
    }

    /// Writes `data` and returns how many of its bytes were taken, at least one unless `data` is empty. The bytes are
    /// copied once, into the file system's memory; they are safe from a power cut after [`fsync`](Self::fsync).
    ///
    /// Errors: `EFBIG`, `ENOSPC`, `EPERM` by its flags, `EISDIR`, `EROFS`. DragonFly: VOP_WRITE.
    fn write(&self, c: &mut Call<'_>, node: NodeId, at: WriteAt, data: &[u8]) -> Result<usize> {
        let _ = (c, node, at, data);
        Err(READ_ONLY)
    }

    /// Makes everything written to a node safe from a power cut. What is never written is always safe: the default
    /// agrees. DragonFly: VOP_FSYNC.
    fn fsync(&self, c: &mut Call<'_>, node: NodeId) -> Result<()> {
        let _ = (c, node);
        Ok(())
    }

    /// Makes everything written to the file system safe from a power cut. DragonFly: VFS_SYNC.
    fn sync(&self, c: &mut Call<'_>) -> Result<()> {
        let _ = c;
        Ok(())
    }
}

#[cfg(test)]
#[path = "fs_tests.rs"]
mod tests;
