"""The registers of a VGA in text mode, ports 0x3B4 to 0x3DA, with the retrace of its screen in simulated time.

Source: IBM, Personal System/2 Hardware Interface Technical Reference, "Video Subsystem" (registers, video DAC, input
status). The registers store, with the bits and the protection that the manual names; what is drawn is the reader's
business: memory at 0xB8000, `crtc` for the start address (0Ch, 0Dh), the cursor (0Ah, 0Bh, 0Eh, 0Fh) and the size of
a character. The screen is always swept as in mode 3: 449 lines of 100 characters, 400 and 80 of them shown, 70 times a
second. Graphics memory has no planes. There is no Bochs VBE interface (ports 0x1CE, 0x1CF).
"""

import numpy as np

from .device_clock import clock_of_tick
from .jit import kernel

CHARACTER_HZ = 3_146_889  # 28.322 MHz / 9 dots
LINE_CHARACTERS = 100
SHOWN_CHARACTERS = 80
FRAME_LINES = 449
SHOWN_LINES = 400
RETRACE_FIRST, RETRACE_END = 412, 414  # lines of vertical retrace

CRTC_REGISTERS = 25
SEQUENCER_REGISTERS = 5
GRAPHICS_REGISTERS = 9
ATTRIBUTE_REGISTERS = 21
PALETTE_REGISTERS = 16

CRTC_RETRACE_END = 0x11
CRTC_OVERFLOW = 0x07
CRTC_PROTECTED = 0x80  # bit of CRTC_RETRACE_END: registers 0 to 7 are read-only, but for bit 4 of CRTC_OVERFLOW
CRTC_LINE_COMPARE = 0x10

MISCELLANEOUS_COLOUR = 0x01  # the CRTC is at 0x3D4, not 0x3B4
ATTRIBUTE_SHOWS = 0x20  # of the attribute address: the palette is the screen's

VGA = np.dtype(
    [
        ("miscellaneous", "i8"),
        ("feature_control", "i8"),
        ("crtc_address", "i8"),
        ("crtc", "u1", 32),
        ("sequencer_address", "i8"),
        ("sequencer", "u1", 8),
        ("graphics_address", "i8"),
        ("graphics", "u1", 16),
        ("attribute_address", "i8"),  # with bit 5
        ("attribute_second", "i8"),  # the flip-flop: 1: the next write is data
        ("attribute", "u1", 32),
        ("dac_mask", "i8"),
        ("dac_read", "i8"),  # next byte to be read: 3 * colour + component
        ("dac_write", "i8"),  # next byte to be written
        ("dac_state", "i8"),  # 3 after the read address was written, 0 after the write address
        ("dac", "u1", 768),
    ]
)


@kernel
def reset_vga(vga):
    """Power on: all registers 0, the CRTC in its colour place."""
    vga.miscellaneous = MISCELLANEOUS_COLOUR
    vga.feature_control = 0
    vga.crtc_address = 0
    vga.sequencer_address = 0
    vga.graphics_address = 0
    vga.attribute_address = 0
    vga.attribute_second = 0
    vga.dac_mask = 0xFF
    vga.dac_read = 0
    vga.dac_write = 0
    vga.dac_state = 0
    for number in range(32):
        vga.crtc[number] = 0
        vga.attribute[number] = 0
    for number in range(8):
        vga.sequencer[number] = 0
    for number in range(16):
        vga.graphics[number] = 0
    for number in range(768):
        vga.dac[number] = 0


# -- the screen -----------------------------------------------------------------------------------------------------


@kernel
def input_status_1(vga, now, ticks_per_second):
    """Bit 0: no picture is drawn now; bit 3: vertical retrace. Reading it makes the attribute flip-flop mean an address."""
    vga.attribute_second = 0
    character = clock_of_tick(now, CHARACTER_HZ, ticks_per_second) % (LINE_CHARACTERS * FRAME_LINES)
    line = character // LINE_CHARACTERS
    value = int(line >= SHOWN_LINES or character % LINE_CHARACTERS >= SHOWN_CHARACTERS)
    return value | int(RETRACE_FIRST <= line < RETRACE_END) << 3


# -- attribute controller -------------------------------------------------------------------------------------------


@kernel
def write_attribute(vga, value):
    """Port 0x3C0: address and data in turn. The palette can be written while it is not the screen's."""
    if vga.attribute_second == 0:
        vga.attribute_address = value & 0x3F
    else:
        number = vga.attribute_address & 0x1F
        palette = number < PALETTE_REGISTERS
        if number < ATTRIBUTE_REGISTERS and not (palette and vga.attribute_address & ATTRIBUTE_SHOWS != 0):
            vga.attribute[number] = value
    vga.attribute_second ^= 1


# -- DAC ------------------------------------------------------------------------------------------------------------


