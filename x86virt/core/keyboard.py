"""The 8042 keyboard controller with an AT keyboard, ports 0x60 and 0x64.

Sources: IBM, Personal System/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller" (status,
command byte, commands, output port) and "Keyboard (101- and 102-Key)" (commands, scan code sets 1 and 2).

The controller does its commands at once, so that its input buffer is never full; its answers replace what stands in the
output buffer. A byte of the keyboard's takes a millisecond on its line and waits there while the output buffer is full or
the keyboard's clock is held. The keyboard keeps 16 bytes of scan codes, of set 2 or 1; set 3 is refused. Its self-test
takes no time. Nothing is attached to the second port: its clock stays high, its enable bit cannot be cleared, what is sent
there is answered by a time-out, and the loop-back command answers as if the byte were the keyboard's, by which drivers
know that the port is absent.
"""

import numpy as np

from .jit import kernel
from .layout import NEVER

SCAN_BYTES = 16
RESPONSE_BYTES = 8
BYTES_PER_SECOND = 1000

STATUS_SYSTEM = 0x04
STATUS_NOT_LOCKED = 0x10
STATUS_SECOND_PORT = 0x20
STATUS_TIME_OUT = 0x40

# The command byte, byte 0 of the controller's memory.
ENABLE_INTERRUPT = 0x01
ENABLE_SECOND_INTERRUPT = 0x02
SYSTEM_FLAG = 0x04
HOLD_CLOCK = 0x10
HOLD_SECOND_CLOCK = 0x20
TRANSLATE = 0x40

READ_MEMORY = 0x20  # to 0x3F
WRITE_MEMORY = 0x60  # to 0x7F
TEST_PASSWORD = 0xA4
TEST_SECOND_PORT = 0xA9
TEST_CONTROLLER = 0xAA
TEST_KEYBOARD_PORT = 0xAB
DISABLE_KEYBOARD = 0xAD
ENABLE_KEYBOARD = 0xAE
READ_INPUT_PORT = 0xC0
READ_OUTPUT_PORT = 0xD0
WRITE_OUTPUT_PORT = 0xD1  # then the output buffer, 0xD2, and that of the second port, 0xD3
WRITE_SECOND_PORT = 0xD4
CLOSE_A20 = 0xDD
OPEN_A20 = 0xDF
READ_TEST_INPUTS = 0xE0
PULSE_OUTPUT_PORT = 0xF0  # to 0xFF

OUTPUT_PORT_HIGH = 0xCD  # lines that nothing pulls down, among them the processor's reset
OUTPUT_PORT_A20 = 0x02

SET_INDICATORS = 0xED
ECHO = 0xEE
CHOOSE_SET = 0xF0
IDENTIFY = 0xF2
SET_RATE = 0xF3
ENABLE = 0xF4
DISABLE = 0xF5
SET_DEFAULTS = 0xF6
SET_KEY = 0xFB  # to 0xFD
RESEND = 0xFE
RESET = 0xFF
ACKNOWLEDGE = 0xFA
TEST_PASSED = 0xAA
DEFAULT_RATE = 0x2B  # 10.9 characters a second, after half a second
BREAK = 0xF0

# What a write asks of the board.
ASKS_RESET = 1

KEYBOARD = np.dtype(
    [
        ("memory", "u1", 32),  # of the controller; byte 0 is the command byte
        ("output", "i8"),  # output buffer
        ("output_full", "i8"),
        ("output_second", "i8"),  # STATUS_SECOND_PORT, STATUS_TIME_OUT of the byte in it
        ("command_last", "i8"),  # 1: the last write was to port 0x64
        ("expected_by", "i8"),  # the controller command whose byte is still to come, 0 none
        ("a20_closed", "i8"),  # as the board has it; the output port changes it
        ("released", "i8"),  # translating: bit 7 after the prefix of a release
        ("keyboard_released", "i8"),  # the same, in the keyboard while it sends set 1
        ("scanning", "i8"),
        ("code_set", "i8"),  # 1 or 2
        ("rate", "i8"),
        ("indicators", "i8"),
        ("parameter_of", "i8"),  # the keyboard command whose parameter is still to come, 0 none
        ("last_sent", "i8"),
        ("scan_first", "i8"),
        ("scan_count", "i8"),
        ("scan", "u1", SCAN_BYTES),  # a ring
        ("response_first", "i8"),
        ("response_count", "i8"),
        ("response", "u1", RESPONSE_BYTES),  # a ring
        ("irq", "i8"),
        ("second_irq", "i8"),
        ("deadline", "i8"),  # when the byte that is on the line arrives
    ]
)

