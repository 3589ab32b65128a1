"""A Linux kernel (bzImage), entered by the 32-bit boot protocol.

Documentation/arch/x86/boot.rst of Linux: "Details of Header Fields", "The Linux Kernel Command Line", "Loading The Rest of
The Kernel", "Special Command Line Options" and "32-bit Boot Protocol". The real-mode part of the kernel is not run: what
it would have found out (memory map, screen) stands in the boot parameters. Kernels of other makers that carry the same
header, such as Memtest86+, start alike.
"""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ImageError
from ..isa.registers import ESI
from .bios_area import EXTENDED_DATA_AREA, bios_data
from .boot import ADDRESS_SPACE, HIGH_START, LOW_END, PAGE_BYTES, Boot, command_line_bytes

SECTOR_BYTES = 512
HEADER_START, HEADER_MAGIC_AT, HEADER_LONGEST = 0x1F1, 0x202, 0x290
HEADER_MAGIC = b"HdrS"
BOOT_FLAG = 0xAA55
OLDEST_PROTOCOL = 0x200
DEFAULT_SETUP_SECTORS = 4

LOADED_HIGH, KEEP_SEGMENTS, CAN_USE_HEAP = 1 << 0, 1 << 6, 1 << 7
LOADER_UNDEFINED = 0xFF  # type_of_loader: a boot loader without a number of its own

# Below 640 KB: the boot parameters where the real-mode kernel used to be, then the GDT and the command line.
PARAMETERS = 0x90000
PARAMETERS_BYTES = 4096
GDT_AT = PARAMETERS + PARAMETERS_BYTES
COMMAND_LINE_AT = GDT_AT + 0x100
OLD_COMMAND_LINE_MAGIC = 0xA33F
OLD_COMMAND_LINE_BYTES = 255
BOOT_CODE, BOOT_DATA = 0x10, 0x18
FLAT_CODE_DESCRIPTOR, FLAT_DATA_DESCRIPTOR = 0x00CF9B000000FFFF, 0x00CF93000000FFFF

INITRD_HIGHEST_BEFORE_203 = 0x37FFFFFF
E820_RAM, E820_RESERVED = 1, 2
E820_COUNT_AT, E820_TABLE_AT = 0x1E8, 0x2D0
LARGEST_EXTENDED_KB = 0xFC00  # what the 16-bit field can say without counting memory above 64 MB


@dataclass(frozen=True)
class SetupHeader:
    """The fields of the setup header that a boot loader looks at; those that the version lacks have its defaults."""

    version: int
    setup_sectors: int
    loadflags: int
    initrd_highest: int
    alignment: int
    relocatable: bool
    command_line_bytes: int
    preferred: int
    init_bytes: int


@dataclass(frozen=True)
class LinuxImage:
    """A checked bzImage, and the initial RAM disk to go with it (empty: none)."""

    name: str
    content: bytes
    header: SetupHeader
    sha256: str
    initrd: bytes = b""
    symbols: Mapping[str, int] = field(default_factory=dict, repr=False)

    @property
    def kernel(self) -> bytes:
        """The protected-mode part of the file."""
        return self.content[(1 + self.header.setup_sectors) * SECTOR_BYTES :]

    def boot(self, memory_bytes: int, command_line: str = "") -> Boot:
        """Where everything goes in a machine with that much RAM. Raises ImageError if it does not fit."""
        return _boot(self, memory_bytes, command_line)


def is_linux(content: bytes) -> bool:
    """Whether a file has the setup header of a Linux kernel."""
    magic = content[HEADER_MAGIC_AT : HEADER_MAGIC_AT + len(HEADER_MAGIC)] == HEADER_MAGIC
    return magic and int.from_bytes(content[0x1FE:0x200], "little") == BOOT_FLAG


