"""What the hooks of a hardware VMM do for the exits that are always handled alike (hardware_vmm.py, strategies)."""

from ...core.charge import charge
from ...core.identity import cpuid_row
from ...core.jit import inline, kernel, load_32, store_32
from ...core.layout import CPUID_EXTENDED
from ...core.port_decode import port_read, port_write
from ...isa.events import EVENT_VMX_VMREAD
from ...isa.registers import EAX, EBX, ECX, EDX, EFLAGS_RF, EFLAGS_TF, FEATURE_APIC
from ...isa.vmx import (
    BLOCKING_BY_MOV_SS,
    BLOCKING_BY_STI,
    INTERRUPTION_VALID,
    N_EXIT_REASONS,
    VMCS_EXIT_INSTRUCTION_LENGTH,
    VMCS_EXIT_REASON,
    VMCS_GUEST_INTERRUPTIBILITY,
    VMCS_GUEST_PHYSICAL_ADDRESS,
    VMCS_GUEST_RFLAGS,
    VMCS_GUEST_RIP,
    VMCS_QUALIFICATION,
    VMCS_VECTORING,
)
from ..fast.exits import charge_items
from ..fast.ports import may_move_memory
from ..nested.entries import EPT_FETCH, EPT_WRITE
from ..nested.fill import fill, is_hole
from ..nested.records import DROPPED, TABLES_MADE
from .records import (
    ACCESS_PORT,
    DEVICE_REQUEST,
    DONE,
    EMULATE_CPUID,
    EXIT_CPUID,
    EXIT_DISPATCH,
    EXIT_PORT,
    EXIT_SKIP,
    FILL_NESTED,
    FILL_SHADOW,
    INVALIDATE,
    KNOWS_FLAGS,
    KNOWS_NOTHING,
    LOAD_CR3,
    NESTED_DROP,
    NESTED_FILL,
    NESTED_TABLE,
    NO_ACTION,
    NOT_FAST,
    STEPPED,
)
from .shadowed import fill_shadow, invalidate, is_plain_load_of_cr3, is_plain_page_fault, load_cr3
from .structure import begin_account, note_fill, peek, read

M32 = 0xFFFFFFFF
BLOCKING = BLOCKING_BY_STI | BLOCKING_BY_MOV_SS
IO_SIZE, IO_INPUT, IO_STRING, IO_PORT_SHIFT = 7, 1 << 3, 1 << 4, 16  # of the qualification of an I/O instruction


# -- which exits are handled here ---------------------------------------------------------------------------------------


@inline
def port_of(qualification):
    """The port that IN or OUT accesses."""
    return (qualification >> IO_PORT_SHIFT) & 0xFFFF


@inline
def port_bytes(qualification):
    """How many bytes it accesses there."""
    return (qualification & IO_SIZE) + 1


@kernel
def port_is_handled(qualification):
    """Whether an access to a port is seen to here: not INS and OUTS, nor what may move the guest's memory."""
    if qualification & IO_STRING != 0:
        return False
    return qualification & IO_INPUT != 0 or not may_move_memory(port_of(qualification), port_bytes(qualification))


@kernel
def violation_is_handled(cpu, ram, qualification):
    """Whether an EPT violation is: memory is there, no event was being delivered, and RF is not in the way."""
    if peek(cpu, ram, VMCS_VECTORING) & INTERRUPTION_VALID != 0:
        return False
    if qualification & EPT_FETCH != 0 and peek(cpu, ram, VMCS_GUEST_RFLAGS) & EFLAGS_RF != 0:
        return False
    return not is_hole(ram, peek(cpu, ram, VMCS_GUEST_PHYSICAL_ADDRESS), int(qualification & EPT_WRITE != 0))


@kernel
def action_for(cpu, ram, exits):
    """What is done for the exit at hand; NO_ACTION leaves it to Python. Nothing is charged or changed."""
    reason = peek(cpu, ram, VMCS_EXIT_REASON)
    if cpu.rip != exits.host_rip or reason >= N_EXIT_REASONS:
        return NO_ACTION
    exits.reason = reason
    action = exits.actions[reason]
    if action == FILL_NESTED:
        if not violation_is_handled(cpu, ram, peek(cpu, ram, VMCS_QUALIFICATION)):
            return NO_ACTION
    elif action == FILL_SHADOW:
        if not is_plain_page_fault(cpu, ram):
            return NO_ACTION
    elif peek(cpu, ram, VMCS_GUEST_RFLAGS) & EFLAGS_TF != 0:
        return NO_ACTION
    if action == ACCESS_PORT and not port_is_handled(peek(cpu, ram, VMCS_QUALIFICATION)):
        return NO_ACTION
    if action == LOAD_CR3 and not is_plain_load_of_cr3(cpu, ram, exits, peek(cpu, ram, VMCS_QUALIFICATION)):
        return NO_ACTION
    return action


# -- instructions -------------------------------------------------------------------------------------------------------


@kernel
def skip(cpu, ram, exits, length):
    """An instruction was performed for the guest: it stands behind it (HardwareVm.skip)."""
    exits.rip = (read(cpu, ram, VMCS_GUEST_RIP) + length) & M32
    blocking = read(cpu, ram, VMCS_GUEST_INTERRUPTIBILITY)
    exits.blocking = blocking & ~BLOCKING
    exits.blocking_ended = int(exits.blocking != blocking)
    cpu.retired += 1
    exits.rflags = read(cpu, ram, VMCS_GUEST_RFLAGS)
    exits.knows = STEPPED


