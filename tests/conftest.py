"""Settings shared by all tests: Hypothesis without deadlines (the first example compiles), and repeatable."""

from typing import Any

import pytest
from command_line import Answer
from hypothesis import HealthCheck, settings

COMMON = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.register_profile("quick", max_examples=50, **COMMON)
settings.register_profile("thorough", max_examples=2000, **COMMON)
settings.load_profile("quick")


@pytest.fixture
def x86virt(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line in this process."""
    return lambda *arguments: Answer(capsys, *arguments)
