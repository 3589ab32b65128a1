"""CPUID, control registers and model-specific registers of every profile's processor."""

from __future__ import annotations

import itertools

import pytest
from bare_machine import CODE, EAX, EBX, ECX, EDX, HANDLERS, BareMachine
from test_liveness import encode, prepare

from x86virt.core.tables import SVM_INSTRUCTIONS, VMX_INSTRUCTIONS
from x86virt.isa.rows import ALWAYS, Row
from x86virt.isa.table import ROWS
from x86virt.profile import load_profile, profile_names

HLT = b"\xf4"
INTEL = ("p4_prescott", "p4_cedarmill", "core2_woodcrest", "core2_harpertown", "nehalem")
TYPES = (0, 1, 4, 5, 6)
MACHINES: dict[str, BareMachine] = {}


@pytest.fixture(params=profile_names())
def machine(request) -> BareMachine:
    """A machine of each profile."""
    name = request.param
    if name not in MACHINES:
        MACHINES[name] = BareMachine(name)
    MACHINES[name].power_on()
    MACHINES[name].unlimited()
    return MACHINES[name]


def cpuid(machine: BareMachine, leaf: int, selected: int = 0) -> tuple[int, ...]:
    """EAX, EBX, ECX, EDX of a leaf."""
    machine.write_code(b"\x0f\xa2" + HLT)
    machine.gpr[EAX], machine.gpr[ECX] = leaf, selected
    assert machine.stopped_at(machine.go()) == CODE + 2
    return tuple(int(machine.gpr[register]) for register in (EAX, EBX, ECX, EDX))


def read_msr(machine: BareMachine, number: int) -> int | str:
    """The value of a register, or the exception."""
    machine.write_code(b"\x0f\x32" + HLT)
    machine.gpr[ECX] = number
    stopped = machine.stopped_at(machine.go())
    machine.gpr[4] = 0x32000
    return int(machine.gpr[EDX]) << 32 | int(machine.gpr[EAX]) if stopped == CODE + 2 else str(stopped)


def write_msr(machine: BareMachine, number: int, value: int) -> bool:
    """Whether a write is allowed; anything but #GP(0) is an error."""
    machine.write_code(b"\x0f\x30" + HLT)
    machine.gpr[ECX], machine.gpr[EAX], machine.gpr[EDX] = number, value & 0xFFFFFFFF, value >> 32
    stopped = machine.stopped_at(machine.go())
    machine.gpr[4] = 0x32000
    assert stopped in (CODE + 2, "vector 13")
    return stopped == CODE + 2


def profile_of(machine: BareMachine):
    """Its profile."""
    return machine.processor.profile


def is_intel(machine: BareMachine) -> bool:
    """Whether it is one of Intel's."""
    return profile_of(machine).name in INTEL


# -- CPUID -------------------------------------------------------------------------------------------------------------------


def has_vmx(machine: BareMachine) -> int:
    """Whether the processor has VMX, as CPUID and CR4 tell."""
    return int(is_intel(machine) and profile_of(machine).integer("feature.hw_virt"))


def test_vendor_signature_and_brand(machine: BareMachine) -> None:
    profile = profile_of(machine)
    highest, b, c, d = cpuid(machine, 0)
    assert b"".join(part.to_bytes(4, "little") for part in (b, d, c)).decode() == profile["cpuid.vendor"]
    assert highest == profile.integer("cpuid.highest_leaf")
    vmx = has_vmx(machine) << 5
    assert cpuid(machine, 1) == (profile.cpuid_signature(), 0, vmx, profile.integer("cpuid.features"))
    brand = b"".join(part.to_bytes(4, "little") for leaf in range(3) for part in cpuid(machine, 0x80000002 + leaf))
    assert brand.rstrip(b"\0").decode() == profile["cpuid.brand"]


