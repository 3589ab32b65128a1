"""Far jumps, calls and returns of both operand sizes in every mode, by permutation against `far_model`."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

from descriptor_machine import (
    CS,
    DS,
    ES,
    RAM_SIZE,
    SS,
    TR,
    TSS,
    descriptor,
    gate,
    put,
    reset,
    set_descriptor,
    set_segment,
    set_system,
)
from far_model import FarModel
from task_cases import Bench, what_differs
from task_model import Registers

from x86virt.core.far_call import far_call
from x86virt.core.far_jump import far_jump
from x86virt.core.far_return import far_return
from x86virt.core.flags import get_eflags
from x86virt.core.jit import kernel
from x86virt.core.layout import OK

GATE, CODE, STACK = 0x28, 0x30, 0x38
OLD_STACK, NEW_STACK = 0x8000, 0x9000
VM = 1 << 17
DO_JUMP, DO_CALL, DO_RETURN = range(3)


@kernel
def execute(state, ram, what, selector, offset, n):
    """One far transfer."""
    cpu = state[0]
    if what == DO_JUMP:
        return far_jump(cpu, ram, selector, offset)
    if what == DO_CALL:
        return far_call(cpu, ram, selector, offset, n)
    return far_return(cpu, ram, offset, n)


@dataclass(frozen=True)
class Case:
    """One far transfer."""

    what: str = "call"
    mode: str = "protected"  # real, v86
    n: int = 4
    cpl: int = 0
    gate: int = 0  # type of the gate, 0 none
    gate_dpl: int = 3
    rpl: int = 0
    present: bool = True
    code_kind: int = 11
    code_dpl: int = 0
    code_present: bool = True
    code_limit: int = 0xFFFF
    offset: int = 0x5678
    count: int = 0
    wide_tss: bool = True
    stack: str = ""
    room: int = 0x7000  # bytes between the stack pointer and the end of what the segment allows
    wide_stack: bool = True
    expand_down: bool = False
    released: int = 0

    def __str__(self) -> str:
        return what_differs(self)


def lay(bench: Bench, case: Case) -> tuple[int, int]:
    """Lay a case out: (selector, offset) of the instruction."""
    cpu, ram = bench.cpu, bench.ram
    cpl = {"real": 0, "v86": 3}.get(case.mode, case.cpl)
    reset(cpu, ram, cpl, stack=OLD_STACK, eflags=2 | (VM if case.mode == "v86" else 0))
    cpu.cr0 = 0 if case.mode == "real" else 1
    cpu.gpr[:8] = [0x51520000 + 0x111 * n for n in range(8)]
    cpu.rip = 0x12345678 if case.mode == "protected" else 0x1234
    cpu.debug_pending = 0
    set_system(cpu, TR, 0xE0, TSS, 0x67 if case.wide_tss else 0x2B, 11 if case.wide_tss else 3)
    if case.mode != "protected":
        for n in range(6):
            set_segment(cpu, n, n << 4, n << 8, 0xFFFF, 3, cpl, db=0)
        cpu.seg[CS].limit = case.code_limit
    inner = case.what == "call" and case.gate and case.code_dpl < cpl and case.code_kind < 12
    # Full of numbers that tell where they came from.
    for n in range(0, 0x200, 4):
        put(ram, OLD_STACK + n, 4, 0xABC00000 + 0x1001 * n)
    kind = 7 if case.expand_down else 3
    end = NEW_STACK if inner else OLD_STACK
    limit = end - case.room - 1 if case.expand_down else 0xFFFF
    pointer = end
    if not case.expand_down and case.room < 0x7000:
        pointer = case.room
    cpu.gpr[4] = (OLD_STACK if inner else pointer) | (0 if case.wide_stack else 0x990000)
    set_segment(cpu, SS, 0xF8 | cpl if case.mode == "protected" else 0, 0, 0xFFFF, 3, cpl, db=int(case.wide_stack))
    if not inner:
        cpu.seg[SS].limit = limit
        cpu.seg[SS].access = cpu.seg[SS].access & ~15 | kind
    for segment, data_dpl in ((DS, cpl), (ES, 3)):
        set_segment(cpu, segment, 0x50 | cpl, 0, 0xFFFF, 3, data_dpl)
    level = case.code_dpl if inner else case.rpl
    stack_rpl, stack_dpl, stack_kind, stack_present = level, level, kind if inner else 3, True
    if case.stack == "rpl":
        stack_rpl ^= 1
    elif case.stack == "dpl":
        stack_dpl ^= 1
    elif case.stack == "kind":
        stack_kind = 1
    elif case.stack == "absent":
        stack_present = False
    stack_selector = {"null": 1, "beyond": 0x7F8 | level}.get(case.stack, STACK | stack_rpl)
    value = descriptor(0, limit if inner else 0xFFFF, stack_kind & ~1, 1, stack_dpl, stack_present, db=int(case.wide_stack))
    set_descriptor(ram, STACK, value)
    size, at = (4, 4 + 8 * case.code_dpl) if case.wide_tss else (2, 2 + 4 * case.code_dpl)
    put(ram, TSS + at, size, pointer)
    put(ram, TSS + at + size, 2, stack_selector)
    value = descriptor(0, case.code_limit, case.code_kind & ~1, 1, case.code_dpl, case.code_present)
    set_descriptor(ram, CODE, value)
    if case.what == "ret":
        put_return(bench, case, stack_selector)
        return 0, case.released
    if case.gate:
        value = gate(CODE | 3, case.offset, case.gate, dpl=case.gate_dpl, present=case.present, count=case.count)
        set_descriptor(ram, GATE, value)
        return GATE | case.rpl, 0xDEAD
    return CODE | case.rpl, case.offset


def put_return(bench: Bench, case: Case, stack_selector: int) -> None:
    """A return frame where the stack pointer is."""
    at = int(bench.cpu.gpr[4]) & (0xFFFFFFFF if case.wide_stack else 0xFFFF)
    for number, value in enumerate((case.offset, CODE | case.rpl)):
        put(bench.ram, at + case.n * number, case.n, value)
    at += 2 * case.n + case.released
    for number, value in enumerate((0x6543A000, stack_selector)):
        put(bench.ram, at + case.n * number, case.n, value)


def compare(bench: Bench, case: Case) -> list[str]:
    """Lay out, execute, compare: the differences in words."""
    selector, offset = lay(bench, case)
    bench.flags[0] = get_eflags(bench.cpu)
    model = FarModel(bench.registers(), bytearray(bench.ram[:RAM_SIZE].tobytes()))
    expected = model.run_far(case.what, selector, offset, case.n)
    what = {"jmp": DO_JUMP, "call": DO_CALL, "ret": DO_RETURN}[case.what]
    outcome = execute(bench.state, bench.ram, what, selector, offset, case.n)
    fault = None if outcome == OK else (int(bench.cpu.event_vector), int(bench.cpu.event_error))
    found = []
    if fault != expected.fault or outcome > 1:
        found.append(f"outcome {outcome}, exception {fault}, model {expected.fault}")
    got = bench.registers()
    for item in fields(Registers):
        if getattr(got, item.name) != getattr(expected.registers, item.name):
            found.append(f"{item.name} {getattr(got, item.name)}, model {getattr(expected.registers, item.name)}")
    memory = bench.ram[:RAM_SIZE].tobytes()
    if fault is None and memory != bytes(expected.memory):
        places = [n for n in range(RAM_SIZE) if memory[n] != expected.memory[n]]
        found.append(f"memory at {', '.join(hex(n) for n in places[:8])}")
    if int(bench.cpu.ledger_count.sum()) != int(fault is None):
        found.append(f"{int(bench.cpu.ledger_count.sum())} events charged")
    return found


ROOMS = (0, 2, 3, 4, 5, 6, 7, 8, 12, 16, 20, 0x7000)


def call_gates() -> Iterator[Case]:
    """Size x count x CPL x DPL x conforming x TSS format x stack size and room, and the gate's own rights."""
    every = itertools.product(
        ("jmp", "call"), (4, 12), (0, 1, 2, 31), range(4), range(4), (3, 11, 15), (True, False), (True, False)
    )
    for what, kind, count, cpl, dpl, code_kind, wide_tss, wide_stack in every:
        case = Case(
            what, gate=kind, count=count, cpl=cpl, code_dpl=dpl, code_kind=code_kind, wide_tss=wide_tss,
            wide_stack=wide_stack, offset=0x12345678, code_limit=0xFFFF,
        )  # fmt: skip
        if kind == 4:
            yield case  # the upper half of the offset is not a 16-bit gate's
        case = replace(case, offset=0x5678)
        yield case
        size = 4 if kind == 12 else 2
        for room in {size * (4 + count) - 1, size * (4 + count), 2 * size - 1, 2 * size}:
            for expand_down in (False, True):
                yield replace(case, room=room, expand_down=expand_down)
        for stack in ("null", "beyond", "rpl", "dpl", "kind", "absent"):
            yield replace(case, stack=stack)
        yield replace(case, code_present=False)
        yield replace(case, code_limit=0x5677)
        for gate_dpl, rpl, present in itertools.product(range(4), range(4), (True, False)):
            if count == 1:
                yield replace(case, gate_dpl=gate_dpl, rpl=rpl, present=present)


