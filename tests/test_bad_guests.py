"""Bad guests, each by name: the architecturally right fault, or a named outcome (the issue's list of bad input)."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

import pytest
from bare_machine import CODE, CR0_PG, DATA, DATA_3, IDT, RAM_BYTES, TABLE, BareMachine
from descriptor_machine import descriptor
from small_kernel import (
    DIRECTORY,
    EAX,
    STEPS,
    Kernel,
    Step,
    far_jump,
    lgdt,
    lidt,
    load,
    load_segment,
    log,
    mov,
    run,
    save,
    set_cr,
    store,
    word,
)
from small_kernel import RAM_BYTES as KERNEL_BYTES

from x86virt.core.entries import enter_level

DF, TS, NP, GP, PF, UD = 8, 10, 11, 13, 14, 6
BOTH = ("native", "trap-and-emulate")
OUTSIDE = (KERNEL_BYTES, 0x7FFFF000, 0xFEE00000, 0xFFFFE000)  # beyond RAM; where a PC has its APIC; near the top


def machine_with(code: bytes, paged: bool = False) -> BareMachine:
    """A bare machine with a few bytes of code, whose RAM ends with HLT."""
    machine = BareMachine()
    if paged:
        machine.paging()
    machine.unlimited()
    machine.write_code(code)
    return machine


def pointer(limit: int, base: int) -> bytes:
    """The operand of LGDT and LIDT."""
    return struct.pack("<HI", limit, base)


def outcome_of(code: bytes, **parts) -> str:
    """How a small kernel ends on the bare machine; it must be the same under the VMM, or unsupported there."""
    outcomes = [run(Kernel([Step(code)], **parts), name)[1].outcome for name in BOTH]
    assert outcomes[0] == outcomes[1] or outcomes[1].startswith("unsupported"), outcomes
    return outcomes[0]


# -- every bad guest on every strategy -------------------------------------------------------------------------------------

WINDOW, WINDOW_ENTRY, ONES = 0x88000, TABLE + 4 * 0x88, 0xFFFFFFFF
FIRST = STEPS + 10  # the code of the first step


@dataclass
class Bad:
    """A bad guest: on the bare machine its end, the traps (vector, error code, EIP, CR2) and what it read into DATA.

    Under a VMM it ends the same.
    """

    kernel: Kernel
    outcome: str
    traps: list[tuple[int, int, int, int]] = field(default_factory=list)
    read: int = 0


def bad_guests() -> dict[str, Bad]:
    """The issue's list: jumps into nothing, code that rewrites itself, tables nowhere, garbage in CR3."""
    jump_on = mov(EAX, 0x123456) + b"\xff\xe0"
    short_code = {0x60: descriptor(0, 0x2FFFF, 11)}
    # CALL and POP find the place; REP STOSB writes 40 (INC EAX) over three bytes behind itself, of which two would be UD2.
    over_itself = b"\xe8\0\0\0\0\x5f\x83\xc7\x10" + mov(1, 3) + mov(EAX, 0x40) + b"\xf3\xaa\x0f\x0b\x90" + save(DATA, EAX)
    over_next = b"\xe8\0\0\0\0\x5b\xc6\x43\x08\x55\x90\x90\xb8\x11\0\0\0" + save(DATA, EAX)
    table = {
        "jump_to_an_absent_page": Bad(Kernel([Step(jump_on)]), "exited 1", [(PF, 0, 0x123456, 0x123456)]),
        "jump_to_an_absent_page_in_ring_3": Bad(Kernel([Step(jump_on, 3)]), "exited 1", [(PF, 4, 0x123456, 0x123456)]),
        "jump_beyond_the_code_segment": Bad(
            Kernel([Step(far_jump(0x60, 0x30000))], descriptors=short_code), "exited 1", [(GP, 0, FIRST, 0)]
        ),
        "code_over_its_next_instruction": Bad(Kernel([Step(over_next)]), "exited 1", read=0x55),
        "code_over_itself_by_rep": Bad(Kernel([Step(over_itself)]), "exited 1", read=0x43),
        "gdt_of_nothing": Bad(nowhere("gdt", 0, 0), "triple_fault"),
        "idt_of_nothing": Bad(nowhere("idt", 0, 0), "triple_fault"),
    }
    for address in OUTSIDE:
        table |= bad_guests_at(address)
    for value in (0xFFFFFFFF, 0xDEADBEEF, 0x80000000, 0x00000FFF, 0x1):
        # Below RAM's end the frame at 0 is there, and empty: no page is present, that of the IDT included.
        table[f"cr3_{value:#x}"] = Bad(Kernel([Step(set_cr(3, value))]), "triple_fault")
    return table


