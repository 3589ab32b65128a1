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

; EDX a blocked domain's record: it may run, before others that have not been woken. Uses EAX, ESI, EDI.
        align 16
pv_wake:
        push    ecx
        mov     eax, [edx + DOMAIN_domid]
        mov     dword [edx + DOMAIN_polls], 0
        mov     dword [XEN(poll_deadline) + eax * 8], 0
        mov     dword [XEN(poll_deadline) + eax * 8 + 4], NEVER_HIGH
        mov     eax, RUNSTATE_runnable
        call    pv_set_run_state
        mov     dword [edx + DOMAIN_boosted], 1
        or      dword [XEN(asked)], ASK_SCHEDULE
        pop     ecx
        ret

; EDX a domain's record, EAX the state of its processor from now on: the time of the last one is counted. Uses EAX, ECX, ESI, EDI.
        align 16
pv_set_run_state:
        push    ebx
        push    edx
        push    eax
        mov     edi, [edx + DOMAIN_domid]
        mov     esi, [edx + DOMAIN_run_state]
        lea     esi, [esi + edi * 4]            ; of four states
        rdtsc
        call    pv_nanoseconds
        mov     ecx, eax
        mov     ebx, edx
        sub     eax, [XEN(state_entry) + edi * 8]
        sbb     edx, [XEN(state_entry) + edi * 8 + 4]
        add     [XEN(state_time) + esi * 8], eax
        adc     [XEN(state_time) + esi * 8 + 4], edx
        mov     [XEN(state_entry) + edi * 8], ecx
        mov     [XEN(state_entry) + edi * 8 + 4], ebx
        pop     eax
        pop     edx
        pop     ebx
        mov     [edx + DOMAIN_run_state], eax
        ret

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

; -- time ---------------------------------------------------------------------------------------------------------------

TICK_SHIFT equ 6                ; ticks of a cycle
FAR_HIGH   equ 1 << 18          ; the upper half of a time that no run lasts until
NEVER_HIGH equ 1 << 30

; EDX:EAX cycles -> EDX:EAX nanoseconds of system time. Uses EBX, ECX.
        align 16
pv_nanoseconds:
        mov     ecx, [XEN(tsc_shift)]
        test    ecx, ecx
        js      .right
        shld    edx, eax, cl
        shl     eax, cl
        jmp     .scale
.right:
        neg     ecx
        shrd    eax, edx, cl
        shr     edx, cl
.scale:
        mov     ebx, edx
        mul     dword [XEN(tsc_multiplier)]
        mov     ecx, edx
        mov     eax, ebx
        mul     dword [XEN(tsc_multiplier)]
        add     eax, ecx
        adc     edx, 0
        ret

; The record of time of the domain at EDX, brought up to the present. Keeps EDX. Uses the others.
        align 16
pv_update_time:
        BEGIN
        push    edx
        cmp     dword [edx + DOMAIN_time_area], 0
        jne     refuse                          ; the copy in its own memory
        mov     esi, [edx + DOMAIN_vcpu_info]
        add     esi, VMM_BASE + VCPU_TIME
        mov     edi, [esi + TIME_VERSION]
        inc     edi
        or      edi, 1
        mov     [esi + TIME_VERSION], edi
        rdtsc
        mov     [esi + TIME_TSC_STAMP], eax
        mov     [esi + TIME_TSC_STAMP + 4], edx
        call    pv_nanoseconds
        mov     [esi + TIME_SYSTEM], eax
        mov     [esi + TIME_SYSTEM + 4], edx
        mov     eax, [XEN(tsc_multiplier)]
        mov     ecx, [XEN(tsc_shift)]
        mov     [esi + TIME_MULTIPLIER], eax
        mov     [esi + TIME_SHIFT], cl
        inc     edi
        mov     [esi + TIME_VERSION], edi
        pop     edx
        END_PATH time_update
        ret

; set_timer_op(deadline): system time, 64 bits; 0: none.
        align 16
pv_set_timer_op:
        BEGIN
        mov     ecx, [ebx]
        mov     esi, [ebx + 4]
        mov     edi, [edx + DOMAIN_domid]
        mov     eax, ecx
        or      eax, esi
        jz      .none
        cmp     esi, FAR_HIGH
        jae     refuse
.set:
        mov     [XEN(deadline) + edi * 8], ecx
        mov     [XEN(deadline) + edi * 8 + 4], esi
        or      dword [XEN(asked)], ASK_TIMER
        call    pv_program_timer
        xor     eax, eax
        END_PATH set_timer
        ret
.none:
        xor     ecx, ecx
        mov     esi, NEVER_HIGH
        jmp     .set

; ESI:EDI the earlier of it and a time in memory.
%macro EARLIER 1
        mov     eax, [%1]
        mov     edx, [%1 + 4]
        cmp     eax, edi
        mov     ecx, edx
        sbb     ecx, esi
        jae     %%later
        mov     edi, eax
        mov     esi, edx
%%later:
%endmacro

; The host's one-shot timer for the earliest deadline: the cycle at which it is due, in `pv_timer`. Keeps EBP.
        align 16
pv_program_timer:
        mov     esi, NEVER_HIGH
        xor     edi, edi
        ; 1. The one-shot timers, and the ends of polls.
%assign index 0
%rep PV_N_DOMAINS
    %assign record VMM_BASE + PV_DOMAINS + index * DOMAIN_RECORD_BYTES
        cmp     dword [record + DOMAIN_exists], 0
        je      .none_%[index]
        cmp     dword [record + DOMAIN_shut_down], 0
        jne     .none_%[index]
        EARLIER XEN(deadline) + index * 8
        EARLIER XEN(poll_deadline) + index * 8
