//! The switch on x86_64, by the System V ABI.

use core::arch::naked_asm;

/// How many words a new thread's first switch finds, from low to high: the control words (where there are any), r15, r14,
/// r13, r12, rbx, rbp, where to return to, and zeroes that end a back trace that goes by frames. The top of the stack is
/// aligned, and two words are left above what `ret` pops: `begin` calls with an aligned stack.
pub(super) const FRAME: usize = FP_WORDS + 6 + 1 + 2;
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

/// A frame that returns to [`begin`], which calls `main(argument)`.
pub(super) fn first_frame(main: u64, argument: u64) -> [u64; FRAME] {
    let mut frame = [0; FRAME];
    let [fp @ .., _, _, r13, r12, _, _, back, _, _] = &mut frame;
    fp.fill(FP_CONTROL);
    *r13 = main;
    *r12 = argument;
    *back = begin as *const () as usize as u64;
    frame
}

/// Pushes what the ABI says that a call preserves, writes the stack pointer to `*from`, and returns into `to`.
///
/// # Safety
/// `from` is valid for a write, and `to` is a stack pointer that an earlier call has written there, or that of a
/// [`first_frame`] at the top of a stack.
#[unsafe(naked)]
pub(super) unsafe extern "sysv64" fn switch(from: *mut *mut u64, to: *mut u64) {
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
