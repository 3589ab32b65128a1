"""The physical map of a PC: PAM segments, the BIOS below 4 GB and below 1 MB, the expansion ROM of the VGA, warm reset.

The model below is written from the 82441FX data sheet: which of RAM, ROM or nothing answers a read at an address, and
where a write goes. Guest code then reads, writes and executes, in blocks and by single instructions.
"""

import random

import numpy as np
import pytest
from bare_machine import CODE, DATA, EAX, EBP, EBX, ECX, EDI, EDX, ES, HLT, TABLE, BareMachine
from descriptor_machine import descriptor
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.api import make_setup
from x86virt.core.entries import refresh_memory_map
from x86virt.core.layout import HALTED_FOREVER, NEVER, OK
from x86virt.processor import Processor
from x86virt.profile import load_profile
from x86virt.saved import SavedError, machine_bytes, machine_of

BIOS_BYTES, VGA_BYTES, VGA_AT = 256 << 10, 40 << 10, 0xFEB00000
RANDOM = random.Random(441)
BIOS = RANDOM.randbytes(BIOS_BYTES - 16) + b"\xea\x5b\xe0\x00\xf0" + bytes(11)
VGA = RANDOM.randbytes(VGA_BYTES)
SEGMENTS = [(0xC0000 + 0x4000 * n, 0x4000) for n in range(12)] + [(0xF0000, 0x10000)]
ALL_RAM = [3] * 13
RAM_PATTERN = np.frombuffer(RANDOM.randbytes(1 << 20), np.uint8)


class Model:
    """Which memory answers, by the data sheet, as (array, index)."""

    def __init__(self, attributes):
        self.attributes = attributes  # of the 13 segments in rising order: bit 0 reads, bit 1 writes go to RAM
        self.ram, self.bios = RAM_PATTERN.copy(), bytearray(BIOS)

    def segment(self, address):
        """The attributes of the segment of an address, None outside."""
        for (first, length), attributes in zip(SEGMENTS, self.attributes, strict=True):
            if first <= address < first + length:
                return attributes
        return None

    def read(self, address):
        """A byte."""
        attributes = self.segment(address)
        if address < 1 << 20 and (attributes is None or attributes & 1):
            return int(self.ram[address])
        if 0xE0000 <= address < 1 << 20:
            return self.bios[len(BIOS) - (1 << 20) + address]
        if address >= (1 << 32) - len(BIOS):
            return self.bios[address - (1 << 32) + len(BIOS)]
        if VGA_AT <= address < VGA_AT + len(VGA):
            return VGA[address - VGA_AT]
        return 0xFF

    def write(self, address, octets):
        """Bytes, one by one."""
        for place, octet in enumerate(octets, address):
            attributes = self.segment(place)
            if place < 1 << 20 and (attributes is None or attributes & 2):
                self.ram[place] = octet

    def number(self, address, n=4):
        """A little-endian number."""
        return int.from_bytes(bytes(self.read((address + place) % (1 << 32)) for place in range(n)), "little")


def pam_registers(attributes):
    """PAM registers 59 to 5F as one number: 59 has F0000 in bits 5:4; 5A on two segments each."""
    octets = [attributes[12] << 4]
    octets += [attributes[n] | attributes[n + 1] << 4 for n in range(0, 12, 2)]
    return int.from_bytes(bytes(octets), "little")


class PC(BareMachine):
    """A bare machine with firmware."""

    def __init__(self):
        self.processor = Processor(load_profile("p4_prescott"), 1 << 20)
        self.processor.install_firmware(BIOS, VGA)
        self.cpu, self.memory = self.processor.cpu, self.processor.memory
        self.gpr = self.processor.state["gpr"][0]
        self.power_on()

    def power_on(self):
        """Power on with the firmware in its place again."""
        super().power_on()
        self.processor.rom[:] = np.frombuffer(BIOS + VGA.ljust(64 << 10, b"\xff"), np.uint8)
        self.processor.discard_host_state()

    def map_as(self, attributes, vga_at=VGA_AT):
        """The PAM attributes of the 13 segments, and the BAR."""
        self.cpu.pam, self.cpu.vga_rom_address = pam_registers(attributes), vga_at
        refresh_memory_map(self.processor.state)

    def run(self, code, stepping, address=CODE):
        """Run code to its HLT; returns the ticks that it took."""
        self.write_code(code + HLT, address)
        began = int(self.cpu.ticks)
        self.cpu.retired_limit = int(self.cpu.retired) + 20000
        outcome = self.go(address, single=stepping)
        while stepping and outcome == OK:
            outcome = self.processor.run(single=True)
        assert self.stopped_at(outcome) == address + len(code)
        return int(self.cpu.ticks) - began


