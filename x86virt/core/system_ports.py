"""The ports of the PICs, the PIT and the system control register, and the ports of the simulation: console, shutdown."""

from .board import (
    BOARD_CONSOLE,
    BOARD_OK,
    BOARD_SHUTDOWN,
    CONSOLE_BYTES,
    CONSOLE_NEARLY_FULL,
    SHUTDOWN_WORD,
    forget_timer_backlog,
    replay_timer,
    timer_output,
)
from .jit import kernel
from .pic import pic_read, pic_write, signal_cascade, write_elcr
from .pit import (
    latch_count,
    latch_status,
    read_count,
    set_gate,
    settle,
    write_control,
    write_count,
)

REFRESH_CLOCKS = 18  # PIT clocks between two memory refreshes, which toggle bit 4 of port 0x61
ELCR_MASTER, ELCR_SLAVE = 0xF8, 0xDE  # inputs that may be level-triggered: not 0 to 2, 8, 13

# -- PIC ports ----------------------------------------------------------------------------------------------------


@kernel
def pic_port_write(board, number, a0, value):
    """A byte to PIC `number` (0 master, 1 slave)."""
    pic_write(board.pic[number], a0, value)
    signal_cascade(board.pic[0], board.pic[1])
    if board.timer_backlog != 0:
        if board.pic[0].ready == 0:
            forget_timer_backlog(board)
        else:
            replay_timer(board)


@kernel
def pic_port_read(board, number, a0):
    """A byte from PIC `number`; a poll acknowledges."""
    value = pic_read(board.pic[number], a0)
    signal_cascade(board.pic[0], board.pic[1])
    if board.timer_backlog != 0:
        replay_timer(board)
    return value


@kernel
def elcr_write(board, number, value):
    """The edge/level control register of PIC `number`, port 0x4D0 or 0x4D1."""
    allowed = ELCR_MASTER
    if number == 1:
        allowed = ELCR_SLAVE
    write_elcr(board.pic[number], value, allowed)
    signal_cascade(board.pic[0], board.pic[1])


# -- PIT ports ----------------------------------------------------------------------------------------------------


@kernel
def read_back(board, value):
    """Read-back command: latch counts (bit 5 clear) and status (bit 4 clear) of the counters of bits 1 to 3."""
    for number in range(3):
        if value & (2 << number) != 0:
            channel = board.pit[number]
            settle(channel, board.clock)
            if value & 0x20 == 0:
                latch_count(channel, board.clock)
            if value & 0x10 == 0:
                latch_status(channel, board.clock)


@kernel
def pit_command(board, value):
    """A byte to port 0x43: read-back, counter latch or control word."""
    number = value >> 6
    if number == 3:
        read_back(board, value)
        return
    channel = board.pit[number]
    settle(channel, board.clock)
    if value & 0x30 == 0:
        latch_count(channel, board.clock)
        return
    before = channel.output
    write_control(channel, value, board.clock)
    if number == 0:
        timer_written(board, before)
        forget_timer_backlog(board)


@kernel
def timer_written(board, before):
    """A write to channel 0 may have moved OUT at once, from `before`: a rise is an edge like any other."""
    rose = 0
    if before == 0:
        rose = board.pit[0].output
    timer_output(board, rose)


@kernel
def pit_port_write(board, number, value):
    """A byte to port 0x40 + `number`."""
    if number == 3:
        pit_command(board, value)
        return
    channel = board.pit[number]
    settle(channel, board.clock)
    before = channel.output
    write_count(channel, value, board.clock)
    if number == 0:
        timer_written(board, before)


@kernel
def pit_port_read(board, number):
    """A byte from port 0x40 + `number`; the command port reads as all ones."""
    if number == 3:
        return 0xFF
    settle(board.pit[number], board.clock)
    return read_count(board.pit[number], board.clock)


@kernel
def system_control_write(board, value):
    """Port 0x61: bit 0 is the gate of channel 2."""
    board.system_control = value & 0x0F
    settle(board.pit[2], board.clock)
    set_gate(board.pit[2], value & 1, board.clock)


@kernel
def system_control_read(board):
    """Port 0x61: bits 0 to 3 as written, bit 4 toggles with each memory refresh, bit 5 is OUT of channel 2."""
    settle(board.pit[2], board.clock)
    refresh = board.clock // REFRESH_CLOCKS & 1
    return board.system_control | refresh << 4 | board.pit[2].output << 5


# -- the ports of the simulation ----------------------------------------------------------------------------------


@kernel
def console_write(board, value):
    """A byte of text to port 0xE9."""
    length = board.console_length
    if length >= CONSOLE_BYTES:
        board.console_lost += 1
        return BOARD_CONSOLE
    board.console[length] = value
    board.console_length = length + 1
    if length >= CONSOLE_NEARLY_FULL:
        return BOARD_CONSOLE
    return BOARD_OK


@kernel
def shutdown_write(board, value):
    """A byte to port 0x8900; the word `Shutdown` asks for the end."""
    progress = board.shutdown_progress
    if value == SHUTDOWN_WORD[progress]:
        progress += 1
    elif value == SHUTDOWN_WORD[0]:
        progress = 1
    else:
        progress = 0
    board.shutdown_progress = progress
    if progress < len(SHUTDOWN_WORD):
        return BOARD_OK
    board.shutdown_progress = 0
    board.shutdown_requested = 1
    return BOARD_SHUTDOWN
