"""The 8259A programmable interrupt controller: requests, priorities, service and acknowledgement.

Source: Intel, 8259A Programmable Interrupt Controller data sheet (ICW1 to ICW4, OCW1 to OCW3, interrupt sequence).
A request on an edge-triggered input is latched until it is acknowledged; the data sheet's part wants the input to stay
high until then, which would lose timer ticks that the usual PC chipsets and virtual machines keep. Only the 8086 mode
of acknowledgement exists: ICW4 bit 0 is taken as set. LTIM makes all inputs level-triggered, as on the data sheet's part; the
chip set of a PC adds a register that does so input by input.
"""

import numpy as np

from .jit import kernel

PIC = np.dtype(
    [
        ("irr", "i8"),  # interrupt request register, one bit per input
        ("isr", "i8"),  # in-service register
        ("imr", "i8"),  # interrupt mask register
        ("lines", "i8"),  # levels of the inputs
        ("lowest", "i8"),  # the input of lowest priority, 7 unless rotated
        ("ready", "i8"),  # 1 once an initialization sequence is complete
        ("expected_icw", "i8"),  # 2, 3 or 4 inside an initialization sequence, else 0
        ("single", "i8"),  # ICW1 SNGL: no cascade, no ICW3
        ("level_triggered", "i8"),  # ICW1 LTIM
        ("icw4_needed", "i8"),  # ICW1 IC4
        ("vector_offset", "i8"),  # ICW2: vector of input 0, a multiple of 8
        ("cascade", "i8"),  # ICW3: inputs that carry a slave (master), or the identity (slave)
        ("auto_eoi", "i8"),  # ICW4 AEOI
        ("rotate_on_auto_eoi", "i8"),  # OCW2
        ("special_fully_nested", "i8"),  # ICW4 SFNM
        ("special_mask", "i8"),  # OCW3 SMM
        ("read_isr", "i8"),  # OCW3: a status read gives ISR instead of IRR
        ("poll", "i8"),  # OCW3 P: the next read is an acknowledgement
        ("elcr", "i8"),  # edge/level control register: inputs that are level-triggered whatever LTIM says
        ("is_master", "i8"),  # 1 for the one whose INT goes to the processor
    ]
)

NO_INPUT = -1
SPURIOUS_INPUT = 7
CASCADE_INPUT = 2  # the master's input that the slave drives on a PC


@kernel
def reset_pic(pic, is_master):
    """Power on: not initialized and all inputs masked, so that no interrupt arises before ICW1."""
    pic.irr = 0
    pic.isr = 0
    pic.imr = 0xFF
    pic.lines = 0
    pic.lowest = 7
    pic.ready = 0
    pic.expected_icw = 0
    pic.single = 0
    pic.level_triggered = 0
    pic.icw4_needed = 0
    pic.vector_offset = 0
    pic.cascade = 0
    pic.auto_eoi = 0
    pic.rotate_on_auto_eoi = 0
    pic.special_fully_nested = 0
    pic.special_mask = 0
    pic.read_isr = 0
    pic.poll = 0
    pic.elcr = 0
    pic.is_master = is_master


@kernel
def first_by_priority(inputs, lowest):
    """The input of highest priority in the bit set `inputs`, or NO_INPUT; the one after `lowest` comes first."""
    for step in range(1, 9):
        irq = (lowest + step) & 7
        if inputs & (1 << irq) != 0:
            return irq
    return NO_INPUT


@kernel
def blocking_input(pic):
    """The input in service that holds off those of its own and of lower priority, or NO_INPUT.

    In special mask mode an input that is masked blocks nothing."""
    serviced = pic.isr
    if pic.special_mask != 0:
        serviced &= ~pic.imr
    return first_by_priority(serviced, pic.lowest)


@kernel
def selected_input(pic):
    """The input for which the INT output is high now, or NO_INPUT."""
    requests = pic.irr & ~pic.imr
    if requests == 0 or pic.ready == 0:
        return NO_INPUT
    irq = first_by_priority(requests, pic.lowest)
    blocking = blocking_input(pic)
    if blocking < 0:
        return irq
    first = (pic.lowest + 1) & 7
    if (irq - first) & 7 < (blocking - first) & 7:
        return irq
    if irq == blocking and pic.special_fully_nested != 0 and has_slave(pic, irq) != 0:
        return irq
    return NO_INPUT


@kernel
def has_slave(pic, irq):
    """1 if acknowledging this input is answered by a slave."""
    if pic.is_master != 0 and pic.single == 0 and irq == CASCADE_INPUT and pic.cascade & (1 << CASCADE_INPUT) != 0:
        return 1
    return 0


@kernel
def level_inputs(pic):
    """The inputs that are level-triggered."""
    if pic.level_triggered != 0:
        return 0xFF
    return pic.elcr


@kernel
def write_elcr(pic, value, allowed):
    """The edge/level control register of the chip set (82371SB, section 2.5.9): a request by level follows its input."""
    pic.elcr = value & allowed
    levels = level_inputs(pic)
    pic.irr = (pic.irr & ~levels) | (pic.lines & levels)


