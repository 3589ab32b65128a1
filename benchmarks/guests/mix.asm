; mix: how fast the simulator runs ordinary work on memory.
;
; Region 0: one iteration fills an array of 128 dwords and sorts it (insertion sort), sieves the primes below 8192 in an
; array of bytes, copies 16 KB dword by dword, and folds what came out into a sum. Kernel mode, paging on; about 11 pages
; of data; ordinary loads and stores, no string instructions.
;
; This guest is for `bench speed`; on each machine and under each technique it should cost the same.
;
; Checks: the array is in order; 1028 primes; the sum over all iterations is that of a model of this file in Python
; (tests/test_guest_images.py).

%define GUEST_NAME "mix"
%define DEFAULT_ITERATIONS 10
%include "kernel.inc"
%include "mix_pass.inc"

        section .text
guest_main:
        call    source_fill
        mov     eax, [iterations]
        mov     [passes_left], eax
        REGION_BEGIN 0
.pass:
        MIX_PASS
        dec     dword [passes_left]
        jnz     .pass
        mov     eax, [iterations]
        REGION_END
        imul    eax, eax, PASS_RESULT
        cmp     eax, [sum]
        FAIL_IF ne, 1, "the sum is wrong"
        cmp     dword [primes], PRIMES
        FAIL_IF ne, 2, "another number of primes below 8192"
        mov     ecx, SORT_ITEMS - 1
.ordered:
        mov     eax, [array + ecx * 4 - 4]
        cmp     eax, [array + ecx * 4]
        FAIL_IF a, 3, "the array is not in order"
        dec     ecx
        jnz     .ordered
        jmp     pass

        section .data
passes_left:
        dd      0
