; A boot disk that asks the BIOS: each service is called once or more, and what it returns is printed to port 0xE9, a line each.
; The same disk runs on every BIOS, so that their answers can be compared (tests/test_firmware.py).
;
; A line is `name eax ebx ecx edx carry zero` in hexadecimal, `name eax`, or `name bytes`. The disk has four
; cylinders of 16 heads and 63 sectors, with anything behind this program. The BIOS loads the first sector alone; that
; loads the rest by INT 13h, AH=02h.

        bits    16
        cpu     686
        org     0x7C00

SECTORS         equ 24                      ; behind the first
BUFFER          equ 0x0000B000              ; what disk services read to, at segment 0
DATA_AREA       equ 0x0400
TEXT            equ 0xB800
PORT_CONSOLE    equ 0xE9
PORT_EXIT       equ 0xF4
PORT_SHUTDOWN   equ 0x8900
LAST_SECTOR     equ 1000                    ; one that we may write

start:
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, start
        sti
        cld
        mov     [drive], dl
        mov     ax, 0x0200 | SECTORS
        mov     bx, start + 512
        mov     cx, 0x0002
        mov     dh, 0
        int     0x13
        jnc     probes
        mov     al, '!'
        out     PORT_CONSOLE, al
.stop:
        cli
        hlt
        jmp     .stop

drive:  dd      0
        times   510 - ($ - $$) db 0
        dw      0xAA55

; PROBE "name", interrupt, EAX, EBX, ECX, EDX: call it and print a line. SI, DI and BP are as they were left.
%macro PROBE 6
        mov     eax, %3
        mov     ebx, %4
        mov     ecx, %5
        mov     edx, %6
        or      sp, sp                      ; carry and zero off
        int     %2
        push    word %%name
        call    report
        jmp     %%over
%%name: db      %1, 0
%%over:
%endmacro

; BYTES "name", segment, offset, count: print what lies there.
%macro BYTES 4
        mov     ax, %2
        mov     es, ax
        mov     si, %3
        mov     cx, %4
        push    word %%name
        call    report_bytes
        jmp     %%over
%%name: db      %1, 0
%%over:
%endmacro

; VALUE "name": print EAX.
%macro VALUE 1
        push    word %%name
        call    report_value
        jmp     %%over
%%name: db      %1, 0
%%over:
%endmacro

probes:
        call    probe_machine
        call    probe_video
        call    probe_text
        call    probe_memory
        call    probe_disk
        call    probe_disk_extended
        call    probe_keys
        call    probe_keyboard
        call    probe_clock
        call    probe_waits
        call    probe_interrupts
        call    probe_pci
        call    probe_ports
        mov     si, text_done
        call    print
        mov     al, 0
        out     PORT_EXIT, al
        mov     dx, PORT_SHUTDOWN
        mov     si, text_shutdown
.next:
        lodsb
        out     dx, al
        test    al, al
        jnz     .next
.stop:
        cli
        hlt
        jmp     .stop

text_done:
        db      "done", 10, 0
text_shutdown:
        db      "Shutdown", 0

probe_machine:
        movzx   eax, byte [drive]
        VALUE   "boot.drive"
        PROBE   "11", 0x11, 0x1111, 0, 0, 0
        PROBE   "12", 0x12, 0x1111, 0, 0, 0
        BYTES   "bda.ports", 0, DATA_AREA, 16
        BYTES   "bda.video", 0, DATA_AREA + 0x49, 7
        BYTES   "bda.cursor_shape", 0, DATA_AREA + 0x60, 5
        BYTES   "bda.disks", 0, DATA_AREA + 0x75, 1
        BYTES   "bda.keys", 0, DATA_AREA + 0x80, 4
        BYTES   "bda.rows", 0, DATA_AREA + 0x84, 3
        BYTES   "bda.video_kind", 0, DATA_AREA + 0x87, 4
        BYTES   "bda.keyboard", 0, DATA_AREA + 0x96, 1
        in      al, 0x21
        movzx   eax, al
        VALUE   "pic1.mask"
        ret

