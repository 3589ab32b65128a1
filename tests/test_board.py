"""The board against naive models: an 8254 that steps pulse by pulse, an 8259 made of sets, a clock of big integers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.core import board as bd
from x86virt.core.layout import NEVER
from x86virt.core.pic import PIC
from x86virt.core.pit import CHANNEL, PIT_HZ, displayed_count, next_rise, pit_clock, settle, tick_of_clock
from x86virt.core.port_decode import port_read, port_write

TICKS_PER_SECOND = 64 * 2_800_000_000
FEW = settings(max_examples=60, deadline=None)
SPEEDS = st.sampled_from([64 * 450_000_000, TICKS_PER_SECOND, 64 * 3_400_000_000, 64 * 1_000_003])


def make_board(ticks_per_second: int = TICKS_PER_SECOND) -> np.recarray:
    boards = np.zeros(1, bd.BOARD).view(np.recarray)
    bd.reset_board(boards[0], ticks_per_second)
    return boards


def initialize_pics(board, now: int = 0, level: int = 0, auto_eoi: int = 0) -> None:
    """The usual PC initialization: vectors 0x20 and 0x28, everything unmasked."""
    sequence = [(0x20, 0x11 | level << 3), (0x21, 0x20), (0x21, 4), (0x21, 1 | auto_eoi << 1)]
    sequence += [(0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1)]
    for port, value in sequence:
        assert port_write(board, port, 1, value, now) == bd.BOARD_OK


def program_timer(board, mode: int, count: int, now: int, channel: int = 0) -> None:
    """Control word for low and high byte, binary, then both bytes."""
    port_write(board, 0x43, 1, channel << 6 | 0x30 | mode << 1, now)
    port_write(board, 0x40 + channel, 1, count & 0xFF, now)
    port_write(board, 0x40 + channel, 1, count >> 8 & 0xFF, now)


# -- time ---------------------------------------------------------------------------------------------------------


@FEW
@given(SPEEDS, st.integers(0, 1 << 61))
def test_clock_of_tick_is_exact(speed, now):
    assert pit_clock(now, speed) == now * PIT_HZ // speed


@FEW
@given(SPEEDS, st.integers(1, 1 << 40))
def test_tick_of_clock_is_the_first(speed, clock):
    tick = tick_of_clock(clock, speed)
    if tick == NEVER:
        assert clock * speed > PIT_HZ * (NEVER - 2 * speed)
    else:
        assert (tick - 1) * PIT_HZ // speed < clock <= tick * PIT_HZ // speed


# -- 8254 ---------------------------------------------------------------------------------------------------------


class NaiveCounter:
    """One counter of an 8254, moved by one pulse at a time, after the mode definitions of the data sheet."""

    def __init__(self, gate: int) -> None:
        self.mode, self.bcd, self.access, self.gate = 3, 0, 3, gate
        self.out, self.element, self.register = 1, 0, 0  # register 0: no count written
        self.load_next = self.loaded = self.fired = self.odd = False
        self.null = True
        self.low: int | None = None  # the first byte of a pair, once written
        self.high_next = False  # a read gives the high byte
        self.count_latch: int | None = None
        self.status_latch: int | None = None
        self.rises = 0

    def drive(self, level: int) -> None:
        self.rises += level > self.out
        self.out = level

    def load_element(self) -> None:
        self.element, self.odd = self.register, self.register % 2 == 1
        if self.mode == 3:
            self.element -= self.element % 2
        self.null = self.load_next = self.fired = False
        self.loaded = True
        if self.mode == 1:
            self.drive(0)
        elif self.mode in (2, 3, 5):
            self.drive(1)

    def pulse(self) -> None:
        if self.load_next:
            self.load_element()
        elif self.loaded and (self.gate or self.mode in (1, 5)):
            {2: self.pulse_rate, 3: self.pulse_square}.get(self.mode, self.pulse_once)()

    def pulse_rate(self) -> None:
        if self.element == 1:
            self.load_element()
        else:
            self.element -= 1
            if self.element == 1:
                self.drive(0)

    def pulse_square(self) -> None:
        last = 0 if self.odd and self.out else 2
        if self.element != last:
            self.element -= 2
            return
        level = 1 - self.out
        self.element, self.odd, self.null = self.register - self.register % 2, self.register % 2 == 1, False
        self.drive(level)

    def pulse_once(self) -> None:
        if self.mode >= 4:
            self.drive(1)
        self.element = (self.element - 1) % (10000 if self.bcd else 65536)
        if self.element == 0 and not self.fired:
            self.fired = True
            self.drive(0 if self.mode >= 4 else 1)

    def control(self, access: int, mode: int, bcd: int) -> None:
        self.access, self.mode, self.bcd = access, mode, bcd
        self.load_next = self.loaded = self.fired = self.high_next = False
        self.register = 0
        self.low = self.count_latch = self.status_latch = None
        self.null = True
        self.drive(0 if mode == 0 else 1)

    def write(self, byte: int) -> None:
        if self.access == 3 and self.low is None:
            self.low = byte
            if self.mode == 0:
                self.loaded = self.load_next = False
                self.drive(0)
            return
        value = {1: byte, 2: byte << 8, 3: byte << 8 | (self.low or 0)}[self.access]
        self.low = None
        if self.bcd:
            count = sum((value >> 4 * digit & 15) * 10**digit for digit in range(4)) % 10000 or 10000
        else:
            count = value or 65536
        self.register = max(count, 2) if self.mode in (2, 3) else count
        self.null = True
        if self.mode in (0, 4) or (self.mode in (2, 3) and not self.loaded):
            self.load_next = True
            self.drive(0 if self.mode == 0 else 1)

    def set_gate(self, level: int) -> None:
        rising, falling = level > self.gate, level < self.gate
        self.gate = level
        if rising and self.mode in (1, 2, 3, 5) and self.register:
            self.load_next = True
        if falling and self.mode in (2, 3, 4):
            self.drive(1)

    def shown(self) -> int:
        if self.bcd:
            return int(str(self.element % 10000), 16)
        return self.element % 65536

    def latch(self) -> None:
        if self.count_latch is None:
            self.count_latch = self.shown()

    def latch_status(self) -> None:
        if self.status_latch is None:
            self.status_latch = self.out << 7 | self.null << 6 | self.access << 4 | self.mode << 1 | self.bcd

    def read(self) -> int:
        if self.status_latch is not None:
            status, self.status_latch = self.status_latch, None
            return status
        value = self.shown() if self.count_latch is None else self.count_latch
        if self.access == 3 and not self.high_next:
            self.high_next = True
            return value & 0xFF
        self.high_next, self.count_latch = False, None
        return value & 0xFF if self.access == 1 else value >> 8


COUNT_BYTES = st.one_of(st.integers(0, 9), st.integers(0, 255))
PIT_ACTIONS = st.one_of(
    st.tuples(st.just("control"), st.integers(1, 3), st.integers(0, 5), st.integers(0, 1)),
    st.tuples(st.just("count"), st.integers(1, 13)),
    st.tuples(st.just("count"), st.integers(1, 13)),
    st.tuples(st.just("byte"), COUNT_BYTES),
    st.tuples(st.just("run"), st.one_of(st.integers(0, 40), st.integers(0, 3000))),
    st.tuples(st.just("run"), st.integers(0, 12)),
    st.tuples(st.just("latch")),
    st.tuples(st.just("status")),
    st.tuples(st.just("read")),
    st.tuples(st.just("gate"), st.integers(0, 1)),
)


class PitPair:
    """A counter of the board and its naive twin under the same actions."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.boards = make_board()
        self.board = self.boards[0]
        self.naive = NaiveCounter(gate=number != 2)
        self.clock = 0

    @property
    def now(self) -> int:
        return tick_of_clock(self.clock, TICKS_PER_SECOND)

    def write(self, port: int, value: int) -> None:
        port_write(self.board, port, 1, value, self.now)

    def control(self, access: int, mode: int, bcd: int) -> None:
        self.write(0x43, self.number << 6 | access << 4 | mode << 1 | bcd)
        self.naive.control(access, mode, bcd)

    def byte(self, value: int) -> None:
        self.write(0x40 + self.number, value)
        self.naive.write(value)

    def count(self, value: int) -> None:
        self.byte(value)
        if self.naive.access == 3:
            self.byte(0)

    def run(self, pulses: int) -> None:
        predicted = next_rise(self.board.pit[self.number])
        first_rise, rises = NEVER, self.naive.rises
        for _ in range(pulses):
            self.clock += 1
            self.naive.pulse()
            if self.naive.rises > rises and first_rise == NEVER:
                first_rise = self.clock
        bd.board_advance(self.board, self.now)
        if self.number == 0:
            assert first_rise == predicted or (first_rise == NEVER and predicted > self.clock)

    def latch(self) -> None:
        self.write(0x43, self.number << 6)
        self.naive.latch()

    def status(self) -> None:
        self.write(0x43, 0xE0 | 2 << self.number)
        self.naive.latch_status()

    def read(self) -> None:
        assert port_read(self.board, 0x40 + self.number, 1, self.now) == self.naive.read()

    def gate(self, level: int) -> None:
        if self.number == 2:
            self.write(0x61, level)
            self.naive.set_gate(level)

    def check(self) -> None:
        channel = self.board.pit[self.number]
        settle(channel, self.clock)
        assert channel.output == self.naive.out
        assert displayed_count(channel, self.clock) == self.naive.shown()
        assert (self.clock < channel.null_until) == self.naive.null
        if self.number == 0:
            assert self.board.timer_edges == self.naive.rises
            assert self.board.pic[0].lines & 1 == self.naive.out


