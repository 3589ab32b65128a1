"""A hypervisor written for this machine in assembly: its guest runs, and each exit and each entry is counted and priced."""

import pytest

import x86virt
from x86virt.isa.events import EVENT_ID
from x86virt.profile import load_profile

TURNS = 20
PROFILES = ("p4_prescott", "p4_cedarmill", "core2_woodcrest", "core2_harpertown", "nehalem")
EXITS = {"cpuid": TURNS, "hlt": TURNS, "io_instruction": 2 * TURNS, "vmcall": TURNS + 1}


@pytest.mark.parametrize("profile", PROFILES)
def test_its_guest_exits_as_often_as_it_says(profile: str) -> None:
    """One exit for each instruction that the controls name, one entry for each exit, at the profile's prices."""
    result = x86virt.run("hypervisor", profile=profile, command_line=f"iterations={TURNS}")
    assert result.exit_code == 0 and "hypervisor: VMX" in result.console.decode()
    assert ("mapped by EPT" in result.console.decode()) == bool(load_profile(profile).integer("feature.nested_paging"))
    ledger = result.ledger
    counts = {name: int(ledger.count[EVENT_ID[f"exit.{name}"]].sum()) for name in EXITS}
    assert counts == EXITS
    entries = [int(ledger.count[EVENT_ID[name]].sum()) for name in ("vmx.launch", "vmx.entry")]
    assert entries == [1, sum(EXITS.values()) - 1]
    all_exits = sum(int(ledger.count[number].sum()) for name, number in EVENT_ID.items() if name.startswith("exit."))
    assert all_exits == sum(EXITS.values())


def test_under_svm_it_does_the_same() -> None:
    """The same exits by SVM's codes, each behind a VMRUN and before an STGI."""
    result = x86virt.run("hypervisor", profile="k10_barcelona", command_line=f"iterations={TURNS}")
    assert result.exit_code == 0 and "hypervisor: SVM" in result.console.decode()
    counts = {name: int(result.ledger.count[EVENT_ID[f"exit.{name}"]].sum()) for name in EXITS}
    assert counts == EXITS
    for name in ("svm.vmrun", "svm.stgi"):
        assert int(result.ledger.count[EVENT_ID[name]].sum()) == sum(EXITS.values())


def test_without_the_extensions_it_says_so() -> None:
    """The Opteron of the profile has no SVM yet."""
    result = x86virt.run("hypervisor", profile="k8_opteron")
    assert result.exit_code == 0 and "no virtual-machine extensions" in result.console.decode()


@pytest.mark.parametrize("profile", ["nehalem", "k10_barcelona"])
@pytest.mark.parametrize("strategy", ["trap-and-emulate", "binary-translation"])
def test_under_a_software_vmm_firmware_has_locked_them_away(strategy: str, profile: str) -> None:
    """CPUID names them, as the processor does; IA32_FEATURE_CONTROL is locked without VMX, VM_CR with SVMDIS."""
    result = x86virt.run("hypervisor", strategy=strategy, profile=profile)
    assert result.exit_code == 0 and "no virtual-machine extensions" in result.console.decode()