.none_%[index]:
    %assign index index + 1
%endrep
        cmp     dword [XEN(idle)], 0
        jne     .convert
        ; 2. The periodic timer of the domain that runs, and the end of its slice, if others wait for that.
        mov     ebx, [XEN(current)]
        cmp     dword [XEN(period) + ebx * 8], 0
        je      .no_ticker
        mov     eax, [pv_domain]
        cmp     dword [eax + DOMAIN_virq_port + VIRQ_TIMER * 4], 0
        je      .no_ticker
        EARLIER XEN(next_tick) + ebx * 8
.no_ticker:
        call    pv_other
        jc      .convert
        EARLIER XEN(slice_end)
.convert:
        ; 3. In cycles: time << 32 by the multiplier, rounded up, shifted back.
        cmp     esi, FAR_HIGH
        jae     .never
        mov     edx, esi
        mov     eax, edi
        div     dword [XEN(tsc_multiplier)]
        mov     ebx, eax
        xor     eax, eax
        div     dword [XEN(tsc_multiplier)]
        neg     edx                             ; carry: a rest
        adc     eax, 0
        adc     ebx, 0
        mov     ecx, [XEN(tsc_shift)]
        test    ecx, ecx
        js      .left
        mov     edx, 1
        shl     edx, cl
        dec     edx
        add     eax, edx
        adc     ebx, 0
        shrd    eax, ebx, cl
        shr     ebx, cl
.program:
        mov     [pv_timer], eax
        mov     [pv_timer + 4], ebx
        ret
.left:
        neg     ecx
        shld    ebx, eax, cl
        shl     eax, cl
        jmp     .program
.never:
        mov     eax, -1
        mov     ebx, -1
        jmp     .program

; A domain beside the current one that can run -> EBX its record; carry: none. Uses EAX, ECX.
        align 16
pv_other:
        mov     ecx, PV_N_DOMAINS - 1
        mov     ebx, [pv_domain]
.next:
        add     ebx, DOMAIN_RECORD_BYTES
        cmp     ebx, VMM_BASE + PV_DOMAINS + PV_N_DOMAINS * DOMAIN_RECORD_BYTES
        jb      .candidate
        mov     ebx, VMM_BASE + PV_DOMAINS
.candidate:
        cmp     dword [ebx + DOMAIN_exists], 0
        je      .not
        cmp     dword [ebx + DOMAIN_shut_down], 0
        jne     .not
        mov     eax, [ebx + DOMAIN_run_state]
        cmp     eax, RUNSTATE_runnable          ; running is less
        jbe     .found
.not:
        dec     ecx
        jnz     .next
        stc
        ret
.found:
        clc
        ret

; The host's timer: the entry has pushed a zero and the vector.
        align 16
pv_host_timer:
        BEGIN
        TAKE_FRAME
        rdtsc
        call    pv_nanoseconds
        mov     [pv_now], eax
        mov     [pv_now + 4], edx
        ; 1. The one-shot timers that are due, and polls that have lasted long enough.
        mov     edx, VMM_BASE + PV_DOMAINS
.next:
        cmp     dword [edx + DOMAIN_exists], 0
        je      .fired
        cmp     dword [edx + DOMAIN_shut_down], 0
        jne     .fired
        mov     ebx, [edx + DOMAIN_domid]
        mov     eax, [pv_now]
        mov     ecx, [pv_now + 4]
        cmp     eax, [XEN(deadline) + ebx * 8]
        mov     esi, ecx
        sbb     esi, [XEN(deadline) + ebx * 8 + 4]
        jb      .not_due
        mov     dword [XEN(deadline) + ebx * 8], 0
        mov     dword [XEN(deadline) + ebx * 8 + 4], NEVER_HIGH
        call    pv_send_timer
.not_due:
        mov     ebx, [edx + DOMAIN_domid]
        mov     eax, [pv_now]
        mov     ecx, [pv_now + 4]
        cmp     eax, [XEN(poll_deadline) + ebx * 8]
        sbb     ecx, [XEN(poll_deadline) + ebx * 8 + 4]
        jb      .fired
        cmp     dword [edx + DOMAIN_run_state], RUNSTATE_blocked
        jne     .fired
        call    pv_wake
.fired:
        add     edx, DOMAIN_RECORD_BYTES
        cmp     edx, VMM_BASE + PV_DOMAINS + PV_N_DOMAINS * DOMAIN_RECORD_BYTES
        jb      .next
        ; 2. The periodic timer of the domain that runs, and its slice.
        cmp     dword [XEN(idle)], 0
        jne     refuse
        call    pv_tick
        mov     eax, [pv_now]
        mov     ecx, [pv_now + 4]
        cmp     eax, [XEN(slice_end)]
        sbb     ecx, [XEN(slice_end) + 4]
        jae     refuse                          ; others may want to run
        or      dword [XEN(asked)], ASK_TIMER
        call    pv_program_timer
        LEAVE_BY timer_interrupt

; The periodic timer of the domain that runs, by `pv_now`. Uses all but EBP.
        align 16
