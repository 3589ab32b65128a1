"""The page that a domain shares with the VMM: events that wait for it, and what tells it the time.

Whatever the VMM writes there the guest may read at any moment, and change: nothing that the VMM relies on is there. An
event's bit is set in `pending`; unless its bit in `mask` is set too, the bit of its word is set in the selector of the virtual
processor, and `upcall_pending`. The guest's callback is entered while that is set and `upcall_mask` is clear.
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.jit import inline, kernel, load_8, load_32
from ...core.physical import write_physical
from .interface import (
    SHARED_MASK,
    SHARED_PENDING,
    VCPU_PENDING_SELECTOR,
    VCPU_UPCALL_MASK,
    VCPU_UPCALL_PENDING,
)

PORT_BITS = 5  # of a word of event bits


@inline
def shared_page(domains, index):
    """The machine address of a domain's shared information page."""
    return np.int64(domains[index].shared_info) << 12


@inline
def vcpu_info(domains, index):
    """The machine address of the record of a domain's virtual processor, which may have been moved."""
    return np.int64(domains[index].vcpu_info)


@inline
def pending_word(domains, index, port):
    """The machine address of the word with a port's pending bit."""
    return shared_page(domains, index) + SHARED_PENDING + (port >> PORT_BITS << 2)


@inline
def mask_word(domains, index, port):
    """The machine address of the word with a port's mask bit."""
    return shared_page(domains, index) + SHARED_MASK + (port >> PORT_BITS << 2)


@inline
def bit_of(port):
    """The bit of a port in its word."""
    return 1 << (port & 31)


@inline
def load_shared(cpu, ram, address):
    """A doubleword of a page that the guest shares: a reference of the VMM's."""
    reference(cpu, address, VMM)
    return load_32(ram, address)


@kernel
def set_bits(cpu, ram, address, bits):
    """Set bits of a doubleword that the guest shares; those that were set before."""
    before = load_shared(cpu, ram, address)
    write_physical(cpu, ram, address, 4, before | bits)
    return before & bits


@kernel
def clear_bits(cpu, ram, address, bits):
    """Clear bits of a doubleword that the guest shares; those that were set before."""
    before = load_shared(cpu, ram, address)
    write_physical(cpu, ram, address, 4, before & ~bits)
    return before & bits


@kernel
def is_pending(ram, domains, index, port):
    """Whether a port's pending bit is set."""
    return load_32(ram, pending_word(domains, index, port)) & bit_of(port) != 0


@kernel
def upcall_waits(ram, domains, index):
    """Whether a domain has been told to look at its events, and has not begun to."""
    return load_8(ram, vcpu_info(domains, index) + VCPU_UPCALL_PENDING) != 0


@kernel
def upcall_due(ram, domains, index):
    """1 if the domain's event callback is to be entered before its next instruction."""
    info = vcpu_info(domains, index)
    due = 0
    if load_8(ram, info + VCPU_UPCALL_PENDING) != 0 and load_8(ram, info + VCPU_UPCALL_MASK) == 0:
        due = 1
    return due


@kernel
def set_upcall_mask(cpu, ram, domains, index, value):
    """Mask, or unmask, the upcalls of a domain."""
    write_physical(cpu, ram, vcpu_info(domains, index) + VCPU_UPCALL_MASK, 1, value)


@kernel
def mark_upcall(cpu, ram, domains, index):
    """Tell a virtual processor that events wait for it: True unless it had been told."""
    address = vcpu_info(domains, index) + VCPU_UPCALL_PENDING
    before = load_8(ram, address)
    write_physical(cpu, ram, address, 1, 1)
    return before == 0


@kernel
def select(cpu, ram, domains, index, port):
    """Set the bit of a port's word in the selector: True if that is news to the virtual processor."""
    word = bit_of(port >> PORT_BITS)
    if set_bits(cpu, ram, vcpu_info(domains, index) + VCPU_PENDING_SELECTOR, word) != 0:
        return False
    return mark_upcall(cpu, ram, domains, index)
