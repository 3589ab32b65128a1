"""Direct callouts: IN, OUT and adapted stores of the guest's kernel, handed to routines that get what was decoded."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_kernel import DATA, EAX, EBX, ECX, EDX, ESI, Kernel, Step, mov, start, word
from test_adaptive import TRACED, event, loop
from test_translation import view_of
from vmm_judge import EQUAL, judge

from x86virt import find_strategy
from x86virt.core.layout import NEVER

TRANSLATING = "binary-translation,adapt_after=1"
# IN and OUT of 1, 2 and 4 bytes, by immediate and by DX; the master's mask register, POST, a port that nobody has.
PORTS = (
    b"\xe4\x21", b"\x66\xe5\x80", b"\xe5\x80", b"\xe6\x80", b"\x66\xe7\x80", b"\xe7\x80",
    b"\xec", b"\x66\xed", b"\xed", b"\xee", b"\x66\xef", b"\xef",
)  # fmt: skip
# MOV through ESI, DISP32, EAX, ESP and EBP: registers of each size, immediates, the accumulator.
STORES = (
    b"\x88\x16", b"\x88\x36", b"\x88\x26", b"\x89\x16", b"\x89\x26", b"\x89\x06", b"\xc6\x06\x81", b"\xc7\x06\x78\x56\x34\x92",
    b"\xc6\x46\x05\x11", b"\xc7\x86\x08\x00\x00\x00\x78\x56\x34\x92", b"\xa2" + word(TRACED + 4), b"\xa3" + word(TRACED + 8),
    b"\x96\x89\x10\x96", b"\x96\x89\x00\x96", b"\x87\xee\x89\x55\x00\x87\xee", b"\x87\xe6\x89\x14\x24\x87\xe6",
    b"\x89\x14\x1e", b"\x89\x54\x9e\x10", b"\x3e\x89\x16", b"\x36\x89\x16", b"\x66\x89\x16", b"\x67\x89\x14",
)  # fmt: skip
FLAGS = st.builds(lambda low, over, down: low & 0xD5 | 0x202 | over | down, st.integers(0, 255), st.sampled_from((0, 0x800)),
                  st.sampled_from((0, 0x400)))  # fmt: skip


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Accesses and stores from random registers and flags, each followed by a look at the flags."""
    code = b""
    for _ in range(draw(st.integers(1, 4))):
        registers = ((EAX, draw(st.integers(0, 0xFFFFFFFF))), (EDX, draw(st.sampled_from((0x21, 0x80, 0x300, 0x123480)))))
        flags = b"\x68" + word(draw(FLAGS)) + b"\x9d"
        setting = b"".join(mov(number, value) for number, value in (*registers, (ESI, TRACED + 0x40), (ECX, 7)))
        code += setting + flags + draw(st.sampled_from((*PORTS, *STORES))) + b"\x9c\x5f\x09\xf9"  # PUSHF, POP EDI, OR ECX, EDI
    return loop(code, 3, counter=EBX)


@settings(max_examples=12, deadline=None)
@given(bodies(), st.sampled_from(("", ",direct_callouts=off", ",restore_after=2")))
def test_the_guest_sees_what_it_sees_on_the_bare_machine(code: bytes, options: str) -> None:
    assert judge(Kernel([Step(code)]), TRANSLATING + options, 1).kind == EQUAL


@pytest.mark.parametrize("form", [*PORTS, *STORES], ids=bytes.hex)
def test_each_form(form: bytes) -> None:
    setting = mov(EAX, 0x92345678) + mov(EDX, 0x80) + mov(ESI, TRACED + 0x40) + b"\xf9"
    assert judge(Kernel([Step(loop(setting + form + b"\x9c\x5f", 4, counter=EBX))]), TRANSLATING, 1).kind == EQUAL


def test_a_pause_anywhere_in_one_shows_the_guest_between_two_instructions() -> None:
    """In the sequence before it, in the common code, on the way back with the flags in the record: at every tick."""
    setting = mov(EAX, 0x7FFFFFFF) + mov(EDX, 0x80) + mov(ESI, TRACED + 0x40) + b"\x40"  # INC EAX: OF, SF, AF, PF
    kernel = Kernel([Step(loop(setting + b"\xec\x89\x16\xee\x88\x26", 3, counter=EBX))])
    bare, paused = start(kernel), start(kernel, find_strategy(TRANSLATING)())
    seen, within = {}, 0
    while bare.advance(int(bare.processor.cpu.retired) + 1):
        seen[int(bare.processor.cpu.retired)] = view_of(bare)
    common = range(*(paused.vm.translator.cache.units[number].address for number in (5, 7)))
    last = paused.vm.translator.cache.units[7]
    while paused.advance(NEVER, pause_ticks=int(paused.processor.cpu.ticks) + 1):
        now, place = int(paused.processor.cpu.retired), int(paused.processor.cpu.rip)
        if now in seen and paused.processor.cpu.cpl:
            assert view_of(paused) == seen[now], hex(place)
            within += place in common or last.address <= place < last.address + len(last.octets)
    assert within > 20


def test_an_interrupt_that_waits_comes_behind_the_access_that_opens_its_way() -> None:
    """The mask of the timer is cleared by OUT with IF set: what waits is delivered, and the general callout serves it."""
    unmask = b"\xb0\xfe\xe6\x21" + b"\x90" * 4
    kernel = Kernel([Step(b"\xb0\xff\xe6\x21\xfb" + b"\x90" * 8 + unmask * 2 + b"\xfa")])
    assert judge(kernel, TRANSLATING, 1).kind == EQUAL


def test_a_store_that_no_longer_reaches_plain_memory_is_served_in_general() -> None:
    """Through ESI: to traced memory, then across two pages, which the interpreter performs."""
    turn = b"\x83\xfb\x02\x75\x05" + mov(ESI, TRACED - 0xE00 + 0xFFE)  # CMP EBX, 2; JNE behind the MOV
    kernel = Kernel([Step(mov(ESI, TRACED) + loop(b"\x89\x16" + turn, 5, counter=EBX))])
    assert judge(kernel, TRANSLATING, 1).kind == EQUAL


def test_the_kernel_alone_is_served_directly() -> None:
    """A program's IN, with IOPL 3 and translated, asks the general way."""
    machine = start(Kernel([Step(b"\xe4\x80\x90", 3, 0x3202)]), find_strategy("binary-translation,translate_user=on")())
    result = machine.run(20_000_000)
    assert result.outcome == "exited 1"
    assert result.ledger.event_count("vmm.emulate_port") >= 1


def test_switched_off_there_is_none() -> None:
    machine = start(Kernel([Step(loop(b"\xe4\x80", 5, counter=EBX))]), find_strategy("binary-translation,direct_callouts=off")())
    result = machine.run(20_000_000)
    assert result.ledger.event_count("vmm.direct_port") == 0 and "port_access" not in result.exits
    assert event(result, "unit") > 0 and DATA