pv_tick:
        mov     edx, [pv_domain]
        mov     ebx, [edx + DOMAIN_domid]
        cmp     dword [XEN(period) + ebx * 8], 0
        je      .none
        cmp     dword [edx + DOMAIN_virq_port + VIRQ_TIMER * 4], 0
        je      .none
        mov     eax, [pv_now]
        mov     ecx, [pv_now + 4]
        cmp     eax, [XEN(next_tick) + ebx * 8]
        mov     esi, ecx
        sbb     esi, [XEN(next_tick) + ebx * 8 + 4]
        jb      .none
        add     eax, [XEN(period) + ebx * 8]
        adc     ecx, [XEN(period) + ebx * 8 + 4]
        mov     [XEN(next_tick) + ebx * 8], eax
        mov     [XEN(next_tick) + ebx * 8 + 4], ecx
        jmp     pv_send_timer
.none:
        ret

; A timer of the domain at EDX has fired. Keeps EDX.
pv_send_timer:
        call    pv_update_time
        mov     ecx, [edx + DOMAIN_virq_port + VIRQ_TIMER * 4]
        test    ecx, ecx
        jz      .unbound
        jmp     pv_set_pending
.unbound:
        ret

; -- domains ------------------------------------------------------------------------------------------------------------

; sched_op(command): block until an event. The scheduler follows.
        align 16
pv_sched_op:
        BEGIN
        mov     eax, [ebx]
        cmp     eax, SCHEDOP_block
        jne     refuse
        mov     esi, [pv_vcpu_info]
        mov     byte [esi + VCPU_UPCALL_MASK], 0
        cmp     byte [esi + VCPU_UPCALL_PENDING], 0
        jne     .waits
        mov     eax, RUNSTATE_blocked
        call    pv_set_run_state
        mov     dword [edx + DOMAIN_boosted], 0
        or      dword [XEN(asked)], ASK_SCHEDULE
.waits:
        xor     eax, eax
        END_PATH small_hypercall
        ret

; Who runs next, and the way to it: the domain's frame on the VMM's stack is another's then, if it is another. Refused where
; nobody can run.
SLICE equ 10000000              ; nanoseconds

        align 16
pv_schedule:
        BEGIN
        rdtsc
        call    pv_nanoseconds
        mov     [pv_now], eax
        mov     [pv_now + 4], edx
        ; 1. Can the current one go on, and is it within its slice?
        mov     edx, [pv_domain]
        cmp     dword [edx + DOMAIN_shut_down], 0
        jne     .leave
        cmp     dword [edx + DOMAIN_run_state], RUNSTATE_runnable
        ja      .leave
        cmp     dword [XEN(yields)], 0
        jne     .leave
        mov     eax, [pv_now]
        mov     ecx, [pv_now + 4]
        cmp     eax, [XEN(slice_end)]
        sbb     ecx, [XEN(slice_end) + 4]
        jae     .leave
        cmp     dword [edx + DOMAIN_boosted], 0
        jne     .same
        call    pv_other_woken
        jc      .same
        jmp     .other
        ; 2. Another: one that was woken, or the next.
.leave:
        call    pv_other_woken
        jnc     .other
        call    pv_other
        jnc     .other
        cmp     dword [edx + DOMAIN_shut_down], 0
        jne     refuse
        cmp     dword [edx + DOMAIN_run_state], RUNSTATE_runnable
        ja      refuse                          ; nobody can run
.same:
        mov     ebx, edx
.other:
        mov     dword [XEN(yields)], 0
        mov     dword [XEN(idle)], 0
        cmp     ebx, edx
        je      .chosen
        ; 3. The switch.
        cmp     dword [edx + DOMAIN_run_state], RUNSTATE_running
        jne     .not_running
        mov     eax, RUNSTATE_runnable
        call    pv_set_run_state
        mov     dword [edx + DOMAIN_boosted], 0
.not_running:
        call    pv_switch
        jmp     .slice
.chosen:
        mov     eax, [pv_now]
        mov     ecx, [pv_now + 4]
        cmp     eax, [XEN(slice_end)]
        sbb     ecx, [XEN(slice_end) + 4]
        jb      .within
        mov     dword [edx + DOMAIN_boosted], 0
.slice:
        mov     eax, [pv_now]
        mov     ecx, [pv_now + 4]
        add     eax, SLICE
        adc     ecx, 0
        mov     [XEN(slice_end)], eax
        mov     [XEN(slice_end) + 4], ecx
.within:
        ; 4. It runs, knows the time, and gets the tick that it has missed.
        mov     edx, [pv_domain]
        cmp     dword [edx + DOMAIN_run_state], RUNSTATE_running
        je      .runs
        mov     eax, RUNSTATE_running
        call    pv_set_run_state
        cmp     dword [edx + DOMAIN_runstate_area], 0
        jne     refuse
        call    pv_update_time
.runs:
        call    pv_tick
        call    pv_program_timer
        END_PATH schedule
        ret

; A domain beside the current one that was woken and can run -> EBX its record; carry: none. Uses EAX, ECX.
        align 16
pv_other_woken:
        mov     ecx, PV_N_DOMAINS - 1
        mov     ebx, [pv_domain]
.next:
        add     ebx, DOMAIN_RECORD_BYTES
        cmp     ebx, VMM_BASE + PV_DOMAINS + PV_N_DOMAINS * DOMAIN_RECORD_BYTES
        jb      .candidate
        mov     ebx, VMM_BASE + PV_DOMAINS
.candidate:
        cmp     dword [ebx + DOMAIN_boosted], 0
        je      .not
        cmp     dword [ebx + DOMAIN_exists], 0
        je      .not
        cmp     dword [ebx + DOMAIN_shut_down], 0
        jne     .not
        cmp     dword [ebx + DOMAIN_run_state], RUNSTATE_runnable
        jbe     .found