def test_features_are_those_of_the_machine(machine: BareMachine) -> None:
    """Neither APIC, CLFLUSH, MMX, SSE nor threads; no long mode and no SYSCALL; NX everywhere.

    The fences are there, which kernels for Xen's interface use without asking for SSE2.
    """
    assert cpuid(machine, 1)[3] == 0x0103F9FF
    extended = cpuid(machine, 0x80000001)
    assert extended[3] == (0x00100000 if is_intel(machine) else 0x0113F1FF)
    assert extended[0] == (0 if is_intel(machine) else profile_of(machine).cpuid_signature())
    for octets in (b"\x0f\x77", b"\x0f\x28\xc1", b"\x0f\x05", b"\x0f\xae\xd0"):  # EMMS, MOVAPS, SYSCALL, 0F AE /2
        machine.power_on()
        machine.write_code(octets)
        assert machine.stopped_at(machine.go()) == "vector 6"


def test_caches_of_leaf_4(machine: BareMachine) -> None:
    """Ways x partitions x line x sets is the size of each cache of the profile, in the order of levels."""
    profile = profile_of(machine)
    found = []
    for number in range(6):
        a, b, c, _ = cpuid(machine, 4, number)
        if a & 31 == 0:
            break
        size = ((b >> 22) + 1) * ((b >> 12 & 0x3FF) + 1) * ((b & 0xFFF) + 1) * (c + 1)
        found.append((a >> 5 & 7, a & 31, size))
    if not is_intel(machine):
        assert not found
        return
    expected = [(1, 1, profile.integer("cache.l1d_kb") << 10)]
    if profile.integer("cache.l1i_ways"):
        expected.append((1, 2, profile.integer("cache.l1i_kb") << 10))
    expected.append((2, 3, profile.integer("cache.l2_kb") << 10))
    if profile.integer("cache.l3_kb"):
        expected.append((3, 3, profile.integer("cache.l3_kb") << 10))
    assert found == expected
    assert cpuid(machine, 4, 99) == (0, 0, 0, 0)


# Which caches Intel's descriptors stand for (SDM volume 2, table 3-12): level, kilobytes, ways, line.
DESCRIPTORS = {
    0x60: (1, 16, 8, 64), 0x7D: (2, 2048, 8, 64), 0x2C: (1, 32, 8, 64), 0x49: (2, 4096, 16, 64), 0x4E: (2, 6144, 24, 64),
    0x21: (2, 256, 8, 64),
}  # fmt: skip


def test_descriptors_of_leaf_2_agree_with_the_caches(machine: BareMachine) -> None:
    profile = profile_of(machine)
    words = cpuid(machine, 2)
    if not is_intel(machine):
        assert words == (0, 0, 0, 0)
        return
    octets = [word >> shift & 0xFF for word in words for shift in range(0, 32, 8) if not word >> 31]
    assert octets[0] == 1
    for level, size, ways, line in (DESCRIPTORS[octet] for octet in octets[1:] if octet in DESCRIPTORS):
        name = "cache.l1d" if level == 1 else "cache.l2"
        assert (profile.integer(f"{name}_kb"), profile.integer(f"{name}_ways")) == (size, ways)
        assert profile.integer("cache.line_bytes") == line


def test_extended_leaves(machine: BareMachine) -> None:
    """Sizes of caches and addresses where the vendor reports them."""
    profile = profile_of(machine)
    highest, *vendor = cpuid(machine, 0x80000000)
    assert highest == profile.integer("cpuid.highest_extended_leaf")
    assert any(vendor) == (not is_intel(machine))
    assert cpuid(machine, 0x80000006)[2] >> 16 == profile.integer("cache.l2_kb")
    assert cpuid(machine, 0x80000008)[0] == profile.integer("cpuid.physical_address_bits") | 32 << 8
    a, b, c, d = cpuid(machine, 0x80000005)
    if is_intel(machine):
        assert (a, b, c, d) == (0, 0, 0, 0)
    else:
        assert (c >> 24, d >> 24) == (profile.integer("cache.l1d_kb"), profile.integer("cache.l1i_kb"))
        assert (b >> 16 & 0xFF, b & 0xFF) == tuple(
            profile.integer(key) for key in ("tlb.dtlb_4k_l1_entries", "tlb.itlb_4k_entries")
        )


@pytest.mark.parametrize("leaf", [0x40000000, 0x7FFFFFFF, 0x800000FF, 0xFFFFFFFF, 12])
def test_beyond_the_highest_leaf(machine: BareMachine, leaf: int) -> None:
    """Intel answers as the highest basic leaf does, AMD with zeros."""
    highest = profile_of(machine).integer("cpuid.highest_leaf")
    expected = cpuid(machine, highest) if is_intel(machine) else (0, 0, 0, 0)
    assert cpuid(machine, leaf) == expected


