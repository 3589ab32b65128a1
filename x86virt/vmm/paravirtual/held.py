"""Frames that the VMM holds for domains besides what their page tables say, and the count of all frames that follows."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from . import layout
from .interface import GNTMAP_device_map, GNTMAP_readonly
from .records import MAPPING, MAPPINGS, N_MAPPINGS, PGT_SEG_DESC, PGT_WRITABLE
from .recount import Hold, recount

if TYPE_CHECKING:
    from .vm import ParavirtualVm

PAGE_SHIFT = 12


def holds(vm: "ParavirtualVm") -> Iterator[Hold]:
    """Descriptor tables, pages that a domain and the VMM share, grants that are mapped for devices."""
    for index, domain in enumerate(vm.domains):
        if domain.exists:
            for name in ("gdt_frames", "ldt_frames"):
                yield from (Hold(int(frame), PGT_SEG_DESC, name) for frame in domain[name] if frame)
            grants = (layout.GRANT_FRAMES >> PAGE_SHIFT) + layout.N_GRANT_FRAMES * index
            own = {int(domain.shared_info), int(domain.vcpu_info) >> PAGE_SHIFT}
            yield from (Hold(frame, PGT_WRITABLE, "shared") for frame in own | {*range(grants, grants + layout.N_GRANT_FRAMES)})
    for mapping in vm.records(MAPPINGS, MAPPING, N_MAPPINGS):
        if mapping.mapper and int(mapping.how) & GNTMAP_device_map:
            kind = 0 if int(mapping.how) & GNTMAP_readonly else PGT_WRITABLE
            yield Hold(int(mapping.frame), kind, "mapped for devices")


def frame_faults(vm: "ParavirtualVm") -> list[str]:
    """What a count of all frames, from the page tables and what the VMM holds, finds wrong in the frame table."""
    return recount(vm.processor.memory, vm.domains, vm.frames, holds(vm), vm.xen)
