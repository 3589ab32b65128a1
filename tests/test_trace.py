"""The trace: its records add up to the ledger, tracing changes no cycle, and every filter shows what it says."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import assert_refused
from mode_tour import TOUR
from pc_guests import assembled
from small_kernel import DATA, EAX, RAM_BYTES, Kernel, Step, start, store, word
from small_kernel import MAX_CYCLES as KERNEL_CYCLES
from x86virt.benchmarks.guests.disk import boot_disk

from x86virt import find_guest, find_strategy, load_profile
from x86virt.api import make_setup, setup_of_start
from x86virt.guests import open_guest
from x86virt.isa.events import EVENT_ID, MODE_NAMES
from x86virt.ledger import Ledger
from x86virt.machine import Machine
from x86virt.start.flat import parse_flat
from x86virt.symbols import Symbols
from x86virt.trace import Filter, Limit, Record, TextFormat, trace

STRATEGIES = ("native", "trap-and-emulate", "binary-translation")
MAX_CYCLES = 2_000_000_000
# Guest, command line, and from where it is looked at: the whole of a short one, the interesting end of others.
RUNS = (
    ("hello_pse", "", 0),
    ("syscall", "iterations=2", 20_800),
    ("divzero", "iterations=1", 20_950),
    ("stealth", "", 27_400),
    ("pgfault", "iterations=1", 23_800),
    ("clock", "iterations=1", 70_000),
    ("tasks", "iterations=1", 20_900),
)
EVERY_RUN = pytest.mark.parametrize(
    "guest,line,begin,strategy", [(*run, strategy) for run in RUNS for strategy in STRATEGIES]
)
EVERY_STRATEGY = pytest.mark.parametrize("strategy", STRATEGIES)


def machine_with(guest: str, strategy: str, line: str = "") -> Machine:
    """A machine before its first instruction."""
    machine = Machine(find_strategy(strategy)(), load_profile("p4_prescott"), 8 << 20)
    machine.load(find_guest(guest), line)
    return machine


def total(records: list[Record]) -> Ledger:
    """All charges of some records as a ledger."""
    ledger = Ledger.empty()
    for record in records:
        for charge in record.charges:
            cell = EVENT_ID[charge.event], MODE_NAMES.index(charge.mode)
            ledger.count[cell] += charge.count
            ledger.ticks[cell] += charge.ticks
    return ledger


def state_of(machine: Machine) -> list[Any]:
    """What a run leaves behind: time, instructions, the ledger, the guest's state."""
    cpu = machine.processor.cpu
    state = machine.strategy.virtual_state(machine)
    return [int(cpu.ticks), int(cpu.retired), machine.outcome, state.registers, state.segments, state.memory.tobytes()]


@EVERY_RUN
def test_the_records_add_up_to_the_ledger_and_change_no_cycle(guest: str, line: str, begin: int, strategy: str) -> None:
    untraced = machine_with(guest, strategy, line)
    untraced.run(MAX_CYCLES)
    machine = machine_with(guest, strategy, line)
    records = list(trace(machine, Limit(begin), None, MAX_CYCLES))
    assert machine.ledger() == untraced.ledger() == total(records)
    assert records[-1].outcome == untraced.outcome
    assert len(records) > 100
    if untraced.outcome == "halted":
        assert state_of(machine) == state_of(untraced)


@EVERY_RUN
def test_each_record_begins_where_the_one_before_it_ended(guest: str, line: str, begin: int, strategy: str) -> None:
    """Also in time: a record takes exactly the cycles of its events."""
    records = list(trace(machine_with(guest, strategy, line), Limit(begin), Limit(600), MAX_CYCLES))
    for record, following in itertools.pairwise(records[1:]):
        assert record.tick + record.ticks == following.tick, record


@EVERY_STRATEGY
def test_a_retired_instruction_is_one_record(strategy: str) -> None:
    """Those that do not count (faults, the VMM's own) tell why."""
    records = list(trace(machine_with("syscall", strategy, "iterations=2"), Limit(20_880), None, MAX_CYCLES))
    for record, following in itertools.pairwise(records[1:]):
        retired = following.n - record.n
        assert retired in (0, 1)
        if record.kind == "instruction" and not retired:
            assert record.mode == "vmm" or record.transitions or record.translated
        if record.kind == "exit":
            assert retired == int(bool(record.exit and record.exit.emulated))


