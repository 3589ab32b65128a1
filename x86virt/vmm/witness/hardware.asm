; A VMM whose guest runs under VMX or SVM: from a VM exit to its handler, and back to VM entry.
;
; The processor leaves the guest at `vm_exit`, in the VMM's own state, with the guest's general registers still loaded.
; What else there is to know lies in the control structure: each access to it is an instruction or a reference of its own,
; counted apart. The routines work on the exit record, where the reads have put the fields (`have`), and from which
; the writes take those that are `changed`. Reasons are numbered as VMX numbers them; a VMM on SVM finds its handlers by the
; exit code in the same way.
;
; The frame is that of a trap, as far as there is one: PUSHAD's part, and room for the rest, which is in the record.

%define EXIT(field) (VMM_BASE + EXIT_RECORD + EXIT_ %+ field)

; A field that the routine needs has been read; one that has not would be read here.
%macro READ 1
        test    dword [EXIT(have)], BIT_%1
        jz      refuse
%endmacro

%macro CHANGED 1
        or      dword [EXIT(changed)], BIT_%1
%endmacro

; The guest goes on behind its instruction, and out of an interrupt shadow. Uses EAX.
%macro STEP_OVER 0
        READ    vm_exit_instruction_length
        READ    guest_rip
        mov     eax, [EXIT(vm_exit_instruction_length)]
        add     [EXIT(guest_rip)], eax
        CHANGED guest_rip
        READ    guest_rflags
        test    dword [EXIT(guest_rflags)], EFLAGS_TF
        jnz     refuse                          ; the guest's single-step trap
        READ    guest_interruptibility_state
        test    dword [EXIT(guest_interruptibility_state)], BLOCKED_BY_STI | BLOCKED_BY_MOV_SS
        jz      %%over
        and     dword [EXIT(guest_interruptibility_state)], ~(BLOCKED_BY_STI | BLOCKED_BY_MOV_SS)
        CHANGED guest_interruptibility_state
%%over:
%endmacro

BLOCKED_BY_STI    equ 1 << 0
BLOCKED_BY_MOV_SS equ 1 << 1
INTERRUPT_WINDOW_EXITING equ 1 << 2     ; of the primary processor-based controls
CR3_EXITING       equ 3 << 15           ; loads and stores
EVENT_VALID       equ 1 << 31
EVENT_HAS_ERROR   equ 1 << 11
EVENT_EXTERNAL    equ 0 << 8
EVENT_EXCEPTION   equ 3 << 8
EVENT_TYPE        equ 7 << 8
EVENT_SOFTWARE    equ 1 << 10           ; the types of INT n, INT1, INT3 and INTO have this bit
N_REASONS         equ 56
CR4_VMXE equ 1 << 13
PLAIN_DATA_MASK   equ 1 << 16 | 1 << 14 | 0x9E     ; unusable, B, present, S, type but for accessed
PLAIN_DATA        equ 0x92
V86_ACCESS equ 0xF3                     ; present, DPL 3, writable, accessed
EXIT_FRAME_BYTES equ 48                 ; what lies below the stack pointer of the host: PUSHAD, and the data segments' room

; -- to the handler -----------------------------------------------------------------------------------------------------
        align 16
vm_exit:
        pushad
        sub     esp, F_EDI              ; the data segments of the frame: here they stay in the control structure
        mov     ebp, esp
        mov     eax, [EXIT(reason)]
        cmp     eax, N_REASONS
        jae     refuse                  ; an entry that failed
        READ    idt_vectoring_information
        cmp     dword [EXIT(idt_vectoring_information)], 0
        jl      .cut_short
.handle:
        call    [exit_handlers + eax * 4]

; -- and back -------------------------------------------------------------------------------------------------------------
        ; 1. A halted guest sleeps on; a virtual interrupt that waits is injected, or the window for it asked for.
        cmp     dword [VCPU(halted)], 0
        jne     .halted
.running:
        cmp     dword [DEVICE(pending)], 0
        jne     .interrupt
.window:                                ; asked for while something waits, and not otherwise
        mov     eax, [EXIT(primary_processor_based_vm_execution_controls)]
        shr     eax, 2
        and     eax, 1
        cmp     eax, [DEVICE(pending)]
        jne     .toggle
