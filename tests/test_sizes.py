"""16-bit code and operands where Unicorn has nothing to say: limits, ports, modes, and instructions by their manual."""

import itertools
import random

import pytest
from bare_machine import (
    AF,
    CF,
    CODE,
    CODE_FIRST,
    CS,
    DATA,
    DF,
    DS,
    EAX,
    EBP,
    EBX,
    ECX,
    EDI,
    EDX,
    ES,
    ESI,
    ESP,
    HLT,
    PF,
    SF,
    SS,
    TSS,
    ZF,
    BareMachine,
)  # fmt: skip

from x86virt.core.entries import enter_level
from x86virt.core.layout import HALTED_FOREVER, HOOK, SHUTDOWN
from x86virt.isa.table import ROWS

MACHINE = BareMachine()
CODE_16, DATA_16 = 0x009B, 0x0093  # access rights without D and B
CR4_PCE = 1 << 8


def go(code: str, registers: dict[int, int] | None = None, eflags: int = 2, at: int = 0xC000) -> str | int:
    """Run code in a 16-bit segment of 64 KB at CODE_FIRST, data at DATA: where HLT stopped it, or the vector."""
    MACHINE.power_on()
    MACHINE.unlimited()
    processor = MACHINE.processor
    processor.set_segment(CS, 0x30, CODE_FIRST, 0xFFFF, CODE_16)
    for segment in (DS, ES, SS):
        processor.set_segment(segment, 0x10, DATA, 0xFFFF, DATA_16)
    enter_level(processor.state, 0)
    for register, content in (registers or {}).items():
        MACHINE.gpr[register] = content
    MACHINE.eflags = eflags
    MACHINE.write_code(bytes.fromhex(code) + HLT, CODE_FIRST + at)
    stopped = MACHINE.stopped_at(MACHINE.go(at))
    # With a broken stack the delivery of #SS fails too, and a shutdown ends the run: its first fault is what counts.
    return "vector 12" if stopped == f"outcome {SHUTDOWN}" else stopped


# -- limits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, registers, outcome",
    [
        ("8b07", {EBX: 0xFFFE}, 0xC002),
        ("8b07", {EBX: 0xFFFF}, "vector 13"),
        ("668b07", {EBX: 0xFFFD}, "vector 13"),
        ("8a07", {EBX: 0x1234FFFF}, 0xC002),
        ("8b4702", {EBX: 0xFFFE}, 0xC003),
        ("678b03", {EBX: 0x10000}, "vector 13"),
        ("a1ffff", {}, "vector 13"),
        ("8b4600", {EBP: 0xFFFF}, "vector 12"),
        ("50", {ESP: 1}, "vector 12"),
        ("50", {ESP: 0}, 0xC001),
        ("6650", {ESP: 2}, "vector 12"),
        ("58", {ESP: 0xFFFF}, "vector 12"),
        ("60", {ESP: 5}, "vector 12"),
        ("61", {ESP: 0xFFFB}, "vector 12"),
        ("a5", {ESI: 0xFFFF}, "vector 13"),
        ("d7", {EBX: 0xFFFF, EAX: 2}, 0xC001),
        ("0fab07", {EBX: 0xFFFE, EAX: 16}, 0xC003),
        ("0fab07", {EBX: 0xFFFE, EAX: 8}, 0xC003),
        ("0fc70f", {EBX: 0xFFFC}, "vector 13"),
    ],
)
def test_an_access_past_the_end_of_64_kb_faults_and_an_address_wraps(code: str, registers: dict, outcome: str | int) -> None:
    """The offset is computed modulo 64 KB, an operand is not: it meets the limit (SDM volume 3, section 5.3)."""
    assert go(code, registers) == outcome


def test_code_that_runs_off_the_end_of_its_segment_faults() -> None:
    """The instruction behind offset FFFF is beyond the limit; so is one that ends there."""
    assert go("9090", at=0xFFFE) == "vector 13"
    assert go("b83412", at=0xFFFE) == "vector 13"
    assert go("ebfd", {}, at=0xFFFE) == 0xFFFD


