"""VMX: each instruction exits exactly when a control says so, behind the faults that rank above, with the manual's qualification.

The expectations are tables of the SDM, volume 3: sections 25.1.1 to 25.1.3 for when, 27.2.1 and 27.2.5 for what is told.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from bare_machine import CODE, DATA, EAX, EBX, ECX, EDX, GDT, HANDLERS, LOW_CODE, TSS
from descriptor_machine import descriptor
from vmx_guest import IO_BITMAPS, MSR_BITMAPS, VmxGuest

from x86virt.core.layout import HALTED_FOREVER
from x86virt.isa import vmx

CPUID = b"\x0f\xa2"  # exits always: what ends a guest that did not exit before
GP, UD, DB = 13, 6, 1
HANDLER_CODE = CPUID + b"\xf4"


@dataclass(frozen=True)
class Case:
    """An instruction, its exit reason, and the control that makes it exit; an empty one: nothing asks."""

    name: str
    octets: bytes
    reason: int
    control: str
    ring_3: str = "exits"  # or "#GP", or "#UD", which come first there

    def __str__(self) -> str:
        return self.name


CASES = (
    Case("cpuid", CPUID, 10, ""),
    Case("invd", b"\x0f\x08", 13, "", "#GP"),
    Case("vmcall", b"\x0f\x01\xc1", 18, ""),
    Case("vmlaunch", b"\x0f\x01\xc2", 20, ""),
    Case("vmresume", b"\x0f\x01\xc3", 24, ""),
    Case("vmxoff", b"\x0f\x01\xc4", 26, ""),
    Case("vmclear", b"\x66\x0f\xc7\x33", 19, ""),
    Case("vmptrld", b"\x0f\xc7\x33", 21, ""),
    Case("vmptrst", b"\x0f\xc7\x3b", 22, ""),
    Case("vmxon", b"\xf3\x0f\xc7\x33", 27, ""),
    Case("vmread", b"\x0f\x78\x0b", 23, ""),
    Case("vmwrite", b"\x0f\x79\x0b", 25, ""),
    Case("invept", b"\x66\x0f\x38\x80\x0b", 50, ""),
    Case("invvpid", b"\x66\x0f\x38\x81\x0b", 53, ""),
    Case("hlt", b"\xf4", 12, "PROCESSOR_HLT_EXITING", "#GP"),
    Case("invlpg", b"\x0f\x01\x3b", 14, "PROCESSOR_INVLPG_EXITING", "#GP"),
    Case("rdpmc", b"\x0f\x33", 15, "PROCESSOR_RDPMC_EXITING", "#GP"),
    Case("rdtsc", b"\x0f\x31", 16, "PROCESSOR_RDTSC_EXITING"),
    Case("mov cr3, edx", b"\x0f\x22\xda", 28, "PROCESSOR_CR3_LOAD_EXITING", "#GP"),
    Case("mov eax, cr3", b"\x0f\x20\xd8", 28, "PROCESSOR_CR3_STORE_EXITING", "#GP"),
    Case("mov dr0, eax", b"\x0f\x23\xc0", 29, "PROCESSOR_MOV_DR_EXITING"),
    Case("mov eax, dr7", b"\x0f\x21\xf8", 29, "PROCESSOR_MOV_DR_EXITING"),
    Case("in al, 80h", b"\xe4\x80", 30, "PROCESSOR_UNCONDITIONAL_IO_EXITING", "#GP"),
    Case("in eax, dx", b"\xed", 30, "PROCESSOR_UNCONDITIONAL_IO_EXITING", "#GP"),
    Case("out 80h, al", b"\xe6\x80", 30, "PROCESSOR_UNCONDITIONAL_IO_EXITING", "#GP"),
    Case("out dx, ax", b"\x66\xef", 30, "PROCESSOR_UNCONDITIONAL_IO_EXITING", "#GP"),
    Case("insb", b"\x6c", 30, "PROCESSOR_UNCONDITIONAL_IO_EXITING", "#GP"),
    Case("rep outsd", b"\xf3\x6f", 30, "PROCESSOR_UNCONDITIONAL_IO_EXITING", "#GP"),
    Case("rdmsr", b"\x0f\x32", 31, "", "#GP"),
    Case("wrmsr", b"\x0f\x30", 32, "", "#GP"),
    Case("pause", b"\xf3\x90", 40, "PROCESSOR_PAUSE_EXITING"),
    Case("lgdt", b"\x0f\x01\x13", 46, "SECONDARY_DESCRIPTOR_TABLE_EXITING", "#GP"),
    Case("lidt", b"\x0f\x01\x1b", 46, "SECONDARY_DESCRIPTOR_TABLE_EXITING", "#GP"),
    Case("sgdt", b"\x0f\x01\x03", 46, "SECONDARY_DESCRIPTOR_TABLE_EXITING"),
    Case("sidt", b"\x0f\x01\x0b", 46, "SECONDARY_DESCRIPTOR_TABLE_EXITING"),
    Case("lldt", b"\x0f\x00\xd0", 47, "SECONDARY_DESCRIPTOR_TABLE_EXITING", "#GP"),
    Case("ltr", b"\x0f\x00\x5b\x20", 47, "SECONDARY_DESCRIPTOR_TABLE_EXITING", "#GP"),
    Case("sldt", b"\x0f\x00\xc0", 47, "SECONDARY_DESCRIPTOR_TABLE_EXITING"),
    Case("str", b"\x0f\x00\x0b", 47, "SECONDARY_DESCRIPTOR_TABLE_EXITING"),
    Case("wbinvd", b"\x0f\x09", 54, "SECONDARY_WBINVD_EXITING", "#GP"),
)
CONTROLS = sorted({case.control for case in CASES} - {""})
NAMES = [str(case) for case in CASES]


@pytest.fixture(scope="module")
def module_machine() -> VmxGuest:
    return VmxGuest()


@pytest.fixture
def machine(module_machine: VmxGuest) -> VmxGuest:
    """A machine in the host, with a fresh VMCS; handlers of the guest's exceptions exit by CPUID."""
    fresh(module_machine)
    return module_machine


