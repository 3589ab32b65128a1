"""The short walk of a plain load does what the long one does: two processors run the same random loads, one by each way.

Compared is the whole record of the processor - registers, ledger, TLBs with their order of eviction, caches - and RAM.
"""

from __future__ import annotations

import random

import numpy as np
import pytest

from x86virt.core.jit import entry
from x86virt.core.layout import FAULT, FRONT_SLOTS, NEVER, OK, RESTART
from x86virt.core.memory import load_slow, read_segment_slowly
from x86virt.core.tlb import flush_tlb, invalidate_page
from x86virt.isa.registers import (
    AR_P,
    AR_S,
    CR0_PG,
    CR3_ADDRESS,
    CR4_PGE,
    CR4_PSE,
    DS,
    EFLAGS_AC,
    PTE_A,
    PTE_D,
    PTE_G,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
    TYPE_WRITABLE,
)
from x86virt.processor import Processor
from x86virt.profile import load_profile

RAM_BYTES = 1 << 20
DIRECTORY, TABLES = 0x10000, 0x11000  # two tables
PAGES = 160  # of both tables: more than a first level holds
USUAL = PTE_P | PTE_RW | PTE_US | PTE_A
STEPS = 4000


@entry
def load_case(state, memory, short, offset, n):
    """Load `n` bytes into EAX by the short way or by the long one."""
    cpu = state[0]
    if short == 1:
        return load_slow(cpu, memory, DS, offset, n, 0)
    outcome, value = read_segment_slowly(cpu, memory, DS, offset, n)
    if outcome == OK:
        cpu.gpr[0] = value
    return outcome


@entry
def forget_case(state, gla, everything):
    """INVLPG, or a flush with or without global entries."""
    if everything == 2:
        invalidate_page(state[0], gla)
    else:
        flush_tlb(state[0], everything)


def make_processor(profile: str, seed: int) -> Processor:
    """A processor with paging on, two tables of random pages, and a flat data segment."""
    chance = random.Random(seed)
    processor = Processor(load_profile(profile), RAM_BYTES)
    words = processor.memory[:RAM_BYTES].view(np.uint32)
    words[:] = [chance.getrandbits(32) for _ in range(len(words))]
    cpu = processor.cpu
    cpu.cr0 = 1 | CR0_PG
    cpu.cr3 = DIRECTORY & CR3_ADDRESS
    segment = cpu.seg[DS]
    segment.seg_base, segment.limit, segment.read_last = 0, 0xFFFFFFFF, 0xFFFFFFFF
    segment.access = AR_P | AR_S | TYPE_WRITABLE
    for number in range(2):
        words[DIRECTORY // 4 + number] = TABLES + number * 0x1000 | USUAL
    for page in range(PAGES):
        words[entry_place(page)] = leaf(chance)
    return processor


def entry_place(page: int) -> int:
    """The word of RAM that is the leaf entry of a page: the pages alternate between both tables."""
    return (TABLES + (page & 1) * 0x1000) // 4 + (page >> 1)


def leaf(chance: random.Random) -> int:
    """A leaf entry, most often a plain one."""
    flags = chance.choice((USUAL, USUAL, USUAL, USUAL | PTE_D, USUAL | PTE_G, USUAL & ~PTE_A, USUAL & ~PTE_US, 0))
    frame = chance.choice((0x20000, 0x30000, 0x7F000, RAM_BYTES - 0x1000, RAM_BYTES, 0xFEE00000))
    return frame | flags


def step(processors: list[Processor], chance: random.Random) -> int:
    """One random action on both processors, whose states must be equal then; a load's outcome, -1 for anything else."""
    page = chance.randrange(PAGES)
    gla = (page & 1) << 22 | (page >> 1) << 12
    action = chance.randrange(40)
    address = gla + chance.choice((0, 4, 0x123, 0xFFC, 0xFFE, 0xFFF))
    n = chance.choice((1, 2, 4, 4, 4))
    new_leaf = leaf(chance)
    directory_flags = chance.choice((USUAL, USUAL, USUAL, USUAL & ~PTE_A, USUAL & ~PTE_US, USUAL | PTE_PS, 0))
    near = chance.randrange(4000)
    outcomes = []
    for short, processor in enumerate(processors):
        cpu = processor.cpu
        words = processor.memory[:RAM_BYTES].view(np.uint32)
        if action == 0:
            forget_case(processor.state, gla, new_leaf & 1)
        elif action == 1:
            words[DIRECTORY // 4 + (page & 1)] = TABLES + (page & 1) * 0x1000 | directory_flags
        elif action == 2:
            cpu.cpl = 3 if n == 4 else 0
            cpu.bank = FRONT_SLOTS if n == 4 else 0
        elif action == 3:
            cpu.cr4 = near & (CR4_PGE | CR4_PSE)
            forget_case(processor.state, gla, 0)
        elif action == 4:
            cpu.in_block = near & 1
            cpu.limit_ticks = cpu.ticks + near if n == 4 else NEVER
        elif action == 5:
            cpu.a20_closed = (1 << 20) * (near & 1)
            forget_case(processor.state, gla, 0)
        elif action == 6:
            cpu.eflags ^= EFLAGS_AC * (near & 1)
            cpu.cache_all = near >> 1 & 1
            forget_case(processor.state, gla, 0)
        elif action < 12:
            words[entry_place(page)] = new_leaf
            forget_case(processor.state, gla, 2)
        else:
            outcomes.append(load_case(processor.state, processor.memory, short, address, n))
    assert outcomes in ([], outcomes[:1] * 2)
    return outcomes[0] if outcomes else -1


@pytest.mark.parametrize("profile", ("p4_prescott", "nehalem"))
def test_short_walk_is_the_long_one(profile: str) -> None:
    """The same state after every action, and loads of all outcomes among them."""
    processors = [make_processor(profile, 5) for _ in range(2)]
    chance = random.Random(6)
    counts = dict.fromkeys((OK, FAULT, RESTART, -1), 0)
    for number in range(STEPS):
        counts[step(processors, chance)] += 1
        long_way, short_way = processors
        if number % 8 == 0:
            assert long_way.state.tobytes() == short_way.state.tobytes(), f"step {number}"
            assert np.array_equal(long_way.memory, short_way.memory), f"step {number}"
    assert min(counts.values()) > 20, counts
