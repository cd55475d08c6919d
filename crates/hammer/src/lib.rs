//! DragonFly BSD's HAMMER file system.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod btree;
pub mod crc;
mod directory;
mod error;
pub mod extension;
mod file;
mod freemap;
mod fs;
mod history;
pub mod inspect;
mod media;
mod mount;
pub mod namekey;
mod object;
pub mod ondisk;
mod pages;
mod pfs;
mod record;
mod recovery;

pub use error::{Error, MountError, Structure};
pub use fs::{Hammer, MountOptions, RecoveryMode};
pub use history::Version;
pub use object::{ObjectId, View};
pub use ondisk::node::{Key, Tid};
pub use pages::CacheStats;
pub use pfs::{Pfs, Snapshot};
pub use recovery::Recovery;