def fresh(machine: VmxGuest) -> None:
    """Begin anew."""
    machine.begin()
    machine.cpu.tsc_offset = 0
    machine.put(TSS + 0x66, 0x68, 2)  # no permission for any port
    machine.put(GDT + 0x30, descriptor(TSS, 0x67, 9, s=0, db=0), 8)
    for vector in range(32):
        machine.write_code(HANDLER_CODE, HANDLERS + 16 * vector)


def registers(machine: VmxGuest) -> None:
    """Operands with which each of the cases completes where it does not exit."""
    machine.gpr[:8] = 0
    machine.gpr[EAX], machine.gpr[EBX], machine.gpr[ECX], machine.gpr[EDX] = 0, DATA, 1, 0x40000
    machine.gpr[6] = machine.gpr[7] = DATA + 0x100
    machine.put(DATA, 0x1000 << 16 | 0x7F, 6)
    machine.put(DATA + 0x20, 0x30, 2)


def set_controls(machine: VmxGuest, *names: str) -> None:
    """Controls by their names in isa/vmx.py."""
    chosen = {"PIN": 0, "PROCESSOR": 0, "SECONDARY": 0}
    for name in names:
        chosen[name.split("_")[0]] |= getattr(vmx, name)
    machine.controls(chosen["PIN"], chosen["PROCESSOR"], chosen["SECONDARY"])


def run_case(machine: VmxGuest, octets: bytes) -> tuple[int, int]:
    """Run an instruction with CPUID behind it: (exit reason, the guest's RIP less where the instruction lies)."""
    registers(machine)
    machine.write_code(octets + CPUID)
    reason = machine.exit_reason()
    return reason, machine.field("GUEST_RIP") - CODE


# -- exactly when ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_exits_exactly_under_its_control(machine: VmxGuest, case: Case) -> None:
    for control in ("", *CONTROLS):
        fresh(machine)
        set_controls(machine, *([control] if control else []))
        if case.name == "hlt" and case.control != control:
            machine.write_code(case.octets)
            assert (machine.enter_and_run(), int(machine.cpu.rip)) == (HALTED_FOREVER, CODE + 1), control
            continue
        reason, place = run_case(machine, case.octets)
        if case.control in ("", control):
            assert (reason, place) == (case.reason, 0), control
            assert machine.field("EXIT_INSTRUCTION_LENGTH") == len(case.octets)
        else:
            assert (reason, place) == (10, len(case.octets)), control


