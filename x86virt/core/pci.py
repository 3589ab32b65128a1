"""PCI configuration space, by mechanism 1: CONFIG_ADDRESS at 0CF8h, CONFIG_DATA at 0CFCh.

Sources: PCI Local Bus Specification 3.0, sections 3.2.2.3.2 (mechanism 1), 6.1, 6.2 (header, base addresses) and 6.2.5.2
(expansion ROM); Intel 82441FX data sheet (PMC), section 3.2; Intel 82371SB (PIIX3), sections 2.2 and 2.3; Intel 82371AB
(PIIX4), section 7.1 (power management).

The functions are those of the usual virtual PC: host bridge 00:00.0, ISA bridge 00:01.0, IDE 00:01.1, power management
00:01.3, display 00:02.0. None of them uses an interrupt pin, so that the routing registers PIRQRC only store. Each byte
has a mask of the bits that software may write. Bits 31:16 of the base address of IDE are kept as written, unlike in the
data sheet: firmware takes the size of the window from all 32 bits. The ports that were always there (IDE, display) answer
whatever the command register says, as on virtual machines. DEVACTB.APMC_EN is set from the start: it tells firmware
that system management mode needs no setting up; there is none.
"""

import numpy as np

from .jit import kernel

HOST_BRIDGE, ISA_BRIDGE, IDE_FUNCTION, POWER_FUNCTION, DISPLAY = range(5)
N_FUNCTIONS = 5

COMMAND = 0x04
REVISION = 0x08
HEADER_TYPE = 0x0E
BUS_MASTER_BAR = 0x20
SUBSYSTEM_VENDOR = 0x2C
ROM_BAR = 0x30
INTERRUPT_LINE = 0x3C
INTERRUPT_PIN = 0x3D
IDE_TIMING = 0x40
POWER_BASE = 0x40
PAM = 0x59
PIRQ_ROUTES = 0x60
POWER_MISCELLANEOUS = 0x80

COMMAND_IO = 1
COMMAND_MEMORY = 2
COMMAND_MASTER = 4

PCI = np.dtype(
    [
        ("address", "i8"),  # CONFIG_ADDRESS
        ("space", "u1", (N_FUNCTIONS, 256)),
        ("writable", "u1", (N_FUNCTIONS, 256)),  # the bits that software may write
        # what other parts of the machine follow
        ("pam", "i8"),  # PAM0 to PAM6 of the host bridge, 59h in the lowest byte
        ("rom_window", "i8"),  # physical address of the display's expansion ROM, 0 while it is not decoded
        ("bus_master_base", "i8"),  # first port of the IDE bus master, 0 while it is not decoded
        ("power_base", "i8"),  # first port of power management, 0 while it is not decoded
    ]
)


@kernel
def set_bytes(pci, function, offset, n, value):
    """Give `n` bytes of a function's space their value, least significant first."""
    for number in range(n):
        pci.space[function, offset + number] = (value >> (8 * number)) & 0xFF


@kernel
def allow(pci, function, offset, n, bits):
    """Let software write these bits of `n` bytes."""
    for number in range(n):
        pci.writable[function, offset + number] = (bits >> (8 * number)) & 0xFF


@kernel
def allow_all(pci, function, first, end):
    """Let software write all bits of the bytes from `first` to before `end`."""
    for offset in range(first, end):
        pci.writable[function, offset] = 0xFF


@kernel
def identify(pci, function, device, vendor, class_code, revision):
    """Vendor, device, class code, revision; the subsystem is that of the usual virtual PC, which firmware looks for."""
    set_bytes(pci, function, 0, 4, device << 16 | vendor)
    set_bytes(pci, function, REVISION, 4, class_code << 8 | revision)
    set_bytes(pci, function, SUBSYSTEM_VENDOR, 4, 0x1100_1AF4)
    allow(pci, function, INTERRUPT_LINE, 1, 0xFF)


@kernel
def reset_host_bridge(pci):
    """82441FX: memory accesses below 1 MB go to the bus (PAM 0)."""
    identify(pci, HOST_BRIDGE, 0x1237, 0x8086, 0x060000, 2)
    set_bytes(pci, HOST_BRIDGE, COMMAND, 4, 0x0280_0006)
    allow(pci, HOST_BRIDGE, COMMAND, 2, 0x0100)
    allow(pci, HOST_BRIDGE, 0x0D, 1, 0xF8)
    allow(pci, HOST_BRIDGE, 0x50, 2, 0xFFFF)  # PMC configuration
    allow(pci, HOST_BRIDGE, PAM, 1, 0x30)
    allow(pci, HOST_BRIDGE, PAM + 1, 6, 0x3333_3333_3333)
    allow_all(pci, HOST_BRIDGE, 0x60, 0x68)  # DRAM row boundaries
    set_bytes(pci, HOST_BRIDGE, 0x72, 1, 0x02)  # SMRAM
    allow(pci, HOST_BRIDGE, 0x72, 1, 0x78)