@settings(max_examples=100, deadline=None)
@given(st.sampled_from([0, 2]), st.lists(PIT_ACTIONS, min_size=12, max_size=40))
def test_counter_equals_the_stepped_one(number, actions):
    pair = PitPair(number)
    pair.control(3, actions[0][1] % 6 if len(actions[0]) > 1 else 2, 0)
    for name, *arguments in actions:
        getattr(pair, name)(*arguments)
        pair.check()


@pytest.mark.parametrize("mode", [0, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 10])
def test_exact_modes_pulse_by_pulse(mode, count):
    pair = PitPair(0)
    pair.control(1, mode, 0)
    pair.byte(count)
    for _ in range(4 * count + 3):
        pair.run(1)
        pair.check()
        pair.status()
        pair.read()
        pair.read()


def test_square_wave_has_the_odd_clock_in_its_high_half():
    board = make_board()[0]
    program_timer(board, 3, 5, 0, channel=2)
    port_write(board, 0x61, 1, 1, 0)
    levels = [port_read(board, 0x61, 1, tick_of_clock(n, TICKS_PER_SECOND)) >> 5 & 1 for n in range(1, 11)]
    assert levels == [1, 1, 1, 0, 0, 1, 1, 1, 0, 0]


def test_read_back_of_two_counters_holds_both():
    board = make_board()[0]
    program_timer(board, 2, 1000, 0, channel=0)
    program_timer(board, 2, 2000, 0, channel=1)
    port_write(board, 0x43, 1, 0xC0 | 2 | 4, tick_of_clock(11, TICKS_PER_SECOND))  # counts and status of 0 and 1
    later = tick_of_clock(500, TICKS_PER_SECOND)
    for port, count in ((0x40, 990), (0x41, 1990)):
        status, low, high = (port_read(board, port, 1, later) for _ in range(3))
        assert status == 0x80 | 0x34
        assert low | high << 8 == count


