"""What a BIOS leaves in low memory, for kernels that start without one: the BIOS data area."""

import struct

from .boot import LOW_END

BIOS_DATA_AREA = 0x400
EXTENDED_DATA_AREA = LOW_END
SERIAL_PORTS = (0x3F8, 0x2F8, 0, 0)
EQUIPMENT = 0x0426 | 1 << 1  # coprocessor, mouse, 80x25 colour, two serial ports


def bios_data() -> list[tuple[int, bytes]]:
    """The BIOS data area and the first byte of the extended one: ports, memory size, the screen's shape."""
    area = bytearray(0x100)
    struct.pack_into("<4H", area, 0x00, *SERIAL_PORTS)
    struct.pack_into("<H", area, 0x0E, EXTENDED_DATA_AREA >> 4)
    struct.pack_into("<H", area, 0x10, EQUIPMENT)
    struct.pack_into("<H", area, 0x13, EXTENDED_DATA_AREA >> 10)
    struct.pack_into("<BHH", area, 0x49, 3, 80, 80 * 25 * 2)
    struct.pack_into("<H", area, 0x63, 0x3D4)
    struct.pack_into("<BH", area, 0x84, 24, 16)
    return [(BIOS_DATA_AREA, bytes(area)), (EXTENDED_DATA_AREA, b"\x01")]
