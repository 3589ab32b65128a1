"""A person at a terminal: the command line in a pseudo-terminal, which is given back as it was however the run ends."""

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest
from pc_guests import CLOCK, PARROT_AT, assembled, parrot

from x86virt.console.visitors import LONGEST_SLEEP, Person
from x86virt.profile import load_profile

LIMIT = 120  # seconds; a compilation may come first


class Session:
    """The command line at a pseudo-terminal."""

    def __init__(self, *arguments: str) -> None:
        self.ours, self.theirs = pty.openpty()
        self.before = termios.tcgetattr(self.theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "x86virt", "run", *arguments],
            stdin=self.theirs, stdout=self.theirs, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self.seen = b""

    def until(self, text: bytes, behind: int = 0) -> int:
        """Read until the text appears behind a place; returns where it ends."""
        deadline = time.monotonic() + LIMIT
        while text not in self.seen[behind:]:
            ready, _, _ = select.select([self.ours], [], [], max(deadline - time.monotonic(), 0))
            assert ready and self.read(), f"no {text!r} in {self.seen!r}"
        return self.seen.index(text, behind) + len(text)

    def read(self) -> bytes:
        ready, _, _ = select.select([self.ours], [], [], 0)
        octets = os.read(self.ours, 65536) if ready else b""
        self.seen += octets
        return octets

    def type(self, octets: bytes) -> None:
        os.write(self.ours, octets)

    def end(self) -> int:
        """The exit status; the terminal is as it was before."""
        deadline = time.monotonic() + LIMIT
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            select.select([self.ours], [], [], 0.05)
            self.read()
        while self.read():
            pass
        assert termios.tcgetattr(self.theirs) == self.before
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()
        os.close(self.ours)
        os.close(self.theirs)


@pytest.fixture
def session(request: pytest.FixtureRequest):
    sessions = []

    def start(*arguments: str) -> Session:
        sessions.append(Session(*arguments))
        return sessions[-1]

    yield start
    for each in sessions:
        each.close()


def guest(tmp_path: Path) -> tuple[str, ...]:
    return parrot(tmp_path), "--at", hex(PARROT_AT), "--memory", "2M"


def test_the_serial_line_is_a_persons(session, tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    person = session(*guest(tmp_path), "--serial", "-", "--json", str(target))
    place = person.until(b"ready> ")
    person.type(b"hi\x03\r")
    place = person.until(b"hi\x03\r\nready> ", place)
    person.type(b"\x01h")
    place = person.until(b"Ctrl-A x: leave", place)
    person.type(b"\x01\x01")
    person.until(b"\x01", place)
    person.type(b"\x01x")
    assert person.end() == 0
    run = json.loads(target.read_text(encoding="utf-8"))
    assert run["outcome"] == "left"
    assert run["serial"].startswith("ready> hi")


def test_the_screen_and_the_keyboard_are_a_persons(session, tmp_path: Path) -> None:
    person = session(*guest(tmp_path), "--screen")
    place = person.until(b"ready> ")
    assert b"\x1b[?1049h" in person.seen[:place], "on the terminal's other screen"
    person.type(b"a\x1b[A")
    time.sleep(1)
    person.type(b"\x01x")
    assert person.end() == 0
    last = person.seen.rindex(b"\x1b[?1049l")
    assert b"1E 9E E0 48 E0 C8" in person.seen[last:], "what was typed, in set 1, on the console that is shown at the end"
    assert b"-- screen ---" in person.seen[last:]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_gives_the_terminal_back(session, tmp_path: Path, number: int) -> None:
    person = session(*guest(tmp_path), "--serial", "-")
    person.until(b"ready> ")
    assert termios.tcgetattr(person.theirs) != person.before
    person.process.send_signal(number)
    assert person.end() == 128 + number


def test_an_idle_guest_does_not_run_ahead_of_time(session, tmp_path: Path) -> None:
    """A guest that is halted but for ticks of the timer could do minutes in a second."""
    image = tmp_path / "idle.bin"
    image.write_bytes(assembled(CLOCK.replace("mov     cx, 10", "mov     cx, 0")))
    target = tmp_path / "run.json"
    person = session(str(image), "--at", "0x7c00", "--memory", "2M", "--serial", "-", "--json", str(target))
    begin = time.monotonic()
    time.sleep(4)
    person.type(b"\x01x")
    assert person.end() == 0
    elapsed = time.monotonic() - begin
    cycles = json.loads(target.read_text(encoding="utf-8"))["cycles"]
    assert 0 < cycles < (elapsed + 0.5) * float(load_profile("p4_prescott")["cpu.mhz"]) * 1e6


class Clock:
    """A dialogue as far as a person's clock sees it."""

    ticks_per_second = 1000

    def __init__(self) -> None:
        self.hardware = self
        self.now = 0


def test_time_that_was_lost_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nobody:
        leave = None

    real = [0.0]
    monkeypatch.setattr("x86virt.console.visitors.time.monotonic", lambda: real[0])
    person, clock = Person(Nobody()), Clock()  # type: ignore[arg-type]
    assert person.ahead(clock) == 0  # type: ignore[arg-type]
    steps = (0.0, 10, 0.01), (0.01, 10, 0.01), (5.0, 10, 0.0), (0.0, 10, 0.01), (0.02, 500, LONGEST_SLEEP)
    for real_step, step, ahead in steps:
        real[0] += real_step
        clock.now += step
        assert person.ahead(clock) == pytest.approx(ahead), (real_step, step)  # type: ignore[arg-type]
