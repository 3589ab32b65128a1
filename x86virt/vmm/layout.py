"""Where the VMM of a software technique lives: the top 4 MB of the linear space, backed by machine RAM.

One declaration serves three readers: the Python handlers (NumPy records that view machine RAM), the processor (whose
GDT, IDT, TSS and stack these are), and the witness routines in NASM, whose include file `make guests` writes.

    linear 0xFFC00000   entries: one every 16 bytes, a vector each; the last one is SYSENTER's
           +0x001000    resume: the IRETD, and the STI;HLT of the idle VMM
           +0x002000    IDT          +0x003000 TSS          +0x004000 the vCPU record
           +0x005000    what is known of a VM exit, as the witness routines find it
           +0x006000    stack        +0x008000 page table of this region
           +0x010000    GDT: the guest's shadowed descriptors, the VMM's own at the end
           +0x009000    the translator's record, the stack of its callouts below +0x00C000, tables at +0x00C000
           +0x020000    witness routines and their data
           +0x030000    the translator's hash table
           +0x040000    translation cache; its notes at +0x070000. Where nothing is translated: the record of nested tables
           +0x0A0000    the translator's hash table for the guest's outer rings
           +0x0B0000    LDT: the guest's shadowed local descriptors
           +0x0C0000    reverse map: which linear page maps a guest frame writable
           +0x0D0000    virtual devices, as the witness routines keep them
           +0x0D4000    two page tables of this region, for a shadow in the format of PAE paging
           +0x0E0000    traced guest frames, one bit each
           +0x0F0000    the control record of the shadow, as the witness routines find it
           +0x100000    p2m: the machine frame of each guest frame, 4 bytes each
           +0x2E0000    the translator's own tables, as the witness routines find them (little guests leave this free)
           +0x300000    shadow page tables; the first page is the root
           +0x3C0000    windows onto guest frames
"""

import pathlib

import numpy as np

from ..core.layout import CPUID_CACHES, CPUID_EXTENDED, CPUID_ROWS

VMM_BASE = 0xFFC00000
VMM_BYTES = 0x400000
ENTRY_BYTES = 16
ENTRIES = 0x0000
SYSENTER_ENTRY = 0x1000 - ENTRY_BYTES
RESUME = 0x1000
IDLE = 0x1010
RESUME_TRANSLATED = 0x1020
IDT = 0x2000
TSS = 0x3000
VCPU_RECORD = 0x4000
EXIT_RECORD = 0x5000
STACK = 0x6000
STACK_TOP = 0x8000
REGION_TABLE = 0x8000
TRANSLATOR = 0x9000
CALLOUT_STACK_TOP = 0xC000 - 24  # above it there is room for the rest of a trap's frame: error code, EIP, CS, EFLAGS, ESP, SS
CALLOUT_ENTRY = 0x0FF8  # where a callout arrives that stays in the ring of translated code: between two entries
PORT_ENTRY = 0x0FFA  # and direct ones, which know what they do: a port is accessed
STORE_ENTRY = 0x0FFC  # a store to memory that is often traced
DIRECT_ENTRIES = (PORT_ENTRY, STORE_ENTRY)
DIRECT_SITE_BYTES = 16  # of what a direct callout goes by, behind which translated code goes on
OPERANDS_IN_DX = 1 << 24  # the operands of a direct callout: port or bytes, its kind
OPERANDS_OUT = 1 << 25
OPERANDS_IN_STACK = 1 << 26
OPERANDS_BYTES_SHIFT = 16
FLAG_TABLES = 0xC000  # 256 bytes, 256 doublewords, 256 bytes for rings 1 to 3: what POPF makes of bits 15:8 of its image
GDT = 0x10000
WITNESS = 0x20000
HASH = 0x30000
HASH_BYTES = 0x10000
CACHE = 0x40000
CACHE_BYTES = 0x30000
CACHE_NOTES = 0x70000
NESTED_RECORD = CACHE
OUTER_HASH = 0xA0000
LDT = 0xB0000
REVERSE = 0xC0000
REVERSE_ENTRIES = 8192  # of two doublewords: guest frame; linear page << 12 | generation
DEVICES = 0xD0000
REGION_TABLES_PAE = 0xD4000
TRACED = 0xE0000
SHADOW_CONTROL = 0xF0000
SHADOW_POINTERS = 0xFFFE0  # what the processor loads with CR3 where the shadow has the format of PAE paging
P2M = 0x100000
TRANSLATOR_TABLES = 0x2E0000
SITES = 0x2E1000
N_SITES = 2048  # of three doublewords: address, the guest's EIP, how its state is had; found by the address / 2
ENTRY_POINTS = 0x2E8000
N_ENTRY_POINTS = 4096  # of two doublewords: the guest's EIP, the address in the cache; found by the EIP
PLACES = 0x2F0000
N_PLACES = 5461  # of three doublewords as a site's, sorted by the address
SHADOW = 0x300000
SHADOW_PAGES = 192
WINDOWS = 0x3C0000
N_WINDOWS = 64

