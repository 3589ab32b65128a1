"""Task switches of every kind, by permutation: cases, how one is laid out in RAM, and its comparison with the model.

01000 GDT   02000 IDT   03000 old LDT   03800 new LDT   04000 old TSS   05000 new TSS   08000 old stack
09000 new stack   0A000 and 0C000 page directories   0B000 page table
"""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from descriptor_machine import (
    GDT,
    IDT,
    LDT,
    LDTR,
    RAM_SIZE,
    TR,
    TSS,
    UNUSABLE,
    descriptor,
    gate,
    new_state,
    put,
    reset,
    set_descriptor,
    set_segment,
    set_system,
)
from task_model import CALL, EVENT, JUMP, RETURN, Event, Outcome, Registers, Segment, TaskModel

from x86virt.core import deliver as deliver_core
from x86virt.core import iret as iret_core
from x86virt.core.far_call import far_call
from x86virt.core.far_jump import far_jump
from x86virt.core.flags import get_eflags
from x86virt.core.jit import kernel
from x86virt.core.layout import NEW_TASK_FAULT, OK
from x86virt.isa.events import EVENT_SYS_TASK_SWITCH

NEW_LDT, NEW_TSS = 0x3800, 0x5000
DIRECTORY, TABLE, NEW_DIRECTORY = 0xA000, 0xB000, 0xC000
OLD_TSS_SELECTOR, NEW_TSS_SELECTOR, GATE_SELECTOR, LDT_SELECTOR, LDT_GATE = 0xE0, 0xD8, 0xD0, 0xC8, 0x3C
VECTOR_GP, VECTOR_SOFTWARE, EXTERNAL = 13, 0x30, 0x31
NT, VM, TF, RF = 1 << 14, 1 << 17, 1 << 8, 1 << 16
OLD_FLAGS, NEW_FLAGS = 0x3202, 0x2C10606
# Selectors of the new task's segments, and what each can be that is wrong or special: type, DPL, P, RPL, or a selector.
CODE, STACK, DATA = 0x10, 0x18, (0x20, 0x28, 0x30, 0x38)  # DATA: ES, DS, FS, GS
DO_JUMP, DO_CALL, DO_DELIVER, DO_IRET = range(4)


@kernel
def execute(state, ram, what, selector, flags):
    """One of the ways into a task switch; flags[0] receives EFLAGS."""
    cpu = state[0]
    if what == DO_JUMP:
        outcome = far_jump(cpu, ram, selector, 0)
    elif what == DO_CALL:
        outcome = far_call(cpu, ram, selector, 0, 4)
    elif what == DO_DELIVER:
        outcome = deliver_core.deliver(cpu, ram)
    else:
        outcome = iret_core.iret(cpu, ram)
    flags[0] = get_eflags(cpu)
    return outcome


def what_differs(case: Any) -> str:
    """What a case has otherwise than the plain one of its kind."""
    plain = type(case)()
    changed = (field.name for field in fields(case) if getattr(case, field.name) != getattr(plain, field.name))
    return " ".join(f"{name}={getattr(case, name)}" for name in changed) or "plain"


@dataclass(frozen=True)
class Case:
    """One task switch. Descriptors of segments are (type, DPL, present, RPL), `None` in `ldt` a null selector."""

    way: str = "jmp"
    old_wide: bool = True
    new_wide: bool = True
    tss: str = ""  # what is wrong with the TSS, the gate or TR
    cpl: int = 0
    new_cpl: int = 0
    nt: bool = False
    new_nt: bool = False
    ldt: str = ""
    code: str = ""
    stack: str = ""
    data: tuple[str, str, str, str] = ("", "", "", "")
    paging: bool = False
    v86: bool = False
    old_v86: bool = False
    trap: bool = False
    eip: int = 0x5678
    room: bool = True

    def __str__(self) -> str:
        return what_differs(self)


