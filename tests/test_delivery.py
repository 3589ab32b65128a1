"""Delivery through the IDT, IRET and far transfers, by permutation against models written from the manual.

Each model is the order of checks of the instruction's operation in SDM volume 2 (INT n, IRET, CALL, RET), as a list of
(condition, exception) pairs; a failing case prints its facts.
"""

import itertools

import pytest
from descriptor_machine import (
    CS,
    DS,
    IDT,
    SS,
    TR,
    TSS,
    UNUSABLE,
    architectural,
    check,
    descriptor,
    gate,
    get,
    new_state,
    put,
    raised,
    reset,
    set_descriptor,
    set_segment,
)

from x86virt.core import deliver as deliver_core
from x86virt.core import iret as iret_core
from x86virt.core.far_call import far_call
from x86virt.core.far_jump import far_jump
from x86virt.core.far_return import far_return
from x86virt.core.jit import kernel
from x86virt.isa import events

DF, TS, NP, SS_FAULT, GP, PF, DE, UD = 8, 10, 11, 12, 13, 14, 0, 6
EXTERNAL, EXCEPTION, SOFTWARE = 0, 3, 4
CODE, CONFORMING, DATA = 11, 15, 3
INTERRUPT_GATE, TRAP_GATE, CALL_GATE = 14, 15, 12
IF, NT, TF, RF, VM, IOPL_3 = 1 << 9, 1 << 14, 1 << 8, 1 << 16, 1 << 17, 3 << 12
DELIVER, DELIVER_EVENT, IRET, JUMP, CALL, RETURN = range(6)
HANDLER, INNER_STACK, OUTER_STACK, RETURN_CODE = 0x28, 0x30, 0x38, 0x40
ENTRY = 0x5678
STATE, RAM = new_state()
CPU = STATE[0]


@kernel
def execute(state, ram, what, selector, offset):
    """One of the procedures under test."""
    cpu = state[0]
    if what == DELIVER:
        return deliver_core.deliver(cpu, ram)
    if what == DELIVER_EVENT:
        return deliver_core.deliver_event(cpu, ram)
    if what == IRET:
        return iret_core.iret(cpu, ram)
    if what == JUMP:
        return far_jump(cpu, ram, selector, offset)
    if what == CALL:
        return far_call(cpu, ram, selector, offset, 4)
    return far_return(cpu, ram, offset, 4)


def run(what, selector=0, offset=0):
    """Execute, and give the exception or None; a fault must have left the architectural state alone."""
    before = architectural(CPU)
    result = raised(CPU, execute(STATE, RAM, what, selector, offset))
    if result is not None:
        assert architectural(CPU) == before
    return result


def first_of(*checks):
    """The exception of the first condition that holds, as (vector, error code)."""
    return next((fault for condition, fault in checks if condition), None)


def event(vector, kind, error=None):
    """Describe the event to deliver."""
    CPU.event_vector, CPU.event_kind = vector, kind
    CPU.event_has_error, CPU.event_error = int(error is not None), error or 0


def put_tss_stack(level, selector, pointer, tss=TSS):
    """SS and ESP for a level in the 32-bit TSS."""
    put(RAM, tss + 4 + 8 * level, 4, pointer)
    put(RAM, tss + 8 + 8 * level, 4, selector)


def put_stacks():
    """A stack segment for each level at 0x30, 0x50, 0x70 and 0x90, named by the TSS."""
    for level in range(3):
        set_descriptor(RAM, 0x30 + 0x20 * level, descriptor(0, 0xFFFF, DATA, dpl=level))
        put_tss_stack(level, 0x30 + 0x20 * level + level, 0x9000 + 0x800 * level)


# -- gates --------------------------------------------------------------------------------------------------------------


def gate_model(kind, s, gate_dpl, gate_present, event_kind, cpl, code_kind, code_dpl, code_present):
    """INT n operation, up to the choice between inner and same level."""
    ext = int(event_kind != SOFTWARE)
    is_gate = not s and kind in (5, 6, 7, 14, 15)
    return first_of(
        (not is_gate, (GP, 0x20 * 8 | 2 | ext)),
        (event_kind == SOFTWARE and gate_dpl < cpl, (GP, 0x20 * 8 | 2 | ext)),
        (not gate_present, (NP, 0x20 * 8 | 2 | ext)),
        (code_kind < 8 or code_dpl > cpl, (GP, HANDLER | ext)),
        (not code_present, (NP, HANDLER | ext)),
    )


