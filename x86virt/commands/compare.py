"""`x86virt compare`: a guest on the bare machine and under a VMM, in lock step."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..api import Setup, compare_setup, make_setup
from ..errors import UnsupportedError
from .options import ALL, NATIVE, machine_options, make_setups, refuse_given, strategy_option
from .output import (
    SCHEMA_VERSION,
    STATUS_DIFFERENT,
    STATUS_DONE,
    STATUS_UNSUPPORTED,
    get_ready,
    run_object,
    say,
    status_of,
    write_json,
)

if TYPE_CHECKING:
    from ..equivalence import Comparison
    from ..start.boot import Bootable

LONGEST_LINE = 170


@click.command("compare")
@click.argument("guest")
@strategy_option((ALL,))
@machine_options
@click.option("-c", "--command-line", default="", help="The guest's command line, such as iterations=10.")
@click.option("--tlb", is_flag=True, help="Compare the bare machine with itself under other TLBs instead.")
def compare_command(
    guest: str, strategies: Sequence[str], command_line: str, json_file: str | None, tlb: bool, **machine: Any
) -> int:
    """Run GUEST on the bare machine and under each strategy, in lock step; status 1 if their states differ.

    A guest of interrupts and time: the bare machine is given those of the strategy, and must accept them. Under a VMM whose
    guests are ported to it two builds run, which must agree on the end, the console, the disks and the guest's results.
    """
    from ..guests import find_guest

    image = find_guest(guest)
    if tlb:
        refuse_given(("strategies", "cache_model"), "has no meaning with --tlb, which compares the bare machine with itself")
        return compare_tlbs(image, command_line, json_file, machine)
    setups = [setup for setup in make_setups(strategies, machine) if setup.name != NATIVE]
    if not setups:
        raise click.UsageError("nothing to compare: native is what the others are compared with")
    get_ready()
    runs: list[dict[str, Any]] = []
    differences: dict[str, Any] = {}
    equal, status = True, STATUS_DONE
    for setup in setups:
        say(f"{image.name} under {setup.name}, {setup.profile.name}")
        try:
            comparison = compare_setup(setup, image, command_line)
        except UnsupportedError as error:
            if len(setups) == 1:
                raise
            differences[setup.name] = {"equal": None, "unsupported": error.what}
            continue
        bare = make_setup(NATIVE, setup.profile)
        runs = runs or [run_object(image.name, bare, comparison.native)]
        runs.append(run_object(image.name, setup, comparison.other))
        differences[setup.name] = {
            "equal": comparison.equal,
            "checkpoints": comparison.checkpoints,
            "held_to": comparison.held_to or "every state",
            "interrupts_replayed": comparison.deliveries,
            "time_reads_replayed": comparison.time_reads,
            "report": list(comparison.report),
            "divergences": [str(divergence) for divergence in comparison.divergences],
        }
        if json_file is None:
            show_comparison(setup, comparison)
        if comparison.other.outcome.startswith("unsupported"):
            status = status or (STATUS_UNSUPPORTED if len(setups) == 1 else STATUS_DONE)
            continue
        equal = equal and comparison.equal
        for result in (comparison.native, comparison.other):
            status = status or status_of(result.outcome, result.exit_code)
    if json_file is not None:
        head = {"schema_version": SCHEMA_VERSION, "guest": image.name, "equal": equal}
        write_json(json_file, {**head, "runs": runs, "differences": differences})
    return status if equal else STATUS_DIFFERENT


def compare_tlbs(image: "Bootable", command_line: str, json_file: str | None, machine: dict[str, Any]) -> int:
    """`compare --tlb`: does the guest keep the TLB rules?"""
    from ..profile import load_profile

    profile = load_profile(machine["profile"])
    get_ready()
    from ..discipline import tlb_discipline

    rows = tlb_discipline(image, profile, machine["memory"], command_line, machine["max_cycles"])
    for row in rows if json_file is None else ():
        verdict = "DIFFERENT" if row.differences else "the same"
        what = "verdict" if row.verdict_only else "state"
        click.echo(f"TLB {row.variant}: {verdict} {what}, {row.walks} walks")
        for name, here, there in row.differences:
            click.echo(f"  {name}: {here}, with the profile's TLBs {there}"[:LONGEST_LINE])
    if json_file is not None:
        write_json(
            json_file,
            {
                "schema_version": SCHEMA_VERSION,
                "guest": image.name,
                "tlb": [
                    {
                        "variant": row.variant,
                        "equal": not row.differences,
                        "verdict_only": row.verdict_only,
                        "walks": row.walks,
                        "differences": [list(difference) for difference in row.differences],
                    }
                    for row in rows
                ],
            },
        )
    return STATUS_DIFFERENT if any(row.differences for row in rows) else STATUS_DONE


def show_comparison(setup: Setup, comparison: "Comparison") -> None:
    """What a comparison found."""
    verdict = "the same as native" if comparison.equal else "DIFFERENT"
    where = f"at {comparison.checkpoints} checkpoints and the end" if comparison.equal else "from native"
    if comparison.equal and comparison.held_to:
        where = f"in {comparison.held_to}; the builds differ"
    if comparison.equal and (comparison.deliveries or comparison.time_reads):
        where += f", given its {comparison.deliveries} interrupts and {comparison.time_reads} reads of time"
    click.echo(f"{setup.name}, {setup.profile.name}: {verdict} {where}")
    for line in comparison.report:
        click.echo(f"  {line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + '...'}")
