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

SORT_ITEMS   equ 128
SIEVE_LIMIT  equ 8192
PRIMES       equ 1028                       ; pi(8192)
COPY_ITEMS   equ 4096
SEED         equ 0x2545F491
LCG_FACTOR   equ 1664525                    ; Numerical Recipes' generator
LCG_STEP     equ 1013904223
PASS_RESULT  equ 0x3FA9DBE5

        section .text
guest_main:
        call    source_fill
        mov     eax, [iterations]
        mov     [passes_left], eax
        REGION_BEGIN 0
.pass:
        call    array_fill
        call    array_sort
        call    sieve
        call    copy
        call    fold
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

; What is copied: the generator's next 4096 values. Not measured.
source_fill:
        mov     eax, SEED
        xor     ecx, ecx
.item:
        imul    eax, eax, LCG_FACTOR
        add     eax, LCG_STEP
        mov     [copy_source + ecx * 4], eax
        inc     ecx
        cmp     ecx, COPY_ITEMS
        jb      .item
        ret

array_fill:
        mov     eax, SEED
        xor     ecx, ecx
.item:
        imul    eax, eax, LCG_FACTOR
        add     eax, LCG_STEP
        mov     [array + ecx * 4], eax
        inc     ecx
        cmp     ecx, SORT_ITEMS
        jb      .item
        ret

; Insertion sort, unsigned.
array_sort:
        mov     ecx, 1
.item:
        mov     eax, [array + ecx * 4]
        mov     edx, ecx
.shift:
        mov     ebx, [array + edx * 4 - 4]
        cmp     ebx, eax
        jbe     .place
        mov     [array + edx * 4], ebx
        dec     edx
        jnz     .shift
.place:
        mov     [array + edx * 4], eax
        inc     ecx
        cmp     ecx, SORT_ITEMS
        jb      .item
        ret

; Sieve of Eratosthenes: flags[n] is 0 for a prime. Counts into [primes].
sieve:
        xor     ecx, ecx
.clear:
        mov     dword [flags + ecx], 0
        add     ecx, 4
        cmp     ecx, SIEVE_LIMIT
        jb      .clear
        xor     edx, edx                    ; primes found
        mov     ecx, 2
.number:
        cmp     byte [flags + ecx], 0
        jne     .next
        inc     edx
        lea     eax, [ecx + ecx]
        jmp     .bound
.mark:
        mov     byte [flags + eax], 1
        add     eax, ecx
.bound:
        cmp     eax, SIEVE_LIMIT
        jb      .mark
.next:
        inc     ecx
        cmp     ecx, SIEVE_LIMIT
        jb      .number
        mov     [primes], edx
        ret

copy:
        mov     esi, copy_source
        mov     edi, copy_target
        mov     ecx, COPY_ITEMS
.item:
        mov     eax, [esi]
        mov     [edi], eax
        add     esi, 4
        add     edi, 4
        dec     ecx
        jnz     .item
        ret

; [sum] += primes + the sum of rank * item over the array + the exclusive or of the copy.
fold:
        mov     eax, [primes]
        mov     ecx, SORT_ITEMS
.item:
        mov     ebx, [array + ecx * 4 - 4]
        imul    ebx, ecx
        add     eax, ebx
        dec     ecx
        jnz     .item
        xor     ebx, ebx
        mov     ecx, COPY_ITEMS
.word:
        xor     ebx, [copy_target + ecx * 4 - 4]
        dec     ecx
        jnz     .word
        add     eax, ebx
        add     [sum], eax
        ret

        section .data
        align   4
passes_left:
        dd      0
primes:
        dd      0
sum:
        dd      0

        section .bss
        alignb  4096
array:
        resd    SORT_ITEMS
        alignb  4096
flags:
        resb    SIEVE_LIMIT
copy_source:
        resd    COPY_ITEMS
copy_target:
        resd    COPY_ITEMS
