"""The instructions of SVM (AMD publication 24593, section 15.5, and volume 3): VMRUN itself is in svm_run.py."""

from ..isa.events import EVENT_SVM_CLGI, EVENT_SVM_INVLPGA, EVENT_SVM_STGI, EVENT_SVM_VMLOAD, EVENT_SVM_VMSAVE
from ..isa.registers import EAX, ECX, FS, GS, LDTR, TR
from ..isa.svm import (
    EFER_SVME,
    VMCB_FS,
    VMCB_GS,
    VMCB_LDTR,
    VMCB_SAVE_AREA,
    VMCB_SAVE_END,
    VMCB_STAR,
    VMCB_SYSENTER_CS,
    VMCB_SYSENTER_EIP,
    VMCB_SYSENTER_ESP,
    VMCB_TR,
)
from ..isa.system_ops import (
    SYSTEM_CLGI,
    SYSTEM_INVLPGA,
    SYSTEM_SKINIT,
    SYSTEM_STGI,
    SYSTEM_VMLOAD,
    SYSTEM_VMMCALL,
    SYSTEM_VMRUN,
)
from ..isa.vectors import GP, UD
from .address_space import invlpga
from .charge import charge
from .fault import raise_fault, raise_plain
from .jit import kernel
from .layout import N_SYSTEM_CALL_REGISTERS, OK
from .mode import segments_are_paragraphs
from .svm_checks import address_spaces
from .svm_guest import signed_quadword
from .svm_operands import address_is_bad, vmcb_operand
from .svm_run import run_guest
from .svm_segments import load_segment_from, save_segment_to
from .svm_vmcb import get_32, page_for_reading, page_for_writing, put_64, touch


@kernel
def vmload(cpu, ram, address):
    """VMLOAD: FS, GS, TR and LDTR with their hidden parts, the registers of SYSCALL and SYSENTER."""
    charge(cpu, EVENT_SVM_VMLOAD, 1)
    touch(cpu, address + VMCB_SAVE_AREA, VMCB_SAVE_END - VMCB_SAVE_AREA)
    place = page_for_reading(cpu, ram, address)
    load_segment_from(cpu, ram, place, FS, VMCB_FS)
    load_segment_from(cpu, ram, place, GS, VMCB_GS)
    load_segment_from(cpu, ram, place, TR, VMCB_TR)
    load_segment_from(cpu, ram, place, LDTR, VMCB_LDTR)
    for number in range(N_SYSTEM_CALL_REGISTERS):
        cpu.svm.system_call[number] = signed_quadword(ram, place, VMCB_STAR + 8 * number)
    cpu.sysenter_cs = get_32(ram, place, VMCB_SYSENTER_CS)
    cpu.sysenter_esp = get_32(ram, place, VMCB_SYSENTER_ESP)
    cpu.sysenter_eip = get_32(ram, place, VMCB_SYSENTER_EIP)
    return OK


@kernel
def vmsave(cpu, ram, address):
    """VMSAVE: what VMLOAD loads."""
    charge(cpu, EVENT_SVM_VMSAVE, 1)
    touch(cpu, address + VMCB_SAVE_AREA, VMCB_SAVE_END - VMCB_SAVE_AREA)
    place = page_for_writing(cpu, ram, address)
    save_segment_to(cpu, ram, place, FS, VMCB_FS)
    save_segment_to(cpu, ram, place, GS, VMCB_GS)
    save_segment_to(cpu, ram, place, TR, VMCB_TR)
    save_segment_to(cpu, ram, place, LDTR, VMCB_LDTR)
    for number in range(N_SYSTEM_CALL_REGISTERS):
        put_64(ram, place, VMCB_STAR + 8 * number, cpu.svm.system_call[number])
    put_64(ram, place, VMCB_SYSENTER_CS, cpu.sysenter_cs)
    put_64(ram, place, VMCB_SYSENTER_ESP, cpu.sysenter_esp)
    put_64(ram, place, VMCB_SYSENTER_EIP, cpu.sysenter_eip)
    return OK


@kernel
def with_vmcb(cpu, ram, operation, u):
    """VMRUN, VMLOAD and VMSAVE: #GP(0) unless rAX is the address of a page."""
    if address_is_bad(cpu, u):
        return raise_fault(cpu, GP, 0)
    address = vmcb_operand(cpu, u)
    if operation == SYSTEM_VMRUN:
        return run_guest(cpu, ram, address)
    if operation == SYSTEM_VMLOAD:
        return vmload(cpu, ram, address)
    return vmsave(cpu, ram, address)


@kernel
def invalidate_in_space(cpu, gla, asid):
    """INVLPGA: the page of a linear address in an address space; one that there is not holds none."""
    charge(cpu, EVENT_SVM_INVLPGA, 1)
    if asid < address_spaces(cpu):
        invlpga(cpu, gla, asid)
    return OK


@kernel
def stgi(cpu):
    """STGI."""
    charge(cpu, EVENT_SVM_STGI, 1)
    cpu.svm.gif = 1
    return OK


@kernel
def clgi(cpu):
    """CLGI."""
    charge(cpu, EVENT_SVM_CLGI, 1)
    cpu.svm.gif = 0
    return OK


@kernel
def svm_instruction(cpu, ram, u):
    """The operations SYSTEM_VMRUN to SYSTEM_INVLPGA, where no guest intercepts them."""
    operation = u.dst_shift
    # 1. #UD: VMMCALL that nobody intercepts; no SVM, or no protected mode.
    if operation == SYSTEM_VMMCALL or cpu.efer & EFER_SVME == 0 or segments_are_paragraphs(cpu):
        return raise_plain(cpu, UD)
    # 2. #GP(0) outside ring 0.
    if cpu.cpl != 0:
        return raise_fault(cpu, GP, 0)
    # 3. The instruction; the processor has no SKINIT.
    if operation == SYSTEM_SKINIT:
        return raise_plain(cpu, UD)
    if operation == SYSTEM_STGI:
        return stgi(cpu)
    if operation == SYSTEM_CLGI:
        return clgi(cpu)
    if operation == SYSTEM_INVLPGA:
        return invalidate_in_space(cpu, cpu.gpr[EAX] & u.address_mask, cpu.gpr[ECX])
    return with_vmcb(cpu, ram, operation, u)
