"""A slice of the fuzzer over hostile guests (`make fuzz` runs it for long): a few seeds, also with bounds checks on."""

import pytest
from fuzz_hostile import Fuzzer, run_seed

from x86virt.core.jit import BOUNDSCHECK, JIT_DISABLED

SEEDS = (1001, 1002, 1003)
INSTRUCTIONS = 20_000 if JIT_DISABLED else 100_000 if BOUNDSCHECK else 300_000


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_guests_end_by_name(seed: int) -> None:
    tally = run_seed(seed, INSTRUCTIONS)
    assert tally.instructions >= INSTRUCTIONS
    again = sum(count for kind, count in tally.kinds.items() if kind.startswith("again"))
    assert tally.cases + again == sum(tally.outcomes.values()) > 0


def test_a_case_is_the_same_each_time() -> None:
    """What a failure prints reproduces it: a case does not depend on those before."""
    after_others = Fuzzer(7)
    for number in range(8):
        after_others.case(number)
    before = after_others.tally.instructions
    after_others.case(8)
    alone = Fuzzer(7)
    alone.case(8)
    assert alone.tally.instructions == after_others.tally.instructions - before
