"""Shadow page tables: equal to the bare machine under every policy, in sync with the guest's tables, and counted.

The kernels edit their page tables and obey the rules of TLBs; each runs in lock step with the bare machine (E1).
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from command_line import Answer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jitted_exits import differing, everything
from small_kernel import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    DATA,
    DIRECTORY,
    EAX,
    EBX,
    ECX,
    EDX,
    ESI,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
    TABLE,
    Kernel,
    Step,
    compare,
    from_cr,
    invlpg,
    mov,
    save,
    set_cr,
    start,
    store,
    word,
)

from x86virt import Machine, find_guest, find_strategy, load_profile, restore_machine, save_machine
from x86virt.vmm import layout
from x86virt.vmm.shadow.records import POLICIES, ROOT
from x86virt.vmm.shadow.records import TABLE as PAGE_TABLE_SHADOW

UP = PTE_P | PTE_RW | PTE_US
PTE_G, CR4_PSE, CR4_PAE, CR4_PGE = 0x100, 0x10, 0x20, 0x80
PAGE, OTHER = 0x88000, 0x89000  # pages that the cases map as they please
HIDDEN, PAM = 0xC8000, 0x80000058  # a page, and the address of the chipset's registers that say whether it is memory
LAST = 0xFFFFF000  # the last page, where a software VMM lies
MORE = 0x50000  # frames for more tables
SECOND = 0x4F000  # another directory
RELOAD = from_cr(3) + b"\x0f\x22\xd8"
MOST = 20_000_000
ON = CR0_PG | CR0_PE | CR0_ET


def pte(page: int) -> int:
    """Where the entry of a page of the first 4 MB is."""
    return TABLE + page // 0x400


def pde(gla: int, directory: int = DIRECTORY) -> int:
    """Where the directory entry of a linear address is."""
    return directory + (gla >> 22) * 4


def kernel(*codes: bytes, **more) -> Kernel:
    """A kernel of ring 0 steps; a step of ring 3 is given as such."""
    return Kernel([code if isinstance(code, Step) else Step(code) for code in codes], **more)


def touch(*addresses: int) -> bytes:
    """Read some doublewords and keep their sum where the comparison sees it."""
    code = b"\x31\xdb"  # XOR EBX, EBX
    for address in addresses:
        code += b"\x03\x1d" + word(address)  # ADD EBX, [address]
    return code + save(DATA + 0x800, EBX)


def out(port: int, value: int) -> bytes:
    """OUT DX, EAX."""
    return mov(EAX, value) + mov(EDX, port) + b"\xef"


WORDS_OF_PAGES = {PAGE: 0x1111, OTHER: 0x2222, 0x8A000: 0x4444, MORE: 0}
IDENTITY_OF_SECOND = {SECOND: TABLE | UP}

CASES: dict[str, Kernel] = {
    "a page moves": kernel(
        touch(PAGE) + store(PAGE, 5) + store(pte(PAGE), OTHER | UP) + invlpg(PAGE) + touch(PAGE) + store(PAGE, 6),
        words=WORDS_OF_PAGES,
    ),
    "accessed and dirty bits come back": kernel(
        touch(PAGE) + store(PAGE, 1) + store(pte(PAGE), PAGE | UP) + invlpg(PAGE) + touch(PAGE),
        store(pte(PAGE), PAGE | UP | PTE_A) + invlpg(PAGE) + store(PAGE, 2),
    ),
    "write protection comes and goes": kernel(
        store(PAGE, 1) + store(pte(PAGE), PAGE | PTE_P | PTE_US) + invlpg(PAGE) + store(PAGE, 2),
        store(pte(PAGE), PAGE | UP) + store(PAGE, 3),
        Step(store(PAGE, 4), 3),
        store(pte(PAGE), PAGE | PTE_P | PTE_RW) + invlpg(PAGE),
        Step(store(PAGE, 5), 3),
        store(PAGE, 6),
    ),
    "without WP": kernel(
        store(pte(PAGE), PAGE | PTE_P | PTE_US) + invlpg(PAGE) + store(PAGE, 2),
        Step(touch(PAGE), 3),
        Step(store(PAGE, 3), 3),
        store(PAGE, 4),
        set_cr(0, ON | CR0_WP) + store(PAGE, 5),
        set_cr(0, ON) + store(PAGE, 6),
        write_protect=False,
    ),
    "another table": kernel(
        touch(0x400000 + PAGE)
        + store(MORE + PAGE // 0x400, OTHER | UP) + store(pde(0x400000), MORE | UP) + RELOAD + touch(0x400000 + PAGE),
        store(pde(0x400000), 0) + RELOAD + touch(0x400000 + PAGE),
        words={pde(0x400000): TABLE | UP, **WORDS_OF_PAGES},
    ),
    "an entry appears": kernel(
        touch(0x400000 + PAGE),
        store(pde(0x400000), TABLE | UP) + touch(0x400000 + PAGE),
        store(pte(PAGE), OTHER | UP) + invlpg(PAGE) + invlpg(0x400000 + PAGE) + touch(PAGE, 0x400000 + PAGE),
        words=WORDS_OF_PAGES,
    ),
    "a table becomes data, and a table again": kernel(
        store(pde(0x800000), MORE | UP) + touch(0x800000)
        + store(pde(0x800000), 0) + RELOAD
        + mov(EAX, 0x12345) + mov(ECX, 200) + mov(7, MORE) + b"\xfc\xf3\xab"
        + store(MORE, PAGE | UP) + store(pde(0x800000), MORE | UP) + touch(0x800000),
        words={MORE: OTHER | UP, **WORDS_OF_PAGES},
    ),
    "two spaces": kernel(
        touch(PAGE)
        + set_cr(3, SECOND) + touch(PAGE, 0x400000) + store(pte(PAGE), OTHER | UP) + invlpg(PAGE) + touch(PAGE)
        + set_cr(3, DIRECTORY) + touch(PAGE) + store(pde(0x400000, SECOND), MORE | UP)
        + set_cr(3, SECOND) + touch(0x400000) + set_cr(3, DIRECTORY),
        words={SECOND: TABLE | UP, pde(0x400000, SECOND): TABLE | UP, MORE: 0x8A000 | UP, **WORDS_OF_PAGES},
    ),
    "tables written through a recursive entry": kernel(
        store(0x40000000 + PAGE // 0x400, OTHER | UP) + invlpg(PAGE) + touch(PAGE),
        store(0x40100000 + (0x400000 >> 22) * 4, TABLE | UP) + touch(0x400000 + PAGE),
        words={pde(0x40000000): DIRECTORY | UP, **WORDS_OF_PAGES},
    ),
    "a directory that is a table too": kernel(
        store(pde(0xC00000), DIRECTORY | UP) + touch(0xC00000) + store(0xC00000 + 0x3FF000, 7) + RELOAD,
        words=WORDS_OF_PAGES,
    ),
    "global pages": kernel(
        touch(PAGE) + RELOAD + touch(PAGE) + store(pte(PAGE), OTHER | UP) + invlpg(PAGE) + touch(PAGE) + RELOAD
        + store(pte(PAGE), 0x8A000 | UP) + RELOAD + touch(PAGE),
        store(pte(PAGE), OTHER | UP | PTE_G) + RELOAD + touch(PAGE) + store(pte(PAGE), PAGE | UP)
        + set_cr(4, 0) + touch(PAGE) + store(pte(PAGE), OTHER | UP) + RELOAD + touch(PAGE),
        pages={PAGE: PAGE | UP | PTE_G},
        cr4=CR4_PGE,
        words=WORDS_OF_PAGES,
    ),
    "one INVLPG for the pieces of a large page": kernel(
        touch(0x800000 + PAGE, 0x800000 + OTHER)
        + store(MORE + PAGE // 0x400, OTHER | UP) + store(MORE + OTHER // 0x400, PAGE | UP)
        + store(pde(0x800000), MORE | UP) + invlpg(0x800000) + touch(0x800000 + PAGE) + touch(0x800000 + OTHER),
        words={pde(0x800000): UP | PTE_PS, **WORDS_OF_PAGES},
        cr4=CR4_PSE,
    ),
    "an INVLPG for each of two large pages in pieces": kernel(
        touch(0x400000 + PAGE, 0x800000 + PAGE, 0x800000 + OTHER) + invlpg(0x400000)
        + store(MORE + PAGE // 0x400, OTHER | UP) + store(MORE + OTHER // 0x400, PAGE | UP)
        + store(pde(0x800000), MORE | UP) + invlpg(0x800000) + touch(0x800000 + PAGE) + touch(0x800000 + OTHER),
        words={pde(0x400000): UP | PTE_PS, pde(0x800000): UP | PTE_PS, **WORDS_OF_PAGES},
        cr4=CR4_PSE,
    ),
    "an INVLPG for a page where a large one was": kernel(
        touch(PAGE, 0x800000 + PAGE) + store(pde(0x800000), MORE | UP) + RELOAD + touch(0x800000 + PAGE)
        + store(MORE + PAGE // 0x400, OTHER | UP) + invlpg(0x800000 + PAGE) + touch(0x800000 + PAGE),
        pages={PAGE: PAGE | UP | PTE_G},
        words={pde(0x800000): UP | PTE_PS, **WORDS_OF_PAGES, MORE + PAGE // 0x400: PAGE | UP},
        cr4=CR4_PSE | CR4_PGE,
    ),
    "global pages that outlived a flush of everything": kernel(
        touch(PAGE, 0x400000 + OTHER) + invlpg(0x400000) + touch(PAGE) + RELOAD + store(pte(PAGE), OTHER | UP)
        + set_cr(4, CR4_PSE) + touch(PAGE),
        pages={PAGE: PAGE | UP | PTE_G},
        words={pde(0x400000): UP | PTE_PS, **WORDS_OF_PAGES},
        cr4=CR4_PSE | CR4_PGE,
    ),
    "a large page's dirty bit": kernel(
        touch(0x800000 + PAGE) + store(0x800000 + OTHER, 3) + store(pde(0x800000), UP | PTE_PS | PTE_A) + RELOAD
        + touch(0x800000 + OTHER) + store(0x800000 + PAGE, 4),
        store(pde(0x800000), PTE_P | PTE_US | PTE_PS) + RELOAD + store(0x800000 + PAGE, 4),
        words={pde(0x800000): UP | PTE_PS, **WORDS_OF_PAGES},
        cr4=CR4_PSE,
    ),
    "many writes by one instruction": kernel(
        mov(ESI, TABLE) + mov(7, MORE) + mov(ECX, 0x100) + b"\xfc\xf3\xa5" + touch(0x800000 + PAGE),
        mov(ESI, TABLE) + mov(7, MORE) + mov(ECX, 0x100) + b"\xfc\xf3\xa5" + RELOAD + touch(0x800000 + PAGE),
        words={pde(0x800000): MORE | UP, **WORDS_OF_PAGES},
    ),
    "paging off and on": kernel(
        touch(PAGE) + set_cr(0, CR0_PE | CR0_ET) + touch(PAGE) + store(pte(PAGE), OTHER | UP)
        + set_cr(0, ON | CR0_WP) + touch(PAGE) + set_cr(0, CR0_PE | CR0_ET) + touch(PAGE) + set_cr(0, ON | CR0_WP),
        words=WORDS_OF_PAGES,
    ),
    "a page crossing onto a table": kernel(
        store(pte(PAGE), TABLE | UP) + invlpg(PAGE) + store(PAGE - 2, 0x88000027 << 16 & 0xFFFFFFFF | 5) + RELOAD + touch(OTHER),
        words=WORDS_OF_PAGES,
    ),
    "memory that the chipset hides": kernel(
        touch(HIDDEN) + store(HIDDEN, 5) + out(0xCF8, PAM) + out(0xCFC, 0) + touch(HIDDEN) + store(HIDDEN, 6)
        + out(0xCFC, 0x33333333) + touch(HIDDEN) + store(HIDDEN, 7) + out(0xCFC, 0x11111111) + touch(HIDDEN) + store(HIDDEN, 8),
        words={HIDDEN: 0x6666},
    ),
    "memory that the chipset hides behind a global page": kernel(
        touch(HIDDEN) + out(0xCF8, PAM) + out(0xCFC, 0) + touch(HIDDEN) + out(0xCFC, 0x33333333) + touch(HIDDEN),
        pages={HIDDEN: HIDDEN | UP | PTE_G},
        words={HIDDEN: 0x6666},
        cr4=CR4_PGE,
    ),
    "the last pages of the linear space": kernel(
        touch(LAST) + store(LAST, 5) + store(MORE + 0xFFC, OTHER | UP) + invlpg(LAST) + touch(LAST, LAST - 0x1000)
        + store(LAST + 0xFFC, 6),
        Step(touch(LAST), 3),
        words={**WORDS_OF_PAGES, pde(LAST): MORE | UP, MORE + 0xFFC: PAGE | UP, MORE + 0xFF8: OTHER | UP},
    ),
    "tables of its own stack": kernel(
        # A trap's frame is pushed onto the page that is also a page table, by the VMM in the guest's name.
        store(pde(0x800000), 0x7000 | UP) + touch(DATA),
        touch(0xF0000000),
        touch(DATA),
    ),
}  # fmt: skip


# -- PAE paging: the pointers at MORE, directories of 2 MB behind them, a table for the first 2 MB ----------------------------

POINTER, PAE_DIRECTORY, PAE_TABLE = MORE, MORE + 0x1000, MORE + 0x2000


def pae_pte(page: int) -> int:
    """Where the PAE entry of a page of the first 2 MB is."""
    return PAE_TABLE + page // 0x200


PAE_TABLES = WORDS_OF_PAGES | {
    POINTER: PAE_DIRECTORY | PTE_P,
    POINTER + 8: PAE_DIRECTORY | PTE_P,
    POINTER + 0x20: PAE_DIRECTORY | UP,  # R/W is reserved in a pointer
    PAE_DIRECTORY: PAE_TABLE | UP,
    PAE_DIRECTORY + 8: UP | PTE_PS,
    PAE_DIRECTORY + 16: UP | PTE_PS | 0x2000,  # reserved
    **{PAE_TABLE + page // 0x200: page | UP for page in range(0, 1 << 20, 0x1000)},
}
PAE_ON = set_cr(4, CR4_PAE) + set_cr(3, POINTER) + set_cr(0, ON | CR0_WP)


def pae(*codes: bytes | Step) -> Kernel:
    """A kernel under PAE paging."""
    return kernel(PAE_ON, *codes, paging=False, words=PAE_TABLES)


CASES |= {
    "PAE: pages move": pae(
        touch(PAGE, 0x40000000 + PAGE) + store(PAGE, 5) + store(pae_pte(PAGE), OTHER | UP) + invlpg(PAGE)
        + invlpg(0x40000000 + PAGE) + touch(PAGE, 0x40000000 + PAGE) + store(PAGE, 6),
        store(pae_pte(PAGE), OTHER | PTE_P) + invlpg(PAGE) + store(PAGE, 7),
        Step(touch(PAGE), 3),
    ),
    "PAE: large pages and reserved bits": pae(
        touch(0x200000 + PAGE) + store(0x200000 + OTHER, 9),
        touch(0x400000),
        store(pae_pte(PAGE) + 4, 0x100) + invlpg(PAGE) + touch(PAGE),
        store(PAE_DIRECTORY + 8, PAE_TABLE | UP) + invlpg(0x200000) + touch(0x200000 + PAGE) + touch(0x200000 + OTHER),
    ),
    "PAE: pointers are loaded with CR3 alone": pae(
        store(POINTER + 16, PAE_DIRECTORY | PTE_P) + touch(0x80000000 + PAGE),
        RELOAD + touch(0x80000000 + PAGE),
        set_cr(3, POINTER + 0x20) + touch(PAGE),
        store(POINTER, 0) + touch(PAGE) + store(POINTER, PAE_DIRECTORY | PTE_P) + RELOAD + touch(PAGE),
        set_cr(4, CR4_PAE | CR4_PGE) + touch(PAGE) + set_cr(0, CR0_PE | CR0_ET) + set_cr(4, 0) + touch(PAGE)
        + set_cr(3, DIRECTORY) + set_cr(0, ON) + touch(PAGE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CASES)
def test_equal_to_the_bare_machine(name, policy):
    comparison = compare(CASES[name], find_strategy(f"trap-and-emulate,shadow={policy}")(), checkpoint=1)
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.other.outcome == "exited 1"


# Random edits of PAE tables: of an entry of the table, the directory or the pointers, then what the manual asks for.
PAGES_OF_PAE = (PAGE, OTHER, 0x8A000)
PAE_SPACES = (0, 0x200000, 0x40000000, 0x80000000)
LEAF_BITS = st.sampled_from((UP, UP, UP | PTE_A, UP | PTE_A | PTE_D, PTE_P | PTE_US, PTE_P | PTE_RW, PTE_P, 0, UP | PTE_G))
ACCESSES = st.tuples(st.sampled_from(PAE_SPACES), st.sampled_from(PAGES_OF_PAE), st.booleans(), st.booleans()).map(
    lambda it: Step((store(it[0] + it[1], it[1]) if it[2] else touch(it[0] + it[1])), 3 * it[3])
)
LEAF_EDITS = st.tuples(st.sampled_from(PAGES_OF_PAE), st.sampled_from(PAGES_OF_PAE), LEAF_BITS, st.booleans()).map(
    lambda it: Step(
        store(pae_pte(it[0]), it[1] | it[2])
        + (RELOAD + b"".join(invlpg(space + it[0]) for space in PAE_SPACES) if it[3] or it[2] & PTE_G
           else b"".join(invlpg(space + it[0]) for space in PAE_SPACES))
    )
)  # fmt: skip
UPPER_EDITS = st.tuples(
    st.sampled_from((PAE_DIRECTORY + 8, PAE_DIRECTORY + 16, POINTER + 16)),
    st.sampled_from((PAE_TABLE | UP, UP | PTE_PS, 0, PAE_TABLE | PTE_P | PTE_US)),
).map(
    lambda it: Step(
        store(it[0], PAE_DIRECTORY | PTE_P if it[0] == POINTER + 16 and it[1] else it[1])
        + b"".join(invlpg(space + page) for page in PAGES_OF_PAE for space in PAE_SPACES) + RELOAD
    )
)  # fmt: skip
PAE_KERNELS = st.lists(st.one_of(ACCESSES, ACCESSES, LEAF_EDITS, UPPER_EDITS), min_size=6, max_size=20)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PAE_KERNELS)
def test_random_pae_kernels_are_equal_under_every_policy(steps):
    for policy in (*POLICIES, "trace,shadow_writes=1,p2m=contiguous", "out-of-sync,shadow_size=64K"):
        subject = pae(set_cr(4, CR4_PAE | CR4_PGE), *steps)
        comparison = compare(subject, find_strategy(f"trap-and-emulate,shadow={policy}")(), checkpoint=64)
        assert comparison.equal, "\n".join([policy, *comparison.report])
        assert comparison.other.outcome == "exited 1"


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", CASES)
def test_jitted_exits_take_the_same_course(name, policy):
    """State, ledger, caches, exits and the shadow tables themselves, as the Python handlers leave them."""
    runs = []
    for jitted in (True, False):
        machine = start(CASES[name], find_strategy(f"trap-and-emulate,shadow={policy}")())
        machine.exits_in_code.wanted = jitted
        machine.run(MOST)
        assert machine.outcome == "exited 1"
        runs.append(everything(machine))
    assert differing(*runs) == []


@pytest.mark.parametrize("policy", POLICIES[1:])
def test_the_common_writes_to_tables_and_pae_loads_of_cr3_stay_in_machine_code(policy):
    """Loops of a store to a page table and of MOV CR3: the exits that Python sees do not grow with their length."""
    for before, body in ((b"", store(pte(OTHER), PAGE | UP) + invlpg(OTHER) + touch(OTHER)), (PAE_ON, RELOAD + touch(PAGE))):
        left = []
        for count in (40, 80):
            turns = mov(ESI, count) + body + b"\x4e\x0f\x85" + word(-len(body) - 7 & 0xFFFFFFFF)
            subject = kernel(before, turns, paging=not before, words=PAE_TABLES if before else WORDS_OF_PAGES)
            machine = start(subject, find_strategy(f"trap-and-emulate,shadow={policy}")())
            result = machine.run(MOST)
            assert result.outcome == "exited 1"
            exits = sum(row.number for row in result.exits.values())
            assert exits > count
            left.append(exits - machine.exits_in_code.handled)
        assert left[0] == left[1]


# -- in sync -------------------------------------------------------------------------------------------------------


def shadow_leaves(machine: Machine) -> Iterator[tuple[int, int]]:
    """(linear page, entry) of everything that the processor's tables map for the guest now."""
    vm = machine.vm
    ram = vm.processor.ram
    directory = ram[vm.shadow.root : vm.shadow.root + 4096].view("<u4")
    for place in range(1023):
        entry = int(directory[place])
        if entry & PTE_P and entry & PTE_PS:
            yield from ((place << 10 | number, entry + (number << 12)) for number in range(1024))
        elif entry & PTE_P:
            table = ram[entry & ~0xFFF : (entry & ~0xFFF) + 4096].view("<u4")
            yield from ((place << 10 | index, int(value)) for index, value in enumerate(table) if value & PTE_P)


