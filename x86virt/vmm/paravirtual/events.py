"""Event channels: what interrupts are to a processor, they are to a domain (xen/include/public/event_channel.h).

A port of a domain is closed, waits for a certain domain to bind to it, is joined to a port of another domain, or stands for a
virtual interrupt (VIRQ), an interrupt line of the machine (PIRQ) or a notification of the domain to itself (IPI). Port 0
is never given out. There is one virtual processor in each domain, number 0.
"""

import numpy as np

from ...core.cache import VMM, reference
from ...core.jit import inline, kernel, load_32
from ...isa.events import (
    EVENT_VMM_EVENT_CHANNEL_OP,
    EVENT_VMM_EVENT_SEND,
    EVENT_XEN_EVENT,
    EVENT_XEN_EVENT_MERGED,
)
from ...isa.registers import EBX, ECX
from . import layout
from .charge import charge, count
from .guest_access import FAULTED, load_guest, load_words, store_guest
from .interface import (
    DOMID_SELF,
    EBUSY,
    EEXIST,
    EFAULT,
    EINVAL,
    ENOENT,
    ENOSPC,
    ENOSYS,
    EPERM,
    ESRCH,
    N_EVENT_CHANNELS,
    N_PIRQS,
    NR_VIRQS,
    VIRQ_DEBUG,
    VIRQ_TIMER,
    VIRQ_XENOPROF,
    EVTCHNOP_alloc_unbound,
    EVTCHNOP_bind_interdomain,
    EVTCHNOP_bind_ipi,
    EVTCHNOP_bind_pirq,
    EVTCHNOP_bind_vcpu,
    EVTCHNOP_bind_virq,
    EVTCHNOP_close,
    EVTCHNOP_reset,
    EVTCHNOP_send,
    EVTCHNOP_status,
    EVTCHNOP_unmask,
    EVTCHNSTAT_closed,
    EVTCHNSTAT_interdomain,
    EVTCHNSTAT_ipi,
    EVTCHNSTAT_pirq,
    EVTCHNSTAT_unbound,
    EVTCHNSTAT_virq,
)
from .lines import bind_line, is_own_line, unbind_line
from .records import ASK_EVENTS, CHANNEL
from .shared_info import bit_of, clear_bits, mask_word, pending_word, select, set_bits
from .waking import listen_to_ticker, wake

M16 = 0xFFFF
CHANNEL_BYTES = CHANNEL.itemsize
PER_VCPU = 1 << VIRQ_TIMER | 1 << VIRQ_DEBUG | 1 << VIRQ_XENOPROF  # the others are a domain's as a whole
NOBODY = -1


# -- domains and ports ----------------------------------------------------------------------------------------------------


@kernel
def find_domain(domains, domid):
    """The index of the domain of a number, NOBODY if there is none."""
    for index in range(layout.N_DOMAINS):
        if np.int64(domains[index].exists) != 0 and np.int64(domains[index].domid) == domid:
            return index
    return NOBODY


@kernel
def named_domain(xen, domains, domid):
    """The same, where DOMID_SELF is the current domain."""
    if domid == DOMID_SELF:
        return xen.current
    return find_domain(domains, domid)


@inline
def domid_of(domains, index):
    """The number of a domain."""
    return np.int64(domains[index].domid)


@inline
def place_of(index, port):
    """Where a domain's port stands among all."""
    return index * N_EVENT_CHANNELS + port


@inline
def channel_of(cpu, channels, index, port):
    """The record of a domain's port: a reference of the VMM's."""
    place = place_of(index, port)
    reference(cpu, layout.CHANNELS + CHANNEL_BYTES * place, VMM)
    return channels[place]


@inline
def is_port(port):
    """Whether a number is that of a port, in use or not."""
    return port < N_EVENT_CHANNELS


@kernel
def free_port(channels, index):
    """The first port of a domain that is closed, or -ENOSPC."""
    for port in range(1, N_EVENT_CHANNELS):
        if np.int64(channels[place_of(index, port)].state) == EVTCHNSTAT_closed:
            return port
    return -ENOSPC


@kernel
def open_port(cpu, channels, index, port, state, remote, detail):
    """Give a port its use."""
    channel = channel_of(cpu, channels, index, port)
    channel.state = state
    channel.remote_domain = remote
    channel.detail = detail


# -- notifications --------------------------------------------------------------------------------------------------------


