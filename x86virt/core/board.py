"""The board: the devices of the bare machine, or, as another instance, the virtual devices of a VM.

One record holds two 8259A PICs, an 8254 PIT, the 0xE9 console, the exit port 0xF4, the shutdown port 0x8900, the
POST port 0x80, port 0xF0 of the x87 error interrupt, and the A20 gate of port 0x92. `now` is always in ticks (64 per
processor cycle) and must not go back; everything is a function of it.

Whoever runs the processor calls `board_advance` at the first instruction boundary at or after `board_deadline`, and
asks again for the deadline after every advance, port access and acknowledgement. Accesses to the ports of the PICs, the
PIT and 0x61 advance the board themselves. Accesses wider than a byte are split into bytes at successive ports, but for
0xF4, which takes any width.
"""

import numpy as np

from .jit import inline, kernel
from .pic import (
    PIC,
    acknowledge,
    pic_read,
    pic_write,
    reset_pic,
    selected_input,
    set_line,
    signal_cascade,
)
from .pit import (
    CHANNEL,
    NEVER,
    latch_count,
    latch_status,
    next_change,
    next_rise,
    pit_clock,
    read_count,
    reset_channel,
    set_gate,
    settle,
    tick_of_clock,
    write_control,
    write_count,
)

# -- outcomes of a port write -------------------------------------------------------------------------------------
BOARD_OK = 0
BOARD_EXIT = 1  # a value was written to the exit port: board.exit_requested, board.exit_code
BOARD_SHUTDOWN = 2  # the word `Shutdown` was written: board.shutdown_requested
BOARD_CONSOLE = 3  # the console buffer is nearly full: take board.console[:console_length], set console_length to 0

# -- what becomes of timer edges that the guest could not take yet --------------------------------------------------
TIMER_MERGE = 0  # an edge while one is requested already is lost, as in hardware
TIMER_CATCH_UP = 1  # it is kept, and requested once IRQ 0 is neither requested nor in service
TIMER_DROP = 2  # an edge while one is requested or in service is lost

CONSOLE_BYTES = 1 << 16
CONSOLE_NEARLY_FULL = CONSOLE_BYTES - 4096

PORT_MASTER_PIC = 0x20
PORT_PIT = 0x40
PORT_PIT_COMMAND = 0x43
PORT_SYSTEM_CONTROL = 0x61
PORT_POST = 0x80
PORT_SYSTEM_CONTROL_A = 0x92
PORT_SLAVE_PIC = 0xA0
PORT_CONSOLE = 0xE9
PORT_FLOAT_ERROR = 0xF0
PORT_EXIT = 0xF4
PORT_SHUTDOWN = 0x8900

SHUTDOWN_WORD = tuple(b"Shutdown")
FLOAT_ERROR_IRQ = 13
REFRESH_CLOCKS = 18  # PIT clocks between two memory refreshes, which toggle bit 4 of port 0x61

BOARD = np.dtype(
    [
        ("ticks_per_second", "i8"),  # 64 * clock frequency of the processor in Hz
        ("clock", "i8"),  # PIT clocks elapsed at the last advance
        ("frozen", "i8"),  # 1: no time passes for the timers; their edges are given by `give_timer_edges` (a replay)
        ("pic", PIC, 2),  # master, slave
        ("pit", CHANNEL, 3),
        ("system_control", "i8"),  # bits 0 to 3 of port 0x61: gate 2, speaker, parity check enables
        ("a20_closed", "i8"),  # 1: the A20 gate is closed; port 0x92, bit 1 opens it
        ("timer_policy", "i8"),  # TIMER_MERGE, TIMER_CATCH_UP, TIMER_DROP; set by the owner after reset
        ("timer_edges", "i8"),  # rising edges of channel 0 seen by an edge-triggered input
        ("timer_lost", "i8"),  # of these, merged or dropped
        ("timer_backlog", "i8"),  # of these, still to be requested (catch up)
        ("timer_replayed", "i8"),  # of these, requested late (catch up)
        ("ferr", "i8"),  # FERR#: the processor reports an x87 exception by IRQ 13
        ("ignne", "i8"),  # IGNNE#: port 0xF0 was written since, x87 exceptions are ignored
        ("attention", "i8"),  # BOARD outcomes of port writes, or-ed, until the owner has seen to them
        ("exit_requested", "i8"),
        ("exit_code", "i8"),  # low byte of the last value written to the exit port
        ("shutdown_requested", "i8"),
        ("shutdown_progress", "i8"),  # bytes of the word `Shutdown` seen
        ("post_code", "i8"),
        ("unclaimed_reads", "i8"),  # bytes read from ports without a device
        ("unclaimed_writes", "i8"),  # bytes written to them
        ("console_length", "i8"),
        ("console_lost", "i8"),  # bytes written while the buffer was full
        ("console", "u1", CONSOLE_BYTES),
    ]
)


