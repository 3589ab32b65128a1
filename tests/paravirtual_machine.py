"""A processor, the records of a paravirtual VMM and two domains' frames, without a machine around them: for hypercalls of memory.

Machine frames: those of the VMM's region; then 32 of domain 1, the guest, in the pools below; then 8 of domain 0.
The guest's linear space has one page that the test writes arguments to. What maps it is in no pool.
"""

import numpy as np

from x86virt.core.entries import enter_level
from x86virt.isa.events import EVENT_ID
from x86virt.isa.registers import EAX, EBX, ECX, EDI, EDX, ESI
from x86virt.processor import Processor
from x86virt.profile import load_profile
from x86virt.records import record_array, with_attributes
from x86virt.vmm.paravirtual import layout
from x86virt.vmm.paravirtual.interface import (
    DOMID_XEN,
    HYPERVISOR_VIRT_START,
    HYPERVISOR_VIRT_START_PAE,
    NUMBER_OF,
)
from x86virt.vmm.paravirtual.memory_calls import adopt_base, call_memory, change_base
from x86virt.vmm.paravirtual.records import CHANNEL, DOMAIN, FRAME, PGC_ALLOCATED, XEN
from x86virt.vmm.paravirtual.recount import recount

PAGE = 4096
FIRST = 1024  # the guest's first frame, behind the VMM's 4 MB
GUEST, DOMAIN_0 = 1, 0
N_GUEST, N_DOMAIN_0 = 32, 8
N_FRAMES = FIRST + N_GUEST + N_DOMAIN_0
OTHERS = FIRST + N_GUEST  # domain 0's
L1S = range(FIRST, FIRST + 6)
L2S = range(FIRST + 6, FIRST + 12)
L3S = range(FIRST + 12, FIRST + 15)
PLAIN = range(FIRST + 15, FIRST + 20)
BASE_L1, ARGUMENTS, BASE_L2, BASE_L3 = (FIRST + 20 + number for number in range(4))
LOWER_L2 = FIRST + 24  # under PAE paging, of the first quarter
P, RW, US, PWT, A, D, PS, G = 1, 2, 4, 8, 32, 64, 128, 256
UP = P | RW | A | D
ARGUMENT_SLOT = 300  # of the last L2
CR0_ON, CR4_PAE = 0x80010001, 0x20
SELF, IO = 0x7FF0, 0x7FF1
PIN_L1, PIN_L2, PIN_L3, PIN_L4, UNPIN, NEW_BASEPTR = range(6)
ARGUMENT_REGISTERS = (EBX, ECX, EDX, ESI, EDI)


