// Where the machine comes in (EL1, no translation), and what it interrupts. `aarch64.rs` explains what Rust finds.

.section .text.entry, "ax"

// The boot CPU. QEMU has put the device tree at the start of memory, and zeroes where the image says so.
.globl entry
entry:
    bl      set_up
    mov     x0, #0
    bl      use_own_stack
    mov     x0, #0x40000000
    b       boot_cpu

// Another CPU, by PSCI; x0: its number.
.globl other_entry
other_entry:
    mov     x19, x0
    bl      set_up
    mov     x0, x19
    bl      use_own_stack
    b       other_cpu

use_own_stack:
    adrp    x1, boot_stacks
    add     x1, x1, :lo12:boot_stacks
    add     x0, x0, #1
    mov     x2, #{stack_bytes}
    madd    x1, x0, x2, x1
    mov     sp, x1
    mov     x29, xzr
    ret

// Vectors, floating point, and memory one to one: a gigabyte of devices, and one of memory. Without translation all of it
// would be a device's, where atomics need not work.
set_up:
    msr     spsel, #1
    adrp    x1, vectors
    add     x1, x1, :lo12:vectors
    msr     vbar_el1, x1
    mov     x1, #(3 << 20)
    msr     cpacr_el1, x1
    ldr     x1, =0xff00             // attributes: 0: device, 1: cached
    msr     mair_el1, x1
    ldr     x1, =0x100803519        // 39 bits of addresses, 4 KiB pages, tables cached and shared; physical: 36 bits
    msr     tcr_el1, x1
    adrp    x1, table
    add     x1, x1, :lo12:table
    msr     ttbr0_el1, x1
    isb
    tlbi    vmalle1
    dsb     nsh
    isb
    mrs     x1, sctlr_el1
    ldr     x2, =0x1005             // translation, data cache, instruction cache
    orr     x1, x1, x2
    msr     sctlr_el1, x1
    isb
    ret

// 16 entries of 128 bytes. Those of this exception level on its own stack: synchronous, IRQ, FIQ, system error.
.balign 2048
vectors:
.set index, 0
.rept 16
    .balign 128
    sub     sp, sp, #720
    stp     x0, x1, [sp]
    mov     x0, #index
    b       common
    .set index, index + 1
.endr

// Saves all that Rust may change, for it is built with floating point, and what a switch in a handler would lose.
.balign 128
common:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x29, [sp, #144]
    mrs     x1, elr_el1
    mrs     x2, spsr_el1
    stp     x30, x1, [sp, #160]
    mrs     x3, fpcr
    stp     x2, x3, [sp, #176]
    mrs     x4, fpsr
    str     x4, [sp, #192]
    stp     q0, q1, [sp, #208]
    stp     q2, q3, [sp, #240]
    stp     q4, q5, [sp, #272]
    stp     q6, q7, [sp, #304]
    stp     q8, q9, [sp, #336]
    stp     q10, q11, [sp, #368]
    stp     q12, q13, [sp, #400]
    stp     q14, q15, [sp, #432]
    stp     q16, q17, [sp, #464]
    stp     q18, q19, [sp, #496]
    stp     q20, q21, [sp, #528]
    stp     q22, q23, [sp, #560]
    stp     q24, q25, [sp, #592]
    stp     q26, q27, [sp, #624]
    stp     q28, q29, [sp, #656]
    stp     q30, q31, [sp, #688]
    bl      interrupt_entry
    ldp     q0, q1, [sp, #208]
    ldp     q2, q3, [sp, #240]
    ldp     q4, q5, [sp, #272]
    ldp     q6, q7, [sp, #304]
    ldp     q8, q9, [sp, #336]
    ldp     q10, q11, [sp, #368]
    ldp     q12, q13, [sp, #400]
    ldp     q14, q15, [sp, #432]
    ldp     q16, q17, [sp, #464]
    ldp     q18, q19, [sp, #496]
    ldp     q20, q21, [sp, #528]
    ldp     q22, q23, [sp, #560]
    ldp     q24, q25, [sp, #592]
    ldp     q26, q27, [sp, #624]
    ldp     q28, q29, [sp, #656]
    ldp     q30, q31, [sp, #688]
    ldr     x4, [sp, #192]
    msr     fpsr, x4
    ldp     x2, x3, [sp, #176]
    msr     fpcr, x3
    ldp     x30, x1, [sp, #160]
    msr     spsr_el1, x2
    msr     elr_el1, x1
    ldp     x18, x29, [sp, #144]
    ldp     x16, x17, [sp, #128]
    ldp     x14, x15, [sp, #112]
    ldp     x12, x13, [sp, #96]
    ldp     x10, x11, [sp, #80]
    ldp     x8, x9, [sp, #64]
    ldp     x6, x7, [sp, #48]
    ldp     x4, x5, [sp, #32]
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp]
    add     sp, sp, #720
    eret

// Calls x0 with x1, while every register that a call preserves holds a number of its own, counted from x2 on, and two bits
// of x2 are the rounding mode. Returns what has changed: 0 if nothing has.
.globl hold_registers
hold_registers:
    stp     x29, x30, [sp, #-176]!
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    stp     d8, d9, [sp, #96]
    stp     d10, d11, [sp, #112]
    stp     d12, d13, [sp, #128]
    stp     d14, d15, [sp, #144]
    mrs     x9, fpcr
    stp     x2, x9, [sp, #160]
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28
    add     x\n, x2, #\n
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    add     x9, x2, #(100 + \n)
    fmov    d\n, x9
    .endr
    and     x9, x2, #3
    lsl     x9, x9, #22
    msr     fpcr, x9
    mov     x9, x0
    mov     x0, x1
    blr     x9
    ldp     x2, x11, [sp, #160]
    mov     x0, xzr
    .irp n, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28
    sub     x\n, x\n, x2
    sub     x\n, x\n, #\n
    orr     x0, x0, x\n
    .endr
    .irp n, 8, 9, 10, 11, 12, 13, 14, 15
    fmov    x9, d\n
    sub     x9, x9, x2
    sub     x9, x9, #(100 + \n)
    orr     x0, x0, x9
    .endr
    mrs     x9, fpcr
    and     x10, x2, #3
    eor     x9, x10, x9, lsr #22
    orr     x0, x0, x9
    msr     fpcr, x11
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     d8, d9, [sp, #96]
    ldp     d10, d11, [sp, #112]
    ldp     d12, d13, [sp, #128]
    ldp     d14, d15, [sp, #144]
    ldp     x29, x30, [sp], #176
    ret

.section .rodata
.balign 4096
table:
    .quad   0x00000000 | 0x0060000000000401     // devices: accessed, never executed
    .quad   0x40000000 | 0x705                  // memory: accessed, shared, cached
    .skip   4096 - 16

.section .bss
.balign 4096
boot_stacks:
    .skip   {most} * {stack_bytes}
