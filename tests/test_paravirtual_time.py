"""Time as domains have it: the scale, timers to the tick, run states, the scheduler's choices."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paravirtual_rig import ROOM, Domains

from x86virt.core.layout import NEVER
from x86virt.vmm.paravirtual.clock import FAR, scale_of
from x86virt.vmm.paravirtual.domain_start import set_wall_clock
from x86virt.vmm.paravirtual.loop import SERVE

EFAULT, EINVAL, ENOENT, EEXIST, ENOSYS, ETIME, EPERM, ESRCH = 14, 22, 2, 17, 38, 62, 1, 3
YIELD, BLOCK, SHUTDOWN, POLL, REMOTE_SHUTDOWN, SHUTDOWN_CODE = range(6)
RUNNING, RUNNABLE, BLOCKED, OFFLINE = range(4)
HOST_TIMER = 0xF0
MILLISECOND = 10**6
SLICE = 10 * MILLISECOND
ENDED = 1001
GET_RUNSTATE, RUNSTATE_AREA, SET_PERIODIC, STOP_PERIODIC, SET_SINGLESHOT, STOP_SINGLESHOT, REGISTER_INFO = range(4, 11)
TIME_AREA = 13
TIME = 32  # of the record in the virtual processor's


@pytest.fixture
def rig() -> Domains:
    """Domains of which 1 runs and the others are blocked, without tickers."""
    domains = Domains()
    domains.xen.period[:] = 0
    domains.switch(1)
    return domains


def now(rig: Domains) -> int:
    """System time by the formula of the interface, in exact arithmetic."""
    return time_of(rig, int(rig.cpu.ticks) >> 6)


def time_of(rig: Domains, cycles: int) -> int:
    """Nanoseconds of so many cycles."""
    shift = int(rig.xen.tsc_shift)
    shifted = cycles << shift if shift >= 0 else cycles >> -shift
    return shifted * int(rig.xen.tsc_multiplier) >> 32


def record(rig: Domains, index: int | None = None) -> tuple[int, int, int, int, int]:
    """Version, time stamp, system time, multiplier and shift of a domain's record."""
    fields = ((0, 4), (8, 8), (16, 8), (24, 4), (28, 1))
    return tuple(rig.shared(TIME + offset, n, index) for offset, n in fields)


def host_timer(rig: Domains) -> None:
    """The interrupt of the host's timer, at its tick."""
    rig.cpu.ticks = max(int(rig.cpu.ticks), int(rig.cpu.timer))
    rig.cpu.timer = NEVER
    rig.xen.vector = HOST_TIMER
    rig.vm.part(SERVE)
    rig.leave()


def bind_timer(rig: Domains) -> int:
    """The current domain's port of VIRQ_TIMER, unmasked."""
    result, words = rig.with_words("event_channel_op", 1, 0, 0, 0)
    assert result == 0
    assert rig.with_words("event_channel_op", 9, words[2])[0] == 0
    return words[2]


def states(rig: Domains) -> list[int]:
    """The run states of all."""
    return [int(domain.run_state) for domain in rig.vm.domains]


# -- the scale ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(hertz=st.integers(10**6, 10**10))
def test_the_scale_is_close(hertz: int) -> None:
    """32 bits of multiplier; the error is below that of the bits which a fast clock loses."""
    multiplier, shift = scale_of(hertz)
    assert 1 << 31 <= multiplier < 1 << 32
    factor = Fraction(multiplier, 1 << 32) * Fraction(2) ** shift
    assert abs(factor * hertz / 10**9 - 1) < Fraction(1, 10**8)


@settings(max_examples=300, deadline=None)
@given(hertz=st.integers(33 * 10**6, 5 * 10**9), time=st.integers(0, FAR - 1))
def test_a_deadline_is_the_first_tick_that_reaches_it(hertz: int, time: int) -> None:
    """Exactly: one cycle before it, system time is less."""
    domains = shared()
    domains.xen.tsc_multiplier, domains.xen.tsc_shift = scale_of(hertz)
    domains.xen.deadline[:] = domains.xen.poll_deadline[:] = NEVER
    assert domains.call("set_timer_op", time & 0xFFFFFFFF, time >> 32) == 0
    if time == 0:
        assert domains.cpu.timer == NEVER
        return
    cycles, rest = divmod(int(domains.cpu.timer), 64)
    assert rest == 0 and time_of(domains, cycles) >= time
    assert cycles == 0 or time_of(domains, cycles - 1) < time