@kernel
def set_pending(cpu, ram, xen, domains, index, port):
    """Make an event of a domain pending: its bit, the selector unless it is masked, and the domain wakes."""
    if set_bits(cpu, ram, pending_word(domains, index, port), bit_of(port)) != 0:
        count(cpu, EVENT_XEN_EVENT_MERGED, 1)
        return
    count(cpu, EVENT_XEN_EVENT, 1)
    masked = load_32(ram, mask_word(domains, index, port)) & bit_of(port)
    if masked == 0 and select(cpu, ram, domains, index, port):
        xen.asked |= ASK_EVENTS
        wake(cpu, xen, domains, index)
    elif polls_for(domains, index, port):
        wake(cpu, xen, domains, index)


@inline
def polls_for(domains, index, port):
    """Whether a domain is blocked until this port has something pending."""
    word = np.int64(domains[index].polled[port >> 5])
    return np.int64(domains[index].polls) != 0 and word & bit_of(port) != 0


@kernel
def raise_virq(cpu, ram, xen, domains, index, virq):
    """Send a virtual interrupt to a domain, which may have no port for it."""
    port = np.int64(domains[index].virq_port[virq])
    if port != 0:
        set_pending(cpu, ram, xen, domains, index, port)


@kernel
def raise_pirq(cpu, ram, xen, domains, index, pirq):
    """Send an interrupt of the machine's to a domain, if it has a port for it."""
    port = np.int64(domains[index].pirq_port[pirq])
    if port != 0:
        set_pending(cpu, ram, xen, domains, index, port)


@kernel
def send(cpu, ram, xen, domains, channels, port):
    """EVTCHNOP_send: notify the other end of a port; one that nobody has bound to yet drops it."""
    if not is_port(port):
        return -EINVAL
    channel = channel_of(cpu, channels, xen.current, port)
    state = np.int64(channel.state)
    if state == EVTCHNSTAT_interdomain:
        remote = find_domain(domains, np.int64(channel.remote_domain))
        remote_port = np.int64(channel.detail)
        if remote == NOBODY:
            return -EINVAL
        channel_of(cpu, channels, remote, remote_port)
        set_pending(cpu, ram, xen, domains, remote, remote_port)
        return 0
    if state == EVTCHNSTAT_ipi:
        set_pending(cpu, ram, xen, domains, xen.current, port)
        return 0
    if state == EVTCHNSTAT_unbound:
        return 0
    return -EINVAL


@kernel
def unmask(cpu, ram, xen, domains, port):
    """EVTCHNOP_unmask: clear a port's mask bit, and look whether something had come for it."""
    if not is_port(port):
        return -EINVAL
    index = xen.current
    was_masked = clear_bits(cpu, ram, mask_word(domains, index, port), bit_of(port)) != 0
    waits = load_32(ram, pending_word(domains, index, port)) & bit_of(port) != 0
    if was_masked and waits and select(cpu, ram, domains, index, port):
        xen.asked |= ASK_EVENTS
    return 0


# -- opening --------------------------------------------------------------------------------------------------------------


@kernel
def may_act_for(xen, domains, index):
    """Whether the current domain may do something in the name of another: domain 0 may."""
    return index == xen.current or np.int64(domains[xen.current].is_privileged) != 0


@kernel
def alloc_unbound(cpu, xen, domains, channels, domid, remote_domid):
    """EVTCHNOP_alloc_unbound: a port to which another domain may bind."""
    index = named_domain(xen, domains, domid)
    if index == NOBODY:
        return -ESRCH
    port = free_port(channels, index)
    if port < 0:
        return port
    if not may_act_for(xen, domains, index):
        return -EPERM
    remote = remote_domid
    if remote_domid == DOMID_SELF:
        remote = domid_of(domains, xen.current)
    open_port(cpu, channels, index, port, EVTCHNSTAT_unbound, remote, 0)
    return port


@kernel
def bind_interdomain(cpu, ram, xen, domains, channels, remote_domid, remote_port):
    """EVTCHNOP_bind_interdomain: join a new port to one that another domain has kept for this one."""
    index = xen.current
    remote = named_domain(xen, domains, remote_domid)
    if remote == NOBODY:
        return -ESRCH
    port = free_port(channels, index)
    if port < 0:
        return port
    if not is_port(remote_port):
        return -EINVAL
    other = channel_of(cpu, channels, remote, remote_port)
    if np.int64(other.state) != EVTCHNSTAT_unbound or np.int64(other.remote_domain) != domid_of(domains, index):
        return -EINVAL
    open_port(cpu, channels, index, port, EVTCHNSTAT_interdomain, domid_of(domains, remote), remote_port)
    open_port(cpu, channels, remote, remote_port, EVTCHNSTAT_interdomain, domid_of(domains, index), port)
    # Notifications that came before there was another end are made up for by one.
    set_pending(cpu, ram, xen, domains, index, port)
    return port


