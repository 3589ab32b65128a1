"""Loading and inspecting segment registers, by permutation against models written from the manual.

The models state what the tables of SDM volume 3 sections 5.5, 5.6 and 5.8 and the operation of MOV, LLDT, LTR, LAR,
LSL, VERR and VERW say about one selector and one descriptor; a failing case prints its facts.
"""

import itertools

import numpy as np
import pytest
from descriptor_machine import (
    DS,
    ES,
    GDT,
    LDT,
    LDTR,
    SS,
    TR,
    UNUSABLE,
    architectural,
    check,
    descriptor,
    get,
    new_state,
    raised,
    reset,
    set_descriptor,
)

from x86virt.core import segment as segment_core
from x86virt.core import selectors
from x86virt.core.code_layout import UOP
from x86virt.core.jit import kernel
from x86virt.isa import system_ops
from x86virt.isa.system_ops import NUMBER, OPERATIONS

GP, NP, SS_FAULT = 13, 11, 12
BASE, LIMIT = 0x00123456, 0x04321
LOAD, LOAD_LDTR, LOAD_TR, LIMITS = range(4)


@kernel
def load(state, ram, what, which, selector):
    """One of the loads of core/segment.py."""
    cpu = state[0]
    if what == LOAD:
        return segment_core.load_segment_register(cpu, ram, which, selector)
    if what == LOAD_LDTR:
        return segment_core.load_ldtr(cpu, ram, selector)
    if what == LOAD_TR:
        return segment_core.load_tr(cpu, ram, selector)
    segment_core.segment_limits(cpu, which)
    return 0


@kernel
def inspect(state, ram, uops):
    """LAR, LSL, VERR or VERW."""
    u = uops[0]
    if u.dst_shift == system_ops.SYSTEM_LAR:
        return selectors.load_access_or_limit(state[0], ram, u, selectors.LAR_TYPES)
    if u.dst_shift == system_ops.SYSTEM_LSL:
        return selectors.load_access_or_limit(state[0], ram, u, selectors.LSL_TYPES)
    return selectors.verify(state[0], ram, u)


STATE, RAM = new_state()


def code(kind):
    return kind >= 8


def data_load_model(s, kind, dpl, present, rpl, cpl, selector):
    """MOV DS: what it raises."""
    readable = s and (not code(kind) or kind & 2)
    conforming = code(kind) and kind & 4
    if not readable or (not conforming and max(cpl, rpl) > dpl):
        return GP, selector & ~3
    return None if present else (NP, selector & ~3)


def stack_load_model(s, kind, dpl, present, rpl, cpl, selector):
    """MOV SS: what it raises."""
    if not (rpl == cpl == dpl and s and kind in (2, 3, 6, 7)):
        return GP, selector & ~3
    return None if present else (SS_FAULT, selector & ~3)


@pytest.mark.parametrize("cpl", range(4), ids=lambda cpl: f"cpl={cpl}")
@pytest.mark.parametrize(("segment", "model"), [(DS, data_load_model), (SS, stack_load_model)], ids=["ds", "ss"])
def test_load_by_type_and_privilege(segment, model, cpl):
    """Each type x DPL x RPL x presence: the fault, or the whole cache and the accessed bit in memory."""
    cpu = STATE[0]
    reset(cpu, RAM, cpl)
    failures = []
    for s, kind, dpl, present, rpl in itertools.product((0, 1), range(16), range(4), (0, 1), range(4)):
        selector = 0x28 | rpl
        table = LDT if kind & 1 else GDT
        selector |= 4 if kind & 1 else 0
        set_descriptor(RAM, selector, descriptor(BASE, LIMIT, kind, s, dpl, present), table)
        before = architectural(cpu)
        outcome = load(STATE, RAM, LOAD, segment, selector)
        facts = f"s={s} type={kind} dpl={dpl} p={present} rpl={rpl}"
        expected = model(s, kind, dpl, present, rpl, cpl, selector)
        check(failures, facts, raised(cpu, outcome), expected)
        if expected:
            check(failures, facts + " state", architectural(cpu), before)
            check(failures, facts + " memory", int(RAM[table + 0x28 + 5]) & 15, kind)
            continue
        entry = cpu.seg[segment]
        loaded = (int(entry.selector), int(entry.seg_base), int(entry.limit), int(entry.access))
        access = kind | 1 | 1 << 4 | dpl << 5 | 1 << 7 | 1 << 14
        check(failures, facts, loaded, (selector, BASE, LIMIT, access))
        check(failures, facts + " accessed", int(RAM[table + 0x28 + 5]) & 1, 1)
    assert not failures, "\n".join(failures[:10])


