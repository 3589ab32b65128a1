"""The witness routines of paravirtual guests: each has the effect of the jitted handler, from the gate to the return."""

from functools import cache

import numpy as np
import pytest
from domains_machine import Pair
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.isa.events import EVENT_ID
from x86virt.isa.registers import EAX, EBX, ECX, EDX, ESI, ESP, PTE_RW
from x86virt.isa.vectors import DE, PF, UD
from x86virt.profile import load_profile
from x86virt.vmm import layout, witness_include
from x86virt.vmm.paravirtual import interface, records
from x86virt.vmm.paravirtual import layout as places
from x86virt.vmm.prices import PathPrices
from x86virt.vmm.witness_domains import (
    DESCRIPTORS,
    DIRECTORY,
    DISK_LINE,
    FIRST_DATA,
    FIRST_FRAME,
    FRAME_AT,
    GUEST,
    GUEST_FRAMES,
    KERNEL_EIP,
    LIST,
    OTHER,
    PAGE,
    SPARE_DIRECTORY,
    SPARE_TABLE,
    TABLE,
    Domains,
    linear_of,
)
from x86virt.vmm.witness_paravirtual import (
    FIRST_HANDLE,
    FREE_ENTRY,
    NEW_ENTRY,
    bounce,
    granted_page,
    item_and_base,
    lay_list,
    measure_paravirtual,
    mmu_update,
    table_scan,
)

MANY = settings(max_examples=40, deadline=None)
FEW = settings(max_examples=15, deadline=None)
M32 = 0xFFFFFFFF
SELF = interface.DOMID_SELF
WORDS = st.one_of(st.integers(0, M32), st.sampled_from((0, 1, 0x21, 0xFC000000, M32)))
SELECTORS = st.sampled_from((0, 0x18, 0x21, 0xE018, interface.FLAT_RING1_CS, interface.FLAT_RING3_SS, 0xFFFF))


@cache
def pair() -> Pair:
    """One machine for all tests, each of which begins anew."""
    return Pair()


def begin() -> tuple[Pair, Domains]:
    """The pair at its beginning."""
    both = pair()
    both.seen.clear()
    return both, both.witness.begin()


def call(path: str, name: str | int, *arguments: int) -> None:
    """A hypercall from the present state goes this path, and leaves what the handler leaves."""
    both = pair()
    both.seen.clear()
    both.witness.save()
    assert both.call(name, *arguments) == []
    assert both.seen[path], both.seen


def test_include_file_is_current():
    assert witness_include.INCLUDE.read_text() == witness_include.include_text()


# -- the virtual processor ------------------------------------------------------------------------------------------------


@FEW
@given(command=st.integers(0, 2), kind=st.integers(0, 5))
def test_vm_assist(command, kind):
    begin()
    call("small_hypercall", "vm_assist", command, kind)


@FEW
@given(arguments=st.tuples(SELECTORS, WORDS, SELECTORS, WORDS))
def test_set_callbacks(arguments):
    begin()
    call("small_hypercall", "set_callbacks", *arguments)


@FEW
@given(selector=SELECTORS, pointer=WORDS)
def test_stack_switch(selector, pointer):
    begin()
    call("stack_switch", "stack_switch", selector, pointer)


@pytest.mark.parametrize("flag", [0, 1, 5])
def test_fpu_taskswitch(flag):
    begin()
    call("fpu_taskswitch", "fpu_taskswitch", flag)


@FEW
@given(rows=st.lists(st.tuples(st.integers(0, 255), st.integers(0, 7), SELECTORS, st.integers(1, M32)), max_size=6))
def test_set_trap_table(rows):
    _, witness = begin()
    lay_list(witness, [*((vector | flags << 8 | cs << 16, eip) for vector, flags, cs, eip in rows), (0, 0)])
    call("set_trap_table", "set_trap_table", LIST)


def test_a_trap_table_can_be_cleared_or_lie_nowhere():
    begin()
    call("set_trap_table", "set_trap_table", 0)
    call("set_trap_table", "set_trap_table", interface.HYPERVISOR_VIRT_START)


