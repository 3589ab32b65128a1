"""The structures of Xen's public x86-32 interface, under the names of Xen's own headers (interface.py says which).

Data only, from which the include files of our guests follow (include.py). A structure is a NumPy dtype without gaps of its
own: every gap is a field whose name begins with `pad`. A union stands under the names of the one member that counts here.
"""

import numpy as np

from .interface import (
    BLKIF_MAX_SEGMENTS_PER_REQUEST,
    CONSOLE_IN_BYTES,
    CONSOLE_OUT_BYTES,
    MAX_VIRT_CPUS,
    XENSTORE_RING_SIZE,
)

U1, U2, U4, U8 = "<u1", "<u2", "<u4", "<u8"

# -- what a domain starts with, and what it shares with the VMM (xen.h, arch-x86/xen.h) ----------------------------------

START_INFO = np.dtype(
    [
        ("magic", U1, 32),
        ("nr_pages", U4),
        ("shared_info", U4),  # machine address
        ("flags", U4),
        ("store_mfn", U4),
        ("store_evtchn", U4),
        ("console_mfn", U4),
        ("console_evtchn", U4),
        ("pt_base", U4),
        ("nr_pt_frames", U4),
        ("mfn_list", U4),
        ("mod_start", U4),
        ("mod_len", U4),
        ("cmd_line", U1, 1024),
        ("first_p2m_pfn", U4),
        ("nr_p2m_frames", U4),
    ]
)
ARCH_VCPU_INFO = np.dtype([("cr2", U4), ("pad", U4, 5)])
VCPU_TIME_INFO = np.dtype(
    [
        ("version", U4),
        ("pad0", U4),
        ("tsc_timestamp", U8),
        ("system_time", U8),
        ("tsc_to_system_mul", U4),
        ("tsc_shift", "<i1"),
        ("pad1", U1, 3),
    ]
)
VCPU_INFO = np.dtype(
    [
        ("evtchn_upcall_pending", U1),
        ("evtchn_upcall_mask", U1),
        ("pad", U2),
        ("evtchn_pending_sel", U4),
        ("arch", ARCH_VCPU_INFO),
        ("time", VCPU_TIME_INFO),
    ]
)
SHARED_INFO = np.dtype(
    [
        ("vcpu_info", VCPU_INFO, MAX_VIRT_CPUS),
        ("evtchn_pending", U4, 32),
        ("evtchn_mask", U4, 32),
        ("wc_version", U4),
        ("wc_sec", U4),
        ("wc_nsec", U4),
        ("max_pfn", U4),
        ("pfn_to_mfn_frame_list_list", U4),
        ("nmi_reason", U4),
    ]
)

# -- hypercalls about the processor and memory (xen.h, arch-x86/xen.h, callback.h, memory.h, version.h) ------------------

TRAP_INFO = np.dtype([("vector", U1), ("flags", U1), ("cs", U2), ("address", U4)])
MMU_UPDATE = np.dtype([("ptr", U8), ("val", U8)])
MMUEXT_OP = np.dtype([("cmd", U4), ("arg1", U4), ("arg2", U4)])
MULTICALL_ENTRY = np.dtype([("op", U4), ("result", U4), ("args", U4, 6)])
CALLBACK_REGISTER = np.dtype([("type", U2), ("flags", U2), ("cs", U4), ("eip", U4)])
MEMORY_RESERVATION = np.dtype(
    [("extent_start", U4), ("nr_extents", U4), ("extent_order", U4), ("address_bits", U4), ("domid", U2), ("pad", U2)]
)
MEMORY_EXCHANGE = np.dtype([("in", MEMORY_RESERVATION), ("out", MEMORY_RESERVATION), ("nr_exchanged", U4)])
MEMORY_MAP = np.dtype([("nr_entries", U4), ("buffer", U4)])
MACHPHYS_MAPPING = np.dtype([("v_start", U4), ("v_end", U4), ("max_mfn", U4)])
MACHPHYS_MFN_LIST = np.dtype([("max_extents", U4), ("extent_start", U4), ("nr_extents", U4)])
FEATURE_INFO = np.dtype([("submap_idx", U4), ("submap", U4)])
PLATFORM_PARAMETERS = np.dtype([("virt_start", U4)])

# -- events, scheduling, physical interrupts (event_channel.h, sched.h, vcpu.h, physdev.h) -------------------------------