probe_video:
        PROBE   "10.00", 0x10, 0x0003, 0, 0, 0
        PROBE   "10.0F", 0x10, 0x0F00, 0xFFFF, 0, 0
        PROBE   "10.03", 0x10, 0x0300, 0, 0, 0
        call    crtc
        PROBE   "10.01", 0x10, 0x0100, 0, 0x0007, 0
        PROBE   "10.03.block", 0x10, 0x0300, 0, 0, 0
        PROBE   "10.01.hidden", 0x10, 0x0100, 0, 0x2000, 0
        PROBE   "10.03.hidden", 0x10, 0x0300, 0, 0, 0
        PROBE   "10.01.line", 0x10, 0x0100, 0, 0x0607, 0
        PROBE   "10.02", 0x10, 0x0200, 0, 0, 0x050A
        PROBE   "10.03.moved", 0x10, 0x0300, 0, 0, 0
        call    crtc
        PROBE   "10.05", 0x10, 0x0501, 0, 0, 0
        BYTES   "bda.page", 0, DATA_AREA + 0x4E, 2
        call    crtc
        PROBE   "10.0F.page", 0x10, 0x0F00, 0, 0, 0
        PROBE   "10.05.back", 0x10, 0x0500, 0, 0, 0
        PROBE   "10.1130", 0x10, 0x1130, 0x0600, 0, 0
        PROBE   "10.12", 0x10, 0x1200, 0x0010, 0, 0
        PROBE   "10.1A", 0x10, 0x1A00, 0, 0, 0
        PROBE   "10.unknown", 0x10, 0x7F00, 0, 0, 0
        ret

; What the CRTC holds: start address and cursor place.
crtc:
        xor     eax, eax
        mov     cx, 0x0C0C
        call    .word
        VALUE   "crtc.start"
        mov     cx, 0x0E0E
        call    .word
        VALUE   "crtc.cursor"
        ret
.word:
        mov     dx, 0x3D4
        mov     al, cl
        out     dx, al
        inc     dx
        in      al, dx
        mov     ah, al
        dec     dx
        lea     cx, [ecx + 1]
        push    ax
        mov     al, cl
        out     dx, al
        inc     dx
        in      al, dx
        mov     cl, al
        pop     ax
        mov     al, cl
        movzx   eax, ax
        ret

probe_text:
        PROBE   "10.00.clear", 0x10, 0x0003, 0, 0, 0
        PROBE   "10.09", 0x10, 0x0941, 0x001E, 3, 0
        PROBE   "10.08", 0x10, 0x0800, 0, 0, 0
        PROBE   "10.0A", 0x10, 0x0A42, 0x0000, 2, 0
        PROBE   "10.0E", 0x10, 0x0E43, 0x0007, 0, 0
        BYTES   "text.written", TEXT, 0, 8
        PROBE   "10.02.end", 0x10, 0x0200, 0, 0, 0x004F
        PROBE   "10.0E.wrap", 0x10, 0x0E44, 0x0007, 0, 0
        PROBE   "10.03.wrapped", 0x10, 0x0300, 0, 0, 0
        PROBE   "10.0E.return", 0x10, 0x0E0D, 0x0007, 0, 0
        PROBE   "10.0E.line", 0x10, 0x0E0A, 0x0007, 0, 0
        PROBE   "10.0E.letter", 0x10, 0x0E45, 0x0007, 0, 0
        PROBE   "10.0E.back", 0x10, 0x0E08, 0x0007, 0, 0
        PROBE   "10.0E.back_again", 0x10, 0x0E08, 0x0007, 0, 0
        PROBE   "10.0E.bell", 0x10, 0x0E07, 0x0007, 0, 0
        PROBE   "10.03.back", 0x10, 0x0300, 0, 0, 0
        BYTES   "text.wrapped", TEXT, 158, 4
        BYTES   "text.letter", TEXT, 320, 4
        PROBE   "10.02.corner", 0x10, 0x0200, 0, 0, 0x184F
        PROBE   "10.0E.scroll", 0x10, 0x0E46, 0x0007, 0, 0
        PROBE   "10.03.scrolled", 0x10, 0x0300, 0, 0, 0
        BYTES   "text.scrolled", TEXT, 23 * 160 + 156, 8
        BYTES   "text.top", TEXT, 0, 8
        PROBE   "10.02.down", 0x10, 0x0200, 0, 0, 0x1803
        PROBE   "10.0E.feed", 0x10, 0x0E0A, 0x0007, 0, 0
        PROBE   "10.03.fed", 0x10, 0x0300, 0, 0, 0
        call    pattern
        PROBE   "10.06", 0x10, 0x0602, 0x7000, 0x0203, 0x0606
        call    rectangle
        call    pattern
        PROBE   "10.07", 0x10, 0x0701, 0x7100, 0x0203, 0x0606
        call    rectangle
        PROBE   "10.06.all", 0x10, 0x0600, 0x0700, 0x0203, 0x0606
        call    rectangle
        PROBE   "10.07.large", 0x10, 0x0709, 0x1700, 0x0203, 0x0606
        call    rectangle
        PROBE   "10.02.home", 0x10, 0x0200, 0, 0, 0x0000
        xor     ax, ax
        mov     es, ax
        mov     bp, .plain
        PROBE   "10.1300", 0x10, 0x1300, 0x002E, 5, 0x0A00
        PROBE   "10.03.1300", 0x10, 0x0300, 0, 0, 0
        BYTES   "text.1300", TEXT, 10 * 160, 12
        xor     ax, ax
        mov     es, ax
        PROBE   "10.1301", 0x10, 0x1301, 0x002F, 7, 0x0B4E
        PROBE   "10.03.1301", 0x10, 0x0300, 0, 0, 0
        BYTES   "text.1301", TEXT, 11 * 160 + 156, 12
        xor     ax, ax
        mov     es, ax
        mov     bp, .coloured
        PROBE   "10.1303", 0x10, 0x1303, 0x0000, 2, 0x0C00
        PROBE   "10.03.1303", 0x10, 0x0300, 0, 0, 0
        BYTES   "text.1303", TEXT, 12 * 160, 6
        PROBE   "10.09.page", 0x10, 0x0947, 0x0230, 2, 0
        PROBE   "10.08.page", 0x10, 0x0800, 0x0200, 0, 0
        BYTES   "text.page", TEXT, 0x2000, 6
        ret
