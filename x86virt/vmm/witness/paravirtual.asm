; A VMM for guests that are ported to Xen's interface: the gate of hypercalls, exceptions and events for ring 1.
;
; Every address space holds the VMM, so that a guest's pointer is simply used, once it is known to lie below what is the
; VMM's. The routines are for one processor: no LOCK prefix anywhere. Of the guest's registers a frame stands on the VMM's
; stack, the six that carry arguments lowest, so that the frame itself is the list of a hypercall's arguments.
;
;   paravirtual.asm          entry and way out, exceptions, the virtual processor
;   paravirtual_memory.asm   frames and their types, page tables, descriptors
;   paravirtual_events.asm   event channels, time, domains, grants
;
; A hypercall's handler finds its arguments at EBX, the domain's record at EDX and returns its result in EAX; EBP points at
; the frame and is kept, all others may be lost.

%include "paravirtual.inc"

%define XEN(field) (VMM_BASE + PV_XEN_RECORD + XEN_ %+ field)

P_GS     equ -16
P_FS     equ -12
P_ES     equ -8
P_DS     equ -4
P_EBX    equ 0
P_ECX    equ 4
P_EDX    equ 8
P_ESI    equ 12
P_EDI    equ 16
P_EBP    equ 20
P_EAX    equ 24
P_VECTOR equ 28
P_ERROR  equ 32
P_EIP    equ 36
P_CS     equ 40
P_EFLAGS equ 44
P_ESP    equ 48
P_SS     equ 52

BOUNCE_ERROR equ 1              ; an exception's frame has an error code
BOUNCE_MASK  equ 2              ; events are masked while its handler runs

; The frame, from what the processor and the entry have pushed.
%macro TAKE_FRAME 0
        push    eax
        push    ebp
        push    edi
        push    esi
        push    edx
        push    ecx
        push    ebx
        mov     ebp, esp
        push    ds
        push    es
        push    fs
        push    gs
        mov     ecx, VMM_DATA_SELECTOR
        mov     ds, ecx
        mov     es, ecx
        cld                             ; the guest's direction flag is in the frame
%endmacro

; Out of the VMM: what was asked for meanwhile, an event for the guest, and the frame. The path's name is the argument.
%macro LEAVE_BY 1
        mov     eax, [XEN(asked)]
        test    eax, eax
        jz      %%events
        call    pv_asked
%%events:
        mov     esi, [pv_vcpu_info]
        cmp     byte [esi + VCPU_UPCALL_MASK], 0
        jne     %%restore
        cmp     byte [esi + VCPU_UPCALL_PENDING], 0
        je      %%restore
        call    pv_upcall
%%restore:
        pop     gs
        pop     fs
        pop     es
        pop     ds
        pop     ebx
        pop     ecx
        pop     edx
        pop     esi
        pop     edi
        pop     ebp
        pop     eax
        add     esp, 8                  ; vector and error code
        END_PATH %1
        END_PATH exit_dispatch          ; the image is left here
        iretd
%endmacro

; What handlers have asked for, EAX: the scheduler. A flush is the processor's, timers have been set already. Uses all but EBP.
        align 16
pv_asked:
        test    eax, ASK_CRASH | ASK_BOARD
        jnz     refuse
        test    eax, ASK_SCHEDULE
        jz      .done
        call    pv_schedule
.done:
        mov     dword [XEN(asked)], 0
        ret

; -- hypercalls ---------------------------------------------------------------------------------------------------------

        align 16
pv_hypercall:
        BEGIN
        push    byte 0
        push    dword HYPERCALL_VECTOR
        TAKE_FRAME
        cmp     eax, N_HYPERCALLS
        jae     .missing
        mov     ebx, ebp
        mov     edx, [pv_domain]
        call    [pv_hypercalls + eax * 4]
.answer:
        mov     [ebp + P_EAX], eax
        LEAVE_BY hypercall
.missing:
        mov     eax, -ENOSYS
        jmp     .answer

pv_missing:
        mov     eax, -ENOSYS
        ret

; multicall(list, count): each of the calls in the list, whose results go there too.
CALL_OP     equ 0
CALL_RESULT equ 4
CALL_ARGS   equ 8
CALL_SHIFT  equ 5               ; bytes of an entry, as a power of two

        align 16
pv_multicall:
        BEGIN
        mov     esi, [ebx]
        mov     edi, [ebx + 4]
        cmp     dword [XEN(in_multicall)], 0
        jne     .inner
        test    edi, 0xF8000000                 ; its bytes must be counted in 32 bits
        jnz     .fault
        mov     ecx, edi
        shl     ecx, CALL_SHIFT
        add     ecx, esi
        jc      .fault
        cmp     ecx, [edx + DOMAIN_virt_start]
        ja      .fault
        test    edi, edi
        jz      .done
        mov     dword [XEN(in_multicall)], 1
        mov     edi, ecx                        ; the end of the list
