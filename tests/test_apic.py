"""Local APIC and I/O APIC against models written from the manuals, and a guest that takes the timer's interrupts.

All accesses are the guest's own, in blocks and by single instructions.
"""

import itertools

import pytest
from apic_machine import (
    CURRENT,
    DFR,
    DIVIDE,
    ENABLE,
    EOI,
    ESR,
    ICR,
    ICR_HIGH,
    ID,
    INITIAL,
    IRR,
    ISR,
    LDR,
    LEVEL,
    LINT0,
    LOCAL,
    LOW,
    LVT_ERROR,
    LVT_TIMER,
    MASK,
    PERIODIC,
    PPR,
    REMOTE,
    SELF,
    SVR,
    TMR,
    TPR,
    ApicMachine,
    InputModel,
    LocalModel,
    le,
    load,
    store,
)
from bare_machine import CODE, CODE_0, DATA, EAX, EBX, ECX, EDX, ESP, HANDLERS, HLT, IDT, STACK, BareMachine
from descriptor_machine import gate
from hypothesis import given, settings
from hypothesis import strategies as st

from x86virt.api import make_setup
from x86virt.core.layout import BUDGET, HALTED_FOREVER, NEVER, OK
from x86virt.isa.events import EVENT_SYS_LAPIC_MMIO_ACCESS
from x86virt.profile import load_profile
from x86virt.saved import SavedError, machine_bytes, machine_of

MACHINES = [ApicMachine(), ApicMachine(stepping=True)]
TICKS_PER_BUS_CLOCK = 64 * 3200 // 200  # of p4_prescott
MSR_BASE = 0x1B


@pytest.fixture(params=(0, 1), ids=("blocks", "steps"))
def machine(request):
    """A fresh machine."""
    MACHINES[request.param].power_on()
    return MACHINES[request.param]


def rdmsr(number):
    """RDMSR: EDX:EAX."""
    return b"\xb9" + le(number) + b"\x0f\x32"


def wrmsr(number, value):
    """WRMSR."""
    return b"\xb9" + le(number) + b"\xb8" + le(value) + b"\xba" + le(value >> 32) + b"\x0f\x30"


def test_registers_after_reset(machine):
    """Section 10.4.7.1, and the 82093AA's."""
    expected = {ID: 0, 0x30: 0x50014, TPR: 0, 0x90: 0, PPR: 0, LDR: 0, DFR: 0xFFFFFFFF, SVR: 0xFF, ESR: 0, ICR: 0, ICR_HIGH: 0}
    expected |= dict.fromkeys(range(LVT_TIMER, INITIAL, 16), MASK)
    expected |= {INITIAL: 0, CURRENT: 0, DIVIDE: 0, **dict.fromkeys(range(ISR, ESR, 16), 0)}
    for register, value in expected.items():
        assert machine.read(register) == value, hex(register)
    assert machine.io_read(1) == 0x170011
    assert [machine.io_read(0x10 + n) for n in range(48)] == [MASK, 0] * 24
    assert machine.io_read(0x40) == 0


@pytest.mark.parametrize(
    ("register", "writable"),
    ((ID, 0xFF000000), (TPR, 0xFF), (LDR, 0xFF000000), (SVR, 0x3FF), (ICR_HIGH, 0xFF000000), (DIVIDE, 0xB), (LVT_TIMER, 0x300FF),
     (0x330, 0x107FF), (0x340, 0x107FF), (LINT0, 0x1A7FF), (0x360, 0x1A7FF), (LVT_ERROR, 0x100FF), (INITIAL, 0xFFFFFFFF)),
)  # fmt: skip
def test_writable_bits(machine, register, writable):
    """What sticks of all ones and of all zeros (software-enabled)."""
    machine.write(SVR, ENABLE)
    machine.write(register, 0xFFFFFFFF)
    assert machine.read(register) == writable
    machine.write(register, 0)
    assert machine.read(register) == (MASK if LVT_TIMER <= register < INITIAL and register == SVR else 0)


