"""IN and OUT of a guest whose IOPL permits them (SDM volume 1, chapter 18)."""

from ...core.jit import inline, kernel, load_32
from ...core.port_decode import port_read, port_write
from ...isa.registers import EAX, EDX, EFLAGS_RF
from .. import layout
from .exits import can_commit, commit, is_stepped, note_path
from .records import CPL, DEVICE_REQUEST, DIRECT_PORT, DONE, IOPL, NOT_FAST, record_place

# Ports that can change what lies at an address, which the VMM must see: the keyboard controller and port 0x92 (A20), PCI
# configuration space (PAM), and the ports that configuration space places. A doubleword at 0xCF8 only says which register of
# that space is meant, and drivers write it before each access.
KEYBOARD, SYSTEM_CONTROL = (0x60, 0x64), 0x92
FIRST_PCI, LAST_PCI, FIRST_PLACED = 0xCF8, 0xCFF, 0x1000
OPERANDS = record_place("operands")
IN_DX, OUT, BYTES_SHIFT = layout.OPERANDS_IN_DX, layout.OPERANDS_OUT, layout.OPERANDS_BYTES_SHIFT
DIRECT_SITE_BYTES = layout.DIRECT_SITE_BYTES


@inline
def may_move_memory(port, n):
    """Whether an OUT to a port is left to Python."""
    keyboard = port == KEYBOARD[0] or port == KEYBOARD[1]
    configuration = FIRST_PCI <= port <= LAST_PCI and (port != FIRST_PCI or n != 4)
    return keyboard or port == SYSTEM_CONTROL or configuration or port >= FIRST_PLACED


@inline
def request(cpu, ram, exits, path):
    """Charge an access to a device; False if the guest's TSS decides whether it may be made."""
    note_path(exits, path)
    note_path(exits, DEVICE_REQUEST)
    permitted = load_32(ram, CPL) <= load_32(ram, IOPL) and can_commit(exits)
    if permitted:
        commit(cpu, exits)
    return permitted


@kernel
def port_in(cpu, ram, exits, board, port, n, path):
    """IN of 1, 2 or 4 bytes."""
    if not request(cpu, ram, exits, path):
        return NOT_FAST
    value = port_read(board, port, n, cpu.ticks)
    mask = (1 << (8 * n)) - 1
    cpu.gpr[EAX] = (cpu.gpr[EAX] & ~mask & 0xFFFFFFFF) | (value & mask)
    return DONE


@kernel
def port_out(cpu, ram, exits, board, port, n, path):
    """OUT of 1, 2 or 4 bytes."""
    if may_move_memory(port, n) or not request(cpu, ram, exits, path):
        return NOT_FAST
    mask = (1 << (8 * n)) - 1
    board.attention |= port_write(board, port, n, cpu.gpr[EAX] & mask, cpu.ticks)
    return DONE


@kernel
def access_port_directly(cpu, ram, exits, board, index):
    """The direct callout of an IN or OUT (Translator.access_port): its operands are in the record."""
    if is_stepped(exits):
        return NOT_FAST
    operands = load_32(ram, OPERANDS)
    n = (operands >> BYTES_SHIFT) & 7
    port = operands & 0xFFFF
    if operands & IN_DX != 0:
        port = cpu.gpr[EDX] & 0xFFFF
    eflags = exits.eflags
    exits.eflags &= ~EFLAGS_RF
    exits.trap_resume = 0
    if operands & OUT != 0:
        outcome = port_out(cpu, ram, exits, board, port, n, DIRECT_PORT)
    else:
        outcome = port_in(cpu, ram, exits, board, port, n, DIRECT_PORT)
    if outcome == NOT_FAST:
        exits.eflags = eflags
        return NOT_FAST
    exits.eip = index.eips[exits.site + DIRECT_SITE_BYTES]
    cpu.retired += 1
    return DONE
