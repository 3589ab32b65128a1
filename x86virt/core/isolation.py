"""Isolation checked per access: whose is the frame that a guest's operand or fetch reached?

A table behind RAM and ROM holds the owner of each frame of RAM; ROM and registers are never the VMM's. What originates in a guest
operand is checked: every access through a segment, every access with user privilege, and every fetch, unless the VMM
itself runs. Accesses that the processor makes of its own to descriptor tables, the TSS and the stack of a trap are not
operands: those structures are the VMM's. While the table is there, the front caches are not filled, so that every access
comes by here. That costs no cycle.

Code of a translation cache is the guest's and the VMM's in one: an instruction that the translator put there may reach
the records that it needs, if its note says so (core/retirement.py) and through the segment registers that are the VMM's then;
one of the guest's beside it may not. While the table is there, such code runs one instruction at a time.
"""

from ..isa.events import MODE_VMM
from ..isa.registers import CS, GS, SS
from .jit import kernel, load_8
from .layout import ACCESS_FETCH, NOTE_OWN_DATA, NOTE_OWN_STACK, OWNER_GRANTED, OWNER_GUEST
from .memory_mapped import has_registers
from .physical_map import BUS, place_of_ram, place_to_read
from .retirement import in_translation_cache, note_at


@kernel
def has_checked_note(cpu, place):
    """Whether the instruction at a place must execute by itself, so that its own note is looked at."""
    return cpu.owner_table != 0 and in_translation_cache(cpu, place)


@kernel
def is_granted(cpu, ram, place, access):
    """Whether translated code may reach a place that is granted to it in this way."""
    if access == ACCESS_FETCH:
        return in_translation_cache(cpu, place) and cpu.seg[CS].selector & 0xFFFC == cpu.unit_selector
    if not in_translation_cache(cpu, cpu.code_place):
        return False
    segment = cpu.operand_access - 1
    needed = 0
    if segment == GS or segment == CS:
        needed = NOTE_OWN_DATA
    elif segment == SS:
        needed = NOTE_OWN_STACK
    return note_at(cpu, ram, cpu.code_place) & needed != 0


@kernel
def owner_refuses(cpu, ram, gla, physical, user, access):
    """1, with `cpu.violation_*` filled, if this access must not reach the frame of `physical`."""
    if cpu.mode == MODE_VMM:
        return 0
    if user == 0 and access != ACCESS_FETCH and cpu.operand_access == 0:
        return 0
    if physical <= cpu.ram_last:
        place = place_of_ram(cpu, ram, physical)
        owner = load_8(ram, cpu.owner_table + (place >> 12))
        if owner == OWNER_GUEST or (owner == OWNER_GRANTED and is_granted(cpu, ram, place, access)):
            return 0
    elif place_to_read(cpu, ram, physical) < BUS or has_registers(cpu, physical):
        return 0
    cpu.violation_gla = gla
    cpu.violation_hpa = physical
    cpu.violation_access = access
    return 1