def test_a_count_stays_latched_until_it_is_read():
    pair = PitPair(0)
    pair.control(1, 2, 0)
    pair.byte(100)
    for action in ("latch", "latch", "read", "read"):
        pair.run(7)
        getattr(pair, action)()


def test_a_new_count_waits_for_the_end_of_the_half_cycle():
    pair = PitPair(0)
    pair.control(1, 3, 0)
    for count in (9, 4, 7, 12):
        pair.byte(count)
        pair.check()
        pair.run(count + 3)
        pair.check()


@pytest.mark.parametrize("written, clocks", [(0x0012, 12), (0x9999, 9999), (0, 10000), (0xFFFF, 6665), (0xA000, 10000)])
def test_decimal_counts(written, clocks):
    board = make_board()[0]
    port_write(board, 0x43, 1, 0x35, 0)
    port_write(board, 0x40, 1, written & 0xFF, 0)
    port_write(board, 0x40, 1, written >> 8, 0)
    assert next_rise(board.pit[0]) == 1 + clocks
    now = tick_of_clock(3, TICKS_PER_SECOND)
    low, high = port_read(board, 0x40, 1, now), port_read(board, 0x40, 1, now)
    assert f"{high << 8 | low:04x}" == f"{clocks - 2:04d}"


def test_a_gate_that_falls_in_the_strobe_ends_it():
    pair = PitPair(2)
    pair.gate(1)
    pair.control(1, 4, 0)
    pair.byte(3)
    pair.run(4)
    assert pair.naive.out == 0
    for level in (0, 1):
        pair.gate(level)
        pair.check()
        pair.run(2)
        pair.check()


