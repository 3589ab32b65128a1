"""Assemble, compile and link the guest kernels, and write their manifest (``make guests``).

Only who changes a guest needs this: the images are committed. The same sources and tools give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
if str(HERE) not in sys.path:
    sys.path.insert(0, str(HERE))
import port_size  # type: ignore[import-not-found]  # noqa: E402

IMAGES = HERE / "images"
MANIFEST = IMAGES / "manifest.json"
DOMAIN_0 = IMAGES / "domain_0.elf"
BOOT_PROGRAMS = {"sector.asm": IMAGES / "boot_sector.bin", "bios_probe.asm": IMAGES / "bios_probe.bin"}
"""What a BIOS boots: the sector of :mod:`disk`, and the probe of a BIOS (source -> image)."""


@dataclass(frozen=True)
class Guest:
    """How one image is built and what it measures.

    ``source`` is the NASM file, or the folder of a kernel in C; ``macros`` are defined on the assembler's command line, and
    ``regions[n]`` says what one iteration of measured region ``n`` is (none for a guest that measures nothing). A guest that is
    ``ported`` has a second image, for Xen's paravirtual interface. What both must agree on beside the exit code and the disk: the
    dwords at the symbols of ``results``, and the console but for what the patterns of ``own_lines`` match. Regions that the
    ported build never reaches, because the interface has nothing of the kind, are ``left_out``.

    ``parts`` are the files in C of an assembled guest, by half; ``disk_sectors`` is the size of the empty disk that it gets
    unless there is another.
    """

    source: str
    regions: tuple[str, ...] = ()
    macros: tuple[str, ...] = ()
    ported: bool = False
    results: tuple[str, ...] = ()
    own_lines: tuple[str, ...] = ()
    parts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    disk_sectors: int = 0
    left_out: tuple[int, ...] = ()


NATIVE, XEN = "native", "xen"
BYTES, NUMBERS = "unix/kernel/bytes.c", "xen/text.c"
BLOCK_FRONT_END = ("xen/front.c", "xen/store_front.c", "xen/block_front.c", NUMBERS, BYTES)
DOMAIN_0_PARTS = ("xen/events.c", "xen/grants.c", "ide/ide.c", NUMBERS, BYTES)
"""Files in C that kernels share, beside each kernel's own."""

