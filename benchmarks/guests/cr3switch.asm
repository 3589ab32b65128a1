; cr3switch: what a switch of address space costs.
;
; Two address spaces, A and B, share the kernel's first 4 MB and differ in 16 pages of data. Region 0: a kernel loop of writes to
; CR3, alternately. Region 1: the same, and after each switch one word of each of the 16 pages is read. One iteration
; is one switch.
;
; It teaches why the second figure is the one that counts: the write itself is cheap, the TLB that it empties is not, and a
; VMM with shadow tables must find or build another shadow for what the guest switched to.
;
; Checks: the sum of the words read tells which frames were seen, in every iteration.

%define GUEST_NAME "cr3switch"
%define DEFAULT_ITERATIONS 100
%include "kernel.inc"

TOUCHED     equ 16                          ; pages
FRAMES_A    equ 0x400000
FRAMES_B    equ 0x410000
VIEW        equ 0x600000
VIEW_INDEX  equ (VIEW - 0x400000) / PAGE    ; entry in the table of 4 to 8 MB
SUM_A       equ TOUCHED * 0xA000 + TOUCHED * (TOUCHED - 1) / 2
SUM_B       equ TOUCHED * 0xB000 + TOUCHED * (TOUCHED - 1) / 2

        section .tables
page_directory_a:
        resb    PAGE
page_table_a:                               ; 4 to 8 MB of address space A
        resb    PAGE
page_directory_b:
        resb    PAGE
page_table_b:
        resb    PAGE

        section .text
guest_main:
        call    spaces_init
        call    switch_alone
        call    switch_and_touch
        jmp     pass

; Word n of A's pages is 0xA000 + n, of B's 0xB000 + n. The kernel came here in a third address space, the library's.
spaces_init:
        mov     edi, FRAMES_A
        mov     eax, 0xA000
        call    frames_fill
        mov     edi, FRAMES_B
        mov     eax, 0xB000
        call    frames_fill
        mov     eax, [page_directory]
        mov     [page_directory_a], eax
        mov     [page_directory_b], eax
        mov     dword [page_directory_a + 4], page_table_a + (PTE_P | PTE_W)
        mov     dword [page_directory_b + 4], page_table_b + (PTE_P | PTE_W)
        mov     edi, page_table_a + VIEW_INDEX * 4
        mov     eax, FRAMES_A + (PTE_P | PTE_W)
        call    view_map
        mov     edi, page_table_b + VIEW_INDEX * 4
        mov     eax, FRAMES_B + (PTE_P | PTE_W)
        jmp     view_map

; EDI -> first frame, EAX = word of the first page; the next pages get the next words.
frames_fill:
        mov     ecx, TOUCHED
.frame:
        mov     [edi], eax
        add     edi, PAGE
        inc     eax
        dec     ecx
        jnz     .frame
        ret

; EDI -> first PTE, EAX = its value; the next entries map the next frames.
view_map:
        mov     ecx, TOUCHED
.entry:
        mov     [edi], eax
        add     edi, 4
        add     eax, PAGE
        dec     ecx
        jnz     .entry
        ret

switch_alone:
        mov     ecx, page_directory_a
        mov     ebx, page_directory_a
        xor     ebx, page_directory_b       ; what turns one value of CR3 into the other
        mov     eax, [iterations]
        mov     esi, eax
        REGION_BEGIN 0
.switch:
        xor     ecx, ebx                    ; the first switch is to B
        mov     cr3, ecx
        dec     esi
        jnz     .switch
        REGION_END
        mov     edx, cr3
        cmp     edx, ecx
        FAIL_IF ne, 1, "CR3 does not hold what was written"
        mov     edx, SUM_A
        test    eax, 1
        jz      .compare
        mov     edx, SUM_B
.compare:
        mov     esi, edx
        xor     edx, edx
        call    touch
        cmp     edx, esi
        FAIL_IF ne, 2, "the wrong address space after the switches"
        ret

; EDX += the first word of each page of the view.
%macro TOUCH_ALL 0
%assign page 0
%rep TOUCHED
        add     edx, [VIEW + page * PAGE]
%assign page page + 1
%endrep
%endmacro

touch:
        TOUCH_ALL
        ret

switch_and_touch:
        mov     ecx, page_directory_a
        mov     ebx, page_directory_a
        xor     ebx, page_directory_b       ; what turns one value of CR3 into the other
        mov     eax, [iterations]
        mov     esi, eax
        REGION_BEGIN 1                      ; EDX starts at 1
.switch:
        xor     ecx, ebx
        mov     cr3, ecx
        TOUCH_ALL
        dec     esi
        jnz     .switch
        REGION_END
        dec     edx
        mov     ecx, eax
        shr     eax, 1                      ; visits of A; B was visited as often, once more if the number is odd
        sub     ecx, eax
        imul    eax, eax, SUM_A
        imul    ecx, ecx, SUM_B
        add     eax, ecx
        cmp     eax, edx
        FAIL_IF ne, 3, "a page showed the other address space"
        ret
