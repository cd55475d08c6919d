//! A device behind a port as a block device.

use alloc::sync::Arc;

use dfly_bio::{BioJob, BlockDevice, Failure, JobList, Limits, Op, Split, Status, WriteCache};
use dfly_hal::regs::Window;

use crate::AhciHal;
use crate::driver::Core;

/// Requests that are longer than a command may be go through a splitter.
pub(crate) struct Disk<H: AhciHal + Clone + 'static, W: Window + 'static> {
    split: Split<Raw<H, W>>,
}

impl<H: AhciHal + Clone, W: Window> Disk<H, W> {
    /// The device of that `generation` at the port with that `index`. Allocates the splitter's pool.
    pub(crate) fn new(core: &Arc<Core<H, W>>, index: usize, generation: u32, limits: Limits) -> Self {
        let raw = Raw { core: core.clone(), index, generation, limits };
        Self { split: Split::new(raw, core.info.slots.into()) }
    }
}

impl<H: AhciHal + Clone, W: Window> BlockDevice for Disk<H, W> {
    fn limits(&self) -> Limits {
        self.split.limits()
    }

    fn submit(&self, batch: JobList) {
        if !self.split.lower().core.accepts() {
            return batch.finish_all(Err(Failure::Gone));
        }
        self.split.submit(batch);
    }

    fn poll(&self) -> usize {
        self.split.poll()
    }
}

/// A device that takes what one command can do.
struct Raw<H: AhciHal + Clone, W: Window> {
    core: Arc<Core<H, W>>,
    index: usize,
    generation: u32,
    limits: Limits,
}

impl<H: AhciHal + Clone, W: Window> Raw<H, W> {
    /// What is answered without asking the device.
    fn at_once(&self, job: &BioJob) -> Option<Status> {
        match self.limits.check(job) {
            Err(failure) => Some(Err(failure)),
            Ok(()) if job.op() == Op::Flush => {
                (self.limits.write_cache == WriteCache::None).then_some(Ok(()))
            }
            Ok(()) => job.is_empty().then_some(Ok(())),
        }
    }
}

impl<H: AhciHal + Clone, W: Window> BlockDevice for Raw<H, W> {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn submit(&self, batch: JobList) {
        let mut jobs = JobList::new();
        for job in batch {
            match self.at_once(&job) {
                Some(status) if self.core.is_live() => job.finish(status),
                Some(_) => job.finish(Err(Failure::Gone)),
                None => jobs.push(job),
            }
        }
        self.core.submit(self.index, self.generation, jobs);
    }

    fn poll(&self) -> usize {
        self.core.poll()
    }
}
