; Reflection: an event is delivered to the guest through its own IDT, as its own processor would deliver it
; (SDM volume 3, sections 6.12 to 6.15). `event_...` says what is delivered. The frame that is built has the guest's own
; selectors, whose RPL is 0 for its kernel: an IRET through it at the deprivileged ring raises #GP, which is how the VMM
; sees that return. A fault while delivering is left to a slower path.

        align 16
reflect:
        BEGIN
        ; 1. The gate.
        mov     ebx, [event_vector]
        lea     eax, [ebx * 8 + 7]
        cmp     eax, [VCPU(idtr_limit)]
        ja      refuse
        mov     esi, [VCPU(idtr_base)]
        mov     eax, [esi + ebx * 8]
        mov     edx, [esi + ebx * 8 + 4]
        mov     [event_gate_low], eax
        mov     [event_gate_high], edx
        mov     ecx, edx
        and     ecx, 0x1E00
        cmp     ecx, 0x0E00                     ; a 32-bit interrupt or trap gate
        jne     refuse
        test    edx, HIGH_PRESENT
        jz      refuse
        cmp     dword [event_software], 0
        je      .allowed
        shr     edx, 13
        and     edx, 3
        cmp     edx, [VCPU(cpl)]                ; INT n must be permitted by the gate's DPL
        jb      refuse
.allowed:
        ; 2. The handler's code segment.
        mov     ecx, eax
        shr     ecx, 16
        test    ecx, 0xFFFC
        jz      refuse
        call    guest_descriptor
        jc      refuse
        mov     [event_cs_address], esi
        mov     [event_cs_high], edx
        mov     ecx, edx
        and     ecx, HIGH_SEGMENT | HIGH_CODE | HIGH_PRESENT
        cmp     ecx, HIGH_SEGMENT | HIGH_CODE | HIGH_PRESENT
        jne     refuse
        mov     ebx, edx
        shr     ebx, 13
        and     ebx, 3
        mov     edi, [VCPU(cpl)]
        cmp     ebx, edi
        ja      refuse
        test    edx, HIGH_EXPAND                ; conforming: the ring stays
        jz      .level
        mov     ebx, edi
.level:
        mov     [event_level], ebx
        call    limit_of
        movzx   ecx, word [event_gate_low]
        mov     edx, [event_gate_high]
        and     edx, 0xFFFF0000
        or      ecx, edx
        cmp     ecx, eax
        ja      refuse
        ; 3. EFLAGS as the guest has them, with RF in the frame of a fault.
        call    virtual_flags
        cmp     dword [event_exception], 0
        je      .flags
        mov     ecx, [event_vector]
        mov     edx, FAULT_CLASS
        shr     edx, cl
        and     edx, 1
        shl     edx, 16
        or      eax, edx
.flags:
        mov     [event_flags], eax
        ; 4. The stack: of an inner ring from the guest's TSS, else the present one.
        mov     ebx, [event_level]
        cmp     ebx, [VCPU(cpl)]
        jne     .inner
        test    ebx, ebx
        jnz     refuse                          ; a handler in ring 3
        mov     dword [event_ss], 0
        mov     eax, [ebp + F_SS]
        call    segment_base
        mov     edi, [ebp + F_ESP]
        mov     esi, edi
        add     esi, eax                        ; linear, below which the frame goes
        jmp     .push
.inner:
        test    ebx, ebx
        jnz     refuse                          ; this VMM gives guests rings 0 and 3
        cmp     dword [VCPU(tr_limit)], 9       ; ESP0 and SS0
        jb      refuse
        mov     esi, [VCPU(tr_base)]
        mov     eax, [esi + 4]
        movzx   ecx, word [esi + 8]
        mov     [event_esp], eax
        mov     [event_ss], ecx
        call    check_stack
        jc      refuse
        mov     [event_ss_address], esi
        mov     [event_ss_high], edx
        call    base_of                         ; of the new stack
        mov     edi, [event_esp]
        mov     esi, edi
        add     esi, eax
        mov     eax, [ebp + F_SS]
        call    virtual_selector
        mov     ecx, [ebp + F_ESP]
        mov     [esi - 4], eax
        mov     [esi - 8], ecx
        sub     esi, 8
        sub     edi, 8
.push:
        ; 5. The frame, on the guest's stack.
        mov     eax, [ebp + F_CS]
        call    virtual_selector
        mov     edx, [event_flags]
        mov     ecx, [ebp + F_EIP]
        mov     [esi - 4], edx
        mov     [esi - 8], eax
        mov     [esi - 12], ecx
        sub     edi, 12
        cmp     dword [event_has_error], 0
        je      .enter
        mov     eax, [event_error]
        mov     [esi - 16], eax
        sub     edi, 4
.enter:
        ; 6. Into the handler.
        mov     [ebp + F_ESP], edi
        mov     esi, [event_cs_address]
        mov     edx, [event_cs_high]
        call    mark_accessed
        mov     eax, [event_ss]
        test    eax, eax
        jz      .same_stack
        call    hardware_selector
        mov     [ebp + F_SS], eax
        mov     esi, [event_ss_address]
        mov     edx, [event_ss_high]
        call    mark_accessed
.same_stack:
        mov     eax, [event_level]
        call    set_virtual_cpl
        movzx   eax, word [event_gate_low + 2]
        and     eax, ~3
        or      eax, [event_level]
        call    hardware_selector
        mov     [ebp + F_CS], eax
        movzx   ecx, word [event_gate_low]
        mov     edx, [event_gate_high]
        mov     ebx, edx
        and     edx, 0xFFFF0000
        or      ecx, edx
        mov     [ebp + F_EIP], ecx
        mov     eax, [event_flags]
        and     eax, ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM)
        test    ebx, 1 << 8                     ; a trap gate leaves IF alone
        jnz     .load
        and     eax, ~EFLAGS_IF
.load:
        call    load_flags
        mov     eax, [ebp + F_CS]
        call    install
        mov     eax, [ebp + F_SS]
        call    install
        END_PATH reflect
        ret

; -> EAX the guest's EFLAGS: the hardware's, but for IF, IOPL and RF. Uses ECX, EDX.
virtual_flags:
        mov     eax, [ebp + F_EFLAGS]
        mov     ecx, [VCPU(interrupt_flag)]
        mov     edx, [VCPU(iopl)]
        and     eax, ~(EFLAGS_IF | EFLAGS_IOPL | EFLAGS_RF)
        shl     ecx, 9
        shl     edx, 12
        or      eax, ecx
        or      eax, edx
        or      eax, EFLAGS_FIXED
        ret

; EAX the guest's EFLAGS: IF and IOPL become virtual, the hardware runs with IF = 1 and IOPL = 0. Uses ECX, EDX.
load_flags:
        mov     ecx, eax
        mov     edx, eax
        shr     ecx, 9
        shr     edx, 12
        and     ecx, 1
        and     edx, 3
        mov     [VCPU(interrupt_flag)], ecx
        mov     [VCPU(iopl)], edx
        and     eax, ~EFLAGS_IOPL
        or      eax, EFLAGS_IF | EFLAGS_FIXED
        mov     [ebp + F_EFLAGS], eax
        ret