def test_refresh_bit_toggles():
    board = make_board()[0]
    seen = {port_read(board, 0x61, 1, tick_of_clock(18 * n, TICKS_PER_SECOND)) & 0x10 for n in range(2)}
    assert seen == {0, 0x10}


@FEW
@given(st.sampled_from([2, 3]), st.integers(2, 65536), st.integers(1 << 50, 1 << 60))
def test_a_long_jump_counts_every_edge(mode, count, now):
    boards = make_board()
    initialize_pics(boards[0])
    program_timer(boards[0], mode, count, 0)
    bd.board_advance(boards[0], now)
    edges = (now * PIT_HZ // TICKS_PER_SECOND - 1) // count
    assert boards[0].timer_edges == edges
    assert boards[0].timer_lost == max(edges - 1, 0)


@FEW
@given(st.integers(0, 5), st.integers(1, 50), st.lists(st.integers(0, 40), min_size=5, max_size=20), st.integers(0, 1))
def test_how_often_the_board_is_advanced_changes_nothing(mode, count, steps, level):
    often, once = make_board(), make_board()
    now = 0
    for boards in (often, once):
        initialize_pics(boards[0], level=level)
        program_timer(boards[0], mode, count, 0)
    for step in steps:
        now += step * (TICKS_PER_SECOND // PIT_HZ)
        bd.board_advance(often[0], now)
    bd.board_advance(once[0], now)
    assert often.tobytes() == once.tobytes()


# -- 8259 ---------------------------------------------------------------------------------------------------------


class NaivePic:
    """An 8259A made of sets and an explicit order of priority."""

    def __init__(self, cascade_input: int | None, high: set[int]) -> None:
        self.cascade_input = cascade_input
        self.high = high
        self.requested: set[int] = set()
        self.serviced: set[int] = set()
        self.masked = set(range(8))
        self.order = list(range(8))
        self.ready = False
        self.words: list[str] = []
        self.offset = self.slaves = 0
        self.level = self.single = self.auto = self.rotating = self.nested = self.smm = self.show_isr = self.poll = (
            False
        )

    def wanted(self) -> int | None:
        for irq in self.order if self.ready else []:
            asks = irq in self.requested and irq not in self.masked
            if irq in self.serviced and not (self.smm and irq in self.masked):
                return irq if asks and self.nested and self.answers_by_slave(irq) else None
            if asks:
                return irq
        return None

    def answers_by_slave(self, irq: int) -> bool:
        return irq == self.cascade_input and not self.single and bool(self.slaves >> irq & 1)

    def take(self, irq: int) -> None:
        if not self.level:
            self.requested.discard(irq)
        if not self.auto:
            self.serviced.add(irq)
        elif self.rotating:
            self.make_lowest(irq)

    def make_lowest(self, irq: int) -> None:
        self.order = [(irq + step) % 8 for step in range(1, 9)]

    def line(self, irq: int, level: int) -> None:
        if level:
            if self.level or irq not in self.high:
                self.requested.add(irq)
            self.high.add(irq)
        else:
            self.high.discard(irq)
            if self.level:
                self.requested.discard(irq)

    def write(self, a0: int, value: int) -> None:
        if a0:
            if self.words:
                self.initialization_word(value)
            else:
                self.masked = {irq for irq in range(8) if value >> irq & 1}
        elif value & 0x10:
            self.first_word(value)
        elif value & 8:
            if value & 0x40:
                self.smm = bool(value & 0x20)
            self.poll = bool(value & 4)
            if value & 2:
                self.show_isr = bool(value & 1)
        else:
            self.operation(value >> 5, value & 7)

    def first_word(self, value: int) -> None:
        self.level, self.single = bool(value & 8), bool(value & 2)
        self.words = ["offset"] + ["slaves"] * (not self.single) + ["modes"] * (value & 1)
        self.requested = set(self.high) if self.level else set()
        self.serviced, self.masked, self.order, self.ready = set(), set(), list(range(8)), False
        self.auto = self.rotating = self.nested = self.smm = self.show_isr = self.poll = False

    def initialization_word(self, value: int) -> None:
        word = self.words.pop(0)
        if word == "offset":
            self.offset = value & 0xF8
        elif word == "slaves":
            self.slaves = value
        else:
            self.auto, self.nested = bool(value & 2), bool(value & 16)
        self.ready = not self.words

    def operation(self, command: int, irq: int) -> None:
        ended: int | None = irq
        if command in (1, 5):
            candidates = [i for i in self.order if i in self.serviced and not (self.smm and i in self.masked)]
            ended = candidates[0] if candidates else None
        if command in (1, 3, 5, 7) and ended is not None:
            self.serviced.discard(ended)
        if command in (5, 6, 7) and ended is not None:
            self.make_lowest(ended)
        if command in (0, 4):
            self.rotating = command == 4

    def read(self, a0: int) -> int:
        if self.poll:
            self.poll = False
            irq = self.wanted()
            if irq is None:
                return 0
            self.take(irq)
            return 0x80 + irq
        chosen = self.masked if a0 else self.serviced if self.show_isr else self.requested
        return sum(1 << irq for irq in chosen)


class NaivePics:
    """Master and slave, wired as in a PC. Line 0 is high from the start: the idle timer's output."""

    def __init__(self) -> None:
        self.master, self.slave = NaivePic(2, {0}), NaivePic(None, set())

    def propagate(self) -> None:
        if self.slave.wanted() is None:
            self.master.line(2, 0)
        else:
            self.master.high.add(2)
            self.master.requested.add(2)

    def acknowledge(self) -> int:
        irq = self.master.wanted()
        if irq is None:
            return self.master.offset + 7
        self.master.take(irq)
        if not self.master.answers_by_slave(irq):
            return self.master.offset + irq
        inner = self.slave.wanted()
        if inner is None:
            return self.slave.offset + 7
        self.slave.take(inner)
        self.propagate()
        return self.slave.offset + inner


PIC_PORTS = st.sampled_from([0x20, 0xA0])
PIC_ACTIONS = st.one_of(
    st.tuples(st.just("line"), st.sampled_from([1, 3, 4, 5, 6, 7, *range(8, 16)]), st.integers(0, 1)),
    st.tuples(st.just("line"), st.sampled_from([1, 4, 8, 12, 15]), st.just(1)),
    st.tuples(st.just("write"), PIC_PORTS, st.integers(0, 255).map(lambda value: value & 0xE7)),  # OCW2 and ICW1
    st.tuples(st.just("write"), PIC_PORTS, st.sampled_from([0x20, 0xA0, 0x80, 0x00, 0x61, 0x64, 0xE1, 0xC3])),
    st.tuples(st.just("write"), PIC_PORTS, st.sampled_from([0x0A, 0x0B, 0x0C, 0x68, 0x48, 0x08])),  # OCW3
    st.tuples(st.just("write"), PIC_PORTS.map(lambda port: port + 1), st.integers(0, 255)),
    st.tuples(st.just("write"), PIC_PORTS.map(lambda port: port + 1), st.just(0)),
    st.tuples(st.just("read"), st.sampled_from([0x20, 0x21, 0xA0, 0xA1])),
    st.tuples(st.just("acknowledge")),
    st.tuples(st.just("acknowledge")),
)


class PicPair:
    """The board's PICs and their naive twins under the same actions."""

    def __init__(self) -> None:
        self.boards = make_board()
        self.board = self.boards[0]
        self.naive = NaivePics()

    def line(self, irq: int, level: int) -> None:
        bd.set_irq_line(self.board, irq, level)
        if irq < 8:
            self.naive.master.line(irq, level)
        else:
            self.naive.slave.line(irq - 8, level)
            self.naive.propagate()

    def chip(self, port: int) -> NaivePic:
        return self.naive.slave if port & 0x80 else self.naive.master

    def write(self, port: int, value: int) -> None:
        port_write(self.board, port, 1, value, 0)
        self.chip(port).write(port & 1, value)
        self.naive.propagate()

    def read(self, port: int) -> None:
        assert port_read(self.board, port, 1, 0) == self.chip(port).read(port & 1)
        self.naive.propagate()

    def acknowledge(self) -> None:
        assert bd.interrupt_acknowledge(self.board) == self.naive.acknowledge()

    def check(self) -> None:
        assert bd.interrupt_pending(self.board) == (self.naive.master.wanted() is not None)


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(0, 31), st.integers(0, 31)),
    st.sampled_from([0x11, 0x11, 0x19, 0x13, 0x10]),
    st.lists(PIC_ACTIONS, min_size=15, max_size=50),
)
def test_pics_equal_the_naive_ones(modes, first_word, actions):
    pair = PicPair()
    for port, slaves, mode in ((0x20, 4, modes[0]), (0xA0, 2, modes[1])):
        words = [port // 4 & 0xF8, slaves, mode]
        if first_word == 0x13:
            words.remove(slaves)
        pair.write(port, first_word)
        for word in words[: 2 if first_word == 0x10 else 3]:
            pair.write(port + 1, word)
    for name, *arguments in actions:
        getattr(pair, name)(*arguments)
        pair.check()


def test_interrupts_of_the_slave_come_through_input_2():
    board = make_board()[0]
    initialize_pics(board)
    bd.set_irq_line(board, 14, 1)
    assert bd.interrupt_pending(board) == 1
    assert bd.interrupt_acknowledge(board) == 0x28 + 6
    port_write(board, 0x20, 1, 0x0B, 0)
    port_write(board, 0xA0, 1, 0x0B, 0)
    assert port_read(board, 0x20, 1, 0) == 0x04
    assert port_read(board, 0xA0, 1, 0) == 0x40


def request(pair: PicPair, *lines: int) -> None:
    """Make an edge on each of the lines."""
    for line in lines:
        pair.line(line, 0)
        pair.line(line, 1)


def start_pics(pair: PicPair, icw4: int) -> None:
    for word in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, icw4)):
        pair.write(*word)


