"""Code of the cache that is written once and shared by all units."""

from dataclasses import replace

from ...core.layout import NOTE_OWN_STACK
from ...isa.registers import EAX, ECX, EDX, ESP
from .. import layout
from .emitter import Emitter, dword, through_gs
from .record import slot
from .recovery import Recovery
from .sequences import Context
from .unit import Unit

# The units, by their places at the cache's beginning (Translator.lay_common_code).
LOOK_UP, BEGIN, CALL, COME_BACK, OUTER_LOOK_UP, CALL_PORT, CALL_STORE, COME_BACK_DIRECTLY = range(8)
FIRST_ENTRY = layout.VMM_BASE + layout.ENTRIES
NO_CONTEXT = Context(0, 0, 0, 0)
LOOKUP_HIT = 1  # the note that counts one: its place in CPU.unit_events


def look_up(address: int, table: int) -> Unit:
    """Go on at the guest address in the record's `target`: the place in a hash table is the address's low 13 bits.

    An entry holds the negative of a guest address and the address of its unit, so that a sum of zero is a hit, which
    JECXZ sees without touching the flags.
    """
    e = Emitter(address, 0)
    e.now = Recovery(None)
    for register in (ECX, EDX, EAX):
        e.spill(register)
    e.put(e.load(ECX, slot("target")))
    e.put(b"\x8d\x14\xcd" + dword(0))  # LEA EDX, [ECX * 8]
    e.put(b"\x0f\xb7\xd2")  # MOVZX EDX, DX
    e.put(through_gs(b"\x8b\x82", table))  # MOV EAX, GS:[EDX + table]
    e.put(b"\x8d\x0c\x01")  # LEA ECX, [ECX + EAX]
    e.put(through_gs(b"\x8b\x82", table + 4))
    e.put(e.store(slot("jump"), EAX))
    e.put(b"\xe3\x00")  # JECXZ to the hit
    miss, spilled = len(e.octets), e.now
    for register in (EAX, EDX, ECX):
        e.restore(register)
    e.callout("lookup_miss")
    e.octets[miss - 1] = len(e.octets) - miss
    e.now = spilled
    for register in (EAX, EDX, ECX):
        e.restore(register)
    e.put(through_gs(b"\xff\x25", slot("jump")), event=LOOKUP_HIT)  # JMP GS:[jump]
    return finished(e, address)


def begin(address: int) -> Unit:
    """A callout that asks for the guest's next instruction, which could not be fetched when the guest was resumed."""
    e = Emitter(address, 0)
    e.now = Recovery(None)
    e.callout("begin")
    return finished(e, address)


def call(address: int) -> Unit:
    """A callout that stays in ring 1: to the VMM's stack, with the guest's registers and flags on it, and to the VMM."""
    e = Emitter(address, 0)
    e.now = Recovery(None, called=True)
    e.put(e.store(slot("guest_esp"), ESP))
    e.put(through_gs(b"\x0f\xb2\x25", slot("callout_esp")))  # LSS ESP, GS:[callout_esp]
    e.now = Recovery(None, called=True, own_stack=True)
    e.put(b"\x9c", may=NOTE_OWN_STACK)  # PUSHF
    e.put(b"\x60", may=NOTE_OWN_STACK)  # PUSHA
    e.jump(FIRST_ENTRY + layout.CALLOUT_ENTRY)
    return finished(e, address)


def come_back(address: int) -> Unit:
    """The way back from there: registers and flags from the VMM's stack, the guest's stack, and on in the cache."""
    e = Emitter(address, 0)
    e.now = Recovery(None, returning=True, own_stack=True)
    e.put(b"\x61", may=NOTE_OWN_STACK)  # POPA
    e.put(b"\x9d", may=NOTE_OWN_STACK)  # POPF
    e.put(through_gs(b"\x0f\xb2\x25", slot("guest_esp")))  # LSS ESP, GS:[guest_esp]
    e.now = Recovery(None, returning=True)
    e.put(through_gs(b"\xff\x25", slot("jump")))
    return finished(e, address)


def call_directly(address: int, entry: int) -> Unit:
    """A direct callout: EAX is saved, and so are the arithmetic flags, ECX and EDX now; to the VMM's stack and routine."""
    e = Emitter(address, 0)
    e.now = Recovery(None, called=True).spill(EAX)
    e.put(b"\x9f")  # LAHF
    e.put(b"\x0f\x90\xc0")  # SETO AL
    e.put(e.store(slot("saved_flags"), EAX))
    e.spill(ECX)
    e.spill(EDX)
    e.put(e.store(slot("guest_esp"), ESP))
    e.put(through_gs(b"\x0f\xb2\x25", slot("callout_esp")))  # LSS ESP, GS:[callout_esp]
    e.now = replace(e.now, own_stack=True)
    e.jump(FIRST_ENTRY + entry)
    return finished(e, address)


def come_back_directly(address: int) -> Unit:
    """The way back from there: the guest's stack, its flags, its registers, and on behind the site."""
    e = Emitter(address, 0)
    e.now = Recovery(None, frozenset({EAX, ECX, EDX}), returning=True, own_stack=True, direct=True)
    e.put(through_gs(b"\x0f\xb2\x25", slot("guest_esp")))  # LSS ESP, GS:[guest_esp]
    e.now = replace(e.now, own_stack=False)
    e.put(e.load(EAX, slot("saved_flags")))
    e.put(b"\x04\x7f")  # ADD AL, 7Fh: OF is what SETO found
    e.now = replace(e.now, unflagged=True)
    e.put(b"\x9e")  # SAHF
    e.now = replace(e.now, unflagged=False)
    for register in (EDX, ECX, EAX):
        e.restore(register)
    e.put(through_gs(b"\xff\x25", slot("jump")))
    return finished(e, address)


def finished(emitter: Emitter, address: int) -> Unit:
    """The emitter's bytes as a unit without guest code."""
    return Unit(
        0, NO_CONTEXT, address, octets=bytes(emitter.octets), notes=bytes(emitter.notes), offsets=emitter.offsets,
        recoveries=emitter.recoveries, sites={site.offset: site for site in emitter.sites},
    )  # fmt: skip
