"""What there is to choose from: the tables of `x86virt list`."""

from collections.abc import Callable, Sequence

Table = tuple[Sequence[str], list[Sequence[object]]]


def catalogue(what: str) -> Table:
    """Column names and rows of one list. Raises KeyError for a list that there is not."""
    return LISTS[what]()


def _guests() -> Table:
    from .guests import guests

    rows = [(guest.name, guest.default_iterations, "; ".join(guest.regions) or "-") for guest in guests().values()]
    return ("guest", "default_iterations", "regions"), list(rows)


def _strategies() -> Table:
    from .vmm.registry import find_strategy, strategy_names

    rows = []
    for name in strategy_names():
        strategy = find_strategy(name)
        lines = (strategy.__doc__ or "").strip().splitlines()
        options = [f"{option.name}={option.expected} ({option.text(option.default)})" for option in strategy.options]
        rows.append((name, lines[0] if lines else "", ", ".join(options) or "-"))
    return ("strategy", "description", "options"), list(rows)


def _profiles() -> Table:
    from .profile import load_profile, profile_names

    profiles = [load_profile(name) for name in profile_names()]
    return ("profile", "processor", "mhz"), [(profile.name, profile.title, profile["cpu.mhz"]) for profile in profiles]


def _suites() -> Table:
    from .suites import SUITE_SENTENCES, suite

    rows = []
    for name, sentence in SUITE_SENTENCES.items():
        names = "host speed" if name == "speed" else ", ".join(benchmark.name for benchmark in suite(name))
        rows.append((name, sentence, names))
    return ("suite", "about", "benchmarks"), list(rows)


def _events() -> Table:
    from .isa.events import EVENTS

    rows = [(event.name, event.domain, event.unit, event.price or event.rule, event.sentence) for event in EVENTS]
    return ("event", "domain", "unit", "price", "meaning"), list(rows)


def _ports() -> Table:
    from .guests import port_sizes

    rows = [(name, changed, lines, f"{100 * changed / lines:.1f} %") for name, changed, lines in port_sizes()]
    return ("ported", "changed_lines", "lines", "part"), list(rows)


LISTS: dict[str, Callable[[], Table]] = {
    "guests": _guests,
    "ports": _ports,
    "strategies": _strategies,
    "profiles": _profiles,
    "suites": _suites,
    "events": _events,
}
