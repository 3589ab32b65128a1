"""What a VM entry answers, by the lists of SDM volume 3, chapter 26 alone: a model that shares no code with the processor.

The VMCS is a dictionary of fields by name, all numbers unsigned. A rule is a function that is true of a VMCS that breaks it; the
comments quote what the manual demands in short.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs")
DATA_SEGMENTS = ("es", "ds", "fs", "gs")
VMCS = dict[str, int]


@dataclass
class Processor:
    """What a processor allows: (must be 1, may be 1) of each kind of controls, and what else the checks depend on."""

    pin: tuple[int, int]
    primary: tuple[int, int]
    secondary: tuple[int, int]
    exit_controls: tuple[int, int]
    entry_controls: tuple[int, int]
    cr4_may: int
    physical_bits: int
    has_nx: bool
    revision: int
    current: int
    memory: Callable[[int], int] = field(repr=False)  # the doubleword at a physical address


def bit(value: int, number: int) -> bool:
    """Whether a bit is 1."""
    return bool(value >> number & 1)


def breaks(allowed: tuple[int, int], value: int) -> bool:
    """Whether a control that must be 1 is 0, or one that must be 0 is 1."""
    must, may = allowed
    return any((bit(must, n) and not bit(value, n)) or (bit(value, n) and not bit(may, n)) for n in range(32))


def bad_address(processor: Processor, value: int, low_zeros: int) -> bool:
    """Not aligned, or beyond the physical-address width."""
    return bool(value % (1 << low_zeros)) or value >= 1 << processor.physical_bits


def secondary(vmcs: VMCS) -> int:
    """The secondary controls, all 0 unless they are activated."""
    active = bit(vmcs["primary_processor_based_vm_execution_controls"], 31)
    return vmcs["secondary_processor_based_vm_execution_controls"] if active else 0


# -- controls: error 7 ----------------------------------------------------------------------------------------------------


def bad_execution_controls(p: Processor, v: VMCS) -> bool:
    """Section 26.2.1.1."""
    pin, primary = v["pin_based_vm_execution_controls"], v["primary_processor_based_vm_execution_controls"]
    second = secondary(v)
    eptp = v["ept_pointer"]
    return any(
        (
            breaks(p.pin, pin),
            breaks(p.primary, primary),
            bit(primary, 31) and breaks(p.secondary, second),
            v["cr3_target_count"] > 4,
            bit(primary, 25) and bad_address(p, v["address_of_i_o_bitmap_a"], 12),
            bit(primary, 25) and bad_address(p, v["address_of_i_o_bitmap_b"], 12),
            bit(primary, 28) and bad_address(p, v["address_of_msr_bitmaps"], 12),
            not bit(pin, 3) and bit(pin, 5),
            not bit(pin, 5) and bit(primary, 22),
            bit(second, 5) and v["virtual_processor_identifier"] == 0,
            # memory type 0 or 6, a walk of 4 levels, bits 11:6 and beyond the width reserved
            bit(second, 1) and (eptp & 7 not in (0, 6) or eptp >> 3 & 7 != 3 or eptp >> 6 & 63 != 0),
            bit(second, 1) and eptp >> p.physical_bits != 0,
        )
    )


def bad_area(p: Processor, address: int, count: int) -> bool:
    """An MSR area: aligned on 16 bytes, its last byte within the width."""
    return count != 0 and (bad_address(p, address, 4) or address + 16 * count - 1 >= 1 << p.physical_bits)


def bad_exit_controls(p: Processor, v: VMCS) -> bool:
    """Section 26.2.1.2."""
    return any(
        (
            breaks(p.exit_controls, v["vm_exit_controls"]),
            not bit(v["pin_based_vm_execution_controls"], 6) and bit(v["vm_exit_controls"], 22),
            bad_area(p, v["vm_exit_msr_store_address"], v["vm_exit_msr_store_count"]),
            bad_area(p, v["vm_exit_msr_load_address"], v["vm_exit_msr_load_count"]),
        )
    )


def injected(v: VMCS) -> tuple[int, int] | None:
    """Type and vector of the event to inject."""
    information = v["vm_entry_interruption_information"]
    return (information >> 8 & 7, information & 0xFF) if bit(information, 31) else None


def bad_entry_controls(p: Processor, v: VMCS) -> bool:
    """Section 26.2.1.3."""
    if breaks(p.entry_controls, v["vm_entry_controls"]):
        return True
    if bad_area(p, v["vm_entry_msr_load_address"], v["vm_entry_msr_load_count"]):
        return True
    event = injected(v)
    if event is None:
        return False
    kind, vector = event
    information = v["vm_entry_interruption_information"]
    delivers_code = bit(information, 11)
    return any(
        (
            kind in (1, 7),  # reserved; other event, without the monitor trap flag
            kind == 2 and vector != 2,
            kind == 3 and vector > 31,
            delivers_code != (kind == 3 and vector in (8, 10, 11, 12, 13, 14, 17)),
            information >> 12 & 0x7FFFF != 0,
            delivers_code and v["vm_entry_exception_error_code"] >= 1 << 15,
            kind in (4, 5, 6) and not 1 <= v["vm_entry_instruction_length"] <= 15,
        )
    )


# -- host state: error 8 ------------------------------------------------------------------------------------------------------


def bad_cr0(value: int) -> bool:
    """PE, NE and PG are 1 in VMX operation."""
    return not (bit(value, 0) and bit(value, 5) and bit(value, 31))


def bad_cr4(p: Processor, value: int) -> bool:
    """VMXE is 1 in VMX operation, and what the processor lacks is 0."""
    return not bit(value, 13) or value & ~p.cr4_may != 0


def bad_pat(value: int) -> bool:
    """Each byte is a memory type."""
    return any(octet not in (0, 1, 4, 5, 6, 7) for octet in value.to_bytes(8, "little"))


def bad_efer(p: Processor, value: int) -> bool:
    """All but NXE is reserved without IA-32e mode."""
    return value & ~(1 << 11 if p.has_nx else 0) != 0


def bad_host(p: Processor, v: VMCS) -> bool:
    """Sections 26.2.2 and 26.2.3."""
    selectors = [v[f"host_{name}_selector"] for name in (*SEGMENTS, "tr")]
    return any(
        (
            bad_cr0(v["host_cr0"]),
            bad_cr4(p, v["host_cr4"]),
            bit(v["vm_exit_controls"], 19) and bad_pat(v["host_ia32_pat"]),
            bit(v["vm_exit_controls"], 21) and bad_efer(p, v["host_ia32_efer"]),
            any(selector % 8 for selector in selectors),
            0 in (v["host_cs_selector"], v["host_ss_selector"], v["host_tr_selector"]),
        )
    )


# -- guest state: exits 33 ------------------------------------------------------------------------------------------------------


def bad_guest_registers(p: Processor, v: VMCS) -> bool:
    """Section 26.3.1.1."""
    controls = v["vm_entry_controls"]
    return any(
        (
            bad_cr0(v["guest_cr0"]),
            bad_cr4(p, v["guest_cr4"]),
            bit(controls, 2) and v["guest_ia32_debugctl"] != 0,
            bit(controls, 14) and bad_pat(v["guest_ia32_pat"]),
            bit(controls, 15) and bad_efer(p, v["guest_ia32_efer"]),
        )
    )


@dataclass
class Segment:
    """A segment register in words."""

    selector: int
    base: int
    limit: int
    rights: int

    @property
    def kind(self) -> int:
        """Type, bits 3:0."""
        return self.rights & 15

    @property
    def dpl(self) -> int:
        """Bits 6:5."""
        return self.rights >> 5 & 3

    @property
    def rpl(self) -> int:
        """Bits 1:0 of the selector."""
        return self.selector & 3

    @property
    def usable(self) -> bool:
        """Bit 16 is 0."""
        return not bit(self.rights, 16)

    @property
    def bad_form(self) -> bool:
        """P is 0, a reserved bit is 1, or G does not fit the limit."""
        reserved = self.rights >> 8 & 15 or self.rights >> 17
        granular = bit(self.rights, 15)
        return bool(
            not bit(self.rights, 7)
            or reserved
            or (self.limit & 0xFFF != 0xFFF and granular)
            or (self.limit >> 20 != 0 and not granular)
        )


def segment(v: VMCS, name: str) -> Segment:
    """A segment register of the guest."""
    return Segment(*(v[f"guest_{name}_{part}"] for part in ("selector", "base", "limit", "access_rights")))


def bad_virtual_8086(v: VMCS) -> bool:
    """Base 16 times the selector, limit FFFF, access rights F3."""
    each = [segment(v, name) for name in SEGMENTS]
    return any(s.base != s.selector * 16 or s.limit != 0xFFFF or s.rights != 0xF3 for s in each)


def bad_protected(v: VMCS) -> bool:
    """CS, SS, DS, ES, FS and GS outside virtual-8086 mode."""
    code, stack = segment(v, "cs"), segment(v, "ss")
    if stack.rpl != code.rpl or stack.dpl != stack.rpl:
        return True
    if code.kind not in (9, 11, 13, 15) or not bit(code.rights, 4) or code.bad_form:
        return True
    if code.kind in (9, 11) and code.dpl != stack.dpl or code.kind in (13, 15) and code.dpl > stack.dpl:
        return True
    if stack.usable and (stack.kind not in (3, 7) or not bit(stack.rights, 4) or stack.bad_form):
        return True
    for name in DATA_SEGMENTS:
        s = segment(v, name)
        if not s.usable:
            continue
        if not bit(s.kind, 0) or (bit(s.kind, 3) and not bit(s.kind, 1)) or not bit(s.rights, 4) or s.bad_form:
            return True
        if s.kind <= 11 and s.dpl < s.rpl:
            return True
    return False


def bad_segments(p: Processor, v: VMCS) -> bool:
    """Section 26.3.1.2."""
    task, local = segment(v, "tr"), segment(v, "ldtr")
    if bit(task.selector, 2) or not task.usable or task.kind not in (3, 11) or bit(task.rights, 4) or task.bad_form:
        return True
    if local.usable and (bit(local.selector, 2) or local.kind != 2 or bit(local.rights, 4) or local.bad_form):
        return True
    return bad_virtual_8086(v) if bit(v["guest_rflags"], 17) else bad_protected(v)


def bad_flags(p: Processor, v: VMCS) -> bool:
    """Section 26.3.1.4, and the limits of 26.3.1.3."""
    flags = v["guest_rflags"]
    event = injected(v)
    return any(
        (
            v["guest_gdtr_limit"] > 0xFFFF,
            v["guest_idtr_limit"] > 0xFFFF,
            flags >> 22 != 0 or bit(flags, 15) or bit(flags, 5) or bit(flags, 3) or not bit(flags, 1),
            event is not None and event[0] == 0 and not bit(flags, 9),
        )
    )


def bad_activity(p: Processor, v: VMCS) -> bool:
    """Section 26.3.1.5: HLT is the one state besides the active one."""
    state = v["guest_activity_state"]
    if state == 0:
        return False
    if state != 1 or segment(v, "ss").dpl != 0 or v["guest_interruptibility_state"] & 3:
        return True
    return injected(v) is not None and injected(v) not in ((2, 2), (3, 1), (3, 18)) and injected(v)[0] != 0  # type: ignore[index]


def bad_interruptibility(p: Processor, v: VMCS) -> bool:
    """Section 26.3.1.5."""
    state = v["guest_interruptibility_state"]
    by_sti, by_mov_ss, by_smi, by_nmi = (bit(state, n) for n in range(4))
    event = injected(v)
    kind = event[0] if event else None
    return any(
        (
            state >= 16,
            by_sti and by_mov_ss,
            by_sti and not bit(v["guest_rflags"], 9),
            kind == 0 and (by_sti or by_mov_ss),
            kind == 2 and by_mov_ss,
            by_smi,
            kind == 2 and by_nmi and bit(v["pin_based_vm_execution_controls"], 5),
        )
    )


def bad_pending_debug(p: Processor, v: VMCS) -> bool:
    """Section 26.3.1.5."""
    pending = v["guest_pending_debug_exceptions"]
    if pending & ~(0xF | 1 << 12 | 1 << 14):
        return True
    held_off = v["guest_interruptibility_state"] & 3 or v["guest_activity_state"] == 1
    return bool(held_off) and bit(pending, 14) != bit(v["guest_rflags"], 8)


def bad_link(p: Processor, v: VMCS) -> bool:
    """Section 26.3.1.5: none, or another VMCS of this processor's."""
    pointer = v["vmcs_link_pointer"]
    if pointer == (1 << 64) - 1:
        return False
    return bad_address(p, pointer, 12) or pointer == p.current or p.memory(pointer) != p.revision


