"""The IDE interface of the PIIX3: two channels for two drives each, with a bus master.

Ports 1F0h to 1F7h and 3F6h (IRQ 14), 170h to 177h and 376h (IRQ 15), and sixteen bytes at the PCI function's fourth base
address. Source: ATA/ATAPI-6 (T13/1410D), sections 7 and 9; Intel 82371FB/82371SB and 82371AB data sheets, bus master IDE.

Where no drive answers, a register reads as 7Fh: the host pulls DD7 down, so that BSY is clear (ATA/ATAPI-6, table 4),
and the other lines float high. Device 0 answers for a device 1 that is not there, with a status of 0 (section 9.16.1).

What drives do in time is not in the log of a recorded run yet: a guest that uses a disk cannot be replayed.
"""

from .ide_commands import start_command
from .ide_state import (
    CONTROL_HOB,
    CONTROL_SRST,
    DEVICE_DEV,
    MASTER_ACTIVE,
    MASTER_CAPABLE,
    MASTER_ERROR,
    MASTER_INTERRUPT,
    MASTER_START,
    MASTER_TO_MEMORY,
    PHASE_DATA_IN,
    PHASE_DATA_OUT,
    PHASE_RESET,
    POWER_SLEEP,
    POWER_STANDBY,
    REQUEST_NONE,
    channel_busy,
    clear_interrupt,
    drive_status,
    enter_phase,
    follow_interrupt,
    forget_command,
    reset_channel,
    restore_settings,
    selected_drive,
)
from .ide_transfer import advance_channel, block_was_read, block_was_written, start_dma, stop_dma
from .jit import kernel, load_16, store_16
from .layout import NEVER

REGISTER_DATA, REGISTER_ERROR, REGISTER_COUNT, REGISTER_LOW, REGISTER_MID, REGISTER_HIGH = range(6)
REGISTER_DEVICE, REGISTER_STATUS = 6, 7
FLOATING = 0x7F
FLOATING_DATA = 0xFF7F
NO_DATA = 0xFFFF  # the data register outside of a transfer

# -- the task file ----------------------------------------------------------------------------------------------------


@kernel
def shift_register(drive, register, value):
    """One drive takes a byte of the task file; what was there before is kept for 48-bit addresses."""
    if register == REGISTER_ERROR:
        drive.older_feature = drive.feature
        drive.feature = value
    elif register == REGISTER_COUNT:
        drive.older_count = drive.sector_count
        drive.sector_count = value
    elif register == REGISTER_LOW:
        drive.older_low = drive.lba_low
        drive.lba_low = value
    elif register == REGISTER_MID:
        drive.older_mid = drive.lba_mid
        drive.lba_mid = value
    elif register == REGISTER_HIGH:
        drive.older_high = drive.lba_high
        drive.lba_high = value
    else:
        drive.device_register = value


@kernel
def task_register(drive, register):
    """What a drive's register 1 to 6 holds."""
    if register == REGISTER_ERROR:
        return drive.error
    if register == REGISTER_COUNT:
        return drive.sector_count
    if register == REGISTER_LOW:
        return drive.lba_low
    if register == REGISTER_MID:
        return drive.lba_mid
    if register == REGISTER_HIGH:
        return drive.lba_high
    return drive.device_register


@kernel
def older_register(drive, register):
    """What a drive's register held before the last write: HOB is set."""
    if register == REGISTER_COUNT:
        return drive.older_count
    if register == REGISTER_LOW:
        return drive.older_low
    if register == REGISTER_MID:
        return drive.older_mid
    if register == REGISTER_HIGH:
        return drive.older_high
    return task_register(drive, register)


@kernel
def answering_drive(channel):
    """The number of the drive that answers reads, -1 if none does."""
    if selected_drive(channel).present == 1:
        return channel.selected
    if channel.selected == 1 and channel.drives[0].present == 1:
        return 0
    return -1


