"""IDE channels against a model from ATA/ATAPI-6: commands, addresses, interrupts, absent drives, DMA; no processor runs."""

from __future__ import annotations

import numpy as np
import pytest
from ata_model import SECTOR_COMMANDS, TRANSFER_MODES, AtaModel, Outcome, Registers
from hypothesis import given, settings
from hypothesis import strategies as st
from ide_machine import (
    ABRT,
    BSY,
    COMMAND,
    CONTROL,
    COUNT,
    DATA,
    DEVICE,
    DRQ,
    ERR,
    ERROR,
    FEATURE,
    HIGH,
    IDNF,
    LOW,
    MASTER_COMMAND,
    MASTER_STATUS,
    MASTER_TABLE,
    MID,
    PRIMARY,
    READY,
    SECONDARY,
    STATUS,
    TICKS_PER_SECOND,
    IdeMachine,
    pattern,
)

from x86virt.core import board as bd
from x86virt.core import ide_state
from x86virt.disk import SECTOR, Disk

FEW = settings(max_examples=15, deadline=None)
SECTORS = 16 * 63 * 3 + 5  # not whole cylinders
IMAGE = pattern(SECTORS)
CABLES = {"no drive": (), "master": (0,), "slave": (1,), "both": (0, 1)}


def machine(*places: int, base: int = PRIMARY, sectors: int = SECTORS) -> IdeMachine:
    """Drives at places of the channel, each with an image of its own."""
    first = 0 if base == PRIMARY else 2
    return IdeMachine({first + place: pattern(sectors, place) for place in places}, base)


