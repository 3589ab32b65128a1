"""Systems that others wrote, started by the command line as a user would: SeaBIOS, GRUB, memtest86+, Linux.

python tests/real_images.py [--only NAME] [--strategy NAME] [--transcript] [--required] [--readme]

Their files come from Debian's packages by name (debian_packages.py). Each is judged by what it writes; printed are the
guest's instructions, its simulated seconds and the evidence. Those of UNDER_VMMS run under VMMs too, and what they write is
compared with the bare machine's, letter by letter; those of PORTED run under their VMM only. A package that cannot be had is
reported plainly, and is a failure with `--required`. `--readme` puts the figures, which are the same on every host, into the
README.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from boot_media import busybox_initrd, grub_disk, partitioned_disk
from debian_packages import Missing, dependency, file_of
from profile_for import USUAL, profile_for
from x86virt.benchmarks.guests.disk import boot_disk
from x86virt.benchmarks.readme import README, with_block

from x86virt import load_profile
from x86virt.cli import main
from x86virt.guests import find_guest, guests

NATIVE, PARAVIRTUAL = "native", "paravirtual"
GRUB_XEN = "usr/lib/grub-xen/grub-i386-xen.bin"
PLACES = ("console", "serial", "screen")
GUEST = "hello"
PASSED = f"{GUEST}: passed"
GRUB_DIALOGUE = """\
:to serial
:wait-serial grub>
ls (hd0,msdos1)/
:wait-serial grub>
multiboot /hello.elf
:wait-serial grub>
boot
"""
# Of an image that is made of all of GRUB's modules: it knows disks by partitions and archives.
GRUB_XEN_DIALOGUE = """\
:to serial
:wait-console grub>
lsmmap
:wait-console grub>
ls
:wait-console grub>
cat (xen/hda,msdos1)/greeting
:wait-console grub>
halt
"""
GREETING = b"read through a ring of grants\n"
# The bit-fade test only waits for 160 seconds: it is taken from the selection, which also tries the keyboard.
MEMTEST_DIALOGUE = """\
:wait-screen Press <F1>
:key F1
:wait-screen Test selection
:key F1
:wait-screen Remove one test
:key F2
:wait-screen Enter test #
10
:pause 0.2
:key F10
:pause 0.2
:key F10
"""
LINUX_DIALOGUE = """\
:wait-serial Attached SCSI disk
:to serial
:wait-serial shell#
uname -a
:wait-serial shell#
cat /proc/interrupts
:wait-serial shell#
md5sum /dev/sda
:wait-serial shell#
dd if=/bin/busybox of=/dev/sda bs=64k conv=fsync
:wait-serial shell#
echo 3 > /proc/sys/vm/drop_caches; cmp -n 500000 /bin/busybox /dev/sda > /dev/null && echo equal: $((6 * 7))
:wait-serial shell#
echo the answer is $((6 * 7))
:wait-serial shell#
"""
GRUB_LINUX_DIALOGUE = """\
:to serial
:wait-serial grub>
linux /vmlinuz console=ttyS0
:wait-serial grub>
initrd /initrd
:wait-serial grub>
boot
:wait-serial shell#
echo the answer is $((6 * 7))
:wait-serial shell#
poweroff -f
"""
LINUX_END = "the answer is 42"
LINUX_DRIVERS = ("ata_piix", "sd_mod")
LINUX_DISK_BYTES = 4 << 20


@dataclass(frozen=True)
class Start:
    """How `x86virt run` is called, how it must end, and what must have been written where."""

    arguments: list[str]
    outcomes: tuple[str, ...]
    evidence: tuple[tuple[str, str], ...]  # (console, serial or screen, text)


@dataclass(frozen=True)
class Verdict:
    """What became of a system."""

    name: str
    failures: list[str]
    result: dict[str, Any]
    host_seconds: float

    def figures(self) -> str:
        """What it took in the simulated machine."""
        seconds = self.result["cycles"] / (1e6 * float(load_profile(self.result["profile"])["cpu.mhz"]))
        what = f"{self.result['instructions']:,} guest instructions, {seconds:.2f} simulated seconds"
        return f"{what}, outcome {self.result['outcome']}"

    def line(self) -> str:
        """The verdict, the figures and the host's time."""
        return f"{self.name:33} {'FAILED' if self.failures else 'passed'}: {self.figures()}, {self.host_seconds:.0f} s here"


def seabios(folder: Path) -> Start:
    """SeaBIOS from the reset vector to the boot of a disk, from which a guest of ours starts."""
    disk = folder / "disk.img"
    disk.write_bytes(boot_disk(find_guest(GUEST)))
    evidence = (("console", PASSED), ("screen", "SeaBIOS (version"), ("screen", "Booting from Hard Disk..."))
    return Start([*firmware(), "--disk", str(disk), "--memory", "32M"], ("halted",), evidence)