@kernel
def bind_virq(cpu, xen, domains, channels, virq, vcpu):
    """EVTCHNOP_bind_virq: a port for a virtual interrupt."""
    domain = domains[xen.current]
    if virq >= NR_VIRQS:
        return -EINVAL
    if (PER_VCPU >> virq) & 1 == 0 and vcpu != 0:
        return -EINVAL
    if vcpu != 0:
        return -ENOENT
    if np.int64(domain.virq_port[virq]) != 0:
        return -EEXIST
    port = free_port(channels, xen.current)
    if port < 0:
        return port
    open_port(cpu, channels, xen.current, port, EVTCHNSTAT_virq, 0, virq)
    domain.virq_port[virq] = port
    if virq == VIRQ_TIMER:
        listen_to_ticker(cpu, xen, xen.current)
    return port


@kernel
def bind_ipi(cpu, xen, channels, vcpu):
    """EVTCHNOP_bind_ipi: a port through which a domain notifies a processor of its own."""
    if vcpu != 0:
        return -ENOENT
    port = free_port(channels, xen.current)
    if port < 0:
        return port
    open_port(cpu, channels, xen.current, port, EVTCHNSTAT_ipi, 0, 0)
    return port


@kernel
def bind_pirq(cpu, xen, domains, channels, pirq):
    """EVTCHNOP_bind_pirq: a port for an interrupt line of the machine; the VMM keeps the timer's and the cascade."""
    domain = domains[xen.current]
    if pirq >= N_PIRQS:
        return -EINVAL
    if np.int64(domain.is_privileged) == 0:
        return -EPERM
    if np.int64(domain.pirq_port[pirq]) != 0:
        return -EEXIST
    port = free_port(channels, xen.current)
    if port < 0:
        return port
    if is_own_line(pirq):
        return -EBUSY
    open_port(cpu, channels, xen.current, port, EVTCHNSTAT_pirq, 0, pirq)
    domain.pirq_port[pirq] = port
    bind_line(xen, pirq)
    return port


@kernel
def bind_vcpu(cpu, xen, channels, port, vcpu):
    """EVTCHNOP_bind_vcpu: which processor of the domain a port notifies. There is one."""
    if vcpu != 0:
        return -ENOENT
    if not is_port(port):
        return -EINVAL
    channel = channel_of(cpu, channels, xen.current, port)
    state, virq = np.int64(channel.state), np.int64(channel.detail)
    if state == EVTCHNSTAT_virq and (PER_VCPU >> virq) & 1 == 0:
        return 0
    if state == EVTCHNSTAT_unbound or state == EVTCHNSTAT_interdomain or state == EVTCHNSTAT_pirq:
        return 0
    return -EINVAL


# -- closing and looking --------------------------------------------------------------------------------------------------


@kernel
def close(cpu, ram, xen, domains, channels, index, port):
    """EVTCHNOP_close: the other end waits for this domain again."""
    if not is_port(port):
        return -EINVAL
    channel = channel_of(cpu, channels, index, port)
    state, detail = np.int64(channel.state), np.int64(channel.detail)
    if state == EVTCHNSTAT_closed:
        return -EINVAL
    if state == EVTCHNSTAT_virq:
        domains[index].virq_port[detail] = 0
    elif state == EVTCHNSTAT_pirq:
        domains[index].pirq_port[detail] = 0
        unbind_line(xen, detail)
    elif state == EVTCHNSTAT_interdomain:
        remote = find_domain(domains, np.int64(channel.remote_domain))
        if remote == NOBODY:
            return -EINVAL
        open_port(cpu, channels, remote, detail, EVTCHNSTAT_unbound, domid_of(domains, index), 0)
    open_port(cpu, channels, index, port, EVTCHNSTAT_closed, 0, 0)
    clear_bits(cpu, ram, pending_word(domains, index, port), bit_of(port))
    return 0


@kernel
def reset(cpu, ram, xen, domains, channels, domid):
    """EVTCHNOP_reset: close all ports of a domain."""
    index = named_domain(xen, domains, domid)
    if index == NOBODY:
        return -ESRCH
    if not may_act_for(xen, domains, index):
        return -EPERM
    for port in range(1, N_EVENT_CHANNELS):
        if np.int64(channels[place_of(index, port)].state) != EVTCHNSTAT_closed:
            close(cpu, ram, xen, domains, channels, index, port)
    return 0


