"""The witness routines: each has the effect of its Python handler, and the prices are what running them costs."""

import json
import shutil
import struct
from collections import Counter
from functools import cache

import pytest
from guest_sets import portable_guests, short_line
from hypothesis import given, settings
from hypothesis import strategies as st
from witness_machine import compare_exit, image_effect, make_machine, next_exit, python_effect

from x86virt.core.layout import HOOK
from x86virt.guests import find_guest
from x86virt.machine import Machine
from x86virt.profile import load_profile, profile_names
from x86virt.vmm import layout, prices, witness_run
from x86virt.vmm import witness_build as build
from x86virt.vmm.options import HARDWARE_PATHS, NESTED_PATHS, PARAVIRTUAL_PATHS
from x86virt.vmm.registry import find_strategy

FEW = settings(max_examples=15)
M32 = 0xFFFFFFFF
PER_PLACE = 3  # exits of one guest instruction that are compared
STACK_IMAGE = 0x100  # bytes below the guest's stack pointer where a test puts a frame
PATHS = set(find_strategy("trap-and-emulate").paths)
# Compared in test_shadow_witness.py; further below; in test_witness_translation.py and test_witness_hardware.py.
ALONE = {"shadow_switch", "shadow_sync", "shadow_check"}
SILENT = {"emulate_flags_image", "emulate_state_read", "emulate_x87_store", "traced_write"}
ALL_PATHS = PATHS | set(find_strategy("binary-translation").paths) | {*HARDWARE_PATHS, *NESTED_PATHS}
PRICED = ALL_PATHS | set(PARAVIRTUAL_PATHS)
WITHOUT_LOADS = {"leave_ring", "inject", "window"}  # the first copies by REP MOVS, the others store and modify


# -- the image --------------------------------------------------------------------------------------------------------


def test_image_include_file_and_manifest_are_of_one_build(tmp_path):
    assert layout.INCLUDE.read_text() == layout.include_text()
    manifest = json.loads(build.MANIFEST.read_text())
    assert manifest["sha256"] == witness_run.image_hash()
    assert manifest["bytes"] == len(witness_run.image()) <= layout.REVERSE - layout.WITNESS
    if shutil.which("nasm") and build.nasm_version(build.HERE) == manifest["tools"]["nasm"]:
        symbols = build.assemble(tmp_path / "image")
        assert (tmp_path / "image").read_bytes() == witness_run.image()
        assert symbols == manifest["symbols"]


# -- the same effect, at the exits of real guests -----------------------------------------------------------------------


@cache
def compared(guest: str) -> tuple[tuple[str, ...], frozenset[str]]:
    """Run a guest to its end, comparing its exits: what differed, and the paths that the image went."""
    machine, seen, places, rows = make_machine(guest, "iterations=2"), Counter(), Counter(), []
    while next_exit(machine):
        stack = layout.STACK_TOP - 20
        place = machine.processor.read_physical(stack, 4)
        places[place] += 1
        if places[place] <= PER_PLACE:
            rows += compare_exit(machine, seen)
        else:
            machine.act(HOOK)
    assert machine.outcome == "halted"
    return tuple(rows), frozenset(seen)


GUESTS = (
    "callret",
    "cr3switch",
    "divzero",
    "hello",
    "hello_pse",
    "irq",
    "pgfault",
    "portio",
    "ptemod",
    "stealth",
    "syscall",
)


@pytest.mark.parametrize("guest", GUESTS)
def test_every_exit_has_the_same_effect(guest):
    rows, seen = compared(guest)
    assert rows == ()
    assert "trap_dispatch" in seen


def test_every_path_was_compared():
    assert set().union(*(compared(guest)[1] for guest in GUESTS)) >= PATHS - ALONE - SILENT


# -- and at exits made up from one ------------------------------------------------------------------------------------


