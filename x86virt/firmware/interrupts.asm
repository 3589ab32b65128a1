; The interrupt controllers and the table of interrupt vectors.

; Clear the vectors and the BIOS data area, fill the vectors, and let the controllers deliver at 08h and 70h. Clobbers all.
interrupt_init:
        xor     ax, ax
        mov     es, ax
        xor     di, di
        mov     cx, 0x500 / 2
        rep stosw
        mov     ax, BIOS_SEGMENT
        mov     ds, ax
        mov     cx, 0x60                    ; vectors from 60h on belong to programs
        xor     di, di
        mov     ax, dummy_interrupt
        call    .fill
        mov     cx, 8
        mov     di, IRQ0_VECTOR * 4
        mov     ax, unexpected_irq
        call    .fill
        mov     cx, 8
        mov     di, IRQ8_VECTOR * 4
        call    .fill
        mov     si, vectors
.vector:
        lodsb
        movzx   di, al
        shl     di, 2
        movsw
        mov     word [es:di], BIOS_SEGMENT
        cmp     si, vectors_end
        jb      .vector
        mov     ax, DATA_SEGMENT
        mov     ds, ax
        mov     word [data_equipment], EQUIPMENT
        jmp     pic_init

.fill:                                      ; CX vectors at ES:DI become this segment:AX
        stosw
        mov     word [es:di], BIOS_SEGMENT
        add     di, 2
        loop    .fill
        ret

; VECTOR number, handler
%macro VECTOR 2
        db      %1
        dw      %2
%endmacro
vectors:
        VECTOR  0x08, irq0_timer
        VECTOR  0x09, irq1_keyboard
        VECTOR  0x10, int_10h
        VECTOR  0x11, int_11h
        VECTOR  0x12, int_12h
        VECTOR  0x13, int_13h
        VECTOR  0x14, int_14h
        VECTOR  0x15, int_15h
        VECTOR  0x16, int_16h
        VECTOR  0x17, int_17h
        VECTOR  0x18, int_18h
        VECTOR  0x19, int_19h
        VECTOR  0x1A, int_1Ah
        VECTOR  0x1E, diskette_parameters   ; a table, no code
        VECTOR  0x70, irq8_clock
        VECTOR  0x75, irq13_float
vectors_end:

IRQ0_VECTOR     equ 0x08
IRQ8_VECTOR     equ 0x70
OPEN_1          equ 0xFF & ~(1 << 0 | 1 << 1 | 1 << CASCADE_LINE) ; timer, keyboard, second controller
OPEN_2          equ 0xFF & ~(1 << 0 | 1 << 5)                     ; clock (IRQ 8), FPU (IRQ 13)

; Clobbers AL.
pic_init:
        mov     al, ICW1_INIT_ICW4
        out     PIC1_COMMAND, al
        out     PIC2_COMMAND, al
        mov     al, IRQ0_VECTOR             ; ICW2
        out     PIC1_DATA, al
        mov     al, IRQ8_VECTOR
        out     PIC2_DATA, al
        mov     al, 1 << CASCADE_LINE       ; ICW3
        out     PIC1_DATA, al
        mov     al, CASCADE_LINE
        out     PIC2_DATA, al
        mov     al, ICW4_8086
        out     PIC1_DATA, al
        out     PIC2_DATA, al
        mov     al, OPEN_1                  ; OCW1
        out     PIC1_DATA, al
        mov     al, OPEN_2
        out     PIC2_DATA, al
        ret

; An interrupt without a handler of its own: end it, and mask its line, so that a line that stays up cannot come for ever.
unexpected_irq:
        push    ax
        push    bx
        mov     al, OCW3_READ_ISR
        out     PIC1_COMMAND, al
        in      al, PIC1_COMMAND
        test    al, al
        jz      .done                       ; none in service: an exception or a spurious IRQ 7
        test    al, 1 << CASCADE_LINE
        jnz     .second
        mov     bl, al
        in      al, PIC1_DATA
        or      al, bl
        out     PIC1_DATA, al
        jmp     .end
.second:
        mov     al, OCW3_READ_ISR
        out     PIC2_COMMAND, al
        in      al, PIC2_COMMAND
        mov     bl, al
        in      al, PIC2_DATA
        or      al, bl
        out     PIC2_DATA, al
        test    bl, bl
        jz      .end                        ; a spurious IRQ 15
        mov     al, OCW2_EOI
        out     PIC2_COMMAND, al
.end:
        mov     al, OCW2_EOI
        out     PIC1_COMMAND, al
.done:
        pop     bx
        pop     ax
        iret

; IRQ 13: an x87 exception of a program that expects the AT's way; it arrives as an NMI, as on the PC.
irq13_float:
        push    ax
        xor     al, al
        out     FLOAT_ERROR_CLEAR, al
        mov     al, OCW2_EOI
        out     PIC2_COMMAND, al
        out     PIC1_COMMAND, al
        pop     ax
        int     0x02
        iret

diskette_parameters:                        ; of a 1.44 MB drive; nobody has one here, but boot sectors copy the table
        db      0xAF, 0x02, 0x25, 0x02, 0x12, 0x1B, 0xFF, 0x6C, 0xF6, 0x0F, 0x08
