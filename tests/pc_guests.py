"""Small guests that talk: assembled where NASM is, to be started as flat binaries or from a boot sector."""

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

PARROT_AT = 0x100000

# Says `ready> `, then repeats what comes on the first serial port, says `ready> ` after each CR, and shows scan codes in
# hexadecimal on the console. On the line Q shuts the machine down, P switches its power off, R resets it, H halts for ever,
# F leaves with verdict 7.
PARROT = """
        bits    32
        org     0x100000
start:  mov     esp, 0x80000
        mov     ebx, 0xB8000
        mov     esi, ready
        call    say
main:   mov     dx, 0x3FD
        in      al, dx
        test    al, 1
        jnz     line
        in      al, 0x64
        test    al, 1
        jz      main
        in      al, 0x60
        mov     cl, al
        shr     al, 4
        call    digit
        mov     al, cl
        and     al, 15
        call    digit
        mov     al, ' '
        out     0xE9, al
        jmp     main
line:   mov     dx, 0x3F8
        in      al, dx
        cmp     al, 'Q'
        je      quit
        cmp     al, 'R'
        je      reset
        cmp     al, 'H'
        je      halt
        cmp     al, 'P'
        je      power
        cmp     al, 'F'
        je      fail
        call    put
        cmp     al, 13
        jne     main
        mov     al, 10
        call    put
        mov     esi, ready
        call    say
        jmp     main
quit:   mov     esi, word_
        mov     dx, 0x8900
.next:  lodsb
        out     dx, al
        test    al, al
        jnz     .next
halt:   cli
        hlt
reset:  mov     al, 6
        mov     dx, 0xCF9
        out     dx, al
        jmp     halt
power:  mov     ax, 0x2000              ; PM1a control: SLP_EN, sleep type 0
        mov     dx, 0xB004
        out     dx, ax
        jmp     halt
fail:   mov     al, 7
        out     0xF4, al
        jmp     halt
say:    lodsb
        test    al, al
        jz      .done
        call    put
        jmp     say
.done:  ret
put:    push    eax                     ; to the line and to the screen
        mov     dx, 0x3F8
        out     dx, al
        cmp     al, 32
        jb      .control
        mov     ah, 7
        mov     [ebx], ax
        add     ebx, 2
        jmp     .done
.control:
        cmp     al, 10
        jne     .done
        lea     eax, [ebx - 0xB8000 + 159]
        xor     edx, edx
        mov     ecx, 160
        div     ecx
        mul     ecx
        lea     ebx, [eax + 0xB8000]
.done:  pop     eax
        ret
digit:  add     al, '0'
        cmp     al, '9'
        jbe     .out
        add     al, 7
.out:   out     0xE9, al
        ret
ready:  db      "ready> ", 0
word_:  db      "Shutdown", 0
"""

# Says `tick` at each of ten interrupts of the timer, halted between them.
CLOCK = """
        bits    16
        org     0x7C00
        xor     ax, ax
        mov     ds, ax
        mov     ss, ax
        mov     sp, 0x7C00
        mov     word [0x20], tick       ; vector 8
        mov     word [0x22], 0
        mov     al, 0x11                ; both PICs as a BIOS leaves them
        out     0x20, al
        mov     al, 8
        out     0x21, al
        mov     al, 4
        out     0x21, al
        mov     al, 1
        out     0x21, al
        mov     al, 0xFE
        out     0x21, al
        mov     al, 0x34                ; channel 0, mode 2
        out     0x43, al
        mov     al, 0xFF
        out     0x40, al
        out     0x40, al
        mov     cx, 10
        sti
again:  hlt
        loop    again
        mov     si, word_
        mov     dx, 0x8900
next:   lodsb
        out     dx, al
        test    al, al
        jnz     next
        hlt
tick:   push    ax
        mov     al, 't'
        out     0xE9, al
        mov     al, 0x20
        out     0x20, al
        pop     ax
        iret
word_:  db      "Shutdown", 0
        times   510-($-$$) db 0
        dw      0xAA55
"""


@functools.cache
def assembled(source: str) -> bytes:
    """A flat binary. Skips the test where there is no NASM."""
    if shutil.which("nasm") is None:
        pytest.skip("nasm is not installed")
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder, "guest.asm"), Path(folder, "guest.bin")
        text.write_text(source, encoding="ascii")
        subprocess.run(["nasm", "-f", "bin", "-o", str(binary), str(text)], check=True)
        return binary.read_bytes()


def parrot(folder: Path) -> str:
    """The path of the parrot's image."""
    path = folder / "parrot.bin"
    path.write_bytes(assembled(PARROT))
    return str(path)


# Says where it was started from, repeats keys by the BIOS, restarts the machine for r by the keyboard controller.
BOOT_SECTOR = """
        bits    16
        org     0x7C00
        xor     ax, ax
        mov     ds, ax
        mov     si, hello
next:   lodsb
        test    al, al
        jz      keys
        mov     ah, 0x0E
        int     0x10
        jmp     next
keys:   mov     ah, 0
        int     0x16
        cmp     al, 'r'
        je      restart
        mov     ah, 0x0E
        int     0x10
        jmp     keys
restart:
        inc     word [0x600]
        mov     al, 0xFE
        out     0x64, al
        hlt
hello:  db      "boot sector here", 13, 10, 0
        times   510-($-$$) db 0
        dw      0xAA55
"""


def boot_disk(folder: Path) -> str:
    """The path of a disk of 1 MB with that boot sector."""
    path = folder / "disk.img"
    path.write_bytes(assembled(BOOT_SECTOR).ljust(1 << 20, b"\0"))
    return str(path)


def script_file(folder: Path, text: str) -> tuple[str, str]:
    """The option that types a script, from a file of its own."""
    path = folder / "input.txt"
    path.write_text(text, encoding="utf-8")
    return "--input", str(path)
