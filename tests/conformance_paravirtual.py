"""Random hypercalls of memory for as long as one likes: page types, counts and tables against the model of the rules.

python tests/conformance_paravirtual.py --sequences 1000 --seed 7
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from page_type_player import OPERATION, Player

WITHOUT_LIMITS = {"deadline": None, "suppress_health_check": list(HealthCheck)}
LEAST, MOST = 20, 60  # operations of a sequence


def run(pae: bool, sequences: int, number: int, answers: Counter[str]) -> None:
    """So many sequences under one format of page tables; the first that differs is raised."""

    @seed(number)
    @settings(max_examples=sequences, phases=[Phase.generate], database=None, **WITHOUT_LIMITS)
    @given(operations=st.lists(OPERATION, min_size=LEAST, max_size=MOST))
    def play(operations: list) -> None:
        player = Player(pae)
        for name, *arguments in operations:
            player.play(name, *arguments)
        answers.update(player.answers)
        answers["sequences"] += 1

    play()


def main() -> int:
    """Command line; status 1 if anything differed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sequences", type=int, default=500, help="of each format of page tables")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    for pae in (False, True):
        began, answers, name = time.monotonic(), Counter[str](), "PAE" if pae else "2-level"
        try:
            run(pae, options.sequences, options.seed, answers)
        except AssertionError as error:
            print(f"{name} page tables differ from the model: {error}")
            return 1
        count, seconds = answers.pop("sequences"), time.monotonic() - began
        print(f"{name}: {count} sequences, {answers.total()} hypercalls as the model says, seed {options.seed}, {seconds:.0f} s")
        print("  " + ", ".join(f"{number} {answer}" for answer, number in answers.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
