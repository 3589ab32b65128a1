"""Paravirtualization: the guest is changed instead of trapped (Barham and others, SOSP 2003; Xen's public interface).

A kernel that is ported to the VMM asks for what it may not do. It runs in ring 1, its programs in ring 3, the VMM in ring 0 at
the top of every address space, behind the truncated limits of all segments: a hypercall (int $0x82) is a trap and a return,
and no address space is switched.

* Memory: the guest's page tables are the hardware's. The VMM has validated them and counts how each frame is used; to the guest
  they are read-only, and it asks for each change (mmu_update, update_va_mapping, many in one multicall). Nothing is shadowed.
* Processor: exceptions are bounced to the guest's own handlers; int $0x80 goes straight from ring 3 to ring 1. Interrupts are
  events: a bit in a page that both see, and masking them is a store to that page.
* Devices: a second domain drives the hardware. The guest's front-end drivers and its back ends share rings in memory that was
  granted, and tell each other by events.

The guest can see all of this, which is the point: nothing of it is hidden, so that there are no divergences to declare, and the
ported build is compared with the native one by what it does. What brings control to the VMM is handled as a whole by
`vm.serve`; a hook of your own can look first.
"""

from typing import ClassVar

from x86virt.vmm import PARAVIRTUAL_PATHS, Exit, ParavirtualVm, Strategy, paravirtual_options


class Paravirtual(Strategy):
    """A kernel in ring 1 that calls its VMM, on its own validated page tables, with split drivers."""

    name = "paravirtual"
    processor = "paravirtual"
    memory = "validated"
    devices = "split"
    kernel_ring = 1
    needs_vmm = True
    options = paravirtual_options()
    paths: ClassVar = PARAVIRTUAL_PATHS
    jitted: ClassVar = dict.fromkeys(
        (
            "hypercall", "divide_error", "debug", "breakpoint", "overflow", "bound", "invalid_opcode", "device_not_available",
            "double_fault", "invalid_tss", "segment_not_present", "stack_fault", "general_protection", "page_fault", "x87_error",
            "alignment_check", "machine_check", "software_interrupt", "host_timer", "physical_interrupt",
        ),
        "serve",
    )  # fmt: skip

    def on_hypercall(self, vm: ParavirtualVm, exit: Exit) -> None:
        """Int $0x82: the number is in EAX, the arguments are in EBX, ECX, EDX, ESI and EDI."""
        vm.serve()

    # -- exceptions: bounced to the guest's own handlers, unless they are the interface's business -----------------------------

    def on_general_protection(self, vm: ParavirtualVm, exit: Exit) -> None:
        """A privileged instruction that the interface lets a kernel keep (ports, control registers), or the guest's own fault."""
        vm.serve()

    def on_page_fault(self, vm: ParavirtualVm, exit: Exit) -> None:
        """A store to a page table under the assist of writable page tables, or the guest's own fault."""
        vm.serve()

    def on_divide_error(self, vm: ParavirtualVm, exit: Exit) -> None:
        """The guest's own."""
        vm.serve()

    on_debug = on_breakpoint = on_overflow = on_bound = on_invalid_opcode = on_divide_error
    on_device_not_available = on_double_fault = on_invalid_tss = on_segment_not_present = on_divide_error
    on_stack_fault = on_x87_error = on_alignment_check = on_machine_check = on_software_interrupt = on_divide_error

    # -- the machine's own -------------------------------------------------------------------------------------------------------

    def on_host_timer(self, vm: ParavirtualVm, exit: Exit) -> None:
        """A virtual timer is due, or the running domain's time is up."""
        vm.serve()

    def on_physical_interrupt(self, vm: ParavirtualVm, exit: Exit) -> None:
        """A device wants its driver: an event of domain 0."""
        vm.serve()