MACHINE = PC()


def le(value, n=4):
    """A little-endian number."""
    return (value & (1 << 8 * n) - 1).to_bytes(n, "little")


# MOV EAX,[EBX]  MOV [ESI],EAX  ADD [EBX],ECX  MOV EAX,[EBX]  MOV [ESI+4],EAX  MOV [EBX],DX  MOV EAX,[EBX]  MOV [ESI+8],EAX
PROBE = bytes.fromhex("8b03 8906 010b 8b03 894604 668913 8b03 894608")
PROBED = [0xBFFFC, *(first + offset for first, length in SEGMENTS for offset in (0, length - 4)), 0xC3FFE, 0xFFFFC]
PROBED += [0xFFFC0000, 0xFFFFFFF0, 0xFFFBFFFC, 0xFFFBFFFE, VGA_AT, VGA_AT + VGA_BYTES - 4, VGA_AT - 2, VGA_AT + (64 << 10)]
MATRIX = [[value] * 13 for value in range(4)]
MATRIX += [[first if n == place else second for n in range(13)]
           for place in range(13) for first, second in ((1, 2), (2, 3), (0, 3))]  # fmt: skip
MATRIX += [[RANDOM.randrange(4) for _ in range(13)] for _ in range(20)]


def probe_program(values):
    """Code that probes each address with values of its own, and puts what it reads at DATA."""
    code = b"\xbe" + le(DATA)
    for address, (addend, word) in zip(PROBED, values, strict=True):
        code += b"\xbb" + le(address) + b"\xb9" + le(addend) + b"\xba" + le(word) + PROBE + b"\x83\xc6\x0c"
    return code


def fill_ram(machine, model):
    """The model's RAM in the machine, but where its own tables and code are, which the model learns."""
    machine.memory[0xB0000 : 1 << 20] = RAM_PATTERN[0xB0000:]
    model.ram[: 0xB0000] = machine.memory[: 0xB0000]


@pytest.mark.parametrize("attributes", MATRIX, ids=lambda row: "".join(map(str, row)))
def test_reads_writes_and_updates_by_the_pam_matrix(attributes):
    """Each segment in each of its four states beside others: loads, stores and read-modify-writes, page crossing too."""
    values = [(RANDOM.getrandbits(32), RANDOM.getrandbits(16)) for _ in PROBED]
    ticks = []
    for stepping in (False, True):
        MACHINE.power_on()
        model = Model(attributes)
        fill_ram(MACHINE, model)
        MACHINE.map_as(attributes)
        ticks.append(MACHINE.run(probe_program(values), stepping, CODE - 0xC000))
        for number, (address, (addend, word)) in enumerate(zip(PROBED, values, strict=True)):
            seen = [model.number(address)]
            model.write(address, le(seen[0] + addend))
            seen.append(model.number(address))
            model.write(address, le(word, 2))
            seen.append(model.number(address))
            assert [MACHINE.get(DATA + 12 * number + 4 * place) for place in range(3)] == seen, hex(address)
        assert (MACHINE.memory[0xB0000 : 1 << 20] == model.ram[0xB0000:]).all()
        assert MACHINE.processor.rom.tobytes()[:BIOS_BYTES] == BIOS
    assert ticks[0] == ticks[1]


