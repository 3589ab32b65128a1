"""The VMX instructions in VMX root operation (SDM volume 3, chapter 30; 2010: volume 2B, chapter 5).

Operands: `condition` 1 for a memory operand, whose address fields are set; `src` and `dst` are the registers of the reg and
the rm field. In VMX non-root operation all of them exit (core/intercept.py) before they come here, but for what is #UD.
"""

from ..isa.registers import CR0_PE, CR4_VMXE, EFLAGS_VM
from ..isa.system_ops import (
    SYSTEM_INVEPT,
    SYSTEM_INVVPID,
    SYSTEM_VMCALL,
    SYSTEM_VMCLEAR,
    SYSTEM_VMLAUNCH,
    SYSTEM_VMPTRLD,
    SYSTEM_VMPTRST,
    SYSTEM_VMREAD,
    SYSTEM_VMRESUME,
    SYSTEM_VMXOFF,
    SYSTEM_VMXON,
)
from ..isa.vectors import GP, UD
from ..isa.vmx import (
    ERROR_INVALIDATION_OPERAND,
    ERROR_VMCALL_IN_ROOT,
    ERROR_VMCLEAR_ADDRESS,
    ERROR_VMCLEAR_VMXON_POINTER,
    ERROR_VMPTRLD_ADDRESS,
    ERROR_VMPTRLD_REVISION,
    ERROR_VMPTRLD_VMXON_POINTER,
    ERROR_VMXON_IN_ROOT,
    FEATURE_CONTROL_LOCK,
    FEATURE_CONTROL_VMX,
    LAUNCH_CLEAR,
    REGION_BYTES,
    REGION_LAUNCH_STATE,
    VMX_EPT_VPID,
)
from .address_space import invept, invvpid
from .cache import VMM, reference
from .fault import raise_fault, raise_plain
from .jit import kernel
from .layout import OK, ROOT
from .memory import check_write_segment, effective_address, read_segment, write_translated
from .physical import read_memory, write_physical
from .physical_map import BUS, is_ram, place_to_write
from .vmx_capability import address_allowed, cr0_allowed, cr4_allowed, has_vmx, revision
from .vmx_check_controls import ept_pointer_allowed
from .vmx_entry import vm_entry
from .vmx_fields import read_field, write_field
from .vmx_result import NO_VMCS, fail, fail_invalid, succeed

M32 = 0xFFFFFFFF
# IA32_VMX_EPT_VPID_CAP (appendix A.10): which types of INVEPT and INVVPID there are.
CAP_INVEPT, CAP_INVEPT_TYPES_SHIFT = 1 << 20, 24  # bit 25 for type 1, 26 for type 2
CAP_INVVPID_SHIFT, CAP_INVVPID_TYPES_SHIFT = 32, 40  # bits 40 to 43 for types 0 to 3
INVEPT_SINGLE, INVVPID_ALL = 1, 2


# -- operands -------------------------------------------------------------------------------------------------------


@kernel
def read_quadword(cpu, ram, u, displacement):
    """64 bits of the memory operand: (outcome, value)."""
    offset = (effective_address(cpu, u) + displacement) & u.address_mask
    outcome, low = read_segment(cpu, ram, u.segment, offset, 4)
    if outcome != OK:
        return outcome, 0
    outcome, high = read_segment(cpu, ram, u.segment, (offset + 4) & u.address_mask, 4)
    return outcome, low | high << 32


@kernel
def write_quadword(cpu, ram, u, value):
    """Store 64 bits to the memory operand, or nothing if a part of it faults."""
    offset = effective_address(cpu, u)
    second = (offset + 4) & u.address_mask
    outcome = check_write_segment(cpu, ram, u.segment, offset, 4)
    if outcome == OK:
        outcome = check_write_segment(cpu, ram, u.segment, second, 4)
    if outcome != OK:
        return outcome
    write_translated(cpu, ram, 4, (value >> 32) & M32)
    outcome = check_write_segment(cpu, ram, u.segment, offset, 4)
    if outcome == OK:
        write_translated(cpu, ram, 4, value & M32)
    return outcome


# -- VMX operation --------------------------------------------------------------------------------------------------


@kernel
def vmxon_allowed(cpu):
    """Whether VMXON raises no #GP(0): CPL 0, no A20M, CR0 and CR4 as VMX operation needs them, enabled and locked."""
    if cpu.cpl != 0 or cpu.a20_closed != 0 or not cr0_allowed(cpu, cpu.cr0) or not cr4_allowed(cpu, cpu.cr4):
        return False
    enabled = FEATURE_CONTROL_LOCK | FEATURE_CONTROL_VMX
    return cpu.msr.feature_control & enabled == enabled


