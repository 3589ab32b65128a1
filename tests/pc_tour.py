"""A boot sector that uses what a PC has around its processor: the A20 gate in every mode, a reset by which a program comes
back from protected mode, a reset of the machine, and at last its power off. What it finds is on the console, a letter each."""

from pathlib import Path

from pc_guests import assembled

FOUND = b"ocpPQrk", b"2"  # before the reset of the machine, and behind it

TOUR = """
        bits    16
        org     0x7C00
start:  cli
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, 0x7C00
        dec     ax
        mov     fs, ax
        cmp     word [0x600], 0xCAFE
        je      second
        in      al, 0x92
        or      al, 2
        out     0x92, al                    ; the A20 gate is open
        mov     word [0x500], 0x1111
        mov     word [fs:0x510], 0x2222     ; 100500
        cmp     word [0x500], 0x1111
        jne     fail
        mov     al, 'o'
        out     0xE9, al
        in      al, 0x92
        and     al, 0xFD
        out     0x92, al                    ; closed
        mov     word [fs:0x510], 0x3333
        cmp     word [0x500], 0x3333
        jne     fail
        mov     al, 'c'
        out     0xE9, al
        lgdt    [gdt_pointer]
        mov     eax, cr0
        or      al, 1
        mov     cr0, eax
        jmp     dword 0x08:protected

        bits    32
protected:
        mov     ax, 0x10
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     esp, 0x7000
        mov     ecx, 300
.sum:   add     [0x100504], ecx             ; 504
        loop    .sum
        cmp     dword [0x504], 300 * 301 / 2
        jne     fail
        mov     al, 'p'
        out     0xE9, al
        mov     al, 0xD1                    ; the keyboard controller opens the gate
        out     0x64, al
.full:  in      al, 0x64
        test    al, 2
        jnz     .full
        mov     al, 0xDF
        out     0x60, al
.wait:  in      al, 0x64
        test    al, 2
        jnz     .wait
        mov     dword [0x100500], 0x55555555
        cmp     word [0x500], 0x3333
        jne     fail
        mov     al, 'P'
        out     0xE9, al
        mov     ecx, 300
.count: inc     dword [0x20000 + ecx * 4]
        loop    .count
        cmp     dword [0x20004], 1
        jne     fail
        mov     al, 'Q'
        out     0xE9, al
        mov     dword [0x467], back         ; where the firmware goes on behind the reset
        mov     al, 0x0F
        out     0x70, al
        mov     al, 0x0A
        out     0x71, al
        mov     al, 0xFE
        out     0x64, al
stop:   hlt
        jmp     stop
fail:   mov     al, '!'
        out     0xE9, al
        jmp     stop

        bits    16
back:   cli
        mov     al, 'r'
        out     0xE9, al
        xor     ax, ax
        mov     ds, ax
        dec     ax
        mov     fs, ax
        cmp     word [fs:0x510], 0x5555
        jne     .no
        mov     al, 'k'
        out     0xE9, al
.no:    mov     word [0x600], 0xCAFE
        mov     dx, 0xCF9                   ; the machine begins anew, with its RAM as it is
        mov     al, 2
        out     dx, al
        mov     al, 6
        out     dx, al
        hlt
second: mov     al, '2'
        out     0xE9, al
        mov     ebx, 0x80000B40             ; power management at port B000
        mov     ecx, 0xB001
        call    configure
        mov     bl, 0x80
        mov     cl, 1
        call    configure
        mov     dx, 0xB004
        mov     ax, 0x2000
        out     dx, ax
        hlt
configure:
        mov     dx, 0xCF8
        mov     eax, ebx
        out     dx, eax
        mov     dx, 0xCFC
        mov     eax, ecx
        out     dx, eax
        ret

        align   4
gdt:    dq      0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF
gdt_pointer:
        dw      3 * 8 - 1
        dd      gdt
"""


def tour_disk(folder: Path) -> Path:
    """A disk with this boot sector."""
    disk = folder / "tour.img"
    disk.write_bytes((assembled(TOUR).ljust(510, b"\x00") + b"\x55\xaa").ljust(1 << 16, b"\x00"))
    return disk
