"""The VMX instructions in VMX root operation: exceptions by mode and ring, success and failure, every field's encoding."""

import itertools

import pytest
from bare_machine import CODE, DATA, BareMachine
from vmx_machine import CR4_VMXE, MASK_64, MSR_AREA, OTHER_REGION, REGION, VMXON_REGION, VmxMachine

from x86virt.core.vmx_entries import vmx_invept, vmx_invvpid
from x86virt.isa.vmx import FIELDS, READ_ONLY, VMX_BASIC, VMX_EPT_VPID

PROFILES = ("p4_prescott", "core2_woodcrest", "core2_harpertown", "nehalem")
EAX, ECX, EBX = 0, 1, 3
CF, ZF, ARITHMETIC, VM = 1, 1 << 6, 0x8D5, 1 << 17
# In 32-bit code, and in 16-bit code; a memory operand is at EBX or BX.
CODES = {
    "vmcall": ("0f01c1", "0f01c1"),
    "vmlaunch": ("0f01c2", "0f01c2"),
    "vmresume": ("0f01c3", "0f01c3"),
    "vmxoff": ("0f01c4", "0f01c4"),
    "vmptrld": ("0fc733", "0fc737"),
    "vmclear": ("660fc733", "660fc737"),
    "vmxon": ("f30fc733", "f30fc737"),
    "vmptrst": ("0fc73b", "0fc73f"),
    "vmread": ("0f78c1", "0f78c1"),
    "vmwrite": ("0f79c1", "0f79c1"),
    "invept": ("660f38800b", "660f38800f"),
    "invvpid": ("660f38810b", "660f38810f"),
}
LATER = ("invept", "invvpid")  # not on processors without EPT and VPID
UD, GP, PF = "vector 6", "vector 13", "vector 14"


@pytest.fixture(scope="module", params=PROFILES)
def machine(request: pytest.FixtureRequest) -> VmxMachine:
    """A machine of each profile with VMX."""
    return VmxMachine(request.param)


def fresh(machine: VmxMachine) -> VmxMachine:
    """The machine as after its start: in VMX operation, with a current VMCS."""
    machine.power_on()
    machine.begin()
    machine.gpr[EBX] = DATA
    return machine


def execute(machine: VmxMachine, code: str) -> int | str:
    """Execute one instruction in front of a HLT: where HLT stopped, or the vector of the exception."""
    octets = bytes.fromhex(code)
    machine.write_code(octets + b"\xf4" + bytes(16))
    stopped = machine.stopped_at(machine.go())
    return "ok" if stopped == CODE + len(octets) else stopped


def result(machine: VmxMachine, code: str) -> str:
    """The same, in words of the manual: `succeed`, `invalid`, `error N`, or the exception."""
    machine.eflags = ARITHMETIC | 2
    machine.store({"vm_instruction_error": 0})
    ended = execute(machine, code)
    if ended != "ok":
        return str(ended)
    flags = machine.eflags & ARITHMETIC
    if flags == ZF:
        return f"error {machine.field('vm_instruction_error')}"
    assert flags in (0, CF)
    return "invalid" if flags == CF else "succeed"


# -- exceptions -----------------------------------------------------------------------------------------------------


def leave_operation(machine: VmxMachine) -> None:
    """VMXOFF, without its checks."""
    machine.cpu.vmx.operation = 0
    machine.cpu.vmx.current = -1


@pytest.mark.parametrize("name", CODES)
def test_outside_vmx_operation(machine: VmxMachine, name: str) -> None:
    """All but VMXON are #UD in every ring; VMXON is #UD while CR4.VMXE is clear, then #GP outside ring 0 or if not enabled."""
    fresh(machine)
    leave_operation(machine)
    for ring, vmxe, control in itertools.product((0, 3), (0, 1), (0, 1, 4, 5)):
        machine.ring(ring)
        machine.cpu.cr4 = CR4_VMXE * vmxe
        machine.cpu.msr.feature_control = control
        machine.put(DATA, VMXON_REGION, 8)
        machine.forget_translations()
        expected = UD
        if name == "vmxon" and vmxe:
            expected = "succeed" if ring == 0 and control == 5 else GP
        assert result(machine, CODES[name][0]) == expected, (ring, vmxe, control)
        leave_operation(machine)