def test_a_system_call_under_the_vmm_from_int_to_iret() -> None:
    """INT, exit and reflection, resume, the guest's handler, its IRET that traps, its emulation, resume."""
    machine = machine_with("syscall", "trap-and-emulate", "iterations=2")
    records = list(trace(machine, Limit(20_888), Limit(4), MAX_CYCLES))[1:-1]
    assert [(record.kind, record.ring, record.mode) for record in records] == [
        ("instruction", 3, "guest_user"),
        ("exit", 0, "vmm"),
        ("instruction", 0, "vmm"),
        ("instruction", 1, "guest_kernel"),
        ("instruction", 1, "guest_kernel"),
        ("instruction", 1, "guest_kernel"),
        ("exit", 0, "vmm"),
    ]
    call, reflection, resume, _, _, back, emulation = records
    assert call.text == "int 0x80" and call.octets == b"\xcd\x80"
    assert call.transitions[0].delivery.vector == 0x80 and call.transitions[0].delivery.kind == "software_interrupt"
    assert reflection.exit.reason == "software_interrupt" and reflection.exit.delivered.vector == 0x80
    assert (reflection.exit.ring_before, reflection.exit.ring_after) == (3, 0)
    assert [charge.event for charge in reflection.charges] == ["vmm.trap_dispatch", "vmm.reflect"]
    assert resume.text == "iretd" and (resume.transitions[0].ring_before, resume.transitions[0].ring_after) == (0, 1)
    assert back.text == "iretd" and back.transitions[0].delivery.vector == 11
    assert emulation.exit.emulated == "iretd" and emulation.exit.reason == "segment_not_present"
    assert (emulation.exit.ring_before, emulation.exit.ring_after) == (0, 3)


def test_a_page_fault_tells_its_address_and_what_was_tried() -> None:
    write = b"\xc7\x05" + word(0xFFFF0000) + word(1)  # MOV DWORD [...], 1
    records = list(trace(start(Kernel([Step(write)])), None, None, KERNEL_CYCLES))
    faults = [transition.delivery for record in records for transition in record.transitions if transition.delivery]
    assert [(fault.vector, fault.error, fault.address) for fault in faults] == [(14, 2, 0xFFFF0000)]
    assert "a write in rings 0 to 2: the page is not present" in faults[0].text


def test_divergences_stand_at_their_instruction() -> None:
    """PUSHF in the deprivileged kernel shows the processor's IF and IOPL."""
    records = list(trace(start(Kernel([Step(b"\x9c\x58")]), "trap-and-emulate"), None, None, KERNEL_CYCLES))
    found = [record for record in records if record.divergences]
    assert [record.text for record in found] == ["pushfd"]
    assert "bare machine" in found[0].divergences[0]


def test_an_interrupt_is_a_record_of_its_own_and_so_is_idle_time() -> None:
    """`irq` sleeps until its timer interrupts, and spins with interrupts on."""
    records = list(trace(machine_with("irq", "native", "iterations=1"), Limit(12_634_000), Limit(300), MAX_CYCLES))
    idle = [record for record in records if record.kind == "idle"]
    interrupts = [record for record in records if record.kind == "interrupt"]
    assert idle and all(record.mode == "idle" for record in idle)
    woken = [record for record in idle if record.transitions]
    assert woken and all(record.transitions[0].delivery.kind == "interrupt" for record in woken)
    for record in interrupts:
        assert record.transitions[0].delivery.kind == "interrupt"
        assert record.charges[0].event == "sys.ext_interrupt_delivery"
    assert interrupts


def test_a_halt_ends_where_the_timer_of_the_apic_says() -> None:
    """Its deadline is the processor's, not the board's: the handler's first instruction is still a record of its own."""
    local_apic = 0xFEE00000
    code = store(local_apic + 0xF0, 0x1FF) + store(local_apic + 0x320, 0x81) + store(local_apic + 0x380, 1000) + b"\xfb\xf4"
    machine = Machine(find_strategy("native")(), load_profile("p4_prescott"), RAM_BYTES)
    machine.processor.fit_apic(True)
    machine.load(Kernel([Step(code)], paging=False).image())
    records = list(trace(machine, None, None, KERNEL_CYCLES))
    place = next(number for number, record in enumerate(records) if record.kind == "idle")
    assert records[place - 1].text == "hlt"
    assert [transition.delivery.vector for transition in records[place].transitions] == [0x81]
    assert records[place + 1].text.startswith("inc dword ptr")
    assert machine.outcome == "exited 1" and total(records) == machine.ledger()


