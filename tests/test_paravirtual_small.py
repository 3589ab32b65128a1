"""Multicalls, what guests ask about the VMM, text for the console, and the machine's devices in the hands of domain 0."""

from __future__ import annotations

import pytest
from paravirtual_rig import ROOM, Domains

from x86virt.core.entries import device_write
from x86virt.core.layout import NEVER
from x86virt.isa.events import EVENT_ID, MODE_VMM
from x86virt.isa.registers import EBP, EBX, ECX, EDI, EDX, ESI
from x86virt.vmm.paravirtual.interface import NUMBER_OF
from x86virt.vmm.paravirtual.loop import SERVE

EPERM, EFAULT, EINVAL, ENOSYS = 1, 14, 22, 38
IRQ_VECTOR = 0xE0
STATUS_QUERY, SET_IOPL, SET_IOBITMAP, EOI = 5, 6, 7, 12
IO_MAP = 0xC1000
M32 = 0xFFFFFFFF


@pytest.fixture
def rig() -> Domains:
    """Domains of which 1 runs and the others are blocked, without tickers."""
    domains = Domains()
    domains.xen.period[:] = 0
    domains.switch(1)
    return domains


def entry(name: str | int, *arguments: int) -> list[int]:
    """An entry of a list of hypercalls."""
    number = NUMBER_OF[name] if isinstance(name, str) else name
    return [number, 0xAAAAAAAA, *arguments, *[0] * (6 - len(arguments))]


def put_list(rig: Domains, *entries: list[int]) -> None:
    """A list at ROOM."""
    rig.put(ROOM, *[word for one in entries for word in one])


def results(rig: Domains, count: int) -> list[int]:
    """The results in a list, signed."""
    words = rig.get(ROOM, 8 * count)[1::8]
    return [word - (1 << 32) if word >> 31 else word for word in words]


def count(rig: Domains, event: str) -> int:
    """How often an event was counted in the VMM."""
    return int(rig.cpu.ledger_count[EVENT_ID[event], MODE_VMM])


# -- multicalls -------------------------------------------------------------------------------------------------------------


def test_calls_are_made_in_order(rig: Domains) -> None:
    """Each has its arguments and its result; the caller's registers stay."""
    calls = entry("xen_version", 0), entry("xen_version", 7), entry(63), entry("multicall", ROOM, 1), entry("vcpu_op", 3, 1)
    put_list(rig, *calls)
    registers = {EDX: 1, ESI: 2, EDI: 3, EBP: 4}
    for register, value in registers.items():
        rig.cpu.gpr[register] = value
    before = count(rig, "vmm.multicall"), count(rig, "vmm.hypercall")
    assert rig.call("multicall", ROOM, 5) == 0
    assert results(rig, 5) == [3 << 16 | 4, 4096, -ENOSYS, -ENOSYS, -2]
    assert {register: int(rig.cpu.gpr[register]) for register in registers} == registers
    assert int(rig.cpu.gpr[EBX]) == ROOM and int(rig.cpu.gpr[ECX]) == 5
    assert (count(rig, "vmm.multicall") - before[0], count(rig, "vmm.hypercall") - before[1]) == (5, 1)
    assert rig.call("multicall", ROOM, 0) == 0


@pytest.mark.parametrize(("address", "length"), [(0xFC000000, 1), (ROOM, 0x80000000), (0xFFFFFFFF, 1), (0x700000, 1)])
def test_lists_that_are_not_there(rig: Domains, address: int, length: int) -> None:
    """-EFAULT before any call is made."""
    rig.cpu.gpr[EDX] = 0
    calls = rig.xen.calls.copy()
    assert rig.call("multicall", address, length) == -EFAULT
    calls[NUMBER_OF["multicall"]] += 1
    assert (rig.xen.calls == calls).all()


