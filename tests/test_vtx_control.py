"""VtxControl and VtxGuestState: a VMM in Python holds guests of every mode on a processor without unrestricted guest."""

import pytest
from vtx_machine import (
    CODE,
    GUEST_DIRECTORY,
    HOST_ENTRY,
    REAL_DATA,
    STACK,
    UNUSABLE,
    VtxMachine,
)

from x86virt.isa.events import EVENT_ID
from x86virt.isa.registers import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR4_PSE,
    CR4_VMXE,
    CS,
    DS,
    EAX,
    EBX,
    EFLAGS_IF,
    EFLAGS_IOPL,
    SS,
)
from x86virt.isa.vectors import DF, GP, KIND_EXCEPTION, KIND_EXTERNAL, KIND_SOFTWARE_INTERRUPT, MF, PF, UD
from x86virt.processor import Processor
from x86virt.profile import load_profile
from x86virt.vmm.hardware.control import EntryFailed
from x86virt.vmm.hardware.identity import DIRECTORY_FRAME, HOLE_FRAME, TABLE_FRAME
from x86virt.vmm.hardware.vtx import VtxControl
from x86virt.vmm.hardware.vtx_state import DIRECT, IDENTITY, VIRTUAL_8086, VtxGuestState

CPUID, HLT, NOP, CLI, STI, PUSHF, INT_20, INT3 = (
    b"\x0f\xa2",
    b"\xf4",
    b"\x90",
    b"\xfa",
    b"\xfb",
    b"\x9c",
    b"\xcd\x20",
    b"\xcc",
)
SMSW_AX = b"\x0f\x01\xe0"
MOV_EAX_CR0, MOV_CR0_EAX, MOV_CR3_EAX, MOV_EAX_CR3 = b"\x0f\x20\xc0", b"\x0f\x22\xc0", b"\x0f\x22\xd8", b"\x0f\x20\xd8"
MOV_CR4_EAX, MOV_EAX_CR4 = b"\x0f\x22\xe0", b"\x0f\x20\xe0"


@pytest.fixture
def machine() -> VtxMachine:
    return VtxMachine()


def mov_eax(value: int) -> bytes:
    return b"\xb8" + value.to_bytes(4, "little")


# -- the structure ----------------------------------------------------------------------------------------------------


