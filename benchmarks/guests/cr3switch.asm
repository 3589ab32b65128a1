; cr3switch: what a switch of address space costs.
;
; Two address spaces, A and B, share the kernel's first 4 MB and differ in 16 pages of data. Region 0: a kernel loop of writes to
; CR3, alternately. Region 1: the same, and after each switch one word of each of the 16 pages is read. One iteration
; is one switch.
;
; It teaches why the second figure is the one that counts: the write itself is cheap, the TLB that it empties is not, and a
; VMM with shadow tables must find or build another shadow for what the guest switched to.
;
; Checks: the sum of the words read tells which frames were seen, in every iteration.

%define GUEST_NAME "cr3switch"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

TOUCHED     equ 16                          ; pages
%include "spaces.inc"

        section .text
guest_main:
        call    spaces_init
        call    switch_alone
        call    switch_and_touch
        jmp     pass

switch_alone:
        mov     ecx, page_directory_a
        mov     ebx, page_directory_a
        xor     ebx, page_directory_b       ; what turns one value of CR3 into the other
        mov     eax, [iterations]
        mov     esi, eax
        REGION_BEGIN 0
.switch:
        xor     ecx, ebx                    ; the first switch is to B
        LOAD_CR3 ecx
        dec     esi
        jnz     .switch
        REGION_END
        READ_CR3 edx
        cmp     edx, ecx
        FAIL_IF ne, 1, "CR3 does not hold what was written"
        mov     edx, SUM_A
        test    eax, 1
        jz      .compare
        mov     edx, SUM_B
.compare:
        mov     esi, edx
        xor     edx, edx
        call    touch
        cmp     edx, esi
        FAIL_IF ne, 2, "the wrong address space after the switches"
        ret

touch:
        TOUCH_ALL
        ret

switch_and_touch:
        mov     ecx, page_directory_a
        mov     ebx, page_directory_a
        xor     ebx, page_directory_b       ; what turns one value of CR3 into the other
        mov     eax, [iterations]
        mov     esi, eax
        REGION_BEGIN 1                      ; EDX starts at 1
.switch:
        xor     ecx, ebx
        LOAD_CR3 ecx
        TOUCH_ALL
        dec     esi
        jnz     .switch
        REGION_END
        dec     edx
        mov     ecx, eax
        shr     eax, 1                      ; visits of A; B was visited as often, once more if the number is odd
        sub     ecx, eax
        imul    eax, eax, SUM_A
        imul    ecx, ecx, SUM_B
        add     eax, ecx
        cmp     eax, edx
        FAIL_IF ne, 3, "a page showed the other address space"
        ret
