# Where the machine comes in: the boot CPU by PVH, the others from the trampoline; both in 32 bits without paging.
# `boot.rs` explains what Rust finds.

.section .note.pvh, "a", @note
.balign 4
.long 4, 8, 18                  # sizes of name and value; XEN_ELFNOTE_PHYS32_ENTRY
.asciz "Xen"
.quad pvh_start

.section .boot.text, "ax", @progbits
.code32

# %ebx: the start info.
.globl pvh_start
pvh_start:
    cli
    cld
    movl $__bss_start, %edi
    movl $__bss_end, %ecx
    subl %edi, %ecx
    shrl $2, %ecx
    xorl %eax, %eax
    rep stosl

    # The first 4 GiB, one to one, in pages of 2 MiB; `memory::activate` puts better tables in place.
    movl $(boot_pdpt + 3), boot_pml4
    movl $(boot_pds + 3), %eax
    movl $boot_pdpt, %edi
    movl $4, %ecx
1:  movl %eax, (%edi)
    addl $4096, %eax
    addl $8, %edi
    loop 1b
    movl $0x83, %eax            # present, writable, 2 MiB
    movl $boot_pds, %edi
    movl $2048, %ecx
2:  movl %eax, (%edi)
    addl $0x200000, %eax
    addl $8, %edi
    loop 2b

    movl $boot_stack_top, %esp
    call enter_long_mode
    ljmp $0x08, $boot64

# An AP comes here from the trampoline, with flat segments. Its own stack may be where neither 32 bits nor the boot's tables
# reach, so until the final tables are in place it runs on one of the image: APs start one at a time.
.globl ap_start32
ap_start32:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $ap_boot_stack_top, %esp
    call enter_long_mode
    ljmp $0x08, $ap64

# Turns paging and long mode on; what follows runs in the compatibility mode until a far jump.
enter_long_mode:
    lgdt boot_gdt_pointer
    movl %cr4, %eax
    orl $0x20, %eax             # PAE
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # EFER: LME, NXE
    rdmsr
    orl $0x900, %eax
    wrmsr
    movl %cr0, %eax
    andl $0x9ffffff3, %eax      # caches on; no EM, no TS
    orl $0x80010003, %eax       # PG, WP, MP, PE
    movl %eax, %cr0
    ret

.code64
boot64:
    call load_data_segments
    movq $boot_stack_top, %rsp
    xorl %ebp, %ebp
    movl %ebx, %edi
    call boot_cpu_main
    ud2

ap64:
    call load_data_segments
    movq $ap_boot_stack_top, %rsp
    xorl %ebp, %ebp
    call ap_activate
    movq ap_stack_top, %rsp
    movq ap_argument, %rdi
    call other_cpu_main
    ud2

load_data_segments:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    ret

.section .rodata
.balign 8
.globl boot_gdt
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 0x08: code, 64 bits
    .quad 0x00cf93000000ffff    # 0x10: data
    .quad 0x00cf9b000000ffff    # 0x18: code, 32 bits
boot_gdt_pointer:
    .word 31
    .long boot_gdt

.section .bss
.balign 4096
boot_pml4:  .skip 4096
boot_pdpt:  .skip 4096
boot_pds:   .skip 4 * 4096
.globl boot_stack_guard, boot_stack_top
boot_stack_guard: .skip 4096
boot_stack: .skip 128 * 1024
boot_stack_top:
ap_boot_stack: .skip 4096
ap_boot_stack_top:
.globl ap_stack_top, ap_argument
ap_stack_top: .skip 8
ap_argument: .skip 8
