; INT 19h: boot from the first hard disk that can be booted from. INT 18h: there is none.

BOOT_SIGNATURE  equ 0xAA55
int_19h:
        cli
        xor     ax, ax
        mov     ss, ax
        mov     sp, BOOT_ADDRESS
        mov     es, ax
        sti
        cld
        push    DATA_SEGMENT
        pop     ds
        mov     dx, FIRST_DISK              ; DH = head 0
.disk:
        mov     al, dl
        sub     al, FIRST_DISK
        cmp     al, [data_disks]
        jae     .none
        push    dx
        mov     ax, 0x0201                  ; read one sector
        mov     cx, 0x0001                  ; cylinder 0, sector 1
        mov     bx, BOOT_ADDRESS
        int     0x13
        pop     dx
        jc      .next
        cmp     word [es:BOOT_ADDRESS + 510], BOOT_SIGNATURE
        je      .boot
.next:
        inc     dx
        jmp     .disk
.none:
        int     0x18
.boot:                                      ; the boot sector finds the number of its disk in DL
        xor     eax, eax
        mov     ds, ax
        xor     ebx, ebx
        xor     ecx, ecx
        xor     esi, esi
        xor     edi, edi
        xor     ebp, ebp
        jmp     0:BOOT_ADDRESS

int_18h:
        mov     si, text_no_disk
        call    print
.wait:
        sti
        hlt
        jmp     .wait

text_no_disk:
        db      "No bootable disk.", 13, 10, 0
