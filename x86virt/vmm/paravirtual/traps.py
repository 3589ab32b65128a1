"""Traps of a domain (stub)."""

import numpy as np

from ...core.flags import set_eflags
from ...core.jit import kernel, load_32, store_32
from ...isa.registers import EFLAGS_FIXED, ESP
from ..exits import ERROR_CODE_VECTORS
from ..layout import RESUME, STACK_TOP, VMM_BASE
from .interface import ENOSYS
from .records import ASK_CRASH

WITH_ERROR_CODE = sum(1 << vector for vector in ERROR_CODE_VECTORS)


@kernel
def do_set_trap_table(cpu, ram, xen, domains, frames, channels):
    """set_trap_table (stub)."""
    return -ENOSYS


@kernel
def do_set_callbacks(cpu, ram, xen, domains, frames, channels):
    """set_callbacks (stub)."""
    return -ENOSYS


@kernel
def do_callback_op(cpu, ram, xen, domains, frames, channels):
    """callback_op (stub)."""
    return -ENOSYS


@kernel
def do_nmi_op(cpu, ram, xen, domains, frames, channels):
    """nmi_op (stub)."""
    return -ENOSYS


@kernel
def do_stack_switch(cpu, ram, xen, domains, frames, channels):
    """stack_switch (stub)."""
    return -ENOSYS


@kernel
def do_iret(cpu, ram, xen, domains, frames, channels):
    """iret (stub)."""
    return -ENOSYS


@kernel
def do_fpu_taskswitch(cpu, ram, xen, domains, frames, channels):
    """fpu_taskswitch (stub)."""
    return -ENOSYS


@kernel
def do_set_segment_base(cpu, ram, xen, domains, frames, channels):
    """set_segment_base (stub)."""
    return -ENOSYS


@kernel
def take_frame(cpu, ram, domain, vector):
    """Take the frame of a trap from the VMM's stack; returns the error code (stub)."""
    stack = cpu.gpr[ESP] - VMM_BASE
    error = 0
    if vector < 32 and WITH_ERROR_CODE >> vector & 1 == 1:
        error = load_32(ram, stack)
        stack += 4
    domain.eip = load_32(ram, stack)
    domain.cs = load_32(ram, stack + 4)
    domain.eflags = load_32(ram, stack + 8)
    domain.esp = load_32(ram, stack + 12)
    domain.ss = load_32(ram, stack + 16)
    return error


@kernel
def put_frame(cpu, ram, domain):
    """Let the processor return to a domain (stub)."""
    stack = STACK_TOP - 20
    store_32(ram, stack, np.int64(domain.eip))
    store_32(ram, stack + 4, np.int64(domain.cs))
    store_32(ram, stack + 8, np.int64(domain.eflags))
    store_32(ram, stack + 12, np.int64(domain.esp))
    store_32(ram, stack + 16, np.int64(domain.ss))
    cpu.rip = VMM_BASE + RESUME
    cpu.gpr[ESP] = VMM_BASE + stack
    set_eflags(cpu, EFLAGS_FIXED)


@kernel
def handle_trap(cpu, ram, xen, domains, frames, channels, board, vector):
    """An exception, or INT n (stub)."""
    xen.asked |= ASK_CRASH
    return 0
