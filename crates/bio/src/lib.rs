//! Block requests that own their memory, and the devices that they travel through.
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
mod partition;
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
pub use split::Split;
pub use status::{BioError, Failure, Status};
