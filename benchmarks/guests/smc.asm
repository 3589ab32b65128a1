; smc: code that changes, in the four ways in which programs do it.
;
; Region 0 (kernel) and 1 (ring 3): a loop stores into the immediate of an instruction of its own, jumps, and executes it.
; Region 2 (kernel) and 3 (ring 3): a routine is copied to the next of eight places and called there, as a just-in-time
; compiler does; the copy that lay there before is overwritten. Region 4 (kernel): a page of code is mapped onto the other
; of two frames, INVLPG, and the routine at the same linear address is called. One iteration is one change and one use.
;
; It teaches what a VMM that keeps anything derived from code (decoded instructions, translations) must notice: stores to
; that code, and stores to the page tables that lead to it. After each change stands what the manual asks for (SDM volume
; 3A, section 8.1.3, "Handling Self- and Cross-Modifying Code"): a jump, or a serializing instruction (CPUID; INVLPG and
; IRET are such, too).
;
; Checks: the sum of what the changed instructions returned (1, 2, 3, ...) is that of the numbers. Once, before the regions:
; an opcode changed and CPUID executed; a change through another linear address; an instruction across two pages of which
; only the second is written; a string store that runs over the code behind it; and the kernel changing code of ring 3.

%define GUEST_NAME "smc"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

KERNEL_CODE equ 0x400000                    ; a page for the code that changes: nothing else lies there
KERNEL_SLOT equ 0x401000                    ; the places of copies
FRAME_A     equ 0x402000                    ; two pages with the same routine but for its number
FRAME_B     equ 0x403000
STRADDLE    equ 0x405000                    ; an instruction begins two bytes before this page
VIEW        equ 0x600000                    ; code seen through another linear address
VIEW_PTE    equ page_table_1 + ((VIEW - 0x400000) / PAGE) * 4
SLOTS       equ 8
SLOT_BYTES  equ 64                          ; one cache line
ENTRY_FLAGS equ PTE_P | PTE_W
OPCODE_INC  equ 0x40                        ; INC EAX, DEC EAX
OPCODE_DEC  equ 0x48
OPCODE_MOV  equ 0xB8                        ; MOV EAX, imm32
OPCODE_RET  equ 0xC3

; A loop that runs at %1 (it is copied there) and ESI times changes the number that it then loads: the sum is in EBX.
%macro PATCH_LOOP 1
%%start:
        xor     ebx, ebx
        xor     ecx, ecx
%%next:
        inc     ecx
        mov     [%1 + %%changed - %%start + 1], ecx         ; behind the opcode
        jmp     %%changed
%%changed:
        mov     eax, 0
        add     ebx, eax
        dec     esi
        jnz     %%next
        ret
%endmacro

; ESI times: copy the routine at %1, whose number is then set, to the next slot at %2, and call it: the sum is in EBX.
%macro COPY_LOOP 2
        xor     ebx, ebx
        xor     ebp, ebp                    ; the number
        mov     edx, %2
        cld
%%next:
        inc     ebp
        push    esi
        mov     esi, %1
        mov     edi, edx
        mov     ecx, SLOT_BYTES / 4
        rep movsd
        pop     esi
        mov     [edx + 1], ebp
        call    edx                         ; the jump that the manual asks for
        add     ebx, eax
        add     edx, SLOT_BYTES
        cmp     edx, %2 + SLOTS * SLOT_BYTES
        jb      %%same_round
        mov     edx, %2
%%same_round:
        dec     esi
        jnz     %%next
%endmacro

; What is copied: a number in its first instruction, and enough to fill the cache line.
%macro ROUTINE 0
%%start:
        mov     eax, 0
        mov     ecx, eax
        not     ecx
        xor     eax, ecx                    ; all ones
        sub     eax, ecx                    ; the number again
        ret
        times SLOT_BYTES - ($ - %%start) nop
%endmacro

        section .text
guest_main:
        call    change_opcode
        call    change_through_alias
        call    change_second_page
        call    change_by_string
        call    change_user_code
        call    patch_in_kernel
        mov     eax, user_patch
        call    enter_user
        mov     ebx, eax
        call    sum_of_numbers
        cmp     eax, ebx
        FAIL_IF ne, 2, "region 1: wrong sum"
        call    copy_in_kernel
        mov     eax, user_copy
        call    enter_user
        mov     ebx, eax
        call    sum_of_numbers
        cmp     eax, ebx
        FAIL_IF ne, 4, "region 3: wrong sum"
        call    remap
        jmp     pass

; EAX = 1 + 2 + ... + iterations. Keeps EBX.
sum_of_numbers:
        mov     ecx, [iterations]
        xor     eax, eax
.add:
        add     eax, ecx
        dec     ecx
        jnz     .add
        ret

patch_in_kernel:
        mov     esi, kernel_patch_loop
        mov     edi, KERNEL_CODE
        mov     ecx, kernel_patch_loop_end - kernel_patch_loop
        cld
        rep movsb
        mov     esi, [iterations]
        REGION_BEGIN 0
        mov     eax, KERNEL_CODE
        call    eax
        mov     eax, [iterations]
        REGION_END
        call    sum_of_numbers
        cmp     eax, ebx
        FAIL_IF ne, 1, "region 0: wrong sum"
        ret

kernel_patch_loop:
        PATCH_LOOP KERNEL_CODE
kernel_patch_loop_end:

copy_in_kernel:
        mov     esi, [iterations]
        REGION_BEGIN 2
        COPY_LOOP kernel_routine, KERNEL_SLOT
        mov     eax, [iterations]
        REGION_END
        call    sum_of_numbers
        cmp     eax, ebx
        FAIL_IF ne, 3, "region 2: wrong sum"
        ret

