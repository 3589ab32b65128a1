"""Page types of paravirtual guests: random hypercalls against a model of the rules. The long run: conformance_paravirtual.py."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from page_type_player import OPERATION, Player


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(pae=st.booleans(), operations=st.lists(OPERATION, min_size=1, max_size=40))
def test_random_hypercalls_follow_the_rules(pae: bool, operations: list) -> None:
    """Results, counts, types and tables are the model's after each step of any sequence."""
    player = Player(pae)
    for name, *arguments in operations:
        player.play(name, *arguments)
