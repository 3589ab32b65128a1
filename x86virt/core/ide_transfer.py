"""The protocols of commands in execution: blocks through the data register, DMA, and how commands end.

Source: ATA/ATAPI-6, section 9 (PIO data in 9.5, PIO data out 9.6, DMA 9.7, non-data 9.4). A block is one sector, or as many
as SET MULTIPLE MODE has set; each is followed (data out) or announced (data in) by an interrupt.
"""

from .ide_address import is_extended, store_address
from .ide_state import (
    DMA_EXACT,
    DMA_FAILED,
    DMA_LONGER,
    ERROR_IDNF,
    MASTER_ACTIVE,
    MASTER_ERROR,
    MASTER_TO_MEMORY,
    MOST_MULTIPLE,
    PHASE_BUSY,
    PHASE_DATA_IN,
    PHASE_DATA_OUT,
    PHASE_DIAGNOSTIC,
    PHASE_DMA,
    PHASE_DMA_WAIT,
    PHASE_FETCH,
    PHASE_RESET,
    PHASE_STALLED,
    PHASE_STORE,
    REQUEST_DMA_READ,
    REQUEST_DMA_WRITE,
    REQUEST_NONE,
    REQUEST_READ,
    REQUEST_WRITE,
    SECTOR_BYTES,
    STATUS_ERR,
    STATUS_READY,
    ask_host,
    enter_phase,
    forget_command,
    raise_interrupt,
    selected_drive,
    show_signatures,
)
from .jit import kernel
from .layout import NEVER

IDENTIFY_DEVICE = 0xEC
READ_DMA, READ_DMA_ONCE, READ_DMA_EXTENDED = 0xC8, 0xC9, 0x25

# -- ends -------------------------------------------------------------------------------------------------------------


@kernel
def fail_later(channel, error, now):
    """A command that cannot go on: it ends with these bits in the error register."""
    channel.failure = error
    enter_phase(channel, PHASE_BUSY, now + channel.overhead)


@kernel
def end_command(channel):
    """The command is over: status and error registers tell how. Whether there is an interrupt is the protocol's."""
    drive = selected_drive(channel)
    drive.error = channel.failure
    drive.status = STATUS_READY
    if channel.failure != 0:
        drive.status |= STATUS_ERR
    forget_command(channel)


@kernel
def end_of_sectors(channel):
    """All sectors were moved: the task file names the last of them, and none is left."""
    drive = selected_drive(channel)
    if channel.command != IDENTIFY_DEVICE:
        drive.sector_count = 0
        store_address(drive, is_extended(channel.command), channel.lba - 1)
    end_command(channel)


@kernel
def fail_beyond_capacity(channel, now):
    """A block reaches beyond the disk's last sector: IDNF, and the task file names the first sector not there."""
    drive = selected_drive(channel)
    channel.lba = max(channel.lba, drive.capacity)
    store_address(drive, is_extended(channel.command), channel.lba)
    fail_later(channel, ERROR_IDNF, now)


# -- PIO --------------------------------------------------------------------------------------------------------------


@kernel
def next_block(channel, now):
    """Sectors of the next block, 0 if not all of them are there: the command fails then."""
    n = min(channel.block, channel.sectors_left)
    if channel.command != IDENTIFY_DEVICE and channel.lba + n > selected_drive(channel).capacity:
        fail_beyond_capacity(channel, now)
        return 0
    return n


@kernel
def offer_block(channel, phase, sectors, first):
    """DRQ: the host may move a block, which begins at byte `first` of the buffer."""
    channel.position = first
    channel.block_end = first + sectors * SECTOR_BYTES
    enter_phase(channel, phase, NEVER)


@kernel
def fetch_block(channel, now):
    """Data in: have the next block in the buffer, where several blocks may be read at once."""
    n = next_block(channel, now)
    if n == 0:
        return
    first = channel.block_end
    if channel.held < n:
        there = selected_drive(channel).capacity - channel.lba
        channel.held = min(min(channel.sectors_left, MOST_MULTIPLE), there)
        ask_host(channel, REQUEST_READ, channel.lba, channel.held)
        first = 0
    channel.position = first
    channel.block_end = first + n * SECTOR_BYTES
    enter_phase(channel, PHASE_FETCH, now + channel.overhead + n * channel.sector_ticks)
    channel.overhead = 0


