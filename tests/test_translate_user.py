"""Programs under binary translation: which run directly, which translated, and that those see what the bare machine shows.

A translated program runs in ring 3, from pages that are the VMM's: what the tables say of user and supervisor holds as it
does on the bare machine, and the VMM's selectors, gates and addresses are as far away as ever.
"""

from __future__ import annotations

import random
from functools import cache

import pytest
from descriptor_machine import descriptor
from sensitive_cases import SENSITIVE_ROWS, Case, cases, kernel_of, verdicts
from small_kernel import (
    CODE_3,
    DATA,
    EAX,
    ESP,
    MAX_CYCLES,
    TABLE,
    Kernel,
    Step,
    far_jump,
    from_cr,
    invlpg,
    load,
    load_segment,
    log,
    mov,
    push,
    run,
    set_cr,
    start,
    store,
    strategy,
    to_cr,
    word,
)
from test_saved import assert_same
from test_vmm_hostile import TABLE_ATTACKS, attack, selector_steps, top_kernels
from vmm_judge import EQUAL, judge
from vmm_pieces import UP, furnished, index

from x86virt import find_strategy
from x86virt.api import compare
from x86virt.equivalence import found
from x86virt.machine import Machine
from x86virt.vmm import layout

DIRECT, TRANSLATED = "binary-translation", "binary-translation,translate_user=on"
USER_FLAGS = {"usual": 0x202, "IF clear": 0x2, "IOPL 3": 0x3202, "IOPL 1": 0x1202, "IOPL 3, IF clear": 0x3002}
WORK = b"\x40\xb9\x03\x00\x00\x00\x49\x75\xfd"  # INC EAX; MOV ECX, 3; DEC ECX; JNZ
USER_ONLY, SUPERVISOR, READ_ONLY_PAGE = 0x88000, 0x89000, 0x8A000
RING_1_CODE, RING_1_DATA, RING_2_CODE, RING_2_DATA = 0x61, 0x69, 0x72, 0x7A


@cache
def levels_translated(flags: int, under: str) -> frozenset[int]:
    """The privilege levels of the guest of whose code there are units, for a kernel with one step of ring 3."""
    machine, result = run(Kernel([Step(WORK + b"\xcd\x80", 3, flags)]), under)
    assert result.outcome == "exited 1", result.outcome
    return levels(machine)


def levels(machine: Machine) -> frozenset[int]:
    """The privilege levels of the units in the cache."""
    assert machine.vm is not None
    return frozenset(unit.context.cpl for unit in machine.vm.translator.cache.units if unit.guest)


# -- which code runs how ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", USER_FLAGS)
def test_a_program_runs_directly_while_its_flags_are_the_processors(name: str) -> None:
    assert levels_translated(USER_FLAGS[name], DIRECT) == ({0} if name == "usual" else {0, 3})
    assert levels_translated(USER_FLAGS[name], TRANSLATED) == {0, 3}


def test_a_program_whose_segments_no_table_says_runs_translated() -> None:
    """Its CS was loaded from a descriptor that its kernel then changed: an entry of the VMM's holds it."""
    change = store(0x1000 + (CODE_3 & ~7) + 4, 0)  # of CODE_3, while the program runs on it
    machine, _ = run(Kernel([Step(change + WORK + b"\xcd\x80", 3)]), DIRECT)
    assert levels(machine) == {0, 3}
    assert judge(Kernel([Step(change + WORK + b"\xcd\x80", 3)]), DIRECT, 1).kind == EQUAL


def test_code_that_begins_at_the_top_of_the_linear_space_is_translated() -> None:
    """No shadow of such a segment lets any access pass."""
    base = 0xFFFF0000
    kernel = furnished([Step(far_jump(0x63, DATA + 0x10000), 3)])
    kernel.descriptors[0x60] = descriptor(base, 0xFFFFF, 11, dpl=3, granular=1)
    kernel.octets[DATA] = WORK + b"\x2e\xa1" + word(DATA + 0x10000) + b"\xcd\x80"  # reads its own code too
    for under in (DIRECT, TRANSLATED):
        assert judge(kernel, under, 1).kind == EQUAL
        machine, result = run(kernel, under)
        assert 3 in levels(machine) and result.outcome == "exited 1"


