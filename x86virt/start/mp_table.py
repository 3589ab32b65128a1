"""MP tables: what an operating system reads about processors and interrupt lines where there is no ACPI.

Intel MultiProcessor Specification 1.4, chapter 4. For starts without a BIOS, which would write them itself. One processor for
now; each further one is an entry more.
"""

import struct
from collections.abc import Iterator

from .bios_area import EXTENDED_DATA_AREA

FLOATING_POINTER_AT = EXTENDED_DATA_AREA + 0x10
TABLE_AT = FLOATING_POINTER_AT + 0x10
REVISION = 4  # of the specification: 1.4
LOCAL_APIC_ADDRESS, IO_APIC_ADDRESS = 0xFEE00000, 0xFEC00000
LOCAL_APIC_VERSION, IO_APIC_VERSION = 0x14, 0x11
HEADER_BYTES = 44

PROCESSOR, BUS, IO_APIC, IO_INTERRUPT, LOCAL_INTERRUPT = range(5)
ENABLED, BOOT_PROCESSOR = 1 << 0, 1 << 1
INT, NMI, SMI, EXTINT = range(4)
CONFORMS = 0  # polarity and trigger mode are those of the bus
ALL_LOCAL_APICS = 0xFF
PCI_BUS, ISA_BUS = 0, 1
ISA_LINES = tuple(line for line in range(16) if line != 2)  # line 2 is the cascade of the PICs
TIMER_PIN = 2  # of the I/O APIC: where IRQ 0 arrives
PCI_INTERRUPTS = ((1, 0, 9),)  # device, pin (0: INTA), input of the I/O APIC: power management, whose line is IRQ 9


def mp_tables(signature: int, features: int, processors: int = 1) -> list[tuple[int, bytes]]:
    """The floating pointer and the configuration table with their addresses; `signature` and `features` are CPUID's."""
    table = configuration_table(signature, features, processors)
    pointer = struct.pack("<4sIBBBB4x", b"_MP_", TABLE_AT, 1, REVISION, 0, 0)
    return [(FLOATING_POINTER_AT, with_checksum(pointer, 10)), (TABLE_AT, table)]


def configuration_table(signature: int, features: int, processors: int) -> bytes:
    """The configuration table: its header (section 4.2) and entries (section 4.3)."""
    entries = [*_entries(signature, features, processors)]
    body = b"".join(entries)
    header = struct.pack(
        "<4sHBB8s12sIHHIHBx", b"PCMP", HEADER_BYTES + len(body), REVISION, 0, b"X86VIRT ", b"PC          ",
        0, 0, len(entries), LOCAL_APIC_ADDRESS, 0, 0,
    )  # fmt: skip
    return with_checksum(header + body, 7)


def _entries(signature: int, features: int, processors: int) -> Iterator[bytes]:
    """The entries in the order that the specification wants: by type, ascending."""
    io_apic = processors  # the first number behind those of the processors
    for number in range(processors):
        flags = ENABLED | (BOOT_PROCESSOR if number == 0 else 0)
        yield struct.pack("<BBBBII8x", PROCESSOR, number, LOCAL_APIC_VERSION, flags, signature, features)
    yield struct.pack("<BB6s", BUS, PCI_BUS, b"PCI   ")
    yield struct.pack("<BB6s", BUS, ISA_BUS, b"ISA   ")
    yield struct.pack("<BBBBI", IO_APIC, io_apic, IO_APIC_VERSION, ENABLED, IO_APIC_ADDRESS)
    for device, pin, line in PCI_INTERRUPTS:
        yield interrupt(IO_INTERRUPT, INT, PCI_BUS, device << 2 | pin, io_apic, line)
    for line in ISA_LINES:
        yield interrupt(IO_INTERRUPT, INT, ISA_BUS, line, io_apic, TIMER_PIN if line == 0 else line)
    yield interrupt(LOCAL_INTERRUPT, EXTINT, ISA_BUS, 0, ALL_LOCAL_APICS, 0)
    yield interrupt(LOCAL_INTERRUPT, NMI, ISA_BUS, 0, ALL_LOCAL_APICS, 1)


def interrupt(entry: int, kind: int, bus: int, line: int, apic: int, pin: int) -> bytes:
    """An interrupt assignment entry (sections 4.3.4 and 4.3.5)."""
    return struct.pack("<BBHBBBB", entry, kind, CONFORMS, bus, line, apic, pin)


def with_checksum(octets: bytes, place: int) -> bytes:
    """The bytes with the one at `place`, which was zero, such that all of them add up to zero."""
    return octets[:place] + bytes([-sum(octets) & 0xFF]) + octets[place + 1 :]