def test_destination_format_and_io_registers(machine):
    """DFR keeps its low bits set; the I/O APIC's identity is copied to its arbitration register; an entry's writable bits."""
    machine.write(DFR, 0)
    assert machine.read(DFR) == 0x0FFFFFFF
    machine.io_write(0, 0xFFFFFFFF)
    assert (machine.io_read(0), machine.io_read(2)) == (0x0F000000, 0x0F000000)
    for number in (0, 7, 23):
        machine.io_write(0x10 + 2 * number, 0xFFFFFFFF)
        machine.io_write(0x11 + 2 * number, 0xFFFFFFFF)
        assert (machine.io_read(0x10 + 2 * number), machine.io_read(0x11 + 2 * number)) == (0x1AFFF, 0xFF000000)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("ipi"), st.integers(0, 255)),
        st.tuples(st.just("ipi"), st.sampled_from((0x31, 0x3F, 0x40, 0x41, 0x9F, 0xFF))),
        st.tuples(st.just("tpr"), st.integers(0, 255)),
        st.tuples(st.just("end"), st.just(0)),
        st.tuples(st.just("take"), st.just(0)),
        st.tuples(st.just("enable"), st.booleans()),
        st.tuples(st.just("show errors"), st.just(0)),
    ),
    max_size=25,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(ACTIONS, st.booleans())
def test_priorities_against_the_model(actions, stepping):
    """Self IPIs, task priority, EOI, acceptance, software enabling and the error status in any order."""
    machine, model = MACHINES[stepping], LocalModel()
    machine.power_on()
    machine.write(SVR, ENABLE | 0xFF)
    model.enabled = True
    for action, value in actions:
        if action == "ipi":
            machine.write(ICR, SELF | value)
            model.send_to_itself(value)
        elif action == "tpr":
            machine.write(TPR, value)
            model.priority = value
        elif action == "end":
            machine.write(EOI, 0)
            model.end()
        elif action == "take":
            assert machine.take() == model.take()
        elif action == "enable":
            machine.write(SVR, ENABLE * value | 0xFF)
            model.enabled = value
        else:
            machine.write(ESR, 0)
            model.shown_errors, model.errors = model.errors, 0
        assert machine.read(PPR) == model.processor_priority()
    assert (machine.words(IRR), machine.words(ISR)) == (model.requested, model.serving)
    assert machine.read(ESR) == model.shown_errors


@pytest.mark.parametrize(
    ("high", "low", "arrives"),
    ((0, 0x41, True), (0xFF, 0x41, True), (1, 0x41, False), (0, 0x141, True), (0, SELF | 0x41, True), (9, SELF * 2 | 0x41, True),
     (0, SELF * 3 | 0x41, False), (4, 0x841, True), (2, 0x841, False), (6, 0x841, True), (0, 0x541, False), (1, 0x541, False),
     (0, SELF * 3 | 0x4500, False), (1, 0x608, False), (1, 0xC500, False)),
)  # fmt: skip
def test_interprocessor_interrupts(machine, high, low, arrives):
    """Destinations, shorthands and modes: fixed and lowest priority reach the processor; INIT and SIPI to others end idle."""
    machine.write(SVR, ENABLE)
    machine.write(LDR, 4 << 24)
    machine.write(ICR_HIGH, high << 24)
    machine.write(ICR, low)
    assert machine.words(IRR) == ({0x41} if arrives else set())
    assert machine.read(ICR) == low and machine.read(ESR) == 0


def test_cluster_destinations(machine):
    """DFR 0: the high half of the logical destination is a cluster."""
    machine.write(SVR, ENABLE)
    machine.write(DFR, 0)
    machine.write(LDR, 0x23 << 24)
    for vector, (destination, arrives) in enumerate(((0x21, 1), (0x22, 1), (0x24, 0), (0x31, 0), (0x13, 0), (0xFF, 1)), 0x50):
        machine.write(ICR_HIGH, destination << 24)
        machine.write(ICR, 0x800 | vector)
        assert (vector in machine.words(IRR)) == bool(arrives), hex(destination)


def test_errors(machine):
    """Illegal registers and vectors show in ESR after a write to it, and raise the error interrupt once unmasked."""
    machine.write(SVR, ENABLE)
    machine.read(0x40)
    machine.write(0x3F0, 1)
    assert machine.read(ESR) == 0
    machine.write(ESR, 0)
    assert machine.read(ESR) == 0x80
    machine.write(LVT_ERROR, 0x71)
    machine.write(ICR, SELF | 3)
    assert machine.take() == 0x71
    machine.write(ESR, 0)
    assert machine.read(ESR) == 0x20


