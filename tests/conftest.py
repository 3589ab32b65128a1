"""Settings shared by all tests: Hypothesis without deadlines (the first example compiles), and repeatable."""

from hypothesis import HealthCheck, settings

COMMON = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
settings.register_profile("quick", max_examples=50, **COMMON)
settings.register_profile("thorough", max_examples=2000, **COMMON)
settings.load_profile("quick")