.plain:
        db      "a", 13, 10, "b", "c", "d", "e"
.coloured:
        db      "x", 0x12, "y", 0x34

; Rows 1 to 7 filled with letters, each row its own.
pattern:
        mov     ax, TEXT
        mov     es, ax
        mov     di, 160
        mov     ax, 0x0761
.row:
        mov     cx, 80
        rep stosw
        inc     ax
        cmp     al, 'h'
        jb      .row
        ret
; The first column of the rectangle that is scrolled, and its neighbours.
rectangle:
        mov     ax, TEXT
        mov     ds, ax
        xor     ax, ax
        mov     es, ax
        mov     di, BUFFER
        mov     si, 160 + 4
        mov     cx, 7
.row:
        movsd
        add     si, 4
        movsd
        add     si, 160 - 12
        loop    .row
        xor     ax, ax
        mov     ds, ax
        BYTES   "text.rectangle", 0, BUFFER, 56
        ret

probe_memory:
        PROBE   "15.88", 0x15, 0x8800, 0, 0, 0
        PROBE   "15.E801", 0x15, 0xE801, 0, 0, 0
        xor     ebx, ebx
.range:
        xor     ax, ax
        mov     es, ax
        mov     di, BUFFER
        mov     cx, 20
        mov     al, 0xEE
        rep stosb
        mov     di, BUFFER
        mov     [.next], ebx
        PROBE   "15.E820", 0x15, 0xE820, [.next], 20, 0x534D4150
        jc      .mapped
        push    ebx
        BYTES   "map", 0, BUFFER, 20
        pop     ebx
        test    ebx, ebx
        jnz     .range
.mapped:
        PROBE   "15.E820.unsigned", 0x15, 0xE820, 0, 20, 0
        PROBE   "15.2402", 0x15, 0x2402, 0, 0, 0
        PROBE   "15.2403", 0x15, 0x2403, 0, 0, 0
        PROBE   "15.2400", 0x15, 0x2400, 0, 0, 0
        PROBE   "15.2402.off", 0x15, 0x2402, 0, 0, 0
        mov     byte [.source_table + 0x1C], 0x20 ; target 200000h
        mov     si, .source_table
        xor     ax, ax
        mov     es, ax
        PROBE   "15.87.up", 0x15, 0x8700, 0, 8, 0
        PROBE   "15.2401", 0x15, 0x2401, 0, 0, 0
        PROBE   "15.2402.on", 0x15, 0x2402, 0, 0, 0
        mov     si, .target_table
        xor     ax, ax
        mov     es, ax
        PROBE   "15.87.down", 0x15, 0x8700, 0, 8, 0
        BYTES   "moved", 0, BUFFER, 16
        PROBE   "15.C0", 0x15, 0xC000, 0, 0, 0
        mov     eax, [es:bx]
        jc      .no_table
        VALUE   "15.C0.table"
