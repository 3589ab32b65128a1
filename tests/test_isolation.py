"""Isolation, checked at every access that originates in a guest operand (core/isolation.py)."""

from __future__ import annotations

import pytest
from guest_sets import portable_guests, short_line
from hypothesis import given, settings
from random_kernels import kernels
from small_kernel import (
    DATA,
    EAX,
    ESP,
    RAM_BYTES,
    Kernel,
    Step,
    load,
    mov,
    push,
    store,
    strategy,
    word,
)
from vmm_judge import VMMS

from x86virt import Strategy, find_guest, load_profile
from x86virt.machine import Machine, RunResult
from x86virt.vmm import Exit, VirtualMachine, layout
from x86virt.vmm.region import region_address
from x86virt.vmm.translation.hash_table import HashTable
from x86virt.vmm.translation.sequences import Writer

MEMORY = 8 << 20
MAX_CYCLES = 2_000_000_000
TARGET = DATA + 0x3000
TrapAndEmulate: type = type(strategy("trap-and-emulate"))
BinaryTranslation: type = type(strategy("binary-translation"))


def run_guest(name: str, which: Strategy, checked: bool) -> RunResult:
    """One run of a shipped guest."""
    machine = Machine(which, load_profile("p4_prescott"), MEMORY, check_isolation=checked)
    machine.load(find_guest(name), short_line(name, 1 if name == "mix" else 2))
    return machine.run(MAX_CYCLES)


def run_kernel(kernel: Kernel, which: Strategy, checked: bool = True) -> RunResult:
    """One run of a small kernel."""
    machine = Machine(which, load_profile("p4_prescott"), RAM_BYTES, check_isolation=checked)
    machine.load(kernel.image())
    return machine.run(MAX_CYCLES)


@pytest.mark.parametrize("under", ("native", "trap-and-emulate", "binary-translation"))
@pytest.mark.parametrize("name", portable_guests())
def test_every_guest_is_clean_and_costs_the_same(name: str, under: str) -> None:
    checked, plain = (run_guest(name, strategy(under), on) for on in (True, False))
    assert checked.outcome == plain.outcome == "halted"
    assert (checked.ticks, checked.instructions, checked.console) == (plain.ticks, plain.instructions, plain.console)
    assert checked.ledger == plain.ledger


@pytest.mark.parametrize("under", VMMS)
@settings(max_examples=30)
@given(kernel=kernels)
def test_random_kernels_are_clean(under: str, kernel: Kernel) -> None:
    checked, plain = (run_kernel(kernel, strategy(under), on) for on in (True, False))
    assert checked.outcome == plain.outcome and not checked.outcome.startswith("isolation")
    assert checked.ticks == plain.ticks


class MapsItself:
    """A strategy whose shadow maps one page of the guest onto a frame of the VMM's."""

    frame = layout.IDT

    def on_page_fault(self, vm: VirtualMachine, exit: Exit) -> None:
        """Fill the shadow, and put another frame there."""
        super().on_page_fault(vm, exit)  # type: ignore[misc]
        if exit.gla >> 12 == TARGET >> 12 and vm.vcpu.cr0 >> 31:
            table = vm.shadow.read_entry(vm.shadow.root + 4 * (exit.gla >> 22)) & 0xFFFFF000
            address = table + 4 * (exit.gla >> 12 & 0x3FF)
            vm.shadow.write_entry(address, region_address(self.frame) | vm.shadow.read_entry(address) & 0xFFF)


class TrapAndEmulateOntoItself(MapsItself, TrapAndEmulate):
    """Trap-and-emulate with this bug."""


class TranslatorOntoItself(MapsItself, BinaryTranslation):
    """Binary translation with this bug, and a frame that translated code itself may reach, in its own way."""

    def __init__(self, frame: int) -> None:
        super().__init__()
        self.frame = frame


