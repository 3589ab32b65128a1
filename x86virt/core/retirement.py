"""What an instruction counts as, when code runs that was translated from the guest's.

A binary translator turns one guest instruction into several, or several into one. Where the processor executes from the
translator's cache, a table of notes beside it says with which instruction a guest instruction completes, which
event of the ledger an instruction stands for (an in-cache look-up that hit leaves no other trace), and which ones are not
the guest's but the translator's own, for the check of isolation. Notes cost no cycle and change no effect; everywhere else
each instruction outside the modes of the VMM and of domain 0, which works for it, is one of the guest's.
"""

from ..isa.events import MODE_DOMAIN_0, MODE_VMM
from .jit import inline, kernel, load_8
from .layout import NOTE_EVENT_SHIFT, NOTE_RETIRES
from .tables import NO_EVENT


@inline
def is_vmms(cpu):
    """Whether what runs is the VMM, or a domain that works for it."""
    return cpu.mode == MODE_VMM or cpu.mode == MODE_DOMAIN_0


@kernel
def in_translation_cache(cpu, place):
    """Whether code at a place is translated code."""
    return cpu.unit_first <= place and place <= cpu.unit_last


@kernel
def note_at(cpu, ram, place):
    """The note on the instruction at a place; outside the translation cache, that it retires."""
    if not in_translation_cache(cpu, place):
        return NOTE_RETIRES
    return load_8(ram, cpu.unit_notes + place - cpu.unit_first)


@kernel
def guest_instructions(cpu, note):
    """How many guest instructions complete with an instruction that has this note."""
    if is_vmms(cpu):
        return 0
    return note & NOTE_RETIRES


@kernel
def room_behind(cpu, note, counted):
    """How many guest instructions a limit must leave, so that code runs whole up to and with an instruction.

    `counted` are its own and those before it. At the limit the processor stops behind the instruction that reaches it;
    what follows and completes none belongs to the next one already.
    """
    if is_vmms(cpu):
        return 0
    return counted + 1 - (note & NOTE_RETIRES)


@kernel
def event_of(cpu, note):
    """The event that a note counts, or NO_EVENT."""
    number = note >> NOTE_EVENT_SHIFT
    if number == 0:
        return NO_EVENT
    return cpu.unit_events[number]