# Scan code set 2 to set 1, as the controller translates; bytes from 0x85 on stay as they are.
TRANSLATION = np.array(
    [
        0xFF, 0x43, 0x41, 0x3F, 0x3D, 0x3B, 0x3C, 0x58, 0x64, 0x44, 0x42, 0x40, 0x3E, 0x0F, 0x29, 0x59,
        0x65, 0x38, 0x2A, 0x70, 0x1D, 0x10, 0x02, 0x5A, 0x66, 0x71, 0x2C, 0x1F, 0x1E, 0x11, 0x03, 0x5B,
        0x67, 0x2E, 0x2D, 0x20, 0x12, 0x05, 0x04, 0x5C, 0x68, 0x39, 0x2F, 0x21, 0x14, 0x13, 0x06, 0x5D,
        0x69, 0x31, 0x30, 0x23, 0x22, 0x15, 0x07, 0x5E, 0x6A, 0x72, 0x32, 0x24, 0x16, 0x08, 0x09, 0x5F,
        0x6B, 0x33, 0x25, 0x17, 0x18, 0x0B, 0x0A, 0x60, 0x6C, 0x34, 0x35, 0x26, 0x27, 0x19, 0x0C, 0x61,
        0x6D, 0x73, 0x28, 0x74, 0x1A, 0x0D, 0x62, 0x6E, 0x3A, 0x36, 0x1C, 0x1B, 0x75, 0x2B, 0x63, 0x76,
        0x55, 0x56, 0x77, 0x78, 0x79, 0x7A, 0x0E, 0x7B, 0x7C, 0x4F, 0x7D, 0x4B, 0x47, 0x7E, 0x7F, 0x6F,
        0x52, 0x53, 0x50, 0x4C, 0x4D, 0x48, 0x01, 0x45, 0x57, 0x4E, 0x51, 0x4A, 0x37, 0x49, 0x46, 0x54,
        0x80, 0x81, 0x82, 0x41, 0x54,
    ],
    np.int64,
)  # fmt: skip


@kernel
def reset_keyboard(keyboard):
    """Power on, as the self-tests leave it: nothing translated or interrupting, the clock held, A20 open."""
    for number in range(32):
        keyboard.memory[number] = 0
    keyboard.memory[0] = HOLD_CLOCK | HOLD_SECOND_CLOCK
    keyboard.output = 0
    keyboard.output_full = 0
    keyboard.output_second = 0
    keyboard.command_last = 0
    keyboard.expected_by = 0
    keyboard.a20_closed = 0
    keyboard.released = 0
    keyboard.parameter_of = 0
    keyboard.last_sent = 0
    keyboard.indicators = 0
    keyboard.response_first = 0
    keyboard.response_count = 0
    keyboard.irq = 0
    keyboard.second_irq = 0
    keyboard.deadline = NEVER
    set_keyboard_defaults(keyboard)
    keyboard.scanning = 1


@kernel
def set_keyboard_defaults(keyboard):
    """The keyboard's own state after power on; its scan codes are forgotten."""
    keyboard.code_set = 2
    keyboard.rate = DEFAULT_RATE
    forget_scan_codes(keyboard)


