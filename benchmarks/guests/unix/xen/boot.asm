; From the domain builder to kernel_main: what it must know of this image, and a stack.
        bits    32
        cpu     686
%include "../lib/xen.inc"
%include "../lib/xen/note.inc"

        extern  kernel_main

        section .note.Xen note alloc noexec nowrite align=4
        NOTE    XEN_ELFNOTE_GUEST_OS, db "unix", 0
        NOTE    XEN_ELFNOTE_LOADER, db "generic", 0
        NOTE    XEN_ELFNOTE_XEN_VERSION, db "xen-3.0", 0
        NOTE    XEN_ELFNOTE_VIRT_BASE, dd 0
        NOTE    XEN_ELFNOTE_PADDR_OFFSET, dd 0
        NOTE    XEN_ELFNOTE_ENTRY, dd _start
        NOTE    XEN_ELFNOTE_HYPERCALL_PAGE, dd hypercall_page
        NOTE    XEN_ELFNOTE_PAE_MODE, db "no", 0

        section .text progbits alloc exec nowrite align=16
        global  _start
_start:                                     ; ring 1, paging on, events masked, ESI -> start_info
        mov     esp, boot_stack_top
        cld                                 ; C wants it so, and no loader promises it
        mov     eax, FLAT_RING3_DS          ; ring 1 may use it, and a trap from ring 3 does not change it
        mov     ds, eax
        mov     es, eax
        mov     fs, eax
        mov     gs, eax
        mov     [start], esi
        mov     eax, [esi + start_info_magic]
        sub     eax, "xen-"                 ; 0: started by a builder of domains
        lea     ecx, [esi + start_info_cmd_line]
        push    ecx
        push    eax
        call    kernel_main                 ; does not return

        section .bss nobits alloc noexec write align=4
        global  start
start:  resd    1

        section .bss.stacks nobits alloc noexec write align=4096
        resb    4096
boot_stack_top:

        section .hypercalls nobits alloc noexec write align=4096
        global  hypercall_page
hypercall_page:                             ; the hypervisor fills it
        resb    4096
