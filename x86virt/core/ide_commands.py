"""The commands of an ATA disk: ATA/ATAPI-6, section 8, a function for each group.

General feature set, without the packet and other optional sets: what IDENTIFY DEVICE does not offer is aborted, PACKET and
DEVICE RESET among it.
"""

from .ide_address import (
    READ_DMA_EXT,
    READ_MULTIPLE_EXT,
    READ_SECTORS_EXT,
    READ_VERIFY_EXT,
    WRITE_DMA_EXT,
    WRITE_MULTIPLE_EXT,
    WRITE_SECTORS_EXT,
    first_sector,
    is_extended,
    sectors_named,
)
from .ide_state import (
    DEVICE_LBA,
    ERROR_ABRT,
    ERROR_IDNF,
    MOST_MULTIPLE,
    PHASE_BUSY,
    PHASE_DIAGNOSTIC,
    PHASE_DMA_WAIT,
    PHASE_FETCH,
    POWER_ACTIVE,
    POWER_IDLE,
    POWER_SLEEP,
    POWER_STANDBY,
    REQUEST_FLUSH,
    REQUEST_IDENTIFY,
    SECTOR_BYTES,
    STATUS_READY,
    TRANSFER_MODE_DEFAULT,
    ask_host,
    clear_interrupt,
    enter_phase,
    selected_drive,
)
from .ide_transfer import (
    IDENTIFY_DEVICE,
    READ_DMA,
    READ_DMA_ONCE,
    accept_block,
    fail_beyond_capacity,
    fail_later,
    fetch_block,
    start_dma,
)
from .jit import inline, kernel
from .layout import NEVER

RECALIBRATE = 0x10  # and 11h to 1Fh
READ_SECTORS, READ_SECTORS_ONCE = 0x20, 0x21
WRITE_SECTORS, WRITE_SECTORS_ONCE = 0x30, 0x31
READ_VERIFY, READ_VERIFY_ONCE = 0x40, 0x41
SEEK = 0x70  # and 71h to 7Fh
EXECUTE_DIAGNOSTIC = 0x90
INITIALIZE_PARAMETERS = 0x91
READ_MULTIPLE, WRITE_MULTIPLE, SET_MULTIPLE_MODE = 0xC4, 0xC5, 0xC6
WRITE_DMA, WRITE_DMA_ONCE = 0xCA, 0xCB
STANDBY_IMMEDIATE, IDLE_IMMEDIATE, STANDBY, IDLE, CHECK_POWER_MODE, SLEEP = 0xE0, 0xE1, 0xE2, 0xE3, 0xE5, 0xE6
OLD_POWER = 0x94  # 94h to 99h: the same as E0h to E6h in the first standards
FLUSH_CACHE, FLUSH_CACHE_EXT = 0xE7, 0xEA
SET_FEATURES = 0xEF

# SET FEATURES, by the features register (section 8.46)
ENABLE_WRITE_CACHE, DISABLE_WRITE_CACHE = 0x02, 0x82
SET_TRANSFER_MODE = 0x03
ENABLE_LOOK_AHEAD, DISABLE_LOOK_AHEAD = 0xAA, 0x55
ENABLE_REVERTING, DISABLE_REVERTING = 0xCC, 0x66
MOST_PIO_MODE, MOST_MULTIWORD_MODE, MOST_ULTRA_MODE = 4, 2, 2


@kernel
def end_later(channel, now):
    """A command without data that succeeds."""
    enter_phase(channel, PHASE_BUSY, now + channel.overhead)


@kernel
def abort(channel, now):
    """A command that the drive does not have, or with parameters that it does not take."""
    fail_later(channel, ERROR_ABRT, now)


# -- commands that move or name sectors -------------------------------------------------------------------------------


@kernel
def reads_by_pio(command):
    """READ SECTORS and READ MULTIPLE, in all forms."""
    if command == READ_SECTORS or command == READ_SECTORS_ONCE or command == READ_SECTORS_EXT:
        return True
    return command == READ_MULTIPLE or command == READ_MULTIPLE_EXT


@kernel
def writes_by_pio(command):
    """WRITE SECTORS and WRITE MULTIPLE, in all forms."""
    if command == WRITE_SECTORS or command == WRITE_SECTORS_ONCE or command == WRITE_SECTORS_EXT:
        return True
    return command == WRITE_MULTIPLE or command == WRITE_MULTIPLE_EXT


