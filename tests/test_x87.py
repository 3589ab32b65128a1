"""The x87 FPU: a slice of the comparison with the host's, a rational model, and what an operating system relies on."""

import struct
from fractions import Fraction
from pathlib import Path

import pytest
from bare_machine import CODE, CODE_0, DATA, DATA_0, BareMachine
from descriptor_machine import gate
from fuzz_x87 import FORMS, TRANSCENDENTAL, campaign
from hypothesis import example, given, settings
from hypothesis import strategies as st
from small_kernel import EAX, Kernel, Step, assert_equal, from_cr, log, mov, run, to_cr, word
from x87_host import HostX87, SimulatedX87, host_has_x87

from x86virt.core.jit import JIT_DISABLED
from x86virt.isa import x87_ops
from x86virt.isa.x87_ops import NUMBER, OPERATIONS

BIAS = 16383
IE, DE, ZE, OE, UE, PE, SF, ES, C1 = 1, 2, 4, 8, 16, 32, 64, 128, 1 << 9
CR0_MP, CR0_EM, CR0_TS, CR0_NE = 2, 4, 8, 32
AT = DATA.to_bytes(4, "little")
FNINIT, FNCLEX, FNOP, WAIT = b"\xdb\xe3", b"\xdb\xe2", b"\xd9\xd0", b"\x9b"
FLD1, FLDZ, FDIVP = b"\xd9\xe8", b"\xd9\xee", b"\xde\xf9"
UNMASK = b"\xc7\x05" + AT + struct.pack("<I", 0x0340) + b"\xd9\x2d" + AT  # FLDCW with no exception masked
SYSTEM_CALL_LOGGED = 0x80 & 0x7F  # how the log shows the INT 0x80 that ends a step in ring 3
MACHINE = BareMachine()


def intel_host() -> bool:
    """Whether the host's processor is the one whose corner cases the simulator follows."""
    return host_has_x87() and "GenuineIntel" in Path("/proc/cpuinfo").read_text()


@pytest.fixture
def machine() -> BareMachine:
    """A fresh machine in ring 0 with CR0.NE set."""
    MACHINE.power_on()
    MACHINE.unlimited()
    MACHINE.cpu.cr0 = 0x11 | CR0_NE
    return MACHINE


def execute(machine: BareMachine, octets: bytes) -> int | str:
    """Run code that ends by HLT; where it stopped, relative to its start, or the vector."""
    machine.write_code(octets + b"\xf4")
    stopped = machine.stopped_at(machine.go())
    return stopped - CODE if isinstance(stopped, int) else stopped


# -- the host's x87 -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not intel_host(), reason="needs an Intel processor under x86-64 Linux")
def test_every_instruction_agrees_with_the_hosts_x87() -> None:
    """A slice of `python -m tests.fuzz_x87`: a batch or more for each instruction."""
    host, ours = HostX87(), SimulatedX87()
    names = ["fadd", "fdiv", "fsqrt", "fst_m64", "fbstp", "fprem"] if JIT_DISABLED else list(FORMS)
    done, found = campaign(host, ours, names, 256 * len(names), seed=3)
    assert done >= 256 * len(names) and not found, found


# -- rational numbers -----------------------------------------------------------------------------------------------


def exact(bits: int) -> Fraction:
    """The value of finite register contents."""
    exponent = max(bits >> 64 & 0x7FFF, 1)
    value = (bits & (1 << 64) - 1) * Fraction(2) ** (exponent - BIAS - 63)
    return -value if bits >> 79 else value


def power_of(value: Fraction) -> int:
    """The exponent e of 2**e <= value < 2**(e+1)."""
    e = value.numerator.bit_length() - value.denominator.bit_length()
    return e if Fraction(2) ** e <= value else e - 1


