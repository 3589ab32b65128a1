"""`x86virt run`: a guest to its end, saved, restored, recorded or replayed on the way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..api import Setup
from ..errors import UnsupportedError
from .options import NATIVE, OutputFile, given, machine_options, make_setups, refuse_given, strategy_option
from .output import (
    SCHEMA_VERSION,
    STATUS_DIFFERENT,
    STATUS_DONE,
    get_ready,
    run_object,
    say,
    say_outcome,
    show_result,
    status_of,
    write_json,
)

if TYPE_CHECKING:
    from ..machine import Machine, RunResult
    from ..start.boot import Bootable


@click.command("run")
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
    from ..guests import find_guest

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


def run_one(
    setup: Setup, image: "Bootable", command_line: str, save_file: str | None, save_at: int | None, record_file: str | None
) -> "RunResult":
    """One guest under one strategy, saved or recorded on the way if that is asked for."""
    if record_file is not None:
        from ..replay import record, write_log

        result, log = record(setup, image, command_line)
        write_log(log, record_file)
        say(f"{record_file}: {len(log.deliveries)} interrupts, {len(log.reads)} reads of time")
        return result
    if save_file is None:
        return setup.run(image, command_line)
    from ..api import strategy_errors

    with strategy_errors(setup.name):
        machine = setup.machine()
        machine.load(image, command_line)
        return finish_and_save(machine, save_file, save_at, setup.max_cycles)


def finish_and_save(machine: "Machine", save_file: str, save_at: int | None, max_cycles: int | None) -> "RunResult":
    """Run to a cycle, save, run to the end."""
    from ..core.layout import NEVER
    from ..saved import save_machine

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
    from ..api import strategy_errors

    get_ready()
    from ..profile import load_profile
    from ..saved import restore_machine
    from ..vmm.registry import find_strategy

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


def run_replayed(setup: Setup, image: "Bootable", path: str, json_file: str | None) -> int:
    """`run --replay`: status 1 if the bare machine does not accept the log."""
    from ..replay import ReplayError, read_log, replay

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
