"""A model of an ATA disk written from the tables of ATA/ATAPI-6 (T13/1410D, section 8), without registers' timing.

It knows what each command code is, what it may be given, how many blocks and interrupts it makes, and how it ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SECTOR = 512
ABRT, IDNF = 0x04, 0x10
MOST_MULTIPLE = 16

# code: (protocol, 48-bit address, blocks of SET MULTIPLE MODE)
SECTOR_COMMANDS = {
    0x20: ("in", False, False), 0x21: ("in", False, False), 0x24: ("in", True, False),
    0xC4: ("in", False, True), 0x29: ("in", True, True),
    0x30: ("out", False, False), 0x31: ("out", False, False), 0x34: ("out", True, False),
    0xC5: ("out", False, True), 0x39: ("out", True, True),
    0xC8: ("dma in", False, False), 0xC9: ("dma in", False, False), 0x25: ("dma in", True, False),
    0xCA: ("dma out", False, False), 0xCB: ("dma out", False, False), 0x35: ("dma out", True, False),
    0x40: ("none", False, False), 0x41: ("none", False, False), 0x42: ("none", True, False),
}  # fmt: skip
SIMPLE = {0xE7, 0xEA, 0xE0, 0xE1, 0xE2, 0xE3, 0xE5, 0x94, 0x95, 0x96, 0x97, 0x98} | set(range(0x10, 0x20))
SLEEP = {0xE6, 0x99}
SEEKS = set(range(0x70, 0x80))
FEATURES = {0x02, 0x82, 0xAA, 0x55, 0xCC, 0x66}
TRANSFER_MODES = {0x00, 0x01, *range(0x08, 0x0D), *range(0x20, 0x23), *range(0x40, 0x43)}


@dataclass
class Registers:
    """What the host wrote: current and previous contents."""

    feature: int = 0
    count: int = 1
    low: int = 1
    mid: int = 0
    high: int = 0
    device: int = 0xA0
    older: tuple[int, int, int, int] = (0, 0, 0, 0)  # count, low, mid, high


@dataclass
class Outcome:
    """How a command goes: `blocks` of bytes in, or sector numbers and counts of blocks to come out; then an error."""

    protocol: str
    blocks: list[bytes] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)
    error: int = 0
    failed_at: int | None = None


class AtaModel:
    """One disk."""

    def __init__(self, content: bytes, heads: int = 16, track: int = 63) -> None:
        self.content = bytearray(content)
        self.sectors = len(content) // SECTOR
        self.heads, self.track = heads, track
        self.cylinders = min(max(self.sectors // (heads * track), 1), 16383)
        self.multiple = 0
        self.asleep = False

    def first(self, r: Registers, wide: bool) -> int | None:
        """The address that the registers name."""
        if wide:
            return r.low | r.mid << 8 | r.high << 16 | r.older[1] << 24 | r.older[2] << 32 | r.older[3] << 40
        if r.device & 0x40:
            return r.low | r.mid << 8 | r.high << 16 | (r.device & 15) << 24
        cylinder, head = r.high << 8 | r.mid, r.device & 15
        if not (cylinder < self.cylinders and head < self.heads and 1 <= r.low <= self.track):
            return None
        return (cylinder * self.heads + head) * self.track + r.low - 1

    def sector_command(self, r: Registers, protocol: str, wide: bool, multiple: bool) -> Outcome:
        """A command that names sectors."""
        if wide and not r.device & 0x40 or multiple and not self.multiple:
            return Outcome(protocol, error=ABRT)
        lba = self.first(r, wide)
        if lba is None:
            return Outcome(protocol, error=IDNF)
        count = (r.count | r.older[0] << 8) or 65536 if wide else r.count or 256
        whole = protocol not in ("in", "out")
        block = count if whole else self.multiple if multiple else 1
        outcome = Outcome(protocol)
        while count:
            n = min(block, count)
            if lba + n > self.sectors:
                outcome.error, outcome.failed_at = IDNF, max(lba, self.sectors)
                break
            outcome.blocks.append(bytes(self.content[lba * SECTOR : (lba + n) * SECTOR]))
            outcome.places.append((lba, n))
            lba, count = lba + n, count - n
        return outcome

    def simple_command(self, code: int, r: Registers) -> Outcome:
        """A command without sectors."""
        good = code in SIMPLE or code in SLEEP
        if code in SEEKS:
            lba = self.first(r, False)
            return Outcome("none", error=0 if lba is not None and lba < self.sectors else IDNF)
        if code == 0xEF:
            good = r.feature in FEATURES or r.feature == 3 and r.count in TRANSFER_MODES
        if code == 0xC6:
            good = r.count in (0, 1, 2, 4, 8, 16)
            self.multiple = r.count if good else 0
        if code == 0x91 and r.count:
            good, self.heads, self.track = True, (r.device & 15) + 1, r.count
            self.cylinders = min(self.sectors // (self.heads * self.track), 65535)
        self.asleep = self.asleep or code in SLEEP
        return Outcome("none", error=0 if good else ABRT)

    def command(self, code: int, r: Registers) -> Outcome:
        """What a command does; what comes out of the host is stored by `store`."""
        if code == 0x90:
            return Outcome("diagnostic")
        if self.asleep:
            return Outcome("ignored")
        if code in SECTOR_COMMANDS:
            return self.sector_command(r, *SECTOR_COMMANDS[code])
        if code == 0xEC:
            return Outcome("in", blocks=[b""])
        return self.simple_command(code, r)

    def store(self, outcome: Outcome, content: bytes) -> None:
        """The host's data for the blocks of an outcome."""
        for lba, n in outcome.places:
            self.content[lba * SECTOR : (lba + n) * SECTOR] = content[: n * SECTOR]
            content = content[n * SECTOR :]
