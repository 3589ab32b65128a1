"""Instructions that often fault at traced memory, made again as callouts and back, and the instructions that the VMM performs."""

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_kernel import DATA, EAX, EBX, ECX, EDX, ESI, STEPS, TABLE, Kernel, Step, mov, run, save, word
from vmm_judge import EQUAL, judge

from x86virt import RunResult, find_strategy

TIMES = 20
TRACED = STEPS + 0xE00  # in the page that holds the code of the steps
UNMAPPED_ENTRY = TABLE + 4 * 0x3F0  # of a page that no kernel here maps
TRANSLATING = "binary-translation"


def loop(body: bytes, times: int = TIMES, counter: int = EDX) -> bytes:
    """Execute some code `times` times; it leaves the counter alone."""
    back = 1 + len(body) + 2
    return mov(counter, times) + body + bytes([0x48 + counter, 0x75, -back & 0xFF])


def kernel(*codes: bytes) -> Kernel:
    """A kernel that executes pieces of code in ring 0."""
    return Kernel([Step(code) for code in codes])


@cache
def counts(code: bytes, options: str) -> tuple[RunResult, dict[str, int]]:
    """A run of some code under binary translation: the result, and how many exits of each reason there were."""
    _, result = run(kernel(code), find_strategy(TRANSLATING + options)())
    assert result.outcome == "exited 1"
    return result, {reason: row[0] for reason, row in result.exits.items()}


def event(result: RunResult, name: str) -> int:
    """How often something happened in a run."""
    return result.ledger.event_count(f"translator.{name}")


STORE_TO_CODE_PAGE = loop(save(TRACED, EAX))
STORE_TO_TABLE = mov(ECX, 0x70000) + loop(save(UNMAPPED_ENTRY, ECX))


@pytest.mark.parametrize(("code", "options"), [(STORE_TO_CODE_PAGE, ""), (STORE_TO_TABLE, ",shadow=trace,shadow_writes=1000")])
def test_a_store_that_often_faults_becomes_a_callout(code: bytes, options: str) -> None:
    adapted, exits = counts(code, f"{options},adapt_after=3")
    as_it_is, faults = counts(code, f"{options},adaptive=off")
    assert event(adapted, "adaptation") == 1 and event(adapted, "restoration") == 0
    assert exits["adapted_write"] == TIMES - 3
    assert event(as_it_is, "adaptation") == 0 and "adapted_write" not in faults
    assert faults["page_fault"] - exits["page_fault"] == TIMES - 3


def test_adaptation_saves_time_in_the_long_run() -> None:
    code = loop(save(TRACED, EAX), 200)
    assert counts(code, "")[0].ticks < counts(code, ",adaptive=off")[0].ticks


def test_it_becomes_itself_again_where_it_no_longer_writes_what_is_traced() -> None:
    """A store through ESI: ten times to the page of its own code, then elsewhere."""
    turn = b"\x83\xfa\x32\x75\x05" + mov(ESI, DATA)  # CMP EDX, 50; JNE behind the MOV
    code = mov(ESI, TRACED) + loop(b"\x89\x06" + turn, 60)
    result, exits = counts(code, ",adapt_after=2,restore_after=4")
    assert event(result, "adaptation") == event(result, "restoration") == 1
    assert exits["adapted_write"] == 9 + 4
    stays, callouts = counts(code, ",adapt_after=2,restore_after=100")
    assert event(stays, "restoration") == 0 and callouts["adapted_write"] == 58


def test_a_write_beside_the_code_of_its_page_drops_no_unit() -> None:
    adapted, as_it_is = (counts(STORE_TO_CODE_PAGE, options)[0] for options in (",adapt_after=1", ",adaptive=off"))
    assert event(adapted, "invalidation") == event(as_it_is, "invalidation") + 1  # by the adaptation itself


# -- what the VMM performs, as the bare machine does ------------------------------------------------------------------------

