"""Every way of starting: what each kind of file is taken for, what it finds in RAM and registers, and every bad input."""

import itertools
import struct
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_refused, kernel
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_guests import assembled

from x86virt.api import is_pc, make_setup
from x86virt.errors import ImageError
from x86virt.guests import find_guest, open_guest
from x86virt.isa.registers import CS, DS, EAX, EBX, ESI, ESP, SS
from x86virt.start.boot import PROTECTED, REAL, RESET
from x86virt.start.firmware import FirmwareImage, parse_firmware
from x86virt.start.flat import FlatImage, parse_flat
from x86virt.start.linux import LinuxImage, parse_linux
from x86virt.start.multiboot import HEADER_MAGIC, Image, Module, parse_image, with_modules
from x86virt.start.recognise import StartOptions, open_start

FEW = settings(deadline=None, max_examples=60)
MEGABYTE = 1 << 20
SETUP_SECTORS = 2
PAYLOAD = bytes(range(256)) * 8


def bzimage(payload: bytes = PAYLOAD, version: int = 0x20C, **fields: int) -> bytes:
    """A Linux kernel as its boot protocol describes one; `fields` replaces values of the header."""
    values = {
        "sectors": SETUP_SECTORS, "loadflags": 1, "initrd_max": 0x7FFFFFFF, "alignment": 0x100000, "relocatable": 1,
        "line_max": 2047, "preferred": 0x1000000, "init_size": 0x200000,
    } | fields  # fmt: skip
    head = bytearray(512 * (1 + (values["sectors"] or 4)))
    head[0x1F1] = values["sectors"]
    struct.pack_into("<H", head, 0x1FE, 0xAA55)
    head[0x200:0x202] = b"\xeb\x66"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    head[0x211] = values["loadflags"]
    struct.pack_into("<I", head, 0x22C, values["initrd_max"])
    struct.pack_into("<IB", head, 0x230, values["alignment"], values["relocatable"])
    struct.pack_into("<I", head, 0x238, values["line_max"])
    struct.pack_into("<QI", head, 0x258, values["preferred"], values["init_size"])
    return bytes(head) + payload


def placed(boot: Any, memory_bytes: int) -> bytes:
    """RAM as the guest finds it."""
    memory = bytearray(memory_bytes)
    for address, octets in boot.writes:
        assert 0 <= address and address + len(octets) <= memory_bytes
        memory[address : address + len(octets)] = octets
    return bytes(memory)


def refused(*arguments: Any, words: str) -> None:
    """A bzImage that is refused in one line."""
    with pytest.raises(ImageError, match=words) as caught:
        parse_linux(*arguments, "kernel", "vmlinuz")
    assert len(str(caught.value).splitlines()) == 1


# -- Linux ------------------------------------------------------------------------------------------------------------


