"""What the VMM sets up before domains run: its clock, its interrupt controllers, and of each domain events, time and grants."""

from typing import TYPE_CHECKING

import numpy as np

from ...core.cmos import CLOCK_HZ, DAY_SECONDS, DAYS_TO_1970
from ...core.entries import device_write
from ...core.layout import NEVER
from ...isa.events import MODE_DOMAIN_0
from ...isa.registers import CR0_TS
from ..layout import TSS_IO_MAP
from . import layout
from .clock import NANOSECONDS, scale_of
from .grant_tables import MAX_ENTRIES
from .interface import (
    GRANT_ENTRY_BYTES,
    N_EVENT_CHANNELS,
    SHARED_MASK,
    SHARED_WC_VERSION,
    VCPU_UPCALL_MASK,
    EVTCHNSTAT_unbound,
    GTF_permit_access,
    RUNSTATE_runnable,
)
from .lines import ALL_MASKED
from .records import ASK_BOARD, ASK_SCHEDULE, ASK_TIMER
from .schedule import DOMAIN_0, SLICE
from .time import TICKER
from .x87_owner import NOBODY

if TYPE_CHECKING:
    from .vm import ParavirtualVm

TICKS = 64  # of a cycle
QUANTUM = 1000  # of a second: its reciprocal is how long a hypercall may take at a time
ALL_BITS, MASKED = b"\xff", b"\x01"
FPU_CONTROL = 0x37F  # as FNINIT leaves it
# Initialization of the interrupt controllers: ICW1 to ICW4 of each, the vector of its first line in ICW2.
MASTER_PORT, SLAVE_PORT = 0x20, 0xA0
ICW1, ICW4 = 0x11, 0x01
CASCADE_INPUT, CASCADE_IDENTITY = 0x04, 0x02


def start_clock(vm: "ParavirtualVm") -> None:
    """The VMM's own state of time, scheduling and interrupts, before there is any domain."""
    xen, hertz = vm.xen, vm.processor.clock_hz
    xen.tsc_multiplier, xen.tsc_shift = scale_of(hertz)
    xen.quantum = TICKS * hertz // QUANTUM
    xen.slice_end = SLICE
    xen.deadline[:] = xen.poll_deadline[:] = NEVER
    xen.next_tick[:] = TICKER
    xen.fpu_owner = NOBODY
    xen.masked_lines = ALL_MASKED
    set_wall_clock(vm)
    start_controllers(vm)
    vm.processor.cpu.timer = NEVER


def start_controllers(vm: "ParavirtualVm") -> None:
    """Initialize both interrupt controllers, all their lines masked but the one that joins them."""
    for port, vector, joined, mask in (
        (MASTER_PORT, layout.IRQ_VECTOR, CASCADE_INPUT, ALL_MASKED & 0xFF),
        (SLAVE_PORT, layout.IRQ_VECTOR + 8, CASCADE_IDENTITY, ALL_MASKED >> 8),
    ):
        device_write(vm.boards, port, 1, ICW1, int(vm.processor.cpu.ticks))
        for value in (vector, joined, ICW4, mask):
            device_write(vm.boards, port + 1, 1, value, int(vm.processor.cpu.ticks))


def set_wall_clock(vm: "ParavirtualVm") -> None:
    """What the calendar of the machine's clock said as system time was 0: the second that runs, less the time since.

    Every domain that is there is told. The clock may be set until the guest first runs.
    """
    cmos, hertz = vm.board.cmos, TICKS * vm.processor.clock_hz
    periods = int(cmos.settled) // CLOCK_HZ * CLOCK_HZ
    began = int(cmos.origin) + -(-periods * hertz // CLOCK_HZ)
    seconds = int(cmos.calendar) - DAYS_TO_1970 * DAY_SECONDS
    start = max(seconds * NANOSECONDS - began * NANOSECONDS // hertz, 0)
    vm.xen.wall_seconds, vm.xen.wall_nanoseconds = divmod(start, NANOSECONDS)
    for index in range(layout.N_DOMAINS):
        if vm.domains[index].exists:
            tell_wall_clock(vm, index)


def tell_wall_clock(vm: "ParavirtualVm", index: int) -> None:
    """The version, the seconds and the nanoseconds, as the shared page has them."""
    page = int(vm.domains[index].shared_info) << 12
    values = 2, int(vm.xen.wall_seconds), int(vm.xen.wall_nanoseconds)
    octets = b"".join(value.to_bytes(4, "little") for value in values)
    vm.processor.write_physical(page + SHARED_WC_VERSION, octets)


def start_domain(vm: "ParavirtualVm", index: int) -> None:
    """A domain's events, all masked; its timers and run state; the first frame of its grant table."""
    domain, xen = vm.domains[index], vm.xen
    page = int(domain.shared_info) << 12
    domain.vcpu_info = page
    vm.processor.write_physical(page + SHARED_MASK, ALL_BITS * (N_EVENT_CHANNELS // 8))
    vm.processor.write_physical(page + VCPU_UPCALL_MASK, MASKED)
    tell_wall_clock(vm, index)
    domain.run_state = RUNSTATE_runnable
    domain.grant_frames = 1
    domain.fpu_control = FPU_CONTROL
    xen.period[index], xen.next_tick[index] = TICKER, TICKER


def run_first(vm: "ParavirtualVm", index: int) -> None:
    """The processor holds a domain's registers: it is to be scheduled, and is the first to run if nothing is against it."""
    cpu = vm.processor.cpu
    vm.xen.current = index
    vm.xen.asked |= ASK_SCHEDULE | ASK_TIMER | ASK_BOARD
    cpu.cr0 |= CR0_TS
    if index == DOMAIN_0:
        cpu.mode_table[1:4] = MODE_DOMAIN_0
        vm.processor.write_physical(layout.TSS + TSS_IO_MAP, layout.IO_MAP.to_bytes(2, "little"))


def open_to(vm: "ParavirtualVm", index: int, remote: int) -> int:
    """A port of a domain to which another may bind, as EVTCHNOP_alloc_unbound makes it."""
    first = index * N_EVENT_CHANNELS
    states = vm.channels["state"][first + 1 : first + N_EVENT_CHANNELS]
    port = 1 + int(np.flatnonzero(states == 0)[0])
    channel = vm.channels[first + port]
    channel.state, channel.remote_domain = EVTCHNSTAT_unbound, remote
    return port


def permit(vm: "ParavirtualVm", granter: int, reference: int, domid: int, frame: int) -> None:
    """A grant that a domain is given from its start: another may map a frame of its."""
    assert reference < MAX_ENTRIES
    table = layout.GRANT_FRAMES + (layout.N_GRANT_FRAMES << 12) * granter
    entry = GTF_permit_access | domid << 16 | frame << 32
    vm.processor.write_physical(table + GRANT_ENTRY_BYTES * reference, entry.to_bytes(GRANT_ENTRY_BYTES, "little"))
