//! What a scheduler needs of a machine.

use dfly_hal::{Clock, Cpus};

/// The machine that a scheduler runs on: its CPUs, its clock, and how a CPU rests.
pub trait Platform: Cpus + Clock {
    /// Nothing is runnable on the calling CPU: halts it until an interrupt or an IPI comes. Called in the idle context,
    /// interrupts enabled, and returns with them enabled.
    ///
    /// `ready` is asked after the window for interrupts was closed, and if it says yes the CPU does not halt. On a
    /// machine: disable interrupts; if `ready()`, enable them and return; else enable them and halt in one step. On a
    /// host: if not `ready()`, park, and an IPI unparks. May return for no reason at all: it is called again.
    fn halt(&self, ready: &dyn Fn() -> bool);

    /// Whether the caller must not be switched away from: it is an interrupt handler, or has interrupts off. Otherwise the
    /// scheduler may do so wherever a short lock or a critical section ends and wherever a thread is woken, to let a
    /// thread of an [interrupt](crate::Priority::is_interrupt)'s priority run.
    ///
    /// By default never with `std`, where nothing interrupts a CPU; without it always, which is safe everywhere.
    fn in_interrupt(&self) -> bool {
        cfg!(not(any(feature = "std", loom)))
    }
}
