"""The Unix-like kernel: its programs check it from inside; here it is checked from outside, and that the checks can fail."""

from __future__ import annotations

import functools
import io
import itertools
import re
import shutil
import tarfile
from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile
from guest_sets import UNIX_PROGRAMS
from profile_for import profile_for
from small_kernel import strategy
from test_contracts import check_ledger
from test_guest_images import (
    MANIFEST,
    PAGE,
    REGION_BEGIN,
    REGION_END,
    build,
    image_of,
    lint,
    same_tools,
    symbols_of,
)
from unix_programs import ONLY_THE_END
from vmm_judge import VMMS

from x86virt import find_guest, load_profile
from x86virt.discipline import tlb_discipline
from x86virt.equivalence import compare_runs
from x86virt.machine import Machine, RunResult
from x86virt.suites import UNIX, measure

MEMORY = 8 << 20
MAX_CYCLES = 4_000_000_000
REGIONS = MANIFEST["guests"]["unix"]["regions"]
HEADERS = image_of("unix").parent.parent / "unix" / "include"
ITERATIONS = 4


@functools.cache
def ram_disk() -> dict[str, bytes]:
    """The files of the kernel's RAM disk, read by somebody else's tar."""
    with image_of("unix").open("rb") as stream:
        section = ELFFile(stream).get_section_by_name(".ramdisk")
        assert section is not None
        with tarfile.open(fileobj=io.BytesIO(section.data())) as disk:
            return {entry.name: disk.extractfile(entry).read() for entry in disk}  # type: ignore[union-attr]


PROGRAMS = sorted(name for name, content in ram_disk().items() if content.startswith(b"\x7fELF"))


@functools.cache
def sizes() -> dict[str, int]:
    """The numbers of sizes.h."""
    text = (HEADERS / "sizes.h").read_text(encoding="utf-8")
    return {name: int(value) for name, value in re.findall(r"^#define (\w+) \(?(\d+)", text, re.MULTILINE)}


def run(line: str, under: str = "native", image: object = None) -> tuple[Machine, RunResult]:
    """One run with that command line."""
    machine = Machine(strategy(under), load_profile(profile_for(under)), MEMORY)
    machine.load(image or find_guest("unix"), line)
    return machine, machine.run(MAX_CYCLES)


# -- the image ----------------------------------------------------------------------------------------------------------


