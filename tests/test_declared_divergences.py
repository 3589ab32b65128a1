"""What trap-and-emulate declares to diverge on x86 is exactly what the probe finds: nothing else, and nothing in vain.

Held for the guest's kernel in ring 1 and in ring 3, over examples of every sensitive instruction in every mode.
"""

from __future__ import annotations

import pytest
from sensitive_cases import SENSITIVE_ROWS, far_frame, kernel_of, some_cases
from small_kernel import (
    CODE_0,
    CODE_3,
    DATA,
    DATA_0,
    DATA_3,
    EAX,
    GDT,
    PTE_P,
    PTE_RW,
    PTE_US,
    TABLE,
    Step,
    far_jump,
    invlpg,
    load_segment,
    mov,
    push,
    start,
    store,
    strategy,
    word,
)
from vmm_pieces import furnished

VARIANTS = ("trap-and-emulate", "trap-and-emulate,ring=3")
Key = tuple[str, str, str]
MOST_CYCLES = 40_000_000
OF_ROW = 24  # cases
AT = 0x5F000  # where a program's return goes on
FLD1 = b"\xd9\xe8"
TO_MEMORY = word(DATA + 0x100)

# LAR, LSL, VERR and VERW read the GDT, whose page is marked accessed then; here it is not yet.
UNREAD = store(TABLE + GDT // 0x400, GDT & ~0xFFF | PTE_P | PTE_RW | PTE_US) + invlpg(GDT)
# What needs more than the instruction itself.
EXAMPLES = (
    *(Step(UNREAD + mov(EAX, DATA_3) + b"\x0f" + octets) for octets in (b"\x02\xd8", b"\x03\xd8", b"\x00\xe0", b"\x00\xe8")),
    Step(FLD1 + b"\xd9\x35" + TO_MEMORY),  # FNSTENV: the pointer to the last instruction holds CS
    Step(FLD1 + b"\xdd\x35" + TO_MEMORY),
    Step(FLD1 + b"\x0f\xae\x05" + TO_MEMORY),
    # IRET of a program with IOPL 3 clears IF.
    Step(push(DATA_3) + push(0x31000) + far_frame(True, [(CODE_3, AT)], 0x3002) + b"\xcf", 3, 0x3202),
)


# What CS or SS was loaded with and no table says any more hangs on an entry of the VMM's own; the guest loads that.
OWN_CODE, OWN_STACK = 0xFFE0, 0xFFE8
POINTER = DATA + 0x180
ANOTHER = 1 << 20  # the bit of a descriptor that software may use


def stale(code: int, data: int) -> bytes:
    """XOR: the running CS and SS are no longer what the table says."""
    return b"".join(b"\x81\x35" + word(GDT + (selector & ~7) + 4) + word(ANOTHER) for selector in (code, data))


def own_entry_steps(ring: int, level: int) -> list[Step]:
    """Every way to load a segment register, from entries that the processor has for the VMM in the guest's ring."""
    code, data = OWN_CODE | level, OWN_STACK | level
    begin = stale(*((CODE_0, DATA_0) if ring == 0 else (CODE_3, DATA_3)))
    pops = (b"\x07", b"\x17", b"\x1f", b"\x0f\xa1", b"\x0f\xa9")
    far_pointers = (b"\xc4", b"\xc5", b"\x0f\xb2", b"\x0f\xb4", b"\x0f\xb5")
    loads = [load_segment(3, data)]
    loads += [push(data) + pop for pop in pops]
    loads += [store(POINTER, 0x31000) + store(POINTER + 4, data) + octets + b"\x25" + word(POINTER) for octets in far_pointers]
    pointer = store(POINTER, AT) + store(POINTER + 4, code)
    returns = (b"\xcb", b"\xca\x00\x00")
    loads += [far_jump(code, AT), b"\x9a" + far_jump(code, AT)[1:], pointer + b"\xff\x2d" + word(POINTER)]
    loads += [pointer + b"\xff\x1d" + word(POINTER), *(push(code) + push(AT) + octets for octets in returns)]
    loads.append(push(0x202) + push(code) + push(AT) + b"\xcf")
    return [Step(begin + octets, ring) for octets in loads]


def own_entries(under: str) -> set[Key]:
    """What the probe finds where the guest loads them."""
    found: set[Key] = set()
    for ring, level in ((0, 3 if "ring=3" in under else 1), (3, 3)):
        kernel = furnished(own_entry_steps(ring, level))
        kernel.octets[AT] = b"\xcd\x80"
        found |= {key for key in probed(kernel, under) if key[2] == "segment"}
    return found


def probed(kernel, under: str) -> set[Key]:
    """What the probe finds in a kernel's run, by instruction, mode and field."""
    machine = start(kernel, strategy(under))
    machine.run(MOST_CYCLES)
    assert machine.outcome == "exited 1" and machine.probe is not None
    return {row.key for row in machine.probe.divergences}


def divergences(under: str) -> set[Key]:
    """What it finds in all examples."""
    extra = furnished(list(EXAMPLES))
    extra.octets[AT] = b"\x9c\x58" + mov(3, 0) + b"\xcd\x80"
    found = probed(extra, under) | own_entries(under)
    for row in SENSITIVE_ROWS:
        if row.silent or row.silent_user:
            found |= probed(kernel_of(some_cases(row, OF_ROW)), under)
    return found


@pytest.mark.parametrize("under", VARIANTS)
def test_declared_is_what_is_found(under: str) -> None:
    found, declared = divergences(under), set(type(strategy(under)).known_divergences)
    assert found == declared, (sorted(found - declared), sorted(declared - found))
