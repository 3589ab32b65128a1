"""The Unix-like kernel on Xen's interface: the same programs, what they cost the VMM, and that a wrong port is found."""

from __future__ import annotations

import functools
import shutil
import tarfile
from io import BytesIO
from pathlib import Path

import capstone
import pytest
from elftools.elf.elffile import ELFFile
from guest_sets import UNIX_PROGRAMS
from test_guest_images import build, same_tools
from test_unix import HEADERS, MAX_CYCLES, MEMORY, ram_disk

from x86virt import find_guest, load_profile
from x86virt.api import make_setup
from x86virt.core.entries import arm_stops
from x86virt.core.layout import NEVER, STOP_ON_CODE
from x86virt.guests import guests
from x86virt.machine import Machine
from x86virt.ported import compare_builds
from x86virt.suites import UNIX, Row, measure
from x86virt.vmm.registry import find_strategy

PARAVIRTUAL = "paravirtual"
GUEST = 1
TICKS_AT_EACH = 100
BUDGET = 200_000_000  # cycles, of a kernel that is wrong
TIMER, NO_TIMER = "", " timer=off"


@functools.cache
def ported() -> Path:
    """The image of the ported build."""
    port = guests()["unix"].port
    assert port is not None
    return port.path


def boot(line: str, image: Path | None = None, under: str = PARAVIRTUAL, checked: bool = False) -> Machine:
    """A machine with the ported kernel, about to start."""
    machine = Machine(find_strategy(under)(), load_profile("p4_prescott"), MEMORY, check_isolation=checked)
    machine.load(find_guest(image or ported()), line)
    return machine


# -- the image ----------------------------------------------------------------------------------------------------------


def test_the_programs_are_the_same_bytes_in_both_builds() -> None:
    with ported().open("rb") as stream:
        disk = ELFFile(stream).get_section_by_name(".ramdisk").data()
    with tarfile.open(fileobj=BytesIO(disk)) as archive:
        assert {entry.name: archive.extractfile(entry).read() for entry in archive} == ram_disk()  # type: ignore[union-attr]


def test_the_kernel_knows_of_no_hypervisor() -> None:
    """One source: neither the kernel nor its programs have a line that is of one build only."""
    for folder in ("kernel", "user", "include"):
        for path in (HEADERS.parent / folder).glob("*.*"):
            text = path.read_text(encoding="utf-8")
            assert "hypercall(" not in text and "XEN" not in text and "lib/xen" not in text, path.name


# -- E3 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("program", "timer"), [*((one, NO_TIMER) for one in UNIX_PROGRAMS if one != "clock"), ("clock", TIMER)])
def test_a_program_ends_as_on_the_bare_machine(program: str, timer: str) -> None:
    setups = [make_setup(under, memory_bytes=MEMORY) for under in (PARAVIRTUAL, "native")]
    comparison = compare_builds(*setups, find_guest("unix"), f"iterations=2 program={program}{timer}")
    assert comparison.equal, comparison.report
    assert (comparison.native.outcome, comparison.native.exit_code) == ("halted", 0)
    assert comparison.native.console == b"unix: passed\n"


@pytest.mark.parametrize("under", ["paravirtual,domain_0=off", "paravirtual,p2m=contiguous"])
def test_everything_passes_at_once(under: str) -> None:
    """Without domain 0 beside it, and with machine frames in one piece; the timer is on."""
    machine = boot("iterations=1", under=under)
    result = machine.run(MAX_CYCLES)
    assert (result.outcome, result.exit_code, result.console) == ("halted", 0, b"unix: passed\n")
    assert machine.vm.faults() == [], "every frame's type and count follow from the tables"


def test_no_access_leaves_the_guests_own_frames() -> None:
    """Each access is checked; the run would end `isolation: ...`, as it would if a count were wrong at its end."""
    machine = boot("iterations=1 program=memory timer=off", checked=True)
    result = machine.run(MAX_CYCLES)
    assert (result.outcome, result.exit_code) == ("halted", 0), result.console


# -- what it costs ------------------------------------------------------------------------------------------------------


@functools.cache
def marks() -> dict[str, Row]:
    """The rows of the suite."""
    rows = measure(UNIX, [make_setup(PARAVIRTUAL)], 4)
    assert all(row.outcome == "done" for row in rows)
    return {row.benchmark: row for row in rows}


def count(benchmark: str, event: str) -> float:
    """How often an event happens in one iteration."""
    cell = marks()[benchmark].events.get(event)
    return cell.count if cell else 0.0


def test_a_system_call_that_changes_nothing_never_reaches_the_vmm() -> None:
    """INT 0x80 goes straight from ring 3 to ring 1, and IRET back."""
    for name in ("null_int80", "null_page", "null_read", "null_write", "stat", "open_close", "signal_set", "signal", "read"):
        assert marks()[name].modes["vmm"] == 0 and not marks()[name].exits, name
    assert count("null_int80", "sys.int_n_cpl3_to_cpl0") == count("null_int80", "sys.iret_cpl0_to_cpl3") == 1


def test_changes_of_page_tables_are_batched() -> None:
    """A fork pins and unpins a space of three tables, and its 100 entries are not 100 calls; a switch is one call of two."""
    assert count("fork", "vmm.hypercall") < 10 and count("fork", "vmm.table_scan") == 2 * 3 * 1024 - 2 * 16
    assert count("ring", "vmm.hypercall") == count("ring", "vmm.base_switch") == 8
    assert count("ring", "vmm.multicall") == 2 * 8
    assert count("mmap", "vmm.multicall") == 16, "16 pages are unmapped by one"
    assert count("page_touch", "vmm.hypercall") == 1


