; How an INT is answered.
;
; A handler saves the caller's registers as a frame (frame.inc) and looks its function up in a table. The routine of that
; function finds every register as the caller left it, but for DS (the BIOS data area), BP (the frame) and a clear
; direction flag; it may change them all and leaves its results in the frame.

; BX = table of FUNCTION rows; the frame is on the stack.
serve:
        mov     bp, sp
        cld
        push    DATA_SEGMENT
        pop     ds
.row:
        cmp     byte [cs:bx], 0xFF
        je      .found
        cmp     ah, [cs:bx]
        je      .found
        add     bx, 3
        jmp     .row
.found:
        push    word leave_service          ; where the routine returns to
        push    word [cs:bx + 1]
        mov     ebx, caller_ebx
        ret                                 ; into the routine

leave_service:
        popad
        pop     es
        pop     ds
        iret

; For routines: the result in the caller's carry flag.
succeed:
        and     caller_flags, ~CARRY
        ret

refuse:
        or      caller_flags, CARRY
        ret

; The answer of INT 15h and others to functions that they do not have.
unsupported:
        mov     caller_ah, 0x86
        jmp     refuse

; For routines that take long: let interrupts in if the caller had them on.
allow_interrupts:
        test    caller_flags, INTERRUPTS
        jz      .off
        sti
.off:
        ret

nothing:
        ret
