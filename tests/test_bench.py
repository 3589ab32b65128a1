"""Benchmark suites: rows that name real regions, figures that add up, and tables that show them."""

import io
import json
from typing import Any

import pytest
from rich.console import Console

from x86virt import optimisations, speed, vmexit
from x86virt.api import DEFAULT_PROFILE, bench, by_number, make_setup
from x86virt.cli import main
from x86virt.exit_counts import PARTS
from x86virt.guests import find_guest, guests
from x86virt.isa.events import MODE_NAMES
from x86virt.profile import load_profile
from x86virt.speed import (
    PHASES,
    VMM_LOOPS,
    Loop,
    measure_loop,
    measure_phases,
    show_speed,
    speed_image,
    time_phases,
    without_sysenter,
)
from x86virt.suites import Row, measure, suite

BOTH = ("native", "trap-and-emulate")


@pytest.mark.parametrize("name", ["syscall", "micro", "block", "lmbench", "optimisations", "vmexit"])
def test_every_benchmark_names_a_region_that_its_guest_has(name: str) -> None:
    for benchmark in suite(name):
        assert 0 <= benchmark.region < len(guests()[benchmark.guest].regions)
        assert benchmark.iterations > 0 and benchmark.sentence
    names = [benchmark.name for benchmark in suite(name)]
    assert len(set(names)) == len(names)


def test_micro_holds_every_region_of_every_guest() -> None:
    held = {(benchmark.guest, benchmark.region) for benchmark in suite("micro")}
    assert held == {(guest.name, number) for guest in guests().values() for number in range(len(guest.regions))}


def test_the_table_of_optimisations_shows_what_each_choice_buys() -> None:
    """Fewer iterations and kernels than the command has; the order of the figures is what each choice is for."""
    kernels = [benchmark for benchmark in optimisations.benchmarks() if benchmark.guest in ("callret", "intflag", "pgfault")]
    rows = measure(kernels, [make_setup(strategy) for strategy in optimisations.STRATEGIES], 200)
    assert all(row.outcome == "done" for row in rows)
    ratios = {(row.strategy.removeprefix("binary-translation"), row.benchmark): row.ratio_to_native for row in rows}
    assert ratios["", "call"] < ratios[",chaining=off", "call"]
    inline, called, trapped = (ratios[name, "CLI, STI"] for name in ("", ",inline_emulation=off", "trap-and-emulate"))
    assert 5 * inline < min(called, trapped)
    assert ratios["", "#PF"] < ratios[",shadow=trace", "#PF"] < ratios[",adaptive=off,shadow=trace", "#PF"]
    file = io.StringIO()
    Console(file=file, width=150).print(optimisations.show_optimisations(rows))
    text = file.getvalue()
    assert "native, cycles" in text and "binary-translation,chaining=off" in text
    assert all(benchmark.sentence in text for benchmark in kernels)
    assert set(optimisations.UNIX_ROWS) <= {benchmark.name for benchmark in optimisations.benchmarks()}


def kinds(strategies: tuple[str, ...], profile: str) -> dict[tuple[str, str], Row]:
    """The rows of `vmexit` on one profile by kind and strategy, few iterations."""
    rows = measure(suite("vmexit"), [make_setup(strategy, profile) for strategy in strategies], 10)
    return {(row.benchmark, row.strategy): row for row in rows}


