"""Start NASM, for what is assembled by `make guests` and committed."""

import re
import subprocess
import tempfile
from pathlib import Path

SYMBOL = re.compile(r"^\s*([0-9A-F]+)\s+[0-9A-F]+\s+((?:\.\.@)?[a-z][a-z_0-9]*)$")  # a label in the listing: lower case


class BuildError(Exception):
    """The assembler refused; the message is what it said."""


def run_nasm(folder: Path, *arguments: str) -> str:
    """Run the assembler in a folder and return its standard output. Raises BuildError with its own words."""
    try:
        done = subprocess.run(["nasm", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"nasm: {error}") from error
    if done.returncode:
        raise BuildError(done.stderr.strip())
    return done.stdout


def nasm_version(folder: Path) -> str:
    """What the assembler says of itself, the same for every build of that version. Raises BuildError."""
    return run_nasm(folder, "-v").splitlines()[0].split(" compiled")[0]


def assemble_flat(folder: Path, source: str, target: Path) -> dict[str, int]:
    """Assemble a source file of a folder into a flat binary; the addresses of its global labels. Raises BuildError."""
    with tempfile.TemporaryDirectory() as scratch:
        listing = Path(scratch) / "symbols.map"
        main = Path(scratch) / "main.asm"
        main.write_text(f'[map symbols {listing}]\n%include "{source}"\n', encoding="utf-8")
        options = ["-w+error", "-w-error=user", "-I", f"{folder}/"]
        run_nasm(folder, "-f", "bin", *options, "-o", str(target), str(main))
        found = (SYMBOL.match(line) for line in listing.read_text(encoding="utf-8").splitlines())
        return {match[2].removeprefix("..@"): int(match[1], 16) for match in found if match}


def by_address(symbols: dict[str, int]) -> dict[str, int]:
    """Symbols in the order of their addresses, as manifests have them."""
    return dict(sorted(symbols.items(), key=lambda row: (row[1], row[0])))