@pytest.mark.parametrize("stepping", (False, True))
def test_string_moves_and_x87_over_the_map(stepping):
    """REP MOVSD from ROM to RAM behind it and over a boundary into read-only RAM; FLD and FSTP of ten bytes."""
    attributes = [3, 1, 0, 2] + [3] * 8 + [2]
    MACHINE.power_on()
    model = Model(attributes)
    fill_ram(MACHINE, model)
    MACHINE.map_as(attributes)
    number = bytes.fromhex("00000000000000c0ff3f")  # 1.5
    rom_place = BIOS_BYTES - (1 << 20) + 0xF2FFB
    model.bios[rom_place : rom_place + 10] = number
    MACHINE.processor.rom[:BIOS_BYTES] = np.frombuffer(model.bios, np.uint8)

    def move(source, target, count):
        for place in range(0, 4 * count, 4):
            model.write(target + place, le(model.number(source + place)))
        return b"\xbe" + le(source) + b"\xbf" + le(target) + b"\xb9" + le(count) + b"\xfc\xf3\xa5"

    code = move(0xF1000, 0xF1000, 0x1000)  # from the ROM to the RAM behind it
    code += move(0xFFFC0000, 0xC3000, 0x800)  # into a segment that takes writes, and on into one that does not
    code += move(VGA_AT + VGA_BYTES - 64, 0xCF000, 32)  # the end of the image, and what the window has behind it
    code += b"\xdb\x2d" + le(0xF2FFB) + b"\xdb\x3d" + le(DATA)  # FLD and FSTP of a ten-byte real, across a page of ROM
    code += b"\xdb\x2d" + le(0xF2FFB) + b"\xdd\x1d" + le(0xC3FFC)  # eight bytes, the second half of them lost
    model.write(0xC3FFC, bytes.fromhex("000000000000f83f"))
    MACHINE.run(b"\xdb\xe3" + code, stepping)
    assert MACHINE.memory[DATA : DATA + 10].tobytes() == number
    assert (MACHINE.memory[0xB0000 : 1 << 20] == model.ram[0xB0000:]).all()


@pytest.mark.parametrize("stepping", (False, True))
def test_reset_vector_and_shadow(stepping):
    """From FFFFFFF0 through the far jump into the BIOS at F000:E05B, where real-mode code runs in ROM."""
    MACHINE.power_on()
    place = BIOS_BYTES - 0x10000 + 0xE05B
    code = bytes.fromhex("b83412 8cca 8eda 8b0e10e0 f4")  # MOV AX,1234h; MOV DX,CS; MOV DS,DX; MOV CX,[E010h]; HLT
    MACHINE.processor.rom[place : place + len(code)] = np.frombuffer(code, np.uint8)
    MACHINE.processor.reset_real()
    MACHINE.cpu.hook_first, MACHINE.cpu.hook_last = 1, 0
    outcome = MACHINE.processor.run(single=stepping)
    while stepping and outcome == OK:
        outcome = MACHINE.processor.run(single=True)
    assert outcome == HALTED_FOREVER
    assert (MACHINE.cpu.rip, MACHINE.gpr[EAX] & 0xFFFF, MACHINE.gpr[EDX]) == (0xE05B + len(code), 0x1234, 0xF000)
    assert MACHINE.gpr[ECX] & 0xFFFF == int.from_bytes(BIOS[-0x1FF0:-0x1FEE], "little")


@pytest.mark.parametrize("linear", (0xF8000, 0xE4000, 0xC8010, 0xFFFF8000, VGA_AT + 0x100))
def test_code_in_every_region(linear):
    """A routine runs where the map shows it: in RAM in front of ROM, and in the two windows of ROM."""
    MACHINE.power_on()
    routine = b"\xb8\x78\x56\x34\x12\xc3"
    if linear >= 1 << 20:
        rom_place = linear - (1 << 32) + BIOS_BYTES if linear > VGA_AT + 0x10000 else BIOS_BYTES + linear - VGA_AT
        MACHINE.processor.rom[rom_place : rom_place + 6] = np.frombuffer(routine, np.uint8)
    else:
        MACHINE.memory[linear : linear + 6] = np.frombuffer(routine, np.uint8)
    MACHINE.map_as(ALL_RAM)
    for stepping in (False, True, False):
        MACHINE.gpr[EAX] = 0
        MACHINE.run(b"\xb9" + le(linear) + b"\xff\xd1", stepping)
        assert MACHINE.gpr[EAX] == 0x12345678


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("pam"), st.integers(0, 3)),
        st.tuples(st.just("store"), st.integers(0, 255)),
        st.tuples(st.just("call"), st.booleans()),
    ),
    min_size=4, max_size=30,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(OPERATIONS)
