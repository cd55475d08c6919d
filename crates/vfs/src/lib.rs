//! The file-system interface of the dfly crates, in the style of DragonFly's name cache.
//!
//! A file system implements [`FileSystem`]; a kernel, a FUSE mount or a tool uses it. Between the two:
//!
//! - Nodes are *keys* ([`NodeId`]), not objects: nothing to count, to leak or to lock, and a view of the past is just
//!   another key. What must live on without a name is open ([`OpenId`]).
//! - Every operation takes a [`Call`]: on whose behalf, and who waits. So an operation may block, and a signature says
//!   so. Bytes are lent to a sink, not copied.
//! - Operations on names take the directory and a checked [`Name`] together (`nresolve`, `ncreate`, `nrename`, ...);
//!   nothing is held from a look-up to the operation that it was for.
//! - Errors are an [`Error`]: an [`Errno`] that a program acts on, and what and where for a person.
//! - The writing half has defaults that answer `EROFS`: a read-only file system leaves it out.
//!
//! On top of the trait: [`walk()`] finds a path, with symbolic links, variant symlinks ([`varsym`]) and every limit;
//! [`At`] binds a waiter for a chain of calls; [`Attr::check`] and [`SetAttr::apply`] are the rules of permission that
//! all file systems share; an [`FsServer`] runs a file system in threads of its own, behind a port, and a [`PortFs`] is
//! that file system for others; a [`MountTable`] joins file systems to one tree; [`text`] writes names and attributes for
//! people; `mem::MemFs` (feature `mem`) is a file system in memory that serves all of it.
//!
//! ```
//! # #[cfg(feature = "mem")] {
//! use dfly_hal::SpinWait;
//! use dfly_vfs::{Access, Errno, FileSystemExt, mem::MemFs};
//!
//! let mut nothing = || ();
//! let w = &mut SpinWait::new(&mut nothing); // whoever may wait: a thread's context, a parked host thread, ...
//! let fs = MemFs::new();
//!
//! let new = fs.at(w).nmkdir("home", 0o755)?.ncreate("notes", 0o644)?.open(Access::Write)?;
//! new.write_at(w, 0, b"milk")?;
//!
//! let notes = fs.at(w).walk("/home/notes")?.open(Access::Read)?;
//! fs.at(w).walk("home")?.nremove("notes")?;
//! let mut text = [0; 80];
//! let len = notes.read_at(w, 0, &mut text)?; // open, so still there
//! assert_eq!(&text[..len], b"milk");
//! assert_eq!(fs.at(w).walk("home/notes").unwrap_err(), Errno::ENOENT);
//! # }
//! # Ok::<(), dfly_vfs::Error>(())
//! ```
//!
//! | | needs `alloc`? | may block? | callable from an interrupt? | stack |
//! |---|---|---|---|---|
//! | [`FileSystem`] operations | their file system's | yes, through [`Call::wait`] | no | their file system's |
//! | [`FileSystem::root`], [`FileSystem::close`] | their file system's | no | no | their file system's |
//! | [`walk()`], [`walk_parent`], [`At`] | no | yes, in the file system | no | 2.5 KiB, 3.5 KiB in a link |
//! | [`PortFs`] | a message for each of its calls, once; `close` one each | yes | no | 1 KiB |
//! | [`FsServer::run`] | the buffers of messages, once | yes | no | 1 KiB, and its file system's |
//! | [`MountTable`] | yes, to mount and to list | yes, in the file systems | no | 3.5 KiB |
//! | [`Name`], [`Attr`], [`SetAttr`], [`Cred`], [`Errno`], [`Error`] | no | no | yes | small |
//! | [`varsym::expand`] | no | no | yes | 256 bytes |
//! | [`text`] | no | no | yes | small |
//! | `mem::MemFs` | yes | no, but for its short lock | no | small |
//!
//! What is not here yet: advisory locks, extended attributes, `ioctl` and `mmap`.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod access;
mod at;
mod attr;
mod cred;
mod error;
mod fs;
#[cfg(any(test, feature = "mem"))]
pub mod mem;
mod mount;
mod name;
mod path_text;
mod port;
pub mod text;
pub mod varsym;
mod walk;

pub use access::{Access, Permit};
pub use at::{At, File, FileSystemExt};
pub use attr::{Attr, DeviceNumber, FileFlags, Kind, SetAttr, SetTime, Timestamp};
pub use cred::{Cred, GROUPS_MAX};
pub use error::{Errno, Error};
pub use fs::{
    Call, DirSink, Entry, FIRST_COOKIE, FileSystem, LinkSink, MountFlags, NodeId, OpenId, Opened, ReadSink,
    Result, Special, StatFs, WriteAt,
};
pub use mount::{MountTable, Mounted, OpenFile, Place};
pub use name::{NAME_MAX, Name, NameBuf, NameError, PATH_MAX};
pub use path_text::PathText;
pub use port::{FsServer, PortFs};
pub use walk::{Last, Parent, SYMLINKS_MAX, Walk, readlink, walk, walk_parent};

#[cfg(all(doctest, feature = "mem"))]
#[doc = include_str!("../README.md")]
struct Readme;
