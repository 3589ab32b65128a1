"""The 16550A against a naive one made of lists, and the probes by which drivers tell what it is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_board import SECOND, PcBoard

from x86virt.core import board as bd
from x86virt.core.device_entries import device_serial_input
from x86virt.core.layout import NEVER
from x86virt.core.uart import SENT_BYTES, SENT_NEARLY_FULL

COM1, COM2 = 0x3F8, 0x2F8
MICROSECOND = SECOND // 1_000_000


def give(pc: PcBoard, octets: bytes, number: int = 0) -> int:
    return int(device_serial_input(pc.boards, pc.now, number, np.frombuffer(octets, np.uint8)))


def started(fifo: int = 0xC7, enables: int = 0, out_2: int = 8) -> PcBoard:
    """A board whose first port runs at 115200 baud, 8 bits."""
    pc = PcBoard()
    for register, value in ((3, 0x83), (0, 1), (1, 0), (3, 3), (2, fifo), (4, 3 | out_2), (1, enables)):
        pc.outb(COM1 + register, value)
    return pc


class NaiveUart:
    """A PC16550D by its data sheet; what time does is given to it by `empty` and `time_out`."""

    def __init__(self) -> None:
        self.ier = self.lcr = self.mcr = self.scratch = self.errors = self.delta = 0
        self.divisor, self.lines = 12, {"CTS", "DSR", "DCD"}
        self.fifo, self.trigger = False, 1
        self.received: list[int] = []
        self.sent: list[int] = []
        self.empty, self.empty_waits, self.timed_out = True, False, False
        self.sent_at = self.quiet_since = 0
        self.now = 0

    # -- time -----------------------------------------------------------------------------------------------------

    def run(self, microseconds: int) -> None:
        self.now += microseconds
        if not self.empty and self.now >= self.sent_at + 1:
            self.empty, self.empty_waits = True, True
        # Four characters of ten bits, of 16 clocks of the 1.8432 MHz divided by the divisor each.
        if self.fifo and self.received and (self.now - self.quiet_since) * 115200 >= 40 * self.divisor * 1_000_000:
            self.timed_out = True

    def touch_fifo(self) -> None:
        self.timed_out, self.quiet_since = False, self.now

    # -- interrupts -----------------------------------------------------------------------------------------------

    def source(self) -> int:
        """The identification of the first that is pending, in the data sheet's order of priority."""
        if self.ier & 4 and self.errors:
            return 6
        if self.ier & 1 and len(self.received) >= (self.trigger if self.fifo else 1):
            return 4
        if self.ier & 1 and self.timed_out:
            return 0xC
        if self.ier & 2 and self.empty_waits:
            return 2
        if self.ier & 8 and self.delta:
            return 0
        return 1

    @property
    def line(self) -> bool:
        return self.source() != 1 and self.mcr & 0x18 == 8

    # -- registers ------------------------------------------------------------------------------------------------

    def arrive(self, octet: int) -> None:
        if len(self.received) < (16 if self.fifo else 1):
            self.received.append(octet)
        else:
            self.errors |= 2
            if not self.fifo:
                self.received = [octet]
        self.touch_fifo()

    def write(self, register: int, value: int) -> None:
        if self.lcr & 0x80 and register == 0:
            self.divisor = self.divisor & 0xFF00 | value
        elif self.lcr & 0x80 and register == 1:
            self.divisor = self.divisor & 0xFF | value << 8
        elif register == 0:
            self.empty, self.empty_waits, self.sent_at = False, False, self.now
            if self.mcr & 0x10:
                self.arrive(value)
            else:
                self.sent.append(value)
        elif register == 1:
            if value & 2 and not self.ier & 2 and self.empty:
                self.empty_waits = True
            self.ier = value & 15
        elif register == 2:
            if bool(value & 1) != self.fifo or value & 3 == 3:
                self.received.clear()
                self.timed_out = False
            self.fifo = bool(value & 1)
            self.trigger = {0: 1, 1: 4, 2: 8, 3: 14}[value >> 6] if self.fifo else 1
        elif register == 3:
            self.lcr = value
        elif register == 4:
            self.mcr = value & 0x1F
            self.set_lines()
        elif register == 7:
            self.scratch = value

    def set_lines(self) -> None:
        lines = {"CTS", "DSR", "DCD"}
        if self.mcr & 0x10:
            outputs = {1: "DSR", 2: "CTS", 4: "RI", 8: "DCD"}
            lines = {name for bit, name in outputs.items() if self.mcr & bit}
        for bit, name in ((1, "CTS"), (2, "DSR"), (8, "DCD")):
            if (name in lines) != (name in self.lines):
                self.delta |= bit
        if "RI" in self.lines - lines:
            self.delta |= 4
        self.lines = lines

    def read(self, register: int) -> int:
        if self.lcr & 0x80 and register < 2:
            return self.divisor >> 8 * register & 0xFF
        if register == 0:
            if not self.received:
                return 0
            octet = self.received.pop(0)
            self.touch_fifo()
            return octet
        if register == 2:
            source = self.source()
            if source == 2:
                self.empty_waits = False
            return source | (0xC0 if self.fifo else 0)
        if register == 5:
            value, self.errors = bool(self.received) | self.errors | (0x60 if self.empty else 0), 0
            return value
        if register == 6:
            places = {"CTS": 16, "DSR": 32, "RI": 64, "DCD": 128}
            value = self.delta | sum(places[name] for name in self.lines)
            self.delta = 0
            return value
        return {1: self.ier, 3: self.lcr, 4: self.mcr, 7: self.scratch}[register]


