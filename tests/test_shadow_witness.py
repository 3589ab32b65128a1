"""The witness routines for shadow page tables that are kept: each has the effect of the jitted code."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.isa.registers import CR0_WP, EAX
from x86virt.machine import Machine
from x86virt.profile import load_profile
from x86virt.vmm import layout
from x86virt.vmm.shadow import calls
from x86virt.vmm.shadow.chains import page_address
from x86virt.vmm.witness_run import REFUSED, Witness
from x86virt.vmm.witness_shadow import fullest_table, ready_machine, run_compare, run_switch, table_of

PAGE = 4096


@cache
def ready() -> tuple[Machine, Witness, int]:
    """A machine at a load of CR3, the image in its region, and a page table's shadow."""
    machine = ready_machine(load_profile("p4_prescott"))
    return machine, Witness(machine.vm), fullest_table(machine.vm)


def compared_by_jitted_code(machine: Machine, number: int, first: int, count: int) -> np.ndarray:
    """What the jitted comparison leaves of a shadow table."""
    shadow = machine.vm.shadow
    frame = int(shadow.control.pages[number].frame)
    calls.shadow_written(shadow.state, shadow.memory, shadow.controls, shadow.links, frame, 4 * first, 4 * count)
    shadow.forget_work()
    return table_of(machine.vm, number).copy()


@settings(max_examples=40)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1023), st.integers(0, 0xFFF), st.booleans()), max_size=12),
    shadow_bits=st.lists(st.tuples(st.integers(0, 1023), st.sampled_from((0x2, 0x4, 0x6, 0x100, 0x102))), max_size=12),
    above=st.sampled_from((0, 2, 4, 6)), write_protect=st.booleans(), single=st.booleans(),
)  # fmt: skip
def test_comparisons_drop_the_same_entries(changes, shadow_bits, above, write_protect, single):
    """Any guest table, any permissions in the shadow: the same entries are dropped."""
    machine, witness, number = ready()
    vm, page = machine.vm, machine.vm.shadow.control.pages[number]
    witness.restore()
    controls, links = vm.shadow.controls.copy(), vm.shadow.links.copy()
    page.role = int(page.role) & ~0x600 & ~2 | above << 8 | 2 * write_protect
    vm.vcpu.cr0 = vm.vcpu.cr0 & ~CR0_WP | CR0_WP * write_protect
    for index, bits in shadow_bits:  # behind the chains, which only permissions that are there need
        table_of(vm, number)[index] ^= bits & ~2
    for index, low, other in changes:
        place = int(page.frame) << 12 | 4 * index
        entry = vm.guest.read_gpa(place, 4) & 0xFFFFF000 ^ other << 13 | low
        address = vm.guest.machine_address(place)
        vm.processor.write_physical(address, entry.to_bytes(4, "little"))
    witness.save()
    index = int(np.nonzero(table_of(vm, number))[0][0]) if single else None
    measured = run_compare(witness, number, index)
    assert measured.ending == "trap_dispatch"
    mine = table_of(vm, number).copy()
    witness.restore()
    theirs = compared_by_jitted_code(machine, number, index or 0, 1 if single else 1024)
    assert mine.tolist() == theirs.tolist()
    vm.shadow.controls.view(np.ndarray)[:] = controls
    vm.shadow.links.view(np.ndarray)[:] = links
    ready.cache_clear()


@pytest.mark.parametrize("known", (True, False))
def test_the_same_space_is_found(known):
    machine, witness, _ = ready()
    vm = machine.vm
    witness.restore()
    if not known:
        vm.vcpu.cr3 ^= 0x7000
    witness.save()
    measured = run_switch(witness)
    if not known:
        assert measured.ending == REFUSED
        ready.cache_clear()
        return
    found = int(witness.cpu.gpr[EAX])
    control = vm.processor.ram[layout.SHADOW_CONTROL :][: vm.shadow.controls.nbytes].view(vm.shadow.controls.dtype)[0]
    root = int(control["root"])
    witness.restore()
    vm.shadow.change_space()
    assert found == page_address(int(vm.shadow.control.root)) == page_address(root)
    assert found == int(vm.processor.cpu.cr3)
    ready.cache_clear()
