"""Multiboot kernels: the header, checked, and what a boot loader hands over.

Multiboot Specification version 0.6.96 (Multiboot 1), sections 3.1 to 3.3. Every malformed image ends in an `ImageError`
of one line; nothing is taken from the image that was not checked.
"""

import hashlib
import os
import pathlib
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ..errors import ImageError, show
from ..isa.registers import EAX, EBX
from .boot import ADDRESS_SPACE, HIGH_START, LOW_END, LOW_TOP, PAGE_BYTES, Boot, command_line_bytes
from .elf import Segment, read_executable, read_symbols
from .files import read_start_file
from .multiboot_info import information, information_bytes

MAXIMUM_COMMAND_LINE_BYTES = 2048
MAXIMUM_MODULES = 256

HEADER_MAGIC = 0x1BADB002
LOADER_MAGIC = 0x2BADB002
HEADER_SEARCH_BYTES = 8192
HEADER_BYTES, ADDRESS_FIELDS_BYTES, VIDEO_FIELDS_BYTES = 12, 20, 16
HEADER_PAGE_ALIGN = 1 << 0
HEADER_MEMORY_INFO = 1 << 1
HEADER_VIDEO_MODE = 1 << 2
HEADER_ADDRESS_FIELDS = 1 << 16
HEADER_MANDATORY = 0xFFFF
HEADER_HONOURED = HEADER_PAGE_ALIGN | HEADER_MEMORY_INFO | HEADER_VIDEO_MODE
TEXT_MODE = 1  # mode_type of the header's video fields


@dataclass(frozen=True)
class Module:
    """A file that the boot loader puts into RAM beside the kernel, and the string that goes with it."""

    text: str
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Image:
    """A checked kernel image: `entry` is physical, `symbols` maps names of code and data to linear addresses."""

    name: str
    entry: int
    segments: tuple[Segment, ...]
    sha256: str
    flags: int = 0
    symbols: Mapping[str, int] = field(default_factory=dict, repr=False)
    modules: tuple[Module, ...] = ()

    def boot(self, memory_bytes: int, command_line: str = "") -> Boot:
        """Where everything goes in a machine with that much RAM. Raises ImageError if it does not fit."""
        return prepare_boot(self, memory_bytes, command_line)


@dataclass(frozen=True)
class Header:
    """A Multiboot header (section 3.1): where it stands in the file, its flags, and its address fields if it has them."""

    offset: int
    flags: int
    addresses: tuple[int, int, int, int, int] | None  # header_addr, load_addr, load_end_addr, bss_end_addr, entry_addr


def load_image(path: str | os.PathLike[str]) -> Image:
    """Read and check an image file. Raises ImageError."""
    content = read_start_file(path, "a kernel image, or the name of a guest")
    return parse_image(content, pathlib.Path(path).stem, path)


def parse_image(content: bytes, name: str, where: object = "image") -> Image:
    """Check the bytes of a Multiboot kernel; `where` is named in errors. Raises ImageError.

    It is an ELF32 executable, unless its header has address fields: these say then where a file of any format goes.
    """
    header = find_header(content)
    if header is not None and header.addresses is not None:
        entry, segments = _flat_segment(content, header, where)
    else:
        entry, segments = read_executable(content, where)
    if header is None:
        advice = "put magic 0x1BADB002, flags and checksum, aligned to 4, into its first 8 KB"
        raise ImageError(where, "no Multiboot header", advice)
    _check_header(content, header, where)
    digest = hashlib.sha256(content).hexdigest()
    return Image(name, entry, segments, digest, header.flags, read_symbols(content))


def with_modules(image: Image, modules: Sequence[Module]) -> Image:
    """The image with files to go with it. Raises ImageError."""
    if len(modules) > MAXIMUM_MODULES:
        raise ImageError(image.name, f"{len(modules)} modules", f"give at most {MAXIMUM_MODULES}")
    digest = hashlib.sha256(bytes.fromhex(image.sha256))
    for module in modules:
        digest.update(hashlib.sha256(module.content).digest())
    return replace(image, modules=tuple(modules), sha256=digest.hexdigest()) if modules else image


def find_header(content: bytes) -> Header | None:
    """The Multiboot header (section 3.1.1): whole in the first 8 KB, aligned to 4."""
    for offset in range(0, min(HEADER_SEARCH_BYTES, len(content)) - HEADER_BYTES + 1, 4):
        magic, flags, checksum = struct.unpack_from("<III", content, offset)
        if magic == HEADER_MAGIC and (magic + flags + checksum) & 0xFFFFFFFF == 0:
            return Header(offset, flags, _address_fields(content, offset, flags))
    return None


def _address_fields(content: bytes, offset: int, flags: int) -> tuple[int, int, int, int, int] | None:
    """The address fields (section 3.1.3), None if the header has none."""
    at = offset + HEADER_BYTES
    if not flags & HEADER_ADDRESS_FIELDS or at + ADDRESS_FIELDS_BYTES > len(content):
        return None
    header_at, load, load_end, bss_end, entry = struct.unpack_from("<5I", content, at)
    return header_at, load, load_end, bss_end, entry


