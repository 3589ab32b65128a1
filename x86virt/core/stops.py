"""A debugger's stops: linear addresses of code and data at which the run ends, unseen by the guest.

They cost nothing while there are none: `cpu.watch` says which kinds are set, beside the processor's own breakpoints. No
block begins at an address of code or runs on over it, so that control comes to `find_block` there, and the front cache takes
no page with an address of data. No cycle depends on any of that. Code stops before the instruction, data behind it (behind
the iteration of a repeated string instruction). The VMM's own instructions, and domain 0's, meet no stop.
"""

from .jit import inline, kernel
from .layout import (
    DELIVERIES_OF_PROCESSOR,
    DELIVERY_MET,
    OK,
    STOP_ON_ACCESSES,
    STOP_ON_CODE,
    STOP_ON_READS,
    STOP_ON_WRITES,
    STOPPED,
)
from .retirement import is_vmms

M32 = 0xFFFFFFFF
WATCH_STOP_CODE, WATCH_STOP_DATA, WATCH_STOP_DELIVERIES = 8, 16, 32  # of cpu.watch


@kernel
def stop_kinds(cpu):
    """The WATCH_STOP_ bits of all stops."""
    kinds = 0
    if cpu.stop_deliveries == DELIVERIES_OF_PROCESSOR:
        kinds = WATCH_STOP_DELIVERIES
    for number in range(cpu.stop_count):
        if cpu.stops[number].kind == STOP_ON_CODE:
            kinds |= WATCH_STOP_CODE
        else:
            kinds |= WATCH_STOP_DATA
    return kinds


@kernel
def has_code_stop(cpu, gla):
    """Whether the instruction at a linear address is a stop."""
    return code_stop_at(cpu, gla) != 0


@kernel
def code_stop_at(cpu, gla):
    """The number, plus 1, of the stop at an instruction; 0: none."""
    for number in range(cpu.stop_count):
        if cpu.stops[number].kind == STOP_ON_CODE and cpu.stops[number].first == gla:
            return number + 1
    return 0


@kernel
def check_code_stop(cpu, gla):
    """STOPPED before an instruction that is a stop, once for each time that it is reached.

    An instruction that did not complete has not retired: where it is tried again, nothing stops a second time.
    """
    number = code_stop_at(cpu, gla)
    if number == 0 or is_vmms(cpu) or (cpu.stop_passed == gla and cpu.stop_passed_retired == cpu.retired):
        return OK
    cpu.stop_passed = gla
    cpu.stop_passed_retired = cpu.retired
    return report_stop(cpu, number, gla)


@kernel
def is_behind_notes(cpu, number):
    """Whether a stop on code is met no earlier than where the noting of stops ends."""
    if number == DELIVERY_MET or cpu.stops[number - 1].kind != STOP_ON_CODE:
        return False
    return cpu.retired >= cpu.stop_end_retired and cpu.ticks >= cpu.stop_end_ticks


@kernel
def report_stop(cpu, number, gla):
    """Say which stop was met, and where and when: STOPPED, or OK where stops are only noted."""
    if cpu.stop_notes == 1 and is_behind_notes(cpu, number):
        return OK
    cpu.stop_number = number
    cpu.stop_address = gla
    cpu.stop_retired = cpu.retired
    cpu.stop_ticks = cpu.ticks
    if cpu.stop_notes == 1:
        return OK
    return STOPPED


@inline
def report_met_stop(cpu):
    """At the boundary behind an instruction: the stop that it met, if any."""
    number = cpu.stop_met
    cpu.stop_met = 0
    return report_stop(cpu, number, cpu.stop_met_at)


@kernel
def data_stop_at(cpu, gla, n, write):
    """The number, plus 1, of the first stop that an access to `n` bytes meets; 0: none."""
    if is_vmms(cpu):
        return 0
    kind = STOP_ON_READS
    if write == 1:
        kind = STOP_ON_WRITES
    for number in range(cpu.stop_count):
        stop = cpu.stops[number]
        if stop.kind == STOP_ON_ACCESSES or stop.kind == kind:
            if gla <= stop.last and gla + n > stop.first:
                return number + 1
    return 0


@kernel
def page_has_stop(cpu, gla):
    """Whether a stop on data lies in the page of a linear address."""
    page = (gla & M32) >> 12
    for number in range(cpu.stop_count):
        stop = cpu.stops[number]
        if stop.kind != STOP_ON_CODE and stop.first >> 12 <= page <= stop.last >> 12:
            return True
    return False


@inline
def note_delivery(cpu):
    """An event is delivered: a stop, where that is asked for."""
    if cpu.watch & WATCH_STOP_DELIVERIES != 0:
        cpu.stop_met = DELIVERY_MET
        cpu.stop_met_at = 0
