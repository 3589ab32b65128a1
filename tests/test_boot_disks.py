"""One boot disk on several machines: the guest's console is the same here, on QEMU and on Bochs, all with SeaBIOS."""

import json
import shutil
from pathlib import Path

import pytest
from debian_packages import REQUIRED, Missing, file_of
from x86virt.benchmarks import emulators
from x86virt.benchmarks.guests.disk import boot_disk

from x86virt.cli import main
from x86virt.guests import find_guest

GUESTS = ("hello", "syscall", "tasks", "cr3switch", "unix")
LINE = "iterations=2"
SECONDS = 60


@pytest.fixture(scope="module", params=GUESTS)
def disk(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(request.param) / f"{request.param}.img"
    path.write_bytes(boot_disk(find_guest(request.param), LINE))
    return path


@pytest.fixture(scope="module")
def bios() -> Path:
    try:
        return file_of("seabios", "usr/share/seabios/bios.bin")
    except Missing as missing:
        if REQUIRED:
            raise
        pytest.skip(str(missing))


def lines_of_guest(console: str) -> list[str]:
    """The guest's own text, without what firmware said before on the same port."""
    lines = console.replace("\r", "").split("\n")
    begin = next((number for number, line in enumerate(lines) if line.startswith("Booting from 0000:7c00")), -1)
    return [line for line in lines[begin + 1 :] if line]


def here(disk: Path, bios: Path | None, tmp_path: Path) -> list[str]:
    """What the guest writes on our machine, with SeaBIOS or with the firmware that is shipped."""
    report = tmp_path / "report.json"
    firmware = [] if bios is None else ["--bios", str(bios), "--vga-bios", str(bios.with_name("vgabios-stdvga.bin"))]
    main(["run", str(disk), *firmware, "--memory", "16M", "--json", str(report)])
    result = json.loads(report.read_text(encoding="utf-8"))
    assert result["outcome"] == "halted", result["console"]
    return lines_of_guest(result["console"])


def there(started: emulators.Started, verdict: bytes) -> list[str]:
    """What the guest writes on another emulator, up to its verdict."""
    text = bytearray()

    def seen(piece: bytes, moment: float) -> bool:
        text.extend(piece)
        return verdict in text

    emulators.watch(started, seen, SECONDS)
    return lines_of_guest(text.decode("latin-1"))


def test_the_guest_writes_the_same_with_our_firmware(disk: Path, bios: Path, tmp_path: Path) -> None:
    ours = here(disk, bios, tmp_path)
    assert here(disk, None, tmp_path)[-len(ours) :] == ours


@pytest.mark.skipif(shutil.which("qemu-system-i386") is None, reason="no QEMU")
def test_the_guest_writes_the_same_on_qemu(disk: Path, bios: Path, tmp_path: Path) -> None:
    machine = f"-accel tcg -display none -monitor none -serial none -debugcon stdio -no-reboot -m 16 -bios {bios}"
    exit_port = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    drive = ["-drive", f"format=raw,file={disk}"]
    ours = here(disk, bios, tmp_path)
    theirs = there(emulators.Started(["qemu-system-i386", *machine.split(), *exit_port, *drive]), ours[-1].encode())
    assert theirs == ours


@pytest.mark.skipif(shutil.which("bochs") is None or shutil.which("script") is None, reason="no Bochs")
def test_the_guest_writes_the_same_on_bochs(disk: Path, bios: Path, tmp_path: Path) -> None:
    roms = f"romimage: file={bios}\nvgaromimage: file={bios.with_name('vgabios-stdvga.bin')}\n"
    ours = here(disk, bios, tmp_path)
    theirs = there(emulators.bochs(disk, tmp_path, extra=roms), ours[-1].encode())
    first = theirs.index(ours[0])  # before and behind it Bochs's debugger speaks
    assert theirs[first : first + len(ours)] == ours
