"""The fuzzer over hostile guests: `python -m tests.fuzz_hostile --seed N --instructions 10000000` (`make fuzz`).

Each case is a machine in a random state: random bytes as code, or a kernel of random bytes and tables, or a shipped guest
whose bytes, tables or registers were damaged in mid-run; in rings 0 and 3, in any mode that the control bits give, with
random GDT, LDT, IDT, TSS and page tables of both formats, with other tasks to switch to, with and without devices at
work; on the bare machine and under trap-and-emulate. A case is short-lived or runs thousands of instructions; many run
until the seed's number of guest instructions is reached.

Every case must end in a named outcome, within its budget, with a balanced ledger, and with no access to a frame that is
not the guest's; and no call may take long in real time. A part of the cases runs again, cut into slices or single steps, or
with its decoded code thrown away, and must come to the same state, ticks and ledger. A case that does not prints
`--seed N --case M`, which runs it alone.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bare_machine import (
    CODE,
    CODE_FIRST,
    CODE_LAST,
    DATA,
    DIRECTORY,
    ESP,
    GDT,
    IDT,
    STACK,
    STACK_END,
    TABLE,
    TSS,
    BareMachine,
)
from descriptor_machine import descriptor, gate
from small_kernel import DATA as KERNEL_DATA
from small_kernel import DATA_0, GDT_BYTES, Kernel, Step
from small_kernel import RAM_BYTES as KERNEL_BYTES
from small_kernel import start as start_kernel

from x86virt.api import make_setup
from x86virt.core import layout
from x86virt.core.entries import all_eflags, device_write, enter_level, set_all_eflags
from x86virt.core.layout import NEVER
from x86virt.guests import find_guest
from x86virt.isa.events import EVENTS
from x86virt.isa.registers import CR0_PE, CR0_PG, CS, EFLAGS_FIXED, EFLAGS_VM
from x86virt.ledger import Ledger
from x86virt.machine import Machine
from x86virt.saved import machine_arrays, restore_machine_state

TICKS = 64
BARE_CYCLES = 200_000  # of one case of random code
GUEST_CYCLES = 200_000  # of one case of a damaged guest
VMM_CYCLES = 600_000
KERNEL_CYCLES = 300_000  # under the VMM or not
MOST_CALLS = 20_000
LONGEST_SECONDS = 120.0  # of one case, in processor time
HANGS_SECONDS = 600.0  # of one case that does not come back
ENDS = {layout.SHUTDOWN: "triple_fault", layout.BUDGET: "budget", layout.HALTED_FOREVER: "halted_forever"}
STEPS = {layout.MARK, layout.BOARD}
NAMED = re.compile(r"halted|exited \d+|triple_fault|budget|halted_forever|unsupported: .+")
GUESTS = ("irq", "clock", "syscall", "pgfault", "ptemod", "cr3switch", "divzero", "hello_pse", "stealth", "mix")
X87_STATE = [name for name in layout.CPU.names or () if name.startswith("fpu_") and name != "fpu_control"]
SEGMENT_FIELDS = ("selector", "seg_base", "limit", "access")
REACHED = ("sys.exc_", "sys.ext_interrupt", "sys.int_n", "sys.task_switch", "sys.far_call_gate", "ins.x87_", "walk.native")
COUNTED = [event.name for event in EVENTS if event.name.startswith(REACHED)]
# What makes hostile code go on for long, and meet the system: loops, segment loads, control registers, ports, returns.
PIECES = [
    bytes.fromhex(text)
    for text in (
        "cd80 cc ce cf cb ca0400 f4 fa fb 9d 9c 1e 1f 06 07 0fa0 0fa1 8ed8 8ec0 8ed0 8ee0 0f00d0 0f00d8 0f011d 0f0115 "
        "0f01f0 0f22c0 0f22d8 0f22e0 0f20c0 0f2200 0f0139 0f30 0f32 0f31 0fa2 e460 e640 ed ef e743 ee e8 e9 ebfe eb80 "
        "75f0 e2f0 74f8 ff20 ff30 8f00 c8 c9 60 61 f3a4 f3ab f2ae f3a6 f7f0 f6f1 0fc708 0fb008 0f34 0f35 0f23f8 0f21f0 "
        "ea 9a c500 c400 0fb200 62 63c0 27 d5 66 67 f0 2e 64 65 90 9090 40 01c8 8b00 8900 a1 a3 6c 6e 0f06 0f08 0f09 "
        "9b d9e8 dde0 0fae00 668cd8 0f02c1 0f03c1 0f00e0 c20400 c3 eaf0ff00f0 fc fd 0fab00 87db 6687db 6687c9 "
        "d8c1 dec9 d8f1 d9fa d9f2 d9f8 dbe3 dd30 dd20 d930 df28 df20 df30 d9fe dbf1 dac1 0fae08 ddd8 d9ff d9f0 "
        "ea000000003000 9a000000003000 ea000000003800 9a000000003800 9a000000004000 9a000000005000 9a000000005b00 cd30 cd31 "
        "ea0000000058004000 0f20e0 0f22c0 0f0b 0fff 66ea00003000 cf 66cf 0f01f8"
    ).split()
]
# What works on the tables as they are laid (lay_tasks): tasks, gates, x87 arithmetic, a return to virtual-8086 mode.
SOUND = [
    bytes.fromhex(text)
    for text in (
        "ea000000003000", "9a000000003000", "ea000000003800", "9a000000003800", "9a000000004000", "cd30", "cd31", "cf", "dbe3",
        "9a000000005000", "9a000000005b00", "d9e8", "d9eb", "dec1", "d8f1", "d9fa", "d9f2", "dd3500000200", "dd2500000200",
        "dd1d00000200", "df3500000200", "d92d00000200", "0fae0500000200", "0fae0d00000200", "dff1", "9b", "b848000000 0f00d0",
        "0f20e0 0c20 0f22e0", "0f20c0 0f22c0", "0f20d8 0f22d8", "b801000000 0f23f8", "b828000000 0f00d8", "0fc70d00000200",
        "6a00 6a00 6a00 6a00 6800200000 6800300000 6802000200 6800100000 6a00 cf", "9c 800c2401 9d", "9c 804c240140 9d cf",
        "68ff7f0000 9d", "f3ab", "f36c", "66f3a7", "0f30", "0f32", "f4",
    )
]  # fmt: skip


@dataclass
class Tally:
    """What a seed came to."""

    instructions: int = 0
    cases: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """As it is printed."""
        events = ", ".join(f"{name} {count}" for name, count in self.events.most_common())
        return [
            f"{self.cases} cases, {self.instructions} guest instructions",
            "outcomes: " + ", ".join(f"{name} {count}" for name, count in self.outcomes.most_common()),
            "kinds of cases: " + ", ".join(f"{name} {count}" for name, count in self.kinds.most_common()),
            f"events: {events}",
        ]


class Fuzzer:
    """The machines, made once, and the cases."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.tally = Tally()
        self.bare = BareMachine()
        self.guests: dict[tuple[str, str, int], tuple[Machine, dict[str, np.ndarray]]] = {}
        # The code that every case runs is compiled before any case is timed.
        for strategy in ("native", "trap-and-emulate"):
            self.prepared("hello_pse", strategy, 1)

    def case(self, number: int) -> None:
        """Run one case."""
        chance = np.random.default_rng([self.seed, number])
        began = time.process_time()
        kind = chance.random()
        if kind < 0.4:
            self.random_code(chance)
        elif kind < 0.5:
            self.random_code_in_slices(chance, number)
        elif kind < 0.65:
            self.random_kernel(chance, "trap-and-emulate" if kind > 0.53 else "native")
        else:
            self.damaged_guest(chance, "trap-and-emulate" if kind > 0.85 else "native")
        self.tally.cases += 1
        assert time.process_time() - began < LONGEST_SECONDS, "a case takes too long"

    # -- random code on the bare machine --------------------------------------------------------------------------

    def random_code(self, chance: np.random.Generator) -> None:
        """Random bytes or random pieces as code, with random tables, in any ring and mode."""
        self.lay_random_code(chance)
        self.drive(self.bare, BARE_CYCLES)

    def random_code_in_slices(self, chance: np.random.Generator, number: int) -> None:
        """The same random code in one piece and in another way."""
        way = str(chance.choice(["slices", "steps", "discarded"]))
        cycles = BARE_CYCLES // 20 if way == "steps" else BARE_CYCLES
        states = []
        for how in ("", way):
            self.lay_random_code(np.random.default_rng([self.seed, number, 1]))
            outcome = self.drive(self.bare, cycles, how, chance)
            states.append({"outcome": outcome} | state_of(self.bare))
        differing = [f"{name}: {value} {states[1][name]}" for name, value in states[0].items() if value != states[1][name]]
        assert not differing, f"another end in {way}: " + "; ".join(differing)
        self.tally.kinds[f"again in {way}"] += 1

    def lay_random_code(self, chance: np.random.Generator) -> None:
        """The machine's state before a case of random code."""
        machine = self.bare
        machine.power_on()
        for name in X87_STATE:
            machine.cpu[name] = np.zeros_like(machine.cpu[name])
        cpu, memory = machine.cpu, machine.memory
        ring = int(chance.choice([0, 0, 3]))
        if chance.random() < 0.5:
            machine.paging()
        machine.ring(ring)
        cpu.hook_first, cpu.hook_last = 1, 0
        octets = code_bytes(chance, CODE_LAST + 1 - CODE_FIRST)
        memory[CODE_FIRST : CODE_LAST + 1] = np.frombuffer(octets, np.uint8)
        starts = [CODE, CODE, CODE_FIRST, DATA, 0xFFFFFFF0, 0xFFFFE, 0x4000]
        if chance.random() < 0.6:
            starts = [CODE]
            sound = b"".join(SOUND[int(number)] for number in chance.integers(0, len(SOUND), int(chance.integers(1, 12))))
            memory[CODE : CODE + len(sound)] = np.frombuffer(sound, np.uint8)
        memory[0x4000:0x5000] = np.frombuffer(code_bytes(chance, 0x1000), np.uint8)  # the handlers
        memory[DATA:STACK_END] = chance.integers(0, 256, STACK_END - DATA)
        lay_tasks(machine)
        if chance.random() < 0.3:
            lay_pae_tables(machine)
            cpu.cr4 = CR4_PAE
        tables = ((GDT, 0x80), (IDT, 0x200), (TSS, 0x68), (TASKS, 0x200), (DIRECTORY, 0x1000), (TABLE, 0x400))
        for first, length in (*tables, (PAE_TABLES, 0x3000)):
            if chance.random() < 0.3:
                damage(chance, memory, first, first + length, int(chance.integers(1, 24)))
        machine.gpr[:8] = chance.choice([0, 8, 0xFFFFFFFF, CODE, DATA, STACK, GDT, IDT, TABLE, 0x1B, 0x10, 1 << 31], 8)
        machine.gpr[ESP] = STACK + 0x1000
        if chance.random() < 0.6:
            randomise_control(chance, machine.processor)
        cpu.rip = int(chance.choice(starts))
        mode = str(chance.choice(MODES, p=MODE_SHARES))
        enter_mode(mode, machine.processor)
        self.tally.kinds[f"bare {mode}{' PAE' * bool(int(cpu.cr4) & CR4_PAE)}"] += 1
        if chance.random() < 0.3:
            start_timer(machine.processor)

    def drive(self, machine: BareMachine, cycles: int, how: str = "", chance: np.random.Generator | None = None) -> int:
        """Run to an end, in one piece or as `how` says; marks and devices are served on the way."""
        processor = machine.processor
        cpu, board = processor.cpu, processor.board
        end = cycles * TICKS
        cpu.budget, cpu.retired_limit = end, NEVER
        for _ in range(MOST_CALLS + cycles):
            if how and chance is not None:
                cpu.budget = min(end, int(cpu.ticks) + int(chance.integers(1, 1 << 14)) * TICKS // 4)
                cpu.flush_code = int(how == "discarded")
            outcome = processor.run(how == "steps")
            if outcome in ENDS and (outcome != layout.BUDGET or cpu.ticks >= end):
                break
            assert outcome in STEPS | {layout.BUDGET, layout.OK}, f"outcome {outcome}"
            cpu.mark = board.attention = board.console_length = board.exit_requested = board.shutdown_requested = 0
        else:
            raise AssertionError("the run does not end")
        processor.settle()
        ledger = processor.ledger()
        assert ledger.total_ticks() == cpu.ticks, "the ledger does not balance"
        ledger.check_fixed_prices(cpu.price)
        assert (ledger.count >= 0).all()
        self.count(ENDS[outcome], int(cpu.retired), ledger)
        return outcome

    # -- random kernels ---------------------------------------------------------------------------------------------

    def random_kernel(self, chance: np.random.Generator, strategy: str) -> None:
        """A small kernel whose steps, in both rings, are random code, with random descriptors, gates and pages."""
        steps = [Step(code_bytes(chance, 0x800), int(chance.choice([0, 0, 3]))) for _ in range(4)]
        kernel = Kernel(steps, bool(chance.random() < 0.8), bool(chance.random() < 0.5))
        for selector in range(0x30, GDT_BYTES, 8):
            if chance.random() < 0.3:
                kernel.descriptors[selector] = random_entry(chance)
        for vector in range(0x40):
            if chance.random() < 0.1:
                kernel.gates[vector] = random_entry(chance)
        for page in range(KERNEL_DATA, KERNEL_BYTES, 0x1000):
            if chance.random() < 0.2:
                kernel.pages[page] = int(chance.choice([0, page | 5, page | 3, page | 7, int(chance.integers(0, 1 << 32))]))
        machine = start_kernel(kernel, strategy)
        if machine.vm is not None:
            machine.check_isolation()
        self.tally.kinds[f"kernel {strategy}"] += 1
        self.finish(machine, KERNEL_CYCLES)

    # -- damaged guests ---------------------------------------------------------------------------------------------

    def prepared(self, guest: str, strategy: str, part: int) -> tuple[Machine, dict[str, np.ndarray]]:
        """A machine of a guest, some way into its run, and its whole state."""
        key = guest, strategy, part
        if key not in self.guests:
            machine = make_setup(strategy, memory_bytes=8 << 20).machine()
            machine.load(find_guest(guest), "iterations=50")
            machine.advance((0, 3000, 12_000, 30_000)[part])
            self.guests[key] = machine, {name: array.copy() for name, array in machine_arrays(machine)}
        return self.guests[key]

    def damaged_guest(self, chance: np.random.Generator, strategy: str) -> None:
        """A shipped guest goes on from some place with damage in its memory and registers."""
        guest = GUESTS[int(chance.integers(len(GUESTS)))]
        part = int(chance.integers(4))
        if strategy == "native":
            machine, state = self.prepared(guest, strategy, part)
            restore_machine_state(machine, state)
        else:
            machine = make_setup(strategy, memory_bytes=8 << 20, check_isolation=True).machine()
            machine.load(find_guest(guest), "iterations=50")
            machine.advance((0, 3000, 12_000, 30_000)[part])
        self.tally.kinds[f"guest {strategy}"] += 1
        places = guest_places(guest)
        for name, first, last in places:
            if chance.random() < (0.5 if name == "code" else 0.25):
                self.damage_guest(chance, machine, first, last)
        cpu = machine.processor.cpu
        if machine.vm is None:
            if chance.random() < 0.3:
                randomise_control(chance, machine.processor)
            if chance.random() < 0.3:
                cpu.gpr[int(chance.integers(8))] = int(chance.integers(0, 1 << 32))
        self.finish(machine, VMM_CYCLES if machine.vm is not None else GUEST_CYCLES)

    def finish(self, machine: Machine, cycles: int) -> None:
        """Run a machine for so many cycles more, to an end that has a name."""
        cpu = machine.processor.cpu
        before, ledger = int(cpu.retired), machine.ledger()
        result = machine.run(cycles + int(cpu.ticks) // TICKS)  # checks conservation
        assert NAMED.fullmatch(result.outcome), result.outcome
        result.ledger.check_fixed_prices(cpu.price) if machine.vm is None else None
        name = result.outcome.split(":")[0].split(" ")[0]
        self.count(name, int(cpu.retired) - before, result.ledger - ledger)

    def damage_guest(self, chance: np.random.Generator, machine: Machine, first: int, last: int) -> None:
        """Random bytes, or pieces of code, at a few guest-physical addresses."""
        for _ in range(int(chance.integers(1, 8))):
            octets = PIECES[int(chance.integers(len(PIECES)))] if chance.random() < 0.5 else chance.bytes(4)
            machine.write_guest(int(chance.integers(first, last)), octets)

    def count(self, outcome: str, instructions: int, ledger: Ledger) -> None:
        """Book a case."""
        self.tally.outcomes[outcome] += 1
        self.tally.instructions += instructions
        for name in COUNTED:
            count = ledger.event_count(name)
            if count:
                self.tally.events[name] += count


def guest_places(guest: str) -> list[tuple[str, int, int]]:
    """Where a guest's code and tables are, by its symbols."""
    symbols = find_guest(guest).symbols
    rows = [("code", 0x100000, symbols["user_start"]), ("user", symbols["user_start"], symbols["user_end"])]
    tables = (("gdt", 64), ("idt", 512), ("tss", 104), ("page_directory", 64), ("page_table_0", 4096))
    return rows + [(name, symbols[name], symbols[name] + length) for name, length in tables]


def code_bytes(chance: np.random.Generator, length: int) -> bytes:
    """Hostile code: random bytes, pieces that meet the system, or a long stretch of harmless code with some of both."""
    style = chance.random()
    if style < 0.2:
        return chance.bytes(length)
    numbers = chance.integers(0, len(PIECES), length // 2)
    pieces = [PIECES[number] for number in numbers]
    if style < 0.6:
        # Mostly arithmetic, moves and short loops: cases that last.
        calm = (b"\x01\xc8", b"\x40", b"\x8b\x05" + (DATA + 4).to_bytes(4, "little"), b"\x90", b"\x31\xd2", b"\x75\x01",
                b"\x89\x1d" + (DATA + 64).to_bytes(4, "little"), b"\xeb\x00", b"\x29\xc3", b"\x0f\xaf\xc1")  # fmt: skip
        wild = chance.random(len(pieces)) < 0.03
        which = chance.integers(0, len(calm), len(pieces))
        pieces = [piece if hit else calm[number] for piece, hit, number in zip(pieces, wild, which, strict=True)]
    octets = b"".join(pieces)[: length - 5]
    back = -(len(octets) + 5) & 0xFFFFFFFF
    return (octets + b"\xe9" + back.to_bytes(4, "little")).ljust(length, b"\xf4")


def damage(chance: np.random.Generator, memory: np.ndarray, first: int, last: int, number: int) -> None:
    """A few random bytes in a table."""
    places = chance.integers(first, last, number)
    memory[places] = chance.choice([0, 0xFF, 0x80, 0x07, 0xE7, 0x67, 0x8E, 0x9B, 0x93, int(chance.integers(256))], number)


def randomise_control(chance: np.random.Generator, processor) -> None:
    """Random flags, control registers and tables' places, as privileged code could have set them."""
    cpu = processor.cpu
    flags = int(chance.integers(0, 1 << 22)) & 0x00257FD5 if chance.random() < 0.5 else 0
    set_all_eflags(processor.state, flags & ~0x20000 | EFLAGS_FIXED)
    if chance.random() < 0.3:
        cpu.cr3 = int(chance.choice([0, 0xFFFFF000, 0x100000, DIRECTORY, int(chance.integers(0, 1 << 32))]))
    if chance.random() < 0.2:
        cpu.cr4 = int(chance.choice([0, 4, 8, 0x10, 0x90, 0x80, 1, 2, 3, 0x20, 0x2B, 0xB9]))
    if chance.random() < 0.1:
        cpu.dr[:4] = chance.choice([CODE, CODE + 16, DATA, STACK, GDT, 0x60], 4)
        cpu.dr[7] = int(chance.integers(0, 1 << 32)) & 0xFFFF2BFF | 0x400
    if chance.random() < 0.1:
        cpu.cr0 = int(cpu.cr0) ^ int(chance.choice([1 << 16, 1 << 31, 1 << 18, 1 << 3, 1 << 2]))
    for name in ("gdtr_base", "idtr_base"):
        if chance.random() < 0.1:
            cpu[name] = int(chance.choice([0, 0xFFFFFFF0, 0x7FFFFFF0, 0xFEE00000, int(chance.integers(0, 1 << 32))]))
    for name in ("gdtr_limit", "idtr_limit"):
        if chance.random() < 0.1:
            cpu[name] = int(chance.choice([0, 7, 0xFFFF, 0x17]))
    if chance.random() < 0.1:
        processor.set_segment(7, 0x28, int(chance.integers(0, 1 << 32)), int(chance.choice([0, 0x2B, 0x67, 0xFFFF])),
                              int(chance.choice([0x8B, 0x83])))  # fmt: skip
    processor.discard_host_state()
    processor.empty_tlbs()
    enter_level(processor.state, int(cpu.cpl))


TASKS, PAE_TABLES, CR4_PAE = 0x5000, 0x42000, 0x20


def state_of(machine: BareMachine) -> dict[str, object]:
    """What the guest and the ledger came to."""
    processor, cpu = machine.processor, machine.cpu
    names = ("ticks", "retired", "rip", "cpl", "cr0", "cr2", "cr3", "cr4", "halted", "shadow", "event_vector", "event_error")
    state: dict[str, object] = {name: int(cpu[name]) for name in names}
    state |= {"eflags": int(all_eflags(processor.state)), "registers": cpu.gpr[:8].tolist(), "dr": cpu.dr.tolist()}
    state["segments"] = [tuple(int(cpu.seg[number][name]) for name in SEGMENT_FIELDS) for number in range(8)]
    state |= {"x87": cpu["fpu_value"].tobytes(), "memory": zlib.crc32(processor.ram.tobytes())}
    ledger = processor.ledger()
    state |= {"counts": ledger.count.tolist(), "ledger": ledger.ticks.tolist()}
    return state


def lay_tasks(machine: BareMachine) -> None:
    """Tasks of both formats (30 and 38), a task gate (40), an LDT (48), call gates (50, 58), and gates of the IDT."""
    wide, narrow, local = TASKS, TASKS + 0x80, TASKS + 0x100
    entries = (
        descriptor(wide, 0x67, 9, s=0, db=0), descriptor(narrow, 0x2B, 1, s=0, db=0), gate(0x30, 0, 5, dpl=3),
        descriptor(local, 0x3F, 2, s=0, db=0), gate(0x08, CODE, 12, dpl=3), gate(0x08, CODE & 0xFFFF, 4, dpl=3),
    )  # fmt: skip
    for number, value in enumerate(entries):
        machine.put(GDT + 0x30 + 8 * number, value, 8)
    for offset, value in ((4, STACK_END), (8, 0x10), (0x20, CODE), (0x24, 2), (0x38, STACK_END), (0x1C, DIRECTORY), (0x60, 0x48)):
        machine.put(wide + offset, value)
    for offset, value in ((2, 0x7000), (4, 0x10), (14, 0x4000), (16, 2), (26, 0x7000), (42, 0x48)):
        machine.put(narrow + offset, value, 2)
    for number in range(6):
        machine.put(wide + 0x48 + 4 * number, 0x08 if number == 1 else 0x10)
        if number < 4:
            machine.put(narrow + 34 + 2 * number, 0x08 if number == 1 else 0x10, 2)
    for vector, value in ((0x30, gate(0x30, 0, 5, dpl=3)), (0x31, gate(0x38, 0, 5, dpl=3)), (0x20, gate(0x08, 0x4100, 14))):
        machine.put(IDT + 8 * vector, value, 8)
    machine.cpu.idtr_limit = 0x40 * 8 - 1


def lay_pae_tables(machine: BareMachine) -> None:
    """Identity page tables of the other format, where the directory was and behind it."""
    machine.put(DIRECTORY, PAE_TABLES | 1, 8)
    for number in range(1, 4):
        machine.put(DIRECTORY + 8 * number, 0, 8)
    machine.put(PAE_TABLES, (PAE_TABLES + 0x1000) | 7, 8)
    machine.put(PAE_TABLES + 8, 0x87, 8)
    for page in range(512):
        machine.put(PAE_TABLES + 0x1000 + 8 * page, page << 12 | 7, 8)


def random_entry(chance: np.random.Generator) -> int:
    """An entry of the GDT or IDT: of any type, where something is or nowhere."""
    base = int(chance.choice([0, KERNEL_DATA, 0x3000, 0xFFFFF000, 0xFEE00000, int(chance.integers(0, 1 << 32))]))
    kind, dpl = int(chance.integers(16)), int(chance.integers(4))
    if chance.random() < 0.5:
        return gate(int(chance.choice([0x08, DATA_0, 0x28, 0x30, 0x58])), base, kind, dpl=dpl, present=int(chance.integers(2)))
    s, granular = int(chance.integers(2)), int(chance.integers(2))
    return descriptor(base, int(chance.choice([0, 0x67, 0xFFFFF])), kind, s=s, dpl=dpl, granular=granular)


MODES = ("flat", "16-bit", "real", "virtual-8086")
MODE_SHARES = (0.7, 0.1, 0.1, 0.1)


def enter_mode(mode: str, processor) -> None:
    """Another mode than flat 32-bit segments: the code goes on at the same linear address where its IP reaches it."""
    cpu = processor.cpu
    if mode == "16-bit":
        cpu.seg[CS].access = int(cpu.seg[CS].access) & ~0x4000
    elif mode == "real":
        cpu.cr0 = int(cpu.cr0) & ~(CR0_PE | CR0_PG)
    elif mode == "virtual-8086":
        set_all_eflags(processor.state, int(all_eflags(processor.state)) | EFLAGS_VM)
    if mode in ("real", "virtual-8086"):
        for segment in range(6):
            access = 0x93 if mode == "real" else 0xF3
            processor.set_segment(segment, CODE_FIRST >> 4 if segment == CS else DATA >> 4,
                                  CODE_FIRST if segment == CS else DATA, 0xFFFF, access)  # fmt: skip
        cpu.rip = int(cpu.rip) & 0xFFFF
    processor.discard_host_state()
    enter_level(processor.state, 3 if mode == "virtual-8086" else 0 if mode == "real" else int(cpu.cpl))


def start_timer(processor) -> None:
    """The PICs initialized and open, the timer fast: interrupts come."""
    for port, value in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0), (0x43, 0x34), (0x40, 9), (0x40, 0)):
        device_write(processor.boards, port, 1, value, 0)


class Watchdog:
    """Ends the process, with the case's name, when a case does not come back (compiled code releases the interpreter)."""

    def __init__(self) -> None:
        self.what, self.began = "", time.monotonic()
        threading.Thread(target=self.watch, daemon=True).start()

    def begin(self, what: str) -> None:
        """A case begins."""
        self.what, self.began = what, time.monotonic()

    def watch(self) -> None:
        """Look every second."""
        while time.monotonic() - self.began < HANGS_SECONDS:
            time.sleep(1)
        print(f"HANGS: {self.what}", file=sys.stderr, flush=True)
        os._exit(2)


def run_seed(seed: int, instructions: int, first_case: int = 0, only: bool = False, watchdog: Watchdog | None = None) -> Tally:
    """Cases until so many instructions have run, or one case alone; a failure names its reproduction."""
    fuzzer = Fuzzer(seed)
    number = first_case
    while True:
        how = f"python -m tests.fuzz_hostile --seed {seed} --case {number}"
        if watchdog is not None:
            watchdog.begin(how)
        try:
            fuzzer.case(number)
        except BaseException:
            print(f"FAILED: {how}", file=sys.stderr)
            raise
        number += 1
        if only or fuzzer.tally.instructions >= instructions:
            return fuzzer.tally


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds, from --seed on")
    parser.add_argument("--instructions", type=int, default=10_000_000)
    parser.add_argument("--case", type=int, help="this case alone")
    arguments = parser.parse_args()
    watchdog = Watchdog()
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        began = time.monotonic()
        tally = run_seed(seed, arguments.instructions, arguments.case or 0, arguments.case is not None, watchdog)
        print(f"seed {seed}: {time.monotonic() - began:.0f} s")
        for line in tally.lines():
            print(f"  {line}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