@pytest.mark.parametrize("rpl", range(4))
def test_null_selector(rpl):
    """Null loads into a data segment and makes it unusable; into SS it is #GP(0)."""
    cpu = STATE[0]
    reset(cpu, RAM, 0)
    assert load(STATE, RAM, LOAD, ES, rpl) == 0
    entry = cpu.seg[ES]
    assert (entry.selector, entry.access & UNUSABLE, entry.read_last, entry.write_last) == (rpl, UNUSABLE, -1, -1)
    assert raised(cpu, load(STATE, RAM, LOAD, SS, rpl)) == (GP, 0)


@pytest.mark.parametrize("segment", [DS, SS])
@pytest.mark.parametrize("selector", [0x100, 0x44, 0xFFF8], ids=hex)
def test_beyond_the_table(segment, selector):
    """A descriptor whose last byte lies beyond the table's limit is #GP(selector)."""
    cpu = STATE[0]
    reset(cpu, RAM, 0)
    assert raised(cpu, load(STATE, RAM, LOAD, segment, selector)) == (GP, selector)


def test_last_byte_of_the_table():
    """The limit names the last byte: one less and the last descriptor is outside."""
    cpu = STATE[0]
    reset(cpu, RAM, 0)
    set_descriptor(RAM, 0x20, descriptor(BASE, LIMIT, 3))
    cpu.gdtr_limit = 0x27
    assert load(STATE, RAM, LOAD, DS, 0x20) == 0
    cpu.gdtr_limit = 0x26
    assert raised(cpu, load(STATE, RAM, LOAD, DS, 0x20)) == (GP, 0x20)


def test_local_selector_without_ldt():
    """An unusable LDT has no descriptors, whatever its cached limit says."""
    cpu = STATE[0]
    reset(cpu, RAM, 0)
    assert load(STATE, RAM, LOAD_LDTR, 0, 0) == 0
    cpu.seg[LDTR].limit = 0xFFFF
    assert raised(cpu, load(STATE, RAM, LOAD, DS, 0xC)) == (GP, 0xC)


@pytest.mark.parametrize("kind", range(16), ids=lambda kind: f"type={kind}")
@pytest.mark.parametrize("granular", [0, 1], ids=["bytes", "pages"])
def test_plain_limits(kind, granular):
    """How far a plain read and a plain write may go, by type; expand-down is left to the slow path."""
    cpu = STATE[0]
    reset(cpu, RAM, 0)
    limit = LIMIT << 12 | 0xFFF if granular else LIMIT
    set_descriptor(RAM, 0x28, descriptor(BASE, LIMIT, kind, granular=granular))
    if load(STATE, RAM, LOAD, DS, 0x28) != 0:
        assert kind in (8, 9, 12, 13)
        return
    expand_down = kind in (4, 5, 6, 7)
    assert cpu.seg[DS].limit == limit
    assert cpu.seg[DS].read_last == (-1 if expand_down else limit)
    assert cpu.seg[DS].write_last == (limit if kind in (2, 3) else -1)


def system_load_model(what, s, kind, present, selector):
    """LLDT and LTR: what they raise."""
    if selector & ~3 == 0:
        return (GP, 0) if what == LOAD_TR else None
    if selector & 4 or s or kind not in ((2,) if what == LOAD_LDTR else (1, 9)):
        return GP, selector & ~3
    return None if present else (NP, selector & ~3)


