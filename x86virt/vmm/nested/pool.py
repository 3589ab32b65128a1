"""Pages for nested tables: handed out in order, then a clock's hand chooses among those of the last level.

A table of the last level that was of use since the hand came by is spared once. The tables above stay: there are six at most.
"""

from ...core.charge import charge
from ...core.jit import inline, kernel, load_32, store_32
from ...isa.events import EVENT_NESTED_EVICTION, EVENT_NESTED_TABLE
from .. import layout
from .entries import ADDRESS, PAGE_SHIFT, form_of, is_present, naming, write_entry
from .records import BUDGET, DROPPED, FIRST_PAGE, HAND, HOLDERS, NEXT, PAGE_RECORD, STALE, TABLES_MADE, USED

TABLE_BYTES = 1 << PAGE_SHIFT


@inline
def address_of(number):
    """The machine address of a page of the pool."""
    return layout.SHADOW + (number << PAGE_SHIFT)


@inline
def number_of(address):
    """The page of the pool at a machine address."""
    return (address - layout.SHADOW) >> PAGE_SHIFT


@inline
def holder_of(ram, number):
    """Where the entry is that names a table of the last level; 0 for other pages."""
    return load_32(ram, HOLDERS + number * PAGE_RECORD)


@inline
def note_use(ram, table):
    """A table of the last level is of use."""
    store_32(ram, USED + number_of(table) * PAGE_RECORD, 1)


@inline
def note_dropped(ram):
    """An entry was taken back: the processor has to forget it before the guest goes on."""
    store_32(ram, DROPPED, load_32(ram, DROPPED) + 1)
    store_32(ram, STALE, 1)


@kernel
def evict(cpu, ram):
    """Take a table of the last level out of its directory: the page up to which the clock's hand comes."""
    charge(cpu, EVENT_NESTED_EVICTION, 1)
    hand = load_32(ram, HAND)
    while True:
        hand += 1
        if hand >= load_32(ram, BUDGET):
            hand = FIRST_PAGE
        if holder_of(ram, hand) == 0:
            continue
        if load_32(ram, USED + hand * PAGE_RECORD) == 0:
            break
        store_32(ram, USED + hand * PAGE_RECORD, 0)
    store_32(ram, HAND, hand)
    write_entry(ram, form_of(ram), holder_of(ram, hand), 0)
    note_dropped(ram)
    return hand


@kernel
def allocate(cpu, ram, holder):
    """The machine address of an empty table; `holder`: the entry that will name it, 0 for one above the last level."""
    charge(cpu, EVENT_NESTED_TABLE, 1)
    store_32(ram, TABLES_MADE, load_32(ram, TABLES_MADE) + 1)
    number = load_32(ram, NEXT)
    if number < load_32(ram, BUDGET):
        store_32(ram, NEXT, number + 1)
    else:
        number = evict(cpu, ram)
    address = address_of(number)
    for offset in range(0, TABLE_BYTES, 4):
        store_32(ram, address + offset, 0)
    store_32(ram, HOLDERS + number * PAGE_RECORD, holder)
    store_32(ram, USED + number * PAGE_RECORD, 1)
    return address


@kernel
def table_behind(cpu, ram, form, place, shift, is_last):
    """The table that the entry at `place` names, made if there is none; the entry maps `1 << shift` bytes."""
    entry = load_32(ram, place)
    if is_present(form, entry):
        return entry & ADDRESS
    holder = 0
    if is_last:
        holder = place
    table = allocate(cpu, ram, holder)
    write_entry(ram, form, place, naming(form, table, shift))
    return table
