"""Put measured figures into the README (`make readme`), between its marks `<!-- NAME -->` and `<!-- /NAME -->`.

python benchmarks/readme.py            the syscall table, which is the same on every host
python benchmarks/readme.py --check    exit with 1 if that table is not current
python benchmarks/readme.py --speed    the longer tables too (what each optimisation buys, the published figures), the speed of
                                       the emulator on this host, and of the others that are installed
"""

import argparse
import io
import pathlib
import re
import sys

from rich.console import Console, RenderableType
from x86virt.benchmarks import bench_speed

from x86virt import block, lmbench, vmexit
from x86virt.api import bench, make_setup
from x86virt.catalogue import catalogue
from x86virt.optimisations import STRATEGIES as CHOICES
from x86virt.optimisations import benchmarks, show_optimisations
from x86virt.report import plain_table, show_suite
from x86virt.speed import measure_speed, show_speed
from x86virt.suites import measure
from x86virt.validation.freeze import read_freezes
from x86virt.validation.judge import judge
from x86virt.validation.plan import chosen_rows, shipped_plan
from x86virt.validation.predict import Predictor
from x86virt.validation.show import show_validation

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"
STRATEGIES = ("native", "trap-and-emulate")
PUBLISHED = "aa06.nano.*.sw"
ASSISTED = "aa06.nano.*.hw"
FURTHER_SPEED = (
    ("paravirtual", "p4_prescott"), ("vtx-shadow", "nehalem"), ("vtx-ept", "nehalem"), ("svm-npt", "k10_barcelona"),
)  # fmt: skip
WITH_NESTED_PAGING = {"nehalem": "vtx-", "k10_barcelona": "svm-"}  # whose extension the strategies' names begin with


def as_text(renderable: RenderableType) -> str:
    """A table as plain text without blanks at the ends of lines."""
    file = io.StringIO()
    Console(file=file, width=150, color_system=None, markup=False, emoji=False, highlight=False).print(renderable)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip()


def with_block(text: str, name: str, content: str) -> str:
    """The README's text with the block of that name replaced. Raises ValueError if it has no such block."""
    pattern = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"README.md has no block {name}")
    return pattern.sub(lambda found: f"{found[1]}```\n{content}\n```\n{found[2]}", text)


def syscall_table() -> str:
    """The table that `make bench` prints."""
    return as_text(show_suite(bench("syscall", STRATEGIES)))


def optimisations_table() -> str:
    """The table that `x86virt bench optimisations` prints."""
    return as_text(show_optimisations(measure(benchmarks(), [make_setup(strategy) for strategy in CHOICES])))


def published_table(rows: str) -> str:
    """What `x86virt validate --id ROWS` prints."""
    plan = shipped_plan()
    return as_text(show_validation(judge(chosen_rows((rows,)), plan, Predictor(plan), read_freezes()), False))


def vmexit_table() -> str:
    """What `x86virt bench vmexit` prints of two processors."""
    setups = [
        make_setup(strategy, profile)
        for profile, extension in WITH_NESTED_PAGING.items()
        for strategy in vmexit.STRATEGIES
        if strategy.startswith((extension, "native"))
    ]
    return as_text(vmexit.show_vmexit(measure(vmexit.benchmarks(), setups)))


def lmbench_table() -> str:
    """What `x86virt bench lmbench` prints."""
    setups = lmbench.on_that_machine([make_setup(strategy) for strategy in lmbench.STRATEGIES])
    return as_text(lmbench.show_lmbench(measure(lmbench.benchmarks(), setups), lmbench.clock_of(setups[0])))


def block_table() -> str:
    """What `x86virt bench block` prints of the techniques that its processor has."""
    setups = [make_setup(strategy) for strategy in block.STRATEGIES if not strategy.startswith("vtx-")]
    return as_text(block.show_block(measure(block.benchmarks(), setups)))


def ports_table() -> str:
    """What `x86virt list ports` prints."""
    columns, rows = catalogue("ports")
    table = plain_table(columns)
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    return as_text(table)


def speed_table(cold: bool) -> str:
    """The table that `x86virt bench speed` prints."""
    setups = [make_setup(strategy) for strategy in (*STRATEGIES, "binary-translation")]
    setups += [make_setup(strategy, profile) for strategy, profile in FURTHER_SPEED]
    return as_text(show_speed(measure_speed(setups, cold, lambda line: print(line, file=sys.stderr))))


def comparison_table() -> str:
    """The table that `make bench-speed` prints."""
    return as_text(bench_speed.show(*bench_speed.measure()))


def main() -> int:
    """Command line: `--check`, `--speed`. The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    parser.add_argument("--speed", action="store_true", help="measure this host too, a cold start included")
    options = parser.parse_args()
    before = README.read_text(encoding="utf-8")
    after = with_block(before, "syscall", syscall_table())
    if options.check:
        if after != before:
            print("README.md: the syscall table is not current; run `make readme`", file=sys.stderr)
        return int(after != before)
    if options.speed:
        after = with_block(after, "optimisations", optimisations_table())
        after = with_block(after, "published", published_table(PUBLISHED))
        after = with_block(after, "assisted", published_table(ASSISTED))
        after = with_block(after, "vmexit", vmexit_table())
        after = with_block(after, "lmbench", lmbench_table())
        after = with_block(after, "block", block_table())
        after = with_block(after, "ports", ports_table())
        after = with_block(after, "speed", speed_table(cold=True))
        after = with_block(after, "comparison", comparison_table())
    README.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
