"""The assist of writable page tables: a store to a page table does what the bare processor does, or is the guest's page fault."""

from __future__ import annotations

import functools
import random

import pytest
from bare_machine import ARITHMETIC, DATA, BareMachine
from bare_machine import HLT as STOP
from paravirtual_machine import (
    BASE_L1,
    BASE_L2,
    FIRST,
    GUEST,
    L1S,
    N_GUEST,
    OTHERS,
    PIN_L1,
    PLAIN,
    UP,
    G,
    P,
    World,
    world,
)

from x86virt.isa.events import EVENT_ID
from x86virt.isa.registers import EAX, EBX, ECX, EDI, EDX, ESP
from x86virt.vmm.paravirtual.interface import FLAT_RING1_CS
from x86virt.vmm.paravirtual.memory_calls import table_write

TABLE_PAGE, WRITE, CODE = 0x5000, 3, 0x900  # a page of linear space; the error code; where the instruction is
DESCRIPTOR = 0xA00  # of the kernel's code segment
WRITABLE_TABLES = 2
ENABLE, DISABLE = 0, 1
EINVAL, ENOSYS = -22, -38
ENTRY = 6  # the doubleword of the table that is written
FORMATS = pytest.mark.parametrize("pae", [False, True], ids=["2-level", "pae"])

# Instructions whose operand is [EBX], with the other in ECX where there is one; of immediates the bytes follow.
PLAIN_FORMS = {
    "mov": b"\x89\x0b",
    "xchg": b"\x87\x0b",
    "or": b"\x09\x0b",
    "and": b"\x21\x0b",
    "xor": b"\x31\x0b",
    "bts": b"\x0f\xab\x0b",
    "btr": b"\x0f\xb3\x0b",
    "btc": b"\x0f\xbb\x0b",
    "cmpxchg": b"\x0f\xb1\x0b",
}
IMMEDIATE_FORMS = {
    "mov": b"\xc7\x03",
    "or": b"\x81\x0b",
    "and": b"\x81\x23",
    "xor": b"\x81\x33",
}
BYTE_FORMS = {
    "or": b"\x83\x0b",
    "and": b"\x83\x23",
    "xor": b"\x83\x33",
    "bts": b"\x0f\xba\x2b",
    "btr": b"\x0f\xba\x33",
    "btc": b"\x0f\xba\x3b",
}
OPERANDS = {  # the same operand written in other ways: (ModRM's low bits, what follows)
    "displacement of 8 bits": (0x43, b"\x00"),
    "displacement of 32 bits": (0x83, b"\x00\x00\x00\x00"),
    "SIB": (0x04, b"\x23"),
    "SIB and displacement": (0x44, b"\x23\x00"),
    "SIB without a base": (0x04, b"\x1d\x00\x00\x00\x00"),
}


@functools.cache
def bare() -> BareMachine:
    """A bare processor, for what an instruction does."""
    return BareMachine()


def natively(code: bytes, old: int, registers: dict[int, int], flags: int) -> tuple[int, list[int], int]:
    """What it makes of a doubleword at EBX, of registers and of flags."""
    machine = bare()
    machine.power_on()
    machine.put(DATA, old)
    for number, value in registers.items():
        machine.gpr[number] = value
    machine.gpr[EBX] = DATA
    machine.eflags = flags
    machine.write_code(code + STOP)
    machine.unlimited()
    machine.go()
    result = machine.registers()
    return machine.get(DATA), [result[number] for number in (EAX, ECX, EDX, EDI)], machine.eflags & ARITHMETIC


def prepared(pae: bool, old: int) -> World:
    """A guest that has asked for the assist, with a page table of its own mapped read-only."""
    here = world(pae)
    assert here.call("vm_assist", ENABLE, WRITABLE_TABLES) == 0
    here.memory[(L1S[0] << 12) + 4 * ENTRY :][:4] = list(old.to_bytes(4, "little"))
    assert here.extended((PIN_L1, L1S[0], 0)) == (0, 1)
    assert here.map(here.arguments + TABLE_PAGE, L1S[0] << 12 | P) == 0
    here.put_arguments([0x0000FFFF, 0x00CFBB00], DESCRIPTOR)
    here.cpu.gdtr_base, here.cpu.gdtr_limit = here.arguments + DESCRIPTOR - (FLAT_RING1_CS & ~7), 0xFFFF
    domain = here.domains[GUEST]
    domain.cs, domain.eip, domain.esp = FLAT_RING1_CS, here.arguments + CODE, 0x5555
    return here


def assisted(here: World, code: bytes, registers: dict[int, int], flags: int) -> int:
    """The page fault of the instruction: whether it was performed."""
    here.put_arguments([int.from_bytes(code.ljust(16, b"\x90")[at : at + 4], "little") for at in range(0, 16, 4)], CODE)
    for number, value in registers.items():
        here.cpu.gpr[number] = value
    here.domains[GUEST].eflags = flags
    here.cpu.cr2 = here.arguments + TABLE_PAGE + 4 * ENTRY
    return int(table_write(here.state, here.memory, here.xens, here.domains, here.frames, WRITE))


