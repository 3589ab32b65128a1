"""The processor from Python: its arrays, reset, the profile's geometry, and one call into the jitted loop."""

from collections.abc import Iterable, Iterator

import numpy as np

from .core import layout
from .core.board import BOARD
from .core.code_layout import BLOCK, BLOCK_UOPS, CODE, DETAIL, FIRST_BLOCK, MAX_BLOCKS, MAX_UOPS, UOP
from .core.device_entries import device_restart, devices_as_firmware_left_them
from .core.entries import (
    enter_level,
    look_up,
    note_write,
    offered_cr4,
    place_of,
    refresh_memory_map,
    refresh_segment,
    reset_apics,
    reset_devices,
    settle_all,
    writable_place_of,
    write_debug_register,
)
from .core.layout import CPU, N_TLB_TAGS, NESTED_OFF, NEVER, ROOT
from .core.physical_map import BUS, PAM_ALL_RAM, SHADOW_END, SHADOW_FIRST
from .core.run import run
from .identity import load_identity, reset_model_specific
from .isa.events import MODE_GUEST_KERNEL, MODE_GUEST_USER, TICKS_PER_CYCLE
from .isa.registers import (
    AR_DB,
    AR_G,
    AR_P,
    AR_S,
    AR_UNUSABLE,
    CR0_CD,
    CR0_ET,
    CR0_NW,
    CR0_PE,
    CR4_PAE,
    CS,
    EDX,
    EFLAGS_FIXED,
    FEATURE_PSE_36,
    LDTR,
    N_SEGMENTS,
    PDE_4M_RESERVED,
    TR,
    TYPE_LDT,
    TYPE_TSS_32_BUSY,
    X87_CONTROL_INITIAL,
)
from .isa.vmx import VMX_BASIC, VMX_CR4_FIXED1
from .ledger import Ledger
from .profile import Profile
from .records import record_array, zeroed

PAGE_BYTES = 4096
CODE_MASK_BYTES = 4  # behind RAM and ROM, one mask of decoded code per page; then a byte per page of RAM, its owner
BIOS_UNIT, LARGEST_BIOS = 64 << 10, 16 << 20
VGA_ROM_WINDOW = 64 << 10
FLAT_CODE = AR_S | AR_P | AR_DB | AR_G | 0xB
FLAT_DATA = AR_S | AR_P | AR_DB | AR_G | 0x3
REAL_MODE_SEGMENT = AR_S | AR_P | 0x3
VECTOR_TABLE_LIMIT = 0x3FF  # of real-address mode: 256 entries of four bytes

# The profile keys of each TLB unit, in the order of core/layout.py: entries, ways.
TLB_KEYS = (
    ("tlb.dtlb_4k_l1_entries", "tlb.dtlb_4k_l1_ways"),
    ("tlb.dtlb_large_entries", "tlb.dtlb_large_ways"),
    ("tlb.dtlb_4k_l2_entries", "tlb.dtlb_4k_l2_ways"),
    ("tlb.itlb_4k_entries", "tlb.itlb_4k_ways"),
    ("tlb.itlb_large_entries", "tlb.itlb_large_ways"),
    ("tlb.itlb_4k_l2_entries", "tlb.itlb_4k_l2_ways"),
)
# What nested walks have, by field of the processor's record of them.
NESTED_KEYS = {
    "has_tags": "feature.tlb_vm_tag",
    "execute_only": "feature.vmx_ept_execute_only",
    "pages_2m": "feature.vmx_ept_2mb_pages",
    "pages_1g": "feature.vmx_ept_1gb_pages",
    "page_entries": "tlb.nested_entries",
    "table_entries": "tlb.nested_table_entries",
}
CACHE_KEYS = (("cache.l1d_kb", "cache.l1d_ways"), ("cache.l2_kb", "cache.l2_ways"), ("cache.l3_kb", "cache.l3_ways"))