@pytest.mark.parametrize("cpl", range(4), ids=lambda cpl: f"cpl={cpl}")
@pytest.mark.parametrize("event_kind", [EXTERNAL, EXCEPTION, SOFTWARE], ids=["external", "exception", "software"])
def test_gates(event_kind, cpl):
    """Gate type x DPL x presence x handler's type x DPL x presence: the fault, or the ring that is entered."""
    failures = []
    gates = list(itertools.product([(n, 0) for n in range(16)] + [(14, 1)], {0, cpl, 3}, (0, 1)))
    handlers = list(itertools.product((DATA, CODE, CONFORMING), range(4), (0, 1)))
    for ((kind, s), gate_dpl, gate_p), handler in itertools.product(gates, handlers):
        code_kind, code_dpl, code_p = handler
        if kind == 5 and gate_p == 1 and (event_kind != SOFTWARE or gate_dpl >= cpl):
            continue  # a task gate leads to a task
        reset(CPU, RAM, cpl)
        put_stacks()
        put(RAM, IDT + 0x20 * 8, 8, gate(HANDLER | 3, ENTRY, kind, s, gate_dpl, gate_p))
        set_descriptor(RAM, HANDLER, descriptor(0, 0xFFFF, code_kind, dpl=code_dpl, present=code_p))
        event(0x20, event_kind)
        expected = gate_model(kind, s, gate_dpl, gate_p, event_kind, cpl, code_kind, code_dpl, code_p)
        facts = f"gate type={kind} s={s} dpl={gate_dpl} p={gate_p} code type={code_kind} dpl={code_dpl} p={code_p}"
        check(failures, facts, run(DELIVER), expected)
        if expected is None:
            level = cpl if code_kind == CONFORMING else code_dpl
            entered = (int(CPU.cpl), int(CPU.seg[CS].selector), int(CPU.rip))
            check(failures, facts, entered, (level, HANDLER | level, ENTRY))
    assert not failures, "\n".join(failures[:10])


@pytest.mark.parametrize("selector", [0, 3, 0x100, 0x44], ids=hex)
def test_handler_selector(selector):
    """A null handler selector is #GP(EXT), one beyond its table #GP(selector + EXT)."""
    reset(CPU, RAM, 0)
    put(RAM, IDT + 0x20 * 8, 8, gate(selector, ENTRY, INTERRUPT_GATE))
    event(0x20, EXTERNAL)
    assert run(DELIVER) == (GP, selector & ~3 | 1)
    assert (CPU.idt_vector, CPU.idt_kind) == (0x20, EXTERNAL)


def test_beyond_the_idt():
    """A vector whose gate's last byte lies beyond the IDT's limit is #GP(vector * 8 + IDT)."""
    reset(CPU, RAM, 0)
    set_descriptor(RAM, HANDLER, descriptor(0, 0xFFFF, CODE))
    put(RAM, IDT + 0x20 * 8, 8, gate(HANDLER, ENTRY, TRAP_GATE))
    event(0x20, SOFTWARE)
    CPU.idtr_limit = 0x20 * 8 + 6
    assert run(DELIVER) == (GP, 0x20 * 8 + 2)
    event(0x20, SOFTWARE)
    CPU.idtr_limit = 0x20 * 8 + 7
    assert run(DELIVER) is None


