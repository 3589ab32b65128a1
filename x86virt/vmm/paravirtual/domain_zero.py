"""Domain 0: a second kernel, which drives the machine's devices and serves the guest's console, store and disk.

It finds out about the guest from its command line, and owns no memory of the guest's: the pages of console and store are granted.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...guests import images_folder
from ...start.xen import MAXIMUM_COMMAND_LINE_BYTES, XenImage, load_xen
from . import layout
from .domains import DOMAIN_0, GUEST, create

if TYPE_CHECKING:
    from .vm import ParavirtualVm

PAGE_BYTES = 4096
IMAGE = "domain_0.elf"


def create_domain_0(vm: "ParavirtualVm", guest: str, ports: tuple[int, int]) -> None:
    """Build it, for a guest of that name with these ports of store and console."""
    store, console = ports
    memory = vm.machine.memory_bytes >> 10
    line = f"domid={GUEST} console={console} store={store} memory={memory} name={guest}"
    create(vm, DOMAIN_0, with_command_line(load_xen(images_folder() / IMAGE), line), own_frames(vm))


def with_command_line(image: XenImage, line: str) -> XenImage:
    """A kernel that is given a command line."""
    return replace(image, command_line=line.encode()[:MAXIMUM_COMMAND_LINE_BYTES])


def own_frames(vm: "ParavirtualVm") -> np.ndarray:
    """Its machine frames: those behind the guest's RAM and ROM, in descending order."""
    first = vm.machine_frames - layout.DOMAIN_0_BYTES // PAGE_BYTES
    return np.arange(first, vm.machine_frames, dtype=np.int64)[::-1].copy()