def test_shadowed_code_is_never_stale(operations):
    """A routine at F8000 exists in ROM and in RAM; stores and PAM changes in any order; each call executes what is seen."""
    MACHINE.power_on()
    at, attributes = 0xF8000, [*[3] * 12, 0]
    seen = {"rom": 0x11, "ram": 0x22}
    for value, array, place in ((0x11, MACHINE.processor.rom, BIOS_BYTES - 0x8000), (0x22, MACHINE.memory, at)):
        array[place : place + 3] = np.frombuffer(bytes([0xB0, value, 0xC3]), np.uint8)  # MOV AL,value; RET
    MACHINE.map_as(attributes)
    for name, value in operations:
        if name == "pam":
            attributes[12] = value
            MACHINE.map_as(attributes)
        elif name == "store":
            MACHINE.run(b"\xc6\x05" + le(at + 1) + bytes([value]), False)
            if attributes[12] & 2:
                seen["ram"] = value
        else:
            MACHINE.run(b"\xb9" + le(at) + b"\xff\xd1", value)
            assert MACHINE.gpr[EAX] & 0xFF == seen["ram" if attributes[12] & 1 else "rom"]


def test_a_store_into_code_that_runs_in_shadow_ram():
    """The instruction behind a store is fetched anew in shadow RAM, and stays what it was in ROM and read-only RAM."""
    at = 0xF8000
    store = b"\xc6\x05" + le(at + 7) + b"\x42" + b"\x41" + b"\xc3"  # MOV byte [at + 7], 42h; INC ECX, which becomes INC EDX; RET
    for attributes, changed in ((3, True), (1, False), (0, False)):
        for stepping in (False, True):
            MACHINE.power_on()
            MACHINE.memory[at : at + 9] = np.frombuffer(store, np.uint8)
            MACHINE.processor.rom[BIOS_BYTES - 0x8000 : BIOS_BYTES - 0x8000 + 9] = np.frombuffer(store, np.uint8)
            MACHINE.map_as([3] * 12 + [attributes])
            MACHINE.run(b"\x31\xc9\x31\xd2\xbb" + le(at) + b"\xff\xd3", stepping)
            assert (MACHINE.gpr[ECX], MACHINE.gpr[EDX]) == ((0, 1) if changed else (1, 0))


@pytest.mark.parametrize("attributes", (0, 1, 2, 3))
def test_page_tables_and_descriptors_in_rom(attributes):
    """A page table and a GDT in the BIOS are read where the map shows them; marks that no RAM takes are lost."""
    MACHINE.power_on()
    table = MACHINE.memory[TABLE : TABLE + 4096].copy()
    descriptors = b"".join(le(row, 8) for row in (0, descriptor(0x1000, 0xFFF, 3)))
    for array, base in ((MACHINE.processor.rom, BIOS_BYTES - 0x100000), (MACHINE.memory, 0)):
        array[base + 0xF0000 : base + 0xF1000] = table
        array[base + 0xF1000 : base + 0xF1010] = np.frombuffer(descriptors, np.uint8)
    MACHINE.memory[0xF100C] = 0x77  # the RAM's descriptor has another base
    MACHINE.put(0x40000, 0xF0000 | 7)
    MACHINE.map_as([3] * 12 + [attributes])
    MACHINE.paging()
    MACHINE.cpu.gdtr_base, MACHINE.cpu.gdtr_limit = 0xF1000, 0xF
    MACHINE.run(b"\xb8\x08\x00\x00\x00\x8e\xc0" + b"\xa1" + le(DATA), False)
    assert MACHINE.cpu.seg[ES].seg_base == (0x771000 if attributes & 1 else 0x1000)
    marked = MACHINE.memory[0xF0000 + 4 * (DATA >> 12)] & 0x20
    assert bool(marked) == bool(attributes & 2)
    assert MACHINE.processor.rom[BIOS_BYTES - 0x10000 + 4 * (DATA >> 12)] & 0x20 == 0


