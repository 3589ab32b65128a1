"""VMMs on SVM: what is SVM's own affair in them. Everything else is tested over all strategies."""

from __future__ import annotations

import pytest
from descriptor_machine import gate
from small_kernel import (
    CODE_0,
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    DATA,
    EAX,
    EBX,
    ECX,
    EDI,
    EDX,
    STEPS,
    Kernel,
    Step,
    compare,
    from_cr,
    load,
    log,
    mov,
    run,
    save,
    set_cr,
    store,
    to_cr,
)
from timed_kernels import timed
from vmm_judge import EQUAL, judge

from x86virt import Machine, find_guest, find_strategy, load_profile
from x86virt.saved import machine_bytes, machine_of

UNDER = ("svm-npt", "svm-shadow")
OPTIONS = ("state=eager", "vpid=off", "descriptor_tables=on", "p2m=contiguous")
SVM_INSTRUCTIONS = [b"\x0f\x01" + bytes([last]) for last in range(0xD8, 0xE0)]
INT1, CLTS, FNINIT, FLD1, FLDZ, FDIV, FWAIT = b"\xf1", b"\x0f\x06", b"\xdb\xe3", b"\xd9\xe8", b"\xd9\xee", b"\xde\xf1", b"\x9b"
RDMSR, WRMSR, CPUID = b"\x0f\x32", b"\x0f\x30", b"\x0f\xa2"
EFER, VM_CR, SYSENTER_ESP = 0xC0000080, 0xC0010114, 0x175
KEPT = DATA + 0x800
ALIAS = 0x90000
UD, GP, DB = 6, 13, 1
FULL = CR0_PG | CR0_ET | CR0_PE


def keep(number: int, register: int = EAX) -> bytes:
    """Keep a register where the comparison sees it."""
    return save(KEPT + 4 * number, register)


def msr(number: int) -> bytes:
    """ECX names a register."""
    return mov(ECX, number)


def assert_equal(kernel: Kernel, name: str) -> None:
    """Instruction by instruction as on the bare machine."""
    found = compare(kernel, find_strategy(name)(), 1)
    assert found.equal, "\n".join(found.report)


@pytest.mark.parametrize("name", UNDER)
@pytest.mark.parametrize("ring", (0, 3))
def test_svm_is_not_there_for_the_guest(ring: int, name: str) -> None:
    """Its instructions are #UD in every ring, though EFER.SVME is set as they execute; a #GP of the guest's own stays one."""
    kernel = Kernel([Step(code, ring) for code in (*SVM_INSTRUCTIONS, b"\xf4" * ring + b"\x90")])
    assert_equal(kernel, name)
    vectors = [row[0] for row in log(run(kernel, name)[0])]
    assert vectors[:8] == [UD] * 8 and (GP in vectors) == (ring == 3)


@pytest.mark.parametrize("name", UNDER)
def test_registers_of_svm(name: str) -> None:
    """EFER shows no SVME and takes none; VM_CR says that firmware has disabled SVM; SYSENTER's registers are the guest's."""
    steps = [
        msr(EFER) + RDMSR + keep(0),
        msr(EFER) + mov(EAX, 0x1000) + mov(EDX, 0) + WRMSR,
        msr(SYSENTER_ESP) + mov(EAX, 0x1234) + mov(EDX, 0) + WRMSR + mov(EAX, 0) + RDMSR + keep(1),
    ]
    machine, result = run(Kernel([Step(step) for step in [*steps, msr(VM_CR) + RDMSR + keep(2)]]), name)
    kept = [int.from_bytes(machine.read_guest(KEPT + 4 * number, 4), "little") for number in range(3)]
    assert kept == [0, 0x1234, 0x18] and log(machine)[1 - 1][0] == GP
    assert "msr_read" in result.exits and int(result.exits["msr_write"].number) == 1


# -- events whose delivery meets a page that the VMM has to fill ---------------------------------------------------------------


@pytest.mark.parametrize("name", UNDER)
@pytest.mark.parametrize("code", (INT1, b"\xcc", b"\xcd\x81", b"\x0f\x0b", b"\xce"))
def test_a_delivery_through_pages_that_were_never_touched(code: bytes, name: str) -> None:
    """IDT, TSS and handler are met for the first time by the event itself, from either ring: it pushes what it should."""
    for ring in (0, 3):
        assert_equal(Kernel([Step(b"\x04\x7f\x04\x7f" + code + b"\x90", ring), Step(code + b"\x90" + code, ring)]), name)


