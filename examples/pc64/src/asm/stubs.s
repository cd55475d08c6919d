# One stub of 16 bytes for each of the 256 vectors, all of the same form: an error code, the vector, then `common`.
# The frame is `interrupts::Frame`. The CPU switched to one of its interrupt stacks, whose top is aligned to 16 bytes;
# the target uses neither red zone nor vector registers. `interrupt_entry` says whether the scheduler is to have the CPU.

.section .text
.balign 16
.globl interrupt_stubs
interrupt_stubs:
.set vector, 0
.rept 256
    .balign 16
    .if vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30
    .else
    pushq $0
    .endif
    pushq $vector
    jmp interrupt_common
    .set vector, vector + 1
.endr

.balign 16
interrupt_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rbx
    pushq %rbp
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    cld
    movq %rsp, %rdi
    call interrupt_entry
    testb %al, %al
    jz 1f
    # Another thread may run before this one goes on, and then other interrupts need this stack: on with the thread's own,
    # where the frame moves to.
    movq 160(%rsp), %rdi        # Frame::rsp
    subq $176, %rdi
    andq $-16, %rdi
    movq %rdi, %rbx
    movq %rsp, %rsi
    movl $22, %ecx
    rep movsq
    movq %rbx, %rsp
    call interrupt_exit
1:  popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rbp
    popq %rbx
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
