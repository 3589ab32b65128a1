"""What a VMM with shadow page tables does under VT-x: page faults, INVLPG, MOV to CR3, and the VMCS before an entry."""

from ...core.address_space import INVVPID_ADDRESS, INVVPID_SINGLE, invvpid
from ...core.charge import charge
from ...core.jit import inline, kernel, store_32
from ...isa.events import EVENT_VMX_INVVPID
from ...isa.registers import CR0_PG, CR4_PAE, EFLAGS_RF, ESP, PF_U, PF_W
from ...isa.vectors import PF
from ...isa.vmx import (
    INTERRUPTION_ERROR_CODE,
    INTERRUPTION_VALID,
    TYPE_HARDWARE_EXCEPTION,
    TYPE_SHIFT,
    VMCS_CR0_SHADOW,
    VMCS_CR4_SHADOW,
    VMCS_EXIT_ERROR_CODE,
    VMCS_EXIT_INTERRUPTION,
    VMCS_GUEST_BASES,
    VMCS_GUEST_CR0,
    VMCS_GUEST_CR3,
    VMCS_GUEST_CR4,
    VMCS_GUEST_DR7,
    VMCS_GUEST_RFLAGS,
    VMCS_GUEST_RIP,
    VMCS_QUALIFICATION,
    VMCS_VECTORING,
)
from ..fast.exits import charge_items, charge_work
from ..fast.records import CR0, CR3, CR4
from ..shadow.fill import fill
from ..shadow.follow import change_space, invalidate_page, is_loose
from ..shadow.records import FILLED, FLUSH_NOTHING
from .records import (
    DONE,
    EXIT_CONTROL_REGISTER,
    EXIT_DISPATCH,
    EXIT_EXCEPTION,
    EXIT_INVLPG,
    KNOWS_PLACE,
    KNOWS_PLACE_AND_FLAGS,
    REST,
    SHADOW_FILL,
    SHADOW_FLUSH,
    SHADOW_SWITCH,
)
from .structure import note_fill, peek, read, write

M32 = 0xFFFFFFFF
MAX_INSTRUCTION = 15  # bytes
PAGE_FAULT = INTERRUPTION_VALID | INTERRUPTION_ERROR_CODE | TYPE_HARDWARE_EXCEPTION << TYPE_SHIFT | PF
CODE_BASE = VMCS_GUEST_BASES + 1
BREAKPOINTS = 0xFF  # of DR7, those that are enabled
LOAD_OF_CR3, ACCESS_MASK, REGISTER_SHIFT = 3, 0x3F, 8  # of the qualification: MOV to CR3; the register


# -- page faults --------------------------------------------------------------------------------------------------------


@kernel
def is_plain_page_fault(cpu, ram):
    """Whether an exception is a page fault of an instruction, not of an event's delivery."""
    if peek(cpu, ram, VMCS_EXIT_INTERRUPTION) & (PAGE_FAULT | 0x7FF) != PAGE_FAULT:
        return False
    return peek(cpu, ram, VMCS_VECTORING) & INTERRUPTION_VALID == 0


@kernel
def fill_shadow(cpu, ram, exits, links, control):
    """A page fault: the shadow's entry is made (HardwareVm.shadow_fault); REST if there is more to it."""
    read(cpu, ram, VMCS_EXIT_INTERRUPTION)
    exits.error = read(cpu, ram, VMCS_EXIT_ERROR_CODE)
    exits.gla = read(cpu, ram, VMCS_QUALIFICATION)
    read(cpu, ram, VMCS_VECTORING)
    charge_items(cpu, exits, EXIT_DISPATCH, 1)
    charge_items(cpu, exits, EXIT_EXCEPTION, 1)
    charge_items(cpu, exits, SHADOW_FILL, 1)
    write_access = int(exits.error & PF_W != 0)
    exits.outcome = fill(cpu, ram, control, links, exits.gla, write_access, int(exits.error & PF_U != 0))
    if exits.outcome != FILLED or control.violation != 0 or control.touched != 0:
        return REST
    charge_work(cpu, exits, control)
    note_fill(cpu, exits)
    if write_access == 1:
        return DONE
    exits.cs_base = read(cpu, ram, CODE_BASE)
    exits.rip = read(cpu, ram, VMCS_GUEST_RIP)
    exits.knows = KNOWS_PLACE
    if (exits.gla - exits.cs_base - exits.rip) & M32 < MAX_INSTRUCTION:
        exits.rflags = read(cpu, ram, VMCS_GUEST_RFLAGS)
        exits.knows = KNOWS_PLACE_AND_FLAGS
        drop_resume_flag(cpu, ram, exits)
    return DONE


