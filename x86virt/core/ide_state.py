"""What an IDE channel with its drives remembers, and the marks of its registers.

Source: ATA/ATAPI-6 (T13/1410D), sections 6 and 7 (register delivered commands), 9 (protocols). Two drives share a cable.
What the host writes to the command block registers arrives at both, so that each keeps a task file of its own; DEV, bit 4
of the device register, says which of them answers and executes.

A channel executes one command at a time. `phase` says where it is, `deadline` when the phase ends in simulated time.
A command that wants sectors asks for them with `request`: whoever runs the processor has answered before the next
instruction, so that nothing that the guest can see depends on how long the host's file took.
"""

import numpy as np

from .jit import inline, kernel
from .layout import NEVER

SECTOR_BYTES = 512
MOST_MULTIPLE = 16  # sectors that one block of READ MULTIPLE and WRITE MULTIPLE may have
BUFFER_BYTES = MOST_MULTIPLE * SECTOR_BYTES

# How fast a drive is: a declared model, `estimated`. The owner may set the channel's `*_ticks` otherwise after reset.
COMMAND_MICROSECONDS = 100  # from the command to its first sector or its end: a drive that finds it in its track buffer
RESET_MICROSECONDS = 2000  # BSY behind a reset: the least that ATA/ATAPI-6 has the host wait before it looks
SECTOR_NANOSECONDS = 30720  # the cable's cycle of 120 ns a word, in PIO mode 4 and multiword DMA mode 2 alike

# -- the status and error registers (sections 7.15 and 7.9) -----------------------------------------------------------
STATUS_ERR = 0x01
STATUS_DRQ = 0x08
STATUS_DSC = 0x10  # seek complete, which ATA/ATAPI-6 calls obsolete and drives still set
STATUS_DRDY = 0x40
STATUS_BSY = 0x80
STATUS_READY = STATUS_DRDY | STATUS_DSC
ERROR_ABRT = 0x04
ERROR_IDNF = 0x10
DIAGNOSTIC_PASSED = 0x01

# -- device control and the device register (sections 7.7 and 7.8) ----------------------------------------------------
CONTROL_NIEN = 0x02
CONTROL_SRST = 0x04
CONTROL_HOB = 0x80
DEVICE_DEV = 0x10
DEVICE_LBA = 0x40

# -- the bus master's registers (82371AB data sheet, section 5.2) -------------------------------------------------------
MASTER_START = 0x01
MASTER_TO_MEMORY = 0x08  # the direction: 1 writes memory, for a read of the disk
MASTER_ACTIVE = 0x01
MASTER_ERROR = 0x02
MASTER_INTERRUPT = 0x04
MASTER_CAPABLE = 0x60  # bits for software's own use

# -- phases -----------------------------------------------------------------------------------------------------------
PHASE_IDLE = 0
PHASE_RESET = 1  # SRST is set, or was a moment ago
PHASE_DIAGNOSTIC = 2
PHASE_BUSY = 3  # a command without data, or one that fails
PHASE_FETCH = 4  # sectors are on their way into the buffer
PHASE_DATA_IN = 5  # the host reads the buffer
PHASE_DATA_OUT = 6  # the host writes the buffer
PHASE_STORE = 7  # sectors are on their way from the buffer to the disk
PHASE_DMA_WAIT = 8  # the drive asks for DMA, the bus master is not started
PHASE_DMA = 9
PHASE_STALLED = 10  # the bus master has stopped before the drive was done; only a reset ends that
N_PHASES = 11

# -- what is asked of the host, and its answers -----------------------------------------------------------------------
REQUEST_NONE = 0
REQUEST_READ = 1  # `request_count` sectors from `request_lba` into the buffer
REQUEST_WRITE = 2  # from the buffer
REQUEST_FLUSH = 3
REQUEST_IDENTIFY = 4  # the 512 bytes of IDENTIFY DEVICE into the buffer
REQUEST_DMA_READ = 5  # from the disk to memory, by the physical region descriptors
REQUEST_DMA_WRITE = 6

DMA_EXACT = 0  # the descriptors held as many bytes as the command moved
DMA_LONGER = 1  # there is room left in them
DMA_SHORTER = 2  # they came to their end first
DMA_FAILED = 3  # the bus master got no answer from memory
N_DMA_OUTCOMES = 4

