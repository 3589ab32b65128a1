"""What an exit is charged when it is committed, and selectors as the hardware and the guest have them (vm.charge, vcpu)."""

from ...core.cache import VMM, reference
from ...core.charge import charge_ticks
from ...core.jit import inline, kernel
from ...isa.events import MODE_VMM
from ...isa.registers import EFLAGS_TF
from .descriptors import is_detached
from .records import MAX_REFERENCES, PATHS

N_PATHS = len(PATHS)
RING = 1  # that the guest's kernel runs in


@inline
def note_path(exits, path):
    """A path of the VMM was gone, to be charged when the exit is committed."""
    exits.items[path] += 1


@inline
def can_commit(exits):
    """Whether all references could be noted."""
    return exits.reference_count <= MAX_REFERENCES


@kernel
def commit(cpu, exits):
    """Charge the paths and references that were noted; from here on the exit is handled here."""
    for path in range(N_PATHS):
        items = exits.items[path]
        if items > 0:
            charge_ticks(cpu, exits.event[path], items, items * exits.price[path], MODE_VMM)
    for number in range(exits.reference_count):
        reference(cpu, exits.references[number], VMM)
    exits.own_resume = exits.trap_resume


@inline
def charge_items(cpu, exits, path, items):
    """Charge a path whose items are counted (vm.charge)."""
    charge_ticks(cpu, exits.event[path], items, exits.base_price[path] + items * exits.item_price[path], MODE_VMM)


@kernel
def charge_work(cpu, exits, control):
    """The time for shadow tables that were allocated, and entries that were compared (ShadowMemory.charge_work)."""
    if control.tables_made > 0:
        charge_items(cpu, exits, exits.table_path, control.tables_made)
    if control.scans > 0:
        charge_items(cpu, exits, exits.sync_path, control.scanned)
        for _ in range(control.scans - 1):
            charge_items(cpu, exits, exits.sync_path, 0)
    if control.checked > 0:
        charge_items(cpu, exits, exits.check_path, control.checked)
    control.tables_made = 0
    control.scans = 0
    control.scanned = 0
    control.checked = 0


@inline
def is_attached(exits):
    """Whether CS and SS come from the guest's table. A transfer from others gives up entries of the VMM's, in Python."""
    return not is_detached(exits.cs) and not is_detached(exits.ss)


@inline
def virtual_selector(cpl, selector):
    """The guest's view of a selector of its table in CS or SS (vcpu.virtual_selector)."""
    return (selector & ~3) | cpl


@inline
def hardware_selector(selector):
    """What the hardware holds for a selector that the guest loads into CS or SS."""
    held = selector
    if selector & 3 == 0:
        held = selector | RING
    return held


@inline
def is_stepped(exits):
    """Whether the guest itself has TF set."""
    return exits.eflags & EFLAGS_TF != 0
