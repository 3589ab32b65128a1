; syscall: what a null system call costs, there and back.
;
; Region 0: a ring-3 loop of INT 0x80, answered by an interrupt gate and IRET. Region 1: the same loop by SYSENTER and
; SYSEXIT, left out if CPUID does not report them. One iteration is one call. Each loop is preceded by one call that is
; not measured, so that page tables and TLB are warm.
;
; It teaches why virtual machines made system calls the first thing to measure: on the bare machine the gate does all;
; with the kernel out of ring 0, each way passes through the VMM.
;
; Checks: each call returns the kernel's count; the count is the number of calls made.

%define GUEST_NAME "syscall"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

        section .text
guest_main:
        mov     dword [syscall_count], -1   ; the warming call makes it 0
        mov     eax, user_int80
        call    enter_user
        cmp     eax, [iterations]
        FAIL_IF ne, 1, "INT 0x80 returned a wrong count"
        cmp     eax, [syscall_count]
        FAIL_IF ne, 2, "INT 0x80 reached the kernel another number of times"

        call    sysenter_init
        test    eax, eax
        jz      .no_sysenter
        mov     dword [syscall_count], -1
        mov     eax, user_sysenter
        call    enter_user
        cmp     eax, [iterations]
        FAIL_IF ne, 3, "SYSENTER returned a wrong count"
        cmp     eax, [syscall_count]
        FAIL_IF ne, 4, "SYSENTER reached the kernel another number of times"
        jmp     pass
.no_sysenter:
        PRINT   "syscall: no SYSENTER here, region 1 left out", 10
        jmp     pass

        section .user_text
user_int80:
        mov     esi, [user_iterations]
        int     VECTOR_SYSCALL
        REGION_BEGIN 0
.call:
        int     VECTOR_SYSCALL
        dec     esi
        jnz     .call
        REGION_END                          ; EAX: the last count
        jmp     user_exit

user_sysenter:
        mov     esi, [user_iterations]
        mov     edx, .warm
        mov     ecx, esp
        sysenter
.warm:
        REGION_BEGIN 1
.call:
        mov     edx, .back
        mov     ecx, esp
        sysenter
.back:
        dec     esi
        jnz     .call
        REGION_END
        jmp     user_exit
