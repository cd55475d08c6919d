//! The machine as the crates of the family see it: CPUs, time, memory for devices.

use core::task::Waker;

use dfly_hal::dma::{Identity, WithDma};
use dfly_hal::{Clock, CpuId, Cpus, Instant};
use dfly_lwkt::StackMemory;
use x86_64::instructions::interrupts::are_enabled;

use crate::{apic, clock, cpu, interrupts, memory};

/// The machine: its CPUs and its clock.
#[derive(Clone, Copy, Debug)]
pub struct Pc;

/// With its memory for devices.
// SAFETY: all memory is mapped one to one (`memory`), there is no IOMMU, and a PC's devices see its caches.
pub const MACHINE: WithDma<Pc, Identity> = WithDma::new(Pc, unsafe { Identity::new() });

// SAFETY: `cpu::this` reads what belongs to the CPU; `count` is final before there is a `Pc` to ask; the APIC delivers.
unsafe impl Cpus for Pc {
    fn this(&self) -> CpuId {
        cpu::this()
    }

    fn count(&self) -> u32 {
        cpu::count()
    }

    fn raise_ipi(&self, to: CpuId) {
        if let Some(cpu) = cpu::get(to) {
            apic::interrupt(cpu.apic(), interrupts::IPI);
        }
    }
}

/// `wake_at`: thread context only.
impl Clock for Pc {
    fn now(&self) -> Instant {
        clock::now()
    }

    fn wake_at(&self, at: Instant, waker: &Waker) {
        clock::wake_at(at, waker);
    }
}

impl dfly_lwkt::Platform for Pc {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        cpu::halt(ready);
    }

    fn stack(&self, bytes: usize) -> Option<StackMemory> {
        memory::stack(bytes)
    }

    fn in_interrupt(&self) -> bool {
        cpu::in_interrupt() || !are_enabled()
    }
}
