//! The name-cache style file-system interface of the dfly crates.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod attr;
mod cred;
mod error;
mod fs;
mod name;

pub use attr::{Attr, DeviceNumber, FileFlags, Kind, Permit, SetAttr, SetTime, Timestamp};
pub use cred::{Access, Cred, GROUPS_MAX};
pub use error::{Errno, Error};
pub use fs::{
    Call, DirSink, Entry, FIRST_COOKIE, FileSystem, LinkSink, MountFlags, NodeId, OpenId, Opened, ReadSink,
    Result, Special, StatFs, WriteAt,
};
pub use name::{NAME_MAX, Name, NameBuf, NameError, PATH_MAX};
