; The software of a VMM that traps and emulates, or translates, or runs its guest under VMX or SVM, or serves one that is ported
; to it, as far as its time is charged by a path of x86virt.
;
; The simulator's VMM is written in Python; what its work would cost on the simulated processor is measured by running
; this one, which does the same work on the same records in machine RAM (tests/test_witness.py compares the two, exit
; by exit). The chapters:
;
;   entry.asm        from the gate of the VMM's IDT to the handler and back
;   memory.asm       guest-physical memory through windows, the walk of the guest's page tables, shadow page tables
;   shadow_cache.asm shadow page tables that are kept and compared
;   descriptors.asm  the guest's descriptors: reading, checking, shadowing
;   reflect.asm      events delivered through the guest's own IDT
;   decode.asm       the instruction at which the guest trapped
;   emulate.asm      the sensitive instructions, performed on the virtual processor
;   emulate_state.asm  what reads the virtual processor's state, PUSHF and POPF, images of the x87 FPU, traced stores
;   translation.asm  callouts of translated code, and the way between the cache and the guest
;   debug.asm        debug registers, the time-stamp counter and the performance counters
;   devices.asm      virtual devices
;   hardware.asm     VM exits, for a VMM on VMX or SVM
;   paravirtual*.asm hypercalls and events, for guests that are ported to Xen's interface
;
; Assembled to a flat image for one linear address; `python -m x86virt.vmm.witness_build` does it.

        bits 32
%include "macros.inc"
        org VMM_BASE + WITNESS

%include "entry.asm"
%include "memory.asm"
%include "shadow_cache.asm"
%include "descriptors.asm"
%include "reflect.asm"
%include "decode.asm"
%include "emulate.asm"
%include "emulate_state.asm"
%include "translation.asm"
%include "devices.asm"
%include "debug.asm"
%include "hardware.asm"

; -- the decoded instruction, and the event in flight ---------------------------------------------------------------
        align 128                       ; apart from code, in the granularity in which writes to code are noticed
instruction_start:   dd 0       ; linear
instruction_end:     dd 0
instruction_width:   dd 0       ; operand size in bits
instruction_segment: dd 0       ; of the memory operand
instruction_override: dd 0      ; 1: a prefix named the segment
instruction_mod:     dd 0
instruction_reg:     dd 0
instruction_rm:      dd 0
instruction_offset:  dd 0       ; of the memory operand
site_kind:           dd 0       ; what the callout asks for
walk_accessed:       dd 0       ; PTE_A if every level of the last walk had been accessed before
walk_global:         dd 0       ; PTE_G if its leaf is global
compare_above:       dd 0       ; what the directory entry above compared entries permits
        align 64
event_vector:        dd 0
event_error:         dd 0
event_has_error:     dd 0
event_software:      dd 0       ; 1: INT n
event_exception:     dd 0       ; 1: an exception, whose frame may need RF
event_gate_low:      dd 0
event_gate_high:     dd 0
event_flags:         dd 0
event_level:         dd 0       ; the ring of the handler
event_esp:           dd 0
event_ss:            dd 0       ; 0: the stack stays
event_ss_address:    dd 0       ; of its descriptor
event_ss_high:       dd 0
event_cs_address:    dd 0
event_cs_high:       dd 0
        align 64
items:               dd 0, 0    ; selectors for `shadow_items`
load_popped:         dd 0       ; bytes by which the stack pointer moves with a segment load
load_value:          dd 0       ; 1: LDS and the like, which load another register too
        align 64
x87_buffer:          times 512 db 0

; -- paravirtual guests -------------------------------------------------------------------------------------------------
        align 128
%include "paravirtual.asm"
%include "paravirtual_memory.asm"
%include "paravirtual_events.asm"
        align 128
pv_domain:           dd 0       ; linear address of the record of the domain that runs
pv_vcpu_info:        dd 0       ; and of what that domain shares of its processor
pv_in_multicall:     dd 0
pv_arguments:        times 6 dd 0
pv_channels:         dd 0       ; the event channels of the domain that runs
pv_end:              dd 0       ; of the guest's list of requests
pv_left:             dd 0       ; of it
pv_structure:        dd 0       ; the one at hand
pv_granter:          dd 0
pv_handle:           dd 0
pv_frame:            dd 0
pv_frames:           times FIRST_RESERVED_GDT_PAGE dd 0
pv_now:              dq 0       ; system time as the VMM was entered
pv_timer:            dq 0       ; the cycle for which the host's timer is set
pv_register_slots:   db P_EAX, P_ECX, P_EDX, P_EBX, P_ESP, P_EBP, P_ESI, P_EDI      ; of the frame, by numbers of registers
        align 64
pv_hypercalls:
        dd      pv_set_trap_table, pv_mmu_update, pv_set_gdt, pv_stack_switch
        dd      pv_set_callbacks, pv_fpu_taskswitch
        times 4 dd pv_missing
        dd      pv_update_descriptor, pv_missing, pv_memory_op, pv_multicall
        dd      pv_update_va_mapping, pv_set_timer_op, pv_missing, pv_missing
        dd      pv_console_io, pv_missing, pv_grant_table_op, pv_vm_assist
        dd      pv_missing, pv_iret, pv_missing, pv_missing
        dd      pv_mmuext_op, pv_missing, pv_missing, pv_sched_op
        dd      pv_missing, pv_missing, pv_event_channel_op
        times 31 dd pv_missing
        times N_HYPERCALLS - ($ - pv_hypercalls) / 4 dd pv_missing
N_OPERATIONS equ 14
pv_operations:
        dd      pv_pin_l1, pv_pin_l2, pv_refuse_operation, pv_refuse_operation, pv_unpin, pv_new_base, pv_flush_tlb
        dd      pv_flush_tlb
        times   N_OPERATIONS - 8 dd pv_refuse_operation
image_end:
