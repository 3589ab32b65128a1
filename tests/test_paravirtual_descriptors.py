"""Descriptor tables of domains: what may stand in them, set_gdt, update_descriptor, the LDT, and what a bad selector leads to."""

import pytest
from descriptor_machine import descriptor, gate
from hypothesis import given, settings
from hypothesis import strategies as st
from paravirtual_kernel import (
    COMMON,
    DATA,
    FAILSAFE,
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING3_CS,
    FLAT_RING3_DS,
    FREE,
    GDT,
    KERNEL_STACK,
    LDT,
    STEPS,
    USER_STACK,
    Kernel,
    Step,
    calls,
    frame_of,
    hypercall,
    log,
    memory_of,
    results,
    run,
    words_of,
)
from small_kernel import EAX, far_jump, load_segment, save, store, word

from x86virt.vmm.paravirtual.descriptors import checked_descriptor
from x86virt.vmm.paravirtual.interface import EFAULT, EINVAL, MMUEXT_SET_LDT, UVMF_INVLPG

READ_ONLY, WRITABLE = 0x65, 0x67
ABSENT, VIRT_START = 0x700000, 0xFC000000
LIST = 0x6900  # of frames
FS, DS, SS = 4, 3, 2
LAST_PAGE = 0xFC3FF
FLAT_1 = descriptor(0, LAST_PAGE, 3, dpl=1, granular=1)
FLAT_3 = descriptor(0, LAST_PAGE, 3, dpl=3, granular=1)
CODE_1 = descriptor(0, LAST_PAGE, 11, dpl=1, granular=1)


def protect(page: int, rights: int = READ_ONLY) -> bytes:
    """Map a page of the first memory with other rights."""
    return hypercall("update_va_mapping", page, frame_of(page) << 12 | rights, 0, UVMF_INVLPG)


def own_gdt(entries: int = 512) -> bytes:
    """Make the page GDT the first of the descriptor table."""
    return protect(GDT) + store(LIST, frame_of(GDT)) + hypercall("set_gdt", LIST, entries)


def table(**entries: int) -> bytes:
    """Descriptors by their index, given as `_1=...`."""
    octets = bytearray(4096)
    for name, value in entries.items():
        place = 8 * int(name[1:])
        octets[place : place + 8] = value.to_bytes(8, "little")
    return bytes(octets)


def update(index: int, value: int) -> bytes:
    """update_descriptor of an entry in the page GDT."""
    return hypercall("update_descriptor", (frame_of(GDT) << 12) + 8 * index, 0, value & 0xFFFFFFFF, value >> 32)


def with_gdt(*steps: Step, **entries: int):
    """Run steps behind set_gdt: (machine, the log)."""
    machine, result = run(Kernel([Step(calls(protect(GDT), own_gdt())), *steps], octets={GDT: table(**entries)}))
    assert result.outcome == "exited 1", result.outcome
    return machine, log(machine)


# -- what a descriptor may be ----------------------------------------------------------------------------------------------


def reach(value: int, top: int = 0) -> tuple[int, int] | None:
    """The first and the last linear address of a segment, by the manual; wrapped ones as they are beyond 32 bits."""
    base = value >> 16 & 0xFFFFFF | (value >> 56) << 24
    limit = value & 0xFFFF | (value >> 48 & 0xF) << 16
    if value >> 55 & 1:
        limit = limit << 12 | 0xFFF
    if value >> 40 & 0xC == 4:  # data that grows downwards
        top = top or (0xFFFFFFFF if value >> 54 & 1 else 0xFFFF)
        return None if limit >= top else (base + limit + 1, base + top)
    return base, base + limit


def touches_vmm(value: int, end: int, top: int = 0) -> bool:
    """Whether some byte of a segment lies from `end` on, in the linear space of 32 bits."""
    span = reach(value, top)
    if span is None:
        return False
    first, last = span
    return any(first <= turn + 0xFFFFFFFF and last >= turn + end for turn in (0, 1 << 32))


