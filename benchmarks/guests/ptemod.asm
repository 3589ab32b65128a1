; ptemod: what a change of a page-table entry costs.
;
; Region 0: plain stores to the PTE of a page that is in use; each store toggles a bit that hardware leaves to software,
; so nothing has to be flushed. Region 1: each iteration points the PTE at the other of two frames, executes INVLPG, and
; reads through it. One iteration is one change, in the kernel.
;
; It teaches what keeps shadow page tables honest: a VMM may write-protect the guest's tables and pay for each store (a
; trace), or let them run out of step as a TLB may, and pay at INVLPG.
;
; Checks: region 0 ends with the value last stored, and the page still shows its frame; in region 1 each read shows the
; frame that was mapped, and the entry is the one last stored, accessed and not dirty.

%define GUEST_NAME "ptemod"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

FRAME_A     equ 0x400000
FRAME_B     equ 0x401000
VIEW        equ 0x600000                    ; the page whose entry is changed
VIEW_PTE    equ page_table_1 + ((VIEW - 0x400000) / PAGE) * 4
WORD_A      equ 0x13579BDF
WORD_B      equ 0x2468ACE0
ENTRY_FLAGS equ PTE_P | PTE_W | PTE_A       ; accessed from the start: hardware has nothing to add

        section .text
guest_main:
        mov     dword [FRAME_A], WORD_A
        mov     dword [FRAME_B], WORD_B
        CHANGE_PTE VIEW, VIEW_PTE, FRAME_A + ENTRY_FLAGS
        mov     eax, [VIEW]
        cmp     eax, WORD_A
        FAIL_IF ne, 1, "the page does not show frame A"
        call    toggle_bit
        call    change_frame
        jmp     pass

toggle_bit:
        mov     eax, [iterations]
        mov     esi, eax
        mov     ecx, FRAME_A + ENTRY_FLAGS
        REGION_BEGIN 0
.store:
        xor     ecx, PTE_AVL
        STORE_PTE VIEW_PTE, ecx
        dec     esi
        jnz     .store
        REGION_END
        mov     edx, FRAME_A + ENTRY_FLAGS
        test    eax, 1                      ; an odd number of toggles leaves the bit set
        jz      .even
        or      edx, PTE_AVL
.even:
        COMPARE_PTE VIEW_PTE, edx
        FAIL_IF ne, 2, "the entry is not what was stored last"
        mov     eax, [VIEW]
        cmp     eax, WORD_A
        FAIL_IF ne, 3, "a software bit changed the mapping"
        ret

; ECX is the entry, EBX the sum of the words read.
change_frame:
        mov     eax, [iterations]
        mov     esi, eax
        xor     ebx, ebx
        mov     ecx, FRAME_A + ENTRY_FLAGS
        REGION_BEGIN 1
.change:
        xor     ecx, FRAME_A ^ FRAME_B      ; the first change is to frame B
        CHANGE_PTE VIEW, VIEW_PTE, ecx
        add     ebx, [VIEW]
        dec     esi
        jnz     .change
        REGION_END
        COMPARE_PTE VIEW_PTE, ecx
        FAIL_IF ne, 4, "the entry of the last change is not what was stored"
        mov     ecx, eax
        shr     eax, 1                      ; reads of A; B was read as often, once more if the number is odd
        mov     edi, eax
        imul    eax, eax, WORD_A
        sub     ecx, edi
        imul    ecx, ecx, WORD_B
        add     eax, ecx
        cmp     eax, ebx
        FAIL_IF ne, 5, "a read after INVLPG showed the other frame"
        ret