def test_a_kernel_finds_what_the_boot_protocol_promises() -> None:
    """Read back by offsets of Documentation/arch/x86/zero-page.rst."""
    initrd = b"initial" * 1000
    image = parse_linux(bzimage(), "kernel", initrd=initrd)
    boot = image.boot(64 * MEGABYTE, "console=ttyS0 quiet")
    memory = placed(boot, 64 * MEGABYTE)
    assert boot.mode == PROTECTED and boot.entry == 0x1000000
    assert memory[boot.entry : boot.entry + len(PAYLOAD)] == PAYLOAD
    page = boot.registers[ESI]
    assert set(boot.registers) == {ESI}
    assert memory[page + 0x202 : page + 0x206] == b"HdrS"
    assert (memory[page + 0x1F1], memory[page + 0x210]) == (SETUP_SECTORS, 0xFF)
    line = struct.unpack_from("<I", memory, page + 0x228)[0]
    assert memory[line : memory.index(b"\0", line)] == b"console=ttyS0 quiet"
    at, length = struct.unpack_from("<II", memory, page + 0x218)
    assert memory[at : at + length] == initrd and at % 4096 == 0 and at + length <= 64 * MEGABYTE
    assert 64 * MEGABYTE - (at + length) < 4096
    regions = [struct.unpack_from("<QQI", memory, page + 0x2D0 + 20 * number) for number in range(memory[page + 0x1E8])]
    usable = [(start, start + length) for start, length, kind in regions if kind == 1]
    assert usable == [(0, 0x9FC00), (MEGABYTE, 64 * MEGABYTE)]
    assert all(start + length <= after for (start, length, _), (after, _, _) in itertools.pairwise(regions))
    assert struct.unpack_from("<H", memory, page + 2)[0] == 63 * 1024, "KB above 1 MB"
    assert struct.unpack_from("<I", memory, page + 0x1E0)[0] == 63 * 1024
    mode, columns, lines, colour, points = (memory[page + offset] for offset in (6, 7, 14, 15, 16))
    assert (mode, columns, lines, colour, points) == (3, 80, 25, 1, 16)
    base, limit = boot.gdt
    descriptors = [struct.unpack_from("<Q", memory, base + selector)[0] for selector in (0x10, 0x18)]
    assert limit >= 0x1F and (boot.code_selector, boot.data_selector) == (0x10, 0x18)
    for descriptor, kind in zip(descriptors, (0xA, 0x2), strict=True):
        limit_field = descriptor & 0xFFFF | descriptor >> 32 & 0xF0000
        assert limit_field == 0xFFFFF and descriptor >> 55 & 1, "4 GB"
        assert descriptor >> 16 & 0xFFFFFF == 0 and descriptor >> 56 == 0, "from 0"
        assert descriptor >> 40 & 0xE == kind and descriptor >> 47 & 1 and descriptor >> 44 & 1
    pieces = sorted((address, address + len(octets)) for address, octets in boot.writes)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(pieces)), "nothing lies on another"


def test_where_a_kernel_goes() -> None:
    def entry(memory: int, version: int = 0x20C, **fields: int) -> int:
        return parse_linux(bzimage(version=version, **fields), "kernel").boot(memory * MEGABYTE).entry

    assert entry(64) == 0x1000000, "its preferred address"
    assert entry(16) == 0x100000, "moved, for want of memory"
    assert entry(16, alignment=0x400000) == 0x400000, "to a multiple of its alignment"
    assert entry(64, version=0x204) == 0x100000, "before 2.05 nothing but 1 MB is known"
    assert entry(64, version=0x209) == 0x100000
    for fields in ({"relocatable": 0}, {"init_size": 15 * MEGABYTE + 1}):
        image = parse_linux(bzimage(**fields), "kernel", "vmlinuz")
        with pytest.raises(ImageError, match="give more memory"):
            image.boot(16 * MEGABYTE)


def test_an_old_kernel_finds_its_command_line_the_old_way() -> None:
    boot = parse_linux(bzimage(version=0x201), "kernel").boot(16 * MEGABYTE, "root=/dev/fd0")
    memory, page = placed(boot, 16 * MEGABYTE), boot.registers[ESI]
    magic, offset = struct.unpack_from("<HH", memory, page + 0x20)
    assert (page, magic) == (0x90000, 0xA33F)
    assert memory[page + offset :].startswith(b"root=/dev/fd0\0")


def test_an_initial_ram_disk_stays_below_its_limit() -> None:
    for version, limit, fields in ((0x20C, 0x2000000, {"initrd_max": 0x1FFFFFF}), (0x202, 0x38000000, {})):
        boot = parse_linux(bzimage(version=version, **fields), "kernel", initrd=b"x" * 5000).boot(1 << 30)
        address = max(address for address, octets in boot.writes if octets == b"x" * 5000)
        assert limit - 4096 < address + 5000 <= limit
    image = parse_linux(bzimage(), "kernel", "vmlinuz", bytes(8 * MEGABYTE))
    with pytest.raises(ImageError, match="no room for an initial RAM disk"):
        image.boot(8 * MEGABYTE)


