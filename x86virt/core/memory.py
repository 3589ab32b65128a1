"""Memory accesses of instructions: segment checks, translation, split accesses, and the fast paths in front of them.

The slow functions are complete; the inlined ones try the front cache first: one comparison of tags says that the page
is translated for this privilege, that nothing else need be checked there, and that the access stays on it.

What is read is translated to a place in the byte array (core/physical_map.py), what is written to a physical address:
a read-modify-write may read ROM and write the RAM behind it. Where the front cache takes writes, both are the same.
"""

from ..isa.registers import (
    AR_DB,
    AR_P,
    AR_S,
    AR_TYPE,
    AR_UNUSABLE,
    CR0_AM,
    EFLAGS_AC,
    PTE_D,
    SS,
    TYPE_CODE,
    TYPE_EXPAND_DOWN,
    TYPE_READABLE,
    TYPE_WRITABLE,
)
from ..isa.vectors import AC, GP, SS_FAULT
from .breakpoints import WATCH_ALL_DATA, may_be_plain, note_data_access
from .cache import DATA, reference
from .fault import raise_fault
from .isolation import owner_refuses
from .jit import inline, kernel
from .jit import load_8 as byte_at
from .jit import load_16 as word_at
from .jit import load_32 as doubleword_at
from .jit import store_8 as put_byte
from .jit import store_16 as put_word
from .jit import store_32 as put_doubleword
from .layout import ACCESS_READ, ACCESS_WRITE, FRONT_MASK, FRONT_SLOTS, ISOLATION, OK, RESTART, TIME_LOG
from .memory_mapped import has_registers, registers_blocked
from .paging import translate, walk_for_read
from .physical import holds_code, page_holds_code, read_at, read_physical, write_physical
from .physical_map import BUS, log_write, place_to_read, place_to_write
from .tlb import front_read_fill, front_write_fill

M32 = 0xFFFFFFFF
PAGE = 0xFFFFF000
AT_PLACE = -1  # in cpu.rmw_split: cpu.rmw_first is a place that takes plain writes, not a physical address
SUPERVISOR = 0  # the bank of the front cache for CPL 0 to 2, and for what the processor itself reads


@inline
def effective_address(cpu, u):
    """The offset that a micro-operation's memory operand names."""
    return (cpu.gpr[u.base_register] + (cpu.gpr[u.index_register] << u.scale) + u.disp) & M32


# -- plain accesses: what the front cache says ----------------------------------------------------------------------


@inline
def plain_read(cpu, gla, n, bank):
    """The place of `n` bytes that may be read with a bank's privilege, or -1 when the slow path must look."""
    slot = bank + ((gla >> 12) & FRONT_MASK)
    if cpu.front_read[slot] != ((gla + (n - 1)) & PAGE) | cpu.front_generation:
        return -1
    return gla + cpu.read_addend[slot]


@inline
def plain_write(cpu, gla, n, bank):
    """The index into RAM of `n` bytes that may be written with a bank's privilege, or -1 when the slow path must look."""
    slot = bank + ((gla >> 12) & FRONT_MASK)
    if cpu.front_write[slot] != ((gla + (n - 1)) & PAGE) | cpu.front_generation:
        return -1
    return gla + cpu.write_addend[slot]


@inline
def fast_read_address(cpu, segment, offset, n):
    """The place of a plain read through a segment, or -1 when the slow path must look."""
    cache = cpu.seg[segment]
    if offset + (n - 1) > cache.read_last:
        return -1
    return plain_read(cpu, (offset + cache.seg_base) & M32, n, cpu.bank)


@inline
def fast_write_address(cpu, segment, offset, n):
    """The index into RAM of a plain write through a segment, or -1 when the slow path must look."""
    cache = cpu.seg[segment]
    if offset + (n - 1) > cache.write_last:
        return -1
    return plain_write(cpu, (offset + cache.seg_base) & M32, n, cpu.bank)


@inline
def bytes_at(ram, index, n):
    """1, 2 or 4 bytes at a place, zero-extended."""
    if n == 4:
        return doubleword_at(ram, index)
    if n == 2:
        return word_at(ram, index)
    return byte_at(ram, index)


