//! Threads on stacks of their own, switched by hand.
//!
//! A suspended thread is its stack pointer; what a function call must preserve is on its stack. Interrupts may come at
//! any instruction: the stack pointer is always that of a whole stack.

use core::cell::UnsafeCell;
use core::ptr;

use dfly_hal::CpuId;

use super::stack::Stack;
use super::switch::{FRAME, first_frame, switch};

/// A CPU's threads run on the OS thread (if there is one) that is the CPU, so their frames may lend its thread-locals.
pub(crate) const ON_THE_CPUS_OWN: bool = true;

/// A suspended thread.
pub(crate) struct Context {
    sp: UnsafeCell<*mut u64>,
}

// SAFETY: the cell is touched by the unsafe functions below, whose callers own the context.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Nothing is suspended here yet.
    pub(crate) const fn new() -> Self {
        Self { sp: UnsafeCell::new(ptr::null_mut()) }
    }

    /// Makes the context a thread that begins with `main(argument)` on `stack`.
    ///
    /// # Safety
    /// The caller owns the context and the stack, and no thread is on it. Before `main` would return it
    /// [leaves](Self::leave). Returns whether there is such a thread now: here always.
    pub(crate) unsafe fn prepare(
        &self,
        stack: &Stack,
        main: extern "C" fn(*const ()),
        argument: *const (),
    ) -> bool {
        let frame = first_frame(main as usize as u64, argument.expose_provenance() as u64);
        // SAFETY: a stack is much larger than a frame.
        let sp = unsafe { stack.top().cast::<u64>().sub(FRAME) };
        // SAFETY: inside the stack, which the caller owns.
        unsafe { sp.cast::<[u64; FRAME]>().write(frame) };
        // SAFETY: the caller owns the context.
        unsafe { *self.sp.get() = sp };
        true
    }

    /// Undoes `prepare` if the thread has not begun: nothing to undo here.
    pub(crate) fn cancel(&self) {}

    /// Suspends the caller into `self` and goes on with `to`. Returns when somebody switches to `self`.
    ///
    /// # Safety
    /// The caller owns both contexts, and in `to` a thread is suspended; it is taken out. Both belong to the calling
    /// CPU (on a host: to the calling OS thread). `self` is not moved or freed while something is suspended in it.
    #[inline]
    pub(crate) unsafe fn switch(&self, to: &Self) {
        // SAFETY: the caller owns the context.
        let sp = unsafe { *to.sp.get() };
        // SAFETY: a thread is suspended there, as `prepare` or an earlier `switch` has left it.
        unsafe { switch(self.sp.get(), sp) };
    }

    /// As [`switch`](Self::switch), by a thread that ends: nobody switches to `self` before it is prepared anew.
    ///
    /// # Safety
    /// As for [`switch`](Self::switch).
    pub(crate) unsafe fn leave(&self, to: &Self) {
        // SAFETY: as promised by the caller.
        unsafe { self.switch(to) };
    }
}

/// What a thread does first: nothing to do here, where its CPU is the one that switched to it.
pub(crate) fn enter(_cpu: CpuId, _platform: *const ()) {}

/// The CPU of `platform` that the caller stands in for: never one here, where a CPU's threads run on it.
#[inline]
pub(crate) fn stand_in(_platform: *const ()) -> Option<CpuId> {
    None
}