.not:
        dec     ecx
        jnz     .next
        stc
        ret
.found:
        clc
        ret

; EDX the current domain's record, EBX another's: that is the current one. The load of CR3 is the processor's.
IDT_FAST_TRAP equ VMM_BASE + IDT + 8 * 0x80
FAST_TRAP     equ 0x80

        align 16
pv_switch:
        BEGIN
        ; 1. What the frame and the segment registers hold is put away.
        cld
        lea     esi, [ebp + P_EIP]
        lea     edi, [edx + DOMAIN_eip]
        movsd
        movsd
        movsd
        movsd
        movsd
%macro PUT_AWAY 2
        mov     eax, [ebp + %1]
        mov     [edx + DOMAIN_gpr + 4 * %2], eax
%endmacro
        PUT_AWAY P_EAX, 0
        PUT_AWAY P_ECX, 1
        PUT_AWAY P_EDX, 2
        PUT_AWAY P_EBX, 3
        PUT_AWAY P_EBP, 5
        PUT_AWAY P_ESI, 6
        PUT_AWAY P_EDI, 7
%macro PUT_SELECTOR 2
        movzx   eax, word [ebp + %1]
        mov     [edx + DOMAIN_selectors + 4 * %2], eax
%endmacro
        PUT_SELECTOR P_ES, 0
        PUT_SELECTOR P_DS, 1
        PUT_SELECTOR P_FS, 2
        PUT_SELECTOR P_GS, 3
        ; 2. Who runs.
        mov     edx, ebx
        mov     [pv_domain], edx
        mov     eax, [edx + DOMAIN_domid]
        mov     [XEN(current)], eax
        mov     ecx, [edx + DOMAIN_vcpu_info]
        add     ecx, VMM_BASE
        mov     [pv_vcpu_info], ecx
        imul    eax, N_EVENT_CHANNELS * CHANNEL_RECORD_BYTES
        add     eax, VMM_BASE + PV_CHANNELS
        mov     [pv_channels], eax
        ; 3. The kernel's stack, the ports that are open, the gate of its system calls.
        mov     eax, [edx + DOMAIN_kernel_ss]
        mov     ecx, [edx + DOMAIN_kernel_esp]
        mov     [VMM_BASE + PV_TSS + TSS_SS1], eax
        mov     [VMM_BASE + PV_TSS + TSS_ESP1], ecx
        mov     eax, PV_CLOSED_IO_MAP
        cmp     dword [edx + DOMAIN_is_privileged], 0
        je      .closed
        mov     eax, PV_IO_MAP
.closed:
        mov     [VMM_BASE + PV_TSS + TSS_IO_MAP_FIELD], ax
        call    pv_fast_trap
        ; 4. Its LDT, breakpoints, and whether the x87 registers are its own.
        mov     ecx, [edx + DOMAIN_ldt_entries]
        test    ecx, ecx
        jnz     refuse
        lldt    cx
        mov     ecx, [edx + DOMAIN_dr + 4 * 7]
        test    cl, 0xFF
        jnz     refuse
        mov     eax, cr0
        mov     ecx, eax
        or      eax, CR0_TS
        cmp     dword [edx + DOMAIN_task_switched], 0
        jne     .switched
        mov     esi, [XEN(fpu_owner)]
        cmp     esi, [XEN(current)]
        jne     .switched
        and     eax, ~CR0_TS
.switched:
        cmp     eax, ecx
        je      .same
        mov     cr0, eax
.same:
        ; 5. Its frame.
        lea     esi, [edx + DOMAIN_eip]
        lea     edi, [ebp + P_EIP]
        movsd
        movsd
        movsd
        movsd
        movsd
%macro TAKE_UP 2
        mov     eax, [edx + DOMAIN_gpr + 4 * %2]
        mov     [ebp + %1], eax
%endmacro
        TAKE_UP P_EAX, 0
        TAKE_UP P_ECX, 1
        TAKE_UP P_EDX, 2
        TAKE_UP P_EBX, 3
        TAKE_UP P_EBP, 5
        TAKE_UP P_ESI, 6
        TAKE_UP P_EDI, 7
%macro TAKE_SELECTOR 2
        mov     eax, [edx + DOMAIN_selectors + 4 * %2]
        mov     [ebp + %1], eax
%endmacro
        TAKE_SELECTOR P_ES, 0
        TAKE_SELECTOR P_DS, 1
        TAKE_SELECTOR P_FS, 2
        TAKE_SELECTOR P_GS, 3
        END_PATH domain_switch
        ret

; The gate of INT 80h for the domain at EDX: straight to its kernel, if events are not to be masked on the way. Uses EAX, ECX, ESI.
        align 16
pv_fast_trap:
        mov     esi, [edx + DOMAIN_trap_eip + 4 * FAST_TRAP]
        mov     ecx, [edx + DOMAIN_trap_flags + 4 * FAST_TRAP]
        mov     eax, [edx + DOMAIN_trap_cs + 4 * FAST_TRAP]
        test    esi, esi
        jz      .own
        test    cl, TI_MASK_EVENTS
        jnz     .own
        cmp     eax, FLAT_RING1_CS
        je      .direct
        test    al, 4
        jnz     .direct
        cmp     eax, FIRST_RESERVED_GDT_ENTRY * 8
        jae     .own
.direct:
        and     ecx, 3
        shl     ecx, 13
        or      ecx, 0x8F00
        jmp     .write
.own:
        mov     esi, VMM_BASE + FAST_TRAP * 16
        mov     eax, VMM_CODE_SELECTOR
        mov     ecx, 0x8E00
