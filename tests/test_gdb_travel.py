"""A debugger's stops and the way back in time: what they meet, and that neither the guest nor a cycle knows of them."""

from __future__ import annotations

import functools
import itertools
import pathlib
import tempfile

import numpy as np
import pytest
from command_line import kernel
from gdb_client import MEMORY_BYTES, machine_of
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt import load_image
from x86virt.api import make_setup, setup_of_start
from x86virt.core.layout import MAX_STOPS, STOP_ON_ACCESSES, STOP_ON_CODE, STOP_ON_READS, STOP_ON_WRITES
from x86virt.disk import Disk
from x86virt.gdb import execution, history
from x86virt.gdb.execution import Execution, Stop, Why
from x86virt.gdb.history import History
from x86virt.gdb.place import Place
from x86virt.gdb.registers import write_register
from x86virt.gdb.snapshots import Camera
from x86virt.gdb.travel import Travel
from x86virt.guests import find_guest, open_guest
from x86virt.machine import Machine
from x86virt.vmm.translation import stops as translated_stops

STRATEGIES = ("native", "trap-and-emulate")
VMMS = (*STRATEGIES, "binary-translation")
SHORT = "hello_pse"  # a guest of some 1,200 instructions


def code(address: int) -> Stop:
    return Stop(STOP_ON_CODE, address, address)


def state_of(travel: Travel) -> tuple[Place, str]:
    machine = travel.machine
    return travel.place, machine.strategy.virtual_state(machine).digest()


def address_of(travel: Travel) -> int:
    return travel.execution.view.instruction_address()


def same_end(machine: Machine, undisturbed: Machine) -> None:
    """Both have ended alike: outcome, console, every cell of the ledger."""
    one, two = machine.result(), undisturbed.result()
    assert (one.outcome, one.ticks, one.instructions, one.console) == (two.outcome, two.ticks, two.instructions, two.console)
    assert one.ledger == two.ledger
    assert one.exits == two.exits


@functools.cache
def undisturbed(guest: str, strategy: str, command_line: str = "iterations=1") -> Machine:
    machine = machine_of(guest, strategy, command_line)
    machine.run()
    return machine


@functools.cache
def steps(strategy: str) -> tuple[tuple[Place, int], ...]:
    """Every boundary of the short guest: its place, and the address of its next instruction."""
    travel = Travel(machine_of(SHORT, strategy))
    found = []
    while not travel.ended:
        found.append((travel.place, address_of(travel)))
        travel.step()
    return tuple(found)


# -- code ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_steps_one_by_one_change_nothing(strategy: str) -> None:
    travel = Travel(machine_of(SHORT, strategy))
    while travel.step().why is not Why.ENDED:
        pass
    same_end(travel.machine, undisturbed(SHORT, strategy))
    places = [place for place, _ in steps(strategy)]
    assert places == sorted(set(places))


@pytest.mark.parametrize("strategy", VMMS)
@given(data=st.data())
@settings(max_examples=5)
def test_breakpoints_stop_each_time_their_instruction_is_reached_forwards_and_backwards(
    strategy: str, data: st.DataObject
) -> None:
    known = steps(strategy)
    rare = sorted({address for _, address in known if sum(other == address for _, other in known) <= 3})
    chosen = data.draw(st.lists(st.sampled_from(rare), min_size=1, max_size=3, unique=True))
    expected = [place for place, address in known[1:] if address in chosen]
    travel = Travel(machine_of(SHORT, strategy), every=100)
    stops = [code(address) for address in chosen]
    met = []
    while (halt := travel.go_on(stops)).why is Why.STOP:
        assert halt.address == address_of(travel) in chosen
        met.append(travel.place)
    assert halt.why is Why.ENDED
    if strategy == "binary-translation":  # where a step ends, the VMM may still have to find the way on in the cache
        assert [place.retired for place in met] == [place.retired for place in expected]
        expected = met
    assert met == expected
    same_end(travel.machine, undisturbed(SHORT, strategy))
    back = []
    while (halt := travel.go_back(stops)).why is Why.STOP:
        assert address_of(travel) in chosen
        back.append(travel.place)
    assert halt.why is Why.BEGIN
    assert travel.place == Place(0, known[0][0].ticks)
    assert [place for place in back if place != known[0][0]] == expected[::-1]
    travel.go_on([])
    same_end(travel.machine, undisturbed(SHORT, strategy))


