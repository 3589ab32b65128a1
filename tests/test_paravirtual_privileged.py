"""Privileged instructions of domains: what the VMM performs (ports, control and debug registers, CPUID), and what it does not."""

import pytest
from descriptor_machine import descriptor
from paravirtual_kernel import (
    DATA,
    FLAT_RING1_CS,
    FREE,
    GDT,
    STEPS,
    Kernel,
    Step,
    calls,
    frame_of,
    hypercall,
    log,
    memory_of,
    results,
    run,
    words_of,
)
from small_kernel import EAX, EBX, ECX, EDI, EDX, ESI, from_cr, mov, push, save, store, to_cr, word

from x86virt.vmm.paravirtual.hypercall_page import hypercall_page
from x86virt.vmm.paravirtual.interface import EINVAL, EPERM

CR0 = 0x80050033  # PG, AM, WP, NE, ET, MP, PE
CR4 = 0x90  # PGE, PSE
TS, TSD, DE = 1 << 3, 1 << 2, 1 << 3
ABSENT, VIRT_START = 0x700000, 0xFC000000
FORCED_CPUID = b"\x0f\x0bxen\x0f\xa2"


def kept(*pieces: bytes) -> bytes:
    """Pieces that leave a result in EAX, kept from DATA on."""
    return b"".join(piece + save(DATA + 4 * number, EAX) for number, piece in enumerate(pieces))


def after(*steps: Step | bytes, **options):
    """Run steps: (machine, what was logged)."""
    machine, result = run(Kernel([step if isinstance(step, Step) else Step(step) for step in steps], **options))
    assert result.outcome == "exited 1", result.outcome
    return machine, log(machine)


# -- control registers ----------------------------------------------------------------------------------------------------


def test_control_registers_read_as_the_domain_has_them() -> None:
    """CR0 with its own TS, CR2 where it was set, CR3 as the machine address of its base, CR4 with its own bits."""
    code = kept(
        from_cr(0), hypercall("fpu_taskswitch", 1) + from_cr(0), b"\x0f\x06" + from_cr(0),
        mov(EAX, 0x1234) + to_cr(2) + from_cr(2), from_cr(3), from_cr(4), mov(EAX, CR4 | TSD) + to_cr(4) + from_cr(4),
        mov(EAX, 0xFFFFFFFF) + to_cr(4) + from_cr(4),
    )  # fmt: skip
    machine, rows = after(code)
    base = int(machine.vm.domains[1].base_frame) << 12
    assert rows == [] and words_of(machine, DATA, 8) == [
        CR0,
        CR0 | TS,
        CR0,
        0x1234,
        base,
        CR4,
        CR4 | TSD,
        CR4 | TSD | DE,
    ]


def test_cr0_gives_nothing_but_ts() -> None:
    """MOV CR0 with another bit changed is #GP; TS is set and cleared by it."""
    steps = [mov(EAX, CR0 ^ bit) + to_cr(0) for bit in (1, 1 << 16, 1 << 31, 1 << 2)]
    machine, rows = after(
        *steps, kept(mov(EAX, CR0 | TS) + to_cr(0) + from_cr(0), mov(EAX, CR0) + to_cr(0) + from_cr(0))
    )
    assert [row[:2] for row in rows] == [[13, 0]] * 4
    assert words_of(machine, DATA, 2) == [CR0 | TS, CR0] and int(machine.vm.processor.cpu.cr0) & ~TS == CR0


def test_cr3_takes_the_domains_own_tables_alone() -> None:
    """The present base again; a page that is none is #GP."""
    machine, rows = after(from_cr(3) + to_cr(3), mov(EAX, frame_of(DATA) << 12) + to_cr(3), mov(EAX, 0x1000) + to_cr(3))
    assert [row[:2] for row in rows] == [[13, 0]] * 2


OTHER_KERNELS = {  # of a kernel: #GP(0), EIP at it
    "HLT": b"\xf4", "LGDT": b"\x0f\x01\x15" + word(DATA), "LIDT": b"\x0f\x01\x1d" + word(DATA), "LLDT": b"\x0f\x00\xd0",
    "LTR": b"\x0f\x00\xd8", "LMSW": b"\x0f\x01\xf0", "INVLPG": b"\x0f\x01\x38", "INVD": b"\x0f\x08",
    "IN of others": b"\xe4\x60", "OUT of others": b"\xe6\x70", "IN DX of others": mov(EDX, 0x1F0) + b"\xec",
}  # fmt: skip
USERS = {  # of a program, in ring 3
    "CLTS": b"\x0f\x06", "WBINVD": b"\x0f\x09", "MOV from CR0": from_cr(0), "MOV to CR3": to_cr(3), "RDMSR": b"\x0f\x32",
    "WRMSR": b"\x0f\x30", "MOV from DR7": b"\x0f\x21\xf8", "MOV to DR0": b"\x0f\x23\xc0", "CLI": b"\xfa", "STI": b"\xfb",
    "OUT 0x80": b"\xe6\x80", "IN 0x80": b"\xe4\x80", "OUT 0xF4": b"\xe6\xf4", "HLT": b"\xf4", "OUTSB": b"\x6e",
}  # fmt: skip


