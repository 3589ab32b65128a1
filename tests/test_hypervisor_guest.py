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


@pytest.mark.parametrize("profile", ["k8_opteron", "k10_barcelona"])
def test_without_vmx_it_says_so(profile: str) -> None:
    """AMD's processors have no VMX."""
    result = x86virt.run("hypervisor", profile=profile)
    assert result.exit_code == 0 and "VMX" not in result.console.decode()


@pytest.mark.parametrize("strategy", ["trap-and-emulate", "binary-translation"])
def test_under_a_software_vmm_firmware_has_locked_vmx_away(strategy: str) -> None:
    """CPUID names VMX, as the processor does; IA32_FEATURE_CONTROL is locked without it."""
    result = x86virt.run("hypervisor", strategy=strategy, profile="nehalem")
    assert result.exit_code == 0 and "no virtual-machine extensions" in result.console.decode()