# -- interrupts amid a repeated string whose pages the VMM fills ----------------------------------------------------------------


def fill_of_eight_pages(ring: int, period: int) -> Kernel:
    """REP STOSB through pages that were never touched, which a timer interrupts; both handler and stack are new to it too."""
    code = mov(ECX, 0x8000) + mov(EDI, 0x70000) + b"\xfc\xf3\xaa\x90"
    return timed([Step(b"\xfb" + code) if ring == 0 else Step(code, 3, 0x202)], period)


@pytest.mark.parametrize("period", (2, 3, 4, 5, 6, 10))
@pytest.mark.parametrize("ring", (0, 3))
@pytest.mark.parametrize("name", (*UNDER, "vtx-ept", "vtx-shadow"))
def test_an_interrupt_waits_for_the_access_that_a_page_was_filled_for(name: str, ring: int, period: int) -> None:
    """Also if the guest was entered for it in vain; and RF is pushed as the string has it, however often delivery is begun.

    With the shortest periods the VMM sees its devices act, again and again, while an interrupt is being delivered.
    """
    verdict = judge(fill_of_eight_pages(ring, period), name, 512, True)
    assert verdict.kind == EQUAL
    assert period > 5 or verdict.deliveries


# -- CR0 ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNDER)
def test_cr0_is_the_guests_own(name: str) -> None:
    """Bits that the hardware may have otherwise: read, written with the hardware's own value, by SMSW, LMSW and CLTS."""
    smsw, lmsw = b"\x0f\x01\xe0", b"\x0f\x01\xf0"
    smsw_memory = b"\x0f\x01\x25" + (KEPT + 0x40).to_bytes(4, "little")
    steps = [
        from_cr(0) + keep(0) + smsw + keep(1) + smsw_memory,
        set_cr(0, FULL | CR0_WP) + from_cr(0, EBX) + keep(2, EBX) + to_cr(0, EBX),
        set_cr(0, FULL) + from_cr(0, EBX) + keep(3, EBX) + store(KEPT + 0x44, 5),
        set_cr(0, FULL | 0x0A) + smsw + keep(4) + CLTS + from_cr(0, EBX) + keep(5, EBX),
        from_cr(0) + b"\x0c\x0e" + lmsw + smsw + keep(6) + CLTS + set_cr(0, FULL),
        set_cr(0, 0x20000011) + b"\x90",
        set_cr(0, FULL & ~CR0_PE) + b"\x90",
        set_cr(4, 0x90) + from_cr(4, EBX) + keep(7, EBX) + set_cr(4, 0x10) + from_cr(3, EBX) + keep(8, EBX) + to_cr(3, EBX),
    ]
    assert_equal(Kernel([Step(step) for step in steps]), name)


def test_clts_exits_neither_under_shadow_tables() -> None:
    """The selective intercept of CR0's writes leaves TS to the guest, once its other bits are what the hardware has."""
    before = set_cr(0, FULL | CR0_WP)
    few, many = (run(Kernel([Step(before + CLTS * count)]), "svm-shadow")[1].exits["cr_access"].number for count in (1, 50))
    assert few == many


# -- x87 exceptions with CR0.NE clear --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNDER)
def test_a_frozen_x87_exception(name: str) -> None:
    """FERR# is the virtual board's: the guest halts in front of the next waiting instruction as on the bare machine."""
    unmask = b"\x68\x3b\x03\x00\x00\xd9\x2c\x24\x58"
    ignne = b"\xe6\xf0"
    code = FNINIT + unmask + FLD1 + FLDZ + FDIV + b"\x90"
    assert_equal(Kernel([Step(code + FWAIT)]), name)
    assert_equal(Kernel([Step(code + ignne + b"\x90" + FNINIT + FLD1)]), name)
    assert_equal(Kernel([Step(set_cr(0, FULL | 0x20) + code + FWAIT + b"\x90"), Step(FNINIT)]), name)


