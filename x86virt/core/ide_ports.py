"""The board's side of IDE: ports to registers, what the drives leave behind to lines, deadlines and attention."""

import numpy as np

from .board import BOARD_DISK, BOARD_OK, board_advance, follow_devices
from .ide import REGISTER_DATA, bus_master_read, bus_master_write, ide_read, ide_write
from .jit import kernel
from .pci import COMMAND, COMMAND_MASTER, IDE_FUNCTION
from .port_map import BUS_MASTER_PORTS, DEVICE_BUS_MASTER, DEVICE_IDE_PRIMARY, DEVICE_IDE_SECONDARY, IDE_CONTROL


@kernel
def is_ide_data(device, port):
    """Whether a port is a data register, which takes an access of any width whole."""
    if device != DEVICE_IDE_PRIMARY and device != DEVICE_IDE_SECONDARY:
        return False
    return port & 7 == REGISTER_DATA and port & IDE_CONTROL == 0


@kernel
def follow_ide(board):
    """After an access: its lines and deadlines, and whether the host's half has something to do (BOARD outcomes)."""
    if board.ide.moved == 0:
        return BOARD_OK
    board.ide.moved = 0
    board.deadlines_moved = 1
    follow_devices(board)
    if board.ide.asks_host == 0:
        return BOARD_OK
    return BOARD_DISK


@kernel
def see_present(board, now):
    """Bring the board up to date before an access; most words of data find it so."""
    if now >= board.device_deadline:
        board_advance(board, now)


@kernel
def ide_port_read(board, port, n, now):
    """IN from a port of the task file or a control register. The last word of a block may ask for the next sectors."""
    see_present(board, now)
    value = ide_read(board.ide, port, n, now)
    board.attention |= follow_ide(board)
    return value


@kernel
def ide_port_write(board, port, n, value, now):
    """OUT to a port of the task file or a control register."""
    see_present(board, now)
    follow_bus_master_enable(board)
    ide_write(board.ide, port, n, value, now)
    return follow_ide(board)


@kernel
def follow_bus_master_enable(board):
    """The bus master moves nothing unless the PCI function may."""
    enabled = int(np.int64(board.pci.space[IDE_FUNCTION, COMMAND]) & COMMAND_MASTER != 0)
    board.ide.channels[0].master_enabled = enabled
    board.ide.channels[1].master_enabled = enabled


@kernel
def master_port_read(board, port, now):
    """IN of a byte of the bus master's registers."""
    see_present(board, now)
    return bus_master_read(board.ide, (port - board.bus_master_ports) & (BUS_MASTER_PORTS - 1))


@kernel
def master_port_write(board, port, value, now):
    """OUT of a byte to the bus master's registers."""
    see_present(board, now)
    follow_bus_master_enable(board)
    bus_master_write(board.ide, (port - board.bus_master_ports) & (BUS_MASTER_PORTS - 1), value, now)
    return follow_ide(board)


@kernel
def is_ide(device):
    """Whether a device is one of the IDE function's."""
    return device == DEVICE_IDE_PRIMARY or device == DEVICE_IDE_SECONDARY or device == DEVICE_BUS_MASTER


@kernel
def ide_byte_read(board, device, port, now):
    """IN of a byte from any port of IDE."""
    if device == DEVICE_BUS_MASTER:
        return master_port_read(board, port, now)
    return ide_port_read(board, port, 1, now)


@kernel
def ide_byte_write(board, device, port, value, now):
    """OUT of a byte to any port of IDE."""
    if device == DEVICE_BUS_MASTER:
        return master_port_write(board, port, value, now)
    return ide_port_write(board, port, 1, value, now)