def outcome_of(m: IdeMachine, code: int, outcome: Outcome) -> tuple[int, int, list[bytes]]:
    """Give a command that goes as the model says: status, error register, blocks that came in."""
    if outcome.protocol.startswith("dma"):
        m.descriptors(0x1000, *((0x10000 * number, 0) for number in range(1, 5)))
        status, _ = m.dma(code, outcome.protocol == "dma in")
        return status, m.get(ERROR), []
    status, blocks = m.command(code), []
    for content in outcome.blocks:
        if outcome.protocol == "in":
            blocks.append(m.read_block(max(len(content), SECTOR) // SECTOR))
        elif outcome.protocol == "out":
            m.write_block(bytes(len(content)))
        while m.alternate & BSY and m.wait():
            pass
        status = m.get(STATUS)
    return status, m.get(ERROR), blocks


# -- which commands there are, for which drives ------------------------------------------------------------------------


@pytest.mark.parametrize("base", [PRIMARY, SECONDARY])
@pytest.mark.parametrize("cable", CABLES)
@pytest.mark.parametrize("slave", [0, 1])
def test_every_command_code_for_every_drive_that_may_be_there(base, cable, slave):
    places = CABLES[cable]
    m = machine(*places, base=base)
    present = slave in places
    whole = (base, cable, slave) in ((PRIMARY, "master", 0), (SECONDARY, "both", 1))
    codes = range(256) if whole else (0x00, 0x20, 0x30, 0x90, 0xA1, 0xC8, 0xEC, 0xEF)
    for code in codes:
        model = AtaModel(pattern(SECTORS, slave))
        m.put(CONTROL, 4)
        m.put(CONTROL, 0)
        m.wait()
        m.put(FEATURE, 2)
        m.address(7, 1, "lba48" if code in SECTOR_COMMANDS and SECTOR_COMMANDS[code][1] else "lba28", slave)
        registers = Registers(feature=2, count=1, low=7, device=0xE0, older=(0, 0, 0, 0))
        before = m.registers()
        outcome = model.command(code, registers)
        if code == 0x90 and places:
            m.command(code)
            m.wait()
            assert m.get(STATUS) == (READY if 0 in places else 0x7F)
            continue
        if not present:
            m.put(COMMAND, code)
            assert m.wait() == 0 and m.line == 0
            assert m.get(STATUS) == (0 if slave == 1 and 0 in places else 0x7F), hex(code)
            assert m.registers() == before
            continue
        status, error, blocks = outcome_of(m, code, outcome)
        assert error == outcome.error, hex(code)
        assert status == (READY | ERR if outcome.error else READY), hex(code)
        if code in SECTOR_COMMANDS and outcome.protocol == "in":
            assert blocks == outcome.blocks


def test_packet_and_device_reset_are_aborted():
    m = machine(0)
    for code in (0xA0, 0xA1, 0x08, 0x00, 0xB0, 0xF8, 0x27):
        m.select(0)
        assert m.command(code) == READY | ERR
        assert m.get(ERROR) == ABRT


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["chs", "lba28", "lba48"])
@pytest.mark.parametrize("lba", [0, 1, 62, 63, 1007, 1008, 16 * 63 * 3 - 1])
@pytest.mark.parametrize("n", [2, 4])
def test_reads_by_every_form_of_address(form, lba, n):
    m = machine(0)
    m.address(lba, 1, form)
    assert m.read(0x24 if form == "lba48" else 0x20, 1, n=n) == IMAGE[lba * SECTOR : (lba + 1) * SECTOR]


def test_a_count_of_zero_is_256():
    m = machine(0)
    m.address(2, 256, "chs")
    assert m.read(0x21, 256) == IMAGE[2 * SECTOR : 258 * SECTOR]


def test_a_count_of_more_than_eight_bits():
    m = machine(0)
    m.descriptors(0x1000, (0x10000, 0), (0x20000, 0), (0x30000, 512))
    m.address(2, 257, "lba48")
    assert m.dma(0x25, True) == (READY, 4)
    assert bytes(m.memory[0x10000:0x30200]) == IMAGE[2 * SECTOR : 259 * SECTOR]


def test_a_count_of_zero_in_48_bits_is_65536():
    disk = Disk("sparse", 70000 * SECTOR, None, b"")
    m = IdeMachine({0: disk})
    m.address(100, 0, "lba48")
    assert m.command(0x42) == READY
    m.address(70000 - 65535, 0, "lba48")
    assert m.command(0x42) == READY | ERR and m.get(ERROR) == IDNF


@pytest.mark.parametrize("code", [0x20, 0x30, 0x40, 0xC8, 0xCA])
@pytest.mark.parametrize("lba, count", [(SECTORS, 1), (SECTORS - 1, 2), (SECTORS - 3, 7), (0xFFFFFFF, 1)])
def test_beyond_the_last_sector_is_not_found_and_named(code, lba, count):
    m = machine(0)
    model = AtaModel(IMAGE)
    m.address(lba, count, "lba28")
    top = lba >> 24 & 15
    r = Registers(count=count, low=lba & 255, mid=lba >> 8 & 255, high=lba >> 16 & 255, device=0xE0 | top)
    outcome = model.command(code, r)
    assert outcome.error == IDNF
    if outcome.protocol.startswith("dma"):
        outcome.protocol = "none"
    status, error, blocks = outcome_of(m, code, outcome)
    assert (status, error) == (READY | ERR, IDNF)
    assert m.line == 0
    low, mid, high, device = (m.get(register) for register in (LOW, MID, HIGH, DEVICE))
    assert low | mid << 8 | high << 16 | (device & 15) << 24 == outcome.failed_at
    if outcome.protocol == "in":
        assert blocks == outcome.blocks


def test_beyond_48_bits_of_capacity_is_named_in_both_halves():
    m = IdeMachine({0: Disk("huge", (1 << 33) * SECTOR, None, b"")})
    m.address(1 << 33, 1, "lba48")
    assert m.command(0x24) == READY | ERR
    assert [m.get(register) for register in (LOW, MID, HIGH)] == [0, 0, 0]
    m.put(CONTROL, 0x80)
    assert [m.get(register) for register in (LOW, MID, HIGH)] == [0, 2, 0]
    m.put(COUNT, 1)  # any write to the command block clears HOB
    assert [m.get(register) for register in (LOW, MID, HIGH)] == [0, 0, 0]


@pytest.mark.parametrize("cylinder, head, sector", [(0, 0, 0), (0, 0, 64), (3, 0, 1), (0xFFFF, 15, 63)])
def test_chs_outside_of_the_translation(cylinder, head, sector):
    m = machine(0)
    for register, value in ((COUNT, 1), (LOW, sector), (MID, cylinder & 255), (HIGH, cylinder >> 8)):
        m.put(register, value)
    m.put(DEVICE, 0xA0 | head)
    assert m.command(0x20) == READY | ERR and m.get(ERROR) == IDNF


def test_another_translation():
    m = machine(0)
    m.put(COUNT, 17)
    m.put(DEVICE, 0xA0 | 3)
    assert m.command(0x91) == READY
    m.address(500, 2, "chs", track=17, heads=4)
    assert m.read(0x20, 2) == IMAGE[500 * SECTOR : 502 * SECTOR]
    m.put(DEVICE, 0xA0 | 4)  # no head 4 now
    assert m.command(0x20) == READY | ERR
    m.select(0)
    words = np.frombuffer(m.read(0xEC, 1), "<u2")
    assert words[54:57].tolist() == [SECTORS // 68, 4, 17] and words[57] == SECTORS // 68 * 68
    assert words[[1, 3, 6]].tolist() == [3, 16, 63]


def test_an_extended_command_wants_an_lba():
    m = machine(0)
    m.address(0, 1, "lba48")
    m.put(DEVICE, 0xA0)
    assert m.command(0x24) == READY | ERR and m.get(ERROR) == ABRT


# -- random commands against the model ---------------------------------------------------------------------------------

PLACES = st.one_of(st.integers(0, SECTORS + 3), st.integers(SECTORS - 20, SECTORS + 3), st.integers(0, (1 << 28) - 1))
STEPS = st.tuples(
    st.one_of(st.sampled_from(sorted(SECTOR_COMMANDS)), st.sampled_from([0xC6, 0x91, 0xEF, 0x70, 0xE7, 0xE5])),
    PLACES,
    st.integers(1, 6),
    st.sampled_from(["chs", "lba28", "lba48"]),
    st.integers(0, 255),
)


@settings(max_examples=40, deadline=None)
@given(st.lists(STEPS, min_size=1, max_size=8))
def test_sequences_of_commands_equal_the_models(steps):
    m, model = machine(0), AtaModel(IMAGE)
    for code, lba, count, form, salt in steps:
        track, heads = model.track, model.heads
        if form == "chs":
            lba %= heads * track << 16
        m.put(FEATURE, 3)
        m.address(lba, count, form, track=track, heads=heads)
        older = (count >> 8, lba >> 24 & 255, lba >> 32 & 255, lba >> 40 & 255)
        low, mid, high, device = (m.get(register) for register in (LOW, MID, HIGH, DEVICE))
        r = Registers(3, count, low, mid, high, device, older)
        if form != "lba48" and code in SECTOR_COMMANDS and SECTOR_COMMANDS[code][1]:
            for register in (COUNT, LOW, MID, HIGH):
                m.put(register, 0)
                m.put(register, r.count if register == COUNT else 1)
            r = Registers(3, count, 1, 1, 1, device)
        outcome = model.command(code, r)
        content = bytes([salt]) * 512 * sum(n for _, n in outcome.places)
        if outcome.protocol == "out":
            status = m.command(code)
            for _, n in outcome.places:
                assert status & DRQ
                m.write_block(content[: n * SECTOR])
                while m.alternate & BSY and m.wait():
                    pass
                status = m.get(STATUS)
        elif outcome.protocol.startswith("dma") and not outcome.error:
            m.memory[0x10000 : 0x10000 + len(content)] = content
            m.descriptors(0x1000, (0x10000, len(content)))
            status, master = m.dma(code, outcome.protocol == "dma in")
            assert master & 7 == 4
            if outcome.protocol == "dma in":
                assert bytes(m.memory[0x10000 : 0x10000 + len(content)]) == b"".join(outcome.blocks)
        elif outcome.protocol.startswith("dma"):
            status = m.command(code)
        else:
            status, _, blocks = outcome_of(m, code, outcome)
            assert outcome.protocol != "in" or blocks == outcome.blocks
        assert status == (READY | ERR if outcome.error else READY)
        assert m.get(ERROR) == outcome.error
        if outcome.protocol in ("out", "dma out"):
            model.store(outcome, content)
    assert m.service.disks[0].read(0, SECTORS) == model.content


# -- blocks and interrupts ---------------------------------------------------------------------------------------------


def interrupts_of(m: IdeMachine, code: int, blocks: int, sectors: int, out: bool) -> int:
    """Rising edges of the interrupt line while a command goes, the host reading the status register for each."""
    edges = 0
    m.put(COMMAND, code)
    if out:
        assert m.line == 0 and m.alternate & DRQ
    for number in range(blocks + 1):
        if not (out and number == 0):
            m.wait()
            edges += m.line
            m.get(STATUS)
            assert m.line == 0
        if number < blocks:
            if out:
                m.write_block(bytes(sectors * SECTOR))
            else:
                m.read_block(sectors)
    return edges


@pytest.mark.parametrize(
    "base, multiple", [(PRIMARY, 0), (SECONDARY, 1), (PRIMARY, 2), (SECONDARY, 4), (PRIMARY, 8), (SECONDARY, 16)]
)
@pytest.mark.parametrize("out", [False, True])
def test_one_interrupt_for_each_block(base, multiple, out):
    m = machine(0, base=base)
    if multiple:
        m.put(COUNT, multiple)
        assert m.command(0xC6) == READY
    m.address(5, 16, "lba28")
    code = (0xC5 if out else 0xC4) if multiple else (0x30 if out else 0x20)
    block = multiple or 1
    assert interrupts_of(m, code, 16 // block, block, out) == 16 // block


def test_the_last_block_of_a_multiple_read_may_be_short():
    m = machine(0)
    m.put(COUNT, 8)
    m.command(0xC6)
    m.address(3, 19, "lba28")
    content = b""
    status = m.command(0xC4)
    for sectors in (8, 8, 3):
        assert status & DRQ
        content += m.read_block(sectors)
        assert not m.alternate & DRQ
        while m.alternate & BSY and m.wait():
            pass
        status = m.get(STATUS)
    assert content == IMAGE[3 * SECTOR : 22 * SECTOR] and status == READY


@pytest.mark.parametrize("count", [3, 17, 32, 255])
def test_a_block_size_that_is_not_offered_disables_multiple(count):
    m = machine(0)
    m.put(COUNT, 4)
    assert m.command(0xC6) == READY
    m.put(COUNT, count)
    assert m.command(0xC6) == READY | ERR
    m.address(0, 1, "lba28")
    assert m.command(0xC4) == READY | ERR and m.get(ERROR) == ABRT


def test_alternate_status_leaves_the_interrupt_and_status_clears_it():
    m = machine(0)
    m.command(0xE7)
    m.put(COMMAND, 0xE7)
    assert m.line == 0
    m.wait()
    assert m.line == 1 and m.alternate == READY and m.line == 1
    assert m.get(STATUS) == READY and m.line == 0


def test_a_command_clears_the_interrupt_of_the_last():
    m = machine(0)
    m.put(COMMAND, 0xE7)
    m.wait()
    m.put(COMMAND, 0xE7)
    assert m.line == 0 and m.alternate & BSY


def test_nien_releases_the_line_and_keeps_what_waits():
    m = machine(0)
    m.put(CONTROL, 2)
    m.put(COMMAND, 0xE7)
    m.wait()
    assert m.line == 0
    m.put(CONTROL, 0)
    assert m.line == 1
    m.put(CONTROL, 2)
    assert m.line == 0
    m.get(STATUS)
    m.put(CONTROL, 0)
    assert m.line == 0


def test_the_drive_that_is_not_selected_does_not_drive_the_line():
    m = machine(0, 1)
    m.put(COMMAND, 0xE7)
    m.wait()
    m.select(1)
    assert m.line == 0
    assert m.get(STATUS) == READY
    m.select(0)
    assert m.line == 1


def test_interrupts_reach_their_own_inputs_of_the_pic():
    for base, bit in ((PRIMARY, 0x40), (SECONDARY, 0x80)):
        m = machine(0, base=base)
        for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1)):
            m.port_out(port, value)
            m.port_out(port + 0x80, 2 if value == 4 else value)
        m.port_out(0xA1, 0)
        m.port_out(0x21, 0)
        m.put(COMMAND, 0xE7)
        m.wait()
        assert m.port_in(0xA0) == bit
        assert bd.interrupt_acknowledge(m.board) == 0x20 + (6 if bit == 0x40 else 7)


# -- the task file -----------------------------------------------------------------------------------------------------


def test_both_drives_take_what_is_written_and_keep_their_own():
    m = machine(0, 1)
    for register in (COUNT, LOW, MID, HIGH):
        m.put(register, register * 0x11)
    for slave in (0, 1):
        m.select(slave)
        assert m.registers()[1:5] == (0x22, 0x33, 0x44, 0x55)
    assert m.command(0xE5) == READY and m.get(COUNT) == 0xFF
    m.select(0)
    assert m.get(COUNT) == 0x22


@pytest.mark.parametrize("busy", [True, False])
def test_writes_are_ignored_while_bsy_or_drq_is_set(busy):
    m = machine(0, 1)
    m.address(0, 2, "lba28")
    m.put(COMMAND, 0x20)
    if not busy:
        m.wait()
    before = m.registers()
    for register in range(FEATURE, STATUS + 1):
        m.put(register, 0xB5)
    assert m.registers() == before
    assert m.alternate & (BSY if busy else DRQ)


def test_hob_shows_the_previous_contents():
    m = machine(0)
    for register in (COUNT, LOW, MID, HIGH):
        m.put(register, register)
        m.put(register, register + 0x10)
    assert m.registers()[1:5] == (0x12, 0x13, 0x14, 0x15)
    m.put(CONTROL, 0x80)
    assert m.registers()[1:5] == (2, 3, 4, 5)


def test_data_outside_of_a_transfer():
    m = machine(0)
    assert m.get(DATA, 2) == 0xFFFF and m.get(DATA, 4) == 0xFFFFFFFF
    m.put(DATA, 0x1234, 2)
    assert m.alternate == READY
    assert IdeMachine({}).get(DATA, 2) == 0xFF7F


def test_a_byte_of_data_is_the_lower_half_of_a_word():
    m = machine(0)
    m.address(0, 1, "lba28")
    m.command(0x20)
    assert bytes(m.get(DATA) for _ in range(256)) == IMAGE[:SECTOR:2]
    assert m.alternate == READY


@pytest.mark.parametrize("register", range(1, 8))
def test_wide_accesses_of_other_registers_are_split(register):
    m = machine(0)
    for number in (COUNT, LOW, MID, HIGH):
        m.put(number, 0x20 + number)
    narrow = m.get(register)
    wide = m.get(register, 2)
    assert wide & 0xFF == narrow
    if register < STATUS:
        assert wide >> 8 == m.get(register + 1)


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [*range(0x10), *range(0x20, 0x28), *range(0x40, 0x48), 0x18, 0x80, 0xFF])
def test_transfer_modes(mode):
    m = machine(0)
    m.put(FEATURE, 3)
    m.put(COUNT, mode)
    status = m.command(0xEF)
    assert status == (READY if mode in TRANSFER_MODES else READY | ERR)
    m.select(0)
    words = np.frombuffer(m.read(0xEC, 1), "<u2")
    assert words[63] >> 8 == (1 << (mode & 7) if 0x20 <= mode <= 0x22 else 0)
    assert words[88] >> 8 == (1 << (mode & 7) if 0x40 <= mode <= 0x42 else 0)


