"""The keyboard controller: translation by the tables of both scan code sets, commands by the manual, times of bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_board import PcBoard

from x86virt.core import board as bd
from x86virt.core.device_entries import device_key, devices_as_firmware_left_them
from x86virt.core.layout import NEVER

# Keys by name: set 1, set 2 (IBM, Personal System/2 technical reference, scan code tables of the 101-key keyboard).
KEYS = {
    "`": (0x29, 0x0E), "1": (0x02, 0x16), "2": (0x03, 0x1E), "3": (0x04, 0x26), "4": (0x05, 0x25), "5": (0x06, 0x2E),
    "6": (0x07, 0x36), "7": (0x08, 0x3D), "8": (0x09, 0x3E), "9": (0x0A, 0x46), "0": (0x0B, 0x45), "-": (0x0C, 0x4E),
    "=": (0x0D, 0x55), "backspace": (0x0E, 0x66), "tab": (0x0F, 0x0D), "q": (0x10, 0x15), "w": (0x11, 0x1D),
    "e": (0x12, 0x24), "r": (0x13, 0x2D), "t": (0x14, 0x2C), "y": (0x15, 0x35), "u": (0x16, 0x3C), "i": (0x17, 0x43),
    "o": (0x18, 0x44), "p": (0x19, 0x4D), "[": (0x1A, 0x54), "]": (0x1B, 0x5B), "enter": (0x1C, 0x5A),
    "control": (0x1D, 0x14), "a": (0x1E, 0x1C), "s": (0x1F, 0x1B), "d": (0x20, 0x23), "f": (0x21, 0x2B), "g": (0x22, 0x34),
    "h": (0x23, 0x33), "j": (0x24, 0x3B), "k": (0x25, 0x42), "l": (0x26, 0x4B), ";": (0x27, 0x4C), "'": (0x28, 0x52),
    "shift": (0x2A, 0x12), "\\": (0x2B, 0x5D), "z": (0x2C, 0x1A), "x": (0x2D, 0x22), "c": (0x2E, 0x21), "v": (0x2F, 0x2A),
    "b": (0x30, 0x32), "n": (0x31, 0x31), "m": (0x32, 0x3A), ",": (0x33, 0x41), ".": (0x34, 0x49), "/": (0x35, 0x4A),
    "right shift": (0x36, 0x59), "keypad *": (0x37, 0x7C), "alt": (0x38, 0x11), "space": (0x39, 0x29),
    "caps lock": (0x3A, 0x58), "F1": (0x3B, 0x05), "F2": (0x3C, 0x06), "F3": (0x3D, 0x04), "F4": (0x3E, 0x0C),
    "F5": (0x3F, 0x03), "F6": (0x40, 0x0B), "F7": (0x41, 0x83), "F8": (0x42, 0x0A), "F9": (0x43, 0x01), "F10": (0x44, 0x09),
    "num lock": (0x45, 0x77), "scroll lock": (0x46, 0x7E), "keypad 7": (0x47, 0x6C), "keypad 8": (0x48, 0x75),
    "keypad 9": (0x49, 0x7D), "keypad -": (0x4A, 0x7B), "keypad 4": (0x4B, 0x6B), "keypad 5": (0x4C, 0x73),
    "keypad 6": (0x4D, 0x74), "keypad +": (0x4E, 0x79), "keypad 1": (0x4F, 0x69), "keypad 2": (0x50, 0x72),
    "keypad 3": (0x51, 0x7A), "keypad 0": (0x52, 0x70), "keypad .": (0x53, 0x71), "system request": (0x54, 0x84),
    "extra": (0x56, 0x61), "F11": (0x57, 0x78), "F12": (0x58, 0x07), "escape": (0x01, 0x76),
}  # fmt: skip
EXTENDED = {"up": (0x48, 0x75), "delete": (0x53, 0x71), "right control": (0x1D, 0x14), "keypad enter": (0x1C, 0x5A)}


def ready(clock: bool = True) -> PcBoard:
    """A board whose controller is as firmware leaves it."""
    pc = PcBoard()
    if clock:
        devices_as_firmware_left_them(pc.boards)
    return pc


def press(pc: PcBoard, *codes: int) -> int:
    return int(device_key(pc.boards, pc.now, np.array(codes, np.uint8)))


def arriving(pc: PcBoard) -> list[int]:
    """What arrives by itself, each byte read when its interrupt comes."""
    octets = []
    while pc.board.keyboard.deadline != NEVER:
        pc.run_to(int(pc.board.keyboard.deadline))
        if pc.inb(0x64) & 1:
            assert pc.line(1) == pc.board.keyboard.memory[0] & 1
            octets.append(pc.inb(0x60))
            assert pc.line(1) == 0 and not pc.inb(0x64) & 1
    return octets


def command(pc: PcBoard, number: int, *parameters: int) -> None:
    pc.outb(0x64, number)
    for parameter in parameters:
        pc.outb(0x60, parameter)


def answer(pc: PcBoard) -> int | None:
    """What the controller has answered."""
    return pc.inb(0x60) if pc.inb(0x64) & 1 else None


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_translated_to_set_1(key):
    set_1, set_2 = KEYS[key]
    pc = ready()
    assert press(pc, set_2, 0xF0, set_2) == 3
    assert arriving(pc) == [set_1, set_1 | 0x80]


@pytest.mark.parametrize("key", EXTENDED)
def test_extended_keys_keep_their_prefix(key):
    set_1, set_2 = EXTENDED[key]
    pc = ready()
    press(pc, 0xE0, set_2, 0xE0, 0xF0, set_2)
    assert arriving(pc) == [0xE0, set_1, 0xE0, set_1 | 0x80]


@pytest.mark.parametrize("key", ["a", "F7", "enter"])
@pytest.mark.parametrize("code_set", [1, 2])
def test_the_keyboard_sends_the_chosen_set(key, code_set):
    pc = ready()
    command(pc, 0x60, 0x05)
    for octet in (0xF0, code_set):
        pc.outb(0x60, octet)
        assert arriving(pc) == [0xFA]
    pc.outb(0x60, 0xF0)
    assert arriving(pc) == [0xFA]
    pc.outb(0x60, 0)
    assert arriving(pc) == [0xFA, code_set]
    set_1, set_2 = KEYS[key]
    press(pc, set_2, 0xF0, set_2)
    assert arriving(pc) == ([set_1, set_1 | 0x80] if code_set == 1 else [set_2, 0xF0, set_2])


def test_a_byte_takes_a_millisecond_and_waits_for_the_one_before():
    pc = ready()
    press(pc, 0x1C, 0x1B)
    pc.milliseconds(0.99)
    assert pc.inb(0x64) & 1 == 0 and pc.line(1) == 0
    pc.milliseconds(0.01)
    assert pc.inb(0x64) & 1 == 1 and pc.line(1) == 1
    pc.milliseconds(50)
    assert pc.inb(0x60) == 0x1E and pc.line(1) == 0
    assert pc.inb(0x60) == 0x1E, "the buffer keeps what was read"
    pc.milliseconds(0.99)
    assert pc.inb(0x64) & 1 == 0
    pc.milliseconds(0.01)
    assert pc.inb(0x60) == 0x1F


def test_sixteen_bytes_are_kept():
    pc = ready()
    assert press(pc, *range(1, 21)) == 16
    assert press(pc, 0x1C) == 0
    pc.milliseconds(1)
    assert press(pc, 0x1C) == 1
    pc.inb(0x60)
    assert len(arriving(pc)) == 16


def test_a_held_clock_keeps_scan_codes_back():
    pc = ready()
    command(pc, 0xAD)
    press(pc, 0x1C)
    pc.milliseconds(20)
    assert pc.inb(0x64) & 1 == 0 and pc.board.keyboard.deadline == NEVER
    command(pc, 0xAE)
    assert arriving(pc) == [0x1E]


def test_without_its_enable_the_interrupt_stays_low():
    pc = ready()
    command(pc, 0x60, 0x44)
    press(pc, 0x1C)
    pc.milliseconds(2)
    assert pc.inb(0x64) & 1 == 1 and pc.line(1) == 0
    command(pc, 0x60, 0x45)
    assert pc.line(1) == 1


@pytest.mark.parametrize(
    "number, expected", [(0xAA, 0x55), (0xAB, 0x00), (0xA9, 0x02), (0xA4, 0xF1), (0xC0, 0x80), (0xE0, 0x00), (0xD0, 0xCF)]
)
def test_controller_commands_answer_at_once(number, expected):
    pc = ready()
    command(pc, number)
    assert answer(pc) == expected
    assert answer(pc) is None


def test_the_command_byte_and_memory():
    pc = ready()
    command(pc, 0x20)
    assert answer(pc) == 0x65
    command(pc, 0x60, 0x47)
    command(pc, 0x20)
    assert answer(pc) == 0x67, "the second port cannot be enabled"
    command(pc, 0xA8)
    command(pc, 0x20)
    assert answer(pc) == 0x67
    command(pc, 0x65, 0x5A)
    command(pc, 0x25)
    assert answer(pc) == 0x5A


def test_the_status_tells_of_commands_and_of_the_self_test():
    pc = ready(clock=False)
    assert pc.inb(0x64) == 0x10
    command(pc, 0xAA)
    assert pc.inb(0x64) == 0x10 | 0x08 | 0x04 | 0x01
    pc.inb(0x60)
    pc.outb(0x60, 0xEE)
    assert pc.inb(0x64) == 0x10 | 0x04


def test_loops_of_both_ports():
    """D2 answers as the keyboard; D3 too, since there is no second port; D4 times out, and says whose fault it is."""
    pc = ready()
    command(pc, 0xD2, 0x77)
    assert pc.inb(0x64) & 0x21 == 0x01 and pc.line(1) == 1
    assert answer(pc) == 0x77
    command(pc, 0xD3, 0x5A)
    assert pc.inb(0x64) & 0x21 == 0x01
    assert answer(pc) == 0x5A
    command(pc, 0x60, 0x47)
    command(pc, 0xD4, 0xF2)
    assert pc.inb(0x64) & 0x61 == 0x61
    assert (pc.line(1), pc.line(12)) == (0, 1)
    assert answer(pc) == 0xFE
    assert (pc.line(1), pc.line(12)) == (0, 0)


@pytest.mark.parametrize("way", ["output port", "command", "port 92"])
def test_the_a20_gate_is_one(way):
    pc = ready()
    close, reopen = {
        "output port": (lambda: command(pc, 0xD1, 0xDD), lambda: command(pc, 0xD1, 0xDF)),
        "command": (lambda: command(pc, 0xDD), lambda: command(pc, 0xDF)),
        "port 92": (lambda: pc.outb(0x92, 0), lambda: pc.outb(0x92, 2)),
    }[way]
    close()
    assert pc.board.a20_closed == 1 and pc.inb(0x92) & 2 == 0
    command(pc, 0xD0)
    assert answer(pc) == 0xCD
    reopen()
    assert pc.board.a20_closed == 0 and pc.inb(0x92) & 2 == 2


@pytest.mark.parametrize("octets, resets", [((0xFE,), 1), ((0xF0,), 1), ((0xFF,), 0), ((0xD1, 0xDE), 1), ((0xD1, 0xDF), 0)])
def test_the_reset_line(octets, resets):
    pc = ready()
    outcomes = [pc.outb(0x64, octets[0]), *(pc.outb(0x60, octet) for octet in octets[1:])]
    assert outcomes[-1] == (bd.BOARD_RESET if resets else bd.BOARD_OK)
    assert pc.board.reset_requested == resets


@pytest.mark.parametrize(
    "sent, answers",
    [
        ((0xEE,), [0xEE]),
        ((0xF2,), [0xFA, 0xAB, 0x41]),
        ((0xFF,), [0xFA, 0xAA]),
        ((0xED, 0x07), [0xFA, 0xFA]),
        ((0xF3, 0x20), [0xFA, 0xFA]),
        ((0xF0, 0x00), [0xFA, 0xFA, 0x41]),
        ((0xF0, 0x03), [0xFA, 0xFE]),
        ((0xED, 0xEE), [0xFA, 0xEE]),
        ((0xF8,), [0xFA]),
        ((0xFB, 0x1C), [0xFA, 0xFA]),
        ((0x12,), [0xFE]),
        ((0xEF,), [0xFE]),
        ((0xEE, 0xFE), [0xEE, 0xEE]),
    ],
)
def test_keyboard_commands(sent, answers):
    """Answers as they arrive translated (83h becomes 41h, and set 2 is shown as 41h: the known quirk of translation)."""
    pc = ready()
    seen = []
    for octet in sent:
        pc.outb(0x60, octet)
        seen += arriving(pc)
    assert seen == answers


def test_indicators_rate_and_defaults():
    pc = ready()
    for octet in (0xED, 0x05, 0xF3, 0x7F):
        pc.outb(0x60, octet)
        arriving(pc)
    keyboard = pc.board.keyboard
    assert (keyboard.indicators, keyboard.rate) == (5, 0x7F)
    pc.outb(0x60, 0xF6)
    assert (keyboard.indicators, keyboard.rate, keyboard.scanning) == (5, 0x2B, 1)


def test_a_disabled_keyboard_takes_no_keys():
    pc = ready()
    press(pc, 0x1C)
    pc.outb(0x60, 0xF5)
    assert arriving(pc) == [0xFA], "and forgets those that it had"
    assert press(pc, 0x1C) == 0
    pc.outb(0x60, 0xF4)
    assert arriving(pc) == [0xFA]
    assert press(pc, 0x1C) == 1
    assert arriving(pc) == [0x1E]


def test_a_command_opens_the_clock_again():
    """A byte to the keyboard releases its clock, as on the controller of the PC."""
    pc = ready()
    command(pc, 0xAD)
    pc.outb(0x60, 0xEE)
    assert arriving(pc) == [0xEE]


def test_a_linux_driver_finds_no_second_port():
    """The probe of i8042: the loop of the second port must not answer as that port, its test must fail."""
    pc = ready()
    command(pc, 0xD3, 0x5A)
    assert not pc.inb(0x64) & 0x20
    answer(pc)
    command(pc, 0xA9)
    assert answer(pc) not in (None, 0x00, 0xFA, 0xFF)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("out"), st.sampled_from([0x60, 0x64]), st.integers(0, 255)),
            st.tuples(st.just("out"), st.just(0x64), st.sampled_from([0x60, 0xD1, 0xD2, 0xD3, 0xD4, 0xAD, 0xAE, 0x20])),
            st.tuples(st.just("in"), st.sampled_from([0x60, 0x64])),
            st.tuples(st.just("key"), st.binary(max_size=20)),
            st.tuples(st.just("run"), st.integers(0, 3000)),
        ),
        max_size=40,
    )
)
def test_any_sequence_is_harmless(actions):
    pc = ready()
    for name, *arguments in actions:
        if name == "out":
            pc.outb(*arguments)
        elif name == "in":
            assert 0 <= pc.inb(*arguments) <= 0xFF
        elif name == "key":
            assert 0 <= press(pc, *arguments[0]) <= 16
        else:
            pc.milliseconds(arguments[0] / 1000)
        assert pc.board.keyboard.deadline > pc.now
        expected = pc.board.keyboard.output_full and pc.board.keyboard.memory[0] & 1 and not pc.inb(0x64) & 0x20
        assert pc.line(1) == bool(expected)
