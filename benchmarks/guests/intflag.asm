; intflag: what it costs to close and open the window for interrupts.
;
; Region 0: a loop of CLI and STI in the kernel. One iteration is one such pair. No device asks for an interrupt, so
; nothing is ever delivered.
;
; It teaches what a technique does with an instruction that only touches the virtual processor's flags: a trap each, or
; a store in its place.
;
; Checks: no pair went missing.

%define GUEST_NAME "intflag"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

        section .text
guest_main:
        DISABLE_INTERRUPTS              ; one pair before the region, so that code and tables are warm
        ENABLE_INTERRUPTS
        mov     esi, [iterations]
        xor     eax, eax
        REGION_BEGIN 0
.again:
        DISABLE_INTERRUPTS
        ENABLE_INTERRUPTS
        inc     eax
        dec     esi
        jnz     .again
        REGION_END
        DISABLE_INTERRUPTS
        cmp     eax, [iterations]
        FAIL_IF ne, 1, "pairs went missing"
        jmp     pass