class Made:
    """A guest's kernel that has just exited with #GP, with another instruction and other registers in its place."""

    def __init__(self, code: bytes, cpl: int = 0, iopl: int = 0, registers: dict[int, int] | None = None) -> None:
        self.machine = make_machine("syscall", "iterations=1")
        vm = self.vm = self.machine.vm
        # The kernel's first instruction that traps after a return from ring 3: all descriptors are shadowed.
        while next_exit(self.machine):
            vector = (int(vm.processor.cpu.rip) - layout.VMM_BASE) // layout.ENTRY_BYTES
            if vector == 13 and vm.descriptors.user_code and vm.vcpu.cpl == 0 and vm.vcpu.tr:
                break
            self.machine.act(HOOK)
        self.frame = vm.processor.ram[layout.STACK_TOP - 20 : layout.STACK_TOP].view("<u4")
        self.write(int(self.frame[0]), code)
        vm.vcpu.iopl = iopl
        if cpl:
            self.open_to_user(int(self.frame[0]))
            vm.segments.set_cpl(cpl)
        for number, value in (registers or {}).items():
            vm.processor.cpu.gpr[number] = value

    def write(self, gla: int, octets: bytes) -> None:
        """Write guest memory at a linear address."""
        for place, value in enumerate(octets):
            self.vm.guest.write(gla + place & M32, 1, value)
        self.vm.shadow.map_page(gla, True)

    def open_to_user(self, gla: int) -> None:
        """Let ring 3 fetch from a page of the guest's kernel, in the guest's own tables."""
        guest = self.vm.guest
        place = (self.vm.vcpu.cr3 & ~0xFFF) + (gla >> 22) * 4
        for _ in range(2):
            entry = guest.read_gpa(place, 4)
            guest.write_gpa(place, 4, entry | 4)
            place = (entry & ~0xFFF) + (gla >> 12 & 0x3FF) * 4

    def write_descriptor(self, selector: int, low: int, high: int) -> None:
        """Write a descriptor of the guest's GDT, whose frame is traced."""
        place = self.vm.guest.walk(self.vm.vcpu.gdtr_base + (selector & ~7), False, False).gpa
        self.vm.guest.write_gpa(place, 8, high << 32 | low)
        self.vm.descriptors.resynchronise()

    def push(self, *values: int) -> None:
        """Put doublewords where the guest's stack pointer will be."""
        self.frame[3] -= STACK_IMAGE
        self.write(int(self.frame[3]), struct.pack(f"<{len(values)}I", *values))

    def check(self) -> Counter:
        """Compare; what was seen."""
        seen: Counter = Counter()
        assert compare_exit(self.machine, seen) == []
        assert seen
        return seen


DOUBLEWORDS = st.one_of(st.integers(0, M32), st.sampled_from((0, 1, 8, 0x10, 0x80000011, 0x200, 0x1000, M32)))
LEVELS = st.sampled_from((0, 0, 3))
SELECTORS = st.one_of(st.sampled_from((8, 0x10, 0x1B, 0x23, 0x28, 0x30, 0xFFF8)), st.integers(0, 0x3F))


@FEW
@given(code=st.sampled_from((b"\xfa", b"\xfb", b"\xf4", b"\x0f\x06")), cpl=LEVELS, iopl=st.integers(0, 3))
def test_flags_halt_and_clts(code, cpl, iopl):
    seen = Made(code, cpl, iopl).check()
    assert "emulate" in "".join(seen)


@FEW
@given(
    to=st.booleans(), number=st.sampled_from((0, 1, 2, 3, 4, 5)), register=st.sampled_from((0, 1, 2, 3, 5, 6, 7)),
    value=DOUBLEWORDS, cpl=LEVELS,
)  # fmt: skip
def test_control_registers(to, number, register, value, cpl):
    if number in (1, 5):  # which are #UD in any ring and never come to the VMM as #GP
        number = 0
    code = bytes([0x0F, 0x22 if to else 0x20, 0xC0 | number << 3 | register])
    Made(code, cpl, registers={register: value}).check()


@FEW
@given(
    write=st.booleans(), number=st.one_of(st.sampled_from((0x174, 0x175, 0x176, 0x1B)), st.integers(0, M32)),
    low=DOUBLEWORDS, high=DOUBLEWORDS, cpl=LEVELS,
)  # fmt: skip
def test_model_specific_registers(write, number, low, high, cpl):
    Made(bytes([0x0F, 0x30 if write else 0x32]), cpl, registers={0: low, 1: number, 2: high}).check()