WAYS = ("jmp", "call", "jmp_gate", "call_gate", "jmp_ldt_gate", "exception", "interrupt", "int_n", "iret")
TSS_DEFECTS = (
    "", "busy", "absent", "short", "barely", "type", "local", "beyond", "old_short", "old_barely", "old_type", "gate_absent",
    "gate_dpl", "null",
)  # fmt: skip
LDT_VARIANTS = ("", "null", "type", "absent", "local", "beyond")
CODE_VARIANTS = ("", "null", "beyond", "type", "absent", "dpl", "conforming", "conforming_out", "local", "system")
STACK_VARIANTS = ("", "null", "beyond", "read_only", "code", "absent", "dpl", "rpl", "local", "expand_down", "small")
DATA_VARIANTS = ("", "null", "beyond", "execute_only", "readable", "conforming", "absent", "dpl", "rpl", "local", "system")


def segment_of(kind: str, variant: str, level: int, place: int) -> tuple[int, int | None]:
    """(selector, descriptor) of a new task's segment; None: there is none to store."""
    base, limit = 0, 0xFFFF
    types = {"code": 11, "stack": 3, "data": 3}
    number, s, dpl, present, rpl = types[kind] & ~1, 1, level, 1, level
    if variant == "null":
        return rpl, None
    if variant == "beyond":
        return 0x7F8 | rpl, None
    if variant == "type":
        number = 2
    elif variant == "system":
        s, number = 0, 12
    elif variant == "read_only":
        number = 0
    elif variant == "code":
        number = 10
    elif variant == "execute_only":
        number = 8
    elif variant == "readable":
        number = 10
    elif variant == "conforming":
        number, dpl = 14, 0
    elif variant == "conforming_out":
        number, dpl = 14, level + 1
    elif variant == "absent":
        present = 0
    elif variant == "dpl":
        dpl = 0 if level else 1
        if kind == "data":
            dpl = 2
    elif variant == "rpl":
        rpl = 3 if level < 3 else 2
        if kind == "data":
            dpl, rpl = 2, 3
    elif variant == "expand_down":
        number, limit = 6, 0x8FFC
    elif variant == "small":
        limit = 0x8FFD
    selector = place | rpl
    if variant == "local":
        selector |= 4
    return selector, descriptor(base, limit, number, s, dpl, present, db=int(variant not in ("small", "expand_down")))


