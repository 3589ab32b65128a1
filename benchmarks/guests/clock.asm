; clock: everything that tells a guest the time, and interrupts at any place.
;
; Nothing is measured. In each of `iterations` turns the kernel reads the time-stamp counter (RDTSC and RDMSR), the
; counter of 8254 channel 0 (latched) and port 0x61; a user program reads the time-stamp counter in ring 3; and blocks of
; 16 KB are copied by REP MOVSB, all of it while the timer interrupts about 20000 times a second. All that was read, and
; where each tick interrupted (EIP, and ECX, which says how far a copy had come), goes into two sums that are printed at
; the end.
;
; It teaches what of a run depends on time alone. The sums differ from machine to machine and from technique to technique:
; two runs can only be compared if one is given the interrupts and the values of the other (`x86virt run --record`,
; `--replay`, `x86virt compare`).
;
; It checks: the time-stamp counter never goes back, the timer's count is within its period, ticks came, copies are exact.

%define GUEST_NAME "clock"
%define DEFAULT_ITERATIONS 20
%include "kernel.inc"

MSR_TSC         equ 0x10
PORT_CONTROL    equ 0x61
LATCH_0         equ 0
BLOCK_BYTES     equ 16384
USER_READS      equ 100
CR4_TSD         equ 1 << 2

; FORBID_TIME_STAMPS 0 or 1: to ring 3. A VMM that owns CR4 has no such thing for a kernel that is not in ring 0. Clobbers EAX.
%macro FORBID_TIME_STAMPS 1
%ifndef XEN
        mov     eax, cr4
%if %1
        or      eax, CR4_TSD
%else
        and     eax, ~CR4_TSD
%endif
        mov     cr4, eax
%endif
%endmacro

; Add EAX to the sum at %1. Clobbers EDX.
%macro MIX 1
        mov     edx, [%1]
        rol     edx, 5
        xor     edx, eax
        mov     [%1], edx
%endmacro

        section .text
guest_main:
        mov     dword [trap_handlers + VECTOR_IRQ0 * 4], timer_tick
        mov     dword [trap_handlers + (VECTOR_IRQ0 + 7) * 4], spurious
        call    fill_block
        call    timer_start
        TIMER_RATE 20000                    ; faster than the library's
        ENABLE_INTERRUPTS
        mov     ecx, [iterations]
.turn:
        push    ecx
        call    read_stamps
        call    read_timer
        call    copy_block
        call    read_in_user
        pop     ecx
        dec     ecx
        jnz     .turn
.await:
        HALT                                ; at least one tick, however short the turns were
        cmp     dword [ticks], 0
        je      .await
        DISABLE_INTERRUPTS
        call    timer_stop
        PRINT   "read "
        mov     eax, [read_sum]
        call    print_hex
        PRINT   ", interrupted "
        mov     eax, [tick_sum]
        call    print_hex
        PRINT   10
        jmp     pass

; A tick: where it came, and how far a copy had come.
timer_tick:
        inc     dword [ticks]
        mov     eax, [ebp + FRAME_EIP]
        MIX     tick_sum
        mov     eax, [ebp + FRAME_ECX]
        MIX     tick_sum
        jmp     pic_eoi

spurious:
        ret

; EDX:EAX is a new reading of the time-stamp counter: it must not lie before the last one.
check_stamp:
        cmp     edx, [last_stamp + 4]
        ja      .later
        FAIL_IF b, 1, "the time-stamp counter went back"
        cmp     eax, [last_stamp]
        FAIL_IF b, 1, "the time-stamp counter went back"
.later:
        mov     [last_stamp], eax
        mov     [last_stamp + 4], edx
        MIX     read_sum
        ret

read_stamps:
        rdtsc
        call    check_stamp
        mov     ecx, MSR_TSC
        rdmsr                               ; some emulators answer 0: it is only added to the sum
        MIX     read_sum
        ret

%ifdef XEN
read_timer:
        call    system_time
        MIX     read_sum
        ret
%else
read_timer:
        DISABLE_INTERRUPTS                  ; a tick between the two halves would do no harm, but a latch would
        mov     al, LATCH_0
        out     PIT_CONTROL, al
        xor     eax, eax
        in      al, PIT_CHANNEL_0
        mov     ah, al
        in      al, PIT_CHANNEL_0
        xchg    al, ah
        ENABLE_INTERRUPTS
        cmp     eax, PIT_HZ / 20000
        FAIL_IF a, 2, "the timer's count is beyond its period"
        MIX     read_sum
        xor     eax, eax
        in      al, PORT_CONTROL
        MIX     read_sum
        ret
%endif

fill_block:
        mov     edi, block
        mov     ecx, BLOCK_BYTES / 4
        mov     eax, 0x12345678
.next:
        mov     [edi], eax
        add     edi, 4
        imul    eax, eax, 69069
        inc     eax
        dec     ecx
        jnz     .next
        ret

copy_block:
        mov     esi, block
        mov     edi, copy
        mov     ecx, BLOCK_BYTES
        rep movsb
        mov     ecx, BLOCK_BYTES / 4
.compare:
        mov     eax, [block + ecx * 4 - 4]
        cmp     eax, [copy + ecx * 4 - 4]
        FAIL_IF ne, 4, "a copy is not exact"
        mov     dword [copy + ecx * 4 - 4], 0
        dec     ecx
        jnz     .compare
        ret

; Ring 3 with RDTSC allowed, then once more with CR4.TSD set and cleared around it, so that both ways are taken.
read_in_user:
        FORBID_TIME_STAMPS 0
        mov     eax, user_read
        call    enter_user
        MIX     read_sum
        FORBID_TIME_STAMPS 1
        rdtsc                               ; in the kernel CR4.TSD forbids nothing
        call    check_stamp
        ENABLE_INTERRUPTS
        ret

        section .data
        align   4
ticks:
        dd      0
read_sum:
        dd      0
tick_sum:
        dd      0
last_stamp:
        dd      0, 0

        section .bss
        alignb  4
block:
        resb    BLOCK_BYTES
copy:
        resb    BLOCK_BYTES

        section .user_text
; EAX = a sum of readings in ring 3.
user_read:
        mov     ecx, USER_READS
        xor     ebx, ebx
.next:
        rdtsc
        rol     ebx, 5
        xor     ebx, eax
        dec     ecx
        jnz     .next
        mov     eax, ebx
        jmp     user_exit