# -- what exits ---------------------------------------------------------------------------------------------------------------


def finished(guest: str, name: str, iterations: int) -> Machine:
    """A guest's run to its end."""
    machine = Machine(find_strategy(name)(), load_profile("k10_barcelona"), 8 << 20)
    machine.load(find_guest(guest), f"iterations={iterations}")
    machine.run(2_000_000_000)
    assert machine.outcome == "halted" and machine.ledger().event_count("vmm.unpriced_hook") == 0
    return machine


@pytest.mark.parametrize("guest", ("cr3switch", "syscall", "ptemod", "divzero", "intflag", "callret"))
def test_nothing_of_the_guests_memory_exits_under_nested_paging(guest: str) -> None:
    """More iterations, no more exits: CR3, INVLPG, page tables, faults and interrupts' flag are the guest's own."""
    few, many = (finished(guest, "svm-npt", number).result().exits for number in (10, 30))
    assert {reason: row.number for reason, row in few.items()} == {reason: row.number for reason, row in many.items()}


def test_vmsave_and_vmload_only_where_they_are_needed() -> None:
    """None between two exits that ask for nothing they carry, unless all is moved eagerly."""
    lazy, eager = (finished("portio", name, 20).ledger().event_count for name in ("svm-npt", "svm-npt,state=eager"))
    assert lazy("svm.vmload") < 4 < eager("svm.vmload") and lazy("svm.vmsave") < 4
    assert eager("svm.vmload") >= 2 * eager("svm.vmrun") - 2
    assert lazy("svm.vmcb_read") < eager("svm.vmcb_read") and lazy("svm.vmrun") == eager("svm.vmrun")


def test_the_host_takes_its_interrupts_through_its_own_idt() -> None:
    """Each exit for one is followed by STGI, a delivery and CLGI; so does the wait of a halted guest's VMM."""
    machine = finished("irq", "svm-npt", 3)
    count, exits = machine.ledger().event_count, machine.result().exits
    taken = exits["external_interrupt"].number + exits["host_timer"].number
    assert count("svm.stgi") == taken and count("svm.clgi") >= taken
    assert count("exit.external_interrupt") == exits["external_interrupt"].number


@pytest.mark.parametrize("option", OPTIONS)
@pytest.mark.parametrize("name", UNDER)
def test_options_change_costs_alone(name: str, option: str) -> None:
    steps = [
        Step(b"\x0f\x01\x15\x10\x60\x00\x00" + load(EAX, ALIAS) + keep(0) + CPUID + keep(1)),
        Step(b"\x0f\x00\xc0" + keep(2) + b"\x0f\x00\xc8" + keep(3) + b"\x0f\x01\x0d" + (KEPT + 0x20).to_bytes(4, "little"), 3),
        Step(mov(EAX, 0x23) + b"\x8e\xe0\x8e\xe8" + b"\x0b\x20" + b"\xe4\x60" + keep(4)),
    ]
    assert_equal(Kernel(steps, gates={0x83: gate(CODE_0, STEPS, 15, dpl=3)}), f"{name},{option}")


@pytest.mark.parametrize("name", UNDER)
def test_a_run_that_is_saved_and_restored_ends_as_the_unbroken_one(name: str) -> None:
    """With flushes, windows and carried registers on the way."""

    def machine() -> Machine:
        made = Machine(find_strategy(name)(), load_profile("k10_barcelona"), 8 << 20)
        made.load(find_guest("ptemod"), "iterations=5")
        return made

    whole, broken, limit = machine(), machine(), 0
    whole.run(2_000_000_000)
    while broken.advance(limit := limit + 1500, 2_000_000_000):
        broken = machine_of(machine_bytes(broken), "test")
    one, two = whole.result(), broken.result()
    assert (one.outcome, one.ticks, one.instructions, one.console) == (two.outcome, two.ticks, two.instructions, two.console)
    assert (one.ledger.ticks == two.ledger.ticks).all()


def test_a_processor_without_svm() -> None:
    """One line says so."""
    machine = Machine(find_strategy("svm-npt")(), load_profile("k8_opteron"), 8 << 20)
    machine.load(find_guest("hello"))
    assert machine.run().outcome.startswith("unsupported: k8_opteron has no SVM")
