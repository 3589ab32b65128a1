"""Power management, resets, level-triggered interrupts, the decode table, the registers of the VGA."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_board import SECOND, PcBoard

from x86virt.core import board as bd
from x86virt.core.device_entries import device_poll, device_restart
from x86virt.core.layout import NEVER
from x86virt.core.port_decode import depends_on_time
from x86virt.core.port_map import DEVICE_NONE, DEVICE_POST, is_plain_port

PM = 0xB000


def with_power() -> PcBoard:
    """A board whose firmware has placed power management."""
    pc = PcBoard()
    pc.configure(1, 3, 0x40, 4, PM)
    pc.configure(1, 3, 0x80, 1, 1)
    return pc


# -- power management -----------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1 << 58))
def test_the_timer_counts_at_its_frequency(now):
    pc = with_power()
    pc.now = now
    assert pc.in_(PM + 8, 4) == now * 3_579_545 // SECOND % (1 << 24)


def test_the_timer_reports_each_change_of_its_highest_bit():
    pc = with_power()
    half = -(-(1 << 23) * SECOND // 3_579_545)
    pc.run(half - 1)
    assert pc.in_(PM, 2) == 0
    pc.run(1)
    assert pc.in_(PM, 2) == 1
    pc.out(PM, 2, 0)
    assert pc.in_(PM, 2) == 1, "only a 1 clears it"
    pc.out(PM, 2, 1)
    assert pc.in_(PM, 2) == 0
    pc.run(half)
    assert pc.in_(PM, 2) == 1


def test_the_timer_interrupts_once_the_system_listens():
    pc = with_power()
    pc.out(PM + 2, 2, 1)
    assert pc.board.power.deadline == NEVER
    pc.outb(0xB2, 0xF1)
    assert pc.in_(PM + 4, 2) == 1, "the command of ACPI hands the interrupt over"
    rise = -(-(1 << 23) * SECOND // 3_579_545)
    assert pc.board.device_deadline == rise
    pc.run_to(rise - 1)
    assert pc.line(9) == 0
    pc.run_to(rise)
    assert pc.line(9) == 1
    pc.out(PM, 2, 1)
    assert pc.line(9) == 0
    pc.outb(0xB2, 0xF0)
    assert pc.in_(PM + 4, 2) == 0


@pytest.mark.parametrize("sleep_type, off", [(0, 1), (1, 0), (2, 0), (5, 0)])
@pytest.mark.parametrize("width", [1, 2])
def test_sleep_type_0_switches_off(sleep_type, off, width):
    pc = with_power()
    value = sleep_type << 10 | 1 << 13 | 1
    outcome = pc.out(PM + 4, 2, value) if width == 2 else pc.outb(PM + 5, value >> 8)
    assert outcome == (bd.BOARD_POWER_OFF if off else bd.BOARD_OK)
    assert pc.board.power_off_requested == off
    assert pc.in_(PM + 4, 2) & 1 << 13 == 0


def test_without_the_enable_nothing_is_switched_off():
    pc = with_power()
    assert pc.out(PM + 4, 2, 0) == bd.BOARD_OK
    assert PcBoard().out(PM + 4, 2, 1 << 13) == bd.BOARD_OK


def test_apm_and_event_registers_store():
    pc = PcBoard()
    pc.outb(0xB2, 0x12)
    pc.outb(0xB3, 0x34)
    assert (pc.inb(0xB2), pc.inb(0xB3)) == (0x12, 0x34)
    pc.out(0xAFE0, 4, 0xFFFFFFFF)
    assert pc.in_(0xAFE0, 4) == 0xFFFF0000


# -- resets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("port, before, value", [(0xCF9, 0x02, 0x06), (0xCF9, 0x00, 0x04), (0x92, 0x02, 0x03)])
def test_resets_are_rises(port, before, value):
    pc = PcBoard()
    assert pc.outb(port, before) == bd.BOARD_OK
    assert pc.outb(port, value) == bd.BOARD_RESET
    assert pc.board.reset_requested == 1
    assert pc.inb(port) == value
    assert pc.outb(port, value) == bd.BOARD_OK


def test_a_restart_puts_devices_back_and_lets_time_go_on():
    pc = with_power()
    pc.run(SECOND)
    for port, value in ((0x3F8, 65), (0x64, 0xAD), (0x4D1, 0x0C), (0x92, 0), (0xCF9, 6), (0xE9, 66)):
        pc.outb(port, value)
    clock = pc.in_(PM + 8, 4)
    device_restart(pc.boards, pc.now)
    board = pc.board
    assert (board.reset_requested, board.a20_closed, board.pic[1].elcr, board.power_ports) == (0, 0, 0, 0)
    assert board.decode[PM] == DEVICE_NONE and board.tick == pc.now
    assert bytes(board.uart[0].sent[: board.uart[0].sent_length]) == b"A"
    assert bytes(board.console[: board.console_length]) == b"B"
    pc.configure(1, 3, 0x40, 4, PM)
    pc.configure(1, 3, 0x80, 1, 1)
    assert pc.in_(PM + 8, 4) == clock


# -- interrupt lines ------------------------------------------------------------------------------------------------


def test_level_triggered_inputs_follow_their_line():
    pc = PcBoard()
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1)):
        pc.outb(port, value)
    pc.out(0x4D0, 2, 0xFFFF)
    assert pc.in_(0x4D0, 2) == 0xDEF8, "inputs 0 to 2, 8 and 13 are always by edge"
    bd.set_irq_line(pc.board, 10, 1)
    for served in (0, 1):
        assert bd.interrupt_pending(pc.board) == 1
        assert bd.interrupt_acknowledge(pc.board) == 0x2A
        bd.set_irq_line(pc.board, 10, 1 - served)
        pc.outb(0xA0, 0x20)
        pc.outb(0x20, 0x20)
    assert bd.interrupt_pending(pc.board) == 0
    pc.out(0x4D0, 2, 0)
    bd.set_irq_line(pc.board, 10, 1)
    bd.set_irq_line(pc.board, 10, 0)
    assert bd.interrupt_acknowledge(pc.board) == 0x2A, "an edge is kept"


def test_lines_and_rises_are_kept_for_another_controller():
    pc = PcBoard()
    board = pc.board
    assert (board.irq_levels, board.irq_rises) == (1, 0)
    bd.set_irq_line(board, 14, 1)
    bd.set_irq_line(board, 14, 1)
    assert (board.irq_levels, board.irq_rises) == (0x4001, 0x4000)
    board.irq_rises = 0
    bd.set_irq_line(board, 14, 1)
    bd.set_irq_line(board, 14, 0)
    assert (board.irq_levels, board.irq_rises) == (1, 0)
    for port, value in ((0x43, 0x34), (0x40, 0xFF), (0x40, 0)):
        pc.outb(port, value)
    assert bd.board_deadline(board) == NEVER
    board.timer_watched = 1
    assert bd.board_deadline(board) < NEVER
    pc.run_to(int(bd.board_deadline(board)))
    assert board.irq_rises == 1


# -- the owner's look -----------------------------------------------------------------------------------------------


def test_polls_come_at_fixed_times():
    pc = PcBoard()
    pc.run(1000)
    device_poll(pc.boards, pc.now, 500)
    seen = []
    for _ in range(3):
        pc.run_to(int(bd.board_deadline(pc.board)))
        assert pc.board.attention == bd.BOARD_POLL
        pc.board.attention = 0
        seen.append(pc.now)
    pc.now = 4200
    bd.board_advance(pc.board, pc.now)
    assert pc.board.attention == bd.BOARD_POLL
    assert seen == [1500, 2000, 2500] and pc.board.poll_deadline == 4500
    device_poll(pc.boards, pc.now, 0)
    assert bd.board_deadline(pc.board) == NEVER


def test_a_frozen_board_stands_still():
    pc = with_power()
    pc.board.frozen = 1
    pc.outb(0x70, 0x0B)
    pc.outb(0x71, 0x42)
    before = pc.in_(PM + 8, 4)
    pc.now = 5 * SECOND
    assert pc.in_(PM + 8, 4) == before and bd.board_deadline(pc.board) == NEVER
    pc.outb(0x70, 0)
    assert pc.inb(0x71) == 0


# -- the decode table -----------------------------------------------------------------------------------------------


def test_plain_ports_are_those_without_a_device_and_the_post_port():
    board = PcBoard().board
    for port in range(0x100):
        assert is_plain_port(port) == (board.decode[port] in (DEVICE_NONE, DEVICE_POST)), hex(port)


def test_the_debug_port_is_a_console():
    pc = PcBoard()
    for octet in b"hi":
        pc.outb(0x402, octet)
    assert bytes(pc.board.console[:2]) == b"hi" and pc.inb(0x402) == 0xE9


@pytest.mark.parametrize("port", [0x00, 0x87, 0xC0, 0x3F2, 0x3F4, 0x3F7, 0x378, 0x278, 0x3E8, 0x2E8, 0x1CE, 0x1CF, 0x510])
def test_absent_devices_read_as_ones(port):
    pc = PcBoard()
    assert pc.inb(port) == 0xFF
    pc.outb(port, 0)
    assert pc.inb(port) == 0xFF


@pytest.mark.parametrize(
    "port, width, tells", [(0x40, 1, 1), (0x43, 1, 0), (0x61, 1, 1), (0x71, 1, 1), (0x3DA, 1, 1), (0x3D4, 1, 0), (0x60, 1, 1),
                           (0x3FD, 1, 1), (0x20, 1, 0), (0x3F, 2, 1), (0xCFC, 4, 0), (PM + 8, 4, 1), (0x80, 1, 0)]
)  # fmt: skip
def test_which_ports_tell_the_time(port, width, tells):
    assert depends_on_time(with_power().board, port, width, 0) == tells


# -- VGA ------------------------------------------------------------------------------------------------------------


def indexed(pc: PcBoard, port: int, number: int, value: int | None = None) -> int:
    pc.outb(port, number)
    if value is not None:
        pc.outb(port + 1, value)
    return pc.inb(port + 1)


@pytest.mark.parametrize("port, count", [(0x3C4, 5), (0x3CE, 9), (0x3D4, 25)])
def test_indexed_registers_store(port, count):
    pc = PcBoard()
    for number in range(count):
        assert indexed(pc, port, number, 0x41 + number) == 0x41 + number
        assert pc.inb(port) == number
    for number in range(count):
        assert indexed(pc, port, number) == 0x41 + number
    assert indexed(pc, port, count, 0xFF) == 0, "beyond the last there is none"


def test_cursor_and_start_address_are_readable():
    pc = PcBoard()
    for number, value in ((0x0C, 0x12), (0x0D, 0x34), (0x0E, 0x07), (0x0F, 0xCF)):
        indexed(pc, 0x3D4, number, value)
    assert bytes(pc.board.vga.crtc[0x0C:0x10]).hex() == "123407cf"


def test_protected_crtc_registers():
    pc = PcBoard()
    indexed(pc, 0x3D4, 0x11, 0x80)
    assert indexed(pc, 0x3D4, 0, 0xFF) == 0
    assert indexed(pc, 0x3D4, 7, 0xFF) == 0x10
    assert indexed(pc, 0x3D4, 8, 0xFF) == 0xFF
    indexed(pc, 0x3D4, 0x11, 0x00)
    assert indexed(pc, 0x3D4, 0, 0x5F) == 0x5F


def test_the_crtc_is_where_the_miscellaneous_register_says():
    pc = PcBoard()
    assert pc.inb(0x3CC) & 1 == 1
    pc.outb(0x3B4, 0x0E)
    assert pc.inb(0x3B4) == 0xFF and pc.inb(0x3D4) == 0
    pc.outb(0x3C2, 0x66)
    assert pc.inb(0x3CC) == 0x66 and pc.inb(0x3D4) == 0xFF
    assert indexed(pc, 0x3B4, 0x0E, 7) == 7


def test_the_attribute_flip_flop():
    pc = PcBoard()
    pc.inb(0x3DA)
    for octet in (0x03, 0x2A, 0x10, 0x0C):
        pc.outb(0x3C0, octet)
    pc.outb(0x3C0, 0x23)
    assert pc.inb(0x3C1) == 0x2A
    pc.outb(0x3C0, 0x3F)
    assert pc.inb(0x3C1) == 0x2A, "the palette is the screen's"
    pc.outb(0x3C0, 0x30)
    pc.inb(0x3DA)
    pc.outb(0x3C0, 0x10)
    assert pc.inb(0x3C1) == 0x0C


def test_the_dac_goes_through_its_colours():
    pc = PcBoard()
    pc.outb(0x3C8, 255)
    for octet in (1, 2, 0xFF, 4, 5, 6):
        pc.outb(0x3C9, octet)
    assert pc.inb(0x3C7) == 0
    pc.outb(0x3C7, 255)
    assert pc.inb(0x3C7) == 3
    assert [pc.inb(0x3C9) for _ in range(6)] == [1, 2, 0x3F, 4, 5, 6]
    pc.outb(0x3C6, 0x0F)
    assert pc.inb(0x3C6) == 0x0F


def test_the_retrace_comes_seventy_times_a_second():
    """Over a tenth of a second in steps of 20 us: 7 vertical retraces, of two lines of 31.8 us each; no picture in them."""
    pc = PcBoard()
    rises, length, last = 0, 0, 0
    for step in range(5_000):
        pc.now = step * SECOND // 50_000
        status = pc.inb(0x3DA)
        retrace = status >> 3 & 1
        assert not retrace or status & 1
        rises += retrace > last
        length += retrace
        last = retrace
    assert rises == 7
    assert 18 <= length <= 28


def test_horizontal_blanking_shows_within_a_line():
    pc = PcBoard()
    line = SECOND * 100 // 3_146_889
    seen = []
    for part in range(100):
        pc.now = 50 * line + line * part // 100
        seen.append(pc.inb(0x3DA) & 1)
    assert 15 <= sum(seen) <= 25


def test_records_have_no_field_that_hides_a_numpy_attribute():
    attributes = set(dir(np.recarray)) | set(dir(np.record))
    board = bd.BOARD
    for name in ("pci", "cmos", "keyboard", "uart", "vga", "power"):
        dtype = board[name].base
        assert not attributes & set(dtype.names)
