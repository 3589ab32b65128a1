; Events, time, domains and grants of a VMM for paravirtual guests (paravirtual.asm).

; -- event channels -----------------------------------------------------------------------------------------------------

; EAX a domain's number -> EDX its record; carry: there is none. Uses ECX no more than EDX.
pv_find_domain:
        mov     edx, VMM_BASE + PV_DOMAINS
.next:
        cmp     dword [edx + DOMAIN_exists], 0
        je      .other
        cmp     [edx + DOMAIN_domid], eax
        je      .found
.other:
        add     edx, DOMAIN_RECORD_BYTES
        cmp     edx, VMM_BASE + PV_DOMAINS + PV_N_DOMAINS * DOMAIN_RECORD_BYTES
        jb      .next
        stc
        ret
.found:
        clc
        ret

; EDX a domain's record, ECX a port: an event is pending. Uses EAX, ESI, EDI.
        align 16
pv_set_pending:
        mov     edi, [edx + DOMAIN_shared_info]
        shl     edi, 12
        bts     [edi + VMM_BASE + SHARED_PENDING], ecx
        jc      .done
        bt      [edi + VMM_BASE + SHARED_MASK], ecx
        jc      .masked
        mov     esi, [edx + DOMAIN_vcpu_info]
        mov     eax, ecx
        shr     eax, 5
        bts     [esi + VMM_BASE + VCPU_PENDING_SELECTOR], eax
        jc      .done
        cmp     byte [esi + VMM_BASE + VCPU_UPCALL_PENDING], 0
        jne     .done
        mov     byte [esi + VMM_BASE + VCPU_UPCALL_PENDING], 1
        or      dword [XEN(asked)], ASK_EVENTS
.wake:
        cmp     dword [edx + DOMAIN_run_state], RUNSTATE_blocked
        je      pv_wake
.done:
        ret
.masked:
        cmp     dword [edx + DOMAIN_polls], 0
        je      .done
        bt      [edx + DOMAIN_polled], ecx
        jc      .wake
        ret

; EDX a blocked domain's record: it may run. Its accounts are the scheduler's.
pv_wake:
        jmp     refuse

; event_channel_op(command, structure).
        align 16
pv_event_channel_op:
        mov     eax, [ebx]
        mov     esi, [ebx + 4]
        cmp     eax, EVTCHNOP_send
        jne     pv_channel_operation
        BEGIN
        lea     eax, [esi + 4]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      .fault
        mov     ecx, [esi]
        cmp     ecx, N_EVENT_CHANNELS
        jae     .invalid
        call    pv_channel
        mov     eax, [edi + CHANNEL_state]
        cmp     eax, EVTCHNSTAT_interdomain
        jne     .own
        mov     eax, [edi + CHANNEL_remote_domain]
        mov     ecx, [edi + CHANNEL_detail]
        call    pv_find_domain
        call    pv_set_pending
        xor     eax, eax
        END_PATH event_send
        ret
.own:
        cmp     eax, EVTCHNSTAT_ipi
        jne     .nobody
        call    pv_set_pending
.dropped:
        xor     eax, eax
        END_PATH event_send
        ret
.nobody:
        cmp     eax, EVTCHNSTAT_unbound
        je      .dropped
.invalid:
        mov     eax, -EINVAL
        END_PATH event_send
        ret
.fault:
        mov     eax, -EFAULT
        END_PATH event_send
        ret

; ECX a port of the domain at EDX -> EDI its record. Uses EAX.
pv_channel:
        mov     edi, [pv_channels]
        lea     eax, [ecx + ecx * 2]
        lea     edi, [edi + eax * 4]
        ret

; EDX a domain -> ECX its first free port, EDI the record; carry: none. Uses EAX.
pv_free_port:
        mov     ecx, 1
        call    pv_channel
.next:
        cmp     dword [edi + CHANNEL_state], EVTCHNSTAT_closed
        je      .found
        inc     ecx
        add     edi, CHANNEL_RECORD_BYTES
        cmp     ecx, N_EVENT_CHANNELS
        jb      .next
        stc
        ret
.found:
        clc
        ret

; The other operations: EAX the command, ESI its structure.
        align 16
pv_channel_operation:
        BEGIN
        lea     ecx, [esi + 12]                 ; the largest
        cmp     ecx, [edx + DOMAIN_virt_start]
        ja      .fault
        cmp     eax, EVTCHNOP_bind_virq
        je      .bind_virq
        cmp     eax, EVTCHNOP_unmask
        je      .unmask
        jmp     refuse                          ; of the same length as these
.bind_virq:
        mov     eax, [esi]
        mov     ecx, [esi + 4]
        cmp     eax, NR_VIRQS
        jae     .invalid
        test    ecx, ecx
        jnz     .no_processor
        cmp     dword [edx + DOMAIN_virq_port + eax * 4], 0
        jne     .bound
        push    eax
        call    pv_free_port
        pop     eax
        jc      .no_port
        mov     dword [edi + CHANNEL_state], EVTCHNSTAT_virq
        mov     dword [edi + CHANNEL_remote_domain], 0
        mov     [edi + CHANNEL_detail], eax
        mov     [edx + DOMAIN_virq_port + eax * 4], ecx
        mov     [esi + 8], ecx
        jmp     .done
.unmask:
        mov     ecx, [esi]
        cmp     ecx, N_EVENT_CHANNELS
        jae     .invalid
        mov     edi, [edx + DOMAIN_shared_info]
        shl     edi, 12
        btr     [edi + VMM_BASE + SHARED_MASK], ecx
        jnc     .done
        bt      [edi + VMM_BASE + SHARED_PENDING], ecx
        jnc     .done
        mov     esi, [edx + DOMAIN_vcpu_info]
        shr     ecx, 5
        bts     [esi + VMM_BASE + VCPU_PENDING_SELECTOR], ecx
        jc      .done
        cmp     byte [esi + VMM_BASE + VCPU_UPCALL_PENDING], 0
        mov     byte [esi + VMM_BASE + VCPU_UPCALL_PENDING], 1
        jne     .done
        or      dword [XEN(asked)], ASK_EVENTS
.done:
        xor     eax, eax
        END_PATH event_channel_op
        ret
.invalid:
        mov     eax, -EINVAL
        END_PATH event_channel_op
        ret
.no_processor:
        mov     eax, -ENOENT
        END_PATH event_channel_op
        ret
.bound:
        mov     eax, -EEXIST
        END_PATH event_channel_op
        ret
.no_port:
        mov     eax, -ENOSPC
        END_PATH event_channel_op
        ret
.fault:
        mov     eax, -EFAULT
        END_PATH event_channel_op
        ret
