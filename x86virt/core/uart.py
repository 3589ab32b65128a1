"""The 16550A serial port: registers, FIFOs, interrupts, loop-back.

Source: National Semiconductor, PC16550D Universal Asynchronous Receiver/Transmitter with FIFOs, data sheet, section 8
(registers), 8.4 to 8.7 (FIFO control, interrupts), 8.11 (FIFO interrupt modes), and 8.9 (loop-back).

The line is infinitely fast towards the host: a byte that is sent is in the host's buffer at once, and the transmitter is
empty again a microsecond later, whatever the divisor, so that no driver waits for 115200 baud. A full buffer loses bytes.
What is received comes at the pace at which the owner gives it, into the FIFO, or the one byte of the receiver; only the
time-out of the receive FIFO follows the divisor. The modem lines of the other side are on. On a PC the interrupt passes a
gate that OUT2 opens; in loop-back OUT2 is off, and the gate closed.
"""

import numpy as np

from .jit import kernel
from .layout import NEVER

FIFO_BYTES = 16
SENT_BYTES = 1 << 14
SENT_NEARLY_FULL = SENT_BYTES - 2048
CLOCK_HZ = 115200  # 1.8432 MHz / 16: bits a second with divisor 1
SENDS_PER_SECOND = 1_000_000
TIME_OUT_BITS = 4 * 10  # four characters

DATA, INTERRUPT_ENABLE, IDENTIFICATION, LINE_CONTROL, MODEM_CONTROL, LINE_STATUS, MODEM_STATUS, SCRATCH = range(8)

ENABLE_RECEIVED = 0x01
ENABLE_TRANSMITTER = 0x02
ENABLE_LINE_STATUS = 0x04
ENABLE_MODEM_STATUS = 0x08

NO_INTERRUPT = 0x01
LINE_STATUS_INTERRUPT = 0x06
RECEIVED_INTERRUPT = 0x04
TIME_OUT_INTERRUPT = 0x0C
TRANSMITTER_INTERRUPT = 0x02
MODEM_STATUS_INTERRUPT = 0x00
FIFOS_ENABLED = 0xC0

FIFO_ENABLE = 0x01
FIFO_CLEAR_RECEIVER = 0x02

DIVISOR_ACCESS = 0x80

MODEM_READY = 0x01  # DTR
MODEM_REQUEST = 0x02  # RTS
MODEM_OUT_1 = 0x04
MODEM_OUT_2 = 0x08
MODEM_LOOP = 0x10

STATUS_OVERRUN = 0x02
STATUS_TRANSMITTER_EMPTY = 0x60  # THRE and TEMT

LINES_ON = 0xB0  # DCD, DSR and CTS of the other side
RING = 0x40

# What a write asks of the board.
ASKS_HOST = 1  # the buffer for the host is nearly full

UART = np.dtype(
    [
        ("interrupt_enable", "i8"),
        ("fifo_control", "i8"),  # bit 0 and the trigger level
        ("line_control", "i8"),
        ("modem_control", "i8"),
        ("line_errors", "i8"),  # error bits of the line status
        ("modem_lines", "i8"),  # bits 7:4 of the modem status
        ("modem_changes", "i8"),  # bits 3:0
        ("scratch", "i8"),
        ("divisor", "i8"),
        ("received_first", "i8"),
        ("received_count", "i8"),
        ("received", "u1", FIFO_BYTES),  # a ring
        ("timed_out", "i8"),  # bytes have stayed in the receive FIFO for too long
        ("time_out_tick", "i8"),  # when they will have
        ("sending", "i8"),  # 1: the transmitter is not empty
        ("sent_tick", "i8"),  # when it will be
        ("transmitter_waits", "i8"),  # 1: the interrupt of the empty transmitter has not been seen yet
        ("irq", "i8"),
        ("deadline", "i8"),
        ("sent_length", "i8"),
        ("sent_lost", "i8"),  # bytes sent while the buffer was full
        ("sent", "u1", SENT_BYTES),
    ]
)


@kernel
def reset_uart(uart):
    """Master reset; what was sent stays the host's. The scratch register and the divisor begin with values of their own."""
    uart.interrupt_enable = 0
    uart.fifo_control = 0
    uart.line_control = 0
    uart.modem_control = 0
    uart.line_errors = 0
    uart.modem_lines = LINES_ON
    uart.modem_changes = 0
    uart.scratch = 0
    uart.divisor = 12
    uart.timed_out = 0
    uart.time_out_tick = NEVER
    uart.sending = 0
    uart.sent_tick = NEVER
    uart.transmitter_waits = 0
    uart.irq = 0
    uart.deadline = NEVER
    empty_receiver(uart)


@kernel
def empty_receiver(uart):
    """Forget what was received."""
    uart.received_first = 0
    uart.received_count = 0
    uart.timed_out = 0
    uart.time_out_tick = NEVER


# -- interrupts -----------------------------------------------------------------------------------------------------


