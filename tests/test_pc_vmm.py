"""A PC under a VMM: code outside RAM, the start of a disk by firmware, resets, the A20 gate, power off, APICs."""

from __future__ import annotations

import pytest
from small_kernel import CODE_0, Kernel, Step, compare, far_jump, log, run, strategy

VMMS = ("trap-and-emulate", "binary-translation")
NOWHERE, VMM_REGION = 0x40000000, 0xFFFEBA09  # no RAM answers there: a fetch finds ones, which are no instruction
UD = 6


@pytest.mark.parametrize("name", VMMS)
@pytest.mark.parametrize("target", [NOWHERE, NOWHERE - 1, VMM_REGION])
def test_code_where_no_ram_answers_is_executed_as_it_reads(name: str, target: int) -> None:
    """As the end of a BIOS image, at which a PC has its firmware again, is when its processor is reset."""
    kernel = Kernel([Step(far_jump(CODE_0, target))], paging=False)
    comparison = compare(kernel, strategy(name))
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.other.outcome == "exited 1"
    vector, _, eip = log(run(kernel, name)[0])[0][:3]
    assert (vector, eip) == (UD, target)
