"""What can be wrong with what a user gives: each error's text is one line that says where, what, and what to do."""

import difflib
from collections.abc import Iterable

LONGEST = 200


class UserError(ValueError):
    """Bad input or bad usage: `where: what; advice`, one line. The command line answers with exit status 2."""

    def __init__(self, where: object, what: str, advice: str) -> None:
        super().__init__(" ".join(f"{show(where)}: {what}; {advice}".split()))
        self.where = show(where)
        self.what = what
        self.advice = advice


class ImageError(UserError):
    """A guest image that cannot be loaded."""


class GuestError(UserError):
    """A guest that is not there."""


class StrategyError(UserError):
    """A strategy that is not there or is not one."""


class SuiteError(UserError):
    """A benchmark suite that is not there."""


class UnsupportedError(UserError):
    """A strategy that cannot run this guest or profile. The command line answers with exit status 5."""


def show(value: object) -> str:
    """A short, printable, one-line form of anything."""
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."


def near_matches(word: str, known: Iterable[str]) -> str:
    """`, did you mean A or B?` for a misspelt word, else an empty string."""
    near = difflib.get_close_matches(word[:100], list(known), n=3, cutoff=0.6)
    return f", did you mean {' or '.join(near)}?" if near else ""
