"""Lowering in a hypervisor's guest: where `intercept` stands, and what VMX reports of the instruction behind it.

SDM volume 3, section 25.1 and tables 27-8 to 27-14 (VM-exit instruction information):

    1:0 scaling   6:3 register operand   9:7 address size   10 the operand is a register   11 operand size of 32 bits
    17:15 segment   21:18 index, 22 none   26:23 base, 27 none   29:28 which instruction, or 31:28 the second register
"""

from ..isa.registers import DS, ZERO
from ..isa.system_ops import (
    INTERCEPT_INS,
    INTERCEPT_OUTS,
    SYSTEM_CLTS,
    SYSTEM_CR_TO_REGISTER,
    SYSTEM_INVEPT,
    SYSTEM_INVVPID,
    SYSTEM_IRET,
    SYSTEM_LGDT,
    SYSTEM_LMSW,
    SYSTEM_REGISTER_TO_CR,
    SYSTEM_SIDT,
    SYSTEM_SMSW,
    SYSTEM_STR,
    SYSTEM_VMCLEAR,
    SYSTEM_VMPTRLD,
    SYSTEM_VMPTRST,
    SYSTEM_VMREAD,
    SYSTEM_VMWRITE,
    SYSTEM_VMXON,
)
from . import tables as t
from .handlers import NUMBER
from .jit import inline, kernel
from .layout import VMX_NON_ROOT
from .micro_operations import new_uop
from .mode import IN_GUEST

OP_INTERCEPT = NUMBER["intercept"]
OP_GUEST_INSTRUCTION, OP_GUEST_VALUE = NUMBER["guest_instruction"], NUMBER["guest_value"]
# By operation from LGDT on (isa/system_ops.py): the instruction identity of tables 27-10 and 27-11.
TABLE_IDENTITY = (2, 3, 0, 1, 2, 3, 0, 1)  # LGDT LIDT SGDT SIDT, LLDT LTR SLDT STR
IN_REGISTER, OPERAND_SIZE_32, NO_INDEX, NO_BASE = 1 << 10, 1 << 11, 1 << 22, 1 << 27


@inline
def in_guest(cpu):
    """Whether code is decoded for a guest."""
    return cpu.contexts[cpu.context].attributes & IN_GUEST != 0


@inline
def in_vmx_guest(cpu):
    """Whether code is decoded for VMX non-root operation."""
    return in_guest(cpu) and cpu.world == VMX_NON_ROOT


@inline
def intercept_stage(cpu, info):
    """Where the instruction asks whether it is intercepted: STAGE_; nowhere outside a guest."""
    if not in_guest(cpu):
        return t.STAGE_NEVER
    if cpu.world == VMX_NON_ROOT:
        return info.intercept_vmx
    return info.intercept_svm


@inline
def is_byte_port(info):
    """IN and OUT of a byte: the only system instructions with an operand of 8 bits."""
    first = info.operand_width[0] == 8 and info.kind[0] == t.ACC
    return first or (info.operand_width[1] == 8 and info.kind[1] == t.ACC)


@inline
def differs_in_guest(system, number):
    """Whether VMX changes what an instruction does that does not exit: what reads and writes CR0 and CR4, and IRET."""
    if system == SYSTEM_CR_TO_REGISTER or system == SYSTEM_REGISTER_TO_CR:
        return number == 0 or number == 4
    return system == SYSTEM_LMSW or system == SYSTEM_SMSW or system == SYSTEM_CLTS or system == SYSTEM_IRET


@inline
def guest_operation(ends):
    """Their micro-operation, by whether the block ends behind it."""
    if ends == 1:
        return OP_GUEST_INSTRUCTION
    return OP_GUEST_VALUE


# -- the VM-exit instruction information -------------------------------------------------------------------------------


@inline
def address_size(d):
    """Bits 9:7: 0 for 16 bits, 1 for 32."""
    return (d.address_width >> 5) << 7


@kernel
def memory_information(d):
    """What is said of a memory operand."""
    information = d.scale | address_size(d) | d.segment << 15
    if d.index_register == ZERO:
        information |= NO_INDEX
    else:
        information |= d.index_register << 18
    if d.base_register == ZERO:
        return information | NO_BASE
    return information | d.base_register << 23


@kernel
def operand_information(d):
    """What is said of an operand in a register or in memory."""
    if d.has_memory == 1:
        return memory_information(d)
    return IN_REGISTER | d.modrm_rm << 3 | address_size(d)


@kernel
def table_information(d, operation):
    """LGDT, LIDT, SGDT and SIDT (table 27-10); LLDT, LTR, SLDT and STR (table 27-11)."""
    identity = TABLE_IDENTITY[operation - SYSTEM_LGDT] << 28
    if operation > SYSTEM_SIDT:
        return operand_information(d) | identity
    if d.width == 32:
        identity |= OPERAND_SIZE_32
    return memory_information(d) | identity


@inline
def is_table_access(operation):
    """LGDT to SIDT, LLDT, LTR, SLDT, STR."""
    return SYSTEM_LGDT <= operation <= SYSTEM_STR


@inline
def has_two_operands(operation):
    """VMREAD, VMWRITE, INVEPT and INVVPID: the second one is a register."""
    access = operation == SYSTEM_VMREAD or operation == SYSTEM_VMWRITE
    return access or operation == SYSTEM_INVEPT or operation == SYSTEM_INVVPID


@inline
def takes_pointer(operation):
    """VMCLEAR, VMPTRLD, VMPTRST and VMXON: a quadword in memory."""
    load = operation == SYSTEM_VMPTRLD or operation == SYSTEM_VMPTRST
    return load or operation == SYSTEM_VMCLEAR or operation == SYSTEM_VMXON


@kernel
def instruction_information(d, operation):
    """The field as far as the encoding says it; bits that the manual leaves undefined are 0."""
    if is_table_access(operation):
        return table_information(d, operation)
    if has_two_operands(operation):
        return operand_information(d) | d.modrm_reg << 28
    if takes_pointer(operation):
        return memory_information(d)
    if operation == INTERCEPT_INS:
        return address_size(d)
    if operation == INTERCEPT_OUTS:
        return address_size(d) | string_segment(d) << 15
    return 0


@inline
def string_segment(d):
    """The segment of a string instruction's source."""
    if d.override >= 0:
        return d.override
    return DS


@inline
def names_register(info, kind):
    """Whether an operand is a control register (C) or a debug register (D)."""
    return info.kind[0] == kind or info.kind[1] == kind


# -- the micro-operation -------------------------------------------------------------------------------------------------


@kernel
def emit_intercept(uops, i, d, info):
    """The question whether the instruction exits, with its operands as they are encoded; dst says if one is in memory."""
    width = d.width
    if is_byte_port(info) or info.lowering == t.PORT_STRING_BYTE:
        width = 8
    u = new_uop(uops, i, d, OP_INTERCEPT, width)
    operation = info.intercept
    u.dst_shift = operation
    u.dst = d.has_memory
    u.information = instruction_information(d, operation)
    u.imm = d.imm
    u.src = d.modrm_rm
    u.condition = info.condition
    if names_register(info, t.C) or names_register(info, t.D):
        u.condition = d.modrm_reg
    if operation == INTERCEPT_INS or operation == INTERCEPT_OUTS:
        u.imm = d.rep_prefix
        u.segment = string_segment(d)
    return i + 1