GUESTS: dict[str, Guest] = {
    "alu": Guest("alu.asm", ("1000 passes over register arithmetic",), ported=True, results=("sum",)),
    "blockio": Guest(
        "blockio.asm",
        (
            "4 KB written to the disk and waited for",
            "4 KB read from the disk and waited for",
            "32 times 4 KB read from the disk, asked for at once",
            "44 KB read from the disk by one request",
        ),
        ported=True,
        parts={
            NATIVE: ("blockio/requests.c", "blockio/native/disk.c", "ide/ide.c", BYTES),
            XEN: ("blockio/requests.c", "blockio/xen/disk.c", *BLOCK_FRONT_END),
        },
        disk_sectors=512,
    ),
    "callret": Guest("callret.asm", ("call and return in ring 3", "call and return in the kernel"), ported=True),
    "clock": Guest("clock.asm", ported=True, own_lines=("read [0-9a-f]{8}, interrupted [0-9a-f]{8}",)),
    "cr3switch": Guest("cr3switch.asm", ("write to CR3", "write to CR3, then one read of each of 16 pages"), ported=True),
    "divzero": Guest("divzero.asm", ("divide error and return",), ported=True, results=("fault_count",)),
    "exits": Guest(
        "exits.asm",
        (
            "CPUID",
            "VMCALL or VMMCALL, #UD, the handler skips it",
            "UD2, #UD, the handler skips it",
            "IN from port 0x80",
            "OUT to port 0x80",
            "RDMSR of MCG_STATUS",
            "WRMSR to MCG_STATUS",
            "INVLPG",
            "write to CR3",
            "write to CR0 that turns NE",
            "page fault skipped by the kernel",
            "HLT until the timer's interrupt is delivered",
            "first store to a frame of RAM",
            "STI, and the delivery of the timer's interrupt that waits",
            "LIDT",
        ),
        ported=True,
        results=("vendor",),
    ),
    "hello": Guest("hello.asm", ported=True, own_lines=("ring [01]",)),
    "hello_pse": Guest("hello.asm", macros=("PAGING_PSE",)),
    "hypervisor": Guest("hypervisor.asm"),
    "intflag": Guest("intflag.asm", ("CLI and STI",), ported=True),
    "irq": Guest("irq.asm", ("timer interrupt awaited in HLT",), ported=True, results=("ticks", "user_done")),
    "mix": Guest("mix.asm", ("sort of 128 items, primes below 8192, copy of 16 KB",), ported=True, results=("sum", "primes")),
    "pgfault": Guest(
        "pgfault.asm",
        ("page fault answered by one new PTE",),
        ported=True,
        results=("fault_count", "next_page", "user_sum"),
    ),
    "portio": Guest("portio.asm", ("IN from port 0x80", "OUT to port 0x80"), ported=True),
    "ptemod": Guest("ptemod.asm", ("store to a PTE in use", "store to a PTE, INVLPG, read through it"), ported=True),
    "smc": Guest(
        "smc.asm",
        (
            "an instruction of the running loop changed, in the kernel",
            "an instruction of the running loop changed, in ring 3",
            "a routine copied and called, in the kernel",
            "a routine copied and called, in ring 3",
            "a page of code mapped onto another frame, INVLPG, call",
        ),
        ported=True,
    ),
    "speed": Guest(
        "speed.asm",
        (
            "1000 passes over register arithmetic",
            "sort of 128 items, primes below 8192, copy of 16 KB",
            "INT 0x80 and IRET",
            "page fault answered by one new PTE; after 64, 64 PTEs cleared and CR3 reloaded",
            "write to CR3, then one read of each of 64 pages",
            "store to a PTE, INVLPG, read through it",
            "IN from and OUT to port 0x80",
        ),
        ported=True,
        results=("alu_sum", "sum", "syscall_count", "fault_count", "user_sum"),
    ),
    "stealth": Guest("stealth.asm"),
    "syscall": Guest(
        "syscall.asm",
        ("INT 0x80 and IRET", "SYSENTER and SYSEXIT"),
        ported=True,
        results=("user_iterations",),
        own_lines=("syscall: no SYSENTER here, region 1 left out\\n",),
        left_out=(1,),
    ),
    "tasks": Guest("tasks.asm"),
    "truefault": Guest("truefault.asm", ("page fault skipped by the kernel",), ported=True, results=("fault_count",)),
    "unix": Guest(
        "unix",
        (
            "null system call by INT 0x80",
            "null system call by the call page (SYSENTER)",
            "fork by copying 100 pages, exit, wait",
            "fork by copy-on-write, exit, wait",
            "fork by copy-on-write, exec, exit, wait",
            "one byte through two pipes and back: two context switches",
            "one byte once around a ring of 8 processes",
            "first touch of a page of a mapping",
            "map 64 KB, touch 16 pages, unmap",
            "signal sent to oneself, handler, return",
            "write to a protected page, handler, return",
            "4 KB read from a file of the RAM disk",
            "one byte read from the device of zeros",
            "one byte written to the device of nothing",
            "stat of a file",
            "open and close of a file",
            "signal handler set",
        ),
        ported=True,
        results=("last_number",),  # of processes
    ),
}
"""Image name -> how it is built."""

COMPILER = (
    "gcc", "-m32", "-march=i686", "-std=c11", "-O2", "-ffreestanding", "-mgeneral-regs-only", "-mpreferred-stack-boundary=2",
    "-fno-pie", "-fno-common", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
    "-fno-strict-aliasing",  # memory is looked at as bytes, as words and as tables
    "-fno-tree-loop-distribute-patterns",  # a loop that copies stays one: memcpy() would call itself
    "-Wall", "-Wextra", "-Werror",
)  # fmt: skip
ASSEMBLER = ("nasm", "-f", "elf32", "-w+error")
LINKER = ("ld", "-m", "elf_i386", "-n", "--build-id=none", "-z", "noexecstack")
@dataclass(frozen=True)
class Half:
    """One of the two ways to build a guest: macros for the assembler and the compiler, linker script, suffix of the image."""

    macros: tuple[str, ...]
    script: str
    suffix: str


