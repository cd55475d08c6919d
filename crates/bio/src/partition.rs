//! [`Partition`]: a range of a device, as a device. The smallest layer there is.

use crate::{Access, BioJob, BlockDevice, Failure, JobList, Limits, Status};

/// A range of a lower device. Requests go through without a copy, an allocation or a lock.
#[derive(Clone, Debug)]
pub struct Partition<D> {
    lower: D,
    start: u64,
    limits: Limits,
}

impl<D: BlockDevice> Partition<D> {
    /// `len` bytes of `lower` from `start` on.
    ///
    /// # Errors
    /// [`Failure::Misaligned`] if they are no multiples of the block, [`Failure::OutOfRange`].
    pub fn new(lower: D, start: u64, len: u64) -> Result<Self, Failure> {
        let mut limits = lower.limits().shifted(start);
        let block = u64::from(limits.block_bytes.max(1));
        if !start.is_multiple_of(block) || !len.is_multiple_of(block) {
            return Err(Failure::Misaligned);
        }
        if start.checked_add(len).is_none_or(|end| end > limits.bytes()) {
            return Err(Failure::OutOfRange);
        }
        limits.blocks = len / block;
        Ok(Self { lower, start, limits })
    }

    /// The same range, for reading only.
    pub fn read_only(mut self) -> Self {
        self.limits.access = Access::ReadOnly;
        self
    }

    fn forward(&self, job: &mut BioJob) -> Status {
        // The range is this layer's to check; what else the lower device asks for, it checks itself.
        self.limits.admit_range(job)?;
        job.remap(job.offset().saturating_add(self.start))
    }
}

impl<D: BlockDevice> BlockDevice for Partition<D> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, batch: JobList) {
        let mut out = JobList::new();
        for mut job in batch {
            match self.forward(&mut job) {
                Ok(()) => out.push(job),
                Err(failure) => job.finish(Err(failure)),
            }
        }
        if !out.is_empty() {
            self.lower.submit(out);
        }
    }

    fn poll(&self) -> usize {
        self.lower.poll()
    }
}
