"""One sensitive instruction, performed on the virtual processor (SDM volume 2, a function each).

Every function first charges its class of work, then checks what the guest's processor would check (raising GuestFault
with nothing changed), then changes the virtual state. `HANDLERS` says which class each system operation belongs to.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..core.breakpoints import DR7_GD
from ..core.entries import (
    offered_cr4,
    read_counter,
    read_model_specific,
    read_performance,
    write_model_specific,
    write_performance,
)
from ..core.layout import TIME_COUNTER
from ..isa.registers import (
    CR0_CD,
    CR0_EM,
    CR0_ET,
    CR0_IMPLEMENTED,
    CR0_MP,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_TS,
    CR4_DE,
    CR4_PAE,
    CR4_PCE,
    CR4_PVI,
    CR4_TSD,
    CR4_VME,
    EAX,
    ECX,
    EDX,
    EFER_NXE,
    EFLAGS_AC,
    EFLAGS_ARITHMETIC,
    EFLAGS_DF,
    EFLAGS_ID,
    EFLAGS_IF,
    EFLAGS_IOPL,
    EFLAGS_NT,
    EFLAGS_RF,
    EFLAGS_TF,
    EFLAGS_VM,
    FEATURE_SEP,
    FEATURE_TSC,
    MSR_EFER,
    MSR_SYSENTER_CS,
    MSR_SYSENTER_EIP,
    MSR_SYSENTER_ESP,
    MSR_TSC,
    SS,
)
from ..isa.vectors import BP, GP, KIND_SOFTWARE_EXCEPTION, KIND_SOFTWARE_INTERRUPT, NP, OF, UD
from .exits import GuestFault, Unsupported
from .instruction import Instruction, effective_address
from .layout import FIRST_VMM_SELECTOR
from .port_strings import port_string
from .segments import (
    check_code_jump,
    check_code_return,
    check_data_load,
    check_stack_load,
    descriptor_of,
    error_code,
    mark_accessed,
)

if TYPE_CHECKING:
    from .vm import VirtualMachine

M32 = 0xFFFFFFFF
BUSY = 2 << 8  # in a TSS descriptor's high doubleword
CR4_NOT_VIRTUALIZED = CR4_PAE | CR4_VME | CR4_PVI
# What a return may load into EFLAGS at any privilege; IOPL and IF are decided by CPL and IOPL.
LOADABLE = EFLAGS_ARITHMETIC | EFLAGS_TF | EFLAGS_DF | EFLAGS_NT | EFLAGS_AC | EFLAGS_ID | EFLAGS_RF


class GeneralDetect(Exception):
    """MOV to or from a debug register under DR7.GD."""


def privileged(vm: "VirtualMachine") -> None:
    """#GP(0) unless the virtual CPL is 0."""
    if vm.vcpu.cpl != 0:
        raise GuestFault(GP, 0)


def by_iopl(vm: "VirtualMachine") -> None:
    """#GP(0) unless the virtual CPL is within the virtual IOPL."""
    if vm.vcpu.cpl > vm.vcpu.iopl:
        raise GuestFault(GP, 0)


# -- flags, halt ------------------------------------------------------------------------------------------------------


def cli(vm: "VirtualMachine", instruction: Instruction) -> None:
    """CLI."""
    vm.charge("emulate_flags", 1)
    by_iopl(vm)
    vm.vcpu.interrupt_flag = 0


def sti(vm: "VirtualMachine", instruction: Instruction) -> None:
    """STI: interrupts stay held off for one more instruction if they were off."""
    vm.charge("emulate_flags", 1)
    by_iopl(vm)
    if not vm.vcpu.interrupt_flag:
        vm.hold_interrupts()
    vm.vcpu.interrupt_flag = 1


def hlt(vm: "VirtualMachine", instruction: Instruction) -> None:
    """HLT."""
    vm.charge("emulate_halt", 1)
    privileged(vm)
    vm.vcpu.halted = 1


# -- control registers, tables, MSRs -----------------------------------------------------------------------------------


