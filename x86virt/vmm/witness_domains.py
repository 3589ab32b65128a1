"""Two domains as a paravirtual VMM keeps them, laid down for the witness routines: a machine of their own.

The VMM's region is where it always is; a guest of 256 frames and domain 0 with 128 lie behind it. The guest's linear addresses
0 to 1 MB are its frames in their order. Its page tables are in use, with types and counts as a validated guest's have them.
"""

import copy
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
from ..processor import Processor
from ..records import with_attributes
from . import layout
from .descriptor import Descriptor
from .paravirtual import interface, records
from .paravirtual import layout as places
from .paravirtual.clock import scale_of
from .region import GATE_PRESENT, tss_descriptor
from .witness_run import Image, Measured, image, symbols

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
