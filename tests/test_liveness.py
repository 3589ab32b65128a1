"""Every field of a profile is live: changed alone, it changes a named event or a cost.

Prices are shown live by an instruction or situation that charges the event which the key prices, with the count and
the ticks that the key alone decides. Geometry is shown live by runs that differ in their TLB or cache events.
"""

import numpy as np
import pytest
from bare_machine import CODE, CODE_0, CODE_3, DATA, DATA_0, DATA_3, GDT, IDT, STACK_END, TF, BareMachine
from descriptor_machine import descriptor
from test_interpreter import InterpretEach
from virtualization_prices import charged, instructions_of_svm, instructions_of_vmx, walks
from x86virt.strategies.native import Native

from x86virt.core.deliver import delivery_event
from x86virt.core.entries import reset_devices, vmm_reference
from x86virt.guests import find_guest
from x86virt.isa.events import EVENT_ID, EVENTS
from x86virt.isa.rows import Row
from x86virt.isa.table import ROWS
from x86virt.isa.vectors import KIND_EXCEPTION
from x86virt.machine import Machine
from x86virt.processor import Processor
from x86virt.profile import load_profile
from x86virt.profile_schema import SCHEMA
from x86virt.vmm.registry import find_strategy

LOOP_GUEST = "mix"
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)


@pytest.fixture(scope="module")
def machine() -> BareMachine:
    """One machine for all rows."""
    return BareMachine()


def encode(row: Row, memory: bool) -> bytes:
    """A plain encoding of a row: ECX or [DATA] as the r/m operand, EDX as the register, zero immediates."""
    octets = bytearray(row.opcode)
    if "+r" in row.encoding:
        octets[-1] += ECX
    if row.modrm:
        field = int(row.modrm) if row.modrm.isdigit() else EDX
        if "Sw" in row.operands:
            field = 0  # ES
        elif {"Cd", "Dd"} & set(row.operands) and not row.modrm.isdigit():
            field = 0
        octets += bytes([field << 3 | 5]) + DATA.to_bytes(4, "little") if memory else bytes([0xC0 | field << 3 | ECX])
    lengths = {"ib": 1, "iw": 2, "iz": 4, "jb": 1, "jz": 4}
    for part in row.immediates:
        if part == "o":
            octets += DATA.to_bytes(4, "little")
        elif part == "ap":
            octets += (CODE + 64).to_bytes(4, "little") + CODE_0.to_bytes(2, "little")
        else:
            octets += bytes([10]) if row.mnemonic == "AAM" else bytes(lengths[part])
    return bytes(octets)


def prepare(machine: BareMachine, ring: int) -> None:
    """A state in which most instructions complete: a divisor of one, selectors that load, a stack."""
    machine.power_on()
    machine.unlimited()
    machine.ring(ring)
    machine.gpr[:8] = [1, 1, 0, DATA, STACK_END - 64, DATA, DATA, DATA + 64]
    machine.put(DATA, DATA_0 << 32 | 1, 8)
    machine.put(STACK_END - 64, DATA_0)


def run_bytes(machine: BareMachine, octets: bytes, ring: int = 0, steps: int = 1) -> dict[str, tuple[int, int]]:
    """Execute instructions one by one and tell what they charged."""
    machine.write_code(octets)
    machine.cpu.rip = CODE
    for _ in range(steps):
        machine.processor.run(single=True)
    return charged(machine)


def forms(row: Row) -> list[tuple[str, bool, int]]:
    """(event, memory form, ring) that a row declares."""
    memory_only = any(code[0] in "MO" and code != "M" or code == "M" for code in row.operands) and row.modrm != ""
    rows = []
    if row.cost and not memory_only:
        rows.append((row.cost, False, 0 if row.privilege != "any" or row.cost_kernel == row.cost else 3))
    if row.cost_memory and (memory_only or "Ev" in row.operands or "Eb" in row.operands or "Ew" in row.operands):
        rows.append((row.cost_memory, True, 0))
    if row.cost_kernel != row.cost:
        rows.append((row.cost_kernel, False, 0))
    return rows


# What a selector or flag makes of these rows is tested elsewhere; here they need their own situation.
SPECIAL = {"sys.sysexit", "sys.sysenter", "sys.ltr", "sys.lldt", "ins.into"}
EXTENSIONS = ("vmx.", "svm.", "exit.")
DIRECT = [
    (number, event, memory, ring)
    for number, row in enumerate(ROWS)
    for event, memory, ring in forms(row)
    if event not in SPECIAL and not event.startswith(EXTENSIONS)
]


