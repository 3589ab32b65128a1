; tasks: hardware task switching. Nothing is measured; one iteration is a CALL to a 32-bit TSS and the IRET back.
;
; It teaches the anatomy of a task: what the processor saves and loads by itself (and that CR3 and the LDT are only loaded),
; busy bits, the link and NT, CR0.TS, a 16-bit TSS beside 32-bit ones, and the one use that outlived the rest: a task gate
; for the double fault, whose handler has a stack whatever happened to the kernel's.
;
; Checks: the count of switches and the caller's registers (1 to 3); nested calls through a 16-bit TSS (4 to 7); a jump
; through a task gate and back, with the busy bits (8 to 11); a double fault after the stack pointer was lost: error code,
; link, saved EIP and ESP, and that the repaired task goes on (12 to 17).

%define GUEST_NAME "tasks"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

CALLED_SEL  equ 0x30                        ; TSSs, a code and a stack segment for the 16-bit task, a task gate
OUTER_SEL   equ 0x38
NARROW_SEL  equ 0x40
JUMPED_SEL  equ 0x48
FAULT_SEL   equ 0x50
NARROW_CS   equ 0x58
NARROW_SS   equ 0x60
GATE_SEL    equ 0x68
TASKS_GDT_SIZE equ 0x70

TSS_LINK    equ 0                           ; offsets in a 32-bit TSS
TSS_CR3     equ 28
TSS_EIP     equ 32
TSS_EFLAGS  equ 36
TSS_ESP     equ 56
TSS_ES      equ 72
TSS_CS      equ 76
TSS_SS      equ 80
TSS_DS      equ 84
TSS_FS      equ 88
TSS_GS      equ 92
TSS16_IP    equ 14                          ; offsets in a 16-bit TSS
TSS16_FLAGS equ 16
TSS16_SP    equ 26
TSS16_ES    equ 34
TSS16_CS    equ 36
TSS16_SS    equ 38
TSS16_DS    equ 40
TSS16_SIZE  equ 44
TSS_ROOM    equ 128

TYPE_TSS_16      equ 0x81                   ; the access byte: present, DPL 0
TYPE_TSS_32      equ 0x89
TYPE_TSS_32_BUSY equ 0x8B
TYPE_TASK_GATE   equ 0x85
EFLAGS_NT   equ 1 << 14
CR0_TS      equ 1 << 3
VECTOR_DF   equ 8
NO_STACK    equ 0xA0000000                  ; no page is there

        section .text
guest_main:
        call    make_tasks
        call    call_and_return
        call    nested_calls
        call    jump_through_gate
        call    lose_the_stack
        jmp     pass

; CALL a task and have it return, iterations + 1 times. The registers of this task are in its TSS meanwhile.
call_and_return:
        mov     ebx, 0x11223344
        mov     edi, 0x55667788
        mov     esi, [iterations]
        call    CALLED_SEL:0
.next:
        call    CALLED_SEL:0
        dec     esi
        jnz     .next
        mov     eax, [iterations]
        inc     eax
        cmp     eax, [called_count]
        FAIL_IF ne, 1, "another number of task switches than calls"
        cmp     ebx, 0x11223344
        FAIL_IF ne, 2, "a register was lost over a task switch"
        cmp     edi, 0x55667788
        FAIL_IF ne, 2, "a register was lost over a task switch"
        mov     eax, cr0
        test    eax, CR0_TS
        FAIL_IF z, 3, "CR0.TS is clear after a task switch"
        clts
        ret

; The task of CALLED_SEL: each CALL goes on behind the IRETD of the one before.
called_task:
        inc     dword [called_count]
        iretd
        jmp     called_task

; A task calls a task: two links, two returns.
nested_calls:
        call    OUTER_SEL:0
        cmp     dword [narrow_count], 1
        FAIL_IF ne, 4, "the 16-bit task did not run once"
        cmp     dword [outer_count], 2
        FAIL_IF ne, 5, "the outer task did not go on behind its call"
        mov     al, [gdt + OUTER_SEL + 5]
        cmp     al, TYPE_TSS_32
        FAIL_IF ne, 6, "a task that returned is still busy"
        ret