def test_a_list_ends_where_it_cannot_be_written(rig: Domains) -> None:
    """A result that has no place: -EFAULT; what was done is done."""
    page = 0xD
    rig.call("update_va_mapping", page << 12, rig.frame(page) << 12 | 0x21, 0, 2)
    rig.put(page << 12, *entry("set_timer_op", 12345, 1 << 10))
    assert rig.call("multicall", page << 12, 1) == -EFAULT
    assert int(rig.xen.deadline[1]) == 1 << 42 | 12345


def test_a_list_lets_others_run(rig: Domains) -> None:
    """After a yield, and when it has taken its quantum, the guest makes the rest of the call anew."""
    put_list(rig, entry("sched_op", 0), entry("xen_version", 0), entry("xen_version", 7))
    domain = rig.vm.domains[1]
    eip = int(domain.eip)
    assert rig.call("multicall", ROOM, 3) == NUMBER_OF["multicall"]
    assert (int(rig.cpu.gpr[EBX]), int(rig.cpu.gpr[ECX]), int(domain.eip)) == (ROOM + 32, 2, eip - 2)
    assert results(rig, 3)[0] == 0 and rig.get(ROOM, 24)[9] == 0xAAAAAAAA
    rig.xen.quantum = 1
    assert rig.serve("multicall", ROOM + 32, 2) == NUMBER_OF["multicall"]
    assert results(rig, 3)[1] == 3 << 16 | 4 and int(rig.cpu.gpr[ECX]) == 1
    rig.xen.quantum = 1 << 40
    rig.cpu.timer = 0
    put_list(rig, entry("xen_version", 7), entry("xen_version", 7))
    assert rig.serve("multicall", ROOM, 2) == NUMBER_OF["multicall"] and int(rig.cpu.gpr[ECX]) == 1
    rig.cpu.timer = NEVER
    assert rig.serve("multicall", int(rig.cpu.gpr[EBX]), 1) == 0 and results(rig, 2) == [4096, 4096]


def test_text_in_a_list_is_gone_on_with(rig: Domains) -> None:
    """A call that is too long for one go writes back what is left of its arguments."""
    text = bytes(65 + number % 26 for number in range(700))
    rig.machine.processor.write_physical(rig.machine_address(0x18000), text)
    put_list(rig, entry("console_io", 0, 700, 0x18000), entry("xen_version", 7))
    assert rig.call("multicall", ROOM, 2) == NUMBER_OF["multicall"]
    assert rig.get(ROOM, 5)[2:] == [0, 188, 0x18000 + 512] and int(rig.cpu.gpr[ECX]) == 2
    assert rig.call("multicall", int(rig.cpu.gpr[EBX]), int(rig.cpu.gpr[ECX])) == 0
    assert results(rig, 2) == [0, 4096] and rig.machine.console() == text


# -- the console, and what is told of the VMM ---------------------------------------------------------------------------------


def test_text_comes_to_the_console(rig: Domains) -> None:
    """Of any length, a piece at a time; a pointer that leads nowhere is refused."""
    text = bytes(range(32, 127)) * 12
    rig.machine.processor.write_physical(rig.machine_address(0x18000), text)
    call, rest, place = NUMBER_OF["console_io"], len(text), 0x18000
    outcome = call
    while outcome == call:
        outcome = rig.call(call, 0, rest, place)
        rest, place = int(rig.cpu.gpr[ECX]), int(rig.cpu.gpr[EDX])
    assert outcome == 0 and rig.machine.console() == text
    assert rig.call(call, 0, 5, 0xFC000000) == -EFAULT
    assert rig.call(call, 0, 5, 0xFFFFFFFF) == -EFAULT
    assert rig.call(call, 1, 5, ROOM) == 0  # there is never anything to be read
    assert rig.call(call, 2, 5, ROOM) == -ENOSYS