@pytest.mark.parametrize(
    "code, registers, target",
    [
        ("e90040", {}, 0x0003),
        ("66e900400000", {}, "vector 13"),
        ("eb80", {}, 0xBF82),
        ("ffe0", {EAX: 0x12345678}, 0x5678),
        ("66ffe0", {EAX: 0x12345678}, "vector 13"),
        ("e8fd3f", {ESP: 0x100}, 0x0000),
        ("7410", {}, 0xC002),
        ("e2f0", {ECX: 0x10001}, 0xC002),
        ("67e2f0", {ECX: 0x10001}, 0xBFF3),
        ("e310", {ECX: 0x50000}, 0xC012),
        ("67e310", {ECX: 0x50000}, 0xC003),
    ],
)
def test_near_branches_of_16_bit_code(code: str, registers: dict, target: str | int) -> None:
    """IP wraps with a 16-bit operand size and meets the limit with 32; LOOP and JCXZ count by the address size."""
    MACHINE.memory[CODE_FIRST : CODE_FIRST + 0x10000] = HLT[0]
    assert go(code, registers) == target


def test_a_call_pushes_and_a_return_pops_16_bits() -> None:
    """CALL, RET and RET imm16 in 16-bit code with a 16-bit stack."""
    assert go("e80100f4c20400", {ESP: 0xAAAA0100}) == 0xC003
    assert MACHINE.gpr[ESP] == 0xAAAA0104
    assert MACHINE.get(DATA + 0xFE, 2) == 0xC003


def test_an_access_across_the_top_of_a_flat_segment_faults() -> None:
    """Offset FFFFFFFE with four bytes: the last lies beyond the limit of 4 GB; the pages exist at neither place."""
    for code, vector in (("8b03", "vector 13"), ("368b03", "vector 12"), ("8803", None)):
        MACHINE.power_on()
        MACHINE.gpr[EBX] = 0xFFFFFFFE
        MACHINE.write_code(bytes.fromhex(code) + HLT)
        stopped = MACHINE.stopped_at(MACHINE.go())
        assert stopped == (vector or CODE + 2)


def test_bytes_beyond_the_code_limit_are_not_fetched() -> None:
    """An instruction that crosses into an absent page at the segment's end is #GP, not #PF."""
    MACHINE.power_on()
    MACHINE.paging()
    page = CODE & ~0xFFF
    MACHINE.processor.set_segment(CS, 8, 0, page + 0xFFF, 0x409B)
    enter_level(MACHINE.processor.state, 0)
    MACHINE.set_page(page + 0x1000, 0, 0)
    MACHINE.write_code(b"\xb8\x00\x00", page + 0xFFD)
    assert MACHINE.stopped_at(MACHINE.go(page + 0xFFD)) == "vector 13"


# -- what the modes recognise -----------------------------------------------------------------------------------------

PROTECTED_ONLY = {"63c0": "ARPL", "0f02c0": "LAR", "0f03c0": "LSL", "0f00e0": "VERR", "0f00e8": "VERW", "0f00d0": "LLDT",
                  "0f00c0": "SLDT", "0f00d8": "LTR", "0f00c8": "STR"}  # fmt: skip


@pytest.mark.parametrize("code", PROTECTED_ONLY, ids=PROTECTED_ONLY.values())
def test_what_protected_mode_alone_knows_is_undefined_elsewhere(code: str) -> None:
    """#UD in real-address mode; LLDT and LTR too, before any privilege check, in virtual-8086 mode."""
    for pe, vm in ((0, 0), (1, 1)):
        MACHINE.power_on()
        MACHINE.cpu.cr0 = 0x10 | pe
        MACHINE.cpu.eflags |= vm << 17
        enter_level(MACHINE.processor.state, 3 if vm else 0)
        MACHINE.write_code(bytes.fromhex(code) + HLT)
        MACHINE.cpu.rip = CODE
        MACHINE.cpu.event_vector = -1
        MACHINE.processor.run(single=True)
        assert int(MACHINE.cpu.event_vector) == 6 or int(MACHINE.cpu.idt_vector) == 6


# -- decimal adjustment, against the manual's own words -----------------------------------------------------------------


def parity(value: int) -> int:
    """PF of a byte."""
    return PF if bin(value & 0xFF).count("1") % 2 == 0 else 0


def result_flags(value: int) -> int:
    """SF, ZF and PF of a byte."""
    return (SF if value & 0x80 else 0) | (ZF if value & 0xFF == 0 else 0) | parity(value)


