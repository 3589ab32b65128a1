"""What kind of start a file is, and the start that a user's options ask for."""

import os
import pathlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..errors import ImageError
from .boot import Bootable
from .elf import ELF_MAGIC
from .files import read_start_file
from .firmware import looks_like_bios, open_firmware, parse_firmware
from .flat import parse_flat
from .linux import is_linux, parse_linux
from .multiboot import Image, Module, find_header, parse_image, with_modules
from .xen import parse_xen
from .xen_notes import is_xen

Path = str | os.PathLike[str]

WANTED = "a kernel image, a disk image, or the name of a guest"
HEAD_BYTES = 1024
SIGNATURE_AT, BOOT_SIGNATURE = 510, b"\x55\xaa"
LOOKED_FOR = (
    "an ELF, Multiboot or Xen PV kernel, a Linux kernel ('HdrS' at 0x202), a boot disk (55 AA at 0x1FE), a BIOS image "
    "(a multiple of 64 KB, a jump 16 bytes before its end)"
)


@dataclass(frozen=True)
class StartOptions:
    """What a user may say of a start beside its file: firmware, initial RAM disks or modules, a flat binary's place."""

    bios: Path | None = None
    vga_bios: Path | None = None
    initrd: tuple[Path, ...] = ()
    at: int | None = None
    entry: str | None = None


NO_OPTIONS = StartOptions()


@dataclass(frozen=True)
class Opened:
    """A start, and the file that is the machine's first disk, if that is what was opened."""

    bootable: Bootable
    disk: Path | None = None


def open_start(path: Path | None, options: StartOptions = StartOptions()) -> Opened:
    """The start that a file holds, by its contents; without a file, that of the firmware.

    Raises ImageError if the file is of no known kind, or if an option does not go with its kind.
    """
    if path is None:
        _refuse(options, "firmware", "bios", "vga_bios")
        return Opened(open_firmware(options.bios, options.vga_bios))
    head = read_head(path)
    if options.at is None and is_boot_disk(head):
        _refuse(options, path, "bios", "vga_bios")
        firmware = open_firmware(options.bios, options.vga_bios)
        return Opened(replace(firmware, name=pathlib.Path(path).stem), path)
    return Opened(_open_kernel(path, options))


def _open_kernel(path: Path, options: StartOptions) -> Bootable:
    """What is read whole: kernels, flat binaries, firmware."""
    content = read_start_file(path, WANTED)
    name = pathlib.Path(path).stem
    if options.at is not None:
        _refuse(options, path, "at", "entry")
        return parse_flat(content, name, options.at, options.entry, path)
    if is_linux(content):
        _refuse(options, path, "initrd")
        return parse_linux(content, name, path, ram_disks(options))
    if content.startswith(ELF_MAGIC) and find_header(content) is None and is_xen(content):
        _refuse(options, path, "initrd")
        return parse_xen(content, name, path, ram_disks(options))
    if content.startswith(ELF_MAGIC) or find_header(content) is not None:
        _refuse(options, path, "initrd")
        return _with_files(parse_image(content, name, path), options.initrd)
    if looks_like_bios(content):
        _refuse(options, path, "vga_bios")
        rom = open_firmware(path, options.vga_bios).vga_rom
        return parse_firmware(content, rom, name, path)
    raise ImageError(path, f"of no known kind: looked for {LOOKED_FOR}", "start a flat binary with --at ADDRESS")


def read_head(path: Path) -> bytes:
    """The first bytes of a file, for a look at its kind; empty where it cannot be read, which is told later."""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD_BYTES) if os.path.isfile(path) else b""
    except (OSError, ValueError):
        return b""


def is_boot_disk(head: bytes) -> bool:
    """Whether a first sector is one that a BIOS boots, and not the beginning of a kernel."""
    signed = head[SIGNATURE_AT : SIGNATURE_AT + 2] == BOOT_SIGNATURE
    return signed and not head.startswith(ELF_MAGIC) and head[0x202:0x206] != b"HdrS"


def ram_disks(options: StartOptions) -> bytes:
    """The initial RAM disks that the user gave, as one. Raises ImageError."""
    return joined([read_start_file(file, "an initial RAM disk") for file in options.initrd])


def joined(disks: Sequence[bytes]) -> bytes:
    """Initial RAM disks one behind the other, each padded to four bytes, as Linux takes several."""
    return b"".join(disk + bytes(-len(disk) % 4) for disk in disks) if len(disks) > 1 else b"".join(disks)


def _with_files(image: Image, paths: Sequence[Path]) -> Image:
    """A Multiboot kernel with files as its modules, whose strings are the files' names."""
    return with_modules(image, [Module(os.fspath(path), read_start_file(path, "a module")) for path in paths])


def _refuse(options: StartOptions, where: object, *allowed: str) -> None:
    """Refuse options that have no meaning for a kind of start."""
    for name, value in vars(options).items():
        if name not in allowed and value not in (None, ()):
            option = "--" + name.replace("_", "-")
            raise ImageError(where, f"{option} does not go with it", f"leave {option} out")
