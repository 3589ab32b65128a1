"""What VM entry does behind its checks: injected events, state that is loaded, pending debug exceptions, the timer, MSRs."""

import itertools

import pytest
from bare_machine import CODE, CODE_0, HANDLERS, IDT, STACK, TSS
from descriptor_machine import gate
from vmx_machine import CR0, HOST_RIP, MSR_AREA, VmxMachine

from x86virt.core.layout import HOOK, VMX_NON_ROOT
from x86virt.isa.vmx import EXIT_EXCEPTION_OR_NMI, EXIT_PREEMPTION_TIMER, EXIT_TRIPLE_FAULT

EVENT, PIN, PROCESSOR = (
    "vm_entry_interruption_information", "pin_based_vm_execution_controls", "primary_processor_based_vm_execution_controls"
)  # fmt: skip
EXTERNAL, NMI, HARDWARE, SOFTWARE_INTERRUPT, PRIVILEGED, SOFTWARE_EXCEPTION = 0, 2, 3, 4, 5, 6
VALID, CODE_BIT = 1 << 31, 1 << 11
RF, IF, TF, VM, FIXED = 1 << 16, 1 << 9, 1 << 8, 1 << 17, 2
WITH_CODE = (8, 10, 11, 12, 13, 14, 17)
TOP = STACK + 0x1000
HLT_EXIT = 12


@pytest.fixture(scope="module")
def machine() -> VmxMachine:
    """A machine of the profile that has most."""
    return VmxMachine("nehalem")


def fresh(machine: VmxMachine, **changes: int) -> VmxMachine:
    """The machine with a guest whose handlers are HLTs beside the host's hooks, and some fields changed."""
    machine.power_on()
    machine.begin()
    machine.cpu.hook_first, machine.cpu.hook_last = HOST_RIP, HOST_RIP
    machine.write_code(bytes(0x100).replace(b"\0", b"\xf4"), HANDLERS)
    for vector in range(256 if IDT + 256 * 8 <= TSS else 32):
        machine.put(IDT + 8 * vector, gate(CODE_0, HANDLERS + (vector & 31), 14), 8)
    machine.store({PROCESSOR: machine.fields[PROCESSOR] | 1 << 7} | changes)  # HLT exits
    return machine


def frame(machine: VmxMachine) -> list[int]:
    """What lies on the guest's stack, from the top of what was pushed: up to four doublewords."""
    pointer = int(machine.gpr[4])
    return [machine.get(address) for address in range(pointer, TOP, 4)]


@pytest.mark.parametrize("flags", (FIXED | IF, FIXED | IF | RF), ids=("RF clear", "RF set"))
def test_every_kind_of_event(machine: VmxMachine, flags: int) -> None:
    """The handler, the saved RIP (behind the instruction that it is said to come from), RFLAGS as they are, the error code."""
    events = [(EXTERNAL, 0x1F), (NMI, 2), *((HARDWARE, n) for n in (0, 1, 3, 6, 13, 14, 17)), (SOFTWARE_INTERRUPT, 0x15)]
    for kind, vector in (*events, (PRIVILEGED, 1), (SOFTWARE_EXCEPTION, 3), (SOFTWARE_EXCEPTION, 4)):
        has_code = kind == HARDWARE and vector in WITH_CODE
        fields = {
            EVENT: VALID | has_code * CODE_BIT | kind << 8 | vector, "vm_entry_exception_error_code": 0x1230,
            "vm_entry_instruction_length": 2, "guest_rflags": flags,
        }  # fmt: skip
        fresh(machine, **fields)
        before = int(machine.cpu.dr[6]), int(machine.cpu.cr2)
        assert machine.enter() == "entered" and int(machine.cpu.world) == VMX_NON_ROOT
        assert int(machine.cpu.rip) == HANDLERS + (vector & 31)
        rip = CODE + 2 * (kind >= SOFTWARE_INTERRUPT)
        assert frame(machine) == [0x1230] * has_code + [rip, CODE_0, flags], (kind, vector)
        assert int(machine.cpu.eflags) & (IF | RF | TF) == 0
        assert (int(machine.cpu.dr[6]), int(machine.cpu.cr2)) == before
        assert int(machine.cpu.vmx.nmi_blocked) == int(kind == NMI)


