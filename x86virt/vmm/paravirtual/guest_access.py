"""The current domain's memory as a handler reaches it: at a linear address, through the processor's own walk, at CPL 0.

The VMM lives in the guest's address space, so that a pointer of the guest's is simply used. The processor does what it does
for any access: TLBs, walks, accessed and dirty bits, CR0.WP. A pointer that reaches `virt_start` is refused before, and an
access that faults ends in the VMM's own #PF handler, which goes on behind it with FAULTED; the caller makes -EFAULT of that.

These are no accesses of the guest's: its data breakpoints and the check of isolation do not see them.
"""

import numpy as np

from ...core.charge import charge
from ...core.jit import inline, kernel
from ...core.layout import OK
from ...core.memory import SUPERVISOR, bytes_at, plain_read, plain_write, put_bytes, resolve_read, resolve_write
from ...core.physical import read_at, write_physical
from ...core.physical_map import BUS, place_to_write
from ...isa.events import EVENT_SYS_EXC_SAME_CPL, EVENT_SYS_IRET_SAME_CPL
from .records import N_WORDS

M32 = 0xFFFFFFFF
PAGE_BYTES = 0x1000
FAULTED = -1  # instead of a value


@inline
def is_within(domain, gla, octets):
    """Whether all bytes from a linear address lie below what is the VMM's."""
    return 0 <= gla and gla + octets <= np.int64(domain.virt_start)


@kernel
def fault(cpu):
    """The VMM's own #PF, and its return behind the access."""
    charge(cpu, EVENT_SYS_EXC_SAME_CPL, 1)
    charge(cpu, EVENT_SYS_IRET_SAME_CPL, 1)
    return FAULTED


@kernel
def read_within_page(cpu, ram, gla, n):
    """1 to 4 bytes of one page, FAULTED if they cannot be read."""
    outcome, place = resolve_read(cpu, ram, gla, 0)
    if outcome != OK or place >= BUS:
        return fault(cpu)
    return read_at(cpu, ram, place, n)


@kernel
def read_slowly(cpu, ram, gla, n):
    """1, 2 or 4 bytes, whatever lies there."""
    head = PAGE_BYTES - (gla & 0xFFF)
    if head >= n:
        return read_within_page(cpu, ram, gla, n)
    low = read_within_page(cpu, ram, gla, head)
    if low == FAULTED:
        return FAULTED
    high = read_within_page(cpu, ram, gla + head, n - head)
    if high == FAULTED:
        return FAULTED
    return low | high << (8 * head)


@kernel
def place_within_page(cpu, ram, gla):
    """The physical address of a byte that is to be written, FAULTED if it cannot be."""
    outcome, physical = resolve_write(cpu, ram, gla, 0)
    if outcome != OK or place_to_write(cpu, ram, physical) >= BUS:
        return fault(cpu)
    return physical


@kernel
def write_slowly(cpu, ram, gla, n, value):
    """1, 2 or 4 bytes, whatever lies there; both pages are translated before the first byte is written."""
    first = place_within_page(cpu, ram, gla)
    if first == FAULTED:
        return FAULTED
    head = PAGE_BYTES - (gla & 0xFFF)
    if head >= n:
        write_physical(cpu, ram, first, n, value)
        return 0
    second = place_within_page(cpu, ram, gla + head)
    if second == FAULTED:
        return FAULTED
    write_physical(cpu, ram, first, head, value & ((1 << (8 * head)) - 1))
    write_physical(cpu, ram, second, n - head, value >> (8 * head))
    return 0


@inline
def load_anywhere(cpu, ram, gla, n):
    """1, 2 or 4 bytes at an address that is known to be the guest's; FAULTED if it may not be read."""
    index = plain_read(cpu, gla, n, SUPERVISOR)
    if index < 0:
        value = read_slowly(cpu, ram, gla, n)
    else:
        value = bytes_at(ram, index, n)
    return value


@inline
def store_anywhere(cpu, ram, gla, n, value):
    """Store 1, 2 or 4 bytes at an address that is known to be the guest's: 0, or FAULTED."""
    index = plain_write(cpu, gla, n, SUPERVISOR)
    if index < 0:
        outcome = write_slowly(cpu, ram, gla, n, value)
    else:
        put_bytes(ram, index, n, value)
        outcome = 0
    return outcome


# -- what handlers call ---------------------------------------------------------------------------------------------------


@kernel
def load_guest(cpu, ram, domain, gla, n):
    """1, 2 or 4 bytes of the current domain's at a linear address, zero-extended, or FAULTED."""
    if not is_within(domain, gla, n):
        return FAULTED
    return load_anywhere(cpu, ram, gla, n)


@kernel
def store_guest(cpu, ram, domain, gla, n, value):
    """Store the low 1, 2 or 4 bytes of a value at a linear address of the current domain's: 0, or FAULTED."""
    if not is_within(domain, gla, n):
        return FAULTED
    return store_anywhere(cpu, ram, gla, n, value & M32)


@kernel
def load_words(cpu, ram, xen, domain, gla, count):
    """Load doublewords (at most N_WORDS) from a linear address on into xen.words: 0, or FAULTED with some of them loaded."""
    if count > N_WORDS or not is_within(domain, gla, 4 * count):
        return FAULTED
    for number in range(count):
        value = load_anywhere(cpu, ram, gla + 4 * number, 4)
        if value == FAULTED:
            return FAULTED
        xen.words[number] = value
    return 0


@kernel
def store_words(cpu, ram, xen, domain, gla, count):
    """Store doublewords of xen.words from a linear address on: 0, or FAULTED with some of them stored."""
    if count > N_WORDS or not is_within(domain, gla, 4 * count):
        return FAULTED
    for number in range(count):
        if store_anywhere(cpu, ram, gla + 4 * number, 4, xen.words[number] & M32) == FAULTED:
            return FAULTED
    return 0