def bad_pdptes(p: Processor, v: VMCS) -> bool:
    """Section 26.3.1.6: of PAE paging; in the VMCS under EPT, else in memory."""
    if not bit(v["guest_cr4"], 5):
        return False
    if bit(secondary(v), 1):
        entries = [v[f"guest_pdpte{n}"] for n in range(4)]
    else:
        entries = pointers_in_memory(p, v["guest_cr3"])
    return bad_pointers(p, entries)


def bad_pointers(p: Processor, entries: list[int]) -> bool:
    """Whether a present PDPTE sets a reserved bit."""
    return any(bit(entry, 0) and (entry & 0x1E6 or entry >> p.physical_bits) for entry in entries)


GUEST_RULES = (bad_guest_registers, bad_segments, bad_flags, bad_activity, bad_interruptibility, bad_pending_debug)


def pointers_in_memory(p: Processor, table: int) -> list[int]:
    """The four PDPTEs that CR3 leads to."""
    return [p.memory((table & 0xFFFFFFE0) + 8 * n) | p.memory((table & 0xFFFFFFE0) + 8 * n + 4) << 32 for n in range(4)]


def answer(p: Processor, v: VMCS) -> str:
    """What VMLAUNCH of a clear VMCS answers: `entered`, `error N`, `exit REASON QUALIFICATION`, or `abort N` (27.7).

    A failure on the guest's state or MSRs loads the host's, and aborts if that fails too.
    """
    ended = answer_of_checks(p, v)
    if not ended.startswith("exit"):
        return ended
    if bit(v["host_cr4"], 5) and bad_pointers(p, pointers_in_memory(p, v["host_cr3"])):
        return "abort 2"
    if v["vm_exit_msr_load_count"]:
        return "abort 4"
    return ended


def answer_of_checks(p: Processor, v: VMCS) -> str:
    """The same as far as the checks and the loading of MSRs decide."""
    if bad_execution_controls(p, v) or bad_exit_controls(p, v) or bad_entry_controls(p, v):
        return "error 7"
    if bad_host(p, v):
        return "error 8"
    if any(rule(p, v) for rule in GUEST_RULES):
        return "exit 33 0"
    if bad_link(p, v):
        return "exit 33 4"
    if bad_pdptes(p, v):
        return "exit 33 2"
    if v["vm_entry_msr_load_count"]:
        return "exit 34 1"  # these tests have no area whose first entry could be loaded
    return "entered"