OPERANDS = {
    "read": load(EAX, TARGET + 4),
    "write": mov(EAX, 1) + store(TARGET + 8, 1),
    "read-modify-write": b"\xff\x05" + word(TARGET + 8),
    "push": mov(4, TARGET + 0x100) + push(1),
    "string": mov(7, TARGET - 8) + mov(1, 6) + b"\xfc\xf3\xab",
    "across pages": load(EAX, TARGET - 2),
    "fetch": mov(EAX, TARGET) + b"\xff\xe0",
    "fetch across pages": store(TARGET - 4, 0xB8909090) + mov(EAX, TARGET - 4) + b"\xff\xe0",
}


@pytest.mark.parametrize("ring", (0, 3))
@pytest.mark.parametrize("operand", OPERANDS)
def test_a_shadow_that_maps_the_vmm_is_caught_at_the_access(operand: str, ring: int) -> None:
    kernel = Kernel([Step(OPERANDS[operand], ring)])
    assert not run_kernel(kernel, strategy("trap-and-emulate")).outcome.startswith("isolation")
    outcome = run_kernel(kernel, TrapAndEmulateOntoItself()).outcome
    access = {"read": "read", "across pages": "read"}.get(operand, "fetch" if "fetch" in operand else "write")
    if operand == "read-modify-write":
        access = "write"
    assert outcome.startswith(f"isolation: a {access} at linear 0x")
    assert f"reached machine address {layout.IDT:#x}"[:-2] in outcome
    assert not run_kernel(kernel, TrapAndEmulateOntoItself(), checked=False).outcome.startswith("isolation")


GRANTED_PLACES = {
    "vCPU": layout.VCPU_RECORD, "record": layout.TRANSLATOR, "flags": layout.FLAG_TABLES, "hash": layout.HASH,
    "cache": layout.CACHE, "stack": layout.CALLOUT_STACK_TOP - 0x1000,
}  # fmt: skip
ONLY_READ = {"flags", "hash", "cache"}


@pytest.mark.parametrize("name", ("IDT", *GRANTED_PLACES))
@pytest.mark.parametrize("operand", OPERANDS)
def test_the_guests_own_instructions_are_not_granted_what_translated_code_is(operand: str, name: str) -> None:
    """Neither those of a kernel, though they stand in the cache, nor a program's, which run directly."""
    frame = GRANTED_PLACES.get(name, layout.IDT)
    for ring in (3,) if "fetch" in operand else (0, 3):  # a kernel's code is fetched by the VMM, as data
        outcome = run_kernel(Kernel([Step(OPERANDS[operand], ring)]), TranslatorOntoItself(frame)).outcome
        assert outcome.startswith("isolation: a ") and f"reached machine address {frame:#x}"[:-3] in outcome


def with_wrong_frame(under: type, frame: int) -> Strategy:
    """A strategy whose p2m names one of the VMM's frames."""

    class WrongFrame(under):  # type: ignore[misc,valid-type]
        """It has this bug."""

        def setup(self, machine: Machine) -> None:
            """Break the p2m behind the table of owners."""
            machine.vm.p2m[TARGET >> 12] = frame >> 12

    return WrongFrame()


@pytest.mark.parametrize("frame", (layout.GDT, layout.TRANSLATOR))
@pytest.mark.parametrize("under", (TrapAndEmulate, BinaryTranslation))
def test_an_access_that_the_vmm_performs_for_the_guest_is_checked(under: type, frame: int) -> None:
    """LGDT is emulated, and reads its operand through the p2m."""
    kernel = Kernel([Step(b"\x0f\x01\x15" + word(TARGET))])
    outcome = run_kernel(kernel, with_wrong_frame(under, frame)).outcome
    assert outcome.startswith(f"isolation: the VMM's access to guest-physical {TARGET:#x} reaches machine address")