def grub(folder: Path) -> Start:
    """GRUB from a disk to its prompt on the serial line, where it is told to load a Multiboot kernel from the disk."""
    disk, dialogue = folder / "disk.img", folder / "dialogue"
    disk.write_bytes(grub_disk(folder, {"hello.elf": guests()[GUEST].path.read_bytes()}))
    dialogue.write_text(GRUB_DIALOGUE, encoding="utf-8")
    evidence = (("console", PASSED), ("serial", "GNU GRUB"), ("serial", "hello.elf"))
    arguments = [*firmware(), "--disk", str(disk), "--memory", "32M", "--input", str(dialogue)]
    return Start(arguments, ("halted",), evidence)


def firmware() -> list[str]:
    """The options that choose SeaBIOS."""
    bios = file_of("seabios", "usr/share/seabios/bios-256k.bin")
    return ["--bios", str(bios), "--vga-bios", str(bios.with_name("vgabios-stdvga.bin"))]


def memtest(folder: Path) -> Start:
    """memtest86+ through every test of a small memory but the one that waits, to the banner that says so."""
    image, dialogue = file_of("memtest86+", "boot/memtest86+ia32.bin"), folder / "dialogue"
    dialogue.write_text(MEMTEST_DIALOGUE, encoding="utf-8")
    evidence = (("screen", "Memtest86+ v"), ("screen", "Errors: 0"), ("screen", "of 7.62MB"))
    return Start([str(image), "--memory", "8M", "--input", str(dialogue), "--until", "Pass:  1"], ("until",), evidence)


def linux(folder: Path) -> Start:
    """Debian's kernel for i386 with busybox, to a shell on the serial line that obeys, and its driver of IDE disks."""
    kernel = linux_kernel()
    initrd, dialogue, disk = folder / "initrd", folder / "dialogue", folder / "disk.img"
    initrd.write_bytes(busybox_initrd(kernel, LINUX_DRIVERS))
    content = random.Random(1).randbytes(LINUX_DISK_BYTES)
    disk.write_bytes(content)
    dialogue.write_text(LINUX_DIALOGUE, encoding="utf-8")
    arguments = [
        str(kernel), "--memory", "128M", "--initrd", str(initrd), "--append", "console=ttyS0",
        "--disk", str(disk), "--input", str(dialogue), "--until", LINUX_END,
    ]  # fmt: skip
    sum_of_disk = hashlib.md5(content, usedforsecurity=False).hexdigest()
    written = ("Linux version 6.", "i686 GNU/Linux", "IO-APIC   2-edge", "bmdma 0xc000", sum_of_disk, "equal: 42")
    return Start(arguments, ("until",), tuple(("serial", text) for text in written))


def linux_by_grub(folder: Path) -> Start:
    """The same kernel from a disk: SeaBIOS starts GRUB, which loads it; at the end it turns the machine off by ACPI."""
    kernel = linux_kernel()
    disk, dialogue = folder / "disk.img", folder / "dialogue"
    disk.write_bytes(grub_disk(folder, {"vmlinuz": kernel.read_bytes(), "initrd": busybox_initrd(kernel)}))
    dialogue.write_text(GRUB_LINUX_DIALOGUE, encoding="utf-8")
    arguments = [*firmware(), "--disk", str(disk), "--memory", "128M", "--input", str(dialogue)]
    written = ("GNU GRUB", "ACPI: Interpreter enabled", "the answer is 42", "reboot: Power down")
    return Start(arguments, ("halted",), tuple(("serial", text) for text in written))


def linux_kernel() -> Path:
    """The image of Debian's kernel for i386 in its package."""
    return file_of(dependency("linux-image-686", "linux-image-", foreign=True), "boot/vmlinuz-*", foreign=True)


def grub_xen(folder: Path) -> Start:
    """GRUB built for Xen's interface (PAE), under `paravirtual`: a prompt on the console ring, a file through the block ring."""
    image, disk, dialogue = file_of("grub-xen-host", GRUB_XEN), folder / "disk.img", folder / "dialogue"
    disk.write_bytes(partitioned_disk({"greeting": GREETING}))
    dialogue.write_text(GRUB_XEN_DIALOGUE, encoding="utf-8")
    written = ("GNU GRUB", "available RAM", "(xen/hda,msdos1)", GREETING.decode().strip())
    arguments = [str(image), "--memory", "64M", "--disk", str(disk), "--input", str(dialogue)]
    return Start(arguments, ("halted",), tuple(("console", text) for text in written))


SYSTEMS: dict[str, Callable[[Path], Start]] = {
    "seabios": seabios,
    "grub": grub,
    "memtest": memtest,
    "linux": linux,
    "linux-by-grub": linux_by_grub,
    "grub-xen": grub_xen,
}


