"""What may stand in nested tables that come from a file: jitted code follows them without looking."""

import numpy as np

from .entries import ADDRESS, EPT_LARGE, PAGE_SHIFT, ROOT
from .pool import address_of, number_of
from .records import EPT, FIRST_PAGE, LEVELS, MAX_REGIONS, N_PAGES, NPT_2, NPT_3

PRESENT = {EPT: 7, NPT_2: 1, NPT_3: 1}
LEAST_BUDGET = 32


def check_tables(memory: np.ndarray, record: np.record, form: int, frames: int) -> None:
    """Whether a record and its tables are such as can be made; the last-level tables' holders are noted anew. ValueError."""
    budget, after = int(record["budget"]), int(record["next"])
    if int(record["form"]) != form or int(record["frames"]) != frames:
        raise ValueError("the form of the nested tables")
    if not LEAST_BUDGET <= budget <= N_PAGES or not FIRST_PAGE < after <= budget:
        raise ValueError("the pages of the nested tables")
    if not FIRST_PAGE <= int(record["hand"]) < budget or (record["regions"] > 1).any() or len(record["regions"]) != MAX_REGIONS:
        raise ValueError("the record of the nested tables")
    if int(record["tables_made"]) > N_PAGES or int(record["dropped"]) > 2 * frames:
        raise ValueError("the work on the nested tables")
    record["pages"]["holder"][:] = 0
    found = [FIRST_PAGE]
    tables = [ROOT]
    for level in range(LEVELS[form], 1, -1):
        places = [place for table in tables for place in named_places(memory, form, table, level)]
        tables = [entry_at(memory, place) & ADDRESS for place in places]
        found += [number_of(table) for table in tables]
        if level == 2:
            for place, table in zip(places, tables, strict=True):
                if FIRST_PAGE <= number_of(table) < after:
                    record["pages"]["holder"][number_of(table)] = place
        elif any(not ROOT < table < address_of(after) for table in tables):
            break
    if sorted(found) != list(range(FIRST_PAGE, after)):
        raise ValueError("the nested tables")


def entry_at(memory: np.ndarray, place: int) -> int:
    """The low doubleword of an entry."""
    return int(memory[place : place + 4].view("<u4")[0])


def named_places(memory: np.ndarray, form: int, table: int, level: int) -> list[int]:
    """Where the entries of a table above the last level are that name another."""
    kind, size = ("<u4", 4) if form == NPT_2 else ("<u8", 8)
    count = 4 if form == NPT_3 and level == LEVELS[NPT_3] else (1 << PAGE_SHIFT) // size
    entries = memory[table : table + count * size].view(kind).astype(np.uint64)
    named = entries & np.uint64(PRESENT[form]) != 0
    if level == 2:
        named &= entries & np.uint64(EPT_LARGE) == 0
    return [table + size * int(index) for index in np.flatnonzero(named)]
