"""Hostile guests under trap-and-emulate: each ends in a named outcome, and the VMM's region is as the VMM left it."""

from __future__ import annotations

import re

import numpy as np
import pytest
from descriptor_machine import descriptor
from hypothesis import given, settings
from hypothesis import strategies as st
from random_kernels import kernel_steps, user_code
from small_kernel import (
    CODE_0,
    DATA,
    DATA_0,
    DIRECTORY,
    EAX,
    EBX,
    ESP,
    GDT,
    GDT_BYTES,
    GDT_POINTER,
    IDT_BYTES,
    IDT_POINTER,
    STEPS,
    TABLE,
    TSS,
    Kernel,
    Step,
    far_jump,
    invlpg,
    lgdt,
    lidt,
    load,
    load_segment,
    mov,
    push,
    run,
    save,
    set_cr,
    start,
    store,
    word,
)

from x86virt import Machine, RunResult
from x86virt.vmm import layout

NAMED = re.compile(r"halted|exited \d+|triple_fault|budget|halted_forever|unsupported: .+")
MAX_CYCLES = 1_500_000
GATE_DPL = 3 << 13
P_RW_US = 7
TOP = (0xFFC00000, 0xFFC02000, 0xFFC10000, 0xFFFFFFFC, 0xFFBFFFFE, 0xFFFFFFFF)


def region_of(machine: Machine) -> dict[str, bytes]:
    """The parts of the VMM's region that do not change while a guest runs; gates without their DPL."""
    read = machine.processor.read_physical
    gates = np.frombuffer(read(layout.IDT, 2048), "<u4").copy()
    gates[1::2] &= ~np.uint32(GATE_DPL)
    return {
        "entries": read(layout.ENTRIES, layout.RESUME - layout.ENTRIES),
        "resume": read(layout.RESUME, layout.IDT - layout.RESUME),
        "gates": gates.tobytes(),
        "tss": read(layout.TSS, layout.TSS_BYTES),
        "region_table": read(layout.REGION_TABLE, 4096),
        "own_descriptors": read(layout.GDT + layout.VMM_CODE_SELECTOR, 24),
        "witness": read(layout.WITNESS, layout.P2M - layout.WITNESS),
        "p2m": read(layout.P2M, 4 * len(machine.vm.p2m)),
    }


def check_shadow(machine: Machine) -> None:
    """Every shadow entry leads to a frame of the guest's; the VMM's own are closed to ring 3; segments end below it."""
    frames = {int(frame) for frame in machine.vm.p2m}
    root = np.frombuffer(machine.processor.read_physical(layout.SHADOW, 4096), "<u4")
    for number, pde in enumerate(root.tolist()):
        if number == layout.VMM_BASE >> 22:
            assert pde & 0xFFFFF005 == layout.REGION_TABLE | 1
        elif pde & 1:
            assert layout.SHADOW < pde & 0xFFFFF000 < layout.WINDOWS
            table = np.frombuffer(machine.processor.read_physical(pde & 0xFFFFF000, 4096), "<u4")
            assert {entry >> 12 for entry in table.tolist() if entry & 1} <= frames
    cpu = machine.processor.cpu
    if cpu.cpl:
        for segment in range(6):
            cache = cpu.seg[segment]
            usable = not int(cache.access) & 1 << 16
            empty = int(cache.access) & 0x1C == 0x14 and int(cache.limit) == 0xFFFFFFFF  # grows down from the very top
            assert not usable or empty or int(cache.seg_base) + int(cache.limit) < layout.VMM_BASE
    assert int(cpu.cr3) == layout.SHADOW
    assert int(cpu.gdtr_base) == layout.VMM_BASE + layout.GDT
    assert int(cpu.idtr_base) == layout.VMM_BASE + layout.IDT


def survive(kernel: Kernel) -> RunResult:
    """Run under the VMM: a named outcome, isolation, conservation."""
    machine = start(kernel, "trap-and-emulate")
    before = region_of(machine)
    result = machine.run(MAX_CYCLES)
    assert NAMED.fullmatch(result.outcome), result.outcome
    assert "\n" not in result.outcome
    after = region_of(machine)
    assert [name for name in before if before[name] != after[name]] == []
    check_shadow(machine)
    result.ledger.check_conservation(result.ticks)
    result.ledger.check_fixed_prices(machine.profile.prices())
    return result


# -- bytes ----------------------------------------------------------------------------------------------------------------

SEASONED = (
    b"\x0f\x22\xd8", b"\x0f\x01\x15", b"\x0f\x01\x1d", b"\x0f\x00\xd8", b"\xcf", b"\xcb", b"\xea", b"\xff\x2c\x24",
    b"\xcd", b"\x8e", b"\x0f\x30", b"\x0f\x01\x3d", b"\xe6", b"\xee", b"\x0f\x22\xc0", b"\x9d", b"\x17", b"\x0f\xb2",
)  # fmt: skip
junk = st.one_of(
    st.binary(min_size=1, max_size=64),
    st.lists(st.one_of(st.sampled_from(SEASONED), st.binary(max_size=6)), max_size=16).map(b"".join),
)


