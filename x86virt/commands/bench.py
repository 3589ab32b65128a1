"""`x86virt bench`: the benchmark suites, and the emulator's own speed."""

from collections.abc import Sequence
from typing import Any

import click

from ..api import Setup
from .options import ALL, given, machine_options, make_setups, strategy_option
from .output import SCHEMA_VERSION, get_ready, say, show, status_of_rows, write_json


@click.command("bench")
@click.argument("suite", default="syscall")
@strategy_option((ALL,))
@machine_options
@click.option("--iterations", type=click.IntRange(1, 0xFFFFFFFF), help="Instead of each benchmark's own number.")
@click.option("--cold", is_flag=True, help="`speed` only: measure compilation from an empty cache too.")
def bench_command(
    suite: str, strategies: Sequence[str], json_file: str | None, iterations: int | None, cold: bool, **machine: Any
) -> int:
    """Run the benchmarks of SUITE (syscall, unix, micro, block, lmbench, optimisations, vmexit, speed): where did the cycles go?

    `optimisations` runs the software VMMs with each choice off, or made otherwise, unless strategies are named; `vmexit`
    the hardware-assisted ones, on every profile unless one is named; `lmbench` the techniques of a publication at its clock.
    """
    from ..block import NAME as BLOCK
    from ..block import STRATEGIES as WITH_DISKS
    from ..block import show_block
    from ..lmbench import NAME as LMBENCH
    from ..lmbench import STRATEGIES as PUBLISHED
    from ..lmbench import clock_of, on_that_machine, show_lmbench
    from ..optimisations import NAME as OPTIMISATIONS
    from ..optimisations import STRATEGIES as CHOICES
    from ..optimisations import show_optimisations
    from ..report import show_suite
    from ..suites import measure
    from ..suites import suite as suite_named
    from ..vmexit import NAME as VMEXIT
    from ..vmexit import STRATEGIES as ASSISTED
    from ..vmexit import show_vmexit

    if suite == "speed":
        return bench_speed(strategies, json_file, cold, machine)
    if cold:
        raise click.UsageError("--cold is for `bench speed`")
    benchmarks = suite_named(suite)
    if tuple(strategies) == (ALL,):
        strategies = {OPTIMISATIONS: CHOICES, VMEXIT: ASSISTED, LMBENCH: PUBLISHED, BLOCK: WITH_DISKS}.get(suite, strategies)
    setups = setups_on_all_profiles(strategies, machine) if suite == VMEXIT else make_setups(strategies, machine)
    if suite == LMBENCH and not given("profile"):
        setups = on_that_machine(setups)
    get_ready()
    rows = measure(benchmarks, setups, iterations, say)
    if json_file is not None:
        write_json(json_file, {"schema_version": SCHEMA_VERSION, "rows": [row.as_json() for row in rows]})
    elif suite == LMBENCH:
        show(show_lmbench(rows, clock_of(setups[0])))
    else:
        show({OPTIMISATIONS: show_optimisations, VMEXIT: show_vmexit, BLOCK: show_block}.get(suite, show_suite)(rows))
    return status_of_rows([row.outcome for row in rows], len(setups))


def setups_on_all_profiles(strategies: Sequence[str], machine: dict[str, Any]) -> list[Setup]:
    """A setup for each strategy on each shipped profile, or on the one that was named."""
    from ..profile import profile_names

    names = [machine["profile"]] if given("profile") else profile_names()
    return [setup for name in names for setup in make_setups(strategies, machine | {"profile": name})]


def bench_speed(strategies: Sequence[str], json_file: str | None, cold: bool, machine: dict[str, Any]) -> int:
    """`bench speed`."""
    setups = make_setups(strategies, machine)
    get_ready()
    from ..speed import measure_speed, show_speed

    rows = measure_speed(setups, cold, say)
    if json_file is not None:
        write_json(json_file, {"schema_version": SCHEMA_VERSION, "rows": [row.as_json() for row in rows]})
    else:
        show(show_speed(rows))
    return status_of_rows([row.outcome for row in rows], len(setups))