def guest_leaf(machine: Machine, page: int) -> tuple[int, int] | None:
    """(frame, bits that every level has) of a linear page by the guest's own 32-bit tables, walked naively."""
    vm = machine.vm
    read = vm.guest.read_gpa
    if not vm.vcpu.cr0 & CR0_PG:
        return page, 0x1FF
    upper = read((vm.vcpu.cr3 & ~0xFFF) + (page >> 10) * 4, 4)
    if not upper & PTE_P:
        return None
    if upper & PTE_PS and vm.vcpu.cr4 & CR4_PSE:
        return (upper >> 12 & ~0x3FF) + (page & 0x3FF), upper & 0x1FF
    lower = read((upper & ~0xFFF) + (page & 0x3FF) * 4, 4)
    both = PTE_P | PTE_RW | PTE_US | PTE_A
    return (lower >> 12, lower & upper & both | lower & (PTE_D | PTE_G)) if lower & PTE_P else None


def assert_in_sync(machine: Machine) -> int:
    """Every mapping is one that the guest's tables permit now, writable only if dirty and not traced; how many there are."""
    vm, count = machine.vm, 0
    for page, entry in shadow_leaves(machine):
        found = guest_leaf(machine, page)
        assert found is not None, f"page {page:#x} is not the guest's"
        frame, bits = found
        assert entry >> 12 == vm.p2m[frame] and bits & PTE_A
        assert not entry & PTE_US or bits & PTE_US
        if entry & PTE_RW:
            assert bits & PTE_D and (bits & PTE_RW or not vm.vcpu.cr0 & CR0_WP)
            assert not vm.shadow.is_traced(frame)
        count += 1
    return count