@pytest.mark.parametrize("case", [case for case in CASES if case.name not in ("vmlaunch", "vmresume")], ids=str)
def test_outside_a_guest_nothing_exits(machine: VmxGuest, case: Case) -> None:
    """The same bytes in VMX root operation after an exit: the code's context tells them apart."""
    set_controls(machine, *CONTROLS)
    run_case(machine, case.octets)
    registers(machine)
    machine.write_code(case.octets + b"\xf4")
    machine.cpu.rip = CODE
    machine.set_field("EXIT_REASON", 0x55)
    machine.processor.run(True)
    assert (machine.cpu.world, machine.field("EXIT_REASON")) == (0, 0x55)


@pytest.mark.parametrize("case", CASES, ids=NAMES)
def test_faults_by_privilege_come_first(machine: VmxGuest, case: Case) -> None:
    """In ring 3: #GP for what is privileged, but MOV DR and the instructions of VMX exit all the same."""
    set_controls(machine, *CONTROLS)
    machine.guest_ring(3)
    reason, place = run_case(machine, case.octets)
    if case.ring_3 == "exits":
        assert (reason, place) == (case.reason, 0)
    else:
        assert (reason, place) == (10, HANDLERS + 16 * GP - CODE)


V86_UD = {"vmlaunch", "vmresume", "vmxoff", "vmclear", "vmptrld", "vmptrst", "vmxon", "vmread", "vmwrite", "invept", "invvpid"}
V86_UD |= {"lldt", "ltr", "sldt", "str"}
V86_EXITS = {"cpuid", "vmcall", "rdtsc", "mov dr0, eax", "mov eax, dr7", "pause", "sgdt", "sidt"}


@pytest.mark.parametrize("case", [case for case in CASES if case.octets[0] != 0xF3 or case.name == "pause"], ids=str)
def test_virtual_8086_mode(machine: VmxGuest, case: Case) -> None:
    """In virtual-8086 mode with IOPL 0: #UD for what is not recognised there, #GP for what is privileged."""
    set_controls(machine, *CONTROLS)
    machine.guest_ring(3, v86=True)
    registers(machine)
    machine.gpr[EBX] = 0x1000
    machine.write_code(case.octets + CPUID, LOW_CODE)
    reason, rip = machine.exit_reason(), machine.field("GUEST_RIP")
    if case.name in V86_EXITS:
        assert (reason, rip) == (case.reason, LOW_CODE)
    else:
        assert (reason, rip) == (10, HANDLERS + 16 * (UD if case.name in V86_UD else GP))


ABOVE = {  # what ranks above an exit of ring 0 (section 25.1.1): bytes, the case, how the state is made so, what comes
    "rdtsc under CR4.TSD in ring 3": (b"\x0f\x31", 3, 1 << 2, GP),
    "rdpmc without CR4.PCE in ring 3": (b"\x0f\x33", 3, 0, GP),
    "lock cpuid": (b"\xf0\x0f\xa2", 0, 0, UD),
    "lock invlpg": (b"\xf0\x0f\x01\x3b", 0, 0, UD),
    "in without permission in ring 3": (b"\xec", 3, 0, GP),
    "outs without permission in ring 3": (b"\x6e", 3, 0, GP),
    "lgdt of a register": (b"\x0f\x01\xd6", 0, 0, UD),
    "mov from CR1": (b"\x0f\x20\xc8", 0, 0, UD),
}


@pytest.mark.parametrize("name", ABOVE)
def test_faults_above_exits(machine: VmxGuest, name: str) -> None:
    octets, ring, cr4, vector = ABOVE[name]
    set_controls(machine, *CONTROLS)
    machine.guest_ring(ring)
    machine.set_field("GUEST_CR4", machine.field("GUEST_CR4") | cr4)
    reason, place = run_case(machine, octets)
    assert (reason, place) == (10, HANDLERS + 16 * vector - CODE)


BELOW = {  # exits that rank above faults: bytes, reason, registers
    "rdmsr of no register": (b"\x0f\x32", 31, {ECX: 0x12345}),
    "wrmsr of a forbidden value": (b"\x0f\x30", 32, {ECX: 0x1B, EAX: 0xFF, EDX: 0xFF}),
    "rdpmc of no counter": (b"\x0f\x33", 15, {ECX: 99}),
    "lgdt beyond RAM's page tables": (b"\x0f\x01\x13", 46, {EBX: 0x800000}),
    "sidt to a page that is not there": (b"\x0f\x01\x0b", 46, {EBX: 0x800000}),
    "ltr of a selector in no page": (b"\x0f\x00\x1b", 47, {EBX: 0x800000}),
    "str to no page": (b"\x0f\x00\x0b", 47, {EBX: 0x800000}),
    "mov dr4 under CR4.DE": (b"\x0f\x23\xe0", 29, {}),
    "ins to no page": (b"\x6c", 30, {7: 0x800000}),
    "outs from no page": (b"\x6e", 30, {6: 0x800000}),
    "vmread to no page": (b"\x0f\x78\x0b", 23, {EBX: 0x800000}),
}