@pytest.mark.parametrize("name", OTHER_KERNELS)
def test_what_the_interface_does_not_perform_is_the_kernels_fault(name: str) -> None:
    """#GP with error code 0."""
    _, (row,) = after(OTHER_KERNELS[name])
    assert row[:2] == [13, 0] and row[3] & 0xFFFF == FLAT_RING1_CS


@pytest.mark.parametrize("name", USERS)
def test_a_program_performs_nothing(name: str) -> None:
    """#GP in ring 3, whatever the kernel may do."""
    _, rows = after(Step(USERS[name], 3))
    assert rows[0][:2] == [13, 0] and rows[0][3] & 3 == 3


def test_cli_and_sti_do_nothing() -> None:
    """Neither the processor's IF nor the upcall mask."""
    machine, rows = after(b"\xfa\x9c\x58" + save(DATA, EAX) + b"\xfb\x9c\x58" + save(DATA + 4, EAX) + b"\xcc")
    assert [word & 0x200 for word in words_of(machine, DATA, 2)] == [0x200] * 2 and rows[0][
        2
    ] == FLAT_RING1_CS | 1 << 16


def test_prefixes_are_read() -> None:
    """Operand size, segments, repeats in front; LOCK of what takes none is #GP; so is a ninth prefix."""
    machine, rows = after(
        mov(EAX, 0xFFFFFFFF) + b"\x66\xe5\x80" + save(DATA, EAX), b"\x2e\x3e\xf3\x66\x66" + from_cr(0) + save(DATA + 4, EAX),
        b"\x26" * 8 + b"\x0f\x06", b"\x26" * 9 + b"\x0f\x06",
    )  # fmt: skip
    assert words_of(machine, DATA, 2)[0] >> 16 == 0xFFFF and words_of(machine, DATA, 2)[1] == CR0
    assert [row[0] for row in rows] == [13]


# -- ports ----------------------------------------------------------------------------------------------------------------


def test_granted_ports_are_the_machines() -> None:
    """POST code out and in, text to the console, the kernel's registers beside AL as they were."""
    code = mov(EAX, 0xABCDEF55) + b"\xe6\x80" + mov(EAX, 0x11223344) + b"\xe4\x80" + save(DATA, EAX)
    code += mov(EAX, ord("x")) + b"\xe6\xe9" + mov(EDX, 0xE9) + mov(EAX, ord("y")) + b"\xee"
    machine, result = run(Kernel([Step(code)]))
    assert result.outcome == "exited 1" and result.console == b"xy" and words_of(machine, DATA, 1) == [0x11223355]


def test_strings_go_to_ports_too() -> None:
    """REP OUTSB with and without DF, OUTSW; INSB; a length of 0."""
    code = (
        b"\xfc"
        + mov(ESI, DATA + 0x40)
        + mov(ECX, 5)
        + mov(EDX, 0xE9)
        + b"\xf3\x6e"
        + save(DATA, ESI)
        + save(DATA + 4, ECX)
    )
    code += b"\xfd" + mov(ECX, 3) + mov(ESI, DATA + 0x42) + b"\xf3\x6e\xfc" + save(DATA + 8, ESI)
    code += mov(ECX, 0) + b"\xf3\x6e" + mov(EDX, 0x80) + mov(EDI, DATA + 0x10) + mov(EAX, 0x77) + b"\xe6\x80\x6c"
    code += save(DATA + 12, EDI)
    machine, result = run(Kernel([Step(code)], octets={DATA + 0x40: b"hello"}))
    assert result.outcome == "exited 1" and result.console == b"hello" + b"leh"
    assert words_of(machine, DATA, 4) == [DATA + 0x45, 0, DATA + 0x3F, DATA + 0x11]
    assert memory_of(machine, DATA + 0x10, 2) == b"\x77\x00"


@pytest.mark.parametrize(
    "code, cr2, error",
    [
        (mov(ESI, ABSENT) + b"\x6e", ABSENT, 0), (mov(EDI, ABSENT) + b"\x6c", ABSENT, 2),
        (mov(ESI, 0x3FFFFE) + mov(ECX, 4) + b"\xf3\x6e", 0x400000, 0), (mov(ESI, VIRT_START) + b"\x6e", VIRT_START, 0),
    ],
)  # fmt: skip
def test_a_string_that_faults_is_the_domains_page_fault(code: bytes, cr2: int, error: int) -> None:
    """With the address and the error code of the access, EIP at the instruction, what went before done."""
    machine, (row,) = after(b"\xfc" + mov(EDX, 0x80) + code)
    assert row[:2] == [14, error] and int(machine.vm.domains[1].cr2) == cr2


