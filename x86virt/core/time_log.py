"""A guest's dealings with time: recorded one by one, or given again from such a record (design, section 2a, E2).

The log holds (n, source, value): n guest instructions had retired before the one that did it. Of a counter the value is
what was read. Of an access to a device it is the tick at which it came, of which all is a function that the device does:
in a replay devices live in the time of the record. Python takes a full log away and brings the next part of one that is
replayed; until then the instruction ends with TIME_LOG, nothing committed.
"""

from ..isa.events import MODE_VMM
from .jit import inline, kernel
from .layout import TIME_APIC, TIME_ENTRIES, TIME_OFF, TIME_RECORD

ROOM = 8  # entries that an instruction on registers in memory may need: a read-modify-write needs two


@inline
def time_is_logged(cpu):
    """Whether reads of time are recorded or replayed now; the VMM's own never are."""
    return cpu.time_mode != TIME_OFF and cpu.mode != MODE_VMM


@kernel
def time_log_blocks(cpu, source):
    """1 if the log must be seen to before the present instruction may deal with time by `source`."""
    if not time_is_logged(cpu):
        return 0
    if cpu.time_mode == TIME_RECORD:
        room = 1
        if source == TIME_APIC:
            room = ROOM
        return int(cpu.time_count + room > TIME_ENTRIES)
    if cpu.time_next >= cpu.time_count:
        return 1
    entry = cpu.time_log[cpu.time_next]
    return int(entry.n != cpu.retired - 1 or entry.source != source)


@kernel
def logged_time(cpu, source, value):
    """What a dealing with time gives: `value`, which is recorded, or the one of the log."""
    if not time_is_logged(cpu):
        return value
    if cpu.time_mode == TIME_RECORD:
        if cpu.time_count >= TIME_ENTRIES:
            return value
        entry = cpu.time_log[cpu.time_count]
        entry.n = cpu.retired - 1
        entry.source = source
        entry.value = value
        cpu.time_count += 1
        return value
    if cpu.time_next >= cpu.time_count:
        return value
    entry = cpu.time_log[cpu.time_next]
    cpu.time_next += 1
    return entry.value