@FEW
@given(
    opcode=st.sampled_from((0xE4, 0xE5, 0xE6, 0xE7, 0xEC, 0xED, 0xEE, 0xEF)), word=st.booleans(), eax=DOUBLEWORDS,
    port=st.one_of(st.sampled_from((0x20, 0x21, 0x40, 0x80, 0xA0, 0xA1, 0xE9)), st.integers(0, 0xFFFF)),
    cpl=LEVELS, iopl=st.integers(0, 3),
)  # fmt: skip
def test_ports(opcode, word, eax, port, cpl, iopl):
    code = bytes([0x66] * word + [opcode, port & 0xFF])
    Made(code, cpl, iopl, registers={0: eax, 2: port}).check()


@FEW
@given(segment=st.sampled_from((0, 2, 3)), selector=SELECTORS, cpl=LEVELS)
def test_segment_registers(segment, selector, cpl):
    Made(bytes([0x8E, 0xC0 | segment << 3 | 1]), cpl, registers={1: selector}).check()


@FEW
@given(code=st.sampled_from((b"\x07", b"\x17", b"\x1f")), selector=SELECTORS)
def test_pops_into_segment_registers(code, selector):
    made = Made(code)
    made.push(selector)
    made.check()


@FEW
@given(
    far=st.booleans(), eip=DOUBLEWORDS, cs=st.one_of(SELECTORS, st.sampled_from((8, 0x1B))), image=st.integers(0, M32),
    esp=DOUBLEWORDS, ss=st.one_of(SELECTORS, st.just(0x23)), iopl=st.integers(0, 3),
)  # fmt: skip
def test_returns_to_the_same_and_an_outer_ring(far, eip, cs, image, esp, ss, iopl):
    made = Made(b"\xcb" if far else b"\xcf", iopl=iopl)
    tail = (esp, ss)
    made.push(eip, cs, *(tail if far else (image & ~(1 << 17), *tail)))
    made.check()


@FEW
@given(selector=st.one_of(SELECTORS, st.just(8)), target=DOUBLEWORDS)
def test_far_jumps(selector, target):
    Made(b"\xea" + struct.pack("<IH", target, selector)).check()


@FEW
@given(number=st.integers(0, 255), cpl=LEVELS)
def test_software_interrupts(number, cpl):
    Made(bytes([0xCD, number]), cpl).check()


@pytest.mark.parametrize("beyond", (0, 1, 2))
@pytest.mark.parametrize("bitmap", (0, 1, 2))
def test_port_permission_bitmap(bitmap, beyond, number=0x80):
    made = Made(b"\xec", cpl=3, registers={2: number})
    vcpu, table = made.vm.vcpu, 104
    made.write(vcpu.tr_base + 102, table.to_bytes(2, "little"))
    made.write(vcpu.tr_base + table + (number >> 3), bitmap.to_bytes(4, "little"))
    vcpu.tr_limit = table + (number >> 3) + beyond
    made.check()


@settings(max_examples=40)
@given(
    rm=st.sampled_from((0, 4, 4, 4, 5, 6)), sib=st.integers(0, 255), values=st.lists(st.integers(0, M32), min_size=7, max_size=7),
    limit=st.integers(0, 0xFFFF), address=st.integers(0, M32), byte=st.booleans(),
)  # fmt: skip
def test_memory_operands(rm, sib, values, limit, address, byte):
    """LIDT whose operand lies behind every form of ModRM and SIB, which the displacement or a base makes right."""
    registers = dict(zip((0, 1, 2, 3, 5, 6, 7), values, strict=True))
    made = Made(b"", registers=registers)
    place = int(made.frame[3]) - STACK_IMAGE
    made.write(place, struct.pack("<HI", limit, address))
    registers[4] = int(made.frame[3])
    first, index, scale = (sib & 7, sib >> 3 & 7, sib >> 6) if rm == 4 else (rm, 4, 0)
    rest = place - (0 if index == 4 else registers[index] << scale)
    displacement = rest - registers[first] & M32
    if byte and first not in (4, index):  # the base makes it right, and the displacement is a byte
        displacement = (limit & 0xFF ^ 0x80) - 0x80
        made.vm.processor.cpu.gpr[first] = rest - displacement & M32
    short = byte and first not in (4, index)
    displacement &= M32
    code = bytes([0x0F, 0x01, (1 if short else 2) << 6 | 3 << 3 | rm]) + bytes([sib] * (rm == 4))
    made.write(int(made.frame[0]), code + displacement.to_bytes(4, "little")[: 1 if short else 4])
    assert "emulate_descriptor_table" in made.check()
    assert (made.vm.vcpu.idtr_limit, made.vm.vcpu.idtr_base) == (limit, address)


