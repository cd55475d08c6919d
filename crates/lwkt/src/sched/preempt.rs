//! Preemption: which CPU a caller is on, without being told which scheduler, and the hooks of the short locks.

#[cfg(not(loom))]
use core::panic::Location;
// `core`'s atomic, not the facade's: loom's have no place in a static.
use core::sync::atomic::{AtomicBool, Ordering};

#[cfg(not(loom))]
use dfly_hal::sync::{AlreadyRegistered, PreemptionHooks, register_preemption};

use crate::sched::cpu::Cpu;

/// Lets threads of an [interrupt's priority](crate::Priority::is_interrupt) preempt less important ones of their CPU, and
/// makes the short locks of the family ([`Lock`](dfly_hal::sync::Lock), [`Spinlock`](crate::lock::Spinlock), ..) keep
/// their thread on its CPU: whoever has one is in a critical section.
///
/// Once for the whole process or kernel, before its first scheduler runs. Without it such a thread runs when the running
/// one waits or yields, and a thread that waits while it has a short lock is not told.
///
/// A thread that is preempted keeps its tokens, and goes on as soon as the other one waits, yields or ends, whatever else
/// is ready. It is preempted
/// - where an interrupt of a machine ends, see [`Scheduler::interrupt_exit`](crate::Scheduler::interrupt_exit);
/// - where it wakes or spawns such a thread itself, and where its outermost critical section or short lock ends: never
///   inside of one. On a host, where nothing interrupts a thread, these are the only places. It shares the thread-locals
///   of its OS thread with those that preempt it: so neither wake a thread nor release a short lock where a library keeps
///   a scope in a thread-local, or with a lock of the host's held that the other one takes, too.
///
/// # Errors
/// Somebody has registered other [hooks](dfly_hal::sync::register_preemption).
#[cfg(not(loom))]
pub fn enable_preemption() -> Result<(), AlreadyRegistered> {
    static HOOKS: PreemptionHooks = PreemptionHooks { disable, enable };
    register_preemption(&HOOKS)?;
    ENABLED.store(true, Ordering::Relaxed);
    Ok(())
}

/// Set once; who sees it late preempts late.
static ENABLED: AtomicBool = AtomicBool::new(false);

/// Whether threads preempt each other.
#[inline]
pub(crate) fn is_enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
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
    let cpu = |scheduler: &'static crate::Scheduler| scheduler.cpu(scheduler.this());
    crate::sched::registry::schedulers().filter_map(cpu).find(|cpu| cpu.runs())
}

/// Whether the caller runs on `cpu`. Not so on a host where the OS thread that is `cpu` runs another machine meanwhile.
pub(crate) fn is_here(cpu: &Cpu) -> bool {
    #[cfg(all(feature = "std", not(loom)))]
    return here().is_some_and(|here| core::ptr::eq(here, cpu));
    #[cfg(not(all(feature = "std", not(loom))))]
    {
        let _always = cpu;
        true
    }
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
