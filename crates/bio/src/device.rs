//! [`BlockDevice`], and [`BlockOpen`] for finding one by name.

use alloc::boxed::Box;
use alloc::sync::Arc;

use dfly_hal::Wait;

use crate::{JobList, Limits};

/// Something that reads and writes blocks: a disk, a part of one, a layer over one.
pub trait BlockDevice: Send + Sync {
    /// What one request may be. Constant while requests are under way; cheap.
    fn limits(&self) -> Limits;

    /// Takes a batch. Never blocks and never refuses: a job that cannot be done is finished with a failure, one that
    /// finds the queue full is parked. Every job comes back through its completion, in any order, perhaps before this
    /// returns. One queue lock and one doorbell serve the whole batch.
    ///
    /// Order is no promise of durability: a flush covers what *completed* before it was submitted.
    fn submit(&self, batch: JobList);

    /// Reaps what is done, in the caller's context, and goes on with what was parked. Returns how many jobs it
    /// completed. Layers poll what is below them. Thread context only; never blocks.
    fn poll(&self) -> usize {
        0
    }
}

macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<D: BlockDevice + ?Sized> BlockDevice for $pointer {
            fn limits(&self) -> Limits {
                (**self).limits()
            }
            fn submit(&self, batch: JobList) {
                (**self).submit(batch);
            }
            fn poll(&self) -> usize {
                (**self).poll()
            }
        }
    )*};
}

forward!(&D, Box<D>, Arc<D>);

/// Finds block devices by name; a device file system is one.
pub trait BlockOpen: Send + Sync {
    /// Opens the device called `name`, as the namespace that implements this spells it. May block.
    fn open_block(&self, name: &[u8], w: &mut dyn Wait) -> Result<Arc<dyn BlockDevice>, OpenError>;
}

/// A block device could not be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// There is none of that name.
    #[error("no such device")]
    NotFound,
    /// The name is of something else.
    #[error("not a block device")]
    NotABlockDevice,
    /// Somebody has it who does not share it.
    #[error("device busy")]
    Busy,
    /// Not for this caller.
    #[error("permission denied")]
    Denied,
    /// It is there, but finding out about it failed.
    #[error("device unusable")]
    Failed(#[source] crate::Failure),
}