def test_identify_tells_what_the_drive_is():
    m = machine(0, 1)
    for slave in (0, 1):
        m.select(slave)
        octets = m.read(0xEC, 1)
        words = np.frombuffer(octets, "<u2").tolist()
        assert sum(octets) & 0xFF == 0 and words[255] & 0xFF == 0xA5
        assert words[0] == 0x0040 and words[53] == 7
        assert words[60] | words[61] << 16 == SECTORS
        assert words[100] | words[101] << 16 == SECTORS
        text = b"".join(word.to_bytes(2, "big") for word in words[27:47])
        assert text.rstrip() == b"x86virt disk"
        serial = b"".join(word.to_bytes(2, "big") for word in words[10:20])
        assert serial.rstrip() == f"x86virt-{slave}".encode()
        assert words[83] >> 14 == words[84] >> 14 == words[87] >> 14 == 1
        assert words[82] & 1 << 5 and words[85] & 1 << 5


def test_write_cache_and_look_ahead_are_told():
    m = machine(0)
    for feature, word_85 in ((0x82, 0x4048), (0x55, 0x4008), (0x02, 0x4028), (0xAA, 0x4068)):
        m.put(FEATURE, feature)
        assert m.command(0xEF) == READY
        m.select(0)
        assert np.frombuffer(m.read(0xEC, 1), "<u2")[85] == word_85


