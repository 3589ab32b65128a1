"""What every way of starting hands to the machine: bytes in RAM and the processor's state at the first instruction."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..errors import ImageError

if TYPE_CHECKING:
    from .xen import XenImage

PAGE_BYTES = 4096
LOW_END = 0x9FC00  # conventional memory below the extended BIOS data area
LOW_TOP = 0xA0000
HIGH_START = 0x100000
ADDRESS_SPACE = 1 << 32

PROTECTED, REAL, RESET, PARAVIRTUAL = "protected", "real", "reset", "paravirtual"


@dataclass(frozen=True)
class Boot:
    """What a machine starts with.

    `writes` go to RAM that is zero elsewhere. In mode `protected` the processor is in flat protected mode, ring 0, without
    paging and with interrupts off, at the linear address `entry`; in mode `real` it is in real-address mode at
    CS:IP = `code_selector`:`entry`; in mode `reset` it is as after power on, and executes the firmware (`entry` has no
    meaning); in mode `paravirtual` a VMM builds the domain of a kernel that is ported to it, and `domain` alone counts.
    `registers` are the general registers that are not zero, by number.
    """

    entry: int
    writes: tuple[tuple[int, bytes], ...]
    registers: Mapping[int, int] = field(default_factory=dict)
    mode: str = PROTECTED
    code_selector: int = 0
    data_selector: int = 0
    gdt: tuple[int, int] = (0, 0)  # base and limit
    firmware: bytes = field(default=b"", repr=False)  # ROM that ends at 4 GB, whose last 128 KB lie below 1 MB too
    vga_rom: bytes = field(default=b"", repr=False)
    domain: "XenImage | None" = None


class Bootable(Protocol):
    """Software that a machine can start with: a kernel of some format, or firmware."""

    @property
    def name(self) -> str:
        """What it is called in results and errors."""

    @property
    def sha256(self) -> str:
        """The hash of everything that was given."""

    @property
    def symbols(self) -> Mapping[str, int]:
        """Names of code and data -> linear addresses, where the format has them."""

    def boot(self, memory_bytes: int, command_line: str) -> Boot:
        """Where everything goes in a machine with that much RAM. Raises ImageError if it does not fit."""


def command_line_bytes(where: object, command_line: str, most: int) -> bytes:
    """A command line as the guest gets it, ended by a zero; at most `most` bytes without that. Raises ImageError."""
    octets = command_line.encode("utf-8", "surrogateescape")
    if b"\0" in octets:
        raise ImageError(where, "its command line holds a NUL character", "remove it")
    if len(octets) > most:
        raise ImageError(where, f"its command line has {len(octets)} bytes", f"give at most {most}")
    return octets + b"\0"
