"""Running the witness routines for shadow page tables that are kept: finding an address space, comparing a table.

They work on the shadow of a real guest under the policy `trace`, at one of its loads of CR3, and are started by themselves.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..isa.registers import EAX, ECX, EDX, ESI, PTE_RW, PTE_US
from . import layout
from .shadow.records import ROLE_RIGHTS_SHIFT, TABLE
from .vm import SoftwareVm
from .witness_run import MEMORY_BYTES, Measured, Prices, Witness, WitnessError, exits_of, symbols

if TYPE_CHECKING:
    from ..machine import Machine
    from ..profile import Profile

STRATEGY, GUEST, COMMAND_LINE = "trap-and-emulate,shadow=trace", "cr3switch", "iterations=3"
PAGE = 4096


def run_switch(witness: Witness) -> Measured:
    """Find the shadow of the guest's present address space; EAX is the CR3 to load."""
    witness.restore()
    return witness.run(symbols()["shadow_switch_alone"])


def run_compare(witness: Witness, number: int, index: int | None = None) -> Measured:
    """Compare a page of the pool with the guest's table that it follows, or one entry of it."""
    witness.restore()
    page, general = witness.vm.shadow.control.pages[number], witness.cpu.gpr
    general[ESI] = layout.VMM_BASE + layout.SHADOW + number * PAGE
    general[EAX] = int(page.frame) << 12
    general[EDX] = int(page.role) >> ROLE_RIGHTS_SHIFT & (PTE_RW | PTE_US)
    if index is None:
        return witness.run(symbols()["shadow_sync_alone"])
    general[ECX] = index
    return witness.run(symbols()["shadow_check_alone"])


def table_of(vm: "SoftwareVm", number: int) -> np.ndarray:
    """The entries of a page of the pool."""
    first = layout.SHADOW + number * PAGE
    return vm.processor.ram[first : first + PAGE].view("<u4")


def fullest_table(vm: "SoftwareVm") -> int:
    """The page of the pool that follows a page table of the guest and maps most pages writable."""
    counts = {
        number: int(np.count_nonzero(table_of(vm, number) & PTE_RW))
        for number in range(layout.SHADOW_PAGES)
        if vm.shadow.control.pages[number].kind == TABLE
    }
    if not counts or max(counts.values()) < 4:
        raise WitnessError("the guest's shadow has no table with four writable entries")
    return max(counts, key=lambda number: counts[number])


def ready_machine(profile: "Profile") -> "Machine":
    """A machine whose guest has come to its fourth load of CR3, with the shadows of its spaces in the cache."""
    from ..guests import find_guest
    from ..machine import Machine
    from .registry import find_strategy

    machine = Machine(find_strategy(STRATEGY)(), profile, MEMORY_BYTES)
    assert machine.vm is not None
    machine.vm.prices.table = {}
    machine.load(find_guest(GUEST), COMMAND_LINE)
    loads = 0
    for scene in exits_of(machine):
        loads += scene.group(0x22, 3) and scene.paged
        if loads == 4:
            return machine
    raise WitnessError(f"the guest {GUEST} does not load CR3 four times")


def warm_ticks(witness: Witness, path: str, run: Callable[[], Measured]) -> int:
    """Ticks of the second run of a path."""
    ticks = None
    for _ in range(2):
        ticks = run().of(path)
        witness.keep_windows()
    if ticks is None:
        raise WitnessError(f"the path {path} was refused")
    return ticks


def measure_comparisons(witness: Witness) -> Prices:
    """A whole comparison's base and entry, from a table with many writable entries and one with half of them; an entry
    alone."""
    vm = witness.vm
    number = fullest_table(vm)
    first = layout.SHADOW + number * PAGE
    saved = witness.ram[first : first + PAGE].view("<u4")
    saved[saved & PTE_RW == 0] = 0
    places = np.nonzero(saved)[0]
    alone = warm_ticks(witness, "shadow_check", lambda: run_compare(witness, number, int(places[0])))
    many = warm_ticks(witness, "shadow_sync", lambda: run_compare(witness, number))
    saved[places[len(places) // 2 :]] = 0
    few = warm_ticks(witness, "shadow_sync", lambda: run_compare(witness, number))
    item = (many - few) // (len(places) - len(places) // 2)
    return {"shadow_check": (0, alone), "shadow_sync": (many - len(places) * item, item)}


def measure_shadow_cache(profile: "Profile") -> Prices:
    """The prices of these paths under a profile."""
    vm = ready_machine(profile).vm
    assert isinstance(vm, SoftwareVm)
    witness = Witness(vm)
    switch = warm_ticks(witness, "shadow_switch", lambda: run_switch(witness))
    return {"shadow_switch": (0, switch), **measure_comparisons(witness)}
