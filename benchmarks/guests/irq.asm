; irq: timer interrupts, and the proof that IRET restores the interrupt flag.
;
; The 8254 ticks about 1000 times a second through the 8259. Region 0: the kernel waits in HLT for `iterations` ticks;
; one iteration is one tick. The other phases are not measured; they take a few ticks each.
;
; It teaches the instruction that x86 virtualization stumbles over: an IRET to the same ring in a kernel that was moved
; out of ring 0 leaves IF alone, silently. Each phase here needs IF as the frame says:
;
;   masked section  with IF=0 a request waits at the 8259 and no tick is taken; STI takes it; with the line masked
;                   the next one waits, STI or not
;   kernel busy     one STI, several ticks: the IRET of each handler must turn interrupts on again in ring 0
;   user busy       the same for ring 3, where no STI is possible
;   IRET by hand    a frame with IF=0 turns interrupts off, a frame with IF=1 turns them on; no STI or CLI comes near
;   clock           four ticks in HLT and four ticks busy take the same time by RDTSC, within 30 percent (five attempts,
;                   for machines whose time is borrowed)
;
; Checks besides: the exact number of ticks in each phase; CS and IF in the frame of each tick.

%define GUEST_NAME "irq"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

BUSY_TICKS      equ 3
CLOCK_TICKS     equ 4
CLOCK_ATTEMPTS  equ 5
POLL_LIMIT      equ 1 << 20                 ; looks at the 8259 before a request is given up
SPIN_LIMIT      equ 1 << 26                 ; turns of a busy loop before a tick is given up
VECTOR_SPURIOUS equ VECTOR_IRQ0 + 7

; Wait in HLT until [ticks] is EBX. Race free: STI takes effect after HLT has begun. Interrupts are off afterwards.
%macro HALT_UNTIL_EBX 0
%%wait:
        DISABLE_INTERRUPTS
        cmp     [ticks], ebx
        jae     %%done
        ENABLE_AND_HALT
        jmp     %%wait
%%done:
%endmacro

        section .text
guest_main:
        mov     dword [trap_handlers + VECTOR_IRQ0 * 4], timer_tick
        mov     dword [trap_handlers + VECTOR_SPURIOUS * 4], spurious
        call    masked_section
        mov     eax, BUSY_TICKS
        call    kernel_busy
        call    user_busy
        call    iret_by_hand
        call    clock
        call    kernel_halted
        jmp     pass

; Begin a phase: EAX ticks are to come, each must interrupt code whose CS is EDX. Clobbers EAX.
phase_begin:
        mov     [target], eax
        mov     [expected_cs], edx
        mov     dword [ticks], 0
        mov     dword [user_done], 0
        jmp     timer_start

; End a phase: exactly the ticks asked for were taken. The handler has masked the line.
phase_end:
        mov     eax, [ticks]
        cmp     eax, [target]
        FAIL_IF ne, 5, "another number of ticks than asked for"
        ret

; Line 0: count the tick, note the time of the first and the last, mask the line when the phase has all of its ticks.
timer_tick:
        mov     ax, [ebp + FRAME_CS]
        cmp     ax, [expected_cs]
        FAIL_IF ne, 10, "a tick interrupted code of another ring"
        test    dword [ebp + FRAME_EFLAGS], EFLAGS_IF
        FAIL_IF z, 11, "a tick interrupted code that had interrupts off"
        rdtsc
        inc     dword [ticks]
        mov     ecx, [ticks]
        cmp     ecx, 1
        jne     .later
        mov     [first_time], eax
.later:
        cmp     ecx, [target]
        jb      .acknowledge
        mov     [last_time], eax
        mov     dword [user_done], 1
        call    timer_stop
.acknowledge:
        jmp     pic_eoi

; Line 7 with nothing behind it: the 8259 gave a vector for a request that was gone. No end of interrupt is due.
spurious:
        ret

; Poll the 8259, interrupts off, until line 0 has a request waiting.
await_request:
        mov     ecx, POLL_LIMIT
.poll:
        call    timer_pending
        test    eax, eax
        jnz     .done
        dec     ecx
        jnz     .poll
        FAIL    1, "the timer requests no interrupt"
.done:
        ret

; Spin, interrupts on, until the phase has all of its ticks. EAX = 1, or 0 if they do not come.
await_ticks:
        mov     ecx, SPIN_LIMIT
