"""System behaviour against Bochs and QEMU where they are installed: a slice of generated kernels, and guests in lock step.

The long runs are `make conformance-system` and `python tests/lock_step.py GUEST`.
"""

from __future__ import annotations

import struct
from pathlib import Path

import conformance_system
import pytest
from conformance_system import INSTALLED, Outcome, compare_kernel, report, run_native
from descriptor_machine import descriptor
from lock_step import lock_step
from system_cases import CLASSES, random_kernel
from system_kernels import (
    CODE,
    DATA,
    FIELDS,
    FIRST_FREE,
    LANDING,
    RAM_BYTES,
    RECORD_BYTES,
    RECORDS,
    Case,
    Tables,
    records,
    stack_top,
    system_image,
)

from x86virt import Machine, find_strategy, load_profile
from x86virt.start.multiboot import Image

needs_qemu = pytest.mark.skipif(not INSTALLED["qemu"], reason="QEMU is not installed")
CASES = 400


@pytest.mark.parametrize("oracle", sorted(INSTALLED))
def test_generated_kernels_agree_with(oracle: str) -> None:
    if not INSTALLED[oracle]:
        pytest.skip(f"{oracle} is not installed")
    outcome = Outcome()
    oracles = [oracle] if oracle == "bochs" or not INSTALLED["bochs"] else ["bochs", "qemu"]
    compare_kernel(7000, CASES, oracles, tuple(CLASSES), outcome)
    assert not outcome.divergences, "\n".join(found.text() for found in outcome.divergences)
    assert sum(number for (judge, _), number in outcome.compared.items() if judge == oracle) > CASES // 2


def test_a_divergence_is_found_and_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """An oracle that differs from us in one field of one record."""

    def other(image: Image, folder: Path, start: int, length: int) -> bytes:
        _, _, ours = run_native(image, length // RECORD_BYTES)
        ours[3]["error"] ^= 4
        return b"".join(record[name].to_bytes(4, "little") for record in ours for name in FIELDS)

    monkeypatch.setitem(conformance_system.ORACLES, "bochs", other)
    outcome = Outcome()
    compare_kernel(1, 20, ["bochs"], ("far pointers",), outcome)
    assert [found.number for found in outcome.divergences] == [3]
    report(outcome, 1, 1.0, 5)
    told = capsys.readouterr().out
    assert "1 divergences" in told and "seed 1, case 3: far pointers" in told and "error" in told and "ebx" in told


def test_every_class_of_cases_ends_in_records_of_its_own() -> None:
    for name in CLASSES:
        cases, tables = random_kernel(5, 30, (name,))
        ended, _, ours = run_native(system_image(cases, tables), len(cases))
        assert ended == "halted"
        assert all(any(record.values()) for record in ours)


# Where the oracles disagree the manual decides, and the case is kept here.


def record_of(case: Case) -> dict[str, int]:
    """What our machine records of one case under plain tables."""
    ended, _, (record,) = run_native(system_image([case], Tables()), 1)
    assert ended == "halted"
    return record


def test_a_far_call_checks_the_limit_before_it_pushes() -> None:
    """SDM volume 2, CALL. Bochs writes the return address first."""
    tables = Tables(gdt={FIRST_FREE: descriptor(0, 0xFFFF, 10, dpl=3)})
    for offset, written in ((0x10000, False), (0xFFFF, True)):
        case = Case("call", b"\x9a" + offset.to_bytes(4, "little") + bytes([8 * FIRST_FREE | 3, 0]), ring=3)
        machine = Machine(find_strategy("native")(), load_profile("p4_prescott"), RAM_BYTES)
        machine.load(system_image([case], tables))
        assert machine.run(100_000_000).outcome == "halted"
        (record,) = records(machine.processor.read_physical(RECORDS, RECORD_BYTES), 1)
        # What lay on the stack of ring 3 before: zeros. A call that is made faults at its target, which is no page.
        pushed = machine.processor.read_physical(stack_top(3) - 8, 8)
        assert pushed == (struct.pack("<II", case.start + 7, CODE[3]) if written else bytes(8))
        assert record["outer_esp"] == stack_top(3) - (8 if written else 0)
        if written:
            assert (record["vector"], record["eip"], record["cr2"]) == (14, offset, offset)
        else:
            assert (record["vector"], record["error"], record["eip"]) == (13, 0, case.start)


@pytest.mark.parametrize("kind", [2, 3, 6, 7])
def test_iret_to_an_outer_stack_that_is_not_present_is_a_stack_fault(kind: int) -> None:
    """SDM volume 2, operation of IRET and RET to an outer level: "If stack segment is not present: #SS(SS selector)".

    Bochs and QEMU raise #NP for IRET, after the list of exceptions of the same page; the operation decides.
    """
    tables = Tables(gdt={FIRST_FREE: descriptor(0, 0xFFFFF, kind, dpl=3, present=0, granular=1)})
    selector = 8 * FIRST_FREE | 3
    for code, stack in ((b"\xcf", (LANDING, CODE[3], 2, 0x1000, selector)), (b"\xcb", (LANDING, CODE[3], 0x1000, selector))):
        case = Case("return", code, stack=stack)
        ended, _, (record,) = run_native(system_image([case], tables), 1)
        assert ended == "halted"
        assert (record["vector"], record["error"], record["eip"], record["cs"]) == (12, selector & ~3, case.start, CODE[0])


@pytest.mark.parametrize("ring", range(4))
@pytest.mark.parametrize("number", [1, 5, 6, 7])
def test_a_control_register_that_is_none_raises_ud_in_any_ring(number: int, ring: int) -> None:
    """SDM volume 3, table 6-2: faults of decoding come before those of execution. QEMU raises #GP outside ring 0."""
    for opcode in (b"\x0f\x20", b"\x0f\x22"):
        assert record_of(Case("mov", opcode + bytes([0xC0 | number << 3]), ring=ring))["vector"] == 6


def test_a_write_to_a_page_that_is_read_and_written_faults_as_a_write() -> None:
    """SDM volume 3, 4.7. QEMU reads before it asks to write."""
    case = Case("add", b"\x01\x05" + (0x400000).to_bytes(4, "little"), ring=3, pokes=[(0x116000, 0x280000 | 4)])
    record = record_of(case)
    assert (record["vector"], record["error"], record["cr2"]) == (14, 6, 0x400000)


def test_records_hold_what_the_case_did() -> None:
    """The harness itself: registers, outer stack, selectors and the landing of an INT 0x40."""
    record = record_of(Case("mov", b"\x89\x0d" + DATA.to_bytes(4, "little"), ring=3, registers={1: 0x12345678}))
    assert record["vector"] == 0x40 and record["cs"] == CODE[3] and record["ecx"] == 0x12345678
    assert record["outer_esp"] == stack_top(3) and record["ss"] == 0x10


@needs_qemu
@pytest.mark.parametrize("guest", ["divzero", "callret", "cr3switch"])
def test_guest_agrees_with_qemu_in_lock_step(guest: str) -> None:
    compared = lock_step(guest, "iterations=2")
    assert compared.instructions > 50 and not compared.report, compared.report