@inline
def put_bytes(ram, index, n, value):
    """Store 1, 2 or 4 bytes in RAM that holds no decoded code."""
    if n == 4:
        put_doubleword(ram, index, value)
    elif n == 2:
        put_word(ram, index, value)
    else:
        put_byte(ram, index, value)


# -- slow paths -----------------------------------------------------------------------------------------------------


@inline
def segment_fault(cpu, segment):
    """#SS(0) for the stack segment, #GP(0) for every other."""
    if segment == SS:
        return raise_fault(cpu, SS_FAULT, 0)
    return raise_fault(cpu, GP, 0)


@kernel
def check_segment(cpu, segment, offset, n, write):
    """The type and limit checks on an access through a segment (SDM volume 3, sections 5.3 and 5.4)."""
    cache = cpu.seg[segment]
    access = cache.access
    if access & AR_UNUSABLE != 0 or access & AR_S == 0 or access & AR_P == 0:
        return raise_fault(cpu, GP, 0) if segment != SS else raise_fault(cpu, SS_FAULT, 0)
    kind = access & AR_TYPE
    if kind & TYPE_CODE != 0:
        if write == 1 or kind & TYPE_READABLE == 0:
            return segment_fault(cpu, segment)
    elif write == 1 and kind & TYPE_WRITABLE == 0:
        return segment_fault(cpu, segment)
    last = offset + n - 1
    if kind & TYPE_CODE == 0 and kind & TYPE_EXPAND_DOWN != 0:
        highest = 0xFFFFFFFF
        if access & AR_DB == 0:
            highest = 0xFFFF
        if offset <= cache.limit or last > highest:
            return segment_fault(cpu, segment)
    elif last > cache.limit:
        return segment_fault(cpu, segment)
    return OK


@inline
def alignment_checked(cpu, user):
    """Whether accesses of this privilege are checked for alignment: CPL 3, CR0.AM and EFLAGS.AC."""
    return user == 1 and cpu.eflags & EFLAGS_AC != 0 and cpu.cr0 & CR0_AM != 0


@inline
def check_alignment(cpu, gla, n, user):
    """#AC(0) for a misaligned access where alignment is checked (SDM volume 3, section 6.15, interrupt 17)."""
    if gla & (n - 1) != 0 and alignment_checked(cpu, user):
        return raise_fault(cpu, AC, 0)
    return OK


@kernel
def check_operand_alignment(cpu, segment, offset, alignment):
    """#AC(0) for an operand wider than one access that is not aligned on `alignment` bytes, where that is checked."""
    return check_alignment(cpu, offset + cpu.seg[segment].seg_base, alignment, int(cpu.cpl == 3))


@inline
def is_plain(cpu, gla, user):
    """Whether the front cache may take a page: no access to it needs an owner's, alignment or breakpoint check."""
    return cpu.owner_table == 0 and not alignment_checked(cpu, user) and may_be_plain(cpu, gla)


@inline
def is_unchecked(cpu):
    """Whether no access at all needs an owner's, alignment or breakpoint check, nor goes through the cache model."""
    return cpu.owner_table | cpu.cache_all | (cpu.eflags & EFLAGS_AC) | (cpu.watch & WATCH_ALL_DATA) == 0


@inline
def resolve_read(cpu, ram, gla, user):
    """Translate for reading: (outcome, place)."""
    slot = user * FRONT_SLOTS + ((gla >> 12) & FRONT_MASK)
    if cpu.front_read[slot] == (gla & PAGE) | cpu.front_generation:
        return OK, gla + cpu.read_addend[slot]
    return resolve_read_miss(cpu, ram, gla, user)


