"""Running the witness image: what each path of a VMM costs on the simulated processor, and what it does there.

A real guest runs under trap-and-emulate until it exits; then the image takes the place of the Python handlers. It
starts where the gate of the VMM's IDT would lead, on the VMM's stack, in front of the frame that the trap pushed, and
goes on until it would return to the guest. Marks in the image say which path each tick belongs to (an inner path's
ticks are not counted in the outer one). The second run from the same state, with warm TLBs and windows, is the price.

`python -m x86virt.vmm.witness_run` writes the prices of the shipped profiles to `witness/prices.json`.
"""

import argparse
import contextlib
import hashlib
import json
import pathlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ..core import layout as core
from ..core.entries import device_advance, enter_level, flush_translations, refresh_segment
from ..isa.registers import DS, EAX, EBP, ECX, ESP, N_SEGMENTS, PTE_A, PTE_D, PTE_G, PTE_P, PTE_RW
from . import layout
from .exits import ERROR_CODE_VECTORS, GuestFault, Unsupported
from .vcpu import Frame
from .vm import SoftwareVm
from .witness_translation import publish_translation

if TYPE_CHECKING:
    from ..machine import Machine
    from ..processor import Processor
    from ..profile import Profile

FOLDER = pathlib.Path(__file__).resolve().parent / "witness"
IMAGE, MANIFEST, PRICES = FOLDER / "witness.bin", FOLDER / "manifest.json", FOLDER / "prices.json"
EVIDENCE = "witness"
REFUSED = "refused"
LIGHT_CALLOUT = 256  # beside the vectors: a callout that stays in ring 1
DIRECT = {257: "direct_port", 258: "direct_store"}  # and direct ones
DIRECT_CALLOUTS = dict(zip(layout.DIRECT_ENTRIES, DIRECT, strict=True))
SEGMENT_GONE = "segment gone"  # a guest segment register outlives its descriptor, and cannot be loaded again
MEMORY_BYTES = 8 << 20
BUDGET = 50_000_000  # cycles until every exit that is wanted has come
PAGE_FAULT = 14
WINDOW_FLAGS = PTE_P | PTE_RW | PTE_A | PTE_D | PTE_G
CPUID_SEP = 1 << 11
MAX_PAGES = 16  # guest pages that one path may find missing in the shadow

# What the architecture holds of a processor; the rest of its record (TLBs, caches, code, ledger) stays warm.
ARCHITECTURE = (
    "gpr", "rip", "eflags", "flag_result", "flag_carry", "cr0", "cr2", "cr3", "cr4", "seg", "sysenter_cs",
    "sysenter_esp", "sysenter_eip", "tsc_offset", "dr", "shadow", "halted", "retired", "retired_limit", "budget",
    "timer", "timer_pending", "mark", "probe_on", "fpu_value", "fpu_control", "fpu_status", "fpu_occupied",
    "fpu_instruction", "fpu_instruction_selector", "fpu_operand", "fpu_operand_selector", "fpu_opcode",
)  # fmt: skip

TRAPPED, TRANSLATED = "trap-and-emulate", "binary-translation"
ADAPTED = f"{TRANSLATED},shadow=trace,shadow_writes=1048576,adapt_after=1"
# Where the exits that are measured come from: strategy, guest, command line, the paths that it shows.
SCENES = (
    (
        TRAPPED,
        "syscall",
        "iterations=3",
        (
            "trap_dispatch", "emulate_far_transfer", "emulate_system_call", "emulate_msr", "emulate_segment",
            "emulate_descriptor_table", "descriptor_shadow", "reflect",
        ),
    ),
    (TRAPPED, "irq", "iterations=2", ("emulate_flags", "emulate_port", "emulate_halt", "device_request")),
    (TRAPPED, "ptemod", "iterations=3", ("emulate_invlpg", "shadow_fill")),
    (TRAPPED, "cr3switch", "iterations=3", ("emulate_control_register", "shadow_flush", "shadow_table")),
    (f"{TRANSLATED},direct_callouts=off", "portio", "iterations=5", ("light_dispatch", "enter_cache")),
    (TRANSLATED, "portio", "iterations=5", ("direct_port",)),
    (ADAPTED, "ptemod", "iterations=5", ("direct_store",)),
    (TRANSLATED, "divzero", "iterations=5", ("callout",)),
    (TRANSLATED, "pgfault", "iterations=5", ("recover",)),
)  # fmt: skip
# Behind these marks the image is left.
ENDINGS = ("trap_dispatch", "light_dispatch", "exit_dispatch", "leave_ring", "idle", *DIRECT.values(), REFUSED)
OCCURRENCE = 2  # of each, the second is measured: the first may find tables that nobody has used yet


