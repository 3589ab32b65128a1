"""The command line's files: saved machines and input logs, made, used, and refused in one line; isolation and TLBs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Answer, assert_refused

IRQ = ("irq", "--memory", "8M", "-c", "iterations=1")
PGFAULT = ("pgfault", "--memory", "8M", "-c", "iterations=3")
UNDER = ("native", "trap-and-emulate")
SAVE_AT = "200000"
TEMPORARY: dict[str, Path] = {}


def save(x86virt: Any, folder: Path, strategy: str = "native") -> tuple[Path, Answer]:
    """A saved machine and the answer of the run that saved it; each is made once."""
    path = folder / "machine"
    answer = x86virt("run", *PGFAULT, "-s", strategy, "--save", str(path), "--save-at", SAVE_AT, "--json", "-")
    assert answer.status == 0, answer.err
    return path, answer


def record(x86virt: Any, folder: Path) -> Path:
    """An input log of the guest irq, made once."""
    path = TEMPORARY.get("log")
    if path is None:
        path = folder / "log.json"
        answer = x86virt("run", *IRQ, "-s", "trap-and-emulate", "--record", str(path))
        assert answer.status == 0 and "interrupts" in answer.err, answer.err
        TEMPORARY["log"] = path
    copy = folder / "copy.json"
    shutil.copy(path, copy)
    return copy


# -- save and restore -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", UNDER)
def test_a_restored_run_prints_what_the_unbroken_one_does(x86virt: Any, tmp_path: Path, strategy: str) -> None:
    path, saving = save(x86virt, tmp_path, strategy)
    assert f"{path}: saved at cycle 2" in saving.err
    plain = x86virt("run", *PGFAULT, "-s", strategy, "--json", "-")
    restored = x86virt("run", "--restore", str(path), "--json", "-")
    assert plain.status == saving.status == restored.status == 0
    assert plain.out == saving.out == restored.out
    again = tmp_path / "again"
    third = x86virt("run", "--restore", str(path), "--save", str(again), "--save-at", "220000", "--json", "-")
    assert third.out == plain.out
    assert x86virt("run", "--restore", str(again), "--json", "-").out == plain.out


def test_a_run_that_ends_before_says_that_nothing_was_saved(x86virt: Any, tmp_path: Path) -> None:
    path = tmp_path / "machine"
    answer = x86virt("run", "hello", "--save", str(path), "--save-at", "900000000")
    assert answer.status == 0 and "not written" in answer.err and not path.exists()


def test_damaged_machines_are_refused(x86virt: Any, tmp_path: Path) -> None:
    path, _ = save(x86virt, tmp_path)
    octets = path.read_bytes()
    middle = len(octets) // 2
    bad = {
        "empty": b"", "text": b"{}\n", "head alone": octets[:20], "truncated": octets[:-1], "half": octets[:middle],
        "altered": octets[:middle] + bytes([octets[middle] ^ 1]) + octets[middle + 1 :], "longer": octets + b"\0",
        "version": octets[:16] + bytes([octets[16] + 1]) + octets[17:],
    }  # fmt: skip
    for name, content in bad.items():
        path.write_bytes(content)
        assert_refused(x86virt("run", "--restore", str(path)), str(path)), name
    for missing in (tmp_path / "nothing", tmp_path):
        assert_refused(x86virt("run", "--restore", str(missing)), "cannot be read")


def test_a_saved_machine_keeps_its_profile_and_strategy(x86virt: Any, tmp_path: Path) -> None:
    path, _ = save(x86virt, tmp_path)
    assert_refused(x86virt("run", "--restore", str(path), "-p", "core2_woodcrest"), "profile")
    assert_refused(x86virt("run", "--restore", str(path), "-s", "trap-and-emulate"), "strategy")
    for option in (["--memory", "8M"], ["--cache-model", "all"], ["-c", "iterations=2"], ["--check-isolation"]):
        assert_refused(x86virt("run", "--restore", str(path), *option), "stands in the file of --restore")


def assert_not_accepted(answer: Answer, what: str) -> None:
    """Status 1, and one line that says why."""
    assert (answer.status, answer.out, answer.err.count("\n")) == (1, "", 1), answer.err
    assert "the bare machine refuses it: " in answer.err and what in answer.err


# -- record and replay --------------------------------------------------------------------------------------------------


def test_a_log_is_accepted_by_the_bare_machine(x86virt: Any, tmp_path: Path) -> None:
    path = record(x86virt, tmp_path)
    answer = x86virt("run", "irq", "--memory", "8M", "--replay", str(path), "--json", "-")
    assert answer.status == 0 and "accepted" in answer.err
    identity = json.loads(path.read_text(encoding="utf-8"))["identity"]
    assert answer.json()["instructions"] == identity["instructions"]


def test_a_log_of_another_run_is_not_accepted(x86virt: Any, tmp_path: Path) -> None:
    path = record(x86virt, tmp_path)
    log = json.loads(path.read_text(encoding="utf-8"))
    place = next(number for number, event in enumerate(log["events"]) if "delivery" in event)
    for what, change in (("never at", {"n": 1}), ("gives vector", {"delivery": 0x21})):
        events = [event | change if number == place else event for number, event in enumerate(log["events"])]
        events.sort(key=lambda event: event["n"])
        path.write_text(json.dumps(log | {"events": events}), encoding="utf-8")
        assert_not_accepted(x86virt("run", "irq", "--memory", "8M", "--replay", str(path)), what)
    good = record(x86virt, tmp_path)
    replay = ("--replay", str(good))
    assert_not_accepted(x86virt("run", "clock", "--memory", "8M", *replay), "another image")
    assert_not_accepted(x86virt("run", "irq", "--memory", "8M", "-p", "k8_opteron", *replay), "profile p4_prescott")
    assert_not_accepted(x86virt("run", "irq", "--memory", "4M", *replay), "memory_bytes")


def test_damaged_logs_are_refused(x86virt: Any, tmp_path: Path) -> None:
    path = record(x86virt, tmp_path)
    text = path.read_text(encoding="utf-8")
    other_version = text.replace('"version": 2', '"version": 3')
    for content in ("", "[]", "null", text[:-5], text[: len(text) // 2], other_version, "\x00\xff"):
        path.write_text(content, encoding="latin-1")
        assert_refused(x86virt("run", "irq", "--replay", str(path)), str(path))
    assert_refused(x86virt("run", "irq", "--replay", str(tmp_path / "nothing")), "cannot be read")
    assert_refused(x86virt("run", "irq", "--replay", str(tmp_path)), "cannot be read")


def test_options_that_do_not_go_together(x86virt: Any, tmp_path: Path) -> None:
    file, other = str(tmp_path / "file"), str(tmp_path / "other")
    for arguments in (
        ["run", "hello", "--save", file],
        ["run", "hello", "--save-at", "5"],
        ["run", "hello", "--save", file, "--save-at", "0"],
        ["run", "hello", "--save", file, "--save-at", "many"],
        ["run", "hello", "--save", str(tmp_path), "--save-at", "5"],
        ["run", "hello", "--save", str(tmp_path / "no" / "folder"), "--save-at", "5"],
        ["run", "hello", "--record", str(tmp_path / "no" / "folder")],
        ["run", "hello", "--restore", file],
        ["run", "--restore", file, "--record", other],
        ["run", "hello", "--record", file, "--replay", other],
        ["run", "hello", "--save", file, "--save-at", "5", "--record", other],
        ["run", "hello", "--record", file, "-s", "native", "-s", "trap-and-emulate"],
        ["run", "hello", "--replay", file, "-s", "trap-and-emulate"],
        ["run", "hello", "--replay", file, "-c", "iterations=1"],
        ["run", "--restore", file, "-s", "native", "-s", "trap-and-emulate"],
        ["compare", "hello", "--tlb", "-s", "native"],
        ["compare", "hello", "--tlb", "-p", "no_such_profile"],
        ["compare", "no_such_guest", "--tlb"],
    ):
        assert_refused(x86virt(*arguments))
    assert list(tmp_path.iterdir()) == []


# -- isolation and TLBs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", UNDER)
def test_checking_isolation_changes_nothing(x86virt: Any, strategy: str) -> None:
    answers = [x86virt("run", *PGFAULT, "-s", strategy, "--json", "-", *more) for more in ([], ["--check-isolation"])]
    assert answers[0].status == answers[1].status == 0
    assert answers[0].out == answers[1].out


LEAKY = """
from x86virt import find_strategy
from x86virt.vmm import layout

