"""A guest's run as a list of records: every instruction, interrupt, VM exit and stretch of idle time, with what it cost.

    for record in trace(machine):
        print(record.kind, record.text, record.ticks)

A record holds every cell of the ledger that changed while it lasted, so that the records of a whole run add up to the
ledger. Tracing changes no cycle.
"""

from .filters import Filter, ring_filter
from .guest_code import as_guest_code
from .record import DELIVERIES, Charge, Record, Transition
from .stepper import Limit, trace
from .text import TextFormat

__all__ = [
    "DELIVERIES", "Charge", "Filter", "Limit", "Record", "TextFormat", "Transition", "as_guest_code", "ring_filter", "trace",
]  # fmt: skip
