"""The real-time clock against a naive one that counts every period with Python's calendar; CMOS memory by its places."""

import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_board import SECOND, PcBoard

from x86virt.core.device_clock import tick_of_clock
from x86virt.core.device_entries import (
    device_disk_settings,
    device_firmware_settings,
    device_restart,
    device_set_clock,
)
from x86virt.core.layout import NEVER

FEW = settings(max_examples=25, deadline=None)
HZ = 32768
A, B, C, D = 10, 11, 12, 13
TIME = (0, 2, 4, 6, 7, 8, 9, 0x32)


def read(pc: PcBoard, register: int) -> int:
    pc.outb(0x70, register)
    return pc.inb(0x71)


def write(pc: PcBoard, register: int, value: int) -> None:
    pc.outb(0x70, register)
    pc.outb(0x71, value)


class NaiveClock:
    """An MC146818 by its data sheet, moved period by period; the century byte is part of the date."""

    def __init__(self) -> None:
        self.when = datetime.datetime(2000, 1, 1)
        self.weekday = 7
        self.periods = 0
        self.a, self.b, self.flags = 0x26, 2, 0
        self.alarm = {1: 0, 3: 0, 5: 0}
        self.raw: dict[int, int] = {}

    # -- formats --------------------------------------------------------------------------------------------------

    def coded(self, number: int) -> int:
        return number if self.b & 4 else int(str(number), 16)

    def decoded(self, octet: int) -> int:
        return octet if self.b & 4 else (octet >> 4) * 10 + (octet & 15)

    def coded_hour(self, hour: int) -> int:
        if self.b & 2:
            return self.coded(hour)
        text = datetime.time(hour).strftime("%I %p").split()
        return self.coded(int(text[0])) | (0x80 if text[1] == "PM" else 0)

    def hour_of(self, octet: int) -> int:
        if self.b & 2:
            return self.decoded(octet)
        return self.decoded(octet & 0x7F) % 12 + (12 if octet & 0x80 else 0)

    def registers(self) -> dict[int, int]:
        when = self.when
        return {
            0: self.coded(when.second), 2: self.coded(when.minute), 4: self.coded_hour(when.hour), 6: self.coded(self.weekday),
            7: self.coded(when.day), 8: self.coded(when.month), 9: self.coded(when.year % 100),
            0x32: self.coded(when.year // 100),
        }  # fmt: skip

    def adopt(self, registers: dict[int, int]) -> None:
        value = {register: self.decoded(octet) for register, octet in registers.items()}
        clock = datetime.timedelta(hours=self.hour_of(registers[4]), minutes=value[2], seconds=value[0])
        days = datetime.timedelta(days=value[7] - 1)
        self.when = datetime.datetime(value[0x32] * 100 + value[9], value[8], 1) + days + clock
        self.weekday = value[6]

    # -- what software does ---------------------------------------------------------------------------------------

    def write(self, register: int, octet: int) -> None:
        if register == A:
            self.a = octet & 0x7F
        elif register == B:
            was_set = self.b & 0x80
            if octet & 0x80:
                octet &= ~0x10
            self.b = octet
            if octet & 0x80 and not was_set:
                self.raw = self.registers()
            if was_set and not octet & 0x80:
                self.adopt(self.raw)
        elif register in self.alarm:
            self.alarm[register] = octet
        elif self.b & 0x80:
            self.raw[register] = octet
        else:
            self.adopt(self.registers() | {register: octet})

    def read(self, register: int) -> int:
        if register == A:
            busy = not self.b & 0x80 and self.periods % HZ >= HZ - 73
            return self.a | busy << 7
        if register == B:
            return self.b
        if register == C:
            value, self.flags = self.flags | self.interrupt << 7, 0
            return value
        if register == D:
            return 0x80
        if register in self.alarm:
            return self.alarm[register]
        return self.raw[register] if self.b & 0x80 else self.registers()[register]

    @property
    def interrupt(self) -> bool:
        return bool(self.flags & self.b & 0x70)

    # -- time -----------------------------------------------------------------------------------------------------

    def alarm_now(self) -> bool:
        now = {1: self.when.second, 3: self.when.minute, 5: self.when.hour}
        for register, octet in self.alarm.items():
            meant = self.hour_of(octet) if register == 5 else self.decoded(octet)
            if octet < 0xC0 and meant != now[register]:
                return False
        return True

    def run(self, periods: int) -> int | None:
        """Returns the period at which the interrupt line rose."""
        rose = None
        rate = self.a & 15
        every = 0 if not rate else 1 << (rate + 6 if rate < 3 else rate - 1)
        for count in range(self.periods + 1, self.periods + periods + 1):
            before = self.interrupt
            if every and count % every == 0:
                self.flags |= 0x40
            if count % HZ == 0 and not self.b & 0x80:
                self.when += datetime.timedelta(seconds=1)
                if self.when.time() == datetime.time():
                    self.weekday = self.weekday % 7 + 1
                self.flags |= 0x10 | self.alarm_now() << 5
            if self.interrupt and not before and rose is None:
                rose = count
        self.periods += periods
        return rose


TURNS = ("1999-12-31", "2000-02-28", "2096-02-28", "2100-02-28", "2026-11-30")

ACTIONS = st.one_of(
    st.tuples(st.just("run"), st.integers(1, 200)),
    st.tuples(st.just("run"), st.integers(1, 40000)),
    st.tuples(st.just("boundary"), st.integers(-80, 3)),
    st.tuples(st.just("read"), st.sampled_from([*range(14), 0x32])),
    st.tuples(st.just("read"), st.just(C)),
    st.tuples(st.just("time"), st.datetimes(datetime.datetime(1900, 1, 1), datetime.datetime(2399, 1, 1))),
    st.tuples(st.just("time"), st.sampled_from([f"{day} 23:59:59" for day in TURNS]).map(datetime.datetime.fromisoformat)),
    st.tuples(st.just("alarm"), st.integers(0, 2), st.integers(-1, 70)),
    st.tuples(st.just("rate"), st.integers(0, 15)),
    st.tuples(st.just("modes"), st.sampled_from([0, 2, 4, 6]), st.sampled_from([0, 0x10, 0x20, 0x40, 0x70, 0x80, 0xF0])),
)  # fmt: skip


class ClockPair:
    """The board's clock and the naive one under the same actions."""

    def __init__(self) -> None:
        self.pc, self.naive = PcBoard(), NaiveClock()

    def write(self, register: int, value: int) -> None:
        write(self.pc, register, value)
        self.naive.write(register, value)

    def read(self, register: int) -> None:
        assert read(self.pc, register) == self.naive.read(register), register

    def run(self, periods: int) -> None:
        predicted, was_high = int(self.pc.board.cmos.deadline), self.naive.interrupt
        rose = self.naive.run(periods)
        now = tick_of_clock(self.naive.periods, HZ, SECOND)
        if rose is not None and not was_high:
            assert predicted == tick_of_clock(rose, HZ, SECOND)
        elif not was_high:
            assert predicted > now
        self.pc.run_to(now)
        assert self.pc.line(8) == self.naive.interrupt

    def boundary(self, distance: int) -> None:
        """Go near the next update."""
        self.run((distance - self.naive.periods - 1) % HZ + 1)

    def time(self, when: datetime.datetime) -> None:
        self.write(B, self.naive.b | 0x80)
        known = NaiveClock()
        known.b, known.when, known.weekday = self.naive.b, when, when.isoweekday() % 7 + 1
        for register, value in known.registers().items():
            self.write(register, value)
        self.write(B, self.naive.b & 0x7F)

    def alarm(self, unit: int, value: int) -> None:
        if value < 0:
            octet = 0xC5
        elif unit == 2:
            octet = self.naive.coded_hour(value % 24)
        else:
            octet = self.naive.coded(value % 60)
        self.write(2 * unit + 1, octet)

    def rate(self, rate: int) -> None:
        self.write(A, 0x20 | rate)

    def modes(self, formats: int, enables: int) -> None:
        self.write(B, formats | enables)


@FEW
@given(st.lists(ACTIONS, min_size=5, max_size=15))
def test_the_clock_equals_the_naive_one(actions):
    pair = ClockPair()
    for name, *arguments in actions:
        getattr(pair, name)(*arguments)
    for register in (B, C, *TIME):
        pair.read(register)


@FEW
@given(
    st.datetimes(datetime.datetime(1970, 1, 1), datetime.datetime(2399, 12, 31)),
    st.integers(0, 400 * 366 * 86400),
    st.lists(st.one_of(st.none(), st.integers(0, 59)), min_size=3, max_size=3),
)
def test_a_long_time_passes_at_once(when, seconds, alarm):
    """Any number of seconds later the date is Python's, and the alarm came at the second that it first meant."""
    pc = PcBoard(64 * 1_000_003)
    start = when.replace(microsecond=0)
    device_set_clock(pc.boards, 0, int((start - datetime.datetime(1970, 1, 1)).total_seconds()))
    write(pc, B, 2 | 4 | 0x20)
    for unit, value in enumerate(alarm):
        write(pc, 2 * unit + 1, 0xFF if value is None else value % 24 if unit == 2 else value)
    wanted = [None if value is None else value % 24 if unit == 2 else value for unit, value in enumerate(alarm)]
    second_of_day = start.hour * 3600 + start.minute * 60 + start.second
    first = next(n for n in range(1, 86401) if alarm_means(wanted, (second_of_day + n) % 86400))
    assert pc.board.cmos.deadline == first * pc.second
    pc.now = seconds * pc.second
    later = start + datetime.timedelta(seconds=seconds)
    if later.year < 2400:
        values = [read(pc, register) for register in TIME]
        assert values == [
            later.second, later.minute, later.hour, later.isoweekday() % 7 + 1, later.day, later.month, later.year % 100,
            later.year // 100,
        ]  # fmt: skip
    assert read(pc, C) & 0x20 == (0x20 if seconds >= first else 0)


def alarm_means(wanted: list[int | None], second_of_day: int) -> bool:
    parts = second_of_day % 60, second_of_day // 60 % 60, second_of_day // 3600
    return all(value is None or value == part for value, part in zip(wanted, parts, strict=True))


def test_power_on_state():
    pc = PcBoard()
    assert [read(pc, register) for register in (A, B, C, D)] == [0x26, 0x02, 0, 0x80]
    assert [read(pc, register) for register in TIME] == [0, 0, 0, 7, 1, 1, 0, 0x20]
    assert pc.inb(0x70) == 0xFF
    assert pc.board.cmos.deadline == NEVER


def test_update_in_progress_warns_of_the_update():
    """A program that sees UIP clear has at least 244 us to read the time."""
    pc = PcBoard()
    seen = []
    for period in range(HZ - 80, HZ + 3):
        pc.run_to(tick_of_clock(period, HZ, SECOND))
        seen.append((read(pc, A) >> 7, read(pc, 0)))
    assert seen == [(0, 0)] * 7 + [(1, 0)] * 73 + [(0, 1)] * 3


def test_a_divider_that_is_released_updates_half_a_second_later():
    pc = PcBoard()
    pc.milliseconds(300)
    write(pc, A, 0x76)
    pc.milliseconds(5000)
    assert read(pc, 0) == 0
    write(pc, A, 0x26)
    pc.milliseconds(499)
    assert read(pc, 0) == 0
    pc.milliseconds(1)
    assert read(pc, 0) == 1


@pytest.mark.parametrize(
    "registers, expected",
    [
        ({7: 0x31, 8: 0x02}, (2000, 3, 2)),
        ({7: 0, 8: 0}, (2000, 1, 1)),
        ({8: 0x13}, (2001, 1, 1)),
        ({4: 0x25}, (2000, 1, 2)),
        ({0: 0xFF, 2: 0xFF, 4: 0xFF, 7: 0xFF, 8: 0xFF, 9: 0xFF, 0x32: 0xFF}, None),
    ],
)
def test_fields_out_of_range_carry_over(registers, expected):
    pc = PcBoard()
    write(pc, B, 0x82)
    for register, value in registers.items():
        write(pc, register, value)
    assert all(read(pc, register) == value for register, value in registers.items())
    write(pc, B, 0x02)
    century, year, month, day = (int(f"{read(pc, register):x}") for register in (0x32, 9, 8, 7))
    if expected is not None:
        assert (century * 100 + year, month, day) == expected
    assert 1 <= month <= 12 and 1 <= day <= 31


def test_periodic_interrupts_come_at_their_rate():
    """1024 a second, each an edge once register C was read."""
    pc = PcBoard()
    write(pc, B, 0x42)
    ticks = []
    for _ in range(5):
        pc.run_to(int(pc.board.cmos.deadline))
        assert pc.line(8) == 1
        ticks.append(pc.now)
        assert pc.board.cmos.deadline == NEVER
        assert read(pc, C) == 0xC0
        assert pc.line(8) == 0
    assert ticks == [tick_of_clock(32 * n, HZ, SECOND) for n in range(1, 6)]


def test_a_flag_interrupts_once_it_is_enabled():
    pc = PcBoard()
    pc.milliseconds(1000)
    write(pc, B, 0x12)
    assert pc.line(8) == 1
    assert read(pc, C) & 0x90 == 0x90


def test_a_reset_keeps_time_and_memory():
    pc = PcBoard()
    write(pc, 0x40, 0x5A)
    write(pc, B, 0x42)
    pc.milliseconds(2100)
    assert pc.line(8) == 1
    device_restart(pc.boards, pc.now)
    assert pc.line(8) == 0
    assert (read(pc, 0x40), read(pc, B), read(pc, C), read(pc, 0)) == (0x5A, 0x02, 0, 2)


def word(pc: PcBoard, at: int) -> int:
    return read(pc, at) | read(pc, at + 1) << 8


@pytest.mark.parametrize(
    "megabytes, extended, above_16", [(1, 0, 0), (4, 3072, 0), (16, 15360, 0), (64, 64512, 768), (2048, 65535, 32512)]
)
def test_firmware_finds_the_memory(megabytes, extended, above_16):
    pc = PcBoard()
    device_firmware_settings(pc.boards, megabytes << 20, 2, 1, 0)
    assert (word(pc, 0x15), word(pc, 0x17), word(pc, 0x30), word(pc, 0x34)) == (640, extended, extended, above_16)
    assert (read(pc, 0x3D), read(pc, 0x38)) == (0x12, 0x01)
    assert (read(pc, 0x10), read(pc, 0x14), read(pc, 0x5B), read(pc, 0x5F)) == (0, 2, 0, 0)
    total = sum(read(pc, at) for at in range(0x10, 0x2E))
    assert (read(pc, 0x2E), read(pc, 0x2F)) == (total >> 8, total & 0xFF)


def test_firmware_finds_the_disks():
    pc = PcBoard()
    device_firmware_settings(pc.boards, 16 << 20, 2, 0, 0)
    device_disk_settings(pc.boards, 0, 16383, 16, 63)
    assert (read(pc, 0x12), read(pc, 0x19), read(pc, 0x39)) == (0xF0, 47, 1)
    device_disk_settings(pc.boards, 1, 20, 4, 17)
    assert (read(pc, 0x12), read(pc, 0x1A), read(pc, 0x39)) == (0xFF, 47, 1)
    assert (word(pc, 0x1B), read(pc, 0x1D), read(pc, 0x20), read(pc, 0x23)) == (16383, 16, 0xC8, 63)
    assert (word(pc, 0x24), read(pc, 0x26), read(pc, 0x29), read(pc, 0x2C)) == (20, 4, 0xC0, 17)
    total = sum(read(pc, at) for at in range(0x10, 0x2E))
    assert word(pc, 0x2E) == (total & 0xFF) << 8 | total >> 8


def test_bit_7_of_the_address_masks_nmi():
    pc = PcBoard()
    pc.outb(0x70, 0x8F)
    assert (pc.board.cmos.nmi_masked, pc.board.cmos.address) == (1, 0x0F)
    pc.outb(0x71, 0x05)
    assert np.int64(pc.board.cmos.memory[0x0F]) == 5