kernel_routine:
        ROUTINE

; Frames A and B hold the routine with numbers 1 and 2; the view shows B first, then in turn.
remap:
        mov     edi, FRAME_A
        mov     ecx, 1
        call    routine_write
        mov     edi, FRAME_B
        mov     ecx, 2
        call    routine_write
        mov     esi, [iterations]
        mov     edi, FRAME_A + ENTRY_FLAGS
        mov     ebp, VIEW
        xor     ebx, ebx
        REGION_BEGIN 4
.change:
        xor     edi, FRAME_A ^ FRAME_B
        CHANGE_PTE VIEW, VIEW_PTE, edi
        call    ebp
        add     ebx, eax
        dec     esi
        jnz     .change
        mov     eax, [iterations]
        REGION_END
        mov     ecx, eax                    ; 2 in each odd turn, 1 in each even one: n + half of n, rounded up
        inc     ecx
        shr     ecx, 1
        add     eax, ecx
        cmp     eax, ebx
        FAIL_IF ne, 5, "region 4: wrong sum"
        ret

; A routine at EDI that returns ECX: MOV EAX, ECX's value; RET.
routine_write:
        mov     byte [edi], OPCODE_MOV
        mov     [edi + 1], ecx
        mov     byte [edi + 5], OPCODE_RET
        ret

; INC EAX becomes DEC EAX and back; CPUID, which is serializing, stands between the store and the call.
change_opcode:
        mov     byte [KERNEL_CODE + 1], OPCODE_RET
        xor     esi, esi
        mov     ebp, KERNEL_CODE
        mov     edi, OPCODE_INC
.change:
        mov     eax, edi
        mov     [KERNEL_CODE], al
        xor     eax, eax
        cpuid
        mov     eax, 100
        call    ebp
        imul    esi, esi, 1000
        add     esi, eax
        xor     edi, OPCODE_INC ^ OPCODE_DEC
        cmp     edi, OPCODE_INC
        jne     .change
        cmp     esi, 101 * 1000 + 99
        FAIL_IF ne, 6, "a changed opcode was not executed"
        ret

; The code at KERNEL_CODE runs; the view onto its frame is written.
change_through_alias:
        CHANGE_PTE VIEW, VIEW_PTE, KERNEL_CODE + ENTRY_FLAGS
        mov     edi, KERNEL_CODE
        mov     ecx, 11
        call    routine_write
        mov     ebp, edi
        call    ebp
        mov     ebx, eax
        mov     dword [VIEW + 1], 22
        call    ebp
        add     ebx, eax
        cmp     ebx, 33
        FAIL_IF ne, 7, "a change through another linear address was not seen"
        ret

; MOV EAX, imm32 whose last three bytes lie in the next page: only those are written.
change_second_page:
        mov     edi, STRADDLE - 2
        mov     ecx, 0x01020304
        call    routine_write
        mov     ebp, edi
        call    ebp
        cmp     eax, 0x01020304
        FAIL_IF ne, 8, "an instruction across two pages"
        mov     word [STRADDLE + 1], 0x5566
        call    ebp
        cmp     eax, 0x55660304
        FAIL_IF ne, 8, "a change in the second of an instruction's pages was not seen"
        ret

; REP STOSB writes INC EAX over the NOPs behind it; the JMP between them is outside of the range.
change_by_string:
        mov     esi, string_code
        mov     edi, KERNEL_CODE
        mov     ecx, string_code_end - string_code
        cld
        rep movsb
        mov     ebp, KERNEL_CODE
        call    ebp
        cmp     edx, OPCODE_INC + 5
        FAIL_IF ne, 9, "what a string instruction wrote was not executed"
        ret

string_code:
        mov     edi, KERNEL_CODE + (.range - string_code)
        mov     ecx, 5
        mov     eax, OPCODE_INC
        rep stosb
        jmp     .range
.range:
        times 5 nop
        mov     edx, eax
        ret
string_code_end:

; The kernel writes a program for ring 3, runs it, writes another in its place, runs it. IRET is serializing.
change_user_code:
        mov     dword [user_code], OPCODE_MOV | (33 << 8)   ; MOV EAX, 33
        mov     byte [user_code + 4], 0
        call    jump_to_exit_write
        mov     eax, user_code
        call    enter_user
        mov     ebx, eax
        mov     byte [user_code + 1], 44
        mov     eax, user_code
        call    enter_user
        add     ebx, eax
        cmp     ebx, 77
        FAIL_IF ne, 10, "the program that the kernel changed was not executed"
        ret

; JMP user_exit at user_code + 5.
jump_to_exit_write:
        mov     byte [user_code + 5], 0xE9
        mov     eax, user_exit
        sub     eax, user_code + 10
        mov     [user_code + 6], eax
        ret

        section .user_text
; EAX = the sum that the loop found.
user_patch:
        mov     esi, user_patch_loop
        mov     edi, user_code
        mov     ecx, user_patch_loop_end - user_patch_loop
        cld
        rep movsb
        mov     esi, [user_iterations]
        mov     eax, user_code
        REGION_BEGIN 1
        call    eax
        mov     eax, [user_iterations]
        REGION_END
        mov     eax, ebx
        jmp     user_exit

user_patch_loop:
        PATCH_LOOP user_code
user_patch_loop_end:

user_copy:
        mov     esi, [user_iterations]
        REGION_BEGIN 3
        COPY_LOOP user_routine, user_slot
        mov     eax, [user_iterations]
        REGION_END
        mov     eax, ebx
        jmp     user_exit

user_routine:
        ROUTINE

        section .user_bss
        alignb  PAGE
user_code:
        resb    PAGE
user_slot:
        resb    PAGE