@pytest.mark.parametrize(
    ("number", "event", "memory", "ring"), DIRECT, ids=[f"{ROWS[n].name}-{e}-{'m' if m else 'r'}" for n, e, m, _ in DIRECT]
)
def test_row_charges_its_event(machine: BareMachine, number: int, event: str, memory: bool, ring: int) -> None:
    """Each form of each row charges the event that the table declares, once, at the profile's price."""
    prepare(machine, ring)
    row = ROWS[number]
    if "Sw" in row.operands and row.operands[0] == "Sw" and not memory:
        machine.gpr[ECX] = DATA_0
    if "Mp" in row.operands:
        machine.put(DATA, 0x1234 | DATA_0 << 32, 8)
    if row.mnemonic in ("RDMSR", "WRMSR"):
        machine.gpr[ECX] = 0x174
    if row.operands[:1] == ("Cd",):
        machine.gpr[ECX] = {"0": 0x11, "2": 0, "3": 0, "4": 0}[row.modrm]
    if row.mnemonic == "RDPMC":
        machine.gpr[ECX] = 0
    if row.mnemonic == "BOUND":
        machine.put(DATA, 0x7FFFFFFF << 32, 8)
    if row.mnemonic == "LMSW":
        machine.gpr[ECX] = 1
        machine.put(DATA, 1)
    octets = encode(row, memory)
    if row.mnemonic == "MOV" and "Sw" in row.operands and row.operands[0] == "Sw" and memory:
        machine.put(DATA, DATA_0)
    if row.mnemonic == "POP" and row.operands[0] == "SS":
        machine.put(STACK_END - 64, DATA_0)
    got = run_bytes(machine, octets, ring)
    assert got.get(event) == (1, int(machine.cpu.price[EVENT_ID[event]])), f"{octets.hex(' ')}: {got}"


def with_handler(machine: BareMachine, ring: int) -> None:
    """Ring 3 code may use software interrupts, and every handler is the machine's own."""
    prepare(machine, ring)
    for vector in (3, 4):
        machine.memory[IDT + 8 * vector + 5] |= 0x60
    machine.memory[IDT + 8 * 0x80 : IDT + 8 * 0x81] = machine.memory[IDT + 8 * 3 : IDT + 8 * 4]
    machine.cpu.idtr_limit = 256 * 8 - 1


def not_present(machine: BareMachine) -> None:
    """ES descriptor at 0x30: present data turned absent."""
    machine.memory[0x1000 + 0x30 : 0x1000 + 0x38] = np.frombuffer(bytes.fromhex("ffff00000072cf00"), np.uint8)
    machine.cpu.gdtr_limit = max(int(machine.cpu.gdtr_limit), 0x37)
    machine.gpr[ECX] = 0x33


def paged(machine: BareMachine) -> None:
    """Identity paging, with one page absent."""
    machine.paging()
    machine.set_page(DATA, 0, 0)
    for page in range(0, 1 << 20, 4096):
        if page != DATA:
            machine.set_page(page, page, 7)


def alignment(machine: BareMachine) -> None:
    """CR0.AM and EFLAGS.AC."""
    machine.cpu.cr0 |= 1 << 18
    machine.eflags = 2 | 1 << 18


def overflow(machine: BareMachine) -> None:
    """OF set."""
    machine.eflags = 2 | 1 << 11


def trap(machine: BareMachine) -> None:
    """TF set."""
    machine.eflags = 2 | TF


def broken_stack(machine: BareMachine) -> None:
    """A TSS whose ring 0 stack selector is bad."""
    machine.put(0x3000 + 8, DATA_3, 2)


def short_stack(machine: BareMachine) -> None:
    """A stack segment with a small limit."""
    machine.processor.set_segment(2, DATA_3, 0, 0xFF, 0x40F3)


def outer_frame(machine: BareMachine) -> None:
    """A far return frame to ring 3."""
    for place, value in enumerate((CODE, CODE_3, STACK_END - 16, DATA_3)):
        machine.put(STACK_END - 64 + 4 * place, value)


def call_gate(machine: BareMachine) -> None:
    """A DPL 3 call gate at selector 0x30 to ring 0 code."""
    low, high = CODE_0 << 16 | (CODE + 64) & 0xFFFF, CODE & 0xFFFF0000 | 0xEC00
    machine.put(GDT + 0x30, low | high << 32, 8)
    machine.cpu.gdtr_limit = max(int(machine.cpu.gdtr_limit), 0x37)


