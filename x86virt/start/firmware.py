"""Firmware: a BIOS image at the reset vector, our own or a user's, and the option ROM of the VGA."""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import ImageError
from ..firmware import bios_image, bios_symbols
from .boot import RESET, Boot, command_line_bytes
from .files import read_start_file

BLOCK_BYTES = 64 << 10
LARGEST_BIOS = 16 << 20
LARGEST_VGA_ROM = 64 << 10
OPTION_ROM_MAGIC = b"\x55\xaa"
FAR_JUMP, NEAR_JUMP, SHORT_JUMP = 0xEA, 0xE9, 0xEB
RESET_VECTOR_BYTES = 16

OWN_NAME = "x86virt-bios"

# Where distributions keep SeaBIOS's VGA BIOS: its own package, then QEMU's copies of it.
FOLDERS = (
    "/usr/share/seabios", "/usr/share/qemu", "/usr/share/qemu-kvm", "/usr/local/share/qemu", "/opt/homebrew/share/qemu",
)  # fmt: skip
VGA_NAME = "vgabios-stdvga.bin"


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
    bios: str | os.PathLike[str] | None = None, vga_bios: str | os.PathLike[str] | None = None
) -> FirmwareImage:
    """The firmware in those files; our own BIOS, which needs no VGA BIOS, if no other is given. Raises ImageError.

    Another BIOS gets the VGA BIOS of SeaBIOS, where that is installed, unless one is given.
    """
    vga = vga_bios or (None if bios is None else installed_vga_bios())
    rom = b"" if vga is None else read_start_file(vga, "a VGA BIOS", LARGEST_BIOS)
    if bios is None:
        return replace(parse_firmware(bios_image(), rom, OWN_NAME, OWN_NAME, vga), symbols=bios_symbols())
    return parse_firmware(read_start_file(bios, "a BIOS image", LARGEST_BIOS), rom, pathlib.Path(bios).stem, bios, vga)


def installed_vga_bios() -> pathlib.Path | None:
    """SeaBIOS's VGA BIOS where it is installed, None if it is not."""
    paths = (pathlib.Path(folder, VGA_NAME) for folder in FOLDERS)
    return next((path for path in paths if path.is_file()), None)
