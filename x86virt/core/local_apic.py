"""The local APIC: requests, priorities and service, the local vector table, the timer, interprocessor interrupts.

Source: SDM volume 3, chapter 10 (xAPIC, as the Pentium 4 has it). `now` is in ticks, 64 per processor cycle; the timer is a
function of it. Interrupts that arrive here are fixed ones. What would come as NMI, SMI or INIT is kept in the registers
that ask for it, and goes nowhere: the core takes none of them yet. ExtINT is not a request of the APIC: the processor asks
the PICs while the entry lets it (core/interrupt_inputs.py). There is one processor, whose identity is 0 after reset: a
message to others is sent and finds nobody, which the manual's xAPIC reports nowhere (a Pentium or P6 would set Send Accept
Error). Interrupts are acknowledged the moment they are seen deliverable, so that a spurious vector never arises.
"""

from .jit import inline, kernel
from .layout import N_LOCAL_VECTORS, NEVER

LVT_TIMER, LVT_THERMAL, LVT_PERFORMANCE, LVT_LINT0, LVT_LINT1, LVT_ERROR = range(6)

VERSION = 0x14 | (N_LOCAL_VECTORS - 1) << 16
BASE_ENABLED, BASE_BOOTSTRAP = 1 << 11, 1 << 8
RESET_BASE = 0xFEE00000 | BASE_ENABLED | BASE_BOOTSTRAP
SOFTWARE_ENABLED = 1 << 8  # in the spurious-interrupt vector register
MASKED = 1 << 16  # in a local vector, and in an entry of the I/O APIC
REMOTE_IRR, LEVEL_TRIGGERED, ACTIVE_LOW = 1 << 14, 1 << 15, 1 << 13
PERIODIC = 1 << 17
DELIVERY_SHIFT, FIXED, LOWEST_PRIORITY, EXTERNAL = 8, 0, 1, 7
LOGICAL = 1 << 11  # destination mode
BROADCAST = 0xFF
ERROR_SEND_VECTOR, ERROR_RECEIVE_VECTOR, ERROR_REGISTER = 1 << 5, 1 << 6, 1 << 7
FIRST_VECTOR = 16  # lower ones are illegal
SELF, ALL_WITH_SELF = 1, 2  # destination shorthands; 3 excludes the only processor
VECTOR_WRITABLE = (0x300FF, 0x107FF, 0x107FF, 0x1A7FF, 0x1A7FF, 0x100FF)

IDENTITY, VERSION_REGISTER, TASK_PRIORITY, ARBITRATION_PRIORITY, PROCESSOR_PRIORITY = 0x20, 0x30, 0x80, 0x90, 0xA0
END_OF_INTERRUPT, LOGICAL_DESTINATION, DESTINATION_FORMAT, SPURIOUS = 0xB0, 0xD0, 0xE0, 0xF0
IN_SERVICE, TRIGGER_MODE, REQUESTED, ERROR_STATUS = 0x100, 0x180, 0x200, 0x280
COMMAND_LOW, COMMAND_HIGH, LOCAL_VECTOR = 0x300, 0x310, 0x320
INITIAL_COUNT, CURRENT_COUNT, DIVIDE = 0x380, 0x390, 0x3E0


@kernel
def reset_registers(apic):
    """All registers as after power-up or reset (section 10.4.7.1): software-disabled, every local vector masked."""
    apic.identity = 0
    apic.task_priority = 0
    apic.logical_destination = 0
    apic.destination_format = 0xFFFFFFFF
    apic.spurious = 0xFF
    for word in range(8):
        apic.in_service[word] = 0
        apic.trigger_mode[word] = 0
        apic.requested[word] = 0
    apic.error_status = 0
    apic.errors = 0
    apic.command_low = 0
    apic.command_high = 0
    for number in range(N_LOCAL_VECTORS):
        apic.local_vector[number] = MASKED
    apic.initial_count = 0
    apic.divide = 0
    apic.count_from = 0
    apic.count_began = 0
    apic.deliverable = -1


