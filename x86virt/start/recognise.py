"""What kind of start a file is."""

import os
import pathlib

from ..errors import ImageError
from .boot import Bootable
from .elf import ELF_MAGIC
from .files import read_start_file
from .linux import is_linux, parse_linux
from .multiboot import parse_image

WANTED = "a kernel image, or the name of a guest"
LOOKED_FOR = "an ELF or flat Multiboot kernel, a Linux kernel (bzImage)"


def open_start(path: str | os.PathLike[str], initrd: str | os.PathLike[str] | None = None) -> Bootable:
    """The start that a file holds, by its contents. Raises ImageError if it is of no known kind."""
    content = read_start_file(path, WANTED)
    name = pathlib.Path(path).stem
    if is_linux(content):
        disk = b"" if initrd is None else read_start_file(initrd, "an initial RAM disk")
        return parse_linux(content, name, path, disk)
    if content.startswith(ELF_MAGIC):
        return parse_image(content, name, path)
    raise ImageError(path, f"of no known kind: looked for {LOOKED_FOR}", "give one of these")
