"""A write to a page table of the guest that is traced: a plain store is performed here (emulate/writes.py)."""

from ...core.jit import inline, kernel, load_8, load_32
from ...core.physical import write_physical
from ...isa.registers import EAX, EFLAGS_RF
from ..guest_events import DR7_ENABLES
from ..shadow.fill import fill
from ..shadow.follow import after_write, let_out_of_sync
from ..shadow.records import FILLED, PAGE_TABLE
from ..shadow.tracing import kinds_of
from .descriptors import base_of, shadow_high, shadow_low
from .exits import N_PATHS, can_commit, charge_work, commit, is_stepped, note_path
from .guest_access import UNKNOWN, guest_physical, machine_address, place_to_read
from .operands import M32, effective_address, operand_base, register
from .records import CPL, DONE, DR7, REST, TRACED_WRITE

PAGE = 0x1000
# MOV to memory: of a register, of an immediate, of the accumulator; the lowest bit says whether all 32 bits.
STORE, STORE_IMMEDIATE, STORE_ACCUMULATOR = 0x88, 0xC6, 0xA2
WIDE, REGISTERS_ONLY = 1, 0xC0
LONGEST = 11  # bytes: opcode, ModRM, SIB, displacement, immediate


@kernel
def traced_write(cpu, ram, exits, links, control, user):
    """What a fill refused because the frame is traced: out of sync from now on, or simulated. REST: Python goes on."""
    if let_out_of_sync(cpu, control, links, control.gpa >> 12):
        exits.outcome = fill(cpu, ram, control, links, cpu.cr2, 1, user)
        if exits.outcome != FILLED or control.violation != 0 or control.touched != 0:
            return REST
        charge_work(cpu, exits, control)
        return DONE
    if load_32(ram, CPL) != 0 or is_stepped(exits) or load_32(ram, DR7) & DR7_ENABLES != 0:
        return REST
    if exits.translates == 1 or kinds_of(control, links, control.gpa >> 12) != PAGE_TABLE:
        return REST  # a translator counts them, to make code of its own of what often writes
    return simulate_store(cpu, ram, exits, links, control)


@kernel
def simulate_store(cpu, ram, exits, links, control):
    """Perform the guest's store of one or four bytes within one entry or more of a page table."""
    # 1. The instruction.
    exits.reference_count = 0
    for path in range(N_PATHS):
        exits.items[path] = 0
    gla = (base_of(shadow_low(ram, exits.cs), shadow_high(ram, exits.cs)) + exits.eip) & M32
    place = place_to_read(ram, exits, gla, LONGEST, 0)
    if place < 0:
        return REST
    opcode = load_8(ram, place)
    kind, wide = opcode & ~WIDE, opcode & WIDE
    n = 1 + 3 * wide
    length, target = destination(cpu, ram, exits, place, kind)
    # 2. The operand: where the processor faulted, within one page of plain memory.
    if length == 0 or target != cpu.cr2 or (target & (PAGE - 1)) + n > PAGE:
        return REST
    gpa = guest_physical(ram, exits, target, 1, 0)
    address = UNKNOWN
    if gpa == control.gpa:
        address = machine_address(ram, exits, gpa)
    if address < 0 or not can_commit(exits):
        return REST
    # 3. The store, and what follows from it for the shadow.
    value = source(cpu, ram, exits, place, kind, wide, length)
    note_path(exits, TRACED_WRITE)
    exits.trap_resume = 0
    commit(cpu, exits)
    write_physical(cpu, ram, address, n, value)
    after_write(cpu, ram, control, links, gpa >> 12, gpa & (PAGE - 1), n)
    charge_work(cpu, exits, control)
    # 4. The instruction is complete.
    exits.eflags &= ~EFLAGS_RF
    exits.eip = (exits.eip + length + immediate_bytes(kind, n)) & M32
    cpu.retired += 1
    return DONE


@inline
def immediate_bytes(kind, n):
    """Bytes of the immediate operand."""
    if kind == STORE_IMMEDIATE:
        return n
    return 0


@kernel
def destination(cpu, ram, exits, place, kind):
    """Of a store at a place: (bytes up to its immediate, the linear address that it writes); no bytes if it is none."""
    modrm = load_8(ram, place + 1)
    if kind == STORE_ACCUMULATOR:
        return 5, (operand_base(cpu, ram, exits, 0) + load_32(ram, place + 1)) & M32
    if (kind != STORE and kind != STORE_IMMEDIATE) or modrm >= REGISTERS_ONLY:
        return 0, 0
    if kind == STORE_IMMEDIATE and (modrm >> 3) & 7 != 0:
        return 0, 0
    length, offset, in_stack = effective_address(cpu, ram, exits, place + 1)
    base = operand_base(cpu, ram, exits, in_stack)
    if base < 0:
        return 0, 0
    return length + 1, (base + offset) & M32


@kernel
def source(cpu, ram, exits, place, kind, wide, length):
    """What is stored, in the low bits."""
    if kind == STORE_IMMEDIATE:
        if wide == 0:
            return load_8(ram, place + length)
        return load_32(ram, place + length)
    if kind == STORE_ACCUMULATOR:
        return cpu.gpr[EAX]
    number = (load_8(ram, place + 1) >> 3) & 7
    if wide == 0 and number >= 4:
        return cpu.gpr[number - 4] >> 8  # AH, CH, DH, BH
    return register(cpu, exits, number)
