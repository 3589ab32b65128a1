"""VMRUN and #VMEXIT: consistency checks against a model from the manual's list, state in and out, the instructions of SVM."""

import random

import pytest
from bare_machine import CODE, DATA_0, EAX, EBX, ECX, HLT
from svm_machine import (
    BITS_2,
    CLGI,
    EXIT_INVALID,
    EXIT_VMMCALL,
    FIELDS,
    GUEST,
    HSAVE,
    INVLPGA,
    IOPM,
    MSRPM,
    SECOND_VMCB,
    SKINIT,
    STGI,
    SVME,
    VMCB,
    VMLOAD,
    VMMCALL,
    VMRUN,
    VMSAVE,
    SvmMachine,
)

from x86virt.core.layout import HALTED_FOREVER, HOOK

PHYSICAL = 36
NW, CD, PG, PE, PAE = 1 << 29, 1 << 30, 1 << 31, 1, 1 << 5
OFFERED_CR4 = 0x3FF  # VME PVI TSD DE PSE PAE MCE PGE PCE OSFXSR


@pytest.fixture(scope="module")
def machine() -> SvmMachine:
    """One machine for all tests."""
    return SvmMachine()


# -- consistency checks: values for one field each, and whether section 15.5.1 lets VMRUN go on with it ---------------

ILLEGAL = {
    "efer": [0, SVME | 1 << 8, SVME | 1 << 10, SVME | 1, SVME | 1 << 32, 1 << 11, SVME | 1 << 13],
    "cr0": [0x11 | NW, 0x11 | 1 << 32, 0x11 | 1 << 63, NW | PG | PE],
    "cr3": [1 << 52, 1 << 63],
    "cr4": [1 << 10, 1 << 11, 1 << 31, 1 << 32, 1 << 13],
    "dr6": [1 << 32, 0xFFFF0FF0 | 1 << 63],
    "dr7": [0x400 | 1 << 32, 1 << 50],
    "intercepts_2": [0, BITS_2["vmmcall"]],
    "asid": [0, 64, 0xFFFFFFFF],
    "iopm": [1 << PHYSICAL, (1 << PHYSICAL) - 0x2000, (1 << PHYSICAL) - 0x1000, 1 << 63, (1 << PHYSICAL) - 1],
    "msrpm": [1 << PHYSICAL, (1 << PHYSICAL) - 0x1000, 1 << 40],
    "inject": [
        *(1 << 31 | kind << 8 | 14 for kind in (1, 5, 6, 7)),
        *(1 << 31 | 3 << 8 | vector for vector in (2, 32, 64, 255)),
    ],
}
LEGAL = {
    "efer": [SVME, SVME | 1 << 11],
    "cr0": [0x11, 0x11 | CD, 0x11 | CD | NW, 0x11 | 1 << 28, 0x11 | 1 << 16],
    "cr3": [0, 0x12345018, 1 << 51, 0xFFFFFFFF],
    "cr4": [0, OFFERED_CR4 & ~PAE],
    "dr6": [0, 0xFFFFFFFF],
    "dr7": [0x400, 0xFFFF0000 & 0x400, 0],
    "intercepts_2": [BITS_2["vmrun"] | BITS_2["vmmcall"], 0xFFFFFFFF],
    "asid": [1, 63],
    "iopm": [IOPM, IOPM | 0xFFF, (1 << PHYSICAL) - 0x3000],
    "msrpm": [MSRPM, MSRPM | 1, (1 << PHYSICAL) - 0x2000],
    "inject": [0, 3 << 8 | 2, 1 << 8],
    "nested": [0],
    "tlb_control": [0, 1],
    "rflags": [2, 0xFFFFFFFFFFC0802A & 0xFFFFFFFFFFFC8000],
}


@pytest.mark.parametrize("name", ILLEGAL)
def test_each_illegal_field_alone_is_refused(machine: SvmMachine, name: str) -> None:
    """VMEXIT_INVALID, nothing of the guest's registers saved, the host goes on behind VMRUN."""
    for value in ILLEGAL[name]:
        machine.prepare()
        machine.set(name, value)
        before = machine.memory[VMCB + 0x400 : VMCB + 0x700].tobytes()
        assert machine.run_guest() == EXIT_INVALID, f"{name}={value:x}"
        assert machine.memory[VMCB + 0x400 : VMCB + 0x700].tobytes() == before
        assert (machine.field("info_1"), machine.field("info_2"), machine.field("int_info")) == (0, 0, 0)
        assert machine.field("inject") & 1 << 31 == 0


