"""Shadow memory as the rest of the toolkit sees it: faults, changes of the address space, and traced frames."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ...isa.registers import CR4_PAE, CR4_PGE, CR4_PSE, PF_U, PF_W, PTE_P, PTE_PS, PTE_RW, PTE_US
from ...isa.vectors import GP, PF
from ...records import record_array
from .. import layout
from ..exits import Exit, GuestFault, IsolationViolation, Unsupported
from ..region import region_address
from . import calls
from .pool import REGION
from .records import (
    CODE,
    CONTROL,
    DESCRIPTORS,
    DROP,
    ENTRIES,
    FILLED,
    FLUSH_EVERYTHING,
    FLUSH_NOTHING,
    FREE,
    HOLE,
    IDENTITY_ROOT,
    KINDS,
    LINKS,
    LOOSE,
    LOOSE_ROOT,
    MAX_FRAMES,
    MODE_PAE,
    MOST_FLUSH_PAGES,
    NO_MEMORY,
    PAGE_TABLE,
    POLICIES,
    QUARTERS,
    READ_ONLY,
    REFUSED,
    ROLE_QUARTER_SHIFT,
    ROOT,
    TABLE,
    TRACED,
    VMM_SLOT,
    VMM_SLOT_PAE,
)

if TYPE_CHECKING:
    from ..hardware.control import GuestControl
    from ..hardware.guest_state import GuestState
    from ..virtual_machine import VirtualMachine

PAGE = 4096
REGION_FLAGS = 0x163  # of the VMM's own pages: present, writable, accessed, dirty, global
HARDWARE = ("vtx", "svm")  # processors of strategies whose guest has the whole linear space
Listener = Callable[[int, int, int], None]


class ShadowMemory:
    """The shadow page tables of one virtual machine, and the guest frames that are traced."""

    PAGE_TABLE, DESCRIPTORS, CODE = PAGE_TABLE, DESCRIPTORS, CODE

    def __init__(self, vm: "VirtualMachine", policy: str, budget: int, most_writes: int) -> None:
        self.vm = vm
        self.state = vm.processor.state
        self.controls = record_array(CONTROL)
        self.control = self.controls[0]
        self.links = record_array(LINKS)
        self.notices = 0  # writes to traced frames that were made known
        self.watched: tuple[int, np.ndarray] | None = None  # a frame that the interpreter is writing, and what it held
        self.listeners: dict[int, Listener] = {}  # kind -> called with (frame, first byte, count) after a write
        self.control.policy = POLICIES.index(policy)
        self.control.budget = budget // PAGE
        self.control.most_writes = most_writes
        self.control.frames = len(vm.p2m)
        self.control.shares_ring = int(vm.ring == 3)
        self.control.hardware = int(vm.machine.strategy.processor in HARDWARE)
        self.control.region = self.region_entry(vm.machine.strategy.processor)
        self.control.cr3 = layout.SHADOW
        self.install_region()
        self.control.pages[0].kind = LOOSE_ROOT
        self.write_entry(layout.SHADOW + 4 * VMM_SLOT, int(self.control.region))
        vm.vcpu.shadow_next = 1

    @property
    def memory(self) -> np.ndarray:
        """The machine's memory, as jitted code takes it."""
        return self.vm.processor.memory

    @property
    def root(self) -> int:
        """The machine address of the directory that the processor walks."""
        return layout.SHADOW + PAGE * int(self.control.root)

    @staticmethod
    def region_entry(processor: str) -> int:
        """What stands in a directory for the VMM's region; of a translator's, some is within reach of ring 3 (`share`)."""
        if processor in HARDWARE:
            return 0
        return REGION | PTE_US if processor == "binary_translation" else REGION

    def install_region(self) -> None:
        """Map the VMM's own region: global, supervisor, by 4 KB pages, in the tables of both formats."""
        entries = region_address(0) + PAGE * np.arange(ENTRIES) | REGION_FLAGS
        self.vm.processor.write_physical(layout.REGION_TABLE, entries.astype("<u4").tobytes())
        self.vm.processor.write_physical(layout.REGION_TABLES_PAE, entries.astype("<u8").tobytes())

    def write_region_entry(self, page: int, flags: int) -> None:
        """Say what may be done with a page of the region, in the tables of both formats."""
        self.write_entry(layout.REGION_TABLE + 4 * page, region_address(page << 12) | flags)
        self.write_entry(layout.REGION_TABLES_PAE + 8 * page, region_address(page << 12) | flags)

    def share(self, first: int, count: int, writable: bool) -> None:
        """Let code in ring 3 reach a piece of the VMM's region, where its segments let it; others it only reads."""
        flags = REGION_FLAGS | PTE_US if writable else (REGION_FLAGS | PTE_US) & ~PTE_RW
        for page in range(first >> 12, first + count + 0xFFF >> 12):
            self.write_region_entry(page, flags)

    def read_entry(self, address: int) -> int:
        """An entry of a shadow table."""
        return int.from_bytes(self.vm.processor.read_physical(address, 4), "little")

    def write_entry(self, address: int, value: int) -> None:
        """Write an entry of a shadow table, for what is none of the guest's mappings."""
        self.vm.processor.write_physical(address, value.to_bytes(4, "little"))

    # -- the p2m ------------------------------------------------------------------------------------------------------

    def install_p2m(self) -> None:
        """Lay the p2m down where the shadow's fills read it."""
        self.vm.write_region(layout.P2M, self.vm.p2m.astype("<u4").tobytes())

    def set_frame(self, frame: int, machine_frame: int | None, writable: bool = True) -> None:
        """What is behind a guest frame from now on; `forget_frames` must follow before the guest goes on."""
        entry = NO_MEMORY if machine_frame is None else machine_frame | (0 if writable else READ_ONLY)
        self.vm.write_region(layout.P2M + 4 * frame, entry.to_bytes(4, "little"))

    def forget_frames(self) -> None:
        """Other memory is behind some guest frames: nothing of the shadow is of use. A change of space has to follow."""
        if not self.is_loose:
            self.vm.charge("shadow_flush", 1)
        calls.shadow_forget_frames(self.state, self.memory, self.controls, self.links)

    # -- faults and walks -----------------------------------------------------------------------------------------------

    def walk(self, gla: int, write: bool, user: bool, mark: bool) -> None:
        """Walk the guest's tables; what was found is in `control`. Raises GuestFault."""
        outcome = calls.guest_walk(
            self.state, self.memory, self.controls, self.links, gla, int(write), int(user), int(mark)
        )
        self.after_walk()
        if outcome == REFUSED:
            raise GuestFault(PF, int(self.control.error), gla)

    def after_walk(self) -> None:
        """What a walk may have met: a table that is not the guest's, or one in a frame that is traced for another reason."""
        control = self.control
        if control.violation:
            address, control.violation = int(control.violation) - 1, 0
            raise IsolationViolation(
                f"the VMM's access to the guest's page tables reaches machine address {address:#x}, "
                f"which is not the guest's, at eip {self.vm.vcpu.frame.eip:#x}"
            )
        if control.touched:
            frame, control.touched = int(control.touched) - 1, 0
            self.notify(frame, 0, PAGE)

    def load_pointers(self, cr3: int) -> None:
        """Load what PAE paging loads with CR3. Raises GuestFault with all as before."""
        loaded = calls.guest_pointers(self.state, self.memory, self.controls, cr3)
        self.after_walk()
        if not loaded:
            raise GuestFault(GP, 0)

    @property
    def pointers(self) -> np.ndarray:
        """The four entries that it loaded."""
        return np.array(self.vm.vcpu.record["pdpte"]).view("<u8").astype(np.int64)

    @pointers.setter
    def pointers(self, entries: np.ndarray) -> None:
        self.vm.vcpu.record["pdpte"][:] = np.array(entries, dtype="<u8").view("<u4")

    def fault(self, exit: Exit) -> bool:
        """A page fault of the processor: the guest's own (GuestFault), a missing entry, or a write to a traced frame.

        Whether the entry is there now, so that the guest can make the access again; else it was made for it.
        """
        self.begin_fault()
        return self.end_fault(exit, None)

    def begin_fault(self) -> None:
        """Charge a fill: the walk is the larger part of it, also where the guest's tables refuse."""
        self.vm.charge("shadow_fill", 1)

    def end_fault(self, exit: Exit, outcome: int | None) -> bool:
        """The rest of `fault`; `outcome`: what the fill has come to, if it was made."""
        if outcome is None:
            outcome = self.fill(exit.gla, *self.access(exit))
        else:
            self.after_walk()
        return self.finish_fault(exit, outcome)

    def access(self, exit: Exit) -> tuple[int, int]:
        """Of the access that faulted: whether it writes, and whether it was the user's.

        A hardware guest's processor reaches for its descriptor tables and the inner stacks itself, as the supervisor.
        """
        if self.control.hardware:
            return int(exit.error & PF_W != 0), int(exit.error & PF_U != 0)
        return int(exit.qualification & PF_W != 0), int(self.vm.vcpu.cpl == 3)

    def finish_fault(self, exit: Exit, outcome: int) -> bool:
        """What a fill has not done for a page fault; whether the guest can make the access again."""
        write, user = self.access(exit)
        frame = int(self.control.gpa) >> 12
        if outcome == TRACED and self.let_out_of_sync(frame):
            outcome = self.fill(exit.gla, write, user)
        self.charge_work()
        if outcome == TRACED:
            if self.vm.translation is not None:
                self.vm.translation.note_traced_fault()
            with self.watching(frame):
                self.vm.simulate_write()
        if outcome == REFUSED:
            raise GuestFault(PF, int(self.control.error), exit.gla)
        if outcome == HOLE:
            self.vm.on_physical_hole(exit, int(self.control.gpa), bool(write))
        return outcome == FILLED

    def fill(self, gla: int, write: int, user: int) -> int:
        """Map the page of one access; how that ended (records.FILLED ...)."""
        outcome = int(calls.shadow_fill(self.state, self.memory, self.controls, self.links, gla, write, user))
        self.after_walk()
        return outcome

    def charge_work(self) -> None:
        """The time for shadow tables that were allocated, and entries that were compared, since the last time."""
        control, charge = self.control, self.vm.charge
        if control.tables_made:
            charge("shadow_table", int(control.tables_made))
        if control.scans:
            charge("shadow_sync", int(control.scanned))
            for _ in range(int(control.scans) - 1):
                charge("shadow_sync", 0)
        if control.checked:
            charge("shadow_check", int(control.checked))
        self.forget_work()

    def forget_work(self) -> None:
        """Take notice of it without its time."""
        self.control.tables_made = self.control.scans = self.control.scanned = self.control.checked = 0

    # -- the address space --------------------------------------------------------------------------------------------

    def change_space(self) -> None:
        """The guest's CR3, or the mode of its paging, may have changed."""
        self.vm.charge("shadow_flush" if self.is_loose else "shadow_switch", 1)
        calls.shadow_change_space(self.state, self.memory, self.controls, self.links)
        self.charge_work()

    # -- a hardware guest, whose processor takes all this at the next VM entry ------------------------------------------

    @property
    def format_bits(self) -> int:
        """What CR4 has to say of the tables that the processor walks: their format, and that pages may be large or global."""
        pae = self.control.policy != DROP and self.control.mode & MODE_PAE
        return CR4_PSE | CR4_PGE | (CR4_PAE if pae else 0)

    def before_entry(self, guest_state: "GuestState", structure: "GuestControl") -> None:
        """Let the control structure hold what the processor is to walk, and its TLBs nothing that is no more."""
        control = self.control
        guest_state.shadow_root(int(control.cr3), self.format_bits)
        if control.flush != FLUSH_NOTHING:
            structure.flush()
        else:
            for gla in control.flush_pages[: int(control.flush_count)]:
                structure.flush(int(gla))
        control.flush, control.flush_count = FLUSH_NOTHING, 0

    def forget_translations(self) -> None:
        """The guest has invalidated translations that may be global, nobody says which; a change of space has to follow."""
        calls.shadow_forget(self.state, self.controls, self.links)

    @property
    def is_loose(self) -> bool:
        """Whether `drop` follows the guest's tables as they are now."""
        return bool(self.control.policy == DROP)

    def invalidate(self, gla: int) -> None:
        """INVLPG of the guest."""
        calls.shadow_invalidate(self.state, self.memory, self.controls, self.links, gla)
        self.charge_work()

    # -- traced frames --------------------------------------------------------------------------------------------------

    def kinds(self, frame: int) -> int:
        """Why a guest frame is traced, as the kinds' bits."""
        return int(self.links[0]["traced"][frame]) & KINDS if frame < len(self.vm.p2m) else 0

    def is_traced(self, frame: int) -> bool:
        """Whether writes to a guest frame are seen."""
        return self.kinds(frame) != 0

    def traced_frames(self, kind: int = KINDS) -> list[int]:
        """The guest frames that are traced for one of these reasons."""
        return [int(frame) for frame in np.nonzero(self.links[0]["traced"][: len(self.vm.p2m)] & kind)[0]]

    def trace(self, frame: int, kind: int) -> None:
        """See to it that writes to a guest frame are noticed: `listeners[kind]` is called behind each."""
        calls.shadow_trace(self.state, self.memory, self.controls, self.links, frame, kind)

    def untrace(self, frame: int, kind: int) -> None:
        """One reason less to trace a guest frame."""
        calls.shadow_untrace(self.controls, self.links, frame, kind)

    def untrace_all(self, kind: int) -> None:
        """No frame is traced for this reason any more."""
        for frame in self.traced_frames(kind):
            self.untrace(frame, kind)

    def let_out_of_sync(self, frame: int) -> bool:
        """Let a page table be written from now on, if the policy does; it is compared later."""
        return bool(calls.shadow_let_out_of_sync(self.state, self.controls, self.links, frame))

    @contextmanager
    def watching(self, frame: int | None) -> Iterator[None]:
        """While a write to a frame is simulated: if it is traced and the interpreter does it, what is told is what changed."""
        if frame is not None and self.is_traced(frame):
            self.watched = frame, self.content(frame)
        try:
            yield
        finally:
            self.watched = None

    def content(self, frame: int) -> np.ndarray:
        """A copy of a guest frame."""
        address = self.vm.guest.machine_address(frame * PAGE)
        assert address is not None, "a traced frame is memory"
        return self.memory[address : address + PAGE].copy()

    def note_frame_written(self, frame: int) -> None:
        """The VMM or a device has written somewhere in a guest frame."""
        if self.watched is None or self.watched[0] != frame:
            self.note_write(frame * PAGE, PAGE)
            return
        self.notices += 1
        changed = np.nonzero(self.watched[1] != self.content(frame))[0]
        if len(changed):
            self.note_write(frame * PAGE + int(changed[0]), int(changed[-1] - changed[0]) + 1)

    def note_write(self, gpa: int, count: int) -> None:
        """The VMM, a device or a debugger has written bytes of one guest frame."""
        if gpa >> 12 < len(self.vm.p2m) and self.links[0]["traced"][gpa >> 12]:
            self.notify(gpa >> 12, gpa & 0xFFF, count)

    def notify(self, frame: int, first: int, count: int) -> None:
        """Bytes of a traced frame were written."""
        self.notices += 1
        kinds = self.kinds(frame)
        if kinds & PAGE_TABLE:
            calls.shadow_written(self.state, self.memory, self.controls, self.links, frame, first, count)
            self.charge_work()
        for kind, listener in self.listeners.items():
            if kinds & kind:
                listener(frame, first, count)

    def map_page(self, gla: int, write: bool) -> None:
        """Map a page for an access of the guest's kernel, as a fault would, without its time. Raises GuestFault."""
        outcome = self.fill(gla, int(write), 0)
        self.forget_work()
        if outcome == REFUSED:
            raise GuestFault(PF, int(self.control.error), gla)
        if outcome != FILLED:
            raise Unsupported(f"linear {gla:#x} cannot be mapped")

    def writable_pages(self) -> list[tuple[int, int]]:
        """Guest frame and linear page of one mapping of each frame that a shadow maps writable."""
        heads = self.links[0]["writable"]
        rows = []
        for frame, machine_frame in enumerate(self.vm.p2m):
            if heads[machine_frame]:
                slot = int(heads[machine_frame]) - 1
                rows.append((frame, int(self.control.pages[slot >> 10].place) << 10 | slot & ENTRIES - 1))
        return rows

    def mapped_writable(self) -> int:
        """How many machine frames some shadow maps writable."""
        return int(np.count_nonzero(self.links[0]["writable"]))

    # -- saving ---------------------------------------------------------------------------------------------------------

    def state_of(self) -> dict[str, list[int]]:
        """What is not made again from the tables and the control record."""
        return {
            "descriptor_frames": self.traced_frames(DESCRIPTORS),
            "code_frames": self.traced_frames(CODE),
            "broken": [int(place) for place in np.nonzero(self.links[0]["broken"])[0]],
        }

    def restore(self, control: np.ndarray, state: dict[str, list[int]]) -> None:
        """Put it back, once the machine's memory is. Raises KeyError, TypeError or ValueError for what was never given."""
        check_control(control, len(self.vm.p2m), self.control)
        self.controls.view(np.ndarray)[:] = control
        check_tables(self.vm, self.control)
        links = self.links[0]
        for name in LINKS.names or ():
            links[name][:] = 0
        self.controls["pages"]["parents"] = 0
        calls.shadow_links(self.memory, self.controls, self.links)
        for page in self.control.pages:
            if page.kind in (ROOT, TABLE) and not page.unsync and page.frame < len(self.vm.p2m):
                links["traced"][int(page.frame)] |= PAGE_TABLE
        for name, kind in (("descriptor_frames", DESCRIPTORS), ("code_frames", CODE)):
            for frame in state[name]:
                links["traced"][bounded(frame, len(self.vm.p2m))] |= kind
        for place in state["broken"]:
            links["broken"][bounded(place, ENTRIES)] = 1


