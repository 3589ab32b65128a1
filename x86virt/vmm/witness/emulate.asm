; The sensitive instructions, performed on the virtual processor. ESI is behind the opcode. Each first checks what the
; guest's own processor would check; a fault leaves the virtual processor as it was.

; The instruction begins: RF, which the trap's frame has set, is cleared.
%macro DECODED 0
        mov     [instruction_end], esi
        and     dword [ebp + F_EFLAGS], ~EFLAGS_RF
%endmacro

; #GP(0) unless the virtual CPL is within the virtual IOPL.
%macro BY_IOPL 0
        mov     eax, [VCPU(cpl)]
        cmp     eax, [VCPU(iopl)]
        ja      fault_gp_zero
%endmacro

; -- flags and halt ---------------------------------------------------------------------------------------------------
        align 16
clear_interrupts:
        DECODED
        BY_IOPL
        mov     dword [VCPU(interrupt_flag)], 0
        FINISH  emulate_flags

        align 16
set_interrupts:                         ; interrupts stay held off for one more instruction if they were off
        DECODED
        BY_IOPL
        mov     eax, [instruction_end]
        sub     eax, [instruction_start]
        add     [ebp + F_EIP], eax
        mov     eax, [VCPU(interrupt_flag)]
        xor     eax, 1
        mov     [VCPU(interrupt_shadow)], eax
        mov     dword [VCPU(interrupt_flag)], 1
        END_PATH emulate_flags
        ret

        align 16
halt:
        DECODED
        PRIVILEGED
        mov     dword [VCPU(halted)], 1
        FINISH  emulate_halt

; -- control registers -------------------------------------------------------------------------------------------------
        align 16
from_control:
        call    modrm
        DECODED
        PRIVILEGED
        mov     edx, [instruction_reg]
        cmp     edx, 4
        ja      .undefined
        cmp     edx, 1
        je      .undefined
        movzx   edx, byte [control_slots + edx]
        mov     edx, [VMM_BASE + VCPU_RECORD + edx]
        mov     ecx, [instruction_rm]
        movzx   ecx, byte [register_slots + ecx]
        mov     [ebp + ecx], edx
        FINISH  emulate_control_register
.undefined:
        jmp     fault_ud

control_slots:  db VCPU_cr0, 0, VCPU_cr2, VCPU_cr3, VCPU_cr4

        align 16
to_control:
        call    modrm
        DECODED
        PRIVILEGED
        mov     ecx, [instruction_rm]
        movzx   ecx, byte [register_slots + ecx]
        mov     edx, [ebp + ecx]
        mov     eax, [instruction_reg]
        cmp     eax, 4
        ja      refuse
        jmp     [.writers + eax * 4]
        align   4
.writers:
        dd      .cr0, refuse, .cr2, .cr3, .cr4
.cr2:
        mov     [VCPU(cr2)], edx
        FINISH  emulate_control_register
.cr3:
        mov     [VCPU(cr3)], edx
        call    shadow_flush
        FINISH  emulate_control_register
.cr0:
        ; Reserved bits read as zero, ET as one; PG needs PE, NW needs CD.
        and     edx, 0xE005003F
        or      edx, CR0_ET
        mov     eax, edx
        and     eax, CR0_PG | CR0_PE
        cmp     eax, CR0_PG
        je      fault_gp_zero
        mov     eax, edx
        and     eax, CR0_NW | CR0_CD
        cmp     eax, CR0_NW
        je      fault_gp_zero
        test    edx, CR0_PE
        jz      refuse                          ; real mode
        ; MP, EM and TS must act on the guest's own instructions: they go into the real register.
        mov     ecx, edx
        and     ecx, CR0_EM | CR0_TS | CR0_MP
        mov     eax, cr0
        mov     ebx, eax
        and     eax, ~(CR0_EM | CR0_TS | CR0_MP)
        or      eax, ecx
        cmp     eax, ebx
        je      .own
        mov     cr0, eax
.own:
        mov     [VCPU(cr0)], edx
        call    shadow_flush
        FINISH  emulate_control_register
.cr4:
        test    edx, ~(CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE)
        jnz     fault_gp_zero
        mov     [VCPU(cr4)], edx
        mov     eax, cr4                        ; RDTSC at ring 3 must trap as the guest asked
        mov     ecx, eax
        and     eax, ~CR4_TSD
        and     edx, CR4_TSD
        or      eax, edx
        cmp     eax, ecx
        je      .same
        mov     cr4, eax
.same:
        call    shadow_flush
        FINISH  emulate_control_register

        align 16
clear_task_switched:
        DECODED
        PRIVILEGED
        and     dword [VCPU(cr0)], ~CR0_TS
        clts
        FINISH  emulate_control_register

