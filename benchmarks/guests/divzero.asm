; divzero: what an exception costs that the kernel answers at once.
;
; Region 0: a ring-3 loop of DIV by zero. The processor delivers #DE through the IDT, the kernel's handler moves the saved
; EIP past the instruction, IRET goes back. One iteration is one exception.
;
; It teaches the anatomy of a fault: EIP of the instruction itself (not the next) in the frame, nothing changed by the
; instruction, no error code; and what reflecting it to the guest costs a VMM that owns the real IDT.
;
; Checks: the number of exceptions; in each, the saved CS:EIP; EAX and EDX after the last are as before the first.

%define GUEST_NAME "divzero"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

DIV_LENGTH equ 2

        section .text
guest_main:
        mov     dword [trap_handlers + VECTOR_DE * 4], divide_error
        mov     dword [fault_count], -1     ; the warming exception makes it 0
        mov     eax, user_divide
        call    enter_user
        cmp     eax, [iterations]
        FAIL_IF ne, 1, "a faulting DIV changed EAX"
        mov     eax, [fault_count]
        cmp     eax, [iterations]
        FAIL_IF ne, 2, "another number of divide errors than divisions"
        jmp     pass

; #DE: FRAME_CS:FRAME_EIP must be one of the two DIVs of the user program.
divide_error:
        inc     dword [fault_count]
        cmp     word [ebp + FRAME_CS], USER_CS
        jne     .foreign
        mov     eax, [ebp + FRAME_EIP]
        cmp     eax, user_divide.divide
        je      .skip
        cmp     eax, user_divide.warm
        jne     .foreign
.skip:
        add     dword [ebp + FRAME_EIP], DIV_LENGTH
        ret
.foreign:
        FAIL    3, "the frame of #DE does not point at the DIV"

        section .data
        align   4
fault_count:
        dd      0

        section .user_text
user_divide:
        mov     esi, [user_iterations]
        mov     eax, esi
        xor     ecx, ecx
        xor     edx, edx
.warm:
        div     ecx
        REGION_BEGIN 0
.divide:
        div     ecx
        dec     esi
        jnz     .divide
        REGION_END                          ; EAX: untouched by the exceptions
        jmp     user_exit
