"""Every intercept of SVM leaves the guest exactly when it is set and never otherwise, with the information of the manual.

The order against exceptions is that of table 15-7: what ranks above an intercept comes instead of it. The models here are
written from AMD's manual (volume 2, sections 15.8 to 15.21).
"""

import itertools
import random

import pytest
from bare_machine import DATA, EAX, EBX, ECX, EDI, EDX, ESI
from svm_machine import (
    BITS_1,
    BITS_2,
    CLGI,
    EXIT_INVALID,
    EXIT_VMMCALL,
    FLAT,
    GUEST,
    GUEST_HANDLERS,
    INVLPGA,
    IOPM,
    MSRPM,
    SECOND_VMCB,
    SKINIT,
    STGI,
    SVME,
    VMCB,
    VMLOAD,
    VMMCALL,
    VMRUN,
    VMSAVE,
    SvmMachine,
)

ALL = 0xFFFFFFFF
MEMORY = DATA.to_bytes(4, "little")


@pytest.fixture(scope="module")
def machine() -> SvmMachine:
    """One machine for all tests."""
    return SvmMachine()


def set_registers(machine: SvmMachine, **values: int) -> None:
    """General registers of the guest that VMRUN does not load, and EAX."""
    for name, value in values.items():
        if name == "eax":
            machine.set("rax", value)
        else:
            machine.gpr[{"ebx": EBX, "ecx": ECX, "edx": EDX, "esi": ESI, "edi": EDI}[name]] = value


def ring_3(machine: SvmMachine, rflags: int = 2) -> None:
    """A guest at CPL 3 of flat protected mode; its handlers run in ring 0."""
    machine.set("cpl", 3)
    machine.set("rflags", rflags)
    machine.segment("cs", 0x1B, 0xCFB, FLAT, 0)
    for name in ("ss", "ds", "es"):
        machine.segment(name, 0x23, 0xCF3, FLAT, 0)


# -- instructions with one bit each: name of the bit, code, exit code, what is needed, privilege ----------------------

SIMPLE = [
    ("sidt", b"\x0f\x01\x0d" + MEMORY, 0x66, {}, "any"),
    ("sgdt", b"\x0f\x01\x05" + MEMORY, 0x67, {}, "any"),
    ("sldt", b"\x0f\x00\xc0", 0x68, {}, "any"),
    ("str", b"\x0f\x00\xc8", 0x69, {}, "any"),
    ("lidt", b"\x0f\x01\x1d" + MEMORY, 0x6A, {}, "ring 0"),
    ("lgdt", b"\x0f\x01\x15" + MEMORY, 0x6B, {}, "ring 0"),
    ("lldt", b"\x0f\x00\xd0", 0x6C, {}, "ring 0"),
    ("ltr", b"\x0f\x00\xd8", 0x6D, {"eax": 0x30}, "ring 0"),
    ("rdtsc", b"\x0f\x31", 0x6E, {}, "any"),
    ("rdpmc", b"\x0f\x33", 0x6F, {"ecx": 0}, "ring 0"),
    ("pushf", b"\x9c", 0x70, {}, "any"),
    ("popf", b"\x9d", 0x71, {}, "any"),
    ("cpuid", b"\x0f\xa2", 0x72, {}, "any"),
    ("rsm", b"\x0f\xaa", 0x73, {}, "first"),
    ("iret", b"\xcf", 0x74, {}, "any"),
    ("int_n", b"\xcd\x05", 0x75, {}, "any"),
    ("invd", b"\x0f\x08", 0x76, {}, "ring 0"),
    ("pause", b"\xf3\x90", 0x77, {}, "any"),
    ("hlt", b"\xf4", 0x78, {}, "ring 0"),
    ("invlpg", b"\x0f\x01\x38", 0x79, {"eax": 0x5000}, "ring 0"),
    ("invlpga", INVLPGA, 0x7A, {"eax": 0x5000, "ecx": 1}, "ring 0"),
    ("vmload", VMLOAD, 0x82, {"eax": SECOND_VMCB}, "ring 0"),
    ("vmsave", VMSAVE, 0x83, {"eax": SECOND_VMCB}, "ring 0"),
    ("stgi", STGI, 0x84, {}, "ring 0"),
    ("clgi", CLGI, 0x85, {}, "ring 0"),
    ("skinit", SKINIT, 0x86, {}, "ring 0"),
    ("icebp", b"\xf1", 0x88, {}, "any"),
    ("wbinvd", b"\x0f\x09", 0x89, {}, "ring 0"),
]
NOT_ALONE = {"hlt"}  # without its intercept nothing would end the run
IDS = [row[0] for row in SIMPLE]


@pytest.mark.parametrize("name, code, exit_code, registers, privilege", SIMPLE, ids=IDS)
def test_an_instruction_exits_if_its_bit_alone_is_set(
    machine: SvmMachine, name: str, code: bytes, exit_code: int, registers: dict[str, int], privilege: str
) -> None:
    """The exit code, RIP at the instruction, no information; nothing of the instruction was done or charged."""
    machine.prepare()
    machine.intercept(name)
    set_registers(machine, **registers)
    assert machine.run_guest(code) == exit_code
    assert (machine.field("rip"), machine.field("rsp")) == (GUEST, 0x38000)
    assert (machine.field("info_1"), machine.field("info_2"), machine.field("int_info")) == (0, 0, 0)


