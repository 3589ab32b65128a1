"""VMMs with nested tables (EPT, NPT): guests that touch what is no memory, and what each option changes: the costs alone."""

from __future__ import annotations

from collections import Counter

import pytest
from nested_vmm import (
    HIGH,
    HOLE,
    HOLE_CASES,
    LOW,
    MAX_CYCLES,
    NESTED,
    UP,
    accesses,
    assert_equal,
    compare,
    lone,
    machine_of_kernel,
    profile_of,
)
from small_kernel import DIRECTORY, EAX, EBX, RAM_BYTES, Kernel, Step, load, mov, word
from test_pc_vmm import IO, IO_PAGE, LOCAL, LOCAL_PAGE, VERSION, seen
from test_pc_vmm import STEPS as APIC_STEPS
from test_shadow import CASES

from x86virt import Machine, find_guest, find_strategy, load_profile
from x86virt.equivalence import compare_runs
from x86virt.saved import machine_bytes, machine_of

VARIANTS = ("large_pages=off", "p2m=contiguous", "p2m=contiguous,large_pages=off", "vpid=off", "nested_size=128K")


def isolated(kernel: Kernel, name: str) -> str:
    """Run with every access checked: the outcome."""
    machine = machine_of_kernel(kernel, name, isolated=True)
    result = machine.run(MAX_CYCLES)
    assert not result.outcome.startswith("isolation"), result.outcome
    result.ledger.check_conservation(result.ticks)
    return result.outcome


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("access", accesses(0))
def test_accesses_to_what_is_no_memory(access: str, name: str) -> None:
    """Behind RAM, in the middle of nothing, at the end of the first 4 GB, in both rings."""
    for address in (HOLE, LOW, HIGH, HOLE + 0x7F0):
        for ring in (0, 3):
            kernel = lone(Step(accesses(address)[access], ring), b"\x40")
            comparison = assert_equal(kernel, name)
        assert isolated(kernel, name) == comparison.other.outcome


# Under NPT the pointers of PAE paging are not loaded by MOV to CR3 or CR4: each walk reads them (AMD volume 2, section 15.25.10).
NPT_READS_POINTERS = ("pointers that are nowhere", "PAE: pointers are loaded with CR3 alone")


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("case", [*HOLE_CASES, *CASES])
def test_paging_and_structures_of_all_kinds(case: str, name: str) -> None:
    """Tables, stacks and task-state segments where no memory is, and what makes shadows hard: as on the bare machine."""
    kernel = (HOLE_CASES | CASES)[case]
    comparison = compare(kernel, name)
    assert comparison.equal or (case in NPT_READS_POINTERS and name == "svm-npt"), "\n".join(comparison.report)
    assert comparison.equal != (case in NPT_READS_POINTERS and name == "svm-npt")
    assert isolated(kernel, name) == comparison.other.outcome


# -- options ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NESTED)
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("guest", ["hello", "pgfault", "cr3switch"])
def test_options_change_the_costs_alone(guest: str, variant: str, name: str) -> None:
    """Each option, in E1 with the bare machine."""
    under = f"{name},{variant}"
    comparison = compare_runs(
        find_guest(guest), find_strategy(under)(), find_strategy("native")(), profile_of(name), 16 << 20, "2", None, 2048
    )
    assert comparison.equal, "\n".join(comparison.report)


def counts(under: str, kernel: Kernel | None = None, memory: int = RAM_BYTES) -> Counter[str]:
    """What a run counts: events by name, and exits."""
    machine = machine_of_kernel(kernel or BUSY, under, memory)
    result = machine.run(MAX_CYCLES)
    assert result.outcome == "exited 1"
    return Counter({name: result.ledger.event_count(name) for name in COUNTED})


COUNTED = (
    "nested.entry", "nested.large_entry", "nested.table", "nested.eviction", "nested.hole", "walk.native",
    "walk.nested_reference", "exit.ept_violation", "vmm.nested_fill", "vmm.nested_table",
)  # fmt: skip
TOUCH = b"".join(load(EAX, page) for page in range(0x20000, 0x90000, 0x1000))
BUSY = Kernel([Step((TOUCH + b"\xe4\x80") * 3), Step(TOUCH, 3)])  # with an exit between: IN