def test_bad_kernels() -> None:
    refused(b"MZ" + bytes(2000), words="no 'HdrS'")
    refused(bzimage(version=0x1FF), words="boot protocol 1.255")
    refused(bzimage(loadflags=0), words="a zImage")
    refused(bzimage(payload=b""), words="truncated")
    refused(bzimage(sectors=64)[:3000], words="truncated")
    refused(bzimage()[:0x206], words="truncated|boot protocol")
    refused(bzimage(alignment=0x30000), words="not a power of two")
    image = parse_linux(bzimage(line_max=10), "kernel")
    for line in ("x" * 11, "a\0b"):
        with pytest.raises(ImageError, match="command line"):
            image.boot(64 * MEGABYTE, line)


@FEW
@given(st.binary(min_size=0x20, max_size=0x80), st.integers(0x1E0, 0x270), st.sampled_from([1, 2, 16, 64, 512]))
def test_damaged_headers_load_within_ram_or_are_refused(noise: bytes, offset: int, megabytes: int) -> None:
    content = bytearray(bzimage())
    content[offset : offset + len(noise)] = noise
    try:
        boot = open_kernel(bytes(content)).boot(megabytes * MEGABYTE, "x")
    except ImageError as error:
        assert len(str(error).splitlines()) == 1
        return
    for address, octets in boot.writes:
        assert 0 <= address and address + len(octets) <= megabytes * MEGABYTE


def open_kernel(content: bytes) -> LinuxImage:
    return parse_linux(content, "kernel", "vmlinuz", b"disk")


TINY_KERNEL = """
        bits    32
        mov     eax, 0x18               ; reload DS from the loader's GDT
        mov     ds, eax
        cmp     dword [esi + 0x202], 'HdrS'
        jne     bad
        mov     ebx, [esi + 0x228]      ; the command line goes to the console
next:   mov     al, [ebx]
        inc     ebx
        test    al, al
        jz      good
        out     0xE9, al
        jmp     next
bad:    mov     al, 1
good:   out     0xF4, al
        mov     esp, 0x80000
        call    here
here:   pop     ebx
        add     ebx, word_ - here
        mov     dx, 0x8900
shut:   mov     al, [ebx]
        inc     ebx
        out     dx, al
        test    al, al
        jnz     shut
        hlt
word_:  db      "Shutdown", 0
"""


@pytest.mark.parametrize("strategy", ["native", "trap-and-emulate"])
def test_a_linux_kernel_of_a_few_bytes_runs(x86virt: Any, tmp_path: Path, strategy: str) -> None:
    path = tmp_path / "vmlinuz"
    path.write_bytes(bzimage(assembled(TINY_KERNEL)))
    answer = x86virt("run", str(path), "--append", "hello=world", "-s", strategy, "--json", "-")
    run = answer.json()
    assert (answer.status, run["outcome"], run["exit_code"], run["console"]) == (0, "halted", 0, "hello=world")


# -- Multiboot --------------------------------------------------------------------------------------------------------


def flat_multiboot(code: bytes, load: int = 0x200000, offset: int = 32, **fields: int) -> bytes:
    """A flat image whose Multiboot header has address fields."""
    flags = fields.get("flags", 1 << 16)
    header = struct.pack("<III", HEADER_MAGIC, flags, -(HEADER_MAGIC + flags) & 0xFFFFFFFF)
    values = {"header": load + offset, "load": load, "load_end": 0, "bss_end": 0, "entry": load + offset + 48} | fields
    header += struct.pack("<5I", *(values[name] for name in ("header", "load", "load_end", "bss_end", "entry")))
    return bytes(offset) + header.ljust(48, b"\0") + code