@pytest.mark.parametrize("code, told", [(0xE2, 0x00), (0x94, 0x00), (0xE3, 0x80), (0x97, 0x80), (0xE1, 0x80)])
def test_power_modes(code, told):
    m = machine(0)
    assert m.command(code) == READY
    assert m.command(0xE5) == READY and m.get(COUNT) == told
    m.address(0, 1, "lba28")
    m.read(0x20, 1)
    assert m.command(0x98) == READY and m.get(COUNT) == 0xFF


@pytest.mark.parametrize("code", [0xE6, 0x99])
def test_a_drive_that_sleeps_is_woken_by_a_reset_alone(code):
    m = machine(0)
    assert m.command(code) == READY
    m.put(COMMAND, 0xEC)
    assert m.wait() == 0 and m.alternate == READY
    m.put(CONTROL, 4)
    m.put(CONTROL, 0)
    m.wait()
    assert m.command(0xE5) == READY and m.get(COUNT) == 0
    assert m.read(0xEC, 1)


# -- reset and diagnostic ----------------------------------------------------------------------------------------------

SIGNATURE = (1, 1, 1, 0, 0, 0)


@pytest.mark.parametrize("start", [None, 0x20, 0x30, 0xC8, 0xEC, 0xE7])
@pytest.mark.parametrize("waited", [False, True])
def test_a_software_reset_ends_whatever_was_going_on(start, waited):
    m = machine(0, 1)
    m.address(9, 3, "lba28", slave=1)
    if start is not None:
        m.put(COMMAND, start)
        if waited:
            m.wait()
    m.put(CONTROL, 4)
    assert m.alternate & BSY and m.line == 0
    assert m.wait() == 0 and m.alternate & BSY  # as long as SRST is set
    m.put(CONTROL, 0)
    assert m.alternate & BSY
    assert m.wait() > 0 and m.line == 0
    assert m.get(STATUS) == READY and m.registers() == SIGNATURE
    m.put(DEVICE, 0x10)
    assert m.get(STATUS) == READY and m.registers() == (1, 1, 1, 0, 0, 0x10)
    m.address(9, 1, "lba28", slave=1)
    assert m.read(0x20, 1) == pattern(SECTORS, 1)[9 * SECTOR : 10 * SECTOR]


