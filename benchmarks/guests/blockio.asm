; blockio: what requests to a disk cost.
;
; Each iteration of region 0 writes 4 KB and waits until that is done, of region 1 it reads 4 KB; of region 2 it asks for 32 times
; 4 KB at once and waits for all; of region 3 it reads 44 KB by one request. The disk is at work most of the time, and the kernel
; rests meanwhile: what the processor does beside is the difference between the techniques.
;
; The native build drives the IDE controller: ten or more accesses to ports for each request, one of which starts the bus master,
; and an interrupt. The ported build puts requests into a ring that it shares with a driver in domain 0: an event when the ring was
; empty, and one back. Both move the same sectors. What they do is in C: blockio/ (the requests), ide/ and xen/ (the drivers).
;
; It teaches why devices were made for virtual machines: emulation traps at every port, a ring only when somebody rests.
;
; Checks: what is read is what was written; no request fails. The disk has 128 KB or more.

%define GUEST_NAME "blockio"
%define DEFAULT_ITERATIONS 20
%include "kernel.inc"

        extern  measure_requests
        global  kernel_rest

        section .text
guest_main:
        push    dword [iterations]
        cld                                 ; C wants it so
        call    measure_requests
        add     esp, 4
        test    eax, eax
        jz      pass
        mov     esi, eax
        mov     eax, 1
        jmp     fail

; For C: interrupts on until one has been taken.
kernel_rest:
        ENABLE_AND_HALT
        DISABLE_INTERRUPTS
        ret

%ifdef XEN
        global  hypercall_page, start_info, shared_info, device_port, device_handler
%else
        global  trap_handlers
%endif