def test_python_reads_and_writes_follow_the_map():
    """What devices and tools read and write of memory (DMA) obeys PAM; ROM is read, not written."""
    attributes = [3, 2, 1, 0] * 3 + [2]
    MACHINE.power_on()
    model = Model(attributes)
    fill_ram(MACHINE, model)
    MACHINE.map_as(attributes)
    processor = MACHINE.processor
    octets = RANDOM.randbytes(0x60000)
    model.write(0xB0000, octets[:0x50000])
    processor.write_physical(0xB0000, octets[:0x50000])
    processor.write_physical(0xFFFFFF00, bytes(0x100))
    assert (MACHINE.memory[0xB0000 : 1 << 20] == model.ram[0xB0000:]).all()
    assert processor.read_physical(0xF0000, 0x10000) == BIOS[-0x10000:]
    assert processor.read_physical((1 << 32) - BIOS_BYTES, BIOS_BYTES) == BIOS
    assert processor.read_physical(VGA_AT, VGA_BYTES) == VGA
    assert processor.read_physical(0xC0000, 0x10000) == model.ram[0xC0000:0xC4000].tobytes()  # up to the first empty byte
    assert processor.read_physical(0xD0000, 4) == model.ram[0xD0000:0xD0004].tobytes()
    assert processor.read_physical(0x100000, 4) == b""


def test_machines_without_firmware_have_ram_everywhere():
    """No ROM, no BIOS window, all segments RAM: as before there was a map."""
    machine = BareMachine()
    assert (machine.cpu.holes, machine.cpu.pam_read, machine.cpu.pam_write) == (0, 0xFFFF, 0xFFFF)
    machine.put(0xF0000, 0x12345678)
    machine.write_code(b"\xa1" + le(0xF0000) + b"\x8b\x1d" + le(0xFFFFFFF0) + HLT)
    assert machine.stopped_at(machine.go()) == CODE + 11
    assert (machine.gpr[EAX], machine.gpr[EBX]) == (0x12345678, 0xFFFFFFFF)


@pytest.mark.parametrize("bios, vga", ((b"", b""), (bytes(1000), b""), (bytes(17 << 20), b""), (bytes(1 << 16), bytes(65537))))
def test_firmware_of_wrong_sizes(bios, vga):
    """One clear line."""
    with pytest.raises(ValueError, match="at most"):
        BareMachine().processor.install_firmware(bios, vga)


@pytest.mark.parametrize("kilobytes", (64, 128, 192, 1024))
def test_bios_images_of_all_sizes(kilobytes):
    """The image ends at 4 GB and at 1 MB, where at most its last 128 KB are seen."""
    processor = Processor(load_profile("p4_prescott"), 1 << 20)
    image = random.Random(kilobytes).randbytes(kilobytes << 10)
    processor.install_firmware(image)
    assert processor.read_physical((1 << 32) - len(image), len(image)) == image
    seen = image[-0x20000:]
    assert processor.read_physical((1 << 20) - len(seen), len(seen)) == seen
    if len(seen) < 0x20000:
        assert processor.read_physical(0xE0000, 16) == b""


def test_system_reset_keeps_ram_and_time():
    """Everything of processor and devices is as after power on; RAM, ticks, ledger and limits go on."""
    MACHINE.power_on()
    cpu = MACHINE.cpu
    MACHINE.put(DATA, 0xCAFE)
    MACHINE.map_as(ALL_RAM)
    MACHINE.run(b"\x0f\x01\xe0\xb9\x10\x00\x00\x00\xe2\xfe", False)
    ledger = MACHINE.processor.ledger().ticks.sum()
    cpu.budget, ticks, retired = 1 << 40, int(cpu.ticks), int(cpu.retired)
    MACHINE.processor.system_reset()
    assert MACHINE.get(DATA) == 0xCAFE
    assert (cpu.ticks, cpu.retired, cpu.budget) == (ticks, retired, 1 << 40)
    assert MACHINE.processor.ledger().ticks.sum() == ledger
    fresh = PC()
    fresh.processor.reset_real()
    same = ["gpr", "rip", "eflags", "cr0", "cr2", "cr3", "cr4", "seg", "gdtr_limit", "idtr_limit", "dr", "pam", "holes", "efer"]
    for name in same:
        assert MACHINE.processor.state[name].tobytes() == fresh.processor.state[name].tobytes(), name
    assert (cpu.ticks >> 6) + cpu.tsc_offset == 0
    cpu.budget = NEVER


