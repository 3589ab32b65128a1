"""Packets of gdb's remote serial protocol on a connection (the manual of GDB, appendix E, "Overview").

`$payload#checksum`, acknowledged by `+` or refused by `-` until both sides agree to leave that out; `}` escapes a byte;
0x03 by itself asks a running machine to stop. Whatever else arrives is passed over.
"""

import select
import socket
import time

LONGEST_PACKET = 1 << 14  # bytes of a payload, both ways; gdb is told so
LONGEST_LINE = 4 * LONGEST_PACKET  # bytes that may wait without making a packet
SEND_SECONDS = 20.0  # for a client that does not read
NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
INTERRUPT = b"\x03"
ESCAPE, ESCAPE_BIT = 0x7D, 0x20
ESCAPED = b"#$}*"


class ConnectionLost(Exception):
    """The client has gone, or does not read what it is sent."""


def checksum(payload: bytes) -> bytes:
    """Two hexadecimal digits."""
    return b"%02x" % (sum(payload) & 0xFF)


def escape(octets: bytes) -> bytes:
    """Binary data as it stands in a packet."""
    return b"".join(
        bytes([ESCAPE, octet ^ ESCAPE_BIT]) if octet in ESCAPED else bytes([octet]) for octet in octets
    )


def unescape(octets: bytes) -> bytes:
    """Binary data out of a packet; an escape that nothing follows stands for nothing."""
    pieces = bytearray()
    escaped = False
    for octet in octets:
        if escaped:
            pieces.append(octet ^ ESCAPE_BIT)
            escaped = False
        elif octet == ESCAPE:
            escaped = True
        else:
            pieces.append(octet)
    return bytes(pieces)


class Connection:
    """One client."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.stream.settimeout(SEND_SECONDS)
        self.acknowledged = True
        self.received = bytearray()
        self.sent = b""

    def close(self) -> None:
        """Hang up."""
        self.stream.close()

    def packet(self) -> bytes:
        """The payload of the next packet, however long it takes. Raises ConnectionLost."""
        while True:
            payload = self.take()
            if payload is not None and payload != INTERRUPT:
                return payload
            if payload is None:
                self.receive(None)

    def interrupted(self) -> bool:
        """Whether the client asks a running machine to stop; packets that came meanwhile are kept. Raises ConnectionLost."""
        while self.receive(0.0):
            pass
        place = self.first_interrupt()
        if place < 0:
            return False
        del self.received[place]
        return True

    def first_interrupt(self) -> int:
        """Where 0x03 stands outside of a packet, -1 for nowhere."""
        place = 0
        while place < len(self.received):
            if self.received[place] == INTERRUPT[0]:
                return place
            if self.received[place] == ord("$"):
                end = self.received.find(b"#", place)
                if end < 0:
                    return -1
                place = end + 2
            place += 1
        return -1

    def send(self, payload: bytes) -> None:
        """Send a packet; while packets are acknowledged, the client's `-` asks for it once more. Raises ConnectionLost."""
        self.sent = b"$" + payload + b"#" + checksum(payload)
        self.write(self.sent)

    # -- bytes ----------------------------------------------------------------------------------------------------

    def take(self) -> bytes | None:
        """The next whole packet of what has arrived, or INTERRUPT; None if there is none."""
        while self.received:
            first = self.received[0]
            if first == ord("$"):
                end = self.received.find(b"#")
                if end < 0 or len(self.received) < end + 3:
                    self.drop_too_long()
                    return None
                payload, given = bytes(self.received[1:end]), bytes(self.received[end + 1 : end + 3])
                del self.received[: end + 3]
                if self.accept(payload, given):
                    return payload
                continue
            del self.received[0]
            if first == INTERRUPT[0]:
                return INTERRUPT
            if first == ord("-") and self.acknowledged and self.sent:
                self.write(self.sent)
        return None

    def drop_too_long(self) -> None:
        """A packet that is longer than any may be is dropped with its beginning."""
        if len(self.received) > LONGEST_LINE:
            self.received.clear()
            self.refuse()

    def accept(self, payload: bytes, given: bytes) -> bool:
        """Whether a packet is as it was sent; it is acknowledged or refused."""
        if checksum(payload) != given.lower():
            self.refuse()
            return False
        if self.acknowledged:
            self.write(b"+")
        return True

    def refuse(self) -> None:
        """Ask for a packet once more."""
        if self.acknowledged:
            self.write(b"-")

    def receive(self, seconds: float | None) -> bool:
        """Take what has arrived, waiting for so long; whether anything has. Raises ConnectionLost."""
        try:
            if not select.select([self.stream], [], [], seconds)[0]:
                return False
            octets = self.stream.recv(LONGEST_PACKET)
        except (OSError, ValueError) as error:
            raise ConnectionLost from error
        if not octets:
            raise ConnectionLost
        self.received += octets
        if len(self.received) > 16 * LONGEST_LINE:  # a client that only talks
            raise ConnectionLost
        return True

    def write(self, octets: bytes) -> None:
        """Send bytes, within SEND_SECONDS."""
        end = time.monotonic() + SEND_SECONDS
        try:
            while octets:
                if time.monotonic() > end:
                    raise ConnectionLost
                octets = octets[self.stream.send(octets, NO_SIGNAL) :]
        except OSError as error:
            raise ConnectionLost from error