def rounded(value: Fraction, keep: int, mode: int) -> tuple[int, int]:
    """The register contents and flags of a value that is not zero, all exceptions masked (SDM volume 1, section 4.8)."""
    negative, magnitude = value < 0, abs(value)

    def to_step(step: Fraction) -> int:
        count, rest = divmod(magnitude, step)
        up = (rest * 2 > step or (rest * 2 == step and count % 2 == 1), negative, not negative, False)[mode]
        return int(count) + int(bool(rest) and up)

    e = power_of(magnitude)
    step = Fraction(2) ** (e - keep + 1)
    tiny = to_step(step) * step < Fraction(2) ** (1 - BIAS)
    if tiny:
        step = Fraction(2) ** (1 - BIAS - keep + 1)
    result = to_step(step) * step
    flags = (PE if result != magnitude else 0) | (C1 if result > magnitude else 0)
    sign = int(negative) << 79
    if tiny and flags:
        flags |= UE
    if result >= Fraction(2) ** (0x7FFF - BIAS):
        infinite = mode == 0 or mode == (1 if negative else 2)
        largest = 0x7FFE << 64 | (1 << 64) - (1 << 64 - keep)
        return sign | (0x7FFF << 64 | 1 << 63 if infinite else largest), OE | PE | (C1 if infinite else 0)
    if not result:
        return sign, flags
    e = max(power_of(result), 1 - BIAS)
    significand = int(result / Fraction(2) ** (e - 63))
    exponent = e + BIAS if significand >> 63 else 0
    return sign | exponent << 64 | significand, flags


SIGNIFICANDS = st.one_of(
    st.integers(1 << 63, (1 << 64) - 1), st.sampled_from((1 << 63, (1 << 64) - 1, 3 << 62, 1 << 63 | 1)),
    st.integers(0, 1 << 20).map(lambda n: 1 << 63 | n), st.integers(0, 1 << 20).map(lambda n: 1 << 63 | n << 43),
)  # fmt: skip
NORMAL = st.builds(lambda sign, e, s: sign << 79 | e << 64 | s, st.integers(0, 1), st.integers(1, 0x7FFE), SIGNIFICANDS)
CLOSE = st.builds(
    lambda sign, e, s: sign << 79 | e << 64 | s, st.integers(0, 1), st.integers(BIAS - 70, BIAS + 70), SIGNIFICANDS
)
DENORMAL = st.builds(lambda sign, s: sign << 79 | s, st.integers(0, 1), st.integers(1, (1 << 64) - 1))
FINITE = st.one_of(CLOSE, CLOSE, NORMAL, DENORMAL)
OPERATIONS_OF = {
    0xC1: lambda a, b: a + b, 0xC9: lambda a, b: a * b, 0xE1: lambda a, b: a - b, 0xE9: lambda a, b: b - a,
    0xF1: lambda a, b: a / b, 0xF9: lambda a, b: b / a,
}  # fmt: skip


@given(FINITE, FINITE, st.sampled_from(tuple(OPERATIONS_OF)), st.integers(0, 3), st.sampled_from((24, 53, 64)))
@example(1 << 64 | 1 << 63, 1 << 64 | 1 << 63 | 1, 0xE1, 0, 64)
@settings(max_examples=40 if JIT_DISABLED else 800, deadline=None)
def test_the_four_operations_against_rational_numbers(a: int, b: int, modrm: int, mode: int, keep: int) -> None:
    """Every rounding and precision; the model knows nothing of words, guards and sticky bits."""
    machine = MACHINE
    machine.cpu.cr0 = 0x11 | CR0_NE
    machine.put(DATA, b, 10)
    machine.put(DATA + 16, a, 10)
    machine.put(DATA + 32, 0x7F | {24: 0, 53: 2, 64: 3}[keep] << 8 | mode << 10, 2)
    octets = FNINIT + b"\xd9\x2d" + word(DATA + 32) + b"\xdb\x2d" + word(DATA) + b"\xdb\x2d" + word(DATA + 16)
    octets += bytes([0xD8, modrm]) + b"\xdd\x3d" + word(DATA + 34) + b"\xdb\x3d" + word(DATA + 48)
    assert execute(machine, octets) == len(octets)
    value = OPERATIONS_OF[modrm](exact(a), exact(b))
    if value:
        bits, flags = rounded(value, keep, mode)
    else:
        bits, flags = int(mode == 1) << 79, 0  # only a difference is exactly zero: negative when rounding down
    flags |= DE if not a >> 64 & 0x7FFF or not b >> 64 & 0x7FFF else 0
    assert (hex(machine.get(DATA + 48, 10)), machine.get(DATA + 34, 2) & 0x23F) == (hex(bits), flags)


# -- availability and exceptions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", range(8))
@pytest.mark.parametrize("octets", [FNOP, WAIT, FNINIT, b"\xdd\x35" + AT, b"\x0f\xae\x05" + AT], ids=bytes.hex)
def test_em_ts_and_mp_make_instructions_unavailable(machine: BareMachine, octets: bytes, bits: int) -> None:
    """#NM by EM or TS; for WAIT by MP and TS together (SDM volume 3, table 9-3)."""
    machine.cpu.cr0 |= bits << 1
    mp, em, ts = bits & 1, bits >> 1 & 1, bits >> 2 & 1
    expected = mp and ts if octets == WAIT else em or ts
    assert execute(machine, octets) == ("vector 7" if expected else len(octets))


def test_an_unmasked_exception_is_raised_at_the_next_waiting_instruction(machine: BareMachine) -> None:
    """#MF with EIP at that instruction; FNSTSW, FNSTCW, FNCLEX, FNINIT and FNSAVE do not wait."""
    divide = FNINIT + UNMASK + FLD1 + FLDZ + FDIVP
    assert execute(machine, divide) == len(divide)
    assert machine.cpu.fpu_status & (ES | ZE | 1 << 15) == ES | ZE | 1 << 15
    for waiting in (WAIT, FNOP, FLD1, b"\xdd\x05" + AT, b"\xd9\x2d" + AT, b"\xdd\x25" + AT):
        machine.power_on()
        machine.cpu.cr0 = 0x11 | CR0_NE
        assert execute(machine, divide + b"\xdf\xe0" + waiting) == "vector 16"
        frame = int(machine.cpu.gpr[4])
        assert machine.get(frame) == CODE + len(divide) + 2
        assert machine.gpr[EAX] & 0xFFFF == machine.cpu.fpu_status
    machine.power_on()
    machine.cpu.cr0 = 0x11 | CR0_NE
    code = divide + b"\xd9\x3d" + AT + b"\xdd\x3d" + AT + b"\x0f\xae\x05" + AT + FNCLEX + FNOP + WAIT
    assert execute(machine, code) == len(code)


def test_without_ne_the_exception_goes_by_irq_13_and_port_f0(machine: BareMachine) -> None:
    """The processor freezes in front of the instruction; the handler's write to port 0xF0 lets it execute x87 code."""
    machine.cpu.cr0 &= ~CR0_NE
    machine.cpu.hook_first, machine.cpu.hook_last = 1, 0
    setup = b""
    master = ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFB))
    slave = ((0xA0, 0x11), (0xA1, 0x28), (0xA1, 2), (0xA1, 1), (0xA1, 0xDF))
    for port, value in master + slave:
        setup += b"\xb0" + bytes([value]) + b"\xe6" + bytes([port])
    vector, handler = 0x2D, 0x8000
    machine.put(0x2000 + 8 * vector, gate(CODE_0, handler, 14), 8)
    machine.cpu.idtr_limit = 0x7FF
    # OUT 0xF0; a waiting instruction executes under IGNNE#; count; FNCLEX; end of interrupt; IRETD
    body = b"\xe6\xf0" + FNOP + b"\x43" + FNCLEX + b"\xb0\x20\xe6\xa0\xe6\x20\xcf"
    machine.write_code(body, handler)
    machine.cpu.limit_ticks = machine.cpu.budget = machine.cpu.ticks + 64 * 1_000_000
    code = setup + b"\xfb" + FNINIT + UNMASK + FLD1 + FLDZ + FDIVP + FNOP + b"\xfa"
    assert execute(machine, code) == len(code)
    assert machine.gpr[3] == 1
    board = machine.processor.board
    assert (int(board.ferr), int(board.ignne), int(board.pic[1].lines) >> 5 & 1) == (0, 0, 0)


