"""Isolation checked per access: whose is the frame that a guest's operand or fetch reached?

A table behind RAM and ROM holds the owner of each frame of RAM; ROM and registers are never the VMM's. What originates in a guest
operand is checked: every access through a segment, every access with user privilege, and every fetch, unless the VMM
itself runs. Accesses that the processor makes of its own to descriptor tables, the TSS and the stack of a trap are not
operands: those structures are the VMM's. While the table is there, the front caches are not filled, so that every access
comes by here. That costs no cycle.
"""

from ..isa.events import MODE_VMM
from .jit import kernel, load_8
from .layout import ACCESS_FETCH, OWNER_VMM
from .memory_mapped import has_registers
from .physical_map import BUS, place_of_ram, place_to_read


@kernel
def owner_refuses(cpu, ram, gla, physical, user, access):
    """1, with `cpu.violation_*` filled, if this access must not reach the frame of `physical`."""
    if cpu.mode == MODE_VMM:
        return 0
    if user == 0 and access != ACCESS_FETCH and cpu.operand_access == 0:
        return 0
    if physical <= cpu.ram_last:
        if load_8(ram, cpu.owner_table + (place_of_ram(cpu, ram, physical) >> 12)) != OWNER_VMM:
            return 0
    elif place_to_read(cpu, ram, physical) < BUS or has_registers(cpu, physical):
        return 0
    cpu.violation_gla = gla
    cpu.violation_hpa = physical
    cpu.violation_access = access
    return 1
