"""The check of the APICs' records in a saved machine: no number in them lies outside of what it counts or names."""

import numpy as np

from .core.local_apic import BASE_ENABLED

M32 = 0xFFFFFFFF
LATEST = 1 << 61  # tick
LOCAL_BOUNDS = {
    "identity": M32, "task_priority": 0xFF, "logical_destination": M32, "destination_format": M32, "spurious": 0x3FF,
    "in_service": M32, "trigger_mode": M32, "requested": M32, "error_status": 0xFF, "errors": 0xFF, "command_low": M32,
    "command_high": M32, "local_vector": M32, "initial_count": M32, "divide": 0xB, "count_from": M32, "count_began": LATEST,
}  # fmt: skip
IO_BOUNDS = {
    "selected": 0xFF, "identity": M32, "arbitration": M32, "entry_low": M32, "entry_high": M32, "levels": 0xFFFFFF,
    "fresh": 0xFFFFFF, "changed": 1,
}  # fmt: skip


def within_bounds(record: np.void, bounds: dict[str, int]) -> bool:
    """Whether every field of a record lies within 0 and its bound."""
    return all(bool(((record[name] >= 0) & (record[name] <= most)).all()) for name, most in bounds.items())


def check_apics(local: np.void, io_apic: np.void, fresh: np.void) -> None:
    """Compare the records with those of a machine of the same make; raises ValueError."""
    if local["present"] != fresh["present"] or local["bus_clock"] != fresh["bus_clock"]:
        raise ValueError("its APIC is not that of the profile")
    base = int(local["base_msr"])
    enabled = int(bool(fresh["present"]) and bool(base & BASE_ENABLED))
    page = base >> 12 if enabled else -1
    good = 0 <= base < 1 << 52 and local["enabled"] == enabled and local["page"] == page
    good = good and -1 <= local["deliverable"] <= 0xFF
    if not good or not within_bounds(local, LOCAL_BOUNDS) or not within_bounds(io_apic, IO_BOUNDS):
        raise ValueError("its APICs are out of range")
