"""Event channels against a model that knows the interface alone, and the upcall's conditions."""

from __future__ import annotations

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from paravirtual_rig import FRAMES, ROOM, Domains

from x86virt.isa.events import EVENT_ID, MODE_VMM

SELF = 0x7FF0
EPERM, ENOENT, ESRCH, EFAULT, EEXIST, EBUSY, EINVAL, ENOSYS = 1, 2, 3, 14, 17, 16, 22, 38
(
    BIND_INTERDOMAIN, BIND_VIRQ, BIND_PIRQ, CLOSE, SEND, STATUS, ALLOC_UNBOUND, BIND_IPI, BIND_VCPU, UNMASK, RESET,
) = range(11)  # fmt: skip
CLOSED, UNBOUND, INTERDOMAIN, PIRQ, VIRQ, IPI = range(6)
PER_VCPU = (0, 1, 7)
PENDING, MASK, SELECTOR = 2048, 2176, 4
N_PORTS = 1024
PRIVILEGED = 0

RIG: list[Domains] = []


def rig() -> Domains:
    """One rig for all."""
    if not RIG:
        RIG.append(Domains())
    return RIG[0]


class Model:
    """What a domain knows of its events, from the interface's own words."""

    def __init__(self) -> None:
        self.ports: dict[int, tuple] = {}  # port -> (state, remote domain, port or number)
        self.pending: set[int] = set()
        self.mask: set[int] = set(range(N_PORTS))
        self.selector: set[int] = set()
        self.upcall = False

    def free(self) -> int:
        """The port that is given out next."""
        return next(port for port in range(1, N_PORTS) if port not in self.ports)

    def raise_event(self, port: int) -> None:
        """An event comes."""
        if port not in self.pending:
            self.pending.add(port)
            if port not in self.mask:
                self.select(port)

    def select(self, port: int) -> None:
        """It is not masked."""
        if port // 32 not in self.selector:
            self.selector.add(port // 32)
            self.upcall = True


domains = st.integers(0, 2)
names = st.sampled_from([0, 1, 2, SELF, SELF, SELF, 3, 0x7FF1])
remotes = st.sampled_from([0, 1, 2, 0, 1, 2, SELF, 0x7FF1])
odd_ports = (0, 31, 32, 33, 1023, 1024, 0xFFFFFFFF)
seldom = st.sampled_from([False, False, False, False, False, True])


@settings(max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
class Channels(RuleBasedStateMachine):
    """Operations of three domains, of which one is privileged, in any order."""

    @initialize()
    def begin(self) -> None:
        """All ports closed, nothing pending, all masked."""
        self.rig, self.models = rig(), [Model() for _ in range(3)]
        for index in range(3):
            self.rig.switch(index)
            assert self.rig.quietly("event_channel_op", RESET, SELF)[0] == 0
            for word in range(32):
                self.rig.set_shared(PENDING + 4 * word, 4, 0)
                self.rig.set_shared(MASK + 4 * word, 4, 0xFFFFFFFF)
            self.rig.set_shared(0, 1, 0)
            self.rig.set_shared(SELECTOR, 4, 0)

    def perform(self, index: int, command: int, *words: int) -> tuple[int, list[int]]:
        """An operation of a domain's."""
        self.rig.switch(index)
        return self.rig.quietly("event_channel_op", command, *words)

    def some_port(self, data: st.DataObject, index: int) -> int:
        """A port of a domain's, mostly one that is in use."""
        used = sorted(self.models[index].ports)
        if not used or data.draw(seldom):
            used = [*odd_ports, *range(1, 6)]
        return data.draw(st.sampled_from(used))

    def named(self, index: int, domid: int) -> int | None:
        """The domain that a number means."""
        if domid == SELF:
            return index
        return domid if domid < 3 else None

    @rule(index=domains, domid=names, remote=remotes)
    def alloc_unbound(self, index: int, domid: int, remote: int) -> None:
        """A port for another to bind to."""
        owner = self.named(index, domid)
        result, words = self.perform(index, ALLOC_UNBOUND, domid | remote << 16, 0)
        if owner is None:
            assert result == -ESRCH
        elif owner != index and index != PRIVILEGED:
            assert result == -EPERM
        else:
            model = self.models[owner]
            port = model.free()
            assert (result, words[1]) == (0, port)
            model.ports[port] = (UNBOUND, index if remote == SELF else remote, 0)

    @rule(index=domains, data=st.data())
    def bind_interdomain(self, index: int, data: st.DataObject) -> None:
        """Bind to what another has kept, mostly for this domain."""
        kept = [(end, port) for end in range(3) for port, use in self.models[end].ports.items() if use[:2] == (UNBOUND, index)]
        if kept and not data.draw(seldom):
            domid, port = data.draw(st.sampled_from(kept))
        else:
            domid = data.draw(names)
            port = self.some_port(data, domid if domid < 3 else index)
        self.bind(index, domid, port)

    @rule(index=domains, remote=domains, masked=st.booleans())
    def connect(self, index: int, remote: int, masked: bool) -> None:
        """A domain keeps a port for another, which binds to it when a third has tried in vain."""
        model = self.models[index]
        port = model.free()
        assert self.perform(index, ALLOC_UNBOUND, SELF | remote << 16, 0) == (0, [SELF | remote << 16, port])
        model.ports[port] = (UNBOUND, remote, 0)
        self.bind((remote + 1) % 3, index, port)
        self.set_mask(index, port, masked)
        self.set_mask(remote, self.models[remote].free(), masked)
        self.bind(remote, index, port)

    def bind(self, index: int, domid: int, port: int) -> None:
        """Bind to a port of a domain's."""
        remote, model = self.named(index, domid), self.models[index]
        result, words = self.perform(index, BIND_INTERDOMAIN, domid, port, 0)
        if remote is None:
            assert result == -ESRCH
        elif self.models[remote].ports.get(port, (CLOSED,))[:2] != (UNBOUND, index):
            assert result == -EINVAL
        else:
            local = model.free()
            assert (result, words[2]) == (0, local)
            model.ports[local] = (INTERDOMAIN, remote, port)
            self.models[remote].ports[port] = (INTERDOMAIN, index, local)
            model.raise_event(local)

    @rule(index=domains, virq=st.integers(0, 25), vcpu=st.sampled_from([0, 0, 0, 1, 0xFFFFFFFF]))
    def bind_virq(self, index: int, virq: int, vcpu: int) -> None:
        """A port for a virtual interrupt."""
        model = self.models[index]
        result, words = self.perform(index, BIND_VIRQ, virq, vcpu, 0)
        if virq >= 24 or (virq not in PER_VCPU and vcpu):
            assert result == -EINVAL
        elif vcpu:
            assert result == -ENOENT
        elif (VIRQ, 0, virq) in model.ports.values():
            assert result == -EEXIST
        else:
            assert (result, words[2]) == (0, model.free())
            model.ports[model.free()] = (VIRQ, 0, virq)

    @rule(index=domains, vcpu=st.sampled_from([0, 0, 1]))
    def bind_ipi(self, index: int, vcpu: int) -> None:
        """A port to oneself."""
        model = self.models[index]
        result, words = self.perform(index, BIND_IPI, vcpu, 0)
        if vcpu:
            assert result == -ENOENT
        else:
            assert (result, words[1]) == (0, model.free())
            model.ports[model.free()] = (IPI, 0, 0)

    @rule(index=domains, pirq=st.integers(0, 17))
    def bind_pirq(self, index: int, pirq: int) -> None:
        """A line of the machine's, which domain 0 alone may have."""
        model = self.models[index]
        result, words = self.perform(index, BIND_PIRQ, pirq, 0, 0)
        if pirq >= 16:
            assert result == -EINVAL
        elif index != PRIVILEGED:
            assert result == -EPERM
        elif (PIRQ, 0, pirq) in model.ports.values():
            assert result == -EEXIST
        elif pirq in (0, 2):
            assert result == -EBUSY
        else:
            assert (result, words[2]) == (0, model.free())
            model.ports[model.free()] = (PIRQ, 0, pirq)

    @rule(index=domains, data=st.data())
    def close(self, index: int, data: st.DataObject) -> None:
        """The other end waits anew."""
        port, model = self.some_port(data, index), self.models[index]
        result, _ = self.perform(index, CLOSE, port)
        if port not in model.ports:
            assert result == -EINVAL
            return
        assert result == 0
        state, remote, detail = model.ports.pop(port)
        if state == INTERDOMAIN:
            self.models[remote].ports[detail] = (UNBOUND, index, 0)
            if (remote, detail) == (index, port):
                model.ports.pop(port)
        model.pending.discard(port)

    @rule(index=domains, data=st.data())
    def send(self, index: int, data: st.DataObject) -> None:
        """Notify."""
        port = self.some_port(data, index)
        state, remote, detail = self.models[index].ports.get(port, (CLOSED, 0, 0))
        result, _ = self.perform(index, SEND, port)
        assert result == (0 if state in (UNBOUND, INTERDOMAIN, IPI) else -EINVAL)
        if state == INTERDOMAIN:
            self.models[remote].raise_event(detail)
        elif state == IPI:
            self.models[index].raise_event(port)

    @rule(index=domains, data=st.data())
    def send_much(self, index: int, data: st.DataObject) -> None:
        """Notify through all that may be notified."""
        for port, (state, _, _) in sorted(self.models[index].ports.items()):
            if state in (INTERDOMAIN, IPI) and data.draw(st.booleans()):
                state, remote, detail = self.models[index].ports[port]
                assert self.perform(index, SEND, port)[0] == 0
                self.models[remote if state == INTERDOMAIN else index].raise_event(detail if state == INTERDOMAIN else port)

    @rule(index=domains, data=st.data())
    def unmask(self, index: int, data: st.DataObject) -> None:
        """Unmask by the hypercall."""
        port, model = self.some_port(data, index), self.models[index]
        result, _ = self.perform(index, UNMASK, port)
        assert result == (0 if port < N_PORTS else -EINVAL)
        if port in model.mask:
            model.mask.discard(port)
            if port in model.pending:
                model.select(port)

    @rule(index=domains, data=st.data(), vcpu=st.sampled_from([0, 0, 1]))
    def bind_vcpu(self, index: int, data: st.DataObject, vcpu: int) -> None:
        """There is one processor; what is tied to it stays so."""
        port = self.some_port(data, index)
        state, _, number = self.models[index].ports.get(port, (CLOSED, 0, 0))
        result, _ = self.perform(index, BIND_VCPU, port, vcpu)
        movable = state in (UNBOUND, INTERDOMAIN, PIRQ) or (state == VIRQ and number not in PER_VCPU)
        assert result == (-ENOENT if vcpu else 0 if movable else -EINVAL)

    @rule(index=domains, domid=names, data=st.data())
    def status(self, index: int, domid: int, data: st.DataObject) -> None:
        """What a port is used for."""
        owner = self.named(index, domid)
        port = self.some_port(data, index if owner is None else owner)
        result, words = self.perform(index, STATUS, domid, port, 99, 99, 99, 99)
        if owner is None:
            assert result == -ESRCH
        elif port >= N_PORTS:
            assert result == -EINVAL
        elif owner != index and index != PRIVILEGED:
            assert result == -EPERM
        else:
            state, remote, detail = self.models[owner].ports.get(port, (CLOSED, 0, 0))
            last = {UNBOUND: [remote, 99], INTERDOMAIN: [remote, detail], VIRQ: [detail, 99], PIRQ: [detail, 99]}
            assert (result, words[2:]) == (0, [state, 0, *last.get(state, [99, 99])])

    @rule(index=domains, data=st.data(), masked=st.sampled_from([False, False, True]))
    def guest_masks(self, index: int, data: st.DataObject, masked: bool) -> None:
        """The guest writes a mask bit itself, of which the VMM hears nothing."""
        self.set_mask(index, min(self.some_port(data, index), N_PORTS - 1), masked)

    def set_mask(self, index: int, port: int, masked: bool) -> None:
        """The same for a port."""
        model, place = self.models[index], MASK + port // 32 * 4
        bit, before = 1 << port % 32, self.rig.shared(place, 4, index)
        self.rig.set_shared(place, 4, before | bit if masked else before & ~bit, index)
        (model.mask.add if masked else model.mask.discard)(port)

    @rule(index=domains)
    def guest_takes(self, index: int) -> None:
        """The guest's callback: it looks at the words that the selector names, and takes what is not masked."""
        model = self.models[index]
        self.rig.set_shared(0, 1, 0, index)
        model.upcall = False
        selected = self.rig.shared(SELECTOR, 4, index)
        self.rig.set_shared(SELECTOR, 4, 0, index)
        assert {word for word in range(32) if selected >> word & 1} == model.selector
        for word in model.selector:
            pending, mask = self.rig.shared(PENDING + 4 * word, 4, index), self.rig.shared(MASK + 4 * word, 4, index)
            self.rig.set_shared(PENDING + 4 * word, 4, pending & mask, index)
            model.pending -= {port for port in model.pending if port // 32 == word and port not in model.mask}
        model.selector = set()

    @invariant()
    def as_the_model(self) -> None:
        """What the domains see in shared memory."""
        for index, model in enumerate(getattr(self, "models", [])):
            assert self.bits(PENDING, index) == model.pending
            assert bool(self.rig.shared(0, 1, index)) == model.upcall
            selected = self.rig.shared(SELECTOR, 4, index)
            assert {word for word in range(32) if selected >> word & 1} == model.selector

    def bits(self, first: int, index: int) -> set[int]:
        """The ports of which a bit is set."""
        words = self.rig.shared(first, 128, index)
        return {port for port in range(N_PORTS) if words >> port & 1}


TestChannels = Channels.TestCase


def test_the_older_hypercall_takes_one_structure() -> None:
    """event_channel_op_compat: the command is the first doubleword."""
    domains = rig()
    domains.switch(1)
    domains.quietly("event_channel_op", RESET, SELF)
    domains.put(ROOM, BIND_IPI, 0, 0)
    assert domains.call("event_channel_op_compat", ROOM) == 0
    assert domains.get(ROOM, 3) == [BIND_IPI, 0, 1]
    assert domains.with_words("event_channel_op", CLOSE, 1)[0] == 0


@pytest.mark.parametrize("address", [0xFC000000, 0xFFFFFFFE, 0xFFFFFFFF, 0xF0000000, 4 * FRAMES * 1024 - 2])
@pytest.mark.parametrize("command", [*range(11), 11, 0xFFFFFFFF])
def test_a_structure_that_cannot_be_read_is_refused(address: int, command: int) -> None:
    """Wherever the pointer points, nothing happens but an error."""
    domains = rig()
    domains.switch(1)
    before = bytes(domains.vm.channels.tobytes())
    assert domains.call("event_channel_op", command, address) == (-EFAULT if command < 11 else -ENOSYS)
    assert domains.call("event_channel_op_compat", address) == -EFAULT
    assert domains.vm.channels.tobytes() == before


def test_all_ports_may_be_in_use() -> None:
    """1023 of them; the next one is refused."""
    domains = rig()
    domains.switch(2)
    domains.quietly("event_channel_op", RESET, SELF)
    domains.put(ROOM, 0, 0)
    results = [domains.serve("event_channel_op", BIND_IPI, ROOM) for _ in range(N_PORTS)]
    assert results == [0] * (N_PORTS - 1) + [-28]
    assert domains.with_words("event_channel_op", RESET, SELF)[0] == 0


def test_events_are_counted_and_merged() -> None:
    """An event that is pending already is the same event."""
    domains, ledger = rig(), defaultdict(int)
    domains.switch(1)
    domains.quietly("event_channel_op", RESET, SELF)
    _, words = domains.quietly("event_channel_op", BIND_IPI, 0, 0)
    names = ("xen.event", "xen.event_merged", "vmm.event_send")
    for name in names:
        ledger[name] = -int(domains.cpu.ledger_count[EVENT_ID[name], MODE_VMM])
    for _ in range(3):
        domains.quietly("event_channel_op", SEND, words[1])
    assert [ledger[name] + int(domains.cpu.ledger_count[EVENT_ID[name], MODE_VMM]) for name in names] == [1, 2, 3]


@pytest.mark.parametrize(("command", "words"), [(BIND_VIRQ, (0, 0, 0)), (BIND_VIRQ, (5, 0, 0)), (BIND_PIRQ, (9, 0, 0))])
def test_what_was_closed_can_be_bound_again(command: int, words: tuple[int, ...]) -> None:
    """A virtual interrupt, and a line of the machine's."""
    domains = rig()
    domains.switch(PRIVILEGED)
    domains.quietly("event_channel_op", RESET, SELF)
    for _ in range(2):
        result, answer = domains.quietly("event_channel_op", command, *words)
        assert result == 0 and domains.quietly("event_channel_op", command, *words)[0] == -EEXIST
        assert domains.quietly("event_channel_op", CLOSE, answer[2])[0] == 0
