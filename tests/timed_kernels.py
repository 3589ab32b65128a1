"""Kernels into which a timer's interrupts come: the interval timer runs, and a handler acknowledges and counts.

What comes where depends on the VMM's time; the bare machine is given the same interrupts and must accept each (E2).
"""

from __future__ import annotations

from descriptor_machine import gate
from hypothesis import strategies as st
from random_kernels import anywhere
from small_kernel import CODE_0, DATA, EBX, ECX, EDI, ESI, WORDS, Kernel, Step, mov, push, word
from vmm_pieces import (
    CALL_EBX,
    NEAR,
    PATCHED,
    ROUTINES,
    call_at,
    changes,
    flags,
    furnished,
    global_uses,
    loop_of,
    segments_in_kernel,
    transfers,
    uses,
    values,
)

MASTER_BASE = 0x88
TICK = 0x4A00  # behind the stubs of all vectors
TICKS_SEEN = WORDS + 0x24


def out(port: int, value: int) -> bytes:
    """MOV AL, imm8; OUT imm8, AL."""
    return bytes([0xB0, value, 0xE6, port])


def in_time(period: int) -> bytes:
    """Both controllers set up, the timer's line alone open, and the timer in mode 2."""
    code = b"".join(
        out(port, value) for port, value in ((0x20, 0x11), (0x21, MASTER_BASE), (0x21, 4), (0x21, 1), (0x21, 0xFE))
    )
    code += b"".join(
        out(port, value) for port, value in ((0xA0, 0x11), (0xA1, 0x70), (0xA1, 2), (0xA1, 1), (0xA1, 0xFF))
    )
    return code + out(0x43, 0x34) + out(0x40, period & 0xFF) + out(0x40, period >> 8)


HANDLER = b"\x50" + out(0x20, 0x20) + b"\xff\x05" + word(TICKS_SEEN) + b"\x58\xcf"


def timed(steps: list[Step], period: int) -> Kernel:
    """A furnished kernel in time."""
    kernel = furnished([Step(in_time(period)), *steps, Step(b"\xfa")])
    kernel.gates[MASTER_BASE] = gate(CODE_0, TICK, 14)
    kernel.octets[TICK] = HANDLER
    return kernel


def string_work(opcode: int, count: int, down: bool) -> bytes:
    """A repeated string instruction long enough to be interrupted."""
    place = 0x78000
    return (
        mov(ECX, count)
        + mov(ESI, place)
        + mov(EDI, place - 0x4000)
        + (b"\xfd" if down else b"\xfc")
        + bytes([0xF3, opcode])
        + b"\xfc"
    )


def call_often(place: int, count: int) -> bytes:
    """Call a routine in a loop; EBP counts."""
    body = b"\x51" + mov(ECX, 1) + mov(EBX, place) + CALL_EBX + b"\x59"
    return loop_of(body, count)


often_called = st.sampled_from((ROUTINES, ROUTINES + 0x40, ROUTINES + 0x60, ROUTINES + 0xFFD))
loops = st.sampled_from((b"\x42", b"\x01\xd0\xf5", b"\xff\x05" + word(DATA + 0xC00)))
long_work = st.one_of(
    st.builds(
        string_work, st.sampled_from((0xA4, 0xA5, 0xAA)), st.sampled_from((900, 9000, 15000)), st.booleans()
    ),
    st.builds(loop_of, loops, st.sampled_from((50, 900, 2000))),
    st.builds(call_often, often_called, st.sampled_from((20, 90))),
    st.builds(lambda n: mov(ECX, n) + mov(EBX, PATCHED) + CALL_EBX, st.sampled_from((5, 60))),
)  # fmt: skip
others = st.one_of(
    transfers,
    flags,
    changes,
    uses,
    global_uses,
    anywhere,
    st.builds(call_at, st.sampled_from(NEAR), st.integers(0, 3), values),
)
windows = st.sampled_from(
    (b"\xfb", b"\xfa", b"\xfb\xfa", b"\xfb\x90", b"\xfb\xf4", b"\xfb\xf4", b"\xfb\x90\xf4\xfa",
     push(0x202) + push(CODE_0) + b"\xe8\x00\x00\x00\x00\x83\x04\x24\x05\xcf")
)  # fmt: skip
kernel_steps = st.builds(
    lambda pieces: Step(b"\xfb" + b"".join(pieces)),
    st.lists(st.one_of(long_work, long_work, windows, windows, others, segments_in_kernel), min_size=2, max_size=6),
)
user_steps = st.builds(
    lambda pieces, image: Step(b"".join(pieces), 3, image),
    st.lists(st.one_of(long_work, long_work, others), min_size=1, max_size=5), st.sampled_from((0x202, 0x202, 0x2, 0x302)),
)  # fmt: skip
timed_kernels = st.builds(
    timed, st.lists(st.one_of(kernel_steps, user_steps), min_size=4, max_size=10), st.sampled_from((20, 30, 60))
)
