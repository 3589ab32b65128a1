"""A machine that is talked to: scripts, the text that ends a run, its screen and serial port, and how all of it is saved."""

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_refused
from pc_guests import CLOCK, PARROT, PARROT_AT, assembled, parrot, script_file

import x86virt as x86virt_package
from x86virt.api import Setup, make_setup
from x86virt.console.conversation import Conversation
from x86virt.core.layout import NEVER
from x86virt.machine import Machine
from x86virt.saved import machine_bytes, machine_of
from x86virt.start.flat import parse_flat
from x86virt.start.recognise import StartOptions

AT = ("--at", hex(PARROT_AT))
SCRIPT = ":to serial\n:wait ready>\nhello\n:wait ready>\n:key a shift-b\n:pause 0.02\n:type bye Q\n"


def setup() -> Setup:
    return make_setup(memory_bytes=2 << 20, max_cycles=2_000_000_000)


def started(script: str = "", until: str | None = None) -> Machine:
    """A parrot that is about to start."""
    machine = setup().load(parse_flat(assembled(PARROT), "parrot", PARROT_AT))
    if script:
        machine.dialogue.play(script)
    if until is not None:
        machine.dialogue.end_at(until)
    return machine


def test_a_script_types_on_the_line_and_on_the_keyboard(x86virt: Any, tmp_path: Path) -> None:
    answer = x86virt("run", parrot(tmp_path), *AT, *script_file(tmp_path, SCRIPT), "--json", "-")
    assert answer.status == 0, answer.err
    run = answer.json()
    assert run["outcome"] == "halted"
    assert run["serial"] == "ready> hello\r\nready> bye " or run["serial"] == "ready> hello\nready> bye "
    assert run["screen"] == ["ready> hello", "ready> bye"]
    assert run["console"].split() == "1E 9E 2A 30 B0 AA".split(), "the controller translates to set 1"


def test_what_was_said_is_shown_at_the_end(x86virt: Any, tmp_path: Path) -> None:
    answer = x86virt("run", parrot(tmp_path), *AT, *script_file(tmp_path, SCRIPT))
    assert answer.status == 0
    assert "-- serial port ---" in answer.out and "-- screen ---" in answer.out
    assert answer.out.count("ready> hello") == 2


def test_the_serial_port_goes_to_a_file_or_to_standard_output(x86virt: Any, tmp_path: Path) -> None:
    target = tmp_path / "serial.txt"
    answer = x86virt("run", parrot(tmp_path), *AT, *script_file(tmp_path, SCRIPT), "--serial", str(target))
    assert target.read_bytes() == b"ready> hello\r\nready> bye "
    assert "-- serial port ---" not in answer.out
    answer = x86virt("run", parrot(tmp_path), *AT, *script_file(tmp_path, SCRIPT), "--serial", "-")
    assert answer.out.startswith("ready> hello\r\nready> bye "), "raw, and before everything else"


def test_until_ends_the_run_with_success(x86virt: Any, tmp_path: Path) -> None:
    for text, script in (("ready>", ""), ("hello", SCRIPT), ("1E 9E", SCRIPT)):
        answer = x86virt("run", parrot(tmp_path), *AT, *script_file(tmp_path, script), "--until", text, "--json", "-")
        assert (answer.status, answer.json()["outcome"]) == (0, "until"), text
        assert answer.err == ""


def test_a_run_that_a_text_ends_is_recorded_and_accepted(x86virt: Any, tmp_path: Path) -> None:
    log = str(tmp_path / "log.json")
    script = script_file(tmp_path, SCRIPT)
    first = x86virt("run", parrot(tmp_path), *AT, *script, "--until", "1E 9E", "--record", log, "--json", "-")
    again = x86virt("run", parrot(tmp_path), *AT, "--replay", log, "--json", "-")
    assert (first.status, again.status) == (0, 0), first.err + again.err
    assert "accepted" in again.err
    for name in ("outcome", "instructions", "console", "serial", "screen"):
        assert first.json()[name] == again.json()[name], name
    assert first.json()["outcome"] == "until"


@pytest.mark.parametrize(
    ("last", "status", "words"),
    [("Q", 1, "--until: the run ended without"), ("F", 3, "did not end well"), ("H", 3, "halted"), ("x", 4, "budget")],
)
def test_a_text_that_does_not_come(x86virt: Any, tmp_path: Path, last: str, status: int, words: str) -> None:
    script = script_file(tmp_path, f":to serial\n:wait ready>\n:type {last}\n")
    answer = x86virt("run", parrot(tmp_path), *AT, *script, "--until", "never", "--max-cycles", "300000000")
    assert answer.status == status, answer.err
    assert words in answer.err and "'never'" in answer.err