@pytest.mark.parametrize("name, code, exit_code, registers, privilege", SIMPLE, ids=IDS)
def test_an_instruction_does_not_exit_if_every_other_bit_is_set(
    machine: SvmMachine, name: str, code: bytes, exit_code: int, registers: dict[str, int], privilege: str
) -> None:
    """Some other exit ends the run: never this one."""
    if name in NOT_ALONE:
        return
    machine.prepare()
    for field in ("intercepts_1", "intercepts_2", "cr_read", "cr_write", "dr_read", "dr_write"):
        machine.set(field, ALL)
    machine.intercept(name, False)
    set_registers(machine, **registers)
    assert machine.run_guest(code + VMMCALL) == EXIT_VMMCALL
    reached = machine.handler_reached()
    faults = {"rsm": 6, "skinit": 6, "int_n": 5, "icebp": 1, "iret": None, "ltr": 13}
    if name in faults and faults[name] is not None:
        assert reached == faults[name]


@pytest.mark.parametrize("name, code, exit_code, registers, privilege", SIMPLE, ids=IDS)
def test_privilege_against_intercept(
    machine: SvmMachine, name: str, code: bytes, exit_code: int, registers: dict[str, int], privilege: str
) -> None:
    """At CPL 3 what only ring 0 may execute is #GP(0), which nothing intercepts here; what any ring may execute exits."""
    machine.prepare()
    machine.intercept(name)
    ring_3(machine)
    set_registers(machine, **registers)
    code_found = machine.run_guest(code)
    if privilege == "ring 0":
        assert (code_found, machine.handler_reached()) == (EXIT_VMMCALL, 13)
    else:
        assert (code_found, machine.field("rip")) == (exit_code, GUEST)


def test_exceptions_that_rank_above_an_intercept(machine: SvmMachine) -> None:
    """RDTSC under CR4.TSD, RDPMC of no counter, VMLOAD of no page, LLDT in real mode: the exception comes, not the exit."""
    cases = [
        ("rdtsc", b"\x0f\x31", {}, {"cr4": 4}, 3, 13),
        ("rdpmc", b"\x0f\x33", {"ecx": 4}, {}, 0, 13),
        ("rdpmc", b"\x0f\x33", {"ecx": 0}, {}, 3, 13),
        ("vmload", VMLOAD, {"eax": SECOND_VMCB + 4}, {}, 0, 13),
        ("vmsave", VMSAVE, {"eax": SECOND_VMCB + 8}, {}, 0, 13),
        ("vmrun", VMRUN, {"eax": SECOND_VMCB + 16}, {}, 0, 13),
    ]
    for name, code, registers, fields, ring, vector in cases:
        machine.prepare()
        machine.intercept(name)
        if ring == 3:
            ring_3(machine)
        for field, value in fields.items():
            machine.set(field, value)
        set_registers(machine, **registers)
        assert (machine.run_guest(code), machine.handler_reached()) == (EXIT_VMMCALL, vector), name


def test_intercepts_that_rank_above_exceptions(machine: SvmMachine) -> None:
    """In virtual-8086 mode with IOPL 0, PUSHF, POPF, IRET and INT n exit before their #GP(0)."""
    for name, code in (("pushf", b"\x9c"), ("popf", b"\x9d"), ("iret", b"\xcf"), ("int_n", b"\xcd\x21")):
        for on in (True, False):
            machine.prepare()
            machine.intercept(name, on)
            machine.set("rflags", 2 | 1 << 17)
            machine.segment("cs", GUEST >> 4, 0x0F3, 0xFFFF, GUEST)
            machine.segment("ss", 0x3000, 0x0F3, 0xFFFF, 0x30000)
            machine.set("rip", 0)
            machine.set("rsp", 0x1000)
            found = machine.run_guest(code)
            if on:
                assert found == 0x60 + BITS_1[name].bit_length() - 1
            else:
                assert (found, machine.handler_reached()) == (EXIT_VMMCALL, 13)


def test_memory_operands_are_not_read_before_an_intercept(machine: SvmMachine) -> None:
    """A limit violation of LGDT's, SGDT's or LMSW's operand comes after the intercept."""
    for name, code in (("lgdt", b"\x0f\x01\x15"), ("sgdt", b"\x0f\x01\x05"), ("lldt", b"\x0f\x00\x15"), ("str", b"\x0f\x00\x0d")):
        for on in (True, False):
            machine.prepare()
            machine.intercept(name, on)
            machine.segment("ds", 0x10, 0xC93, 0xFFF, 0)
            found = machine.run_guest(code + MEMORY)
            if on:
                assert found == 0x60 + BITS_1[name].bit_length() - 1
            else:
                assert (found, machine.handler_reached()) == (EXIT_VMMCALL, 13)


