"""A PC under a VMM: code outside RAM, APICs, resets, the A20 gate, power off."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from pc_tour import FOUND, tour_disk
from profile_for import profile_for
from small_kernel import (
    CODE_0,
    DATA,
    EAX,
    EBX,
    ECX,
    EDX,
    ESI,
    PTE_P,
    PTE_RW,
    PTE_US,
    RAM_BYTES,
    Kernel,
    Step,
    compare,
    far_jump,
    load,
    log,
    mov,
    run,
    save,
    start,
    store,
    strategy,
)

from x86virt import load_profile
from x86virt.api import make_setup
from x86virt.guests import open_guest
from x86virt.machine import Machine
from x86virt.saved import machine_bytes, machine_of

SOFTWARE = ("trap-and-emulate", "binary-translation")
VMMS = (*SOFTWARE, "vtx-shadow", "vtx-ept", "svm-shadow", "svm-npt")
ON_TOUR = (*SOFTWARE, "vtx-shadow,cluster=64", "vtx-ept,cluster=64", "svm-shadow", "svm-npt")  # much of it in real mode
BUDGET = 400_000_000
NOWHERE, VMM_REGION = 0x40000000, 0xFFFEBA09  # no RAM answers there: a fetch finds ones, which are no instruction
UD = 6

# -- code outside RAM -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VMMS)
@pytest.mark.parametrize("target", [NOWHERE, NOWHERE - 1, VMM_REGION])
def test_code_where_no_ram_answers_is_executed_as_it_reads(name: str, target: int) -> None:
    """As the end of a BIOS image, at which a PC has its firmware again, is when its processor is reset."""
    kernel = Kernel([Step(far_jump(CODE_0, target))], paging=False)
    comparison = compare(kernel, strategy(name))
    assert comparison.equal, "\n".join(comparison.report)
    assert comparison.other.outcome == "exited 1"
    vector, _, eip = log(run(kernel, name)[0])[0][:3]
    assert (vector, eip) == (UD, target)


# -- APICs ------------------------------------------------------------------------------------------------------------

LOCAL_PAGE, IO_PAGE = 0x88000, 0x89000  # where the guest's tables map them
LOCAL, IO = 0xFEE00000, 0xFEC00000
ID, VERSION, EOI, SPURIOUS, IN_SERVICE, COMMAND = 0x20, 0x30, 0xB0, 0xF0, 0x100, 0x300
TIMER, LINT0, INITIAL, CURRENT, DIVIDE = 0x320, 0x350, 0x380, 0x390, 0x3E0
ENABLE, MASKED, PERIODIC, SELF, EXTINT = 0x100, 1 << 16, 1 << 17, 1 << 18, 0x700
TIMER_VECTOR, IPI_VECTOR, PIT_VECTOR, PIC_VECTOR = 0x50, 0x61, 0x70, 0x40
APIC_BASE_MSR, ENABLED_BASE, DISABLED_BASE = 0x1B, 0x900, 0x100
CPUID_1 = mov(EAX, 1) + b"\x0f\xa2"
HALT = b"\xfb\xf4"  # STI; HLT


def local(register: int, value: int) -> bytes:
    """Write a register of the local APIC."""
    return store(LOCAL_PAGE + register, value)


def io(register: int, value: int) -> bytes:
    """Write a register of the I/O APIC through its window."""
    return store(IO_PAGE, register) + store(IO_PAGE + 0x10, value)


def out(port: int, value: int) -> bytes:
    """OUT of a byte."""
    return b"\xb0" + bytes([value]) + b"\xe6" + bytes([port])


def keep(number: int, address: int) -> bytes:
    """Copy a doubleword to the data."""
    return load(EAX, address) + save(DATA + 4 * number, EAX)


def wrmsr(number: int, value: int) -> bytes:
    """WRMSR of 32 bits."""
    return mov(ECX, number) + mov(EAX, value) + mov(EDX, 0) + b"\x0f\x30"


PICS = b"".join(out(*pair) for pair in ((0x20, 0x11), (0x21, PIC_VECTOR), (0x21, 4), (0x21, 1), (0x21, 0xFE)))  # IRQ 0 is open
ALL_MASKED = out(0x21, 0xFF)
PIT = out(0x43, 0x34) + out(0x40, 0) + out(0x40, 8)  # channel 0, mode 2, 0x800 clocks
STEPS = [
    Step(local(SPURIOUS, ENABLE | 0xFF) + keep(0, LOCAL_PAGE + ID) + keep(1, LOCAL_PAGE + VERSION)),
    Step(keep(2, LOCAL_PAGE + SPURIOUS)),
    Step(local(DIVIDE, 0xB) + local(TIMER, TIMER_VECTOR) + local(INITIAL, 3000) + HALT),  # once
    Step(keep(3, LOCAL_PAGE + IN_SERVICE + 0x20) + keep(4, LOCAL_PAGE + CURRENT) + local(EOI, 0)),
    Step(local(TIMER, TIMER_VECTOR | PERIODIC) + local(INITIAL, 3000) + HALT),
    Step(local(EOI, 0) + HALT),
    Step(local(TIMER, MASKED) + local(EOI, 0) + b"\xfb" + local(COMMAND, SELF | IPI_VECTOR) + b"\x90"),
    Step(local(EOI, 0) + PIT + io(0x14, PIT_VECTOR) + HALT),  # the PIT is input 2 of the I/O APIC
    Step(local(EOI, 0) + io(0x14, MASKED) + PICS + local(LINT0, EXTINT) + HALT),  # and IRQ 0 of the PICs behind LINT0
    Step(ALL_MASKED + out(0x20, 0x20) + local(SPURIOUS, 0xFF) + keep(5, LOCAL_PAGE + LINT0)),
    Step(wrmsr(APIC_BASE_MSR, 0x80000 | ENABLED_BASE) + keep(6, 0x80000 + VERSION) + store(0x80000 + DIVIDE, 3)),  # over RAM
    Step(wrmsr(APIC_BASE_MSR, LOCAL | ENABLED_BASE) + keep(7, 0x80000 + VERSION) + keep(8, LOCAL_PAGE + DIVIDE)),
    Step(mov(ECX, APIC_BASE_MSR) + b"\x0f\x32" + save(DATA + 36, EAX)),
    Step(CPUID_1 + save(DATA + 40, EDX)),
    Step(wrmsr(APIC_BASE_MSR, LOCAL | DISABLED_BASE)),
    Step(CPUID_1 + save(DATA + 44, EDX)),  # the local APIC's bit follows its enabling
    Step(wrmsr(APIC_BASE_MSR, LOCAL | ENABLED_BASE)),
    Step(CPUID_1 + save(DATA + 48, EDX)),
]
UP = PTE_P | PTE_RW | PTE_US
INTERRUPTS = [TIMER_VECTOR] * 3 + [IPI_VECTOR, PIT_VECTOR, PIC_VECTOR]


def with_apics(name: str) -> Machine:
    """A machine with APICs, about to use them."""
    pages = {LOCAL_PAGE: LOCAL | UP, IO_PAGE: IO | UP}
    machine = Machine(strategy(name), load_profile(profile_for(name)), RAM_BYTES)
    machine.fit_apic()
    machine.load(Kernel(STEPS, pages=pages, words={0x80000 + VERSION: 0xCAFE}).image())
    return machine


def seen(machine: Machine) -> tuple[str, list[tuple[int, ...]], bytes]:
    """How it ended, what its handlers logged, and what it kept."""
    result = machine.run(BUDGET)
    return result.outcome, log(machine), machine.read_guest(DATA, 64)


def test_the_guest_of_a_vmm_has_apics() -> None:
    """The local APIC's timer, a message to itself, the PIT by way of both, the PICs behind LINT0, registers over RAM."""
    native = seen(with_apics("native"))
    assert [trap[0] for trap in native[1] if trap[0] != 0x80] == INTERRUPTS
    assert native[0] == "exited 1"
    for name in VMMS:
        assert seen(with_apics(name)) == native


