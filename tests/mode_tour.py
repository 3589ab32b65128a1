"""A guest that visits every mode of a 32-bit processor: real-address mode, protected mode with and without paging, 16-bit
protected mode, virtual-8086 mode, and real-address mode again with a segment of 4 GB left from protected mode."""

TOUR = """
        bits    16
        org     0x7C00
start:  cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7C00
        mov     word [0x40 * 4], soft
        mov     word [0x40 * 4 + 2], 0
        int     0x40
        mov     si, text
        mov     di, 0x700
        mov     cx, text_end - text
        cld
        rep     movsb
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword 0x08:protected

soft:   inc     word [0x600]
        iret

        bits    32
protected:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esp, 0x7000
        mov     word [0x9100 + 13 * 8], fault
        mov     word [0x9100 + 13 * 8 + 2], 0x08
        mov     word [0x9100 + 13 * 8 + 4], 0x8E00
        lidt    [idt_pointer]
        mov     byte [soft + 1], 0x0E       ; what real-address mode has executed: DEC the next time
        mov     ecx, 300
.sum:   add     [0x800], ecx
        loop    .sum
        mov     edi, 0x11000                ; identity
        mov     eax, 3
        mov     ecx, 1024
.fill:  stosd
        add     eax, 0x1000
        loop    .fill
        mov     dword [0x10000], 0x11003
        mov     eax, 0x10000
        mov     cr3, eax
        mov     eax, cr0
        or      eax, 0x80000000
        mov     cr0, eax
        mov     ecx, 300
.write: inc     dword [0x20000 + ecx * 4]
        loop    .write
        mov     eax, cr0
        and     eax, 0x7FFFFFFF
        mov     cr0, eax
        mov     dword [0x9004], 0x6F00      ; the stack of ring 0
        mov     dword [0x9008], 0x10
        mov     word [0x9066], 0x68
        mov     ax, 0x28
        ltr     ax
        push    dword 0                     ; GS, FS, DS, ES, SS:ESP, EFLAGS, CS:EIP
        push    dword 0
        push    dword 0
        push    dword 0
        push    dword 0
        push    dword 0x6000
        push    dword 0x20002
        push    dword 0
        push    dword virtual
        iretd

        bits    16
virtual:
        mov     ax, 0x1234
        mov     [0x900], ax
        push    ax
        pop     bx
        hlt                                 ; #GP

        bits    32
fault:  mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     fs, ax
        mov     eax, [esp + 12]             ; EFLAGS, with VM
        mov     [0x904], eax
        jmp     0x18:narrow

        bits    16
narrow: mov     ax, 0x20
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7C00
        call    near_routine
        mov     eax, cr0
        and     al, 0xFE
        mov     cr0, eax
        jmp     0:again
near_routine:
        inc     word [0x602]
        ret

again:  xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        lidt    [real_pointer]
        int     0x40
        mov     ebx, 0x150000
        mov     dword [fs:ebx], 0xCAFEBABE  ; beyond what real-address mode reaches
        mov     eax, [fs:ebx]
        mov     [0x908], eax
        mov     si, 0x700
.say:   lodsb
        test    al, al
        jz      .end
        out     0xE9, al
        jmp     .say
.end:   mov     al, 1
        out     0xF4, al
        hlt

text:   db      "every mode seen", 10, 0
text_end:
        align   8
gdt:    dq      0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00009B000000FFFF, 0x000093000000FFFF, 0x0000890090000067
gdt_pointer:
        dw      6 * 8 - 1
        dd      gdt
idt_pointer:
        dw      14 * 8 - 1
        dd      0x9100
real_pointer:
        dw      0x3FF
        dd      0
"""

# Real-address mode changes an instruction that protected mode has executed, and protected mode executes it again.
CHANGED_BEHIND = """
        bits    16
        org     0x7C00
        cli
        xor     bx, bx
enter:  xor     ax, ax
        mov     ds, ax
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword 0x08:protected

        bits    32
protected:
        mov     ax, 0x10
        mov     ds, ax
        mov     ss, ax
        mov     esp, 0x7000
        mov     ecx, 100
.again: call    routine
        loop    .again
        cmp     ebx, 100 + 200
        je      done
        jmp     0x18:narrow

        bits    16
narrow: mov     ax, 0x20
        mov     ds, ax
        mov     ss, ax
        mov     eax, cr0
        and     al, 0xFE
        mov     cr0, eax
        jmp     0:real
real:   xor     ax, ax
        mov     ds, ax
        mov     byte [routine + 2], 2
        jmp     enter

        bits    32
done:   mov     al, 1
        out     0xF4, al
        hlt
        align   8
gdt:    dq      0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00009B000000FFFF, 0x000093000000FFFF
gdt_pointer:
        dw      5 * 8 - 1
        dd      gdt
routine:
        add     ebx, 1
        ret
"""
