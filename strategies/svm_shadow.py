"""SVM with shadow page tables: the guest has its own rings, the VMM has its page tables (2006).

AMD's first generation, and what every VMM on SVM could do before nested paging came with Barcelona. VMRUN gives the guest a
ring 0 of its own, descriptor tables and an interrupt flag; its memory the VMM shadows, as the software techniques do. The
processor walks tables that the VMM makes from the guest's, and all that changes the guest's address space must be intercepted:

* EXCP14: a page fault is the shadow's, which lacks an entry, or the guest's own, and is injected;
* reads and writes of CR3: the processor's is the shadow's root;
* INVLPG: a TLB is what the shadow is to the guest, and the VMM has to invalidate it;
* writes of CR4, and those of CR0 that change more than TS and MP (the selective write, so that CLTS costs nothing). SVM has no
  read shadows: while a bit of CR0 or CR4 is not what the guest believes it to be, all its reads and writes exit.

A shadow maps a guest without paging as well, each address to itself. SVM allows CR0.PG even with CR0.PE clear (paged real
mode), so that real-address mode runs directly too, with its own segments and interrupts; VT-x of that time had to make it
virtual-8086 mode.

Exits cost less than those of VT-x's first generation, and the guest's translations may stay in the TLBs under an address-space
identifier. Yet each new page, each switch of the address space and each write to a page table is the VMM's affair, which the
guest's own tables are not under nested paging: compare `svm-npt`.
"""

from typing import ClassVar

from x86virt.vmm import SHADOW_PATHS, Exit, HardwareVm, SvmVmm, hardware_options, hardware_shadow_options

PAGE_FAULT = 14


class SvmShadow(SvmVmm):
    """Shadow page tables under a guest that runs in its own rings."""

    name = "svm-shadow"
    memory = "shadow"
    options = (*hardware_options(), *hardware_shadow_options())
    paths: ClassVar = (*SvmVmm.paths, *SHADOW_PATHS)
    INTERCEPTS = (*SvmVmm.INTERCEPTS, "CR3_READ", "CR3_WRITE", "INVLPG")
    EXCEPTIONS = SvmVmm.EXCEPTIONS | 1 << PAGE_FAULT

    def on_invlpg(self, vm: HardwareVm, exit: Exit) -> None:
        """INVLPG: the shadow forgets what it has for the page, whose address the instruction's operand says."""
        vm.charge("exit_invlpg", 1)
        vm.shadow.invalidate(self.invalidated_address(vm, exit))
        vm.skip(exit)