@pytest.mark.parametrize("strategy", VMMS)
@pytest.mark.parametrize("ticks", [64, 2_000])
def test_stops_and_the_way_back_are_the_same_however_a_run_is_cut(
    strategy: str, ticks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a slow host a run is cut into slices and snapshots where a fast one runs on, amid the VMM's and injected code too."""
    monkeypatch.setattr(Execution, "adapt_slice", lambda *_: None)
    monkeypatch.setattr(execution, "FIRST_SLICE", ticks)
    monkeypatch.setattr(history, "REST", 0.0)
    reached = [address for place, address in steps(strategy) if 90 < place.retired < 120]
    travel = Travel(machine_of(SHORT, strategy), every=1)
    travel.go_on([], retired=90)
    stops = [code(address) for address in dict.fromkeys(reached)]
    met = []
    while travel.go_on(stops, retired=120).why is Why.STOP and travel.place.retired < 120:
        met.append((travel.place, address_of(travel)))
    assert [address for _, address in met] == reached
    back = []
    while travel.place.retired > 90 and travel.go_back(stops).why is Why.STOP:
        back.append((travel.place, address_of(travel)))
        assert len(back) <= len(met) + 1
    assert back[: len(met)] == met[::-1]


@pytest.mark.parametrize("strategy", VMMS)
def test_going_back_from_where_the_vmm_let_the_guest_go_on_moves(strategy: str) -> None:
    # in al, 0x92; nop; in al, 0x92; nop; exit
    travel = Travel(flat_machine(bytes.fromhex("e492 90 e492 90") + EXIT, strategy))
    begin = address_of(travel)
    stops = [code(begin + 2), code(begin + 5)]
    met = []
    while travel.go_on(stops).why is Why.STOP:
        met.append((travel.place, address_of(travel)))
    assert [address for _, address in met] == [begin + 2, begin + 5]
    back = []
    while len(back) < 3 and travel.go_back(stops).why is Why.STOP:
        back.append((travel.place, address_of(travel)))
    assert back == met[::-1]


def test_as_many_breakpoints_as_a_debugger_may_set_are_all_met_in_translated_code() -> None:
    # nop, MAX_STOPS times; exit
    travel = Travel(flat_machine(b"\x90" * MAX_STOPS + EXIT, "binary-translation"))
    begin = address_of(travel)
    stops = [code(begin + 1 + number) for number in range(MAX_STOPS)]
    met = []
    while travel.go_on(stops).why is Why.STOP:
        met.append(address_of(travel))
    assert met == [stop.first for stop in stops]
    assert travel.machine.outcome == "exited 1"


def test_breakpoints_at_more_places_of_translated_code_than_there_is_room_for_end_the_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(translated_stops, "MAX_PLACES", 3)
    travel = Travel(flat_machine(b"\x90" * 8 + EXIT, "binary-translation"))
    begin = address_of(travel)
    stops = [code(begin + 1 + number) for number in range(4)]
    while travel.go_on(stops).why is Why.STOP:
        pass
    assert travel.machine.outcome == "unsupported: breakpoints at more than 3 places of translated code"


def test_a_breakpoint_is_met_again_only_when_its_instruction_begins_again() -> None:
    travel = Travel(machine_of("syscall"))
    entry = find_guest("syscall").symbols["syscall_int80"]
    assert travel.go_on([code(entry)]).why is Why.STOP
    first = travel.place
    assert travel.go_on([code(entry)]).why in (Why.STOP, Why.ENDED)
    assert travel.place.retired > first.retired


@pytest.mark.parametrize("strategy", VMMS)
@pytest.mark.parametrize("guest", ["clock", "pgfault", "divzero", "tasks"])
def test_hot_stops_of_all_kinds_leave_every_cycle_as_it_was(guest: str, strategy: str) -> None:
    symbols = find_guest(guest).symbols
    travel = Travel(machine_of(guest, strategy), every=5_000)
    code_stops = [code(symbols[name]) for name in sorted(symbols) if name.startswith(("trap_", "user", "on_", "pass"))]
    counter = symbols["iterations"]
    data = [Stop(STOP_ON_ACCESSES, symbols["gdt"], symbols["gdt"] + 7), Stop(STOP_ON_WRITES, counter, counter + 3)]
    stopped = 0
    while not travel.ended and stopped < 60:
        stopped += travel.go_on([*code_stops[:40], *data]).why is Why.STOP
    travel.go_on([])
    assert stopped > 0
    same_end(travel.machine, undisturbed(guest, strategy))


# -- data ---------------------------------------------------------------------------------------------------------


def memory_at(machine: Machine, first: int, last: int) -> bytes:
    return machine.read_guest(first, last - first + 1)


def retired_at(guest: str, strategy: str, stop: Stop) -> list[tuple[int, bytes]]:
    """Instructions retired, and the bytes, at each stop on data."""
    travel = Travel(machine_of(guest, strategy))
    found = []
    while travel.go_on([stop]).why is Why.STOP:
        found.append((travel.place.retired, memory_at(travel.machine, stop.first, stop.last)))
    same_end(travel.machine, undisturbed(guest, strategy))
    return found


@pytest.mark.parametrize("kind", [STOP_ON_WRITES, STOP_ON_READS, STOP_ON_ACCESSES])
@pytest.mark.parametrize("symbol,length", [("syscall_count", 4), ("trap_stack_top", -16), ("boot_stack_top", -8)])
def test_watchpoints_meet_the_same_instructions_natively_and_under_a_vmm(kind: int, symbol: str, length: int) -> None:
    address = find_guest("syscall").symbols[symbol]
    stop = Stop(kind, min(address, address + length), max(address, address + length) - 1)
    bare, virtual = (retired_at("syscall", strategy, stop) for strategy in STRATEGIES)
    assert bare
    # A trap of the guest's own INT is delivered at its end by the processor, and as an event of its own by the VMM.
    assert {n for n, _ in bare} == {n for n, _ in virtual}
    assert dict(bare) == dict(virtual)


WINDOWS = {0x109FE0: 64, 0x102000: 64, 0x10A000: 64}
MOST_BACK = 6


@functools.cache
def contents(strategy: str) -> list[tuple[Place, dict[int, bytes]]]:
    """What stands in the windows at every boundary of the short guest."""
    travel = Travel(machine_of(SHORT, strategy))
    found = []
    while True:
        windows = {first: travel.machine.read_guest(first, length) for first, length in WINDOWS.items()}
        found.append((travel.place, windows))
        if travel.ended:
            return found
        travel.step()


@pytest.mark.parametrize("strategy", STRATEGIES)
@given(data=st.data())
@settings(max_examples=6)
def test_every_change_of_watched_memory_is_a_stop(strategy: str, data: st.DataObject) -> None:
    window = data.draw(st.sampled_from(sorted(WINDOWS)))
    offset, length = data.draw(st.integers(0, 31)), data.draw(st.sampled_from([1, 2, 4, 8, 31]))
    stop = Stop(STOP_ON_WRITES, window + offset, window + offset + length - 1)
    travel = Travel(machine_of(SHORT, strategy), every=100)
    met = []
    while travel.go_on([stop]).why is Why.STOP:
        met.append(travel.place)
    same_end(travel.machine, undisturbed(SHORT, strategy))
    watched = [(place, windows[window][offset : offset + length]) for place, windows in contents(strategy)]
    for (before, old), (after, new) in itertools.pairwise(watched):
        assert new == old or any(before < place <= after for place in met)
    expected = [max(place for place, _ in watched if place < one) for one in reversed(met)]
    back = []
    while len(back) < MOST_BACK and travel.go_back([stop]).why is Why.STOP:
        back.append(travel.place)
    assert back == list(dict.fromkeys(expected))[:MOST_BACK]


def flat_machine(octets: bytes, strategy: str) -> Machine:
    """A machine that runs a few bytes at 1 MB, ring 0 of flat segments."""
    machine = make_setup(strategy, memory_bytes=MEMORY_BYTES).machine()
    with tempfile.TemporaryDirectory() as folder:
        machine.load(load_image(kernel(pathlib.Path(folder) / "kernel.elf", octets)))
    return machine


EXIT = bytes.fromhex("b001 e6f4 f4")  # mov al, 1; out 0xF4, al; hlt


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_repeated_string_instruction_stops_behind_the_iteration_and_goes_back_before_all(strategy: str) -> None:
    # mov edi, 0x110000; mov ecx, 16; mov eax, 5; rep stosd; exit
    program = bytes.fromhex("bf00001100 b910000000 b805000000 f3ab") + EXIT
    plain = flat_machine(program, strategy)
    plain.run()
    travel = Travel(flat_machine(program, strategy))
    stop = Stop(STOP_ON_WRITES, 0x110010, 0x110017)
    counts = []
    places = []
    while travel.go_on([stop]).why is Why.STOP:
        counts.append(travel.execution.view.registers()["ecx"])
        places.append(travel.place)
    assert counts == [11, 10]
    assert [place.retired for place in places] == [3, 3]
    same_end(travel.machine, plain)
    assert travel.go_back([stop]).why is Why.STOP
    assert travel.execution.view.registers()["ecx"] == 16
    assert travel.place.retired == 3
    assert travel.go_back([stop]).why is Why.BEGIN
    travel.to_place(places[1], lambda: False)
    assert travel.execution.view.registers()["ecx"] == 10
    assert travel.step_back().why is Why.LIMIT
    assert travel.execution.view.registers()["ecx"] == 16
    travel.go_on([])
    same_end(travel.machine, plain)


def test_an_x87_operand_meets_a_watchpoint() -> None:
    # fninit; fld1; fstp qword [0x110000]; fld qword [0x110000]; exit
    program = bytes.fromhex("dbe3 d9e8 dd1d00001100 dd0500001100") + EXIT
    travel = Travel(flat_machine(program, "native"))
    assert travel.go_on([Stop(STOP_ON_WRITES, 0x110007, 0x110007)]).why is Why.STOP
    assert travel.place.retired == 3
    assert travel.go_on([Stop(STOP_ON_READS, 0x110000, 0x110000)]).why is Why.STOP
    assert travel.place.retired == 4


# -- back ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(
    "guest,symbol",
    [("clock", "trap_stub_32"), ("pgfault", "trap_stub_14"), ("divzero", "trap_stub_0"), ("syscall", "syscall_int80")],
)
def test_each_step_back_is_the_step_forward_again(guest: str, symbol: str, strategy: str) -> None:
    travel = Travel(machine_of(guest, strategy), every=10_000)
    assert travel.go_on([code(find_guest(guest).symbols[symbol])]).why is Why.STOP
    for _ in range(4):
        travel.step_back()
    states = [state_of(travel)]
    for _ in range(12):
        travel.step()
        states.append(state_of(travel))
    back = [state_of(travel)]
    for _ in range(12):
        assert travel.step_back().why is Why.LIMIT
        back.append(state_of(travel))
    assert back == states[::-1]