# Selectors of the VMM's own descriptors, at the end of its GDT.
GDT_ENTRIES = 8192
VMM_CODE_SELECTOR = 0xFFC0
VMM_DATA_SELECTOR = 0xFFC8
VMM_TSS_SELECTOR = 0xFFD0
# Segments that outlive their descriptor: those of the boot, and CS and SS after the guest changed its GDT below them.
DETACHED_CODE_SELECTOR = 0xFFE0
DETACHED_STACK_SELECTOR = 0xFFE8
BOOT_DATA_SELECTOR = 0xFFF0
TRANSLATED_CODE_SELECTOR = 0xFFD8
TRANSLATOR_DATA_SELECTOR = 0xFFF8
GUEST_GS_SELECTOR = 0xFFF0  # what the guest has in GS, for translated code that goes through it
FIRST_VMM_SELECTOR = VMM_CODE_SELECTOR
GUEST_ROM_BYTES = 1 << 20  # of machine RAM behind the guest's own, for its BIOS and the expansion ROM of its VGA
MAX_GUEST_BYTES = 0x7FC00000

TSS_BYTES = 104
TSS_ESP0, TSS_SS0, TSS_IO_MAP = 4, 8, 102

# Vectors that the VMM itself uses; a guest's INT n to them is emulated.
HOST_TIMER_VECTOR = 0xF0
CALLOUT_VECTOR = 0xF1
OWN_VECTORS = (HOST_TIMER_VECTOR, CALLOUT_VECTOR)
MAX_USER_CODE = 32  # ring 3 code descriptors of one guest

# The state of the virtual processor that the hardware does not hold, and what the last trap left.
VCPU = np.dtype(
    [
        ("cr0", "<u4"),
        ("cr2", "<u4"),
        ("cr3", "<u4"),
        ("cr4", "<u4"),
        ("cpl", "<u4"),
        ("interrupt_flag", "<u4"),  # 0 or 1
        ("iopl", "<u4"),
        ("interrupt_shadow", "<u4"),
        ("halted", "<u4"),
        ("gdtr_base", "<u4"),
        ("gdtr_limit", "<u4"),
        ("idtr_base", "<u4"),
        ("idtr_limit", "<u4"),
        ("ldtr", "<u4"),
        ("ldtr_base", "<u4"),
        ("ldtr_limit", "<u4"),
        ("ldtr_access", "<u4"),
        ("tr", "<u4"),
        ("tr_base", "<u4"),
        ("tr_limit", "<u4"),
        ("tr_access", "<u4"),
        ("sysenter_cs", "<u4"),
        ("sysenter_esp", "<u4"),
        ("sysenter_eip", "<u4"),
        ("tsc_offset", "<u4", 2),
        ("detached_cs", "<u4"),  # the guest's selector of a detached CS
        ("detached_ss", "<u4"),  # and of a detached SS
        ("shadow_next", "<u4"),  # next free page of the shadow pool
        ("dr", "<u4", 8),
        # a trap frame in flight: vector, error code, instruction length and bytes for the emulator
        ("trap_vector", "<u4"),
        ("trap_error", "<u4"),
        ("trap_gla", "<u4"),
        ("window_tags", "<u4", N_WINDOWS),  # guest frame + 1 behind each window, 0 none
        # what the Python handlers keep on the host's side, for the witness routines (witness_run.publish)
        ("guest_frames", "<u4"),  # length of the p2m
        ("installed_count", "<u4"),  # guest descriptors in the shadow
        ("user_code_count", "<u4"),  # of these, ring 3 code: its indices follow
        ("user_code", "<u4", MAX_USER_CODE),
        ("open_gates", "<u4", 8),  # vectors whose gate in the VMM's IDT has DPL 3, one bit each
        ("reverse_generation", "<u4"),  # 12 bits; entries of an older one are void
        ("pdpte", "<u4", 8),  # PAE paging: the page-directory-pointer entries that the last load of CR3 read
    ]
)


