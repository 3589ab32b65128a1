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

Traps are all that the technique has, and what each of them means is what any VMM of the software kind does with it:
`SoftwareVmm` (x86virt/vmm/software_vmm.py) holds the hooks, one for each reason. README.md beside this file grows them from
nothing. What is left to say here is what traps do not show.

What x86 does not let the VMM see are its sensitive unprivileged instructions. They run deprivileged and answer for the
wrong machine; `known_divergences` says which, and every run lists those that it met (Robin and Irvine 2000).
"""

from x86virt.vmm import SEEN_BY_PROGRAMS, Choice, SoftwareVmm, shadow_options

KERNEL = "guest_kernel"
# What CS or SS was loaded with and no table says any more hangs on an entry of the VMM's own, which its ring must be able to
# load: so can the guest, by a selector that its own processor would refuse. It finds there what it has already.
SEGMENT_LOADS = (
    "mov_sw_ew", "pop_es", "pop_ss", "pop_ds", "pop_fs", "pop_gs", "les_gv_mp", "lds_gv_mp", "lss_gv_mp", "lfs_gv_mp",
    "lgs_gv_mp", "jmpf_ap", "jmpf_mp", "callf_ap", "callf_mp", "retf", "retf_iw", "iret",
)  # fmt: skip
OF_ENTRIES = frozenset((row, mode, "segment") for row in SEGMENT_LOADS for mode in (KERNEL, "guest_user"))


class TrapAndEmulate(SoftwareVmm):
    """Ring deprivileging with shadow page tables and emulated devices."""

    name = "trap-and-emulate"
    processor = "trap_and_emulate"
    options = (Choice("ring", "The ring in which the guest's kernel runs.", ("1", "3"), "1"), *shadow_options())
    known_divergences = SEEN_BY_PROGRAMS | OF_ENTRIES | {
        # The guest's kernel sees the same as a program, and its ring besides.
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
        ("callf_ap", KERNEL, "memory"),
        ("callf_mp", KERNEL, "memory"),
        ("fnstenv_m", KERNEL, "memory"),  # the pointer to the last x87 instruction holds CS
        ("fnsave_m", KERNEL, "memory"),
        ("fxsave_m", KERNEL, "memory"),
    }

    @classmethod
    def configure(cls) -> None:
        """With `ring=3` paging keeps the guest's kernel from its programs: it gets shadow tables of its own."""
        cls.kernel_ring = int(cls.option("ring"))