def run_without_truncation(under: str, *steps: Step) -> Machine:
    """A kernel that has run with data segments as large as the guest's own tables have them, under the check."""
    machine = Machine(strategy(under), load_profile("p4_prescott"), RAM_BYTES, check_isolation=True)
    machine.load(Kernel(list(steps)).image())
    while int(machine.processor.cpu.cpl) == 0 or int(machine.processor.cpu.retired) < 20:
        assert machine.advance(int(machine.processor.cpu.retired) + 1)
    original = machine.vm.descriptors.write

    def untruncated(selector: int, descriptor) -> None:
        original(selector, type(descriptor)(descriptor.low | 0xFFFF, descriptor.high | 0xF0000 | 1 << 23))

    machine.vm.descriptors.write = untruncated
    for segment in DATA_SEGMENTS[under]:
        cache = machine.processor.cpu.seg[segment]
        machine.processor.set_segment(segment, int(cache.selector), 0, 0xFFFFFFFF, int(cache.access))
    machine.run(MAX_CYCLES)
    return machine


# With these the guest's own accesses go; GS of translated code is the VMM's. SS is set whenever the VMM resumes.
DATA_SEGMENTS = {"trap-and-emulate": (0, 2, 3, 4, 5), "binary-translation": (0, 2, 3, 4)}


@pytest.mark.parametrize("under", DATA_SEGMENTS)
def test_an_untruncated_segment_is_caught_at_the_access(under: str) -> None:
    """The implicit accesses of the processor to the VMM's tables stay allowed."""
    access = Step(load(EAX, layout.VMM_BASE + layout.IDT))
    outcome = run_without_truncation(under, access, Step(b"\x31\xc9\xf7\xf1")).outcome
    assert outcome.startswith(f"isolation: a read at linear {layout.VMM_BASE + layout.IDT:#x}")


@pytest.mark.parametrize("name", GRANTED_PLACES)
def test_an_untruncated_segment_is_caught_where_translated_code_may_go(name: str) -> None:
    """Operands of identical instructions, and those of sequences that are half the guest's: its stack.

    What translated code only reads the page tables protect from writes as well: there a write faults before it is judged.
    """
    place = layout.VMM_BASE + GRANTED_PLACES[name] + 0x100
    for code, access in (
        (load(EAX, place), "read"), (store(place, 1), "write"), (mov(ESP, place) + b"\xc3", "read"),
        (mov(ESP, place + 4) + b"\x0e", "write"), (mov(ESP, place + 4) + b"\x9c", "write"), (b"\xff\x25" + word(place), "read"),
        (mov(EAX, place) + b"\x8c\x08", "write"),
    ):  # fmt: skip
        machine = run_without_truncation("binary-translation", Step(code))
        if access == "write" and name in ONLY_READ:
            assert machine.outcome.startswith(("unsupported: ", "triple_fault")), (code.hex(), machine.outcome)
            assert int(machine.processor.cpu.cr2) >> 12 == place >> 12
        else:
            assert machine.outcome.startswith(f"isolation: a {access} at linear {place:#x}"), (code.hex(), machine.outcome)


def test_a_translator_that_lets_the_guest_use_its_own_gs_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    place = layout.VMM_BASE + layout.TRANSLATOR
    monkeypatch.setattr(Writer, "uses_segment", lambda self: False)
    outcome = run_kernel(Kernel([Step(b"\x65" + load(EAX, place))]), strategy("binary-translation")).outcome
    assert outcome.startswith(f"isolation: a read at linear {place:#x}")


def test_translated_code_that_leaves_the_cache_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hash table sends it to the VMM's record, which it may read and write but not execute."""
    place = layout.VMM_BASE + layout.TRANSLATOR
    original = HashTable.enter
    monkeypatch.setattr(HashTable, "enter", lambda self, eip, address, context: original(self, eip, place, context))
    call = b"\xe8\x00\x00\x00\x00\x5b\x83\xc3\x06\x53\xc3"  # CALL behind; POP EBX; ADD EBX, 6; PUSH EBX; RET: behind
    outcome = run_kernel(Kernel([Step(b"\xb9\x09\x00\x00\x00" + call + b"\xe2\xf3")]), strategy("binary-translation")).outcome
    assert outcome.startswith(f"isolation: a fetch at linear {place:#x}")