EVTCHN_ALLOC_UNBOUND = np.dtype([("dom", U2), ("remote_dom", U2), ("port", U4)])
EVTCHN_BIND_INTERDOMAIN = np.dtype([("remote_dom", U2), ("pad", U2), ("remote_port", U4), ("local_port", U4)])
EVTCHN_BIND_VIRQ = np.dtype([("virq", U4), ("vcpu", U4), ("port", U4)])
EVTCHN_BIND_PIRQ = np.dtype([("pirq", U4), ("flags", U4), ("port", U4)])
EVTCHN_BIND_IPI = np.dtype([("vcpu", U4), ("port", U4)])
EVTCHN_BIND_VCPU = np.dtype([("port", U4), ("vcpu", U4)])
EVTCHN_PORT = np.dtype([("port", U4)])  # close, send and unmask
EVTCHN_STATUS = np.dtype(
    [("dom", U2), ("pad", U2), ("port", U4), ("status", U4), ("vcpu", U4), ("detail", U4), ("detail_port", U4)]
)
EVTCHN_RESET = np.dtype([("dom", U2)])
SCHED_SHUTDOWN = np.dtype([("reason", U4)])
SCHED_POLL = np.dtype([("ports", U4), ("nr_ports", U4), ("timeout", U8)])
VCPU_RUNSTATE_INFO = np.dtype([("state", U4), ("state_entry_time", U8), ("time", U8, 4)])
VCPU_SET_PERIODIC_TIMER = np.dtype([("period_ns", U8)])
VCPU_SET_SINGLESHOT_TIMER = np.dtype([("timeout_abs_ns", U8), ("flags", U4)])
VCPU_REGISTER_VCPU_INFO = np.dtype([("mfn", U8), ("offset", U4), ("pad", U4)])
PHYSDEV_EOI = np.dtype([("irq", U4)])
PHYSDEV_IRQ_STATUS_QUERY = np.dtype([("irq", U4), ("flags", U4)])
PHYSDEV_SET_IOPL = np.dtype([("iopl", U4)])
PHYSDEV_SET_IOBITMAP = np.dtype([("bitmap", U4), ("nr_ports", U4)])

# -- grants (grant_table.h) ----------------------------------------------------------------------------------------------

GRANT_ENTRY = np.dtype([("flags", U2), ("domid", U2), ("frame", U4)])
GNTTAB_MAP_GRANT_REF = np.dtype(
    [
        ("host_addr", U8),
        ("flags", U4),
        ("ref", U4),
        ("dom", U2),
        ("status", "<i2"),
        ("handle", U4),
        ("dev_bus_addr", U8),
    ]
)
GNTTAB_UNMAP_GRANT_REF = np.dtype(
    [("host_addr", U8), ("dev_bus_addr", U8), ("handle", U4), ("status", "<i2"), ("pad", U2)]
)
GNTTAB_SETUP_TABLE = np.dtype(
    [("dom", U2), ("pad", U2), ("nr_frames", U4), ("status", "<i2"), ("pad1", U2), ("frame_list", U4)]
)
GNTTAB_QUERY_SIZE = np.dtype(
    [("dom", U2), ("pad", U2), ("nr_frames", U4), ("max_nr_frames", U4), ("status", "<i2"), ("pad1", U2)]
)
GNTTAB_TRANSFER = np.dtype([("mfn", U4), ("domid", U2), ("pad", U2), ("ref", U4), ("status", "<i2"), ("pad1", U2)])
GNTTAB_COPY_PTR = np.dtype([("ref", U4), ("domid", U2), ("offset", U2)])  # ref or frame, by the flags of the copy
GNTTAB_COPY = np.dtype(
    [("source", GNTTAB_COPY_PTR), ("dest", GNTTAB_COPY_PTR), ("len", U2), ("flags", U2), ("status", "<i2"), ("pad", U2)]
)

# -- split drivers (io/) -------------------------------------------------------------------------------------------------

