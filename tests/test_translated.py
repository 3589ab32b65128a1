"""Translated code made visible: every instruction of the cache stands beside the guest's, in a trace, `explain unit` and gdb."""

from __future__ import annotations

import itertools
import json
import re
from functools import cache
from typing import Any

import pytest
from command_line import assert_refused
from small_kernel import EBX, ECX, Kernel, Step, from_cr, mov, start
from small_kernel import MAX_CYCLES as KERNEL_CYCLES
from test_trace import MAX_CYCLES, machine_with, total

from x86virt import find_guest
from x86virt.inspection import Translated, TranslatedCode
from x86virt.inspection.translated import CALLOUT, CHAINED, IDENTICAL, INJECTED, guest_code, with_names
from x86virt.machine import Machine
from x86virt.trace import Filter, Limit, Record, as_guest_code, trace
from x86virt.vmm.layout import VMM_BASE

TRANSLATING = "binary-translation"
GUESTS = ("hello_pse", "syscall", "callret", "smc")


@cache
def finished(guest: str, options: str = "", line: str = "iterations=2") -> Machine:
    """A guest that has run to its end under the translator."""
    machine = machine_with(guest, TRANSLATING + options, line)
    assert machine.run(MAX_CYCLES).outcome == "halted"
    return machine


def rows_of(octets: bytes, options: str = "") -> list[Translated]:
    """What the translator makes of one instruction in the middle of a unit of the kernel's."""
    machine = start(Kernel([Step(mov(EBX, 1) + octets + mov(EBX, 2))], paging=False), TRANSLATING + options)
    machine.run(KERNEL_CYCLES)
    code = TranslatedCode(machine)
    for unit in code.units():
        found = [one.eip for one in guest_code(unit) if one.octets == octets]
        if found:
            return [row for row in code.lines_of(unit) if row.guest is not None and row.guest.eip == found[0]]
    raise AssertionError("the instruction was not translated")


# -- the model ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guest", GUESTS)
def test_every_unit_is_covered_and_every_instruction_of_the_guest_commits_once(guest: str) -> None:
    """Its rows are its bytes, in order. What commits nowhere is a callout, in which the VMM performs it."""
    code = TranslatedCode(finished(guest))
    parts = set()
    for unit in code.units():
        rows = list(code.lines_of(unit))
        assert sum(len(row.octets) for row in rows) == len(unit.octets)
        assert b"".join(one.octets for one in guest_code(unit)) == unit.guest
        for one in guest_code(unit):
            mine = [row for row in rows if row.guest == one]
            assert mine and mine[0].begins and not any(row.begins for row in mine[1:])
            called = any(row.kind == "sensitive_instruction" for row in mine) and len(mine) < 4
            direct = any(row.kind == "port_access" for row in mine)
            assert sum(row.completes for row in mine) == (0 if called or direct else 1), (one, mine)
            assert all(row.octets == one.octets and row.completes for row in mine if row.part == IDENTICAL)
        parts |= {row.part for row in rows}
    assert {IDENTICAL, INJECTED, CALLOUT, CHAINED} <= parts


@pytest.mark.parametrize("guest", GUESTS)
def test_a_chained_jump_leads_to_the_translation_of_its_target(guest: str) -> None:
    code = TranslatedCode(finished(guest))
    chained = [row for unit in code.units() for row in code.lines_of(unit) if row.part == CHAINED]
    assert len(chained) > 5
    for row in chained:
        assert row.octets[0] == 0xE9
        target = code.at(row.address + 5 + int.from_bytes(row.octets[1:], "little", signed=True))
        assert target is not None and target.begins and target.guest is not None
        assert target.guest.eip == row.target


@pytest.mark.parametrize("guest", GUESTS)
def test_units_are_found_by_the_guests_addresses(guest: str) -> None:
    """Those that begin there first; between two instructions, and where nothing was translated, there is none."""
    code = TranslatedCode(finished(guest))
    for unit in code.units():
        for one in guest_code(unit):
            found = code.units_of(one.gla)
            assert unit in found
            assert [other.gla == one.gla for other in found] == sorted((o.gla == one.gla for o in found), reverse=True)
    assert code.units_of(0xF000_0000) == []
    assert code.at(0x10_0000) is None and code.at(VMM_BASE) is None


@pytest.mark.parametrize(
    "octets,expected",
    [
        (b"\x01\xc8", [("add eax, ecx", "identical")]),
        (b"\xfa", [("mov dword ptr gs:[interrupt_flag], 0", "injected, completes")]),
        (from_cr(0, ECX), [("mov ecx, dword ptr gs:[cr0]", "injected, completes")]),
        (b"\x0e", [("push dword ptr gs:[selectors[1]]", "injected, completes")]),
        (
            b"\x2e\xa1\x00\x00\x02\x00",  # MOV EAX, CS:[20000]
            [
                ("mov gs, word ptr cs:[guest_cs]", "injected"),
                ("mov eax, dword ptr gs:[0x20000]", "injected, completes"),
                ("mov gs, word ptr cs:[own_gs]", "injected"),
            ],
        ),
    ],
    ids=("add", "cli", "mov from cr0", "push cs", "through cs"),
)
def test_what_stands_for_an_instruction(octets: bytes, expected: list[tuple[str, str]]) -> None:
    assert [(row.text, row.role) for row in rows_of(octets)] == expected


