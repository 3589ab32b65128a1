; callret: what a call and its return cost.
;
; Region 0: a ring-3 loop of near CALL and RET. Region 1: the same loop in the kernel. One iteration is one call.
;
; It teaches the difference between techniques that let innocuous instructions run (all are, here: every ratio to the bare
; machine is 1) and binary translation, which must look up where each return goes, but in the kernel only.
;
; Checks: the callee ran as often as it was called, on both sides.

%define GUEST_NAME "callret"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

; One warming call, then the loop; %1 is the region. The callee counts in EAX, ESI counts the calls left.
%macro CALL_LOOP 1
        call    .callee
        xor     eax, eax
        REGION_BEGIN %1
.again:
        call    .callee
        dec     esi
        jnz     .again
        REGION_END
%endmacro

        section .text
guest_main:
        mov     eax, user_calls
        call    enter_user
        cmp     eax, [iterations]
        FAIL_IF ne, 1, "calls in ring 3 went missing"
        call    kernel_calls
        cmp     eax, [iterations]
        FAIL_IF ne, 2, "calls in the kernel went missing"
        jmp     pass

kernel_calls:
        mov     esi, [iterations]
        CALL_LOOP 1
        ret
        align   16
.callee:
        inc     eax
        ret

        section .user_text
user_calls:
        mov     esi, [user_iterations]
        CALL_LOOP 0
        jmp     user_exit
        align   16
.callee:
        inc     eax
        ret
