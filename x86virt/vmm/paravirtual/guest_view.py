"""The guest as a debugger sees it: its registers, from the processor or from its domain's record, and what lies behind them."""

from typing import TYPE_CHECKING

from ...core.entries import all_eflags, set_all_eflags
from ...isa.registers import (
    CS,
    DS,
    EFLAGS_LOADABLE,
    EFLAGS_RF,
    ES,
    FS,
    GENERAL_REGISTERS,
    GS,
    SEGMENT_REGISTERS,
    SS,
)
from ..layout import STACK_TOP
from ..segment_operands import SegmentOperands
from ..state import SegmentState, processor_registers, segment_state
from .interface import VCPU_CR2

if TYPE_CHECKING:
    from .vm import ParavirtualVm

FRAMED = {CS: "cs", SS: "ss"}
KEPT = (ES, DS, FS, GS)  # in the order of a domain's `selectors`
GUEST = 1
FRAME_BYTES = 20
GUESTS_FLAGS = EFLAGS_LOADABLE | EFLAGS_RF  # not IF and IOPL, which are the VMM's


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
    registers["cr2"] = int.from_bytes(vm.processor.read_physical(int(guest.vcpu_info) + VCPU_CR2, 4), "little")
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


def write_register(vm: "ParavirtualVm", name: str, value: int) -> bool:
    """Write a general register, EIP, EFLAGS or the CR2 that the guest finds; False for any other.

    They are the processor's while the guest runs. While the VMM has control the frame is the record's, and the IRETD that
    returns to the guest is renewed; while another domain runs all are.
    """
    cpu, guest = vm.processor.cpu, vm.domains[GUEST]
    is_current = int(vm.xen.current) == GUEST
    is_running = is_current and cpu.cpl != 0
    if name == "cr2":
        vm.processor.write_physical(int(guest.vcpu_info) + VCPU_CR2, value.to_bytes(4, "little"))
    elif name == "eip" and is_running:
        cpu.rip, cpu.begun = value, 0
    elif name == "eflags" and is_running:
        kept = int(all_eflags(vm.processor.state)) & ~GUESTS_FLAGS
        set_all_eflags(vm.processor.state, value & GUESTS_FLAGS | kept)
    elif name == "eflags":
        guest.eflags = value & GUESTS_FLAGS | int(guest.eflags) & ~GUESTS_FLAGS
    elif name in ("eip", "esp") and not is_running:
        guest[name] = value
    elif name in GENERAL_REGISTERS:
        registers = cpu.gpr if is_current else guest.gpr
        registers[GENERAL_REGISTERS.index(name)] = value
    else:
        return False
    if is_current and not is_running and not vm.xen.idle:
        frame = (guest.eip, guest.cs, guest.eflags, guest.esp, guest.ss)
        vm.write_region(STACK_TOP - FRAME_BYTES, b"".join(int(word).to_bytes(4, "little") for word in frame))
    return True


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