; LMSW: MP, EM and TS change, PE can only be set.
load_status:
        PRIVILEGED
        call    source_word
        mov     edx, eax
        and     edx, CR0_EM | CR0_TS | CR0_MP
        mov     ecx, cr0
        and     ecx, ~(CR0_EM | CR0_TS | CR0_MP)
        or      ecx, edx
        mov     cr0, ecx
        and     eax, CR0_EM | CR0_TS | CR0_MP | CR0_PE
        mov     ecx, [VCPU(cr0)]
        and     ecx, ~(CR0_EM | CR0_TS | CR0_MP)
        or      ecx, eax
        mov     [VCPU(cr0)], ecx
        FINISH  emulate_control_register

; WBINVD and INVD: the guest's caches are the machine's, which stay coherent.
        align 16
write_back_caches:
        DECODED
        PRIVILEGED
        FINISH  emulate_control_register

; -- descriptor tables, INVLPG ------------------------------------------------------------------------------------------
        align 16
group_7:
        call    modrm
        DECODED
        mov     eax, [instruction_reg]
        cmp     eax, 3
        je      load_idt
        cmp     eax, 7
        je      invalidate_page
        cmp     eax, 1
        jbe     store_table
        cmp     eax, 4
        je      store_status
        cmp     eax, 6
        je      load_status
        REFUSE                                  ; LGDT

invalidate_page:
        cmp     dword [instruction_mod], 3
        je      refuse
        PRIVILEGED
        mov     eax, [instruction_segment]
        movzx   eax, byte [segment_slots + eax]
        mov     eax, [ebp + eax]
        call    segment_base
        mov     ebx, [instruction_offset]
        add     ebx, eax
        call    shadow_drop
        FINISH  emulate_invlpg

load_idt:
        cmp     dword [instruction_mod], 3
        je      refuse
        PRIVILEGED
        mov     ecx, 6
        call    memory_operand
        movzx   eax, word [edi]
        mov     edx, [edi + 2]
        cmp     dword [instruction_width], 16
        jne     .wide
        and     edx, 0xFFFFFF
.wide:
        mov     [VCPU(idtr_limit)], eax
        mov     [VCPU(idtr_base)], edx
        ; Gates that were opened to ring 3 were those of the old table.
        mov     ecx, 8
.next:
        mov     eax, [VCPU(open_gates) + ecx * 4 - 4]
        test    eax, eax
        jnz     .close
.closed:
        dec     ecx
        jnz     .next
        FINISH  emulate_descriptor_table
.close:
        bsf     edx, eax
        btr     eax, edx
        mov     [VCPU(open_gates) + ecx * 4 - 4], eax
        lea     edi, [ecx - 1]
        shl     edi, 5
        add     edi, edx
        and     dword [VMM_BASE + IDT + edi * 8 + 4], ~(3 << 13)
        jmp     .next

        align 16
group_6:
        call    modrm
        DECODED
        mov     eax, [instruction_reg]
        cmp     eax, 1
        jbe     store_selector_register
        cmp     eax, 4
        jae     verify
        PRIVILEGED
        cmp     eax, 2
        je      load_ldt
        call    source_word
        mov     ecx, eax
        push    ecx
        test    ecx, 0xFFFC
        jz      fault_gp_zero
        test    cl, 4
        jnz     .bad
        call    guest_descriptor
        jc      .bad
        mov     ecx, edx
        and     ecx, 0x1700                     ; an available TSS, 16 or 32 bits wide
        cmp     ecx, 0x0100
        jne     .bad
        test    edx, HIGH_PRESENT
        jz      .absent
        push    eax
        push    edx
        lea     ebx, [esi + 5]                  ; busy, in the guest's table
        mov     edx, 2 | WALK_MARK
        call    walk
        jc      refuse
        call    window
        pop     edx
        or      edx, 2 << 8
        mov     [edi], dh
        pop     eax
        mov     ecx, [esp]
        mov     [VCPU(tr)], ecx
        mov     ecx, edx
        shr     ecx, 8
        and     ecx, 0xF0FF
        mov     [VCPU(tr_access)], ecx
        push    eax
        call    base_of
        mov     edi, eax
        pop     eax
        mov     [VCPU(tr_base)], edi
        call    limit_of
        mov     [VCPU(tr_limit)], eax
        pop     ecx
        FINISH  emulate_descriptor_table
.bad:
        pop     edx
        and     edx, 0xFFFC
        jmp     fault_gp
.absent:
        pop     edx
        and     edx, 0xFFFC
        mov     eax, VECTOR_NP
        jmp     fault

load_ldt:                               ; a null one; what a guest loads from an LDT is not shadowed
        call    source_word
        test    eax, 0xFFFC
        jnz     refuse
        xor     ecx, ecx
        mov     [VCPU(ldtr)], eax
        mov     [VCPU(ldtr_base)], ecx
        mov     [VCPU(ldtr_limit)], ecx
        mov     dword [VCPU(ldtr_access)], 1 << 16      ; unusable
        FINISH  emulate_descriptor_table

; -- model-specific registers ---------------------------------------------------------------------------------------------
        align 16
