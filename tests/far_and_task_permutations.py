"""The long runs of the permutation suites, with their counts (`make permutations`); the test suite runs a slice of each.

python tests/permutations.py [tasks] [far] [--random N] [--seed N]
"""

import argparse
import sys
import time

import far_cases
import task_cases

SUITES = {"tasks": task_cases, "far": far_cases}


def main() -> int:
    """Run the suites; 1 if any case differs from its model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(SUITES)}; all without any")
    parser.add_argument("--random", type=int, default=100_000, help="random cases of each suite")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    failed = 0
    for name in arguments.suites or SUITES:
        suite = SUITES[name]
        bench = task_cases.Bench()
        groups = [(group, cases()) for group, cases in suite.GROUPS.items()]
        groups.append((f"random, seed {arguments.seed}", suite.random_cases(arguments.seed, arguments.random)))
        for group, cases in groups:
            start = time.monotonic()
            count, failures = suite.run_cases(bench, cases)
            print(f"{name}: {group}: {count} cases, {len(failures)} differences, {time.monotonic() - start:.0f} s", flush=True)
            print("".join(f"    {text}\n" for text in failures[:10]), end="")
            failed += len(failures)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