# -- frames -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [INTERRUPT_GATE, TRAP_GATE], ids=["interrupt", "trap"])
@pytest.mark.parametrize("error", [None, 0x1238], ids=["plain", "error"])
@pytest.mark.parametrize("cpl", [0, 3], ids=["same", "inner"])
def test_frame(cpl, error, kind):
    """The frame on the stack, the flags after, and one charge to the mode that was interrupted."""
    flags = 0x2 | 0x1 | IF | NT | TF | IOPL_3
    reset(CPU, RAM, cpl, eflags=2 | IF | NT | TF | IOPL_3)
    CPU.flag_carry = 3 << 31 | 1 << 30  # CF = 1, OF = 0, SF = 1 inverted from a result of one
    put_stacks()
    set_descriptor(RAM, HANDLER, descriptor(0, 0xFFFF, CODE))
    put(RAM, IDT + GP * 8, 8, gate(HANDLER, ENTRY, kind))
    event(GP, EXCEPTION, error)
    old_ss, mode = int(CPU.seg[SS].selector), int(CPU.mode)
    assert run(DELIVER) is None
    frame = [0x1234, 0xF0 | cpl, flags | 1 << 7 | RF]
    frame = ([] if error is None else [error]) + frame + ([0x8000, old_ss] if cpl else [])
    top = 0x9000 if cpl else 0x8000
    assert CPU.gpr[4] == top - 4 * len(frame)
    assert [get(RAM, top - 4 * (len(frame) - n), 4) for n in range(len(frame))] == frame
    assert CPU.eflags & (IF | NT | TF | RF) == (IF if kind == TRAP_GATE else 0)
    name = "EVENT_SYS_EXC_GP" if cpl else "EVENT_SYS_EXC_SAME_CPL"
    assert CPU.ledger_count.sum() == 1
    assert CPU.ledger_count[getattr(events, name), mode] == 1


@pytest.mark.parametrize(
    ("vector", "kind", "cpl", "name", "saved_rf"),
    [
        (0x80, SOFTWARE, 3, "INT_N_CPL3_TO_CPL0", 0),
        (0x80, SOFTWARE, 0, "INT_N_SAME_CPL", 0),
        (0x20, EXTERNAL, 3, "EXT_INTERRUPT_DELIVERY", 0),
        (0x20, EXTERNAL, 0, "EXT_INTERRUPT_DELIVERY", 0),
        (3, 6, 3, "EXC_BP", 0),
        (DE, EXCEPTION, 3, "EXC_DE", RF),
        (PF, EXCEPTION, 3, "EXC_PF", RF),
        (1, EXCEPTION, 3, "EXC_DB", 0),
        (UD, EXCEPTION, 0, "EXC_SAME_CPL", RF),
    ],
)
def test_delivery_event(vector, kind, cpl, name, saved_rf):
    """Which event prices a delivery, and RF in the saved flags: set for fault-class exceptions only."""
    reset(CPU, RAM, cpl)
    CPU.idtr_limit = 0x7FF
    put_stacks()
    set_descriptor(RAM, HANDLER, descriptor(0, 0xFFFF, CODE))
    put(RAM, IDT + vector * 8, 8, gate(HANDLER, ENTRY, TRAP_GATE, dpl=3))
    event(vector, kind)
    mode = int(CPU.mode)
    assert run(DELIVER) is None
    assert CPU.ledger_count.sum() == CPU.ledger_count[getattr(events, f"EVENT_SYS_{name}"), mode] == 1
    assert get(RAM, int(CPU.gpr[4]) + 8, 4) & RF == saved_rf


# -- the stack of the inner level ---------------------------------------------------------------------------------------


def inner_stack_model(ext, selector, kind, dpl, present, limit, room):
    """INTER-PRIVILEGE-LEVEL-INTERRUPT into ring 0, the checks on the new stack."""
    return first_of(
        (selector & ~3 == 0, (TS, ext)),
        (selector == 0x100, (TS, selector | ext)),
        (selector & 3 or dpl or kind not in (2, 3, 6, 7), (TS, selector & ~3 | ext)),
        (not present, (SS_FAULT, selector & ~3 | ext)),
        (kind < 4 and 0x9000 - 1 > limit, (SS_FAULT, selector & ~3 | ext)),
        (kind >= 4 and 0x9000 - room <= limit, (SS_FAULT, selector & ~3 | ext)),
    )