read_msr:
        DECODED
        PRIVILEGED
        mov     ecx, [ebp + F_ECX]
        xor     edx, edx
        sub     ecx, 0x174
        cmp     ecx, 2
        ja      .others
        mov     eax, [VCPU(sysenter_cs) + ecx * 4]
.store:
        mov     [ebp + F_EAX], eax
        mov     [ebp + F_EDX], edx
        FINISH  emulate_msr
.others:
        mov     eax, 0xFEE00100                 ; the local APIC: the processor has one, disabled
        cmp     ecx, 0x1B - 0x174
        je      .store
        cmp     ecx, 0x10 - 0x174
        je      refuse                          ; TSC
        jmp     fault_gp_zero

        align 16
write_msr:
        DECODED
        PRIVILEGED
        mov     ecx, [ebp + F_ECX]
        mov     eax, [ebp + F_EAX]
        sub     ecx, 0x174
        jz      .code
        cmp     ecx, 2
        ja      .others
        mov     [VCPU(sysenter_cs) + ecx * 4], eax
        FINISH  emulate_msr
.code:                                          ; SYSENTER enters the VMM while the guest's is usable
        mov     [VCPU(sysenter_cs)], eax
        test    eax, 0xFFFC
        mov     eax, 0
        jz      .unusable
        mov     eax, VMM_CODE_SELECTOR
.unusable:
        xor     edx, edx
        mov     ecx, 0x174
        wrmsr
        mov     eax, VMM_BASE + STACK_TOP - 20
        mov     ecx, 0x175
        wrmsr
        mov     eax, VMM_BASE + SYSENTER_ENTRY
        mov     ecx, 0x176
        wrmsr
        FINISH  emulate_msr
.others:
        cmp     ecx, 0x10 - 0x174
        je      refuse                          ; TSC
        cmp     ecx, 0x1B - 0x174
        je      refuse
        jmp     fault_gp_zero

; -- ports ------------------------------------------------------------------------------------------------------------
; The operand size is 1 for even opcodes; EAX is the opcode still.
%macro PORT_BYTES 0
        mov     ebx, 1
        test    al, 1
        jz      %%byte
        mov     ebx, [instruction_width]
        shr     ebx, 3
%%byte:
%endmacro

        align 16
in_immediate:
        PORT_BYTES
        movzx   eax, byte [esi]
        inc     esi
        jmp     port_in
in_dx:
        PORT_BYTES
        movzx   eax, word [ebp + F_EDX]
port_in:
        DECODED
        call    check_port
        mov     edx, eax                        ; the port
        call    device_in
        cmp     ebx, 2
        ja      .whole
        je      .word
        mov     [ebp + F_EAX], al
        FINISH  emulate_port
.word:
        mov     [ebp + F_EAX], ax
        FINISH  emulate_port
.whole:
        mov     [ebp + F_EAX], eax
        FINISH  emulate_port

        align 16
out_immediate:
        PORT_BYTES
        movzx   eax, byte [esi]
        inc     esi
        jmp     port_out
out_dx:
        PORT_BYTES
        movzx   eax, word [ebp + F_EDX]
port_out:
        DECODED
        call    check_port
        mov     edx, eax
        mov     eax, [ebp + F_EAX]
        call    device_out
        FINISH  emulate_port

; EAX a port, EBX bytes: IOPL, or the permission bitmap of the guest's TSS (SDM volume 1, section 18.5). Keeps both.
check_port:
        mov     ecx, [VCPU(cpl)]
        cmp     ecx, [VCPU(iopl)]
        jbe     .permitted
        mov     ecx, [VCPU(tr_access)]
        and     ecx, 0x1F
        cmp     ecx, 11                         ; a busy 32-bit TSS
        jne     fault_gp_zero
        cmp     dword [VCPU(tr_limit)], 103
        jb      fault_gp_zero
        mov     edi, [VCPU(tr_base)]
        movzx   ecx, word [edi + 102]
        mov     edx, eax
        shr     edx, 3
        add     edx, ecx
        lea     ecx, [edx + 1]
        cmp     ecx, [VCPU(tr_limit)]
        ja      fault_gp_zero
        movzx   edx, word [edi + edx]
        mov     ecx, eax
        and     ecx, 7
        shr     edx, cl
        mov     ecx, ebx
        mov     edi, 1
        shl     edi, cl
        dec     edi
        test    edx, edi
        jnz     fault_gp_zero
.permitted:
        ret

; -- segment registers ------------------------------------------------------------------------------------------------
        align 16
mov_sreg:
        call    modrm
        DECODED
        call    source_word
        mov     ebx, [instruction_reg]
        xor     edx, edx                        ; pops nothing
        jmp     load_segment

%macro POP_SEGMENT 2
        align 16
%1:
        mov     ebx, %2
        jmp     pop_segment
%endmacro
        POP_SEGMENT pop_es, SEGMENT_ES
        POP_SEGMENT pop_ss, SEGMENT_SS
        POP_SEGMENT pop_ds, SEGMENT_DS
        POP_SEGMENT pop_fs, 4
        POP_SEGMENT pop_gs, 5