@FEW
@given(displacement=st.integers(0, M32))
def test_invlpg(displacement):
    made = Made(b"\x0f\x01\x3d" + displacement.to_bytes(4, "little"))
    assert "emulate_invlpg" in made.check()


@FEW
@given(limit=st.integers(0, 0xFFFF), address=st.integers(0, M32), narrow=st.booleans())
def test_load_idt(limit, address, narrow):
    made = Made(b"")
    place = int(made.frame[3]) - STACK_IMAGE
    made.write(place, struct.pack("<HI", limit, address))
    made.write(int(made.frame[0]), b"\x66" * narrow + b"\x0f\x01\x1d" + struct.pack("<I", place))
    assert "emulate_descriptor_table" in made.check()


@FEW
@given(selector=SELECTORS, extension=st.sampled_from((2, 3)), cpl=LEVELS)
def test_load_task_register_and_null_ldt(selector, extension, cpl):
    Made(bytes([0x0F, 0x00, 0xC0 | extension << 3 | 6]), cpl, registers={6: selector}).check()


# -- what does not trap on x86 -------------------------------------------------------------------------------------------

ESP_MINUS_200 = b"\x24\x00\xfe\xff\xff"  # SIB and displacement of [ESP - 200h]


def silent(code: bytes, cpl: int = 0, **registers) -> "Made":
    """An instruction with an operand at [ESP - 200h], whose page can be written."""
    made = Made(code, cpl, registers=registers.get("registers"))
    made.write(int(made.frame[3]) - 0x200, bytes(4))
    return made


@FEW
@given(width=st.booleans(), push=st.booleans(), image=st.integers(0, M32), iopl=st.integers(0, 3), flag=st.integers(0, 1))
def test_flags_images(width, push, image, iopl, flag):
    made = Made(b"\x66" * width + (b"\x9c" if push else b"\x9d"), iopl=iopl)
    made.push(image & ~0x20000)
    made.vm.vcpu.interrupt_flag = flag
    assert "emulate_flags_image" in made.check()


@FEW
@given(
    code=st.sampled_from((b"\x0f\x01\x84", b"\x0f\x01\x8c", b"\x0f\x00\x84", b"\x0f\x00\x8c", b"\x0f\x01\xa4")),
    width=st.booleans(),
)  # fmt: skip
def test_stores_of_tables_selectors_and_status(code, width):
    assert "emulate_state_read" in silent(b"\x66" * width + code + ESP_MINUS_200).check()


@FEW
@given(
    code=st.sampled_from((b"\x0f\x00\xc0", b"\x0f\x00\xc8", b"\x0f\x01\xe0", b"\x8c\xc0", b"\x8c\xc8", b"\x8c\xd0", b"\x8c\xd8")),
    register=st.integers(0, 7), width=st.booleans(), value=DOUBLEWORDS,
)  # fmt: skip
def test_the_same_to_registers(code, register, width, value):
    registers = {} if register == 4 else {register: value}
    made = Made(b"\x66" * width + code[:-1] + bytes([code[-1] | register]), registers=registers)
    assert "emulate_state_read" in made.check()


@FEW
@given(code=st.sampled_from((b"\x06", b"\x0e", b"\x16", b"\x1e", b"\x0f\xa0", b"\x0f\xa8")), width=st.booleans())
def test_pushes_of_segment_registers(code, width):
    made = Made(b"\x66" * width + code)
    made.push(0)
    assert "emulate_state_read" in made.check()


