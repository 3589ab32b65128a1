"""A saved machine's TLBs: hostile bytes name no entry outside of them."""

import numpy as np

from .core.layout import TLB_BUCKETS
from .processor import NESTED_KEYS


def check_tlbs(arrays: dict[str, np.ndarray], fresh: np.ndarray) -> None:
    """No index of the TLBs lies outside of what it indexes, and all are those of the profile; raises ValueError."""
    units, own = arrays["cpu.tlb_units"].reshape(-1), fresh["tlb_units"].reshape(-1)
    for name in ("first", "sets", "ways"):
        if (units[name] != own[name]).any():
            raise ValueError("its TLBs are not those of the profile")
    if (units["victim"] < 0).any() or (units["victim"] > np.maximum(own["ways"] - 1, 0)[:, None]).any():
        raise ValueError("its TLBs are out of range")
    if not np.isin(units["shift"], (12, 21, 22)).all():
        raise ValueError("its TLBs are out of range")
    entries = arrays["cpu.tlb"]
    if (entries["frame"] < 0).any() or (entries["frame"] > 1 << 52).any() or (entries["page"] < -1).any():
        raise ValueError("its TLB entries are out of range")
    check_chains(units, entries, arrays["cpu.tlb_buckets"])
    check_nested(arrays["cpu.nested"].reshape(-1)[0], fresh["nested"].reshape(-1)[0])
    if not np.isin(arrays["cpu.tlb_tags"]["large_shift"], (0, 12, 21, 22)).all():
        raise ValueError("its TLB tags are out of range")


def check_nested(nested: np.void, fresh: np.void) -> None:
    """What nested walks remember is of the profile's sizes, and names addresses; raises ValueError."""
    if any(nested[name] != fresh[name] for name in NESTED_KEYS):
        raise ValueError("its nested tables are not those of the profile")
    for kind in ("page", "table"):
        if not 0 <= nested[f"{kind}_victim"] < max(int(nested[f"{kind}_entries"]), 1):
            raise ValueError("its nested TLB is out of range")
        frames = nested[f"{kind}s"]["frame"]
        if (frames < 0).any() or (frames > 1 << 52).any() or (frames & 0xFFF).any():
            raise ValueError("its nested TLB is out of range")


def check_chains(units: np.ndarray, entries: np.ndarray, buckets: np.ndarray) -> None:
    """Every TLB entry that names a page hangs in its own unit's bucket, once; raises ValueError."""
    seen: set[int] = set()
    for bucket in np.nonzero(buckets)[0].tolist():
        unit = units[bucket // TLB_BUCKETS]
        at = int(buckets[bucket])
        while at:
            index = at - 1 - int(unit["first"])
            if at in seen or not 0 <= index < unit["sets"] * unit["ways"]:
                raise ValueError("its TLB buckets are out of range")
            entry = entries[at - 1]
            if entry["page"] < 0 or entry["page"] % TLB_BUCKETS != bucket % TLB_BUCKETS:
                raise ValueError("its TLB buckets are out of range")
            seen.add(at)
            at = int(entry["following"])
    if len(seen) != np.count_nonzero(entries["page"] >= 0):
        raise ValueError("its TLB buckets lack entries")