.write:
        shl     eax, 16
        push    ebx
        mov     ebx, esi
        and     ebx, 0xFFFF
        and     esi, 0xFFFF0000
        or      eax, ebx
        or      ecx, esi
        pop     ebx
        mov     [IDT_FAST_TRAP], eax
        mov     [IDT_FAST_TRAP + 4], ecx
        ret

; -- grants -------------------------------------------------------------------------------------------------------------

; grant_table_op(command, list, count).
GRANT_MAP_BYTES   equ 32
GRANT_UNMAP_BYTES equ 24
GRANT_COPY_BYTES  equ 24
ACTIVE_SHIFT      equ 3
GRANTS_OF_TABLE   equ PV_N_GRANT_FRAMES * 512
DEVICE_READ equ 1               ; pins, a byte each
DEVICE_WRITE equ 1 << 8
HOST_READ  equ 1 << 16
HOST_WRITE equ 1 << 24
WRITE_PINS equ DEVICE_WRITE * 0xFF | HOST_WRITE * 0xFF
NEARLY_FULL equ 0x80808080

        align 16
pv_grant_table_op:
        mov     eax, [ebx]
        mov     esi, [ebx + 4]
        mov     ecx, [ebx + 8]
        test    ecx, ecx
        jz      .nothing
        cmp     ecx, 512
        ja      refuse
        cmp     eax, GNTTABOP_map_grant_ref
        je      pv_grant_map
        cmp     eax, GNTTABOP_unmap_grant_ref
        je      pv_grant_unmap
        cmp     eax, GNTTABOP_copy
        jne     refuse
.copy:
        lea     eax, [esi + GRANT_COPY_BYTES]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      refuse
        push    ecx
        call    pv_grant_copy
        pop     ecx
        mov     [esi + 20], ax
        add     esi, GRANT_COPY_BYTES
        dec     ecx
        jnz     .copy
.nothing:
        xor     eax, eax
        ret

; EDX the granter, ECX an entry of its table -> EDI the entry, ESI what the VMM keeps of it; carry: EAX why it cannot be used,
; which is for reading alone where EBX says GNTMAP_readonly. For the domain that runs.
        align 16
pv_grant_entry:
        mov     eax, [edx + DOMAIN_grant_frames]
        shl     eax, 9
        cmp     ecx, eax
        jae     .no_entry
        mov     eax, [edx + DOMAIN_domid]
        mov     edi, eax
        imul    eax, GRANTS_OF_TABLE << ACTIVE_SHIFT
        lea     esi, [eax + ecx * 8 + VMM_BASE + ACTIVE_ENTRIES]
        imul    edi, PV_N_GRANT_FRAMES << 12
        lea     edi, [edi + ecx * 8 + VMM_BASE + PV_GRANT_FRAMES]
        mov     eax, [edi]                      ; flags and domain at once
        push    ecx
        mov     ecx, [pv_domain]
        shr     eax, 16
        cmp     eax, [ecx + DOMAIN_domid]
        pop     ecx
        jne     .refused
        movzx   eax, word [edi]
        and     eax, GTF_type_mask
        cmp     eax, GTF_permit_access
        jne     .refused
        test    bl, GNTMAP_readonly
        jnz     .readable
        test    byte [edi], GTF_readonly
        jnz     .refused
.readable:
        test    dword [esi + ACTIVE_pins], NEARLY_FULL
        jnz     .refused
        clc
        ret
.no_entry:
        mov     eax, GNTST_bad_gntref
        stc
        ret
.refused:
        mov     eax, GNTST_general_error
        stc
        ret

; ESI, EDI as `pv_grant_entry` leaves them, EAX the pins to be: marked in the entry. Uses ECX.
pv_grant_mark:
        mov     [esi + ACTIVE_pins], eax
        movzx   ecx, word [edi]
        and     ecx, ~(GTF_reading | GTF_writing)
        test    eax, eax
        jz      .mark
        or      ecx, GTF_reading
        test    eax, WRITE_PINS
        jz      .mark
        or      ecx, GTF_writing
.mark:
        mov     [edi], cx
        ret

; EBX how a grant is mapped -> EAX what that adds to the pins. Uses ECX.
pv_grant_pins:
        xor     eax, eax
        xor     ecx, ecx
        test    bl, GNTMAP_readonly
        jz      .writing
        test    bl, GNTMAP_device_map
        jz      .host_reads
        mov     eax, DEVICE_READ
.host_reads:
        test    bl, GNTMAP_host_map
        jz      .done
        or      eax, HOST_READ
        ret
.writing:
        test    bl, GNTMAP_device_map
        jz      .host_writes
        mov     eax, DEVICE_WRITE
.host_writes:
        test    bl, GNTMAP_host_map
        jz      .done
        or      eax, HOST_WRITE
.done:
        ret

; GNTTABOP_map_grant_ref: ESI the list, ECX its length, EDX the domain.
        align 16
pv_grant_map:
        BEGIN
        mov     [pv_left], ecx
.next:
        lea     eax, [esi + GRANT_MAP_BYTES]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      refuse
        mov     [pv_structure], esi
        call    .one
        mov     esi, [pv_structure]
        mov     edx, [pv_domain]
        mov     [esi + 18], ax
        add     esi, GRANT_MAP_BYTES
        dec     dword [pv_left]
        jnz     .next
        xor     eax, eax
        END_PATH grant_map
        ret

        ; One of them -> EAX its status.
