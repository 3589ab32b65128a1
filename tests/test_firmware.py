"""The BIOS: its image, what its services answer here and elsewhere, and what it boots."""

import hashlib
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import bios_answers
import numpy as np
import pytest
from x86virt.benchmarks import emulators
from x86virt.benchmarks.guests.build import build_boot_program
from x86virt.benchmarks.guests.disk import boot_disk

from x86virt.api import make_setup
from x86virt.assembler import BuildError, nasm_version
from x86virt.core.device_entries import device_key
from x86virt.core.local_apic import EXTERNAL, LVT_LINT0, LVT_LINT1, SOFTWARE_ENABLED
from x86virt.firmware import ADDRESS, HERE, IMAGE, MANIFEST, bios_image, bios_symbols
from x86virt.firmware.build import assemble
from x86virt.guests import find_guest
from x86virt.isa.registers import FEATURE_APIC
from x86virt.machine import Machine
from x86virt.start.bios_area import EXTENDED_DATA_AREA
from x86virt.start.firmware import parse_firmware

MANIFEST_TEXT = json.loads(MANIFEST.read_text(encoding="utf-8"))
SECTOR = 512
STEP = 100_000
HEAD, TAIL, KEYS = 0x41A, 0x41C, 0x41E  # of the keyboard's buffer in the BIOS data area
VIDEO_ROM = 0xC0000
NMI = 4  # delivery mode

compiled = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="takes minutes without compiled code")
needs_qemu = pytest.mark.skipif(shutil.which(emulators.QEMU) is None, reason="no QEMU")
needs_bochs = pytest.mark.skipif(shutil.which("bochs") is None or shutil.which("script") is None, reason="no Bochs")


def same_assembler() -> bool:
    """Whether the assembler of the manifest is installed."""
    try:
        return bool(nasm_version(HERE) == MANIFEST_TEXT["tools"]["nasm"])
    except BuildError:
        return False


# -- the image ----------------------------------------------------------------------------------------------------


def test_the_image_is_that_of_the_manifest() -> None:
    image = bios_image()
    assert len(image) == MANIFEST_TEXT["bytes"] == 1 << 16
    assert hashlib.sha256(image).hexdigest() == MANIFEST_TEXT["sha256"]


@pytest.mark.skipif(not same_assembler(), reason="another assembler than the manifest's, or none")
def test_the_sources_give_the_committed_bytes(tmp_path: Path) -> None:
    assert assemble(tmp_path / "bios.bin") == MANIFEST_TEXT["symbols"]
    assert (tmp_path / "bios.bin").read_bytes() == bios_image()
    build_boot_program("bios_probe.asm", tmp_path / "probe.bin")
    assert (tmp_path / "probe.bin").read_bytes() == bios_answers.PROBE.read_bytes()


def test_places_that_programs_know_by_address() -> None:
    image = bios_image()
    assert image[0xFFF0] == 0xEA and image[0xFFF3:0xFFF5] == b"\x00\xf0"  # a far jump into segment F000h
    assert image[0xE05B] == 0xE9
    assert image[0xFF53] == 0xCF  # IRET
    assert image[0xFFFE] == 0xFC  # an AT
    symbols = bios_symbols()
    assert (symbols["reset_vector"], symbols["dummy_interrupt"]) == (ADDRESS + 0xFFF0, ADDRESS + 0xFF53)


# -- what it answers ----------------------------------------------------------------------------------------------


def no_differences(theirs: bios_answers.Answers, declared: dict[str, str]) -> None:
    """Nothing but declared differences from what our BIOS answers on our machine."""
    assert len(theirs) > 200
    _, unknown = bios_answers.differences(bios_answers.expected(), theirs, declared)
    assert not unknown, "\n".join(unknown)


@compiled
@pytest.mark.parametrize("apic", [False, True], ids=["no APIC", "APIC"])
def test_answers_here(apic: bool) -> None:
    no_differences(bios_answers.on_x86virt(apic), {})