@pytest.mark.parametrize("code,data", [(RING_1_CODE, RING_1_DATA), (RING_2_CODE, RING_2_DATA)])
def test_rings_1_and_2_run_translated_and_cannot_load_the_translators_segments(code: int, data: int) -> None:
    """Directly they could: for them the guest's kernel and its translator are no inner ring."""
    for selector in (layout.TRANSLATOR_DATA_SELECTOR, layout.TRANSLATED_CODE_SELECTOR, layout.GUEST_GS_SELECTOR):
        kernel = furnished([Step(push(data) + push(0x7700) + push(code) + push(DATA) + b"\xcb")])
        attempt = load_segment(3, selector | code & 3) + store(layout.VMM_BASE + layout.CACHE, 0)
        kernel.octets[DATA] = WORK + attempt + b"\xcd\x80"
        for ring, (own_code, own_data) in {1: (RING_1_CODE, RING_1_DATA), 2: (RING_2_CODE, RING_2_DATA)}.items():
            kernel.descriptors[own_code & ~7] = descriptor(0, 0xFFFFF, 11, dpl=ring, granular=1)
            kernel.descriptors[own_data & ~7] = descriptor(0, 0xFFFFF, 3, dpl=ring, granular=1)
        assert attack(kernel, DIRECT, 1) == EQUAL
        machine, _ = run(kernel, DIRECT)
        assert code & 3 in levels(machine)
        assert log(machine)[-1][:2] == (13, selector & ~7)


# -- what programs see ----------------------------------------------------------------------------------------------------


def user_cases(most: int, rows: tuple, directly: bool) -> list[Case]:
    """Some cases of rows in ring 3: with the flags that let it run directly, or with others."""
    chosen: list[Case] = []
    for row in rows:
        mine = [case for case in cases(row) if case.step.ring == 3 and (case.step.flags == 0x202) is directly]
        chosen += mine if len(mine) <= most else random.Random(row.name).sample(mine, most)
    return chosen


@pytest.mark.parametrize("under,directly", [(DIRECT, False), (TRANSLATED, False), (TRANSLATED, True)])
def test_translated_programs_do_with_every_sensitive_instruction_what_the_bare_machine_does(under: str, directly: bool) -> None:
    chosen = user_cases(6, SENSITIVE_ROWS, directly)
    assert {case.row for case in chosen} == set(SENSITIVE_ROWS)
    assert set(verdicts(chosen, under)) == {EQUAL}


def test_what_a_program_sees_of_the_vmm_is_just_what_is_declared() -> None:
    """Each declared divergence is one that some case shows, and none is seen that is not declared."""
    declared = find_strategy(DIRECT).known_divergences
    rows = tuple(row for row in SENSITIVE_ROWS if row.name in {key[0] for key in declared})
    seen = set()
    for directly in (True, False):
        chosen = user_cases(40, rows, directly)
        for first in range(0, len(chosen), 48):
            machine, _ = run(kernel_of(chosen[first : first + 48]), DIRECT)
            keys = {row.key for row in found(machine)}
            assert directly or not keys
            seen |= keys
    assert seen == declared
    assert find_strategy(TRANSLATED).known_divergences == frozenset()


def test_the_flags_of_a_program_are_its_own_with_every_iopl_and_if() -> None:
    """PUSHF, POPF, CLI and STI, inline and by callouts; an interrupt flag that a program may not change stays."""
    steps = []
    for flags in (0x202, 0x2, 0x1202, 0x2002, 0x3202, 0x3002):
        for image in (0x202, 0x2, 0x3ED7, 0x40246, 0x4202, 0x302):
            steps.append(Step(b"\x9c" + push(image) + b"\x9d\x9c\x58\x5b\x9c\x59\xcd\x80", 3, flags))
        steps += [Step(code + b"\x9c\x58" + b"\xcd\x80", 3, flags) for code in (b"\xfa", b"\xfb\x90", b"\xfb\xfa")]
    for under in (DIRECT, TRANSLATED, TRANSLATED + ",inline_emulation=off"):
        assert judge(Kernel(steps), under, 16).kind == EQUAL


# -- pages ----------------------------------------------------------------------------------------------------------------

