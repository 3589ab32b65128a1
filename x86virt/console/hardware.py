"""The devices that a dialogue goes through: their buffers for the host, and what the host gives them."""

from typing import TYPE_CHECKING

import numpy as np

from ..core.device_entries import device_key, device_poll, device_serial_input
from ..vmm.recorder import KEYBOARD, SERIAL
from .screen import VIDEO_BYTES, VIDEO_MEMORY, Screen, read_screen

if TYPE_CHECKING:
    from ..machine import Machine

# Registers of the VGA's CRT controller.
CURSOR_START, START_HIGH, START_LOW, CURSOR_HIGH, CURSOR_LOW = 0x0A, 0x0C, 0x0D, 0x0E, 0x0F
CURSOR_OFF = 1 << 5


class Hardware:
    """The devices of the board that the guest sees, the virtual ones under a VMM."""

    def __init__(self, machine: "Machine") -> None:
        self.machine = machine
        self.seen: tuple[bytes, int, int | None] | None = None  # what the last screen was made of
        self.last_screen = Screen((), None)

    @property
    def now(self) -> int:
        """Ticks since power on."""
        return int(self.machine.processor.cpu.ticks)

    @property
    def ticks_per_second(self) -> int:
        """Ticks in a second of simulated time."""
        return int(self.machine.board.ticks_per_second)

    def poll_every(self, per_second: int) -> None:
        """Have the machine stop for a look that often, at multiples of the period, whenever it is begun."""
        device_poll(self.machine.boards, self.now, self.ticks_per_second // per_second)

    def take_console(self) -> bytes:
        """The text that has come out of ports 0xE9 and 0x402 since the last look."""
        board = self.machine.board
        octets = bytes(board.console[: int(board.console_length)])
        board.console_length = 0
        return octets

    def take_serial(self, port: int) -> bytes:
        """What a serial port has sent since the last look."""
        uart = self.machine.board.uart[port]
        octets = bytes(uart.sent[: int(uart.sent_length)])
        uart.sent_length = 0
        return octets

    def give_key(self, octet: int) -> bool:
        """A byte of scan codes from the keyboard; False if it has no room for it."""
        self.before_input()
        return self.noted(KEYBOARD, octet, device_key(self.machine.boards, self.now, np.array([octet], np.uint8)))

    def give_serial(self, port: int, octet: int) -> bool:
        """A byte on a serial port's line; False if its receiver has no room for it."""
        self.before_input()
        octets = np.array([octet], np.uint8)
        return self.noted(SERIAL + port, octet, device_serial_input(self.machine.boards, self.now, port, octets))

    def before_input(self) -> None:
        """Tell a recorder that a device is about to be offered a byte."""
        if self.machine.time_log is not None:
            self.machine.time_log.before_input(self.machine)

    def noted(self, device: int, octet: int, taken: int) -> bool:
        """Whether a device took a byte, which a recorder notes."""
        if taken == 1 and self.machine.time_log is not None:
            self.machine.time_log.on_input(self.machine, device, octet)
        return taken == 1

    def screen(self) -> Screen:
        """The VGA's text screen as it stands in video memory; the same object while nothing changes."""
        registers = self.machine.board.vga.crtc
        start = int(registers[START_HIGH]) << 8 | int(registers[START_LOW])
        cursor = int(registers[CURSOR_HIGH]) << 8 | int(registers[CURSOR_LOW])
        memory = self.machine.read_guest(VIDEO_MEMORY, VIDEO_BYTES)
        parts = memory, start, None if registers[CURSOR_START] & CURSOR_OFF else cursor
        if parts != self.seen:
            self.seen, self.last_screen = parts, read_screen(*parts)
        return self.last_screen