def test_fields_are_read_and_written_at_a_price(machine: VtxMachine) -> None:
    control, counts = machine.control, machine.cpu.ledger_count
    for key in ("guest_rip", "guest_tr_base", "exception_bitmap", "guest_pdpte2", "tsc_offset"):
        width = 64 if key in ("guest_pdpte2", "tsc_offset") else 32
        value = 0x123456789ABCDEF0 & (1 << width) - 1
        before = [int(counts[EVENT_ID[f"vmx.{name}"]].sum()) for name in ("vmread", "vmwrite")]
        control.write(key, value)
        assert control.read(key) == value == control.peek(key)
        after = [int(counts[EVENT_ID[f"vmx.{name}"]].sum()) for name in ("vmread", "vmwrite")]
        assert [after[0] - before[0], after[1] - before[1]] == [width // 32, width // 32]


def test_controls_go_by_name_as_the_processor_allows_them(machine: VtxMachine) -> None:
    control = machine.control
    assert (
        control.set_control("RDTSC exiting")
        and control.stored("primary_processor_based_vm_execution_controls") & 1 << 12
    )
    assert control.set_control("RDTSC exiting", False)
    assert not control.stored("primary_processor_based_vm_execution_controls") & 1 << 12
    old = VtxControl(Processor(load_profile("core2_woodcrest"), 1 << 20))
    assert not old.has_control("enable EPT") and not old.set_control("enable EPT")
    assert not old.set_control("activate VMX-preemption timer")
    assert old.set_control("CR3-load exiting") and (old.set_control("CR3-load exiting", False) == has_true(old))


def has_true(control: VtxControl) -> bool:
    return bool(int(control.processor.cpu.msr.vmx_capability[0]) >> 55 & 1)


def test_a_processor_without_vmx_says_so() -> None:
    control = VtxControl(Processor(load_profile("p4_prescott"), 1 << 20))
    with pytest.raises(EntryFailed, match="vmx_on failed"):
        control.start(0, HOST_ENTRY)


# -- a guest with paging of its own -------------------------------------------------------------------------------------


def paged(machine: VtxMachine, code: bytes, **values: int) -> None:
    machine.identity_paging()
    machine.begin_flat(code, CR0_PG, cr3=GUEST_DIRECTORY, cr4=CR4_PSE, **values)


def test_exits_by_instructions(machine: VtxMachine) -> None:
    out = b"\x66\xba\x80\x00\xee"  # mov dx, 80h; out dx, al
    rdmsr = b"\xb9\x1b\x00\x00\x00\x0f\x32"
    paged(machine, CPUID + out + rdmsr + HLT)
    exit = machine.run()
    assert (exit.reason, exit.length, exit.rip, machine.state.form) == ("cpuid", 2, CODE, DIRECT)
    exit = machine.step()
    assert (exit.reason, exit.length, exit.qualification) == ("io_instruction", 1, 0x80 << 16)
    exit = machine.step()
    assert (exit.reason, exit.length) == ("msr_read", 2)
    assert machine.step().reason == "hlt"


def test_bitmaps_let_ports_and_registers_through(machine: VtxMachine) -> None:
    machine.control.set_ports(0x80, 1, False)
    machine.control.set_register(0x1B, reads=False, writes=True)
    paged(machine, b"\x66\xba\x80\x00\xee" + b"\xb9\x1b\x00\x00\x00\x0f\x32\x0f\x30")
    assert machine.run().reason == "msr_write"


def test_the_guest_owns_what_is_not_masked(machine: VtxMachine) -> None:
    paged(machine, MOV_EAX_CR0 + b"\x83\xc8\x08" + MOV_CR0_EAX + CPUID)  # or eax, 8 (TS)
    assert machine.run().reason == "cpuid"
    assert machine.state.read("guest_cr0") == CR0_PE | CR0_PG | CR0_TS | CR0_ET
    assert machine.control.stored("guest_cr0") & 0x20, "NE is the hardware's"


def test_the_guest_does_not_see_vmxe_and_may_set_it(machine: VtxMachine) -> None:
    paged(machine, MOV_EAX_CR4 + b"\x89\xc3" + b"\x0d\x00\x20\x00\x00" + MOV_CR4_EAX + MOV_EAX_CR4 + CPUID)
    exit = machine.run()
    assert (exit.reason, exit.qualification & 0xF) == ("cr_access", 4)
    assert int(machine.cpu.gpr[EBX]) == CR4_PSE
    machine.state.write("guest_cr4", int(machine.cpu.gpr[EAX]))
    assert machine.step().reason == "cpuid"
    assert int(machine.cpu.gpr[EAX]) == CR4_PSE | CR4_VMXE


def test_cr3_is_the_guests_own(machine: VtxMachine) -> None:
    paged(machine, mov_eax(GUEST_DIRECTORY) + MOV_CR3_EAX + MOV_EAX_CR3 + CPUID)
    assert machine.run().reason == "cpuid"
    assert machine.state.read("guest_cr3") == GUEST_DIRECTORY


def test_cr3_targets_spare_exits(machine: VtxMachine) -> None:
    machine.state.watch_cr3(2)
    machine.load((0x87).to_bytes(4, "little"), 0x21000)
    moves = b"".join(
        mov_eax(value) + MOV_CR3_EAX for value in (GUEST_DIRECTORY, 0x21000, GUEST_DIRECTORY, 0x21000, 0x22000)
    )
    paged(machine, moves)
    exit = machine.run()
    assert (exit.reason, exit.qualification & 0xF, int(machine.cpu.gpr[EAX])) == ("cr_access", 3, 0x21000)
    machine.state.write("guest_cr3", 0x21000)
    exit = machine.step()
    assert int(machine.cpu.gpr[EAX]) == 0x22000
    assert machine.state.read("guest_cr3") == 0x21000


def test_no_cr3_target_counts_while_the_guest_has_no_paging(machine: VtxMachine) -> None:
    machine.state.watch_cr3(4)
    machine.begin_flat(mov_eax(0x5000) + MOV_CR3_EAX, cr3=0x5000)
    assert machine.run().reason == "cr_access"
    assert machine.control.stored("cr3_target_count") == 0


# -- events -------------------------------------------------------------------------------------------------------------


def test_an_exception_in_the_bitmap_exits_with_its_error_code(machine: VtxMachine) -> None:
    machine.control.set_exceptions(1 << PF | 1 << GP | 1 << 3)
    paged(machine, b"\xa1\x00\x00\x80\x00" + INT3 + b"\xcd\xff")
    exit = machine.run()
    assert (exit.reason, exit.vector, exit.gla, exit.error, exit.vectoring) == (
        "exception_or_nmi",
        PF,
        0x800000,
        0,
        None,
    )
    machine.control.skip(5)
    exit = machine.run()
    assert (exit.vector, exit.kind, exit.length) == (3, 6, 1)
    machine.control.skip(1)
    exit = machine.run()
    assert (exit.vector, exit.error, exit.vectoring) == (GP, 0xFF * 8 + 2, (0xFF, KIND_SOFTWARE_INTERRUPT, None))


@pytest.mark.parametrize(
    ("vector", "kind", "error", "length", "pushed"),
    [
        (UD, KIND_EXCEPTION, None, 0, CODE),
        (GP, KIND_EXCEPTION, 0x1234, 0, CODE),
        (0x20, KIND_EXTERNAL, None, 0, CODE),
        (0x20, KIND_SOFTWARE_INTERRUPT, None, 2, CODE + 2),
    ],
)
def test_an_injected_event_enters_its_handler(machine, vector, kind, error, length, pushed) -> None:
    paged(machine, INT_20 + CPUID, flags=2 | EFLAGS_IF)
    machine.control.inject(vector, kind, error, length)
    assert machine.control.injects() == (vector, kind)
    exit = machine.run()
    assert (exit.reason, exit.rip) == ("hlt", 0x9000 + 16 * vector)
    stack = STACK - 12 - (4 if error is not None else 0)
    assert machine.control.stored("guest_rsp") == stack
    if error is not None:
        assert machine.word(stack, 4) == error
    assert machine.word(STACK - 12, 4) == pushed
    assert machine.control.injects() is None


def test_the_window_exits_when_the_guest_lets_interrupts_in(machine: VtxMachine) -> None:
    paged(machine, NOP + STI + NOP + CPUID)
    machine.control.want_window(True)
    exit = machine.run()
    assert (exit.reason, exit.rip) == ("interrupt_window", CODE + 3)  # STI holds off one instruction more
    machine.control.want_window(False)
    assert machine.run().reason == "cpuid"


def test_skipping_ends_what_sti_held_off(machine: VtxMachine) -> None:
    paged(machine, STI + CPUID + NOP + CPUID)
    assert machine.run().reason == "cpuid"
    assert machine.control.stored("guest_interruptibility_state") == 1
    machine.control.want_window(True)
    exit = machine.step()
    assert (exit.reason, exit.rip) == ("interrupt_window", CODE + 3)


def test_a_delivery_that_meets_a_nested_hole_is_told_and_injected_again(machine: VtxMachine) -> None:
    paged(machine, INT_20)
    machine.state.write("guest_rsp", 0x300000)  # behind the guest's RAM, below its 4 MB
    exit = machine.run()
    assert (exit.reason, exit.gpa >> 12) == ("ept_violation", 0x2FF)
    assert exit.vectoring == (0x20, KIND_SOFTWARE_INTERRUPT, None)
    machine.put(0x102008, 0x600000 | 0xB7, 8)  # 2 MB there
    machine.control.flush()
    machine.control.inject(0x20, KIND_SOFTWARE_INTERRUPT, None, exit.length)
    exit = machine.run()
    assert (exit.reason, exit.rip) == ("hlt", 0x9200)
    assert machine.get(0x600000 + 0x100000 - 12) == CODE + 2


# -- without paging -----------------------------------------------------------------------------------------------------


def test_a_guest_without_paging_runs_on_identity_tables(machine: VtxMachine) -> None:
    code = MOV_EAX_CR0 + b"\x89\xc3" + b"\xa3\x00\x50\x01\x00" + CPUID + mov_eax(0x5000) + MOV_CR3_EAX + MOV_EAX_CR3
    machine.begin_flat(code)
    assert machine.run().reason == "cpuid"
    assert machine.state.form == IDENTITY and machine.shown == {DIRECTORY_FRAME, TABLE_FRAME}
    assert int(machine.cpu.gpr[EBX]) == CR0_PE | CR0_ET == machine.word(0x15000, 4)
    assert machine.state.read("guest_cr0") == CR0_PE | CR0_ET
    exit = machine.step()
    assert (exit.reason, exit.qualification) == ("cr_access", 3)
    machine.state.write("guest_cr3", int(machine.cpu.gpr[EAX]))
    exit = machine.step()
    assert (exit.reason, exit.qualification) == ("cr_access", 3 | 1 << 4)
    assert machine.state.read("guest_cr3") == 0x5000
    assert machine.control.stored("guest_cr3") == DIRECTORY_FRAME << 12


def test_it_does_not_find_the_tables_on_which_it_runs(machine: VtxMachine) -> None:
    machine.begin_flat(b"\xa1" + (DIRECTORY_FRAME << 12).to_bytes(4, "little"))
    exit = machine.run()
    assert (exit.reason, exit.gpa) == ("ept_violation", HOLE_FRAME << 12)


def test_turning_paging_on_and_off(machine: VtxMachine) -> None:
    machine.identity_paging()
    code = MOV_EAX_CR0 + b"\x0d\x00\x00\x00\x80" + MOV_CR0_EAX + b"\xa1" + (DIRECTORY_FRAME << 12).to_bytes(4, "little")
    machine.begin_flat(code, cr3=GUEST_DIRECTORY, cr4=CR4_PSE)
    exit = machine.run()
    assert (exit.reason, exit.qualification & 0xFF) == ("cr_access", 0)
    machine.state.write("guest_cr0", int(machine.cpu.gpr[EAX]))
    exit = machine.step()
    assert (exit.reason, exit.gpa) == ("ept_violation", DIRECTORY_FRAME << 12), "the bare machine's hole"
    assert machine.state.form == DIRECT and machine.control.stored("guest_cr3") == GUEST_DIRECTORY
    machine.state.write("guest_cr0", CR0_PE | CR0_ET)
    machine.load(CPUID, CODE + 11)
    assert machine.run().reason == "cpuid"
    assert machine.forms == [("", IDENTITY), (IDENTITY, DIRECT), (DIRECT, IDENTITY)]


# -- real-address mode --------------------------------------------------------------------------------------------------


def test_real_mode_runs_as_virtual_8086_mode(machine: VtxMachine) -> None:
    code = b"\x8c\xc8\xa3\x00\x50" + b"\x0f\x01\xe0\xa3\x02\x50" + b"\xb8\x00\x12\x8e\xd8\xa3\x10\x00" + CPUID
    machine.begin_real(
        code, selector=0x100
    )  # mov ax, cs; mov [5000], ax; smsw ax; mov [5002], ax; mov ds, 1200h; mov [10], ax
    exit = machine.run()
    assert (exit.reason, machine.state.form) == ("cpuid", VIRTUAL_8086)
    assert (machine.word(0x5000), machine.word(0x5002), machine.word(0x12010)) == (0x100, CR0_ET, 0x1200)
    state = machine.state
    assert state.read("guest_cr0") == CR0_ET and state.read("guest_rflags") & 1 << 17 == 0
    ds = state.segment(DS)
    assert (ds.selector, ds.base, ds.limit, ds.access) == (0x1200, 0x12000, 0xFFFF, REAL_DATA)
    assert state.segment(7).access == 0x8B and state.segment(7).limit == 0xFFFF


@pytest.mark.parametrize(
    "instruction", [CLI, STI, PUSHF, b"\x9d", INT_20, b"\xcf", HLT, b"\x0f\x22\xc0", b"\xe4\x60", b"\x0f\x06"]
)
def test_what_would_tell_the_modes_apart_exits(machine: VtxMachine, instruction: bytes) -> None:
    machine.begin_real(instruction)
    exit = machine.run()
    assert (exit.reason, exit.vector, exit.error, exit.rip) == ("exception_or_nmi", GP, 0, CODE)


def test_all_exceptions_exit_there_and_only_there(machine: VtxMachine) -> None:
    machine.begin_real(INT3)
    exit = machine.run()
    assert (exit.reason, exit.vector) == ("exception_or_nmi", 3)
    assert machine.control.stored("exception_bitmap") == 0xFFFFFFFF
    machine.begin_flat(INT3)
    assert machine.run().reason == "hlt", "its own handler"
    assert machine.control.stored("exception_bitmap") == 1 << DF | 1 << MF
    assert machine.forms[-1] == (VIRTUAL_8086, IDENTITY)
    assert machine.state.segment(CS).access == 0xC09B


@pytest.mark.parametrize(
    "spoil",
    [
        lambda m: m.segment(DS, 0x10, 0x100, 0xFFFFFFFF, 0x8F93),  # unreal mode
        lambda m: m.segment(DS, 0, 0, 0xFFFF, UNUSABLE),
        lambda m: m.segment(CS, 0xF000, 0xFFFF0000, 0xFFFF, 0x93),  # after a reset
        lambda m: m.segment(SS, 0, 0, 0xFFFF, 0x4093),
        lambda m: m.state.write("guest_rflags", 2 | EFLAGS_IOPL),
        lambda m: m.state.write("guest_rflags", 0x102),
        lambda m: m.state.write("guest_dr7", 0x401),
    ],
)
def test_other_states_of_real_mode_are_not_held(machine: VtxMachine, spoil) -> None:
    machine.begin_real(NOP)
    spoil(machine)
    assert not machine.state.settle()


@pytest.mark.parametrize(
    ("number", "values"),
    [
        (CS, (0x0B, 0, 0xFFFFFFFF, 0xC09B)),  # RPL is not SS's
        (CS, (8, 0, 0xFFFFFFFF, 0xC093)),  # real mode's data
        (SS, (8, 0, 0xFFFFFFFF, 0xC09B)),
        (DS, (8, 0, 0xFFFFFFFF, 0xC092)),  # not accessed
        (DS, (8, 0, 0x1FFFFF, 0x4093)),  # too long for bytes
        (7, (0x28, 0, 0x67, 0x89)),  # not busy
        (7, (0x2C, 0, 0x67, 0x8B)),
        (6, (8, 0, 0x67, 0x8B)),
    ],
)
def test_states_that_entry_refuses_are_not_held(machine: VtxMachine, number: int, values: tuple) -> None:
    machine.begin_flat(NOP)
    machine.segment(number, *values)
    assert not machine.state.settle()
    machine.begin_flat(NOP)
    assert machine.state.settle()
    machine.segment(number, *values)
    machine.control.enter()
    with pytest.raises(EntryFailed, match="entry_failure_guest_state"):
        machine.control.read_exit()


# -- shadows ------------------------------------------------------------------------------------------------------------


def test_a_shadow_owns_cr3_and_write_protection(machine: VtxMachine) -> None:
    machine.identity_paging()
    machine.state.tables = None
    machine.state.shadow_root(GUEST_DIRECTORY, CR4_PSE)
    machine.begin_flat(MOV_EAX_CR0 + b"\x89\xc3" + MOV_EAX_CR3, cr3=0x5000)
    exit = machine.run()
    assert (exit.reason, exit.qualification) == ("cr_access", 3 | 1 << 4)
    assert int(machine.cpu.gpr[EBX]) == CR0_PE | CR0_ET
    assert machine.state.read("guest_cr3") == 0x5000 and machine.control.stored("guest_cr0") & CR0_PG


def test_a_saved_control_goes_on(machine: VtxMachine) -> None:
    paged(machine, CPUID + CPUID)
    machine.run()
    saved = machine.control.save()
    again = VtxControl(machine.processor)
    again.restore(saved)
    assert again.save() == saved
    state = machine.state.save()
    machine.state = VtxGuestState(again, machine.state.tables, machine.state.note_form)
    machine.state.restore(state)
    assert machine.state.save() == state and machine.state.form == DIRECT
    with pytest.raises(ValueError, match="form"):
        machine.state.restore(state | {"held": state["held"] | {"form": "other"}})
    machine.state.restore(state)
    with pytest.raises(ValueError, match="allows"):
        again.restore(saved | {"controls": dict.fromkeys(saved["controls"], 0)})
    machine.control = again
    assert machine.step().reason == "cpuid"