pop_segment:
        DECODED
        mov     ecx, [instruction_width]
        shr     ecx, 3
        push    ecx
        mov     eax, [ebp + F_ESP]
        mov     edx, SEGMENT_SS
        call    operand
        pop     edx
        movzx   eax, word [edi]

; EAX the selector, EBX the segment register, EDX bytes that the stack pointer moves by.
load_segment:
        mov     [load_popped], edx
        mov     dword [load_value], 0
load_selector:
        mov     ecx, eax
        cmp     ebx, SEGMENT_SS
        jne     .data
        push    edx
        push    ecx
        mov     ebx, [VCPU(cpl)]
        call    check_stack
        jnc     .stack
        test    eax, eax
        jz      fault_gp
        jmp     fault
.stack:
        call    mark_accessed
        pop     eax
        call    hardware_selector
        mov     [ebp + F_SS], eax
        call    install
        pop     edx
        add     [ebp + F_ESP], edx
        cmp     dword [load_value], 0
        jne     load_offset                     ; LSS holds nothing off
        mov     eax, [instruction_end]
        sub     eax, [instruction_start]
        add     [ebp + F_EIP], eax
        mov     dword [VCPU(interrupt_shadow)], 1
        or      dword [ebp + F_EFLAGS], EFLAGS_RF ; no debug exception until the next instruction is over
        END_PATH emulate_segment
        ret
        ; A data segment trapped because the shadow lacks its descriptor, or because the guest's own load faults. The
        ; guest repeats the instruction when the descriptor is there.
.data:
        test    ecx, 0xFFFC
        jz      refuse
        push    ecx
        call    guest_descriptor
        pop     ecx
        jc      .fault
        mov     edi, edx
        and     edi, HIGH_SEGMENT | HIGH_CODE
        cmp     edi, HIGH_SEGMENT
        je      .readable
        and     edi, HIGH_SEGMENT
        jz      .fault
        test    edx, HIGH_WRITABLE              ; of code: readable
        jz      .fault
        test    edx, HIGH_EXPAND                ; conforming: no privilege check
        jnz     .privileged_enough
.readable:
        mov     eax, edx
        shr     eax, 13
        and     eax, 3
        mov     edi, ecx
        and     edi, 3
        cmp     edi, eax
        ja      .fault
        cmp     [VCPU(cpl)], eax
        ja      .fault
.privileged_enough:
        test    edx, HIGH_PRESENT
        jz      .absent
        cmp     dword [TABLES(translates)], 0
        jne     .complete
        mov     eax, ecx
        call    install
        jc      refuse
        or      dword [ebp + F_EFLAGS], EFLAGS_RF ; its breakpoint has been looked at
        END_PATH emulate_segment
        ret
.complete:                                      ; a callout: nobody repeats the instruction
        push    dword [load_popped]
        push    ebx
        push    ecx
        call    mark_accessed
        pop     eax
        pop     ebx
        movzx   ecx, byte [segment_slots + ebx]
        mov     [ebp + ecx], eax
        call    install
        pop     edx
        add     [ebp + F_ESP], edx
        cmp     dword [load_value], 0
        jne     load_offset
        FINISH  emulate_segment
.fault:
        mov     edx, ecx
        and     edx, 0xFFFC
        jmp     fault_gp
.absent:
        mov     edx, ecx
        and     edx, 0xFFFC
        mov     eax, VECTOR_NP
        jmp     fault

; LES, LDS, LSS, LFS, LGS: a far pointer in memory. A data segment is loaded when the processor itself repeats the
; instruction, except behind a callout.
        align 16
load_pointer:
        mov     ebx, eax
        call    modrm
        DECODED
        cmp     dword [instruction_mod], 3
        je      refuse
        cmp     dword [instruction_width], 32
        jne     refuse
        mov     ecx, 6
        call    memory_operand
        mov     eax, [edi]
        mov     [event_gate_low], eax           ; the offset
        movzx   eax, word [edi + 4]
        movzx   ebx, byte [pointer_segments + ebx - 0xB2]
        xor     edx, edx                        ; pops nothing
        mov     dword [load_value], 1
        mov     [load_popped], edx
        jmp     load_selector

; The segment register is loaded: now the other one.
load_offset:
        mov     eax, [event_gate_low]
        mov     ecx, [instruction_reg]
        call    store_register
        FINISH  emulate_segment

pointer_segments:                               ; by opcode from B2: LSS, LFS, LGS; LES and LDS are C4 and C5
        db      SEGMENT_SS, 0, 4, 5
        times   14 db 0
        db      SEGMENT_ES, SEGMENT_DS

; -- far transfers ------------------------------------------------------------------------------------------------------
; IRETD and RETF: to the same ring or an outer one. The guest's kernel cannot change IF at its ring; it is here that the
; IF of a returned-to program comes back.
        align 16