@settings(deadline=None, max_examples=400)
@given(
    st.one_of(
        st.integers(0, (1 << 64) - 1),
        st.builds(
            descriptor, st.integers(0, 0xFFFFFFFF), st.integers(0, 0xFFFFF), st.integers(0, 15), dpl=st.integers(0, 3),
            db=st.integers(0, 1), granular=st.integers(0, 1),
        ),
        st.builds(
            descriptor, st.integers(0xFBFF0000, 0xFC410000), st.integers(0, 0xFFFFF), st.integers(0, 15), dpl=st.integers(0, 3),
            granular=st.integers(0, 1),
        ),
    ),
    st.sampled_from((0xFC3FF, 0xF67FF)),
)  # fmt: skip
def test_no_descriptor_reaches_the_vmm(value: int, last_page: int) -> None:
    """What is let through is absent, or has no ring 0, and no segment of it reaches beyond the last page."""
    allowed, low, high = checked_descriptor(value & 0xFFFFFFFF, value >> 32, last_page)
    made = int(low) | int(high) << 32
    if not value >> 47 & 1:
        assert allowed and made == value
    elif allowed:
        assert made >> 45 & 3 == max(value >> 45 & 3, 1)
        kind = made >> 40 & 0x1F
        if kind & 0x10:
            assert not touches_vmm(made, (last_page + 1) << 12), hex(made)
            # Data that grows downwards is looked at as if it were of 32 bits.
            same = touches_vmm(value, (last_page + 1) << 12, 0xFFFFFFFF) or made == value | (
                1 << 45 if not value >> 45 & 3 else 0
            )
            assert same, (hex(value), hex(made))
        else:
            assert kind in (0, 0xC)


