"""Systems that others wrote, the quick ones: SeaBIOS and GRUB (`make conformance-real` runs all, and GRUB under VMMs)."""

import pytest
from debian_packages import REQUIRED, Missing
from real_images import NATIVE, PARAVIRTUAL, compare_system, run_system


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        ("seabios", NATIVE), ("grub", NATIVE), ("seabios", "trap-and-emulate"), ("seabios", "svm-npt"),
        ("grub-xen", PARAVIRTUAL),
    ],
)  # fmt: skip
def test_a_system_that_others_wrote_runs(name: str, strategy: str) -> None:
    """Without its packages it is left out, but in continuous integration, which installs them, it fails."""
    try:
        verdict = run_system(name) if strategy == NATIVE else compare_system(name, strategy)
    except Missing as missing:
        if REQUIRED:
            raise
        pytest.skip(str(missing))
    print(verdict.line())
    assert not verdict.failures
