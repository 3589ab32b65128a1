; stealth: what a kernel sees of the machine when it looks with instructions that do not trap.
;
; These are the sensitive unprivileged instructions of x86 (Robin and Irvine, 2000): they read or change the state of the
; machine, and outside of ring 0 they do not fault but do something else. A kernel that runs them in ring 1 learns that it
; is in ring 1. No other guest of this folder uses any of them. Nothing is measured.
;
; Each result is a dword with a symbol, stealth_<name>, in the block stealth_results, and is printed as name=value. On the
; bare machine the values are fixed by this file and link.ld; whatever they are elsewhere, the guest passes if it survives.
; A name ending in _zf is 1 if the instruction set ZF (it could see the selector) and 0 if not.

%define GUEST_NAME "stealth"
%define DEFAULT_ITERATIONS 1
%include "kernel.inc"

VECTOR_INSIDE equ 0x90                      ; a gate of DPL 0: INT 0x90 is for ring 0 alone
SEL_BEYOND    equ 0x30                      ; the first selector beyond the limit of this GDT
EFLAGS_IOPL   equ 3 << 12
LAR_DEFINED   equ 0x00F0FF00                ; LAR leaves the other bits to the processor

; RESULTS name, name, ...: the block, and the table of names beside it.
%macro RESULTS 1-*
        section .data
        align   4
stealth_results:
%rep %0
stealth_%1:
        dd      0
%rotate 1
%endrep
stealth_results_end:
        section .rodata
%rep %0
%defstr result_text %1
name_%1:
        db      result_text, "=", 0
%rotate 1
%endrep
        align   4
result_names:
%rep %0
        dd      name_%1
%rotate 1
%endrep
        section .text
%endmacro

RESULTS sgdt_limit, sgdt_base, sidt_limit, sidt_base, sldt, str, smsw, \
        pushfd_if_off, pushfd_if_on, popfd_sets_if, popfd_clears_if, popfd_sets_iopl, \
        lar_code, lar_code_zf, lar_tss, lar_tss_zf, lar_beyond_zf, \
        lsl_code, lsl_code_zf, lsl_tss, lsl_tss_zf, lsl_beyond_zf, \
        verr_code_zf, verr_beyond_zf, verw_data_zf, verw_code_zf, verw_beyond_zf, \
        mov_cs, mov_ss, mov_ds, mov_cs_to_memory, push_cs, push_ss, push_ds, pop_ds, pop_es, \
        call_far_cs, ret_far_cs, int_frame_cs, int_frame_eflags, int_handler_eflags

; RECORD_ZF name: 1 if ZF is set, else 0. Clobbers EAX.
%macro RECORD_ZF 1
        setz    al
        movzx   eax, al
        mov     [stealth_%1], eax
%endmacro

; RECORD_PUSHED name: the 16-bit selector on top of the stack, taken off.
%macro RECORD_PUSHED 1
        pop     eax
        and     eax, 0xFFFF
        mov     [stealth_%1], eax
%endmacro

        section .text
guest_main:
        call    look_tables
        call    look_flags
        call    look_descriptors
        call    look_selectors
        call    look_far
        call    look_int
        call    print_results
        jmp     pass

; Where are the descriptor tables, which LDT and task, what is in CR0?
look_tables:
        sgdt    [pointer]
        movzx   eax, word [pointer]
        mov     [stealth_sgdt_limit], eax
        mov     eax, [pointer + 2]
        mov     [stealth_sgdt_base], eax
        sidt    [pointer]
        movzx   eax, word [pointer]
        mov     [stealth_sidt_limit], eax
        mov     eax, [pointer + 2]
        mov     [stealth_sidt_base], eax
        xor     eax, eax
        sldt    ax
        mov     [stealth_sldt], eax
        str     ax
        mov     [stealth_str], eax
        smsw    ax
        mov     [stealth_smsw], eax
        ret