@kernel
def reset_isa_bridge(pci):
    """82371SB function 0: the first of several functions."""
    identify(pci, ISA_BRIDGE, 0x7000, 0x8086, 0x060100, 0)
    set_bytes(pci, ISA_BRIDGE, COMMAND, 4, 0x0200_0007)
    allow(pci, ISA_BRIDGE, COMMAND, 2, 0x0108)
    set_bytes(pci, ISA_BRIDGE, HEADER_TYPE, 1, 0x80)
    set_bytes(pci, ISA_BRIDGE, 0x4C, 4, 0x0003_004D)  # I/O recovery, chip select
    allow(pci, ISA_BRIDGE, 0x4C, 1, 0xFF)
    allow(pci, ISA_BRIDGE, 0x4E, 2, 0xFFFF)
    set_bytes(pci, ISA_BRIDGE, PIRQ_ROUTES, 4, 0x8080_8080)  # not routed
    allow(pci, ISA_BRIDGE, PIRQ_ROUTES, 4, 0x8F8F_8F8F)
    set_bytes(pci, ISA_BRIDGE, 0x69, 1, 0x02)  # top of memory
    allow(pci, ISA_BRIDGE, 0x69, 1, 0xFE)
    set_bytes(pci, ISA_BRIDGE, 0x70, 1, 0x80)
    allow(pci, ISA_BRIDGE, 0x70, 1, 0xEF)
    set_bytes(pci, ISA_BRIDGE, 0x76, 4, 0x0002_0C0C)
    allow(pci, ISA_BRIDGE, 0x76, 4, 0xFFFF_8F8F)
    allow(pci, ISA_BRIDGE, 0x80, 1, 0x7F)
    allow(pci, ISA_BRIDGE, 0x82, 1, 0x0F)
    set_bytes(pci, ISA_BRIDGE, 0xA0, 1, 0x08)
    allow(pci, ISA_BRIDGE, 0xA0, 8, 0xFFFF_FFFF_FFFF)
    set_bytes(pci, ISA_BRIDGE, 0xA8, 1, 0x0F)
    allow(pci, ISA_BRIDGE, 0xA8, 8, 0xFF_00FF_00FF_FFFF)


@kernel
def reset_ide_function(pci):
    """82371SB function 1: ports in their legacy places, a bus master by base address 4."""
    identify(pci, IDE_FUNCTION, 0x7010, 0x8086, 0x010180, 0)
    set_bytes(pci, IDE_FUNCTION, COMMAND, 4, 0x0280_0000)
    allow(pci, IDE_FUNCTION, COMMAND, 2, 0x0005)
    allow(pci, IDE_FUNCTION, 0x0D, 1, 0xF0)
    set_bytes(pci, IDE_FUNCTION, BUS_MASTER_BAR, 4, 1)
    allow(pci, IDE_FUNCTION, BUS_MASTER_BAR, 4, 0xFFFF_FFF0)
    allow(pci, IDE_FUNCTION, IDE_TIMING, 5, 0xFF_F3FF_F3FF)


@kernel
def reset_power_function(pci):
    """82371AB function 3. The device monitor registers say which serial ports there are."""
    identify(pci, POWER_FUNCTION, 0x7113, 0x8086, 0x068000, 3)
    set_bytes(pci, POWER_FUNCTION, COMMAND, 4, 0x0280_0000)
    allow(pci, POWER_FUNCTION, COMMAND, 2, 0x0001)
    set_bytes(pci, POWER_FUNCTION, INTERRUPT_PIN, 1, 1)
    set_bytes(pci, POWER_FUNCTION, POWER_BASE, 4, 1)
    allow(pci, POWER_FUNCTION, POWER_BASE, 4, 0xFFC0)
    allow_all(pci, POWER_FUNCTION, 0x44, 0x80)  # device monitors
    set_bytes(pci, POWER_FUNCTION, 0x5B, 1, 0x02)  # DEVACTB: APMC_EN
    set_bytes(pci, POWER_FUNCTION, 0x5F, 1, 0x10)
    set_bytes(pci, POWER_FUNCTION, 0x63, 1, 0x60)
    set_bytes(pci, POWER_FUNCTION, 0x67, 1, 0x98)
    allow(pci, POWER_FUNCTION, POWER_MISCELLANEOUS, 1, 0x01)
    set_bytes(pci, POWER_FUNCTION, 0x90, 4, 1)  # SMBus base
    allow(pci, POWER_FUNCTION, 0x90, 4, 0xFFF0)
    allow(pci, POWER_FUNCTION, 0xD2, 4, 0xFFFF_FF0F)


@kernel
def reset_display(pci):
    """A VGA of which only the expansion ROM, 64 KB, has a base address."""
    identify(pci, DISPLAY, 0x1111, 0x1234, 0x030000, 2)
    allow(pci, DISPLAY, COMMAND, 2, 0x0007)
    allow(pci, DISPLAY, ROM_BAR, 4, 0xFFFF_0001)


@kernel
def reset_pci(pci):
    """Power on, or RST#: every function as its data sheet has it."""
    pci.address = 0
    for function in range(N_FUNCTIONS):
        for offset in range(256):
            pci.space[function, offset] = 0
            pci.writable[function, offset] = 0
    reset_host_bridge(pci)
    reset_isa_bridge(pci)
    reset_ide_function(pci)
    reset_power_function(pci)
    reset_display(pci)
    follow_registers(pci)


