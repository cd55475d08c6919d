//! DragonFly BSD's HAMMER file system: byte-compatible, with every yesterday of every file.
//!
//! [`Hammer::mount`] takes the volumes as [block devices](dfly_bio::BlockDevice) and serves them as a
//! [file system](dfly_vfs::FileSystem) to read, [`Hammer::mount_writable`] to read and write. A path may name a time or a
//! pseudo file system: `/@@0x...`, `file@@0x...`, `/@@-1:00001` ([`extension`]). A disk that was not unmounted is put right
//! ([`Recovery`]), in memory or on the disk. Whatever a disk holds, the answer is the right bytes or a typed [`Error`].
//!
//! ```
//! use dfly_bio::MemDisk;
//! use dfly_hal::SpinWait;
//! use dfly_hammer::{Hammer, MountError, MountOptions};
//! use std::sync::Arc;
//!
//! let mut nothing = || ();
//! let w = &mut SpinWait::new(&mut nothing); // whoever may wait: a thread's context, a parked host thread, ...
//! let blank = Arc::new(MemDisk::new(512, 1 << 17));
//! let refusal = Hammer::mount(&[blank], MountOptions::default(), w).err();
//! assert_eq!(refusal, Some(MountError::NotHammer { index: 0, found: 0 }));
//! ```
//!
//! | | allocates | may block | from an interrupt | stack |
//! |---|---|---|---|---|
//! | [`Hammer::mount`], [`Hammer::mount_writable`] | yes, the cache's tables and the UNDO bytes | yes | no | 22 KiB |
//! | reading operations of [`dfly_vfs::FileSystem`] | no, once the cache has its memory | yes, through the waiter | no | 9 KiB (reading; the others 7) |
//! | writing operations | yes | yes, through the waiter | no | not measured yet |
//! | [`Hammer::nodes`] | yes | yes | no | 16 KiB |
//! | [`check::check`] | yes, its budget | yes | no | 32 KiB, estimated |
//! | [`format::newfs`] | yes, 1 MiB | yes | no | 16 KiB, estimated |
//! | [`salvage`] | yes, its budget | yes | no | 32 KiB, estimated |
//! | lists of snapshots, PFSs, versions | yes | yes | no | 5 KiB |
//! | [`crc`], [`namekey`], [`extension`], [`ondisk`] | no | no | yes | small |
//!
//! The stack figures were measured on x86_64 with optimisation, over a memory disk, where nothing else is said.
//!
//! Source of the format: hammer(5) and the behaviour of DragonFly's code; `DESIGN.md` draws it and says what the reader
//! relies on.
#![no_std]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

extern crate alloc;
#[cfg(test)]
extern crate std;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

mod btree;
pub mod check;
pub mod crc;
mod directory;
mod error;
pub mod extension;
mod file;
pub mod format;
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
pub mod salvage;
mod write;

pub use error::{Error, MountError, Structure};
pub use fs::{Hammer, MountOptions, RecoveryMode};
pub use history::Version;
pub use object::{ObjectId, View};
pub use ondisk::node::{Key, Tid};
pub use pages::CacheStats;
pub use pfs::{Pfs, Snapshot};
pub use recovery::Recovery;
pub use write::{WallClock, WriteStats};