outer_task:
        inc     dword [outer_count]
        cmp     word [outer_tss + TSS_LINK], TSS_SEL
        FAIL_IF ne, 7, "the link does not name the caller"
        pushfd
        pop     eax
        test    eax, EFLAGS_NT
        FAIL_IF z, 7, "NT is clear in a task that was called"
        call    NARROW_SEL:0
        inc     dword [outer_count]
        iretd
        jmp     outer_task

; The 16-bit task: EIP counts from the base of its own code segment, SP on its own small stack.
        align   16
narrow_task:
        mov     al, [gdt + OUTER_SEL + 5]
        cmp     al, TYPE_TSS_32_BUSY        ; the caller stays busy while it waits
        jne     .wrong
        cmp     word [narrow_tss + TSS_LINK], OUTER_SEL
        jne     .wrong
        push    ecx
        pop     ecx
        inc     dword [narrow_count]
.wrong:
        iretd
        jmp     narrow_task

; JMP through a task gate leaves no link: this task is no longer busy, and must be jumped to.
jump_through_gate:
        jmp     GATE_SEL:0
        cmp     dword [jumped_count], 1
        FAIL_IF ne, 8, "the task behind the gate did not run"
        mov     al, [gdt + TSS_SEL + 5]
        cmp     al, TYPE_TSS_32_BUSY
        FAIL_IF ne, 9, "the running task is not busy"
        mov     al, [gdt + JUMPED_SEL + 5]
        cmp     al, TYPE_TSS_32
        FAIL_IF ne, 10, "a task that was jumped from is busy"
        ret

jumped_task:
        mov     al, [gdt + TSS_SEL + 5]
        cmp     al, TYPE_TSS_32
        FAIL_IF ne, 11, "a task that was jumped from is busy"
        pushfd
        pop     eax
        test    eax, EFLAGS_NT
        FAIL_IF nz, 11, "NT is set in a task that was jumped to"
        inc     dword [jumped_count]
        jmp     TSS_SEL:0

; The stack pointer is lost: #PF at a push, another #PF at its frame, and so #DF, in a task of its own.
lose_the_stack:
        mov     byte [idt + VECTOR_DF * 8 + 5], TYPE_TASK_GATE
        mov     word [idt + VECTOR_DF * 8 + 2], FAULT_SEL
        call    idt_load
        mov     [good_stack], esp
        mov     esp, NO_STACK
lost_push:
        push    eax
        FAIL    12, "a push without a page went through"
repaired:
        cmp     dword [fault_count], 1
        FAIL_IF ne, 13, "the double-fault task did not run once"
        ret

fault_task:
        pop     eax
        test    eax, eax
        FAIL_IF nz, 14, "the error code of a double fault is not zero"
        cmp     word [fault_tss + TSS_LINK], TSS_SEL
        FAIL_IF ne, 15, "the link does not name the task that faulted"
        cmp     dword [tss + TSS_EIP], lost_push
        FAIL_IF ne, 16, "the saved EIP is not that of the push"
        cmp     dword [tss + TSS_ESP], NO_STACK
        FAIL_IF ne, 17, "the saved ESP is not the lost one"
        inc     dword [fault_count]
        mov     eax, [good_stack]
        mov     [tss + TSS_ESP], eax
        mov     dword [tss + TSS_EIP], repaired
        iretd

; -- making them ---------------------------------------------------------------------------------------------------------

; A longer GDT with the TSSs, segments and gate of this guest; CR3 into the TSS of this task, which is never written there.
make_tasks:
        mov     eax, cr3
        mov     [tss + TSS_CR3], eax
        lgdt    [tasks_gdt_pointer]
        mov     ebx, CALLED_SEL
        mov     edi, called_tss
        mov     esi, called_task
        mov     edx, called_stack_top
        call    make_task
        mov     ebx, OUTER_SEL
        mov     edi, outer_tss
        mov     esi, outer_task
        mov     edx, outer_stack_top
        call    make_task
        mov     ebx, JUMPED_SEL
        mov     edi, jumped_tss
        mov     esi, jumped_task
        mov     edx, jumped_stack_top
        call    make_task
        mov     ebx, FAULT_SEL
        mov     edi, fault_tss
        mov     esi, fault_task
        mov     edx, fault_stack_top
        call    make_task
        mov     dword [gdt + GATE_SEL], JUMPED_SEL << 16
        mov     dword [gdt + GATE_SEL + 4], TYPE_TASK_GATE << 8
