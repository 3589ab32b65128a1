"""ELF32 executables: their loadable segments, entry point and symbols, all checked.

System V ABI, Intel386 supplement. Nothing is taken from a file that was not checked.
"""

import io
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import ImageError

MAXIMUM_SEGMENTS = 1024
MAXIMUM_SYMBOLS = 1 << 18
MAXIMUM_NAME_BYTES = 256

ELF_HEADER = struct.Struct("<16sHHIIIIIHHHHHH")
PROGRAM_HEADER = struct.Struct("<8I")
SECTION_HEADER = struct.Struct("<10I")
SYMBOL = struct.Struct("<IIIBBH")
ELF_MAGIC = b"\x7fELF"
CLASS_32, LITTLE_ENDIAN = 1, 1
SECTION_SYMBOLS = 2
SECTION_INDEX_ABSOLUTE = 0xFFF1
BUILD_ADVICE = "build it as a 32-bit x86 executable (nasm -f elf32, ld -m elf_i386)"


@dataclass(frozen=True)
class Segment:
    """One loaded piece: its physical address, the bytes of the file, and its size in memory (the rest is zero)."""

    address: int
    content: bytes
    memory_bytes: int

    @property
    def end(self) -> int:
        """The first physical address behind it."""
        return self.address + self.memory_bytes


def read_executable(content: bytes, where: object) -> tuple[int, tuple[Segment, ...]]:
    """The physical entry point and the segments of an executable; `where` is named in errors. Raises ImageError."""
    entry, program_headers = _read_headers(content, where)
    return _physical_entry(entry, program_headers, where), _checked_segments(content, program_headers, where)


def read_loadable(content: bytes, where: object) -> tuple[int, tuple[Segment, ...]]:
    """The entry point as the file has it and the segments of an executable. Raises ImageError."""
    entry, program_headers = _read_headers(content, where)
    return entry, _checked_segments(content, program_headers, where)


def _checked_segments(content: bytes, program_headers: list[tuple[int, ...]], where: object) -> tuple[Segment, ...]:
    """The segments, no two of which share a byte. Raises ImageError."""
    segments = tuple(_segments(content, program_headers, where))
    check_overlap(segments, where)
    return segments


def _read_headers(content: bytes, where: object) -> tuple[int, list[tuple[int, ...]]]:
    """Entry point and loadable program headers (p_type, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, ...)."""
    if content[:4] != ELF_MAGIC:
        raise ImageError(where, "not an ELF file", BUILD_ADVICE)
    if len(content) < ELF_HEADER.size:
        raise ImageError(where, f"truncated: {len(content)} bytes hold no ELF header", "copy or build it again")
    if content[4] != CLASS_32:
        raise ImageError(where, "not a 32-bit ELF file (ELF64 or of an unknown class)", BUILD_ADVICE)
    if content[5] != LITTLE_ENDIAN:
        raise ImageError(where, "not a little-endian ELF file", BUILD_ADVICE)
    header = ELF_HEADER.unpack_from(content)
    _, kind, machine, version, entry, table, section_table, _, _, entry_bytes, number, section_bytes, sections, _ = (
        header
    )
    if machine != 3:
        raise ImageError(where, f"built for ELF machine {machine}, not for 80386 (3)", BUILD_ADVICE)
    if kind != 2:
        raise ImageError(where, f"not an executable (ELF type {kind}, not 2)", "link it with a fixed load address")
    if version != 1:
        raise ImageError(where, f"unknown ELF version {version}", BUILD_ADVICE)
    if number == 0:
        raise ImageError(where, "no program headers", "link it: this is not a loadable executable")
    if number > MAXIMUM_SEGMENTS:
        raise ImageError(where, f"{number} program headers", f"link it with at most {MAXIMUM_SEGMENTS}")
    if entry_bytes != PROGRAM_HEADER.size:
        raise ImageError(where, f"program headers of {entry_bytes} bytes, not {PROGRAM_HEADER.size}", BUILD_ADVICE)
    if table + number * entry_bytes > len(content):
        raise ImageError(where, "truncated: the program headers lie behind the end", "copy or build it again")
    if section_table + sections * section_bytes > len(content):
        raise ImageError(where, "truncated: the section headers lie behind the end", "copy or build it again")
    headers = _program_headers(content, where)
    if not headers:
        raise ImageError(where, "nothing to load", "link it with at least one PT_LOAD segment")
    return entry, headers