.one:
        mov     ebx, [esi + 8]
        movzx   eax, word [esi + 16]
        test    ebx, GNTMAP_device_map | GNTMAP_host_map
        jz      .no_use
        test    ebx, GNTMAP_contains_pte
        jnz     refuse
        mov     ecx, [esi + 12]
        call    pv_find_domain
        jc      .no_domain
        ; 1. A free handle.
        push    ecx
        call    pv_free_handle
        pop     ecx
        ; 2. The entry of the granter.
        mov     [pv_granter], edx
        call    pv_grant_entry
        jc      .answer
        mov     eax, [esi + ACTIVE_frame]
        cmp     dword [esi + ACTIVE_pins], 0
        jne     .frame
        mov     eax, [edi + 4]
.frame:
        mov     [pv_frame], eax
        push    esi
        push    edi
        ; 3. References for its uses, which EDX owns.
        test    bl, GNTMAP_device_map
        jz      .host
        call    pv_grant_frame
        jc      .no_frame
        mov     eax, [pv_frame]
.host:
        test    bl, GNTMAP_host_map
        jz      .counted
        call    pv_grant_frame
        jc      .no_frame
        ; 4. The page-table entry.
        mov     edx, [pv_domain]
        mov     ecx, [pv_structure]
        mov     esi, [ecx]
        cmp     dword [ecx + 4], 0
        jne     refuse
        call    pv_l1_place
        jc      refuse
        mov     eax, [edi]
        mov     ecx, [pv_frame]
        shl     ecx, 12
        or      ecx, PTE_P | PTE_A | PTE_D
        test    bl, GNTMAP_readonly
        jnz     .read_only
        or      ecx, PTE_RW
.read_only:
        test    bl, GNTMAP_application_map
        jz      .kernel
        or      ecx, PTE_US
.kernel:
        mov     [edi], ecx
        test    al, PTE_P
        jz      .counted
        or      dword [XEN(asked)], ASK_FLUSH
        call    pv_put_l1_entry
.counted:
        ; 5. Noted in the entry, and under the handle.
        call    pv_grant_pins
        pop     edi
        pop     esi
        add     eax, [esi + ACTIVE_pins]
        mov     ecx, [pv_frame]
        mov     [esi + ACTIVE_frame], ecx
        call    pv_grant_mark
        mov     eax, [pv_handle]
        lea     edi, [eax + eax * 2]
        lea     edi, [edi * 8 + VMM_BASE + MAPPINGS]
        mov     esi, [pv_structure]
        mov     [esi + 20], eax
        mov     ecx, [XEN(current)]
        mov     edx, [pv_granter]
        inc     ecx
        mov     eax, [edx + DOMAIN_domid]
        mov     [edi + MAPPING_mapper], ecx
        mov     [edi + MAPPING_granter], eax
        mov     eax, [esi + 12]
        mov     ecx, [esi]
        mov     [edi + MAPPING_reference], eax
        mov     [edi + MAPPING_how], ebx
        mov     eax, [pv_frame]
        mov     [edi + MAPPING_address], ecx
        mov     [edi + MAPPING_frame], eax
        mov     ecx, eax
        shl     eax, 12
        shr     ecx, 20
        mov     [esi + 24], eax
        mov     [esi + 28], ecx
        xor     eax, eax
.answer:
        ret
.no_frame:
        add     esp, 8
        mov     eax, GNTST_general_error
        ret
.no_use:
        mov     eax, GNTST_bad_gntref
        ret
.no_domain:
        mov     eax, GNTST_bad_domain
        ret

; -> [pv_handle] a handle of the current domain's that is free. Uses EAX, ECX, EDI.
HANDLES_OF_DOMAIN equ N_MAPPINGS / PV_N_DOMAINS

        align 16
pv_free_handle:
        mov     edi, [XEN(current)]
        mov     eax, [XEN(mapping_hint) + edi * 8]
        imul    ecx, edi, HANDLES_OF_DOMAIN
.next:
        cmp     eax, HANDLES_OF_DOMAIN
        jae     refuse                          ; round again
        add     eax, ecx
        lea     edi, [eax + eax * 2]
        cmp     dword [edi * 8 + VMM_BASE + MAPPINGS + MAPPING_mapper], 0
        je      .free
        sub     eax, ecx
        inc     eax
        jmp     .next
.free:
        mov     [pv_handle], eax
        sub     eax, ecx
        mov     edi, [XEN(current)]
        inc     eax
        mov     [XEN(mapping_hint) + edi * 8], eax
        ret

; EAX a frame of the domain at EDX: a reference, and unless EBX says GNTMAP_readonly a writable use; carry: refused.
pv_grant_frame:
        call    pv_get_page
        jc      .done
        test    bl, GNTMAP_readonly
        jnz     .got
        mov     ecx, PGT_WRITABLE
        call    pv_begin_type
        jc      .not_writable
.got:
        clc
.done:
        ret
.not_writable:
        call    pv_put_page
        stc
        ret

; ESI a linear address of the domain's at EDX -> EDI the entry of the page table for it; carry: none. Uses EAX, ECX.
        align 16
pv_l1_place:
        cmp     esi, [edx + DOMAIN_virt_start]
        jae     .none
        mov     eax, [edx + DOMAIN_base_frame]
        call    pv_window
        mov     ecx, esi
        shr     ecx, 22
        mov     eax, [edi + ecx * 4]
        test    al, PTE_P
        jz      .none
        shr     eax, 12
        mov     ecx, eax
        shl     ecx, FRAME_SHIFT
        mov     ecx, [ecx + VMM_BASE + PV_FRAME_TABLE + FRAME_type_info]
        test    ecx, PGT_COUNT
        jz      .none
        and     ecx, PGT_TYPE
        cmp     ecx, PGT_L1
        jne     .none
        call    pv_window
        mov     ecx, esi
        shr     ecx, 12
        and     ecx, TABLE_ENTRIES - 1
        lea     edi, [edi + ecx * 4]
        clc
        ret