def test_software_disable_masks_local_vectors(machine):
    """Section 10.4.7.2: all masks are set and cannot be cleared; what was requested stays."""
    machine.write(SVR, ENABLE)
    machine.write(ICR, SELF | 0x55)
    machine.write(LVT_TIMER, 0x40)
    machine.write(SVR, 0)
    machine.write(LINT0, 0x700)
    assert (machine.read(LVT_TIMER), machine.read(LINT0)) == (MASK | 0x40, MASK | 0x700)
    machine.write(ICR, SELF | 0x56)
    assert machine.words(IRR) == {0x55}


# -- accesses ---------------------------------------------------------------------------------------------------------


def test_accesses_are_made_once(machine):
    """Loads, stores and read-modify-writes in the middle of blocks: each register access is charged once, and happens once."""
    machine.write(SVR, ENABLE)
    count = machine.cpu.ledger_count
    before = int(count[EVENT_SYS_LAPIC_MMIO_ACCESS].sum())
    code = b"\x41\x41" + store(LOCAL + TPR, 5) + b"\x41" + b"\x83\x05" + le(LOCAL + TPR) + b"\x07" + b"\x41"  # ADD [TPR], 7
    code += load(LOCAL + TPR) + b"\x89\xc3" + b"\x87\x05" + le(LOCAL + TPR)  # MOV EBX, EAX; XCHG [TPR], EAX
    code += b"\xff\x35" + le(LOCAL + TPR) + b"\x8f\x05" + le(LOCAL + LDR)  # PUSH [TPR]; POP [LDR]
    machine.gpr[ECX] = 0
    machine.execute(code)
    assert (machine.gpr[EBX], machine.gpr[EAX], machine.gpr[ECX]) == (12, 12, 4)
    assert int(count[EVENT_SYS_LAPIC_MMIO_ACCESS].sum()) - before == 1 + 2 + 1 + 2 + 1 + 1


def test_narrow_and_misaligned_accesses(machine):
    """Reads give the bytes that they cover; writes that are no aligned doubleword are lost."""
    machine.write(SVR, ENABLE | 0x2C3)
    assert machine.execute(b"\x31\xc0\xa0" + le(LOCAL + SVR)) == 0xC3  # MOV AL
    assert machine.execute(b"\x31\xc0\x66\xa1" + le(LOCAL + SVR + 1)) == 3  # MOV AX
    assert machine.execute(load(LOCAL + SVR + 8)) == 0
    machine.execute(b"\xc6\x05" + le(LOCAL + TPR) + b"\x33" + b"\x66\xc7\x05" + le(LOCAL + TPR) + b"\x44\x00")
    machine.execute(store(LOCAL + TPR + 1, 0x55) + store(LOCAL + TPR + 4, 0x66) + store(LOCAL + 0xFFE, 0x77777777))
    assert machine.read(TPR) == 0


def test_string_and_float_accesses(machine):
    """REP STOSD over TPR, APR and PPR writes each place once; REP MOVSD reads them back; FSTP of a double is two stores."""
    machine.write(SVR, ENABLE)
    machine.execute(b"\xb8\x20\0\0\0\xbf" + le(LOCAL + TPR) + b"\xb9\x0c\0\0\0\xfc\xf3\xab")
    assert machine.read(TPR) == 0x20
    machine.execute(b"\xbe" + le(LOCAL + TPR) + b"\xbf" + le(DATA) + b"\xb9\x0c\0\0\0\xfc\xf3\xa5")
    assert [machine.get(DATA + 4 * n) for n in range(12)] == [0x20, 0, 0, 0, 0, 0, 0, 0, 0x20, 0, 0, 0]
    machine.execute(b"\xdb\xe3\xdd\x05" + le(DATA) + b"\xdd\x1d" + le(LOCAL + TPR))
    assert machine.read(TPR) == 0x20


# -- IA32_APIC_BASE and CPUID -----------------------------------------------------------------------------------------

CPUID_1 = b"\xb8\x01\0\0\0\x0f\xa2"