def doubleword(here: World) -> int:
    """What is written."""
    return int.from_bytes(here.memory[(L1S[0] << 12) + 4 * ENTRY :][:4].tobytes(), "little")


def may_stand(value: int) -> bool:
    """Whether a page table may have an entry, by what the frames of a world are."""
    if not value & P:
        return True
    frame, writable = value >> 12, value & 2
    own = FIRST <= frame < FIRST + N_GUEST and not (writable and frame in (L1S[0], BASE_L1, BASE_L2))
    return own and not value & 0x198


def cases() -> list[tuple[str, bytes]]:
    """All forms, with immediates that make entries, or do not."""
    found = [(f"{name}, a register", code) for name, code in PLAIN_FORMS.items()]
    found += [(f"lock {name}", b"\xf0" + PLAIN_FORMS[name]) for name in PLAIN_FORMS if name != "mov"]
    found += [("a segment override", b"\x3e" + PLAIN_FORMS["mov"])]
    for value in (PLAIN[1] << 12 | UP, 0xFFFFFFFD, 2, 0):
        found += [(f"{name}, {value:#x}", code + value.to_bytes(4, "little")) for name, code in IMMEDIATE_FORMS.items()]
    for value in (0, 1, 2, 33, 0xFD):
        found += [(f"{name}, byte {value:#x}", code + bytes([value])) for name, code in BYTE_FORMS.items()]
    for how, (modrm, rest) in OPERANDS.items():
        found += [(f"mov, {how}", bytes([0x89, modrm | 0x08]) + rest)]
        found += [(f"mov of an immediate, {how}", bytes([0xC7, modrm]) + rest + (PLAIN[1] << 12 | P).to_bytes(4, "little"))]
        found += [(f"btr, {how}", bytes([0x0F, 0xBA, modrm | 0x30]) + rest + b"\x01")]
    return found


@pytest.mark.parametrize(("name", "code"), cases(), ids=[name for name, _ in cases()])
def test_a_store_does_what_the_processor_does(name: str, code: bytes) -> None:
    """Memory, registers and flags; or nothing at all, where the entry may not be so."""
    generator = random.Random(code)
    olds = (PLAIN[0] << 12 | UP, PLAIN[0] << 12 | P, 0)
    sources = (PLAIN[1] << 12 | UP, OTHERS << 12 | P, 1, 5, 0xFFFFFFFD, 0, G | P)
    for old, source in ((old, source) for old in olds for source in sources):
        if any(form in name for form in ("bts, a", "btr, a", "btc, a", "lock b")):
            source &= 31  # the bit is in the doubleword that was accessed
        registers = {EAX: generator.choice((old, 7)), ECX: source, EDX: 3, EDI: 4}
        flags = generator.getrandbits(12) & ARITHMETIC | 2
        here = prepared(False, old)
        new, after, new_flags = natively(code, old, registers, flags)
        done = assisted(here, code, registers, flags)
        assert done == may_stand(new), (hex(old), hex(source), hex(new))
        found = [int(here.cpu.gpr[number]) for number in (EAX, ECX, EDX, EDI)]
        domain = here.domains[GUEST]
        if done:
            assert (doubleword(here), found, int(domain.eflags) & ARITHMETIC) == (new, after, new_flags)
            assert int(domain.eip) == here.arguments + CODE + len(code)
        else:
            assert (doubleword(here), found, int(domain.eflags)) == (old, list(registers.values()), flags)
            assert int(domain.eip) == here.arguments + CODE
        assert here.faults() == []
    assert here.count("vmm.writable_table") >= 1


def test_the_stack_pointer_is_in_the_frame() -> None:
    """XCHG with ESP takes the guest's."""
    here = prepared(False, PLAIN[0] << 12 | UP)
    here.domains[GUEST].esp = PLAIN[1] << 12 | P
    assert assisted(here, b"\x87\x23", {ESP: 0xBAD}, 2) == 1
    assert doubleword(here) == PLAIN[1] << 12 | P
    assert int(here.domains[GUEST].esp) == PLAIN[0] << 12 | UP


@pytest.mark.parametrize(
    "code",
    [
        b"\x90", b"\x8b\x0b", b"\x66\x89\x0b", b"\x88\x0b", b"\xf3\xab", b"\x0f\xc7\x0b", b"\x89\xcb", b"\x01\x0b",
        b"\xf0\xf0\xf0\xf0\xf0\x89\x0b",
    ],
    ids=["nop", "load", "16 bits", "8 bits", "stos", "cmpxchg8b", "register", "add", "prefixes"],
)
def test_other_instructions_are_the_guests_page_fault(code: bytes) -> None:
    """With nothing changed."""
    here = prepared(False, PLAIN[0] << 12 | UP)
    registers = {EAX: PLAIN[0] << 12 | UP, ECX: PLAIN[1] << 12 | P, EDX: 0, EDI: 0}
    assert assisted(here, code, registers, 2) == 0
    assert doubleword(here) == PLAIN[0] << 12 | UP
    assert int(here.domains[GUEST].eip) == here.arguments + CODE