def daa(al: int, cf: int, af: int, sign: int = 1) -> tuple[int, int]:
    """(AL, flags) of DAA; of DAS with `sign` -1 (SDM volume 2, their operation sections)."""
    old_al, old_cf, carry, adjust = al, cf, 0, 0
    if al & 15 > 9 or af:
        al += 6 * sign
        carry = old_cf or not 0 <= al <= 255
        al &= 255
        adjust = 1
    if old_al > 0x99 or old_cf:
        al = al + 0x60 * sign & 255
        carry = 1
    elif sign == 1:
        carry = 0
    return al, (CF if carry else 0) | (AF if adjust else 0) | result_flags(al)


def test_daa_and_das_for_every_value() -> None:
    """AL, CF and AF in all combinations."""
    for al, cf, af, (code, sign) in itertools.product(range(256), (0, 1), (0, 1), (("27", 1), ("2f", -1))):
        step(code, 0x77665500 | al, 2 | cf | af << 4)
        expected, flags = daa(al, cf, af, sign)
        assert int(MACHINE.gpr[EAX]) == 0x77665500 | expected, (al, cf, af, code)
        assert MACHINE.eflags & (CF | AF | SF | ZF | PF) == flags, (al, cf, af, code)


def test_aaa_and_aas_for_every_value() -> None:
    """AL and AF in all combinations, some AH."""
    for al, ah, af, (code, sign) in itertools.product(range(256), (0, 7, 255), (0, 1), (("37", 1), ("3f", -1))):
        step(code, 0x77660000 | ah << 8 | al, 2 | af << 4)
        ax = ah << 8 | al
        adjusts = al & 15 > 9 or af == 1
        if adjusts:
            ax = ax + 0x106 * sign & 0xFFFF
        assert int(MACHINE.gpr[EAX]) == 0x77660000 | ax & 0xFF0F
        assert MACHINE.eflags & (CF | AF) == (CF | AF if adjusts else 0)


def test_aam_and_aad_with_any_base() -> None:
    """Random AX and immediates; zero is #DE for AAM and no error for AAD."""
    rng = random.Random(1)
    for _ in range(300):
        ax, base = rng.getrandbits(16), rng.choice((10, 16, 1, 255, rng.randrange(1, 256)))
        al, ah = ax & 255, ax >> 8
        step(f"d4{base:02x}", ax, 2)
        assert int(MACHINE.gpr[EAX]) == al // base << 8 | al % base
        assert MACHINE.eflags & (SF | ZF | PF) == result_flags(al % base)
        step(f"d5{base:02x}", ax, 2)
        assert int(MACHINE.gpr[EAX]) == al + ah * base & 255
        assert MACHINE.eflags & (SF | ZF | PF) == result_flags(al + ah * base & 255)
    assert go("d400") == "vector 0"
    assert go("d500", {EAX: 0x1234}) == 0xC002


def step(code: str, eax: int, eflags: int) -> None:
    """Execute one instruction in the flat 32-bit code segment."""
    if int(MACHINE.cpu.seg[CS].selector) != 8:
        MACHINE.power_on()
    MACHINE.write_code(bytes.fromhex(code))
    MACHINE.gpr[EAX] = eax
    MACHINE.eflags = eflags
    MACHINE.cpu.rip = CODE
    MACHINE.processor.run(single=True)


# -- BOUND, INS and OUTS, RDPMC, hints --------------------------------------------------------------------------------


@pytest.mark.parametrize("index, inside", [(-5, True), (-6, False), (7, True), (8, False), (0, True)])
@pytest.mark.parametrize("prefix, size", (("", 2), ("66", 4)))
def test_bound(index: int, inside: bool, prefix: str, size: int) -> None:
    """Signed bounds -5 to 7, both included; #BR outside."""
    mask = (1 << 8 * size) - 1
    bounds = (-5 & mask).to_bytes(size, "little") + (7).to_bytes(size, "little")
    outcome = go_with(bounds, f"{prefix}620e0001", {ECX: index & mask})
    assert (outcome == "vector 5") == (not inside)


def go_with(octets: bytes, code: str, registers: dict[int, int]) -> str | int:
    """Run 16-bit code that first stores bytes at offset 100."""
    stores = "".join(f"c606{(0x100 + n).to_bytes(2, 'little').hex()}{octet:02x}" for n, octet in enumerate(octets))
    return go(stores + code, registers)


