"""The checks of VM entry against a model from the manual's lists: one field off at a time, and random combinations."""

import itertools
import random

import pytest
from vmx_entry_model import Processor, answer
from vmx_machine import (
    DATA_0,
    IO_BITMAPS,
    MSR_AREA,
    MSR_BITMAPS,
    OTHER_REGION,
    REGION,
    VmxMachine,
    guest_segment,
    host_state,
)

from x86virt.isa.registers import FEATURE_NX
from x86virt.isa.vmx import (
    FIELDS,
    HOST,
    NATURAL,
    READ_ONLY,
    VMX_CR4_FIXED1,
    VMX_ENTRY,
    VMX_EXIT,
    VMX_PINBASED,
    VMX_PROCBASED,
    VMX_PROCBASED2,
    VMX_TRUE_ENTRY,
    VMX_TRUE_EXIT,
    VMX_TRUE_PINBASED,
    VMX_TRUE_PROCBASED,
)

PROFILES = ("p4_prescott", "core2_woodcrest", "core2_harpertown", "nehalem")
NAMES = [field.key for field in FIELDS]
WIDTHS = {field.key: field.width or 32 for field in FIELDS}
CHECKED = [field.key for field in FIELDS if field.group != READ_ONLY]
PRIMARY, SECONDARY = "primary_processor_based_vm_execution_controls", "secondary_processor_based_vm_execution_controls"
PIN, EXIT, ENTRY = "pin_based_vm_execution_controls", "vm_exit_controls", "vm_entry_controls"
EVENT = "vm_entry_interruption_information"
EPTP = 0x60000 | 3 << 3 | 6


def halves(value: int) -> tuple[int, int]:
    """A capability register of controls."""
    return value & 0xFFFFFFFF, value >> 32


def processor_of(machine: VmxMachine) -> Processor:
    """What the model must know of a machine."""
    numbers = [VMX_PINBASED, VMX_PROCBASED, VMX_EXIT, VMX_ENTRY]
    if machine.capability(0) >> 55 & 1:
        numbers = [VMX_TRUE_PINBASED, VMX_TRUE_PROCBASED, VMX_TRUE_EXIT, VMX_TRUE_ENTRY]
    pin, primary, exits, entries = (halves(machine.capability(number)) for number in numbers)
    size = len(machine.processor.ram)
    return Processor(
        pin, primary, halves(machine.capability(VMX_PROCBASED2)), exits, entries, machine.capability(VMX_CR4_FIXED1),
        int(machine.cpu.msr.physical_bits), bool(machine.cpu.msr.extended_features >> FEATURE_NX & 1),
        machine.capability(0) & 0x7FFFFFFF, REGION,
        lambda address: machine.get(address) if address < size else 0xFFFFFFFF,
    )  # fmt: skip


class Bench:
    """A machine, the model of its processor, and how the two are compared."""

    def __init__(self, profile: str) -> None:
        self.machine = VmxMachine(profile)
        self.offered = {name: int(flag) for name, flag in zip(NAMES, self.machine.cpu.vmx.field_offered, strict=True)}
        self.plain = dict.fromkeys(NAMES, 0) | self.machine.fields
        self.processor = processor_of(self.machine)
        self.answers: dict[str, int] = {}

    def compare(self, changes: dict[str, int]) -> None:
        """One VM entry, whose VMCS has some fields changed, here and in the model."""
        vmcs = self.plain | changes
        expected = answer(self.processor, vmcs)
        machine = self.machine
        machine.to_host()
        machine.store_all(vmcs)
        found = machine.enter()
        assert found == expected, changes
        if found != "entered":
            assert machine.get(REGION + 8) == 0  # the launch state is as it was
        self.answers[found] = self.answers.get(found, 0) + 1


@pytest.fixture(scope="module", params=PROFILES)
def bench(request: pytest.FixtureRequest) -> Bench:
    """A bench of each profile with VMX."""
    return Bench(request.param)