def configure(register, value, n, function=0):
    """Code that writes a byte, word or doubleword of a PCI function's configuration space."""
    address = 0x80000000 | function << 8 | register & 0xFC
    out = {1: b"\xee", 2: b"\x66\xef", 4: b"\xef"}[n]
    code = b"\xba\xf8\x0c\x00\x00\xb8" + le(address) + b"\xef"
    return code + b"\xba" + le(0xCFC | register & 3) + b"\xb8" + le(value) + out


@pytest.mark.parametrize("stepping", (False, True))
def test_the_guest_changes_the_map_by_pci_configuration(stepping):
    """What firmware does: ROM is copied to the RAM behind it, reads are turned to RAM, and the VGA's ROM gets an address."""
    MACHINE.power_on()
    assert MACHINE.cpu.pam == 0
    code = configure(0x59, 0x20, 1)  # F0000: writes to RAM
    code += b"\xbe" + le(0xF0000) + b"\xbf" + le(0xF0000) + b"\xb9" + le(0x4000) + b"\xfc\xf3\xa5"
    code += b"\xc7\x05" + le(0xF1234) + le(0x11223344) + b"\x8b\x1d" + le(0xF1234)
    code += configure(0x59, 0x30, 1) + b"\x8b\x2d" + le(0xF1234)
    code += configure(0x58, 0x33333000, 4) + configure(0x5C, 0x33333333, 4)
    code += configure(0x30, 0xFEB00001, 4, 2 << 3) + configure(4, 2, 2, 2 << 3) + b"\x8b\x3d" + le(0xFEB00000)
    MACHINE.run(code, stepping)
    shown = int.from_bytes(BIOS[0x1234 - 0x10000 : 0x1238 - 0x10000], "little")
    assert (MACHINE.gpr[EBX], MACHINE.gpr[EBP]) == (shown, 0x11223344)
    assert MACHINE.gpr[EDI] == int.from_bytes(VGA[:4], "little")
    assert MACHINE.memory[0xF2000 : 1 << 20].tobytes() == BIOS[0x2000 - 0x10000 :]
    assert (MACHINE.cpu.pam, MACHINE.cpu.holes) == (pam_registers(ALL_RAM), 0)
    MACHINE.processor.system_reset()
    assert MACHINE.processor.read_physical(0xF1234, 4) == le(shown)
    assert MACHINE.cpu.pam == MACHINE.processor.board.pci.pam == 0


def test_a_saved_machine_keeps_its_map():
    """ROM, PAM and the window of the VGA's ROM are in the file; a file that says otherwise of its sizes is refused."""
    machine = make_setup("native", memory_bytes=1 << 20).machine()
    machine.processor.install_firmware(BIOS, VGA)
    machine.processor.reset_real()
    machine.processor.cpu.pam, machine.processor.cpu.vga_rom_address = pam_registers([3, 2, 1, 0] * 3 + [1]), VGA_AT
    refresh_memory_map(machine.processor.state)
    machine.processor.write_physical(0xC0000, b"shadow")
    octets = machine_bytes(machine)
    again = machine_of(octets, "file").processor
    assert again.read_physical((1 << 32) - BIOS_BYTES, BIOS_BYTES) == BIOS
    assert again.read_physical(VGA_AT, VGA_BYTES) == VGA
    assert again.read_physical(0xC0000, 6) == b"shadow" and again.read_physical(0xCC000, 4) == b""
    assert (again.cpu.pam_read, again.cpu.pam_write) == (machine.processor.cpu.pam_read, machine.processor.cpu.pam_write)
    for field, value in (("pam", 1 << 56), ("vga_rom_address", -1), ("bios_bytes", 1 << 40)):
        machine.processor.cpu[field] = value
        with pytest.raises(SavedError):
            machine_of(machine_bytes(machine), "file")
