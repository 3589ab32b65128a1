"""What Python may call of the hardware besides `run`: each function is an entry, compiled whole and kept in the cache."""

from ..isa.events import (
    EVENT_IDLE_HALT,
    EVENT_SYS_INVLPG,
    EVENT_SYS_LAPIC_MMIO_ACCESS,
    EVENT_SYS_MOV_CR3_WRITE,
    MODE_IDLE,
    MODE_VMM,
)
from .board import (
    board_advance,
    board_deadline,
    follow_devices,
    interrupt_acknowledge,
    interrupt_pending,
    reset_board,
)
from .cache import VMM, reference
from .charge import charge, charge_ticks
from .code import let_pass, settle
from .control_bits import cr4_offered
from .debug_registers import refresh_breakpoints, set_debug_register
from .decode import decode
from .flags import get_eflags, set_eflags
from .ide import follow_channels
from .io_apic import reset_io_apic
from .jit import entry
from .local_apic import reset_local_apic, write_base
from .mode import set_context, set_cpl
from .model_specific import read_stored, write_stored
from .paging import peek_translation
from .performance import (
    counter_named,
    counter_value,
    is_performance_register,
    read_performance_register,
    write_performance_register,
)
from .physical import note_code_write
from .physical_map import place_to_read, place_to_write, refresh_map
from .port_decode import depends_on_time, port_read, port_write
from .segment import segment_limits
from .tlb import flush_tlb, invalidate_page


@entry
def settle_all(state, codes, blocks, details):
    """Bring the ledger up to date from Python."""
    settle(state[0], codes[0], blocks, details)


@entry
def enter_level(state, cpl):
    """Enter a privilege level from Python: the bank, the mode and the code context follow."""
    set_cpl(state[0], cpl)
    set_context(state[0])


@entry
def refresh_segment(state, segment):
    """Recompute what the fast paths may touch after Python changed a segment's cache."""
    segment_limits(state[0], segment)


@entry
def note_write(state, memory, physical):
    """Python wrote RAM at `physical`: discard decoded code there."""
    note_code_write(state[0], memory, physical)


@entry
def reset_apics(state):
    """The local APIC and the I/O APIC as after a reset; the front caches are dropped."""
    cpu = state[0]
    reset_local_apic(cpu.apic)
    reset_io_apic(cpu.io_apic)
    refresh_map(cpu)


@entry
def write_apic_base(state, value):
    """Give the processor's own IA32_APIC_BASE a value; CPUID follows its enabling bit."""
    write_base(state[0].apic, value)
    refresh_map(state[0])


@entry
def refresh_memory_map(state):
    """Python changed what lies where: the front caches are dropped."""
    refresh_map(state[0])


@entry
def place_of(state, memory, physical):
    """Where a read of a physical address finds its bytes in the array; beyond the array, in no memory."""
    return place_to_read(state[0], memory, physical)


@entry
def writable_place_of(state, memory, physical):
    """Where RAM takes what is written to a physical address; beyond the array, no memory takes it."""
    return place_to_write(state[0], memory, physical)


@entry
def reset_devices(boards, ticks_per_second):
    """Power on a board."""
    reset_board(boards[0], ticks_per_second)


@entry
def write_debug_register(state, number, value):
    """Write DR0 to DR3, DR6 or DR7 from Python; breakpoints follow."""
    set_debug_register(state[0], number, value)


@entry
def let_probe_pass(state, rip, row, mode):
    """The probe has seen an instruction of one place and mode often enough."""
    let_pass(state[0], rip, row, mode)


@entry
def arm_stops(state):
    """Python changed the debugger's stops: what is watched, decoded code and front cache follow."""
    refresh_breakpoints(state[0])


@entry
def offered_cr4(state):
    """The bits of CR4 that may be set."""
    return cr4_offered(state[0])


@entry
def read_model_specific(registers, number):
    """Read a register of a MODEL_SPECIFIC record: (known, value)."""
    return read_stored(registers[0], number)


@entry
def write_model_specific(registers, number, low, high):
    """Write a register of a MODEL_SPECIFIC record; False: #GP(0) is due."""
    return write_stored(registers[0], number, low, high)


# -- the performance counters, for a VMM's guest: an emulated instruction counts itself, as it would on the processor ---------