HALVES = {NATIVE: Half((), "link.ld", ".elf"), XEN: Half(("XEN",), "link_xen.ld", ".xen.elf")}
"""By the name of the folder that holds what is their own: of ``lib``, and of a kernel in C."""
PROGRAMS = ("init", "processes", "memory", "pipes", "signals", "files", "clock", "marks")
"""What the RAM disk of ``unix`` holds, beside the text ``letters``; each is one file of its folder ``user``."""


class BuildError(Exception):
    """The assembler or the linker refused; the message is what it said."""


def run_tool(*command: str) -> str:
    """Run one tool in the guests' folder and return its standard output.

    Raises :class:`BuildError` with the tool's own words if it cannot be run or does not succeed.
    """
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=False)
    except OSError as error:
        raise BuildError(f"{command[0]}: {error}") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)}\n{done.stderr.strip()}")
    return done.stdout


def tool_versions() -> dict[str, str]:
    """The first line that each tool says of itself, by tool name. Raises :class:`BuildError` if one is missing."""
    return {
        "nasm": run_tool("nasm", "-v").splitlines()[0].split(" compiled")[0],
        "ld": run_tool("ld", "--version").splitlines()[0],
        "gcc": run_tool("gcc", "--version").splitlines()[0],
    }


def build_image(name: str, target: Path, half: str = NATIVE) -> None:
    """Build the guest ``name`` (a key of :data:`GUESTS`) into the ELF32 file ``target``. Raises :class:`BuildError`."""
    guest = GUESTS[name]
    with tempfile.TemporaryDirectory() as folder:
        if is_in_c(guest.source):
            build_kernel(guest.source, Path(folder), target, half)
        else:
            linked_object = str(Path(folder) / f"{name}.o")
            parts = [object_of(HERE / part, Path(folder)) for part in guest.parts.get(half, ())]
            defines = [f"-D{macro}" for macro in (*guest.macros, *HALVES[half].macros)]
            run_tool(*ASSEMBLER, "-I", "lib/", "-I", f"lib/{half}/", *defines, "-o", linked_object, guest.source)
            script = HALVES[half].script
            run_tool("ld", "-m", "elf_i386", "-n", "--build-id=none", "-T", script, "-o", str(target), linked_object, *parts)
    target.chmod(0o644)


def is_in_c(source: str) -> bool:
    """Whether a guest's source is the folder of a kernel in C."""
    return not source.endswith(".asm")


def build_kernel(source: str, folder: Path, target: Path, half: str = NATIVE) -> None:
    """Build a kernel in C with its RAM disk, with ``folder`` for what lies between. Raises :class:`BuildError`."""
    link_kernel(source, kernel_objects(source, folder, half), target, half)


def kernel_objects(source: str, folder: Path, half: str = NATIVE) -> dict[str, str]:
    """Compile a kernel in C into ``folder``; its objects by the files' names in its folder. Raises :class:`BuildError`."""
    disk = folder / "disk.tar"
    disk.write_bytes(archive(source, folder))
    parts = [path for part in ("kernel", half) for path in sorted((HERE / source / part).glob("*.[ca]*"))]
    return {f"{path.parent.name}/{path.name}": object_of(path, folder, f'-DRAM_DISK="{disk}"', half=half) for path in parts}


def link_kernel(source: str, objects: dict[str, str], target: Path, half: str = NATIVE) -> None:
    """Link the objects of a kernel in C. Raises :class:`BuildError`."""
    run_tool(*LINKER, "-T", f"{source}/{HALVES[half].script}", "-o", str(target), *objects.values())


def object_of(source: Path, folder: Path, *defines: str, half: str = NATIVE) -> str:
    """Assemble or compile one file of a kernel in C; the object's path. Raises :class:`BuildError`."""
    target = str(folder / f"{source.parent.name}_{source.name}.o")
    if source.suffix == ".asm":
        run_tool(*ASSEMBLER, "-I", "lib/", *defines, "-o", target, str(source.relative_to(HERE)))
    else:
        here = source.parent.parent.relative_to(HERE) / half
        run_tool(*COMPILER, "-I", str(here), "-c", "-o", target, str(source.relative_to(HERE)))
    return target