@kernel
def drop_resume_flag(cpu, ram, exits):
    """RF is not the guest's, unless breakpoints are set (HardwareVm.drop_resume_flag)."""
    if exits.rflags & EFLAGS_RF == 0:
        return
    exits.dr7 = read(cpu, ram, VMCS_GUEST_DR7)
    exits.knows_dr7 = 1
    if exits.dr7 & BREAKPOINTS == 0:
        exits.rflags &= ~EFLAGS_RF
        exits.drops_flag = 1


# -- instructions -------------------------------------------------------------------------------------------------------


@kernel
def invalidate(cpu, ram, exits, links, control, gla):
    """INVLPG."""
    charge_items(cpu, exits, EXIT_INVLPG, 1)
    invalidate_page(cpu, ram, control, links, gla)
    charge_work(cpu, exits, control)


@inline
def believed(cpu, ram, slot, mask, own):
    """What the guest believes of CR0 or CR4, of which some bits are the VMM's."""
    return (peek(cpu, ram, slot) & ~mask) | (own & mask)


@kernel
def is_plain_load_of_cr3(cpu, ram, exits, qualification):
    """Whether an access to a control register is MOV to CR3 without PAE paging, from a register but ESP."""
    if qualification & ACCESS_MASK != LOAD_OF_CR3 or (qualification >> REGISTER_SHIFT) & 0xF == ESP:
        return False
    cr4 = believed(cpu, ram, VMCS_GUEST_CR4, exits.mask_cr4, exits.own_cr4)
    return cr4 & CR4_PAE == 0 and exits.own_cr0 & exits.mask_cr0 & CR0_PG != 0


@kernel
def load_cr3(cpu, ram, exits, links, control, qualification):
    """MOV to CR3."""
    charge_items(cpu, exits, EXIT_CONTROL_REGISTER, 1)
    exits.cr0 = (read(cpu, ram, VMCS_GUEST_CR0) & ~exits.mask_cr0) | (exits.own_cr0 & exits.mask_cr0)
    exits.cr4 = (read(cpu, ram, VMCS_GUEST_CR4) & ~exits.mask_cr4) | (exits.own_cr4 & exits.mask_cr4)
    exits.cr3 = cpu.gpr[(qualification >> REGISTER_SHIFT) & 0xF] & M32
    exits.loads_cr3 = 1
    store_32(ram, CR0, exits.cr0)
    store_32(ram, CR4, exits.cr4)
    store_32(ram, CR3, exits.cr3)
    path = SHADOW_SWITCH
    if is_loose(control):
        path = SHADOW_FLUSH
    charge_items(cpu, exits, path, 1)
    change_space(cpu, ram, control, links)
    charge_work(cpu, exits, control)


# -- before an entry ----------------------------------------------------------------------------------------------------


@kernel
def flush_stale(cpu, exits, control):
    """Tell the processor what translations to forget (ShadowMemory.before_entry): without a VPID each transition makes it."""
    if exits.vpid != 0 and control.flush != FLUSH_NOTHING:
        charge(cpu, EVENT_VMX_INVVPID, 1)
        invvpid(cpu, INVVPID_SINGLE, exits.vpid, 0)
    elif exits.vpid != 0:
        for place in range(control.flush_count):
            charge(cpu, EVENT_VMX_INVVPID, 1)
            invvpid(cpu, INVVPID_ADDRESS, exits.vpid, control.flush_pages[place] & M32)
    control.flush = FLUSH_NOTHING
    control.flush_count = 0


@inline
def put(cpu, ram, slot, value):
    """Write a field unless it has that value."""
    if peek(cpu, ram, slot) != value:
        write(cpu, ram, slot, value)


@kernel
def settle(cpu, ram, exits, control):
    """Let the VMCS hold what the processor is to walk (ShadowMemory.before_entry, GuestState.settle)."""
    flush_stale(cpu, exits, control)
    if exits.loads_cr3 == 0 and exits.drops_flag == 0 and control.cr3 == exits.root:
        return
    if exits.loads_cr3 == 1:
        exits.own_cr3 = exits.cr3
    exits.own_cr0 = believed(cpu, ram, VMCS_GUEST_CR0, exits.mask_cr0, exits.own_cr0)
    exits.own_cr4 = believed(cpu, ram, VMCS_GUEST_CR4, exits.mask_cr4, exits.own_cr4)
    exits.root = control.cr3
    exits.switched = 1
    put(cpu, ram, VMCS_GUEST_CR3, exits.root)
    put(cpu, ram, VMCS_CR0_SHADOW, exits.own_cr0)
    put(cpu, ram, VMCS_CR4_SHADOW, exits.own_cr4)
