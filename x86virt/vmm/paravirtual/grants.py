"""grant_table_op: a domain uses frames that another has granted to it.

Each operation takes a list of structures, and answers each with a status of its own. A frame may be mapped at a linear address
of the caller's, in which case an entry of its page table holds the reference; for its devices, which need the machine
address; or be copied from and to without being mapped.
"""

import numpy as np

from ...core.jit import kernel, load_32
from ...core.physical import read_physical, write_physical
from ...isa.events import (
    EVENT_VMM_GRANT_COPY,
    EVENT_VMM_GRANT_MAP,
    EVENT_VMM_GRANT_UNMAP,
    EVENT_VMM_SMALL_HYPERCALL,
)
from ...isa.registers import EBX, ECX, EDX, PTE_A, PTE_D, PTE_P, PTE_RW, PTE_US
from . import layout
from .charge import charge
from .events import NOBODY, domid_of, find_domain, may_act_for, named_domain
from .grant_tables import (
    ADDRESS,
    DEVICE_READ,
    DEVICE_WRITE,
    FAILED,
    GRANTER,
    HOST_READ,
    HOST_WRITE,
    HOW,
    MAPPED_FRAME,
    MAPPER,
    REFERENCE,
    add_pins,
    drop_pins,
    frame_of_entry,
    free_handle,
    get_frame,
    load_field,
    put_frame_back,
    refusal,
    store_field,
)
from .guest_access import FAULTED, load_words, store_guest
from .interface import (
    DOMID_SELF,
    EFAULT,
    EINVAL,
    ENOSYS,
    NUMBER_OF,
    GNTCOPY_dest_gref,
    GNTCOPY_source_gref,
    GNTMAP_application_map,
    GNTMAP_contains_pte,
    GNTMAP_device_map,
    GNTMAP_host_map,
    GNTMAP_readonly,
    GNTST_bad_copy_arg,
    GNTST_bad_domain,
    GNTST_bad_gntref,
    GNTST_bad_handle,
    GNTST_bad_page,
    GNTST_bad_virt_addr,
    GNTST_general_error,
    GNTST_no_device_space,
    GNTST_okay,
    GNTST_permission_denied,
    GNTTABOP_copy,
    GNTTABOP_get_version,
    GNTTABOP_map_grant_ref,
    GNTTABOP_query_size,
    GNTTABOP_set_version,
    GNTTABOP_setup_table,
    GNTTABOP_unmap_grant_ref,
)
from .multicall import continue_call, must_pause
from .owners import follow_mapping
from .records import ASK_FLUSH, N_MAPPINGS
from .table_updates import l1_place, l1_place_at, write_l1_entry

GRANT_TABLE_OP = NUMBER_OF["grant_table_op"]
M16, M32 = 0xFFFF, 0xFFFFFFFF
PAGE_BYTES = 0x1000
MAX_AT_ONCE = 512
VERSION = 1
# Structures: octets of each, and the offset of its status.
MAP_BYTES, MAP_STATUS, MAP_HANDLE, MAP_BUS_ADDRESS = 32, 18, 20, 24
UNMAP_BYTES, UNMAP_STATUS = 24, 20
SETUP_BYTES, SETUP_STATUS = 16, 8
COPY_BYTES, COPY_STATUS = 24, 20
QUERY_BYTES, QUERY_STATUS = 16, 12
VERSION_BYTES, GET_VERSION_BYTES = 4, 8


# -- mapping --------------------------------------------------------------------------------------------------------------


@kernel
def pins_of(how):
    """What a mapping adds to the pins of its entry."""
    device, host = DEVICE_WRITE, HOST_WRITE
    if how & GNTMAP_readonly != 0:
        device, host = DEVICE_READ, HOST_READ
    pins = 0
    if how & GNTMAP_device_map != 0:
        pins += device
    if how & GNTMAP_host_map != 0:
        pins += host
    return pins


@kernel
def place_of_mapping(cpu, ram, xen, domains, frames, how, low, high):
    """The machine address of the page-table entry that a mapping is to have, -1 if there is none such."""
    if how & GNTMAP_contains_pte != 0:
        return l1_place_at(cpu, xen, domains, frames, low, high)
    if high != 0:
        return -1
    return l1_place(cpu, ram, xen, domains, frames, low)


