"""Which shipped guests run where."""

from x86virt.guests import guests

BARE_ONLY = frozenset({"tasks"})
"""Guests whose subject no VMM here emulates: hardware task switches."""


def portable_guests() -> list[str]:
    """The guests that run under every strategy."""
    return [name for name in guests() if name not in BARE_ONLY]
