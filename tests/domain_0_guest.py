"""A guest of `domain_0_rig` in Python: its console ring, its store ring and its block ring, as the interface describes them."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from domain_0_rig import CONSOLE_PORT, PAGE, STORE_PORT, GuestPage, Rig

from x86virt.vmm.paravirtual import interface as xen

CONSOLE_IN, CONSOLE_OUT = 1024, 2048
IN_CONS, IN_PROD, OUT_CONS, OUT_PROD = 3072, 3076, 3080, 3084
REQ_CONS, REQ_PROD, RSP_CONS, RSP_PROD = 2048, 2052, 2056, 2060
STORE_RING = 1024
FRONT = "device/vbd/768"
BACK = "/local/domain/0/backend/vbd/1/768"
RING_PAGE, RING_REF, BLOCK_PORT = 2, 8, 11
ENTRY, ENTRIES = 108, 32  # a place of the ring holds the longer of request and response
REQ, REQ_EVENT, RSP, RSP_EVENT, RING = 0, 4, 8, 12, 64


class Console:
    """The guest's end of the console ring."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.page = rig, rig.pages[0]

    def say(self, octets: bytes) -> None:
        """Write to the ring, as much at a time as there is room for."""
        while octets:
            cons, prod = self.page.word(OUT_CONS), self.page.word(OUT_PROD)
            room = CONSOLE_OUT - (prod - cons & 0xFFFFFFFF)
            for octet in octets[:room]:
                self.page.octets[1024 + prod % CONSOLE_OUT] = octet
                prod += 1
            self.page.put(OUT_PROD, prod)
            self.rig.notify(CONSOLE_PORT)
            octets = octets[room:]

    def heard(self) -> bytes:
        """Take what has come in."""
        cons, prod = self.page.word(IN_CONS), self.page.word(IN_PROD)
        octets = bytes(self.page.octets[place % CONSOLE_IN] for place in range(cons, prod))
        self.page.put(IN_CONS, prod)
        return octets


class StoreError(Exception):
    """The store's own word for what is wrong."""


@dataclass
class Store:
    """The guest's end of the store ring."""

    rig: Rig
    watched: list[tuple[str, str]] = field(default_factory=list)
    number: int = 0

    @property
    def page(self) -> GuestPage:
        return self.rig.pages[1]

    def send(self, octets: bytes) -> None:
        """Bytes into the ring, waiting for room."""
        while octets:
            prod = self.page.word(REQ_PROD)
            room = STORE_RING - (prod - self.page.word(REQ_CONS) & 0xFFFFFFFF)
            assert room, "the store takes nothing"
            for octet in octets[:room]:
                self.page.octets[prod % STORE_RING] = octet
                prod += 1
            self.page.put(REQ_PROD, prod)
            self.rig.notify(STORE_PORT)
            octets = octets[room:]

    def receive(self, count: int) -> bytes:
        """Bytes from the ring."""
        octets = bytearray()
        while len(octets) < count:
            cons, prod = self.page.word(RSP_CONS), self.page.word(RSP_PROD)
            assert prod != cons, "the store says nothing"
            taken = min(count - len(octets), prod - cons)
            octets += bytes(self.page.octets[1024 + place % STORE_RING] for place in range(cons, cons + taken))
            self.page.put(RSP_CONS, cons + taken)
            self.rig.notify(STORE_PORT)
        return bytes(octets)

    def message(self) -> tuple[int, int, int, bytes]:
        """Type, request number, transaction, payload."""
        kind, number, transaction, length = struct.unpack("<4I", self.receive(16))
        return kind, number, transaction, self.receive(length)

    def ask(self, kind: int, payload: bytes, transaction: int = 0) -> bytes:
        """A request and its reply; watch events that come between are kept."""
        self.number += 1
        self.send(struct.pack("<4I", kind, self.number, transaction, len(payload)) + payload)
        while True:
            got, number, of, answer = self.message()
            if got != xen.XS_WATCH_EVENT:
                break
            path, token, _ = answer.split(b"\0")
            self.watched.append((path.decode(), token.decode()))
        assert (number, of) == (self.number, transaction)
        if got == xen.XS_ERROR:
            raise StoreError(answer.rstrip(b"\0").decode())
        assert got == kind
        return answer

    def events(self) -> list[tuple[str, str]]:
        """Watch events so far."""
        while self.page.word(RSP_CONS) != self.page.word(RSP_PROD):
            kind, _, _, answer = self.message()
            assert kind == xen.XS_WATCH_EVENT
            path, token, _ = answer.split(b"\0")
            self.watched.append((path.decode(), token.decode()))
        events, self.watched = self.watched, []
        return events

    def read(self, path: str, transaction: int = 0) -> str:
        """A value."""
        return self.ask(xen.XS_READ, path.encode() + b"\0", transaction).decode()

    def write(self, path: str, value: str | int, transaction: int = 0) -> None:
        """Set a value."""
        assert self.ask(xen.XS_WRITE, f"{path}\0{value}".encode(), transaction) == b"OK\0"

    def directory(self, path: str, transaction: int = 0) -> list[str]:
        """The names below a path."""
        return self.ask(xen.XS_DIRECTORY, path.encode() + b"\0", transaction).decode().split("\0")[:-1]

    def begin(self) -> int:
        """A transaction's number."""
        return int(self.ask(xen.XS_TRANSACTION_START, b"\0").rstrip(b"\0"))

    def end(self, transaction: int, commit: bool = True) -> None:
        """Commit or give up."""
        assert self.ask(xen.XS_TRANSACTION_END, b"T\0" if commit else b"F\0", transaction) == b"OK\0"


