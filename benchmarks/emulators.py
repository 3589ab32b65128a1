"""Other emulators as bystanders: start each on an image, and read what the guest writes to port 0xE9.

None of them is needed by the package. What is not installed says so in one line.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
BOCHS_FILES = Path("/usr/share/bochs")
BOCHS_BIOS = BOCHS_FILES / "BIOS-bochs-latest"
SEABIOS = Path("/usr/share/seabios/bios.bin")
VGABIOS = Path("/usr/share/seabios/vgabios-stdvga.bin")
MEMORY_MEGABYTES = 16
BOCHS_MODEL = "p4_prescott_celeron_336"
QEMU, BOCHS, NODE, NPM, SCRIPT = "qemu-system-i386", "bochs", "node", "npm", "script"

BOCHS_SETTINGS = """\
display_library: term
romimage: file={bios}
vgaromimage: file={files}/VGABIOS-lgpl-latest
megs: {megabytes}
cpu: model={model}, count=1, ips=500000000, reset_on_triple_fault=0
clock: sync=none, time0=local
ata0-master: type=disk, path={disk}, mode=flat, cylinders={cylinders}, heads=16, spt=63
boot: disk
log: {folder}/bochs.log
panic: action=fatal
error: action=report
info: action=ignore
debug: action=ignore
speaker: enabled=0
sound: waveoutdrv=dummy
port_e9_hack: enabled=1
"""


class Missing(Exception):
    """An emulator cannot be used here; the text says why."""


@dataclass(frozen=True)
class Started:
    """How an emulator is started: its command, and the environment if not ours."""

    command: list[str]
    environment: dict[str, str] | None = None


def tool(name: str) -> str:
    """The path of a program. Raises Missing."""
    found = shutil.which(name)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


def qemu(image: Path, *options: str) -> Started:
    """QEMU's TCG on a Multiboot image; its end by the exit port has status 2 x code + 1. Raises Missing."""
    machine = f"-accel tcg -display none -monitor none -serial none -debugcon stdio -no-reboot -m {MEMORY_MEGABYTES}"
    exit_port = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    return Started([tool(QEMU), *machine.split(), *exit_port, *options, "-kernel", str(image)])


def bochs(
    disk: Path,
    folder: Path,
    model: str = BOCHS_MODEL,
    commands: str = "c\nq\n",
    extra: str = "",
    bios: Path = BOCHS_BIOS,
) -> Started:
    """Bochs on a boot disk, its files in `folder`; `commands` are for its debugger, `extra` for its settings.

    Raises Missing.
    """
    for needed in (bios, BOCHS_FILES / "VGABIOS-lgpl-latest"):
        if not needed.exists():
            raise Missing(f"{needed} is not installed")
    cylinders = disk.stat().st_size // (16 * 63 * 512)
    settings = BOCHS_SETTINGS.format(
        files=BOCHS_FILES,
        bios=bios,
        megabytes=MEMORY_MEGABYTES,
        model=model,
        disk=disk,
        cylinders=cylinders,
        folder=folder,
    )
    (folder / "bochsrc").write_text(settings + extra, encoding="utf-8")
    (folder / "commands").write_text(commands, encoding="utf-8")
    inner = f"{tool(BOCHS)} -q -f {folder}/bochsrc -rc {folder}/commands"
    return Started([tool(SCRIPT), "-qec", inner, "/dev/null"], {**os.environ, "TERM": "vt100"})


def v86(disk: Path, package: Path) -> Started:
    """v86 under node on a boot disk; `package` is the folder that holds node_modules/v86. Raises Missing."""
    for needed in (SEABIOS, VGABIOS):
        if not needed.exists():
            raise Missing(f"{needed} is not installed")
    module = package / "node_modules" / "v86" / "build"
    script = HERE / "v86_runner.mjs"
    return Started([tool(NODE), str(script), str(module), str(SEABIOS), str(VGABIOS), str(disk)])


def install_v86(folder: Path) -> Path:
    """Let npm put v86 into a folder. Raises Missing if there is no npm or no registry."""
    command = [tool(NPM), "install", "--prefix", str(folder), "--no-audit", "--no-fund", "--silent", "v86"]
    tool(NODE)
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    except subprocess.TimeoutExpired:
        raise Missing("npm could not install v86 within a minute") from None
    if done.returncode or not (folder / "node_modules" / "v86").is_dir():
        raise Missing("npm could not install v86")
    return folder


def watch(started: Started, seen: Callable[[bytes, float], bool], timeout: float) -> int:
    """Run an emulator and hand on each piece of its output with its time of arrival, until `seen` says enough.

    Returns its exit status. It is stopped after `timeout` seconds (TimeoutError) and when `seen` returned true.
    """
    process = subprocess.Popen(
        started.command,
        env=started.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert process.stdout is not None
    limit = time.monotonic() + timeout
    try:
        while True:
            ready, _, _ = select.select([process.stdout], [], [], max(limit - time.monotonic(), 0))
            if not ready:
                raise TimeoutError(f"{started.command[0]} did not end within {timeout:.0f} seconds")
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece or seen(piece, time.perf_counter()):
                break
        if not piece:
            return process.wait(max(limit - time.monotonic(), 1))
        return 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()
        process.stdout.close()
