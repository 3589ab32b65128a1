"""Raising exceptions: the event is described in the processor record, the caller returns FAULT at once."""

from ..isa.vectors import KIND_EXCEPTION
from .jit import kernel
from .layout import FAULT


@kernel
def raise_fault(cpu, vector, error_code):
    """Describe an exception that pushes an error code."""
    cpu.event_vector = vector
    cpu.event_kind = KIND_EXCEPTION
    cpu.event_error = error_code
    cpu.event_has_error = 1
    return FAULT


@kernel
def raise_plain(cpu, vector):
    """Describe an exception without an error code."""
    cpu.event_vector = vector
    cpu.event_kind = KIND_EXCEPTION
    cpu.event_error = 0
    cpu.event_has_error = 0
    return FAULT
