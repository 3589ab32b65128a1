"""What a VMM really holds behind the guest's view, as lines of text."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..machine import Machine

MOST_EXITS = 20


def vmm_lines(machine: "Machine") -> list[str]:
    """The processor as the VMM runs it, its shadows, what it has open, and its exits so far."""
    vm = machine.vm
    if vm is None:
        return ["no VMM: the guest has the bare machine"]
    rows = vm.describe()
    rows.append(f"{'exits':<28}{'count':>12}{'cycles':>18}")
    exits = sorted(vm.exits.items(), key=lambda row: -row[1][1])
    for reason, (count, ticks, *_) in exits[:MOST_EXITS]:
        rows.append(f"  {reason:<26}{count:>12,}{ticks / 64:>18,.2f}")
    return rows