@kernel
def read_status(channel):
    """The status register, without clearing the interrupt."""
    number = answering_drive(channel)
    if number < 0:
        return FLOATING
    if number != channel.selected:
        return 0
    return drive_status(channel, channel.drives[number])


@kernel
def read_register(channel, register):
    """A byte of the command block, but for the data register."""
    if register == REGISTER_STATUS:
        status = read_status(channel)
        clear_interrupt(channel)
        return status
    number = answering_drive(channel)
    if number < 0:
        return FLOATING
    if channel.control & CONTROL_HOB != 0:
        return older_register(channel.drives[number], register)
    return task_register(channel.drives[number], register)


@kernel
def write_register(channel, register, value, now):
    """A byte to the command block, but for the data register; ignored while BSY or DRQ is set."""
    channel.control &= ~CONTROL_HOB
    if channel_busy(channel):
        return
    if register == REGISTER_STATUS:
        start_command(channel, value, now)
        return
    shift_register(channel.drives[0], register, value)
    shift_register(channel.drives[1], register, value)
    if register == REGISTER_DEVICE:
        channel.selected = int(value & DEVICE_DEV != 0)
        follow_interrupt(channel)


# -- device control ---------------------------------------------------------------------------------------------------


@kernel
def begin_reset(channel):
    """SRST is set: both drives stop what they do, and are busy."""
    forget_command(channel)
    channel.selected = 0
    for number in range(2):
        drive = channel.drives[number]
        drive.interrupt = 0
        if drive.reverts == 1:
            restore_settings(drive)
        if drive.power == POWER_SLEEP:
            drive.power = POWER_STANDBY
    enter_phase(channel, PHASE_RESET, NEVER)


@kernel
def write_control(channel, value, now):
    """The device control register: nIEN, SRST, HOB."""
    before = channel.control
    channel.control = value & 0xFF
    if value & CONTROL_SRST != 0:
        if before & CONTROL_SRST == 0:
            begin_reset(channel)
    elif before & CONTROL_SRST != 0:
        enter_phase(channel, PHASE_RESET, now + channel.reset_ticks)
    follow_interrupt(channel)


# -- the data register ------------------------------------------------------------------------------------------------


@kernel
def read_data_word(channel, now):
    """A word of the block that DRQ offers."""
    if answering_drive(channel) < 0:
        return FLOATING_DATA
    if channel.phase != PHASE_DATA_IN:
        return NO_DATA
    value = load_16(channel.buffer, channel.position)
    channel.position += 2
    if channel.position >= channel.block_end:
        block_was_read(channel, now)
    return value


@kernel
def write_data_word(channel, value, now):
    """A word of the block that DRQ asks for; lost if there is none."""
    if channel.phase != PHASE_DATA_OUT:
        return
    store_16(channel.buffer, channel.position, value)
    channel.position += 2
    if channel.position >= channel.block_end:
        block_was_written(channel, now)


@kernel
def read_data(channel, n, now):
    """The data register as 1, 2 or 4 bytes: the cable moves words, a byte is the lower half of one."""
    value = read_data_word(channel, now)
    if n == 4:
        value |= read_data_word(channel, now) << 16
    elif n == 1:
        value &= 0xFF
    return value


@kernel
def write_data(channel, n, value, now):
    """The data register as 1, 2 or 4 bytes."""
    write_data_word(channel, value & 0xFFFF, now)
    if n == 4:
        write_data_word(channel, (value >> 16) & 0xFFFF, now)


# -- the bus master ---------------------------------------------------------------------------------------------------


@kernel
def write_master_command(channel, value, now):
    """BMIC: start, stop and direction; the direction is read-only while the bus master is active."""
    before = channel.master_command
    if channel.master_status & MASTER_ACTIVE != 0:
        value = (value & ~MASTER_TO_MEMORY) | (before & MASTER_TO_MEMORY)
    channel.master_command = value & (MASTER_START | MASTER_TO_MEMORY)
    if value & MASTER_START == 0:
        stop_dma(channel)
    elif before & MASTER_START == 0:
        channel.master_status |= MASTER_ACTIVE
        start_dma(channel, now)