iret_d:
        DECODED
        cmp     dword [instruction_width], 32
        jne     refuse
        test    dword [ebp + F_EFLAGS], EFLAGS_NT
        jnz     refuse
        mov     eax, [ebp + F_ESP]
        mov     ecx, 12
        mov     edx, SEGMENT_SS
        call    operand
        mov     esi, [edi + 8]                  ; the image of EFLAGS
        test    esi, EFLAGS_VM
        jnz     refuse
        ; Which flags come from the image: IF within IOPL, IOPL in ring 0 alone.
        mov     ebx, EFLAGS_LOADABLE
        mov     eax, [VCPU(cpl)]
        cmp     eax, [VCPU(iopl)]
        ja      .no_if
        or      ebx, EFLAGS_IF
.no_if:
        test    eax, eax
        jnz     .no_iopl
        or      ebx, EFLAGS_IOPL
.no_iopl:
        call    virtual_flags
        and     esi, ebx
        not     ebx
        and     eax, ebx
        or      eax, esi
        mov     edx, 12
        jmp     return_far

        align 16
ret_far:
        DECODED
        cmp     dword [instruction_width], 32
        jne     refuse
        mov     eax, [ebp + F_ESP]
        mov     ecx, 8
        mov     edx, SEGMENT_SS
        call    operand
        call    virtual_flags
        mov     edx, 8

; EDI the linear address of EIP and CS, EAX the new EFLAGS, EDX bytes of the frame.
return_far:
        mov     [event_flags], eax
        mov     ecx, [edi]
        mov     [event_gate_low], ecx           ; the new EIP
        movzx   ecx, word [edi + 4]
        mov     [event_level], ecx              ; the new CS
        add     edx, [ebp + F_ESP]
        mov     [event_esp], edx
        mov     dword [event_ss], 0
        test    ecx, 0xFFFC
        jz      fault_gp_zero
        ; 1. The code segment: an outer ring or the same, which the RPL names.
        call    guest_descriptor
        mov     ecx, [event_level]
        jc      .bad_code
        mov     [event_cs_address], esi
        mov     [event_cs_high], edx
        mov     edi, edx
        and     edi, HIGH_SEGMENT | HIGH_CODE
        cmp     edi, HIGH_SEGMENT | HIGH_CODE
        jne     .bad_code
        mov     ebx, ecx
        and     ebx, 3                          ; the new CPL
        cmp     ebx, [VCPU(cpl)]
        jb      .bad_code
        mov     edi, edx
        shr     edi, 13
        and     edi, 3
        cmp     edi, ebx
        ja      .bad_code
        je      .level
        test    edx, HIGH_EXPAND                ; below the RPL only if conforming
        jz      .bad_code
.level:
        test    edx, HIGH_PRESENT
        jz      .absent
        call    limit_of
        push    eax
        ; 2. To an outer ring: its stack lies behind.
        cmp     ebx, [VCPU(cpl)]
        je      .same
        mov     eax, [event_esp]
        mov     ecx, 8
        mov     edx, SEGMENT_SS
        call    operand
        mov     eax, [edi]
        movzx   ecx, word [edi + 4]
        mov     [event_esp], eax
        mov     [event_ss], ecx
        call    check_stack
        jnc     .stack
        test    eax, eax
        jz      fault_gp
        jmp     fault
.stack:
        mov     [event_ss_address], esi
        mov     [event_ss_high], edx
.same:
        pop     eax
        cmp     [event_gate_low], eax
        ja      fault_gp_zero
        test    ebx, ebx
        jz      .commit
        cmp     ebx, 3
        jne     refuse
.commit:
        ; 3. Everything is permitted.
        push    ebx
        mov     esi, [event_cs_address]
        mov     edx, [event_cs_high]
        call    mark_accessed
        cmp     dword [event_ss], 0
        je      .cpl
        mov     esi, [event_ss_address]
        mov     edx, [event_ss_high]
        call    mark_accessed
        mov     eax, [event_ss]
        call    hardware_selector
        mov     [ebp + F_SS], eax
.cpl:
        pop     eax
        call    set_virtual_cpl
        mov     eax, [event_esp]
        mov     [ebp + F_ESP], eax
        mov     eax, [event_level]
        call    hardware_selector
        mov     [ebp + F_CS], eax
        mov     eax, [event_gate_low]
        mov     [ebp + F_EIP], eax
        mov     eax, [event_flags]
        call    load_flags
        mov     eax, [ebp + F_SS]
        cmp     dword [event_ss], 0
        je      .code
        call    install
.code:
        mov     eax, [ebp + F_CS]
        call    install
        mov     dword [VCPU(interrupt_shadow)], 0
        END_PATH emulate_far_transfer
        ret
.bad_code:
        mov     edx, ecx
        and     edx, 0xFFFC
        jmp     fault_gp
.absent:
        mov     edx, ecx
        and     edx, 0xFFFC
        mov     eax, VECTOR_NP
        jmp     fault

; JMP ptr16:32, to a code segment of the same ring.
        align 16
jmp_far:
        cmp     dword [instruction_width], 32
        jne     refuse
        and     dword [ebp + F_EFLAGS], ~EFLAGS_RF