@FORMATS
def test_what_is_no_affair_of_the_assist(pae: bool) -> None:
    """Switched off; a read; ring 3; a page that is none; a page that is no table; code that cannot be read."""
    here = prepared(pae, 0)
    value = {ECX: PLAIN[1] << 12 | P}
    store = PLAIN_FORMS["mov"]
    everything = here.state, here.memory, here.xens, here.domains, here.frames
    for error in (0, 1, 2, 5, 6, 7):
        assert table_write(*everything, error) == 0
    here.domains[GUEST].eip = 0x100
    assert assisted(here, store, value, 2) == 0
    here.domains[GUEST].eip, here.domains[GUEST].cs = here.arguments + CODE, 0
    assert assisted(here, store, value, 2) == 0
    here.domains[GUEST].cs = FLAT_RING1_CS
    assert here.map(here.arguments + TABLE_PAGE, PLAIN[0] << 12 | P, 2) == 0
    assert assisted(here, store, value, 2) == 0
    assert here.map(here.arguments + TABLE_PAGE, 0, 2) == 0
    assert assisted(here, store, value, 2) == 0
    assert here.map(here.arguments + TABLE_PAGE, L1S[0] << 12 | P, 2) == 0
    assert assisted(here, store, value, 2) == 1
    assert here.call("vm_assist", DISABLE, WRITABLE_TABLES) == 0
    assert assisted(here, store, value, 2) == 0
    assert here.call("vm_assist", ENABLE, 4) == EINVAL
    assert here.call("vm_assist", 2, WRITABLE_TABLES) == ENOSYS


def test_through_a_linear_page_table() -> None:
    """The page table is seen where the guest's own L2 maps itself."""
    here = prepared(False, 0)
    table, itself = (here.slot(BASE_L2, 5), L1S[0] << 12 | P), (here.slot(BASE_L2, 20), BASE_L2 << 12 | P)
    assert here.update(table, itself) == (0, 2)
    here.put_arguments([int.from_bytes(b"\x89\x0b\x90\x90", "little")], CODE)
    here.cpu.gpr[ECX] = PLAIN[1] << 12 | P
    here.cpu.cr2 = (20 << 22) + (5 << 12) + 4 * ENTRY
    assert table_write(here.state, here.memory, here.xens, here.domains, here.frames, WRITE) == 1
    assert doubleword(here) == PLAIN[1] << 12 | P
    assert here.faults() == []


def test_halves_of_a_pae_entry() -> None:
    """Either half by itself; the high one first of an entry that cannot be; both by CMPXCHG8B."""
    here = prepared(True, PLAIN[0] << 12 | UP)
    assert assisted(here, PLAIN_FORMS["mov"], {ECX: PLAIN[1] << 12 | P}, 2) == 1
    assert here.entries(L1S[0])[3] == PLAIN[1] << 12 | P
    eip = int(here.domains[GUEST].eip) - 2
    here.cpu.cr2, here.domains[GUEST].eip, here.cpu.gpr[ECX] = here.arguments + TABLE_PAGE + 28, eip, 1
    everything = here.state, here.memory, here.xens, here.domains, here.frames
    assert table_write(*everything, WRITE) == 1
    assert here.entries(L1S[0])[3] == 1 << 32 | PLAIN[1] << 12, "not present until the other half is written"
    assert int(here.frames[PLAIN[1]].count_info) & 0xFF == 1
    here.domains[GUEST].eip = eip
    registers = {EAX: PLAIN[1] << 12, EDX: 1, EBX: PLAIN[2] << 12 | UP, ECX: 0}
    assert assisted(here, b"\xf0\x0f\xc7\x0f", registers, 2) == 1
    assert here.entries(L1S[0])[3] == PLAIN[2] << 12 | UP
    assert int(here.domains[GUEST].eflags) & 64
    here.domains[GUEST].eip = eip
    assert assisted(here, b"\xf0\x0f\xc7\x0f", registers, 66) == 1
    assert (int(here.cpu.gpr[EAX]), int(here.cpu.gpr[EDX])) == (PLAIN[2] << 12 | UP, 0)
    assert not int(here.domains[GUEST].eflags) & 64
    here.domains[GUEST].eip = eip
    registers = {EAX: PLAIN[2] << 12 | UP, EDX: 0, EBX: OTHERS << 12 | UP, ECX: 0}
    assert assisted(here, b"\xf0\x0f\xc7\x0f", registers, 66) == 0
    assert here.entries(L1S[0])[3] == PLAIN[2] << 12 | UP
    assert here.faults() == []


def test_the_price_of_a_store() -> None:
    """Charged once."""
    here = prepared(False, 0)
    event = EVENT_ID["vmm.writable_table"]
    here.xen.base_ticks[event] = 640
    assert assisted(here, PLAIN_FORMS["mov"], {ECX: PLAIN[1] << 12 | P}, 2) == 1
    assert here.count("vmm.writable_table") == 1
    assert int(here.processor.state["ledger_ticks"][0][event].sum()) == 640