def test_unknown_hypercalls():
    begin()
    for number in (63, 64, M32):
        call("hypercall", number)


CALLS = ((21, 0, 2), (21, 1, 2), (3, 0x21, 0x5000), (99, 0, 0), (21, 9, 9), (13, 0, 0))  # the last a list in the list


@FEW
@given(calls=st.lists(st.sampled_from(CALLS), max_size=6))
def test_multicall(calls):
    _, witness = begin()
    lay_list(witness, [(number, 77, first, second, 0, 0, 0, 0) for number, first, second in calls])
    call("multicall", "multicall", LIST, len(calls))


@FEW
@given(
    to_user=st.booleans(), eip=WORDS, flags=st.integers(0, 0x3FFFFF).map(lambda value: value & ~0x20100), ss=SELECTORS,
    above=WORDS,
)  # fmt: skip
def test_iret(to_user, eip, flags, ss, above):
    _, witness = begin()
    code = interface.FLAT_RING3_CS if to_user else interface.FLAT_RING1_CS
    witness.words(witness.frame[3], 0x1234, eip, code | 0x550000, flags, above, ss)
    both = pair()
    witness.save()
    assert both.call("iret") == []
    assert both.seen["hypercall_iret"]


# -- exceptions and events --------------------------------------------------------------------------------------------------


@MANY
@given(
    vector=st.sampled_from((DE, PF, PF)), to_user=st.booleans(), mask=st.booleans(), pending=st.booleans(),
    flags=st.sampled_from((0, interface.TI_MASK_EVENTS)), cr2=st.integers(0, 0xFBFFFFFF),
)  # fmt: skip
def test_exceptions_are_delivered_to_ring_1(vector, to_user, mask, pending, flags, cr2):
    both, witness = begin()
    place = int(witness.domains["vcpu_info"][GUEST])
    witness.put(place, bytes((pending, mask)))
    witness.domains["trap_flags"][GUEST][vector] = flags
    if to_user:
        witness.from_user()
    witness.cpu.cr2 = cr2
    witness.save()
    assert both.trap("pv_exception", vector, 2 + 4 * to_user if vector == PF else None) == []
    assert both.seen["bounce"] and both.seen["upcall"] == (pending and not (mask or flags))


@pytest.mark.parametrize("to_user", [False, True])
def test_an_event_is_delivered_behind_a_hypercall(to_user):
    both, witness = begin()
    if to_user:
        witness.from_user()
    witness.put(int(witness.domains["vcpu_info"][GUEST]), b"\1\0")
    call("upcall", "vm_assist", 0, 2)


@FEW
@given(
    port=st.one_of(st.integers(0, 12), st.sampled_from((1023, 1024, M32))), masked=st.booleans(), pending=st.booleans(),
    selected=st.booleans(),
)  # fmt: skip
def test_notifications(port, masked, pending, selected):
    _, witness = begin()
    for index in (GUEST, OTHER):
        shared = places.SHARED_INFO + PAGE * index
        witness.put(shared + interface.SHARED_MASK, (0xFFFF * masked).to_bytes(4, "little"))
        witness.put(shared + interface.SHARED_PENDING, (0xFFFF * pending).to_bytes(4, "little"))
        witness.put(shared + interface.VCPU_PENDING_SELECTOR, bytes([selected]))
    lay_list(witness, [(port,)])
    call("event_send", "event_channel_op", interface.EVTCHNOP_send, LIST)


def test_a_notification_wakes_a_domain():
    """Which takes the processor, since it has been woken."""
    _, witness = begin()
    witness.domains["run_state"][OTHER] = interface.RUNSTATE_blocked
    lay_list(witness, [(3,)])
    call("domain_switch", "event_channel_op", interface.EVTCHNOP_send, LIST)


@FEW
@given(virq=st.integers(0, 25), vcpu=st.integers(0, 1))
def test_bind_virq(virq, vcpu):
    _, witness = begin()
    lay_list(witness, [(virq, vcpu, 0)])
    if vcpu == 0 or virq == interface.VIRQ_DEBUG:
        call("event_channel_op", "event_channel_op", interface.EVTCHNOP_bind_virq, LIST)