; ESI where the offset and the selector stand.
jump_target:
        mov     eax, [esi]
        movzx   ecx, word [esi + 4]
        mov     [event_gate_low], eax
        mov     [event_level], ecx
        test    ecx, 0xFFFC
        jz      fault_gp_zero
        call    guest_descriptor
        mov     ecx, [event_level]
        jc      .fault
        test    edx, HIGH_SEGMENT
        jz      refuse                          ; a gate or a TSS
        test    edx, HIGH_CODE
        jz      .fault
        mov     ebx, edx
        shr     ebx, 13
        and     ebx, 3
        mov     edi, [VCPU(cpl)]
        test    edx, HIGH_EXPAND
        jnz     .conforming
        cmp     ebx, edi
        jne     .fault
        mov     ebx, ecx
        and     ebx, 3
.conforming:
        cmp     ebx, edi
        ja      .fault
        test    edx, HIGH_PRESENT
        jz      .absent
        push    edx
        call    limit_of
        pop     edx
        cmp     [event_gate_low], eax
        ja      fault_gp_zero
        call    mark_accessed
        mov     eax, [event_level]
        and     eax, ~3
        or      eax, [VCPU(cpl)]
        call    hardware_selector
        mov     [ebp + F_CS], eax
        mov     ecx, [event_gate_low]
        mov     [ebp + F_EIP], ecx
        and     dword [ebp + F_EFLAGS], ~EFLAGS_RF
        call    install
        mov     dword [VCPU(interrupt_shadow)], 0
        END_PATH emulate_far_transfer
        ret
.fault:
        mov     edx, ecx
        and     edx, 0xFFFC
        jmp     fault_gp
.absent:
        mov     edx, ecx
        and     edx, 0xFFFC
        mov     eax, VECTOR_NP
        jmp     fault

; CALL and JMP through a far pointer in memory; the near ones of this group do not trap.
        align 16
group_5:
        call    modrm
        mov     eax, [instruction_reg]
        cmp     dword [instruction_mod], 3
        je      not_sensitive
        cmp     eax, 3
        je      .far
        cmp     eax, 5
        jne     not_sensitive
.far:
        DECODED
        cmp     dword [instruction_width], 32
        jne     refuse
        mov     ecx, 6
        call    memory_operand
        mov     esi, edi
        cmp     dword [instruction_reg], 3
        je      call_target
        jmp     jump_target

; CALL to code of this ring, or through a 32-bit call gate to this ring or from ring 3 to ring 0; tasks and gates of
; 16 bits are left to a slower path.
        align 16
call_far:
        cmp     dword [instruction_width], 32
        jne     refuse
        add     esi, 6
        DECODED
        sub     esi, 6

; ESI where the offset and the selector stand.
call_target:
        mov     eax, [esi]
        movzx   ecx, word [esi + 4]
        mov     [event_gate_low], eax           ; the new EIP
        mov     [event_level], ecx              ; the new CS
        test    ecx, 0xFFFC
        jz      fault_gp_zero
        call    guest_descriptor
        mov     ecx, [event_level]
        jc      call_fault
        test    edx, HIGH_SEGMENT
        jz      call_gate
        test    edx, HIGH_CODE
        jz      call_fault
        mov     ebx, edx
        shr     ebx, 13
        and     ebx, 3
        mov     edi, [VCPU(cpl)]
        test    edx, HIGH_EXPAND
        jnz     .conforming
        cmp     ebx, edi
        jne     call_fault
        mov     ebx, ecx
        and     ebx, 3
.conforming:
        cmp     ebx, edi
        ja      call_fault
        test    edx, HIGH_PRESENT
        jz      call_absent

; To a code segment of this ring: ESI its descriptor's address, EAX and EDX its doublewords.
call_same:
        push    esi
        push    edx
        call    limit_of
        push    eax
        mov     ecx, [ebp + F_SS]
        and     ecx, 0xFFF8
        test    dword [VMM_BASE + GDT + ecx + 4], HIGH_B
        jz      refuse
        mov     eax, [ebp + F_ESP]
        sub     eax, 8
        mov     [event_esp], eax
        mov     ecx, 8
        mov     edx, SEGMENT_SS
        call    operand
        pop     eax
        cmp     [event_gate_low], eax
        ja      fault_gp_zero
        mov     eax, [ebp + F_CS]
        call    virtual_selector
        mov     ecx, [instruction_end]
        sub     ecx, [instruction_start]
        add     ecx, [ebp + F_EIP]
        mov     [edi + 4], eax
        mov     [edi], ecx
        pop     edx
        pop     esi
        call    mark_accessed
        mov     eax, [event_esp]
        mov     [ebp + F_ESP], eax

; Into the code segment in `event_level` at the present CPL.
enter_code:
        mov     eax, [event_level]
        and     eax, ~3
        or      eax, [VCPU(cpl)]
        call    hardware_selector
        mov     [ebp + F_CS], eax
        mov     ecx, [event_gate_low]
        mov     [ebp + F_EIP], ecx
        call    install
        mov     dword [VCPU(interrupt_shadow)], 0
        END_PATH emulate_far_transfer
        ret