def vcpu_address(field: str) -> int:
    """The machine address of a field of the vCPU record."""
    assert VCPU.fields is not None
    return VCPU_RECORD + int(VCPU.fields[field][1])


# The virtual devices as a VMM keeps them in its own memory (names as in core/pic.py and core/pit.py).
PIC_STATE = ("irr", "isr", "imr", "lines", "ready", "expected_icw", "vector_offset", "cascade", "read_isr")
PIC = np.dtype([(name, "<u4") for name in (*PIC_STATE, "unusual")])  # unusual: a mode that the routines leave alone
PIT_STATE = ("access", "latched_count", "count_latched", "read_second")
PIT = np.dtype([(name, "<u4") for name in PIT_STATE])
CONSOLE_BYTES = 4096
DEVICE = np.dtype(
    [
        ("master", PIC),
        ("slave", PIC),
        ("pit", PIT, 3),
        ("post_code", "<u4"),
        ("unclaimed_reads", "<u4"),
        ("unclaimed_writes", "<u4"),
        ("pending", "<u4"),  # 1: the master asks for an interrupt
        ("console_length", "<u4"),
        ("console", "u1", CONSOLE_BYTES),
    ]
)

# What heads the translator's tables: whether there is one, and the context of the entry points.
TABLES = np.dtype([(name, "<u4") for name in ("translates", "context_cs", "context_iopl", "place_count")])
SITE_KINDS = ("sensitive_instruction", "open_window", "adapted_write")  # that the routines know, in their order

# Fields of the control structure (keys of isa/vmx.py) that a VMM on VMX or SVM has read or is to write, for the witness
# routines: bit n of `have` says that field n has been read, bit n of `changed` that it is to be written.
EXIT_FIELDS = (
    "exit_qualification", "guest_linear_address", "guest_physical_address", "vm_exit_instruction_length",
    "vm_exit_interruption_information", "vm_exit_interruption_error_code", "idt_vectoring_information",
    "idt_vectoring_error_code", "guest_rip", "guest_rsp", "guest_rflags", "guest_interruptibility_state", "guest_cr0",
    "guest_cr3", "guest_cr4", "cr0_read_shadow", "cr4_read_shadow", "vm_entry_interruption_information",
    "vm_entry_exception_error_code", "vm_entry_instruction_length", "primary_processor_based_vm_execution_controls",
    "guest_cs_base", "guest_segments",
)  # fmt: skip
N_MODEL_SPECIFIC = 8
EXIT = np.dtype(
    [
        ("reason", "<u4"),
        ("have", "<u4"),
        ("changed", "<u4"),
        *((name, "<u4") for name in EXIT_FIELDS),
        ("nested", "<u4"),  # 1: the guest's address space is its own affair (EPT, NPT)
        ("nested_root", "<u4"),  # machine address, which is a place in the region
        ("nested_levels", "<u4"),
        ("nested_next", "<u4"),  # page of the pool that is free next
        ("nested_rights", "<u4"),  # low bits of an entry that maps a page
        ("nested_table_rights", "<u4"),  # and of one that names a table
        ("space_changed", "<u4"),  # 1: a shadow must follow, whose paths are its own
        ("cpuid_highest", "<u4"),
        ("cpuid_repeats", "<u4"),
        ("cpuid_extended", "<u4"),  # highest extended leaf
        *((name, "<u4") for name in ("cr0_mask", "cr0_forced", "cr4_mask", "cr4_forced")),  # bits that are the VMM's
        ("identity_root", "<u4"),  # CR3 of a guest without paging
        ("model_specific", "<u4", (N_MODEL_SPECIFIC, 4)),  # number, low, high, whether any value may be written
        ("cpuid", "<u4", (CPUID_ROWS, 4)),
        ("segments", "<u4", (8, 4)),  # ES to GS, LDTR, TR: selector, base, limit, access rights
        ("hidden", "<u4", (8, 4)),  # what virtual-8086 mode takes the place of: access rights, and all of LDTR and TR
        ("bytes", "u1", 32),  # of the guest's instruction
    ]
)

