"""The A20 gate: while it is closed, bit 20 of every physical address that the processor sends is 0."""

from .jit import inline
from .tlb import drop_fetch_front, drop_front

A20 = 1 << 20
A20_OPEN = -1
A20_CLOSED = ~A20


@inline
def set_a20_mask(cpu, gate):
    """Follow the gate. The TLBs hold addresses before the mask, the front cache addresses behind it."""
    mask = A20_CLOSED
    if gate == 1:
        mask = A20_OPEN
    if mask != cpu.a20_mask:
        cpu.a20_mask = mask
        drop_front(cpu)
        drop_fetch_front(cpu)
