"""The VMCB behind the common interface of control structures: formats, exits in VMX's terms, events, address spaces, costs."""

import pytest
from bare_machine import DATA, GDT
from svm_machine import FIELDS, FLAT, GUEST, GUEST_HANDLERS, GUEST_IDT, GUEST_STACK, SEGMENTS, SvmMachine

from x86virt.core.layout import HOOK
from x86virt.isa.events import EVENT_ID
from x86virt.isa.svm import EXIT_NAMES
from x86virt.isa.vectors import KIND_EXCEPTION, KIND_EXTERNAL, KIND_SOFTWARE_INTERRUPT
from x86virt.vmm.hardware.control import GUEST_KEYS, EntryFailed
from x86virt.vmm.hardware.svm_control import SvmControl
from x86virt.vmm.hardware.svm_layout import VMCB
from x86virt.vmm.hardware.svm_state import SvmGuestState
from x86virt.vmm.hardware.vmcb_fields import CARRIED, PLACES

HOST_ENTRY = 0x4010
UNUSABLE = 1 << 16
HLT, CPUID, INT_80, MOV_TO_CR3 = b"\xf4", b"\x0f\xa2", b"\xcd\x80", b"\x0f\x22\xd8"


@pytest.fixture(scope="module")
def host() -> SvmMachine:
    """One machine for all tests."""
    return SvmMachine()


@pytest.fixture
def control(host: SvmMachine) -> SvmControl:
    """A control structure that has been started, of a guest in flat protected mode."""
    host.prepare()
    host.set_efer(0)
    host.memory[VMCB : VMCB + 0x10000] = 0
    host.cpu.hook_first, host.cpu.hook_last = 0x4000, 0x4FFF
    made = SvmControl(host.processor)
    made.start(0, HOST_ENTRY)
    made.set_space(1)
    for name in ("es", "ss", "ds", "fs", "gs"):
        segment(made, name, 0x10, 0xC093)
    segment(made, "cs", 0x08, 0xC09B)
    segment(made, "tr", 0x28, 0x008B)
    values = {
        "guest_cr0": 0x11, "guest_rip": GUEST, "guest_rsp": GUEST_STACK, "guest_rflags": 2, "guest_dr7": 0x400,
        "guest_gdtr_base": GDT, "guest_gdtr_limit": 0x7F, "guest_idtr_base": GUEST_IDT, "guest_idtr_limit": 0xFF,
    }  # fmt: skip
    for key, value in values.items():
        made.write(key, value)
    made.set_control("VMMCALL")
    return made


def segment(control: SvmControl, name: str, selector: int, access: int) -> None:
    """A flat segment, by the interface."""
    for part, value in (("selector", selector), ("base", 0), ("limit", FLAT), ("access_rights", access)):
        control.write(f"guest_{name}_{part}", value)


def run(host: SvmMachine, control: SvmControl, code: bytes | None = None):
    """Enter the guest, with code, up to its next exit."""
    if code is not None:
        host.write_code(code, GUEST)
    assert control.enter() == 0
    assert host.processor.run(False) == HOOK and int(host.cpu.rip) == HOST_ENTRY
    return control.read_exit()


def count(host: SvmMachine, name: str) -> int:
    """How often an event was charged."""
    return int(host.cpu.ledger_count[EVENT_ID[name]].sum())


# -- fields -----------------------------------------------------------------------------------------------------------


def vmcb_name(key: str) -> str:
    """The name of a field in the tests' own table."""
    name = key.removeprefix("guest_").removeprefix("ia32_").replace("access_rights", "attributes")
    return {"interruptibility_state": "shadow", "exception_bitmap": "exceptions"}.get(name, name)


@pytest.mark.parametrize("key", sorted(PLACES))
def test_each_field_is_where_the_manual_has_it(host: SvmMachine, control: SvmControl, key: str) -> None:
    """What is written by a VMCS's key lies at the VMCB's offset, in its width, and reads as it was written."""
    value = {"guest_interruptibility_state": 1, "guest_ia32_efer": 0x800}.get(
        key, 0x9B5A7B91 & (1 << 8 * PLACES[key].count) - 1
    )
    if key.endswith("access_rights"):
        value = 0xD0F3
    if key == "guest_tr_limit":
        value &= 0xFFFF
    control.write(key, value)
    expected = {"guest_ia32_efer": 0x1800}.get(key, value)
    if key.endswith("access_rights"):
        expected = 0xDF3
    assert host.field(vmcb_name(key), VMCB) & 0xFFFFFFFF == expected
    assert control.read(key) == control.stored(key) == value


