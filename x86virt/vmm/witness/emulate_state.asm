; Instructions that read the virtual processor's state, and PUSHF and POPF. On x86 they do not trap: they come from a
; processor whose sensitive instructions trap, or from a callout of translated code.

; -- flags ------------------------------------------------------------------------------------------------------------
        align 16
push_flags:
        DECODED
        call    virtual_flags
        and     eax, ~(EFLAGS_RF | EFLAGS_VM)
        call    push_value
        FINISH  emulate_flags_image

; What the virtual CPL may not change stays; RF is cleared.
        align 16
pop_flags:
        DECODED
        test    dword [ebp + F_EFLAGS], EFLAGS_TF
        jnz     refuse                          ; its own trap follows
        mov     ecx, [ebp + F_SS]
        and     ecx, 0xFFF8
        test    dword [VMM_BASE + GDT + ecx + 4], HIGH_B
        jz      refuse
        mov     ecx, [instruction_width]
        shr     ecx, 3
        mov     eax, [ebp + F_ESP]
        mov     edx, SEGMENT_SS
        call    operand
        mov     ebx, EFLAGS_LOADABLE & ~EFLAGS_RF
        mov     eax, [VCPU(cpl)]
        cmp     eax, [VCPU(iopl)]
        ja      .no_if
        or      ebx, EFLAGS_IF
.no_if:
        test    eax, eax
        jnz     .no_iopl
        or      ebx, EFLAGS_IOPL
.no_iopl:
        mov     esi, [edi]
        cmp     dword [instruction_width], 16
        jne     .wide
        and     ebx, 0xFFFF
.wide:
        call    virtual_flags
        and     esi, ebx
        not     ebx
        and     eax, ebx
        or      eax, esi
        call    load_flags
        mov     ecx, [instruction_width]
        shr     ecx, 3
        add     [ebp + F_ESP], ecx
        FINISH  emulate_flags_image

; -- tables, selectors, the word of CR0 -----------------------------------------------------------------------------------
; SGDT and SIDT, EAX is ModRM.reg: all 32 bits of the base, at any operand size.
store_table:
        cmp     dword [instruction_mod], 3
        je      refuse
        push    eax
        mov     ecx, 6
        call    memory_to_write
        pop     ecx
        mov     eax, [VCPU(gdtr_limit) + ecx * 8]
        mov     edx, [VCPU(gdtr_base) + ecx * 8]
        mov     [edi], ax
        mov     [edi + 2], edx
        FINISH  emulate_state_read

; SLDT and STR, EAX is ModRM.reg.
store_selector_register:
        test    eax, eax
        mov     eax, [VCPU(ldtr)]
        jz      .store
        mov     eax, [VCPU(tr)]
.store:
        call    store_selector
        FINISH  emulate_state_read

; SMSW: 16 bits to memory, all of CR0 to a 32-bit register.
store_status:
        mov     eax, [VCPU(cr0)]
        call    store_selector
        FINISH  emulate_state_read

; MOV from a segment register.
        align 16
from_segment:
        call    modrm
        DECODED
        mov     edx, [instruction_reg]
        cmp     edx, 5
        ja      refuse
        call    guest_selector
        call    store_selector
        FINISH  emulate_state_read

; PUSH of a segment register: the opcode in EAX has its number in bits 5:3.
        align 16
push_segment:
        mov     edx, eax
        shr     edx, 3
        and     edx, 7
        DECODED
        call    guest_selector
        call    push_value
        FINISH  emulate_state_read

; EDX a segment register -> EAX its selector as the guest has it. Uses ECX.
guest_selector:
        movzx   ecx, byte [segment_slots + edx]
        mov     eax, [ebp + ecx]
        dec     edx
        cmp     edx, 1                          ; CS and SS show the ring
        jbe     virtual_selector
        ret

; -- LAR, LSL, VERR, VERW of the guest's own tables -----------------------------------------------------------------------
; ECX a selector -> EAX, EDX its descriptor if the guest's code may look at it; carry: not.
        align 16
