; What each key gives with nothing, with Shift, with Ctrl and with Alt: scan code, and character in the low byte.

%macro KEY 4
        dw      %1, %2, %3, %4
%endmacro
; LETTER code, character: a letter; Ctrl gives 1 to 26.
%macro LETTER 2
        dw      %1 << 8 | %2, %1 << 8 | %2 - 0x20, %1 << 8 | %2 - 0x60, %1 << 8
%endmacro
key_table:                                  ; from code 1 on
        KEY     0x011B, 0x011B, 0x011B, 0x0100 ; Esc
        KEY     0x0231, 0x0221, 0x0000, 0x7800 ; 1 !
        KEY     0x0332, 0x0340, 0x0300, 0x7900 ; 2 @
        KEY     0x0433, 0x0423, 0x0000, 0x7A00 ; 3 #
        KEY     0x0534, 0x0524, 0x0000, 0x7B00 ; 4 $
        KEY     0x0635, 0x0625, 0x0000, 0x7C00 ; 5 %
        KEY     0x0736, 0x075E, 0x071E, 0x7D00 ; 6 ^
        KEY     0x0837, 0x0826, 0x0000, 0x7E00 ; 7 &
        KEY     0x0938, 0x092A, 0x0000, 0x7F00 ; 8 *
        KEY     0x0A39, 0x0A28, 0x0000, 0x8000 ; 9 (
        KEY     0x0B30, 0x0B29, 0x0000, 0x8100 ; 0 )
        KEY     0x0C2D, 0x0C5F, 0x0C1F, 0x8200 ; - _
        KEY     0x0D3D, 0x0D2B, 0x0000, 0x8300 ; = +
        KEY     0x0E08, 0x0E08, 0x0E7F, 0x0E00 ; Backspace
        KEY     0x0F09, 0x0F00, 0x9400, 0xA500 ; Tab
        LETTER  0x10, 'q'
        LETTER  0x11, 'w'
        LETTER  0x12, 'e'
        LETTER  0x13, 'r'
        LETTER  0x14, 't'
        LETTER  0x15, 'y'
        LETTER  0x16, 'u'
        LETTER  0x17, 'i'
        LETTER  0x18, 'o'
        LETTER  0x19, 'p'
        KEY     0x1A5B, 0x1A7B, 0x1A1B, 0x1A00 ; [ {
        KEY     0x1B5D, 0x1B7D, 0x1B1D, 0x1B00 ; ] }
        KEY     0x1C0D, 0x1C0D, 0x1C0A, 0x1C00 ; Enter
        KEY     0, 0, 0, 0                     ; Ctrl
        LETTER  0x1E, 'a'
        LETTER  0x1F, 's'
        LETTER  0x20, 'd'
        LETTER  0x21, 'f'
        LETTER  0x22, 'g'
        LETTER  0x23, 'h'
        LETTER  0x24, 'j'
        LETTER  0x25, 'k'
        LETTER  0x26, 'l'
        KEY     0x273B, 0x273A, 0x0000, 0x2700 ; ; :
        KEY     0x2827, 0x2822, 0x0000, 0x2800 ; ' "
        KEY     0x2960, 0x297E, 0x0000, 0x2900 ; ` ~
        KEY     0, 0, 0, 0                     ; left Shift
        KEY     0x2B5C, 0x2B7C, 0x2B1C, 0x2B00 ; \ |
        LETTER  0x2C, 'z'
        LETTER  0x2D, 'x'
        LETTER  0x2E, 'c'
        LETTER  0x2F, 'v'
        LETTER  0x30, 'b'
        LETTER  0x31, 'n'
        LETTER  0x32, 'm'
        KEY     0x332C, 0x333C, 0x0000, 0x3300 ; , <
        KEY     0x342E, 0x343E, 0x0000, 0x3400 ; . >
        KEY     0x352F, 0x353F, 0x0000, 0x3500 ; / ?
        KEY     0, 0, 0, 0                     ; right Shift
        KEY     0x372A, 0x372A, 0x9600, 0x3700 ; * of the number pad
        KEY     0, 0, 0, 0                     ; Alt
        KEY     0x3920, 0x3920, 0x3920, 0x3920 ; Space
        KEY     0, 0, 0, 0                     ; Caps Lock
%assign function 0
%rep 10                                        ; F1 to F10
        KEY     0x3B00 + (function << 8), 0x5400 + (function << 8), 0x5E00 + (function << 8), 0x6800 + (function << 8)
%assign function function + 1
%endrep
        KEY     0, 0, 0, 0                     ; Num Lock
        KEY     0, 0, 0, 0                     ; Scroll Lock
        KEY     0x4700, 0x4737, 0x7700, 0      ; the number pad: 7 Home
        KEY     0x4800, 0x4838, 0x8D00, 0      ; 8 up
        KEY     0x4900, 0x4939, 0x8400, 0      ; 9 Page Up
        KEY     0x4A2D, 0x4A2D, 0x8E00, 0x4A00 ; -
        KEY     0x4B00, 0x4B34, 0x7300, 0      ; 4 left
        KEY     0x4C00, 0x4C35, 0x8F00, 0      ; 5
        KEY     0x4D00, 0x4D36, 0x7400, 0      ; 6 right
        KEY     0x4E2B, 0x4E2B, 0x9000, 0x4E00 ; +
        KEY     0x4F00, 0x4F31, 0x7500, 0      ; 1 End
        KEY     0x5000, 0x5032, 0x9100, 0      ; 2 down
        KEY     0x5100, 0x5133, 0x7600, 0      ; 3 Page Down
        KEY     0x5200, 0x5230, 0x9200, 0      ; 0 Insert
        KEY     0x5300, 0x532E, 0x9300, 0      ; . Delete
        KEY     0, 0, 0, 0                     ; SysRq
        KEY     0, 0, 0, 0
        KEY     0x565C, 0x567C, 0x0000, 0x0000 ; the key beside left Shift on keyboards of 102 keys
        KEY     0x8500, 0x8700, 0x8900, 0x8B00 ; F11
        KEY     0x8600, 0x8800, 0x8A00, 0x8C00 ; F12
KEYS_LAST       equ 0x58
%if $ - key_table != KEYS_LAST * 8
%error "a key is missing"
%endif

GREY_ROW        equ 7
; GREY code, plain (and with Shift), with Ctrl, with Alt
%macro GREY 4
        db      %1
        dw      %2, %3, %4
%endmacro
grey_table:
        GREY    0x1C, 0xE00D, 0xE00A, 0xA600   ; Enter
        GREY    0x35, 0xE02F, 0x9500, 0xA400   ; /
        GREY    0x47, 0x47E0, 0x77E0, 0x9700   ; Home
        GREY    0x48, 0x48E0, 0x8DE0, 0x9800   ; up
        GREY    0x49, 0x49E0, 0x84E0, 0x9900   ; Page Up
        GREY    0x4B, 0x4BE0, 0x73E0, 0x9B00   ; left
        GREY    0x4D, 0x4DE0, 0x74E0, 0x9D00   ; right
        GREY    0x4F, 0x4FE0, 0x75E0, 0x9F00   ; End
        GREY    0x50, 0x50E0, 0x91E0, 0xA000   ; down
        GREY    0x51, 0x51E0, 0x76E0, 0xA100   ; Page Down
        GREY    0x52, 0x52E0, 0x92E0, 0xA200   ; Insert
        GREY    0x53, 0x53E0, 0x93E0, 0xA300   ; Delete
grey_table_end:
