"""Faults, interrupts and descriptor tables under trap-and-emulate: each case by the manual's numbers, and equal to bare.

Each kernel runs on the bare machine and under the VMM in lock step (E1), and what its handlers logged is what the SDM
says: vector, error code, and where it matters EIP, EFLAGS and CR2.
"""

from __future__ import annotations

import pytest
from descriptor_machine import descriptor, gate
from small_kernel import (
    ABSENT_CODE,
    ABSENT_DATA,
    CODE_0,
    CODE_3,
    COMMON,
    DATA,
    DATA_0,
    DATA_0_TOO,
    DATA_3,
    DIRECTORY,
    EAX,
    EBX,
    ECX,
    EDX,
    ESP,
    GDT,
    GDT_POINTER,
    HANDLERS,
    IDT,
    IDT_POINTER,
    PTE_A,
    PTE_D,
    PTE_P,
    PTE_PS,
    PTE_RW,
    PTE_US,
    RAM_BYTES,
    SHORT_DATA,
    TABLE,
    TABLES,
    TSS,
    TSS_SELECTOR,
    Kernel,
    Step,
    assert_equal,
    both,
    compare,
    far_jump,
    from_cr,
    invlpg,
    lgdt,
    lidt,
    load,
    load_segment,
    log,
    mov,
    push,
    run,
    save,
    set_cr,
    start,
    store,
    stub,
    word,
)

from x86virt import Machine

PAGE = 0x88000  # a page that the cases map as they please
UP = PTE_P | PTE_RW | PTE_US
RF, TF, IF, OF = 1 << 16, 1 << 8, 1 << 9, 1 << 11
DIVIDE = b"\x31\xc9\xf7\xf1"
IRET_TO_NEXT = push(0x2) + push(CODE_0) + b"\xe8\x00\x00\x00\x00\x83\x04\x24\x05\xcf"


def traps(kernel: Kernel) -> list[tuple[int, int]]:
    """Vector and error code of each trap that the handlers logged."""
    return [row[:2] for row in log(both(kernel))]


def memory(machine: Machine, address: int) -> int:
    """A doubleword of guest memory."""
    return int.from_bytes(machine.strategy.virtual_state(machine).memory[address : address + 4].tobytes(), "little")


# -- reflection -------------------------------------------------------------------------------------------------------

SIMPLE = {
    "divide_error": (DIVIDE, 0, 0),
    "invalid_opcode": (b"\x0f\x0b", 6, 0),
    "lock_prefix": (b"\xf0\x90", 6, 0),
    "null_data_segment": (load_segment(4, 0) + b"\x64" + load(EAX, DATA), 13, 0),
    "short_segment": (load_segment(5, SHORT_DATA | 3) + b"\x65\xa1\xfd\x0f\x00\x00", 13, 0),
    "beyond_the_gdt": (load_segment(4, 0x7FF8), 13, 0x7FF8),
    "no_local_table": (load_segment(4, 0x0C), 13, 0x0C),
    "system_segment": (load_segment(4, TSS_SELECTOR), 13, TSS_SELECTOR),
    "absent_segment": (load_segment(4, ABSENT_DATA | 3), 11, ABSENT_DATA),
    "page_not_present_read": (load(EAX, PAGE), 14, 0),
    "page_not_present_write": (store(PAGE, 1), 14, 2),
}
AT = {0: 0, 3: 4}  # U/S in the error code of a page fault, by ring


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("name", SIMPLE)
def test_exception_is_reflected_with_its_error_code(name: str, ring: int) -> None:
    code, vector, error = SIMPLE[name]
    machine = both(Kernel([Step(b"\x90" + code, ring)], pages={PAGE: 0}))
    row = log(machine)[0]
    assert row[:2] == (vector, error | AT[ring] if vector == 14 else error)
    assert row[3] == (CODE_3 if ring else CODE_0)
    assert row[4] & RF == RF
    if vector == 14:
        assert row[5] == PAGE


def test_not_present_stack_and_code_segments() -> None:
    kernel = Kernel(
        [Step(load_segment(2, 0x60)), Step(far_jump(ABSENT_CODE, 0)), Step(far_jump(DATA_0, 0)), Step(far_jump(0, 0))],
        descriptors={0x60: descriptor(0, 0xFFFFF, 3, granular=1, present=0)},
    )
    assert traps(kernel) == [(12, 0x60), (11, ABSENT_CODE), (13, DATA_0), (13, 0)]


def test_push_beyond_the_stack_segment() -> None:
    kernel = Kernel(
        [Step(load_segment(2, 0x60) + mov(ESP, 0x9004) + b"\x50\x50\x50" + b"\x90", 0)],
        descriptors={0x60: descriptor(0, 0x8FFF, 3)},
    )
    machine, result = run(kernel, "native")
    assert assert_equal(kernel).other.outcome == result.outcome
    assert log(machine) == log(run(kernel, "trap-and-emulate")[0])


@pytest.mark.parametrize("ring", [0, 3])
@pytest.mark.parametrize("write", [False, True])
def test_page_protection(ring: int, write: bool) -> None:
    access = store(PAGE, 1) if write else load(EAX, PAGE)
    expected = {0: [(14, 3)] if write else [], 3: [(14, 5 | 2 * write)]}[ring]
    assert [row for row in traps(Kernel([Step(access, ring)], pages={PAGE: PAGE | PTE_P})) if row[0] == 14] == expected


def test_write_protect_off_lets_the_kernel_write_and_not_the_user() -> None:
    kernel = Kernel(
        [Step(load(EAX, PAGE), 3), Step(store(PAGE, 7)), Step(store(PAGE, 9), 3), Step(load(EBX, PAGE), 3)],
        pages={PAGE: PAGE | PTE_P | PTE_US},
        write_protect=False,
    )
    machine = both(kernel)
    assert [row[:2] for row in log(machine) if row[0] == 14] == [(14, 7)]
    assert memory(machine, PAGE) == 7
    assert memory(machine, TABLE + (PAGE >> 10)) & (PTE_A | PTE_D) == PTE_A | PTE_D


def test_system_call_is_not_confused_with_an_exception_vector() -> None:
    assert traps(Kernel([Step(b"\xcd\x0e", 3), Step(b"\xcd\x0d", 3)])) == [(13, 0x0E << 3 | 2), (13, 0x0D << 3 | 2)]


# -- nested, double and triple faults ----------------------------------------------------------------------------------


def test_contributory_pair_makes_a_double_fault_through_the_guests_gate() -> None:
    kernel = Kernel([Step(DIVIDE)], gates={0: gate(0, 0, 14, present=1)})  # a null selector: #GP in delivering #DE
    assert traps(kernel) == [(8, 0)]


def test_page_fault_in_delivering_a_page_fault_is_a_double_fault() -> None:
    absent = gate(CODE_0, HANDLERS + 14 * 16, 14, present=0)
    assert traps(Kernel([Step(load(EAX, PAGE))], gates={14: absent}, pages={PAGE: 0})) == [(8, 0)]


def test_benign_exception_then_contributory_one_is_delivered_in_turn() -> None:
    kernel = Kernel([Step(b"\x0f\x0b")], gates={6: gate(CODE_0, 0, 14, present=0)})
    assert traps(kernel) == [(11, 6 << 3 | 3)]


def test_page_fault_in_delivering_a_divide_error_is_delivered_itself() -> None:
    """A user's #DE whose ring 0 stack is not mapped: #PF cannot be delivered either, a double and triple fault."""
    kernel = Kernel([Step(DIVIDE, 3)], words={TSS + 4: PAGE + 0x800}, pages={PAGE: 0})
    assert assert_equal(kernel).other.outcome == "triple_fault"


