"""From an address in the translation cache back to the guest: which instruction, and where its registers are.

Every injected sequence has one instruction that commits it. Before that one, it has touched nothing of the guest's but
registers that it saved in the record; behind it, nothing is left but to bring registers back. So each instruction in the
cache has a `Recovery` that says what the guest's state is while the processor stands in front of it, and faults and
interrupts reach the guest between two of its instructions wherever they arrive.
"""

from dataclasses import dataclass, replace

from ...isa.registers import EAX, ECX, EDX

SLOT_OF_REGISTER = {EAX: "saved_eax", ECX: "saved_ecx", EDX: "saved_edx"}


@dataclass(frozen=True)
class Recovery:
    """The guest's state while the processor stands in front of one instruction of the cache.

    `eip` is None where the record's `target` holds it. `spilled` are registers whose value is in the record; `release`
    is what must still be added to ESP. `held` says that an STI has just completed, `unstored` that ECX is the new virtual
    interrupt flag. `unpushed`: a flags image lies on the guest's stack that does not show the virtual flags yet; whoever
    recovers writes the right one and counts the instruction, behind which `eip` is.

    In the common code of callouts, `called` says that the state is that of the site in the record, `returning` that EIP is
    in the record's `resume_eip`, and `own_stack` that SS and ESP are the VMM's, the guest's in the record. A `direct` callout
    returns where the record's `jump` leads; `unflagged` says that the guest's arithmetic flags are in the record.
    """

    eip: int | None
    spilled: frozenset[int] = frozenset()
    release: int = 0
    held: bool = False
    unstored: bool = False
    unpushed: bool = False
    called: bool = False
    returning: bool = False
    own_stack: bool = False
    direct: bool = False
    unflagged: bool = False

    def spill(self, register: int) -> "Recovery":
        """The same with one more register in the record."""
        return replace(self, spilled=self.spilled | {register})

    def restored(self, register: int) -> "Recovery":
        """The same with a register back in its place."""
        return replace(self, spilled=self.spilled - {register})