# -- model-specific registers --------------------------------------------------------------------------------------------------


def check_values(machine: BareMachine, number: int, good: list[int], bad: list[int]) -> int:
    """Good values are kept, bad ones are #GP(0) and change nothing; returns the number of values."""
    for value in good:
        assert write_msr(machine, number, value), hex(value)
        assert read_msr(machine, number) == value
    kept = read_msr(machine, number)
    for value in bad:
        assert not write_msr(machine, number, value), hex(value)
        assert read_msr(machine, number) == kept
    return len(good) + len(bad)


def test_memory_type_registers(machine: BareMachine, capsys) -> None:
    """PAT and MTRRs: every value of every type field, reserved bits, the width of physical addresses."""
    cases = 0
    assert read_msr(machine, 0xFE) == 0x508 and not write_msr(machine, 0xFE, 0x508)
    assert read_msr(machine, 0x277) == 0x0007040600070406
    for place in range(8):
        values = [octet << 8 * place for octet in range(16)]
        good = [value for octet, value in enumerate(values) if octet in (*TYPES, 7)]
        cases += check_values(machine, 0x277, good, [value for value in values if value not in good])
        good = [value for octet, value in enumerate(values) if octet in TYPES]
        for number in (0x250, 0x258, 0x259, 0x268, 0x26F):
            cases += check_values(machine, number, good, [value for value in values if value not in good])
    for number in range(0x200, 0x210, 2):
        good = [0x12345000 | kind for kind in TYPES] + [0xF00000006]
        bad = [2, 3, 7, 8, 0x100, 0x800, 1 << 36, 1 << 63]
        cases += check_values(machine, number, good, bad)
        cases += check_values(machine, number + 1, [0, 0xFFFFFF800, 0xFF0000000], [1, 0x400, 1 << 36, 1 << 40])
    good = [kind | flags for kind, flags in itertools.product(TYPES, (0, 0x400, 0x800, 0xC00))]
    cases += check_values(machine, 0x2FF, good, [2, 7, 8, 0x1006, 0x200, 1 << 32])
    for number in (0x210, 0x24F, 0x251, 0x257, 0x25A, 0x270, 0x2FE):
        assert read_msr(machine, number) == "vector 13" and not write_msr(machine, number, 0)
    with capsys.disabled():
        print(f" {cases}", end="")


def test_machine_check_registers(machine: BareMachine) -> None:
    """Four banks without errors: CTL keeps all bits, the rest takes zeros only."""
    assert read_msr(machine, 0x179) == 4 and not write_msr(machine, 0x179, 4)
    check_values(machine, 0x17A, list(range(8)), [8, 1 << 32])
    assert read_msr(machine, 0x17B) == "vector 13"  # MCG_CTL_P is clear
    for bank in range(4):
        check_values(machine, 0x400 + 4 * bank, [0, 0xFFFFFFFFFFFFFFFF, 1 << 63], [])
        for place in (1, 2, 3):
            check_values(machine, 0x400 + 4 * bank + place, [0], [1, 1 << 63])
    assert read_msr(machine, 0x410) == "vector 13"


def test_extended_feature_enable(machine: BareMachine) -> None:
    """EFER: NXE alone, neither SYSCALL nor long mode; what paging reads follows."""
    check_values(machine, 0xC0000080, [0, 0x800], [1, 0x100, 0x400, 0x801, 1 << 32])
    assert int(machine.cpu.efer) == 0x800
    assert write_msr(machine, 0xC0000080, 0) and int(machine.cpu.efer) == 0