def test_every_register_of_a_guest_has_a_place() -> None:
    """What the interface moves is all there."""
    assert set(GUEST_KEYS) <= set(PLACES)
    assert {vmcb_name(key) for key in PLACES} <= set(FIELDS)
    assert {key.split("_")[1] for key in CARRIED} == {"fs", "gs", "ldtr", "tr", "ia32"}
    assert set(SEGMENTS) - {"gdtr", "idtr"} == {key.split("_")[1] for key in PLACES if key.endswith("_selector")}


def test_unusable_segments_are_null_ones(control: SvmControl, host: SvmMachine) -> None:
    """P clear in the attributes, and back."""
    control.write("guest_gs_access_rights", UNUSABLE)
    assert host.field("gs_attributes", VMCB) == 0 and control.read("guest_gs_access_rights") == UNUSABLE
    control.write("guest_ss_access_rights", 0xC0F3)
    assert host.field("cpl", VMCB) == 3


def test_what_only_vmsave_brings_is_fetched_when_it_is_asked_for(host: SvmMachine, control: SvmControl) -> None:
    """One VMSAVE for any number of fields of an exit, none if nobody asks; VMLOAD only behind a change."""
    move_fs = b"\x66\xb8\x18\x00\x8e\xe0"
    segment(control, "fs", 0, UNUSABLE)
    run(host, control, b"\x0f\x01\xd9")
    saves, loads = count(host, "svm.vmsave"), count(host, "svm.vmload")
    control.write("guest_rip", GUEST)
    run(host, control, b"\x0f\x01\xd9")
    assert (count(host, "svm.vmsave"), count(host, "svm.vmload")) == (saves, loads)
    assert control.peek("guest_fs_access_rights") & UNUSABLE
    assert control.read("guest_fs_access_rights") == UNUSABLE and control.read("guest_fs_selector") == 0
    assert (count(host, "svm.vmsave"), count(host, "svm.vmload")) == (saves + 1, loads)
    segment(control, "fs", 0x13, 0xC0F3)
    control.write("guest_rip", GUEST)
    run(host, control, b"\x8c\xe3\x0f\x01\xd9" + move_fs)
    assert (count(host, "svm.vmsave"), count(host, "svm.vmload")) == (saves + 1, loads + 1)
    assert int(host.gpr[3]) & 0xFFFF == 0x13


def test_eager_switching_moves_all_of_it(host: SvmMachine, control: SvmControl) -> None:
    """VMSAVE and VMLOAD of either at each exit, and VMLOAD of the guest's at each entry."""
    control.eager = True
    before = count(host, "svm.vmsave"), count(host, "svm.vmload")
    run(host, control, b"\x0f\x01\xd9")
    assert (count(host, "svm.vmsave"), count(host, "svm.vmload")) == (before[0] + 1, before[1] + 2)


# -- exits --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "reason", "qualification"),
    (
        ("CPUID", CPUID, "cpuid", 0),
        ("HLT", HLT, "hlt", 0),
        ("CR3_WRITE", MOV_TO_CR3, "cr_access", 3),
        ("CR3_READ", b"\x0f\x20\xd8", "cr_access", 0x13),
        ("DR7_WRITE", b"\x0f\x23\xf8", "dr_access", 7),
        ("DR7_READ", b"\x0f\x21\xf8", "dr_access", 0x17),
        ("IOIO", b"\xe4\x60", "io_instruction", 0x60 << 16 | 8),
        ("IOIO", b"\x66\xba\x34\x12\xef", "io_instruction", 0x1234 << 16 | 3),
        ("IOIO", b"\xb9\x02\x00\x00\x00\xf3\x66\x6f", "io_instruction", 0x30 | 1),
        ("MSR", b"\xb9\x77\x02\x00\x00\x0f\x32", "msr_read", 0),
        ("MSR", b"\xb9\x77\x02\x00\x00\x0f\x30", "msr_write", 0),
        ("INVLPG", b"\x0f\x01\x38", "invlpg", 0),
        ("WBINVD", b"\x0f\x09", "wbinvd", 0),
        ("GDTR_WRITE", b"\x0f\x01\x10", "gdtr_idtr", 0),
        ("LDTR_WRITE", b"\x0f\x00\xd0", "ldtr_tr", 0),
        ("VMMCALL", b"\x0f\x01\xd9", "vmcall", 0),
        ("RDTSC", b"\x0f\x31", "rdtsc", 0),
        ("PAUSE", b"\xf3\x90", "pause", 0),
    ),
)
def test_exits_in_the_terms_of_vmx(host: SvmMachine, control: SvmControl, name, code, reason, qualification) -> None:
    """Reason and qualification; without the control there is no such exit."""
    host.gpr[2] = 0
    control.write("guest_rip", GUEST)
    assert control.set_control(name)
    exit = run(host, control, code + b"\x0f\x01\xd9")
    assert (exit.reason, exit.qualification, exit.vectoring) == (reason, qualification, None)
    if reason == "io_instruction":
        at = control.read("guest_rip")
        assert bytes(host.memory[at : at + exit.length]) == code[at - GUEST :]
    if name in ("CPUID", "RDTSC", "PAUSE", "CR3_READ"):
        control.set_control(name, False)
        control.write("guest_rip", GUEST)
        assert run(host, control).reason == "vmcall"