@kernel
def write_base(apic, value):
    """Give IA32_APIC_BASE a value (section 10.4.4). Enabled again, the APIC comes back as after a reset."""
    was_enabled = apic.enabled
    apic.base_msr = value
    apic.enabled = 0
    apic.page = -1
    if apic.present == 1 and value & BASE_ENABLED != 0:
        apic.enabled = 1
        apic.page = value >> 12
    if apic.enabled != was_enabled:
        reset_registers(apic)


@kernel
def reset_local_apic(apic):
    """Power on, or a reset of the processor."""
    apic.enabled = 0
    reset_registers(apic)
    write_base(apic, RESET_BASE)


# -- priorities (section 10.8.3) --------------------------------------------------------------------------------------


@kernel
def highest(words):
    """The highest vector of 256 bits that is set, -1 if none is."""
    for number in range(8):
        word = words[7 - number]
        if word != 0:
            bit = 31
            while (word >> bit) & 1 == 0:
                bit -= 1
            return 32 * (7 - number) + bit
    return -1


@kernel
def processor_priority(apic):
    """PPR: the task priority, or the class of what is in service if that is higher."""
    serving = highest(apic.in_service)
    if serving < 0 or apic.task_priority >> 4 >= serving >> 4:
        return apic.task_priority
    return serving & 0xF0


@kernel
def choose(apic):
    """Find what the processor is to take: the highest request, if its class is above the processor's priority."""
    vector = highest(apic.requested)
    if vector >= 0 and vector >> 4 <= processor_priority(apic) >> 4:
        vector = -1
    apic.deliverable = vector


@inline
def vector_bit(vector):
    """The bit of a vector in its word."""
    return 1 << (vector & 31)


@kernel
def request(apic, vector, is_level):
    """Set a vector's request bit; the trigger mode decides whether its end will be told to the I/O APIC."""
    word = vector >> 5
    apic.requested[word] |= vector_bit(vector)
    apic.trigger_mode[word] &= ~vector_bit(vector)
    if is_level != 0:
        apic.trigger_mode[word] |= vector_bit(vector)
    choose(apic)


@kernel
def note_error(apic, error):
    """Keep an error for the error status register, and raise the error interrupt (section 10.5.3)."""
    apic.errors |= error
    entry = apic.local_vector[LVT_ERROR]
    if entry & MASKED == 0 and entry & 0xFF >= FIRST_VECTOR:
        request(apic, entry & 0xFF, 0)


@kernel
def accept(apic, vector, is_level):
    """A fixed interrupt arrives: whether the APIC takes it. Software-disabled it takes none (section 10.4.7.2)."""
    if apic.spurious & SOFTWARE_ENABLED == 0:
        return False
    if vector < FIRST_VECTOR:
        note_error(apic, ERROR_RECEIVE_VECTOR)
        return False
    request(apic, vector, is_level)
    return True


@kernel
def accept_local(apic, number):
    """An interrupt of the local vector table arises at an edge; kinds other than fixed go nowhere."""
    entry = apic.local_vector[number]
    if entry & MASKED == 0 and (entry >> DELIVERY_SHIFT) & 7 == FIXED:
        accept(apic, entry & 0xFF, 0)


@kernel
def acknowledge_apic(apic):
    """The processor takes the interrupt: its vector, now in service."""
    vector = apic.deliverable
    word = vector >> 5
    apic.requested[word] &= ~vector_bit(vector)
    apic.in_service[word] |= vector_bit(vector)
    choose(apic)
    return vector


@kernel
def end_of_interrupt(apic):
    """EOI: the highest vector in service is done. Returns it if it was level-triggered, else -1 (section 10.8.5)."""
    vector = highest(apic.in_service)
    if vector < 0:
        return -1
    word = vector >> 5
    apic.in_service[word] &= ~vector_bit(vector)
    choose(apic)
    if apic.trigger_mode[word] & vector_bit(vector) == 0:
        return -1
    if apic.local_vector[LVT_LINT0] & 0xFF == vector:
        apic.local_vector[LVT_LINT0] &= ~REMOTE_IRR
    return vector


