"""The translator's record: what translated code reaches through GS, in the VMM's region.

Translated code runs with CS and GS of the VMM's, which reach the whole linear space; all other segments are the guest's,
truncated below the VMM. So the guest's own instructions cannot touch this record, and injected ones always can.
"""

import numpy as np

from .. import layout

N_SELECTORS = 6
RECORD = np.dtype(
    [
        # registers that a sequence has spilled
        ("saved_eax", "<u4"),
        ("saved_ecx", "<u4"),
        ("saved_edx", "<u4"),
        # an indirect transfer: the guest's target, and where it lies in the cache
        ("target", "<u4"),
        ("jump", "<u4"),
        # virtual flags at their places in EFLAGS, and whether an interrupt waits for them to open
        ("interrupt_flag", "<u4"),
        ("privilege_level", "<u4"),
        ("pending", "<u4"),
        # selectors as the guest has them, in the order of segment registers (isa/registers.py)
        ("selectors", "<u4", N_SELECTORS),
        # what GS holds while an instruction of the guest goes through it, and what otherwise
        ("guest_gs", "<u4"),
        ("guest_cs", "<u4"),
        ("own_gs", "<u4"),
        # a callout that stays in the ring of translated code: its site, the guest's stack, and the VMM's
        ("site", "<u4"),
        ("resume_eip", "<u4"),
        ("guest_esp", "<u4"),
        ("guest_ss", "<u4"),
        ("callout_esp", "<u4"),
        ("callout_ss", "<u4"),
        # a direct callout: the guest's arithmetic flags as LAHF and SETO have them, and what the translator decoded
        ("saved_flags", "<u4"),
        ("operands", "<u4"),
        ("operand_offset", "<u4"),
        ("operand_value", "<u4"),
    ]
)
ADDRESS = layout.VMM_BASE + layout.TRANSLATOR


def slot(name: str, index: int = 0) -> int:
    """The linear address of a field of the record, of its element `index`."""
    assert RECORD.fields is not None
    return ADDRESS + RECORD.fields[name][1] + 4 * index


def vcpu_slot(name: str) -> int:
    """The linear address of a field of the vCPU record."""
    assert layout.VCPU.fields is not None
    return layout.VMM_BASE + layout.VCPU_RECORD + layout.VCPU.fields[name][1]
