//! The switch on aarch64, by the procedure call standard (AAPCS64).

use core::arch::naked_asm;

/// How many words a suspended thread's stack pointer leads to, from low to high: d8 to d15, fpcr and nothing (where there
/// is floating point); x19 to x28; the frame pointer, and where to go on.
pub(super) const FRAME: usize = FP_WORDS + 12;
const FP_WORDS: usize = if cfg!(target_feature = "neon") { 10 } else { 0 };

// The stack pointer is aligned to 16 bytes at every instruction that uses it: the CPU may insist.
const _: () = assert!(FRAME.is_multiple_of(2));

// Of a vector register a call preserves the lower half. A control register is slow to write, and seldom another.
#[cfg(target_feature = "neon")]
macro_rules! save_fp {
    () => {
        "mrs x9, fpcr
        stp d8, d9, [sp, #-80]!
        stp d10, d11, [sp, #16]
        stp d12, d13, [sp, #32]
        stp d14, d15, [sp, #48]
        str x9, [sp, #64]"
    };
}
#[cfg(target_feature = "neon")]
macro_rules! load_fp {
    () => {
        "ldr x9, [sp, #64]
        mrs x10, fpcr
        cmp x9, x10
        b.eq 2f
        msr fpcr, x9
        2:
        ldp d10, d11, [sp, #16]
        ldp d12, d13, [sp, #32]
        ldp d14, d15, [sp, #48]
        ldp d8, d9, [sp], #80"
    };
}
#[cfg(not(target_feature = "neon"))]
macro_rules! save_fp {
    () => {
        ""
    };
}
#[cfg(not(target_feature = "neon"))]
macro_rules! load_fp {
    () => {
        ""
    };
}

/// A frame that returns to [`begin`], which calls `main(argument)`. Its floating-point control is the default, 0.
pub(super) fn first_frame(main: u64, argument: u64) -> [u64; FRAME] {
    let mut frame = [0; FRAME];
    let [.., x19, x20, _, _, _, _, _, _, _, _, _, back] = &mut frame;
    *x19 = argument;
    *x20 = main;
    *back = begin as *const () as usize as u64;
    frame
}

/// Pushes what the ABI says that a call preserves, writes the stack pointer to `*from`, and returns into `to`.
///
/// # Safety
/// `from` is valid for a write, and `to` is a stack pointer that an earlier call has written there, or that of a
/// [`first_frame`] at the top of a stack.
#[unsafe(naked)]
pub(super) unsafe extern "C" fn switch(from: *mut *mut u64, to: *mut u64) {
    naked_asm!(
        "stp x19, x20, [sp, #-96]!",
        "stp x21, x22, [sp, #16]",
        "stp x23, x24, [sp, #32]",
        "stp x25, x26, [sp, #48]",
        "stp x27, x28, [sp, #64]",
        "stp x29, x30, [sp, #80]",
        save_fp!(),
        "mov x9, sp",
        "str x9, [x0]",
        "mov sp, x1",
        load_fp!(),
        "ldp x21, x22, [sp, #16]",
        "ldp x23, x24, [sp, #32]",
        "ldp x25, x26, [sp, #48]",
        "ldp x27, x28, [sp, #64]",
        "ldp x29, x30, [sp, #80]",
        "ldp x19, x20, [sp], #96",
        "ret",
    )
}

/// Where a new thread's first switch returns to. An unwinder that comes here is told that there is no caller; one that
/// goes by frames finds a frame pointer of 0.
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    naked_asm!(".cfi_startproc", ".cfi_undefined x30", "mov x0, x19", "blr x20", "brk #1", ".cfi_endproc",)
}