@kernel
def write_master_status(channel, value):
    """BMIS: the capable bits are software's; ones clear the interrupt and error bits."""
    status = channel.master_status & ~(value & (MASTER_INTERRUPT | MASTER_ERROR))
    channel.master_status = (status & ~MASTER_CAPABLE) | (value & MASTER_CAPABLE)


@kernel
def read_master_register(channel, offset):
    """A byte of a channel's eight bus master registers."""
    if offset == 0:
        return channel.master_command
    if offset == 2:
        return channel.master_status
    if offset >= 4:
        return (channel.master_table >> (8 * (offset - 4))) & 0xFF
    return 0


@kernel
def write_master_register(channel, offset, value, now):
    """A byte to a channel's eight bus master registers; the table lies at a doubleword."""
    if offset == 0:
        write_master_command(channel, value, now)
    elif offset == 2:
        write_master_status(channel, value)
    elif offset >= 4:
        shift = 8 * (offset - 4)
        channel.master_table = (channel.master_table & ~(0xFF << shift) | value << shift) & ~3


# -- both channels, as the board has them; it has brought them up to date before an access -----------------------------


@kernel
def follow_channels(ide):
    """Tell the board what it asks after: the lines, the earliest deadline, whether a request waits for its answer."""
    ide.deadline = NEVER
    ide.asks_host = 0
    ide.moved = 1
    for number in range(2):
        channel = ide.channels[number]
        ide.irq[number] = channel.line
        ide.deadline = min(ide.deadline, channel.deadline)
        if channel.request != REQUEST_NONE:
            ide.asks_host = 1


@kernel
def reset_ide(ide, ticks_per_second):
    """Power on; the drives stay plugged in."""
    reset_channel(ide.channels[0], ticks_per_second)
    reset_channel(ide.channels[1], ticks_per_second)
    follow_channels(ide)


@kernel
def ide_advance(ide, now):
    """Bring the drives up to tick `now`."""
    if now >= ide.deadline:
        advance_channel(ide.channels[0], now)
        advance_channel(ide.channels[1], now)
        follow_channels(ide)


@kernel
def channel_of(port):
    """The channel that a port belongs to: bit 7 tells 1F0h from 170h and 3F6h from 376h."""
    return 1 - ((port >> 7) & 1)


@kernel
def ends_ide_block(ide, port, n):
    """1 if an access to a data register, on which nothing but the block's own words waits, reaches the block's end."""
    channel = ide.channels[channel_of(port)]
    return int(channel.position + max(n, 2) >= channel.block_end)


@kernel
def ide_read(ide, port, n, now):
    """IN from a port of the command or control block; the data register takes 1, 2 or 4 bytes, the others one."""
    channel = ide.channels[channel_of(port)]
    register = port & 7
    if port & 0x200 != 0:
        return read_status(channel)
    if register != REGISTER_DATA:
        value = read_register(channel, register)
    else:
        phase = channel.phase
        value = read_data(channel, n, now)
        if phase == channel.phase:
            return value
    follow_channels(ide)
    return value


@kernel
def ide_write(ide, port, n, value, now):
    """OUT to a port of the command or control block."""
    channel = ide.channels[channel_of(port)]
    register = port & 7
    if port & 0x200 != 0:
        write_control(channel, value, now)
    elif register != REGISTER_DATA:
        write_register(channel, register, value, now)
    else:
        phase = channel.phase
        write_data(channel, n, value, now)
        if phase == channel.phase:
            return
    follow_channels(ide)


@kernel
def bus_master_read(ide, offset):
    """IN of a byte, 0 to 15, of the bus master's registers."""
    return read_master_register(ide.channels[offset >> 3], offset & 7)


@kernel
def bus_master_write(ide, offset, value, now):
    """OUT of a byte to the bus master's registers."""
    write_master_register(ide.channels[offset >> 3], offset & 7, value, now)
    follow_channels(ide)
