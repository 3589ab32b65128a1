"""A small assembler for what the translator writes: each instruction with its recovery and its note.

Addresses below are linear ones of the VMM, which translated code reaches through a GS prefix. Nothing here writes flags.
"""

from dataclasses import dataclass

from ...core.layout import NOTE_EVENT_SHIFT, NOTE_OWN_DATA, NOTE_RETIRES
from ...isa.registers import ECX, EDX
from .. import layout
from ..instruction import Instruction
from .record import slot
from .recovery import SLOT_OF_REGISTER, Recovery

M32 = 0xFFFFFFFF
GS_PREFIX, CS_PREFIX = 0x65, 0x2E
JUMP_BYTES = 5
CALLOUT = bytes([0xCD, layout.CALLOUT_VECTOR])
FILLER = bytes([0x0F, 0x1F, 0x00])  # a NOP, so that a callout has room for the jump that replaces it


class OwnAccess(bytes):
    """An instruction of the translator's that goes to the VMM's memory, through GS or CS; no part of it is the guest's."""


@dataclass
class Site:
    """A callout in the cache: why it calls, the guest's state there, and the target of a jump that can be chained."""

    kind: str
    offset: int
    recovery: Recovery
    target: int | None = None
    branch: int | None = None  # where the displacement of the conditional jump to this site lies
    chained: int | None = None  # the address to which it jumps by itself now
    instruction: Instruction | None = None  # for which it stands, where the VMM need not decode it again
    direct: bool = False  # it brings what the translator decoded, and the way back is known


def dword(value: int) -> bytes:
    """Four bytes, little-endian."""
    return (value & M32).to_bytes(4, "little")


class Emitter:
    """Writes one unit. `now` is the recovery of the next instruction that is put."""

    def __init__(self, address: int, eip: int) -> None:
        self.address = address
        self.octets = bytearray()
        self.notes = bytearray()
        self.offsets: list[int] = []
        self.recoveries: list[Recovery] = []
        self.sites: list[Site] = []
        self.now = Recovery(eip)

    @property
    def here(self) -> int:
        """The linear address of the next instruction."""
        return self.address + len(self.octets)

    def put(self, octets: bytes, event: int = 0, may: int = 0) -> None:
        """One instruction that commits nothing. `may`: what its note says of where it goes, besides an access of its own."""
        self.offsets.append(len(self.octets))
        self.recoveries.append(self.now)
        self.octets += octets
        note = event << NOTE_EVENT_SHIFT | may | (NOTE_OWN_DATA if isinstance(octets, OwnAccess) else 0)
        self.notes += bytes([note]) + bytes(len(octets) - 1)

    def commit(self, octets: bytes, after: Recovery) -> None:
        """The instruction with which the guest's completes; `after` is how things stand behind it."""
        self.put(octets)
        self.notes[self.offsets[-1]] |= NOTE_RETIRES
        self.now = after

    # -- moves between registers and the VMM's memory -----------------------------------------------------------------

    def load(self, register: int, address: int) -> OwnAccess:
        """MOV register, GS:[address]."""
        return OwnAccess(bytes([GS_PREFIX, 0x8B, register << 3 | 5]) + dword(address))

    def store(self, address: int, register: int) -> OwnAccess:
        """MOV GS:[address], register."""
        return OwnAccess(bytes([GS_PREFIX, 0x89, register << 3 | 5]) + dword(address))

    def store_constant(self, address: int, value: int) -> OwnAccess:
        """MOV dword GS:[address], value."""
        return OwnAccess(bytes([GS_PREFIX, 0xC7, 0x05]) + dword(address) + dword(value))

    def load_gs(self, name: str) -> OwnAccess:
        """MOV GS, CS:[a selector in the record]."""
        return OwnAccess(bytes([CS_PREFIX, 0x8E, 0x2D]) + dword(slot(name)))

    def spill(self, register: int) -> None:
        """Save a register in the record, to be used as scratch."""
        self.put(self.store(slot(SLOT_OF_REGISTER[register]), register))
        self.now = self.now.spill(register)

    def restore(self, register: int) -> None:
        """Bring a register back."""
        self.put(self.load(register, slot(SLOT_OF_REGISTER[register])))
        self.now = self.now.restored(register)

    # -- leaving ----------------------------------------------------------------------------------------------------------

    def callout(
        self, kind: str, target: int | None = None, before: Recovery | None = None, instruction: Instruction | None = None
    ) -> Site:
        """Call the VMM: a real software interrupt through its gate, with room for a jump.

        With `before` a guest instruction completes with it, or with the jump that replaces it.
        """
        site = Site(kind, len(self.octets), self.now, target, instruction=instruction)
        self.sites.append(site)
        if before is None:
            self.put(CALLOUT)
        else:
            after, self.now = self.now, before
            self.commit(CALLOUT, after)
        self.put(FILLER)
        return site

    def light_callout(self, kind: str, stub: int, instruction: Instruction | None = None) -> Site:
        """Call the VMM without a change of privilege: the site's address goes into the record, the common code does the rest."""
        site = Site(kind, len(self.octets), self.now, instruction=instruction)
        self.sites.append(site)
        self.put(self.store_constant(slot("site"), self.here))
        self.jump(stub)
        return site

    def direct_callout(self, kind: str, stub: int, instruction: Instruction) -> Site:
        """Call a routine of the VMM's that is made for it, its operands in the record and EAX saved.

        ECX and EDX are saved too when it gets there, and it returns behind these two instructions.
        """
        site = Site(kind, len(self.octets), self.now.spill(ECX).spill(EDX), instruction=instruction, direct=True)
        self.sites.append(site)
        self.put(self.store_constant(slot("site"), self.here))
        self.jump(stub)
        assert len(self.octets) == site.offset + layout.DIRECT_SITE_BYTES
        return site

    def jump(self, address: int) -> None:
        """JMP to an address in the cache."""
        self.put(jump_octets(self.here, address))


def through_gs(opcode: bytes, address: int) -> OwnAccess:
    """An instruction that goes through GS to an address of the VMM's, which ends it."""
    return OwnAccess(bytes([GS_PREFIX]) + opcode + dword(address))


def jump_octets(at: int, target: int) -> bytes:
    """JMP rel32 from one address to another."""
    return b"\xe9" + dword(target - at - JUMP_BYTES)