@pytest.mark.parametrize("name", LEGAL)
def test_each_legal_field_alone_is_taken(machine: SvmMachine, name: str) -> None:
    """The guest comes to its VMMCALL."""
    for value in LEGAL[name]:
        machine.prepare()
        machine.set(name, value)
        assert machine.run_guest() == EXIT_VMMCALL, f"{name}={value:x}"


def test_random_combinations_are_refused_exactly_if_one_field_is_illegal(machine: SvmMachine) -> None:
    """Any number of fields at once."""
    source = random.Random(15)
    for _ in range(150):
        machine.prepare()
        refused = False
        facts = {}
        for name in ILLEGAL:
            if name not in ("cr3",) and source.random() < 0.12:
                facts[name], refused = source.choice(ILLEGAL[name]), True
            elif name != "inject":
                facts[name] = source.choice(LEGAL[name])
            machine.set(name, facts.get(name, 0))
        expected = EXIT_INVALID if refused else EXIT_VMMCALL
        assert machine.run_guest() == expected, facts


def test_pointers_of_a_pae_guest_are_checked(machine: SvmMachine) -> None:
    """Without nested paging, a present page-directory-pointer entry with a reserved bit is illegal state."""
    for entry, expected in ((0, "free"), (0x41001, "free"), (0x41001 | 2, EXIT_INVALID), (0x41001 | 1 << 8, EXIT_INVALID)):
        machine.prepare()
        machine.set("cr4", PAE)
        machine.set("cr0", 0x11 | PG)
        machine.set("cr3", 0x42000)
        machine.set("exceptions", FLAT_VECTORS)
        machine.set("intercepts_1", 1 << 31)
        machine.memory[0x41000:0x43000] = 0
        machine.put(0x42000 + 8, entry, 8)
        code = machine.run_guest()
        assert (code == EXIT_INVALID) == (expected == EXIT_INVALID), f"{entry:x}: {code:x}"


FLAT_VECTORS = 0xFFFFFFFF


def test_nested_paging_needs_a_host_that_pages_and_known_memory_types(machine: SvmMachine) -> None:
    """Section 15.25.3."""
    for paging, pat, refused in ((False, 0x0007040600070406, True), (True, 0x0207040600070406, True), (True, 0x03, True)):
        machine.prepare()
        if paging:
            machine.paging()
        machine.set("nested", 1)
        machine.set("nested_cr3", 0x40000)
        machine.set("pat", pat)
        assert (machine.run_guest() == EXIT_INVALID) == refused


# -- state ------------------------------------------------------------------------------------------------------------

SAVED = ("rip", "rsp", "rax", "rflags", "cr0", "cr2", "cr3", "cr4", "dr6", "dr7", "efer", "cpl")
DR6_FIXED, DR7_FIXED, RFLAGS_FIXED = 0xFFFF0FF0, 0x400, 2


def random_state(source: random.Random, machine: SvmMachine) -> dict[str, int]:
    """Registers that a guest may have, in flat protected mode."""
    ring = source.choice((0, 1, 2, 3))
    state = {
        "rip": GUEST, "rsp": source.getrandbits(32), "rax": source.getrandbits(32), "cpl": ring,
        "rflags": source.choice((2, 0x202, 0x3002, 0x43, 0x8D7)), "cr0": source.choice((0x11, 0x1B, 0x50011, 0x60000011)),
        "cr2": source.getrandbits(32), "cr3": source.getrandbits(20) << 12, "cr4": source.choice((0, 0x10, 0x80, 0x18)),
        "dr6": source.choice((DR6_FIXED, DR6_FIXED | 0xE00F, DR6_FIXED | 1)), "dr7": DR7_FIXED,
        "efer": source.choice((SVME, SVME | 1 << 11)),
    }  # fmt: skip
    for name, value in state.items():
        machine.set(name, value)
    return state


