"""Where a hardware VMM keeps its control structures: places in its region of machine RAM (vmm/layout.py) that the translator
has under binary translation."""

EXIT_ENTRY = 0x0FE0  # behind the entries of the vectors that the VMM uses: where it goes on behind an exit
VMXON_REGION, VMCS_REGION, IO_BITMAPS, MSR_BITMAPS = 0x3A000, 0x3B000, 0x3C000, 0x3E000
GUEST_TABLES = 0x98000  # pages that a guest without paging of its own runs on (identity.py)