def test_base_register_and_cpuid(machine):
    """EN switches the APIC and CPUID's bit; enabled again it is as after a reset; reserved bits are #GP."""
    machine.execute(rdmsr(MSR_BASE))
    assert (machine.gpr[EAX], machine.gpr[EDX]) == (0xFEE00900, 0)
    machine.execute(CPUID_1)
    with_apic = int(machine.gpr[EDX])
    assert with_apic >> 9 & 1
    machine.write(SVR, ENABLE)
    machine.write(TPR, 0x30)
    machine.execute(wrmsr(MSR_BASE, 0xFEE00100))
    assert machine.read(TPR) == 0xFFFFFFFF
    machine.execute(CPUID_1)
    assert machine.gpr[EDX] == with_apic & ~(1 << 9)
    machine.execute(wrmsr(MSR_BASE, 0xFEE00900))
    assert (machine.read(TPR), machine.read(SVR)) == (0, 0xFF)
    for bad in (0xFEE00901, 0xFEE00B00, 0xFEE00D00, 0x10_FEE00900 << 4 | 0x900):
        machine.write_code(wrmsr(MSR_BASE, bad) + HLT)
        assert machine.stopped_at(machine.run_to_end()) == "vector 13"


@pytest.mark.parametrize("base", (0xFEF00000, 0x50000, 0xC8000, 0xFEC00000))
def test_registers_move_with_the_base(machine, base):
    """The registers answer where the base says, in front of RAM too, which keeps what it had."""
    if base < 1 << 20:
        machine.put(base + TPR, 0x1234)
    machine.write(SVR, ENABLE)
    code = load(base + TPR) + wrmsr(MSR_BASE, base | 0x900) + store(base + TPR, 0x55) + load(base + TPR) + b"\x89\xc3"
    machine.execute(code + wrmsr(MSR_BASE, LOCAL | 0x900) + load(base + TPR) + b"\x89\xc6" + load(LOCAL + TPR))
    assert (machine.gpr[EBX], machine.gpr[EAX]) == (0x55, 0x55)
    if base < 1 << 20:
        assert machine.gpr[6] == machine.get(base + TPR) == 0x1234


def test_machines_without_apic_are_as_before():
    """No registers, CPUID without the bit, IA32_APIC_BASE of a disabled APIC."""
    plain = BareMachine()
    plain.write_code(load(LOCAL + 0x30) + b"\x89\xc6" + CPUID_1 + b"\x89\xd7" + rdmsr(MSR_BASE) + HLT)
    assert plain.go() == HALTED_FOREVER
    assert (plain.gpr[6], plain.gpr[7] >> 9 & 1, plain.gpr[EAX]) == (0xFFFFFFFF, 0, 0xFEE00100)


# -- the timer --------------------------------------------------------------------------------------------------------

DIVISORS = {0: 2, 1: 4, 2: 8, 3: 16, 8: 32, 9: 64, 10: 128, 11: 1}


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(DIVISORS)), st.integers(1, 1 << 32 - 1) | st.integers(1, 60), st.booleans(), st.integers(1, 3000))
def test_current_count(code, count, periodic, turns):
    """What the current-count register shows some time after the initial count was written, by the ticks in between."""
    program = store(LOCAL + INITIAL, count) + b"\xb9" + le(turns) + b"\x49\x75\xfd" + load(LOCAL + CURRENT)
    seen = []
    for machine in MACHINES:
        machine.power_on()
        machine.write(SVR, ENABLE)
        machine.write(DIVIDE, code)
        machine.write(LVT_TIMER, MASK | PERIODIC * periodic | 0x40)
        machine.write_code(program + HLT)
        began, machine.eflags = int(machine.cpu.ticks), 2
        if machine.stepping:
            assert machine.go(single=True) == OK
            written = int(machine.cpu.ticks)
            while machine.cpu.rip != CODE + len(program):
                assert machine.processor.run(single=True) == OK
            clocks = (int(machine.cpu.ticks) - written) // (TICKS_PER_BUS_CLOCK * DIVISORS[code])
            if periodic:
                expected = count - clocks % count
            else:
                expected = max(0, count - clocks)
            assert machine.gpr[EAX] == expected
            assert machine.processor.run(single=True) == OK  # HLT
        else:
            assert machine.go() == HALTED_FOREVER
        seen.append((int(machine.gpr[EAX]), int(machine.cpu.ticks) - began))
    assert seen[0] == seen[1]


def test_a_new_divisor_counts_on(machine):
    """The count goes on from where it is when the divide configuration changes."""
    machine.write(SVR, ENABLE)
    machine.write(DIVIDE, 10)
    machine.write(INITIAL, 1000)
    machine.execute(b"\xb9" + le(30000) + b"\x49\x75\xfd")
    before = machine.read(CURRENT)
    assert 0 < before < 1000
    machine.write(DIVIDE, 11)
    assert before - 128 <= machine.read(CURRENT) <= before


HANDLER = 0x9000
WANTED = 6