call_fault:
        mov     edx, ecx
        and     edx, 0xFFFC
        jmp     fault_gp
call_absent:
        mov     edx, ecx
        and     edx, 0xFFFC
        mov     eax, VECTOR_NP
        jmp     fault

; EAX, EDX a system descriptor, ECX its selector.
call_gate:
        mov     ebx, edx
        shr     ebx, 8
        and     ebx, 0x0F
        cmp     ebx, 12
        je      .gate
        bt      dword [.slower], ebx
        jc      refuse                          ; a TSS, a task gate, a call gate of 16 bits
        jmp     call_fault
        align   4
.slower: dd     1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 11
.gate:
        ; 1. The gate: its DPL, and whether it is present.
        mov     ebx, edx
        shr     ebx, 13
        and     ebx, 3
        cmp     ebx, [VCPU(cpl)]
        jb      call_fault
        mov     edi, ecx
        and     edi, 3
        cmp     ebx, edi
        jb      call_fault
        test    edx, HIGH_PRESENT
        jz      call_absent
        mov     ecx, eax
        shr     ecx, 16
        and     eax, 0xFFFF
        mov     ebx, edx
        and     ebx, 0xFFFF0000
        or      eax, ebx
        mov     [event_gate_low], eax
        mov     [event_level], ecx
        and     edx, 0x1F
        mov     [event_error], edx              ; doublewords of parameters
        test    ecx, 0xFFFC
        jz      fault_gp_zero
        ; 2. The code segment, of this ring or an inner one.
        call    guest_descriptor
        mov     ecx, [event_level]
        jc      call_fault
        mov     ebx, edx
        and     ebx, HIGH_SEGMENT | HIGH_CODE
        cmp     ebx, HIGH_SEGMENT | HIGH_CODE
        jne     call_fault
        mov     ebx, edx
        shr     ebx, 13
        and     ebx, 3
        cmp     ebx, [VCPU(cpl)]
        ja      call_fault
        test    edx, HIGH_PRESENT
        jz      call_absent
        test    edx, HIGH_EXPAND                ; conforming: the ring stays
        jnz     call_same
        cmp     ebx, [VCPU(cpl)]
        je      call_same

; CALL-GATE, MORE-PRIVILEGE: EBX the ring of the code segment, ESI its descriptor's address, EAX and EDX its doublewords.
        test    ebx, ebx
        jnz     refuse                          ; this VMM gives guests rings 0 and 3
        mov     [event_cs_address], esi
        mov     [event_cs_high], edx
        call    limit_of
        mov     [event_flags], eax
        ; 1. The stack of ring 0, from the guest's TSS.
        cmp     dword [VCPU(tr_limit)], 9
        jb      refuse
        mov     esi, [VCPU(tr_base)]
        mov     eax, [esi + 4]
        movzx   ecx, word [esi + 8]
        mov     [event_esp], eax
        mov     [event_ss], ecx
        call    check_stack
        jc      refuse
        test    edx, HIGH_B
        jz      refuse
        mov     [event_ss_address], esi
        mov     [event_ss_high], edx
        push    eax
        call    limit_of
        mov     ecx, [event_esp]                ; all that is pushed lies within its limit
        dec     ecx
        cmp     ecx, eax
        ja      refuse
        pop     eax
        mov     edx, [event_ss_high]
        call    base_of
        mov     edi, [event_esp]
        add     edi, eax                        ; linear, below which everything goes
        ; 2. The entry point within the code segment.
        mov     eax, [event_gate_low]
        cmp     eax, [event_flags]
        ja      fault_gp_zero
        ; 3. Push SS and ESP, the parameters, CS and the return address.
        mov     eax, [ebp + F_SS]
        push    edi
        call    virtual_selector
        pop     edi
        mov     ecx, [ebp + F_ESP]
        mov     [edi - 4], eax
        mov     [edi - 8], ecx
        sub     edi, 8
        sub     dword [event_esp], 8
        cmp     dword [event_error], 0
        je      .return_address
        call    copy_parameters
.return_address:
        mov     eax, [ebp + F_CS]
        call    virtual_selector
        mov     ecx, [instruction_end]
        sub     ecx, [instruction_start]
        add     ecx, [ebp + F_EIP]
        mov     [edi - 4], eax
        mov     [edi - 8], ecx
        sub     dword [event_esp], 8
        ; 4. Commit.
        mov     esi, [event_ss_address]
        mov     edx, [event_ss_high]
        call    mark_accessed
        mov     esi, [event_cs_address]
        mov     edx, [event_cs_high]
        call    mark_accessed
        xor     eax, eax
        call    set_virtual_cpl
        mov     eax, [event_ss]
        call    hardware_selector
        mov     [ebp + F_SS], eax
        mov     ecx, [event_esp]
        mov     [ebp + F_ESP], ecx
        call    install
        jmp     enter_code

