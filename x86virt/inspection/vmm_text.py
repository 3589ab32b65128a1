"""What a VMM really holds behind the guest's view, as lines of text."""

from typing import TYPE_CHECKING

from ..isa.registers import SEGMENT_REGISTERS
from ..vmm import layout

if TYPE_CHECKING:
    from ..machine import Machine

MOST_EXITS = 20


def vmm_lines(machine: "Machine") -> list[str]:
    """The processor as the VMM runs it, its shadows, what it has open, and its exits so far."""
    vm = machine.vm
    if vm is None:
        return ["no VMM: the guest has the bare machine"]
    vm.crossings.take_frame()
    cpu, vcpu = machine.processor.cpu, vm.vcpu
    strategy = machine.strategy
    rows = [
        f"strategy {strategy.name}: the guest's kernel runs in ring {vm.ring}, its processor's virtual CPL is {vcpu.cpl}",
        f"now in {'the VMM (ring 0), about to resume the guest' if cpu.cpl == 0 else f'the guest, ring {int(cpu.cpl)}'}",
        f"processor: cr0 {int(cpu.cr0):08x}  cr3 {int(cpu.cr3):08x} (shadow)  cr4 {int(cpu.cr4):08x}",
        f"guest:     cr0 {vcpu.cr0:08x}  cr3 {vcpu.cr3:08x}           cr4 {vcpu.cr4:08x}",
        f"processor: gdtr {int(cpu.gdtr_base):08x}  idtr {int(cpu.idtr_base):08x}   "
        f"guest: gdtr {vcpu.gdtr_base:08x}  idtr {vcpu.idtr_base:08x}",
        "processor's selectors: "
        + "  ".join(f"{name} {int(cpu.seg[n].selector):04x}" for n, name in enumerate(SEGMENT_REGISTERS)),
        f"frame: cs:eip {vcpu.frame.cs:04x}:{vcpu.frame.eip:08x}  eflags {vcpu.frame.eflags:08x}  "
        f"ss:esp {vcpu.frame.ss:04x}:{vcpu.frame.esp:08x}",
        f"virtual IF {vcpu.interrupt_flag}, IOPL {vcpu.iopl}, halted {vcpu.halted}, own step {int(vm.crossings.own_step)}",
        f"shadow page tables: {vcpu.shadow_next} of {layout.SHADOW_PAGES} pages, "
        f"{vm.shadow.mapped_writable()} pages mapped writable",
        f"shadowed descriptors: {' '.join(f'{key:04x}' for key in sorted(vm.descriptors.originals)) or 'none'}",
        f"traced guest frames: {' '.join(f'{frame:05x}' for frame in vm.shadow.traced_frames()) or 'none'}",
        f"gates open to ring 3: {' '.join(f'{vector:02x}' for vector in sorted(vm.entries.open_vectors)) or 'none'}",
    ]
    rows.append(f"{'exits':<28}{'count':>12}{'cycles':>18}")
    exits = sorted(vm.exits.items(), key=lambda row: -row[1][1])
    for reason, (count, ticks) in exits[:MOST_EXITS]:
        rows.append(f"  {reason:<26}{count:>12,}{ticks / 64:>18,.2f}")
    return rows
