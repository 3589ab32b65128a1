"""vm_assist, and the assist of writable page tables: a guest's store to one of its page tables is performed and checked here.

A guest that has asked for it writes its page tables as on a bare processor. They are mapped read-only; the page fault comes
here, where the instruction is performed as an update of the entry. What is not performed is the guest's own page fault.
"""

import numpy as np

from ...core.alu import borrows_of_subtract, sign_extend_32
from ...core.flags import arithmetic_flags
from ...core.jit import inline, kernel, load_32
from ...core.layout import OK
from ...core.segment import access_of, base_of, read_descriptor
from ...isa.events import EVENT_VMM_WRITABLE_TABLE
from ...isa.registers import AR_DB, EAX, EBX, ECX, EDX, EFLAGS_ARITHMETIC, EFLAGS_RF, PTE_P, PTE_RW
from .charge import charge
from .frame_counts import GOT, owner_of
from .guest_access import FAULTED, fault, load_guest
from .instruction_fetch import general_register, set_general_register
from .interface import (
    EINVAL,
    ENOSYS,
    VMASST_CMD_disable,
    VMASST_CMD_enable,
    VMASST_TYPE_pae_extended_cr3,
    VMASST_TYPE_writable_pagetables,
)
from .page_types import is_used_as
from .records import PGT_L1
from .table_entries import PAGE_SHIFT, frame_in, high_at
from .table_updates import leaf_place, update_l1_entry

M32 = 0xFFFFFFFF
WRITE_REFUSED = 3  # the error code of a page fault by a write of the kernel's to a page that is there
LAST_ASSIST = VMASST_TYPE_pae_extended_cr3
NOT_KNOWN = 0  # an instruction that is not performed here
NO_ADDRESS = -1

# Instructions that write one doubleword, by what they make of it.
STORE, EXCHANGE, OR, AND, XOR, SET_BIT, CLEAR_BIT, FLIP_BIT, COMPARE, COMPARE_8 = range(1, 11)
OPCODE_STORE, OPCODE_STORE_IMMEDIATE, OPCODE_STORE_ACCUMULATOR, OPCODE_EXCHANGE = 0x89, 0xC7, 0xA3, 0x87
OPCODE_OR, OPCODE_AND, OPCODE_XOR, OPCODE_GROUP, OPCODE_GROUP_BYTE = 0x09, 0x21, 0x31, 0x81, 0x83
TWO_BYTES, OPCODE_SET, OPCODE_CLEAR, OPCODE_FLIP, OPCODE_BITS = 0x0F, 0xAB, 0xB3, 0xBB, 0xBA
OPCODE_COMPARE, OPCODE_COMPARE_8 = 0xB1, 0xC7
ZF, CF = 1 << 6, 1


@kernel
def do_vm_assist(cpu, ram, xen, domains, frames, channels):
    """vm_assist: EBX whether to switch it on, ECX what."""
    command, kind = cpu.gpr[EBX] & M32, cpu.gpr[ECX] & M32
    if kind > LAST_ASSIST:
        return -EINVAL
    domain = domains[xen.current]
    if command == VMASST_CMD_enable:
        domain.assists = np.int64(domain.assists) | 1 << kind
    elif command == VMASST_CMD_disable:
        domain.assists = np.int64(domain.assists) & ~(1 << kind)
    else:
        return -ENOSYS
    return 0


@kernel
def page_fault(cpu, ram, xen, domains, frames, error):
    """Whether a page fault of the current domain's is a store to a page table of its, and is performed: 1, or 0."""
    domain = domains[xen.current]
    if error != WRITE_REFUSED or (np.int64(domain.assists) >> VMASST_TYPE_writable_pagetables) & 1 == 0:
        return 0
    # 1. The entry: of a page table that the guest maps read-only where it writes.
    gla = cpu.cr2
    place = leaf_place(cpu, ram, xen, domains, gla)
    if place < 0:
        return 0
    low = load_32(ram, place)
    if low & (PTE_P | PTE_RW) != PTE_P:
        return 0
    table = frame_in(low, high_at(ram, place, np.int64(domain.is_pae)))
    if owner_of(frames, table) != xen.current or not is_used_as(frames, table, PGT_L1):
        return 0
    # 2. The instruction.
    kind, length, source, number = instruction_at(cpu, ram, domain, code_address(cpu, ram, domain))
    target = table << PAGE_SHIFT | gla & 0xFFF
    octets = 4
    if kind == COMPARE_8:
        octets = 8
    if kind == NOT_KNOWN or target & (octets - 1) != 0:
        return 0
    # 3. What it writes.
    charge(cpu, xen, EVENT_VMM_WRITABLE_TABLE, 1)
    if kind == COMPARE_8:
        done = compare_8(cpu, ram, xen, domains, frames, domain, target)
    else:
        done = modify(cpu, ram, xen, domains, frames, domain, kind, target, source, number)
    # 4. The instruction is complete.
    if done != 0:
        domain.eip = (np.int64(domain.eip) + length) & M32
        domain.eflags = np.int64(domain.eflags) & ~EFLAGS_RF
        cpu.retired += 1
    return done