def test_without_ne_and_without_an_open_interrupt_the_processor_stays_frozen(machine: BareMachine) -> None:
    """With nothing that could wake it, it waits in front of the instruction for ever."""
    machine.cpu.cr0 &= ~CR0_NE
    code = FNINIT + UNMASK + FLD1 + FLDZ + FDIVP
    machine.write_code(code + FNOP)
    machine.go()
    assert (int(machine.cpu.rip), int(machine.cpu.halted)) == (CODE + len(code), 1)


@pytest.mark.parametrize("step", ("40", "48", "fec0", "6640", "fec8"), ids=("inc", "dec", "inc8", "inc16", "dec8"))
@pytest.mark.parametrize(("push", "carry"), [("d9e8d9ee", 1), ("d9eed9e8", 0)], ids=("less", "greater"))
def test_inc_and_dec_keep_the_carry_of_fcomi(machine: BareMachine, step: str, push: str, carry: int) -> None:
    """FLD1 and FLDZ in either order, FCOMI ST,ST(1), and INC or DEC in one block: CF is still FCOMI's."""
    execute(machine, bytes.fromhex(f"dbe3{push}dbf1{step}"))
    assert machine.eflags & 1 == carry


def test_lock_and_undefined_encodings_raise_ud(machine: BareMachine) -> None:
    """Every register and memory form that the opcode maps leave empty, FISTTP (SSE3), and the rest of 0F AE."""
    undefined = [(0xD9, modrm) for modrm in (*range(0xD1, 0xD8), 0xE2, 0xE3, 0xE6, 0xE7, 0xEF)]
    undefined += [(0xDA, modrm) for modrm in (*range(0xE0, 0xE9), *range(0xEA, 0x100))]
    undefined += [(0xDB, modrm) for modrm in (0xE5, 0xE6, 0xE7, *range(0xF8, 0x100))]
    undefined += [(0xDD, modrm) for modrm in range(0xF0, 0x100)]
    undefined += [(0xDE, modrm) for modrm in (0xD8, *range(0xDA, 0xE0))]
    undefined += [(0xDF, modrm) for modrm in (*range(0xE1, 0xE8), *range(0xF8, 0x100))]
    undefined += [(0xD9, 0x08), (0xDB, 0x08), (0xDB, 0x20), (0xDB, 0x30), (0xDD, 0x08), (0xDD, 0x28), (0xDF, 0x08)]
    cases = [bytes(pair) for pair in undefined] + [b"\x0f\xae\xc0", b"\x0f\xae\x10", b"\xf0\xd9\xe8", b"\xf0\x9b"]
    for octets in cases[:12] if JIT_DISABLED else cases:
        assert execute(machine, octets) == "vector 6", octets.hex()


def test_probing_finds_an_fpu_and_fxsave(machine: BareMachine) -> None:
    """FNINIT, FNSTSW, FNSTCW as operating systems probe; CPUID's FPU and FXSR but neither MMX nor SSE; CR4.OSFXSR."""
    machine.put(DATA, 0x5A5A5A5A)
    code = FNINIT + b"\xdd\x3d" + AT + b"\xd9\x3d" + word(DATA + 2) + mov(EAX, 1) + b"\x0f\xa2\x89\xd3"
    code += mov(EAX, 1 << 9) + to_cr(4) + from_cr(4)
    assert execute(machine, code) == len(code)
    assert machine.get(DATA) == 0x037F0000
    assert machine.gpr[3] & (1 | 1 << 23 | 1 << 24 | 1 << 25 | 1 << 26) == 1 | 1 << 24
    assert machine.gpr[EAX] == 1 << 9


# -- images ---------------------------------------------------------------------------------------------------------

STATE = FNINIT + FLD1 + b"\xd9\xeb" + b"\xdd\x05" + AT  # 1, pi, a double from memory
STORE_AT = len(STATE) - 6


