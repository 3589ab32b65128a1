"""VT-x with extended page tables: the guest has its own page tables, and the processor walks in two dimensions (2008).

Intel's second generation. The guest's page tables turn a linear address into a guest-physical one, the extended page tables
(EPT) turn that into a machine address; the processor walks both, and keeps what came of it in its TLBs. So the guest may load
CR3, execute INVLPG, and take its own page faults without an exit: none of the controls that would show them to the VMM is set.

What is set, and why:

* external-interrupt exiting: interrupts are the host's, also while the guest runs with IF clear;
* HLT exiting: a guest that waits leaves the processor to the VMM;
* unconditional I/O exiting, and no MSR bitmaps: ports and model-specific registers are virtual;
* with the option cr3_targets, CR3-load exiting, which is of no use here: it shows what the CR3-target values spare;
* enable EPT, and VPID where the processor has it, so that transitions leave the TLBs as they are.

CR0.PE, CR0.PG and CR0.NE are owned by the VMM, because VMX demands that they be 1: without paging a guest runs on an identity
table, in real-address mode as virtual-8086 mode where its segments let it, else in the interpreter. An x87 exception of a guest
with CR0.NE clear exits, because a PC is told of it by IRQ 13.

What is left: a page that was never touched, or that is no memory, is an EPT violation. The walks cost more than before: a TLB
miss may need 14 references instead of 2.
"""

from typing import ClassVar

from x86virt.vmm import NESTED_PATHS, Choice, Exit, HardwareVm, HardwareVmm, hardware_options, nested_options

NUMBER_OF_GUEST = 1  # its VPID
TARGETS = Choice("cr3_targets", "CR3-load exiting, but for so many of the values loaded last.", ("off", *"01234"), "off")


class VtxEpt(HardwareVmm):
    """Extended page tables, and nothing of the guest's paging seen."""

    name = "vtx-ept"
    processor = "vtx"
    memory = "nested"
    options = (*hardware_options(), *nested_options(), TARGETS)
    paths: ClassVar = (*HardwareVmm.paths, *NESTED_PATHS)
    jitted: ClassVar = {**HardwareVmm.jitted, "ept_violation": "fill_nested"}

    def set_controls(self, vm: HardwareVm) -> None:
        """What makes the guest exit."""
        vm.control.set_control("HLT exiting")
        vm.control.set_control("unconditional I/O exiting")
        if self.option("descriptor_tables"):
            vm.control.set_control("descriptor-table exiting")
        if self.option("cr3_targets") != "off":
            vm.watch_cr3(int(self.option("cr3_targets")))
        vm.use_nested_tables()
        if self.option("vpid"):
            vm.control.set_space(NUMBER_OF_GUEST)

    def on_ept_violation(self, vm: HardwareVm, exit: Exit) -> None:
        """A page that the extended page tables lack yet, or an access that no memory takes."""
        vm.fill_nested(exit)
