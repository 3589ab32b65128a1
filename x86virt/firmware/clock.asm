; The time: INT 1Ah (ticks, the clock's time, date and alarm) and the clock's interrupt, IRQ 8.

int_1Ah:
        SERVICES clock_services
clock_services:
        FUNCTION 0x00, ticks_read
        FUNCTION 0x01, ticks_set
        FUNCTION 0x02, time_read
        FUNCTION 0x03, time_set
        FUNCTION 0x04, date_read
        FUNCTION 0x05, date_set
        FUNCTION 0x06, alarm_set
        FUNCTION 0x07, alarm_off
        FUNCTION 0xB1, pci_services
        OTHERWISE refuse

; At power-on: the clock runs with decimals and 24 hours, and the ticks are those since midnight.
rtc_init:
        mov     ax, RTC_DIVIDER << 8 | RTC_STATUS_A
        call    cmos_write
        mov     ax, RTC_24_HOURS << 8 | RTC_STATUS_B
        call    cmos_write
        mov     al, RTC_STATUS_C            ; reading it takes requests back
        call    cmos_read
        mov     al, RTC_STATUS_D
        call    cmos_read
        call    rtc_settled
        xor     ecx, ecx
        mov     al, RTC_HOURS
        call    .add
        mov     al, RTC_MINUTES
        call    .add
        mov     al, RTC_SECONDS
        call    .add
        mov     eax, PIT_HZ                 ; ticks = seconds x PIT_HZ / 65536
        mul     ecx
        shrd    eax, edx, 16
        mov     [data_ticks], eax
        ret
.add:                                       ; ECX = ECX x 60 + the number of register AL
        call    cmos_read
        movzx   ebx, al
        shr     al, 4
        mov     ah, 10
        mul     ah
        and     bx, 0x0F
        add     bx, ax
        imul    ecx, ecx, 60
        add     ecx, ebx
        ret

; Wait until the clock is not about to change; carry if it never settles. Clobbers AL.
rtc_settled:
        push    cx
        xor     cx, cx
.look:
        mov     al, RTC_STATUS_A
        call    cmos_read
        test    al, RTC_UPDATING            ; clears the carry
        loopnz  .look
        pop     cx
        jz      .settled
        stc
.settled:
        ret

; AH=00h: CX:DX = ticks since midnight, AL = days that ended since the last call.
ticks_read:
        cli
        mov     eax, [data_ticks]
        mov     caller_dx, ax
        shr     eax, 16
        mov     caller_cx, ax
        mov     al, 0
        xchg    al, [data_midnight]
        mov     caller_al, al
        mov     caller_ah, 0
        jmp     succeed

; AH=01h: set the ticks to CX:DX.
ticks_set:
        cli
        mov     [data_ticks], dx
        mov     [data_ticks + 2], cx
        mov     byte [data_midnight], 0
        jmp     succeed_plainly

; AH=02h: CH, CL, DH = hours, minutes, seconds in decimals, DL = 1 under daylight saving.
time_read:
        call    rtc_settled
        jc      refuse
        mov     al, RTC_HOURS
        call    cmos_read
        mov     ah, al
        mov     al, RTC_MINUTES
        call    cmos_read
        mov     caller_cx, ax
        mov     al, RTC_STATUS_B
        call    cmos_read
        and     al, 1
        mov     bl, al
        mov     al, RTC_SECONDS
        call    cmos_read
        mov     ah, al
        mov     al, bl
        mov     caller_dx, ax
        jmp     succeed_plainly

; AH=03h: set the time to CH, CL, DH, DL.
time_set:
        call    rtc_hold
        mov     ah, ch
        mov     al, RTC_HOURS
        call    cmos_write
        mov     ah, cl
        mov     al, RTC_MINUTES
        call    cmos_write
        mov     ah, dh
        mov     al, RTC_SECONDS
        call    cmos_write
        mov     al, RTC_STATUS_B
        call    cmos_read
        and     al, ~1
        and     dl, 1
        or      al, dl
        mov     ah, al
        jmp     rtc_release

; AH=04h: CH, CL, DH, DL = century, year, month, day in decimals.
date_read:
        call    rtc_settled
        jc      refuse
        mov     al, RTC_CENTURY
        call    cmos_read
        mov     ah, al
        mov     al, RTC_YEAR
        call    cmos_read
        mov     caller_cx, ax
        mov     al, RTC_MONTH
        call    cmos_read
        mov     ah, al
        mov     al, RTC_DAY
        call    cmos_read
        mov     caller_dx, ax
        jmp     succeed_plainly

; AH=05h: set the date to CH, CL, DH, DL.
date_set:
        call    rtc_hold
        mov     ah, ch
        mov     al, RTC_CENTURY
        call    cmos_write
        mov     ah, cl
        mov     al, RTC_YEAR
        call    cmos_write
        mov     ah, dh
        mov     al, RTC_MONTH
        call    cmos_write
        mov     ah, dl
        mov     al, RTC_DAY
        call    cmos_write
        mov     al, RTC_STATUS_B
        call    cmos_read
        mov     ah, al
        jmp     rtc_release

; The clock stands still while its time is set. Clobbers AX.
rtc_hold:
        mov     al, RTC_STATUS_B
        call    cmos_read
        or      al, RTC_HOLD
        mov     ah, al
        mov     al, RTC_STATUS_B
        jmp     cmos_write

; It goes on, with AH as its status B; the service has succeeded.
rtc_release:
        and     ah, ~RTC_HOLD & 0xFF
        mov     al, RTC_STATUS_B
        call    cmos_write
        jmp     succeed_plainly

; AH=06h: INT 4Ah when the clock shows CH, CL, DH. Refused if an alarm is set already.
alarm_set:
        mov     al, RTC_STATUS_B
        call    cmos_read
        test    al, RTC_ALARM
        jnz     refuse
        mov     ah, ch
        mov     al, RTC_ALARM_HOURS
        call    cmos_write
        mov     ah, cl
        mov     al, RTC_ALARM_MINUTES
        call    cmos_write
        mov     ah, dh
        mov     al, RTC_ALARM_SECONDS
        call    cmos_write
        mov     ah, RTC_ALARM
        call    rtc_requests_on
        jmp     succeed_plainly

; AH=07h: no alarm.
alarm_off:
        mov     ah, RTC_ALARM
        call    rtc_requests_off
        jmp     succeed_plainly

; Let the clock interrupt (AH: bits of status B), or stop it. Clobbers AX.
rtc_requests_on:
        mov     al, RTC_STATUS_B
        call    cmos_read
        or      ah, al
        mov     al, RTC_STATUS_B
        jmp     cmos_write

rtc_requests_off:
        not     ah
        mov     al, RTC_STATUS_B
        call    cmos_read
        and     ah, al
        mov     al, RTC_STATUS_B
        jmp     cmos_write

; INT 15h, AH=83h: AL = 0: set bit 7 of the byte at ES:BX when CX:DX microseconds have passed; AL = 1: do not.
MICROSECONDS_OF_A_PERIOD equ 976            ; 1024 interrupts a second
event_wait:
        cmp     al, 1
        je      .cancel
        ja      unsupported
        test    byte [data_wait_active], 1
        jnz     refuse
        mov     [data_wait_flag], bx
        mov     ax, caller_es
        mov     [data_wait_flag + 2], ax
        mov     [data_wait_left], dx
        mov     [data_wait_left + 2], cx
        mov     byte [data_wait_active], 1
        mov     ah, RTC_PERIODIC
        call    rtc_requests_on
        jmp     succeed_plainly
.cancel:
        call    event_wait_end
        jmp     succeed_plainly

event_wait_end:
        mov     byte [data_wait_active], 0
        mov     ah, RTC_PERIODIC
        jmp     rtc_requests_off

; IRQ 8: a period has passed, or the alarm rings.
irq8_clock:
        push    ds
        push    es
        pushad
        cld
        push    DATA_SEGMENT
        pop     ds
        mov     al, RTC_STATUS_C
        call    cmos_read
        mov     cl, al
        test    cl, RTC_PERIODIC
        jz      .alarm
        test    byte [data_wait_active], 1
        jz      .alarm
        sub     dword [data_wait_left], MICROSECONDS_OF_A_PERIOD
        ja      .alarm
        les     bx, [data_wait_flag]
        or      byte [es:bx], 0x80
        call    event_wait_end
.alarm:
        test    cl, RTC_ALARM
        jz      .done
        int     0x4A
        cli
.done:
        mov     al, OCW2_EOI
        out     PIC2_COMMAND, al
        out     PIC1_COMMAND, al
        popad
        pop     es
        pop     ds
        iret