# Fields of the CPU record that only serve speed, or that hold something within one call alone.
HOST_FIELDS = (
    "front_read", "front_write", "front_fetch", "read_addend", "write_addend", "fetch_addend", "context", "context_of_level",
    "context_count", "contexts", "code_write_count", "code_writes", "in_block", "uop_index", "flush_code", "rmw_first",
    "rmw_split", "rmw_second", "probe_known", "probe_sites", "front_generation", "fetch_generation", "pam_read",
    "pam_write", "holes", "written_count", "written", "code_place",
)  # fmt: skip
# What a reset line leaves as it is: the limits of the run, which are not the machine's.
RUN_LIMITS = ("budget", "retired_limit", "hook_first", "hook_last", "hook_level")
# What a reset clears besides what every start sets (SDM volume 3, table 9-1).
RESET_TO_ZERO = (
    "dr", "sysenter_cs", "sysenter_esp", "sysenter_eip", "performance_select", "performance_start", "timer_pending",
    "begun", "flag_carry", "mark", "fpu_status", "fpu_occupied", "fpu_instruction", "fpu_instruction_selector",
    "fpu_operand", "fpu_operand_selector", "fpu_opcode",
)  # fmt: skip
# Fields of a debugger outside the machine (core/stops.py): no part of a machine's state.
DEBUGGER_FIELDS = (
    "stop_count", "stops", "stop_deliveries", "stop_notes", "stop_end_retired", "stop_end_ticks", "stop_met",
    "stop_met_at", "stop_number", "stop_address",
    "stop_retired", "stop_ticks", "stop_passed", "stop_passed_retired",
)  # fmt: skip


def debugger_bytes(state: np.ndarray) -> np.ndarray:
    """The DEBUGGER_FIELDS of a processor's record, which lie together, as one view of bytes."""
    assert CPU.fields is not None
    first = CPU.fields[DEBUGGER_FIELDS[0]][1]
    octets = sum(CPU.fields[name][0].itemsize for name in DEBUGGER_FIELDS)
    assert CPU.fields[DEBUGGER_FIELDS[-1]][1] + 8 == first + octets
    return state.view(np.ndarray).view(np.uint8)[first : first + octets]