def direct() -> Iterator[Case]:
    """Jumps and calls to a code segment: size x CPL x RPL x type x DPL x presence x limit x room."""
    every = itertools.product(
        ("jmp", "call"), (2, 4), range(4), range(4), (3, 9, 11, 15), range(4), (True, False), (0x5677, 0x5678)
    )
    for what, n, cpl, rpl, kind, dpl, present, limit in every:
        case = Case(
            what, n=n, cpl=cpl, rpl=rpl, code_kind=kind, code_dpl=dpl, code_present=present, code_limit=limit
        )  # fmt: skip
        yield case
        if cpl == dpl and what == "call":
            for room, wide, down in itertools.product(ROOMS, (True, False), (False, True)):
                yield replace(case, room=room, wide_stack=wide, expand_down=down)


def returns() -> Iterator[Case]:
    """Size x bytes released x CPL x RPL x type x DPL x presence x limit x stack."""
    every = itertools.product(
        (2, 4), (0, 2, 8, 0x120), range(4), range(4), (3, 11, 15), range(4), (True, False), (0x5677, 0x5678), (True, False)
    )
    for n, released, cpl, rpl, kind, dpl, present, limit, wide in every:
        case = Case(
            "ret", n=n, released=released, cpl=cpl, rpl=rpl, code_kind=kind, code_dpl=dpl, code_present=present,
            code_limit=limit, wide_stack=wide,
        )  # fmt: skip
        yield case
        if rpl > cpl and dpl <= rpl:
            for stack in ("null", "beyond", "rpl", "dpl", "kind", "absent"):
                yield replace(case, stack=stack)


