; alu: how fast the simulator runs a loop in registers.
;
; Region 0: one iteration is one block of 1000 passes over ALU instructions: add, sub, xor, and, shifts, rotates, lea,
; cmp, test, two branches that depend on the data, dec. Kernel mode, paging on, no memory operand but one sum in each block.
;
; This guest is for `bench speed`; on each machine and under each technique it should cost the same.
;
; Checks: each block starts from the same registers and must end with the same ones. The expected value comes from a model
; of this loop in Python (tests/test_guest_images.py).

%define GUEST_NAME "alu"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

PASSES       equ 1000
SEED_A       equ 0x00000001
SEED_B       equ 0x9E3779B9
SEED_C       equ 0x2545F491
BLOCK_RESULT equ 0xC6E2502F

        section .text
guest_main:
        mov     esi, [iterations]
        REGION_BEGIN 0
        align   16
.block:
        mov     eax, SEED_A
        mov     ebx, SEED_B
        mov     ecx, SEED_C
        xor     edx, edx
        mov     ebp, PASSES
.pass:
        add     eax, ebx
        xor     ecx, eax
        mov     edi, ecx
        shr     edi, 7
        lea     ebx, [ebx + edi * 4 + 3]
        sub     edx, eax
        cmp     eax, ecx
        jb      .below
        xor     eax, edi
        ror     eax, 5
.below:
        add     ecx, edx
        and     edi, 0x0F0F0F0F
        lea     edx, [edx + edi + 1]
        shl     edi, 3
        xor     ebx, edi
        test    edx, 64
        jz      .clear
        sub     ebx, ecx
.clear:
        dec     ebp
        jnz     .pass
        xor     eax, ebx
        xor     eax, ecx
        xor     eax, edx
        add     [sum], eax
        dec     esi
        jnz     .block
        mov     eax, [iterations]
        REGION_END
        imul    eax, eax, BLOCK_RESULT
        cmp     eax, [sum]
        FAIL_IF ne, 1, "a block ended with other registers"
        jmp     pass

        section .data
        align   4
sum:
        dd      0