@kernel
def resolve_read_miss(cpu, ram, gla, user):
    """Translate for reading through the modelled TLBs, and fill the front cache."""
    outcome, physical, rights = translate(cpu, ram, gla, 0, user, 0)
    if outcome != OK:
        return outcome, 0
    if cpu.in_block == 1 and cpu.ticks >= cpu.limit_ticks:
        return RESTART, 0
    if cpu.owner_table != 0 and owner_refuses(cpu, ram, gla, physical, user, ACCESS_READ) == 1:
        return ISOLATION, 0
    place = place_to_read(cpu, ram, physical)
    if place >= BUS and has_registers(cpu, physical):
        if cpu.in_block == 1:
            return RESTART, 0
        if registers_blocked(cpu, physical) == 1:
            return TIME_LOG, 0
        return OK, place
    if cpu.cache_all == 1:
        reference(cpu, physical, DATA)
    if place < BUS and cpu.cache_all == 0 and is_plain(cpu, gla, user):
        front_read_fill(cpu, gla, place - gla, user)
    return OK, place


@inline
def resolve_write(cpu, ram, gla, user):
    """Translate for writing: (outcome, physical address). The front cache knows the place alone, which a frame map moves."""
    slot = user * FRONT_SLOTS + ((gla >> 12) & FRONT_MASK)
    if cpu.front_write[slot] == (gla & PAGE) | cpu.front_generation and cpu.frame_map == 0:
        return OK, gla + cpu.write_addend[slot]
    return resolve_write_miss(cpu, ram, gla, user)


@kernel
def resolve_write_miss(cpu, ram, gla, user):
    """Translate for writing through the modelled TLBs, and fill the front cache.

    It takes no page that holds decoded code. A store to such code from within a block restarts by itself, so that the
    very next instruction is fetched anew; so does any access to registers, which is not for the cache model either.
    """
    outcome, physical, rights = translate(cpu, ram, gla, 1, user, 0)
    if outcome != OK:
        return outcome, 0
    if cpu.in_block == 1 and cpu.ticks >= cpu.limit_ticks:
        return RESTART, 0
    if cpu.owner_table != 0 and owner_refuses(cpu, ram, gla, physical, user, ACCESS_WRITE) == 1:
        return ISOLATION, 0
    if has_registers(cpu, physical):
        if cpu.in_block == 1:
            return RESTART, 0
        if registers_blocked(cpu, physical) == 1:
            return TIME_LOG, 0
        return OK, physical
    if cpu.cache_all == 1:
        reference(cpu, physical, DATA)
    place = place_to_write(cpu, ram, physical)
    if place < BUS:
        if page_holds_code(cpu, ram, place):
            last = min(place + 3, place | 0xFFF)  # an operand has four bytes at most
            if cpu.in_block == 1 and (holds_code(cpu, ram, place) | holds_code(cpu, ram, last)) == 1:
                return RESTART, 0
        elif cpu.cache_all == 0 and rights & PTE_D != 0 and is_plain(cpu, gla, user):
            if place == place_to_read(cpu, ram, physical):
                front_write_fill(cpu, gla, place - gla, user)
                log_write(cpu, ram, place)
    return OK, physical


@inline
def begin_access(cpu, gla, n, write, user):
    """What comes before translation: the alignment check, and a note of the data breakpoints and stops that are met."""
    outcome = check_alignment(cpu, gla, n, user)
    if outcome == OK and cpu.watch & WATCH_ALL_DATA != 0:
        outcome = note_data_access(cpu, gla, n, write)
    return outcome


@inline
def read_anywhere(cpu, ram, gla, n, user):
    """Read `n` bytes (1, 2 or 4) at a linear address, whatever lies there: (outcome, value)."""
    outcome = begin_access(cpu, gla, n, 0, user)
    if outcome != OK:
        return outcome, 0
    outcome, place = resolve_read(cpu, ram, gla, user)
    if outcome != OK:
        return outcome, 0
    head = 0x1000 - (gla & 0xFFF)
    if head >= n:
        return OK, read_at(cpu, ram, place, n)
    second_page = (gla + head) & M32
    outcome, second = resolve_read(cpu, ram, second_page, user)
    if outcome != OK:
        return outcome, 0
    low = read_at(cpu, ram, place, head)
    return OK, low | read_at(cpu, ram, second, n - head) << (8 * head)


@kernel
def read_linear_slowly(cpu, ram, gla, n, user):
    """Read `n` bytes (1, 2 or 4) at a linear address, whatever lies there: (outcome, value)."""
    return read_anywhere(cpu, ram, gla, n, user)