SHARED: list[Domains] = []


def shared() -> Domains:
    """A rig of its own for what changes the clock."""
    if not SHARED:
        SHARED.append(Domains())
        SHARED[0].xen.period[:] = 0
        SHARED[0].switch(1)
    domains = SHARED[0]
    domains.cpu.ticks = 0
    domains.xen.slice_end = FAR
    return domains


# -- the record -------------------------------------------------------------------------------------------------------------


def test_the_record_tells_the_time(rig: Domains) -> None:
    """What a guest works out of the record and its time-stamp counter is system time, to the rounding of more sums."""
    version, stamp, system, multiplier, shift = record(rig)
    assert version % 2 == 0 and version > 0
    assert (multiplier, shift) == (int(rig.xen.tsc_multiplier), int(rig.xen.tsc_shift) & 0xFF)
    assert system == time_of(rig, stamp)
    rig.cpu.ticks += 64 * 10**9
    later = int(rig.cpu.ticks) >> 6
    assert 0 <= now(rig) - (system + time_of(rig, later - stamp)) <= 2


def test_each_update_makes_a_version(rig: Domains) -> None:
    """Even ones, each greater than the last."""
    versions = []
    for _ in range(3):
        rig.switch(2)
        rig.switch(1)
        versions.append(record(rig)[0])
    assert versions == sorted(set(versions)) and not any(version % 2 for version in versions)


def test_the_wall_clock_is_the_machines(rig: Domains) -> None:
    """Seconds since 1970 as system time was 0; whoever sets the clock of the machine sets it."""
    cmos = rig.vm.board.cmos
    before = rig.shared(2308, 4)
    cmos.calendar += 1000
    set_wall_clock(rig.vm)
    assert [rig.shared(2308, 4, index) - before for index in range(3)] == [1000] * 3
    assert rig.shared(2304, 4) % 2 == 0 and rig.shared(2312, 4) < 10**9


# -- timers -----------------------------------------------------------------------------------------------------------------


def test_the_timer_fires_once(rig: Domains) -> None:
    """At its tick, not before; the record of time is fresh then."""
    port = bind_timer(rig)
    deadline = now(rig) + 3 * MILLISECOND
    assert rig.call("set_timer_op", deadline & 0xFFFFFFFF, deadline >> 32) == 0
    due = int(rig.cpu.timer)
    assert time_of(rig, due >> 6) >= deadline > time_of(rig, (due >> 6) - 1)
    rig.cpu.ticks = due - 64
    rig.xen.vector = HOST_TIMER
    rig.vm.part(SERVE)  # one that comes early finds nothing that is due
    rig.leave()
    host_timer(rig)
    assert rig.shared(2048, 4) == 1 << port and rig.cpu.timer == NEVER
    assert record(rig)[2] >= deadline
    rig.set_shared(2048, 4, 0)
    host_timer_without_deadline(rig)
    assert rig.shared(2048, 4) == 0


def host_timer_without_deadline(rig: Domains) -> None:
    """One more interrupt, much later."""
    rig.cpu.ticks += 64 * 10**9
    rig.xen.vector = HOST_TIMER
    rig.vm.part(SERVE)
    rig.leave()


@pytest.mark.parametrize("offset", [0, -1, -(10**9)])
def test_a_deadline_that_has_passed_is_due_at_once(rig: Domains, offset: int) -> None:
    """The interrupt comes as soon as the domain goes on."""
    bind_timer(rig)
    rig.cpu.ticks += 64 * 10**10
    deadline = now(rig) + offset
    rig.call("set_timer_op", deadline & 0xFFFFFFFF, deadline >> 32)
    assert rig.cpu.timer <= rig.cpu.ticks


@pytest.mark.parametrize(("low", "high"), [(0, 1 << 31), (0xFFFFFFFF, 0xFFFFFFFF), (0, 1 << 20)])
def test_a_deadline_that_nobody_can_mean_comes_soon(rig: Domains, low: int, high: int) -> None:
    """A tenth of a second from now."""
    before = now(rig)
    rig.call("set_timer_op", low, high)
    assert 100 * MILLISECOND <= int(rig.xen.deadline[1]) - before < 101 * MILLISECOND


