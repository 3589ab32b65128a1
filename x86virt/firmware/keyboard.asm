; The keyboard: its controller at power-on, and its interrupt, IRQ 1, which turns scan codes into keys.

; Test the controller, reset the keyboard, let it send. Each wait has an end: a machine without keyboard boots too.
keyboard_init:
        mov     ax, data_keys
        mov     [data_key_head], ax
        mov     [data_key_tail], ax
        mov     [data_key_first], ax
        mov     word [data_key_end], data_keys + 32
        mov     byte [data_keyboard_state], STATE_ENHANCED
        in      al, PIC1_DATA               ; IRQ 1 would take the answers away
        push    ax
        or      al, 1 << 1
        out     PIC1_DATA, al
        call    keyboard_drain
        mov     al, KEYBOARD_SELF_TEST
        call    controller_command
        call    keyboard_answer
        mov     al, KEYBOARD_WRITE_MODE
        call    controller_command
        mov     al, KEYBOARD_MODE & ~1      ; no interrupts yet
        call    keyboard_send
        mov     al, KEYBOARD_ENABLE
        call    controller_command
        mov     al, KEY_RESET
        call    keyboard_send
        call    keyboard_answer             ; acknowledged,
        call    keyboard_answer             ; tested
        mov     al, KEY_START
        call    keyboard_send
        call    keyboard_answer
        mov     al, KEYBOARD_WRITE_MODE
        call    controller_command
        mov     al, KEYBOARD_MODE
        call    keyboard_send
        pop     ax
        out     PIC1_DATA, al
        ret

; Throw away what waits to be read. Clobbers AL, CX.
keyboard_drain:
        mov     cx, 16
.byte:
        in      al, KEYBOARD_STATUS
        test    al, KEYBOARD_OUTPUT_FULL
        jz      .done
        in      al, KEYBOARD_DATA
        loop    .byte
.done:
        ret

; Send the byte AL to the controller, or to the keyboard behind it. Clobbers CX.
controller_command:
        call    controller_wait
        out     KEYBOARD_COMMAND, al
        ret
keyboard_send:
        call    controller_wait
        out     KEYBOARD_DATA, al
        ret

; Wait until the controller takes a byte. Keeps AL, clobbers CX.
controller_wait:
        push    ax
        xor     cx, cx
.look:
        in      al, KEYBOARD_STATUS
        test    al, KEYBOARD_INPUT_FULL
        loopnz  .look
        pop     ax
        ret

; AL = the next byte of an answer, 0 if none comes within half a second. Clobbers EAX, CX.
keyboard_answer:
        mov     cx, 500                     ; looks, a millisecond apart
.look:
        in      al, KEYBOARD_STATUS
        test    al, KEYBOARD_OUTPUT_FULL
        jnz     .take
        mov     eax, PIT_HZ / 1000
        call    timer_wait
        loop    .look
        mov     al, 0
        ret
.take:
        in      al, KEYBOARD_DATA
        ret

; IRQ 1.
irq1_keyboard:
        push    ds
        push    es
        pushad
        cld
        push    DATA_SEGMENT
        pop     ds
        in      al, KEYBOARD_STATUS
        test    al, KEYBOARD_OUTPUT_FULL
        jz      .end
        in      al, KEYBOARD_DATA
        stc
        mov     ah, 0x4F                    ; a program may change the code, or take it
        int     0x15
        jnc     .end
        call    scan_code
.end:
        cli
        mov     al, OCW2_EOI
        out     PIC1_COMMAND, al
        popad
        pop     es
        pop     ds
        iret

; One byte of scan code set 1, AL. Keeps DS; clobbers the others.
SCAN_RELEASED   equ 0x80
SCAN_E0         equ 0xE0
SCAN_E1         equ 0xE1
scan_code:
        mov     bl, [data_keyboard_state]
        cmp     al, SCAN_E0
        je      .e0
        cmp     al, SCAN_E1
        je      .e1
        test    bl, STATE_E1
        jnz     .pause
        and     byte [data_keyboard_state], ~STATE_E0 & 0xFF
        cmp     al, KEY_ACKNOWLEDGED        ; an answer to a command
        je      nothing
        call    modifier_key                ; BL bit 1: behind a prefix E0
        jc      nothing
        test    al, SCAN_RELEASED
        jnz     nothing
        jmp     key_pressed
