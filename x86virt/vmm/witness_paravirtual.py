"""Running the witness routines of a VMM for paravirtual guests, on a machine that is laid down for them (witness_domains.py)."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..isa.registers import EAX, EDI, EFLAGS_IF, ESI, PTE_A, PTE_P, PTE_RW, PTE_US
from ..isa.vectors import PF, UD
from . import layout
from .paravirtual import interface, records
from .paravirtual import layout as places
from .witness_domains import (
    DESCRIPTORS,
    DIRECTORY,
    DISK_LINE,
    FIRST_DATA,
    FIRST_FRAME,
    GUEST,
    GUEST_FRAMES,
    HANDLER,
    KERNEL_EIP,
    KERNEL_STACK,
    LIST,
    OTHER,
    PAGE,
    PENDING_OFFSET,
    SPARE_DIRECTORY,
    SPARE_TABLE,
    TABLE,
    USER_EIP,
    USER_STACK,
    Domains,
    linear_of,
)
from .witness_run import Measured, Prices, WitnessError

if TYPE_CHECKING:
    from ..profile import Profile


def ticks_of(measured: Measured, path: str) -> int:
    """Ticks of a path, however often it was gone. Raises WitnessError if it was not."""
    found = [ticks for name, ticks in measured.ticks if name == path]
    if not found or measured.refused:
        raise WitnessError(f"the path {path} was not gone, but {measured.ending}: {measured.ticks}")
    return sum(found)


def item_and_base(
    run: Callable[[int], Measured], paths: tuple[str, ...], few: int = 4, many: int = 12
) -> tuple[int, int]:
    """Base and item of a path, from two lengths; paths that it contains are added to it."""
    one, two = (sum(ticks_of(run(count), path) for path in paths) for count in (few, many))
    item = (two - one) // (many - few)
    return one - few * item, item


# -- hypercalls with lists ------------------------------------------------------------------------------------------------

NEW_ENTRY = PTE_P | PTE_RW | PTE_US | PTE_A
FREE_ENTRY = GUEST_FRAMES  # of the page table, from which on nothing is mapped


def lay_list(witness: Domains, rows: Sequence[tuple[int, ...]]) -> int:
    """A list of structures for a hypercall; their count."""
    witness.words(LIST, *(value for row in rows for value in row))
    witness.save()
    return len(rows)


def multicall(witness: Domains, count: int) -> Measured:
    """A multicall of small hypercalls."""
    number = interface.NUMBER_OF["vm_assist"]
    return witness.call("multicall", LIST, lay_list(witness, [(number, 0, 0, 2, 0, 0, 0, 0)] * count))


def set_trap_table(witness: Domains, count: int) -> Measured:
    """A table of so many traps."""
    rows = [(number | interface.FLAT_RING1_CS << 16, HANDLER) for number in range(count)]
    lay_list(witness, [*rows, (0, 0)])
    return witness.call("set_trap_table", LIST)


def mmu_update(witness: Domains, rows: list[tuple[int, int]]) -> Measured:
    """Requests of mmu_update: address and value."""
    count = lay_list(witness, [(address, 0, value, 0) for address, value in rows])
    return witness.call("mmu_update", LIST, count, 0, interface.DOMID_SELF)


def table_update(witness: Domains, count: int) -> Measured:
    """New entries of a page table."""
    first = TABLE * PAGE + 4 * FREE_ENTRY
    return mmu_update(witness, [(first + 4 * number, FIRST_DATA + number << 12 | NEW_ENTRY) for number in range(count)])


def directory_update(witness: Domains, count: int) -> Measured:
    """New entries of a directory, for a page table that is in use already."""
    return mmu_update(
        witness, [(DIRECTORY * PAGE + 4 * number, TABLE << 12 | NEW_ENTRY) for number in range(1, count + 1)]
    )


def machphys_update(witness: Domains, count: int) -> Measured:
    """Entries of the machine-to-physical table."""
    command = interface.MMU_MACHPHYS_UPDATE
    return mmu_update(witness, [((FIRST_DATA + number) * PAGE | command, number) for number in range(count)])


def extended_operation(witness: Domains, count: int) -> Measured:
    """A page table that is in use pinned and unpinned, in turns."""
    commands = (interface.MMUEXT_PIN_L1_TABLE, interface.MMUEXT_UNPIN_TABLE)
    lay_list(witness, [(commands[number % 2], TABLE, 0) for number in range(count)])
    return witness.call("mmuext_op", LIST, count, 0, interface.DOMID_SELF)


def set_gdt(witness: Domains, count: int) -> Measured:
    """A descriptor table of so many frames, which hold descriptors already."""
    lay_list(witness, [(DESCRIPTORS,)] * count)
    return witness.call("set_gdt", LIST, 512 * count)


def update_descriptor(witness: Domains) -> Measured:
    """A data segment of a program's in such a frame."""
    return witness.call("update_descriptor", DESCRIPTORS * PAGE + 8, 0, 0x0000FFFF, 0x00CFF300)