@kernel
def uses_multiple(command):
    """Whether a command moves blocks of the size that SET MULTIPLE MODE has set."""
    if command == READ_MULTIPLE or command == READ_MULTIPLE_EXT:
        return True
    return command == WRITE_MULTIPLE or command == WRITE_MULTIPLE_EXT


@kernel
def uses_dma(command):
    """READ DMA and WRITE DMA, in all forms."""
    if command == READ_DMA or command == READ_DMA_ONCE or command == READ_DMA_EXT:
        return True
    return command == WRITE_DMA or command == WRITE_DMA_ONCE or command == WRITE_DMA_EXT


@kernel
def names_sectors(command):
    """Whether a command takes an address and a count."""
    if reads_by_pio(command) or writes_by_pio(command) or uses_dma(command):
        return True
    return command == READ_VERIFY or command == READ_VERIFY_ONCE or command == READ_VERIFY_EXT


@kernel
def start_dma_command(channel, now):
    """READ DMA and WRITE DMA: the drive asks for DMA if all sectors are there."""
    if channel.lba + channel.sectors_left > selected_drive(channel).capacity:
        fail_beyond_capacity(channel, now)
        return
    enter_phase(channel, PHASE_DMA_WAIT, NEVER)
    start_dma(channel, now)


@kernel
def verify(channel, now):
    """READ VERIFY SECTORS: a read without a transfer."""
    if channel.lba + channel.sectors_left > selected_drive(channel).capacity:
        fail_beyond_capacity(channel, now)
        return
    end_later(channel, now)


@kernel
def sector_command(channel, command, now):
    """A command with an address: 1. its form, 2. the address, 3. its protocol."""
    drive = selected_drive(channel)
    extended = is_extended(command)
    if extended and drive.device_register & DEVICE_LBA == 0:
        abort(channel, now)
        return
    if uses_multiple(command):
        if drive.multiple == 0:
            abort(channel, now)
            return
        channel.block = drive.multiple
    channel.lba = first_sector(drive, extended)
    if channel.lba < 0:
        fail_later(channel, ERROR_IDNF, now)
        return
    channel.sectors_left = sectors_named(drive, extended)
    drive.power = POWER_ACTIVE
    if reads_by_pio(command):
        fetch_block(channel, now)
    elif writes_by_pio(command):
        accept_block(channel, now)
    elif uses_dma(command):
        start_dma_command(channel, now)
    else:
        verify(channel, now)


@kernel
def seek(channel, now):
    """SEEK: the address must be there, nothing moves."""
    drive = selected_drive(channel)
    lba = first_sector(drive, False)
    if lba < 0 or lba >= drive.capacity:
        fail_later(channel, ERROR_IDNF, now)
        return
    drive.power = POWER_ACTIVE
    end_later(channel, now)


@kernel
def identify(channel, now):
    """IDENTIFY DEVICE: one block of data in."""
    channel.sectors_left = 1
    channel.held = 1
    channel.position = 0
    channel.block_end = SECTOR_BYTES
    ask_host(channel, REQUEST_IDENTIFY, 0, 1)
    enter_phase(channel, PHASE_FETCH, now + channel.overhead + channel.sector_ticks)


# -- settings ---------------------------------------------------------------------------------------------------------


