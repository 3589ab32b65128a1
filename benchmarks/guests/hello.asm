; hello: the smallest guest.
;
; It boots, sets up descriptors, traps and paging by the shared library, prints two lines and ends. It measures nothing.
; It teaches what a kernel does before it can do anything: read lib/boot.inc beside it. Built a second time as `hello_pse`,
; with 4 MB pages in place of 4 KB ones.

%define GUEST_NAME "hello"
%define DEFAULT_ITERATIONS 1
%include "kernel.inc"

        section .text
guest_main:
        PRINT   "Hello from ring ", KERNEL_RING, ", paging on.", 10
        jmp     pass
