"""Decoded code: blocks of micro-operations keyed by place (core/physical_map.py), linear address and code context.

A block holds instructions of one page up to the first that leaves the straight path. Nothing is reused piecemeal: when
the arrays are full, or too much changed, all blocks are discarded at once. Cycles never depend on any of this.
"""

from ..isa.registers import CS
from ..isa.vectors import GP
from .between_blocks import at_hook
from .breakpoints import WATCH_CODE, check_code_breakpoint, code_breakpoints_at
from .code_layout import (
    BLOCK_INSTRUCTIONS,
    BLOCK_UOPS,
    FIRST_BLOCK,
    INSTRUCTION_UOPS,
    JUMP_SLOTS,
    MAX_BLOCKS,
    MAX_UOPS,
    N_BUCKETS,
    SCRATCH_BLOCK,
)
from .decode import DECODED_OK, TOO_LONG, TRUNCATED, decode
from .fault import raise_fault
from .fused import fuse
from .handlers import NUMBER
from .isolation import has_checked_note, owner_refuses
from .jit import inline, kernel, load_32, store_32
from .layout import (
    ACCESS_FETCH,
    CODE_SHIFT,
    FAULT,
    FRONT_MASK,
    HOOK,
    ISOLATION,
    MAX_INSTRUCTION,
    NEVER,
    OK,
    PROBE_SITES,
    STOPPED,
)
from .lower import lower
from .micro_operations import OP_RAISE_GP, OP_RAISE_UD, new_uop, single
from .paging import translate
from .physical import code_byte
from .physical_map import place_to_read
from .retirement import event_of, guest_instructions, note_at, room_behind
from .stops import WATCH_STOP_CODE, check_code_stop, has_code_stop
from .tables import NO_EVENT
from .tlb import drop_front, front_fetch_fill

OP_FALL_THROUGH, OP_PROBE = NUMBER["fall_through"], NUMBER["stop_probe"]
M32 = 0xFFFFFFFF
PAGE = 0xFFFFF000
D_BIT = 1 << 2  # of a context's attributes
WATCH_ALL_CODE = WATCH_CODE | WATCH_STOP_CODE


@inline
def bucket_of(place, context):
    """The hash bucket of a block."""
    return (place ^ (place >> 14) ^ (context << 9)) & (N_BUCKETS - 1)


@inline
def page_bucket(place):
    """The hash bucket of a page."""
    return (place >> 12) & (N_BUCKETS - 1)


@kernel
def fetch_address(cpu, ram, gla):
    """Translate an instruction fetch, touching the instruction TLB: (outcome, place)."""
    user = int(cpu.cpl == 3)
    slot = cpu.bank + ((gla >> 12) & FRONT_MASK)
    if cpu.front_fetch[slot] == (gla & PAGE) | cpu.fetch_generation:
        return OK, gla + cpu.fetch_addend[slot]
    outcome, physical, rights = translate(cpu, ram, gla, 0, user, 1)
    if outcome != OK:
        return outcome, 0
    place = place_to_read(cpu, ram, physical)
    if cpu.owner_table == 0:
        front_fetch_fill(cpu, gla, place - gla, user)
    elif owner_refuses(cpu, ram, gla, physical, user, ACCESS_FETCH) == 1:
        return ISOLATION, 0
    return OK, place


@kernel
def discard_all(cpu, ram, code, blocks, details):
    """Forget every block, after its executions went to the ledger."""
    settle(cpu, code, blocks, details)
    for index in range(FIRST_BLOCK, code.block_count):
        store_32(ram, cpu.code_map + (blocks[index].place >> 12) * 4, 0)
    code.block_count = FIRST_BLOCK
    code.uop_count = BLOCK_UOPS
    code.buckets[:] = 0
    code.page_heads[:] = 0
    for slot in range(JUMP_SLOTS):
        code.jumps[slot].block = 0
    cpu.flush_code = 0
    cpu.code_write_count = 0


@kernel
def settle_block(cpu, block, details):
    """Write the executions of one block to the ledger, instruction by instruction."""
    n = block.executions
    if n == 0:
        return
    block.executions = 0
    for index in range(block.first, block.first + block.uop_count):
        event = details[index].event
        if event >= 0:
            cpu.ledger_count[event, block.mode] += n
            cpu.ledger_ticks[event, block.mode] += n * cpu.price[event]


