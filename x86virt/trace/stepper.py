"""The machine, one record at a time.

A step of the simulated processor is cut in two, so that an interrupt and the first instruction of its handler become
two records: with no instruction left to retire the processor does what its boundary asks for and stops; then one
instruction executes by itself. A halted processor gets a budget up to its next deadline.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ..core.layout import BUDGET, HOOK, MARK, NEVER, OK, RETIRED_LIMIT
from ..disassembly import decode_text
from ..inspection import TranslatedCode, View
from ..isa.events import EVENTS, MODE_NAMES, TICKS_PER_CYCLE
from ..vmm.exits import ERROR_CODE_VECTORS
from .filters import Filter
from .forward import Forward, forward_for
from .record import DELIVERIES, SOFTWARE_DELIVERIES, TRANSFERS, Charge, Delivery, ExitWork, Record, Transition
from .watched import Place, Watch

if TYPE_CHECKING:
    from ..machine import Machine

PAGE_FAULT = 14
DULL = 500  # records that are not shown, before the machine runs on at full speed


@dataclass(frozen=True)
class Limit:
    """A number of guest instructions, or of cycles."""

    number: int
    cycles: bool = False


def trace(
    machine: "Machine",
    begin: Limit | None = None,
    count: Limit | None = None,
    max_cycles: int | None = None,
    shown: Filter | None = None,
) -> Iterator[Record]:
    """The records of a loaded machine's run: from `begin` on, for `count`, to its end at the latest.

    What happened before `begin` is one record; up to there the machine runs at full speed. The last record is `end`; its
    outcome is `running` if the trace ended and the guest did not. With `shown`, long stretches that a filter would hide are
    passed at full speed, and are one record, `passed`; the machine must then have nobody to talk to, and no disk to write.
    """
    return Stepper(machine, max_cycles, shown).records(begin, count)


class Stepper:
    """Steps one machine."""

    def __init__(self, machine: "Machine", max_cycles: int | None, shown: Filter | None) -> None:
        self.shown = shown
        self.forward = forward_for(machine, shown)
        self.dull = 0  # records in a row that were not shown
        self.machine, self.processor = machine, machine.processor
        self.cpu = machine.processor.cpu
        self.max_cycles = max_cycles
        self.last_tick = NEVER if max_cycles is None else max_cycles * TICKS_PER_CYCLE
        # Views of single fields: reading them is several times as fast as through the record.
        state = machine.processor.state
        self.retired, self.ticks = state["retired"], state["ticks"]
        self.watch = Watch(machine)
        self.delivered: Delivery | None = None  # in the last step of an interpreted guest
        self.counts, self.times = state["ledger_count"][0], state["ledger_ticks"][0]
        self.seen_counts, self.seen_times = np.zeros_like(self.counts), np.zeros_like(self.times)
        self.seen_divergences = 0
        self.code_cache, self.view = TranslatedCode(machine), View(machine)

    def records(self, begin: Limit | None, count: Limit | None) -> Iterator[Record]:
        """See `trace`."""
        machine = self.machine
        self.skip(begin)
        self.processor.settle()
        yield self.record("before", self.place(), self.now())
        last = self.end_of(count)
        machine.retired_limit = NEVER
        while machine.outcome is None and not self.reached(last):
            if self.forward is not None and self.dull >= DULL:
                yield from self.pass_over(self.forward, last)
            for record in self.advance():
                self.dull = 0 if self.shown is None or self.shown.shows(record) else self.dull + 1
                yield record
        yield self.end()

    def pass_over(self, forward: Forward, last: Limit | None) -> Iterator[Record]:
        """Run past what is not shown, and try again only after as many dull records as now."""
        self.dull = 0
        place, now = self.place(), self.now()
        ticks = last.number if last is not None and last.cycles else NEVER
        forward.run(last.number if last is not None and not last.cycles else NEVER, min(ticks, self.last_tick))
        record = self.record("passed", place, now)
        if self.machine.probe is not None:
            self.seen_divergences = len(self.machine.probe.divergences)
        if record.charges:
            yield record

    def end(self) -> Record:
        """The last record; by now every cell of the ledger stands in some record, and the machine checks its sum."""
        self.cpu.retired_limit = self.machine.retired_limit
        if self.machine.outcome is not None:
            self.machine.dialogue.finish()
        result = self.machine.result()
        record = self.record("end", self.place(), self.now())
        record.outcome = result.outcome
        return record

    # -- where the trace begins and ends ------------------------------------------------------------------------------

    def skip(self, begin: Limit | None) -> None:
        """Run up to the first record without looking."""
        if begin is None or begin.number == 0:
            return
        if begin.cycles:
            self.machine.advance(NEVER, self.max_cycles, begin.number)
        else:
            self.machine.advance(begin.number, self.max_cycles)
        if self.machine.probe is not None:
            self.seen_divergences = len(self.machine.probe.divergences)

    def end_of(self, count: Limit | None) -> Limit | None:
        """The limit in instructions, or ticks, since power on."""
        if count is None:
            return None
        if count.cycles:
            return Limit(int(self.cpu.ticks) + count.number * TICKS_PER_CYCLE, True)
        return Limit(int(self.cpu.retired) + count.number)

    def reached(self, limit: Limit | None) -> bool:
        """Whether the trace is to end."""
        if limit is None:
            return False
        return int(self.cpu.ticks if limit.cycles else self.cpu.retired) >= limit.number

    # -- one step -----------------------------------------------------------------------------------------------------

    def advance(self) -> Iterator[Record]:
        """The boundary, then an instruction or a stretch of idle time."""
        place, now = self.place(), self.now()
        if not self.watch.now.cpu.begun:
            outcome = self.run(int(self.cpu.retired), self.last_tick, False)
            if outcome == HOOK:
                yield self.exit(place, now)
                return
            if outcome not in (RETIRED_LIMIT, OK):  # OK: the VMM's interpreter has given the guest back
                self.act(outcome)
            record = self.record("interrupt", place, now)
            if record.charges:
                self.note_transitions(record, place)
                yield record
            if self.machine.outcome is not None or outcome != RETIRED_LIMIT:
                return
            place, now = self.place(), self.now()
        yield self.idle(place, now) if self.watch.now.cpu.halted else self.instruction(place, now)

    def run(self, retired_limit: int, budget: int, single: bool) -> int:
        """One call of the processor."""
        self.cpu.retired_limit = retired_limit
        self.cpu.budget = budget
        self.delivered = None
        watched = self.watch.now
        if not watched.interpreted:
            return self.machine.run_guest(single)
        watched.expect_delivery()
        outcome = self.machine.run_guest(single)
        if watched.has_delivered():
            self.delivered = delivery_of(watched.cpu)
        return outcome

    def act(self, outcome: int) -> None:
        """Do what an outcome asks for; it may end the run."""
        with self.machine.ends_run():
            self.machine.act(outcome)

    def instruction(self, place: Place, now: tuple[int, int]) -> Record:
        """Execute one instruction."""
        translated = None if place.interpreted else self.code_cache.at(place.address)
        if translated is None:
            octets, text = self.bytes_and_text(place.address, place.bits, place.offset)
        else:
            octets, text = translated.octets, translated.text
        outcome = self.run(NEVER, self.last_tick, True)
        mark = int(self.watch.now.cpu.mark) if outcome == MARK else 0
        if outcome != OK:
            self.act(outcome)
        record = self.record("instruction", place, now)
        record.octets, record.text, record.translated = octets, text, translated
        self.note_transitions(record, place)
        if mark:
            record.remarks.append("a measured region begins" if mark == 1 else "the measured region ends")
        self.note_divergences(record)
        return record

    def idle(self, place: Place, now: tuple[int, int]) -> Record:
        """Pass the time of a halted processor up to the next deadline, and deliver what it brings."""
        deadline = max(int(self.watch.now.cpu.deadline), now[1] + 1)  # of all devices and timers, as the boundary has left it
        outcome = self.run(NEVER, min(self.last_tick, deadline), True)
        if outcome != BUDGET or int(self.cpu.ticks) >= self.last_tick:
            self.act(outcome)
        record = self.record("idle", place, now)
        record.mode = MODE_NAMES[3]
        self.note_transitions(record, place)
        return record

    def exit(self, place: Place, now: tuple[int, int]) -> Record:
        """Let the VMM serve an exit."""
        vm = self.machine.vm
        assert vm is not None, "only a VMM has entries"
        ring = vm.peek_cpl()
        vm.last_exit = vm.last_delivery = None
        self.act(HOOK)
        record = self.record("exit", place, now)
        exit = vm.last_exit
        if exit is None:  # the VMM could not even read it
            return record
        record.offset = record.address = exit.rip
        record.octets, text = self.bytes_and_text(exit.rip, 32, exit.rip)
        delivered = None
        if vm.last_delivery is not None:
            vector, error, kind = vm.last_delivery
            delivered = Delivery.of(vector, kind, error, vm.peek_cr2())
        record.exit = ExitWork(
            reason=exit.reason,
            vector=exit.vector,
            error=exit.qualification if exit.vector in ERROR_CODE_VECTORS else None,
            gla=exit.gla if exit.vector == PAGE_FAULT else None,
            ring_before=ring,
            ring_after=self.place().ring if vm.is_interpreted else vm.peek_cpl(),
            address_after=vm.eip(),
            emulated=text if int(self.cpu.retired) > now[0] else "",
            delivered=delivered,
            halted=bool(vm.vcpu.halted),
        )
        if vm.is_interpreted:
            record.remarks.append("from here on the VMM interprets the guest")
        self.note_divergences(record)
        return record

    # -- what a record says -------------------------------------------------------------------------------------------

    def now(self) -> tuple[int, int]:
        """Guest instructions retired, and ticks."""
        return int(self.retired[0]), int(self.ticks[0])

    def place(self) -> Place:
        """Where the processor is that executes the guest."""
        return self.watch.now.place()

    def guest_place(self) -> Place:
        """Where the guest goes on as the VMM's interpreter gives it back: the processor is still on the way there."""
        vm = self.machine.vm
        assert vm is not None, "only a VMM interprets"
        return replace(self.place(), ring=vm.peek_cpl(), address=vm.linear_eip(), offset=vm.eip())

    def record(self, kind: str, place: Place, now: tuple[int, int]) -> Record:
        """A record of what the ledger got since the last one."""
        changed = np.argwhere((self.counts != self.seen_counts) | (self.times != self.seen_times))
        charges = []
        for number, mode in changed.tolist():
            count = int(self.counts[number, mode]) - int(self.seen_counts[number, mode])
            ticks = int(self.times[number, mode]) - int(self.seen_times[number, mode])
            charges.append(Charge(EVENTS[number].name, MODE_NAMES[mode], count, ticks))
        if charges:
            self.seen_counts[:], self.seen_times[:] = self.counts, self.times
        return Record(
            kind, *now, place.ring, place.mode, place.processor_mode, place.selector, place.offset, place.address,
            charges=tuple(charges), interpreted=place.interpreted,
        )  # fmt: skip

    def bytes_and_text(self, address: int, bits: int, offset: int) -> tuple[bytes, str]:
        """Bytes and text of the instruction at a linear address; `offset` is its EIP."""
        octets = self.machine.bytes_at(address, 15) or self.view.read(address, 15)  # translated code is never fetched
        if not octets:
            return b"", "(not mapped)"
        length, text = decode_text(octets, offset, bits)
        return octets[:length], text

    def note_transitions(self, record: Record, place: Place) -> None:
        """Deliveries, and other changes of ring, processor mode or task."""
        handed_over = place.interpreted and not self.watch.now.interpreted
        after = self.guest_place() if handed_over else self.place()
        deliveries = [
            self.delivery(charge.event, record, last=number == 0)
            for number, charge in enumerate(reversed([c for c in record.charges if c.event in DELIVERIES]))
        ]
        if self.delivered is not None:
            deliveries = [self.delivered]
        facts = (place.ring, after.ring, place.processor_mode, after.processor_mode, after.address)
        for delivery in reversed(deliveries):
            record.transitions.append(Transition(delivery.text, *facts, delivery))
        transfers = [TRANSFERS[charge.event] for charge in record.charges if charge.event in TRANSFERS]
        changed = place.ring != after.ring or place.processor_mode != after.processor_mode
        if not deliveries and (transfers or changed):
            what = transfers[0] if transfers else record.text.split()[0].upper()
            record.transitions.append(Transition(what, *facts))
        if handed_over:
            record.transitions.append(Transition("the VMM lets the guest run on the processor", *facts))

    def delivery(self, event: str, record: Record, last: bool) -> Delivery:
        """The event that was delivered. The processor still knows the last one; of one before, the ledger tells."""
        cpu = self.cpu
        known = DELIVERIES[event]
        if last or known is None:
            return delivery_of(cpu)
        if event in SOFTWARE_DELIVERIES and record.octets:
            return Delivery(record.octets[-1], "software_interrupt")
        return Delivery(known, "exception")

    def note_divergences(self, record: Record) -> None:
        """What the probe found in this step."""
        if self.machine.probe is None:
            return
        found = self.machine.probe.divergences
        record.divergences = [str(divergence) for divergence in found[self.seen_divergences :]]
        self.seen_divergences = len(found)


def delivery_of(cpu: np.record) -> Delivery:
    """The event that a processor delivered last."""
    error = int(cpu.event_error) if cpu.event_has_error else None
    return Delivery.of(int(cpu.event_vector), int(cpu.event_kind), error, int(cpu.cr2))