@pytest.mark.parametrize("bitmap", (0, 1 << 13, 1 << 8))
def test_a_fault_of_the_delivery(machine: VmxMachine, bitmap: int) -> None:
    """A gate that is no gate: #GP with EXT by the event's type, pushed with the guest's RIP; or an exit that tells of both."""
    for kind, vector in ((EXTERNAL, 0x1F), (SOFTWARE_INTERRUPT, 0x1F), (PRIVILEGED, 1)):
        fresh(machine, exception_bitmap=bitmap, guest_rflags=FIXED | IF, vm_entry_instruction_length=2)
        machine.store({EVENT: VALID | kind << 8 | vector})
        machine.put(IDT + 8 * vector, 0, 8)
        assert machine.enter() == "entered"
        error = vector << 3 | 2 | (kind != SOFTWARE_INTERRUPT)
        if bitmap != 1 << 13:
            assert int(machine.cpu.rip) == HANDLERS + 13
            assert frame(machine) == [error, CODE, CODE_0, FIXED | IF | RF]
            continue
        assert machine.field("exit_reason") == EXIT_EXCEPTION_OR_NMI and int(machine.cpu.rip) == HOST_RIP
        assert machine.field("vm_exit_interruption_information") == VALID | CODE_BIT | 3 << 8 | 13
        assert machine.field("vm_exit_interruption_error_code") == error
        assert machine.field("idt_vectoring_information") == VALID | kind << 8 | vector
        assert machine.field("vm_exit_instruction_length") == (2 if kind >= SOFTWARE_INTERRUPT else 0)
        assert machine.field("guest_rip") == CODE
        assert machine.field(EVENT) >> 31 == 0


def test_an_event_that_cannot_be_delivered_at_all(machine: VmxMachine) -> None:
    """No IDT: a triple fault, which exits."""
    fresh(machine, guest_idtr_limit=0)
    machine.store({EVENT: VALID | HARDWARE << 8 | 6})
    assert machine.enter() == "entered" and machine.field("exit_reason") == EXIT_TRIPLE_FAULT


def test_pending_debug_exceptions(machine: VmxMachine) -> None:
    """BS or an enabled breakpoint is a #DB before the first instruction, unless an event comes or MOV SS holds it off."""
    for pending, held, injected in itertools.product((0, 1 << 14, 1, 1 << 12 | 2), (0, 2), (0, 1)):
        fresh(machine, guest_pending_debug_exceptions=pending)
        if held and pending & 1 << 14:
            machine.store({"guest_rflags": FIXED | TF})
        machine.store({"guest_interruptibility_state": held})
        machine.store({EVENT: VALID | HARDWARE << 8 | 6} if injected else {})
        assert machine.enter() == "entered"
        valid = pending & (1 << 14 | 1 << 12) and not injected
        machine.write_code(b"\x90\x90\xf4")
        assert machine.processor.run() == HOOK and machine.field("exit_reason") == HLT_EXIT
        stopped = machine.field("guest_rip")
        if injected:
            assert stopped == HANDLERS + 6
        elif valid:
            assert stopped == HANDLERS + 1
            assert frame_of_guest(machine)[0] == CODE + (held != 0)
            assert int(machine.cpu.dr[6]) & 0xF == pending & 0xF
        else:
            assert stopped == CODE + 2


def frame_of_guest(machine: VmxMachine) -> list[int]:
    """The same by the saved RSP, once the guest has been left."""
    return [machine.get(address) for address in range(machine.field("guest_rsp"), TOP, 4)]