; Is IF what CLI and STI made it, and does POPFD change it? The arithmetic flags are known before each look.
look_flags:
        cli
        xor     eax, eax
        pushfd
        pop     dword [stealth_pushfd_if_off]
        sti                                 ; every line is masked: nothing comes
        xor     eax, eax
        pushfd
        pop     dword [stealth_pushfd_if_on]
        cli
        push    dword EFLAGS_FIXED | EFLAGS_IF
        popfd
        pushfd
        pop     dword [stealth_popfd_sets_if]
        sti
        push    dword EFLAGS_FIXED
        popfd
        pushfd
        pop     dword [stealth_popfd_clears_if]
        cli
        push    dword EFLAGS_FIXED | EFLAGS_IOPL
        popfd
        pushfd
        pop     dword [stealth_popfd_sets_iopl]
        push    dword EFLAGS_FIXED
        popfd
        ret

; What do the descriptors say, and can they be read and written?
%macro LOOK_RIGHTS 4                        ; instruction, name, selector, the bits that the manual defines
        mov     ecx, %3
        xor     edx, edx
        %1      edx, ecx
        RECORD_ZF %1_%2_zf
        and     edx, %4
        mov     [stealth_%1_%2], edx
%endmacro
%macro LOOK_VERIFY 3
        mov     ecx, %3
        %1      cx
        RECORD_ZF %1_%2_zf
%endmacro
look_descriptors:
        LOOK_RIGHTS lar, code, KERNEL_CS, LAR_DEFINED
        LOOK_RIGHTS lar, tss, TSS_SEL, LAR_DEFINED
        LOOK_RIGHTS lsl, code, KERNEL_CS, 0xFFFFFFFF
        LOOK_RIGHTS lsl, tss, TSS_SEL, 0xFFFFFFFF
        mov     ecx, SEL_BEYOND
        lar     edx, ecx
        RECORD_ZF lar_beyond_zf
        lsl     edx, ecx
        RECORD_ZF lsl_beyond_zf
        LOOK_VERIFY verr, code, KERNEL_CS
        LOOK_VERIFY verr, beyond, SEL_BEYOND
        LOOK_VERIFY verw, data, KERNEL_DS
        LOOK_VERIFY verw, code, KERNEL_CS
        LOOK_VERIFY verw, beyond, SEL_BEYOND
        ret

; Which privilege level is in the selectors?
look_selectors:
        xor     eax, eax
        mov     ax, cs
        mov     [stealth_mov_cs], eax
        mov     ax, ss
        mov     [stealth_mov_ss], eax
        mov     ax, ds
        mov     [stealth_mov_ds], eax
        mov     word [stealth_mov_cs_to_memory], cs
        push    cs
        RECORD_PUSHED push_cs
        push    ss
        RECORD_PUSHED push_ss
        push    ds
        RECORD_PUSHED push_ds
        push    dword KERNEL_DS
        pop     ds
        xor     eax, eax
        mov     ax, ds
        mov     [stealth_pop_ds], eax
        push    dword KERNEL_DS
        pop     es
        mov     ax, es
        mov     [stealth_pop_es], eax
        mov     eax, USER_DS                ; back to what the library keeps there
        mov     ds, ax
        mov     es, ax
        ret

; Far CALL pushes CS; far RET to a selector of RPL 0 made by hand.
look_far:
        call    KERNEL_CS:.callee
        push    dword KERNEL_CS
        push    dword .returned
        retf
.returned:
        xor     eax, eax
        mov     ax, cs
        mov     [stealth_ret_far_cs], eax
        ret
.callee:
        movzx   eax, word [esp + 4]
        mov     [stealth_call_far_cs], eax
        retf

; INT through a gate that only ring 0 may use, with interrupts off before.
look_int:
        mov     eax, VECTOR_INSIDE
        mov     edx, .handler
        mov     ecx, GATE_DPL0
        call    set_gate
        call    idt_load
        xor     eax, eax                    ; ZF and PF set
        int     VECTOR_INSIDE
        ret
.handler:
        pushfd
        pop     dword [stealth_int_handler_eflags]
        movzx   eax, word [esp + 4]
        mov     [stealth_int_frame_cs], eax
        mov     eax, [esp + 8]
        mov     [stealth_int_frame_eflags], eax
        iretd

print_results:
        xor     ebx, ebx
.result:
        mov     esi, [result_names + ebx]
        call    print_string
        mov     eax, [stealth_results + ebx]
        call    print_hex
        PRINT   10
        add     ebx, 4
        cmp     ebx, stealth_results_end - stealth_results
        jb      .result
        ret

        section .bss
        alignb  4
pointer:
        resb    8                           ; what SGDT and SIDT store: limit, base
