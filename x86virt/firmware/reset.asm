; From power-on to the boot sector.

; The reset vector jumps here, in real mode, with everything but CS:IP unknown.
reset:
        cli
        cld
        mov     al, CMOS_SHUTDOWN | 0x80    ; bit 7 keeps NMIs out
        out     CMOS_INDEX, al
        in      al, CMOS_DATA
        cmp     al, SHUTDOWN_JUMP
        je      resume
        cmp     al, SHUTDOWN_EOI_JUMP
        je      resume

power_on_self_test:
        xor     ax, ax
        mov     ss, ax
        mov     sp, BOOT_ADDRESS
        call    a20_enable
        call    interrupt_init              ; clears the BIOS data area; from here on INT works
        mov     ax, DATA_SEGMENT
        mov     ds, ax
        call    memory_init
        call    timer_init
        call    rtc_init
        call    pci_init
        call    video_init
        mov     si, text_welcome
        call    print
        call    keyboard_init
        call    serial_init
        sti
        call    disk_init
        call    option_rom_scan
        call    mp_table_init
        int     0x19

; A program reset the processor to leave protected mode, as was the way on the 286: it goes on at the address that it left.
SHUTDOWN_EOI_JUMP equ 0x05
SHUTDOWN_JUMP     equ 0x0A
resume:
        mov     bl, al
        mov     al, CMOS_SHUTDOWN | 0x80
        out     CMOS_INDEX, al
        xor     ax, ax
        out     CMOS_DATA, al
        mov     ax, DATA_SEGMENT
        mov     ds, ax
        cmp     bl, SHUTDOWN_JUMP
        je      .go
        mov     al, OCW2_EOI
        out     PIC2_COMMAND, al
        out     PIC1_COMMAND, al
.go:
        jmp     far [data_resume]

; Reset the machine by whatever it has for that.
restart:
        cli
        mov     al, KEYBOARD_PULSE_RESET
        out     KEYBOARD_COMMAND, al
        mov     al, RESET_HARD
        mov     dx, RESET_CONTROL
        out     dx, al
        in      al, SYSTEM_CONTROL_A
        or      al, CONTROL_RESET
        out     SYSTEM_CONTROL_A, al
        jmp     BIOS_SEGMENT:reset_vector

; Print the zero-terminated string CS:SI on the screen and on the debug console. Keeps every register.
print:
        pusha
.next:
        mov     al, [cs:si]
        test    al, al
        jz      .done
        call    print_character
        inc     si
        jmp     .next
.done:
        popa
        ret

; Print AL. Keeps every register.
print_character:
        pusha
        mov     dx, DEBUG_CONSOLE
        out     dx, al
        mov     ah, 0x0E
        mov     bx, 0x0007
        int     0x10
        popa
        ret

; Print EAX as a decimal. Keeps every register.
print_decimal:
        pushad
        mov     ebx, 10
        xor     cx, cx
.divide:
        xor     edx, edx
        div     ebx
        push    dx
        inc     cx
        test    eax, eax
        jnz     .divide
.digit:
        pop     ax
        add     al, '0'
        call    print_character
        loop    .digit
        popad
        ret

text_welcome:
        db      "x86virt BIOS", 13, 10, 0
