"""Hostile contents of a VMCS and a VMCB, before and while the guest runs: whatever they say, the run ends as a run may end.

A processor with undefined behaviour may do anything, this one not: no index outside, no exception of Python's, no endless loop.
The long run, with counts: `X86VIRT_BOUNDSCHECK=1 python tests/test_hostile_guests.py 20000`.
"""

from __future__ import annotations

import random
import sys
from collections import Counter

import pytest
from bare_machine import CODE, DATA, DIRECTORY, GDT, IDT, STACK, TABLE, BareMachine
from hypothesis import given, settings
from hypothesis import strategies as st
from svm_machine import FIELDS, GUEST, VMCB, SvmMachine
from vmx_guest import IO_BITMAPS, MSR_AREAS, MSR_BITMAPS, VMCS, VMXON_REGION, VmxGuest

from x86virt.core import layout
from x86virt.core.vmx_entries import vmx_enter
from x86virt.isa import vmx

NESTED_TABLES = 0x60000
EPT_POINTER = NESTED_TABLES | 3 << 3 | 6  # four levels, write-back
FEW = settings(max_examples=40, deadline=None)
INSTRUCTIONS = 300
OUTCOMES = {
    layout.SHUTDOWN, layout.BUDGET, layout.RETIRED_LIMIT, layout.HOOK, layout.MARK, layout.BOARD, layout.HALTED_FOREVER,
}  # fmt: skip
PLACES = (0, CODE, DATA, DIRECTORY, GDT, IDT, STACK, TABLE, IO_BITMAPS, MSR_AREAS, MSR_BITMAPS, VMCS, VMXON_REGION, 0x100000)
# Instructions that a guest is left for, with a few that change what is looked at then.
PIECES = (
    b"\x0f\xa2", b"\xf4", b"\xfb", b"\xfa", b"\x9c\x9d", b"\xcd\x20", b"\xcc", b"\xce", b"\xf1", b"\xcf", b"\x0f\x0b",
    b"\x0f\x31", b"\x0f\x32", b"\x0f\x30", b"\xe4\x80", b"\xef", b"\x6c", b"\xf3\x6f", b"\x0f\x01\x3b",
    b"\x0f\x22\xd8", b"\x0f\x20\xc0", b"\x0f\x22\xc0", b"\x0f\x22\xe0", b"\x0f\x01\xf0", b"\x0f\x06", b"\x0f\x21\xf8",
    b"\x0f\x23\xf8", b"\x0f\x01\x13", b"\x0f\x00\xd8", b"\x8e\xd0", b"\x8e\xd8", b"\xa1\x00\x00\x02\x00",
    b"\xa3\x00\x00\x80\x00", b"\x9a\x00\x00\x00\x00\x28\x00", b"\xea\x00\x00\x00\x00\x28\x00", b"\x0f\x01\xc1",
    b"\x0f\x01\xc3", b"\x0f\x01\xd8", b"\x0f\x01\xd9", b"\x0f\x01\xda", b"\x0f\x01\xdb", b"\x0f\x01\xdc", b"\x0f\x09",
    b"\xf3\x90", b"\x0f\x34", b"\x0f\x35", b"\xd9\xc0", b"\x90", b"\xeb\xfe",
)  # fmt: skip


def number(chance: random.Random) -> int:
    """A number that something may stumble over."""
    return chance.choice(
        [
            0, 1, 2, 0x7F, 0xFF, 0xFFFF, 0xFFFFFFFF, (1 << 64) - 1, 1 << 63, 1 << chance.randrange(64),
            chance.randrange(1 << 16), chance.randrange(1 << 32), chance.randrange(1 << 64), chance.choice(PLACES),
            chance.choice(PLACES) | chance.randrange(1 << 12),
        ]
    )  # fmt: skip


def code(chance: random.Random) -> bytes:
    """Some guest code: known pieces, or any bytes."""
    if chance.random() < 0.2:
        return chance.randbytes(64)
    return b"".join(chance.choice(PIECES) for _ in range(12)) + b"\xeb\xfe"


def any_registers(machine: BareMachine, chance: random.Random) -> None:
    """General registers of which some are addresses."""
    for register in range(8):
        machine.gpr[register] = number(chance) & 0xFFFFFFFF


