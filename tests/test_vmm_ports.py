"""INS, OUTS, RDPMC and the performance registers under trap-and-emulate: equal to the bare machine, and restartable."""

from __future__ import annotations

import pytest
from small_kernel import (
    CODE_READ,
    DATA,
    EAX,
    ECX,
    EDI,
    EDX,
    ESI,
    PTE_P,
    PTE_RW,
    PTE_US,
    RAM_BYTES,
    READ_ONLY,
    SHORT_DATA,
    TSS,
    Kernel,
    Step,
    both,
    far_jump,
    load_segment,
    log,
    mov,
    push,
    run,
    save,
    set_cr,
    start,
    strategy,
    word,
)

from x86virt import Machine, load_profile
from x86virt.equivalence import compare_runs

PAGE = 0x88000
UP = PTE_P | PTE_RW | PTE_US
CONSOLE, MASK, SINK = 0xE9, 0x21, 0x80
REP_OUTSB, REP_INSB, REP_OUTSW, REP_OUTSD, REP_INSD = b"\xf3\x6e", b"\xf3\x6c", b"\xf3\x66\x6f", b"\xf3\x6f", b"\xf3\x6d"
TEXT = b"The quick brown fox jumps over the lazy dog. "
SYSTEM_CALL_LOGGED = 0
RDPMC, RDMSR, WRMSR = b"\x0f\x33", b"\x0f\x32", b"\x0f\x30"


def ports(port: int, count: int, source: int = DATA, destination: int = DATA) -> bytes:
    """Load DX, ECX, ESI and EDI."""
    return b"\xfc" + mov(EDX, port) + mov(ECX, count) + mov(ESI, source) + mov(EDI, destination)


def keep(place: int) -> bytes:
    """Write ECX, ESI and EDI into memory."""
    return b"".join(save(DATA + 0x800 + 16 * place + 4 * n, register) for n, register in enumerate((ECX, ESI, EDI)))


def faults(machine: Machine) -> list[tuple[int, int]]:
    """Vector and error code of each fault that was logged."""
    return [row[:2] for row in log(machine) if row[0] != SYSTEM_CALL_LOGGED]


def kept(machine: Machine, place: int) -> list[int]:
    """What `keep` wrote."""
    memory = machine.strategy.virtual_state(machine).memory[DATA + 0x800 + 16 * place :]
    return [int.from_bytes(memory[4 * n : 4 * n + 4].tobytes(), "little") for n in range(3)]


def test_text_goes_out_and_bytes_come_in() -> None:
    """In both directions and sizes, once and repeated, with segment overrides, 16-bit addresses and no iterations."""
    kernel = Kernel(
        [
            Step(ports(CONSOLE, len(TEXT)) + REP_OUTSB + keep(0)),
            Step(ports(CONSOLE, 7) + b"\x6e" + keep(1)),
            Step(b"\xfd" + ports(CONSOLE, 3, DATA + 2)[1:] + REP_OUTSB + b"\xfc" + keep(2)),
            Step(ports(CONSOLE, 0) + REP_OUTSB + keep(3)),
            Step(ports(CONSOLE, 0x10000) + b"\x26" + REP_OUTSB[1:]),
            Step(ports(MASK, 5, DATA, DATA + 0x100) + REP_INSB + keep(4)),
            Step(ports(SINK, 3, DATA, DATA + 0x200) + REP_OUTSW + REP_INSD + keep(5)),
            Step(ports(SINK, 3) + REP_OUTSD + keep(6)),
            Step(ports(MASK, 0x50003, 0x60010, 0x60FFE) + b"\xf3\x67\x6c" + keep(7)),
        ],
        octets={DATA: TEXT},
    )
    machine = both(kernel)
    assert machine.console() == TEXT + TEXT[:1] + TEXT[2::-1] + TEXT[:1]
    assert kept(machine, 0) == [0, DATA + len(TEXT), DATA]
    assert kept(machine, 1) == [7, DATA + 1, DATA]
    assert kept(machine, 2) == [0, DATA - 1, DATA]
    assert kept(machine, 4) == [0, DATA, DATA + 0x105]