def test_each_kind_of_exit_is_alone_in_its_region() -> None:
    """Natively each region has its own event once an iteration, and no region holds any other of them."""
    rows = kinds(("native",), "k10_barcelona")
    own = {
        "cpuid": "ins.cpuid_leaf0", "vmcall": "sys.exc_same_cpl", "invalid opcode": "sys.exc_same_cpl",
        "port in": "sys.in_port_lpc", "port out": "sys.out_port_lpc", "MSR read": "sys.rdmsr", "MSR write": "sys.wrmsr",
        "INVLPG": "sys.invlpg", "CR3 write": "sys.mov_cr3_write", "CR0 write": "sys.mov_cr0_write",
        "page fault": "sys.exc_same_cpl", "HLT": "sys.hlt_wake", "EPT violation": "walk.native",
        "interrupt window": "sys.ext_interrupt_delivery", "descriptor table": "sys.lidt",
    }  # fmt: skip
    assert own.keys() == {benchmark.name for benchmark in suite("vmexit")}
    for (kind, _), row in rows.items():
        assert row.outcome == "done" and row.iterations == 10, kind
        also = {"walk.native", "sys.ext_interrupt_delivery" if kind == "HLT" else own[kind], own[kind]}
        assert row.events[own[kind]].count == pytest.approx(1, abs=0.2), kind
        assert not (set(own.values()) - also) & {event for event, cell in row.events.items() if cell.count >= 0.5}, kind


def test_a_region_that_is_marked_in_parts_is_summed() -> None:
    """The region of HLT begins and ends ten times; what its parts cost is what the row says, all iterations together."""
    result = make_setup("native").run(find_guest("exits"), "iterations=10")
    parts = [region for region in result.regions if region.number == 11]
    assert len(parts) == 10 and all(part.iterations == 1 for part in parts)
    whole = by_number(result.regions)[11]
    assert (whole.iterations, whole.ticks) == (10, sum(part.ticks for part in parts))
    assert whole.ledger.total_ticks() == whole.ticks and whole.instructions == sum(part.instructions for part in parts)


PRIVILEGED = {
    "cpuid": "cpuid", "vmcall": "vmcall", "port in": "io_instruction", "port out": "io_instruction", "MSR read": "msr_read",
    "MSR write": "msr_write", "HLT": "hlt", "interrupt window": "interrupt_window", "descriptor table": "gdtr_idtr",
}  # fmt: skip
OF_SHADOWS = PRIVILEGED | {
    "INVLPG": "invlpg", "CR3 write": "cr_access", "CR0 write": "cr_access", "page fault": "exception_or_nmi",
    "EPT violation": "exception_or_nmi",
}  # fmt: skip
EXITS = {
    "vtx-shadow": OF_SHADOWS,
    "svm-shadow": OF_SHADOWS,
    "vtx-ept": PRIVILEGED | {"CR0 write": "cr_access", "EPT violation": "ept_violation"},
    "svm-npt": PRIVILEGED | {"EPT violation": "ept_violation"},
}


@pytest.mark.parametrize(("profile", "extension"), [("nehalem", "vtx"), ("k10_barcelona", "svm")])
def test_each_kind_of_exit_is_what_its_region_takes(profile: str, extension: str) -> None:
    """Once an iteration where the technique lets it exit, else never; besides it no more than the shadow's first touches.

    The parts add up to what is not the guest's own time. What the processor lacks is a row that says so."""
    rows = kinds(vmexit.STRATEGIES, profile)
    for (kind, name), row in rows.items():
        strategy = name.partition(",")[0]
        if not strategy.startswith(extension) and strategy != "native":
            assert row.outcome.startswith(f"unsupported: {profile} has no {'SVM' if extension == 'vtx' else 'VMX'}")
            assert "eip" not in row.outcome
            continue
        assert row.outcome == "done"
        own = EXITS.get(strategy, {}).get(kind)
        if own is None:
            assert sum(cell.count for cell in row.exits.values()) < 0.5, (kind, name)
            continue
        assert row.exits[own].count == pytest.approx(1, abs=0.21), (kind, name)
        beside = {"HLT": {"host_timer"}, "CR3 write": {"exception_or_nmi"}}.get(kind, set())
        assert {reason for reason, cell in row.exits.items() if cell.count >= 0.5} - {own} <= beside, (kind, name)
        for reason, cell in row.exits.items():
            assert cell.parts.keys() == set(PARTS) and sum(cell.parts.values()) == pytest.approx(cell.cycles), (kind, reason)
    text = shown(list(rows.values()))
    assert f"{profile}, {extension}-shadow,descriptor_tables=on" in text and f"{profile} has no" in text
    assert all(sentence in text for _, sentence in vmexit.KINDS)