@kernel
def settle(cpu, code, blocks, details):
    """Bring the ledger up to date with all blocks."""
    for index in range(SCRATCH_BLOCK, code.block_count):
        settle_block(cpu, blocks[index], details)


@kernel
def discard_written(cpu, ram, code, blocks, details):
    """Kill the blocks whose bytes were written; called at instruction boundaries."""
    if cpu.flush_code == 1:
        discard_all(cpu, ram, code, blocks, details)
        return
    for number in range(cpu.code_write_count):
        discard_piece(cpu, ram, code, blocks, cpu.code_writes[number])
    cpu.code_write_count = 0


@kernel
def discard_piece(cpu, ram, code, blocks, piece):
    """Kill the blocks that overlap one 128-byte piece and rebuild its page's mask."""
    first = piece << CODE_SHIFT
    last = first + (1 << CODE_SHIFT)
    head = page_bucket(first)
    previous = 0
    index = code.page_heads[head]
    mask = 0
    while index != 0:
        block = blocks[index]
        following = block.next_in_page
        same_page = (block.place ^ first) >> 12 == 0
        if same_page and block.place < last and block.end_place > first:
            block.ticks = NEVER
            unlink(code, blocks, index)
            if previous == 0:
                code.page_heads[head] = following
            else:
                blocks[previous].next_in_page = following
        else:
            if same_page:
                mask |= piece_mask(block.place, block.end_place)
            previous = index
        index = following
    store_32(ram, cpu.code_map + (first >> 12) * 4, mask)


@kernel
def unlink(code, blocks, index):
    """Take a dead block out of its hash bucket, so that chains stay short."""
    block = blocks[index]
    bucket = bucket_of(block.place, block.context)
    if code.buckets[bucket] == index:
        code.buckets[bucket] = block.next_in_bucket
        return
    other = code.buckets[bucket]
    while other != 0 and blocks[other].next_in_bucket != index:
        other = blocks[other].next_in_bucket
    if other != 0:
        blocks[other].next_in_bucket = block.next_in_bucket


@kernel
def piece_mask(place, end):
    """The mask bits of the pieces that bytes place..end-1 of one page touch."""
    mask = 0
    for piece in range(place >> CODE_SHIFT, ((end - 1) >> CODE_SHIFT) + 1):
        mask |= 1 << (piece & 31)
    return mask


@kernel
def mark_code(cpu, ram, place, end):
    """Note that bytes place..end-1 of one page are code, so that a write there is noticed."""
    address = cpu.code_map + (place >> 12) * 4
    mask = load_32(ram, address)
    if mask == 0:
        # Plain writes to this page must be seen from now on, through whatever linear address.
        drop_front(cpu)
    store_32(ram, address, mask | piece_mask(place, end))


@kernel
def mark_repeated(cpu, ram, d, place, room, second):
    """Mark a repeated instruction, which may write over itself: its next iteration is that of the new bytes.

    The first `room` bytes lie at `place`, what is longer at `second`. Blocks are marked when they are registered.
    """
    end = place + min(d.length, room)
    if end <= cpu.place_last + 1:
        mark_code(cpu, ram, place, end)
    end = second + d.length - room
    if d.length > room and end <= cpu.place_last + 1:
        mark_code(cpu, ram, second, end)


@kernel
def register_block(cpu, ram, code, blocks, index):
    """Enter a new block into the hash and page chains, and mark its bytes as code."""
    block = blocks[index]
    bucket = bucket_of(block.place, block.context)
    block.next_in_bucket = code.buckets[bucket]
    code.buckets[bucket] = index
    head = page_bucket(block.place)
    block.next_in_page = code.page_heads[head]
    code.page_heads[head] = index
    mark_code(cpu, ram, block.place, block.end_place)


@kernel
def fill_window(cpu, ram, d, place, count):
    """Copy instruction bytes that lie on one page into the decoder's window."""
    for number in range(count):
        d.window[number] = code_byte(ram, place + number)
    d.available = count


@kernel
def start_block(cpu, code, blocks, index, first, place):
    """Initialise a block record at the current context and address."""
    block = blocks[index]
    block.place = place
    block.rip = cpu.rip
    block.ticks = 0
    block.executions = 0
    block.first = first
    block.uop_count = 0
    block.instructions = 0
    block.counted = 0
    block.room = 0
    block.context = cpu.context
    block.mode = cpu.mode
    block.links[0] = 0
    block.links[1] = 0
    block.end_place = place