inspect:
        test    ecx, 0xFFFC
        jz      .no
        push    ecx
        call    guest_descriptor
        pop     ecx
        jc      .no
        mov     edi, edx
        and     edi, HIGH_SEGMENT | HIGH_CODE | HIGH_EXPAND
        cmp     edi, HIGH_SEGMENT | HIGH_CODE | HIGH_EXPAND
        je      .yes                            ; conforming
        mov     edi, edx
        shr     edi, 13
        and     edi, 3
        and     ecx, 3
        cmp     ecx, edi
        ja      .no
        cmp     [VCPU(cpl)], edi
        ja      .no
.yes:
        clc
        ret
.no:
        stc
        ret

LIMITED equ 1 << 1 | 1 << 2 | 1 << 3 | 1 << 9 | 1 << 11        ; system descriptors that have a limit
WITH_RIGHTS equ LIMITED | 1 << 4 | 1 << 5 | 1 << 12

        align 16
load_access:
        mov     ebx, WITH_RIGHTS
        jmp     load_about
        align 16
load_limit:
        mov     ebx, LIMITED
load_about:
        call    modrm
        DECODED
        push    ebx
        call    source_word
        mov     ecx, eax
        call    inspect
        pop     ebx
        jc      not_usable
        test    edx, HIGH_SEGMENT
        jnz     .known
        mov     ecx, edx
        shr     ecx, 8
        and     ecx, 0xF
        bt      ebx, ecx
        jnc     not_usable
.known:
        cmp     ebx, LIMITED
        je      .limit
        mov     eax, edx
        and     eax, 0x00FFFF00
        jmp     .store
.limit:
        call    limit_of
.store:
        mov     ecx, [instruction_reg]
        call    store_register
usable:
        or      dword [ebp + F_EFLAGS], EFLAGS_ZF
        FINISH  emulate_segment
not_usable:
        and     dword [ebp + F_EFLAGS], ~EFLAGS_ZF
        FINISH  emulate_segment

; VERR and VERW, EAX is ModRM.reg.
verify:
        cmp     eax, 5
        ja      not_sensitive
        push    eax
        call    source_word
        mov     ecx, eax
        call    inspect
        pop     eax
        jc      not_usable
        test    edx, HIGH_SEGMENT
        jz      not_usable
        cmp     eax, 5
        je      .write
        test    edx, HIGH_CODE
        jz      usable
.bit:
        test    edx, HIGH_WRITABLE              ; of code: readable
        jnz     usable
        jmp     not_usable
.write:
        test    edx, HIGH_CODE
        jnz     not_usable
        jmp     .bit

; -- images of the x87 FPU ------------------------------------------------------------------------------------------------
; The processor stores its own, in which the selectors of the last instruction and its operand are made the guest's.
ENVIRONMENT equ 6                               ; FNSTENV and FNSAVE: ModRM.reg

        align 16
x87_d9:
        mov     ebx, 28
        jmp     x87_image
        align 16
x87_dd:
        mov     ebx, 108
x87_image:
        call    modrm
        cmp     dword [instruction_mod], 3
        je      not_sensitive
        cmp     dword [instruction_reg], ENVIRONMENT
        jne     not_sensitive
        cmp     dword [instruction_width], 32
        jne     refuse
        DECODED
        test    dword [VCPU(cr0)], CR0_EM | CR0_TS
        jnz     fault_nm
        mov     ecx, ebx
        call    memory_to_write
        push    edi
        cmp     ebx, 28
        jne     .save
        fnstenv [x87_buffer]
        jmp     .stored
.save:
        fnsave  [x87_buffer]
.stored:
        movzx   eax, word [x87_buffer + 16]
        call    virtual_selector
        mov     [x87_buffer + 16], ax
        movzx   eax, word [x87_buffer + 24]
        call    virtual_selector
        mov     [x87_buffer + 24], ax
        pop     edi
        mov     esi, x87_buffer
        mov     ecx, ebx
        shr     ecx, 2
        rep movsd
        FINISH  emulate_x87_store

