"""Assemble the BIOS, part of `make guests`. Only who changes it needs this: the image is committed."""

import hashlib
import json
import sys
from pathlib import Path

from ..assembler import BuildError, assemble_flat, by_address, nasm_version
from . import HERE, IMAGE, MANIFEST

SOURCE = "bios.asm"


def assemble(target: Path) -> dict[str, int]:
    """Assemble the BIOS into a file; its labels, by their offsets. Raises BuildError."""
    return assemble_flat(HERE, SOURCE, target)


def manifest_of(image: bytes, symbols: dict[str, int]) -> dict[str, object]:
    """What the manifest says of an image. Raises BuildError if there is no assembler to name."""
    return {
        "schema_version": 1,
        "tools": {"nasm": nasm_version(HERE)},
        "source": SOURCE,
        "bytes": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
        "symbols": by_address(symbols),
    }


def main() -> int:
    """Command line: no arguments. Exit status 0, or 1 if the assembler refused."""
    try:
        symbols = assemble(IMAGE)
        manifest = manifest_of(IMAGE.read_bytes(), symbols)
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
