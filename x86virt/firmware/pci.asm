; PCI: configuration registers by mechanism 1, and INT 1Ah, AH=B1h.
;
; BX names a function throughout: BH = bus, bits 7-3 of BL = device, bits 2-0 = function. There is one bus.

PCI_ID          equ 0x00                    ; registers: vendor, device
PCI_COMMAND     equ 0x04
PCI_CLASS       equ 0x08                    ; class in the upper three bytes
PCI_HEADER      equ 0x0C                    ; bits 22-16: layout, bit 23: several functions
PCI_BAR         equ 0x10
PCI_BARS_END    equ 0x28
PCI_ROM         equ 0x30
PCI_LINE        equ 0x3C                    ; interrupt line, and pin in the second byte
PCI_TO_PORTS    equ 1 << 0                  ; command: the device answers
PCI_TO_MEMORY   equ 1 << 1
PCI_AS_MASTER   equ 1 << 2

; Choose register DI of function BX: DX = the port to read or write it at. Keeps the others.
pci_select:
        push    eax
        movzx   eax, bx
        shl     eax, 8
        or      eax, 1 << 31
        mov     ax, di
        and     al, 0xFC
        mov     ah, bl
        mov     dx, PCI_ADDRESS
        out     dx, eax
        mov     dx, di
        and     dx, 3
        add     dx, PCI_DATA
        pop     eax
        ret

; EAX = the doubleword at register DI of function BX. Clobbers DX.
pci_read:
        call    pci_select
        in      eax, dx
        ret

; The same, written from EAX. Clobbers DX.
pci_write:
        call    pci_select
        out     dx, eax
        ret

; Set bits AX in the command register of function BX. Clobbers AX, DX, DI.
pci_enable:
        push    cx
        mov     cx, ax
        mov     di, PCI_COMMAND
        call    pci_select
        in      ax, dx
        or      ax, cx
        out     dx, ax
        pop     cx
        ret

; BX = the next function that is there behind BX (-1 to begin), EAX = its PCI_ID; carry if there is none. Clobbers DX, DI.
pci_next:
        inc     bx
        cmp     bx, 0x0100                  ; the end of bus 0
        cmc
        jc      .done
        test    bl, 7
        jz      .ask
        push    bx                          ; a device of one function may answer for the others too
        and     bl, ~7 & 0xFF
        mov     di, PCI_HEADER
        call    pci_read
        pop     bx
        test    eax, 1 << 23
        jz      pci_next
.ask:
        mov     di, PCI_ID
        call    pci_read
        cmp     ax, 0xFFFF
        je      pci_next
        clc
.done:
        ret

; INT 1Ah, AH=B1h: AL says what. AH = 0 or why not.
PCI_NOT_THERE   equ 0x81                    ; this function of the BIOS
PCI_NO_VENDOR   equ 0x83
PCI_NO_DEVICE   equ 0x86
PCI_BAD_REGISTER equ 0x87
PCI_SIGNATURE   equ 0x20494350              ; "PCI "
PCI_VERSION     equ 0x0210
PCI_MECHANISM_1 equ 1
pci_services:
        cmp     al, 0x01
        je      pci_present
        cmp     al, 0x02
        je      pci_find_device
        cmp     al, 0x03
        je      pci_find_class
        sub     al, 0x08
        cmp     al, 0x0D - 0x08
        jbe     pci_register
        mov     ah, PCI_NOT_THERE
pci_refuse:
        mov     caller_ah, ah
        jmp     refuse

; AL=01h.
pci_present:
        mov     bx, -1
        call    pci_next
        jc      unsupported
        mov     caller_edx, PCI_SIGNATURE
        mov     caller_edi, 0               ; no entry for protected mode
        mov     caller_ax, PCI_MECHANISM_1
        mov     caller_bx, PCI_VERSION
        mov     caller_cl, 0                ; the last bus
        jmp     succeed

; AL=02h: BX = the function number SI, from 0 on, of those with device CX and vendor DX.
pci_find_device:
        cmp     dx, 0xFFFF
        mov     ah, PCI_NO_VENDOR
        je      pci_refuse
        shl     ecx, 16
        mov     cx, dx
        mov     bx, -1
.next:
        call    pci_next
        jc      pci_not_found
        cmp     eax, ecx
        jne     .next
        sub     si, 1
        jnc     .next
pci_found:
        mov     caller_bx, bx
        jmp     succeed_plainly
pci_not_found:
        mov     ah, PCI_NO_DEVICE
        jmp     pci_refuse

; AL=03h: BX = the function number SI of those with class ECX.
pci_find_class:
        mov     bx, -1
.next:
        call    pci_next
        jc      pci_not_found
        mov     di, PCI_CLASS
        call    pci_read
        shr     eax, 8
        cmp     eax, ecx
        jne     .next
        sub     si, 1
        jnc     .next
        jmp     pci_found

; AL=08h to 0Dh: read a byte, word or doubleword of register DI of function BX to CL, CX, ECX, or write it from there.
; AL = that number less 8.
pci_register:
        mov     ah, PCI_BAD_REGISTER
        cmp     di, 0x100
        jae     pci_refuse
        call    pci_select
        cmp     al, 3
        jae     .write
        cmp     al, 1
        jb      .read_byte
        je      .read_word
        test    di, 3
        jnz     pci_refuse
        in      eax, dx
        mov     caller_ecx, eax
        jmp     succeed_plainly
.read_byte:
        in      al, dx
        mov     caller_cl, al
        jmp     succeed_plainly
.read_word:
        test    di, 1
        jnz     pci_refuse
        in      ax, dx
        mov     caller_cx, ax
        jmp     succeed_plainly
.write:
        cmp     al, 4
        jb      .write_byte
        je      .write_word
        test    di, 3
        jnz     pci_refuse
        mov     eax, ecx
        out     dx, eax
        jmp     succeed_plainly
.write_byte:
        mov     al, cl
        out     dx, al
        jmp     succeed_plainly
.write_word:
        test    di, 1
        jnz     pci_refuse
        mov     ax, cx
        out     dx, ax
        jmp     succeed_plainly
