"""A board under test: ports by name, and the present as a tick that only goes on."""

import numpy as np

from x86virt.core import board as bd
from x86virt.core.port_decode import port_read, port_write

SECOND = 64 * 2_800_000_000  # ticks


class PcBoard:
    """A board and its present tick."""

    def __init__(self, ticks_per_second: int = SECOND) -> None:
        self.boards = np.zeros(1, bd.BOARD).view(np.recarray)
        self.board = self.boards[0]
        self.second = ticks_per_second
        self.now = 0
        bd.reset_board(self.board, ticks_per_second)

    def outb(self, port: int, value: int) -> int:
        """OUT of a byte; returns the outcomes."""
        return self.out(port, 1, value)

    def out(self, port: int, width: int, value: int) -> int:
        return int(port_write(self.board, port, width, value, self.now))

    def inb(self, port: int) -> int:
        return self.in_(port, 1)

    def in_(self, port: int, width: int) -> int:
        return int(port_read(self.board, port, width, self.now))

    def run_to(self, tick: int) -> None:
        """Let the board see every deadline up to a tick, as a processor would that does nothing."""
        while (deadline := int(bd.board_deadline(self.board))) <= tick:
            assert deadline > self.now
            self.now = deadline
            bd.board_advance(self.board, deadline)
        self.now = tick
        bd.board_advance(self.board, tick)

    def run(self, ticks: int) -> None:
        self.run_to(self.now + ticks)

    def milliseconds(self, count: float) -> None:
        self.run(round(count * self.second / 1000))

    def line(self, irq: int) -> int:
        """The level of an interrupt line."""
        return int(self.board.irq_levels) >> irq & 1

    # -- PCI ------------------------------------------------------------------------------------------------------

    def select(self, device: int, function: int, offset: int) -> int:
        """Name a configuration register; returns the port of its byte."""
        self.out(0xCF8, 4, 1 << 31 | device << 11 | function << 8 | offset & ~3)
        return 0xCFC + offset % 4

    def configuration(self, device: int, function: int, offset: int, width: int = 4) -> int:
        return self.in_(self.select(device, function, offset), width)

    def configure(self, device: int, function: int, offset: int, width: int, value: int) -> None:
        self.out(self.select(device, function, offset), width, value)
