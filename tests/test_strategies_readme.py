"""The guide `strategies/README.md` is run as it stands: each listing as a user's file, each printed outcome compared."""

from __future__ import annotations

import ast
import itertools
import pathlib
import re

import pytest
from small_kernel import strategy

from x86virt import Machine, RunResult, Strategy, find_guest, find_strategy, load_profile
from x86virt.equivalence import compare_runs
from x86virt.guests import build_for
from x86virt.vmm import SoftwareVmm, VmmError, shadow_options, translation_options

GUIDE = pathlib.Path(__file__).resolve().parent.parent / "strategies" / "README.md"
TEXT = GUIDE.read_text(encoding="utf-8")
LISTINGS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
GROWING = LISTINGS[:5]  # from nothing to a VMM; the others build on the toolkit's bases
COMMAND = re.compile(r"\$ x86virt run (\w+) --strategy mine\.py:Mine(?: -p (\w+))?\noutcome  (.*)")
MEMORY = 8 << 20
MAX_CYCLES = 2_000_000_000


def load(listing: str, folder: pathlib.Path) -> type[Strategy]:
    """The strategy in a listing, as `--strategy mine.py:Mine` finds it."""
    path = folder / "mine.py"
    path.write_text(listing, encoding="utf-8")
    return find_strategy(f"{path}:Mine")


def run(mine: Strategy, guest: str, profile: str = "") -> RunResult:
    """A guest under a strategy."""
    machine = Machine(mine, load_profile(profile or "p4_prescott"), MEMORY)
    machine.load(build_for(mine, find_guest(guest)), "iterations=5")
    return machine.run(MAX_CYCLES)


def code_lines(listing: str) -> list[str]:
    """The lines that are not blank."""
    return [line for line in listing.splitlines() if line.strip()]


@pytest.mark.parametrize("number", range(len(LISTINGS)))
def test_listing_does_what_the_guide_prints(number: int, tmp_path: pathlib.Path) -> None:
    listing, printed = LISTINGS[number]
    commands = COMMAND.findall(printed)
    assert len(commands) * 2 == len(printed.strip().splitlines())
    mine = load(listing, tmp_path)
    for guest, profile, outcome in commands:
        result = run(mine(), guest, profile)
        assert result.outcome == outcome
        assert "\n" not in outcome
        if outcome == "halted":
            assert result.exit_code == 0
            assert b"passed" in result.console


def test_guide_grows_step_by_step_to_forty_lines() -> None:
    assert TEXT.count("```python") == len(LISTINGS) == len(GROWING) + 3
    sizes = [len(code_lines(listing)) for listing, _ in GROWING]
    assert sizes == sorted(sizes)
    assert sizes[0] < 8
    assert 30 <= sizes[-1] <= 45
    for (before, _), (after, _) in itertools.pairwise(GROWING):
        assert set(code_lines(before)) - set(code_lines(after)) <= {
            "    on_segment_not_present = on_general_protection"
        }


@pytest.mark.parametrize("guest", ["hello", "hello_pse", "syscall", "divzero", "pgfault", "ptemod", "cr3switch"])
def test_final_listing_is_equivalent_to_the_bare_machine(guest: str, tmp_path: pathlib.Path) -> None:
    mine = load(GROWING[-1][0], tmp_path)
    profile = load_profile("p4_prescott")
    comparison = compare_runs(
        find_guest(guest), mine(), strategy("native"), profile, MEMORY, "iterations=5", MAX_CYCLES, 1 << 14
    )
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.other.exit_code == 0


def test_strategies_use_public_names_only() -> None:
    """What the listings and the built-in strategies import are names in `__all__`."""
    import x86virt
    import x86virt.vmm

    public = {"x86virt": set(x86virt.__all__), "x86virt.vmm": set(x86virt.vmm.__all__)}
    sources = [listing for listing, _ in LISTINGS]
    sources += [path.read_text(encoding="utf-8") for path in GUIDE.parent.glob("[a-z]*.py")]
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("x86virt"):
                assert {name.name for name in node.names} <= public[str(node.module)]


# -- a missing hook ---------------------------------------------------------------------------------------------------


class Empty(Strategy):
    """A strategy that says nothing but where it wants the guest's kernel."""

    name = "empty"
    kernel_ring = 1
    needs_vmm = True


def test_missing_hook_is_one_line_that_names_everything() -> None:
    result = run(Empty(), "hello")
    assert re.fullmatch(
        r"unsupported: empty: no hook for exit 'page_fault' at eip 0x[0-9a-f]+, cpl 0, bytes( [0-9a-f]{2})+ "
        r"\([^)]*\): write on_page_fault\(self, vm, exit\)",
        result.outcome,
    ), result.outcome
    result.ledger.check_conservation(result.ticks)


def test_handle_calls_the_hook_then_on_exit_then_explains() -> None:
    class Some(Empty):
        """One hook, and a catch-all."""

        def __init__(self) -> None:
            self.seen: list[tuple[str, str]] = []

        def on_page_fault(self, vm, exit) -> None:
            """Note it, and map the page."""
            self.seen.append(("on_page_fault", exit.reason))
            vm.shadow_fault(exit)

        def on_exit(self, vm, exit) -> None:
            """Note it, and give up."""
            self.seen.append(("on_exit", exit.reason))
            super().on_exit(vm, exit)

    mine = Some()
    result = run(mine, "hello")
    assert mine.seen[0] == ("on_page_fault", "page_fault")
    assert mine.seen[-1] == ("on_exit", "general_protection")
    assert [name for name, _ in mine.seen].count("on_exit") == 1
    assert "no hook for exit 'general_protection'" in result.outcome


def test_handle_raises_vmm_error_itself() -> None:
    machine = Machine(Empty(), load_profile("p4_prescott"), MEMORY)
    machine.load(find_guest("hello"))
    assert machine.processor.run() == 7  # at the VMM's entry
    with pytest.raises(VmmError, match="write on_page_fault"):
        machine.strategy.handle(machine.vm, machine.vm.crossings.read_exit())


def test_options_of_the_toolkit_have_their_defaults_where_a_strategy_declares_none() -> None:
    class Translates(SoftwareVmm):
        """It has no callouts' hooks yet."""

        name = "translates"
        processor = "binary_translation"

    result = run(Translates(), "hello")
    assert result.outcome.startswith("unsupported: translates: no hook for exit '")
    assert all(Translates.option(option.name) == option.default for option in (*translation_options(), *shadow_options()))
    with pytest.raises(KeyError):
        Translates.option("no_such")