@pytest.mark.parametrize("reverts", [False, True])
def test_a_software_reset_reverts_settings_if_told_so(reverts):
    m = machine(0)
    m.put(COUNT, 4)
    m.command(0xC6)
    m.put(FEATURE, 0xCC if reverts else 0x66)
    m.command(0xEF)
    m.put(CONTROL, 4)
    m.put(CONTROL, 0)
    m.wait()
    m.select(0)
    assert np.frombuffer(m.read(0xEC, 1), "<u2")[59] == (0 if reverts else 0x104)


def test_the_diagnostic_interrupts_and_shows_the_signature():
    m = machine(0, 1)
    m.select(1)
    m.put(COMMAND, 0x90)
    assert m.alternate & BSY
    m.wait()
    assert m.line == 1 and m.get(STATUS) == READY and m.registers() == SIGNATURE


# -- how software finds out what is there ------------------------------------------------------------------------------


def seabios_finds(m: IdeMachine) -> list[int]:
    """The drives that SeaBIOS's way of detection finds: registers that hold what is written, then IDENTIFY."""
    found, did_reset = [], False
    for slave, head in ((0, 0xA0), (1, 0xB0)):
        if m.get(STATUS) & BSY:
            continue
        m.put(DEVICE, head)
        if m.get(STATUS) & BSY:
            continue
        m.put(DEVICE, head)
        read_head = m.get(DEVICE)
        m.put(COUNT, 0x55)
        m.put(LOW, 0xAA)
        if (m.get(COUNT), m.get(LOW), read_head) != (0x55, 0xAA, head):
            continue
        if not did_reset:
            did_reset = True
            m.put(CONTROL, 0x08 | 2 | 4)
            m.put(CONTROL, 0x08 | 2)
            m.wait()
            m.put(DEVICE, head)
            m.put(CONTROL, 0x08)
        m.put(DEVICE, head)
        packet = m.command(0xA1)
        if packet & DRQ or not m.get(STATUS):
            continue
        m.put(DEVICE, head)
        if m.command(0xEC) & DRQ:
            m.read_block()
            found.append(slave)
    return found