@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith("PAE")])
def test_traced_shadows_never_permit_more_than_the_guests_tables(name):
    machine = start(CASES[name], find_strategy("trap-and-emulate,shadow=trace")())
    seen = limit = 0
    while machine.advance(limit := limit + 1, MOST):
        seen = max(seen, assert_in_sync(machine))
    assert machine.outcome == "exited 1" and seen >= 5


# -- counts ----------------------------------------------------------------------------------------------------------


def counted(subject: Kernel | str, options: str, memory: int = 1 << 20) -> Counted:
    """The events of a kernel's, or a guest's, run under trap-and-emulate with options."""
    machine = machine_of(subject, options, memory)
    machine.run(2_000_000_000)
    assert machine.outcome in ("exited 1", "halted"), machine.outcome
    ledger = machine.ledger()
    assert ledger.event_count("vmm.unpriced_hook") == 0
    return Counted(ledger)


def machine_of(subject: Kernel | str, options: str, memory: int) -> Machine:
    """A machine under trap-and-emulate with options, a kernel or guest loaded."""
    strategy = find_strategy(f"trap-and-emulate,{options}" if options else "trap-and-emulate")()
    machine = Machine(strategy, load_profile("p4_prescott"), memory)
    machine.load(subject.image() if isinstance(subject, Kernel) else find_guest(subject), "iterations=4")
    return machine