.e0:
        or      byte [data_keyboard_state], STATE_E0
        ret
.e1:
        or      byte [data_keyboard_state], STATE_E1
        ret
.pause:                                     ; Pause sends E1 1D 45, then the same released: its 1D is no Ctrl
        and     al, ~SCAN_RELEASED & 0xFF
        cmp     al, SCAN_CONTROL
        je      nothing
        and     byte [data_keyboard_state], ~STATE_E1 & 0xFF
        ret

SCAN_CONTROL    equ 0x1D
SCAN_SHIFT_LEFT equ 0x2A
SCAN_SHIFT_RIGHT equ 0x36
SCAN_ALT        equ 0x38
SCAN_CAPS       equ 0x3A
SCAN_NUM        equ 0x45
SCAN_SCROLL     equ 0x46
SCAN_INSERT     equ 0x52
SCAN_DELETE     equ 0x53
SCAN_PRINT      equ 0x37

; If AL is a key that changes what others mean: note it, and carry set. BL = data_keyboard_state before. Keeps AL, BL.
modifier_key:
        push    ax
        mov     ah, al
        and     al, ~SCAN_RELEASED & 0xFF
        cmp     al, SCAN_SHIFT_LEFT
        je      .shift
        cmp     al, SCAN_SHIFT_RIGHT
        je      .shift
        cmp     al, SCAN_CONTROL
        je      .control
        cmp     al, SCAN_ALT
        je      .alt
        mov     dl, SHIFT_CAPS
        cmp     al, SCAN_CAPS
        je      .lock
        test    bl, STATE_E0
        jnz     .other                      ; Ctrl-Break and the keys around the arrows are none
        mov     dl, SHIFT_NUM
        cmp     al, SCAN_NUM
        je      .lock
        mov     dl, SHIFT_SCROLL
        cmp     al, SCAN_SCROLL
        je      .lock
.other:
        pop     ax
        clc
        ret

.shift:
        test    bl, STATE_E0
        jnz     .done                       ; the keyboard's own, around the arrow keys
        mov     dl, SHIFT_LEFT
        cmp     al, SCAN_SHIFT_LEFT
        je      .held
        mov     dl, SHIFT_RIGHT
.held:                                      ; DL = bit of data_shift that is 1 while the key is down
        test    ah, SCAN_RELEASED
        jnz     .released
        or      [data_shift], dl
        jmp     .done
.released:
        not     dl
        and     [data_shift], dl
        jmp     .done

.control:
        mov     dx, SHIFT_CONTROL | MORE_LEFT_CONTROL << 8
        mov     cl, STATE_RIGHT_CONTROL
        jmp     .side
.alt:
        mov     dx, SHIFT_ALT | MORE_LEFT_ALT << 8
        mov     cl, STATE_RIGHT_ALT
.side:                                      ; two keys, left and right: DL is 1 while either is down
        mov     si, data_shift_more
        test    bl, STATE_E0
        jz      .note
        mov     si, data_keyboard_state
        mov     dh, cl
.note:
        or      [si], dh
        or      [data_shift], dl
        test    ah, SCAN_RELEASED
        jz      .done
        not     dh
        and     [si], dh
        and     cl, [data_keyboard_state]   ; is the right one still down?
        jnz     .done
        shr     dl, 2                       ; the left one's bit in data_shift_more
        test    [data_shift_more], dl
        jnz     .done
        shl     dl, 2
        not     dl
        and     [data_shift], dl
        cmp     al, SCAN_ALT
        jne     .done
        call    alt_number_done
        jmp     .done

.lock:                                      ; changes when its key goes down, not while it repeats
        test    ah, SCAN_RELEASED
        jnz     .unlocked
        test    [data_shift_more], dl
        jnz     .done
        or      [data_shift_more], dl
        xor     [data_shift], dl
        jmp     .done
.unlocked:
        not     dl
        and     [data_shift_more], dl
.done:
        pop     ax
        stc
        ret

; Alt was released: a number entered meanwhile is a character.
alt_number_done:
        push    ax
        push    bx
        mov     al, 0
        xchg    al, [data_alt_number]
        mov     ah, 0
        test    al, al
        jz      .none
        call    key_store
.none:
        pop     bx
        pop     ax
        ret

