; speed: how fast a machine runs what kernels do, in seven phases.
;
; Phase 0: register arithmetic. Phase 1: sort, sieve and copy. Phase 2: INT 0x80 from ring 3 and IRET. Phase 3: from ring 3,
; reads of pages that are not present, each answered by one PTE; after 64 the window is emptied and CR3 reloaded. Phase 4: a
; write to CR3, then one read of each of 64 pages. Phase 5: a store of another frame to a PTE, INVLPG, a read through it.
; Phase 6: IN and OUT at port 0x80. Kernel mode and paging on where nothing else is said.
;
; This guest is for `bench speed` and `make bench-speed`: it prints a line before and after each phase, by which a
; bystander can measure its host time on any machine. How often a phase is done stands in [phase_iterations], where who starts
; the guest may write; `iterations=N` multiplies all seven.
;
; Checks: each phase ends with the sum or the count that its iterations must give.

%define GUEST_NAME "speed"
%define DEFAULT_ITERATIONS 1
%include "kernel.inc"

TOUCHED       equ 64                        ; pages of phase 4
%include "alu_block.inc"
%include "mix_pass.inc"
%include "spaces.inc"

PHASES        equ 7
VECTOR_EMPTY  equ 0x82                      ; gate for ring 3: empty the window
WINDOW        equ 0x700000                  ; where phase 3 looks
WINDOW_PAGES  equ 64
WINDOW_END    equ WINDOW + WINDOW_PAGES * PAGE
WINDOW_PTES   equ page_table_1 + ((WINDOW - 0x400000) / PAGE) * 4
FRAMES        equ 0x500000                  ; page n of the window shows frame n, whose first word is n + 1
FRAME_X       equ 0x5F0000                  ; the two frames of phase 5
FRAME_Y       equ 0x5F1000
WORD_X        equ 0x13579BDF
WORD_Y        equ 0x2468ACE0
LOOK          equ 0x7F0000                  ; the page whose entry phase 5 changes
LOOK_PTE      equ page_table_1 + ((LOOK - 0x400000) / PAGE) * 4
PORT_PATTERN  equ 0x5AC3E100                ; upper three bytes of EAX across IN

; PHASE n: say that phase n begins; EAX = [phase_count] = [user_count] = how often it is to be done.
%macro PHASE 1
        mov     eax, %1
        call    phase_begin
%endmacro

        section .text
guest_main:
        call    gates_open
        call    alu_phase
        call    mix_phase
        call    syscall_phase
        call    fault_phase
        call    switch_phase
        call    entry_phase
        call    port_phase
        jmp     pass

; The page-fault handler of phase 3, straight from the gate, and the gate that empties its window.
gates_open:
        mov     eax, VECTOR_PF
        mov     edx, page_fault
        mov     ecx, GATE_DPL0
        call    set_gate
        mov     eax, VECTOR_EMPTY
        mov     edx, window_empty
        mov     ecx, GATE_DPL3
        call    set_gate
        call    idt_load
        ret

; Phase EAX begins. Its number of iterations to EAX, [phase_count] and [user_count].
phase_begin:
        mov     [phase], eax
        PRINT   "phase "
        call    print_decimal
        PRINT   " begins", 10
        mov     eax, [phase_iterations + eax * 4]
        mul     dword [iterations]
        test    eax, eax                    ; every phase is done at least once
        jnz     .known
        inc     eax
.known:
        mov     [phase_count], eax
        mov     [user_count], eax
        ret

; The phase has ended. Keeps every register.
phase_end:
        push    eax
        PRINT   "phase "
        mov     eax, [phase]
        call    print_decimal
        PRINT   " ends", 10
        pop     eax
        ret

alu_phase:
        PHASE   0
        mov     esi, eax
        REGION_BEGIN 0
        align   16
.block:
        ALU_BLOCK
        add     [alu_sum], eax
        dec     esi
        jnz     .block
        mov     eax, [phase_count]
        REGION_END
        call    phase_end
        imul    eax, eax, BLOCK_RESULT
        cmp     eax, [alu_sum]
        FAIL_IF ne, 1, "a block of arithmetic ended with other registers"
        ret

mix_phase:
        call    source_fill
        PHASE   1
        mov     [passes_left], eax
        REGION_BEGIN 1
.pass:
        MIX_PASS
        dec     dword [passes_left]
        jnz     .pass
        mov     eax, [phase_count]
        REGION_END
        call    phase_end
        imul    eax, eax, PASS_RESULT
        cmp     eax, [sum]
        FAIL_IF ne, 2, "the sum over sort, sieve and copy is wrong"
        ret

syscall_phase:
        PHASE   2
        mov     eax, user_syscalls
        call    enter_user
        call    phase_end
        cmp     eax, [phase_count]
        FAIL_IF ne, 3, "INT 0x80 returned a wrong count"
        cmp     eax, [syscall_count]
        FAIL_IF ne, 3, "INT 0x80 reached the kernel another number of times"
        ret

fault_phase:
        mov     edi, FRAMES
        mov     eax, 1
        mov     ecx, WINDOW_PAGES