def test_single_shots(rig: Domains) -> None:
    """The same timer by vcpu_op; a moment that has passed is refused if the caller says so."""
    deadline = now(rig) + MILLISECOND
    rig.put(ROOM, deadline & 0xFFFFFFFF, deadline >> 32, 1)
    assert rig.call("vcpu_op", SET_SINGLESHOT, 0, ROOM) == 0 and int(rig.xen.deadline[1]) == deadline
    assert rig.call("vcpu_op", STOP_SINGLESHOT, 0, 0) == 0 and rig.cpu.timer == NEVER
    rig.cpu.ticks += 64 * 10**8
    assert rig.call("vcpu_op", SET_SINGLESHOT, 0, ROOM) == -ETIME
    rig.put(ROOM, deadline & 0xFFFFFFFF, deadline >> 32, 0)
    assert rig.call("vcpu_op", SET_SINGLESHOT, 0, ROOM) == 0 and rig.cpu.timer <= rig.cpu.ticks


def test_a_periodic_timer_ticks_while_its_domain_runs(rig: Domains) -> None:
    """And makes up with one tick for what it missed while it did not."""
    port = bind_timer(rig)
    rig.put(ROOM, 2 * MILLISECOND, 0)
    assert rig.call("vcpu_op", SET_PERIODIC, 0, ROOM) == 0
    for _ in range(3):
        before = now(rig)
        host_timer(rig)
        assert 0 < now(rig) - before <= 2 * MILLISECOND + 10**4
        assert rig.shared(2048, 4) == 1 << port
        rig.set_shared(2048, 4, 0)
        rig.set_shared(0, 1, 0)
        rig.set_shared(4, 4, 0)
    rig.switch(2)
    assert rig.cpu.timer == NEVER
    rig.cpu.ticks += 64 * 10**9
    rig.switch(1)
    assert rig.shared(2048, 4) == 1 << port and rig.cpu.timer > rig.cpu.ticks
    assert rig.call("vcpu_op", STOP_PERIODIC, 0, 0) == 0 and rig.cpu.timer == NEVER


def test_a_domain_starts_with_a_ticker() -> None:
    """A hundred times a second from the start, which it notices from when it binds the interrupt."""
    domains = Domains()
    domains.switch(1)
    assert domains.cpu.timer == NEVER
    domains.cpu.ticks = int(domains.cpu.ticks) + 64 * 10**8
    before = now(domains)
    bind_timer(domains)
    assert domains.shared(2048, 4) == 0
    domains.xen.slice_end = FAR
    due = time_of(domains, int(domains.cpu.timer) >> 6)
    assert before < due <= before + 10 * MILLISECOND and due // MILLISECOND % 10 == 0


@pytest.mark.parametrize(("low", "high"), [(0, 0), (MILLISECOND - 1, 0), (0, 1 << 18), (0, 0xFFFFFFFF)])
def test_periods_that_are_refused(rig: Domains, low: int, high: int) -> None:
    """Below a millisecond, or beyond all sense."""
    rig.put(ROOM, low, high)
    assert rig.call("vcpu_op", SET_PERIODIC, 0, ROOM) == -EINVAL and int(rig.xen.period[1]) == 0


# -- vcpu_op ----------------------------------------------------------------------------------------------------------------


def test_run_states_add_up(rig: Domains) -> None:
    """The times in all states are the time since the first."""
    entered = int(rig.xen.state_entry[1])
    assert entered > 0
    rig.cpu.ticks += 64 * 12345678
    assert rig.call("vcpu_op", GET_RUNSTATE, 0, ROOM) == 0
    words = rig.get(ROOM, 11)
    assert words[0] == RUNNING and words[1] | words[2] << 32 == entered
    times = [words[place] | words[place + 1] << 32 for place in (3, 5, 7, 9)]
    assert sum(times) == pytest.approx(now(rig), abs=10**5) and times[RUNNING] >= time_of(rig, 12345678)
    assert sum(times) <= now(rig)


def test_areas_are_kept_up(rig: Domains) -> None:
    """Run states and time, at linear addresses, whenever the domain begins to run."""
    rig.put(ROOM, ROOM + 0x100)
    assert rig.call("vcpu_op", RUNSTATE_AREA, 0, ROOM) == 0 and rig.get(ROOM + 0x100, 1) == [RUNNING]
    rig.put(ROOM, ROOM + 0x200)
    assert rig.call("vcpu_op", TIME_AREA, 0, ROOM) == 0
    version = rig.get(ROOM + 0x200, 1)[0]
    rig.switch(2)
    rig.cpu.ticks += 64 * 10**7
    rig.switch(1)
    words = rig.get(ROOM + 0x100, 11)
    assert words[5] + words[7] >= time_of(rig, 10**7)  # it did not run meanwhile
    assert rig.get(ROOM + 0x200, 1)[0] > version
    for command in (RUNSTATE_AREA, TIME_AREA):
        for address in (0xFC000000, 0xFFFFFFFF, 0xFBFFFFF0):
            rig.put(ROOM, address)
            assert rig.call("vcpu_op", command, 0, ROOM) == -EFAULT


