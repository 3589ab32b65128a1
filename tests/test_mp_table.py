"""MP tables, read as an operating system reads them (MultiProcessor Specification 1.4, chapter 4)."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_starts import bzimage

from x86virt.api import make_setup, setup_of_start
from x86virt.guests import find_guest, open_guest
from x86virt.start.bios_area import EXTENDED_DATA_AREA
from x86virt.start.linux import parse_linux
from x86virt.start.mp_table import mp_tables
from x86virt.start.recognise import Opened

LENGTH = {0: 20, 1: 8, 2: 8, 3: 8, 4: 8}
SIGNATURE, FEATURES = 0xF43, 0xBFEBFBFF


def memory(processors: int = 1) -> bytes:
    octets = bytearray(1 << 20)
    for address, piece in mp_tables(SIGNATURE, FEATURES, processors):
        assert EXTENDED_DATA_AREA < address and address + len(piece) <= 0xA0000, "in the reserved kilobyte below 640 KB"
        octets[address : address + len(piece)] = piece
    return bytes(octets)


def find_pointer(octets: bytes) -> int:
    """The floating pointer: on a multiple of 16 in the first kilobyte of the extended BIOS data area (section 4)."""
    for at in range(EXTENDED_DATA_AREA, EXTENDED_DATA_AREA + 1024, 16):
        if octets[at : at + 4] == b"_MP_" and sum(octets[at : at + 16 * octets[at + 8]]) & 0xFF == 0:
            return at
    raise AssertionError("no floating pointer")


def entries(octets: bytes) -> list[bytes]:
    pointer = find_pointer(octets)
    table, length, revision, _, feature1, feature2 = struct.unpack_from("<IBBBBB", octets, pointer + 4)
    assert (length, revision, feature1) == (1, 4, 0), "a table of its own, not a default configuration"
    assert feature2 & 0x80 == 0, "virtual wire mode: there is no IMCR"
    assert octets[table : table + 4] == b"PCMP"
    size, spec, _ = struct.unpack_from("<HBB", octets, table + 4)
    assert sum(octets[table : table + size]) & 0xFF == 0 and spec == 4
    oem, product, oem_table, oem_size, count, apic, extended = struct.unpack_from("<8s12sIHHIH", octets, table + 8)
    assert len(oem) == 8 and oem.isascii() and product.isascii() and (oem_table, oem_size, extended) == (0, 0, 0)
    assert apic == 0xFEE00000
    found, at = [], table + 44
    for _ in range(count):
        found.append(octets[at : at + LENGTH[octets[at]]])
        at += LENGTH[octets[at]]
    assert at == table + size
    return found


def test_one_processor_one_io_apic_two_buses() -> None:
    found = entries(memory())
    kinds = [entry[0] for entry in found]
    assert kinds == sorted(kinds), "in ascending order of their types"
    (processor,) = (entry for entry in found if entry[0] == 0)
    _, number, version, flags, signature, features = struct.unpack_from("<BBBBII", processor)
    assert (number, version, flags, signature, features) == (0, 0x14, 3, SIGNATURE, FEATURES)
    buses = {entry[1]: entry[2:8] for entry in found if entry[0] == 1}
    assert sorted(buses.values()) == [b"ISA   ", b"PCI   "]
    (io_apic,) = (entry for entry in found if entry[0] == 2)
    _, number, version, flags, address = struct.unpack("<BBBBI", io_apic)
    assert (number, flags, address) == (1, 1, 0xFEC00000)


def test_every_interrupt_line_has_its_input() -> None:
    found = entries(memory())
    buses = {entry[2:5]: entry[1] for entry in found if entry[0] == 1}
    isa, pci = {}, {}
    for entry in found:
        if entry[0] != 3:
            continue
        _, kind, flags, bus, line, apic, pin = struct.unpack("<BBHBBBB", entry)
        assert (kind, flags, apic) == (0, 0, 1), "as the bus has it"
        (isa if bus == buses[b"ISA"] else pci)[line] = pin
    assert isa == {0: 2, **{line: line for line in range(1, 16) if line != 2}}
    assert all(line >> 2 < 32 and pin < 24 for line, pin in pci.items())
    local = [struct.unpack("<BBHBBBB", entry) for entry in found if entry[0] == 4]
    assert [(kind, apic, pin) for _, kind, _, _, _, apic, pin in local] == [(3, 0xFF, 0), (1, 0xFF, 1)], "ExtINT, NMI"


@given(st.integers(1, 8))
def test_more_processors_are_more_entries(processors: int) -> None:
    found = entries(memory(processors))
    rows = [struct.unpack_from("<BBBB", entry) for entry in found if entry[0] == 0]
    assert [row[1] for row in rows] == list(range(processors))
    assert [row[3] for row in rows] == [3] + [1] * (processors - 1), "one of them is the boot processor"
    numbers = [entry[1] for entry in found if entry[0] in (0, 2)]
    assert len(set(numbers)) == len(numbers), "no two APICs have one number"


def test_a_wrong_byte_is_found() -> None:
    octets = bytearray(memory())
    octets[find_pointer(bytes(octets)) + 20] ^= 1
    with pytest.raises(AssertionError):
        entries(bytes(octets))


def test_who_gets_an_apic() -> None:
    """Firmware and Linux on the bare machine, unless it is taken out; others only if they ask; those of a VMM alike."""
    linux, hello = Opened(parse_linux(bzimage(), "kernel")), Opened(find_guest("hello"))
    firmware = open_guest(None)
    for opened, strategy, wish, fitted in (
        (linux, "native", None, True), (firmware, "native", None, True), (hello, "native", None, False),
        (linux, "native", False, False), (hello, "native", True, True), (linux, "trap-and-emulate", True, True),
    ):  # fmt: skip
        setup = setup_of_start(make_setup(strategy), opened, 32 << 20, 0, wish)
        machine = setup.machine()
        assert bool(machine.processor.cpu.apic.present) is fitted
        if opened is firmware or strategy != "native":
            continue
        machine.load(opened.bootable)
        tables = machine.read_guest(EXTENDED_DATA_AREA, 0x400)
        assert (b"_MP_" in tables and b"PCMP" in tables) is fitted
        if fitted:
            apic = machine.processor.cpu.apic
            assert int(apic.spurious) & 0x100 and int(apic.local_vector[3]) == 0x700, "virtual wire mode, by LINT0"
