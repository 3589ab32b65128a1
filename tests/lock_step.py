"""Our machine and QEMU side by side, one instruction at a time, over a guest image of the manifest.

python tests/lock_step.py divzero [--command-line iterations=3] [--from guest_main]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import capstone
from qemu_machine import REGISTERS, SteppedQemu

from x86virt import Machine, find_strategy, load_profile
from x86virt.core.entries import all_eflags
from x86virt.core.layout import OK
from x86virt.guests import find_guest, guests
from x86virt.isa.registers import CS, DS, EBX, ES, FS, GS, SS

GENERAL = REGISTERS[:8]
SEGMENTS = {"cs": CS, "ss": SS, "ds": DS, "es": ES, "fs": FS, "gs": GS}
EFLAGS_RF = 1 << 16
MEMORY_BYTES = 16 << 20
Registers = dict[str, int]


@dataclass(frozen=True)
class Compared:
    """Instructions compared, and the first divergence in words (empty: none)."""

    instructions: int
    report: str


def our_registers(machine: Machine) -> Registers:
    """The registers under gdb's names."""
    cpu = machine.processor.cpu
    found = {name: int(cpu.gpr[number]) & 0xFFFFFFFF for number, name in enumerate(GENERAL)}
    found |= {name: int(cpu.seg[number].selector) for name, number in SEGMENTS.items()}
    return found | {"eip": int(cpu.rip), "eflags": int(all_eflags(machine.processor.state))}


def comparable(values: Registers) -> Registers:
    """Without RF, which QEMU does not keep as the manual has it."""
    return values | {"eflags": values["eflags"] & ~EFLAGS_RF}


def step_ours(machine: Machine) -> None:
    """One instruction, or the delivery of its fault."""
    outcome = machine.processor.run(single=True)
    if outcome != OK:
        machine.act(outcome)


def step_qemu(qemu: SteppedQemu, before: Registers, is_string: bool) -> None:
    """One instruction; QEMU stops after each iteration of a repeated one."""
    while qemu.step() and is_string and qemu.registers()["eip"] == before["eip"]:
        pass


def lock_step(name: str, command_line: str, begin: str = "guest_main", limit: int = 1_000_000) -> Compared:
    """Run a guest on both from a symbol on, and compare after every instruction."""
    image = find_guest(name)
    machine = Machine(find_strategy("native")(), load_profile("p4_prescott"), MEMORY_BYTES)
    machine.load(image, command_line)
    symbols = image.symbols
    address = symbols[begin]
    while int(machine.processor.cpu.rip) != address:
        step_ours(machine)
    with (
        tempfile.TemporaryDirectory(prefix="x86virt-gdb-") as folder,
        SteppedQemu(guests()[name].path, Path(folder), command_line) as qemu,
    ):
        qemu.run_to(address)
        # What the loaders hand over lies at different addresses: from here on EBX is QEMU's on both.
        machine.processor.cpu.gpr[EBX] = qemu.registers()["ebx"]
        return compare_from_here(machine, qemu, symbols["machine_exit"], limit)


def compare_from_here(machine: Machine, qemu: SteppedQemu, end: int, limit: int) -> Compared:
    """Step both until they reach `end` or their registers differ."""
    ours = before = our_registers(machine)
    for number in range(limit):
        theirs = qemu.registers()
        if comparable(ours) != comparable(theirs):
            return Compared(number, divergence(machine, before, ours, theirs))
        if ours["eip"] == end:
            return Compared(number, "")
        before = ours
        step_ours(machine)
        step_qemu(qemu, before, machine.bytes_at(before["eip"], 1) in (b"\xf2", b"\xf3"))
        ours = our_registers(machine)
    return Compared(limit, f"{limit} instructions did not reach the end")


def divergence(machine: Machine, before: Registers, ours: Registers, theirs: Registers) -> str:
    """The instruction, the state before it, both states after."""
    octets = machine.bytes_at(before["eip"], 15)
    text = next(capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32).disasm(octets, before["eip"], 1), None)
    lines = [f"{before['eip']:08x}  {octets.hex()}  {text and f'{text.mnemonic} {text.op_str}'}"]
    lines += [
        f"  {name:7} before {before[name]:08x}  x86virt {ours[name]:08x}  QEMU {theirs[name]:08x}"
        + ("" if ours[name] == theirs[name] else "   <")
        for name in REGISTERS
    ]
    return "\n".join(lines)


def main() -> int:
    """Command line; status 1 after a divergence."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("guest", choices=sorted(guests()))
    parser.add_argument("--command-line", default="iterations=3")
    parser.add_argument("--from", dest="begin", default="guest_main")
    options = parser.parse_args()
    compared = lock_step(options.guest, options.command_line, options.begin)
    print(f"{compared.instructions} instructions compared")
    print(compared.report or "no divergence")
    return int(bool(compared.report))


if __name__ == "__main__":
    sys.exit(main())