def test_what_is_told_of_the_vmm(rig: Domains) -> None:
    """Its version, where its part of the linear space begins, its features, and texts of fixed lengths."""

    def text(octets: int) -> bytes:
        return rig.machine.processor.read_physical(rig.machine_address(ROOM), octets)

    def ask(command: int) -> int:
        rig.put(ROOM, *[0x55555555] * 300)
        return rig.call("xen_version", command, ROOM)

    assert rig.call("xen_version", 0, 0) == 3 << 16 | 4
    assert ask(1) == 0 and text(17)[10:] == bytes(6) + b"U"
    assert ask(2) == 0 and text(145)[-1:] == b"U" and bytes(100) in text(144)
    assert ask(3) == 0 and text(31) == b"xen-3.0-x86_32 xen-3.0-x86_32p\0"
    assert ask(4) == 0 and ask(8) == 0 and ask(9) == 0 and text(1) == b"\0"
    assert ask(5) == 0 and rig.get(ROOM, 1) == [0xFC000000]
    rig.put(ROOM, 0, 99)
    assert rig.call("xen_version", 6, ROOM) == 0 and rig.get(ROOM, 2) == [0, 1 << 5]
    rig.put(ROOM, 1, 99)
    assert rig.call("xen_version", 6, ROOM) == 0 and rig.get(ROOM, 2) == [1, 0]
    assert rig.call("xen_version", 99, ROOM) == -ENOSYS
    for command in (1, 2, 3, 4, 5, 6, 8, 9):
        for address in (0xFC000000, 0xFFFFFFFD, 0x700000):
            assert rig.call("xen_version", command, address) == -EFAULT


@pytest.mark.parametrize("name", ["platform_op", "sysctl", "domctl", "kexec_op"])
def test_who_controls_machines(rig: Domains, name: str) -> None:
    """No guest does; domain 0 finds that there is nothing to be controlled."""
    assert rig.call(name, ROOM) == -EPERM
    rig.switch(0)
    assert rig.call(name, ROOM) == -ENOSYS


# -- the machine's devices ----------------------------------------------------------------------------------------------------


def bind_line(rig: Domains, line: int) -> int:
    """Domain 0's port of a line."""
    rig.switch(0)
    result, words = rig.with_words("event_channel_op", 2, line, 0, 0)
    assert result == 0
    return words[2]


def interrupt(rig: Domains, line: int) -> None:
    """The processor has taken an interrupt of a line from the controllers."""
    pics = rig.vm.board.pic
    number, bit = line >> 3, 1 << (line & 7)
    pics[number].irr &= ~bit
    pics[number].isr |= bit
    if number:
        pics[0].isr |= 4
    rig.xen.vector = IRQ_VECTOR + line
    rig.vm.part(SERVE)
    rig.leave()


@pytest.mark.parametrize("line", [4, 14])
def test_an_interrupt_is_an_event_of_domain_0(rig: Domains, line: int) -> None:
    """Its line is open while it is bound; it is acknowledged at once."""
    pics = rig.vm.board.pic
    assert (int(pics[0].imr), int(pics[1].imr)) == (0xFB, 0xFF)
    assert (int(pics[0].vector_offset), int(pics[1].vector_offset)) == (0xE0, 0xE8)
    port = bind_line(rig, line)
    mask = int(pics[0].imr) | int(pics[1].imr) << 8
    assert mask == 0xFFFB & ~(1 << line)
    interrupt(rig, line)
    assert int(pics[0].isr) == int(pics[1].isr) == 0 and rig.shared(2048, 4, 0) == 1 << port
    rig.put(ROOM, line, 99)
    assert rig.call("physdev_op", STATUS_QUERY, ROOM) == 0 and rig.get(ROOM, 2) == [line, 0]
    assert rig.with_words("event_channel_op", 3, port)[0] == 0
    assert int(pics[0].imr) | int(pics[1].imr) << 8 == 0xFFFB


