"""Grants against a model: who maps what of whom, what the granter sees of it, and how often each frame is used."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from paravirtual_rig import ROOM, Domains

MAP, UNMAP, SETUP, DUMP, TRANSFER, COPY, QUERY, REPLACE, SET_VERSION, STATUS_FRAMES, GET_VERSION = range(11)
DEVICE, HOST, READONLY, APPLICATION, BY_PTE = 1, 2, 4, 8, 16
PERMIT, ENTRY_READONLY, READING, WRITING = 1, 4, 8, 16
OKAY, GENERAL, BAD_DOMAIN, BAD_REF, BAD_HANDLE, BAD_ADDRESS = 0, -1, -2, -3, -4, -5
DENIED, BAD_PAGE, BAD_COPY = -8, -9, -10
EFAULT, EINVAL, ENOSYS = 14, 22, 38
SELF = 0x7FF0
GRANT_TABLES, TABLE_BYTES, ENTRIES = 0xA8000, 0x4000, 512
GRANTED = (0x18, 0x19, 0x1A)  # pages that domains grant
TARGETS = (0xD, 0xE)  # pages over which they map what they are granted
REFERENCES = (8, 9, 10)
P, RW, US, A, D = 1, 2, 4, 0x20, 0x40
COUNT = (1 << 26) - 1

RIG: list[Domains] = []


def rig() -> Domains:
    """One rig for all."""
    if not RIG:
        RIG.append(Domains())
    return RIG[0]


def signed(value: int) -> int:
    """16 bits as a signed number."""
    return (value & 0xFFFF) - (0x10000 if value & 0x8000 else 0)


class Grants:
    """What the tests do with a rig."""

    def __init__(self, domains: Domains) -> None:
        self.rig = domains

    def set_entry(self, index: int, ref: int, flags: int, domid: int, frame: int) -> None:
        """A domain writes an entry of its grant table."""
        octets = flags.to_bytes(2, "little") + domid.to_bytes(2, "little") + frame.to_bytes(4, "little")
        self.rig.machine.processor.write_physical(GRANT_TABLES + TABLE_BYTES * index + 8 * ref, octets)

    def entry_flags(self, index: int, ref: int) -> int:
        """The flags of an entry as they are now."""
        return int.from_bytes(self.rig.machine.processor.read_physical(GRANT_TABLES + TABLE_BYTES * index + 8 * ref, 2), "little")

    def map(self, index: int, granter: int, ref: int, how: int, address: int) -> tuple[int, int, int]:
        """Map a grant: status, handle, bus address."""
        self.rig.switch(index)
        self.rig.put(ROOM, address, 0, how, ref, granter, 0, 0, 0)
        assert self.call(MAP, 1) == 0
        words = self.rig.get(ROOM, 8)
        return signed(words[4] >> 16), words[5], words[6] | words[7] << 32

    def unmap(self, index: int, handle: int, address: int, bus: int) -> int:
        """Unmap: a status."""
        self.rig.switch(index)
        self.rig.put(ROOM, address, 0, bus, 0, handle, 0)
        assert self.call(UNMAP, 1) == 0
        return signed(self.rig.get(ROOM, 6)[5])

    def copy(self, index: int, source: tuple[int, int, int], target: tuple[int, int, int], length: int, how: int) -> int:
        """Copy: a status. An end is a reference or frame, a domain, an offset."""
        self.rig.switch(index)
        ends = [word for ref, domid, offset in (source, target) for word in (ref, domid | offset << 16)]
        self.rig.put(ROOM, *ends, length | how << 16, 0)
        assert self.call(COPY, 1) == 0
        return signed(self.rig.get(ROOM, 6)[5])

    def call(self, command: int, count: int) -> int:
        """The hypercall, its structures at ROOM."""
        return self.rig.call("grant_table_op", command, ROOM, count)

    def uses(self, frame: int) -> tuple[int, int]:
        """References to a frame, and its uses as a writable page."""
        entry = self.rig.vm.frames[frame]
        return int(entry.count_info) & COUNT, int(entry.type_info) & (1 << 22) - 1

    def page_entry(self, index: int, page: int) -> int:
        """The page-table entry of one of a domain's pages."""
        read = self.rig.machine.processor.read_physical
        base = int(self.rig.vm.domains[index].base_frame) << 12
        table = int.from_bytes(read(base + 4 * (page >> 10), 4), "little") & ~0xFFF
        return int.from_bytes(read(table + 4 * (page & 1023), 4), "little")

    def map_own(self, index: int, page: int) -> None:
        """A domain maps its own page where something else was."""
        self.rig.switch(index)
        assert self.rig.call("update_va_mapping", page << 12, self.rig.frame(page) << 12 | P | RW | US | A | D, 0, 2) == 0


