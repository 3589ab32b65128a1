"""Domains come to be: their records, their frames, and the processor's state at a kernel's first instruction."""

from typing import TYPE_CHECKING

import numpy as np

from ...core.entries import enter_level
from ...isa.events import MODE_GUEST_KERNEL, MODE_GUEST_USER, MODE_VMM
from ...isa.registers import (
    AR_UNUSABLE,
    CR0_AM,
    CR0_ET,
    CR0_MP,
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    CS,
    DS,
    EFLAGS_FIXED,
    EFLAGS_IF,
    ES,
    ESI,
    ESP,
    FS,
    GS,
    LDTR,
    SS,
    TR,
)
from ...processor import FLAT_CODE, FLAT_DATA
from ...start.xen import XenImage
from .. import layout as region
from . import layout
from .builder import Builder
from .domain_start import open_to, permit, start_domain
from .host import DATA_OF_RING, build_own_area, flat_descriptor, segment_limit, share_own_frames, virt_start
from .interface import (
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING1_SS,
    GNTTAB_RESERVED_CONSOLE,
    GNTTAB_RESERVED_XENSTORE,
    SIF_INITDOMAIN,
    SIF_PRIVILEGED,
)
from .memory_calls import adopt_base, root_address
from .records import PGC_ALLOCATED

if TYPE_CHECKING:
    from .vm import ParavirtualVm

PAGE_BYTES = 4096
M32 = 0xFFFFFFFF
DOMAIN_0, GUEST = 0, 1
NO_PORT = 0
KERNEL_RING = 1
DR6_INITIAL, DR7_INITIAL = 0xFFFF0FF0, 0x400


def create(vm: "ParavirtualVm", index: int, image: XenImage, frames: np.ndarray) -> tuple[int, int]:
    """A domain with these machine frames, its kernel at its first instruction: the ports of its store and console."""
    domain = vm.domains[index]
    domain.domid, domain.exists, domain.is_pae = index, 1, int(image.is_pae)
    domain.virt_start, domain.segment_limit = virt_start(image.is_pae), segment_limit(image.is_pae)
    domain.total_frames = domain.max_frames = len(frames)
    domain.shared_info = (layout.SHARED_INFO >> 12) + index
    build_own_area(vm, index, image.is_pae)
    share_own_frames(vm, index)
    start_domain(vm, index)
    give_frames(vm, index, frames)
    builder = Builder(vm, index, image, frames)
    builder.load()
    if index == DOMAIN_0:
        domain.is_privileged = 1
    ports = connect(vm, index, builder) if vm.has_domain_0 and index != DOMAIN_0 else (NO_PORT, NO_PORT)
    builder.write_start_info(*ports, SIF_PRIVILEGED | SIF_INITDOMAIN if index == DOMAIN_0 else 0)
    adopt_tables(vm, index, builder.build_tables())
    set_first_state(domain, image, builder)
    return ports


def connect(vm: "ParavirtualVm", index: int, builder: Builder) -> tuple[int, int]:
    """The ports of a guest's store and console, open to domain 0, which is granted their pages."""
    for reference, page in ((GNTTAB_RESERVED_CONSOLE, builder.plan.console), (GNTTAB_RESERVED_XENSTORE, builder.plan.store)):
        permit(vm, index, reference, DOMAIN_0, int(builder.frames[page]))
    return open_to(vm, index, DOMAIN_0), open_to(vm, index, DOMAIN_0)


def adopt_tables(vm: "ParavirtualVm", index: int, frame: int) -> None:
    """The page tables that the builder made become the domain's: validated, pinned, its base. It costs no cycle."""
    scratch = vm.processor.state.copy()
    taken = adopt_base(
        scratch, vm.processor.memory, vm.xens, vm.domains, vm.frames, vm.channels, index, frame
    )
    assert taken, "the builder's page tables keep the rules"


def give_frames(vm: "ParavirtualVm", index: int, frames: np.ndarray) -> None:
    """Machine frames become a domain's, in the order of its pseudo-physical pages."""
    rows = vm.frames
    rows["owner"][frames] = index
    rows["count_info"][frames] = PGC_ALLOCATED | 1
    rows["type_info"][frames] = 0
    vm.machphys[frames] = np.arange(len(frames))


def set_first_state(domain: np.record, image: XenImage, builder: Builder) -> None:
    """What the domain's processor begins with: flat segments of ring 1, ESI at start_info, ESP at the end of the stack."""
    plan = builder.plan
    domain.eip, domain.cs, domain.ss = image.entry, FLAT_RING1_CS, FLAT_RING1_SS
    domain.eflags = EFLAGS_FIXED | EFLAGS_IF
    domain.esp = builder.linear(plan.stack) + PAGE_BYTES & M32
    domain.gpr[:] = 0
    domain.gpr[ESI] = builder.linear(plan.start_info)
    domain.selectors[:] = FLAT_RING1_DS
    domain.iopl = KERNEL_RING
    domain.dr[6], domain.dr[7] = DR6_INITIAL, DR7_INITIAL


# -- the processor --------------------------------------------------------------------------------------------------------


def take_processor(vm: "ParavirtualVm", index: int) -> None:
    """The processor is the VMM's, in the address space of a domain, with the domain's registers: it is about to resume it."""
    cpu, domain = vm.processor.cpu, vm.domains[index]
    cpu.cr0 = CR0_PE | CR0_MP | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_PG
    cpu.cr4 = CR4_PSE | CR4_PGE | (CR4_PAE if domain.is_pae else 0)
    cpu.cr3 = root_address(vm.processor.state.copy(), vm.processor.memory, vm.domains, index)
    if domain.is_pae:
        entries = np.frombuffer(vm.processor.read_physical(int(cpu.cr3), 32), "<i8")
        cpu.pdpte[:] = np.where(entries & 1, entries, 0)
    vm.processor.empty_tlbs()
    cpu.gdtr_base, cpu.gdtr_limit = layout.PER_DOMAIN_GDT, 0xFFFF
    cpu.idtr_base, cpu.idtr_limit = region.VMM_BASE + region.IDT, 256 * 8 - 1
    cpu.hook_first = region.VMM_BASE + region.ENTRIES
    cpu.hook_last = region.VMM_BASE + region.RESUME - 1
    cpu.timer_vector = region.HOST_TIMER_VECTOR
    cpu.mode_table[0:4] = (MODE_VMM, MODE_GUEST_KERNEL, MODE_GUEST_KERNEL, MODE_GUEST_USER)
    load_segments(vm, domain)
    for number, value in enumerate(domain.gpr.tolist()):
        cpu.gpr[number] = value
    cpu.gpr[ESP] = region.VMM_BASE + region.STACK_TOP
    enter_level(vm.processor.state, 0)


def load_segments(vm: "ParavirtualVm", domain: np.record) -> None:
    """The VMM's CS, SS and TR; the domain's flat data segments in the others."""
    set_segment = vm.processor.set_segment
    set_segment(CS, region.VMM_CODE_SELECTOR, 0, M32, FLAT_CODE)
    set_segment(SS, region.VMM_DATA_SELECTOR, 0, M32, FLAT_DATA)
    set_segment(LDTR, 0, 0, 0, AR_UNUSABLE)
    set_segment(TR, region.VMM_TSS_SELECTOR, region.VMM_BASE + layout.TSS, layout.TSS_BYTES - 1, 0x8B)
    flat = flat_descriptor(DATA_OF_RING, 1, int(domain.segment_limit)).loaded(FLAT_RING1_DS)
    for segment in (DS, ES, FS, GS):
        set_segment(segment, FLAT_RING1_DS, flat.base, flat.limit, flat.access)
