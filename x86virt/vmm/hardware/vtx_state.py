"""How VT-x without unrestricted guest holds states of a guest that VM entry does not know.

In VMX non-root operation CR0.PE and CR0.PG are 1. A guest in protected mode without paging runs on identity tables
(`IDENTITY`); one in real-address mode runs in virtual-8086 mode (`VIRTUAL_8086`), with segments that say the same there and
an IOPL below 3, so that each instruction which would tell the two apart faults, exits, and is interpreted. What can be held
neither way is the interpreter's until it can.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from ...isa.registers import (
    AR_UNUSABLE,
    CR0_CD,
    CR0_NE,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    CR4_PSE,
    CR4_PVI,
    CR4_VME,
    CR4_VMXE,
    EFLAGS_IOPL,
    EFLAGS_TF,
    EFLAGS_VM,
    N_SEGMENTS,
)
from ...isa.vectors import DF, MF
from ..state import SegmentState
from .control import SEGMENT_KEYS, TABLE_KEYS
from .guest_state import CR0, CR3, CR4, SHADOW_CR0, SHADOW_CR4, GuestState, Held, Situation, register
from .identity import IdentityTables
from .vtx import VtxControl
from .vtx_segments import (
    VIRTUAL_8086_RIGHTS,
    can_be_virtual_8086,
    fits_protected_mode,
    fits_virtual_8086_mode,
    local_table_fits,
    task_fits,
)

DIRECT, IDENTITY, VIRTUAL_8086 = "direct", "identity", "virtual_8086"  # forms in which a guest is held
FLAGS, DR7 = "guest_rflags", "guest_dr7"
OWNED_CR0, FORCED_CR0 = CR0_PE | CR0_PG | CR0_NE | CR0_CD | CR0_NW, CR0_PE | CR0_PG | CR0_NE
M32 = 0xFFFFFFFF
BREAKPOINTS = 0xFF  # of DR7, those that are enabled
N_MEMORY_SEGMENTS = 6
# What the structure says of something else while real-address mode is held as virtual-8086 mode.
HIDDEN_RIGHTS = tuple(keys[3] for keys in SEGMENT_KEYS[:N_MEMORY_SEGMENTS])
HIDDEN_SYSTEM = tuple(key for keys in SEGMENT_KEYS[N_MEMORY_SEGMENTS:] for key in keys)
HIDDEN = frozenset(HIDDEN_RIGHTS + HIDDEN_SYSTEM)
# A task-state segment too short to say anything of ports, so that their instructions fault, and no LDT.
SYSTEM_VALUES = (0, 0, 0, AR_UNUSABLE, 0, 0, 0, 0x8B)
WATCHED = frozenset((FLAGS, DR7, *TABLE_KEYS, *(key for keys in SEGMENT_KEYS for key in keys)))


def form_of(situation: Situation) -> str | None:
    """The form in which a guest can be held, None where VM entry would refuse it, or could not make real mode of it."""
    *segments, local_table, task = situation.segments
    flags = situation.flags
    if any(limit >> 16 for limit in situation.table_limits):
        return None
    if not situation.cr0 & CR0_PE:
        steps = flags & (EFLAGS_TF | EFLAGS_VM) or situation.dr7 & BREAKPOINTS
        open_to_all = flags & EFLAGS_IOPL == EFLAGS_IOPL
        plain = all(can_be_virtual_8086(segment) for segment in segments)
        return VIRTUAL_8086 if plain and not steps and not open_to_all else None
    if not local_table_fits(local_table) or not task_fits(task):
        return None
    fits = fits_virtual_8086_mode if flags & EFLAGS_VM else fits_protected_mode
    if not fits(segments):
        return None
    return DIRECT if situation.cr0 & CR0_PG else IDENTITY


@dataclass(frozen=True)
class HeldByVtx(Held):
    """The same, and the form."""

    form: str = ""


def form_held(held: Held) -> str:
    """The form."""
    assert isinstance(held, HeldByVtx)
    return held.form


class VtxGuestState(GuestState):
    """What the guest believes, over a VMCS."""

    control: VtxControl
    held_as: ClassVar[type[Held]] = HeldByVtx
    injects_in_real_mode: ClassVar[bool] = False

    def __init__(
        self, control: VtxControl, tables: IdentityTables | None, note_form: Callable[[str, str], None]
    ) -> None:
        """`tables`: None where the guest's memory is shadowed, since a shadow maps a guest without paging as well.

        `note_form` is told of each change of the form: the one before (empty at first) and the one that begins.
        """
        super().__init__(control)
        self.tables, self.note_form = tables, note_form
        self.most_targets: int | None = None
        self.targets: list[int] = []

    @property
    def form(self) -> str:
        """How the guest is held now."""
        return form_held(self.held)

    # -- fields ---------------------------------------------------------------------------------------------------

    def hidden_by(self, held: Held) -> frozenset[str]:
        """The fields in which the hardware holds something else than the guest believes."""
        hidden = super().hidden_by(held)
        return hidden | HIDDEN if form_held(held) == VIRTUAL_8086 else hidden

    def masks_of(self, held: Held) -> dict[str, int]:
        """The bits of fields in which it does: of EFLAGS VM, of which the guest's own value is 0."""
        masks = super().masks_of(held)
        return masks | {FLAGS: EFLAGS_VM} if form_held(held) == VIRTUAL_8086 else masks

    def write(self, key: str, value: int) -> None:
        """Give the guest a value; whether it can still be held as it is, `settle` sees."""
        self.unsettled = self.unsettled or key in WATCHED
        if key == FLAGS and self.form == VIRTUAL_8086:
            value |= EFLAGS_VM
        super().write(key, value)

    def segment(self, number: int) -> SegmentState:
        """A segment register as the guest has it, at no cost: the VMM knows what it has just written."""
        stored = self.control.stored
        return SegmentState(*(self.view(key, stored) for key in SEGMENT_KEYS[number]))

    # -- forms ----------------------------------------------------------------------------------------------------

    def choose(self) -> Held | None:
        """How the hardware is to hold the guest; None where VM entry would refuse it."""
        form = self.possible_form()
        if form is None:
            return None
        cr0_mask, cr0, cr4_mask, cr4, cr3 = OWNED_CR0, FORCED_CR0, CR4_VMXE, CR4_VMXE, None
        if self.root is not None:
            cr0_mask, cr0 = cr0_mask | SHADOW_CR0, cr0 | SHADOW_CR0
            cr4_mask, cr4, cr3 = cr4_mask | SHADOW_CR4, cr4 | self.root_cr4, self.root
        elif form != DIRECT:
            assert self.tables is not None
            cr4_mask, cr4, cr3 = cr4_mask | CR4_PSE | CR4_PAE, cr4 | CR4_PSE, self.tables.cr3
        if form == VIRTUAL_8086:
            cr4_mask |= CR4_VME | CR4_PVI
        return HeldByVtx(cr0_mask, cr0, cr4_mask, cr4, cr3, form)

    def possible_form(self) -> str | None:
        """The form in which the guest can be held as it stands."""
        limits = self.peek("guest_gdtr_limit"), self.peek("guest_idtr_limit")
        segments = [self.segment(number) for number in range(N_SEGMENTS)]
        return form_of(Situation(self.peek(CR0), 0, self.peek(FLAGS), self.peek(DR7), limits, segments))

    def accepts(self, situation: Situation) -> bool:
        """Whether VM entry would accept the guest in some form."""
        return super().accepts(situation) and form_of(situation) is not None

    def hold(self, held: Held) -> None:
        """Hold the guest another way, or its control registers anew."""
        assert isinstance(held, HeldByVtx)
        before = self.form
        if before != held.form:
            self.change_form(before, held)
        super().hold(held)
        self.control.believe(self.own[CR0], self.own[CR4])
        self.control.set_control("CR3-load exiting", held.cr3 is not None or self.most_targets is not None)
        self.control.set_control("CR3-store exiting", held.cr3 is not None)
        self.control.force_exceptions(self.exceptions_to_see())
        if self.most_targets is not None:
            self.choose_targets()

    def exceptions_to_see(self) -> int:
        """All in real mode, which has no descriptor table to deliver them through. #DF, since one that arises from an injected
        fault pushes the RF which that was injected with. #MF while the guest's CR0.NE is clear, which the processor's cannot
        be: a PC is told of it by IRQ 13."""
        if self.form == VIRTUAL_8086:
            return M32
        return 1 << DF if self.own[CR0] & CR0_NE else 1 << DF | 1 << MF

    def watch_cr3(self, most_targets: int) -> None:
        """Let MOV to CR3 exit though the guest's CR3 is its own, but for the values loaded last: as many as are wanted and
        the processor supports."""
        self.most_targets = min(most_targets, self.control.most_cr3_targets)
        self.unsettled = True

    def choose_targets(self) -> None:
        """The CR3-target values; none while CR3 is the VMM's, since then every load must exit."""
        assert self.most_targets is not None
        value = self.own[CR3]
        self.targets = [value, *(other for other in self.targets if other != value)][: self.most_targets]
        self.control.set_cr3_targets(sorted(self.targets) if self.held.cr3 is None else [])

    def save(self) -> dict[str, Any]:
        """What is kept here, as JSON has it."""
        return super().save() | {"most_targets": self.most_targets, "targets": list(self.targets)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `save` gave."""
        super().restore(state)
        self.most_targets = None if state["most_targets"] is None else register(state["most_targets"])
        self.targets = [register(value) for value in state["targets"]]
        if self.form not in ("", DIRECT, IDENTITY, VIRTUAL_8086):
            raise ValueError(f"{self.form!r:.40} is no form in which a guest is held")

    def change_form(self, before: str, held: HeldByVtx) -> None:
        """Put the segments into or out of the form of virtual-8086 mode; show or hide the identity tables."""
        self.note_form(before, held.form)
        if self.tables is not None and (before in (DIRECT, "")) != (held.form == DIRECT):
            if held.form == DIRECT:
                self.tables.leave()
            else:
                self.tables.enter()
        if VIRTUAL_8086 not in (before, held.form):
            return
        believed = {key: self.peek(key) for key in HIDDEN}
        flags = self.peek(FLAGS)
        for key in (CR0, CR3, CR4):  # as they are believed in the form that ends
            self.pending.setdefault(key, self.peek(key))
        self.held = held
        if held.form == VIRTUAL_8086:
            self.own.update(believed)
            for key in HIDDEN_RIGHTS:
                self.put(key, VIRTUAL_8086_RIGHTS)
            for key, value in zip(HIDDEN_SYSTEM, SYSTEM_VALUES, strict=True):
                self.put(key, value)
            self.put(FLAGS, flags | EFLAGS_VM)
        else:
            for key, value in believed.items():
                self.put(key, value)
            self.put(FLAGS, flags)