def test_begin_and_count_in_cycles() -> None:
    records = list(trace(machine_with("hello_pse", "native"), Limit(5000, True), Limit(100, True), MAX_CYCLES))
    assert 5000 * 64 <= records[0].tick < 9000 * 64  # behind an OUT, which takes 2702 cycles
    assert 100 * 64 <= records[-1].tick - records[0].tick < 3000 * 64
    assert records[-1].outcome == "running"


def test_a_trace_stops_at_the_budget() -> None:
    records = list(trace(machine_with("hello_pse", "native"), None, None, 2000))
    assert records[-1].outcome == "budget" and records[-1].tick >= 2000 * 64


# -- filters ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calls() -> list[Record]:
    """Two system calls under the VMM."""
    return list(trace(machine_with("syscall", "trap-and-emulate", "iterations=2"), Limit(20_880), Limit(40), MAX_CYCLES))


@pytest.fixture(scope="module")
def symbols() -> Symbols:
    return Symbols(find_guest("syscall").symbols)


def test_filters_by_ring_event_and_address_agree_with_the_records(calls: list[Record], symbols: Symbols) -> None:
    inner = calls[1:-1]
    extent = symbols.extent("syscall_int80")
    for shown, condition in (
        (Filter(rings=(3,)), lambda record: record.ring == 3),
        (Filter(rings=("vmm",)), lambda record: record.mode == "vmm"),
        (Filter(rings=(3, 1)), lambda record: record.ring in (1, 3)),
        (Filter(events=frozenset(["sys.int_n_cpl3_to_cpl0"])), lambda record: record.text == "int 0x80" and record.n > 20_885),
        (Filter(addresses=(extent,)), lambda record: record.address in extent),
        (Filter(transitions=True), lambda record: bool(record.transitions or record.exit)),
    ):
        chosen = [record for record in inner if shown.shows(record)]
        assert 0 < len(chosen) < len(inner)
        assert chosen == [record for record in inner if condition(record)]
        assert shown.shows(calls[0]) and shown.shows(calls[-1])


QUICK_BEGIN = 62_000


@cache
def slow_records(strategy: str) -> list[Record]:
    """All records of the end of `clock`."""
    return list(trace(machine_with("clock", strategy, "iterations=1"), Limit(QUICK_BEGIN), None, MAX_CYCLES))


CLOCK_HANDLER = find_guest("clock").symbols["timer_tick"]


@EVERY_STRATEGY
@pytest.mark.parametrize(
    "shown",
    (
        Filter(transitions=True),
        Filter(rings=(3,)),
        Filter(rings=("idle",)),
        Filter(events=frozenset(["sys.in_port_lpc", "ins.cld"])),
        Filter(addresses=(range(CLOCK_HANDLER, CLOCK_HANDLER + 0x20),)),
    ),
    ids=("transitions", "ring 3", "idle", "events", "addresses"),
)
def test_passing_over_what_is_hidden_shows_the_same(shown: Filter, strategy: str) -> None:
    """What is shown is the same, and the ledger's parts too, whether or not the machine runs ahead in between."""
    slow = slow_records(strategy)
    machine = machine_with("clock", strategy, "iterations=1")
    quick = list(trace(machine, Limit(QUICK_BEGIN), None, MAX_CYCLES, shown))
    assert [record for record in quick if shown.shows(record)] == [record for record in slow if shown.shows(record)]
    assert total(quick) == total(slow) == machine.ledger()
    if shown.addresses and strategy == "binary-translation":
        assert len(quick) == len(slow)  # the kernel's addresses are never executed: only steps tell
        return
    assert len(quick) < len(slow) / 2 and "passed" in {record.kind for record in quick}


def test_a_filtered_trace_of_millions_of_instructions_is_quick() -> None:
    """`irq` waits for its timer in loops of many millions; at a few thousand records a second this would take an hour."""
    machine = machine_with("irq", "native", "iterations=1")
    records = [record for record in trace(machine, None, None, MAX_CYCLES, Filter(transitions=True)) if record.transitions]
    assert machine.outcome == "halted" and machine.result().instructions > 20_000_000
    assert sum(record.transitions[0].what.startswith("interrupt") for record in records) > 10


def test_symbols_name_functions_and_their_local_labels() -> None:
    symbols = Symbols({"one": 0x100, "one.loop": 0x110, "two": 0x120, "far": 0x900000})
    assert (symbols.text(0x100), symbols.text(0x118), symbols.text(0xFF)) == ("one", "one.loop+0x8", "")
    assert symbols.extent("one") == range(0x100, 0x120)
    assert symbols.text(0x120 + 0xFFFF) == "two+0xffff" and symbols.text(0x120 + 0x10000) == ""