# -- what a file may not say ---------------------------------------------------------------------------------------------


def bounded(value: int, end: int) -> int:
    """An index below `end`. Raises ValueError."""
    if not isinstance(value, int) or not 0 <= value < end:
        raise ValueError(f"{value!r:.40} is no index below {end}")
    return value


def check_control(control: np.ndarray, frames: int, mine: np.record) -> None:
    """Whether a control record is one that a shadow of this make can have. Raises ValueError."""
    row, pages = control[0], control[0]["pages"]
    limits = {"root": layout.SHADOW_PAGES, "mode": 64, "free": layout.SHADOW_PAGES + 1, "hand": layout.SHADOW_PAGES + 1}
    limits |= {"unsync_count": layout.SHADOW_PAGES + 1, "stale": 4, "globals": 2, "global_entries": 2}
    limits |= {"flush": FLUSH_EVERYTHING + 1, "flush_count": MOST_FLUSH_PAGES + 1}
    if any(not 0 <= row[name] < end for name, end in limits.items()):
        raise ValueError("the shadow's control record")
    fixed = ("policy", "budget", "frames", "shares_ring", "most_writes", "region", "hardware")
    if any(row[name] != mine[name] for name in fixed):
        raise ValueError("the shadow's policy")
    if row["cr3"] not in (layout.SHADOW, layout.SHADOW + PAGE * row["root"], layout.SHADOW_POINTERS):
        raise ValueError("what the shadow's guest walks")
    page_limits = {"kind": LOOSE + 1, "frame": 1 << 28, "role": 1 << 24, "following": layout.SHADOW_PAGES + 1}
    page_limits |= {"aliased": 2, "used": 2, "unsync": 2, "writes": 1 << 32}
    chained = np.concatenate([row["buckets"], pages["following"], [row["free"]]])
    chained = chained[chained != 0]
    bad = any(((pages[name] < 0) | (pages[name] >= end)).any() for name, end in page_limits.items())
    bad = bad or ((row["roots"] < 0) | (row["roots"] >= layout.SHADOW_PAGES)).any()
    bad = bad or ((row["buckets"] < 0) | (row["buckets"] > layout.SHADOW_PAGES)).any()
    bad = bad or ((pages["place"] < -1) | (pages["place"] >= ENTRIES)).any()
    if bad or len(set(chained.tolist())) != len(chained):  # a page in two chains could make one endless
        raise ValueError("the pages of the shadow")