class World:
    """Records and memory, and hypercalls on them."""

    def __init__(self, pae: bool = False, profile: str = "p4_prescott") -> None:
        self.pae = pae
        self.processor = Processor(load_profile(profile), N_FRAMES * PAGE)
        self.memory, self.state, self.cpu = self.processor.memory, self.processor.state, self.processor.cpu
        self.xens = self.records(layout.XEN_RECORD, XEN, 1)
        self.domains = self.records(layout.DOMAINS, DOMAIN, layout.N_DOMAINS)
        self.frames = self.records(layout.FRAME_TABLE, FRAME, N_FRAMES)
        self.channels = record_array(CHANNEL, 16)
        self.xen = self.xens[0]
        self.begin()

    def records(self, address: int, dtype: np.dtype, count: int) -> np.ndarray:
        """Records in machine RAM."""
        return self.memory[address : address + count * dtype.itemsize].view(with_attributes(dtype))

    def begin(self) -> None:
        """All as it was at first: the guest's base maps the page of arguments alone."""
        cpu = self.cpu
        self.memory[:] = 0
        cpu.ticks, cpu.cache_lines, cpu.ledger_count, cpu.ledger_ticks, cpu.tlb_tag = 0, 0, 0, 0, 0
        self.processor.empty_tlbs()
        self.xen.n_frames, self.xen.current = N_FRAMES, GUEST
        self.frames["owner"] = DOMID_XEN
        for index, first, count in ((GUEST, FIRST, N_GUEST), (DOMAIN_0, OTHERS, N_DOMAIN_0)):
            self.frames["owner"][first : first + count] = index
            self.frames["count_info"][first : first + count] = PGC_ALLOCATED | 1
            domain = self.domains[index]
            domain.domid, domain.exists, domain.is_pae, domain.is_privileged = index, 1, self.pae, index == DOMAIN_0
            domain.virt_start = HYPERVISOR_VIRT_START_PAE if self.pae else HYPERVISOR_VIRT_START
            domain.segment_limit = 0xFFFFF
            domain.total_frames = domain.max_frames = count
        self.lay_tables()
        cpu.cr0, cpu.cr4 = CR0_ON, CR4_PAE * self.pae
        cpu.timer = 1 << 62
        for segment in range(6):
            self.processor.set_segment(segment, 8 if segment == 1 else 16, 0, 0xFFFFFFFF, 0xC09B if segment == 1 else 0xC093)
        base = BASE_L3 if self.pae else BASE_L2
        assert adopt_base(*self.all(), GUEST, base) == 1
        assert change_base(self.state, self.memory, self.xens, self.domains, self.frames, base) == 0
        enter_level(self.state, 0)

    def lay_tables(self) -> None:
        """The first tables, and in every frame that may be the last L2 the entry that has the page of arguments mapped."""
        for frame in (*L2S, BASE_L2):
            self.put_entry(frame, ARGUMENT_SLOT, BASE_L1 << 12 | UP)
        self.put_entry(BASE_L1, 0, ARGUMENTS << 12 | UP)
        if self.pae:
            self.put_entry(BASE_L3, 0, LOWER_L2 << 12 | P)
            self.put_entry(BASE_L3, 3, BASE_L2 << 12 | P)

    @property
    def arguments(self) -> int:
        """The linear address of the page of arguments."""
        return 0xC0000000 + (ARGUMENT_SLOT << 21) if self.pae else ARGUMENT_SLOT << 22

    def all(self) -> tuple:
        """What every entry takes."""
        return self.state, self.memory, self.xens, self.domains, self.frames, self.channels

    def entries(self, frame: int) -> np.ndarray:
        """A frame as entries of page tables."""
        return self.memory[frame * PAGE : (frame + 1) * PAGE].view("<u8" if self.pae else "<u4")

    def put_entry(self, frame: int, index: int, value: int) -> None:
        """Write an entry, as a guest does where it may."""
        self.entries(frame)[index] = value

    def put_arguments(self, words: list[int], offset: int = 0) -> int:
        """Write doublewords to the page of arguments: their linear address."""
        at = ARGUMENTS * PAGE + offset
        self.memory[at : at + 4 * len(words)] = np.array(words, "<u4").view(np.uint8)
        return self.arguments + offset

    def get_arguments(self, offset: int, count: int) -> list[int]:
        """Read doublewords there."""
        at = ARGUMENTS * PAGE + offset
        return [int(word) for word in self.memory[at : at + 4 * count].view("<u4")]

    # -- hypercalls -----------------------------------------------------------------------------------------------

    def call(self, name: str, *arguments: int) -> int:
        """A hypercall: its result."""
        self.cpu.gpr[EAX] = NUMBER_OF[name]
        for register, value in zip(ARGUMENT_REGISTERS, arguments, strict=False):
            self.cpu.gpr[register] = value
        return int(call_memory(*self.all(), NUMBER_OF[name]))

    def update(self, *requests: tuple[int, int], foreign: int = 0x7FF0) -> tuple[int, int]:
        """mmu_update: its result, and how many requests were done."""
        words = [word for where, value in requests for word in (where & 0xFFFFFFFF, where >> 32, value & 0xFFFFFFFF, value >> 32)]
        self.put_arguments([0xDEAD], 4092)
        result = self.call("mmu_update", self.put_arguments(words), len(requests), self.arguments + 4092, foreign)
        return result, self.get_arguments(4092, 1)[0]

    def extended(self, *operations: tuple[int, int, int], foreign: int = 0x7FF0) -> tuple[int, int]:
        """mmuext_op: its result, and how many operations were done."""
        words = [word for operation in operations for word in operation]
        self.put_arguments([0xDEAD], 4092)
        result = self.call("mmuext_op", self.put_arguments(words), len(operations), self.arguments + 4092, foreign)
        return result, self.get_arguments(4092, 1)[0]

    def map(self, gla: int, entry: int, flags: int = 0) -> int:
        """update_va_mapping: its result."""
        return self.call("update_va_mapping", gla, entry & 0xFFFFFFFF, entry >> 32, flags)

    def slot(self, frame: int, index: int) -> int:
        """The machine address of an entry."""
        return frame << 12 | index << (3 if self.pae else 2)

    def faults(self) -> list[str]:
        """What a recount finds wrong."""
        return recount(self.memory, self.domains, self.frames, (), self.xen)

    def count(self, event: str) -> int:
        """How often an event was counted."""
        return int(self.processor.state["ledger_count"][0][EVENT_ID[event]].sum())


WORLDS: dict[bool, World] = {}


def world(pae: bool) -> World:
    """A world at its beginning."""
    if pae not in WORLDS:
        WORLDS[pae] = World(pae)
    WORLDS[pae].begin()
    return WORLDS[pae]