# -- the timer (section 10.5.4) ---------------------------------------------------------------------------------------


@kernel
def count_ticks(apic):
    """Ticks of one count: the bus clock divided by 2, 4, ... 128 or 1 (bits 3, 1 and 0 of the divide configuration)."""
    code = (apic.divide & 3) | (apic.divide >> 1) & 4
    return apic.bus_clock << ((code + 1) & 7)


@kernel
def timer_expiry(apic):
    """The tick at which a running timer reaches 0."""
    return apic.count_began + apic.count_from * count_ticks(apic)


@kernel
def timer_due(apic):
    """The tick at which the timer will ask for an interrupt; NEVER if it stands still or is masked."""
    if apic.count_from == 0 or apic.local_vector[LVT_TIMER] & MASKED != 0:
        return NEVER
    return timer_expiry(apic)


@kernel
def advance_timer(apic, now):
    """Bring the timer up to tick `now`: expired, it stops or begins again, and raises its interrupt."""
    if apic.count_from == 0 or now < timer_expiry(apic):
        return
    if apic.local_vector[LVT_TIMER] & PERIODIC != 0 and apic.initial_count != 0:
        expiry = timer_expiry(apic)
        turn = apic.initial_count * count_ticks(apic)
        apic.count_began = expiry + (now - expiry) // turn * turn
        apic.count_from = apic.initial_count
    else:
        apic.count_from = 0
    accept_local(apic, LVT_TIMER)


@kernel
def current_count(apic, now):
    """The count at tick `now`, to which the timer has been advanced."""
    if apic.count_from == 0:
        return 0
    return apic.count_from - (now - apic.count_began) // count_ticks(apic)


# -- messages (section 10.6) ------------------------------------------------------------------------------------------


@kernel
def is_destination(apic, destination, is_logical):
    """Whether a message's destination (section 10.6.2) names this APIC."""
    if destination == BROADCAST:
        return True
    if is_logical == 0:
        return destination == apic.identity >> 24
    own = apic.logical_destination >> 24
    if apic.destination_format >> 28 == 0:  # the cluster model
        return destination >> 4 == own >> 4 and destination & own & 0xF != 0
    return destination & own != 0


@kernel
def send_command(apic):
    """The interrupt command register was written: an interrupt for the processor itself, or one that finds nobody."""
    command = apic.command_low
    shorthand = (command >> 18) & 3
    named = shorthand == 0 and is_destination(apic, apic.command_high >> 24, command & LOGICAL)
    kind = (command >> DELIVERY_SHIFT) & 7
    if kind != FIXED and kind != LOWEST_PRIORITY:
        return
    if command & 0xFF < FIRST_VECTOR:
        note_error(apic, ERROR_SEND_VECTOR)
    elif named or shorthand == SELF or shorthand == ALL_WITH_SELF:
        accept(apic, command & 0xFF, 0)


# -- the registers ----------------------------------------------------------------------------------------------------


@kernel
def read_counting(apic, offset, now):
    """The registers of the timer."""
    if offset == INITIAL_COUNT:
        return apic.initial_count
    if offset == CURRENT_COUNT:
        advance_timer(apic, now)
        return current_count(apic, now)
    return apic.divide


