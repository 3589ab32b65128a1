"""The binary translator: which code the guest's processor would execute next, as code of the cache.

It stands between the toolkit and the processor. At every exit from translated code it makes of the frame, the registers
and the flags what the guest's processor would hold there; when the guest is resumed, it puts the processor at the
translation of the guest's next instruction. Everything else of the VMM works on the guest's own state.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ...core.entries import all_eflags, enter_level, set_all_eflags, vmm_charge
from ...core.layout import NOTE_RETIRES, OWNER_GRANTED
from ...isa.events import (
    EVENT_ID,
    EVENT_SYS_INT_N_CPL3_TO_CPL0,
    EVENT_TRANSLATOR_LOOKUP_HIT,
)
from ...isa.registers import (
    AR_DB,
    AR_DPL,
    AR_DPL_SHIFT,
    AR_UNUSABLE,
    CS,
    ECX,
    EFLAGS_ARITHMETIC,
    EFLAGS_IF,
    EFLAGS_TF,
    ESP,
    GS,
    SS,
    TYPE_CODE,
    TYPE_CONFORMING,
)
from ...processor import FLAT_CODE, FLAT_DATA
from .. import layout
from ..descriptor import ABSENT, Descriptor, encode, is_out_of_reach, shadow_of
from ..emulate.writes import simulate_write
from ..exits import GuestFault
from ..guest_events import DR7_ENABLES
from ..region import write_gate
from ..state import SegmentState
from ..vcpu import Frame
from . import common
from .accounts import Accounts
from .adaptation import Adaptation
from .cache import TranslationCache
from .direct import make_general, saved_flags
from .emitter import M32, Site, dword
from .flag_tables import common_images, kernel_images
from .hash_table import HashTable
from .pages import CodePages
from .record import N_SELECTORS, RECORD, slot
from .recovery import SLOT_OF_REGISTER, Recovery
from .sequences import INNERMOST_RING, Choices, Context
from .stops import TranslatedStops
from .unit import Scan, Unit

if TYPE_CHECKING:
    from ..vm import SoftwareVm

CODE_DESCRIPTOR = Descriptor(0x0000FFFF, 0x00CF9B00)  # flat, of ring 0
DATA_DESCRIPTOR = Descriptor(0x0000FFFF, 0x00CF9300)
DPL_SHIFT = 13  # in a descriptor's high doubleword
RESUME_CODE = b"\x2e\x8e\x2d" + dword(slot("own_gs")) + b"\xcf"  # MOV GS, CS:[own_gs]; IRETD
CALLOUT_IMAGE = 36  # bytes on the stack of a callout: the registers, the flags above them
GRANTED = (layout.VCPU_RECORD, layout.TRANSLATOR, layout.FLAG_TABLES, layout.CALLOUT_STACK_TOP - CALLOUT_IMAGE)
DETACHED = (layout.DETACHED_CODE_SELECTOR, layout.DETACHED_STACK_SELECTOR)
MOST_BYTES = 2048  # of one unit, which is far less


class Translator:
    """The translator of one virtual machine."""

    COMMON = 8  # units that are not the guest's

    def __init__(self, vm: "SoftwareVm") -> None:
        self.vm = vm
        option = vm.machine.strategy.option
        self.cache = TranslationCache(vm, int(option("tc_size")))
        self.hash, self.outer_hash = HashTable(vm, layout.HASH), HashTable(vm, layout.OUTER_HASH)
        self.pages = CodePages(self)
        self.adaptation = Adaptation(self)
        self.stops = TranslatedStops(self)
        self.chaining, self.inline_emulation = bool(option("chaining")), bool(option("inline_emulation"))
        self.direct_callouts = bool(option("direct_callouts"))
        self.translate_user = bool(option("translate_user"))
        self.record = vm.processor.memory[layout.TRANSLATOR : layout.TRANSLATOR + RECORD.itemsize].view(RECORD)[0]
        self.ring = INNERMOST_RING  # in which translated code can run now
        self.inside = False  # the guest was last resumed in translated code
        self.cs = 0  # what the hardware would hold in CS for the guest
        self.trap_flag = False  # the guest's TF, which the processor does not have
        self.gs = vm.processor.cpu.seg[GS].copy()  # the guest's GS, while the processor holds the VMM's
        self.serving = False  # a callout that stays in ring 1 is being served
        self.direct = False  # and it is a direct one
        self.own_gs = vm.processor.cpu.seg[GS].copy()  # the VMM's GS, as such a callout found it
        self.site: tuple[Unit, Site] | None = None  # the callout that brought control here
        self.passed: tuple[int, int, int] | None = None  # behind a callout: instructions retired, EIP, where to go on
        self.step_owed = False  # the exit came behind an instruction under TF, before its trap
        self.overlay: dict[int, int] = {}  # registers that are in the record while the processor stands in a sequence
        self.entered: Unit | None = None  # where the guest goes on, its pages not yet marked accessed
        self.context_entered: Context | None = None  # in which the guest was last resumed to run on
        self.iopl = -1  # for which the kernel's table of POPF stands
        self.accounts = Accounts(vm)

    # -- the region ---------------------------------------------------------------------------------------------------------

    def build(self) -> None:
        """Fill the translator's part of the region, and let the processor know the cache."""
        vm, cpu = self.vm, self.vm.processor.cpu
        self.admit(INNERMOST_RING)
        vm.write_region(layout.RESUME_TRANSLATED, RESUME_CODE)
        self.record["callout_ss"] = layout.TRANSLATOR_DATA_SELECTOR | INNERMOST_RING
        self.record["callout_esp"] = layout.VMM_BASE + layout.CALLOUT_STACK_TOP
        cpu.hook_level = INNERMOST_RING
        self.lay_common_code()
        self.hash.clear()
        self.outer_hash.clear()
        self.vm.write_region(layout.FLAG_TABLES + 256, common_images())
        cpu.unit_first, cpu.unit_last = layout.CACHE, layout.CACHE + self.cache.room - 1
        cpu.unit_selector = layout.TRANSLATED_CODE_SELECTOR
        cpu.unit_notes = layout.CACHE_NOTES
        cpu.unit_events[common.LOOKUP_HIT] = EVENT_TRANSLATOR_LOOKUP_HIT
        self.grant()

    def grant(self) -> None:
        """Translated code may be fetched, and reaches the VMM's records by the instructions that the translator notes.

        In ring 3 these are user pages: what keeps a program from them is that its segments end below. What only the VMM
        writes is read-only there, and in ring 1 too.
        """
        owners = self.vm.processor.owners
        read_only = (layout.CACHE, self.cache.room), (layout.HASH, layout.HASH_BYTES), (layout.OUTER_HASH, layout.HASH_BYTES)
        for first, count in (*read_only, *((at, 1) for at in GRANTED)):
            owners[first >> 12 : first + count + 0xFFF >> 12] = OWNER_GRANTED
        for first, count in (*read_only, (layout.FLAG_TABLES, 1)):
            self.vm.shadow.share(first, count, False)
        self.vm.shadow.share(layout.TRANSLATOR, 1, True)

    def lay_common_code(self) -> None:
        """What all units share, as the first units of an empty cache."""
        look_ups = [partial(common.look_up, table=layout.VMM_BASE + place) for place in (layout.HASH, layout.OUTER_HASH)]
        direct = [partial(common.call_directly, entry=entry) for entry in layout.DIRECT_ENTRIES]
        makers: list[Callable[[int], Unit]] = [look_ups[0], common.begin, common.call, common.come_back, look_ups[1]]
        makers += [*direct, common.come_back_directly]
        for make in makers:
            self.cache.add(make(self.cache.next_address))

    def admit(self, ring: int) -> None:
        """Let translated code run in a ring: it can load the segments of the translator's, and call out."""
        vm = self.vm
        for selector, descriptor in (
            (layout.TRANSLATED_CODE_SELECTOR, CODE_DESCRIPTOR),
            (layout.TRANSLATOR_DATA_SELECTOR, DATA_DESCRIPTOR),
        ):
            vm.descriptors.write(selector, Descriptor(descriptor.low, descriptor.high | ring << DPL_SHIFT))
        vm.descriptors.write(layout.GUEST_GS_SELECTOR, ABSENT)
        write_gate(vm, layout.CALLOUT_VECTOR, ring)
        self.record["own_gs"] = layout.TRANSLATOR_DATA_SELECTOR | ring
        self.ring = ring

    def change_ring(self, ring: int) -> None:
        """The guest goes on in code that belongs into a ring; what runs directly must find all this closed to it."""
        if ring != self.ring:
            self.vm.charge("descriptor_shadow", 1)
            self.admit(ring)

    @property
    def choices(self) -> Choices:
        """What sequences depend on besides the guest's code and mode."""
        lookup, _, call, _, outer_lookup, port, store, _ = (unit.address for unit in self.cache.units[: self.COMMON])
        return Choices(self.inline_emulation, lookup, outer_lookup, call, self.direct_callouts, port, store)

    def count(self, event: str, number: int = 1) -> None:
        """Count an event of the translator; one that has a price is charged."""
        event_id = EVENT_ID[f"translator.{event}"]
        vmm_charge(self.vm.processor.state, event_id, number, number * int(self.vm.processor.cpu.price[event_id]))

    # -- from the cache to the guest ------------------------------------------------------------------------------------------

    def runs_inside(self, frame: Frame) -> bool:
        """Whether a frame is that of translated code."""
        return frame.cs & ~3 == layout.TRANSLATED_CODE_SELECTOR

    def leave_in_ring(self) -> tuple[Frame, Site]:
        """At an exit that stays in ring 1: the guest's frame, and the callout's site."""
        cpu, record = self.vm.processor.cpu, self.record
        unit = self.cache.unit_at(int(record["site"]))
        self.site = unit, unit.sites[int(record["site"]) - unit.address]
        flags = int(all_eflags(self.vm.processor.state))
        code = layout.TRANSLATED_CODE_SELECTOR | INNERMOST_RING
        frame = Frame(0, code, flags, int(record["guest_esp"]), int(record["guest_ss"]))
        self.view(frame, self.site[1].recovery)
        self.own_gs = cpu.seg[GS].copy()
        cpu.seg[GS] = self.gs
        self.inside, self.serving, self.direct = False, True, self.site[1].direct
        if self.direct:  # it has what a general one must look up, but for its registers
            for register, value in self.overlay.items():
                cpu.gpr[register] = value
            self.overlay = {}
        else:
            self.vm.charge("callout", 1)
        return frame, self.site[1]

    def come_back(self, image: Frame) -> None:
        """Return from such a callout into the cache, by the code that does it."""
        vm, cpu, record = self.vm, self.vm.processor.cpu, self.record
        record["guest_esp"], record["guest_ss"], record["jump"] = image.esp, image.ss, image.eip
        record["resume_eip"] = vm.vcpu.frame.eip
        place = layout.CALLOUT_STACK_TOP - CALLOUT_IMAGE
        registers = b"".join(dword(vm.register(number)) for number in reversed(range(8)))
        vm.write_region(place, registers + dword(image.eflags))
        cpu.gpr[ESP] = layout.VMM_BASE + place
        cpu.rip = self.cache.units[common.COME_BACK].address
        set_all_eflags(vm.processor.state, image.eflags)
        cpu.seg[GS] = self.own_gs
        self.serving = False

    def leave_ring(self) -> None:
        """Serving a callout in ring 1, the VMM needs ring 0 for the way on: a software interrupt of its own takes it there."""
        if not self.serving:
            return
        make_general(self)
        vm = self.vm
        self.serving = False
        vm.charge("leave_ring", 1)
        vmm_charge(vm.processor.state, EVENT_SYS_INT_N_CPL3_TO_CPL0, 1, int(vm.processor.cpu.price[EVENT_SYS_INT_N_CPL3_TO_CPL0]))
        vm.processor.set_segment(CS, layout.VMM_CODE_SELECTOR, 0, M32, FLAT_CODE)
        vm.processor.set_segment(SS, layout.VMM_DATA_SELECTOR, 0, M32, FLAT_DATA)
        enter_level(vm.processor.state, 0)

    def leave(self, frame: Frame, vector: int) -> Site | None:
        """At an exit from translated code: make the frame and the registers the guest's. Returns the callout's site."""
        cpu = self.vm.processor.cpu
        self.accounts.leave_program()
        self.site = None
        self.step_owed = vector != layout.CALLOUT_VECTOR and self.has_stepped(frame.eip)
        if vector == layout.CALLOUT_VECTOR:
            self.site = self.cache.site_before(frame.eip)
            recovery = self.site[1].recovery
            self.vm.charge("callout", 1)
        else:
            unit = self.cache.unit_at(frame.eip)
            recovery = unit.recovery_at(frame.eip - unit.address)
            self.vm.charge("recover", 1)
        self.view(frame, recovery)
        for register, value in self.overlay.items():
            cpu.gpr[register] = value
        self.overlay = {}
        cpu.seg[GS] = self.gs
        self.inside = False
        if recovery.unpushed:
            self.finish_pushf(frame)
        return self.site[1] if self.site is not None else None

    def owes_step_trap(self) -> bool:
        """Whether the processor stands behind a guest instruction that ran under TF, before the callout for its trap."""
        place = int(self.vm.processor.cpu.rip)
        return self.inside and self.cache.holds(place) and self.has_stepped(place)

    def has_stepped(self, place: int) -> bool:
        """Whether the instruction of a unit that was made for the guest's TF is complete where the processor stands in it."""
        unit = self.cache.unit_at(place)
        return unit.context.trap_flag and any(note & NOTE_RETIRES for note in unit.notes[: place - unit.address])

    def finish_step(self) -> None:
        """If an interrupt of the machine's came between an instruction under TF and its trap, the guest gets that now."""
        if self.step_owed:
            self.vm.events.single_step_trap()

    def look(self, frame: Frame) -> None:
        """The processor has stopped in translated code: make the frame the guest's, and change nothing else."""
        unit = self.cache.unit_at(frame.eip)
        offset = frame.eip - unit.address
        recovery = unit.recovery_at(offset)
        if recovery.unpushed:  # the PUSHF has not completed, whatever lies below its stack already
            recovery = replace(recovery, eip=unit.eip_at(offset), release=4)
        self.view(frame, recovery)

    def view(self, frame: Frame, recovery: Recovery) -> None:
        """Make a frame the guest's, its registers visible in `overlay`, and the virtual flags those of the moment."""
        vm, record = self.vm, self.record
        if recovery.own_stack:
            frame.esp, frame.ss = int(record["guest_esp"]), int(record["guest_ss"])
        if recovery.unflagged:
            frame.eflags = frame.eflags & ~EFLAGS_ARITHMETIC | saved_flags(self)
        if recovery.returning:
            eip = self.eip_at(int(record["jump"])) if recovery.direct else int(record["resume_eip"])
            recovery = Recovery(eip, recovery.spilled)
        elif recovery.called:
            unit = self.cache.unit_at(int(record["site"]))
            site = unit.sites[int(record["site"]) - unit.address]
            recovery = replace(site.recovery, spilled=recovery.spilled)
        frame.eip = int(record["target"]) if recovery.eip is None else recovery.eip
        frame.esp = frame.esp + recovery.release & M32
        frame.cs = self.cs
        frame.eflags = frame.eflags & ~EFLAGS_TF | (EFLAGS_TF if self.trap_flag else 0)
        self.overlay = {number: int(record[SLOT_OF_REGISTER[number]]) for number in recovery.spilled}
        flag = int(vm.processor.cpu.gpr[ECX]) if recovery.unstored else int(record["interrupt_flag"])
        vm.vcpu.interrupt_flag = int(bool(flag & EFLAGS_IF))
        if recovery.held:
            vm.vcpu.shadow_count = int(vm.processor.cpu.retired)

    def eip_at(self, address: int) -> int | None:
        """The guest's EIP while the processor stands in front of an instruction of the cache."""
        unit = self.cache.unit_at(address)
        return unit.recovery_at(address - unit.address).eip

    def finish_pushf(self, frame: Frame) -> None:
        """A PUSHF was left between the processor's image and the guest's: write the guest's, which completes it."""
        vm = self.vm
        vm.guest.write(vm.segments.base(SS) + frame.esp, 4, vm.vcpu.virtual_flags(frame.eflags))
        vm.retire()

    # -- from the guest to the cache ------------------------------------------------------------------------------------------

    def applies(self) -> bool:
        """Whether the guest's next instruction must be translated.

        CS and SS that no table says any more are held by entries of the VMM's, which what runs directly could load.
        """
        vcpu = self.vm.vcpu
        if vcpu.cpl < 3 or self.translate_user:
            return True
        detached = any(selector & ~7 in DETACHED for selector in (vcpu.frame.cs, vcpu.frame.ss))
        return detached or not self.runs_directly(vcpu.cpl, vcpu.iopl, vcpu.interrupt_flag, self.vm.segments.state(CS))

    def runs_directly(self, cpl: int, iopl: int, interrupt_flag: int, code: SegmentState) -> bool:
        """Whether code may run as it is: a program's, to which the processor's IF and IOPL are as its own."""
        own_flags = cpl == 3 and iopl == 0 and bool(interrupt_flag)
        return own_flags and not self.translate_user and not is_out_of_reach(code)

    def can_translate(self) -> bool:
        """Whether the guest's next instruction needs no translation, or can have one."""
        if not self.applies():
            return True
        return self.is_translatable(self.vm.segments.state(CS), self.vm.vcpu.frame.eip, int(self.vm.vcpu.dr[7]))

    @staticmethod
    def is_translatable(code: SegmentState, eip: int, dr7: int) -> bool:
        """The rest is interpreted: 16-bit code, code with breakpoints, which are addresses of its own, and code where the
        VMM lies, as the end of a BIOS image."""
        within_reach = eip <= shadow_of(code, INNERMOST_RING).limit
        return bool(code.access & AR_DB) and within_reach and not dr7 & DR7_ENABLES

    def context(self) -> Context:
        """What the next unit depends on besides its bytes."""
        vm = self.vm
        code = vm.segments.state(CS)
        trap_flag = vm.vcpu.single_stepped
        single = trap_flag or vm.crossings.own_step or vm.interrupts.held()
        narrow_stack = vm.segments.stack_mask != M32
        cpl = int(vm.vcpu.cpl)
        root = int(vm.vcpu.cr3) if cpl else 0
        return Context(code.selector, code.base, code.limit, int(vm.vcpu.iopl), narrow_stack, single, trap_flag, cpl, root)

    def show_gs(self, ring: int) -> int:
        """Let translated code load what the guest has in GS, whatever its tables say by now: the selector for it."""
        hardware = self.vm.segments.hardware_state(GS)
        if hardware.access & AR_UNUSABLE:
            return 0
        access = hardware.access & ~AR_DPL | ring << AR_DPL_SHIFT
        if access & TYPE_CODE:
            access &= ~TYPE_CONFORMING  # the guest's programs must not be able to load it
        descriptor = encode(SegmentState(0, hardware.base, hardware.limit, access))
        self.vm.descriptors.write(layout.GUEST_GS_SELECTOR, descriptor)
        return layout.GUEST_GS_SELECTOR | ring

    def enter(self, frame: Frame) -> Frame:
        """The frame with which the processor goes on in the cache where the guest's frame stands."""
        vm, record = self.vm, self.record
        context = self.context()
        self.count("entry")
        vm.charge("enter_cache", 1)
        if not context.single:
            self.hash_of(context).use(context)
        address = self.address_of(frame.eip, context)
        if context.ring != INNERMOST_RING:
            self.leave_ring()
        self.change_ring(context.ring)
        self.cs, self.trap_flag = frame.cs, context.trap_flag
        self.gs = vm.processor.cpu.seg[GS].copy()
        record["guest_gs"], record["guest_cs"] = self.show_gs(context.ring), frame.cs
        for number in range(N_SELECTORS):
            record["selectors"][number] = vm.segments.state(number).selector
        record["guest_ss"] = frame.ss
        record["interrupt_flag"] = vm.vcpu.interrupt_flag * EFLAGS_IF
        record["pending"] = int(vm.interrupts.waits)
        if context.cpl == 0:
            self.prepare_kernel_images(context.iopl)
        self.inside = True
        if context.ring != INNERMOST_RING:
            self.accounts.enter_program()
        return Frame(address, layout.TRANSLATED_CODE_SELECTOR | context.ring, frame.eflags & ~EFLAGS_TF, frame.esp, frame.ss)

    def hash_of(self, context: Context) -> HashTable:
        """Where code of a context looks up its targets."""
        return self.hash if context.ring == INNERMOST_RING else self.outer_hash

    def address_of(self, eip: int, context: Context) -> int:
        """Where the guest's instruction at `eip` stands in the cache."""
        passed, self.passed = self.passed, None
        if passed is not None and passed[:2] == (int(self.vm.processor.cpu.retired), eip):
            return passed[2]
        site, self.site = self.site, None
        try:
            unit, address = self.find(eip, context)
        except GuestFault:
            # It cannot be fetched: the guest is asked again from within, where the fault can be delivered.
            self.record["target"] = eip
            return self.cache.units[common.BEGIN].address
        if site is not None and self.chaining:
            self.join(*site, unit, address, context)
        self.entered = unit
        self.mark_entered()
        if not context.single:
            self.context_entered = context
            if self.entered is None:
                self.cache.index.enter(eip, context, address)
        return address

    def mark_entered(self) -> None:
        """The guest goes on in a unit, unless the run pauses first: then its pages are marked when it does go on."""
        machine = self.vm.machine
        goes_on = machine.outcome is None and self.vm.processor.cpu.retired < machine.retired_limit
        if self.entered is not None and goes_on:
            self.pages.mark(self.entered)
            self.entered = None

    def find(self, eip: int, context: Context) -> tuple[Unit, int]:
        """The unit and address for a guest address, translated now if need be. Raises GuestFault."""
        found = self.cache.entry(eip, context)
        return found if found is not None else self.translate(eip, context)

    def translate(self, eip: int, context: Context) -> tuple[Unit, int]:
        """Make a unit. Raises GuestFault where the guest's code cannot be fetched.

        That is work for ring 0: tracing its frames takes write permission from the pages that map them, by INVLPG.
        """
        self.leave_ring()
        if not self.cache.has_room(MOST_BYTES):
            self.flush()
        self.pages.begin()
        unit = Scan(self.vm, context, self.choices, self.pages.fetch).unit(eip, self.cache.next_address)
        unit.frames, unit.unmarked = self.pages.frames(), self.pages.unmarked
        self.cache.add(unit)
        self.pages.trace(unit)
        self.count("unit")
        self.count("instruction", unit.instructions)
        self.count("guest_byte", len(unit.guest))
        self.count("byte", len(unit.octets))
        self.accounts.count_occupied(self.cache.used)
        return unit, unit.address

    def prepare_kernel_images(self, iopl: int) -> None:
        """Let the kernel's table of POPF stand for a virtual IOPL."""
        if self.iopl != iopl:
            self.iopl = iopl
            self.vm.write_region(layout.FLAG_TABLES, kernel_images(iopl))

    # -- callouts ---------------------------------------------------------------------------------------------------------------

    def join(self, source: Unit, site: Site, target: Unit, address: int, context: Context) -> None:
        """The guest goes on where a callout has asked: from now on the way there does not lead through the VMM."""
        eip = self.vm.vcpu.frame.eip
        if context.single or site.recovery.held:
            return
        if site.kind == "unchained_jump" and source.alive and source.context == context and site.target == eip:
            self.cache.chain(source, site, target, address)
            self.count("chain")
        elif site.kind == "lookup_miss" and self.record["target"] == eip:
            self.hash_of(context).enter(eip, address, context)

    def begin(self) -> None:
        """The guest's next instruction could not be fetched. Raises GuestFault if it still cannot."""
        try:
            self.find(self.vm.vcpu.frame.eip, self.context())
        except GuestFault:
            self.pages.mark_fetched()
            raise

    def pass_callout(self) -> None:
        """Go on behind the callout that brought control here, though the guest stands where it stood."""
        assert self.site is not None
        unit, site = self.site
        self.passed = int(self.vm.processor.cpu.retired), self.vm.vcpu.frame.eip, unit.address + site.offset + 5

    def simulate_write(self) -> None:
        """Perform the instruction for which the callout stands, one that has often written traced memory."""
        assert self.site is not None
        shadow, site = self.vm.shadow, self.site[1]
        gla, notices = self.vm.linear_eip(), shadow.notices
        simulate_write(self.vm, site.instruction)
        self.adaptation.note_callout(gla, shadow.notices != notices)
        if self.vm.descriptors.table_written:
            make_general(self)  # what the record says of the guest's segments may be different now

    def access_port(self) -> None:
        """Perform the IN or OUT for which a direct callout stands."""
        assert self.site is not None
        instruction = self.site[1].instruction
        assert instruction is not None
        self.vm.emulate(instruction)

    def note_traced_fault(self) -> None:
        """The guest is about to write traced memory, and has faulted."""
        if self.applies():
            self.adaptation.note_fault(self.vm.linear_eip())

    def set_x87_pointer(self) -> None:
        """Let the x87 FPU's pointer to its last instruction be the guest's, as an image in memory will show it."""
        cpu = self.vm.processor.cpu
        cpu.fpu_instruction = self.guest_address(int(cpu.fpu_instruction))
        if cpu.fpu_instruction_selector & ~3 == layout.TRANSLATED_CODE_SELECTOR:
            cpu.fpu_instruction_selector = self.context().selector

    def x87_pointer_lies_in(self, unit: Unit) -> bool:
        """Whether the x87 FPU's last instruction was one of a unit's."""
        return unit.address <= int(self.vm.processor.cpu.fpu_instruction) < unit.address + len(unit.octets)

    def guest_address(self, address: int) -> int:
        """The guest's EIP of an instruction that the processor has executed; one of translated code is looked up."""
        if not self.cache.holds(address):
            return address
        unit = self.cache.unit_at(address)
        eip = unit.recovery_at(address - unit.address).eip
        return address if eip is None else eip

    # -- coherence ------------------------------------------------------------------------------------------------

    def resynchronise(self) -> None:
        """Before the guest goes on: what it has written may be code."""
        self.pages.resynchronise()

    def drop(self, units: list[Unit]) -> None:
        """Forget units whose code is no longer what it was."""
        self.stops.remember_passed()
        for unit in list(units):
            if unit.alive:
                if self.x87_pointer_lies_in(unit):
                    self.set_x87_pointer()
                self.cache.drop(unit)
                self.count("invalidation")
                for eip in unit.boundaries:
                    self.hash_of(unit.context).forget(eip)

    def flush(self) -> None:
        """Throw the whole cache away."""
        self.count("flush")
        self.set_x87_pointer()
        self.stops.remember_passed()
        self.cache.clear(self.COMMON)
        self.hash.clear()
        self.outer_hash.clear()
        self.pages.clear()
        self.adaptation.clear()

    def segment_cache(self, segment: int):
        """What the processor would hold of a segment register if the guest's code ran as it is."""
        if segment == GS and self.inside:
            return self.gs
        return self.vm.processor.cpu.seg[segment]