.enter:
        ; 2. What has changed is written. Each write is counted apart; finding it is not.
        mov     edx, [EXIT(changed)]
        test    edx, edx
        jz      .written
.next:
        bsf     ecx, edx
        btr     edx, ecx
        mov     eax, [field_encodings + ecx * 4]
        mov     ebx, [EXIT(exit_qualification) + ecx * 4]
        mov     esi, eax                ; where VMWRITE would stand
        test    edx, edx
        jnz     .next
        mov     [EXIT(changed)], edx
.written:
        mov     [EXIT(have)], edx       ; the next exit brings others
        add     esp, F_EDI
        popad
        END_PATH exit_dispatch          ; VMRESUME

.cut_short:                             ; an event was being delivered: it is injected anew, if the exit is dealt with
        mov     ecx, [EXIT(idt_vectoring_information)]
        mov     edx, [EXIT(idt_vectoring_error_code)]
        push    eax
        mov     eax, ecx
        mov     ecx, edx
        call    inject
        pop     eax
        mov     ecx, [EXIT(idt_vectoring_information)]
        mov     edx, ecx
        and     edx, EVENT_TYPE
        cmp     edx, EVENT_EXCEPTION
        jne     .not_a_fault
        mov     edx, FAULT_CLASS
        bt      edx, ecx
        jc      .handle
.not_a_fault:                           ; whose frame is to have RF, which the exit has saved, clear
        call    drop_resume_flag
        jmp     .handle

.interrupt:
        READ    guest_rflags
        test    dword [EXIT(guest_rflags)], EFLAGS_IF
        jz      .window
        cmp     dword [EXIT(vm_entry_interruption_information)], 0
        jl      .window                 ; another event goes first
        READ    guest_interruptibility_state
        test    dword [EXIT(guest_interruptibility_state)], BLOCKED_BY_STI | BLOCKED_BY_MOV_SS
        jnz     .window
        call    acknowledge             ; -> EAX the vector
        or      eax, EVENT_VALID | EVENT_EXTERNAL
        call    inject
        jmp     .window
.toggle:
        call    window_toggled
        jmp     .enter

.halted:
        cmp     dword [DEVICE(pending)], 0
        je      .idle
        mov     dword [VCPU(halted)], 0
        jmp     .running
.idle:
        END_PATH idle

; EAX interruption information, ECX an error code: the event is delivered by VM entry. Where its delivery began with an
; instruction the length that the exit told is that of the instruction. Uses ECX.
        align 16
inject:
        BEGIN
        mov     [EXIT(vm_entry_interruption_information)], eax
        CHANGED vm_entry_interruption_information
        test    eax, EVENT_HAS_ERROR
        jz      .no_error
        mov     [EXIT(vm_entry_exception_error_code)], ecx
        CHANGED vm_entry_exception_error_code
.no_error:
        test    eax, EVENT_SOFTWARE
        jz      .done
        READ    vm_exit_instruction_length
        mov     ecx, [EXIT(vm_exit_instruction_length)]
        mov     [EXIT(vm_entry_instruction_length)], ecx
        CHANGED vm_entry_instruction_length
.done:
        END_PATH inject
        ret

; RF is the exit's, not the guest's. Uses no register.
drop_resume_flag:
        READ    guest_rflags
        test    dword [EXIT(guest_rflags)], EFLAGS_RF
        jz      .done
        and     dword [EXIT(guest_rflags)], ~EFLAGS_RF
        CHANGED guest_rflags
.done:
        ret

; The window is asked for or given up.
        align 16
window_toggled:
        BEGIN
        xor     dword [EXIT(primary_processor_based_vm_execution_controls)], INTERRUPT_WINDOW_EXITING
        CHANGED primary_processor_based_vm_execution_controls
        END_PATH window
        ret

        align 64
exit_handlers:
        dd      exit_exception, exit_interrupt          ; 0, 1
        times   5 dd refuse                             ; triple fault, INIT, SIPI, SMIs
        dd      host_timer                              ; 7: nothing: what waits is taken on the way back
        times   2 dd refuse                             ; NMI window, task switch: the interpreter
        dd      exit_cpuid, refuse, exit_halt           ; 10 to 12; GETSEC
        dd      exit_skip, exit_invlpg                  ; 13, 14: INVD
        times   3 dd refuse                             ; RDPMC, RDTSC, RSM
        times   9 dd exit_undefined                     ; 18 to 26: the instructions of VMX but VMXON
        dd      refuse
        dd      exit_control_register, refuse           ; 28; debug registers
        dd      exit_port, exit_read_msr, exit_write_msr ; 30 to 32
        times   7 dd refuse
        dd      exit_skip                               ; 40: PAUSE
        times   7 dd refuse
        dd      nested_fill                             ; 48: EPT violation
        times   5 dd refuse
        dd      exit_skip, refuse                       ; 54: WBINVD
