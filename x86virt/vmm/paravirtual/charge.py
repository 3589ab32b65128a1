"""What a handler charges: paths of the VMM by the prices in its record, with whatever has no price counted as such."""

from ...core.charge import charge_ticks
from ...core.jit import kernel
from ...isa.events import EVENT_VMM_UNPRICED_HOOK, MODE_VMM


@kernel
def charge(cpu, xen, event, items):
    """Charge a path of the VMM: its base, and what each item of it costs."""
    base = xen.base_ticks[event]
    if base < 0:
        xen.unpriced += 1
        charge_ticks(cpu, EVENT_VMM_UNPRICED_HOOK, 1, cpu.price[EVENT_VMM_UNPRICED_HOOK], MODE_VMM)
    else:
        charge_ticks(cpu, event, items, base + items * xen.item_ticks[event], MODE_VMM)


@kernel
def count(cpu, event, items):
    """Count what happens and costs nothing by itself."""
    charge_ticks(cpu, event, items, 0, MODE_VMM)