.spin:
        mov     eax, [ticks]
        cmp     eax, [target]
        jae     .done
        dec     ecx
        jnz     .spin
        xor     eax, eax
        ret
.done:
        mov     eax, 1
        ret

masked_section:
        mov     eax, 1
        mov     edx, KERNEL_CS
        call    phase_begin
        call    await_request
        cmp     dword [ticks], 0
        FAIL_IF ne, 2, "a tick was taken while interrupts were off"
        ENABLE_INTERRUPTS
        call    await_ticks
        DISABLE_INTERRUPTS
        test    eax, eax
        FAIL_IF z, 3, "STI does not let a waiting tick in"
        ENABLE_INTERRUPTS                   ; the line is masked now: the next request waits at the 8259 for good
        call    await_request
        DISABLE_INTERRUPTS
        jmp     phase_end

; EAX ticks, one STI.
kernel_busy:
        mov     edx, KERNEL_CS
        call    phase_begin
        ENABLE_INTERRUPTS
        call    await_ticks
        DISABLE_INTERRUPTS
        test    eax, eax
        FAIL_IF z, 4, "IRET to the kernel does not restore IF"
        jmp     phase_end

user_busy:
        mov     eax, BUSY_TICKS
        mov     edx, USER_CS
        call    phase_begin
        mov     eax, user_spin
        call    enter_user
        test    eax, eax
        FAIL_IF z, 6, "IRET to the user program does not restore IF"
        jmp     phase_end

iret_by_hand:
        ENABLE_INTERRUPTS                   ; every line is masked: nothing comes
        push    dword EFLAGS_FIXED
        push    dword KERNEL_CS
        push    dword .off
        FRAME_RETURN
.off:
        mov     eax, 1
        mov     edx, KERNEL_CS
        call    phase_begin
        call    await_request
        cmp     dword [ticks], 0
        FAIL_IF ne, 8, "IRET with IF=0 left interrupts on"
        push    dword EFLAGS_FIXED | EFLAGS_IF
        push    dword KERNEL_CS
        push    dword .on
        FRAME_RETURN
.on:
        call    await_ticks
        DISABLE_INTERRUPTS
        test    eax, eax
        FAIL_IF z, 9, "IRET with IF=1 left interrupts off"
        jmp     phase_end

; Three periods in HLT against three periods busy.
clock:
        mov     esi, CLOCK_ATTEMPTS
.attempt:
        mov     eax, CLOCK_TICKS
        mov     edx, KERNEL_CS
        call    phase_begin
        mov     ebx, CLOCK_TICKS
        HALT_UNTIL_EBX
        call    phase_end
        call    elapsed
        mov     edi, eax
        mov     eax, CLOCK_TICKS
        call    kernel_busy
        call    elapsed
        cmp     eax, edi                    ; EAX := the greater, EDI := the smaller
        jae     .ordered
        xchg    eax, edi
.ordered:
        mov     ecx, eax
        sub     ecx, edi
        imul    ecx, ecx, 10
        imul    eax, eax, 3
        cmp     ecx, eax                    ; 10 * difference against 3 * greater
        jb      .agreed
        dec     esi
        jnz     .attempt
        FAIL    7, "equal numbers of ticks took unequal times"
.agreed:
        ret

; EAX = time from the first to the last tick of the phase, in units of 256 time-stamp counts (so that products fit).
elapsed:
        mov     eax, [last_time]
        sub     eax, [first_time]
        shr     eax, 8
        ret

kernel_halted:
        mov     eax, [iterations]
        mov     edx, KERNEL_CS
        call    phase_begin
        mov     ebx, [iterations]
        mov     eax, ebx
        REGION_BEGIN 0
        HALT_UNTIL_EBX
        REGION_END
        jmp     phase_end

        section .data
        align   4
ticks:
        dd      0
target:
        dd      0
expected_cs:
        dd      0
first_time:
        dd      0
last_time:
        dd      0

        section .user_text
; EAX = 1 when the kernel says that the phase is over, 0 if it never does.
user_spin:
        mov     ecx, SPIN_LIMIT
        xor     eax, eax
.spin:
        cmp     [user_done], eax
        jne     .done
        dec     ecx
        jnz     .spin
        jmp     user_exit
.done:
        mov     eax, 1
        jmp     user_exit

        section .user_data
user_done:
        dd      0
