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
%include "alu_block.inc"

        section .text
guest_main:
        mov     esi, [iterations]
        REGION_BEGIN 0
        align   16
.block:
        ALU_BLOCK
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