def libata_finds(m: IdeMachine) -> list[int]:
    """The drives that Linux's libata finds: patterns in count and LBA low, a reset, then signatures."""
    mask = []
    for slave in (0, 1):
        m.select(slave)
        for count, low in ((0x55, 0xAA), (0xAA, 0x55), (0x55, 0xAA)):
            m.put(COUNT, count)
            m.put(LOW, low)
        if (m.get(COUNT), m.get(LOW)) == (0x55, 0xAA):
            mask.append(slave)
    m.select(0)
    for value in (8, 8 | 4, 8):
        m.put(CONTROL, value)
    m.wait()
    assert m.get(STATUS) != 0xFF, "a cable without its pull-down resistor"
    assert not m.get(STATUS) & BSY
    found = []
    for slave in mask:
        m.select(slave)
        error, count, low, mid, high, _ = m.registers()
        if error in (1, 0x81) and (mid, high) == (0, 0) and m.get(STATUS) != 0:
            found.append(slave)
            assert (count, low) == (1, 1)
    return found


@pytest.mark.parametrize("base", [PRIMARY, SECONDARY])
@pytest.mark.parametrize("cable", CABLES)
@pytest.mark.parametrize("finds", [seabios_finds, libata_finds])
def test_software_finds_the_drives_that_are_there(base, cable, finds):
    places = CABLES[cable]
    assert finds(machine(*places, base=base)) == list(places)


def test_an_empty_channel_beside_a_full_one_floats():
    m = machine(0)
    m.base = SECONDARY
    assert [m.get(register) for register in range(1, 8)] == [0x7F] * 7 and m.alternate == 0x7F


# -- time --------------------------------------------------------------------------------------------------------------


