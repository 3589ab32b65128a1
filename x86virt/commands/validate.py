"""`x86virt validate`: what was published, against what the simulator predicts."""

from collections.abc import Sequence

import click

from .options import JsonFile
from .output import SCHEMA_VERSION, STATUS_DIFFERENT, STATUS_DONE, get_ready, say, show, write_json


@click.command("validate")
@click.option("--id", "ids", multiple=True, metavar="ID|PATTERN", help="Only these rows, such as 'aa06.nano.*'; may be repeated.")
@click.option(
    "-s", "--strategy", "strategies", multiple=True, metavar="NAME|FILE:CLASS",
    help="Only rows of this strategy; options and a class of your own of that name are what runs. May be repeated.",
)  # fmt: skip
@click.option(
    "-p", "--profile", "profiles", multiple=True, metavar="NAME|FILE.toml",
    help="Only rows of this profile; a file stands in for the built-in profile that it inherits. May be repeated.",
)  # fmt: skip
@click.option("--all", "every_row", is_flag=True, help="Show each row that is not covered, not only the reasons.")
@click.option("--json", "json_file", type=JsonFile(), help="Write JSON there instead of a table to stdout.")
def validate_command(
    ids: Sequence[str], strategies: Sequence[str], profiles: Sequence[str], every_row: bool, json_file: str | None
) -> int:
    """Hold the published figures of benchmarks/reference/published.csv against what the simulator predicts.

    Each row has a status: parameter (it stands in a profile), arithmetic (it follows from parameters), structural and
    path_dominated (predictions, which count), unexplained (outside its interval, and nobody knows why), not_covered. Status 1
    if what must hold does not: an arithmetic row, a claim of shape, a row outside its interval that nobody has looked at, a
    prediction that changed since it was frozen.
    """
    from ..api import validate

    get_ready()
    validation = validate(ids, strategies, profiles, say)
    if json_file is not None:
        write_json(
            json_file,
            {
                "schema_version": SCHEMA_VERSION,
                "rows": [row.as_json() for row in validation.rows],
                "shapes": [shape.as_json() for shape in validation.shapes],
                "score": validation.score.as_json(),
                "problems": validation.problems,
            },
        )
    else:
        from ..validation.show import show_validation

        show(show_validation(validation, every_row))
    return STATUS_DIFFERENT if validation.problems else STATUS_DONE