@kernel
def trigger_level(uart):
    """Received bytes that raise the interrupt."""
    if uart.fifo_control & FIFO_ENABLE == 0:
        return 1
    level = uart.fifo_control >> 6
    if level == 0:
        return 1
    if level == 3:
        return 14
    return 4 * level


@kernel
def interrupt_source(uart):
    """The interrupt of highest priority that is enabled and pending, as the identification register names it."""
    enabled = uart.interrupt_enable
    if enabled & ENABLE_LINE_STATUS != 0 and uart.line_errors != 0:
        return LINE_STATUS_INTERRUPT
    if enabled & ENABLE_RECEIVED != 0 and uart.received_count >= trigger_level(uart):
        return RECEIVED_INTERRUPT
    if enabled & ENABLE_RECEIVED != 0 and uart.timed_out == 1:
        return TIME_OUT_INTERRUPT
    if enabled & ENABLE_TRANSMITTER != 0 and uart.transmitter_waits == 1:
        return TRANSMITTER_INTERRUPT
    if enabled & ENABLE_MODEM_STATUS != 0 and uart.modem_changes != 0:
        return MODEM_STATUS_INTERRUPT
    return NO_INTERRUPT


@kernel
def follow_uart(uart):
    """After any change: the interrupt line, and when something becomes of the port by itself that makes an interrupt."""
    gate_open = uart.modem_control & (MODEM_OUT_2 | MODEM_LOOP) == MODEM_OUT_2
    uart.irq = int(gate_open and interrupt_source(uart) != NO_INTERRUPT)
    uart.deadline = NEVER
    if uart.interrupt_enable & ENABLE_TRANSMITTER != 0:
        uart.deadline = uart.sent_tick
    if uart.interrupt_enable & ENABLE_RECEIVED != 0:
        uart.deadline = min(uart.deadline, uart.time_out_tick)


@kernel
def settle_uart(uart, now):
    """Bring the port up to a tick: the transmitter may have become empty, the receive FIFO have timed out."""
    if now >= uart.sent_tick:
        uart.sent_tick = NEVER
        uart.sending = 0
        uart.transmitter_waits = 1
    if now >= uart.time_out_tick:
        uart.time_out_tick = NEVER
        uart.timed_out = 1


@kernel
def advance_uart(uart, now):
    """The deadline was reached."""
    settle_uart(uart, now)
    follow_uart(uart)


# -- the receiver ---------------------------------------------------------------------------------------------------


@kernel
def watch_receiver(uart, now, ticks_per_second):
    """A byte came or was taken: the time-out of a FIFO that is not empty begins anew."""
    uart.timed_out = 0
    uart.time_out_tick = NEVER
    if uart.fifo_control & FIFO_ENABLE != 0 and uart.received_count > 0:
        uart.time_out_tick = now + TIME_OUT_BITS * max(uart.divisor, 1) * ticks_per_second // CLOCK_HZ


@kernel
def room(uart):
    """Bytes that the receiver can still take."""
    if uart.fifo_control & FIFO_ENABLE == 0:
        return 1 - min(uart.received_count, 1)
    return FIFO_BYTES - uart.received_count


@kernel
def receive(uart, value):
    """A byte arrives; the FIFO has room."""
    uart.received[(uart.received_first + uart.received_count) % FIFO_BYTES] = value
    uart.received_count += 1


@kernel
def give_input(uart, octets, now, ticks_per_second):
    """The other side sends bytes. Returns how many of them, from the first, the receiver had room for."""
    settle_uart(uart, now)
    taken = 0
    if uart.modem_control & MODEM_LOOP == 0:
        taken = min(len(octets), room(uart))
        for number in range(taken):
            receive(uart, np.int64(octets[number]))
    if taken > 0:
        watch_receiver(uart, now, ticks_per_second)
    follow_uart(uart)
    return taken


@kernel
def take_received(uart, now, ticks_per_second):
    """Read the receiver; 0 when it is empty."""
    if uart.received_count == 0:
        return 0
    value = np.int64(uart.received[uart.received_first])
    uart.received_first = (uart.received_first + 1) % FIFO_BYTES
    uart.received_count -= 1
    watch_receiver(uart, now, ticks_per_second)
    return value


# -- the transmitter ------------------------------------------------------------------------------------------------


@kernel
def keep_for_host(uart, value):
    """A byte goes to the host's buffer."""
    if uart.sent_length >= SENT_BYTES:
        uart.sent_lost += 1
        return ASKS_HOST
    uart.sent[uart.sent_length] = value
    uart.sent_length += 1
    return int(uart.sent_length > SENT_NEARLY_FULL)


@kernel
def loop_back(uart, value, now, ticks_per_second):
    """A byte comes back to the receiver."""
    if room(uart) > 0:
        receive(uart, value)
    else:
        uart.line_errors |= STATUS_OVERRUN
        if uart.fifo_control & FIFO_ENABLE == 0:
            uart.received[uart.received_first] = value
    watch_receiver(uart, now, ticks_per_second)


