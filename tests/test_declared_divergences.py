"""What trap-and-emulate declares to diverge on x86 is exactly what the probe finds: nothing else, and nothing in vain.

Held for the guest's kernel in ring 1 and in ring 3, over examples of every sensitive instruction in every mode.
"""

from __future__ import annotations

import pytest
from sensitive_cases import SENSITIVE_ROWS, far_frame, kernel_of, some_cases
from small_kernel import (
    CODE_3,
    DATA,
    DATA_3,
    EAX,
    GDT,
    PTE_P,
    PTE_RW,
    PTE_US,
    TABLE,
    Step,
    invlpg,
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
    found = probed(extra, under)
    for row in SENSITIVE_ROWS:
        if row.silent or row.silent_user:
            found |= probed(kernel_of(some_cases(row, OF_ROW)), under)
    return found


@pytest.mark.parametrize("under", VARIANTS)
def test_declared_is_what_is_found(under: str) -> None:
    found, declared = divergences(under), set(type(strategy(under)).known_divergences)
    assert found == declared, (sorted(found - declared), sorted(declared - found))
