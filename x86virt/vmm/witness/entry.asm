; From the gate to the handler, and back to the guest.
;
; A trap from the guest switches to the VMM's stack, which the VMM's TSS names, and pushes SS, ESP, EFLAGS, CS, EIP and
; for some vectors an error code. Each gate leads to a stub that makes all frames alike: it pushes a zero where the
; processor pushed no error code, then the vector.

; Vectors with an error code: 8, 10 to 14, 17.
ERROR_CODES equ 1 << 8 | 0x7C00 | 1 << 17

STUB_BYTES equ 16

        align 16
stubs:
%assign vector 0
%rep 256
    %if vector < 32
        %if (ERROR_CODES >> vector) & 1 == 0
        push    byte 0
        %endif
    %else
        push    byte 0
    %endif
        push    dword vector
        jmp     near trap
        align   STUB_BYTES
    %assign vector vector + 1
%endrep

; SYSENTER comes here with the stack pointer of its MSR, STACK_TOP - 20, and nothing pushed: where the guest came from
; it must know itself. The frame is completed by hand; only EFLAGS still hold anything of the guest.
sysenter_stub:
        pushfd
        pop     dword [esp + 8]
        or      dword [esp + 8], EFLAGS_IF
        push    byte 0
        push    dword 256
        jmp     near trap

; To measure a store to a traced frame by itself, at the exit of another fault with an error code.
traced_stub:
        push    dword 257
        jmp     near trap

; -- saving ---------------------------------------------------------------------------------------------------------
        align 16
trap:
        pushad
        push    ds
        push    es
        push    fs
        push    gs
        mov     eax, VMM_DATA_SELECTOR
        mov     ds, eax
        mov     es, eax
        cld                             ; the guest's direction flag is in the frame
        mov     ebp, esp
        mov     eax, [ebp + F_VECTOR]
        mov     ecx, [ebp + F_ERROR]
        mov     [VCPU(trap_vector)], eax
        mov     [VCPU(trap_error)], ecx
        cmp     dword [ebp + F_CS], TRANSLATED_CODE_SELECTOR | GUEST_RING
        je      resume.translated
.guest:
        call    [handlers + eax * 4]

; -- the way back -----------------------------------------------------------------------------------------------------
; Before the guest goes on: is it halted, and does a virtual interrupt wait whose time has come?
resume:
        cmp     dword [VCPU(halted)], 0
        jne     .halted
.running:
        cmp     dword [DEVICE(pending)], 0
        jne     .interrupt
.restore:
        cmp     dword [TABLES(translates)], 0
        jne     .to_cache
.pop:
..@restoring:                           ; a segment whose descriptor has left the shadow would fault here: a slower path
        pop     gs
        pop     fs
        pop     es
        pop     ds
        popad
        add     esp, 8                  ; vector and error code
        END_PATH trap_dispatch
        iretd                           ; its price is live, and not part of any path

.translated:
        call    leave_cache
        mov     eax, [ebp + F_VECTOR]
        jmp     trap.guest

.to_cache:
        cmp     dword [VCPU(cpl)], 0
        jne     .pop                    ; programs run directly
        call    enter_cache
        jmp     .pop

.interrupt:
        cmp     dword [VCPU(interrupt_flag)], 0
        je      .restore
        cmp     dword [VCPU(interrupt_shadow)], 0
        jne     .restore
        call    acknowledge             ; -> EAX the vector
        mov     [event_vector], eax
        xor     eax, eax
        mov     [event_has_error], eax
        mov     [event_software], eax
        mov     [event_exception], eax
        call    reflect
        jmp     .restore

.halted:
        cmp     dword [DEVICE(pending)], 0
        je      .idle
        mov     dword [VCPU(halted)], 0
        jmp     .running
.idle:                                  ; STI; HLT until the host's timer
        END_PATH idle

refuse:
        END_PATH refused

; Shadowing several descriptors at once, to be measured by itself: EAX of them stand in `items`.
shadow_items_alone:
        mov     ecx, VMM_DATA_SELECTOR
        mov     ds, ecx
        mov     es, ecx
        call    shadow_items
        END_PATH trap_dispatch

; -- who handles what -------------------------------------------------------------------------------------------------
        align 64
handlers:
        dd      exception, exception, refuse, soft_gate, soft_gate, exception, exception, exception
        dd      refuse, refuse, protection, protection, protection, protection, page_fault, refuse
        dd      refuse, exception, refuse
        times   0xF0 - 19 dd soft_gate
        dd      host_timer, callout
        times   255 - 0xF1 dd soft_gate
        dd      system_call, traced_write

; The guest's own exception: to the guest, as it is.
exception:
        mov     eax, [ebp + F_VECTOR]
        mov     [event_vector], eax
        mov     ecx, [ebp + F_ERROR]
        mov     [event_error], ecx
        xor     edx, edx
        mov     [event_software], edx
        mov     dword [event_exception], 1
        mov     ecx, eax
        mov     eax, ERROR_CODES
        shr     eax, cl
        and     eax, 1
        mov     [event_has_error], eax
        jmp     reflect

; INT n through a gate that the VMM opened to ring 3 because the guest's own gate is open: EIP is behind it already.
soft_gate:
        mov     eax, [ebp + F_VECTOR]
        mov     [event_vector], eax
        xor     edx, edx
        mov     [event_has_error], edx
        mov     [event_exception], edx
        mov     dword [event_software], 1
        jmp     reflect

; A virtual device's deadline has come: `resume` delivers what it raised.
host_timer:
        ret

; #GP, #NP, #SS or #TS: a privileged instruction, a selector that the shadow lacks, or the guest's own fault. The
; decoder tells them apart; an instruction that is none of the sensitive ones has faulted by itself.
protection:
        jmp     emulate

; An emulated instruction faults: EAX the vector, EDX the error code. Whatever the handler was doing is abandoned.
fault_gp_zero:
        xor     edx, edx
fault_gp:
        mov     eax, VECTOR_GP
fault:
        mov     dword [event_has_error], 1
raise:
        lea     esp, [ebp - 4]                  ; where the dispatcher's return address is
        END_PATH emulate
        mov     [event_vector], eax
        mov     [event_error], edx
        mov     dword [event_software], 0
        mov     dword [event_exception], 1
        jmp     reflect
fault_ud:
        mov     dword [event_has_error], 0
        mov     eax, VECTOR_UD
        jmp     raise
