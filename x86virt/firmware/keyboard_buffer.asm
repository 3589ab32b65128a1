; INT 16h: the keys that wait, 15 at most, in a ring in the BIOS data area.

int_16h:
        SERVICES keyboard_services
keyboard_services:
        FUNCTION 0x00, key_read
        FUNCTION 0x01, key_peek
        FUNCTION 0x02, shift_read
        FUNCTION 0x05, key_put
        FUNCTION 0x09, keyboard_abilities
        FUNCTION 0x10, key_read_enhanced
        FUNCTION 0x11, key_peek_enhanced
        FUNCTION 0x12, shift_read_enhanced
        OTHERWISE nothing

; BX = the place behind place BX. Keeps the others.
key_next_place:
        add     bx, 2
        cmp     bx, [data_key_end]
        jb      .done
        mov     bx, [data_key_first]
.done:
        ret

; Put key AX behind the others; carry if there is no place. Clobbers BX, SI.
key_store:
        mov     bx, [data_key_tail]
        mov     si, bx
        call    key_next_place
        cmp     bx, [data_key_head]
        je      .full
        mov     [si], ax
        mov     [data_key_tail], bx
        clc
        ret
.full:
        stc
        ret

; AX = the first key, which stays; ZF if there is none. Clobbers BX.
key_first:
        mov     bx, [data_key_head]
        mov     ax, [bx]
        cmp     bx, [data_key_tail]
        ret

; Remove the first key. Clobbers BX.
key_remove:
        mov     bx, [data_key_head]
        call    key_next_place
        mov     [data_key_head], bx
        ret

; AX = the next key, removed; waits for one. Clobbers BX.
key_wait:
        cli
        call    key_first
        jne     .take
        sti
        hlt                                 ; the next interrupt may bring one
        jmp     key_wait
.take:
        call    key_remove
        ret

; What programs that know 83 keys see of key AX: AX without the signs of newer keys; carry if it is none of theirs.
KEYS_OLD        equ 0x84
GREY_SIGN       equ 0xE0
key_made_old:
        cmp     ah, GREY_SIGN
        je      .prefixed
        cmp     ah, KEYS_OLD
        ja      .none
        cmp     al, GREY_SIGN
        jne     .done
        test    ah, ah
        jz      .done                       ; a character entered as Alt and digits
        mov     al, 0
.done:
        clc
        ret
.prefixed:                                  ; Enter or / of the number pad
        mov     ah, 0x35
        cmp     al, '/'
        je      .done
        mov     ah, 0x1C
        jmp     .done
.none:
        stc
        ret

; AH=00h: wait for a key; AH = scan code, AL = character.
key_read:
        call    key_wait
        call    key_made_old
        jc      key_read
        mov     caller_ax, ax
        ret

; AH=01h: ZF = no key waits; otherwise AX = the key, which stays.
key_peek:
        cli
        call    key_first
        je      no_key
        call    key_made_old
        jnc     key_there
        call    key_remove                  ; not for this program: it would bar the others
        jmp     key_peek

; AH=10h and 11h: the same with the keys of 101.
key_read_enhanced:
        call    key_wait
        mov     caller_ax, ax
        ret
key_peek_enhanced:
        cli
        call    key_first
        je      no_key
key_there:
        mov     caller_ax, ax
        and     caller_flags, ~ZERO
        ret
no_key:
        or      caller_flags, ZERO
        ret

; AH=02h: AL = shift keys and locks.
shift_read:
        mov     al, [data_shift]
        mov     caller_al, al
        ret

; AH=12h: AL the same; AH = which of left and right, and the locks' keys that are down.
shift_read_enhanced:
        mov     al, [data_shift]
        mov     ah, [data_shift_more]
        and     ah, 0x73
        mov     bl, [data_keyboard_state]
        and     bl, STATE_RIGHT_CONTROL | STATE_RIGHT_ALT
        or      ah, bl
        mov     caller_ax, ax
        ret

; AH=05h: put key CX behind the others; AL = 1 if there is no place.
key_put:
        cli
        mov     ax, cx
        call    key_store
        setc    caller_al
        ret

; AH=09h: AL = bits of what INT 16h has: 10h to 12h.
ABILITY_ENHANCED equ 0x20
keyboard_abilities:
        mov     caller_al, ABILITY_ENHANCED
        ret