@settings(max_examples=40)
@given(
    opcode=st.sampled_from((2, 3, 0xE0, 0xE8)), selector=SELECTORS, width=st.booleans(), cpl=LEVELS, high=st.integers(0, M32),
    low=st.integers(0, M32),
)  # fmt: skip
def test_questions_about_descriptors(opcode, selector, width, cpl, high, low):
    """LAR, LSL, VERR and VERW of whatever descriptor."""
    code = b"\x0f" + (bytes([opcode, 0xC1]) if opcode < 4 else bytes([0, opcode | 1]))
    made = Made(b"\x66" * width + code, cpl, registers={1: selector, 0: 0x12345678})
    if selector & 4 == 0 and 0x20 < selector < made.vm.vcpu.gdtr_limit - 8:  # none that the guest runs on
        made.write_descriptor(selector, low, high)
    assert "emulate_segment" in made.check()


@FEW
@given(value=st.integers(0, M32))
def test_load_status_and_caches(value):
    made = Made(b"\x0f\x01\xf1", registers={1: value & ~0xC})
    assert "emulate_control_register" in made.check()
    assert "emulate_control_register" in Made(b"\x0f\x09").check()


@FEW
@given(number=st.integers(0, 7), value=st.integers(0, M32), extensions=st.booleans())
def test_moves_from_debug_registers(number, value, extensions):
    made = Made(bytes([0x0F, 0x21, 0xC0 | number << 3]))
    made.vm.vcpu.dr[number | 2 if number in (4, 5) else number] = value & ~(1 << 13)
    made.vm.vcpu.cr4 |= 8 * extensions
    made.check()


CODE_BREAKPOINTS = st.sampled_from((0x400, 0x402, 0x455, 0x4AA, 0x10402, 0x2002))  # DR7: of code, of data, general detect


@settings(max_examples=40)
@given(
    number=st.integers(0, 7), value=st.one_of(DOUBLEWORDS, st.just(0xFFC00000)), control=CODE_BREAKPOINTS, cpl=LEVELS,
    new=CODE_BREAKPOINTS, places=st.lists(st.sampled_from((0, 0x1234)), min_size=4, max_size=4), extensions=st.booleans(),
)  # fmt: skip
def test_moves_to_debug_registers(number, value, control, new, places, cpl, extensions):
    made = Made(bytes([0x0F, 0x23, 0xC0 | number << 3]), cpl, registers={0: new if number in (5, 7) else value})
    made.vm.vcpu.dr[:4] = places
    made.vm.vcpu.dr[7] = control if control < 0x10000 else 0x400  # one of data is not the hardware's
    made.vm.events.load_breakpoints()
    made.vm.vcpu.cr4 |= 8 * extensions
    made.check()


def test_a_breakpoint_of_code_is_set_by_the_image_too():
    made = Made(b"\x0f\x23\xd8", registers={0: 0x1234})
    made.vm.vcpu.dr[7] = 0x480
    made.vm.events.load_breakpoints()
    assert "emulate_control_register" in made.check()
    assert made.vm.processor.cpu.dr[3] == 0x1234


@pytest.mark.parametrize("cpl", (0, 3))
@pytest.mark.parametrize(("code", "number", "allowed"), ((b"\x0f\x31", 0, 0), (b"\x0f\x33", 0, 0x100), (b"\x0f\x33", 1, 0x100)))
def test_time_stamp_and_performance_counters(code, number, allowed, cpl):
    """The image reads the time that it is when it reads, the handler that of its own charges: all else is equal."""
    for cr4 in (0, 4, 0x100):  # TSD, PCE
        made = Made(code, cpl, registers={1: number})
        vm = made.vm
        vm.vcpu.cr4 = cr4
        witness = witness_run.Witness(vm)
        measured = witness.effect()
        mine = image_effect(witness, measured.ending)
        witness.restore()
        made.machine.strategy.handle(vm, vm.crossings.read_exit())
        theirs = python_effect(vm, int(vm.boards[0]["console_length"]))
        permitted = cpl == 0 or (not cr4 & 4 if not allowed else bool(cr4 & allowed))
        assert (measured.of("emulate_msr") is not None) == permitted == (measured.of("reflect") is None)
        if permitted:
            for effect in (mine, theirs):
                effect.values["gpr0"] = effect.values["gpr2"] = 0
        assert mine.differences(theirs) == []


