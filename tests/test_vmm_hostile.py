"""Guests that attack a software VMM, under every strategy: the outcome is the bare machine's, or is declared.

Every kernel also runs with the check of isolation at every access: none reaches a frame that is not the guest's.
"""

from __future__ import annotations

import pytest
from descriptor_machine import descriptor, gate
from small_kernel import (
    CODE_0,
    CODE_3,
    COMMON,
    DATA,
    DIRECTORY,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    ESI,
    ESP,
    GDT,
    HANDLERS,
    IDT,
    TABLE,
    TABLES,
    TSS,
    Kernel,
    Step,
    far_jump,
    invlpg,
    load,
    load_segment,
    log,
    mov,
    push,
    run,
    store,
    strategy,
    word,
)
from vmm_judge import EQUAL, VARIANTS, VMMS, isolated, judge
from vmm_pieces import CALL_EBX, ROUTINES, UP, furnished, index

from x86virt.isa.registers import EFLAGS_RF
from x86virt.vmm import layout

TOP = layout.VMM_BASE
OWN_SELECTORS = range(layout.FIRST_VMM_SELECTOR, 0x10000, 8)


def attack(kernel: Kernel, under: str, checkpoint: int = 64) -> str:
    """Isolation holds and the outcome is the bare machine's, or that of a declared divergence, or planned; says which."""
    isolated(kernel, under)
    return judge(kernel, under, checkpoint).kind


# -- the top of the linear space --------------------------------------------------------------------------------------


def accesses(address: int) -> dict[str, bytes]:
    """Ways to reach an address."""
    return {
        "load": load(EAX, address), "store": store(address, 0x41414141), "byte": b"\xa0" + word(address),
        "read-modify-write": b"\xff\x05" + word(address), "locked": b"\xf0\x0f\xba\x2d" + word(address) + b"\x07",
        "push": mov(ESP, address + 4) + b"\x50", "pop": mov(ESP, address) + b"\x58",
        "through ebp": mov(EBP, address) + b"\x8b\x45\x00",
        "call": mov(EAX, address) + b"\xff\xd0", "jump": mov(EAX, address) + b"\xff\xe0", "far jump": far_jump(CODE_0, address),
        "return": push(address) + b"\xc3", "indirect": b"\xff\x25" + word(address), "code": b"\x2e" + load(EBX, address),
        "string": mov(EDI, address) + mov(ECX, 3) + b"\xfc\xf3\xab",
        "string down": mov(EDI, address) + mov(ECX, 3) + b"\xfd\xf3\xab\xfc",
        "copy": mov(ESI, address) + mov(EDI, DATA) + b"\xfc\xa5", "enter": mov(ESP, address + 8) + b"\xc8\x10\x00\x00",
        "x87": b"\xd9\xe8\xdd\x1d" + word(address), "invlpg": invlpg(address) + b"\x40",
        "descriptor table": b"\x0f\x01\x15" + word(address),
        "wrap": mov(EBX, 0x10) + b"\x8b\x83" + word(address - 0x10), "fs": b"\x64" + load(EAX, address),
    }  # fmt: skip


EDGES = (TOP - 4, TOP - 1, TOP, TOP + 0x2000, 0xFFFFFFFC, 0xFFFFFFFE, 0xFFFFFFFF)
TOP_TABLE, TOP_FRAMES = 0x46000, 0x70000  # a table that maps the last 8 MB onto four frames
STACKS = ("push", "pop", "enter")  # a fault in ring 0 with such a stack is the guest's last


def top_kernels(name: str, mapped: bool) -> list[Kernel]:
    """The access at every edge and in both rings, each behind the other where the guest survives it."""
    words = {DIRECTORY + 4 * ((TOP >> 22) - number): TOP_TABLE | UP for number in range(2)} if mapped else {}
    octets = {TOP_TABLE: b"".join(word(TOP_FRAMES + 0x1000 * (number % 4) | UP) for number in range(1024))}
    octets |= {TOP_FRAMES + 0x1000 * number: b"\x40\xcd\x81\xcd\x80" for number in range(4)}
    steps = [Step(accesses(address)[name], ring) for address in EDGES for ring in (3, 0)]
    groups = [[step] for step in steps] if name in STACKS else [steps]
    return [Kernel([*group, Step(b"\x40\xcd\x81", 3)], words=words, octets=octets) for group in groups]