def test_the_environment_of_a_32_bit_operand_size(machine: BareMachine) -> None:
    """Figure 8-9: words with ones above them, pointers to the last instruction and operand, its opcode."""
    code = STATE + b"\xd9\x35" + word(DATA + 64)
    assert execute(machine, code) == len(code)
    image = struct.unpack("<7I", machine.memory[DATA + 64 : DATA + 92].tobytes())
    opcode = 0x505  # DD /0 with an address: low bits of DD, then 05
    tags = 0x03FF | 1 << 10
    assert image == (0xFFFF037F, 0xFFFF2800, 0xFFFF0000 | tags, CODE + STORE_AT, opcode << 16 | CODE_0, DATA, 0xFFFF0000 | DATA_0)
    assert machine.cpu.fpu_control == 0x037F


def test_the_environment_of_a_16_bit_operand_size(machine: BareMachine) -> None:
    """Figure 8-11: seven words, selectors but no opcode; and FLDENV gets back what it says."""
    code = STATE + b"\x66\xd9\x35" + word(DATA + 64) + FNINIT + b"\x66\xd9\x25" + word(DATA + 64)
    assert execute(machine, code) == len(code)
    image = struct.unpack("<7H", machine.memory[DATA + 64 : DATA + 78].tobytes())
    assert image == (0x037F, 0x2800, 0x07FF, CODE + STORE_AT & 0xFFFF, CODE_0, DATA & 0xFFFF, DATA_0)
    cpu = machine.cpu
    assert (cpu.fpu_status, cpu.fpu_instruction, cpu.fpu_operand_selector) == (0x2800, CODE + STORE_AT & 0xFFFF, DATA_0)


@pytest.mark.parametrize("save, restore, n", [(b"\xdd\x35", b"\xdd\x25", 108), (b"\x66\xdd\x35", b"\x66\xdd\x25", 94)])
def test_fsave_and_frstor_are_inverse(machine: BareMachine, save: bytes, restore: bytes, n: int) -> None:
    """FNSAVE writes 108 or 94 bytes and initializes; FRSTOR and FNSAVE give the same image again."""
    machine.memory[DATA + 64 : DATA + 512] = 0xCC
    code = STATE + save + word(DATA + 64) + restore + word(DATA + 64) + save + word(DATA + 256)
    assert execute(machine, code) == len(code)
    first, second = (machine.memory[DATA + at : DATA + at + 120].tobytes() for at in (64, 256))
    assert first == second and first[n:] == b"\xcc" * (120 - n)
    assert first[n - 70 : n - 60] == bytes.fromhex("35c26821a2da0fc90040")  # pi in ST(1)
    cpu = machine.cpu
    assert (cpu.fpu_control, cpu.fpu_status, cpu.fpu_occupied) == (0x037F, 0, 0)


def test_fxsave_and_fxrstor_are_inverse_and_leave_the_sse_fields_alone(machine: BareMachine) -> None:
    """512 bytes (volume 2, FXSAVE): abridged tags, registers 16 bytes apart; MXCSR and XMM fields are reserved here."""
    machine.memory[DATA + 64 : DATA + 1088] = 0xCC
    code = STATE + b"\x0f\xae\x05" + word(DATA + 64) + FNINIT
    code += b"\x0f\xae\x0d" + word(DATA + 64) + b"\x0f\xae\x05" + word(DATA + 576)
    assert execute(machine, code) == len(code)
    first, second = (machine.memory[DATA + at : DATA + at + 512].tobytes() for at in (64, 576))
    assert first == second
    expected = (0x037F, 0x2800, 0xE0, 0x505, CODE + STORE_AT, CODE_0, DATA, DATA_0)
    assert struct.unpack("<HHHHIIII", first[:24]) == expected
    assert first[24:32] == b"\xcc" * 8 and first[160:] == b"\xcc" * 352
    assert first[48:64] == bytes.fromhex("35c26821a2da0fc90040" + "00" * 6)
    for octets in (b"\x0f\xae\x05", b"\x0f\xae\x0d"):
        assert execute(machine, octets + word(DATA + 8)) == "vector 13"


