"""IN and OUT as the board sees them: the device of the port, and what it does.

Configuration space, the exit port and IDE take an access of any width whole. Others get it byte by byte at successive
ports. An access to a device that lives in time advances the board first, and leaves `board.deadlines_moved` set: whoever
runs the processor then looks at the deadlines anew.
"""

import numpy as np

from .board import (
    BOARD_EXIT,
    BOARD_OK,
    board_advance,
    float_error_port,
)
from .device_ports import device_port_read, device_port_write, request_reset
from .ide import ends_ide_block
from .ide_ports import ide_byte_read, ide_byte_write, ide_port_read, ide_port_write, is_ide, is_ide_data
from .jit import kernel
from .pci import address_write, configuration_read, configuration_write
from .port_map import (
    DEVICE_CMOS,
    DEVICE_CONSOLE,
    DEVICE_ELCR,
    DEVICE_EVENTS,
    DEVICE_EXIT,
    DEVICE_FLOAT_ERROR,
    DEVICE_PCI_ADDRESS,
    DEVICE_PCI_DATA,
    DEVICE_PIC,
    DEVICE_PIT,
    DEVICE_POST,
    DEVICE_SHUTDOWN,
    DEVICE_SYSTEM_CONTROL,
    DEVICE_SYSTEM_CONTROL_A,
    DEVICE_VGA,
    FIRST_TIMED,
    PORT_CONSOLE,
    PORT_PCI_DATA,
    PORT_RESET_CONTROL,
    map_moved_ports,
)
from .power import read_events, write_events
from .system_ports import (
    console_write,
    elcr_write,
    pic_port_read,
    pic_port_write,
    pit_port_read,
    pit_port_write,
    shutdown_write,
    system_control_read,
    system_control_write,
)
from .vga import read_vga, write_vga

RESET_PROCESSOR = 4  # port 0xCF9: a rise of this bit resets


@kernel
def device_of(board, port):
    """The device of a port."""
    return np.int64(board.decode[port])


@kernel
def depends_on_time(board, port, n, writes):
    """1 if it matters at which tick `n` ports from `port` are read, or written: what they tell depends on it, or what becomes
    of the device. What the PICs tell follows from their inputs; within a block of a disk's data no word begins anything."""
    device = device_of(board, port)
    if is_ide_data(device, port):
        return ends_ide_block(board.ide, port, n)
    for number in range(n):
        part = (port + number) & 0xFFFF
        device = device_of(board, part)
        if device == DEVICE_PIT and (writes == 1 or part & 3 != 3):
            return 1
        if device == DEVICE_SYSTEM_CONTROL or device >= DEVICE_CMOS:
            return 1
        if device == DEVICE_VGA and writes == 0 and part & 0xF == 0xA:
            return 1
    return 0


# -- the ports that reset -------------------------------------------------------------------------------------------


@kernel
def system_control_a_write(board, value):
    """Port 0x92: bit 1 opens the A20 gate, a rise of bit 0 resets (82371SB, section 2.5.5.3)."""
    board.a20_closed = 1 - ((value >> 1) & 1)
    rises = value & 1 & ~board.fast_reset
    board.fast_reset = value & 1
    if rises != 0:
        return request_reset(board)
    return BOARD_OK


@kernel
def reset_control_write(board, value):
    """Port 0xCF9: a rise of bit 2 resets (82371SB, section 2.5.5.2)."""
    rises = value & RESET_PROCESSOR & ~board.reset_control
    board.reset_control = value & 0x06
    if rises != 0:
        return request_reset(board)
    return BOARD_OK


# -- configuration space --------------------------------------------------------------------------------------------


@kernel
def configuration_port_write(board, port, n, value):
    """CONFIG_ADDRESS takes doublewords alone; bytes at 0xCF9 are the reset control's. CONFIG_DATA takes all widths."""
    if port >= PORT_PCI_DATA:
        configuration_write(board.pci, port & 3, n, value)
        map_moved_ports(board)
    elif n == 4:
        address_write(board.pci, value)
    elif n == 1 and port == PORT_RESET_CONTROL:
        return reset_control_write(board, value)
    return BOARD_OK


@kernel
def configuration_port_read(board, port, n):
    """CONFIG_ADDRESS, the reset control, or CONFIG_DATA."""
    if port >= PORT_PCI_DATA:
        return configuration_read(board.pci, port & 3, n)
    if n == 4:
        return board.pci.address
    if n == 1 and port == PORT_RESET_CONTROL:
        return board.reset_control
    return (1 << (8 * n)) - 1


@kernel
def is_configuration_access(device, port, n):
    """Whether an access lies within CONFIG_ADDRESS or within CONFIG_DATA."""
    return (device == DEVICE_PCI_ADDRESS or device == DEVICE_PCI_DATA) and (port & 3) + n <= 4