.no_table:
        PROBE   "15.C1", 0x15, 0xC100, 0, 0, 0
        mov     eax, es
        VALUE   "15.C1.es"
        xor     ax, ax
        mov     es, ax
        PROBE   "15.4F", 0x15, 0x4F1E, 0, 0, 0
        PROBE   "15.5300", 0x15, 0x5300, 0, 0, 0
        PROBE   "15.5301", 0x15, 0x5301, 0, 0, 0
        PROBE   "15.5307.device", 0x15, 0x5307, 0x0100, 0x0003, 0
        PROBE   "15.unknown", 0x15, 0x7F00, 0, 0, 0
        ret
.next:  dd      0
.text:  db      "sixteen letters."
        align   8, db 0
.source_table:
        dq      0, 0, 0x000093000000FFFF + (.text - $$ + 0x7C00 << 16), 0x000093200000FFFF, 0, 0
.target_table:
        dq      0, 0, 0x000093200000FFFF, 0x000093000000FFFF + (BUFFER << 16), 0, 0

probe_disk:
        PROBE   "13.00", 0x13, 0x0000, 0, 0, [drive]
        PROBE   "13.08", 0x13, 0x0800, 0, 0, [drive]
        PROBE   "13.15", 0x13, 0x15FF, 0, 0, [drive]
        PROBE   "13.10", 0x13, 0x1000, 0, 0, [drive]
        PROBE   "13.0C", 0x13, 0x0C00, 0, 0x0001, [drive]
        PROBE   "13.11", 0x13, 0x1100, 0, 0, [drive]
        call    clear_buffer
        PROBE   "13.02", 0x13, 0x0202, BUFFER, 0x0022, [drive]
        call    sum_buffer
        PROBE   "13.02.head", 0x13, 0x0204, BUFFER, 0x0103, 0x0F80
        call    sum_buffer
        PROBE   "13.02.none", 0x13, 0x0200, BUFFER, 0x0001, [drive]
        PROBE   "13.02.sector_0", 0x13, 0x0201, BUFFER, 0x0000, [drive]
        PROBE   "13.01", 0x13, 0x0100, 0, 0, [drive]
        PROBE   "13.02.cylinder", 0x13, 0x0201, BUFFER, 0xFFC1, [drive]
        PROBE   "13.02.drive", 0x13, 0x0201, BUFFER, 0x0001, 0x85
        PROBE   "13.02.diskette", 0x13, 0x0201, BUFFER, 0x0001, 0x00
        PROBE   "13.08.drive", 0x13, 0x0800, 0, 0, 0x85
        PROBE   "13.15.drive", 0x13, 0x1500, 0, 0, 0x85
        PROBE   "13.04", 0x13, 0x0403, BUFFER, 0x0001, [drive]
        PROBE   "13.05", 0x13, 0x0501, BUFFER, 0x0001, [drive]
        PROBE   "13.unknown", 0x13, 0x7F00, 0, 0, [drive]
        mov     di, BUFFER                  ; write a sector of a pattern, and read it again
        mov     cx, 256
        mov     ax, 0x1357
.pattern:
        stosw
        add     ax, 0x0203
        loop    .pattern
        PROBE   "13.03", 0x13, 0x0301, BUFFER, 0x000A, 0x0280
        call    clear_buffer
        PROBE   "13.02.written", 0x13, 0x0201, BUFFER, 0x000A, 0x0280
        call    sum_buffer
        ret

clear_buffer:
        xor     ax, ax
        mov     es, ax
        mov     di, BUFFER
        mov     cx, 2048
        rep stosw
        ret

; The sum of the first 4 KB of the buffer, each word turned by its place.
sum_buffer:
        mov     si, BUFFER
        mov     cx, 2048
        xor     ebx, ebx
.word:
        lodsw
        rol     ebx, 3
        movzx   eax, ax
        add     ebx, eax
        loop    .word
        mov     eax, ebx
        VALUE   "sum"
        ret