def test_vmmcall_and_vmrun(machine: SvmMachine) -> None:
    """VMMCALL exits in any ring, and is #UD where nobody intercepts it; VMRUN always exits."""
    machine.prepare()
    ring_3(machine)
    assert (machine.run_guest(VMMCALL), machine.field("rip")) == (EXIT_VMMCALL, GUEST)
    machine.prepare()
    machine.intercept("vmmcall", False)
    machine.set("exceptions", 1 << 6)
    assert machine.run_guest(VMMCALL) == 0x46
    machine.prepare()
    machine.set("rax", SECOND_VMCB)
    assert machine.run_guest(VMRUN) == 0x80


# -- control and debug registers --------------------------------------------------------------------------------------

TS, MP, WP, AM = 8, 2, 1 << 16, 1 << 18


@pytest.mark.parametrize("number", (0, 2, 3, 4))
@pytest.mark.parametrize("write", (False, True))
def test_control_registers(machine: SvmMachine, number: int, write: bool) -> None:
    """MOV from and to CR0, CR2, CR3 and CR4, each by its own bit; never by another's."""
    code = bytes((0x0F, 0x22 if write else 0x20, 0xC0 | number << 3))
    for bits in (1 << number, 0xFFFF & ~(1 << number)):
        machine.prepare()
        machine.set("cr_write" if write else "cr_read", bits)
        machine.set("cr_read" if write else "cr_write", ALL)
        machine.set("rax", 0x11 if number == 0 else 0)
        found = machine.run_guest(code + VMMCALL)
        assert found == ((0x10 if write else 0) + number if bits == 1 << number else EXIT_VMMCALL)
        assert machine.field("rip") == GUEST + (0 if found != EXIT_VMMCALL else 3)


def test_values_that_fault_come_before_the_intercept(machine: SvmMachine) -> None:
    """Illegal combinations of CR0 and reserved bits of CR4 are #GP(0)."""
    for number, value in ((0, 1 << 31), (0, 1 << 29 | 1), (4, 1 << 11)):
        machine.prepare()
        machine.set("cr_write", ALL)
        machine.intercept("cr0_selective")
        machine.set("rax", value)
        found = machine.run_guest(bytes((0x0F, 0x22, 0xC0 | number << 3)))
        assert (found, machine.handler_reached()) == (EXIT_VMMCALL, 13), f"CR{number} {value:x}"


@pytest.mark.parametrize("plain", (False, True))
@pytest.mark.parametrize("selective", (False, True))
def test_writes_of_cr0(machine: SvmMachine, plain: bool, selective: bool) -> None:
    """MOV CR0 by what it changes, LMSW whatever it changes, CLTS by the plain intercept alone; the plain one comes first."""
    for old, value, kind in itertools.product((0x11, 0x19), (0x11, 0x19, 0x13, 0x11 | WP, 0x1B | AM), ("mov", "lmsw", "clts")):
        machine.prepare()
        machine.set("cr0", old)
        machine.set("cr_write", 1 if plain else 0)
        machine.intercept("cr0_selective", selective)
        machine.set("rax", value)
        code = {"mov": b"\x0f\x22\xc0", "lmsw": b"\x0f\x01\xf0", "clts": b"\x0f\x06"}[kind]
        changes = kind == "lmsw" or (kind == "mov" and (old ^ value) & ~(TS | MP) != 0)
        expected = 0x10 if plain else 0x65 if selective and changes else EXIT_VMMCALL
        assert machine.run_guest(code + VMMCALL) == expected, f"{kind} {old:x} {value:x}"


def test_smsw_reads_cr0(machine: SvmMachine) -> None:
    """By the intercept of reads of CR0."""
    for bits, expected in ((1, 0), (0xFFFE, EXIT_VMMCALL)):
        machine.prepare()
        machine.set("cr_read", bits)
        assert machine.run_guest(b"\x0f\x01\xe0" + VMMCALL) == expected


@pytest.mark.parametrize("write", (False, True))
def test_debug_registers(machine: SvmMachine, write: bool) -> None:
    """Each by its own bit, behind #GP at CPL 3, #UD of DR4 and DR5 under CR4.DE, and #DB under DR7.GD."""
    for number, on, extra in itertools.product(range(8), (True, False), ("", "ring 3", "de", "gd")):
        machine.prepare()
        machine.set("dr_write" if write else "dr_read", 1 << number if on else 0xFF & ~(1 << number))
        machine.set("dr_read" if write else "dr_write", ALL)
        if extra == "ring 3":
            ring_3(machine)
        if extra == "de":
            machine.set("cr4", 8)
        if extra == "gd":
            machine.set("dr7", 0x2400)
        found = machine.run_guest(bytes((0x0F, 0x23 if write else 0x21, 0xC0 | number << 3)) + VMMCALL)
        vector = {"ring 3": 13, "gd": 1, "de": 6 if number in (4, 5) else None, "": None}[extra]
        facts = f"DR{number} {on} {extra}: {found:x}"
        if vector is not None:
            assert (found, machine.handler_reached()) == (EXIT_VMMCALL, vector), facts
        elif on:
            assert (found, machine.field("rip")) == ((0x30 if write else 0x20) + number, GUEST), facts
        else:
            assert (found, machine.field("rip")) == (EXIT_VMMCALL, GUEST + 3), facts


