"""Explanations for those who learn and teach: instructions, events of the ledger, exit reasons, exceptions,
strategies.

What they say is taken from the tables that the simulator itself runs by, and from `facts.py` and `techniques.py`, which
tests hold against the simulated processor.
"""

from .find import explain, known_names, mnemonics
from .page import Explanation, Section

__all__ = ["Explanation", "Section", "explain", "known_names", "mnemonics"]