@FEW
@given(opcode=st.sampled_from((b"\xc4", b"\xc5", b"\x0f\xb2", b"\x0f\xb4", b"\x0f\xb5")), selector=SELECTORS)
def test_far_pointers(opcode, selector):
    made = silent(opcode + b"\x8c" + ESP_MINUS_200)
    made.write(int(made.frame[3]) - 0x200, struct.pack("<IH", 0x1234, selector))
    made.check()


def test_lss_loads_both_registers():
    made = silent(b"\x0f\xb2\x8c" + ESP_MINUS_200)
    made.write(int(made.frame[3]) - 0x200, struct.pack("<IH", 0x1234, 0x10))
    assert "emulate_segment" in made.check()
    assert made.vm.register(1) == 0x1234 and made.vm.segments.state(2).selector == 0x10


FAR_CALLS = st.sampled_from((b"\x9a", b"\xff\x9c", b"\xff\xac"))


@FEW
@given(form=FAR_CALLS, selector=st.one_of(SELECTORS, st.just(8)), target=DOUBLEWORDS)
def test_far_calls(form, selector, target):
    pointer = struct.pack("<IH", target, selector)
    made = silent(form + (pointer if form == b"\x9a" else ESP_MINUS_200))
    if form != b"\x9a":
        made.write(int(made.frame[3]) - 0x200, pointer)
    made.push(0)
    made.frame[3] += STACK_IMAGE
    made.check()


GATE = 0x38  # a free place in the table of the guest `syscall`, if its limit is made larger


@settings(max_examples=40)
@given(
    kind=st.sampled_from((12, 12, 12, 12, 4, 5, 9, 2)), dpl=st.integers(0, 3), present=st.integers(0, 7), selector=st.one_of(
        st.just(8), SELECTORS), target=st.one_of(st.integers(0, 0xFFFFFF), DOUBLEWORDS), count=st.integers(0, 3),
    rpl=st.integers(0, 3), cpl=st.sampled_from((0, 3, 3)),
)  # fmt: skip
def test_call_gates(kind, dpl, present, selector, target, count, rpl, cpl):
    made = Made(b"\x9a" + struct.pack("<IH", 0, GATE | rpl), cpl)
    made.push(0x11111111, 0x22222222, 0x33333333)
    vcpu = made.vm.vcpu
    if cpl == 3:
        made.open_to_user(int(made.frame[3]))
    vcpu.gdtr_limit = max(vcpu.gdtr_limit, GATE + 7)
    high = target & 0xFFFF0000 | bool(present) << 15 | dpl << 13 | kind << 8 | count
    made.write_descriptor(GATE, selector << 16 | target & 0xFFFF, high)
    made.check()


@FEW
@given(
    code=st.sampled_from((b"\xd9\xb4", b"\xdd\xb4", b"\x0f\xae\x84")), task=st.integers(0, 3), loads=st.integers(0, 8),
)  # fmt: skip
def test_images_of_the_x87(code, task, loads):
    made = silent(code + ESP_MINUS_200)
    made.frame[3] &= M32 - 15
    cpu, vm = made.vm.processor.cpu, made.vm
    vm.vcpu.cr0 |= (0, 4, 8, 0)[task]
    cpu.cr0 |= (0, 4, 8, 0)[task]
    cpu.fpu_status, cpu.fpu_control = (-loads & 7) << 11, 0x37F
    cpu.fpu_occupied = sum(1 << (-place - 1 & 7) for place in range(loads))
    cpu.fpu_instruction, cpu.fpu_operand, cpu.fpu_opcode = 0x1234567, 0x89ABCDE, 0x555
    cpu.fpu_instruction_selector, cpu.fpu_operand_selector = int(made.frame[1]), 0x21
    assert ("emulate_x87_store" in made.check()) == (task not in (1, 2))