def test_other_registers(machine: BareMachine) -> None:
    """SYSENTER's, the signature of microcode, Intel's own; the APIC is disabled for good; all others are #GP."""
    for number in (0x174, 0x175, 0x176):
        assert write_msr(machine, number, 0x12345678) and read_msr(machine, number) == 0x12345678
    assert write_msr(machine, 0x8B, 0) and read_msr(machine, 0x8B) == 0
    assert (read_msr(machine, 0x17) == 0) == is_intel(machine)
    if is_intel(machine):
        check_values(machine, 0x1A0, [0x1800, 0x1801], [0x1803, 0x401801, 1 << 34])
    else:
        assert read_msr(machine, 0x1A0) == "vector 13"
    check_values(machine, 0x1B, [0xFEE00100], [0xFEE00900, 0xFEC00100, 0x1FEE00100])
    for number in (0, 1, 0x2A, 0xC0000081, 0xC0000100, 0xC0000103, 0xC0010015, 0xFFFFFFFF):
        assert read_msr(machine, number) == "vector 13" and not write_msr(machine, number, 0)


def test_time_stamp_counter(machine: BareMachine) -> None:
    """All 64 bits can be written on these processors; RDTSC and RDMSR agree; CR4.TSD forbids it above ring 0."""
    assert write_msr(machine, 0x10, 0x123456780000000)
    value = read_msr(machine, 0x10)
    assert 0x123456780000000 < value < 0x123456780100000
    machine.write_code(b"\x0f\x31" + HLT)
    for ring, tsd, stopped in ((0, 4, CODE + 2), (3, 0, "vector 13"), (3, 4, "vector 13")):
        machine.ring(ring)
        machine.cpu.cr4 = tsd
        assert machine.stopped_at(machine.go()) == stopped  # HLT is what faults in ring 3 without TSD
        if ring == 3:
            assert machine.get(int(machine.gpr[4]) + 4) == (CODE if tsd else CODE + 2)
        machine.gpr[4] = 0x32000
    machine.cpu.cr4 = 0


def test_control_register_4_follows_the_features(machine: BareMachine) -> None:
    """A bit of CR4 that no feature offers is #GP; CR1, CR5 to CR7 do not exist."""
    machine.write_code(b"\x0f\x22\xe0" + HLT)
    for bit in (11, 12, 13, 16, 20, 31):
        if bit == 13 and has_vmx(machine):
            continue
        machine.gpr[EAX] = 1 << bit
        assert machine.stopped_at(machine.go()) == "vector 13"
        machine.gpr[4] = 0x32000
    for bit in (2, 3, 4, 6, 7, 8, 13)[: 6 + has_vmx(machine)]:
        machine.gpr[EAX] = 1 << bit
        assert machine.stopped_at(machine.go()) == CODE + 3 and int(machine.cpu.cr4) == 1 << bit
    machine.cpu.cr4 = 0
    for number in (1, 5, 6, 7):
        machine.write_code(bytes([0x0F, 0x22, 0xC0 | number << 3]) + HLT)
        assert machine.stopped_at(machine.go()) == "vector 6"
        machine.gpr[4] = 0x32000


def test_a_processor_without_a_feature(tmp_path) -> None:
    """What a profile leaves out is gone: the registers, and the bits of CR4."""
    path = tmp_path / "mine.toml"
    text = 'inherits = "nehalem"\n'
    for key, value in (("cpuid.features", 0x138), ("cpuid.extended_features", 0)):
        text += f'[{key}]\nvalue = {value}\nevidence = "estimated"\nsource = "this test"\n'
    path.write_text(text)
    load_profile(path)
    machine = BareMachine(str(path))
    machine.unlimited()
    for number in (0x174, 0x277, 0x2FF, 0x179, 0x400, 0xC0000080):
        assert read_msr(machine, number) == "vector 13" and not write_msr(machine, number, 0)
    machine.write_code(b"\x0f\x22\xe0" + HLT)
    for bit in (0, 1, 3, 5, 6, 7):
        machine.gpr[EAX] = 1 << bit
        assert machine.stopped_at(machine.go()) == "vector 13"
        machine.gpr[4] = 0x32000
    for code, stopped in (("0f44c1", 6), ("0f34", 6), ("0fae0500000300", 6), ("d9e8", 7)):  # CMOVE, SYSENTER, FXSAVE, FLD1
        machine.write_code(bytes.fromhex(code) + HLT)
        assert machine.stopped_at(machine.go()) == f"vector {stopped}", code
        machine.gpr[4] = 0x32000


# -- instructions that a feature promises ---------------------------------------------------------------------------------

