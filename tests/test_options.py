"""Options of a strategy: `NAME,option=value` chooses, the name says what was chosen, and bad choices say what is possible."""

import pathlib

import pytest

from x86virt.catalogue import catalogue
from x86virt.errors import StrategyError
from x86virt.vmm.options import full_name, split_options
from x86virt.vmm.registry import find_strategy

MINE = '''
from x86virt.vmm import Choice, Size, Strategy, Switch


class Mine(Strategy):
    """Has one option of each kind."""

    name = "mine"
    options = (
        Choice("shadow", "How tables are followed.", ("drop", "trace"), "drop"),
        Switch("chaining", "Whether jumps are chained.", True),
        Size("tc_size", "Bytes of the cache.", 1 << 20, 4096, 2 << 20),
        Choice("ring", "Where the kernel runs.", ("1", "3"), "1"),
    )

    @classmethod
    def configure(cls):
        cls.kernel_ring = int(cls.option("ring"))
'''


@pytest.fixture
def mine(tmp_path: pathlib.Path) -> str:
    path = tmp_path / "mine,odd=name.py"
    path.write_text(MINE)
    return str(path)


@pytest.mark.parametrize(
    "text, strategy, options",
    [
        ("native", "native", []),
        ("a,b=c", "a", [("b", "c")]),
        ("a,b=c,d=", "a", [("b", "c"), ("d", "")]),
        ("x/y,z=1.py:A,b=c", "x/y,z=1.py:A", [("b", "c")]),
        ("a,b", "a,b", []),
        ("", "", []),
    ],
)
def test_names_are_split_from_their_end(text, strategy, options):
    assert split_options(text) == (strategy, options)


def test_defaults_and_choices(mine):
    plain = find_strategy(mine)
    assert {option.name: plain.option(option.name) for option in plain.options} == {
        "shadow": "drop", "chaining": True, "tc_size": 1 << 20, "ring": "1",
    }  # fmt: skip
    other = find_strategy(f"{mine}:Mine,tc_size=64K,chaining=off,ring=3")
    assert (other.option("tc_size"), other.option("chaining"), other.option("shadow")) == (65536, False, "drop")
    assert other.kernel_ring == 3
    assert other.name == "mine,chaining=off,tc_size=64K,ring=3"
    assert other().save() == {}


def test_choosing_the_defaults_changes_nothing(mine):
    assert find_strategy(f"{mine},shadow=drop,tc_size=1024K").name == "mine"


@pytest.mark.parametrize("size, text", [(65536, "64K"), (2 << 20, "2M"), (5000, "5000"), (1025 << 10, "1025K")])
def test_sizes_are_written_as_they_are_read(mine, size, text):
    strategy = find_strategy(f"{mine},tc_size={text}")
    assert strategy.option("tc_size") == size
    assert full_name(strategy, dict(strategy.chosen)) == strategy.name


@pytest.mark.parametrize(
    "chosen, what",
    [
        ("shadow=tracing", "give shadow=drop|trace"),
        ("shadow=", "give shadow=drop|trace"),
        ("chaining=1", "give chaining=on|off"),
        ("tc_size=1G", "give tc_size=4K to 2M bytes"),
        ("tc_size=4095", "give tc_size=4K to 2M bytes"),
        ("tc_size=-4096", "give tc_size=4K to 2M bytes"),
        ("tc_size=99999999999999", "give tc_size=4K to 2M bytes"),
        ("shadows=drop", "did you mean shadow"),
    ],
)
def test_impossible_choices_say_what_is_possible(mine, chosen, what):
    with pytest.raises(StrategyError) as raised:
        find_strategy(f"{mine},{chosen}")
    assert what in str(raised.value) and "strategy mine" in str(raised.value)


def test_strategies_without_options():
    with pytest.raises(StrategyError, match="its options are: none"):
        find_strategy("native,shadow=trace")
    with pytest.raises(StrategyError, match="chooses nothing; write native,option=value"):
        find_strategy("native,shadow")


def test_the_list_of_strategies_shows_their_options():
    columns, rows = catalogue("strategies")
    assert tuple(columns) == ("strategy", "description", "options")
    for name, _, text in rows:
        for option in find_strategy(str(name)).options:
            assert f"{option.name}={option.expected} ({option.text(option.default)})" in str(text)


def test_an_option_is_chosen_once() -> None:
    with pytest.raises(StrategyError, match="ring is chosen twice; give ring once"):
        find_strategy("trap-and-emulate,ring=1,ring=3")