def test_controls_that_there_are_not(control: SvmControl) -> None:
    """A name of the manual's whose exit never comes, and one that is none."""
    assert (
        not control.set_control("SMI") and not control.set_control("RDTSCP") and not control.set_control("HLT exiting")
    )
    assert sum(control.has_control(name) for name in EXIT_NAMES.values()) == len(EXIT_NAMES) - 5


def test_exceptions_with_their_error_codes(host: SvmMachine, control: SvmControl) -> None:
    """#GP(selector); a page fault has its address."""
    control.set_exceptions(1 << 13 | 1 << 14)
    exit = run(host, control, b"\xb8\x50\x00\x00\x00\x8e\xd8")
    assert (exit.reason, exit.vector, exit.error) == ("exception_or_nmi", 13, 0x50)
    directory = 0x46000
    host.memory[directory : directory + 0x1000] = 0
    host.put(directory, 0x83)
    for key, value in (("guest_cr4", 0x10), ("guest_cr3", directory), ("guest_cr0", 0x80000011), ("guest_rip", GUEST)):
        control.write(key, value)
    control.flush()
    exit = run(host, control, b"\xa3\x34\x12\x80\x00")
    assert (exit.vector, exit.error, exit.gla) == (14, 2, 0x801234)


def test_an_interrupted_delivery(host: SvmMachine, control: SvmControl) -> None:
    """The event whose delivery met an intercepted exception: kind, vector and error code."""
    control.set_exceptions(1 << 11)
    gate = int(host.get(GUEST_IDT + 8 * 6, 8)) & ~(1 << 47)
    host.put(GUEST_IDT + 8 * 6, gate, 8)
    exit = run(host, control, b"\x0f\x0b")
    assert (exit.vector, exit.vectoring) == (11, (6, KIND_EXCEPTION, None))


def test_bits_of_control_registers_that_are_the_vmms(host: SvmMachine, control: SvmControl) -> None:
    """Reads exit only while what the hardware has is not what the guest believes; CLTS never does."""
    directory = 0x46000
    host.memory[directory : directory + 0x1000] = 0
    host.put(directory, 0x83)
    state = SvmGuestState(control)
    state.write("guest_cr4", 0)
    state.write("guest_cr0", 0x11)
    state.shadow_root(directory, 0x10)
    assert state.settle()
    mov_from_cr0, mov_to_cr0, clts, end = b"\x0f\x20\xc0", b"\x0f\x22\xc0", b"\x0f\x06", b"\x0f\x01\xd9"
    assert host.field("cr0", VMCB) == 0x80010011 and state.read("guest_cr0") == 0x11
    assert run(host, control, mov_from_cr0 + end).qualification == 0x10
    host.gpr[0] = 0x80010011  # as the hardware has it, which is not what the guest believes
    control.write("guest_rip", GUEST)
    assert run(host, control, mov_to_cr0 + end).reason == "cr_access"
    control.write("guest_rip", GUEST)
    state.write("guest_cr0", 0x80010011)
    assert state.settle()
    host.gpr[0] = 0
    assert run(host, control, mov_from_cr0 + clts + mov_to_cr0 + end).reason == "vmcall"
    assert int(host.gpr[0]) == state.read("guest_cr0") == 0x80010011
    control.write("guest_rip", GUEST)
    exit = run(host, control, b"\x83\xf0\x08" + mov_to_cr0 + b"\x34\x02" + mov_to_cr0 + b"\xf7\xd0" + mov_to_cr0 + end)
    assert (exit.reason, control.read("guest_rip")) == ("cr_access", GUEST + 3 + 3 + 2 + 3 + 2)
    control.write("guest_rip", GUEST)
    assert run(host, control, b"\x0f\x20\xe0" + end).qualification == 0x14


# -- events ---------------------------------------------------------------------------------------------------------------


def test_injection(host: SvmMachine, control: SvmControl) -> None:
    """An exception with an error code is delivered before the first instruction; a software interrupt is executed again."""
    control.inject(13, KIND_EXCEPTION, 0x50)
    run(host, control, HLT)
    assert control.read("guest_rip") == GUEST_HANDLERS + 16 * 13 and host.get(control.read("guest_rsp"), 4) == 0x50
    control.write("guest_rip", GUEST)
    control.inject(0x1F, KIND_SOFTWARE_INTERRUPT)
    run(host, control, b"\xcd\x1f")
    assert control.read("guest_rip") == GUEST_HANDLERS + 16 * 0x1F
    assert host.get(control.read("guest_rsp"), 4) == GUEST + 2