UART_ACTIONS = st.one_of(
    st.tuples(st.just("write"), st.integers(0, 7), st.integers(0, 255)),
    st.tuples(st.just("write"), st.just(0), st.integers(0, 255)),
    st.tuples(st.just("write"), st.just(1), st.integers(0, 15)),
    st.tuples(st.just("write"), st.just(2), st.sampled_from([0, 1, 7, 0x41, 0x81, 0xC1, 0xC3])),
    st.tuples(st.just("write"), st.just(3), st.sampled_from([3, 3, 0x83])),
    st.tuples(st.just("write"), st.just(4), st.sampled_from([8, 0xB, 0x1B, 0x1F, 0x10])),
    st.tuples(st.just("read"), st.integers(0, 7)),
    st.tuples(st.just("read"), st.sampled_from([0, 2, 5])),
    st.tuples(st.just("run"), st.sampled_from([0, 1, 2, 100, 346, 348, 4200, 40000])),
    st.tuples(st.just("give"), st.binary(min_size=1, max_size=20)),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(UART_ACTIONS, min_size=10, max_size=50))
def test_the_port_equals_the_naive_one(actions):
    pc, naive = PcBoard(), NaiveUart()
    for name, *arguments in actions:
        if name == "write":
            pc.outb(COM1 + arguments[0], arguments[1])
            naive.write(*arguments)
        elif name == "read":
            assert pc.inb(COM1 + arguments[0]) == naive.read(arguments[0])
        elif name == "run":
            pc.run(arguments[0] * MICROSECOND)
            naive.run(arguments[0])
        else:
            room = (16 if naive.fifo else 1) - len(naive.received) if not naive.mcr & 0x10 else 0
            taken = give(pc, arguments[0])
            assert taken == min(max(room, 0), len(arguments[0]))
            for octet in arguments[0][:taken]:
                naive.arrive(octet)
        assert pc.line(4) == naive.line
    uart = pc.board.uart[0]
    assert bytes(uart.sent[: uart.sent_length]) == bytes(naive.sent)