def timer_program(count, divide, periodic, waiting):
    """A guest that takes timer interrupts: its code, and that of the handler, which notes the time of each arrival."""
    code = store(LOCAL + SVR, ENABLE | 0xFF) + store(LOCAL + DIVIDE, divide)
    code += store(LOCAL + LVT_TIMER, PERIODIC * periodic | 0x40) + b"\x31\xf6" + b"\x31\xed"
    code += store(LOCAL + INITIAL, count) + b"\x0f\x31\xa3" + le(DATA) + b"\xfb"  # RDTSC, MOV [DATA], EAX, STI
    loop = (b"\xf4" if waiting else b"\x45\x45") + b"\x83\xfe" + bytes([WANTED])
    code += loop + b"\x75" + bytes([256 - len(loop) - 2]) + b"\xfa"
    handler = b"\x50\x52\x0f\x31\x46\x89\x04\xb5" + le(DATA)  # PUSH EAX, PUSH EDX, RDTSC, INC ESI, MOV [DATA + ESI * 4], EAX
    if not periodic:
        handler += store(LOCAL + INITIAL, count)
    handler += store(LOCAL + EOI, 0) + b"\x5a\x58\xcf"
    return code, handler


def run_timer_guest(machine, program, slice_ticks=0):
    """Run it; returns the arrivals and all ticks and instructions."""
    code, handler = program
    machine.power_on()
    machine.put(IDT + 8 * 0x40, gate(CODE_0, HANDLER, 14), 8)
    machine.write_code(handler, HANDLER)
    machine.write_code(code + HLT)
    cpu = machine.cpu
    machine.gpr[ESP], machine.eflags, cpu.rip = STACK + 0x2000, 2, CODE
    while True:
        cpu.budget = int(cpu.ticks) + slice_ticks if slice_ticks else NEVER
        outcome = machine.processor.run(single=machine.stepping)
        if outcome not in (OK, BUDGET):
            break
    assert outcome == HALTED_FOREVER
    cpu.budget = NEVER
    times = [machine.get(DATA + 4 * n) for n in range(WANTED + 1)]
    ledger = machine.processor.ledger()
    return times, int(cpu.ticks), int(cpu.retired), int(ledger.ticks.sum()), machine.gpr[:8].tolist()


@pytest.mark.parametrize(
    ("count", "divide", "periodic", "waiting"),
    [(700, 11, 1, 0), (700, 11, 0, 0), (3, 10, 1, 0), (900, 11, 1, 1), (120, 2, 0, 1), (37, 3, 1, 1)],
)
def test_timer_interrupts_in_blocks_steps_and_slices(count, divide, periodic, waiting):
    """The same cycles whole, by instructions and in slices; each arrival is at or soon after its time."""
    program = timer_program(count, divide, periodic, waiting)
    whole = run_timer_guest(MACHINES[0], program)
    assert whole == run_timer_guest(MACHINES[1], program)
    assert whole == run_timer_guest(MACHINES[0], program, 64 * 997)
    assert whole == run_timer_guest(MACHINES[0], program, 64 * 61)
    times, period = whole[0], count * DIVISORS[divide] * TICKS_PER_BUS_CLOCK // 64
    slack = 6000  # the delivery, a wake-up and the handler's first instructions
    for number in range(1, WANTED + 1):
        if periodic:
            assert number * period - 200 <= times[number] - times[0] <= number * period + slack
        else:
            assert period <= times[number] - times[number - 1] <= period + 2 * slack
    assert whole[1] == whole[3]  # conservation


# -- inputs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger, polarity, mode, destination", list(itertools.product(
    (0, LEVEL), (0, LOW), (0, 1, 2, 4), (0, 1, 0xFF, 0x801, 0x802))))  # fmt: skip
def test_redirection_matrix(trigger, polarity, mode, destination):
    """Trigger, polarity, delivery mode and destination of an entry against the model, over one walk of its line."""
    for machine in MACHINES:
        machine.power_on()
        local = LocalModel()
        model = InputModel(local, 1)
        machine.write(SVR, ENABLE)
        machine.write(LDR, 1 << 24)
        local.enabled = True
        number = 5 + mode
        machine.io_write(0x11 + 2 * number, (destination & 0xFF) << 24)
        model.destination = destination & 0xFF
        entry = trigger | polarity | mode << 8 | destination & 0x800 | 0x61
        for step in ("write", 1, 0, "mask", 1, 0, "write", "take", 1, "end", "take", "end", 0, "take", "end", 1, "take", "end"):
            if step in ("write", "mask"):
                value = entry | (MASK if step == "mask" else 0)
                machine.io_write(0x10 + 2 * number, value)
                model.write(value)
            elif step == "take":
                assert machine.take() == local.take()
            elif step == "end":
                machine.write(EOI, 0)
                model.ended(local.end())
            else:
                machine.drive(number, step)
                model.drive(step)
            machine.execute(b"\x90")
            model.look()
            assert machine.words(IRR) == local.requested, step
            assert bool(machine.io_read(0x10 + 2 * number) & REMOTE) == model.remote, step