def test_a_guest_that_leaves_at_once_leaves_the_state_that_it_was_given(machine: SvmMachine) -> None:
    """Every register and segment of random guests, through VMRUN and #VMEXIT."""
    source = random.Random(16)
    for _ in range(60):
        machine.prepare()
        state = random_state(source, machine)
        for name in ("es", "ds", "ss"):
            present = source.random() < 0.7
            attributes = (0xC93 | state["cpl"] << 5) if present else 0
            machine.segment(name, source.getrandbits(16), attributes, source.getrandbits(32), source.getrandbits(32))
        machine.segment("cs", 0x08 | state["cpl"], 0xC9B | state["cpl"] << 5, 0xFFFFFFFF, 0)
        machine.set("gdtr_base", source.getrandbits(32))
        machine.set("idtr_limit", source.getrandbits(16))
        wanted = {name: machine.field(name) for name in FIELDS if name.split("_")[0] in ("es", "cs", "ss", "ds", "gdtr", "idtr")}
        assert machine.run_guest() == EXIT_VMMCALL
        assert {name: machine.field(name) for name in SAVED} == state
        assert {name: machine.field(name) for name in wanted} == wanted
        assert machine.field("shadow") == 0


def test_what_a_guest_writes_is_found_in_its_vmcb(machine: SvmMachine) -> None:
    """EAX, ESP and flags go to the VMCB; the other general registers stay in the processor."""
    machine.prepare()
    assert machine.run_guest(bytes.fromhex("b878563412 bb44332211 bc00000300 f9 9b") + VMMCALL) == EXIT_VMMCALL
    assert (machine.field("rax"), machine.field("rsp")) == (0x12345678, 0x30000)
    assert machine.field("rflags") & 1 == 1
    assert machine.field("rip") == GUEST + 5 + 5 + 5 + 1 + 1
    assert int(machine.gpr[EBX]) == 0x11223344


def test_the_host_goes_on_as_it_was(machine: SvmMachine) -> None:
    """Segments, control registers, tables, flags, EAX and ESP; breakpoints are off, LDTR, TR, FS, GS and CR2 the guest's."""
    machine.prepare()
    machine.paging()
    machine.set("cr2", 0x1234)
    machine.processor.set_segment(0, DATA_0, 0x100, 0x7FFFF, 0xC093)
    machine.processor.set_debug_register(7, 0x401)
    for name in ("es", "ss", "ds"):
        machine.segment(name, 0, 0, 0, 0)
    machine.set("gdtr_base", 0x77777)
    machine.set("idtr_base", 0x88888)
    cpu = machine.cpu
    names = ("cr0", "cr3", "cr4", "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit", "efer", "cpl", "mode")
    before = {name: int(cpu[name]) for name in names}
    segments = [tuple(int(cpu.seg[n][part]) for part in cpu.seg.dtype.names) for n in range(4)]
    assert machine.run_guest() == EXIT_VMMCALL
    assert {name: int(cpu[name]) for name in names} == before
    assert [tuple(int(cpu.seg[n][part]) for part in cpu.seg.dtype.names) for n in range(4)] == segments
    assert int(machine.gpr[EAX]) == VMCB
    assert (int(cpu.dr[7]), int(cpu.cr2), int(cpu.world)) == (0x400, 0x1234, 0)


def test_real_and_virtual_8086_guests_have_their_own_level(machine: SvmMachine) -> None:
    """CPL of the VMCB is ignored: 0 in real mode, 3 in virtual-8086 mode."""
    for cr0, flags, level in ((0x10, 2, 0), (0x11, 2 | 1 << 17 | 3 << 12, 3), (0x11, 2, 2)):
        machine.prepare()
        machine.set("cpl", 2)
        machine.set("cr0", cr0)
        machine.set("rflags", flags)
        if level != 2:
            machine.segment("cs", GUEST >> 4, 0x093 if level == 0 else 0x0F3, 0xFFFF, GUEST)
            machine.set("rip", 0)
        assert machine.run_guest() == EXIT_VMMCALL
        assert machine.field("cpl") == level
        assert machine.field("rflags") == flags


def test_paged_real_mode(machine: SvmMachine) -> None:
    """CR0.PE clear and CR0.PG set: linear addresses as in real mode, translated by the guest's tables."""
    machine.prepare()
    machine.set("cr0", 0x10 | PG)
    machine.set("cr3", 0x40000)
    machine.put(0x41000 + 4 * 0x18, 0x18003)
    machine.put(0x41000 + 4 * 0x20, 0x21003)  # the data page is another frame
    machine.segment("cs", GUEST >> 4, 0x093, 0xFFFF, GUEST)
    machine.segment("ds", 0x2000, 0x093, 0xFFFF, 0x20000)
    machine.set("rip", 0)
    machine.put(0x21004, 0xBEEF, 2)
    assert machine.run_guest(b"\xa1\x04\x00" + VMMCALL) == EXIT_VMMCALL
    assert machine.field("rax") == 0xBEEF
    assert machine.field("cr0") == 0x10 | PG


