"""Extended page tables: guest-physical to physical addresses in VMX non-root operation (SDM volume 3, section 28.2).

A walk has four levels, or begins at the last one where the processor remembers the table. Entries are checked as they are
read: one that is not present is an EPT violation, one that the manual calls misconfigured is an EPT misconfiguration (section
28.2.3.1); the permissions of all levels together decide at the end. A fault that rests on a remembered table is never
reported: the walk is made again from the root.
"""

from ..isa.events import EVENT_WALK_NESTED_REFERENCE, EVENT_WALK_NESTED_SKIP
from ..isa.vmx import EXIT_EPT_MISCONFIGURATION, EXIT_EPT_VIOLATION
from .charge import charge
from .jit import inline, kernel
from .layout import NESTED_FETCH, NESTED_READ, NESTED_WRITE, OK, VM_EXIT
from .nested_cache import find_table, forget_table, remember_table
from .physical import read_memory, read_table

# What an access that is translated is for.
AT_END, IN_TABLES, OF_POINTERS = range(3)  # the address itself, an entry of the guest's tables, PDPTEs that CR3 loads

PERMISSIONS = NESTED_READ | NESTED_WRITE | NESTED_FETCH
EPT_LARGE = 1 << 7
EPT_ADDRESS = 0xFFFFF000
EPT_HIGH_ADDRESS = 0xFFFFF  # bits 51:32; those above are ignored
EPT_MEMORY_TYPE_SHIFT = 3
QUALIFICATION_PERMISSIONS_SHIFT = 3
QUALIFICATION_GLA_VALID, QUALIFICATION_AT_END = 1 << 7, 1 << 8
TOP_SHIFT = 39
# Memory types 2, 3 and 7 do not exist.
BAD_MEMORY_TYPES = 1 << 2 | 1 << 3 | 1 << 7


@inline
def is_large(cpu, low, shift):
    """Whether an entry above the last level maps a page; without such pages the bit is reserved."""
    if low & EPT_LARGE == 0:
        return False
    return (shift == 21 and cpu.nested.pages_2m == 1) or (shift == 30 and cpu.nested.pages_1g == 1)


@kernel
def is_misconfigured(cpu, low, high, shift):
    """Whether a present entry is misconfigured (section 28.2.3.1)."""
    # 1. Write permission needs read permission; fetches alone need the processor's support.
    permissions = low & PERMISSIONS
    if permissions & (NESTED_READ | NESTED_WRITE) == NESTED_WRITE:
        return True
    if permissions == NESTED_FETCH and cpu.nested.execute_only == 0:
        return True
    # 2. Address bits beyond the processor's.
    if high & cpu.address_reserved_high & EPT_HIGH_ADDRESS != 0:
        return True
    # 3. Reserved bits of an entry that names a table: 6:3, and 7 where no page can be.
    if shift > 12 and not is_large(cpu, low, shift):
        return low & (0x78 | EPT_LARGE) != 0
    # 4. A page: its memory type, and the address bits within it.
    if (BAD_MEMORY_TYPES >> ((low >> EPT_MEMORY_TYPE_SHIFT) & 7)) & 1 != 0:
        return True
    return low & ((1 << shift) - 1) & EPT_ADDRESS != 0


@kernel
def ept_violation(cpu, gpa, access, permissions, gla, purpose):
    """Leave the guest for an EPT violation; `access` and `permissions` are NESTED_ bits (table 27-7)."""
    information = cpu.vm_exit
    information.reason = EXIT_EPT_VIOLATION
    information.gpa = gpa
    information.gla = 0
    information.qualification = access | permissions << QUALIFICATION_PERMISSIONS_SHIFT
    if purpose != OF_POINTERS:
        information.gla = gla
        information.qualification |= QUALIFICATION_GLA_VALID
    if purpose == AT_END:
        information.qualification |= QUALIFICATION_AT_END
    return VM_EXIT


@kernel
def ept_misconfiguration(cpu, gpa):
    """Leave the guest for an EPT misconfiguration, which reports the guest-physical address alone."""
    information = cpu.vm_exit
    information.reason = EXIT_EPT_MISCONFIGURATION
    information.gpa = gpa
    information.gla = 0
    information.qualification = 0
    return VM_EXIT


@kernel
def descend_ept(cpu, ram, gpa, access, gla, purpose, table, allowed, shift):
    """Walk from a table whose entries each map `1 << shift` bytes: (outcome, frame of 4 KB, permissions, bits of the page)."""
    while True:
        # 1. The entry.
        address = (table | ((gpa >> shift) & 0x1FF) << 3) & ~cpu.a20_closed
        charge(cpu, EVENT_WALK_NESTED_REFERENCE, 1)
        low = read_table(cpu, ram, address)
        high = read_memory(cpu, ram, address + 4, 4)
        if low & PERMISSIONS == 0:
            return ept_violation(cpu, gpa, access, 0, gla, purpose), 0, 0, 0
        if is_misconfigured(cpu, low, high, shift):
            return ept_misconfiguration(cpu, gpa), 0, 0, 0
        allowed &= low & PERMISSIONS
        table = (low & EPT_ADDRESS) | (high & EPT_HIGH_ADDRESS) << 32
        if shift == 12 or low & EPT_LARGE != 0:
            break
        # 2. The next table.
        if shift == 21:
            remember_table(cpu, gpa >> 21, table, allowed)
        shift -= 9
    if allowed & access == 0:
        return ept_violation(cpu, gpa, access, allowed, gla, purpose), 0, 0, 0
    return OK, table | (gpa & ((1 << shift) - 1) & ~0xFFF), allowed, shift


@kernel
def walk_ept(cpu, ram, gpa, access, gla, purpose):
    """Translate a guest-physical address for one access: (outcome, frame of 4 KB, permissions, bits of the page)."""
    index = find_table(cpu, gpa >> 21)
    if index >= 0:
        entry = cpu.nested.tables[index]
        outcome, frame, allowed, shift = descend_ept(
            cpu, ram, gpa, access, gla, purpose, entry.frame, entry.rights, 12
        )
        if outcome == OK:
            charge(cpu, EVENT_WALK_NESTED_SKIP, 1)
            return OK, frame, allowed, shift
        forget_table(cpu, index)
    return descend_ept(cpu, ram, gpa, access, gla, purpose, cpu.nested_root, PERMISSIONS, TOP_SHIFT)


@kernel
def peek_ept(cpu, ram, gpa):
    """The physical address of a guest-physical one, or -1; without any effect."""
    table = cpu.nested_root
    shift = TOP_SHIFT
    while True:
        address = (table | ((gpa >> shift) & 0x1FF) << 3) & ~cpu.a20_closed
        low = read_memory(cpu, ram, address, 4)
        high = read_memory(cpu, ram, address + 4, 4)
        if low & PERMISSIONS == 0 or is_misconfigured(cpu, low, high, shift):
            return -1
        table = (low & EPT_ADDRESS) | (high & EPT_HIGH_ADDRESS) << 32
        if shift == 12 or low & EPT_LARGE != 0:
            return table | (gpa & ((1 << shift) - 1))
        shift -= 9