def parse_linux(content: bytes, name: str, where: object = "kernel", initrd: bytes = b"") -> LinuxImage:
    """Check the bytes of a bzImage; `where` is named in errors. Raises ImageError."""
    if not is_linux(content):
        raise ImageError(where, "not a Linux kernel: no 'HdrS' at 0x202", "give a bzImage (vmlinuz)")
    header = _read_header(content, where)
    if not header.loadflags & LOADED_HIGH:
        raise ImageError(where, "a zImage, which loads below 640 KB (LOADED_HIGH is clear)", "build a bzImage")
    if len(content) <= (1 + header.setup_sectors) * SECTOR_BYTES:
        what = f"truncated: {len(content)} bytes, of which {header.setup_sectors + 1} sectors are the real-mode part"
        raise ImageError(where, what, "copy or build it again")
    return LinuxImage(name, content, header, hashlib.sha256(content + initrd).hexdigest(), initrd)


def _read_header(content: bytes, where: object) -> SetupHeader:
    """The setup header ("Details of Header Fields"), each field only where the version has it."""
    version = int.from_bytes(content[0x206:0x208], "little")
    if version < OLDEST_PROTOCOL:
        raise ImageError(where, f"boot protocol {version >> 8}.{version & 0xFF:02}", "give a kernel of 2.00 or newer")
    if len(content) < HEADER_LONGEST:
        raise ImageError(where, f"truncated: {len(content)} bytes hold no setup header", "copy or build it again")

    def number(offset: int, width: int, since: int, default: int) -> int:
        return int.from_bytes(content[offset : offset + width], "little") if version >= since else default

    alignment = number(0x230, 4, 0x205, PAGE_BYTES) or PAGE_BYTES
    if alignment & (alignment - 1) or alignment > 1 << 28:
        raise ImageError(where, f"its kernel_alignment {alignment:#x} is not a power of two", "build it again")
    return SetupHeader(
        version,
        content[HEADER_START] or DEFAULT_SETUP_SECTORS,
        content[0x211],
        number(0x22C, 4, 0x203, INITRD_HIGHEST_BEFORE_203),
        alignment,
        number(0x234, 1, 0x205, 0) != 0,
        number(0x238, 4, 0x206, OLD_COMMAND_LINE_BYTES),
        number(0x258, 8, 0x20A, HIGH_START),
        number(0x260, 4, 0x20A, 0),
    )


def _boot(image: LinuxImage, memory_bytes: int, command_line: str) -> Boot:
    """The kernel, boot parameters, GDT, command line and initial RAM disk ("32-bit Boot Protocol")."""
    most = min(image.header.command_line_bytes, LOW_END - COMMAND_LINE_AT - 1)
    line = command_line_bytes(image.name, command_line, most)
    load_at = _load_address(image, memory_bytes)
    initrd_at = _initrd_address(image, load_at, memory_bytes)
    parameters = _parameters(image, memory_bytes, load_at, initrd_at, len(line))
    gdt = struct.pack("<4Q", 0, 0, FLAT_CODE_DESCRIPTOR, FLAT_DATA_DESCRIPTOR)
    writes = [*bios_data(), (PARAMETERS, parameters), (GDT_AT, gdt), (COMMAND_LINE_AT, line), (load_at, image.kernel)]
    if image.initrd:
        writes.append((initrd_at, image.initrd))
    return Boot(
        load_at,
        tuple(writes),
        {ESI: PARAMETERS},
        code_selector=BOOT_CODE,
        data_selector=BOOT_DATA,
        gdt=(GDT_AT, len(gdt) - 1),
    )


def _memory_needed(image: LinuxImage) -> int:
    """Bytes from the load address on that the kernel uses before it looks at the memory map."""
    return max(len(image.kernel), image.header.init_bytes)


