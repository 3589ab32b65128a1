"""Permutations of the system half against `system_model.Model`: the same state and memory go through both.

Run as `python tests/permutations.py [CASES]` (`make permutations`) for the long runs and their counts; the suite takes a slice.
A case is decided by its number alone, so that a failure can be repeated.
"""

import collections
import random
import sys

import numpy as np
import system_model as manual
from descriptor_machine import (
    IDT,
    LDT,
    RAM_SIZE,
    TSS,
    UNUSABLE,
    descriptor,
    gate,
    new_state,
    put,
    reset,
    set_descriptor,
)
from system_model import CS, ES, EXCEPTION, EXTERNAL, INT_3, INT_N, LDTR, SS, TR, VIF, VIP, VM, Model, Segment

from x86virt.core import deliver as deliver_core
from x86virt.core import iret as iret_core
from x86virt.core import ports, privileged_flags, selectors
from x86virt.core import segment as segment_core
from x86virt.core.code_layout import UOP
from x86virt.core.jit import entry
from x86virt.core.layout import CPU, SHUTDOWN
from x86virt.isa import system_ops

DELIVER, DELIVER_EVENT, SOFTWARE, IRET, CLI, STI, PUSHF, POPF, PORT, LOAD, LOAD_LDTR, LOAD_TR, INSPECT = range(13)


@entry
def execute(state, ram, uops, what, first, second):
    """One procedure of the core; `first` and `second` are its operands."""
    cpu = state[0]
    if what == DELIVER:
        return deliver_core.deliver(cpu, ram)
    if what == DELIVER_EVENT:
        return deliver_core.deliver_event(cpu, ram)
    if what == SOFTWARE:
        return deliver_core.software_interrupt(cpu, ram, first, second)
    if what == IRET:
        if first == 2:
            return iret_core.iret_16(cpu, ram)
        return iret_core.iret(cpu, ram)
    if what == CLI:
        return privileged_flags.cli(cpu)
    if what == STI:
        return privileged_flags.sti(cpu)
    if what == PUSHF:
        return privileged_flags.pushf(cpu, ram, uops[0])
    if what == POPF:
        return privileged_flags.popf(cpu, ram, uops[0])
    if what == PORT:
        return ports.check_port(cpu, ram, first, second)
    if what == LOAD:
        return segment_core.load_segment_register(cpu, ram, first, second)
    if what == LOAD_LDTR:
        return segment_core.load_ldtr(cpu, ram, first)
    if what == LOAD_TR:
        return segment_core.load_tr(cpu, ram, first)
    if uops[0].dst_shift == system_ops.SYSTEM_LAR:
        return selectors.load_access_or_limit(cpu, ram, uops[0], selectors.LAR_TYPES)
    if uops[0].dst_shift == system_ops.SYSTEM_LSL:
        return selectors.load_access_or_limit(cpu, ram, uops[0], selectors.LSL_TYPES)
    return selectors.verify(cpu, ram, uops[0])


# -- the record as a list of words, read and written at once ------------------------------------------------------------

