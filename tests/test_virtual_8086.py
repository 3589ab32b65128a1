"""Virtual-8086 mode: into it by IRETD, out of it by faults and interrupts, IOPL, the I/O map, and its extensions (VME, PVI)."""

import pytest
from bare_machine import CODE_0, CS, DATA, DS, EAX, ESP, HLT, IDT, IF, SS, TSS, BareMachine
from descriptor_machine import gate

from x86virt.core.layout import HALTED_FOREVER, HOOK, OK

MACHINE = BareMachine()
CPU = MACHINE.cpu
VM, VIF, VIP, NT = 1 << 17, 1 << 19, 1 << 20, 1 << 14
PARAGRAPH, PROGRAM = 0x1C00, 0x1C000  # of the 8086 program, whose IP begins at 0
STACK = 0x3000  # paragraph
RING_0 = 0x8000  # ESP0
FRAME = RING_0 - 36
ES_, FS_, GS_ = 0x2100, 0x2300, 0x2400
DS_ = DATA >> 4
CR4_VME, CR4_PVI = 1, 2


def selector(number):
    return int(CPU.seg[number].selector)


def frame(count=9):
    """What lies on the stack of ring 0."""
    return [MACHINE.get(int(MACHINE.gpr[ESP]) + 4 * place) for place in range(count)]


def enter(code, iopl=3, flags=0, cr4=0):
    """IRETD from ring 0 to an 8086 program."""
    MACHINE.power_on()
    MACHINE.unlimited()
    CPU.cr4 = cr4
    MACHINE.processor.set_segment(7, 0x28, TSS, 0x2FF, 0x8B)
    MACHINE.put(TSS + 102, 0x100, 2)  # the I/O map; the redirection map lies below it, at E0
    MACHINE.memory[TSS + 0xE0 : TSS + 0x300] = 0xFF
    MACHINE.write_code(bytes.fromhex(code).ljust(16, HLT), PROGRAM)
    MACHINE.write_code(b"\xcf", 0x1A000)
    image = 2 | VM | iopl << 12 | flags
    for place, value in enumerate((0, PARAGRAPH, image, 0x1000, STACK, ES_, DS_, FS_, GS_)):
        MACHINE.put(0x9000 + 4 * place, value)
    MACHINE.gpr[ESP] = 0x9000
    assert MACHINE.go(0x1A000, single=True) == OK
    assert MACHINE.eflags == image and CPU.cpl == 3


def run(code, **how):
    """Run an 8086 program up to a handler of ring 0: `vector N`."""
    enter(code, **how)
    return MACHINE.stopped_at(MACHINE.processor.run())


def step(code, **how):
    """Execute the first instruction of an 8086 program."""
    enter(code, **how)
    assert MACHINE.processor.run(True) == OK


def test_enter_and_leave():
    """IRETD loads nine items and fixes the segments; a fault pushes them again and leaves null data segments."""
    enter("F4")
    for number, value in ((0, ES_), (CS, PARAGRAPH), (SS, STACK), (DS, DS_), (4, FS_), (5, GS_)):
        cache = CPU.seg[number]
        assert (cache.selector, cache.seg_base, cache.limit, cache.access) == (value, value << 4, 0xFFFF, 0xF3)
    assert (CPU.rip, MACHINE.gpr[ESP]) == (0, 0x1000)
    assert MACHINE.stopped_at(MACHINE.processor.run()) == "vector 13"  # HLT is privileged
    assert frame(10)[:4] == [0, 0, PARAGRAPH, 2 | VM | 3 << 12 | 1 << 16]
    assert frame(10)[4:] == [0x1000, STACK, ES_, DS_, FS_, GS_]
    assert MACHINE.gpr[ESP] == FRAME - 4
    assert (CPU.cpl, selector(CS), selector(SS)) == (0, CODE_0, 0x10)
    assert [(selector(number), int(CPU.seg[number].access)) for number in (0, DS, 4, 5)] == [(0, 1 << 16)] * 4
    assert MACHINE.eflags & (VM | IF) == 0


def test_there_and_back():
    """The handler's IRETD goes on where the program was."""
    enter("B8 3412 CC 40 F4")
    assert MACHINE.stopped_at(MACHINE.processor.run()) == "vector 3"
    assert frame()[:3] == [4, PARAGRAPH, 2 | VM | 3 << 12]
    MACHINE.write_code(b"\xcf", 0x1A000)
    assert MACHINE.go(0x1A000, single=True) == OK
    assert (CPU.rip, selector(CS), CPU.cpl, MACHINE.eflags & VM) == (4, PARAGRAPH, 3, VM)
    assert MACHINE.stopped_at(MACHINE.processor.run()) == "vector 13"
    assert MACHINE.gpr[EAX] & 0xFFFF == 0x1235


