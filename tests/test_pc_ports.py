"""Whatever software does at the ports of a PC, no index leaves its array, and a board that says otherwise is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_board import SECOND, PcBoard

from x86virt.core import board as bd
from x86virt.core.device_entries import device_key, device_restart, device_serial_input, devices_as_firmware_left_them
from x86virt.core.port_map import DEVICE_NONE
from x86virt.saved import BOARD_BOUNDS, DEVICE_BOUNDS, check_board

PORTS = [port for port in np.nonzero(PcBoard().board.decode)[0].tolist() if port != 0x8900]
CONFIGURATION = [1 << 31 | place << 8 | offset for place in (0, 8, 9, 11, 16) for offset in (4, 0x20, 0x30, 0x40, 0x58, 0x80)]
OCTETS = st.binary(max_size=20)
ACTIONS = st.one_of(
    st.tuples(st.just("in_"), st.sampled_from(PORTS), st.sampled_from([1, 1, 2, 4])),
    st.tuples(st.just("out"), st.sampled_from(PORTS), st.sampled_from([1, 1, 2, 4]), st.integers(0, 2**32 - 1)),
    st.tuples(st.just("out"), st.just(0xCF8), st.just(4), st.sampled_from(CONFIGURATION)),
    st.tuples(st.just("out"), st.just(0xCFC), st.sampled_from([1, 4]), st.sampled_from([0, 1, 5, 0xB001, 0x3F0, 0xFFFFFFFF])),
    st.tuples(st.just("pass_time"), st.integers(0, SECOND)),
    st.tuples(st.just("press"), OCTETS),
    st.tuples(st.just("give"), st.integers(0, 1), OCTETS),
    st.just(("restart",)),
)


class BusyBoard(PcBoard):
    """A board with a person and two serial lines at it."""

    def pass_time(self, ticks: int) -> None:
        self.now += ticks
        bd.board_advance(self.board, self.now)

    def press(self, octets: bytes) -> None:
        device_key(self.boards, self.now, np.frombuffer(octets, np.uint8))

    def give(self, number: int, octets: bytes) -> None:
        device_serial_input(self.boards, self.now, number, np.frombuffer(octets, np.uint8))

    def restart(self) -> None:
        device_restart(self.boards, self.now)


@settings(max_examples=40, deadline=None)
@given(st.lists(ACTIONS, max_size=60))
def test_any_sequence_leaves_a_sound_board(actions):
    pc = BusyBoard()
    devices_as_firmware_left_them(pc.boards)
    for name, *arguments in actions:
        result = getattr(pc, name)(*arguments)
        if name == "in_":
            assert 0 <= result < 1 << 8 * arguments[1]
        assert bd.board_deadline(pc.board) > pc.board.tick
        pc.board.console_length = 0
    check_board(np.asarray(pc.boards))
    fresh = PcBoard().board
    device_restart(pc.boards, pc.now)
    assert (pc.board.decode == fresh.decode).all(), "a reset takes every window back"
    assert pc.board.irq_levels == 1


FIELDS = [(device, field) for device, bounds in DEVICE_BOUNDS.items() for field in bounds]


@pytest.mark.parametrize("device, field", FIELDS)
@pytest.mark.parametrize("by", [1, -1])
def test_a_saved_board_out_of_bounds_is_refused(device, field, by):
    pc = PcBoard()
    record = pc.board[device]
    if device == "uart":
        record = record[1]
    record[field] = DEVICE_BOUNDS[device][field] + 1 if by > 0 else -1
    with pytest.raises(ValueError, match="devices"):
        check_board(np.asarray(pc.boards))


@pytest.mark.parametrize("field", BOARD_BOUNDS)
def test_a_saved_boards_own_fields_are_bounded(field):
    for value in (BOARD_BOUNDS[field] + 1, -1):
        pc = PcBoard()
        pc.board[field] = value
        with pytest.raises(ValueError, match="devices"):
            check_board(np.asarray(pc.boards))


def test_a_saved_decode_table_knows_only_devices():
    pc = PcBoard()
    pc.board.decode[0x300] = 200
    with pytest.raises(ValueError, match="devices"):
        check_board(np.asarray(pc.boards))
    pc.board.decode[0x300] = DEVICE_NONE
    check_board(np.asarray(pc.boards))