INPUT_ACTIONS = st.lists(
    st.sampled_from(("high", "low", "pulse", "take", "end", "mask", "unmask", "edge", "level")), min_size=3, max_size=25
)


@settings(max_examples=60, deadline=None)
@given(INPUT_ACTIONS, st.sampled_from((1, 3, 9, 16, 23)), st.booleans(), st.booleans())
def test_input_against_the_model(actions, number, level, stepping):
    """One input in any order of levels, short pulses, masks, trigger changes, acceptance and EOI."""
    machine, local = MACHINES[stepping], LocalModel()
    machine.power_on()
    model = InputModel(local)
    machine.write(SVR, ENABLE)
    local.enabled = True
    entry = 0x91 | LEVEL * level
    machine.io_write(0x10 + 2 * number, entry)
    model.write(entry)
    for action in actions:
        if action in ("high", "low"):
            machine.drive(number, action == "high")
            model.drive(int(action == "high"))
        elif action == "pulse":
            for value in (1 - model.level, model.level):
                machine.drive(number, value)
                model.drive(value)
        elif action == "take":
            assert machine.take() == local.take()
        elif action == "end":
            machine.write(EOI, 0)
            model.ended(local.end())
        else:
            bits = {"mask": (MASK, MASK), "unmask": (MASK, 0), "edge": (LEVEL, 0), "level": (LEVEL, LEVEL)}[action]
            entry = entry & ~bits[0] | bits[1]
            machine.io_write(0x10 + 2 * number, entry)
            model.write(entry)
        machine.execute(b"\x90")
        model.look()
    assert machine.words(IRR) == local.requested
    assert machine.words(TMR) & (local.requested | local.serving) == local.levels & (local.requested | local.serving)
    assert bool(machine.io_read(0x10 + 2 * number) & REMOTE) == model.remote


def out(port, value):
    """OUT of a byte."""
    return b"\xb0" + bytes([value]) + b"\xe6" + bytes([port])


PICS = b"".join(out(*pair) for pair in ((0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x21, 0xFD)))  # IRQ 1 is open
PIT = out(0x43, 0x34) + out(0x40, 0x40) + out(0x40, 0x02)  # channel 0, mode 2, 0x240 clocks


@pytest.mark.parametrize("enabled, software, masked, mode", list(itertools.product((0, 1), (0, 1), (0, 1), (0, 7))))
def test_virtual_wire(machine, enabled, software, masked, mode):
    """IRQ 1 of the PICs reaches the processor past a disabled APIC, through LINT0 as ExtINT, or as LINT0's fixed vector."""
    machine.execute(PICS)
    machine.write(SVR, ENABLE * software)
    machine.write(LINT0, mode << 8 | 0x77 | MASK * masked)
    if not enabled:
        machine.execute(wrmsr(MSR_BASE, 0xFEE00100))
    # The keyboard's line, through the PICs' own registers, as set_irq_line drives it.
    machine.processor.board.pic[0].lines |= 2
    machine.processor.board.pic[0].irr |= 2
    machine.drive(1, 1)
    if not enabled or not software:
        assert machine.take() == 0x21
    elif masked:
        assert machine.take() is None
    else:
        assert machine.take() == (0x21 if mode == 7 else 0x77)


def test_external_interrupts_through_the_io_apic(machine):
    """Input 0 is INTR of the PICs: as ExtINT its entry has the processor ask them; masked it does not."""
    machine.execute(PICS)
    machine.write(SVR, ENABLE)
    machine.io_write(0x10, 0x700 | MASK)
    machine.processor.board.pic[0].irr |= 2
    assert machine.take() is None
    machine.io_write(0x10, 0x700)
    assert machine.take() == 0x21


