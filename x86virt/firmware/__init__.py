"""The BIOS that the machine starts with unless it is given another: 64 KB, our own (see README.md)."""

import json
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGE, MANIFEST = HERE / "bios.bin", HERE / "manifest.json"
ADDRESS = 0xF0000  # where real-mode code sees it


def bios_image() -> bytes:
    """The BIOS, 64 KB, for 0xF0000 and for the top of the 4 GB."""
    return IMAGE.read_bytes()


def bios_symbols() -> dict[str, int]:
    """The labels of the BIOS, by their addresses below 1 MB."""
    symbols = json.loads(MANIFEST.read_text(encoding="utf-8"))["symbols"]
    return {name: ADDRESS + offset for name, offset in symbols.items()}
