"""The oracle for x87 instructions: the host's own x87, and the simulated processor, execute the very same bytes.

A loop loads a whole state (FRSTOR), executes one instruction, and stores the whole state (FNSAVE) and a memory operand.
Its bytes mean the same in 32-bit and in 64-bit mode, so that it runs in an executable page of this process and at the
simulated processor alike. Each case is a record of 256 bytes:

    00 image for FRSTOR (108 bytes)   80 image of FNSAVE (108 bytes)   F0 memory operand (10 bytes)   FA EFLAGS, low word
"""

import ctypes
import mmap
import platform
import sys

import numpy as np
from bare_machine import DATA, BareMachine

RECORD = np.dtype(
    [
        ("control", "<u2"), ("c_pad", "<u2"), ("status", "<u2"), ("s_pad", "<u2"), ("tag", "<u2"), ("t_pad", "<u2"),
        ("pointers", "<u4", 4), ("registers", "u1", (8, 10)), ("fill_1", "u1", 20),
        ("control_after", "<u2"), ("c_pad_2", "<u2"), ("status_after", "<u2"), ("s_pad_2", "<u2"),
        ("tag_after", "<u2"), ("t_pad_2", "<u2"), ("pointers_after", "<u4", 4), ("registers_after", "u1", (8, 10)),
        ("fill_2", "u1", 4), ("operand", "u1", 10), ("eflags", "<u2"), ("fill_3", "u1", 4),
    ]
)  # fmt: skip
assert RECORD.itemsize == 256
BATCH = 256  # records at DATA in the simulated processor's RAM
MAP_32BIT = 0x40


def loop(octets: bytes) -> bytes:
    """The loop over ECX records at ESI. EFLAGS are carried through AX by LAHF and SAHF, which both modes have."""
    body = b"\x66\x8b\x86\xfa\x00\x00\x00"  # mov ax, [esi+FA]
    body += b"\x9e\xdd\x26"  # sahf; frstor [esi]
    body += octets
    body += b"\x9f\xdd\xb6\x80\x00\x00\x00"  # lahf; fnsave [esi+80]
    body += b"\x66\x89\x86\xfa\x00\x00\x00"  # mov [esi+FA], ax
    body += b"\x81\xc6\x00\x01\x00\x00"  # add esi, 100
    body += b"\x81\xe9\x01\x00\x00\x00"  # sub ecx, 1
    return body + b"\x0f\x85" + (-len(body) - 6).to_bytes(4, "little", signed=True)


def on_memory(opcode: int, reg: int) -> bytes:
    """An instruction on the memory operand of the record, [esi+F0]."""
    return bytes([opcode, 0x86 | reg << 3]) + b"\xf0\x00\x00\x00"


def host_has_x87() -> bool:
    """Whether this process can execute x86-64 code that it writes."""
    return sys.platform == "linux" and platform.machine() == "x86_64" and sys.maxsize > 1 << 32


class HostX87:
    """The host's processor."""

    def __init__(self) -> None:
        self.page = mmap.mmap(
            -1, 0x1000 + BATCH * 256, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_32BIT,
            prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC,
        )  # fmt: skip
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.page))
        self.call = ctypes.CFUNCTYPE(None)(self.address)
        self.records = np.frombuffer(self.page, RECORD, BATCH, 0x1000)

    def run(self, octets: bytes, records: np.ndarray) -> np.ndarray:
        """Execute an instruction on each record; returns the records afterwards."""
        self.records[: len(records)] = records
        code = b"\x56\xbe" + (self.address + 0x1000).to_bytes(4, "little")  # push rsi; mov esi
        code += b"\xb9" + len(records).to_bytes(4, "little") + loop(octets) + b"\xdb\xe3\x5e\xc3"  # fninit; pop rsi; ret
        self.page[: len(code)] = code
        self.call()
        return self.records[: len(records)].copy()


class SimulatedX87:
    """The simulated processor."""

    def __init__(self) -> None:
        self.machine = BareMachine()
        self.machine.cpu.cr0 |= 1 << 5

    def run(self, octets: bytes, records: np.ndarray) -> np.ndarray:
        """The same there."""
        machine = self.machine
        room = machine.memory[DATA : DATA + 256 * len(records)]
        room[:] = records.view(np.uint8).reshape(-1)
        code = b"\xbe" + DATA.to_bytes(4, "little") + b"\xb9" + len(records).to_bytes(4, "little")
        machine.write_code(code + loop(octets) + b"\xdb\xe3\xf4")
        stopped = machine.stopped_at(machine.go())
        assert isinstance(stopped, int), stopped
        return room.copy().view(RECORD)