@pytest.mark.parametrize("ring", (0, 3))
def test_a_page_fault_leaves_it_at_its_iteration(ring: int) -> None:
    """Nothing of the iteration that faults has happened: the port has not been read, and no text is lost."""
    bitmap = bytearray(b"\xff" * 0x22)
    for port in (CONSOLE, MASK):
        bitmap[port >> 3] &= ~(1 << (port & 7)) & 0xFF
    kernel = Kernel(
        [
            Step(ports(CONSOLE, 10, PAGE - 4) + REP_OUTSB, ring),
            Step(keep(0)),
            Step(ports(MASK, 10, DATA, PAGE - 3) + REP_INSB, ring),
            Step(keep(1)),
        ],
        pages={PAGE: 0},
        octets={PAGE - 4: b"tail", TSS + 102: b"\x68\x00", TSS + 0x68: bytes(bitmap)},
        tss_bytes=0x68 + 0x22,
    )
    machine = both(kernel)
    assert machine.console() == b"tail"
    user = 4 if ring else 0
    assert [row for row in faults(machine) if row[0] == 14] == [(14, user), (14, user | 2)]
    assert kept(machine, 0) == [6, PAGE, DATA]
    assert kept(machine, 1) == [7, DATA, PAGE]


def test_the_permission_bitmap_and_the_segments_are_checked() -> None:
    bitmap = bytearray(b"\xff" * 0x22)
    bitmap[CONSOLE >> 3] &= ~(1 << (CONSOLE & 7)) & 0xFF
    kernel = Kernel(
        [
            Step(ports(CONSOLE, 4) + REP_OUTSB, 3),
            Step(ports(CONSOLE, 4) + REP_OUTSW, 3),
            Step(ports(SINK, 4) + REP_INSB, 3),
            Step(ports(SINK, 4) + REP_INSB, 3, 0x3202),
            Step(load_segment(0, READ_ONLY | 3) + ports(SINK, 4) + REP_INSB),
            Step(load_segment(0, CODE_READ) + ports(SINK, 4) + b"\x6c"),
            Step(load_segment(0, SHORT_DATA | 3) + ports(SINK, 8, 0, 0xFFC) + REP_INSB + keep(0)),
            Step(keep(0) + load_segment(4, 0) + ports(SINK, 4) + b"\x64\xf3\x6e"),
        ],
        octets={DATA: TEXT, TSS + 102: b"\x68\x00", TSS + 0x68: bytes(bitmap)},
        tss_bytes=0x68 + 0x22,
    )
    machine = both(kernel)
    assert machine.console() == TEXT[:4]
    assert [row for row in faults(machine) if row[0] == 13] == [(13, 0)] * 6
    assert kept(machine, 0)[::2] == [4, 0x1000]


def test_single_step_traps_behind_every_iteration() -> None:
    """RF in the image is 1 between two iterations."""
    kernel = Kernel([Step(ports(CONSOLE, 3) + REP_OUTSB, 3, 0x3302), Step(keep(0))], octets={DATA: TEXT})
    both(kernel)
    stepped = push(0x3302) + push(8) + b"\xe8" + word(0) + b"\x83\x04\x24\x05\xcf"
    steps = [Step(ports(CONSOLE, 3) + stepped + REP_OUTSB), Step(keep(1))]
    machine = both(Kernel(steps, octets={DATA: TEXT}))
    assert machine.console() == TEXT[:1]
    assert kept(machine, 1) == [2, DATA + 1, DATA]
    assert [row[4] >> 16 & 1 for row in log(machine) if row[0] == 1] == [1]


