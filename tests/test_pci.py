"""PCI configuration space: what each function says of itself, which bits can be written, and what follows from them."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pc_board import PcBoard

from x86virt.core.device_entries import devices_as_firmware_left_them
from x86virt.core.port_map import DEVICE_BUS_MASTER, DEVICE_IDE_PRIMARY, DEVICE_NONE, DEVICE_PIC, DEVICE_POWER

# Device, function: vendor and device, class code and revision, header type (82441FX, 82371SB, 82371AB data sheets).
FUNCTIONS = {
    (0, 0): (0x12378086, 0x060000, 0x00),
    (1, 0): (0x70008086, 0x060100, 0x80),
    (1, 1): (0x70108086, 0x010180, 0x00),
    (1, 3): (0x71138086, 0x068000, 0x00),
    (2, 0): (0x11111234, 0x030000, 0x00),
}


@pytest.mark.parametrize("place", FUNCTIONS)
def test_each_function_says_what_it_is(place):
    pc = PcBoard()
    identity, class_code, header = FUNCTIONS[place]
    assert pc.configuration(*place, 0) == identity
    assert pc.configuration(*place, 8) >> 8 == class_code
    assert pc.configuration(*place, 0x0E, 1) == header
    assert pc.configuration(*place, 0x2C) == 0x11001AF4
    pc.configure(*place, 0, 4, 0)
    pc.configure(*place, 8, 4, 0)
    assert (pc.configuration(*place, 0), pc.configuration(*place, 8) >> 8) == (identity, class_code)


def test_a_scan_of_the_bus_finds_them_and_no_more():
    """By the rule of the specification: function 0 first, the others only behind a header type with bit 7."""
    pc = PcBoard()
    found = []
    for bus in (0, 1, 255):
        for device in range(32):
            for function in range(8):
                pc.out(0xCF8, 4, 1 << 31 | bus << 16 | device << 11 | function << 8)
                if pc.in_(0xCFC, 4) == 0xFFFFFFFF:
                    continue
                found.append((bus, device, function))
    assert found == [(0, *place) for place in FUNCTIONS]


def test_configuration_address_takes_doublewords_alone():
    pc = PcBoard()
    pc.out(0xCF8, 4, 0xFFFFFFFF)
    assert pc.in_(0xCF8, 4) == 0x80FFFFFC
    for width in (1, 2):
        pc.out(0xCF8, width, 0)
        assert pc.in_(0xCF8, 4) == 0x80FFFFFC
        assert pc.in_(0xCF8, width) == (1 << 8 * width) - 1


def test_nothing_answers_unless_it_is_enabled():
    pc = PcBoard()
    pc.out(0xCF8, 4, 0)
    assert pc.in_(0xCFC, 4) == 0xFFFFFFFF
    pc.out(0xCFC, 4, 0)


def test_bytes_and_words_reach_their_part():
    pc = PcBoard()
    pc.configure(1, 0, 0x60, 4, 0x0B0A0B0A)
    pc.configure(1, 0, 0x62, 1, 0x05)
    pc.configure(1, 0, 0x60, 2, 0x8A09)
    assert pc.configuration(1, 0, 0x60) == 0x0B058A09
    assert [pc.configuration(1, 0, 0x60 + n, 1) for n in range(4)] == [0x09, 0x8A, 0x05, 0x0B]
    assert pc.configuration(1, 0, 0x62, 2) == 0x0B05


# -- base addresses -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place, offset, mask, size",
    [((1, 1), 0x20, 0xFFFFFFFC, 16), ((2, 0), 0x30, 0xFFFFF800, 0x10000)],
)
def test_the_size_of_a_window_shows_in_its_base_address(place, offset, mask, size):
    pc = PcBoard()
    pc.configure(*place, offset, 4, 0xFFFFFFFF)
    assert (~(pc.configuration(*place, offset) & mask) & 0xFFFFFFFF) + 1 == size


@pytest.mark.parametrize("place", FUNCTIONS)
def test_the_other_base_addresses_are_absent(place):
    pc = PcBoard()
    own = {(1, 1): 0x20, (2, 0): 0x30}.get(place)
    for offset in (*range(0x10, 0x28, 4), 0x30):
        if offset != own:
            pc.configure(*place, offset, 4, 0xFFFFFFFF)
            assert pc.configuration(*place, offset) == 0


def test_the_bus_master_is_where_its_base_address_says():
    pc = PcBoard()
    assert pc.configuration(1, 1, 0x20) == 1
    pc.configure(1, 1, 0x20, 4, 0xC000)
    assert pc.board.decode[0xC000] == DEVICE_NONE, "not before it is enabled"
    pc.configure(1, 1, 4, 2, 5)
    assert (pc.board.decode[0xC000:0xC010] == DEVICE_BUS_MASTER).all() and pc.board.decode[0xC010] == DEVICE_NONE
    pc.configure(1, 1, 0x20, 4, 0xD000)
    assert pc.board.decode[0xC000] == DEVICE_NONE and pc.board.decode[0xD00F] == DEVICE_BUS_MASTER
    pc.configure(1, 1, 0x20, 4, 0x10000)
    assert DEVICE_BUS_MASTER not in pc.board.decode, "beyond the ports there is nothing"
    pc.configure(1, 1, 4, 1, 0)
    assert DEVICE_BUS_MASTER not in pc.board.decode


def test_a_window_does_not_cover_what_is_always_there():
    pc = PcBoard()
    pc.configure(1, 1, 4, 1, 1)
    pc.configure(1, 1, 0x20, 4, 0x20)
    assert (pc.board.decode[0x20:0x22] == DEVICE_PIC).all() and (pc.board.decode[0x22:0x30] == DEVICE_BUS_MASTER).all()
    pc.configure(1, 1, 0x20, 4, 0x1F0)
    assert pc.board.decode[0x21] == DEVICE_PIC and pc.board.decode[0x22] == DEVICE_NONE
    assert pc.board.decode[0x1F0] in (DEVICE_BUS_MASTER, DEVICE_IDE_PRIMARY)


def test_power_management_is_where_firmware_puts_it():
    pc = PcBoard()
    pc.configure(1, 3, 0x40, 4, 0xB001)
    assert pc.configuration(1, 3, 0x40) == 0xB001 and pc.board.decode[0xB000] == DEVICE_NONE
    pc.configure(1, 3, 0x80, 1, 1)
    assert (pc.board.decode[0xB000:0xB040] == DEVICE_POWER).all() and pc.board.decode[0xB040] == DEVICE_NONE


def test_the_interrupt_line_is_a_note_of_firmware():
    pc = PcBoard()
    pc.configure(1, 3, 0x3C, 1, 9)
    assert pc.configuration(1, 3, 0x3C, 2) == 0x0109


# -- what the rest of the machine follows ---------------------------------------------------------------------------


def test_the_host_bridge_keeps_its_memory_attributes():
    pc = PcBoard()
    assert pc.board.pci.pam == 0
    pc.configure(0, 0, 0x59, 1, 0xFF)
    pc.configure(0, 0, 0x5A, 2, 0x1132)
    pc.configure(0, 0, 0x5C, 4, 0x33333333)
    assert [pc.configuration(0, 0, at, 1) for at in range(0x59, 0x60)] == [0x30, 0x32, 0x11, 0x33, 0x33, 0x33, 0x33]
    assert int(pc.board.pci.pam).to_bytes(7, "little").hex() == "30321133333333"


def test_the_rom_is_decoded_while_both_enables_are_on():
    pc = PcBoard()
    pc.configure(2, 0, 0x30, 4, 0xFEBE0001)
    assert pc.board.pci.rom_window == 0
    pc.configure(2, 0, 4, 2, 3)
    assert pc.board.pci.rom_window == 0xFEBE0000
    pc.configure(2, 0, 0x30, 1, 0)
    assert pc.board.pci.rom_window == 0 and pc.configuration(2, 0, 0x30) == 0xFEBE0000


def test_routing_registers_store():
    pc = PcBoard()
    assert pc.configuration(1, 0, 0x60) == 0x80808080
    pc.configure(1, 0, 0x60, 4, 0xFFFFFFFF)
    assert pc.configuration(1, 0, 0x60) == 0x8F8F8F8F


def test_ide_timing_and_firmware_notes_store():
    pc = PcBoard()
    pc.configure(1, 1, 0x40, 4, 0x80008000)
    assert pc.configuration(1, 1, 0x40) == 0x80008000
    assert pc.configuration(1, 3, 0x58) >> 25 & 1 == 1, "firmware need not set up system management mode"


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.sampled_from(sorted(FUNCTIONS)),
            st.integers(0, 255),
            st.sampled_from([1, 2, 4]),
            st.integers(0, 2**32 - 1),
        ),
        max_size=40,
    )
)
def test_a_byte_never_depends_on_the_width_of_the_access(accesses):
    """Writes of any width equal writes byte by byte; bits that cannot be written keep their value."""
    whole, pieces, fresh = PcBoard(), PcBoard(), PcBoard()
    for writes, place, offset, width, value in accesses:
        offset &= ~(width - 1)
        if writes:
            whole.configure(*place, offset, width, value)
            for number in range(width):
                pieces.configure(*place, offset + number, 1, value >> 8 * number & 0xFF)
        assert whole.configuration(*place, offset, width) == pieces.configuration(*place, offset, width)
        assert bytes(whole.board.pci.space) == bytes(pieces.board.pci.space)
    kept = ~whole.board.pci.writable & whole.board.pci.space
    assert (kept == ~fresh.board.pci.writable & fresh.board.pci.space).all()
    assert (whole.board.pci.pam, whole.board.pci.rom_window) == (pieces.board.pci.pam, pieces.board.pci.rom_window)
    assert (whole.board.decode == pieces.board.decode).all()


def test_a_start_without_firmware_finds_what_it_would_have_left():
    """Decoded IDE channels, a bus master, power management, PAM all RAM: what drivers of a kernel do not set up."""
    pc = PcBoard()
    devices_as_firmware_left_them(pc.boards)
    assert pc.configuration(1, 1, 0x40) == 0x80008000
    assert pc.configuration(1, 1, 4, 2) == 5 and pc.configuration(1, 1, 0x20) == 0xC001
    assert (pc.board.decode[0xC000:0xC010] == DEVICE_BUS_MASTER).all()
    assert pc.configuration(1, 3, 0x3C, 1) == 9 and (pc.board.decode[0xB000:0xB040] == DEVICE_POWER).all()
    assert int(pc.board.pci.pam) == 0x33333333333330
    assert pc.configuration(1, 0, 0x60) == 0x0B0B0A0A
