"""The contracts of the machine on every shipped guest and both strategies: conservation, determinism, the naive twin."""

from __future__ import annotations

import functools
import random

import numpy as np
import pytest
from guest_sets import DISK_GUESTS, TIMED_GUESTS, portable_guests, ported_guests, short_line
from naive_twin import NaiveTwin
from small_kernel import CODE_0, Kernel, Step, far_jump, load, set_cr, start, strategy

from x86virt import Machine, RunResult, find_guest, load_profile
from x86virt.core.layout import NEVER
from x86virt.guests import guests
from x86virt.isa.events import EVENT_ID, EVENTS
from x86virt.ledger import ConservationError, PriceError
from x86virt.profile import profile_names
from x86virt.vmm.recorder import Recorder

MEMORY = 8 << 20
MAX_CYCLES = 4_000_000_000
STRATEGIES = ("native", "trap-and-emulate")
PROFILES = profile_names()
ITERATIONS = {"mix": 1, "irq": 1, "speed": 1}
CUTS = 12
CHEAP = ("hello_pse", "divzero", "pgfault")


def machine_of(guest: str, name: str, profile: str = "p4_prescott") -> Machine:
    """A machine with a shipped guest loaded."""
    machine = Machine(strategy(name), load_profile(profile), MEMORY)
    machine.load(find_guest(guest), short_line(guest, ITERATIONS.get(guest, 3)))
    return machine


def signature(machine: Machine, result: RunResult) -> tuple:
    """All that a run leaves, to the byte."""
    state = machine.strategy.virtual_state(machine)
    regions = [(r.number, r.iterations, r.instructions, r.ticks, r.exits) for r in result.regions]
    ledger = result.ledger.count.tobytes(), result.ledger.ticks.tobytes()
    return result.outcome, result.instructions, result.ticks, regions, result.exits, ledger, state.digest()


def check_ledger(machine: Machine, result: RunResult) -> None:
    """Conservation, and count x price for each event of a fixed price."""
    assert result.ledger.total_ticks() == int(machine.processor.cpu.ticks) == result.ticks > 0
    result.ledger.check_conservation(result.ticks)
    result.ledger.check_fixed_prices(machine.profile.prices())
    assert (result.ledger.count >= 0).all()
    assert (result.ledger.ticks >= 0).all()


# -- conservation -------------------------------------------------------------------------------------------------------


BOTH_TECHNIQUES = [(guest, name) for name in STRATEGIES for guest in portable_guests()]


@pytest.mark.parametrize(("guest", "name"), [*BOTH_TECHNIQUES, *((guest, "paravirtual") for guest in ported_guests())])
def test_every_tick_is_in_the_ledger_once(guest: str, name: str) -> None:
    machine = machine_of(guest, name)
    result = machine.run(MAX_CYCLES)
    assert result.outcome == "halted"
    check_ledger(machine, result)
    modes = result.ledger.ticks_by_mode()
    assert (modes["vmm"] > 0) == (name != "native")
    for region in result.regions:
        assert region.ledger.total_ticks() == region.ticks


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("guest", CHEAP)
def test_conservation_under_every_profile(guest: str, name: str, profile: str) -> None:
    machine = machine_of(guest, name, profile)
    result = machine.run(MAX_CYCLES)
    assert result.outcome == "halted"
    check_ledger(machine, result)


def test_a_lost_tick_and_a_wrong_price_are_noticed() -> None:
    machine = machine_of("divzero", "native")
    result = machine.run(MAX_CYCLES)
    with pytest.raises(ConservationError):
        result.ledger.check_conservation(result.ticks + 1)
    result.ledger.count[EVENT_ID["sys.exc_de"], 0] += 1
    with pytest.raises(PriceError, match=r"sys\.exc_de"):
        result.ledger.check_fixed_prices(machine.profile.prices())


# -- determinism ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("guest", ["syscall", "pgfault", "irq", "cr3switch"])
def test_twice_the_same(guest: str, name: str) -> None:
    machines = [machine_of(guest, name) for _ in range(2)]
    one, two = (signature(machine, machine.run(MAX_CYCLES)) for machine in machines)
    assert one == two


@pytest.mark.parametrize("step", [997, 10_007, 60_013])
@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("guest", ["divzero", "pgfault", "irq"])
def test_slices_of_cycles_change_nothing(guest: str, name: str, step: int) -> None:
    """A run that is stopped by its budget again and again goes on as if it had not been."""
    if guest == "irq":
        step *= 307
    whole, sliced = machine_of(guest, name), machine_of(guest, name)
    expected = signature(whole, whole.run(MAX_CYCLES))
    limit, budgets = 0, 0
    while True:
        limit += step
        result = sliced.run(limit)
        if result.outcome != "budget":
            break
        budgets += 1
        sliced.outcome = None
        check_ledger(sliced, result)
        assert budgets < 5000
    assert budgets >= 1
    assert signature(sliced, result) == expected