.next:
        mov     eax, [esi + CALL_OP]
        mov     ecx, [esi + CALL_ARGS]
        mov     ebx, [esi + CALL_ARGS + 4]
        mov     [pv_arguments], ecx
        mov     [pv_arguments + 4], ebx
        mov     ecx, [esi + CALL_ARGS + 8]
        mov     ebx, [esi + CALL_ARGS + 12]
        mov     [pv_arguments + 8], ecx
        mov     [pv_arguments + 12], ebx
        mov     ecx, [esi + CALL_ARGS + 16]
        mov     ebx, [esi + CALL_ARGS + 20]
        mov     [pv_arguments + 16], ecx
        mov     [pv_arguments + 20], ebx
        push    esi
        push    edi
        cmp     eax, N_HYPERCALLS
        jae     .missing
        mov     ebx, pv_arguments
        call    [pv_hypercalls + eax * 4]
.answer:
        pop     edi
        pop     esi
        mov     edx, [pv_domain]
        mov     [esi + CALL_RESULT], eax
        add     esi, 1 << CALL_SHIFT
        test    dword [XEN(asked)], ASK_SCHEDULE | ASK_CRASH
        jnz     refuse                          ; the rest of the list is another time's
        cmp     esi, edi
        jne     .next
        mov     dword [XEN(in_multicall)], 0
.done:
        xor     eax, eax
        END_PATH multicall
        ret
.missing:
        mov     eax, -ENOSYS
        jmp     .answer
.fault:
        mov     eax, -EFAULT
        END_PATH multicall
        ret
.inner:
        mov     eax, -ENOSYS
        END_PATH multicall
        ret

; -- the virtual processor ------------------------------------------------------------------------------------------------

; vm_assist(command, type): a small hypercall, which sets a bit of the domain's.
VMASST_CMD_disable equ 1

        align 16
pv_vm_assist:
        BEGIN
        mov     ecx, [ebx + 4]
        mov     esi, [ebx]
        cmp     ecx, 3
        ja      .invalid
        cmp     esi, VMASST_CMD_disable
        ja      .missing
        mov     eax, 1
        shl     eax, cl
        test    esi, esi
        jnz     .disable
        or      [edx + DOMAIN_assists], eax
        xor     eax, eax
        END_PATH small_hypercall
        ret
.disable:
        not     eax
        and     [edx + DOMAIN_assists], eax
        xor     eax, eax
        END_PATH small_hypercall
        ret
.invalid:
        mov     eax, -EINVAL
        END_PATH small_hypercall
        ret
.missing:
        mov     eax, -ENOSYS
        END_PATH small_hypercall
        ret

; set_callbacks(event selector, event address, failsafe selector, failsafe address).
        align 16
pv_set_callbacks:
        BEGIN
        mov     eax, [ebx]
        mov     ecx, [ebx + 4]
        call    pv_ring_of_code
        mov     [edx + DOMAIN_event_cs], eax
        mov     [edx + DOMAIN_event_eip], ecx
        mov     eax, [ebx + 8]
        mov     ecx, [ebx + 12]
        call    pv_ring_of_code
        mov     [edx + DOMAIN_failsafe_cs], eax
        mov     [edx + DOMAIN_failsafe_eip], ecx
        xor     eax, eax
        END_PATH small_hypercall
        ret

; EAX a selector of the guest's for its kernel: not in ring 0.
pv_ring_of_code:
        and     eax, 0xFFFF
        test    al, 3
        jnz     .outer
        or      al, 1
.outer:
        ret

; set_trap_table(entries): vector, flags, selector and address of each, up to one whose address is 0.
TRAP_VECTOR  equ 0
TRAP_FLAGS   equ 1
TRAP_CS      equ 2
TRAP_ADDRESS equ 4
TRAP_BYTES   equ 8

        align 16
pv_set_trap_table:
        BEGIN
        mov     esi, [ebx]
        test    esi, esi
        jz      .clear
.next:
        lea     eax, [esi + TRAP_BYTES]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      .fault
        cmp     eax, esi
        jb      .fault
        mov     ecx, [esi + TRAP_ADDRESS]
        mov     eax, [esi]
        test    ecx, ecx
        jz      .done
        movzx   edi, al
        movzx   ebx, ah
        lea     edi, [edx + edi * 4]
        shr     eax, 16
        mov     [edi + DOMAIN_trap_eip], ecx
        mov     [edi + DOMAIN_trap_flags], ebx
        test    al, 3
        jnz     .outer
        or      al, 1