def archive(source: str, folder: Path) -> bytes:
    """The RAM disk of a kernel in C: its programs and a text, as tar. Raises :class:`BuildError`."""
    user = HERE / source / "user"
    common = [object_of(user / name, folder) for name in ("start.asm", "library.c")]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as disk:
        for program in PROGRAMS:
            linked = folder / program
            own = object_of(user / f"{program}.c", folder)
            run_tool(*LINKER, "-s", "-T", f"{source}/user/link.ld", "-o", str(linked), *common, own)
            add_file(disk, program, linked.read_bytes())
        add_file(disk, "letters", (user / "letters").read_bytes())
    return content.getvalue()


def add_file(disk: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put a file into an archive, without anything that depends on the day or on who builds it."""
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    disk.addfile(entry, io.BytesIO(content))


def build_boot_program(source: str, target: Path) -> None:
    """Assemble what a BIOS boots, from a file of the folder ``boot``. Raises :class:`BuildError`."""
    run_tool("nasm", "-f", "bin", "-w+error", "-o", str(target), f"boot/{source}")


def build_domain_0(target: Path) -> None:
    """Build the kernel of domain 0, which serves the guests of the paravirtual VMM. Raises :class:`BuildError`."""
    with tempfile.TemporaryDirectory() as folder:
        objects = [object_of(path, Path(folder)) for path in domain_0_sources()]
        run_tool(*LINKER, "-T", "domain0/link.ld", "-o", str(target), *objects)
    target.chmod(0o644)


def domain_0_sources() -> list[Path]:
    """The files of domain 0's kernel: its own, and what it shares with other kernels in C."""
    return [*sorted((HERE / "domain0").glob("*.[ca]*")), *(HERE / name for name in DOMAIN_0_PARTS)]


def default_iterations(source: str) -> int:
    """What a guest does without ``iterations=N`` on its command line, read from the text of its source."""
    path = HERE / source
    if is_in_c(source):
        path /= "include/sizes.h"
    found = re.search(r'^[%#]define DEFAULT_ITERATIONS "?(\d+)"?$', path.read_text(encoding="utf-8"), re.MULTILINE)
    if found is None:
        raise BuildError(f"{source}: no line that defines DEFAULT_ITERATIONS")
    return int(found.group(1))


def manifest_entry(name: str, images: Path) -> dict[str, object]:
    """What the manifest says of one guest: how it was built, what it measures, and of its images in the folder ``images``."""
    guest = GUESTS[name]
    entry: dict[str, object] = {
        "source": guest.source,
        "macros": list(guest.macros),
        "regions": list(guest.regions),
        "default_iterations": default_iterations(guest.source),
        **image_entry(images / image_name(name, NATIVE)),
    }
    if guest.disk_sectors:
        entry["disk_sectors"] = guest.disk_sectors
    if guest.ported:
        size = port_size.of_guest(guest.source)
        entry["port"] = {
            **image_entry(images / image_name(name, XEN)),
            "changed_lines": size.changed,
            "lines": size.lines,
            "results": guest.results,
            "own_lines": guest.own_lines,
            "left_out": guest.left_out,
        }
    return entry


def image_name(name: str, half: str) -> str:
    """The file's name of a guest's image."""
    return f"{name}{HALVES[half].suffix}"


def halves_of(name: str) -> tuple[str, ...]:
    """The ways in which a guest is built."""
    return (NATIVE, XEN) if GUESTS[name].ported else (NATIVE,)


def image_entry(image: Path) -> dict[str, object]:
    """Name, size in bytes and SHA-256 of an image."""
    content = image.read_bytes()
    return {"image": image.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def build_all() -> None:
    """Build every guest into :data:`IMAGES` and write :data:`MANIFEST`. Raises :class:`BuildError`."""
    IMAGES.mkdir(exist_ok=True)
    guests = {}
    for name in GUESTS:
        for half in halves_of(name):
            build_image(name, IMAGES / image_name(name, half), half)
        guests[name] = manifest_entry(name, IMAGES)
    build_domain_0(DOMAIN_0)
    for source, target in BOOT_PROGRAMS.items():
        build_boot_program(source, target)
    library = port_size.of_library()
    ported = {"changed_lines": library.changed, "lines": library.lines}
    manifest = {"schema_version": 1, "tools": tool_versions(), "library_port": ported, "guests": guests}
    MANIFEST.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Command line: no arguments. Exit status 0, or 1 if a tool refused."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    try:
        build_all()
    except BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
