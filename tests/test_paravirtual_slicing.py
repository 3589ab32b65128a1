"""A run that is cut into pieces anywhere ends as the unbroken one: timers, blocking, idling, a second domain."""

from __future__ import annotations

import pytest
from paravirtual_kernel import DATA, FREE, Kernel, Step, hypercall, log, memory_of, start
from small_kernel import ECX, mov, store, word

from x86virt import Machine
from x86virt.core.layout import NEVER
from x86virt.saved import machine_bytes, machine_of

SHARED = 0xA1000  # of domain 1
PENDING, MASK = 0x800, 0x880
MAX_CYCLES = 3_000_000
BLOCK, BIND_VIRQ, FLUSH_PAGE = 1, 1, 2
PAGE = 0x63  # present, writable, accessed, dirty
ONWARD = b"\xeb\xfe"  # JMP $


def later(nanoseconds: int) -> bytes:
    """set_timer_op so much behind the system time of the record in the shared page."""
    code = b"\xa1" + word(FREE + 32 + 16) + b"\x05" + word(nanoseconds)  # MOV EAX, [system time]; ADD EAX, n
    return code + b"\x89\xc3\x31\xc9" + hypercall("set_timer_op")  # MOV EBX, EAX; XOR ECX, ECX


def ready() -> bytes:
    """Nothing pending, events open."""
    return store(FREE + 4, 0) + store(FREE + PENDING, 0) + store(FREE + MASK, 0) + store(FREE, 0)


def kernel() -> Kernel:
    """Four times: a timer is set, the domain blocks or goes on, its callback is entered."""
    code = hypercall("update_va_mapping", FREE, SHARED | PAGE, 0, FLUSH_PAGE)
    code += hypercall("event_channel_op", BIND_VIRQ, DATA + 0x100)  # VIRQ_TIMER
    steps = []
    for nanoseconds, blocks in ((30_000, True), (5_000, True), (20_000, False), (40_000, True)):
        code += ready() + later(nanoseconds) + hypercall("sched_op", BLOCK, 0) * blocks + ONWARD
        steps.append(Step(code))
        code = b""
    return Kernel(steps)


def state(machine: Machine) -> tuple[object, ...]:
    """All that two runs have to agree in."""
    cpu = machine.processor.cpu
    ledger = machine.ledger()
    return (
        machine.outcome, int(cpu.ticks), int(cpu.retired), log(machine), memory_of(machine, 0, 0x10000),
        ledger.count.tobytes(), ledger.ticks.tobytes(), bytes(machine.vm.domains.tobytes()), bytes(machine.vm.channels.tobytes()),
    )  # fmt: skip


def in_pieces(cycles: int) -> Machine:
    """Run with a pause every so many cycles."""
    machine = start(kernel())
    pause = cycles
    while machine.advance(NEVER, MAX_CYCLES, pause):
        pause += cycles
    return machine


def test_timers_wake_the_domain() -> None:
    """Each time the callback is entered, and no sooner than asked for."""
    machine = in_pieces(MAX_CYCLES)
    assert machine.outcome == "exited 1", machine.outcome
    assert len(log(machine)) == 4


@pytest.mark.parametrize("cycles", [101, 997, 10_007])
def test_cycles_do_not_depend_on_pauses(cycles: int) -> None:
    """Ticks, instructions, ledger, memory and the records of domains."""
    assert state(in_pieces(cycles)) == state(in_pieces(MAX_CYCLES))


def test_a_saved_machine_goes_on(cycles: int = 70_001) -> None:
    """Saved and restored at every pause, asleep or awake."""
    machine = start(kernel())
    pause = cycles
    while machine.advance(NEVER, MAX_CYCLES, pause):
        machine = machine_of(machine_bytes(machine), "pause")
        pause += cycles
    assert pause > 3 * cycles and state(machine) == state(in_pieces(MAX_CYCLES))


def test_a_list_is_gone_through_at_once() -> None:
    """However long the machine has been running: what counts is how long the hypercall takes."""
    entries = b"".join(word(17) + word(-1) + bytes(24) for _ in range(20))  # xen_version(0)
    wait = mov(ECX, 40_000) + b"\xe2\xfe"  # LOOP $
    made = Kernel([Step(wait + hypercall("multicall", FREE, 20))], octets={FREE: entries})
    machine = start(made)
    machine.vm.xen.quantum = 64 * 40_000
    result = machine.run(MAX_CYCLES)
    assert result.outcome == "exited 1" and int(machine.vm.xen.calls[13]) == 1 and int(machine.vm.xen.calls[17]) == 20
    assert results_of(machine) == [word(3 << 16 | 4)] * 20


def results_of(machine: Machine) -> list[bytes]:
    """The results in the list."""
    octets = memory_of(machine, FREE, 640)
    return [octets[place : place + 4] for place in range(4, 640, 32)]