XENCONS_INTERFACE = np.dtype(
    [
        ("in", "S1", CONSOLE_IN_BYTES),
        ("out", "S1", CONSOLE_OUT_BYTES),
        ("in_cons", U4),
        ("in_prod", U4),
        ("out_cons", U4),
        ("out_prod", U4),
    ]
)
XENSTORE_DOMAIN_INTERFACE = np.dtype(
    [
        ("req", "S1", XENSTORE_RING_SIZE),
        ("rsp", "S1", XENSTORE_RING_SIZE),
        ("req_cons", U4),
        ("req_prod", U4),
        ("rsp_cons", U4),
        ("rsp_prod", U4),
        ("server_features", U4),
        ("connection", U4),
    ]
)
XSD_SOCKMSG = np.dtype([("type", U4), ("req_id", U4), ("tx_id", U4), ("len", U4)])
RING_HEADER = np.dtype([("req_prod", U4), ("req_event", U4), ("rsp_prod", U4), ("rsp_event", U4), ("pad", U4, 12)])
BLKIF_REQUEST_SEGMENT = np.dtype([("gref", U4), ("first_sect", U1), ("last_sect", U1), ("pad", U2)])
BLKIF_REQUEST = np.dtype(
    [
        ("operation", U1),
        ("nr_segments", U1),
        ("handle", U2),
        ("id", U8),
        ("sector_number", U8),
        ("seg", BLKIF_REQUEST_SEGMENT, BLKIF_MAX_SEGMENTS_PER_REQUEST),
    ]
)
BLKIF_RESPONSE = np.dtype([("id", U8), ("operation", U1), ("pad", U1), ("status", "<i2")])

STRUCTURES: dict[str, np.dtype] = {
    "start_info": START_INFO,
    "arch_vcpu_info": ARCH_VCPU_INFO,
    "vcpu_time_info": VCPU_TIME_INFO,
    "vcpu_info": VCPU_INFO,
    "shared_info": SHARED_INFO,
    "trap_info": TRAP_INFO,
    "mmu_update": MMU_UPDATE,
    "mmuext_op": MMUEXT_OP,
    "multicall_entry": MULTICALL_ENTRY,
    "callback_register": CALLBACK_REGISTER,
    "xen_memory_reservation": MEMORY_RESERVATION,
    "xen_memory_exchange": MEMORY_EXCHANGE,
    "xen_memory_map": MEMORY_MAP,
    "xen_machphys_mapping": MACHPHYS_MAPPING,
    "xen_machphys_mfn_list": MACHPHYS_MFN_LIST,
    "xen_feature_info": FEATURE_INFO,
    "xen_platform_parameters": PLATFORM_PARAMETERS,
    "evtchn_alloc_unbound": EVTCHN_ALLOC_UNBOUND,
    "evtchn_bind_interdomain": EVTCHN_BIND_INTERDOMAIN,
    "evtchn_bind_virq": EVTCHN_BIND_VIRQ,
    "evtchn_bind_pirq": EVTCHN_BIND_PIRQ,
    "evtchn_bind_ipi": EVTCHN_BIND_IPI,
    "evtchn_bind_vcpu": EVTCHN_BIND_VCPU,
    "evtchn_close": EVTCHN_PORT,
    "evtchn_send": EVTCHN_PORT,
    "evtchn_unmask": EVTCHN_PORT,
    "evtchn_status": EVTCHN_STATUS,
    "evtchn_reset": EVTCHN_RESET,
    "sched_shutdown": SCHED_SHUTDOWN,
    "sched_poll": SCHED_POLL,
    "vcpu_runstate_info": VCPU_RUNSTATE_INFO,
    "vcpu_set_periodic_timer": VCPU_SET_PERIODIC_TIMER,
    "vcpu_set_singleshot_timer": VCPU_SET_SINGLESHOT_TIMER,
    "vcpu_register_vcpu_info": VCPU_REGISTER_VCPU_INFO,
    "physdev_eoi": PHYSDEV_EOI,
    "physdev_irq_status_query": PHYSDEV_IRQ_STATUS_QUERY,
    "physdev_set_iopl": PHYSDEV_SET_IOPL,
    "physdev_set_iobitmap": PHYSDEV_SET_IOBITMAP,
    "grant_entry": GRANT_ENTRY,
    "gnttab_map_grant_ref": GNTTAB_MAP_GRANT_REF,
    "gnttab_unmap_grant_ref": GNTTAB_UNMAP_GRANT_REF,
    "gnttab_setup_table": GNTTAB_SETUP_TABLE,
    "gnttab_query_size": GNTTAB_QUERY_SIZE,
    "gnttab_transfer": GNTTAB_TRANSFER,
    "gnttab_copy_ptr": GNTTAB_COPY_PTR,
    "gnttab_copy": GNTTAB_COPY,
    "xencons_interface": XENCONS_INTERFACE,
    "xenstore_domain_interface": XENSTORE_DOMAIN_INTERFACE,
    "xsd_sockmsg": XSD_SOCKMSG,
    "ring_header": RING_HEADER,
    "blkif_request_segment": BLKIF_REQUEST_SEGMENT,
    "blkif_request": BLKIF_REQUEST,
    "blkif_response": BLKIF_RESPONSE,
}