@needs_qemu
def test_answers_of_ours_on_qemu() -> None:
    no_differences(bios_answers.on_qemu(IMAGE), bios_answers.OURS_ON_QEMU)


@needs_qemu
def test_answers_of_seabios_on_qemu() -> None:
    no_differences(bios_answers.on_qemu(), bios_answers.SEABIOS | bios_answers.OURS_ON_QEMU)


@needs_bochs
def test_answers_of_ours_on_bochs() -> None:
    no_differences(bios_answers.on_bochs(IMAGE), bios_answers.OURS_ON_BOCHS)


def test_a_difference_without_a_reason_is_found() -> None:
    ours = bios_answers.expected()
    known, unknown = bios_answers.differences(ours, ours | {"12": "0"}, {})
    assert (known, len(unknown)) == ([], 1)
    assert bios_answers.differences(ours, {}, {})[1]


# -- what it boots ------------------------------------------------------------------------------------------------


def boot_sector(code: str) -> bytes:
    """A sector that a BIOS boots, from the bytes of its program."""
    return bytes.fromhex(code).ljust(SECTOR - 2, b"\x00") + b"\x55\xaa"


def machine_with(tmp_path: Path, *disks: bytes, vga_rom: bytes = b"", sectors: int = 0, apic: bool = False) -> Machine:
    """A machine with our BIOS and disks, of so many sectors at least, at its reset vector."""
    paths = []
    for number, content in enumerate(disks):
        paths.append(tmp_path / f"disk{number}.img")
        with paths[-1].open("wb") as file:
            file.write(content)
            file.truncate(max(sectors * SECTOR, len(content)))
    setup = replace(make_setup(memory_bytes=8 << 20, max_cycles=40_000_000_000), disks=tuple(paths), reboots=False, apic=apic)
    return setup.load(parse_firmware(bios_image(), vga_rom, "bios"))


def run_until(machine: Machine, text: str) -> None:
    """Run a machine until its screen shows a text."""
    for _ in range(60):
        machine.advance(int(machine.processor.cpu.retired) + STEP)
        if text in machine.screen().text:
            return
    pytest.fail(f"no {text!r} on the screen: {machine.screen().text!r}")


def word(machine: Machine, address: int) -> int:
    return int.from_bytes(machine.read_guest(address, 2), "little")


@compiled
@pytest.mark.parametrize("disks", [(), (bytes(1 << 20),)], ids=["none", "unsigned"])
def test_without_a_disk_to_boot_from_it_says_so(disks: tuple[bytes, ...], tmp_path: Path) -> None:
    machine = machine_with(tmp_path, *disks)
    run_until(machine, "No bootable disk.")
    assert machine.console().endswith(b"No bootable disk.\r\n")
    assert ("Hard disk 0: 1024 KB" in machine.screen().text) == bool(disks)


PRINT_DL_AND_STOP = "88 D0 E6 E9 FA F4"


@compiled
def test_the_first_disk_with_a_signature_is_booted_and_told_its_number(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, bytes(1 << 20), boot_sector(PRINT_DL_AND_STOP))
    assert machine.run().console.endswith(b"\x81")


def geometry(sectors: int) -> tuple[int, int]:
    """Cylinders and heads by which INT 13h names the sectors of a disk: the LBA-assisted translation."""
    for heads in (16, 32, 64, 128, 255):
        cylinders = sectors // (heads * 63)
        if cylinders <= 1024:
            break
    return min(max(cylinders, 1), 1024), heads


PRINT_GEOMETRY_AND_STOP = "B4 08 CD 13 88 E8 E6 E9 88 C8 E6 E9 88 F0 E6 E9 88 D0 E6 E9 FA F4"


