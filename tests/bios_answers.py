"""What a BIOS answers: the probe disk (benchmarks/guests/boot/bios_probe.asm) on our BIOS and on others, side by side.

`python tests/bios_answers.py` runs all that are installed and prints every difference with its reason
(`make conformance-bios`); tests/test_firmware.py holds the same.
"""

import random
import re
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

from x86virt.benchmarks import emulators
from x86virt.benchmarks.guests.disk import CYLINDER

from x86virt.api import make_setup
from x86virt.firmware import IMAGE, bios_image
from x86virt.start.firmware import parse_firmware

HERE = Path(__file__).resolve().parent
PROBE = HERE.parent / "benchmarks" / "guests" / "images" / "bios_probe.bin"
EXPECTED = HERE / "bios_answers.txt"
MEMORY = 16
CYLINDERS = 4
DONE = "done"
NAME = "(?:[014][0-9A-F]|bda|crtc|text|map|moved|sum|pic1|boot|irq4)[A-Za-z0-9_.]*"
ANSWER = re.compile(rf"({NAME}) ((?:[0-9a-f]{{8}} ){{4}}[01] [01]|[0-9a-f]+)$")
DISPLAY = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|[\x0e\x0f\r]")  # what Bochs's display writes between

Answers = dict[str, str]

ABSENT = "devices that only one of them has or looks for"
REGISTERS = "registers that the interface leaves open"
LAYOUT = "where a BIOS keeps what is its own"
SEABIOS = {
    "11": ABSENT,
    "bda.ports": ABSENT,
    "15.88": "SeaBIOS keeps memory for itself below the end",
    "15.E801": "SeaBIOS keeps memory for itself below the end",
    "15.E820": LAYOUT,
    "map": LAYOUT,
    "15.C0": LAYOUT,
    "15.C0.table": "our submodel is 1, that of an AT",
    "15.5300": "SeaBIOS has APM in protected mode too",
    "15.5301": REGISTERS,
    "15.5307.device": "SeaBIOS does not look at the device",
    "13.08": "SeaBIOS keeps the last cylinder back",
    "13.15": "SeaBIOS keeps the last cylinder back",
    "13.02.diskette": "which error a drive that is not there gives",
    "13.05": "we format no tracks, SeaBIOS says that it has",
    "13.01": "the status of the service before",
    "13.41": "SeaBIOS says EDD 3.0, we 1.1",
    "13.41.unsigned": "SeaBIOS does not look for 55AAh in BX",
    "13.4B": ABSENT,
    "16.11.alt_number": "only ours makes a character of Alt and digits",
    "pic1.mask": ABSENT,
    "14.03.none": REGISTERS,
    "1A.02": REGISTERS,
    "1A.03": REGISTERS,
    "1A.04": REGISTERS,
    "1A.05": REGISTERS,
    "1A.03.night": REGISTERS,
    "1A.04.march": REGISTERS,
    "1A.03.alarm": REGISTERS,
    "1A.06.again": REGISTERS,
    "1A.07": REGISTERS,
    "irq4.mask": "a line that nobody has taken: we mask it, as the AT did",
    "15.86": REGISTERS,
    "15.83": REGISTERS,
    "1A.B102.vendor": "the specification has an error of its own for vendor FFFFh",
    "1A.B108.register": "SeaBIOS does not look at the register's number",
    "1A.B109.odd": "SeaBIOS does not look at the register's number",
    "17.02": ABSENT,
}
BOCHS = SEABIOS | {
    "16.10.typed": "Bochs's BIOS gives Enter and / of the number pad their old codes",
    "1A.02.morning": "Bochs's clock needs longer for the first second",
    "4A.alarms": "Bochs's clock needs longer for the first second",
    "14.00": "modem lines of Bochs's serial port",
    "14.03": "modem lines of Bochs's serial port",
    "14.01": "modem lines of Bochs's serial port",
    "10.01": "the VGA BIOS beside Bochs changes CX",
    "10.01.line": "the VGA BIOS beside Bochs changes CX",
} | {
    f"1A.{name}": "Bochs's BIOS leaves other values in EAX, EBX and EDX"
    for name in ("B102", "B108", "B109", "B10A", "B102.none", "B102.second", "B103", "B10B", "B108.written", "B1.unknown")
}
OURS_ON_QEMU = {f"15.{name}.right": "on a busy host QEMU loses ticks" for name in ("83", "86")}
OPEN_ON_BOCHS = ("1A.02.morning", "1A.04.march", "4A.alarms", "14.00", "14.03", "10.01", "10.01.line")
OURS_ON_BOCHS = {name: BOCHS[name] for name in OPEN_ON_BOCHS}


