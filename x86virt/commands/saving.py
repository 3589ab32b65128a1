"""`x86virt run` with a machine that was saved, is to be saved, or is recorded or replayed."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..api import Setup, converse
from ..errors import UnsupportedError
from ..guests import PARAVIRTUAL
from .options import NATIVE, given
from .output import STATUS_DIFFERENT, get_ready, say, show_run_of

if TYPE_CHECKING:
    from ..console.conversation import Conversation
    from ..machine import Machine, RunResult
    from ..start.boot import Bootable


def run_recorded(
    setup: Setup, image: "Bootable", command_line: str, path: str, conversation: "Conversation | None"
) -> "RunResult":
    """`run --record`. Raises UnsupportedError where the bare machine runs another build of the guest than the strategy."""
    from ..replay import record, write_log

    if setup.strategy.processor == PARAVIRTUAL:
        what = "a record is for the bare machine, which cannot run a kernel that is ported to a VMM"
        raise UnsupportedError(f"strategy {setup.name}", what, "compare the two builds by `x86virt compare`")

    result, log = record(setup, image, command_line, conversation)
    write_log(log, path)
    say(f"{path}: {len(log.deliveries)} interrupts, {log.time_reads} reads of time")
    return result


def finish_and_save(
    machine: "Machine", save_file: str, save_at: int | None, max_cycles: int | None, conversation: "Conversation | None"
) -> "RunResult":
    """Run to a cycle, save, run to the end."""
    if conversation is None:
        save_on_the_way(machine, save_file, save_at, max_cycles)
        return machine.run(max_cycles)
    with conversation.with_machine(machine):
        save_on_the_way(machine, save_file, save_at, max_cycles)
        return machine.run(max_cycles)


def save_on_the_way(machine: "Machine", save_file: str, save_at: int | None, max_cycles: int | None) -> None:
    """Run to a cycle and save."""
    from ..core.layout import NEVER
    from ..saved import save_machine

    if machine.advance(NEVER, max_cycles, save_at):
        save_machine(machine, save_file)
        say(f"{save_file}: saved at cycle {int(machine.processor.cpu.ticks) // 64}")
    else:
        say(f"{save_file}: not written, the run ended before cycle {save_at}")


def run_restored(
    path: str, strategies: Sequence[str], save_file: str | None, save_at: int | None, json_file: str | None,
    options: dict[str, Any], conversation: "Conversation | None",
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
    max_cycles = options["max_cycles"] if given("max_cycles") else machine.usual_cycles
    setup = Setup(type(machine.strategy), machine.profile, machine.memory_bytes, max_cycles, machine.cache_model)
    try:
        with strategy_errors(setup.name):
            if save_file is not None:
                result = finish_and_save(machine, save_file, save_at, setup.max_cycles, conversation)
            else:
                result = converse(machine, setup.max_cycles, conversation)
    finally:
        machine.disks.close()
    return show_run_of(machine.guest[0], setup, result, json_file, conversation)


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
    say(f"{path}: accepted, {len(log.deliveries)} interrupts and {log.time_reads} reads of time")
    return show_run_of(image.name, setup, machine.result(), json_file)
