//! A process as a machine, its CPU the one thread.

use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;
use std::task::Waker;

use dfly_hal::dma::{CoherentMem, Constraints, Direction, Dma, DmaError, Mapping, SegmentSink};
use dfly_hal::host::{HostClock, HostCpus, HostDma};
use dfly_hal::{Clock, CpuId, Cpus, Instant};

/// The process.
pub(crate) struct Host {
    clock: HostClock,
    cpus: HostCpus,
}

// SAFETY: `HostDma` keeps the promises.
unsafe impl Dma for Host {
    fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError> {
        HostDma.alloc_coherent(len, constraints)
    }
    unsafe fn free_coherent(&self, mem: CoherentMem) {
        // SAFETY: passed on.
        unsafe { HostDma.free_coherent(mem) }
    }
    unsafe fn map(
        &self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        constraints: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Mapping, DmaError> {
        // SAFETY: passed on.
        unsafe { HostDma.map(cpu, len, direction, constraints, sink) }
    }
    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: passed on.
        unsafe { HostDma.unmap(mapping) }
    }
    unsafe fn sync_for_device(&self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: passed on.
        unsafe { HostDma.sync_for_device(mapping, range) }
    }
    unsafe fn sync_for_cpu(&self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: passed on.
        unsafe { HostDma.sync_for_cpu(mapping, range) }
    }
    fn wmb(&self) {
        HostDma.wmb();
    }
    fn rmb(&self) {
        HostDma.rmb();
    }
}

impl Clock for Host {
    fn now(&self) -> Instant {
        self.clock.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.clock.wake_at(at, waker);
    }
}

// SAFETY: `HostCpus` keeps the promises.
unsafe impl Cpus for Host {
    fn this(&self) -> CpuId {
        self.cpus.this()
    }
    fn count(&self) -> u32 {
        self.cpus.count()
    }
    fn raise_ipi(&self, to: CpuId) {
        self.cpus.raise_ipi(to);
    }
}

pub(crate) fn host() -> Arc<Host> {
    Arc::new(Host { clock: HostClock::new(), cpus: HostCpus::new(1) })
}