def run_on(machine: BareMachine) -> int:
    """Run for a while: the outcome, which is one that a run may have; the processor is somewhere."""
    cpu = machine.cpu
    cpu.mark = 0
    cpu.retired_limit = cpu.retired + INSTRUCTIONS
    cpu.budget = cpu.ticks + (1_000_000 << 6)
    outcome = machine.processor.run()
    assert outcome in OUTCOMES, outcome
    assert 0 <= cpu.world <= 2 and 0 <= cpu.cpl <= 3 and 0 <= cpu.rip <= 0xFFFFFFFF
    assert all(0 <= value <= 0xFFFFFFFF for value in machine.registers())
    machine.processor.boards["attention"] = 0
    return outcome


# -- VMX --------------------------------------------------------------------------------------------------------------------


def spoil_vmcs(machine: VmxGuest, chance: random.Random, most: int) -> None:
    """Some fields of the VMCS anything, now and then all of them."""
    fields = VMCS + vmx.REGION_FIELDS
    if chance.random() < 0.1:
        octets = chance.randbytes(8 * vmx.N_FIELDS)
        for place in range(0, len(octets), 8):
            machine.put(fields + place, int.from_bytes(octets[place : place + 8], "little"), 8)
    for _ in range(chance.randrange(most + 1)):
        place = fields + 8 * chance.randrange(vmx.N_FIELDS)
        value = chance.choice([number(chance), machine.get(place, 8) ^ 1 << chance.randrange(32)])
        machine.put(place, value & (1 << 64) - 1, 8)


def lay_nested_tables(machine: VmxGuest, chance: random.Random) -> None:
    """Extended page tables of four levels that map the first 2 MB to themselves, some entries of them spoiled."""
    machine.memory[NESTED_TABLES : NESTED_TABLES + 0x4000] = 0
    for level in range(3):
        machine.put(NESTED_TABLES + 0x1000 * level, NESTED_TABLES + 0x1000 * (level + 1) | 7, 8)
    for page in range(512):
        machine.put(NESTED_TABLES + 0x3000 + 8 * page, page << 12 | 0x37, 8)
    if chance.random() < 0.5:
        machine.put(NESTED_TABLES + 0x2000, 0xB7, 8)  # one page of 2 MB
    for _ in range(chance.randrange(4)):
        level = chance.randrange(4)
        place = NESTED_TABLES + 0x1000 * level + 8 * (chance.randrange(256) if level == 3 else 0)
        machine.put(place, (machine.get(place, 8) ^ 1 << chance.randrange(64)) if level == 3 else number(chance), 8)


def any_controls(machine: VmxGuest, chance: random.Random) -> None:
    """Controls that the processor allows, at random."""
    capability = [int(value) & (1 << 64) - 1 for value in machine.cpu.msr.vmx_capability]

    def some(register: int) -> int:
        must, may = capability[register] & 0xFFFFFFFF, capability[register] >> 32
        return must | may & chance.randrange(1 << 32)

    if chance.random() < 0.8:
        nmis = chance.choice([0, vmx.PIN_NMI_EXITING, vmx.PIN_NMI_EXITING | vmx.PIN_VIRTUAL_NMIS])
        window = 0 if nmis & vmx.PIN_VIRTUAL_NMIS else vmx.PROCESSOR_NMI_WINDOW_EXITING
        pin = some(vmx.VMX_PINBASED) & ~(vmx.PIN_NMI_EXITING | vmx.PIN_VIRTUAL_NMIS) | nmis
        machine.set_field("PIN_CONTROLS", pin | vmx.PIN_PREEMPTION_TIMER)
        machine.set_field("PROCESSOR_CONTROLS", some(vmx.VMX_PROCBASED) & ~window)
        machine.set_field("SECONDARY_CONTROLS", some(vmx.VMX_PROCBASED2))
        machine.set_field("EPT_POINTER", EPT_POINTER)
        lay_nested_tables(machine, chance)
        machine.set_field("EXIT_CONTROLS", some(vmx.VMX_EXIT))
        machine.set_field("ENTRY_CONTROLS", some(vmx.VMX_ENTRY) & ~(vmx.ENTRY_SMM | vmx.ENTRY_DEACTIVATE_DUAL_MONITOR))
        machine.set_field("VPID", 1)
        machine.set_field("GUEST_PAT", 0x0007040600070406)
        machine.set_field("HOST_PAT", 0x0007040600070406)
        machine.set_field("EXCEPTION_BITMAP", chance.randrange(1 << 32))
        machine.set_field("CR0_MASK", number(chance))
        machine.set_field("PREEMPTION_TIMER", chance.randrange(1000))


