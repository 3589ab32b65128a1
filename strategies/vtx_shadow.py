"""VT-x with shadow page tables: the guest has its own rings, the VMM has its page tables (2005).

Intel's first generation. VT-x gives the guest's kernel a ring 0 of its own, so that nothing of trap-and-emulate's deprivileging
is left: no truncated segments, no shadow descriptor tables, no instruction that answers for the wrong machine. Of memory it
knows nothing yet. There is one set of page tables, which the processor walks whoever runs, so that the VMM shows it tables of
its own making, the shadow, as the software techniques do. All that changes the guest's address space must come to the VMM:

* the exception bitmap has #PF: a page fault is the shadow's, which lacks an entry, or the guest's own, and is injected
  (`HardwareVmm.on_exception_or_nmi`);
* CR3-load and CR3-store exiting: the processor's CR3 is the shadow's root;
* INVLPG exiting: a TLB is what the shadow is to the guest, and the VMM has to invalidate it;
* CR0.PG, CR0.WP, CR4.PSE, CR4.PAE and CR4.PGE are the VMM's by the guest/host masks: they say how the guest's tables are read.

The rest is what each technique of this kind sets: external-interrupt exiting, because interrupts are the host's; HLT exiting;
unconditional I/O exiting, and no MSR bitmaps. CR0.PE and CR0.NE are the VMM's because VMX demands that they be 1. #MF is
seen, because a guest with CR0.NE clear is told of it by IRQ 13.

What it costs is what VT-x charges for an exit, and it charges more than ring 0 of software does: a trap of trap-and-emulate is
an interrupt gate and an IRET, an exit of the first generation saves and loads a whole processor, and without VPIDs it leaves
every TLB empty. System calls cost nothing any more; page faults, context switches and page-table writes cost more than before.
Adams and Agesen (2006) found that a good binary translator is ahead of it.

There is no use here for CR3-target values: the value that a guest loads is never the root of its shadow.
"""

from typing import ClassVar

from x86virt.vmm import SHADOW_PATHS, Exit, HardwareVm, HardwareVmm, hardware_options, hardware_shadow_options

PAGE_FAULT, X87_ERROR = 14, 16
NUMBER_OF_GUEST = 1  # its VPID


class VtxShadow(HardwareVmm):
    """Shadow page tables under a guest that runs in its own rings."""

    name = "vtx-shadow"
    processor = "vtx"
    memory = "shadow"
    options = (*hardware_options(), *hardware_shadow_options())
    paths: ClassVar = (*HardwareVmm.paths, *SHADOW_PATHS)
    jitted: ClassVar = {
        **HardwareVmm.jitted,
        "exception_or_nmi": "fill_shadow",
        "invlpg": "invalidate",
        "cr_access": "load_cr3",
    }

    def set_controls(self, vm: HardwareVm) -> None:
        """What makes the guest exit; CR3 and the bits of CR0 and CR4 are seen to wherever memory is shadowed."""
        vm.control.set_exceptions(1 << PAGE_FAULT | 1 << X87_ERROR)
        vm.control.set_control("INVLPG exiting")
        vm.control.set_control("HLT exiting")
        vm.control.set_control("unconditional I/O exiting")
        if self.option("descriptor_tables"):
            vm.control.set_control("descriptor-table exiting")
        if self.option("vpid"):
            vm.control.set_space(NUMBER_OF_GUEST)

    def on_invlpg(self, vm: HardwareVm, exit: Exit) -> None:
        """INVLPG: the shadow forgets what it has for the page."""
        vm.charge("exit_invlpg", 1)
        vm.shadow.invalidate(exit.qualification)
        vm.skip(exit)
