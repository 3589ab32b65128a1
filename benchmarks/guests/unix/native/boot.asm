; From the Multiboot loader to kernel_main: a stack, and what the loader says.
        bits    32
        cpu     686
%include "../lib/abi.inc"

        extern  kernel_main

        section .multiboot progbits alloc noexec nowrite align=4
        dd      MULTIBOOT_HEADER_MAGIC
        dd      MULTIBOOT_FLAGS
        dd      -(MULTIBOOT_HEADER_MAGIC + MULTIBOOT_FLAGS)

        section .text progbits alloc exec nowrite align=16
        global  _start
_start:                                     ; ring 0, protected mode, paging off, interrupts off, EBX -> info
        mov     esp, boot_stack_top
        cld                                 ; C wants it so, and no loader promises it
        xor     ecx, ecx                    ; no command line
        test    dword [ebx], MULTIBOOT_INFO_CMDLINE
        jz      .call
        mov     ecx, [ebx + MULTIBOOT_CMDLINE_OFFSET]
.call:
        sub     eax, MULTIBOOT_LOADER_MAGIC ; 0: started by a Multiboot loader
        push    ecx
        push    eax
        call    kernel_main                 ; does not return

        section .bss.stacks nobits alloc noexec write align=4096
        resb    PAGE
boot_stack_top:
