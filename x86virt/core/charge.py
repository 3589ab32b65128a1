"""The one function that writes ticks (design, section 5). The straight path of a block is charged through `settle`."""

from .jit import inline


@inline
def charge(cpu, event, n):
    """Charge `n` times the price of `event` to the current mode, and let the ticks pass."""
    ticks = cpu.price[event] * n
    cpu.ticks += ticks
    cpu.ledger_count[event, cpu.mode] += n
    cpu.ledger_ticks[event, cpu.mode] += ticks


@inline
def charge_ticks(cpu, event, n, ticks, mode):
    """Charge an event whose duration is not a fixed price: idle time, or a path of the VMM."""
    cpu.ticks += ticks
    cpu.ledger_count[event, mode] += n
    cpu.ledger_ticks[event, mode] += ticks
