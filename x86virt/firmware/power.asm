; INT 15h, AH=53h: switching off (APM 1.2, in real mode only), by the PIIX4.

APM_VERSION     equ 0x0102
APM_SIGNATURE   equ 0x504D                  ; "PM"
APM_ALL_DEVICES equ 0x0001
APM_OFF         equ 0x0003
APM_UNKNOWN_DEVICE equ 0x09
APM_NOT_HERE    equ 0x0C
APM_BAD_STATE   equ 0x60
POWER_CHIP      equ 0x71138086
POWER_CONTROL   equ 4                       ; register PM1 control, behind the base
POWER_SLEEP     equ 1 << 13                 ; go to sleep, so deep (bits 12-10) that it is off: 0

power_services:
        call    power_chip
        jc      unsupported
        cmp     al, 0x00
        je      .present
        cmp     al, 0x01                    ; connect, in real mode
        je      succeed_plainly
        cmp     al, 0x04                    ; disconnect
        je      succeed_plainly
        cmp     al, 0x07
        je      power_state
        cmp     al, 0x08                    ; let power be managed
        je      succeed_plainly
        cmp     al, 0x0E
        je      .version
        cmp     al, 0x0F                    ; manage it from now on
        je      succeed_plainly
        mov     caller_ah, APM_NOT_HERE
        jmp     refuse
.present:
        mov     caller_bx, APM_SIGNATURE
        mov     caller_cx, 0                ; nothing for protected mode
.version:                                   ; the caller's is CX: 1.2 is spoken with later ones too
        mov     caller_ax, APM_VERSION
        jmp     succeed

; AL=07h: device BX, state CX. All devices can be switched off, and nothing else.
power_state:
        mov     caller_ah, APM_UNKNOWN_DEVICE
        cmp     caller_bx, APM_ALL_DEVICES
        jne     refuse
        mov     caller_ah, APM_BAD_STATE
        cmp     cx, APM_OFF
        jne     refuse
        mov     di, POWER_BASE
        call    pci_read
        and     ax, 0xFFC0
        mov     dx, ax
        add     dx, POWER_CONTROL
        mov     ax, POWER_SLEEP
        out     dx, ax
.off:
        cli
        hlt
        jmp     .off

; BX = the function of the PIIX4 that manages power; carry if there is none. Keeps AX, CX; clobbers DX, DI.
power_chip:
        push    eax
        mov     bx, -1
.next:
        call    pci_next
        jc      .done
        cmp     eax, POWER_CHIP
        jne     .next
        clc
.done:
        pop     eax
        ret
