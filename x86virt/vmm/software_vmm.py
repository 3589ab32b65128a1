"""A VMM of the software kind: what every technique does that runs the guest's code deprivileged on an unmodified processor.

The processor is the VMM's. Guest code runs in an outer ring behind the truncated limits of its segments, so that
whatever reaches for the machine itself traps. A technique differs from the next in how it runs the guest's *kernel*:
trap-and-emulate lets the processor execute it as it is, binary translation executes code made from it. What a trap means,
once it has come, is the same for both, and is this file:

* A privileged instruction raises #GP: it is decoded and performed on the virtual processor. A selector that the shadow
  descriptor tables lack traps too, and its load is performed likewise. What is neither was the guest's own mistake.
* The processor walks shadow page tables. A fault of a shadow that merely lacks an entry fills it; if the guest's own
  tables refuse the access, the fault is the guest's.
* A program's INT n and SYSENTER are the guest's system calls. A gate of the VMM's is opened to ring 3 once the guest's is.
* All other exceptions are the guest's, and are reflected: delivered through the guest's own IDT.

What x86 does not let a VMM see are its sensitive unprivileged instructions (Robin and Irvine 2000). Where they run as they
are, they answer for the wrong machine: `SEEN_BY_PROGRAMS` is what a program in ring 3 can find out.
"""

from typing import ClassVar

from .exits import Exit, GuestFault
from .options import SHADOW_PATHS
from .strategy import Strategy
from .vm import SoftwareVm

USER = "guest_user"

# (instruction, mode, where it shows): a program that runs directly sees the VMM's tables, its CR0, flags and descriptors.
SEEN_BY_PROGRAMS = frozenset(
    {
        ("sgdt_ms", USER, "memory"),
        ("sidt_ms", USER, "memory"),
        ("str_ev", USER, "register"),
        ("str_ev", USER, "memory"),
        ("smsw_ev", USER, "register"),
        ("smsw_ev", USER, "memory"),
        ("pushf", USER, "memory"),  # with a virtual IOPL of 3
        ("popf", USER, "eflags"),
        ("iret", USER, "eflags"),
        ("lar_gv_ew", USER, "register"),
        ("lar_gv_ew", USER, "eflags"),
        ("lsl_gv_ew", USER, "register"),
        ("lsl_gv_ew", USER, "eflags"),
        ("verr_ew", USER, "eflags"),
        ("verw_ew", USER, "eflags"),
    }
)


class SoftwareVmm(Strategy):
    """Shadow page tables, shadow descriptor tables, emulated devices, and a hook for each trap."""

    memory = "shadow"
    devices = "emulated"
    kernel_ring = 1
    needs_vmm = True
    paths: ClassVar[tuple[str, ...]] = (
        "trap_dispatch", "emulate_flags", "emulate_flags_image", "emulate_control_register", "emulate_descriptor_table",
        "emulate_state_read", "emulate_segment", "emulate_far_transfer", "emulate_port", "emulate_msr", "emulate_halt",
        "emulate_invlpg", "emulate_system_call", "emulate_x87_store", "reflect", "descriptor_shadow",
        "device_request", *SHADOW_PATHS,
    )  # fmt: skip
    jitted: ClassVar = {
        "general_protection": "emulate", "segment_not_present": "emulate", "stack_fault": "emulate",
        "invalid_tss": "emulate", "divide_error": "reflect", "bound": "reflect", "invalid_opcode": "reflect",
        "device_not_available": "reflect", "alignment_check": "reflect", "software_interrupt": "open_gate",
        "host_timer": "nothing", "system_call": "system_call", "page_fault": "fill",
    }  # fmt: skip

    # -- privileged instructions ----------------------------------------------------------------------------------

    def on_general_protection(self, vm: SoftwareVm, exit: Exit) -> None:
        """A privileged instruction, a selector that the shadow lacks, or the guest's own fault."""
        self.emulate_or_reflect(vm, exit)

    on_segment_not_present = on_general_protection
    on_stack_fault = on_general_protection
    on_invalid_tss = on_general_protection

    def emulate_or_reflect(self, vm: SoftwareVm, exit: Exit) -> None:
        """Perform the instruction on the virtual processor; if it faults there too, the fault is the guest's."""
        try:
            instruction = vm.instruction()
            if instruction is None or not vm.emulate(instruction):
                vm.reflect_exit(exit)
        except GuestFault as fault:
            vm.inject_exception(fault)

    # -- memory ---------------------------------------------------------------------------------------------------

    def on_page_fault(self, vm: SoftwareVm, exit: Exit) -> None:
        """Fill the shadow; if the guest's own tables refuse the access, the fault is the guest's."""
        try:
            vm.shadow_fault(exit)
        except GuestFault as fault:
            vm.inject_exception(fault)

    # -- system calls ---------------------------------------------------------------------------------------------

    def on_software_interrupt(self, vm: SoftwareVm, exit: Exit) -> None:
        """INT n through a gate that the guest opened to ring 3; the guest's gate decides as it stands now."""
        vm.deliver_open_gate(exit)

    on_breakpoint = on_software_interrupt
    on_overflow = on_software_interrupt

    def on_system_call(self, vm: SoftwareVm, exit: Exit) -> None:
        """SYSENTER: to the guest's own entry."""
        vm.enter_system_call()

    # -- other exceptions are the guest's -------------------------------------------------------------------------

    def on_divide_error(self, vm: SoftwareVm, exit: Exit) -> None:
        """Reflected as it is."""
        vm.reflect_exit(exit)

    on_debug = on_divide_error
    on_bound = on_divide_error
    on_invalid_opcode = on_divide_error
    on_device_not_available = on_divide_error
    on_x87_error = on_divide_error
    on_alignment_check = on_divide_error

    # -- the VMM's own --------------------------------------------------------------------------------------------

    def on_host_timer(self, vm: SoftwareVm, exit: Exit) -> None:
        """A virtual device's deadline has come: resuming delivers what it raised."""

    def on_own_step(self, vm: SoftwareVm, exit: Exit) -> None:
        """The one instruction that the VMM wanted to see the end of has retired."""