@kernel
def forget_scan_codes(keyboard):
    """Empty the keyboard's buffer."""
    keyboard.keyboard_released = 0
    keyboard.scan_first = 0
    keyboard.scan_count = 0


@kernel
def command_byte(keyboard):
    """The controller's command byte."""
    return np.int64(keyboard.memory[0])


@kernel
def set_command_byte(keyboard, value):
    """Write the command byte; the absent second port stays disabled."""
    keyboard.memory[0] = value | HOLD_SECOND_CLOCK


@kernel
def begin_as_after_post(keyboard):
    """As the self-test of the usual firmware leaves the controller: keys come translated, by interrupt 1."""
    keyboard.memory[0] = ENABLE_INTERRUPT | SYSTEM_FLAG | HOLD_SECOND_CLOCK | TRANSLATE


# -- the output buffer ----------------------------------------------------------------------------------------------


@kernel
def signal_output(keyboard):
    """Both interrupt lines follow the output buffer."""
    second = int(keyboard.output_second & STATUS_SECOND_PORT != 0)
    enabled = command_byte(keyboard)
    keyboard.irq = keyboard.output_full & (1 - second) & int(enabled & ENABLE_INTERRUPT != 0)
    keyboard.second_irq = keyboard.output_full & second & int(enabled & ENABLE_SECOND_INTERRUPT != 0)


@kernel
def fill_output(keyboard, value, origin):
    """Put a byte into the output buffer; `origin`: status bits that tell whose it is."""
    keyboard.output = value
    keyboard.output_full = 1
    keyboard.output_second = origin


@kernel
def may_send(keyboard):
    """Whether the keyboard has a byte for which the controller is ready."""
    waiting = keyboard.response_count + keyboard.scan_count
    return waiting > 0 and keyboard.output_full == 0 and command_byte(keyboard) & HOLD_CLOCK == 0


@kernel
def follow_keyboard(keyboard, now, ticks_per_second):
    """After any change: a byte begins its way to the controller, or has to wait; the interrupt lines."""
    if not may_send(keyboard):
        keyboard.deadline = NEVER
    elif keyboard.deadline == NEVER:
        keyboard.deadline = now + ticks_per_second // BYTES_PER_SECOND
    signal_output(keyboard)


@kernel
def next_byte(keyboard):
    """Take the byte that the keyboard sends next: an answer, or a scan code."""
    if keyboard.response_count > 0:
        value = np.int64(keyboard.response[keyboard.response_first])
        keyboard.response_first = (keyboard.response_first + 1) % RESPONSE_BYTES
        keyboard.response_count -= 1
    else:
        value = np.int64(keyboard.scan[keyboard.scan_first])
        keyboard.scan_first = (keyboard.scan_first + 1) % SCAN_BYTES
        keyboard.scan_count -= 1
    keyboard.last_sent = value
    return value


@kernel
def translated(value):
    """A byte of scan code set 2 in set 1."""
    if value < len(TRANSLATION):
        return TRANSLATION[value]
    return value


@kernel
def receive_byte(keyboard, value):
    """A byte of the keyboard's reaches the controller, which translates: the prefix of a release becomes bit 7."""
    if command_byte(keyboard) & TRANSLATE != 0:
        if value == BREAK:
            keyboard.released = 0x80
            return
        value = translated(value) | keyboard.released
    keyboard.released = 0
    fill_output(keyboard, value, 0)


@kernel
def advance_keyboard(keyboard, now, ticks_per_second):
    """The byte on the line has arrived."""
    if now >= keyboard.deadline:
        keyboard.deadline = NEVER
        receive_byte(keyboard, next_byte(keyboard))
    follow_keyboard(keyboard, now, ticks_per_second)


# -- the keyboard ---------------------------------------------------------------------------------------------------


@kernel
def respond(keyboard, value):
    """Let the keyboard answer with a byte; more than it can keep is lost."""
    if keyboard.response_count < RESPONSE_BYTES:
        keyboard.response[(keyboard.response_first + keyboard.response_count) % RESPONSE_BYTES] = value
        keyboard.response_count += 1