@pytest.mark.parametrize("code", ["FA", "FB", "9C", "9D", "CF", "CD 03", "669C", "669D", "66CF"])
def test_sensitive_to_iopl(code):
    """Without VME, CLI, STI, PUSHF, POPF, IRET and INT n are #GP(0) below IOPL 3."""
    assert run(code, iopl=2) == "vector 13"
    assert frame(10)[:3] == [0, 0, PARAGRAPH]


@pytest.mark.parametrize(
    ("code", "pointer"), [("9D", 0xFFFF), ("669D", 0xFFFE), ("CF", 0xFFFF), ("66CF", 0xFFFD), ("9C", 1), ("669C", 2)]
)
def test_iopl_is_looked_at_before_the_stack(code, pointer):
    """POPF, IRET and PUSHF beyond the stack segment: #GP(0) below IOPL 3, and #SS(0) only where they may execute."""
    for iopl, vector in ((0, 13), (2, 13), (3, 12)):
        enter(code, iopl=iopl)
        MACHINE.gpr[ESP] = pointer
        assert MACHINE.stopped_at(MACHINE.processor.run()) == f"vector {vector}"
        assert frame(5)[:3] == [0, 0, PARAGRAPH]
        assert frame(5)[4] == pointer


@pytest.mark.parametrize(("code", "vector"), [("CC", 3), ("CD 03", 3), ("CD 05", 5)])
def test_interrupts_at_iopl_3(code, vector):
    """With IOPL 3 INT n goes through the IDT, whose gate must admit ring 3."""
    assert run(code) == f"vector {vector}"
    enter(code)
    MACHINE.put(IDT + 8 * vector, gate(CODE_0, 0x4000, 14, dpl=2), 8)
    assert MACHINE.stopped_at(MACHINE.processor.run()) == "vector 13"
    assert frame(1) == [vector * 8 + 2]


def test_breakpoint_ignores_iopl():
    """INT3 is not sensitive to IOPL."""
    assert run("CC", iopl=0) == "vector 3"


def test_handler_outside_ring_0():
    """A handler in another ring than 0 is #GP(selector)."""
    enter("CC")
    MACHINE.put(IDT + 8 * 3, gate(0x18, 0x4000, 14, dpl=3), 8)
    assert MACHINE.stopped_at(MACHINE.processor.run()) == "vector 13"
    assert frame(1) == [0x18]


@pytest.mark.parametrize("iopl", [0, 3])
def test_ports_ask_the_map(iopl):
    """IN and OUT use the I/O permission map whatever IOPL is."""
    assert run("E4 80 F4", iopl=iopl) == "vector 13"
    assert frame(3)[1] == 0
    enter("E4 80 F4", iopl=iopl)
    MACHINE.put(TSS + 0x100 + 0x10, 0, 1)
    assert MACHINE.stopped_at(MACHINE.processor.run()) == "vector 13"
    assert frame(3)[1] == 2  # the HLT behind it


@pytest.mark.parametrize("code", ["0F00D8", "0F00D0", "0F00C0", "0F00C8", "0F02C3", "0F03C3", "0F00E0", "0F00E8", "63C0"])
def test_no_descriptors(code):
    """LTR, LLDT, SLDT, STR, LAR, LSL, VERR, VERW and ARPL are invalid opcodes, privileged or not."""
    assert run(code) == "vector 6"


def test_segment_loads_are_paragraphs():
    """MOV and POP to segment registers take any value."""
    step("8E D8")
    MACHINE.gpr[EAX] = 0
    enter("8E D8")
    MACHINE.gpr[EAX] = 0xFFFF
    assert MACHINE.processor.run(True) == OK
    cache = CPU.seg[DS]
    assert (cache.selector, cache.seg_base, cache.limit, cache.access) == (0xFFFF, 0xFFFF0, 0xFFFF, 0xF3)


# -- virtual-8086 mode extensions ---------------------------------------------------------------------------------------


def test_cr4_takes_the_extensions():
    """MOV CR4 sets VME and PVI where CPUID offers them."""
    MACHINE.power_on()
    MACHINE.unlimited()
    MACHINE.gpr[EAX] = CR4_VME | CR4_PVI
    MACHINE.write_code(b"\x0f\x22\xe0\xf4")
    assert MACHINE.go() == HALTED_FOREVER
    assert CPU.cr4 == CR4_VME | CR4_PVI