# -- text and JSON ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", (80, 120))
def test_lines_keep_to_the_width(calls: list[Record], symbols: Symbols, width: int) -> None:
    """Only an instruction that is too long by itself may stand out."""
    form = TextFormat(symbols, width)
    lines = [line for record in calls for line in form.lines(record)]
    assert [line for line in lines if len(line) > width] == []
    text = "\n".join(lines)
    for piece in ("int 0x80", "sys.int_n_cpl3_to_cpl0 500", "vmm.reflect", "exit software_interrupt", "syscall_int80"):
        assert piece in text


def test_json_lines_hold_the_same_as_the_records(x86virt: Any, tmp_path: Path) -> None:
    target = tmp_path / "trace.jsonl"
    arguments = ("trace", "hello_pse", "-s", "trap-and-emulate", "--json", str(target))
    answer = x86virt(*arguments)
    assert (answer.status, answer.out) == (0, "")
    header, *rows = map(json.loads, target.read_text().splitlines())
    assert header["schema_version"] == 1 and header["kind"] == "header" and header["strategy"] == "trap-and-emulate"
    machine = machine_with("hello_pse", "trap-and-emulate")
    result = machine.run(MAX_CYCLES)
    ledger = np.zeros_like(result.ledger.ticks)
    for row in rows:
        assert row["cycles"] == sum(event["cycles"] for event in row["events"])
        for event in row["events"]:
            ledger[EVENT_ID[event["event"]], MODE_NAMES.index(event["mode"])] += int(event["cycles"] * 64)
    assert (ledger == result.ledger.ticks).all()
    assert rows[-1]["kind"] == "end" and rows[-1]["outcome"] == "halted"
    assert {row["kind"] for row in rows} == {"before", "instruction", "exit", "end"}
    assert x86virt(*arguments[:-1], "-").out == target.read_text()


def test_the_command_filters(x86virt: Any) -> None:
    answer = x86virt(
        "trace", "syscall", "-c", "iterations=2", "--from", "20880", "--count", "40", "-r", "user", "-e", "sys.int*",
        "-a", "user_int80",
    )  # fmt: skip
    assert answer.status == 0
    assert answer.out.count("int 0x80") == 3 and "inc dword" not in answer.out
    assert "what the filter does not show" in answer.err


def test_an_end_that_is_not_a_good_one_has_its_status(x86virt: Any) -> None:
    answer = x86virt("trace", "hello_pse", "--max-cycles", "2000")
    assert answer.status == 4 and "budget" in answer.err and "end: budget" in answer.out


