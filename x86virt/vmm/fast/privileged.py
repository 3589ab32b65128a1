"""CLI, STI, CLTS and moves to and from control registers that change no translation (SDM volume 2)."""

from ...core.jit import kernel, load_32, store_32
from ...isa.registers import CR0_TS, ESP
from .exits import can_commit, commit, note_path
from .records import (
    CPL,
    CR0,
    CR2,
    CR3,
    CR4,
    DONE,
    EMULATE_CONTROL_REGISTER,
    EMULATE_FLAGS,
    INTERRUPT_FLAG,
    IOPL,
    NOT_FAST,
)


@kernel
def change_interrupt_flag(cpu, ram, exits, flag):
    """CLI (flag 0) and STI (1), which holds interrupts off for one more instruction if they were."""
    note_path(exits, EMULATE_FLAGS)
    if load_32(ram, CPL) > load_32(ram, IOPL) or not can_commit(exits):
        return NOT_FAST
    commit(cpu, exits)
    if flag == 1 and load_32(ram, INTERRUPT_FLAG) == 0:
        exits.shadow_count = cpu.retired + 1
    store_32(ram, INTERRUPT_FLAG, flag)
    return DONE


@kernel
def clear_task_switched(cpu, ram, exits):
    """CLTS."""
    note_path(exits, EMULATE_CONTROL_REGISTER)
    if load_32(ram, CPL) != 0 or not can_commit(exits):
        return NOT_FAST
    commit(cpu, exits)
    store_32(ram, CR0, load_32(ram, CR0) & ~CR0_TS)
    cpu.cr0 &= ~CR0_TS
    return DONE


@kernel
def move_from_control_register(cpu, ram, exits, modrm):
    """MOV from CR0, CR2, CR3 or CR4."""
    number = (modrm >> 3) & 7
    note_path(exits, EMULATE_CONTROL_REGISTER)
    if load_32(ram, CPL) != 0 or number == 1 or number > 4 or not can_commit(exits):
        return NOT_FAST
    place = CR0
    if number == 2:
        place = CR2
    elif number == 3:
        place = CR3
    elif number == 4:
        place = CR4
    commit(cpu, exits)
    if modrm & 7 == ESP:
        exits.esp = load_32(ram, place)
    else:
        cpu.gpr[modrm & 7] = load_32(ram, place)
    return DONE


@kernel
def move_to_control_register(cpu, ram, exits, modrm):
    """MOV to CR2; the other control registers change what the shadow is made of."""
    note_path(exits, EMULATE_CONTROL_REGISTER)
    if load_32(ram, CPL) != 0 or (modrm >> 3) & 7 != 2 or not can_commit(exits):
        return NOT_FAST
    commit(cpu, exits)
    value = exits.esp
    if modrm & 7 != ESP:
        value = cpu.gpr[modrm & 7]
    store_32(ram, CR2, value)
    return DONE