def test_initialization_restores_the_order_of_priority():
    pair = PicPair()
    start_pics(pair, 1)
    pair.write(0x20, 0xC3)  # input 3 is the lowest
    start_pics(pair, 1)
    request(pair, 3, 4)
    assert bd.interrupt_acknowledge(pair.board) == 0x23


def test_special_mask_mode_protects_masked_inputs_from_end_of_interrupt():
    pair = PicPair()
    start_pics(pair, 1)
    request(pair, 3)
    pair.acknowledge()
    pair.write(0x21, 0x08)
    pair.write(0x20, 0x68)
    request(pair, 5)
    pair.acknowledge()
    pair.write(0x20, 0x20)
    assert pair.board.pic[0].isr == 0x08
    pair.write(0x20, 0x48)
    pair.write(0x20, 0x20)
    assert pair.board.pic[0].isr == 0


def test_automatic_rotation_makes_the_served_input_the_lowest():
    pair = PicPair()
    start_pics(pair, 3)
    pair.write(0x20, 0x80)
    vectors = []
    for _ in range(4):
        request(pair, 3, 4)
        vectors.append(bd.interrupt_acknowledge(pair.board))
    assert vectors == [0x23, 0x24, 0x23, 0x24]


def test_spurious_interrupts_are_not_put_in_service():
    board = make_board()[0]
    initialize_pics(board)
    assert bd.interrupt_acknowledge(board) == 0x27
    assert board.pic[0].isr == 0
    bd.set_irq_line(board, 9, 1)
    port_write(board, 0xA1, 1, 0xFF, 0)  # masked after the master has latched the slave's request
    assert bd.interrupt_pending(board) == 1
    assert bd.interrupt_acknowledge(board) == 0x2F
    assert (board.pic[0].isr, board.pic[1].isr) == (0x04, 0)


