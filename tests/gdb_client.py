"""A debugger's side of `x86virt gdb` for tests: a server in a thread, a raw client, and the real gdb in batch mode."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from debian_packages import REQUIRED
from profile_for import profile_for

from x86virt.api import make_setup
from x86virt.gdb.framing import Connection
from x86virt.gdb.server import LOOPBACK, Server
from x86virt.gdb.session import Left
from x86virt.gdb.travel import Travel
from x86virt.guests import find_guest, guests
from x86virt.machine import Machine

MEMORY_BYTES = 2 << 20
SECONDS = 60.0
needs_gdb = pytest.mark.skipif(shutil.which("gdb") is None and not REQUIRED, reason="gdb is not installed")


def machine_of(guest: str, strategy: str = "native", command_line: str = "iterations=1") -> Machine:
    """A machine before its guest's first instruction."""
    machine = make_setup(strategy, profile_for(strategy), memory_bytes=8 << 20 if guest == "pgfault" else MEMORY_BYTES).machine()
    machine.load(find_guest(guest), command_line)
    return machine


def checked(payload: bytes) -> bytes:
    """A packet."""
    return b"$%s#%02x" % (payload, sum(payload) & 0xFF)


class Client:
    """A client that speaks the protocol by itself."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.stream.settimeout(SECONDS)
        self.received = b""
        self.console = ""

    def send(self, octets: bytes) -> None:
        self.stream.sendall(octets)

    def ask(self, payload: str | bytes) -> str:
        """The answer to a packet; what the server shows meanwhile is kept in `console`."""
        self.send(checked(payload.encode() if isinstance(payload, str) else payload))
        while True:
            answer = self.packet()
            if not answer.startswith("O") or answer == "OK":
                return answer
            self.console += bytes.fromhex(answer[1:]).decode()

    def packet(self) -> str:
        """The next packet, acknowledged."""
        while b"#" not in self.received or len(self.received) < self.received.index(b"#") + 3:
            octets = self.stream.recv(65536)
            if not octets:
                raise EOFError
            self.received += octets
        end = self.received.index(b"#")
        payload = self.received[self.received.index(b"$") + 1 : end]
        assert b"%02x" % (sum(payload) & 0xFF) == self.received[end + 1 : end + 3]
        self.received = self.received[end + 3 :]
        with contextlib.suppress(BrokenPipeError):  # the answer to a detachment may be followed by the end at once
            self.send(b"+")
        return payload.decode()

    def monitor(self, line: str) -> str:
        """The text of a monitor command."""
        before = len(self.console)
        assert self.ask(f"qRcmd,{line.encode().hex()}") == "OK"
        return self.console[before:]


class Talk:
    """One conversation with a machine, in a thread of its own."""

    def __init__(self, travel: Travel) -> None:
        ours, theirs = socket.socketpair()
        self.client = Client(ours)
        self.left: Left | None = None
        self.failure: BaseException | None = None
        self.thread = threading.Thread(target=self.run, args=(travel, theirs), daemon=True)
        self.thread.start()

    def run(self, travel: Travel, stream: socket.socket) -> None:
        try:
            self.left = Server.talk(travel, Connection(stream))
        except BaseException as error:
            self.failure = error
            stream.close()

    def end(self) -> Left:
        """Hang up, and wait for the server to notice."""
        self.client.stream.close()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive(), "the server hangs"
        if self.failure is not None:
            raise self.failure
        assert self.left is not None
        return self.left


@contextlib.contextmanager
def talking(travel: Travel) -> Iterator[Client]:
    """A client of a machine, from its beginning to its end."""
    talk = Talk(travel)
    try:
        yield talk.client
    finally:
        talk.end()


def run_gdb(machine: Machine, guest: str, commands: list[str], folder: Path) -> str:
    """What the real gdb prints for a list of commands."""
    server = Server(0)
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve(Travel(machine), once=True)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    script = folder / "commands.gdb"
    head = ["set pagination off", "set confirm off", f"target remote {LOOPBACK}:{server.port}"]
    script.write_text("\n".join([*head, *commands]) + "\n")
    found = subprocess.run(
        ["gdb", "-q", "-nx", "-batch", str(guests()[guest].path), "-x", str(script)],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    thread.join(SECONDS)
    assert not thread.is_alive(), "the server did not end with its client"
    if failures:
        raise failures[0]
    assert found.returncode == 0, found.stderr
    return found.stdout + found.stderr
