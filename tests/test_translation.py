"""The binary translator: every guest in lock step, and the effect of each of its switches on the counts of events."""

from functools import cache

import pytest
from small_kernel import DATA, Kernel, Step, run, start, word
from test_saved import assert_same
from vmm_judge import EQUAL, judge

from x86virt import Machine, find_strategy, load_profile
from x86virt.api import compare
from x86virt.core.layout import NEVER
from x86virt.guests import find_guest
from x86virt.vmm.translation import saving

GUESTS = ("hello", "callret", "syscall", "divzero", "pgfault", "portio", "ptemod", "cr3switch", "smc", "truefault")


def machine_of(guest: str, options: str = "") -> Machine:
    """A guest, loaded under binary translation."""
    machine = Machine(find_strategy(f"binary-translation{options}")(), load_profile("p4_prescott"))
    machine.load(find_guest(guest))
    return machine


@cache
def counts(guest: str, options: str = "") -> dict[str, int]:
    """Events of a whole run, by name."""
    result = machine_of(guest, options).run()
    assert result.outcome == "halted"
    return {name: result.ledger.event_count(name) for name in EVENTS} | {f"exit {k}": v[0] for k, v in result.exits.items()}


EVENTS = [
    f"translator.{name}"
    for name in ("unit", "instruction", "byte", "guest_byte", "chain", "lookup_hit", "lookup_miss", "invalidation", "flush")
]


@pytest.mark.parametrize("options", ["", ",chaining=off,inline_emulation=off"])
@pytest.mark.parametrize("guest", GUESTS)
def test_a_guest_runs_as_on_the_bare_machine(guest: str, options: str) -> None:
    assert compare(guest, f"binary-translation{options}").equal


def test_a_loop_of_calls_and_returns_needs_the_vmm_once() -> None:
    """In steady state nothing leaves the cache: the counts of callouts do not grow with the iterations."""
    calls = machine_of("callret").run().regions[1]
    assert calls.iterations == 100
    assert sum(row.number for row in calls.exits.values()) <= 4
    assert calls.ledger.event_count("translator.lookup_hit") >= 98
    chained, unchained = counts("callret"), counts("callret", ",chaining=off")
    assert chained["exit unchained_jump"] == chained["translator.chain"]
    assert unchained["translator.chain"] == unchained["translator.lookup_hit"] == 0
    assert unchained["exit lookup_miss"] > 100


def test_emulation_inline_saves_callouts() -> None:
    inline, called = counts("irq"), counts("irq", ",inline_emulation=off")
    assert inline["exit sensitive_instruction"] < called["exit sensitive_instruction"]


def test_a_small_cache_is_thrown_away_and_made_again() -> None:
    small, large = counts("smc", ",tc_size=4K"), counts("smc")
    assert small["translator.flush"] > large["translator.flush"] == 0
    assert small["translator.unit"] > large["translator.unit"]


def test_what_was_occupied_at_most_is_counted() -> None:
    machine = machine_of("smc")
    occupied = machine.run().ledger.event_count("translator.occupied")
    assert occupied == machine.vm.translation.cache.used > counts("smc")["translator.byte"]  # never thrown away
    small = machine_of("smc", ",tc_size=4K").run().ledger.event_count("translator.occupied")
    assert 2048 <= small <= 4096


def test_modified_code_is_dropped() -> None:
    assert counts("smc")["translator.invalidation"] > 0


def test_every_attribute_of_the_translator_is_saved_or_made_again() -> None:
    translator = machine_of("hello").vm.translation
    assert set(vars(translator)) == saving.SAVED | saving.MADE


# -- found by random kernels ------------------------------------------------------------------------------------------


def test_a_checkpoint_behind_a_jump_does_not_see_the_next_fetch() -> None:
    """The page of a jump's target is marked accessed when the guest goes on there, not when its target is translated."""
    assert judge(Kernel([Step(b"\x90")]), "binary-translation", 1).kind == EQUAL


def test_an_access_through_gs_as_the_loader_left_it() -> None:
    """GS holds a segment that no table of the guest's says: translated code can load it all the same."""
    through_gs = b"\x65\x8b\x0d" + word(DATA) + b"\x65\x89\x0d" + word(DATA + 4)
    assert judge(Kernel([Step(through_gs)]), "binary-translation", 1).kind == EQUAL


def test_a_callout_for_a_port_changes_no_privilege() -> None:
    """What ring 1 may do is done there: no gate and no IRET in the loop but those of its first jumps."""
    for options, called in (("", "port_access"), (",direct_callouts=off", "sensitive_instruction")):
        loop = machine_of("portio", options).run().regions[0]
        crossings = sum(row.number for reason, row in loop.exits.items() if reason != called)
        assert loop.exits[called][0] == loop.iterations == 100
        assert crossings == loop.ledger.event_count("sys.iret_cpl0_to_cpl3") <= 4


