; A boot sector that stands in for a Multiboot loader on machines that boot a disk and know no Multiboot.
;
; The disk (written by disk.py): this sector, then what it loads: 512 bytes of Multiboot information with the command line, and
; the kernel as one flat piece. It reads them to 0x10000 by the BIOS, opens A20, enters protected mode, moves the kernel to
; its place, clears the memory behind it, and jumps, in the state of the Multiboot specification, section 3.2.

        bits    16
        cpu     686
        org     0x7C00

BUFFER        equ 0x10000                   ; the information lies here and stays; at most 448 KB may follow
SECTOR        equ 512
CHUNK         equ 64                        ; sectors read at once
CODE_32       equ 0x08
DATA_32       equ 0x10
LOADER_MAGIC  equ 0x2BADB002
PORT_A20      equ 0x92
PORT_CONSOLE  equ 0xE9

start:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, start
        sti
        cld
.chunk:                                     ; DL is the drive that the BIOS booted from
        mov     ah, 0x42                    ; extended read
        mov     si, packet
        int     0x13
        jc      failed
        add     word [packet_segment], CHUNK * SECTOR / 16
        add     dword [packet_sector], CHUNK
        sub     word [sectors], CHUNK
        ja      .chunk

        cli
        in      al, PORT_A20
        or      al, 2
        and     al, 0xFE                    ; bit 0 would reset the machine
        out     PORT_A20, al
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     CODE_32:protected

failed:
        mov     si, failed_text
.next:
        lodsb
        test    al, al
        jz      .stop
        out     PORT_CONSOLE, al
        jmp     .next
.stop:
        cli
        hlt
        jmp     .stop

        bits    32
protected:
        mov     eax, DATA_32
        mov     ds, ax
        mov     es, ax
        mov     fs, ax
        mov     gs, ax
        mov     ss, ax
        mov     esi, BUFFER + SECTOR
        mov     edi, [target]
        mov     ecx, [copy_dwords]
        rep movsd
        xor     eax, eax
        mov     ecx, [clear_dwords]
        rep stosd
        mov     eax, LOADER_MAGIC
        mov     ebx, BUFFER
        jmp     [entry]

        align   8
gdt:    dq      0
        dq      0x00CF9A000000FFFF          ; 0x08 code
        dq      0x00CF92000000FFFF          ; 0x10 data
gdt_pointer:
        dw      gdt_pointer - gdt - 1
        dd      gdt

packet:                                     ; of the extended read
        db      16, 0
        dw      CHUNK
        dw      0
packet_segment:
        dw      BUFFER / 16
packet_sector:
        dq      1

failed_text:
        db      "the boot disk could not be read", 10, 0

; What disk.py fills in, at offset 480.
        times   480 - ($ - $$) db 0
sectors:
        dw      0, 0
target:
        dd      0
copy_dwords:
        dd      0
clear_dwords:
        dd      0
entry:
        dd      0
        times   510 - ($ - $$) db 0
        dw      0xAA55