def test_the_record_of_the_processor_may_move(rig: Domains) -> None:
    """Once, to a frame of the domain's own that nobody uses as a table; nothing is lost on the way."""
    page = 0xD
    for frame, offset in ((rig.frame(0, 2), 0), (0, 0), (rig.frame(page), 0x1000 - 63), (0xFFFFF, 0)):
        rig.put(ROOM, frame, 0, offset, 0)
        assert rig.call("vcpu_op", REGISTER_INFO, 0, ROOM) == -EINVAL
    rig.put(ROOM, rig.frame(page), 0, 64, 0)
    assert rig.call("vcpu_op", REGISTER_INFO, 0, ROOM) == 0
    assert rig.get((page << 12) + 64, 2) == [0x101, 0xFFFFFFFF]
    assert rig.get((page << 12) + 64 + TIME, 1)[0] % 2 == 0
    assert rig.call("vcpu_op", REGISTER_INFO, 0, ROOM) == -EINVAL
    result, words = rig.with_words("event_channel_op", 7, 0, 0)
    rig.put((page << 12) + 64, 0x100, 0)
    rig.with_words("event_channel_op", 9, words[1])
    rig.with_words("event_channel_op", 4, words[1])
    assert rig.get((page << 12) + 64, 2) == [0x101, 1]
    assert rig.call("sched_op", BLOCK, 0) == 0
    assert rig.xen.idle == 0 and rig.get((page << 12) + 64, 1) == [0x101]  # an event waits


def test_there_is_one_processor(rig: Domains) -> None:
    """It is up, and nothing can be initialised."""
    assert rig.call("vcpu_op", 3, 0, 0) == 1
    assert rig.call("vcpu_op", 3, 1, 0) == -ENOENT
    assert rig.call("vcpu_op", 3, 32, 0) == -EINVAL
    assert rig.call("vcpu_op", 0, 0, 0) == -EEXIST
    assert rig.call("vcpu_op", 1, 0, 0) == 0
    assert rig.call("vcpu_op", 12, 0, 0) == -EINVAL
    assert rig.call("vcpu_op", 99, 0, 0) == -ENOSYS


@pytest.mark.parametrize("command", [SET_PERIODIC, SET_SINGLESHOT, REGISTER_INFO, RUNSTATE_AREA, TIME_AREA, GET_RUNSTATE])
@pytest.mark.parametrize("address", [0xFC000000, 0xFFFFFFFF, 0x700000])
def test_structures_that_are_not_there(command: int, address: int) -> None:
    """-EFAULT, whatever the operation."""
    assert shared().call("vcpu_op", command, 0, address) == -EFAULT


# -- the scheduler ----------------------------------------------------------------------------------------------------------


def test_who_blocks_leaves_the_processor(rig: Domains) -> None:
    """To the next that can run; to nobody, and the machine is idle; an event brings it back."""
    rig.vm.domains[2].run_state = RUNNABLE
    assert rig.call("sched_op", BLOCK, 0) == 0
    assert rig.current == 2 and states(rig) == [BLOCKED, BLOCKED, RUNNING]
    assert rig.shared(1, 1, 1) == 0  # block unmasks events
    rig.call("sched_op", BLOCK, 0)
    assert rig.xen.idle == 1 and states(rig) == [BLOCKED] * 3
    rig.xen.deadline[1] = now(rig) + MILLISECOND
    rig.vm.domains[1].virq_port[0] = 5
    rig.set_shared(2176, 4, 0, 1)
    rig.cpu.ticks += 64 * 10**7
    host_timer_without_deadline(rig)
    assert rig.current == 1 and rig.xen.idle == 0 and states(rig)[1] == RUNNING


def test_block_does_not_lose_an_event(rig: Domains) -> None:
    """One that waits already: the domain goes on at once."""
    rig.set_shared(0, 2, 0x101)
    assert rig.call("sched_op", BLOCK, 0) == 0
    assert rig.current == 1 and rig.shared(1, 1) == 1  # the upcall is delivered, and masks events