probe_disk_extended:
        PROBE   "13.41", 0x13, 0x4100, 0x55AA, 0, [drive]
        PROBE   "13.41.unsigned", 0x13, 0x4100, 0x1234, 0, [drive]
        PROBE   "13.41.drive", 0x13, 0x4100, 0x55AA, 0, 0x85
        call    clear_buffer
        mov     si, .packet
        PROBE   "13.42", 0x13, 0x4200, 0, 0, [drive]
        BYTES   "13.42.packet", 0, .packet, 4
        call    sum_buffer
        mov     si, .write
        PROBE   "13.43", 0x13, 0x4300, 0, 0, [drive]
        call    clear_buffer
        mov     si, .write
        PROBE   "13.42.written", 0x13, 0x4200, 0, 0, [drive]
        call    sum_buffer
        mov     si, .packet
        PROBE   "13.44", 0x13, 0x4400, 0, 0, [drive]
        PROBE   "13.47", 0x13, 0x4700, 0, 0, [drive]
        mov     si, .beyond
        PROBE   "13.42.beyond", 0x13, 0x4200, 0, 0, [drive]
        mov     si, .far_beyond
        PROBE   "13.42.far_beyond", 0x13, 0x4200, 0, 0, [drive]
        mov     si, .crossing
        PROBE   "13.42.crossing", 0x13, 0x4200, 0, 0, [drive]
        BYTES   "13.42.crossed", 0x1FFE, 0x01FE, 4
        mov     word [BUFFER], 0x1A
        mov     si, BUFFER
        PROBE   "13.48", 0x13, 0x4800, 0, 0, [drive]
        BYTES   "13.48.parameters", 0, BUFFER, 26
        PROBE   "13.4B", 0x13, 0x4B01, 0, 0, [drive]
        ret
        align   8, db 0
.packet:
        dw      16, 3, BUFFER, 0
        dq      1500
.write:
        dw      16, 2, BUFFER, 0
        dq      LAST_SECTOR
.beyond:
        dw      16, 1, BUFFER, 0
        dq      0x0FFFFFF0
.far_beyond:
        dw      16, 1, BUFFER, 0
        dq      0x100000000
.crossing:                                  ; 1FFE:0000 to 1FFE:0800, over 0x20000
        dw      16, 4, 0x0000, 0x1FFE
        dq      600

; Keys that a program puts into the buffer.
probe_keys:
        PROBE   "16.01", 0x16, 0x0100, 0, 0, 0
        PROBE   "16.05", 0x16, 0x0500, 0, 0x1E61, 0
        PROBE   "16.01.key", 0x16, 0x0100, 0, 0, 0
        PROBE   "16.00", 0x16, 0x0000, 0, 0, 0
        PROBE   "16.01.empty", 0x16, 0x0100, 0, 0, 0
        PROBE   "16.05.grey", 0x16, 0x0500, 0, 0x48E0, 0
        PROBE   "16.11", 0x16, 0x1100, 0, 0, 0
        PROBE   "16.01.grey", 0x16, 0x0100, 0, 0, 0
        PROBE   "16.10", 0x16, 0x1000, 0, 0, 0
        PROBE   "16.11.empty", 0x16, 0x1100, 0, 0, 0
        PROBE   "16.02", 0x16, 0x0200, 0, 0, 0
        PROBE   "16.12", 0x16, 0x1200, 0, 0, 0
        mov     bp, 17
.fill:
        PROBE   "16.05.fill", 0x16, 0x0500, 0, 0x3920, 0
        dec     bp
        jnz     .fill
.drain:
        mov     ah, 1
        int     0x16
        jz      .drained
        mov     ah, 0
        int     0x16
        inc     bp
        jmp     .drain
.drained:
        movzx   eax, bp
        VALUE   "16.kept"
        ret

; Keys that the keyboard sends: the controller is told to behave as if their scan codes had come.
probe_keyboard:
        mov     si, .script
.press:
        lodsb
        cmp     al, 0
        je      .look
        cmp     al, 0xFF
        je      .done
        call    send_scan_code
        jmp     .press
.look:
        push    si
.key:
        mov     ah, 0x11
        int     0x16
        jz      .none
        PROBE   "16.10.typed", 0x16, 0x1000, 0, 0, 0
        jmp     .key
.none:
        PROBE   "16.12.held", 0x16, 0x1200, 0, 0, 0
        pop     si
        jmp     .press