@kernel
def answer_cpuid(cpu, apics):
    """CPUID; what it says of the local APIC is what the guest has made of its own (emulate/identity.py)."""
    row = cpuid_row(cpu, cpu.gpr[EAX], cpu.gpr[ECX])
    cpu.gpr[EAX] = 0
    cpu.gpr[EBX] = 0
    cpu.gpr[ECX] = 0
    cpu.gpr[EDX] = 0
    if row < 0:
        return
    cpu.gpr[EAX] = cpu.cpuid[row, 0]
    cpu.gpr[EBX] = cpu.cpuid[row, 1]
    cpu.gpr[ECX] = cpu.cpuid[row, 2]
    cpu.gpr[EDX] = cpu.cpuid[row, 3]
    if row == 1:
        cpu.gpr[EDX] = cpu.cpuid_leaf1_edx | apics.apic.enabled << FEATURE_APIC
    elif row == CPUID_EXTENDED + 1 and cpu.msr.is_intel == 0:
        cpu.gpr[EDX] |= apics.apic.enabled << FEATURE_APIC


@kernel
def access_port(cpu, exits, board, qualification):
    """IN or OUT of a virtual device."""
    charge_items(cpu, exits, EXIT_PORT, 1)
    charge_items(cpu, exits, DEVICE_REQUEST, 1)
    port = port_of(qualification)
    n = port_bytes(qualification)
    mask = (1 << (8 * n)) - 1
    if qualification & IO_INPUT != 0:
        value = port_read(board, port, n, cpu.ticks)
        cpu.gpr[EAX] = (cpu.gpr[EAX] & ~mask & M32) | (value & mask)
    else:
        board.attention |= port_write(board, port, n, cpu.gpr[EAX] & mask, cpu.ticks)


@kernel
def instruction(cpu, ram, exits, links, control, action, board, apics):
    """An exit by an instruction."""
    length = read(cpu, ram, VMCS_EXIT_INSTRUCTION_LENGTH)
    qualification = 0
    if action == ACCESS_PORT or action == INVALIDATE or action == LOAD_CR3:
        qualification = read(cpu, ram, VMCS_QUALIFICATION)
    charge_items(cpu, exits, EXIT_DISPATCH, 1)
    if action == EMULATE_CPUID:
        charge_items(cpu, exits, EXIT_CPUID, 1)
        answer_cpuid(cpu, apics)
    elif action == ACCESS_PORT:
        access_port(cpu, exits, board, qualification)
    elif action == INVALIDATE:
        invalidate(cpu, ram, exits, links, control, qualification)
    elif action == LOAD_CR3:
        load_cr3(cpu, ram, exits, links, control, qualification)
    else:
        charge_items(cpu, exits, EXIT_SKIP, 1)
    skip(cpu, ram, exits, length)


# -- memory -------------------------------------------------------------------------------------------------------------


@kernel
def charge_nested_work(cpu, ram, exits):
    """The time for tables that were allocated and entries that were taken back (NestedMemory.charge_work)."""
    for _ in range(load_32(ram, TABLES_MADE)):
        charge_items(cpu, exits, NESTED_TABLE, 1)
    dropped = load_32(ram, DROPPED)
    if dropped != 0:
        charge_items(cpu, exits, NESTED_DROP, dropped)
    store_32(ram, TABLES_MADE, 0)
    store_32(ram, DROPPED, 0)


@kernel
def fill_nested(cpu, ram, exits):
    """An EPT violation: the entry that lacked (HardwareVm.fill_nested)."""
    qualification = read(cpu, ram, VMCS_QUALIFICATION)
    charge(cpu, EVENT_VMX_VMREAD, 1)  # the address has 64 bits
    gpa = read(cpu, ram, VMCS_GUEST_PHYSICAL_ADDRESS)
    read(cpu, ram, VMCS_VECTORING)
    charge_items(cpu, exits, EXIT_DISPATCH, 1)
    visited = fill(cpu, ram, gpa, int(qualification & EPT_WRITE != 0))
    charge_items(cpu, exits, NESTED_FILL, visited)
    charge_nested_work(cpu, ram, exits)
    note_fill(cpu, exits)
    if qualification & EPT_FETCH != 0:
        exits.rflags = read(cpu, ram, VMCS_GUEST_RFLAGS)
        exits.knows = KNOWS_FLAGS


@kernel
def handle(cpu, ram, exits, links, control, board, apics):
    """One exit: DONE; REST; or NOT_FAST with nothing changed."""
    action = action_for(cpu, ram, exits)
    if action == NO_ACTION:
        return NOT_FAST
    begin_account(cpu, exits)
    exits.knows = KNOWS_NOTHING
    exits.blocking_ended = 0
    exits.written = 0
    exits.loads_cr3 = 0
    exits.knows_dr7 = 0
    exits.drops_flag = 0
    read(cpu, ram, VMCS_EXIT_REASON)
    if action == FILL_NESTED:
        fill_nested(cpu, ram, exits)
    elif action == FILL_SHADOW:
        return fill_shadow(cpu, ram, exits, links, control)
    else:
        instruction(cpu, ram, exits, links, control, action, board, apics)
    return DONE
