"""Where a command begins and how many sectors it means: CHS, 28-bit and 48-bit addresses (ATA/ATAPI-6, section 6.2)."""

from .ide_state import DEVICE_LBA
from .jit import inline, kernel

NO_SUCH_SECTOR = -1  # a CHS address outside of the translation in use

READ_SECTORS_EXT = 0x24
READ_DMA_EXT = 0x25
READ_MULTIPLE_EXT = 0x29
WRITE_SECTORS_EXT = 0x34
WRITE_DMA_EXT = 0x35
WRITE_MULTIPLE_EXT = 0x39
READ_VERIFY_EXT = 0x42


@kernel
def is_extended(command):
    """Whether a command takes a 48-bit address."""
    if command == READ_SECTORS_EXT or command == READ_DMA_EXT or command == READ_MULTIPLE_EXT:
        return True
    if command == WRITE_SECTORS_EXT or command == WRITE_DMA_EXT or command == WRITE_MULTIPLE_EXT:
        return True
    return command == READ_VERIFY_EXT


@inline
def three_bytes(low, mid, high):
    """24 bits of an address."""
    return low | mid << 8 | high << 16


@kernel
def cylinder_address(drive):
    """The sector of a CHS address, NO_SUCH_SECTOR outside of the translation in use."""
    cylinder = drive.lba_mid | drive.lba_high << 8
    head = drive.device_register & 0x0F
    if cylinder >= drive.cylinders or head >= drive.heads or drive.lba_low == 0 or drive.lba_low > drive.track:
        return NO_SUCH_SECTOR
    return (cylinder * drive.heads + head) * drive.track + drive.lba_low - 1


@kernel
def first_sector(drive, extended):
    """The first sector that a command names, or NO_SUCH_SECTOR."""
    low = three_bytes(drive.lba_low, drive.lba_mid, drive.lba_high)
    if extended:
        return low | three_bytes(drive.older_low, drive.older_mid, drive.older_high) << 24
    if drive.device_register & DEVICE_LBA != 0:
        return low | (drive.device_register & 0x0F) << 24
    return cylinder_address(drive)


@kernel
def sectors_named(drive, extended):
    """How many sectors a command names: 0 stands for as many as the register cannot hold."""
    if extended:
        count = drive.sector_count | drive.older_count << 8
        if count == 0:
            count = 1 << 16
    else:
        count = drive.sector_count
        if count == 0:
            count = 1 << 8
    return count


@kernel
def store_cylinder_address(drive, lba):
    """Write a sector's CHS address to the task file."""
    cylinder = lba // (drive.heads * drive.track)
    rest = lba - cylinder * drive.heads * drive.track
    drive.lba_low = rest % drive.track + 1
    drive.lba_mid = cylinder & 0xFF
    drive.lba_high = (cylinder >> 8) & 0xFF
    drive.device_register = (drive.device_register & 0xF0) | (rest // drive.track & 0x0F)


@kernel
def store_address(drive, extended, lba):
    """Write a sector's address to the task file, in the form that the command used."""
    if not extended and drive.device_register & DEVICE_LBA == 0:
        store_cylinder_address(drive, lba)
        return
    drive.lba_low = lba & 0xFF
    drive.lba_mid = (lba >> 8) & 0xFF
    drive.lba_high = (lba >> 16) & 0xFF
    if extended:
        drive.older_low = (lba >> 24) & 0xFF
        drive.older_mid = (lba >> 32) & 0xFF
        drive.older_high = (lba >> 40) & 0xFF
    else:
        drive.device_register = (drive.device_register & 0xF0) | ((lba >> 24) & 0x0F)
