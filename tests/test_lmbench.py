"""`bench lmbench`: microseconds at the clock of the publication's machine, beside what was published."""

import functools
import io
from fractions import Fraction

import pytest
from rich.console import Console

from x86virt import lmbench
from x86virt.api import make_setup
from x86virt.cli import main
from x86virt.profile import load_profile
from x86virt.suites import UNIX, Row, measure, suite

OTHER = "trap-and-emulate"  # of which nothing was published


@functools.cache
def rows() -> tuple[Row, ...]:
    """Of the bare machine and one VMM, few iterations."""
    setups = lmbench.on_that_machine([make_setup(name) for name in (lmbench.NATIVE, OTHER)])
    return tuple(measure(suite(lmbench.NAME), setups, 2))


def test_the_machine_is_the_profile_at_the_publications_clock() -> None:
    chosen, usual = lmbench.profile(), load_profile(lmbench.PROFILE)
    assert (chosen["cpu.mhz"], usual["cpu.mhz"]) == (2400, 3200)
    assert chosen["sys.exc_pf"] == usual["sys.exc_pf"]
    assert chosen.values["mem.dram_load"].exact == usual.values["mem.dram_load"].exact * Fraction(2400, 3200)
    assert {row.profile for row in rows()} == {lmbench.PROFILE}


def test_every_line_is_of_the_unix_suite_and_has_three_published_figures() -> None:
    marks = {row.name for row in UNIX}
    for line in lmbench.LINES:
        assert set(line.marks) <= marks
        assert all(lmbench.published(line, strategy) for strategy in lmbench.STRATEGIES)
        assert lmbench.published(line, OTHER) is None
    assert lmbench.published(lmbench.LINES[0], "binary-translation,shadow=trace") == Fraction(73, 100)
    assert {row.name for row in lmbench.benchmarks()} == {mark for line in lmbench.LINES for mark in line.marks}


def test_microseconds_are_the_mean_of_a_lines_rows() -> None:
    native = {row.benchmark: row for row in rows() if row.strategy == lmbench.NATIVE}
    null_io = next(line for line in lmbench.LINES if line.name == "null I/O")
    cycles = [native[mark].cycles_per_iteration for mark in ("null_read", "null_write")]
    assert lmbench.microseconds(null_io, native, Fraction(2400)) == Fraction(sum(map(Fraction, cycles)), 2 * 2400)
    lost = {name: Row("", name, "", "", "", 1, "budget") for name in native}
    assert lmbench.microseconds(null_io, lost, Fraction(2400)) is None


def test_the_table_has_ours_and_theirs() -> None:
    file = io.StringIO()
    Console(file=file, width=200).print(lmbench.show_lmbench(rows(), Fraction(2400)))
    text = file.getvalue()
    times, ratios = (line.split()[1:] for line in text.splitlines() if line.strip().startswith("fork "))
    assert times[1] == "(110.00)" and len(times) == 3 and len(ratios) == 1
    assert float(ratios[0]) == pytest.approx(float(times[2]) / float(times[0]), abs=0.01)
    assert "at 2,400 MHz" in text and all(remark[:40] in text for remark in lmbench.REMARKS)


def test_a_profile_that_is_named_is_taken_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "lmbench", "-s", "native", "-p", "nehalem", "--iterations", "1"]) == 0
    assert "nehalem at 2,667 MHz" in capsys.readouterr().out
