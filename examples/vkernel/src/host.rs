//! This process as a machine: threads for CPUs, its clock, its memory for devices.
#![expect(unsafe_code, reason = "a machine's parts put together; memory for the models")]

use core::ops::Range;
use core::ptr::NonNull;
use core::task::Waker;

use dfly_hal::dma::{CoherentMem, Constraints, Direction, Dma, DmaError, Mapping, SegmentSink};
use dfly_hal::host::HostDma;
use dfly_hal::model::HostMemory;
use dfly_hal::{Clock, CpuId, Cpus, Instant};
use dfly_lwkt::Platform;
use dfly_lwkt::host::HostPlatform;

/// The parts of a machine that `lwkt` and `hal` have for a process, as one.
pub(crate) struct Host {
    pub(crate) threads: HostPlatform,
    memory: HostDma,
}

impl Host {
    pub(crate) fn new(cpus: u32) -> Self {
        Self { threads: HostPlatform::new(cpus), memory: HostDma::new() }
    }
}

/// What the models of this crate reach.
///
/// Not to be had outside: a model over it goes to a kernel on a [`Host`], and to nobody who could write to its registers.
pub(crate) fn device_memory() -> HostMemory {
    // SAFETY: `Drive` and `Adapter` give their models to the driver of one kernel only, on a `Host`, whose memory is `HostDma`.
    unsafe { HostMemory::new() }
}

// SAFETY: all of it is said by the part.
unsafe impl Cpus for Host {
    fn this(&self) -> CpuId {
        self.threads.this()
    }
    fn count(&self) -> u32 {
        self.threads.count()
    }
    fn raise_ipi(&self, to: CpuId) {
        self.threads.raise_ipi(to);
    }
}

impl Clock for Host {
    fn now(&self) -> Instant {
        self.threads.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.threads.wake_at(at, waker);
    }
}

impl Platform for Host {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        self.threads.halt(ready);
    }
}

// SAFETY: all of it is said by the part.
unsafe impl Dma for Host {
    fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError> {
        self.memory.alloc_coherent(len, constraints)
    }
    unsafe fn free_coherent(&self, mem: CoherentMem) {
        // SAFETY: as the caller says.
        unsafe { self.memory.free_coherent(mem) };
    }
    unsafe fn map(
        &self,
        cpu: NonNull<u8>,
        len: usize,
        direction: Direction,
        constraints: &Constraints,
        sink: &mut SegmentSink<'_>,
    ) -> Result<Mapping, DmaError> {
        // SAFETY: as the caller says.
        unsafe { self.memory.map(cpu, len, direction, constraints, sink) }
    }
    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: as the caller says.
        unsafe { self.memory.unmap(mapping) };
    }
    unsafe fn sync_for_device(&self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: as the caller says.
        unsafe { self.memory.sync_for_device(mapping, range) };
    }
    unsafe fn sync_for_cpu(&self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: as the caller says.
        unsafe { self.memory.sync_for_cpu(mapping, range) };
    }
    fn wmb(&self) {
        self.memory.wmb();
    }
    fn rmb(&self) {
        self.memory.rmb();
    }
}
