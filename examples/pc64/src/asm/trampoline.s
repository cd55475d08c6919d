# Where an AP wakes up: copied below 1 MiB, entered in real mode with %cs:0 at its first byte. It knows no address of its
# own but %cs, and leaves for the kernel's 32-bit code.

.section .rodata
.globl trampoline_start, trampoline_end
trampoline_start:
.code16
    cli
    movw %cs, %ax
    movw %ax, %ds
    lgdtl trampoline_gdt_pointer - trampoline_start
    movl %cr0, %eax
    orb $1, %al
    movl %eax, %cr0
    ljmpl $0x18, $ap_start32
.balign 4
trampoline_gdt_pointer:
    .word 31
    .long boot_gdt
trampoline_end:
.code64