; EDI the linear address below which the parameters of [event_error] doublewords go, from the caller's stack in ring 3.
; -> EDI below them. The pages must be the caller's to read.
copy_parameters:
        push    edi
        mov     eax, [ebp + F_SS]
        call    segment_base
        test    edx, HIGH_B
        jz      refuse
        mov     ebx, [ebp + F_ESP]
        add     ebx, eax
        push    ebx
        mov     edx, 4                          ; a user's read
        call    walk
        jc      refuse
        mov     ebx, [esp]
        mov     ecx, [event_error]
        lea     ebx, [ebx + ecx * 4 - 1]
        mov     edx, 4
        call    walk
        jc      refuse
        pop     esi
        pop     edi
        mov     ecx, [event_error]
        lea     eax, [ecx * 4]
        sub     [event_esp], eax
        sub     edi, eax
        push    edi
        rep movsd
        pop     edi
        ret

; INT n whose gate the VMM has not opened. It leaves EIP behind itself, and the gate is opened if the guest's is.
        align 16
int_n:
        movzx   eax, byte [esi]
        inc     esi
        DECODED
        mov     [event_vector], eax
        lea     ecx, [eax * 8 + 7]
        lea     edx, [eax * 8 + 2]              ; the error code: the IDT's entry
        cmp     ecx, [VCPU(idtr_limit)]
        ja      fault_gp
        mov     esi, [VCPU(idtr_base)]
        mov     ebx, [esi + eax * 8 + 4]
        mov     ecx, ebx
        and     ecx, 0x1E00
        cmp     ecx, 0x0E00
        jne     refuse
        shr     ebx, 13
        and     ebx, 3
        cmp     ebx, [VCPU(cpl)]
        jb      fault_gp
        test    dword [esi + eax * 8 + 4], HIGH_PRESENT
        jz      refuse
        mov     ecx, [instruction_end]
        sub     ecx, [instruction_start]
        add     [ebp + F_EIP], ecx
        mov     dword [VCPU(interrupt_shadow)], 0
        cmp     ebx, 3
        jne     .closed
        cmp     eax, 32
        jae     .open
        cmp     eax, 3
        je      .open
        cmp     eax, 4
        jne     .closed
.open:
        cmp     eax, HOST_TIMER_VECTOR
        je      .closed
        bts     [VCPU(open_gates)], eax
        or      dword [VMM_BASE + IDT + eax * 8 + 4], 3 << 13
.closed:
        END_PATH emulate_far_transfer
        xor     edx, edx
        mov     [event_has_error], edx
        mov     [event_exception], edx
        mov     dword [event_software], 1
        jmp     reflect

; -- SYSENTER and SYSEXIT -----------------------------------------------------------------------------------------------
; Flat segments whatever the tables hold; under the VMM the tables must hold them too.
        align 16
system_call:
        BEGIN
        mov     dword [VCPU(interrupt_flag)], 0
        mov     ecx, [VCPU(sysenter_cs)]
        and     ecx, 0xFFFC
        xor     ebx, ebx
        mov     eax, [VCPU(sysenter_eip)]
        mov     edx, [VCPU(sysenter_esp)]
        jmp     enter_flat

        align 16
sysexit_32:
        DECODED
        PRIVILEGED
        mov     ecx, [VCPU(sysenter_cs)]
        and     ecx, 0xFFFC
        jz      fault_gp_zero
        add     ecx, 16
        mov     ebx, 3
        mov     eax, [ebp + F_EDX]
        mov     edx, [ebp + F_ECX]

; ECX the selector of the code segment, EBX the CPL, EAX the new EIP, EDX the new ESP.
enter_flat:
        mov     [ebp + F_EIP], eax
        mov     [ebp + F_ESP], edx
        push    ecx
        mov     edi, 0x00CF9A00
        call    check_flat
        mov     ecx, [esp]
        add     ecx, 8
        mov     edi, 0x00CF9200
        call    check_flat
        mov     eax, ebx
        call    set_virtual_cpl
        mov     eax, [esp]
        and     eax, ~3
        or      eax, ebx
        call    hardware_selector
        mov     [ebp + F_CS], eax
        pop     eax
        add     eax, 8
        and     eax, ~3
        or      eax, ebx
        call    hardware_selector
        mov     [ebp + F_SS], eax
        mov     dword [VCPU(interrupt_shadow)], 0
        mov     eax, [ebp + F_CS]
        call    install
        mov     eax, [ebp + F_SS]
        call    install
        END_PATH emulate_system_call
        ret

; ECX a selector: its descriptor must be that of EDI, of DPL EBX, base 0 and 4 GB. Uses EAX, EDX, ESI.
check_flat:
        call    guest_descriptor
        jc      refuse
        cmp     eax, 0xFFFF
        jne     refuse
        and     edx, ~HIGH_ACCESSED
        mov     eax, ebx
        shl     eax, 13
        or      eax, edi
        cmp     edx, eax
        jne     refuse
        ret