def test_the_pit_is_input_2(machine):
    """IRQ 0 arrives at input 2 while the PICs mask it, wakes HLT, and edges that passed while it was masked are lost."""
    machine.execute(PICS + PIT)
    machine.write(SVR, ENABLE)
    machine.execute(b"\xb9" + le(200000) + b"\x49\x75\xfd")  # many periods pass, masked
    machine.io_write(0x14, 0x88)
    assert machine.words(IRR) == set()
    machine.gpr[ESP], machine.eflags = STACK + 0x2000, 2
    machine.write_code(b"\xfb\xf4" + HLT)
    machine.run_to_end()
    assert (int(machine.cpu.rip) - HANDLERS) // 16 == 0x88
    machine.write(EOI, 0)
    began = int(machine.cpu.ticks)
    machine.write_code(b"\xfb\xf4" + HLT)
    machine.eflags = 2
    machine.run_to_end()
    period = 64 * 3_200_000_000 * 0x240 // 1_193_182
    assert (int(machine.cpu.rip) - HANDLERS) // 16 == 0x88
    assert machine.cpu.ticks - began < period + 64 * 3000


def test_level_interrupt_comes_again_until_the_line_falls(machine):
    """A shared level-triggered line: EOI with the line still up sends the interrupt again."""
    machine.write(SVR, ENABLE)
    machine.io_write(0x10 + 2 * 20, LEVEL | 0x92)
    machine.drive(20, 1)
    for _ in range(3):
        assert machine.take() == 0x92
        assert machine.take() is None
        machine.write(EOI, 0)
    machine.drive(20, 0)
    assert machine.take() == 0x92  # it was sent before the line fell
    machine.write(EOI, 0)
    assert machine.take() is None


# -- the machine ------------------------------------------------------------------------------------------------------


def test_bus_clock_of_each_profile():
    """The timer counts the bus clock of the profile."""
    ratios = {"p4_prescott": 16, "p4_cedarmill": 13, "core2_woodcrest": 7, "core2_harpertown": 7, "nehalem": 20}
    for name, ratio in ratios.items():
        profile = load_profile(name)
        machine = ApicMachine(profile=name)
        assert machine.cpu.apic.bus_clock == round(64 * float(profile["cpu.mhz"]) / float(profile["cpu.bus_mhz"]))
        assert abs(machine.cpu.apic.bus_clock / 64 - ratio) < 0.05


def test_system_reset_resets_the_apics(machine):
    """After a reset of the machine the APICs are as after power on."""
    machine.write(SVR, ENABLE)
    machine.write(LVT_TIMER, 0x40)
    machine.write(INITIAL, 1000)
    machine.io_write(0x10, 0x55)
    machine.processor.system_reset()
    apic = machine.cpu.apic
    assert (apic.spurious, apic.count_from, apic.local_vector[0], apic.enabled) == (0xFF, 0, MASK, 1)
    assert machine.cpu.io_apic.entry_low[0] == MASK


HOSTILE = [
    ("apic", "deliverable", 256), ("apic", "deliverable", -2), ("apic", "page", 0), ("apic", "enabled", 0),
    ("apic", "present", 0),
    ("apic", "requested", 1 << 40), ("apic", "in_service", -1), ("apic", "count_from", 1 << 40), ("apic", "count_began", -1),
    ("apic", "divide", 15), ("apic", "bus_clock", 0), ("apic", "base_msr", 1 << 60), ("io_apic", "entry_low", -1),
    ("io_apic", "selected", 300), ("io_apic", "levels", 1 << 24),
]  # fmt: skip


def test_saved_and_restored(tmp_path):
    """A machine with APICs comes back as it was; a file whose numbers lie outside is refused."""
    machine = make_setup("native", memory_bytes=1 << 20).machine()
    machine.processor.fit_apic(True)
    machine.processor.cpu.apic.initial_count = machine.processor.cpu.apic.count_from = 1234
    machine.processor.cpu.io_apic.entry_low[7] = LEVEL | 0x66
    again = machine_of(machine_bytes(machine), "file").processor
    for name in ("apic", "io_apic"):
        assert again.state[name].tobytes() == machine.processor.state[name].tobytes()
    for record, name, value in HOSTILE:
        row = machine.processor.state[record]
        before = row[name].copy()
        row[name] = value
        with pytest.raises(SavedError):
            machine_of(machine_bytes(machine), "file")
        row[name] = before
    assert machine_of(machine_bytes(machine), "file").processor.cpu.apic.present == 1
