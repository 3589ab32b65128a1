"""The Multiboot loader: an ELF32 kernel image, checked, and what a boot loader hands over to it.

Multiboot Specification version 0.6.96 (Multiboot 1), sections 3.1 to 3.3; System V ABI, Intel386 supplement. Every
malformed image ends in an `ImageError` of one line; nothing is taken from the image that was not checked.
"""

import hashlib
import io
import itertools
import os
import pathlib
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from .errors import ImageError
from .isa.registers import EAX, EBX
from .start.boot import HIGH_START, LOW_END, LOW_TOP, PAGE_BYTES, Boot, command_line_bytes
from .start.files import read_start_file

MAXIMUM_SEGMENTS = 1024
MAXIMUM_SYMBOLS = 1 << 18
MAXIMUM_NAME_BYTES = 256
MAXIMUM_COMMAND_LINE_BYTES = 2048

HEADER_MAGIC = 0x1BADB002
LOADER_MAGIC = 0x2BADB002
HEADER_SEARCH_BYTES = 8192
HEADER_PAGE_ALIGN = 1 << 0
HEADER_MEMORY_INFO = 1 << 1
HEADER_VIDEO_MODE = 1 << 2
HEADER_ADDRESS_FIELDS = 1 << 16
HEADER_MANDATORY = 0xFFFF
HEADER_HONOURED = HEADER_PAGE_ALIGN | HEADER_MEMORY_INFO

INFO_MEMORY = 1 << 0
INFO_COMMAND_LINE = 1 << 2
INFO_MEMORY_MAP = 1 << 6
INFO_LOADER_NAME = 1 << 9
INFO_BYTES = 116
LOADER_NAME = b"x86virt\0"
RAM_AVAILABLE, RAM_RESERVED = 1, 2

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


@dataclass(frozen=True)
class Image:
    """A checked kernel image: `entry` is physical, `symbols` maps names of code and data to linear addresses."""

    name: str
    entry: int
    segments: tuple[Segment, ...]
    sha256: str
    flags: int = 0
    symbols: Mapping[str, int] = field(default_factory=dict, repr=False)

    def boot(self, memory_bytes: int, command_line: str = "") -> Boot:
        """Where everything goes in a machine with that much RAM. Raises ImageError if it does not fit."""
        return prepare_boot(self, memory_bytes, command_line)


def load_image(path: str | os.PathLike[str]) -> Image:
    """Read and check an image file. Raises ImageError."""
    content = read_start_file(path, "a kernel image, or the name of a guest")
    return parse_image(content, pathlib.Path(path).stem, path)


def parse_image(content: bytes, name: str, where: object = "image") -> Image:
    """Check the bytes of an ELF32 Multiboot kernel; `where` is named in errors. Raises ImageError."""
    entry, program_headers = _read_elf(content, where)
    segments = tuple(_segments(content, program_headers, where))
    flags = _multiboot_flags(content, where)
    _check_overlap(segments, where)
    return Image(
        name,
        _physical_entry(entry, program_headers, where),
        segments,
        hashlib.sha256(content).hexdigest(),
        flags,
        _symbols(content),
    )


def prepare_boot(image: Image, memory_bytes: int, command_line: str = "") -> Boot:
    """Where everything goes in a machine with that much RAM. Raises ImageError if it does not fit."""
    for segment in image.segments:
        if segment.end > memory_bytes:
            what = f"the segment at {segment.address:#x} to {segment.end:#x} lies outside RAM ({memory_bytes:#x} bytes)"
            raise ImageError(image.name, what, "give more memory (--memory) or link it lower")
    line = command_line_bytes(image.name, command_line, MAXIMUM_COMMAND_LINE_BYTES)
    info_bytes = INFO_BYTES + len(_memory_map(memory_bytes)) + len(line) + len(LOADER_NAME)
    address = _free_place(image, memory_bytes, info_bytes)
    info = _information(address, memory_bytes, line)
    writes = [(segment.address, segment.content) for segment in image.segments if segment.content]
    return Boot(image.entry, (*writes, (address, info)), {EAX: LOADER_MAGIC, EBX: address})


def _read_elf(content: bytes, where: object) -> tuple[int, list[tuple[int, ...]]]:
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


def _check_overlap(segments: tuple[Segment, ...], where: object) -> None:
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


def _multiboot_flags(content: bytes, where: object) -> int:
    """The flags of the Multiboot header (section 3.1.1)."""
    for offset in range(0, min(HEADER_SEARCH_BYTES, len(content)) - 11, 4):
        magic, flags, checksum = struct.unpack_from("<III", content, offset)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            break
    else:
        advice = "put magic 0x1BADB002, flags and checksum, aligned to 4, into its first 8 KB"
        raise ImageError(where, "no Multiboot header", advice)
    if flags & HEADER_VIDEO_MODE:
        raise ImageError(where, "its Multiboot header wants a video mode (flag 2)", "clear it: there is no screen")
    if flags & HEADER_MANDATORY & ~HEADER_HONOURED:
        what = f"its Multiboot header has flags {flags:#x}, of which only 0 and 1 are known"
        raise ImageError(where, what, "clear the others")
    if flags & HEADER_ADDRESS_FIELDS:
        what = "its Multiboot header has address fields (flag 16)"
        raise ImageError(where, what, "clear the flag: the ELF headers say where it goes")
    return flags


def _symbols(content: bytes) -> dict[str, int]:
    """Names of code and data. A damaged or absent symbol table gives fewer of them: they serve reading only."""
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


def _memory_map(memory_bytes: int) -> bytes:
    """The memory map (section 3.3): conventional memory, the reserved range below 1 MB, and the rest."""
    pieces = [(0, LOW_END, RAM_AVAILABLE), (LOW_END, HIGH_START - LOW_END, RAM_RESERVED)]
    if memory_bytes > HIGH_START:
        pieces.append((HIGH_START, memory_bytes - HIGH_START, RAM_AVAILABLE))
    return b"".join(struct.pack("<IQQI", 20, start, length, kind) for start, length, kind in pieces)


def _information(address: int, memory_bytes: int, command_line: bytes) -> bytes:
    """The information structure at `address`, followed by what it points to (section 3.3)."""
    memory_map = _memory_map(memory_bytes)
    map_at = address + INFO_BYTES
    line_at = map_at + len(memory_map)
    name_at = line_at + len(command_line)
    fields = {
        0: INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME,
        4: LOW_END >> 10,
        8: max(memory_bytes - HIGH_START, 0) >> 10,
        16: line_at,
        44: len(memory_map),
        48: map_at,
        64: name_at,
    }
    info = bytearray(INFO_BYTES)
    for offset, value in fields.items():
        struct.pack_into("<I", info, offset, value)
    return bytes(info) + memory_map + command_line + LOADER_NAME


def _free_place(image: Image, memory_bytes: int, length: int) -> int:
    """A page-aligned address for the information structure: below 640 KB, else behind the kernel."""
    ends = [-(-segment.end // PAGE_BYTES) * PAGE_BYTES for segment in image.segments]
    candidates = [0x9000, *sorted(ends), *range(0x1000, LOW_TOP, PAGE_BYTES)]
    for address in candidates:
        top = LOW_END if address < LOW_TOP else memory_bytes
        taken = any(segment.address < address + length and address < segment.end for segment in image.segments)
        in_hole = LOW_END - length < address < HIGH_START
        if address and address + length <= min(top, memory_bytes) and not taken and not in_hole:
            return address
    raise ImageError(image.name, "no room in RAM for the Multiboot information", "give more memory (--memory)")
