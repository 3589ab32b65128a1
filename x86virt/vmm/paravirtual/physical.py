"""The machine's own devices: their interrupts become events of domain 0, which drives them through ports that are open to it.

The VMM keeps the interrupt controllers. An interrupt is acknowledged there at once; a line that stays high until its device is
served is masked until domain 0 says that it has done so (physdev_op, eoi).
"""

import numpy as np

from ...core.jit import kernel, store_8
from ...core.pic import level_inputs
from ...core.system_ports import console_write, pic_port_write
from ...isa.events import EVENT_VMM_PHYSICAL_INTERRUPT, EVENT_VMM_SMALL_HYPERCALL
from ...isa.registers import EBX, ECX
from . import layout
from .charge import charge
from .events import raise_pirq
from .guest_access import FAULTED, load_guest, load_words, store_guest
from .interface import (
    EFAULT,
    EINVAL,
    ENOSYS,
    EPERM,
    N_PIRQS,
    PHYSDEVOP_IRQ_UNMASK_NOTIFY,
    PHYSDEVOP_alloc_irq_vector,
    PHYSDEVOP_eoi,
    PHYSDEVOP_irq_status_query,
    PHYSDEVOP_set_iobitmap,
    PHYSDEVOP_set_iopl,
    XENIRQSTAT_needs_eoi,
)
from .lines import hold_line, release_line

MASTER, SLAVE = 0, 1
COMMAND, DATA = 0, 1  # address line A0
END_OF_INTERRUPT = 0x20
SPURIOUS = 7
N_PORTS = 0x10000
IO_MAP = layout.TSS + layout.IO_MAP
CLOSED = 0xFF
# First port and number of those that the VMM keeps: both interrupt controllers, the timer.
KEPT_PORTS = ((0x20, 2), (0x40, 4), (0xA0, 2), (0x4D0, 2))


# -- interrupts -----------------------------------------------------------------------------------------------------------


@kernel
def follow_lines(xen, board):
    """Mask and open lines of the interrupt controllers as was asked for."""
    mask = xen.masked_lines | xen.waiting_lines
    if board.pic[MASTER].imr != mask & 0xFF:
        pic_port_write(board, MASTER, DATA, mask & 0xFF)
    if board.pic[SLAVE].imr != mask >> 8:
        pic_port_write(board, SLAVE, DATA, mask >> 8)


@kernel
def is_spurious(board, line):
    """Whether a controller answered with its last input though none was in service."""
    number = line >> 3
    return line & 7 == SPURIOUS and (board.pic[number].isr >> SPURIOUS) & 1 == 0


@kernel
def end_interrupt(board, line):
    """Tell the controllers that the interrupt in service has been dealt with."""
    if line >= 8:
        pic_port_write(board, SLAVE, COMMAND, END_OF_INTERRUPT)
    pic_port_write(board, MASTER, COMMAND, END_OF_INTERRUPT)


@kernel
def physical_interrupt(cpu, ram, xen, domains, frames, channels, board, line):
    """An interrupt of a device, which the processor has taken from the controllers."""
    charge(cpu, xen, EVENT_VMM_PHYSICAL_INTERRUPT, 1)
    if is_spurious(board, line):
        if line >= 8:
            pic_port_write(board, MASTER, COMMAND, END_OF_INTERRUPT)  # of the cascade
        return
    xen.level_lines = level_inputs(board.pic[MASTER]) | level_inputs(board.pic[SLAVE]) << 8
    if (xen.level_lines >> line) & 1 != 0:
        hold_line(xen, line)
        follow_lines(xen, board)
    end_interrupt(board, line)
    for index in range(layout.N_DOMAINS):
        raise_pirq(cpu, ram, xen, domains, index, line)


# -- the console ----------------------------------------------------------------------------------------------------------


@kernel
def show_console(xen, board):
    """Put the text that console_io has taken on the machine's console."""
    for number in range(xen.console_length):
        board.attention |= console_write(board, np.int64(xen.console[number]))
    xen.console_length = 0


# -- ports ----------------------------------------------------------------------------------------------------------------


@kernel
def close_kept_ports(ram):
    """What the VMM keeps is closed whatever domain 0 asks for."""
    for first, count in KEPT_PORTS:
        for port in range(first, first + count):
            place = IO_MAP + (port >> 3)
            store_8(ram, place, np.int64(ram[place]) | 1 << (port & 7))


@kernel
def set_io_map(cpu, ram, domain, bitmap, ports):
    """PHYSDEVOP_set_iobitmap: a bit for each port, 0 where it is open; only domain 0 may really reach ports."""
    if ports > N_PORTS:
        return -EINVAL
    if np.int64(domain.is_privileged) == 0:
        return -EPERM
    for place in range(N_PORTS // 8):
        octet = CLOSED
        left = ports - 8 * place
        if left > 0:
            octet = load_guest(cpu, ram, domain, bitmap + place, 1)
            if octet == FAULTED:
                octet = CLOSED
            if left < 8:
                octet |= CLOSED << left & CLOSED
        store_8(ram, IO_MAP + place, octet)
    close_kept_ports(ram)
    domain.io_ports = ports
    return 0


@kernel
def operate(cpu, ram, xen, domains, command, argument):
    """One operation, whose structure is at a linear address of the current domain's."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    domain = domains[xen.current]
    if command == PHYSDEVOP_IRQ_UNMASK_NOTIFY:
        return unmask_all(xen, domain)
    words = 1
    if command == PHYSDEVOP_set_iobitmap:
        words = 2
    elif command != PHYSDEVOP_eoi and command != PHYSDEVOP_irq_status_query and command != PHYSDEVOP_set_iopl:
        if command == PHYSDEVOP_alloc_irq_vector and np.int64(domain.is_privileged) == 0:
            return -EPERM
        return -ENOSYS
    if load_words(cpu, ram, xen, domain, argument, words) == FAULTED:
        return -EFAULT
    first = xen.words[0]
    if command == PHYSDEVOP_set_iobitmap:
        return set_io_map(cpu, ram, domain, first, xen.words[1])
    if command == PHYSDEVOP_set_iopl:
        if first > 3:
            return -EINVAL
        domain.iopl = first
        return 0
    if first >= N_PIRQS:
        return -EINVAL
    if command == PHYSDEVOP_eoi:
        if np.int64(domain.pirq_port[first]) != 0:
            release_line(xen, first)
        return 0
    needs = 0
    if (xen.level_lines >> first) & 1 != 0:
        needs = XENIRQSTAT_needs_eoi
    if store_guest(cpu, ram, domain, argument + 4, 4, needs) == FAULTED:
        return -EFAULT
    return 0


@kernel
def unmask_all(xen, domain):
    """PHYSDEVOP_IRQ_UNMASK_NOTIFY: all interrupts of the domain's have been served."""
    for line in range(N_PIRQS):
        if np.int64(domain.pirq_port[line]) != 0:
            release_line(xen, line)
    return 0


@kernel
def do_physdev_op(cpu, ram, xen, domains, frames, channels):
    """physdev_op(command, structure)."""
    return operate(cpu, ram, xen, domains, cpu.gpr[EBX], cpu.gpr[ECX])


@kernel
def do_physdev_op_compat(cpu, ram, xen, domains, frames, channels):
    """The older physdev_op: one structure, whose first doubleword is the command."""
    command = load_guest(cpu, ram, domains[xen.current], cpu.gpr[EBX], 4)
    if command == FAULTED:
        return -EFAULT
    return operate(cpu, ram, xen, domains, command, cpu.gpr[EBX] + 4)
