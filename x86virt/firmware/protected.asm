; Short visits to protected mode: real-mode code cannot reach memory above 1 MB.

FLAT_CODE       equ 0x08
FLAT_DATA       equ 0x10
REAL_DATA       equ 0x18

        align   8, db 0
flat_table:
        dq      0
        dq      0x00009B0F0000FFFF          ; 08h: this segment, 16-bit code
        dq      0x00CF93000000FFFF          ; 10h: all memory, data
        dq      0x000093000000FFFF          ; 18h: a segment of 64 KB, as real mode has
flat_table_pointer:
        dw      flat_table_pointer - flat_table - 1
        dd      (BIOS_SEGMENT << 4) + flat_table

; ENTER_PROTECTED selector: protected mode with interrupts off; the code segment of the loaded table is this one, and the
; stack stays usable. Clobbers EAX. LEAVE_PROTECTED selector gives DS and ES the limits of real mode back.
%macro ENTER_PROTECTED 1
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     %1:%%protected
%%protected:
%endmacro
%macro LEAVE_PROTECTED 1
        mov     ax, %1
        mov     ds, ax
        mov     es, ax
        mov     eax, cr0
        and     al, ~1
        mov     cr0, eax
        jmp     BIOS_SEGMENT:%%real
%%real:
%endmacro

; Copy ECX bytes (a multiple of 4) from physical address ESI to EDI. Keeps segment registers and interrupts.
copy_physical:
        push    ds
        push    es
        pushf
        cli
        lgdt    [cs:flat_table_pointer]
        ENTER_PROTECTED FLAT_CODE
        mov     ax, FLAT_DATA
        mov     ds, ax
        mov     es, ax
        shr     ecx, 2
        a32 rep movsd
        LEAVE_PROTECTED REAL_DATA
        popf
        pop     es
        pop     ds
        ret

; Write EBX to the doubleword at physical address EDI. Clobbers EAX, keeps segment registers and interrupts.
write_physical:
        push    ds
        push    es
        pushf
        cli
        lgdt    [cs:flat_table_pointer]
        ENTER_PROTECTED FLAT_CODE
        mov     ax, FLAT_DATA
        mov     ds, ax
        mov     [edi], ebx
        LEAVE_PROTECTED REAL_DATA
        popf
        pop     es
        pop     ds
        ret

; INT 15h, AH=87h: copy CX words by the caller's own descriptor table at ES:SI. It describes the source (10h) and the target
; (18h); we add our code (20h) and a segment with the limits of real mode (28h).
MOVE_SOURCE     equ 0x10
MOVE_TARGET     equ 0x18
MOVE_CODE       equ 0x20
MOVE_REAL       equ 0x28
MOVE_TABLE_END  equ 0x30
memory_move:
        push    dword [cs:flat_table + FLAT_CODE]
        pop     dword [es:si + MOVE_CODE]
        push    dword [cs:flat_table + FLAT_CODE + 4]
        pop     dword [es:si + MOVE_CODE + 4]
        push    dword [cs:flat_table + REAL_DATA]
        pop     dword [es:si + MOVE_REAL]
        push    dword [cs:flat_table + REAL_DATA + 4]
        pop     dword [es:si + MOVE_REAL + 4]
        movzx   eax, caller_es
        shl     eax, 4
        movzx   esi, si
        add     eax, esi
        push    eax                         ; the operand of LGDT: limit, then base
        push    word MOVE_TABLE_END - 1
        mov     bx, sp
        cli
        lgdt    [ss:bx]
        add     sp, 6
        in      al, SYSTEM_CONTROL_A        ; A20 may be off here: opened for the copy alone
        push    ax
        call    a20_enable
        ENTER_PROTECTED MOVE_CODE
        mov     ax, MOVE_SOURCE
        mov     ds, ax
        mov     ax, MOVE_TARGET
        mov     es, ax
        xor     si, si
        xor     di, di
        rep movsw
        LEAVE_PROTECTED MOVE_REAL
        pop     ax
        and     al, ~CONTROL_RESET
        out     SYSTEM_CONTROL_A, al
        mov     caller_ah, 0
        jmp     succeed
