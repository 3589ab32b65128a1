"""What lies at a physical address: RAM, ROM, registers of the processor's own bus, or nothing.

The byte array that the jitted code works on holds RAM, behind it the BIOS image and the expansion ROM of the VGA. A
*place* is an index into it; a RAM address is its own place. From the processor a PC looks like this (82441FX data sheet,
section 4; every region beyond RAM that is not named reads as ones and loses what is written):

    000C0000-000FFFFF  13 segments whose reads and writes go to RAM or to the bus behind it, as the PAM registers say;
                       on the bus E0000-FFFFF is the end of the BIOS image, C0000-DFFFF is empty
    where IA32_APIC_BASE says, the registers of the local APIC, in front of everything else; at FEC00000 the I/O APIC's
    where its BAR says the expansion ROM of the VGA, unless RAM is there
    up to FFFFFFFF     the BIOS image

A machine without firmware has RAM in all segments, as a BIOS would leave it. Whoever changes the map drops the front
caches. Decoded code is known by its place, so that a map which changes can bring no stale code to execution.
"""

from .jit import inline, kernel
from .tlb import drop_fetch_front, drop_front

BUS = 1 << 60  # BUS + physical address is the "place" of what is neither RAM nor ROM
TOP = 1 << 32
SHADOW_FIRST, SHADOW_END = 0xC0000, 0x100000
BIOS_ALIAS = 0xE0000  # where the last 128 KB of the BIOS image are seen again
SEGMENT_SHIFT = 14  # 16 KB; the 64 KB from F0000 are four of them that are switched together
ALL_SEGMENTS = 0xFFFF
PAM_READ, PAM_WRITE = 1, 2
PAM_ALL_RAM = 0x33333333333330  # all seven registers, 59 in the low byte: every segment is RAM
HOLE_SHADOW, HOLE_REGISTERS = 1, 2  # bits of cpu.holes: a segment is not RAM in both directions; the local APIC is in RAM


@kernel
def in_hole(cpu, physical):
    """Whether an address of RAM is hidden, for reads or writes, by something in front of it."""
    if physical >> 12 == cpu.apic.page:
        return True
    if physical >> 18 != SHADOW_FIRST >> 18:
        return False
    return ((cpu.pam_read & cpu.pam_write) >> ((physical >> SEGMENT_SHIFT) & 15)) & 1 == 0


@inline
def is_ram(cpu, physical):
    """Whether a physical address is RAM for reads and writes, and so its own place."""
    return physical <= cpu.ram_last and (cpu.holes == 0 or not in_hole(cpu, physical))


@kernel
def place_beside_ram(cpu, physical):
    """`place_to_read` for an address that `is_ram` does not vouch for."""
    if physical >> 12 == cpu.apic.page:
        return BUS + physical
    if SHADOW_FIRST <= physical < SHADOW_END:
        if physical <= cpu.ram_last and (cpu.pam_read >> ((physical >> SEGMENT_SHIFT) & 15)) & 1 != 0:
            return physical
        offset = physical - SHADOW_END + cpu.bios_bytes
        if physical >= BIOS_ALIAS and offset >= 0:
            return cpu.rom_first + offset
        return BUS + physical
    if physical < TOP and physical >= TOP - cpu.bios_bytes:
        return cpu.rom_first + physical - (TOP - cpu.bios_bytes)
    if cpu.vga_rom_address != 0 and cpu.vga_rom_address <= physical < cpu.vga_rom_address + cpu.vga_rom_bytes:
        return cpu.rom_first + cpu.bios_bytes + physical - cpu.vga_rom_address
    return BUS + physical


@inline
def place_to_read(cpu, physical):
    """Where a read of a physical address, or a fetch from it, finds its bytes; from BUS on, they are in no memory."""
    if is_ram(cpu, physical):
        return physical
    return place_beside_ram(cpu, physical)


@inline
def takes_writes(cpu, physical):
    """Whether RAM takes what is written to a physical address, which is its place then."""
    if is_ram(cpu, physical):
        return True
    in_shadow = physical <= cpu.ram_last and SHADOW_FIRST <= physical < SHADOW_END
    return in_shadow and physical >> 12 != cpu.apic.page and (cpu.pam_write >> ((physical >> SEGMENT_SHIFT) & 15)) & 1 != 0


# -- what changes the map ---------------------------------------------------------------------------------------------


@inline
def give_segments(cpu, segments, attributes):
    """Give segments (a mask) the attributes of one PAM field."""
    if attributes & PAM_READ != 0:
        cpu.pam_read |= segments
    if attributes & PAM_WRITE != 0:
        cpu.pam_write |= segments


@kernel
def refresh_map(cpu):
    """Take notice of a changed map: which RAM is hidden, and that no front cache may know better.

    82441FX data sheet, section 3.2.15: bits 5:4 of register 59 are for F0000-FFFFF; 5A to 5F have 16 KB from C0000 on in
    bits 1:0, and the next 16 KB in bits 5:4. `cpu.pam` holds the seven registers, 59 in its low byte.
    """
    cpu.pam_read = 0
    cpu.pam_write = 0
    give_segments(cpu, 0xF000, cpu.pam >> 4)
    for number in range(12):
        give_segments(cpu, 1 << number, cpu.pam >> (8 + 4 * number))
    cpu.holes = 0
    if cpu.pam_read & cpu.pam_write != ALL_SEGMENTS:
        cpu.holes = HOLE_SHADOW
    if 0 <= cpu.apic.page <= cpu.ram_last >> 12:
        cpu.holes |= HOLE_REGISTERS
    drop_front(cpu)
    drop_fetch_front(cpu)


@inline
def follow_host_bridge(cpu, pam, vga_rom_address):
    """What the host bridge and the VGA's configuration say by now: seven PAM registers, the place of the VGA's ROM or 0."""
    if pam != cpu.pam or vga_rom_address != cpu.vga_rom_address:
        cpu.pam = pam
        cpu.vga_rom_address = vga_rom_address
        refresh_map(cpu)