.none:
        stc
        ret

; GNTTABOP_unmap_grant_ref: ESI the list, ECX its length, EDX the domain. Of mappings for the host alone, or for devices alone.
        align 16
pv_grant_unmap:
        BEGIN
        mov     [pv_left], ecx
.next:
        lea     eax, [esi + GRANT_UNMAP_BYTES]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      refuse
        mov     [pv_structure], esi
        call    .one
        mov     esi, [pv_structure]
        mov     edx, [pv_domain]
        mov     [esi + 20], ax
        add     esi, GRANT_UNMAP_BYTES
        dec     dword [pv_left]
        jnz     .next
        xor     eax, eax
        END_PATH grant_unmap
        ret

.one:
        mov     eax, [esi + 16]
        cmp     eax, N_MAPPINGS
        jae     .no_handle
        lea     eax, [eax + eax * 2]
        lea     eax, [eax * 8 + VMM_BASE + MAPPINGS]
        mov     ecx, [XEN(current)]
        inc     ecx
        cmp     [eax + MAPPING_mapper], ecx
        jne     .no_handle
        mov     [pv_handle], eax
        mov     ebx, [eax + MAPPING_how]
        mov     ecx, [eax + MAPPING_frame]
        mov     [pv_frame], ecx
        ; 1. The devices' use, whose address is the frame's.
        test    bl, GNTMAP_device_map
        jz      .host
        mov     edi, [esi + 8]
        or      edi, [esi + 12]
        jz      .host
        cmp     dword [esi + 12], 0
        jne     refuse
        mov     edi, [esi + 8]
        shr     edi, 12
        cmp     edi, ecx
        jne     .other_frame
        cmp     dword [esi], 0
        jne     refuse                          ; both at once
        test    bl, GNTMAP_host_map
        jnz     refuse
        mov     edi, ecx
        call    .put_back
        jmp     .forget
.host:
        ; 2. The host's: the entry of the page table must still be the mapping's.
        cmp     dword [esi], 0
        je      refuse
        test    bl, GNTMAP_host_map
        jz      .other_frame
        test    bl, GNTMAP_device_map | GNTMAP_contains_pte
        jnz     refuse
        mov     ecx, [eax + MAPPING_address]
        mov     esi, [esi]
        cmp     ecx, esi
        jne     .other_address
        call    pv_l1_place
        jc      .other_address
        mov     eax, [edi]
        test    al, PTE_P
        jz      .other_frame
        mov     ecx, eax
        shr     ecx, 12
        cmp     ecx, [pv_frame]
        jne     .other_frame
        test    bl, GNTMAP_readonly
        setz    cl
        add     cl, cl
        xor     cl, al
        test    cl, PTE_RW
        jnz     .other_frame
        mov     dword [edi], 0
        call    pv_put_l1_entry
        or      dword [XEN(asked)], ASK_FLUSH
.forget:
        ; 3. No more pins, and the handle is free.
        mov     edi, [pv_handle]
        mov     eax, [edi + MAPPING_granter]
        mov     edx, [edi + MAPPING_reference]
        mov     dword [edi + MAPPING_mapper], 0
        mov     ecx, ebx
        and     ecx, ~(GNTMAP_device_map | GNTMAP_host_map)
        mov     [edi + MAPPING_how], ecx
        mov     edi, eax
        imul    eax, GRANTS_OF_TABLE << ACTIVE_SHIFT
        lea     esi, [eax + edx * 8 + VMM_BASE + ACTIVE_ENTRIES]
        imul    edi, PV_N_GRANT_FRAMES << 12
        lea     edi, [edi + edx * 8 + VMM_BASE + PV_GRANT_FRAMES]
        call    pv_grant_pins
        mov     ecx, [esi + ACTIVE_pins]
        sub     ecx, eax
        mov     eax, ecx
        call    pv_grant_mark
        xor     eax, eax
        ret
.no_handle:
        mov     eax, GNTST_bad_handle
        ret
.other_address:
        mov     eax, GNTST_bad_virt_addr
        ret
.other_frame:
        mov     eax, GNTST_general_error
        ret
.put_back:
        shl     edi, FRAME_SHIFT
        add     edi, VMM_BASE + PV_FRAME_TABLE
        test    bl, GNTMAP_readonly
        jnz     pv_put_page
        call    pv_drop_type
        jmp     pv_put_page

; GNTTABOP_copy, one structure at ESI: from a frame of the domain's own to one that it was granted, or the reverse -> AX its
; status. Keeps ESI, EDX.
COPY_SOURCE equ 0               ; reference or frame, domain, offset
COPY_TARGET equ 8
COPY_OCTETS equ 16
COPY_HOW    equ 18

        align 16
