"""Upcalls: pending events enter the domain's callback on the kernel's stack, with events masked; the frame says as it was."""

import pytest
from paravirtual_kernel import (
    DATA,
    EVENT,
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING3_CS,
    FLAT_RING3_DS,
    FREE,
    IF,
    STEPS,
    USER_STACK,
    Kernel,
    Step,
    calls,
    entry_of,
    hypercall,
    log,
    results,
    run,
)
from small_kernel import EAX, load, mov, push, save, store, word

from x86virt.vmm.paravirtual import layout
from x86virt.vmm.paravirtual.interface import NUMBER_OF, UVMF_INVLPG, EVTCHNOP_bind_ipi, EVTCHNOP_send, EVTCHNOP_unmask

ARGUMENTS = 0x6900
FORCE = hypercall("xen_version", 0, 0)


def channel_op(operation: int, *words: int) -> bytes:
    """event_channel_op with constant arguments."""
    return b"".join(store(ARGUMENTS + 4 * n, value) for n, value in enumerate(words)) + hypercall(
        "event_channel_op", operation, ARGUMENTS
    )


def with_port(operation: int) -> bytes:
    """The same for the port that bind_ipi gave, which is kept at DATA + 0x40."""
    return load(EAX, DATA + 0x40) + save(ARGUMENTS, EAX) + hypercall("event_channel_op", operation, ARGUMENTS)


BIND = (
    channel_op(EVTCHNOP_bind_ipi, 0, 0) + load(EAX, ARGUMENTS + 4) + save(DATA + 0x40, EAX) + with_port(EVTCHNOP_unmask)
)
SHARE = hypercall(
    "update_va_mapping", FREE, layout.SHARED_INFO + 0x1000 | 0x67, 0, UVMF_INVLPG
)  # the shared page is at FREE
SEND = with_port(EVTCHNOP_send)


def iret(eip: int, cs: int, flags: int, *outer: int) -> bytes:
    """The iret hypercall."""
    return (
        b"".join(push(value) for value in reversed((0, eip, cs, flags, *outer)))
        + mov(EAX, NUMBER_OF["iret"])
        + b"\xcd\x82"
    )


def test_an_event_waits_until_it_is_let_in() -> None:
    """Masked at first; iret with IF enters the callback instead of going on, with what it would have gone on to in the frame."""
    landing = STEPS + 0x800
    steps = [Step(BIND + calls(SEND) + FORCE + b"\xcc"), Step(iret(landing, FLAT_RING1_CS, 0x202)), Step(b"\xcc")]
    machine, result = run(Kernel(steps, octets={landing: b"\x0f\x0b"}, flags=0))
    assert result.outcome == "exited 1" and results(machine, 1) == [0]
    rows = log(machine)
    assert [row[0] for row in rows] == [3, EVENT, 3]
    assert rows[0][2] == FLAT_RING1_CS | 1 << 16
    assert rows[1][1:4] == [landing, FLAT_RING1_CS, 0x202]  # not masked before
    assert rows[2][2] == FLAT_RING1_CS | 1 << 16 and rows[2][3] & IF == 0  # masked behind it


def test_an_upcall_from_ring_3_is_on_the_kernels_stack() -> None:
    """As an interrupt of a program: SS and ESP are in the frame."""
    landing = STEPS + 0x800
    steps = [Step(BIND + SEND + iret(landing, FLAT_RING3_CS, 0x202, USER_STACK - 16, FLAT_RING3_DS))]
    machine, result = run(Kernel(steps, octets={landing: b"\x0f\x0b"}))
    assert result.outcome == "exited 1"
    (row,) = log(machine)
    assert row[:6] == [EVENT, landing, FLAT_RING3_CS, 0x202, USER_STACK - 16, FLAT_RING3_DS]


@pytest.mark.parametrize("masks", (False, True))
def test_an_exception_and_an_event_at_once(masks: bool) -> None:
    """An exception whose handler wants events masked comes alone; one that does not is interrupted at once."""
    body = BIND + SEND + SHARE + b"\xc6\x05" + word(FREE + 1) + b"\x00" + b"\x0f\x0b"
    machine, result = run(Kernel([Step(body)], flags=4 if masks else 0))
    assert result.outcome == "exited 1"
    (row,) = log(machine)
    exception = [STEPS + 10 + len(body) - 2, FLAT_RING1_CS]
    if masks:
        assert row[0] == 6 and row[1:3] == exception
    else:
        assert row[:3] == [EVENT, entry_of(6), FLAT_RING1_CS] and row[4:6] == exception


def test_a_callback_that_cannot_be_entered_ends_the_domain() -> None:
    """A null code segment, or a stack that is not there."""
    landing = STEPS + 0x800
    go = BIND + SEND + iret(landing, FLAT_RING1_CS, 0x202)
    _, result = run(Kernel([Step(hypercall("set_callbacks", 0, 0, 0, 0) + go)], octets={landing: b"\x90"}))
    assert result.outcome == "crashed: the upcall found no callback"
    away = hypercall("stack_switch", FLAT_RING1_DS, 0x700000)
    go = BIND + SEND + away + iret(landing, FLAT_RING3_CS, 0x202, USER_STACK, FLAT_RING3_DS)
    _, result = run(Kernel([Step(go)], octets={landing: b"\x90"}))
    assert result.outcome == "crashed: its kernel's stack for traps could not be written"


def test_a_callback_may_return_by_the_iret_hypercall() -> None:
    """The whole way: event, callback, iret, and the code goes on that was interrupted, its registers as they were."""
    landing, handler = STEPS + 0x800, STEPS + 0xA00
    # The callback: EAX on the stack, where iret takes it from; bit 9 of the image of EFLAGS is set already.
    code = b"\xc6\x05" + word(FREE) + b"\x00\xff\x05" + word(DATA) + b"\x50" + mov(EAX, NUMBER_OF["iret"]) + b"\xcd\x82"
    body = mov(EAX, 0x1234) + b"\x40\x40" + save(DATA + 4, EAX) + SEND + SEND + save(DATA + 8, EAX) + b"\x0f\x0b"
    register = hypercall("set_callbacks", FLAT_RING1_CS, handler, FLAT_RING1_CS, 0)
    steps = [Step(SHARE + BIND + register + iret(landing, FLAT_RING1_CS, 0x202))]
    machine, result = run(Kernel(steps, octets={landing: body, handler: code}))
    assert result.outcome == "exited 1"
    assert results(machine, 3) == [
        1,
        0x1236,
        0,
    ]  # the bit of the port is not cleared by this callback: the second is merged
    assert [row[:2] for row in log(machine)] == [[6, landing + len(body) - 2]]
