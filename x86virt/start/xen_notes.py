"""What a Xen PV kernel says of itself: ELF notes of the owner `Xen`, or the older text of a section `__xen_guest`.

Xen's public header elfnote.h; the older form as the domain builders of Xen 3 read it. Nothing is taken that was not checked.
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import ImageError, show

ELF_HEADER_BYTES = 52
PROGRAM_HEADER = struct.Struct("<8I")
SECTION_HEADER = struct.Struct("<10I")
NOTE = struct.Struct("<3I")
PT_NOTE, SHT_NOTE = 4, 7
OWNER = b"Xen\0"
OLD_SECTION = b"__xen_guest\0"
MAXIMUM_HEADERS = 4096
MAXIMUM_NOTES = 1024
PAGE_BYTES = 4096

NOTE_ENTRY, NOTE_HYPERCALL_PAGE, NOTE_VIRT_BASE, NOTE_PADDR_OFFSET = 1, 2, 3, 4
NOTE_XEN_VERSION, NOTE_GUEST_OS, NOTE_LOADER, NOTE_PAE_MODE, NOTE_FEATURES = 5, 6, 8, 9, 10
NUMBERS = {
    NOTE_ENTRY: "ENTRY",
    NOTE_HYPERCALL_PAGE: "HYPERCALL_PAGE",
    NOTE_VIRT_BASE: "VIRT_BASE",
    NOTE_PADDR_OFFSET: "PADDR_OFFSET",
}
TEXTS = {
    NOTE_XEN_VERSION: "XEN_VERSION",
    NOTE_GUEST_OS: "GUEST_OS",
    NOTE_LOADER: "LOADER",
    NOTE_PAE_MODE: "PAE_MODE",
    NOTE_FEATURES: "FEATURES",
}
ADVICE = "correct its ELF notes of the owner Xen"
OLD_ADVICE = "correct its section __xen_guest"


@dataclass(frozen=True)
class Notes:
    """Where a kernel wants to be, in linear addresses; `hypercall_page` None: it has none."""

    virt_base: int
    paddr_offset: int
    entry: int | None
    hypercall_page: int | None
    pae_mode: str
    guest_os: str
    features: tuple[str, ...]


def is_xen(content: bytes) -> bool:
    """Whether an ELF file says that it is a kernel for Xen."""
    return any(True for _ in xen_notes(content)) or old_text(content) is not None


def read_notes(content: bytes, where: object) -> Notes:
    """What the kernel says. Raises ImageError for anything that contradicts itself, or asks for what is not there."""
    old = old_text(content)
    if any(True for _ in xen_notes(content)):
        return from_notes(content, where)
    if old is None:
        raise ImageError(where, "no ELF notes of the owner Xen", "build it for Xen's paravirtual interface")
    return from_text(old, where)


# -- ELF notes ----------------------------------------------------------------------------------------------------------


def pieces(content: bytes) -> Iterator[tuple[int, int]]:
    """Offset and length of everything in the file that holds notes: segments, and sections where there are none."""
    if len(content) < ELF_HEADER_BYTES:
        return
    segments, sections = struct.unpack_from("<II", content, 28)
    _, segment_count, _, section_count, _ = struct.unpack_from("<5H", content, 42)
    found = [
        (header[1], header[4])
        for header in headers(content, PROGRAM_HEADER, segments, segment_count)
        if header[0] == PT_NOTE
    ]
    yield from found or [
        (header[4], header[5]) for header in headers(content, SECTION_HEADER, sections, section_count) if header[1] == SHT_NOTE
    ]


def headers(content: bytes, form: struct.Struct, first: int, count: int) -> Iterator[tuple[int, ...]]:
    """The headers of a table, as far as the file has them."""
    for number in range(min(count, MAXIMUM_HEADERS)):
        if first + (number + 1) * form.size <= len(content):
            yield form.unpack_from(content, first + number * form.size)


def xen_notes(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and description of each note of the owner Xen, among the first MAXIMUM_NOTES of all notes.

    A last description that is longer than what holds it (GRUB's is) is cut there.
    """
    count = 0
    for first, length in pieces(content):
        place, end = first, min(first + length, len(content))
        while place + NOTE.size <= end and count < MAXIMUM_NOTES:
            count += 1
            name_bytes, bytes_, kind = NOTE.unpack_from(content, place)
            name = place + NOTE.size
            description = name + aligned(name_bytes)
            place = description + aligned(bytes_)
            if description <= end and content[name : name + name_bytes] == OWNER:
                yield kind, content[description : min(description + bytes_, end)]