%if ($ - exit_handlers) != N_REASONS * 4
    %error exit_handlers
%endif

; Encodings of the fields, in the order of the record.
field_encodings:
        dd      FIELD_ENCODINGS

; -- exits that an instruction causes ---------------------------------------------------------------------------------------
        align 16
exit_skip:
        BEGIN
        STEP_OVER
        END_PATH exit_skip
        ret

        align 16
exit_halt:
        BEGIN
        mov     dword [VCPU(halted)], 1
        STEP_OVER
        END_PATH exit_halt
        ret

; The leaf's row of a table, as the processor would find it (SDM volume 2, CPUID).
        align 16
exit_cpuid:
        BEGIN
        mov     eax, [ebp + F_EAX]
        mov     ecx, eax
        btr     ecx, 31
        jc      .extended
        cmp     eax, [EXIT(cpuid_highest)]
        ja      .beyond
.basic:
        cmp     eax, 4
        je      .caches
.row:
        shl     eax, 4
        lea     esi, [EXIT(cpuid) + eax]
        mov     eax, [esi]
        mov     ebx, [esi + 4]
        mov     ecx, [esi + 8]
        mov     edx, [esi + 12]
.answer:
        mov     [ebp + F_EAX], eax
        mov     [ebp + F_EBX], ebx
        mov     [ebp + F_ECX], ecx
        mov     [ebp + F_EDX], edx
        STEP_OVER
        END_PATH exit_cpuid
        ret
.extended:
        cmp     eax, [EXIT(cpuid_extended)]
        ja      .beyond
        lea     eax, [ecx + CPUID_EXTENDED]
        jmp     .row
.caches:
        mov     eax, [ebp + F_ECX]
        cmp     eax, 4
        jb      .cache
        mov     eax, 4
.cache:
        add     eax, CPUID_CACHES
        jmp     .row
.beyond:                                        ; the highest leaf, or zeros
        mov     eax, [EXIT(cpuid_highest)]
        cmp     dword [EXIT(cpuid_repeats)], 0
        jne     .basic
        xor     eax, eax
        xor     ebx, ebx
        xor     ecx, ecx
        xor     edx, edx
        jmp     .answer

; IN and OUT; the processor has checked the guest's right to the port. Qualification: bytes less one, bit 3 IN, bit 4
; INS or OUTS, the port in the upper half.
        align 16
exit_port:
        BEGIN
        READ    exit_qualification
        mov     eax, [EXIT(exit_qualification)]
        mov     edx, eax
        mov     ebx, eax
        shr     edx, 16
        and     ebx, 7
        inc     ebx
        test    al, 1 << 4
        jnz     refuse
        test    al, 1 << 3
        jz      .out
        call    device_in
        cmp     ebx, 2
        ja      .whole
        je      .word
        mov     [ebp + F_EAX], al
        jmp     .done
.word:
        mov     [ebp + F_EAX], ax
        jmp     .done
.whole:
        mov     [ebp + F_EAX], eax
        jmp     .done
.out:
        mov     eax, [ebp + F_EAX]
        call    device_out
.done:
        STEP_OVER
        END_PATH exit_port
        ret

; Qualification: the control register, in bits 5:4 the access, in bits 11:8 the general register, in 31:16 LMSW's source.
        align 16
exit_control_register:
        BEGIN
        READ    exit_qualification
        mov     eax, [EXIT(exit_qualification)]
        mov     ecx, eax
        mov     edx, eax
        shr     ecx, 8
        and     ecx, 7
        movzx   ecx, byte [register_slots + ecx]
        shr     edx, 4
        and     edx, 3
        jmp     [.accesses + edx * 4]
        align   4
.accesses:
        dd      .to, .from, .clear, .status
.registers:
        dd      .cr0, refuse, refuse, .cr3, .cr4
