"""The domain builder against Xen's interface: registers, start_info, page tables, frame lists, both maps, the hypercall page.

What a domain finds is read through its own page tables, walked here by hand, as its kernel would.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from xen_images import CODE, CONTENT, ENTRY, HYPERCALLS, PAGE, elf, usual

from x86virt import Machine, find_strategy, load_profile
from x86virt.isa.registers import DS, ES, ESI, FS, GS, PTE_ADDRESS, PTE_P, PTE_PS, PTE_RW, PTE_US
from x86virt.start.xen import XenImage, parse_xen
from x86virt.vmm.paravirtual import layout
from x86virt.vmm.paravirtual.builder import plan_memory
from x86virt.vmm.paravirtual.interface import (
    DOMID_XEN,
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    HYPERVISOR_VIRT_START,
    HYPERVISOR_VIRT_START_PAE,
    INVALID_M2P_ENTRY,
    NUMBER_OF,
    SIF_INITDOMAIN,
    SIF_PRIVILEGED,
    EVTCHNSTAT_unbound,
    GTF_permit_access,
)
from x86virt.vmm.paravirtual.records import NOBODY, PGT_L1, PGT_L2, PGT_L3, PGT_PINNED, PGT_TYPE
from x86virt.vmm.paravirtual.structures import START_INFO, TRAP_INFO

MEGABYTE = 1 << 20
MEMORY = 16 * MEGABYTE
GUEST = 1
HIGH = 0xC0000000
RAMDISK = bytes(range(256)) * 40
KINDS = ("2-level", "PAE")
EVERY_KIND = pytest.mark.parametrize("kind", KINDS)
PLACES = pytest.mark.parametrize("base", [0, HIGH, 0x80400000])


def image_of(kind: str, base: int = 0) -> XenImage:
    notes = usual("yes" if kind == "PAE" else "no", base, base + ENTRY, base + HYPERCALLS)
    return replace(parse_xen(elf(notes), "kernel"), ramdisk=RAMDISK)


def started(kind: str = "2-level", base: int = 0, options: str = "") -> Machine:
    machine = Machine(find_strategy(f"paravirtual{options}")(), load_profile("p4_prescott"), MEMORY)
    machine.load(image_of(kind, base), "one two")
    return machine


class Space:
    """The address space of the guest, walked by hand."""

    def __init__(self, machine: Machine) -> None:
        self.machine, self.domain = machine, machine.vm.domains[GUEST]
        self.top = int(self.domain.base_frame) << 12

    def word(self, address: int, width: int = 4) -> int:
        return int.from_bytes(self.machine.processor.read_physical(address, width), "little")

    def entries(self, gla: int) -> Iterator[int]:
        """The entries of each level, down to the first that is not present."""
        if self.domain.is_pae:
            table = self.word(self.top + 8 * (gla >> 30), 8)
            places = ((gla >> 21 & 511, 8), (gla >> 12 & 511, 8))
            yield table
        else:
            table = self.top
            places = ((gla >> 22, 4), (gla >> 12 & 1023, 4))
        for index, width in places:
            table = self.word((table & PTE_ADDRESS) + width * index, width)
            yield table
            if not table & PTE_P:
                return

    def frame(self, gla: int) -> int | None:
        """The machine frame of a linear page, None if nothing is there."""
        leaf = list(self.entries(gla))[-1]
        return leaf >> 12 if leaf & PTE_P else None

    def read(self, gla: int, count: int) -> bytes:
        """Bytes at a linear address."""
        octets = b""
        while len(octets) < count:
            place = gla + len(octets)
            frame, room = self.frame(place), PAGE - (place & 0xFFF)
            assert frame is not None, hex(place)
            octets += self.machine.processor.read_physical(frame << 12 | place & 0xFFF, min(room, count - len(octets)))
        return octets

    def start_info(self) -> np.void:
        return np.frombuffer(self.read(int(self.domain.gpr[ESI]), START_INFO.itemsize), START_INFO)[0]


@EVERY_KIND
@PLACES
def test_registers_at_the_first_instruction(kind: str, base: int) -> None:
    domain = started(kind, base).vm.domains[GUEST]
    plan = plan_memory(image_of(kind, base), MEMORY >> 12)
    assert (int(domain.eip), int(domain.cs), int(domain.ss)) == (base + ENTRY, FLAT_RING1_CS, FLAT_RING1_DS)
    assert int(domain.esp) == base + PAGE * (plan.stack + 1) and int(domain.eflags) == 0x202
    assert domain.gpr.tolist() == [base + PAGE * plan.start_info if number == ESI else 0 for number in range(8)]
    assert domain.selectors.tolist() == [FLAT_RING1_DS] * 4


@EVERY_KIND
@PLACES
def test_start_info(kind: str, base: int) -> None:
    machine = started(kind, base)
    space, vm = Space(machine), machine.vm
    info = space.start_info()
    plan = plan_memory(image_of(kind, base), MEMORY >> 12)
    magic = b"xen-3.0-x86_32p" if kind == "PAE" else b"xen-3.0-x86_32"
    assert info["magic"].tobytes().rstrip(b"\0") == magic
    assert info["cmd_line"].tobytes().rstrip(b"\0") == b"one two"
    assert (int(info["nr_pages"]), int(info["flags"])) == (MEMORY >> 12, 0)
    assert int(info["shared_info"]) == layout.SHARED_INFO + PAGE * GUEST
    assert (int(info["pt_base"]), int(info["nr_pt_frames"])) == (base + PAGE * plan.tables, plan.table_count)
    assert space.frame(int(info["pt_base"])) == int(vm.domains[GUEST].base_frame)
    assert (int(info["mod_start"]), int(info["mod_len"])) == (base + PAGE * plan.ramdisk, len(RAMDISK))
    assert space.read(int(info["mod_start"]), len(RAMDISK)) == RAMDISK
    for name, page in (("store", plan.store), ("console", plan.console)):
        assert int(info[f"{name}_mfn"]) == int(vm.p2m[page]) == space.frame(base + PAGE * page)
        assert vm.channels[GUEST * 1024 + int(info[f"{name}_evtchn"])].state == EVTCHNSTAT_unbound
        assert space.read(base + PAGE * page, PAGE) == bytes(PAGE)


@EVERY_KIND
@PLACES
def test_the_first_memory_is_mapped_in_order_up_to_its_padding(kind: str, base: int) -> None:
    """All of it writable but the page tables, nothing behind it, and behind the stack at least 512 KB."""
    machine = started(kind, base)
    space, plan = Space(machine), plan_memory(image_of(kind, base), MEMORY >> 12)
    assert plan.end % (4 * MEGABYTE) == 0 and plan.end - base - PAGE * (plan.stack + 1) >= 512 << 10
    for page in range((plan.end - base) >> 12):
        leaf = list(space.entries(base + PAGE * page))[-1]
        assert leaf >> 12 == int(machine.vm.p2m[page])
        assert bool(leaf & PTE_RW) != (plan.tables <= page < plan.stack) and leaf & PTE_US
    assert space.frame(plan.end) is None and (base == 0 or space.frame(base - PAGE) is None)


@EVERY_KIND
@PLACES
def test_the_kernel_and_the_lists_of_frames(kind: str, base: int) -> None:
    machine = started(kind, base)
    space, vm = Space(machine), machine.vm
    assert space.read(base + CODE, PAGE) == CONTENT[:PAGE] and space.read(base + HYPERCALLS + PAGE, PAGE) == CONTENT[-PAGE:]
    frames = np.frombuffer(space.read(int(space.start_info()["mfn_list"]), 4 * len(vm.p2m)), "<u4")
    assert frames.tolist() == vm.p2m.tolist() and sorted(set(frames.tolist())) == sorted(vm.p2m.tolist())
    window = HYPERVISOR_VIRT_START_PAE if kind == "PAE" else HYPERVISOR_VIRT_START
    machphys = np.frombuffer(space.read(window, 4 * vm.machine_frames), "<u4")
    assert machphys[frames].tolist() == list(range(len(frames)))
    others = np.setdiff1d(np.arange(vm.machine_frames), frames)
    of_domain_0 = np.flatnonzero(vm.frames["owner"] == 0)
    of_domain_0 = of_domain_0[of_domain_0 >= 1024]
    assert (machphys[np.setdiff1d(others, of_domain_0)] == INVALID_M2P_ENTRY).all()
    assert sorted(machphys[of_domain_0].tolist()) == list(range(len(of_domain_0)))


@EVERY_KIND
def test_the_hypercall_page(kind: str) -> None:
    """MOV EAX, n; INT 82; RET in 32 bytes each; the iret hypercall finds EAX on the stack and does not return."""
    page = Space(started(kind)).read(HYPERCALLS, PAGE)
    for number in range(64):
        entry = page[32 * number : 32 * number + 32]
        call = b"\xb8" + number.to_bytes(4, "little") + b"\xcd\x82"
        assert entry.startswith(b"\x50" + call if number == NUMBER_OF["iret"] else call + b"\xc3"), number


@EVERY_KIND
def test_what_is_the_vmms_in_the_guests_address_space(kind: str) -> None:
    """Supervisor's alone; the machine-to-physical table read-only; segments end behind it."""
    machine = started(kind, HIGH, ",domain_0=off")
    space, domain = Space(machine), machine.vm.domains[GUEST]
    start = int(domain.virt_start)
    assert start == (HYPERVISOR_VIRT_START_PAE if kind == "PAE" else HYPERVISOR_VIRT_START)
    assert int(domain.segment_limit) == (0xF67FF if kind == "PAE" else 0xFC3FF)
    shown = [gla for gla in range(start, 1 << 32, PAGE) if space.frame(gla) is not None]
    assert shown[0] == start and max(shown) == 0xFFFFF000
    for gla in shown:
        levels = list(space.entries(gla))
        leaf = levels[-1]
        assert not leaf & PTE_US and not levels[-2] & PTE_PS
        if gla < layout.PER_DOMAIN_START:
            assert not leaf & PTE_RW and leaf >> 12 == (layout.MACHPHYS + gla - start) >> 12
    cpu = machine.processor.cpu
    for segment in (ES, DS, FS, GS):
        assert int(cpu.seg[segment].limit) == (int(domain.segment_limit) + 1 << 12) - 1


