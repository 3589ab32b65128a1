"""Binary translation: the guest's kernel never runs as it is, but as code that the VMM makes from it.

What x86 does not let a VMM see by trapping, a translator sees before it executes. The guest's kernel is read a dozen
instructions at a time, just when it is about to run, and written anew into a cache: innocuous instructions as they are,
sensitive ones as a few that work on the virtual processor, or as a callout to the VMM. The cache is real code in the
machine's memory, in ring 1, behind the truncated limits of every guest segment (Adams and Agesen, ASPLOS 2006; Bugnion
and others, TOCS 2012).

* A jump leaves its unit by a callout once; then it is patched to go straight to its target's unit.
* An indirect jump, call or return finds the unit of a guest address in a hash table, without leaving the cache.
  Return addresses on the guest's stack are the guest's.
* CLI, STI, PUSHF and POPF work on the virtual IF inline, with a test for an interrupt that waits.
* An exception or interrupt within translated code is brought back to the guest's instruction and registers first:
  every place in the cache knows where in the guest it stands. All else is the toolkit's, as under trap-and-emulate.
* The guest's user programs run directly, in ring 3; what they can see there of the VMM is `known_divergences`.
"""

from typing import ClassVar

from x86virt.vmm import (
    SHADOW_PATHS,
    Exit,
    GuestFault,
    Size,
    Strategy,
    Switch,
    VirtualMachine,
    shadow_options,
)

USER = "guest_user"


class BinaryTranslation(Strategy):
    """A dynamic translator of kernel code with shadow page tables and emulated devices."""

    name = "binary-translation"
    processor = "binary_translation"
    memory = "shadow"
    devices = "emulated"
    kernel_ring = 1
    needs_vmm = True
    options = (
        Switch("chaining", "jumps are patched to go from unit to unit, and the hash table is filled", True),
        Switch("inline_emulation", "CLI, STI, PUSHF, POPF, reads of control registers and selectors without a callout", True),
        Size("tc_size", "room for translated code", 192 << 10, 4 << 10, 192 << 10),
        *shadow_options(),
    )
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
        "sensitive_instruction": "emulate", "unchained_jump": "leave_unit", "lookup_miss": "leave_unit",
    }  # fmt: skip
    known_divergences = frozenset(
        {
            # A program in ring 3 runs directly and sees the VMM's tables, its CR0, its flags and its descriptors.
            ("sgdt_ms", USER, "memory"),
            ("sidt_ms", USER, "memory"),
            ("str_ev", USER, "register"),
            ("str_ev", USER, "memory"),
            ("smsw_ev", USER, "register"),
            ("smsw_ev", USER, "memory"),
            ("pushf", USER, "memory"),
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

    # -- callouts of translated code ---------------------------------------------------------------------------------

    def on_sensitive_instruction(self, vm: VirtualMachine, exit: Exit) -> None:
        """An instruction that the translator left to the VMM: it is performed on the virtual processor.

        One that is not sensitive, but that no sequence does as the guest's segments are, goes through the interpreter.
        """
        try:
            instruction = vm.instruction()
            if instruction is None or not vm.emulate(instruction):
                vm.interpret_one()
        except GuestFault as fault:
            vm.inject_exception(fault)

    def on_unchained_jump(self, vm: VirtualMachine, exit: Exit) -> None:
        """A jump is taken for the first time: as the guest goes on, its target is translated, and the jump goes there."""

    def on_lookup_miss(self, vm: VirtualMachine, exit: Exit) -> None:
        """An indirect transfer to an address that the hash table lacks, and will have when the guest goes on."""
        vm.translator.count("lookup_miss")

    def on_begin(self, vm: VirtualMachine, exit: Exit) -> None:
        """The instruction at which the guest was to go on could not be fetched; what that means is the guest's affair."""
        try:
            vm.translator.begin()
        except GuestFault as fault:
            vm.inject_exception(fault)

    def on_open_window(self, vm: VirtualMachine, exit: Exit) -> None:
        """The guest has set IF while an interrupt waits: resuming delivers it."""

    def on_x87_pointer(self, vm: VirtualMachine, exit: Exit) -> None:
        """An image of the x87 FPU is about to be stored, which holds the address of an instruction."""
        vm.translator.set_x87_pointer()
        vm.translator.pass_callout()

    def on_own_step(self, vm: VirtualMachine, exit: Exit) -> None:
        """The one instruction that was to run by itself has retired; if the guest asked for that, it gets its trap."""
        if vm.vcpu.single_stepped:
            vm.events.single_step_trap()

    # -- traps ---------------------------------------------------------------------------------------------------------

    def on_general_protection(self, vm: VirtualMachine, exit: Exit) -> None:
        """A privileged instruction of a program, a selector that the shadow lacks, or the guest's own fault."""
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

    def on_page_fault(self, vm: VirtualMachine, exit: Exit) -> None:
        """Fill the shadow; if the guest's own tables refuse the access, the fault is the guest's."""
        try:
            vm.shadow_fault(exit)
        except GuestFault as fault:
            vm.inject_exception(fault)

    def on_software_interrupt(self, vm: VirtualMachine, exit: Exit) -> None:
        """INT n of a program, through a gate that the guest opened to ring 3."""
        vm.deliver_open_gate(exit)

    on_breakpoint = on_software_interrupt
    on_overflow = on_software_interrupt

    def on_system_call(self, vm: VirtualMachine, exit: Exit) -> None:
        """SYSENTER of a program: to the guest's own entry."""
        vm.enter_system_call()

    def on_divide_error(self, vm: VirtualMachine, exit: Exit) -> None:
        """Exceptions of the guest, reflected as they are."""
        vm.reflect_exit(exit)

    on_debug = on_divide_error
    on_bound = on_divide_error
    on_invalid_opcode = on_divide_error
    on_device_not_available = on_divide_error
    on_x87_error = on_divide_error
    on_alignment_check = on_divide_error

    def on_host_timer(self, vm: VirtualMachine, exit: Exit) -> None:
        """A virtual device's deadline has come: resuming delivers what it raised."""
