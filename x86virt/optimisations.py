"""What each optimisation of a VMM buys: the same kernels under techniques that differ in one choice (`bench optimisations`).

A row is a technique with its choices, a column a kernel; a figure is the cost of one iteration over that of the bare
machine. The switches of the binary translator are off one at a time, and shadow memory follows each of its policies;
adaptation is shown where page tables are traced, since there it has something to adapt to.
"""

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from .report import number, plain_table
from .suites import NATIVE, UNIX, Benchmark, Row

NAME = "optimisations"
TRANSLATION = "binary-translation"
STRATEGIES = (
    NATIVE,
    "trap-and-emulate",
    TRANSLATION,
    f"{TRANSLATION},chaining=off",
    f"{TRANSLATION},inline_emulation=off",
    f"{TRANSLATION},direct_callouts=off",
    f"{TRANSLATION},tc_size=4K",
    f"{TRANSLATION},shadow=trace",
    f"{TRANSLATION},adaptive=off,shadow=trace",
    f"{TRANSLATION},shadow=out-of-sync",
)
UNIX_ROWS, UNIX_ITERATIONS = ("null_int80", "fork", "pipe"), 2


def benchmarks() -> tuple[Benchmark, ...]:
    """The kernels, each named for the column's head."""
    return (
        Benchmark(NAME, "call", "callret", 1, 1000, "a near call and its return, in the kernel"),
        Benchmark(NAME, "CLI, STI", "intflag", 0, 1000, "interrupts closed and opened again"),
        Benchmark(NAME, "IN", "portio", 0, 1000, "a byte from the POST port, in the kernel"),
        Benchmark(NAME, "INT", "syscall", 0, 500, "a null system call by INT 0x80"),
        Benchmark(NAME, "PTE", "ptemod", 0, 1000, "a store to an entry of a page table in use"),
        Benchmark(NAME, "#PF", "pgfault", 0, 200, "a page fault answered by one new entry"),
        Benchmark(NAME, "CR3", "cr3switch", 1, 200, "another address space, and 16 of its pages read"),
        *(
            Benchmark(NAME, row.name, row.guest, row.region, UNIX_ITERATIONS, row.sentence)
            for row in UNIX
            if row.name in UNIX_ROWS
        ),
    )


def show_optimisations(rows: Sequence[Row]) -> RenderableType:
    """The table: cycles on the bare machine, then ratios, then what each column is."""
    columns = list(dict.fromkeys(row.benchmark for row in rows))
    found = {(row.strategy, row.benchmark): row for row in rows}
    table = plain_table(["over the bare machine", *columns])
    for strategy in dict.fromkeys(row.strategy for row in rows):
        name = f"{strategy}, cycles" if strategy == NATIVE else strategy
        table.add_row(name, *(figure(found[strategy, column]) for column in columns))
    title = f"one iteration of each kernel; {rows[0].profile}"
    return Group(Text(title, style="bold"), table, *map(Text, sentences(rows)))


def figure(row: Row) -> str:
    """A ratio to the bare machine; cycles on it, or where it was not asked for; a dash without a figure."""
    if row.ratio_to_native is not None and row.strategy != NATIVE:
        return f"{row.ratio_to_native:.2f}"
    return number(row.cycles_per_iteration) if row.measured else "-"


def sentences(rows: Sequence[Row]) -> Iterator[str]:
    """What one iteration of each kernel is, and what did not come to its end."""
    for name, sentence in dict.fromkeys((row.benchmark, row.sentence) for row in rows):
        yield f"  {name}: {sentence}"
    for row in rows:
        if not row.measured:
            yield f"  {row.benchmark} under {row.strategy}: {row.outcome}"