class WitnessError(Exception):
    """The image did what it never should: one line that says what."""


class MissingPage(Exception):
    """A routine touched a guest page that the shadow does not map yet."""

    def __init__(self, gla: int, write: bool) -> None:
        super().__init__(f"{gla:#x}")
        self.gla, self.write = gla, write


@dataclass
class Measured:
    """One run of the image: ticks of each path in order of their ends; `ending` is the last mark's name."""

    ending: str = ""
    ticks: list[tuple[str, int]] = field(default_factory=list)

    @property
    def refused(self) -> bool:
        """Whether the image left the case to a slower path."""
        return self.ending == REFUSED

    def of(self, path: str) -> int | None:
        """Ticks of the first time that a path was gone, None if it was not."""
        return next((ticks for name, ticks in self.ticks if name == path), None)


@cache
def image() -> bytes:
    """The committed image."""
    return IMAGE.read_bytes()


@cache
def image_hash() -> str:
    """Its SHA-256."""
    return hashlib.sha256(image()).hexdigest()


@cache
def symbols() -> dict[str, int]:
    """Linear addresses of its labels. Raises WitnessError if manifest and image are not of one build."""
    manifest = json.loads(MANIFEST.read_text(encoding="utf-8"))
    if manifest["sha256"] != image_hash():
        raise WitnessError(f"{IMAGE.name} is not the image that {MANIFEST.name} describes; run make guests")
    return manifest["symbols"]


@cache
def ends() -> dict[int, str]:
    """Address behind each closing mark -> the path it ends."""
    rows = symbols().items()
    return {address: name.split("_", 2)[2] for name, address in rows if name.startswith("ended_")}


# -- the host's side of the VMM's state, laid down in its region ---------------------------------------------------------


def bits(numbers, count: int) -> np.ndarray:
    """A bit set of `count` bits as bytes, bit n of it in byte n // 8."""
    flags = np.zeros(count, np.uint8)
    flags[list(numbers)] = 1
    return np.packbits(flags, bitorder="little")