@pytest.mark.parametrize("name", SOFTWARE)
def test_exits_handled_in_machine_code_see_the_apics(name: str) -> None:
    """With the same ticks as those that Python handles."""
    fast, slow = with_apics(name), with_apics(name)
    assert fast.exits_in_code is not None and slow.exits_in_code is not None
    slow.exits_in_code.wanted = False
    one, other = fast.run(BUDGET), slow.run(BUDGET)
    assert (one.ticks, one.instructions, one.exits) == (other.ticks, other.instructions, other.exits)
    assert fast.exits_in_code.handled > 0 == slow.exits_in_code.handled


@pytest.mark.parametrize("name", VMMS)
def test_a_saved_guest_goes_on_with_its_apics(name: str) -> None:
    whole = with_apics(name).run(BUDGET)
    for instructions in range(20, whole.instructions, whole.instructions // 4):
        cut = with_apics(name)
        assert cut.advance(instructions, BUDGET)
        rest = machine_of(machine_bytes(cut), "test").run(BUDGET)
        assert (rest.outcome, rest.ticks, rest.instructions) == (whole.outcome, whole.ticks, whole.instructions)


PCI_SCAN = (  # of 64 registers, from the host bridge's on; their sum is kept
    mov(ECX, 64) + mov(EBX, 0x80000000) + b"\x31\xf6"  # XOR ESI, ESI
    + b"\x66\xba\xf8\x0c\x89\xd8\xef"  # MOV DX, 0CF8h; MOV EAX, EBX; OUT DX, EAX
    + b"\x66\xba\xfc\x0c\xed\x01\xc6"  # MOV DX, 0CFCh; IN EAX, DX; ADD ESI, EAX
    + b"\x83\xc3\x04\x49\x75\xec" + save(DATA, ESI)  # ADD EBX, 4; DEC ECX; JNZ
)  # fmt: skip


@pytest.mark.parametrize("name", SOFTWARE)
def test_a_scan_of_pci_devices_is_handled_in_machine_code(name: str) -> None:
    """With the same ticks as by Python's handlers, which see none of its accesses."""
    fast, slow = start(Kernel([Step(PCI_SCAN)]), name), start(Kernel([Step(PCI_SCAN)]), name)
    assert fast.exits_in_code is not None and slow.exits_in_code is not None
    slow.exits_in_code.wanted = False
    one, other = fast.run(BUDGET), slow.run(BUDGET)
    assert (one.outcome, one.ticks, one.exits) == ("exited 1", other.ticks, other.exits)
    assert fast.read_guest(DATA, 4) == run(Kernel([Step(PCI_SCAN)]))[0].read_guest(DATA, 4) != bytes(4)
    assert fast.exits_in_code.handled > 120


# -- resets, the A20 gate, power off ------------------------------------------------------------------------------------


def on_tour(name: str, folder: Path) -> Machine:
    """A PC whose firmware is about to start the boot sector that goes on tour."""
    disk = str(tour_disk(folder))
    setup = replace(make_setup(name, profile_for(name), memory_bytes=4 << 20, max_cycles=BUDGET), disks=(disk,), apic=True)
    return setup.load(open_guest(disk).bootable)


@pytest.mark.parametrize("name", ["native", *ON_TOUR])
def test_the_a20_gate_resets_and_power_off(name: str, tmp_path: Path) -> None:
    """With the gate closed the hardware cannot hold the guest; a reset finds it in real-address mode again, RAM as it is."""
    result = on_tour(name, tmp_path).run(BUDGET)
    banner = result.console.partition(FOUND[0])[0]
    assert (result.outcome, result.console) == ("halted", banner + FOUND[0] + banner + FOUND[1])
    assert banner.count(b"x86virt BIOS") == 1


@pytest.mark.parametrize("name", [name for name in ON_TOUR if name != "vtx-shadow,cluster=64"])
def test_a_pc_saved_on_tour_goes_on(name: str, tmp_path: Path) -> None:
    whole = on_tour(name, tmp_path).run(BUDGET)
    for part in (3, 6, 9):
        cut = on_tour(name, tmp_path)
        assert cut.advance(whole.instructions * part // 10, BUDGET)
        rest = machine_of(machine_bytes(cut), "test").run(BUDGET)
        assert (rest.outcome, rest.ticks, rest.instructions) == (whole.outcome, whole.ticks, whole.instructions)
        assert rest.console == whole.console