@FEW
@given(port=st.integers(0, 1025), masked=st.booleans(), pending=st.booleans())
def test_unmask(port, masked, pending):
    _, witness = begin()
    shared, octet = places.SHARED_INFO + PAGE * GUEST, port // 8 % 128
    witness.put(shared + interface.SHARED_MASK + octet, bytes([0xFF * masked]))
    witness.put(shared + interface.SHARED_PENDING + octet, bytes([0xFF * pending]))
    lay_list(witness, [(port,)])
    call("event_channel_op", "event_channel_op", interface.EVTCHNOP_unmask, LIST)


def test_forced_cpuid():
    both, witness = begin()
    witness.put(FIRST_FRAME * PAGE + KERNEL_EIP, b"\x0f\x0bxen\x0f\xa2")
    witness.architecture["gpr"][EAX] = 0
    witness.cpu.gpr[EAX] = 0
    witness.save()
    assert both.trap("pv_forced_cpuid_alone", UD) == []
    assert both.seen["forced_cpuid"]


# -- page tables ------------------------------------------------------------------------------------------------------------

FRAMES = st.one_of(
    st.integers(FIRST_FRAME, FIRST_FRAME + GUEST_FRAMES + 3), st.sampled_from((0, 1, TABLE, SPARE_TABLE, 0xFFFFF))
)  # fmt: skip
RIGHTS = st.sampled_from((0, 1, 3, 5, 7, 7, 7, 0x27, 0x67, 0xE07, 0x87, 0x107, 6))
ENTRIES = st.tuples(FRAMES, RIGHTS).map(lambda row: row[0] << 12 | row[1])
PLACES = st.one_of(
    st.integers(0, 300).map(lambda number: TABLE * PAGE + 4 * number),
    st.integers(1, 1023).map(lambda number: DIRECTORY * PAGE + 4 * number),
    st.sampled_from((SPARE_DIRECTORY * PAGE + 4, FIRST_DATA * PAGE, 0x100000, (FIRST_FRAME + GUEST_FRAMES) * PAGE)),
)


@MANY
@given(rows=st.lists(st.tuples(PLACES, st.sampled_from((0, 0, 2)), ENTRIES), max_size=4), told=st.booleans())
def test_requests_of_mmu_update(rows, told):
    both, witness = begin()
    count = lay_list(witness, [(place | command, 0, entry, 0) for place, command, entry in rows])
    witness.save()
    assert both.call("mmu_update", LIST, count, (LIST + 0x800) * told, SELF) == []


@FEW
@given(frames=st.lists(FRAMES, min_size=1, max_size=4), number=WORDS)
def test_requests_for_the_machine_to_physical_table(frames, number):
    _, witness = begin()
    count = lay_list(witness, [(frame << 12 | interface.MMU_MACHPHYS_UPDATE & 3, 0, number, 0) for frame in frames])
    call("machphys_update", "mmu_update", LIST, count, LIST + 0x800, SELF)


@MANY
@given(gla=st.one_of(st.integers(0x9000, 0x13FFFF), st.sampled_from((0x400000, 0xFC000000))), entry=ENTRIES)
def test_update_va_mapping(gla, entry):
    both, witness = begin()
    assert both.call("update_va_mapping", gla, entry, 0, 0) == []


@FEW
@given(present=st.lists(st.tuples(st.integers(0, 1023), ENTRIES.filter(lambda entry: entry & 0x180 == 0)), max_size=6))
def test_a_page_table_is_validated_and_released(present):
    both, witness = begin()
    for index, entry in present:
        witness.table(SPARE_TABLE)[index] = entry
    place = DIRECTORY * PAGE + 8
    count = lay_list(witness, [(place, 0, SPARE_TABLE << 12 | NEW_ENTRY, 0), (place, 0, 0, 0)])
    witness.save()
    assert both.call("mmu_update", LIST, count, 0, SELF) == []


