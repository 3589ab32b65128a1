"""How SVM holds a guest: in any state, real-address mode and protected mode without paging among them.

Only shadow tables make the hardware's control registers others than the guest's: then CR0.PG and CR0.WP are always on, even with
CR0.PE clear (AMD publication 24593, section 15.18, paged real mode), and CR4 has the bits that go with the format of the tables.
SVM has no read shadows. While a bit differs from what the guest believes, its reads of the register exit too; and so do all its
writes of CR0, since the selective intercept compares with what the hardware has. While none differs, those writes exit alone
that change more than TS and MP.
"""

from .guest_state import CR0, CR4, GuestState, Held
from .svm_control import SvmControl


class SvmGuestState(GuestState):
    """What the guest believes, over a VMCB."""

    control: SvmControl

    def hold(self, held: Held) -> None:
        """Put the control registers into the VMCB; reads exit where they would tell the guest something else."""
        super().hold(held)
        hides_cr0 = self.own[CR0] & held.cr0_mask != held.cr0_forced & held.cr0_mask
        hides_cr4 = self.own[CR4] & held.cr4_mask != held.cr4_forced & held.cr4_mask
        for name, wanted in (("CR0_READ", hides_cr0), ("CR0_WRITE", hides_cr0), ("CR4_READ", hides_cr4)):
            if wanted != self.control.has_set(name):
                self.control.set_control(name, wanted)
