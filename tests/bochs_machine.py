"""Bochs as an oracle: it boots the image from a disk, runs to the magic break, and its debugger writes out RAM."""

from __future__ import annotations

import shutil
from pathlib import Path

from x86virt.benchmarks import emulators
from x86virt.benchmarks.guests.disk import boot_disk

from x86virt.start.multiboot import Image

TIMEOUT = 30.0
INSTALLED = shutil.which("bochs") is not None and shutil.which("script") is not None


def run_on_bochs(image: Image, folder: Path, start: int, length: int, timeout: float = TIMEOUT) -> bytes:
    """The bytes of RAM from `start` when the image has ended, by XCHG BX, BX or by a shutdown."""
    disk, memory = folder / "disk.img", folder / "memory.bin"
    disk.write_bytes(boot_disk(image))
    memory.unlink(missing_ok=True)
    commands = f'c\nwritemem "{memory}" {start:#x} {length}\nq\n'
    started = emulators.bochs(disk, folder, commands=commands, extra="magic_break: enabled=1\n")
    emulators.watch(started, lambda piece, moment: False, timeout)
    if not memory.exists():
        log = (folder / "bochs.log").read_text(errors="replace").splitlines()[-5:]
        raise RuntimeError("Bochs wrote no memory: " + "\n".join(log))
    return memory.read_bytes()