STATE, RAM = new_state()
UOPS = np.zeros(1, UOP).view(np.recarray)
WORDS = STATE.view(np.ndarray).view(np.int64)
PLACE = {name: CPU.fields[name][1] // 8 for name in CPU.names}
ARCHITECTURAL = PLACE["ticks"]
GPR, SEG, SEG_WORDS = PLACE["gpr"], PLACE["seg"], CPU["seg"].subdtype[0].itemsize // 8
SCALARS = ("rip", "cpl", "cr0", "cr4", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit")
MODE_OF_CPL = (1, 1, 1, 0)


class Harness:
    """The core's record with a quick way to reset, read and compare it."""

    def __init__(self):
        reset(STATE[0], RAM, 0)
        self.template = WORDS[:ARCHITECTURAL].copy()
        self.empty = np.zeros_like(RAM)

    def start(self):
        """The template state: ring 0, empty RAM."""
        WORDS[:ARCHITECTURAL] = self.template
        RAM[:] = self.empty
        self.cpl(0)
        WORDS[PLACE["context_count"]] = 0

    def set(self, name, value):
        WORDS[PLACE[name]] = value

    def cpl(self, level):
        self.set("cpl", level)
        self.set("mode", MODE_OF_CPL[level])
        self.set("bank", 256 if level == 3 else 0)

    def eflags(self, value):
        cf, pf, af, zf, sf, of = (value >> bit & 1 for bit in (0, 2, 4, 6, 7, 11))
        self.set("eflags", value & ~0x8D5 | 2)
        self.set("flag_result", 1 - zf)
        self.set("flag_carry", cf << 31 | (cf ^ of) << 30 | af << 3 | sf << 32 | (pf ^ zf) << 33)

    def segment(self, number, selector, base, limit, access):
        plain = access & (UNUSABLE | 1 << 7 | 1 << 4) == 1 << 7 | 1 << 4 and access & 0xC != 4
        first = SEG + number * SEG_WORDS
        read_last = limit if plain and (access & 8 == 0 or access & 2) else -1
        write_last = limit if plain and access & 0xA == 2 else -1
        WORDS[first : first + SEG_WORDS] = (selector, access, limit, base, read_last, write_last)

    def model(self):
        """The model in the same state."""
        words = WORDS[:ARCHITECTURAL].tolist()
        scalars = {name: words[PLACE[name]] for name in SCALARS}
        return Model(
            RAM[:RAM_SIZE].tobytes(),
            words[GPR : GPR + 8],
            scalars["rip"],
            flags_of(words),
            segments_of(words),
            scalars["cpl"],
            scalars["cr0"],
            scalars["cr4"],
            (scalars["gdtr_base"], scalars["gdtr_limit"]),
            (scalars["idtr_base"], scalars["idtr_limit"]),
        )


def flags_of(words):
    """EFLAGS from the representation that core/flags.py documents."""
    result, carry = words[PLACE["flag_result"]], words[PLACE["flag_carry"]]
    parity = (1 ^ (result & 0xFF).bit_count() & 1) ^ carry >> 33 & 1
    flags = carry >> 31 & 1 | parity << 2 | (carry >> 3 & 1) << 4 | int(result == 0) << 6
    flags |= ((result >> 63 ^ carry >> 32) & 1) << 7 | ((carry >> 31 ^ carry >> 30) & 1) << 11
    return words[PLACE["eflags"]] | flags | 2


def segments_of(words):
    """The eight segment registers; of an unusable one only the selector can be known."""
    found = []
    for number in range(8):
        selector, access, limit, base, _, _ = words[SEG + number * SEG_WORDS : SEG + (number + 1) * SEG_WORDS]
        found.append(Segment(selector, 0, 0, UNUSABLE) if access & UNUSABLE else Segment(selector, base, limit, access))
    return found


def picture(machine):
    """What a program can know of a state."""
    return {
        "gpr": machine.gpr[:8],
        "eip": machine.eip,
        "eflags": hex(machine.eflags),
        "segments": machine.segments,
        "cpl": machine.cpl,
    }


def compare(harness, act, what, first=0, second=0):
    """Do the same with the core and with the model: (the outcome, the differences)."""
    model = harness.model()
    before = picture(model)
    try:
        act(model)
        expected = "done"
    except manual.Fault as fault:
        expected = fault.vector, fault.error
    except manual.Shutdown:
        expected = "shutdown"
    except manual.TaskSwitch:
        return "task switch", []
    outcome = execute(STATE, RAM, UOPS, what, first, second)
    got = {0: "done", 1: (int(STATE[0].event_vector), int(STATE[0].event_error)), SHUTDOWN: "shutdown"}.get(outcome, outcome)
    if got != expected:
        return expected, [f"core {got}, manual {expected}"]
    after, wanted = picture(harness.model()), picture(model) if expected == "done" else before
    wrong = [f"{name}: core {after[name]}, manual {wanted[name]}" for name in wanted if after[name] != wanted[name]]
    if expected == "done" and RAM[:RAM_SIZE].tobytes() != bytes(model.memory):
        places = np.nonzero(RAM[:RAM_SIZE] != np.frombuffer(model.memory, np.uint8))[0]
        wrong.append(f"memory at {[hex(place) for place in places[:8]]}")
    wrong += inconsistent(after["cpl"])
    name = expected if isinstance(expected, str) else f"vector {expected[0]}"
    return name, wrong


def inconsistent(cpl):
    """What follows the privilege level outside the architecture."""
    mode, bank = int(WORDS[PLACE["mode"]]), int(WORDS[PLACE["bank"]])
    return [] if (mode, bank) == (MODE_OF_CPL[cpl], 256 if cpl == 3 else 0) else [f"mode {mode}, bank {bank}"]


# -- cases --------------------------------------------------------------------------------------------------------------

CODE_AT, STACK_AT, DATA_AT = 0x28, 0x30, 0x38
STACK_TOP = 0x9000


def mostly(pick, good, *others):
    """The good value, or one time in sixteen another: so that a good part of the cases goes through to the end."""
    return good if pick.getrandbits(4) else pick.choice(others)


def choose_flags(pick):
    """EFLAGS with anything in it but VM."""
    return 2 | pick.getrandbits(22) & 0x1C7ED5 & ~VM | (pick.choice((0, 0, 0, 1)) * (VIF | VIP))


def enter(harness, pick, mode):
    """Real-address mode, virtual-8086 mode, or protected mode at a level; stacks and segments that vary."""
    harness.start()
    flags = choose_flags(pick)
    harness.set("rip", pick.choice((0x1234, 0xFFFE, 0x5)))
    harness.set("cr4", pick.choice((0, 1, 2, 3)))
    WORDS[GPR : GPR + 8] = [pick.getrandbits(32) for _ in range(8)]
    pointer = mostly(pick, 0x7000, 0x8000, 0x8001, 0x10, 4, 1, 0)
    big = pick.choice((0, 1))
    WORDS[GPR + 4] = pointer | (0 if big else pick.choice((0, 0xABCD0000)))
    limit = mostly(pick, 0xFFFF, 0x6FFF, 0x6FFB, 0x6FF7)
    if mode == "real":
        harness.set("cr0", 0x10)
        access = 0x93 | big << 14
        harness.segment(CS, 0x123, 0x1230, 0xFFFF, 0x93)
        harness.segment(SS, 0x40, 0x400, limit, access)
        for number in (ES, 3, 4, 5):
            harness.segment(number, 0x50 + number, 0x500, pick.choice((0xFFFF, 0xFFFFFFFF)), 0x93)
    elif mode == "v86":
        flags |= VM
        harness.cpl(3)
        for number in range(6):
            harness.segment(number, 0x100 + number, 0x1000 + 16 * number, 0xFFFF, 0xF3)
        harness.segment(SS, 0x40, 0x400, 0xFFFF, 0xF3)
    else:
        harness.cpl(mode)
        harness.segment(CS, 0xF0 | mode, 0, 0xFFFF, 0x409B | mode << 5)
        down = pick.choice((0, 0, 0, 4))
        if down:
            limit = mostly(pick, 0x6000, 0x6FFE, 0x7000)
        harness.segment(SS, 0xF8 | mode, 0x400, limit, 0x93 | down | mode << 5 | big << 14)
        for number in (ES, 3, 4, 5):
            kind, level = pick.choice(((0x93, 0), (0x9B, 0), (0x9F, 0), (0x93, mode), (UNUSABLE, 0), (0x93, 3)))
            harness.segment(number, 0x60 + 8 * number, 0, 0xFFFF, kind | level << 5 if kind != UNUSABLE else kind)
    harness.eflags(flags)
    return flags


def choose_tss(harness, pick):
    """A 32-bit or 16-bit TSS with stacks for the inner levels, sometimes too short or with bad stacks."""
    kind = pick.choice((11, 11, 3)) if pick.getrandbits(4) else 9
    limit = mostly(pick, 0x200, 0x67, 0x2B, 9, 8, 5, 4)
    harness.segment(TR, 0xE0, TSS, limit, kind | 1 << 7)
    put(RAM, TSS + 102, 2, pick.choice((0x88, 0x88, 0x20, 0x1F0, 0)))
    for place in range(0x68, 0x110, 4):
        put(RAM, TSS + place, 4, pick.getrandbits(32) & pick.getrandbits(32))
    for level in range(3):
        selector = mostly(pick, STACK_AT | level, STACK_AT | 3, 0, level, 0x100)
        pointer = mostly(pick, STACK_TOP, 0x12, 0x24, 2, 0)
        if kind == 3:
            put(RAM, TSS + 2 + 4 * level, 2, pointer)
            put(RAM, TSS + 4 + 4 * level, 2, selector)
        else:
            put(RAM, TSS + 4 + 8 * level, 4, pointer | pick.choice((0, 0x10000)))
            put(RAM, TSS + 8 + 8 * level, 4, selector | 0xBEEF0000)


def stack_descriptor(pick, level):
    """A stack segment for a level, mostly good."""
    kind = mostly(pick, pick.choice((2, 3, 3, 6, 7)), 1, 11, 5)
    limit = mostly(pick, 0x100, 0x8FDB) if kind & 12 == 4 else mostly(pick, 0xFFFF, 0x8FFF, 0x8FFB, 0x8FEB, 0x11)
    dpl = mostly(pick, level, 3, 0)
    return descriptor(0x200, limit, kind, dpl=dpl, present=mostly(pick, 1, 0), db=pick.choice((0, 1)))


def code_descriptor(pick, levels):
    """A code segment, mostly good."""
    kind = mostly(pick, pick.choice((11, 10, 9, 8)), 15, 12, 3)
    limit = mostly(pick, 0xFFFF, 0x5677, 0x5678)
    present = mostly(pick, 1, 0)
    return descriptor(0x300, limit, kind, dpl=pick.choice(levels), present=present, db=pick.choice((0, 1)))


MODES = ("real", "v86", "v86", 0, 1, 2, 3)


def describe_event(harness, vector, kind, error):
    harness.set("event_vector", vector)
    harness.set("event_kind", kind)
    harness.set("event_has_error", int(error is not None))
    harness.set("event_error", error or 0)


def put_gates(harness, pick, mode, vector, level):
    """The vector's gate or entry, and the code segment that it names."""
    entry_point = mostly(pick, 0x5678, 0x15678)
    table = 0 if mode == "real" else IDT
    if mode == "real":
        table = pick.choice((0, 0x40))
        harness.set("idtr_base", table)
        harness.set("idtr_limit", mostly(pick, 0x3FF, vector * 4 + 3, vector * 4 + 2))
    if table != IDT or mode == "v86":
        put(RAM, (table if mode == "real" else 0) + 4 * vector, 4, pick.getrandbits(32))
    if mode != "real":
        kind = mostly(pick, pick.choice((14, 15, 6, 7)), 5, 12, 2, 0)
        dpl = mostly(pick, 3, 0, level)
        selector = mostly(pick, CODE_AT, 0, 3, 0x100, CODE_AT | 4) | pick.choice((0, 3))
        s, present = mostly(pick, 0, 1), mostly(pick, 1, 0)
        put(RAM, IDT + 8 * vector, 8, gate(selector, entry_point, kind, s, dpl, present))
        harness.set("idtr_limit", mostly(pick, 0x7FF, vector * 8 + 7, vector * 8 + 6))


def delivery(harness, number):
    """One event through the IDT or the vector table."""
    pick = random.Random(number)
    mode = pick.choice(MODES)
    level = mode if isinstance(mode, int) else 3 if mode == "v86" else 0
    enter(harness, pick, mode)
    choose_tss(harness, pick)
    kind = pick.choice((EXTERNAL, EXCEPTION, EXCEPTION, INT_N, INT_N, INT_N, INT_3))
    vectors = {EXTERNAL: (0x20, 0x41, 0x80), EXCEPTION: (0, 1, 6, 13, 14, 17), INT_N: (3, 13, 14, 0x20, 0x80), INT_3: (3, 4)}
    vector = pick.choice(vectors[kind])
    error = pick.choice((None, 0x1238)) if kind == EXCEPTION else None
    put_gates(harness, pick, mode, vector, level)
    code_levels = (0,) * 12 + (1, 2, 3) if mode == "v86" else tuple(range(level + 1)) * 5 + (3,)
    code = code_descriptor(pick, code_levels)
    set_descriptor(RAM, CODE_AT, code)
    set_descriptor(RAM, CODE_AT, code, LDT)
    set_descriptor(RAM, STACK_AT, stack_descriptor(pick, code >> 45 & 3))
    if kind in (INT_N, INT_3):
        return compare(harness, lambda model: model.interrupt(vector, kind), SOFTWARE, vector, kind)
    describe_event(harness, vector, kind, error)
    return compare(harness, lambda model: model.interrupt(vector, kind, error), DELIVER)


def double_fault(harness, number):
    """An event whose own delivery fails, and those that follow from it, up to the shutdown."""
    pick = random.Random(number)
    mode = pick.choice(MODES)
    level = mode if isinstance(mode, int) else 3 if mode == "v86" else 0
    enter(harness, pick, mode)
    choose_tss(harness, pick)
    harness.set("idtr_limit", pick.choice((0x7FF,) * 6 + (0x3F, 0x5F, 0x6F, 0)))
    set_descriptor(RAM, CODE_AT, code_descriptor(pick, (0, 0, level)))
    set_descriptor(RAM, STACK_AT, stack_descriptor(pick, 0))
    if mode == "real":
        harness.set("idtr_base", 0)
        put(RAM, 0, 4, 0x1230567)
    else:
        for vector in (0, 6, 8, 10, 11, 12, 13, 14, 0x20):
            kind, present = pick.choice((14, 14, 15, 6, 0)), pick.choice((0, 1, 1, 1))
            selector = pick.choice((CODE_AT, CODE_AT, CODE_AT, 0, 0x100))
            put(RAM, IDT + 8 * vector, 8, gate(selector, 0x5678 + vector, kind, present=present))
    kind = pick.choice((EXTERNAL, EXCEPTION, EXCEPTION))
    vector = pick.choice((0, 6, 8, 10, 11, 12, 13)) if kind == EXCEPTION else 0x20
    error = pick.choice((0, 0x1238)) if vector in (8, 10, 11, 12, 13) else None
    describe_event(harness, vector, kind, error)
    return compare(harness, lambda model: model.event(vector, kind, error), DELIVER_EVENT)


def interrupt_return(harness, number):
    """IRET and IRETD."""
    pick = random.Random(number)
    mode = pick.choice(("real", "v86", "v86", 0, 0, 0, 1, 2, 3))
    level = mode if isinstance(mode, int) else 3 if mode == "v86" else 0
    flags = enter(harness, pick, mode)
    if pick.random() < 0.9:
        harness.eflags(flags & ~manual.NT)
    n = pick.choice((2, 4))
    rpl = pick.choice((level, level, 3, 3, *range(level, 4), pick.getrandbits(2)))
    selector = mostly(pick, CODE_AT | rpl, CODE_AT | rpl | 4, rpl, 0x100)
    image = pick.getrandbits(32) & ~VM | pick.choice((0, 0, VM))
    if pick.random() < 0.5:
        image &= ~(manual.TF | manual.IF)
    stack_rpl = mostly(pick, rpl, 0, 3)
    eip = mostly(pick, 0x5678, 0x5679, 0x15678)
    frame = [eip, selector, image, pick.choice((0x7000, 0xDEAD7000)), mostly(pick, STACK_AT | stack_rpl, 3, 0x100)]
    frame += [pick.getrandbits(16) | 0xABCD0000 for _ in range(4)]
    stack = harness.model().segments[SS]
    pointer = int(WORDS[GPR + 4])
    for place, value in enumerate(frame):
        put(RAM, (stack.base + ((pointer + n * place) & stack.wrap)) & 0xFFFF, n, value)
    code = code_descriptor(pick, (rpl,) * 12 + (0,))
    set_descriptor(RAM, CODE_AT, code)
    set_descriptor(RAM, CODE_AT, code, LDT)
    set_descriptor(RAM, STACK_AT, stack_descriptor(pick, rpl))
    return compare(harness, lambda model: model.iret(n), IRET, n)


def flag_instruction(harness, number):
    """CLI, STI, PUSHF and POPF of both sizes, by mode x IOPL x VME x PVI x VIF x VIP x IF x image."""
    pick = random.Random(number)
    mode = pick.choice(("real", "v86", "v86", "v86", 0, 1, 2, 3, 3))
    enter(harness, pick, mode)
    what = pick.choice((CLI, STI, PUSHF, POPF, POPF))
    n = pick.choice((2, 4))
    UOPS[0].width = 8 * n
    stack = harness.model().segments[SS]
    put(RAM, (stack.base + (int(WORDS[GPR + 4]) & stack.wrap)) & 0xFFFF, n, pick.getrandbits(32) & pick.getrandbits(32))
    acts = {
        CLI: lambda model: model.change_if(0),
        STI: lambda model: model.change_if(1),
        PUSHF: lambda model: model.pushf(n),
        POPF: lambda model: model.popf(n),
    }
    return compare(harness, acts[what], what)


def port_access(harness, number):
    """The I/O permission map by mode, IOPL, kind and limit of the TSS, port and width."""
    pick = random.Random(number)
    enter(harness, pick, pick.choice(MODES))
    choose_tss(harness, pick)
    port, n = pick.choice((0, 7, 8, 0x3F, 0x60, 0x3F8, 0xFFFF, pick.getrandbits(10))), pick.choice((1, 2, 4))
    return compare(harness, lambda model: model.port(port, n), PORT, port, n)


def any_descriptor(pick):
    """Any type, level and presence, with a limit of either granularity."""
    s, kind, dpl, present = pick.getrandbits(1), pick.getrandbits(4), pick.getrandbits(2), pick.choice((1, 1, 0))
    return descriptor(0x123456, pick.getrandbits(20), kind, s, dpl, present, pick.getrandbits(1), pick.getrandbits(1))


def any_selector(pick):
    """One that names the descriptor in either table, a null one, or one beyond."""
    return pick.choice((DATA_AT,) * 6 + (DATA_AT | 4,) * 3 + (0, 0xFF8, 0x104)) | pick.getrandbits(2)


def segment_load(harness, number):
    """MOV to a data or stack segment register, LLDT, LTR: descriptor x selector x table x level x mode."""
    pick = random.Random(number)
    level = pick.choice((0, 1, 2, 3, 0, 1, 2, 3, "real", "v86"))
    enter(harness, pick, level)
    value = any_descriptor(pick)
    set_descriptor(RAM, DATA_AT, value)
    set_descriptor(RAM, DATA_AT, value, LDT)
    if pick.random() < 0.2:
        harness.segment(LDTR, 0, 0, 0, UNUSABLE)
    selector = any_selector(pick)
    what = pick.choice((LOAD,) * 4 + (LOAD_LDTR, LOAD_TR)) if isinstance(level, int) else LOAD
    if what == LOAD:
        register = pick.choice((ES, SS, SS, 3, 4, 5))
        return compare(harness, lambda model: model.load(register, selector), LOAD, register, selector)
    register = LDTR if what == LOAD_LDTR else TR
    return compare(harness, lambda model: model.load_system(register, selector), what, selector)


def inspection(harness, number):
    """LAR, LSL, VERR and VERW: the destination, ZF, and nothing else."""
    pick = random.Random(number)
    enter(harness, pick, pick.choice((0, 1, 2, 3)))
    value = any_descriptor(pick)
    set_descriptor(RAM, DATA_AT, value)
    set_descriptor(RAM, DATA_AT, value, LDT)
    what, width = pick.choice(("LAR", "LSL", "VERR", "VERW")), pick.choice((16, 32))
    WORDS[GPR + 1] = any_selector(pick)
    UOPS[0].dst_shift, UOPS[0].src, UOPS[0].dst, UOPS[0].width = system_ops.NUMBER[what], 1, 0, width

    def act(model):
        found, zero = model.inspect(what, model.gpr[1])
        model.eflags = model.eflags & ~manual.ZF | zero * manual.ZF
        if found is not None:
            mask = (1 << width) - 1
            model.gpr[0] = model.gpr[0] & ~mask | found & mask

    return compare(harness, act, INSPECT)


SUITES = {
    "delivery": delivery,
    "double faults": double_fault,
    "IRET": interrupt_return,
    "flags": flag_instruction,
    "ports": port_access,
    "segment loads": segment_load,
    "inspection": inspection,
}


def run_suite(name, numbers):
    """Run cases of a suite: (count by outcome, reports of failures)."""
    harness, counts, failures = Harness(), collections.Counter(), []
    for number in numbers:
        outcome, wrong = SUITES[name](harness, number)
        counts[outcome if isinstance(outcome, str) else str(outcome)] += 1
        if wrong:
            failures.append(f"{name} case {number}: " + "; ".join(wrong))
    return counts, failures


def main(cases):
    """All suites; prints counts and the first failures; the exit status."""
    status = 0
    for name in SUITES:
        counts, failures = run_suite(name, range(cases))
        print(f"{name:14} {sum(counts.values()):7} cases, {len(failures)} wrong: {dict(counts.most_common())}")
        for line in failures[:5]:
            print("   ", line)
        status |= bool(failures)
    return status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20_000))
