"""What a VMM of the software kind really holds behind the guest's view, as lines of text."""

from typing import TYPE_CHECKING

from ..isa.registers import SEGMENT_REGISTERS
from . import layout

if TYPE_CHECKING:
    from .vm import SoftwareVm


def software_lines(vm: "SoftwareVm") -> list[str]:
    """The processor as the VMM runs it, its shadows, and what it has open."""
    vm.crossings.take_frame()
    cpu, vcpu = vm.processor.cpu, vm.vcpu
    strategy = vm.machine.strategy
    return [
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