@pytest.mark.parametrize("name", CODES)
def test_in_ring_3_and_in_virtual_8086_mode(machine: VmxMachine, name: str) -> None:
    """In VMX operation: #GP in ring 3, #UD in virtual-8086 mode, #UD for what the processor does not have."""
    fresh(machine)
    present = name not in LATER or machine.capability(VMX_EPT_VPID) != 0
    machine.ring(3)
    assert execute(machine, CODES[name][0]) == (GP if present else UD)
    fresh(machine)
    machine.ring(3)
    for segment in range(6):
        machine.processor.set_segment(segment, 0x1C00, 0x1C000, 0xFFFF, 0xF3)
    machine.eflags = VM | 2
    machine.processor.set_segment(1, 0x1C00, 0x1C000, 0xFFFF, 0xF3)
    machine.write_code(bytes.fromhex(CODES[name][1]) + b"\xf4")
    assert machine.stopped_at(machine.go(CODE - 0x1C000)) == UD


@pytest.mark.parametrize("profile", ["k8_opteron", "k10_barcelona"])
def test_another_vendors_processor_has_none(profile: str) -> None:
    """Every VMX instruction is #UD."""
    machine = BareMachine(profile)
    for code, _ in CODES.values():
        machine.write_code(bytes.fromhex(code) + b"\xf4")
        machine.gpr[EBX] = DATA
        assert machine.stopped_at(machine.go()) == UD


@pytest.mark.parametrize("name", ["vmptrld", "vmclear", "vmptrst"])
def test_operand_faults_leave_the_flags(machine: VmxMachine, name: str) -> None:
    """A page that is not there, for the second half too: #PF, and nothing has happened."""
    for address in (DATA, DATA + 0x1000 - 4):
        fresh(machine)
        machine.set_page((address + 4) & ~0xFFF, 0, 0)
        machine.gpr[EBX] = address
        machine.put(DATA + 0xFFC, 0xAAAAAAAA)
        assert result(machine, CODES[name][0]) == PF
        assert int(machine.cpu.cr2) in (address, (address + 4) & ~0xFFF)
        assert int(machine.cpu.vmx.current) == REGION and machine.get(DATA + 0xFFC) == 0xAAAAAAAA


# -- pointers -------------------------------------------------------------------------------------------------------


def test_pointers(machine: VmxMachine) -> None:
    """VMXON, VMPTRLD, VMPTRST and VMCLEAR: what each answers to each kind of address, with and without a current VMCS."""
    width = 1 << int(machine.cpu.msr.physical_bits)
    beyond = (OTHER_REGION + 0x800, width, 1 << 63, OTHER_REGION | 1)
    answers = {
        "vmptrld": {VMXON_REGION: "error 10", OTHER_REGION: "succeed", MSR_AREA: "error 11", 0xF0000000: "error 11"}
        | dict.fromkeys(beyond, "error 9"),
        "vmclear": {VMXON_REGION: "error 3", OTHER_REGION: "succeed", MSR_AREA: "succeed", 0xF0000000: "succeed"}
        | dict.fromkeys(beyond, "error 2"),
        "vmxon": dict.fromkeys((VMXON_REGION, OTHER_REGION, *beyond), "error 15"),
    }
    for name, rows in answers.items():
        for pointer, answer in rows.items():
            fresh(machine)
            machine.put(DATA, pointer, 8)
            assert result(machine, CODES[name][0]) == answer, (name, hex(pointer))
            expected = pointer if (name, answer) == ("vmptrld", "succeed") else REGION
            assert int(machine.cpu.vmx.current) == expected
            machine.cpu.vmx.current = -1
            answer = "invalid" if answer.startswith("error") else answer
            assert result(machine, CODES[name][0]) == answer
    assert execute(fresh(machine), CODES["vmptrst"][0]) == "ok" and machine.get(DATA, 8) == REGION


