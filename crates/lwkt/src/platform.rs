//! What a scheduler needs of a machine.

use dfly_hal::dma::WithDma;
use dfly_hal::{Clock, Cpus};

use crate::stack::StackMemory;

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
    /// By default never with `std`, where nothing interrupts a CPU. Without it always: then nothing is preempted, and messages
    /// of other CPUs that come inside of a critical section wait until the CPU is idle. A machine with interrupts says what is so.
    fn in_interrupt(&self) -> bool {
        cfg!(not(any(feature = "std", loom)))
    }

    /// Memory for the stack of a thread: at least `bytes`, which is a power of two from 8 KiB up. `None` if there is no more.
    /// Called where somebody spawns. It never comes back, and is used for one thread after the other.
    ///
    /// By default [`StackMemory::allocate`]. A kernel that has page tables leaves a page below a stack unmapped, and says
    /// so: then the handler of page faults ends the machine, and learns from [`overflowed_at`](crate::overflowed_at) whose
    /// stack it was. On which stack that handler runs must not depend on the thread.
    fn stack(&self, bytes: usize) -> Option<StackMemory> {
        StackMemory::allocate(bytes)
    }
}

impl<M: Platform, D: Send + Sync> Platform for WithDma<M, D> {
    fn halt(&self, ready: &dyn Fn() -> bool) {
        self.machine().halt(ready);
    }

    fn in_interrupt(&self) -> bool {
        self.machine().in_interrupt()
    }

    fn stack(&self, bytes: usize) -> Option<StackMemory> {
        self.machine().stack(bytes)
    }
}
