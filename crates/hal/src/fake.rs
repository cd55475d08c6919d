//! A machine for tests, which looks for the mistakes that a real one forgives (feature `fake`).
//!
//! - Every mapping has device addresses of its own, not used before (until they run out, which for a device that reaches
//!   4 GiB takes a while), with a page between it and its neighbours. Where the constraints allow it, each page of a buffer is at a place of its own.
//! - Every mapped buffer is a copy. So a missing `unmap`, `sync_for_cpu` or `sync_for_device` shows, and so does whoever
//!   uses a buffer that is lent.
//! - A mapping that the device only writes begins as [`FRESH`]: who trusts bytes that the device did not write, sees them.
//! - What has been freed or unmapped is filled with [`POISON`] and watched for a while.
//! - A device (model) uses [`device_read`](FakeHal::device_read) and [`device_write`](FakeHal::device_write). An access
//!   outside what is mapped, or against its direction, does nothing and is a [`Fault`] that is counted.
//! - Time stands still until the test moves it.
//!
//! ```
//! use dfly_hal::dma::{Coherent, Constraints, Dma};
//! use dfly_hal::fake::FakeHal;
//! let hal = FakeHal::new();
//! let mut ring = Coherent::<u32, _>::alloc(&hal, 16, &Constraints::ANY)?;
//! ring.set(0, 7)?;
//! let at = ring.device_addr(0).unwrap();
//! let mut seen = [0; 4];
//! hal.device_read(at, &mut seen)?;                    // what the device model does
//! assert_eq!(seen, 7_u32.to_le_bytes());
//! drop(ring);
//! assert!(hal.device_read(at, &mut seen).is_err());   // use after free, and it is remembered
//! assert_eq!((hal.faults().len(), hal.leaks().is_empty()), (1, true));
//! # Ok::<(), Box<dyn core::error::Error>>(())
//! ```

mod clock;
mod memory;

use core::fmt;
use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};
use core::task::Waker;
use core::time::Duration;

use alloc::vec::Vec;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dma::{CoherentMem, Constraints, DevAddr, Direction, Dma, DmaError, Mapping, SegmentSink};
use crate::host::{AttachError, HostCpu, HostCpus};
use crate::{Clock, CpuId, Cpus, Instant};

pub use memory::{FRESH, Fault, Leaks, POISON, Placement};

/// How a [`FakeHal`] is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// How many CPUs there are. Threads [attach](FakeHal::attach) to them.
    pub cpus: u32,
    /// Where buffers appear to devices.
    pub placement: Placement,
    /// How many bytes may be allocated and mapped at a time; above, [`DmaError::Exhausted`].
    pub budget: usize,
}

impl Default for Config {
    /// One CPU, scattered, 256 MiB.
    fn default() -> Self {
        Self { cpus: 1, placement: Placement::Scattered, budget: 256 << 20 }
    }
}

/// A machine for tests: see the [module](self).
pub struct FakeHal {
    memory: Mutex<memory::Memory>,
    clock: clock::ManualClock,
    cpus: HostCpus,
}

impl FakeHal {
    /// A machine of the default [`Config`].
    pub fn new() -> Self {
        Self::with(Config::default())
    }

    /// A machine.
    pub fn with(config: Config) -> Self {
        Self {
            memory: Mutex::new(memory::Memory::new(config.placement, config.budget)),
            clock: clock::ManualClock::new(),
            cpus: HostCpus::new(config.cpus),
        }
    }

    /// What a device does to read memory.
    pub fn device_read(&self, from: DevAddr, to: &mut [u8]) -> Result<(), Fault> {
        self.memory().device_read(from, to)
    }

    /// What a device does to write memory.
    pub fn device_write(&self, to: DevAddr, from: &[u8]) -> Result<(), Fault> {
        self.memory().device_write(to, from)
    }

    /// The mistakes found so far, the oldest first: those of devices, and misuse of the [`Dma`] methods. The first 1024
    /// are kept.
    pub fn faults(&self) -> Vec<Fault> {
        self.memory().faults()
    }

    /// What is allocated or mapped now: at the end of a test, what was leaked.
    pub fn leaks(&self) -> Leaks {
        self.memory().leaks()
    }

    /// Moves time on, and wakes whoever waited for that. What they do is not waited for.
    pub fn advance(&self, by: Duration) {
        self.clock.advance(by);
    }

    /// Moves time on to the next timer and wakes it; `false` if there is none.
    pub fn advance_to_next(&self) -> bool {
        self.clock.advance_to_next()
    }

    /// Makes the calling thread one of the machine's CPUs.
    pub fn attach(&self, id: CpuId) -> Result<HostCpu, AttachError> {
        self.cpus.attach(id)
    }

    fn memory(&self) -> MutexGuard<'_, memory::Memory> {
        // A callback may panic in a test's thread; the tables are whole at that point.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for FakeHal {
    fn default() -> Self {
        Self::new()
    }
}

// SAFETY: coherent memory and the copies are raw allocations in `Memory`'s tables, each nobody else's until it is freed; see
// there.
unsafe impl Dma for FakeHal {
    fn alloc_coherent(&self, len: usize, constraints: &Constraints) -> Result<CoherentMem, DmaError> {
        self.memory().alloc_coherent(len, constraints)
    }

    unsafe fn free_coherent(&self, mem: CoherentMem) {
        self.memory().free_coherent(&mem);
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
        let (mapping, list) = unsafe { self.memory().map(cpu, len, direction, constraints) }?;
        // Not under the lock: the sink is the caller's code, which may be a device model in a hurry.
        match crate::dma::report(list.into_iter(), sink) {
            Ok(()) => Ok(mapping),
            Err(refused) => {
                self.memory().forget_mapping(&mapping);
                Err(refused)
            }
        }
    }

    unsafe fn unmap(&self, mapping: Mapping) {
        // SAFETY: passed on.
        unsafe { self.memory().unmap(&mapping) };
    }

    unsafe fn sync_for_device(&self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: passed on.
        unsafe { self.memory().sync_for_device(mapping, range) };
    }

    unsafe fn sync_for_cpu(&self, mapping: &Mapping, range: Range<usize>) {
        // SAFETY: passed on.
        unsafe { self.memory().sync_for_cpu(mapping, range) };
    }

    fn wmb(&self) {
        fence(Ordering::Release);
    }

    fn rmb(&self) {
        fence(Ordering::Acquire);
    }
}

impl Clock for FakeHal {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.clock.wake_at(at, waker);
    }
}

// SAFETY: `HostCpus` keeps the promises.
unsafe impl Cpus for FakeHal {
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

impl fmt::Debug for FakeHal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeHal")
            .field("now", &self.now())
            .field("leaks", &self.leaks())
            .field("faults", &self.faults())
            .finish_non_exhaustive()
    }
}