def paragraphs() -> Iterator[Case]:
    """Real-address and virtual-8086 mode: size x limit x room x stack size."""
    every = itertools.product(
        ("jmp", "call", "ret"), ("real", "v86"), (2, 4), (0x5677, 0x5678, 0xFFFF), (0x5678, 0xFFFF), ROOMS, (0, 6), range(4)
    )
    for what, mode, n, limit, offset, room, released, rpl in every:
        yield Case(
            what, mode, n=n, code_limit=limit, offset=offset, room=room, released=released, rpl=rpl, wide_stack=False
        )  # fmt: skip


def random_cases(seed: int, count: int) -> Iterator[Case]:
    """Anything with anything."""
    rng = random.Random(seed)
    for _ in range(count):
        yield Case(
            rng.choice(("jmp", "call", "ret")), rng.choice(("protected",) * 6 + ("real", "v86")), rng.choice((2, 4)),
            rng.randrange(4), rng.choice((0, 0, 4, 12, 12)), rng.choice((3, 3, rng.randrange(4))),
            rng.randrange(4), rng.random() < 0.95, rng.choice((3, 9, 11, 11, 11, 15)), rng.randrange(4), rng.random() < 0.95,
            rng.choice((0xFFFF, 0xFFFF, 0x5677, 0x5678)), rng.choice((0x5678, 0xFFFF, 0x12345678)), rng.randrange(32),
            rng.random() < 0.5, rng.choice(("", "", "", "", "null", "beyond", "rpl", "dpl", "kind", "absent")),
            rng.choice((0x7000, 0x7000, rng.randrange(160))), rng.random() < 0.5, rng.random() < 0.3,
            rng.choice((0, 2, 4, 64)),
        )  # fmt: skip


GROUPS = {"call gates": call_gates, "direct jumps and calls": direct, "returns": returns, "real and v86 mode": paragraphs}


def run_cases(bench: Bench, cases: Iterator[Case]) -> tuple[int, list[str]]:
    """Compare every case: (how many, failures)."""
    count = 0
    failures = []
    for case in cases:
        count += 1
        failures += [f"{case}: {text}" for text in compare(bench, case)]
    return count, failures

