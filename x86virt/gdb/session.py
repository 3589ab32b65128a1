"""One client's conversation: each packet has a function that answers it; an unknown one is answered by an empty packet."""

import re
from collections.abc import Callable
from enum import Enum, auto

from ..core.layout import MAX_STOPS, STOP_ON_ACCESSES, STOP_ON_CODE, STOP_ON_READS, STOP_ON_WRITES
from ..errors import show
from ..vmm.exits import VmmError
from . import target
from .execution import Halt, Stop, Why
from .framing import LONGEST_PACKET, Connection, unescape
from .monitor import Monitor
from .registers import write_register
from .travel import Travel, TravelError

OK, UNKNOWN = b"OK", b""
BAD_INPUT, NO_MEMORY, TOO_MANY, REFUSED = b"E16", b"E0e", b"E1c", b"E01"  # EINVAL, EFAULT, ENOSPC, EPERM
SIGINT, SIGTRAP = 2, 5
STOP_KINDS = {0: STOP_ON_CODE, 1: STOP_ON_CODE, 2: STOP_ON_WRITES, 3: STOP_ON_READS, 4: STOP_ON_ACCESSES}
STOP_WORDS = {STOP_ON_WRITES: "watch", STOP_ON_READS: "rwatch", STOP_ON_ACCESSES: "awatch"}
LONGEST_WATCH = 1 << 20  # bytes
MOST_MEMORY = LONGEST_PACKET // 2 - 16  # bytes of one answer
OFFERED = (
    f"PacketSize={LONGEST_PACKET:x};QStartNoAckMode+;qXfer:features:read+;vContSupported+;swbreak+;hwbreak+;"
    "ReverseStep+;ReverseContinue+"
)
FIXED = {
    "vMustReplyEmpty": UNKNOWN, "qC": b"QC1", "qfThreadInfo": b"m1", "qsThreadInfo": b"l", "qAttached": b"1",
    "qSymbol::": OK, "vCont?": b"vCont;c;C;s;S;r", "T1": OK,
}  # fmt: skip


class Left(Enum):
    """How a client left."""

    DETACHED = auto()  # by D, or by hanging up: the machine waits for the next one
    KILLED = auto()  # by k, or the guest's end was let go: the server ends


class BadPacket(ValueError):
    """A packet that does not say what it must."""