def test_a_region_begins_with_the_revision(machine: VmxMachine) -> None:
    """Bit 31 set, or another number, is another revision; VMXON then fails without a VMCS."""
    fresh(machine)
    number = machine.capability(VMX_BASIC) & 0x7FFFFFFF
    machine.put(DATA, OTHER_REGION, 8)
    for wrong in (number | 1 << 31, number + 1, 0):
        machine.put(OTHER_REGION, wrong)
        assert result(machine, CODES["vmptrld"][0]) == "error 11"
    leave_operation(machine)
    machine.put(DATA, OTHER_REGION, 8)
    assert result(machine, CODES["vmxon"][0]) == "invalid" and int(machine.cpu.vmx.operation) == 0
    machine.put(OTHER_REGION, number)
    assert result(machine, CODES["vmxon"][0]) == "succeed" and int(machine.cpu.vmx.current) == -1


def test_vmclear_of_the_current_vmcs_and_vmxoff(machine: VmxMachine) -> None:
    """There is no current VMCS then: VMPTRST stores ones, VM entry and VMREAD fail without an error number."""
    fresh(machine)
    machine.put(DATA, REGION, 8)
    assert result(machine, CODES["vmclear"][0]) == "succeed"
    for name in ("vmlaunch", "vmresume", "vmread", "vmwrite", "vmcall"):
        assert result(machine, CODES[name][0]) == "invalid"
    assert result(machine, CODES["vmptrst"][0]) == "succeed" and machine.get(DATA, 8) == MASK_64
    assert result(machine, CODES["vmxoff"][0]) == "succeed"
    assert result(machine, CODES["vmxoff"][0]) == UD


def test_launch_state_and_mov_ss(machine: VmxMachine) -> None:
    """VMLAUNCH wants a clear VMCS, VMRESUME a launched one; directly behind MOV SS both fail first; VMCALL is error 1."""
    fresh(machine)
    assert result(machine, CODES["vmcall"][0]) == "error 1"
    assert result(machine, CODES["vmresume"][0]) == "error 5"
    mov_ss = "8ed0"
    machine.gpr[EAX] = 0x10
    assert result(machine, mov_ss + CODES["vmlaunch"][0]) == "error 26"
    assert result(machine, mov_ss + "90" + CODES["vmresume"][0]) == "error 5"
    assert machine.enter() == "entered"
    machine.cpu.world = 0
    assert machine.enter(1) == "error 4"


def test_control_registers_keep_their_fixed_bits(machine: VmxMachine) -> None:
    """In VMX operation MOV CR0 cannot clear PE, NE or PG, MOV CR4 cannot clear VMXE; CD and NW are free."""
    for name, fixed, code in (("cr0", (0, 5, 31), "0f22c0"), ("cr4", (13,), "0f22e0")):
        for bit in fixed:
            fresh(machine)
            machine.gpr[EAX] = int(machine.cpu[name]) & ~(1 << bit)
            assert execute(machine, code) == GP
    fresh(machine)
    machine.gpr[EAX] = int(machine.cpu.cr0) | 3 << 29
    assert execute(machine, "0f22c0") == "ok"


# -- fields ---------------------------------------------------------------------------------------------------------


def access(machine: VmxMachine, name: str, encoding: int, value: int = 0) -> str:
    """VMREAD to ECX or VMWRITE of ECX, of the field that EAX names."""
    machine.gpr[EAX], machine.gpr[ECX] = encoding, value
    return result(machine, CODES[name][0])


