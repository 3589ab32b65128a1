"""Trap and emulate: the guest's kernel runs deprivileged, and what it may not do traps to the VMM.

Goldberg's technique (1974), on a processor that was not made for it. The guest's kernel runs in ring 1, its user
programs in ring 3 as ever, the VMM in ring 0 behind the truncated limits of every guest segment. Paging does not tell
ring 1 from ring 0, so that the segments alone keep the kernel out of the VMM.

* A privileged instruction raises #GP in ring 1: the VMM decodes it and performs it on the virtual processor.
* Exceptions and interrupts of the guest come to the VMM first, which reflects them through the guest's own IDT.
* The processor walks shadow page tables; a fault of a shadow that merely lacks an entry fills it.
* A return of the guest's kernel must be seen, because ring 1 cannot change IF: reflected frames carry selectors of
  RPL 0, so that a return within the kernel raises #GP, and ring 3 code segments are absent while the kernel runs, so
  that a return to ring 3 raises #NP.

What x86 does not let the VMM see are its sensitive unprivileged instructions. They run deprivileged and answer for the
wrong machine; `known_divergences` says which, and every run lists those that it met (Robin and Irvine 2000).
"""

from typing import ClassVar

from x86virt.vmm import SHADOW_PATHS, Choice, Exit, GuestFault, Strategy, VirtualMachine, shadow_options

KERNEL, USER = "guest_kernel", "guest_user"


class TrapAndEmulate(Strategy):
    """Ring deprivileging with shadow page tables and emulated devices."""

    name = "trap-and-emulate"
    processor = "trap_and_emulate"
    memory = "shadow"
    devices = "emulated"
    kernel_ring = 1
    needs_vmm = True
    options = (Choice("ring", "The ring in which the guest's kernel runs.", ("1", "3"), "1"), *shadow_options())
    paths = (
        "trap_dispatch", "emulate_flags", "emulate_control_register", "emulate_descriptor_table", "emulate_segment",
        "emulate_far_transfer", "emulate_port", "emulate_msr", "emulate_halt", "emulate_invlpg", "emulate_system_call",
        "reflect", "descriptor_shadow", "device_request", *SHADOW_PATHS,
    )  # fmt: skip
    jitted: ClassVar = {
        "general_protection": "emulate", "segment_not_present": "emulate", "stack_fault": "emulate",
        "invalid_tss": "emulate", "divide_error": "reflect", "bound": "reflect", "invalid_opcode": "reflect",
        "device_not_available": "reflect", "alignment_check": "reflect", "software_interrupt": "open_gate",
        "host_timer": "nothing", "system_call": "system_call", "page_fault": "fill",
    }  # fmt: skip
    known_divergences = frozenset(
        {
            ("sgdt_ms", KERNEL, "memory"),  # the VMM's tables
            ("sidt_ms", KERNEL, "memory"),
            ("str_ev", KERNEL, "register"),  # the VMM's TSS
            ("str_ev", KERNEL, "memory"),
            ("smsw_ev", KERNEL, "register"),  # the processor's CR0, of which NE and WP are not the guest's
            ("smsw_ev", KERNEL, "memory"),
            ("pushf", KERNEL, "memory"),  # IF is always on, IOPL always 0, and TF on where the VMM steps
            ("popf", KERNEL, "eflags"),  # IF and IOPL do not change
            ("lar_gv_ew", KERNEL, "register"),  # shadow descriptors: another DPL, or none yet
            ("lar_gv_ew", KERNEL, "eflags"),
            ("lar_gv_ew", KERNEL, "memory"),  # the guest's GDT is not read, so its page is not marked accessed
            ("lsl_gv_ew", KERNEL, "register"),  # truncated limits
            ("lsl_gv_ew", KERNEL, "eflags"),
            ("lsl_gv_ew", KERNEL, "memory"),
            ("verr_ew", KERNEL, "eflags"),
            ("verr_ew", KERNEL, "memory"),
            ("verw_ew", KERNEL, "eflags"),
            ("verw_ew", KERNEL, "memory"),
            ("mov_ev_sw", KERNEL, "register"),  # the ring shows in the RPL of CS and SS
            ("mov_ev_sw", KERNEL, "memory"),
            ("push_cs", KERNEL, "memory"),
            ("push_ss", KERNEL, "memory"),
            ("fnstenv_m", KERNEL, "memory"),  # the pointer to the last x87 instruction holds CS
            ("fnsave_m", KERNEL, "memory"),
            ("fxsave_m", KERNEL, "memory"),
            # A program in ring 3 sees the same, but for its ring, which is its own.
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

    @classmethod
    def configure(cls) -> None:
        """With `ring=3` paging keeps the guest's kernel from its programs: it gets shadow tables of its own."""
        cls.kernel_ring = int(cls.option("ring"))

    # -- privileged instructions ---------------------------------------------------------------------------------

    def on_general_protection(self, vm: VirtualMachine, exit: Exit) -> None:
        """A privileged instruction, a selector that the shadow lacks, or the guest's own fault."""
        self.emulate_or_reflect(vm, exit)

    on_segment_not_present = on_general_protection
    on_stack_fault = on_general_protection
    on_invalid_tss = on_general_protection

    def emulate_or_reflect(self, vm: VirtualMachine, exit: Exit) -> None:
        """Perform the instruction on the virtual processor; if it faults there too, the fault is the guest's."""
        try:
            instruction = vm.instruction()
            if instruction is None or not vm.emulate(instruction):
                vm.reflect_exit(exit)
        except GuestFault as fault:
            vm.inject_exception(fault)

    # -- memory --------------------------------------------------------------------------------------------------

    def on_page_fault(self, vm: VirtualMachine, exit: Exit) -> None:
        """Fill the shadow; if the guest's own tables refuse the access, the fault is the guest's."""
        try:
            vm.shadow_fault(exit)
        except GuestFault as fault:
            vm.inject_exception(fault)

    # -- system calls --------------------------------------------------------------------------------------------

    def on_software_interrupt(self, vm: VirtualMachine, exit: Exit) -> None:
        """INT n through a gate that the guest opened to ring 3; the guest's gate decides as it stands now."""
        vm.deliver_open_gate(exit)

    on_breakpoint = on_software_interrupt
    on_overflow = on_software_interrupt

    def on_system_call(self, vm: VirtualMachine, exit: Exit) -> None:
        """SYSENTER: to the guest's own entry."""
        vm.enter_system_call()

    # -- other exceptions are the guest's ------------------------------------------------------------------------

    def on_divide_error(self, vm: VirtualMachine, exit: Exit) -> None:
        """Reflected as it is."""
        vm.reflect_exit(exit)

    on_debug = on_divide_error
    on_bound = on_divide_error
    on_invalid_opcode = on_divide_error
    on_device_not_available = on_divide_error
    on_x87_error = on_divide_error
    on_alignment_check = on_divide_error

    # -- the VMM's own -------------------------------------------------------------------------------------------

    def on_host_timer(self, vm: VirtualMachine, exit: Exit) -> None:
        """A virtual device's deadline has come: resuming delivers what it raised."""

    def on_own_step(self, vm: VirtualMachine, exit: Exit) -> None:
        """The one instruction that the VMM wanted to see the end of has retired."""