REFUSED = {
    "TSS": descriptor(DATA, 0x67, 9, s=0, dpl=1, db=0),
    "busy TSS": descriptor(DATA, 0x67, 11, s=0, dpl=3, db=0),
    "TSS of 16 bits": descriptor(DATA, 0x2B, 1, s=0, dpl=1, db=0),
    "LDT": descriptor(DATA, 0xFF, 2, s=0, dpl=1, db=0),
    "interrupt gate": gate(FLAT_RING1_CS, COMMON, 14, dpl=3),
    "trap gate": gate(FLAT_RING1_CS, COMMON, 15, dpl=3),
    "task gate": gate(0x28, 0, 5, dpl=3),
    "call gate of 16 bits": gate(FLAT_RING1_CS, COMMON, 4, dpl=3),
    "call gate to the VMM": gate(0xFFC0, COMMON, 12, dpl=3),
    "call gate to ring 3's segment of the VMM": gate(FLAT_RING3_CS, COMMON, 12, dpl=3),
    "call gate with a reserved bit": gate(FLAT_RING1_CS, COMMON, 12, dpl=3) | 0x20 << 32,
    "segment at the VMM": descriptor(0xFC400000, 0xFFF, 3, dpl=3, granular=1),
    "segment just below it": descriptor(0xFC3FF000, 0, 3, dpl=3, granular=1),
    "bytes beyond the last page": descriptor(0xFC3FE000, 0x2000, 3, dpl=3),
    "bytes that grow downwards": descriptor(0xFC3FD000, 0x100, 7, dpl=3),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_descriptor_is_refused(name: str) -> None:
    """By update_descriptor into the table, into an ordinary page, and by set_gdt of a page that has it."""
    value = REFUSED[name]
    ordinary = hypercall("update_descriptor", frame_of(FREE) << 12, 0, value & 0xFFFFFFFF, value >> 32)
    other = protect(LDT) + store(LIST, frame_of(LDT)) + hypercall("set_gdt", LIST, 512)
    kernel = Kernel([Step(calls(own_gdt(), update(3, value), ordinary, other))], octets={LDT: table(_5=value)})
    machine, result = run(kernel)
    assert result.outcome == "exited 1" and results(machine, 4) == [0, -EINVAL, -EINVAL, -EINVAL]
    assert memory_of(machine, GDT + 24, 8) == memory_of(machine, FREE, 8) == bytes(8)
    assert memory_of(machine, LDT, 4096) == table(_5=value)
    assert int(machine.vm.domains[1].gdt_frames[0]) == frame_of(GDT)


def test_ring_0_cannot_be_had() -> None:
    """DPL 0 becomes 1, in set_gdt and in update_descriptor; a far jump there stays in ring 1."""
    flat_0 = descriptor(0, 0xFFFFF, 11, granular=1)
    steps = [Step(calls(update(2, flat_0))), Step(far_jump(0x09, STEPS + 0x800)), Step(far_jump(0x11, STEPS + 0x800))]
    kernel = Kernel([Step(own_gdt()), *steps], octets={GDT: table(_1=flat_0), STEPS + 0x800: b"\x8c\xc8\xf4"})
    machine, result = run(kernel)
    assert result.outcome == "exited 1" and results(machine, 1) == [0]
    assert [(row[0], row[3] & 0xFFFF) for row in log(machine)] == [
        (13, 0x09),
        (13, 0x11),
    ]  # HLT is privileged there too
    for index in (1, 2):
        assert int.from_bytes(memory_of(machine, GDT + 8 * index, 8), "little") & ~(1 << 40) == CODE_1 & ~(1 << 40)


def test_a_domain_uses_its_own_segments() -> None:
    """Selectors of its GDT load in ring 1 and ring 3; entries that are changed count from then on."""
    short = descriptor(DATA + 0x100, 0xF, 3, dpl=3)
    read = load_segment(FS, 0x13) + b"\x64\xa1" + word(4)
    machine, rows = with_gdt(
        Step(read + save(DATA + 8, EAX)),
        Step(
            calls(update(2, descriptor(DATA + 0x200, 0xF, 3, dpl=3))) + b"\x64\xa1" + word(4) + save(DATA + 8, EAX), 1
        ),
        Step(load_segment(FS, 0x13) + b"\x64\xa1" + word(16), 3),
        _2=short,
    )
    assert [row[:2] for row in rows] == [[13, 0]]  # beyond the limit
    assert words_of(machine, DATA + 8, 1) == [0]


def test_a_change_counts_at_the_next_return() -> None:
    """The VMM loads the data segments anew: FS reaches the other place without a load by the guest."""
    first, second = descriptor(DATA + 0x100, 0xFFF, 3, dpl=3), descriptor(DATA + 0x200, 0xFFF, 3, dpl=3)
    code = store(DATA + 0x100, 0x11) + store(DATA + 0x200, 0x22) + load_segment(FS, 0x13)
    code += (
        b"\x64\xa1"
        + word(0)
        + save(DATA + 0x40, EAX)
        + update(2, second)
        + b"\x64\xa1"
        + word(0)
        + save(DATA + 0x44, EAX)
    )
    machine, rows = with_gdt(Step(code), _2=first)
    assert words_of(machine, DATA + 0x40, 2) == [0x11, 0x22] and rows == []


def test_a_descriptor_that_is_gone_leads_to_the_failsafe_callback() -> None:
    """FS is loaded; its descriptor becomes absent: the return from that very hypercall cannot load it."""
    machine, rows = with_gdt(Step(load_segment(FS, 0x13) + update(2, 0)), Step(b"\x8c\xe0\xcc"), _2=FLAT_3)
    assert rows[0][0] == FAILSAFE and rows[0][1:5] == [FLAT_RING3_DS, FLAT_RING3_DS, 0x13, FLAT_RING3_DS]
    assert rows[0][6] & 0xFFFF == FLAT_RING1_CS
    assert rows[1][0] == 3


def test_the_table_is_read_only_and_counted() -> None:
    """A store to a page of descriptors is #PF; it cannot be mapped writable; set_gdt of nothing gives it back."""
    machine, result = run(
        Kernel(
            [
                Step(calls(own_gdt(), protect(GDT, WRITABLE))), Step(store(GDT, 0)),
                Step(calls(hypercall("set_gdt", 0, 0), protect(GDT, WRITABLE)) + store(GDT, 7)),
            ]
        )
    )  # fmt: skip
    assert result.outcome == "exited 1" and results(machine, 2) == [0, 0]
    assert [row[:2] for row in log(machine)] == [[14, 3]] and int(machine.vm.domains[1].cr2) == GDT
    assert words_of(machine, GDT, 1) == [7]


@pytest.mark.parametrize(
    "frames, entries, result",
    [
        ((0,), 512, -EINVAL), ((0x3FF,), 512, -EINVAL), ((0xFFFFF,), 512, -EINVAL), ((0xFFFFFFFF,), 512, -EINVAL),
        ((0x80000000,), 512, -EINVAL), ((frame_of(DATA),), 512, -EINVAL),  # mapped writable
        ((frame_of(GDT), 5), 1024, -EINVAL), ((frame_of(GDT),) * 2, 1024, 0), ((frame_of(GDT),), 7169, -EINVAL),
        ((frame_of(GDT),), 0xFFFFFFFF, -EINVAL), ((frame_of(GDT),), 1, 0), ((), 0, 0),
    ],
)  # fmt: skip
def test_set_gdt_takes_the_domains_own_frames_alone(frames: tuple[int, ...], entries: int, result: int) -> None:
    """Others are refused, and none of the list is kept then."""
    lay = b"".join(store(LIST + 4 * number, frame) for number, frame in enumerate(frames))
    machine, outcome = run(Kernel([Step(protect(GDT) + lay + calls(hypercall("set_gdt", LIST, entries)))]))
    assert outcome.outcome == "exited 1" and results(machine, 1) == [result]
    row = machine.vm.frames[frame_of(GDT)]
    held = len(frames) if result == 0 else 0
    assert int(row.type_info) & 0x3FFFFF == held and int(row.count_info) & 0xFFFF == 2 + held
    assert int(machine.vm.domains[1].gdt_entries) == (entries if result == 0 else 0)


@pytest.mark.parametrize("address", [ABSENT, VIRT_START, VIRT_START - 2, 0xFFFFFFFF, 0x3FFFFE])
def test_a_list_of_frames_that_cannot_be_read_is_refused(address: int) -> None:
    """-EFAULT."""
    machine, outcome = run(Kernel([Step(calls(hypercall("set_gdt", address, 512)))]))
    assert outcome.outcome == "exited 1" and results(machine, 1) == [-EFAULT]


@pytest.mark.parametrize(
    "address",
    [
        (frame_of(DATA) << 12) + 4,
        (frame_of(DATA) << 12) + 1,
        0x1000,
        0x10000,
        0xFFFFF000,
        0x7FFFF000,
        frame_of(0x3000000) << 12,
    ],
)
def test_update_descriptor_writes_the_domains_frames_alone(address: int) -> None:
    """Not at an odd place, not the VMM's frames, not beyond the machine's."""
    code = calls(*(hypercall("update_descriptor", address, high, FLAT_3 & 0xFFFFFFFF, FLAT_3 >> 32) for high in (0, 1)))
    machine, outcome = run(Kernel([Step(code)]))
    assert outcome.outcome == "exited 1" and results(machine, 2) == [-EINVAL] * 2


def test_update_descriptor_does_not_write_page_tables() -> None:
    """A frame in use as a page table is neither for descriptors nor writable."""
    probe, _ = run(Kernel([]))
    base = int(probe.vm.domains[1].base_frame)
    machine, _ = run(Kernel([Step(calls(hypercall("update_descriptor", base << 12, 0, 0, 0)))]))
    assert results(machine, 1) == [-EINVAL] and int(machine.vm.domains[1].base_frame) == base


@pytest.mark.parametrize(
    "segment, index, rows",
    [
        (FS, 4, [[11, 0x20]]), (SS, 5, [[12, 0x28]]), (FS, 600, [[13, 600 * 8]]), (FS, 0x1FFF, [[13, 0xFFF8]]),
        (DS, 6, [[13, 0x30]]), (SS, 2, [[13, 0x10]]),
    ],
)  # fmt: skip
def test_a_bad_selector_is_the_domains_fault(segment: int, index: int, rows: list[list[int]]) -> None:
    """Absent, beyond the frames of the table, the VMM's own last entry, of the wrong type or privilege."""
    absent = descriptor(0, 1, 3, dpl=1, present=0)
    entries = {"_2": FLAT_3, "_4": absent, "_5": absent, "_6": descriptor(0, 1, 8, dpl=1)}
    _, found = with_gdt(Step(load_segment(segment, index * 8 | 1)), **entries)
    assert [row[:2] for row in found] == rows


def test_a_call_gate_leads_to_the_kernel_alone() -> None:
    """CALL FAR in ring 3 through a gate: ring 1, on the stack of stack_switch."""
    entries = {"_1": CODE_1, "_2": gate(0x09, STEPS + 0x800, 12, dpl=3)}
    kernel = Kernel(
        [Step(own_gdt()), Step(b"\x9a\0\0\0\0\x13\0", 3)],
        octets={GDT: table(**entries), STEPS + 0x800: b"\x89\xe3\x0f\x0b"},
    )
    machine, result = run(kernel)
    (row,) = log(machine)
    assert result.outcome == "exited 1"
    assert row[0] == 6 and row[2] & 0xFFFF == 0x09 and row[6:8] == [USER_STACK, FLAT_RING3_DS]
    assert row[5] & 0xFFFF == FLAT_RING3_CS and row[4] > STEPS


# -- the LDT --------------------------------------------------------------------------------------------------------------


def set_ldt(address: int, entries: int) -> bytes:
    """MMUEXT_SET_LDT."""
    operation = store(LIST, MMUEXT_SET_LDT) + store(LIST + 4, address) + store(LIST + 8, entries)
    return operation + hypercall("mmuext_op", LIST, 1, 0, 0x7FF0)


def test_selectors_of_the_ldt_are_found() -> None:
    """A table of one page, in ring 1 and ring 3; its limit counts; without a table there is none."""
    use = load_segment(FS, 8 * 3 | 7) + b"\x64\xa1" + word(0)
    beyond = load_segment(FS, 8 * 4 | 7)
    steps = [Step(calls(protect(LDT), set_ldt(LDT, 4)))]
    steps += [
        Step(use + save(DATA + 0x40, EAX)),
        Step(use + save(DATA + 0x44, EAX), 3),
        Step(beyond),
        Step(load_segment(FS, 0) + calls(set_ldt(0, 0))),
        Step(use),
    ]
    octets = {LDT: table(_3=descriptor(DATA + 0x60, 0xF, 3, dpl=3)), DATA + 0x60: word(0x1234)}
    machine, result = run(Kernel(steps, octets=octets))
    assert result.outcome == "exited 1" and words_of(machine, DATA + 0x40, 2) == [0x1234] * 2
    assert [row[:2] for row in log(machine)][1:] == [[13, 0x24], [13, 0x1C]]
    assert int(machine.vm.frames[frame_of(LDT)].type_info) & 0x3FFFFF == 0


def test_a_page_of_the_ldt_is_mapped_when_it_is_missed() -> None:
    """Two pages: the second at the first selector in it; one mapped writable cannot be, #PF names its address."""
    selector = 8 * 512 | 7
    use = load_segment(FS, selector)
    steps = [Step(calls(protect(LDT), set_ldt(LDT, 1024))), Step(use), Step(calls(protect(FREE)) + use + b"\xcc")]
    octets = {FREE: table(_0=FLAT_3)}
    machine, result = run(Kernel(steps, octets=octets))
    assert result.outcome == "exited 1"
    rows = log(machine)
    assert rows[0][:2] == [14, 0] and int(machine.vm.domains[1].cr2) == LDT + 0x1000 and rows[1][0] == 3
    assert [int(frame) for frame in machine.vm.domains[1].ldt_frames[:2]] == [frame_of(LDT), frame_of(FREE)]


@pytest.mark.parametrize(
    "address, entries", [(LDT + 8, 1), (LDT, 8193), (VIRT_START - 0x1000, 513), (VIRT_START, 1), (0xFFFFF000, 8)]
)
def test_an_ldt_must_be_the_guests(address: int, entries: int) -> None:
    """At a page, of so many entries, below the VMM."""
    machine, result = run(Kernel([Step(calls(set_ldt(address, entries)))]))
    assert result.outcome == "exited 1" and results(machine, 1)[0] < 0 and int(machine.vm.domains[1].ldt_entries) == 0


def test_an_ldt_whose_frame_goes_away_leads_to_the_failsafe_callback() -> None:
    """FS is of the LDT; the table is taken away: the return cannot load FS."""
    steps = [Step(calls(protect(LDT), set_ldt(LDT, 4)) + load_segment(FS, 0x1F) + set_ldt(0, 0)), Step(b"\xcc")]
    machine, result = run(Kernel(steps, octets={LDT: table(_3=FLAT_3)}))
    assert result.outcome == "exited 1" and [row[0] for row in log(machine)] == [FAILSAFE, 3]
    assert log(machine)[0][3] == 0x1F


def test_a_stack_may_be_of_the_domains_own_table() -> None:
    """stack_switch to a selector of the GDT, and one of the LDT, whose page is mapped on the way to it."""
    for selector in (0x11, 8 * 512 | 5):
        steps = [Step(own_gdt() + calls(protect(LDT), protect(FREE), set_ldt(LDT, 1024)))]
        steps += [Step(hypercall("stack_switch", selector, KERNEL_STACK)), Step(b"\x0f\x0b", 3)]
        machine, result = run(Kernel(steps, octets={GDT: table(_2=FLAT_1), FREE: table(_0=FLAT_1)}))
        assert result.outcome == "exited 1" and log(machine)[0][0] == 6
        assert int(machine.vm.domains[1].ss) in (selector, FLAT_RING1_DS)


@pytest.mark.parametrize("is_pae", (False, True))
def test_tables_are_mapped_in_both_formats(is_pae: bool) -> None:
    """GDT and LDT through the domain's own page table of 32-bit and of PAE entries."""
    steps = [Step(calls(own_gdt(), protect(LDT), set_ldt(LDT, 512)) + load_segment(FS, 0x13) + load_segment(5, 0x1F))]
    steps += [
        Step(b"\x64\xa1" + word(0) + save(DATA + 0x40, EAX) + b"\x65\xa1" + word(0) + save(DATA + 0x44, EAX) + b"\xcc")
    ]
    octets = {GDT: table(_2=descriptor(DATA + 0x60, 7, 3, dpl=3)), LDT: table(_3=descriptor(DATA + 0x68, 7, 3, dpl=3))}
    kernel = Kernel(steps, is_pae=is_pae, octets=octets | {DATA + 0x60: word(0x11) + word(0) + word(0x22)})
    machine, result = run(kernel)
    assert result.outcome == "exited 1" and [row[0] for row in log(machine)] == [3]
    assert words_of(machine, DATA + 0x40, 2) == [0x11, 0x22] and machine.vm.faults() == []
