"""A slice of `fuzz_instructions`: some thousands of random instructions of every row, in both code and stack sizes."""

import pytest
from fuzz_instructions import COMPARED, EXCLUSIONS, Fuzzer, exclusion


@pytest.mark.parametrize("seed", (1, 2))
def test_random_instructions_do_what_unicorn_does(seed: int) -> None:
    """No divergence, and nearly every row taken."""
    fuzzer = Fuzzer(seed)
    fuzzer.run(2000)
    assert not fuzzer.divergences, fuzzer.divergences[0]
    assert len(fuzzer.counts) > 0.95 * len(COMPARED)
    assert sum(fuzzer.excluded.values()) < 100


def test_a_planted_difference_is_found() -> None:
    """The comparison can fail: Unicorn with a wrong EAX diverges."""
    fuzzer = Fuzzer(1)
    original = fuzzer.machines.theirs

    def wrong(*arguments):
        """Unicorn's answer with EAX off by one."""
        fault, registers, eip, eflags = original(*arguments)
        return fault, [registers[0] ^ 1, *registers[1:]], eip, eflags

    fuzzer.machines.theirs = wrong
    fuzzer.run(100)
    assert "registers" in fuzzer.divergences[0]


def test_every_exclusion_is_named() -> None:
    """What is left out by case has its reason in EXCLUSIONS or is undefined by the manual."""
    fuzzer = Fuzzer(5)
    seen = set()
    for number in range(30000):
        case, sizes = fuzzer.generator.case(number % 2 == 0, number % 4 < 2)
        seen.add(exclusion(case, sizes))
    assert {"enter", "ret", "lock neg"} <= seen
    assert all(not name or name in EXCLUSIONS or "16" in name for name in seen)
