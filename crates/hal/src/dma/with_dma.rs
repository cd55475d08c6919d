//! A machine of two parts: its memory for devices, and all else.

use core::ops::Range;
use core::ptr::NonNull;
use core::task::Waker;

use super::{CoherentMem, Constraints, Direction, Dma, DmaError, Mapping, SegmentSink, forward_dma};
use crate::{Clock, CpuId, Cpus, Instant};

/// A machine whose memory for devices is a part of its own: [`Cpus`] and [`Clock`] are those of `machine`, [`Dma`] is that of
/// `dma`. For drivers and kernels that want all of it as one value.
///
/// ```
/// # #[cfg(feature = "std")] {
/// use dfly_hal::dma::{Coherent, Constraints, WithDma};
/// use dfly_hal::host::{HostClock, HostDma};
/// use dfly_hal::Clock;
///
/// let host = WithDma::new(HostClock::new(), HostDma::new());
/// let start = host.now();
/// let ring = Coherent::<u64, _>::alloc(&host, 64, &Constraints::ANY)?;
/// assert_eq!(ring.len(), 64);
/// assert!(host.now() >= start);
/// # }
/// # Ok::<(), dfly_hal::dma::DmaError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct WithDma<M, D> {
    machine: M,
    dma: D,
}

impl<M, D> WithDma<M, D> {
    /// Both as one.
    pub const fn new(machine: M, dma: D) -> Self {
        Self { machine, dma }
    }

    /// All else.
    pub const fn machine(&self) -> &M {
        &self.machine
    }

    /// The memory for devices.
    pub const fn dma(&self) -> &D {
        &self.dma
    }
}

forward_dma! { [M: Send + Sync, D: Dma] Dma for WithDma<M, D>, dma }

// SAFETY: all of it is said by the machine.
unsafe impl<M: Cpus, D: Send + Sync> Cpus for WithDma<M, D> {
    fn this(&self) -> CpuId {
        self.machine.this()
    }
    fn count(&self) -> u32 {
        self.machine.count()
    }
    fn raise_ipi(&self, to: CpuId) {
        self.machine.raise_ipi(to);
    }
}

impl<M: Clock, D: Send + Sync> Clock for WithDma<M, D> {
    fn now(&self) -> Instant {
        self.machine.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.machine.wake_at(at, waker);
    }
}
