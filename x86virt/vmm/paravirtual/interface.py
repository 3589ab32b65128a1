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
EINVAL, ENOSPC, ENOSYS, ENXIO, ENODEV, EOPNOTSUPP, ETIME = 22, 28, 38, 6, 19, 95, 62

# Domains.
DOMID_SELF, DOMID_IO, DOMID_XEN = 0x7FF0, 0x7FF1, 0x7FF2

# The shared information page (arch-x86-32): 32 records of virtual processors, then events, then the wall clock.
VCPU_INFO_BYTES = 64
VCPU_UPCALL_PENDING, VCPU_UPCALL_MASK, VCPU_PENDING_SELECTOR, VCPU_CR2, VCPU_TIME = 0, 1, 4, 8, 32
MAX_VIRT_CPUS = 32
TIME_VERSION, TIME_TSC_STAMP, TIME_SYSTEM, TIME_MULTIPLIER, TIME_SHIFT = 0, 8, 16, 24, 28  # of a time record
TIME_BYTES = 32
SHARED_PENDING = MAX_VIRT_CPUS * VCPU_INFO_BYTES
SHARED_MASK = SHARED_PENDING + 128
SHARED_WC_VERSION = SHARED_MASK + 128
SHARED_WC_SECONDS = SHARED_WC_VERSION + 4
SHARED_WC_NANOSECONDS = SHARED_WC_VERSION + 8
SHARED_MAX_PFN = SHARED_WC_VERSION + 12
SHARED_FRAME_LIST_LIST = SHARED_WC_VERSION + 16
SHARED_NMI_REASON = SHARED_WC_VERSION + 20
N_EVENT_CHANNELS = 1024

# Event channels (event_channel.h).
EVTCHNOP_bind_interdomain, EVTCHNOP_bind_virq, EVTCHNOP_bind_pirq, EVTCHNOP_close, EVTCHNOP_send = range(5)
EVTCHNOP_status, EVTCHNOP_alloc_unbound, EVTCHNOP_bind_ipi, EVTCHNOP_bind_vcpu, EVTCHNOP_unmask = range(5, 10)
EVTCHNOP_reset = 10
EVTCHNSTAT_closed, EVTCHNSTAT_unbound, EVTCHNSTAT_interdomain, EVTCHNSTAT_pirq, EVTCHNSTAT_virq, EVTCHNSTAT_ipi = range(6)
VIRQ_TIMER, VIRQ_DEBUG, VIRQ_CONSOLE, VIRQ_DOM_EXC, VIRQ_DEBUGGER, VIRQ_XENOPROF = 0, 1, 2, 3, 6, 7
NR_VIRQS = 24

# Scheduling and virtual processors (sched.h, vcpu.h).
SCHEDOP_yield, SCHEDOP_block, SCHEDOP_shutdown, SCHEDOP_poll, SCHEDOP_remote_shutdown = range(5)
SCHEDOP_shutdown_code, SCHEDOP_watchdog = 5, 6
SHUTDOWN_poweroff, SHUTDOWN_reboot, SHUTDOWN_suspend, SHUTDOWN_crash, SHUTDOWN_watchdog = range(5)
VCPUOP_initialise, VCPUOP_up, VCPUOP_down, VCPUOP_is_up, VCPUOP_get_runstate_info = range(5)
VCPUOP_register_runstate_memory_area, VCPUOP_set_periodic_timer, VCPUOP_stop_periodic_timer = 5, 6, 7
VCPUOP_set_singleshot_timer, VCPUOP_stop_singleshot_timer, VCPUOP_register_vcpu_info = 8, 9, 10
VCPUOP_send_nmi, VCPUOP_get_physid, VCPUOP_register_vcpu_time_memory_area = 11, 12, 13
VCPU_SSHOTTMR_future = 1
RUNSTATE_running, RUNSTATE_runnable, RUNSTATE_blocked, RUNSTATE_offline = range(4)

# Grants (grant_table.h), version 1.
GNTTABOP_map_grant_ref, GNTTABOP_unmap_grant_ref, GNTTABOP_setup_table, GNTTABOP_dump_table, GNTTABOP_transfer = range(5)
GNTTABOP_copy, GNTTABOP_query_size, GNTTABOP_unmap_and_replace, GNTTABOP_set_version = 5, 6, 7, 8
GNTTABOP_get_status_frames, GNTTABOP_get_version, GNTTABOP_swap_grant_ref, GNTTABOP_cache_flush = 9, 10, 11, 12
GNTMAP_device_map, GNTMAP_host_map, GNTMAP_readonly, GNTMAP_application_map, GNTMAP_contains_pte = 1, 2, 4, 8, 16
GTF_invalid, GTF_permit_access, GTF_accept_transfer, GTF_type_mask = 0, 1, 2, 3
GTF_readonly, GTF_reading, GTF_writing = 4, 8, 16
GNTST_okay, GNTST_general_error, GNTST_bad_domain, GNTST_bad_gntref = 0, -1, -2, -3
GNTST_bad_handle, GNTST_bad_virt_addr, GNTST_bad_dev_addr, GNTST_no_device_space = -4, -5, -6, -7
GNTST_permission_denied, GNTST_bad_page, GNTST_bad_copy_arg, GNTST_address_too_big, GNTST_eagain = -8, -9, -10, -11, -12
GNTCOPY_source_gref, GNTCOPY_dest_gref = 1, 2
GNTTAB_RESERVED_CONSOLE, GNTTAB_RESERVED_XENSTORE = 0, 1
GRANT_ENTRY_BYTES = 8  # flags (16 bits), domain (16 bits), frame

# What a guest asks about the VMM (version.h).
XENVER_version, XENVER_extraversion, XENVER_compile_info, XENVER_capabilities, XENVER_changeset = range(5)
XENVER_platform_parameters, XENVER_get_features, XENVER_pagesize, XENVER_guest_handle = 5, 6, 7, 8
XENVER_commandline, XENVER_build_id = 9, 10
XENFEAT_writable_page_tables, XENFEAT_writable_descriptor_tables, XENFEAT_auto_translated_physmap = 0, 1, 2
XENFEAT_supervisor_mode_kernel, XENFEAT_pae_pgdir_above_4gb, XENFEAT_mmu_pt_update_preserve_ad = 3, 4, 5
XENFEAT_gnttab_map_avail_bits = 7
CONSOLEIO_write, CONSOLEIO_read = 0, 1

# Physical devices (physdev.h).
PHYSDEVOP_IRQ_UNMASK_NOTIFY, PHYSDEVOP_irq_status_query, PHYSDEVOP_set_iopl, PHYSDEVOP_set_iobitmap = 4, 5, 6, 7
PHYSDEVOP_apic_read, PHYSDEVOP_apic_write, PHYSDEVOP_alloc_irq_vector, PHYSDEVOP_free_irq_vector = 8, 9, 10, 11
PHYSDEVOP_eoi, PHYSDEVOP_map_pirq, PHYSDEVOP_unmap_pirq = 12, 13, 14
XENIRQSTAT_needs_eoi, XENIRQSTAT_shared = 1, 2
N_PIRQS = 16
