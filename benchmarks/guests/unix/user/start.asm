; Where a program begins, and where its signal handlers return to.

        bits    32
        cpu     686

CALL_EXIT          equ 1                    ; abi.h
CALL_SIGNAL_RETURN equ 19

        extern  main
        global  _start, handler_return
        section .text progbits alloc exec nowrite align=16
_start:                                     ; [ESP] is argc, [ESP + 4] is argv: main's two arguments
        call    main
        mov     ebx, eax
        mov     eax, CALL_EXIT
        int     0x80
        ud2                                 ; neither call comes back: if it does, this must be noticed

handler_return:                             ; the handler's RET comes here
        mov     eax, CALL_SIGNAL_RETURN
        int     0x80
        ud2
