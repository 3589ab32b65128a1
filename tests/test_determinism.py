"""Cycles, ledger and state do not depend on how a run is cut, on decoded code being kept, or on the JIT."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable

import pytest
from bare_machine import CODE, HLT, BareMachine

from x86virt.core.layout import BOARD, BUDGET, HOOK, MARK, NEVER, OK
from x86virt.guests import find_guest
from x86virt.machine import Machine
from x86virt.profile import load_profile
from x86virt.vmm.registry import find_strategy

GUESTS = (
    ("hello", ""),
    ("syscall", "iterations=20"),
    ("pgfault", "iterations=3"),
    ("irq", "iterations=3"),
    ("ptemod", "iterations=3"),
)
PROFILES = ("p4_prescott", "core2_woodcrest")


def load(guest: str, command_line: str, profile: str, cache_model: str) -> Machine:
    """A machine on which a guest is about to start."""
    machine = Machine(find_strategy("native")(), load_profile(profile), 16 << 20, cache_model)
    machine.load(find_guest(guest), command_line)
    return machine


def drive(
    machine: Machine, budget: Callable[[int], int] = lambda ticks: NEVER, single: bool = False, discard: bool = False
) -> dict:
    """Run a guest to its end in slices; everything observable."""
    processor, console = machine.processor, b""
    cpu, board = processor.cpu, processor.board
    outcome = OK
    while outcome in (OK, BUDGET, MARK, BOARD):
        cpu.mark = board.attention = 0
        console += bytes(board.console[: int(board.console_length)])
        board.console_length = 0
        if board.shutdown_requested or board.exit_requested:
            break
        cpu.budget = budget(int(cpu.ticks))
        if discard:
            cpu.flush_code = 1
        outcome = processor.run(single)
    processor.settle()
    return {
        "outcome": int(outcome),
        "console": console.decode("latin1"),
        "exit code": int(board.exit_code),
        "ticks": int(cpu.ticks),
        "retired": int(cpu.retired),
        "registers": cpu.gpr[:8].tolist(),
        "rip": int(cpu.rip),
        "counts": processor.ledger().count.tolist(),
        "time": processor.ledger().ticks.tolist(),
        "memory": hash(processor.ram.tobytes()),
    }


WHOLE: dict[tuple, dict] = {}


def whole(guest: str, command_line: str, profile: str, cache_model: str) -> dict:
    """The run in one piece."""
    key = guest, command_line, profile, cache_model
    if key not in WHOLE:
        WHOLE[key] = drive(load(*key))
        assert WHOLE[key]["outcome"] == BOARD and WHOLE[key]["ticks"] > 0
    return WHOLE[key]


def assert_equal(cut: dict, uncut: dict) -> None:
    """Equal, with the first difference named."""
    for name, value in uncut.items():
        assert cut[name] == value, name


@pytest.mark.parametrize("cache_model", ("tables", "all"))
@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("guest, command_line", GUESTS)
def test_slicing_by_budget_changes_nothing(guest: str, command_line: str, profile: str, cache_model: str) -> None:
    """Budgets end at random ticks, some within an instruction's time."""
    rng = random.Random(guest)
    uncut = whole(guest, command_line, profile, cache_model)
    longest = max(uncut["ticks"] // 300, 2000)
    cut = drive(load(guest, command_line, profile, cache_model), lambda ticks: ticks + rng.randrange(1, longest))
    assert_equal(cut, uncut)


@pytest.mark.parametrize("guest, command_line", [guest for guest in GUESTS if guest[0] != "irq"])
def test_stepping_by_instruction_changes_nothing(guest: str, command_line: str) -> None:
    """Single instructions, which never run a kept block."""
    key = guest, command_line, "p4_prescott", "tables"
    assert_equal(drive(load(*key), single=True), whole(*key))


@pytest.mark.parametrize("cache_model", ("tables", "all"))
@pytest.mark.parametrize("guest, command_line", GUESTS)
def test_discarding_decoded_code_changes_nothing(guest: str, command_line: str, cache_model: str) -> None:
    """All blocks are forgotten at each of many random points."""
    rng = random.Random(guest)
    key = guest, command_line, "p4_prescott", cache_model
    longest = max(whole(*key)["ticks"] // 100, 2000)
    cut = drive(load(*key), lambda ticks: ticks + rng.randrange(1, longest), discard=True)
    assert_equal(cut, whole(*key))


@pytest.mark.parametrize("slice_ticks", (64, 700, 3000))
def test_a_halt_is_one_event_however_its_time_is_cut(slice_ticks: int) -> None:
    """HLT until the host's timer: one halt of the same length, whatever the budgets between."""
    ledgers = []
    for step in (None, slice_ticks):
        machine = BareMachine()
        cpu = machine.cpu
        machine.write_code(b"\xfb\x90" + HLT)
        cpu.timer, cpu.timer_vector, cpu.rip = 20_000, 20, CODE
        outcome = BUDGET
        while outcome == BUDGET:
            cpu.budget = NEVER if step is None else int(cpu.ticks) + step
            outcome = machine.processor.run()
        assert outcome == HOOK
        ledgers.append(machine.processor.ledger())
    assert ledgers[0] == ledgers[1]
    assert ledgers[0].event_count("idle.halt") == 1


SCRIPT = """
import json, sys
from x86virt import api
result = api.run(sys.argv[1], command_line=sys.argv[2])
json.dump({"ticks": result.ticks, "instructions": result.instructions, "console": result.console.decode("latin1"),
           "outcome": result.outcome, "ledger": result.ledger.as_json()}, sys.stdout)
"""


def run_in_process(jit: str, guest: str, command_line: str) -> dict:
    """A run in a process of its own, with the JIT on or off."""
    environment = dict(os.environ, NUMBA_DISABLE_JIT=jit)
    command = [sys.executable, "-c", SCRIPT, guest, command_line]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, timeout=300).stdout)


@pytest.mark.parametrize("guest, command_line", [("hello", ""), ("syscall", "iterations=3")])
def test_the_jit_changes_nothing(guest: str, command_line: str) -> None:
    """The interpreter is the slow naive twin: the same ledger to the tick."""
    compiled, interpreted = (run_in_process(jit, guest, command_line) for jit in ("0", "1"))
    assert compiled["instructions"] > 100
    assert compiled == interpreted
