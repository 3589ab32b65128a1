; portio: what access to a port costs.
;
; Region 0: a kernel loop of IN AL, 0x80. Region 1: a kernel loop of OUT 0x80, AL. One iteration is one access. No device of
; the machine answers at this port, so what is measured is the way to it.
;
; It teaches the price of an emulated device: on the bare machine a bus access, under a VMM a trap, a decoded instruction,
; a search for the device, and the way back, for each byte.
;
; Checks: IN changes AL and nothing else of EAX; neither instruction changes another register or the arithmetic flags.

%define GUEST_NAME "portio"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

PATTERN equ 0x5AC3E100                      ; upper three bytes of EAX across IN

        section .text
guest_main:
        mov     esi, [iterations]
        mov     ebx, esi
        mov     eax, PATTERN
        in      al, PORT_POST               ; not measured
        REGION_BEGIN 0
.read:
        in      al, PORT_POST
        dec     esi
        jnz     .read
        xchg    eax, ebx                    ; the number of iterations for the marker
        REGION_END
        and     ebx, 0xFFFFFF00
        cmp     ebx, PATTERN
        FAIL_IF ne, 1, "IN AL changed more than AL"
        cmp     eax, [iterations]
        FAIL_IF ne, 2, "IN changed another register"
        cmp     edx, 0
        FAIL_IF ne, 2, "IN changed another register"

        mov     eax, [iterations]
        mov     esi, eax
        out     PORT_POST, al               ; not measured
        REGION_BEGIN 1
.write:
        out     PORT_POST, al
        dec     esi
        jnz     .write
        REGION_END
        cmp     eax, [iterations]
        FAIL_IF ne, 3, "OUT changed EAX"
        cmp     edx, 1
        FAIL_IF ne, 3, "OUT changed another register"

        stc                                 ; flags across an access
        in      al, PORT_POST
        FAIL_IF nc, 4, "IN changed the flags"
        out     PORT_POST, al
        FAIL_IF nc, 4, "OUT changed the flags"
        jmp     pass