# -- bytes ----------------------------------------------------------------------------------------------------------


@kernel
def timed_write(board, device, port, value):
    """A byte to a device that lives in time; the board is advanced."""
    if device == DEVICE_PIC:
        pic_port_write(board, port >> 7, port & 1, value)
    elif device == DEVICE_PIT:
        pit_port_write(board, port & 3, value)
    elif device == DEVICE_SYSTEM_CONTROL:
        system_control_write(board, value)
    elif device == DEVICE_VGA:
        write_vga(board.vga, port, value)
        return BOARD_OK
    else:
        return device_port_write(board, device, port, value)
    board.deadlines_moved = 1
    return BOARD_OK


@kernel
def timed_read(board, device, port):
    """A byte from a device that lives in time; the board is advanced."""
    if device == DEVICE_PIC:
        return pic_port_read(board, port >> 7, port & 1)
    if device == DEVICE_PIT:
        return pit_port_read(board, port & 3)
    if device == DEVICE_SYSTEM_CONTROL:
        return system_control_read(board)
    if device == DEVICE_VGA:
        return read_vga(board.vga, port, board.tick, board.ticks_per_second)
    return device_port_read(board, device, port)


@kernel
def byte_write(board, port, value, now):
    """Write a byte to a port at tick `now`; returns BOARD outcomes."""
    device = device_of(board, port)
    if is_ide(device):
        return ide_byte_write(board, device, port, value, now)
    if device >= FIRST_TIMED:
        board_advance(board, now)
        return timed_write(board, device, port, value)
    if device == DEVICE_CONSOLE:
        return console_write(board, value)
    if device == DEVICE_SHUTDOWN:
        return shutdown_write(board, value)
    if device == DEVICE_SYSTEM_CONTROL_A:
        return system_control_a_write(board, value)
    if device == DEVICE_PCI_ADDRESS or device == DEVICE_PCI_DATA:
        return configuration_port_write(board, port, 1, value)
    if device == DEVICE_POST:
        board.post_code = value
    elif device == DEVICE_FLOAT_ERROR:
        float_error_port(board)
    elif device == DEVICE_ELCR:
        elcr_write(board, port & 1, value)
    elif device == DEVICE_EVENTS:
        write_events(board.power, port, value)
    else:
        board.unclaimed_writes += 1
    return BOARD_OK


@kernel
def byte_read(board, port, now):
    """Read a byte from a port at tick `now`; all ones where no device answers."""
    device = device_of(board, port)
    if is_ide(device):
        return ide_byte_read(board, device, port, now)
    if device >= FIRST_TIMED:
        board_advance(board, now)
        return timed_read(board, device, port)
    if device == DEVICE_CONSOLE:
        return PORT_CONSOLE
    if device == DEVICE_POST:
        return board.post_code
    if device == DEVICE_SYSTEM_CONTROL_A:
        return (1 - board.a20_closed) << 1 | board.fast_reset
    if device == DEVICE_ELCR:
        return board.pic[port & 1].elcr
    if device == DEVICE_EVENTS:
        return read_events(board.power, port)
    if device == DEVICE_PCI_ADDRESS or device == DEVICE_PCI_DATA:
        return configuration_port_read(board, port, 1)
    board.unclaimed_reads += 1
    return 0xFF


# -- any width ------------------------------------------------------------------------------------------------------


@kernel
def port_write(board, port, width_bytes, value, now):
    """OUT: write 1, 2 or 4 bytes to ports 0 to 0xFFFF at tick `now`.

    Returns BOARD_OK, or the outcomes that ask for attention; the write has been done either way."""
    device = device_of(board, port)
    if device == DEVICE_EXIT:
        board.exit_requested = 1
        board.exit_code = value & 0xFF
        return BOARD_EXIT
    if is_configuration_access(device, port, width_bytes):
        return configuration_port_write(board, port, width_bytes, value)
    if is_ide_data(device, port):
        return ide_port_write(board, port, width_bytes, value, now)
    outcome = BOARD_OK
    for number in range(width_bytes):
        outcome |= byte_write(board, (port + number) & 0xFFFF, (value >> (8 * number)) & 0xFF, now)
    return outcome


@kernel
def port_read(board, port, width_bytes, now):
    """IN: read 1, 2 or 4 bytes from ports 0 to 0xFFFF at tick `now`."""
    device = device_of(board, port)
    if is_configuration_access(device, port, width_bytes):
        return configuration_port_read(board, port, width_bytes)
    if is_ide_data(device, port):
        return ide_port_read(board, port, width_bytes, now)
    value = 0
    for number in range(width_bytes):
        value |= byte_read(board, (port + number) & 0xFFFF, now) << (8 * number)
    return value