def mov_to_cr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """MOV CR0, CR2, CR3, CR4."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    value = vm.register(instruction.rm)
    {0: write_cr0, 2: write_cr2, 3: write_cr3, 4: write_cr4}[instruction.reg](vm, value)


def write_cr0(vm: "VirtualMachine", value: int) -> None:
    """MOV CR0: paging may go on or off, WP may change; either way the shadow starts anew."""
    value = (value & CR0_IMPLEMENTED) | CR0_ET
    if value & (CR0_PG | CR0_PE) == CR0_PG or value & (CR0_NW | CR0_CD) == CR0_NW:
        raise GuestFault(GP, 0)
    if not value & CR0_PE:
        raise Unsupported("the guest leaves protected mode: real mode is not virtualized yet")
    carry_x87_bits(vm, value)
    vm.vcpu.cr0 = value
    vm.flush_shadow()


def carry_x87_bits(vm: "VirtualMachine", value: int) -> None:
    """The guest uses the x87 FPU itself: MP, EM and TS go into the processor's CR0, so that #NM arises there.

    NE stays set in the processor whatever the guest asks for: an x87 exception comes to the VMM as #MF.
    """
    changeable = CR0_MP | CR0_EM | CR0_TS
    vm.processor.cpu.cr0 = (vm.processor.cpu.cr0 & ~changeable) | value & changeable


def write_cr2(vm: "VirtualMachine", value: int) -> None:
    """MOV CR2."""
    vm.vcpu.cr2 = value


def write_cr3(vm: "VirtualMachine", value: int) -> None:
    """MOV CR3."""
    vm.vcpu.cr3 = value & M32
    vm.flush_shadow()


def write_cr4(vm: "VirtualMachine", value: int) -> None:
    """MOV CR4."""
    if value & ~int(offered_cr4(vm.processor.state)):
        raise GuestFault(GP, 0)
    if value & CR4_NOT_VIRTUALIZED:
        raise Unsupported(f"the guest sets {value & CR4_NOT_VIRTUALIZED:#x} in CR4: PAE, VME and PVI are not virtualized yet")
    vm.vcpu.cr4 = value
    # RDTSC under CR4.TSD must trap at ring 3 as the guest asked.
    vm.processor.cpu.cr4 = vm.processor.cpu.cr4 & ~CR4_TSD | value & CR4_TSD
    vm.flush_shadow()


def mov_from_cr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """MOV from CR0, CR2, CR3, CR4."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    vcpu = vm.vcpu
    values = {0: vcpu.cr0, 2: vcpu.cr2, 3: vcpu.cr3, 4: vcpu.cr4}
    if instruction.reg not in values:
        raise GuestFault(UD)
    vm.set_register(instruction.rm, values[instruction.reg])


def mov_to_dr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """MOV to a debug register; instruction breakpoints are the processor's own."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    value = vm.register(instruction.rm)
    number = debug_register(vm, instruction)
    vm.vcpu.dr[number] = with_fixed_bits(number, value)
    if number != 6:
        vm.load_breakpoints()


def debug_register(vm: "VirtualMachine", instruction: Instruction) -> int:
    """DR4 and DR5 are DR6 and DR7 unless CR4.DE forbids them; under general detect there is #DB instead."""
    number = instruction.reg
    if number in (4, 5):
        if vm.vcpu.cr4 & CR4_DE:
            raise GuestFault(UD)
        number += 2
    if vm.vcpu.dr[7] & DR7_GD:
        raise GeneralDetect
    return number


def mov_from_dr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """MOV from a debug register."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    number = debug_register(vm, instruction)
    vm.set_register(instruction.rm, with_fixed_bits(number, int(vm.vcpu.dr[number])))


def with_fixed_bits(number: int, value: int) -> int:
    """A debug register's value with the reserved bits of DR6 and DR7 as they read (SDM volume 3, section 17.2)."""
    if number == 6:
        return (value & 0xE00F) | 0xFFFF0FF0
    if number == 7:
        return (value & 0xFFFF2BFF) | 0x400
    return value & M32