@kernel
def write_dac(vga, value):
    """Port 0x3C9: red, green and blue of one colour after the other, six bits each."""
    vga.dac[vga.dac_write] = value & 0x3F
    vga.dac_write = (vga.dac_write + 1) % 768


@kernel
def read_dac(vga):
    """Port 0x3C9."""
    value = np.int64(vga.dac[vga.dac_read])
    vga.dac_read = (vga.dac_read + 1) % 768
    return value


# -- CRTC -----------------------------------------------------------------------------------------------------------


@kernel
def write_crtc(vga, value):
    """A CRTC register."""
    number = vga.crtc_address
    if number >= CRTC_REGISTERS:
        return
    if number <= CRTC_OVERFLOW and np.int64(vga.crtc[CRTC_RETRACE_END]) & CRTC_PROTECTED != 0:
        if number == CRTC_OVERFLOW:
            kept = np.int64(vga.crtc[number]) & ~CRTC_LINE_COMPARE
            vga.crtc[number] = kept | (value & CRTC_LINE_COMPARE)
        return
    vga.crtc[number] = value


@kernel
def crtc_place(vga):
    """What the addresses of CRTC, feature control and input status 1 begin with: 0x3D0 or 0x3B0."""
    if vga.miscellaneous & MISCELLANEOUS_COLOUR != 0:
        return 0x3D0
    return 0x3B0


# -- ports ----------------------------------------------------------------------------------------------------------


@kernel
def write_crtc_port(vga, port, value):
    """0x3B4, 0x3B5, 0x3BA, or 0x3D4, 0x3D5, 0x3DA: those of the two that the miscellaneous register does not choose are
    not there."""
    if port & 0x3F0 != crtc_place(vga):
        return
    if port & 0xF == 4:
        vga.crtc_address = value & 0x1F
    elif port & 0xF == 5:
        write_crtc(vga, value)
    else:
        vga.feature_control = value


@kernel
def write_vga(vga, port, value):
    """A byte to a port of the VGA."""
    if port & 0x3F0 != 0x3C0:
        write_crtc_port(vga, port, value)
    elif port == 0x3C0:
        write_attribute(vga, value)
    elif port == 0x3C2:
        vga.miscellaneous = value
    elif port == 0x3C4:
        vga.sequencer_address = value & 7
    elif port == 0x3C5:
        if vga.sequencer_address < SEQUENCER_REGISTERS:
            vga.sequencer[vga.sequencer_address] = value
    elif port == 0x3C6:
        vga.dac_mask = value
    elif port == 0x3C7:
        vga.dac_read = 3 * value
        vga.dac_state = 3
    elif port == 0x3C8:
        vga.dac_write = 3 * value
        vga.dac_state = 0
    elif port == 0x3C9:
        write_dac(vga, value)
    elif port == 0x3CE:
        vga.graphics_address = value & 0xF
    elif port == 0x3CF and vga.graphics_address < GRAPHICS_REGISTERS:
        vga.graphics[vga.graphics_address] = value


@kernel
def read_crtc_port(vga, port, now, ticks_per_second):
    """0x3B4, 0x3B5, 0x3BA, or 0x3D4, 0x3D5, 0x3DA."""
    if port & 0x3F0 != crtc_place(vga):
        return 0xFF
    if port & 0xF == 4:
        return vga.crtc_address
    if port & 0xF == 5:
        return np.int64(vga.crtc[vga.crtc_address])
    return input_status_1(vga, now, ticks_per_second)


@kernel
def read_indexed(vga, port):
    """Addresses and data of attribute controller, sequencer and graphics controller."""
    if port == 0x3C0:
        return vga.attribute_address
    if port == 0x3C1:
        return np.int64(vga.attribute[vga.attribute_address & 0x1F])
    if port == 0x3C4:
        return vga.sequencer_address
    if port == 0x3C5:
        return np.int64(vga.sequencer[vga.sequencer_address])
    if port == 0x3CE:
        return vga.graphics_address
    return np.int64(vga.graphics[vga.graphics_address])


@kernel
def read_vga(vga, port, now, ticks_per_second):
    """A byte from a port of the VGA."""
    if port & 0x3F0 != 0x3C0:
        return read_crtc_port(vga, port, now, ticks_per_second)
    if port == 0x3C2:
        return 0x10  # input status 0: the comparator sees a monitor
    if port == 0x3C6:
        return vga.dac_mask
    if port == 0x3C7:
        return vga.dac_state
    if port == 0x3C8:
        return vga.dac_write // 3
    if port == 0x3C9:
        return read_dac(vga)
    if port == 0x3CA:
        return vga.feature_control
    if port == 0x3CC:
        return vga.miscellaneous
    if port <= 0x3C1 or port == 0x3C4 or port == 0x3C5 or port >= 0x3CE:
        return read_indexed(vga, port)
    return 0xFF