@pytest.mark.parametrize("event_kind", [EXCEPTION, SOFTWARE], ids=["exception", "software"])
def test_inner_stack(event_kind):
    """SS from the TSS by selector x type x DPL x presence x limit: #TS or #SS with its error code."""
    failures = []
    selectors = (0, 2, 0x100, INNER_STACK, INNER_STACK | 1)
    limits = (0x8FEB, 0x8FEC, 0x8FFE, 0x8FFF)
    facts_of = itertools.product(selectors, range(16), (0, 3), (0, 1), limits)
    for selector, kind, dpl, present, limit in facts_of:
        reset(CPU, RAM, 3)
        put_tss_stack(0, selector, 0x9000)
        set_descriptor(RAM, INNER_STACK, descriptor(0, limit, kind, dpl=dpl, present=present))
        set_descriptor(RAM, HANDLER, descriptor(0, 0xFFFF, CODE))
        put(RAM, IDT + 0x20 * 8, 8, gate(HANDLER, ENTRY, TRAP_GATE, dpl=3))
        event(0x20, event_kind)
        expected = inner_stack_model(int(event_kind == EXCEPTION), selector, kind, dpl, present, limit, 20)
        facts = f"ss={selector:#x} type={kind} dpl={dpl} p={present} limit={limit:#x}"
        check(failures, facts, run(DELIVER), expected)
    assert not failures, "\n".join(failures[:10])


@pytest.mark.parametrize(("limit", "fits"), [(8, False), (9, True)])
def test_tss_limit(limit, fits):
    """The TSS must hold SS0 whole: #TS(TR) else."""
    reset(CPU, RAM, 3)
    put_stacks()
    set_descriptor(RAM, HANDLER, descriptor(0, 0xFFFF, CODE))
    put(RAM, IDT + 0x20 * 8, 8, gate(HANDLER, ENTRY, TRAP_GATE, dpl=3))
    CPU.seg[TR].limit = limit
    event(0x20, EXTERNAL)
    assert run(DELIVER) == (None if fits else (TS, 0xE0 | 1))


@pytest.mark.parametrize("cpl", [0, 3], ids=["same", "inner"])
def test_entry_beyond_the_code_segment(cpl):
    """An entry point beyond the handler's limit is #GP(EXT)."""
    reset(CPU, RAM, cpl)
    put_stacks()
    set_descriptor(RAM, HANDLER, descriptor(0, ENTRY - 1, CODE))
    put(RAM, IDT + 0x20 * 8, 8, gate(HANDLER, ENTRY, TRAP_GATE))
    event(0x20, EXTERNAL)
    assert run(DELIVER) == (GP, 1)


def test_same_level_stack_without_room():
    """Twelve bytes must fit on the current stack: #SS(EXT) else."""
    reset(CPU, RAM, 0, stack=8)
    set_descriptor(RAM, HANDLER, descriptor(0, 0xFFFF, CODE))
    put(RAM, IDT + 0x20 * 8, 8, gate(HANDLER, ENTRY, TRAP_GATE))
    event(0x20, EXTERNAL)
    assert run(DELIVER) == (SS_FAULT, 1)


# -- double and triple faults -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "delivered"),
    [
        (UD, GP, GP),
        (DE, GP, DF),
        (TS, NP, DF),
        (GP, GP, DF),
        (PF, GP, DF),
        (PF, NP, DF),
        (0x20, GP, GP),
        (0x20, NP, NP),
    ],
)
def test_double_fault(first, second, delivered):
    """SDM volume 3, table 6-5: a fault while an event is delivered is handled serially or becomes a double fault."""
    reset(CPU, RAM, 0)
    set_descriptor(RAM, HANDLER, descriptor(0, 0xFFFF, CODE))
    for vector in range(32):
        put(RAM, IDT + vector * 8, 8, gate(HANDLER, vector * 16, INTERRUPT_GATE))
    put(RAM, IDT + first * 8, 8, gate(HANDLER, 0, INTERRUPT_GATE, present=0) if second == NP else 0)
    if first == second:
        delivered = DF
    event(first, EXTERNAL if first == 0x20 else EXCEPTION)
    assert run(DELIVER_EVENT) is None
    assert CPU.rip == delivered * 16
    assert CPU.idt_vector == -1
    error = 0 if delivered == DF else first * 8 | 2 | 1
    assert get(RAM, int(CPU.gpr[4]), 4) == error


@pytest.mark.parametrize("first", [GP, DF, UD, 0x20])
def test_triple_fault(first):
    """With no IDT every event ends in a shutdown, and nothing is committed."""
    reset(CPU, RAM, 0)
    CPU.idtr_limit = 0
    event(first, EXTERNAL if first == 0x20 else EXCEPTION)
    assert run(DELIVER_EVENT) == "outcome 4"