def clts(vm: "VirtualMachine", instruction: Instruction) -> None:
    """CLTS."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    vm.vcpu.cr0 = vm.vcpu.cr0 & ~CR0_TS
    vm.processor.cpu.cr0 &= ~CR0_TS


def lmsw(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LMSW: MP, EM and TS change, PE can only be set."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)
    value = source_word(vm, instruction)
    changeable = CR0_MP | CR0_EM | CR0_TS
    vm.vcpu.cr0 = (vm.vcpu.cr0 & ~changeable) | value & (changeable | CR0_PE)
    carry_x87_bits(vm, value)


def invlpg(vm: "VirtualMachine", instruction: Instruction) -> None:
    """INVLPG."""
    vm.charge("emulate_invlpg", 1)
    privileged(vm)
    gla = vm.segment_base(instruction.segment) + effective_address(vm, instruction) & M32
    vm.shadow.drop(gla)
    vm.invalidate(gla)


def wbinvd(vm: "VirtualMachine", instruction: Instruction) -> None:
    """WBINVD and INVD: the guest's caches are the machine's, which stay coherent."""
    vm.charge("emulate_control_register", 1)
    privileged(vm)


def load_table(vm: "VirtualMachine", instruction: Instruction) -> tuple[int, int]:
    """The limit and base operand of LGDT and LIDT."""
    offset = effective_address(vm, instruction)
    limit = vm.read_operand(instruction.segment, offset, 2)
    base = vm.read_operand(instruction.segment, offset + 2 & M32, 4)
    return limit, base & 0xFFFFFF if instruction.width == 16 else base


def lgdt(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LGDT: the shadow of the old table is dropped."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    limit, base = load_table(vm, instruction)
    if limit >= FIRST_VMM_SELECTOR:
        raise Unsupported(f"a guest GDT of {limit + 1} bytes reaches the VMM's own descriptors: use a smaller one")
    vm.vcpu.gdtr_limit, vm.vcpu.gdtr_base = limit, base
    vm.drop_descriptors()


def lidt(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LIDT: gates are read from the guest's memory when they are used, so nothing is shadowed here but their DPL."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    vm.vcpu.idtr_limit, vm.vcpu.idtr_base = load_table(vm, instruction)
    vm.close_gates()


def lldt(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LLDT. The processor's own LDTR stays null: what the guest loads from its LDT is not virtualized yet."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    selector = source_word(vm, instruction)
    vcpu = vm.vcpu
    if selector & 0xFFFC == 0:
        vcpu.ldtr, vcpu.ldtr_base, vcpu.ldtr_limit, vcpu.ldtr_access = selector, 0, 0, 1 << 16
        return
    raise Unsupported("the guest loads an LDT: local descriptor tables are not virtualized yet")


def ltr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """LTR: the guest's TSS descriptor becomes busy; the processor keeps the VMM's TSS."""
    vm.charge("emulate_descriptor_table", 1)
    privileged(vm)
    selector = source_word(vm, instruction)
    if selector & 4:
        raise GuestFault(GP, error_code(selector))
    gla, descriptor = descriptor_of(vm, selector)
    if descriptor.is_segment or descriptor.kind not in (1, 9):
        raise GuestFault(GP, error_code(selector))
    if not descriptor.is_present:
        raise GuestFault(NP, error_code(selector))
    vm.write_descriptor(gla + 5, 1, (descriptor.high | BUSY) >> 8 & 0xFF)
    vcpu = vm.vcpu
    vcpu.tr, vcpu.tr_base, vcpu.tr_limit = selector, descriptor.base, descriptor.limit
    vcpu.tr_access = descriptor.access | 2


def rdmsr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """RDMSR."""
    vm.charge("emulate_msr", 1)
    privileged(vm)
    vcpu = vm.vcpu
    values: dict[int, int] = {}
    if has_feature(vm, FEATURE_SEP):
        values |= {
            MSR_SYSENTER_CS: vcpu.sysenter_cs,
            MSR_SYSENTER_ESP: vcpu.sysenter_esp,
            MSR_SYSENTER_EIP: vcpu.sysenter_eip,
        }
    number = vm.register(ECX)
    known, value = number in values, values.get(number, 0)
    if number == MSR_TSC and has_feature(vm, FEATURE_TSC):
        known, value = True, vm.time_stamp()
    if not known:
        known, value = read_model_specific(vm.model_specific, number)
    if not known:
        known, value = read_performance(vm.processor.state, number)
        if not known:
            raise GuestFault(GP, 0)
        value = vm.time_read(TIME_COUNTER - number, int(value))
    vm.set_register(EAX, int(value) & M32)
    vm.set_register(EDX, int(value) >> 32 & M32)


def has_feature(vm: "VirtualMachine", bit: int) -> bool:
    """Whether CPUID leaf 1 EDX of the processor has a bit."""
    return bool(vm.processor.cpu.cpuid_leaf1_edx >> bit & 1)


def wrmsr(vm: "VirtualMachine", instruction: Instruction) -> None:
    """WRMSR."""
    vm.charge("emulate_msr", 1)
    privileged(vm)
    number, low, high = vm.register(ECX), vm.register(EAX), vm.register(EDX)
    vcpu = vm.vcpu
    if number == MSR_SYSENTER_CS and has_feature(vm, FEATURE_SEP):
        vcpu.sysenter_cs = low
        vm.open_sysenter()
    elif number == MSR_SYSENTER_ESP and has_feature(vm, FEATURE_SEP):
        vcpu.sysenter_esp = low
    elif number == MSR_SYSENTER_EIP and has_feature(vm, FEATURE_SEP):
        vcpu.sysenter_eip = low
    elif number == MSR_TSC and has_feature(vm, FEATURE_TSC):
        value = low | (high - (high >> 31 << 32)) << 32
        vm.processor.cpu.tsc_offset = value - (vm.processor.cpu.ticks >> 6)
    elif number == MSR_EFER and low & EFER_NXE:
        raise Unsupported("the guest turns no-execute pages on: they are not virtualized yet")
    elif not write_model_specific(vm.model_specific, number, low, high):
        if not write_performance(vm.processor.state, number, low):
            raise GuestFault(GP, 0)


def rdtsc(vm: "VirtualMachine", instruction: Instruction) -> None:
    """RDTSC where CR4.TSD made it trap."""
    vm.charge("emulate_msr", 1)
    if vm.vcpu.cr4 & CR4_TSD and vm.vcpu.cpl != 0:
        raise GuestFault(GP, 0)
    value = vm.time_stamp()
    vm.set_register(EAX, value & M32)
    vm.set_register(EDX, value >> 32 & M32)


def rdpmc(vm: "VirtualMachine", instruction: Instruction) -> None:
    """RDPMC, which traps in ring 1 and, since the processor's CR4.PCE stays clear, in ring 3."""
    vm.charge("emulate_msr", 1)
    if vm.vcpu.cpl != 0 and not vm.vcpu.cr4 & CR4_PCE:
        raise GuestFault(GP, 0)
    number, value = read_counter(vm.processor.state, vm.register(ECX))
    if number < 0:
        raise GuestFault(GP, 0)
    value = vm.time_read(TIME_COUNTER - int(number), int(value))
    vm.set_register(EAX, value & M32)
    vm.set_register(EDX, value >> 32 & M32)