def task(machine: BareMachine) -> None:
    """A second task at selector 0x30 that runs at CODE + 64."""
    machine.put(GDT + 0x30, descriptor(0x3800, 0x67, 9, s=0, db=0), 8)
    machine.cpu.gdtr_limit = max(int(machine.cpu.gdtr_limit), 0x37)
    machine.put(0x3820, CODE + 64)
    for number in range(6):
        machine.put(0x3848 + 4 * number, CODE_0 if number == 1 else DATA_0)


def fit_apic(machine: BareMachine) -> None:
    """Give the machine an I/O APIC, from whose index register the code loads."""
    machine.processor.fit_apic(True)
    prepare(machine, 0)


SITUATIONS = {
    "sys.mmio_uncached_read": ("a10000c0fe", 0, fit_apic),
    "sys.task_switch": ("ea000000003000", 0, task),
    "sys.far_ret_outer": ("cb", 0, outer_frame),
    "sys.far_call_gate_up": ("9a000000003300", 3, call_gate),
    "sys.exc_de": ("f7f1", 3, lambda m: m.gpr.__setitem__(ECX, 0)),
    "sys.exc_db": ("90", 3, trap),
    "sys.exc_bp": ("cc", 3, None),
    "sys.exc_of": ("ce", 3, overflow),
    "sys.exc_ud": ("0f0b", 3, None),
    "sys.exc_np": ("8ec1", 3, not_present),
    "sys.exc_ss": ("8b8424" + "00100000", 3, short_stack),
    "sys.exc_gp": ("fa", 3, None),
    "sys.exc_pf": ("a1" + DATA.to_bytes(4, "little").hex(), 3, paged),
    "sys.exc_ac": ("a1" + (DATA + 1).to_bytes(4, "little").hex(), 3, alignment),
    "sys.exc_same_cpl": ("0f0b", 0, None),
    "sys.int_n_cpl3_to_cpl0": ("cd80", 3, None),
    "sys.int_n_same_cpl": ("cd80", 0, None),
    "ins.into": ("ce", 0, None),
    "ins.lock_add_mem": ("f00105" + DATA.to_bytes(4, "little").hex(), 0, None),
    "ins.rep_start": ("f3aa", 0, None),
    "ins.rep_stos_byte": ("f3aa", 0, None),
    "ins.rep_movs_byte": ("f3a4", 0, None),
    "ins.rep_lods_byte": ("f3ac", 0, None),
    "ins.rep_scas_iteration": ("f3ae", 0, None),
    "ins.rep_cmps_iteration": ("f3a6", 0, None),
    "ins.rep_ins_iteration": ("f36c", 0, None),
    "ins.rep_outs_iteration": ("f36e", 0, None),
    "sys.exc_br": ("62056c000200", 3, lambda m: m.put(DATA + 0x6C, 0xFFFFFFFF, 8)),
    "ins.cpuid_leaf0": ("0fa2", 0, lambda m: m.gpr.__setitem__(EAX, 0)),
    "ins.cpuid_leaf1": ("0fa2", 0, None),
    "ins.mark": ("6687db", 0, None),
    "sys.far_jmp_same_cpl": ("ea" + (CODE + 64).to_bytes(4, "little").hex() + "0800", 0, None),
    "sys.far_call_same_cpl": ("9a" + (CODE + 64).to_bytes(4, "little").hex() + "0800", 0, None),
    "sys.sysenter": ("0f34", 3, lambda m: m.cpu.__setattr__("sysenter_cs", CODE_0)),
    "sys.sysexit": ("0f35", 0, lambda m: m.cpu.__setattr__("sysenter_cs", CODE_0)),
    "sys.lldt": ("0f00d1", 0, lambda m: m.gpr.__setitem__(ECX, 0)),
    "walk.native": ("a1" + (DATA + 4096).to_bytes(4, "little").hex(), 0, paged),
    "walk.reference_memory": ("a1" + (DATA + 4096).to_bytes(4, "little").hex(), 0, paged),
}


@pytest.mark.parametrize("event", SITUATIONS)
def test_situation_charges_its_event(machine: BareMachine, event: str) -> None:
    """What no row prices by itself is charged in its situation, ticks = count x price."""
    code, ring, change = SITUATIONS[event]
    with_handler(machine, ring)
    if change is not None:
        change(machine)
    got = run_bytes(machine, bytes.fromhex(code))
    count, ticks = got.get(event, (0, -1))
    assert count > 0 and ticks == count * int(machine.cpu.price[EVENT_ID[event]]), got


