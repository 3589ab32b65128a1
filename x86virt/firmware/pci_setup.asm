; What the PCI devices need at power-on: addresses, interrupt lines, and the chipset's switches.

FIRST_PORT      equ 0xC000
FIRST_MEMORY    equ 0xE0000000

pci_init:
        push    ds
        mov     ax, EXTENDED_SEGMENT
        mov     ds, ax
        mov     word [extended_io_next], FIRST_PORT
        mov     dword [extended_memory_next], FIRST_MEMORY
        mov     bx, -1
.function:
        call    pci_next
        jc      .done
        push    eax
        call    pci_give_addresses
        call    pci_give_line
        pop     eax
        call    pci_set_up_chip
        jmp     .function
.done:
        pop     ds
        ret

; Give function BX places for its base address registers. Keeps BX.
pci_give_addresses:
        mov     di, PCI_HEADER
        call    pci_read
        test    eax, 0x7F << 16
        jnz     nothing                     ; a bridge
        mov     di, PCI_BAR
.register:
        call    pci_give_address
        add     di, 4
        cmp     di, PCI_BARS_END
        jb      .register
        ret

; Register DI: ones written to it tell what it decodes; bit 0 = ports. Keeps BX, DI, but skips the second half of a register
; of 64 bits.
pci_give_address:
        mov     eax, -1
        call    pci_write
        call    pci_read
        test    eax, eax
        jz      nothing
        test    al, 1
        jz      .memory
        and     eax, 0xFFFC
        neg     ax                          ; how many ports
        movzx   ecx, ax
        movzx   eax, word [extended_io_next]
        call    align_up
        call    pci_write
        add     ax, cx
        mov     [extended_io_next], ax
        push    di
        mov     ax, PCI_TO_PORTS
        call    pci_enable
        pop     di
        ret
.memory:
        mov     cl, al
        and     al, 0xF0
        neg     eax                         ; how many bytes
        xchg    eax, ecx
        push    ax                          ; AL = the kind
        call    pci_take_memory
        call    pci_write
        pop     ax
        and     al, 0x06
        cmp     al, 0x04                    ; 64 bits
        jne     .enable
        add     di, 4
        xor     eax, eax
        call    pci_write
.enable:
        push    di
        mov     ax, PCI_TO_MEMORY
        call    pci_enable
        pop     di
        ret

; EAX = an address for ECX bytes of device memory.
pci_take_memory:
        mov     eax, [extended_memory_next]
        call    align_up
        push    eax
        add     eax, ecx
        mov     [extended_memory_next], eax
        pop     eax
        ret

; EAX rounded up to a multiple of ECX, a power of two.
align_up:
        push    ecx
        dec     ecx
        add     eax, ecx
        not     ecx
        and     eax, ecx
        pop     ecx
        ret

; Tell function BX, if it has an interrupt pin, which line that is wired to. Keeps BX.
pci_give_line:
        mov     di, PCI_LINE
        call    pci_read
        movzx   si, ah                      ; 1 to 4 = pin A to D
        test    si, si
        jz      nothing
        movzx   cx, bl
        shr     cx, 3
        add     si, cx
        sub     si, 2                       ; device 1, pin A is input A of the router
        and     si, 3
        mov     al, [cs:pci_lines + si]
        call    pci_select
        out     dx, al
        ret

pci_lines:
        db      10, 11, 10, 11              ; the line of each input of the router

; What chips of the chipset need beyond. EAX = PCI_ID of function BX, which it keeps.
CHIPS           equ 4
pci_set_up_chip:
        mov     si, pci_chips
        mov     cx, CHIPS
.row:
        cmp     eax, [cs:si]
        je      .found
        add     si, 6
        loop    .row
        mov     di, PCI_CLASS
        call    pci_read
        shr     eax, 16
        cmp     ax, PCI_DISPLAY
        jne     nothing
        mov     ax, PCI_TO_PORTS | PCI_TO_MEMORY ; the VGA's fixed places
        jmp     pci_enable
.found:
        jmp     [cs:si + 4]

