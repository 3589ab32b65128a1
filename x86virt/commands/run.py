"""`x86virt run`: a guest to its end, saved, restored, recorded or replayed on the way."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from ..api import Setup
from ..errors import UnsupportedError
from .options import NATIVE, OutputFile, machine_options, refuse_given, strategy_option
from .output import (
    SCHEMA_VERSION,
    STATUS_DONE,
    STATUS_UNSUPPORTED,
    get_ready,
    run_object,
    say,
    say_outcome,
    show_result,
    status_of_run,
    write_json,
)
from .pc_options import conversation_options, start_options, take_conversation, take_start
from .saving import finish_and_save, run_recorded, run_replayed, run_restored

if TYPE_CHECKING:
    from ..console.conversation import Conversation
    from ..machine import RunResult
    from ..start.boot import Bootable

MACHINE_IN_THE_FILE = (
    "memory", "cache_model", "command_line", "check_isolation", "bios", "vga_bios", "disks", "disk_write", "initrd", "at",
    "entry", "rtc", "apic", "no_reboot",
)  # fmt: skip


@click.command("run")
@click.argument("guest", required=False)
@strategy_option(())
@machine_options
@click.option(
    "-c", "--command-line", "--append", "command_line", default="", help="The guest's command line, such as iterations=1000."
)
@start_options
@conversation_options
@click.option("--check-isolation", is_flag=True, help="Check every access of the guest's against the owners of frames.")
@click.option("--save", "save_file", type=OutputFile(), help="Save the whole machine there at --save-at, and go on.")
@click.option("--save-at", type=click.IntRange(1, 1 << 56), metavar="CYCLES", help="When to save.")
@click.option("--restore", "restore_file", metavar="FILE", help="Go on with a saved machine, instead of GUEST.")
@click.option("--record", "record_file", type=OutputFile(), help="Keep what the run is given (JSON).")
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
    """Run GUEST to its end.

    GUEST is a shipped guest's name, or a file that is taken for what it is: a Multiboot kernel, a Linux kernel (bzImage), a boot
    disk, a BIOS image; with --at, a flat binary. Without GUEST, --bios or --disk start a machine by its firmware.
    """
    wishes = take_start(machine)
    check_run_options(guest, save_file, save_at, restore_file, record_file, replay_file, wishes.by_firmware)
    conversation = take_conversation(machine)
    check_conversation(conversation, json_file, replay_file)
    if restore_file is not None:
        refuse_given(MACHINE_IN_THE_FILE, "stands in the file of --restore")
        return run_restored(restore_file, strategies, save_file, save_at, json_file, machine, conversation)
    from ..guests import open_guest

    opened = open_guest(guest, wishes.options())
    at_terminal = conversation is not None and conversation.person is not None
    setups = wishes.setups(opened, strategies or (NATIVE,), machine, no_limit=at_terminal)
    if len(setups) > 1 and (save_file or record_file or replay_file):
        raise click.UsageError("--save, --record and --replay take one strategy")
    if len(setups) > 1 and conversation is not None and (conversation.person or conversation.serial):
        raise click.UsageError("--serial and --screen take one strategy")
    get_ready()
    image = opened.bootable
    if replay_file is not None:
        refuse_given(("command_line",), "stands in the file of --replay")
        return run_replayed(setups[0], image, replay_file, json_file)
    statuses, objects = [], []
    for setup in setups:
        try:
            result = run_one(setup, image, command_line, save_file, save_at, record_file, conversation)
        except UnsupportedError as error:
            if len(setups) == 1:
                raise
            say(str(error))
            continue
        status = status_of_run(result, conversation)
        if status != STATUS_UNSUPPORTED or len(setups) == 1:  # of several, one that cannot run here is only a row
            statuses.append(status)
        objects.append(run_object(image.name, setup, result))
        if json_file is None:
            show_result(image.name, setup, result, conversation)
        say_outcome(result, conversation)
    if json_file is not None:
        whole = {"schema_version": SCHEMA_VERSION, "runs": objects}
        write_json(json_file, objects[0] if len(objects) == 1 else whole)
    return next((status for status in statuses if status), STATUS_DONE)


def check_run_options(
    guest: str | None, save: str | None, save_at: int | None, restore: str | None, record: str | None, replay: str | None,
    by_firmware: bool,
) -> None:  # fmt: skip
    """Which options of `run` go together."""
    if guest is not None and restore is not None:
        raise click.UsageError("give a GUEST, or a saved machine by --restore FILE")
    if guest is None and restore is None and not by_firmware:
        raise click.UsageError("give a GUEST, a --disk, a --bios, or a saved machine by --restore FILE")
    if (save is None) != (save_at is None):
        raise click.UsageError("--save FILE and --save-at CYCLES go together")
    if sum(option is not None for option in (save, record, replay)) > 1 or (restore and (record or replay)):
        raise click.UsageError("--save or --restore, --record and --replay exclude each other")


def check_conversation(conversation: "Conversation | None", json_file: str | None, replay_file: str | None) -> None:
    """What does not go with a conversation."""
    if conversation is None:
        return
    if replay_file is not None:
        raise click.UsageError("--replay takes no --input, --until, --serial or --screen: what was typed stands in the record")
    if json_file == "-" and (conversation.serial == "-" or conversation.person):
        raise click.UsageError("--json - and --serial - or --screen both want standard output: give one of them a file")


def run_one(
    setup: Setup, image: "Bootable", command_line: str, save_file: str | None, save_at: int | None, record_file: str | None,
    conversation: "Conversation | None",
) -> "RunResult":  # fmt: skip
    """One guest under one strategy, saved or recorded on the way if that is asked for."""
    if record_file is not None:
        return run_recorded(setup, image, command_line, record_file, conversation)
    if save_file is None:
        return setup.run(image, command_line, conversation)
    from ..api import strategy_errors

    with strategy_errors(setup.name):
        machine = setup.load(image, command_line)
        try:
            return finish_and_save(machine, save_file, save_at, setup.max_cycles, conversation)
        finally:
            machine.disks.close()