# -- IRET ---------------------------------------------------------------------------------------------------------------


def put_return(what, eip, selector, flags, pointer, stack_selector, at=0x8000):
    """A frame for IRET, or for RETF when `flags` is None."""
    words = [eip, selector] + ([] if what == RETURN else [flags]) + [pointer, stack_selector]
    for number, word in enumerate(words):
        put(RAM, at + 4 * number, 4, word)


def return_model(cpl, rpl, kind, dpl, present, stack_rpl, stack_kind, stack_dpl, stack_present):
    """IRET and RET operation: code segment, then the stack segment of an outer level."""
    conforming = kind >= 12
    inner = [
        (kind < 8 or rpl < cpl, (GP, RETURN_CODE)),
        (dpl > rpl if conforming else dpl != rpl, (GP, RETURN_CODE)),
        (not present, (NP, RETURN_CODE)),
    ]
    outer = [
        (stack_rpl != rpl or stack_kind not in (2, 3, 6, 7) or stack_dpl != rpl, (GP, OUTER_STACK)),
        (not stack_present, (SS_FAULT, OUTER_STACK)),
    ]
    return first_of(*inner, *(outer if rpl > cpl else []))


@pytest.mark.parametrize("cpl", range(4), ids=lambda cpl: f"cpl={cpl}")
@pytest.mark.parametrize("what", [IRET, RETURN], ids=["iret", "retf"])
def test_return(what, cpl):
    """Code segment x stack segment of a return: the fault, or the ring and stack that are entered."""
    failures = []
    codes = itertools.product(range(4), (3, 9, 11, 15), range(4), (0, 1))
    stacks = [
        (0, 3, 0, 1),
        (1, 3, 1, 1),
        (2, 3, 2, 0),
        (3, 3, 3, 1),
        (3, 1, 3, 1),
        (3, 3, 3, 0),
        (3, 3, 2, 1),
        (3, 11, 3, 1),
    ]
    for code, stack in itertools.product(codes, stacks):
        reset(CPU, RAM, cpl)
        rpl, kind, dpl, present = code
        stack_rpl, stack_kind, stack_dpl, stack_present = stack
        set_descriptor(RAM, RETURN_CODE, descriptor(0, 0xFFFF, kind, dpl=dpl, present=present))
        set_descriptor(RAM, OUTER_STACK, descriptor(0, 0xFFFF, stack_kind, dpl=stack_dpl, present=stack_present))
        put_return(what, ENTRY, RETURN_CODE | rpl, 2, 0x7000, OUTER_STACK | stack_rpl)
        facts = f"code rpl={rpl} type={kind} dpl={dpl} p={present} stack rpl,type,dpl,p={stack}"
        expected = return_model(cpl, *code, *stack)
        check(failures, facts, run(what), expected)
        if expected is None:
            pointer = 0x7000 if rpl > cpl else 0x800C if what == IRET else 0x8008
            entered = (int(CPU.rip), int(CPU.seg[CS].selector), int(CPU.cpl), int(CPU.gpr[4]))
            check(failures, facts, entered, (ENTRY, RETURN_CODE | rpl, rpl, pointer))
    assert not failures, "\n".join(failures[:10])


@pytest.mark.parametrize(
    ("selector", "limit", "expected"),
    [
        (0, 0xFFFF, (GP, 0)),
        (3, 0xFFFF, (GP, 0)),
        (0x100, 0xFFFF, (GP, 0x100)),
        (0x44, 0xFFFF, (GP, 0x44)),
        (RETURN_CODE, ENTRY - 1, (GP, 0)),
        (RETURN_CODE, ENTRY, None),
    ],
)
@pytest.mark.parametrize("what", [IRET, RETURN], ids=["iret", "retf"])
def test_return_selector_and_limit(what, selector, limit, expected):
    """Null and outlying selectors, and the limit of the code segment."""
    reset(CPU, RAM, 0)
    set_descriptor(RAM, RETURN_CODE, descriptor(0, limit, CODE))
    put_return(what, ENTRY, selector, 2, 0, 0)
    assert run(what) == expected


