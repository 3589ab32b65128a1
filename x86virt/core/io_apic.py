"""The I/O APIC: 24 inputs, an entry of the redirection table for each, and the window through which software sees them.

Source: Intel, 82093AA I/O Advanced Programmable Interrupt Controller data sheet. Interrupts of the modes fixed and
lowest priority go to the local APIC of the only processor. ExtINT is what the processor asks the PICs by
(core/interrupt_inputs.py). NMI, SMI and INIT are kept in their entries and go nowhere: the core takes none of them yet.
"""

from .jit import kernel
from .layout import N_INPUTS
from .local_apic import (
    ACTIVE_LOW,
    DELIVERY_SHIFT,
    EXTERNAL,
    FIXED,
    LEVEL_TRIGGERED,
    LOGICAL,
    LOWEST_PRIORITY,
    MASKED,
    REMOTE_IRR,
    accept,
    is_destination,
)

SELECT, WINDOW = 0x00, 0x10  # offsets
VERSION = 0x11 | (N_INPUTS - 1) << 16
IDENTITY_REGISTER, VERSION_REGISTER, ARBITRATION_REGISTER, FIRST_ENTRY = 0, 1, 2, 0x10
ENTRY_WRITABLE = 0x1AFFF  # but delivery status and remote IRR


@kernel
def reset_io_apic(io_apic):
    """Power on, or a reset: every entry masked."""
    io_apic.selected = 0
    io_apic.identity = 0
    io_apic.arbitration = 0
    for number in range(N_INPUTS):
        io_apic.entry_low[number] = MASKED
        io_apic.entry_high[number] = 0
    io_apic.levels = 0
    io_apic.fresh = 0
    io_apic.changed = 0


@kernel
def read_io_apic(io_apic, offset):
    """A doubleword at an offset: the index, the window; others are reserved and read as 0."""
    if offset == SELECT:
        return io_apic.selected
    if offset != WINDOW:
        return 0
    register = io_apic.selected
    if register == IDENTITY_REGISTER:
        return io_apic.identity
    if register == VERSION_REGISTER:
        return VERSION
    if register == ARBITRATION_REGISTER:
        return io_apic.arbitration
    number = (register - FIRST_ENTRY) >> 1
    if number < 0 or number >= N_INPUTS:
        return 0
    if register & 1 != 0:
        return io_apic.entry_high[number]
    return io_apic.entry_low[number]


@kernel
def write_entry_low(io_apic, number, value):
    """The low half of an entry. An edge-triggered one has no remote IRR; one that was masked has missed its edges."""
    entry = io_apic.entry_low[number]
    if entry & MASKED != 0:
        io_apic.fresh |= 1 << number
    entry = (value & ENTRY_WRITABLE) | (entry & REMOTE_IRR)
    if entry & LEVEL_TRIGGERED == 0:
        entry &= ~REMOTE_IRR
    io_apic.entry_low[number] = entry


@kernel
def write_io_apic(io_apic, offset, value):
    """Write a doubleword at an offset."""
    if offset == SELECT:
        io_apic.selected = value & 0xFF
    if offset != WINDOW:
        return
    register = io_apic.selected
    if register == IDENTITY_REGISTER:
        io_apic.identity = value & 0x0F000000
        io_apic.arbitration = io_apic.identity
    number = (register - FIRST_ENTRY) >> 1
    if number < 0 or number >= N_INPUTS:
        return
    if register & 1 != 0:
        io_apic.entry_high[number] = value & 0xFF000000
    else:
        write_entry_low(io_apic, number, value)


@kernel
def end_level(io_apic, vector):
    """The local APIC tells that a level-triggered vector was served: its entries may send again."""
    for number in range(N_INPUTS):
        entry = io_apic.entry_low[number]
        if entry & 0xFF == vector and entry & LEVEL_TRIGGERED != 0:
            io_apic.entry_low[number] = entry & ~REMOTE_IRR


# -- inputs -----------------------------------------------------------------------------------------------------------


@kernel
def is_asserted(io_apic, number):
    """Whether an input is at the level that its entry calls active."""
    level = (io_apic.levels >> number) & 1
    if io_apic.entry_low[number] & ACTIVE_LOW != 0:
        return level == 0
    return level == 1


@kernel
def is_for(io_apic, apic, number):
    """Whether the destination of an entry is the processor of a local APIC."""
    return is_destination(apic, io_apic.entry_high[number] >> 24, io_apic.entry_low[number] & LOGICAL)


@kernel
def send_entry(io_apic, apic, number, is_level):
    """Send the interrupt of an entry: whether the local APIC took it."""
    entry = io_apic.entry_low[number]
    kind = (entry >> DELIVERY_SHIFT) & 7
    if kind != FIXED and kind != LOWEST_PRIORITY or not is_for(io_apic, apic, number):
        return False
    return accept(apic, entry & 0xFF, is_level)


@kernel
def see_inputs(io_apic, apic, levels, rises):
    """Look at the inputs: their levels now, and which of them rose since the last look, however short."""
    falls = io_apic.levels & (~levels | rises)
    rises &= ~io_apic.fresh
    falls &= ~io_apic.fresh
    io_apic.levels = levels
    io_apic.fresh = 0
    io_apic.changed = 0
    for number in range(N_INPUTS):
        entry = io_apic.entry_low[number]
        if entry & MASKED != 0:
            continue
        if entry & LEVEL_TRIGGERED != 0:
            if is_asserted(io_apic, number) and entry & REMOTE_IRR == 0 and send_entry(io_apic, apic, number, 1):
                io_apic.entry_low[number] |= REMOTE_IRR
        else:
            edges = rises
            if entry & ACTIVE_LOW != 0:
                edges = falls
            if (edges >> number) & 1 != 0:
                send_entry(io_apic, apic, number, 0)


@kernel
def passes_external(io_apic, apic):
    """Whether an entry of the mode ExtINT has the processor ask the PICs: its input is active, and it is not masked."""
    for number in range(N_INPUTS):
        entry = io_apic.entry_low[number]
        if entry & MASKED == 0 and (entry >> DELIVERY_SHIFT) & 7 == EXTERNAL and is_asserted(io_apic, number):
            if is_for(io_apic, apic, number):
                return True
    return False