.from:                                          ; of CR3 alone; the others are read through masks and shadows
        and     eax, 15
        cmp     eax, 3
        jne     refuse
        mov     eax, [VCPU(cr3)]
        cmp     ecx, F_ESP
        je      refuse                          ; which is in the control structure
        mov     [ebp + ecx], eax
        jmp     .done
.to:
        and     eax, 15
        cmp     eax, 4
        ja      refuse
        cmp     ecx, F_ESP
        je      refuse
        mov     edx, [ebp + ecx]
        jmp     [.registers + eax * 4]
.cr3:
        test    dword [VCPU(cr4)], CR4_PAE
        jnz     refuse                          ; the page-directory-pointer entries are loaded, and may be refused
        mov     [VCPU(cr3)], edx
        mov     dword [EXIT(space_changed)], 1
        cmp     dword [EXIT(nested)], 0
        je      .done                           ; the shadow's root goes there
        cmp     dword [VCPU(cr0)], 0            ; PG is bit 31
        jge     .done                           ; and here the identity table's
        mov     [EXIT(guest_cr3)], edx
        CHANGED guest_cr3
        jmp     .done
.clear:
        mov     edx, [VCPU(cr0)]
        and     edx, ~CR0_TS
        jmp     .cr0
.status:                                        ; PE can only be set
        shr     eax, 16
        mov     edx, [VCPU(cr0)]
        and     eax, CR0_PE | CR0_MP | CR0_EM | CR0_TS
        and     edx, ~(CR0_MP | CR0_EM | CR0_TS)
        or      edx, eax
.cr0:
        ; Reserved bits read as zero, ET as one; PG needs PE, NW needs CD.
        and     edx, 0xE005003F
        or      edx, CR0_ET
        mov     eax, edx
        and     eax, CR0_PG | CR0_PE
        cmp     eax, CR0_PG
        je      .refused
        mov     eax, edx
        and     eax, CR0_NW | CR0_CD
        cmp     eax, CR0_NW
        je      .refused
        test    edx, CR0_PE
        jz      refuse                          ; real mode
        test    dword [VCPU(cr4)], CR4_PAE
        jnz     refuse
        mov     ebx, [VCPU(cr0)]
        xor     ebx, edx                        ; what changes
        mov     [VCPU(cr0)], edx
        mov     [EXIT(cr0_read_shadow)], edx
        CHANGED cr0_read_shadow
        mov     eax, [EXIT(cr0_mask)]           ; PE, PG and NE must be set; the caches are the machine's
        not     eax
        and     edx, eax
        or      edx, [EXIT(cr0_forced)]
        cmp     edx, [EXIT(guest_cr0)]
        je      .same_cr0
        mov     [EXIT(guest_cr0)], edx
        CHANGED guest_cr0
.same_cr0:
        test    ebx, CR0_PG | CR0_WP
        jz      .done
        mov     dword [EXIT(space_changed)], 1
        cmp     dword [EXIT(nested)], 0
        je      .done                           ; a shadow maps a guest without paging as well
        test    ebx, ebx                        ; PG is bit 31
        jns     .done
        call    paging_switch
        jmp     .done
.cr4:
        test    edx, ~(CR4_TSD | CR4_DE | CR4_PSE | CR4_PGE | CR4_PCE)
        jnz     refuse
        mov     ebx, [VCPU(cr4)]
        xor     ebx, edx
        mov     [VCPU(cr4)], edx
        mov     [EXIT(cr4_read_shadow)], edx
        CHANGED cr4_read_shadow
        mov     eax, [EXIT(cr4_mask)]
        not     eax
        and     edx, eax
        or      edx, [EXIT(cr4_forced)]
        mov     [EXIT(guest_cr4)], edx
        CHANGED guest_cr4
        test    ebx, CR4_PSE | CR4_PAE | CR4_PGE
        jz      .done
        mov     dword [EXIT(space_changed)], 1
.done:
        STEP_OVER
        END_PATH exit_control_register
        ret
.refused:
        END_PATH exit_control_register
        jmp     inject_protection

; The guest's CR0.PG has changed while the processor's stays set: its CR3 is the guest's, or that of an identity table, which
; the guest must not see. That the table's frames are shown or hidden is `nested_drop`'s affair.
        align 16