@pytest.mark.parametrize(
    "arguments,words",
    (
        (("nothere",), ("no such guest",)),
        (("hello", "-e", "ins.alu_r"), ("no such event", "did you mean ins.alu_rr")),
        (("hello", "-e", "xyz.*"), ("no event matches",)),
        (("hello", "-r", "kernal"), ("no such ring", "did you mean kernel")),
        (("hello", "-a", "gdt_int"), ("no symbol gdt_int", "did you mean gdt_init")),
        (("hello", "-a", "2000-1000"), ("it ends before it begins",)),
        (("hello", "-a", "123456789"), ("no symbol",)),
        (("hello", "-s", "all"), ("one strategy",)),
        (("hello", "-s", "nativ"), ("did you mean native",)),
        (("hello", "--from", "x"), ("neither instructions nor cycles",)),
        (("hello", "--count", "-3"), ("neither instructions nor cycles",)),
        (("hello", "--json", "/no/such/folder/file"), ("cannot be written",)),
        ((), ("give a GUEST",)),
    ),
)
def test_bad_input_is_one_line(x86virt: Any, arguments: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(x86virt("trace", *arguments), *words)


def test_a_closed_pipe_ends_the_trace_quietly() -> None:
    command = [sys.executable, "-m", "x86virt", "trace", "hello"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert b"instruction" in process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        process.wait(60)
    assert process.returncode in (0, -13)


def test_a_boot_disk_is_traced_from_the_reset_vector(x86virt: Any, tmp_path: Path) -> None:
    """Firmware in ROM, real mode, the same records as stepping makes them; and a limit in cycles."""
    disk = tmp_path / "hello.img"
    disk.write_bytes(boot_disk(find_guest("hello")))
    rows = list(map(json.loads, x86virt("trace", str(disk), "--count", "200", "--json", "-").out.splitlines()))
    first = rows[2]
    assert (first["address"], first["processor_mode"], first["n"]) == (0xFFFFFFF0, "real", 0)
    assert first["text"].startswith("ljmp") and rows[-1]["n"] == 200
    untraced = make_setup("native", max_cycles=None)
    opened = open_guest(str(disk))
    machine = setup_of_start(untraced, opened, 0, None, None).load(opened.bootable)
    machine.advance(200)
    ledger = machine.ledger()
    machine.disks.close()
    found = Ledger.empty()
    for row in rows[1:]:
        for event in row["events"]:
            cell = EVENT_ID[event["event"]], MODE_NAMES.index(event["mode"])
            found.count[cell] += event["count"]
            found.ticks[cell] += int(event["cycles"] * 64)
    assert found == ledger


HANDED_OVER = "the VMM lets the guest run on the processor"


@cache
def tour_records(strategy: str) -> tuple[list[Record], bool]:
    """The trace of a guest that visits every mode, and whether it adds up to the ledger of the untraced run."""
    untraced, machine = (Machine(find_strategy(strategy)(), load_profile("nehalem"), 4 << 20) for _ in range(2))
    for one in (untraced, machine):
        one.load(parse_flat(assembled(TOUR), "tour", 0x7C00))
    untraced.run(MAX_CYCLES)
    records = list(trace(machine, None, None, MAX_CYCLES))
    return records, total(records) == untraced.ledger() and state_of(machine) == state_of(untraced)


def what_is_told(record: Record) -> tuple[Any, ...]:
    """What a record says of the guest's instruction, and of where it led."""
    led = [
        (one.what, one.ring_before, one.ring_after, one.mode_after, one.address)
        for one in record.transitions
        if one.what != HANDED_OVER
    ]
    return record.ring, record.processor_mode, record.selector, record.offset, record.octets, record.text, led


@pytest.mark.parametrize("strategy", ["trap-and-emulate", "binary-translation"])
def test_an_interpreted_guest_is_shown_as_the_bare_machine_shows_it(strategy: str) -> None:
    bare = {(record.n, record.address): record for record in tour_records("native")[0]}
    records, adds_up = tour_records(strategy)
    assert adds_up
    interpreted = [record for record in records if record.interpreted and record.kind == "instruction"]
    assert {record.processor_mode for record in interpreted} == {"real", "protected", "virtual-8086"}
    assert {record.ring for record in interpreted} >= {0, 3}
    for record in interpreted:
        assert {charge.mode for charge in record.charges} == {"vmm"}
        assert what_is_told(record) == what_is_told(bare[record.n, record.address])
    assert any(one.delivery for record in interpreted for one in record.transitions)
    handed = [one for record in records for one in record.transitions if one.what == HANDED_OVER]
    assert handed and all(one.mode_after == "protected" for one in handed)
    assert sum("from here on the VMM interprets the guest" in record.remarks for record in records) >= 1
    lines = [line for record in interpreted for line in TextFormat(Symbols({}), 120).lines(record)]
    assert any(" interp " in line for line in lines) and any(" v86 " in line for line in lines)


def test_a_text_to_end_with_and_what_does_not_go_with_a_trace(x86virt: Any) -> None:
    answer = x86virt("trace", "hello", "--until", "Hello", "-e", "sys.out_port_lpc")
    assert answer.status == 0 and "end: until" in answer.out
    assert_refused(x86virt("trace", "hello", "--screen"), "the trace itself goes to the terminal")


def test_real_mode_is_disassembled_as_16_bit_code() -> None:
    """The size of the code segment decides, wherever it lies."""
    machine = start(Kernel([Step(b"\x90")]))
    machine.processor.reset_real()
    machine.processor.set_segment(1, 0x1000, DATA, 0xFFFF, 0x93)
    machine.processor.cpu.rip = 0x10
    machine.write_guest(DATA + 0x10, b"\xb8\x34\x12\x66\xb8\x78\x56\x34\x12\xf4")
    records = list(trace(machine, None, Limit(2)))
    assert [record.text for record in records[1:3]] == ["mov ax, 0x1234", "mov eax, 0x12345678"]
    assert records[1].processor_mode == "real" and records[1].address == DATA + 0x10 and records[1].offset == 0x10
    assert machine.processor.cpu.gpr[EAX] == 0x12345678
