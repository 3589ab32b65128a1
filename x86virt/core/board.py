"""The board: the devices of the bare machine, or, as another instance, the virtual devices of a VM.

One record holds two 8259A PICs, an 8254 PIT, PCI configuration space, clock, keyboard, two serial ports, VGA registers,
power management, the console of ports 0xE9 and 0x402, the exit port 0xF4, the shutdown port 0x8900, the POST port 0x80,
port 0xF0 of the x87 error interrupt, and the A20 gate; core/port_decode.py leads from a port to its device. `now` is
always in ticks (64 per processor cycle) and must not go back; everything is a function of it.

A device's module knows its own record alone. It leaves there the level of its interrupt line (`irq`) and the tick at
which something becomes of it by itself (`deadline`); `follow_devices` carries both to the board.

Whoever runs the processor calls `board_advance` at the first instruction boundary at or after `board_deadline`, and
asks again for the deadline after every advance, port access and acknowledgement. Accesses to the ports of devices that
live in time advance the board themselves. What asks for its owner's attention is or-ed into `attention`.

The lines of all interrupts are kept beside the PICs too (`irq_levels`, `irq_rises`), for an I/O APIC.
"""

import numpy as np

from .cmos import CMOS, advance_cmos, power_on_cmos, reset_cmos
from .ide import ide_advance, reset_ide
from .ide_state import IDE
from .jit import inline, kernel
from .keyboard import KEYBOARD, advance_keyboard, reset_keyboard
from .layout import NEVER
from .pci import PCI, reset_pci
from .pic import (
    PIC,
    acknowledge,
    reset_pic,
    selected_input,
    set_line,
    signal_cascade,
)
from .pit import (
    CHANNEL,
    next_change,
    next_rise,
    pit_clock,
    reset_channel,
    settle,
    tick_of_clock,
)
from .port_map import map_fixed_ports, map_moved_ports
from .power import POWER, advance_power, reset_power
from .uart import UART, advance_uart, reset_uart
from .vga import VGA, reset_vga

# -- outcomes of a port write, and attention: bits ------------------------------------------------------------------
BOARD_OK = 0
BOARD_EXIT = 1  # a value was written to the exit port: board.exit_requested, board.exit_code
BOARD_SHUTDOWN = 2  # the word `Shutdown` was written: board.shutdown_requested
BOARD_CONSOLE = 4  # the console buffer is nearly full: take board.console[:console_length], set console_length to 0
BOARD_POWER_OFF = 8  # the guest switched the machine off: board.power_off_requested
BOARD_RESET = 16  # the guest asks for a reset: board.reset_requested
BOARD_DISK = 32  # a command of IDE wants its data moved
BOARD_SERIAL = 64  # a UART's buffer for the host is nearly full: take uart.sent[:sent_length], set sent_length to 0
BOARD_POLL = 128  # board.poll_deadline was reached: the owner looks at what it watches

# -- what becomes of timer edges that the guest could not take yet --------------------------------------------------
TIMER_MERGE = 0  # an edge while one is requested already is lost, as in hardware
TIMER_CATCH_UP = 1  # it is kept, and requested once IRQ 0 is neither requested nor in service
TIMER_DROP = 2  # an edge while one is requested or in service is lost

CONSOLE_BYTES = 1 << 16
CONSOLE_NEARLY_FULL = CONSOLE_BYTES - 4096

SHUTDOWN_WORD = tuple(b"Shutdown")
TIMER_IRQ = 0
KEYBOARD_IRQ = 1
UART_2_IRQ = 3
UART_1_IRQ = 4
CLOCK_IRQ = 8
POWER_IRQ = 9
SECOND_KEYBOARD_IRQ = 12
FLOAT_ERROR_IRQ = 13
PRIMARY_IDE_IRQ, SECONDARY_IDE_IRQ = 14, 15

