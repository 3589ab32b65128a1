"""DR0 to DR3, DR6 and DR7 as they are stored, and what a change of them makes the processor watch (SDM volume 3, 17.2)."""

from .breakpoints import DR7_LOCAL, WATCH_CODE, WATCH_DATA, watched_kinds
from .jit import kernel
from .stops import WATCH_STOP_CODE, WATCH_STOP_DATA, stop_kinds
from .tlb import drop_front

DR6_FIXED = 0xFFFF0FF0
DR6_WRITABLE = 0xE00F
DR7_FIXED = 0x400
DR7_WRITABLE = 0xFFFF2BFF
M32 = 0xFFFFFFFF


@kernel
def refresh_breakpoints(cpu):
    """Find what is to be watched, after a change of DR0 to DR3, DR7 or CR4.DE, or of the debugger's stops."""
    watched = watched_kinds(cpu) | stop_kinds(cpu)
    if (watched | cpu.watch) & (WATCH_CODE | WATCH_STOP_CODE):
        cpu.flush_code = 1
    if (watched | cpu.watch) & (WATCH_DATA | WATCH_STOP_DATA):
        drop_front(cpu)
    cpu.watch = watched


@kernel
def set_debug_register(cpu, number, value):
    """Write DR0 to DR3, DR6 or DR7. Reserved bits keep their values; LE and GE (exact matching) change nothing."""
    if number == 6:
        cpu.dr[6] = (value & DR6_WRITABLE) | DR6_FIXED
    elif number == 7:
        cpu.dr[7] = (value & DR7_WRITABLE) | DR7_FIXED
        refresh_breakpoints(cpu)
    else:
        cpu.dr[number] = value & M32
        refresh_breakpoints(cpu)


@kernel
def clear_local_breakpoints(cpu):
    """What a task switch does to DR7 (section 17.2.4)."""
    if cpu.dr[7] & DR7_LOCAL:
        cpu.dr[7] &= ~DR7_LOCAL
        refresh_breakpoints(cpu)
