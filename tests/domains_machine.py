"""The witness routines of paravirtual guests beside the jitted handlers: both serve one trap from the same state of two domains."""

from collections import Counter

import numpy as np

from x86virt.isa.registers import EAX, ESP
from x86virt.vmm import layout
from x86virt.vmm.paravirtual import bounce, hypercalls, interface, records, shared_info
from x86virt.vmm.paravirtual import layout as places
from x86virt.vmm.witness_paravirtual import ARGUMENTS, FRAME_AT, GUEST, N_FRAMES, PAGE, Domains
from x86virt.vmm.witness_run import Measured

FRAME = ("eip", "cs", "eflags", "esp", "ss")
IN_FRAME = {name for name, *_ in records.STATE_FIELDS}  # of a domain's record; the image has them on the VMM's stack
# Of the VMM's record: what means something beyond one exit.
LASTING = ("flush_clock", "free_frames", "releasing", "current")
REGIONS = {
    "channels": (places.CHANNELS, places.CHANNELS_BYTES),
    "grant track": (places.GRANT_TRACK, places.GRANT_TRACK_BYTES),
    "shared info": (places.SHARED_INFO, PAGE * places.N_DOMAINS),
    "grant frames": (places.GRANT_FRAMES, PAGE * 4 * places.N_DOMAINS),
    "frame table": (places.FRAME_TABLE, records.FRAME.itemsize * N_FRAMES),
    "machine to physical": (places.MACHPHYS, 4 * N_FRAMES),
    "memory": (layout.VMM_BYTES, N_FRAMES * PAGE - layout.VMM_BYTES),
}
STACKS = {"ss1": 16, "esp1": 12}


class Left:
    """What a trap left behind, by name."""

    def __init__(self, witness: Domains, frame: list[int]) -> None:
        ram = witness.processor.ram
        self.values: dict[str, object] = dict(zip(FRAME, frame, strict=True))
        self.values |= {f"register {number}": int(witness.cpu.gpr[number]) for number in range(8) if number != ESP}
        self.values |= {name: int(witness.xen[name][0]) for name in LASTING}
        self.values["cr0"] = int(witness.cpu.cr0)
        for name, offset in STACKS.items():
            self.values[name] = int(ram[places.TSS + offset : places.TSS + offset + 4].view("<u4")[0])
        for index, domain in enumerate(witness.domains):
            for name in records.DOMAIN.names or ():
                if name not in IN_FRAME:
                    self.values[f"domain {index}: {name}"] = np.asarray(domain[name]).tolist()
        self.regions = {name: ram[first : first + octets].copy() for name, (first, octets) in REGIONS.items()}

    def differences(self, other: "Left") -> list[str]:
        """Where the two differ."""
        rows = [f"{name}: {value} / {other.values[name]}" for name, value in self.values.items() if value != other.values[name]]
        for name, octets in self.regions.items():
            rows += [f"{name} at {place:#x}" for place in np.nonzero(octets != other.regions[name])[0][:4]]
        return rows


def image_left(witness: Domains) -> Left:
    """What the image left."""
    return Left(witness, witness.frame)


def handlers_left(witness: Domains) -> Left:
    """What the handlers left; the frame is in the domain's record."""
    domain = witness.domains[int(witness.xen["current"][0])]
    return Left(witness, [int(domain[name]) for name in FRAME])


def take_frame(witness: Domains) -> None:
    """The frame as the way into the VMM takes it."""
    domain = witness.domains[int(witness.xen["current"][0])]
    for name, value in zip(FRAME, witness.processor.ram[FRAME_AT : FRAME_AT + 20].view("<u4"), strict=True):
        domain[name] = value


def hands(witness: Domains) -> tuple:
    """The arguments of every handler."""
    return (witness.cpu, witness.memory, witness.xen[0], witness.domains, witness.frames, witness.channels)


def deliver_events(witness: Domains) -> None:
    """The end of the way out: the guest's callback, if events wait."""
    if shared_info.upcall_due(witness.memory, witness.domains, int(witness.xen["current"][0])):
        bounce.deliver_upcall(*hands(witness))


def compare_call(witness: Domains, name: str, *arguments: int, seen: Counter | None = None) -> list[str]:
    """Serve a hypercall twice from the saved state; what differed. `seen` counts the paths that were gone."""
    registers = {EAX: interface.NUMBER_OF[name], **dict(zip(ARGUMENTS, arguments, strict=False))}
    measured = witness.at("pv_hypercall", registers)
    mine = image_left(witness)
    witness.restore()
    for number, value in registers.items():
        witness.cpu.gpr[number] = value & 0xFFFFFFFF
    take_frame(witness)
    hypercalls.hypercall(*hands(witness))
    asked = int(witness.xen["asked"][0]) & ~records.ASK_EVENTS
    deliver_events(witness)
    return judge(measured, mine, handlers_left(witness), asked, seen)


def judge(measured: Measured, mine: Left, theirs: Left, asked: int, seen: Counter | None) -> list[str]:
    """What differs between the two, unless the image has left the case to a slower path."""
    if seen is not None:
        seen.update(["refused"] if measured.refused else [path for path, _ in measured.ticks])
    if measured.refused:
        return []
    rows = mine.differences(theirs)
    return rows if not asked else [f"the handlers ask for {asked:#x}", *rows]


def current_of(witness: Domains):
    """The record of the guest."""
    return witness.domains[GUEST]