@pytest.mark.parametrize("under", VMMS)
@pytest.mark.parametrize("mapped", (False, True), ids=("holes", "mapped"))
@pytest.mark.parametrize("name", accesses(0))
def test_accesses_around_the_top_of_the_segments(name: str, mapped: bool, under: str) -> None:
    """The guest's own tables decide what is at the VMM's addresses."""
    for kernel in top_kernels(name, mapped):
        assert attack(kernel, under) == EQUAL


# -- selectors --------------------------------------------------------------------------------------------------------


def selector_steps(own: int, ring: int) -> list[Step]:
    """A selector loaded in every way, with every RPL."""
    steps = []
    for selector in (own | rpl for rpl in range(4)):
        steps += [Step(load_segment(segment, selector), ring) for segment in (0, 2, 5)]
        steps += [Step(far_jump(selector, 0), ring), Step(push(selector) + b"\x07", ring)]
    return steps


@pytest.mark.parametrize("under", VMMS)
@pytest.mark.parametrize("ring", (0, 3))
def test_the_vmms_selectors_are_none_of_the_guests(ring: int, under: str) -> None:
    """They fault as selectors beyond the guest's table, which they are.

    A program runs first: before the kernel's first return its CS and SS may still hang on two of them.
    """
    for own in OWN_SELECTORS:
        assert attack(Kernel([Step(b"\x90", 3), *selector_steps(own, ring)]), under) == EQUAL, hex(own)
    machine, _ = run(Kernel(selector_steps(OWN_SELECTORS[0], ring)), under)
    assert log(machine)[0][:2] == (13, layout.FIRST_VMM_SELECTOR)


BEYOND = 0xFFF8  # a selector beyond any table, which is no error code that VM entry may inject
FAR = TABLES - GDT + 8  # one of a descriptor in a page that nothing else touches
# What raises an event, the gates that it is to go through, and what is logged: vector and error code.
INTERRUPTED = {
    "page fault without a gate": (load(EAX, 0x500000), {14: 0}, (8, 0)),
    "page fault through an absent gate": (load(EAX, 0x500000), {14: gate(CODE_0, 0, 14, present=0)}, (8, 0)),
    "INT n through a gate to nowhere": (b"\xcd\x85", {0x85: gate(BEYOND, 0, 14, dpl=3), 13: 0}, (8, 0)),
    "INT n through a gate to no code": (b"\xcd\x85", {0x85: gate(FAR, 0, 14, dpl=3), 13: 0}, (8, 0)),
    "INT n to a selector of all ones": (b"\xcd\x85", {0x85: gate(BEYOND, 0, 14, dpl=3)}, (13, BEYOND)),
    "#UD to a selector of all ones": (b"\x0f\x0b", {6: gate(BEYOND, 0, 14)}, (13, BEYOND | 1)),
}


@pytest.mark.parametrize("under", VMMS)
@pytest.mark.parametrize("ring", (0, 3))
@pytest.mark.parametrize("name", INTERRUPTED)
def test_what_arises_as_an_event_is_delivered(name: str, ring: int, under: str) -> None:
    """With tables that no nested or shadow table maps yet, and again. A double fault pushes the guest's own RF."""
    code, gates, (vector, error) = INTERRUPTED[name]
    attempts = [Step(code, ring), Step(code, ring)]
    for steps in (attempts, [Step(b"\x90", 3), *attempts]):
        kernel = Kernel([*steps, Step(b"\x90", 3)], gates=gates, gdt_bytes=FAR + 8)
        assert attack(kernel, under, 1) == EQUAL
        machine, _ = run(kernel, under)
        found = [entry for entry in log(machine) if entry[0] in (8, 13)]
        assert [entry[:2] for entry in found] == [(vector, error)] * 2
        assert {bool(entry[4] & EFLAGS_RF) for entry in found} == {vector == 13}


