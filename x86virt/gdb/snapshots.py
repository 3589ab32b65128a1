"""Whole machines in memory, cheap enough to be taken often: what x86virt/saved.py would write, with pages shared."""

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..machine import Machine
from ..saved import fill_hardware, fill_python_state, fill_vm, machine_arrays, machine_state
from ..saved_disks import restore_overlays
from ..vmm.saved_state import vm_state
from .pages import PAGE_BYTES, PagedArray
from .place import Place, place_of

SMALL = 4 * PAGE_BYTES  # bytes of an array that is simply copied, whatever it is


@dataclass
class Snapshot:
    """A machine at a place. `altered`: the debugger had just written its registers or memory."""

    place: Place
    altered: bool
    state: dict[str, Any] = field(repr=False)
    small: dict[str, np.ndarray] = field(repr=False)
    paged: dict[str, list[bytes]] = field(repr=False)


class Camera:
    """Takes snapshots of one machine and puts it back to them."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.paged: dict[str, PagedArray] = {}

    def take(self, altered: bool = False) -> Snapshot:
        """The machine as it is, at an instruction boundary."""
        machine = self.machine
        machine.processor.settle()
        machine.dialogue.drain()  # what the devices had for the host stands in the texts alone
        small, paged = {}, {}
        for name, array in machine_arrays(machine):
            if is_paged(name, array):
                paged[name] = self.paged_array(name, array).take()
            else:
                small[name] = array.copy()
        return Snapshot(place_of(machine), altered, self.python_state(), small, paged)

    def paged_array(self, name: str, array: np.ndarray) -> PagedArray:
        """The pages of one of the machine's own arrays."""
        octets = array.reshape(-1).view(np.uint8)
        known = self.paged.get(name)
        if known is None or known.octets.ctypes.data != octets.ctypes.data or len(known.octets) != len(octets):
            known = self.paged[name] = PagedArray(octets)
        return known

    def python_state(self) -> dict[str, Any]:
        """What is in Python objects, as plain values of its own."""
        machine = self.machine
        return {
            "guest": machine.guest[0],
            "guest_sha256": machine.guest[1],
            "machine": plain(machine_state(machine)),
            "vm": None if machine.vm is None else plain(vm_state(machine.vm)),
            "strategy_state": plain(machine.strategy.save()),
        }

    def put_back(self, snapshot: Snapshot) -> None:
        """Make the machine what it was."""
        machine = self.machine
        machine.processor.settle()
        arrays = dict(snapshot.small)
        for name, pages in snapshot.paged.items():
            self.paged[name].put_back(pages)
        for name, array in machine_arrays(machine):
            if name in snapshot.paged:
                arrays[name] = array.reshape(-1)
        machine.open_region = None
        fill_hardware(machine, arrays)
        if machine.vm is not None:
            fill_vm(machine, snapshot.state["vm"], arrays)
        fill_python_state(machine, snapshot.state, arrays)
        restore_overlays(machine.disks, arrays)
        machine.strategy.restore(snapshot.state["strategy_state"])


def is_paged(name: str, array: np.ndarray) -> bool:
    """Whether an array is large, and the machine's own rather than made for the moment."""
    return (name == "ram" or name.startswith("cpu.")) and array.nbytes > SMALL and array.nbytes % PAGE_BYTES == 0


def plain(value: Any) -> Any:
    """A copy of plain values."""
    return json.loads(json.dumps(value))