@pytest.mark.parametrize("name", NESTED)
def test_what_large_pages_spare(name: str) -> None:
    """One entry and one exit for all that the kernel touches, and walks with a reference less."""
    large, small = (counts(f"{name},p2m=contiguous{more}", memory=8 << 20) for more in ("", ",large_pages=off"))
    assert large["nested.large_entry"] == 1 and large["nested.entry"] <= 2 and small["nested.large_entry"] == 0
    assert small["nested.entry"] > 110 and small["exit.ept_violation"] - large["exit.ept_violation"] > 110
    assert large["walk.nested_reference"] < small["walk.nested_reference"]
    assert small["vmm.nested_fill"] == small["exit.ept_violation"] * (4 if name == "vtx-ept" else 2)
    assert small["vmm.nested_table"] == small["nested.table"]
    scattered = counts(name, memory=8 << 20)
    assert scattered["nested.large_entry"] == 0 and scattered["nested.entry"] == small["nested.entry"]


@pytest.mark.parametrize("name", NESTED)
def test_what_a_tag_spares(name: str) -> None:
    """Without VPID or ASID of its own a guest begins with empty TLBs behind each exit."""
    tagged, untagged = counts(name), counts(f"{name},vpid=off")
    assert tagged["walk.native"] < untagged["walk.native"]
    assert tagged["walk.nested_reference"] < untagged["walk.nested_reference"]
    assert tagged["nested.entry"] == untagged["nested.entry"]


SPREAD = {"vtx-ept": 64 << 20, "svm-npt": 132 << 20}  # of RAM, of which the kernel touches a page in each 1 MB


def spread_kernel(memory: int) -> Kernel:
    """A kernel that touches all of a large RAM several times, by tables whose pages are large."""
    directory = {DIRECTORY + 4 * number: number << 22 | 0x87 for number in range(1, memory >> 22)}
    loop = mov(EBX, 0x400000) + b"\x01\x03" + b"\x81\xc3" + word(1 << 20) + b"\x81\xfb" + word(memory) + b"\x72\xf0"
    return Kernel([Step(loop), Step(loop), Step(loop, 3)], cr4=0x10, words=directory)


@pytest.mark.parametrize("name", NESTED)
def test_tables_are_evicted_within_their_budget(name: str) -> None:
    """The guest ends as on the bare machine, with fewer tables at a time than its memory needs."""
    memory = SPREAD[name]
    kernel = spread_kernel(memory)
    assert_equal(kernel, f"{name},nested_size=128K", memory)
    few, all_of_them = counts(f"{name},nested_size=128K", kernel, memory), counts(name, kernel, memory)
    assert all_of_them["nested.eviction"] == 0 < few["nested.eviction"]
    assert few["nested.table"] - few["nested.eviction"] == (128 << 10 >> 12) - 2  # the root and the pool's first page


# -- what lies in front of memory ---------------------------------------------------------------------------------------------


def with_apics(name: str, profile: str) -> Machine:
    """A machine whose guest uses its APICs, also over RAM."""
    pages = {LOCAL_PAGE: LOCAL | UP, IO_PAGE: IO | UP}
    machine = Machine(find_strategy(name)(), load_profile(profile), RAM_BYTES)
    machine.fit_apic()
    machine.load(Kernel(APIC_STEPS, pages=pages, words={0x80000 + VERSION: 0xCAFE}).image())
    return machine


@pytest.mark.parametrize("name", NESTED)
def test_registers_in_front_of_memory(name: str) -> None:
    """The local APIC and the I/O APIC, and the local one moved over RAM and away: as on the bare machine."""
    profile = profile_of(name).name
    native, under = (seen(with_apics(which, profile)) for which in ("native", name))
    assert under == native and native[0] == "exited 1"


@pytest.mark.parametrize("under", ["vtx-ept,nested_size=128K", "svm-npt,p2m=contiguous"])
def test_a_saved_guest_goes_on_with_its_tables(under: str) -> None:
    """Saved anywhere and restored, it ends with the same cycles: tables, record and clock's hand are back."""
    memory = SPREAD["vtx-ept"]
    whole = machine_of_kernel(spread_kernel(memory), under, memory).run(MAX_CYCLES)
    for part in (1, 3):
        cut = machine_of_kernel(spread_kernel(memory), under, memory)
        assert cut.advance(whole.instructions * part // 4, MAX_CYCLES)
        rest = machine_of(machine_bytes(cut), "test").run(MAX_CYCLES)
        assert (rest.outcome, rest.ticks, rest.instructions) == (whole.outcome, whole.ticks, whole.instructions)