@entry
def read_counter(state, selector):
    """RDPMC: (the counter's number, -1 if there is none; its value)."""
    cpu = state[0]
    number = counter_named(cpu, selector)
    if number < 0:
        return number, 0
    cpu.retired += 1
    value = counter_value(cpu, number)
    cpu.retired -= 1
    return number, value


@entry
def read_performance(state, number):
    """RDMSR of a performance register: (whether there is such a one, its value)."""
    cpu = state[0]
    if not is_performance_register(cpu, number):
        return False, 0
    cpu.retired += 1
    value = read_performance_register(cpu, number)
    cpu.retired -= 1
    return True, value


@entry
def write_performance(state, number, value):
    """WRMSR of a performance register; False: there is no such one."""
    cpu = state[0]
    if not is_performance_register(cpu, number):
        return False
    cpu.retired += 1
    write_performance_register(cpu, number, value)
    cpu.retired -= 1
    return True


# -- what a VMM's software does with the processor, from Python; each is priced as the instruction it stands for -------


@entry
def vmm_write_cr3(state, value):
    """MOV CR3 by the VMM: a new root, and a flush that spares global entries."""
    cpu = state[0]
    charge(cpu, EVENT_SYS_MOV_CR3_WRITE, 1)
    cpu.cr3 = value
    flush_tlb(cpu, 1)


@entry
def vmm_invlpg(state, gla):
    """INVLPG by the VMM."""
    charge(state[0], EVENT_SYS_INVLPG, 1)
    invalidate_page(state[0], gla)


@entry
def vmm_program_timer(state, deadline):
    """Set the host's one-shot timer to a tick; NEVER stops it."""
    cpu = state[0]
    charge(cpu, EVENT_SYS_LAPIC_MMIO_ACCESS, 1)
    cpu.timer = deadline
    cpu.timer_pending = 0


@entry
def vmm_charge(state, event, items, ticks):
    """Charge a path of the VMM: its ticks were computed from the witness table."""
    charge_ticks(state[0], event, items, ticks, MODE_VMM)


@entry
def vmm_idle(state, halts, ticks):
    """Time that a guest was halted while the VMM's interpreter ran it."""
    charge_ticks(state[0], EVENT_IDLE_HALT, halts, ticks, MODE_IDLE)


@entry
def vmm_reference(state, physical):
    """A live reference of the VMM to a structure in machine RAM: what lies above an L1 hit is charged."""
    reference(state[0], physical, VMM)


@entry
def device_read(boards, port, width_bytes, now):
    """IN from a virtual board at a tick."""
    return port_read(boards[0], port, width_bytes, now)


@entry
def device_write(boards, port, width_bytes, value, now):
    """OUT to a virtual board at a tick."""
    board = boards[0]
    board.attention |= port_write(board, port, width_bytes, value, now)


@entry
def device_advance(boards, now):
    """Let virtual devices see a tick; 1 if they request an interrupt."""
    board_advance(boards[0], now)
    return interrupt_pending(boards[0])


@entry
def device_deadline(boards):
    """The next tick at which a virtual device can raise an interrupt, NEVER if none."""
    return board_deadline(boards[0])


@entry
def device_acknowledge(boards):
    """Acknowledge the interrupt that a virtual board requests; returns its vector."""
    return interrupt_acknowledge(boards[0])


@entry
def device_depends_on_time(boards, port, width_bytes, writes):
    """1 if it matters when an IN, or with `writes` 1 an OUT, comes."""
    return depends_on_time(boards[0], port, width_bytes, writes)


@entry
def device_request_answered(boards):
    """The host's half of IDE has done what the channels asked for."""
    board = boards[0]
    follow_channels(board.ide)
    follow_devices(board)


@entry
def flush_translations(state):
    """Empty the TLBs at no cost, as a processor may at any time (SDM volume 3, section 4.10.2.3)."""
    flush_tlb(state[0], 0)


@entry
def decode_bytes(codes):
    """Decode the instruction in the decoder's window; returns a DECODED outcome (core/decode.py)."""
    return decode(codes[0].decoded[0])


@entry
def set_all_eflags(state, value):
    """Write EFLAGS from Python."""
    set_eflags(state[0], value)


@entry
def all_eflags(state):
    """Read EFLAGS from Python."""
    return get_eflags(state[0])


@entry
def look_up(state, memory, gla):
    """The physical address that a linear one translates to now, without any effect; -1 if it does not."""
    return peek_translation(state[0], memory, gla)