# -- debug registers ------------------------------------------------------------------------------------------------------


def test_debug_registers_by_hypercall_and_by_instruction() -> None:
    """Both see the same; reserved bits are as the hardware has them."""
    code = calls(
        hypercall("set_debugreg", 0, DATA), hypercall("get_debugreg", 0), hypercall("set_debugreg", 6, 0),
        hypercall("get_debugreg", 6), hypercall("set_debugreg", 7, 0x3), hypercall("get_debugreg", 7),
        hypercall("set_debugreg", 4, 0), hypercall("get_debugreg", 5), hypercall("set_debugreg", 8, 0),
        hypercall("get_debugreg", 8), hypercall("set_debugreg", 1, VIRT_START), hypercall("set_debugreg", 2, VIRT_START - 3),
        hypercall("set_debugreg", 7, 1 << 13), hypercall("set_debugreg", 7, 0x00020001),
        hypercall("set_debugreg", 3, VIRT_START - 4),
    )  # fmt: skip
    code += b"\x0f\x21\xf8" + save(DATA + 60, EAX) + mov(EAX, 0x77) + b"\x0f\x23\xd0\x0f\x21\xd0" + save(DATA + 64, EAX)
    code += hypercall("set_debugreg", 7, 0)
    machine, rows = after(code)
    assert rows == [] and results(machine, 17) == [
        0, DATA, 0, 0xFFFF0FF0 - (1 << 32), 0, 0x403, -EINVAL, -EINVAL, -EINVAL, -EINVAL, -EPERM, -EPERM, -EPERM, -EPERM, 0,
        0x403, 0x77,
    ]  # fmt: skip


def test_a_breakpoint_comes_to_the_kernel() -> None:
    """A store to a watched word: #DB behind it, DR6 says which; the VMM's own accesses raise none."""
    watch = hypercall("set_debugreg", 1, DATA + 0x40) + hypercall("set_debugreg", 7, 0x00D00008 | 4)
    touched = store(0x6900, 7) + hypercall("callback_op", 1, DATA + 0x40)
    then = calls(hypercall("get_debugreg", 6)) + hypercall("set_debugreg", 7, 0)
    machine, rows = after(watch + touched + store(DATA + 0x40, 1), then)
    (row,) = rows
    assert row[0] == 1 and row[1] == STEPS + 10 + len(watch + touched) + 10
    assert results(machine, 1)[0] & 0xF == 2


def test_single_steps_of_performed_instructions() -> None:
    """TF before CLTS: #DB behind it, as if the processor had executed it."""
    code = push(0x302) + b"\x9d\x0f\x06\x90"
    machine, (row,) = after(code)
    assert row[0] == 1 and row[1] in (STEPS + 10 + 6, STEPS + 10 + 8)
    assert int(machine.vm.domains[1].dr[6]) & 0x4000


def test_breakpoints_on_ports() -> None:
    """They need CR4.DE, and are met by ports that the VMM performs."""
    watch = (
        mov(EAX, CR4 | DE)
        + to_cr(4)
        + calls(hypercall("set_debugreg", 2, 0x80), hypercall("set_debugreg", 7, 0x02000010))
    )
    then = calls(b"\x90", b"\x90", hypercall("get_debugreg", 7), hypercall("get_debugreg", 6))
    machine, (row,) = after(watch + b"\xe6\x80\x90", then)
    assert row[0] == 1 and row[1] == STEPS + 10 + len(watch) + 2
    assert results(machine, 4)[2] == 0x02000410 and results(machine, 4)[3] & 4


# -- identity -------------------------------------------------------------------------------------------------------------


def leaf(number: int, code: bytes = FORCED_CPUID, place: int = DATA) -> bytes:
    """CPUID of a leaf, its registers kept."""
    return (
        mov(EAX, number)
        + mov(ECX, 0)
        + code
        + b"".join(save(place + 4 * n, r) for n, r in enumerate((EAX, EBX, ECX, EDX)))
    )


