"""The witness routines of paravirtual guests beside the jitted handlers: both serve one trap from the same state."""

from collections import Counter

import numpy as np

from x86virt import load_profile
from x86virt.core.entries import flush_translations
from x86virt.core.jit import machine_code
from x86virt.core.layout import NEVER
from x86virt.core.run import run as run_processor
from x86virt.isa.registers import EAX, ESP
from x86virt.vmm import layout
from x86virt.vmm.paravirtual import interface, records
from x86virt.vmm.paravirtual import layout as places
from x86virt.vmm.paravirtual.exits import DONE, make_exits
from x86virt.vmm.paravirtual.loop import ARRIVE, LEAVE, SERVE, run_domains
from x86virt.vmm.witness_domains import ARGUMENTS, FRAME_AT, N_FRAMES, PAGE, Domains

FRAME = ("eip", "cs", "eflags", "esp", "ss")
IN_FRAME = {name for name, *_ in records.STATE_FIELDS}  # of a domain's record; the image has them on the VMM's stack
# Of the VMM's record: what means something beyond one exit.
LASTING = ("free_frames", "releasing", "current", "mapping_hint", "yields", "idle", "period", "in_multicall")
MOMENTS = ("deadline", "poll_deadline", "next_tick", "slice_end", "state_entry", "state_time")  # of system time
NEARLY = 50_000  # nanoseconds, or cycles: the two do not work at the same moment
TIME_RECORD = slice(interface.VCPU_TIME + interface.TIME_TSC_STAMP, interface.VCPU_TIME + interface.TIME_MULTIPLIER)
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

    def __init__(self, witness: Domains) -> None:
        ram = witness.processor.ram
        self.values: dict[str, object] = dict(zip(FRAME, witness.frame, strict=True))
        self.values |= {f"register {number}": int(witness.cpu.gpr[number]) for number in range(8) if number != ESP}
        self.values |= {name: np.asarray(witness.xen[name][0]).tolist() for name in LASTING}
        self.moments = {name: np.asarray(witness.xen[name][0]).ravel().tolist() for name in MOMENTS}
        self.values["console"] = witness.xen["console"][0].tolist()
        self.values["cr0"] = int(witness.cpu.cr0)
        for name, offset in STACKS.items():
            self.values[name] = int(ram[places.TSS + offset : places.TSS + offset + 4].view("<u4")[0])
        for index, domain in enumerate(witness.domains):
            for name in records.DOMAIN.names or ():
                if name not in IN_FRAME or index != self.values["current"]:
                    self.values[f"domain {index}: {name}"] = np.asarray(domain[name]).tolist()
            self.values.pop(f"domain {index}: gpr", None)
            if index != self.values["current"]:
                self.values[f"domain {index}: registers"] = [int(value) for value in np.delete(domain["gpr"], ESP)]
        self.regions = {name: ram[first : first + octets].copy() for name, (first, octets) in REGIONS.items()}
        for index in range(places.N_DOMAINS):
            stamps = self.regions["shared info"][PAGE * index :][TIME_RECORD]
            self.moments[f"time of {index}"] = stamps.copy().view("<u8").tolist()
            stamps[:] = 0

    def differences(self, other: "Left") -> list[str]:
        """Where the two differ."""
        rows = [
            f"{name}: {value} / {other.values[name]}"
            for name, value in self.values.items()
            if value != other.values[name]
        ]
        for name, moments in self.moments.items():
            if any(abs(mine - theirs) > NEARLY for mine, theirs in zip(moments, other.moments[name], strict=True)):
                rows.append(f"{name}: {moments} / {other.moments[name]}")
        for name, octets in self.regions.items():
            rows += [f"{name} at {place:#x}" for place in np.nonzero(octets != other.regions[name])[0][:4]]
        return rows


class Handlers:
    """The jitted handlers on the records of a witness machine: whole exits, from the entry of a vector to the way out."""

    def __init__(self, witness: Domains) -> None:
        self.witness, processor = witness, witness.processor
        arrays = (
            processor.state,
            processor.memory,
            processor.boards,
            processor.codes,
            processor.blocks,
            processor.uops,
        )
        processors = (*arrays, processor.details)
        exits = make_exits()
        exits[0].retired_limit = NEVER
        self.arguments = (*processors, exits, witness.xen, witness.domains, witness.frames, witness.channels)
        self.code = machine_code(run_processor, *processors, 0)

    def exit_at(self, vector: int) -> int:
        """Serve the exit that has just come to the entry of a vector; the outcome of the way out."""
        self.witness.cpu.rip = layout.VMM_BASE + layout.ENTRIES + vector * layout.ENTRY_BYTES
        outcome = DONE
        for part in (ARRIVE, SERVE, LEAVE):
            outcome = int(run_domains(*self.arguments, part, self.code))
        return outcome


class Pair:
    """A witness machine and the handlers on it."""

    def __init__(self, profile: str = "p4_prescott") -> None:
        self.witness = Domains(load_profile(profile))
        self.handlers = Handlers(self.witness)
        self.seen: Counter[str] = Counter()

    def call(self, name: str | int, *arguments: int) -> list[str]:
        """Serve a hypercall twice from the saved state; what differed."""
        number = interface.NUMBER_OF[name] if isinstance(name, str) else name
        registers = {EAX: number, **dict(zip(ARGUMENTS, arguments, strict=False))}
        return self.compare("pv_hypercall", interface.HYPERCALL_VECTOR, registers)

    def trap(self, label: str, vector: int, error: int | None = None) -> list[str]:
        """The same of an exit that the image takes at a label, behind error code and vector."""
        witness = self.witness
        pushed = np.array((vector, error or 0), "<u4").tobytes()
        witness.put(FRAME_AT - len(pushed), pushed)
        witness.save()
        stack = layout.VMM_BASE + FRAME_AT
        return self.compare(label, vector, {}, stack - 8, stack - (0 if error is None else 4))

    def compare(self, label: str, vector: int, registers: dict[int, int], mine: int = 0, theirs: int = 0) -> list[str]:
        """Run both, with these registers and stack pointers; what differed, unless the image has refused."""
        witness = self.witness
        stack = layout.VMM_BASE + FRAME_AT
        measured = witness.at(label, registers | {ESP: mine or stack})
        self.seen.update(["refused"] if measured.refused else [path for path, _ in measured.ticks])
        left = Left(witness)
        self.restore(registers | {ESP: theirs or stack})
        outcome = self.handlers.exit_at(vector)
        if measured.refused:
            return []
        rows = left.differences(Left(witness))
        return rows if outcome == DONE else [f"outcome {outcome}", *rows]

    def restore(self, registers: dict[int, int]) -> None:
        """Start again from the saved state, without translations."""
        flush_translations(self.witness.processor.state)
        self.witness.restore()
        for number, value in registers.items():
            self.witness.cpu.gpr[number] = value & 0xFFFFFFFF
