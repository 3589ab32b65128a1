; The timer: 18.2 ticks a second (channel 0 divides by 65536), and waiting by it.

TICKS_OF_A_DAY  equ 0x1800B0

; Clobbers AX.
timer_init:
        mov     al, PIT_RATE
        out     PIT_CONTROL, al
        xor     al, al                      ; 0 stands for 65536
        out     PIT_CHANNEL_0, al
        out     PIT_CHANNEL_0, al
        ret

; IRQ 0.
irq0_timer:
        push    ds
        push    eax
        push    DATA_SEGMENT
        pop     ds
        mov     eax, [data_ticks]
        inc     eax
        cmp     eax, TICKS_OF_A_DAY
        jb      .store
        xor     eax, eax
        inc     byte [data_midnight]
.store:
        mov     [data_ticks], eax
        int     0x1C                        ; for programs that want each tick
        cli
        mov     al, OCW2_EOI
        out     PIC1_COMMAND, al
        pop     eax
        pop     ds
        iret

; AX = the timer's count, which falls.
timer_count:
        mov     al, PIT_LATCH
        out     PIT_CONTROL, al
        in      al, PIT_CHANNEL_0
        mov     ah, al
        in      al, PIT_CHANNEL_0
        xchg    al, ah
        ret

; Wait until EAX counts of the timer (1193182 a second) have passed. Clobbers EAX.
timer_wait:
        push    ebx
        push    ecx
        push    dx
        mov     ecx, eax
        call    timer_count
        mov     dx, ax
.look:
        call    timer_count
        movzx   ebx, dx
        mov     dx, ax
        sub     bx, ax                      ; what passed since the last look, around zero too
        sub     ecx, ebx
        ja      .look
        pop     dx
        pop     ecx
        pop     ebx
        ret

; EAX = the counts of CX:DX microseconds, at least 1 and at most an hour's.
MOST_WAIT       equ 3600 * 1000000
microseconds_to_counts:
        push    ecx
        push    edx
        shl     ecx, 16
        mov     cx, dx
        mov     eax, MOST_WAIT
        cmp     ecx, eax
        jbe     .convert
        mov     ecx, eax
.convert:
        mov     eax, PIT_HZ
        mul     ecx
        mov     ecx, 1000000
        div     ecx
        inc     eax
        pop     edx
        pop     ecx
        ret

; INT 15h, AH=86h: wait CX:DX microseconds.
wait_microseconds:
        call    microseconds_to_counts
        call    allow_interrupts
        call    timer_wait
        jmp     succeed_plainly