@pytest.mark.parametrize("name", BELOW)
def test_faults_below_exits(machine: VmxGuest, name: str) -> None:
    octets, reason, values = BELOW[name]
    set_controls(machine, *CONTROLS)
    machine.set_field("GUEST_CR4", machine.field("GUEST_CR4") | 1 << 3)
    registers(machine)
    for register, value in values.items():
        machine.gpr[register] = value
    machine.write_code(octets + CPUID)
    assert (machine.exit_reason(), machine.field("GUEST_RIP")) == (reason, CODE)


def test_a_memory_operand_of_lmsw_is_read_first(machine: VmxGuest) -> None:
    """Faults of an operand rank above an exit that depends on its contents."""
    machine.set_field("CR0_MASK", 0xF)
    machine.set_field("CR0_SHADOW", 1)
    registers(machine)
    machine.gpr[EBX] = 0x800000
    machine.write_code(b"\x0f\x01\x33" + CPUID)
    assert (machine.exit_reason(), machine.field("GUEST_RIP")) == (10, HANDLERS + 16 * 14)


def test_general_detect_ranks_below_the_exit(machine: VmxGuest) -> None:
    """DR7.GD makes MOV DR #DB, if it does not exit before (section 25.1.3)."""
    machine.set_field("GUEST_DR7", 0x2400)
    machine.controls(entries=vmx.ENTRY_LOAD_DEBUG)
    assert run_case(machine, b"\x0f\x21\xf8") == (10, HANDLERS + 16 * DB - CODE)
    fresh(machine)
    machine.set_field("GUEST_DR7", 0x2400)
    machine.controls(processor=vmx.PROCESSOR_MOV_DR_EXITING, entries=vmx.ENTRY_LOAD_DEBUG)
    assert run_case(machine, b"\x0f\x21\xf8") == (29, 0)


# -- ports and model-specific registers: the bitmaps --------------------------------------------------------------------------

PORT_FORMS = {b"\xec": (1, 1), b"\x66\xed": (2, 1), b"\xed": (4, 1), b"\xee": (1, 0), b"\x66\xef": (2, 0), b"\xef": (4, 0)}


def test_io_bitmaps(machine: VmxGuest) -> None:
    """An access exits if the bit of one of its ports is set, or if it wraps around; qualification by table 27-5."""
    chance = random.Random(6)
    ports = [0, 0x7FFE, 0x7FFF, 0x8000, 0xFFFD, 0xFFFF, *(chance.randrange(0x10000) for _ in range(20))]
    for port in ports:
        for octets, (n, reads) in PORT_FORMS.items():
            fresh(machine)
            machine.controls(processor=vmx.PROCESSOR_IO_BITMAPS | vmx.PROCESSOR_UNCONDITIONAL_IO_EXITING)
            machine.memory[IO_BITMAPS : IO_BITMAPS + 0x2000] = 0
            marked = (port + chance.randrange(-2, 6)) & 0xFFFF
            machine.put(IO_BITMAPS + (marked >> 3), 1 << (marked & 7), 1)
            registers(machine)
            machine.gpr[EDX] = 0xABCD0000 | port
            machine.write_code(octets + CPUID)
            exits = port + n > 0x10000 or port <= marked < port + n
            assert machine.exit_reason() == (30 if exits else 10), (hex(port), hex(marked), octets)
            if exits:
                assert machine.field("QUALIFICATION") == (n - 1) | reads << 3 | port << 16


@pytest.mark.parametrize("octets", [b"\xe4\x70", b"\xe5\x70", b"\xe6\x70", b"\x66\xe7\x70"])
def test_immediate_ports(machine: VmxGuest, octets: bytes) -> None:
    machine.controls(processor=vmx.PROCESSOR_UNCONDITIONAL_IO_EXITING)
    assert run_case(machine, octets) == (30, 0)
    size = {0xE4: 0, 0xE6: 0}.get(octets[-2], 1 if octets[0] == 0x66 else 3)
    assert machine.field("QUALIFICATION") == size | (octets[-2] < 0xE6) << 3 | 1 << 6 | 0x70 << 16


