"""Lists of hypercalls (multicall), and how a long one is gone on with after others have had the processor.

Each entry of the list is eight doublewords: number, result, six arguments. A hypercall that stops on the way is executed again by
the guest itself: its EIP goes back to the INT, its arguments are those of what is left. In a list that is the list's own
INT, with the entry's arguments written back.
"""

import numpy as np

from ...core.jit import kernel
from ...isa.events import EVENT_VMM_MULTICALL
from ...isa.registers import EBP, EBX, ECX, EDI, EDX, ESI
from .charge import charge
from .guest_access import FAULTED, load_words, store_guest
from .interface import EFAULT, NUMBER_OF
from .records import ASK_CRASH, ASK_SCHEDULE

MULTICALL = NUMBER_OF["multicall"]
ENTRY_BYTES = 32
RESULT, ARGUMENTS = 4, 8
N_ARGUMENTS = 6
M32 = 0xFFFFFFFF
INT_BYTES = 2
END = -1


@kernel
def argument_register(number):
    """The register of a hypercall's argument."""
    if number == 0:
        return EBX
    if number == 1:
        return ECX
    if number == 2:
        return EDX
    if number == 3:
        return ESI
    if number == 4:
        return EDI
    return EBP


@kernel
def must_pause(cpu, xen):
    """Whether a long hypercall is to let others have the processor: a timer is due, or it has had its quantum.

    Both are deterministic, which the end of the run's budget is not.
    """
    return cpu.ticks >= cpu.timer or cpu.ticks - xen.arrived >= xen.quantum


@kernel
def continue_call(xen, domain, number):
    """The guest is to make the hypercall at hand again, with the arguments as they are now: what the handler returns."""
    if xen.in_multicall == 1:
        xen.continues = 1
    else:
        domain.eip = (np.int64(domain.eip) - INT_BYTES) & M32
    return number


@kernel
def load_call(cpu, ram, xen, domains):
    """The number of the call at hand, its arguments in their registers; END if the list is at its end or cannot be read."""
    if xen.calls_left == 0:
        return END
    if load_words(cpu, ram, xen, domains[xen.current], xen.call_entry, ENTRY_BYTES // 4) == FAULTED:
        xen.call_error = 1
        return END
    for number in range(N_ARGUMENTS):
        cpu.gpr[argument_register(number)] = xen.words[ARGUMENTS // 4 + number]
    return xen.words[0]


@kernel
def begin_calls(cpu, ram, xen, domains, frames, channels):
    """multicall(list, length): the number of the first call, its arguments in place; END: there is none."""
    for number in range(N_ARGUMENTS):
        xen.caller[number] = cpu.gpr[argument_register(number)]
    xen.in_multicall = 1
    xen.continues = 0
    xen.call_error = 0
    xen.calls_done = 0
    xen.call_entry = xen.caller[0]
    xen.calls_left = xen.caller[1]
    if xen.call_entry + ENTRY_BYTES * xen.calls_left > np.int64(domains[xen.current].virt_start):
        xen.call_error = 1
        return END
    return load_call(cpu, ram, xen, domains)


@kernel
def next_call(cpu, ram, xen, domains, frames, channels):
    """The same of the next call."""
    return load_call(cpu, ram, xen, domains)


@kernel
def keep_arguments(cpu, ram, xen, domains):
    """Write the arguments of a call that is to be gone on with back to its entry."""
    for number in range(N_ARGUMENTS):
        place = xen.call_entry + ARGUMENTS + 4 * number
        if store_guest(cpu, ram, domains[xen.current], place, 4, cpu.gpr[argument_register(number)]) == FAULTED:
            xen.call_error = 1


@kernel
def answer_call(cpu, ram, xen, domains, frames, channels, result):
    """Store a call's result and go on to the next entry; 0: the list is left there."""
    if xen.continues == 1:
        keep_arguments(cpu, ram, xen, domains)
        return 0
    xen.calls_done += 1
    if store_guest(cpu, ram, domains[xen.current], xen.call_entry + RESULT, 4, result & M32) == FAULTED:
        xen.call_error = 1
        return 0
    xen.call_entry += ENTRY_BYTES
    xen.calls_left -= 1
    if xen.calls_left == 0 or xen.asked & ASK_CRASH != 0:
        return 0
    if xen.asked & ASK_SCHEDULE != 0 or must_pause(cpu, xen):
        xen.continues = 1
        return 0
    return 1


@kernel
def end_calls(cpu, ram, xen, domains, frames, channels):
    """The result of the whole list, the caller's registers as they were; or the list is gone on with later."""
    charge(cpu, xen, EVENT_VMM_MULTICALL, xen.calls_done)
    xen.in_multicall = 0
    for number in range(N_ARGUMENTS):
        cpu.gpr[argument_register(number)] = xen.caller[number]
    if xen.call_error != 0:
        return -EFAULT
    if xen.continues == 1:
        xen.continues = 0
        cpu.gpr[EBX] = xen.call_entry
        cpu.gpr[ECX] = xen.calls_left
        return continue_call(xen, domains[xen.current], MULTICALL)
    return 0