# -- ports ------------------------------------------------------------------------------------------------------------


def io_information(port: int, size: int, inward: bool, string: bool, repeated: bool, address: int) -> int:
    """EXITINFO1 by figure 15-2."""
    return port << 16 | {16: 1 << 7, 32: 1 << 8}[address] | size << 4 | repeated << 3 | string << 2 | inward


@pytest.mark.parametrize("string", (False, True))
@pytest.mark.parametrize("inward", (False, True))
def test_information_of_ports(machine: SvmMachine, string: bool, inward: bool) -> None:
    """Every size, with and without REP, both address sizes, immediate and DX; EXITINFO2 is the next instruction."""
    for size, repeated, address, immediate in itertools.product((1, 2, 4), (False, True), (16, 32), (False, True)):
        if (string and immediate) or (not string and repeated):
            continue
        port = 0x83 if immediate else 0x3F5
        opcode = {(False, True): 0xEC, (False, False): 0xEE, (True, True): 0x6C, (True, False): 0x6E}[string, inward]
        opcode = (opcode - 8 if immediate else opcode) + (size > 1)
        prefixes = (b"\xf3" if repeated else b"") + (b"\x66" if size == 2 else b"") + (b"\x67" if address == 16 else b"")
        code = prefixes + bytes((opcode,)) + (bytes((port,)) if immediate else b"")
        machine.prepare()
        machine.intercept("io")
        machine.memory[IOPM : IOPM + 0x3000] = 0xFF
        set_registers(machine, edx=port, ecx=3, esi=0x8000, edi=0x8000)
        assert machine.run_guest(code) == 0x7B, code.hex()
        assert machine.field("info_1") == io_information(port, size, inward, string, repeated, address), code.hex()
        assert (machine.field("info_2"), machine.field("rip")) == (GUEST + len(code), GUEST)
        assert int(machine.gpr[ECX]) == 3


def test_the_map_of_ports_has_a_bit_for_each(machine: SvmMachine) -> None:
    """An access exits if the bit of any of its ports is set, and only then."""
    source = random.Random(18)
    for _ in range(120):
        port, size = source.choice((0x80, 0x3F8, 0xFFFF, 0xFFFE, source.getrandbits(16))), source.choice((1, 2, 4))
        marked = port + source.randrange(-2, 6)
        if not 0 <= marked < 0x10003:
            continue
        machine.prepare()
        machine.intercept("io")
        inverse = source.random() < 0.3
        machine.memory[IOPM : IOPM + 0x3000] = 0
        machine.memory[IOPM + (marked >> 3)] = 1 << (marked & 7)
        set_registers(machine, edx=port)
        code = (b"\x66" if size == 2 else b"") + (b"\xec" if size == 1 else b"\xed")
        found = machine.run_guest(code + VMMCALL)
        assert found == (0x7B if port <= marked < port + size else EXIT_VMMCALL), f"{port:x} {size} {marked:x} {inverse}"


def test_permission_comes_before_the_map_of_ports(machine: SvmMachine) -> None:
    """IOPL and the TSS's bitmap first; a fault of the memory operand of INS only behind the intercept."""
    machine.prepare()
    machine.intercept("io")
    machine.memory[IOPM : IOPM + 0x3000] = 0xFF
    machine.put(0x3000 + 102, 0xFFFF, 2)
    ring_3(machine)
    assert (machine.run_guest(b"\xec"), machine.handler_reached()) == (EXIT_VMMCALL, 13)
    machine.prepare()
    machine.intercept("io")
    machine.memory[IOPM : IOPM + 0x3000] = 0xFF
    ring_3(machine, 0x3002)
    machine.segment("es", 0, 0, 0, 0)
    assert machine.run_guest(b"\x6c") == 0x7B
    machine.prepare()
    machine.intercept("io")
    machine.memory[IOPM : IOPM + 0x3000] = 0xFF
    set_registers(machine, ecx=0)
    assert machine.run_guest(b"\xf3\x6c" + VMMCALL) == EXIT_VMMCALL


# -- model-specific registers -----------------------------------------------------------------------------------------