@kernel
def status(cpu, ram, xen, domains, channels, argument):
    """EVTCHNOP_status: what a port is used for."""
    current = domains[xen.current]
    # 1. Whose, and may this domain ask?
    index = named_domain(xen, domains, xen.words[0] & M16)
    if index == NOBODY:
        return -ESRCH
    if not is_port(xen.words[1]):
        return -EINVAL
    if not may_act_for(xen, domains, index):
        return -EPERM
    # 2. The answer, whose last words depend on the state.
    channel = channel_of(cpu, channels, index, xen.words[1])
    state, remote, detail = np.int64(channel.state), np.int64(channel.remote_domain), np.int64(channel.detail)
    fourth = detail
    if state == EVTCHNSTAT_interdomain or state == EVTCHNSTAT_unbound:
        fourth = remote
    outcome = store_guest(cpu, ram, current, argument + 8, 4, state) | store_guest(cpu, ram, current, argument + 12, 4, 0)
    if state != EVTCHNSTAT_closed and state != EVTCHNSTAT_ipi:
        outcome |= store_guest(cpu, ram, current, argument + 16, 4, fourth)
    if state == EVTCHNSTAT_interdomain:
        outcome |= store_guest(cpu, ram, current, argument + 20, 4, detail)
    if outcome != 0:
        return -EFAULT
    return 0


# -- the hypercall --------------------------------------------------------------------------------------------------------


@kernel
def words_of(command):
    """Doublewords of the structure that an operation takes; 0: there is no such operation."""
    if command == EVTCHNOP_status:
        return 2  # what is read of it
    if command == EVTCHNOP_bind_interdomain or command == EVTCHNOP_bind_virq or command == EVTCHNOP_bind_pirq:
        return 3
    if command == EVTCHNOP_alloc_unbound or command == EVTCHNOP_bind_ipi or command == EVTCHNOP_bind_vcpu:
        return 2
    if command == EVTCHNOP_close or command == EVTCHNOP_send or command == EVTCHNOP_unmask or command == EVTCHNOP_reset:
        return 1
    return 0


@kernel
def open_by(cpu, ram, xen, domains, channels, command):
    """The operations that open a port, which they return."""
    first, second = xen.words[0], xen.words[1]
    if command == EVTCHNOP_alloc_unbound:
        return alloc_unbound(cpu, xen, domains, channels, first & M16, first >> 16)
    if command == EVTCHNOP_bind_interdomain:
        return bind_interdomain(cpu, ram, xen, domains, channels, first & M16, second)
    if command == EVTCHNOP_bind_virq:
        return bind_virq(cpu, xen, domains, channels, first, second)
    if command == EVTCHNOP_bind_pirq:
        return bind_pirq(cpu, xen, domains, channels, first)
    return bind_ipi(cpu, xen, channels, first)


@kernel
def operate(cpu, ram, xen, domains, channels, command, argument):
    """One operation, whose structure is at a linear address of the current domain's."""
    # 1. What it is charged, and its structure.
    if command == EVTCHNOP_send:
        charge(cpu, xen, EVENT_VMM_EVENT_SEND, 1)
    else:
        charge(cpu, xen, EVENT_VMM_EVENT_CHANNEL_OP, 1)
    words = words_of(command)
    if words == 0:
        return -ENOSYS
    domain = domains[xen.current]
    if load_words(cpu, ram, xen, domain, argument, words) == FAULTED:
        return -EFAULT
    # 2. Those that give nothing back.
    if command == EVTCHNOP_send:
        return send(cpu, ram, xen, domains, channels, xen.words[0])
    if command == EVTCHNOP_unmask:
        return unmask(cpu, ram, xen, domains, xen.words[0])
    if command == EVTCHNOP_close:
        return close(cpu, ram, xen, domains, channels, xen.current, xen.words[0])
    if command == EVTCHNOP_reset:
        return reset(cpu, ram, xen, domains, channels, xen.words[0] & M16)
    if command == EVTCHNOP_bind_vcpu:
        return bind_vcpu(cpu, xen, channels, xen.words[0], xen.words[1])
    if command == EVTCHNOP_status:
        return status(cpu, ram, xen, domains, channels, argument)
    # 3. Those that give a port, in the last doubleword. An address that cannot be written leaves the port open.
    port = open_by(cpu, ram, xen, domains, channels, command)
    if port < 0:
        return port
    if store_guest(cpu, ram, domain, argument + 4 * (words - 1), 4, port) == FAULTED:
        return -EFAULT
    return 0


@kernel
def do_event_channel_op(cpu, ram, xen, domains, frames, channels):
    """event_channel_op(command, structure)."""
    return operate(cpu, ram, xen, domains, channels, cpu.gpr[EBX], cpu.gpr[ECX])


@kernel
def do_event_channel_op_compat(cpu, ram, xen, domains, frames, channels):
    """The older event_channel_op: one structure, whose first doubleword is the command."""
    command = load_guest(cpu, ram, domains[xen.current], cpu.gpr[EBX], 4)
    if command == FAULTED:
        return -EFAULT
    return operate(cpu, ram, xen, domains, channels, command, cpu.gpr[EBX] + 4)