# Under trap-and-emulate GRUB cannot run: it keeps its IDTR by SIDT, which in ring 1 answers for the VMM. With VT-x of these
# processors much of a BIOS is interpreted, an exit for each instruction: in clusters that is quicker.
VTX_EPT, SVM_NPT = "vtx-ept,cluster=64", "svm-npt"
UNDER_VMMS = {
    "seabios": ("trap-and-emulate", "binary-translation", VTX_EPT, SVM_NPT),
    "grub": ("binary-translation", VTX_EPT, SVM_NPT),
    "linux": (VTX_EPT, SVM_NPT),
    "grub-xen": (PARAVIRTUAL,),
}
PORTED = ("grub-xen",)  # which no bare machine runs
TELLS_TIME = ("linux", "linux-by-grub")  # what it writes is not compared


def run_system(name: str, strategy: str = NATIVE, profile: str = USUAL) -> Verdict:
    """Start a system on a processor and judge what it wrote. Raises Missing."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        start = SYSTEMS[name](folder)
        report = folder / "report.json"
        began = time.monotonic()
        main(["run", *start.arguments, "--strategy", strategy, "--profile", profile, "--json", str(report)])
        result = json.loads(report.read_text(encoding="utf-8"))
    failures = [] if result["outcome"] in start.outcomes else [f"outcome {result['outcome']}"]
    failures += [f"no {text!r} on the {place}" for place, text in start.evidence if text not in text_of(result, place)]
    under = name if strategy == NATIVE or name in PORTED else f"{name} under {strategy}"
    return Verdict(under, failures, result, time.monotonic() - began)


def compare_system(name: str, strategy: str, native: Verdict | None = None) -> Verdict:
    """Run a system under a VMM; whatever it writes must be what it writes on the bare machine, which `native` has shown
    for the usual processor, unless it writes how long things took. Raises Missing."""
    profile = profile_for(strategy)
    verdict = run_system(name, strategy, profile)
    if name in TELLS_TIME or name in PORTED:
        return verdict
    bare = native if native and profile == USUAL else run_system(name, NATIVE, profile)
    differing = [place for place in PLACES if verdict.result[place] != bare.result[place]]
    verdict.failures.extend(f"the {place} is not the bare machine's" for place in differing)
    return verdict


def text_of(result: dict[str, Any], place: str) -> str:
    """What was written to the console, the serial line or the screen."""
    written = result[place]
    return "\n".join(written) if isinstance(written, list) else str(written)


def report_system(name: str, strategies: Sequence[str], transcript: bool) -> Iterator[Verdict]:
    """Run a system, under VMMs too if some are given, and print how it went. Raises Missing."""
    native = None
    if name not in PORTED and (NATIVE in strategies or not set(strategies) - {NATIVE}):
        native = run_system(name)
        yield report(native, transcript)
    for strategy in strategies:
        if strategy != NATIVE:
            yield report(compare_system(name, strategy, native), transcript)


def report(verdict: Verdict, transcript: bool) -> Verdict:
    """Print how a system went."""
    print(verdict.line(), flush=True)
    for failure in verdict.failures:
        print(f"  {failure}")
    if transcript or verdict.failures:
        for place in PLACES:
            lines = [line.rstrip() for line in text_of(verdict.result, place).splitlines() if line.strip()]
            print("\n".join(f"  {place}: {line}" for line in lines[-60:]))
    return verdict


def write_readme(verdicts: Sequence[Verdict]) -> None:
    """What each system did, in the words of its docstring, and its figures."""
    rows = (f"{verdict.name}\n    {SYSTEMS[verdict.name].__doc__}\n    {verdict.figures()}" for verdict in verdicts)
    README.write_text(with_block(README.read_text(encoding="utf-8"), "real", "\n".join(rows)), encoding="utf-8")


def run_all(arguments: Sequence[str] | None = None) -> int:
    """The command: 0 if every system that could be had passed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=SYSTEMS, help="one system; may be repeated")
    parser.add_argument("--strategy", action="append", help="what to run under, native too; may be repeated")
    parser.add_argument("--transcript", action="store_true", help="print the end of what each wrote")
    parser.add_argument("--required", action="store_true", help="a missing package is a failure")
    parser.add_argument("--readme", action="store_true", help="put the figures of all into the README")
    chosen = parser.parse_args(arguments)
    verdicts, missing_packages = [], False
    for name in chosen.only or SYSTEMS:
        try:
            strategies = chosen.strategy or [NATIVE, *UNDER_VMMS.get(name, ())]
            verdicts += report_system(name, strategies, chosen.transcript)
        except Missing as missing:
            missing_packages = True
            print(f"{name:33} {'FAILED' if chosen.required else 'left out'}: {missing}", flush=True)
    good = not any(verdict.failures for verdict in verdicts) and not (missing_packages and chosen.required)
    shown = [verdict for verdict in verdicts if verdict.name in SYSTEMS]
    if chosen.readme and good and len(shown) == len(SYSTEMS):
        write_readme(shown)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(run_all())