def test_a_wait_that_was_not_fulfilled_is_named(x86virt: Any, tmp_path: Path) -> None:
    script = script_file(tmp_path, ":wait unheard of\n")
    answer = x86virt("run", parrot(tmp_path), *AT, *script, "--max-cycles", "100000000")
    assert answer.status == 4
    assert "still waited for 'unheard of'" in answer.err


def test_a_reset_without_firmware_ends_the_run(x86virt: Any, tmp_path: Path) -> None:
    script = script_file(tmp_path, ":to serial\n:wait ready>\n:type R\n")
    answer = x86virt("run", parrot(tmp_path), *AT, *script, "--json", "-")
    assert (answer.status, answer.json()["outcome"]) == (0, "reset")


def test_a_guest_may_switch_its_power_off() -> None:
    result = started(":to serial\n:wait ready>\n:type P\n").run(2_000_000_000)
    assert result.outcome == "halted"


def test_the_python_interface_takes_the_same(tmp_path: Path) -> None:
    target = tmp_path / "serial.txt"
    conversation = Conversation(script=SCRIPT, until="bye", serial=str(target))
    result = x86virt_package.run(
        parrot(tmp_path), start=StartOptions(at=PARROT_AT), conversation=conversation, memory_bytes=2 << 20, rtc=0
    )
    assert (result.outcome, result.serial) == ("until", b"ready> hello\r\nready> bye")
    assert result.screen is not None and result.screen.lines == ["ready> hello", "ready> bye"]
    assert result.screen.cursor is not None
    assert target.read_bytes() == result.serial
    with pytest.raises(x86virt_package.UserError, match="unknown key"):
        Conversation(script=":key nothing")


def test_bad_conversations_are_refused_in_one_line(x86virt: Any, tmp_path: Path) -> None:
    guest = parrot(tmp_path)
    latin = tmp_path / "latin.txt"
    latin.write_bytes(b"gr\xfc\xdfe")
    for options, words in (
        (("--input", str(tmp_path / "none")), ("cannot be read", "No such file")),
        (("--input", str(tmp_path)), ("cannot be read",)),
        (("--input", str(latin)), ("not UTF-8 at byte 2",)),
        (script_file(tmp_path, ":key entre"), ("line 1", "unknown key 'entre'", "did you mean")),
        (("--until", ""), ("empty text",)),
        (("--serial", str(tmp_path)), ("cannot be written",)),
        (("--serial", str(tmp_path / "none" / "x")), ("cannot be written",)),
        (("--screen",), ("--screen", "needs a terminal")),
        (("--screen", "--serial", "-"), ("both want the terminal",)),
        (("--json", "-", "--serial", "-"), ("both want standard output",)),
        (("--replay", str(tmp_path / "log"), "--until", "x"), ("--replay takes no", "stands in the record")),
        (("--replay", str(tmp_path / "log"), "--serial", str(tmp_path / "serial")), ("--replay takes no",)),
        (("-s", "all", "--serial", "-"), ("take one strategy",)),
    ):
        assert_refused(x86virt("run", guest, *AT, *options), *words)


# -- time -------------------------------------------------------------------------------------------------------------


def test_looking_changes_no_cycle() -> None:
    """Nobody looks, somebody looks, and the run in slices: the same instructions, ticks and texts."""
    results = []
    for conversation in (None, Conversation(until="never said")):
        machine = setup().load(parse_flat(assembled(CLOCK), "clock", 0x7C00))
        if conversation is not None:
            machine.dialogue.end_at("never said")
        results.append(machine.run(2_000_000_000))
    for result in results:
        assert (result.outcome, result.console) == ("halted", b"t" * 10)
    assert (results[0].ticks, results[0].instructions) == (results[1].ticks, results[1].instructions)


def test_a_script_is_played_alike_in_slices() -> None:
    whole = started(SCRIPT).run(2_000_000_000)
    machine = started(SCRIPT)
    while machine.outcome is None:
        machine.advance(int(machine.processor.cpu.retired) + 77_777, 2_000_000_000)
    sliced = machine.run()
    assert (sliced.ticks, sliced.instructions, sliced.serial, sliced.console) == (
        whole.ticks, whole.instructions, whole.serial, whole.console,
    )  # fmt: skip


