"""The guest's registers as the guest believes them to be, over a control structure that holds what the hardware needs.

The two differ where the VMM owns a bit of CR0 or CR4, and where CR3 is the VMM's: a shadow's root. `own` keeps what the
structure then cannot say. `read`, `write` and `peek` go by the keys of `GuestControl`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...core.entries import all_eflags
from ...isa.registers import CR0_PG, CR0_WP, CR4_PAE, CR4_PGE, CR4_PSE, EFER_NXE, N_SEGMENTS
from ..state import SegmentState
from .control import GuestControl

if TYPE_CHECKING:
    from ..interpreter import Interpreter

CR0, CR3, CR4 = "guest_cr0", "guest_cr3", "guest_cr4"
SHADOW_CR0 = (
    CR0_PG | CR0_WP
)  # shadow tables are always in use, and protect the VMM's frames from the guest's kernel too
SHADOW_CR4 = CR4_PAE | CR4_PSE | CR4_PGE  # their format is the VMM's affair


@dataclass(frozen=True)
class Situation:
    """What decides whether the hardware can hold a guest; segments in the order of isa.registers, LDTR and TR at the end."""

    cr0: int
    efer: int
    flags: int
    dr7: int
    table_limits: tuple[int, int]
    segments: list[SegmentState]

    @classmethod
    def of(cls, interpreter: "Interpreter") -> "Situation":
        """As the interpreter has the guest."""
        cpu = interpreter.cpu
        return cls(
            int(cpu.cr0),
            int(cpu.efer),
            int(all_eflags(interpreter.processor.state)),
            int(cpu.dr[7]),
            (int(cpu.gdtr_limit), int(cpu.idtr_limit)),
            [interpreter.segment(number) for number in range(N_SEGMENTS)],
        )


@dataclass(frozen=True)
class Held:
    """How the hardware holds the guest's control registers: which bits are the VMM's, and what they are.

    `cr3`: the VMM's, None while the guest's own is used.
    """

    cr0_mask: int = 0
    cr0_forced: int = 0
    cr4_mask: int = 0
    cr4_forced: int = 0
    cr3: int | None = None


class GuestState:
    """What the guest believes, for an extension that can hold every state of a guest (SVM)."""

    held_as: ClassVar[type[Held]] = Held
    injects_in_real_mode: ClassVar[bool] = True  # an entry delivers events to a guest in real-address mode too

    def __init__(self, control: GuestControl) -> None:
        self.control = control
        self.own: dict[str, int] = {}
        self.pending: dict[str, int] = {}  # control registers that were written, until `settle`
        self.held = self.held_as()
        self.root: int | None = None  # of the shadow, where memory is shadowed
        self.root_cr4 = 0
        self.unsettled = True  # something was written that may ask for another way to hold the guest

    # -- fields ---------------------------------------------------------------------------------------------------

    def read(self, key: str) -> int:
        """What the guest has in a field, read from the control structure if it says so."""
        return self.view(key, self.control.read)

    def peek(self, key: str) -> int:
        """The same at no cost, for those that look on."""
        return self.view(key, self.control.peek)

    def view(self, key: str, read: Callable[[str], int]) -> int:
        """What the guest believes of a field; `read` tells the hardware's value."""
        if key in self.pending:
            return self.pending[key]
        if key in self.hidden:
            return self.own[key]
        value = read(key)
        if key not in self.masks:
            return value
        mask = self.masks[key]
        return value & ~mask | self.own.get(key, 0) & mask

    @property
    def held(self) -> Held:
        """How the hardware holds the guest."""
        return self._held

    @held.setter
    def held(self, held: Held) -> None:
        self._held = held
        self.hidden, self.masks = self.hidden_by(held), self.masks_of(held)

    def hidden_by(self, held: Held) -> frozenset[str]:
        """The fields in which the hardware holds something else than the guest believes."""
        return frozenset() if held.cr3 is None else frozenset((CR3,))

    def masks_of(self, held: Held) -> dict[str, int]:
        """The bits of fields in which it does."""
        return {CR0: held.cr0_mask, CR4: held.cr4_mask}

    def write(self, key: str, value: int) -> None:
        """Give the guest a value in a field; the control registers reach the structure in `settle`."""
        if key in (CR0, CR3, CR4):
            self.pending[key] = value
            self.unsettled = True
        elif key in self.hidden:
            self.own[key] = value
        else:
            self.control.write(key, value)

    # -- control registers ----------------------------------------------------------------------------------------

    def shadow_root(self, root: int, cr4: int) -> None:
        """The guest walks shadow tables: their root for CR3, and of CR4 the bits PAE, PSE and PGE that go with their format."""
        if (root, cr4 & SHADOW_CR4) != (self.root, self.root_cr4):
            self.root, self.root_cr4 = root, cr4 & SHADOW_CR4
            self.unsettled = True

    def accepts(self, situation: Situation) -> bool:
        """Whether the hardware can hold a guest that is in the interpreter's hands. Shadow tables know nothing of NX."""
        return self.root is None or not situation.efer & EFER_NXE

    def choose(self) -> Held | None:
        """How the hardware is to hold the guest as it now stands; None: it cannot."""
        if self.root is None:
            return Held()
        return Held(SHADOW_CR0, SHADOW_CR0, SHADOW_CR4, self.root_cr4, self.root)

    def settle(self) -> bool:
        """Make the structure hold the guest as it stands, before an entry; False: the hardware cannot run it in this state."""
        if not self.unsettled:
            return True
        held = self.choose()
        if held is None:
            return False
        self.hold(held)
        self.unsettled = False
        return True

    def hold(self, held: Held) -> None:
        """Put the control registers into the structure another way, or anew."""
        believed = {key: self.peek(key) for key in (CR0, CR3, CR4)}
        self.held = held
        self.own.update(believed)
        self.pending.clear()
        self.control.own_bits(held.cr0_mask, held.cr4_mask)
        self.put(CR0, believed[CR0] & ~held.cr0_mask | held.cr0_forced)
        self.put(CR4, believed[CR4] & ~held.cr4_mask | held.cr4_forced)
        self.put(CR3, believed[CR3] if held.cr3 is None else held.cr3)

    def put(self, key: str, value: int) -> None:
        """Write a field of the structure unless it has that value."""
        if self.control.stored(key) != value:
            self.control.write(key, value)

    # -- saved machines ---------------------------------------------------------------------------------------------

    def save(self) -> dict[str, Any]:
        """What is kept here, as JSON has it."""
        return {
            "own": dict(self.own), "pending": dict(self.pending), "held": asdict(self.held),
            "root": self.root, "root_cr4": self.root_cr4, "unsettled": self.unsettled,
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `save` gave. Raises KeyError, TypeError or ValueError for anything else."""
        self.own, self.pending = registers(state["own"]), registers(state["pending"])
        held = dict(state["held"])
        parts: dict[str, Any] = {"form": str(held.pop("form"))} if "form" in held else {}
        cr3 = held.pop("cr3")
        self.held = self.held_as(cr3=None if cr3 is None else register(cr3), **registers(held), **parts)
        self.root = None if state["root"] is None else register(state["root"])
        self.root_cr4 = register(state["root_cr4"])
        self.unsettled = bool(state["unsettled"])


def register(value: Any) -> int:
    """A number that a register holds. Raises ValueError or TypeError."""
    if not 0 <= int(value) < 1 << 64:
        raise ValueError(f"{value} is no register's value")
    return int(value)


def registers(values: dict[str, Any]) -> dict[str, int]:
    """Such numbers by key."""
    return {str(key): register(value) for key, value in values.items()}