.outer:
        mov     [edi + DOMAIN_trap_cs], eax
        add     esi, TRAP_BYTES
        jmp     .next
.done:
        xor     eax, eax
        END_PATH set_trap_table
        ret
.clear:
        lea     edi, [edx + DOMAIN_trap_cs]
        mov     ecx, 3 * 256
        xor     eax, eax
        rep stosd
        END_PATH set_trap_table
        ret
.fault:
        mov     eax, -EFAULT
        END_PATH set_trap_table
        ret

; stack_switch(selector, pointer): where traps from ring 3 come to in ring 1.
TSS_ESP1 equ 12
TSS_SS1  equ 16
TSS_IO_MAP_FIELD equ 102

        align 16
pv_stack_switch:
        BEGIN
        movzx   eax, word [ebx]
        mov     ecx, [ebx + 4]
        test    al, 3
        jnz     .outer
        or      al, 1
.outer:
        mov     [edx + DOMAIN_kernel_ss], eax
        mov     [edx + DOMAIN_kernel_esp], ecx
        mov     [VMM_BASE + PV_TSS + TSS_SS1], eax
        mov     [VMM_BASE + PV_TSS + TSS_ESP1], ecx
        xor     eax, eax
        END_PATH stack_switch
        ret

; fpu_taskswitch(set).
        align 16
pv_fpu_taskswitch:
        BEGIN
        cmp     dword [ebx], 0
        je      .clear
        mov     dword [edx + DOMAIN_task_switched], 1
        mov     eax, cr0
        or      eax, CR0_TS
        mov     cr0, eax
        xor     eax, eax
        END_PATH fpu_taskswitch
        ret
.clear:
        mov     dword [edx + DOMAIN_task_switched], 0
        clts
        xor     eax, eax
        END_PATH fpu_taskswitch
        ret

; -- exceptions and events for ring 1 -----------------------------------------------------------------------------------

; An exception of the guest's that the VMM has no part in: the vector's stub has pushed error code and vector.
        align 16
pv_exception:
        BEGIN
        TAKE_FRAME
        mov     edx, [pv_domain]
        mov     eax, [ebp + P_VECTOR]
        lea     edi, [edx + eax * 4]
        cmp     eax, VECTOR_PF
        jne     .bounce
        mov     ecx, cr2
        mov     esi, [pv_vcpu_info]
        mov     [edx + DOMAIN_cr2], ecx
        mov     [esi + VCPU_CR2], ecx
        cmp     ecx, [edx + DOMAIN_virt_start]
        jae     refuse                          ; perhaps its LDT's, or the VMM's own affair
.bounce:
        mov     ecx, eax
        mov     eax, ERROR_CODES
        shr     eax, cl
        and     eax, BOUNCE_ERROR
        mov     ebx, [edi + DOMAIN_trap_flags]
        mov     ecx, [edi + DOMAIN_trap_cs]
        shr     ebx, 1                          ; TI_IF is bit 2
        and     ebx, BOUNCE_MASK
        or      ebx, eax
        mov     eax, [edi + DOMAIN_trap_eip]
        call    pv_bounce
        LEAVE_BY bounce

; Pending events: into the guest's callback.
        align 16
pv_upcall:
        BEGIN
        mov     edx, [pv_domain]
        mov     ecx, [edx + DOMAIN_event_cs]
        mov     eax, [edx + DOMAIN_event_eip]
        mov     ebx, BOUNCE_MASK
        call    pv_bounce
        END_PATH upcall
        ret

; A frame for ring 1: to ECX:EAX, EBX says how (BOUNCE_...). The guest's stack is written through its own stack segment,
; whose limit ends below the VMM. In the slot of CS is the upcall mask too, in the frame's IF the mask's reverse.
        align 16
pv_bounce:
        push    eax
        push    ecx
        mov     edi, [pv_vcpu_info]
        mov     esi, [ebp + P_ESP]
        mov     eax, [ebp + P_CS]
        mov     ecx, [ebp + P_SS]
        test    al, 2
        jnz     .from_user
        mov     gs, ecx
        jmp     .frame
.from_user:
        mov     eax, [edx + DOMAIN_kernel_ss]
        mov     gs, eax
        mov     [ebp + P_SS], eax
        mov     eax, esi
        mov     esi, [edx + DOMAIN_kernel_esp]
        sub     esi, 8
        mov     [gs:esi], eax
        mov     [gs:esi + 4], ecx
