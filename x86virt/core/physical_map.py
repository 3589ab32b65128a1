"""What lies at a physical address: RAM, ROM, registers of the processor's own bus, or nothing.

The byte array that the jitted code works on holds RAM, behind it the BIOS image and the expansion ROM of the VGA. A
*place* is an index into it; a RAM address is its own place. From the processor a PC looks like this (82441FX data sheet,
section 4; every region beyond RAM that is not named reads as ones and loses what is written):

    000C0000-000FFFFF  13 segments whose reads and writes go to RAM or to the bus behind it, as the PAM registers say;
                       on the bus E0000-FFFFF is the end of the BIOS image, C0000-DFFFF is empty
    where IA32_APIC_BASE says, the registers of the local APIC, in front of everything else; at FEC00000 the I/O APIC's
    where its BAR says the expansion ROM of the VGA, unless RAM is there
    up to FFFFFFFF     the BIOS image

The processor of a virtual machine may have a frame map (`cpu.frame_map`, a VMM's p2m in RAM): then a RAM address is not its own
place, and every access looks the place up. Its writes are logged by frame, for whoever keeps something derived from RAM.

A machine without firmware has RAM in all segments, as a BIOS would leave it. Whoever changes the map drops the front
caches. Decoded code is known by its place, so that a map which changes can bring no stale code to execution.
"""

from .jit import inline, kernel, load_8, load_32, store_8
from .layout import WRITTEN_FRAMES
from .tlb import drop_fetch_front, drop_front

BUS = 1 << 60  # BUS + physical address is the "place" of what is neither RAM nor ROM
TOP = 1 << 32
SHADOW_FIRST, SHADOW_END = 0xC0000, 0x100000
BIOS_ALIAS = 0xE0000  # where the last 128 KB of the BIOS image are seen again
SEGMENT_SHIFT = 14  # 16 KB; the 64 KB from F0000 are four of them that are switched together
ALL_SEGMENTS = 0xFFFF
PAM_READ, PAM_WRITE = 1, 2
PAM_ALL_RAM = 0x33333333333330  # all seven registers, 59 in the low byte: every segment is RAM
# Bits of cpu.holes: a segment is not RAM in both directions; the local APIC is in RAM; RAM lies where the frame map says.
HOLE_SHADOW, HOLE_REGISTERS, HOLE_MAPPED = 1, 2, 4


@kernel
def in_hole(cpu, physical):
    """Whether an address of RAM is hidden, for reads or writes, by something in front of it, or lies elsewhere."""
    if cpu.frame_map != 0:
        return True
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
def place_of_ram(cpu, ram, physical):
    """Where the bytes of a RAM address lie: there, or in the frame that the frame map names."""
    if cpu.frame_map == 0:
        return physical
    return load_32(ram, cpu.frame_map + (physical >> 12) * 4) << 12 | (physical & 0xFFF)


@inline
def is_shadow(physical):
    """Whether an address lies in the segments that the PAM registers rule."""
    return SHADOW_FIRST <= physical < SHADOW_END


@kernel
def place_beside_ram(cpu, ram, physical):
    """`place_to_read` for an address that `is_ram` does not vouch for."""
    if physical >> 12 == cpu.apic.page:
        return BUS + physical
    reads_ram = physical <= cpu.ram_last
    if is_shadow(physical) and (not reads_ram or (cpu.pam_read >> ((physical >> SEGMENT_SHIFT) & 15)) & 1 == 0):
        offset = physical - SHADOW_END + cpu.bios_bytes
        if physical >= BIOS_ALIAS and offset >= 0:
            return cpu.rom_first + offset
        return BUS + physical
    if reads_ram:
        return place_of_ram(cpu, ram, physical)
    if physical < TOP and physical >= TOP - cpu.bios_bytes:
        return cpu.rom_first + physical - (TOP - cpu.bios_bytes)
    if cpu.vga_rom_address != 0 and cpu.vga_rom_address <= physical < cpu.vga_rom_address + cpu.vga_rom_bytes:
        return cpu.rom_first + cpu.bios_bytes + physical - cpu.vga_rom_address
    return BUS + physical


@inline
def place_to_read(cpu, ram, physical):
    """Where a read of a physical address, or a fetch from it, finds its bytes; from BUS on, they are in no memory."""
    if is_ram(cpu, physical):
        return physical
    return place_beside_ram(cpu, ram, physical)


@kernel
def place_to_write_beside_ram(cpu, ram, physical):
    """`place_to_write` for an address that `is_ram` does not vouch for."""
    if physical > cpu.ram_last or physical >> 12 == cpu.apic.page:
        return BUS + physical
    if is_shadow(physical) and (cpu.pam_write >> ((physical >> SEGMENT_SHIFT) & 15)) & 1 == 0:
        return BUS + physical
    return place_of_ram(cpu, ram, physical)


@inline
def place_to_write(cpu, ram, physical):
    """Where RAM takes what is written to a physical address; from BUS on, no memory takes it."""
    if is_ram(cpu, physical):
        return physical
    return place_to_write_beside_ram(cpu, ram, physical)


# -- the log of writes through a frame map ------------------------------------------------------------------------------


@kernel
def log_write(cpu, ram, place):
    """Mark the frame of a place as written, and name it if it is among the first that are marked."""
    if cpu.write_log == 0 or load_8(ram, cpu.write_log + (place >> 12)) != 0:
        return
    store_8(ram, cpu.write_log + (place >> 12), 1)
    if cpu.written_count < WRITTEN_FRAMES:
        cpu.written[cpu.written_count] = place >> 12
    cpu.written_count += 1


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
    if cpu.frame_map != 0:
        cpu.holes |= HOLE_MAPPED
    drop_front(cpu)
    drop_fetch_front(cpu)


@inline
def follow_host_bridge(cpu, pam, vga_rom_address):
    """What the host bridge and the VGA's configuration say by now: seven PAM registers, the place of the VGA's ROM or 0."""
    if pam != cpu.pam or vga_rom_address != cpu.vga_rom_address:
        cpu.pam = pam
        cpu.vga_rom_address = vga_rom_address
        refresh_map(cpu)
