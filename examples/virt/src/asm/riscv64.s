# Where the machine comes in (M mode), and what it interrupts. `riscv64.rs` explains what Rust finds.

# The assembler does not know what the target has.
.option arch, +m, +d

.section .text.entry, "ax"

# Every CPU at once; a1: where the device tree is. QEMU has put zeroes where the image says so.
.globl entry
entry:
    la      t0, trap
    csrw    mtvec, t0
    li      t0, 1 << 13                 # mstatus.FS: floating point
    csrs    mstatus, t0
    li      t0, (1 << 3) | (1 << 7)     # mie: IPIs, the timer
    csrw    mie, t0
    csrr    t0, mhartid
    li      t1, {most}
1:  bgeu    t0, t1, 1b                  # no stack for it, and nobody counts on it
    la      sp, boot_stacks
    addi    t1, t0, 1
    li      t2, {stack_bytes}
    mul     t1, t1, t2
    add     sp, sp, t1
    li      s0, 0
    mv      a0, a1
    beqz    t0, boot_cpu
    # The others wait for an IPI, which they do not take.
2:  wfi
    csrr    t0, mip
    andi    t0, t0, 1 << 3
    beqz    t0, 2b
    fence   i, rw
    call    other_cpu

# Saves all that Rust may change, for it is built with floating point, and what a switch in a handler would lose.
.balign 4
trap:
    addi    sp, sp, -320
    sd      ra, 0(sp)
    sd      t0, 8(sp)
    sd      t1, 16(sp)
    sd      t2, 24(sp)
    sd      t3, 32(sp)
    sd      t4, 40(sp)
    sd      t5, 48(sp)
    sd      t6, 56(sp)
    sd      a0, 64(sp)
    sd      a1, 72(sp)
    sd      a2, 80(sp)
    sd      a3, 88(sp)
    sd      a4, 96(sp)
    sd      a5, 104(sp)
    sd      a6, 112(sp)
    sd      a7, 120(sp)
    fsd     ft0, 128(sp)
    fsd     ft1, 136(sp)
    fsd     ft2, 144(sp)
    fsd     ft3, 152(sp)
    fsd     ft4, 160(sp)
    fsd     ft5, 168(sp)
    fsd     ft6, 176(sp)
    fsd     ft7, 184(sp)
    fsd     ft8, 192(sp)
    fsd     ft9, 200(sp)
    fsd     ft10, 208(sp)
    fsd     ft11, 216(sp)
    fsd     fa0, 224(sp)
    fsd     fa1, 232(sp)
    fsd     fa2, 240(sp)
    fsd     fa3, 248(sp)
    fsd     fa4, 256(sp)
    fsd     fa5, 264(sp)
    fsd     fa6, 272(sp)
    fsd     fa7, 280(sp)
    csrr    a0, mcause
    csrr    a1, mepc
    csrr    t0, mstatus
    frcsr   t1
    sd      a1, 288(sp)
    sd      t0, 296(sp)
    sd      t1, 304(sp)
    call    interrupt_entry
    ld      a1, 288(sp)
    ld      t0, 296(sp)
    ld      t1, 304(sp)
    csrw    mepc, a1
    csrw    mstatus, t0
    fscsr   t1
    ld      ra, 0(sp)
    ld      t0, 8(sp)
    ld      t1, 16(sp)
    ld      t2, 24(sp)
    ld      t3, 32(sp)
    ld      t4, 40(sp)
    ld      t5, 48(sp)
    ld      t6, 56(sp)
    ld      a0, 64(sp)
    ld      a1, 72(sp)
    ld      a2, 80(sp)
    ld      a3, 88(sp)
    ld      a4, 96(sp)
    ld      a5, 104(sp)
    ld      a6, 112(sp)
    ld      a7, 120(sp)
    fld     ft0, 128(sp)
    fld     ft1, 136(sp)
    fld     ft2, 144(sp)
    fld     ft3, 152(sp)
    fld     ft4, 160(sp)
    fld     ft5, 168(sp)
    fld     ft6, 176(sp)
    fld     ft7, 184(sp)
    fld     ft8, 192(sp)
    fld     ft9, 200(sp)
    fld     ft10, 208(sp)
    fld     ft11, 216(sp)
    fld     fa0, 224(sp)
    fld     fa1, 232(sp)
    fld     fa2, 240(sp)
    fld     fa3, 248(sp)
    fld     fa4, 256(sp)
    fld     fa5, 264(sp)
    fld     fa6, 272(sp)
    fld     fa7, 280(sp)
    addi    sp, sp, 320
    mret