def test_string_ports(machine: VmxGuest) -> None:
    """INS and OUTS: the linear address of the operand, whatever may be wrong with it, and the instruction information."""
    for octets, reads, size, wide, segment, register in (
        (b"\x6c", 1, 0, 1, 0, 7),
        (b"\xf3\x6d", 1, 3, 1, 0, 7),
        (b"\x66\x6f", 0, 1, 1, 3, 6),
        (b"\x64\x6e", 0, 0, 1, 4, 6),
        (b"\xf3\x67\x65\x6f", 0, 3, 0, 5, 6),
        (b"\x67\x66\x6d", 1, 1, 0, 0, 7),
    ):
        fresh(machine)
        machine.controls(processor=vmx.PROCESSOR_UNCONDITIONAL_IO_EXITING)
        machine.set_field("GUEST_BASES", 0x1000 * segment, segment)
        registers(machine)
        machine.gpr[register] = 0x12345678
        machine.gpr[ECX] = 3
        machine.write_code(octets + CPUID)
        assert machine.exit_reason() == 30
        repeated = int(0xF3 in octets)
        assert machine.field("QUALIFICATION") == size | reads << 3 | 1 << 4 | repeated << 5 | (0x40000 & 0xFFFF) << 16
        offset = 0x12345678 if wide else 0x5678
        assert machine.field("GUEST_LINEAR_ADDRESS") == offset + 0x1000 * segment
        assert machine.field("EXIT_INSTRUCTION_INFORMATION") == wide << 7 | (0 if reads else segment << 15)


def test_a_repeated_port_string_without_iterations_does_not_exit(machine: VmxGuest) -> None:
    machine.controls(processor=vmx.PROCESSOR_UNCONDITIONAL_IO_EXITING)
    registers(machine)
    machine.gpr[ECX] = 0
    machine.write_code(b"\xf3\x6c" + CPUID)
    assert (machine.exit_reason(), machine.field("GUEST_RIP")) == (10, CODE + 2)


@pytest.mark.parametrize("write", [0, 1], ids=["rdmsr", "wrmsr"])
def test_msr_bitmaps(machine: VmxGuest, write: int) -> None:
    """Section 24.6.9: four bitmaps of 8192 registers each; what lies outside always exits."""
    chance = random.Random(9)
    for number in (0x10, 0x174, 0x1FFF, 0x2000, 0xBFFFFFFF, 0xC0000080, 0xC0001FFF, 0xC0002000, 0xFFFFFFFF):
        for _ in range(3):
            fresh(machine)
            machine.controls(processor=vmx.PROCESSOR_MSR_BITMAPS)
            machine.memory[MSR_BITMAPS : MSR_BITMAPS + 0x1000] = 0
            marked = chance.choice([number, number, number ^ 1, number ^ 0xC0000000])
            kind = chance.choice([write, 1 - write])
            if marked & 0x3FFFFFFF < 0x2000 and marked >> 30 in (0, 3):
                place = MSR_BITMAPS + kind * 2048 + (marked >> 31) * 1024 + ((marked & 0x1FFF) >> 3)
                machine.put(place, 1 << (marked & 7), 1)
            inside = number & 0x3FFFFFFF < 0x2000 and number >> 30 in (0, 3)
            exits = not inside or (marked == number and kind == write)
            registers(machine)
            machine.gpr[ECX] = number
            machine.write_code((b"\x0f\x30" if write else b"\x0f\x32") + CPUID)
            reason, rip = machine.exit_reason(), machine.field("GUEST_RIP")
            if exits:
                assert (reason, rip) == (31 + write, CODE), hex(number)
            else:
                assert reason == 10 and rip in (CODE + 2, HANDLERS + 16 * GP), hex(number)


# -- the operand of an instruction as tables 27-8 to 27-14 have it ------------------------------------------------------------

