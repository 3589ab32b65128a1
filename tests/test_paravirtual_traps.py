"""Traps of domains: each exception from ring 1 and ring 3, masks, INT n, the fast system call, iret, and what ends a domain."""

import pytest
from paravirtual_kernel import (
    DATA,
    FAILSAFE,
    FLAT_RING1_CS,
    FLAT_RING1_DS,
    FLAT_RING3_CS,
    FLAT_RING3_DS,
    IF,
    KERNEL_STACK,
    M32,
    MAX_CYCLES,
    START,
    STEPS,
    USER_STACK,
    Kernel,
    Step,
    calls,
    entry_of,
    hypercall,
    log,
    results,
    run,
    start,
    words_of,
)
from small_kernel import EAX, EBX, ESP, mov, push, store, word

from x86virt.isa.events import EVENT_ID
from x86virt.vmm.paravirtual.interface import EFAULT, EINVAL, NUMBER_OF, TI_MASK_EVENTS

RF, TF, AC = 1 << 16, 1 << 8, 1 << 18
ABSENT = 0x700000  # no page is mapped from 4 MB on
VIRT_START = 0xFC000000
RINGS = {1: (FLAT_RING1_CS, FLAT_RING1_DS), 3: (FLAT_RING3_CS, FLAT_RING3_DS)}
STEP_HEAD = 10  # bytes of a step in ring 1 before its own code
USER_HEAD = STEP_HEAD + 26

# Vector -> code, where in it EIP stands, the error code, whether RF is set in the image.
EXCEPTIONS = {
    0: (b"\x31\xc0\xf7\xf0", 2, None, RF),  # XOR EAX, EAX; DIV EAX
    1: (push(0x302) + b"\x9d\x90\x90", 7, None, 0),  # POPF with TF; NOP
    3: (b"\x90\xcc", 2, None, 0),
    4: (b"\xb0\x7f\x04\x01\xce", 5, None, 0),  # MOV AL, 7F; ADD AL, 1; INTO
    5: (mov(EAX, 9) + b"\x62\x05" + word(0x6900), 5, None, RF),  # BOUND, between the words there, which are 0
    6: (b"\x40\x0f\x0b", 1, None, RF),
    13: (b"\x90\xf4", 1, 0, RF),
    14: (b"\xa1" + word(ABSENT), 0, 0, RF),
}


def only_row(machine):
    """The one trap that was logged."""
    (row,) = log(machine)
    return row


def head(ring: int) -> int:
    """Where the code of the first step begins."""
    return STEPS + (STEP_HEAD if ring == 1 else USER_HEAD)


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("vector", EXCEPTIONS)
def test_an_exception_is_delivered_on_the_kernels_stack(vector: int, ring: int) -> None:
    """The frame is the processor's: error code, EIP, CS, EFLAGS, and from ring 3 ESP and SS; the handler has a full stack."""
    code, offset, error, resume = EXCEPTIONS[vector]
    machine, result = run(Kernel([Step(b"\xfc" + mov(EBX, 5) + code, ring)]))
    assert result.outcome == "exited 1"
    row = only_row(machine)
    cs, ss = RINGS[ring]
    eip = head(ring) + 6 + offset
    assert row[0] == vector
    rest = row[1:]
    if error is not None:
        expected = error | (4 if vector == 14 and ring == 3 else 0)
        assert rest[0] == expected
        rest = rest[1:]
    assert rest[0] == eip
    assert rest[1] & 0xFFFF == cs
    assert rest[2] & (RF | TF) == resume | (TF if vector == 1 else 0)
    assert rest[2] & 0x3000 == 0  # IOPL
    if ring == 3:
        assert rest[3:5] == [USER_STACK, ss]
    if vector == 14:
        assert int(machine.vm.domains[1].cr2) == ABSENT


@pytest.mark.parametrize("ring", RINGS)
def test_an_x87_instruction_traps_once_task_switched_is_set(ring: int) -> None:
    """fpu_taskswitch(1): #NM, which clears it again; without it the instruction executes."""
    steps = [Step(hypercall("fpu_taskswitch", 1)), Step(b"\xd9\xe8", ring), Step(b"\xd9\xe8", ring), Step(b"\xcc")]
    machine, result = run(
        Kernel([*steps, Step(hypercall("fpu_taskswitch", 1) + hypercall("fpu_taskswitch", 0) + b"\xd9\xe8\xcc")])
    )
    assert result.outcome == "exited 1"
    expected = [7, 0x80, 3, 3] if ring == 3 else [7, 3, 3]
    assert [row[0] for row in log(machine)] == expected


