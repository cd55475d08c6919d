//! A process as a machine, its CPU the one thread.

use std::sync::Arc;
use std::task::Waker;

use dfly_hal::dma::WithDma;
use dfly_hal::host::{HostClock, HostCpus, HostDma};
use dfly_hal::{Clock, CpuId, Cpus, Instant};

/// The process.
pub(crate) type Host = WithDma<ClockAndCpu, HostDma>;

/// Its clock and its CPU.
pub(crate) struct ClockAndCpu {
    clock: HostClock,
    cpus: HostCpus,
}

impl Clock for ClockAndCpu {
    fn now(&self) -> Instant {
        self.clock.now()
    }
    fn wake_at(&self, at: Instant, waker: &Waker) {
        self.clock.wake_at(at, waker);
    }
}

// SAFETY: `HostCpus` keeps the promises.
unsafe impl Cpus for ClockAndCpu {
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
    let times = ClockAndCpu { clock: HostClock::new(), cpus: HostCpus::new(1) };
    Arc::new(WithDma::new(times, HostDma::new()))
}