def guest_events(name: str, strategy: object, profile: str = "nehalem", cache_model: str = "tables") -> set[str]:
    """The events that a guest charges."""
    machine = Machine(strategy, load_profile(profile), 8 << 20, cache_model)
    machine.load(find_guest(name), "iterations=3")
    result = machine.run(10**9)
    assert result.outcome == "halted"
    return {event.name for event in EVENTS if result.ledger.event_count(event.name)}


def test_work_without_a_price_is_flagged() -> None:
    """A path of the VMM that no witness prices is charged as an unpriced hook, and the result says so."""
    from x86virt.strategies.trap_and_emulate import TrapAndEmulate

    machine = Machine(TrapAndEmulate(), load_profile("nehalem"), 8 << 20)
    assert machine.vm is not None
    machine.vm.prices.table.clear()
    machine.load(find_guest("hello"))
    result = machine.run(10**9)
    assert result.unpriced == result.ledger.event_count("vmm.unpriced_hook") > 0


@pytest.fixture(scope="module")
def virtualization() -> dict[str, tuple[int, int]]:
    """What runs of VMX and SVM charge, at the prices of each run's own profile."""
    got: dict[str, tuple[int, int]] = {}
    for machine in (instructions_of_vmx(), instructions_of_svm(), walks()):
        for event, (count, ticks) in charged(machine).items():
            if not event.startswith("ins."):
                assert ticks == count * int(machine.cpu.price[EVENT_ID[event]]) or not EVENTS[EVENT_ID[event]].fixed, event
        got |= charged(machine)
    return got


EXIT_PRICES = {event.price for event in EVENTS if event.name.startswith("exit.")}


def test_every_price_of_an_exit_is_charged(virtualization: dict[str, tuple[int, int]]) -> None:
    """Exits share five prices; that each kind is charged as its own event is held where exits are tested."""
    assert {EVENTS[EVENT_ID[event]].price for event in virtualization if event.startswith("exit.")} == EXIT_PRICES
    assert len(EXIT_PRICES) == 5


def test_every_live_price_is_charged_somewhere(virtualization: dict[str, tuple[int, int]]) -> None:
    """The union of the rows, the situations and a few guests covers every event that a live key prices."""
    from x86virt.strategies.trap_and_emulate import TrapAndEmulate

    seen = {event for _, event, _, _ in DIRECT} | set(SITUATIONS)
    for name in ("irq", "syscall", "cr3switch", "stealth"):
        seen |= guest_events(name, Native())
    seen |= guest_events("mix", Native(), cache_model="all")
    seen |= guest_events("irq", TrapAndEmulate()) | guest_events("hello", InterpretEach())
    seen |= guest_events("smc", find_strategy("binary-translation,tc_size=4K")())
    seen |= BY_VECTOR | SECOND_LEVELS | {"vmm.unpriced_hook"} | set(virtualization)
    seen |= {event.name for event in EVENTS if event.name.startswith("exit.") and event.price in EXIT_PRICES}
    live = {event.name for event in EVENTS if event.price and SCHEMA[event.price].live}
    assert live - seen == set()


def test_second_levels_are_charged() -> None:
    """Touching more pages and lines than the first levels hold charges the second-level TLB, L2 and L3."""
    machine = BareMachine("nehalem", cache_model="all")
    prepare(machine, 0)
    machine.paging()
    for page in range(0, 1 << 20, 4096):
        machine.set_page(page, page, 7)
    # L: mov al, [esi]; add esi, ecx; cmp esi, edi; jb L
    machine.write_code(bytes.fromhex("8a0601ce39fe72f8f4"))
    sweeps = ((4096, 0, 1 << 20), (4096, 0, 1 << 20), (64, DATA, DATA + 0x20000), (64, DATA, DATA + 0x20000))
    for stride, first, end in (*sweeps, (64, 0x40000, 1 << 20), (64, 0x40000, 1 << 20)):
        machine.gpr[ESI], machine.gpr[ECX], machine.gpr[EDI] = first, stride, end
        machine.forget_translations() if stride == 64 else None
        machine.go()
    for address in (*range(0, 1 << 20, 64), *range(0, 1 << 20, 64), 0, 0):
        vmm_reference(machine.processor.state, address)
    for address in 2 * tuple(range(0, 1 << 16, 64)):
        vmm_reference(machine.processor.state, address)
    assert set(charged(machine)) >= SECOND_LEVELS


