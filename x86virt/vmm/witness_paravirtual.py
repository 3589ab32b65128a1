"""Running the witness routines of a VMM for paravirtual guests, on a machine of their own that is laid down for them.

The VMM's region is where it always is; a guest of 256 frames and domain 0 with 128 lie behind it. The guest's linear addresses
0 to 1 MB are its frames in their order. Its page tables are in use, with types and counts as a validated guest's have them.
"""

import copy
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..core.entries import enter_level, flush_translations, refresh_segment
from ..core.layout import NEVER
from ..isa.registers import (
    AR_UNUSABLE,
    CR0_ET,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PGE,
    CR4_PSE,
    CS,
    DS,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    EFLAGS_IF,
    ES,
    ESI,
    ESP,
    FS,
    GS,
    LDTR,
    PTE_A,
    PTE_D,
    PTE_G,
    PTE_P,
    PTE_RW,
    PTE_US,
    SS,
    TR,
)
from ..isa.vectors import PF, UD
from ..processor import Processor
from ..records import with_attributes
from . import layout
from .descriptor import Descriptor
from .paravirtual import interface, records
from .paravirtual import layout as places
from .paravirtual.clock import scale_of
from .region import GATE_PRESENT, tss_descriptor
from .witness_run import Image, Measured, Prices, WitnessError, image, symbols

if TYPE_CHECKING:
    from ..profile import Profile

PAGE = 4096
M32 = 0xFFFFFFFF
FIRST_FRAME = layout.VMM_BYTES // PAGE
GUEST_FRAMES, OTHER_FRAMES = 256, 128
N_FRAMES = FIRST_FRAME + GUEST_FRAMES + OTHER_FRAMES
GUEST, OTHER = 1, 0  # indices of the domains
DIRECTORY, TABLE, SPARE_TABLE, SPARE_DIRECTORY, STACK, LISTS, DESCRIPTORS, PROGRAM_STACK, FIRST_DATA = (
    FIRST_FRAME + number for number in range(9)
)
TABLES = (DIRECTORY, TABLE, SPARE_TABLE, SPARE_DIRECTORY, DESCRIPTORS)
OWN_ENTRY = PTE_P | PTE_RW | PTE_A | PTE_D
KERNEL_STACK = (STACK - FIRST_FRAME + 1) * PAGE
USER_STACK = (PROGRAM_STACK - FIRST_FRAME + 1) * PAGE
LIST = (LISTS - FIRST_FRAME) * PAGE  # linear address of hypercalls' structures
KERNEL_EIP, USER_EIP, HANDLER = 0x50000, 0x60000, 0x51000
SEGMENT_LIMIT = (interface.HYPERVISOR_VIRT_START + interface.MACH2PHYS_BYTES - 1) >> 12
MASK_OFFSET, PENDING_OFFSET = interface.VCPU_UPCALL_MASK, interface.VCPU_UPCALL_PENDING
ARGUMENTS = (EBX, ECX, EDX, ESI, EDI, EBP)
REGISTERS = (EAX, *ARGUMENTS)
FRAME_AT = layout.STACK_TOP - 20
N_PORTS = 8  # of each domain that are in use
TIMER_PORT, DISK_PORT, DISK_LINE = 9, 10, 14
N_GRANTS, READABLE_GRANTS = 64, 32  # entries of each grant table, and the first that may only be read


def linear_of(frame: int) -> int:
    """The linear address at which the guest has one of its frames."""
    return (frame - FIRST_FRAME) * PAGE


def flat_descriptor(access: int) -> Descriptor:
    """A flat descriptor whose limit is that of guests."""
    return Descriptor(SEGMENT_LIMIT & 0xFFFF, 0x00C00000 | SEGMENT_LIMIT & 0xF0000 | access << 8)