def test_an_unmasked_x87_exception_comes_as_16() -> None:
    """FLDCW, a division by zero, and FWAIT."""
    code = store(DATA, 0x300) + b"\xdb\xe3\xd9\x2d" + word(DATA) + b"\xd9\xe8\xd9\xee\xde\xf9\x9b"
    machine, _ = run(Kernel([Step(code)]))
    assert only_row(machine)[:2] == [16, head(1) + len(code) - 1]


def test_a_misaligned_access_of_a_program_comes_as_17() -> None:
    """EFLAGS.AC counts in ring 3 alone, and CR0.AM is on."""
    code = push(0x202 | AC) + b"\x9d\xa1" + word(DATA + 1)
    machine, result = run(Kernel([Step(code + push(0x202) + b"\x9d"), Step(code, 3)]))
    assert result.outcome == "exited 1"
    assert only_row(machine)[:3] == [17, 0, int(only_row(machine)[2])]


def test_string_instructions_restart_where_they_faulted() -> None:
    """A fault in the midst of REP STOSD: EIP is at it, ECX says what is left."""
    code = b"\xfc" + mov(1, 8) + mov(7, 0x3FFFF0) + b"\x8c\xd8\xf3\xab"
    machine, result = run(Kernel([Step(code)]))
    assert result.outcome == "exited 1"
    row = only_row(machine)
    assert row[0] == 14 and row[1] == 2 and int(machine.vm.domains[1].cr2) == 0x400000


# -- masks ----------------------------------------------------------------------------------------------------------------


def masked(mask: int, code: bytes) -> bytes:
    """Code that runs with the upcall mask as given: the iret hypercall sets it by IF."""
    flags = 0x2 | (0 if mask else IF)
    place = b"\xe8\x00\x00\x00\x00\x58\x83\xc0"  # CALL behind; POP EAX; ADD EAX, imm8
    body = push(flags) + push(FLAT_RING1_CS) + b"\x50\x50" + mov(EAX, NUMBER_OF["iret"]) + b"\xcd\x82"
    return place + bytes([4 + len(body)]) + body + code


@pytest.mark.parametrize("mask", (0, 1))
@pytest.mark.parametrize("flag", (0, TI_MASK_EVENTS))
def test_the_upcall_mask_stands_beside_cs_and_in_if(mask: int, flag: int) -> None:
    """Bits 23:16 of the doubleword of CS are the mask as it was, IF its opposite; TI_MASK_EVENTS sets it for the handler."""
    machine, result = run(Kernel([Step(masked(mask, b"\x0f\x0b")), Step(b"\x0f\x0b")], flags=flag))
    assert result.outcome == "exited 1"
    first, second = log(machine)
    behind = mask | int(flag != 0)  # the first handler went on without a return
    assert first[2] == FLAT_RING1_CS | mask << 16 and first[3] & IF == (0 if mask else IF)
    assert second[2] == FLAT_RING1_CS | behind << 16 and second[3] & IF == (0 if behind else IF)


# -- INT n ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ring", RINGS)
@pytest.mark.parametrize("dpl", range(4))
def test_the_trap_tables_dpl_decides_who_may_interrupt(ring: int, dpl: int) -> None:
    """INT n needs a DPL of 1 in ring 1, of 3 in ring 3; else it is #GP with the vector, EIP at it."""
    machine, result = run(Kernel([Step(b"\xcd\x90", ring)], traps={0x90: (dpl, FLAT_RING1_CS, entry_of(0x90))}))
    assert result.outcome == "exited 1"
    row = log(machine)[0]
    if dpl >= ring:
        assert row[0] == 0x90 and row[1] == head(ring) + 2
    else:
        assert row[0] == 13 and row[1:3] == [0x90 << 3 | 2, head(ring)]


@pytest.mark.parametrize("first", range(0, 256, 64))
def test_no_gate_of_the_vmm_is_open(first: int) -> None:
    """INT n of a vector that the trap table does not open is #GP, whatever the VMM or the machine uses it for."""
    vectors = [vector for vector in range(first, first + 64) if vector not in (3, 4, 0x80, 0x82)]
    steps = [Step(bytes([0xCD, vector]), ring) for vector in vectors for ring in (1, 3)]
    machine, result = run(Kernel(steps, traps={0x81: (0, FLAT_RING1_CS, entry_of(0x81))}))
    assert result.outcome == "exited 1"
    assert [row[:2] for row in log(machine)] == [[13, vector << 3 | 2] for vector in vectors for _ in (1, 3)]


