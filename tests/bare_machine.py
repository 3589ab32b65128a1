"""A bare processor with flat segments, an IDT whose handlers stop the run, and code at an address of the test's choice.

Physical layout of its RAM (1 MB), identity-mapped when paging is on:

    01000 GDT   02000 IDT   03000 TSS   04000 handlers, 16 bytes each   07000-07FFF stack of ring 0
    08000-0FFFF and 10000-1FFFF code, filled with HLT   20000-2FFFF data   30000-33FFF stack
    40000 page directory   41000 page table of the first 4 MB
"""

import numpy as np
from descriptor_machine import descriptor, gate

from x86virt.core.entries import enter_level
from x86virt.core.layout import HALTED_FOREVER, HOOK, MARK, N_TLB_TAGS, NEVER
from x86virt.isa.registers import X87_CONTROL_INITIAL
from x86virt.processor import Processor
from x86virt.profile import load_profile

RAM_BYTES = 1 << 20
GDT, IDT, TSS, HANDLERS, KERNEL_STACK = 0x1000, 0x2000, 0x3000, 0x4000, 0x8000
LOW_CODE, CODE_FIRST, CODE, CODE_LAST = 0x8000, 0x10000, 0x1C000, 0x1FFFF
DATA, STACK, STACK_END = 0x20000, 0x30000, 0x34000
DIRECTORY, TABLE = 0x40000, 0x41000
CODE_0, DATA_0, CODE_3, DATA_3, TSS_SELECTOR = 0x08, 0x10, 0x1B, 0x23, 0x28
HLT = b"\xf4"
ES, CS, SS, DS, FS, GS = range(6)
EAX, ECX, EDX, EBX, ESP, EBP, ESI, EDI = range(8)
CF, PF, AF, ZF, SF, TF, IF, DF, OF = 1, 4, 16, 64, 128, 256, 512, 1024, 2048
ARITHMETIC = CF | PF | AF | ZF | SF | OF
PTE_P, PTE_RW, PTE_US = 1, 2, 4
CR0_WP, CR0_PG = 1 << 16, 1 << 31
FLAT = 0xFFFFFFFF
PARITY = bytes(1 ^ bin(number).count("1") & 1 for number in range(256))