def _check_header(content: bytes, header: Header, where: object) -> None:
    """What the header asks for can be had (section 3.1.2); raises ImageError."""
    if header.flags & HEADER_MANDATORY & ~HEADER_HONOURED:
        what = f"its Multiboot header has flags {header.flags:#x}, of which only 0, 1, 2 and 16 are known"
        raise ImageError(where, what, "clear the others")
    if header.flags & HEADER_ADDRESS_FIELDS and header.addresses is None:
        raise ImageError(where, "truncated: its Multiboot header lacks its address fields", "copy or build it again")
    if header.flags & HEADER_VIDEO_MODE:
        at = header.offset + HEADER_BYTES + ADDRESS_FIELDS_BYTES
        if content[at : at + 4] != struct.pack("<I", TEXT_MODE):
            what = "its Multiboot header wants a graphics mode (flag 2)"
            raise ImageError(where, what, "ask for text (mode_type 1), or clear the flag")


def _flat_segment(content: bytes, header: Header, where: object) -> tuple[int, tuple[Segment, ...]]:
    """Entry point and the one segment of a kernel that its address fields describe (section 3.1.3)."""
    assert header.addresses is not None
    header_at, load, load_end, bss_end, entry = header.addresses
    first = header.offset - (header_at - load)
    if header_at < load or first < 0:
        what = f"its Multiboot header lies at {header_at:#x}, outside of what is loaded at {load:#x}"
        raise ImageError(where, what, "correct header_addr and load_addr")
    count = load_end - load if load_end else len(content) - first
    if count <= 0 or first + count > len(content):
        what = f"its load_end_addr {load_end:#x} does not fit a file of {len(content)} bytes loaded at {load:#x}"
        raise ImageError(where, what, "correct the address fields, or copy it again")
    memory_bytes = max(count, bss_end - load if bss_end else 0)
    if load + memory_bytes > ADDRESS_SPACE:
        raise ImageError(where, f"the segment at {load:#x} ends behind 4 GB", "link it lower")
    if not load <= entry < load + memory_bytes:
        raise ImageError(where, f"the entry point {entry:#x} lies in no segment", "correct entry_addr")
    return entry, (Segment(load, content[first : first + count], memory_bytes),)


def prepare_boot(image: Image, memory_bytes: int, command_line: str = "") -> Boot:
    """Where everything goes in a machine with that much RAM. Raises ImageError if it does not fit."""
    for segment in image.segments:
        if segment.end > memory_bytes:
            what = f"the segment at {segment.address:#x} to {segment.end:#x} lies outside RAM ({memory_bytes:#x} bytes)"
            raise ImageError(image.name, what, "give more memory (--memory) or link it lower")
    line = command_line_bytes(image.name, command_line, MAXIMUM_COMMAND_LINE_BYTES)
    texts = [command_line_bytes(image.name, module.text, MAXIMUM_COMMAND_LINE_BYTES) for module in image.modules]
    places = _module_places(image, memory_bytes)
    taken = [(segment.address, segment.end) for segment in image.segments] + places
    address = _free_place(image.name, taken, memory_bytes, information_bytes(memory_bytes, line, texts))
    info = information(address, memory_bytes, line, places, texts)
    writes = [(segment.address, segment.content) for segment in image.segments if segment.content]
    writes += [(start, module.content) for (start, _), module in zip(places, image.modules, strict=True)]
    return Boot(image.entry, (*writes, (address, info)), {EAX: LOADER_MAGIC, EBX: address})


def _module_places(image: Image, memory_bytes: int) -> list[tuple[int, int]]:
    """Start and end of each module: page-aligned, above 1 MB, behind the kernel, in the order given."""
    places: list[tuple[int, int]] = []
    end = max([HIGH_START, *(segment.end for segment in image.segments)])
    for module in image.modules:
        start = -(-end // PAGE_BYTES) * PAGE_BYTES
        end = start + len(module.content)
        if end > memory_bytes:
            what = f"no room in RAM for the module {show(module.text)} of {len(module.content)} bytes"
            raise ImageError(image.name, what, "give more memory (--memory)")
        places.append((start, end))
    return places


def _free_place(name: str, taken: Sequence[tuple[int, int]], memory_bytes: int, length: int) -> int:
    """A page-aligned address for the information structure: below 640 KB, else behind the kernel."""
    ends = [-(-end // PAGE_BYTES) * PAGE_BYTES for _, end in taken]
    candidates = [0x9000, *sorted(ends), *range(0x1000, LOW_TOP, PAGE_BYTES)]
    for address in candidates:
        top = LOW_END if address < LOW_TOP else memory_bytes
        overlaps = any(start < address + length and address < end for start, end in taken)
        in_hole = LOW_END - length < address < HIGH_START
        if address and address + length <= min(top, memory_bytes) and not overlaps and not in_hole:
            return address
    raise ImageError(name, "no room in RAM for the Multiboot information", "give more memory (--memory)")