# Bit of leaf 1 EDX: instructions that it promises, and the vector without it.
PROMISED = {
    0: (("d9e8", 7), ("dbe3", 7), ("dd2520000300", 7), ("0fae0500000300", 7)),  # FLD1, FNINIT, FRSTOR, FXSAVE
    4: (("0f31", 6),),  # RDTSC
    5: (("0f32", 6), ("0f30", 6)),
    8: (("0fc70d00000300", 6), ("f00fc70d00000300", 6)),  # CMPXCHG8B
    11: (("0f34", 6), ("0f35", 6)),
    15: (("0f44c1", 6), ("0f4f0500000300", 6), ("dac1", 6), ("dbf1", 6), ("dfe9", 6)),  # CMOV, FCMOV, FCOMI, FUCOMIP
    24: (("0fae0500000300", 6), ("0fae0d00000300", 6)),
}  # fmt: skip
BARE: dict[int, BareMachine] = {}


@pytest.mark.parametrize("bit", PROMISED)
def test_an_instruction_goes_with_its_feature(bit: int) -> None:
    """Without the bit the opcode is none, in both rings; without an FPU an x87 instruction is #NM whatever CR0.EM says."""
    machine = BARE.setdefault(0, BareMachine())
    for code, vector in PROMISED[bit]:
        for ring in (0, 3):
            machine.power_on()
            machine.ring(ring)
            features = int(machine.cpu.cpuid_leaf1_edx)
            machine.cpu.cpuid_leaf1_edx = features & ~(1 << bit)
            machine.write_code(bytes.fromhex(code) + HLT)
            assert machine.stopped_at(machine.go()) == f"vector {vector}", (code, ring)
            machine.cpu.cpuid_leaf1_edx = features
        machine.power_on()
        machine.write_code(bytes.fromhex(code) + HLT)
        assert machine.stopped_at(machine.go()) not in ("vector 6", "vector 7"), code


def ends_as_none(machine: BareMachine, row: Row) -> bool:
    """Whether the processor does not have a row's instruction: #UD, or #NM for those of the FPU."""
    memory_only = any(code.startswith("M") for code in row.operands) and row.modrm != ""
    prepare(machine, 0)
    machine.write_code(encode(row, memory_only) + HLT)
    machine.cpu.rip = CODE
    machine.processor.run(single=True)
    if machine.cpu.rip & ~0xFFF != HANDLERS:
        return False
    return (int(machine.cpu.rip) - HANDLERS) // 16 in (6, 7)


@pytest.mark.parametrize("has_features", (True, False))
def test_every_instruction_of_the_table_is_there_as_cpuid_says(has_features: bool) -> None:
    """With all features every row executes but UD1, UD2 and RSM (outside SMM); with none those that no bit stands for.

    Those of VMX and SVM are there in operation of VMX and under EFER.SVME alone, which this machine has not.
    """
    machine = BARE.setdefault(0, BareMachine())
    features = int(machine.cpu.cpuid_leaf1_edx)
    machine.cpu.cpuid_leaf1_edx = features if has_features else 0
    absent = {row.encoding for row in ROWS if ends_as_none(machine, row)}
    machine.cpu.cpuid_leaf1_edx = features
    expected = {row.encoding for row in ROWS if row.mnemonic in ("UD1", "UD2", "RSM", "VMMCALL")}
    expected |= {row.encoding for row in ROWS if row.operation.removeprefix("system:") in VMX_INSTRUCTIONS | SVM_INSTRUCTIONS}
    if not has_features:
        expected |= {row.encoding for row in ROWS if row.feature != ALWAYS}
        expected |= {row.encoding for row in ROWS if row.operation.startswith("x87:") and row.mnemonic != "WAIT"}
    assert absent == expected


def test_wait_needs_no_fpu() -> None:
    """WAIT looks at CR0.MP and TS alone."""
    machine = BARE.setdefault(0, BareMachine())
    machine.power_on()
    features = int(machine.cpu.cpuid_leaf1_edx)
    machine.cpu.cpuid_leaf1_edx = features & ~1
    machine.write_code(b"\x9b" + HLT)
    assert machine.stopped_at(machine.go()) == CODE + 1
    machine.cpu.cpuid_leaf1_edx = features
