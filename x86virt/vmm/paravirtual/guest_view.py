"""The guest as a debugger sees it: its registers, from the processor or from its domain's record, and what lies behind them."""

from typing import TYPE_CHECKING

from ...core.entries import all_eflags
from ...isa.registers import CS, DS, ES, FS, GENERAL_REGISTERS, GS, SEGMENT_REGISTERS, SS
from ..segment_operands import SegmentOperands
from ..state import SegmentState, processor_registers, segment_state

if TYPE_CHECKING:
    from .vm import ParavirtualVm

FRAMED = {CS: "cs", SS: "ss"}
KEPT = (ES, DS, FS, GS)  # in the order of a domain's `selectors`
GUEST = 1


class DomainSegments(SegmentOperands):
    """Segment registers of the domain that runs."""

    vm: "ParavirtualVm"

    def state(self, segment: int) -> SegmentState:
        """A segment register; of CS and SS the VMM has the selector alone, while it has control."""
        cache = self.vm.processor.cpu.seg[segment]
        state = segment_state(int(cache.selector), int(cache.seg_base), int(cache.limit), int(cache.access))
        if segment in FRAMED and self.vm.processor.cpu.cpl == 0:
            return SegmentState(int(self.vm.domain[FRAMED[segment]]), state.base, state.limit, state.access)
        return state


def virtual_registers(vm: "ParavirtualVm") -> tuple[dict[str, int], dict[str, SegmentState]]:
    """The guest's registers and segments: the processor's while it runs, else those of its record."""
    registers, segments = processor_registers(vm.processor)
    guest, is_current = vm.domains[GUEST], int(vm.xen.current) == GUEST
    if is_current and vm.processor.cpu.cpl != 0:
        return registers, segments
    registers |= {"eip": int(guest.eip), "eflags": int(guest.eflags), "cpl": int(guest.cs) & 3}
    if is_current:
        registers["esp"] = int(guest.esp)
        return registers, segments | {SEGMENT_REGISTERS[number]: vm.segments.state(number) for number in FRAMED}
    registers |= dict(zip(GENERAL_REGISTERS, map(int, guest.gpr), strict=True)) | {"esp": int(guest.esp)}
    registers["cr3"] = int(guest.base_frame) << 12
    selectors = {CS: int(guest.cs), SS: int(guest.ss)} | dict(zip(KEPT, map(int, guest.selectors), strict=True))
    for number, selector in selectors.items():
        held = segments[SEGMENT_REGISTERS[number]]
        segments[SEGMENT_REGISTERS[number]] = SegmentState(selector, held.base, held.limit, held.access)
    return registers, segments


def describe(vm: "ParavirtualVm") -> list[str]:
    """Processor and domains, as lines of text."""
    cpu = vm.processor.cpu
    where = "the VMM (ring 0)" if cpu.cpl == 0 else f"ring {int(cpu.cpl)}"
    lines = [
        f"strategy {vm.machine.strategy.name}: domain {int(vm.xen.current)} has the processor, now in {where}",
        f"processor: cr0 {int(cpu.cr0):08x}  cr3 {int(cpu.cr3):08x}  cr4 {int(cpu.cr4):08x}  "
        f"eflags {int(all_eflags(vm.processor.state)):08x}",
    ]
    for index, domain in enumerate(vm.domains):
        if domain.exists:
            lines.append(
                f"domain {index}: cs:eip {int(domain.cs):04x}:{int(domain.eip):08x}  ss:esp {int(domain.ss):04x}:"
                f"{int(domain.esp):08x}  base {int(domain.base_frame):05x}  {'PAE' if domain.is_pae else '2-level'}"
            )
    return lines