@kernel
def accept(pic, irq):
    """What the acknowledgement of `irq` does to the registers."""
    bit = 1 << irq
    if level_inputs(pic) & bit == 0:
        pic.irr &= ~bit
    if pic.auto_eoi == 0:
        pic.isr |= bit
    elif pic.rotate_on_auto_eoi != 0:
        pic.lowest = irq


@kernel
def set_line(pic, irq, level):
    """Drive an input low (0) or high (1)."""
    bit = 1 << irq
    if level != 0:
        if level_inputs(pic) & bit != 0 or pic.lines & bit == 0:
            pic.irr |= bit
        pic.lines |= bit
    else:
        pic.lines &= ~bit
        if level_inputs(pic) & bit != 0:
            pic.irr &= ~bit


@kernel
def signal_cascade(master, slave):
    """Carry the slave's INT output to the master's input 2.

    INT falls between two acknowledgements, so a slave that still asks makes a new edge each time."""
    if selected_input(slave) < 0:
        set_line(master, CASCADE_INPUT, 0)
    else:
        master.lines |= 1 << CASCADE_INPUT
        master.irr |= 1 << CASCADE_INPUT


@kernel
def acknowledge(master, slave):
    """The INTA sequence: the vector of the interrupt now taken.

    A master with nothing to deliver answers with its input 7 and a slave with its own, neither put in service."""
    irq = selected_input(master)
    if irq < 0:
        return master.vector_offset + SPURIOUS_INPUT
    accept(master, irq)
    if has_slave(master, irq) == 0:
        return master.vector_offset + irq
    slave_irq = selected_input(slave)
    if slave_irq < 0:
        return slave.vector_offset + SPURIOUS_INPUT
    accept(slave, slave_irq)
    signal_cascade(master, slave)
    return slave.vector_offset + slave_irq


@kernel
def initialize(pic, value):
    """ICW1: start an initialization sequence. Edges seen so far are forgotten, the mask is cleared."""
    pic.ready = 0
    pic.expected_icw = 2
    pic.icw4_needed = value & 1
    pic.single = (value >> 1) & 1
    pic.level_triggered = (value >> 3) & 1
    pic.irr = pic.lines & level_inputs(pic)
    pic.isr = 0
    pic.imr = 0
    pic.lowest = 7
    pic.auto_eoi = 0
    pic.rotate_on_auto_eoi = 0
    pic.special_fully_nested = 0
    pic.special_mask = 0
    pic.read_isr = 0
    pic.poll = 0


@kernel
def continue_initialization(pic, value):
    """ICW2, ICW3 or ICW4, whichever is due, and the choice of the next."""
    following = 0
    if pic.expected_icw == 2:
        pic.vector_offset = value & 0xF8
        following = 3
    elif pic.expected_icw == 3:
        pic.cascade = value
        following = 4
    else:
        pic.auto_eoi = (value >> 1) & 1
        pic.special_fully_nested = (value >> 4) & 1
    if following == 3 and pic.single != 0:
        following = 4
    if following == 4 and pic.icw4_needed == 0:
        following = 0
    pic.expected_icw = following
    if following == 0:
        pic.ready = 1


@kernel
def end_or_rotate(pic, value):
    """OCW2: R, SL, EOI in bits 7 to 5, the input in bits 2 to 0."""
    irq = value & 7
    if value & 0x20 != 0:  # an end of interrupt
        if value & 0x40 == 0:
            irq = blocking_input(pic)
        if irq < 0:
            return
        pic.isr &= ~(1 << irq)
        if value & 0x80 != 0:
            pic.lowest = irq
    elif value & 0x40 == 0:
        pic.rotate_on_auto_eoi = (value >> 7) & 1
    elif value & 0x80 != 0:
        pic.lowest = irq


@kernel
def set_mode(pic, value):
    """OCW3: special mask mode, poll command, choice of the register that is read."""
    if value & 0x40 != 0:
        pic.special_mask = (value >> 5) & 1
    pic.poll = (value >> 2) & 1
    if value & 0x02 != 0:
        pic.read_isr = value & 1


@kernel
def pic_write(pic, a0, value):
    """Write a byte with address line A0 low (command) or high (mask, ICW2 to ICW4)."""
    if a0 != 0:
        if pic.expected_icw != 0:
            continue_initialization(pic, value)
        else:
            pic.imr = value
    elif value & 0x10 != 0:
        initialize(pic, value)
    elif value & 0x08 != 0:
        set_mode(pic, value)
    else:
        end_or_rotate(pic, value)


@kernel
def pic_read(pic, a0):
    """Read a byte: the poll answer if one was asked for, else IMR (A0 high), IRR or ISR."""
    if pic.poll != 0:
        pic.poll = 0
        irq = selected_input(pic)
        if irq < 0:
            return 0
        accept(pic, irq)
        return 0x80 | irq
    if a0 != 0:
        return pic.imr
    if pic.read_isr != 0:
        return pic.isr
    return pic.irr