class Counted:
    """Event counts by their last name."""

    def __init__(self, ledger) -> None:
        self.ledger = ledger

    def __getattr__(self, name: str) -> int:
        return self.ledger.event_count(f"shadow.{name}")


def test_spaces_are_found_again():
    kept = counted("cr3switch", "shadow=trace", 16 << 20)
    dropped = counted("cr3switch", "", 16 << 20)
    assert kept.space_found > kept.space_made > 1 and dropped.space_found == dropped.space_made == 0
    assert kept.entry < dropped.entry and kept.table < dropped.table


def test_what_a_table_write_costs_is_the_policys_choice():
    drop, trace, late = (counted("ptemod", f"shadow={policy}", 16 << 20) for policy in POLICIES)
    assert drop.traced_write == drop.out_of_sync == 0
    assert trace.traced_write > 4 and trace.out_of_sync == 0 and trace.entry_dropped > 0
    assert 0 < late.traced_write < trace.traced_write and late.out_of_sync > 0


def test_one_command_compares_the_policies(capsys):
    """`x86virt compare` with the three of them: all equal to the bare machine, each with events and cycles of its own."""
    names = ["trap-and-emulate", *(f"trap-and-emulate,shadow={policy}" for policy in POLICIES[1:])]
    chosen = [word for name in names for word in ("--strategy", name)]
    answer = Answer(capsys, "compare", "ptemod", *chosen, "-c", "iterations=20", "--json", "-")
    assert answer.status == 0, answer.err
    rows = answer.json()
    assert rows["equal"] and list(rows["differences"]) == names
    assert [run["strategy"] for run in rows["runs"]] == ["native", *names]
    assert len({run["cycles"] for run in rows["runs"]}) == 4