FORMS = (
    b"\x88\x16", b"\x88\x36", b"\x89\x16", b"\x66\x89\x16", b"\xc6\x06\x81", b"\xc7\x06\x78\x56\x34\x92", b"\x66\xc7\x06\x34\x92",
    *(bytes([opcode | form, 0x16]) for opcode in range(0, 0x40, 8) for form in (0, 1)),  # ADD ... CMP with DL and EDX
    *(bytes([0x66, opcode | 1, 0x16]) for opcode in range(0, 0x40, 8)),
    *(bytes([0x83, reg << 3 | 6, 0x85]) for reg in range(8)), *(bytes([0x80, reg << 3 | 6, 0x7F]) for reg in range(8)),
    *(bytes([0x66, 0x81, reg << 3 | 6, 0xFF, 0x7F]) for reg in range(8)),
    b"\x86\x26", b"\x87\x16", b"\x66\x87\x0e", b"\xf0\x87\x16", b"\xf0\x01\x16", b"\xf0\x89\x16", b"\xf0\x0f\xb1\x16",
    b"\xff\x06", b"\xff\x0e", b"\xfe\x06", b"\x66\xff\x0e", b"\xf7\x16", b"\xf7\x1e", b"\xf6\x1e", b"\xf6\x16",
    b"\x0f\xc1\x16", b"\x0f\xb1\x16", b"\x0f\xc7\x0e", b"\x0f\xab\x16", b"\x0f\xba\x36\x07",
    b"\x0f\x92\x06", b"\xd1\x26", b"\xc1\x0e\x05",
    b"\x8f\x06", b"\xff\x36", b"\x8c\x0e", b"\x0f\x01\x06", b"\xdd\x36", b"\xd9\x36", b"\xdb\x1e", b"\xd9\xe8\xdd\x1e",
    b"\x89\x56\xfe", b"\x67\x89\x14", b"\x2e\x89\x16", b"\x26\x89\x16", b"\x64\x01\x16", b"\x65\x21\x16", b"\x36\x31\x16",
    b"\x56\x5f\xab", b"\x56\x5f\xb9\x03\x00\x00\x00\xf3\xab", b"\x56\x5f\xb9\x02\x00\x00\x00\xf3\xa4",
    # With the stack there: PUSH, PUSHF, PUSH CS, CALL, PUSHA.
    b"\x87\xf4\x52\x87\xf4", b"\x87\xf4\x9c\x87\xf4", b"\x87\xf4\x0e\x87\xf4", b"\x87\xf4\xe8\x00\x00\x00\x00\x87\xf4",
    b"\x87\xf4\x60\x87\xf4", b"\x87\xf4\x68\x01\x00\x00\x00\x87\xf4",
)  # fmt: skip
PLACES = st.sampled_from((TRACED, TRACED + 0x40, TRACED + 0x1FE, TRACED - 2, DATA + 0x40))


@st.composite
def writers(draw: st.DrawFn) -> bytes:
    """Instructions that write through ESI, from random registers and flags, three times."""
    body = b""
    for _ in range(draw(st.integers(1, 4))):
        registers = ((EAX, draw(st.integers(0, 0xFFFFFFFF))), (EDX, draw(st.integers(0, 0xFFFFFFFF))), (ESI, draw(PLACES)))
        flags = b"\x68" + word(draw(st.integers(0, 0xFF)) & 0xD5 | 0x202 | draw(st.sampled_from((0, 0x800)))) + b"\x9d"
        body += b"".join(mov(number, value) for number, value in registers) + flags + draw(st.sampled_from(FORMS))
    return loop(body, 3, counter=EBX)


@settings(max_examples=12, deadline=None)
@given(writers(), st.sampled_from(("", ",adaptive=off", ",adapt_after=1,restore_after=1", ",adapt_after=2,restore_after=2")))
def test_writes_to_the_page_of_the_code_that_makes_them(code: bytes, options: str) -> None:
    assert judge(kernel(code, code), TRANSLATING + options, 1).kind == EQUAL


@pytest.mark.parametrize("form", FORMS, ids=bytes.hex)
def test_each_form_of_write(form: bytes) -> None:
    """Each as it faults, and as a callout."""
    setting = mov(EAX, 0x12345678) + mov(EDX, 0x8FFF00F1) + mov(ECX, 0x7F) + mov(ESI, TRACED + 0x40) + b"\xf9"
    code = loop(setting + form, 4, counter=EBX)
    assert judge(kernel(code), f"{TRANSLATING},adapt_after=2", 1).kind == EQUAL


@settings(max_examples=8, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FORMS), st.integers(0, 0x20)), min_size=1, max_size=3))
def test_writes_to_page_tables(forms: list[tuple[bytes, int]]) -> None:
    """Entries of pages that nothing uses, under a policy that traces every write."""
    body = b"".join(mov(ESI, UNMAPPED_ENTRY + 2 * place) + mov(EDX, 0x70006) + form for form, place in forms)
    code = loop(body, 4, counter=EBX)
    assert judge(kernel(code), f"{TRANSLATING},shadow=trace,shadow_writes=1000,adapt_after=1,restore_after=2", 1).kind == EQUAL
