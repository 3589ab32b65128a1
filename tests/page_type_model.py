"""A model of the rules of Xen's direct paging, written from the rules: who uses a frame, and as what.

Nothing is counted. Each frame has the set of those who refer to it, and the set of those who use it as what it is: entries of
tables by their place, pins, the base, its owner. A frame is validated when the first comes to use it as a table, and all that
its entries refer to is left when the last goes. What is refused raises Refused, with everything as it was but types of frames
that nobody uses.
"""

from collections.abc import Iterator

import numpy as np

P, RW = 1, 2
BAD = 8 | 16 | 128 | 256  # write-through, no cache, large, global

MARKS = 32 | 64
NOTHING, L1, L2, LAST_L2, L3, WRITABLE = "nothing", "L1", "L2", "L2 of the last quarter", "L3", "writable"
TABLES = (L1, L2, LAST_L2, L3)
SELF, IO = 0x7FF0, 0x7FF1
EINVAL, ESRCH, ENOSYS, EFAULT = -22, -3, -38, -14
OWN = "its owner"
Who = tuple | str


class Refused(Exception):
    """The rules do not allow it."""


class Model:
    """All frames of a machine, and the guest who plays with them."""

    def __init__(self, pae: bool, virt_start: int, owners: dict[int, int], guest: int, maximum: int) -> None:
        self.pae, self.virt_start, self.guest, self.maximum = pae, virt_start, guest, maximum
        self.owner = dict(owners)
        self.users: dict[int, set[Who]] = {frame: {OWN} for frame in owners}
        self.uses: dict[int, set[Who]] = {frame: set() for frame in owners}
        self.kind = dict.fromkeys(owners, NOTHING)
        self.words = {frame: np.zeros(512 if pae else 1024, np.uint64) for frame in owners}
        self.pinned: set[int] = set()
        self.free: list[int] = []
        self.base = 0

    # -- references and uses ------------------------------------------------------------------------------------------

    def refer(self, frame: int, who: Who, domain: int) -> None:
        """`who` refers to a frame of a domain."""
        if frame not in self.owner or self.owner[frame] != domain or not self.users[frame]:
            raise Refused
        assert who not in self.users[frame]
        self.users[frame].add(who)

    def leave(self, frame: int, who: Who) -> None:
        """`who` refers to it no more; with the last one it is nobody's."""
        self.users[frame].remove(who)
        if not self.users[frame]:
            self.kind[frame] = NOTHING
            self.owner[frame] = -1
            self.free.append(frame)

    def use(self, frame: int, who: Who, kind: str) -> None:
        """`who` uses a frame as something."""
        if self.uses[frame] and self.kind[frame] != kind:
            raise Refused
        first = not self.uses[frame]
        self.kind[frame] = kind
        self.uses[frame].add(who)
        if first and kind in TABLES:
            held: list[int] = []
            try:
                for index in self.present(frame):
                    self.hold(frame, index)
                    held.append(index)
                self.check_last(frame)
                if kind != L1:
                    self.write_own_entries(frame)
            except Refused:
                for index in held:
                    self.let_go(frame, index, self.word(frame, index))
                self.uses[frame].clear()
                self.kind[frame] = NOTHING
                raise

    def write_own_entries(self, table: int) -> None:
        """What the VMM writes behind the guest's entries of an L2: nothing here. An L3 is left as it is."""
        if self.kind[table] != L3:
            self.words[table][self.slots(table) :] = 0

    def cease(self, frame: int, who: Who) -> None:
        """`who` uses it as that no more; what its entries refer to is left with the last one."""
        self.uses[frame].remove(who)
        if not self.uses[frame] and self.kind[frame] in TABLES:
            for index in self.present(frame):
                self.let_go(frame, index, self.word(frame, index))
            if self.kind[frame] == LAST_L2:
                self.kind[frame] = L2

    def refer_and_use(self, frame: int, who: Who, domain: int, kind: str) -> None:
        """Both, or neither."""
        self.refer(frame, who, domain)
        try:
            self.use(frame, who, kind)
        except Refused:
            self.leave(frame, who)
            raise

    def leave_and_cease(self, frame: int, who: Who) -> None:
        """The contrary."""
        self.cease(frame, who)
        self.leave(frame, who)

    # -- entries --------------------------------------------------------------------------------------------------------

    def slots(self, table: int) -> int:
        """How many entries of a table are the guest's."""
        kind = self.kind[table]
        if kind == L3:
            return 4
        if kind == LAST_L2:
            return self.virt_start >> 21 & 511
        if kind == L2 and not self.pae:
            return self.virt_start >> 22
        return len(self.words[table])

    def present(self, table: int) -> Iterator[int]:
        """The entries that refer to something."""
        return (int(index) for index in np.flatnonzero(self.words[table][: self.slots(table)] & P))

    def word(self, table: int, index: int) -> int:
        """An entry."""
        return int(self.words[table][index])

    def frame_of(self, word: int) -> int:
        """The frame that an entry names."""
        return word >> 12 & 0xFFFFFFFF

    def hold(self, table: int, index: int, domain: int | None = None) -> None:
        """Refer to what an entry names, as its table's level has it."""
        word, kind = self.word(table, index), self.kind[table]
        frame, who = self.frame_of(word), (table, index)
        if word & BAD or word >> 44:
            raise Refused
        domain = self.owner[table] if domain is None else domain
        if kind == L1:
            if word & RW:
                self.refer_and_use(frame, who, domain, WRITABLE)
            else:
                self.refer(frame, who, domain)
        elif kind == L3:
            self.refer_and_use(frame, who, domain, LAST_L2 if index == 3 else L2)
        elif self.may_be_linear(table, frame):
            self.refer_linear(table, frame, who, word)
        else:
            self.refer_and_use(frame, who, domain, L1)

    def may_be_linear(self, table: int, frame: int) -> bool:
        """Whether an L2's entry names an L2 in use."""
        return frame in self.kind and self.kind[frame] in (L2, LAST_L2) and bool(self.uses[frame])

    def refer_linear(self, table: int, frame: int, who: Who, word: int) -> None:
        """A linear page table: never writable; of the table itself without a reference."""
        if word & RW:
            raise Refused
        if frame != table:
            self.refer(frame, who, self.owner[table])
            self.uses[frame].add(who)

    def let_go(self, table: int, index: int, word: int) -> None:
        """The contrary, for an entry that was this."""
        frame, who, kind = self.frame_of(word), (table, index), self.kind[table]
        if kind == L1 and not word & RW:
            self.leave(frame, who)
        elif kind == L1 or frame != table:
            self.leave_and_cease(frame, who)

    def check_last(self, table: int) -> None:
        """The last entry of an L3 must be there, and its L2 be no other's."""
        if self.kind[table] == L3:
            last = self.word(table, 3)
            if not self.pae or not last & P or len(self.uses[self.frame_of(last)]) != 1:
                raise Refused

    # -- hypercalls -------------------------------------------------------------------------------------------------------

    def attempt(self, action, *arguments) -> int:
        """0, or EINVAL if it is refused."""
        try:
            action(*arguments)
        except Refused:
            return EINVAL
        return 0

    def foreign(self, number: int) -> int | None:
        """The domain whose frames the guest may map by this number."""
        return {SELF: self.guest, IO: IO}.get(number)

    def update(self, requests: list[tuple[int, int]], foreign: int) -> tuple[int, int]:
        """mmu_update."""
        domain = self.foreign(foreign)
        if domain is None:
            return ESRCH, 0
        for number, (where, value) in enumerate(requests):
            result = self.request(where, value, domain)
            if result:
                return result, number
        return 0, len(requests)

    def request(self, where: int, value: int, domain: int) -> int:
        """One request of it."""
        command = where & (7 if self.pae else 3)
        frame = where >> 12
        if command > 2:
            return ENOSYS
        if command == 1:
            return 0 if self.owner.get(frame) == domain and self.users[frame] else EINVAL
        if self.owner.get(frame) != self.guest or not self.users[frame]:
            return EINVAL
        value &= 0xFFFFFFFFFFFFFFFF if self.pae else 0xFFFFFFFF
        index = (where & 0xFFF) >> (3 if self.pae else 2)
        return self.attempt(self.write, frame, index, value, command == 2, domain)

    def write(self, frame: int, index: int, value: int, preserve: bool, domain: int) -> None:
        """An entry of a table by its rules; of anything else, if it may be written."""
        if self.kind[frame] in TABLES:
            try:
                self.use(frame, "update", self.kind[frame])
            except Refused:
                pass
            else:
                try:
                    self.modify(frame, index, value, preserve, domain)
                finally:
                    self.cease(frame, "update")
                return
        self.use(frame, "update", WRITABLE)
        self.words[frame][index] = value
        self.cease(frame, "update")

    def modify(self, table: int, index: int, value: int, preserve: bool, domain: int) -> None:
        """Give an entry of a table in use another value."""
        old = self.word(table, index)
        if index >= self.slots(table) or (self.kind[table] == L3 and index >= 3):
            raise Refused
        if preserve:
            value |= old & MARKS
        same = value & P and old & P and not (value ^ old) & RW and self.frame_of(value) == self.frame_of(old)
        if same and self.kind[table] != L3:
            if value & BAD or value >> 44:
                raise Refused
            self.words[table][index] = value
            return
        # Both entries at once: the place is taken by two for a moment.
        shadow = (table, index, "old")
        if old & P:
            self.rename(table, index, old, (table, index), shadow)
        self.words[table][index] = value
        try:
            if value & P:
                self.hold(table, index, domain if self.kind[table] == L1 else None)
        except Refused:
            self.words[table][index] = old
            if old & P:
                self.rename(table, index, old, shadow, (table, index))
            raise
        if old & P:
            self.words[table][index] = old
            held = self.frame_of(value)
            mark = (table, index, "new")
            if value & P:
                self.rename(table, index, value, (table, index), mark)
            self.rename(table, index, old, shadow, (table, index))
            self.let_go(table, index, old)
            self.words[table][index] = value
            if value & P and held in self.users:
                self.rename(table, index, value, mark, (table, index))

    def rename(self, table: int, index: int, word: int, before: Who, after: Who) -> None:
        """Who refers by an entry goes by another name."""
        for group in (self.users, self.uses):
            members = group.get(self.frame_of(word), set())
            if before in members:
                members.remove(before)
                members.add(after)

    def map(self, gla: int, value: int) -> int:
        """update_va_mapping."""
        if gla >= self.virt_start:
            return EINVAL
        table, index = self.base, gla >> 22
        if self.pae:
            pointer = self.word(table, gla >> 30)
            if not pointer & P:
                return EINVAL
            table, index = self.frame_of(pointer), gla >> 21 & 511
        word = self.word(table, index)
        leaf = self.frame_of(word)
        if not word & P or self.kind[leaf] != L1 or not self.uses[leaf]:
            return EINVAL
        value &= 0xFFFFFFFFFFFFFFFF if self.pae else 0xFFFFFFFF
        return self.attempt(self.modify, leaf, gla >> 12 & (511 if self.pae else 1023), value, False, self.guest)

    def extended(self, operations: list[tuple[int, int, int]]) -> tuple[int, int]:
        """mmuext_op: pins, unpins and bases."""
        for number, (command, frame, _second) in enumerate(operations):
            if command < 4:
                result = self.attempt(self.pin, frame, command)
            elif command == 4:
                result = self.attempt(self.unpin, frame)
            elif command == 5:
                result = self.attempt(self.change_base, frame)
            else:
                result = ENOSYS
            if result:
                return result, number
        return 0, len(operations)

    def pin(self, frame: int, level: int) -> None:
        """Use a frame as a table from now on."""
        if level == 3 or (level == 2 and not self.pae):
            return
        if frame in self.pinned:
            raise Refused
        self.refer_and_use(frame, "pin", self.guest, (L1, L2, L3)[level])
        self.pinned.add(frame)

    def unpin(self, frame: int) -> None:
        """No longer."""
        if self.owner.get(frame) != self.guest or frame not in self.pinned:
            raise Refused
        self.pinned.remove(frame)
        self.leave_and_cease(frame, "pin")

    def change_base(self, frame: int) -> None:
        """Walk by another top table."""
        if frame == self.base:
            return
        self.refer_and_use(frame, "base", self.guest, L3 if self.pae else L2)
        before, self.base = self.base, frame
        if before:
            self.leave_and_cease(before, "base")

    def decrease(self, frame: int) -> bool:
        """Give a frame back: whether it was the guest's."""
        if self.owner.get(frame) != self.guest or not self.users[frame]:
            return False
        if frame in self.pinned:
            self.unpin(frame)
        if OWN in self.users[frame]:
            self.leave(frame, OWN)
        return True

    def increase(self) -> int | None:
        """A frame more: which."""
        total = sum(owner == self.guest for owner in self.owner.values())
        if not self.free or total >= self.maximum:
            return None
        frame = self.free.pop()
        self.owner[frame], self.users[frame], self.uses[frame] = self.guest, {OWN}, set()
        self.words[frame][:] = 0
        return frame
