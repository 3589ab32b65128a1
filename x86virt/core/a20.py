"""The A20 gate: while it is closed, bit 20 of every physical address that the processor sends is 0."""

from .jit import inline
from .tlb import drop_fetch_front, drop_front

A20 = 1 << 20


@inline
def follow_a20_gate(cpu, is_closed):
    """Close (1) or open the gate; in VMX operation it stays open.

    The TLBs hold addresses in front of it, the front cache addresses behind it.
    """
    closed = is_closed * A20 * (1 - cpu.vmx.operation)
    if closed != cpu.a20_closed:
        cpu.a20_closed = closed
        drop_front(cpu)
        drop_fetch_front(cpu)