# Calls a0 with a1, while every register that a call preserves holds a number of its own, counted from a2 on, and two bits
# of a2 are the rounding mode. Returns what has changed: 0 if nothing has.
.globl hold_registers
hold_registers:
    addi    sp, sp, -224
    sd      ra, 0(sp)
    sd      s0, 8(sp)
    sd      s1, 16(sp)
    sd      s2, 24(sp)
    sd      s3, 32(sp)
    sd      s4, 40(sp)
    sd      s5, 48(sp)
    sd      s6, 56(sp)
    sd      s7, 64(sp)
    sd      s8, 72(sp)
    sd      s9, 80(sp)
    sd      s10, 88(sp)
    sd      s11, 96(sp)
    fsd     fs0, 104(sp)
    fsd     fs1, 112(sp)
    fsd     fs2, 120(sp)
    fsd     fs3, 128(sp)
    fsd     fs4, 136(sp)
    fsd     fs5, 144(sp)
    fsd     fs6, 152(sp)
    fsd     fs7, 160(sp)
    fsd     fs8, 168(sp)
    fsd     fs9, 176(sp)
    fsd     fs10, 184(sp)
    fsd     fs11, 192(sp)
    sd      a2, 200(sp)
    frrm    t0
    sd      t0, 208(sp)
    addi    s0, a2, 0
    addi    s1, a2, 1
    addi    s2, a2, 2
    addi    s3, a2, 3
    addi    s4, a2, 4
    addi    s5, a2, 5
    addi    s6, a2, 6
    addi    s7, a2, 7
    addi    s8, a2, 8
    addi    s9, a2, 9
    addi    s10, a2, 10
    addi    s11, a2, 11
    addi    t0, a2, 100
    fmv.d.x fs0, t0
    addi    t0, a2, 101
    fmv.d.x fs1, t0
    addi    t0, a2, 102
    fmv.d.x fs2, t0
    addi    t0, a2, 103
    fmv.d.x fs3, t0
    addi    t0, a2, 104
    fmv.d.x fs4, t0
    addi    t0, a2, 105
    fmv.d.x fs5, t0
    addi    t0, a2, 106
    fmv.d.x fs6, t0
    addi    t0, a2, 107
    fmv.d.x fs7, t0
    addi    t0, a2, 108
    fmv.d.x fs8, t0
    addi    t0, a2, 109
    fmv.d.x fs9, t0
    addi    t0, a2, 110
    fmv.d.x fs10, t0
    addi    t0, a2, 111
    fmv.d.x fs11, t0
    andi    t0, a2, 3
    fsrm    t0
    mv      t0, a0
    mv      a0, a1
    jalr    t0
    ld      a2, 200(sp)
    li      a0, 0
    addi    t0, a2, 0
    xor     t0, t0, s0
    or      a0, a0, t0
    addi    t0, a2, 1
    xor     t0, t0, s1
    or      a0, a0, t0
    addi    t0, a2, 2
    xor     t0, t0, s2
    or      a0, a0, t0
    addi    t0, a2, 3
    xor     t0, t0, s3
    or      a0, a0, t0
    addi    t0, a2, 4
    xor     t0, t0, s4
    or      a0, a0, t0
    addi    t0, a2, 5
    xor     t0, t0, s5
    or      a0, a0, t0
    addi    t0, a2, 6
    xor     t0, t0, s6
    or      a0, a0, t0
    addi    t0, a2, 7
    xor     t0, t0, s7
    or      a0, a0, t0
    addi    t0, a2, 8
    xor     t0, t0, s8
    or      a0, a0, t0
    addi    t0, a2, 9
    xor     t0, t0, s9
    or      a0, a0, t0
    addi    t0, a2, 10
    xor     t0, t0, s10
    or      a0, a0, t0
    addi    t0, a2, 11
    xor     t0, t0, s11
    or      a0, a0, t0
    addi    t0, a2, 100
    fmv.x.d t1, fs0
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 101
    fmv.x.d t1, fs1
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 102
    fmv.x.d t1, fs2
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 103
    fmv.x.d t1, fs3
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 104
    fmv.x.d t1, fs4
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 105
    fmv.x.d t1, fs5
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 106
    fmv.x.d t1, fs6
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 107
    fmv.x.d t1, fs7
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 108
    fmv.x.d t1, fs8
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 109
    fmv.x.d t1, fs9
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 110
    fmv.x.d t1, fs10
    xor     t0, t0, t1
    or      a0, a0, t0
    addi    t0, a2, 111
    fmv.x.d t1, fs11
    xor     t0, t0, t1
    or      a0, a0, t0
    andi    t0, a2, 3
    frrm    t1
    xor     t0, t0, t1
    or      a0, a0, t0
    ld      t0, 208(sp)
    fsrm    t0
    ld      ra, 0(sp)
    ld      s0, 8(sp)
    ld      s1, 16(sp)
    ld      s2, 24(sp)
    ld      s3, 32(sp)
    ld      s4, 40(sp)
    ld      s5, 48(sp)
    ld      s6, 56(sp)
    ld      s7, 64(sp)
    ld      s8, 72(sp)
    ld      s9, 80(sp)
    ld      s10, 88(sp)
    ld      s11, 96(sp)
    fld     fs0, 104(sp)
    fld     fs1, 112(sp)
    fld     fs2, 120(sp)
    fld     fs3, 128(sp)
    fld     fs4, 136(sp)
    fld     fs5, 144(sp)
    fld     fs6, 152(sp)
    fld     fs7, 160(sp)
    fld     fs8, 168(sp)
    fld     fs9, 176(sp)
    fld     fs10, 184(sp)
    fld     fs11, 192(sp)
    addi    sp, sp, 224
    ret

.section .bss
.balign 4096
boot_stacks:
    .skip   {most} * {stack_bytes}
