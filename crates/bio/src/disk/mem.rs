//! [`MemDisk`]: a disk in memory.

use core::fmt;

use dfly_hal::sync::Lock;

use super::Image;
use crate::{AllocError, BioJob, BlockDevice, Failure, JobList, Limits, Op, RangeLimits, Status, WriteCache};

/// Bytes that are copied with the lock held once.
const STRIDE: usize = 16 << 10;

/// When a [`MemDisk`] completes what it is given. Real devices do both; test with both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// Before `submit` returns.
    Inline,
    /// In `poll`.
    Queued,
}

/// A disk in memory, sparse: what was never written reads as zero and takes no memory.
///
/// Callable from every thread. The first write to a chunk of 64 KiB allocates it; everything else allocates nothing.
/// A completed write is as durable as memory is; wrap it in a `PowerCut` for a write cache.
pub struct MemDisk {
    limits: Limits,
    completion: Completion,
    image: Lock<Image>,
    queue: Lock<JobList>,
}

impl MemDisk {
    /// A disk of `blocks` zero blocks of `block_bytes` each, that completes inline.
    pub fn new(block_bytes: u32, blocks: u64) -> Self {
        let limits = Limits::new(block_bytes, blocks);
        Self::from_image(block_bytes, Image::new(limits.bytes()))
    }

    /// A disk with the contents of `image`; a last partial block is out of reach.
    pub fn from_image(block_bytes: u32, image: Image) -> Self {
        let mut limits = Limits::new(block_bytes, image.len() / u64::from(block_bytes.max(1)));
        let any = RangeLimits { granularity_bytes: limits.block_bytes, max_bytes: u64::MAX };
        limits.discard = Some(any);
        limits.write_zeroes = Some(any);
        limits.write_cache = WriteCache::None;
        Self {
            limits,
            completion: Completion::Inline,
            image: Lock::new(image),
            queue: Lock::new(JobList::new()),
        }
    }

    /// A disk with the contents of `bytes`.
    pub fn from_bytes(block_bytes: u32, bytes: &[u8]) -> Result<Self, AllocError> {
        Ok(Self::from_image(block_bytes, Image::from_bytes(bytes)?))
    }

    /// Completes when `completion` says.
    pub fn completing(mut self, completion: Completion) -> Self {
        self.completion = completion;
        self
    }

    /// With other limits than memory has, to test those who must keep them. The size stays.
    pub fn limited(mut self, edit: impl FnOnce(&mut Limits)) -> Self {
        edit(&mut self.limits);
        let bytes = self.image.get_mut().len();
        self.limits.blocks = bytes / u64::from(self.limits.block_bytes.max(1));
        self
    }

    /// The contents now, sharing memory with the disk until one of them is written.
    pub fn image(&self) -> Image {
        self.image.lock().clone()
    }

    /// How many jobs wait for `poll`.
    pub fn queued(&self) -> usize {
        self.queue.lock().len()
    }

    fn serve(&self, mut job: BioJob) {
        let status = self.limits.check(&job).and_then(|()| self.transfer(&mut job));
        job.finish(status);
    }

    fn transfer(&self, job: &mut BioJob) -> Status {
        let (mut at, len) = (job.offset(), job.len());
        match job.op() {
            Op::Read => {
                for run in job.data_mut().ok_or(Failure::Device)? {
                    for piece in run.chunks_mut(STRIDE) {
                        self.image.lock().read(at, piece);
                        at += piece.len() as u64;
                    }
                }
                Ok(())
            }
            Op::Write => {
                for piece in job.data().flat_map(|run| run.chunks(STRIDE)) {
                    self.image.lock().write(at, piece)?;
                    at += piece.len() as u64;
                }
                Ok(())
            }
            Op::Flush => Ok(()),
            Op::Discard | Op::WriteZeroes => Ok(self.image.lock().zero(at, len)?),
        }
    }
}

impl BlockDevice for MemDisk {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, mut batch: JobList) {
        match self.completion {
            Completion::Inline => batch.for_each(|job| self.serve(job)),
            Completion::Queued => self.queue.lock().append(&mut batch),
        }
    }

    fn poll(&self) -> usize {
        // Taken out first: completing runs foreign code, which may submit again.
        let batch = core::mem::take(&mut *self.queue.lock());
        let done = batch.len();
        batch.for_each(|job| self.serve(job));
        done
    }
}

impl From<AllocError> for Failure {
    fn from(_: AllocError) -> Self {
        Self::NoMemory
    }
}

impl fmt::Debug for MemDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemDisk").field("limits", &self.limits).finish_non_exhaustive()
    }
}
