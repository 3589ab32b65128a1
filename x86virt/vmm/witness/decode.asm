; The instruction at which the guest trapped: its bytes lie at the guest's CS:EIP, in pages that the processor has just
; fetched from. A table by the opcode's first byte leads to the operation, one of 256 more by the byte behind 0F;
; prefixes come back for the next byte. An opcode that is not in the tables is none that the VMM emulates: then the
; instruction has faulted by itself, and the fault is the guest's.

        align 16
emulate:
        BEGIN
        mov     eax, [ebp + F_CS]
        call    segment_base
        add     eax, [ebp + F_EIP]
        mov     [instruction_start], eax
        mov     esi, eax
        mov     dword [instruction_width], 32
        mov     dword [instruction_segment], SEGMENT_DS
        mov     dword [instruction_override], 0
        mov     dword [event_has_error], 1
next_byte:
        movzx   eax, byte [esi]
        inc     esi
        jmp     [one_byte + eax * 4]

prefix_width:
        mov     dword [instruction_width], 16
        jmp     next_byte
%macro SEGMENT_PREFIX 2
%1:     mov     dword [instruction_segment], %2
        mov     dword [instruction_override], 1
        jmp     next_byte
%endmacro
        SEGMENT_PREFIX prefix_es, 0
        SEGMENT_PREFIX prefix_cs, 1
        SEGMENT_PREFIX prefix_ss, 2
        SEGMENT_PREFIX prefix_ds, 3
        SEGMENT_PREFIX prefix_fs, 4
        SEGMENT_PREFIX prefix_gs, 5

two_bytes:
        movzx   eax, byte [esi]
        inc     esi
        jmp     [behind_0f + eax * 4]

not_sensitive:
        cmp     dword [ebp + F_VECTOR], CALLOUT_VECTOR
        je      refuse                          ; of translated code: left to the interpreter
        END_PATH emulate
        jmp     exception

; ModRM, SIB and displacement at ESI -> [instruction_mod, reg, rm], and for memory [instruction_offset].
; Uses EAX, ECX, EDX, EDI.
        align 16
modrm:
        movzx   eax, byte [esi]
        inc     esi
        mov     edx, eax
        mov     ecx, eax
        shr     edx, 3
        and     ecx, 7
        and     edx, 7
        shr     eax, 6
        mov     [instruction_reg], edx
        mov     [instruction_rm], ecx
        mov     [instruction_mod], eax
        cmp     al, 3
        je      .done
        cmp     cl, 4
        je      .sib
        cmp     cl, 5
        jne     .register
        test    eax, eax
        jz      .absolute
.register:
        call    .take_base
.displacement:
        cmp     al, 1
        jb      .store
        je      .short
.long:
        add     edi, [esi]
        add     esi, 4
        jmp     .store
.short:
        movsx   ecx, byte [esi]
        inc     esi
        add     edi, ecx
.store:
        mov     [instruction_offset], edi
.done:
        ret
.absolute:
        xor     edi, edi
        jmp     .long
.sib:
        movzx   edx, byte [esi]
        inc     esi
        push    edx
        mov     ecx, edx
        and     ecx, 7
        cmp     cl, 5
        jne     .sib_base
        test    eax, eax
        jnz     .sib_base
        mov     edi, [esi]
        add     esi, 4
        jmp     .index
.sib_base:
        call    .take_base
.index:
        pop     edx
        mov     ecx, edx
        shr     ecx, 3
        and     ecx, 7
        cmp     cl, 4
        je      .displacement_or_none
        movzx   ecx, byte [register_slots + ecx]
        push    ebx
        mov     ebx, [ebp + ecx]
        mov     ecx, edx
        shr     ecx, 6
        shl     ebx, cl
        add     edi, ebx
        pop     ebx
.displacement_or_none:
        jmp     .displacement
.take_base:                             ; ECX a register -> EDI; ESP and EBP address the stack segment
        cmp     dword [instruction_override], 0
        jne     .value
        mov     edi, ecx
        and     edi, 6
        cmp     edi, 4
        jne     .value
        mov     dword [instruction_segment], SEGMENT_SS
