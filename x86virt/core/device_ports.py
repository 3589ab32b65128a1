"""The ports of the devices that keep an interrupt line and a deadline of their own: clock, keyboard, serial, power.

The board has been advanced: `board.tick` is the present, or the moment at which its time stopped. Behind each access the
board takes over what the device left in its record.
"""

from .board import BOARD_OK, BOARD_POWER_OFF, BOARD_RESET, BOARD_SERIAL, follow_devices
from .cmos import read_cmos, write_cmos
from .jit import kernel
from .keyboard import read_keyboard, write_keyboard
from .port_map import DEVICE_APM, DEVICE_CMOS, DEVICE_KEYBOARD, DEVICE_POWER, DEVICE_UART_1, DEVICE_UART_2
from .power import read_apm, read_power, write_apm, write_power
from .uart import read_uart, write_uart


@kernel
def request_reset(board):
    """Ask the owner for a reset."""
    board.reset_requested = 1
    return BOARD_RESET


@kernel
def keyboard_port_write(board, port, value, now, second):
    """The keyboard controller moves the A20 gate too, which it shares with port 0x92: whoever wrote last has it."""
    board.keyboard.a20_closed = board.a20_closed
    asks = write_keyboard(board.keyboard, port, value, now, second)
    board.a20_closed = board.keyboard.a20_closed
    if asks != 0:
        return request_reset(board)
    return BOARD_OK


@kernel
def uart_port_write(board, number, port, value, now, second):
    """A register of a serial port."""
    if write_uart(board.uart[number], port & 7, value, now, second) != 0:
        return BOARD_SERIAL
    return BOARD_OK


@kernel
def power_port_write(board, port, value, now, second):
    """A register of power management."""
    if write_power(board.power, port, value, now, second) != 0:
        board.power_off_requested = 1
        return BOARD_POWER_OFF
    return BOARD_OK


@kernel
def device_port_write(board, device, port, value):
    """A byte to one of these devices; returns BOARD outcomes."""
    now, second = board.tick, board.ticks_per_second
    outcome = BOARD_OK
    if device == DEVICE_UART_1 or device == DEVICE_UART_2:
        outcome = uart_port_write(board, device - DEVICE_UART_1, port, value, now, second)
    elif device == DEVICE_KEYBOARD:
        outcome = keyboard_port_write(board, port, value, now, second)
    elif device == DEVICE_CMOS:
        write_cmos(board.cmos, port, value, now, second)
    elif device == DEVICE_POWER:
        outcome = power_port_write(board, port, value, now, second)
    elif device == DEVICE_APM:
        write_apm(board.power, port, value, now, second)
    follow_devices(board)
    return outcome


@kernel
def device_port_read(board, device, port):
    """A byte from one of these devices."""
    now, second = board.tick, board.ticks_per_second
    value = 0xFF
    if device == DEVICE_UART_1 or device == DEVICE_UART_2:
        value = read_uart(board.uart[device - DEVICE_UART_1], port & 7, now, second)
    elif device == DEVICE_KEYBOARD:
        value = read_keyboard(board.keyboard, port, now, second)
    elif device == DEVICE_CMOS:
        value = read_cmos(board.cmos, port, now, second)
    elif device == DEVICE_POWER:
        value = read_power(board.power, port, now, second)
    elif device == DEVICE_APM:
        value = read_apm(board.power, port)
    follow_devices(board)
    return value