@inline
def probe_site(rip, row, mode):
    """An instruction of one place and mode, as `cpu.probe_sites` names it."""
    return rip | row << 32 | mode << 42


@kernel
def is_probed(cpu, d):
    """Whether an instruction is reported before it executes, by its row; one that is known no longer."""
    if (cpu.probe[d.row] >> cpu.mode) & 1 == 0 or cpu.probe_skip != 0:
        return False
    site = probe_site(d.rip, d.row, cpu.mode)
    for number in range(cpu.probe_known):
        if cpu.probe_sites[number] == site:
            return False
    return True


@kernel
def let_pass(cpu, rip, row, mode):
    """Let an instruction execute unreported from now on, while there is room to name it."""
    if cpu.probe_known < PROBE_SITES:
        cpu.probe_sites[cpu.probe_known] = probe_site(rip, row, mode)
        cpu.probe_known += 1
        cpu.flush_code = 1


@kernel
def replaced(why):
    """The micro-operation that stands for an instruction which did not decode."""
    if why == TOO_LONG:
        return OP_RAISE_GP
    return OP_RAISE_UD


@kernel
def append_instruction(cpu, ram, uops, details, block, d, why, place):
    """Lower one decoded instruction, whose bytes begin at `place`, into a block and book its price."""
    i = block.first + block.uop_count
    if why != DECODED_OK:
        d.length = 0
        d.has_memory = 0
        d.next_rip = d.rip
        end = single(uops, i, d, replaced(why))
    elif d.rip + d.length - 1 > cpu.seg[CS].limit:
        end = single(uops, i, d, OP_RAISE_GP)
    elif cpu.probe_on == 1 and is_probed(cpu, d):
        end = single(uops, i, d, OP_PROBE)
        uops[i].imm = d.row
    else:
        end = lower(cpu, uops, i, d)
        if i > block.first:
            fuse(uops, i)
    for number in range(i, end):
        detail = details[number]
        detail.rip = d.rip
        detail.ticks_before = block.ticks
        detail.event = NO_EVENT
        detail.row = d.row
        detail.number = block.instructions
        detail.counted_before = block.counted
        detail.length = d.length
    note = note_at(cpu, ram, place)
    details[end - 1].event = event_of(cpu, note)  # of those that count one, all have several micro-operations
    if d.event >= 0:
        details[i].event = d.event
        block.ticks += cpu.price[d.event]
    block.uop_count += end - i
    block.instructions += 1
    block.counted += guest_instructions(cpu, note)
    block.room = room_behind(cpu, note, block.counted)


@kernel
def end_block(uops, details, block, d):
    """Close a block that does not end in a branch."""
    i = block.first + block.uop_count
    u = new_uop(uops, i, d, OP_FALL_THROUGH, 32)
    u.target = d.next_rip
    detail = details[i]
    detail.rip = d.next_rip
    detail.ticks_before = block.ticks
    detail.event = NO_EVENT
    detail.number = block.instructions
    detail.counted_before = block.counted
    detail.length = 0
    block.uop_count += 1


@kernel
def code_is_16_bit(cpu):
    """1 if the code segment's D bit is clear."""
    return int(cpu.contexts[cpu.context].attributes & D_BIT == 0)


@kernel
def decode_one(cpu, ram, d, place, gla):
    """Decode at a place; an instruction that crosses its page is fetched through both: (outcome, why)."""
    room = 0x1000 - (place & 0xFFF)
    fill_window(cpu, ram, d, place, min(room, MAX_INSTRUCTION))
    d.code_16 = code_is_16_bit(cpu)
    why = decode(d)
    if why != TRUNCATED:
        if why == DECODED_OK and d.rep_prefix != 0:
            mark_repeated(cpu, ram, d, place, room, 0)
        return OK, why
    if d.rip + room > cpu.seg[CS].limit:
        # The bytes that lack lie beyond the segment: that is found before their page is looked at.
        return raise_fault(cpu, GP, 0), why
    outcome, second = fetch_address(cpu, ram, (gla + room) & M32)
    if outcome != OK:
        return outcome, why
    for number in range(room, MAX_INSTRUCTION):
        d.window[number] = code_byte(ram, second + number - room)
    d.available = MAX_INSTRUCTION
    why = decode(d)
    if why == DECODED_OK and d.rep_prefix != 0:
        mark_repeated(cpu, ram, d, place, room, second)
    return OK, why