MEMORY_FORMS = {  # opcode bytes with the reg field of the ModRM byte, and what the information says besides the operand
    "sgdt": (b"\x0f\x01", 0, lambda width, reg: (width == 32) << 11 | 0 << 28),
    "sidt": (b"\x0f\x01", 1, lambda width, reg: (width == 32) << 11 | 1 << 28),
    "lgdt": (b"\x0f\x01", 2, lambda width, reg: (width == 32) << 11 | 2 << 28),
    "lidt": (b"\x0f\x01", 3, lambda width, reg: (width == 32) << 11 | 3 << 28),
    "sldt": (b"\x0f\x00", 0, lambda width, reg: 0 << 28),
    "str": (b"\x0f\x00", 1, lambda width, reg: 1 << 28),
    "lldt": (b"\x0f\x00", 2, lambda width, reg: 2 << 28),
    "ltr": (b"\x0f\x00", 3, lambda width, reg: 3 << 28),
    "vmptrld": (b"\x0f\xc7", 6, lambda width, reg: 0),
    "vmptrst": (b"\x0f\xc7", 7, lambda width, reg: 0),
    "vmread": (b"\x0f\x78", -1, lambda width, reg: reg << 28),
    "vmwrite": (b"\x0f\x79", -1, lambda width, reg: reg << 28),
    "invept": (b"\x66\x0f\x38\x80", -1, lambda width, reg: reg << 28),
    "invvpid": (b"\x66\x0f\x38\x81", -1, lambda width, reg: reg << 28),
    "invlpg": (b"\x0f\x01", 7, None),
}
ES, CS, SS, DS = range(4)
ADDRESSING_16 = ((3, 6), (3, 7), (5, 6), (5, 7), (6, None), (7, None), (5, None), (3, None))
OVERRIDES = {None: b"", 0: b"\x26", 1: b"\x2e", 2: b"\x36", 3: b"\x3e", 4: b"\x64", 5: b"\x65"}


def memory_operand(chance: random.Random, wide: bool, reg: int) -> tuple[bytes, int | None, int | None, int, int]:
    """A random memory operand: (ModRM byte and what follows, base, index, scale, displacement)."""
    mod = chance.randrange(3)
    size = (0, 1, 4 if wide else 2)[mod]
    base: int | None
    index: int | None = None
    scale = 0
    rm = chance.randrange(8)
    octets = b""
    if not wide:
        base, index = ADDRESSING_16[rm]
        if mod == 0 and rm == 6:
            base, size = None, 2
    elif rm == 4:
        scale, index_field, base = chance.randrange(4), chance.randrange(8), chance.randrange(8)
        octets = bytes([scale << 6 | index_field << 3 | base])
        index = None if index_field == 4 else index_field
        if index is None:
            scale = 0
        if mod == 0 and base == 5:
            base, size = None, 4
    else:
        base = rm
        if mod == 0 and rm == 5:
            base, size = None, 4
    raw = chance.randrange(1 << 8 * size) if size else 0
    octets = bytes([mod << 6 | reg << 3 | rm]) + octets + raw.to_bytes(size, "little")
    displacement = (raw ^ 1 << 8 * size - 1) - (1 << 8 * size - 1) if size else 0
    return octets, base, index, scale, displacement


@pytest.mark.parametrize("name", MEMORY_FORMS)
def test_memory_operands(machine: VmxGuest, name: str) -> None:
    """Displacement as the qualification, and the rest in the instruction information; INVLPG tells the linear address."""
    chance = random.Random(name)
    opcode, fixed, others = MEMORY_FORMS[name]
    for _ in range(40):
        fresh(machine)
        machine.controls(
            processor=vmx.PROCESSOR_INVLPG_EXITING, secondary=vmx.SECONDARY_DESCRIPTOR_TABLE_EXITING
        )
        wide = chance.random() < 0.6
        width = 32 if opcode[0] == 0x66 or chance.random() < 0.6 else 16
        if name.startswith("vm"):
            width = 32  # an operand-size prefix makes another instruction of it
        reg = fixed if fixed >= 0 else chance.randrange(8)
        octets, base, index, scale, displacement = memory_operand(chance, wide, reg)
        override = chance.choice([*OVERRIDES])
        prefixes = OVERRIDES[override] + b"\x67" * (not wide) + b"\x66" * (width == 16)
        segment = override if override is not None else SS if base == 5 or (wide and base == 4) else DS
        registers(machine)
        for register in range(8):
            if register != 4:
                machine.gpr[register] = chance.randrange(1 << 32)
        machine.set_field("GUEST_RSP", 0x12340)
        machine.gpr[4] = 0x12340
        machine.set_field("GUEST_BASES", 0x5000, 5)
        values = machine.registers()
        machine.write_code(prefixes + opcode + octets + CPUID)
        reason = {case.name: case.reason for case in CASES}[name]
        assert machine.exit_reason() == reason
        mask = 0xFFFFFFFF if wide else 0xFFFF
        if others is None:
            sum_of_parts = displacement + (values[base] if base is not None else 0)
            sum_of_parts += values[index] << scale if index is not None else 0
            linear = ((sum_of_parts & mask) + (0x5000 if segment == 5 else 0)) & 0xFFFFFFFF
            assert machine.field("QUALIFICATION") == linear
            continue
        information = scale | int(wide) << 7 | segment << 15 | others(width, reg)
        information |= 1 << 22 if index is None else index << 18
        information |= 1 << 27 if base is None else base << 23
        assert machine.field("EXIT_INSTRUCTION_INFORMATION") == information, prefixes + opcode + octets
        assert machine.field("QUALIFICATION") == displacement & mask
        assert machine.field("EXIT_INSTRUCTION_LENGTH") == len(prefixes + opcode + octets)


