; INT 10h, the screen: VGA text of 80 columns and 25 rows (mode 3), eight pages at 0xB8000.
;
; A VGA BIOS in an option ROM takes the vector over (option_rom.asm); then nothing of this is used. Fonts are the display's
; matter: none is loaded, and there are no graphics modes.

int_10h:
        SERVICES video_services
video_services:
        FUNCTION 0x00, mode_set
        FUNCTION 0x01, cursor_shape_set
        FUNCTION 0x02, cursor_set
        FUNCTION 0x03, cursor_read
        FUNCTION 0x05, page_show
        FUNCTION 0x06, scroll_up
        FUNCTION 0x07, scroll_down
        FUNCTION 0x08, cell_read
        FUNCTION 0x09, cells_write
        FUNCTION 0x0A, characters_write
        FUNCTION 0x0E, teletype
        FUNCTION 0x0F, mode_read
        FUNCTION 0x10, palette
        FUNCTION 0x11, font
        FUNCTION 0x12, video_alternate
        FUNCTION 0x13, string_write
        FUNCTION 0x1A, display_kind
        OTHERWISE nothing

TEXT_SEGMENT    equ 0xB800
TEXT_MODE       equ 3
COLUMNS         equ 80
ROWS            equ 25
PAGES           equ 8
PAGE_BYTES      equ 0x1000
CELL_HEIGHT     equ 16
BLANK           equ 0x0720                  ; a space, grey on black
CURSOR_SHAPE    equ 0x0607                  ; first and last line, in eighths of a character
DISPLAY_KIND    equ 8                       ; VGA with an analogue colour screen

; At power-on: a VGA BIOS if there is one, and the text mode.
video_init:
        call    option_rom_video
        mov     ax, TEXT_MODE
        int     0x10
        ret

; AH=00h: set mode AL. Bit 7 keeps what is on the screen. Every text mode is mode 3 here; others are not there.
MODE_KEEP       equ 0x80
MODE_RESULT     equ 0x30                    ; AL after a text mode
mode_set:
        mov     bl, al
        and     al, ~MODE_KEEP & 0xFF
        cmp     al, TEXT_MODE
        ja      nothing
        call    vga_program
        push    ds
        pop     es
        mov     byte [data_video_mode], TEXT_MODE
        mov     word [data_columns], COLUMNS
        mov     word [data_page_bytes], PAGE_BYTES
        mov     word [data_page_start], 0
        xor     ax, ax
        mov     di, data_cursors
        mov     cx, PAGES
        rep stosw
        mov     byte [data_page], 0
        mov     word [data_crtc], CRTC_INDEX
        mov     byte [data_last_row], ROWS - 1
        mov     word [data_character_height], CELL_HEIGHT
        mov     byte [data_video_options], 0x60 ; 256 KB
        test    bl, MODE_KEEP
        jnz     .keep
        mov     ax, TEXT_SEGMENT
        mov     es, ax
        mov     ax, BLANK
        xor     di, di
        mov     cx, PAGES * PAGE_BYTES / 2
        rep stosw
        jmp     .shape
.keep:
        or      byte [data_video_options], MODE_KEEP
.shape:
        mov     byte [data_video_switches], 0xF9
        mov     byte [data_video_modes], 0x51 ; a VGA, 400 lines
        mov     byte [data_display], DISPLAY_KIND
        mov     cx, CURSOR_SHAPE
        call    cursor_shape_set
        call    cursor_show
        mov     caller_al, MODE_RESULT
        ret

; Write every register of the VGA for 80x25 text. Clobbers AX, CX, DX, SI.
vga_program:
        mov     dx, VGA_MISCELLANEOUS
        mov     al, 0x67                    ; registers at 3Dxh, memory open, 28 MHz, 400 lines
        out     dx, al
        mov     si, vga_sequencer
        mov     dx, VGA_SEQUENCER
        mov     cx, vga_crtc - vga_sequencer
        call    .registers
        mov     dx, CRTC_INDEX
        mov     ax, 0x0011                  ; registers 0 to 7 are locked by bit 7 of this one
        out     dx, ax
        mov     cx, vga_graphics - vga_crtc
        call    .registers
        mov     dx, VGA_GRAPHICS
        mov     cx, vga_attribute - vga_graphics
        call    .registers
        mov     dx, VGA_STATUS
        in      al, dx
        mov     dx, VGA_ATTRIBUTE
        xor     ah, ah