# -- ports ------------------------------------------------------------------------------------------------------------


def port_of(vm: "VirtualMachine", instruction: Instruction) -> int:
    """The port that IN or OUT names."""
    return vm.register(EDX) & 0xFFFF if instruction.row.condition == 1 else instruction.imm & 0xFFFF


def port_bytes(instruction: Instruction) -> int:
    """Bytes of a port access."""
    return 1 if "AL" in instruction.row.operands else instruction.width // 8


def port_in(vm: "VirtualMachine", instruction: Instruction) -> None:
    """IN from a virtual device."""
    vm.charge("emulate_port", 1)
    port, n = port_of(vm, instruction), port_bytes(instruction)
    vm.check_port(port, n)
    value = vm.device_read(port, n)
    mask = (1 << 8 * n) - 1
    vm.set_register(EAX, vm.register(EAX) & ~mask & M32 | value & mask)


def port_out(vm: "VirtualMachine", instruction: Instruction) -> None:
    """OUT to a virtual device."""
    vm.charge("emulate_port", 1)
    port, n = port_of(vm, instruction), port_bytes(instruction)
    vm.check_port(port, n)
    vm.device_write(port, n, vm.register(EAX) & (1 << 8 * n) - 1)


# -- segments and far transfers ------------------------------------------------------------------------------------------


def source_word(vm: "VirtualMachine", instruction: Instruction) -> int:
    """A 16-bit source operand: register or memory."""
    if instruction.has_memory:
        return vm.read_operand(instruction.segment, effective_address(vm, instruction), 2)
    return vm.register(instruction.rm) & 0xFFFF


def load_segment(vm: "VirtualMachine", segment: int, selector: int) -> bool:
    """Load a segment register; False: the shadow now has the descriptor, and the instruction is to be retried."""
    if segment == SS:
        gla, descriptor = check_stack_load(vm, selector, vm.vcpu.cpl)
        mark_accessed(vm, gla, descriptor)
        vm.vcpu.frame.ss = vm.vcpu.hardware_selector(selector)
        vm.make_loadable(vm.vcpu.frame.ss)
        return True
    check_data_load(vm, selector)
    if not vm.descriptors.install(selector):
        raise Unsupported(f"selector {selector:#x} cannot be loaded deprivileged as the guest's processor would")
    return False