def test_a_flat_multiboot_kernel_goes_where_its_header_says() -> None:
    content = flat_multiboot(b"\xf4" * 100)
    image = parse_image(content, "flat")
    assert image.entry == 0x200000 + 80
    assert [(segment.address, segment.content) for segment in image.segments] == [(0x200000, content)]
    image = parse_image(b"junk" * 4 + flat_multiboot(b"\xf4" * 100, load_end=0x200000 + 90, bss_end=0x201000), "flat")
    (segment,) = image.segments
    assert (segment.address, len(segment.content), segment.memory_bytes) == (0x200000, 90, 0x1000)
    assert segment.content == flat_multiboot(b"\xf4" * 100, load_end=0x200000 + 90, bss_end=0x201000)[:90]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"header": 0x1FFFFF}, "outside of what is loaded"),
        ({"header": 0x200100}, "outside of what is loaded"),
        ({"load_end": 0x200400}, "does not fit a file"),
        ({"load_end": 0x1FFFFF}, "does not fit a file"),
        ({"entry": 0x1000}, "lies in no segment"),
        ({"bss_end": 0xFFFFFFFF, "load": 0x200000, "entry": 0xFFFFFFFE, "flags": 1 << 16 | 1 << 9}, "flags"),
        ({"flags": 1 << 16 | 4}, "graphics mode"),
    ],
)
def test_bad_address_fields(fields: dict[str, int], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        parse_image(flat_multiboot(b"\xf4" * 100, **fields), "flat", "flat.bin")


def test_a_kernel_may_ask_for_text_mode() -> None:
    content = bytearray(flat_multiboot(b"\xf4" * 100, flags=1 << 16 | 4))
    struct.pack_into("<I", content, 32 + 32, 1)
    assert parse_image(bytes(content), "flat").flags == 1 << 16 | 4


@FEW
@given(st.binary(max_size=200), st.tuples(*[st.integers(0, 0xFFFFFFFF)] * 5))
def test_any_address_fields_load_within_ram_or_are_refused(noise: bytes, values: tuple[int, ...]) -> None:
    names = ("header", "load", "load_end", "bss_end", "entry")
    content = flat_multiboot(noise, **dict(zip(names, values, strict=True)))
    try:
        boot = parse_image(content, "flat").boot(16 * MEGABYTE)
    except ImageError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert all(0 <= at and at + len(octets) <= 16 * MEGABYTE for at, octets in boot.writes)


def test_modules_are_found_from_the_information_structure() -> None:
    files = [Module("first.cpio", b"1" * 5000), Module("dir/second", b"2"), Module("empty tail", b"3" * 4096)]
    image = with_modules(find_guest("hello"), files)  # type: ignore[arg-type]
    assert image.sha256 != find_guest("hello").sha256
    boot = image.boot(16 * MEGABYTE, "line")
    memory = placed(boot, 16 * MEGABYTE)
    info = boot.registers[EBX]
    flags, count, at = struct.unpack_from("<I", memory, info)[0], *struct.unpack_from("<II", memory, info + 20)
    assert flags & 8 and count == 3
    last = max(segment.end for segment in image.segments)
    for number, module in enumerate(files):
        start, end, text, reserved = struct.unpack_from("<4I", memory, at + 16 * number)
        assert memory[start:end] == module.content and start % 4096 == 0 and start >= max(last, MEGABYTE) and reserved == 0
        assert memory[text : memory.index(b"\0", text)] == module.text.encode()
        last = end
    assert struct.unpack_from("<I", placed(find_guest("hello").boot(16 * MEGABYTE, ""), 16 * MEGABYTE), info)[0] & 8 == 0
    with pytest.raises(ImageError, match="no room in RAM for the module"):
        image.boot(MEGABYTE + 65536)


# -- flat binaries and firmware ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "mode", "selector", "offset"),
    [(0x7C00, REAL, 0, 0x7C00), (0x1234, REAL, 0, 0x1234), (0x23456, REAL, 0x2000, 0x3456), (0x90000, REAL, 0x9000, 0)],
)
def test_a_flat_binary_in_real_mode(address: int, mode: str, selector: int, offset: int) -> None:
    image = parse_flat(b"\xf4", "flat", address)
    machine = make_setup(memory_bytes=2 * MEGABYTE).load(image)
    cpu = machine.processor.cpu
    assert image.mode == mode
    assert (int(cpu.seg[CS].selector), int(cpu.rip)) == (selector, offset)
    assert int(cpu.seg[CS].seg_base) + int(cpu.rip) == address
    assert int(cpu.cr0) & 1 == 0 and int(cpu.gpr[ESP]) == 0x7C00
    assert int(cpu.seg[SS].seg_base) == int(cpu.seg[DS].seg_base) == 0
    assert machine.read_guest(address, 1) == b"\xf4"
    assert machine.read_guest(0x413, 2) == (639).to_bytes(2, "little"), "the BIOS data area says how much memory there is"