def test_the_interrupt_shadow_is_loaded_and_saved(machine: SvmMachine) -> None:
    """A guest that leaves behind STI leaves its shadow in the VMCB; one that is given a shadow loses it with an instruction."""
    machine.prepare()
    assert machine.run_guest(b"\xfb" + VMMCALL) == EXIT_VMMCALL
    assert machine.field("shadow") == 1
    machine.prepare()
    machine.set("shadow", 1)
    assert machine.run_guest(b"\x90" + VMMCALL) == EXIT_VMMCALL
    assert machine.field("shadow") == 0


def test_time_is_offset_in_the_guest_alone(machine: SvmMachine) -> None:
    """RDTSC adds TSC_OFFSET, of 64 bits with its sign."""
    for offset in (0, 1 << 40, -(1 << 40), (1 << 63) - 1, -(1 << 63)):
        machine.prepare()
        machine.set("tsc_offset", offset)
        assert machine.run_guest(b"\x0f\x31\x89\xc1" + VMMCALL) == EXIT_VMMCALL
        told = (int(machine.gpr[2]) << 32 | machine.field("rax")) - offset & (1 << 64) - 1
        assert told < 100_000, hex(offset)
        machine.write_code(b"\x0f\x31" + HLT, CODE + 0x40)
        machine.go(CODE + 0x40)
        assert int(machine.gpr[2]) == 0


# -- the instructions -------------------------------------------------------------------------------------------------


def outcome_in_host(machine: SvmMachine, code: bytes, eax: int = SECOND_VMCB) -> int | str:
    """Run an instruction followed by HLT, without SVM's guest: `vector N`, or where HLT stopped."""
    machine.cpu.hook_first, machine.cpu.hook_last = 0x4000, 0x4FFF
    machine.write_code(code + HLT, CODE + 0x80)
    machine.gpr[EAX], machine.gpr[ECX] = eax, 1
    outcome = machine.go(CODE + 0x80)
    stopped = machine.stopped_at(outcome)
    return "completed" if outcome == HALTED_FOREVER else stopped


@pytest.mark.parametrize("enabled", (False, True))
@pytest.mark.parametrize("mode", ("ring 0", "ring 3", "real", "virtual-8086"))
def test_where_the_instructions_are_there(machine: SvmMachine, mode: str, enabled: bool) -> None:
    """#UD without EFER.SVME and outside protected mode, then #GP(0) outside ring 0; VMMCALL is #UD anywhere, SKINIT in ring 0."""
    for code in (VMLOAD, VMSAVE, STGI, CLGI, INVLPGA, VMRUN, VMMCALL, SKINIT):
        machine.prepare()
        machine.set_efer(SVME if enabled else 0)
        if code == VMRUN and mode == "ring 0" and enabled:
            continue  # all other tests
        address = CODE + 0x80
        machine.write_code(code + HLT, address)
        if mode == "ring 3":
            machine.ring(3)
        elif mode == "real":
            continue_in_real_mode(machine)
        elif mode == "virtual-8086":
            continue_in_virtual_8086_mode(machine)
        machine.cpu.hook_first, machine.cpu.hook_last = 0x4000, 0x4FFF
        machine.gpr[EAX], machine.gpr[ECX] = SECOND_VMCB, 1
        start = 0x80 if mode in ("real", "virtual-8086") else address
        result = machine.stopped_at(machine.go(start))
        there = enabled and mode in ("ring 0", "ring 3")
        if code == VMMCALL or not there or (code == SKINIT and mode == "ring 0"):
            expected: int | str = "vector 6"
        elif mode == "ring 3":
            expected = "vector 13"
        else:
            expected = address + len(code)
        assert result == expected, f"{code.hex()} {mode} {enabled}"


def continue_in_real_mode(machine: SvmMachine) -> None:
    """Real mode, with vectors to the handlers that stop the run."""
    machine.cpu.cr0 &= ~1
    for vector in range(32):
        machine.put(4 * vector, 0x4000 + 16 * vector)
    machine.cpu.idtr_base, machine.cpu.idtr_limit = 0, 0x3FF
    machine.processor.set_segment(1, CODE >> 4, CODE, 0xFFFF, 0x93)
    machine.processor.set_segment(2, 0, 0, 0xFFFF, 0x93)
    machine.gpr[4] = 0x7000
    from x86virt.core.entries import enter_level

    enter_level(machine.processor.state, 0)