@FEW
@given(
    code=st.sampled_from((b"\x89\x84", b"\x89\xbc", b"\x88\x84", b"\x88\xac", b"\xc7\x84", b"\xc6\x84", b"\xa3", b"\xa2")),
    value=st.integers(0, M32), old=st.integers(0, M32),
)  # fmt: skip
def test_stores_to_traced_frames(code, value, old):
    """Measured by themselves: the routine beside vm.simulate_write at the same place."""
    made = Made(b"", registers={0: value, 5: value, 7: value ^ old})
    place = int(made.frame[3]) - STACK_IMAGE
    made.write(place, old.to_bytes(4, "little"))
    operand = struct.pack("<I", place) if len(code) == 1 else b"\x24" + struct.pack("<i", -STACK_IMAGE)
    made.write(int(made.frame[0]), code + operand + struct.pack("<I", value))
    vm = made.vm
    witness = witness_run.Witness(vm)
    measured = witness.run(witness_run.symbols()["traced_stub"])
    assert measured.of("traced_write")
    mine = image_effect(witness, measured.ending)
    witness.restore()
    vm.crossings.read_exit()
    vm.simulate_write()
    assert mine.differences(python_effect(vm, int(vm.boards[0]["console_length"]))) == []
    vm.crossings.resume()


# -- the members of a class cost about what the class costs ----------------------------------------------------------------

# Path -> instructions that are charged it, beside the one that it is measured at.
MEMBERS = {
    "emulate_flags": (b"\xfa", b"\xfb"),
    "emulate_flags_image": (b"\x9c", b"\x9d"),
    "emulate_control_register": (
        b"\x0f\x20\xc0", b"\x0f\x22\xd0", b"\x0f\x06", b"\x0f\x01\xf1", b"\x0f\x21\xf0", b"\x0f\x23\xc0", b"\x0f\x23\xf8",
        b"\x0f\x09",
    ),
    "emulate_msr": (b"\x0f\x30", b"\x0f\x32", b"\x0f\x31", b"\x0f\x33"),
    "emulate_state_read": (
        b"\x8c\xd0", b"\x16", b"\x0f\x00\xc8", b"\x0f\x01\xe0", b"\x0f\x01\x84" + ESP_MINUS_200, b"\x0f\x01\xa4" + ESP_MINUS_200,
    ),
    "emulate_segment": (
        b"\x0f\x02\xc1", b"\x0f\x03\xc1", b"\x0f\x00\xe1", b"\x0f\x00\xe9", b"\x8e\xd0", b"\x0f\xb2\x8c" + ESP_MINUS_200,
    ),
    "emulate_descriptor_table": (b"\x0f\x01\x9c" + ESP_MINUS_200,),
    "emulate_far_transfer": (b"\xea\x00\x00\x00\x00\x08\x00", b"\x9a\x00\x00\x00\x00\x08\x00", b"\xff\x9c" + ESP_MINUS_200),
}  # fmt: skip
USUAL = (0.5, 2.0)  # the range of an estimate
# What lies outside it and is charged its class all the same: LMSW loads the real CR0, SGDT and SMSW to memory check and
# write an operand, a far jump to the same ring has no frame to read; MOV to a debug register looks at all breakpoints, RDTSC
# and RDPMC are long instructions themselves, LSS reads a pointer and checks a stack.
APART = {
    b"\x0f\x23\xc0": (1.5, 2.5),
    b"\x0f\x23\xf8": (1.5, 2.5),
    b"\x0f\x31": (1.5, 2.5),
    b"\x0f\x33": (1.5, 3.0),
    b"\x0f\xb2\x8c" + ESP_MINUS_200: (1.5, 2.5),
    b"\x0f\x01\xf1": (3.0, 4.0),
    b"\x0f\x01\x84" + ESP_MINUS_200: (1.5, 2.5),
    b"\x0f\x01\xa4" + ESP_MINUS_200: (1.5, 2.5),
    b"\xea\x00\x00\x00\x00\x08\x00": (0.25, 0.5),
}


def member_ticks(path: str, code: bytes) -> int:
    """Ticks of a path at an instruction in the place of the guest's."""
    made = silent(code, registers={0: 0x10, 1: 0x10})
    made.vm.processor.cpu.gpr[1] = (0 if code == b"\x0f\x33" else 0x175) if path == "emulate_msr" else 0x10
    made.write(int(made.frame[3]) - 0x200, struct.pack("<IH", 0, 8 if code[0] == 0xFF else 0x10))
    measured = witness_run.Witness(made.vm).warm()
    ticks = measured.of(path)
    assert ticks is not None, measured
    return ticks