def test_an_exit_in_the_middle_ends_the_run() -> None:
    kernel = Kernel([Step(ports(0xF4, 5) + REP_OUTSB)], octets={DATA: b"\x03\x04"})
    one, two = (run(kernel, name)[1] for name in ("native", "trap-and-emulate"))
    assert one.outcome == two.outcome == "exited 3"
    assert one.instructions == two.instructions


def test_a_long_one_does_not_outlive_its_budget() -> None:
    kernel = Kernel([Step(ports(SINK, 0xFFFFFFFF) + b"\xf3\x64\x6e")])
    for name in ("native", "trap-and-emulate"):
        assert start(kernel, name).run(3_000_000).outcome == "budget"


# -- performance counters ----------------------------------------------------------------------------------------------

SELECT_RETIRED = 3 << 16 | 1 << 22 | 0xC0
SELECT_CYCLES = 3 << 16 | 0x79


def write_register(number: int, value: int) -> bytes:
    """WRMSR."""
    return mov(ECX, number) + mov(EAX, value) + mov(EDX, 0) + WRMSR


def counters(rings: tuple[int, ...], cr4: int) -> Kernel:
    """Both counters run; they are read by RDPMC in some rings, and by RDMSR; then what does not exist."""
    steps = [Step(write_register(0x186, SELECT_RETIRED) + write_register(0x187, SELECT_CYCLES) + write_register(0xC1, 5))]
    for ring in rings:
        read = (mov(ECX, number) + RDPMC + save(DATA + 16 * ring + 4 * number, EAX) for number in (0, 1))
        steps.append(Step(b"".join(read), ring))
    for place, number in enumerate((0xC1, 0xC2, 0x186, 0x187)):
        steps.append(Step(mov(ECX, number) + RDMSR + save(DATA + 0x100 + 4 * place, EAX)))
    for number in (2, 17, 18, 0x80000000, 0xFFFFFFFF):
        steps.append(Step(mov(ECX, number) + RDPMC + save(DATA + 0x200, EAX)))
    return Kernel([*steps, Step(set_cr(4, cr4)), Step(b"\x90")], cr4=cr4)


@pytest.mark.parametrize("profile", ("p4_prescott", "core2_woodcrest", "k8_opteron"))
@pytest.mark.parametrize("cr4", (0, 0x100))
def test_the_counters_are_those_of_the_profiles_processor(profile: str, cr4: int) -> None:
    """E2 with what they tell of time; retired instructions are even the same."""
    kernel = counters((0, 3), cr4)
    comparison = compare_runs(
        kernel.image(), strategy("trap-and-emulate"), strategy("native"), load_profile(profile), RAM_BYTES, "",
        50_000_000, 64,
    )  # fmt: skip
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.other.outcome == "exited 1"
    counts = []
    for name in ("native", "trap-and-emulate"):
        machine = start(kernel, name, profile)
        machine.run(50_000_000)
        memory = machine.strategy.virtual_state(machine).memory
        counts.append([int.from_bytes(memory[DATA + at : DATA + at + 4].tobytes(), "little") for at in (0, 48, 0x100)])
        refused = [row[:2] for row in log(machine)].count((13, 0))
        assert refused == {"p4_prescott": 7, "core2_woodcrest": 5, "k8_opteron": 9}[profile] + (cr4 == 0)
    assert counts[0] == counts[1]
    assert (counts[0][0] > 5) == (profile == "core2_woodcrest")


# -- hardware task switches ---------------------------------------------------------------------------------------------

TASKS = {"task switch": far_jump(0x28, 0), "nested task": b"\x9c\x80\x4c\x24\x01\x40\x9d\xcf"}


@pytest.mark.parametrize("name", TASKS)
def test_what_switches_tasks_ends_as_on_the_bare_machine(name: str) -> None:
    ends = []
    for under in ("trap-and-emulate", "native"):
        _, result = run(Kernel([Step(TASKS[name])]), under)
        ends.append((result.outcome, result.console, result.instructions))
    assert ends[0] == ends[1]

