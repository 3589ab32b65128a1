"""Hypercalls about events, time, grants and devices with structures of any content, from three domains in any order.

Each ends with a result; afterwards every frame is counted for what it is, channels are joined in pairs, and nothing of the VMM's
own memory has changed but its records.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from paravirtual_rig import FRAMES, ROOM, Domains

from x86virt.core.layout import NEVER
from x86virt.vmm.paravirtual import layout
from x86virt.vmm.paravirtual.held import frame_faults
from x86virt.vmm.paravirtual.interface import NUMBER_OF, EVTCHNSTAT_interdomain

CALLS = 700
N_PORTS = 1024
COMMANDS = {
    "event_channel_op": 12, "sched_op": 8, "vcpu_op": 15, "grant_table_op": 13, "physdev_op": 15, "xen_version": 11,
    "event_channel_op_compat": 0, "physdev_op_compat": 0, "sched_op_compat": 3, "set_timer_op": 0, "multicall": 0,
    "console_io": 3,
}  # fmt: skip
# What of the VMM's memory no hypercall of these writes: gates, entries, its GDT, page tables.
FIXED = ((0x0000, 0x3000), (0x8000, 0x9000), (0x10000, 0x20000), (0x70000, 0x80000))
SHUTDOWNS = {("sched_op", 2), ("sched_op", 4), ("sched_op_compat", 2), ("vcpu_op", 2)}


class Caller:
    """Makes up calls."""

    def __init__(self, rig: Domains, seed: int) -> None:
        self.rig, self.choice = rig, random.Random(seed)

    def number(self) -> int:
        """A number of the kinds that structures have."""
        choice = self.choice
        page = choice.randrange(0x10, 0x20)
        own, other = self.rig.frame(page), self.rig.frame(page, choice.randrange(3))
        table = int(self.rig.vm.domains[choice.randrange(3)].base_frame)
        return choice.choice(
            (
                choice.randrange(12), choice.randrange(3), 0x7FF0, 0x7FF1, choice.getrandbits(32), choice.randrange(1 << 12),
                own, other, table, page << 12, own << 12, 0xD000, 0xE000, choice.randrange(0xFB, 0x100) << 24, 0xFFFFFFFF,
                ROOM, ROOM + 0x100, 1 << choice.randrange(32), choice.randrange(3) << 16 | choice.randrange(3),
                choice.randrange(0xA0, 0xC4),
            )
        )  # fmt: skip

    def structure(self) -> None:
        """A page of such numbers, and grants in every domain's table."""
        self.rig.put(ROOM, *(self.number() for _ in range(64)))
        index = self.choice.randrange(3)
        place = layout.GRANT_FRAMES + 0x4000 * index + 8 * self.choice.randrange(12)
        frame = self.rig.frame(self.choice.randrange(0x10, 0x20), index)
        octets = (self.choice.randrange(8) | self.choice.randrange(3) << 16 | frame << 32).to_bytes(8, "little")
        self.rig.machine.processor.write_physical(place, octets)

    def call(self) -> None:
        """One call of some domain's."""
        choice, rig = self.choice, self.rig
        rig.switch(choice.randrange(3))
        self.structure()
        name = choice.choice(sorted(COMMANDS))
        command = choice.randrange(COMMANDS[name] or 1)
        arguments = [command, ROOM, choice.choice((1, 1, 2, 5, ROOM, self.number()))]
        if COMMANDS[name] == 0:
            arguments = [ROOM, choice.randrange(4), 0]
            if name == "multicall":
                rig.put(ROOM, *(NUMBER_OF[choice.choice(sorted(COMMANDS))] if n % 8 == 0 else self.number() for n in range(64)))
        elif name == "vcpu_op":
            arguments = [command, choice.choice((0, 0, 0, 1, 40)), ROOM]
        if choice.randrange(10) == 0:
            arguments[choice.randrange(len(arguments))] = self.number()
        if (name, arguments[0]) not in SHUTDOWNS:
            rig.serve(name, *arguments)
        self.restore()

    def restore(self) -> None:
        """Whoever was ended goes on."""
        self.rig.xen.crash = 0
        self.rig.xen.asked &= ~4
        for domain in self.rig.vm.domains:
            domain.shut_down = domain.run_state = 0
        self.rig.xen.quantum = 1 << 30


def fixed(rig: Domains) -> list[bytes]:
    """The VMM's memory that stays."""
    return [rig.machine.processor.read_physical(first, end - first) for first, end in FIXED]


@pytest.mark.parametrize("seed", range(4))
def test_no_call_harms_anything(seed: int) -> None:
    """As said above."""
    rig = Domains()
    for index in range(3):
        rig.vm.domains[index].total_frames = rig.vm.domains[index].max_frames = FRAMES
    assert frame_faults(rig.vm) == []
    before = fixed(rig)
    caller = Caller(rig, seed)
    for _ in range(CALLS):
        caller.call()
    assert fixed(rig) == before
    assert frame_faults(rig.vm) == []
    joined = {
        (index, port): (int(channel.remote_domain), int(channel.detail))
        for index in range(3)
        for port in range(N_PORTS)
        if (channel := rig.vm.channels[N_PORTS * index + port]).state == EVTCHNSTAT_interdomain
    }
    assert all(joined[other] == end for end, other in joined.items())
    for index, domain in enumerate(rig.vm.domains):
        bound = [int(port) for name in ("virq_port", "pirq_port") for port in domain[name] if port]
        states = [int(rig.vm.channels[N_PORTS * index + port].state) for port in bound]
        assert len(set(bound)) == len(bound) and set(states) <= {3, 4}
    assert int(rig.cpu.timer) == NEVER or int(rig.cpu.timer) % 64 == 0
    assert not np.any(rig.vm.domains["domid"] != np.arange(3))
