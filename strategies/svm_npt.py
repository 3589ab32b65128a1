"""SVM with nested page tables: the guest has its own page tables, and the processor walks in two dimensions (2007).

AMD's second generation, with the Opteron that is called Barcelona. The guest's page tables turn a linear address into a
guest-physical one, the nested page tables turn that into a machine address. The guest may load CR3, write CR0 and CR4, execute
INVLPG and take its own page faults without an exit, because nothing of that can reach a frame which the nested tables lack.

Every register of the guest's is the guest's own here, its CR0 as well: it runs unpaged, in real-address mode and in
virtual-8086 mode as on the bare machine, since nested paging translates whatever the guest takes for a physical address.

The nested tables have the format of the VMM's own paging, here that of 32 bits: two levels, each entry a user's, or one
level where a 4 MB page fits. A TLB miss of a guest with two levels of its own takes up to 8 references instead of 2. The guest's
translations are told from the VMM's by their address-space identifier (ASID), so that transitions leave the TLBs as they are.

One thing the guest can tell: under nested paging the four page-directory pointers of PAE paging are not loaded with CR3 but read
at each walk (APM section 15.25.10). Wrong ones raise a page fault later instead of #GP at the MOV, and one that is changed in
memory holds without a load of CR3.

What is left: a page that was never touched, or that is no memory, is a nested page fault.
"""

from typing import ClassVar

from x86virt.vmm import NESTED_PATHS, Exit, HardwareVm, SvmVmm, hardware_options, nested_options


class SvmNpt(SvmVmm):
    """Nested page tables, and nothing of the guest's paging seen."""

    name = "svm-npt"
    memory = "nested"
    options = (*hardware_options(), *nested_options())
    paths: ClassVar = (*SvmVmm.paths, *NESTED_PATHS)
    jitted: ClassVar = {**SvmVmm.jitted, "ept_violation": "fill_nested"}

    def set_controls(self, vm: HardwareVm) -> None:
        """What makes the guest exit: what SVM always needs, and what the nested tables lack."""
        super().set_controls(vm)
        vm.use_nested_tables()

    def on_ept_violation(self, vm: HardwareVm, exit: Exit) -> None:
        """A nested page fault: a page that the tables lack yet, or an access that no memory takes."""
        vm.fill_nested(exit)