def test_the_map_of_registers_has_two_bits_for_each(machine: SvmMachine) -> None:
    """Reads by the lower, writes by the upper bit; registers of no range always exit. EXITINFO1 tells them apart."""
    source = random.Random(19)
    firsts = (0, 0xC0000000, 0xC0010000)
    for _ in range(120):
        index = source.randrange(4)
        offset = source.choice((0, 0x1FFF, source.getrandbits(13)))
        number = source.getrandbits(32) | 0x2000 if index == 3 else firsts[index] + offset
        in_range = any(first <= number < first + 0x2000 for first in firsts)
        write = source.random() < 0.5
        machine.prepare()
        machine.intercept("msr")
        on = source.random() < 0.5
        machine.memory[MSRPM : MSRPM + 0x2000] = 0 if on else 0xFF
        if in_range:
            place = next(place for place, first in enumerate(firsts) if first <= number < first + 0x2000)
            bit = 0x800 * 8 * place + 2 * (number & 0x1FFF) + write
            machine.memory[MSRPM + bit // 8] ^= 1 << bit % 8
        set_registers(machine, ecx=number, edx=0, eax=0)
        machine.set("exceptions", 1 << 13)
        found = machine.run_guest((b"\x0f\x30" if write else b"\x0f\x32") + VMMCALL)
        if on or not in_range:
            assert (found, machine.field("info_1")) == (0x7C, int(write)), f"{number:x}"
        else:
            assert found in (EXIT_VMMCALL, 0x4D), f"{number:x}"


def test_privilege_comes_before_the_map_of_registers(machine: SvmMachine) -> None:
    """#GP(0) at CPL 3."""
    machine.prepare()
    machine.intercept("msr")
    machine.memory[MSRPM : MSRPM + 0x2000] = 0xFF
    ring_3(machine)
    assert (machine.run_guest(b"\x0f\x32"), machine.handler_reached()) == (EXIT_VMMCALL, 13)


# -- exceptions -------------------------------------------------------------------------------------------------------

RAISE = {  # vector: code, fields, EXITINFO1
    0: (b"\x31\xc9\xf7\xf1", {}, 0, 2),
    1: (b"\x0f\x21\xc0", {"dr7": 0x2400}, 0, 0),
    3: (b"\xcc", {}, 0, 0),
    4: (b"\xb0\x7f\x04\x01\xce", {}, 0, 4),
    5: (b"\x62\x05" + MEMORY, {"rax": 5}, 0, 0),
    6: (b"\x0f\x0b", {}, 0, 0),
    7: (b"\xd9\xc0", {"cr0": 0x1D}, 0, 0),
    10: (b"\xea\x00\x00\x00\x00\x30\x00", {}, 0, 0),
    11: (b"\xb8\x38\x00\x00\x00\x8e\xd8", {}, 0x38, 5),
    12: (b"\x58", {"ss_limit": 0xFFF}, 0, 0),
    13: (b"\xb8\x7b\x00\x00\x00\x8e\xd8", {}, 0x78, 5),
}


@pytest.mark.parametrize("vector", sorted(set(RAISE) - {10}))
def test_each_exception_by_its_own_bit(machine: SvmMachine, vector: int) -> None:
    """RIP at the instruction (INT3 and INTO too), the error code in EXITINFO1; with every other bit set it is delivered."""
    code, fields, error, offset = RAISE[vector]
    for bits in (1 << vector, ALL & ~(1 << vector)):
        machine.prepare()
        machine.put(0x1000 + 0x38, 0x00CF13000000FFFF, 8)  # a data segment that is not present
        machine.put(DATA, 0)
        machine.put(DATA + 4, 1)
        machine.set("exceptions", bits)
        for name, value in fields.items():
            machine.set(name, value)
        if "ss_limit" in fields:
            machine.segment("ss", 0x10, 0xC93, 0xFFF, 0)
        found = machine.run_guest(code)
        if bits == 1 << vector:
            assert (found, machine.field("info_1"), machine.field("int_info")) == (0x40 + vector, error, 0)
            assert machine.field("rip") == GUEST + offset
        elif vector == 12:
            assert found == 0x48  # the stack takes no frame either: a double fault
        else:
            assert (found, machine.handler_reached()) == (EXIT_VMMCALL, vector)


def test_a_page_fault_leaves_cr2_alone(machine: SvmMachine) -> None:
    """EXITINFO1 is the error code, EXITINFO2 the address; CR2 is written only by a delivery."""
    for intercepted in (True, False):
        machine.prepare()
        machine.set("cr0", 0x80000011)
        machine.set("cr3", 0x40000)
        machine.set("cr2", 0x1234)
        machine.put(0x41000 + 4 * 0x60, 0)
        machine.set("exceptions", 1 << 14 if intercepted else ALL & ~(1 << 14))
        found = machine.run_guest(b"\xa3\x10\x00\x06\x00")
        if intercepted:
            assert (found, machine.field("info_1"), machine.field("info_2")) == (0x4E, 2, 0x60010)
            assert (machine.field("cr2"), machine.field("rip")) == (0x1234, GUEST)
        else:
            assert (found, machine.handler_reached(), machine.field("cr2")) == (EXIT_VMMCALL, 14, 0x60010)


def test_debug_registers_of_an_intercepted_debug_exception(machine: SvmMachine) -> None:
    """DR6 and DR7 are as the exception's handler would see them; a trap leaves RIP behind its instruction."""
    machine.prepare()
    machine.set("exceptions", 2)
    machine.set("rflags", 0x102)
    assert machine.run_guest(b"\x90" + VMMCALL) == 0x41
    assert (machine.field("rip"), machine.field("dr6") & 0xE00F) == (GUEST + 1, 0x4000)
    machine.prepare()
    machine.set("exceptions", 2)
    machine.set("dr7", 0x2400)
    assert machine.run_guest(b"\x0f\x21\xc0") == 0x41
    assert (machine.field("rip"), machine.field("dr6") & 0xE00F, machine.field("dr7") & 0x2000) == (GUEST, 0x2000, 0)


def test_software_interrupts_are_no_exceptions(machine: SvmMachine) -> None:
    """INT n of an intercepted vector is delivered."""
    for vector in (3, 5, 13):
        machine.prepare()
        machine.set("exceptions", ALL)
        assert machine.run_guest(bytes((0xCD, vector))) == EXIT_VMMCALL
        assert machine.handler_reached() == vector


def test_an_event_whose_delivery_leads_to_an_exit_is_recorded(machine: SvmMachine) -> None:
    """EXITINTINFO: a software interrupt and an exception whose gates are not there."""
    cases = (
        (b"\xcd\x40", 1 << 13, 0x4D, 0x80000000 | 4 << 8 | 0x40, 0, 0x40 * 8 + 2),
        (b"\xcd\x05", 1 << 11, 0x4B, 0x80000000 | 4 << 8 | 5, 0, 5 * 8 + 2),
        (b"\x0f\x0b", 1 << 11, 0x4B, 0x80000000 | 3 << 8 | 6, 0, 6 * 8 + 3),
        (b"\x0f\x22\xe0", 1 << 8, 0x48, 0, 0, 0),
    )
    for code, bits, found, information, error, info_1 in cases:
        machine.prepare()
        machine.set("exceptions", bits | 1 << 8)
        machine.set("rax", 0xFFFFFFFF)
        for vector in (5, 6, 13):
            machine.put(0x5A000 + 8 * vector, 0x0001_0E00_0008_0000 | 0x9000, 8)  # not present
            machine.put(0x5A000 + 8 * vector + 4, 0x00010E00)
        assert machine.run_guest(code) == found, code.hex()
        assert (machine.field("int_info"), machine.field("int_error")) == (information, error), code.hex()
        assert (machine.field("info_1"), machine.field("rip")) == (info_1, GUEST), code.hex()


def test_shutdown(machine: SvmMachine) -> None:
    """A triple fault of the guest is an exit where that is intercepted, else it shuts the machine down."""
    machine.prepare()
    machine.intercept("shutdown")
    machine.set("idtr_limit", 0)
    assert machine.run_guest(b"\x0f\x0b") == 0x7F
    machine.prepare()
    machine.set("idtr_limit", 0)
    with pytest.raises(AssertionError, match="outcome 4"):
        machine.run_guest(b"\x0f\x0b")


# -- injected events --------------------------------------------------------------------------------------------------

WITH_ERROR = {8, 10, 11, 12, 13, 14, 17}


def test_injection(machine: SvmMachine) -> None:
    """Interrupts, NMI, exceptions and software interrupts reach their handlers, subject to no intercept."""
    for kind, vector in itertools.product((0, 2, 3, 4), (0, 3, 6, 13, 14, 31)):
        machine.prepare()
        machine.set("exceptions", ALL)
        machine.intercept("int_n")
        error = kind == 3 and vector in WITH_ERROR
        machine.set("inject", 1 << 31 | error << 11 | kind << 8 | vector)
        machine.set("inject_error", 0x1234 if error else 0)
        assert machine.run_guest() == EXIT_VMMCALL
        assert machine.handler_reached() == (2 if kind == 2 else vector)
        assert machine.field("rsp") == 0x38000 - (16 if error else 12)
        pushed = [machine.get(machine.field("rsp") + 4 * place) for place in range(4)]
        assert pushed[: 2 if error else 1] == ([0x1234, GUEST] if error else [GUEST])
        assert machine.field("inject") & 1 << 31 == 0


def test_an_injection_that_faults(machine: SvmMachine) -> None:
    """The exception of its delivery is intercepted as any other, and EXITINTINFO tells of the injected event."""
    machine.prepare()
    machine.set("exceptions", 1 << 13)
    machine.set("inject", 1 << 31 | 0x40)
    assert machine.run_guest() == 0x4D
    assert machine.field("int_info") == 0x80000040
    assert machine.field("info_1") == 0x40 * 8 + 3
    assert machine.field("rip") == GUEST


def test_vectors_3_and_4_look_at_the_gate(machine: SvmMachine) -> None:
    """As exceptions they are those of INT3 and INTO: a gate of ring 0 refuses them in ring 3."""
    for vector, refused in ((3, True), (4, True), (6, False)):
        machine.prepare()
        ring_3(machine)
        machine.put(0x5A000 + 8 * vector + 4, GUEST_HANDLERS & 0xFFFF0000 | 0x8E00)
        machine.set("inject", 1 << 31 | 3 << 8 | vector)
        assert machine.run_guest() == EXIT_VMMCALL
        assert machine.handler_reached() == (13 if refused else vector)


# -- interrupts -------------------------------------------------------------------------------------------------------


def test_virtual_interrupts(machine: SvmMachine) -> None:
    """Taken when IF is set, nothing is held off and the priority is above V_TPR or TPR is ignored; VINTR exits just before."""
    for enabled, shadow, priority, tpr, ignore, intercept in itertools.product(
        (False, True), (False, True), (0, 4, 15), (0, 4, 15), (False, True), (False, True)
    ):
        machine.prepare()
        machine.set("rflags", 0x202 if enabled else 2)
        machine.set("shadow", int(shadow))
        machine.set("v_irq", 1)
        machine.set("v_prio", priority | ignore << 4)
        machine.set("v_tpr", tpr)
        machine.set("v_vector", 0x11)
        machine.intercept("vintr", intercept)
        found = machine.run_guest(b"\x90" + VMMCALL)
        taken = enabled and (ignore or priority > tpr)
        place = GUEST + (1 if shadow else 0)
        facts = f"{enabled} {shadow} {priority} {tpr} {ignore} {intercept}: {found:x}"
        if not taken:
            assert (found, machine.field("rip"), machine.field("v_irq") & 1) == (EXIT_VMMCALL, GUEST + 1, 1), facts
        elif intercept:
            assert (found, machine.field("rip"), machine.field("v_irq") & 1) == (0x64, place, 1), facts
        else:
            assert (found, machine.handler_reached(), machine.field("v_irq") & 1) == (EXIT_VMMCALL, 0x11, 0), facts
            assert machine.get(machine.field("rsp")) == place, facts
        assert machine.field("v_tpr") == tpr


def test_a_virtual_interrupt_wakes_a_halted_guest(machine: SvmMachine) -> None:
    """And one that comes due by STI is taken behind its shadow."""
    machine.prepare()
    machine.set("v_irq", 1)
    machine.set("v_prio", 1)
    machine.set("v_vector", 0x12)
    assert machine.run_guest(b"\xfb\x90" + VMMCALL) == EXIT_VMMCALL
    assert (machine.handler_reached(), machine.get(machine.field("rsp"))) == (0x12, GUEST + 2)


def test_physical_interrupts(machine: SvmMachine) -> None:
    """By the guest's IF, or under V_INTR_MASKING the host's; INTR exits without acknowledging; before virtual ones."""
    for guest_if, host_if, masking, intercept, shadow in itertools.product((False, True), repeat=5):
        machine.prepare()
        machine.set("rflags", 0x202 if guest_if else 2)
        machine.cpu.eflags |= 0x200 if host_if else 0
        machine.set("v_masking", int(masking))
        machine.set("shadow", int(shadow))
        machine.intercept("intr", intercept)
        machine.set("v_irq", 1)
        machine.set("v_prio", 0)
        # CLGI first, so that the host does not take the interrupt itself.
        machine.cpu.svm.gif = 0
        machine.cpu.timer_pending, machine.cpu.timer_vector = 1, 0x13
        found = machine.run_guest(b"\x90" + VMMCALL)
        open_ = host_if if masking else guest_if
        facts = f"{guest_if} {host_if} {masking} {intercept} {shadow}: {found:x}"
        place = GUEST + (1 if shadow else 0)
        if not open_:
            assert (found, machine.field("rip")) == (EXIT_VMMCALL, GUEST + 1), facts
            assert int(machine.cpu.timer_pending) == 1
        elif intercept:
            assert (found, machine.field("rip"), int(machine.cpu.timer_pending)) == (0x60, place, 1), facts
        else:
            assert (found, machine.handler_reached(), int(machine.cpu.timer_pending)) == (EXIT_VMMCALL, 0x13, 0), facts
        machine.cpu.timer_pending = 0


def test_the_host_takes_nothing_while_gif_is_clear(machine: SvmMachine) -> None:
    """After #VMEXIT an interrupt waits for STGI, IF set or not."""
    machine.prepare()
    machine.cpu.hook_first, machine.cpu.hook_last = 0x4000, 0x4FFF
    machine.cpu.timer_pending, machine.cpu.timer_vector = 1, 0x14
    machine.cpu.eflags |= 0x200
    machine.cpu.svm.gif = 0
    machine.write_code(b"\x90\x90" + STGI + b"\x90\xf4", 0x1C100)
    machine.go(0x1C100)
    assert int(machine.cpu.rip) == 0x4000 + 16 * 0x14
    assert machine.get(int(machine.gpr[4])) == 0x1C100 + 2 + 3


# -- task switches ----------------------------------------------------------------------------------------------------


def test_task_switches(machine: SvmMachine) -> None:
    """By JMP, CALL and a task gate: EXITINFO1 the selector, EXITINFO2 what caused it, an error code, RF; nothing switched."""
    cases = (
        (b"\xea\x00\x00\x00\x00\x30\x00", 1 << 38, 0),
        (b"\x9a\x00\x00\x00\x00\x30\x00", 0, 0),
        (b"\xcd\x20", 0, 0),
        (b"\xb8\x7b\x00\x00\x00\x8e\xd8", 1 << 44 | 1 << 48 | 0x78, 5),
    )
    for code, information, offset in cases:
        for on in (True, False):
            machine.prepare()
            machine.intercept("task", on)
            machine.put(0x1000 + 0x30, 0x0000_8900_0000_0067 | 0x6000 << 16, 8)
            machine.set("gdtr_limit", 0x7F)
            machine.set("idtr_limit", 0x1FF)
            for vector in (13, 0x20):
                machine.put(0x5A000 + 8 * vector, 0x0000_E500_0030_0000, 8)
            machine.memory[0x6000:0x6068] = 0
            machine.put(0x6000 + 0x20, GUEST_HANDLERS)
            for place, value in ((0x24, 2), (0x38, 0x9000), (0x4C, 0x08), (0x50, 0x10), (0x48, 0x10), (0x54, 0x10)):
                machine.put(0x6000 + place, value)
            found = machine.run_guest(code)
            if on:
                assert (found, machine.field("info_1"), machine.field("info_2")) == (0x7D, 0x30, information), code.hex()
                assert machine.field("rip") == GUEST + offset
                assert int(machine.cpu.seg[7].selector) == 0x28
            else:
                assert found == EXIT_VMMCALL and int(machine.cpu.seg[7].selector) == 0x30, code.hex()


# -- floating-point errors --------------------------------------------------------------------------------------------


def test_a_frozen_floating_point_error(machine: SvmMachine) -> None:
    """With CR0.NE clear the processor freezes in front of a waiting instruction: an exit where that is intercepted."""
    machine.prepare()
    machine.intercept("ferr")
    machine.initialize_float()
    code = b"\xd9\xe8\xd9\xee\xd9\x2d" + MEMORY + b"\xde\xf9\x9b" + VMMCALL
    machine.put(DATA, 0x37B, 2)
    assert machine.run_guest(code) == 0x7E
    assert machine.field("rip") == GUEST + 12


# -- hostile contents -------------------------------------------------------------------------------------------------


def test_no_bytes_in_a_vmcb_do_harm(machine: SvmMachine) -> None:
    """Random pages, and legal ones with random bytes: the run ends in a named outcome, and the host's state holds."""
    source = random.Random(20)
    for turn in range(60):
        machine.prepare()
        if turn % 3 == 0:
            machine.memory[VMCB : VMCB + 0x1000] = list(source.randbytes(0x1000))
        for _ in range(source.randrange(1, 40)):
            offset = source.choice((source.randrange(0x100), 0x400 + source.randrange(0x280)))
            machine.memory[VMCB + offset] = source.getrandbits(8)
        if turn % 2 == 0:
            machine.set("intercepts_2", BITS_2["vmrun"] | BITS_2["vmmcall"])
            machine.set("efer", SVME)
            machine.set("asid", 5)
            machine.set("intercepts_1", 1 << 31 | 1 << 24)
        machine.set("nested", 0)
        machine.cpu.budget = 64 * 3000 + int(machine.cpu.ticks)
        machine.gpr[EAX] = VMCB
        outcome = machine.go(0x1C000)
        assert 0 <= outcome <= 16 and outcome != 1, outcome
        assert 0 <= int(machine.cpu.cpl) <= 3 and 0 <= int(machine.cpu.rip) <= 0xFFFFFFFF
        machine.unlimited()


def test_no_bytes_in_the_host_state_do_harm(machine: SvmMachine) -> None:
    """A guest that reaches the page of the host's state: the host goes on with it, or the machine shuts down."""
    source = random.Random(21)
    for _ in range(30):
        machine.prepare()
        machine.write_code(b"\xf3\xa4" + VMMCALL, GUEST)
        machine.memory[0x20000:0x20080] = list(source.randbytes(0x80))
        set_registers(machine, esi=0x20000, edi=0x51000, ecx=0x80)
        machine.cpu.budget = 64 * 5000 + int(machine.cpu.ticks)
        machine.gpr[EAX] = VMCB
        outcome = machine.go(0x1C000)
        assert 0 <= outcome <= 16 and outcome != 1, outcome
        assert int(machine.cpu.cpl) <= 3
        machine.unlimited()


# -- what it costs ----------------------------------------------------------------------------------------------------


def test_transitions_are_counted_and_charged_to_the_mode_in_which_they_began(machine: SvmMachine) -> None:
    """One VMRUN in the host's ring 0, one exit in the guest's; an exit takes its instruction back."""
    from x86virt.isa.events import EVENT_ID

    machine.prepare()
    machine.intercept("cpuid")
    for name, mode in (("svm.vmrun", 1), ("exit.cpuid", 1)):
        assert int(machine.cpu.ledger_count[EVENT_ID[name], mode]) == 0
    machine.cpu.mode_table[4:] = (2, 2, 2, 2)
    assert machine.run_guest(b"\x0f\xa2") == 0x72
    counts = machine.cpu.ledger_count
    assert int(counts[EVENT_ID["svm.vmrun"], 1]) == 1 and int(counts[EVENT_ID["exit.cpuid"], 2]) == 1
    assert int(counts[EVENT_ID["ins.cpuid_leaf0"]].sum()) == 0
    assert int(machine.cpu.ledger_ticks.sum()) == int(machine.cpu.ticks)
    machine.prepare()
    machine.set("asid", 0)
    assert machine.run_guest() == EXIT_INVALID
    assert int(machine.cpu.ledger_count[EVENT_ID["exit.entry_failure_guest_state"], 1]) == 1