; FXSAVE. Without SSE the fields of MXCSR and of the XMM registers are reserved: they are not written.
        align 16
x87_ae:
        call    modrm
        cmp     dword [instruction_mod], 3
        je      not_sensitive
        cmp     dword [instruction_reg], 0
        jne     not_sensitive
        DECODED
        test    dword [VCPU(cr0)], CR0_EM | CR0_TS
        jnz     fault_nm
        mov     ecx, 512
        call    memory_to_write
        test    edi, 15
        jnz     fault_gp_zero
        fxsave  [x87_buffer]
        push    edi
        movzx   eax, word [x87_buffer + 12]
        call    virtual_selector
        mov     [x87_buffer + 12], eax
        movzx   eax, word [x87_buffer + 20]
        call    virtual_selector
        mov     [x87_buffer + 20], eax
        pop     edi
        mov     esi, x87_buffer
        mov     ecx, 6
        rep movsd
        add     esi, 8
        add     edi, 8
        mov     ecx, 32
        rep movsd
        FINISH  emulate_x87_store

fault_nm:
        mov     dword [event_has_error], 0
        mov     eax, VECTOR_NM
        jmp     raise

; -- stores to traced frames ----------------------------------------------------------------------------------------------
; A plain MOV to memory that the processor may not write: performed through a window, in the guest's name.
        align 16
traced_write:
        BEGIN
        mov     eax, [ebp + F_CS]
        call    segment_base
        add     eax, [ebp + F_EIP]
        mov     [instruction_start], eax
        mov     esi, eax
        mov     dword [instruction_width], 32
        mov     dword [instruction_segment], SEGMENT_DS
        mov     dword [instruction_override], 0
        movzx   eax, byte [esi]
        inc     esi
        mov     ebx, eax
        and     eax, ~1
        cmp     eax, 0x88
        je      .register
        cmp     eax, 0xC6
        je      .immediate
        cmp     eax, 0xA2
        jne     refuse
        mov     eax, [esi]
        mov     [instruction_offset], eax
        add     esi, 4
        mov     eax, [ebp + F_EAX]
        jmp     .decoded
.register:
        call    modrm
        mov     eax, [instruction_reg]
        test    ebx, 1
        jnz     .whole
        mov     ecx, eax                        ; AL CL DL BL AH CH DH BH
        and     ecx, 3
        movzx   ecx, byte [register_slots + ecx]
        shr     eax, 2
        add     ecx, eax
        mov     eax, [ebp + ecx]
        jmp     .check
.whole:
        movzx   eax, byte [register_slots + eax]
        mov     eax, [ebp + eax]
        jmp     .check
.immediate:
        call    modrm
        cmp     dword [instruction_reg], 0
        jne     refuse
        mov     eax, [esi]
        mov     ecx, ebx
        and     ecx, 1
        lea     ecx, [ecx * 2 + ecx + 1]        ; 1 byte or 4
        add     esi, ecx
.check:
        cmp     dword [instruction_mod], 3
        je      refuse
.decoded:
        DECODED
        push    eax
        mov     ecx, ebx
        and     ecx, 1
        lea     ecx, [ecx * 2 + ecx + 1]
        call    memory_to_write
        lea     eax, [edi + 3]
        xor     eax, edi
        test    eax, 0xFFFFF000
        jnz     refuse                          ; two pages
        push    ebx
        mov     ebx, edi
        mov     edx, 2 | WALK_MARK
        call    walk
        jc      refuse                          ; the guest's own fault
        call    window
        pop     ebx
        pop     eax
        test    ebx, 1
        jz      .byte
        mov     [edi], eax
        FINISH  traced_write
.byte:
        mov     [edi], al
        FINISH  traced_write