def test_ins_and_outs_move_through_ports_and_repeat() -> None:
    """REP OUTSB sends what lies at SI upwards to the debug console; REP INSW reads a port without a device: ones."""
    MACHINE.power_on()
    assert go("f36d", {EDI: 0x10, ECX: 3, EDX: 0x6666}) == 0xC002
    assert MACHINE.memory[DATA + 0x10 : DATA + 0x16].tobytes() == b"\xff" * 6
    assert (int(MACHINE.gpr[EDI]), int(MACHINE.gpr[ECX])) == (0x16, 0)
    assert go("f36e", {ESI: 0x20, ECX: 4, EDX: 0x6666}, 2 | DF) == 0xC002
    assert (int(MACHINE.gpr[ESI]), int(MACHINE.gpr[ECX])) == (0x1C, 0)


def test_ins_checks_its_destination_before_it_reads_the_port() -> None:
    """A fault leaves the count, the pointer and the ledger's port accesses as they were."""
    from x86virt.isa.events import EVENT_SYS_IN_PORT_LPC

    assert go("f36d", {EDI: 0xFFFB, ECX: 5, EDX: 0x6666}) == "vector 13"
    assert (int(MACHINE.gpr[EDI]), int(MACHINE.gpr[ECX])) == (0xFFFF, 3)
    assert int(MACHINE.cpu.ledger_count[EVENT_SYS_IN_PORT_LPC].sum()) == 2


def test_ins_and_outs_obey_iopl() -> None:
    """At CPL 3 with IOPL 0 and no bitmap: #GP, nothing moved."""
    for code in (b"\x6c", b"\xf3\x6e"):
        MACHINE.power_on()
        MACHINE.ring(3)
        MACHINE.put(TSS + 102, 0xFFFF, 2)  # the bitmap lies beyond the limit
        MACHINE.gpr[EDI] = MACHINE.gpr[ESI] = DATA
        MACHINE.gpr[ECX] = 2
        MACHINE.write_code(code + HLT)
        assert MACHINE.stopped_at(MACHINE.go()) == "vector 13"
        assert int(MACHINE.gpr[EDI]) == DATA and int(MACHINE.gpr[ECX]) == 2


def performance_machine() -> BareMachine:
    """A processor of the P6 family."""
    return BareMachine("core2_woodcrest")


def test_rdpmc_counts_what_the_event_select_registers_name() -> None:
    """Counter 0 retired instructions, counter 1 cycles; the second value less the first is what happened between."""
    machine = performance_machine()
    select = (1 << 22 | 3 << 16 | 0xC0, 1 << 22 | 3 << 16 | 0x79)
    code = b""
    for number, value in enumerate(select):  # mov ecx, 186+n; mov eax, value; xor edx, edx; wrmsr
        code += b"\xb9" + (0x186 + number).to_bytes(4, "little") + b"\xb8" + value.to_bytes(4, "little") + b"\x31\xd2\x0f\x30"
    read = b"\x31\xc9\x0f\x33"  # xor ecx, ecx; rdpmc
    code += read + b"\x89\xc6" + b"\x90" * 5 + read + b"\x29\xf0" + b"\x89\xc7"  # mov esi, eax ... sub eax, esi; mov edi, eax
    code += b"\xb9\x01\x00\x00\x00\x0f\x33"  # mov ecx, 1; rdpmc
    machine.write_code(code + HLT)
    assert machine.go() == HALTED_FOREVER
    assert int(machine.gpr[EDI]) == 8  # mov, five nops, xor, rdpmc
    assert 0 < int(machine.gpr[EAX]) <= int(machine.cpu.ticks) // 64


def test_rdpmc_is_for_ring_0_unless_cr4_says_otherwise_and_knows_its_counters() -> None:
    """CR4.PCE; ECX beyond the counters; a counter that counts nothing stands at zero."""
    machine = performance_machine()
    for ring, pce, counter, outcome in ((3, 0, 0, "vector 13"), (3, CR4_PCE, 0, CODE + 2), (0, 0, 1, CODE + 2),
                                        (0, 0, 2, "vector 13")):  # fmt: skip
        machine.power_on()
        machine.ring(ring)
        machine.cpu.cr4 = pce
        machine.gpr[ECX] = counter
        machine.gpr[EAX] = 5
        machine.write_code(b"\x0f\x33\x0f\x0b")
        machine.cpu.rip = CODE
        machine.processor.run(single=True)
        stopped = machine.stopped_at(HOOK) if outcome != CODE + 2 else int(machine.cpu.rip)
        assert stopped == outcome
        if outcome != "vector 13":
            assert int(machine.gpr[EAX]) == 0