def test_hypercalls_are_the_kernels() -> None:
    """INT 0x82 in ring 3 is #GP; a trap table that opens the vector gets it."""
    machine, result = run(Kernel([Step(hypercall("stack_switch", 0, 0), 3)]))
    assert result.outcome == "exited 1" and only_row(machine)[:2] == [13, 0x82 << 3 | 2]
    assert int(machine.vm.domains[1].kernel_esp) == KERNEL_STACK
    machine, result = run(Kernel([Step(b"\xcd\x82", 3)], traps={0x82: (3, FLAT_RING1_CS, entry_of(0x82))}))
    assert result.outcome == "exited 1" and only_row(machine)[0] == 0x82


@pytest.mark.parametrize("flags, direct", [(3, True), (3 | TI_MASK_EVENTS, False)])
def test_the_fast_system_call_does_not_come_by_the_vmm(flags: int, direct: bool) -> None:
    """INT 0x80 goes straight to ring 1 unless events are to be masked; the frame is the same."""
    machine, result = run(Kernel([Step(b"\x90", 3)], traps={0x80: (flags, FLAT_RING1_CS, entry_of(0x80))}))
    assert result.outcome == "exited 1"
    row = only_row(machine)
    assert (
        row[0] == 0x80
        and row[1] == head(3) + 3
        and row[2] & 0xFFFF == FLAT_RING3_CS
        and row[4:6] == [USER_STACK, FLAT_RING3_DS]
    )
    assert int(machine.vm.processor.cpu.ledger_count[EVENT_ID["vmm.bounce"]].sum()) == 1 - direct


def test_a_gate_cannot_be_had_into_the_vmm() -> None:
    """The selector of a fast trap is one of the guest's: the VMM's own code segment is refused, and then comes as #GP."""
    for selector in (0xFFC0, 0xFFC1, 0xE02B, 0xE008):
        machine, result = run(Kernel([Step(b"\x90", 3)], traps={0x80: (3, selector, entry_of(0x80))}))
        assert result.outcome.startswith("crashed: ") or log(machine)[0][0] != 0x80, (selector, result.outcome)


# -- iret -----------------------------------------------------------------------------------------------------------------


def iret(*words: int) -> bytes:
    """The iret hypercall with these words on the stack, EAX lowest."""
    return b"".join(push(value) for value in reversed(words)) + mov(EAX, NUMBER_OF["iret"]) + b"\xcd\x82"


def test_iret_returns_to_ring_1_with_eax() -> None:
    """EAX comes from the stack; IOPL cannot be had, the mask follows IF."""
    landing = STEPS + 0x100
    machine, result = run(
        Kernel(
            [Step(iret(0xCAFE, landing, FLAT_RING1_CS, 0x3002))],
            octets={landing: b"\xa3" + word(DATA) + b"\x9c\x0f\x0b"},
        )
    )
    assert result.outcome == "exited 1" and words_of(machine, DATA, 1) == [0xCAFE]
    row = only_row(machine)
    assert row[0] == 6 and row[2] == FLAT_RING1_CS | 1 << 16 and row[4] & 0x3200 == IF  # PUSHF: the processor's own


def test_iret_returns_to_ring_3() -> None:
    """ESP and SS come from the stack too."""
    landing = STEPS + 0x100
    code = iret(1, landing, FLAT_RING3_CS, 0x202, USER_STACK - 8, FLAT_RING3_DS)
    machine, result = run(Kernel([Step(code)], octets={landing: b"\x0f\x0b"}))
    assert result.outcome == "exited 1"
    assert only_row(machine)[:6] == [6, landing, FLAT_RING3_CS, 0x10202, USER_STACK - 8, FLAT_RING3_DS]