def test_a_flat_binary_in_protected_mode() -> None:
    for address, mode in ((0x100000, None), (0x8000, PROTECTED)):
        machine = make_setup(memory_bytes=2 * MEGABYTE).load(parse_flat(b"\xf4", "flat", address, mode))
        cpu = machine.processor.cpu
        assert int(cpu.rip) == address and int(cpu.cr0) & 1 == 1 and int(cpu.seg[CS].limit) == 0xFFFFFFFF
        assert (int(cpu.gpr[EAX]), int(cpu.gpr[EBX])) == (0, 0)


def test_flat_binaries_that_do_not_fit() -> None:
    for address, length, mode, words in (
        (0x90000, 0x10000, None, "do not fit below"),
        (0x200000, 16, REAL, "do not fit below"),
        (0xFFFFFFFF, 2, None, "behind 4 GB"),
    ):
        with pytest.raises(ImageError, match=words):
            parse_flat(bytes(length), "flat", address, mode)
    with pytest.raises(ImageError, match="outside of RAM"):
        parse_flat(b"\xf4", "flat", 0x200000).boot(2 * MEGABYTE)
    with pytest.raises(ImageError, match="command line"):
        parse_flat(b"\xf4", "flat", 0x7C00).boot(2 * MEGABYTE, "words")


RESET_VECTOR = bytes(65536 - 16) + b"\xea\x5b\xe0\x00\xf0".ljust(16, b"\0")


@pytest.mark.parametrize("length", [0, 1, 65535, 65537, 3 << 15, (16 << 20) + 65536])
def test_bios_images_of_a_wrong_size(length: int) -> None:
    with pytest.raises(ImageError, match="give one of 64 KB, or a multiple of it, up to 16 MB"):
        parse_firmware(bytes(length), b"", "bios")


def test_option_roms_that_are_none() -> None:
    for rom in (b"\x55\xaa" + bytes(65536), b"MZ" + bytes(100)):
        with pytest.raises(ImageError, match="not an option ROM"):
            parse_firmware(RESET_VECTOR, rom, "bios", "bios.bin", "vga.bin")
    image = parse_firmware(RESET_VECTOR, b"\x55\xaa" + bytes(510), "bios")
    boot = image.boot(MEGABYTE)
    assert (boot.mode, boot.firmware, boot.writes) == (RESET, RESET_VECTOR, ())
    with pytest.raises(ImageError, match="takes no command line"):
        image.boot(MEGABYTE, "words")


# -- files ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    contents = {
        "kernel.elf": Path(kernel(tmp_path / "made.elf", b"\xf4")).read_bytes(),
        "flat.bin": flat_multiboot(b"\xf4" * 100),
        "vmlinuz": bzimage(),
        "disk.img": bytes(510) + b"\x55\xaa" + bytes(1 << 20),
        "own.rom": RESET_VECTOR,
        "notes.txt": b"nothing of the kind\n" * 100,
        "initrd": b"x" * 100,
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    return {name: tmp_path / name for name in contents}