def aligned(count: int) -> int:
    """A length as it is padded in a note."""
    return count + 3 & ~3


def from_notes(content: bytes, where: object) -> Notes:
    """What the notes say; a later one of a type takes the place of an earlier one."""
    numbers: dict[str, int] = {}
    texts: dict[str, str] = {}
    for kind, description in xen_notes(content):
        if kind in NUMBERS:
            if len(description) not in (4, 8):
                raise ImageError(where, f"its note {NUMBERS[kind]} has {len(description)} bytes, not 4 or 8", ADVICE)
            numbers[NUMBERS[kind]] = int.from_bytes(description, "little")
        elif kind in TEXTS:
            texts[TEXTS[kind]] = description.split(b"\0")[0].decode("latin-1")
    return checked(numbers, texts, 0, where, ADVICE)


# -- the older text -----------------------------------------------------------------------------------------------------


def old_text(content: bytes) -> str | None:
    """The text of the section __xen_guest, None if there is none."""
    if len(content) < ELF_HEADER_BYTES:
        return None
    (table,) = struct.unpack_from("<I", content, 32)
    count, names = struct.unpack_from("<2H", content, 48)
    rows = list(headers(content, SECTION_HEADER, table, count))
    if names >= len(rows):
        return None
    for row in rows:
        name = rows[names][4] + row[0]
        if content[name : name + len(OLD_SECTION)] == OLD_SECTION:
            return content[row[4] : row[4] + row[5]].split(b"\0")[0].decode("latin-1")
    return None


def from_text(text: str, where: object) -> Notes:
    """What the text says: KEY=value, KEY=value, ..."""
    parts = (part.partition("=") for part in text.split(","))
    values = {key.strip(): value.strip() for key, separator, value in parts if separator}
    numbers: dict[str, int] = {}
    for key, name in (("VIRT_BASE", "VIRT_BASE"), ("ELF_PADDR_OFFSET", "PADDR_OFFSET"), ("VIRT_ENTRY", "ENTRY")):
        if key in values:
            numbers[name] = number_of(values[key], key, where)
    base = numbers.get("VIRT_BASE", 0)
    if "HYPERCALL_PAGE" in values:  # a page's number, from the base on
        numbers["HYPERCALL_PAGE"] = base + PAGE_BYTES * number_of(values["HYPERCALL_PAGE"], "HYPERCALL_PAGE", where)
    texts = {"PAE_MODE": values.get("PAE", "no"), "GUEST_OS": values.get("GUEST_OS", ""), "LOADER": values.get("LOADER", "")}
    texts["XEN_VERSION"] = values.get("XEN_VER", "")
    texts["FEATURES"] = values.get("FEATURES", "")
    return checked(numbers, texts, base, where, OLD_ADVICE)


def number_of(text: str, key: str, where: object) -> int:
    """A number as the older text has it: decimal or, with 0x, hexadecimal."""
    try:
        return int(text, 0)
    except ValueError:
        raise ImageError(where, f"its section __xen_guest says {show(f'{key}={text}')}, no number", OLD_ADVICE) from None


# -- both -----------------------------------------------------------------------------------------------------------------


def checked(numbers: Mapping[str, int], texts: Mapping[str, str], paddr_offset: int, where: object, advice: str) -> Notes:
    """The notes with what they leave out. Raises ImageError."""
    for name, value in numbers.items():
        if not 0 <= value < 1 << 32:
            raise ImageError(where, f"its {name} {value:#x} is no 32-bit address", advice)
    version = texts.get("XEN_VERSION", "")
    if version and version != "xen-3.0":
        raise ImageError(where, f"made for the interface {show(version)}, not for xen-3.0", "build it for Xen 3.0 or later")
    base = numbers.get("VIRT_BASE", 0)
    if base % PAGE_BYTES:
        raise ImageError(where, f"its VIRT_BASE {base:#x} is not at a page", advice)
    page = numbers.get("HYPERCALL_PAGE")
    if page is not None and page % PAGE_BYTES:
        raise ImageError(where, f"its HYPERCALL_PAGE {page:#x} is not at a page", advice)
    features = tuple(word for word in texts.get("FEATURES", "").split("|") if word)
    return Notes(
        base, numbers.get("PADDR_OFFSET", paddr_offset), numbers.get("ENTRY"), page,
        texts.get("PAE_MODE", "no"), texts.get("GUEST_OS", ""), features,
    )  # fmt: skip
