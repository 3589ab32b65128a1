"""The instruction at which the guest trapped, by its bytes, performed on the virtual processor (vm.emulate)."""

from ...core.jit import kernel, load_8, load_32
from ...isa.registers import EDX, EFLAGS_RF
from .delivery import software_interrupt, system_call_return
from .descriptors import base_of, shadow_high, shadow_low
from .exits import is_stepped
from .guest_access import place_to_read
from .memory import invalidate, load_page_directory
from .ports import port_in, port_out
from .privileged import (
    change_interrupt_flag,
    clear_task_switched,
    move_from_control_register,
    move_to_control_register,
)
from .records import CPL, DONE, EMULATE_PORT, NOT_FAST
from .returns import interrupt_return

M32 = 0xFFFFFFFF
TWO_BYTES, CLI, STI, IRET, INT_N = 0x0F, 0xFA, 0xFB, 0xCF, 0xCD
CLTS, SYSEXIT, FROM_CONTROL_REGISTER, TO_CONTROL_REGISTER = 0x06, 0x35, 0x20, 0x22
SYSTEM_GROUP, INVLPG, REGISTERS_ONLY = 0x01, 7, 0xC0  # 0F 01, its ModRM.reg, and the first ModRM without memory
PORT_IMMEDIATE, PORT_IN_DX, PORT_MASK = 0xE4, 0xEC, 0xFC  # IN AL, IN eAX, OUT AL, OUT eAX, four in a row
LONGEST = 3  # bytes of what is known here


@kernel
def emulate(cpu, ram, exits, links, control, index, board):
    """Perform the trapping instruction; NOT_FAST if it is not one of those known here, or not as usual."""
    low, high = shadow_low(ram, exits.cs), shadow_high(ram, exits.cs)
    if is_stepped(exits):
        return NOT_FAST
    place = place_to_read(ram, exits, (base_of(low, high) + exits.eip) & M32, LONGEST, int(load_32(ram, CPL) == 3))
    if place < 0:
        return NOT_FAST
    # RF is cleared at the start of every instruction; in the frame it is that of the trap.
    eflags = exits.eflags
    exits.eflags &= ~EFLAGS_RF
    exits.trap_resume = 0
    length = perform(cpu, ram, exits, links, control, index, board, place)
    if length < 0:
        exits.eflags = eflags
        return NOT_FAST
    exits.eip = (exits.eip + length) & M32
    cpu.retired += 1
    return DONE


@kernel
def perform(cpu, ram, exits, links, control, index, board, place):
    """The bytes of the instruction by which EIP goes on once it was performed (0 of a transfer), -1 if left to Python."""
    first = load_8(ram, place)
    outcome, length = NOT_FAST, 1
    if first == CLI or first == STI:
        outcome = change_interrupt_flag(cpu, ram, exits, first & 1)
    elif first == IRET:
        outcome, length = interrupt_return(cpu, ram, exits), 0
    elif first == INT_N:
        outcome, length = software_interrupt(cpu, ram, exits, links, load_8(ram, place + 1)), 0
    elif first & PORT_MASK == PORT_IMMEDIATE:
        outcome, length = access_port(cpu, ram, exits, board, first, load_8(ram, place + 1)), 2
    elif first & PORT_MASK == PORT_IN_DX:
        outcome = access_port(cpu, ram, exits, board, first, cpu.gpr[EDX] & 0xFFFF)
    elif first == TWO_BYTES:
        outcome, length = two_bytes(cpu, ram, exits, links, control, index, place + 1)
    if outcome == NOT_FAST:
        return -1
    return length


@kernel
def access_port(cpu, ram, exits, board, opcode, port):
    """IN or OUT, by the two lowest bits of its opcode: its size, and its direction."""
    n = 1
    if opcode & 1 == 1:
        n = 4
    if opcode & 2 == 0:
        return port_in(cpu, ram, exits, board, port, n, EMULATE_PORT)
    return port_out(cpu, ram, exits, board, port, n, EMULATE_PORT)


@kernel
def two_bytes(cpu, ram, exits, links, control, index, place):
    """An instruction of the map behind 0F: (outcome, length)."""
    opcode, modrm = load_8(ram, place), load_8(ram, place + 1)
    if opcode == CLTS:
        return clear_task_switched(cpu, ram, exits), 2
    if opcode == FROM_CONTROL_REGISTER:
        return move_from_control_register(cpu, ram, exits, modrm), 3
    if opcode == TO_CONTROL_REGISTER and (modrm >> 3) & 7 == 3:
        return load_page_directory(cpu, ram, exits, links, control, index, modrm & 7), 3
    if opcode == SYSTEM_GROUP and (modrm >> 3) & 7 == INVLPG and modrm < REGISTERS_ONLY:
        length = invalidate(cpu, ram, exits, links, control, index, place + 1)
        return int(length > 0), length + 2
    if opcode == TO_CONTROL_REGISTER:
        return move_to_control_register(cpu, ram, exits, modrm), 3
    if opcode == SYSEXIT:
        return system_call_return(cpu, ram, exits), 0
    return NOT_FAST, 0