def publish(vm: "SoftwareVm") -> None:
    """Write into the region what the Python handlers keep in their own objects, for the image to work on."""
    vcpu, memory = vm.vcpu, vm.processor.ram
    descriptors = vm.descriptors
    vcpu.guest_frames = len(vm.p2m)
    vcpu.interrupt_shadow = int(vm.interrupts.held())
    vcpu.installed_count = len(descriptors.originals)
    vcpu.user_code_count = len(descriptors.user_code)
    vcpu.record["user_code"][:] = 0
    vcpu.record["user_code"][: len(descriptors.user_code)] = sorted(descriptors.user_code)
    vcpu.record["open_gates"][:] = bits(vm.entries.open_vectors, 256).view("<u4")
    vcpu.record["window_tags"][:] = 0
    vcpu.reverse_generation = 1
    traced = bits(vm.shadow.traced_frames(), -(-len(vm.p2m) // 8) * 8)
    memory[layout.TRACED : layout.TRACED + len(traced)] = traced
    reverse = np.zeros((layout.REVERSE_ENTRIES, 2), "<u4")
    reverse[0, 0] = 1  # not frame 0, which alone belongs there
    for frame, page in vm.shadow.writable_pages():
        reverse[frame % layout.REVERSE_ENTRIES] = frame, page << 12 | 1
    memory[layout.REVERSE : layout.REVERSE + reverse.nbytes] = reverse.view(np.uint8).ravel()
    control = vm.shadow.controls.view(np.uint8)
    memory[layout.SHADOW_CONTROL : layout.SHADOW_CONTROL + control.nbytes] = control
    device = device_record(vm)
    memory[layout.DEVICES : layout.DEVICES + device.nbytes] = device.view(np.uint8)
    publish_translation(vm)


def device_record(vm: "SoftwareVm") -> np.ndarray:
    """The virtual board as the image keeps it, one record."""
    pending = int(device_advance(vm.boards, vm.processor.cpu.ticks))
    board, device = vm.boards[0], np.zeros(1, layout.DEVICE)
    for number, name in enumerate(("master", "slave")):
        pic = board["pic"][number]
        for part in layout.PIC_STATE:
            device[name][part] = pic[part]
        unusual = (
            "level_triggered", "elcr", "auto_eoi", "special_fully_nested", "special_mask", "poll", "rotate_on_auto_eoi",
        )  # fmt: skip
        device[name]["unusual"] = int(any(pic[part] for part in unusual) or pic["lowest"] != 7)
    for part in layout.PIT_STATE:
        device["pit"][part] = board["pit"][part]
    for part in ("post_code", "unclaimed_reads", "unclaimed_writes"):
        device[part] = board[part]
    device["pending"] = pending
    return device


def stored_gla(vm: "SoftwareVm") -> int:
    """Where the store of a direct callout goes, in flat segments."""
    return int(vm.translator.record["operand_offset"]) + int(vm.processor.cpu.seg[DS].seg_base) & 0xFFFFFFFF


def open_windows(vm: "SoftwareVm", gla: int) -> None:
    """Open windows to a guest's page and to the tables that map it, as a slower path has done before."""
    vcpu = vm.vcpu
    place = (vcpu.cr3 & ~0xFFF) + 4 * (gla >> 22)
    with contextlib.suppress(GuestFault):
        frames = [place >> 12, vm.guest.read_gpa(place, 4) >> 12, vm.guest.walk(gla, True, False, mark=False).gpa >> 12]
        for frame in frames if vcpu.cr0 >> 31 else frames[2:]:
            window = frame % layout.N_WINDOWS
            vcpu.record["window_tags"][window] = frame + 1
            entry = int(vm.p2m[frame]) << 12 | WINDOW_FLAGS
            vm.write_region(layout.REGION_TABLE + (layout.WINDOWS >> 10) + 4 * window, entry.to_bytes(4, "little"))
    flush_translations(vm.processor.state)


# -- running ------------------------------------------------------------------------------------------------------------


class Image:
    """The image in the VMM's region of a processor's RAM: runs of it from one state."""

    def __init__(self, processor: "Processor") -> None:
        self.processor, self.cpu = processor, processor.cpu

    def save(self) -> None:
        """Remember the state from which every run starts."""
        self.ram = self.processor.ram.copy()
        self.architecture = {name: np.array(self.cpu[name], copy=True) for name in ARCHITECTURE}
        self.level = int(self.cpu.cpl)

    def restore(self) -> None:
        """Go back to that state; translations and decoded code stay as they are."""
        self.processor.ram[:] = self.ram
        for name, value in self.architecture.items():
            self.cpu[name] = value
        for segment in range(N_SEGMENTS):
            refresh_segment(self.processor.state, segment)
        enter_level(self.processor.state, self.level)

    def run_at(self, address: int) -> Measured:
        """One run from an address, in the present state. Raises MissingPage, WitnessError."""
        cpu = self.cpu
        cpu.rip = address
        cpu.retired_limit = cpu.budget = core.NEVER
        cpu.probe_on = 0
        cpu.mark = 0
        result = Measured()
        open_paths = [0]
        last = int(cpu.ticks)
        while True:
            outcome = self.processor.run()
            open_paths[-1] += int(cpu.ticks) - last
            last = int(cpu.ticks)
            if outcome != core.MARK:
                self.stopped(outcome)
                result.ending = SEGMENT_GONE
                return result
            if cpu.mark == 1:
                open_paths.append(0)
            else:
                result.ending = ends()[int(cpu.rip)]
                result.ticks.append((result.ending, open_paths.pop()))
                if result.ending in ENDINGS:
                    return result
            cpu.mark = 0

    def stopped(self, outcome: int) -> None:
        """The image stopped at no mark: returns if a segment register cannot be given back to the guest."""
        cpu = self.cpu
        vector = (int(cpu.rip) - layout.VMM_BASE) // layout.ENTRY_BYTES
        if outcome == core.HOOK and vector == PAGE_FAULT:
            error = int.from_bytes(self.processor.read_physical(int(cpu.gpr[ESP]) - layout.VMM_BASE, 4), "little")
            raise MissingPage(int(cpu.cr2), bool(error & 2))
        stack = int(cpu.gpr[ESP]) - layout.VMM_BASE
        pushed = self.processor.ram[stack : stack + 12].view("<u4").tolist()
        found = symbols()
        restoring = (
            range(found["restoring"], found["ended_1_trap_dispatch"]), range(found["light_restoring"], found["light_restored"]),
        )  # fmt: skip
        if outcome == core.HOOK and any(pushed[1] in addresses for addresses in restoring):
            return
        raise WitnessError(
            f"the witness image stopped with outcome {outcome}, vector {vector}, eip {int(cpu.rip):#x}, "
            f"error code or eip {pushed[0]:#x}, {pushed[1]:#x}"
        )


class Witness(Image):
    """The image in the region of one virtual machine whose guest has just exited."""

    def __init__(self, vm: "SoftwareVm") -> None:
        super().__init__(vm.processor)
        self.vm = vm
        vm.write_region(layout.WITNESS, image())
        self.entry = int(self.cpu.rip)
        self.publish()
        self.save()

    def publish(self) -> None:
        """Lay down the VMM's state. A routine in ring 1 cannot open windows (INVLPG): it finds those that it needs open."""
        publish(self.vm)
        if self.entry == layout.VMM_BASE + layout.STORE_ENTRY:
            open_windows(self.vm, stored_gla(self.vm))

    def stub(self) -> int:
        """Where the gate of this exit leads in the image."""
        offset = self.entry - layout.VMM_BASE - layout.ENTRIES
        if offset == layout.SYSENTER_ENTRY:
            return symbols()["sysenter_stub"]
        if offset == layout.CALLOUT_ENTRY:
            return symbols()["light_entry"]
        if offset in DIRECT_CALLOUTS:
            return symbols()[DIRECT[DIRECT_CALLOUTS[offset]]]
        return symbols()["stubs"] + offset // layout.ENTRY_BYTES * 16

    def run(self, address: int | None = None) -> Measured:
        """One run from the saved state, or from `address` with EAX items. Raises MissingPage, WitnessError."""
        return self.run_at(self.stub() if address is None else address)

    def effect(self) -> Measured:
        """A run from the saved state. Guest pages that it finds missing are mapped first, as the VMM's own page-fault
        handler would do; a page that the guest's tables refuse raises GuestFault, one that cannot be mapped (beyond
        RAM, or traced and to be written) is left to a slower path."""
        for _ in range(MAX_PAGES):
            self.restore()
            try:
                return self.run()
            except MissingPage as missing:
                self.restore()
                try:
                    self.map_page(missing)
                except Unsupported:
                    break
        return Measured(REFUSED)

    def map_page(self, missing: MissingPage) -> None:
        """Map a guest page that the image needs, and start from there."""
        vm = self.vm
        vm.shadow.map_page(missing.gla, missing.write)
        self.publish()
        self.save()

    def warm(self) -> Measured:
        """A run with what it touches in TLBs and windows."""
        self.effect()
        self.keep_windows()
        self.restore()
        return self.run()

    def keep_windows(self) -> None:
        """Start from the windows as the last run left them."""
        first = layout.VCPU_RECORD
        saved = self.ram[first : first + layout.VCPU.itemsize].view(layout.VCPU)[0]
        saved["window_tags"][:] = self.vm.vcpu.record["window_tags"]
        table = slice(layout.REGION_TABLE, layout.REGION_TABLE + 4096)
        self.ram[table] = self.processor.ram[table]

    def items(self, selectors: list[int]) -> int:
        """Ticks of shadowing that many descriptors, warm."""
        ticks = 0
        for _ in range(2):
            self.restore()
            self.vm.write_region(symbols()["items"] - layout.VMM_BASE, np.array(selectors, "<u4").tobytes())
            self.cpu.gpr[EAX], self.cpu.gpr[EBP] = len(selectors), 0
            ticks = self.run(symbols()["shadow_items_alone"]).of("descriptor_shadow") or 0
            self.keep_windows()
        return ticks


# -- prices -------------------------------------------------------------------------------------------------------------

Prices = dict[str, tuple[int, int]]  # path -> ticks of its base, ticks of each item


@dataclass
class Scene:
    """One exit, as the choice of what to measure sees it."""

    vm: "SoftwareVm"
    vector: int  # 255: SYSENTER
    error: int
    frame: Frame
    octets: bytes

    def begins(self, octets: bytes) -> bool:
        """Whether the trapped instruction begins like this; the exit is an instruction's fault."""
        return self.vector in (11, 13) and self.octets.startswith(octets)

    def group(self, opcode: int, extension: int) -> bool:
        """Whether it is 0F `opcode` with that ModRM.reg."""
        return self.begins(bytes([0x0F, opcode])) and self.octets[2] >> 3 & 7 == extension

    @property
    def paged(self) -> bool:
        """Whether the guest has paging on."""
        return self.vm.vcpu.cr0 >> 31 == 1

    @property
    def ecx(self) -> int:
        """The guest's ECX."""
        return int(self.vm.processor.cpu.gpr[ECX])

    @property
    def traced(self) -> bool:
        """Whether the guest's descriptors have been shadowed before."""
        return bool(self.vm.shadow.traced_frames())

    def to_user(self) -> bool:
        """Whether the guest's stack holds a frame of ring 3."""
        stack = self.vm.machine.bytes_at(self.frame.esp + 4, 2)
        return self.vm.vcpu.cpl == 0 and bool(stack) and stack[0] & 3 == 3

    def has_table(self) -> bool:
        """Whether there is a shadow table for the address that missed."""
        gla = int(self.vm.processor.cpu.cr2)
        return bool(self.vm.shadow.read_entry(self.vm.shadow.root + 4 * (gla >> 22)) & 1)

    def plain_fill(self) -> bool:
        """Whether a write misses in a shadow table that is there already."""
        return self.vector == PAGE_FAULT and self.paged and bool(self.error & 2) and self.has_table()


# The exit at which each path is measured: its commonest or middle case. A path may be an inner one of the exit's.
CHOICES: dict[str, Callable[[Scene], bool]] = {
    "trap_dispatch": lambda scene: scene.begins(b"\xcf") and scene.to_user(),
    "emulate_flags": lambda scene: scene.begins(b"\xfb"),
    "emulate_control_register": lambda scene: scene.group(0x22, 3) and scene.paged,
    "emulate_descriptor_table": lambda scene: scene.group(0x01, 3),
    "emulate_segment": lambda scene: scene.begins(b"\x8e"),
    "emulate_far_transfer": lambda scene: scene.begins(b"\xcf") and scene.to_user(),
    "emulate_port": lambda scene: scene.begins(b"\xe6\x21"),
    "emulate_msr": lambda scene: scene.begins(b"\x0f\x30") and scene.ecx == 0x175,
    "emulate_halt": lambda scene: scene.begins(b"\xf4"),
    "emulate_invlpg": lambda scene: scene.group(0x01, 7),
    "emulate_system_call": lambda scene: scene.vector == 255,
    "reflect": lambda scene: scene.vector == 0x80,
    "shadow_fill": Scene.plain_fill,
    "shadow_table": lambda scene: scene.vector == PAGE_FAULT and scene.paged and not scene.has_table(),
    "shadow_flush": lambda scene: scene.group(0x22, 3) and scene.paged,
    "descriptor_shadow": lambda scene: scene.begins(b"\x8e") and scene.traced,
    "device_request": lambda scene: scene.begins(b"\xe6\x21"),
    "light_dispatch": lambda scene: scene.vector == LIGHT_CALLOUT,
    "enter_cache": lambda scene: scene.vector == LIGHT_CALLOUT,
    "callout": lambda scene: scene.vector == layout.CALLOUT_VECTOR,
    "direct_port": lambda scene: DIRECT.get(scene.vector) == "direct_port",
    "direct_store": lambda scene: DIRECT.get(scene.vector) == "direct_store",
    "recover": lambda scene: scene.frame.cs & 0xFFF8 == layout.TRANSLATED_CODE_SELECTOR and scene.vector == PAGE_FAULT,
}


def scene_of(vm: "SoftwareVm") -> Scene:
    """The present exit; nothing is changed."""
    cpu, ram = vm.processor.cpu, vm.processor.ram
    offset = int(cpu.rip) - layout.VMM_BASE - layout.ENTRIES
    vector = LIGHT_CALLOUT if offset == layout.CALLOUT_ENTRY else DIRECT_CALLOUTS.get(offset, offset // layout.ENTRY_BYTES)
    stack = int(cpu.gpr[ESP]) - layout.VMM_BASE
    error = int(ram[stack : stack + 4].view("<u4")[0]) if vector in ERROR_CODE_VECTORS else 0
    frame = Frame.from_octets(vm.processor.read_physical(layout.STACK_TOP - 20, 20))
    return Scene(vm, vector, error, frame, vm.machine.bytes_at(frame.eip, 4).ljust(4, b"\0"))


def exits_of(machine: "Machine") -> Iterator[Scene]:
    """The exits of a guest one after the other; between them the Python handlers do the work."""
    cpu = machine.processor.cpu
    cpu.retired_limit = core.NEVER
    cpu.budget = BUDGET * 64
    assert isinstance(machine.vm, SoftwareVm)
    while machine.outcome is None:
        outcome = machine.processor.run()
        if outcome == core.HOOK:
            yield scene_of(machine.vm)
        machine.act(outcome)


def measure_scene(machine: "Machine", paths: tuple[str, ...], prices: Prices) -> None:
    """Measure some paths at the exits of one guest: each at its second occurrence, or the only one."""
    vm = machine.vm
    assert isinstance(vm, SoftwareVm)
    seen: Counter[str] = Counter()
    for scene in exits_of(machine):
        wanted = [path for path in paths if seen[path] < OCCURRENCE and CHOICES[path](scene)]
        if wanted and not vm.crossings.own_step:
            found = measure_exit(vm, wanted)
            prices.update(found)
            seen.update(found.keys())
        if all(seen[path] >= OCCURRENCE for path in paths):
            return


def measure_exit(vm: "SoftwareVm", wanted: list[str]) -> Prices:
    """Measure the present exit. A path that is gone twice costs twice: its base is 0."""
    witness = Witness(vm)
    prices: Prices = {}
    try:
        measured = witness.warm()
        if not measured.refused:
            prices = {path: (0, ticks) for path, ticks in measured.ticks if path in wanted}
        if "descriptor_shadow" in prices:
            prices["descriptor_shadow"] = measure_items(witness)
    except GuestFault:
        pass
    witness.restore()
    return prices


def measure_items(witness: Witness) -> tuple[int, int]:
    """Base and item of shadowing descriptors, from two of the guest's data or code segments that are not shadowed."""
    vm = witness.vm
    selectors = []
    for index in range(1, (vm.vcpu.gdtr_limit + 1) // 8):
        found = vm.descriptors.guest_descriptor(index * 8)
        if index * 8 not in vm.descriptors.originals and found and found[1].is_segment and found[1].is_present:
            selectors.append(index * 8)
    if len(selectors) < 2:
        raise WitnessError(f"the guest's GDT has {len(selectors)} descriptors that are not shadowed, not two")
    one, two = (witness.items(selectors[:count]) for count in (1, 2))
    return 2 * one - two, two - one


def measure(profile: "Profile") -> Prices:
    """Run the image under a profile: the prices of all paths. Raises WitnessError if a path cannot be measured."""
    from ..guests import find_guest
    from ..machine import Machine
    from .registry import find_strategy
    from .witness_hardware import measure_hardware
    from .witness_made import measure_made
    from .witness_paravirtual import measure_paravirtual
    from .witness_shadow import measure_shadow_cache

    prices: Prices = {}
    for strategy, guest, command_line, paths in SCENES:
        machine = Machine(find_strategy(strategy)(), profile, MEMORY_BYTES)
        assert machine.vm is not None
        machine.vm.prices.table = {}  # or it would ask for what is being measured
        machine.processor.cpu.cpuid_leaf1_edx |= CPUID_SEP  # the guests show SYSENTER whatever the profile offers
        machine.processor.cpu.sensitive_trap = 0  # the exits are those of x86; a path in ring 0 costs the same anyway
        machine.load(find_guest(guest), command_line)
        measure_scene(machine, paths, prices)
        missing = [path for path in paths if path not in prices]
        if missing:
            raise WitnessError(f"no exit of the guest {guest} shows {', '.join(missing)}")
    prices.update(measure_shadow_cache(profile))
    prices.update(measure_made(profile))
    prices.update(measure_hardware(profile))
    prices.update(measure_paravirtual(profile))
    return dict(sorted(prices.items()))


def table_text(profiles: "Iterable[Profile]") -> str:
    """The price file: prices by profile, keyed by the hashes of image and profile."""
    rows = {
        profile.name: {"digest": profile.digest(), "paths": {name: list(row) for name, row in measure(profile).items()}}
        for profile in profiles
    }
    table = {"schema_version": 1, "evidence": EVIDENCE, "image": image_hash(), "unit": "ticks", "profiles": rows}
    text = json.dumps(table, indent=1)
    return re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text) + "\n"


def main() -> int:
    """Command line: `--check` compares only; exit status 1 if the committed prices are not current."""
    from ..profile import load_profile, profile_names

    parser = argparse.ArgumentParser(description="Measure what the paths of the VMM cost under the shipped profiles.")
    parser.add_argument("--check", action="store_true", help="write nothing, tell whether the prices are current")
    arguments = parser.parse_args()
    text = table_text(load_profile(name) for name in profile_names())
    if arguments.check:
        return int(PRICES.read_text(encoding="utf-8") != text)
    PRICES.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
