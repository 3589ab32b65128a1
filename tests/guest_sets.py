"""Which shipped guests run where."""

from x86virt.guests import guests

BARE_ONLY = frozenset({"hypervisor", "tasks"})
"""Guests whose subject no VMM here emulates: virtual-machine extensions, hardware task switches."""


TIMED_GUESTS = ("clock", "exits", "irq")
"""Guests that read the time or wait for interrupts: how many instructions they need is the processor's and the VMM's."""

DISK_GUESTS = ("blockio",)
"""Guests that wait for a disk, whose time is in no log: held to what they do in the end (test_paravirtual_domain_0.py)."""


def portable_guests() -> list[str]:
    """The guests that run under every strategy which takes a guest as it is."""
    return [name for name in guests() if name not in BARE_ONLY]


def ported_guests() -> list[str]:
    """The guests that have a build for a paravirtual VMM."""
    return [name for name, guest in guests().items() if guest.port is not None]


UNIX_PROGRAMS = ("clock", "files", "marks", "memory", "pipes", "processes", "signals")


def short_line(name: str, iterations: int) -> str:
    """A command line for tests of every guest; of the Unix-like kernel one program with all kinds of traps, without ticks."""
    return f"iterations={iterations}" + (" program=signals timer=off" if name == "unix" else "")