.frame:
        sub     esi, 12
        movzx   eax, byte [edi + VCPU_UPCALL_MASK]
        mov     ecx, eax
        shl     eax, 16
        or      eax, [ebp + P_CS]
        mov     [gs:esi + 4], eax
        dec     ecx                             ; no mask: -1
        and     ecx, EFLAGS_IF
        mov     eax, [ebp + P_EFLAGS]
        and     eax, ~EFLAGS_IF
        or      eax, ecx
        mov     [gs:esi + 8], eax
        mov     eax, [ebp + P_EIP]
        mov     [gs:esi], eax
        test    bl, BOUNCE_ERROR
        jz      .no_error
        sub     esi, 4
        mov     eax, [ebp + P_ERROR]
        mov     [gs:esi], eax
.no_error:
        test    bl, BOUNCE_MASK
        jz      .masked
        mov     byte [edi + VCPU_UPCALL_MASK], 1
.masked:
        pop     ecx
        pop     eax
        mov     [ebp + P_ESP], esi
        and     dword [ebp + P_EFLAGS], ~(EFLAGS_TF | EFLAGS_NT | EFLAGS_RF | EFLAGS_VM)
        test    ecx, 0xFFFC
        jz      refuse                          ; no handler: the domain is at its end
        mov     [ebp + P_CS], ecx
        mov     [ebp + P_EIP], eax
        ret

; iret: the guest's own frame, on its stack, above it EAX.
        align 16
pv_iret:
        BEGIN
        mov     esi, [ebp + P_ESP]
        mov     eax, [ebp + P_SS]
        mov     gs, eax
        mov     eax, [gs:esi]
        mov     ecx, [gs:esi + 4]
        mov     ebx, [gs:esi + 8]
        mov     edx, [gs:esi + 12]
        movzx   ebx, bx
        mov     edi, [pv_vcpu_info]
        mov     [ebp + P_EIP], ecx
        test    bl, 3
        jz      refuse                          ; ring 0: its failsafe callback
        mov     [ebp + P_CS], ebx
        mov     ecx, edx
        and     edx, ~(EFLAGS_IOPL | EFLAGS_VM)
        or      edx, EFLAGS_IF | EFLAGS_FIXED
        mov     [ebp + P_EFLAGS], edx
        test    bl, 2
        jz      .kernel
        mov     edx, [gs:esi + 16]
        movzx   ebx, word [gs:esi + 20]
        mov     [ebp + P_ESP], edx
        mov     [ebp + P_SS], ebx
        jmp     .mask
.kernel:
        add     esi, 16
        mov     [ebp + P_ESP], esi
.mask:
        shr     ecx, 9
        not     ecx
        and     ecx, 1
        mov     [edi + VCPU_UPCALL_MASK], cl
        END_PATH hypercall_iret
        ret

; UD2A and "xen" in front of a CPUID: #UD has come to the VMM.
UD2_AND_X equ 0x65780B0F
FORCED_BYTES equ 7

        align 16
pv_forced_cpuid:
        BEGIN
        mov     edx, [pv_domain]
        mov     esi, [ebp + P_EIP]
        lea     eax, [esi + FORCED_BYTES]
        cmp     eax, [edx + DOMAIN_virt_start]
        ja      refuse
        cmp     dword [esi], UD2_AND_X
        jne     refuse
        cmp     byte [esi + 4], 'n'
        jne     refuse
        cmp     word [esi + 5], 0xA20F
        jne     refuse
        mov     eax, [ebp + P_EAX]
        mov     ecx, [ebp + P_ECX]
        call    pv_cpuid
        mov     [ebp + P_EAX], eax
        mov     [ebp + P_EBX], ebx
        mov     [ebp + P_ECX], ecx
        mov     [ebp + P_EDX], edx
        add     dword [ebp + P_EIP], FORCED_BYTES
        END_PATH forced_cpuid
        ret

; A leaf of CPUID as the guest is shown it: EAX, ECX -> all four.
pv_cpuid:
        cpuid
        ret

; -- each by itself -------------------------------------------------------------------------------------------------------

; A routine of the VMM's, behind the entry of a trap, which has pushed error code and vector: the label, and the routine.
%macro ALONE 2
%1:
        BEGIN
        TAKE_FRAME
        mov     edx, [pv_domain]
        call    %2
        LEAVE_BY trap_dispatch
%endmacro

ALONE pv_forced_cpuid_alone, pv_forced_cpuid
ALONE pv_writable_table_alone, pv_writable_table

; Those whose arguments are in ESI and EDI.
pv_scan_alone:
        mov     ecx, VMM_DATA_SELECTOR
        mov     ds, ecx
        mov     es, ecx
        mov     edx, [pv_domain]
        call    pv_scan_l1
        END_PATH exit_dispatch