OPERATIONS = st.tuples(
    st.sampled_from((0, 4, 5, 6, 14, 99)), st.sampled_from((TABLE, SPARE_TABLE, DIRECTORY, SPARE_DIRECTORY, FIRST_DATA, 5))
)  # fmt: skip


@MANY
@given(rows=st.lists(OPERATIONS, max_size=4), told=st.booleans())
def test_extended_operations(rows, told):
    both, witness = begin()
    count = lay_list(witness, [(command, frame, 0) for command, frame in rows])
    witness.save()
    assert both.call("mmuext_op", LIST, count, (LIST + 0x800) * told, SELF) == []


def test_a_new_base():
    _, witness = begin()
    lay_list(witness, [(interface.MMUEXT_NEW_BASEPTR, SPARE_DIRECTORY, 0)])
    call("base_switch", "mmuext_op", LIST, 1, 0, SELF)


STORES = tuple(bytes.fromhex(code) for code in ("8903", "f08703", "c70367904000", "898c2400010000", "870d00100000"))


@FEW
@given(code=st.sampled_from(STORES), entry=ENTRIES, index=st.integers(0, 300))
def test_stores_to_page_tables_are_performed(code, entry, index):
    both, witness = begin()
    witness.put(FIRST_FRAME * PAGE + KERNEL_EIP, code)
    witness.domains["assists"][GUEST] = 1 << interface.VMASST_TYPE_writable_pagetables
    for register in (EAX, EBX, ECX):
        witness.cpu.gpr[register] = entry
    witness.cpu.cr2 = linear_of(TABLE) + 4 * index
    witness.save()
    assert both.trap("pv_writable_table_alone", PF, 3) == []


# -- descriptors and memory -------------------------------------------------------------------------------------------------


@MANY
@given(
    frame=st.sampled_from((DESCRIPTORS, FIRST_DATA, TABLE, 5)), offset=st.sampled_from((8, 0xFF8, 4)), low=WORDS,
    high=st.one_of(WORDS, st.sampled_from((0x00CF9200, 0x00CFFA00, 0x00409200, 0xFCC0F300, 0x008F9E00, 0xC0C09A3F))),
)  # fmt: skip
def test_update_descriptor(frame, offset, low, high):
    both, witness = begin()
    assert both.call("update_descriptor", frame * PAGE + offset, 0, low, high) == []


@FEW
@given(count=st.integers(0, 4), before=st.integers(0, 2))
def test_set_gdt(count, before):
    _, witness = begin()
    for number in range(before):
        witness.use_as(DESCRIPTORS, records.PGT_SEG_DESC)
        witness.domains["gdt_frames"][GUEST][number] = DESCRIPTORS
    lay_list(witness, [(DESCRIPTORS,)] * 4)
    call("set_gdt", "set_gdt", LIST, 512 * count)


@FEW
@given(
    frames=st.lists(st.integers(FIRST_DATA, FIRST_FRAME + GUEST_FRAMES + 1), min_size=1, max_size=4, unique=True),
    free=st.booleans(),
)  # fmt: skip
def test_frames_given_back(frames, free):
    _, witness = begin()
    for frame in frames:
        if free and frame < FIRST_FRAME + GUEST_FRAMES:
            witness.table(TABLE)[frame - FIRST_FRAME] = 0
            witness.frames["count_info"][frame] = records.PGC_ALLOCATED | 1
            witness.frames["type_info"][frame] = 0
    lay_list(witness, [(LIST + 32, len(frames), 0, 0, SELF, 0, 0, 0, *frames)])
    call("memory_op", "memory_op", interface.XENMEM_decrease_reservation, LIST)


# -- grants -----------------------------------------------------------------------------------------------------------------

USES = st.sampled_from((0, 1, 2, 3, 5, 6, 7, 10))
REFERENCES = st.one_of(st.integers(0, 70), st.just(600))
MAPS = st.tuples(st.integers(0, 3), USES, REFERENCES, st.sampled_from((OTHER, OTHER, GUEST, 7)))