SECOND_LEVELS = {
    "walk.tlb_l2_hit", "walk.reference_l2", "walk.reference_l3", "walk.reference_memory", "data.reference_l2",
    "data.reference_l3", "data.reference_memory", "vmm.reference_l2", "vmm.reference_l3", "vmm.reference_memory",
}  # fmt: skip

@pytest.mark.parametrize(("event", "vector"), [("sys.exc_df", 8), ("sys.exc_ts", 10)])
def test_delivery_prices_by_vector(event: str, vector: int) -> None:
    """Deliveries that take a broken stack to bring about are priced by their vector like the others."""
    assert delivery_event(vector, KIND_EXCEPTION, 1) == EVENT_ID[event]


BY_VECTOR = {"sys.exc_df", "sys.exc_ts"}

GEOMETRY = [key.name for key in SCHEMA.values() if key.kind == "geometry" and key.live]


def processor_geometry(profile: object) -> tuple:
    """What the processor made of a profile's geometry."""
    processor = Processor(profile, 1 << 20)
    cpu = processor.cpu
    units = tuple((int(u.sets), int(u.ways), int(u.shift)) for u in (cpu.tlb_units[n] for n in range(6)))
    levels = tuple((int(c.sets), int(c.ways), int(c.line_shift)) for c in (cpu.cache_levels[n] for n in range(3)))
    nested = int(cpu.nested.page_entries), int(cpu.nested.table_entries)
    return units, levels, nested, cpu.cpuid.tobytes(), cpu.msr.vmx_capability.tobytes()


@pytest.mark.parametrize("key", GEOMETRY)
def test_geometry_reaches_the_model(key: str, tmp_path) -> None:
    """Changing one size or associativity changes the modelled TLBs or caches."""
    base = load_profile({"tlb.itlb_large_ways": "core2_woodcrest", "svm.asids": "k10_barcelona"}.get(key, "nehalem"))
    value = base.integer(key)
    changed = value // 2 or 1
    if key == "cache.line_bytes":
        changed = 128
    if key == "cpuid.physical_address_bits":
        changed = 32
    path = tmp_path / "mine.toml"
    path.write_text(
        f'inherits = "{base.name}"\ntitle = "mine"\n[{key}]\nvalue = {changed}\nevidence = "estimated"\nsource = "this test"\n'
    )
    assert processor_geometry(load_profile(path)) != processor_geometry(base)


def test_clock_and_identity_reach_the_guest() -> None:
    """The clocks decide how many cycles a tick of the timer and of the APIC's takes; identity is what CPUID reports."""
    profiles = [load_profile(name) for name in ("p4_prescott", "k8_opteron")]
    seconds, clocks = [], set()
    for profile in profiles:
        processor = Processor(profile, 1 << 20)
        clocks.add(int(processor.cpu.apic.bus_clock))
        reset_devices(processor.boards, 64 * processor.clock_hz)
        seconds.append(int(processor.board.ticks_per_second))
    assert seconds[0] != seconds[1]
    assert clocks == {64 * 16, 64 * 11}  # 3200 and 2200 MHz to buses of 200 MHz


IDENTITY = {
    "cpuid.vendor": '"AuthenticAMD"', "cpuid.brand": '"another"', "cpuid.family": 6, "cpuid.model": 5, "cpuid.stepping": 9,
}  # fmt: skip


@pytest.mark.parametrize("key", [key.name for key in SCHEMA.values() if key.kind == "identity" and key.live])
def test_identity_reaches_cpuid(key: str, tmp_path) -> None:
    """Changing one identity key changes what CPUID answers."""
    base = load_profile("p4_prescott")
    value = IDENTITY.get(key)
    if value is None:
        number = base.integer(key)
        value = number & ~1 if "features" in key else number + 1
        if key == "cpuid.extended_features":
            value = 0
    path = tmp_path / "mine.toml"
    path.write_text(f'inherits = "{base.name}"\n[{key}]\nvalue = {value}\nevidence = "estimated"\nsource = "this test"\n')
    tables = [Processor(profile, 1 << 20).cpu for profile in (base, load_profile(path))]
    answers = [(cpu.cpuid.tobytes(), int(cpu.cpuid_leaf1_edx), int(cpu.cpuid_highest)) for cpu in tables]
    assert answers[0] != answers[1]
