"""A command line as a user meets it, run in this process: exit status, both streams."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from x86virt.cli import main
from x86virt.start.elf import ELF_HEADER, PROGRAM_HEADER
from x86virt.start.multiboot import HEADER_MAGIC

LOAD_ADDRESS = 0x100000


def kernel(path: Path, code: bytes, address: int = LOAD_ADDRESS) -> str:
    """A Multiboot image of a few bytes of code, written to `path`."""
    content = struct.pack("<III", HEADER_MAGIC, 0, -HEADER_MAGIC & 0xFFFFFFFF) + code
    identification = b"\x7fELF\x01\x01\x01" + bytes(9)
    head = ELF_HEADER.pack(identification, 2, 3, 1, address + 12, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    program = PROGRAM_HEADER.pack(1, 84, address, address, len(content), len(content), 7, 4096)
    path.write_bytes(head + program + content)
    return str(path)


class Answer:
    """What a command line gave: exit status, text of both streams."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> None:
        capsys.readouterr()
        self.status = main(arguments)
        self.out, self.err = capsys.readouterr()

    def json(self) -> Any:
        return json.loads(self.out)


def assert_refused(answer: Answer, *words: str, status: int = 2) -> None:
    """One line on stderr that holds the words, nothing on stdout, no traceback."""
    lines = answer.err.strip().splitlines()
    assert answer.status == status, answer.err
    assert answer.out == ""
    assert len(lines) == 1 and lines[0].startswith("x86virt: "), answer.err
    for word in words:
        assert word in lines[0]