@inline
def read_linear(cpu, ram, gla, n, user):
    """Read `n` bytes (1, 2 or 4) at a linear address: (outcome, value)."""
    index = plain_read(cpu, gla, n, user * FRONT_SLOTS)
    if index < 0:
        return read_linear_slowly(cpu, ram, gla, n, user)
    return OK, bytes_at(ram, index, n)


@kernel
def check_write_linear(cpu, ram, gla, n, user):
    """Translate `n` bytes for writing without writing; leaves the physical addresses in cpu.rmw_*."""
    outcome = begin_access(cpu, gla, n, 1, user)
    if outcome != OK:
        return outcome
    outcome, physical = resolve_write(cpu, ram, gla, user)
    if outcome != OK:
        return outcome
    cpu.rmw_first = physical
    cpu.rmw_split = 0
    head = 0x1000 - (gla & 0xFFF)
    if head < n:
        outcome, second = resolve_write(cpu, ram, (gla + head) & M32, user)
        if outcome != OK:
            return outcome
        cpu.rmw_split = head
        cpu.rmw_second = second
    return OK


@inline
def write_translated(cpu, ram, n, value):
    """Store to the address that the last `check_write_linear` translated."""
    head = cpu.rmw_split
    if head == AT_PLACE:
        put_bytes(ram, cpu.rmw_first, n, value)
    elif head == 0:
        write_physical(cpu, ram, cpu.rmw_first, n, value)
    else:
        write_physical(cpu, ram, cpu.rmw_first, head, value)
        write_physical(cpu, ram, cpu.rmw_second, n - head, value >> (8 * head))


@inline
def read_translated(cpu, ram, n):
    """Load from the address that the last `check_write_linear` translated."""
    head = cpu.rmw_split
    if head == 0:
        return read_physical(cpu, ram, cpu.rmw_first, n)
    low = read_physical(cpu, ram, cpu.rmw_first, head)
    return low | read_physical(cpu, ram, cpu.rmw_second, n - head) << (8 * head)


@kernel
def write_linear_slowly(cpu, ram, gla, n, value, user):
    """Write the low `n` bytes (1, 2 or 4) of `value` at a linear address, whatever lies there."""
    outcome = check_write_linear(cpu, ram, gla, n, user)
    if outcome != OK:
        return outcome
    write_translated(cpu, ram, n, value)
    return OK


@inline
def write_linear(cpu, ram, gla, n, value, user):
    """Write the low `n` bytes (1, 2 or 4) of `value` at a linear address."""
    index = plain_write(cpu, gla, n, user * FRONT_SLOTS)
    if index < 0:
        return write_linear_slowly(cpu, ram, gla, n, value, user)
    put_bytes(ram, index, n, value)
    return OK


@inline
def segment_to_linear(cpu, segment, offset, n, write):
    """Check an access through a segment and give its linear address: (outcome, gla)."""
    cache = cpu.seg[segment]
    last = cache.read_last
    if write == 1:
        last = cache.write_last
    if offset + (n - 1) > last:
        outcome = check_segment(cpu, segment, offset, n, write)
        if outcome != OK:
            return outcome, 0
    return OK, (offset + cache.seg_base) & M32


@inline
def read_checked(cpu, ram, segment, offset, n):
    """Check an access through a segment and read `n` bytes at the current privilege: (outcome, value)."""
    user = int(cpu.cpl == 3)
    outcome, gla = segment_to_linear(cpu, segment, offset, n, 0)
    if outcome != OK:
        return outcome, 0
    cpu.operand_access = segment + 1
    outcome, value = read_anywhere(cpu, ram, gla, n, user)
    cpu.operand_access = 0
    return outcome, value


@kernel
def read_segment_slowly(cpu, ram, segment, offset, n):
    """Read `n` bytes through a segment at the current privilege, whatever lies there: (outcome, value)."""
    return read_checked(cpu, ram, segment, offset, n)


@inline
def read_segment(cpu, ram, segment, offset, n):
    """Read `n` bytes through a segment at the current privilege: (outcome, value)."""
    index = fast_read_address(cpu, segment, offset, n)
    if index < 0:
        return read_segment_slowly(cpu, ram, segment, offset, n)
    return OK, bytes_at(ram, index, n)


