"""The fuzzer over hostile domains: `python -m tests.fuzz_domains --kernels 3000 --seed 1` (`make fuzz-domains`).

Each kernel is a few steps in ring 1 or ring 3: hypercalls with numbers, pointers, frames and selectors at random, stores, bad
stacks, random instructions; under 32-bit and PAE paging, alone or with domain 0 beside it. Every run must end in a named outcome,
with the VMM's own memory as it was and every frame counted for what it is. A part of them runs again in slices, and must come
to the same ticks and ledger. What does not prints `--seed N --kernels 1`.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from paravirtual_kernel import (
    DATA,
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING3_DS,
    FREE,
    GDT,
    KERNEL_STACK,
    LDT,
    START,
    STEPS,
    USER_STACK,
    Kernel,
    Step,
    frame_of,
    hypercall,
    start,
)
from small_kernel import ESP, mov, push, store

from x86virt import Machine, find_strategy
from x86virt.core.layout import NEVER
from x86virt.machine import TICKS
from x86virt.vmm import layout as region
from x86virt.vmm.paravirtual import layout
from x86virt.vmm.paravirtual.interface import HYPERCALLS

OUTCOMES = ("exited ", "crashed: ", "halted", "reset", "budget", "halted_forever", "unsupported: ", "shut_down ")
PLACES = (DATA, DATA + 0x800, FREE, GDT, LDT, KERNEL_STACK, USER_STACK, START, STEPS, 0x700000, 0xFC000000, 0xFBFFFFFE)
NUMBERS = (0x7FF0, 0x7FF1, 0x7FF2, 0x7FF4, 1 << 31, 0xFFFFFFFF, 0xFFC00000, 0xFF800000)
SELECTORS = (FLAT_RING1_CS, FLAT_RING1_DS, FLAT_RING3_DS, 0xFFC0, 0xFFC8, 7)
CALLS = sorted(HYPERCALLS)
MAX_CYCLES = 3_000_000
SLICED = 8  # one kernel of so many runs again, in slices
WITH_DOMAIN_0 = 4  # and so many have domain 0 beside them
OTHER = "paravirtual,p2m=contiguous"


def value(rng: random.Random) -> int:
    """An argument, or a word in memory."""
    kind = rng.randrange(8)
    if kind < 2:
        return rng.randrange(13)
    if kind == 2:
        return rng.getrandbits(32)
    if kind == 3:
        return rng.choice(PLACES) + rng.choice((0, 0, 4, 1, 0xFFC))
    if kind == 4:
        return frame_of(rng.randrange(0x800) << 12) << 12 | rng.choice((0, 1, 2, 8, 0x67))
    if kind == 5:
        return frame_of(rng.randrange(0x800) << 12)
    return rng.choice((*NUMBERS, *SELECTORS, rng.randrange(0x400)))


def piece(rng: random.Random) -> bytes:
    """A piece of code in ring 1."""
    kind = rng.randrange(8)
    if kind < 5:
        number = rng.choice(CALLS) if rng.random() < 0.95 else rng.randrange(80)
        return hypercall(number, *(value(rng) & 0xFFFFFFFF for _ in range(5)))
    if kind < 7:
        return store(DATA + 4 * rng.randrange(1024), value(rng))
    return mov(ESP, value(rng)) + push(value(rng)) + mov(ESP, KERNEL_STACK)


def random_kernel(rng: random.Random) -> Kernel:
    """A kernel of up to a dozen steps."""
    steps = []
    for _ in range(rng.randrange(1, 13)):
        tail = rng.randbytes(rng.randrange(1, 7)) if rng.random() < 0.3 else b""
        ring = 3 if rng.random() < 0.15 else 1
        body = b"" if ring == 3 else b"".join(piece(rng) for _ in range(rng.randrange(6)))
        steps.append(Step(body + tail, ring))
    return Kernel(steps, is_pae=rng.random() < 0.4)


def vmm_memory(machine: Machine) -> list[bytes]:
    """What of the VMM's region nothing that a domain does may change: its code, gates, segments and page tables."""
    memory = machine.vm.processor.memory
    own_page = region.GDT + 0xF000
    idt = memory[region.IDT : region.IDT + 2048].copy()
    idt[8 * 0x80 : 8 * 0x81] = 0
    places = ((region.ENTRIES, 0x2000), (region.REGION_TABLE, 0x1000), (region.GDT, 0x1000 * layout.N_DOMAINS))
    places += (
        (own_page, region.VMM_TSS_SELECTOR - 0xF000),
        (layout.MACHPHYS_TABLES, 0x1000),
        (layout.TSS + 104, 0xF98),
    )
    return [idt.tobytes(), *(memory[place : place + count].tobytes() for place, count in places)]


def strategy(rng: random.Random):
    """The strategy, with domain 0 or without it."""
    return find_strategy(OTHER if rng.randrange(WITH_DOMAIN_0) == 0 else f"{OTHER},domain_0=off")()


def check(machine: Machine, outcome: str, untouched: list[bytes]) -> None:
    """Nothing was harmed."""
    assert outcome.startswith(OUTCOMES), outcome
    assert vmm_memory(machine) == untouched, "the VMM's memory was changed"
    if not outcome.startswith("crashed"):
        faults = machine.vm.faults()
        assert not faults, faults
    owners = machine.vm.frames[: region.VMM_BYTES >> 12]["owner"]
    assert set(owners.tolist()) <= {0, 1, 0x7FF2}, "a page of the VMM's is nobody's"


def run_kernel(seed: int, tally: Counter[str]) -> None:
    """One kernel by its seed."""
    rng = random.Random(seed)
    kernel = random_kernel(rng)
    chosen = rng.getstate()
    machine = start(kernel, strategy(rng))
    untouched = vmm_memory(machine)
    result = machine.run(MAX_CYCLES)
    check(machine, result.outcome, untouched)
    tally[result.outcome.split(":")[0]] += 1
    tally["hypercalls"] += int(machine.vm.xen.calls.sum())
    tally["refused"] += int(machine.vm.xen.refused.sum())
    if seed % SLICED == 0:
        rng.setstate(chosen)
        again = start(kernel, strategy(rng))
        while again.advance(NEVER, MAX_CYCLES, int(again.processor.cpu.ticks) // TICKS + rng.randrange(1, 20_000)):
            pass
        sliced = again.result()
        same = (sliced.outcome, sliced.ticks, sliced.ledger) == (result.outcome, result.ticks, result.ledger)
        assert same, "in slices it comes to something else"
        tally["sliced"] += 1


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kernels", type=int, default=3000)
    arguments = parser.parse_args()
    tally: Counter[str] = Counter()
    began = time.monotonic()
    for seed in range(arguments.seed, arguments.seed + arguments.kernels):
        try:
            run_kernel(seed, tally)
        except BaseException:
            print(f"FAILED: --seed {seed} --kernels 1", file=sys.stderr)
            raise
    print(f"{arguments.kernels} kernels from seed {arguments.seed} on: {time.monotonic() - began:.0f} s")
    print("  " + ", ".join(f"{count} {name}" for name, count in tally.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