def test_a_step_stops_at_the_handler_of_a_fault_and_of_an_interrupt() -> None:
    for guest, symbol in (("divzero", "trap_stub_0"), ("clock", "trap_stub_32")):
        handler = find_guest(guest).symbols[symbol]
        travel = Travel(machine_of(guest))
        assert travel.go_on([code(handler)]).why is Why.STOP
        arrived = travel.place
        assert travel.step_back().why is Why.LIMIT
        halt = travel.step()
        assert halt.why is Why.DELIVERY
        assert (travel.place, address_of(travel)) == (arrived, handler)


def test_before_the_first_instruction_there_is_nothing() -> None:
    travel = Travel(machine_of(SHORT))
    assert travel.step_back().why is Why.BEGIN
    assert travel.go_back([]).why is Why.BEGIN
    travel.step()
    assert travel.step_back().why is Why.LIMIT
    assert travel.place.retired == 0


def test_the_guests_end_can_be_left_backwards() -> None:
    travel = Travel(machine_of(SHORT))
    assert travel.go_on([]).why is Why.ENDED
    end = travel.place
    assert travel.step_back().why is Why.LIMIT
    assert not travel.ended
    assert travel.step().why is Why.ENDED
    assert travel.place == end
    same_end(travel.machine, undisturbed(SHORT, "native"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_what_the_debugger_writes_makes_a_new_future_and_is_undone_by_going_back(strategy: str) -> None:
    # mov ecx, 3; again: inc edx; dec ecx; jnz again; exit
    program = bytes.fromhex("b903000000 42 49 75fc") + EXIT
    travel = Travel(flat_machine(program, strategy))
    view = travel.execution.view
    travel.step()
    assert view.registers()["ecx"] == 3
    assert write_register(travel.machine, "ecx", 10)
    travel.history.alter()
    written = travel.place
    travel.go_on([])
    assert view.registers()["edx"] == 10
    while travel.place > written:
        travel.step_back()
    assert (travel.place, view.registers()["ecx"]) == (written, 10)
    travel.step_back()
    assert travel.place.retired == 0
    travel.step()
    assert view.registers()["ecx"] == 3
    travel.go_on([])
    assert view.registers()["edx"] == 3


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_written_registers_are_read_again_and_the_guest_runs_with_them(strategy: str) -> None:
    travel = Travel(machine_of("syscall", strategy))
    travel.go_on([code(find_guest("syscall").symbols["syscall_int80"])])
    view = travel.execution.view
    before = view.registers()
    for name, value in (("eax", 0x12345678), ("esp", before["esp"] - 64), ("eflags", before["eflags"] ^ 0x8D5)):
        assert write_register(travel.machine, name, value)
        assert view.registers()[name] == value
    assert not write_register(travel.machine, "cr3", 0)
    assert not write_register(travel.machine, "cs", 0)
    eip = view.registers()["eip"]
    assert write_register(travel.machine, "eip", eip + 6)
    travel.step()
    assert view.registers()["eip"] == eip + 11


# Real mode at 7C00: read a key into 7E00, write that sector to the disk's second one, exit with 1.
TYPED = bytes.fromhex(
    "31c0 8ed8 8ec0 b400 cd16 a2007e b80103 bb007e b90200 ba8000 cd13 b001 e6f4 f4"
)
BOOT_SECTOR = TYPED.ljust(510, b"\0") + b"\x55\xaa"
SCRIPT = ":wait Hard disk 0\n:pause 0.02\n:key x\n"


def typing_machine() -> Machine:
    """A PC that boots from a disk, and a script that types at it."""
    opened = open_guest(None)
    setup = setup_of_start(make_setup("native"), opened, MEMORY_BYTES, None, None)
    machine = setup.machine()
    machine.disks.attach(Disk.of_bytes("disk", BOOT_SECTOR.ljust(1 << 20, b"\0")))
    machine.load(opened.bootable)
    machine.dialogue.play(SCRIPT)
    return machine


def test_keys_of_a_script_and_what_was_written_to_a_disk_come_again_after_going_back() -> None:
    plain = typing_machine()
    plain.run()
    assert plain.outcome == "exited 1"
    travel = Travel(typing_machine(), every=20_000)
    disk = travel.machine.disks.disks[0]
    stop = Stop(STOP_ON_WRITES, 0x7E00, 0x7E00)
    assert travel.go_on([stop]).why is Why.STOP
    assert memory_at(travel.machine, 0x7E00, 0x7E00) == b"x"
    assert travel.go_back([code(0x7C00)]).why is Why.STOP
    assert travel.go_on([]).why is Why.ENDED
    same_end(travel.machine, plain)
    assert disk.overlay[1][:1] == b"x"
    assert travel.go_back([stop]).why is Why.STOP
    assert not disk.overlay
    assert travel.go_on([]).why is Why.ENDED
    assert disk.overlay[1][:1] == b"x"
    same_end(travel.machine, plain)


# -- the history --------------------------------------------------------------------------------------------------


def test_the_history_keeps_its_beginning_and_is_densest_near_the_present() -> None:
    machine = machine_of("mix")
    travel = Travel(machine, every=2_000)
    travel.history.most, travel.history.rest = 12, 0.0
    for limit in range(2_000, 200_000, 2_000):
        travel.go_on([], retired=limit)
    places = [snapshot.place.retired for snapshot in travel.history.snapshots]
    assert len(places) == 12
    assert places[0] == 0
    gaps = np.diff(places)
    assert gaps[-1] < gaps[0]
    assert places == sorted(places)


@pytest.mark.parametrize("strategy", ["trap-and-emulate", "binary-translation"])
def test_a_snapshot_puts_back_what_the_vmm_keeps(strategy: str) -> None:
    """Also what it has got since: descriptors of the guest's that it did not hold then are not held again."""
    machine = machine_of("syscall", strategy)
    camera = Camera(machine)
    machine.advance(15_000)
    before = camera.take()
    machine.advance(20_960)
    assert len(camera.take().state["vm"]["originals"]) > len(before.state["vm"]["originals"])
    camera.put_back(before)
    assert camera.take().state == before.state
    assert machine.run().outcome == undisturbed("syscall", strategy).outcome
    same_end(machine, undisturbed("syscall", strategy))


def test_a_snapshot_puts_back_every_byte() -> None:
    machine = machine_of("syscall", "trap-and-emulate")
    camera = Camera(machine)
    history = History(camera)
    machine.advance(20_950)
    taken = camera.take()
    before = machine.strategy.virtual_state(machine).digest(), machine.processor.ram.tobytes()
    machine.run()
    camera.put_back(taken)
    assert (machine.strategy.virtual_state(machine).digest(), machine.processor.ram.tobytes()) == before
    machine.run()
    same_end(machine, undisturbed("syscall", "trap-and-emulate"))
    camera.put_back(history.snapshots[0])
    machine.run()
    same_end(machine, undisturbed("syscall", "trap-and-emulate"))