class BareMachine:
    """A processor that runs a few bytes of code and says where and why it stopped."""

    def __init__(self, profile: str = "p4_prescott", cache_model: str = "tables") -> None:
        self.processor = Processor(load_profile(profile), RAM_BYTES, cache_model)
        self.cpu = self.processor.cpu
        self.memory = self.processor.memory
        self.gpr = self.processor.state["gpr"][0]
        self.power_on()

    def power_on(self) -> None:
        """Clear time, ledger, caches and RAM; flat ring 0, no paging."""
        cpu = self.cpu
        for name in ("ticks", "retired", "halted", "shadow", "cr2", "cr3", "cr4", "cache_lines", "flag_carry", "mark"):
            cpu[name] = 0
        for name in ("ledger_count", "ledger_ticks", "gpr", "dr", "context_count", "code_write_count", "timer_pending"):
            cpu[name] = 0
        cpu["watch"] = 0
        cpu["tlb_units"]["victim"] = 0
        self.processor.codes["buckets"] = 0
        self.processor.codes["page_heads"] = 0
        self.processor.codes["jumps"]["block"] = 0
        for name in ("front_read", "front_write", "front_fetch"):
            cpu[name] = 0
        self.memory[:] = 0
        self.processor.reset()
        self.lay_tables()
        self.memory[LOW_CODE : CODE_LAST + 1] = HLT[0]
        self.ring(0)
        cpu.hook_first, cpu.hook_last = HANDLERS, HANDLERS + 0xFFF
        self.gpr[ESP] = STACK + 0x2000

    def lay_tables(self) -> None:
        """The descriptor tables, the task-state segment and identity page tables, open to ring 3."""
        rows = {
            CODE_0: descriptor(0, 0xFFFFF, 11, granular=1),
            DATA_0: descriptor(0, 0xFFFFF, 3, granular=1),
            CODE_3: descriptor(0, 0xFFFFF, 11, dpl=3, granular=1),
            DATA_3: descriptor(0, 0xFFFFF, 3, dpl=3, granular=1),
            TSS_SELECTOR: descriptor(TSS, 0x67, 11, s=0, db=0),
        }
        for selector, value in rows.items():
            self.put(GDT + (selector & ~7), value, 8)
        for vector in range(32):
            self.put(IDT + 8 * vector, gate(CODE_0, HANDLERS + 16 * vector, 14, dpl=3), 8)
        self.put(TSS + 4, KERNEL_STACK)
        self.put(TSS + 8, DATA_0)
        cpu = self.cpu
        cpu.gdtr_base, cpu.gdtr_limit, cpu.idtr_base, cpu.idtr_limit = GDT, 0x7F, IDT, 32 * 8 - 1
        self.processor.set_segment(7, TSS_SELECTOR, TSS, 0x67, 0x8B)
        self.put(DIRECTORY, TABLE | PTE_P | PTE_RW | PTE_US)
        entries = np.arange(0, RAM_BYTES, 0x1000, dtype=np.uint32) | PTE_P | PTE_RW | PTE_US
        self.memory[TABLE : TABLE + 4 * len(entries)] = entries.view(np.uint8)

    # -- state ------------------------------------------------------------------------------------------------------

    def ring(self, level: int) -> None:
        """Flat segments of ring 0 or 3."""
        code, data = (CODE_3, DATA_3) if level == 3 else (CODE_0, DATA_0)
        for segment in (ES, SS, DS, FS, GS):
            self.processor.set_segment(segment, data, 0, FLAT, 0xC093 | level << 5)
        self.processor.set_segment(CS, code, 0, FLAT, 0xC09B | level << 5)
        enter_level(self.processor.state, level)

    def paging(self) -> None:
        """Turn identity paging on, write protection included."""
        self.cpu.cr3 = DIRECTORY
        self.cpu.cr0 |= CR0_PG | CR0_WP

    def set_page(self, page: int, frame: int, rights: int) -> None:
        """Write the page-table entry of a linear address; the TLB is the caller's care."""
        self.put(TABLE + (page >> 12) * 4, frame | rights)

    def forget_translations(self) -> None:
        """What a write to CR3 does to the TLBs."""
        self.cpu.tlb_counter += N_TLB_TAGS
        self.cpu.tlb_generation = self.cpu.tlb_counter
        self.cpu.front_generation += 1
        self.cpu.fetch_generation += 1

    def initialize_float(self) -> None:
        """What FNINIT does."""
        cpu = self.cpu
        cpu.fpu_control, cpu.fpu_status, cpu.fpu_occupied = X87_CONTROL_INITIAL, 0, 0

    def put(self, address: int, value: int, n: int = 4) -> None:
        """Store a number in RAM, outside code."""
        self.memory[address : address + n] = np.frombuffer(value.to_bytes(n, "little"), np.uint8)

    def get(self, address: int, n: int = 4) -> int:
        """Load a number from RAM."""
        return int.from_bytes(self.memory[address : address + n].tobytes(), "little")

    def write_code(self, octets: bytes, address: int = CODE) -> None:
        """Store code where decoded code may be."""
        self.processor.write_physical(address, octets)

    @property
    def eflags(self) -> int:
        """EFLAGS, from the representation that core/flags.py documents."""
        cpu = self.cpu
        result, carry = int(cpu.flag_result), int(cpu.flag_carry)
        flags = carry >> 31 & 1 | (carry >> 3 & 1) << 4 | ((carry >> 31 ^ carry >> 30) & 1) << 11
        flags |= (PARITY[result & 0xFF] ^ carry >> 33 & 1) << 2
        flags |= int(result == 0) << 6 | ((result >> 63 ^ carry >> 32) & 1) << 7
        return int(cpu.eflags) | flags | 2

    @eflags.setter
    def eflags(self, value: int) -> None:
        cf, pf, af, zf, sf, of = (int(value & flag != 0) for flag in (CF, PF, AF, ZF, SF, OF))
        self.cpu.eflags = value & ~ARITHMETIC | 2
        self.cpu.flag_result = 1 - zf
        self.cpu.flag_carry = cf << 31 | (cf ^ of) << 30 | af << 3 | sf << 32 | (pf ^ zf) << 33

    def registers(self) -> list[int]:
        """The eight general registers."""
        return self.gpr[:8].tolist()

    # -- running ----------------------------------------------------------------------------------------------------

    def go(self, address: int = CODE, single: bool = False) -> int:
        """Run from an address past region marks; returns the outcome of core/layout.py."""
        self.cpu.rip = address
        self.cpu.halted = 0
        outcome = self.processor.run(single)
        while outcome == MARK:
            self.cpu.mark = 0
            outcome = self.processor.run(single)
        return outcome

    def stopped_at(self, outcome: int) -> int | str:
        """Where HLT stopped the run; for a fault `vector N`, for anything else `outcome N`."""
        if outcome == HALTED_FOREVER:
            return int(self.cpu.rip) - 1
        if outcome == HOOK:
            return f"vector {(int(self.cpu.rip) - HANDLERS) // 16}"
        return f"outcome {outcome}"

    def unlimited(self) -> None:
        """No budget and no limit of instructions."""
        self.cpu.budget = self.cpu.retired_limit = NEVER
