"""The profile on which a strategy is tested: the oldest processor that has the hardware which it needs."""

from __future__ import annotations

from x86virt import Strategy, find_strategy

OLDEST = {
    ("vtx", "shadow"): "p4_cedarmill",
    ("vtx", "nested"): "nehalem",
    ("svm", "shadow"): "k10_barcelona",
    ("svm", "nested"): "k10_barcelona",
}
USUAL = "p4_prescott"


def profile_for(strategy: str | Strategy | type[Strategy]) -> str:
    """By name, class or instance; whatever its options."""
    which = find_strategy(strategy) if isinstance(strategy, str) else strategy
    return OLDEST.get((which.processor, which.memory), USUAL)
