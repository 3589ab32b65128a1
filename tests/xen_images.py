"""Xen PV kernels made byte by byte: an ELF file with notes of the owner Xen, or with the older section __xen_guest."""

import struct

from x86virt.start.elf import ELF_HEADER, PROGRAM_HEADER, SECTION_HEADER
from x86virt.start.xen_notes import (
    NOTE_ENTRY,
    NOTE_GUEST_OS,
    NOTE_HYPERCALL_PAGE,
    NOTE_PAE_MODE,
    NOTE_VIRT_BASE,
    PT_NOTE,
)

PAGE = 0x1000
CODE = 0x100000
ENTRY = CODE + 0x10
HYPERCALLS = CODE + PAGE
CONTENT = b"\xf4" * (3 * PAGE)


def note(kind: int, description: bytes, owner: bytes = b"Xen\0") -> bytes:
    """One note, padded."""
    head = struct.pack("<3I", len(owner), len(description), kind)
    return head + padded(owner) + padded(description)


def padded(octets: bytes) -> bytes:
    """Padded to a doubleword."""
    return octets + bytes(-len(octets) % 4)


def number(kind: int, value: int) -> bytes:
    """A note with a number."""
    return note(kind, struct.pack("<I", value))


def text(kind: int, words: str) -> bytes:
    """A note with a text."""
    return note(kind, words.encode() + b"\0")


def usual(pae: str = "no", base: int = 0, entry: int = ENTRY, page: int = HYPERCALLS) -> bytes:
    """The notes of a kernel that is linked where it lies."""
    return (
        text(NOTE_GUEST_OS, "test") + number(NOTE_VIRT_BASE, base) + number(NOTE_ENTRY, entry)
        + number(NOTE_HYPERCALL_PAGE, page) + text(NOTE_PAE_MODE, pae)
    )  # fmt: skip


def elf(notes: bytes, physical: int = CODE, content: bytes = CONTENT, memory_bytes: int | None = None) -> bytes:
    """An executable with one segment, and notes."""
    headers = 2 if notes else 1
    offset = ELF_HEADER.size + headers * PROGRAM_HEADER.size
    size = len(content) if memory_bytes is None else memory_bytes
    programs = PROGRAM_HEADER.pack(1, offset, physical, physical, len(content), size, 7, PAGE)
    if notes:
        programs += PROGRAM_HEADER.pack(PT_NOTE, offset + len(content), 0, 0, len(notes), 0, 4, 4)
    return header(physical, headers) + programs + content + notes


def header(entry: int, programs: int, sections: int = 0, names: int = 0, section_table: int = 0) -> bytes:
    """The header of an executable."""
    identification = bytes([0x7F, *b"ELF", 1, 1, 1]) + bytes(9)
    return ELF_HEADER.pack(
        identification, 2, 3, 1, entry, ELF_HEADER.size, section_table, 0, ELF_HEADER.size, PROGRAM_HEADER.size, programs,
        SECTION_HEADER.size, sections, names,
    )  # fmt: skip


def old_elf(words: str, physical: int = CODE, content: bytes = CONTENT) -> bytes:
    """An executable whose section __xen_guest holds a text."""
    names = b"\0__xen_guest\0.shstrtab\0"
    told = words.encode() + b"\0"
    offset = ELF_HEADER.size + PROGRAM_HEADER.size
    program = PROGRAM_HEADER.pack(1, offset, physical, physical, len(content), len(content), 7, PAGE)
    at = offset + len(content)
    sections = bytes(SECTION_HEADER.size)
    sections += SECTION_HEADER.pack(1, 1, 0, 0, at, len(told), 0, 0, 1, 0)
    sections += SECTION_HEADER.pack(13, 3, 0, 0, at + len(told), len(names), 0, 0, 1, 0)
    table = at + len(told) + len(names)
    return header(physical, 1, 3, 2, table) + program + content + told + names + sections