def test_a_direct_callout_looks_nothing_up_and_decodes_nothing() -> None:
    """One path and the device are all that the VMM does for IN, in less than half of the time."""
    direct, general = (machine_of("portio", options).run().regions[0] for options in ("", ",direct_callouts=off"))
    for path in ("direct_port", "device_request"):
        assert direct.ledger.event_count(f"vmm.{path}") == 100
    for path in ("light_dispatch", "emulate_port"):
        assert direct.ledger.event_count(f"vmm.{path}") == 0 and general.ledger.event_count(f"vmm.{path}") == 100
    assert direct.ledger.event_count("vmm.enter_cache") < 10 < 100 <= general.ledger.event_count("vmm.enter_cache")
    assert 2 * direct.ticks < general.ticks


def test_the_hash_table_is_emptied_where_the_context_changes() -> None:
    """A call and its return, with another IOPL in between: each address that the table held is taken out, and charged."""
    call_and_return = b"\xe8\x02\x00\x00\x00\xeb\x01\xc3"
    emptied = []
    for flags in (0x3002, 0x0002):
        code = call_and_return + b"\x68" + flags.to_bytes(4, "little") + b"\x9d" + call_and_return
        result = run(Kernel([Step(code)]), find_strategy("binary-translation")())[1]
        count, ticks = (measure("translator.hash_emptied") for measure in (result.ledger.event_count, result.ledger.event_ticks))
        assert ticks == 0 or ticks > count > 0
        emptied.append(count)
    assert emptied[0] > emptied[1]


@pytest.mark.parametrize("guest", ["portio", "smc"])
def test_a_saved_and_restored_run_ends_as_the_unbroken_one(guest: str) -> None:
    assert_same(guest, "binary-translation", [420_000, 600_000, 700_001, 900_003])


def test_a_callout_that_hands_the_guest_to_the_interpreter_leaves_its_ring() -> None:
    """OUT closes the A20 gate: from then on the guest is interpreted, until it opens the gate again."""
    close_and_open = b"\xe4\x92\x24\xfd\xe6\x92\x40\x0c\x02\xe6\x92\x43"  # IN, AND, OUT, INC EAX, OR, OUT, INC EBX
    assert judge(Kernel([Step(close_and_open)]), "binary-translation", 1).kind == EQUAL


def test_repeated_strings_trap_after_each_iteration_under_the_trap_flag() -> None:
    pointers = b"\xb9\x05\x00\x00\x00\xbe" + word(DATA) + b"\xbf" + word(DATA + 64)
    stepped = b"\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d\xf3\xa4\x90"  # PUSHF, OR, POPF, REP MOVSB, NOP
    assert judge(Kernel([Step(pointers + stepped)]), "binary-translation", 1).kind == EQUAL


def test_breakpoints_of_the_kernel_are_met_in_its_own_code() -> None:
    behind = b"\xe8\x00\x00\x00\x00\x58\x83\xc0\x17\x0f\x23\xc0"  # CALL, POP, ADD, MOV DR0
    enabled = b"\xb8\x01\x00\x00\x00\x0f\x23\xf8" + b"\x90" * 24
    assert judge(Kernel([Step(behind + enabled)]), "binary-translation", 1).kind == EQUAL


def test_a_pause_anywhere_shows_the_guest_between_two_of_its_instructions() -> None:
    code = b"\xf9\x9c\xfa\x9c\x9d\xfb\x90\x0e\x58\x9d\x0f\x20\xc1\x8c\xd2\xe8\x00\x00\x00\x00\x5b"  # STC, PUSHF, CLI ...
    kernel = Kernel([Step(code)])
    bare, paused = start(kernel), start(kernel, find_strategy("binary-translation")())
    seen = {}
    while bare.advance(int(bare.processor.cpu.retired) + 1):
        seen[int(bare.processor.cpu.retired)] = view_of(bare)
    pauses = 0
    while paused.advance(NEVER, pause_ticks=int(paused.processor.cpu.ticks) + 1):
        now = int(paused.processor.cpu.retired)
        if now in seen and paused.processor.cpu.cpl:
            assert view_of(paused) == seen[now]
            pauses += 1
    assert pauses > 50


def view_of(machine: Machine) -> dict[str, int]:
    """The guest's registers, as a debugger reads them."""
    return {name: value for name, value in machine.strategy.virtual_registers(machine)[0].items() if not name.startswith("fpu")}