# -- power modes, as CHECK POWER MODE tells them ----------------------------------------------------------------------
POWER_ACTIVE = 0xFF
POWER_IDLE = 0x80
POWER_STANDBY = 0x00
POWER_SLEEP = 0x01  # never told: a drive that sleeps executes nothing

TRANSFER_MODE_DEFAULT = 0x0C  # SET FEATURES 03h: PIO mode 4 with flow control

IDE_DRIVE = np.dtype(
    [
        # what is plugged in, set by the owner; a reset keeps it
        ("present", "i8"),
        ("capacity", "i8"),  # sectors
        ("default_cylinders", "i8"),
        ("default_heads", "i8"),
        ("default_track", "i8"),  # sectors per track
        # settings
        ("cylinders", "i8"),  # the translation of CHS addresses in use
        ("heads", "i8"),
        ("track", "i8"),
        ("multiple", "i8"),  # sectors per block of READ MULTIPLE; 0: not set
        ("transfer_mode", "i8"),  # PIO or DMA mode, as SET FEATURES takes it
        ("dma_mode", "i8"),  # the DMA mode chosen last; 0: none
        ("write_cache", "i8"),
        ("look_ahead", "i8"),
        ("reverts", "i8"),  # 1: a software reset brings the settings back to those of power on
        ("power", "i8"),
        # the task file; `older_` is what a register held before the last write, for 48-bit addresses
        ("status", "i8"),  # without BSY and DRQ, which follow from the channel's phase
        ("error", "i8"),
        ("feature", "i8"),
        ("sector_count", "i8"),
        ("lba_low", "i8"),
        ("lba_mid", "i8"),
        ("lba_high", "i8"),
        ("device_register", "i8"),
        ("older_feature", "i8"),
        ("older_count", "i8"),
        ("older_low", "i8"),
        ("older_mid", "i8"),
        ("older_high", "i8"),
        ("interrupt", "i8"),  # 1: an interrupt waits for the host to read the status register
    ]
)

IDE_CHANNEL = np.dtype(
    [
        ("drives", IDE_DRIVE, 2),
        ("selected", "i8"),  # DEV
        ("control", "i8"),  # the device control register
        ("line", "i8"),  # level of INTRQ on the cable
        ("phase", "i8"),
        ("deadline", "i8"),  # tick at which it ends, NEVER if time does not end it
        # the command in execution
        ("command", "i8"),
        ("lba", "i8"),  # the next sector
        ("sectors_left", "i8"),
        ("block", "i8"),  # sectors from one interrupt to the next
        ("overhead", "i8"),  # ticks to be added to the next block: the command's own
        ("failure", "i8"),  # bits for the error register when the phase ends
        # the buffer
        ("position", "i8"),  # byte that the host reads or writes next
        ("block_end", "i8"),  # byte behind the block that DRQ offers
        ("held", "i8"),  # sectors in the buffer from the block's first on
        ("request", "i8"),
        ("request_lba", "i8"),
        ("request_count", "i8"),
        ("dma_outcome", "i8"),
        # time, in ticks
        ("command_ticks", "i8"),
        ("sector_ticks", "i8"),
        ("reset_ticks", "i8"),
        # bus master
        ("master_enabled", "i8"),  # the PCI function's Bus Master Enable, set by whoever decodes its command register
        ("master_command", "i8"),
        ("master_status", "i8"),
        ("master_table", "i8"),  # address of the physical region descriptors
        ("buffer", "u1", BUFFER_BYTES),
    ]
)


IDE = np.dtype(
    [
        ("channels", IDE_CHANNEL, 2),  # primary, secondary
        ("irq", "i8", 2),  # level of each channel's interrupt line
        ("deadline", "i8"),  # the earlier one of the channels
        ("asks_host", "i8"),  # 1: a channel's request waits for an answer
        ("moved", "i8"),  # 1: one of these may have changed, until the board has looked
    ]
)


