; From ring 3 into the kernel and back.
;
; Every way in builds the same frame (struct trap_frame of machine.h) and calls trap(frame). All gates are interrupt gates:
; the kernel runs with interrupts off. DS, ES, FS and GS hold the user data selector for good and are not touched.

        bits    32
        cpu     686
%include "../lib/abi.inc"

VECTOR_SYSENTER equ 0x81                    ; the mark of a frame that SYSENTER made (machine.h)
USER_CALL_PAGE  equ 0xBFFFF000              ; abi.h

FRAME_VECTOR equ 0                          ; offsets when POPAD is done
FRAME_EIP    equ 8
FRAME_ESP    equ 20

        extern  trap
        section .text progbits alloc exec nowrite align=16

; Vectors whose delivery pushes an error code: 8, 10 to 14, 17.
%define HAS_ERROR_CODE(v) ((v) == 8 || ((v) >= 10 && (v) <= 14) || (v) == 17)

%macro STUB 1
trap_stub_ %+ %1:
%if !HAS_ERROR_CODE(%1)
        push    dword 0
%endif
        push    dword %1
        jmp     trap_common
%endmacro

%assign vector 0
%rep TRAP_VECTORS
        STUB    vector
%assign vector vector + 1
%endrep

        global  machine_system_call_entry
machine_system_call_entry:                  ; INT 0x80
        push    dword 0
        push    dword VECTOR_SYSCALL
        jmp     trap_common

; SYSENTER keeps neither EIP nor ESP nor EFLAGS: the call page has put ESP into EBP, and its place is known. ESP is the
; address of TSS.ESP0 here (so that the MSR never changes), which holds the stack of the process.
        global  machine_sysenter_entry
machine_sysenter_entry:
        mov     esp, [esp]
        push    dword USER_DS
        push    ebp
        push    dword EFLAGS_FIXED | EFLAGS_IF
        push    dword USER_CS
        push    dword USER_CALL_PAGE + (call_page_return - call_page_sysenter)
        push    dword 0
        push    dword VECTOR_SYSENTER

trap_common:
        pushad
        cld                                 ; C wants it so, and a program may have set DF
        push    esp
        call    trap
        add     esp, 4

; Also where a new process begins, on a kernel stack that holds nothing but its frame.
        global  machine_return_from_trap
machine_return_from_trap:
        popad
        cmp     dword [esp + FRAME_VECTOR], VECTOR_SYSENTER
        je      .sysexit
        add     esp, 8                      ; vector and error code
        iretd
.sysexit:
        mov     edx, [esp + FRAME_EIP]
        mov     ecx, [esp + FRAME_ESP]
        sti                                 ; takes effect behind the next instruction
        sysexit

; The two bodies of the system call page, which programs call like a function.
        global  call_page_int, call_page_int_end, call_page_sysenter, call_page_sysenter_end
call_page_int:
        int     VECTOR_SYSCALL
        ret
call_page_int_end:
call_page_sysenter:
        push    ecx                         ; SYSEXIT uses ECX and EDX
        push    edx
        push    ebp
        mov     ebp, esp
        sysenter
call_page_return:
        pop     ebp
        pop     edx
        pop     ecx
        ret
call_page_sysenter_end:

        section .rodata progbits alloc noexec nowrite align=4
        global  machine_trap_stubs
machine_trap_stubs:
%assign vector 0
%rep TRAP_VECTORS
        dd      trap_stub_ %+ vector
%assign vector vector + 1
%endrep
