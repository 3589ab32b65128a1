"""From one block to the next: direct links within a page, a jump cache for everything else."""

from ..isa.registers import CS
from .code import find_block
from .code_layout import JUMP_SLOTS, SCRATCH_BLOCK
from .jit import inline, kernel
from .layout import FRONT_MASK, NEVER, OK

M32 = 0xFFFFFFFF
PAGE = 0xFFFFF000


@inline
def jump_slot(rip):
    """The slot of the jump cache for an address."""
    return (rip ^ (rip >> 12)) & (JUMP_SLOTS - 1)


@inline
def cached_jump(cpu, code, blocks):
    """The block at cpu.rip if the jump cache knows it and the page is still translated as it was; else 0."""
    jump = code.jumps[jump_slot(cpu.rip)]
    index = jump.block
    if index == 0 or jump.rip != cpu.rip or jump.context != cpu.context:
        return 0
    gla = (cpu.rip + cpu.seg[CS].seg_base) & M32
    slot = cpu.bank + ((gla >> 12) & FRONT_MASK)
    if cpu.front_fetch[slot] != (gla & PAGE) | cpu.fetch_generation:
        return 0
    if blocks[index].place != gla + cpu.fetch_addend[slot] or blocks[index].ticks == NEVER:
        return 0
    return index


@kernel
def next_block(cpu, ram, code, blocks, uops, details):
    """Find the block at cpu.rip the long way and remember it in the jump cache: (outcome, block)."""
    outcome, index = find_block(cpu, ram, code, blocks, uops, details)
    if outcome == OK and index != SCRATCH_BLOCK:
        jump = code.jumps[jump_slot(cpu.rip)]
        jump.rip = cpu.rip
        jump.context = cpu.context
        jump.block = index
    return outcome, index


@inline
def fits(cpu, block):
    """Whether a block may run whole: it is alive, ends before the limit, and within the retirement limit."""
    return cpu.ticks + block.ticks < cpu.limit_ticks and cpu.retired + block.room <= cpu.retired_limit


@kernel
def link(cpu, blocks, index, edge, target):
    """Remember a direct successor on the same page, which needs no new look at the instruction TLB.

    None while isolation is checked, which is told where each block begins by `find_block`.
    """
    if index == SCRATCH_BLOCK or target == SCRATCH_BLOCK or cpu.owner_table != 0:
        return
    if (blocks[index].rip ^ blocks[target].rip) >> 12 == 0 and (
        blocks[index].place ^ blocks[target].place
    ) >> 12 == 0:
        blocks[index].links[edge] = target


@kernel
def unlink_successors(blocks, index):
    """Forget the direct successors of a block: one of them is dead."""
    blocks[index].links[0] = 0
    blocks[index].links[1] = 0
