//! The scheduler's own IPI queues.

use alloc::sync::Arc;
use core::fmt;

use dfly_hal::{CpuId, Cpus};

use crate::ipi::IpiQueues;
use crate::platform::Platform;
use crate::sched::arch;
use crate::sched::critical::Attention;

/// How many messages fit between two CPUs. A model looks at less.
const DEPTH: usize = if cfg!(loom) { 2 } else { 256 };

/// The [IPI queues](crate::ipi) of a [`Scheduler`](crate::Scheduler).
pub type Ipis = IpiQueues<SchedulerCpus, DEPTH>;

/// The CPUs of a scheduler's platform. An IPI to one of them also makes it look at its next safe point: where nothing
/// interrupts a thread, as on a host, that is when its messages are handled.
pub struct SchedulerCpus {
    platform: Arc<dyn Platform>,
    /// One for each CPU.
    attention: &'static [Attention],
}

impl SchedulerCpus {
    pub(crate) fn new(platform: Arc<dyn Platform>, attention: &'static [Attention]) -> Self {
        Self { platform, attention }
    }
}

// SAFETY: the platform's CPUs, and of a thread that an OS thread stands in for, the CPU that waits for it.
unsafe impl Cpus for SchedulerCpus {
    fn this(&self) -> CpuId {
        arch::stand_in(Arc::as_ptr(&self.platform).cast()).unwrap_or_else(|| self.platform.this())
    }

    fn count(&self) -> u32 {
        self.platform.count()
    }

    fn raise_ipi(&self, to: CpuId) {
        if let Some(attention) = self.attention.get(to.index()) {
            attention.call();
        }
        self.platform.raise_ipi(to);
    }
}

impl fmt::Debug for SchedulerCpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SchedulerCpus").field("count", &self.count()).finish_non_exhaustive()
    }
}
