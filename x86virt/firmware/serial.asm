; INT 14h, the serial ports, and INT 17h, the parallel ports that are not there.

UARTS           equ 2
uart_ports:
        dw      0x3F8, 0x2F8

; Note the base ports of the UARTs that are there, and their number in the equipment word.
serial_init:
        mov     si, uart_ports
        mov     di, data_serial_ports
        mov     cx, UARTS
        mov     bx, 0x5AA5
.port:
        cs lodsw
        mov     dx, ax
        add     dx, UART_SCRATCH            ; it keeps what is written
        mov     al, bl
        out     dx, al
        in      al, dx
        cmp     al, bl
        jne     .absent
        mov     al, bh
        out     dx, al
        in      al, dx
        cmp     al, bh
        jne     .absent
        sub     dx, UART_SCRATCH
        mov     [di], dx
        add     di, 2
        add     word [data_equipment], 1 << EQUIPMENT_SERIAL_SHIFT
.absent:
        loop    .port
        ret

; AH: 0 set up, 1 send, 2 receive, 3 status; DX = which port.
int_14h:
        SERVICES serial_services
serial_services:
        FUNCTION 0x00, serial_set
        FUNCTION 0x01, serial_send
        FUNCTION 0x02, serial_receive
        FUNCTION 0x03, serial_status
        OTHERWISE nothing

; DX = the base port of serial port DX; returns from the service if there is none.
serial_port:
        mov     si, dx
        cmp     si, UARTS
        jae     .none
        add     si, si
        mov     dx, [data_serial_ports + si]
        test    dx, dx
        jz      .none
        ret
.none:
        pop     ax                          ; the routine's own return address
        ret

; AL = bits 7-5 speed, 4-3 parity, 2 stop bits, 1-0 length.
serial_set:
        call    serial_port
        mov     bl, al
        add     dx, UART_LINE_CONTROL
        and     al, 0x1F
        or      al, UART_DIVISOR
        out     dx, al
        sub     dx, UART_LINE_CONTROL
        shr     bl, 5
        mov     bh, 0
        add     bx, bx
        mov     ax, [cs:serial_divisors + bx]
        out     dx, al
        inc     dx
        mov     al, ah
        out     dx, al
        add     dx, UART_LINE_CONTROL - UART_INTERRUPTS
        mov     al, caller_al
        and     al, 0x1F
        out     dx, al
        sub     dx, UART_LINE_CONTROL - UART_INTERRUPTS
        mov     al, 0
        out     dx, al                      ; no interrupts
        add     dx, UART_MODEM - UART_INTERRUPTS
        mov     al, UART_READY
        out     dx, al
        sub     dx, UART_MODEM
        jmp     serial_status_of

serial_divisors:                            ; 110, 150, 300, 600, 1200, 2400, 4800, 9600 bits a second
        dw      1047, 768, 384, 192, 96, 48, 24, 12

; AH = line status, AL = modem status.
serial_status:
        call    serial_port
serial_status_of:                           ; DX = base port
        add     dx, UART_LINE_STATUS
        in      al, dx
        mov     caller_ah, al
        inc     dx
        in      al, dx
        mov     caller_al, al
        ret

; Send AL; AH = line status, bit 7 set if it could not be sent.
serial_send:
        call    serial_port
        mov     cl, UART_CAN_SEND
        call    serial_wait
        jc      serial_timeout
        mov     caller_ah, al
        sub     dx, UART_LINE_STATUS
        mov     al, caller_al
        out     dx, al
        ret

; AL = the next byte received; AH = line status, bit 7 set if none came.
serial_receive:
        call    serial_port
        mov     cl, UART_RECEIVED
        call    serial_wait
        jc      serial_timeout
        and     al, 0x1E                    ; the errors
        mov     caller_ah, al
        sub     dx, UART_LINE_STATUS
        in      al, dx
        mov     caller_al, al
        ret

serial_timeout:
        or      al, 0x80
        mov     caller_ah, al
        ret

; Wait about a second for bit CL of the line status. DX = base port, then that of the line status; AL = the status;
; carry if the time is over. Clobbers EAX, ECX.
serial_wait:
        call    allow_interrupts
        add     dx, UART_LINE_STATUS
        mov     ch, 200                     ; times 5 milliseconds
.look:
        in      al, dx
        test    al, cl
        jnz     .there
        push    eax
        mov     eax, PIT_HZ / 200
        call    timer_wait
        pop     eax
        dec     ch
        jnz     .look
        stc
        ret
.there:
        clc
        ret

; INT 17h: every parallel port has timed out.
int_17h:
        mov     ah, 0x01
        iret