@dataclass(frozen=True)
class Segment:
    """Sectors of a page, by its grant."""

    reference: int
    first: int = 0
    last: int = 7


class Block:
    """A block front end; requests are bytes, so that a test can make bad ones."""

    def __init__(self, rig: Rig, store: Store) -> None:
        self.rig, self.store, self.page = rig, store, rig.pages[RING_PAGE]
        self.requests = self.responses = 0

    def connect(self, reference: int = RING_REF, port: int = BLOCK_PORT) -> str:
        """Go through the states of xenbus; returns the back end's state."""
        assert self.store.read(f"{FRONT}/backend") == BACK and self.store.read(f"{BACK}/state") == "2"
        self.rig.grant(reference, RING_PAGE)
        self.page.octets[:] = bytes(PAGE)
        self.page.put(REQ_EVENT, 1)
        self.page.put(RSP_EVENT, 1)
        self.requests = self.responses = 0
        self.store.write(f"{FRONT}/ring-ref", reference)
        self.store.write(f"{FRONT}/event-channel", port)
        self.store.write(f"{FRONT}/state", 3)
        state = self.store.read(f"{BACK}/state")
        if state == "4":
            self.store.write(f"{FRONT}/state", 4)
        return state

    def put(self, operation: int, sector: int, *segments: Segment, name: int = 0, count: int | None = None) -> None:
        """A request into the ring, not yet told."""
        octets = struct.pack("<BBHQQ", operation, len(segments) if count is None else count, 768, name, sector)
        octets += b"".join(struct.pack("<IBBH", row.reference, row.first, row.last, 0) for row in segments)
        self.put_octets(octets)

    def put_octets(self, octets: bytes) -> None:
        """Any bytes as a request."""
        place = RING + self.requests % ENTRIES * ENTRY
        self.page.octets[place : place + len(octets)] = octets
        self.requests += 1

    def push(self) -> bool:
        """Show the requests to the back end; whether it wants to be told."""
        before = self.page.word(REQ)
        self.page.put(REQ, self.requests)
        return (self.requests - self.page.word(REQ_EVENT)) & 0xFFFFFFFF < (self.requests - before) & 0xFFFFFFFF

    def take(self) -> list[tuple[int, int, int]]:
        """The responses that are there: id, operation, status."""
        rows = []
        while self.responses != self.page.word(RSP):
            place = RING + self.responses % ENTRIES * ENTRY
            rows.append(struct.unpack_from("<QBxh", self.page.octets, place))
            self.responses += 1
        self.page.put(RSP_EVENT, self.responses + 1)
        return rows

    def ask(self, operation: int, sector: int, *segments: Segment, count: int | None = None) -> int:
        """One request, waited for; its status."""
        self.put(operation, sector, *segments, name=0x1234_5678_9ABC_DEF0, count=count)
        if self.push():
            self.rig.notify(BLOCK_PORT)
        ((name, answered, status),) = self.take()
        assert (name, answered) == (0x1234_5678_9ABC_DEF0, operation)
        return status