.value:
        movzx   ecx, byte [register_slots + ecx]
        mov     edi, [ebp + ecx]
        ret

; EAX an offset, ECX bytes, EDX a segment register -> EDI the linear address of that operand within its segment's limit.
; Uses EAX, ECX, EDX.
        align 16
operand:
        cmp     dword [VCPU(cpl)], 3
        je      refuse                          ; the U/S check of the page is left to a slower path
        push    edx
        movzx   edi, byte [segment_slots + edx]
        mov     edi, [ebp + edi]
        and     edi, 0xFFFC
        jz      .fault                          ; null
        push    ecx
        push    eax
        mov     eax, edi
        call    loaded_descriptor
        mov     edi, eax                        ; the low doubleword
        call    limit_of
        mov     ecx, [esp]                      ; the offset
        add     ecx, [esp + 4]                  ; and the bytes
        dec     ecx
        cmp     ecx, eax
        ja      .beyond
        mov     eax, edi
        call    base_of
        pop     edi
        add     edi, eax
        pop     ecx
        pop     edx
        ret
.beyond:
        add     esp, 8
.fault:
        pop     ecx
        mov     eax, VECTOR_GP
        cmp     ecx, SEGMENT_SS
        jne     .general
        mov     eax, VECTOR_SS
.general:
        xor     edx, edx
        jmp     fault

; The memory operand of the instruction: ECX bytes -> EDI.
memory_operand:
        mov     eax, [instruction_offset]
        mov     edx, [instruction_segment]
        jmp     operand

; -> EAX a 16-bit source: a register or memory.
source_word:
        cmp     dword [instruction_mod], 3
        je      .register
        mov     ecx, 2
        call    memory_operand
        movzx   eax, word [edi]
        ret
.register:
        mov     eax, [instruction_rm]
        movzx   eax, byte [register_slots + eax]
        movzx   eax, word [ebp + eax]
        ret

; The same for a segment that may be written.
writable_operand:
        push    eax
        push    ecx
        push    edx
        movzx   edi, byte [segment_slots + edx]
        mov     eax, [ebp + edi]
        call    loaded_descriptor
        and     edx, HIGH_CODE | HIGH_WRITABLE
        cmp     edx, HIGH_WRITABLE
        pop     edx
        pop     ecx
        pop     eax
        jne     refuse                          ; its fault is left to a slower path
        jmp     operand

memory_to_write:
        mov     eax, [instruction_offset]
        mov     edx, [instruction_segment]
        jmp     writable_operand

; AX to a 16-bit destination in memory, EAX to a register in the operand's size.
store_selector:
        cmp     dword [instruction_mod], 3
        je      .register
        push    eax
        mov     ecx, 2
        call    memory_to_write
        pop     eax
        mov     [edi], ax
        ret
.register:
        mov     ecx, [instruction_rm]
; EAX to the register ECX in the operand's size.
store_register:
        movzx   ecx, byte [register_slots + ecx]
        cmp     dword [instruction_width], 16
        je      .word
        mov     [ebp + ecx], eax
        ret
.word:
        mov     [ebp + ecx], ax
        ret

; EAX a value: push it in the operand's size. Keeps EAX.
push_value:
        mov     ecx, [ebp + F_SS]
        and     ecx, 0xFFF8
        test    dword [VMM_BASE + GDT + ecx + 4], HIGH_B
        jz      refuse                          ; the stack pointer is SP
        push    eax
        mov     eax, [ebp + F_ESP]
        mov     ecx, [instruction_width]
        shr     ecx, 3
        sub     eax, ecx
        push    eax
        mov     edx, SEGMENT_SS
        call    operand
        pop     dword [ebp + F_ESP]
        pop     eax
        cmp     dword [instruction_width], 16
        je      .word
        mov     [edi], eax
        ret
.word:
        mov     [edi], ax
        ret