def _program_headers(content: bytes, where: object) -> list[tuple[int, ...]]:
    """The PT_LOAD headers that take memory, as (offset, linear, physical, file bytes, memory bytes)."""
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile

    try:
        headers = [segment.header for segment in ELFFile(io.BytesIO(content)).iter_segments("PT_LOAD")]
    except (ELFError, ValueError, KeyError, IndexError, TypeError, AttributeError, ArithmeticError, AssertionError):
        raise ImageError(where, "damaged: its headers contradict each other", "copy or build it again") from None
    return [
        (header.p_offset, header.p_vaddr, header.p_paddr, header.p_filesz, header.p_memsz)
        for header in headers
        if header.p_memsz or header.p_filesz
    ]


def _segments(content: bytes, program_headers: list[tuple[int, ...]], where: object) -> Iterator[Segment]:
    for offset, _, physical, file_bytes, memory_bytes in program_headers:
        place = f"the segment at {physical:#x}"
        if file_bytes > memory_bytes:
            raise ImageError(where, f"{place} is larger in the file than in memory", "copy or build it again")
        if offset + file_bytes > len(content):
            raise ImageError(where, f"truncated: {place} ends behind the end of the file", "copy or build it again")
        if physical + memory_bytes > 1 << 32:
            raise ImageError(where, f"{place} ends behind 4 GB", "link it lower")
        yield Segment(physical, content[offset : offset + file_bytes], memory_bytes)


def check_overlap(segments: tuple[Segment, ...], where: object) -> None:
    """No two segments share a byte; raises ImageError."""
    ordered = sorted(segments, key=lambda segment: segment.address)
    for lower, upper in itertools.pairwise(ordered):
        if lower.end > upper.address:
            what = f"the segments at {lower.address:#x} and {upper.address:#x} overlap"
            raise ImageError(where, what, "correct the linker script")


def _physical_entry(entry: int, program_headers: list[tuple[int, ...]], where: object) -> int:
    """The entry point as a physical address. A segment linked elsewhere than loaded gives the difference."""
    for _, linear, physical, _, memory_bytes in program_headers:
        if linear <= entry < linear + memory_bytes:
            return physical + entry - linear
    raise ImageError(where, f"the entry point {entry:#x} lies in no segment", "name it to the linker (ENTRY or -e)")


def read_symbols(content: bytes) -> dict[str, int]:
    """Names of code and data. A damaged or absent symbol table gives fewer of them: they serve reading only."""
    if content[:4] != ELF_MAGIC or len(content) < ELF_HEADER.size:
        return {}
    header = ELF_HEADER.unpack_from(content)
    table, entry_bytes, number = header[6], header[11], header[12]
    if entry_bytes != SECTION_HEADER.size or table + number * entry_bytes > len(content):
        return {}
    sections = [SECTION_HEADER.unpack_from(content, table + index * entry_bytes) for index in range(number)]
    symbols: dict[str, int] = {}
    for section in sections:
        if section[1] == SECTION_SYMBOLS and section[6] < number and section[9] == SYMBOL.size:
            symbols.update(_symbols_of(content, section, sections[section[6]]))
    return symbols


def _symbols_of(content: bytes, section: tuple[int, ...], strings: tuple[int, ...]) -> Iterator[tuple[str, int]]:
    start, size = section[4], section[5]
    end = min(start + size, len(content))
    count = min(max(end - start, 0) // SYMBOL.size, MAXIMUM_SYMBOLS)
    for index in range(count):
        name_offset, value, _, _, _, home = SYMBOL.unpack_from(content, start + index * SYMBOL.size)
        name_at = strings[4] + name_offset
        stop = content.find(b"\0", name_at, name_at + MAXIMUM_NAME_BYTES)
        if home in (0, SECTION_INDEX_ABSOLUTE) or stop <= name_at:
            continue
        name = content[name_at:stop].decode("utf-8", "replace")
        if not name.startswith("..@"):
            yield name, value