@kernel
def initialize_parameters(channel, now):
    """INITIALIZE DEVICE PARAMETERS: the translation of CHS addresses."""
    drive = selected_drive(channel)
    heads = (drive.device_register & 0x0F) + 1
    track = drive.sector_count
    if track == 0:
        abort(channel, now)
        return
    drive.heads = heads
    drive.track = track
    drive.cylinders = min(drive.capacity // (heads * track), 0xFFFF)
    end_later(channel, now)


@kernel
def set_multiple(channel, now):
    """SET MULTIPLE MODE: a power of two up to the most; anything else disables READ and WRITE MULTIPLE."""
    drive = selected_drive(channel)
    count = drive.sector_count
    drive.multiple = 0
    if count > MOST_MULTIPLE or count & (count - 1) != 0:
        abort(channel, now)
        return
    drive.multiple = count
    end_later(channel, now)


@kernel
def is_transfer_mode(mode):
    """Whether SET FEATURES 03h may set a mode: PIO, multiword DMA or Ultra DMA."""
    kind, number = mode >> 3, mode & 7
    if kind == 0:
        return number <= 1
    if kind == 1:
        return number <= MOST_PIO_MODE
    if kind == 4:
        return number <= MOST_MULTIWORD_MODE
    return kind == 8 and number <= MOST_ULTRA_MODE


@kernel
def set_transfer_mode(channel, now):
    """SET FEATURES 03h: the mode of the sector count register."""
    drive = selected_drive(channel)
    mode = drive.sector_count
    if not is_transfer_mode(mode):
        abort(channel, now)
        return
    if mode >> 3 > 1:
        drive.dma_mode = mode
    elif mode >> 3 == 0:
        drive.transfer_mode = TRANSFER_MODE_DEFAULT
    else:
        drive.transfer_mode = mode
    end_later(channel, now)


@kernel
def set_features(channel, now):
    """SET FEATURES."""
    drive = selected_drive(channel)
    feature = drive.feature
    if feature == SET_TRANSFER_MODE:
        set_transfer_mode(channel, now)
        return
    if feature == ENABLE_WRITE_CACHE or feature == DISABLE_WRITE_CACHE:
        drive.write_cache = int(feature == ENABLE_WRITE_CACHE)
    elif feature == ENABLE_LOOK_AHEAD or feature == DISABLE_LOOK_AHEAD:
        drive.look_ahead = int(feature == ENABLE_LOOK_AHEAD)
    elif feature == ENABLE_REVERTING or feature == DISABLE_REVERTING:
        drive.reverts = int(feature == ENABLE_REVERTING)
    else:
        abort(channel, now)
        return
    end_later(channel, now)


# -- power ------------------------------------------------------------------------------------------------------------


@kernel
def power_command(command):
    """The power command that a command is, by its later number; 0 if it is none."""
    if OLD_POWER <= command <= OLD_POWER + 5:
        number = command - OLD_POWER
        if number >= 4:
            number += 1
        return STANDBY_IMMEDIATE + number
    if STANDBY_IMMEDIATE <= command <= IDLE or command == CHECK_POWER_MODE or command == SLEEP:
        return command
    return 0


@kernel
def change_power(channel, command, now):
    """STANDBY, IDLE, SLEEP, CHECK POWER MODE. No timer runs: a drive changes its mode only when it is told to."""
    drive = selected_drive(channel)
    if command == CHECK_POWER_MODE:
        drive.sector_count = drive.power
    elif command == SLEEP:
        drive.power = POWER_SLEEP
    elif command == STANDBY or command == STANDBY_IMMEDIATE:
        drive.power = POWER_STANDBY
    else:
        drive.power = POWER_IDLE
    end_later(channel, now)


# -- dispatch ---------------------------------------------------------------------------------------------------------


@kernel
def start_diagnostic(channel, now):
    """EXECUTE DEVICE DIAGNOSTIC: both drives do it; device 0 tells the result."""
    channel.drives[0].interrupt = 0
    channel.drives[1].interrupt = 0
    enter_phase(channel, PHASE_DIAGNOSTIC, now + channel.overhead)


@kernel
def setting_command(channel, command, now):
    """The commands that name no sectors to be moved."""
    if command == IDENTIFY_DEVICE:
        identify(channel, now)
    elif command == SET_FEATURES:
        set_features(channel, now)
    elif command == SET_MULTIPLE_MODE:
        set_multiple(channel, now)
    elif command == INITIALIZE_PARAMETERS:
        initialize_parameters(channel, now)
    elif command == FLUSH_CACHE or command == FLUSH_CACHE_EXT:
        ask_host(channel, REQUEST_FLUSH, 0, 0)
        end_later(channel, now)
    elif command & 0xF0 == RECALIBRATE:
        end_later(channel, now)
    elif command & 0xF0 == SEEK:
        seek(channel, now)
    elif power_command(command) != 0:
        change_power(channel, power_command(command), now)
    else:
        abort(channel, now)


@inline
def executes_nothing(channel):
    """Whether the selected drive takes no command: it is not there, or it sleeps."""
    drive = selected_drive(channel)
    return drive.present == 0 or drive.power == POWER_SLEEP


@kernel
def start_command(channel, command, now):
    """A write to the command register, while no command is in execution."""
    channel.overhead = channel.command_ticks
    if command == EXECUTE_DIAGNOSTIC and channel.drives[0].present | channel.drives[1].present != 0:
        channel.command = command
        start_diagnostic(channel, now)
        return
    if executes_nothing(channel):
        return
    clear_interrupt(channel)
    drive = selected_drive(channel)
    drive.status = STATUS_READY
    drive.error = 0
    channel.command = command
    channel.failure = 0
    channel.block = 1
    channel.held = 0
    channel.block_end = 0
    if names_sectors(command):
        sector_command(channel, command, now)
    else:
        setting_command(channel, command, now)