@kernel
def reset_board(board, ticks_per_second):
    """Power on, at tick 0: PICs not initialized, timers without a count, empty console, policy merge."""
    board.ticks_per_second = ticks_per_second
    board.clock = 0
    board.frozen = 0
    reset_pic(board.pic[0], 1)
    reset_pic(board.pic[1], 0)
    reset_channel(board.pit[0], 1)
    reset_channel(board.pit[1], 1)
    reset_channel(board.pit[2], 0)
    board.pic[0].lines = 1  # OUT of channel 0 is high
    board.system_control = 0
    board.a20_closed = 0
    board.timer_policy = TIMER_MERGE
    board.timer_edges = 0
    board.timer_lost = 0
    board.timer_backlog = 0
    board.timer_replayed = 0
    board.ferr = 0
    board.ignne = 0
    board.attention = 0
    board.exit_requested = 0
    board.exit_code = 0
    board.shutdown_requested = 0
    board.shutdown_progress = 0
    board.post_code = 0
    board.unclaimed_reads = 0
    board.unclaimed_writes = 0
    board.console_length = 0
    board.console_lost = 0


# -- interrupts ---------------------------------------------------------------------------------------------------


@kernel
def set_irq_line(board, irq, level):
    """Drive interrupt line 1 or 3 to 15 of the board low (0) or high (1). IRQ 0 is the timer's, 2 the cascade."""
    if irq < 8:
        set_line(board.pic[0], irq, level)
    else:
        set_line(board.pic[1], irq - 8, level)
        signal_cascade(board.pic[0], board.pic[1])


@inline
def interrupt_pending(board):
    """INTR, the output of the master PIC: 1 if it asks the processor for an interrupt."""
    pic = board.pic[0]
    if pic.irr & ~pic.imr == 0:
        return 0
    return int(selected_input(pic) >= 0)


@kernel
def interrupt_acknowledge(board):
    """INTA: the vector, 0 to 255. The board has been advanced over every deadline up to now."""
    vector = acknowledge(board.pic[0], board.pic[1])
    if board.timer_backlog != 0:
        replay_timer(board)
    return vector


@kernel
def replay_timer(board):
    """Catch up: request a kept timer edge, if IRQ 0 is neither requested nor in service."""
    pic = board.pic[0]
    if (pic.irr | pic.isr) & 1 == 0:
        pic.irr |= 1
        board.timer_backlog -= 1
        board.timer_replayed += 1


@kernel
def forget_timer_backlog(board):
    """Kept edges are lost when the guest programs the timer or the master PIC anew."""
    board.timer_lost += board.timer_backlog
    board.timer_backlog = 0


@kernel
def timer_rises(board, edges):
    """Bring `edges` rising edges of channel 0, and then its level, to an edge-triggered IRQ 0."""
    pic = board.pic[0]
    pic.lines = (pic.lines & ~1) | board.pit[0].output
    if edges == 0:
        return
    board.timer_edges += edges
    busy = pic.irr & 1
    if board.timer_policy == TIMER_DROP:
        busy |= pic.isr & 1
    missed = edges
    if busy == 0:
        pic.irr |= 1
        missed -= 1
    if board.timer_policy == TIMER_CATCH_UP and pic.imr & 1 == 0:
        board.timer_backlog += missed
    else:
        board.timer_lost += missed


@kernel
def timer_output(board, edges):
    """Carry OUT of channel 0, which rose `edges` times since it was last looked at, to IRQ 0."""
    if board.pic[0].level_triggered != 0:
        set_line(board.pic[0], 0, board.pit[0].output)
    else:
        timer_rises(board, edges)


@kernel
def board_advance(board, now):
    """Bring the timers up to tick `now` and raise what they raise; constant time."""
    if board.frozen == 1:
        return
    clock = pit_clock(now, board.ticks_per_second)
    if clock > board.clock:
        board.clock = clock
        timer_output(board, settle(board.pit[0], clock))


@kernel
def give_timer_edges(board, edges, level):
    """Replay what time did to channel 0 of a frozen board: OUT rose `edges` times and is at `level` now."""
    board.pit[0].output = level
    timer_output(board, edges)


@kernel
def board_deadline(board):
    """The first tick at which channel 0 may raise an interrupt (level-triggered: may change its line), NEVER if none.

    Masked or not initialized, it cannot. The board has been advanced to the present."""
    pic = board.pic[0]
    if board.frozen == 1 or pic.ready == 0 or pic.imr & 1 != 0:
        return NEVER
    if pic.level_triggered != 0:
        clock = next_change(board.pit[0])
    else:
        clock = next_rise(board.pit[0])
    if clock == NEVER:
        return NEVER
    return tick_of_clock(clock, board.ticks_per_second)


# -- x87 exceptions reported around the processor (CR0.NE clear) ----------------------------------------------------