def mov_to_sreg(vm: "VirtualMachine", instruction: Instruction) -> bool:
    """MOV to a segment register."""
    vm.charge("emulate_segment", 1)
    done = load_segment(vm, instruction.reg, source_word(vm, instruction))
    if done:
        vm.hold_interrupts()
    return done


def pop_sreg(vm: "VirtualMachine", instruction: Instruction) -> bool:
    """POP into a segment register."""
    vm.charge("emulate_segment", 1)
    n = instruction.width // 8
    selector = vm.read_operand(SS, vm.vcpu.frame.esp, n) & 0xFFFF
    done = load_segment(vm, instruction.row.condition, selector)
    if done:
        vm.vcpu.frame.esp = vm.vcpu.frame.esp + n & M32
        vm.hold_interrupts()
    return done


def load_far_pointer(vm: "VirtualMachine", instruction: Instruction) -> bool:
    """LDS, LES, LSS, LFS, LGS."""
    vm.charge("emulate_segment", 1)
    n = instruction.width // 8
    offset = effective_address(vm, instruction)
    value = vm.read_operand(instruction.segment, offset, n)
    selector = vm.read_operand(instruction.segment, offset + n & M32, 2)
    if not load_segment(vm, instruction.row.condition, selector):
        return False
    vm.set_register(instruction.reg, value, instruction.width)
    return True


def far_pointer(vm: "VirtualMachine", instruction: Instruction) -> tuple[int, int]:
    """Selector and offset of a far jump or call."""
    if instruction.width != 32:
        raise Unsupported("a far transfer with a 16-bit operand")
    if instruction.has_memory:
        offset = effective_address(vm, instruction)
        target = vm.read_operand(instruction.segment, offset, 4)
        return vm.read_operand(instruction.segment, offset + 4 & M32, 2), target
    return instruction.imm >> 32 & 0xFFFF, instruction.imm & M32


def jmp_far(vm: "VirtualMachine", instruction: Instruction) -> None:
    """A far jump to a code segment at the same CPL; gates and task switches are not virtualized yet."""
    vm.charge("emulate_far_transfer", 1)
    selector, target = far_pointer(vm, instruction)
    enter_code(vm, selector, target)


def enter_code(vm: "VirtualMachine", selector: int, target: int) -> None:
    """Check and load CS:EIP for a far jump or call."""
    refuse_gates(vm, selector)
    gla, descriptor = check_code_jump(vm, selector)
    if target > descriptor.limit:
        raise GuestFault(GP, 0)
    mark_accessed(vm, gla, descriptor)
    frame = vm.vcpu.frame
    frame.cs = vm.vcpu.hardware_selector(selector & ~3 | vm.vcpu.cpl)
    frame.eip = target
    vm.make_loadable(frame.cs)


TASK = "a task-state segment (a hardware task switch)"
GATES = {1: TASK, 3: TASK, 4: "a call gate", 5: "a task gate", 9: TASK, 11: TASK, 12: "a call gate"}


def refuse_gates(vm: "VirtualMachine", selector: int) -> None:
    """Call gates, task gates and TSSs are not virtualized yet."""
    if selector & 0xFFFC:
        _, descriptor = descriptor_of(vm, selector)
        if not descriptor.is_segment and descriptor.kind in GATES:
            raise Unsupported(f"a far transfer to {GATES[descriptor.kind]}, selector {selector:#x}: not virtualized yet")


def call_far(vm: "VirtualMachine", instruction: Instruction) -> None:
    """A far call to a code segment at the same CPL."""
    vm.charge("emulate_far_transfer", 1)
    selector, target = far_pointer(vm, instruction)
    frame = vm.vcpu.frame
    old_cs, after = vm.vcpu.virtual_selector(frame.cs), frame.eip + instruction.length & M32
    refuse_gates(vm, selector)
    gla, descriptor = check_code_jump(vm, selector)
    if target > descriptor.limit:
        raise GuestFault(GP, 0)
    vm.write_operand(SS, frame.esp - 8 & M32, 4, after)
    vm.write_operand(SS, frame.esp - 4 & M32, 4, old_cs)
    frame.esp = frame.esp - 8 & M32
    enter_code(vm, selector, target)