pv_grant_copy:
        BEGIN
        push    edx
        push    esi
        mov     [pv_structure], esi
        movzx   ecx, word [esi + COPY_OCTETS]
        movzx   eax, word [esi + COPY_SOURCE + 6]
        movzx   edi, word [esi + COPY_TARGET + 6]
        add     eax, ecx
        add     edi, ecx
        cmp     eax, 0x1000
        ja      .bad_argument
        cmp     edi, 0x1000
        ja      .bad_argument
        ; 1. A reference to each of the frames.
        movzx   ebx, word [esi + COPY_HOW]
        push    ebx
        lea     esi, [esi + COPY_SOURCE]
        and     ebx, GNTCOPY_source_gref
        call    .acquire_to_read
        jc      .no_source
        push    edi                             ; its record
        push    eax
        mov     ebx, [esp + 8]
        mov     esi, [pv_structure]
        add     esi, COPY_TARGET
        and     ebx, GNTCOPY_dest_gref
        call    .acquire_to_write
        jc      refuse                          ; the source is to be given back
        push    edi
        ; 2. The copy, through two windows.
        call    pv_window
        mov     ebx, edi
        mov     eax, [esp + 4]
        call    pv_window
        mov     eax, [pv_structure]
        movzx   esi, word [eax + COPY_SOURCE + 6]
        movzx   ecx, word [eax + COPY_TARGET + 6]
        add     esi, edi
        lea     edi, [ebx + ecx]
        movzx   ecx, word [eax + COPY_OCTETS]
        mov     eax, ecx
        shr     ecx, 2
        rep movsd
        mov     ecx, eax
        and     ecx, 3
        rep movsb
        ; 3. Both are given back.
        pop     edi
        call    pv_drop_type
        call    pv_put_page
        pop     eax
        pop     edi
        call    pv_put_page
        add     esp, 4
        xor     eax, eax
.answer:
        pop     esi
        pop     edx
        END_PATH grant_copy
        ret
.no_source:
        add     esp, 4
        jmp     .answer
.bad_argument:
        mov     eax, GNTST_bad_copy_arg
        jmp     .answer

        ; ESI one end, EBX whether by a grant -> EAX the frame, EDI its record; carry: EAX the status.
.acquire_to_write:
        push    dword 0
        jmp     .acquire
.acquire_to_read:
        push    dword GNTMAP_readonly
.acquire:
        mov     eax, [esi]
        movzx   ecx, word [esi + 4]
        mov     edx, [pv_domain]
        test    ebx, ebx
        pop     ebx
        jnz     .granted
        cmp     ecx, DOMID_SELF
        jne     .forbidden
        call    pv_grant_frame
        jnc     .acquired
        mov     eax, GNTST_bad_page
.acquired:
        ret
.granted:
        xchg    eax, ecx
        cmp     eax, DOMID_SELF
        je      .own
        call    pv_find_domain
        jc      .no_domain
.own:
        call    pv_grant_entry
        jc      .acquired
        mov     eax, [esi + ACTIVE_frame]
        cmp     dword [esi + ACTIVE_pins], 0
        jne     .of_entry
        mov     eax, [edi + 4]
.of_entry:
        call    pv_grant_frame
        jnc     .acquired
        mov     eax, GNTST_general_error
        ret
.forbidden:
        mov     eax, GNTST_permission_denied
        stc
        ret
.no_domain:
        mov     eax, GNTST_bad_domain
        stc
        ret

; -- the console --------------------------------------------------------------------------------------------------------

; console_io(command, octets, address): text, taken for the machine's console.
        align 16
pv_console_io:
        BEGIN
        cmp     dword [ebx], CONSOLEIO_write
        jne     refuse
        mov     ecx, [ebx + 4]
        mov     esi, [ebx + 8]
        cmp     ecx, PV_CONSOLE_BYTES
        ja      refuse
        mov     eax, esi
        add     eax, ecx
        jc      .fault
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      .fault
        mov     edi, [XEN(console_length)]
        mov     edx, PV_CONSOLE_BYTES
        sub     edx, edi
        cmp     ecx, edx
        ja      refuse
        add     [XEN(console_length)], ecx
        add     edi, XEN(console)
        test    ecx, ecx
        jz      .done
.next:
        mov     al, [esi]
        inc     esi
        mov     [edi], al
        inc     edi
        dec     ecx
        jnz     .next
.done:
        xor     eax, eax
        END_PATH console_write
        ret
.fault:
        mov     eax, -EFAULT
        END_PATH console_write
        ret

; -- interrupts of devices ------------------------------------------------------------------------------------------------

; An interrupt of the machine's, on a line that is not level-triggered: acknowledged, and made an event. The entry has pushed a
; zero and the vector.
PIC_MASTER equ 0x20
PIC_SLAVE  equ 0xA0
PIC_EOI    equ 0x20

        align 16
pv_physical_interrupt:
        BEGIN
        TAKE_FRAME
        mov     ecx, [ebp + P_VECTOR]
        sub     ecx, PV_IRQ_VECTOR
        cmp     dword [XEN(level_lines)], 0
        jne     refuse
        mov     eax, ecx
        and     eax, 7
        cmp     eax, 7
        je      refuse                          ; perhaps spurious
        mov     eax, PIC_EOI
        cmp     ecx, 8
        jb      .master
        out     PIC_SLAVE, al
.master:
        out     PIC_MASTER, al
        mov     edx, VMM_BASE + PV_DOMAINS
.next:
        mov     eax, [edx + DOMAIN_pirq_port + ecx * 4]
        test    eax, eax
        jz      .other
        push    ecx
        mov     ecx, eax
        call    pv_set_pending
        pop     ecx
.other:
        add     edx, DOMAIN_RECORD_BYTES
        cmp     edx, VMM_BASE + PV_DOMAINS + PV_N_DOMAINS * DOMAIN_RECORD_BYTES
        jb      .next
        LEAVE_BY physical_interrupt