class Bench:
    """One processor on which cases are laid out, executed and compared."""

    def __init__(self) -> None:
        self.state, self.ram = new_state()
        self.cpu = self.state[0]
        self.cpu.cache_levels["sets"] = self.cpu.cache_levels["ways"] = 1  # page walks go through the cache model
        self.flags = np.zeros(1, np.int64)

    def put_segment(self, selector: int, value: int | None) -> None:
        """Store a descriptor in the table that its selector names."""
        if value is not None:
            set_descriptor(self.ram, selector, value, NEW_LDT if selector & 4 else GDT)

    def lay(self, case: Case) -> None:
        """Lay a case out in RAM and in the processor."""
        cpu, ram = self.cpu, self.ram
        flags = OLD_FLAGS | (NT if case.nt or case.way == "iret" else 0) | (VM if case.old_v86 else 0)
        reset(cpu, ram, 3 if case.old_v86 else case.cpl, eflags=flags)
        cpu.gpr[:8] = [0xA1B20000 + 0x111 * n for n in range(8)]
        cpu.cr3, cpu.dr[7], cpu.debug_pending = DIRECTORY, 0x7FF, 0
        self.lay_old(case)
        self.lay_new(case)
        self.lay_way(case)
        if case.paging:
            cpu.cr0 |= 1 << 31
            for directory in (DIRECTORY, NEW_DIRECTORY):
                put(ram, directory, 4, TABLE | 7)
            for page in range(RAM_SIZE >> 12):
                put(ram, TABLE + 4 * page, 4, page << 12 | 7)
        self.forget_translations()

    def forget_translations(self) -> None:
        """Empty the front cache; this processor has no TLB behind it."""
        self.cpu.front_read[:] = self.cpu.front_write[:] = 0

    def lay_old(self, case: Case) -> None:
        """The old task: its TSS, whose contents are the switch's to write, its LDT with a task gate."""
        cpu, ram = self.cpu, self.ram
        limit = {"old_short": 94 if case.old_wide else 40, "old_barely": 95 if case.old_wide else 41}.get(case.tss, 0x67)
        kind = 11 if case.old_wide else 3
        set_system(cpu, TR, OLD_TSS_SELECTOR, TSS, limit, 2 if case.tss == "old_type" else kind)
        set_descriptor(ram, OLD_TSS_SELECTOR, descriptor(TSS, limit, kind, s=0, db=0))
        put(ram, TSS, 0x68, int.from_bytes(bytes(0x11 + n & 0xFF for n in range(0x68)), "little"))
        set_system(cpu, LDTR, 0xE8, LDT, 0x3F, 2)
        if case.old_v86:
            for n in range(6):
                set_segment(cpu, n, 0x100 + n, 0x1000 + 16 * n, 0xFFFF, 3, 3, db=0)

    def lay_new(self, case: Case) -> None:
        """The new task."""
        ram = self.ram
        level = case.new_cpl
        code, value = segment_of("code", case.code, level, CODE)
        self.put_segment(code, value)
        stack, value = segment_of("stack", case.stack, level, STACK)
        self.put_segment(stack, value)
        selectors = [0, code, stack, 0, 0, 0]
        for place, n, variant in zip(DATA, (0, 3, 4, 5), case.data, strict=True):
            selectors[n], value = segment_of("data", variant, level, place)
            self.put_segment(selectors[n], value)
        if case.v86:
            selectors = [0x200 + n for n in range(6)]
        ldt = LDT_SELECTOR | 4 if case.ldt == "local" else {"null": 2, "beyond": 0x7F8}.get(case.ldt, LDT_SELECTOR)
        kind = 9 if case.ldt == "type" else 2
        set_descriptor(ram, LDT_SELECTOR, descriptor(NEW_LDT, 0x3F, kind, s=0, present=case.ldt != "absent", db=0))
        flags = NEW_FLAGS | (NT if case.new_nt else 0) | (VM if case.v86 else 0)
        n = 4 if case.new_wide else 2
        items = [case.eip, flags, *(0xC3D40000 + 0x1111 * r for r in range(8)), *selectors]
        items[2 + 4] = (0x9000 if case.room else 2) | (0x70000 if case.stack == "small" else 0)
        if not case.new_wide:
            items = items[:-2]
        first = NEW_TSS + (32 if case.new_wide else 14)
        put(ram, NEW_TSS, 0x68, int.from_bytes(bytes(0x77 - n & 0xFF for n in range(0x68)), "little"))
        for item in [*items, ldt]:
            put(ram, first, n, item)
            first += n
        if case.new_wide:
            put(ram, NEW_TSS + 28, 4, NEW_DIRECTORY)
            put(ram, NEW_TSS + 100, 2, int(case.trap))

    def lay_way(self, case: Case) -> None:
        """The new TSS's descriptor, and what leads to it."""
        ram, cpu = self.ram, self.cpu
        limit = 0x67 if case.new_wide else 0x2B
        limit = {"short": limit - 1, "barely": limit}.get(case.tss, 0x80)
        busy = (case.way == "iret") != (case.tss == "busy")
        kind = (9 if case.new_wide else 1) | (2 if busy else 0)
        if case.tss == "type":
            kind = 2
        value = descriptor(NEW_TSS, limit, kind, s=0, dpl=3, present=case.tss != "absent", db=0)
        set_descriptor(ram, NEW_TSS_SELECTOR, value)
        set_descriptor(ram, NEW_TSS_SELECTOR & 0x38, value, LDT)
        selector = {"local": NEW_TSS_SELECTOR & 0x38 | 4, "beyond": 0x7F8, "null": 0}.get(case.tss, NEW_TSS_SELECTOR)
        dpl = 2 if case.tss == "gate_dpl" else 3
        task_gate = gate(selector | 1, 0, 5, dpl=dpl, present=case.tss != "gate_absent")
        set_descriptor(ram, GATE_SELECTOR, task_gate)
        set_descriptor(ram, LDT_GATE, task_gate, LDT)
        cpu.event_has_error = 0
        if case.way == "iret":
            put(ram, TSS, 2, selector)
        self.target = selector
        if "gate" in case.way:
            self.target = LDT_GATE if case.way == "jmp_ldt_gate" else GATE_SELECTOR
            self.target |= case.cpl
        if case.way in ("exception", "interrupt", "int_n"):
            vector = {"exception": VECTOR_GP, "interrupt": EXTERNAL, "int_n": VECTOR_SOFTWARE}[case.way]
            put(ram, IDT + 8 * vector, 8, task_gate)
            cpu.event_vector, cpu.event_kind = vector, {"exception": 3, "interrupt": 0, "int_n": 4}[case.way]
            cpu.event_has_error, cpu.event_error = int(case.way == "exception"), 0x1238
            self.vector = vector

    def registers(self) -> Registers:
        """The processor's registers as the model has them."""
        cpu = self.cpu
        segments = []
        for n in range(8):
            entry = cpu.seg[n]
            if entry.access & UNUSABLE:
                segments.append(Segment(int(entry.selector)))
            else:
                segments.append(
                    Segment(int(entry.selector), int(entry.seg_base), int(entry.limit), int(entry.access))
                )
        return Registers(
            [int(value) for value in cpu.gpr[:8]],
            int(cpu.rip),
            int(self.flags[0]),
            int(cpu.cr0),
            int(cpu.cr3),
            int(cpu.dr[7]),
            int(cpu.cpl),
            segments,
            (int(cpu.gdtr_base), int(cpu.gdtr_limit)),
            int(cpu.debug_pending),
        )

    def expected(self, case: Case) -> Outcome:
        """What the model makes of the case that is laid out."""
        self.flags[0] = get_eflags(self.cpu)
        model = TaskModel(self.registers(), bytearray(self.ram[:RAM_SIZE].tobytes()))
        cause = {"jmp": JUMP, "jmp_gate": JUMP, "jmp_ldt_gate": JUMP, "call": CALL, "call_gate": CALL, "iret": RETURN}
        if case.way in cause:
            return model.run(cause[case.way], self.target)
        hardware = case.way != "int_n"
        model.event = Event(hardware, 0x1238 if case.way == "exception" else None, case.way == "exception")
        error = self.vector * 8 + 2 + int(hardware)
        if case.tss == "gate_dpl" and not hardware and self.cpu.cpl == 3:
            return Outcome(model.registers, model.memory, (13, error))
        if case.tss == "gate_absent":
            return Outcome(model.registers, model.memory, (11, error))
        return model.run(EVENT, int.from_bytes(model.memory[IDT + 8 * self.vector + 2 :][:2], "little"))

    def compare(self, case: Case) -> list[str]:
        """Lay out, execute, compare: the differences in words."""
        self.lay(case)
        expected = self.expected(case)
        what = {"jmp": DO_JUMP, "cal": DO_CALL, "ire": DO_IRET}.get(case.way[:3], DO_DELIVER)
        outcome = execute(self.state, self.ram, what, self.target, self.flags)
        found = []
        fault = None if outcome == OK else (int(self.cpu.event_vector), int(self.cpu.event_error))
        if fault != expected.fault:
            found.append(f"exception {fault}, model {expected.fault}")
        late = expected.fault is not None and expected.committed
        by_event = case.way in ("exception", "interrupt")
        wanted = OK if expected.fault is None else NEW_TASK_FAULT if late and not by_event else 1
        if outcome != wanted:
            found.append(f"outcome {outcome}, expected {wanted}")
        got = self.registers()
        for item in fields(Registers):
            if getattr(got, item.name) != getattr(expected.registers, item.name):
                found.append(f"{item.name} {getattr(got, item.name)}, model {getattr(expected.registers, item.name)}")
        last = DIRECTORY  # page tables gain accessed and dirty bits, which are not the model's
        memory = self.ram[:last].tobytes()
        if memory != expected.memory[:last]:
            places = [n for n in range(last) if memory[n] != expected.memory[n]]
            found.append(f"memory at {', '.join(hex(n) for n in places[:8])}")
        count = int(self.cpu.ledger_count[EVENT_SYS_TASK_SWITCH].sum())
        others = 0 if case.paging else int(self.cpu.ledger_count.sum()) - count  # paging has its walks charged
        if (count, others) != (int(expected.committed), 0):
            found.append(f"{count} task switches and {others} other events charged")
        return found


