"""The command line. Results go to stdout, progress to stderr; each command is a library call of `x86virt.api`.

Exit status: 0 done; 1 a comparison did not hold; 2 bad usage or bad input; 3 the guest ended badly; 4 the budget is
spent; 5 the one strategy asked for cannot run this guest or profile.
"""

import contextlib
import importlib
import signal
import sys
from collections.abc import Sequence

import click

from .commands.output import STATUS_BAD_INPUT, STATUS_UNSUPPORTED, say
from .errors import UnsupportedError, UserError

# Each command: the module of x86virt/commands/ and the function that carry it, imported when it is asked for.
COMMANDS = {
    "run": ("run", "run_command"),
    "bench": ("bench", "bench_command"),
    "compare": ("compare", "compare_command"),
    "validate": ("validate", "validate_command"),
    "list": ("listing", "list_command"),
    "trace": ("trace", "trace_command"),
    "explain": ("explain", "explain_command"),
    "gdb": ("gdb", "gdb_command"),
}


class Commands(click.Group):
    """The group of all commands, of which only those asked for are imported."""

    def list_commands(self, context: click.Context) -> list[str]:
        """The commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        """One command, None if there is none of that name."""
        if name not in COMMANDS:
            return None
        module, function = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(f".commands.{module}", __package__), function)
        return command


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="x86virt")
def cli() -> None:
    """An x86 machine simulated cycle by cycle, whose hypervisor is a plug-in."""


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
    except UserError as error:
        say(f"x86virt: {error}")
    return STATUS_BAD_INPUT


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"; see {context.command_path} --help" if context else ""


def end_quietly_on_signals() -> None:
    """Let Ctrl-C end compiled code at once, and a closed pipe end the process without a word."""
    for name in ("SIGINT", "SIGPIPE"):
        if hasattr(signal, name):
            with contextlib.suppress(ValueError):  # not in the main thread: the host program's business
                signal.signal(getattr(signal, name), signal.SIG_DFL)
