"""Shadow page tables that a hardware guest walks: equal to the bare machine, counted, flushed as tags ask for, saved.

The kernels are those of test_shadow.py, which edit their page tables and obey the rules of TLBs. Here the guest has the whole
linear space and its own rings: nothing of the VMM is in its tables.
"""

from __future__ import annotations

import pytest
from profile_for import profile_for
from small_kernel import MAX_CYCLES, RAM_BYTES, start
from test_shadow import CASES

from x86virt import Machine, find_guest, find_strategy, load_profile
from x86virt.equivalence import compare_runs
from x86virt.isa.registers import PTE_P, PTE_US
from x86virt.saved import machine_bytes, machine_of
from x86virt.vmm import layout
from x86virt.vmm.shadow.records import ENTRIES, FREE, POLICIES, VMM_SLOT

VARIANTS = (
    ("p4_cedarmill", "vtx-shadow"),
    ("core2_woodcrest", "vtx-shadow,shadow=trace"),
    ("nehalem", "vtx-shadow,shadow=out-of-sync,p2m=contiguous"),  # with VPIDs
    ("k10_barcelona", "svm-shadow,shadow=trace"),  # with ASIDs
)
SAVED = ("PAE: pages move", "two spaces", "tables of its own stack")
MEMORY, BUDGET = 8 << 20, 2_000_000_000


@pytest.mark.parametrize(("profile", "name"), VARIANTS)
def test_kernels_that_edit_their_tables_are_equal_to_the_bare_machine(profile: str, name: str) -> None:
    for case, kernel in CASES.items():
        under, native = find_strategy(name)(), find_strategy("native")()
        found = compare_runs(kernel.image(), under, native, load_profile(profile), RAM_BYTES, "", MAX_CYCLES, 1)
        assert found.equal, "\n".join([case, *found.report])
        assert found.other.outcome == "exited 1", case


# -- what exits, and what does not ------------------------------------------------------------------------------------------


def finished(guest: str, name: str, iterations: int, profile: str = "") -> Machine:
    """A guest's run under a strategy, to its end."""
    machine = Machine(find_strategy(name)(), load_profile(profile or profile_for(name)), MEMORY)
    machine.load(find_guest(guest), f"iterations={iterations}")
    machine.run(BUDGET)
    assert machine.outcome == "halted"
    assert machine.ledger().event_count("vmm.unpriced_hook") == 0
    return machine


def per_iteration(guest: str, name: str) -> dict[str, float]:
    """Exits by reason of one iteration more."""
    few, many = (finished(guest, name, number).result().exits for number in (10, 30))
    grown = {reason: (row.number - (few[reason].number if reason in few else 0)) / 20 for reason, row in many.items()}
    return {reason: number for reason, number in grown.items() if number}


def test_system_calls_do_not_exit_and_a_load_of_cr3_does() -> None:
    assert "cr_access" not in per_iteration("syscall", "vtx-shadow")
    assert per_iteration("syscall", "vtx-shadow") == per_iteration("callret", "vtx-shadow") == {}
    assert per_iteration("cr3switch", "vtx-shadow")["cr_access"] >= 1


def test_a_page_fault_of_the_guests_exits_twice_as_often_as_its_new_page_needs() -> None:
    """Once for the guest, whose handler makes the entry, and once for the shadow, which lacks it then."""
    assert per_iteration("pgfault", "vtx-shadow")["exception_or_nmi"] >= 2
    dropped, traced = (per_iteration("ptemod", f"vtx-shadow,shadow={policy}") for policy in ("drop", "trace"))
    assert traced["exception_or_nmi"] > dropped.get("exception_or_nmi", 0)


# -- flushes ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_tags_make_the_vmm_flush_and_without_them_the_transitions_do(policy: str) -> None:
    tagged, plain = (
        finished("ptemod", f"vtx-shadow,shadow={policy},vpid={choice}", 4, "nehalem").ledger().event_count
        for choice in ("on", "off")
    )
    assert plain("vmx.invvpid") == 0 < tagged("vmx.invvpid")
    assert plain("walk.native") > tagged("walk.native")
    assert plain("sys.invlpg") == tagged("sys.invlpg") == 0
    assert plain("sys.mov_cr3_write") == tagged("sys.mov_cr3_write") == 0


# -- whose linear space it is -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
def test_no_shadow_maps_the_vmms_region(policy: str) -> None:
    machine = start(CASES["the last pages of the linear space"], find_strategy(f"vtx-shadow,shadow={policy}")(), "p4_cedarmill")
    machine.run(MAX_CYCLES)
    shadow, own = machine.vm.shadow, layout.VMM_BYTES >> 12
    for number in range(int(machine.vm.vcpu.shadow_next)):
        kind = shadow.control.pages[number].kind
        if kind == FREE:
            continue
        for index in range(ENTRIES):
            entry = shadow.read_entry(layout.SHADOW + 4 * (number * ENTRIES + index))
            if entry & PTE_P and not (layout.SHADOW <= entry < layout.WINDOWS):
                assert entry >> 12 >= own, f"page {number} at {index}: {entry:#x}"
    assert shadow.read_entry(shadow.root + 4 * VMM_SLOT) & (PTE_P | PTE_US) == PTE_P | PTE_US  # the guest's own


# -- saved machines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("case", SAVED)
def test_a_run_that_is_saved_and_restored_ends_as_the_unbroken_one(case: str, policy: str) -> None:
    def machine() -> Machine:
        return start(CASES[case], find_strategy(f"vtx-shadow,shadow={policy}")(), "p4_cedarmill")

    whole, broken, limit = machine(), machine(), 0
    whole.run(MAX_CYCLES)
    while broken.advance(limit := limit + 25, MAX_CYCLES):
        broken = machine_of(machine_bytes(broken), "test")
    one, two = whole.result(), broken.result()
    assert (one.outcome, one.ticks, one.instructions) == (two.outcome, two.ticks, two.instructions)
    states = [which.strategy.virtual_state(which).digest() for which in (whole, broken)]
    assert states[0] == states[1]
