//! Threads on stacks of their own, switched by hand: System V ABI on x86_64.
//!
//! A suspended thread is its stack pointer; what a function call must preserve is on its stack. Interrupts may come at
//! any instruction: the stack pointer is always that of a whole stack.

use core::arch::naked_asm;
use core::cell::UnsafeCell;
use core::ptr;

use dfly_hal::CpuId;

use super::stack::Stack;

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

/// What a new thread's first switch pops, from low to high: the control words (where there are any), r15, r14, r13,
/// r12, rbx, rbp, where to return to, and zeroes that end a back trace that goes by frames.
const FRAME: usize = FP_WORDS + 6 + 1 + 2;
const FP_WORDS: usize = if cfg!(target_feature = "sse") { 1 } else { 0 };

/// The control words that a process starts with: mxcsr with all exceptions masked, and the x87's likewise.
const FP_CONTROL: u64 = 0x1f80 | 0x037f << 32;

// Kernels are built without floating point, and have no control words to keep.
#[cfg(target_feature = "sse")]
macro_rules! save_fp {
    () => {
        "sub rsp, 8\n stmxcsr [rsp]\n fnstcw [rsp + 4]"
    };
}
#[cfg(target_feature = "sse")]
macro_rules! load_fp {
    () => {
        "ldmxcsr [rsp]\n fldcw [rsp + 4]\n add rsp, 8"
    };
}
#[cfg(not(target_feature = "sse"))]
macro_rules! save_fp {
    () => {
        ""
    };
}
#[cfg(not(target_feature = "sse"))]
macro_rules! load_fp {
    () => {
        ""
    };
}

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
        let mut frame = [0_u64; FRAME];
        let [fp @ .., _, _, r13, r12, _, _, back, _, _] = &mut frame;
        fp.fill(FP_CONTROL);
        *r13 = main as usize as u64;
        *r12 = argument.expose_provenance() as u64;
        *back = begin as *const () as usize as u64;
        // The top is aligned, and two words are left above what `ret` pops: `begin` calls with an aligned stack.
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

/// Pushes what the ABI says that a call preserves, writes the stack pointer to `*from`, and returns into `to`.
///
/// # Safety
/// `from` is valid for a write, and `to` is a stack pointer that an earlier call has written there, or `prepare`.
#[unsafe(naked)]
unsafe extern "sysv64" fn switch(from: *mut *mut u64, to: *mut u64) {
    naked_asm!(
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        save_fp!(),
        "mov [rdi], rsp",
        "mov rsp, rsi",
        load_fp!(),
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "ret",
    )
}

/// Where a new thread's first switch returns to. An unwinder that comes here is told that there is no caller.
#[unsafe(naked)]
unsafe extern "sysv64" fn begin() {
    naked_asm!(".cfi_startproc", ".cfi_undefined rip", "mov rdi, r12", "call r13", "ud2", ".cfi_endproc",)
}