@pytest.mark.parametrize(("what", "segment"), [(LOAD_LDTR, LDTR), (LOAD_TR, TR)], ids=["lldt", "ltr"])
def test_system_segments(what, segment):
    """LLDT and LTR by type, presence, table and null; LTR marks the TSS busy in memory and in the cache."""
    failures = []
    cpu = STATE[0]
    for s, kind, present, selector in itertools.product((0, 1), range(16), (0, 1), (0, 3, 0x28, 0x2B, 0x2C)):
        reset(cpu, RAM, 0)
        for table in (GDT, LDT):
            set_descriptor(RAM, 0x28, descriptor(BASE, LIMIT, kind, s, 0, present, db=0), table)
        facts = f"s={s} type={kind} p={present} selector={selector:#x}"
        expected = system_load_model(what, s, kind, present, selector)
        check(failures, facts, raised(cpu, load(STATE, RAM, what, 0, selector)), expected)
        if expected is None and selector >= 4:
            busy = 2 if what == LOAD_TR else 0
            check(failures, facts, int(cpu.seg[segment].access), kind | busy | 0x80)
            check(failures, facts + " memory", int(RAM[GDT + 0x28 + 5]), kind | busy | 0x80)
    assert not failures, "\n".join(failures[:10])


def inspect_model(operation, s, kind, dpl, rpl, cpl):
    """LAR, LSL, VERR, VERW: is the selector usable?"""
    conforming = s and kind >= 12
    if not conforming and max(cpl, rpl) > dpl:
        return False
    if operation == "VERR":
        return bool(s and (kind < 8 or kind & 2))
    if operation == "VERW":
        return bool(s and kind in (2, 3, 6, 7))
    system_types = {"LAR": (1, 2, 3, 4, 5, 9, 11, 12), "LSL": (1, 2, 3, 9, 11)}[operation]
    return bool(s or kind in system_types)


@pytest.mark.parametrize("cpl", [0, 1, 3], ids=lambda cpl: f"cpl={cpl}")
@pytest.mark.parametrize("operation", ["LAR", "LSL", "VERR", "VERW"])
def test_inspection(operation, cpl):
    """ZF and the destination of the four instructions that look at a selector, by type x DPL x RPL; P plays no part."""
    uops = np.zeros(1, UOP).view(np.recarray)
    u = uops[0]
    u.dst_shift, u.src, u.dst, u.width = NUMBER[operation], 1, 2, 32
    cpu = STATE[0]
    reset(cpu, RAM, cpl)
    failures = []
    for s, kind, dpl, rpl in itertools.product((0, 1), range(16), range(4), range(4)):
        value = descriptor(BASE, 0x12345, kind, s, dpl, kind & 1, granular=1)
        set_descriptor(RAM, 0x28, value)
        cpu.gpr[1], cpu.gpr[2] = 0x28 | rpl, 0x5A5A
        cpu.flag_result = 1
        outcome = inspect(STATE, RAM, uops)
        usable = inspect_model(operation, s, kind, dpl, rpl, cpl)
        result = {"LAR": value >> 32 & 0xFFFF00, "LSL": 0x12345FFF}.get(operation, 0x5A5A) if usable else 0x5A5A
        facts = f"s={s} type={kind} dpl={dpl} rpl={rpl}"
        check(failures, facts, (outcome, bool(cpu.flag_result == 0), int(cpu.gpr[2])), (0, usable, result))
        check(failures, facts + " memory", get(RAM, GDT + 0x28, 8), value)
    assert not failures, "\n".join(failures[:10])


@pytest.mark.parametrize("selector", [0, 3, 0x100, 0x44], ids=hex)
@pytest.mark.parametrize("operation", ["LAR", "LSL", "VERR", "VERW"])
def test_inspection_never_faults(operation, selector):
    """Null selectors and selectors beyond their table only clear ZF."""
    uops = np.zeros(1, UOP).view(np.recarray)
    uops[0].dst_shift, uops[0].src, uops[0].dst, uops[0].width = NUMBER[operation], 1, 2, 32
    cpu = STATE[0]
    reset(cpu, RAM, 3)
    cpu.gpr[1], cpu.gpr[2] = selector, 0x5A5A
    cpu.flag_result = 0
    assert inspect(STATE, RAM, uops) == 0
    assert (int(cpu.flag_result != 0), int(cpu.gpr[2])) == (1, 0x5A5A)


def test_operation_numbers():
    """Each declared operation has its constant, with the number of its place."""
    for number, (name, _) in enumerate(OPERATIONS):
        assert getattr(system_ops, f"SYSTEM_{name}") == number