def ret_far(vm: "VirtualMachine", instruction: Instruction) -> None:
    """A far return to the same or an outer ring."""
    vm.charge("emulate_far_transfer", 1)
    if instruction.width != 32:
        raise Unsupported("a far return with a 16-bit operand")
    esp = vm.vcpu.frame.esp
    eip = vm.read_operand(SS, esp, 4)
    selector = vm.read_operand(SS, esp + 4 & M32, 4) & 0xFFFF
    return_to(vm, eip, selector, esp + 8, instruction.imm & 0xFFFF, None)


def iret(vm: "VirtualMachine", instruction: Instruction) -> None:
    """IRETD to the same or an outer ring: the way in which a guest kernel's IF comes back."""
    vm.charge("emulate_far_transfer", 1)
    vcpu = vm.vcpu
    if vcpu.frame.eflags & EFLAGS_NT:
        raise Unsupported("IRET with NT set, from a nested task: hardware task switches are not virtualized yet")
    if instruction.width != 32:
        raise Unsupported("IRET with a 16-bit operand")
    esp = vcpu.frame.esp
    eip = vm.read_operand(SS, esp, 4)
    selector = vm.read_operand(SS, esp + 4 & M32, 4) & 0xFFFF
    image = vm.read_operand(SS, esp + 8 & M32, 4)
    if image & EFLAGS_VM and vcpu.cpl == 0:
        raise Unsupported("a return to virtual-8086 mode")
    return_to(vm, eip, selector, esp + 12, 0, image)


def return_to(vm: "VirtualMachine", eip: int, selector: int, esp: int, release: int, image: int | None) -> None:
    """The rest of RETF and IRET (SDM volume 2): check everything, then load CS:EIP, the stack and EFLAGS."""
    vcpu, frame = vm.vcpu, vm.vcpu.frame
    gla, code = check_code_return(vm, selector)
    outer = selector & 3 > vcpu.cpl
    if outer:
        esp = esp + release & M32
        new_esp = vm.read_operand(SS, esp, 4)
        new_ss = vm.read_operand(SS, esp + 4 & M32, 4) & 0xFFFF
        stack_gla, stack = check_stack_load(vm, new_ss, selector & 3)
    if eip > code.limit:
        raise GuestFault(GP, 0)
    if selector & 3 not in (0, 3):
        raise Unsupported(f"a return to guest ring {selector & 3}: this VMM gives guests rings 0 and 3")
    flags = vcpu.virtual_flags(frame.eflags)
    if image is not None:
        mask = LOADABLE
        if vcpu.cpl <= vcpu.iopl:
            mask |= EFLAGS_IF
        if vcpu.cpl == 0:
            mask |= EFLAGS_IOPL
        flags = flags & ~mask | image & mask
    mark_accessed(vm, gla, code)
    if outer:
        mark_accessed(vm, stack_gla, stack)
        vm.set_virtual_cpl(selector & 3)
        frame.esp = new_esp + (release if image is None else 0) & M32
        frame.ss = vcpu.hardware_selector(new_ss)
        vm.make_loadable(frame.ss)
    else:
        frame.esp = esp + release & M32
    frame.cs = vcpu.hardware_selector(selector)
    frame.eip = eip
    frame.eflags = vcpu.load_flags(flags)
    vm.make_loadable(frame.cs)


def int_n(vm: "VirtualMachine", instruction: Instruction) -> None:
    """INT n whose gate the processor did not open: delivered to the guest as its own processor would."""
    vm.charge("emulate_far_transfer", 1)
    vm.software_interrupt(instruction.imm & 0xFF, KIND_SOFTWARE_INTERRUPT, instruction.length)


def int3(vm: "VirtualMachine", instruction: Instruction) -> None:
    """INT3 and INTO (whose OF is set, or it had not trapped) where the processor's gate is closed."""
    vector = OF if instruction.operation == "INTO" else BP
    vm.software_interrupt(vector, KIND_SOFTWARE_EXCEPTION, instruction.length)