def test_the_archive_holds_the_programs_and_the_text() -> None:
    assert set(ram_disk()) == {*PROGRAMS, "letters"}
    assert set(PROGRAMS) == {"init", *UNIX_PROGRAMS}
    assert ram_disk()["letters"] == b"abcdefghijklmnopqrstuvwxyz\n"


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_uses_no_sensitive_instruction(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(ram_disk()[name])
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    with path.open("rb") as stream:
        text = ELFFile(stream).get_section_by_name(".text")
        decoded = sum(i.size for i in disassembler.disasm(text.data(), text["sh_addr"]))
    seen, findings = lint.lint_image(path)
    assert decoded == seen == text["sh_size"] > 300
    assert findings == []


def test_marks_are_those_of_the_manifest(tmp_path: Path) -> None:
    """One begin and one end for each region, and the instruction before each begin puts its number into EDX."""
    path = tmp_path / "marks"
    path.write_bytes(ram_disk()["marks"])
    with path.open("rb") as stream:
        text = ELFFile(stream).get_section_by_name(".text")
        disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
        lines = [f"{i.mnemonic} {i.op_str}" for i in disassembler.disasm(text.data(), text["sh_addr"])]
    begun = [before for before, line in itertools.pairwise(lines) if line == REGION_BEGIN]
    assert sorted(int(before.removeprefix("mov edx, "), 0) for before in begun) == list(range(len(REGIONS)))
    assert lines.count(REGION_END) == len(REGIONS) == len(UNIX)


def test_tables_and_stacks_share_no_page() -> None:
    with image_of("unix").open("rb") as stream:
        sections = {section.name: section.header for section in ELFFile(stream).iter_sections() if section["sh_addr"]}
    for own in (".tables", ".stacks"):
        assert sections[own]["sh_addr"] % PAGE == 0 and sections[own]["sh_size"] % PAGE == 0
    symbols = symbols_of("unix")
    tables = [symbols[name] for name in ("gdt", "idt", "tss", "kernel_directory", "kernel_tables")]
    assert all(address % PAGE == 0 for address in tables) and len(set(tables)) == 5
    end = sections[".tables"]["sh_addr"] + sections[".tables"]["sh_size"]
    assert all(sections[".tables"]["sh_addr"] <= address < end for address in tables)


def test_every_privileged_instruction_is_in_the_machines_folder() -> None:
    """What a port to hypercalls replaces is one folder: no other file of the kernel has inline assembly but string copies."""
    for path in (HEADERS.parent / "kernel").glob("*.c"):
        for statement in re.findall(r'__asm__ volatile\("([^"]*)"', path.read_text(encoding="utf-8")):
            assert statement.startswith(("rep movs", "rep stos")), (path.name, statement)
    for path in (HEADERS.parent / "kernel").glob("*.[ch]"):
        text = path.read_text(encoding="utf-8")
        if path.name != "space.c":
            assert "machine_set_entry" not in text and "machine_flush_page" not in text, path.name


# -- the bare machine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", UNIX_PROGRAMS)
def test_program_passes_on_the_bare_machine(program: str) -> None:
    machine, result = run(f"iterations=3 program={program}")
    assert (result.outcome, result.exit_code) == ("halted", 0), result.console
    assert result.console == b"unix: passed\n"
    check_ledger(machine, result)


def test_everything_passes_at_once_and_ends_alike_twice() -> None:
    one, two = (run("iterations=2")[1] for _ in range(2))
    assert (one.outcome, one.exit_code) == ("halted", 0), one.console
    assert (one.ticks, one.instructions, one.ledger) == (two.ticks, two.instructions, two.ledger)


@pytest.mark.parametrize(
    ("line", "code"),
    [("iterations=0", 254), ("iterations=4294967296", 254), ("iterations=1x", 254), ("program=nothing", 99),
     ("timer=off program=clock", 99), ("program=sixteenletterslong", 254)],
)  # fmt: skip
def test_a_bad_command_line_is_refused(line: str, code: int) -> None:
    _, result = run(line)
    assert result.exit_code == code, result.console
    assert b"(exit code %d)" % code in result.console


def test_a_wrong_letter_is_found_by_the_program_that_reads_it(tmp_path: Path) -> None:
    content = image_of("unix").read_bytes()
    letters = ram_disk()["letters"]
    assert content.count(letters) == 1
    (tmp_path / "damaged.elf").write_bytes(content.replace(letters, letters.replace(b"j", b"J")))
    _, result = run("program=files", image=find_guest(tmp_path / "damaged.elf"))
    assert result.exit_code == 6 and b"not so: the beginning" in result.console


MUTANTS = {
    "fork leaves the parent the right to write": (
        "kernel/space.c", "(entry & ~ENTRY_W) | ENTRY_COPY", "entry | ENTRY_COPY", "memory", 252),
    "fork shares what it was asked to copy": (
        "kernel/space.c", "if (way == FORK_COPYING) {", "if (way > FORK_COPYING) {", "memory", 3),
    "a copied page is not given back": (
        "kernel/areas.c", "copy_page((void *)frame, (void *)old);\n        frame_release(old);",
        "copy_page((void *)frame, (void *)old);", "pipes", 54),
    "a reader does not wake the writer": (
        "kernel/pipe.c", "done += piece;\n    }\n    wake(pipe);", "done += piece;\n    }", "pipes", 252),
    "the registers are not put back after a handler": (
        "kernel/signals.c", "*frame = kept->registers;", "", "signals", 5),
}  # fmt: skip
"""A bug in the kernel: file, text, what it becomes, the program that must notice, and the exit code."""

if same_tools():

    @pytest.fixture(scope="module")
    def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
        """A copy of the sources, and the objects of all of them."""
        folder = tmp_path_factory.mktemp("unix")
        shutil.copytree(build.HERE, folder / "guests", ignore=shutil.ignore_patterns("images"))
        return folder / "guests", build.kernel_objects("unix", folder)

    @pytest.mark.parametrize("name", MUTANTS)
    def test_a_bug_is_found(
        name: str, sound: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file, old, new, program, code = MUTANTS[name]
        folder, objects = sound
        text = (folder / "unix" / file).read_text(encoding="utf-8")
        assert text.count(old) == 1
        monkeypatch.setattr(build, "HERE", folder)
        (folder / "unix" / file).write_text(text.replace(old, new), encoding="utf-8")
        try:
            mutant = build.object_of(folder / "unix" / file, tmp_path)
        finally:
            (folder / "unix" / file).write_text(text, encoding="utf-8")
        build.link_kernel("unix", objects | {file: mutant}, tmp_path / "mutant.elf")
        _, result = run(f"program={program} timer=off", image=find_guest(tmp_path / "mutant.elf"))
        assert result.exit_code == code, result.console


# -- every strategy -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("under", VMMS)
def test_a_program_is_equal_at_every_checkpoint(under: str) -> None:
    """E1: without a timer nothing is asynchronous. The other programs, and other choices: unix_programs.py."""
    line = "iterations=1 program=signals timer=off"
    profile = load_profile(profile_for(under))
    one, native = strategy(under), strategy("native")
    comparison = compare_runs(find_guest("unix"), one, native, profile, MEMORY, line, MAX_CYCLES, 1 << 16)
    assert comparison.equal, "\n".join(comparison.report)
    assert (comparison.native.outcome, comparison.native.exit_code) == ("halted", 0)
    assert comparison.divergences == [] and comparison.deliveries == 0


@pytest.mark.parametrize("under", VMMS)
def test_the_timer_is_replayed_on_the_bare_machine(under: str) -> None:
    """E2: preemption, sleeps and alarms come where they came under the VMM."""
    profile = load_profile(profile_for(under))
    one, native = strategy(under), strategy("native")
    line = "iterations=1 program=clock"
    comparison = compare_runs(find_guest("unix"), one, native, profile, MEMORY, line, MAX_CYCLES, ONLY_THE_END)
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.deliveries >= 15 and comparison.native.exit_code == 0


def test_the_kernel_keeps_the_tlb_rules_to_the_last_bit() -> None:
    """Without a timer the whole end state must be equal, accessed and dirty bits included; global pages are on."""
    for program in ("signals", "marks"):
        line = f"iterations=1 program={program} timer=off"
        rows = tlb_discipline(find_guest("unix"), load_profile("p4_prescott"), MEMORY, line, MAX_CYCLES)
        for row in rows:
            assert row.differences == [] and not row.verdict_only, (program, row.variant)


# -- what is measured ---------------------------------------------------------------------------------------------------


@functools.cache
def marks(under: str = "native") -> dict[str, dict[str, float]]:
    """Counts of events per iteration of each benchmark of the suite."""
    from x86virt.api import make_setup

    rows = measure(UNIX, [make_setup(under, memory_bytes=MEMORY)], ITERATIONS)
    assert all(row.outcome == "done" and row.iterations == ITERATIONS for row in rows)
    return {row.benchmark: {event: cell.count for event, cell in row.events.items()} for row in rows}


def count(benchmark: str, event: str) -> float:
    """How often an event happens in one iteration."""
    return marks()[benchmark].get(event, 0)


def test_every_mark_has_the_events_that_its_name_says() -> None:
    size = sizes()
    assert count("null_int80", "sys.int_n_cpl3_to_cpl0") == count("null_int80", "sys.iret_cpl0_to_cpl3") == 1
    assert count("null_page", "sys.sysenter") == count("null_page", "sys.sysexit") == 1
    assert count("null_page", "sys.int_n_cpl3_to_cpl0") == 0
    for name in ("null_int80", "null_page", "signal", "read"):
        assert count(name, "sys.exc_pf") == count(name, "sys.mov_cr3_write") == 0
    assert count("page_touch", "sys.exc_pf") == 1 and count("page_touch", "sys.int_n_cpl3_to_cpl0") == 0
    assert count("mmap", "sys.exc_pf") == count("mmap", "sys.invlpg") == size["MAP_PAGES"]
    assert count("pipe", "sys.mov_cr3_write") == 2 and count("ring", "sys.mov_cr3_write") == size["RING_PROCESSES"]
    assert count("signal", "sys.int_n_cpl3_to_cpl0") == 2  # kill, and the return of the handler
    assert count("protection", "sys.exc_pf") == count("protection", "sys.int_n_cpl3_to_cpl0") == 1


def test_a_fork_copies_what_is_frozen() -> None:
    """By copying, the 100 pages and the few others that are written; by copy-on-write, those that the two write."""
    size = sizes()
    copied = {name: count(name, "ins.rep_movs_byte") / PAGE for name in ("fork_copying", "fork")}
    assert size["FORK_PAGES"] < copied["fork_copying"] <= size["FORK_PAGES"] + 4
    assert copied["fork"] == 1, "the page of the stack, by the first of the two that writes"
    assert (count("fork_copying", "sys.exc_pf"), count("fork", "sys.exc_pf")) == (0, 2)
    assert count("fork_exec", "sys.exc_pf") > 2 and count("fork_exec", "ins.rep_movs_byte") > PAGE


def test_frozen_sizes() -> None:
    """Changed sizes would make old figures false: see sizes.h for where each comes from."""
    expected = {
        "PROCESSES": 64, "PROCESS_BYTES": 960, "KERNEL_STACK_BYTES": 8192, "AREA_BYTES": 64, "OPEN_FILE_BYTES": 96,
        "PIPE_BYTES": 4096, "ARGUMENT_BYTES": 4096, "TIMER_HZ": 1000, "FORK_PAGES": 100, "RING_PROCESSES": 8,
        "MAP_PAGES": 16, "READ_BYTES": 4096,
    }  # fmt: skip
    assert {name: sizes()[name] for name in expected} == expected
