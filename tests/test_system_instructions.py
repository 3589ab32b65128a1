"""System instructions against Unicorn in ring 0, where Unicorn can tell: stores of system registers, selectors, flags.

Unicorn has neither an IDT nor segment limits, so what faults or depends on limits is tested by other files.
"""

import itertools
import random

import numpy as np
import pytest
from bare_machine import (
    ARITHMETIC,
    CODE,
    DATA,
    DF,
    EAX,
    EBX,
    ECX,
    EDX,
    ESP,
    GDT,
    HLT,
    IF,
    STACK,
    STACK_END,
    ZF,
    BareMachine,
)  # fmt: skip
from descriptor_machine import descriptor
from unicorn_machine import UnicornMachine

MACHINE, ORACLE = BareMachine(), UnicornMachine()
FIRST = 0x30
TYPES = tuple(itertools.product(range(16), (0, 1), range(4), (0, 1)))  # type, S, DPL, present
LIMIT = FIRST + 8 * len(TYPES) - 1
# The access rights that LAR defines; bits 19:16 are undefined (SDM volume 2, LAR).
LAR_DEFINED = 0x00F0FF00
FLAGS = ARITHMETIC | DF | IF


@pytest.fixture(autouse=True, scope="module")
def equal_machines():
    """Equal GDTs with a descriptor of every kind, and equal data."""
    MACHINE.power_on()
    for number, (kind, s, dpl, present) in enumerate(TYPES):
        value = descriptor(0x123450 + number, 0x23456 + number, kind, s, dpl, present, db=1, granular=number & 1)
        MACHINE.put(GDT + FIRST + 8 * number, value, 8)
    MACHINE.cpu.gdtr_limit = LIMIT
    octets = random.Random(2).randbytes(STACK_END - DATA)
    MACHINE.memory[DATA:STACK_END] = np.frombuffer(octets, np.uint8)
    ORACLE.write(DATA, octets)
    ORACLE.load_tables(MACHINE.memory[GDT : GDT + LIMIT + 1].tobytes(), LIMIT)


def both(code: str, registers: list[int], eflags: int) -> tuple[tuple, tuple]:
    """Run on both from one state: (registers, EFLAGS, memory) of ours and Unicorn's."""
    octets = bytes.fromhex(code)
    fault, theirs, _, their_flags = ORACLE.execute(octets, registers, eflags, False)
    assert not fault, fault
    MACHINE.write_code(octets.ljust(16, HLT))
    MACHINE.gpr[:8] = registers
    MACHINE.eflags = eflags
    stopped = MACHINE.stopped_at(MACHINE.go(CODE))
    assert stopped == CODE + len(octets), stopped
    ours = MACHINE.registers(), MACHINE.eflags & FLAGS, MACHINE.memory[DATA:STACK_END].tobytes()
    return ours, (theirs, their_flags & FLAGS, ORACLE.operands())


def start(seed: str) -> tuple[list[int], int]:
    """Random registers with a stack, and flags."""
    rng = random.Random(seed)
    registers = [rng.getrandbits(32) for _ in range(8)]
    registers[ESP] = STACK + 0x1000
    registers[EBX] = DATA + 0x100
    return registers, 2 | rng.getrandbits(12) & (ARITHMETIC | DF)


@pytest.mark.parametrize("rpl", (0, 3))
@pytest.mark.parametrize("name, code", (("lar", "0f02c1"), ("lsl", "0f03c1"), ("verr", "0f00e1"), ("verw", "0f00e9")))
def test_looking_at_every_kind_of_descriptor(name: str, code: str, rpl: int) -> None:
    """LAR, LSL, VERR and VERW of a selector in CX: the answer and ZF."""
    for number, facts in enumerate(TYPES):
        registers, eflags = start(f"{name} {facts} {rpl}")
        registers[ECX] = FIRST + 8 * number | rpl
        ours, theirs = both(code, registers, eflags)
        if name == "lar" and ours[1] & ZF:
            ours[0][EAX] &= LAR_DEFINED
            theirs[0][EAX] &= LAR_DEFINED
        assert ours == theirs, f"{name} of type {facts[0]}, S {facts[1]}, DPL {facts[2]}, P {facts[3]}, RPL {rpl}"