@compiled
@pytest.mark.parametrize(
    "sectors",
    [1, 1008, 1024 * 16 * 63, 1025 * 16 * 63, 1024 * 32 * 63 + 5, 1025 * 32 * 63, 1025 * 64 * 63, 1025 * 128 * 63, 1 << 25],
)
def test_large_disks_get_more_heads(sectors: int, tmp_path: Path) -> None:
    machine = machine_with(tmp_path, boot_sector(PRINT_GEOMETRY_AND_STOP), sectors=sectors)
    cylinders, heads = geometry(sectors)
    cylinder_low, rest, last_head, disks = machine.run().console[-4:]
    assert (cylinder_low | (rest & 0xC0) << 2, rest & 0x3F, last_head, disks) == (cylinders - 1, 63, heads - 1, 1)


@compiled
def test_keys_of_the_keyboard_arrive_in_the_buffer(tmp_path: Path) -> None:
    machine = machine_with(tmp_path)
    run_until(machine, "No bootable disk.")
    press(machine, 0x12, 0x1C, 0xF0, 0x1C, 0xF0, 0x12, 0xE0, 0x75, 0xE0, 0xF0, 0x75)  # Shift and a, then up
    first, end = word(machine, HEAD), word(machine, TAIL)
    assert (first, end) == (0x1E, 0x22)
    assert [word(machine, KEYS), word(machine, KEYS + 2)] == [0x1E41, 0x48E0]


@compiled
def test_control_alt_delete_resets_the_machine(tmp_path: Path) -> None:
    machine = machine_with(tmp_path)
    run_until(machine, "No bootable disk.")
    press(machine, 0x14, 0x11, 0xE0, 0x71)
    assert machine.outcome == "reset"


def press(machine: Machine, *codes: int) -> None:
    """Send scan codes of set 2, one after the other, and let the machine take them."""
    for code in codes:
        assert device_key(machine.boards, int(machine.processor.cpu.ticks), np.array([code], np.uint8)) == 1
        for _ in range(20):
            if machine.outcome is None:
                machine.advance(int(machine.processor.cpu.retired) + 50)


# Shutdown code 0Ah (or 05h), 0040:0067 -> 0000:7C40, reset by the keyboard controller; from there R is printed.
RESET_AND_RETURN = "B0 0F E6 70 B0 {} E6 71 C7 06 67 04 40 7C 8C 1E 69 04 B0 FE E6 64 F4 EB FD"
PRINT_R_AND_STOP = "B0 52 E6 E9 FA F4"


@compiled
@pytest.mark.parametrize("shutdown_code", ["05", "0A"])
def test_a_program_that_resets_the_processor_goes_on_where_it_said(shutdown_code: str, tmp_path: Path) -> None:
    code = bytes.fromhex(RESET_AND_RETURN.format(shutdown_code)).ljust(0x40, b"\x00") + bytes.fromhex(PRINT_R_AND_STOP)
    machine = machine_with(tmp_path, boot_sector(code.hex()))
    machine.reboots = True
    console = machine.run().console
    assert console.endswith(b"R") and console.count(b"x86virt BIOS") == 1


@compiled
def test_another_reset_begins_anew(tmp_path: Path) -> None:
    code = bytes.fromhex(RESET_AND_RETURN.format("00"))
    machine = machine_with(tmp_path, boot_sector(code.hex()))
    machine.reboots = True
    machine.advance(300_000)
    assert machine.outcome is None and machine.console().count(b"x86virt BIOS") > 1


def mp_table(machine: Machine) -> bytes:
    """The MP configuration table in the extended BIOS data area, if its pointer is there, else nothing."""
    area = machine.read_guest(EXTENDED_DATA_AREA, 1 << 10)
    pointer = next((area[at : at + 16] for at in range(0, len(area), 16) if area[at : at + 4] == b"_MP_"), b"")
    if not pointer:
        return b""
    assert sum(pointer) & 0xFF == 0
    at = int.from_bytes(pointer[4:8], "little") - EXTENDED_DATA_AREA
    return area[at : at + int.from_bytes(area[at + 4 : at + 6], "little")]