def check_tables(vm: "VirtualMachine", control: np.record) -> None:
    """Whether the shadow tables in the machine's memory hold nothing but tables of the pool and frames. Raises ValueError."""
    used = int(vm.vcpu.shadow_next)
    if not 1 <= used <= control.budget or (control.pages["kind"][used:] != FREE).any():
        raise ValueError("the shadow's pages in use")
    first = layout.SHADOW
    tables = vm.processor.memory[first : first + used * PAGE].view("<u4").reshape(used, ENTRIES).astype(np.int64)
    kinds = control.pages["kind"][:used]
    directories = np.isin(kinds, (ROOT, IDENTITY_ROOT, LOOSE_ROOT))
    present = (tables & PTE_P != 0) & (kinds != FREE)[:, None]
    links = present & directories[:, None] & (tables & PTE_PS == 0)
    leaves = present & ~links & (tables & PTE_RW != 0)
    if control.region:
        roles = control.pages["role"][:used]
        last_quarters = directories & (roles & MODE_PAE != 0) & (roles >> ROLE_QUARTER_SHIFT == QUARTERS - 1)
        for kept in (links, leaves):
            kept[directories, VMM_SLOT] = False
            kept[np.ix_(last_quarters, range(VMM_SLOT_PAE, ENTRIES))] = False
    held = (tables - first >> 12)[links]
    if (held < 1).any() or (held >= used).any() or directories[held].any() or (tables[leaves] >> 12 >= MAX_FRAMES).any():
        raise ValueError("the shadow tables")
