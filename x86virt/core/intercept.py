"""The micro-operation `intercept`, which stands in front of an instruction of a guest, and what VMX's controls make of it.

`cpu.intercepted` says by operation (isa/system_ops.py) whether the controls may make it exit; only then its operands are
looked at (core/vmx_intercepts.py, core/svm_exits.py).
"""

from ..isa.registers import CR0_EM, CR0_MP, CR0_PE, CR0_TS
from ..isa.system_ops import (
    INTERCEPT_INS,
    INTERCEPT_OUTS,
    INTERCEPT_PAUSE,
    SYSTEM_CLTS,
    SYSTEM_CPUID,
    SYSTEM_CR_TO_REGISTER,
    SYSTEM_DR_TO_REGISTER,
    SYSTEM_HLT,
    SYSTEM_IN,
    SYSTEM_INVD,
    SYSTEM_INVEPT,
    SYSTEM_INVLPG,
    SYSTEM_INVVPID,
    SYSTEM_LGDT,
    SYSTEM_LMSW,
    SYSTEM_OUT,
    SYSTEM_RDMSR,
    SYSTEM_RDPMC,
    SYSTEM_RDTSC,
    SYSTEM_REGISTER_TO_CR,
    SYSTEM_REGISTER_TO_DR,
    SYSTEM_STR,
    SYSTEM_VMCALL,
    SYSTEM_VMXON,
    SYSTEM_WBINVD,
    SYSTEM_WRMSR,
)
from ..isa.vmx import (
    PROCESSOR_CR3_LOAD_EXITING,
    PROCESSOR_CR3_STORE_EXITING,
    PROCESSOR_HLT_EXITING,
    PROCESSOR_INVLPG_EXITING,
    PROCESSOR_IO_BITMAPS,
    PROCESSOR_MOV_DR_EXITING,
    PROCESSOR_PAUSE_EXITING,
    PROCESSOR_RDPMC_EXITING,
    PROCESSOR_RDTSC_EXITING,
    PROCESSOR_UNCONDITIONAL_IO_EXITING,
    SECONDARY_DESCRIPTOR_TABLE_EXITING,
    SECONDARY_WBINVD_EXITING,
)
from .jit import kernel
from .layout import OK, SVM_GUEST
from .svm_exits import svm_intercept
from .vmx_intercepts import vmx_intercept

EPT_VPID_CAPABILITY = 12  # place of IA32_VMX_EPT_VPID_CAP among the capability registers
INVEPT_OFFERED, INVVPID_OFFERED = 20, 32  # its bits


@kernel
def set_vmx_intercepts(cpu):
    """What VMX's controls in `cpu.vmx` may intercept: done at VM entry, so that an instruction looks at one number."""
    vmx = cpu.vmx
    processor = vmx.processor
    intercepted = cpu.intercepted
    # 1. Unconditional exits (section 25.1.2).
    intercepted[SYSTEM_CPUID] = 1
    intercepted[SYSTEM_INVD] = 1
    for operation in range(SYSTEM_VMCALL, SYSTEM_VMXON + 1):
        intercepted[operation] = 1
    intercepted[SYSTEM_INVEPT] = (cpu.msr.vmx_capability[EPT_VPID_CAPABILITY] >> INVEPT_OFFERED) & 1
    intercepted[SYSTEM_INVVPID] = (cpu.msr.vmx_capability[EPT_VPID_CAPABILITY] >> INVVPID_OFFERED) & 1
    # 2. Conditional ones (section 25.1.3), in the order of the controls.
    intercepted[SYSTEM_HLT] = int(processor & PROCESSOR_HLT_EXITING != 0)
    intercepted[SYSTEM_INVLPG] = int(processor & PROCESSOR_INVLPG_EXITING != 0)
    intercepted[SYSTEM_RDPMC] = int(processor & PROCESSOR_RDPMC_EXITING != 0)
    intercepted[SYSTEM_RDTSC] = int(processor & PROCESSOR_RDTSC_EXITING != 0)
    intercepted[SYSTEM_CR_TO_REGISTER] = int(processor & PROCESSOR_CR3_STORE_EXITING != 0)
    intercepted[SYSTEM_REGISTER_TO_CR] = int(
        processor & PROCESSOR_CR3_LOAD_EXITING != 0 or vmx.cr0_mask != 0 or vmx.cr4_mask != 0
    )
    intercepted[SYSTEM_CLTS] = int(vmx.cr0_mask & vmx.cr0_shadow & CR0_TS != 0)
    intercepted[SYSTEM_LMSW] = int(vmx.cr0_mask & (CR0_PE | CR0_MP | CR0_EM | CR0_TS) != 0)
    debug = int(processor & PROCESSOR_MOV_DR_EXITING != 0)
    intercepted[SYSTEM_DR_TO_REGISTER] = debug
    intercepted[SYSTEM_REGISTER_TO_DR] = debug
    ports = int(processor & (PROCESSOR_UNCONDITIONAL_IO_EXITING | PROCESSOR_IO_BITMAPS) != 0)
    intercepted[SYSTEM_IN] = ports
    intercepted[SYSTEM_OUT] = ports
    intercepted[INTERCEPT_INS] = ports
    intercepted[INTERCEPT_OUTS] = ports
    intercepted[SYSTEM_RDMSR] = 1  # by the bitmaps, or always without them
    intercepted[SYSTEM_WRMSR] = 1
    intercepted[INTERCEPT_PAUSE] = int(processor & PROCESSOR_PAUSE_EXITING != 0)
    tables = int(vmx.secondary & SECONDARY_DESCRIPTOR_TABLE_EXITING != 0)
    for operation in range(SYSTEM_LGDT, SYSTEM_STR + 1):
        intercepted[operation] = tables
    intercepted[SYSTEM_WBINVD] = int(vmx.secondary & SECONDARY_WBINVD_EXITING != 0)


@kernel
def intercept(cpu, ram, board, u):
    """Whether the guest's controls intercept the instruction that follows: OK, VM_EXIT, or FAULT if that ranks above."""
    if cpu.world == SVM_GUEST:
        return svm_intercept(cpu, ram, u)
    if cpu.intercepted[u.dst_shift] == 0:
        return OK
    return vmx_intercept(cpu, ram, u)