@kernel
def send(uart, value, now, ticks_per_second):
    """A byte to the transmitter; returns ASKS_HOST or 0."""
    uart.transmitter_waits = 0
    uart.sending = 1
    uart.sent_tick = now + ticks_per_second // SENDS_PER_SECOND
    if uart.modem_control & MODEM_LOOP != 0:
        loop_back(uart, value, now, ticks_per_second)
        return 0
    return keep_for_host(uart, value)


# -- modem lines ----------------------------------------------------------------------------------------------------


@kernel
def follow_modem_lines(uart):
    """The inputs are the other side's, or in loop-back the port's own outputs; what changed is kept."""
    lines = LINES_ON
    control = uart.modem_control
    if control & MODEM_LOOP != 0:
        lines = (control & MODEM_REQUEST) << 3 | (control & MODEM_READY) << 5 | (control & (MODEM_OUT_1 | MODEM_OUT_2)) << 4
    changes = (lines ^ uart.modem_lines) >> 4
    # The change of the ring indicator is its falling edge.
    if lines & RING != 0:
        changes &= ~(RING >> 4)
    uart.modem_lines = lines
    uart.modem_changes |= changes


# -- registers ------------------------------------------------------------------------------------------------------


@kernel
def write_interrupt_enable(uart, value):
    """An empty transmitter makes its interrupt when that is enabled."""
    if value & ~uart.interrupt_enable & ENABLE_TRANSMITTER != 0 and uart.sending == 0:
        uart.transmitter_waits = 1
    uart.interrupt_enable = value & 0x0F


@kernel
def write_fifo_control(uart, value):
    """Switching the FIFOs on or off empties them; bits 1 and 2 do so too. The transmitter's is always empty."""
    if (value ^ uart.fifo_control) & FIFO_ENABLE != 0:
        empty_receiver(uart)
    uart.fifo_control = 0
    if value & FIFO_ENABLE != 0:
        uart.fifo_control = value & 0xC1
        if value & FIFO_CLEAR_RECEIVER != 0:
            empty_receiver(uart)


@kernel
def write_register(uart, register, value, now, ticks_per_second):
    """A byte to a register; returns ASKS_HOST or 0."""
    if register <= INTERRUPT_ENABLE and uart.line_control & DIVISOR_ACCESS != 0:
        shift = 8 * register
        uart.divisor = (uart.divisor & ~(0xFF << shift)) | value << shift
    elif register == DATA:
        return send(uart, value, now, ticks_per_second)
    elif register == INTERRUPT_ENABLE:
        write_interrupt_enable(uart, value)
    elif register == IDENTIFICATION:
        write_fifo_control(uart, value)
    elif register == LINE_CONTROL:
        uart.line_control = value
    elif register == MODEM_CONTROL:
        uart.modem_control = value & 0x1F
        follow_modem_lines(uart)
    elif register == SCRATCH:
        uart.scratch = value
    return 0


@kernel
def write_uart(uart, register, value, now, ticks_per_second):
    """A byte to a register at a tick; returns ASKS_HOST or 0."""
    settle_uart(uart, now)
    asks = write_register(uart, register, value, now, ticks_per_second)
    follow_uart(uart)
    return asks


@kernel
def read_identification(uart):
    """Which interrupt; naming the transmitter's clears it."""
    source = interrupt_source(uart)
    if source == TRANSMITTER_INTERRUPT:
        uart.transmitter_waits = 0
    if uart.fifo_control & FIFO_ENABLE != 0:
        source |= FIFOS_ENABLED
    return source


@kernel
def read_line_status(uart):
    """The errors are cleared."""
    value = uart.line_errors | int(uart.received_count > 0)
    if uart.sending == 0:
        value |= STATUS_TRANSMITTER_EMPTY
    uart.line_errors = 0
    return value


@kernel
def read_modem_status(uart):
    """The changes are cleared."""
    value = uart.modem_lines | uart.modem_changes
    uart.modem_changes = 0
    return value


@kernel
def read_register(uart, register, now, ticks_per_second):
    """A byte from a register."""
    if register <= INTERRUPT_ENABLE and uart.line_control & DIVISOR_ACCESS != 0:
        return (uart.divisor >> (8 * register)) & 0xFF
    if register == DATA:
        return take_received(uart, now, ticks_per_second)
    if register == INTERRUPT_ENABLE:
        return uart.interrupt_enable
    if register == IDENTIFICATION:
        return read_identification(uart)
    if register == LINE_CONTROL:
        return uart.line_control
    if register == MODEM_CONTROL:
        return uart.modem_control
    if register == LINE_STATUS:
        return read_line_status(uart)
    if register == MODEM_STATUS:
        return read_modem_status(uart)
    return uart.scratch


@kernel
def read_uart(uart, register, now, ticks_per_second):
    """A byte from a register at a tick."""
    settle_uart(uart, now)
    value = read_register(uart, register, now, ticks_per_second)
    follow_uart(uart)
    return value