@kernel
def take_parameter(keyboard, command, value):
    """The second byte of a keyboard command."""
    if command == CHOOSE_SET and value > 2:
        respond(keyboard, RESEND)
        return
    respond(keyboard, ACKNOWLEDGE)
    if command == SET_INDICATORS:
        keyboard.indicators = value & 7
    elif command == SET_RATE:
        keyboard.rate = value & 0x7F
    elif command == CHOOSE_SET and value == 0:
        respond(keyboard, keyboard.code_set)
    elif command == CHOOSE_SET:
        keyboard.code_set = value


@kernel
def keyboard_command(keyboard, value):
    """The first byte of a keyboard command."""
    if value == ECHO:
        respond(keyboard, ECHO)
        return
    if value == RESEND:
        respond(keyboard, keyboard.last_sent)
        return
    if value < SET_INDICATORS or value == 0xEF or value == 0xF1:
        respond(keyboard, RESEND)
        return
    respond(keyboard, ACKNOWLEDGE)
    if value == SET_INDICATORS or value == CHOOSE_SET or value == SET_RATE or SET_KEY <= value < RESEND:
        keyboard.parameter_of = value
    elif value == IDENTIFY:
        respond(keyboard, 0xAB)
        respond(keyboard, 0x83)
    elif value == ENABLE:
        forget_scan_codes(keyboard)
        keyboard.scanning = 1
    elif value == DISABLE:
        set_keyboard_defaults(keyboard)
        keyboard.scanning = 0
    elif value == SET_DEFAULTS:
        set_keyboard_defaults(keyboard)
    elif value == RESET:
        set_keyboard_defaults(keyboard)
        keyboard.scanning = 1
        respond(keyboard, TEST_PASSED)


@kernel
def send_to_keyboard(keyboard, value):
    """A byte goes to the keyboard: what it had still to answer is dropped, a parameter may be expected."""
    keyboard.response_count = 0
    keyboard.deadline = NEVER
    command = keyboard.parameter_of
    keyboard.parameter_of = 0
    if command != 0 and value < SET_INDICATORS:
        take_parameter(keyboard, command, value)
    else:
        keyboard_command(keyboard, value)


@kernel
def keep_scan_code(keyboard, value):
    """Keep a byte of a scan code, which is given in set 2, if the keyboard scans and has room; 1 if it was taken."""
    if keyboard.scanning == 0 or keyboard.scan_count == SCAN_BYTES:
        return 0
    if keyboard.code_set == 1:
        if value == BREAK:
            keyboard.keyboard_released = 0x80
            return 1
        value = translated(value) | keyboard.keyboard_released
        keyboard.keyboard_released = 0
    keyboard.scan[(keyboard.scan_first + keyboard.scan_count) % SCAN_BYTES] = value
    keyboard.scan_count += 1
    return 1


@kernel
def press(keyboard, codes, now, ticks_per_second):
    """The person at the keyboard: bytes of scan codes of set 2. Returns how many of them, from the first, were taken."""
    taken = 0
    for number in range(len(codes)):
        if keep_scan_code(keyboard, np.int64(codes[number])) == 0:
            break
        taken += 1
    follow_keyboard(keyboard, now, ticks_per_second)
    return taken


# -- the controller -------------------------------------------------------------------------------------------------


@kernel
def output_port(keyboard):
    """The output port as it is read: A20, the interrupts, and lines that are high."""
    value = OUTPUT_PORT_HIGH | (1 - keyboard.a20_closed) << 1
    second = int(keyboard.output_second & STATUS_SECOND_PORT != 0)
    return value | (keyboard.output_full & (1 - second)) << 4 | (keyboard.output_full & second) << 5


@kernel
def write_output_port(keyboard, value):
    """The output port: A20, and the reset of the processor, active low."""
    keyboard.a20_closed = int(value & OUTPUT_PORT_A20 == 0)
    if value & 1 == 0:
        return ASKS_RESET
    return 0