@kernel
def read_apic(apic, offset, now):
    """A register by its offset, a multiple of 16; a reserved one reads as 0 and is an error."""
    if offset == IDENTITY:
        return apic.identity
    if offset == VERSION_REGISTER:
        return VERSION
    if offset == TASK_PRIORITY:
        return apic.task_priority
    if offset == PROCESSOR_PRIORITY:
        return processor_priority(apic)
    if offset == ARBITRATION_PRIORITY or offset == END_OF_INTERRUPT:
        return 0
    if offset == LOGICAL_DESTINATION:
        return apic.logical_destination
    if offset == DESTINATION_FORMAT:
        return apic.destination_format
    if offset == SPURIOUS:
        return apic.spurious
    if IN_SERVICE <= offset < TRIGGER_MODE:
        return apic.in_service[(offset >> 4) & 7]
    if TRIGGER_MODE <= offset < REQUESTED:
        return apic.trigger_mode[(offset >> 4) & 7]
    if REQUESTED <= offset < ERROR_STATUS:
        return apic.requested[(offset >> 4) & 7]
    if offset == ERROR_STATUS:
        return apic.error_status
    if offset == COMMAND_LOW:
        return apic.command_low
    if offset == COMMAND_HIGH:
        return apic.command_high
    if LOCAL_VECTOR <= offset < INITIAL_COUNT:
        return apic.local_vector[(offset - LOCAL_VECTOR) >> 4]
    if offset == INITIAL_COUNT or offset == CURRENT_COUNT or offset == DIVIDE:
        return read_counting(apic, offset, now)
    note_error(apic, ERROR_REGISTER)
    return 0


@kernel
def write_spurious(apic, value):
    """The spurious-interrupt vector register: its bit 8 enables; cleared, it masks every local vector for good."""
    apic.spurious = value & 0x3FF
    if value & SOFTWARE_ENABLED == 0:
        for number in range(N_LOCAL_VECTORS):
            apic.local_vector[number] |= MASKED


@kernel
def write_local_vector(apic, number, value):
    """An entry of the local vector table; remote IRR and delivery status stay, the mask too while software-disabled."""
    writable = VECTOR_WRITABLE[number]
    entry = (value & writable) | (apic.local_vector[number] & REMOTE_IRR)
    if entry & LEVEL_TRIGGERED == 0:
        entry &= ~REMOTE_IRR
    if apic.spurious & SOFTWARE_ENABLED == 0:
        entry |= MASKED
    apic.local_vector[number] = entry


@kernel
def write_counting(apic, offset, value, now):
    """The registers of the timer; a new divisor counts on from where the count is, a new initial count begins anew."""
    if offset == INITIAL_COUNT:
        apic.initial_count = value
        apic.count_from = value
        apic.count_began = now
    elif offset == DIVIDE:
        apic.count_from = current_count(apic, now)
        apic.count_began = now
        apic.divide = value & 0xB


@kernel
def write_apic(apic, offset, value, now):
    """Write a register by its offset; returns the vector whose end the I/O APIC must hear of, -1: none."""
    advance_timer(apic, now)
    if offset == END_OF_INTERRUPT:
        return end_of_interrupt(apic)
    if offset == IDENTITY:
        apic.identity = value & 0xFF000000
    elif offset == TASK_PRIORITY:
        apic.task_priority = value & 0xFF
        choose(apic)
    elif offset == LOGICAL_DESTINATION:
        apic.logical_destination = value & 0xFF000000
    elif offset == DESTINATION_FORMAT:
        apic.destination_format = value | 0x0FFFFFFF
    elif offset == SPURIOUS:
        write_spurious(apic, value)
    elif offset == ERROR_STATUS:
        apic.error_status = apic.errors
        apic.errors = 0
    elif offset == COMMAND_LOW:
        apic.command_low = value & 0xCCFFF
        send_command(apic)
    elif offset == COMMAND_HIGH:
        apic.command_high = value & 0xFF000000
    elif LOCAL_VECTOR <= offset < INITIAL_COUNT:
        write_local_vector(apic, (offset - LOCAL_VECTOR) >> 4, value)
    elif offset == INITIAL_COUNT or offset == DIVIDE:
        write_counting(apic, offset, value, now)
    elif not is_read_only(offset):
        note_error(apic, ERROR_REGISTER)
    return -1


@kernel
def is_read_only(offset):
    """Whether a register is one that a write leaves as it is."""
    if IN_SERVICE <= offset < ERROR_STATUS or offset == VERSION_REGISTER or offset == CURRENT_COUNT:
        return True
    return offset == ARBITRATION_PRIORITY or offset == PROCESSOR_PRIORITY
