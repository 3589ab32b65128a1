"""Start NASM, for what is assembled by `make guests` and committed."""

import subprocess
from pathlib import Path


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
