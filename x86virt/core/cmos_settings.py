"""What firmware and kernels of a PC look up in CMOS memory: sizes of memory, equipment, disks, order of starting.

The places are those of the usual firmware, which others (SeaBIOS, Bochs) keep: equipment 14h, base memory 15h, extended
memory 17h and 30h, memory above 16 MB 34h and above 4 GB 5Bh, disks 12h and 19h to 2Ch, starting order 38h and 3Dh,
translation of disk addresses 39h, and the sum of 10h to 2Dh at 2Eh. Floppies (10h): none.
"""

import numpy as np

from .jit import kernel

DISK_TYPES = 0x12
EQUIPMENT = 0x14
BASE_MEMORY = 0x15
EXTENDED_MEMORY = 0x17
EXTENDED_DISK_TYPES = 0x19
DISK_GEOMETRY = 0x1B
CHECKSUM = 0x2E
EXTENDED_MEMORY_FOUND = 0x30
MEMORY_ABOVE_16_MB = 0x34
BOOT_THIRD = 0x38
DISK_TRANSLATION = 0x39
BOOT_ORDER = 0x3D

HAS_FPU = 0x02
USER_TYPE = 47  # a disk whose geometry stands in CMOS memory
GEOMETRY_BYTES = 9
NO_SIGNATURE_CHECK = 1  # of floppies
TRANSLATE_BY_SECTORS = 1
MOST_CYLINDERS = 1024  # that the firmware's interface can name


@kernel
def store_word(cmos, address, value):
    """Two bytes, least significant first, at most 65535."""
    value = min(max(value, 0), 0xFFFF)
    cmos.memory[address] = value & 0xFF
    cmos.memory[address + 1] = value >> 8


@kernel
def store_checksum(cmos):
    """The sum of bytes 10h to 2Dh, most significant byte first."""
    total = 0
    for address in range(0x10, CHECKSUM):
        total += np.int64(cmos.memory[address])
    cmos.memory[CHECKSUM] = (total >> 8) & 0xFF
    cmos.memory[CHECKSUM + 1] = total & 0xFF


@kernel
def store_machine(cmos, ram_bytes, first, second, third):
    """RAM, and what to start from in this order: 0 nothing, 1 floppy, 2 disk, 3 CD, 4 network."""
    store_word(cmos, BASE_MEMORY, min(ram_bytes >> 10, 640))
    store_word(cmos, EXTENDED_MEMORY, (ram_bytes >> 10) - 1024)
    store_word(cmos, EXTENDED_MEMORY_FOUND, (ram_bytes >> 10) - 1024)
    store_word(cmos, MEMORY_ABOVE_16_MB, (ram_bytes >> 16) - 256)
    cmos.memory[EQUIPMENT] = HAS_FPU
    cmos.memory[BOOT_ORDER] = second << 4 | first
    cmos.memory[BOOT_THIRD] = third << 4 | NO_SIGNATURE_CHECK
    store_checksum(cmos)


@kernel
def store_disk(cmos, drive, cylinders, heads, sectors):
    """The geometry of disk 0 or 1 of the primary channel. A larger one than the firmware can name is translated."""
    types = np.int64(cmos.memory[DISK_TYPES])
    place = DISK_GEOMETRY + GEOMETRY_BYTES * drive
    cmos.memory[DISK_TYPES] = types | 0xF0 >> (4 * drive)
    cmos.memory[EXTENDED_DISK_TYPES + drive] = USER_TYPE
    store_word(cmos, place, cylinders)
    cmos.memory[place + 2] = heads
    store_word(cmos, place + 3, 0xFFFF)  # no write precompensation
    cmos.memory[place + 5] = 0xC0 | int(heads > 8) << 3
    store_word(cmos, place + 6, cylinders)  # landing zone
    cmos.memory[place + 8] = sectors
    if cylinders > MOST_CYLINDERS:
        cmos.memory[DISK_TRANSLATION] = np.int64(cmos.memory[DISK_TRANSLATION]) | TRANSLATE_BY_SECTORS << (2 * drive)
    store_checksum(cmos)