@pytest.mark.parametrize("code", ("0f02c1", "660f02c1", "0f03c1", "660f03c1", "0f00e1", "0f00e9"))
@pytest.mark.parametrize("selector", (0, 3, LIMIT + 1, 0xFFF8), ids=hex)
def test_looking_at_what_no_table_holds(code: str, selector: int) -> None:
    """Null selectors and those beyond the limit clear ZF and change nothing else."""
    registers, eflags = start(code + str(selector))
    registers[ECX] = registers[ECX] & 0xFFFF0000 | selector
    ours, theirs = both(code, registers, eflags | ZF)
    assert ours == theirs
    assert not ours[1] & ZF


STORES = {
    "sgdt": "0f0103", "smsw ax": "660f01e0", "smsw memory": "0f0123", "pushf": "9c", "pushf 16": "669c",
    "mov from cr0": "0f20c0", "mov from cr2": "0f20d1", "mov from cr3": "0f20d8", "cld": "fc", "std": "fd", "cli": "fa",
    "sti": "fb", "clts": "0f06", "arpl": "63c8", "arpl 3": "63d1", "arpl memory": "630b",
}  # fmt: skip


@pytest.mark.parametrize("name", STORES)
def test_storing_and_changing_system_state(name: str) -> None:
    """Registers, flags and memory after each, from several start states."""
    for number in range(10):
        ours, theirs = both(STORES[name], *start(name + str(number)))
        assert ours == theirs, f"{name}, start {number}"


def test_smsw_of_a_32_bit_register_stores_all_of_cr0() -> None:
    """The manual (volume 2, SMSW) names CR0[31:0]; Unicorn stores its low word only, so the words are compared."""
    (ours, _, _), (theirs, _, _) = both("0f01e0", *start("smsw"))
    assert ours[EAX] & 0xFFFF == theirs[EAX] & 0xFFFF
    assert ours[EAX] == MACHINE.cpu.cr0


@pytest.mark.parametrize("code", ("9d", "669d"))
def test_popf_at_ring_0(code: str) -> None:
    """POPF loads every flag that this comparison knows, TF aside."""
    for number in range(50):
        registers, eflags = start(code + str(number))
        image = random.Random(number).getrandbits(32) & (FLAGS & ~IF)
        for write in (lambda at, octets: MACHINE.memory.__setitem__(slice(at, at + 4), list(octets)), ORACLE.write):
            write(registers[ESP], image.to_bytes(4, "little"))
        ours, theirs = both(code, registers, eflags)
        assert ours == theirs
        assert ours[1] == image & FLAGS


@pytest.mark.parametrize("sreg", (0, 2, 3, 4, 5))
def test_a_selector_that_was_loaded_is_stored(sreg: int) -> None:
    """MOV to and from a segment register, PUSH and POP: a flat data segment's selector in both machines."""
    selector = FIRST + 8 * TYPES.index((3, 1, 0, 1))
    registers, eflags = start(str(sreg))
    registers[EDX] = selector
    load, store = f"8e{0xC2 | sreg << 3:02x}", f"8c{0xC0 | sreg << 3:02x}"
    base = MACHINE.cpu.seg[sreg].copy()
    MACHINE.write_code(bytes.fromhex(load + store) + HLT)
    MACHINE.gpr[:8] = registers
    MACHINE.stopped_at(MACHINE.go(CODE))
    assert MACHINE.gpr[EAX] == selector
    cache = MACHINE.cpu.seg[sreg]
    number = TYPES.index((3, 1, 0, 1))
    limit = 0x23456 + number
    assert cache.limit == (limit << 12 | 0xFFF if number & 1 else limit)
    assert cache.seg_base == 0x123450 + number
    MACHINE.cpu.seg[sreg] = base