def variants(bench: Bench) -> list[dict[str, int]]:
    """VMCSs that may be entered and look at different fields: every one is a start for changes."""
    may = {PIN: bench.processor.pin[1], PRIMARY: bench.processor.primary[1], SECONDARY: bench.processor.secondary[1]}
    everything = {
        **may, EXIT: bench.processor.exit_controls[1], ENTRY: bench.processor.entry_controls[1],
        "address_of_i_o_bitmap_a": IO_BITMAPS, "address_of_i_o_bitmap_b": IO_BITMAPS + 0x1000,
        "address_of_msr_bitmaps": MSR_BITMAPS,
        "ept_pointer": EPTP, "virtual_processor_identifier": 1, "cr3_target_count": 4, "vmx_preemption_timer_value": 1000,
        "guest_ia32_pat": 0x0007040600070406, "host_ia32_pat": 0x0007040600070406, "vmcs_link_pointer": OTHER_REGION,
    }  # fmt: skip
    v86 = {f"guest_{name}_{part}": value for name in ("es", "cs", "ss", "ds", "fs", "gs")
           for part, value in (("selector", 0x1C00), ("base", 0x1C000), ("limit", 0xFFFF), ("access_rights", 0xF3))}
    ring_3 = {f"guest_{name}_{part}": value for name in ("es", "cs", "ss", "ds", "fs", "gs")
              for part, value in (("selector", 0x23), ("access_rights", 0xC0FB if name == "cs" else 0xC0F3))}
    held = {"guest_interruptibility_state": 2}
    return [
        {},
        everything,
        v86 | {"guest_rflags": 1 << 17 | 2},
        ring_3,
        {"guest_rflags": 0x202, "guest_interruptibility_state": 1},
        held | {EVENT: 1 << 31 | 6 << 8 | 3, "vm_entry_instruction_length": 1},
        {"guest_activity_state": 1, "guest_rflags": 0x302, "guest_pending_debug_exceptions": 1 << 14},
        {"guest_activity_state": 1, "guest_rflags": 0x202, EVENT: 1 << 31 | 0x20},
        {EVENT: 1 << 31 | 1 << 11 | 3 << 8 | 13, "vm_entry_exception_error_code": 0x18},
        {EVENT: 1 << 31 | 2 << 8 | 2, PIN: bench.processor.pin[1] & ~0x40},
        guest_segment("ldtr", 0x30, 0x1000, 0x67, 0x82) | guest_segment("tr", 0x28, 0x3000, 0x67, 0x83),
        {"guest_cr4": 0x2020, "guest_cr3": MSR_AREA},
    ]  # fmt: skip


def changed(bench: Bench, start: dict[str, int], name: str) -> list[int]:
    """Values of a field that differ from that of a start in one bit, and some of use."""
    value = (bench.plain | start)[name]
    width = WIDTHS[name]
    flips = [value ^ 1 << number for number in range(width)]
    return [*flips, 0, (1 << width) - 1]


def test_every_field_off_by_one_bit(bench: Bench) -> None:
    """All fields that are checked or loaded, every bit of each flipped, in each variant of a valid VMCS.

    All of them in two variants on the processor that has most; elsewhere one bit of five.
    """
    starts = variants(bench)
    for number, start in enumerate(starts):
        bench.compare(start)
        step = 1 if number < 2 and bench.offered["ept_pointer"] else 5
        for place, name in enumerate(CHECKED):
            for value in changed(bench, start, name)[(number + place) % step :: step]:
                bench.compare(start | {name: value})
    assert {"entered", "error 7", "error 8", "exit 33 0", "exit 33 2", "exit 33 4"} <= set(bench.answers)