def test_virtual_8086_software_interrupts(machine: VmxMachine) -> None:
    """IOPL is not looked at: through the IDT without CR4.VME, by the redirection bitmap with it."""
    segments = {
        f"guest_{name}_{part}": value for name in ("es", "cs", "ss", "ds", "fs", "gs")
        for part, value in (("selector", 0x1C00), ("base", 0x1C000), ("limit", 0xFFFF), ("access_rights", 0xF3))
    }  # fmt: skip
    segments |= {"guest_ss_selector": 0x3000, "guest_ss_base": 0x30000}
    for vme, redirected, iopl in itertools.product((0, 1), (0, 1), (0, 3)):
        fresh(machine, **segments, guest_rflags=VM | FIXED | iopl << 12, guest_rip=0, guest_rsp=0x1000)
        machine.store({"guest_cr4": 0x2000 | vme, EVENT: VALID | SOFTWARE_INTERRUPT << 8 | 0x15, "guest_tr_limit": 0x2FF})
        machine.store({"vm_entry_instruction_length": 2})
        machine.put(IDT + 8 * 0x15, gate(CODE_0, HANDLERS + 0x15, 14, dpl=3), 8)
        machine.put(TSS + 102, 0x90, 2)
        machine.put(TSS + 0x90 - 32 + 2, 0 if redirected else 0xFF, 1)
        machine.put(0x15 * 4, 0x1C00 << 16 | 0x40)
        assert machine.enter() == "entered"
        if vme and redirected:
            assert int(machine.cpu.rip) == 0x40 and int(machine.cpu.eflags) & VM
            assert machine.get(0x30000 + 0x1000 - 6, 2) == 2
        else:
            assert int(machine.cpu.rip) == HANDLERS + 0x15 and int(machine.cpu.eflags) & VM == 0
            assert machine.get(int(machine.gpr[4])) == 2


def test_the_timer_counts_down(machine: VmxMachine) -> None:
    """Zero exits before the first instruction; a value exits once the time-stamp counter has gone on by it, at the rate."""
    for value in (0, 1, 50):
        fresh(machine, **{PIN: machine.fields[PIN] | 1 << 6, "vmx_preemption_timer_value": value})
        machine.write_code(b"\xeb\xfe")
        begun = int(machine.cpu.ticks)
        assert machine.enter() == "entered"
        assert machine.processor.run() == HOOK and machine.field("exit_reason") == EXIT_PREEMPTION_TIMER
        cycles = (int(machine.cpu.ticks) - begun) >> 6
        assert cycles >= (value - 1) * 32
        if value == 0:
            assert machine.field("guest_rip") == CODE


def test_state_that_is_loaded(machine: VmxMachine) -> None:
    """Control registers but CD and NW, MSRs, tables, segments; and the MSR area, up to what cannot be loaded."""
    fresh(machine, guest_cr0=CR0 | 3 << 29 | 1 << 18, guest_ia32_sysenter_cs=8, guest_ia32_sysenter_esp=0x1234)
    machine.store({"guest_gs_base": 0x5000, "guest_gdtr_limit": 0x6F, "guest_ldtr_access_rights": 0x10000})
    assert machine.enter() == "entered"
    cpu = machine.cpu
    assert int(cpu.cr0) == CR0 | 1 << 18 and (int(cpu.sysenter_cs), int(cpu.sysenter_esp)) == (8, 0x1234)
    assert int(cpu.seg[5].seg_base) == 0x5000 and int(cpu.gdtr_limit) == 0x6F
    failed = "exit 34 2"
    for number, high, expected in ((0x174, 0, "entered"), (0xC0000100, 0, failed), (0x174, 1, failed), (0x800, 0, failed)):
        fresh(machine, vm_entry_msr_load_count=2, vm_entry_msr_load_address=MSR_AREA)
        for entry, words in enumerate(((0x175, 0, 0x4321, 0), (number, high, 0x18, 0))):
            for place, word in enumerate(words):
                machine.put(MSR_AREA + 16 * entry + 4 * place, word)
        assert machine.enter() == expected
        if expected == "entered":
            assert (int(machine.cpu.sysenter_cs), int(machine.cpu.sysenter_esp)) == (0x18, 0x4321)