def pair(rig: Domains) -> tuple[int, int]:
    """Ports of domains 1 and 2 that are joined and not masked; domain 1 is current."""
    _, words = rig.quietly("event_channel_op", 6, 0x7FF0 | 2 << 16, 0)
    first = words[1]
    rig.switch(2)
    _, words = rig.quietly("event_channel_op", 0, 1, first, 0)
    rig.set_shared(2048, 4, 0)
    rig.set_shared(2176, 4, 0)
    rig.switch(1)
    return first, words[2]


def test_a_woken_domain_preempts(rig: Domains) -> None:
    """And is itself not preempted within its slice; who was preempted comes after it."""
    first, second = pair(rig)
    rig.with_words("event_channel_op", 4, first)
    assert rig.current == 2 and states(rig) == [BLOCKED, RUNNABLE, RUNNING]
    rig.xen.period[:] = 0
    rig.with_words("event_channel_op", 4, second)
    assert rig.current == 2
    rig.vm.domains[0].run_state, rig.vm.domains[0].boosted = RUNNABLE, 1
    schedule(rig)
    assert rig.current == 2  # it was woken itself
    rig.xen.slice_end = now(rig)
    schedule(rig)
    assert rig.current == 0
    rig.vm.domains[0].run_state = BLOCKED
    schedule(rig)
    assert rig.current == 1 and states(rig)[1] == RUNNING


def schedule(rig: Domains) -> None:
    """Something has asked for the scheduler."""
    rig.xen.asked |= 2
    rig.leave()


def test_domains_take_turns(rig: Domains) -> None:
    """By a slice, when more than one can run; nobody is interrupted for a slice when it is alone."""
    assert rig.cpu.timer == NEVER
    rig.vm.domains[2].run_state = RUNNABLE
    rig.xen.slice_end = now(rig) + SLICE
    rig.call("sched_op", 99)
    rig.xen.asked |= 16
    rig.leave()
    order = []
    for _ in range(4):
        before = now(rig)
        host_timer(rig)
        order.append(rig.current)
        assert SLICE - MILLISECOND < now(rig) - before < SLICE + MILLISECOND
    assert order == [2, 1, 2, 1]


def test_who_yields_lets_others_go_first(rig: Domains) -> None:
    """Once; alone, it goes on."""
    rig.xen.slice_end = now(rig) + SLICE
    assert rig.call("sched_op", YIELD, 0) == 0 and rig.current == 1
    rig.vm.domains[0].run_state = RUNNABLE
    schedule(rig)
    assert rig.current == 1
    assert rig.call("sched_op_compat", YIELD, 0) == 0
    assert rig.current == 0 and states(rig) == [RUNNING, RUNNABLE, BLOCKED]
    assert rig.call("sched_op", YIELD, 0) == 0 and rig.current == 1


def test_registers_are_a_domains_own(rig: Domains) -> None:
    """General registers, frame, kernel stack, page tables and modes of the ledger come and go with it."""
    seen = {}
    for index in (1, 2, 0):
        rig.switch(index)
        domain = rig.vm.domains[index]
        domain.kernel_esp, domain.kernel_ss, domain.eip, domain.esp = 0x5000 + index, 0xE021, 0x10000 + index, 0x6000 + index
        rig.cpu.gpr[:8] = [0x1000 * index + number for number in range(8)]
        seen[index] = int(rig.cpu.cr3)
    assert len(set(seen.values())) == 3
    for index in (1, 0, 2, 1):
        rig.switch(index)
        assert rig.cpu.gpr[:4].tolist() == [0x1000 * index + number for number in range(4)]
        assert int(rig.cpu.cr3) == seen[index]
        tss = rig.machine.processor.read_physical(0xC0000, 104)
        assert int.from_bytes(tss[12:16], "little") == 0x5000 + index
        assert int.from_bytes(tss[102:104], "little") == (0x1000 if index == 0 else 0x8000)
        assert rig.cpu.mode_table[1:4].tolist() == ([4, 4, 4] if index == 0 else [1, 1, 0])


def use_x87(rig: Domains) -> None:
    """#NM of the current domain."""
    rig.xen.vector, rig.xen.from_guest = 7, 1
    rig.vm.part(SERVE)
    rig.leave()


