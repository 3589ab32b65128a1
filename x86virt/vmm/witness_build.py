"""Assemble the witness image, part of `make guests`: the routines whose run time prices the paths of the VMM.

Only who changes a routine needs this: the image is committed. `witness.bin` is flat, for linear address VMM_BASE +
WITNESS; `manifest.json` gives its hash, the assembler's version, and the addresses of its symbols.
"""

import hashlib
import json
import pathlib
import sys

from ..assembler import BuildError, assemble_flat, by_address, nasm_version
from . import layout, witness_include

HERE = pathlib.Path(__file__).resolve().parent / "witness"
IMAGE, MANIFEST = HERE / "witness.bin", HERE / "manifest.json"


def assemble(target: pathlib.Path) -> dict[str, int]:
    """Assemble the image into a file; the linear addresses of its global labels. Raises BuildError."""
    return assemble_flat(HERE, "witness.asm", target)


def build() -> None:
    """Write the include files, the image and its manifest. Raises BuildError."""
    layout.INCLUDE.write_text(layout.include_text(), encoding="utf-8")
    witness_include.INCLUDE.write_text(witness_include.include_text(), encoding="utf-8")
    symbols = assemble(IMAGE)
    image = IMAGE.read_bytes()
    manifest = {
        "schema_version": 1,
        "tools": {"nasm": nasm_version(HERE)},
        "bytes": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
        "symbols": by_address(symbols),
    }
    MANIFEST.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def main() -> int:
    """Command line: no arguments. Exit status 0, or 1 if the assembler refused."""
    try:
        build()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