@functools.cache
def unbroken(guest: str, name: str) -> tuple:
    """A run in one piece, and how many ticks and instructions it took."""
    machine = machine_of(guest, name)
    result = machine.run(MAX_CYCLES)
    assert result.outcome == "halted"
    return signature(machine, result), result.ticks, result.instructions


WHERE = [(guest, name) for name in STRATEGIES for guest in (guests() if name == "native" else portable_guests())]
PORTED = [(guest, "paravirtual") for guest in ported_guests()]


@pytest.mark.parametrize(("guest", "name"), [*WHERE, *PORTED])
def test_cuts_and_forgotten_code_change_nothing(guest: str, name: str) -> None:
    """Every guest, cut at random cycles and instruction counts, what only serves speed forgotten at each cut."""
    expected, ticks, instructions = unbroken(guest, name)
    chance = random.Random(f"{guest} {name}")
    machine = machine_of(guest, name)
    for part in range(CUTS):
        if part % 2:
            going = machine.advance(NEVER, MAX_CYCLES, ticks // 64 * part // CUTS + chance.randrange(1, 100))
        else:
            going = machine.advance(instructions * part // CUTS + chance.randrange(1, 100), MAX_CYCLES)
        assert going or part == CUTS - 1
        machine.processor.discard_host_state()
    assert signature(machine, machine.run(MAX_CYCLES)) == expected


@pytest.mark.parametrize(("guest", "name"), WHERE)
def test_recording_changes_nothing(guest: str, name: str) -> None:
    """Every guest; the log of time reads is taken away each time it is full."""
    machine = Machine(strategy(name), load_profile("p4_prescott"), MEMORY)
    recorder = Recorder(machine)
    machine.load(find_guest(guest), short_line(guest, ITERATIONS.get(guest, 3)))
    result = machine.run(MAX_CYCLES)
    recorder.drain()
    assert signature(machine, result) == unbroken(guest, name)[0]
    assert bool(recorder.log.reads) == (guest in (*TIMED_GUESTS, *DISK_GUESTS))


@pytest.mark.parametrize("step", [1, 613])
@pytest.mark.parametrize("name", STRATEGIES)
def test_slices_of_instructions_change_nothing(name: str, step: int) -> None:
    whole, sliced = (start(MIXED, name) for _ in range(2))
    expected = signature(whole, whole.run(MAX_CYCLES))
    limit = step
    while sliced.advance(limit, MAX_CYCLES):
        limit += step
    assert signature(sliced, sliced.result()) == expected


# -- the naive twin -------------------------------------------------------------------------------------------------------

MIXED = Kernel(
    [
        Step(b"\x31\xc9\xf7\xf1"),
        Step(b"\xcd\x81\xcd\x83\x0f\x0b", 3),
        Step(b"\xfa\xfb\x90\xe4\x80\xe6\x80" + set_cr(3, 0x40000) + far_jump(CODE_0, 0x70000)),
        Step(load(0, 0x300000), 3),
        Step(b"\xb9\x21\x00\x00\x00\xbf\x00\x00\x02\x00\xf3\xab\xb9\x05\x00\x00\x00\x49\x75\xfd"),
    ],
    octets={0x70000: b"\x90\x90\xff\x25\x00\x60\x00\x00"},
)
TWINS = ("hello", "syscall", "divzero", "callret", "portio", "pgfault")


def check_twin(machine: Machine, most: int) -> None:
    """The ledger of a stepped machine is what the twin counted."""
    twin = NaiveTwin(machine)
    twin.run(most)
    ledger = machine.result().ledger
    counted = {
        event.name: ledger.event_count(event.name)
        for event in EVENTS
        if event.name.startswith(("ins.", "sys.")) and ledger.event_count(event.name)
    }
    vmm_made = {} if machine.vm is None else {"sys.mov_cr3_write", "sys.invlpg", "sys.lapic_mmio_access"}
    assert {name: count for name, count in counted.items() if name not in vmm_made} == dict(+twin.counts)
    assert sum(twin.counts.values()) > 100


@pytest.mark.parametrize("name", STRATEGIES)
@pytest.mark.parametrize("guest", TWINS)
def test_naive_twin_counts_the_same_events(guest: str, name: str) -> None:
    stepped, whole = machine_of(guest, name), machine_of(guest, name)
    check_twin(stepped, 200_000)
    result = whole.run(MAX_CYCLES)
    assert np.array_equal(stepped.result().ledger.count, result.ledger.count)
    assert np.array_equal(stepped.result().ledger.ticks, result.ledger.ticks)


@pytest.mark.parametrize("name", STRATEGIES)
def test_naive_twin_on_a_kernel_of_many_events(name: str) -> None:
    check_twin(start(MIXED, name), 10_000)