def test_register_operands(machine: VmxGuest) -> None:
    """LLDT, LTR, SLDT, STR, VMREAD and VMWRITE with a register operand."""
    for register in range(8):
        for octets, extra in (
            *((bytes([0x0F, 0x00, 0xC0 | n << 3 | register]), n << 28) for n in range(2)),
            *((bytes([0x0F, 0x00, 0xD0 | n << 3 | register]), 2 + n << 28) for n in range(2)),
            *((bytes([0x0F, opcode, 0xC0 | 5 << 3 | register]), 5 << 28) for opcode in (0x78, 0x79)),
        ):
            fresh(machine)
            machine.controls(secondary=vmx.SECONDARY_DESCRIPTOR_TABLE_EXITING)
            assert run_case(machine, octets)[1] == 0
            assert machine.field("EXIT_INSTRUCTION_INFORMATION") == 1 << 10 | 1 << 7 | register << 3 | extra
            assert machine.field("QUALIFICATION") == 0


# -- control and debug registers (tables 27-3 and 27-4) ---------------------------------------------------------------------


def test_debug_registers(machine: VmxGuest) -> None:
    for number in range(8):
        for register in (0, 3, 7):
            for opcode, reads in ((0x21, 1), (0x23, 0)):
                fresh(machine)
                machine.controls(processor=vmx.PROCESSOR_MOV_DR_EXITING)
                assert run_case(machine, bytes([0x0F, opcode, 0xC0 | number << 3 | register])) == (29, 0)
                assert machine.field("QUALIFICATION") == number | reads << 4 | register << 8


def test_cr3_targets(machine: VmxGuest) -> None:
    """A value among the CR3-target values that count does not exit."""
    for count in range(5):
        for wanted in range(5):
            fresh(machine)
            machine.controls(processor=vmx.PROCESSOR_CR3_LOAD_EXITING)
            machine.set_field("CR3_TARGET_COUNT", count)
            values = [0x40000 | n << 3 for n in (1, 2, 3, 0)]
            for number, value in enumerate(values):
                machine.set_field("CR3_TARGET0", value, number)
            registers(machine)
            machine.gpr[ECX] = [*values, 0x40018 | 1 << 5][wanted]
            machine.write_code(b"\x0f\x22\xd9" + CPUID)
            reason = machine.exit_reason()
            if wanted < count:
                assert (reason, machine.field("GUEST_CR3")) == (10, values[wanted])
            else:
                assert (reason, machine.field("GUEST_CR3")) == (28, 0x40000)
                assert machine.field("QUALIFICATION") == 3 | 0 << 4 | ECX << 8


CR0_FREE = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 16 | 1 << 18  # MP EM TS WP AM
CR4_FREE = 1 << 2 | 1 << 3 | 1 << 7 | 1 << 8  # TSD DE PGE PCE