@kernel
def float_error(board):
    """FERR# asserted: IRQ 13, unless port 0xF0 was written since; returns IGNNE#."""
    if board.ferr == 0:
        board.ferr = 1
        set_irq_line(board, FLOAT_ERROR_IRQ, 1)
    return board.ignne


@kernel
def float_error_cleared(board):
    """FERR# released: the exception flags are clear, so IGNNE# falls too, and with it a request nobody cleared."""
    board.ferr = 0
    board.ignne = 0
    set_irq_line(board, FLOAT_ERROR_IRQ, 0)


@kernel
def float_error_port(board):
    """A write to port 0xF0, of any value: IRQ 13 is cleared, and IGNNE# asserted while FERR# is."""
    board.ignne = board.ferr
    set_irq_line(board, FLOAT_ERROR_IRQ, 0)


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
    if board.frozen == 1:
        return
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


# -- port decode --------------------------------------------------------------------------------------------------


@kernel
def timed_port(port):
    """1 for the ports whose devices live in time: PICs, PIT, system control."""
    if port & ~0x81 == PORT_MASTER_PIC or port & ~3 == PORT_PIT or port == PORT_SYSTEM_CONTROL:
        return 1
    return 0


@kernel
def is_plain_port(port):
    """Whether a byte to or from a port touches nothing beyond it: the POST port, and ports without a device."""
    if timed_port(port) != 0 or port == PORT_CONSOLE or port == PORT_SHUTDOWN or port == PORT_EXIT:
        return False
    return port != PORT_FLOAT_ERROR and port != PORT_SYSTEM_CONTROL_A


@kernel
def reads_time(port, n):
    """1 if reading `n` ports from `port` tells the time: counters of the PIT, port 0x61. What the PICs tell follows from
    their inputs."""
    for number in range(n):
        part = (port + number) & 0xFFFF
        if part == PORT_SYSTEM_CONTROL or PORT_PIT <= part < PORT_PIT_COMMAND:
            return 1
    return 0


@kernel
def timed_write(board, port, value):
    """A byte to a port of `timed_port`; the board is advanced."""
    if port == PORT_SYSTEM_CONTROL:
        system_control_write(board, value)
    elif port & ~3 == PORT_PIT:
        pit_port_write(board, port & 3, value)
    else:
        pic_port_write(board, port >> 7, port & 1, value)


@kernel
def timed_read(board, port):
    """A byte from a port of `timed_port`; the board is advanced."""
    if port == PORT_SYSTEM_CONTROL:
        return system_control_read(board)
    if port & ~3 == PORT_PIT:
        return pit_port_read(board, port & 3)
    return pic_port_read(board, port >> 7, port & 1)


@kernel
def byte_write(board, port, value, now):
    """Write a byte to a port at tick `now`; returns a BOARD outcome."""
    if timed_port(port) != 0:
        board_advance(board, now)
        timed_write(board, port, value)
    elif port == PORT_CONSOLE:
        return console_write(board, value)
    elif port == PORT_SHUTDOWN:
        return shutdown_write(board, value)
    elif port == PORT_POST:
        board.post_code = value
    elif port == PORT_FLOAT_ERROR:
        float_error_port(board)
    elif port == PORT_SYSTEM_CONTROL_A:
        board.a20_closed = 1 - ((value >> 1) & 1)
    else:
        board.unclaimed_writes += 1
    return BOARD_OK


@kernel
def byte_read(board, port, now):
    """Read a byte from a port at tick `now`; all ones where no device answers."""
    if timed_port(port) != 0:
        board_advance(board, now)
        return timed_read(board, port)
    if port == PORT_CONSOLE:
        return PORT_CONSOLE
    if port == PORT_POST:
        return board.post_code
    if port == PORT_SYSTEM_CONTROL_A:
        return (1 - board.a20_closed) << 1
    board.unclaimed_reads += 1
    return 0xFF


@kernel
def port_write(board, port, width_bytes, value, now):
    """OUT: write 1, 2 or 4 bytes to ports 0 to 0xFFFF at tick `now`.

    Returns BOARD_OK, or the outcome that asks for attention; the write has been done either way."""
    if port == PORT_EXIT:
        board.exit_requested = 1
        board.exit_code = value & 0xFF
        return BOARD_EXIT
    outcome = BOARD_OK
    for number in range(width_bytes):
        part = byte_write(board, (port + number) & 0xFFFF, (value >> (8 * number)) & 0xFF, now)
        if part != BOARD_OK:
            outcome = part
    return outcome


@kernel
def port_read(board, port, width_bytes, now):
    """IN: read 1, 2 or 4 bytes from ports 0 to 0xFFFF at tick `now`."""
    value = 0
    for number in range(width_bytes):
        value |= byte_read(board, (port + number) & 0xFFFF, now) << (8 * number)
    return value
