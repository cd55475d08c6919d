//! A namespace as a block device.

use alloc::sync::Arc;

use dfly_bio::{Access, BioJob, BlockDevice, Failure, Fua, JobList, Limits, Op, Split, WriteCache};
use dfly_hal::regs::Window;

use crate::driver::Core;
use crate::{NamespaceInfo, NvmeHal};

/// A request goes whole where its memory can be described by PRP entries, and in pieces of one segment where not.
pub(crate) struct Namespace<H: NvmeHal + Clone + 'static, W: Window + 'static> {
    whole: Split<Raw<H, W>>,
    pieces: Split<Raw<H, W>>,
    page_bytes: usize,
}

impl<H: NvmeHal + Clone, W: Window> Namespace<H, W> {
    pub(crate) fn new(core: &Arc<Core<H, W>>, index: usize, info: &NamespaceInfo) -> Self {
        let shape = core.found.shape;
        let mut limits = Limits::new(info.block_bytes(), info.blocks);
        let block = u64::from(info.block_bytes());
        limits.max_bytes = (u64::from(shape.max_bytes)).min(block << 16) / block * block;
        limits.max_segments = u32::try_from(shape.pages()).unwrap_or(u32::MAX);
        limits.mem_align = 4;
        limits.boundary_bytes = u64::from(info.boundary_blocks) << info.block_shift;
        limits.fua = Fua::Native;
        limits.write_cache = info.write_cache;
        limits.access = info.access;
        let raw = |limits| Raw { core: core.clone(), index, limits };
        let mut one_segment = limits;
        one_segment.max_segments = 1;
        let children = core.found.info.queue_depth.into();
        Self {
            whole: Split::new(raw(limits), children),
            pieces: Split::new(raw(one_segment), children),
            page_bytes: shape.page_bytes as usize,
        }
    }

    /// Whether each segment but the first starts with a page, and each but the last ends with one.
    fn is_whole(&self, job: &BioJob) -> bool {
        let mut end = 0;
        job.segments().enumerate().all(|(i, segment)| {
            let start = segment.ptr.addr().get();
            let fits = i == 0 || (start.is_multiple_of(self.page_bytes) && end % self.page_bytes == 0);
            end = start.wrapping_add(segment.len);
            fits
        })
    }
}

impl<H: NvmeHal + Clone, W: Window> BlockDevice for Namespace<H, W> {
    fn limits(&self) -> Limits {
        self.whole.limits()
    }

    fn submit(&self, batch: JobList) {
        if !self.whole.lower().core.accepts() {
            return batch.finish_all(Err(Failure::Gone));
        }
        let (mut whole, mut pieces) = (JobList::new(), JobList::new());
        for job in batch {
            if self.is_whole(&job) { whole.push(job) } else { pieces.push(job) }
        }
        for (device, jobs) in [(&self.whole, whole), (&self.pieces, pieces)] {
            if !jobs.is_empty() {
                device.submit(jobs);
            }
        }
    }

    fn poll(&self) -> usize {
        self.whole.poll()
    }
}

/// A namespace that takes what one command can do.
struct Raw<H: NvmeHal + Clone, W: Window> {
    core: Arc<Core<H, W>>,
    index: usize,
    limits: Limits,
}

impl<H: NvmeHal + Clone, W: Window> Raw<H, W> {
    /// What is answered without asking the controller.
    fn at_once(&self, job: &BioJob) -> Option<dfly_bio::Status> {
        match self.limits.check(job) {
            Err(failure) => Some(Err(failure)),
            Ok(()) if job.op() == Op::Flush => {
                (self.limits.write_cache == WriteCache::None).then_some(Ok(()))
            }
            Ok(()) => job.is_empty().then_some(Ok(())),
        }
    }
}

impl<H: NvmeHal + Clone, W: Window> BlockDevice for Raw<H, W> {
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
        self.core.submit(self.index, jobs);
    }

    fn poll(&self) -> usize {
        self.core.poll()
    }
}

impl NamespaceInfo {
    /// Bytes of a block.
    pub const fn block_bytes(&self) -> u32 {
        1 << self.block_shift
    }

    pub(crate) const fn access_of(nsattr: u8) -> Access {
        if nsattr & 1 == 0 { Access::ReadWrite } else { Access::ReadOnly }
    }
}