PAGES = {USER_ONLY: USER_ONLY | 7, SUPERVISOR: SUPERVISOR | 3, READ_ONLY_PAGE: READ_ONLY_PAGE | 5, 0x8B000: 0}
ACCESSES = {
    "load": lambda page: load(EAX, page),
    "store": lambda page: store(page, 1),
    "read-modify-write": lambda page: b"\xff\x05" + word(page),
    "push": lambda page: mov(ESP, page + 8) + b"\x50\x58",
    "across": lambda page: store(page + 0xFFE, 1),
    "pushf": lambda page: mov(ESP, page + 8) + b"\x9c",
    "call": lambda page: mov(ESP, page + 8) + mov(EAX, DATA) + b"\xff\xd0",
    "sgdt": lambda page: b"\x0f\x01\x05" + word(page),
    "execute": lambda page: mov(EAX, page) + b"\xff\xe0",
}


@pytest.mark.parametrize("write_protect", (True, False))
@pytest.mark.parametrize("name", ACCESSES)
def test_pages_have_the_rights_that_the_guests_tables_give_a_program(name: str, write_protect: bool) -> None:
    """Error codes, CR2, accessed and dirty bits too; the kernel has been there before, whose rights are others."""
    steps = []
    for page in PAGES:
        code = ACCESSES[name](page)
        steps += [Step(code, 0)] if page != 0x8B000 and name not in ("push", "pushf", "call", "execute") else []
        steps += [Step(code, 3, 0x3202), Step(code, 3)]
    code_of_pages = dict.fromkeys((DATA, *PAGES), b"B\xcd\x80")
    kernel = Kernel(steps, pages=dict(PAGES), octets=code_of_pages, write_protect=write_protect)
    assert judge(kernel, TRANSLATED, 1).kind == EQUAL


def test_code_whose_page_becomes_the_supervisors_faults() -> None:
    """Its unit stands in the cache, but is not what the program may execute any more; and then again it is."""
    call = mov(EAX, USER_ONLY) + b"\xff\xd0\xcd\x80"
    entry = TABLE + index(USER_ONLY)
    take, give = store(entry, USER_ONLY | 3) + invlpg(USER_ONLY), store(entry, USER_ONLY | 7) + invlpg(USER_ONLY)
    steps = [Step(call, 3), Step(call, 3), Step(take), Step(call, 3), Step(give), Step(call, 3)]
    kernel = Kernel(steps, pages={USER_ONLY: USER_ONLY | 7}, octets={USER_ONLY: b"\x43\xc3"})
    assert judge(kernel, TRANSLATED, 1).kind == EQUAL
    machine, _ = run(kernel, TRANSLATED)
    assert [row[0] for row in log(machine)].count(14) == 1


def test_address_spaces_have_their_own_units_and_find_them_again() -> None:
    """Two programs at one linear address: neither is translated anew when its turn comes again."""
    other, table = 0x42000, 0x43000
    octets = {USER_ONLY: b"\x43\xc3", 0x8C000: b"\x43\x43\xc3"}
    words = {other: table | UP}
    words |= {table + 4 * n: n << 12 | UP for n in range(256)} | {table + index(USER_ONLY): 0x8C000 | UP}
    call = Step(mov(EAX, USER_ONLY) + b"\xff\xd0\xcd\x80", 3)
    turn = [Step(set_cr(3, other)), call, Step(set_cr(3, 0x40000)), call]

    def translated(turns: int) -> int:
        machine, result = run(Kernel(turn * turns, octets=octets, words=words), TRANSLATED)
        units = [unit for unit in machine.vm.translator.cache.units if unit.gla == USER_ONLY]
        assert {unit.context.root for unit in units} == {other, 0x40000} and len(units) == 2
        return result.ledger.event_count("translator.invalidation")

    assert translated(2) == translated(6)
    assert judge(Kernel(turn * 3, octets=octets, words=words), TRANSLATED, 1).kind == EQUAL


def test_alignment_is_checked_in_translated_programs() -> None:
    check = b"\x9c\x81\x0c\x24\x00\x00\x04\x00\x9d" + load(EAX, DATA + 1)  # AC, then a load that is not aligned
    enable = from_cr(0) + b"\x0d\x00\x00\x04\x00" + to_cr(0)
    kernel = Kernel([Step(enable), Step(check, 3), Step(check)])
    assert judge(kernel, TRANSLATED, 1).kind == EQUAL
    assert 17 in [row[0] for row in log(run(kernel, TRANSLATED)[0])]