def _load_address(image: LinuxImage, memory_bytes: int) -> int:
    """Where the kernel goes: its preferred address, or if it may be moved the lowest one that fits."""
    header, needed = image.header, _memory_needed(image)
    if header.preferred + needed <= memory_bytes:
        return header.preferred
    lowest = -(-HIGH_START // header.alignment) * header.alignment
    if header.relocatable and lowest + needed <= memory_bytes:
        return lowest
    end = (lowest if header.relocatable else header.preferred) + needed
    what = f"the kernel needs {-(-end >> 20)} MB of RAM to start, of {memory_bytes >> 20} MB"
    raise ImageError(image.name, what, f"give more memory (--memory {-(-end >> 20)}M at least)")


def _initrd_address(image: LinuxImage, load_at: int, memory_bytes: int) -> int:
    """The highest place for the initial RAM disk: page-aligned, below initrd_addr_max, above the kernel."""
    if not image.initrd:
        return 0
    top = min(image.header.initrd_highest + 1, memory_bytes)
    address = (top - len(image.initrd)) // PAGE_BYTES * PAGE_BYTES
    if address < load_at + _memory_needed(image):
        what = f"no room for an initial RAM disk of {len(image.initrd)} bytes below {top:#x}"
        raise ImageError(image.name, what, "give more memory (--memory) or a smaller --initrd")
    return address


def memory_map(memory_bytes: int) -> list[tuple[int, int, int]]:
    """The map that the BIOS call INT 15h, AX=E820h would give: start, length, type."""
    return [
        (0, LOW_END, E820_RAM),
        (LOW_END, 0xA0000 - LOW_END, E820_RESERVED),
        (0xF0000, 0x10000, E820_RESERVED),
        (HIGH_START, memory_bytes - HIGH_START, E820_RAM),
        (ADDRESS_SPACE - 0x40000, 0x40000, E820_RESERVED),
    ]


def _parameters(image: LinuxImage, memory_bytes: int, load_at: int, initrd_at: int, line_bytes: int) -> bytes:
    """Struct boot_params: zeros, the setup header as the file has it, then what the boot loader knows."""
    content, version = image.content, image.header.version
    parameters = bytearray(PARAMETERS_BYTES)
    header_end = HEADER_MAGIC_AT + content[0x201]
    parameters[HEADER_START:header_end] = content[HEADER_START:header_end]
    high_kb = (memory_bytes - HIGH_START) >> 10
    _text_screen(parameters, min(high_kb, LARGEST_EXTENDED_KB))
    struct.pack_into("<I", parameters, 0x1E0, high_kb)
    regions = [region for region in memory_map(memory_bytes) if region[1]]
    parameters[E820_COUNT_AT] = len(regions)
    for place, region in enumerate(regions):
        struct.pack_into("<QQI", parameters, E820_TABLE_AT + 20 * place, *region)
    parameters[0x210] = LOADER_UNDEFINED
    parameters[0x211] = parameters[0x211] & ~KEEP_SEGMENTS
    struct.pack_into("<I", parameters, 0x214, load_at)
    struct.pack_into("<II", parameters, 0x218, initrd_at, len(image.initrd))
    if version >= 0x202:
        struct.pack_into("<I", parameters, 0x228, COMMAND_LINE_AT)
    else:
        struct.pack_into("<HH", parameters, 0x20, OLD_COMMAND_LINE_MAGIC, COMMAND_LINE_AT - PARAMETERS)
        struct.pack_into("<H", parameters, 0x212, COMMAND_LINE_AT - PARAMETERS + line_bytes)
    return bytes(parameters)


def _text_screen(parameters: bytearray, extended_kb: int) -> None:
    """Struct screen_info: VGA text, 80 columns and 25 lines of 16 scan lines; and the memory above 1 MB."""
    struct.pack_into("<BBHHBBBBHHBBH", parameters, 0, 0, 0, extended_kb, 0, 3, 80, 0, 0, 3, 0, 25, 1, 16)


__all__ = ["EXTENDED_DATA_AREA", "LinuxImage", "SetupHeader", "is_linux", "memory_map", "parse_linux"]
