"""A guest that uses a disk: PIO with REP INS and OUTS, READ and WRITE MULTIPLE, bus-master DMA, each ended by an interrupt.

On the bare machine and under a VMM, cut into slices, with the check of isolation: the same sectors, memory and time.
"""

from __future__ import annotations

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import qemu_machine
from ide_machine import SECTOR, pattern
from small_kernel import (
    BOOT,
    DATA,
    EAX,
    ECX,
    EDI,
    ESI,
    MAX_CYCLES,
    RAM_BYTES,
    WORDS,
    Kernel,
    Step,
    log,
    mov,
    strategy,
)

from x86virt import Machine, RunResult, load_profile
from x86virt.core.jit import JIT_DISABLED
from x86virt.disk import Disk
from x86virt.start.elf import Segment
from x86virt.start.multiboot import Image

IRQ_14 = 0x2E
MASTER = 0xD000
TABLE, COPY, SCATTERED = DATA + 0x8000, DATA + 0x2000, DATA + 0x4000
SAVED = WORDS + 0x40  # statuses that the guest notes
STATUS, ALTERNATE = 0x1F7, 0x3F6
READY, MASTER_DONE = 0x50, 0x04
IMAGE = pattern(64)
MULTIBOOT_BYTES = 32


def out(port: int, value: int) -> bytes:
    """MOV DX, imm16; MOV AL, imm8; OUT DX, AL."""
    return b"\x66\xba" + port.to_bytes(2, "little") + bytes([0xB0, value, 0xEE])


def out_32(port: int, value: int) -> bytes:
    """MOV DX, imm16; MOV EAX, imm32; OUT DX, EAX."""
    return b"\x66\xba" + port.to_bytes(2, "little") + mov(EAX, value) + b"\xef"


def note(port: int, place: int) -> bytes:
    """MOV DX, imm16; IN AL, DX; MOV [SAVED + place], AL."""
    return b"\x66\xba" + port.to_bytes(2, "little") + b"\xec\xa2" + (SAVED + place).to_bytes(4, "little")


def data(operation: bytes, register: int, address: int, count: int) -> bytes:
    """CLD; REP INS or OUTS at the data port."""
    return b"\xfc\x66\xba\xf0\x01" + mov(register, address) + mov(ECX, count) + b"\xf3" + operation


INSW, INSD, OUTSW = b"\x66\x6d", b"\x6d", b"\x66\x6f"
WAIT_FOR_INTERRUPT = b"\xfb\xf4\xeb\xfd"  # STI; HLT; JMP to the HLT
END_OF_INTERRUPT = b"\xb0\x20\xe6\xa0\xe6\x20"
POLL = b"\x66\xba\xf6\x03\xec\xa8\x80\x75\xfb"  # IN AL, alternate status; TEST AL, 80h; JNZ to the IN


def command(code: int, lba: int = 0, count: int = 0) -> bytes:
    """A command with an LBA."""
    rows = zip(range(0x1F2, 0x1F8), (count, lba, 0, 0, 0xE0, code), strict=True)
    return b"".join(out(port, value) for port, value in rows)


def initialize() -> bytes:
    """PICs at 20h and 28h with IRQ 14 alone, and the IDE function's bus master at its ports."""
    code = b"".join(
        bytes([0xB0, value, 0xE6, port])
        for port, value in (
            (0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1),
            (0x21, 0xFB), (0xA1, 0xBF),
        )
    )  # fmt: skip
    for offset, value in ((0x20, MASTER | 1), (4, 5)):
        code += out_32(0xCF8, 0x80000900 | offset) + out_32(0xCFC, value)
    return code


def dma(code: int, lba: int, count: int, direction: int) -> bytes:
    """A DMA command by the table."""
    start = out_32(MASTER + 4, TABLE) + out(MASTER, direction) + out(MASTER + 2, 6)
    return start + command(code, lba, count) + out(MASTER, direction | 1) + WAIT_FOR_INTERRUPT


