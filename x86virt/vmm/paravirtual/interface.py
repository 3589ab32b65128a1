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

# How a kernel says what it is (elfnote.h): notes of the name "Xen", by type.
XEN_ELFNOTE_INFO, XEN_ELFNOTE_ENTRY, XEN_ELFNOTE_HYPERCALL_PAGE, XEN_ELFNOTE_VIRT_BASE = range(4)
XEN_ELFNOTE_PADDR_OFFSET, XEN_ELFNOTE_XEN_VERSION, XEN_ELFNOTE_GUEST_OS, XEN_ELFNOTE_GUEST_VERSION = range(4, 8)
XEN_ELFNOTE_LOADER, XEN_ELFNOTE_PAE_MODE, XEN_ELFNOTE_FEATURES, XEN_ELFNOTE_BSD_SYMTAB = range(8, 12)
XEN_ELFNOTE_HV_START_LOW, XEN_ELFNOTE_L1_MFN_VALID, XEN_ELFNOTE_SUSPEND_CANCEL = range(12, 15)
XEN_ELFNOTE_INIT_P2M, XEN_ELFNOTE_MOD_START_PFN, XEN_ELFNOTE_SUPPORTED_FEATURES = range(15, 18)
SIF_PRIVILEGED, SIF_INITDOMAIN = 1, 2  # start_info.flags

# Page tables and what else changes mappings (xen.h).
MMU_NORMAL_PT_UPDATE, MMU_MACHPHYS_UPDATE, MMU_PT_UPDATE_PRESERVE_AD = range(3)  # low bits of mmu_update.ptr
MMUEXT_PIN_L1_TABLE, MMUEXT_PIN_L2_TABLE, MMUEXT_PIN_L3_TABLE, MMUEXT_PIN_L4_TABLE, MMUEXT_UNPIN_TABLE = range(5)
MMUEXT_NEW_BASEPTR, MMUEXT_TLB_FLUSH_LOCAL, MMUEXT_INVLPG_LOCAL, MMUEXT_TLB_FLUSH_MULTI, MMUEXT_INVLPG_MULTI = range(
    5, 10
)
MMUEXT_TLB_FLUSH_ALL, MMUEXT_INVLPG_ALL, MMUEXT_FLUSH_CACHE, MMUEXT_SET_LDT = range(10, 14)
MMUEXT_NEW_USER_BASEPTR, MMUEXT_CLEAR_PAGE, MMUEXT_COPY_PAGE, MMUEXT_FLUSH_CACHE_GLOBAL = range(15, 19)
MMUEXT_MARK_SUPER, MMUEXT_UNMARK_SUPER = 19, 20
UVMF_NONE, UVMF_TLB_FLUSH, UVMF_INVLPG, UVMF_FLUSHTYPE_MASK = range(4)
UVMF_MULTI, UVMF_LOCAL, UVMF_ALL = 0, 0, 4
VMASST_CMD_enable, VMASST_CMD_disable = 0, 1
VMASST_TYPE_4gb_segments, VMASST_TYPE_4gb_segments_notify = 0, 1
VMASST_TYPE_writable_pagetables, VMASST_TYPE_pae_extended_cr3 = 2, 3
XENMEM_increase_reservation, XENMEM_decrease_reservation, XENMEM_maximum_ram_page = 0, 1, 2
XENMEM_current_reservation, XENMEM_maximum_reservation, XENMEM_machphys_mfn_list = 3, 4, 5
XENMEM_populate_physmap, XENMEM_add_to_physmap, XENMEM_translate_gpfn_list, XENMEM_memory_map = 6, 7, 8, 9
XENMEM_machine_memory_map, XENMEM_exchange, XENMEM_machphys_mapping, XENMEM_set_memory_map = 10, 11, 12, 13

# Traps and callbacks (arch-x86/xen.h, callback.h, nmi.h).
TI_DPL_MASK, TI_MASK_EVENTS = 3, 4  # trap_info.flags: who may come by INT n; whether events are masked on the way in
CALLBACKOP_register, CALLBACKOP_unregister = 0, 1
CALLBACKTYPE_event, CALLBACKTYPE_failsafe, CALLBACKTYPE_syscall, CALLBACKTYPE_sysenter_deprecated = range(4)
CALLBACKTYPE_nmi, CALLBACKTYPE_sysenter, CALLBACKTYPE_syscall32 = 4, 5, 7
CALLBACKF_mask_events = 1
XENNMI_register_callback, XENNMI_unregister_callback = 0, 1

# Split drivers (io/ring.h, io/console.h, io/blkif.h, io/xenbus.h, io/xs_wire.h).
RING_HEADER_BYTES = 64  # of a page of requests and responses
CONSOLE_IN_BYTES, CONSOLE_OUT_BYTES = 1024, 2048
XENSTORE_RING_SIZE, XENSTORE_PAYLOAD_MAX = 1024, 4096
BLKIF_OP_READ, BLKIF_OP_WRITE, BLKIF_OP_WRITE_BARRIER, BLKIF_OP_FLUSH_DISKCACHE = range(4)
BLKIF_MAX_SEGMENTS_PER_REQUEST = 11
BLKIF_RING_ENTRIES = 32  # as many 108-byte requests as fit into a page, rounded down to a power of two
BLKIF_RSP_OKAY, BLKIF_RSP_ERROR, BLKIF_RSP_EOPNOTSUPP = 0, -1, -2
VDISK_CDROM, VDISK_REMOVABLE, VDISK_READONLY = 1, 2, 4
XenbusStateUnknown, XenbusStateInitialising, XenbusStateInitWait, XenbusStateInitialised = range(4)
XenbusStateConnected, XenbusStateClosing, XenbusStateClosed = range(4, 7)
XenbusStateReconfiguring, XenbusStateReconfigured = 7, 8
XS_DEBUG, XS_DIRECTORY, XS_READ, XS_GET_PERMS, XS_WATCH, XS_UNWATCH, XS_TRANSACTION_START, XS_TRANSACTION_END = range(8)
XS_INTRODUCE, XS_RELEASE, XS_GET_DOMAIN_PATH, XS_WRITE, XS_MKDIR, XS_RM, XS_SET_PERMS, XS_WATCH_EVENT = range(8, 16)
XS_ERROR, XS_IS_DOMAIN_INTRODUCED, XS_RESUME, XS_SET_TARGET = range(16, 20)

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
EVTCHNSTAT_closed, EVTCHNSTAT_unbound, EVTCHNSTAT_interdomain, EVTCHNSTAT_pirq, EVTCHNSTAT_virq, EVTCHNSTAT_ipi = range(
    6
)
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
GNTTABOP_map_grant_ref, GNTTABOP_unmap_grant_ref, GNTTABOP_setup_table, GNTTABOP_dump_table, GNTTABOP_transfer = range(
    5
)
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
XEN_MAJOR_VERSION, XEN_MINOR_VERSION = 3, 4
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
