"""Translated code that has been gone through once goes on by itself: no exit, no return of the jitted call, however often."""

import pytest
from small_kernel import EAX, EDX, LOG, Kernel, Step, from_cr, mov, start

from x86virt import Machine, find_strategy

FEW, MANY = 8, 200
CALL_OVER = b"\xe8\x02\x00\x00\x00\xeb\x01\xc3"  # CALL the RET behind the JMP; JMP over it
BODIES = {
    "a direct loop": b"\x90",
    "two ways of a conditional jump": b"\xf6\xc2\x01\x74\x01\x90",  # TEST DL, 1; JE over a NOP
    "direct jumps": b"\xeb\x00\xe9\x00\x00\x00\x00",
    "call and return": CALL_OVER,
    "an indirect jump": b"\xe8\x00\x00\x00\x00\x58\x83\xc0\x06\xff\xe0",  # CALL and POP EAX; ADD EAX; JMP EAX
    "CLI and STI": b"\xfa\xfb\x90",
    "PUSHF, CLI and POPF": b"\x9c\xfa\x9d\x90",
    "reads of control registers and selectors": from_cr(0) + from_cr(3) + b"\x8c\xc8\x0e\x58",
    "stores": b"\xa3" + LOG.to_bytes(4, "little"),
}


def loop(body: bytes, times: int) -> bytes:
    """A body that leaves EDX alone, so many times, with a jump of 32 bits back."""
    back = len(body) + 1 + 6
    return mov(EDX, times) + body + b"\x4a\x0f\x85" + (-back & 0xFFFFFFFF).to_bytes(4, "little")


def returns(code: bytes, options: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """How often the jitted call came back to Python in a run of some code, and how many exits there were."""
    came_back = []
    act = Machine.act

    def counted(machine: Machine, outcome: int) -> None:
        """Note an outcome that Python acts on."""
        came_back.append(outcome)
        act(machine, outcome)

    machine = start(Kernel([Step(mov(EAX, 0) + code)]), find_strategy(f"binary-translation{options}")())
    with monkeypatch.context() as patch:
        patch.setattr(Machine, "act", counted)
        result = machine.run(20_000_000)
    assert result.outcome == "exited 1"
    return len(came_back), sum(row.number for row in result.exits.values())


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_nothing_returns_in_steady_state(body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    assert returns(loop(body, FEW), "", monkeypatch) == returns(loop(body, MANY), "", monkeypatch)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a direct loop", ",chaining=off"),
        ("call and return", ",chaining=off"),
        ("CLI and STI", ",inline_emulation=off"),
        ("PUSHF, CLI and POPF", ",inline_emulation=off"),
        ("reads of control registers and selectors", ",inline_emulation=off"),
    ],
)
def test_without_the_optimisation_each_time_exits(name: str, options: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = (returns(loop(BODIES[name], times), options, monkeypatch)[1] for times in (FEW, MANY))
    assert many - few >= MANY - FEW