class Mapped(NamedTuple):
    """A mapping of the model's."""

    mapper: int
    granter: int
    ref: int
    how: int
    frame: int
    page: int


domains = st.integers(0, 2)


@settings(max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
class GrantMachine(RuleBasedStateMachine):
    """Three domains that grant, map, unmap and write entries in any order."""

    @initialize()
    def begin(self) -> None:
        """Nothing granted, nothing mapped."""
        self.grants = Grants(rig())
        self.entries: dict[tuple[int, int], tuple[int, int, int]] = {}
        self.marks: dict[tuple[int, int], int] = {}
        self.mapped: dict[int, Mapped] = {}
        for index in range(3):
            for ref in REFERENCES:
                self.write_entry(index, ref, 0, 0, GRANTED[0])
            for page in TARGETS:
                self.grants.map_own(index, page)
        self.before = {frame: self.grants.uses(frame) for frame in self.frames()}

    def frames(self) -> list[int]:
        """The frames that may be granted."""
        return [self.grants.rig.frame(page, index) for index in range(3) for page in GRANTED]

    def teardown(self) -> None:
        """All that is mapped is given back, and every frame is as before."""
        if not hasattr(self, "mapped"):
            return
        for handle, mapping in list(self.mapped.items()):
            assert self.grants.unmap(mapping.mapper, handle, *self.addresses(mapping)) == OKAY
        for frame, uses in self.before.items():
            assert self.grants.uses(frame) == uses

    @staticmethod
    def addresses(mapping: Mapped) -> tuple[int, int]:
        """Host and bus address by which a mapping ends."""
        host = mapping.page << 12 if mapping.how & HOST else 0
        return host, mapping.frame << 12 if mapping.how & DEVICE else 0

    @rule(
        index=domains, ref=st.sampled_from(REFERENCES), domid=st.integers(0, 3), page=st.sampled_from(GRANTED),
        flags=st.sampled_from([0, PERMIT, PERMIT, PERMIT | ENTRY_READONLY, 2]),
    )  # fmt: skip
    def write_entry(self, index: int, ref: int, flags: int, domid: int, page: int) -> None:
        """A domain grants something else, or nothing; in use or not."""
        self.grants.set_entry(index, ref, flags, domid, self.grants.rig.frame(page, index))
        self.entries[index, ref] = flags, domid, self.grants.rig.frame(page, index)
        self.marks[index, ref] = 0  # it has overwritten what the VMM said there

    def mark(self, granter: int, ref: int) -> None:
        """The VMM tells the granter whether an entry is in use."""
        used = self.in_use(granter, ref)
        self.marks[granter, ref] = (READING if used else 0) | (WRITING if any(not one.how & READONLY for one in used) else 0)

    def in_use(self, granter: int, ref: int) -> list[Mapped]:
        """The mappings of an entry."""
        return [mapping for mapping in self.mapped.values() if (mapping.granter, mapping.ref) == (granter, ref)]

    @rule(
        index=domains, granter=st.integers(0, 3), ref=st.sampled_from([*REFERENCES, ENTRIES, 0xFFFFFFFF]),
        how=st.integers(0, 7), page=st.sampled_from(TARGETS),
    )  # fmt: skip
    def map(self, index: int, granter: int, ref: int, how: int, page: int) -> None:
        """Map over the domain's own page, or where nothing is any more."""
        if any((one.mapper, one.page) == (index, page) and one.how & HOST for one in self.mapped.values()):
            return
        status, handle, bus = self.grants.map(index, granter, ref, how, page << 12)
        flags, domid, frame = self.entries.get((granter, ref), (0, 0, 0))
        if not how & (DEVICE | HOST):
            assert status == BAD_REF
        elif granter == 3:
            assert status == BAD_DOMAIN
        elif ref >= ENTRIES:
            assert status == BAD_REF
        elif flags & 3 != PERMIT or domid != index or (flags & ENTRY_READONLY and not how & READONLY):
            assert status == GENERAL
        else:
            used = self.in_use(granter, ref)
            frame = used[0].frame if used else frame
            assert (status, bus) == (OKAY, frame << 12) and handle not in self.mapped
            self.mapped[handle] = Mapped(index, granter, ref, how, frame, page)
            self.mark(granter, ref)

    @rule(data=st.data())
    def unmap(self, data: st.DataObject) -> None:
        """End a mapping, by its own addresses or by wrong ones."""
        if not self.mapped:
            return
        handle = data.draw(st.sampled_from(sorted(self.mapped)))
        mapping = self.mapped[handle]
        assert self.grants.unmap((mapping.mapper + 1) % 3, handle, *self.addresses(mapping)) == BAD_HANDLE
        host, bus = self.addresses(mapping)
        if host:
            assert self.grants.unmap(mapping.mapper, handle, 0x1F000, 0) == BAD_ADDRESS
        if bus:
            assert self.grants.unmap(mapping.mapper, handle, 0, bus + 0x1000) == GENERAL
        assert self.grants.unmap(mapping.mapper, handle, host, bus) == OKAY
        assert self.grants.unmap(mapping.mapper, handle, host, bus) == BAD_HANDLE
        del self.mapped[handle]
        self.mark(mapping.granter, mapping.ref)

    @invariant()
    def as_the_model(self) -> None:
        """What granters see in their entries; how often each frame is used; what page tables map."""
        if not hasattr(self, "before"):
            return
        for (granter, ref), (flags, _, _) in self.entries.items():
            assert self.grants.entry_flags(granter, ref) == flags | self.marks[granter, ref]
        for frame, (references, writable) in self.before.items():
            here = [mapping for mapping in self.mapped.values() if mapping.frame == frame]
            parts = [bool(mapping.how & kind) for mapping in here for kind in (HOST, DEVICE)]
            written = [bool(m.how & kind) for m in here if not m.how & READONLY for kind in (HOST, DEVICE)]
            assert self.grants.uses(frame) == (references + sum(parts), writable + sum(written))
        for mapping in self.mapped.values():
            if mapping.how & HOST:
                rights = P | A | D | (0 if mapping.how & READONLY else RW)
                assert self.grants.page_entry(mapping.mapper, mapping.page) == mapping.frame << 12 | rights


TestGrants = GrantMachine.TestCase


@pytest.fixture
def grants() -> Grants:
    """Entry 8 of domain 1 grants its page 18 to domain 2, entry 9 its page 19 for reading."""
    domains = Grants(rig())
    for index in range(3):
        for page in TARGETS:
            domains.map_own(index, page)
    for ref, flags in ((8, PERMIT), (9, PERMIT | ENTRY_READONLY), (10, 0)):
        domains.set_entry(1, ref, flags, 2, domains.rig.frame(0x10 + ref, 1))
    return domains


def test_the_mapping_is_the_frame(grants: Grants) -> None:
    """What one domain writes the other reads; the mapping that is ended is flushed."""
    rig = grants.rig
    rig.put(0x18000, 0x12345678, index=1)
    status, handle, bus = grants.map(2, 1, 8, HOST | DEVICE, 0xD000)
    assert (status, bus) == (OKAY, rig.machine_address(0x18000, 1))
    rig.put(0x1E000, 0xD000)  # by the processor's own walk: a poll of the port whose number stands there
    assert rig.machine.bytes_at(0xD000, 4) == (0x12345678).to_bytes(4, "little")
    assert grants.unmap(2, handle, 0xD000, 0) == OKAY
    assert rig.machine.bytes_at(0xD000, 4) == b""
    assert grants.entry_flags(1, 8) == PERMIT | READING | WRITING  # a device has it still
    assert grants.unmap(2, handle, 0, bus) == OKAY and grants.entry_flags(1, 8) == PERMIT


def test_a_guest_may_write_over_a_mapping(grants: Grants) -> None:
    """The reference goes with the entry; the handle then names what is not there."""
    frame = grants.rig.frame(0x17, 1)
    before = grants.uses(frame)
    grants.set_entry(1, 11, PERMIT, 2, frame)
    _, handle, _ = grants.map(2, 1, 11, HOST, 0xD000)
    grants.map_own(2, 0xD)
    assert grants.uses(frame) == before
    assert grants.unmap(2, handle, 0xD000, 0) == GENERAL
    assert grants.uses(frame) == before


def test_a_mapping_by_its_entry(grants: Grants) -> None:
    """GNTMAP_contains_pte: the machine address of an entry of a page table of the caller's own."""
    rig = grants.rig
    read = rig.machine.processor.read_physical
    table = int.from_bytes(read(int(rig.vm.domains[2].base_frame) << 12, 4), "little") & ~0xFFF
    status, handle, _ = grants.map(2, 1, 8, HOST | BY_PTE, table + 4 * 0xD)
    assert status == OKAY and grants.page_entry(2, 0xD) >> 12 == rig.frame(0x18, 1)
    assert grants.unmap(2, handle, table + 4 * 0xD, 0) == OKAY and grants.page_entry(2, 0xD) == 0
    other = int.from_bytes(read(int(rig.vm.domains[1].base_frame) << 12, 4), "little") & ~0xFFF
    for place in (table + 1, other + 4 * 0xD, rig.machine_address(0xE000, 2), 0xFFFFF000, 0):
        assert grants.map(2, 1, 8, HOST | BY_PTE, place)[0] == GENERAL


@pytest.mark.parametrize("address", [0xFC000000, 0xFFFFF000, 0xF0000000, 0x80000000])
def test_addresses_that_cannot_be_mapped(grants: Grants, address: int) -> None:
    """What is the VMM's, or has no page table."""
    frame = grants.rig.frame(0x18, 1)
    before = grants.uses(frame)
    assert grants.map(2, 1, 8, HOST, address)[0] == GENERAL
    assert grants.map(2, 1, 8, HOST | DEVICE, address)[0] == GENERAL
    assert grants.uses(frame) == before and grants.entry_flags(1, 8) == PERMIT


def test_frames_that_cannot_be_granted(grants: Grants) -> None:
    """Those of others, of the VMM, beyond the machine; a page table for writing."""
    rig = grants.rig
    table = int(rig.vm.domains[1].base_frame)
    for frame in (rig.frame(0x18, 0), rig.frame(0x18, 2), 0, 0xA0, 0xFFFFFFFF, len(rig.vm.frames), table):
        grants.set_entry(1, 8, PERMIT, 2, frame)
        assert grants.map(2, 1, 8, HOST, 0xD000)[0] == GENERAL
        assert grants.map(2, 1, 8, DEVICE, 0)[0] == GENERAL
        if frame != table:
            assert grants.map(2, 1, 8, HOST | READONLY, 0xD000)[0] == GENERAL
    grants.set_entry(1, 8, PERMIT, 2, table)
    status, handle, _ = grants.map(2, 1, 8, HOST | READONLY, 0xD000)
    assert status == OKAY and not grants.page_entry(2, 0xD) & RW
    assert grants.unmap(2, handle, 0xD000, 0) == OKAY


def test_copies(grants: Grants) -> None:
    """Between a granted frame and one's own, at any offset; nothing is written where it is refused."""
    rig = grants.rig
    rig.put(0x19000, *range(0x100, 0x120), index=1)
    rig.switch(2)
    own = rig.frame(0xE)
    rig.put(0xE000, *[0] * 64)
    assert grants.copy(2, (9, 1, 6), (own, SELF, 3), 21, 1) == OKAY
    source = rig.machine.processor.read_physical(rig.machine_address(0x19006, 1), 21)
    assert rig.machine.processor.read_physical(rig.machine_address(0xE000), 28) == b"\0" * 3 + source + b"\0" * 4
    assert grants.copy(2, (own, SELF, 0), (8, 1, 0xFF0), 16, 2) == OKAY
    assert rig.get(0x18FF0, 4, index=1) == rig.get(0xE000, 4)
    before = {frame: grants.uses(frame) for frame in (own, rig.frame(0x18, 1), rig.frame(0x19, 1))}
    for source, target, length, how, status in (
        ((9, 1, 0xFFF), (own, SELF, 0), 2, 1, BAD_COPY),
        ((own, SELF, 0), (8, 1, 0xFFF), 2, 2, BAD_COPY),
        ((own, SELF, 0), (9, 1, 0), 4, 2, GENERAL),
        ((10, 1, 0), (own, SELF, 0), 4, 1, GENERAL),
        ((ENTRIES, 1, 0), (own, SELF, 0), 4, 1, BAD_REF),
        ((9, 5, 0), (own, SELF, 0), 4, 1, BAD_DOMAIN),
        ((own, 1, 0), (own, SELF, 0), 4, 0, DENIED),
        ((rig.frame(0x18, 1), SELF, 0), (own, SELF, 0), 4, 0, BAD_PAGE),
        ((own, SELF, 0), (rig.frame(0x18, 1), SELF, 0), 4, 0, BAD_PAGE),
        ((own, SELF, 0), (int(rig.vm.domains[2].base_frame), SELF, 0), 4, 0, BAD_PAGE),
        ((own, SELF, 0), (0, SELF, 0), 4, 0, BAD_PAGE),
    ):
        assert grants.copy(2, source, target, length, how) == status
    assert {frame: grants.uses(frame) for frame in before} == before


def test_tables(grants: Grants) -> None:
    """Their frames, how many there may be; a domain may ask for its own alone."""
    rig = grants.rig
    rig.switch(2)
    rig.put(ROOM, SELF, 4, 99, ROOM + 0x40)
    assert grants.call(SETUP, 1) == 0 and signed(rig.get(ROOM, 3)[2]) == OKAY
    assert rig.get(ROOM + 0x40, 4) == [(GRANT_TABLES + TABLE_BYTES * 2 >> 12) + number for number in range(4)]
    for domid, frames, status in ((SELF, 5, GENERAL), (1, 1, DENIED), (7, 1, BAD_DOMAIN), (SELF, 0xFFFFFFFF, GENERAL)):
        rig.put(ROOM, domid, frames, 99, ROOM + 0x40)
        assert grants.call(SETUP, 1) == 0 and signed(rig.get(ROOM, 3)[2]) == status
    rig.put(ROOM, SELF, 1, 99, 0xFC000000)
    assert grants.call(SETUP, 1) == -EFAULT
    rig.put(ROOM, SELF, 0, 0, 99)
    assert grants.call(QUERY, 1) == 0 and rig.get(ROOM, 4)[1:] == [4, 4, 0]
    rig.put(ROOM, 1, 0, 0, 99)
    assert grants.call(QUERY, 1) == 0 and signed(rig.get(ROOM, 4)[3]) == DENIED
    rig.put(ROOM, 1)
    assert grants.call(SET_VERSION, 1) == 0
    rig.put(ROOM, 2)
    assert grants.call(SET_VERSION, 1) == -ENOSYS and rig.get(ROOM, 1) == [1]
    rig.put(ROOM, 3)
    assert grants.call(SET_VERSION, 1) == -EINVAL
    assert grants.call(GET_VERSION, 1) == 0 and rig.get(ROOM, 2)[1] == 1


@pytest.mark.parametrize("command", [MAP, UNMAP, COPY, SETUP, QUERY, SET_VERSION, GET_VERSION])
@pytest.mark.parametrize("address", [0xFC000000, 0xFFFFFFFF, 0xFFFFF000, 0x700000])
def test_structures_that_are_not_there(grants: Grants, command: int, address: int) -> None:
    """-EFAULT, whatever the operation."""
    assert grants.rig.call("grant_table_op", command, address, 1) == -EFAULT


def test_lists(grants: Grants) -> None:
    """Of no more than 512; only some operations take more than one; unknown ones are refused."""
    rig = grants.rig
    assert rig.call("grant_table_op", MAP, ROOM, 513) == -EINVAL
    assert rig.call("grant_table_op", SETUP, ROOM, 2) == -EINVAL
    assert rig.call("grant_table_op", MAP, ROOM, 0) == 0
    for command in (DUMP, TRANSFER, REPLACE, STATUS_FRAMES, 11, 12, 0xFFFFFFFF):
        assert rig.call("grant_table_op", command, ROOM, 1) == -ENOSYS
    rig.switch(2)
    rig.put(ROOM, *[word for page in TARGETS for word in (page << 12, 0, HOST, 8, 1, 0, 0, 0)])
    assert grants.call(MAP, 2) == 0
    handles = [rig.get(ROOM + 32 * number, 8)[5] for number in range(2)]
    assert len(set(handles)) == 2 and [grants.page_entry(2, page) >> 12 for page in TARGETS] == [rig.frame(0x18, 1)] * 2
    rig.put(ROOM, *[word for page, handle in zip(TARGETS, handles, strict=True) for word in (page << 12, 0, 0, 0, handle, 0)])
    assert grants.call(UNMAP, 2) == 0 and grants.entry_flags(1, 8) == PERMIT


def test_an_entry_is_mapped_so_often_and_no_more(grants: Grants) -> None:
    """128 times in one way; all are given back."""
    results = [grants.map(2, 1, 8, DEVICE, 0) for _ in range(130)]
    assert [status for status, _, _ in results] == [OKAY] * 128 + [GENERAL] * 2
    for _, handle, bus in results[:128]:
        assert grants.unmap(2, handle, 0, bus) == OKAY
    assert grants.entry_flags(1, 8) == PERMIT


def test_a_domain_uses_up_its_own_handles_alone(grants: Grants) -> None:
    """Others have theirs; what is given back can be had again."""
    for ref in range(100, 110):
        for domid, granter in ((2, 1), (1, 2)):
            grants.set_entry(granter, ref, PERMIT, domid, grants.rig.frame(0x18, granter))
    held = []
    while len(held) < 1200:
        status, handle, bus = grants.map(2, 1, 100 + len(held) % 10, DEVICE, 0)
        if status != OKAY:
            break
        held.append((handle, bus))
    assert status == -7 and len(held) == 1137 - 1  # one was lost by what the domain wrote over a mapping
    status, handle, bus = grants.map(1, 2, 100, DEVICE, 0)
    assert status == OKAY and grants.unmap(1, handle, 0, bus) == OKAY
    for handle, bus in held:
        assert grants.unmap(2, handle, 0, bus) == OKAY
    assert [grants.entry_flags(1, ref) for ref in range(100, 110)] == [PERMIT] * 10
