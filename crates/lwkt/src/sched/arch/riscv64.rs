//! The switch on riscv64, by the calling conventions LP64 and LP64D.

use core::arch::naked_asm;

/// How many words a suspended thread's stack pointer leads to, from low to high: where to go on, s0 (the frame pointer) to
/// s11; then, where there is floating point, its rounding mode and fs0 to fs11, and else nothing.
pub(super) const FRAME: usize = 13 + FP_WORDS;
const FP_WORDS: usize = if cfg!(double_float) { 13 } else { 1 };

// The ABI wants the stack pointer aligned to 16 bytes.
const _: () = assert!(FRAME.is_multiple_of(2));

// The assembler of naked functions does not know what the target has.
#[cfg(double_float)]
macro_rules! save_fp {
    () => {
        ".option push
        .option arch, +d
        frrm t0
        sd t0, 104(sp)
        fsd fs0, 112(sp)
        fsd fs1, 120(sp)
        fsd fs2, 128(sp)
        fsd fs3, 136(sp)
        fsd fs4, 144(sp)
        fsd fs5, 152(sp)
        fsd fs6, 160(sp)
        fsd fs7, 168(sp)
        fsd fs8, 176(sp)
        fsd fs9, 184(sp)
        fsd fs10, 192(sp)
        fsd fs11, 200(sp)
        .option pop"
    };
}
#[cfg(double_float)]
macro_rules! load_fp {
    () => {
        ".option push
        .option arch, +d
        ld t0, 104(sp)
        fsrm t0
        fld fs0, 112(sp)
        fld fs1, 120(sp)
        fld fs2, 128(sp)
        fld fs3, 136(sp)
        fld fs4, 144(sp)
        fld fs5, 152(sp)
        fld fs6, 160(sp)
        fld fs7, 168(sp)
        fld fs8, 176(sp)
        fld fs9, 184(sp)
        fld fs10, 192(sp)
        fld fs11, 200(sp)
        .option pop"
    };
}
#[cfg(not(double_float))]
macro_rules! save_fp {
    () => {
        ""
    };
}
#[cfg(not(double_float))]
macro_rules! load_fp {
    () => {
        ""
    };
}

/// A frame that returns to [`begin`], which calls `main(argument)`. Its rounding mode is the default, 0.
pub(super) fn first_frame(main: u64, argument: u64) -> [u64; FRAME] {
    let mut frame = [0; FRAME];
    let [back, _, s1, s2, ..] = &mut frame;
    *back = begin as *const () as usize as u64;
    *s1 = argument;
    *s2 = main;
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
        "addi sp, sp, -{bytes}",
        "sd ra, 0(sp)",
        "sd s0, 8(sp)",
        "sd s1, 16(sp)",
        "sd s2, 24(sp)",
        "sd s3, 32(sp)",
        "sd s4, 40(sp)",
        "sd s5, 48(sp)",
        "sd s6, 56(sp)",
        "sd s7, 64(sp)",
        "sd s8, 72(sp)",
        "sd s9, 80(sp)",
        "sd s10, 88(sp)",
        "sd s11, 96(sp)",
        save_fp!(),
        "sd sp, 0(a0)",
        "mv sp, a1",
        load_fp!(),
        "ld ra, 0(sp)",
        "ld s0, 8(sp)",
        "ld s1, 16(sp)",
        "ld s2, 24(sp)",
        "ld s3, 32(sp)",
        "ld s4, 40(sp)",
        "ld s5, 48(sp)",
        "ld s6, 56(sp)",
        "ld s7, 64(sp)",
        "ld s8, 72(sp)",
        "ld s9, 80(sp)",
        "ld s10, 88(sp)",
        "ld s11, 96(sp)",
        "addi sp, sp, {bytes}",
        "ret",
        bytes = const 8 * FRAME,
    )
}

/// Where a new thread's first switch returns to. An unwinder that comes here is told that there is no caller; one that
/// goes by frames finds a frame pointer of 0.
#[unsafe(naked)]
unsafe extern "C" fn begin() {
    naked_asm!(".cfi_startproc", ".cfi_undefined ra", "mv a0, s1", "jalr s2", "unimp", ".cfi_endproc",)
}