def test_accessed_bits_are_set_before_a_push_that_faults() -> None:
    """Section 6.12: the new SS and CS are marked accessed although the frame cannot be pushed."""
    kernel = Kernel([Step(DIVIDE, 3)], words={TSS + 4: PAGE + 0x800, TSS + 8: DATA_0_TOO}, pages={PAGE: 0})
    kernel.gates[0] = gate(0x60, HANDLERS, 14)
    kernel.descriptors[0x60] = descriptor(0, 0xFFFFF, 10, granular=1)
    assert assert_equal(kernel).other.outcome == "triple_fault"
    machine, _ = run(kernel, "trap-and-emulate")
    assert [memory(machine, GDT + selector + 4) >> 8 & 1 for selector in (DATA_0_TOO, 0x60)] == [1, 1]


def test_16_bit_kernel_stack_keeps_the_upper_half_of_esp() -> None:
    """A return to a 16-bit stack loads SP alone: the VMM must not leave the upper half of its own ESP there."""
    code = load_segment(2, 0x60) + mov(ESP, 0x12348000) + push(0x55AA) + from_cr(0) + b"\x5b" + save(DATA, ESP)
    code += load_segment(2, DATA_0)
    both(Kernel([Step(code)], descriptors={0x60: descriptor(0, 0xFFFF, 3, db=0)}))


TRIPLE = {
    "no_idt": Kernel([Step(lidt(GDT_POINTER + 0x30) + DIVIDE)]),
    "double_fault_gate_absent": Kernel([Step(DIVIDE)], gates={0: 0, 8: 0}),
    "no_tables": Kernel([Step(set_cr(3, 0x70000))]),
    "stack_gone": Kernel([Step(b"\x90" + load_segment(2, DATA_0) + mov(ESP, PAGE + 0x100) + DIVIDE)], pages={PAGE: 0}),
}


@pytest.mark.parametrize("name", TRIPLE)
def test_triple_fault_ends_both_equally(name: str) -> None:
    comparison = assert_equal(TRIPLE[name])
    assert (comparison.native.outcome, comparison.other.outcome) == ("triple_fault", "triple_fault")


# -- software interrupts ------------------------------------------------------------------------------------------------


def test_closed_and_open_gates() -> None:
    steps = [Step(b"\xcd\x85", 3), Step(b"\xcd\x85"), Step(b"\xcc", 3), Step(b"\xcc"), Step(b"\xcd\xff", 3)]
    assert traps(Kernel(steps)) == [(13, 0x85 << 3 | 2), (5, 0), (3, 0), (3, 0), (13, 0xFF << 3 | 2)]


def test_int3_and_into_of_the_kernel() -> None:
    """Ring 1 meets a closed gate of the VMM's where ring 0 would have gone through."""
    overflow = mov(EAX, 0x7FFFFFFF) + b"\x83\xc0\x01\xce"
    machine = both(Kernel([Step(b"\xcc"), Step(overflow), Step(b"\x31\xc0\xce"), Step(overflow, 3), Step(b"\xce", 3)]))
    rows = [row for row in log(machine) if row[0] in (3, 4)]
    assert [row[0] for row in rows] == [3, 4, 4]
    assert rows[0][2] == 0x12000 + 10 + 1  # behind INT3: it is a trap
    assert not rows[0][4] & RF


def test_gate_closed_and_opened_again_while_running() -> None:
    closed = gate(CODE_0, HANDLERS + 0x81 * 16, 14, dpl=0)
    address = IDT + 0x81 * 8 + 4
    opened = (closed >> 32) | 3 << 13
    steps = [Step(b"\xcd\x81" * 3, 3), Step(store(address, closed >> 32)), Step(b"\xcd\x81", 3)]
    steps += [Step(store(address, opened)), Step(b"\xcd\x81" * 3, 3)]
    assert [row for row in traps(Kernel(steps)) if row[0] == 13] == [(13, 0x81 << 3 | 2)]


def test_another_idt() -> None:
    other = TABLES
    moved = b"".join(
        gate(CODE_0, HANDLERS + 16 * (6 if vector == 0 else vector), 14, dpl=3).to_bytes(8, "little")
        for vector in range(0x90)
    )
    kernel = Kernel(
        [
            Step(b"\xcd\x81", 3),
            Step(store(IDT_POINTER + 2, other) + lidt(IDT_POINTER)),
            Step(DIVIDE),
            Step(b"\xcd\x00", 3),
        ],
        octets={other: moved},
    )
    assert [row[0] for row in log(both(kernel)) if row[0] == 6] == [6, 6]