def attack_vmx(machine: VmxGuest, seed: int) -> str:
    """One attack: how far it came."""
    chance = random.Random(seed)
    machine.begin()
    machine.cpu.cr3, machine.cpu.dr[:4] = DIRECTORY, [number(chance) & 0xFFFFFFFF for _ in range(4)]
    machine.cpu.timer_pending = chance.randrange(2)
    machine.cpu.timer_vector = 0x20
    machine.write_code(code(chance))
    if chance.random() < 0.3:
        machine.guest_ring(3, v86=chance.random() < 0.5)
    any_controls(machine, chance)
    spoil_vmcs(machine, chance, 3)
    any_registers(machine, chance)
    outcome, result = vmx_enter(machine.processor.state, machine.memory, int(chance.randrange(8) == 0))
    assert outcome in (layout.OK, layout.SHUTDOWN)
    if result != 0 or outcome == layout.SHUTDOWN:
        return f"entry ended with outcome {outcome}, result {result}"
    entered = machine.cpu.world == layout.VMX_NON_ROOT
    if entered:
        run_on(machine)
        spoil_vmcs(machine, chance, 12)  # by another program, or by the guest itself
    outcome = run_on(machine)
    return f"{'guest' if entered else 'entry failed'}, outcome {outcome}"


# -- SVM --------------------------------------------------------------------------------------------------------------------


def spoil_vmcb(machine: SvmMachine, chance: random.Random, most: int) -> None:
    """Some fields of the VMCB anything, now and then all of it."""
    if chance.random() < 0.1:
        machine.memory[VMCB : VMCB + 0x1000] = list(chance.randbytes(0x1000))
    for _ in range(chance.randrange(most + 1)):
        name = chance.choice([*FIELDS])
        value = chance.choice([number(chance), machine.field(name) ^ 1 << chance.randrange(32)])
        machine.set(name, value)


def attack_svm(machine: SvmMachine, seed: int) -> str:
    """One attack: how far it came."""
    chance = random.Random(seed)
    machine.prepare()
    machine.write_code(code(chance), GUEST)
    machine.set("intercepts_1", chance.randrange(1 << 32) & chance.randrange(1 << 32))
    machine.set("intercepts_2", chance.randrange(1 << 10) | 1)
    machine.set("exceptions", chance.randrange(1 << 32) & chance.randrange(1 << 32))
    if chance.random() < 0.4:
        machine.set("nested", 1)
        machine.set("nested_cr3", DIRECTORY)
        for _ in range(chance.randrange(3)):
            machine.put(TABLE + 4 * chance.randrange(256), number(chance) & 0xFFFFFFFF)
        if chance.random() < 0.2:
            machine.put(DIRECTORY, number(chance) & 0xFFFFFFFF)
    spoil_vmcb(machine, chance, 4)
    any_registers(machine, chance)
    machine.gpr[0] = chance.choice([VMCB] * 9 + [number(chance) & 0xFFFFFFFF])
    machine.cpu.rip = CODE
    machine.cpu.halted = 0
    outcome = run_on(machine)
    entered = machine.cpu.world == layout.SVM_GUEST
    if entered:
        spoil_vmcb(machine, chance, 12)
        outcome = run_on(machine)
    return f"{'guest' if entered else 'host'}, outcome {outcome}"


# -- the tests --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vmx_machine() -> VmxGuest:
    return VmxGuest()


@pytest.fixture(scope="module")
def svm_machine() -> SvmMachine:
    return SvmMachine()


@FEW
@given(seed=st.integers(0, 1 << 40))
def test_any_vmcs(vmx_machine: VmxGuest, seed: int) -> None:
    attack_vmx(vmx_machine, seed)


@FEW
@given(seed=st.integers(0, 1 << 40))
def test_any_vmcb(svm_machine: SvmMachine, seed: int) -> None:
    attack_svm(svm_machine, seed)


def main() -> None:
    """The long run: how often each end was come to."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    first = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for name, machine, attack in (("VMX", VmxGuest(), attack_vmx), ("SVM", SvmMachine(), attack_svm)):
        ends: Counter[str] = Counter()
        for seed in range(first, first + count):
            try:
                ends[attack(machine, seed)] += 1  # type: ignore[arg-type]
            except BaseException:
                print(f"{name}: seed {seed}")
                raise
        print(name, count, "attacks")
        for end, n in ends.most_common():
            print(f"  {n:6} {end}")


if __name__ == "__main__":
    main()