def test_no_interrupt_before_initialization():
    board = make_board()[0]
    port_write(board, 0x21, 1, 0, 0)
    program_timer(board, 2, 10, 0)
    bd.board_advance(board, TICKS_PER_SECOND)
    assert bd.interrupt_pending(board) == 0
    assert bd.board_deadline(board) == NEVER


# -- deadlines and the virtual timer's policies -------------------------------------------------------------------


@FEW
@given(SPEEDS, st.sampled_from([0, 2, 3, 4]), st.integers(1, 65536), st.integers(0, 1 << 45), st.integers(0, 1))
def test_the_interrupt_comes_exactly_at_the_deadline(speed, mode, count, now, level):
    board = make_board(speed)[0]
    initialize_pics(board, now)
    program_timer(board, mode, count & 0xFFFF, now)
    first = None
    for _ in range(4):
        deadline = bd.board_deadline(board)
        if first is not None and mode in (0, 4):
            assert deadline == NEVER
            break
        assert deadline > now
        bd.board_advance(board, deadline - 1)
        assert bd.interrupt_pending(board) == 0
        assert bd.board_deadline(board) == deadline
        bd.board_advance(board, deadline)
        assert bd.interrupt_pending(board) == 1
        assert bd.interrupt_acknowledge(board) == 0x20
        port_write(board, 0x20, 1, 0x20, deadline)
        first = first or deadline
        now = deadline


