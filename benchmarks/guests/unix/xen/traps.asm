; From ring 3 into ring 1 and back.
;
; The hypervisor delivers exceptions and events to this kernel in the layout of the processor's own frames, and the processor
; itself delivers INT 0x80. Every way in builds struct trap_frame of machine.h and masks events: the kernel is not interrupted.
; The third byte of the CS in a frame is how events were masked before. DS, ES, FS and GS hold the user data selector for good.

        bits    32
        cpu     686
%include "../lib/abi.inc"
%include "../lib/xen.inc"

FRAME_EIP   equ 40                          ; offsets in struct trap_frame
FRAME_CS    equ 44
FRAME_MASK  equ 46
FRAME_REGISTERS equ 32                      ; bytes: what PUSHAD pushes
FRAME_HEAD  equ 40                          ; the same with vector and error code
UPCALL_BYTES equ 12                         ; EIP, CS, EFLAGS: an event's frame in ring 1
OF_PROGRAM  equ 2                           ; the bit of CS that ring 3 has and ring 1 has not

        extern  trap, shared_page, take_events

%define EVENTS_MASKED byte [shared_page + vcpu_info_evtchn_upcall_mask]
%define EVENT_PENDING byte [shared_page + vcpu_info_evtchn_upcall_pending]

        section .text progbits alloc exec nowrite align=16

; Vectors whose delivery pushes an error code: 8, 10 to 14, 17.
%define HAS_ERROR_CODE(v) ((v) == 8 || ((v) >= 10 && (v) <= 14) || (v) == 17)
EXCEPTIONS equ 20

%macro STUB 1
trap_stub_ %+ %1:
%if !HAS_ERROR_CODE(%1)
        push    dword 0
%endif
        push    dword %1
        jmp     trap_common
%endmacro

%assign vector 0
%rep EXCEPTIONS
        STUB    vector
%assign vector vector + 1
%endrep

; INT 0x80: the hypervisor has no part in it, so that events are still open at the first instruction.
        global  machine_system_call_entry
machine_system_call_entry:
        mov     EVENTS_MASKED, 1
        push    dword 0
        push    dword VECTOR_SYSCALL

trap_common:
        pushad
        cld                                 ; C wants it so, and a program may have set DF
        push    esp
        call    trap
        add     esp, 4

; Also where a new process begins, on a kernel stack that holds nothing but its frame. Events are let in before the IRET: one
; that was pending is taken here. One that comes between the two finds half of a frame: machine_event_entry mends it.
        global  machine_return_from_trap
machine_return_from_trap:
        mov     al, [esp + FRAME_MASK]
        mov     EVENTS_MASKED, al
half_open:
        test    al, al
        jnz     .leave
        cmp     EVENT_PENDING, 0
        jne     take_pending
.leave:
        popad
half_popped:
        add     esp, 8                      ; vector and error code
half_left:
        iretd
half_end:

; An event, while a program ran, or the kernel waited for one, or at the edges of a system call: at its first instruction, where
; there is nothing to mend, or in its last few.
        global  machine_event_entry
machine_event_entry:
        push    dword 0
        push    dword VECTOR_IRQ0
        pushad
        cld
        test    dword [esp + FRAME_CS], OF_PROGRAM
        jnz     take
        mov     eax, [esp + FRAME_EIP]
        cmp     eax, half_open
        jb      take
        cmp     eax, half_end
        jb      mend
        jmp     take

take_pending:
        mov     EVENTS_MASKED, 1
take:
        push    esp
        call    take_events
        add     esp, 4
        jmp     machine_return_from_trap

; Put the frame together again that was being left: what was popped is in this event's frame, the rest lies behind it.
mend:
        cmp     eax, half_left
        je      .left
        cmp     eax, half_popped
        je      .popped
        add     esp, FRAME_HEAD + UPCALL_BYTES ; nothing was popped
        jmp     take
.popped:                                    ; the registers were: they take their places before vector and error code
        mov     ecx, FRAME_REGISTERS / 4
        lea     esi, [esp + FRAME_REGISTERS - 4]
        lea     edi, [esi + FRAME_HEAD + UPCALL_BYTES - FRAME_REGISTERS]
        jmp     .move
.left:                                      ; all but the processor's frame: this event's head becomes its
        mov     ecx, FRAME_HEAD / 4
        lea     esi, [esp + FRAME_HEAD - 4]
        lea     edi, [esi + UPCALL_BYTES]
.move:
        std                                 ; upwards: the last word first
        rep     movsd
        cld
        lea     esp, [edi + 4]
        jmp     take

; The hypervisor could not return to where it was told to: no frame of this kernel is so wrong.
        extern  failsafe
        global  machine_failsafe_entry
machine_failsafe_entry:
        call    failsafe

; The body of the system call page, which programs call like a function.
        global  call_page_int, call_page_int_end
call_page_int:
        int     VECTOR_SYSCALL
        ret
call_page_int_end:

        section .rodata progbits alloc noexec nowrite align=4
        global  machine_trap_stubs
machine_trap_stubs:
%assign vector 0
%rep EXCEPTIONS
        dd      trap_stub_ %+ vector
%assign vector vector + 1
%endrep
