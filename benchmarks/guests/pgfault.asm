; pgfault: what a page fault costs, when the kernel maps a page on demand.
;
; Region 0: a ring-3 loop reads one word from each page of a 1 MB window (256 pages) that is not present. #PF, the kernel
; checks it and writes one PTE, IRET, the read is done again. One iteration is one fault. When the window is full, the user
; program asks by INT 0x80 to have it emptied (256 PTEs cleared, 256 INVLPG): so with 256 iterations or more a 256th of
; that work is in each. For the bare fault keep to iterations=255 or fewer.
;
; It teaches demand paging, and why shadow page tables made it dear: the VMM sees the fault before the guest does, and
; once more when the guest's new PTE is not yet in the shadow.
;
; Checks: error code, CR2 and order of each fault; that each page shows the frame it was mapped to (frames are
; dealt out from the last to the first); the accessed bit set and the dirty bit clear in each PTE used.

%define GUEST_NAME "pgfault"
%define DEFAULT_ITERATIONS 100
%define GUEST_SYSCALL window_empty
%include "kernel.inc"

POOL_PAGES    equ 256
FRAMES        equ 0x400000                  ; the pool: mapped one to one for the kernel
WINDOW        equ 0x600000                  ; where the user program looks
WINDOW_END    equ WINDOW + POOL_PAGES * PAGE
WARM_PAGE     equ WINDOW_END                ; one page more, for the fault that is not measured
WINDOW_PTES   equ page_table_1 + ((WINDOW - 0x400000) / PAGE) * 4
PF_USER_READ  equ PTE_U                     ; error code: not present, read, from ring 3
WORD_FACTOR   equ 0x9E3779B1                ; the first word of frame number n is (n + 1) * WORD_FACTOR

        section .text
guest_main:
        call    frames_fill
        call    window_close
        mov     dword [trap_handlers + VECTOR_PF * 4], page_fault
        mov     eax, user_touch
        call    enter_user
        cmp     eax, [iterations]
        FAIL_IF ne, 1, "the user program lost count"
        cmp     eax, [fault_count]
        FAIL_IF ne, 2, "another number of page faults than pages touched"
        call    expected_sum
        cmp     eax, [user_sum]
        FAIL_IF ne, 3, "a page showed another frame than it was mapped to"
        call    check_entries
        jmp     pass

; Write the first word of each frame of the pool.
frames_fill:
        mov     edi, FRAMES
        mov     eax, WORD_FACTOR
        mov     ecx, POOL_PAGES
.frame:
        mov     [edi], eax
        add     edi, PAGE
        add     eax, WORD_FACTOR
        dec     ecx
        jnz     .frame
        ret

; Before the start: the window and the warming page are not present. No page of them was ever touched, yet INVLPG is the rule.
window_close:
        CHANGE_PTE WARM_PAGE, WINDOW_PTES + POOL_PAGES * 4, 0
        call    window_unmap
        ret

; Gate 0x80, from the user program: it has touched the last page of the window.
window_empty:
        pushad
        call    window_unmap
        popad
        TRAP_RETURN

window_unmap:
        UNMAP_PAGES WINDOW, WINDOW_PTES, POOL_PAGES
        mov     dword [next_page], WINDOW
        ret

; #PF: map the page that CR2 names, which must be the next one of the window.
page_fault:
        cmp     dword [ebp + FRAME_ERROR], PF_USER_READ
        FAIL_IF ne, 4, "wrong error code of a page fault"
        READ_CR2 eax
        cmp     eax, WARM_PAGE
        je      .warm
        cmp     eax, [next_page]
        FAIL_IF ne, 5, "CR2 is not the page touched"
        add     dword [next_page], PAGE
        inc     dword [fault_count]
        mov     edx, FRAMES + (WINDOW_END - PAGE) + (PTE_P | PTE_W | PTE_U)
        sub     edx, eax                    ; page n shows frame 255 - n
        PTE_INDEX eax
        MAP_PAGE eax, edx, WINDOW_PTES - (WINDOW >> 12) * 4
        ret
.warm:
        SET_PTE WARM_PAGE, WINDOW_PTES + POOL_PAGES * 4, FRAMES + (PTE_P | PTE_W | PTE_U)
        ret

; EAX = the sum of the words that the user program must have read: frames 255, 254, ... 0, 255, ...
expected_sum:
        xor     eax, eax
        mov     ecx, [iterations]
        mov     edx, POOL_PAGES * WORD_FACTOR & 0xFFFFFFFF
.word:
        add     eax, edx
        sub     edx, WORD_FACTOR
        jnz     .next
        mov     edx, POOL_PAGES * WORD_FACTOR & 0xFFFFFFFF
.next:
        dec     ecx
        jnz     .word
        ret

; The pages mapped at the end are those before [next_page]: each was read, none was written.
check_entries:
        mov     esi, WINDOW_PTES
        mov     ecx, [next_page]
        sub     ecx, WINDOW
        shr     ecx, 12
        jz      .done
.entry:
        mov     eax, [esi]
        and     eax, PTE_A | PTE_D
        cmp     eax, PTE_A
        FAIL_IF ne, 6, "accessed and dirty bits of a page that was read"
        add     esi, 4
        dec     ecx
        jnz     .entry
.done:
        ret

        section .data
        align   4
fault_count:
        dd      0
next_page:
        dd      WINDOW

        section .user_text
user_touch:
        mov     esi, [user_iterations]
        mov     eax, esi
        mov     edi, WINDOW
        xor     ebx, ebx
        add     ebx, [WARM_PAGE]
        xor     ebx, ebx
        REGION_BEGIN 0
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
        int     VECTOR_SYSCALL
        mov     edi, WINDOW
        jmp     .next

        section .user_data
user_sum:
        dd      0