REACHING = ("load", "read-modify-write", "push", "return", "code", "string", "x87", "wrap")

# -- attacks --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mapped", (False, True), ids=("holes", "mapped"))
@pytest.mark.parametrize("name", REACHING)
def test_translated_programs_do_not_reach_the_vmm(name: str, mapped: bool) -> None:
    for kernel in top_kernels(name, mapped):
        kernel.steps = [step for step in kernel.steps if step.ring == 3]
        if kernel.steps:
            assert attack(kernel, TRANSLATED) == EQUAL


def test_a_program_that_runs_directly_cannot_use_what_a_translated_one_had() -> None:
    """The translator's segments, and the gate of its callouts, which were open to ring 3 a moment ago."""
    steps = []
    for own in range(layout.FIRST_VMM_SELECTOR, 0x10000, 8):
        steps += [Step(b"\x90" + WORK + b"\xcd\x80", 3, 0x3202), *selector_steps(own, 3)]
    for vector in range(0xE0, 0x100):
        steps += [Step(WORK + b"\xcd\x80", 3, 0x2), Step(bytes([0xCD, vector]), 3)]
    for first in range(0, len(steps), 40):
        assert attack(Kernel(steps[first : first + 40]), DIRECT) == EQUAL


@pytest.mark.parametrize("name", TABLE_ATTACKS)
def test_tables_modified_by_translated_programs(name: str) -> None:
    kernel = furnished(TABLE_ATTACKS[name])
    assert attack(kernel, TRANSLATED) == EQUAL


def test_the_caches_pages_are_read_only_in_every_ring_of_the_guests() -> None:
    machine = start(Kernel([Step(b"\x90", 3)]), TRANSLATED)
    assert machine.vm is not None
    machine.run(MAX_CYCLES)
    tables = (layout.HASH, layout.HASH_BYTES), (layout.OUTER_HASH, layout.HASH_BYTES)
    for place, count in ((layout.CACHE, layout.CACHE_BYTES), *tables):
        for page in range(place, place + count, 0x1000):
            entry = machine.vm.shadow.read_entry(layout.REGION_TABLE + page // 0x400)
            assert entry & 2 == 0, hex(page)
    entries = [machine.vm.shadow.read_entry(layout.REGION_TABLE + 4 * page) for page in range(1024)]
    reachable = [page << 12 for page, entry in enumerate(entries) if entry & 6 == 6]
    assert reachable == [layout.TRANSLATOR]


# -- whole guests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guest", ("hello", "syscall", "callret", "divzero", "pgfault", "cr3switch", "smc"))
def test_guests_run_as_on_the_bare_machine(guest: str) -> None:
    comparison = compare(guest, TRANSLATED)
    assert comparison.equal and not comparison.divergences


def test_a_saved_and_restored_run_ends_as_the_unbroken_one() -> None:
    assert_same("syscall", TRANSLATED, [420_000, 600_000, 700_001])


def program_ticks(steps: list[Step], under: str, stride: int = MAX_CYCLES) -> tuple[int, int]:
    """The ticks of a kernel's programs, and those of them that ran translated; in runs of so many instructions."""
    machine = start(Kernel(steps), strategy(under))
    limit = stride
    while machine.advance(limit):
        limit += stride
    ledger = machine.result().ledger
    return ledger.ticks_by_mode()["guest_user"], ledger.event_count("translator.program_tick")


def test_translated_programs_are_counted_as_programs() -> None:
    """Their time and that of direct execution, together all of the mode; runs in pieces count the same."""
    steps = [Step(WORK * 20 + b"\xcd\x80", 3, flags) for flags in (0x202, 0x3202)]
    ticks, translated = program_ticks(steps, TRANSLATED)
    assert ticks == translated > 0
    directly, none = program_ticks(steps[:1], DIRECT)
    assert directly > 0 == none
    ticks, translated = program_ticks(steps, DIRECT)
    assert directly / 2 < ticks - translated < directly * 2  # the program with IOPL 3 alone is translated
    assert program_ticks(steps, DIRECT, 7) == (ticks, translated)
