"""What several commands ask for: sizes, files, strategies, the machine."""

import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import click

from ..api import DEFAULT_MAX_CYCLES, DEFAULT_PROFILE, Setup, make_setup

SMALLEST_MEMORY, LARGEST_MEMORY = 1 << 20, 2 << 30
PAGE_BYTES = 4096
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
    text = "A strategy's name, `all`, or path/to/file.py:Class, with ,option=value behind it; may be repeated."
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
            help="End the run after that many simulated cycles (status 4); a hundred times that where firmware or Linux starts.",
        ),
        click.option(
            "--memory", type=MemorySize(), default="16M", show_default=True,
            help="The guest's RAM; 128M unless said where firmware or Linux starts.",
        ),
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


def given(name: str) -> bool:
    """Whether a parameter was given on the command line."""
    source = click.get_current_context().get_parameter_source(name)
    return source not in (None, click.core.ParameterSource.DEFAULT)


def refuse_given(names: Sequence[str], why: str) -> None:
    """Refuse options that would have no effect."""
    for name in names:
        if given(name):
            raise click.UsageError(f"--{name.replace('_', '-')} {why}: leave it out")


def make_setups(names: Sequence[str], machine: dict[str, Any]) -> list[Setup]:
    """A setup for each strategy asked for, `all` standing for all of them; each once, in the order given."""
    from ..profile import load_profile
    from ..vmm.registry import strategy_names

    profile = load_profile(machine["profile"])
    wanted = dict.fromkeys(one for name in names for one in (strategy_names() if name == ALL else [name]))
    return [
        make_setup(
            name, profile, machine["memory"], machine["max_cycles"], machine["cache_model"],
            machine.get("check_isolation", False),
        )
        for name in wanted
    ]  # fmt: skip
