"""Assemble the BIOS, part of `make guests`. Only who changes it needs this: the image is committed."""

import hashlib
import json
import sys
from pathlib import Path

from ..assembler import BuildError, nasm_version, run_nasm
from . import HERE, IMAGE

SOURCE = "bios.asm"
MANIFEST = HERE / "manifest.json"


def assemble(target: Path) -> None:
    """Assemble the BIOS into a file. Raises BuildError."""
    run_nasm(HERE, "-f", "bin", "-w+error", "-w-error=user", "-o", str(target), SOURCE)


def manifest_of(image: bytes) -> dict[str, object]:
    """What the manifest says of an image. Raises BuildError if there is no assembler to name."""
    return {
        "schema_version": 1,
        "tools": {"nasm": nasm_version(HERE)},
        "source": SOURCE,
        "bytes": len(image),
        "sha256": hashlib.sha256(image).hexdigest(),
    }


def main() -> int:
    """Command line: no arguments. Exit status 0, or 1 if the assembler refused."""
    try:
        assemble(IMAGE)
        manifest = manifest_of(IMAGE.read_bytes())
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
