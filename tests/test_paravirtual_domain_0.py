"""Domain 0 under the real VMM: small guests that write to their rings, honestly and not, and the benchmark of disk requests."""

from __future__ import annotations

import io
import random
import struct

import numpy as np
import pytest
from ide_machine import SECTOR, pattern
from paravirtual_kernel import MAX_CYCLES, Kernel, Step, hypercall, start
from rich.console import Console
from small_kernel import ESI

from x86virt import Machine, find_strategy, load_profile
from x86virt.api import make_setup
from x86virt.block import ACCESSES, BATCH, BUSY, DOMAINS, EXITS, REMARKS, TIME, benchmarks, figures, show_block
from x86virt.core.device_entries import device_serial_input
from x86virt.core.jit import JIT_DISABLED
from x86virt.core.layout import NEVER
from x86virt.disk import Disk
from x86virt.guests import find_guest
from x86virt.suites import measure
from x86virt.vmm.paravirtual import interface as xen
from x86virt.vmm.paravirtual.structures import START_INFO

GUEST = 1
PORT = 0x8100  # where the kernel keeps a port
YIELDS = 4
OUT_CONS, OUT_PROD, IN_PROD = 3080, 3084, 3076
PAGES = pytest.mark.parametrize("is_pae", [False, True])


class Rings:
    """A guest whose pages of console and store the test fills before it runs; it tells domain 0 of both, and ends."""

    def __init__(self, is_pae: bool = False, times: int = 1) -> None:
        self.machine = start(Kernel([Step(tell(times))], is_pae=is_pae), find_strategy("paravirtual,p2m=contiguous")())
        vm = self.machine.vm
        place = vm.p2m[int(vm.domains[GUEST].gpr[ESI]) >> 12] << 12
        self.information = np.frombuffer(vm.processor.read_physical(int(place), START_INFO.itemsize), START_INFO)[0]
        for number, port in enumerate(("console_evtchn", "store_evtchn")):
            place = int(vm.p2m[PORT >> 12] << 12) + (PORT & 0xFFF) + 4 * number
            vm.processor.write_physical(place, struct.pack("<I", int(self.information[port])))

    def page(self, name: str) -> np.ndarray:
        """The bytes of a page that start_info names."""
        place = int(self.information[name]) << 12
        return self.machine.vm.processor.memory[place : place + 4096]

    def console(self, offset: int, octets: bytes) -> None:
        """Put bytes into the console's page."""
        self.page("console_mfn")[offset : offset + len(octets)] = np.frombuffer(octets, np.uint8)

    def run(self) -> bytes:
        """Run to the end; domain 0 must have lived to see it. What came out on the console."""
        result = self.machine.run(MAX_CYCLES)
        assert result.outcome == "exited 1"
        assert not self.machine.vm.domains[0].shut_down and not self.machine.vm.faults()
        return result.console


def tell(times: int) -> bytes:
    """Send an event by each of the two ports, and let domain 0 run."""
    once = b"".join(
        hypercall("event_channel_op", xen.EVTCHNOP_send, PORT + 4 * number)
        + hypercall("sched_op", xen.SCHEDOP_yield) * YIELDS
        for number in range(2)
    )
    return once * times


@PAGES
def test_what_a_guest_says_comes_out(is_pae: bool) -> None:
    rings = Rings(is_pae)
    rings.console(1024, b"said by a guest\n")
    rings.console(OUT_PROD, struct.pack("<I", 16))
    assert rings.run() == b"said by a guest\n"
    assert rings.page("console_mfn")[OUT_CONS : OUT_CONS + 4].view("<u4") == 16


def test_what_is_typed_at_the_serial_port_comes_in() -> None:
    rings = Rings(times=40)
    machine = rings.machine
    cycles = 0
    while not machine.board.uart[0].interrupt_enable:
        cycles += 100_000
        assert machine.advance(NEVER, pause_cycles=cycles)
    assert device_serial_input(machine.boards, machine.processor.cpu.ticks, 0, np.array([65], np.uint8)) == 1
    rings.run()
    page = rings.page("console_mfn")
    assert page[0] == 65 and page[IN_PROD : IN_PROD + 4].view("<u4") == 1