paging_switch:
        BEGIN
        xor     dword [EXIT(primary_processor_based_vm_execution_controls)], CR3_EXITING
        CHANGED primary_processor_based_vm_execution_controls
        mov     eax, [VCPU(cr3)]
        cmp     dword [VCPU(cr0)], 0            ; PG is bit 31
        jl      .paged
        mov     eax, [EXIT(identity_root)]
        mov     ecx, [EXIT(guest_cr4)]
        and     ecx, ~CR4_PAE                   ; the identity table is of large pages
        or      ecx, CR4_PSE
        jmp     .load
.paged:
        mov     ecx, [VCPU(cr4)]
        or      ecx, CR4_VMXE
.load:
        mov     [EXIT(guest_cr3)], eax
        CHANGED guest_cr3
        cmp     ecx, [EXIT(guest_cr4)]
        je      .done
        mov     [EXIT(guest_cr4)], ecx
        CHANGED guest_cr4
.done:
        END_PATH paging_switch
        ret

        align 16
exit_read_msr:
        BEGIN
        mov     ecx, [ebp + F_ECX]
        call    find_model_specific
        jc      .unknown
        mov     eax, [esi + 4]
        mov     edx, [esi + 8]
        mov     [ebp + F_EAX], eax
        mov     [ebp + F_EDX], edx
        STEP_OVER
        END_PATH exit_msr
        ret
.unknown:
        END_PATH exit_msr
        jmp     inject_protection

        align 16
exit_write_msr:
        BEGIN
        mov     ecx, [ebp + F_ECX]
        call    find_model_specific
        jc      exit_read_msr.unknown
        cmp     dword [esi + 12], 0
        je      refuse                          ; not any value may be written
        mov     eax, [ebp + F_EAX]
        mov     edx, [ebp + F_EDX]
        mov     [esi + 4], eax
        mov     [esi + 8], edx
        STEP_OVER
        END_PATH exit_msr
        ret

; ECX a number -> ESI its row; carry: there is none. The control structure holds those that the processor itself uses.
find_model_specific:
        mov     esi, EXIT(model_specific)
.next:
        cmp     [esi], ecx
        je      .found
        add     esi, 16
        cmp     esi, EXIT(model_specific) + N_MODEL_SPECIFIC * 16
        jb      .next
        stc
.found:                                         ; no carry: they were equal
        ret

; INVLPG: the shadow's entry goes.
        align 16
exit_invlpg:
        BEGIN
        READ    exit_qualification
        mov     ebx, [EXIT(exit_qualification)]
        test    dword [VCPU(cr4)], CR4_PSE
        jnz     refuse                          ; the pieces of a large page would all have to go
        mov     eax, ebx
        shr     eax, 22
        call    shadow_drop.entry
        STEP_OVER
        END_PATH exit_invlpg
        ret

; -- events -------------------------------------------------------------------------------------------------------------------
; An exception: what the guest raised itself goes back to it. A page fault is looked at by the shadow first, if there is one,
; and #MF is performed by the interpreter.
        align 16
exit_exception:
        BEGIN
        READ    vm_exit_interruption_information
        mov     eax, [EXIT(vm_exit_interruption_information)]
        movzx   edx, al
        cmp     edx, 32
        jae     refuse
        mov     ecx, eax
        and     ecx, EVENT_TYPE
        cmp     ecx, 2 << 8                     ; NMI
        je      refuse
        xor     ecx, ecx
        test    eax, EVENT_HAS_ERROR
        jz      .no_error
        READ    vm_exit_interruption_error_code
        mov     ecx, [EXIT(vm_exit_interruption_error_code)]
.no_error:
        jmp     [.vectors + edx * 4]
        align   4
.vectors:
        times   14 dd .own
        dd      .page_fault
        dd      .own
        dd      refuse                          ; #MF
        times   15 dd .own
.own:
        and     eax, EVENT_VALID | EVENT_HAS_ERROR | EVENT_TYPE | 0xFF
        END_PATH exit_exception
        jmp     inject
.page_fault:
        mov     ebx, [EXIT(exit_qualification)]
        mov     [VCPU(trap_gla)], ebx
        mov     [VCPU(trap_error)], ecx
        cmp     dword [EXIT(nested)], 0
        je      .shadow
        mov     [VCPU(cr2)], ebx
        mov     cr2, ebx
        jmp     .own
