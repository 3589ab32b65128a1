"""What a machine calls under a software VMM: jitted exits, and what Python keeps of the state that they work on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...isa.vectors import PF
from ...records import record_array
from .. import layout
from ..descriptor import dpl_of
from ..exits import REASON_OF_VECTOR, Exit, GuestFault, NotDirect
from ..guest_events import DR7_ENABLES
from ..shadow_descriptors import key_of
from ..translation import Translator
from ..translation.common import COME_BACK, COME_BACK_DIRECTLY
from ..translation.index import INDEX, SITE_KINDS
from ..translation.sequences import INNERMOST_RING, Context
from ..vcpu import Frame
from .base import ExitsInCode
from .loop import run_exits
from .records import (
    ACTIONS,
    ATTENTION,
    EXITS,
    FAULT_BEGUN,
    FIRST_SITE,
    GUEST_GS,
    MAX_HIDDEN,
    MAX_PAGES,
    N_ENTRIES,
    NOTHING_HELD,
    OWN_GS,
    PATH_EVENTS,
    PATHS,
    RESUME,
    SYSTEM_CALL,
)

if TYPE_CHECKING:
    from ...machine import Machine
    from ..vm import SoftwareVm

USER = 3
NO_CONTEXT = -1


def reason_of_entry(entry: int) -> str:
    """The reason to exit that an entry of the VMM stands for."""
    if entry == SYSTEM_CALL:
        return "system_call"
    if entry >= FIRST_SITE:
        return SITE_KINDS[entry - FIRST_SITE]
    if entry == layout.HOST_TIMER_VECTOR:
        return "host_timer"
    return REASON_OF_VECTOR.get(entry, "software_interrupt")


class JittedExits(ExitsInCode):
    """The jitted exits of a software VMM."""

    paths = PATHS
    vm: "SoftwareVm"

    def __init__(self, machine: "Machine", vm: "SoftwareVm") -> None:
        super().__init__(machine, record_array(EXITS), run_exits)
        self.vm = vm
        for entry in range(N_ENTRIES):
            self.exits.actions[entry] = ACTIONS.index(self.declared.get(reason_of_entry(entry), ""))
        self.exits.event[:] = PATH_EVENTS
        self.indices = record_array(INDEX) if vm.translation is None else vm.translation.cache.index.records

    def take_outcome(self, outcome: int) -> bool:
        """What the exits have changed; a fault that they began, and the way back to the guest, are Python's."""
        self.copy_back()
        if outcome == FAULT_BEGUN:
            self.finish_fault()
        if outcome in (RESUME, FAULT_BEGUN):
            self.finish()
        return outcome in (RESUME, ATTENTION, FAULT_BEGUN)

    def own_records(self) -> tuple[np.ndarray, ...]:
        """Of shadow memory, of the translator's index, and the virtual devices."""
        shadow = self.vm.shadow
        return shadow.links, shadow.controls, self.indices, self.vm.boards, self.vm.devices.apics

    def is_usual(self) -> bool:
        """Whether the VMM takes no steps of its own, and its tables fit."""
        vm = self.vm
        if vm.ring != 1 or self.processor.cpu.sensitive_trap:
            return False
        if vm.crossings.own_step or vm.descriptors.table_written or not self.translator_is_usual():
            return False
        return len(self.hidden()) <= MAX_HIDDEN and len(self.table_pages()) <= MAX_PAGES

    def translator_is_usual(self) -> bool:
        """Whether a translator, if there is one, has nothing in hand that Python alone knows."""
        translator = self.vm.translation
        if translator is None:
            return True
        waits = translator.passed or translator.overlay or translator.entered or translator.pages.written
        is_kernels = translator.ring == INNERMOST_RING  # the ring in which translated code can run
        return is_kernels and not waits and not translator.trap_flag and not int(self.vm.vcpu.dr[7]) & DR7_ENABLES

    def table_pages(self) -> list[int]:
        """The linear pages in which descriptors lie that are shadowed (ShadowDescriptors.check_table_pages)."""
        descriptors = self.vm.descriptors
        return sorted({gla >> 12 for gla in map(descriptors.address_of, descriptors.originals) if gla is not None})

    def hidden(self) -> list[int]:
        """Where the high doublewords are of the shadows that are present at CPL 3 and not at CPL 0."""
        shown = self.vm.descriptors.shown.items()
        tables = (layout.GDT, layout.LDT)
        return [tables[key >> 2 & 1] + (key & 0xFFF8) + 4 for key, at in shown if at[0] != at[3]]

    def copy_prices(self, prices: Mapping[str, tuple[int, int]]) -> bool:
        """All paths, and the price of each by the item alone."""
        if any(path not in prices for path in PATHS):
            return False
        self.exits.base_price[:], self.exits.item_price[:] = zip(*(prices[path] for path in PATHS), strict=True)
        self.exits.price[:] = self.exits.base_price + self.exits.item_price
        return True

    def copy_in(self) -> None:
        """What the exits depend on, from where Python keeps it."""
        exits, vm = self.exits, self.vm
        exits.guest_frames, exits.retired_limit = len(vm.p2m), self.machine.retired_limit
        hidden = self.hidden()
        pages = self.table_pages()
        exits.page_count = len(pages)
        exits.pages[: len(pages)] = pages
        exits.hidden_count = len(hidden)
        exits.hidden[: len(hidden)] = hidden
        exits.held["selector"] = NOTHING_HELD
        for segment, (state, hardware) in vm.segments.held.items():
            if dpl_of(state.access) < USER:
                exits.held[segment] = (hardware.selector, hardware.base, hardware.limit, hardware.access)
        exits.shadow_count, exits.own_resume = vm.vcpu.shadow_count, int(vm.vcpu.own_resume)
        exits.resumed_at, exits.resumed_with_flag = vm.crossings.resumed_at, int(vm.crossings.resumed_with_flag)
        frame = vm.vcpu.frame
        exits.eip, exits.cs, exits.eflags, exits.esp, exits.ss = frame.eip, frame.cs, frame.eflags, frame.esp, frame.ss
        exits.order_count = 0
        if vm.translation is not None:
            self.copy_translator(vm.translation)

    def copy_translator(self, translator: Translator) -> None:
        """What the exits depend on of the translator."""
        exits = self.exits
        exits.translates, exits.chaining, exits.translate_user = 1, int(translator.chaining), int(translator.translate_user)
        exits.restore_after = translator.adaptation.restore_after
        exits.inside, exits.serving, exits.guest_cs = int(translator.inside), int(translator.serving), translator.cs
        exits.gs[GUEST_GS], exits.gs[OWN_GS] = translator.gs, translator.own_gs
        exits.interrupt_waits = int(self.vm.interrupts.waits)
        units = translator.cache.units
        exits.come_back, exits.come_back_directly = units[COME_BACK].address, units[COME_BACK_DIRECTLY].address
        exits.direct = int(translator.direct)
        translator.cache.index.follow_pages(translator.cache.by_page)
        exits.context_cs = translator.cs
        exits.context = NO_CONTEXT
        context = translator.context_entered
        if context is not None and self.holds(translator.cs, context):
            exits.context_iopl, exits.context = context.iopl, translator.cache.index.number_of(context)

    def holds(self, selector: int, context: Context) -> bool:
        """Whether the guest's code segment behind a selector in the frame is still that of a context."""
        descriptors = self.vm.descriptors
        state = descriptors.detached.get(selector & 0xFFF8)
        if state is None:
            original = descriptors.originals.get(key_of(selector))
            state = None if original is None else original.loaded(selector)
        if state is None or key_of(state.selector) != key_of(context.selector):
            return False
        return context == Context(context.selector, state.base, state.limit, context.iopl)

    def copy_back(self) -> None:
        """What the exits have changed, to where Python keeps it."""
        exits, vm = self.exits, self.vm
        vm.vcpu.shadow_count, vm.vcpu.own_resume = int(exits.shadow_count), bool(exits.own_resume)
        vm.crossings.resumed_at, vm.crossings.resumed_with_flag = int(exits.resumed_at), bool(exits.resumed_with_flag)
        vm.vcpu.frame = Frame(int(exits.eip), int(exits.cs), int(exits.eflags), int(exits.esp), int(exits.ss))
        translator = vm.translation
        if translator is not None:
            translator.inside, translator.serving = bool(exits.inside), bool(exits.serving)
            translator.direct = bool(exits.direct)
            translator.cs, vm.interrupts.waits = int(exits.guest_cs), bool(exits.interrupt_waits)
            translator.gs, translator.own_gs = exits.gs[GUEST_GS].copy(), exits.gs[OWN_GS].copy()
        for entry in exits.order[: exits.order_count].tolist():
            self.count_exits(entry, int(exits.count[entry]), int(exits.ticks[entry]))
            exits.count[entry] = exits.ticks[entry] = 0

    def count_exits(self, entry: int, count: int, ticks: int) -> None:
        """Add to the exits by reason."""
        self.vm.count_exits(reason_of_entry(entry), count, (ticks, 0, 0))
        self.handled += count

    def finish_fault(self) -> None:
        """A page fault was charged and looked up; what is left of it (the strategy's hook)."""
        exits, vm = self.exits, self.vm
        gla = int(self.processor.cpu.cr2)
        fault = Exit("page_fault", PF, int(exits.error), gla, rip=vm.vcpu.frame.eip, cpl=vm.vcpu.cpl)
        try:
            self.finish_fill(fault)
        except NotDirect:
            vm.interpret_one()

    def finish_fill(self, fault: Exit) -> None:
        """The rest of a fill, and the guest's own fault if that is what it comes to. Raises NotDirect."""
        try:
            self.vm.shadow.after_walk()
            self.vm.shadow.finish_fault(fault, int(self.exits.outcome))
        except GuestFault as of_guest:
            self.vm.inject_exception(of_guest)

    def finish(self) -> None:
        """An exit was handled; Python sees to the way back (vm.handle_hook)."""
        if self.vm.board.attention:
            self.machine.on_board()
        self.vm.crossings.resume()
        self.count_exits(int(self.exits.entry), 1, int(self.processor.cpu.ticks) - int(self.exits.begun))