def test_iret_within_the_kernel_restores_if() -> None:
    body = push(0x202) + IRET_TO_NEXT[5:] + b"\x90" + DIVIDE
    rows = log(both(Kernel([Step(body), Step(b"\xfb\x90\xcd\x81" + DIVIDE), Step(b"\xfa" + DIVIDE)])))
    assert [row[4] & IF for row in rows] == [IF, IF, 0]


# -- the guest's descriptor tables --------------------------------------------------------------------------------------


def access_byte(selector: int) -> int:
    """The address of a descriptor's access byte."""
    return GDT + (selector & ~7) + 5


def write_byte(address: int, octet: int) -> bytes:
    """MOV byte [address], imm8."""
    return b"\xc6\x05" + word(address) + bytes([octet])


def test_accessed_bits_are_carried_back() -> None:
    kernel = Kernel(
        [Step(load_segment(4, SHORT_DATA | 3)), Step(load_segment(2, DATA_0_TOO)), Step(load_segment(5, 0x63))]
    )
    kernel.descriptors[0x60] = descriptor(0, 0xFFFFF, 2, dpl=3, granular=1)
    machine = both(kernel)
    for selector in (SHORT_DATA, DATA_0_TOO, 0x60):
        assert memory(machine, GDT + selector + 4) >> 8 & 1, hex(selector)
    assert memory(machine, GDT + TSS_SELECTOR + 4) >> 8 & 0xF == 11  # busy


def test_gdt_edited_in_place_counts_from_the_next_load() -> None:
    """FS keeps what it holds; the next load of the same selector sees the new descriptor."""
    use = b"\x64\xa1\x00\x00\x00\x00"
    steps = [
        Step(load_segment(4, SHORT_DATA | 3) + use),
        Step(store(GDT + SHORT_DATA, 0x1000 << 16 | 0xFFF)),
        Step(use),
        Step(load_segment(4, SHORT_DATA | 3) + use),
        Step(write_byte(access_byte(SHORT_DATA), 0x72)),
        Step(use),
        Step(load_segment(4, SHORT_DATA | 3)),
    ]
    assert traps(Kernel(steps)) == [(11, SHORT_DATA)]


def test_descriptor_of_the_running_code_and_stack_edited() -> None:
    """CS and SS go on with what they were loaded from; the fault comes when they are loaded again."""
    steps = [
        Step(write_byte(access_byte(DATA_0), 0x90) + b"\x50\x58" + write_byte(access_byte(DATA_0), 0x93)),
        Step(write_byte(access_byte(DATA_0), 0x90) + mov(EAX, DATA_0) + b"\x8e\xd0"),
        Step(write_byte(access_byte(DATA_0), 0x93) + mov(EAX, DATA_0) + b"\x8e\xd0" + b"\xcd\x81"),
        Step(write_byte(access_byte(CODE_0), 0x9A) + b"\x90" + write_byte(access_byte(CODE_0), 0x9A) + b"\xcd\x81"),
    ]
    assert traps(Kernel(steps)) == [(13, DATA_0)]


def test_kernel_segment_is_dropped_on_the_way_out_at_every_checkpoint() -> None:
    """A return to ring 3 nulls GS; the state right behind the emulated IRET, still within the VMM, must say so."""
    kernel = Kernel([Step(load_segment(5, CODE_0)), Step(b"\x90", 3)])
    comparison = compare(kernel, checkpoint=1)
    assert comparison.equal, "\n".join(comparison.report)


