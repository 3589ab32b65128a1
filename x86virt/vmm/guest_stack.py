"""A stack of the guest on which the VMM pushes in its processor's name: the present one, or that of an inner ring.

SDM volume 2, INT n and CALL operation; volume 3, section 7.2.
"""

from typing import TYPE_CHECKING

from ..isa.registers import AR_DB, SS, TYPE_TSS_16_BUSY, TYPE_TSS_32_BUSY
from ..isa.vectors import SS_FAULT, TS
from .descriptor import Descriptor, offsets_of
from .exits import GuestFault
from .segments import check_stack_load, error_code, mark_accessed
from .state import SegmentState

if TYPE_CHECKING:
    from .vm import SoftwareVm

M32 = 0xFFFFFFFF


class GuestStack:
    """A stack segment, its pointer, and the ring that it belongs to; nothing is committed before `load`."""

    def __init__(self, vm: "SoftwareVm", state: SegmentState, pointer: int, level: int) -> None:
        self.vm, self.state, self.pointer, self.level = vm, state, pointer, level
        self.mask = M32 if state.access & AR_DB else 0xFFFF
        self.inner: tuple[int, Descriptor] | None = None  # the descriptor of an inner ring's, and where it stands

    def require_room(self, count: int, n: int, error: int) -> None:
        """#SS unless `count` items of `n` bytes can be pushed."""
        first, last = offsets_of(self.state)
        for below in range(n, n * count + 1, n):
            offset = self.pointer - below & self.mask
            if offset < first or offset + n - 1 > last:
                raise GuestFault(SS_FAULT, error)

    def mark(self) -> None:
        """The stack segment of an inner ring is about to be used."""
        if self.inner is not None:
            mark_accessed(self.vm, *self.inner)

    def push(self, n: int, value: int) -> None:
        """Push `n` bytes."""
        self.pointer -= n
        gla = self.state.base + (self.pointer & self.mask) & M32
        self.vm.guest.write(gla, n, value & (1 << 8 * n) - 1, user=self.level == 3)

    def load(self) -> None:
        """Make it the present stack; the virtual CPL is that of its ring."""
        frame = self.vm.vcpu.frame
        if self.inner is not None:
            self.vm.segments.load(SS, self.state.selector, self.inner[1])
        frame.esp = frame.esp & ~self.mask & M32 | self.pointer & self.mask


def present_stack(vm: "SoftwareVm") -> GuestStack:
    """The stack that the guest is on."""
    return GuestStack(vm, vm.segments.state(SS), vm.vcpu.frame.esp, vm.vcpu.cpl)


def inner_stack(vm: "SoftwareVm", level: int, external: int) -> GuestStack:
    """The stack of an inner ring by the guest's TSS, checked."""
    selector, pointer = stack_of_task(vm, level, external)
    try:
        gla, descriptor = check_stack_load(vm, selector, level, TS)
    except GuestFault as fault:
        if fault.cr2 is None:
            fault.error = (fault.error or 0) | external
        raise
    stack = GuestStack(vm, descriptor.loaded(selector), pointer, level)
    stack.inner = gla, descriptor
    return stack


def stack_of_task(vm: "SoftwareVm", level: int, external: int) -> tuple[int, int]:
    """SS and the stack pointer of a ring as the guest's TSS has them, of either size; #TS beyond its limit."""
    vcpu = vm.vcpu
    kind = vcpu.tr_access & 0x1F
    n = {TYPE_TSS_32_BUSY: 4, TYPE_TSS_16_BUSY: 2}.get(kind)
    if n is None or (offset := n + 2 * n * level) + n + 1 > vcpu.tr_limit:
        raise GuestFault(TS, error_code(vcpu.tr) | external)
    pointer = vm.guest.read(vcpu.tr_base + offset, n)
    return vm.guest.read(vcpu.tr_base + offset + n, 2), pointer