.done:
        mov     si, .alt_number
.digit:
        lodsb
        call    send_scan_code
        cmp     si, .alt_number_end
        jb      .digit
        PROBE   "16.11.alt_number", 0x16, 0x1100, 0, 0, 0
        mov     si, .break
.code:
        lodsb
        call    send_scan_code
        cmp     si, .break_end
        jb      .code
        PROBE   "16.10.break", 0x16, 0x1000, 0, 0, 0
        BYTES   "bda.break", 0, DATA_AREA + 0x71, 1
        ret
.break:                                     ; Ctrl and Pause: the keys before it are gone
        db      0x1E, 0x9E, 0x1D, 0xE0, 0x46, 0xE0, 0xC6, 0x9D
.break_end:
.alt_number:                                ; Alt, 6, 5 of the number pad
        db      0x38, 0x4D, 0xCD, 0x4C, 0xCC, 0xB8
.alt_number_end:
.script:                                    ; 0: print the keys and the shift state
        db      0x1E, 0x9E, 0
        db      0x2A, 0x1E, 0x9E, 0x02, 0x82, 0, 0xAA, 0
        db      0x1D, 0x2E, 0xAE, 0x3B, 0xBB, 0, 0x9D, 0
        db      0x38, 0x10, 0x90, 0, 0xB8, 0
        db      0xE0, 0x38, 0x3C, 0xBC, 0, 0xE0, 0xB8, 0
        db      0xE0, 0x1D, 0x1F, 0x9F, 0, 0xE0, 0x9D, 0
        db      0xE0, 0x48, 0xE0, 0xC8, 0xE0, 0x1C, 0xE0, 0x9C, 0xE0, 0x35, 0xE0, 0xB5, 0
        db      0x3A, 0xBA, 0x1E, 0x9E, 0x02, 0x82, 0, 0x2A, 0x1E, 0x9E, 0xAA, 0x3A, 0xBA, 0
        db      0x45, 0xC5, 0x47, 0xC7, 0, 0x45, 0xC5, 0x47, 0xC7, 0
        db      0x1C, 0x9C, 0x0E, 0x8E, 0x01, 0x81, 0x39, 0xB9, 0x0F, 0x8F, 0x57, 0xD7, 0x58, 0xD8, 0
        db      0xE1, 0x1D, 0x45, 0xE1, 0x9D, 0xC5, 0x1E, 0x9E, 0
        db      0xFF

; Give the byte AL to the interrupt handler of the keyboard, and wait until it has taken it.
send_scan_code:
        push    ax
        call    .ready
        mov     al, 0xD2                    ; the next byte is the keyboard's answer
        out     0x64, al
        call    .ready
        pop     ax
        out     0x60, al
        mov     ecx, 100000
.taken:
        in      al, 0x64
        test    al, 1
        loopnz  .taken, ecx
        mov     ecx, 100                    ; the handler may have it, and not have finished
.finish:
        in      al, 0x80
        loop    .finish, ecx
        ret
.ready:
        in      al, 0x64
        test    al, 2
        jnz     .ready
        ret

probe_clock:
        mov     cx, 1                       ; just behind a tick
        call    .ticks
        PROBE   "1A.01", 0x1A, 0x0100, 0, 0x0012, 0x3456
        PROBE   "1A.00", 0x1A, 0x0000, 0, 0, 0
        PROBE   "1A.03", 0x1A, 0x0300, 0, 0x1234, 0x5600
        PROBE   "1A.02", 0x1A, 0x0200, 0, 0, 0
        PROBE   "1A.05", 0x1A, 0x0500, 0, 0x2024, 0x0229
        PROBE   "1A.04", 0x1A, 0x0400, 0, 0, 0
        PROBE   "1A.03.night", 0x1A, 0x0300, 0, 0x2359, 0x5900
        mov     cx, 24                      ; 1.3 seconds
        call    .ticks
        mov     ah, 2
        int     0x1A
        movzx   eax, cx
        VALUE   "1A.02.morning"
        PROBE   "1A.04.march", 0x1A, 0x0400, 0, 0, 0
        PROBE   "1A.unknown", 0x1A, 0x7F00, 0, 0, 0
        PROBE   "1A.01.midnight", 0x1A, 0x0100, 0, 0x0018, 0x00AE
        mov     cx, 4
        call    .ticks
        mov     ah, 0
        int     0x1A
        and     eax, 0xFF
        VALUE   "1A.00.midnight"
        ret