@pytest.mark.parametrize(
    ("method", "vme", "iopl", "bit"),
    [(1, 0, 3, 0), (1, 0, 3, 1), (2, 0, 2, 0), (2, 0, 0, 1), (3, 1, 2, 1), (4, 1, 3, 1), (5, 1, 3, 0), (6, 1, 0, 0)],
)
@pytest.mark.parametrize("flags", [0, VIF, IF, VIF | IF])
def test_interrupt_methods(method, vme, iopl, bit, flags):
    """INT n by table 20-2 of volume 3."""
    enter("CD 0A", iopl=iopl, flags=flags, cr4=CR4_VME * vme)
    MACHINE.put(TSS + 0xE1, 0xFB | bit << 2, 1)
    MACHINE.put(4 * 10, 0x1234 << 16 | 0x5678)
    if method >= 5:
        assert MACHINE.processor.run(True) == OK
        assert (CPU.rip, selector(CS), CPU.seg[CS].seg_base, CPU.cpl) == (0x5678, 0x1234, 0x12340, 3)
        pushed = [MACHINE.get((STACK << 4) + 0x1000 - 6 + 2 * place, 2) for place in range(3)]
        shown = flags & IF if method == 5 else IF * (flags >> 19 & 1)
        assert pushed == [2, PARAGRAPH, 2 | 3 << 12 | shown]
        assert MACHINE.gpr[ESP] == 0x1000 - 6
        assert MACHINE.eflags == 2 | VM | iopl << 12 | flags & ~(IF if method == 5 else VIF)
        return
    outcome = MACHINE.processor.run()
    assert MACHINE.stopped_at(outcome) == ("vector 10" if method in (1, 4) else "vector 13")
    assert frame(2)[0] == (2 if method in (1, 4) else 0)


def test_redirection_map_beyond_the_tss():
    """A redirection bit beyond the TSS's limit is #GP(0)."""
    enter("CD 0A", cr4=CR4_VME)
    CPU.seg[7].limit = 0xE0
    assert MACHINE.stopped_at(MACHINE.processor.run()) == "vector 13"


@pytest.mark.parametrize("mode", ["v86", "pvi"])
def test_virtual_interrupt_flag(mode):
    """CLI and STI work on VIF below IOPL 3; STI with an interrupt pending is #GP(0)."""
    def go(code, flags):
        if mode == "v86":
            enter(code, iopl=0, flags=flags, cr4=CR4_VME)
            return MACHINE.processor.run(True)
        MACHINE.power_on()
        MACHINE.unlimited()
        MACHINE.ring(3)
        CPU.cr4, MACHINE.eflags = CR4_PVI, 2 | flags
        MACHINE.write_code(bytes.fromhex(code))
        return MACHINE.go(single=True)

    assert go("FB", IF) == OK and MACHINE.eflags & (VIF | IF) == VIF | IF
    assert go("FA", VIF | IF) == OK and MACHINE.eflags & (VIF | IF) == IF
    go("FB", VIP)
    assert CPU.cpl == 0 and (MACHINE.processor.run() == HOOK) and CPU.rip == 0x4000 + 16 * 13


def test_pushf_and_popf_show_the_virtual_flag():
    """With VME the 16-bit forms show VIF as IF; POPF cannot set TF, nor let a pending interrupt in."""
    step("9C", iopl=0, flags=VIF, cr4=CR4_VME)
    assert MACHINE.get((STACK << 4) + 0xFFE, 2) == 2 | IF | 3 << 12
    for image, flags, faults in ((IF, 0, False), (0, VIF, False), (0x100, 0, True), (IF, VIP, True), (0, VIP, False)):
        enter("9D", iopl=0, flags=flags, cr4=CR4_VME)
        MACHINE.put((STACK << 4) + 0x1000, image | 0x8D5, 2)
        MACHINE.processor.run(True)
        if faults:
            assert CPU.cpl == 0
        else:
            assert MACHINE.eflags == 2 | VM | 0x8D5 | flags & VIP | (VIF if image & IF else 0)
            assert MACHINE.gpr[ESP] == 0x1002


@pytest.mark.parametrize(("code", "cr4", "faults"), [("90", CR4_VME, True), ("90", 0, False), ("90", CR4_PVI, False)])
def test_pending_virtual_interrupt_is_let_in(code, cr4, faults):
    """VIF and VIP both set at the beginning of an instruction: #GP(0), with VME (volume 3, section 20.3.2)."""
    enter(code, iopl=0, flags=VIF | VIP, cr4=cr4)
    MACHINE.processor.run(True)
    assert (CPU.cpl == 0) == faults
    if faults:
        assert frame(3)[:2] == [0, 0]


def test_nested_task_flag_is_ignored():
    """IRET in virtual-8086 mode with NT set is an ordinary IRET."""
    enter("CF", flags=NT)
    for place, value in enumerate((0x50, 0x1234, 2)):
        MACHINE.put((STACK << 4) + 0x1000 + 2 * place, value, 2)
    assert MACHINE.processor.run(True) == OK
    assert (CPU.rip, selector(CS), MACHINE.eflags) == (0x50, 0x1234, 2 | VM | 3 << 12)


def test_return_beyond_64_kb():
    """IRETD to an EIP above FFFF is #GP(0), into the mode and within it."""
    enter("66CF")
    MACHINE.put((STACK << 4) + 0x1000, 0x10000)
    assert MACHINE.stopped_at(MACHINE.processor.run()) == "vector 13"