def test_gdt_moved_and_emptied() -> None:
    """A new table without the running selectors: CS and SS are detached, an interrupt finds its gate's segment gone."""
    pointer = DATA + 0x100
    steps = [
        Step(store(GDT_POINTER + 2, TABLES) + lgdt(GDT_POINTER) + b"\x90\x50\x58"),
        Step(load_segment(4, 0x68)),
        Step(b"\xcd\x81"),
        Step(b"\xcd\x81\xcd\x80", 3),
        Step(lgdt(pointer) + b"\x50\x58\x90"),
        Step(b"\x90"),
    ]
    kernel = Kernel(steps, octets={pointer: b"\x7f\x00" + word(GDT)})
    table = bytearray(0x80)
    for selector, value in kernel.gdt().items():
        if selector != TSS_SELECTOR:
            table[selector & ~7 : (selector & ~7) + 8] = value.to_bytes(8, "little")
    kernel.octets[TABLES] = bytes(table)
    assert traps(kernel)[0] == (13, 0x68)


def test_stack_in_the_page_of_the_gdt() -> None:
    """A delivery that pushes onto the traced page, and ordinary stores beside the table."""
    steps = [
        Step(load_segment(4, SHORT_DATA | 3)),
        Step(mov(ESP, GDT + 0x400) + b"\xcd\x81\x50\x58" + store(GDT + 0x200, 77) + load(EBX, GDT + 0x200)),
        Step(load_segment(4, SHORT_DATA | 3) + b"\x64\xa1\x00\x00\x00\x00"),
    ]
    machine = both(Kernel(steps))
    assert log(machine) == []
    assert memory(machine, GDT + 0x200) == 77


# -- paging ---------------------------------------------------------------------------------------------------------------


def entry(machine: Machine, page: int) -> int:
    """The page-table entry of a page."""
    return memory(machine, TABLE + (page >> 10))


def test_accessed_and_dirty_bits() -> None:
    pages = [PAGE, PAGE + 0x1000, PAGE + 0x2000]
    kernel = Kernel([Step(load(EAX, pages[0]), 3), Step(load(EAX, pages[1]) + store(pages[1], 1), 3)])
    machine = both(kernel)
    assert [entry(machine, page) & (PTE_A | PTE_D) for page in pages] == [PTE_A, PTE_A | PTE_D, 0]
    assert memory(machine, DIRECTORY) & (PTE_A | PTE_D) == PTE_A


def test_dirty_bit_cleared_and_set_again() -> None:
    address = TABLE + (PAGE >> 10)
    steps = [Step(store(PAGE, 1)), Step(store(address, PAGE | UP) + invlpg(PAGE)), Step(store(PAGE, 2))]
    steps += [Step(store(address, PAGE | UP) + set_cr(3, DIRECTORY)), Step(load(EAX, PAGE))]
    assert entry(both(Kernel(steps)), PAGE) & (PTE_A | PTE_D) == PTE_A


def test_unmapped_and_remapped_page() -> None:
    address = TABLE + (PAGE >> 10)
    steps = [
        Step(load(EAX, PAGE), 3),
        Step(store(address, 0) + invlpg(PAGE)),
        Step(load(EAX, PAGE), 3),
        Step(store(address, DATA | UP)),
        Step(load(EBX, PAGE) + save(DATA + 8, EBX), 3),
    ]
    machine = both(Kernel(steps, words={DATA: 0x1234, PAGE: 0x5678}))
    assert [row[:2] for row in log(machine) if row[0] == 14] == [(14, 4)]
    assert memory(machine, DATA + 8) == 0x1234


@pytest.mark.parametrize("ring", [0, 3])
def test_large_pages(ring: int) -> None:
    """Linear 4 MB to 8 MB map the same RAM by one 4 MB entry."""
    high = 0x400000
    kernel = Kernel(
        [Step(load(EAX, high + DATA) + save(DATA + 8, EAX), ring), Step(store(high + DATA + 4, 0x77), ring)],
        cr4=0x10,
        words={DIRECTORY + 4: UP | PTE_PS, DATA: 0x1234},
    )
    machine = both(kernel)
    assert (memory(machine, DATA + 8), memory(machine, DATA + 4)) == (0x1234, 0x77)
    assert memory(machine, DIRECTORY + 4) & (PTE_A | PTE_D) == PTE_A | PTE_D


def test_large_page_with_a_reserved_bit() -> None:
    kernel = Kernel([Step(load(EAX, 0x400000), 3)], cr4=0x10, words={DIRECTORY + 4: 1 << 21 | UP | PTE_PS})
    assert [row for row in traps(kernel) if row[0] == 14] == [(14, 0xD)]