.ticks:                                     ; wait for CX ticks
        mov     ebx, [DATA_AREA + 0x6C]
.tick:
        hlt
        cmp     ebx, [DATA_AREA + 0x6C]
        je      .tick
        mov     ebx, [DATA_AREA + 0x6C]
        loop    .tick
        ret

; Waits of 200 milliseconds, or 3.6 ticks of the timer: whether they take as long, and not twenty ticks.
WAIT_TICKS      equ 3
MOST_WAIT_TICKS equ 20
probe_waits:
        call    .tick
        PROBE   "15.86", 0x15, 0x8600, 0, 0x0003, 0x0D40
        call    .passed
        VALUE   "15.86.right"
        mov     byte [BUFFER], 0
        call    .tick
        xor     ax, ax
        mov     es, ax
        PROBE   "15.83", 0x15, 0x8300, BUFFER, 0x0003, 0x0D40
.wait:
        hlt
        mov     eax, [DATA_AREA + 0x6C]
        sub     eax, [.begin]
        cmp     eax, MOST_WAIT_TICKS
        jae     .late
        test    byte [BUFFER], 0x80
        jz      .wait
.late:
        call    .passed
        VALUE   "15.83.right"
        BYTES   "15.83.flag", 0, BUFFER, 1
        ret
.tick:                                      ; begin just behind a tick
        mov     eax, [DATA_AREA + 0x6C]
.same:
        hlt
        cmp     eax, [DATA_AREA + 0x6C]
        je      .same
        mov     eax, [DATA_AREA + 0x6C]
        mov     [.begin], eax
        ret
.passed:                                    ; EAX = whether the time since then is right
        mov     eax, [DATA_AREA + 0x6C]
        sub     eax, [.begin]
        sub     eax, WAIT_TICKS
        cmp     eax, MOST_WAIT_TICKS - WAIT_TICKS
        setb    al
        movzx   eax, al
        ret
.begin: dd      0

; The interrupts that programs take over, and one that nobody has taken.
LINE_4          equ 1 << 4                  ; of the first serial port
probe_interrupts:
        cli
        mov     dword [0x1C * 4], .tick
        mov     dword [0x4A * 4], .alarm
        sti
        mov     cx, 4
        call    probe_clock.ticks
        mov     eax, [.ticks]
        shr     eax, 2                      ; four, or one more
        VALUE   "1C.ticks"
        PROBE   "1A.03.alarm", 0x1A, 0x0300, 0, 0x1000, 0x0000
        PROBE   "1A.06", 0x1A, 0x0600, 0, 0x1000, 0x0100
        PROBE   "1A.06.again", 0x1A, 0x0600, 0, 0x1000, 0x0100
        mov     cx, 24
        call    probe_clock.ticks
        mov     eax, [.alarms]
        VALUE   "4A.alarms"
        PROBE   "1A.07", 0x1A, 0x0700, 0, 0, 0
        int     0x0D                        ; no line is in service
        mov     dx, 0x3FC
        mov     al, 0x0B                    ; the serial port may interrupt
        out     dx, al
        in      al, 0x21
        and     al, ~LINE_4 & 0xFF
        out     0x21, al
        mov     dx, 0x3F9
        mov     al, 0x02                    ; it does: it can send
        out     dx, al
        mov     cx, 2
        call    probe_clock.ticks
        mov     al, 0
        out     dx, al
        mov     al, 0x0B                    ; the lines in service: none
        out     0x20, al
        in      al, 0x20
        movzx   eax, al
        VALUE   "irq4.service"
        in      al, 0x21
        movzx   eax, al
        VALUE   "irq4.mask"
        ret
.ticks: dd      0
.alarms: dd     0
.tick:
        inc     dword [cs:.ticks]
        iret
.alarm:
        inc     dword [cs:.alarms]
        iret

