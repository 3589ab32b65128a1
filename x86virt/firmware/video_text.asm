; INT 10h: the cursor and the characters.

; AX = column and row (AL, AH) of the cursor of page BH. Keeps the others.
cursor_of_page:
        push    bx
        movzx   bx, bh
        add     bx, bx
        mov     ax, [data_cursors + bx]
        pop     bx
        ret

; ES:DI -> the cell in column DL and row DH of page BH. Clobbers AX.
cell_address:
        mov     ax, TEXT_SEGMENT
        mov     es, ax
        movzx   ax, bh
        imul    ax, [data_page_bytes]
        mov     di, ax
        mov     al, dh
        mul     byte [data_columns]
        add     al, dl
        adc     ah, 0
        add     ax, ax
        add     di, ax
        ret

; Write AX to the pair of CRTC registers CL (high byte) and CL + 1. Clobbers DX.
crtc_write_word:
        push    ax
        mov     dx, CRTC_INDEX
        mov     al, cl
        out     dx, ax                      ; index, and AH behind it
        pop     ax
        push    ax
        mov     ah, al
        mov     al, cl
        inc     al
        out     dx, ax
        pop     ax
        ret

; Put the visible cursor where the shown page has its own. Clobbers AX, BX, CX, DX, DI, ES.
cursor_show:
        mov     bh, [data_page]
        call    cursor_of_page
        mov     dx, ax
        call    cell_address
        mov     ax, di
        shr     ax, 1
        mov     cl, CRTC_CURSOR_HIGH
        jmp     crtc_write_word

; AH=01h: first line CH and last line CL of the cursor. Numbers for characters of 8 lines are scaled to our 16, and an
; underline of two lines keeps off the edges. Bit 5 of CH hides the cursor.
CURSOR_AS_TOLD  equ 1 << 0                  ; data_video_options: no scaling
cursor_shape_set:
        mov     [data_cursor_shape], cx
        test    byte [data_video_options], CURSOR_AS_TOLD
        jnz     .write
        test    cx, 0xF8F8
        jnz     .write
        add     cx, cx                      ; line n becomes 2n and 2n + 1
        inc     cl
        mov     al, cl
        sub     al, ch
        cmp     al, 3
        jne     .write
        inc     ch
        dec     cl
.write:
        mov     ax, cx
        mov     cl, CRTC_CURSOR_START
        jmp     crtc_write_word

; AH=02h: put the cursor of page BH into column DL, row DH.
cursor_set:
        cmp     bh, PAGES
        jae     nothing
        movzx   si, bh
        add     si, si
        mov     [data_cursors + si], dx
        jmp     cursor_show

; AH=03h: DX = where the cursor of page BH is, CX = its shape.
cursor_read:
        mov     ax, [data_cursor_shape]
        mov     caller_cx, ax
        mov     caller_dx, 0
        cmp     bh, PAGES
        jae     nothing
        call    cursor_of_page
        mov     caller_dx, ax
        ret

; AH=05h: show page AL.
page_show:
        cmp     al, PAGES
        jae     nothing
        mov     [data_page], al
        movzx   ax, al
        imul    ax, [data_page_bytes]
        mov     [data_page_start], ax
        shr     ax, 1
        mov     cl, CRTC_START_HIGH
        call    crtc_write_word
        jmp     cursor_show

; AH=06h and 07h: move the rectangle from row CH, column CL to row DH, column DL of the shown page up or down by AL rows
; (0: by all of them) and fill what becomes free with blanks of attribute BH.
scroll_up:
        mov     si, 1
        jmp     scroll
scroll_down:
        mov     si, -1
scroll:
        cmp     dl, [data_columns]
        jb      .columns
        mov     dl, [data_columns]
        dec     dl
.columns:
        cmp     dh, [data_last_row]
        jbe     .rows
        mov     dh, [data_last_row]
.rows:
        cmp     cl, dl
        ja      nothing
        cmp     ch, dh
        ja      nothing

; Move the rectangle: AL rows, BH attribute, CX and DX corners within the page, SI = 1 up, -1 down. Keeps BP.
ROW_STEP        equ -2                      ; local words below BP: bytes from a row to the next to be done,
MOVED           equ -4                      ; bytes from a row to the one that it takes,
WIDTH           equ -6                      ; and cells of a row
scroll_rectangle:
        push    ds
        enter   6, 0
        movzx   ax, al
        mov     [bp + MOVED], ax
        mov     ax, dx
        sub     al, cl
        inc     al
        mov     [bp + WIDTH], al
        mov     byte [bp + WIDTH + 1], 0
        sub     ah, ch
        inc     ah                          ; rows of the rectangle
        push    ax
        mov     dl, cl                      ; begin in the upper left corner, or in the lower left one
        cmp     si, 1
        jne     .corner
        mov     dh, ch
.corner:
        push    bx
        mov     bh, [data_page]
        call    cell_address
        pop     bx
        mov     ax, [data_columns]
        add     ax, ax
        imul    ax, si
        mov     [bp + ROW_STEP], ax
        pop     cx
        movzx   cx, ch                      ; rows to be done
        mov     dx, [bp + MOVED]
        test    dx, dx
        jz      .all
        cmp     dx, cx
        jb      .some
.all:
        mov     dx, cx