def continue_in_virtual_8086_mode(machine: SvmMachine) -> None:
    """Virtual-8086 mode at CPL 3."""
    from x86virt.core.entries import enter_level

    machine.cpu.eflags |= 1 << 17
    for segment in range(6):
        machine.processor.set_segment(segment, CODE >> 4, CODE, 0xFFFF, 0xF3)
    machine.gpr[4] = 0x7000
    enter_level(machine.processor.state, 3)


def test_the_address_of_a_vmcb_is_that_of_a_page(machine: SvmMachine) -> None:
    """#GP(0) else, for VMRUN, VMLOAD and VMSAVE; a 16-bit address size takes AX."""
    for code in (VMRUN, VMLOAD, VMSAVE):
        for address in (VMCB | 1, VMCB | 0x800):
            machine.prepare()
            assert outcome_in_host(machine, code, address) == "vector 13"
    machine.prepare()
    machine.memory[0x2000:0x3000] = 0xAA
    assert outcome_in_host(machine, b"\x67" + VMSAVE, 0x12340000 | 0x2000) == "completed"
    assert machine.field("tr_selector", 0x2000) == 0x28


def test_vmload_and_vmsave_carry_what_vmrun_does_not(machine: SvmMachine) -> None:
    """FS, GS, LDTR and TR with their hidden parts, SYSENTER's registers, and SYSCALL's, which only they can reach."""
    machine.prepare()
    wide = ("star", "lstar", "cstar", "sfmask", "kernel_gs")
    narrow = ("sysenter_cs", "sysenter_esp", "sysenter_eip")
    machine.fresh_guest(SECOND_VMCB)
    source = random.Random(17)
    for name in (*wide, *narrow):
        machine.set(name, source.getrandbits(64 if name in wide else 32), SECOND_VMCB)
    machine.segment("fs", 0x23, 0x4F3, 0x1234, 0x5000, SECOND_VMCB)
    machine.segment("gs", 0, 0, 0, 0, SECOND_VMCB)
    machine.segment("ldtr", 0x30, 0x082, 0xFF, 0x6000, SECOND_VMCB)
    machine.segment("tr", 0x28, 0x08B, 0x67, 0x3000, SECOND_VMCB)
    wanted = {name: machine.field(name, SECOND_VMCB) for name in FIELDS if name.split("_")[0] in ("fs", "gs", "ldtr", "tr")}
    wanted |= {name: machine.field(name, SECOND_VMCB) for name in (*wide, *narrow)}
    assert outcome_in_host(machine, VMLOAD, SECOND_VMCB) == "completed"
    assert [int(machine.cpu[name]) for name in narrow] == [wanted[name] for name in narrow]
    assert outcome_in_host(machine, VMSAVE, VMCB) == "completed"
    assert {name: machine.field(name, VMCB) for name in wanted} == wanted


def test_the_global_interrupt_flag(machine: SvmMachine) -> None:
    """It is set after a reset, CLGI clears it, STGI sets it, VMRUN sets it, #VMEXIT clears it."""
    machine.prepare()
    assert int(machine.cpu.svm.gif) == 1
    assert outcome_in_host(machine, CLGI) == "completed" and int(machine.cpu.svm.gif) == 0
    assert outcome_in_host(machine, STGI) == "completed" and int(machine.cpu.svm.gif) == 1
    machine.prepare()
    assert machine.run_guest(CLGI + STGI + VMMCALL) == EXIT_VMMCALL


# -- registers and identity -------------------------------------------------------------------------------------------


def write_msr(machine: SvmMachine, number: int, value: int) -> bool:
    """WRMSR in the host: whether it completed."""
    machine.gpr[2] = value >> 32
    machine.cpu.hook_first, machine.cpu.hook_last = 0x4000, 0x4FFF
    machine.write_code(b"\x0f\x30" + HLT, CODE + 0x80)
    machine.gpr[EAX], machine.gpr[ECX] = value & 0xFFFFFFFF, number
    return machine.go(CODE + 0x80) != HOOK


