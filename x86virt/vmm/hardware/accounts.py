"""Where the time of an exit goes: the accesses to the control structure and the entry apart from what the VMM does else.

The events tell them apart. What the exit itself takes is charged before the VMM has control, by an event of its own for
each reason, and is added by whoever shows the sum.
"""

from typing import TYPE_CHECKING

from ...isa.events import EVENT_ID, MODE_VMM

if TYPE_CHECKING:
    from ...processor import Processor

CONTROL_EVENTS = (
    "vmx.vmxon", "vmx.vmxoff", "vmx.vmclear", "vmx.vmptrld", "vmx.vmptrst", "vmx.vmread", "vmx.vmwrite", "vmx.invept",
    "vmx.invvpid", "svm.vmcb_read", "svm.vmcb_write", "svm.invlpga",
)  # fmt: skip
ENTRY_EVENTS = ("vmx.launch", "vmx.entry", "svm.vmrun", "svm.vmload", "svm.vmsave", "svm.stgi", "svm.clgi")
CONTROL, ENTRY = ([EVENT_ID[name] for name in names] for names in (CONTROL_EVENTS, ENTRY_EVENTS))


def spent(processor: "Processor") -> tuple[int, int, int]:
    """So far: ticks, those of accesses to the control structure, and those of entries."""
    ticks = processor.cpu.ledger_ticks[:, MODE_VMM]
    return int(processor.cpu.ticks), int(ticks[CONTROL].sum()), int(ticks[ENTRY].sum())
