"""Systems that others wrote, the quick ones: SeaBIOS and GRUB under our own machine (`make conformance` runs all)."""

import pytest
from debian_packages import REQUIRED, Missing
from real_images import run_system


@pytest.mark.parametrize("name", ["seabios", "grub"])
def test_a_system_that_others_wrote_runs(name: str) -> None:
    """Without its packages it is left out, but in continuous integration, which installs them, it fails."""
    try:
        verdict = run_system(name)
    except Missing as missing:
        if REQUIRED:
            raise
        pytest.skip(str(missing))
    print(verdict.line())
    assert not verdict.failures