PCI_DISPLAY     equ 0x0300
HOST_BRIDGE     equ 0x12378086
pci_chips:
        dd      0x70008086                  ; PIIX3: ISA bridge
        dw      pci_set_up_router
        dd      0x70108086                  ; PIIX3: IDE
        dw      pci_set_up_ide
        dd      0x71118086                  ; PIIX4: IDE
        dw      pci_set_up_ide
        dd      POWER_CHIP                  ; PIIX4: power management
        dw      pci_set_up_power

; The router's inputs go to lines 10 and 11, which devices share: levels, not edges.
ROUTER_INPUTS   equ 0x60
pci_set_up_router:
        mov     eax, [cs:pci_lines]
        mov     di, ROUTER_INPUTS
        call    pci_write
        mov     dx, ELCR1 + 1
        mov     al, 1 << (10 - 8) | 1 << (11 - 8)
        out     dx, al
        ret

; Both channels answer at the ports that they had before PCI.
IDE_TIMING      equ 0x40
pci_set_up_ide:
        mov     eax, 0x80008000
        mov     di, IDE_TIMING
        call    pci_write
        mov     ax, PCI_TO_PORTS | PCI_AS_MASTER
        jmp     pci_enable

; The power-management registers appear at ports B000h to B03Fh.
POWER_BASE      equ 0x40
POWER_ENABLE    equ 0x80
POWER_PORTS     equ 0xB000
POWER_LINE      equ 9                       ; whatever the router says
pci_set_up_power:
        mov     eax, POWER_PORTS | 1
        mov     di, POWER_BASE
        call    pci_write
        mov     di, POWER_ENABLE
        call    pci_select
        mov     al, 1
        out     dx, al
        mov     di, PCI_LINE
        call    pci_select
        mov     al, POWER_LINE
        out     dx, al
        ret

; If a display device brings a ROM, copy it to 0xC0000, where ROMs are looked for. The host bridge lets the RAM there be
; written for the moment, and be read after that. BX = the function, 0 if there is none.
SHADOW_C0000    equ 0x5A                    ; two registers of two halves: C0000-CFFFF in steps of 16 KB
SHADOW_CLOSED   equ 0x0000
SHADOW_READ     equ 0x1111
SHADOW_READ_WRITE equ 0x3333
VIDEO_ROM       equ 0xC0000
VIDEO_ROM_BYTES equ 0x10000
pci_video_rom:
        mov     bx, -1
.function:
        call    pci_next
        jc      .none
        mov     di, PCI_CLASS
        call    pci_read
        shr     eax, 16
        cmp     ax, PCI_DISPLAY
        jne     .function
        mov     eax, 0xFFFFF800
        mov     di, PCI_ROM
        call    pci_write
        call    pci_read
        and     eax, 0xFFFFF800
        jz      nothing
        neg     eax
        mov     ecx, eax
        push    ds
        push    EXTENDED_SEGMENT
        pop     ds
        call    pci_take_memory
        pop     ds
        mov     esi, eax
        or      al, 1                       ; the ROM answers
        call    pci_write
        push    di
        mov     ax, PCI_TO_MEMORY
        call    pci_enable
        mov     ax, SHADOW_READ_WRITE
        call    shadow_set
        cmp     ecx, VIDEO_ROM_BYTES
        jbe     .copy
        mov     ecx, VIDEO_ROM_BYTES
.copy:
        push    esi
        mov     edi, VIDEO_ROM
        call    copy_physical
        pop     eax
        pop     di
        call    pci_write                   ; the ROM is quiet again
        push    VIDEO_ROM >> 4
        pop     es
        mov     ax, SHADOW_READ
        cmp     word [es:0], ROM_SIGNATURE
        je      shadow_set
        mov     ax, SHADOW_CLOSED
        jmp     shadow_set
.none:
        xor     bx, bx
        ret

; Let reads and writes of C0000-CFFFF go where AX says, if the host bridge is the one we know. Clobbers EAX, DX, DI.
shadow_set:
        push    bx
        push    ax
        xor     bx, bx
        mov     di, PCI_ID
        call    pci_read
        cmp     eax, HOST_BRIDGE
        pop     ax
        jne     .done
        mov     di, SHADOW_C0000
        call    pci_select
        out     dx, ax
.done:
        pop     bx
        ret