def nowhere(name: str, limit: int, base: int, paging: bool = True) -> Kernel:
    """A kernel that loads GDTR or IDTR, and then a segment register or executes INT 0x80."""
    code = lgdt(DATA) + load_segment(4, DATA_3) if name == "gdt" else lidt(DATA) + b"\xcd\x80"
    return Kernel([Step(code + store(DATA, 0))], octets={DATA: pointer(limit, base)}, paging=paging)


def bad_guests_at(address: int) -> dict[str, Bad]:
    """What may lead outside RAM."""
    place = address & 0xFFFFF000
    window = {WINDOW_ENTRY: place | 7}
    read = load(EAX, WINDOW + 0x10) + save(DATA, EAX)
    tss = {0x28: descriptor(address, 0x67, 9, s=0, db=0)}
    table = {
        # An entry of ones: present and open, the page at the top of physical memory.
        "cr3": Bad(Kernel([Step(set_cr(3, place))]), "triple_fault"),
        "page_table": Bad(
            Kernel([Step(load(EAX, 0x400010) + save(DATA, EAX))], words={DIRECTORY + 4: place | 7}), "exited 1", read=ONES
        ),
        "page_read": Bad(Kernel([Step(read)], words=window), "exited 1", read=ONES),
        "page_written": Bad(Kernel([Step(store(WINDOW + 0x10, 5) + read)], words=window), "exited 1", read=ONES),
        "page_executed": Bad(
            Kernel([Step(mov(EAX, WINDOW + 0x10) + b"\xff\xe0")], words=window), "exited 1", [(UD, 0, WINDOW + 0x10, 0)]
        ),
        # FF FF is no instruction. Where the VMM lies the guest's code segment has ended.
        "unpaged_jump": Bad(
            Kernel([Step(mov(EAX, address) + b"\xff\xe0")], paging=False), "exited 1", [(UD, 0, address, 0)]
        ),
        # With paging the GDT's page is not present, nor, for the delivery, that of the handler's code segment.
        "gdt": Bad(nowhere("gdt", 0x7F, address), "triple_fault"),
        # Without, a descriptor of ones is a conforming code segment, readable, accessed, of DPL 3.
        "unpaged_gdt": Bad(nowhere("gdt", 0x7F, address, False), "exited 1"),
        # A gate of ones is none: #GP, then #DF, then shutdown. With paging its page is not present.
        "idt": Bad(nowhere("idt", 0x7FF, address), "triple_fault"),
        "unpaged_idt": Bad(nowhere("idt", 0x7FF, address, False), "triple_fault"),
        # SS0 of ones is beyond the GDT: #TS, and again for #DF. With paging the page is not present.
        "tss": Bad(Kernel([Step(b"\x90", 3)], descriptors=tss), "triple_fault"),
        "unpaged_tss": Bad(Kernel([Step(b"\x90", 3)], descriptors=tss, paging=False), "triple_fault"),
        # EFLAGS of ones has VM set, EIP of ones is beyond the segment, and there is no stack for the #GP.
        "task": Bad(
            Kernel([Step(far_jump(0x38, 0))], descriptors={0x38: descriptor(address, 0x67, 9, s=0, db=0)}, paging=False),
            "triple_fault"
        ),
        "ldt": Bad(
            Kernel(
                [Step(mov(EAX, 0x38) + b"\x0f\x00\xd0" + load_segment(4, 7))],
                descriptors={0x38: descriptor(address, 0xFFFF, 2, s=0, db=0)}, paging=False,
            ),
            "exited 1"
        ),
    }  # fmt: skip
    return {f"{name}_at_{address:#x}": guest for name, guest in table.items()}


BAD = bad_guests()