register_slots: db F_EAX, F_ECX, F_EDX, F_EBX, F_ESP, F_EBP, F_ESI, F_EDI
segment_slots:  db F_ES, F_CS, F_SS, F_DS, F_FS, F_GS

        align 64
one_byte:
%assign opcode 0
%rep 256
    %if opcode == 0x06 || opcode == 0x0E || opcode == 0x16 || opcode == 0x1E
        dd      push_segment
    %elif opcode == 0x07
        dd      pop_es
    %elif opcode == 0x0F
        dd      two_bytes
    %elif opcode == 0x17
        dd      pop_ss
    %elif opcode == 0x1F
        dd      pop_ds
    %elif opcode == 0x26
        dd      prefix_es
    %elif opcode == 0x2E
        dd      prefix_cs
    %elif opcode == 0x36
        dd      prefix_ss
    %elif opcode == 0x3E
        dd      prefix_ds
    %elif opcode == 0x64
        dd      prefix_fs
    %elif opcode == 0x65
        dd      prefix_gs
    %elif opcode == 0x66
        dd      prefix_width
    %elif opcode == 0x67
        dd      refuse
    %elif opcode == 0x8C
        dd      from_segment
    %elif opcode == 0x8E
        dd      mov_sreg
    %elif opcode == 0x9A
        dd      call_far
    %elif opcode == 0x9C
        dd      push_flags
    %elif opcode == 0x9D
        dd      pop_flags
    %elif opcode == 0xC4 || opcode == 0xC5
        dd      load_pointer
    %elif opcode == 0xCA || opcode == 0xCE || opcode == 0xF0 || opcode == 0xF2 || opcode == 0xF3
        dd      refuse
    %elif opcode == 0xCB
        dd      ret_far
    %elif opcode == 0xCD
        dd      int_n
    %elif opcode == 0xCF
        dd      iret_d
    %elif opcode == 0xD9
        dd      x87_d9
    %elif opcode == 0xDD
        dd      x87_dd
    %elif opcode == 0xE4 || opcode == 0xE5
        dd      in_immediate
    %elif opcode == 0xE6 || opcode == 0xE7
        dd      out_immediate
    %elif opcode == 0xEA
        dd      jmp_far
    %elif opcode == 0xEC || opcode == 0xED
        dd      in_dx
    %elif opcode == 0xEE || opcode == 0xEF
        dd      out_dx
    %elif opcode == 0xF4
        dd      halt
    %elif opcode == 0xFA
        dd      clear_interrupts
    %elif opcode == 0xFB
        dd      set_interrupts
    %elif opcode == 0xFF
        dd      group_5
    %else
        dd      not_sensitive
    %endif
    %assign opcode opcode + 1
%endrep

behind_0f:
%assign opcode 0
%rep 256
    %if opcode == 0x00
        dd      group_6
    %elif opcode == 0x01
        dd      group_7
    %elif opcode == 0x02
        dd      load_access
    %elif opcode == 0x03
        dd      load_limit
    %elif opcode == 0x06
        dd      clear_task_switched
    %elif opcode == 0x08 || opcode == 0x09
        dd      write_back_caches
    %elif opcode == 0x20
        dd      from_control
    %elif opcode == 0x21
        dd      from_debug
    %elif opcode == 0x22
        dd      to_control
    %elif opcode == 0x30
        dd      write_msr
    %elif opcode == 0x32
        dd      read_msr
    %elif opcode == 0x35
        dd      sysexit_32
    %elif opcode == 0x23
        dd      to_debug
    %elif opcode == 0x31
        dd      read_time_stamp
    %elif opcode == 0x33
        dd      read_performance
    %elif opcode == 0xA0 || opcode == 0xA8
        dd      push_segment
    %elif opcode == 0xA1
        dd      pop_fs
    %elif opcode == 0xA9
        dd      pop_gs
    %elif opcode == 0xAE
        dd      x87_ae
    %elif opcode == 0xB2 || opcode == 0xB4 || opcode == 0xB5
        dd      load_pointer
    %else
        dd      not_sensitive
    %endif
    %assign opcode opcode + 1
%endrep
