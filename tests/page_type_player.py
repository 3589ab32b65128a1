"""Random hypercalls of memory, played in a world of bare records and in the model of the rules, and compared after each."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import strategies as st
from page_type_model import EFAULT, ESRCH, IO, L1, L2, L3, LAST_L2, NOTHING, OWN, SELF, WRITABLE, Model
from paravirtual_machine import (
    ARGUMENT_SLOT,
    ARGUMENTS,
    BASE_L1,
    BASE_L2,
    BASE_L3,
    DOMAIN_0,
    FIRST,
    GUEST,
    L1S,
    L2S,
    L3S,
    LOWER_L2,
    N_FRAMES,
    N_GUEST,
    NEW_BASEPTR,
    OTHERS,
    PIN_L1,
    PIN_L2,
    PIN_L3,
    PLAIN,
    PS,
    PWT,
    RW,
    UP,
    US,
    A,
    D,
    G,
    P,
    World,
    world,
)

from x86virt.vmm.paravirtual.memory_calls import change_base
from x86virt.vmm.paravirtual.records import (
    PGC_ALLOCATED,
    PGC_COUNT,
    PGT_COUNT,
    PGT_L1,
    PGT_L2,
    PGT_L3,
    PGT_PAE_XEN_L2,
    PGT_PINNED,
    PGT_TYPE,
    PGT_VALIDATED,
    PGT_WRITABLE,
)

KINDS = {
    NOTHING: 0, L1: PGT_L1, L2: PGT_L2, LAST_L2: PGT_L2 | PGT_PAE_XEN_L2, L3: PGT_L3, WRITABLE: PGT_WRITABLE,
}  # fmt: skip
XEN_DOMAIN = 0x7FF2


def model_of(here: World) -> Model:
    """The model of a world at its beginning."""
    model = Model(here.pae, int(here.domains[GUEST].virt_start), {FIRST + n: GUEST for n in range(N_GUEST)}, GUEST, N_GUEST)
    for frame in model.words:
        model.words[frame][:] = here.entries(frame)
    base = BASE_L3 if here.pae else BASE_L2
    model.pin(base, 2 if here.pae else 1)
    model.change_base(base)
    return model


def check(here: World, model: Model) -> None:
    """Counts, types and contents of all frames are what the model says, and what a recount says."""
    for frame, owner in model.owner.items():
        record = here.frames[frame]
        if owner < 0:
            assert int(record.count_info) == 0 and int(record.owner) not in (GUEST, DOMAIN_0)
            continue
        info = KINDS[model.kind[frame]] | len(model.uses[frame])
        found = int(record.type_info)
        assert found & (PGT_TYPE | PGT_PAE_XEN_L2 | PGT_COUNT) == info, (hex(frame), hex(found), model.uses[frame])
        assert bool(found & PGT_PINNED) == (frame in model.pinned)
        assert found & PGT_VALIDATED or not model.uses[frame]
        assert int(record.count_info) & PGC_COUNT == len(model.users[frame]), (hex(frame), model.users[frame])
        assert bool(int(record.count_info) & PGC_ALLOCATED) == (OWN in model.users[frame])
        if frame != ARGUMENTS:
            assert np.array_equal(here.entries(frame), model.words[frame]), hex(frame)
    assert here.faults() == []


# -- random sequences ---------------------------------------------------------------------------------------------------

TARGETS = (*L1S, *L2S, *L3S, *PLAIN, *PLAIN, BASE_L1, BASE_L2, BASE_L3, LOWER_L2, OTHERS, 3, N_FRAMES + 5)
PLACES = (*L1S, *L2S, *L3S, *PLAIN, BASE_L2, BASE_L3, LOWER_L2, OTHERS)
FLAGS = (P, P | RW, P | RW | US | A, P | A | D, P | US, UP, 0, RW, P | PWT, P | PS | RW, P | G)
COMMON_FLAGS = (P, UP, P | RW, P | A, 0)
INDICES = (0, 1, 2, 3, 5, 427, 428, 511, 1007, 1008)

flags = st.one_of(st.sampled_from(COMMON_FLAGS), st.sampled_from(FLAGS))
entry = st.builds(lambda frame, bits: frame << 12 | bits, st.sampled_from(TARGETS), flags)
places = st.tuples(st.sampled_from(PLACES), st.sampled_from(INDICES), st.sampled_from((0, 0, 0, 2, 1, 3)))
requests = st.lists(st.tuples(places, entry), min_size=1, max_size=4)
foreigners = st.sampled_from((SELF, SELF, SELF, SELF, IO, XEN_DOMAIN, DOMAIN_0, GUEST))
pins = st.lists(st.tuples(st.sampled_from((0, 1, 2, 3, 4, 4, 5)), st.sampled_from(TARGETS), st.just(0)), min_size=1, max_size=3)
OPERATION = st.one_of(
    st.tuples(st.just("update"), requests, foreigners),
    st.tuples(st.just("update"), requests, st.just(SELF)),
    st.tuples(st.just("extended"), pins),
    st.tuples(st.just("pin own level"), st.sampled_from((*L1S, *L2S, *L3S))),
    st.tuples(st.just("map"), st.sampled_from(INDICES), entry),
    st.tuples(st.just("store"), st.sampled_from(PLACES), st.sampled_from(INDICES), entry),
    st.tuples(st.just("base"), st.sampled_from((*L2S, *L3S, BASE_L2, BASE_L3))),
    st.tuples(st.just("decrease"), st.sampled_from(TARGETS)),
    st.tuples(st.just("increase")),
)


class Player:
    """The same operations in the world and in the model."""

    def __init__(self, pae: bool) -> None:
        self.here = world(pae)
        self.model = model_of(self.here)
        self.answers: Counter[str] = Counter()

    def index(self, number: int) -> int:
        """An entry's number within a table."""
        return min(number, len(self.here.entries(FIRST)) - 1)

    @property
    def has_arguments(self) -> bool:
        """Whether the base maps the page of arguments."""
        table = self.model.base
        if self.here.pae:
            table = self.model.frame_of(self.model.word(table, 3))
        return self.model.word(table, ARGUMENT_SLOT) == BASE_L1 << 12 | UP

    def play(self, name: str, *arguments) -> None:
        """One operation; both must answer alike."""
        getattr(self, "do_" + name.replace(" ", "_"))(*arguments)
        check(self.here, self.model)

    def note(self, name: str, result: int) -> None:
        """Count an answer."""
        self.answers[f"{name} {result}" if result < 0 else f"{name} done"] += 1

    def do_update(self, wanted: list, foreign: int) -> None:
        """A batch of mmu_update."""
        listed = []
        for (frame, index, command), value in wanted:
            listed.append((self.here.slot(frame, self.index(index)) | command, value))
        found = self.here.update(*listed, foreign=foreign)
        self.note("mmu_update", found[0])
        if self.has_arguments:
            assert found == self.model.update(listed, foreign), (listed, found)
        else:
            assert found[0] == (EFAULT if self.model.foreign(foreign) is not None else ESRCH)

    def do_extended(self, wanted: list) -> None:
        """A batch of mmuext_op."""
        wanted = [row for number, row in enumerate(wanted) if row[0] != NEW_BASEPTR or number == len(wanted) - 1]
        if not wanted:
            return
        if not self.has_arguments:
            assert self.here.extended(*wanted)[0] == EFAULT
            return
        before = self.here.extended(*wanted)
        self.note("mmuext_op", before[0])
        result, done = self.model.extended(wanted)
        assert before[0] == result
        assert not self.has_arguments or before[1] == done

    def do_pin_own_level(self, frame: int) -> None:
        """A frame pinned as what most of its pool are."""
        self.do_extended([(PIN_L1 if frame in L1S else PIN_L2 if frame in L2S else PIN_L3, frame, 0)])

    def do_map(self, number: int, value: int) -> None:
        """update_va_mapping, in the first table of the linear space or in that of the arguments."""
        for gla in (number << 12, self.here.arguments + (self.index(number or 7) << 12)):
            found = self.here.map(gla, value)
            self.note("update_va_mapping", found)
            assert found == self.model.map(gla, value)

    def do_store(self, frame: int, number: int, value: int) -> None:
        """A store of the guest's own, where a page may be mapped writable."""
        if self.model.owner.get(frame) == GUEST and self.model.kind[frame] in (NOTHING, WRITABLE):
            self.here.put_entry(frame, self.index(number), value)
            self.model.words[frame][self.index(number)] = value

    def do_base(self, frame: int) -> None:
        """Another base, without the page of arguments."""
        here = self.here
        found = int(change_base(here.state, here.memory, here.xens, here.domains, here.frames, frame))
        self.note("base", found)
        assert found == self.model.attempt(self.model.change_base, frame)

    def do_decrease(self, frame: int) -> None:
        """A frame given back."""
        if not self.has_arguments or frame in (BASE_L1, ARGUMENTS):
            return
        self.here.put_arguments([frame], 2048)
        where = self.here.put_arguments([self.here.arguments + 2048, 1, 0, 0, SELF])
        found = self.here.call("memory_op", 1, where)
        self.note("memory_op", found)
        assert found == self.model.decrease(frame)

    def do_increase(self) -> None:
        """A frame asked for."""
        if not self.has_arguments:
            return
        where = self.here.put_arguments([self.here.arguments + 2048, 1, 0, 0, SELF])
        self.here.put_arguments([0], 2048)
        done = self.here.call("memory_op", 0, where)
        self.note("memory_op", done)
        (frame,) = self.here.get_arguments(2048, 1)
        if done:
            self.model.free.remove(frame)
            self.model.free.append(frame)
        assert self.model.increase() == (frame if done else None)