@pytest.mark.parametrize("under", BOTH)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_guest_meets_its_fault_or_a_named_end(name: str, under: str) -> None:
    guest = BAD[name]
    machine, result = run(guest.kernel, under)
    traps = [(vector, error, eip, cr2) for vector, error, eip, _, _, cr2 in log(machine)]
    memory = machine.strategy.virtual_state(machine).memory
    read = int.from_bytes(memory[DATA : DATA + 4].tobytes(), "little")
    assert (result.outcome, traps) == (guest.outcome, guest.traps)
    if guest.read or result.outcome == "exited 1":
        assert read == guest.read


# -- a jump into nothing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", (0x7FFFF000, 0xFFFFF000, RAM_BYTES))
def test_a_jump_into_nothing_without_paging_finds_all_ones(target: int) -> None:
    """Beyond RAM the bus reads ones: FF FF is no instruction."""
    machine = machine_with(mov(EAX, target) + b"\xff\xe0")
    assert machine.stopped_at(machine.go()) == f"vector {UD}"
    assert machine.get(int(machine.gpr[4])) == target


@pytest.mark.parametrize("name", BOTH)
def test_a_jump_to_a_page_that_is_not_there_is_a_page_fault_at_its_target(name: str) -> None:
    machine, result = run(Kernel([Step(mov(EAX, 0x123456) + b"\xff\xe0")]), name)
    vector, error, eip, _, _, cr2 = log(machine)[0]
    assert (vector, error, eip, cr2) == (PF, 0, 0x123456, 0x123456)
    assert result.outcome == "exited 1"


def test_a_jump_beyond_the_code_segment_is_a_protection_fault() -> None:
    machine = machine_with(mov(EAX, 0x30000) + b"\xff\xe0")
    machine.processor.set_segment(1, 0x08, 0, 0x2FFFF, 0x409B)
    enter_level(machine.processor.state, 0)
    assert machine.stopped_at(machine.go()) == f"vector {GP}"


# -- code that rewrites itself while it runs ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
def test_code_that_rewrites_its_own_next_instruction_executes_what_it_wrote(name: str) -> None:
    """MOV byte [next + 1], 0x55 in front of MOV AL, 0x11."""
    code = b"\xe8\0\0\0\0\x5b" + b"\xc6\x43\x08\x55" + b"\x90" * 2 + b"\xb0\x11" + b"\xa2" + word(DATA)
    code = code.replace(b"\xc6\x43\x08", b"\xc6\x43" + bytes([code.index(b"\xb0\x11") + 1 - 5]))
    machine, result = run(Kernel([Step(code)]), name)
    assert machine.strategy.virtual_state(machine).memory[DATA] == 0x55
    assert result.outcome == "exited 1"


def test_a_repeated_store_over_its_own_code_goes_on_with_what_it_wrote() -> None:
    """REP STOSB fills everything from behind itself with HLT."""
    code = b"\xbf" + word(CODE + 14) + mov(1, 64) + b"\xb0\xf4" + b"\xf3\xaa" + b"\x0f\x0b" * 8
    machine = machine_with(code)
    assert machine.stopped_at(machine.go()) == CODE + 14


# -- tables outside RAM or in device space ------------------------------------------------------------------------------


@pytest.mark.parametrize("address", OUTSIDE, ids=hex)
def test_a_directory_outside_ram_reads_as_ones(address: int) -> None:
    """An entry of all ones has PS set; with CR4.PSE its reserved bits fault, and the fault's delivery faults: shutdown."""
    machine = machine_with(b"\x90\xf4")
    machine.cpu.cr4 = 0x10
    machine.cpu.cr3 = address & 0xFFFFF000
    machine.cpu.cr0 |= CR0_PG
    assert machine.stopped_at(machine.go()) == "outcome 4"
    assert machine.cpu.cr2 == IDT + 8 * DF or machine.cpu.cr2 != 0


@pytest.mark.parametrize("value", (0xFFFFFFFF, 0x00000FFF, 0xDEADBEEF, 0x80000000, 0x1), ids=hex)
def test_cr3_loaded_with_garbage_ends_by_name(value: int) -> None:
    outcome = outcome_of(mov(EAX, value) + b"\x0f\x22\xd8" + b"\x90" * 4)
    assert outcome in ("triple_fault", "exited 1", "budget")


