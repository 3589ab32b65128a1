"""The callout of a store that has often written traced memory: it is performed here (Translator.simulate_write)."""

from ...core.jit import inline, kernel, load_8, load_32
from ...core.physical import write_physical
from ...isa.registers import DS, EFLAGS_RF
from ..shadow.follow import after_write
from ..shadow.records import CODE, DESCRIPTORS, PAGE_TABLE
from ..shadow.tracing import kinds_of
from ..translation.index import NO_COUNTER, NO_SLOT, PAGE
from .descriptors import base_of, shadow_high, shadow_low
from .exits import can_commit, charge_work, commit, is_stepped, note_path
from .guest_access import UNKNOWN, guest_physical, machine_address, place_to_read
from .operands import M32, effective_address
from .records import CPL, DIRECT_STORE, DONE, NOT_FAST, TRACED_WRITE
from .returns import stack_base
from .traced_writes import (
    LONGEST,
    REGISTERS_ONLY,
    STORE,
    STORE_ACCUMULATOR,
    STORE_IMMEDIATE,
    WIDE,
    immediate_bytes,
    source,
)


@kernel
def writable_base(cpu, ram, exits, in_stack, offset, n):
    """The base of the guest's DS or SS, where a store at an offset is plainly within the segment; else -1."""
    if in_stack == 1:
        return stack_base(ram, exits, offset, n)
    base = UNKNOWN
    if offset + n - 1 <= cpu.seg[DS].write_last:
        base = cpu.seg[DS].seg_base
    return base


@kernel
def stored_operand(cpu, ram, exits, place, kind):
    """Of a store at a place: (bytes up to its immediate, offset, 1 if it is in SS); no bytes if it is none."""
    if kind == STORE_ACCUMULATOR:
        return 5, load_32(ram, place + 1), 0
    modrm = load_8(ram, place + 1)
    if (kind != STORE and kind != STORE_IMMEDIATE) or modrm >= REGISTERS_ONLY:
        return 0, 0, 0
    if kind == STORE_IMMEDIATE and (modrm >> 3) & 7 != 0:
        return 0, 0, 0
    length, offset, in_stack = effective_address(cpu, ram, exits, place + 1)
    return length + 1, offset, in_stack


@kernel
def is_code(index, gpa, n):
    """Whether units may have been made from some of these bytes of a frame that holds code (Unit.overlaps)."""
    slot = index.frame_slots[gpa >> 12]
    if slot == NO_SLOT:
        return True
    first = slot * PAGE + (gpa & (PAGE - 1))
    for place in range(first, first + n):
        if index.code_bytes[place] != 0:
            return True
    return False


@inline
def idle_after(index, counter, traced):
    """How many callouts in a row have written nothing that is traced, this one included (Adaptation.note_callout)."""
    idle = 0
    if traced == 0:
        idle = index.idle[counter] + 1
    return idle


@inline
def path_of(exits):
    """The path of the VMM that the store is."""
    path = TRACED_WRITE
    if exits.direct == 1:
        path = DIRECT_STORE
    return path


@kernel
def adapted_write(cpu, ram, exits, links, control, index):
    """Perform the store for which the callout stands."""
    # 1. The instruction, as the VMM knows it since it was translated.
    counter = index.site_counters[exits.site]
    if counter == NO_COUNTER or load_32(ram, CPL) != 0 or is_stepped(exits):
        return NOT_FAST
    gla = (base_of(shadow_low(ram, exits.cs), shadow_high(ram, exits.cs)) + exits.eip) & M32
    place = place_to_read(ram, exits, gla, LONGEST, 0)
    exits.reference_count = 0
    if place < 0:
        return NOT_FAST
    opcode = load_8(ram, place)
    kind, wide = opcode & ~WIDE, opcode & WIDE
    n = 1 + 3 * wide
    length, offset, in_stack = stored_operand(cpu, ram, exits, place, kind)
    # 2. Its operand, within one page of plain memory.
    base = writable_base(cpu, ram, exits, in_stack, offset, n)
    target = (base + offset) & M32
    if length == 0 or base < 0 or (target & (PAGE - 1)) + n > PAGE:
        return NOT_FAST
    gpa = guest_physical(ram, exits, target, 1, 0)
    address = UNKNOWN
    if gpa >= 0:
        address = machine_address(ram, exits, gpa)
    if address < 0 or not can_commit(exits):
        return NOT_FAST
    # 3. Who traces it.
    traced, kinds = links.traced[gpa >> 12], kinds_of(control, links, gpa >> 12)
    if kinds & DESCRIPTORS != 0 or (kinds & CODE != 0 and is_code(index, gpa, n)):
        return NOT_FAST
    idle = idle_after(index, counter, traced)
    if idle >= exits.restore_after:
        return NOT_FAST
    # 4. The store, and what follows from it for the shadow.
    value = source(cpu, ram, exits, place, kind, wide, length)
    note_path(exits, path_of(exits))
    exits.trap_resume = 0
    commit(cpu, exits)
    index.idle[counter] = idle
    write_physical(cpu, ram, address, n, value)
    if kinds & PAGE_TABLE != 0:
        after_write(cpu, ram, control, links, gpa >> 12, gpa & (PAGE - 1), n)
        charge_work(cpu, exits, control)
    # 5. The instruction is complete.
    exits.eflags &= ~EFLAGS_RF
    exits.eip = (exits.eip + length + immediate_bytes(kind, n)) & M32
    cpu.retired += 1
    return DONE