@FEW
@given(st.sampled_from([0, 1, 2, 3, 4]), st.integers(1, 30))
def test_a_level_triggered_timer_changes_only_at_deadlines(mode, count):
    board = make_board()[0]
    initialize_pics(board, level=1)
    program_timer(board, mode, count, 0)
    changes, pending = [], bd.interrupt_pending(board)
    deadline = bd.board_deadline(board)
    for clock in range(1, 100):
        now = tick_of_clock(clock, TICKS_PER_SECOND)
        bd.board_advance(board, now)
        if bd.interrupt_pending(board) != pending:
            changes.append(clock)
            assert now == deadline
            pending = 1 - pending
        assert now <= deadline
        deadline = bd.board_deadline(board)
    assert changes or mode == 1


def test_a_masked_timer_has_no_deadline():
    board = make_board()[0]
    initialize_pics(board)
    program_timer(board, 2, 100, 0)
    assert bd.board_deadline(board) == tick_of_clock(101, TICKS_PER_SECOND)
    port_write(board, 0x21, 1, 1, 0)
    assert bd.board_deadline(board) == NEVER


def test_a_timer_out_of_range_has_no_deadline():
    assert tick_of_clock(NEVER - 1, TICKS_PER_SECOND) == NEVER


POLICY_ACTIONS = st.one_of(
    st.tuples(st.just("run"), st.integers(0, 45)),
    st.tuples(st.just("run"), st.integers(0, 15)),
    st.just(("acknowledge",)),
    st.just(("acknowledge",)),
    st.just(("end",)),
    st.just(("end",)),
    st.tuples(st.just("mask"), st.integers(0, 1)),
)


class NaivePolicy:
    """What each single edge and guest action does to IRQ 0."""

    def __init__(self, policy: int, auto_eoi: int) -> None:
        self.policy, self.auto_eoi = policy, auto_eoi
        self.requested = self.serviced = self.masked = False
        self.edges = self.lost = self.kept = self.replayed = 0

    def edge(self) -> None:
        self.edges += 1
        if not self.requested and not (self.policy == bd.TIMER_DROP and self.serviced):
            self.requested = True
        elif self.policy == bd.TIMER_CATCH_UP and not self.masked:
            self.kept += 1
        else:
            self.lost += 1

    def replay(self) -> None:
        if self.kept and not self.requested and not self.serviced:
            self.kept -= 1
            self.replayed += 1
            self.requested = True

    def acknowledge(self) -> None:
        self.requested, self.serviced = False, not self.auto_eoi
        self.replay()

    def end(self) -> None:
        self.serviced = False
        self.replay()

    @property
    def pending(self) -> bool:
        return self.requested and not self.masked and not self.serviced


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 2), st.integers(0, 1), st.lists(POLICY_ACTIONS, min_size=12, max_size=40))
def test_timer_policies_equal_the_naive_ones(policy, auto_eoi, actions):
    board = make_board()[0]
    initialize_pics(board, auto_eoi=auto_eoi)
    board.timer_policy = policy
    program_timer(board, 2, 10, 0)
    naive = NaivePolicy(policy, auto_eoi)
    clock = 0
    for name, *arguments in actions:
        now = tick_of_clock(clock, TICKS_PER_SECOND)
        if name == "run":
            for _ in range(arguments[0]):
                clock += 1
                if clock % 10 == 1 and clock > 10:
                    naive.edge()
            bd.board_advance(board, tick_of_clock(clock, TICKS_PER_SECOND))
        elif name == "mask":
            port_write(board, 0x21, 1, arguments[0], now)
            naive.masked = bool(arguments[0])
        elif name == "end":
            port_write(board, 0x20, 1, 0x60, now)
            naive.end()
        elif naive.pending:
            assert bd.interrupt_acknowledge(board) == 0x20
            naive.acknowledge()
        assert bd.interrupt_pending(board) == naive.pending
        counters = (board.timer_edges, board.timer_lost, board.timer_backlog, board.timer_replayed)
        assert counters == (naive.edges, naive.lost, naive.kept, naive.replayed)


