"""Every sensitive instruction in every mode under every VMM, in lock step with the bare machine: some of each row's cases.

All cases run in `make conformance-vmm`.
"""

from __future__ import annotations

from collections import Counter

import pytest
import v86_cases
from sensitive_cases import MODES, SENSITIVE_ROWS, cases, some_cases, verdicts
from small_kernel import EAX, ECX, EDX, Step, log, mov, run, strategy
from vmm_judge import DECLARED, EQUAL, PLANNED, VMMS, judge
from vmm_pieces import furnished

from x86virt import find_strategy

GROUPS = [SENSITIVE_ROWS[number::6] for number in range(6)]
EXPENSIVE = 2  # cases of a row that has a declared divergence, each of which runs alone
CHEAP = 12
IN_V86 = 1


def has_divergence(row_name: str, under: str) -> bool:
    """Whether the strategy declares one for the row, whatever the selectors."""
    return any(row == row_name and field != "segment" for row, _, field in find_strategy(under).known_divergences)


@pytest.mark.parametrize("under", VMMS)
@pytest.mark.parametrize("rows", GROUPS, ids=lambda rows: rows[0].name)
def test_sensitive_instructions_do_what_the_bare_machine_does(rows: tuple, under: str) -> None:
    for row in rows:
        declares = has_divergence(row.name, under)
        counts = verdicts(some_cases(row, EXPENSIVE if declares else CHEAP), under)
        assert sum(counts.values()) > 0
        assert declares or not counts[DECLARED], (row.name, counts)


@pytest.mark.parametrize("under", VMMS)
def test_sensitive_instructions_in_virtual_8086_mode(under: str) -> None:
    """There a VMM interprets; nothing is declared."""
    found = [case for row in v86_cases.ROWS for case in v86_cases.some_cases(row, IN_V86)]
    assert {case.mode.rsplit(",", 1)[0] for case in found} == set(v86_cases.MODES)
    assert v86_cases.verdicts(found, under) == Counter({EQUAL: len(found)})


def test_the_cases_cover_every_sensitive_row_and_mode() -> None:
    assert len(SENSITIVE_ROWS) > 70
    for row in SENSITIVE_ROWS:
        modes = {case.mode.rsplit(",", 1)[0] for case in cases(row)}
        assert modes == set(MODES) or row.mnemonic == "HLT", row.name


def test_a_wrong_answer_is_found() -> None:
    class Generous(type(strategy("trap-and-emulate"))):  # type: ignore[misc]
        """Its guest's LMSW sets no bit."""

        def on_general_protection(self, vm, exit) -> None:
            """Skip LMSW."""
            instruction = vm.instruction()
            if instruction is not None and instruction.operation == "LMSW" and vm.vcpu.cpl == 0:
                vm.vcpu.frame.eip += instruction.length
                vm.retire()
            else:
                super().on_general_protection(vm, exit)

    row = next(row for row in SENSITIVE_ROWS if row.mnemonic == "LMSW")
    assert verdicts(some_cases(row, 12), "trap-and-emulate") == Counter({EQUAL: 12})
    with pytest.raises(AssertionError, match="lmsw_ew, ring 0"):
        verdicts(some_cases(row, 12), Generous)


def test_planned_ends_are_named() -> None:
    """A far transfer with a 16-bit operand: equal, or the end that says so."""
    row = next(row for row in SENSITIVE_ROWS if row.name == "retf")
    for under in VMMS:
        assert set(verdicts(some_cases(row, 4), under)) <= {EQUAL, PLANNED}


@pytest.mark.parametrize("under", VMMS)
def test_sysenter_of_the_kernel_itself(under: str) -> None:
    """Ring 0 may execute it too: #GP without a code segment for it, else the entry, where the kernel goes on."""
    entry = 0x5F800
    msrs = b"".join(mov(ECX, 0x174 + n) + mov(EAX, v) + mov(EDX, 0) + b"\x0f\x30" for n, v in enumerate((8, 0x7F00, entry)))
    kernel = furnished([Step(b"\x0f\x34"), Step(msrs + b"\x0f\x34"), Step(b"\x0f\x34", 3)])
    kernel.octets[entry] = b"\x42\xcd\x80"
    assert judge(kernel, under, 4).kind == EQUAL
    rows = log(run(kernel, under)[0])
    assert [row[0] for row in rows] == [13, 0, 0] and rows[1][2] == entry + 3
