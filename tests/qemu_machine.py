"""QEMU as an oracle: a whole run whose RAM is a file that we read afterwards, or one instruction at a time by its gdb port."""

from __future__ import annotations

import contextlib
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from x86virt.benchmarks import emulators

from x86virt.start.multiboot import Image

TIMEOUT = 10.0
INSTALLED = shutil.which(emulators.QEMU) is not None
MODEL = "pentium3"
REGISTERS = (
    "eax",
    "ecx",
    "edx",
    "ebx",
    "esp",
    "ebp",
    "esi",
    "edi",
    "eip",
    "eflags",
    "cs",
    "ss",
    "ds",
    "es",
    "fs",
    "gs",
)
STEP_ALONE = 7  # one instruction, interrupts and timers held back


def flat_file(image: Image, path: Path) -> Path:
    """The image as a file for `-kernel`: one segment that begins with a Multiboot header with address fields."""
    (segment,) = image.segments
    content = bytearray(segment.content)
    load_end, bss_end = segment.address + len(content), segment.end
    struct.pack_into("<2I", content, 20, load_end, bss_end)
    path.write_bytes(content)
    return path


def memory_options(file: Path, megabytes: int) -> list[str]:
    """RAM in a file."""
    backend = f"memory-backend-file,id=ram,size={megabytes}M,mem-path={file},share=on"
    return ["-object", backend, "-machine", "pc,memory-backend=ram", "-cpu", MODEL]


def run_on_qemu(
    image: Image, folder: Path, start: int, length: int, timeout: float = TIMEOUT, options: Sequence[str] = ()
) -> bytes:
    """The bytes of RAM from `start` when the image has ended, by the exit port, a shutdown or the timeout."""
    memory = folder / "qemu.ram"
    memory.unlink(missing_ok=True)
    kernel = flat_file(image, folder / "kernel.bin")
    started = emulators.qemu(kernel, *memory_options(memory, emulators.MEMORY_MEGABYTES), *options)
    with contextlib.suppress(TimeoutError):  # what it did until then is in the file
        emulators.watch(started, lambda piece, moment: False, timeout)
    with memory.open("rb") as file:
        file.seek(start)
        octets = file.read(length)
    memory.unlink()
    return octets


class SteppedQemu:
    """QEMU on an ELF image, stopped before its first instruction, driven over its gdb port (a Unix socket)."""

    def __init__(self, image: Path, folder: Path, command_line: str = "") -> None:
        path = folder / "gdb.socket"
        options = ["-S", "-gdb", f"unix:{path},server=on,wait=off", "-cpu", MODEL, "-append", command_line]
        started = emulators.qemu(image, *options)
        self.process = subprocess.Popen(
            started.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.socket = connect(path)
        self.buffer = b""
        self.ask("?")
        self.ask(f"Qqemu.sstep={STEP_ALONE:x}")

    def __enter__(self) -> SteppedQemu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.process.terminate()
        self.process.wait()

    def ask(self, packet: str) -> str:
        """Send one packet and return the answer."""
        data = packet.encode()
        self.socket.sendall(b"$" + data + b"#%02x" % (sum(data) & 0xFF))
        return self.answer()

    def answer(self) -> str:
        """The next packet, acknowledged."""
        while True:
            start = self.buffer.find(b"$")
            end = self.buffer.find(b"#", start)
            if start >= 0 and end >= 0 and len(self.buffer) >= end + 3:
                data = self.buffer[start + 1 : end]
                self.buffer = self.buffer[end + 3 :]
                self.socket.sendall(b"+")
                return data.decode()
            piece = self.socket.recv(1 << 16)
            if not piece:
                raise EOFError("QEMU closed its gdb port")
            self.buffer += piece

    def step(self) -> bool:
        """One instruction. False if the machine has ended."""
        try:
            return self.ask("s").startswith(("T", "S"))
        except (EOFError, ConnectionError):
            return False

    def run_to(self, address: int) -> None:
        """Run until EIP is `address`."""
        self.ask(f"Z1,{address:x},1")
        self.ask("c")
        self.ask(f"z1,{address:x},1")

    def registers(self) -> dict[str, int]:
        """The sixteen registers that gdb knows first."""
        values = struct.unpack("<16I", bytes.fromhex(self.ask("g")[:128]))
        return dict(zip(REGISTERS, values, strict=True))

    def read(self, address: int, length: int) -> bytes:
        """Linear memory."""
        return bytes.fromhex(self.ask(f"m{address:x},{length:x}"))

    def write(self, address: int, octets: bytes) -> None:
        """Linear memory."""
        self.ask(f"M{address:x},{len(octets):x}:{octets.hex()}")


def connect(path: Path) -> socket.socket:
    """Connect to a socket that is about to exist."""
    limit = time.monotonic() + 10
    while True:
        client = socket.socket(socket.AF_UNIX)
        try:
            client.connect(str(path))
            return client
        except OSError:
            client.close()
            if time.monotonic() > limit:
                raise
            time.sleep(0.01)
