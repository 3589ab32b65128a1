; Change stacks: switch_stacks(where to keep ours, the other's). What C expects to be kept is on the stack.

        bits    32
        cpu     686

        global  switch_stacks
        section .text progbits alloc exec nowrite align=16
switch_stacks:
        mov     eax, [esp + 4]
        mov     edx, [esp + 8]
        push    ebx
        push    esi
        push    edi
        push    ebp
        mov     [eax], esp
        mov     esp, edx
        pop     ebp
        pop     edi
        pop     esi
        pop     ebx
        ret