def test_unpaged_guest() -> None:
    steps = [Step(load(EAX, DATA) + save(DATA + 8, EAX)), Step(DIVIDE, 3), Step(b"\xcd\x81", 3), Step(from_cr(0))]
    machine = both(Kernel(steps, paging=False, words={DATA: 0x1234}))
    assert memory(machine, DATA + 8) == 0x1234
    assert [row[0] for row in log(machine) if row[0] < 32] == [0, 0x80 & 0x7F]


def test_paging_off_and_on_again() -> None:
    steps = [Step(set_cr(0, 0x11) + load(EBX, PAGE) + set_cr(0, 0x8001_0011)), Step(load(EBX, PAGE))]
    assert traps(Kernel(steps, pages={PAGE: 0})) == [(14, 0)]


# -- single steps, time, ports --------------------------------------------------------------------------------------------


def test_single_step_of_a_user_program() -> None:
    """Every instruction traps with #DB; the handler goes to the next step, which clears TF."""
    rows = log(both(Kernel([Step(b"\x90\x90", 3, 0x302), Step(DIVIDE, 3)])))
    assert [row[0] for row in rows[:2]] == [1, 0]
    assert rows[0][4] & TF


def test_single_step_through_a_returning_handler() -> None:
    """#DB through a handler that returns: one for each instruction, also over those that the VMM emulates."""
    code = push(0x302) + push(CODE_0) + b"\xe8\x00\x00\x00\x00\x83\x04\x24\x05\xcf"
    code += b"\x90\x40\xfa\x90" + from_cr(0) + b"\x40\xe4\x80\x90"
    kernel = Kernel([Step(code)], gates={1: gate(CODE_0, HANDLERS + 0x81 * 16, 14)})
    machine = both(kernel)
    bare, _ = run(kernel, "native")
    assert memory(machine, 0x6020) == memory(bare, 0x6020) >= 8


def test_dr6_says_single_step() -> None:
    """BS is set in the virtual DR6, for a reflected trap and for one behind an emulated instruction."""
    read = b"\x0f\x21\xf0" + save(DATA, EAX) + b"\x31\xc0\x0f\x23\xf0"  # MOV EAX, DR6; then clear it
    stepped = push(0x302) + IRET_TO_NEXT[5:] + b"\xe4\x80\x90"
    machine = both(
        Kernel([Step(b"\x90\x90", 3, 0x302), Step(read), Step(stepped), Step(read.replace(word(DATA), word(DATA + 4)))])
    )
    assert [memory(machine, DATA + place) >> 14 & 1 for place in (0, 4)] == [1, 1]


def test_rdtsc_in_ring_3_under_tsd() -> None:
    kernel = Kernel([Step(b"\x0f\x31", 3), Step(b"\x0f\x31\x31\xc0\x31\xd2")], cr4=4)
    assert [row for row in traps(kernel) if row[0] == 13] == [(13, 0)]


def test_rdtsc_under_the_vmm_goes_on() -> None:
    twice = b"\x0f\x31" + save(DATA, EAX) + b"\x0f\x31" + save(DATA + 4, EAX)
    machine, result = run(Kernel([Step(twice)], cr4=4), "trap-and-emulate")
    assert result.outcome == "exited 1"
    assert memory(machine, DATA + 4) > memory(machine, DATA) > 0


@pytest.mark.parametrize(("flags", "faults"), [(0x202, 4), (0x3202, 0)])
def test_iopl_of_a_user_program(flags: int, faults: int) -> None:
    pieces = (b"\xe4\x80", b"\xe6\x80", b"\xfa", b"\xfb")
    rows = traps(Kernel([Step(piece, 3, flags) for piece in pieces]))
    assert [row for row in rows if row[0] == 13] == [(13, 0)] * faults


def test_user_who_may_clear_if() -> None:
    rows = log(both(Kernel([Step(b"\xfa\x90" + DIVIDE, 3, 0x3202), Step(b"\xfa\xfb\x90" + DIVIDE, 3, 0x3202)])))
    assert [row[4] & IF for row in rows if row[0] == 0] == [0, IF]


