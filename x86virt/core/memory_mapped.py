"""Registers in memory: the local APIC where IA32_APIC_BASE has it, the I/O APIC at FEC00000.

They are no memory: an instruction that reaches them out of a block is executed again by itself (core/memory.py), so that
it sees the tick at which it is, and a boundary follows. A register is a doubleword on a 16-byte boundary, and is written
as such; the manual leaves other accesses undefined: here reads give the bytes that they cover, writes are lost.
"""

from ..isa.events import EVENT_SYS_LAPIC_MMIO_ACCESS, EVENT_SYS_MMIO_UNCACHED_READ
from .charge import charge
from .io_apic import end_level, read_io_apic, write_io_apic
from .jit import inline, kernel
from .layout import TIME_APIC
from .local_apic import read_apic, write_apic
from .time_log import logged_time, time_is_logged, time_log_blocks

IO_APIC_PAGE = 0xFEC00


@inline
def has_registers(cpu, physical):
    """Whether a physical address is that of a page of registers."""
    return cpu.apic.present == 1 and (physical >> 12 == cpu.apic.page or physical >> 12 == IO_APIC_PAGE)


@kernel
def registers_blocked(cpu, physical):
    """1 if the log of time must be seen to before registers are accessed; the I/O APIC's have nothing to do with time."""
    return int(physical >> 12 == cpu.apic.page and time_log_blocks(cpu, TIME_APIC) == 1)


@kernel
def tick_of_access(cpu):
    """The tick at which the local APIC is accessed: the present, which may be recorded; in a replay the log's."""
    if not time_is_logged(cpu):
        return cpu.ticks
    return max(logged_time(cpu, TIME_APIC, cpu.ticks), cpu.apic.count_began)


@kernel
def read_registers(cpu, physical, n):
    """Read `n` bytes that are in no memory: registers, else ones. A read may be repeated (but for errors it changes none)."""
    if not has_registers(cpu, physical):
        return (1 << (8 * n)) - 1
    offset = physical & 0xFF0
    if physical >> 12 == cpu.apic.page:
        charge(cpu, EVENT_SYS_LAPIC_MMIO_ACCESS, 1)
        value = read_apic(cpu.apic, offset, tick_of_access(cpu))
    else:
        charge(cpu, EVENT_SYS_MMIO_UNCACHED_READ, 1)
        value = read_io_apic(cpu.io_apic, offset)
    if physical & 12 != 0:
        return 0
    return (value >> (8 * (physical & 3))) & ((1 << (8 * n)) - 1)


@kernel
def write_registers(cpu, physical, n, value):
    """Write `n` bytes that no memory takes. A write to the I/O APIC is posted: it costs no more than its instruction.

    The boundary behind the instruction looks at lines, requests and deadlines anew.
    """
    if not has_registers(cpu, physical):
        return
    is_local = physical >> 12 == cpu.apic.page
    if is_local:
        charge(cpu, EVENT_SYS_LAPIC_MMIO_ACCESS, 1)
    if n == 4 and physical & 15 == 0:
        if is_local:
            ended = write_apic(cpu.apic, physical & 0xFF0, value & 0xFFFFFFFF, tick_of_access(cpu))
            if ended >= 0:
                end_level(cpu.io_apic, ended)
        else:
            write_io_apic(cpu.io_apic, physical & 0xFFF, value & 0xFFFFFFFF)
        cpu.io_apic.changed = 1
        cpu.limit_ticks = min(cpu.limit_ticks, cpu.ticks)