@kernel
def ticks_of(nanoseconds, ticks_per_second):
    """Ticks that a duration of less than a second takes, rounded up."""
    return (nanoseconds * (ticks_per_second // 1000) + 999_999) // 1_000_000


@inline
def selected_drive(channel):
    """The drive that DEV names."""
    return channel.drives[channel.selected]


@inline
def channel_busy(channel):
    """Whether BSY or DRQ is set: the host may not write to the task file then."""
    return channel.phase != PHASE_IDLE


@inline
def drive_status(channel, drive):
    """The status register of a drive that is there."""
    if channel.phase == PHASE_IDLE:
        return drive.status
    if channel.phase == PHASE_DATA_IN or channel.phase == PHASE_DATA_OUT:
        return drive.status | STATUS_DRQ
    return drive.status | STATUS_BSY


@kernel
def follow_interrupt(channel):
    """Drive INTRQ: the selected drive's, unless nIEN releases it. The bus master notes when it rises."""
    drive = channel.drives[channel.selected]
    level = drive.present & drive.interrupt
    if channel.control & CONTROL_NIEN != 0:
        level = 0
    if level == 1 and channel.line == 0:
        channel.master_status |= MASTER_INTERRUPT
    channel.line = level


@kernel
def raise_interrupt(channel):
    """The selected drive asks for the host's attention."""
    selected_drive(channel).interrupt = 1
    follow_interrupt(channel)


@kernel
def clear_interrupt(channel):
    """The host has seen the selected drive's request."""
    selected_drive(channel).interrupt = 0
    follow_interrupt(channel)


@inline
def enter_phase(channel, phase, deadline):
    """Go on to another phase, which ends at a tick."""
    channel.phase = phase
    channel.deadline = deadline


@kernel
def ask_host(channel, request, lba, count):
    """Ask for sectors."""
    channel.request = request
    channel.request_lba = lba
    channel.request_count = count


# -- reset ------------------------------------------------------------------------------------------------------------


@kernel
def restore_settings(drive):
    """The settings of power on."""
    drive.cylinders = drive.default_cylinders
    drive.heads = max(drive.default_heads, 1)
    drive.track = max(drive.default_track, 1)
    drive.multiple = 0
    drive.transfer_mode = TRANSFER_MODE_DEFAULT
    drive.dma_mode = 0
    drive.write_cache = 1
    drive.look_ahead = 1


@kernel
def show_signature(drive):
    """What the task file holds after a reset and after EXECUTE DEVICE DIAGNOSTIC (section 9.12)."""
    drive.status = STATUS_READY
    drive.error = DIAGNOSTIC_PASSED
    drive.feature = 0
    drive.sector_count = 1
    drive.lba_low = 1
    drive.lba_mid = 0
    drive.lba_high = 0
    drive.device_register = 0
    drive.older_feature = 0
    drive.older_count = 0
    drive.older_low = 0
    drive.older_mid = 0
    drive.older_high = 0
    drive.interrupt = 0


@kernel
def forget_command(channel):
    """No command is in execution, nothing is asked for."""
    enter_phase(channel, PHASE_IDLE, NEVER)
    channel.command = 0
    channel.lba = 0
    channel.sectors_left = 0
    channel.block = 1
    channel.overhead = 0
    channel.failure = 0
    channel.position = 0
    channel.block_end = 0
    channel.held = 0
    channel.dma_outcome = DMA_EXACT
    ask_host(channel, REQUEST_NONE, 0, 0)


@kernel
def show_signatures(channel):
    """The end of a reset or diagnostic: both drives show their signature, device 0 is selected."""
    forget_command(channel)
    show_signature(channel.drives[0])
    show_signature(channel.drives[1])
    channel.selected = 0
    follow_interrupt(channel)


@kernel
def reset_channel(channel, ticks_per_second):
    """Power on. The drives that are there stay plugged in, and are ready at once."""
    channel.command_ticks = ticks_of(COMMAND_MICROSECONDS * 1000, ticks_per_second)
    channel.sector_ticks = ticks_of(SECTOR_NANOSECONDS, ticks_per_second)
    channel.reset_ticks = ticks_of(RESET_MICROSECONDS * 1000, ticks_per_second)
    channel.control = 0
    channel.line = 0
    channel.master_enabled = 0
    channel.master_command = 0
    channel.master_status = 0
    channel.master_table = 0
    for number in range(2):
        drive = channel.drives[number]
        restore_settings(drive)
        drive.reverts = 0
        drive.power = POWER_ACTIVE
    show_signatures(channel)