.attribute:                                 ; index and value by the same port
        mov     al, ah
        out     dx, al
        cs lodsb
        out     dx, al
        inc     ah
        cmp     ah, vga_registers_end - vga_attribute
        jb      .attribute
        mov     al, VGA_SHOW
        out     dx, al
        jmp     vga_colours

.registers:                                 ; CX registers from index 0 on, by index port DX, from CS:SI
        xor     ah, ah
.register:
        mov     al, ah
        out     dx, al
        inc     dx
        cs lodsb
        out     dx, al
        dec     dx
        inc     ah
        loop    .register
        ret

; The first 64 colours are those of the EGA: bits 0 to 2 are blue, green, red at two thirds, bits 3 to 5 at one third.
vga_colours:
        mov     dx, VGA_DAC_MASK
        mov     al, 0xFF
        out     dx, al
        mov     dx, VGA_DAC_WRITE
        mov     al, 0
        out     dx, al
        mov     dx, VGA_DAC_DATA
        xor     cx, cx
.colour:
        mov     bh, 0x04 | 0x20             ; red, then green, then blue
.part:
        mov     al, 0
        mov     ah, cl
        and     ah, bh
        test    ah, 0x07
        jz      .third
        add     al, 0x2A
.third:
        test    ah, 0x38
        jz      .out
        add     al, 0x15
.out:
        out     dx, al
        shr     bh, 1
        cmp     bh, 0x01 | 0x08             ; blue
        jae     .part
        inc     cx
        cmp     cx, 64
        jb      .colour
        ret

vga_sequencer:
        db      0x03, 0x00, 0x03, 0x00, 0x02
vga_crtc:
        db      0x5F, 0x4F, 0x50, 0x82, 0x55, 0x81, 0xBF, 0x1F, 0x00, 0x4F, 0x0D, 0x0E, 0x00, 0x00, 0x00, 0x00
        db      0x9C, 0x8E, 0x8F, 0x28, 0x1F, 0x96, 0xB9, 0xA3, 0xFF
vga_graphics:
        db      0x00, 0x00, 0x00, 0x00, 0x00, 0x10, 0x0E, 0x00, 0xFF
vga_attribute:
        db      0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x14, 0x07, 0x38, 0x39, 0x3A, 0x3B, 0x3C, 0x3D, 0x3E, 0x3F
        db      0x0C, 0x00, 0x0F, 0x08, 0x00
vga_registers_end:

; AH=0Fh: AL = mode, AH = columns, BH = page.
mode_read:
        mov     al, [data_video_options]
        and     al, MODE_KEEP
        or      al, [data_video_mode]
        mov     caller_al, al
        mov     al, [data_columns]
        mov     caller_ah, al
        mov     al, [data_page]
        mov     caller_bh, al
        ret

; AH=10h, AL=03h: BL = 0: attribute bit 7 is a brighter background, 1: it blinks. Colours cannot be changed.
ATTRIBUTE_MODE  equ 0x10
BLINK           equ 0x08
palette:
        cmp     al, 3
        jne     nothing
        mov     dx, VGA_STATUS
        in      al, dx
        mov     dx, VGA_ATTRIBUTE
        mov     al, ATTRIBUTE_MODE | VGA_SHOW
        out     dx, al
        inc     dx                          ; it is read one port further
        in      al, dx
        dec     dx
        and     al, ~BLINK & 0xFF
        test    bl, 1
        jz      .write
        or      al, BLINK
.write:
        out     dx, al
        ret

; AH=11h, AL=30h: CX = lines of a character, DL = the last row; ES:BP, the font, is not told. Fonts cannot be loaded.
font:
        cmp     al, 0x30
        jne     nothing
        mov     ax, [data_character_height]
        mov     caller_cx, ax
        mov     al, [data_last_row]
        mov     caller_dl, al
        ret

; AH=12h, BL=10h: BH = 0 (colour), BL = 3 (256 KB), CL = switches.
video_alternate:
        cmp     bl, 0x10
        jne     nothing
        mov     caller_bx, 0x0003
        mov     caller_cx, 0x0009
        ret

; AH=1Ah, AL=00h: BL = what the display is.
display_kind:
        test    al, al
        jnz     nothing
        mov     caller_al, 0x1A
        mov     caller_bx, DISPLAY_KIND
        ret