@pytest.mark.parametrize("under", VMMS)
@pytest.mark.parametrize("kind", range(16))
def test_descriptors_of_every_kind_are_loaded(kind: int, under: str) -> None:
    """Code, data and system descriptors of every type, privilege and presence into every register, in both rings."""
    variants = dict(zip((0x60, 0x68, 0x70, 0x78), ((0, 1, 1), (3, 1, 1), (3, 0, 1), (0, 1, 0)), strict=True))
    kernel = furnished([])
    for selector, (dpl, present, segment) in variants.items():
        kernel.descriptors[selector] = descriptor(DATA, 0xFFF, kind, s=segment, dpl=dpl, present=present)
        for ring, rpl in ((0, 0), (3, 3), (0, 3), (3, 0)):
            loads = [load_segment(number, selector | rpl) for number in (0, 2, 3, 4, 5)]
            kernel.steps += [Step(code + b"\x90", ring) for code in (*loads, far_jump(selector | rpl, 0x40))]
    kernel.octets[DATA + 0x40] = b"\xcd\x80"
    assert attack(kernel, under) == EQUAL


# -- tables modified from user mode -----------------------------------------------------------------------------------

TABLE_ATTACKS = {
    "page table": [Step(store(TABLE + index(0x88000), 0) , 3), Step(invlpg(0x88000)), Step(load(EAX, 0x88000), 3)],
    "present by a user": [Step(load(EAX, 0x88000), 3), Step(store(TABLE + index(0x88000), DATA | UP) + load(EAX, 0x88000), 3)],
    "a user maps the tables": [
        Step(load(EAX, 0x88000), 3),
        Step(store(TABLE + index(0x88000), TABLE | UP) + store(0x88000 + index(0x89000), DATA | UP) + store(0x89000, 7), 3),
    ],
    "directory": [Step(store(DIRECTORY + 12, TABLE | UP) + load(EAX, 0xC00000 + DATA) + store(0xC00000 + DATA, 3), 3)],
    "GDT": [
        Step(store(GDT + 0x60, 0x1000 << 16 | 0xFFF) + store(GDT + 0x64, 0xF202) + load_segment(4, 0x63), 3),
        Step(b"\x64" + load(EAX, 0x10), 3),
        Step(store(GDT + CODE_0 + 4, 0), 3), Step(b"\x90", 3),
    ],
    "user code segment": [Step(store(GDT + (CODE_3 & ~7), 0) + b"\x90\xcd\x81", 3), Step(b"\x90", 3), Step(b"\x90", 3)],
    "IDT": [Step(store(IDT + 0x85 * 8 + 4, 0xEE00) + b"\xcd\x85", 3), Step(store(IDT + 14 * 8 + 4, 0) + load(EAX, 0x500000), 3)],
    "IDT to the top": [Step(store(IDT + 0x81 * 8, CODE_0 << 16) + store(IDT + 0x81 * 8 + 4, TOP | 0xEE00) + b"\xcd\x81", 3)],
    "TSS": [Step(store(TSS + 4, 0x7800) + b"\xcd\x81", 3), Step(store(TSS + 8, 0), 3), Step(b"\x90", 3)],
    "TSS stack at the top": [Step(store(TSS + 4, TOP) + b"\xcd\x81", 3)],
    "handlers": [Step(store(HANDLERS + 16 * 0x81, 0xCF) + b"\xcd\x81", 3), Step(store(COMMON, 0x90909060) + b"\x0f\x0b", 3)],
}  # fmt: skip


@pytest.mark.parametrize("under", VMMS)
@pytest.mark.parametrize("name", TABLE_ATTACKS)
def test_tables_modified_from_user_mode(name: str, under: str) -> None:
    pages = {0x88000: 0} if name in ("present by a user", "a user maps the tables") else {}
    kernel = Kernel(TABLE_ATTACKS[name], pages=pages)
    assert attack(kernel, under, 8) == EQUAL


# -- code -------------------------------------------------------------------------------------------------------------

# With a cache that holds a few units, and with tables that are watched in other ways.
TIGHT = tuple(name for name in VARIANTS if "-translation," in name and ("tc_size" in name or "shadow=" in name))
MANY = 0x70000  # where copies of routines go


def copies(count: int, spacing: int, rounds: int) -> bytes:
    """Copy a routine to so many places and call each, so many times over: more code than a cache of translations holds."""
    inside = mov(ESI, ROUTINES) + mov(ECX, 2) + b"\x57\xfc\xf3\xa4\x5b" + CALL_EBX  # PUSH EDI; MOVSB; POP EBX; CALL
    inside += b"\x8d\xbb" + word(spacing) + b"\x81\xff" + word(MANY + count * spacing)  # LEA EDI, [EBX+n]; CMP EDI, end
    one_round = mov(EDI, MANY) + inside + b"\x72" + bytes([-(len(inside) + 2) & 0xFF])
    return one_round * rounds