@kernel
def map_entry(frame, how):
    """The page-table entry of a mapping."""
    entry = frame << 12 | PTE_P | PTE_A | PTE_D
    if how & GNTMAP_readonly == 0:
        entry |= PTE_RW
    if how & GNTMAP_application_map != 0:
        entry |= PTE_US
    return entry


@kernel
def map_frame(cpu, ram, xen, domains, frames, frame, owner, how, low, high):
    """Take the references of a mapping, and write its page-table entry: a status."""
    readonly = how & GNTMAP_readonly
    if how & GNTMAP_device_map != 0 and get_frame(cpu, ram, xen, domains, frames, frame, owner, readonly) == 0:
        return GNTST_general_error
    status = GNTST_okay
    if how & GNTMAP_host_map != 0:
        place = place_of_mapping(cpu, ram, xen, domains, frames, how, low, high)
        status = GNTST_general_error
        if place >= 0 and get_frame(cpu, ram, xen, domains, frames, frame, owner, readonly) != 0:
            if load_32(ram, place) & PTE_P != 0:
                xen.asked |= ASK_FLUSH
            write_l1_entry(cpu, ram, xen, domains, frames, place, map_entry(frame, how), frame >> 20)
            follow_mapping(cpu, ram, frames, frame)
            status = GNTST_okay
    if status != GNTST_okay and how & GNTMAP_device_map != 0:
        put_frame_back(cpu, ram, xen, domains, frames, frame, readonly)
    return status


@kernel
def map_grant(cpu, ram, xen, domains, frames, handle, granter, ref, how, low, high):
    """Map a grant with a handle that is free: a status."""
    readonly = how & GNTMAP_readonly
    status = refusal(cpu, ram, domains, granter, domid_of(domains, xen.current), ref, readonly)
    if status != GNTST_okay:
        return status
    frame = frame_of_entry(cpu, ram, granter, ref)
    status = map_frame(cpu, ram, xen, domains, frames, frame, domid_of(domains, granter), how, low, high)
    if status != GNTST_okay:
        return status
    add_pins(cpu, ram, granter, ref, frame, pins_of(how))
    store_field(ram, handle, MAPPER, xen.current + 1)
    store_field(ram, handle, GRANTER, granter)
    store_field(ram, handle, REFERENCE, ref)
    store_field(ram, handle, HOW, how)
    store_field(ram, handle, MAPPED_FRAME, frame)
    store_field(ram, handle, ADDRESS, low)
    return GNTST_okay