@pytest.mark.parametrize("number", [0, 4])
def test_masks_and_shadows(machine: VmxGuest, number: int) -> None:
    """Random masks, shadows and values: what MOV to CR0 or CR4 does, when it exits, and what MOV from it reads."""
    chance = random.Random(number)
    free = CR0_FREE if number == 0 else CR4_FREE
    for _ in range(60):
        fresh(machine)
        old = machine.field(f"GUEST_CR{number}") & ~free | chance.randrange(1 << 32) & free
        mask = chance.randrange(1 << 32) & chance.randrange(1 << 32)
        value = old & ~free | chance.randrange(1 << 32) & free
        shadow = chance.choice([value ^ (chance.randrange(1 << 32) & ~mask), chance.randrange(1 << 32)])
        shadow &= 0xFFFFFFFF
        machine.set_field(f"GUEST_CR{number}", old)
        machine.set_field(f"CR{number}_MASK", mask)
        machine.set_field(f"CR{number}_SHADOW", shadow)
        registers(machine)
        machine.gpr[6] = value
        machine.write_code(bytes([0x0F, 0x22, 0xC6 | number << 3, 0x0F, 0x20, 0xC7 | number << 3]) + CPUID)
        reason = machine.exit_reason()
        if (value ^ shadow) & mask:
            assert reason == 28
            assert machine.field("QUALIFICATION") == number | 6 << 8
            assert machine.field(f"GUEST_CR{number}") == old
        else:
            new = old & mask | value & ~mask
            assert reason == 10
            assert machine.field(f"GUEST_CR{number}") == new
            assert int(machine.gpr[7]) == shadow & mask | new & ~mask


def test_lmsw_clts_and_smsw(machine: VmxGuest) -> None:
    """The same for LMSW from a register and from memory, CLTS and SMSW (section 25.1.3)."""
    chance = random.Random(1)
    for _ in range(80):
        fresh(machine)
        old = machine.field("GUEST_CR0") & ~CR0_FREE | chance.randrange(1 << 32) & CR0_FREE
        mask, shadow = (chance.randrange(16) | chance.randrange(1 << 32) & ~15 for _ in range(2))
        value = chance.randrange(1 << 16)
        machine.set_field("GUEST_CR0", old)
        machine.set_field("CR0_MASK", mask)
        machine.set_field("CR0_SHADOW", shadow)
        registers(machine)
        form = chance.choice(["lmsw", "lmsw memory", "clts", "smsw"])
        machine.gpr[6] = value | 0xABCD0000
        machine.put(DATA + 0x10, value, 2)
        code = {"lmsw": b"\x0f\x01\xf6", "lmsw memory": b"\x0f\x01\x73\x10", "clts": b"\x0f\x06", "smsw": b"\x0f\x01\xe7"}[form]
        machine.write_code(code + CPUID)
        reason = machine.exit_reason()
        new, exits, qualification = old, False, 0
        if form.startswith("lmsw"):
            memory = form == "lmsw memory"
            exits = bool((value ^ shadow) & mask & 14) or bool(value & ~shadow & mask & 1)
            qualification = 3 << 4 | memory << 6 | value << 16
            new = old & (mask | ~14) | value & 14 & ~mask
            if exits and memory:
                assert machine.field("GUEST_LINEAR_ADDRESS") == DATA + 0x10
        elif form == "clts":
            exits = bool(mask & shadow & 8)
            qualification = 2 << 4
            new = old & ~(8 & ~mask)
        else:
            assert int(machine.gpr[7]) == shadow & mask | old & ~mask
        assert reason == (28 if exits else 10), form
        assert machine.field("GUEST_CR0") == (old if exits else new), form
        if exits:
            assert machine.field("QUALIFICATION") == qualification


def test_time_stamp_offset(machine: VmxGuest) -> None:
    """RDTSC and RDMSR of the counter see the offset, modulo 2^64; the host does not."""
    for offset in (0, 1 << 40, -(1 << 62), (1 << 63) - 1, -1):
        for octets in (b"\x0f\x31", b"\x0f\x32"):
            fresh(machine)
            machine.controls(processor=vmx.PROCESSOR_TSC_OFFSETTING | vmx.PROCESSOR_MSR_BITMAPS)
            machine.memory[MSR_BITMAPS : MSR_BITMAPS + 0x1000] = 0
            machine.set_field("TSC_OFFSET", offset)
            registers(machine)
            machine.gpr[ECX] = 0x10
            machine.write_code(octets + CPUID)
            before = int(machine.cpu.ticks) >> 6
            assert machine.exit_reason() == 10
            after = int(machine.cpu.ticks) >> 6
            seen = int(machine.gpr[EDX]) << 32 | int(machine.gpr[EAX])
            assert before <= (seen - offset) & (1 << 64) - 1 <= after
            assert machine.cpu.guest_tsc_offset == 0

