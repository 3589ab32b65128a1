"""What Python calls of the board: the person at the keyboard, the other end of a serial line, settings, a reset."""

from .board import board_advance, follow_devices, reset_devices
from .cmos import set_clock
from .cmos_settings import store_disk, store_machine
from .jit import entry
from .keyboard import begin_as_after_post, press
from .layout import NEVER
from .pci import configure_as_firmware
from .physical_map import PAM_ALL_RAM
from .port_map import map_moved_ports
from .uart import give_input


@entry
def device_key(boards, now, codes):
    """Bytes of scan codes (set 2, as an AT keyboard sends them) at tick `now`; returns how many the keyboard took."""
    board = boards[0]
    board_advance(board, now)
    taken = press(board.keyboard, codes, board.tick, board.ticks_per_second)
    follow_devices(board)
    return taken


@entry
def device_serial_input(boards, now, number, octets):
    """Bytes for serial port 0 or 1 at tick `now`; returns how many its receiver had room for."""
    board = boards[0]
    board_advance(board, now)
    taken = give_input(board.uart[number], octets, board.tick, board.ticks_per_second)
    follow_devices(board)
    return taken


@entry
def device_set_clock(boards, now, seconds):
    """Let a second of the clock begin at tick `now`: so many since the first of January 1970, not before it."""
    board = boards[0]
    board_advance(board, now)
    set_clock(board.cmos, seconds, board.tick, board.ticks_per_second)
    follow_devices(board)


@entry
def device_poll(boards, now, period):
    """Let the owner be asked to look every `period` ticks, at multiples of the period behind `now`; 0: no longer."""
    board = boards[0]
    board_advance(board, now)
    board.poll_period = period
    board.poll_deadline = NEVER
    if period > 0:
        board.poll_deadline = (board.tick // period + 1) * period
    follow_devices(board)


@entry
def device_firmware_settings(boards, ram_bytes, first, second, third):
    """Set CMOS memory (core/cmos_settings.py `store_machine`): what firmware finds there."""
    store_machine(boards[0].cmos, ram_bytes, first, second, third)


@entry
def devices_as_firmware_left_them(boards):
    """A machine that starts without firmware: configuration space and keyboard controller as its guest expects them.

    The host bridge's PAM registers say that all segments are RAM.
    """
    board = boards[0]
    configure_as_firmware(board.pci, PAM_ALL_RAM)
    map_moved_ports(board)
    begin_as_after_post(board.keyboard)


@entry
def device_disk_settings(boards, drive, cylinders, heads, sectors):
    """Set the geometry of disk 0 or 1 of the primary channel in CMOS memory."""
    store_disk(boards[0].cmos, drive, cylinders, heads, sectors)


@entry
def device_restart(boards, now):
    """A reset of the machine at tick `now`: CMOS memory, its clock, and what the owner has not taken yet, stay."""
    board = boards[0]
    board_advance(board, now)
    reset_devices(board)