def valid(case: Case) -> bool:
    """Whether a case can be laid out: v86 needs a 32-bit TSS, gates and IRET their own defects."""
    if case.v86 and not case.new_wide:
        return False
    if case.old_v86 and case.way not in ("exception", "interrupt"):
        return False
    gates = "gate" in case.way or case.way in ("exception", "interrupt", "int_n")
    if case.tss in ("gate_absent", "gate_dpl") and not gates:
        return False
    return not (case.tss in ("null", "local") and case.way in ("jmp", "call"))


def checks_up_to_the_commit() -> Iterator[Case]:
    """Way x formats x what is wrong with TSS, gate or TR x CPL x NT x paging."""
    every = itertools.product(WAYS, (True, False), (True, False), TSS_DEFECTS, (0, 3), (False, True), (False, True))
    for way, old_wide, new_wide, tss, cpl, nt, paging in every:
        yield Case(way, old_wide, new_wide, tss, cpl, cpl, nt, not nt, paging=paging)


def checks_behind_the_commit() -> Iterator[Case]:
    """Way x formats x NT x new ring x paging x LDT x one segment at a time."""
    one = [("code", v) for v in CODE_VARIANTS] + [("stack", v) for v in STACK_VARIANTS[1:]]
    one += [(n, v) for n in range(4) for v in DATA_VARIANTS[1:]]
    base = itertools.product(WAYS, (True, False), (True, False), (False, True), (0, 1, 3), (False, True), LDT_VARIANTS)
    for way, old_wide, new_wide, new_nt, level, paging, ldt in base:
        case = Case(way, old_wide, new_wide, cpl=0, new_cpl=level, new_nt=new_nt, paging=paging, ldt=ldt)
        for name, variant in one if ldt in ("", "null") else one[:3]:
            if isinstance(name, int):
                data = ["", "", "", ""]
                data[name] = variant
                yield replace(case, data=tuple(data))
            elif name == "code":
                yield replace(case, code=variant)
            else:
                yield replace(case, stack=variant)