def test_a_switch_changes_what_stands_there() -> None:
    """CLI is a store, or a callout; a jump is chained, or calls out for ever."""
    assert [row.kind for row in rows_of(b"\xfa", ",inline_emulation=off")] == ["sensitive_instruction", ""]
    chained = TranslatedCode(finished("callret"))
    unchained = TranslatedCode(finished("callret", ",chaining=off"))
    for code, there in ((chained, True), (unchained, False)):
        rows = [row for unit in code.units() for row in code.lines_of(unit)]
        assert any(row.part == CHAINED for row in rows) is there


def test_names_stand_for_addresses_of_the_vmm_alone() -> None:
    assert with_names("mov eax, dword ptr gs:[0x20000]") == "mov eax, dword ptr gs:[0x20000]"
    assert with_names("mov eax, dword ptr gs:[edx - 0x3d0000]") == "mov eax, dword ptr gs:[edx + hash]"
    assert with_names("mov eax, dword ptr [0xffc09000]") == "mov eax, dword ptr [0xffc09000]"


# -- the trace -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calls() -> list[Record]:
    """Two system calls and what is around them."""
    return list(trace(machine_with("syscall", TRANSLATING, "iterations=2"), Limit(20_700), None, MAX_CYCLES))


def test_a_record_of_translated_code_says_what_it_stands_for(calls: list[Record]) -> None:
    """In the cache every record does, and one retires exactly where the guest's instruction completes."""
    inside = 0
    for record, following in itertools.pairwise(calls[1:]):
        if record.kind != "instruction" or record.mode != "guest_kernel":
            assert record.translated is None
            continue
        inside += 1
        assert record.address >= VMM_BASE and record.translated is not None
        if not record.transitions:
            assert following.n - record.n == int(record.translated.completes), record
    assert inside > 100


def test_guest_code_adds_up_to_the_ledger() -> None:
    machine = machine_with("syscall", TRANSLATING, "iterations=2")
    records = list(as_guest_code(trace(machine, Limit(20_700), None, MAX_CYCLES)))
    assert total(records) == machine.ledger()
    for record, following in itertools.pairwise(records[1:]):
        if following.kind == "instruction" and following.mode == "guest_kernel" and following.address >= VMM_BASE:
            assert record.kind == "exit"  # the way back from the VMM, which is no instruction of the guest's
        assert record.tick + record.ticks == following.tick, record
        assert following.n - record.n in (0, 1)


def places(records: list[Record]) -> dict[int, tuple[int, str]]:
    """Where each guest instruction stands, by its number: those that execute, and those that the VMM performs."""
    return {
        record.n: (record.address, record.text if record.exit is None else record.exit.emulated)
        for record in records
        if (record.kind == "instruction" and record.mode != "vmm") or (record.exit is not None and record.exit.emulated)
    }


@pytest.mark.parametrize(
    "guest,line,begin", [("syscall", "iterations=2", 20_700), ("hello_pse", "", 0), ("pgfault", "iterations=1", 23_800)]
)
def test_guest_code_is_the_code_that_the_bare_machine_runs(guest: str, line: str, begin: int) -> None:
    """Instruction by instruction, at the same addresses, with the same text."""
    bare = list(trace(machine_with(guest, "native", line), Limit(begin), None, MAX_CYCLES))
    translated = list(as_guest_code(trace(machine_with(guest, TRANSLATING, line), Limit(begin), None, MAX_CYCLES)))
    assert places(translated) == places(bare)
    assert len(places(bare)) > 100


def test_an_address_of_the_guests_filters_translated_code(calls: list[Record]) -> None:
    """Also where the machine could run on at full speed to addresses that are executed as they are."""
    extent = range(find_guest("syscall").symbols["syscall_int80"], find_guest("syscall").symbols["syscall_int80"] + 12)
    shown = Filter(addresses=(extent,))
    chosen = [record for record in calls if shown.shows(record)][1:-1]
    assert {record.kind for record in chosen} == {"instruction", "exit"}
    assert all(record.place in extent for record in chosen)
    machine = machine_with("syscall", TRANSLATING, "iterations=2")
    quick = [one for one in trace(machine, Limit(20_700), None, MAX_CYCLES, shown) if shown.shows(one)][1:-1]
    assert quick == chosen


