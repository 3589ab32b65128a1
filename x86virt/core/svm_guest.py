"""The guest's state between the processor and the VMCB: loaded by VMRUN, saved by #VMEXIT (sections 15.5.1 and 15.6)."""

from ..isa.registers import CR0_ET, CR0_IMPLEMENTED, CR0_PE, CS, DS, EAX, EFLAGS_IMPLEMENTED, EFLAGS_VM, ES, ESP, SS
from ..isa.svm import (
    SEGMENT_BASE,
    SEGMENT_LIMIT,
    V_IRQ,
    VMCB_CPL,
    VMCB_CR0,
    VMCB_CR2,
    VMCB_CR3,
    VMCB_CR4,
    VMCB_CS,
    VMCB_DR6,
    VMCB_DR7,
    VMCB_DS,
    VMCB_EFER,
    VMCB_ES,
    VMCB_GDTR,
    VMCB_IDTR,
    VMCB_INTERRUPT_SHADOW,
    VMCB_PAT,
    VMCB_RAX,
    VMCB_RFLAGS,
    VMCB_RIP,
    VMCB_RSP,
    VMCB_SAVE_AREA,
    VMCB_SAVE_END,
    VMCB_SS,
    VMCB_VIRTUAL_INTERRUPT,
)
from .debug_registers import set_debug_register
from .flags import get_eflags, set_eflags
from .jit import kernel
from .layout import HOLDS_INTERRUPTS
from .mode import in_real_mode, in_virtual_8086_mode, set_context, set_cpl
from .svm_segments import load_segment_from, save_segment_to
from .svm_vmcb import get_8, get_16, get_32, get_high, put_8, put_16, put_32, put_64, touch


@kernel
def signed_quadword(ram, place, offset):
    """A quadword as a signed number."""
    high = get_high(ram, place, offset)
    return get_32(ram, place, offset) | ((high ^ 0x80000000) - 0x80000000) << 32


@kernel
def touch_save_area(cpu):
    """The references to the part of the VMCB that holds the guest's registers."""
    touch(cpu, cpu.svm.vmcb + VMCB_SAVE_AREA, VMCB_SAVE_END - VMCB_SAVE_AREA)


@kernel
def load_guest_control(cpu, ram, place):
    """CR0 to CR4 and EFER; whoever calls this brings translations up to date."""
    cpu.cr0 = (get_32(ram, place, VMCB_CR0) & CR0_IMPLEMENTED) | CR0_ET
    cpu.cr2 = get_32(ram, place, VMCB_CR2)
    cpu.cr3 = get_32(ram, place, VMCB_CR3)
    cpu.cr4 = get_32(ram, place, VMCB_CR4)
    cpu.efer = get_32(ram, place, VMCB_EFER)
    cpu.msr.efer = cpu.efer
    if cpu.svm.nested_paging == 1:
        cpu.svm.host_pat = cpu.msr.pat
        cpu.msr.pat = signed_quadword(ram, place, VMCB_PAT)


@kernel
def guest_level(cpu, ram, place):
    """CPL: 0 in real mode, 3 in virtual-8086 mode, else as the VMCB has it."""
    if in_real_mode(cpu):
        return 0
    if in_virtual_8086_mode(cpu):
        return 3
    return get_8(ram, place, VMCB_CPL) & 3


@kernel
def load_guest_registers(cpu, ram, place):
    """The rest of the guest's state; control registers and `cpu.world` are those of the guest already."""
    flags = get_32(ram, place, VMCB_RFLAGS) & EFLAGS_IMPLEMENTED
    if cpu.cr0 & CR0_PE == 0:
        flags &= ~EFLAGS_VM
    set_eflags(cpu, flags)
    load_segment_from(cpu, ram, place, ES, VMCB_ES)
    load_segment_from(cpu, ram, place, CS, VMCB_CS)
    load_segment_from(cpu, ram, place, SS, VMCB_SS)
    load_segment_from(cpu, ram, place, DS, VMCB_DS)
    cpu.gdtr_base = get_32(ram, place, VMCB_GDTR + SEGMENT_BASE)
    cpu.gdtr_limit = get_16(ram, place, VMCB_GDTR + SEGMENT_LIMIT)
    cpu.idtr_base = get_32(ram, place, VMCB_IDTR + SEGMENT_BASE)
    cpu.idtr_limit = get_16(ram, place, VMCB_IDTR + SEGMENT_LIMIT)
    cpu.rip = get_32(ram, place, VMCB_RIP)
    cpu.gpr[ESP] = get_32(ram, place, VMCB_RSP)
    cpu.gpr[EAX] = get_32(ram, place, VMCB_RAX)
    set_debug_register(cpu, 6, get_32(ram, place, VMCB_DR6))
    set_debug_register(cpu, 7, get_32(ram, place, VMCB_DR7))
    cpu.shadow = (get_8(ram, place, VMCB_INTERRUPT_SHADOW) & 1) * HOLDS_INTERRUPTS
    set_cpl(cpu, guest_level(cpu, ram, place))
    set_context(cpu)


@kernel
def save_guest_segments(cpu, ram, place):
    """ES, CS, SS and DS, and the descriptor-table registers."""
    save_segment_to(cpu, ram, place, ES, VMCB_ES)
    save_segment_to(cpu, ram, place, CS, VMCB_CS)
    save_segment_to(cpu, ram, place, SS, VMCB_SS)
    save_segment_to(cpu, ram, place, DS, VMCB_DS)
    put_64(ram, place, VMCB_GDTR + SEGMENT_BASE, cpu.gdtr_base)
    put_32(ram, place, VMCB_GDTR + SEGMENT_LIMIT, cpu.gdtr_limit)
    put_64(ram, place, VMCB_IDTR + SEGMENT_BASE, cpu.idtr_base)
    put_32(ram, place, VMCB_IDTR + SEGMENT_LIMIT, cpu.idtr_limit)


@kernel
def save_guest_state(cpu, ram, place):
    """Save the guest's registers, the interrupt shadow, and what became of its virtual interrupt."""
    save_guest_segments(cpu, ram, place)
    put_64(ram, place, VMCB_EFER, cpu.efer)
    put_64(ram, place, VMCB_CR0, cpu.cr0)
    put_64(ram, place, VMCB_CR2, cpu.cr2)
    put_64(ram, place, VMCB_CR3, cpu.cr3)
    put_64(ram, place, VMCB_CR4, cpu.cr4)
    put_64(ram, place, VMCB_DR6, cpu.dr[6])
    put_64(ram, place, VMCB_DR7, cpu.dr[7])
    put_64(ram, place, VMCB_RFLAGS, get_eflags(cpu))
    put_64(ram, place, VMCB_RIP, cpu.rip)
    put_64(ram, place, VMCB_RSP, cpu.gpr[ESP])
    put_64(ram, place, VMCB_RAX, cpu.gpr[EAX])
    put_8(ram, place, VMCB_CPL, cpu.cpl)
    put_64(ram, place, VMCB_INTERRUPT_SHADOW, int(cpu.shadow != 0))
    # V_TPR and V_IRQ alone change while a guest runs.
    put_16(ram, place, VMCB_VIRTUAL_INTERRUPT, cpu.svm.v_tpr | cpu.svm.v_irq * V_IRQ)
    if cpu.svm.nested_paging == 1:
        put_64(ram, place, VMCB_PAT, cpu.msr.pat)
        cpu.msr.pat = cpu.svm.host_pat