@pytest.mark.parametrize("cpl", range(4), ids=lambda cpl: f"cpl={cpl}")
@pytest.mark.parametrize("iopl", range(4), ids=lambda iopl: f"iopl={iopl}")
def test_iret_flags(iopl, cpl):
    """Which flags a same-ring IRET may change: IF by IOPL, IOPL in ring 0 only, VM never outside ring 0."""
    for old_if, image in itertools.product((0, IF), (0xFFFFFFFF & ~VM, 0, 0xFFFFFFFF)):
        if cpl == 0 and image & VM:
            continue
        reset(CPU, RAM, cpl, eflags=2 | iopl << 12 | old_if)
        set_descriptor(RAM, RETURN_CODE, descriptor(0, 0xFFFF, CODE, dpl=cpl))
        put_return(IRET, ENTRY, RETURN_CODE | cpl, image, 0, 0)
        assert run(IRET) is None
        new_if = image & IF if cpl <= iopl else old_if
        new_iopl = image & IOPL_3 if cpl == 0 else iopl << 12
        assert CPU.eflags & (IF | IOPL_3 | VM) == new_if | new_iopl
        assert CPU.eflags & NT == image & NT


@pytest.mark.parametrize("what", [IRET, RETURN], ids=["iret", "retf"])
@pytest.mark.parametrize("kind", [DATA, CODE, CONFORMING], ids=["data", "code", "conforming"])
@pytest.mark.parametrize("dpl", range(4), ids=lambda dpl: f"dpl={dpl}")
def test_outer_return_drops_inner_segments(what, kind, dpl):
    """A return to ring 3 loads null where DPL < 3, conforming code apart."""
    reset(CPU, RAM, 0)
    set_descriptor(RAM, RETURN_CODE, descriptor(0, 0xFFFF, CODE, dpl=3))
    set_descriptor(RAM, OUTER_STACK, descriptor(0, 0xFFFF, DATA, dpl=3))
    put_return(what, ENTRY, RETURN_CODE | 3, 2, 0x7000, OUTER_STACK | 3)
    set_segment(CPU, DS, 0x50, 0, 0xFFFF, kind, dpl)
    assert run(what) is None
    kept = kind == CONFORMING or dpl == 3
    assert (CPU.seg[DS].selector, CPU.seg[DS].access & UNUSABLE) == ((0x50, 0) if kept else (0, UNUSABLE))
    name = "IRET_CPL0_TO_CPL3" if what == IRET else "FAR_RET_OUTER"
    assert CPU.ledger_count.sum() == CPU.ledger_count[getattr(events, f"EVENT_SYS_{name}"), 1] == 1


# -- far jumps and calls ------------------------------------------------------------------------------------------------


def direct_model(s, kind, dpl, present, rpl, cpl):
    """A far jump or call that names a segment or something else directly; available TSSs have tests of their own."""
    is_code = s and kind >= 8
    conforming = is_code and kind >= 12
    gate_or_tss = not s and kind in (3, 4, 5, 11, 12)
    return first_of(
        (not is_code and not gate_or_tss, (GP, HANDLER)),
        (conforming and dpl > cpl, (GP, HANDLER)),
        (is_code and not conforming and (rpl > cpl or dpl != cpl), (GP, HANDLER)),
        (not is_code and (dpl < cpl or dpl < rpl), (GP, HANDLER)),
        (not s and kind in (3, 11), (GP, HANDLER)),  # a busy TSS
        (not present, (NP, HANDLER)),
        (not is_code, (GP, 0)),  # the gate of this test names a null selector
    )