@compiled
def test_the_mp_table_is_that_of_a_start_without_a_bios(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, boot_sector(PRINT_DL_AND_STOP), apic=True)
    machine.run()
    cpu = machine.processor.cpu
    machine.has_firmware = False
    assert mp_table(machine) == machine.mp_tables()[1][1]
    features = int.from_bytes(mp_table(machine)[52:56], "little")
    assert features == int(cpu.cpuid_leaf1_edx) | 1 << FEATURE_APIC
    assert cpu.io_apic.identity == 1 << 24
    assert [int(vector) for vector in cpu.apic.local_vector[LVT_LINT0 : LVT_LINT1 + 1]] == [EXTERNAL << 8, NMI << 8]
    assert cpu.apic.spurious & SOFTWARE_ENABLED


@compiled
def test_without_an_apic_there_is_no_mp_table(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, boot_sector(PRINT_DL_AND_STOP))
    machine.run()
    assert mp_table(machine) == b""


APM_OFF = "B8 07 53 BB 01 00 B9 03 00 CD 15 B0 21 E6 E9 FA F4"  # if it comes back: ! is printed


@compiled
def test_a_program_switches_the_machine_off(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, boot_sector(APM_OFF))
    result = machine.run()
    assert result.outcome == "halted" and not result.console.endswith(b"!")
    assert machine.board.power_off_requested


@needs_qemu
def test_a_program_switches_qemu_off(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(boot_sector(APM_OFF).ljust(1 << 20, b"\x00"))
    assert run_qemu(disk) == b""


def option_rom(code: str) -> bytes:
    """A ROM of 512 bytes with a right sum."""
    content = bytearray(bytes.fromhex("55 AA 01" + code).ljust(SECTOR, b"\x00"))
    content[-1] = -sum(content) & 0xFF
    return bytes(content)


# The ROM prints R to port E9h, takes INT 10h over for itself, and its INT 10h prints V for each call.
VGA_ROM = option_rom("B0 52 E6 E9 31 C0 8E D8 C7 06 40 00 20 00 8C 0E 42 00 CB" + "90" * 10 + "50 B0 56 E6 E9 58 CF")


@compiled
def test_the_rom_of_the_display_is_copied_called_and_keeps_int_10h(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, boot_sector(PRINT_DL_AND_STOP), vga_rom=VGA_ROM)
    console = machine.run().console
    assert console.startswith(b"RV") and console.endswith(b"V\x80")
    assert machine.read_guest(VIDEO_ROM, SECTOR) == VGA_ROM
    assert word(machine, 0x42) == VIDEO_ROM >> 4


@compiled
def test_a_display_without_a_rom_leaves_int_10h_to_the_bios(tmp_path: Path) -> None:
    machine = machine_with(tmp_path, boot_sector(PRINT_DL_AND_STOP))
    machine.run()
    assert word(machine, 0x42) == 0xF000


def run_qemu(disk: Path) -> bytes:
    """Boot a disk by our BIOS on QEMU, which must end by itself; what was written to port E9h."""
    machine = "-display none -monitor none -serial none -debugcon stdio -no-reboot -m 16"
    exit_port = "-device isa-debug-exit,iobase=0xf4,iosize=4"
    drive = f"-bios {IMAGE} -drive format=raw,file={disk}"
    command = [emulators.QEMU, *machine.split(), *exit_port.split(), *drive.split()]
    return subprocess.run(command, capture_output=True, timeout=60, check=False).stdout


@needs_qemu
def test_a_guest_boots_from_disk_on_qemu(tmp_path: Path) -> None:
    disk = tmp_path / "disk.img"
    disk.write_bytes(boot_disk(find_guest("hello"), "iterations=2"))
    assert b"hello: passed" in run_qemu(disk)