def number(text: str, most: int = 0xFFFFFFFF) -> int:
    """A hexadecimal number as packets have it."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", text, re.ASCII):
        raise BadPacket(text)
    value = int(text, 16)
    if value > most:
        raise BadPacket(text)
    return value


def octets_of(text: str) -> bytes:
    """Bytes in hexadecimal."""
    if not re.fullmatch(r"([0-9a-fA-F]{2})*", text, re.ASCII):
        raise BadPacket(text)
    return bytes.fromhex(text)


class Session:
    """One client of a machine."""

    def __init__(self, travel: Travel, connection: Connection) -> None:
        self.travel, self.connection = travel, connection
        self.view = travel.execution.view
        self.monitor = Monitor(travel)
        self.stops: list[tuple[int, Stop]] = []  # with the number of the packet's kind
        self.known_to_client: set[str] = set()
        self.last = Halt(Why.LIMIT)
        self.shown = [len(text) for text in self.said()]  # of each
        self.left: Left | None = None
        self.last_acknowledged = False  # the answer to QStartNoAckMode is the last packet with acknowledgement
        self.commands: dict[str, Callable[[str], bytes]] = {
            "?": lambda rest: self.stop_reply(),
            "g": lambda rest: self.read_registers(),
            "G": self.write_registers,
            "p": self.read_register,
            "P": self.write_register,
            "m": self.read_memory,
            "M": self.write_memory,
            "H": lambda rest: OK,
            "c": lambda rest: self.resume(rest, self.go_on),
            "C": lambda rest: self.resume(rest.partition(";")[2], self.go_on),
            "s": lambda rest: self.resume(rest, self.step),
            "S": lambda rest: self.resume(rest.partition(";")[2], self.step),
            "Z": self.insert_stop,
            "z": self.remove_stop,
            "D": lambda rest: self.leave(Left.DETACHED, OK),
            "k": lambda rest: self.leave(Left.KILLED, UNKNOWN),
            "vCont;": self.resume_by_action,
            "vKill;": lambda rest: self.leave(Left.KILLED, OK),
            "bc": lambda rest: self.reverse(self.go_back),
            "bs": lambda rest: self.reverse(self.step_back),
            "qSupported": self.supported,
            "qXfer:features:read:": self.read_description,
            "qThreadExtraInfo,": lambda rest: self.monitor.one_line().encode().hex().encode(),
            "qRcmd,": self.run_monitor,
            "QStartNoAckMode": lambda rest: self.stop_acknowledging(),
        }

    # -- the conversation -----------------------------------------------------------------------------------------

    def run(self) -> Left:
        """Answer packets until the client leaves. Raises ConnectionLost."""
        while self.left is None:
            self.connection.send(self.answer(self.connection.packet()))
            if self.last_acknowledged:
                self.connection.acknowledged = False
        return self.left

    def answer(self, payload: bytes) -> bytes:
        """The answer to one packet."""
        try:
            if payload.startswith(b"X"):
                return self.write_binary(payload[1:])
            return self.dispatch(payload.decode("ascii"))
        except (BadPacket, UnicodeDecodeError):
            return BAD_INPUT
        except (TravelError, VmmError) as error:
            self.say(f"x86virt: {error}\n")
            return REFUSED

    def dispatch(self, text: str) -> bytes:
        """Call the function of a packet by its longest name."""
        if text in FIXED:
            return FIXED[text]
        names = [name for name in self.commands if text.startswith(name)]
        if not names:
            return UNKNOWN
        name = max(names, key=len)
        return self.commands[name](text[len(name) :])

    def say(self, text: str) -> None:
        """Show text in the client's terminal, while it waits for an answer."""
        octets = text.encode("utf-8", "replace")
        room = LONGEST_PACKET // 2 - 1
        for place in range(0, len(octets), room):
            self.connection.send(b"O" + octets[place : place + room].hex().encode())

    def leave(self, how: Left, answer: bytes) -> bytes:
        """The client leaves."""
        self.left = how
        return answer

    def supported(self, rest: str) -> bytes:
        """What both sides can do."""
        self.known_to_client = {word.rstrip("+") for word in rest.lstrip(":").split(";") if word.endswith("+")}
        return OFFERED.encode()

    def stop_acknowledging(self) -> bytes:
        """Leave out `+` and `-`, from behind this answer on."""
        self.last_acknowledged = True
        return OK

    def read_description(self, rest: str) -> bytes:
        """qXfer:features:read:ANNEX:OFFSET,LENGTH."""
        annex, _, span = rest.partition(":")
        first, _, length = span.partition(",")
        if annex != "target.xml":
            return b"E00"
        offset, count = number(first), min(number(length), LONGEST_PACKET - 1)
        piece = target.description()[offset : offset + count]
        more = offset + count < len(target.description())
        return (b"m" if more else b"l") + piece

    def run_monitor(self, rest: str) -> bytes:
        """A `monitor` command of the user's."""
        line = octets_of(rest).decode("utf-8", "replace")
        self.say(self.monitor.run(line))
        return OK

    # -- registers ------------------------------------------------------------------------------------------------

    def read_registers(self) -> bytes:
        """All registers."""
        found = target.values(self.view)
        return b"".join(target.in_hexadecimal(register, found[register.name]) for register in target.REGISTERS)

    def read_register(self, rest: str) -> bytes:
        """One register by its number."""
        register = self.register(rest)
        return target.in_hexadecimal(register, target.values(self.view)[register.name])

    def register(self, text: str) -> target.Register:
        """The register of a number."""
        return target.REGISTERS[number(text, len(target.REGISTERS) - 1)]

    def write_register(self, rest: str) -> bytes:
        """P NUMBER=VALUE."""
        name, _, value = rest.partition("=")
        register = self.register(name)
        octets = octets_of(value)
        if len(octets) != register.octets:
            raise BadPacket(rest)
        return self.set_register(register, int.from_bytes(octets, "little"))

    def set_register(self, register: target.Register, value: int) -> bytes:
        """Write one register; the history goes on from here."""
        if target.values(self.view)[register.name] == value:
            return OK
        if not write_register(self.travel.machine, register.name, value):
            return REFUSED
        self.travel.history.alter()
        return OK

    def write_registers(self, rest: str) -> bytes:
        """All registers, or the first ones; those that cannot be written must be what they are."""
        octets = octets_of(rest)
        answer, place = OK, 0
        for register in target.REGISTERS:
            piece = octets[place : place + register.octets]
            place += register.octets
            if len(piece) == register.octets:
                result = self.set_register(register, int.from_bytes(piece, "little"))
                answer = answer if result == OK else result
        return answer

    # -- memory ---------------------------------------------------------------------------------------------------

    @staticmethod
    def span(text: str) -> tuple[int, int]:
        """ADDRESS,LENGTH."""
        first, comma, length = text.partition(",")
        if not comma:
            raise BadPacket(text)
        return number(first), number(length)

    def read_memory(self, rest: str) -> bytes:
        """Packet m ADDRESS,LENGTH: as many bytes as there are."""
        address, length = self.span(rest)
        octets = self.view.read(address, min(length, MOST_MEMORY))
        return octets.hex().encode() if octets or not length else NO_MEMORY

    def write_memory(self, rest: str) -> bytes:
        """M ADDRESS,LENGTH:BYTES."""
        where, _, text = rest.partition(":")
        return self.store(*self.span(where), octets_of(text))

    def write_binary(self, rest: bytes) -> bytes:
        """X ADDRESS,LENGTH:BYTES, escaped."""
        where, _, octets = rest.partition(b":")
        return self.store(*self.span(where.decode("ascii")), unescape(octets))

    def store(self, address: int, length: int, octets: bytes) -> bytes:
        """Write memory; the history goes on from here."""
        if len(octets) != length:
            raise BadPacket(str(address))
        if not octets:
            return OK
        if not self.view.write(address, octets):
            return NO_MEMORY
        self.travel.history.alter()
        return OK

    # -- breakpoints and watchpoints ------------------------------------------------------------------------------

    def stop_of(self, rest: str) -> tuple[int, Stop]:
        """KIND,ADDRESS,LENGTH of a Z or z packet; conditions are the client's business."""
        kind, _, where = rest.partition(";")[0].partition(",")
        number_of_kind = number(kind)
        address, length = self.span(where)
        if number_of_kind not in STOP_KINDS or not 0 <= length <= LONGEST_WATCH:
            raise BadPacket(rest)
        last = address if number_of_kind <= 1 else min(address + max(length, 1) - 1, 0xFFFFFFFF)
        return number_of_kind, Stop(STOP_KINDS[number_of_kind], address, last)

    def insert_stop(self, rest: str) -> bytes:
        """Z: set a breakpoint or watchpoint."""
        stop = self.stop_of(rest)
        if stop not in self.stops:
            if len(self.stops) >= MAX_STOPS:
                return TOO_MANY
            self.stops.append(stop)
        return OK

    def remove_stop(self, rest: str) -> bytes:
        """Take it away."""
        stop = self.stop_of(rest)
        if stop in self.stops:
            self.stops.remove(stop)
        return OK

    def plain_stops(self) -> list[Stop]:
        """What the machine is to stop at."""
        return list(dict.fromkeys(stop for _, stop in self.stops))

    # -- runs -----------------------------------------------------------------------------------------------------

    def resume(self, address: str, how: Callable[[], Halt]) -> bytes:
        """Packets c and s, with an address from which to go on; the guest's end is let go the second time."""
        if address:
            self.set_register(target.REGISTERS[target.NUMBER["eip"]], number(address))
        if self.travel.ended:
            code = self.travel.machine.result().exit_code or 0
            return self.leave(Left.KILLED, b"W%02x" % (code & 0xFF))
        return self.halted(how())

    def resume_by_action(self, rest: str) -> bytes:
        """The action of vCont that is for the only thread."""
        for action in rest.split(";"):
            word, _, thread = action.partition(":")
            if thread in ("", "-1", "0", "1", "p1.1", "p1.-1", "p-1.-1"):
                return self.act(word)
        raise BadPacket(rest)

    def act(self, word: str) -> bytes:
        """One action of vCont."""
        if word[:1] == "r":
            first, _, end = word[1:].partition(",")
            span = range(number(first), number(end))
            return self.resume("", lambda: self.step_within(span))
        if word[:1] in ("s", "S"):
            return self.resume("", self.step)
        if word[:1] in ("c", "C"):
            return self.resume("", self.go_on)
        raise BadPacket(word)

    def reverse(self, how: Callable[[], Halt]) -> bytes:
        """Backwards."""
        return self.halted(how())

    def poll(self) -> bool:
        """Between slices of a run: show what the guest printed; whether the client wants it to stop."""
        self.show_console()
        return self.connection.interrupted()

    def go_on(self) -> Halt:
        """Continue."""
        return self.travel.go_on(self.plain_stops(), self.poll)

    def step(self) -> Halt:
        """One instruction."""
        return self.travel.step(self.plain_stops(), self.poll)

    def step_within(self, span: range) -> Halt:
        """Instructions until EIP leaves a range."""
        while True:
            halt = self.step()
            left = self.view.registers()["eip"] not in span
            if halt.why is not Why.LIMIT or left:
                return halt
            if self.poll():
                return Halt(Why.INTERRUPTED)

    def step_back(self) -> Halt:
        """One instruction back."""
        return self.travel.step_back(self.connection.interrupted)

    def go_back(self) -> Halt:
        """Back to the last stop."""
        return self.travel.go_back(self.plain_stops(), self.connection.interrupted)

    def halted(self, halt: Halt) -> bytes:
        """Tell the client what ended a run."""
        self.last = halt
        self.show_console()
        if halt.why is Why.ENDED:
            self.say(f"x86virt: the guest has ended: {show(self.travel.machine.outcome)}; {self.monitor.one_line()}\n")
        return self.stop_reply()

    def show_console(self) -> None:
        """Show what the guest has printed since it was shown last; what is printed again after going back is not."""
        for place, text in enumerate(self.said()):
            if len(text) > self.shown[place]:
                self.say(text[self.shown[place] :].decode("utf-8", "replace"))
                self.shown[place] = len(text)

    def said(self) -> tuple[bytes, bytes]:
        """All that the guest has printed: on the debug ports, and on the first serial port."""
        return self.travel.machine.console(), self.travel.machine.serial()

    def stop_reply(self) -> bytes:
        """T: where and why the machine stands still."""
        halt = self.last
        signal = SIGINT if halt.why is Why.INTERRUPTED else SIGTRAP
        words = []
        if halt.stop is not None:
            words.append(self.word_of(halt))
        elif halt.why is Why.BEGIN:
            words.append("replaylog:begin")
        elif halt.why is Why.ENDED:
            words.append("replaylog:end")
        words += ["thread:1"]
        return f"T{signal:02x}{''.join(word + ';' for word in words if word)}".encode()

    def word_of(self, halt: Halt) -> str:
        """Which breakpoint or watchpoint it was."""
        stop = halt.stop
        assert stop is not None
        if stop.kind in STOP_WORDS:
            return f"{STOP_WORDS[stop.kind]}:{stop.first:x}"
        word = "swbreak" if (0, stop) in self.stops else "hwbreak"
        return f"{word}:" if word in self.known_to_client else ""
