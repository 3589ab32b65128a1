"""A slice of the permutations of the system half (`permutations.py`), and proof that a wrong core would be seen."""

import permutations
import pytest
import system_model

from x86virt.core.jit import JIT_DISABLED

CASES = 150 if JIT_DISABLED else 800
# What a slice must have met, so that it cannot pass by meeting nothing.
MUST_MEET = {
    "delivery": {"done", "vector 10", "vector 11", "vector 12", "vector 13"},
    "double faults": {"done", "shutdown"},
    "IRET": {"done", "vector 11", "vector 12", "vector 13"},
    "flags": {"done", "vector 13"},
    "ports": {"done", "vector 13"},
    "segment loads": {"done", "vector 11", "vector 13"},
    "inspection": {"done"},
}


@pytest.mark.parametrize("name", permutations.SUITES)
def test_permutations(name):
    """The core and the model agree on every register, flag and byte, and on every fault."""
    counts, failures = permutations.run_suite(name, range(CASES))
    assert not failures, "\n".join(failures[:5])
    assert set(counts) >= MUST_MEET[name]


@pytest.mark.parametrize(
    ("name", "part", "wrong"),
    [
        ("delivery", "VIF", 0),
        ("delivery", "RF", 0),
        ("IRET", "NT", 0),
        ("IRET", "VIP", 0),
        ("flags", "VIF", 1 << 9),
    ],
)
def test_a_difference_is_seen(monkeypatch, name, part, wrong):
    """With one of the model's constants spoiled, the comparison fails."""
    monkeypatch.setattr(system_model, part, wrong)
    assert permutations.run_suite(name, range(4 * 150))[1]