BOARD = np.dtype(
    [
        ("ticks_per_second", "i8"),  # 64 * clock frequency of the processor in Hz
        ("clock", "i8"),  # PIT clocks elapsed at the last advance
        ("frozen", "i8"),  # 1: no time passes for the devices, but as a record has it (a replay); no interrupt asks by itself
        ("tick", "i8"),  # the tick of the last advance
        ("decode", "u1", 1 << 16),  # DEVICE of each port
        ("device_deadline", "i8"),  # the earliest tick at which a device other than the PIT is due
        ("deadlines_moved", "i8"),  # 1: an access may have moved a deadline, until whoever runs the processor has seen it
        ("poll_period", "i8"),  # ticks from one look of the owner's to the next, 0: none; set by the owner
        ("poll_deadline", "i8"),  # the tick of the next
        ("irq_levels", "i8"),  # the interrupt lines, bit n for IRQ n
        ("irq_rises", "i8"),  # those that rose since the I/O APIC looked
        ("timer_watched", "i8"),  # 1: the I/O APIC takes IRQ 0, whatever the PICs do with it
        ("pic", PIC, 2),  # master, slave
        ("pit", CHANNEL, 3),
        ("pci", PCI),
        ("ide", IDE),
        ("cmos", CMOS),
        ("keyboard", KEYBOARD),
        ("uart", UART, 2),
        ("vga", VGA),
        ("power", POWER),
        ("bus_master_ports", "i8"),  # where the ports that PCI functions move are mapped now, 0: nowhere
        ("power_ports", "i8"),
        ("system_control", "i8"),  # bits 0 to 3 of port 0x61: gate 2, speaker, parity check enables
        ("reset_control", "i8"),  # the last value of port 0xCF9
        ("fast_reset", "i8"),  # bit 0 of port 0x92
        ("reset_requested", "i8"),
        ("power_off_requested", "i8"),
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
    """Power on, at tick 0: every device as its data sheet has it, empty console, timer policy merge."""
    board.ticks_per_second = ticks_per_second
    board.clock = 0
    board.tick = 0
    board.frozen = 0
    board.bus_master_ports = 0
    board.power_ports = 0
    board.poll_period = 0
    board.poll_deadline = NEVER
    board.timer_policy = TIMER_MERGE
    board.timer_edges = 0
    board.timer_lost = 0
    board.timer_backlog = 0
    board.timer_replayed = 0
    board.attention = 0
    board.exit_requested = 0
    board.exit_code = 0
    board.unclaimed_reads = 0
    board.unclaimed_writes = 0
    board.console_length = 0
    board.console_lost = 0
    power_on_cmos(board.cmos, ticks_per_second)
    for number in range(2):
        board.uart[number].sent_length = 0
        board.uart[number].sent_lost = 0
    reset_devices(board)


@kernel
def reset_devices(board):
    """RST#: what a reset of the machine does at any time. Time, and what the owner has not taken yet, go on."""
    reset_pic(board.pic[0], 1)
    reset_pic(board.pic[1], 0)
    reset_channel(board.pit[0], 1)
    reset_channel(board.pit[1], 1)
    reset_channel(board.pit[2], 0)
    board.pic[0].lines = 1  # OUT of channel 0 is high
    board.irq_levels = 1
    board.irq_rises = 0
    board.timer_watched = 0
    reset_pci(board.pci)
    reset_ide(board.ide, board.ticks_per_second)
    reset_cmos(board.cmos, board.tick, board.ticks_per_second)
    reset_keyboard(board.keyboard)
    reset_uart(board.uart[0])
    reset_uart(board.uart[1])
    reset_vga(board.vga)
    reset_power(board.power, board.tick, board.ticks_per_second)
    board.system_control = 0
    board.reset_control = 0
    board.fast_reset = 0
    board.reset_requested = 0
    board.power_off_requested = 0
    board.a20_closed = 0
    board.ferr = 0
    board.ignne = 0
    board.shutdown_requested = 0
    board.shutdown_progress = 0
    board.post_code = 0
    board.deadlines_moved = 0
    map_fixed_ports(board)
    map_moved_ports(board)
    follow_devices(board)


# -- interrupts ---------------------------------------------------------------------------------------------------


@kernel
def note_line(board, irq, level):
    """Keep the level of an interrupt line, and that it rose."""
    bit = 1 << irq
    if level == 0:
        board.irq_levels &= ~bit
    else:
        board.irq_rises |= bit & ~board.irq_levels
        board.irq_levels |= bit


@kernel
def set_irq_line(board, irq, level):
    """Drive interrupt line 1 or 3 to 15 of the board low (0) or high (1). IRQ 0 is the timer's, 2 the cascade."""
    note_line(board, irq, level)
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
    note_line(board, TIMER_IRQ, board.pit[0].output)
    if edges != 0:
        board.irq_rises |= 1 << TIMER_IRQ
    if board.pic[0].level_triggered != 0:
        set_line(board.pic[0], 0, board.pit[0].output)
    else:
        timer_rises(board, edges)


# -- time -----------------------------------------------------------------------------------------------------------


@kernel
def follow_line(board, irq, level):
    """Drive an interrupt line, if it is not at this level already."""
    if (board.irq_levels >> irq) & 1 != level:
        set_irq_line(board, irq, level)


@kernel
def follow_devices(board):
    """Carry what the devices leave in their records to the interrupt lines, and find the earliest of their deadlines."""
    follow_line(board, PRIMARY_IDE_IRQ, board.ide.irq[0])
    follow_line(board, SECONDARY_IDE_IRQ, board.ide.irq[1])
    follow_line(board, KEYBOARD_IRQ, board.keyboard.irq)
    follow_line(board, UART_2_IRQ, board.uart[1].irq)
    follow_line(board, UART_1_IRQ, board.uart[0].irq)
    follow_line(board, CLOCK_IRQ, board.cmos.irq)
    follow_line(board, POWER_IRQ, board.power.irq)
    follow_line(board, SECOND_KEYBOARD_IRQ, board.keyboard.second_irq)
    deadline = min(board.poll_deadline, board.cmos.deadline, board.keyboard.deadline)
    deadline = min(deadline, board.uart[0].deadline, board.uart[1].deadline, board.power.deadline)
    deadline = min(deadline, board.ide.deadline)
    if deadline != board.device_deadline:
        board.device_deadline = deadline
        board.deadlines_moved = 1


@kernel
def poll(board):
    """The owner's look is due: ask for it, and set the next, at a multiple of the period whatever the present tick."""
    board.attention |= BOARD_POLL
    if board.poll_period <= 0:
        board.poll_deadline = NEVER
    else:
        missed = (board.tick - board.poll_deadline) // board.poll_period
        board.poll_deadline += (missed + 1) * board.poll_period


@kernel
def advance_devices(board):
    """Let the devices see the present tick, of which one or more were waiting for it."""
    now, second = board.tick, board.ticks_per_second
    if now >= board.poll_deadline:
        poll(board)
    ide_advance(board.ide, board.tick)
    if now >= board.cmos.deadline:
        advance_cmos(board.cmos, now, second)
    if now >= board.keyboard.deadline:
        advance_keyboard(board.keyboard, now, second)
    if now >= board.uart[0].deadline:
        advance_uart(board.uart[0], now)
    if now >= board.uart[1].deadline:
        advance_uart(board.uart[1], now)
    if now >= board.power.deadline:
        advance_power(board.power, now, second)
    follow_devices(board)


@kernel
def board_advance(board, now):
    """Bring the devices up to tick `now` and raise what they raise; constant time.

    A frozen board stands still: who replays a record lets it go for the moments in which it moved.
    """
    if board.frozen == 1:
        return
    if now > board.tick:
        board.tick = now
    clock = pit_clock(now, board.ticks_per_second)
    if clock > board.clock:
        board.clock = clock
        timer_output(board, settle(board.pit[0], clock))
    if now >= board.device_deadline:
        advance_devices(board)


@kernel
def timer_deadline(board):
    """The first tick at which channel 0 may raise an interrupt (level-triggered: may change its line), NEVER if none.

    Masked or not initialized, it cannot, unless the I/O APIC takes it."""
    pic = board.pic[0]
    if (pic.ready == 0 or pic.imr & 1 != 0) and board.timer_watched == 0:
        return NEVER
    if pic.level_triggered != 0:
        clock = next_change(board.pit[0])
    else:
        clock = next_rise(board.pit[0])
    if clock == NEVER:
        return NEVER
    return tick_of_clock(clock, board.ticks_per_second)


@kernel
def board_deadline(board):
    """The first tick at which a device may do something by itself that others notice, NEVER if none.

    The board has been advanced to the present."""
    if board.frozen == 1:
        return NEVER
    return min(timer_deadline(board), board.device_deadline)


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