def shown(rows: list[Row]) -> str:
    """The table of `vmexit` as text."""
    file = io.StringIO()
    Console(file=file, width=150).print(vmexit.show_vmexit(rows))
    return file.getvalue()


def test_the_table_of_vmexit_beside_the_bare_machine() -> None:
    """A software VMM's row: cycles without rest, the ratio, exits and their parts; alone, the bare machine has its table too."""
    rows = kinds(("native", "trap-and-emulate"), "p4_prescott")
    text = shown(list(rows.values()))
    by_kind = {line[:18].strip(): line[18:].split() for line in text.splitlines() if " x " in line}
    assert by_kind.keys() == {name for name, _ in vmexit.KINDS}
    assert by_kind["cpuid"][4] == "0" and by_kind["port in"][4] == "1"
    assert "native" in shown([row for row in rows.values() if row.strategy == "native"])


def test_figures_of_a_row_add_up() -> None:
    rows = bench("syscall", BOTH, iterations=50)
    assert [(row.benchmark, row.strategy) for row in rows] == [(b, s) for b in ("int80", "sysenter") for s in BOTH]
    for row in rows:
        assert row.outcome == "done" and row.iterations == 50
        assert row.cycles is not None and row.cycles_per_iteration == row.cycles / 50
        assert set(row.modes) == set(MODE_NAMES)
        assert sum(row.modes.values()) == pytest.approx(row.cycles_per_iteration, rel=1e-12)
        assert sum(cell.cycles for cell in row.events.values()) == pytest.approx(row.cycles_per_iteration, rel=1e-9)


def test_the_bare_machine_pays_the_profile_for_a_system_call() -> None:
    """INT 0x80 and IRET once each an iteration, at the prices of the profile, and no time in a VMM."""
    profile = load_profile(DEFAULT_PROFILE)
    row = bench("syscall", ["native"], iterations=40)[0]
    for event in ("sys.int_n_cpl3_to_cpl0", "sys.iret_cpl0_to_cpl3"):
        assert row.events[event].count == 1
        assert row.events[event].cycles == profile[event]
    assert row.modes["vmm"] == 0 and row.ratio_to_native == 1


def test_trap_and_emulate_costs_more_and_says_where() -> None:
    native, trapped = bench("syscall", BOTH, iterations=40)[:2]
    assert trapped.cycles_per_iteration is not None and native.cycles_per_iteration is not None
    assert trapped.ratio_to_native == trapped.cycles_per_iteration / native.cycles_per_iteration > 2
    assert trapped.modes["vmm"] > native.cycles_per_iteration
    assert trapped.events["vmm.trap_dispatch"].count >= 2, "the INT, and the IRET of the guest's kernel"


def test_iterations_do_not_change_what_one_costs() -> None:
    few, many = (bench("syscall", ["native"], iterations=number)[0] for number in (64, 640))
    assert few.cycles_per_iteration == pytest.approx(many.cycles_per_iteration, rel=0.01)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = main(arguments)
    return status, *capsys.readouterr()