def test_a_driver_tells_a_16550a():
    """What drivers do to find a port: enables, scratch, loop-back, FIFO bits (Linux 8250, SeaBIOS)."""
    pc = PcBoard()
    for value, expected in ((0, 0), (0x0F, 0x0F), (0xFF, 0x0F), (0, 0)):
        pc.outb(COM1 + 1, value)
        assert pc.inb(COM1 + 1) == expected
    pc.outb(COM1 + 7, 0xA5)
    assert pc.inb(COM1 + 7) == 0xA5
    pc.outb(COM1 + 4, 0x1A)
    assert pc.inb(COM1 + 6) & 0xF0 == 0x90
    pc.outb(COM1 + 4, 0)
    pc.outb(COM1 + 2, 1)
    assert pc.inb(COM1 + 2) & 0xC0 == 0xC0
    pc.outb(COM1 + 2, 0)
    pc.outb(COM1 + 1, 2)
    assert pc.inb(COM1 + 2) & 0x3F == 0x02


def test_the_transmitter_is_ready_within_a_microsecond_at_any_rate():
    pc = PcBoard()
    for register, value in ((3, 0x83), (0, 0xFF), (1, 0xFF), (3, 3)):
        pc.outb(COM1 + register, value)
    for octet in b"fast":
        assert pc.inb(COM1 + 5) & 0x60 == 0x60
        pc.outb(COM1, octet)
        assert pc.inb(COM1 + 5) & 0x60 == 0
        pc.run(MICROSECOND)
    assert bytes(pc.board.uart[0].sent[:4]) == b"fast"


def test_the_transmitter_interrupt_comes_at_its_deadline():
    pc = started(enables=2)
    assert pc.line(4) == 1 and pc.inb(COM1 + 2) == 0xC2 and pc.line(4) == 0
    assert pc.board.uart[0].deadline == NEVER
    pc.outb(COM1, 65)
    assert pc.board.device_deadline == pc.now + MICROSECOND
    pc.run(MICROSECOND)
    assert pc.line(4) == 1
    pc.outb(COM1, 66)
    assert pc.line(4) == 0


@pytest.mark.parametrize("trigger, level", [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
def test_received_bytes_interrupt_at_the_trigger_level_or_by_time_out(trigger, level):
    pc = started(fifo=trigger, enables=1)
    if level > 1:
        assert give(pc, b"x" * (level - 1)) == level - 1
        assert pc.line(4) == 0
        pc.run(348 * MICROSECOND)  # four characters at 115200 baud are 347.2 us
        assert pc.line(4) == 1 and pc.inb(COM1 + 2) == 0xCC
    give(pc, b"y")
    assert pc.inb(COM1 + 2) == 0xC4 and pc.line(4) == 1
    while pc.inb(COM1 + 5) & 1:
        pc.inb(COM1)
    assert pc.line(4) == 0


def test_the_receiver_takes_what_it_has_room_for():
    pc = started()
    assert give(pc, b"0123456789abcdefXYZ") == 16
    assert give(pc, b"!") == 0
    assert bytes(pc.inb(COM1) for _ in range(16)) == b"0123456789abcdef"
    pc.outb(COM1 + 2, 0)
    assert give(pc, b"ab") == 1
    assert pc.inb(COM1) == ord("a")


def test_out_2_gates_the_interrupt():
    pc = started(enables=1, fifo=1, out_2=0)
    give(pc, b"x")
    assert pc.line(4) == 0
    pc.outb(COM1 + 4, 0x0B)
    assert pc.line(4) == 1
    pc.outb(COM1 + 4, 0x1B)
    assert pc.line(4) == 0


def test_both_ports_are_there_with_their_interrupts():
    pc = PcBoard()
    for register, value in ((4, 8), (1, 1)):
        pc.outb(COM2 + register, value)
    assert give(pc, b"x", 1) == 1
    assert (pc.line(3), pc.line(4)) == (1, 0)
    assert pc.inb(COM2) == ord("x") and pc.inb(COM1) == 0


def test_a_full_buffer_asks_for_attention_and_then_loses():
    pc = PcBoard()
    uart = pc.board.uart[0]
    uart.sent_length = SENT_NEARLY_FULL - 1
    assert pc.outb(COM1, 65) == bd.BOARD_OK
    assert pc.outb(COM1, 66) == bd.BOARD_SERIAL
    uart.sent_length = SENT_BYTES
    assert pc.outb(COM1, 67) == bd.BOARD_SERIAL
    assert (uart.sent_length, uart.sent_lost) == (SENT_BYTES, 1)
