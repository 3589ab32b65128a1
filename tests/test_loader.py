"""The loader: what it hands over, and that no bytes make it do anything but load or say in one line why not."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from x86virt.errors import GuestError, ImageError
from x86virt.guests import find_guest, guests
from x86virt.isa.registers import EAX, EBX
from x86virt.start.elf import ELF_HEADER, PROGRAM_HEADER, Segment
from x86virt.start.multiboot import (
    HEADER_MAGIC,
    LOADER_MAGIC,
    MAXIMUM_COMMAND_LINE_BYTES,
    Image,
    load_image,
    parse_image,
    prepare_boot,
)
from x86virt.start.multiboot_info import INFO_COMMAND_LINE, INFO_MEMORY, INFO_MEMORY_MAP

MEGABYTE = 1 << 20
HELLO = guests()["hello"].path.read_bytes()
LOAD_ADDRESS = 0x100000


def multiboot_header(flags: int = 3) -> bytes:
    return struct.pack("<III", HEADER_MAGIC, flags, -(HEADER_MAGIC + flags) & 0xFFFFFFFF)


def make_elf(
    content: bytes = multiboot_header() + b"\xf4",
    physical: int = LOAD_ADDRESS,
    linear: int | None = None,
    entry: int | None = None,
    file_bytes: int | None = None,
    memory_bytes: int | None = None,
    copies: int = 1,
    **header: int,
) -> bytes:
    """An ELF32 executable with one segment (or `copies` of it); `header` replaces fields of the ELF header."""
    linear = physical if linear is None else linear
    offset = ELF_HEADER.size + copies * PROGRAM_HEADER.size
    size = len(content) if file_bytes is None else file_bytes
    fields = {"kind": 2, "machine": 3, "version": 1, "table": ELF_HEADER.size, "number": copies, "entry_bytes": 32}
    fields |= header
    identification = bytes([0x7F, *b"ELF", header.get("elf_class", 1), header.get("order", 1), 1]) + bytes(9)
    head = ELF_HEADER.pack(
        identification, fields["kind"], fields["machine"], fields["version"],
        linear + 12 if entry is None else entry, fields["table"], 0, 0,
        ELF_HEADER.size, fields["entry_bytes"], fields["number"], 40, 0, 0,
    )  # fmt: skip
    program = PROGRAM_HEADER.pack(1, offset, linear, physical, size, memory_bytes or max(size, 4096), 7, 4096)
    return head + program * copies + content


def refusal(content: bytes) -> str:
    """The one line with which an image is refused."""
    with pytest.raises(ImageError) as caught:
        parse_image(content, "mine", "mine.elf")
    text = str(caught.value)
    assert text.startswith("mine.elf: ") and "; " in text and "\n" not in text
    return text


def test_an_image_as_the_specification_wants_it_loads() -> None:
    image = parse_image(make_elf(), "mine")
    assert image.entry == LOAD_ADDRESS + 12
    assert image.segments == (Segment(LOAD_ADDRESS, multiboot_header() + b"\xf4", 4096),)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x7fELF", "truncated"),
        (b"#!/bin/sh\n", "not an ELF file"),
        (make_elf(elf_class=2), "not a 32-bit ELF file"),
        (make_elf(order=2), "not a little-endian"),
        (make_elf(machine=62), "machine 62"),
        (make_elf(kind=1), "not an executable"),
        (make_elf(version=7), "unknown ELF version 7"),
        (make_elf(number=0), "no program headers"),
        (make_elf(number=0xFFFF), "65535 program headers"),
        (make_elf(entry_bytes=31), "program headers of 31 bytes"),
        (make_elf(table=0xFFFFFF00), "truncated: the program headers"),
        (make_elf()[:-4], "truncated: the segment"),
        (make_elf(file_bytes=5000, memory_bytes=4096), "larger in the file than in memory"),
        (make_elf(physical=0xFFFFF000, linear=0, memory_bytes=0x2000), "behind 4 GB"),
        (make_elf(copies=2), "overlap"),
        (make_elf(entry=0x5), "entry point 0x5 lies in no segment"),
        (make_elf(entry=LOAD_ADDRESS + 4096), "lies in no segment"),
        (make_elf(b"\xf4" * 64), "no Multiboot header"),
        (make_elf(b"\xf4" * 8192 + multiboot_header()), "no Multiboot header"),
        (make_elf(b"\xf4" * 2 + multiboot_header()), "no Multiboot header"),
        (make_elf(struct.pack("<III", HEADER_MAGIC, 3, 0) + b"\xf4"), "no Multiboot header"),
        (make_elf(multiboot_header(4) + b"\xf4"), "graphics mode"),
        (make_elf(multiboot_header(1 << 7) + b"\xf4"), "flags 0x80"),
        (make_elf(multiboot_header(1 << 16) + bytes(7)), "lacks its address fields"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_malformed_image_is_refused_in_one_line(content: bytes, words: str) -> None:
    assert words in refusal(content)


def test_the_entry_point_is_found_in_the_segment_that_it_is_linked_in() -> None:
    image = parse_image(make_elf(linear=0xC0100000, entry=0xC010000C), "mine")
    assert image.entry == LOAD_ADDRESS + 12


def test_missing_empty_and_irregular_files(tmp_path: Path) -> None:
    empty = tmp_path / "empty.elf"
    empty.touch()
    for path, words in ((tmp_path / "none.elf", "no such file"), (tmp_path, "not a regular file"), (empty, "empty")):
        with pytest.raises(ImageError, match=words):
            load_image(path)


def test_guests_are_found_by_name_and_by_path(tmp_path: Path) -> None:
    path = tmp_path / "copy.elf"
    path.write_bytes(HELLO)
    assert find_guest(str(path)).sha256 == find_guest("hello").sha256 == guests()["hello"].sha256
    with pytest.raises(GuestError, match="did you mean hello"):
        find_guest("helo")


def test_symbols_are_linear_addresses_of_code_and_data() -> None:
    symbols = find_guest("hello").symbols
    assert symbols["_start"] == find_guest("hello").entry
    assert symbols["guest_main"] > LOAD_ADDRESS
    assert "PAGE" not in symbols, "absolute symbols are numbers, not places"
    assert not any(name.startswith("..@") for name in symbols)


def read_string(memory: bytes, address: int) -> str:
    return memory[address : memory.index(b"\0", address)].decode()


def placed(image: Image, memory_bytes: int, command_line: str) -> tuple[int, bytes]:
    """EBX and the memory that a guest finds."""
    boot = prepare_boot(image, memory_bytes, command_line)
    assert boot.registers[EAX] == LOADER_MAGIC
    memory = bytearray(memory_bytes)
    for address, octets in boot.writes:
        memory[address : address + len(octets)] = octets
    return boot.registers[EBX], bytes(memory)


def test_the_information_structure_says_what_the_specification_says() -> None:
    info, memory = placed(find_guest("hello"), 16 * MEGABYTE, "iterations=7 quiet")
    word = struct.unpack_from("<29I", memory, info)
    assert word[0] & (INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP) == 0x45
    assert (word[1], word[2]) == (639, 15 * 1024), "KB below 640 KB and above 1 MB"
    assert read_string(memory, word[4]) == "iterations=7 quiet"
    assert read_string(memory, word[16]) == "x86virt"
    ranges = []
    at = word[12]
    while at < word[12] + word[11]:
        size, start, length, kind = struct.unpack_from("<IQQI", memory, at)
        ranges.append((start, start + length, kind))
        at += size + 4
    assert ranges == [(0, 0x9FC00, 1), (0x9FC00, MEGABYTE, 2), (MEGABYTE, 16 * MEGABYTE, 1)]


@pytest.mark.parametrize("physical", [0x1000, 0x9000, 0x9F000, 0x100000, 0x1FF000])
def test_the_information_structure_never_lies_on_the_kernel(physical: int) -> None:
    image = parse_image(make_elf(physical=physical), "mine")
    info, memory = placed(image, 2 * MEGABYTE, "x")
    assert info + 300 <= physical or info >= physical + 4096
    assert memory[physical : physical + 12] == multiboot_header()


def test_a_segment_outside_of_ram_is_refused() -> None:
    with pytest.raises(ImageError, match="lies outside RAM"):
        prepare_boot(parse_image(make_elf(physical=0x40000000), "mine"), 16 * MEGABYTE)
    with pytest.raises(ImageError, match="lies outside RAM"):
        prepare_boot(parse_image(make_elf(physical=16 * MEGABYTE - 4095), "mine"), 16 * MEGABYTE)
    prepare_boot(parse_image(make_elf(physical=16 * MEGABYTE - 4096), "mine"), 16 * MEGABYTE)


def test_a_kernel_that_leaves_no_room_is_refused() -> None:
    image = parse_image(make_elf(physical=0, entry=12, memory_bytes=MEGABYTE), "mine")
    with pytest.raises(ImageError, match="no room"):
        prepare_boot(image, MEGABYTE)


@pytest.mark.parametrize("line", ["a\0b", "x" * (MAXIMUM_COMMAND_LINE_BYTES + 1)])
def test_a_command_line_that_cannot_be_handed_over_is_refused(line: str) -> None:
    with pytest.raises(ImageError, match="command line"):
        prepare_boot(find_guest("hello"), 16 * MEGABYTE, line)


def load_or_refuse(content: bytes) -> bool:
    """Whether it loads; anything but an image that fits or one line fails the test."""
    try:
        image = parse_image(content, "mine", "mine.elf")
        boot = prepare_boot(image, 16 * MEGABYTE, "iterations=1")
    except ImageError as error:
        assert "\n" not in str(error)
        return False
    assert all(0 <= address and address + len(octets) <= 16 * MEGABYTE for address, octets in boot.writes)
    assert any(segment.address <= boot.entry < segment.end for segment in image.segments)
    return True


@given(st.binary(max_size=400))
def test_random_bytes_are_refused(content: bytes) -> None:
    assert not load_or_refuse(content)


@given(st.binary(max_size=200))
def test_random_bytes_behind_a_good_start_are_loaded_or_refused(content: bytes) -> None:
    load_or_refuse(HELLO[: ELF_HEADER.size] + content)


mutations = st.lists(st.tuples(st.integers(0, len(HELLO) - 1), st.integers(0, 255)), min_size=1, max_size=8)
header_mutations = st.lists(st.tuples(st.integers(0, 51 + 5 * 32), st.integers(0, 255)), min_size=1, max_size=4)


@given(mutations | header_mutations, st.integers(0, len(HELLO)))
def test_mutated_images_are_loaded_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(HELLO)
    for place, value in changes:
        content[place] = value
    load_or_refuse(bytes(content))
    load_or_refuse(bytes(content[:cut]))


@given(st.integers(0, 12), st.integers(0, 0xFFFFFFFF))
def test_any_word_of_the_section_headers_may_be_wrong(word: int, value: int) -> None:
    """Symbols serve reading only: damage there never keeps an image from loading, or takes long."""
    content = bytearray(HELLO)
    sections = struct.unpack_from("<I", HELLO, 32)[0]
    number = struct.unpack_from("<H", HELLO, 48)[0]
    for section in range(number):
        struct.pack_into("<I", content, sections + 40 * section + 4 * min(word, 9), value)
    load_or_refuse(bytes(content))
