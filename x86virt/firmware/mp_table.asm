; The MultiProcessor table (Intel, version 1.4): one processor and an I/O APIC, for systems that use them.
;
; It is there only if the processor says that it has a local APIC. It lies in the extended BIOS data area, where systems look
; for its pointer.

MP_PLACE        equ (EXTENDED_SEGMENT << 4) + extended_mp_table
LOCAL_APIC      equ 0xFEE00000
IO_APIC         equ 0xFEC00000
IO_APIC_INDEX   equ IO_APIC                 ; the number of a register,
IO_APIC_DATA    equ IO_APIC + 0x10          ; and its contents
APIC_SPURIOUS   equ 0xF0
APIC_LINT0      equ 0x350
APIC_LINT1      equ 0x360
APIC_ENABLED    equ 1 << 8                  ; spurious-interrupt register; the low byte is the vector
APIC_DELIVER_NMI equ 4 << 8                 ; local vector table
APIC_DELIVER_EXTINT equ 7 << 8
CPUID_APIC      equ 1 << 9                  ; leaf 1, EDX

mp_table_init:
        mov     eax, 1
        cpuid
        test    edx, CPUID_APIC
        jz      nothing
        push    edx
        push    eax
        mov     cx, EXTENDED_SEGMENT
        mov     es, cx
        mov     di, extended_mp_table
        mov     si, mp_pointer
        mov     cx, mp_end - mp_pointer
        rep cs movsb
        mov     di, extended_mp_table + mp_processor - mp_pointer
        pop     eax
        and     eax, 0x0FFF                 ; family, model, stepping
        mov     [es:di + 4], eax
        pop     edx
        mov     [es:di + 8], edx
        mov     di, extended_mp_table
        mov     cx, mp_header - mp_pointer
        mov     bx, 10
        call    mp_checksum
        mov     di, extended_mp_table + mp_header - mp_pointer
        mov     cx, mp_end - mp_header
        mov     bx, 7
        call    mp_checksum
        mov     edi, IO_APIC_INDEX
        xor     ebx, ebx                    ; its identity
        call    write_physical
        mov     edi, IO_APIC_DATA
        mov     ebx, IO_APIC_ID << 24
        call    write_physical
        ; virtual wire: the old interrupt controllers reach the processor through its APIC
        mov     edi, LOCAL_APIC + APIC_SPURIOUS
        mov     ebx, APIC_ENABLED | 0x0F
        call    write_physical
        mov     edi, LOCAL_APIC + APIC_LINT0
        mov     ebx, APIC_DELIVER_EXTINT
        call    write_physical
        mov     edi, LOCAL_APIC + APIC_LINT1
        mov     ebx, APIC_DELIVER_NMI
        jmp     write_physical

; Make the sum of CX bytes from ES:DI on zero by the byte at DI + BX. Clobbers AL, CX, SI.
mp_checksum:
        mov     si, di
        mov     al, 0
.next:
        sub     al, [es:si]
        inc     si
        loop    .next
        mov     [es:di + bx], al
        ret

MP_PROCESSOR    equ 0                       ; kinds of entries
MP_BUS          equ 1
MP_IO_APIC      equ 2
MP_INTERRUPT    equ 3
MP_LOCAL_INTERRUPT equ 4
MP_INT          equ 0                       ; kinds of interrupts
MP_NMI          equ 1
MP_EXTINT       equ 3
BUS_PCI         equ 0
BUS_ISA         equ 1
IO_APIC_ID      equ 1                       ; the first behind those of the processors
ALL_APICS       equ 0xFF
POWER_DEVICE    equ 1                       ; PIIX4: its pin A is line 9

        align   16, db 0
mp_pointer:
        db      "_MP_"
        dd      MP_PLACE + mp_header - mp_pointer
        db      1, 4, 0                     ; paragraphs, version 1.4, checksum
        db      0, 0, 0, 0, 0               ; a table, not a default; virtual wire
mp_header:
        db      "PCMP"
        dw      mp_end - mp_header
        db      4, 0                        ; version, checksum
        db      "X86VIRT PC          "
        dd      0                           ; no table of the maker
        dw      0
        dw      (mp_buses - mp_processor) / 20 + (mp_end - mp_buses) / 8
        dd      LOCAL_APIC
        dd      0
mp_processor:
        db      MP_PROCESSOR, 0, 0x14, 3    ; local APIC 0, its version; usable, boots
        dd      0, 0, 0, 0                  ; signature, features
mp_buses:
        db      MP_BUS, BUS_PCI, "PCI   "
        db      MP_BUS, BUS_ISA, "ISA   "
        db      MP_IO_APIC, IO_APIC_ID, 0x11, 1
        dd      IO_APIC
; INTERRUPT bus, line, input: a line and where it arrives; that of a PCI device is device x 4 + pin
%macro INTERRUPT 3
        db      MP_INTERRUPT, MP_INT, 0, 0, %1, %2, IO_APIC_ID, %3
%endmacro
        INTERRUPT BUS_PCI, POWER_DEVICE << 2, POWER_LINE
        INTERRUPT BUS_ISA, 0, 2             ; the timer, since input 0 has the old controllers
        INTERRUPT BUS_ISA, 1, 1
%assign line 3
%rep 13
        INTERRUPT BUS_ISA, line, line
%assign line line + 1
%endrep
        db      MP_LOCAL_INTERRUPT, MP_EXTINT, 0, 0, BUS_ISA, 0, ALL_APICS, 0
        db      MP_LOCAL_INTERRUPT, MP_NMI, 0, 0, BUS_ISA, 0, ALL_APICS, 1
mp_end:
%if mp_end - mp_pointer > extended_end - extended_mp_table
%error "no place for the MP table"
%endif