@EVERY_KIND
def test_frames_have_owners_and_tables_their_types(kind: str) -> None:
    machine = started(kind)
    vm, plan = machine.vm, plan_memory(image_of(kind), MEMORY >> 12)
    owners = vm.frames["owner"]
    assert (owners[vm.p2m] == GUEST).all()
    shared = {*range(layout.SHARED_INFO >> 12, (layout.SHARED_INFO >> 12) + 2), *range(layout.GRANT_FRAMES >> 12, 0xB0)}
    assert all(owners[frame] == DOMID_XEN for frame in range(1024) if frame not in shared)
    behind = (4 * MEGABYTE + MEMORY) >> 12
    assert (owners[behind : behind + 256] == NOBODY).all() and (owners[behind + 256 :] == 0).all()
    tables = vm.p2m[plan.tables : plan.stack]
    kinds = vm.frames["type_info"][tables] & PGT_TYPE
    assert kinds[0] == (PGT_L3 if kind == "PAE" else PGT_L2) and vm.frames["type_info"][tables[0]] & PGT_PINNED
    assert set(kinds[1:].tolist()) == ({PGT_L1, PGT_L2} if kind == "PAE" else {PGT_L1})
    assert vm.faults() == []


def test_console_and_store_are_granted_to_domain_0_which_is_told_of_them() -> None:
    machine = started()
    vm = machine.vm
    info = Space(machine).start_info()
    table = layout.GRANT_FRAMES + (layout.N_GRANT_FRAMES << 12) * GUEST
    for reference, name in enumerate(("console", "store")):
        entry = machine.processor.read_physical(table + 8 * reference, 8)
        assert entry == (GTF_permit_access | int(info[f"{name}_mfn"]) << 32).to_bytes(8, "little")
    domain_0 = Space(machine)
    domain_0.domain, domain_0.top = vm.domains[0], int(vm.domains[0].base_frame) << 12
    told = np.frombuffer(domain_0.read(int(vm.domains[0].gpr[ESI]), START_INFO.itemsize), START_INFO)[0]
    line = told["cmd_line"].tobytes().rstrip(b"\0").decode()
    ports = f"console={info['console_evtchn']} store={info['store_evtchn']}"
    assert line == f"domid=1 {ports} memory={MEMORY >> 10} name=kernel"
    assert int(told["flags"]) == SIF_PRIVILEGED | SIF_INITDOMAIN and (told["store_mfn"], told["console_mfn"]) == (0, 0)


