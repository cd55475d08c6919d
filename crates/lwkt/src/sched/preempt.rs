//! Preemption: which CPU a caller is on, without being told which scheduler, and the hooks of the short locks.

#[cfg(not(loom))]
use core::panic::Location;

#[cfg(not(loom))]
use dfly_hal::sync::{AlreadyRegistered, PreemptionHooks, register_preemption};

use crate::sched::cpu::Cpu;

/// Makes the short locks of the family ([`Lock`](dfly_hal::sync::Lock), [`Spinlock`](crate::lock::Spinlock), ..) keep their
/// thread on its CPU: whoever has one is in a critical section.
///
/// Once for the whole process or kernel, before its first scheduler runs. Without it a thread that waits while it has
/// such a lock is not told, and the next one that wants the lock spins for ever.
///
/// # Errors
/// Somebody has registered other [hooks](dfly_hal::sync::register_preemption).
#[cfg(not(loom))]
pub fn enable_preemption() -> Result<(), AlreadyRegistered> {
    static HOOKS: PreemptionHooks = PreemptionHooks { disable, enable };
    register_preemption(&HOOKS)
}

#[cfg(not(loom))]
fn disable(place: &'static Location<'static>) {
    if let Some(cpu) = here() {
        cpu.sections.open_at(place);
    }
}

#[cfg(not(loom))]
fn enable() {
    if let Some(cpu) = here() {
        cpu.leave();
    }
}

#[cfg(all(feature = "std", not(loom)))]
std::thread_local! {
    /// The CPU that this OS thread is, or stands in for.
    static HERE: core::cell::Cell<Option<&'static Cpu>> = const { core::cell::Cell::new(None) };
}

/// The CPU that the caller runs on, once that runs threads.
// Not inlined: a compiler that keeps the address of a thread-local over a switch would be wrong where threads move
// between OS threads.
#[cfg(all(feature = "std", not(loom)))]
#[inline(never)]
fn here() -> Option<&'static Cpu> {
    HERE.get()
}

/// On bare metal there is one scheduler, or very few.
#[cfg(not(any(feature = "std", loom)))]
fn here() -> Option<&'static Cpu> {
    crate::sched::registry::schedulers().find_map(|scheduler| scheduler.cpu(scheduler.this()))
}

/// The calling OS thread is this CPU from now on; returns which one it was.
#[inline(never)]
pub(crate) fn set_here(cpu: Option<&'static Cpu>) -> Option<&'static Cpu> {
    #[cfg(all(feature = "std", not(loom)))]
    return HERE.replace(cpu);
    #[cfg(not(all(feature = "std", not(loom))))]
    {
        let _platform_knows = cpu;
        None
    }
}