FLAT = {
    interface.FLAT_RING1_CS & ~7: flat_descriptor(0xBB),
    interface.FLAT_RING1_DS & ~7: flat_descriptor(0xB3),
    interface.FLAT_RING3_CS & ~7: flat_descriptor(0xFB),
    interface.FLAT_RING3_DS & ~7: flat_descriptor(0xF3),
    layout.VMM_CODE_SELECTOR: Descriptor(0x0000FFFF, 0x00CF9B00),
    layout.VMM_DATA_SELECTOR: Descriptor(0x0000FFFF, 0x00CF9300),
    layout.VMM_TSS_SELECTOR: tss_descriptor(),
}


class Domains(Image):
    """A processor with two domains in its records, and the image in the VMM's region."""

    def __init__(self, profile: "Profile") -> None:
        super().__init__(Processor(profile, N_FRAMES * PAGE))
        self.memory = self.processor.memory
        ram = self.processor.ram
        ram[layout.WITNESS : layout.WITNESS + len(image())] = np.frombuffer(image(), np.uint8)
        self.xen = self.records(places.XEN_RECORD, records.XEN, 1)
        self.domains = self.records(places.DOMAINS, records.DOMAIN, places.N_DOMAINS)
        self.frames = self.records(places.FRAME_TABLE, records.FRAME, N_FRAMES)
        self.channels = self.records(places.CHANNELS, records.CHANNEL, records.N_CHANNELS)
        self.vcpu = self.records(layout.VCPU_RECORD, layout.VCPU, 1)
        self.lay_region()
        self.lay_frames()
        self.lay_domains()
        self.lay_channels()
        self.lay_grants()
        self.take_processor()
        self.publish()
        self.from_kernel()
        self.save()
        self.first = self.ram, self.architecture

    def begin(self) -> "Domains":
        """The state from the beginning, with windows as they are."""
        first, last = layout.REGION_TABLE, layout.VCPU_RECORD
        kept = self.ram[first : first + PAGE].copy(), self.ram[last : last + layout.VCPU.itemsize].copy()
        self.ram, self.architecture = self.first[0].copy(), copy.deepcopy(self.first[1])
        self.ram[first : first + PAGE], self.ram[last : last + layout.VCPU.itemsize] = kept
        self.restore()
        return self

    def keep_memory(self) -> None:
        """Go on from what the last run left in memory, with the registers of the saved state."""
        self.ram = self.processor.ram.copy()
        self.restore()

    # -- what is laid down --------------------------------------------------------------------------------------------

    def records(self, place: int, record: np.dtype, count: int) -> np.ndarray:
        """Records in machine RAM."""
        return self.processor.ram[place : place + record.itemsize * count].view(with_attributes(record))

    def table(self, frame: int) -> np.ndarray:
        """The entries of a table."""
        return self.processor.ram[frame * PAGE : (frame + 1) * PAGE].view("<u4")

    def put(self, place: int, octets: bytes) -> None:
        """Write into machine RAM."""
        self.processor.ram[place : place + len(octets)] = np.frombuffer(octets, np.uint8)

    def words(self, gla: int, *values: int) -> None:
        """Write doublewords at a linear address of the guest's."""
        self.put(FIRST_FRAME * PAGE + gla, np.array(values, np.int64).astype("<u4").tobytes())

    def word(self, gla: int) -> int:
        """A doubleword at a linear address of the guest's."""
        place = FIRST_FRAME * PAGE + gla
        return int(self.processor.ram[place : place + 4].view("<u4")[0])

    def lay_region(self) -> None:
        """Descriptors, gates, and the page table of the region."""
        for selector, descriptor in FLAT.items():
            self.put(layout.GDT + selector, descriptor.octets())
        for vector in range(256):
            target = layout.VMM_BASE + layout.ENTRIES + vector * layout.ENTRY_BYTES
            gate = (layout.VMM_CODE_SELECTOR << 16 | target & 0xFFFF, target & 0xFFFF0000 | GATE_PRESENT)
            self.put(layout.IDT + 8 * vector, np.array(gate, "<u4").tobytes())
        own = np.arange(1024, dtype="<u4") << 12 | OWN_ENTRY | PTE_G
        self.put(layout.REGION_TABLE, own.tobytes())

    def lay_frames(self) -> None:
        """The guest's page tables, and the frame table."""
        frames = self.frames
        frames["owner"] = records.NOBODY
        for first, count, owner in (
            (FIRST_FRAME, GUEST_FRAMES, GUEST),
            (FIRST_FRAME + GUEST_FRAMES, OTHER_FRAMES, OTHER),
        ):
            frames["owner"][first : first + count] = owner
            frames["count_info"][first : first + count] = records.PGC_ALLOCATED | 1
            machphys = self.records(places.MACHPHYS, np.dtype("<u4"), N_FRAMES)
            machphys[first : first + count] = np.arange(count)
        for number in range(GUEST_FRAMES):
            frame = FIRST_FRAME + number
            rights = PTE_P | PTE_US | PTE_A | (0 if frame in TABLES else PTE_RW | PTE_D)
            self.table(TABLE)[number] = frame << 12 | rights
            frames["count_info"][frame] += 1
            if frame not in TABLES:
                frames["type_info"][frame] = records.PGT_WRITABLE | records.PGT_VALIDATED | 1
        for frame in (DIRECTORY, SPARE_DIRECTORY):
            self.table(frame)[0] = TABLE << 12 | PTE_P | PTE_RW | PTE_US | PTE_A
            self.use_as(TABLE, records.PGT_L1)
            self.own_entries(frame)
            self.use_as(frame, records.PGT_L2)
            self.frames["type_info"][frame] |= records.PGT_PINNED
        self.use_as(DIRECTORY, records.PGT_L2)
        self.use_as(DESCRIPTORS, records.PGT_SEG_DESC)

    def own_entries(self, directory: int) -> None:
        """The VMM's entries of a directory."""
        template = places.DIRECTORY_TEMPLATES + PAGE * GUEST
        entries = self.records(template, np.dtype("<u4"), 1024)
        entries[places.PER_DOMAIN_START >> 22] = places.PER_DOMAIN_TABLES | OWN_ENTRY
        entries[layout.VMM_BASE >> 22] = layout.REGION_TABLE | OWN_ENTRY
        first = interface.HYPERVISOR_VIRT_START >> 22
        self.table(directory)[first:] = entries[first:]

    def use_as(self, frame: int, kind: int) -> None:
        """One more use of a frame as a table."""
        self.frames["count_info"][frame] += 1
        self.frames["type_info"][frame] = (
            kind | records.PGT_VALIDATED | int(self.frames["type_info"][frame]) & records.PGT_COUNT
        )
        self.frames["type_info"][frame] += 1

    def lay_domains(self) -> None:
        """The records of the domains, and of the VMM."""
        xen = self.xen
        xen["current"], xen["n_frames"], xen["flush_clock"] = GUEST, N_FRAMES, 1
        xen["base_ticks"] = -1
        xen["fpu_owner"], xen["quantum"] = GUEST, NEVER
        hertz = round(float(self.processor.profile["cpu.mhz"]) * 1_000_000)
        xen["tsc_multiplier"], xen["tsc_shift"] = scale_of(hertz)
        for name in ("deadline", "poll_deadline", "next_tick", "slice_end"):
            xen[name] = NEVER
        for index in (GUEST, OTHER):
            domain = self.domains[index]
            domain["domid"], domain["exists"], domain["is_privileged"] = index, 1, int(index == OTHER)
            domain["virt_start"], domain["segment_limit"] = interface.HYPERVISOR_VIRT_START, SEGMENT_LIMIT
            domain["shared_info"] = (places.SHARED_INFO >> 12) + index
            domain["vcpu_info"] = places.SHARED_INFO + PAGE * index
            domain["kernel_ss"], domain["kernel_esp"] = interface.FLAT_RING1_SS, KERNEL_STACK
            domain["event_cs"], domain["event_eip"] = interface.FLAT_RING1_CS, HANDLER
            domain["failsafe_cs"], domain["failsafe_eip"] = interface.FLAT_RING1_CS, HANDLER + 0x100
            domain["trap_cs"][:32] = interface.FLAT_RING1_CS
            domain["trap_eip"][:32] = HANDLER + 0x10 * np.arange(32)
            domain["trap_flags"][:32] = interface.TI_MASK_EVENTS
            domain["base_frame"], domain["total_frames"], domain["max_frames"] = (
                DIRECTORY,
                GUEST_FRAMES,
                GUEST_FRAMES + 32,
            )
            domain["grant_frames"] = 1
            domain["eip"], domain["cs"], domain["eflags"] = KERNEL_EIP, interface.FLAT_RING1_CS, EFLAGS_IF | 2
            domain["esp"], domain["ss"] = KERNEL_STACK - 0x200, interface.FLAT_RING1_SS
            domain["selectors"] = interface.FLAT_RING1_DS
            domain["run_state"] = interface.RUNSTATE_running if index == GUEST else interface.RUNSTATE_runnable

    def lay_channels(self) -> None:
        """Ports of both domains, joined to each other; the last of them is an IPI's."""
        for index in (GUEST, OTHER):
            rows = self.channels[index * interface.N_EVENT_CHANNELS :]
            for port in range(1, N_PORTS):
                rows[port] = (interface.EVTCHNSTAT_interdomain, 1 - index, port)
            rows[N_PORTS] = (interface.EVTCHNSTAT_ipi, 0, 0)
            rows[TIMER_PORT] = (interface.EVTCHNSTAT_virq, 0, interface.VIRQ_TIMER)
            self.domains[index]["virq_port"][interface.VIRQ_TIMER] = TIMER_PORT
        rows = self.channels[OTHER * interface.N_EVENT_CHANNELS :]
        rows[DISK_PORT] = (interface.EVTCHNSTAT_pirq, 0, DISK_LINE)
        self.domains[OTHER]["pirq_port"][DISK_LINE] = DISK_PORT

    def lay_grants(self) -> None:
        """Entries of both domains' grant tables, for the other domain: writable ones, then some for reading alone."""
        for index, first in ((GUEST, FIRST_DATA), (OTHER, FIRST_FRAME + GUEST_FRAMES)):
            place = places.GRANT_FRAMES + index * places.N_GRANT_FRAMES * PAGE
            flags = np.full(N_GRANTS, interface.GTF_permit_access, np.int64)
            flags[READABLE_GRANTS:] |= interface.GTF_readonly
            entries = self.records(place, np.dtype("<u4"), 2 * N_GRANTS)
            entries[0::2] = flags | 1 - index << 16
            entries[1::2] = first + np.arange(N_GRANTS)

    def take_processor(self) -> None:
        """The processor is in the VMM, in the guest's address space."""
        cpu = self.cpu
        cpu.cr0 = CR0_ET | CR0_PE | CR0_PG | CR0_WP | CR0_NE
        cpu.cr3, cpu.cr4 = DIRECTORY * PAGE, CR4_PSE | CR4_PGE
        cpu.gdtr_base, cpu.gdtr_limit = layout.VMM_BASE + layout.GDT, 0xFFFF
        cpu.idtr_base, cpu.idtr_limit = layout.VMM_BASE + layout.IDT, 256 * 8 - 1
        cpu.hook_first, cpu.hook_last = layout.VMM_BASE + layout.ENTRIES, layout.VMM_BASE + layout.RESUME - 1
        self.set_segment(CS, layout.VMM_CODE_SELECTOR, 0xC09B, M32)
        self.set_segment(SS, layout.VMM_DATA_SELECTOR, 0xC093, M32)
        self.processor.set_segment(LDTR, 0, 0, 0, AR_UNUSABLE)
        self.processor.set_segment(
            TR, layout.VMM_TSS_SELECTOR, layout.VMM_BASE + layout.TSS, layout.TSS_BYTES - 1, 0x8B
        )
        enter_level(self.processor.state, 0)

    def set_segment(self, segment: int, selector: int, access: int, limit: int) -> None:
        """A flat segment register."""
        self.processor.set_segment(segment, selector, 0, limit, access)
        refresh_segment(self.processor.state, segment)

    def publish(self) -> None:
        """What the image finds by its own pointers: the domain that runs."""
        index = int(self.xen["current"][0])
        for name, place in (
            ("pv_domain", places.DOMAINS + index * records.DOMAIN.itemsize),
            ("pv_vcpu_info", int(self.domains["vcpu_info"][index])),
            ("pv_channels", places.CHANNELS + index * interface.N_EVENT_CHANNELS * records.CHANNEL.itemsize),
        ):
            self.put(symbols()[name] - layout.VMM_BASE, (layout.VMM_BASE + place).to_bytes(4, "little"))

    # -- where the guest came from ---------------------------------------------------------------------------------------

    def come_from(self, eip: int, cs: int, esp: int, ss: int, ds: int, pushed: bytes = b"") -> None:
        """A trap's frame on the VMM's stack, the guest's data segments still loaded."""
        self.put(FRAME_AT, np.array((eip, cs, EFLAGS_IF | 2, esp, ss), "<u4").tobytes())
        self.put(FRAME_AT - len(pushed), pushed)
        self.cpu.gpr[ESP] = layout.VMM_BASE + FRAME_AT - len(pushed)
        limit = SEGMENT_LIMIT << 12 | 0xFFF
        for segment in (DS, ES, FS, GS):
            self.set_segment(segment, ds, 0xC0B3 if ds & 2 == 0 else 0xC0F3, limit)

    def from_kernel(self, pushed: bytes = b"") -> None:
        """The guest's kernel was interrupted."""
        self.come_from(
            KERNEL_EIP,
            interface.FLAT_RING1_CS,
            KERNEL_STACK - 0x100,
            interface.FLAT_RING1_SS,
            interface.FLAT_RING1_DS,
            pushed,
        )

    def from_user(self, pushed: bytes = b"") -> None:
        """A program of the guest's was interrupted."""
        self.come_from(
            USER_EIP,
            interface.FLAT_RING3_CS,
            USER_STACK - 0x100,
            interface.FLAT_RING3_SS,
            interface.FLAT_RING3_DS,
            pushed,
        )

    @property
    def frame(self) -> list[int]:
        """EIP, CS, EFLAGS, ESP, SS of the frame that the processor will return through."""
        return self.processor.ram[FRAME_AT : FRAME_AT + 20].view("<u4").tolist()

    # -- running ------------------------------------------------------------------------------------------------------------

    def at(self, label: str, registers: dict[int, int] | None = None) -> Measured:
        """A run from the saved state at a label, without translations."""
        flush_translations(self.processor.state)
        return self.again(label, registers)

    def again(self, label: str, registers: dict[int, int] | None = None) -> Measured:
        """The same with the translations that there are."""
        self.restore()
        for number, value in (registers or {}).items():
            self.cpu.gpr[number] = value & M32
        return self.run_at(symbols()[label])

    def warm(self, label: str, registers: dict[int, int] | None = None) -> Measured:
        """The same with translations and windows as an earlier run has left them."""
        self.at(label, registers)
        self.keep_windows()
        return self.again(label, registers)

    def keep_windows(self) -> None:
        """Start from the windows as the last run left them."""
        first = layout.VCPU_RECORD
        saved = self.ram[first : first + layout.VCPU.itemsize].view(layout.VCPU)[0]
        saved["window_tags"][:] = self.vcpu["window_tags"][0]
        table = slice(layout.REGION_TABLE, layout.REGION_TABLE + PAGE)
        self.ram[table] = self.processor.ram[table]

    def call(self, name: str, *arguments: int) -> Measured:
        """A warm hypercall, from the saved state."""
        registers = dict(zip(ARGUMENTS, arguments, strict=False))
        return self.warm("pv_hypercall", {EAX: interface.NUMBER_OF[name], **registers})


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
