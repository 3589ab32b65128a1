"""`x86virt list`: what there is to choose from."""

import click

from .options import JsonFile
from .output import SCHEMA_VERSION, STATUS_DONE, show, write_json

LISTS = ("guests", "ports", "strategies", "profiles", "suites", "events")


@click.command("list")
@click.argument("what", type=click.Choice(LISTS), metavar="|".join(LISTS))
@click.option("--json", "json_file", type=JsonFile(), help="Write JSON there instead of a table to stdout.")
def list_command(what: str, json_file: str | None) -> int:
    """List the guests, strategies, profiles, benchmark suites or events that there are, or how much of each guest is ported."""
    from ..catalogue import catalogue
    from ..report import plain_table

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