# -- events that come at the edges of a system call ------------------------------------------------------------------------


def edges(image: Path) -> list[int]:
    """Every instruction from the one that may let events in to IRET, and the first of a system call."""
    symbols = find_guest(image).symbols
    first, end = symbols["half_open"], symbols["half_end"]
    with image.open("rb") as stream:
        text = ELFFile(stream).get_section_by_name(".text")
        code = text.data()[first - text["sh_addr"] : end - text["sh_addr"]]
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    found = [instruction.address for instruction in disassembler.disasm(code, first)]
    assert len(found) == 7, "TEST, JNZ, CMP, JNE, POPAD, ADD, IRET"
    return [symbols["machine_system_call_entry"], *found]


def run_with_ticks_at(addresses: list[int], machine: Machine) -> dict[int, int]:
    """Run to the end; before these instructions the timer's event is made due, so often each. How often it was."""
    vm, cpu = machine.vm, machine.processor.cpu
    cpu.stop_count = len(addresses)
    for number, address in enumerate(addresses):
        cpu.stops[number].kind, cpu.stops[number].first, cpu.stops[number].last = STOP_ON_CODE, address, address
    arm_stops(machine.processor.state)
    met = dict.fromkeys(addresses, 0)
    while machine.advance(NEVER, MAX_CYCLES):
        where = int(cpu.rip)
        if met[where] < TICKS_AT_EACH and vm.xen.deadline[GUEST] != NEVER:  # the timer runs
            met[where] += 1
            vm.xen.deadline[GUEST] = 0
            cpu.timer = cpu.ticks
    return met


@pytest.mark.parametrize("program", ["signals", "clock"])
def test_a_tick_at_every_edge_of_the_kernel_is_taken_and_mended(program: str) -> None:
    """Registers and stacks of programs survive it, and no page is lost."""
    machine = boot(f"iterations=1 program={program}")
    met = run_with_ticks_at(edges(ported()), machine)
    result = machine.result()
    assert (result.outcome, result.exit_code) == ("halted", 0), result.console
    assert min(met.values()) > 0, met


# -- a wrong port -------------------------------------------------------------------------------------------------------

MUTANTS = {
    "an entry of a table in use names a frame by our own number": (
        "xen/tables.c", "    if (value & ENTRY_P)\n        value = to_machine(value);\n", "", "memory", False,
        b"unexpected trap: vector 0000000e"),
    "a table stays read-only when it is none any more": (
        "xen/tables.c", "    queue_mapping(page, to_machine(page | KERNEL_PAGE | ENTRY_W), flush);\n",
        "    (void)flush;\n", "processes", False, b"unexpected trap: vector 0000000e"),
    "a change that waits is forgotten": (
        "xen/queue.c", "        must_succeed(hypercall_numbered(calls[0].op, calls[0].args), \"a hypercall\");\n",
        "        (void)hypercall_numbered;\n", "memory", False, b"failed"),
    "a space that ends stays pinned": (
        "xen/tables.c", "    queue_operation(MMUEXT_UNPIN_TABLE, machine_frame(root));\n    for", "    for", "processes",
        False, b"refused a call of a multicall"),
    "half a frame is not mended": ("xen/traps.asm", "        jb      mend\n", "", "signals", True, b""),
    "a popped frame is mended as if nothing was popped": (
        "xen/traps.asm", "        je      .popped\n", "", "signals", True, b""),
    "a frame that was left is mended as if only popped": (
        "xen/traps.asm", "        je      .left\n", "", "signals", True, b""),
    "an event stays pending": (
        "xen/machine.c", "            clear_bit(&info->evtchn_pending[word], bit);\n", "", "clock", False, b""),
}  # fmt: skip
"""A bug in the port: file, text, what it becomes, the program, whether ticks come at the edges, what the console says."""

if same_tools():

    @pytest.fixture(scope="module")
    def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
        """A copy of the sources, and the objects of the ported build."""
        folder = tmp_path_factory.mktemp("unix")
        shutil.copytree(build.HERE, folder / "guests", ignore=shutil.ignore_patterns("images"))
        return folder / "guests", build.kernel_objects("unix", folder, build.XEN)

    @pytest.mark.parametrize("name", MUTANTS)
    def test_a_bug_of_the_port_is_found(
        name: str, sound: tuple[Path, dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file, old, new, program, ticks, says = MUTANTS[name]
        folder, objects = sound
        text = (folder / "unix" / file).read_text(encoding="utf-8")
        assert text.count(old) == 1
        monkeypatch.setattr(build, "HERE", folder)
        (folder / "unix" / file).write_text(text.replace(old, new), encoding="utf-8")
        try:
            mutant = build.object_of(folder / "unix" / file, tmp_path, half=build.XEN)
        finally:
            (folder / "unix" / file).write_text(text, encoding="utf-8")
        image = tmp_path / "mutant.elf"
        build.link_kernel("unix", objects | {file: mutant}, image, build.XEN)
        machine = boot(f"iterations=1 program={program}" + ("" if ticks or program == "clock" else " timer=off"), image)
        if ticks:
            run_with_ticks_at(edges(image), machine)
        else:
            machine.run(BUDGET)
        assert machine.outcome != "halted", machine.console()
        assert says in machine.console(), (machine.outcome, machine.console())
