"""Equivalence E3 (design, section 2a): the ported build of a guest under a VMM against its native build on the bare machine.

The two execute different instructions, so that no state of theirs can be compared on the way. What must be equal is what the
guest is for: how it ends, what is on the disks, the results that it declares, its console but for what it declares to differ.
"""

import re
from typing import TYPE_CHECKING

from .equivalence import Comparison, outcomes
from .errors import UnsupportedError, show
from .guests import Guest, guests

if TYPE_CHECKING:
    from .api import Setup
    from .machine import Machine
    from .start.boot import Bootable

OWN = b"<of this build>"
DWORD = 4


def compare_builds(setup: "Setup", native: "Setup", image: "Bootable", command_line: str = "") -> Comparison:
    """Run both builds of a shipped guest to their ends. Raises UnsupportedError for a guest that has but one build."""
    guest = next((guest for guest in guests().values() if guest.sha256 == image.sha256), None)
    if guest is None or guest.port is None:
        what = "only a guest with a native and a ported build can be compared"
        raise UnsupportedError(f"guest {show(image.name)}", what, "see `x86virt list ports`")
    bare, other = (which.load(image, command_line) for which in (native, setup))
    try:
        ends = bare.run(native.max_cycles), other.run(setup.max_cycles)
        report = [*outcomes(bare, other), *differences(guest, bare, other)]
    finally:
        bare.disks.close()
        other.disks.close()
    return Comparison(not report, 0, report, *ends, held_to=agreement(guest, bare))


def differences(guest: Guest, bare: "Machine", other: "Machine") -> list[str]:
    """A line for each thing that the two builds do not agree on."""
    report = []
    mine, theirs = (masked(guest, machine.console()) for machine in (other, bare))
    if mine != theirs:
        report.append(f"  console: {show(mine.decode(errors='replace'))}, native {show(theirs.decode(errors='replace'))}")
    if other.disks.written() != bare.disks.written():
        report.append("  disks: what was written to them differs")
    one, two = (results_of(guest, machine) for machine in (other, bare))
    return report + [
        f"  result {name}: {one[name]:#x}, native {value:#x}" for name, value in two.items() if one[name] != value
    ]


def masked(guest: Guest, console: bytes) -> bytes:
    """A console without what the guest declares to be of the build or of time."""
    assert guest.port is not None
    for pattern in guest.port.own_lines:
        console = re.sub(pattern.encode(), OWN if not pattern.endswith("\\n") else b"", console)
    return console


def results_of(guest: Guest, machine: "Machine") -> dict[str, int]:
    """The guest's declared results, by symbol. Linear addresses are guest-physical (or pseudo-physical) ones in both builds."""
    assert guest.port is not None
    symbols = symbols_of(guest, machine)
    return {
        name: int.from_bytes(machine.read_guest(symbols[name], DWORD), "little") for name in guest.port.results
    }


def symbols_of(guest: Guest, machine: "Machine") -> dict[str, int]:
    """The symbols of the build that a machine runs."""
    from .start.recognise import open_start

    assert guest.port is not None
    path = guest.path if machine.guest[1] == guest.sha256 else guest.port.path
    return dict(open_start(path).bootable.symbols)


def agreement(guest: Guest, bare: "Machine") -> str:
    """What was compared, for whoever reads it."""
    assert guest.port is not None
    parts = ["the end", "the console", *(["what is on the disks"] if bare.disks.disks else [])]
    count = len(guest.port.results)
    parts += [f"{count} result{'s' if count > 1 else ''}"] if count else []
    return ", ".join(parts)