def test_every_encoding(machine: VmxMachine) -> None:
    """Of all encodings of 15 bits just those of the processor's fields can be read, and those not read-only written."""
    fresh(machine)
    offered = dict(zip((field.encoding for field in FIELDS), machine.cpu.vmx.field_offered.tolist(), strict=True))
    by_encoding = {field.encoding: field for field in FIELDS}
    near = {encoding ^ 1 << bit for encoding in by_encoding for bit in range(15)} | set(by_encoding)
    for encoding in sorted(near):
        field = by_encoding.get(encoding & ~1)
        known = field is not None and offered[field.encoding] and (encoding & 1 == 0 or field.width == 64)
        assert access(machine, "vmread", encoding) == ("succeed" if known else "error 12"), hex(encoding)
        expected = "error 12" if not known else "error 13" if field.group == READ_ONLY else "succeed"
        assert access(machine, "vmwrite", encoding, 0x12345678) == expected, hex(encoding)


def test_fields_keep_what_they_have_room_for(machine: VmxMachine) -> None:
    """16, 32 and 64 bits; the full access clears the upper half of 64 bits, the high access leaves the lower."""
    fresh(machine)
    for field in FIELDS:
        if field.group == READ_ONLY or not machine.cpu.vmx.field_offered[FIELDS.index(field)]:
            continue
        value = 0x9ABCDEF0
        assert access(machine, "vmwrite", field.encoding, value) == "succeed"
        assert access(machine, "vmread", field.encoding) == "succeed"
        assert machine.gpr[ECX] == (value & 0xFFFF if field.width == 16 else value)
        if field.width == 64:
            assert access(machine, "vmwrite", field.encoding | 1, 0x87654321) == "succeed"
            assert machine.field(field.key) == 0x87654321_9ABCDEF0
            assert access(machine, "vmread", field.encoding | 1) == "succeed" and machine.gpr[ECX] == 0x87654321
            assert access(machine, "vmwrite", field.encoding, 1) == "succeed" and machine.field(field.key) == 1


def test_memory_operands_of_vmread_and_vmwrite(machine: VmxMachine) -> None:
    """The other operand in memory: 32 bits, also under a 16-bit address."""
    fresh(machine)
    machine.gpr[EAX] = 0x6820
    assert result(machine, "0f7803") == "succeed" and machine.get(DATA) == 2
    machine.put(DATA, 0x202)
    assert result(machine, "0f7903") == "succeed" and machine.field("guest_rflags") == 0x202
    machine.gpr[EBX] = 0x8FF0
    machine.put(0x8FF0, 0)
    assert result(machine, "670f7807") == "succeed" and machine.get(0x8FF0) == 0x202


# -- translations ---------------------------------------------------------------------------------------------------


def test_invept_and_invvpid(machine: VmxMachine) -> None:
    """Types and descriptors by the capability register; error 28 for all others."""
    fresh(machine)
    capability = machine.capability(VMX_EPT_VPID)
    if not capability:
        return
    eptp = 0x60000 | 3 << 3 | 6
    for kind, pointer in itertools.product(range(6), (eptp, 0, eptp | 1 << 6, eptp ^ 8, 1 << 60 | eptp)):
        expected = 0 if kind == 2 or (kind == 1 and pointer == eptp) else 2
        assert vmx_invept(machine.processor.state, machine.memory, kind, pointer) == expected
    for kind, identifier in itertools.product(range(6), (0, 1, 0xFFFF, 0x10000)):
        expected = 0 if kind < 4 and identifier < 0x10000 and (identifier or kind == 2) else 2
        assert vmx_invvpid(machine.processor.state, machine.memory, kind, identifier, DATA) == expected
    machine.gpr[ECX] = 2
    machine.put(DATA, eptp, 8)
    machine.put(DATA + 8, 0, 8)
    assert result(machine, CODES["invept"][0]) == "succeed"
    machine.put(DATA + 8, 1, 8)
    assert result(machine, CODES["invept"][0]) == "error 28"
