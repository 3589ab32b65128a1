"""The host's state in the page that VM_HSAVE_PA names: saved by VMRUN, loaded by #VMEXIT (sections 15.5.1 and 15.6).

What lies there is the processor's own affair; hidden parts of ES, CS, SS and DS are kept too, so that no descriptor table is
read again, which the manual leaves to the processor. Software could write there all the same: what is loaded is checked, or
made what it must be.
"""

from ..isa.registers import (
    AR_P,
    AR_S,
    AR_UNUSABLE,
    CR0_CD,
    CR0_ET,
    CR0_IMPLEMENTED,
    CR0_NW,
    CR0_PE,
    CS,
    DS,
    EAX,
    EFER_NXE,
    EFLAGS_IMPLEMENTED,
    EFLAGS_VM,
    ES,
    ESP,
    TYPE_ACCESSED,
    TYPE_CODE,
)
from ..isa.svm import EFER_SVME
from .control_bits import cr4_offered
from .debug_registers import set_debug_register
from .flags import get_eflags, set_eflags
from .jit import kernel
from .layout import OK, SHUTDOWN
from .page_directory_pointers import load_pointers, pae_paging
from .segment import segment_limits
from .svm_segments import DESCRIPTOR_BITS
from .svm_vmcb import get_16, get_32, page_for_reading, page_for_writing, put_16, put_32, touch

# Offsets in the page: four segments of 16 bytes (selector, limit, base, access rights), then doublewords.
HOST_SELECTOR, HOST_LIMIT, HOST_BASE, HOST_ACCESS = 0, 4, 8, 12
HOST_GDTR_BASE, HOST_GDTR_LIMIT, HOST_IDTR_BASE, HOST_IDTR_LIMIT = 0x40, 0x44, 0x48, 0x4C
HOST_EFER, HOST_CR0, HOST_CR3, HOST_CR4 = 0x50, 0x54, 0x58, 0x5C
HOST_EFLAGS, HOST_EIP, HOST_ESP, HOST_EAX = 0x60, 0x64, 0x68, 0x6C
HOST_BYTES = 0x70
DR7_DISABLED = 0x400


@kernel
def save_host_state(cpu, ram):
    """Save the host; EIP is that of the instruction behind VMRUN."""
    touch(cpu, cpu.msr.vm_hsave_pa, HOST_BYTES)
    place = page_for_writing(cpu, ram, cpu.msr.vm_hsave_pa)
    for segment in range(ES, DS + 1):
        entry = cpu.seg[segment]
        put_16(ram, place, 16 * segment + HOST_SELECTOR, entry.selector)
        put_32(ram, place, 16 * segment + HOST_LIMIT, entry.limit)
        put_32(ram, place, 16 * segment + HOST_BASE, entry.seg_base)
        put_32(ram, place, 16 * segment + HOST_ACCESS, entry.access)
    put_32(ram, place, HOST_GDTR_BASE, cpu.gdtr_base)
    put_32(ram, place, HOST_GDTR_LIMIT, cpu.gdtr_limit)
    put_32(ram, place, HOST_IDTR_BASE, cpu.idtr_base)
    put_32(ram, place, HOST_IDTR_LIMIT, cpu.idtr_limit)
    put_32(ram, place, HOST_EFER, cpu.efer)
    put_32(ram, place, HOST_CR0, cpu.cr0)
    put_32(ram, place, HOST_CR3, cpu.cr3)
    put_32(ram, place, HOST_CR4, cpu.cr4)
    put_32(ram, place, HOST_EFLAGS, get_eflags(cpu))
    put_32(ram, place, HOST_EIP, cpu.rip)
    put_32(ram, place, HOST_ESP, cpu.gpr[ESP])
    put_32(ram, place, HOST_EAX, cpu.gpr[EAX])


@kernel
def load_host_segment(cpu, ram, place, segment):
    """Load ES, CS, SS or DS of the host."""
    entry = cpu.seg[segment]
    entry.selector = get_16(ram, place, 16 * segment + HOST_SELECTOR)
    entry.limit = get_32(ram, place, 16 * segment + HOST_LIMIT)
    entry.seg_base = get_32(ram, place, 16 * segment + HOST_BASE)
    access = get_32(ram, place, 16 * segment + HOST_ACCESS) & (DESCRIPTOR_BITS | AR_UNUSABLE)
    if segment == CS:
        access = (access & ~AR_UNUSABLE) | AR_P | AR_S | TYPE_CODE | TYPE_ACCESSED
    entry.access = access
    segment_limits(cpu, segment)


@kernel
def load_host_control(cpu, ram, place):
    """CR0, CR4, EFER, CR3 and with it the PDPTEs: OK, or SHUTDOWN for values that the processor cannot have."""
    cr0 = (get_32(ram, place, HOST_CR0) & CR0_IMPLEMENTED) | CR0_PE | CR0_ET
    cr4 = get_32(ram, place, HOST_CR4)
    efer = get_32(ram, place, HOST_EFER)
    if cr0 & (CR0_NW | CR0_CD) == CR0_NW or cr4 & ~cr4_offered(cpu) != 0 or efer & ~(EFER_NXE | EFER_SVME) != 0:
        return SHUTDOWN
    cpu.cr0 = cr0
    cpu.cr4 = cr4
    cpu.cr3 = get_32(ram, place, HOST_CR3)
    cpu.efer = efer
    cpu.msr.efer = efer
    if pae_paging(cr0, cr4) and load_pointers(cpu, ram, cpu.cr3) != OK:
        return SHUTDOWN
    return OK


@kernel
def load_host_state(cpu, ram):
    """Load the host again: CPL 0, no virtual-8086 mode, no breakpoints. LDTR, TR, FS, GS and CR2 stay the guest's."""
    touch(cpu, cpu.msr.vm_hsave_pa, HOST_BYTES)
    place = page_for_reading(cpu, ram, cpu.msr.vm_hsave_pa)
    outcome = load_host_control(cpu, ram, place)
    if outcome != OK:
        return outcome
    set_eflags(cpu, get_32(ram, place, HOST_EFLAGS) & EFLAGS_IMPLEMENTED & ~EFLAGS_VM)
    for segment in range(ES, DS + 1):
        load_host_segment(cpu, ram, place, segment)
    cpu.gdtr_base = get_32(ram, place, HOST_GDTR_BASE)
    cpu.gdtr_limit = get_32(ram, place, HOST_GDTR_LIMIT) & 0xFFFF
    cpu.idtr_base = get_32(ram, place, HOST_IDTR_BASE)
    cpu.idtr_limit = get_32(ram, place, HOST_IDTR_LIMIT) & 0xFFFF
    set_debug_register(cpu, 7, DR7_DISABLED)
    cpu.rip = get_32(ram, place, HOST_EIP)
    cpu.gpr[ESP] = get_32(ram, place, HOST_ESP)
    cpu.gpr[EAX] = get_32(ram, place, HOST_EAX)
    return OK
