"""What VT-x's techniques cost and spare: CR3-target values, clusters of exits, x87 exceptions by IRQ 13."""

from __future__ import annotations

import pytest
from small_kernel import CR0_ET, CR0_PE, CR0_PG, Kernel, Step, compare, log, run, set_cr, strategy
from test_vmm_real_mode import BUDGET, started

from x86virt.api import run as run_guest

PIC_VECTORS, IRQ_13, MF = 0x20, 0x2D, 16
CR0_NE = 1 << 5
ZERO_DIVIDE_OPEN = b"\xdb\xe3\x68\x7b\x03\x00\x00\xd9\x2c\x24"  # FNINIT; PUSH 37Bh; FLDCW [ESP]
DIVIDE_BY_ZERO = ZERO_DIVIDE_OPEN + b"\xd9\xe8\xd9\xee\xde\xf9\x9b"  # FLD1; FLDZ; FDIVP; WAIT


def out(port: int, value: int) -> bytes:
    """OUT of a byte."""
    return b"\xb0" + bytes([value]) + b"\xe6" + bytes([port])


def controllers() -> bytes:
    """Both PICs initialized, IRQ 13 alone open."""
    words = [(0x20, 0x11), (0x21, PIC_VECTORS), (0x21, 4), (0x21, 1), (0x21, 0xFB)]
    words += [(0xA0, 0x11), (0xA1, PIC_VECTORS + 8), (0xA1, 2), (0xA1, 1), (0xA1, 0xDF)]
    return b"".join(out(*pair) for pair in words)


def x87_kernel(own_exception: bool) -> Kernel:
    """Meets an x87 exception; told of it by #MF, or by IRQ 13."""
    cr0 = set_cr(0, CR0_PG | CR0_PE | CR0_ET | (CR0_NE if own_exception else 0))
    clear = out(0xF0, 0) + b"\xdb\xe2" + out(0xA0, 0x20) + out(0x20, 0x20)  # FNCLEX
    return Kernel([Step(controllers() + cr0 + b"\xfb" + DIVIDE_BY_ZERO), Step(clear)])


@pytest.mark.parametrize("name", ["vtx-ept", "vtx-shadow", "svm-npt", "svm-shadow"])
@pytest.mark.parametrize(("own_exception", "vector"), [(False, IRQ_13), (True, MF)])
def test_an_x87_exception_comes_as_on_the_bare_machine(name: str, own_exception: bool, vector: int) -> None:
    """Also though CR0.NE is always set in VMX operation."""
    kernel = x87_kernel(own_exception)
    (bare, native), (machine, result) = run(kernel), run(kernel, name)
    assert log(machine) == log(bare) and log(bare)[0][0] == vector
    assert (result.outcome, result.instructions) == (native.outcome, native.instructions)


def exits(name: str, guest: str, reason: str) -> int:
    """How often a guest makes its VMM leave it for a reason."""
    result = run_guest(guest, name, "nehalem", "iterations=40")
    assert result.outcome == "halted" and result.exit_code == 0
    return result.exits[reason][0] if reason in result.exits else 0


def test_cr3_targets_spare_the_exits_of_a_working_set_that_fits() -> None:
    """Two address spaces take turns: one target is always the wrong one, two are enough."""
    none, watched, one, two = (exits(f"vtx-ept{which}", "cr3switch", "cr_access") for which in CR3_TARGETS)
    assert none < 10 and watched > 80
    assert one <= watched and two < none + 8


CR3_TARGETS = ("", ",cr3_targets=0", ",cr3_targets=1", ",cr3_targets=4")


def test_a_cluster_of_real_mode_spares_exits() -> None:
    """The more instructions of real mode are interpreted behind one that exits, the fewer exit."""
    counts = []
    for which in ("", ",cluster=4", ",cluster=64"):
        result = started(f"vtx-ept{which}").run(BUDGET)
        assert (result.outcome, result.console) == ("exited 1", b"every mode seen\n")
        counts.append(sum(row[0] for row in result.exits.values()))
    assert counts[0] > counts[1] >= counts[2]


@pytest.mark.parametrize("name", ["vtx-ept", "vtx-shadow", "svm-npt"])
def test_instructions_that_would_each_exit_are_performed_at_one_exit(name: str) -> None:
    """The initialization of two PICs is ten OUTs in a straight line; a POST code by itself is no cluster."""
    kernel = Kernel([Step(controllers()), Step(out(0x80, 1) + b"\xeb\x00"), Step(controllers())])
    comparison = compare(kernel, strategy(f"{name},cluster=32"))
    assert comparison.equal, "\n".join(comparison.report)
    rows = [run(kernel, which)[1].exits["io_instruction"][0] for which in (name, f"{name},cluster=32", f"{name},cluster=4")]
    assert rows[0] >= 21 and rows[1] <= rows[0] - 18 and rows[1] < rows[2] < rows[0]