@MANY
@given(rows=st.lists(MAPS, min_size=1, max_size=4))
def test_grants_are_mapped_and_given_back(rows):
    both, witness = begin()
    maps = [(granted_page(page), 0, how, reference, domid, 0, 0, 0) for page, how, reference, domid in rows]
    count = lay_list(witness, maps)
    witness.save()
    assert both.call("grant_table_op", interface.GNTTABOP_map_grant_ref, LIST, count) == []
    if both.seen["refused"]:
        return
    after_map(both, count)
    first = FIRST_FRAME + GUEST_FRAMES
    unmaps = [
        (granted_page(page) * (how >> 1 & 1), 0, (first + reference << 12) * (how & 1), 0, FIRST_HANDLE + handle, 0)
        for handle, (page, how, reference, _) in enumerate(rows)
    ]
    count = lay_list(witness, unmaps)
    witness.save()
    assert both.call("grant_table_op", interface.GNTTABOP_unmap_grant_ref, LIST, count) == []


def after_map(both: Pair, count: int) -> None:
    """The state behind a call for mappings."""
    witness = both.witness
    names = ("grant_table_op", interface.GNTTABOP_map_grant_ref, LIST, count)
    registers = dict(zip((EAX, EBX, ECX, 2), (interface.NUMBER_OF[names[0]], *names[1:]), strict=True))
    witness.at("pv_hypercall", registers)
    witness.keep_memory()


@FEW
@given(
    by=st.integers(0, 3), source=st.integers(0, 40), target=st.integers(0, 40), octets=st.integers(0, 0x1001),
    offsets=st.tuples(st.integers(0, 0xFFF), st.integers(0, 0xFFF)),
)  # fmt: skip
def test_copies(by, source, target, octets, offsets):
    both, witness = begin()
    ends = [
        (reference, OTHER) if by >> number & 1 else (FIRST_DATA + reference, SELF)
        for number, reference in enumerate((source, target))
    ]
    rows = [(reference, domid | offset << 16) for (reference, domid), offset in zip(ends, offsets, strict=True)]
    lay_list(witness, [*rows, (octets | by << 16, 0)])
    witness.save()
    assert both.call("grant_table_op", interface.GNTTABOP_copy, LIST, 1) == []


# -- time and domains -------------------------------------------------------------------------------------------------------


@FEW
@given(low=WORDS, high=st.one_of(st.just(0), st.integers(0, 0x3FFFF)))
def test_set_timer(low, high):
    begin()
    call("set_timer", "set_timer_op", low, high)


@FEW
@given(due=st.lists(st.sampled_from((GUEST, OTHER)), unique=True), ticker=st.booleans(), masked=st.booleans())
def test_the_hosts_timer(due, ticker, masked):
    both, witness = begin()
    for index in due:
        witness.xen["deadline"][0, index] = 1
    if ticker:
        witness.xen["period"][0, GUEST], witness.xen["next_tick"][0, GUEST] = 10_000_000, 2
    witness.put(places.SHARED_INFO + PAGE * GUEST + interface.VCPU_UPCALL_MASK, bytes([masked]))
    witness.save()
    assert both.trap("pv_host_timer", layout.HOST_TIMER_VECTOR) == []
    assert both.seen["timer_interrupt"] and both.seen["time_update"] == len(due) + ticker


@pytest.mark.parametrize("asleep", [False, True])
def test_an_interrupt_of_a_device_is_an_event_of_domain_0(asleep):
    both, witness = begin()
    if asleep:
        witness.domains["run_state"][OTHER] = interface.RUNSTATE_blocked
    witness.save()
    assert both.trap("pv_physical_interrupt", places.IRQ_VECTOR + DISK_LINE) == []
    assert both.seen["physical_interrupt"] and both.seen["domain_switch"] == asleep


@pytest.mark.parametrize("pending", [False, True])
def test_a_domain_blocks_and_the_other_runs(pending):
    both, witness = begin()
    witness.put(int(witness.domains["vcpu_info"][GUEST]), bytes((pending, 1)))
    call("upcall" if pending else "domain_switch", "sched_op", interface.SCHEDOP_block)


def test_console_io():
    begin()
    for octets in (0, 1, 100, 512):
        call("console_write", "console_io", interface.CONSOLEIO_write, octets, LIST)


