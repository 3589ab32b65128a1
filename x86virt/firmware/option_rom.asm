; Option ROMs: programs of extension boards between 0xC0000 and 0xDFFFF, called once.

ROM_SIGNATURE   equ 0xAA55
ROM_BLOCKS      equ 2                       ; the byte there: how many 512-byte blocks
ROM_ENTRY       equ 3
ROM_FIRST       equ 0xC000                  ; segments
ROM_END         equ 0xE000
ROM_STEP        equ 0x80                    ; they begin at multiples of 2 KB

; The display's own, before anything is shown.
option_rom_video:
        call    pci_video_rom
        mov     ax, ROM_FIRST
        call    option_rom_size
        jz      nothing
        jmp     option_rom_call

; All others.
option_rom_scan:
        xor     bx, bx                      ; their devices are not asked for
        mov     ax, ROM_FIRST
        call    option_rom_size             ; it was called before
        jmp     .skip
.look:
        call    option_rom_size
        jz      .skip
        call    option_rom_call
.skip:
        add     ax, dx
        cmp     dx, ROM_STEP
        jae     .next
        add     ax, ROM_STEP
.next:
        cmp     ax, ROM_END
        jb      .look
        ret

; DX = paragraphs of the ROM at segment AX, in whole steps; ZF and DX = 0 if there is none. Keeps AX; clobbers CX, SI, ES.
option_rom_size:
        push    ax
        mov     es, ax
        xor     dx, dx
        cmp     word [es:0], ROM_SIGNATURE
        jne     .none
        movzx   cx, byte [es:ROM_BLOCKS]
        shl     cx, 9                       ; 64 KB would be 0: the loop does as many
        xor     si, si
        mov     al, 0
.sum:
        add     al, [es:si]
        inc     si
        loop    .sum
        test    al, al
        jnz     .none
        movzx   dx, byte [es:ROM_BLOCKS]
        add     dx, 3
        and     dx, ~3
        shl     dx, 5
.none:
        test    dx, dx
        pop     ax
        ret

; Call the ROM at segment AX; it finds BX, the PCI function that brought it, in AX. Keeps AX, DX, DS.
option_rom_call:
        pushad
        push    ds
        push    es
        push    cs
        push    word .back                  ; where it returns to
        push    ax
        push    word ROM_ENTRY
        mov     ax, bx
        retf
.back:
        cld
        pop     es
        pop     ds
        popad
        ret
