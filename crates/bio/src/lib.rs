//! Block requests that own their memory, and the devices that they travel through.
//!
//! A [`Bio`] owns its buffer while a device may touch it, and comes back with it, completed or failed. Nothing is
//! allocated and nothing is copied on its way: the node that queues it is inside it, layers remap it in place, the
//! children of a split come from a pool and borrow pieces of its memory. [`BlockDevice::submit`] takes a batch, never
//! blocks and never refuses; a completed request goes to a waiter ([`Bio::start`]), a sink ([`Bio::send_to`]) or its
//! parent ([`BioJob::carve`]).
//!
//! ```
//! use dfly_bio::{Bio, BlockDevice, Buf, MemDisk, Partition};
//! use dfly_hal::SpinWait;
//!
//! let disk = Partition::new(MemDisk::new(512, 4096), 1 << 20, 1 << 20)?;
//! let mut poll = || { disk.poll(); };
//! let w = &mut SpinWait::new(&mut poll);
//!
//! // Two requests overlap: both are started before the first is waited for.
//! let mut bios = [0, 8192].map(|at| {
//!     let mut bio = Bio::new();
//!     bio.read(at, Buf::alloc(4096, 4096).unwrap());
//!     Some(bio.start(&disk))
//! });
//! for pending in &mut bios {
//!     let mut bio = pending.take().unwrap().wait(w);
//!     bio.result()?;
//!     let buf = bio.take_buf().unwrap();
//!     assert_eq!(buf.len(), 4096);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! | | needs alloc? | may block? | from an interrupt handler? | stack use |
//! |---|---|---|---|---|
//! | making [`Bio`], [`BioPool`], [`Buf`], [`SharedBuf`], lists, devices | yes, once | no | no | small |
//! | preparing, [`submit`](BlockDevice::submit), [`poll`](BlockDevice::poll), completing | no | no | no: handlers wake who polls | a frame for each layer |
//! | [`Bio::call`], [`PendingBio::wait`] | no | yes: takes `&mut Wait` | no | small |
//! | [`PortDisk`]; [`DiskServer::run`] | no; no | no; yes: takes `&mut Wait` | no | small |
//! | [`read_at`], [`write_at`], [`flush()`] | yes, each call | yes: take `&mut Wait` | no | small |
//! | [`MemDisk`] | the first write to a chunk | no | no | small |
//! | `FileDisk` | no | the host thread, without workers | no | small |
//! | [`FaultInjector`], [`PowerCut`] | where a fault needs a copy; each write | no | no | small |
//!
//! Everything is callable from every thread at once. Unsafe code is in the module `buf` only.
#![no_std]
#![deny(missing_docs)]
#![deny(unsafe_code)]

extern crate alloc;
#[cfg(any(feature = "std", test))]
extern crate std;

mod adapter;
mod bio;
mod blocking;
mod body;
#[expect(unsafe_code, reason = "memory that changes hands while a device may touch it")]
mod buf;
mod device;
mod disk;
mod job;
mod limits;
#[cfg(feature = "model")]
pub mod model;
mod partition;
mod port;
mod split;
mod status;

pub use adapter::{
    Cut, Fault, FaultInjector, FaultStats, Keep, OpStats, PowerCut, PowerStats, Rule, TraceRecord,
    TraceStats, Tracer, Unflushed,
};
pub use bio::{Bio, BioPool, PendingBio};
pub use blocking::{flush, read_at, write_at};
pub use body::{BioBody, BioKey, MAX_DEPTH, Op, Priority, Verdict};
pub use buf::{
    AllocError, Buf, BufVec, BufVtable, Bytes, BytesMut, Carver, Frozen, FrozenVec, Part, Payload,
    ReadTarget, Scatter, Segment, Segments, SharedBuf,
};
pub use device::{BlockDevice, BlockOpen, OpenError};
pub use disk::{Completion, Image, MemDisk};
#[cfg(all(feature = "std", unix))]
pub use disk::{FileDisk, FileDiskOptions};
pub use job::{BioJob, JobList};
pub use limits::{Access, Fua, Limits, Medium, RangeLimits, WriteCache};
pub use partition::Partition;
pub use port::{DiskServer, PortDisk, Reap};
pub use split::Split;
pub use status::{BioError, Failure, Status};

/// A queue that completed requests come back to: see [`Bio::send_to`].
pub type BioCompletions = dfly_msgport::Completions<BioBody>;

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