@pytest.mark.parametrize("profile", ("p4_prescott", "k8_opteron"))
def test_the_hint_space_is_no_operation(profile: str) -> None:
    """0F 18 to 0F 1F and 0F 0D, whatever their operand names; AMD's 0F 0D has no register form."""
    machine = BareMachine(profile)
    for row in (row for row in ROWS if row.operation == "hint"):
        for form in (b"\x05\xf0\xff\xff\xff", b"\xc1"):
            machine.power_on()
            machine.write_code(bytes(row.opcode) + form + HLT)
            undefined = profile == "k8_opteron" and row.opcode[1] == 0x0D and form == b"\xc1"
            expected = "vector 6" if undefined else CODE + 2 + len(form)
            assert machine.stopped_at(machine.go()) == expected


@pytest.mark.parametrize("code", ("0fb9c0", "0fb905f0ffffff", "0faa", "0f0b", "0fff", "62c0", "0f38", "0f77", "0f6f00", "0f28c0"))
def test_what_the_processor_does_not_promise_is_undefined(code: str) -> None:
    """UD1 (its operand unread), RSM outside SMM, BOUND of a register, MMX and SSE."""
    MACHINE.power_on()
    MACHINE.write_code(bytes.fromhex(code) + HLT)
    assert MACHINE.stopped_at(MACHINE.go()) == "vector 6"


def test_salc() -> None:
    """AL by CF, the flags unchanged."""
    assert go("d6", {EAX: 0x11111111}, 2 | CF | ZF) == 0xC001
    assert (int(MACHINE.gpr[EAX]), MACHINE.eflags & (CF | ZF)) == (0x111111FF, CF | ZF)
    assert go("d6", {EAX: 0x11111111}, 2) == 0xC001
    assert int(MACHINE.gpr[EAX]) == 0x11111100


@pytest.mark.parametrize("level", (0, 1, 2, 5, 31, 33))
@pytest.mark.parametrize("width", (16, 32))
@pytest.mark.parametrize("stack_16", (False, True), ids=("ss32", "ss16"))
def test_enter_by_the_manuals_steps(level: int, width: int, stack_16: bool) -> None:
    """Push the frame pointer, copy level - 1 outer ones, push the new one, by operand size; addresses by stack size."""
    n, mask = width // 8, 0xFFFF if stack_16 else 0xFFFFFFFF
    esp, ebp = 0x20100 if not stack_16 else 0x44440100, 0x21000 if not stack_16 else 0x55551000
    MACHINE.power_on()
    base = DATA if stack_16 else 0
    MACHINE.processor.set_segment(SS, 0x10, base, 0xFFFFFFFF if not stack_16 else 0xFFFF, 0xC093 if not stack_16 else 0x93)
    rng = random.Random(level)
    for address in range(0x900, 0x1100, 4):
        MACHINE.put(base + (0 if stack_16 else 0x20000) + address, rng.getrandbits(32))
    memory = bytearray(MACHINE.memory[DATA : DATA + 0x2000].tobytes())

    def push(pointer: int, value: int) -> int:
        pointer = pointer - n & mask
        place = (base + pointer) - DATA
        memory[place : place + n] = (value & (1 << width) - 1).to_bytes(n, "little")
        return pointer

    pointer = push(esp & mask, ebp)
    frame = esp & ~mask & 0xFFFFFFFF | pointer
    display = ebp
    for _ in range(1, level % 32):
        display -= n
        place = base + (display & mask) - DATA
        pointer = push(pointer, int.from_bytes(memory[place : place + n], "little"))
    if level % 32:
        pointer = push(pointer, frame)
    pointer = pointer - 0x10 & mask
    MACHINE.gpr[ESP], MACHINE.gpr[EBP] = esp, ebp
    MACHINE.write_code((b"\x66" if width == 16 else b"") + bytes([0xC8, 0x10, 0, level]) + HLT)
    assert isinstance(MACHINE.stopped_at(MACHINE.go()), int)
    assert MACHINE.memory[DATA : DATA + 0x2000].tobytes() == bytes(memory)
    assert int(MACHINE.gpr[ESP]) == esp & ~mask & 0xFFFFFFFF | pointer
    assert int(MACHINE.gpr[EBP]) == (frame if width == 32 else ebp & 0xFFFF0000 | frame & 0xFFFF)