def read_msr(machine: SvmMachine, number: int) -> int | None:
    """RDMSR in the host; None for #GP."""
    machine.cpu.hook_first, machine.cpu.hook_last = 0x4000, 0x4FFF
    machine.write_code(b"\x0f\x32" + HLT, CODE + 0x80)
    machine.gpr[ECX] = number
    if machine.go(CODE + 0x80) == HOOK:
        return None
    return int(machine.gpr[2]) << 32 | int(machine.gpr[EAX])


EFER, VM_CR, HSAVE_PA, KEY = 0xC0000080, 0xC0010114, 0xC0010117, 0xC0010118


def test_registers_of_svm(machine: SvmMachine) -> None:
    """EFER.SVME, VM_HSAVE_PA, VM_CR with its lock and key."""
    machine.prepare()
    assert write_msr(machine, EFER, 0) and write_msr(machine, EFER, SVME) and read_msr(machine, EFER) == SVME
    assert not write_msr(machine, VM_CR, 0x10)  # SVMDIS while SVM is enabled
    assert write_msr(machine, EFER, 0) and write_msr(machine, VM_CR, 0x10)
    assert not write_msr(machine, EFER, SVME)
    assert write_msr(machine, KEY, 0x123456789) and read_msr(machine, KEY) == 0
    assert write_msr(machine, VM_CR, 0x18) and write_msr(machine, VM_CR, 0) and read_msr(machine, VM_CR) == 0x18
    assert write_msr(machine, KEY, 1) and read_msr(machine, VM_CR) == 0x18
    assert write_msr(machine, KEY, 0x123456789) and read_msr(machine, VM_CR) == 0x10
    assert write_msr(machine, VM_CR, 0) and write_msr(machine, EFER, SVME)
    assert not write_msr(machine, VM_CR, 0x20) and not write_msr(machine, VM_CR, 1 << 32)
    assert write_msr(machine, HSAVE_PA, 0x9_0000_0000 & (1 << 36) - 1 | 0x51000) and read_msr(machine, HSAVE_PA) == 0x9_0005_1000
    assert not write_msr(machine, HSAVE_PA, 0x51001) and not write_msr(machine, HSAVE_PA, 1 << 36)
    assert write_msr(machine, HSAVE_PA, HSAVE)


def test_a_key_of_zero_opens_nothing(machine: SvmMachine) -> None:
    """Then only a reset clears the lock."""
    machine.prepare()
    assert write_msr(machine, VM_CR, 8) and write_msr(machine, KEY, 0) and read_msr(machine, VM_CR) == 8
    machine.prepare()
    assert read_msr(machine, VM_CR) == 0


def test_svm_that_firmware_has_disabled(machine: SvmMachine) -> None:
    """VM_CR says so and keeps it; EFER.SVME cannot be set. Virtual machines of the software VMMs are like that."""
    machine.prepare()
    machine.set_efer(0)
    machine.cpu.msr.has_svm = 2
    assert read_msr(machine, VM_CR) == 0x18 and write_msr(machine, VM_CR, 0) and read_msr(machine, VM_CR) == 0x18
    assert not write_msr(machine, EFER, SVME)
    machine.cpu.msr.has_svm = 1


def cpuid(machine: SvmMachine, leaf: int) -> list[int]:
    """The four registers."""
    machine.write_code(b"\x0f\xa2" + HLT, CODE + 0x80)
    machine.gpr[EAX] = leaf
    machine.go(CODE + 0x80)
    return [int(machine.gpr[register]) for register in (EAX, EBX, ECX, 2)]


def test_identity(machine: SvmMachine) -> None:
    """CPUID 80000001 ECX.SVM and 8000000A of a Barcelona: revision 1, 64 address spaces, nested paging and the lock."""
    machine.prepare()
    assert cpuid(machine, 0x80000001)[2] & 4
    assert cpuid(machine, 0x8000000A) == [1, 64, 0, 0b101]


@pytest.mark.parametrize("profile", ("k8_opteron", "nehalem"))
def test_processors_without_svm(profile: str) -> None:
    """No bit, no registers, no EFER.SVME, and #UD for its instructions."""
    machine = SvmMachine(profile)
    machine.set_efer(0)
    assert cpuid(machine, 0x80000001)[2] & 4 == 0
    assert not write_msr(machine, EFER, SVME)
    assert [read_msr(machine, number) for number in (VM_CR, HSAVE_PA, KEY)] == [None, None, None]
    assert outcome_in_host(machine, STGI) == "vector 6"