@pytest.mark.parametrize("port, value", [(0x43, 0x34), (0x20, 0x11)])
def test_programming_the_timer_or_the_pic_anew_forgets_the_backlog(port, value):
    board = make_board()[0]
    initialize_pics(board)
    board.timer_policy = bd.TIMER_CATCH_UP
    program_timer(board, 2, 10, 0)
    now = tick_of_clock(55, TICKS_PER_SECOND)
    bd.board_advance(board, now)
    assert board.timer_backlog == 4
    port_write(board, port, 1, value, now)
    assert (board.timer_backlog, board.timer_lost) == (0, 4)


# -- the other ports ----------------------------------------------------------------------------------------------


def test_console_keeps_bytes_and_asks_to_be_emptied():
    boards = make_board()
    board = boards[0]
    for byte in b"hello":
        assert port_write(board, 0xE9, 1, byte, 0) == bd.BOARD_OK
    assert bytes(board.console[: board.console_length]) == b"hello"
    assert port_read(board, 0xE9, 1, 0) == 0xE9
    board.console_length = bd.CONSOLE_NEARLY_FULL - 1
    assert port_write(board, 0xE9, 1, 65, 0) == bd.BOARD_OK
    assert port_write(board, 0xE9, 1, 66, 0) == bd.BOARD_CONSOLE
    board.console_length = bd.CONSOLE_BYTES
    assert port_write(board, 0xE9, 1, 67, 0) == bd.BOARD_CONSOLE
    assert (board.console_length, board.console_lost) == (bd.CONSOLE_BYTES, 1)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_exit_port_takes_any_width(width):
    board = make_board()[0]
    assert port_write(board, 0xF4, width, 0x12345603, 0) == bd.BOARD_EXIT
    assert (board.exit_requested, board.exit_code) == (1, 3)
    assert board.unclaimed_writes == 0


@pytest.mark.parametrize("text, halted", [(b"Shutdown", 1), (b"ShutShutdown", 1), (b"shutdown", 0), (b"Shutdow n", 0)])
def test_shutdown_word(text, halted):
    board = make_board()[0]
    outcomes = [port_write(board, 0x8900, 1, byte, 0) for byte in text]
    assert board.shutdown_requested == halted
    assert outcomes == [bd.BOARD_OK] * (len(text) - 1) + [bd.BOARD_SHUTDOWN if halted else bd.BOARD_OK]


def test_post_port_and_ports_without_a_device():
    board = make_board()[0]
    port_write(board, 0x80, 1, 0x5A, 0)
    assert port_read(board, 0x80, 1, 0) == 0x5A
    assert port_read(board, 0x80, 2, 0) == 0xFF5A
    assert port_read(board, 0x300, 4, 0) == 0xFFFFFFFF
    assert port_read(board, 0xFFFF, 2, 0) == 0xFFFF
    assert port_write(board, 0x300, 4, 0x01020304, 0) == bd.BOARD_OK
    assert (board.unclaimed_reads, board.unclaimed_writes) == (7, 4)


def test_wide_accesses_are_split_by_port():
    board = make_board()[0]
    initialize_pics(board)
    port_write(board, 0x20, 2, 0xA50B, 0)  # OCW3: read ISR; mask A5
    assert port_read(board, 0x20, 2, 0) == 0xA500
    assert port_write(board, 0xE8, 2, 0x4100, 0) == bd.BOARD_OK
    assert bytes(board.console[: board.console_length]) == b"A"
    assert port_read(board, 0xE8, 2, 0) == 0xE9FF


@FEW
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.one_of(st.integers(0x20, 0x21), st.integers(0x40, 0x61), st.integers(0xA0, 0xA1), st.integers(0, 65535)),
            st.sampled_from([1, 2, 4]),
            st.integers(0, 0xFFFFFFFF),
            st.integers(0, 1 << 40),
        ),
        max_size=40,
    )
)
def test_any_sequence_of_port_accesses_is_harmless(accesses):
    board = make_board()[0]
    now = 0
    for is_read, port, width, value, step in accesses:
        now += step
        if is_read:
            assert 0 <= port_read(board, port, width, now) < 1 << 8 * width
        else:
            assert port_write(board, port, width, value, now) in range(256)
        bd.board_advance(board, now)
        assert bd.board_deadline(board) > now
        assert 0 <= bd.interrupt_acknowledge(board) <= 0xFF


def test_no_field_hides_a_numpy_attribute():
    record_attributes = set(dir(np.recarray)) | set(dir(np.record))
    for dtype in (bd.BOARD, PIC, CHANNEL):
        assert not record_attributes & set(dtype.names)