; A key that stands for something goes down: AL = its code, BL = data_keyboard_state before.
key_pressed:
        mov     bh, [data_shift]
        cmp     al, SCAN_DELETE
        jne     .not_restart
        mov     ah, bh
        and     ah, SHIFT_CONTROL | SHIFT_ALT
        cmp     ah, SHIFT_CONTROL | SHIFT_ALT
        je      restart_by_key
.not_restart:
        test    bl, STATE_E0
        jz      .plain
        cmp     al, SCAN_PRINT
        je      .print
        cmp     al, SCAN_SCROLL
        je      control_break
.plain:
        call    alt_digit
        jc      nothing
        cmp     al, SCAN_INSERT
        jne     .look_up
        test    bh, SHIFT_ALT | SHIFT_CONTROL
        jnz     .look_up
        xor     byte [data_shift], SHIFT_INSERT
.look_up:
        call    key_meaning
        test    ax, ax
        jz      nothing
        jmp     key_store
.print:
        int     0x05                        ; print the screen, for programs that can
        ret

RESTART_WARM    equ 0x1234                  ; what data_reset holds after Ctrl-Alt-Del
restart_by_key:
        mov     word [data_reset], RESTART_WARM
        jmp     restart

; Ctrl-Break: the keys that wait are gone, and INT 1Bh is called.
control_break:
        mov     byte [data_break], 0x80
        mov     ax, [data_key_first]
        mov     [data_key_head], ax
        mov     [data_key_tail], ax
        int     0x1B
        xor     ax, ax
        jmp     key_store

; Alt and a digit of the number pad: note the digit, and carry set. AL, BL and BH as in key_pressed, which it keeps.
alt_digit:
        test    bh, SHIFT_ALT
        jz      .none
        test    bl, STATE_E0
        jnz     .none
        movzx   si, al
        sub     si, PAD_FIRST
        jb      .none
        cmp     si, PAD_LAST - PAD_FIRST
        ja      .none
        mov     ah, [cs:si + pad_digits]
        cmp     ah, 10
        jae     .none
        push    ax
        mov     al, [data_alt_number]
        mov     cl, ah
        mov     ch, 10
        mul     ch
        add     al, cl
        mov     [data_alt_number], al
        pop     ax
        stc
        ret
.none:
        clc
        ret

PAD_FIRST       equ 0x47
PAD_LAST        equ 0x53
pad_digits:
        db      7, 8, 9, 0xFF, 4, 5, 6, 0xFF, 1, 2, 3, 0, 0xFF

; AX = what key AL (BL: prefix, BH: shift keys) gives: scan code and character, 0 for nothing.
key_meaning:
        test    bl, STATE_E0
        jnz     key_meaning_grey
        cmp     al, KEYS_LAST
        ja      .none
        movzx   si, al
        shl     si, 3
        add     si, key_table - 8
        test    bh, SHIFT_ALT
        jnz     .alt
        test    bh, SHIFT_CONTROL
        jnz     .control
        mov     ah, bh
        and     ah, SHIFT_LEFT | SHIFT_RIGHT
        jz      .locks
        mov     ah, 1                       ; AH = 1: the upper meaning
.locks:
        cmp     al, PAD_FIRST
        jb      .caps
        cmp     al, PAD_LAST
        ja      .chosen
        test    bh, SHIFT_NUM
        jmp     .turn
.caps:
        cmp     byte [cs:si], 'a'
        jb      .chosen
        cmp     byte [cs:si], 'z'
        ja      .chosen
        test    bh, SHIFT_CAPS
.turn:
        jz      .chosen
        xor     ah, 1
.chosen:
        test    ah, ah
        jz      .read
        add     si, 2
        jmp     .read
.control:
        add     si, 4
        jmp     .read
.alt:
        add     si, 6
.read:
        mov     ax, [cs:si]
        ret
.none:
        xor     ax, ax
        ret

; The same for keys behind the prefix E0: the arrows and their neighbours have E0 for a character.
key_meaning_grey:
        mov     si, grey_table
.row:
        cmp     al, [cs:si]
        je      .found
        add     si, GREY_ROW
        cmp     si, grey_table_end
        jb      .row
        xor     ax, ax
        ret
.found:
        inc     si
        test    bh, SHIFT_ALT
        jnz     .alt
        test    bh, SHIFT_CONTROL
        jz      .read
        add     si, 2
        jmp     .read
.alt:
        add     si, 4
.read:
        mov     ax, [cs:si]
        ret