@pytest.mark.parametrize("path", sorted(MEMBERS))
def test_members_of_a_class_cost_about_as_much(path):
    priced = prices.PathPrices(load_profile("p4_prescott")).ticks(path, 1)
    for code in MEMBERS[path]:
        low, high = APART.get(code, USUAL)
        assert low <= member_ticks(path, code) / priced <= high, code.hex(" ")


# -- prices -----------------------------------------------------------------------------------------------------------


def test_shipped_prices_are_current():
    table = json.loads(witness_run.PRICES.read_text())
    assert table["image"] == witness_run.image_hash() and table["evidence"] == "witness"
    assert sorted(table["profiles"]) == profile_names()
    for name in profile_names():
        assert table["profiles"][name]["digest"] == load_profile(name).digest()
    for name in ("nehalem", "p4_prescott"):
        measured = {path: list(row) for path, row in witness_run.measure(load_profile(name)).items()}
        assert measured == table["profiles"][name]["paths"]


@pytest.mark.parametrize("name", profile_names())
def test_every_path_has_a_positive_price(name):
    table = prices.PathPrices(load_profile(name))
    assert set(table.table) == PRICED
    for path in PRICED:
        one, two = table.ticks(path, 1), table.ticks(path, 2)
        assert 0 < one < two


def own_profile(folder, load: float) -> "prices.Profile":
    """A user's profile: p4_prescott with another cost of a load."""
    path = folder / f"load{load}.toml"
    path.write_text(
        f'inherits = "p4_prescott"\n[ins.load]\nvalue = {load}\nevidence = "estimated"\nsource = "a test"\n'
    )
    return load_profile(path)


def test_prices_follow_the_profile(tmp_path):
    loads = [witness_run.measure(own_profile(tmp_path, load)) for load in (5, 6, 7)]
    for path in ALL_PATHS - WITHOUT_LOADS:
        first, second, third = (sum(table[path]) for table in loads)
        assert first < second < third
        assert third - second == second - first and (second - first) % 64 == 0
    for path in PARAVIRTUAL_PATHS:  # the price of an item of these may be a mean
        assert sum(loads[0][path]) <= sum(loads[1][path]) <= sum(loads[2][path])


def test_prices_of_a_users_profile_are_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("X86VIRT_CACHE", str(tmp_path / "cache"))
    profile = own_profile(tmp_path, 5)
    first = prices.price_table(profile)
    kept = prices.kept_file(profile.digest())
    assert kept.is_file() and set(first) == PRICED

    def forbidden(profile):
        raise AssertionError("measured again")

    monkeypatch.setattr(witness_run, "measure", forbidden)
    assert prices.price_table(profile) == first
    document = json.loads(kept.read_text())
    for field, value in (("evidence", "recalled"), ("image", "0" * 64), ("paths", {"reflect": "cheap"})):
        kept.write_text(json.dumps({**document, field: value}))
        with pytest.raises(AssertionError, match="measured again"):
            prices.price_table(profile)


@pytest.mark.parametrize("guest", sorted(portable_guests()))
def test_no_shipped_guest_charges_an_unpriced_hook(guest):
    machine = Machine(find_strategy("trap-and-emulate")(), load_profile("p4_prescott"))
    machine.load(find_guest(guest), short_line(guest, 2))
    result = machine.run(2_000_000_000)
    assert result.outcome == "halted"
    assert result.unpriced == 0
    assert result.ledger.event_count("vmm.unpriced_hook") == 0
    assert result.ledger.event_ticks("vmm.trap_dispatch") > 0


def test_a_path_without_a_price_is_flagged():
    machine = Machine(find_strategy("trap-and-emulate")(), load_profile("p4_prescott"))
    machine.vm.prices.table = {}
    machine.load(find_guest("hello"), "")
    result = machine.run()
    assert result.unpriced > 0
    assert result.ledger.event_count("vmm.unpriced_hook") == result.unpriced