# -- none of these is left to a slower path ---------------------------------------------------------------------------------

NEW_PAGE = FIRST_DATA << 12 | NEW_ENTRY
OTHER_ENTRY = DIRECTORY * PAGE + 8
LISTS = {
    "table_update": ("mmu_update", [(TABLE * PAGE + 4 * FREE_ENTRY, 0, NEW_PAGE, 0), (TABLE * PAGE + 80, 0, 0, 0)]),
    "directory_update": ("mmu_update", [(OTHER_ENTRY, 0, TABLE << 12 | NEW_ENTRY, 0)]),
    "entry_reference": ("mmu_update", [(OTHER_ENTRY, 0, SPARE_TABLE << 12 | NEW_ENTRY, 0), (OTHER_ENTRY, 0, 0, 0)]),
    "extended_operation": ("mmuext_op", [(0, TABLE, 0), (4, TABLE, 0), (0, SPARE_TABLE, 0)]),
}


@pytest.mark.parametrize("path", LISTS)
def test_lists_of_requests(path):
    _, witness = begin()
    witness.table(SPARE_TABLE)[7] = NEW_PAGE
    name, rows = LISTS[path]
    call(path, name, LIST, lay_list(witness, rows), 0, SELF)


def test_single_requests():
    begin()
    call("mapping_update", "update_va_mapping", FREE_ENTRY * PAGE, NEW_PAGE, 0, 0)
    call("update_descriptor", "update_descriptor", DESCRIPTORS * PAGE + 8, 0, 0xFFFF, 0x00CFF200)


def test_grants_in_use():
    both, witness = begin()
    maps = [
        (granted_page(0), 0, 2, 5, OTHER, 0, 0, 0),
        (0, 0, 1, 6, OTHER, 0, 0, 0),
        (granted_page(1), 0, 6, 40, OTHER, 0, 0, 0),
    ]
    count = lay_list(witness, maps)
    call("grant_map", "grant_table_op", interface.GNTTABOP_map_grant_ref, LIST, count)
    after_map(both, count)
    frame = FIRST_FRAME + GUEST_FRAMES + 6
    lay_list(witness, [(granted_page(0), 0, 0, 0, FIRST_HANDLE, 0), (0, 0, frame << 12, 0, FIRST_HANDLE + 1, 0)])
    call("grant_unmap", "grant_table_op", interface.GNTTABOP_unmap_grant_ref, LIST, 2)
    begin()
    lay_list(witness, [(5, OTHER | 16 << 16, FIRST_DATA, SELF, 0x101 | 1 << 16, 0)])
    call("grant_copy", "grant_table_op", interface.GNTTABOP_copy, LIST, 1)


def test_a_store_to_a_page_table():
    both, witness = begin()
    witness.put(FIRST_FRAME * PAGE + KERNEL_EIP, STORES[0])
    witness.domains["assists"][GUEST] = 1 << interface.VMASST_TYPE_writable_pagetables
    witness.cpu.gpr[EAX] = NEW_PAGE
    witness.cpu.cr2 = linear_of(TABLE) + 4 * FREE_ENTRY
    witness.save()
    assert both.trap("pv_writable_table_alone", PF, 3) == []
    assert both.seen["writable_table"]


# -- prices -----------------------------------------------------------------------------------------------------------------


@cache
def prices() -> PathPrices:
    """Those of the profile that the pair has."""
    return PathPrices(load_profile("p4_prescott"))


def test_a_scan_costs_by_its_entries():
    witness = pair().witness
    for entries in (4, 100, 1024):
        ticks = dict(table_scan(witness.begin(), entries, 0).ticks)["table_scan"]
        assert abs(ticks - prices().ticks("table_scan", entries)) <= 0.05 * ticks + 640


def test_prices_are_what_running_costs():
    table = measure_paravirtual(load_profile("p4_prescott"))
    assert {path: prices().table[path] for path in table} == table
    assert all(base >= 0 and base + item > 0 for base, item in table.values())