@pytest.mark.parametrize("seed", range(3))
@PAGES
def test_pages_full_of_noise_harm_nobody(is_pae: bool, seed: int) -> None:
    rings = Rings(is_pae, times=2)
    dice = random.Random(seed)
    for name in ("console_mfn", "store_mfn"):
        rings.page(name)[:] = np.frombuffer(dice.randbytes(4096), np.uint8)
    assert b"domain 0" not in rings.run()


# -- the benchmark ----------------------------------------------------------------------------------------------------

slow = pytest.mark.skipif(JIT_DISABLED, reason="the run is slow")
SECTORS = 300
BLOCK = find_guest("blockio")


def blockio(strategy: str, content: bytes | None) -> Machine:
    """The benchmark of disk requests, run to its end."""
    machine = Machine(find_strategy(strategy)(), load_profile("p4_prescott"))
    if content is not None:
        machine.disks.attach(Disk.of_bytes("disk", content))
    machine.load(BLOCK, "iterations=3")
    machine.run(10_000_000_000)
    return machine


@slow
@pytest.mark.parametrize("strategy", ["native", "paravirtual", "paravirtual,p2m=scattered", "trap-and-emulate"])
def test_requests_move_what_they_should(strategy: str) -> None:
    machine = blockio(strategy, pattern(SECTORS))
    assert machine.outcome == "halted" and machine.console() == b"blockio: passed\n"
    words = (np.arange(256 * SECTOR // 4, dtype=np.uint64) * 0x9E3779B1 & 0xFFFFFFFF).astype("<u4")
    assert machine.disks.disks[0].read(0, SECTORS) == words.tobytes() + pattern(SECTORS)[256 * SECTOR :]
    assert [region.number for region in machine.regions] == [row.region for row in benchmarks()]
    if machine.vm is not None and strategy.startswith("paravirtual"):
        assert not machine.vm.faults()


@slow
def test_a_ring_asks_the_vmm_for_less_than_ports_do() -> None:
    ring, ports = blockio("paravirtual", None), blockio("trap-and-emulate", None)
    for one, other in zip(ring.regions, ports.regions, strict=True):
        assert sum(row.number for row in one.exits.values()) < sum(row.number for row in other.exits.values())
    write, _, batch, _ = (region.exits["hypercall_event_channel_op"].number for region in ring.regions)
    assert write == 2 * 3  # told of the request, and of the response
    assert (
        batch == (1 + 32) * 3
    )  # told of the first request alone, and of each response, since the guest waits for each


@slow
@pytest.mark.parametrize("strategy", ["native", "paravirtual"])
def test_a_disk_that_is_too_small(strategy: str) -> None:
    machine = blockio(strategy, pattern(255))
    assert machine.result().exit_code == 1
    assert machine.console() == b"blockio: failed: no disk of 128 KB or more (exit code 1)\n"


@slow
def test_the_table_shows_one_request_at_a_time() -> None:
    rows = measure(benchmarks(), [make_setup("native"), make_setup("paravirtual"), make_setup("vtx-ept")], 2)
    shown = figures(next(row for row in rows if row.benchmark == BATCH and row.strategy == "native"))
    assert shown[ACCESSES] == 15 and shown[EXITS] == shown[DOMAINS] == 0  # one command: as many for each of the 32
    split = {row.benchmark: figures(row) for row in rows if row.strategy == "paravirtual"}
    assert split["read"][ACCESSES] == split["long"][ACCESSES] == 13  # the VMM has the interrupt controllers
    assert split["read"][DOMAINS] == 2 and split[BATCH][DOMAINS] == 2
    assert 0 < split["read"][BUSY] < split["read"][TIME]
    file = io.StringIO()
    Console(file=file, width=150).print(show_block(rows))
    text = file.getvalue()
    assert text.count("busy cycles") == 4 and "of which domain 0" in text and "vtx-ept: unsupported" in text
    assert all(row.sentence in text for row in benchmarks()) and REMARKS[0] in text