@settings(max_examples=80)
@given(junk, st.sampled_from((0, 3)), st.booleans())
def test_random_bytes_as_code(code: bytes, ring: int, paging: bool) -> None:
    survive(Kernel([Step(code, ring)], paging=paging))


@settings(max_examples=40)
@given(st.binary(min_size=GDT_BYTES, max_size=GDT_BYTES), kernel_steps(user_code))
def test_random_gdt(table: bytes, step: Step) -> None:
    survive(Kernel([Step(store(GDT_POINTER + 2, DATA) + lgdt(GDT_POINTER)), step, step], octets={DATA: table}))


@settings(max_examples=40)
@given(st.binary(min_size=IDT_BYTES, max_size=IDT_BYTES), kernel_steps(user_code))
def test_random_idt(table: bytes, step: Step) -> None:
    survive(Kernel([Step(store(IDT_POINTER + 2, DATA) + lidt(IDT_POINTER)), step, step], octets={DATA: table}))


@settings(max_examples=40)
@given(st.binary(min_size=256, max_size=256), st.integers(0, 0xF), kernel_steps(user_code))
def test_random_page_tables(entries: bytes, low: int, step: Step) -> None:
    """A page table of random entries for 2 MB to 4 MB, a random directory above 4 MB, both used."""
    reads = b"".join(load(EBX, 0x200000 + 0x1000 * n) + store(0x200000 + 0x1000 * n, n) for n in range(4))
    reads += load(EBX, 0x400000 * (1 + low)) + store(0x400000 * (1 + low), 1)
    octets = {TABLE + 0x800: entries, DIRECTORY + 4: entries}
    survive(Kernel([step, Step(reads), Step(reads, 3), step], octets=octets, cr4=0x10))


@settings(max_examples=40)
@given(st.integers(0, 0xFFFFFFFF), st.sampled_from((0, 0x7F, 0xFFBF, 0xFFFF)), kernel_steps(user_code))
def test_garbage_in_the_table_registers(base: int, limit: int, step: Step) -> None:
    pointer = DATA + 0x40
    octets = {pointer: limit.to_bytes(2, "little") + word(base)}
    for load_it in (lgdt(pointer), lidt(pointer), set_cr(3, base)):
        survive(Kernel([Step(load_it), step, Step(b"\xcd\x81", 3)], octets=octets))


# -- the VMM's own addresses ------------------------------------------------------------------------------------------------


def top_of_memory(address: int) -> list[bytes]:
    """Ways to touch the VMM's addresses."""
    pointer = b"\x0f\x01\x15" + word(DATA + 0x40)
    return [
        load(EAX, address), store(address, 0x41414141), save(address, EAX), b"\x36" + load(EAX, address),
        b"\x2e" + load(EAX, address), mov(ESP, address) + b"\x50", mov(ESP, address) + b"\x0f\x0b",
        far_jump(CODE_0, address), mov(EAX, address) + b"\xff\xe0", invlpg(address),
        mov(7, address) + mov(1, 64) + b"\xf3\xab", mov(6, address) + mov(7, DATA) + b"\xa4",
        store(DATA + 0x42, address) + pointer + load_segment(4, 0x10), b"\x64" + load(EAX, address),
        store(DATA + 0x42, address) + b"\x0f\x01\x1d" + word(DATA + 0x40) + b"\x31\xc9\xf7\xf1",
    ]  # fmt: skip


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("address", TOP)
@pytest.mark.parametrize("mapped", [False, True])
def test_access_to_the_vmms_addresses(address: int, ring: int, mapped: bool) -> None:
    """Also when the guest's own tables map those linear addresses."""
    words = {DIRECTORY + 4 * 1023: TABLE | P_RW_US} if mapped else {}
    for code in top_of_memory(address):
        survive(Kernel([Step(code, ring), Step(b"\x90", 3)], words=words, octets={DATA + 0x40: b"\x7f\x00"}))


def test_a_segment_that_wraps_into_the_vmm() -> None:
    """A base near the top, and offsets that carry over it."""
    for base in (0xFFBFF000, 0xFFC00000, 0xFFFFF000, 0x80000000):
        kernel = Kernel(
            [Step(load_segment(4, 0x60) + b"\x64" + load(EAX, offset) + b"\x64" + store(offset, 1)) for offset in
             (0, 0xFFF, 0x1000, 0x400000, 0x7FC00000, 0x7FFFFFFF, 0xFFFFF000)],
            descriptors={0x60: descriptor(base, 0xFFFFF, 2, granular=1)},
        )  # fmt: skip
        survive(kernel)


