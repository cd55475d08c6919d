//! The name-cache style file-system interface of the dfly crates.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(any(test, feature = "mem"))]
extern crate std;

mod access;
mod at;
mod attr;
mod cred;
mod error;
mod fs;
#[cfg(any(test, feature = "mem"))]
pub mod mem;
mod name;
mod text;
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
pub use name::{NAME_MAX, Name, NameBuf, NameError, PATH_MAX};
pub use text::PathText;
pub use walk::{Last, Parent, SYMLINKS_MAX, Walk, readlink, walk, walk_parent};