def descriptor(address: int, count: int, last: bool) -> bytes:
    """A physical region descriptor."""
    return address.to_bytes(4, "little") + count.to_bytes(2, "little") + (b"\0\x80" if last else b"\0\0")


REGIONS = ((SCATTERED, 510), (SCATTERED + 0x1002, 2), (SCATTERED + 0x2000, 1024))
ENDED = note(STATUS, 8) + END_OF_INTERRUPT


def kernel() -> Kernel:
    """Read sectors 5 and 6; write them to 20 and 21; read 20 to 22 by DMA; write 5 to 7's places by DMA to 30."""
    steps = [
        Step(initialize()),
        Step(command(0x20, 5, 2) + WAIT_FOR_INTERRUPT),
        Step(note(STATUS, 0) + data(INSW, EDI, COPY, 256) + END_OF_INTERRUPT + WAIT_FOR_INTERRUPT),
        Step(note(STATUS, 1) + data(INSD, EDI, COPY + SECTOR, 128) + END_OF_INTERRUPT),
        Step(out(ALTERNATE, 2) + command(0xC6, 0, 2) + POLL + note(STATUS, 2) + out(ALTERNATE, 0)),  # nIEN meanwhile
        Step(command(0xC5, 20, 2) + POLL + data(OUTSW, ESI, COPY, 512) + WAIT_FOR_INTERRUPT),
        Step(note(STATUS, 3) + END_OF_INTERRUPT + dma(0xC8, 20, 3, 8)),
        Step(note(MASTER + 2, 4) + out(MASTER, 8) + note(STATUS, 5) + END_OF_INTERRUPT + dma(0xCA, 30, 3, 0)),
        Step(note(MASTER + 2, 6) + out(MASTER, 0) + note(STATUS, 7) + END_OF_INTERRUPT),
        Step(command(0xE7) + WAIT_FOR_INTERRUPT),
        Step(ENDED),
    ]
    table = b"".join(
        descriptor(address, count, number == len(REGIONS) - 1) for number, (address, count) in enumerate(REGIONS)
    )
    return Kernel(steps, octets={TABLE: table})


def machine(name: str, disk: Disk, check_isolation: bool = False) -> Machine:
    """A machine with the kernel and a disk."""
    made = Machine(strategy(name), load_profile("p4_prescott"), RAM_BYTES, check_isolation=check_isolation)
    made.disks.attach(disk)
    made.load(kernel().image())
    return made


def check(made: Machine, result: RunResult) -> None:
    """The guest did what it was to do."""
    assert result.outcome == "exited 1"
    assert [entry[0] for entry in log(made)] == [IRQ_14] * 6
    check_contents(made.strategy.virtual_state(made).memory.tobytes(), made.disks.disks[0].read(0, 64))


def check_contents(memory: bytes, disk: bytes) -> None:
    """What the guest leaves in its memory and on its disk."""
    statuses = list(memory[SAVED : SAVED + 9])
    assert statuses == [READY | 8, READY | 8, READY, READY, MASTER_DONE, READY, MASTER_DONE, READY, READY]
    copied = IMAGE[5 * SECTOR : 7 * SECTOR]
    assert memory[COPY : COPY + 2 * SECTOR] == copied
    three = copied + IMAGE[22 * SECTOR : 23 * SECTOR]
    assert b"".join(memory[address : address + count] for address, count in REGIONS) == three
    assert disk == IMAGE[: 20 * SECTOR] + three + IMAGE[23 * SECTOR : 30 * SECTOR] + three + IMAGE[33 * SECTOR :]


@pytest.mark.skipif(not qemu_machine.INSTALLED, reason="no QEMU")
def test_qemu_does_the_same(tmp_path: Path):
    path = tmp_path / "disk.img"
    path.write_bytes(IMAGE)
    (segment,) = kernel().image().segments
    begin = segment.address - MULTIBOOT_BYTES
    magic, flags = 0x1BADB002, 0x10000
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, begin, begin, 0, 0, kernel().image().entry)
    image = Image("disk", BOOT, (Segment(begin, header + segment.content, segment.end - begin),), "")
    drive = ["-drive", f"file={path},format=raw,if=ide,index=0", "-nic", "none"]
    memory = qemu_machine.run_on_qemu(image, tmp_path, 0, RAM_BYTES, options=drive)
    check_contents(memory, path.read_bytes())


