"""Settings shared by all tests: Hypothesis without deadlines (the first example compiles), and repeatable."""

import gc
from typing import Any

import pytest
from command_line import Answer
from hypothesis import HealthCheck, settings

COMMON = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.register_profile("quick", max_examples=50, **COMMON)
settings.register_profile("thorough", max_examples=2000, **COMMON)
settings.load_profile("quick")


def pytest_collection_finish() -> None:
    """Take what was imported and collected out of the garbage collector's sight.

    Machines hang in cycles, and with a heap of a million old objects they would be collected too rarely: their arrays are large.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def x86virt(capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command line in this process."""
    return lambda *arguments: Answer(capsys, *arguments)
