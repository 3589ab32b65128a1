; INT 15h, the services that fit nowhere else, and INT 11h.

int_15h:
        SERVICES system_services
system_services:
        FUNCTION 0x24, a20_services
        FUNCTION 0x4F, keyboard_intercept
        FUNCTION 0x53, power_services
        FUNCTION 0x83, event_wait
        FUNCTION 0x85, succeed_plainly      ; the SysRq key: programs take this vector to see it
        FUNCTION 0x86, wait_microseconds
        FUNCTION 0x87, memory_move
        FUNCTION 0x88, memory_old_size
        FUNCTION 0x90, succeed_plainly      ; a device begins to wait,
        FUNCTION 0x91, succeed_plainly      ; a device has finished: for systems with tasks
        FUNCTION 0xC0, system_description
        FUNCTION 0xC1, extended_area
        FUNCTION 0xE8, memory_sizes
        OTHERWISE unsupported

succeed_plainly:
        mov     caller_ah, 0
        jmp     succeed

; AH=4Fh: INT 09h asks about each scan code in AL; carry set = go on with it. Programs take this vector to change codes.
keyboard_intercept:
        jmp     refuse

; AH=C0h: ES:BX -> a table that describes the machine.
system_description:
        mov     caller_es, BIOS_SEGMENT
        mov     caller_bx, machine_description
        jmp     succeed_plainly

; AH=C1h: ES = the extended BIOS data area.
extended_area:
        mov     ax, [data_extended_segment]
        mov     caller_es, ax
        jmp     succeed

MACHINE_MODEL   equ 0xFC                    ; an AT
machine_description:
        dw      8                           ; bytes that follow
        db      MACHINE_MODEL
        db      1                           ; submodel
        db      0                           ; revision
        db      0x74                        ; two PICs, a clock, INT 15h AH=4Fh, an extended BIOS data area
        db      0x40                        ; INT 16h AH=09h is here
        db      0, 0, 0

; INT 11h: AX = what is there: FPU, 80x25 colour, and (serial_init) the number of serial ports; no diskette drive.
EQUIPMENT       equ 0x0022
EQUIPMENT_SERIAL_SHIFT equ 9
int_11h:
        push    ds
        push    DATA_SEGMENT
        pop     ds
        mov     ax, [data_equipment]
        pop     ds
        iret