@pytest.mark.parametrize("name", ["native", "trap-and-emulate"])
@pytest.mark.parametrize("check_isolation", [False, True])
def test_a_guest_reads_and_writes_its_disk(name, check_isolation):
    made = machine(name, Disk.of_bytes("disk", IMAGE), check_isolation)
    check(made, made.run(MAX_CYCLES))


def test_the_hosts_file_stays_as_it_was(tmp_path: Path):
    path = tmp_path / "disk.img"
    path.write_bytes(IMAGE)
    made = machine("native", Disk.open(path))
    check(made, made.run(MAX_CYCLES))
    made.disks.close()
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(IMAGE).digest()


@pytest.mark.parametrize("name", ["native", "trap-and-emulate"])
def test_slices_change_nothing(name):
    whole = machine(name, Disk.of_bytes("disk", IMAGE))
    expected = whole.run(MAX_CYCLES)
    cut = machine(name, Disk.of_bytes("disk", IMAGE))
    pause = 0
    while cut.advance((1 << 62), MAX_CYCLES, pause):
        pause += 7919
    result = cut.run(MAX_CYCLES)
    check(cut, result)
    assert (result.ticks, result.instructions) == (expected.ticks, expected.instructions)
    assert cut.strategy.virtual_state(cut).digest() == whole.strategy.virtual_state(whole).digest()


def test_disks_are_part_of_the_state_that_is_compared():
    states = []
    for name in ("native", "trap-and-emulate"):
        made = machine(name, Disk.of_bytes("disk", IMAGE))
        made.run(MAX_CYCLES)
        states.append(made.strategy.virtual_state(made))
        assert sorted(states[-1].sectors) == [(0, number) for number in (20, 21, 30, 31, 32)]
    assert states[0].sectors == states[1].sectors and not states[0].sector_differences(states[1])
    before = states[1].digest()
    del states[1].sectors[0, 21]
    states[1].sectors[0, 20] = bytes(SECTOR)
    rows = states[0].sector_differences(states[1])
    assert [row[0] for row in rows] == ["disk 0 sector 20", "disk 0 sector 21"] and rows[1][2] == "not written"
    assert states[1].digest() != before and rows[0][1:] in [row[1:] for row in states[0].differences(states[1])]


@pytest.mark.skipif(JIT_DISABLED, reason="the run is slow")
def test_single_steps_change_nothing():
    whole = machine("native", Disk.of_bytes("disk", IMAGE))
    expected = whole.run(MAX_CYCLES)
    stepped = machine("native", Disk.of_bytes("disk", IMAGE))
    retired = 0
    while stepped.advance(retired, MAX_CYCLES):
        retired += 1
    result = stepped.run(MAX_CYCLES)
    assert (result.ticks, result.instructions) == (expected.ticks, expected.instructions)
    check(stepped, result)


COUNTED = """
import sys
sys.path.insert(0, sys.argv[1])
from test_ide_guest import IMAGE, MAX_CYCLES, Disk, machine
result = machine(sys.argv[2], Disk.of_bytes("disk", IMAGE)).run(MAX_CYCLES)
print(result.ticks, result.instructions)
"""


@pytest.mark.skipif(JIT_DISABLED, reason="it compares the two")
@pytest.mark.parametrize("name", ["native", "trap-and-emulate"])
def test_compiled_and_interpreted_take_the_same_time(name):
    result = machine(name, Disk.of_bytes("disk", IMAGE)).run(MAX_CYCLES)
    command = [sys.executable, "-c", COUNTED, str(Path(__file__).parent), name]
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    assert told.split() == [str(result.ticks), str(result.instructions)]