class Leaky(find_strategy("trap-and-emulate")):
    name = "leaky"

    def setup(self, machine):
        machine.vm.p2m[0x101] = layout.GDT >> 12
"""


def test_a_vmm_that_lets_its_guest_reach_it_is_found(x86virt: Any, tmp_path: Path) -> None:
    """A page of the guest's code is the VMM's GDT."""
    path = tmp_path / "leaky.py"
    path.write_text(LEAKY, encoding="utf-8")
    run = ("run", *PGFAULT, "-s", f"{path}:Leaky", "--max-cycles", "10000000")
    checked = x86virt(*run, "--check-isolation")
    assert checked.status == 1 and "isolation: " in checked.err and "which is not the guest's" in checked.err
    assert len(checked.err.strip().splitlines()) == 1
    assert "isolation" not in x86virt(*run).err


def test_compare_tlb_says_whether_a_guest_keeps_the_rules(x86virt: Any) -> None:
    answer = x86virt("compare", "hello", "--memory", "8M", "--tlb")
    assert answer.status == 0 and answer.out.count("the same state") == 3
    rows = x86virt("compare", "hello", "--memory", "8M", "--tlb", "--json", "-").json()["tlb"]
    assert [row["variant"] for row in rows] == ["one entry", "huge", "flushed at random"]
    assert all(row["equal"] for row in rows)