@kernel
def code_address(cpu, ram, domain):
    """The linear address of the instruction at which a domain stands, by its descriptor of CS; -1: it is not of 32 bits."""
    outcome, low, high = read_descriptor(cpu, ram, np.int64(domain.cs))
    if outcome != OK:
        fault(cpu)
        return NO_ADDRESS
    if access_of(high) & AR_DB == 0:
        return NO_ADDRESS
    return (base_of(low, high) + np.int64(domain.eip)) & M32


# -- the instruction ---------------------------------------------------------------------------------------------------


@inline
def is_prefix(octet):
    """Whether a byte is a prefix that changes nothing here: LOCK, or a segment override."""
    return octet == 0xF0 or octet == 0x3E or octet == 0x26 or octet == 0x2E or octet == 0x36 or octet == 0x64 or octet == 0x65


@kernel
def instruction_at(cpu, ram, domain, code):
    """What the instruction is, its length, its other operand, and the number of a register in ModRM; NOT_KNOWN: not done here."""
    at = code
    opcode = load_guest(cpu, ram, domain, at, 1)
    while is_prefix(opcode) and at - code < 4:
        at += 1
        opcode = load_guest(cpu, ram, domain, at, 1)
    at += 1
    two_bytes = int(opcode == TWO_BYTES)
    if two_bytes == 1:
        opcode = load_guest(cpu, ram, domain, at, 1)
        at += 1
    if opcode == OPCODE_STORE_ACCUMULATOR and two_bytes == 0:
        return STORE, at + 4 - code, cpu.gpr[EAX] & M32, EAX
    modrm = load_guest(cpu, ram, domain, at, 1)
    if modrm == FAULTED or modrm >= 0xC0:
        return NOT_KNOWN, 0, 0, 0
    end = at + operand_bytes(cpu, ram, domain, at, modrm)
    number = (modrm >> 3) & 7
    register = general_register(cpu, domain, number)
    if two_bytes == 1:
        kind = kind_of_two_bytes(opcode, number)
        if opcode == OPCODE_BITS:
            return kind, end + 1 - code, load_guest(cpu, ram, domain, end, 1), number
        return kind, end - code, register, number
    kind, immediate = kind_of_one_byte(opcode, number)
    if immediate == 4:
        register = load_guest(cpu, ram, domain, end, 4)
    elif immediate == 1:
        register = ((load_guest(cpu, ram, domain, end, 1) ^ 0x80) - 0x80) & M32
    return kind, end + immediate - code, register, number


@kernel
def operand_bytes(cpu, ram, domain, at, modrm):
    """Bytes of ModRM, SIB and displacement of an operand in memory."""
    mode, base = modrm >> 6, modrm & 7
    octets = 1
    if base == 4:
        octets = 2
        if mode == 0 and load_guest(cpu, ram, domain, at + 1, 1) & 7 == 5:
            octets += 4
    if mode == 1:
        octets += 1
    elif mode == 2 or (mode == 0 and base == 5):
        octets += 4
    return octets


@kernel
def kind_of_one_byte(opcode, number):
    """What an instruction does, and the bytes of its immediate operand."""
    if opcode == OPCODE_STORE:
        return STORE, 0
    if opcode == OPCODE_STORE_IMMEDIATE and number == 0:
        return STORE, 4
    if opcode == OPCODE_EXCHANGE:
        return EXCHANGE, 0
    if opcode == OPCODE_OR:
        return OR, 0
    if opcode == OPCODE_AND:
        return AND, 0
    if opcode == OPCODE_XOR:
        return XOR, 0
    if opcode == OPCODE_GROUP or opcode == OPCODE_GROUP_BYTE:
        immediate = 1
        if opcode == OPCODE_GROUP:
            immediate = 4
        if number == 1:
            return OR, immediate
        if number == 4:
            return AND, immediate
        if number == 6:
            return XOR, immediate
    return NOT_KNOWN, 0