def mapping_update(witness: Domains) -> Measured:
    """A new entry by its linear address."""
    return witness.call("update_va_mapping", FREE_ENTRY * PAGE, FIRST_DATA << 12 | NEW_ENTRY, 0, 0)


def writable_table(witness: Domains) -> Measured:
    """MOV [EBX], EAX to a page table."""
    witness.put(FIRST_FRAME * PAGE + KERNEL_EIP, b"\x89\x03")
    witness.domains["assists"][GUEST] = 1 << interface.VMASST_TYPE_writable_pagetables
    witness.architecture["gpr"][EAX] = FIRST_DATA << 12 | NEW_ENTRY
    return trap(witness, "pv_writable_table_alone", PF, 3, cr2=linear_of(TABLE) + 4 * FREE_ENTRY)


def memory_op(witness: Domains, count: int) -> Measured:
    """Frames given back that are mapped nowhere."""
    frames = [FIRST_FRAME + GUEST_FRAMES - 1 - number for number in range(count)]
    for frame in frames:
        witness.table(TABLE)[frame - FIRST_FRAME] = 0
        witness.frames["count_info"][frame] = records.PGC_ALLOCATED | 1
        witness.frames["type_info"][frame] = 0
    lay_list(
        witness, [(LIST + 0x40, count, 0, 0, interface.DOMID_SELF), *([(0,)] * 11), *((frame,) for frame in frames)]
    )
    return witness.call("memory_op", interface.XENMEM_decrease_reservation, LIST)


def bind_virq(witness: Domains) -> Measured:
    """A port for a virtual interrupt."""
    return event_channel_op(witness, interface.EVTCHNOP_bind_virq, interface.VIRQ_DEBUG, 0, 0)