def test_the_table_of_the_syscall_suite(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = answer(capsys, "bench", "syscall", "--iterations", "30")
    assert status == 0
    for words in ("p4_prescott", *BOTH, "cycles per round trip", "(x ", "guest user", "guest kernel", "VMM"):
        assert words in out
    for event in ("sys.int_n_cpl3_to_cpl0", "sys.iret_cpl0_to_cpl3", "vmm.trap_dispatch"):
        assert event in out
    assert "syscall under native" in err and "syscall under native" not in out


def test_bench_json_has_the_agreed_keys(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(capsys, "bench", "syscall", "-s", "native", "--iterations", "10", "--json", "-")
    document: dict[str, Any] = json.loads(out)
    assert status == 0 and document["schema_version"] == 1
    for row in document["rows"]:
        assert set(row) == {
            "suite", "benchmark", "strategy", "profile", "iterations", "cycles", "cycles_per_iteration",
            "ratio_to_native", "modes", "events", "exits", "outcome",
        }  # fmt: skip
        assert all(set(cell) == {"count", "cycles"} for cell in row["events"].values())


def test_a_suite_that_runs_out_of_budget_has_status_4(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = answer(capsys, "bench", "syscall", "-s", "native", "--max-cycles", "1000")
    assert status == 4
    assert "budget" in out


def test_micro_runs_every_guest_on_the_bare_machine() -> None:
    rows = bench("micro", ["native"], iterations=3)
    assert {row.outcome for row in rows} == {"done"}
    assert all(row.cycles_per_iteration for row in rows)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure for an instant only."""
    monkeypatch.setattr(speed, "SHORTEST", 0.001)


def test_speed_rows(quick: None) -> None:
    row = measure_loop(make_setup("native"), Loop("syscall", "syscall", 200, "round trip", has_sysenter=False))
    assert row.outcome == "done" and row.seconds > 0 and row.iterations >= 200
    assert row.events_per_second == row.iterations / row.seconds
    assert row.guest_mips is not None and row.guest_mips > 0 and row.exits_per_second is None
    assert set(row.as_json()) >= {"suite", "benchmark", "strategy", "profile", "guest_mips", "events_per_second"}
    assert show_speed([row])


def test_speed_has_seven_phases_whose_iterations_are_written_into_the_image(quick: None) -> None:
    setup = make_setup("native")
    counts = [1, 1, 10, 65, 3, 7, 9]
    _, instructions = time_phases(setup, counts)
    _, twice = time_phases(setup, [2 * count for count in counts])
    assert len(instructions) == len(PHASES) == 7
    # INT 0x80: INT, three of the handler, two of the loop. PTE: six. IN and OUT: four. The end of a region adds a few.
    for place, each in ((2, 6), (4, 68), (5, 6), (6, 4)):
        assert twice[place] - instructions[place] == each * counts[place]
    assert speed_image(counts) != speed_image([1, *counts[1:-1], 8])
    rows = measure_phases(setup)
    assert [row.benchmark for row in rows] == [phase.name for phase in PHASES]
    assert all(row.seconds > 0 and row.guest_mips and row.events_per_second for row in rows)


def test_exits_are_counted_under_a_vmm(quick: None) -> None:
    row = measure_loop(make_setup("trap-and-emulate"), Loop("syscall", "syscall", 50, "trip", has_sysenter=False))
    assert row.outcome == "done"
    assert row.exits_per_second is not None and row.exits_per_second >= 2 * row.iterations / row.seconds


def test_hypercalls_are_counted_by_themselves(quick: None) -> None:
    loop = next(loop for loop in VMM_LOOPS if loop.name == "vmm_hypercall")
    setup = make_setup("paravirtual")
    assert loop.suits(setup.strategy) and not loop.suits(make_setup("trap-and-emulate").strategy)
    row = measure_loop(setup, loop)
    assert row.outcome == "done" and row.events_per_second is not None
    assert 2 * row.iterations <= round(row.events_per_second * row.seconds) <= 4 * row.iterations + 100


def test_a_processor_without_sysenter_differs_in_that_bit_only() -> None:
    profile = load_profile(DEFAULT_PROFILE)
    changed = without_sysenter(profile)
    assert profile.integer("cpuid.features") - changed.integer("cpuid.features") == 1 << 11
    assert {key for key in profile.values if profile.values[key] != changed.values[key]} == {"cpuid.features"}
    assert changed.digest() != profile.digest()
