"""Binary translation: the guest's kernel never runs as it is, but as code that the VMM makes from it.

What x86 does not let a VMM see by trapping, a translator sees before it executes. The guest's kernel is read a dozen
instructions at a time, just when it is about to run, and written anew into a cache: innocuous instructions as they are,
sensitive ones as a few that work on the virtual processor, or as a callout to the VMM. The cache is real code in the
machine's memory, which the kernel executes in ring 1, behind the truncated limits of every guest segment (Adams and
Agesen, ASPLOS 2006; Bugnion and others, TOCS 2012).

* A jump leaves its unit by a callout once; then it is patched to go straight to its target's unit.
* An indirect jump, call or return finds the unit of a guest address in a hash table, without leaving the cache.
  Return addresses on the guest's stack are the guest's.
* A store that often faults, because it writes memory that the VMM traces, is translated anew as a callout; and back.
* IN, OUT and such callouts for stores bring what the translator has decoded to a routine made for them: few registers are
  saved, nothing is looked up, and the way back is known (`direct_callouts`).
* CLI, STI, PUSHF and POPF work on the virtual IF inline, with a test for an interrupt that waits.
* An exception or interrupt within translated code is brought back to the guest's instruction and registers first:
  every place in the cache knows where in the guest it stands. What the trap then means is what any VMM of the software kind
  does with it (`SoftwareVmm`, x86virt/vmm/software_vmm.py); the hooks below are those that only a translator has.
* The guest's programs run directly, in ring 3, while the processor's flags and segments are what theirs would be: with IOPL
  0, IF set, and CS and SS that the guest's tables still say. What they can see there of the VMM is `known_divergences`. All
  other code of theirs is translated too, to run in the same ring, where pages mean the same; with `translate_user` all is,
  and nothing is seen any more.
"""

from typing import ClassVar

from x86virt.vmm import (
    SEEN_BY_PROGRAMS,
    Exit,
    GuestFault,
    SoftwareVm,
    SoftwareVmm,
    shadow_options,
    translation_options,
)


class BinaryTranslation(SoftwareVmm):
    """A dynamic translator of kernel code with shadow page tables and emulated devices."""

    name = "binary-translation"
    processor = "binary_translation"
    options = (*translation_options(), *shadow_options())
    paths: ClassVar[tuple[str, ...]] = (
        *SoftwareVmm.paths, "light_dispatch", "callout", "recover", "enter_cache", "leave_ring",
        "direct_port", "direct_store",
    )  # fmt: skip
    jitted: ClassVar = {
        **SoftwareVmm.jitted,
        "sensitive_instruction": "emulate", "unchained_jump": "leave_unit", "lookup_miss": "leave_unit",
        "adapted_write": "simulate_write", "port_access": "access_port",
    }  # fmt: skip
    # The flags of a program that runs directly are its own.
    known_divergences = frozenset(row for row in SEEN_BY_PROGRAMS if row[0] not in ("pushf", "popf", "iret"))

    @classmethod
    def configure(cls) -> None:
        """Programs that are translated see what the bare machine would show them."""
        if cls.option("translate_user"):
            cls.known_divergences = frozenset()

    # -- callouts of translated code ---------------------------------------------------------------------------------

    def on_sensitive_instruction(self, vm: SoftwareVm, exit: Exit) -> None:
        """An instruction that the translator left to the VMM: it is performed on the virtual processor.

        One that is not sensitive, but that no sequence does as the guest's segments are, goes through the interpreter.
        """
        try:
            instruction = vm.instruction()
            if instruction is None or not vm.emulate(instruction):
                vm.interpret_one()
        except GuestFault as fault:
            vm.inject_exception(fault)

    def on_adapted_write(self, vm: SoftwareVm, exit: Exit) -> None:
        """An instruction that has often faulted because it wrote traced memory: it is performed without a fault."""
        vm.translator.simulate_write()

    def on_port_access(self, vm: SoftwareVm, exit: Exit) -> None:
        """IN or OUT of the guest's kernel: the translator has decoded it, the virtual device answers."""
        vm.translator.access_port()

    def on_unchained_jump(self, vm: SoftwareVm, exit: Exit) -> None:
        """A jump is taken for the first time: as the guest goes on, its target is translated, and the jump goes there."""

    def on_lookup_miss(self, vm: SoftwareVm, exit: Exit) -> None:
        """An indirect transfer to an address that the hash table lacks, and will have when the guest goes on."""
        vm.translator.count("lookup_miss")

    def on_begin(self, vm: SoftwareVm, exit: Exit) -> None:
        """The instruction at which the guest was to go on could not be fetched; what that means is the guest's affair."""
        try:
            vm.translator.begin()
        except GuestFault as fault:
            vm.inject_exception(fault)

    def on_open_window(self, vm: SoftwareVm, exit: Exit) -> None:
        """The guest has set IF while an interrupt waits: resuming delivers it."""

    def on_x87_pointer(self, vm: SoftwareVm, exit: Exit) -> None:
        """An image of the x87 FPU is about to be stored, which holds the address of an instruction."""
        vm.translator.set_x87_pointer()
        vm.translator.pass_callout()

    def on_host_timer(self, vm: SoftwareVm, exit: Exit) -> None:
        """A virtual device's deadline has come: resuming delivers what it raised. A trap that the guest waits for comes first."""
        vm.translator.finish_step()

    def on_own_step(self, vm: SoftwareVm, exit: Exit) -> None:
        """The one instruction that was to run by itself has retired; if the guest asked for that, it gets its trap."""
        if vm.vcpu.single_stepped:
            vm.events.single_step_trap()