FIRST_HANDLE = GUEST * (records.N_MAPPINGS // places.N_DOMAINS)  # of the guest's


def granted_page(number: int) -> int:
    """The linear address at which a grant is mapped."""
    return (FREE_ENTRY + number) * PAGE


def grant_map(witness: Domains, count: int) -> Measured:
    """Domain 0's frames mapped writable."""
    rows = [(granted_page(number), 0, interface.GNTMAP_host_map, number, OTHER, 0, 0, 0) for number in range(count)]
    return witness.call("grant_table_op", interface.GNTTABOP_map_grant_ref, LIST, lay_list(witness, rows))


def grant_unmap(witness: Domains, count: int) -> Measured:
    """And given back."""
    grant_map(witness, count)
    witness.keep_memory()
    rows = [(granted_page(number), 0, 0, 0, FIRST_HANDLE + number, 0) for number in range(count)]
    return witness.call("grant_table_op", interface.GNTTABOP_unmap_grant_ref, LIST, lay_list(witness, rows))


def grant_copy(witness: Domains, count: int) -> Measured:
    """Words copied from a frame of domain 0's."""
    row = (0, OTHER, FIRST_DATA, interface.DOMID_SELF, 4 * count | interface.GNTCOPY_source_gref << 16, 0)
    return witness.call("grant_table_op", interface.GNTTABOP_copy, LIST, lay_list(witness, [row]))


def console_write(witness: Domains, count: int) -> Measured:
    """So many characters."""
    return witness.call("console_io", interface.CONSOLEIO_write, count, LIST)


def base_switch(witness: Domains) -> Measured:
    """Another directory, which is in use."""
    lay_list(witness, [(interface.MMUEXT_NEW_BASEPTR, SPARE_DIRECTORY, 0)])
    return witness.call("mmuext_op", LIST, 1, 0, interface.DOMID_SELF)


def event_channel_op(witness: Domains, command: int, *words: int) -> Measured:
    """An operation on event channels."""
    lay_list(witness, [words])
    return witness.call("event_channel_op", command, LIST)


# -- exceptions and events ------------------------------------------------------------------------------------------------


def trap(witness: Domains, label: str, vector: int, error: int = 0, to_user: bool = False, cr2: int = 0) -> Measured:
    """A trap at a label, with error code and vector pushed, from a program or from the guest's kernel."""
    pushed = np.array((vector, error), "<u4").tobytes()
    (witness.from_user if to_user else witness.from_kernel)(pushed)
    witness.cpu.cr2 = cr2
    witness.save()
    return witness.warm(label)


def bounce(witness: Domains, to_user: bool = True) -> Measured:
    """A page fault of a program's, or of the kernel's."""
    return trap(witness, "pv_exception", PF, 6, to_user, 0x123456)


def upcall(witness: Domains) -> Measured:
    """A hypercall, behind which an event waits."""
    witness.put(int(witness.domains["vcpu_info"][GUEST]) + PENDING_OFFSET, b"\x01")
    witness.save()
    return witness.call("vm_assist", 0, 2)


def hypercall_iret(witness: Domains) -> Measured:
    """Back to a program, by the frame on the kernel's stack."""
    frame = (1, USER_EIP, interface.FLAT_RING3_CS, EFLAGS_IF | 2, USER_STACK, interface.FLAT_RING3_SS)
    witness.words(witness.frame[3], *frame)
    witness.save()
    return witness.call("iret")


def forced_cpuid(witness: Domains) -> Measured:
    """CPUID behind the prefix of the forced emulation, where the guest's kernel was interrupted."""
    witness.put(FIRST_FRAME * PAGE + KERNEL_EIP, b"\x0f\x0bxen\x0f\xa2")
    witness.architecture["gpr"][EAX] = 1
    return trap(witness, "pv_forced_cpuid_alone", UD)


def timer_interrupt(witness: Domains) -> Measured:
    """The guest's one-shot timer is due while its program runs."""
    witness.xen["deadline"][0, GUEST] = 1
    return trap(witness, "pv_host_timer", layout.HOST_TIMER_VECTOR, 0, True)


def physical_interrupt(witness: Domains) -> Measured:
    """The disk's interrupt while a program of the guest's runs, and domain 0 waits for the processor already."""
    return trap(witness, "pv_physical_interrupt", places.IRQ_VECTOR + DISK_LINE, 0, True)


def block(witness: Domains) -> Measured:
    """The guest waits for an event, and domain 0 runs."""
    return witness.call("sched_op", interface.SCHEDOP_block)


# -- page tables as a whole -------------------------------------------------------------------------------------------------


def table_scan(witness: Domains, entries: int, present: int) -> Measured:
    """So many entries of a table validated, of which the first ones are present, every other one writable."""
    rows = np.zeros(PAGE // 4, "<u4")
    rows[:present] = [FIRST_DATA + number << 12 | NEW_ENTRY & ~(number % 2 * PTE_RW) for number in range(present)]
    witness.put(SPARE_TABLE * PAGE, rows.tobytes())
    witness.save()
    first = linear_of(SPARE_TABLE)
    return witness.warm("pv_scan_alone", {ESI: first, EDI: first + 4 * entries})


def measure_paravirtual(profile: "Profile") -> Prices:
    """The prices of these paths under a profile."""
    witness = Domains(profile)

    def alone(path: str, run: Callable[[Domains], Measured]) -> tuple[int, int]:
        witness.begin()
        return 0, ticks_of(run(witness), path)

    def items(path: str, run: Callable[[Domains, int], Measured], *inner: str) -> tuple[int, int]:
        return item_and_base(lambda count: run(witness.begin(), count), (path, *inner))

    scan = item_and_base(lambda count: table_scan(witness.begin(), count, 0), ("table_scan",), 512, 1024)
    references = ticks_of(table_scan(witness.begin(), 64, 64), "entry_reference") // 64
    words = item_and_base(lambda count: grant_copy(witness.begin(), count), ("grant_copy",), 16, 512)
    return {
        "hypercall": alone("hypercall", lambda it: it.call("vm_assist", 0, 2)),
        "small_hypercall": alone("small_hypercall", lambda it: it.call("set_callbacks", 0, HANDLER, 0, HANDLER)),
        "stack_switch": alone(
            "stack_switch", lambda it: it.call("stack_switch", interface.FLAT_RING1_SS, KERNEL_STACK)
        ),
        "fpu_taskswitch": alone("fpu_taskswitch", lambda it: it.call("fpu_taskswitch", 1)),
        "multicall": items("multicall", multicall),
        "set_trap_table": items("set_trap_table", set_trap_table),
        "set_gdt": items("set_gdt", set_gdt),
        "update_descriptor": alone("update_descriptor", update_descriptor),
        "bounce": alone("bounce", bounce),
        "upcall": alone("upcall", upcall),
        "hypercall_iret": alone("hypercall_iret", hypercall_iret),
        "forced_cpuid": alone("forced_cpuid", forced_cpuid),
        "table_update": items("table_update", table_update),
        "directory_update": items("table_update", directory_update, "directory_update"),
        "machphys_update": items("table_update", machphys_update, "machphys_update"),
        "mapping_update": alone("mapping_update", mapping_update),
        "writable_table": alone("writable_table", writable_table),
        "table_scan": scan,
        "entry_reference": (0, references),
        "extended_operation": items("extended_operation", extended_operation),
        "base_switch": alone("base_switch", base_switch),
        "memory_op": items("memory_op", memory_op),
        "event_send": alone("event_send", lambda it: event_channel_op(it, interface.EVTCHNOP_send, 1)),
        "event_channel_op": alone("event_channel_op", bind_virq),
        "grant_map": items("grant_map", grant_map),
        "grant_unmap": items("grant_unmap", grant_unmap),
        "grant_copy": words,
        "set_timer": alone("set_timer", lambda it: it.call("set_timer_op", 1_000_000, 0)),
        "time_update": alone("time_update", timer_interrupt),
        "timer_interrupt": alone("timer_interrupt", timer_interrupt),
        "physical_interrupt": alone("physical_interrupt", physical_interrupt),
        "schedule": alone("schedule", block),
        "domain_switch": alone("domain_switch", block),
        "console_write": items("console_write", console_write),
    }
