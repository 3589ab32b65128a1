"""Binary translation: the guest's kernel runs as code that the VMM made from it, in a cache in machine RAM."""

from .translator import Translator

__all__ = ["Translator"]