@pytest.mark.parametrize("under", (*VMMS, *TIGHT))
@pytest.mark.parametrize("ring", (0, 3))
def test_a_cache_of_translations_is_filled(ring: int, under: str) -> None:
    assert attack(furnished([Step(copies(1500, 0x20, 2), ring)]), under) == EQUAL


@pytest.mark.parametrize("under", (*VMMS, *TIGHT))
@pytest.mark.parametrize("ring", (0, 3))
def test_code_that_is_executed_at_every_offset(ring: int, under: str) -> None:
    """Every byte of some pages is an entry: bytes overlap as instructions in all ways that decode."""
    code = bytes(0x40 + (7 * place + (place >> 4)) % 8 for place in range(0x400)) + b"\xc3"
    enter = b"".join(mov(EBX, MANY + offset) + CALL_EBX for offset in range(0, 0x400, 11))
    kernel = furnished([Step(enter, ring)])
    kernel.octets[MANY] = code.replace(b"\x44", b"\x90").replace(b"\x43", b"\x42")
    assert attack(kernel, under) == EQUAL


@pytest.mark.parametrize("under", (*VMMS, *TIGHT))
@pytest.mark.parametrize("ring", (0, 3))
def test_the_running_code_changes_under_it(ring: int, under: str) -> None:
    """REP STOSB over itself, a store into the instruction that stores, a copy of itself onto itself, a push over the next."""
    place = MANY + 0x1000
    bodies = (
        mov(EDI, place + 20) + mov(ECX, 8) + mov(EAX, 0x40404040) + b"\xfc\xf3\xaa" + b"\x42" * 20 + b"\xc3",
        b"\xc6\x05" + word(place + 6) + b"\x90" + b"\x42\xc3",
        mov(ESI, place) + mov(EDI, place) + mov(ECX, 40) + b"\xfc\xf3\xa4" + b"\x42\xc3",
        b"\x89\xe5" + mov(ESP, place + 0x18) + push(0x40404040) + b"\x90" * 12 + b"\x89\xec\xc3",
        b"\x80\x35" + word(place + 7) + b"\x08\x42" + b"\xc3",
        b"\xc7\x05" + word(place + 10) + word(0xC3424242) + b"\x90\x90\x90\x90\x90\x90",
    )
    for body in bodies:
        kernel = furnished([Step(mov(EBX, place) + CALL_EBX + mov(EBX, place) + CALL_EBX, ring)])
        kernel.octets[place] = body
        assert attack(kernel, under, 4) == EQUAL


@pytest.mark.parametrize("under", (*VMMS, *TIGHT))
def test_a_user_changes_the_kernels_code_and_the_kernel_the_users(under: str) -> None:
    change = store(ROUTINES, 0x90C34A4A)  # DEC EDX twice, RET
    back = store(ROUTINES, 0x90C34242)
    call = mov(EBX, ROUTINES) + CALL_EBX
    steps = [Step(call), Step(call + change + call, 3), Step(call), Step(call + back + call), Step(call, 3)]
    kernel = furnished(steps * 3)
    assert attack(kernel, under, 8) == EQUAL


# -- the tool can fail ------------------------------------------------------------------------------------------------


def test_an_undeclared_difference_fails_the_judge() -> None:
    class Deaf(type(strategy("trap-and-emulate"))):  # type: ignore[misc]
        """It skips INVLPG."""

        def emulate_or_reflect(self, vm, exit) -> None:
            """Skip it."""
            instruction = vm.instruction()
            if instruction is not None and instruction.operation == "INVLPG":
                vm.vcpu.frame.eip += instruction.length
                vm.retire()
            else:
                super().emulate_or_reflect(vm, exit)

        def on_general_protection(self, vm, exit) -> None:
            """By the method above."""
            self.emulate_or_reflect(vm, exit)

    kernel = Kernel(
        [Step(load(EAX, 0x88000) + store(TABLE + index(0x88000), DATA | UP) + invlpg(0x88000) + load(EBX, 0x88000))]
    )
    kernel.words[DATA] = 0x1234
    assert judge(kernel, "trap-and-emulate").kind == EQUAL
    with pytest.raises(AssertionError, match="first divergence"):
        judge(kernel, Deaf)