@kernel
def decode_single(cpu, ram, code, blocks, uops, details, place):
    """Decode the one instruction at cpu.rip into the scratch block: (outcome, block)."""
    d = code.decoded[0]
    settle_block(cpu, blocks[SCRATCH_BLOCK], details)
    d.rip = cpu.rip
    cpu.code_place = place
    outcome, why = decode_one(cpu, ram, d, place, (cpu.rip + cpu.seg[CS].seg_base) & M32)
    if outcome != OK:
        return outcome, 0
    start_block(cpu, code, blocks, SCRATCH_BLOCK, 0, place)
    block = blocks[SCRATCH_BLOCK]
    append_instruction(cpu, ram, uops, details, block, d, why, place)
    if d.ends_block == 0:
        end_block(uops, details, block, d)
    return OK, SCRATCH_BLOCK


@kernel
def is_watched(cpu, gla):
    """Whether an instruction breakpoint or a stop lies at a linear address."""
    return code_breakpoints_at(cpu, gla) != 0 or has_code_stop(cpu, gla)


@kernel
def decode_block(cpu, ram, code, blocks, uops, details, place):
    """Decode straight-line code from cpu.rip to the end of the block: (outcome, block).

    An instruction that crosses the page is never kept: each execution must touch both pages' translations.
    """
    if code.block_count >= MAX_BLOCKS or code.uop_count + BLOCK_UOPS + INSTRUCTION_UOPS >= MAX_UOPS:
        discard_all(cpu, ram, code, blocks, details)
    d = code.decoded[0]
    d.code_16 = code_is_16_bit(cpu)
    index = code.block_count
    start_block(cpu, code, blocks, index, code.uop_count, place)
    block = blocks[index]
    rip = cpu.rip
    address = place
    page_end = (place | 0xFFF) + 1
    while True:
        d.rip = rip
        fill_window(cpu, ram, d, address, min(page_end - address, MAX_INSTRUCTION))
        why = decode(d)
        if why == TRUNCATED:
            if block.instructions == 0:
                return decode_single(cpu, ram, code, blocks, uops, details, place)
            break
        if why != DECODED_OK and block.instructions > 0:
            break
        append_instruction(cpu, ram, uops, details, block, d, why, address)
        address += d.length
        rip = d.next_rip
        if d.ends_block == 1 or address >= page_end or rip != d.rip + d.length:
            break
        if has_checked_note(cpu, place):
            break
        if cpu.watch & WATCH_ALL_CODE != 0 and is_watched(cpu, (rip + cpu.seg[CS].seg_base) & M32):
            break  # no block runs on over a breakpoint or begins there, so that control comes to `find_block`
        if block.instructions >= BLOCK_INSTRUCTIONS or block.uop_count >= BLOCK_UOPS - INSTRUCTION_UOPS:
            break
    if d.ends_block == 0 or why == TRUNCATED or (why != DECODED_OK and block.instructions > 1):
        d.next_rip = rip
        end_block(uops, details, block, d)
    block.end_place = address + int(address == place)
    code.block_count = index + 1
    code.uop_count += block.uop_count
    register_block(cpu, ram, code, blocks, index)
    return OK, index


@kernel
def find_block(cpu, ram, code, blocks, uops, details):
    """The block at cpu.rip in the current context, decoded if need be: (outcome, block)."""
    gla = (cpu.rip + cpu.seg[CS].seg_base) & M32
    if at_hook(cpu):
        return HOOK, 0
    stops = cpu.watch & WATCH_STOP_CODE != 0 and has_code_stop(cpu, gla)
    if stops and check_code_stop(cpu, gla) != OK:
        return STOPPED, 0
    if cpu.watch & WATCH_CODE != 0 and check_code_breakpoint(cpu, gla) != OK:
        return FAULT, 0
    if cpu.rip > cpu.seg[CS].limit:
        return raise_fault(cpu, GP, 0), 0
    outcome, place = fetch_address(cpu, ram, gla)
    if outcome != OK:
        return outcome, 0
    cpu.code_place = place
    index = code.buckets[bucket_of(place, cpu.context)]
    while index != 0:
        block = blocks[index]
        if block.place == place and block.context == cpu.context and block.rip == cpu.rip:
            return OK, index
        index = block.next_in_bucket
    if place > cpu.place_last or cpu.probe_skip == 1 or stops:
        return decode_single(cpu, ram, code, blocks, uops, details, place)
    return decode_block(cpu, ram, code, blocks, uops, details, place)