def test_x87_state_follows_its_user(rig: Domains) -> None:
    """CR0.TS is set for all but the owner."""
    switched = 8
    assert rig.cpu.cr0 & switched
    use_x87(rig)
    assert not rig.cpu.cr0 & switched and rig.xen.fpu_owner == 1
    rig.cpu.fpu_value[3]["high"], rig.cpu.fpu_control, rig.cpu.fpu_occupied = 0x80000000, 0x27F, 8
    rig.switch(2)
    assert rig.cpu.cr0 & switched
    rig.switch(1)
    assert not rig.cpu.cr0 & switched
    rig.switch(2)
    use_x87(rig)
    assert rig.xen.fpu_owner == 2 and rig.cpu.fpu_control == 0x37F and rig.cpu.fpu_value[3]["high"] == 0
    rig.switch(1)
    use_x87(rig)
    assert (int(rig.cpu.fpu_value[3]["high"]), int(rig.cpu.fpu_control), int(rig.cpu.fpu_occupied)) == (0x80000000, 0x27F, 8)


# -- sched_op ---------------------------------------------------------------------------------------------------------------


def test_polling(rig: Domains) -> None:
    """Until one of the ports has something pending, masked or not, or until a time."""
    _, words = rig.quietly("event_channel_op", 7, 0, 0)
    port = words[1]
    rig.put(ROOM + 0x40, port)
    rig.put(ROOM, ROOM + 0x40, 1, 0, 0)
    assert rig.call("sched_op", POLL, ROOM) == 0 and rig.xen.idle == 1
    rig.vm.domains[2].run_state = RUNNABLE
    rig.xen.asked |= 2
    rig.leave()
    assert rig.current == 2 and states(rig)[1] == BLOCKED
    rig.vm.domains[1].virq_port[0] = port  # masked
    rig.xen.deadline[1] = 1
    host_timer_without_deadline(rig)
    assert rig.current == 1 and rig.shared(2048, 4) == 1 << port
    assert rig.call("sched_op", POLL, ROOM) == 0 and rig.current == 1  # it is pending still
    rig.set_shared(2048, 4, 0)
    deadline = now(rig) + MILLISECOND
    rig.put(ROOM, ROOM + 0x40, 1, deadline & 0xFFFFFFFF, deadline >> 32)
    rig.vm.domains[2].run_state = BLOCKED
    assert rig.call("sched_op", POLL, ROOM) == 0 and rig.xen.idle == 1
    host_timer(rig)
    assert rig.xen.idle == 0 and deadline <= now(rig) < deadline + 10**4
    for ports, first, outcome in ((129, ROOM, -EINVAL), (1, 0xFC000000, -EFAULT), (2, ROOM, -EINVAL)):
        rig.put(ROOM, first, ports, 0, 0)
        assert rig.call("sched_op", POLL, ROOM) == outcome and rig.current == 1


def test_shutting_down(rig: Domains) -> None:
    """The run ends when no guest is left; domain 0 is told of each."""
    rig.vm.domains[0].virq_port[3] = 9
    rig.vm.domains[2].run_state = RUNNABLE
    rig.put(ROOM, 0)
    assert rig.call("sched_op", SHUTDOWN, 0xFC000000) == -EFAULT
    assert rig.call("sched_op", SHUTDOWN, ROOM) == 0
    assert rig.current == 2 and states(rig)[1] == OFFLINE and rig.shared(2048, 4, 0) == 1 << 9
    rig.serve("sched_op_compat", SHUTDOWN, 1)
    assert rig.leave() == ENDED and int(rig.vm.domains[2].shutdown_code) == 1


def test_domain_0_may_end_another(rig: Domains) -> None:
    """Others may not."""
    rig.put(ROOM, 2, 0)
    assert rig.call("sched_op", REMOTE_SHUTDOWN, ROOM) == -EPERM
    rig.switch(0)
    rig.put(ROOM, 7, 0)
    assert rig.call("sched_op", REMOTE_SHUTDOWN, ROOM) == -ESRCH
    rig.put(ROOM, 2, 4)
    assert rig.call("sched_op", REMOTE_SHUTDOWN, ROOM) == 0
    assert states(rig)[2] == OFFLINE and int(rig.vm.domains[2].shutdown_code) == 4


def test_a_crash_is_named(rig: Domains) -> None:
    """Shutting down as crashed ends the run."""
    rig.put(ROOM, 3)
    rig.serve("sched_op", SHUTDOWN, ROOM)
    rig.vm.go_on(rig.leave())
    assert str(rig.machine.outcome).startswith("crashed: ")
