"""Records of decoded code: micro-operations, blocks, and how they are found (core/code.py).

They follow the rules of core/layout.py.
"""

import numpy as np

UOP = np.dtype(
    [
        ("op", "i8"),
        ("dst", "i8"),
        ("src", "i8"),
        ("imm", "i8"),
        ("base_register", "i8"),
        ("index_register", "i8"),
        ("scale", "i8"),
        ("disp", "i8"),
        ("segment", "i8"),
        ("target", "i8"),  # branch target, or the address of the next instruction
        ("dst_shift", "i8"),
        ("src_shift", "i8"),
        ("width", "i8"),  # bits: 8, 16 or 32
        ("condition", "i8"),
        ("address_mask", "i8"),  # what offsets, counts and string pointers wrap at, by the address size
        ("information", "i8"),  # of `intercept`: the VM-exit instruction information; all in all 128 bytes
    ]
)
DETAIL = np.dtype(  # one per micro-operation, read only when something leaves the straight path
    [
        ("rip", "i8"),  # of the instruction
        ("ticks_before", "i8"),  # of the block's instructions before this one
        ("event", "i8"),  # the ledger event that prices this instruction, -1 for a later micro-operation of it
        ("row", "i8"),
        ("number", "i8"),  # of the instruction in its block
        ("counted_before", "i8"),  # guest instructions of the block before this one
        ("length", "i8"),  # bytes
    ]
)
BLOCK = np.dtype(
    [
        ("place", "i8"),  # of the first byte (core/physical_map.py): for RAM, its physical address
        ("rip", "i8"),
        ("ticks", "i8"),  # of all its instructions; NEVER once it is dead
        ("executions", "i8"),
        ("first", "i8"),  # micro-operation index
        ("uop_count", "i8"),
        ("instructions", "i8"),
        ("counted", "i8"),  # guest instructions among them: all; none in the VMM's mode; of translated code, as noted
        ("context", "i8"),
        ("mode", "i8"),
        ("links", "i8", 2),  # block after EDGE_FALL and EDGE_TAKEN, 0 unknown
        ("next_in_bucket", "i8"),
        ("next_in_page", "i8"),
        ("end_place", "i8"),  # one past its last byte
        ("room", "i8"),  # guest instructions that a limit must leave for it to run whole; all in all 128 bytes
    ]
)
JUMP = np.dtype([("rip", "i8"), ("context", "i8"), ("block", "i8")])

MAX_BLOCKS = 1 << 16
MAX_UOPS = 1 << 18
N_BUCKETS = 1 << 16
JUMP_SLOTS = 1 << 12
BLOCK_UOPS = 96  # micro-operations that one block may hold
INSTRUCTION_UOPS = 6  # that one instruction may need
BLOCK_INSTRUCTIONS = 32
SCRATCH_BLOCK = 1  # decoded afresh for every instruction that executes by itself; block 0 is none
FIRST_BLOCK = 2

DECODED = np.dtype(  # one instruction, as the decoder leaves it
    [
        ("window", "u1", 16),  # its bytes, as far as they could be fetched
        ("available", "i8"),  # bytes in the window
        ("length", "i8"),
        ("row", "i8"),
        ("code_16", "i8"),  # 1: operands and addresses have 16 bits by default; set by the caller
        ("width", "i8"),  # operand size in bits, 16 or 32
        ("address_width", "i8"),  # address size in bits, 16 or 32
        ("segment", "i8"),  # of the memory operand
        ("override", "i8"),  # segment override, -1 none
        ("rep_prefix", "i8"),  # 0, 0xF2 or 0xF3
        ("lock", "i8"),
        ("modrm_mod", "i8"),
        ("modrm_reg", "i8"),
        ("modrm_rm", "i8"),
        ("has_memory", "i8"),
        ("base_register", "i8"),
        ("index_register", "i8"),
        ("scale", "i8"),
        ("disp", "i8"),
        ("imm", "i8"),
        ("imm2", "i8"),
        ("opcode", "i8"),
        ("rip", "i8"),
        ("next_rip", "i8"),
        ("ends_block", "i8"),
        ("event", "i8"),
    ]
)

CODE = np.dtype(
    [
        ("block_count", "i8"),
        ("uop_count", "i8"),
        ("buckets", "i8", N_BUCKETS),  # first block by hash of physical address and context
        ("page_heads", "i8", N_BUCKETS),  # first block by hash of the physical page
        ("jumps", JUMP, JUMP_SLOTS),
        ("decoded", DECODED, 1),
    ]
)
