"""Which breakpoints of DR0 to DR3 an access meets (SDM volume 3, sections 17.2.4 to 17.2.6).

`cpu.watch` says which kinds are enabled, so that nothing is compared while none is: blocks end before an instruction
breakpoint, and the front cache takes no page that holds a data breakpoint.
"""

from ..isa.registers import CR4_DE, EFLAGS_RF
from ..isa.vectors import DB
from .fault import raise_plain
from .jit import inline, kernel
from .layout import OK, RESTART
from .stops import WATCH_STOP_DATA, data_stop_at, page_has_stop

M32 = 0xFFFFFFFF
WATCH_CODE, WATCH_DATA, WATCH_PORTS = 1, 2, 4
WATCH_ALL_DATA = WATCH_DATA | WATCH_STOP_DATA
ON_EXECUTION, ON_WRITES, ON_PORTS, ON_READS_AND_WRITES = 0, 1, 2, 3  # the R/W fields of DR7

DR6_BD, DR6_BS, DR6_BT = 1 << 13, 1 << 14, 1 << 15
DR7_GD = 1 << 13
DR7_LOCAL = 0x155  # L0 to L3 and LE, which a task switch clears


@inline
def is_enabled(cpu, number):
    """Whether L or G of a breakpoint is set."""
    return (cpu.dr[7] >> (2 * number)) & 3 != 0


@inline
def kind_of(cpu, number):
    """The R/W field of a breakpoint."""
    return (cpu.dr[7] >> (16 + 4 * number)) & 3


@kernel
def length_of(cpu, number):
    """Bytes that a breakpoint covers; the encoding 10 means eight, as on all these processors."""
    field = (cpu.dr[7] >> (18 + 4 * number)) & 3
    if field == 2:
        return 8
    return field + 1


@kernel
def watched_kinds(cpu):
    """The WATCH_ bits of all enabled breakpoints. Without CR4.DE there are no breakpoints on ports."""
    watched = 0
    for number in range(4):
        if is_enabled(cpu, number):
            kind = kind_of(cpu, number)
            if kind == ON_EXECUTION:
                watched |= WATCH_CODE
            elif kind != ON_PORTS:
                watched |= WATCH_DATA
            elif cpu.cr4 & CR4_DE != 0:
                watched |= WATCH_PORTS
    return watched


@kernel
def touches(cpu, number, first, n):
    """Whether any of `n` bytes from `first` lies in the aligned range of a breakpoint."""
    length = length_of(cpu, number)
    start = cpu.dr[number] & M32 & ~(length - 1)
    return ((start - first) & M32) < n or ((first - start) & M32) < length


@kernel
def code_breakpoints_at(cpu, gla):
    """DR6's bits of the enabled instruction breakpoints at a linear address."""
    bits = 0
    for number in range(4):
        if is_enabled(cpu, number) and kind_of(cpu, number) == ON_EXECUTION and cpu.dr[number] == gla:
            bits |= 1 << number
    return bits


@kernel
def note_data_access(cpu, gla, n, write):
    """Note the data breakpoints, and the debugger's stops, that an access meets.

    The trap or stop comes after the instruction: within a block the answer is RESTART, so that it executes by itself.
    """
    bits = 0
    for number in range(4):
        kind = kind_of(cpu, number)
        if is_enabled(cpu, number) and (kind == ON_READS_AND_WRITES or (kind == ON_WRITES and write == 1)):
            if touches(cpu, number, gla, n):
                bits |= 1 << number
    stop = data_stop_at(cpu, gla, n, write)
    if bits | stop == 0:
        return OK
    if cpu.in_block == 1:
        return RESTART
    cpu.debug_hits |= bits
    if cpu.stop_met == 0 and stop != 0:
        cpu.stop_met = stop
        cpu.stop_met_at = gla
    return OK


@kernel
def note_port_access(cpu, port, n):
    """Note the I/O breakpoints that an access to `n` ports meets."""
    for number in range(4):
        if is_enabled(cpu, number) and kind_of(cpu, number) == ON_PORTS and touches(cpu, number, port, n):
            cpu.debug_hits |= 1 << number


@kernel
def page_is_watched(cpu, gla):
    """Whether a data breakpoint lies in the page of a linear address."""
    for number in range(4):
        kind = kind_of(cpu, number)
        if is_enabled(cpu, number) and (kind == ON_WRITES or kind == ON_READS_AND_WRITES):
            if ((cpu.dr[number] ^ gla) & M32) < 0x1000:
                return True
    return False


@inline
def may_be_plain(cpu, gla):
    """Whether the front cache may take a page: no access to it need be compared with breakpoints or stops."""
    return cpu.watch & WATCH_ALL_DATA == 0 or not (page_is_watched(cpu, gla) or page_has_stop(cpu, gla))


@kernel
def note_debug_registers(cpu, bits):
    """Keep what a debug exception with these bits of DR6 is about to change, for an exit that comes instead of it."""
    cpu.debug_raised = bits
    cpu.dr6_before = cpu.dr[6]
    cpu.dr7_before = cpu.dr[7]


@kernel
def raise_debug(cpu, bits):
    """#DB with these bits of DR6, none of which the processor ever clears; the handler may use MOV DR."""
    note_debug_registers(cpu, bits)
    cpu.dr[6] |= bits
    cpu.dr[7] &= ~DR7_GD
    return raise_plain(cpu, DB)


@kernel
def check_code_breakpoint(cpu, gla):
    """#DB before an instruction that has a breakpoint: RF stays as it is in the image that is pushed (17.3.1.1)."""
    bits = code_breakpoints_at(cpu, gla)
    if bits == 0 or cpu.eflags & EFLAGS_RF != 0:
        return OK
    return raise_debug(cpu, bits)