def test_io_permission_bitmap() -> None:
    bitmap = bytearray(b"\xff" * 0x22)
    bitmap[0x80 >> 3] = 0xFE  # port 0x80 is allowed, 0x81 is not
    kernel = Kernel(
        [
            Step(b"\xe4\x80", 3),
            Step(b"\xe4\x81", 3),
            Step(b"\xe6\x80", 3),
            Step(b"\x66\xe5\x80", 3),
            Step(b"\xe4\xe9", 3),
        ],
        octets={TSS + 102: b"\x68\x00", TSS + 0x68: bytes(bitmap)},
        tss_bytes=0x68 + 0x22,
    )
    assert [row[:2] for row in log(both(kernel)) if row[0] == 13] == [(13, 0)] * 3


def test_msrs() -> None:
    def write(number: int, value: int) -> bytes:
        return mov(ECX, number) + mov(EAX, value) + mov(EDX, 0) + b"\x0f\x30"

    read = b"".join(mov(ECX, number) + b"\x0f\x32" + save(DATA + 4 * number, EAX) for number in (0x174, 0x175, 0x176))
    steps = [
        Step(write(0x174, 8) + write(0x175, 0x1234) + write(0x176, 0x5678) + read),
        Step(mov(ECX, 5) + b"\x0f\x32"),
    ]
    machine = both(Kernel(steps))
    assert [memory(machine, DATA + 4 * number) for number in (0x174, 0x175, 0x176)] == [8, 0x1234, 0x5678]
    assert [row[:2] for row in log(machine)] == [(13, 0)]


def test_sysenter_and_sysexit() -> None:
    msrs = b"".join(
        mov(ECX, 0x174 + n) + mov(EAX, v) + mov(EDX, 0) + b"\x0f\x30" for n, v in enumerate((8, 0x7F00, TABLES))
    )
    kernel = Kernel(
        [
            Step(b"\x0f\x34", 3),
            Step(msrs),
            Step(mov(ECX, 0x30F00) + b"\x8d\x15" + word(0) + b"\x90\x0f\x34", 3),
            Step(b"\x90"),
        ],
        octets={TABLES: b"\xba" + word(TABLES + 0x100) + b"\x0f\x35", TABLES + 0x100: b"\x90\xcd\x80"},
    )
    rows = log(both(kernel))
    assert rows[0][:2] == (13, 0)
    assert rows[1][0] == 0x80 & 0x7F
    assert rows[1][2] == TABLES + 0x103


def test_log_and_stub_are_where_the_tests_think() -> None:
    assert stub(8)[:1] == b"\x6a"
    assert len(stub(0)) <= 16
    assert start(Kernel([])).memory_bytes == RAM_BYTES > COMMON
    assert DATA_3 & 3 == 3
    assert EBX != EDX


# -- debug registers -------------------------------------------------------------------------------------------------------


def to_dr(number: int, value: int) -> bytes:
    """MOV EAX, imm32 and MOV DRn, EAX."""
    return mov(EAX, value) + bytes([0x0F, 0x23, 0xC0 | number << 3])


def test_instruction_breakpoint_under_the_vmm() -> None:
    """A breakpoint on a user's page is met, logged and seen in DR6 just as on the bare machine; then GD."""
    read = b"\x0f\x21\xf0" + save(DATA, EAX)
    target = 0x30000
    jump_there = b"\xb8" + word(target) + b"\xff\xe0"
    steps = [
        Step(to_dr(0, target + 1) + to_dr(7, 1)),
        Step(jump_there, 3),
        Step(to_dr(7, 0) + read),
        Step(to_dr(7, 0x2000)),
        Step(read),
    ]
    machine = both(Kernel(steps, octets={target: b"\x40\x40\xcd\x80"}))
    assert memory(machine, DATA) & 0xE00F == 1
    rows = [row for row in log(machine) if row[0] == 1]
    assert rows[0][2] == target + 1 and len(rows) == 2
