"""The PC's devices as a guest meets them: on the bare machine and under a VMM, by port and by interrupt."""

from __future__ import annotations

import pytest
from small_kernel import DATA, EAX, ECX, EDX, Kernel, Step, assert_equal, log, mov, run, save

from x86virt import Machine

HLT_WITH_INTERRUPTS = b"\xfb\xf4"  # STI; HLT
STRATEGIES = ("native", "trap-and-emulate")


def out(port: int, *values: int) -> bytes:
    """MOV EDX, port, then MOV AL, value; OUT DX, AL for each."""
    return mov(EDX, port) + b"".join(b"\xb0" + bytes([value]) + b"\xee" for value in values)


def out_32(port: int, value: int) -> bytes:
    return mov(EDX, port) + mov(EAX, value) + b"\xef"


def keep_in(port: int, place: int, width: int = 1) -> bytes:
    """IN AL or EAX, DX of a port, into a word of the data."""
    return mov(EDX, port) + mov(EAX, 0) + (b"\xec" if width == 1 else b"\xed") + save(DATA + 4 * place, EAX)


def kept(machine: Machine, count: int) -> list[int]:
    memory = machine.strategy.virtual_state(machine).memory[DATA:]
    return [int.from_bytes(memory[4 * n : 4 * n + 4].tobytes(), "little") for n in range(count)]


def configuration(device: int, function: int, offset: int) -> bytes:
    return out_32(0xCF8, 1 << 31 | device << 11 | function << 8 | offset)


PLACE_POWER = configuration(1, 3, 0x40) + out_32(0xCFC, 0xB001) + configuration(1, 3, 0x80) + out(0xCFC, 1)


def test_registers_are_the_same_under_a_vmm():
    """Configuration space in doublewords, CMOS memory, scratch register, self-test, ports of one byte in both encodings."""
    kernel = Kernel(
        [
            Step(configuration(0, 0, 0) + keep_in(0xCFC, 0, 4)),
            Step(configuration(1, 3, 0x40) + out_32(0xCFC, 0xB001) + keep_in(0xCFC, 1, 4)),
            Step(configuration(1, 3, 0x80) + out(0xCFC, 1) + keep_in(0xB004, 2)),
            Step(out(0x70, 0x0F) + out(0x71, 0x5A) + keep_in(0x71, 3)),
            Step(out(0x3FF, 0xA5) + keep_in(0x3FF, 4)),
            Step(b"\xb0\xaa\xe6\x64" + b"\xe4\x60" + save(DATA + 20, EAX)),  # OUT 0x64, AL; IN AL, 0x60
            Step(out(0x3D4, 0x0E, 0x0F) + out(0x3D5, 0x12) + keep_in(0x3D5, 6)),
            Step(out(0x402, *b"text") + keep_in(0x402, 7)),
            Step(out(0x3F8, *b"line")),
        ]
    )
    assert assert_equal(kernel).other.outcome == "exited 1"
    for name in STRATEGIES:
        machine, result = run(kernel, name)
        words = kept(machine, 8)
        assert words[:5] == [0x12378086, 0xB001, 0, 0x5A, 0xA5]
        assert words[5] & 0xFF == 0x55
        assert words[6:8] == [0x12, 0xE9]
        assert (result.console, result.serial) == (b"text", b"line")


def test_what_devices_tell_of_time_is_recorded():
    """The present second, the timer of power management, retrace, an emptying transmitter, a key byte: the log has them.

    What these devices do to masked interrupts by themselves is not compared.
    """
    clock = out(0x70, 0) + keep_in(0x71, 0) + out(0x70, 0x0A) + keep_in(0x71, 1)
    kernel = Kernel(
        [
            Step(clock + PLACE_POWER + keep_in(0xB008, 2, 4) + keep_in(0x3DA, 3)),
            Step(out(0x3F8, 65) + keep_in(0x3FD, 4) + keep_in(0x3FD, 5)),
            Step(out(0x60, 0xEE) + mov(ECX, 3000) + b"\xe2\xfe" + keep_in(0x64, 6) + keep_in(0x60, 7)),
        ]
    )
    comparison = assert_equal(kernel)
    assert comparison.other.outcome == "exited 1"
    machine, _ = run(kernel, "trap-and-emulate")
    words = kept(machine, 8)
    assert words[2] > 0 and words[6] & 0xFE == 0x14 and words[7] in (0, 0xEE)
    assert {words[4], words[5]} <= {0x00, 0x60}


def test_a_device_that_differs_is_seen():
    """Equivalence compares the devices' registers: one that a planted error changes is reported."""
    from x86virt.vmm.state import devices_of

    machine, _ = run(Kernel([Step(out(0x3FF, 1))]))
    before = devices_of(machine.board)
    for device, field, number in (("uart", "scratch", 0), ("cmos", "memory", 0x40), ("vga", "crtc", 3), ("pci", "space", 2)):
        record = machine.board[device]
        part = record[0] if device == "uart" else record
        if part[field].ndim:
            part[field].reshape(-1)[number] ^= 1
        else:
            part[field] ^= 1
        assert devices_of(machine.board) != before, device
        before = devices_of(machine.board)


PICS = (
    out(0x20, 0x11) + out(0x21, 0x20, 4, 1, 0xE9) + out(0xA0, 0x11) + out(0xA1, 0x28, 2, 1, 0xFE)
)  # IRQ 1, 2, 4 and 8 are let through
ENDS = out(0xA0, 0x20) + out(0x20, 0x20)
CLOCK = out(0x70, 0x0A) + out(0x71, 0x23) + out(0x70, 0x0B) + out(0x71, 0x42)
SERIAL = out(0x3FC, 0x08) + out(0x3F9, 0x02)
KEYBOARD = out(0x64, 0x60) + out(0x60, 0x01) + out(0x60, 0xEE)


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize(
    "setting, vector, behind",
    [
        (CLOCK, 0x28, out(0x70, 0x0C) + keep_in(0x71, 0)),
        (SERIAL + out(0x3F8, 65), 0x24, keep_in(0x3FA, 0)),
        (KEYBOARD, 0x21, keep_in(0x60, 0)),
    ],
    ids=["clock", "serial", "keyboard"],
)
def test_a_halted_processor_is_woken(name, setting, vector, behind):
    """By the clock, by a serial port whose transmitter is empty, by the keyboard: each by its deadline, at its vector."""
    machine, result = run(Kernel([Step(PICS + setting + HLT_WITH_INTERRUPTS), Step(behind + ENDS)]), name)
    assert result.outcome == "exited 1"
    assert [row[0] for row in log(machine)] == [vector]
    assert kept(machine, 1) == [{0x28: 0xC0, 0x24: 0x02, 0x21: 0xEE}[vector]]


@pytest.mark.parametrize(
    "code, outcome",
    [
        (PLACE_POWER + out(0xB005, 0x20), "halted"),
        (out(0xCF9, 2, 6), "reset"),
        (out(0x92, 3), "reset"),
        (out(0x64, 0xFE), "reset"),
    ],
    ids=["power management", "reset control", "port 92", "keyboard controller"],
)
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_guest_switches_off_or_resets(name, code, outcome):
    """A guest without firmware has nothing to come back to after a reset: its run ends."""
    assert run(Kernel([Step(code + b"\xeb\xfe")]), name)[1].outcome == outcome
