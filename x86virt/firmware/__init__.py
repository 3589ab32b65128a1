"""The BIOS that the machine starts with unless it is given another: 64 KB, our own (see README.md)."""

from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGE = HERE / "bios.bin"


def bios_image() -> bytes:
    """The BIOS, 64 KB, for 0xF0000 and for the top of the 4 GB."""
    return IMAGE.read_bytes()
