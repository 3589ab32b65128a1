"""Bounds of what a saved machine has in the VMM's records: no index or address of them lies outside of what it names.

The records are in machine RAM, and machine code goes by them without looking twice. Last all frames are counted anew: what
the page tables of a file made on purpose say must agree with the frame table, as it does at every exit.
"""

from typing import TYPE_CHECKING

import numpy as np

from . import layout
from .crashes import CRASHES
from .held import frame_faults
from .host import segment_limit, virt_start
from .interface import (
    DOMID_IO,
    DOMID_XEN,
    FIRST_RESERVED_GDT_ENTRY,
    GRANT_ENTRY_BYTES,
    N_EVENT_CHANNELS,
    EVTCHNSTAT_ipi,
    GNTMAP_contains_pte,
    RUNSTATE_offline,
)
from .records import (
    ACTIVE,
    ACTIVE_ENTRIES,
    CONSOLE_BYTES,
    MAPPING,
    MAPPINGS,
    N_MAPPINGS,
    NOBODY,
    PGC_COUNT,
)

if TYPE_CHECKING:
    from .vm import ParavirtualVm

PAGE_BYTES = 4096
WORD, SELECTOR = 0xFFFFFFFF, 0xFFFF
VCPU_BYTES = 64
GRANTS = layout.N_GRANT_FRAMES * PAGE_BYTES // GRANT_ENTRY_BYTES  # of a domain
LARGEST = 1 << 62
# The greatest values of fields of a domain's record; those of 32 bits that may have any are not here.
DOMAIN_BOUNDS = {
    "exists": 1, "is_pae": 1, "is_privileged": 1, "cs": SELECTOR, "ss": SELECTOR, "selectors": SELECTOR, "trap_cs": SELECTOR,
    "kernel_ss": SELECTOR, "event_cs": SELECTOR, "failsafe_cs": SELECTOR, "gdt_entries": FIRST_RESERVED_GDT_ENTRY,
    "ldt_entries": 8192, "iopl": 3, "virq_port": N_EVENT_CHANNELS - 1, "pirq_port": N_EVENT_CHANNELS - 1, "polls": 1,
    "run_state": RUNSTATE_offline, "grant_frames": layout.N_GRANT_FRAMES, "io_ports": 1 << 16, "fpu_sign": 1,
    "fpu_exponent": 0x7FFF, "fpu_control": 0xFFFF, "fpu_status": 0xFFFF, "fpu_occupied": 0xFF,
}  # fmt: skip
FRAME_FIELDS = ("gdt_frames", "ldt_frames", "base_frame", "total_frames", "max_frames")
# The least and greatest values of fields of the VMM's own record.
XEN_BOUNDS = {
    "current": (0, layout.N_DOMAINS - 1), "crash": (0, len(CRASHES) - 1), "fpu_owner": (-1, layout.N_DOMAINS - 1),
    "console_length": (0, CONSOLE_BYTES), "mapping_hint": (0, N_MAPPINGS), "in_multicall": (0, 1), "vector": (0, 255),
    "tsc_shift": (-4, 8), "tsc_multiplier": (1 << 31, WORD), "flush_clock": (0, LARGEST), "quantum": (1, LARGEST),
}  # fmt: skip


def refuse(what: str) -> None:
    """The file holds no machine of ours."""
    raise ValueError(f"its {what} is out of range")


def check_records(vm: "ParavirtualVm") -> None:
    """All of the VMM's records; raises ValueError."""
    check_own(vm)
    for index in range(layout.N_DOMAINS):
        check_domain(vm, index)
    check_events_and_grants(vm)
    check_frames(vm)
    if frame_faults(vm):
        refuse("frame table")


def check_own(vm: "ParavirtualVm") -> None:
    """The VMM's own record."""
    xen = vm.xen
    for name, (least, most) in XEN_BOUNDS.items():
        if (xen[name] < least).any() or (xen[name] > most).any():
            refuse(name)
    if xen.n_frames != vm.machine_frames or not vm.domains[int(xen.current)].exists:
        refuse("running domain")
    for name in ("free_frames", "releasing"):
        if not 0 <= xen[name] <= vm.machine_frames:
            refuse(name)


def check_domain(vm: "ParavirtualVm", index: int) -> None:
    """A domain's record."""
    domain = vm.domains[index]
    for name, most in DOMAIN_BOUNDS.items():
        if (domain[name] > most).any():
            refuse(name)
    if not domain.exists:
        return
    for name in FRAME_FIELDS:
        if (domain[name] >= vm.machine_frames).any():
            refuse(name)
    is_pae = bool(domain.is_pae)
    kept = (domain.domid, domain.virt_start, domain.segment_limit, domain.shared_info)
    if kept != (index, virt_start(is_pae), segment_limit(is_pae), (layout.SHARED_INFO >> 12) + index):
        refuse("domain")
    if int(domain.vcpu_info) + VCPU_BYTES > vm.processor.ram_bytes:
        refuse("vcpu_info")


def check_events_and_grants(vm: "ParavirtualVm") -> None:
    """Event channels, grants that are in use, and mapped ones."""
    channels = vm.channels
    if (channels["state"] > EVTCHNSTAT_ipi).any() or (channels["remote_domain"] >= layout.N_DOMAINS).any():
        refuse("event channels")
    if (channels["detail"] >= N_EVENT_CHANNELS).any():
        refuse("event channels")
    active = vm.records(ACTIVE_ENTRIES, ACTIVE, layout.N_DOMAINS * GRANTS)
    mappings = vm.records(MAPPINGS, MAPPING, N_MAPPINGS)
    if (active["frame"] >= vm.machine_frames).any() or (mappings["frame"] >= vm.machine_frames).any():
        refuse("grants")
    if (mappings["mapper"] > layout.N_DOMAINS).any() or (mappings["granter"] >= layout.N_DOMAINS).any():
        refuse("grants")
    by_entry = mappings["how"] & GNTMAP_contains_pte != 0
    if (mappings["reference"] >= GRANTS).any() or (mappings["address"][by_entry] >= vm.processor.ram_bytes - 8).any():
        refuse("grants")


def check_frames(vm: "ParavirtualVm") -> None:
    """The frame table, and the machine-to-physical table's room."""
    frames = vm.frames
    owners = frames["owner"]
    exists = np.array([bool(domain.exists) for domain in vm.domains])
    known = np.isin(owners, (*np.flatnonzero(exists), DOMID_XEN, DOMID_IO, NOBODY))
    if not known.all():
        refuse("frame table")
    free = owners == NOBODY
    if (frames["type_info"][free] > vm.machine_frames).any() or (frames["count_info"][free] & PGC_COUNT).any():
        refuse("frame table")