@pytest.mark.parametrize(
    "octets",
    [b"\xdd\x35", b"\xd9\x35", b"\xdb\x3d", b"\xdd\x1d", b"\xdd\x25", b"\xd9\x25", b"\xdf\x35", b"\xdc\x05"],
    ids=bytes.hex,
)
def test_a_fault_on_the_second_page_leaves_everything_as_it_was(machine: BareMachine, octets: bytes) -> None:
    """State, memory and tags before the fault are those behind it."""
    edge = DATA + 0x2000
    machine.paging()
    machine.set_page(edge, edge, 0)
    before_fault = STATE
    machine.memory[edge - 0x100 : edge + 0x100] = 0x5A
    assert execute(machine, before_fault) == len(before_fault)
    fields = ("fpu_control", "fpu_status", "fpu_occupied", "fpu_instruction", "fpu_operand", "fpu_opcode")
    before = [int(machine.cpu[name]) for name in fields], machine.cpu.fpu_value[:8].tobytes()
    assert execute(machine, octets + word(edge - 6)) == "vector 14"
    assert machine.cpu.cr2 == edge
    assert before == ([int(machine.cpu[name]) for name in fields], machine.cpu.fpu_value[:8].tobytes())
    assert set(machine.memory[edge - 0x100 : edge + 0x100]) == {0x5A}


def test_a_store_over_decoded_code_is_seen(machine: BareMachine) -> None:
    """FSTP writes the instruction behind it: the new bytes execute."""
    machine.put(DATA, int.from_bytes(b"\x43\x43\x43\x43\xf4\x90\x90\x90", "little"), 8)
    head = FNINIT + b"\xdf\x2d" + AT + b"\xdf\x3d"
    target = CODE + len(head) + 4
    assert execute(machine, head + word(target) + b"\x90" * 8) == len(head) + 8
    assert machine.gpr[3] == 4


def test_every_operation_is_numbered_in_order() -> None:
    """The constants of isa/x87_ops.py are the places in its list."""
    assert {f"X87_{name}": NUMBER[name] for name, _ in OPERATIONS} == {
        name: value for name, value in vars(x87_ops).items() if name.startswith("X87_")
    }
    assert set(TRANSCENDENTAL) < set(FORMS)


# -- under the VMM --------------------------------------------------------------------------------------------------


def set_bits(bits: int, clear: int = 0) -> bytes:
    """Set and clear bits of CR0."""
    return from_cr(0) + b"\x25" + word(~clear) + b"\x0d" + word(bits) + to_cr(0)


def test_a_guest_under_the_vmm_uses_the_fpu_itself_and_gets_its_own_traps() -> None:
    """Arithmetic in both rings, #NM by TS, gone after CLTS and after clearing EM, #MF by a division by zero: E1 holds."""
    compute = FNINIT + FLD1 + b"\xd9\xeb\xde\xc1\xd9\xfe"
    kernel = Kernel(
        [
            Step(set_bits(CR0_NE | CR0_MP)), Step(compute), Step(compute + b"\xdd\x1d" + word(DATA), 3),
            Step(set_bits(CR0_TS)), Step(FNOP), Step(FNOP, 3), Step(WAIT), Step(b"\x0f\x06" + compute),
            Step(set_bits(CR0_EM)), Step(FNOP), Step(set_bits(0, CR0_EM)), Step(compute, 3),
            Step(UNMASK + FLD1 + FLDZ + FDIVP + WAIT), Step(FNOP, 3), Step(FNCLEX + FNOP),
        ]
    )  # fmt: skip
    assert assert_equal(kernel).other.outcome == "exited 1"
    machine, _ = run(kernel, "trap-and-emulate")
    assert [trap[0] for trap in log(machine) if trap[0] != SYSTEM_CALL_LOGGED] == [7, 7, 7, 7, 16, 16]


def test_a_guest_that_clears_ne_is_told_of_an_exception_by_irq_13() -> None:
    """The interpreter performs the instruction that waits for it; the virtual board's FERR shows as the bare machine's."""
    assert_equal(Kernel([Step(FNINIT + UNMASK + FLD1 + FLDZ + FDIVP + WAIT), Step(FNINIT + FLD1)]))