def test_a_line_by_level_is_masked_until_it_is_served(rig: Domains) -> None:
    """physdev_op says that it has to be told, and is."""
    device_write(rig.vm.boards, 0x4D1, 1, 1 << 3, 0)
    bind_line(rig, 11)
    interrupt(rig, 11)
    pics = rig.vm.board.pic
    assert int(pics[1].imr) >> 3 & 1 == 1
    rig.put(ROOM, 11, 99)
    assert rig.call("physdev_op", STATUS_QUERY, ROOM) == 0 and rig.get(ROOM, 2) == [11, 1]
    assert rig.call("physdev_op", EOI, ROOM) == 0 and int(pics[1].imr) >> 3 & 1 == 0
    interrupt(rig, 11)
    assert int(pics[1].imr) >> 3 & 1 == 1
    rig.put(ROOM, 4)
    assert rig.call("physdev_op_compat", ROOM) == 0 and int(pics[1].imr) >> 3 & 1 == 0


def test_a_spurious_interrupt_is_none(rig: Domains) -> None:
    """The controllers' last lines answer where nothing asks."""
    for line in (7, 15):
        bind_line(rig, line)
        rig.xen.vector = IRQ_VECTOR + line
        if line == 15:
            rig.vm.board.pic[0].isr |= 4
        rig.vm.part(SERVE)
        rig.leave()
        assert int(rig.vm.board.pic[0].isr) == 0
    assert rig.shared(2048, 128, 0) == 0


def test_ports_are_opened_to_domain_0(rig: Domains) -> None:
    """As its bitmap says, but for the VMM's own; nobody else reaches any."""
    read = rig.machine.processor.read_physical
    rig.put(ROOM, 0x18000, 0x3F8)
    assert rig.call("physdev_op", SET_IOBITMAP, ROOM) == -EPERM and read(IO_MAP, 8192) == b"\xff" * 8192
    rig.switch(0)
    rig.machine.processor.write_physical(rig.machine_address(0x18000), bytes(128))
    rig.put(ROOM, 0x18000, 0x3FB)
    assert rig.call("physdev_op", SET_IOBITMAP, ROOM) == 0
    kept = {0x20, 0x21, 0x40, 0x41, 0x42, 0x43, 0xA0, 0xA1}
    octets = read(IO_MAP, 8193)
    closed = {port for port in range(1 << 16) if octets[port >> 3] >> (port & 7) & 1}
    assert closed == kept | set(range(0x3FB, 1 << 16)) and octets[-1] == 0xFF
    rig.put(ROOM, 0x18000, 0x10001)
    assert rig.call("physdev_op", SET_IOBITMAP, ROOM) == -EINVAL
    rig.put(ROOM, 0xFC000000, 0x100)
    assert rig.call("physdev_op", SET_IOBITMAP, ROOM) == 0 and read(IO_MAP, 32) == b"\xff" * 32


def test_levels_of_ports(rig: Domains) -> None:
    """set_iopl keeps what the guest asked for."""
    for level, outcome in ((3, 0), (4, -EINVAL), (M32, -EINVAL)):
        rig.put(ROOM, level)
        assert rig.call("physdev_op", SET_IOPL, ROOM) == outcome
    assert int(rig.vm.domains[1].iopl) == 3


def test_operations_on_devices_that_are_refused(rig: Domains) -> None:
    """Unknown ones, lines that are not there, structures that are not there."""
    for command in (0, 8, 9, 11, 13, 14, 99):
        assert rig.call("physdev_op", command, ROOM) == -ENOSYS
    assert rig.call("physdev_op", 10, ROOM) == -EPERM
    for command in (STATUS_QUERY, SET_IOPL, SET_IOBITMAP, EOI):
        for address in (0xFC000000, 0xFFFFFFFF, 0x700000):
            assert rig.call("physdev_op", command, address) == -EFAULT
    assert rig.call("physdev_op_compat", 0xFC000000) == -EFAULT
    rig.put(ROOM, 16, 0)
    assert rig.call("physdev_op", STATUS_QUERY, ROOM) == -EINVAL and rig.call("physdev_op", EOI, ROOM) == -EINVAL


