# Copying, filling and comparing memory in words of eight bytes: the target has no vector registers, an emulated machine
# runs `rep movsb` at a twentieth of this speed, and the compiler would turn such loops of Rust into calls of themselves.

.section .text
.balign 16
.globl memcpy, memmove
memmove:
    movq %rdi, %rax
    subq %rsi, %rax
    cmpq %rdx, %rax             # below: the destination begins inside the source
    jb move_down
memcpy:
    movq %rdi, %rax
    cmpq $64, %rdx
    jb 2f
1:  movq (%rsi), %rcx
    movq 8(%rsi), %r8
    movq 16(%rsi), %r9
    movq 24(%rsi), %r10
    movq %rcx, (%rdi)
    movq %r8, 8(%rdi)
    movq %r9, 16(%rdi)
    movq %r10, 24(%rdi)
    movq 32(%rsi), %rcx
    movq 40(%rsi), %r8
    movq 48(%rsi), %r9
    movq 56(%rsi), %r10
    movq %rcx, 32(%rdi)
    movq %r8, 40(%rdi)
    movq %r9, 48(%rdi)
    movq %r10, 56(%rdi)
    addq $64, %rsi
    addq $64, %rdi
    subq $64, %rdx
    cmpq $64, %rdx
    jae 1b
2:  subq $8, %rdx
    jb 4f
3:  movq (%rsi), %rcx
    movq %rcx, (%rdi)
    addq $8, %rsi
    addq $8, %rdi
    subq $8, %rdx
    jae 3b
4:  addq $8, %rdx
    jz 6f
5:  movb (%rsi), %cl
    movb %cl, (%rdi)
    incq %rsi
    incq %rdi
    decq %rdx
    jnz 5b
6:  ret

# Backwards, from the end.
move_down:
    movq %rdi, %rax
    subq $32, %rdx
    jb 2f
1:  movq 24(%rsi,%rdx), %rcx
    movq 16(%rsi,%rdx), %r8
    movq 8(%rsi,%rdx), %r9
    movq (%rsi,%rdx), %r10
    movq %rcx, 24(%rdi,%rdx)
    movq %r8, 16(%rdi,%rdx)
    movq %r9, 8(%rdi,%rdx)
    movq %r10, (%rdi,%rdx)
    subq $32, %rdx
    jae 1b
2:  addq $32, %rdx
    jz 4f
3:  movb -1(%rsi,%rdx), %cl
    movb %cl, -1(%rdi,%rdx)
    decq %rdx
    jnz 3b
4:  ret

.balign 16
.globl memset
memset:
    movq %rdi, %rax
    movzbl %sil, %ecx
    movabsq $0x0101010101010101, %r8
    imulq %r8, %rcx
    subq $32, %rdx
    jb 2f
1:  movq %rcx, (%rdi)
    movq %rcx, 8(%rdi)
    movq %rcx, 16(%rdi)
    movq %rcx, 24(%rdi)
    addq $32, %rdi
    subq $32, %rdx
    jae 1b
2:  addq $32, %rdx
    jz 4f
3:  movb %cl, (%rdi)
    incq %rdi
    decq %rdx
    jnz 3b
4:  ret

.balign 16
.globl memcmp, bcmp
memcmp:
bcmp:
    subq $8, %rdx
    jb 2f
1:  movq (%rdi), %rax
    movq (%rsi), %rcx
    cmpq %rcx, %rax
    jne 5f
    addq $8, %rdi
    addq $8, %rsi
    subq $8, %rdx
    jae 1b
2:  addq $8, %rdx
    jz 4f
3:  movzbl (%rdi), %eax
    movzbl (%rsi), %ecx
    subl %ecx, %eax
    jne 6f
    incq %rdi
    incq %rsi
    decq %rdx
    jnz 3b
4:  xorl %eax, %eax
    ret
5:  bswapq %rax                 # the first byte that differs decides
    bswapq %rcx
    cmpq %rcx, %rax
    sbbl %eax, %eax
    orl $1, %eax
6:  ret
