"""What is said of hypercalls, held against what a domain gets for them."""

import pytest
from paravirtual_kernel import Kernel, Step, calls, hypercall, results, run

from x86virt import load_profile
from x86virt.explain import explain
from x86virt.explain.hypercalls import PERFORMED
from x86virt.vmm.paravirtual.interface import EPERM, NUMBER_OF

PROFILE = load_profile("p4_prescott")
OLDER_FORMS = {"sched_op_compat", "event_channel_op_compat", "physdev_op_compat"}


@pytest.mark.parametrize("name", NUMBER_OF)
def test_every_hypercall_is_explained_by_its_name_and_by_its_exit_reason(name: str) -> None:
    """IRET is an instruction first."""
    for text in (f"hypercall {name}", f"hypercall_{name}"):
        (one,) = explain(text, PROFILE)
        assert one.kind == "hypercall" and one.data["number"] == NUMBER_OF[name]
    assert explain(name, PROFILE)[0].kind == ("instruction" if name == "iret" else "hypercall")


@pytest.mark.parametrize("name", [name for name in NUMBER_OF if name != "iret"])
def test_the_hypercalls_that_are_said_to_be_performed_are_those_that_are(name: str) -> None:
    """A domain calls each without arguments; the older forms of three are not told of, and some are domain 0's."""
    machine, run_result = run(Kernel([Step(calls(hypercall(name, 0, 0, 0, 0, 0)))]))
    is_missing = run_result.ledger.event_count("xen.hypercall_missing") > 0
    if name in PERFORMED:
        assert not is_missing or name == "set_segment_base"
    else:
        assert is_missing or name in OLDER_FORMS or results(machine, 1) == [-EPERM]
