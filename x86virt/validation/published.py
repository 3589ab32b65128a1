"""The published figures, as `benchmarks/reference/published.csv` has them."""

import csv
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cache

from ..guests import benchmarks_folder

CYCLE_UNITS = ("cycles", "TSC ticks", "TSC cycles")
PER_MICROSECOND = {"ns": Fraction(1000), "us": Fraction(1)}  # of the unit; a clock in MHz is cycles per microsecond


@dataclass(frozen=True)
class Published:
    """One published figure: what was measured on which machine, the number, and how the number is known."""

    id: str
    system: str
    strategy: str
    workload: str
    metric: str
    value: Fraction
    rounding: Fraction  # half a unit of its last digit
    unit: str
    machine: str
    evidence: str
    source: str
    note: str

    def in_its_unit(self, cycles: Fraction, mhz: Fraction) -> Fraction:
        """Cycles at a clock, in the unit of this figure. Raises ValueError for a unit that is no time."""
        if self.unit in CYCLE_UNITS:
            return cycles
        if self.unit not in PER_MICROSECOND:
            raise ValueError(f"{self.id} is in {self.unit}, which cycles cannot be turned into")
        return cycles / mhz * PER_MICROSECOND[self.unit]


def half_of_last_digit(text: str) -> Fraction:
    """Half a unit of the last digit of a number as it was printed: 0.005 for 0.45, a half for 242."""
    exponent = Decimal(text).as_tuple().exponent
    assert isinstance(exponent, int), "a published figure is finite"
    return Fraction(10) ** min(exponent, 0) / 2


@cache
def published_rows() -> tuple[Published, ...]:
    """All figures, in the order of the file."""
    with open(benchmarks_folder() / "reference" / "published.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return tuple(
        Published(
            **{name: row[name] for name in row if name not in ("value",)},
            value=Fraction(Decimal(row["value"])),
            rounding=half_of_last_digit(row["value"]),
        )
        for row in rows
    )
