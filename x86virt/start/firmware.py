"""Firmware: a BIOS image at the reset vector, and the option ROM of the VGA; where SeaBIOS is found if none is given."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import ImageError
from .boot import RESET, Boot, command_line_bytes
from .files import read_start_file

BLOCK_BYTES = 64 << 10
LARGEST_BIOS = 16 << 20
LARGEST_VGA_ROM = 64 << 10
OPTION_ROM_MAGIC = b"\x55\xaa"
FAR_JUMP, NEAR_JUMP, SHORT_JUMP = 0xEA, 0xE9, 0xEB
RESET_VECTOR_BYTES = 16

# Where distributions keep SeaBIOS: its own package, then QEMU's copies of it.
FOLDERS = (
    "/usr/share/seabios", "/usr/share/qemu", "/usr/share/qemu-kvm", "/usr/local/share/qemu", "/opt/homebrew/share/qemu",
)  # fmt: skip
BIOS_NAMES, VGA_NAMES = ("bios-256k.bin", "bios.bin"), ("vgabios-stdvga.bin",)


@dataclass(frozen=True)
class FirmwareImage:
    """A checked BIOS image, and the VGA's option ROM (empty: none)."""

    name: str
    bios: bytes = field(repr=False)
    vga_rom: bytes = field(repr=False)
    sha256: str
    symbols: Mapping[str, int] = field(default_factory=dict, repr=False)

    def boot(self, memory_bytes: int, command_line: str = "") -> Boot:
        """The processor's own state after a reset; the firmware takes no command line. Raises ImageError."""
        if command_line:
            what = "firmware takes no command line"
            raise ImageError(self.name, what, "leave --append out: what the firmware loads has its own configuration")
        command_line_bytes(self.name, command_line, 0)
        return Boot(0, (), mode=RESET, firmware=self.bios, vga_rom=self.vga_rom)


def looks_like_bios(content: bytes) -> bool:
    """Whether a file may be a BIOS image: of such a size, and with a jump at the reset vector."""
    if not content or len(content) % BLOCK_BYTES or len(content) > LARGEST_BIOS:
        return False
    return content[-RESET_VECTOR_BYTES] in (FAR_JUMP, NEAR_JUMP, SHORT_JUMP)


def parse_firmware(bios: bytes, vga_rom: bytes, name: str, where: object = "bios", vga_where: object = "") -> FirmwareImage:
    """Check the bytes of a BIOS image and of an option ROM. Raises ImageError."""
    if not bios or len(bios) % BLOCK_BYTES or len(bios) > LARGEST_BIOS:
        what = f"a BIOS image of {len(bios)} bytes"
        raise ImageError(where, what, "give one of 64 KB, or a multiple of it, up to 16 MB")
    if vga_rom and (len(vga_rom) > LARGEST_VGA_ROM or vga_rom[:2] != OPTION_ROM_MAGIC):
        what = f"not an option ROM: {len(vga_rom)} bytes" + ("" if vga_rom[:2] == OPTION_ROM_MAGIC else " without 55 AA")
        raise ImageError(vga_where, what, "give a VGA BIOS of at most 64 KB, such as vgabios-stdvga.bin")
    digest = hashlib.sha256(hashlib.sha256(bios).digest() + hashlib.sha256(vga_rom).digest()).hexdigest()
    return FirmwareImage(name, bios, vga_rom, digest)


def open_firmware(
    bios: str | os.PathLike[str] | None = None, vga_bios: str | os.PathLike[str] | None = None, wanted_by: object = "--disk"
) -> FirmwareImage:
    """The firmware in those files; SeaBIOS where it is usually installed for what is not given. Raises ImageError."""
    bios = bios or installed(BIOS_NAMES)
    if bios is None:
        what = "starts by a BIOS, and none was found in " + ", ".join(FOLDERS)
        raise ImageError(wanted_by, what, "install the package seabios, or give one with --bios FILE")
    vga = vga_bios or installed(VGA_NAMES)
    rom = b"" if vga is None else read_start_file(vga, "a VGA BIOS", LARGEST_BIOS)
    content = read_start_file(bios, "a BIOS image", LARGEST_BIOS)
    return parse_firmware(content, rom, pathlib.Path(bios).stem, bios, vga)


def installed(names: tuple[str, ...]) -> pathlib.Path | None:
    """The first of those files that is installed, None if there is none."""
    paths = (pathlib.Path(folder, name) for name in names for folder in FOLDERS)
    return next((path for path in paths if path.is_file()), None)