def test_the_declared_speed_of_a_drive():
    """100 microseconds for a command, 30.72 for a sector, 2 milliseconds for a reset."""
    microsecond = TICKS_PER_SECOND // 1_000_000
    command, sector = 100 * microsecond, -(-TICKS_PER_SECOND * 3072 // 100_000_000)
    m = machine(0)
    m.address(0, 3, "lba28")
    m.put(COMMAND, 0x20)
    waits = [m.wait()]
    for _ in range(2):
        m.read_block()
        waits.append(m.wait())
    assert waits == [command + sector, sector, sector]
    m.read_block()
    m.address(0, 2, "lba28")
    m.put(COMMAND, 0x30)
    m.write_block(bytes(SECTOR))
    assert m.wait() == command + sector
    m.write_block(bytes(SECTOR))
    assert m.wait() == sector
    m.put(COMMAND, 0xE7)
    assert m.wait() == command
    m.put(CONTROL, 4)
    m.put(CONTROL, 0)
    assert m.wait() == 2000 * microsecond
    m.address(0, 7, "lba28")
    m.descriptors(0x1000, (0x4000, 7 * SECTOR))
    m.put(COMMAND, 0xC8)
    m.now += 12345
    m.port_out(m.master(MASTER_COMMAND), 9)
    assert m.wait() == command + 7 * sector


def test_time_is_the_owners_to_set():
    m = machine(0)
    channel = m.board.ide.channels[0]
    channel.command_ticks, channel.sector_ticks = 7, 3
    m.address(0, 1, "lba28")
    m.put(COMMAND, 0x20)
    assert m.wait() == 10


def test_busy_until_the_tick_of_the_deadline():
    m = machine(0)
    m.put(COMMAND, 0xEC)
    deadline = m.deadline()
    m.now = deadline - 1
    assert m.get(STATUS) & BSY and m.line == 0
    m.now = deadline
    assert m.get(STATUS) & DRQ


def test_a_read_asks_the_host_for_many_blocks_at_once():
    m = machine(0)
    m.address(0, 20, "lba28")
    m.read(0x20, 20)
    assert m.served == 2


# -- DMA ---------------------------------------------------------------------------------------------------------------

SCATTERED = [(0x20000, 2), (0x30002, 510), (0x2FFFE, 2), (0x40100, 1022), (0x21000, 512 * 5)]


@pytest.mark.parametrize("base", [PRIMARY, SECONDARY])
@pytest.mark.parametrize("code, form", [(0xC8, "lba28"), (0xC9, "chs"), (0x25, "lba48")])
def test_dma_reads_scatter(base, code, form):
    m = machine(0, base=base)
    m.descriptors(0x1FF8, *SCATTERED)
    m.address(11, 8, form)
    assert m.dma(code, True) == (READY, 4)
    content = b"".join(bytes(m.memory[address : address + count]) for address, count in SCATTERED)
    assert content == IMAGE[11 * SECTOR : 19 * SECTOR]


@pytest.mark.parametrize("code, form", [(0xCA, "lba28"), (0xCB, "chs"), (0x35, "lba48")])
def test_dma_writes_gather(code, form):
    m = machine(0)
    content = pattern(8, 99)
    place = 0
    for address, count in SCATTERED:
        m.memory[address : address + count] = content[place : place + count]
        place += count
    m.descriptors(0x1FF8, *SCATTERED)
    m.address(11, 8, form)
    assert m.dma(code, False) == (READY, 4)
    assert m.service.disks[0].read(10, 10) == IMAGE[10 * SECTOR : 11 * SECTOR] + content + IMAGE[19 * SECTOR : 20 * SECTOR]


def test_a_count_of_zero_is_64_kilobytes():
    m = machine(0)
    m.descriptors(0x1000, (0x10000, 0), (0x30000, 0))
    m.address(0, 0, "lba28")
    assert m.dma(0xC8, True) == (READY, 4)
    assert bytes(m.memory[0x10000:0x20000] + m.memory[0x30000:0x40000]) == IMAGE[: 256 * SECTOR]


def test_a_region_wraps_within_its_64_kilobytes():
    """The counter behind an address has bits 1 to 15 (82371FB and 82371SB data sheet)."""
    m = machine(0)
    m.descriptors(0x1000, (0x2FF00, 0x400))
    m.address(0, 2, "lba28")
    assert m.dma(0xC8, True) == (READY, 4)
    assert bytes(m.memory[0x2FF00:0x30000] + m.memory[0x20000:0x20300]) == IMAGE[:0x400]
    assert not any(m.memory[0x30000:0x30300])


def test_odd_addresses_and_counts_lose_their_lowest_bit():
    m = machine(0)
    m.descriptors(0x1002, (0x20001, 0x201))
    m.write_guest(0x1000, bytes(m.memory[0x1002:0x100A]))  # the table's address is a multiple of four
    m.address(0, 1, "lba28")
    assert m.dma(0xC8, True) == (READY, 4)
    assert bytes(m.memory[0x20000:0x20200]) == IMAGE[:0x200]


def test_a_table_with_more_room_leaves_the_bus_master_active():
    m = machine(0)
    for regions in ([(0x20000, 0x202)], [(0x20000, 0x200), (0x28000, 2)]):
        m.descriptors(0x1000, *regions)
        m.address(1, 1, "lba28")
        assert m.dma(0xC8, True) == (READY, 5)
        assert m.port_in(m.master(MASTER_STATUS)) == 4


@pytest.mark.parametrize("to_memory", [True, False])
def test_a_table_with_less_room_ends_without_an_interrupt(to_memory):
    m = machine(0)
    m.descriptors(0x1000, (0x20000, 0x300))
    m.address(1, 2, "lba28")
    status, master = m.dma(0xC8 if to_memory else 0xCA, to_memory)
    assert status & BSY and master == 0 and m.line == 0
    m.put(CONTROL, 4)
    m.put(CONTROL, 0)
    m.wait()
    assert m.get(STATUS) == READY


@pytest.mark.parametrize(
    "table, region",
    [(0x1000, (0x100000, 0x400)), (0x1000, (0xFFFF0000, 0x200)), (0x200000, (0x20000, 0x200)), (0xFFFFFFFC, (0, 2))],
)
@pytest.mark.parametrize("to_memory", [True, False])
def test_where_nothing_answers_the_error_bit_is_set(table, region, to_memory):
    m = machine(0)
    if table < 0x100000:
        m.descriptors(table, region)
    m.port_out(m.master(MASTER_TABLE), table, 4)
    m.address(0, 2, "lba28")
    status, master = m.dma(0xC8 if to_memory else 0xCA, to_memory)
    assert master == 2 and status & BSY and len(m.memory) == 1 << 20


def test_a_table_may_not_cross_64_kilobytes():
    m = machine(0)
    m.descriptors(0x2FFF8, (0x40000, 0x200), (0x50000, 0x200))
    m.address(0, 2, "lba28")
    _, master = m.dma(0xC8, True)
    assert master == 2
    m.port_out(m.master(MASTER_TABLE), 0x2FFFC, 4)
    m.put(CONTROL, 4)
    m.put(CONTROL, 0)
    m.wait()
    m.address(0, 1, "lba28")
    assert m.dma(0xC8, True)[1] == 2


def test_a_table_without_an_end_is_left_when_the_transfer_is_over():
    m = machine(0)
    m.descriptors(0x1000, *((0x20000 + 2 * number, 2) for number in range(256)), end=False)
    m.address(5, 1, "lba28")
    assert m.dma(0xC8, True) == (READY, 5)
    assert bytes(m.memory[0x20000:0x20200]) == IMAGE[5 * SECTOR : 6 * SECTOR]


@pytest.mark.parametrize("order", ["command first", "bus master first"])
def test_either_side_may_begin(order):
    m = machine(0)
    m.descriptors(0x1000, (0x20000, 0x200))
    m.address(2, 1, "lba28")
    steps = [lambda: m.put(COMMAND, 0xC8), lambda: m.port_out(m.master(MASTER_COMMAND), 9)]
    for step in steps if order == "command first" else reversed(steps):
        step()
    assert m.alternate & BSY and m.port_in(m.master(MASTER_STATUS)) == 1
    m.wait()
    assert m.line == 1 and m.port_in(m.master(MASTER_STATUS)) == 4
    assert bytes(m.memory[0x20000:0x20200]) == IMAGE[2 * SECTOR : 3 * SECTOR]


@pytest.mark.parametrize("why", ["direction", "not a bus master", "not started"])
def test_dma_waits_for_what_is_missing(why):
    m = machine(0)
    if why == "not a bus master":
        m.configure(4, 2, 1)
    m.descriptors(0x1000, (0x20000, 0x200))
    m.address(2, 1, "lba28")
    m.put(COMMAND, 0xC8)
    if why != "not started":
        m.port_out(m.master(MASTER_COMMAND), 1 if why == "direction" else 9)
    assert m.wait() == 0 and m.alternate & BSY and not any(m.memory[0x20000:0x20200])


def test_a_stopped_bus_master_cannot_go_on():
    m = machine(0)
    m.descriptors(0x1000, (0x20000, 0x200))
    m.address(2, 1, "lba28")
    m.put(COMMAND, 0xC8)
    m.port_out(m.master(MASTER_COMMAND), 9)
    m.port_out(m.master(MASTER_COMMAND), 8)
    assert m.port_in(m.master(MASTER_STATUS)) == 0
    assert m.wait() == 0 and m.alternate & BSY
    m.port_out(m.master(MASTER_COMMAND), 9)
    assert m.wait() == 0 and m.alternate & BSY


def test_the_direction_is_read_only_while_active():
    m = machine(0)
    m.port_out(m.master(MASTER_COMMAND), 9)
    m.port_out(m.master(MASTER_COMMAND), 1)
    assert m.port_in(m.master(MASTER_COMMAND)) == 9
    m.port_out(m.master(MASTER_COMMAND), 0)
    m.port_out(m.master(MASTER_COMMAND), 0)
    assert m.port_in(m.master(MASTER_COMMAND)) == 0


def test_bus_master_registers_keep_what_they_may():
    m = machine(0)
    m.port_out(m.master(MASTER_TABLE), 0xFFFFFFFF, 4)
    assert m.port_in(m.master(MASTER_TABLE), 4) == 0xFFFFFFFC
    m.port_out(m.master(MASTER_STATUS), 0xFF)
    assert m.port_in(m.master(MASTER_STATUS)) == 0x60
    m.port_out(m.master(MASTER_COMMAND), 0xFE)
    assert m.port_in(m.master(MASTER_COMMAND)) == 8
    assert m.port_in(m.master(1)) == m.port_in(m.master(3)) == 0
    m.base = SECONDARY
    assert m.port_in(m.master(MASTER_TABLE), 4) == 0 and m.port_in(m.master(MASTER_STATUS)) == 0


def test_the_bus_masters_interrupt_bit_follows_the_edge():
    m = machine(0)
    m.put(COMMAND, 0xE7)
    m.wait()
    assert m.port_in(m.master(MASTER_STATUS)) == 4
    m.port_out(m.master(MASTER_STATUS), 4)
    assert m.line == 1 and m.port_in(m.master(MASTER_STATUS)) == 0
    m.put(CONTROL, 2)
    m.put(COMMAND, 0xE7)
    m.wait()
    assert m.port_in(m.master(MASTER_STATUS)) == 0


# -- anything ----------------------------------------------------------------------------------------------------------

PORTS = st.one_of(
    st.integers(0x1F0, 0x1F7), st.integers(0x170, 0x177), st.sampled_from([0x3F6, 0x376]), st.integers(0xC000, 0xC00F)
)
VALUES = st.one_of(st.integers(0, 255), st.sampled_from(sorted(SECTOR_COMMANDS)), st.integers(0, 0xFFFFFFFF))
LIMITS = {
    "phase": ide_state.N_PHASES - 1, "request": 0, "position": ide_state.BUFFER_BYTES, "block_end": ide_state.BUFFER_BYTES,
    "selected": 1, "line": 1, "held": ide_state.MOST_MULTIPLE, "dma_outcome": ide_state.N_DMA_OUTCOMES - 1,
}  # fmt: skip


@FEW
@given(st.lists(st.tuples(st.booleans(), PORTS, st.sampled_from([1, 2, 4]), VALUES, st.integers(0, 3)), max_size=60))
def test_any_sequence_of_accesses_is_harmless(accesses):
    m = IdeMachine({place: pattern(100, place) for place in (0, 2, 3)})
    m.memory[0x1000:0x1008] = b"\0\0\2\0\0\2\0\x80"
    for is_read, port, width, value, waits in accesses:
        if is_read:
            assert 0 <= m.port_in(port, width) < 1 << 8 * width
        else:
            m.port_out(port, value & (1 << 8 * width) - 1, width)
        for _ in range(waits):
            m.wait()
        assert len(m.memory) == 1 << 20
        for number in range(2):
            channel = m.board.ide.channels[number]
            for name, most in LIMITS.items():
                assert 0 <= channel[name] <= most
            drive = channel.drives[channel.selected]
            assert channel.phase == 0 or drive.present or channel.phase in (1, 2)


def test_no_field_hides_a_numpy_attribute():
    record_attributes = set(dir(np.recarray)) | set(dir(np.record))
    for dtype in (ide_state.IDE, ide_state.IDE_CHANNEL, ide_state.IDE_DRIVE):
        assert not record_attributes & set(dtype.names)
