"""What the paths of the VMM cost: base and per-item ticks, measured by running the witness routines on the core.

Tables for the shipped profiles stand in `witness/prices.json`, keyed by the hashes of the witness image and of the
profile; for a user's own profile the image is run when its prices are first asked for, and the result kept in the cache
directory under the same hashes.
"""

import contextlib
import json
import os
import pathlib
from functools import cache
from typing import TYPE_CHECKING, Any

from ..core.jit import cache_folder
from ..isa.events import EVENT_ID, EVENTS
from ..profile import Profile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..processor import Processor

Table = dict[str, tuple[int, int]]
HERE = pathlib.Path(__file__).resolve().parent / "witness"
EVIDENCE = "witness"


@cache
def shipped() -> dict[str, Any]:
    """The committed price file; empty if it is not for the committed image, or does not say how it is known."""
    from .witness_run import image_hash

    with contextlib.suppress(OSError, ValueError):
        document = json.loads((HERE / "prices.json").read_text(encoding="utf-8"))
        if document["image"] == image_hash() and document["evidence"] == EVIDENCE:
            return {row["digest"]: row["paths"] for row in document["profiles"].values()}
    return {}


def fixed_prices(processor: "Processor", paths: "Iterable[str]") -> Table:
    """Those of some paths that the profile itself prices, by the item (vm.charge)."""
    events = {path: EVENT_ID[f"vmm.{path}"] for path in paths}
    return {path: (0, int(processor.cpu.price[event])) for path, event in events.items() if EVENTS[event].fixed}


def price_table(profile: Profile) -> Table:
    """Path -> (base, per item) in ticks under a profile: shipped, kept from an earlier run, or measured now."""
    digest = profile.digest()
    rows = shipped().get(digest)
    if rows is None:
        rows = kept(digest)
    if rows is None:
        rows = measured(profile, digest)
    return {path: (int(base), int(item)) for path, (base, item) in rows.items()}


def kept_file(digest: str) -> pathlib.Path:
    """Where the prices of a user's profile are kept."""
    from .witness_run import image_hash

    return cache_folder() / "prices" / f"{image_hash()[:32]}-{digest[:32]}.json"


def kept(digest: str) -> dict[str, Any] | None:
    """Prices from an earlier run, None if there are none that can be read."""
    from .witness_run import image_hash

    try:
        document = json.loads(kept_file(digest).read_text(encoding="utf-8"))
        if (document["image"], document["digest"], document["evidence"]) == (image_hash(), digest, EVIDENCE):
            return {path: [int(base), int(item)] for path, (base, item) in document["paths"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    return None


def measured(profile: Profile, digest: str) -> dict[str, Any]:
    """Run the image under a profile, and keep the prices if the cache directory can be written."""
    from .witness_run import image_hash, measure

    rows = measure(profile)
    document = {"image": image_hash(), "digest": digest, "evidence": EVIDENCE, "paths": rows}
    target = kept_file(digest)
    with contextlib.suppress(OSError):
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(document), encoding="utf-8")
        partial.replace(target)
    return rows


class PathPrices:
    """The price table of one profile, found when it is first asked for. Assign `table` to give another."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._table: Table | None = None

    @property
    def table(self) -> Table:
        """Path -> (base, per item) in ticks."""
        if self._table is None:
            self._table = price_table(self.profile)
        return self._table

    @table.setter
    def table(self, table: Table) -> None:
        self._table = table

    def ticks(self, path: str, items: int) -> int | None:
        """Ticks for `items` items of a path; None if no witness prices it."""
        if path not in self.table:
            return None
        base, item = self.table[path]
        return base + item * items