def probe_disk() -> bytes:
    """The probe, and behind it anything."""
    program = PROBE.read_bytes()
    return program + random.Random(1).randbytes(CYLINDERS * CYLINDER - len(program))


def answers_in(text: str) -> Answers:
    """The probe's lines by name; the second of a name gets a number."""
    seen: Counter[str] = Counter()
    answers: Answers = {}
    for line in DISPLAY.sub("", text).split("\n"):
        found = ANSWER.search(line)
        if found:
            seen[found[1]] += 1
            number = f"#{seen[found[1]]}" if seen[found[1]] > 1 else ""
            answers[found[1] + number] = found[2]
    return answers


def on_x86virt(apic: bool = True) -> Answers:
    """Our BIOS on our machine, with APICs or without."""
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk.img"
        disk.write_bytes(probe_disk())
        setup = replace(make_setup(memory_bytes=MEMORY << 20), disks=(disk,), apic=apic, max_cycles=40_000_000_000)
        result = setup.run(parse_firmware(bios_image(), b"", "bios"))
    return answers_in(result.console.decode("latin1"))


def on_qemu(bios: Path | None = None) -> Answers:
    """A BIOS on QEMU, SeaBIOS with its VGA BIOS if none is named. Raises Missing."""
    options = [] if bios is None else ["-bios", str(bios), "-vga", "none", "-device", "VGA,romfile="]
    machine = "-accel tcg -display none -monitor none -serial null -serial null -debugcon stdio -no-reboot"
    exit_port = ["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk.img"
        disk.write_bytes(probe_disk())
        drive = ["-m", str(MEMORY), "-drive", f"format=raw,file={disk}"]
        command = [emulators.tool(emulators.QEMU), *machine.split(), *exit_port, *drive, *options]
        done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    return answers_in(done.stdout.decode("latin1"))


def on_bochs(bios: Path = emulators.BOCHS_BIOS) -> Answers:
    """A BIOS on Bochs, its own if none is named. Raises Missing."""
    text = bytearray()

    def seen(piece: bytes, moment: float) -> bool:
        text.extend(piece)
        return DONE.encode() in text

    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk.img"
        disk.write_bytes(probe_disk())
        started = emulators.bochs(disk, Path(folder), extra="com2: enabled=1\n", bios=bios)
        emulators.watch(started, seen, 120)
    return answers_in(text.decode("latin1"))


def expected() -> Answers:
    """What our BIOS answers on our machine, as committed."""
    return answers_in(EXPECTED.read_text(encoding="utf-8"))


def differences(ours: Answers, theirs: Answers, declared: dict[str, str]) -> tuple[list[str], list[str]]:
    """Lines that differ: those with a declared reason, and those without."""
    known, unknown = [], []
    for name in dict.fromkeys([*ours, *theirs]):
        if ours.get(name) != theirs.get(name):
            reason = declared.get(name.split("#")[0])
            line = f"{name}: ours {ours.get(name)}, theirs {theirs.get(name)}"
            (unknown if reason is None else known).append(line + (f" ({reason})" if reason else ""))
    return known, unknown


def main() -> int:
    """Command line: no arguments, or `--write` to write the expected answers anew. Status 1 for unknown differences."""
    ours = on_x86virt()
    if sys.argv[1:] == ["--write"]:
        EXPECTED.write_text("".join(f"{name.split('#')[0]} {answer}\n" for name, answer in ours.items()), encoding="utf-8")
    status = 0
    for title, run, declared in (
        ("as committed", expected, {}),
        ("our BIOS on QEMU", lambda: on_qemu(IMAGE), OURS_ON_QEMU),
        ("our BIOS on Bochs", lambda: on_bochs(IMAGE), OURS_ON_BOCHS),
        ("SeaBIOS on QEMU", on_qemu, SEABIOS | OURS_ON_QEMU),
        ("Bochs's BIOS on Bochs", on_bochs, BOCHS),
    ):
        try:
            theirs = run()
        except emulators.Missing as missing:
            print(f"{title}: left out, {missing}")
            continue
        known, unknown = differences(ours, theirs, declared)
        print(f"{title}: {len(theirs)} answers, {len(known)} differences with a reason, {len(unknown)} without")
        for line in known + [f"WITHOUT A REASON: {line}" for line in unknown]:
            print("  " + line)
        status |= bool(unknown) or not theirs
    return status


if __name__ == "__main__":
    sys.exit(main())