@pytest.mark.parametrize("ring", (1, 3))
def test_forced_cpuid_answers_for_the_domain(ring: int) -> None:
    """Less than the processor has, and that there is a hypervisor; CPUID itself says all."""
    code = leaf(1) + leaf(1, b"\x0f\xa2", DATA + 16) + leaf(0x40000000, FORCED_CPUID, DATA + 32)
    code += leaf(0x40000001, FORCED_CPUID, DATA + 48)
    machine, rows = after(Step(code, ring))
    assert [row[0] for row in rows] == [0x80] * (ring == 3)
    words = words_of(machine, DATA, 16)
    hidden = 1 << 1 | 1 << 3 | 1 << 7 | 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 17 | 1 << 21 | 1 << 22 | 1 << 31
    assert words[0:2] == words[4:6] and words[3] == words[7] & ~hidden & 0xFFFFFFFF and words[3] != words[7]
    assert words[2] >> 31 == 1 and words[6] >> 31 == 0
    octets = b"".join(word.to_bytes(4, "little") for word in words[9:12])
    assert words[8] == 0x40000002 and octets == b"XenVMMXenVMM" and words[12] == 3 << 16 | 4


def test_ud2_alone_is_the_domains() -> None:
    """Other bytes behind UD2; and the #PF of Xen where the signature cannot be read."""
    machine, rows = after(b"\x0f\x0bxem\x0f\xa2", b"\x0f\x0bxen\x0f\xa3", b"\xe9" + word(0x3FFFFE - (STEPS + 0x33)))
    assert [row[0] for row in rows[:2]] == [6, 6]
    jump = mov(EAX, 0x3FFFFE) + b"\xff\xe0"
    machine, (row,) = after(store(0x3FFFFC, 0x0B0F9090) + jump)
    assert row[:3] == [14, 0, 0x3FFFFE] and int(machine.vm.domains[1].cr2) == 0x400000


def test_an_instruction_that_cannot_be_fetched_again() -> None:
    """Port access at the end of a page: its immediate would lie on an absent one, as the processor itself finds first."""
    machine, (row,) = after(store(0x3FFFFC, 0xE6909090) + mov(EAX, 0x3FFFFF) + b"\xff\xe0")
    assert row[0] == 14 and row[2] == 0x3FFFFF and int(machine.vm.domains[1].cr2) == 0x400000


def test_model_specific_registers_are_read_and_not_written() -> None:
    """RDMSR of what there is; a write changes nothing; the page of hypercalls is written on demand."""
    misc = 0x1A0
    code = mov(ECX, misc) + b"\x0f\x32" + save(DATA, EAX) + mov(EAX, 0) + mov(EDX, 0) + mov(ECX, misc) + b"\x0f\x30"
    code += mov(ECX, misc) + b"\x0f\x32" + save(DATA + 4, EAX)
    code += mov(ECX, 0x40000000) + mov(EAX, frame_of(FREE) << 12) + mov(EDX, 0) + b"\x0f\x30"
    for bad in (0, 0x1000, 0xFFFFF000, (frame_of(DATA) << 12) + 1):
        code += mov(ECX, 0x40000000) + mov(EAX, bad) + b"\x0f\x30"
    machine, rows = after(code, mov(ECX, 0x12345) + b"\x0f\x32")
    assert [row[:2] for row in rows] == [[13, 0]]
    one, two = words_of(machine, DATA, 2)
    assert one == two and memory_of(machine, FREE, 4096) == hypercall_page()
    assert memory_of(machine, 0x1000, 4096) == hypercall_page()


def test_the_time_stamp_counter_is_the_processors() -> None:
    """RDTSC does not trap; with CR4.TSD it does in ring 3 alone."""
    machine, rows = after(
        kept(b"\x0f\x31", b"\x0f\x31"),
        mov(EAX, CR4 | TSD) + to_cr(4) + kept(b"\x90", b"\x90", b"\x0f\x31"),
        Step(b"\x0f\x31", 3),
    )
    one, two, three = words_of(machine, DATA, 3)
    assert [row[:2] for row in rows] == [[13, 0]] and three > 0 and (one, two) != (0, 0)


def test_the_descriptor_of_the_code_decides_how_it_is_read() -> None:
    """Code of 16 bits with a base: OUT AL in it, whose bytes are found there."""
    code_16 = descriptor(DATA, 0xFFF, 11, dpl=1, db=0)
    gdt = bytearray(4096)
    gdt[8:16] = code_16.to_bytes(8, "little")
    protect = hypercall("update_va_mapping", GDT, frame_of(GDT) << 12 | 0x65, 0, 2)
    enter = (
        protect + store(0x6900, frame_of(GDT)) + hypercall("set_gdt", 0x6900, 512) + b"\xea" + word(0x80) + b"\x09\0"
    )
    octets = {
        GDT: bytes(gdt),
        DATA + 0x80: b"\xb0\x5a\xe6\x80\x66\xea" + word(0x12F00) + FLAT_RING1_CS.to_bytes(2, "little"),
    }
    machine, rows = after(enter, octets=octets | {0x12F00: b"\xcc"})
    assert [row[0] for row in rows] == [3] and int(machine.vm.board.post_code) == 0x5A