# Path -> cases that are charged it beside the one that it is measured at: requests of one entry for table updates.
UPDATES = {
    "an entry taken away": (20, 0),
    "a mapping for reading": (FREE_ENTRY, FIRST_DATA << 12 | NEW_ENTRY & ~PTE_RW),
    "another frame": (20, FIRST_DATA + 30 << 12 | NEW_ENTRY),
    "no more to be written": (20, FIRST_FRAME + 20 << 12 | NEW_ENTRY & ~PTE_RW),
}


@pytest.mark.parametrize("case", UPDATES)
def test_updates_cost_about_as_much_whatever_they_change(case):
    _, witness = begin()
    entry, value = UPDATES[case]
    ticks = item_and_base(
        lambda count: mmu_update(witness.begin(), [(TABLE * PAGE + 4 * (entry + number), value) for number in range(count)]),
        ("table_update",), 2, 6,
    )[1]  # fmt: skip
    assert 0.5 <= ticks / prices().table["table_update"][1] <= 2.0, ticks


def test_members_of_a_class_cost_about_as_much():
    _, witness = begin()
    calls = {
        "small_hypercall": [("vm_assist", 0, 2), ("sched_op", interface.SCHEDOP_block)],
        "set_timer": [("set_timer_op", 0, 0)],
        "fpu_taskswitch": [("fpu_taskswitch", 0)],
    }
    whole = prices().ticks("hypercall", 1)  # which stands before each of them
    for path, members in calls.items():
        for name, *arguments in members:
            witness.begin().put(int(witness.domains["vcpu_info"][GUEST]), b"\1\1")
            witness.save()
            ticks = dict(witness.call(name, *arguments).ticks)[path]
            assert 0.5 <= (whole + ticks) / (whole + prices().ticks(path, 1)) <= 2.0, (name, ticks)
    assert 0.5 <= dict(bounce(witness.begin(), to_user=False).ticks)["bounce"] / prices().ticks("bounce", 1) <= 1.0
    ticks = dict(unmask(witness.begin()).ticks)["event_channel_op"]
    assert 0.5 <= (whole + ticks) / (whole + prices().ticks("event_channel_op", 1)) <= 2.0


def unmask(witness: Domains):
    """A port unmasked."""
    lay_list(witness, [(3,)])
    return witness.call("event_channel_op", interface.EVTCHNOP_unmask, LIST)


def test_a_batch_costs_by_its_length():
    """The handlers charge twice as much for twice as many requests, apart from the base and references to the tables."""
    both, witness = begin()
    for path, (base, item) in prices().table.items():
        event = EVENT_ID[f"vmm.{path}"]
        witness.xen["base_ticks"][0, event], witness.xen["item_ticks"][0, event] = base, item
    charged = witness.xen["base_ticks"][0].copy(), witness.xen["item_ticks"][0].copy()
    spent = {}
    for count in (256, 32, 64, 128, 256):  # the first one finds cold caches
        places_of = range(TABLE * PAGE + 4 * FREE_ENTRY, TABLE * PAGE + 4 * (FREE_ENTRY + count), 4)
        rows = [(place, 0, FIRST_DATA + place // 4 % 64 << 12 | NEW_ENTRY, 0) for place in places_of]
        lay_list(witness, rows)
        witness.save()
        registers = dict(zip((EAX, EBX, ECX, EDX, ESI), (1, LIST, count, 0, SELF), strict=True))
        both.restore(registers | {ESP: layout.VMM_BASE + FRAME_AT})
        before = int(witness.cpu.ticks)
        assert both.handlers.exit_at(interface.HYPERCALL_VECTOR) == 0
        assert np.count_nonzero(witness.table(TABLE)[FREE_ENTRY:]) == count
        spent[count] = int(witness.cpu.ticks) - before
        witness.begin()
        witness.xen["base_ticks"][0], witness.xen["item_ticks"][0] = charged
    steps = [spent[2 * count] - spent[count] for count in (32, 64, 128)]
    assert steps[1] == pytest.approx(2 * steps[0], rel=0.02) and steps[2] == pytest.approx(2 * steps[1], rel=0.02)
    assert steps[2] >= 128 * prices().table["table_update"][1]