INCLUDE = pathlib.Path(__file__).with_name("witness") / "vmm.inc"
NUMBERS = {
    "VMM_BASE": VMM_BASE, "IDT": IDT, "TSS": TSS, "VCPU_RECORD": VCPU_RECORD, "EXIT_RECORD": EXIT_RECORD,
    "STACK_TOP": STACK_TOP,
    "REGION_TABLE": REGION_TABLE, "GDT": GDT, "WITNESS": WITNESS, "P2M": P2M, "SHADOW": SHADOW,
    "SHADOW_PAGES": SHADOW_PAGES, "WINDOWS": WINDOWS, "N_WINDOWS": N_WINDOWS,
    "VMM_CODE_SELECTOR": VMM_CODE_SELECTOR, "VMM_DATA_SELECTOR": VMM_DATA_SELECTOR,
    "FIRST_VMM_SELECTOR": FIRST_VMM_SELECTOR, "HOST_TIMER_VECTOR": HOST_TIMER_VECTOR,
    "DETACHED_CODE_SELECTOR": DETACHED_CODE_SELECTOR, "DETACHED_STACK_SELECTOR": DETACHED_STACK_SELECTOR,
    "BOOT_DATA_SELECTOR": BOOT_DATA_SELECTOR, "MAX_USER_CODE": MAX_USER_CODE, "REVERSE": REVERSE,
    "REVERSE_ENTRIES": REVERSE_ENTRIES, "DEVICES": DEVICES, "TRACED": TRACED, "CONSOLE_BYTES": CONSOLE_BYTES,
    "SHADOW_CONTROL": SHADOW_CONTROL, "TRANSLATOR": TRANSLATOR, "TRANSLATOR_TABLES": TRANSLATOR_TABLES, "SITES": SITES,
    "N_SITES": N_SITES, "ENTRY_POINTS": ENTRY_POINTS, "N_ENTRY_POINTS": N_ENTRY_POINTS, "PLACES": PLACES,
    "CALLOUT_VECTOR": CALLOUT_VECTOR, "CALLOUT_STACK_TOP": CALLOUT_STACK_TOP,
    "TRANSLATED_CODE_SELECTOR": TRANSLATED_CODE_SELECTOR, "TRANSLATOR_DATA_SELECTOR": TRANSLATOR_DATA_SELECTOR,
    "GUEST_GS_SELECTOR": GUEST_GS_SELECTOR,
    "DIRECT_SITE_BYTES": DIRECT_SITE_BYTES, "OPERANDS_IN_DX": OPERANDS_IN_DX, "OPERANDS_OUT": OPERANDS_OUT,
    "OPERANDS_IN_STACK": OPERANDS_IN_STACK, "OPERANDS_BYTES_SHIFT": OPERANDS_BYTES_SHIFT,
    "N_MODEL_SPECIFIC": N_MODEL_SPECIFIC, "CPUID_CACHES": CPUID_CACHES, "CPUID_EXTENDED": CPUID_EXTENDED,
    "SYSENTER_ENTRY": SYSENTER_ENTRY, "PIC_BYTES": PIC.itemsize, "PIT_BYTES": PIT.itemsize,
}  # fmt: skip


def include_text() -> str:
    """The NASM include file: every number above, and the offsets of the records."""
    from ..isa.vmx import FIELDS
    from .shadow import records
    from .translation.record import RECORD

    names = ("N_BUCKETS", "MODE_PG", "MODE_WP", "MODE_PSE", "MODE_PGE", "READ_ONLY", "NO_MEMORY")
    shadow = {name: getattr(records, name) for name in names}
    shadow |= {"KIND_ROOT": records.ROOT, "PAGE_BYTES": records.SHADOW_PAGE.itemsize}
    lines = ["; GENERATED by `make guests` from x86virt/vmm/layout.py"]
    lines += [f"{name} equ {value:#x}" for name, value in (NUMBERS | shadow).items()]
    lines += [f"BIT_{name} equ {1 << number:#x}" for number, name in enumerate(EXIT_FIELDS)]
    encodings = {field.key: field.encoding for field in FIELDS} | {"guest_segments": 0}
    lines.append("%define FIELD_ENCODINGS " + ", ".join(f"{encodings[name]:#x}" for name in EXIT_FIELDS))
    rows = (("VCPU", VCPU), ("PIC", PIC), ("PIT", PIT), ("DEVICE", DEVICE), ("TRANSLATOR", RECORD), ("TABLES", TABLES))
    for prefix, record in (("EXIT", EXIT), *rows, ("CONTROL", records.CONTROL), ("PAGE", records.SHADOW_PAGE)):
        lines += [f"{prefix}_{name} equ {field[1]:#x}" for name, field in (record.fields or {}).items()]
    return "\n".join(lines) + "\n"