@kernel
def map_one(cpu, ram, xen, domains, frames, argument):
    """GNTTABOP_map_grant_ref, one structure: 0, or -EFAULT."""
    domain = domains[xen.current]
    # 1. What is asked for.
    if load_words(cpu, ram, xen, domain, argument, MAP_BYTES // 4) == FAULTED:
        return -EFAULT
    low, high, how, ref = xen.words[0], xen.words[1], xen.words[2], xen.words[3]
    granter = find_domain(domains, xen.words[4] & M16)
    # 2. Whether it can be had.
    handle = FAILED
    if how & (GNTMAP_device_map | GNTMAP_host_map) == 0:
        status = GNTST_bad_gntref
    elif granter == NOBODY:
        status = GNTST_bad_domain
    else:
        status = GNTST_no_device_space
        handle = free_handle(ram, xen)
        if handle != FAILED:
            status = map_grant(cpu, ram, xen, domains, frames, handle, granter, ref, how, low, high)
    # 3. The answer.
    outcome = store_guest(cpu, ram, domain, argument + MAP_STATUS, 2, status & M16)
    if status == GNTST_okay:
        frame = load_field(ram, handle, MAPPED_FRAME)
        outcome |= store_guest(cpu, ram, domain, argument + MAP_HANDLE, 4, handle)
        outcome |= store_guest(cpu, ram, domain, argument + MAP_BUS_ADDRESS, 4, frame << 12 & M32)
        outcome |= store_guest(cpu, ram, domain, argument + MAP_BUS_ADDRESS + 4, 4, frame >> 20)
    if outcome != 0:
        return -EFAULT
    return 0


# -- unmapping ------------------------------------------------------------------------------------------------------------


@kernel
def unmap_host(cpu, ram, xen, domains, frames, handle, low, high):
    """Clear the page-table entry of a mapping, if it is still the mapping's: a status."""
    how, frame = load_field(ram, handle, HOW), load_field(ram, handle, MAPPED_FRAME)
    if how & GNTMAP_host_map == 0:
        return GNTST_general_error
    place = place_of_mapping(cpu, ram, xen, domains, frames, how, low, high)
    if place < 0 or load_field(ram, handle, ADDRESS) != low:
        return GNTST_bad_virt_addr
    entry = load_32(ram, place)
    same_rights = entry & PTE_RW == map_entry(frame, how) & PTE_RW
    if entry & PTE_P == 0 or entry >> 12 != frame & (M32 >> 12) or not same_rights:
        return GNTST_general_error
    write_l1_entry(cpu, ram, xen, domains, frames, place, 0, 0)
    xen.asked |= ASK_FLUSH
    return GNTST_okay


@kernel
def forget_use(cpu, ram, handle, use):
    """One use of a mapping, by the host or by devices, has ended; with the last the handle is free."""
    how = load_field(ram, handle, HOW)
    granter, ref = load_field(ram, handle, GRANTER), load_field(ram, handle, REFERENCE)
    drop_pins(cpu, ram, granter, ref, pins_of(how & (use | GNTMAP_readonly)))
    how &= ~use
    store_field(ram, handle, HOW, how)
    if how & (GNTMAP_device_map | GNTMAP_host_map) == 0:
        store_field(ram, handle, MAPPER, 0)


@kernel
def unmap_grant(cpu, ram, xen, domains, frames, handle, low, high, bus_low, bus_high):
    """End the uses of a mapping that the caller names by their addresses: a status."""
    if load_field(ram, handle, MAPPER) != xen.current + 1:
        return GNTST_bad_handle
    how, frame = load_field(ram, handle, HOW), load_field(ram, handle, MAPPED_FRAME)
    by_devices = bus_low | bus_high != 0 and how & GNTMAP_device_map != 0
    if by_devices and (bus_low >> 12 | bus_high << 20) != frame:
        return GNTST_general_error
    if low | high != 0:
        status = unmap_host(cpu, ram, xen, domains, frames, handle, low, high)
        if status != GNTST_okay:
            return status
        forget_use(cpu, ram, handle, GNTMAP_host_map)
    if by_devices:
        put_frame_back(cpu, ram, xen, domains, frames, frame, how & GNTMAP_readonly)
        forget_use(cpu, ram, handle, GNTMAP_device_map)
    return GNTST_okay


@kernel
def unmap_one(cpu, ram, xen, domains, frames, argument):
    """GNTTABOP_unmap_grant_ref, one structure: 0, or -EFAULT."""
    domain = domains[xen.current]
    if load_words(cpu, ram, xen, domain, argument, UNMAP_BYTES // 4) == FAULTED:
        return -EFAULT
    low, high, bus_low, bus_high, handle = xen.words[0], xen.words[1], xen.words[2], xen.words[3], xen.words[4]
    status = GNTST_bad_handle
    if handle < N_MAPPINGS:
        status = unmap_grant(cpu, ram, xen, domains, frames, handle, low, high, bus_low, bus_high)
    if store_guest(cpu, ram, domain, argument + UNMAP_STATUS, 2, status & M16) == FAULTED:
        return -EFAULT
    return 0


# -- copying --------------------------------------------------------------------------------------------------------------


@kernel
def acquire(cpu, ram, xen, domains, frames, by_grant, ref, domid, readonly):
    """The frame at one end of a copy with a reference taken, or a status, which is negative."""
    # 1. A frame of the caller's own.
    if by_grant == 0:
        if domid != DOMID_SELF:
            return GNTST_permission_denied
        if get_frame(cpu, ram, xen, domains, frames, ref, domid_of(domains, xen.current), readonly) == 0:
            return GNTST_bad_page
        return ref
    # 2. One that was granted to it.
    granter = named_domain(xen, domains, domid)
    if granter == NOBODY:
        return GNTST_bad_domain
    status = refusal(cpu, ram, domains, granter, domid_of(domains, xen.current), ref, readonly)
    if status != GNTST_okay:
        return status
    frame = frame_of_entry(cpu, ram, granter, ref)
    if get_frame(cpu, ram, xen, domains, frames, frame, domid_of(domains, granter), readonly) == 0:
        return GNTST_general_error
    return frame


@kernel
def copy_octets(cpu, ram, source, destination, octets):
    """Copy between frames, from and to machine addresses, four bytes at a time."""
    done = 0
    while done < octets:
        n = min(4, octets - done)
        write_physical(cpu, ram, destination + done, n, read_physical(cpu, ram, source + done, n))
        done += n


@kernel
def copy(cpu, ram, xen, domains, frames):
    """GNTTABOP_copy, whose structure is in xen.words: a status."""
    source_ref, source_end = xen.words[0], xen.words[1]
    target_ref, target_end = xen.words[2], xen.words[3]
    octets, how = xen.words[4] & M16, xen.words[4] >> 16
    source_offset, target_offset = source_end >> 16, target_end >> 16
    if source_offset + octets > PAGE_BYTES or target_offset + octets > PAGE_BYTES:
        return GNTST_bad_copy_arg
    source = acquire(cpu, ram, xen, domains, frames, how & GNTCOPY_source_gref, source_ref, source_end & M16, 1)
    if source < 0:
        return source
    target = acquire(cpu, ram, xen, domains, frames, how & GNTCOPY_dest_gref, target_ref, target_end & M16, 0)
    if target < 0:
        put_frame_back(cpu, ram, xen, domains, frames, source, 1)
        return target
    copy_octets(cpu, ram, (source << 12) + source_offset, (target << 12) + target_offset, octets)
    put_frame_back(cpu, ram, xen, domains, frames, target, 0)
    put_frame_back(cpu, ram, xen, domains, frames, source, 1)
    return GNTST_okay


@kernel
def copy_one(cpu, ram, xen, domains, frames, argument):
    """The same, one structure at a linear address: 0, or -EFAULT."""
    domain = domains[xen.current]
    if load_words(cpu, ram, xen, domain, argument, COPY_BYTES // 4) == FAULTED:
        return -EFAULT
    charge(cpu, xen, EVENT_VMM_GRANT_COPY, ((xen.words[4] & M16) + 3) >> 2)
    status = copy(cpu, ram, xen, domains, frames)
    if store_guest(cpu, ram, domain, argument + COPY_STATUS, 2, status & M16) == FAULTED:
        return -EFAULT
    return 0


# -- tables ---------------------------------------------------------------------------------------------------------------


@kernel
def table_of(xen, domains, domid):
    """The domain whose table is meant; a status, which is negative, if there is none or it is not the caller's affair."""
    index = named_domain(xen, domains, domid)
    if index == NOBODY:
        return GNTST_bad_domain
    if not may_act_for(xen, domains, index):
        return GNTST_permission_denied
    return index


@kernel
def setup_one(cpu, ram, xen, domains, argument):
    """GNTTABOP_setup_table: make the table larger if need be, and tell which frames it lies in."""
    domain = domains[xen.current]
    if load_words(cpu, ram, xen, domain, argument, SETUP_BYTES // 4) == FAULTED:
        return -EFAULT
    wanted, frame_list = xen.words[1], xen.words[3]
    index = table_of(xen, domains, xen.words[0] & M16)
    status = min(index, GNTST_okay)
    if wanted > layout.N_GRANT_FRAMES:
        status = GNTST_general_error
    outcome = 0
    if status == GNTST_okay:
        domains[index].grant_frames = max(np.int64(domains[index].grant_frames), wanted)
        first = (layout.GRANT_FRAMES >> 12) + index * layout.N_GRANT_FRAMES
        for number in range(wanted):
            outcome |= store_guest(cpu, ram, domain, frame_list + 4 * number, 4, first + number)
    outcome |= store_guest(cpu, ram, domain, argument + SETUP_STATUS, 2, status & M16)
    if outcome != 0:
        return -EFAULT
    return 0


@kernel
def query_one(cpu, ram, xen, domains, argument):
    """GNTTABOP_query_size: how large a table is, and may become."""
    domain = domains[xen.current]
    if load_words(cpu, ram, xen, domain, argument, 1) == FAULTED:
        return -EFAULT
    index = table_of(xen, domains, xen.words[0] & M16)
    outcome = 0
    if index >= 0:
        outcome = store_guest(cpu, ram, domain, argument + 4, 4, np.int64(domains[index].grant_frames))
        outcome |= store_guest(cpu, ram, domain, argument + 8, 4, layout.N_GRANT_FRAMES)
    outcome |= store_guest(cpu, ram, domain, argument + QUERY_STATUS, 2, min(index, GNTST_okay) & M16)
    if outcome != 0:
        return -EFAULT
    return 0


@kernel
def set_version(cpu, ram, xen, domains, argument):
    """GNTTABOP_set_version: there is the first alone."""
    domain = domains[xen.current]
    if load_words(cpu, ram, xen, domain, argument, 1) == FAULTED:
        return -EFAULT
    result = 0
    if xen.words[0] != VERSION:
        result = -EINVAL
        if xen.words[0] == VERSION + 1:
            result = -ENOSYS
    if store_guest(cpu, ram, domain, argument, 4, VERSION) == FAULTED:
        return -EFAULT
    return result


@kernel
def get_version(cpu, ram, xen, domains, argument):
    """GNTTABOP_get_version."""
    if store_guest(cpu, ram, domains[xen.current], argument + 4, 4, VERSION) == FAULTED:
        return -EFAULT
    return 0


# -- the hypercall --------------------------------------------------------------------------------------------------------


@kernel
def octets_of(command):
    """Bytes of the structure of an operation; 0: there is no such operation."""
    if command == GNTTABOP_map_grant_ref:
        return MAP_BYTES
    if command == GNTTABOP_unmap_grant_ref:
        return UNMAP_BYTES
    if command == GNTTABOP_copy:
        return COPY_BYTES
    if command == GNTTABOP_setup_table:
        return SETUP_BYTES
    if command == GNTTABOP_query_size:
        return QUERY_BYTES
    if command == GNTTABOP_set_version:
        return VERSION_BYTES
    if command == GNTTABOP_get_version:
        return GET_VERSION_BYTES
    return 0


@kernel
def operate(cpu, ram, xen, domains, frames, command, argument):
    """One structure of an operation: 0, or a negated error."""
    if command == GNTTABOP_map_grant_ref:
        return map_one(cpu, ram, xen, domains, frames, argument)
    if command == GNTTABOP_unmap_grant_ref:
        return unmap_one(cpu, ram, xen, domains, frames, argument)
    if command == GNTTABOP_copy:
        return copy_one(cpu, ram, xen, domains, frames, argument)
    if command == GNTTABOP_setup_table:
        return setup_one(cpu, ram, xen, domains, argument)
    if command == GNTTABOP_query_size:
        return query_one(cpu, ram, xen, domains, argument)
    if command == GNTTABOP_set_version:
        return set_version(cpu, ram, xen, domains, argument)
    return get_version(cpu, ram, xen, domains, argument)


@kernel
def charge_list(cpu, xen, command, done):
    """What a list of structures is charged, copies apart, which are charged one by one."""
    if command == GNTTABOP_map_grant_ref:
        charge(cpu, xen, EVENT_VMM_GRANT_MAP, done)
    elif command == GNTTABOP_unmap_grant_ref:
        charge(cpu, xen, EVENT_VMM_GRANT_UNMAP, done)
    elif command != GNTTABOP_copy:
        charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)


@kernel
def do_grant_table_op(cpu, ram, xen, domains, frames, channels):
    """grant_table_op(command, structures, how many)."""
    command, argument, left = cpu.gpr[EBX], cpu.gpr[ECX], cpu.gpr[EDX]
    octets = octets_of(command)
    single = command == GNTTABOP_setup_table or command == GNTTABOP_query_size
    single = single or command == GNTTABOP_set_version or command == GNTTABOP_get_version
    if octets == 0 or left > MAX_AT_ONCE or (single and left != 1):
        charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
        if octets == 0:
            return -ENOSYS
        return -EINVAL
    result, done = 0, 0
    while result == 0 and done < left and (done == 0 or not must_pause(cpu, xen)):
        result = operate(cpu, ram, xen, domains, frames, command, argument + octets * done)
        done += 1
    charge_list(cpu, xen, command, done)
    if result == 0 and done < left:
        cpu.gpr[ECX] = argument + octets * done
        cpu.gpr[EDX] = left - done
        return continue_call(xen, domains[xen.current], GRANT_TABLE_OP)
    return result