def test_the_vmms_own_selectors_cannot_be_loaded() -> None:
    own = (layout.VMM_CODE_SELECTOR, layout.VMM_DATA_SELECTOR, layout.VMM_TSS_SELECTOR, layout.BOOT_DATA_SELECTOR)
    own += (layout.DETACHED_CODE_SELECTOR, layout.DETACHED_STACK_SELECTOR)
    for selector in own:
        for code in (load_segment(4, selector), load_segment(4, selector | 1), load_segment(2, selector | 1)):
            survive(Kernel([Step(code + b"\x64" + load(EAX, 0xFFC00000))]))
        survive(Kernel([Step(far_jump(selector | 1, STEPS)), Step(far_jump(selector, STEPS))]))
        survive(Kernel([Step(load_segment(4, selector | 3), 3), Step(far_jump(selector | 3, STEPS), 3)]))


@pytest.mark.parametrize("base", (layout.VMM_BASE, layout.VMM_BASE + 0x1234, 0xFFFFF000, 0xFFFFFFFF), ids=hex)
@pytest.mark.parametrize("kind", (3, 11), ids=("data", "code"))
def test_a_segment_that_begins_where_the_vmm_lies_opens_no_byte_of_it(base: int, kind: int) -> None:
    """No limit leaves such a segment without a byte: a truncated one of 0 would leave one, which ring 1 could write."""
    code = load_segment(5, 0x60) + b"\x65\xc6\x05" + word(0) + b"\xa5" if kind == 3 else far_jump(0x60, 0)
    kernel = Kernel([Step(code)], descriptors={0x60: descriptor(base, 0xFFFFF, kind, granular=1)})
    survive(kernel)
    machine = start(kernel, "trap-and-emulate")
    machine.check_isolation()
    outcome = machine.run(MAX_CYCLES).outcome
    if kind == 3:
        assert outcome == "exited 1", outcome
    else:
        assert outcome.startswith(f"unsupported: a code segment that begins at {base:#x}, where the VMM lies"), outcome


# -- ends -------------------------------------------------------------------------------------------------------------------

ENDS = {
    "halt_with_interrupts_off": (b"\xfa\xf4", "halted_forever"),
    "halt_with_nothing_to_wait_for": (b"\xfb\xf4", "halted_forever"),
    "endless_loop": (b"\xeb\xfe", "budget"),
    "endless_faults": (mov(ESP, 0x7800) + b"\xcd\x81\xeb\xfc", "budget"),
    "exit_code": (b"\xb0\x07\xe6\xf4", "exited 7"),
    "shutdown_by_faults": (store(IDT_POINTER, 0) + lidt(IDT_POINTER) + b"\x0f\x0b", "triple_fault"),
    "leaves_protected_mode": (set_cr(0, 0x10), "exited 1"),
    "unknown_instruction": (b"\x0f\xff\xc0", "exited 1"),
    "local_table": (mov(EAX, 0x60) + b"\x0f\x00\xd0", "exited 1"),
    "task_gate": (far_jump(0x28, 0), "exited 1"),
    "breakpoint_register": (mov(EAX, 1) + b"\x0f\x23\xf8", "exited 1"),
}


@pytest.mark.parametrize("name", ENDS)
def test_end_has_its_name(name: str) -> None:
    code, outcome = ENDS[name]
    assert re.fullmatch(outcome, survive(Kernel([Step(code)])).outcome)


@pytest.mark.parametrize("address", [0x100000, 0xA00000, 0xFEE00000, 0xFEC00000, 0xFFBFFFF0, 0xF0000000])
@pytest.mark.parametrize("paging", [False, True])
def test_holes_in_the_address_space(address: int, paging: bool) -> None:
    """Where no RAM is, guest-physical: unpaged directly, paged through an entry that leads there."""
    mapped = {TABLE + 4 * 0x88: address & 0xFFFFF000 | P_RW_US}
    gla = 0x88000 | address & 0xFFF if paging else address
    for code in (load(EAX, gla), store(gla, 1), push(gla) + b"\xc3", mov(ESP, gla + 8) + b"\x50"):
        kernel = Kernel([Step(code)], paging=paging, words=mapped)
        assert survive(kernel).outcome == run(kernel)[1].outcome


def test_tables_in_a_hole() -> None:
    pointer = DATA + 0x40
    for code in (lgdt(pointer) + load_segment(4, 0x10), lidt(pointer) + b"\x0f\x0b", set_cr(3, 0xFEE00000)):
        survive(Kernel([Step(code)], paging=False, octets={pointer: b"\x7f\x00" + word(0xFEE00000)}))
        survive(Kernel([Step(code)], octets={pointer: b"\x7f\x00" + word(0xFEE00000)}))


def test_task_state_segment_in_a_hole() -> None:
    from descriptor_machine import descriptor

    kernel = Kernel([Step(b"\x90", 3), Step(load_segment(2, DATA_0))], paging=False)
    kernel.descriptors[0x28] = descriptor(0xFEE00000, 0x67, 9, s=0, db=0)
    survive(kernel)
    survive(Kernel([Step(store(TSS + 4, 0xFFC00000) + store(GDT + 0x10, 0)), Step(b"\xcd\x80", 3)]))
