"""The command line. Results go to stdout, progress to stderr; each command is a library call of `x86virt.api`.

Exit status: 0 done; 1 a comparison did not hold; 2 bad usage or bad input; 3 the guest ended badly; 4 the budget is
spent; 5 the one strategy asked for cannot run this guest or profile.
"""

import contextlib
import json
import pathlib
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from .api import DEFAULT_MAX_CYCLES, DEFAULT_PROFILE, Setup, compare_setup, make_setup, passed
from .errors import UnsupportedError, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from .equivalence import Comparison
    from .loader import Image
    from .machine import Machine, RunResult

SCHEMA_VERSION = 1
STATUS_DONE, STATUS_DIFFERENT, STATUS_BAD_INPUT, STATUS_GUEST, STATUS_BUDGET, STATUS_UNSUPPORTED = range(6)
SMALLEST_MEMORY, LARGEST_MEMORY = 1 << 20, 2 << 30
PAGE_BYTES = 4096
LONGEST_LINE = 170
UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
ALL = "all"
NATIVE = "native"


class MemorySize(click.ParamType):
    """A size such as 16M or 1G, in bytes: whole pages between 1M and 2G."""

    name = "SIZE"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """The bytes; fails with one line."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d{1,12})\s*([KMG])(i?B)?", value.strip(), re.IGNORECASE | re.ASCII)
        if found is None:
            self.fail(f"{value!r} is not a size; give a number and K, M or G, such as 16M", parameter, context)
        size = int(found[1]) * UNITS[found[2].upper()]
        if not SMALLEST_MEMORY <= size <= LARGEST_MEMORY:
            self.fail(f"{value} is out of range; give at least 1M and at most 2G", parameter, context)
        if size % PAGE_BYTES:
            self.fail(f"{value} is not a multiple of 4K; give whole pages", parameter, context)
        return size


class JsonFile(click.ParamType):
    """Where JSON goes: a file that can be made, or `-`."""

    name = "FILE|-"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """The path as given; fails with one line."""
        path = pathlib.Path(value)
        if value != "-" and (path.is_dir() or not path.absolute().parent.is_dir()):
            self.fail(f"{value} cannot be written; give a file in a folder that exists, or -", parameter, context)
        return str(value)


class OutputFile(click.ParamType):
    """A file that can be made."""

    name = "FILE"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> str:
        """The path as given; fails with one line."""
        path = pathlib.Path(value)
        if path.is_dir() or not path.absolute().parent.is_dir():
            self.fail(f"{value} cannot be written; give a file in a folder that exists", parameter, context)
        return str(value)


def strategy_option(default: tuple[str, ...]) -> Callable[..., Any]:
    """`--strategy`, which may be repeated."""
    text = "A strategy's name, `all`, or path/to/file.py:Class; may be repeated."
    return click.option(
        "-s", "--strategy", "strategies", multiple=True, default=default, metavar="NAME|all|FILE:CLASS", help=text,
        show_default=True,
    )  # fmt: skip


def machine_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say what machine the guest gets."""
    for option in (
        click.option("--json", "json_file", type=JsonFile(), help="Write JSON there instead of a table to stdout."),
        click.option(
            "--max-cycles", type=click.IntRange(1, 1 << 56), default=DEFAULT_MAX_CYCLES, show_default=True,
            help="End the run after that many simulated cycles (status 4).",
        ),
        click.option("--memory", type=MemorySize(), default="16M", show_default=True, help="The guest's RAM."),
        click.option(
            "--cache-model", type=click.Choice(["tables", "all"]), default="tables", show_default=True,
            help="What goes through the cache model: page tables, or all data too.",
        ),
        click.option(
            "-p", "--profile", default=DEFAULT_PROFILE, show_default=True, metavar="NAME|FILE.toml",
            help="The processor: a profile's name or file.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="x86virt")
def cli() -> None:
    """An x86 machine simulated cycle by cycle, whose hypervisor is a plug-in."""


@cli.command("run")
@click.argument("guest", required=False)
@strategy_option(())
@machine_options
@click.option("-c", "--command-line", default="", help="The guest's command line, such as iterations=1000.")
@click.option("--check-isolation", is_flag=True, help="Check every access of the guest's against the owners of frames.")
@click.option("--save", "save_file", type=OutputFile(), help="Save the whole machine there at --save-at, and go on.")
@click.option("--save-at", type=click.IntRange(1, 1 << 56), metavar="CYCLES", help="When to save.")
@click.option("--restore", "restore_file", metavar="FILE", help="Go on with a saved machine, instead of GUEST.")
@click.option("--record", "record_file", type=OutputFile(), help="Keep the interrupts and time reads of the run (JSON).")
@click.option("--replay", "replay_file", metavar="FILE", help="Give a record to the bare machine, which must accept it.")
def run_command(
    guest: str | None,
    strategies: Sequence[str],
    command_line: str,
    json_file: str | None,
    save_file: str | None,
    save_at: int | None,
    restore_file: str | None,
    record_file: str | None,
    replay_file: str | None,
    **machine: Any,
) -> int:
    """Run GUEST (a shipped guest's name or the path of a Multiboot image) to its end."""
    check_run_options(guest, save_file, save_at, restore_file, record_file, replay_file)
    if restore_file is not None:
        refuse_given(("memory", "cache_model", "command_line", "check_isolation"), "stands in the file of --restore")
        return run_restored(restore_file, strategies, save_file, save_at, json_file, machine)
    from .guests import find_guest

    image = find_guest(str(guest))
    setups = make_setups(strategies or (NATIVE,), machine)
    if (save_file or record_file or replay_file) and len(setups) > 1:
        raise click.UsageError("--save, --record and --replay take one strategy")
    get_ready()
    if replay_file is not None:
        refuse_given(("command_line",), "stands in the file of --replay")
        return run_replayed(setups[0], image, replay_file, json_file)
    statuses, objects = [], []
    for setup in setups:
        try:
            result = run_one(setup, image, command_line, save_file, save_at, record_file)
        except UnsupportedError as error:
            if len(setups) == 1:
                raise
            say(str(error))
            continue
        statuses.append(status_of(result.outcome, result.exit_code))
        objects.append(run_object(image.name, setup, result))
        if json_file is None:
            show_result(image.name, setup, result)
        say_outcome(result)
    if json_file is not None:
        whole = {"schema_version": SCHEMA_VERSION, "runs": objects}
        write_json(json_file, objects[0] if len(objects) == 1 else whole)
    return next((status for status in statuses if status), STATUS_DONE)


def check_run_options(
    guest: str | None, save: str | None, save_at: int | None, restore: str | None, record: str | None, replay: str | None
) -> None:
    """Which options of `run` go together."""
    if (guest is None) == (restore is None):
        raise click.UsageError("give a GUEST, or a saved machine by --restore FILE")
    if (save is None) != (save_at is None):
        raise click.UsageError("--save FILE and --save-at CYCLES go together")
    if sum(option is not None for option in (save, record, replay)) > 1 or (restore and (record or replay)):
        raise click.UsageError("--save or --restore, --record and --replay exclude each other")


def given(name: str) -> bool:
    """Whether a parameter was given on the command line."""
    return click.get_current_context().get_parameter_source(name) is not click.core.ParameterSource.DEFAULT


def refuse_given(names: Sequence[str], why: str) -> None:
    """Refuse options that would have no effect."""
    for name in names:
        if given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} {why}: leave it out")


def run_one(
    setup: Setup, image: "Image", command_line: str, save_file: str | None, save_at: int | None, record_file: str | None
) -> "RunResult":
    """One guest under one strategy, saved or recorded on the way if that is asked for."""
    if record_file is not None:
        from .replay import record, write_log

        result, log = record(setup, image, command_line)
        write_log(log, record_file)
        say(f"{record_file}: {len(log.deliveries)} interrupts, {len(log.reads)} reads of time")
        return result
    if save_file is None:
        return setup.run(image, command_line)
    from .api import strategy_errors

    with strategy_errors(setup.name):
        machine = setup.machine()
        machine.load(image, command_line)
        return finish_and_save(machine, save_file, save_at, setup.max_cycles)


def finish_and_save(machine: "Machine", save_file: str, save_at: int | None, max_cycles: int | None) -> "RunResult":
    """Run to a cycle, save, run to the end."""
    from .core.layout import NEVER
    from .saved import save_machine

    if machine.advance(NEVER, max_cycles, save_at):
        save_machine(machine, save_file)
        say(f"{save_file}: saved at cycle {int(machine.processor.cpu.ticks) // 64}")
    else:
        say(f"{save_file}: not written, the run ended before cycle {save_at}")
    return machine.run(max_cycles)


def run_restored(
    path: str, strategies: Sequence[str], save_file: str | None, save_at: int | None, json_file: str | None,
    options: dict[str, Any],
) -> int:  # fmt: skip
    """`run --restore`: what the machine is stands in the file; a profile or strategy of the user's own is given again."""
    from .api import strategy_errors

    get_ready()
    from .profile import load_profile
    from .saved import restore_machine
    from .vmm.registry import find_strategy

    if len(strategies) > 1:
        raise click.UsageError("--restore takes one strategy")
    machine = restore_machine(
        path,
        load_profile(options["profile"]) if given("profile") else None,
        find_strategy(strategies[0]) if strategies else None,
    )
    setup = Setup(
        type(machine.strategy), machine.profile, machine.memory_bytes, options["max_cycles"], machine.cache_model
    )
    with strategy_errors(setup.name):
        if save_file is not None:
            result = finish_and_save(machine, save_file, save_at, setup.max_cycles)
        else:
            result = machine.run(setup.max_cycles)
    return show_run_of(machine.guest[0], setup, result, json_file)


def run_replayed(setup: Setup, image: "Image", path: str, json_file: str | None) -> int:
    """`run --replay`: status 1 if the bare machine does not accept the log."""
    from .replay import ReplayError, read_log, replay

    if setup.name != NATIVE:
        raise click.UsageError("--replay gives a record to the bare machine: --strategy native")
    log = read_log(path)
    try:
        machine = replay(setup, image, log)
    except ReplayError as error:
        say(f"{path}: the bare machine refuses it: {error}")
        return STATUS_DIFFERENT
    say(f"{path}: accepted, {len(log.deliveries)} interrupts and {len(log.reads)} reads of time")
    return show_run_of(image.name, setup, machine.result(), json_file)


def show_run_of(guest: str, setup: Setup, result: "RunResult", json_file: str | None) -> int:
    """A run's table or JSON, and its status."""
    if json_file is not None:
        write_json(json_file, run_object(guest, setup, result))
    else:
        show_result(guest, setup, result)
    say_outcome(result)
    return status_of(result.outcome, result.exit_code)


@cli.command("bench")
@click.argument("suite", default="syscall")
@strategy_option((ALL,))
@machine_options
@click.option("--iterations", type=click.IntRange(1, 0xFFFFFFFF), help="Instead of each benchmark's own number.")
@click.option("--cold", is_flag=True, help="`speed` only: measure compilation from an empty cache too.")
def bench_command(
    suite: str, strategies: Sequence[str], json_file: str | None, iterations: int | None, cold: bool, **machine: Any
) -> int:
    """Run the benchmarks of SUITE (syscall, micro, speed) and say where the cycles went."""
    from .suites import measure
    from .suites import suite as suite_named

    if suite == "speed":
        return bench_speed(strategies, json_file, cold, machine)
    if cold:
        raise click.UsageError("--cold is for `bench speed`")
    benchmarks = suite_named(suite)
    setups = make_setups(strategies, machine)
    get_ready()
    rows = measure(benchmarks, setups, iterations, say)
    if json_file is not None:
        write_json(json_file, {"schema_version": SCHEMA_VERSION, "rows": [row.as_json() for row in rows]})
    else:
        from .report import show_suite

        show(show_suite(rows))
    return status_of_rows([row.outcome for row in rows], len(setups))


def bench_speed(strategies: Sequence[str], json_file: str | None, cold: bool, machine: dict[str, Any]) -> int:
    """`bench speed`."""
    setups = make_setups(strategies, machine)
    get_ready()
    from .speed import measure_speed, show_speed

    rows = measure_speed(setups, cold, say)
    if json_file is not None:
        write_json(json_file, {"schema_version": SCHEMA_VERSION, "rows": [row.as_json() for row in rows]})
    else:
        show(show_speed(rows))
    return status_of_rows([row.outcome for row in rows], len(setups))


@cli.command("compare")
@click.argument("guest")
@strategy_option((ALL,))
@machine_options
@click.option("-c", "--command-line", default="", help="The guest's command line, such as iterations=10.")
@click.option("--tlb", is_flag=True, help="Compare the bare machine with itself under other TLBs instead.")
def compare_command(
    guest: str, strategies: Sequence[str], command_line: str, json_file: str | None, tlb: bool, **machine: Any
) -> int:
    """Run GUEST on the bare machine and under each strategy, in lock step; status 1 if their states differ.

    A guest of interrupts and time: the bare machine is given those of the strategy, and must accept them.
    """
    from .guests import find_guest

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


def compare_tlbs(image: "Image", command_line: str, json_file: str | None, machine: dict[str, Any]) -> int:
    """`compare --tlb`: does the guest keep the TLB rules?"""
    from .profile import load_profile

    profile = load_profile(machine["profile"])
    get_ready()
    from .discipline import tlb_discipline

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
    if comparison.equal and (comparison.deliveries or comparison.time_reads):
        where += f", given its {comparison.deliveries} interrupts and {comparison.time_reads} reads of time"
    click.echo(f"{setup.name}, {setup.profile.name}: {verdict} {where}")
    for line in comparison.report:
        click.echo(f"  {line if len(line) <= LONGEST_LINE else line[:LONGEST_LINE] + '...'}")


LISTS = ("guests", "strategies", "profiles", "suites", "events")


@cli.command("list")
@click.argument("what", type=click.Choice(LISTS), metavar="|".join(LISTS))
@click.option("--json", "json_file", type=JsonFile(), help="Write JSON there instead of a table to stdout.")
def list_command(what: str, json_file: str | None) -> int:
    """List the guests, strategies, profiles, benchmark suites or events that there are."""
    from .catalogue import catalogue
    from .report import plain_table

    columns, rows = catalogue(what)
    if json_file is not None:
        write_json(
            json_file, {"schema_version": SCHEMA_VERSION, what: [dict(zip(columns, row, strict=True)) for row in rows]}
        )
        return STATUS_DONE
    table = plain_table(columns, left=len(columns))
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    show(table)
    return STATUS_DONE


def make_setups(names: Sequence[str], machine: dict[str, Any]) -> list[Setup]:
    """A setup for each strategy asked for, `all` standing for all of them; each once, in the order given."""
    from .profile import load_profile
    from .vmm.registry import strategy_names

    profile = load_profile(machine["profile"])
    wanted = dict.fromkeys(one for name in names for one in (strategy_names() if name == ALL else [name]))
    return [
        make_setup(
            name, profile, machine["memory"], machine["max_cycles"], machine["cache_model"],
            machine.get("check_isolation", False),
        )
        for name in wanted
    ]  # fmt: skip


def get_ready() -> None:
    """Say so if the first run of all is about to compile."""
    from .host import prepare_cache

    notice = prepare_cache()
    if notice:
        say(notice)


def status_of(outcome: str, exit_code: int | None) -> int:
    """The exit status that a guest's end asks for."""
    if passed(outcome, exit_code):
        return STATUS_DONE
    if outcome.startswith("unsupported"):
        return STATUS_UNSUPPORTED
    if outcome.startswith("isolation"):
        return STATUS_DIFFERENT
    return STATUS_BUDGET if outcome == "budget" else STATUS_GUEST


def status_of_rows(outcomes: Sequence[str], strategies: int) -> int:
    """The exit status of a suite. Where several strategies were asked for, an unsupported pair is only a row."""
    for outcome in outcomes:
        if outcome.startswith("unsupported"):
            if strategies == 1:
                return STATUS_UNSUPPORTED
        elif outcome != "done":
            return STATUS_BUDGET if outcome == "budget" else STATUS_GUEST
    return STATUS_DONE


def run_object(guest: str, setup: Setup, result: "RunResult") -> dict[str, Any]:
    """One run as JSON."""
    from .ledger import as_cycles
    from .report import exits_of

    return {
        "schema_version": SCHEMA_VERSION,
        "guest": guest,
        "strategy": setup.name,
        "profile": setup.profile.name,
        "cache_model": setup.cache_model,
        "outcome": result.outcome,
        "exit_code": result.exit_code,
        "instructions": result.instructions,
        "cycles": as_cycles(result.ticks),
        "events": result.ledger.as_json(),
        "exits": {reason: dict(cell) for reason, cell in exits_of(result).items()},
        "regions": [
            {
                "number": region.number,
                "iterations": region.iterations,
                "instructions": region.instructions,
                "cycles": as_cycles(region.ticks),
            }
            for region in result.regions
        ],
        "divergences": [str(divergence) for divergence in result.divergences],
        "console": printable(result.console),
    }


def printable(octets: bytes) -> str:
    """A guest's text: what is neither printable nor a new line or tab is shown as an escape."""
    text = octets.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return "".join(
        character if character.isprintable() or character in "\n\t" else f"\\x{ord(character):02x}"
        for character in text
    )


def show_result(guest: str, setup: Setup, result: "RunResult") -> None:
    """The guest's text, then what the run did."""
    from .report import show_run

    text = printable(result.console)
    click.echo(text, nl=bool(text) and not text.endswith("\n"))
    show(show_run(f"{guest} under {setup.name}, {setup.profile.name}", result))


def say_outcome(result: "RunResult") -> None:
    """Explain on stderr an end that is not a good one."""
    advice = {
        "budget": "the budget of cycles is spent; raise --max-cycles if the guest needs more",
        "triple_fault": "a fault could not be delivered, nor the double fault that followed: look at the guest's IDT",
        "halted_forever": "the guest halted with nothing that could wake it, and gave no verdict to port 0xF4",
    }
    outcome = result.outcome
    if outcome in advice:
        say(f"{outcome}: {advice[outcome]}")
    elif not passed(outcome, result.exit_code):
        say(f"{outcome}: the guest did not end well")


def show(renderable: "RenderableType") -> None:
    """Print a table to stdout."""
    from .report import make_console

    make_console().print(renderable)


def say(line: str) -> None:
    """Print a line of progress or explanation to stderr."""
    click.echo(line, err=True)


def write_json(target: str, value: Any) -> None:
    """Write JSON to a file, or to stdout for `-`."""
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    if target == "-":
        click.echo(text, nl=False)
        return
    try:
        pathlib.Path(target).write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(target, f"cannot be written ({error.strerror})", "give another file, or -") from None


def console_script() -> int:
    """What the installed command runs."""
    end_quietly_on_signals()
    return main()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (that of the process if none is given) and return its exit status.

    Bad input of any kind ends in one line on stderr.
    """
    try:
        status = cli.main(arguments, prog_name="x86virt", standalone_mode=False)
        sys.stdout.flush()
        return int(status or 0)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        say(f"x86virt: {' '.join(error.format_message().split())}" + _usage_hint(error))
    except click.Abort:
        return 130
    except UnsupportedError as error:
        say(f"x86virt: {error}")
        return STATUS_UNSUPPORTED
    except MemoryError:
        say("x86virt: the host has too little memory for this; give less to the guest (--memory)")
    except ValueError as error:
        if not is_user_error(error):
            raise
        say(f"x86virt: {error}")
    return STATUS_BAD_INPUT


def is_user_error(error: ValueError) -> bool:
    """Whether an error's text was made for users."""
    from .profile import ProfileError

    return isinstance(error, UserError | ProfileError)


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"; see {context.command_path} --help" if context else ""


def end_quietly_on_signals() -> None:
    """Let Ctrl-C end compiled code at once, and a closed pipe end the process without a word."""
    for name in ("SIGINT", "SIGPIPE"):
        if hasattr(signal, name):
            with contextlib.suppress(ValueError):  # not in the main thread: the host program's business
                signal.signal(getattr(signal, name), signal.SIG_DFL)
