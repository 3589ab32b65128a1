"""The frame of the domain that was interrupted, from the VMM's stack and back to it, and the data segments beside it.

The VMM runs with segments of its own. It keeps the selectors that the domain had in ES, DS, FS and GS, and loads them again on
the way back: a descriptor that was changed meanwhile counts from then on, and one that is gone leads to the failsafe callback.
"""

import numpy as np

from ...core.flags import set_eflags
from ...core.jit import kernel, load_32, store_32
from ...isa.registers import DS, EFLAGS_FIXED, ES, ESP, FS, GS
from ..exits import ERROR_CODE_VECTORS
from ..layout import RESUME, STACK_TOP, VMM_BASE
from .local_table import load_data_selector

WITH_ERROR_CODE = sum(1 << vector for vector in ERROR_CODE_VECTORS)
FRAME = STACK_TOP - 20
DATA_SEGMENTS = (ES, DS, FS, GS)  # as domain.selectors has them


@kernel
def has_error_code(vector):
    """1 for an exception that pushes an error code."""
    return int(vector < 32 and (WITH_ERROR_CODE >> vector) & 1 == 1)


@kernel
def take_frame(cpu, ram, domain, vector):
    """Take the frame of the trap at hand from the VMM's stack; returns the error code, 0 if there is none."""
    stack = cpu.gpr[ESP] - VMM_BASE
    error = 0
    if has_error_code(vector) == 1:
        error = load_32(ram, stack)
        stack += 4
    domain.eip = load_32(ram, stack)
    domain.cs = load_32(ram, stack + 4) & 0xFFFF
    domain.eflags = load_32(ram, stack + 8)
    domain.esp = load_32(ram, stack + 12)
    domain.ss = load_32(ram, stack + 16) & 0xFFFF
    for number in range(len(DATA_SEGMENTS)):
        domain.selectors[number] = cpu.seg[DATA_SEGMENTS[number]].selector
    return error


@kernel
def load_data_segments(cpu, ram, xen, domains, frames, channels):
    """Load the data segments of the domain that runs; False if one of them cannot be loaded."""
    for number in range(len(DATA_SEGMENTS)):
        selector = np.int64(domains[xen.current].selectors[number])
        if not load_data_selector(cpu, ram, xen, domains, frames, channels, DATA_SEGMENTS[number], selector):
            return False
    return True


@kernel
def put_frame(cpu, ram, domain):
    """Let the processor return to a domain by the IRETD of the region."""
    store_32(ram, FRAME, np.int64(domain.eip))
    store_32(ram, FRAME + 4, np.int64(domain.cs))
    store_32(ram, FRAME + 8, np.int64(domain.eflags))
    store_32(ram, FRAME + 12, np.int64(domain.esp))
    store_32(ram, FRAME + 16, np.int64(domain.ss))
    cpu.rip = VMM_BASE + RESUME
    cpu.gpr[ESP] = VMM_BASE + FRAME
    set_eflags(cpu, EFLAGS_FIXED)