; The 16-bit task, and the segments that bring its code and stack within 64 KB.
        mov     word [narrow_tss + TSS16_IP], 0
        mov     word [narrow_tss + TSS16_FLAGS], EFLAGS_FIXED
        mov     word [narrow_tss + TSS16_SP], PAGE
        mov     word [narrow_tss + TSS16_ES], USER_DS
        mov     word [narrow_tss + TSS16_CS], NARROW_CS
        mov     word [narrow_tss + TSS16_SS], NARROW_SS
        mov     word [narrow_tss + TSS16_DS], USER_DS
        mov     ebx, NARROW_SEL
        mov     edi, narrow_tss
        mov     eax, TSS16_SIZE - 1
        mov     ecx, TYPE_TSS_16
        call    make_descriptor
        mov     ebx, NARROW_CS
        mov     edi, narrow_task
        mov     eax, 0xFFFF
        mov     ecx, 0x409A                 ; 32-bit code, readable
        call    make_descriptor
        mov     ebx, NARROW_SS
        mov     edi, narrow_stack
        mov     eax, PAGE - 1
        mov     ecx, 0x0092                 ; 16-bit data, writable
        jmp     make_descriptor

; The 32-bit TSS at EDI with selector EBX: entry ESI, stack EDX, this address space. Clobbers EAX, ECX.
make_task:
        mov     eax, cr3
        mov     [edi + TSS_CR3], eax
        mov     [edi + TSS_EIP], esi
        mov     dword [edi + TSS_EFLAGS], EFLAGS_FIXED
        mov     [edi + TSS_ESP], edx
        mov     word [edi + TSS_CS], KERNEL_CS
        mov     word [edi + TSS_SS], KERNEL_DS
        mov     word [edi + TSS_DS], USER_DS
        mov     word [edi + TSS_ES], USER_DS
        mov     word [edi + TSS_FS], USER_DS
        mov     word [edi + TSS_GS], USER_DS
        mov     word [edi + TSS_IOMAP], TSS_SIZE
        mov     eax, TSS_SIZE - 1
        mov     ecx, TYPE_TSS_32

; The descriptor EBX of the GDT: base EDI, limit EAX (below 64 KB), access byte CL, flags in CH. Keeps EDI.
make_descriptor:
        mov     [gdt + ebx], ax
        mov     [gdt + ebx + 2], di
        mov     [gdt + ebx + 5], cl
        mov     [gdt + ebx + 6], ch
        mov     eax, edi
        shr     eax, 16
        mov     [gdt + ebx + 4], al
        mov     [gdt + ebx + 7], ah
        ret

        section .rodata
        align   4
        dw      0
tasks_gdt_pointer:
        dw      TASKS_GDT_SIZE - 1
        dd      gdt

        section .data
        align   4
called_count:
        dd      0
outer_count:
        dd      0
narrow_count:
        dd      0
jumped_count:
        dd      0
fault_count:
        dd      0
good_stack:
        dd      0

        section .tables
        alignb  PAGE
called_tss:
        resb    TSS_ROOM
outer_tss:
        resb    TSS_ROOM
narrow_tss:
        resb    TSS_ROOM
jumped_tss:
        resb    TSS_ROOM
fault_tss:
        resb    TSS_ROOM
        resb    PAGE - 5 * TSS_ROOM

        section .stacks
        resb    PAGE
called_stack_top:
        resb    PAGE
outer_stack_top:
        resb    PAGE
jumped_stack_top:
        resb    PAGE
fault_stack_top:
narrow_stack:
        resb    PAGE
