"""Domains driven from Python: each hypercall is made as if the domain's kernel had, and what follows it is looked at.

Three domains share the machine: domain 0, which is privileged, and domains 1 and 2. Their kernels never execute; linear and
pseudo-physical addresses are the same. `ROOM` is memory of a domain's for structures.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from paravirtual_kernel import IMAGE_BYTES, Kernel
from profile_for import profile_for

from x86virt import Machine, find_strategy, load_profile
from x86virt.isa.registers import EAX, EBX, ECX, EDI, EDX, ESI
from x86virt.vmm.paravirtual.domain_start import run_first
from x86virt.vmm.paravirtual.domains import create, take_processor
from x86virt.vmm.paravirtual.interface import HYPERCALL_VECTOR, NUMBER_OF
from x86virt.vmm.paravirtual.loop import LEAVE, SERVE
from x86virt.vmm.paravirtual.records import ASK_SCHEDULE

if TYPE_CHECKING:
    import numpy as np

    from x86virt.vmm.paravirtual.vm import ParavirtualVm

RAM_BYTES = 12 << 20
FRAMES = 1024  # of each domain
ROOM = IMAGE_BYTES + 0x1000 - 0x2000  # a page of the image that its kernel does not use
RUNNING, RUNNABLE, BLOCKED = range(3)
ARGUMENTS = (EBX, ECX, EDX, ESI, EDI)
M32 = 0xFFFFFFFF


class Domains:
    """The rig. The domain of `current` is running; all calls are its."""

    def __init__(self, count: int = 3, profile: str = "") -> None:
        strategy = find_strategy("paravirtual,domain_0=off")()
        self.machine = Machine(strategy, load_profile(profile or profile_for(strategy)), RAM_BYTES)
        self.machine.load(Kernel([]).image())
        self.vm: ParavirtualVm = self.machine.vm
        image = Kernel([]).image()
        for index in range(count):
            create(self.vm, index, image, self.vm.p2m[FRAMES * index : FRAMES * (index + 1)])
        self.vm.domains[0].is_privileged = 1
        take_processor(self.vm, 1)
        run_first(self.vm, 1)
        self.leave()

    @property
    def cpu(self) -> np.record:
        """The processor."""
        return self.machine.processor.cpu

    @property
    def xen(self) -> np.record:
        """The VMM's record."""
        return self.vm.xen

    @property
    def current(self) -> int:
        """The domain that runs."""
        return int(self.xen.current)

    # -- hypercalls -----------------------------------------------------------------------------------------------

    def serve(self, name: str | int, *arguments: int) -> int:
        """A hypercall of the current domain's: its result. What it asks for is not done yet."""
        number = NUMBER_OF[name] if isinstance(name, str) else name
        for register, value in zip(ARGUMENTS, arguments, strict=False):
            self.cpu.gpr[register] = value & M32
        self.cpu.gpr[EAX] = number
        self.xen.vector = HYPERCALL_VECTOR
        self.vm.part(SERVE)
        result = int(self.cpu.gpr[EAX])
        return result - (1 << 32) if result >> 31 else result

    def leave(self) -> int:
        """What was asked for is done: an outcome of the way out."""
        return self.vm.part(LEAVE)

    def call(self, name: str | int, *arguments: int) -> int:
        """A hypercall, and the way out of the VMM."""
        result = self.serve(name, *arguments)
        self.leave()
        return result

    def with_words(self, name: str, command: int, *words: int) -> tuple[int, list[int]]:
        """A hypercall of a command and a structure: its result, and the structure afterwards."""
        self.put(ROOM, *words)
        result = self.call(name, command, ROOM)
        return result, self.get(ROOM, len(words))

    # -- memory ---------------------------------------------------------------------------------------------------

    def frame(self, page: int, index: int | None = None) -> int:
        """The machine frame of a domain's page."""
        return int(self.vm.p2m[FRAMES * (self.current if index is None else index) + page])

    def machine_address(self, address: int, index: int | None = None) -> int:
        """The machine address of a domain's memory."""
        return (self.frame(address >> 12, index) << 12) + (address & 0xFFF)

    def put(self, address: int, *words: int, index: int | None = None) -> None:
        """Write doublewords into a domain's memory; the TLB and the cache notice nothing of it."""
        octets = struct.pack(f"<{len(words)}I", *(word & M32 for word in words))
        self.machine.processor.write_physical(self.machine_address(address, index), octets)

    def get(self, address: int, count: int, index: int | None = None) -> list[int]:
        """Doublewords of a domain's memory."""
        octets = self.machine.processor.read_physical(self.machine_address(address, index), 4 * count)
        return list(struct.unpack(f"<{count}I", octets))

    def shared(self, offset: int, n: int, index: int | None = None) -> int:
        """A number in a domain's shared information page."""
        page = int(self.vm.domains[self.current if index is None else index].shared_info) << 12
        return int.from_bytes(self.machine.processor.read_physical(page + offset, n), "little")

    def set_shared(self, offset: int, n: int, value: int, index: int | None = None) -> None:
        """Write there, as the domain may."""
        page = int(self.vm.domains[self.current if index is None else index].shared_info) << 12
        self.machine.processor.write_physical(page + offset, value.to_bytes(n, "little"))

    def switch(self, index: int) -> None:
        """Let another domain be the current one, whatever the scheduler would say."""
        for other in range(3):
            self.vm.domains[other].run_state = BLOCKED
        self.vm.domains[index].run_state = RUNNING if index == self.current else RUNNABLE
        self.xen.asked |= ASK_SCHEDULE
        self.leave()
        assert self.current == index

    def quietly(self, name: str, command: int, *words: int) -> tuple[int, list[int]]:
        """A hypercall of a command and a structure after which no other domain gets to run, woken or not."""
        self.put(ROOM, *words)
        result = self.serve(name, command, ROOM)
        self.xen.asked = 0
        for index in range(3):
            self.vm.domains[index].run_state = RUNNING if index == self.current else BLOCKED
        return result, self.get(ROOM, len(words))
