"""The debugger's stops where the VMM acts for the guest: accesses that it performs, events that it delivers, where it resumes.

What the processor does by itself is core/stops.py's. A stop is reported when the guest is about to go on.
"""

from typing import TYPE_CHECKING

from ..core.layout import (
    DELIVERIES_OF_VMM,
    DELIVERY_MET,
    STOP_ON_ACCESSES,
    STOP_ON_CODE,
    STOP_ON_READS,
    STOP_ON_WRITES,
)
from .exits import Unsupported

if TYPE_CHECKING:
    from ..processor import Processor
    from .virtual_machine import VirtualMachine


def note_access(processor: "Processor", gla: int, n: int, write: bool) -> None:
    """The VMM reads or writes `n` bytes at a linear address of the guest's, in its name."""
    cpu = processor.cpu
    for number in range(int(cpu.stop_count)):
        stop = cpu.stops[number]
        if stop.kind in (STOP_ON_ACCESSES, STOP_ON_WRITES if write else STOP_ON_READS):
            if gla <= stop.last and gla + n > stop.first and not cpu.stop_met:
                cpu.stop_met, cpu.stop_met_at = number + 1, gla


def note_delivery(processor: "Processor") -> None:
    """The VMM has delivered an event to the guest."""
    cpu = processor.cpu
    if cpu.stop_deliveries == DELIVERIES_OF_VMM:
        cpu.stop_met, cpu.stop_met_at = DELIVERY_MET, 0


def note_arrival(vm: "VirtualMachine") -> None:
    """The guest is about to go on: its next instruction may be a stop, once for each time that it is reached."""
    cpu, translated = vm.processor.cpu, None if vm.translation is None else vm.translation.stops
    if translated is not None:
        translated.follow()
    if not cpu.stop_count or cpu.stop_met:
        return
    try:
        gla = vm.linear_eip()
    except Unsupported:  # which is said when the guest needs it
        return
    passed = cpu.stop_passed if translated is None else translated.passed()
    beginning = gla if translated is None else translated.beginning(gla)
    if passed == gla and cpu.stop_passed_retired == cpu.retired:
        cpu.stop_passed = beginning
        return
    for number in range(int(cpu.stop_count)):
        if cpu.stops[number].kind == STOP_ON_CODE and cpu.stops[number].first == gla:
            cpu.stop_met, cpu.stop_met_at = number + 1, gla
            cpu.stop_passed, cpu.stop_passed_retired = beginning, cpu.retired
            return
