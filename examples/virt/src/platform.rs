//! The machine as the crates of the family see it: CPUs and time.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use core::task::Waker;

use dfly_hal::{Clock, CpuId, Cpus, Instant};

use crate::{MOST, arch, clock};

/// The machine.
#[derive(Clone, Copy, Debug)]
pub struct Virt;

static COUNT: AtomicU32 = AtomicU32::new(1);
static IPIS: [AtomicU64; MOST] = [const { AtomicU64::new(0) }; MOST];

/// There are `cpus` CPUs. Once, before there is anybody to ask.
pub fn init(cpus: u32) {
    COUNT.store(cpus, Ordering::Release);
}

/// The interrupt handler of IPIs. That one came is all that it is for: whoever was halted looks again, and
/// `interrupt_exit` looks for whoever runs.
pub fn ipi() {
    if let Some(count) = IPIS.get(arch::this() as usize) {
        count.fetch_add(1, Ordering::Release);
    }
}

/// How many IPIs `cpu` has taken.
pub fn ipis(cpu: CpuId) -> u64 {
    IPIS.get(cpu.index()).map_or(0, |count| count.load(Ordering::Acquire))
}

// SAFETY: `arch::this` reads what the CPU is; `count` is final before there is a `Virt` to ask; the machine delivers.
unsafe impl Cpus for Virt {
    fn this(&self) -> CpuId {
        CpuId(arch::this())
    }

    fn count(&self) -> u32 {
        COUNT.load(Ordering::Acquire)
    }

    fn raise_ipi(&self, to: CpuId) {
        if to.0 < self.count() {
            arch::raise_ipi(to.0);
        }
    }
}

/// `wake_at`: thread context only.
impl Clock for Virt {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn wake_at(&self, at: Instant, waker: &Waker) {
        clock::wake_at(at, waker);
    }
}

impl dfly_lwkt::Platform for Virt {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        arch::halt(ready);
    }

    fn in_interrupt(&self) -> bool {
        arch::are_interrupts_off()
    }
}
