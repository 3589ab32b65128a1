"""E2 of whole boots under every VMM: recorded from the first instruction of the firmware, replayed on the bare machine.

python tests/replay_boots.py [--strategy NAME] [--only tour|timer]

`tour` is the boot sector of pc_tour.py (resets, the A20 gate, power off), `timer` a boot disk with a kernel whose timer
interrupts it everywhere, on a PC with a clock that was set. Recording goes port access by port access: it takes its time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from test_replay_pc import VMMS, Case, recorded, replayed, tour
from x86virt.benchmarks.guests.disk import boot_disk

from x86virt.guests import find_guest, open_guest
from x86virt.replay import ReplayError


def timer(folder: Path) -> Case:
    """The guest irq from a disk."""
    disk = folder / "irq.img"
    disk.write_bytes(boot_disk(find_guest("irq"), "iterations=5"))
    options = {"memory_bytes": 16 << 20, "disks": (str(disk),), "apic": True, "rtc": 1_234_567_890}
    return Case(open_guest(str(disk)).bootable, options)


BOOTS = {"tour": tour, "timer": timer}


def verdict(case: Case, name: str) -> tuple[bool, str]:
    """Whether the bare machine ends as the VMM's guest, and a line that says so."""
    began = time.monotonic()
    machine, log = recorded(case, name)
    middle = time.monotonic()
    try:
        bare = replayed(case, log)
    except ReplayError as error:
        return False, f"refused: {error}"
    differences = machine.strategy.virtual_state(machine).differences(bare.strategy.virtual_state(bare))
    good = not differences and not log.missed and machine.result().outcome == "halted"
    counts = f"{len(log.deliveries)} interrupts, {len(log.events)} events, {len(log.reads)} dealings with time"
    seconds = f"recorded in {middle - began:.0f} s, replayed in {time.monotonic() - middle:.0f} s"
    return good, f"{'equal' if good else f'DIFFERENT: {differences[:3]}, missed {log.missed[:3]}'}; {counts}; {seconds}"


def main() -> int:
    """Command line; status 1 if anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategy", action="append", help="this one only (repeatable); options may follow its name")
    parser.add_argument("--only", choices=tuple(BOOTS), action="append", help="this boot only (repeatable)")
    options = parser.parse_args()
    failures = 0
    for name in options.strategy or VMMS:
        for which in options.only or BOOTS:
            with tempfile.TemporaryDirectory() as folder:
                good, line = verdict(BOOTS[which](Path(folder)), name)
            print(f"{name}, {which}: {line}", flush=True)
            failures += not good
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