@kernel
def block_was_read(channel, now):
    """The host has read a block to its end. Behind the last one there is no interrupt."""
    n = min(channel.block, channel.sectors_left)
    channel.held -= n
    channel.sectors_left -= n
    channel.lba += n
    if channel.sectors_left == 0:
        end_of_sectors(channel)
    else:
        fetch_block(channel, now)


@kernel
def accept_block(channel, now):
    """Data out: offer the buffer for the next block; True if it is offered."""
    n = next_block(channel, now)
    if n == 0:
        return False
    offer_block(channel, PHASE_DATA_OUT, n, 0)
    return True


@kernel
def block_was_written(channel, now):
    """The host has written a block to its end: the drive stores it."""
    n = channel.block_end // SECTOR_BYTES
    ask_host(channel, REQUEST_WRITE, channel.lba, n)
    enter_phase(channel, PHASE_STORE, now + channel.overhead + n * channel.sector_ticks)
    channel.overhead = 0


@kernel
def block_is_stored(channel, now):
    """A block is on the disk: an interrupt, and the next block or the end."""
    n = channel.block_end // SECTOR_BYTES
    channel.sectors_left -= n
    channel.lba += n
    if channel.sectors_left == 0:
        end_of_sectors(channel)
        raise_interrupt(channel)
    elif accept_block(channel, now):
        raise_interrupt(channel)


# -- DMA --------------------------------------------------------------------------------------------------------------


@kernel
def reads_disk(command):
    """Whether a DMA command moves sectors from the disk to memory."""
    return command == READ_DMA or command == READ_DMA_ONCE or command == READ_DMA_EXTENDED


@kernel
def start_dma(channel, now):
    """Let the bus master serve the drive, once both are ready and agree in the direction."""
    if channel.phase != PHASE_DMA_WAIT or channel.master_status & MASTER_ACTIVE == 0 or channel.master_enabled == 0:
        return
    to_memory = reads_disk(channel.command)
    if to_memory != (channel.master_command & MASTER_TO_MEMORY != 0):
        return
    request = REQUEST_DMA_WRITE
    if to_memory:
        request = REQUEST_DMA_READ
    ask_host(channel, request, channel.lba, channel.sectors_left)
    enter_phase(channel, PHASE_DMA, now + channel.overhead + channel.sectors_left * channel.sector_ticks)
    channel.overhead = 0


@kernel
def end_dma(channel):
    """What the drive and the bus master say at the end (82371AB data sheet, table 15)."""
    outcome = channel.dma_outcome
    if outcome != DMA_LONGER:
        channel.master_status &= ~MASTER_ACTIVE
    if outcome == DMA_FAILED:
        channel.master_status |= MASTER_ERROR
    if outcome == DMA_EXACT or outcome == DMA_LONGER:
        channel.lba += channel.sectors_left
        end_of_sectors(channel)
        raise_interrupt(channel)
    else:
        enter_phase(channel, PHASE_STALLED, NEVER)


@kernel
def stop_dma(channel):
    """The host stops the bus master. It cannot go on later: a drive that was being served waits for a reset."""
    channel.master_status &= ~MASTER_ACTIVE
    if channel.phase == PHASE_DMA:
        enter_phase(channel, PHASE_STALLED, NEVER)


# -- time -------------------------------------------------------------------------------------------------------------


@kernel
def end_phase(channel):
    """The phase's time is over; the request that it made has been answered."""
    phase, now = channel.phase, channel.deadline
    if phase == PHASE_FETCH:
        enter_phase(channel, PHASE_DATA_IN, NEVER)
        raise_interrupt(channel)
    elif phase == PHASE_STORE:
        block_is_stored(channel, now)
    elif phase == PHASE_DMA:
        end_dma(channel)
    elif phase == PHASE_BUSY:
        end_command(channel)
        raise_interrupt(channel)
    elif phase == PHASE_RESET:
        show_signatures(channel)
    elif phase == PHASE_DIAGNOSTIC:
        show_signatures(channel)
        raise_interrupt(channel)


@kernel
def advance_channel(channel, now):
    """Bring a channel up to tick `now`. A phase whose request is not answered yet ends behind the answer."""
    if channel.deadline <= now and channel.request == REQUEST_NONE:
        end_phase(channel)