@kernel
def write_segment_slowly(cpu, ram, segment, offset, n, value):
    """Write `n` bytes through a segment at the current privilege, whatever lies there."""
    outcome = check_write_segment(cpu, ram, segment, offset, n)
    if outcome != OK:
        return outcome
    write_translated(cpu, ram, n, value)
    return OK


@inline
def write_segment(cpu, ram, segment, offset, n, value):
    """Write `n` bytes through a segment at the current privilege."""
    index = fast_write_address(cpu, segment, offset, n)
    if index < 0:
        return write_segment_slowly(cpu, ram, segment, offset, n, value)
    put_bytes(ram, index, n, value)
    return OK


@inline
def check_write_segment(cpu, ram, segment, offset, n):
    """Everything about a write through a segment but the write; leaves the addresses in cpu.rmw_*."""
    user = int(cpu.cpl == 3)
    outcome, gla = segment_to_linear(cpu, segment, offset, n, 1)
    if outcome != OK:
        return outcome
    cpu.operand_access = segment + 1
    outcome = check_write_linear(cpu, ram, gla, n, user)
    cpu.operand_access = 0
    return outcome


@kernel
def load_slow(cpu, ram, segment, offset, n, slot):
    """Read through a segment into a register slot, zero-extended, whatever lies there."""
    cache = cpu.seg[segment]
    gla = (offset + cache.seg_base) & M32
    if offset + (n - 1) <= cache.read_last and (gla & 0xFFF) + n <= 0x1000 and is_unchecked(cpu):
        user = int(cpu.cpl == 3)
        physical = walk_for_read(cpu, ram, gla, user)
        if physical >= 0:
            if cpu.in_block == 1 and cpu.ticks >= cpu.limit_ticks:
                return RESTART
            front_read_fill(cpu, gla, physical - gla, user)
            cpu.gpr[slot] = bytes_at(ram, physical, n)
            return OK
    outcome, value = read_segment_slowly(cpu, ram, segment, offset, n)
    if outcome == OK:
        cpu.gpr[slot] = value
    return outcome


# -- fast paths -----------------------------------------------------------------------------------------------------


@inline
def load_to_slot_8(cpu, ram, segment, offset, slot):
    """Load a byte into a register slot, zero-extended."""
    index = fast_read_address(cpu, segment, offset, 1)
    if index < 0:
        return load_slow(cpu, ram, segment, offset, 1, slot)
    cpu.gpr[slot] = byte_at(ram, index)
    return OK


@inline
def load_to_slot_16(cpu, ram, segment, offset, slot):
    """Load a word into a register slot, zero-extended."""
    index = fast_read_address(cpu, segment, offset, 2)
    if index < 0:
        return load_slow(cpu, ram, segment, offset, 2, slot)
    cpu.gpr[slot] = word_at(ram, index)
    return OK


@inline
def load_to_slot_32(cpu, ram, segment, offset, slot):
    """Load a doubleword into a register slot."""
    index = fast_read_address(cpu, segment, offset, 4)
    if index < 0:
        return load_slow(cpu, ram, segment, offset, 4, slot)
    cpu.gpr[slot] = doubleword_at(ram, index)
    return OK


@inline
def store_value_8(cpu, ram, segment, offset, value):
    """Store a byte through a segment."""
    index = fast_write_address(cpu, segment, offset, 1)
    if index < 0:
        return write_segment_slowly(cpu, ram, segment, offset, 1, value)
    put_byte(ram, index, value)
    return OK


@inline
def store_value_16(cpu, ram, segment, offset, value):
    """Store a word through a segment."""
    index = fast_write_address(cpu, segment, offset, 2)
    if index < 0:
        return write_segment_slowly(cpu, ram, segment, offset, 2, value)
    put_word(ram, index, value)
    return OK


@inline
def store_value_32(cpu, ram, segment, offset, value):
    """Store a doubleword through a segment."""
    index = fast_write_address(cpu, segment, offset, 4)
    if index < 0:
        return write_segment_slowly(cpu, ram, segment, offset, 4, value)
    put_doubleword(ram, index, value)
    return OK