probe_pci:
        PROBE   "1A.B101", 0x1A, 0xB101, 0, 0, 0
        xor     si, si
        xor     di, di
        PROBE   "1A.B102", 0x1A, 0xB102, 0, 0x1237, 0x8086
        PROBE   "1A.B108", 0x1A, 0xB108, 0, 0, 0
        PROBE   "1A.B109", 0x1A, 0xB109, 0, 0, 0
        PROBE   "1A.B10A", 0x1A, 0xB10A, 0, 0, 0
        PROBE   "1A.B102.none", 0x1A, 0xB102, 0, 0x4321, 0x8086
        PROBE   "1A.B102.vendor", 0x1A, 0xB102, 0, 0x4321, 0xFFFF
        mov     si, 1
        PROBE   "1A.B102.second", 0x1A, 0xB102, 0, 0x1237, 0x8086
        xor     si, si
        PROBE   "1A.B103", 0x1A, 0xB103, 0, 0x060100, 0
        mov     di, 0x3C
        PROBE   "1A.B10B", 0x1A, 0xB10B, 0x0009, 0x0E, 0
        PROBE   "1A.B108.written", 0x1A, 0xB108, 0x0009, 0, 0
        mov     di, 0x101
        PROBE   "1A.B108.register", 0x1A, 0xB108, 0x0009, 0, 0
        mov     di, 0x01
        PROBE   "1A.B109.odd", 0x1A, 0xB109, 0x0009, 0, 0
        PROBE   "1A.B1.unknown", 0x1A, 0xB17F, 0, 0, 0
        ret

probe_ports:
        PROBE   "14.03", 0x14, 0x0300, 0, 0, 0
        PROBE   "14.00", 0x14, 0x00E3, 0, 0, 0
        PROBE   "14.01", 0x14, 0x0141, 0, 0, 0
        PROBE   "14.03.none", 0x14, 0x0300, 0, 0, 3
        PROBE   "17.02", 0x17, 0x0200, 0, 0, 0
        ret

; [stack] = name; the registers and flags of a service are printed, and kept.
report:
        pushfd
        pushad
        mov     bp, sp
        mov     si, [bp + 38]               ; behind the registers, the flags and the return address
        call    print
        mov     eax, [bp + 28]
        call    print_hex
        mov     eax, [bp + 16]
        call    print_hex
        mov     eax, [bp + 24]
        call    print_hex
        mov     eax, [bp + 20]
        call    print_hex
        mov     al, [bp + 32]
        and     al, 1
        call    print_bit
        mov     al, [bp + 32]
        shr     al, 6
        and     al, 1
        call    print_bit
        mov     al, 10
        out     PORT_CONSOLE, al
        popad
        popfd
        ret     2

; [stack] = name: print EAX.
report_value:
        pushfd
        pushad
        mov     bp, sp
        mov     si, [bp + 38]
        call    print
        mov     eax, [bp + 28]
        call    print_hex
        mov     al, 10
        out     PORT_CONSOLE, al
        popad
        popfd
        ret     2

; [stack] = name: print CX bytes from ES:SI on. ES is 0 afterwards.
report_bytes:
        pushfd
        pushad
        mov     bp, sp
        push    si
        mov     si, [bp + 38]
        call    print
        pop     si
        mov     al, ' '
        out     PORT_CONSOLE, al
.next:
        mov     bl, [es:si]
        inc     si
        mov     al, bl
        shr     al, 4
        call    print_digit
        mov     al, bl
        and     al, 15
        call    print_digit
        loop    .next
        mov     al, 10
        out     PORT_CONSOLE, al
        push    0
        pop     es
        popad
        popfd
        ret     2

; Print the text at SI. Clobbers AL, SI.
print:
        cs lodsb
        test    al, al
        jz      .done
        out     PORT_CONSOLE, al
        jmp     print
.done:
        ret

; Print a blank and EAX. Clobbers EAX, EBX, CX.
print_hex:
        mov     ebx, eax
        mov     al, ' '
        out     PORT_CONSOLE, al
        mov     cx, 8
.digit:
        rol     ebx, 4
        mov     al, bl
        and     al, 15
        call    print_digit
        loop    .digit
        ret

; Print a blank and the bit AL. Clobbers AL.
print_bit:
        push    ax
        mov     al, ' '
        out     PORT_CONSOLE, al
        pop     ax
        ; print_digit follows

; Print the hexadecimal digit AL. Clobbers AL.
print_digit:
        cmp     al, 10
        jb      .digit
        add     al, 'a' - '0' - 10
.digit:
        add     al, '0'
        out     PORT_CONSOLE, al
        ret

        times   (SECTORS + 1) * 512 - ($ - $$) db 0 ; an error here: more than the first sector loads
