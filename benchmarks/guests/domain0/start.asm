; Domain 0: from the VMM's domain builder to domain_main, and where traps and events arrive.
        bits    32
        cpu     686

        extern  domain_main, domain_trap, kernel_end

%define XEN_ELFNOTE_ENTRY          1
%define XEN_ELFNOTE_HYPERCALL_PAGE 2
%define XEN_ELFNOTE_VIRT_BASE      3
%define XEN_ELFNOTE_PADDR_OFFSET   4
%define XEN_ELFNOTE_XEN_VERSION    5
%define XEN_ELFNOTE_GUEST_OS       6
%define XEN_ELFNOTE_LOADER         8
%define XEN_ELFNOTE_PAE_MODE       9

; NOTE type, content: one note of the name "Xen".
%macro NOTE 2+
        dd      4, %%end - %%begin, %1
        db      "Xen", 0
%%begin:
        %2
%%end:
        align   4, db 0
%endmacro

        section .note.Xen note alloc noexec nowrite align=4
        NOTE    XEN_ELFNOTE_GUEST_OS, db "domain_0", 0
        NOTE    XEN_ELFNOTE_XEN_VERSION, db "xen-3.0", 0
        NOTE    XEN_ELFNOTE_LOADER, db "generic", 0
        NOTE    XEN_ELFNOTE_PAE_MODE, db "no", 0
        NOTE    XEN_ELFNOTE_VIRT_BASE, dd 0
        NOTE    XEN_ELFNOTE_PADDR_OFFSET, dd 0
        NOTE    XEN_ELFNOTE_ENTRY, dd _start
        NOTE    XEN_ELFNOTE_HYPERCALL_PAGE, dd hypercall_page

        section .text progbits alloc exec nowrite align=16
        global  _start
_start:                                     ; ring 1, paging on, events masked, ESI -> start information
        mov     esp, stack_top
        cld
        push    esi
        call    domain_main                 ; does not return

; An event has come while the kernel blocked. That it runs again is all that it wants: it looks at the channels itself,
; with further upcalls masked, as they are now.
        global  domain_upcall
domain_upcall:
        iretd

; The VMM could not go back to what it had interrupted.
        global  domain_failsafe
domain_failsafe:
        push    dword [esp]
        push    dword 256
        call    domain_trap

; This kernel expects no trap: it says which one came, and stops.
%assign vector 0
%rep 20
trap_stub_ %+ vector:
        push    dword vector
        call    domain_trap
%assign vector vector + 1
%endrep

        section .rodata progbits alloc noexec nowrite align=4
        global  domain_trap_stubs
domain_trap_stubs:
%assign vector 0
%rep 20
        dd      trap_stub_ %+ vector
%assign vector vector + 1
%endrep

        section .hypercalls progbits alloc exec nowrite align=4096
        global  hypercall_page
hypercall_page:                             ; the VMM fills it
        times   4096 db 0

        section .bss.stacks nobits alloc noexec write align=4096
        resb    8192
stack_top:
