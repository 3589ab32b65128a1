"""A disk of a user's from the reset vector to its boot sector, with keys, screen and resets, by the BIOS of our own."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pc_guests import boot_disk, script_file

from x86virt.api import make_setup
from x86virt.core.layout import NEVER
from x86virt.guests import open_guest
from x86virt.machine import Machine
from x86virt.saved import machine_bytes, machine_of

BUDGET = 20_000_000_000


def test_a_disk_boots_and_its_keyboard_is_typed_on(x86virt: Any, tmp_path: Path) -> None:
    disk = boot_disk(tmp_path)
    before = hashlib.sha256(Path(disk).read_bytes()).digest()
    script = script_file(tmp_path, ":wait boot sector here\n:type Hello, PC! (42)\n")
    for arguments, name in (((disk,), "disk"), (("--disk", disk), "x86virt-bios")):
        answer = x86virt("run", *arguments, *script, "--until", "PC! (42)", "--json", "-")
        run = answer.json()
        assert (answer.status, run["outcome"]) == (0, "until"), answer.err
        assert run["screen"][-2:] == ["boot sector here", "Hello, PC! (42)"]
        assert run["guest"] == name
    assert hashlib.sha256(Path(disk).read_bytes()).digest() == before


def test_a_reset_starts_the_firmware_anew_with_ram_as_it_is(x86virt: Any, tmp_path: Path) -> None:
    script = script_file(tmp_path, ":wait boot sector here\n:type r\n:wait boot sector here\n:type r\n:wait boot sector\nend\n")
    answer = x86virt("run", boot_disk(tmp_path), *script, "--until", "end", "--json", "-")
    assert (answer.status, answer.json()["outcome"]) == (0, "until"), answer.err
    assert answer.json()["console"].count("x86virt BIOS") == 3


def test_no_reboot_ends_there(x86virt: Any, tmp_path: Path) -> None:
    script = script_file(tmp_path, ":wait boot sector here\n:type r\n")
    answer = x86virt("run", boot_disk(tmp_path), *script, "--no-reboot", "--json", "-")
    assert (answer.status, answer.json()["outcome"]) == (0, "reset"), answer.err
    assert answer.json()["console"].count("x86virt BIOS") == 1


def started(folder: Path) -> Machine:
    """A machine that boots that disk, with a script that restarts it."""
    disk = boot_disk(folder)
    opened = open_guest(disk)
    setup = replace(make_setup(memory_bytes=8 << 20, max_cycles=BUDGET), disks=(disk,))
    machine = setup.load(opened.bootable)
    machine.dialogue.play(":wait boot sector here\n:type abr\n:wait boot sector here\nlast\n")
    machine.dialogue.end_at("last")
    return machine


@pytest.mark.parametrize("cycle", [10_000_000, 150_000_000])
def test_a_machine_with_firmware_is_saved_amid_its_script(tmp_path: Path, cycle: int) -> None:
    whole = started(tmp_path).run(BUDGET)
    cut = started(tmp_path)
    assert cut.advance(NEVER, BUDGET, cycle)
    result = machine_of(machine_bytes(cut), "test").run(BUDGET)
    assert whole.outcome == result.outcome == "until"
    assert (result.ticks, result.instructions, result.screen) == (whole.ticks, whole.instructions, whole.screen)