@pytest.mark.parametrize("cpl", range(4), ids=lambda cpl: f"cpl={cpl}")
@pytest.mark.parametrize("what", [JUMP, CALL], ids=["jmp", "call"])
def test_direct_transfer(what, cpl):
    """Type x DPL x RPL x presence of the named descriptor."""
    failures = []
    for s, kind, dpl, present, rpl in itertools.product((0, 1), range(16), range(4), (0, 1), range(4)):
        if not s and kind in (1, 9):
            continue
        reset(CPU, RAM, cpl)
        value = descriptor(0, 0xFFFF, kind, s, dpl, present)
        set_descriptor(RAM, HANDLER, value if s else value & ~0xFFFF0000)
        expected = direct_model(s, kind, dpl, present, rpl, cpl)
        facts = f"s={s} type={kind} dpl={dpl} p={present} rpl={rpl}"
        check(failures, facts, run(what, HANDLER | rpl, ENTRY), expected)
        if expected is None:
            frame = [get(RAM, 0x7FF8, 4), get(RAM, 0x7FFC, 4)]
            entered = (int(CPU.rip), int(CPU.seg[CS].selector), int(CPU.gpr[4]), frame)
            stack = (0x8000, [0, 0]) if what == JUMP else (0x7FF8, [0x1234, 0xF0 | cpl])
            check(failures, facts, entered, (ENTRY, HANDLER | cpl, *stack))
    assert not failures, "\n".join(failures[:10])


def gate_target_model(what, kind, dpl, present, cpl):
    """The code segment that a call gate names."""
    wrong_ring = dpl > cpl or (what == JUMP and kind < 12 and dpl != cpl)
    return first_of((kind < 8 or wrong_ring, (GP, RETURN_CODE)), (not present, (NP, RETURN_CODE)))


@pytest.mark.parametrize("cpl", range(4), ids=lambda cpl: f"cpl={cpl}")
@pytest.mark.parametrize("what", [JUMP, CALL], ids=["jmp", "call"])
def test_call_gate(what, cpl):
    """Through a call gate with two parameters: the ring, the stack and the frame of the callee."""
    failures = []
    for kind, dpl, present in itertools.product((DATA, CODE, CONFORMING), range(4), (0, 1)):
        reset(CPU, RAM, cpl)
        put_stacks()
        put(RAM, 0x8000, 4, 0x11111111)
        put(RAM, 0x8004, 4, 0x22222222)
        set_descriptor(RAM, HANDLER, gate(RETURN_CODE, ENTRY, CALL_GATE, dpl=3, count=2))
        set_descriptor(RAM, RETURN_CODE, descriptor(0, 0xFFFF, kind, dpl=dpl, present=present))
        facts = f"type={kind} dpl={dpl} p={present}"
        old_ss = int(CPU.seg[SS].selector)
        expected = gate_target_model(what, kind, dpl, present, cpl)
        check(failures, facts, run(what, HANDLER | 3, 0xDEAD), expected)
        if expected is not None:
            continue
        inner = kind == CODE and dpl < cpl
        level = dpl if inner else cpl
        frame = [0x1234, 0xF0 | cpl] + ([0x11111111, 0x22222222, 0x8000, old_ss] if inner else [])
        top = 0x9000 + 0x800 * level if inner else 0x8000
        if what == JUMP:
            frame = []
        pushed = [get(RAM, top - 4 * (len(frame) - n), 4) for n in range(len(frame))]
        entered = (int(CPU.rip), int(CPU.cpl), int(CPU.seg[CS].selector), int(CPU.gpr[4]), pushed)
        check(failures, facts, entered, (ENTRY, level, RETURN_CODE | level, top - 4 * len(frame), frame))
    assert not failures, "\n".join(failures[:10])


def test_call_and_return_release_parameters():
    """RETF imm16 to the outer ring takes the parameters off both stacks."""
    reset(CPU, RAM, 3)
    put_stacks()
    set_descriptor(RAM, 0xF0, descriptor(0, 0xFFFF, CODE, dpl=3))
    set_descriptor(RAM, 0xF8, descriptor(0, 0xFFFF, DATA, dpl=3))
    set_descriptor(RAM, HANDLER, gate(RETURN_CODE, ENTRY, CALL_GATE, dpl=3, count=3))
    set_descriptor(RAM, RETURN_CODE, descriptor(0, 0xFFFF, CODE))
    assert run(CALL, HANDLER | 3) is None
    assert (CPU.cpl, CPU.mode, CPU.bank) == (0, 1, 0)
    assert run(RETURN, 0, 12) is None
    assert (CPU.cpl, CPU.mode, CPU.bank, CPU.rip, CPU.gpr[4]) == (3, 0, 256, 0x1234, 0x8000 + 12)