@pytest.mark.parametrize(
    "code, why",
    [
        (iret(1, START, 0xE018, 2), "an iret hypercall found no frame"),  # ring 0
        (iret(1, START, FLAT_RING1_CS, 0x20002), "an iret hypercall found no frame"),  # virtual-8086 mode
        (mov(ESP, VIRT_START - 36) + mov(EAX, 23) + b"\xcd\x82", "an iret hypercall found no frame"),
        (mov(ESP, ABSENT) + mov(EAX, 23) + b"\xcd\x82", "an iret hypercall found no frame"),
        (mov(ESP, M32 - 3) + mov(EAX, 23) + b"\xcd\x82", "an iret hypercall found no frame"),
        (mov(ESP, ABSENT) + b"\x0f\x0b", "its kernel's stack for traps could not be written"),
        (mov(ESP, 4) + b"\x0f\x0b", "its kernel's stack for traps could not be written"),  # around address 0
        (mov(ESP, VIRT_START + 0x1000) + b"\x0f\x0b", "its kernel's stack for traps could not be written"),
        (mov(ESP, 0xFFFFF000) + b"\x0f\x0b", "its kernel's stack for traps could not be written"),
        (hypercall("set_trap_table", 0) + b"\x0f\x0b", "an exception found no handler"),
        (hypercall("set_callbacks", 0, 0, 0, 0) + iret(1, START, 0x1001, 2), "its failsafe callback could not be"),
        (hypercall("set_callbacks", 0, 0, 0x1001, START) + iret(1, START, 0x1001, 2), "its failsafe callback could not be"),
    ],
)  # fmt: skip
def test_a_kernel_without_stack_or_handler_is_crashed(code: bytes, why: str) -> None:
    """The domain ends, named; the VMM and Python do not."""
    machine, result = run(Kernel([Step(code)]))
    assert result.outcome.startswith(f"crashed: {why}"), result.outcome
    assert result.exit_code is None


@pytest.mark.parametrize("stack", [ABSENT, 8, VIRT_START + 0x2000, 0xFFC07000, M32])
@pytest.mark.parametrize("selector", [FLAT_RING1_DS])
def test_a_bad_kernel_stack_costs_a_domain_its_life_in_ring_3(stack: int, selector: int) -> None:
    """The stack that stack_switch names is looked at when a program traps, not before."""
    machine, result = run(Kernel([Step(calls(hypercall("stack_switch", selector, stack))), Step(b"\x0f\x0b", 3)]))
    assert results(machine, 1) == [0]
    assert result.outcome == "crashed: its kernel's stack for traps could not be written"


@pytest.mark.parametrize("selector", [0, 1, FLAT_RING1_CS, FLAT_RING3_CS, 0x1001, 0xFFC8, 0xFFC9, 0xFFD0, 0x7])
def test_a_bad_stack_selector_likewise(selector: int) -> None:
    """Null, code, absent, the VMM's own, its TSS, the LDT that there is not."""
    machine, result = run(Kernel([Step(hypercall("stack_switch", selector, KERNEL_STACK)), Step(b"\x0f\x0b", 3)]))
    assert result.outcome == "crashed: its kernel's stack for traps could not be written"
    assert int(machine.vm.domains[1].kernel_ss) & 3 != 0  # ring 0's cannot be had


# -- the failsafe callback ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cs, ring", [(0x1001, 1), (0x2B, 3), (FLAT_RING1_DS, 1), (FLAT_RING3_DS, 3)])
def test_a_frame_that_cannot_be_returned_to_goes_to_the_failsafe_callback(cs: int, ring: int) -> None:
    """Its frame has DS, ES, FS and GS below the return frame, which is as the kernel gave it."""
    words = (1, START, cs, 0x202) + ((USER_STACK, FLAT_RING3_DS) if ring == 3 else ())
    machine, result = run(Kernel([Step(iret(*words))]))
    assert result.outcome == "exited 1"
    row = only_row(machine)
    assert row[0] == FAILSAFE and row[1:5] == [FLAT_RING3_DS] * 4
    assert row[5:8] == [START, cs, 0x202]
    if ring == 3:
        assert row[8:10] == [USER_STACK, FLAT_RING3_DS]


def test_a_bad_outer_stack_goes_there_too() -> None:
    """SS of ring 1 in a frame for ring 3."""
    machine, result = run(Kernel([Step(iret(1, START, FLAT_RING3_CS, 0x202, USER_STACK, FLAT_RING1_DS))]))
    assert result.outcome == "exited 1" and only_row(machine)[0] == FAILSAFE