def other_tasks() -> Iterator[Case]:
    """Virtual-8086 tasks, new and old; the T flag; the entry point; room for the error code."""
    every = itertools.product(WAYS, (True, False), (True, False), (False, True), (False, True), (False, True), (False, True))
    for way, old_wide, new_wide, v86, old_v86, trap, paging in every:
        for eip, room in itertools.product((0x5678, 0xFFFF, 0x10000, 0x12345678), (True, False)):
            yield Case(
                way, old_wide, new_wide, cpl=3 if old_v86 else 0, v86=v86, old_v86=old_v86, trap=trap, paging=paging, eip=eip,
                room=room, stack="small" if not room else "",
            )  # fmt: skip


def random_cases(seed: int, count: int) -> Iterator[Case]:
    """Several things wrong at once: the order of the checks."""
    rng = random.Random(seed)
    for _ in range(count):
        yield Case(
            rng.choice(WAYS), rng.random() < 0.6, rng.random() < 0.6, rng.choice(TSS_DEFECTS) if rng.random() < 0.2 else "",
            rng.choice((0, 0, 1, 3)), rng.choice((0, 1, 2, 3)), rng.random() < 0.5, rng.random() < 0.5,
            rng.choice(LDT_VARIANTS) if rng.random() < 0.3 else "", rng.choice(CODE_VARIANTS) if rng.random() < 0.3 else "",
            rng.choice(STACK_VARIANTS) if rng.random() < 0.4 else "",
            tuple(rng.choice(DATA_VARIANTS) if rng.random() < 0.4 else "" for _ in range(4)), rng.random() < 0.5,
            rng.random() < 0.1, rng.random() < 0.1, rng.random() < 0.3, rng.choice((0x5678, 0x5678, 0x12345)), rng.random() < 0.8,
        )  # fmt: skip


GROUPS = {
    "up to the commit point": checks_up_to_the_commit,
    "behind the commit point": checks_behind_the_commit,
    "v86, T flag, entry point, error code": other_tasks,
}


def run_cases(bench: Bench, cases: Iterator[Case]) -> tuple[int, list[str]]:
    """Compare every valid case: (how many, failures)."""
    count = 0
    failures = []
    for case in cases:
        if valid(case):
            count += 1
            failures += [f"{case}: {text}" for text in bench.compare(case)]
    return count, failures