.frame:
        mov     [edi], eax
        add     edi, PAGE
        inc     eax
        dec     ecx
        jnz     .frame
        call    window_unmap
        PHASE   3
        mov     eax, user_touch
        call    enter_user
        call    phase_end
        cmp     eax, [phase_count]
        FAIL_IF ne, 4, "the user program lost count of its page faults"
        cmp     eax, [fault_count]
        FAIL_IF ne, 4, "another number of page faults than pages touched"
        ; the sum of 1 to 64 for each full round, of 1 to r for the rest
        mov     ecx, eax
        shr     eax, 6
        imul    eax, eax, WINDOW_PAGES * (WINDOW_PAGES + 1) / 2
        and     ecx, WINDOW_PAGES - 1
        lea     edx, [ecx + 1]
        imul    edx, ecx
        shr     edx, 1
        add     eax, edx
        cmp     eax, [user_sum]
        FAIL_IF ne, 4, "a page showed another frame than it was mapped to"
        ret

; #PF: map the page that CR2 names. No register may change, and the error code is dropped.
page_fault:
        push    eax
        push    edx
        READ_CR2 eax
        mov     edx, eax
        PTE_INDEX edx
        add     eax, FRAMES - WINDOW + (PTE_P | PTE_W | PTE_U)
        MAP_PAGE edx, eax, WINDOW_PTES - (WINDOW >> 12) * 4
        inc     dword [fault_count]
        pop     edx
        pop     eax
        add     esp, 4
        TRAP_RETURN

; Gate 0x82, from the user program: it has touched the last page of the window.
window_empty:
        pushad
        call    window_unmap
        popad
        TRAP_RETURN

; The entries of the window to zero, and the TLB emptied.
window_unmap:
        CLEAR_PTES WINDOW, WINDOW_PTES, WINDOW_PAGES
        FLUSH_TLB
        ret

switch_phase:
        call    spaces_init
        PHASE   4
        mov     esi, eax
        mov     ecx, page_directory_a
        mov     ebx, page_directory_a
        xor     ebx, page_directory_b       ; what turns one value of CR3 into the other
        REGION_BEGIN 4                      ; EDX starts at 4
.switch:
        xor     ecx, ebx                    ; the first switch is to B
        LOAD_CR3 ecx
        TOUCH_ALL
        dec     esi
        jnz     .switch
        REGION_END
        mov     ecx, page_directory
        LOAD_CR3 ecx
        call    phase_end
        sub     edx, 4
        mov     ecx, eax
        shr     eax, 1                      ; visits of A; B was visited as often, once more if the number is odd
        sub     ecx, eax
        imul    eax, eax, SUM_A
        imul    ecx, ecx, SUM_B
        add     eax, ecx
        cmp     eax, edx
        FAIL_IF ne, 5, "a page showed the other address space"
        ret

entry_phase:
        mov     dword [FRAME_X], WORD_X
        mov     dword [FRAME_Y], WORD_Y
        PHASE   5
        mov     esi, eax
        xor     ebx, ebx
        mov     ecx, FRAME_X + (PTE_P | PTE_W | PTE_A)
        REGION_BEGIN 5
.change:
        xor     ecx, FRAME_X ^ FRAME_Y      ; the first change is to frame Y
        CHANGE_PTE LOOK, LOOK_PTE, ecx
        add     ebx, [LOOK]
        dec     esi
        jnz     .change
        REGION_END
        call    phase_end
        mov     ecx, eax
        shr     eax, 1                      ; reads of X; Y was read as often, once more if the number is odd
        sub     ecx, eax
        imul    eax, eax, WORD_X
        imul    ecx, ecx, WORD_Y
        add     eax, ecx
        cmp     eax, ebx
        FAIL_IF ne, 6, "a read after INVLPG showed the other frame"
        ret

port_phase:
        PHASE   6
        mov     esi, eax
        mov     ebx, eax
        mov     eax, PORT_PATTERN
        REGION_BEGIN 6
.access:
        in      al, PORT_POST
        out     PORT_POST, al
        dec     esi
        jnz     .access
        xchg    eax, ebx                    ; the number of iterations for the marker
        REGION_END
        call    phase_end
        cmp     eax, [phase_count]
        FAIL_IF ne, 7, "IN or OUT changed another register"
        and     ebx, 0xFFFFFF00
        cmp     ebx, PORT_PATTERN
        FAIL_IF ne, 7, "IN AL changed more than AL"
        ret

        section .data
        align   4
phase_iterations:                           ; by number of the phase
        dd      1, 1, 200, 200, 20, 200, 400
phase:
        dd      0
phase_count:
        dd      0
alu_sum:
        dd      0
passes_left:
        dd      0
fault_count:
        dd      0

        section .user_text
user_syscalls:
        mov     esi, [user_count]
        REGION_BEGIN 2
.call:
        int     VECTOR_SYSCALL
        dec     esi
        jnz     .call
        REGION_END                          ; EAX: the last count
        jmp     user_exit

user_touch:
        mov     esi, [user_count]
        mov     eax, esi
        mov     edi, WINDOW
        xor     ebx, ebx
        REGION_BEGIN 3
.touch:
        add     ebx, [edi]
        add     edi, PAGE
        cmp     edi, WINDOW_END
        je      .full
.next:
        dec     esi
        jnz     .touch
        REGION_END
        mov     [user_sum], ebx
        jmp     user_exit
.full:
        int     VECTOR_EMPTY
        mov     edi, WINDOW
        jmp     .next

        section .user_data
user_count:
        dd      0
user_sum:
        dd      0