FAR_PAGES = [0x1000000 * number + PAGE for number in range(1, 30)]
MANY_TABLES = kernel(
    touch(*FAR_PAGES) + touch(*FAR_PAGES),
    words={pde(address): MORE + 0x1000 * number | UP for number, address in enumerate(FAR_PAGES)}
    | {MORE + 0x1000 * number + PAGE // 0x400: OTHER | UP for number in range(len(FAR_PAGES))},
)


@pytest.mark.parametrize("policy", POLICIES)
def test_tables_are_evicted_when_their_memory_is_spent(policy):
    small = counted(MANY_TABLES, f"shadow={policy},shadow_size=64K")
    large = counted(MANY_TABLES, f"shadow={policy}")
    assert large.eviction == 0 and small.eviction > 10 and small.table > large.table
    comparison = compare(MANY_TABLES, find_strategy(f"trap-and-emulate,shadow={policy},shadow_size=64K")())
    assert comparison.equal, "\n".join(comparison.report)


LARGE = kernel(
    touch(0x1000000, 0x1001000, 0x1002000) + store(0x1003000, 1) + touch(0x1004000) + store(0x1005000, 1),
    words={pde(0x1000000): 0x400000 | UP | PTE_PS},
    cr4=CR4_PSE,
)


@pytest.mark.parametrize("policy", POLICIES)
def test_large_pages_are_kept_where_the_p2m_allows_it(policy):
    broken = counted(LARGE, f"shadow={policy}", 16 << 20)
    kept = counted(LARGE, f"shadow={policy},p2m=contiguous", 16 << 20)
    assert broken.large_entry == 0 and broken.piece == 6
    assert kept.large_entry == 2 and kept.piece == 0  # for reading, and again when it becomes dirty


def test_a_large_page_with_a_traced_frame_is_broken():
    machine = machine_of(LARGE, "p2m=contiguous", 16 << 20)
    shadow = machine.vm.shadow
    machine.advance(10)
    shadow.trace(0x405, shadow.CODE)
    assert machine.ledger().event_count("shadow.large_entry") == 0
    machine.run(MOST)
    assert machine.ledger().event_count("shadow.large_entry") == 0
    assert machine.ledger().event_count("shadow.traced_write") == 1


def test_global_entries_are_counted():
    assert counted(CASES["global pages"], "").global_entry >= 2
    assert counted(CASES["a page moves"], "").global_entry == 0


def test_a_table_that_is_data_now_is_released():
    reused = kernel(
        store(pde(0x800000), MORE | UP) + touch(0x800000) + store(pde(0x800000), 0) + RELOAD
        + b"".join(store(MORE + 4 * number, number) for number in range(100)),
        words={MORE: OTHER | UP},
    )  # fmt: skip
    trace = counted(reused, "shadow=trace")
    assert trace.release == 1 and trace.traced_write < 80


@pytest.mark.parametrize("policy", POLICIES)
def test_accessed_and_dirty_bits_are_counted_where_they_are_set(policy):
    found = counted(CASES["accessed and dirty bits come back"], f"shadow={policy}")
    assert found.accessed_set >= 8 and found.dirty_set >= 3


def test_traced_frames_are_those_of_the_tables():
    machine = start(CASES["two spaces"], find_strategy("trap-and-emulate,shadow=trace")())
    machine.run(MOST)
    shadow = machine.vm.shadow
    followed = {int(page.frame) for page in shadow.control.pages if page.kind in (ROOT, PAGE_TABLE_SHADOW)}
    assert {DIRECTORY >> 12, SECOND >> 12, TABLE >> 12} <= followed == set(shadow.traced_frames(shadow.PAGE_TABLE))


def test_a_listener_is_called_behind_each_write():
    heard = []
    machine = start(kernel(store(PAGE, 1) + store(PAGE + 8, 2) + store(OTHER, 3)), find_strategy("trap-and-emulate")())
    shadow, guest = machine.vm.shadow, machine.vm.guest
    shadow.listeners[shadow.CODE] = lambda frame, first, count: heard.append((frame, guest.read_gpa(PAGE + 8, 4)))
    shadow.trace(PAGE >> 12, shadow.CODE)
    machine.run(MOST)
    assert heard == [(PAGE >> 12, 0), (PAGE >> 12, 2)]
    assert shadow.is_traced(PAGE >> 12)
    shadow.note_write(PAGE + 4, 4)
    assert len(heard) == 3
    shadow.untrace(PAGE >> 12, shadow.CODE)
    shadow.note_write(PAGE + 4, 4)
    assert len(heard) == 3 and not shadow.traced_frames(shadow.CODE)


def test_the_budget_is_a_size_of_the_pool():
    machine = start(MANY_TABLES, find_strategy("trap-and-emulate,shadow_size=64K")())
    machine.run(MOST)
    assert machine.vm.vcpu.shadow_next == machine.vm.shadow.control.budget == 16 < layout.SHADOW_PAGES


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["two spaces", "a table becomes data, and a table again", "global pages"])
def test_saved_in_the_middle_and_restored(tmp_path, name, policy):
    """A run that is saved and restored after every tenth instruction ends as the unbroken one."""
    whole = start(CASES[name], find_strategy(f"trap-and-emulate,shadow={policy}")())
    whole.run(MOST)
    broken = start(CASES[name], find_strategy(f"trap-and-emulate,shadow={policy}")())
    limit = 0
    while broken.advance(limit := limit + 10, MOST):
        save_machine(broken, tmp_path / "saved")
        broken = restore_machine(tmp_path / "saved")
    one, two = whole.result(), broken.result()
    assert (one.outcome, one.ticks, one.instructions) == (two.outcome, two.ticks, two.instructions)
    states = [machine.strategy.virtual_state(machine).digest() for machine in (whole, broken)]
    assert states[0] == states[1]
