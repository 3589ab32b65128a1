"""Which device answers at a port: `board.decode`, filled at reset.

What the base addresses of PCI functions move is mapped anew when they move, where no other device is. Absent are the
8237 DMA controllers with their page registers, the floppy controller (0x3F2 to 0x3F5, 0x3F7), parallel ports and the third
and fourth serial port: their ports read as ones, by which firmware and kernels know that there are none.
"""

from .jit import kernel

DEVICE_NONE = 0
DEVICE_POST = 1
DEVICE_CONSOLE = 2
DEVICE_EXIT = 3
DEVICE_SHUTDOWN = 4
DEVICE_FLOAT_ERROR = 5
DEVICE_SYSTEM_CONTROL_A = 6
DEVICE_ELCR = 7
DEVICE_PCI_ADDRESS = 8
DEVICE_PCI_DATA = 9
DEVICE_EVENTS = 10
# Those from here on live in time.
DEVICE_PIC = 11
DEVICE_PIT = 12
DEVICE_SYSTEM_CONTROL = 13
DEVICE_VGA = 14
DEVICE_CMOS = 15
DEVICE_KEYBOARD = 16
DEVICE_UART_1 = 17
DEVICE_UART_2 = 18
DEVICE_POWER = 19
DEVICE_APM = 20
DEVICE_IDE_PRIMARY = 21
DEVICE_IDE_SECONDARY = 22
DEVICE_BUS_MASTER = 23
N_DEVICES = 24

FIRST_TIMED = DEVICE_PIC

PORT_MASTER_PIC = 0x20
PORT_PIT = 0x40
PORT_KEYBOARD = 0x60
PORT_SYSTEM_CONTROL = 0x61
PORT_KEYBOARD_COMMAND = 0x64
PORT_CMOS = 0x70
PORT_POST = 0x80
PORT_SYSTEM_CONTROL_A = 0x92
PORT_SLAVE_PIC = 0xA0
PORT_APM = 0xB2
PORT_CONSOLE = 0xE9
PORT_FLOAT_ERROR = 0xF0
PORT_IDE_SECONDARY = 0x170
PORT_IDE_PRIMARY = 0x1F0
PORT_EXIT = 0xF4
PORT_IDE_SECONDARY_CONTROL = 0x376
PORT_IDE_PRIMARY_CONTROL = 0x3F6
PORT_UART_2 = 0x2F8
PORT_VGA_MONOCHROME = 0x3B4
PORT_VGA = 0x3C0
PORT_VGA_COLOUR = 0x3D4
PORT_UART_1 = 0x3F8
PORT_DEBUG = 0x402
PORT_PCI_ADDRESS = 0xCF8
PORT_RESET_CONTROL = 0xCF9
PORT_PCI_DATA = 0xCFC
PORT_ELCR = 0x4D0
PORT_SHUTDOWN = 0x8900
PORT_EVENTS = 0xAFE0

BUS_MASTER_PORTS = 16
POWER_PORTS = 64
IDE_CONTROL = 0x200  # the bit that tells the control ports of IDE from its task files


@kernel
def map_ports(board, first, count, device):
    """Let a device answer at `count` ports."""
    for port in range(first, first + count):
        board.decode[port] = device


@kernel
def move_ports(board, before, base, count, device):
    """Move what a base address maps: only where no other device answers. 0 stands for nowhere; returns `base`."""
    if before != 0:
        for port in range(before, before + count):
            if board.decode[port] == device:
                board.decode[port] = DEVICE_NONE
    if base != 0:
        for port in range(base, base + count):
            if board.decode[port] == DEVICE_NONE:
                board.decode[port] = device
    return base


