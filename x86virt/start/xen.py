"""Xen PV kernels: ELF images with Xen's notes, and what their domain builder needs of them.

The image goes where its physical addresses say, counted from `paddr_offset`: pseudo-physical page 0 is at the linear address
`virt_base`. Everything else of a domain's first memory is the builder's (vmm/paravirtual/builder.py).
"""

import hashlib
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import ImageError, show
from .boot import ADDRESS_SPACE, PARAVIRTUAL, Boot, command_line_bytes
from .elf import Segment, read_loadable, read_symbols
from .files import read_start_file
from .xen_notes import Notes, read_notes

MAXIMUM_COMMAND_LINE_BYTES = 1023  # of start_info.cmd_line, beside the zero at its end
FEATURES = ("writable_page_tables", "pae_pgdir_above_4gb", "mmu_pt_update_preserve_ad")  # that this VMM has
BIMODAL, EXTENDED = "bimodal", "yes"


@dataclass(frozen=True)
class XenImage:
    """A checked kernel: `segments` by pseudo-physical address, `entry` and `hypercall_page` linear."""

    name: str
    sha256: str
    entry: int
    virt_base: int
    hypercall_page: int | None
    is_pae: bool
    segments: tuple[Segment, ...]
    symbols: Mapping[str, int] = field(default_factory=dict, repr=False)
    ramdisk: bytes = field(default=b"", repr=False)
    command_line: bytes = b""

    @property
    def end(self) -> int:
        """The first pseudo-physical address behind the kernel."""
        return max(segment.end for segment in self.segments)

    def boot(self, memory_bytes: int, command_line: str = "") -> Boot:
        """The start of a domain with that much memory. Raises ImageError if the kernel does not fit."""
        if self.end > memory_bytes:
            what = f"it ends at pseudo-physical {self.end:#x}, outside RAM ({memory_bytes:#x} bytes)"
            raise ImageError(self.name, what, "give more memory (--memory)")
        line = command_line_bytes(self.name, command_line, MAXIMUM_COMMAND_LINE_BYTES)
        return Boot(self.entry, (), mode=PARAVIRTUAL, domain=replace(self, command_line=line))


def load_xen(path: str | os.PathLike[str]) -> XenImage:
    """Read and check an image file. Raises ImageError."""
    return parse_xen(read_start_file(path, "a Xen PV kernel"), pathlib.Path(path).stem, path)


def parse_xen(content: bytes, name: str, where: object = "image", ramdisk: bytes = b"") -> XenImage:
    """Check the bytes of a Xen PV kernel; `where` is named in errors. Raises ImageError."""
    notes = read_notes(content, where)
    entry, segments = read_loadable(content, where)
    check_features(notes, where)
    moved = tuple(replace(segment, address=segment.address - notes.paddr_offset) for segment in segments)
    for segment, before in zip(moved, segments, strict=True):
        if segment.address < 0:
            what = f"the segment at {before.address:#x} lies below its PADDR_OFFSET {notes.paddr_offset:#x}"
            raise ImageError(where, what, "correct the linker script or its ELF notes")
    image = XenImage(
        name, hashlib.sha256(content + ramdisk).hexdigest(), entry if notes.entry is None else notes.entry, notes.virt_base,
        notes.hypercall_page, wants_pae(notes, where), moved, read_symbols(content), ramdisk,
    )  # fmt: skip
    check_addresses(image, where)
    return image


def wants_pae(notes: Notes, where: object) -> bool:
    """Whether a domain of the kernel has PAE tables: where it takes either, it has."""
    word = notes.pae_mode.partition("[")[0]
    parts = word.split(",")
    if any(part not in ("", "yes", "no", BIMODAL) for part in parts):
        raise ImageError(where, f"its PAE mode is {show(notes.pae_mode)}", "say yes, no or bimodal")
    return "yes" in parts or BIMODAL in parts


def check_features(notes: Notes, where: object) -> None:
    """What the kernel cannot do without (marked `!`) is there. Raises ImageError."""
    for feature in notes.features:
        if feature.startswith("!") and feature[1:] not in FEATURES:
            what = f"it needs the feature {show(feature[1:])}"
            raise ImageError(where, what, f"build it for a VMM with {', '.join(FEATURES)}")


def check_addresses(image: XenImage, where: object) -> None:
    """Entry and hypercall page lie in the kernel, and the kernel in the linear space. Raises ImageError."""
    if image.virt_base + image.end > ADDRESS_SPACE:
        raise ImageError(where, f"it ends behind 4 GB from VIRT_BASE {image.virt_base:#x} on", "link it lower")
    for name, address in (("entry point", image.entry), ("HYPERCALL_PAGE", image.hypercall_page)):
        if address is not None and not any(holds(segment, address - image.virt_base) for segment in image.segments):
            raise ImageError(where, f"its {name} {address:#x} lies in no segment", "correct its ELF notes")


def holds(segment: Segment, address: int) -> bool:
    """Whether a pseudo-physical address lies in a segment."""
    return segment.address <= address < segment.end