class Processor:
    """One processor with its RAM and board.

    `ram_bytes` is the size of RAM, a multiple of a page. The arrays are shared with the jitted code: `cpu` and `board`
    are records that read and write through. `spare_bytes` at the end of the array are for a VMM's interpreter.
    """

    def __init__(self, profile: Profile, ram_bytes: int, cache_model: str = "tables", spare_bytes: int = 0) -> None:
        self.profile = profile
        self.ram_bytes = ram_bytes
        self.rom_bytes = 0
        self.spare_bytes = spare_bytes
        self.boards = record_array(BOARD)
        self.memory = self._empty_memory()
        self._make_records(cache_model)
        self._load_profile()
        self.reset()

    def _make_records(self, cache_model: str) -> None:
        """The records and arrays that the jitted code works on, beside memory and board."""
        self.state = record_array(CPU)
        self.codes = record_array(CODE)
        self.blocks = record_array(BLOCK, MAX_BLOCKS)
        self.uops = record_array(UOP, MAX_UOPS)
        self.details = record_array(DETAIL, MAX_UOPS)
        self.cpu = self.state[0]
        self.code = self.codes[0]
        self.checks_isolation = False
        self.board = self.boards[0]
        self.cpu.cache_all = int(cache_model == "all")

    @property
    def ram(self) -> np.ndarray:
        """RAM alone, as bytes."""
        return self.memory[: self.ram_bytes]

    @property
    def rom(self) -> np.ndarray:
        """The BIOS image and the expansion ROM of the VGA, as bytes; none without firmware."""
        return self.memory[self.ram_bytes : self.ram_bytes + self.rom_bytes]

    def _empty_memory(self) -> np.ndarray:
        """RAM, ROM, a mask of decoded code for each page of both, the owners of the frames of RAM, and what is spare."""
        memory_bytes = self.ram_bytes + self.rom_bytes
        masks = memory_bytes // PAGE_BYTES * CODE_MASK_BYTES
        return zeroed(np.dtype(np.uint8), memory_bytes + masks + self.ram_bytes // PAGE_BYTES + self.spare_bytes)

    def fit_apic(self, present: bool) -> None:
        """Give the machine a local APIC and an I/O APIC, or none, before it first runs; a reset follows."""
        self.cpu.apic.present = int(present)
        self.reset()
        self.discard_host_state()

    def install_firmware(self, bios: bytes, vga_rom: bytes = b"") -> None:
        """Give the machine a BIOS image and an expansion ROM for its VGA, before it first runs; a reset follows.

        Raises ValueError for images that the machine has no room for.
        """
        if not bios or len(bios) % BIOS_UNIT or len(bios) > LARGEST_BIOS:
            raise ValueError(f"a BIOS image has a multiple of 64 KB, at most 16 MB, not {len(bios)} bytes")
        if len(vga_rom) > VGA_ROM_WINDOW:
            raise ValueError(f"an expansion ROM of the VGA has at most 64 KB, not {len(vga_rom)} bytes")
        ram, owners = self.ram, self.owners
        content = bios + (vga_rom.ljust(VGA_ROM_WINDOW, b"\xff") if vga_rom else b"")
        self.rom_bytes = len(content)
        self.memory = self._empty_memory()
        self.ram[:], self.owners[:] = ram, owners
        self.rom[:] = np.frombuffer(content, np.uint8)
        self.cpu.bios_bytes, self.cpu.vga_rom_bytes = len(bios), len(content) - len(bios)
        self.reset()
        self.check_isolation(self.checks_isolation)

    def _load_profile(self) -> None:
        """Prices, identity and the geometry of TLBs and caches."""
        cpu, profile = self.cpu, self.profile
        cpu.price[:] = profile.prices()
        first = 0
        self.set_tlb_geometry(
            (profile.integer(entries_key), profile.integer(ways_key)) for entries_key, ways_key in TLB_KEYS
        )
        first = 0
        line_bytes = profile.integer("cache.line_bytes")
        for level, (size_key, ways_key) in enumerate(CACHE_KEYS):
            geometry = cpu.cache_levels[level]
            lines = profile.integer(size_key) * 1024 // line_bytes
            ways = profile.integer(ways_key) if lines else 0
            geometry.first, geometry.ways, geometry.line_shift = first, ways, line_bytes.bit_length() - 1
            geometry.sets = lines // ways if ways else 1
            first += lines
        for field, key in NESTED_KEYS.items():
            cpu.nested[field] = profile.integer(key)
        load_identity(cpu, profile)
        if cpu.msr.vmx_capability[VMX_BASIC]:
            cpu.msr.vmx_capability[VMX_CR4_FIXED1] = offered_cr4(self.state)
        cpu.apic.bus_clock = round(TICKS_PER_CYCLE * float(profile["cpu.mhz"]) / float(profile["cpu.bus_mhz"]))
        bits = profile.integer("cpuid.physical_address_bits")
        cpu.address_reserved_high = 0x7FFFFFFF & ~((1 << bits - 32) - 1)
        cpu.large_page_reserved = PDE_4M_RESERVED
        if cpu.cpuid_leaf1_edx >> FEATURE_PSE_36 & 1:
            cpu.large_page_reserved &= ~((1 << min(bits, 40) - 19) - 1)

    def set_tlb_geometry(self, shapes: Iterable[tuple[int, int]]) -> None:
        """Give each TLB, in the order of `TLB_KEYS`, its entries and ways; all are empty then.

        0 entries make a TLB absent, 0 ways fully associative; the sets are a power of two."""
        first = 0
        for unit, (entries, ways) in enumerate(shapes):
            geometry = self.cpu.tlb_units[unit]
            geometry.first = first
            geometry.ways = (ways or entries) if entries else 0
            geometry.sets = entries // geometry.ways if entries else 1
            first += entries
        self.empty_tlbs()

    def set_tlb_discipline(self, entries: int) -> None:
        """Replace the profile's TLBs by one level of fully associative ones of 1 to 4096 entries.

        A guest that obeys the rules for TLBs computes the same with any of them; its cycles differ."""
        one_level = ((entries, 0), (entries, 0), (0, 0))
        self.set_tlb_geometry(one_level + one_level)

    def empty_tlbs(self) -> None:
        """Forget every translation, as at power on."""
        cpu = self.cpu
        cpu.front_generation = cpu.fetch_generation = 1
        cpu.tlb_tag = cpu.tlb_tag_victim = 0
        cpu.tlb_counter = cpu.tlb_generation = cpu.tlb_full_flush = N_TLB_TAGS
        for name in ("front_read", "front_write", "front_fetch", "tlb_buckets"):
            cpu[name][:] = 0
        for name in ("identifier", "root", "generation", "full_flush", "large_shift"):
            cpu.tlb_tags[name] = 0
        for name in ("pages", "tables"):
            cpu.nested[name]["space"] = 0
        cpu.nested.page_victim = cpu.nested.table_victim = 0
        cpu.tlb_units["victim"] = 0
        cpu.tlb["generation"] = -1
        cpu.tlb["page"] = -1
        large = 21 if cpu.cr4 & CR4_PAE or cpu.nested_kind else 22
        cpu.tlb_units["shift"] = (12, large, 12, 12, large, 12)

    def reset(self) -> None:
        """Power on, in the state that a Multiboot loader hands over: flat protected mode, ring 0, interrupts off."""
        self._power_on()
        self.cpu.cr0 = CR0_ET | CR0_PE
        for segment in range(N_SEGMENTS):
            self.set_segment(segment, 0, 0, 0xFFFFFFFF, FLAT_CODE if segment == CS else FLAT_DATA)
        self.set_segment(LDTR, 0, 0, 0, AR_UNUSABLE)
        self.set_segment(TR, 0, 0, 0xFFFF, AR_P | TYPE_TSS_32_BUSY)
        enter_level(self.state, 0)

    def reset_real(self, running: bool = False) -> None:
        """Power on, or reset a machine that is `running`: real-address mode (SDM volume 3, table 9-1).

        Execution begins at F000:FFF0, whose base lies in the top 64 KB of the address space until CS is loaded.
        """
        cpu = self.cpu
        cpu.cr0 = CR0_ET | CR0_CD | CR0_NW
        cpu.cr2 = cpu.cr3 = cpu.cr4 = 0
        self._power_on(running)
        cpu.gpr[:] = 0
        cpu.gpr[EDX] = cpu.cpuid[1, 0]
        for segment in range(N_SEGMENTS):
            self.set_segment(segment, 0, 0, 0xFFFF, REAL_MODE_SEGMENT)
        self.set_segment(CS, 0xF000, 0xFFFF0000, 0xFFFF, REAL_MODE_SEGMENT)
        self.set_segment(LDTR, 0, 0, 0xFFFF, AR_P | TYPE_LDT)
        self.set_segment(TR, 0, 0, 0xFFFF, AR_P | TYPE_TSS_32_BUSY)
        cpu.gdtr_base, cpu.gdtr_limit = 0, 0xFFFF
        cpu.idtr_base, cpu.idtr_limit = 0, VECTOR_TABLE_LIMIT
        cpu.rip = 0xFFF0
        enter_level(self.state, 0)

    def _power_on(self, running: bool = False) -> None:
        """What all ways of starting have in common: no event, no limit, empty TLBs, no decoded code, fresh devices."""
        self._power_on_processor()
        if running:
            device_restart(self.boards, int(self.cpu.ticks))
        else:
            reset_devices(self.boards, TICKS_PER_CYCLE * self.clock_hz)
        if not self.rom_bytes:
            devices_as_firmware_left_them(self.boards)

    def _power_on_processor(self) -> None:
        """The same without the devices."""
        cpu = self.cpu
        self._lay_out_memory()
        cpu.vga_rom_address = 0
        cpu.pam = 0 if self.rom_bytes else PAM_ALL_RAM
        cpu.eflags = EFLAGS_FIXED
        cpu.flag_result = 1
        cpu.shadow = cpu.halted = 0
        cpu.efer = 0
        reset_model_specific(cpu.msr)
        cpu.world = ROOT
        cpu.guest_tsc_offset = 0
        cpu.svm.gif = 1
        cpu.svm.system_call[:] = 0
        self.set_debug_register(6, 0)
        self.set_debug_register(7, 0)
        cpu.debug_hits = cpu.debug_pending = cpu.flush_code = cpu.held = 0
        cpu.world = layout.ROOT
        cpu.vmx.operation = cpu.vmx.nmi_blocked = 0
        cpu.vmx.current = -1
        cpu.vmx.timer_due = NEVER
        cpu.idt_vector = -1
        cpu.fpu_control = X87_CONTROL_INITIAL
        cpu.timer = cpu.budget = cpu.deadline = NEVER
        cpu.retired_limit = NEVER
        cpu.hook_first, cpu.hook_last, cpu.hook_level = 1, 0, 0
        cpu.unit_first, cpu.unit_last = 1, 0
        cpu.a20_closed = 0
        cpu.pdpte[:] = 0
        cpu.nested_kind, cpu.nested_levels = NESTED_OFF, 4
        cpu.address_space = 0
        self.empty_tlbs()
        self.code.block_count = FIRST_BLOCK
        self.code.uop_count = BLOCK_UOPS
        cpu.mode_table[:] = 2 * (MODE_GUEST_KERNEL, MODE_GUEST_KERNEL, MODE_GUEST_KERNEL, MODE_GUEST_USER)
        reset_apics(self.state)

    def _lay_out_memory(self) -> None:
        """Where RAM ends in the array, and where ROM and the masks of decoded code begin."""
        cpu = self.cpu
        cpu.ram_last = self.ram_bytes - 1
        cpu.rom_first = self.ram_bytes
        cpu.code_map = self.ram_bytes + self.rom_bytes
        cpu.place_last = cpu.code_map - 1

    def system_reset(self) -> None:
        """Reset processor and devices while the machine runs, as its reset line does; RAM, time and ledger go on.

        What limits the run stays too.
        """
        cpu = self.cpu
        kept = {name: int(cpu[name]) for name in RUN_LIMITS}
        self.discard_host_state()
        for name in RESET_TO_ZERO:
            cpu[name] = 0
        self.reset_real(running=True)
        for name, value in kept.items():
            cpu[name] = value
        cpu.tsc_offset = -(int(cpu.ticks) // TICKS_PER_CYCLE)

    @property
    def clock_hz(self) -> int:
        """Cycles per second."""
        return round(float(self.profile["cpu.mhz"]) * 1_000_000)

    def set_segment(self, segment: int, selector: int, base: int, limit: int, access: int) -> None:
        """Load a segment's selector and cache without any check."""
        cache = self.cpu.seg[segment]
        cache.selector, cache.seg_base, cache.limit, cache.access = selector, base, limit, access
        refresh_segment(self.state, segment)

    def set_debug_register(self, number: int, value: int) -> None:
        """Write DR0 to DR3, DR6 or DR7; breakpoints follow."""
        write_debug_register(self.state, number, value)

    def is_plain_ram(self, address: int, end: int) -> bool:
        """Whether all of a range is RAM, whatever the machine's map says."""
        return end <= self.ram_bytes and (end <= SHADOW_FIRST or address >= SHADOW_END)

    def pieces(self, address: int, length: int) -> Iterator[tuple[int, int]]:
        """A physical range cut at pages: address and length of each piece."""
        end = address + length
        while address < end:
            room = min(end, (address | PAGE_BYTES - 1) + 1) - address
            yield address, room
            address += room

    def write_physical(self, address: int, octets: bytes) -> None:
        """Write memory as the map has it, discarding decoded code there; what no RAM takes is lost."""
        if self.is_plain_ram(address, address + len(octets)):
            self._write_ram(address, octets)
            return
        for place, length in self.pieces(address, len(octets)):
            taken = int(writable_place_of(self.state, self.memory, place))
            if taken < BUS:
                self._write_ram(taken, octets[place - address : place - address + length])

    def _write_ram(self, address: int, octets: bytes) -> None:
        """Write RAM, discarding decoded code there."""
        end = address + len(octets)
        for piece in range(address >> layout.CODE_SHIFT, ((end - 1) >> layout.CODE_SHIFT) + 1):
            note_write(self.state, self.memory, max(address, piece << layout.CODE_SHIFT))
        self.memory[address:end] = np.frombuffer(octets, np.uint8)

    def read_physical(self, address: int, length: int) -> bytes:
        """Read memory as the map has it, up to the first byte that neither RAM nor ROM holds."""
        if self.is_plain_ram(address, address + length):
            return self.memory[address : address + length].tobytes()
        octets = b""
        for physical, count in self.pieces(address, length):
            place = int(place_of(self.state, self.memory, physical))
            if place >= BUS:
                break
            octets += self.memory[place : place + count].tobytes()
        return octets

    @property
    def owners(self) -> np.ndarray:
        """The owner of each frame (core/layout.py OWNER_*), for the check of isolation."""
        return self.memory[self._owners_first : self.spare_first]

    @property
    def _owners_first(self) -> int:
        """Where the owners begin in the array."""
        return self.spare_first - self.ram_bytes // PAGE_BYTES

    @property
    def spare_first(self) -> int:
        """Where the spare bytes begin in the array."""
        return int(self.memory.size) - self.spare_bytes

    def check_isolation(self, on: bool) -> None:
        """Check every access of a guest's operand against `owners` from now on, or no longer."""
        self.checks_isolation = on
        self.cpu.owner_table = self._owners_first if on else 0
        self.discard_host_state()

    def discard_host_state(self) -> None:
        """Forget what only serves speed: decoded code and front caches. No cycle depends on it."""
        self.settle()
        cpu, code = self.cpu, self.code
        for name in HOST_FIELDS:
            cpu[name] = 0
        cpu.front_generation = cpu.fetch_generation = 1
        self._clear_code_masks()
        self.codes["buckets"] = 0
        self.codes["page_heads"] = 0
        self.codes["jumps"]["block"] = 0
        code.block_count, code.uop_count = FIRST_BLOCK, BLOCK_UOPS
        enter_level(self.state, int(cpu.cpl))
        refresh_memory_map(self.state)

    def _clear_code_masks(self) -> None:
        """Forget which pieces of memory hold decoded code."""
        self.memory[self.ram_bytes + self.rom_bytes : self._owners_first] = 0

    def run(self, single: bool = False) -> int:
        """Run until an outcome (core/layout.py); `single`: one instruction."""
        return int(
            run(self.state, self.memory, self.boards, self.codes, self.blocks, self.uops, self.details, int(single))
        )

    def look_up(self, gla: int) -> int | None:
        """The physical address of a linear one as translated now, without any effect; None if it is not."""
        physical = int(look_up(self.state, self.memory, gla))
        return None if physical < 0 else physical

    def bytes_at(self, gla: int, count: int) -> bytes:
        """Bytes at a linear address as translated now, without any effect; fewer at a hole."""
        octets = bytearray()
        for place in range(count):
            physical = self.look_up((gla + place) & 0xFFFFFFFF)
            if physical is None:
                break
            octets += self.read_physical(physical, 1)
        return bytes(octets)

    def refresh_map(self) -> None:
        """Take notice of a changed map of memory."""
        refresh_memory_map(self.state)

    def discard_code(self, frame: int) -> None:
        """A frame of RAM was written by somebody else than this processor: forget what was decoded there."""
        octets = self.memory[int(self.cpu.code_map) + CODE_MASK_BYTES * frame :][:CODE_MASK_BYTES]
        mask = int.from_bytes(octets.tobytes(), "little")
        for piece in range(PAGE_BYTES >> layout.CODE_SHIFT):
            if mask >> piece & 1:
                note_write(self.state, self.memory, frame * PAGE_BYTES + (piece << layout.CODE_SHIFT))

    def settle(self) -> None:
        """Bring the ledger up to date."""
        settle_all(self.state, self.codes, self.blocks, self.details)

    def ledger(self) -> Ledger:
        """The ledger as it stands; its arrays are the processor's own."""
        return Ledger(self.cpu.ledger_count, self.cpu.ledger_ticks)