def test_a_file_is_taken_for_what_it_is(files: dict[str, Path]) -> None:
    for name, kind, disk in (
        ("kernel.elf", Image, False), ("flat.bin", Image, False), ("vmlinuz", LinuxImage, False),
        ("disk.img", FirmwareImage, True), ("own.rom", FirmwareImage, False),
    ):  # fmt: skip
        opened = open_guest(str(files[name]))
        assert isinstance(opened.bootable, kind), name
        assert opened.bootable.name == files[name].stem
        assert (opened.disk == str(files[name])) is disk
        assert is_pc(opened.bootable) is (kind in (LinuxImage, FirmwareImage))
    flat = open_guest(str(files["vmlinuz"]), StartOptions(at=0x10000)).bootable
    assert isinstance(flat, FlatImage) and flat.content == bzimage()
    assert isinstance(open_guest(None).bootable, FirmwareImage)
    linux = open_start(files["vmlinuz"], StartOptions(initrd=(files["initrd"], files["own.rom"]))).bootable
    assert isinstance(linux, LinuxImage) and linux.initrd == b"x" * 100 + RESET_VECTOR
    multiboot = open_start(files["kernel.elf"], StartOptions(initrd=(files["initrd"],))).bootable
    assert isinstance(multiboot, Image) and multiboot.modules == (Module(str(files["initrd"]), b"x" * 100),)


def test_files_and_options_that_do_not_go_together(x86virt: Any, files: dict[str, Path], tmp_path: Path) -> None:
    empty = tmp_path / "empty.img"
    empty.touch()
    path = {name: str(file) for name, file in files.items()}
    for arguments, words in (
        ((path["notes.txt"],), ("looked for", "Multiboot", "HdrS", "55 AA", "BIOS image", "--at")),
        ((str(empty),), ("empty",)),
        ((str(tmp_path / "none.img"),), ("no such file",)),
        ((path["kernel.elf"], "--bios", path["own.rom"]), ("--bios does not go with it",)),
        ((path["disk.img"], "--initrd", path["initrd"]), ("--initrd does not go with it",)),
        ((path["disk.img"], "--append", "x"), ("takes no command line",)),
        ((path["vmlinuz"], "--vga-bios", path["own.rom"]), ("--vga-bios does not go with it",)),
        ((path["vmlinuz"], "--entry", "real"), ("--entry does not go with it",)),
        ((path["vmlinuz"], "--initrd", str(tmp_path / "none")), ("no such file", "initial RAM disk")),
        ((path["kernel.elf"], "--initrd", str(empty)), ("empty", "module")),
        ((path["disk.img"], "--bios", path["initrd"]), ("BIOS image of 100 bytes", "64 KB")),
        ((path["disk.img"], "--bios", str(tmp_path / "none")), ("no such file",)),
        ((path["disk.img"], "--vga-bios", path["own.rom"]), ("not an option ROM",)),
        (("--disk", str(empty)), ("empty",)),
        (("--disk", str(tmp_path)), (str(tmp_path.name),)),
        (("hello", "--disk", str(tmp_path / "none")), ("none",)),
        ((path["vmlinuz"], "--memory", "2M"), ("needs", "--memory")),
        ((path["notes.txt"], "--at", "0x100000000"), ("behind 4 GB",)),
        ((path["notes.txt"], "--at", "seven"), ("'seven' is not an address",)),
        (("hello", "--rtc", "tomorrow"), ("'tomorrow' is not a date",)),
        (("hello", "--rtc", "1855-11-05"), ("out of range",)),
        (("--disk-write",), ("give a GUEST, a --disk, a --bios",)),
        ((*["--disk", path["disk.img"]] * 5,), ("fifth disk",)),
    ):
        assert_refused(x86virt("run", *arguments), *words)
    assert_refused(x86virt("compare", path["disk.img"]), "boot disk")
