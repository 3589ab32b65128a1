"""Other emulators where they are installed: the boot disk on Bochs, and the comparison of speed."""

import math
import shutil
from pathlib import Path

import pytest
from x86virt.benchmarks import bench_speed, emulators
from x86virt.benchmarks.guests.disk import SECTOR, boot_disk

from x86virt.guests import find_guest
from x86virt.speed import PHASES, SpeedRow
from x86virt.start.elf import Segment
from x86virt.start.multiboot import Image

needs_bochs = pytest.mark.skipif(shutil.which("bochs") is None or shutil.which("script") is None, reason="no Bochs")


def test_a_boot_disk_holds_the_kernel_and_its_command_line() -> None:
    kernel = Image("k", 0x100010, (Segment(0x100000, b"first", 0x1000), Segment(0x101000, b"second", 0x20)), "")
    disk = boot_disk(kernel, "iterations=3")
    assert disk[510:512] == b"\x55\xaa" and len(disk) % (16 * 63 * SECTOR) == 0
    assert disk[2 * SECTOR :].startswith(b"first") and disk[2 * SECTOR + 0x1000 :].startswith(b"second")
    assert disk[SECTOR + 116 :].startswith(b"iterations=3\0")


def test_a_kernel_that_is_too_large_for_the_boot_sector_is_refused() -> None:
    with pytest.raises(ValueError, match="too large"):
        boot_disk(Image("k", 0x100000, (Segment(0x100000, bytes(1 << 19), 1 << 19),), ""))


@needs_bochs
@pytest.mark.parametrize("name", ["hello", "syscall", "speed", "tasks"])
def test_guest_passes_on_bochs_from_a_boot_disk(name: str, tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(boot_disk(find_guest(name), "iterations=2"))
    text = bytearray()

    def seen(piece: bytes, moment: float) -> bool:
        text.extend(piece)
        return b"passed" in text

    emulators.watch(emulators.bochs(disk, tmp_path), seen, 30)
    assert f"{name}: passed".encode() in text


def test_a_missing_emulator_is_named_and_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    other = bench_speed.measure_other("QEMU", lambda: bench_speed.qemu_runner(tmp_path))
    assert other.missing == "qemu-system-i386 is not installed"


def test_ratios_are_ours_over_theirs() -> None:
    ours = [SpeedRow(phase.name, "native", "p", 100, "done", 1.0, "", 10.0, 100.0) for phase in PHASES]
    other = bench_speed.Other("Q", [200] * 7, [1.0] * 6 + [math.inf])
    rows = bench_speed.results(ours, [other])
    assert len(rows) == 13
    assert [row["ratio"] for row in rows if row["emulator"] == "Q"] == [0.5] * 6
    assert [row["guest_mips"] for row in rows if row["emulator"] == "Q"] == [20.0] * 6
