"""A board with drives and a little memory, without a processor: ports by name, time by hand, disks in memory."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from x86virt.core import board as bd
from x86virt.core.layout import NEVER
from x86virt.core.port_decode import port_read, port_write
from x86virt.disk import SECTOR, Disk
from x86virt.disk_service import DiskService

TICKS_PER_SECOND = 64 * 2_800_000_000
MEMORY_BYTES = 1 << 20
PRIMARY, SECONDARY = 0x1F0, 0x170
DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS = range(8)
FEATURE, COMMAND = ERROR, STATUS
CONTROL = 0x206
BSY, DRDY, DF, DSC, DRQ, ERR = 0x80, 0x40, 0x20, 0x10, 0x08, 0x01
ABRT, IDNF = 0x04, 0x10
READY = DRDY | DSC
BUS_MASTER = 0xC000
MASTER_COMMAND, MASTER_STATUS, MASTER_TABLE = 0, 2, 4


def pattern(sectors: int, salt: int = 0) -> bytes:
    """An image in which every word tells its place."""
    words = np.arange(sectors * SECTOR // 2, dtype=np.uint32)
    return ((words * 40503 + salt * 77 + (words >> 8)) & 0xFFFF).astype("<u2").tobytes()


def make_board() -> np.recarray:
    """A board after power on."""
    boards = np.zeros(1, bd.BOARD).view(np.recarray)
    bd.reset_board(boards[0], TICKS_PER_SECOND)
    return boards


class IdeMachine:
    """What a driver sees: ports and interrupt lines; `base` is the channel that the short names mean."""

    def __init__(self, disks: dict[int, bytes | Disk], base: int = PRIMARY) -> None:
        boards = make_board()
        self.boards, self.board, self.base, self.now = boards, boards[0], base, 0
        self.memory = bytearray(MEMORY_BYTES)
        machine = SimpleNamespace(
            board=self.board, vm=None, memory_bytes=MEMORY_BYTES, processor=SimpleNamespace(boards=boards),
            read_guest=lambda gpa, count: bytes(self.memory[gpa : gpa + count]), write_guest=self.write_guest,
        )  # fmt: skip
        self.service = DiskService(machine)  # type: ignore[arg-type]
        for place, disk in disks.items():
            self.service.attach(disk if isinstance(disk, Disk) else Disk.of_bytes(f"disk {place}", disk), place)
        self.served = 0
        self.configure(4, 2, 5)
        self.configure(0x20, 4, BUS_MASTER | 1)

    def write_guest(self, gpa: int, octets: bytes) -> None:
        self.memory[gpa : gpa + len(octets)] = octets

    # -- ports ------------------------------------------------------------------------------------------------------

    def configure(self, offset: int, n: int, value: int) -> None:
        """Write to the IDE function's configuration space."""
        self.port_out(0xCF8, 0x80000900 | offset & 0xFC, 4)
        self.port_out(0xCFC + (offset & 3), value, n)

    def port_out(self, port: int, value: int, n: int = 1) -> None:
        self.board.attention |= port_write(self.board, port, n, value, self.now)
        self.serve()

    def port_in(self, port: int, n: int = 1) -> int:
        value = int(port_read(self.board, port, n, self.now))
        self.serve()
        return value

    def serve(self) -> None:
        """What the machine does when the board asks for attention."""
        if self.board.attention & bd.BOARD_DISK:
            self.board.attention &= ~bd.BOARD_DISK
            self.served += 1
            self.service.serve()

    def put(self, register: int, value: int, n: int = 1) -> None:
        self.port_out(self.base + register, value, n)

    def get(self, register: int, n: int = 1) -> int:
        return self.port_in(self.base + register, n)

    @property
    def alternate(self) -> int:
        return self.get(CONTROL)

    @property
    def line(self) -> int:
        """The level of the channel's interrupt line."""
        return int(self.board.irq_levels) >> (14 if self.base == PRIMARY else 15) & 1

    def master(self, register: int) -> int:
        """The port of a bus master register of this channel."""
        return BUS_MASTER + register + (0 if self.base == PRIMARY else 8)

    # -- time -------------------------------------------------------------------------------------------------------

    def deadline(self) -> int:
        return int(bd.board_deadline(self.board))

    def wait(self) -> int:
        """Let time pass to the next deadline; returns the ticks that passed, 0 if there is none."""
        before, deadline = self.now, self.deadline()
        if deadline == NEVER:
            return 0
        self.now = max(deadline, self.now)
        bd.board_advance(self.board, self.now)
        return self.now - before

    # -- commands ---------------------------------------------------------------------------------------------------

    def address(self, lba: int, count: int, form: str, slave: int = 0, track: int = 63, heads: int = 16) -> None:
        """Write address and count to the task file: `chs`, `lba28` or `lba48`."""
        if form == "lba48":
            for register, value in ((COUNT, count), (LOW, lba >> 24), (MID, lba >> 32), (HIGH, lba >> 40)):
                self.put(register, (value >> 8 if register == COUNT else value) & 0xFF)
        if form == "chs":
            cylinder, rest = divmod(lba, heads * track)
            low, mid, high, top = rest % track + 1, cylinder & 0xFF, cylinder >> 8 & 0xFF, rest // track
        else:
            low, mid, high = lba & 0xFF, lba >> 8 & 0xFF, lba >> 16 & 0xFF
            top = 0x40 | (lba >> 24 & 0xF if form == "lba28" else 0)
        for register, value in ((COUNT, count & 0xFF), (LOW, low), (MID, mid), (HIGH, high)):
            self.put(register, value)
        self.put(DEVICE, 0xA0 | slave << 4 | top)

    def select(self, slave: int) -> None:
        self.put(DEVICE, 0xA0 | slave << 4)

    def command(self, code: int) -> int:
        """Give a command and wait until BSY is clear; returns the status register."""
        self.put(COMMAND, code)
        while self.alternate & BSY and self.wait():
            pass
        return self.get(STATUS)

    def read_block(self, sectors: int = 1, n: int = 4) -> bytes:
        """The data of a block, by words of `n` bytes."""
        return b"".join(self.get(DATA, n).to_bytes(n, "little") for _ in range(sectors * SECTOR // n))

    def write_block(self, content: bytes, n: int = 4) -> None:
        """The data of a block."""
        for place in range(0, len(content), n):
            self.put(DATA, int.from_bytes(content[place : place + n], "little"), n)

    def read(self, code: int, blocks: int, sectors: int = 1, n: int = 4) -> bytes:
        """A whole PIO read of blocks; every block is announced by an interrupt."""
        content = b""
        status = self.command(code)
        for _ in range(blocks):
            assert status & (BSY | DRQ | ERR) == DRQ, f"status {status:#x}"
            content += self.read_block(sectors, n)
            while self.alternate & BSY and self.wait():
                pass
            status = self.get(STATUS)
        assert status == READY, f"status {status:#x}"
        return content

    def write(self, code: int, content: bytes, sectors: int = 1, n: int = 4) -> int:
        """A whole PIO write of blocks; returns the last status."""
        status = self.command(code)
        for place in range(0, len(content), sectors * SECTOR):
            assert status & (BSY | DRQ | ERR) == DRQ, f"status {status:#x}"
            self.write_block(content[place : place + sectors * SECTOR], n)
            while self.alternate & BSY and self.wait():
                pass
            status = self.get(STATUS)
        return status

    def registers(self) -> tuple[int, ...]:
        """Error, count, LBA low, mid, high, device."""
        return tuple(self.get(register) for register in (ERROR, COUNT, LOW, MID, HIGH, DEVICE))

    # -- DMA --------------------------------------------------------------------------------------------------------

    def descriptors(self, table: int, *regions: tuple[int, int], end: bool = True) -> None:
        """Write a table of (address, bytes) and point the bus master to it."""
        for number, (address, count) in enumerate(regions):
            last = 0x8000 if end and number == len(regions) - 1 else 0
            row = address.to_bytes(4, "little") + (count & 0xFFFF).to_bytes(2, "little") + last.to_bytes(2, "little")
            self.write_guest(table + 8 * number, row)
        self.port_out(self.master(MASTER_TABLE), table, 4)

    def dma(self, code: int, to_memory: bool) -> tuple[int, int]:
        """A DMA command as drivers give it; returns status and bus master status at its end, the bus master stopped."""
        direction = 8 if to_memory else 0
        self.port_out(self.master(MASTER_COMMAND), direction)
        self.port_out(self.master(MASTER_STATUS), 6)
        self.put(COMMAND, code)
        self.port_out(self.master(MASTER_COMMAND), direction | 1)
        self.wait()
        master = self.port_in(self.master(MASTER_STATUS))
        self.port_out(self.master(MASTER_COMMAND), direction)
        return self.get(STATUS), master