def test_the_failsafe_callback_may_mask_events() -> None:
    """callback_op with CALLBACKF_mask_events; its next exception shows the mask."""
    register = store(DATA, 1 | 1 << 16) + store(DATA + 4, FLAT_RING1_CS) + store(DATA + 8, entry_of(FAILSAFE))
    machine, result = run(
        Kernel(
            [Step(register + hypercall("callback_op", 0, DATA)), Step(iret(1, START, 0x1001, 0x202)), Step(b"\xcc")],
            flags=0,
        )
    )
    assert result.outcome == "exited 1"
    assert [row[0] for row in log(machine)] == [FAILSAFE, 3] and log(machine)[1][2] == FLAT_RING1_CS | 1 << 16


# -- the trap table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [ABSENT, VIRT_START, VIRT_START - 4, 0xFFFFFFFC, 0xFFC02000])
def test_a_trap_table_that_cannot_be_read_is_refused(address: int) -> None:
    """-EFAULT; the old entries stay."""
    machine, result = run(Kernel([Step(calls(hypercall("set_trap_table", address))), Step(b"\xcc")]))
    assert result.outcome == "exited 1" and results(machine, 1) == [-EFAULT] and log(machine)[-1][0] == 3


def test_a_trap_table_without_end_is_refused() -> None:
    """Memory full of entries: it is given up after so many."""
    table = 0x100000
    fill = mov(EAX, 0xE0190003) + b"\xfc" + mov(7, table) + mov(1, 0x10000) + b"\xf3\xab"
    machine, result = run(Kernel([Step(fill + calls(hypercall("set_trap_table", table)))]))
    assert result.outcome == "exited 1" and results(machine, 1) == [-EINVAL]


def test_selectors_of_handlers_are_the_kernels() -> None:
    """A handler's RPL of 0 becomes 1, in the table, in callbacks and for the stack."""
    traps = {3: (3, FLAT_RING1_CS & ~3, entry_of(3))}
    code = hypercall("set_callbacks", FLAT_RING1_CS & ~3, 1, FLAT_RING1_CS & ~3, 2) + hypercall(
        "stack_switch", FLAT_RING1_DS & ~3, KERNEL_STACK
    )
    machine, result = run(Kernel([Step(b"\xcc"), Step(code)], traps=traps))
    domain = machine.vm.domains[1]
    assert result.outcome == "exited 1" and log(machine)[0][0] == 3
    assert [int(domain[name]) for name in ("event_cs", "failsafe_cs", "kernel_ss")] == [
        FLAT_RING1_CS,
        FLAT_RING1_CS,
        FLAT_RING1_DS,
    ]


def test_an_empty_trap_table_clears_all() -> None:
    """A null pointer; INT 0x80 is closed too."""
    machine, result = run(Kernel([Step(calls(hypercall("set_trap_table", 0)))]))
    assert result.outcome == "exited 1" and results(machine, 1) == [0]
    assert not machine.vm.domains[1].trap_eip.any()


# -- all of it, otherwise -------------------------------------------------------------------------------------------------

TOUR = [
    *(Step(b"\xfc" + code, ring) for code, *_ in EXCEPTIONS.values() for ring in RINGS), Step(b"\x90", 3), Step(b"\xcd\x81", 3),
    Step(hypercall("fpu_taskswitch", 1) + b"\xd9\xe8"), Step(b"\x0f\x20\xc0\xe6\x80\xf4"), Step(iret(1, START, 0x1001, 0x202)),
    Step(b"\x0f\x0bxen\x0f\xa2\xcc"), Step(calls(hypercall("set_trap_table", ABSENT), hypercall(99)), 1),
]  # fmt: skip


def outcome_of(machine, result) -> tuple:
    """What a run came to, to the last tick."""
    return result.outcome, result.instructions, result.ticks, result.ledger, log(machine), result.exits


def test_pae_makes_no_difference_to_traps() -> None:
    """The same log under PAE paging."""
    one, two = (run(Kernel(TOUR, is_pae=is_pae)) for is_pae in (False, True))
    assert log(one[0]) == log(two[0]) and len(log(one[0])) > 20
    assert one[1].outcome == two[1].outcome == "exited 1"


def test_hooks_in_python_come_to_the_same() -> None:
    """Each exit by way of a strategy's hook: the same ticks, ledger and log as the loop in machine code."""
    fast = outcome_of(*run(Kernel(TOUR)))
    machine = start(Kernel(TOUR))
    machine.exits_in_code.wanted = False
    assert outcome_of(machine, machine.run(MAX_CYCLES)) == fast