def sysexit(vm: "VirtualMachine", instruction: Instruction) -> None:
    """SYSEXIT: to ring 3 at EDX with the stack of ECX, through flat segments."""
    vm.charge("emulate_system_call", 1)
    privileged(vm)
    selector = vm.vcpu.sysenter_cs & 0xFFFC
    if selector == 0:
        raise GuestFault(GP, 0)
    vm.enter_flat(selector + 16, 3, vm.register(EDX), vm.register(ECX))


Handler = Callable[["VirtualMachine", Instruction], "bool | None"]
# A handler of an instruction that goes on behind itself; False: retry it.
SEQUENTIAL: dict[str, Handler] = {
    "CLI": cli, "STI": sti, "HLT": hlt, "REGISTER_TO_CR": mov_to_cr, "CR_TO_REGISTER": mov_from_cr,
    "REGISTER_TO_DR": mov_to_dr, "DR_TO_REGISTER": mov_from_dr, "CLTS": clts, "LMSW": lmsw, "INVLPG": invlpg,
    "WBINVD": wbinvd, "INVD": wbinvd, "LGDT": lgdt, "LIDT": lidt, "LLDT": lldt, "LTR": ltr, "RDMSR": rdmsr,
    "WRMSR": wrmsr, "RDTSC": rdtsc, "RDPMC": rdpmc, "IN": port_in, "OUT": port_out, "REGISTER_TO_SREG": mov_to_sreg,
    "POP_SREG": pop_sreg, "LOAD_FAR_POINTER": load_far_pointer,
}  # fmt: skip
# Handlers of instructions that may be left between two iterations; True: the last one has been made.
REPEATED: dict[str, Handler] = {"INS": port_string, "OUTS": port_string}
# Control transfers, which set EIP themselves.
TRANSFERS: dict[str, Handler] = {
    "JMP_FAR": jmp_far, "JMP_FAR_INDIRECT": jmp_far, "CALL_FAR": call_far, "CALL_FAR_INDIRECT": call_far,
    "RET_FAR": ret_far, "IRET": iret, "INT_N": int_n, "INT3": int3, "INTO": int3,
    "SYSEXIT": sysexit,
}  # fmt: skip

SOFTWARE_EVENTS = ("INT_N", "INT3", "INTO")  # they clear TF, and no single-step trap follows


def emulate(vm: "VirtualMachine", instruction: Instruction) -> bool:
    """Perform the instruction on the virtual processor; False if it is none that the VMM emulates.

    Counts it as retired, unless it is to be retried; then the guest's single-step trap follows, if it had TF set.
    """
    operation = instruction.operation
    stepped, own_resume = vm.vcpu.single_stepped, vm.vcpu.own_resume
    if operation not in SEQUENTIAL and operation not in TRANSFERS and operation not in REPEATED:
        return False
    begin_instruction(vm)
    if operation in REPEATED:
        if not REPEATED[operation](vm, instruction):
            vm.vcpu.frame.eflags |= EFLAGS_RF  # what arrives between iterations pushes RF as 1
            if stepped:
                vm.single_step_trap()
            return True
        vm.vcpu.frame.eip = vm.vcpu.frame.eip + instruction.length & M32
    elif operation in SEQUENTIAL:
        try:
            if SEQUENTIAL[operation](vm, instruction) is False:
                vm.vcpu.frame.eflags |= EFLAGS_RF  # its breakpoint has been looked at
                vm.vcpu.own_resume = own_resume
                return True
        except GeneralDetect:
            vm.general_detect()
            return True
        vm.vcpu.frame.eip = vm.vcpu.frame.eip + instruction.length & M32
    else:
        TRANSFERS[operation](vm, instruction)
    vm.retire()
    if loads_stack_segment(instruction):
        vm.vcpu.frame.eflags |= EFLAGS_RF  # no debug exception until after the next instruction
        vm.vcpu.own_resume = True
    elif stepped and operation not in SOFTWARE_EVENTS:
        vm.single_step_trap()
    return True


def begin_instruction(vm: "VirtualMachine") -> None:
    """RF is cleared at the start of every instruction; in the frame it is that of the trap."""
    vm.vcpu.frame.eflags &= ~EFLAGS_RF
    vm.vcpu.own_resume = False


def loads_stack_segment(instruction: Instruction) -> bool:
    """Whether the instruction was MOV SS or POP SS."""
    segment = instruction.reg if instruction.operation == "REGISTER_TO_SREG" else instruction.row.condition
    return instruction.operation in ("REGISTER_TO_SREG", "POP_SREG") and segment == SS