@kernel
def begin_operation(cpu, ram, pointer):
    """Enter VMX operation with the VMXON region at an address."""
    if not address_allowed(cpu, pointer, REGION_BYTES) or read_memory(cpu, ram, pointer, 4) != revision(cpu):
        fail_invalid(cpu)
        return
    cpu.vmx.operation = 1
    cpu.vmx.vmxon_pointer = pointer
    cpu.vmx.current = NO_VMCS
    succeed(cpu)


@kernel
def vmxon(cpu, ram, u):
    """VMXON."""
    if cpu.cr0 & CR0_PE == 0 or cpu.cr4 & CR4_VMXE == 0 or cpu.eflags & EFLAGS_VM != 0:
        return raise_plain(cpu, UD)
    if cpu.vmx.operation == 1:
        if cpu.cpl != 0:
            return raise_fault(cpu, GP, 0)
        fail(cpu, ram, ERROR_VMXON_IN_ROOT)
        return OK
    if not vmxon_allowed(cpu):
        return raise_fault(cpu, GP, 0)
    outcome, pointer = read_quadword(cpu, ram, u, 0)
    if outcome == OK:
        begin_operation(cpu, ram, pointer)
    return outcome


@kernel
def vmxoff(cpu):
    """VMXOFF."""
    cpu.vmx.operation = 0
    cpu.vmx.current = NO_VMCS
    succeed(cpu)
    return OK


# -- the current VMCS -----------------------------------------------------------------------------------------------


@kernel
def load_pointer(cpu, ram, pointer):
    """VMPTRLD. A region that is not RAM, which could hold no fields, has no revision identifier."""
    if not address_allowed(cpu, pointer, REGION_BYTES):
        fail(cpu, ram, ERROR_VMPTRLD_ADDRESS)
    elif pointer == cpu.vmx.vmxon_pointer:
        fail(cpu, ram, ERROR_VMPTRLD_VMXON_POINTER)
    elif read_memory(cpu, ram, pointer, 4) != revision(cpu) or not is_ram(cpu, pointer):
        fail(cpu, ram, ERROR_VMPTRLD_REVISION)
    else:
        reference(cpu, pointer, VMM)
        cpu.vmx.current = pointer
        cpu.vmx.place = pointer
        succeed(cpu)


@kernel
def clear_region(cpu, ram, pointer):
    """VMCLEAR: the VMCS is clear, and no longer current if it was."""
    if not address_allowed(cpu, pointer, REGION_BYTES):
        fail(cpu, ram, ERROR_VMCLEAR_ADDRESS)
        return
    if pointer == cpu.vmx.vmxon_pointer:
        fail(cpu, ram, ERROR_VMCLEAR_VMXON_POINTER)
        return
    if place_to_write(cpu, ram, pointer) < BUS:
        write_physical(cpu, ram, pointer + REGION_LAUNCH_STATE, 4, LAUNCH_CLEAR)
    if cpu.vmx.current == pointer:
        cpu.vmx.current = NO_VMCS
    succeed(cpu)


@kernel
def pointer_instruction(cpu, ram, u):
    """VMPTRLD and VMCLEAR."""
    outcome, pointer = read_quadword(cpu, ram, u, 0)
    if outcome != OK:
        return outcome
    if u.dst_shift == SYSTEM_VMPTRLD:
        load_pointer(cpu, ram, pointer)
    else:
        clear_region(cpu, ram, pointer)
    return OK


@kernel
def vmptrst(cpu, ram, u):
    """VMPTRST."""
    outcome = write_quadword(cpu, ram, u, cpu.vmx.current)
    if outcome == OK:
        succeed(cpu)
    return outcome


# -- its fields -----------------------------------------------------------------------------------------------------


@kernel
def vmread(cpu, ram, u):
    """VMREAD: the field that the register of the reg field names, into the other operand."""
    if cpu.vmx.current == NO_VMCS:
        fail_invalid(cpu)
        return OK
    error, value = read_field(cpu, ram, cpu.gpr[u.src])
    if error != 0:
        fail(cpu, ram, error)
        return OK
    if u.condition == 1:
        outcome = check_write_segment(cpu, ram, u.segment, effective_address(cpu, u), 4)
        if outcome != OK:
            return outcome
        write_translated(cpu, ram, 4, value)
    else:
        cpu.gpr[u.dst] = value
    succeed(cpu)
    return OK