# -- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cycle", [1_000_000, 31_000_000, 75_000_000, 110_000_000, 140_000_000])
def test_a_run_that_was_saved_amid_its_script_ends_alike(cycle: int) -> None:
    whole = started(SCRIPT, "never").run(2_000_000_000)
    machine = started(SCRIPT, "never")
    assert machine.advance(NEVER, 2_000_000_000, cycle)
    restored = machine_of(machine_bytes(machine), "test")
    result = restored.run(2_000_000_000)
    assert (result.outcome, result.ticks, result.instructions) == (whole.outcome, whole.ticks, whole.instructions)
    assert (result.serial, result.console, result.screen) == (whole.serial, whole.console, whole.screen)


def test_the_text_that_ends_a_run_is_saved(x86virt: Any, tmp_path: Path) -> None:
    saved = str(tmp_path / "saved")
    script = script_file(tmp_path, SCRIPT)
    first = x86virt(
        "run", parrot(tmp_path), *AT, *script, "--until", "1E 9E", "--save", saved, "--save-at", "50000000", "--json", "-"
    )
    again = x86virt("run", "--restore", saved, "--json", "-")
    assert first.json()["outcome"] == again.json()["outcome"] == "until"
    for name in ("cycles", "instructions", "serial", "console", "screen"):
        assert first.json()[name] == again.json()[name]


def test_a_restored_machine_takes_another_script(x86virt: Any, tmp_path: Path) -> None:
    saved = str(tmp_path / "saved")
    x86virt("run", parrot(tmp_path), *AT, "--max-cycles", "60000000", "--save", saved, "--save-at", "50000000")
    script = script_file(tmp_path, ":to serial\nanew\n:wait anew\n:type Q\n")
    options = *script, "--max-cycles", "2000000000", "--serial", str(tmp_path / "line"), "--json", "-"
    answer = x86virt("run", "--restore", saved, *options)
    assert answer.json()["outcome"] == "halted"
    assert (tmp_path / "line").read_bytes() == b"ready> anew\r\nready> "


def test_a_restored_machine_keeps_its_budget(x86virt: Any, tmp_path: Path) -> None:
    saved = str(tmp_path / "saved")
    budget = "--max-cycles", "60000000"
    x86virt("run", parrot(tmp_path), *AT, *budget, "--save", saved, "--save-at", "50000000")
    answer = x86virt("run", "--restore", saved, "--json", "-")
    assert (answer.status, answer.json()["outcome"]) == (4, "budget")
    assert 60_000_000 <= answer.json()["cycles"] < 60_100_000
    longer = x86virt("run", "--restore", saved, "--max-cycles", "70000000", "--json", "-")
    assert 70_000_000 <= longer.json()["cycles"] < 70_100_000


def damaged(content: bytes, change: Any) -> bytes:
    """A saved machine whose manifest was changed, with a hash that fits."""
    import hashlib

    from x86virt.saved import HASH_BYTES, HEAD

    magic, version, length = HEAD.unpack_from(content)
    manifest = json.loads(content[HEAD.size : HEAD.size + length])
    change(manifest["machine"]["dialogue"])
    head = json.dumps(manifest).encode()
    body = HEAD.pack(magic, version, len(head)) + head + content[HEAD.size + length : -HASH_BYTES]
    return body + hashlib.sha256(body).digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(script=":key nonsense"),
        lambda state: state.update(script=7),
        lambda state: state.pop("script"),
        lambda state: state.update(until=[]),
        lambda state: state.update(until=["x", {"printer": 3}]),
        lambda state: state.update(until=["x", {"console": -1}]),
        lambda state: state.update(transcript=[0, ["x" * 1000], 0]),
        lambda state: state.update(transcript=[-1, [], 0]),
        lambda state: state.update(transcript=None),
        lambda state: state["player"].update(position=10**9),
        lambda state: state["player"].update(stroke=-1),
        lambda state: state["player"].update(octet=99),
        lambda state: state["player"].update(places={"console": "x"}),
        lambda state: state["player"].update(watch=7),
        lambda state: state.update(player=[]),
    ],
)
def test_a_damaged_dialogue_is_refused_in_one_line(change: Any) -> None:
    machine = started(SCRIPT)
    machine.advance(NEVER, 2_000_000_000, 40_000_000)
    with pytest.raises(ValueError) as caught:
        machine_of(damaged(machine_bytes(machine), change), "file")
    assert len(str(caught.value).splitlines()) == 1 and "file" in str(caught.value)
