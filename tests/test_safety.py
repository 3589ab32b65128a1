"""Hostile bytes: whatever a guest is made of, a run ends in a named outcome within its budget, and the ledger balances."""

import numpy as np
import pytest
from bare_machine import (
    CODE,
    CODE_FIRST,
    CODE_LAST,
    DATA,
    DIRECTORY,
    ESP,
    GDT,
    IDT,
    STACK,
    STACK_END,
    TABLE,
    BareMachine,
)  # fmt: skip
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.core import layout

MACHINE = BareMachine()
BUDGET_TICKS = 64 * 20_000
MOST_SLICES = 5_000
# What a run may end with; the others are steps on the way, after which it goes on.
ENDS = {layout.SHUTDOWN, layout.BUDGET, layout.HALTED_FOREVER, layout.HOOK}
STEPS = {layout.MARK, layout.BOARD}


def finish() -> int:
    """Run to an end; marks and devices are served on the way."""
    cpu, board = MACHINE.cpu, MACHINE.processor.board
    cpu.budget = int(cpu.ticks) + BUDGET_TICKS
    for _ in range(MOST_SLICES):
        outcome = MACHINE.processor.run()
        assert outcome in ENDS | STEPS, f"outcome {outcome}"
        if outcome in ENDS:
            break
        cpu.mark = board.attention = board.console_length = board.exit_requested = board.shutdown_requested = 0
    else:
        raise AssertionError("the run does not end")
    check_balance()
    return outcome


def check_balance() -> None:
    """Conservation: the ledger's ticks are the machine's, and fixed prices hold."""
    MACHINE.processor.settle()
    ledger = MACHINE.processor.ledger()
    assert ledger.total_ticks() == MACHINE.cpu.ticks
    ledger.check_fixed_prices(MACHINE.cpu.price)
    assert (ledger.count >= 0).all()


def prepare(seed: int, ring: int, paged: bool) -> np.random.Generator:
    """A fresh machine with random registers and data."""
    random = np.random.default_rng(seed)
    MACHINE.power_on()
    if paged:
        MACHINE.paging()
    MACHINE.ring(ring)
    MACHINE.cpu.hook_first, MACHINE.cpu.hook_last = 1, 0
    MACHINE.gpr[:8] = random.choice([0, 8, 0xFFFFFFFF, CODE, DATA, STACK, GDT, IDT, TABLE], 8)
    MACHINE.gpr[ESP] = STACK + 0x1000
    MACHINE.memory[DATA:STACK_END] = random.integers(0, 256, STACK_END - DATA)
    MACHINE.cpu.rip = CODE
    return random


COMMON = dict(seed=st.integers(0, 2**32), ring=st.sampled_from((0, 3)), paged=st.booleans())


@settings(max_examples=800)
@given(octets=st.binary(min_size=1, max_size=64), **COMMON)
def test_random_bytes_as_code(octets: bytes, seed: int, ring: int, paged: bool) -> None:
    """Hypothesis' bytes, then random ones to the end of the code."""
    random = prepare(seed, ring, paged)
    MACHINE.memory[CODE_FIRST : CODE_LAST + 1] = random.integers(0, 256, CODE_LAST + 1 - CODE_FIRST)
    MACHINE.write_code(octets)
    finish()


@settings(max_examples=500)
@given(**COMMON)
def test_random_descriptor_tables(seed: int, ring: int, paged: bool) -> None:
    """Random GDT, IDT and TSS under code that loads segments, takes interrupts and far jumps."""
    random = prepare(seed, ring, paged)
    pieces = [b"\xcd", b"\x8e", b"\x9a", b"\xea", b"\xcf", b"\xcb", b"\x0f\x00", b"\x0f\x01", b"\x0f\x02", b"\x0f\x03", b"\x1f",
              b"\xc5", b"\x0f\x34", b"\x0f\x35", b"\x9d", b"\xf7\xf0", b"\x0f\xb2"]  # fmt: skip
    code = b"".join(pieces[n] + random.bytes(int(random.integers(1, 6))) for n in random.integers(0, len(pieces), 20))
    MACHINE.write_code(code)
    for first in (GDT, IDT):
        MACHINE.memory[first : first + 0x100] = random.integers(0, 256, 0x100)
    MACHINE.memory[0x3000:0x3068] = random.integers(0, 256, 0x68)
    finish()


@settings(max_examples=500)
@given(seed=st.integers(0, 2**32), ring=st.sampled_from((0, 3)))
def test_random_page_tables(seed: int, ring: int) -> None:
    """A directory and a table of random entries, some of which map the tables, the code, or nothing at all."""
    random = prepare(seed, ring, True)
    MACHINE.cpu.cr4 = int(random.choice([0, 0x10, 0x90]))
    entries = random.integers(0, 2**32, 1024, dtype=np.uint32)
    frames = (DIRECTORY, TABLE, CODE_FIRST, DATA, 0xFFFFF000, STACK)
    entries[::3] = random.choice(frames, len(entries[::3])) | random.integers(0, 0x200, len(entries[::3])).astype(
        np.uint32
    )
    table = MACHINE.memory[TABLE : TABLE + 0x400].view(np.uint32)
    damaged = random.integers(0, 256, 40)
    table[damaged] = entries[damaged]
    MACHINE.memory[DIRECTORY + 4 : DIRECTORY + 0x1000] = entries[1:].view(np.uint8)
    code = b"".join(b"\xa1" + random.bytes(4) + b"\xa3" + random.bytes(4) + b"\xff\x30\x8f\x01" for _ in range(10))
    MACHINE.write_code(code)
    finish()


@pytest.mark.parametrize("ring", (0, 3))
@pytest.mark.parametrize("octet", range(256), ids="{:02x}".format)
def test_memory_full_of_one_byte(octet: int, ring: int) -> None:
    """Code that is one byte over and over, up to the end of RAM."""
    prepare(octet, ring, False)
    MACHINE.memory[CODE_FIRST : MACHINE.processor.ram_bytes] = octet
    finish()


@pytest.mark.parametrize("rip", (0xFFFFFFFF, 0xFFFFFFF0, 0x7FFFFFFF, 0xFFFF8, 0xFFFFF, 0x100000, 0x80000000), ids=hex)
@pytest.mark.parametrize("octet", (0x00, 0x90, 0xFF, 0x66, 0xE8), ids="{:02x}".format)
def test_execution_at_the_end_of_ram_and_of_the_address_space(rip: int, octet: int) -> None:
    """Fetches beyond RAM see ones; the address space ends in #GP."""
    prepare(rip, 0, False)
    MACHINE.memory[0xFFF00 : MACHINE.processor.ram_bytes] = octet
    MACHINE.cpu.rip = rip
    finish()
