"""What a guest asks about the VMM (xen_version), text for the machine's console, and hypercalls that only domain 0 may make."""

import numpy as np

from ...core.jit import kernel
from ...isa.events import EVENT_VMM_CONSOLE_WRITE, EVENT_VMM_SMALL_HYPERCALL
from ...isa.registers import EBX, ECX, EDX
from .charge import charge
from .guest_access import FAULTED, load_guest, store_guest
from .interface import (
    EFAULT,
    ENOSYS,
    EPERM,
    NUMBER_OF,
    XEN_MAJOR_VERSION,
    XEN_MINOR_VERSION,
    CONSOLEIO_read,
    CONSOLEIO_write,
    XENFEAT_mmu_pt_update_preserve_ad,
    XENVER_capabilities,
    XENVER_changeset,
    XENVER_commandline,
    XENVER_compile_info,
    XENVER_extraversion,
    XENVER_get_features,
    XENVER_guest_handle,
    XENVER_pagesize,
    XENVER_platform_parameters,
    XENVER_version,
)
from .multicall import continue_call
from .records import CONSOLE_BYTES

CONSOLE_IO = NUMBER_OF["console_io"]
FEATURES = 1 << XENFEAT_mmu_pt_update_preserve_ad
PAGE_BYTES = 0x1000

# Texts as the structures of version.h have them: octets, to be followed by zeros up to the field's end.
EXTRAVERSION, EXTRAVERSION_BYTES = tuple(b".0-x86virt\0"), 16
CAPABILITIES = tuple(b"xen-3.0-x86_32 xen-3.0-x86_32p\0")
CHANGESET = tuple(b"unavailable\0")
COMPILER, COMPILE_INFO_BYTES = tuple(b"Python and Numba\0"), 144
NOTHING = (0,)


@kernel
def store_text(cpu, ram, domain, address, text):
    """Store a text with its final zero at a linear address."""
    for number in range(len(text)):
        if store_guest(cpu, ram, domain, address + number, 1, text[number]) == FAULTED:
            return -EFAULT
    return 0


@kernel
def store_field(cpu, ram, domain, address, text, octets):
    """Store a text in a field of so many octets, zeros behind it."""
    outcome = store_text(cpu, ram, domain, address, text)
    for number in range(len(text), octets):
        if store_guest(cpu, ram, domain, address + number, 1, 0) == FAULTED:
            return -EFAULT
    return outcome


@kernel
def store_word(cpu, ram, domain, address, value):
    """Store a doubleword."""
    if store_guest(cpu, ram, domain, address, 4, value) == FAULTED:
        return -EFAULT
    return 0


@kernel
def get_features(cpu, ram, domain, argument):
    """XENVER_get_features: what this VMM offers beyond what every guest may count on, by words of 32 bits."""
    submap = load_guest(cpu, ram, domain, argument, 4)
    if submap == FAULTED:
        return -EFAULT
    features = 0
    if submap == 0:
        features = FEATURES
    return store_word(cpu, ram, domain, argument + 4, features)


@kernel
def do_xen_version(cpu, ram, xen, domains, frames, channels):
    """xen_version(command, structure)."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    domain = domains[xen.current]
    command, argument = cpu.gpr[EBX], cpu.gpr[ECX]
    if command == XENVER_version:
        return XEN_MAJOR_VERSION << 16 | XEN_MINOR_VERSION
    if command == XENVER_pagesize:
        return PAGE_BYTES
    if command == XENVER_platform_parameters:
        return store_word(cpu, ram, domain, argument, np.int64(domain.virt_start))
    if command == XENVER_get_features:
        return get_features(cpu, ram, domain, argument)
    if command == XENVER_extraversion:
        return store_field(cpu, ram, domain, argument, EXTRAVERSION, EXTRAVERSION_BYTES)
    if command == XENVER_capabilities:
        return store_text(cpu, ram, domain, argument, CAPABILITIES)
    if command == XENVER_changeset:
        return store_text(cpu, ram, domain, argument, CHANGESET)
    if command == XENVER_commandline or command == XENVER_guest_handle:
        return store_text(cpu, ram, domain, argument, NOTHING)
    if command == XENVER_compile_info:
        return store_field(cpu, ram, domain, argument, COMPILER, COMPILE_INFO_BYTES)
    return -ENOSYS


@kernel
def do_console_io(cpu, ram, xen, domains, frames, channels):
    """console_io(command, octets, address): text to the machine's console; there is never anything to be read."""
    command, octets, address = cpu.gpr[EBX], cpu.gpr[ECX], cpu.gpr[EDX]
    if command == CONSOLEIO_read:
        charge(cpu, xen, EVENT_VMM_CONSOLE_WRITE, 0)
        return 0
    if command != CONSOLEIO_write:
        charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
        return -ENOSYS
    taken = min(octets, CONSOLE_BYTES - xen.console_length)
    charge(cpu, xen, EVENT_VMM_CONSOLE_WRITE, taken)
    for number in range(taken):
        octet = load_guest(cpu, ram, domains[xen.current], address + number, 1)
        if octet == FAULTED:
            return -EFAULT
        xen.console[xen.console_length] = octet
        xen.console_length += 1
    if taken == octets:
        return 0
    # The rest when the way out has shown this much.
    cpu.gpr[ECX] = octets - taken
    cpu.gpr[EDX] = address + taken
    return continue_call(xen, domains[xen.current], CONSOLE_IO)


@kernel
def do_privileged(cpu, xen, domains):
    """What builds and controls domains and machines (domctl, sysctl, platform_op, kexec_op): here the VMM does that itself."""
    charge(cpu, xen, EVENT_VMM_SMALL_HYPERCALL, 1)
    if np.int64(domains[xen.current].is_privileged) == 0:
        return -EPERM
    return -ENOSYS
