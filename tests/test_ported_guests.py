"""The guests' builds for a paravirtual VMM: equal to the native ones in what they are for (E3), well built, and only there."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from guest_sets import portable_guests, ported_guests, short_line

from x86virt import Machine, UnsupportedError, find_guest, find_strategy, load_profile
from x86virt.api import compare_setup, make_setup
from x86virt.equivalence import Comparison
from x86virt.guests import Port, guests, port_sizes
from x86virt.vmm import ParavirtualVm
from x86virt.vmm.paravirtual import interface
from x86virt.vmm.paravirtual.held import frame_faults

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks" / "guests"
PAGE = 4096
MEMORY = 8 << 20  # the least that a guest needs
MAX_CYCLES = 4_000_000_000
ITERATIONS = {"mix": 1, "irq": 1, "speed": 1}
WITHOUT_JIT = bool(os.environ.get("NUMBA_DISABLE_JIT"))
NAMES = ["hello", "syscall", "cr3switch"] if WITHOUT_JIT else ported_guests()
PROFILES = ("p4_cedarmill", "core2_woodcrest", "nehalem", "k8_opteron", "k10_barcelona")
SCATTERED = ("hello", "cr3switch", "pgfault", "ptemod", "smc")
MANY = ("irq", "clock", "pgfault", "syscall")


def script(name: str) -> Any:
    """One of the modules beside the guests."""
    spec = importlib.util.spec_from_file_location(f"guests_{name}", FOLDER / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


lint, port_size = script("lint"), script("port_size")


def port_of(name: str) -> Port:
    """The ported build of a guest."""
    port = guests()[name].port
    assert port is not None
    return port


def compare(name: str, strategy: str = "paravirtual", profile: str = "p4_prescott", line: str = "") -> Comparison:
    """E3 of a shipped guest."""
    setup = make_setup(strategy, profile, MEMORY, MAX_CYCLES)
    return compare_setup(setup, find_guest(name), line or short_line(name, ITERATIONS.get(name, 3)))


def assert_equal(comparison: Comparison) -> None:
    """Nothing differs, and both builds passed their own checks."""
    assert comparison.equal and comparison.held_to, "\n".join(comparison.report)
    assert (comparison.other.outcome, comparison.other.exit_code) == ("halted", 0), comparison.other.console
    assert (comparison.native.outcome, comparison.native.exit_code) == ("halted", 0)


# -- E3 -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_both_builds_agree(name: str) -> None:
    assert_equal(compare(name))


if not WITHOUT_JIT:

    @pytest.mark.parametrize("profile", PROFILES)
    @pytest.mark.parametrize("name", ("syscall", "pgfault"))
    def test_both_builds_agree_on_other_processors(name: str, profile: str) -> None:
        assert_equal(compare(name, profile=profile))

    @pytest.mark.parametrize("name", SCATTERED)
    def test_both_builds_agree_where_memory_is_scattered(name: str) -> None:
        assert_equal(compare(name, "paravirtual,p2m=scattered"))

    @pytest.mark.parametrize("name", MANY)
    def test_both_builds_agree_over_many_iterations(name: str) -> None:
        assert_equal(compare(name, line="iterations=700" if name == "pgfault" else "iterations=40"))

    def test_the_machine_code_of_the_vmm_changes_no_cycle(tmp_path: Path) -> None:
        """The same run, compiled and interpreted, to the byte of its JSON."""
        command = [sys.executable, "-m", "x86virt", "run", "hello", "-s", "paravirtual", "--json"]
        written = []
        for setting in ("0", "1"):
            target = tmp_path / f"{setting}.json"
            environment = os.environ | {"NUMBA_DISABLE_JIT": setting}
            done = subprocess.run([*command, str(target)], env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            written.append(target.read_bytes())
        assert written[0] == written[1]


def run_machine(name: str, strategy: str = "paravirtual", checked: bool = False) -> Machine:
    """A ported guest, run to its end."""
    machine = Machine(find_strategy(strategy)(), load_profile("p4_prescott"), MEMORY, check_isolation=checked)
    machine.load(find_guest(name), short_line(name, ITERATIONS.get(name, 3)))
    assert machine.run(MAX_CYCLES).outcome == "halted"
    return machine


@pytest.mark.parametrize("name", NAMES)
def test_types_and_counts_of_frames_are_right_in_the_end(name: str) -> None:
    """A recount from the page tables and from what the VMM holds finds what the VMM counted on the way."""
    machine = run_machine(name)
    assert isinstance(machine.vm, ParavirtualVm)
    assert frame_faults(machine.vm) == []


@pytest.mark.parametrize("name", NAMES[:3] if WITHOUT_JIT else NAMES)
def test_no_access_of_a_ported_guest_leaves_its_domain(name: str) -> None:
    """The check of isolation finds nothing, and changes no cycle."""
    machines = [run_machine(name, checked=checked) for checked in (False, True)]
    assert machines[0].result().ticks == machines[1].result().ticks


def test_a_kernel_is_refused_what_it_may_not_have_and_says_so() -> None:
    """The library ends a guest whose hypercall is refused: here the domain has less memory than it maps."""
    setup = make_setup("paravirtual", memory_bytes=4 << 20, max_cycles=MAX_CYCLES)
    result = setup.run(find_guest("hello"))
    assert result.exit_code == 253 and b"a domain of less than 8 MB" in result.console


# -- the comparison can fail ------------------------------------------------------------------------------------------------


def with_port(monkeypatch: pytest.MonkeyPatch, name: str, **changes: Any) -> None:
    """Let a guest have another ported build than its own."""
    changed = dataclasses.replace(guests()[name], port=dataclasses.replace(port_of(name), **changes))
    monkeypatch.setitem(guests(), name, changed)


def test_another_text_on_the_console_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    with_port(monkeypatch, "hello", own_lines=())
    comparison = compare("hello")
    assert not comparison.equal
    assert any("console" in line and "ring 1" in line and "ring 0" in line for line in comparison.report)


def test_another_end_is_a_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = tmp_path / "wrong.xen.elf"
    content = port_of("syscall").path.read_bytes()
    wanted = b"\x3b\x05" + struct.pack("<I", symbols_of("syscall")["syscall_count"])  # CMP EAX, [syscall_count]
    assert content.count(wanted) >= 1
    image.write_bytes(content.replace(wanted, b"\x39\xe0" + b"\x90" * 4, 1))  # CMP EAX, ESP
    with_port(monkeypatch, "syscall", path=image)
    comparison = compare("syscall")
    assert not comparison.equal and comparison.other.exit_code == 2
    assert comparison.report[0].startswith("outcome: paravirtual exited 2, native halted")


def test_another_result_is_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    with_port(monkeypatch, "divzero", results=("fault_count", "trap_handlers"))  # where a handler is depends on the build
    comparison = compare("divzero")
    assert not comparison.equal
    assert [line.split(":")[0] for line in comparison.report] == ["  result trap_handlers"]


# -- which build runs where -------------------------------------------------------------------------------------------------

BARE_ALONE = sorted(set(guests()) - set(ported_guests()))


def test_what_is_about_ring_0_alone_has_no_port() -> None:
    assert {"hello_pse", "hypervisor", "stealth", "tasks"} <= set(BARE_ALONE)
    assert len(ported_guests()) >= 16 and set(ported_guests()) <= set(portable_guests())


@pytest.mark.parametrize("name", BARE_ALONE)
def test_a_guest_without_a_port_is_unsupported(name: str) -> None:
    with pytest.raises(UnsupportedError, match=f"guest {name} is about what only ring 0 has"):
        Machine(find_strategy("paravirtual")(), load_profile("p4_prescott"), MEMORY).load(find_guest(name))


def test_the_command_line_says_so(x86virt: Any) -> None:
    answer = x86virt("run", "stealth", "-s", "paravirtual")
    assert answer.status == 5 and "no build of it for a paravirtual VMM" in answer.err
    assert x86virt("compare", "stealth", "-s", "paravirtual").status == 5


def test_the_command_line_compares_builds(x86virt: Any) -> None:
    answer = x86virt("compare", "hello", "-s", "paravirtual", "--json", "-")
    assert answer.status == 0
    found = answer.json()["differences"]["paravirtual"]
    assert found["equal"] is True and found["held_to"] == "the end, the console"
    assert "the same as native in the end, the console" in x86virt("compare", "hello", "-s", "paravirtual").out


def test_a_record_of_a_ported_build_is_refused(x86virt: Any, tmp_path: Path) -> None:
    answer = x86virt("run", "hello", "-s", "paravirtual", "--record", str(tmp_path / "log"))
    assert answer.status == 5 and "x86virt compare" in answer.err


def test_the_trace_has_the_symbols_of_the_build_that_runs(x86virt: Any) -> None:
    answer = x86virt("trace", "hello", "-s", "paravirtual,domain_0=off", "--address", "idt_init", "--count", "200")
    assert answer.status == 0 and "idt_init" in answer.out
    assert "-> IRET: ring 0 -> ring 1, 00101000 _start" in x86virt("trace", "hello", "-s", "paravirtual,domain_0=off").out[:2000]


def test_a_file_of_ones_own_has_no_second_build(x86virt: Any) -> None:
    answer = x86virt("compare", str(port_of("hello").path), "-s", "paravirtual")
    assert answer.status == 5 and "x86virt list ports" in answer.err


# -- the images -----------------------------------------------------------------------------------------------------------------

ASSEMBLED = [name for name in ported_guests() if name != "unix"]


def symbols_of(name: str) -> dict[str, int]:
    """The symbols of a ported image."""
    with port_of(name).path.open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


def notes_of(name: str) -> dict[int, bytes]:
    """The notes of a ported image, read by hand."""
    with port_of(name).path.open("rb") as stream:
        elf = ELFFile(stream)
        (segment,) = (segment for segment in elf.iter_segments() if segment["p_type"] == "PT_NOTE")
        content = segment.data()
    found, place = {}, 0
    while place < len(content):
        owner, size, kind = struct.unpack_from("<3I", content, place)
        assert (owner, content[place + 12 : place + 16]) == (4, b"Xen\0")
        found[kind] = content[place + 16 : place + 16 + size]
        place += 16 + size + -size % 4
    return found


@pytest.mark.parametrize("name", ASSEMBLED)
def test_an_image_says_what_a_domain_builder_must_know(name: str) -> None:
    symbols, notes = symbols_of(name), notes_of(name)
    assert notes[interface.XEN_ELFNOTE_XEN_VERSION] == b"xen-3.0\0"
    assert notes[interface.XEN_ELFNOTE_LOADER] == b"generic\0"
    assert notes[interface.XEN_ELFNOTE_PAE_MODE] == b"no\0"
    assert notes[interface.XEN_ELFNOTE_GUEST_OS].rstrip(b"\0").decode() == name
    for kind, value in (
        (interface.XEN_ELFNOTE_VIRT_BASE, 0),
        (interface.XEN_ELFNOTE_PADDR_OFFSET, 0),
        (interface.XEN_ELFNOTE_ENTRY, symbols["_start"]),
        (interface.XEN_ELFNOTE_HYPERCALL_PAGE, symbols["hypercall_page"]),
    ):
        assert struct.unpack("<I", notes[kind])[0] == value


@pytest.mark.parametrize("name", ASSEMBLED)
def test_what_is_shared_and_what_is_validated_lies_alone(name: str) -> None:
    symbols = symbols_of(name)
    pages = [symbols[page] for page in ("hypercall_page", "page_directory", "page_table_0", "page_table_1", "shared_info")]
    assert all(page % PAGE == 0 for page in pages) and len(set(pages)) == len(pages)
    assert pages[1:] == list(range(pages[1], pages[1] + 4 * PAGE, PAGE)), "the page that is no table ends the run of tables"


@pytest.mark.parametrize("name", ASSEMBLED)
def test_a_ported_kernel_uses_neither_sensitive_nor_privileged_instructions(name: str) -> None:
    seen, findings = lint.lint_image(port_of(name).path)
    assert seen > 1000 and findings == []


PRIVILEGED = {
    "cli": "fa", "sti": "fb", "hlt": "f4", "lgdt": "0f0110", "lidt": "0f0118", "lldt": "0f00d0", "ltr": "0f00d8",
    "invlpg": "0f0138", "mov cr3": "0f22d8", "mov cr0": "0f22c0", "from cr4": "0f20e0", "from cr2": "0f20d0", "clts": "0f06",
    "sysexit": "0f35", "jmp far": "ea000000000800",
}  # fmt: skip
LEFT = {
    "in": "e480", "out": "e680", "int 0x80": "cd80", "iret": "cf", "from cr3": "0f20d8", "from cr0": "0f20c0", "ud2": "0f0b",
    "rdmsr": "0f32", "wrmsr": "0f30", "forced cpuid": "0f0b78656e0fa2",
}  # fmt: skip


@pytest.mark.parametrize("code", PRIVILEGED.values(), ids=PRIVILEGED.keys())
def test_lint_finds_a_privileged_instruction_in_a_ported_kernel(code: str) -> None:
    octets = b"\x90" + bytes.fromhex(code)
    assert not list(lint.lint_bytes(octets, 0x100000))
    assert [finding.address for finding in lint.lint_bytes(octets, 0x100000, ported=True)] == [0x100001]


@pytest.mark.parametrize("code", LEFT.values(), ids=LEFT.keys())
def test_lint_leaves_what_the_vmm_performs_or_the_processor_checks(code: str) -> None:
    assert not list(lint.lint_bytes(bytes.fromhex(code), 0x100000, ported=True))


# -- the size of the port -----------------------------------------------------------------------------------------------------

SHARED = """; a comment
        mov     eax, 1
        DISABLE_INTERRUPTS          ; the other half has this too
%ifdef XEN
        call    a
        call    b
%else
        out     0x21, al
%endif
%ifndef XEN
        hlt
%else
        call    c
%if 1

        nop
%endif
%endif
"""


def test_lines_are_counted_as_the_module_says(tmp_path: Path) -> None:
    file = tmp_path / "one.asm"
    file.write_text(SHARED, encoding="utf-8")
    assert port_size.of_file(file) == port_size.PortSize(changed=5, lines=6)
    c = tmp_path / "one.c"
    c.write_text("/* no\n code */\nint a;\n#ifdef XEN\nint b; // why\n#else\nint c;\n#endif\n", encoding="utf-8")
    assert port_size.of_file(c) == port_size.PortSize(changed=1, lines=2)


def test_the_sizes_are_listed_and_small_for_the_guests(x86virt: Any) -> None:
    rows = {row["ported"]: row for row in x86virt("list", "ports", "--json", "-").json()["ports"]}
    assert set(rows) == {name for name, _, _ in port_sizes()} == {"the kernel library", *ported_guests()}
    assert rows["alu"]["changed_lines"] == 0 and rows["ptemod"]["changed_lines"] == 5
    assert all(row["changed_lines"] * 4 < row["lines"] for name, row in rows.items() if name in ASSEMBLED)