.shadow:
        END_PATH exit_exception
        jmp     refuse                          ; `shadow_fill`, or the guest's own

; An interrupt of the host, acknowledged by the exit: its timer, or another's of which this VMM knows nothing. What the timer
; was for is seen on the way back.
        align 16
exit_interrupt:
        BEGIN
        READ    vm_exit_interruption_information
        movzx   eax, byte [EXIT(vm_exit_interruption_information)]
        cmp     eax, HOST_TIMER_VECTOR
        jne     refuse
        END_PATH exit_interrupt
        ret

; #GP(0), for what the processor would have refused had there been no exit.
inject_protection:
        mov     eax, EVENT_VALID | EVENT_EXCEPTION | EVENT_HAS_ERROR | VECTOR_GP
        xor     ecx, ecx
inject_fault:                                   ; its frame has RF set
        READ    guest_rflags
        test    dword [EXIT(guest_rflags)], EFLAGS_RF
        jnz     inject
        or      dword [EXIT(guest_rflags)], EFLAGS_RF
        CHANGED guest_rflags
        jmp     inject

; #UD: the guest has no extension of its own.
        align 16
exit_undefined:
        BEGIN
        mov     eax, EVENT_VALID | EVENT_EXCEPTION | VECTOR_UD
        END_PATH exit_exception
        jmp     inject_fault

; -- nested tables ----------------------------------------------------------------------------------------------------------
; A guest-physical address that the nested tables do not map: entries of 8 bytes and 9 bits of the address a level.
        align 16
nested_fill:
        BEGIN
        READ    guest_physical_address
        mov     ebx, [EXIT(guest_physical_address)]
        mov     esi, ebx
        shr     esi, 12                         ; the guest frame
        cmp     esi, [VCPU(guest_frames)]
        jae     .hole
        ; 1. Whether there is memory, and takes the access.
        mov     esi, [VMM_BASE + P2M + esi * 4]
        cmp     esi, NO_MEMORY
        je      .hole
        test    esi, READ_ONLY
        jz      .memory
        test    dword [EXIT(exit_qualification)], 1 << 1
        jnz     .hole                           ; a write to what takes none
.memory:
        ; 2. From table to table.
        mov     edi, [EXIT(nested_root)]
        mov     ecx, [EXIT(nested_levels)]
.level:
        mov     edx, ecx
        movzx   ecx, byte [.shifts + edx]
        mov     eax, ebx
        shr     eax, cl
        shr     eax, 9
        mov     ecx, edx
        and     eax, 511
        lea     edi, [VMM_BASE + edi + eax * 8]
        dec     ecx
        jz      .leaf
        mov     eax, [edi]
        test    al, 7                           ; EPT: no right at all; NPT: P
        jz      .allocate
.have:
        and     eax, 0xFFFFF000
        mov     edi, eax
        jmp     .level
.leaf:
        ; 3. The entry.
        mov     eax, esi
        mov     edx, [EXIT(nested_rights)]
        shl     eax, 12
        test    esi, READ_ONLY
        jz      .writable
        and     edx, ~(1 << 1)
.writable:
        or      eax, edx
        mov     [edi], eax
        mov     dword [edi + 4], 0
        ; 4. An instruction's fetch is made again from its beginning.
        READ    exit_qualification
        test    dword [EXIT(exit_qualification)], 1 << 2
        jz      .done
        cmp     dword [EXIT(idt_vectoring_information)], 0
        jl      .done
        call    drop_resume_flag
.done:
        END_PATH nested_fill
        ret
.hole:
        END_PATH nested_fill
        jmp     refuse
.allocate:
        BEGIN
        mov     eax, [EXIT(nested_next)]
        cmp     eax, SHADOW_PAGES
        jae     refuse
        inc     dword [EXIT(nested_next)]
        shl     eax, 12
        add     eax, SHADOW
        push    ecx
        push    edi
        push    eax
        lea     edi, [VMM_BASE + eax]
        xor     eax, eax
        mov     ecx, 1024
        rep stosd
        pop     eax
        pop     edi
        pop     ecx
        or      eax, [EXIT(nested_table_rights)]
        mov     [edi], eax
        mov     dword [edi + 4], 0
        END_PATH nested_table
        jmp     .have