@pytest.mark.parametrize("frame", OUTSIDE, ids=hex)
def test_a_page_table_outside_ram_maps_every_page_to_the_top(frame: int) -> None:
    """A page-directory entry that leads outside RAM: entries of ones, present and open, frame 0xFFFFF000."""
    machine = machine_with(b"\xa1" + word(0x00400010) + b"\xf4", paged=True)
    machine.put(0x40000 + 4, frame & 0xFFFFF000 | 7)
    machine.go()
    assert machine.gpr[EAX] == 0xFFFFFFFF


@pytest.mark.parametrize("frame", OUTSIDE, ids=hex)
def test_a_page_outside_ram_reads_ones_and_forgets_writes(frame: int) -> None:
    machine = machine_with(store(0x80000, 5) + load(EAX, 0x80000) + b"\xf4", paged=True)
    machine.set_page(0x80000, frame & 0xFFFFF000, 7)
    assert isinstance(machine.stopped_at(machine.go()), int)
    assert machine.gpr[EAX] == 0xFFFFFFFF


@pytest.mark.parametrize("base", OUTSIDE, ids=hex)
def test_a_gdt_outside_ram_holds_descriptors_of_ones(base: int) -> None:
    """All ones is a conforming, readable code segment with DPL 3, accessed: data registers may hold it."""
    code = b"\x0f\x01\x15" + word(DATA) + mov(EAX, DATA_3) + b"\x8e\xd8" + b"\xf4"
    machine = machine_with(code)
    for place, octet in enumerate(pointer(0xFFFF, base)):
        machine.memory[DATA + place] = octet
    assert isinstance(machine.stopped_at(machine.go()), int)
    assert (int(machine.cpu.seg[3].seg_base), int(machine.cpu.seg[3].limit)) == (0xFFFFFFFF, 0xFFFFFFFF)


@pytest.mark.parametrize("base", OUTSIDE, ids=hex)
def test_an_idt_outside_ram_ends_in_shutdown(base: int) -> None:
    """A gate of ones has a type that is no gate: #GP, then #DF, then shutdown."""
    code = b"\x0f\x01\x1d" + word(DATA) + b"\x0f\x0b"
    assert outcome_of(code, octets={DATA: pointer(0x7FF, base)}, paging=False) == "triple_fault"
    assert outcome_of(code, octets={DATA: pointer(0x7FF, base)}) == "triple_fault"


@pytest.mark.parametrize("name", BOTH)
def test_an_idt_with_a_limit_of_nothing_ends_in_shutdown(name: str) -> None:
    _, result = run(Kernel([Step(b"\x0f\x01\x1d" + word(DATA) + b"\xcd\x80")], octets={DATA: pointer(0, 0)}), name)
    assert result.outcome == "triple_fault"


def test_a_tss_outside_ram_gives_an_inner_stack_of_ones() -> None:
    """SS0 reads as FFFF: beyond the GDT's limit, #TS; its own delivery fails in the same way: #DF, then shutdown."""
    machine = machine_with(b"\xcd\x03\xf4")
    machine.ring(3)
    machine.processor.set_segment(7, 0x28, 0x7FFF0000, 0x67, 0x8B)
    assert machine.stopped_at(machine.go()) == "outcome 4"
    assert int(machine.cpu.event_vector) in (TS, DF)


@pytest.mark.parametrize("base", OUTSIDE, ids=hex)
def test_ltr_with_a_tss_outside_ram_and_a_return_to_ring_3(base: int) -> None:
    """Loading it is no fault; the first interrupt of ring 3 ends the machine, on both."""
    tss = descriptor(base, 0x67, 9, s=0, db=0)
    kernel = Kernel([Step(b"\x90", 3)], descriptors={0x28: tss}, paging=False)
    outcomes = [run(kernel, name)[1].outcome for name in BOTH]
    assert outcomes[0] == "triple_fault"
    assert outcomes[1] == "triple_fault" or outcomes[1].startswith("unsupported")


def test_the_page_tables_may_map_themselves_anywhere() -> None:
    """The directory as its own page table, and a table that the guest then overwrites with ones."""
    code = store(TABLE + 4 * 0x80, 0xFFFFFFFF) + b"\x0f\x01\x3d" + word(0x80000) + load(EAX, 0x80000)
    assert outcome_of(code) == "exited 1"
