"""The page tables on which a guest runs that has no paging of its own, where VM entry demands CR0.PG = 1.

They map every linear address to itself with 4 MB pages, and lie in two frames of guest-physical space that the extended
page tables show the guest only while it needs them. The guest's own accesses to these two frames are mapped to a place
where nothing is, so that they exit and find in the interpreter what they would find on the bare machine.
"""

from collections.abc import Callable

DIRECTORY_FRAME, TABLE_FRAME = 0xFFFBE, 0xFFFBF  # guest-physical
HOLE_FRAME = 0xFFFA0
LAST_DIRECTORY_ENTRY = 1023
PRESENT_WRITABLE_USER, ACCESSED, DIRTY, LARGE = 7, 1 << 5, 1 << 6, 1 << 7
OPEN = PRESENT_WRITABLE_USER | ACCESSED | DIRTY  # the processor need not mark anything

Show = Callable[[int, int], None]
Hide = Callable[[int], None]


def directory() -> bytes:
    """4 MB pages, but for the last: there the tables themselves show."""
    entries = [number << 22 | OPEN | LARGE for number in range(LAST_DIRECTORY_ENTRY)]
    entries.append(TABLE_FRAME << 12 | OPEN)
    return b"".join(entry.to_bytes(4, "little") for entry in entries)


def last_table() -> bytes:
    """The last 4 MB; the frames of the tables are mapped elsewhere."""
    first = LAST_DIRECTORY_ENTRY << 10
    frames = [HOLE_FRAME if frame in (DIRECTORY_FRAME, TABLE_FRAME) else frame for frame in range(first, first + 1024)]
    return b"".join((frame << 12 | OPEN).to_bytes(4, "little") for frame in frames)


class IdentityTables:
    """Both tables, in the VMM's region at a machine address; `show` and `hide` are the nested tables' doors."""

    def __init__(self, place: int, show: Show, hide: Hide) -> None:
        self.place, self.show, self.hide = place, show, hide

    @property
    def cr3(self) -> int:
        """For CR3."""
        return DIRECTORY_FRAME << 12

    @staticmethod
    def octets() -> bytes:
        """What lies at the place."""
        return directory() + last_table()

    def enter(self) -> None:
        """The guest is about to run on them."""
        self.show(DIRECTORY_FRAME, self.place >> 12)
        self.show(TABLE_FRAME, (self.place >> 12) + 1)

    def leave(self) -> None:
        """The guest has paging of its own."""
        self.hide(DIRECTORY_FRAME)
        self.hide(TABLE_FRAME)