.shifts:
        db      0, 12 - 9, 21 - 9, 30 - 9, 39 - 9       ; of what an entry of each level maps, but for the last 9 bits

; The same frame's entry taken back: EBX the guest-physical address. Uses EAX, ECX, EDX, EDI.
        align 16
nested_drop:
        BEGIN
        mov     edi, [EXIT(nested_root)]
        mov     ecx, [EXIT(nested_levels)]
.level:
        mov     edx, ecx
        movzx   ecx, byte [nested_fill.shifts + edx]
        mov     eax, ebx
        shr     eax, cl
        shr     eax, 9
        mov     ecx, edx
        and     eax, 511
        lea     edi, [VMM_BASE + edi + eax * 8]
        dec     ecx
        jz      .leaf
        mov     eax, [edi]
        test    al, 7
        jz      .done
        and     eax, 0xFFFFF000
        mov     edi, eax
        jmp     .level
.leaf:
        mov     [edi], ecx
        mov     [edi + 4], ecx
.done:
        END_PATH nested_drop
        ret

; -- the guest's instruction ------------------------------------------------------------------------------------------------
; Fetched through the guest's own tables into the record, then its length and, for memory, its operand's offset. What else
; than the instructions that exit is left to a slower path.
WIDE_IMMEDIATE equ 1 << 0
HAS_MODRM equ 1 << 1
BYTE_IMMEDIATE equ 1 << 2
KNOWN equ 1 << 3

        align 16
exit_decode:
        BEGIN
        READ    guest_rip
        READ    guest_cs_base
        ; 1. The bytes, of one page or of two.
        mov     ebx, [EXIT(guest_cs_base)]
        add     ebx, [EXIT(guest_rip)]
        mov     edi, 16
        mov     ecx, EXIT(bytes)
        mov     eax, ebx
        and     eax, 0xFFF
        cmp     eax, 0x1000 - 16
        jbe     .fetch
        mov     edi, 0x1000
        sub     edi, eax
.fetch:
        push    ecx                             ; where they go
        push    edi                             ; how many
        xor     edx, edx
        cmp     dword [VCPU(cpl)], 3
        jne     .supervisor
        mov     edx, 4
.supervisor:
        call    walk
        jc      refuse
        call    window
        mov     esi, edi
        pop     ecx
        pop     edi
        add     ebx, ecx
        rep movsb
        mov     ecx, edi
        sub     ecx, EXIT(bytes)
        mov     edi, 16
        sub     edi, ecx
        mov     ecx, EXIT(bytes) + 16
        jz      .decode
        sub     ecx, edi
        jmp     .fetch
        ; 2. Prefixes, the opcode, what follows it.
.decode:
        mov     esi, EXIT(bytes)
        mov     dword [instruction_width], 32
        mov     dword [instruction_override], 1
.next:
        movzx   eax, byte [esi]
        inc     esi
        cmp     al, 0x0F
        je      .two
        movzx   edx, byte [exit_opcodes + eax]
        test    edx, edx
        jnz     .opcode
        cmp     al, 0x66
        je      .narrow
        cmp     al, 0x67
        je      refuse
        jmp     .next                           ; another prefix: the table holds all that is not
.narrow:
        mov     dword [instruction_width], 16
        jmp     .next
.two:
        movzx   eax, byte [esi]
        inc     esi
        movzx   edx, byte [exit_opcodes_0f + eax]
.opcode:
        test    edx, KNOWN
        jz      refuse
        test    edx, HAS_MODRM
        jz      .immediate
        push    edx
        call    modrm
        pop     edx
.immediate:
        and     edx, BYTE_IMMEDIATE
        shr     edx, 2
        add     esi, edx
        sub     esi, EXIT(bytes)
        mov     [EXIT(vm_exit_instruction_length)], esi
        or      dword [EXIT(have)], BIT_vm_exit_instruction_length
        END_PATH exit_decode
        ret