.some:
        imul    ax, dx
        mov     [bp + MOVED], ax
        sub     cx, dx                      ; rows that take another's cells; DX rows become blank
        push    es
        pop     ds
        jz      .blank
.move:
        mov     si, di
        add     si, [bp + MOVED]
        push    cx
        push    di
        mov     cx, [bp + WIDTH]
        rep movsw
        pop     di
        pop     cx
        add     di, [bp + ROW_STEP]
        loop    .move
.blank:
        mov     ah, bh
        mov     al, ' '
.blank_row:
        push    di
        mov     cx, [bp + WIDTH]
        rep stosw
        pop     di
        add     di, [bp + ROW_STEP]
        dec     dx
        jnz     .blank_row
        leave
        pop     ds
        ret

; ES:DI -> the cell under the cursor of page BH. Clobbers AX, DX.
cell_at_cursor:
        call    cursor_of_page
        mov     dx, ax
        jmp     cell_address

; AH=08h: AL = character, AH = attribute under the cursor of page BH.
cell_read:
        cmp     bh, PAGES
        jae     nothing
        call    cell_at_cursor
        mov     ax, [es:di]
        mov     caller_ax, ax
        ret

; AH=09h: write the character AL with attribute BL into CX cells from the cursor of page BH on; the cursor stays.
cells_write:
        cmp     bh, PAGES
        jae     nothing
        call    cell_at_cursor
        mov     al, caller_al
        mov     ah, bl
        rep stosw
        ret

; AH=0Ah: the same, and the attributes stay.
characters_write:
        cmp     bh, PAGES
        jae     nothing
        jcxz    .done
        call    cell_at_cursor
        mov     al, caller_al
.cell:
        stosb
        inc     di
        loop    .cell
.done:
        ret

; AH=0Eh: write AL at the cursor of the shown page, as a terminal would: 7 (a bell, silent), 8, 10 and 13 move. The attribute
; of the cell stays.
teletype:
        mov     bh, [data_page]
        call    teletype_put
        jmp     cursor_show

; Write AL at the cursor of page BH and move the cursor in the BIOS data area. Keeps BX, CX, SI and BP.
BELL            equ 7
BACKSPACE       equ 8
LINE_FEED       equ 10
CARRIAGE_RETURN equ 13
teletype_put:
        push    bx
        push    cx
        push    si
        mov     cl, al
        call    cursor_of_page
        mov     dx, ax                      ; DL = column, DH = row
        cmp     cl, BELL
        je      .done
        cmp     cl, BACKSPACE
        je      .back
        cmp     cl, CARRIAGE_RETURN
        je      .return
        cmp     cl, LINE_FEED
        je      .line
        call    cell_address
        mov     [es:di], cl
        inc     dl
        cmp     dl, [data_columns]
        jb      .move
        mov     dl, 0
.line:
        inc     dh
        cmp     dh, [data_last_row]
        jbe     .move
        dec     dh
        call    scroll_one
        jmp     .move
.back:
        test    dl, dl
        jz      .done
        dec     dl
        jmp     .move
.return:
        mov     dl, 0
.move:
        movzx   si, bh
        add     si, si
        mov     [data_cursors + si], dx
.done:
        pop     si
        pop     cx
        pop     bx
        ret

; The whole shown page one row up, the new row with the attribute of the last cell above it. Keeps BX, DX.
scroll_one:
        push    bx
        push    dx
        mov     dl, 0
        call    cell_address
        mov     bh, [es:di + 1]
        xor     cx, cx
        mov     dl, [data_columns]
        dec     dl
        mov     dh, [data_last_row]
        mov     al, 1
        mov     si, 1
        call    scroll_rectangle
        pop     dx
        pop     bx
        ret

; AH=13h: write CX characters of ES:BP from column DL, row DH of page BH on. Bit 0 of AL: the cursor goes with them; bit 1:
; each is followed by its attribute, otherwise all have BL.
STRING_MOVES    equ 1 << 0
STRING_COLOURED equ 1 << 1
string_write:
        cmp     bh, PAGES
        jae     nothing
        jcxz    .done
        call    cursor_of_page
        push    ax
        movzx   si, bh
        add     si, si
        mov     [data_cursors + si], dx
        mov     si, caller_bp
.character:
        mov     es, caller_es
        mov     al, [es:si]
        inc     si
        test    caller_al, STRING_COLOURED
        jz      .put
        mov     bl, [es:si]
        inc     si
.put:
        call    string_put
        loop    .character
        pop     ax
        test    caller_al, STRING_MOVES
        jnz     .done
        movzx   si, bh
        add     si, si
        mov     [data_cursors + si], ax
.done:
        jmp     cursor_show

; Write AL with attribute BL at the cursor of page BH; what moves the cursor has no attribute. Keeps BX, CX, SI.
string_put:
        cmp     al, CARRIAGE_RETURN
        ja      .coloured
        cmp     al, BELL
        jb      .coloured
        cmp     al, LINE_FEED
        je      teletype_put
        cmp     al, BACKSPACE
        jbe     teletype_put
        cmp     al, CARRIAGE_RETURN
        je      teletype_put
.coloured:
        push    ax
        call    cell_at_cursor
        mov     [es:di + 1], bl
        pop     ax
        jmp     teletype_put