def test_the_interrupt_window(host: SvmMachine, control: SvmControl) -> None:
    """The guest exits behind STI and what STI holds off, and no more once the window is given up."""
    control.want_window(True)
    exit = run(host, control, b"\x90\xfb\x90\x0f\x01\xd9")
    assert (exit.reason, control.read("guest_rip")) == ("interrupt_window", GUEST + 3)
    control.want_window(False)
    writes = count(host, "svm.vmcb_write")
    control.want_window(False)
    assert count(host, "svm.vmcb_write") == writes
    assert run(host, control).reason == "vmcall"


def test_an_interrupt_that_is_injected(host: SvmMachine, control: SvmControl) -> None:
    """Whatever IF says: the VMM sees to that."""
    control.inject(0x10, KIND_EXTERNAL)
    run(host, control, HLT)
    assert control.read("guest_rip") == GUEST_HANDLERS + 16 * 0x10


# -- registers, entry ----------------------------------------------------------------------------------------------------


def test_eax_is_in_the_processor(host: SvmMachine, control: SvmControl) -> None:
    """Taken from the VMCB at an exit, put there at the entry."""
    host.gpr[0] = 0x1111
    run(host, control, b"\x40\x0f\x01\xd9")
    assert int(host.gpr[0]) == 0x1112
    control.skip(3)
    host.gpr[0] = 0x2221
    host.write_code(b"\x40\x0f\x01\xd9", GUEST + 4)
    run(host, control)
    assert int(host.gpr[0]) == 0x2222 and control.read("guest_rip") == GUEST + 5


def test_a_vmcb_that_vmrun_refuses(control: SvmControl) -> None:
    """NW without CD."""
    control.write("guest_cr0", 0x20000011)
    with pytest.raises(EntryFailed, match="invalid"):
        control.enter()


def test_svm_that_is_disabled(host: SvmMachine, control: SvmControl) -> None:
    """EFER.SVME cannot be set where firmware has disabled it."""
    host.set_efer(0)
    host.cpu.msr.has_svm = 2
    with pytest.raises(EntryFailed, match="SVME"):
        SvmControl(host.processor).start(0, HOST_ENTRY)
    host.cpu.msr.has_svm = 1


# -- translations -----------------------------------------------------------------------------------------------------------


def test_flushes(host: SvmMachine, control: SvmControl) -> None:
    """A flush takes the next address space; behind the last one TLB_CONTROL drops all and the first comes again."""
    asids = []
    for _ in range(64):
        run(host, control, b"\x0f\x01\xd9")
        control.write("guest_rip", GUEST)
        asids.append((host.field("asid", VMCB), host.field("tlb_control", VMCB)))
        control.flush()
    assert asids == [(asid, 0) for asid in range(1, 64)] + [(1, 1)]
    before = count(host, "svm.invlpga")
    control.flush(DATA)
    assert count(host, "svm.invlpga") == before + 1


def test_without_tags_every_entry_drops_all(host: SvmMachine, control: SvmControl) -> None:
    """`set_space(0)`."""
    control.set_space(0)
    run(host, control, b"\x0f\x01\xd9")
    assert (host.field("asid", VMCB), host.field("tlb_control", VMCB)) == (1, 1)


# -- permission maps, saving ------------------------------------------------------------------------------------------------


def test_permission_maps(host: SvmMachine, control: SvmControl) -> None:
    """Ports and registers that are left to the guest do not exit."""
    control.set_control("IOIO")
    control.set_control("MSR")
    control.set_ports(0x60, 2, False)
    control.set_register(0x174, False, True)
    control.set_register(0xC0010114, False, False)
    code = b"\xe4\x60\xe4\x61\xb9\x74\x01\x00\x00\x0f\x32\xb9\x14\x01\x01\xc0\x0f\x32\x0f\x01\xd9"
    assert run(host, control, code).reason == "vmcall"
    control.write("guest_rip", GUEST)
    assert run(host, control, b"\xe4\x62").reason == "io_instruction"
    control.write("guest_rip", GUEST)
    assert run(host, control, b"\xb9\x74\x01\x00\x00\x0f\x30").reason == "msr_write"


def test_saving(host: SvmMachine, control: SvmControl) -> None:
    """What a VMCB does not tell goes into a saved machine; anything else is refused."""
    control.want_window(True)
    control.flush()
    other = SvmControl(host.processor)
    other.restore(control.save())
    assert other.save() == control.save() and other.window
    for state in ({}, {**control.save(), "entry": "x"}, {**control.save(), "more": 1}):
        with pytest.raises(ValueError, match="SVM"):
            other.restore(state)