def test_without_domain_0_there_is_nobody_to_talk_to() -> None:
    machine = started(options=",domain_0=off")
    info = Space(machine).start_info()
    assert [int(info[name]) for name in ("store_mfn", "store_evtchn", "console_mfn", "console_evtchn")] == [0, 0, 0, 0]
    assert not machine.vm.domains[0].exists and machine.vm.faults() == []


@pytest.mark.parametrize("option", ["contiguous", "scattered"])
def test_machine_frames_are_what_was_asked_for(option: str) -> None:
    frames = started(options=f",p2m={option}").vm.p2m
    expected = np.arange(1024, 1024 + (MEMORY >> 12))
    assert frames.tolist() == (expected if option == "contiguous" else expected[::-1]).tolist()


def test_a_kernel_whose_first_memory_reaches_the_vmm_is_refused() -> None:
    outcome = started(base=0xFBF00000).outcome
    assert outcome == "unsupported: the domain's first memory ends at 0xfc400000, in what is the VMM's: link the kernel lower"


def test_building_costs_no_cycle() -> None:
    """What the VMM does before a domain's first instruction is not the guest's affair, nor any record's."""
    cpu = started(options=",domain_0=off").processor.cpu
    assert int(cpu.retired) == 0 and TRAP_INFO.itemsize == 8
    assert int(cpu.ledger_count[:, 0].sum()) == int(cpu.ledger_count[:, 1].sum()) == 0
