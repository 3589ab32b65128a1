"""What tests of jitted exits share: guests, what a run with them and one without them are compared by, and a run in slices."""

from __future__ import annotations

import numpy as np

from x86virt import Machine

GUESTS = {
    "alu": "2", "callret": "20", "clock": "10", "cr3switch": "10", "divzero": "30", "exits": "5", "hello": "1", "hello_pse": "1",
    "irq": "2", "pgfault": "20", "portio": "30", "ptemod": "20", "stealth": "1", "syscall": "30", "tasks": "3", "truefault": "30",
}  # fmt: skip
BUDGET = 400_000_000
MEMORY_BYTES = 8 << 20


def everything(machine: Machine) -> dict[str, object]:
    """What a run came to, in an order that shows the order of exits too."""
    result = machine.result()
    return {
        "outcome": result.outcome,
        "instructions": result.instructions,
        "ticks": result.ticks,
        "counts": result.ledger.count.tolist(),
        "ledger": result.ledger.ticks.tolist(),
        "exits": list(result.exits.items()),
        "state": machine.strategy.virtual_state(machine).digest(),
        "region": machine.processor.ram[: 4 << 20].tobytes(),
        "cache": machine.processor.cpu.cache_lines.tobytes(),
        "regions": [(region.number, region.ticks, list(region.exits.items())) for region in result.regions],
    }


def differing(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """The names of what differs."""
    return [name for name in one if one[name] != other[name]]


def run_in_slices(machine: Machine) -> None:
    """To the end, cut at numbers of instructions and of cycles, with jitted exits in every other slice."""
    exits = machine.exits_in_code
    assert exits is not None
    cpu, steps = machine.processor.cpu, np.random.default_rng(7)
    while machine.outcome is None:
        exits.wanted = not exits.wanted
        if steps.integers(2):
            machine.advance(int(cpu.retired) + int(steps.integers(1, 400)), BUDGET)
        else:
            machine.advance(1 << 62, BUDGET, int(cpu.ticks) // 64 + int(steps.integers(1, 20_000)))