@kernel
def map_fixed_ports(board):
    """The ports that are always where they are. `is_plain_port` knows those below 0x100 too."""
    map_ports(board, PORT_MASTER_PIC, 2, DEVICE_PIC)
    map_ports(board, PORT_SLAVE_PIC, 2, DEVICE_PIC)
    map_ports(board, PORT_PIT, 4, DEVICE_PIT)
    map_ports(board, PORT_SYSTEM_CONTROL, 1, DEVICE_SYSTEM_CONTROL)
    map_ports(board, PORT_KEYBOARD, 1, DEVICE_KEYBOARD)
    map_ports(board, PORT_KEYBOARD_COMMAND, 1, DEVICE_KEYBOARD)
    map_ports(board, PORT_CMOS, 2, DEVICE_CMOS)
    map_ports(board, PORT_POST, 1, DEVICE_POST)
    map_ports(board, PORT_SYSTEM_CONTROL_A, 1, DEVICE_SYSTEM_CONTROL_A)
    map_ports(board, PORT_APM, 2, DEVICE_APM)
    map_ports(board, PORT_CONSOLE, 1, DEVICE_CONSOLE)
    map_ports(board, PORT_FLOAT_ERROR, 1, DEVICE_FLOAT_ERROR)
    map_ports(board, PORT_EXIT, 1, DEVICE_EXIT)
    map_ports(board, PORT_UART_2, 8, DEVICE_UART_2)
    map_ports(board, PORT_VGA_MONOCHROME, 2, DEVICE_VGA)
    map_ports(board, PORT_VGA_MONOCHROME + 6, 1, DEVICE_VGA)
    map_ports(board, PORT_VGA, 16, DEVICE_VGA)
    map_ports(board, PORT_VGA_COLOUR, 2, DEVICE_VGA)
    map_ports(board, PORT_VGA_COLOUR + 6, 1, DEVICE_VGA)
    map_ports(board, PORT_UART_1, 8, DEVICE_UART_1)
    map_ports(board, PORT_DEBUG, 1, DEVICE_CONSOLE)
    map_ports(board, PORT_IDE_PRIMARY, 8, DEVICE_IDE_PRIMARY)
    map_ports(board, PORT_IDE_PRIMARY_CONTROL, 1, DEVICE_IDE_PRIMARY)
    map_ports(board, PORT_IDE_SECONDARY, 8, DEVICE_IDE_SECONDARY)
    map_ports(board, PORT_IDE_SECONDARY_CONTROL, 1, DEVICE_IDE_SECONDARY)
    map_ports(board, PORT_ELCR, 2, DEVICE_ELCR)
    map_ports(board, PORT_PCI_ADDRESS, 4, DEVICE_PCI_ADDRESS)
    map_ports(board, PORT_PCI_DATA, 4, DEVICE_PCI_DATA)
    map_ports(board, PORT_SHUTDOWN, 1, DEVICE_SHUTDOWN)
    map_ports(board, PORT_EVENTS, 4, DEVICE_EVENTS)


@kernel
def map_moved_ports(board):
    """Follow the base addresses of the PCI functions."""
    pci = board.pci
    if board.bus_master_ports != pci.bus_master_base:
        board.bus_master_ports = move_ports(
            board, board.bus_master_ports, pci.bus_master_base, BUS_MASTER_PORTS, DEVICE_BUS_MASTER
        )
    if board.power_ports != pci.power_base:
        board.power_ports = move_ports(board, board.power_ports, pci.power_base, POWER_PORTS, DEVICE_POWER)


@kernel
def is_plain_port(port):
    """Whether a byte to or from a port below 0x100 touches nothing beyond it: the POST port, and those without a device."""
    if port & ~0x81 == PORT_MASTER_PIC or port & ~3 == PORT_PIT or port == PORT_SYSTEM_CONTROL:
        return False
    if port == PORT_CONSOLE or port == PORT_EXIT or port == PORT_FLOAT_ERROR or port == PORT_SYSTEM_CONTROL_A:
        return False
    if port == PORT_KEYBOARD or port == PORT_KEYBOARD_COMMAND or port & ~1 == PORT_CMOS or port & ~1 == PORT_APM:
        return False
    return True