@kernel
def kind_of_two_bytes(opcode, number):
    """What an instruction behind 0F does."""
    if opcode == OPCODE_SET or (opcode == OPCODE_BITS and number == 5):
        return SET_BIT
    if opcode == OPCODE_CLEAR or (opcode == OPCODE_BITS and number == 6):
        return CLEAR_BIT
    if opcode == OPCODE_FLIP or (opcode == OPCODE_BITS and number == 7):
        return FLIP_BIT
    if opcode == OPCODE_COMPARE:
        return COMPARE
    if opcode == OPCODE_COMPARE_8 and number == 1:
        return COMPARE_8
    return NOT_KNOWN


# -- what it writes ----------------------------------------------------------------------------------------------------


@kernel
def modify(cpu, ram, xen, domains, frames, domain, kind, target, source, number):
    """Perform an instruction that writes a doubleword: 1, or 0 if the entry may not be so."""
    old = load_32(ram, target)
    bit = 1 << (source & 31)
    new = source
    if kind == OR:
        new = old | source
    elif kind == AND:
        new = old & source
    elif kind == XOR:
        new = old ^ source
    elif kind == SET_BIT:
        new = old | bit
    elif kind == CLEAR_BIT:
        new = old & ~bit
    elif kind == FLIP_BIT:
        new = old ^ bit
    elif kind == COMPARE and old != cpu.gpr[EAX] & M32:
        new = old
    if store_doubleword(cpu, ram, xen, domains, frames, target, new, kind) == 0:
        return 0
    if kind == EXCHANGE:
        set_general_register(cpu, domain, number, old)
    elif kind == SET_BIT or kind == CLEAR_BIT or kind == FLIP_BIT:
        domain.eflags = np.int64(domain.eflags) & ~CF | int(old & bit != 0)
    elif kind == COMPARE:
        accumulator = cpu.gpr[EAX] & M32
        take_flags(cpu, domain, (accumulator - old) & M32, borrows_of_subtract(accumulator, old, accumulator - old))
        cpu.gpr[EAX] = old
    elif kind != STORE:
        take_flags(cpu, domain, new, 0)
    return 1


@inline
def take_flags(cpu, domain, result, carries):
    """The arithmetic flags of a result, in the guest's EFLAGS."""
    cpu.flag_result = sign_extend_32(result)
    cpu.flag_carry = carries & M32
    domain.eflags = np.int64(domain.eflags) & ~EFLAGS_ARITHMETIC | arithmetic_flags(cpu)


@kernel
def store_doubleword(cpu, ram, xen, domains, frames, target, value, kind):
    """Write an entry, or half of one: 1, or 0 if it may not be so.

    A plain store to the high half of an entry that is present, whose halves do not go together, leaves it not present: the
    guest is taken to write the other half next.
    """
    if np.int64(domains[xen.current].is_pae) == 0:
        return update_l1_entry(cpu, ram, xen, domains, frames, target, value, 0, 0, xen.current)
    place = target & ~7
    if target == place:
        return update_l1_entry(cpu, ram, xen, domains, frames, place, value, load_32(ram, place + 4), 0, xen.current)
    low = load_32(ram, place)
    done = update_l1_entry(cpu, ram, xen, domains, frames, place, low, value, 0, xen.current)
    if done != GOT and kind == STORE:
        done = update_l1_entry(cpu, ram, xen, domains, frames, place, low & ~PTE_P, value, 0, xen.current)
    return done


@kernel
def compare_8(cpu, ram, xen, domains, frames, domain, target):
    """CMPXCHG8B: 1, or 0 if the entry may not be so."""
    low, high = load_32(ram, target), load_32(ram, target + 4)
    if low == cpu.gpr[EAX] & M32 and high == cpu.gpr[EDX] & M32:
        if np.int64(domain.is_pae) == 0:
            return 0
        new_low, new_high = cpu.gpr[EBX] & M32, cpu.gpr[ECX] & M32
        if update_l1_entry(cpu, ram, xen, domains, frames, target, new_low, new_high, 0, xen.current) != GOT:
            return 0
        domain.eflags = np.int64(domain.eflags) | ZF
    else:
        cpu.gpr[EAX] = low
        cpu.gpr[EDX] = high
        domain.eflags = np.int64(domain.eflags) & ~ZF
    return 1