@kernel
def answer_of_controller(keyboard, command):
    """What a command is answered with at once, -1 if with nothing."""
    if command == TEST_PASSWORD:
        return 0xF1  # there is none
    if command == TEST_SECOND_PORT:
        return 0x02  # its clock line is stuck high
    if command == TEST_CONTROLLER:
        return 0x55
    if command == TEST_KEYBOARD_PORT or command == READ_TEST_INPUTS:
        return 0
    if command == READ_INPUT_PORT:
        return 0x80  # not locked
    if command == READ_OUTPUT_PORT:
        return output_port(keyboard)
    if READ_MEMORY <= command < READ_MEMORY + 32:
        return np.int64(keyboard.memory[command & 31])
    return -1


@kernel
def controller_command(keyboard, command):
    """A byte to port 0x64; returns ASKS_RESET if the processor is to be reset."""
    keyboard.expected_by = 0
    answer = answer_of_controller(keyboard, command)
    if answer >= 0:
        fill_output(keyboard, answer, 0)
    if command == TEST_CONTROLLER:
        set_command_byte(keyboard, command_byte(keyboard) | SYSTEM_FLAG)
    elif command == DISABLE_KEYBOARD:
        set_command_byte(keyboard, command_byte(keyboard) | HOLD_CLOCK)
    elif command == ENABLE_KEYBOARD:
        set_command_byte(keyboard, command_byte(keyboard) & ~HOLD_CLOCK)
    elif command == CLOSE_A20:
        keyboard.a20_closed = 1
    elif command == OPEN_A20:
        keyboard.a20_closed = 0
    elif WRITE_MEMORY <= command < WRITE_MEMORY + 32 or WRITE_OUTPUT_PORT <= command <= WRITE_SECOND_PORT:
        keyboard.expected_by = command
    elif command >= PULSE_OUTPUT_PORT and command & 1 == 0:
        return ASKS_RESET
    return 0


@kernel
def take_expected(keyboard, value):
    """The byte that a controller command expects at port 0x60."""
    command = keyboard.expected_by
    keyboard.expected_by = 0
    if command == WRITE_MEMORY:
        set_command_byte(keyboard, value)
    elif command < WRITE_MEMORY + 32:
        keyboard.memory[command & 31] = value
    elif command == WRITE_OUTPUT_PORT:
        return write_output_port(keyboard, value)
    elif command == WRITE_SECOND_PORT:
        fill_output(keyboard, RESEND, STATUS_SECOND_PORT | STATUS_TIME_OUT)
    else:
        fill_output(keyboard, value, 0)
    return 0


@kernel
def write_keyboard(keyboard, port, value, now, ticks_per_second):
    """A byte to port 0x60 or 0x64; returns ASKS_RESET or 0."""
    asks = 0
    keyboard.command_last = (port >> 2) & 1
    if keyboard.command_last == 1:
        asks = controller_command(keyboard, value)
    elif keyboard.expected_by != 0:
        asks = take_expected(keyboard, value)
    else:
        set_command_byte(keyboard, command_byte(keyboard) & ~HOLD_CLOCK)
        send_to_keyboard(keyboard, value)
    follow_keyboard(keyboard, now, ticks_per_second)
    return asks


@kernel
def keyboard_status(keyboard):
    """Port 0x64."""
    value = STATUS_NOT_LOCKED | keyboard.output_full | keyboard.command_last << 3
    value |= command_byte(keyboard) & STATUS_SYSTEM
    if keyboard.output_full == 1:
        value |= keyboard.output_second
    return value


@kernel
def read_keyboard(keyboard, port, now, ticks_per_second):
    """A byte from port 0x60, which frees the output buffer, or 0x64."""
    if port & 4 != 0:
        return keyboard_status(keyboard)
    keyboard.output_full = 0
    follow_keyboard(keyboard, now, ticks_per_second)
    return keyboard.output