@kernel
def vmwrite(cpu, ram, u):
    """VMWRITE: the field that the register of the reg field names, from the other operand."""
    if cpu.vmx.current == NO_VMCS:
        fail_invalid(cpu)
        return OK
    value = cpu.gpr[u.dst]
    if u.condition == 1:
        outcome, value = read_segment(cpu, ram, u.segment, effective_address(cpu, u), 4)
        if outcome != OK:
            return outcome
    error = write_field(cpu, ram, cpu.gpr[u.src], value)
    if error != 0:
        fail(cpu, ram, error)
    else:
        succeed(cpu)
    return OK


# -- translations ---------------------------------------------------------------------------------------------------


@kernel
def has_type(cpu, shift, kind):
    """Whether INVEPT or INVVPID has a type, whose bits of the capability register begin at `shift`; there are four at most."""
    return kind <= 3 and (cpu.msr.vmx_capability[VMX_EPT_VPID] >> (shift + kind)) & 1 != 0


@kernel
def invept_of(cpu, ram, kind, pointer, reserved):
    """INVEPT of a type, by the two halves of its descriptor."""
    valid = has_type(cpu, CAP_INVEPT_TYPES_SHIFT, kind) and reserved == 0
    if kind == INVEPT_SINGLE:
        valid = valid and ept_pointer_allowed(cpu, pointer)
    if not valid:
        fail(cpu, ram, ERROR_INVALIDATION_OPERAND)
        return
    invept(cpu, kind, pointer)
    succeed(cpu)


@kernel
def invvpid_of(cpu, ram, kind, identifier, gla):
    """INVVPID of a type, by the two halves of its descriptor: a VPID, a linear address."""
    valid = has_type(cpu, CAP_INVVPID_TYPES_SHIFT, kind) and identifier >> 16 == 0
    if kind != INVVPID_ALL:
        valid = valid and identifier != 0
    if not valid:
        fail(cpu, ram, ERROR_INVALIDATION_OPERAND)
        return
    invvpid(cpu, kind, identifier, gla & M32)
    succeed(cpu)


@kernel
def invalidation(cpu, ram, u):
    """INVEPT and INVVPID: the type is in the register of the reg field, the descriptor in memory."""
    outcome, low = read_quadword(cpu, ram, u, 0)
    if outcome != OK:
        return outcome
    outcome, high = read_quadword(cpu, ram, u, 8)
    if outcome != OK:
        return outcome
    if u.dst_shift == SYSTEM_INVEPT:
        invept_of(cpu, ram, cpu.gpr[u.src], low, high)
    else:
        invvpid_of(cpu, ram, cpu.gpr[u.src], low, high)
    return OK


# -- all of them ----------------------------------------------------------------------------------------------------


@kernel
def in_root(cpu, ram, u):
    """What each of them but VMXON does in VMX root operation in ring 0."""
    op = u.dst_shift
    if op == SYSTEM_VMREAD:
        return vmread(cpu, ram, u)
    if op == SYSTEM_VMLAUNCH or op == SYSTEM_VMRESUME:
        return vm_entry(cpu, ram, int(op == SYSTEM_VMLAUNCH))
    if op == SYSTEM_VMCALL:
        fail(cpu, ram, ERROR_VMCALL_IN_ROOT)
        return OK
    if op == SYSTEM_VMCLEAR or op == SYSTEM_VMPTRLD:
        return pointer_instruction(cpu, ram, u)
    if op == SYSTEM_VMPTRST:
        return vmptrst(cpu, ram, u)
    if op == SYSTEM_VMXOFF:
        return vmxoff(cpu)
    if op == SYSTEM_INVEPT or op == SYSTEM_INVVPID:
        return invalidation(cpu, ram, u)
    return vmwrite(cpu, ram, u)


@kernel
def is_offered(cpu, op):
    """Whether this processor has the instruction: INVEPT and INVVPID came later than the others."""
    capability = cpu.msr.vmx_capability[VMX_EPT_VPID]
    if op == SYSTEM_INVEPT:
        return capability & CAP_INVEPT != 0
    if op == SYSTEM_INVVPID:
        return (capability >> CAP_INVVPID_SHIFT) & 1 != 0
    return has_vmx(cpu)


@kernel
def vmx_instruction(cpu, ram, u):
    """Execute a VMX instruction that does not exit: first what is #UD, then #GP(0), in the manual's order."""
    op = u.dst_shift
    if not is_offered(cpu, op) or cpu.world != ROOT:
        return raise_plain(cpu, UD)
    if op == SYSTEM_VMXON:
        return vmxon(cpu, ram, u)
    if cpu.vmx.operation == 0 or cpu.cr0 & CR0_PE == 0 or cpu.eflags & EFLAGS_VM != 0:
        return raise_plain(cpu, UD)
    if cpu.cpl != 0:
        return raise_fault(cpu, GP, 0)
    return in_root(cpu, ram, u)