def test_the_command_shows_both_codes(x86virt: Any) -> None:
    arguments = ("trace", "syscall", "-s", TRANSLATING, "-c", "iterations=2", "-a", "syscall_sysenter", "--from", "20700")
    both, guest = x86virt(*arguments), x86virt(*arguments, "--guest-code")
    assert both.status == guest.status == 0
    shown, joined = (" ".join(answer.out.split()) for answer in (both, guest))  # however wide the lines are
    assert "mov dword ptr gs:[interrupt_flag], 0x200 | 00101176 sti: injected, completes" in shown
    assert "inc dword ptr [0x102004] | 0010116b identical" in shown
    assert re.search(r"00101176 (syscall_sysenter\+0xb )?fb sti", joined)
    assert "interrupt_flag" not in guest.out and "the VMM performs sysexit" in guest.out
    row = next(row for row in map(json.loads, x86virt(*arguments, "--json", "-").out.splitlines()) if "translated" in row)
    assert row["translated"]["guest"]["text"] == "inc dword ptr [0x102004]" and row["translated"]["part"] == "identical"


# -- explain unit --------------------------------------------------------------------------------------------------------


def test_explain_unit_shows_a_unit_beside_its_guest_code(x86virt: Any) -> None:
    answer = x86virt("explain", "unit", "syscall:syscall_sysenter", "-c", "iterations=2")
    assert answer.status == 0
    for line in (
        "guest code at 0010116b syscall_sysenter: 4 instructions, 14 bytes (cs 0008, iopl 0)",
        "0010116b inc dword ptr [0x102004]       ffc",
        "+* mov dword ptr gs:[interrupt_flag], 0x200",
    ):
        assert line in answer.out
    assert re.search(r"!  \S.*  open_window\n", answer.out)
    loop = x86virt("explain", "unit", "syscall:print_string", "-c", "iterations=2").out
    assert "chained to 00101037 print_string.next+0x6" in loop and "taken: to 0010103c print_string.done" in loop
    alone = x86virt("explain", "unit", "syscall:print_string", "-c", "iterations=2", "-s", f"{TRANSLATING},chaining=off").out
    assert "unchained_jump to 00101037" in alone and "chained to" not in alone


def test_explain_unit_for_programs(x86virt: Any) -> None:
    data = x86virt("explain", "unit", "syscall:0x101176", "-c", "iterations=2", "--json", "-").json()["explanations"][0]
    assert (data["kind"], data["place"], data["strategy"]) == ("unit", 0x101176, TRANSLATING)
    (unit,) = data["units"]
    sti = next(row for row in unit["instructions"] if row["text"] == "sti")
    assert [one["completes"] for one in sti["translated"]] == [True] + [False] * (len(sti["translated"]) - 1)
    assert sum(len(one["bytes"]) for row in unit["instructions"] for one in row["translated"]) == 2 * unit["bytes"]
    assert unit["callouts"] == {"open_window": 1, "sensitive_instruction": 1}


def test_explain_unit_alone_lists_all(x86virt: Any) -> None:
    answer = x86virt("explain", "unit", "syscall", "-c", "iterations=2")
    assert answer.status == 0 and "syscall_int80" in answer.out and "look-up" in answer.out
    early = x86virt("explain", "unit", "syscall", "--count", "100", "--json", "-").json()["explanations"][0]
    late = x86virt("explain", "unit", "syscall", "-c", "iterations=2", "--json", "-").json()["explanations"][0]
    assert 0 < len(early["units"]) < len(late["units"]) == len(TranslatedCode(finished("syscall")).units())
    assert early["instructions"] == 100


def test_a_unit_that_is_dropped_is_shown_as_it_was_seen_last(x86virt: Any) -> None:
    """What turns paging on drops the units before it; a unit of theirs is not in the cache at the end."""
    gone = find_guest("syscall").symbols["paging_init"]
    assert TranslatedCode(finished("syscall")).units_of(gone) == []
    data = x86virt("explain", "unit", "syscall:paging_init", "-c", "iterations=2", "--json", "-").json()["explanations"][0]
    assert len(data["units"]) == 1 and data["instructions"] < 20_860


@pytest.mark.parametrize(
    "arguments,words",
    (
        (("unit",), ("give `explain unit GUEST`",)),
        (("unit", "nothere"), ("no such guest",)),
        (("unit", "syscall:syscal_int80"), ("no such place", "did you mean syscall_int80")),
        (("unit", "syscall:0x200000", "-c", "iterations=1"), ("no unit of this code was seen",)),
        (("unit", "syscall", "-s", "trap-and-emulate"), ("does not translate",)),
        (("unit", "syscall", "-s", "binary-translation,chainin=off"), ("did you mean chaining",)),
        (("cli", "--count", "5"), ("--count is for",)),
        (("cli", "-s", "native"), ("--strategy is for",)),
    ),
)
def test_bad_input_is_one_line(x86virt: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(x86virt("explain", *arguments), *words)