def test_segment_rights_and_levels(bench: Bench) -> None:
    """Types, DPLs, RPLs and the S bit of each segment register against those of CS and SS."""
    generator = random.Random(1)
    for name in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr"):
        for kind, s, dpl, rpl in itertools.product(range(16), (0, 1), range(4), range(4)):
            rights = kind | s << 4 | dpl << 5 | 0x80
            level = generator.randrange(4)
            changes = {f"guest_{name}_access_rights": rights, f"guest_{name}_selector": 8 | rpl, f"guest_{name}_limit": 0xFFFF}
            others = {"guest_ss_selector": 8 | level, "guest_cs_selector": 8 | level,
                      "guest_ss_access_rights": 0xC093 | level << 5, "guest_cs_access_rights": 0xC09B | level << 5}
            bench.compare(others | changes)


# Interruptibility, activity, RFLAGS, instruction length.
SITUATIONS = ((0, 0, 2, 1), (0, 0, 0x202, 0), (2, 0, 2, 15), (8, 0, 2, 16), (0, 1, 0x202, 2), (1, 0, 0x202, 3))


def test_injected_events(bench: Bench) -> None:
    """Every type, vector and error-code bit, with each activity state and what blocks."""
    for kind, vector, code in itertools.product(range(8), (*range(34), 128, 255), (0, 1)):
        for state, activity, flags, length in SITUATIONS:
            bench.compare(
                {
                    EVENT: 1 << 31 | code << 11 | kind << 8 | vector, "guest_interruptibility_state": state,
                    "guest_activity_state": activity, "guest_rflags": flags, "vm_entry_instruction_length": length,
                }
            )  # fmt: skip


def random_change(bench: Bench, generator: random.Random, start: dict[str, int]) -> tuple[str, int]:
    """A field and a value for it: a bit flipped, small, or anything."""
    name = generator.choice(CHECKED)
    value = (bench.plain | start)[name]
    way = generator.randrange(4)
    if way < 2:
        return name, value ^ 1 << generator.randrange(WIDTHS[name])
    if way == 2:
        return name, generator.randrange(32)
    return name, generator.getrandbits(WIDTHS[name])


def test_random_combinations(bench: Bench) -> None:
    """Up to three changes of a variant at once."""
    generator = random.Random(7)
    starts = variants(bench)
    for _ in range(1500):
        start = generator.choice(starts)
        changes = dict(random_change(bench, generator, start) for _ in range(generator.randrange(1, 4)))
        bench.compare(start | changes)


def test_pointers_of_pae_paging(bench: Bench) -> None:
    """PDPTEs with each bit, in memory and, with EPT, in the VMCS."""
    has_ept = bench.processor.secondary[1] >> 1 & 1
    for number in range(64):
        entry = 1 | 1 << number
        bench.machine.put(MSR_AREA + 16, entry, 8)
        bench.compare({"guest_cr4": 0x2020, "guest_cr3": MSR_AREA})
        bench.machine.put(MSR_AREA + 16, entry & ~1, 8)
        bench.compare({"guest_cr4": 0x2020, "guest_cr3": MSR_AREA})
        if has_ept:
            ept = {PRIMARY: bench.plain[PRIMARY] | 1 << 31, SECONDARY: 2, "ept_pointer": EPTP, "guest_cr4": 0x2020}
            bench.compare(ept | {"guest_pdpte2": entry})
            bench.compare(ept | {"guest_pdpte2": entry & ~1})
    bench.machine.put(MSR_AREA + 16, 0, 8)


def test_host_selectors(bench: Bench) -> None:
    """Each of the host's selectors with each of its low bits, and null."""
    names = [name for name in host_state() if name.endswith("selector")]
    for name, value in itertools.product(names, (0, 1, 2, 4, 8, DATA_0, DATA_0 | 4, 0xFFF8)):
        bench.compare({name: value})


def test_the_groups_are_complete() -> None:
    """Every field is compared: none is of a kind that `CHECKED` leaves out but the exit information."""
    assert len(CHECKED) == len(NAMES) - sum(field.group == READ_ONLY for field in FIELDS)
    assert any(field.group == HOST for field in FIELDS) and {WIDTHS[name] for name in NAMES} == {16, 32, 64}
    assert NATURAL == 0