; 0: a prefix.
exit_opcodes:
%assign opcode 0
%rep 256
    %if opcode == 0x26 || opcode == 0x2E || opcode == 0x36 || opcode == 0x3E || (opcode >= 0x64 && opcode <= 0x67)
        db      0
    %elif opcode == 0xF0 || opcode == 0xF2 || opcode == 0xF3
        db      0
    %elif opcode == 0xE4 || opcode == 0xE5 || opcode == 0xE6 || opcode == 0xE7 || opcode == 0xCD
        db      KNOWN | BYTE_IMMEDIATE
    %elif (opcode >= 0xEC && opcode <= 0xEF) || (opcode >= 0x6C && opcode <= 0x6F) || opcode == 0xF4 || opcode == 0x90
        db      KNOWN
    %elif opcode == 0x9C || opcode == 0x9D || opcode == 0xCC || opcode == 0xCE || opcode == 0xCF || opcode == 0xF1
        db      KNOWN
    %else
        db      BYTE_IMMEDIATE                  ; none that exits
    %endif
    %assign opcode opcode + 1
%endrep

exit_opcodes_0f:
%assign opcode 0
%rep 256
    %if opcode == 0x00 || opcode == 0x01 || (opcode >= 0x20 && opcode <= 0x23) || opcode == 0xC7
        db      KNOWN | HAS_MODRM
    %elif opcode == 0x06 || opcode == 0x08 || opcode == 0x09 || (opcode >= 0x30 && opcode <= 0x35) || opcode == 0xA2
        db      KNOWN
    %else
        db      0
    %endif
    %assign opcode opcode + 1
%endrep

; -- real mode ---------------------------------------------------------------------------------------------------------------
; The guest's segments in the form of virtual-8086 mode (SDM volume 3, section 26.3.1.2), or back in that of real mode. A
; segment whose base or limit is none that its selector gives is left to the interpreter, as is a guest with IOPL 3, since the
; instructions that real mode and virtual-8086 mode do not share would not fault then.
        align 16
real_mode_enter:
        BEGIN
        READ    guest_rflags
        mov     eax, [EXIT(guest_rflags)]
        test    eax, EFLAGS_TF | EFLAGS_VM
        jnz     refuse
        mov     edx, eax
        and     edx, EFLAGS_IOPL
        cmp     edx, EFLAGS_IOPL
        je      refuse
        or      eax, EFLAGS_VM
        mov     [EXIT(guest_rflags)], eax
        CHANGED guest_rflags
        ; 1. ES to GS.
        mov     ecx, 6
        mov     esi, EXIT(segments)
        mov     edi, EXIT(hidden)
.next:
        mov     eax, [esi]
        shl     eax, 4
        cmp     eax, [esi + 4]
        jne     refuse
        cmp     dword [esi + 8], 0xFFFF
        jne     refuse
        mov     eax, [esi + 12]
        mov     [edi + 12], eax
        and     eax, PLAIN_DATA_MASK
        cmp     eax, PLAIN_DATA
        jne     refuse
        mov     dword [esi + 12], V86_ACCESS
        add     esi, 16
        add     edi, 16
        dec     ecx
        jnz     .next
        ; 2. No LDT, and a task-state segment that permits no port.
        mov     ecx, 8
        rep movsd
        mov     dword [esi - 32 + 12], 1 << 16
        mov     [esi - 32], ecx
        mov     [esi - 32 + 4], ecx
        mov     [esi - 32 + 8], ecx
        mov     dword [esi - 16 + 12], 0x8B
        mov     [esi - 16], ecx
        mov     [esi - 16 + 4], ecx
        mov     [esi - 16 + 8], ecx
        CHANGED guest_segments
        END_PATH real_mode_switch
        ret

        align 16
real_mode_leave:
        BEGIN
        READ    guest_rflags
        and     dword [EXIT(guest_rflags)], ~EFLAGS_VM
        CHANGED guest_rflags
        mov     ecx, 6
        mov     esi, EXIT(hidden)
        mov     edi, EXIT(segments)
.next:
        mov     eax, [esi + 12]
        mov     [edi + 12], eax
        add     esi, 16
        add     edi, 16
        dec     ecx
        jnz     .next
        mov     ecx, 8
        rep movsd
        CHANGED guest_segments
        END_PATH real_mode_switch
        ret

; -- each to be measured by itself -------------------------------------------------------------------------------------------
%macro ALONE 1
%1_alone:
        call    %1
        END_PATH exit_dispatch
%endmacro
        ALONE inject
        ALONE window_toggled
        ALONE paging_switch
        ALONE nested_drop
        ALONE exit_decode
        ALONE real_mode_enter
        ALONE real_mode_leave
