"""Xen's public x86-32 interface, as far as this VMM has it: numbers and structures under the names of Xen's own headers.

Data only. The VMM's handlers, the records of hypercalls in the output and the include files of our guests follow from it.
Source: Xen's public headers (xen/include/public: xen.h, arch-x86/xen.h, arch-x86/xen-x86_32.h, event_channel.h,
grant_table.h, sched.h, memory.h, vcpu.h, physdev.h, callback.h, version.h, io/ring.h, io/blkif.h, io/console.h,
io/xs_wire.h, elfnote.h), whose numbers are the contract with guests that others built.
"""

HYPERCALL_VECTOR = 0x82
HYPERCALL_BYTES = 32  # of the hypercall page, for each number
HYPERVISOR_VIRT_START = 0xFC000000  # of 2-level guests
HYPERVISOR_VIRT_START_PAE = 0xF5800000
MACH2PHYS_BYTES = 0x400000  # of the linear space, from there: all that a guest's segments reach above that address
MACH2PHYS_BYTES_PAE = 0x1000000
INVALID_M2P_ENTRY = 0xFFFFFFFF

FIRST_RESERVED_GDT_PAGE = 14
FIRST_RESERVED_GDT_ENTRY = FIRST_RESERVED_GDT_PAGE * 512
FLAT_RING1_CS = 0xE019
FLAT_RING1_DS = 0xE021
FLAT_RING1_SS = 0xE021
FLAT_RING3_CS = 0xE02B
FLAT_RING3_DS = 0xE033
FLAT_RING3_SS = 0xE033

# Hypercalls by number.
HYPERCALLS = {
    0: "set_trap_table",
    1: "mmu_update",
    2: "set_gdt",
    3: "stack_switch",
    4: "set_callbacks",
    5: "fpu_taskswitch",
    6: "sched_op_compat",
    7: "platform_op",
    8: "set_debugreg",
    9: "get_debugreg",
    10: "update_descriptor",
    12: "memory_op",
    13: "multicall",
    14: "update_va_mapping",
    15: "set_timer_op",
    16: "event_channel_op_compat",
    17: "xen_version",
    18: "console_io",
    19: "physdev_op_compat",
    20: "grant_table_op",
    21: "vm_assist",
    22: "update_va_mapping_otherdomain",
    23: "iret",
    24: "vcpu_op",
    25: "set_segment_base",
    26: "mmuext_op",
    27: "xsm_op",
    28: "nmi_op",
    29: "sched_op",
    30: "callback_op",
    31: "xenoprof_op",
    32: "event_channel_op",
    33: "physdev_op",
    34: "hvm_op",
    35: "sysctl",
    36: "domctl",
    37: "kexec_op",
    38: "tmem_op",
}
NUMBER_OF = {name: number for number, name in HYPERCALLS.items()}
N_HYPERCALLS = 64

# Errors (errno.h), returned negated.
EPERM, ENOENT, ESRCH, E2BIG, EAGAIN, ENOMEM, EACCES, EFAULT, EBUSY, EEXIST = 1, 2, 3, 7, 11, 12, 13, 14, 16, 17
EINVAL, ENOSPC, ENOSYS = 22, 28, 38

# Domains.
DOMID_SELF, DOMID_IO, DOMID_XEN = 0x7FF0, 0x7FF1, 0x7FF2
