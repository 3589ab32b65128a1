"""Where a paravirtual VMM keeps what it has: in the region of layout.py, in the places of what it needs not (shadows, caches).

Linear space:

    HYPERVISOR_VIRT_START     the machine-to-physical table, read-only, the last that a guest's segments reach
    PER_DOMAIN_START          what each domain has of its own: GDT (16 pages), LDT (16 pages)
    layout.VMM_BASE           the VMM's region, the same in every address space

The region:

    +0x009000    the record of the VMM (XEN)
    +0x010000    GDT: its last two pages hold the interface's flat segments and the VMM's own
    +0x040000    the records of the domains
    +0x050000    event channels, those of each domain
    +0x070000    the page table of each domain's own area, then those of the machine-to-physical table
    +0x080000    grants that are mapped
    +0x0A0000    the shared information page of each domain, and behind them the frames of each domain's grant table
    +0x0C0000    TSS, with the I/O permission map that is open to domain 0
    +0x0D0000    the VMM's entries of a directory, as each domain's directories have them
    +0x100000    the frame table: a FRAME for each machine frame
    +0x300000    the machine-to-physical table
"""

from .. import layout

XEN_RECORD = layout.TRANSLATOR
DOMAINS = layout.CACHE
N_DOMAINS = 3  # domain 0, the guest, and room for one more
CHANNELS = 0x50000
CHANNELS_BYTES = 0x10000
PER_DOMAIN_TABLES = 0x70000
PER_DOMAIN_TABLE_BYTES = 0x2000  # for each domain
MACHPHYS_TABLES = 0x78000
GRANT_TRACK = 0x80000
GRANT_TRACK_BYTES = 0x20000
SHARED_INFO = 0xA0000
GRANT_FRAMES = 0xA8000
N_GRANT_FRAMES = 4  # of a domain
TSS = 0xC0000
IO_MAP = 0x1000  # offset in the TSS
IO_MAP_BYTES = 0x2000
TSS_BYTES = IO_MAP + IO_MAP_BYTES + 1
CLOSED_IO_MAP = 0x8000  # beyond the TSS's limit
IRQ_VECTOR = 0xE0  # of line 0 of the machine's interrupt controllers
N_IRQS = 16
DIRECTORY_TEMPLATES = 0xD0000  # a page for each domain
FRAME_TABLE = layout.P2M
MACHPHYS = layout.SHADOW
MAX_FRAMES = 1 << 17  # of the machine: 512 MB

PER_DOMAIN_START = 0xFF800000
PER_DOMAIN_GDT = PER_DOMAIN_START
PER_DOMAIN_LDT = PER_DOMAIN_START + 0x10000

DOMAIN_0_BYTES = 8 << 20  # of machine RAM, behind the guest's RAM and ROM
