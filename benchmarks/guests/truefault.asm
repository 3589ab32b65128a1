; truefault: what a page fault costs that the kernel answers at once, without a new entry.
;
; Region 0: a ring-3 loop reads a page that is not present and stays so. The processor delivers #PF, the kernel's handler
; moves the saved EIP past the instruction, IRET goes back. One iteration is one fault.
;
; It teaches what a true fault is, one that the guest's own tables raise: a VMM with shadow page tables sees it first, walks
; the guest's tables, and finds that it is the guest's. The guest pgfault has what comes on top when the kernel maps the
; page: the new entry, and a hidden fault.
;
; Checks: the number of faults; in each, the error code, CR2 and the saved CS:EIP; the register is as it was.

%define GUEST_NAME "truefault"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

ABSENT        equ 0x600000
ABSENT_PTE    equ page_table_1 + ((ABSENT - 0x400000) / PAGE) * 4
PF_USER_READ  equ PTE_U                     ; error code: not present, read, from ring 3
READ_LENGTH   equ 2                         ; MOV EAX, [EDI]

        section .text
guest_main:
        CHANGE_PTE ABSENT, ABSENT_PTE, 0
        mov     dword [trap_handlers + VECTOR_PF * 4], page_fault
        mov     dword [fault_count], -1     ; the warming fault makes it 0
        mov     eax, user_read
        call    enter_user
        cmp     eax, [iterations]
        FAIL_IF ne, 1, "a faulting MOV changed its register"
        mov     eax, [fault_count]
        cmp     eax, [iterations]
        FAIL_IF ne, 2, "another number of page faults than reads"
        jmp     pass

; #PF: FRAME_CS:FRAME_EIP must be one of the two reads of the user program.
page_fault:
        inc     dword [fault_count]
        cmp     dword [ebp + FRAME_ERROR], PF_USER_READ
        FAIL_IF ne, 3, "wrong error code of a page fault"
        READ_CR2 eax
        cmp     eax, ABSENT
        FAIL_IF ne, 4, "CR2 is not the page read"
        cmp     word [ebp + FRAME_CS], USER_CS
        jne     .foreign
        mov     eax, [ebp + FRAME_EIP]
        cmp     eax, user_read.read
        je      .skip
        cmp     eax, user_read.warm
        jne     .foreign
.skip:
        add     dword [ebp + FRAME_EIP], READ_LENGTH
        ret
.foreign:
        FAIL    5, "the frame of #PF does not point at the MOV"

        section .data
        align   4
fault_count:
        dd      0

        section .user_text
user_read:
        mov     esi, [user_iterations]
        mov     edi, ABSENT
        mov     eax, esi
.warm:
        mov     eax, [edi]
        REGION_BEGIN 0
.read:
        mov     eax, [edi]
        dec     esi
        jnz     .read
        REGION_END                          ; EAX: untouched by the faults
        jmp     user_exit