@kernel
def configure_as_firmware(pci, pam):
    """What firmware writes before it gives control away, where the usual one does; `pam` is the host bridge's PAM registers.

    Both channels of IDE decoded, its bus master at 0xC000, power management at 0xB000 with interrupt 9, interrupts of
    PCI slots routed to 10 and 11, the display's ports and memory enabled.
    """
    set_bytes(pci, HOST_BRIDGE, PAM, 7, pam)
    set_bytes(pci, ISA_BRIDGE, PIRQ_ROUTES, 4, 0x0B0B_0A0A)
    set_bytes(pci, IDE_FUNCTION, COMMAND, 1, COMMAND_IO | COMMAND_MASTER)
    set_bytes(pci, IDE_FUNCTION, BUS_MASTER_BAR, 4, 0xC001)
    set_bytes(pci, IDE_FUNCTION, IDE_TIMING, 4, 0x8000_8000)
    set_bytes(pci, POWER_FUNCTION, COMMAND, 1, COMMAND_IO)
    set_bytes(pci, POWER_FUNCTION, POWER_BASE, 4, 0xB001)
    set_bytes(pci, POWER_FUNCTION, POWER_MISCELLANEOUS, 1, 1)
    set_bytes(pci, POWER_FUNCTION, INTERRUPT_LINE, 1, 9)
    set_bytes(pci, DISPLAY, COMMAND, 1, COMMAND_IO | COMMAND_MEMORY)
    follow_registers(pci)


# -- what follows from the registers --------------------------------------------------------------------------------


@kernel
def register_32(pci, function, offset):
    """Four bytes of a function's space as a number."""
    value = 0
    for number in range(4):
        value |= np.int64(pci.space[function, offset + number]) << (8 * number)
    return value


@kernel
def decoded_base(value, enabled, most):
    """A base address if its space is enabled and it lies within 1 to `most`; else 0."""
    if enabled == 0 or value > most:
        return 0
    return value


@kernel
def follow_registers(pci):
    """Recompute what other parts of the machine take from configuration space."""
    pci.pam = register_32(pci, HOST_BRIDGE, PAM) | (register_32(pci, HOST_BRIDGE, PAM + 4) & 0xFF_FFFF) << 32
    display = register_32(pci, DISPLAY, COMMAND) & COMMAND_MEMORY
    rom = register_32(pci, DISPLAY, ROM_BAR)
    pci.rom_window = decoded_base(rom & 0xFFFF_0000, int(display != 0 and rom & 1 != 0), 0xFFFF_0000)
    ide = register_32(pci, IDE_FUNCTION, COMMAND) & COMMAND_IO
    base_4 = register_32(pci, IDE_FUNCTION, BUS_MASTER_BAR)
    pci.bus_master_base = decoded_base(base_4 & 0xFFFF_FFF0, ide, 0xFFF0)
    base = register_32(pci, POWER_FUNCTION, POWER_BASE)
    pci.power_base = decoded_base(base & 0xFFC0, register_32(pci, POWER_FUNCTION, POWER_MISCELLANEOUS) & 1, 0xFFC0)


# -- access ---------------------------------------------------------------------------------------------------------


@kernel
def selected_function(pci):
    """The function that CONFIG_ADDRESS names, -1 if it is not enabled or there is none."""
    address = pci.address
    if address & 0x8000_0000 == 0 or address & 0x00FF_0000 != 0:
        return -1
    place = (address >> 8) & 0xFF  # device and function
    if place == 0:
        return HOST_BRIDGE
    if place == 1 << 3:
        return ISA_BRIDGE
    if place == 1 << 3 | 1:
        return IDE_FUNCTION
    if place == 1 << 3 | 3:
        return POWER_FUNCTION
    if place == 2 << 3:
        return DISPLAY
    return -1


@kernel
def configuration_read(pci, byte, n):
    """Read `n` bytes of CONFIG_DATA from its byte 0 to 3; all ones where there is no function."""
    function = selected_function(pci)
    if function < 0:
        return (1 << (8 * n)) - 1
    offset = (pci.address & 0xFC) + byte
    value = 0
    for number in range(n):
        value |= np.int64(pci.space[function, (offset + number) & 0xFF]) << (8 * number)
    return value


@kernel
def configuration_write(pci, byte, n, value):
    """Write `n` bytes of CONFIG_DATA from its byte 0 to 3."""
    function = selected_function(pci)
    if function < 0:
        return
    offset = (pci.address & 0xFC) + byte
    for number in range(n):
        place = (offset + number) & 0xFF
        writable = np.int64(pci.writable[function, place])
        kept = np.int64(pci.space[function, place]) & ~writable
        pci.space[function, place] = kept | ((value >> (8 * number)) & writable)
    follow_registers(pci)


@kernel
def address_write(pci, value):
    """CONFIG_ADDRESS: only a whole doubleword reaches it; bits 30:24 and 1:0 are reserved and read as 0."""
    pci.address = value & 0x80FF_FFFC
