"""A processor in flat RAM without paging, and descriptors laid out by hand: what the tests of the system half stand on.

Nothing here shares code with the core beyond the record layout: descriptors are packed from the manual's figures.
"""

import numpy as np

from x86virt.core.layout import CPU, NEVER

RAM_SIZE = 0x10000
GDT, IDT, LDT, TSS = 0x1000, 0x2000, 0x3000, 0x4000
GDT_LIMIT, IDT_LIMIT, LDT_LIMIT = 0xFF, 0x1FF, 0x3F
ES, CS, SS, DS, FS, GS, LDTR, TR = range(8)
MODE_OF_CPL = (1, 1, 1, 0)
UNUSABLE = 1 << 16


def new_state():
    """A zeroed processor record in its one-element array, and RAM with the code map behind it."""
    return np.zeros(1, CPU).view(np.recarray), np.zeros(RAM_SIZE + RAM_SIZE // 1024 + 64, np.uint8)


def put(ram, address, n, value):
    """Store `n` little-endian bytes."""
    ram[address : address + n] = np.frombuffer((value & (1 << 8 * n) - 1).to_bytes(n, "little"), np.uint8)


def get(ram, address, n):
    """Load `n` little-endian bytes."""
    return int.from_bytes(ram[address : address + n].tobytes(), "little")


def descriptor(base, limit, kind, s=1, dpl=0, present=1, db=1, granular=0):
    """A segment descriptor as a 64-bit integer (SDM volume 3, figure 3-8); `limit` is the 20-bit field."""
    return (
        (limit & 0xFFFF)
        | (base & 0xFFFFFF) << 16
        | (kind | s << 4 | dpl << 5 | present << 7) << 40
        | (limit >> 16) << 48
        | db << 54
        | granular << 55
        | (base >> 24) << 56
    )


def gate(selector, offset, kind, s=0, dpl=0, present=1, count=0):
    """A gate descriptor as a 64-bit integer (SDM volume 3, figures 5-8 and 6-2)."""
    return (
        (offset & 0xFFFF)
        | selector << 16
        | count << 32
        | (kind | s << 4 | dpl << 5 | present << 7) << 40
        | (offset >> 16) << 48
    )


def set_descriptor(ram, selector, value, table=GDT):
    """Store a descriptor in a table."""
    put(ram, table + (selector & 0xFFF8), 8, value)


def set_segment(cpu, segment, selector, base, limit, kind, dpl, db=1):
    """Fill a present code or data segment register's cache."""
    entry = cpu.seg[segment]
    entry.selector = selector
    entry.access = kind | 1 << 4 | dpl << 5 | 1 << 7 | db << 14
    entry.limit = limit
    entry.seg_base = base
    plain = kind & 0xC != 4
    entry.read_last = limit if plain and (kind & 8 == 0 or kind & 2) else -1
    entry.write_last = limit if plain and kind & 0xA == 2 else -1


def reset(cpu, ram, cpl, stack=0x8000, eflags=2):
    """Protected mode at `cpl` with flat CS, SS and DS, empty tables and a 32-bit TSS."""
    ram[:] = 0
    cpu.gpr[:] = 0
    cpu.gpr[4] = stack
    cpu.rip = 0x1234
    cpu.eflags = eflags
    cpu.flag_result = 1
    cpu.flag_carry = 0
    cpu.cr0 = 1
    cpu.cpl = cpl
    cpu.mode_table[:4] = MODE_OF_CPL
    cpu.mode = MODE_OF_CPL[cpl]
    cpu.bank = 256 if cpl == 3 else 0
    set_segment(cpu, CS, 0xF0 | cpl, 0, 0xFFFF, 11, cpl)
    for segment in (ES, SS, DS, FS, GS):
        set_segment(cpu, segment, 0xF8 | cpl, 0, 0xFFFF, 3, cpl)
    cpu.gdtr_base, cpu.gdtr_limit = GDT, GDT_LIMIT
    cpu.idtr_base, cpu.idtr_limit = IDT, IDT_LIMIT
    set_system(cpu, LDTR, 0xE8, LDT, LDT_LIMIT, 2)
    set_system(cpu, TR, 0xE0, TSS, 0x67, 11)
    cpu.ram_last = RAM_SIZE - 1
    cpu.a20_closed = 0  # the gate is open
    cpu.code_map = RAM_SIZE
    cpu.shadow = 0
    cpu.event_has_error = 0
    cpu.event_error = 0
    cpu.idt_vector = -1
    cpu.budget = cpu.limit_ticks = NEVER
    cpu.in_block = 0
    cpu.ledger_count[:] = 0
    cpu.ledger_ticks[:] = 0
    cpu.context_count = 0
    cpu.front_generation = 1


def set_system(cpu, segment, selector, base, limit, kind):
    """Fill LDTR's or TR's cache."""
    entry = cpu.seg[segment]
    entry.selector = selector
    entry.access = kind | 1 << 7
    entry.limit = limit
    entry.seg_base = base
    entry.read_last = entry.write_last = -1


def architectural(cpu):
    """What a fault may not change: general registers, RIP, EFLAGS, segments, privilege."""
    seg = [tuple(int(cpu.seg[n][name]) for name in cpu.seg.dtype.names) for n in range(8)]
    flags = (int(cpu.eflags), int(cpu.flag_result), int(cpu.flag_carry))
    return tuple(int(x) for x in cpu.gpr), int(cpu.rip), flags, seg, int(cpu.cpl), int(cpu.mode)


def raised(cpu, outcome):
    """The exception that an outcome stands for: None, or (vector, error code), or the outcome's number in a string."""
    if outcome == 0:
        return None
    if outcome == 1:
        return int(cpu.event_vector), int(cpu.event_error)
    return f"outcome {outcome}"


def check(failures, facts, got, expected):
    """Collect a mismatch with the facts of its case."""
    if got != expected:
        failures.append(f"{facts}: got {got}, the manual says {expected}")
