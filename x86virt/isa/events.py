"""The events of the ledger, each declared once: what is counted, where it belongs, and which profile key prices it.

An event's number is its place in `EVENTS`. Jitted code uses the constants at the end of this file, which follow one
rule: `ins.alu_rr` is `EVENT_INS_ALU_RR`. They are written out so that readers, mypy and Numba see plain integers; a
test proves them complete and current, and `constant_name` is the rule itself.

Units: counts are in the event's `unit`, prices in cycles, the ledger's time in ticks (1 cycle = 64 ticks).
"""

from dataclasses import dataclass

from .exits import EXITS

TICKS_PER_CYCLE = 64

MODE_GUEST_USER = 0
MODE_GUEST_KERNEL = 1
MODE_VMM = 2
MODE_IDLE = 3
MODE_DOMAIN_0 = 4  # the domain that drives the devices for a paravirtual guest
N_MODES = 5
MODE_NAMES = ("guest_user", "guest_kernel", "vmm", "idle", "domain_0")

DOMAINS = {
    "instruction": "instructions and the latency of their own data",
    "walk": "the TLB and the walks of page tables",
    "transition": "changes of privilege: deliveries, returns, gates, system calls",
    "vmm": "the VMM's own software",
    "translator": "binary translation: units, chaining, callouts",
    "device": "ports, device registers, interrupt controllers",
    "idle": "halted time and the way out of it",
}

RULES = {
    "value": "a price is the value of the key",
    "inverse": "a price is one divided by the value of the key, which is a rate",
    "above": "a price is the value of the key less that of the key `above`",
    "free": "a price is exactly 0",
    "dynamic": "whoever charges the event says how long it took",
}


@dataclass(frozen=True)
class Event:
    """One line of the ledger: name, domain (of `DOMAINS`), unit of its count, meaning, and how one of it is priced.

    `price` is the profile key that prices one of it, in cycles, by the rule named `rule` (of `RULES`); it is None
    where no key does (`free`, `dynamic`).
    """

    name: str
    domain: str
    unit: str
    sentence: str
    price: str | None
    rule: str = "value"
    above: str = ""

    @property
    def fixed(self) -> bool:
        """Whether every one of it costs the same under a given profile."""
        return self.rule != "dynamic"


# Each priced by the key of its own name.
_INSTRUCTIONS = {
    "ins.nop": "A NOP.",
    "ins.pause": "A PAUSE (REP NOP).",
    "ins.mov_rr": "A move between general registers or of an immediate, sign and zero extension included.",
    "ins.alu_rr": "ADD, SUB, AND, OR, XOR, CMP, TEST, INC, DEC, NEG or NOT on registers.",
    "ins.alu_ri": "The same operations with an immediate operand.",
    "ins.adc_rr": "ADC or SBB on registers.",
    "ins.alu_load": "An arithmetic operation with a memory source.",
    "ins.alu_rmw": "An arithmetic operation that reads and writes memory.",
    "ins.load": "A move from memory to a register.",
    "ins.store": "A move of a register or an immediate to memory.",
    "ins.lea": "A LEA.",
    "ins.shift_imm": "A shift or rotate by an immediate count.",
    "ins.shift_cl": "A shift or rotate by CL.",
    "ins.shld": "A SHLD or SHRD.",
    "ins.imul": "An IMUL with two or three operands.",
    "ins.mul": "A MUL or IMUL with one operand.",
    "ins.div32": "A DIV.",
    "ins.idiv32": "An IDIV.",
    "ins.cmov": "A CMOVcc.",
    "ins.bswap": "A BSWAP.",
    "ins.bt": "A BT.",
    "ins.bts": "A BTS, BTR or BTC.",
    "ins.bsf": "A BSF or BSR.",
    "ins.setcc": "A SETcc.",
    "ins.cbw": "A CBW, CWDE, CWD or CDQ.",
    "ins.flag": "A CLC, STC or CMC.",
    "ins.sahf": "A SAHF or LAHF.",
    "ins.xchg_rr": "An XCHG of two registers.",
    "ins.xadd": "An XADD without LOCK.",
    "ins.xlat": "An XLAT.",
    "ins.push": "A PUSH of a register, an immediate or memory.",
    "ins.pop": "A POP to a register or memory.",
    "ins.pusha": "A PUSHA.",
    "ins.popa": "A POPA.",
    "ins.enter": "An ENTER.",
    "ins.leave": "A LEAVE.",
    "ins.pushf": "A PUSHF at a CPL above 0.",
    "ins.popf_cpl3": "A POPF at a CPL above 0.",
    "ins.decimal_adjust": "A DAA, DAS, AAA or AAS.",
    "ins.aam": "An AAM.",
    "ins.aad": "An AAD.",
    "ins.bound": "A BOUND that does not trap.",
    "ins.salc": "A SALC.",
    "ins.rdpmc": "An RDPMC.",
    "ins.cld": "A CLD.",
    "ins.std": "A STD.",
    "ins.lods": "A LODS without REP.",
    "ins.stos": "A STOS without REP.",
    "ins.movs": "A MOVS without REP.",
    "ins.scas": "A SCAS without REP.",
    "ins.cmps": "A CMPS without REP.",
    "ins.rep_start": "The start of a string instruction with REP, whatever its count.",
    "ins.cmpxchg_rr": "A CMPXCHG without LOCK.",
    "ins.cmpxchg8b": "A CMPXCHG8B without LOCK.",
    "ins.xchg_mem": "An XCHG with memory, which locks by itself.",
    "ins.lock_add_mem": "Any other read-modify-write with LOCK.",
    "ins.rdtsc": "An RDTSC.",
    "ins.cpuid_leaf0": "A CPUID of any leaf but 1.",
    "ins.cpuid_leaf1": "A CPUID of leaf 1.",
    "ins.lfence": "An LFENCE.",
    "ins.mfence": "An MFENCE.",
    "ins.sfence": "An SFENCE.",
    "ins.jmp_taken": "A direct JMP.",
    "ins.jmp_indirect": "A JMP through a register or memory.",
    "ins.jcc_predicted": "A Jcc or JECXZ, taken or not.",
    "ins.loop": "A LOOP, LOOPE or LOOPNE.",
    "ins.call": "A near CALL.",
    "ins.ret": "A near RET.",
    "ins.into": "An INTO that does not trap.",
    "ins.lds": "An LDS, LES, LFS, LGS or LSS.",
}

# x87 instructions, FXSAVE and FXRSTOR included.
_X87_INSTRUCTIONS = {
    "ins.x87_move": "An x87 load, store, exchange or conditional move, of a constant or sign too.",
    "ins.x87_integer": "An x87 load or store of an integer.",
    "ins.x87_decimal": "An FBLD or FBSTP.",
    "ins.x87_add": "An x87 addition or subtraction.",
    "ins.x87_compare": "An x87 comparison.",
    "ins.x87_multiply": "An x87 multiplication.",
    "ins.x87_divide": "An x87 division.",
    "ins.x87_sqrt": "An FSQRT.",
    "ins.x87_remainder": "An FPREM, FPREM1, FRNDINT, FSCALE or FXTRACT.",
    "ins.x87_transcendental": "A sine, cosine, tangent, arctangent, logarithm or power of two.",
    "ins.x87_control": "An x87 instruction on the control or status word.",
    "ins.x87_environment": "An FNSTENV or FLDENV.",
    "ins.wait": "A WAIT.",
    "ins.fsave": "An FNSAVE.",
    "ins.frstor": "An FRSTOR.",
    "ins.fxsave": "An FXSAVE.",
    "ins.fxrstor": "An FXRSTOR.",
}

# System instructions that leave the CPL as it is.
_SYSTEM_INSTRUCTIONS = {
    "sys.mov_cr0_write": "A MOV to CR0 or an LMSW.",
    "sys.mov_cr2_write": "A MOV to CR2.",
    "sys.mov_cr3_write": "A MOV to CR3, the flush included and the refills not.",
    "sys.mov_cr4_write": "A MOV to CR4.",
    "sys.mov_cr8_write": "A MOV to CR8 (task priority).",
    "sys.mov_from_cr": "A MOV from a control register.",
    "sys.clts": "A CLTS.",
    "sys.invlpg": "An INVLPG.",
    "sys.cli": "A CLI.",
    "sys.sti": "An STI.",
    "sys.popf_cpl0": "A POPF at CPL 0.",
    "sys.pushf_cpl0": "A PUSHF at CPL 0.",
    "sys.lgdt": "An LGDT.",
    "sys.lidt": "An LIDT.",
    "sys.lldt": "An LLDT.",
    "sys.ltr": "An LTR.",
    "sys.store_desc_reg": "An SGDT, SIDT, SLDT, STR or SMSW.",
    "sys.lar_lsl_verr_verw": "A LAR, LSL, VERR or VERW.",
    "sys.mov_sreg": "A MOV to a segment register.",
    "sys.pop_sreg": "A POP of a segment register.",
    "sys.push_sreg": "A PUSH of a segment register, or a MOV from one.",
    "sys.far_jmp_same_cpl": "A far JMP to a code segment at the same CPL.",
    "sys.far_call_same_cpl": "A far CALL at the same CPL.",
    "sys.far_ret_same_cpl": "A far RET to the same CPL.",
    "sys.rdmsr": "An RDMSR.",
    "sys.wrmsr": "A WRMSR.",
    "sys.wbinvd": "A WBINVD.",
}

# An inner-ring delivery of an exception has its own price; at the same CPL they share one.
_TRANSITIONS = {
    "sys.int_n_cpl3_to_cpl0": "An INT n or INT3 delivered to an inner ring.",
    "sys.int_n_same_cpl": "An INT n or INT3 delivered at the same CPL.",
    "sys.iret_cpl0_to_cpl3": "An IRET to an outer ring.",
    "sys.iret_same_cpl": "An IRET to the same CPL.",
    "sys.sysenter": "A SYSENTER.",
    "sys.sysexit": "A SYSEXIT.",
    "sys.syscall": "A SYSCALL.",
    "sys.sysret": "A SYSRET.",
    "sys.exc_de": "The delivery of a divide error exception (#DE) to an inner ring.",
    "sys.exc_db": "The delivery of a debug exception (#DB) to an inner ring.",
    "sys.exc_bp": "The delivery of a breakpoint exception (#BP) to an inner ring.",
    "sys.exc_of": "The delivery of an overflow exception (#OF) to an inner ring.",
    "sys.exc_br": "The delivery of a bound range exception (#BR) to an inner ring.",
    "sys.exc_ud": "The delivery of an invalid opcode exception (#UD) to an inner ring.",
    "sys.exc_nm": "The delivery of a device not available exception (#NM) to an inner ring.",
    "sys.exc_df": "The delivery of a double fault exception (#DF) to an inner ring.",
    "sys.exc_ts": "The delivery of an invalid TSS exception (#TS) to an inner ring.",
    "sys.exc_np": "The delivery of a segment not present exception (#NP) to an inner ring.",
    "sys.exc_ss": "The delivery of a stack fault exception (#SS) to an inner ring.",
    "sys.exc_gp": "The delivery of a general protection exception (#GP) to an inner ring.",
    "sys.exc_pf": "The delivery of a page fault exception (#PF) to an inner ring.",
    "sys.exc_mf": "The delivery of a floating-point error exception (#MF) to an inner ring.",
    "sys.exc_ac": "The delivery of an alignment check exception (#AC) to an inner ring.",
    "sys.exc_same_cpl": "The delivery of any exception at the same CPL.",
    "sys.ext_interrupt_delivery": "The delivery of an external interrupt: recognition to handler's first instruction.",
    "sys.far_call_gate_up": "A far CALL through a call gate to an inner ring.",
    "sys.far_ret_outer": "A far RET to an outer ring.",
    "sys.task_switch": "A hardware task switch.",
}

# Every port of this board lies behind the LPC bridge.
_DEVICE_ACCESSES = {
    "sys.in_port_lpc": "An IN from a port behind the LPC bridge (all ports of this board).",
    "sys.out_port_lpc": "An OUT to a port behind the LPC bridge (all ports of this board).",
    "sys.in_port_chipset": "An IN from a port of the chipset (PCI configuration, ACPI timer).",
    "sys.mmio_uncached_read": "A read of an uncached device register.",
    "sys.lapic_mmio_access": "An access to a register of the local APIC.",
}

# Paths of the VMM: a witness gives a base and a cost per item, so the ticks vary.
_VMM_PATHS = {
    "vmm.trap_dispatch": "The VMM's entry code, from its gate to the handler of the exit.",
    "vmm.light_dispatch": "The same for a callout that stays in the ring of translated code.",
    "vmm.callout": "The site of a callout found, and the guest's instruction and registers with it.",
    "vmm.recover": "The guest's instruction and registers found for another place of the translation cache.",
    "vmm.enter_cache": "The guest's next instruction found in the translation cache, and the translator's record refreshed.",
    "vmm.direct_port": "A callout for IN or OUT, with what the translator knew of it, up to the device and back.",
    "vmm.direct_store": "A callout for a store that often writes traced memory, with what the translator knew of it.",
    "vmm.leave_ring": "A callout's frame taken to ring 0, where the way on begins.",
    "vmm.emulate_flags": "Emulation of CLI or STI on virtual flags.",
    "vmm.emulate_flags_image": "Emulation of PUSHF or POPF on virtual flags.",
    "vmm.emulate_state_read": "Emulation of SGDT, SIDT, SLDT, STR, SMSW, or a store of a segment register.",
    "vmm.emulate_x87_store": "Emulation of FNSTENV, FNSAVE or FXSAVE: their selectors, and each doubleword stored.",
    "vmm.emulate_control_register": "Emulation of MOV to or from a control or debug register, LMSW, CLTS or WBINVD.",
    "vmm.emulate_descriptor_table": "Emulation of LGDT, LIDT, LLDT or LTR.",
    "vmm.emulate_segment": "Emulation of a segment-register load, or of LAR, LSL, VERR or VERW.",
    "vmm.emulate_far_transfer": "Emulation of IRET or of a far transfer.",
    "vmm.emulate_port": "Emulation of IN, OUT, INS or OUTS up to the device.",
    "vmm.emulate_msr": "Emulation of RDMSR or WRMSR.",
    "vmm.emulate_halt": "Emulation of HLT.",
    "vmm.emulate_invlpg": "Emulation of INVLPG.",
    "vmm.emulate_system_call": "Emulation of SYSENTER or SYSEXIT.",
    "vmm.reflect": "The delivery of an exception or interrupt to the guest through its own IDT.",
    "vmm.shadow_fill": "A shadow page-table entry made from the guest's.",
    "vmm.shadow_flush": "Shadow page tables dropped.",
    "vmm.shadow_table": "A page for a shadow table allocated, cleared and entered in the directory.",
    "vmm.shadow_switch": "The shadow of an address space found in the cache.",
    "vmm.shadow_sync": "A shadow table compared with the guest's: its entries, and the way to them.",
    "vmm.shadow_check": "A single shadow entry compared with the guest's.",
    "vmm.traced_write": "A guest's store to a frame that is traced, decoded and performed.",
    "vmm.descriptor_shadow": "A guest descriptor checked and copied to the shadow table.",
    "vmm.device_request": "A request served by an emulated device.",
    "vmm.resume": "The VMM's exit code, up to its IRET.",
}

# What happens to shadow page tables: counts only, since the VMM's paths above are what takes the time.
_SHADOW_EVENTS = {
    "shadow.entry": ("entry", "An entry of a shadow page table made for a page of 4 KB."),
    "shadow.piece": ("entry", "An entry of a shadow page table made for 4 KB of a large page of the guest, which is broken."),
    "shadow.large_entry": ("entry", "A large page of the guest kept as one in the shadow."),
    "shadow.global_entry": ("entry", "One of these entries that is global."),
    "shadow.table": ("table", "A page for a shadow table allocated, and cleared."),
    "shadow.table_found": ("table", "A shadow table found in the cache and used again."),
    "shadow.space_made": ("load", "A load of CR3, or a change of the paging mode, that found no shadow of its address space."),
    "shadow.space_found": ("load", "A load of CR3, or a change of the paging mode, that found a shadow of its address space."),
    "shadow.accessed_set": ("entry", "An accessed bit set by the VMM in an entry of the guest's tables."),
    "shadow.dirty_set": ("entry", "A dirty bit set by the VMM in an entry of the guest's tables."),
    "shadow.traced_write": ("write", "A guest's write to a frame that is traced."),
    "shadow.write_protected": ("entry", "Write permission taken from a shadow entry, because its frame is traced."),
    "shadow.entry_dropped": ("entry", "A shadow entry dropped because the guest's no longer permits it."),
    "shadow.out_of_sync": ("table", "A page table of the guest let out of sync at a write."),
    "shadow.synchronised": ("table", "A shadow table compared with the guest's, which was out of sync."),
    "shadow.release": ("table", "A shadow table given up because the guest's is written again and again without being of use."),
    "shadow.eviction": ("table", "A shadow table evicted, because the memory for shadow tables is spent."),
}

# The binary translator's work, each priced by the key of its own name, and what is only counted.
_TRANSLATOR_WORK = {
    "translator.instruction": ("instruction", "A guest instruction decoded and translated."),
    "translator.chain": ("jump", "A callout replaced by a jump to the translation of its target."),
    "translator.lookup_miss": ("look-up", "An indirect transfer whose target the hash table did not hold, and its entry there."),
    "translator.page_check": ("page", "A page with units looked at anew, since it was written or may be mapped otherwise."),
    "translator.invalidation": ("unit", "A unit dropped: its code changed, is no longer mapped, or is to be made otherwise."),
    "translator.hash_emptied": ("entry", "An entry taken out of a hash table, because the guest goes on in another context."),
    "translator.flush": ("flush", "The whole cache thrown away, because it was full or the guest's mode changed."),
}
_TRANSLATOR_COUNTS = {
    "translator.entry": ("entry", "The guest goes on in the cache; what it takes is vmm.enter_cache."),
    "translator.unit": ("unit", "A unit translated."),
    "translator.byte": ("byte", "A byte written to the translation cache."),
    "translator.guest_byte": ("byte", "A byte of guest code that was translated; the ratio of both is the growth."),
    "translator.adaptation": ("instruction", "An instruction that has often faulted at traced memory, from then on a callout."),
    "translator.restoration": ("instruction", "Such an instruction, translated as it is again: it writes other memory now."),
    "translator.lookup_hit": ("look-up", "An indirect transfer that found its target in the hash table."),
    "translator.occupied": ("byte", "The most bytes of the translation cache that were in use at once: each when it first was."),
    "translator.program_tick": (
        "tick",
        "A tick (1/64 cycle) of a program that ran translated: the others of mode guest_user are direct execution, and all of "
        "guest_kernel are translated code.",
    ),
}

# Instructions of VMX and SVM: the sentence, and the key that prices it. A transition is charged to the mode where it began.
_VIRTUALIZATION = {
    "vmx.vmxon": ("A VMXON.", "virt.on"),
    "vmx.vmxoff": ("A VMXOFF.", "virt.off"),
    "vmx.vmclear": ("A VMCLEAR.", "virt.clear"),
    "vmx.vmptrld": ("A VMPTRLD.", "virt.ptrld"),
    "vmx.vmptrst": ("A VMPTRST.", "virt.ptrst"),
    "vmx.vmread": ("A VMREAD, or a read of the VMCS by a VMM.", "virt.ctl_read"),
    "vmx.vmwrite": ("A VMWRITE, or a write of the VMCS by a VMM.", "virt.ctl_write"),
    "vmx.launch": ("A VMLAUNCH, whether it enters the guest or fails.", "virt.launch"),
    "vmx.entry": ("A VMRESUME, whether it enters the guest or fails.", "virt.entry"),
    "vmx.vmcall": ("A VMCALL in VMX root operation, which fails: priced as the shortest of these instructions.", "virt.ptrst"),
    "vmx.invept": ("An INVEPT.", "vmx.invept"),
    "vmx.invvpid": ("An INVVPID.", "vmx.invvpid"),
    "svm.vmrun": ("A VMRUN.", "virt.entry"),
    "svm.vmload": ("A VMLOAD.", "virt.ptrld"),
    "svm.vmsave": ("A VMSAVE.", "virt.clear"),
    "svm.vmcb_read": ("A read of the VMCB by a VMM.", "virt.ctl_read"),
    "svm.vmcb_write": ("A write of the VMCB by a VMM.", "virt.ctl_write"),
    "svm.stgi": ("An STGI.", "svm.stgi"),
    "svm.clgi": ("A CLGI.", "svm.clgi"),
    "svm.invlpga": ("An INVLPGA.", "svm.invlpga"),
}

# Where a reference was found, and the key whose latency, less that of an L1 hit, it adds.
_LEVELS = {
    "l2": ("in the L2 cache", "mem.l2_load"),
    "l3": ("in the L3 cache", "mem.l3_load"),
    "memory": ("in memory", "mem.dram_load"),
}

# Who made the reference: the event's domain and what it is. L1 hits are part of what made them and have no event.
_REFERENCES = {
    "walk": ("walk", "A page-table reference"),
    "vmm": ("vmm", "A reference of the VMM to its structures"),
    "data": ("instruction", "A data reference (cache model `all`)"),
}


# Paths of a VMM whose guest runs under VMX or SVM, priced by witnesses as those above. What the hardware itself does, and
# each access to its control structure, are events of their own.
_HARDWARE_PATHS = {
    "vmm.exit_dispatch": "From a VM exit to its handler and from there to VM entry: registers, and whether an interrupt waits.",
    "vmm.exit_cpuid": "A CPUID exit: the leaf found among those that the guest is shown.",
    "vmm.exit_port": "An exit by IN or OUT, up to the device.",
    "vmm.exit_control_register": "An exit by MOV to or from a control register, CLTS or LMSW.",
    "vmm.exit_msr": "An exit by RDMSR or WRMSR.",
    "vmm.exit_halt": "An exit by HLT.",
    "vmm.exit_invlpg": "An exit by INVLPG, up to the shadow.",
    "vmm.exit_exception": "An exit by an exception, up to the handler of its vector.",
    "vmm.exit_interrupt": "An exit by an external interrupt of the host.",
    "vmm.exit_skip": "An exit by an instruction that the VMM only steps over.",
    "vmm.exit_decode": "The guest's instruction fetched through its own page tables and decoded.",
    "vmm.inject": "An event handed to VM entry, which delivers it.",
    "vmm.window": "The interrupt window asked for, or given up.",
    "vmm.nested_fill": "An entry of a nested table made: each table on the way to it, and what surrounds them.",
    "vmm.nested_table": "A page for a nested table allocated, cleared and entered in the table above.",
    "vmm.nested_drop": "Entries of nested tables taken back.",
    "vmm.real_mode_switch": "The guest's segments put into the form of virtual-8086 mode, in which its real mode runs, or back.",
    "vmm.paging_switch": "The guest's paging switched on or off, where the processor's own stays on.",
}

# What happens to nested tables and to guests that the processor cannot hold as they are: counts only.
_HARDWARE_COUNTS = {
    "nested.entry": ("entry", "An entry of a nested table made for a page of 4 KB."),
    "nested.large_entry": ("entry", "An entry of a nested table made for a page of 2 MB or 4 MB."),
    "nested.table": ("table", "A page for a nested table allocated, and cleared."),
    "nested.entry_dropped": ("entry", "An entry of a nested table taken back: its frame is another, or not to be written."),
    "nested.eviction": ("table", "A nested table evicted, because the memory for nested tables is spent."),
    "nested.hole": ("access", "A guest's access to a guest-physical address without RAM, or to RAM that does not take writes."),
    "hardware.identity_paging": ("switch", "A guest without paging put on an identity table, since the processor's stays on."),
    "hardware.real_mode": ("switch", "A guest in real mode put into virtual-8086 mode, since the processor's own is protected."),
    "hardware.reinjection": ("event", "An event injected anew whose delivery had been cut short by an exit."),
}

# Paths of a VMM whose guest is ported to Xen's interface, priced by witnesses as those above. What they cause in the hardware
# (ring crossings, table writes, loads of CR3, INVLPG) are events of their own.
_PARAVIRTUAL_PATHS = {
    "vmm.hypercall": "From the gate of int $0x82 through the table of hypercalls to the handler, and its result to EAX.",
    "vmm.multicall": "A multicall: each of its calls fetched, dispatched and answered.",
    "vmm.small_hypercall": "A hypercall that reads or sets a few words of the domain's.",
    "vmm.set_trap_table": "Entries of a virtual trap table taken.",
    "vmm.set_gdt": "Frames of a descriptor table validated and mapped.",
    "vmm.update_descriptor": "A descriptor checked and written.",
    "vmm.stack_switch": "The kernel's stack for traps from ring 3 set.",
    "vmm.fpu_taskswitch": "CR0.TS set or cleared for the guest.",
    "vmm.bounce": "An exception delivered on the guest kernel's own stack.",
    "vmm.upcall": "Pending events found and the guest's callback entered.",
    "vmm.hypercall_iret": "The iret hypercall: the guest's frame taken from its stack.",
    "vmm.forced_cpuid": "CPUID by the forced emulation of the interface.",
    "vmm.table_update": "Requests of mmu_update for entries of a page table: checked, counted and written.",
    "vmm.directory_update": "Requests of mmu_update for entries of a directory: checked, counted and written.",
    "vmm.machphys_update": "Requests of mmu_update for the machine-to-physical table.",
    "vmm.mapping_update": "update_va_mapping: an entry found by its linear address, checked, counted and written.",
    "vmm.table_scan": "Entries of a frame looked at as it becomes a table of some level, or ceases to be one.",
    "vmm.entry_reference": "References and types of frames taken, or given back, for entries of such a table.",
    "vmm.extended_operation": "Operations of mmuext_op decoded and performed.",
    "vmm.base_switch": "A new base of the page tables: its type taken, the old one given back.",
    "vmm.writable_table": "A guest's store to a page table, emulated and checked (the assist of writable page tables).",
    "vmm.memory_op": "Frames given back or asked for by memory_op.",
    "vmm.event_channel_op": "An operation on event channels other than a notification.",
    "vmm.event_send": "A notification through an event channel, up to the bits in shared memory.",
    "vmm.grant_map": "Grants checked and mapped.",
    "vmm.grant_unmap": "Mapped grants given back.",
    "vmm.grant_copy": "Words copied between frames by grants.",
    "vmm.set_timer": "The one-shot timer of a virtual processor set.",
    "vmm.time_update": "The time record of a virtual processor written.",
    "vmm.timer_interrupt": "The host's timer: the virtual timers that are due.",
    "vmm.physical_interrupt": "An interrupt of a device taken from its controller and made an event of domain 0.",
    "vmm.schedule": "The scheduler: who runs next.",
    "vmm.domain_switch": "The state of one domain put away and that of another taken up, up to the load of CR3.",
    "vmm.console_write": "Characters written by console_io.",
}

# What happens at that interface: counts only.
_PARAVIRTUAL_COUNTS = {
    "xen.frame_validated": ("frame", "A frame of the guest's validated as a table of some level, or for descriptors."),
    "xen.frame_released": ("frame", "Such a frame given back to other uses."),
    "xen.entry_refused": ("entry", "An entry of a page table that the guest asked for and did not get."),
    "xen.hypercall_refused": ("hypercall", "A hypercall that ended with an error."),
    "xen.hypercall_missing": ("hypercall", "A hypercall that this VMM does not know; it ends with -ENOSYS."),
    "xen.event": ("event", "An event made pending."),
    "xen.event_merged": ("event", "An event that was pending already."),
    "xen.domain_switch": ("switch", "The processor given to another domain."),
}


def _own_key(domain: str, unit: str, sentences: dict[str, str]) -> tuple[Event, ...]:
    return tuple(Event(name, domain, unit, sentence, name) for name, sentence in sentences.items())


def _references() -> tuple[Event, ...]:
    return tuple(
        Event(
            f"{who}.reference_{level}",
            domain,
            "reference",
            f"{what} found {where}: the latency above an L1 hit.",
            key,
            "above",
            "mem.l1d_load",
        )
        for who, (domain, what) in _REFERENCES.items()
        for level, (where, key) in _LEVELS.items()
    )


EVENTS: tuple[Event, ...] = (
    *_own_key("instruction", "instruction", _INSTRUCTIONS),
    Event(
        "ins.rep_movs_byte",
        "instruction",
        "byte",
        "A byte copied by REP MOVS.",
        "ins.rep_movs_bytes_per_cycle",
        "inverse",
    ),
    Event(
        "ins.rep_stos_byte",
        "instruction",
        "byte",
        "A byte stored by REP STOS.",
        "ins.rep_stos_bytes_per_cycle",
        "inverse",
    ),
    Event(
        "ins.rep_lods_byte",
        "instruction",
        "byte",
        "A byte loaded by REP LODS.",
        "ins.rep_lods_bytes_per_cycle",
        "inverse",
    ),
    Event(
        "ins.rep_scas_iteration",
        "instruction",
        "iteration",
        "An iteration of REP SCAS, priced as a SCAS.",
        "ins.scas",
    ),
    Event(
        "ins.rep_cmps_iteration",
        "instruction",
        "iteration",
        "An iteration of REP CMPS, priced as a CMPS.",
        "ins.cmps",
    ),
    Event(
        "ins.rep_ins_iteration",
        "instruction",
        "iteration",
        "An INS, or an iteration of REP INS, beside its port access: priced as a STOS.",
        "ins.stos",
    ),
    Event(
        "ins.rep_outs_iteration",
        "instruction",
        "iteration",
        "An OUTS, or an iteration of REP OUTS, beside its port access: priced as a LODS.",
        "ins.lods",
    ),
    Event(
        "ins.mark",
        "instruction",
        "instruction",
        "A marker of the measured region; no processor executes it, so it is free.",
        None,
        "free",
    ),
    *_own_key("instruction", "instruction", _SYSTEM_INSTRUCTIONS),
    *_own_key("transition", "transition", _TRANSITIONS),
    *_own_key("device", "access", _DEVICE_ACCESSES),
    Event(
        "sys.ipi_send_to_handler",
        "device",
        "interrupt",
        "An interprocessor interrupt, from the write to the remote handler.",
        "sys.ipi_send_to_handler",
    ),
    Event("sys.hlt_wake", "idle", "wake", "The way out of the halted state, before the delivery.", "sys.hlt_wake"),
    Event("idle.halt", "idle", "halt", "Time halted, until the next event.", None, "dynamic"),
    Event(
        "walk.native",
        "walk",
        "walk",
        "A page walk after a TLB miss, its references counted as L1 hits.",
        "tlb.walk_native_cached",
    ),
    Event(
        "walk.tlb_l2_hit",
        "walk",
        "hit",
        "A miss of the first TLB level that hits the second.",
        "tlb.l2_hit_penalty",
    ),
    *_references(),
    Event(
        "vmm.unpriced_hook",
        "vmm",
        "call",
        "A hook's own work that no VMM path prices; results that contain it are flagged.",
        "vmm.unpriced_hook",
    ),
    *(Event(name, "vmm", "path", sentence, None, "dynamic") for name, sentence in _VMM_PATHS.items()),
    *_own_key("instruction", "instruction", _X87_INSTRUCTIONS),
    *(Event(name, "vmm", unit, sentence, None, "free") for name, (unit, sentence) in _SHADOW_EVENTS.items()),
    *(Event(name, "translator", unit, sentence, name) for name, (unit, sentence) in _TRANSLATOR_WORK.items()),
    *(Event(name, "translator", unit, sentence, None, "free") for name, (unit, sentence) in _TRANSLATOR_COUNTS.items()),
    Event(
        "vmm.interpret",
        "vmm",
        "instruction",
        "An instruction of the guest's, or the delivery of an event to it, performed by the VMM's interpreter.",
        "vmm.interpret",
    ),
    Event(
        "vmm.interpreter_switch",
        "vmm",
        "switch",
        "The state of the virtual processor taken to the VMM's interpreter and back.",
        "vmm.interpreter_switch",
    ),
    *(Event(name, "transition", "instruction", sentence, key) for name, (sentence, key) in _VIRTUALIZATION.items()),
    *(Event(exit.event, "transition", "exit", f"A VM exit: {exit.meaning}.", exit.price) for exit in EXITS),
    Event(
        "walk.nested_reference",
        "walk",
        "reference",
        "A reference to a nested table (EPT, NPT) in a walk of two dimensions: an access to the cache.",
        "mem.l1d_load",
    ),
    Event(
        "walk.pointer_reference",
        "walk",
        "reference",
        "A page-directory-pointer entry read again by a walk, as PAE paging does under NPT: an access to the cache.",
        "mem.l1d_load",
    ),
    Event(
        "walk.nested_hit",
        "walk",
        "hit",
        "A guest-physical address that the nested TLB translates, without a reference.",
        None,
        "free",
    ),
    Event(
        "walk.nested_skip",
        "walk",
        "hit",
        "A nested walk that begins at its last table, which a paging-structure cache holds.",
        None,
        "free",
    ),
    *(Event(name, "vmm", "path", sentence, None, "dynamic") for name, sentence in _HARDWARE_PATHS.items()),
    *(Event(name, "vmm", unit, sentence, None, "free") for name, (unit, sentence) in _HARDWARE_COUNTS.items()),
    *(Event(name, "vmm", "path", sentence, None, "dynamic") for name, sentence in _PARAVIRTUAL_PATHS.items()),
    *(Event(name, "vmm", unit, sentence, None, "free") for name, (unit, sentence) in _PARAVIRTUAL_COUNTS.items()),
)


N_EVENTS = len(EVENTS)
EVENT_ID = {event.name: number for number, event in enumerate(EVENTS)}


def constant_name(event: str) -> str:
    """The name of an event's constant: `ins.alu_rr` is `EVENT_INS_ALU_RR`."""
    return "EVENT_" + event.upper().replace(".", "_")


EVENT_INS_NOP = 0
EVENT_INS_PAUSE = 1
EVENT_INS_MOV_RR = 2
EVENT_INS_ALU_RR = 3
EVENT_INS_ALU_RI = 4
EVENT_INS_ADC_RR = 5
EVENT_INS_ALU_LOAD = 6
EVENT_INS_ALU_RMW = 7
EVENT_INS_LOAD = 8
EVENT_INS_STORE = 9
EVENT_INS_LEA = 10
EVENT_INS_SHIFT_IMM = 11
EVENT_INS_SHIFT_CL = 12
EVENT_INS_SHLD = 13
EVENT_INS_IMUL = 14
EVENT_INS_MUL = 15
EVENT_INS_DIV32 = 16
EVENT_INS_IDIV32 = 17
EVENT_INS_CMOV = 18
EVENT_INS_BSWAP = 19
EVENT_INS_BT = 20
EVENT_INS_BTS = 21
EVENT_INS_BSF = 22
EVENT_INS_SETCC = 23
EVENT_INS_CBW = 24
EVENT_INS_FLAG = 25
EVENT_INS_SAHF = 26
EVENT_INS_XCHG_RR = 27
EVENT_INS_XADD = 28
EVENT_INS_XLAT = 29
EVENT_INS_PUSH = 30
EVENT_INS_POP = 31
EVENT_INS_PUSHA = 32
EVENT_INS_POPA = 33
EVENT_INS_ENTER = 34
EVENT_INS_LEAVE = 35
EVENT_INS_PUSHF = 36
EVENT_INS_POPF_CPL3 = 37
EVENT_INS_DECIMAL_ADJUST = 38
EVENT_INS_AAM = 39
EVENT_INS_AAD = 40
EVENT_INS_BOUND = 41
EVENT_INS_SALC = 42
EVENT_INS_RDPMC = 43
EVENT_INS_CLD = 44
EVENT_INS_STD = 45
EVENT_INS_LODS = 46
EVENT_INS_STOS = 47
EVENT_INS_MOVS = 48
EVENT_INS_SCAS = 49
EVENT_INS_CMPS = 50
EVENT_INS_REP_START = 51
EVENT_INS_CMPXCHG_RR = 52
EVENT_INS_CMPXCHG8B = 53
EVENT_INS_XCHG_MEM = 54
EVENT_INS_LOCK_ADD_MEM = 55
EVENT_INS_RDTSC = 56
EVENT_INS_CPUID_LEAF0 = 57
EVENT_INS_CPUID_LEAF1 = 58
EVENT_INS_LFENCE = 59
EVENT_INS_MFENCE = 60
EVENT_INS_SFENCE = 61
EVENT_INS_JMP_TAKEN = 62
EVENT_INS_JMP_INDIRECT = 63
EVENT_INS_JCC_PREDICTED = 64
EVENT_INS_LOOP = 65
EVENT_INS_CALL = 66
EVENT_INS_RET = 67
EVENT_INS_INTO = 68
EVENT_INS_LDS = 69
EVENT_INS_REP_MOVS_BYTE = 70
EVENT_INS_REP_STOS_BYTE = 71
EVENT_INS_REP_LODS_BYTE = 72
EVENT_INS_REP_SCAS_ITERATION = 73
EVENT_INS_REP_CMPS_ITERATION = 74
EVENT_INS_REP_INS_ITERATION = 75
EVENT_INS_REP_OUTS_ITERATION = 76
EVENT_INS_MARK = 77
EVENT_SYS_MOV_CR0_WRITE = 78
EVENT_SYS_MOV_CR2_WRITE = 79
EVENT_SYS_MOV_CR3_WRITE = 80
EVENT_SYS_MOV_CR4_WRITE = 81
EVENT_SYS_MOV_CR8_WRITE = 82
EVENT_SYS_MOV_FROM_CR = 83
EVENT_SYS_CLTS = 84
EVENT_SYS_INVLPG = 85
EVENT_SYS_CLI = 86
EVENT_SYS_STI = 87
EVENT_SYS_POPF_CPL0 = 88
EVENT_SYS_PUSHF_CPL0 = 89
EVENT_SYS_LGDT = 90
EVENT_SYS_LIDT = 91
EVENT_SYS_LLDT = 92
EVENT_SYS_LTR = 93
EVENT_SYS_STORE_DESC_REG = 94
EVENT_SYS_LAR_LSL_VERR_VERW = 95
EVENT_SYS_MOV_SREG = 96
EVENT_SYS_POP_SREG = 97
EVENT_SYS_PUSH_SREG = 98
EVENT_SYS_FAR_JMP_SAME_CPL = 99
EVENT_SYS_FAR_CALL_SAME_CPL = 100
EVENT_SYS_FAR_RET_SAME_CPL = 101
EVENT_SYS_RDMSR = 102
EVENT_SYS_WRMSR = 103
EVENT_SYS_WBINVD = 104
EVENT_SYS_INT_N_CPL3_TO_CPL0 = 105
EVENT_SYS_INT_N_SAME_CPL = 106
EVENT_SYS_IRET_CPL0_TO_CPL3 = 107
EVENT_SYS_IRET_SAME_CPL = 108
EVENT_SYS_SYSENTER = 109
EVENT_SYS_SYSEXIT = 110
EVENT_SYS_SYSCALL = 111
EVENT_SYS_SYSRET = 112
EVENT_SYS_EXC_DE = 113
EVENT_SYS_EXC_DB = 114
EVENT_SYS_EXC_BP = 115
EVENT_SYS_EXC_OF = 116
EVENT_SYS_EXC_BR = 117
EVENT_SYS_EXC_UD = 118
EVENT_SYS_EXC_NM = 119
EVENT_SYS_EXC_DF = 120
EVENT_SYS_EXC_TS = 121
EVENT_SYS_EXC_NP = 122
EVENT_SYS_EXC_SS = 123
EVENT_SYS_EXC_GP = 124
EVENT_SYS_EXC_PF = 125
EVENT_SYS_EXC_MF = 126
EVENT_SYS_EXC_AC = 127
EVENT_SYS_EXC_SAME_CPL = 128
EVENT_SYS_EXT_INTERRUPT_DELIVERY = 129
EVENT_SYS_FAR_CALL_GATE_UP = 130
EVENT_SYS_FAR_RET_OUTER = 131
EVENT_SYS_TASK_SWITCH = 132
EVENT_SYS_IN_PORT_LPC = 133
EVENT_SYS_OUT_PORT_LPC = 134
EVENT_SYS_IN_PORT_CHIPSET = 135
EVENT_SYS_MMIO_UNCACHED_READ = 136
EVENT_SYS_LAPIC_MMIO_ACCESS = 137
EVENT_SYS_IPI_SEND_TO_HANDLER = 138
EVENT_SYS_HLT_WAKE = 139
EVENT_IDLE_HALT = 140
EVENT_WALK_NATIVE = 141
EVENT_WALK_TLB_L2_HIT = 142
EVENT_WALK_REFERENCE_L2 = 143
EVENT_WALK_REFERENCE_L3 = 144
EVENT_WALK_REFERENCE_MEMORY = 145
EVENT_VMM_REFERENCE_L2 = 146
EVENT_VMM_REFERENCE_L3 = 147
EVENT_VMM_REFERENCE_MEMORY = 148
EVENT_DATA_REFERENCE_L2 = 149
EVENT_DATA_REFERENCE_L3 = 150
EVENT_DATA_REFERENCE_MEMORY = 151
EVENT_VMM_UNPRICED_HOOK = 152
EVENT_VMM_TRAP_DISPATCH = 153
EVENT_VMM_LIGHT_DISPATCH = 154
EVENT_VMM_CALLOUT = 155
EVENT_VMM_RECOVER = 156
EVENT_VMM_ENTER_CACHE = 157
EVENT_VMM_DIRECT_PORT = 158
EVENT_VMM_DIRECT_STORE = 159
EVENT_VMM_LEAVE_RING = 160
EVENT_VMM_EMULATE_FLAGS = 161
EVENT_VMM_EMULATE_FLAGS_IMAGE = 162
EVENT_VMM_EMULATE_STATE_READ = 163
EVENT_VMM_EMULATE_X87_STORE = 164
EVENT_VMM_EMULATE_CONTROL_REGISTER = 165
EVENT_VMM_EMULATE_DESCRIPTOR_TABLE = 166
EVENT_VMM_EMULATE_SEGMENT = 167
EVENT_VMM_EMULATE_FAR_TRANSFER = 168
EVENT_VMM_EMULATE_PORT = 169
EVENT_VMM_EMULATE_MSR = 170
EVENT_VMM_EMULATE_HALT = 171
EVENT_VMM_EMULATE_INVLPG = 172
EVENT_VMM_EMULATE_SYSTEM_CALL = 173
EVENT_VMM_REFLECT = 174
EVENT_VMM_SHADOW_FILL = 175
EVENT_VMM_SHADOW_FLUSH = 176
EVENT_VMM_SHADOW_TABLE = 177
EVENT_VMM_SHADOW_SWITCH = 178
EVENT_VMM_SHADOW_SYNC = 179
EVENT_VMM_SHADOW_CHECK = 180
EVENT_VMM_TRACED_WRITE = 181
EVENT_VMM_DESCRIPTOR_SHADOW = 182
EVENT_VMM_DEVICE_REQUEST = 183
EVENT_VMM_RESUME = 184
EVENT_INS_X87_MOVE = 185
EVENT_INS_X87_INTEGER = 186
EVENT_INS_X87_DECIMAL = 187
EVENT_INS_X87_ADD = 188
EVENT_INS_X87_COMPARE = 189
EVENT_INS_X87_MULTIPLY = 190
EVENT_INS_X87_DIVIDE = 191
EVENT_INS_X87_SQRT = 192
EVENT_INS_X87_REMAINDER = 193
EVENT_INS_X87_TRANSCENDENTAL = 194
EVENT_INS_X87_CONTROL = 195
EVENT_INS_X87_ENVIRONMENT = 196
EVENT_INS_WAIT = 197
EVENT_INS_FSAVE = 198
EVENT_INS_FRSTOR = 199
EVENT_INS_FXSAVE = 200
EVENT_INS_FXRSTOR = 201
EVENT_SHADOW_ENTRY = 202
EVENT_SHADOW_PIECE = 203
EVENT_SHADOW_LARGE_ENTRY = 204
EVENT_SHADOW_GLOBAL_ENTRY = 205
EVENT_SHADOW_TABLE = 206
EVENT_SHADOW_TABLE_FOUND = 207
EVENT_SHADOW_SPACE_MADE = 208
EVENT_SHADOW_SPACE_FOUND = 209
EVENT_SHADOW_ACCESSED_SET = 210
EVENT_SHADOW_DIRTY_SET = 211
EVENT_SHADOW_TRACED_WRITE = 212
EVENT_SHADOW_WRITE_PROTECTED = 213
EVENT_SHADOW_ENTRY_DROPPED = 214
EVENT_SHADOW_OUT_OF_SYNC = 215
EVENT_SHADOW_SYNCHRONISED = 216
EVENT_SHADOW_RELEASE = 217
EVENT_SHADOW_EVICTION = 218
EVENT_TRANSLATOR_INSTRUCTION = 219
EVENT_TRANSLATOR_CHAIN = 220
EVENT_TRANSLATOR_LOOKUP_MISS = 221
EVENT_TRANSLATOR_PAGE_CHECK = 222
EVENT_TRANSLATOR_INVALIDATION = 223
EVENT_TRANSLATOR_HASH_EMPTIED = 224
EVENT_TRANSLATOR_FLUSH = 225
EVENT_TRANSLATOR_ENTRY = 226
EVENT_TRANSLATOR_UNIT = 227
EVENT_TRANSLATOR_BYTE = 228
EVENT_TRANSLATOR_GUEST_BYTE = 229
EVENT_TRANSLATOR_ADAPTATION = 230
EVENT_TRANSLATOR_RESTORATION = 231
EVENT_TRANSLATOR_LOOKUP_HIT = 232
EVENT_TRANSLATOR_OCCUPIED = 233
EVENT_TRANSLATOR_PROGRAM_TICK = 234
EVENT_VMM_INTERPRET = 235
EVENT_VMM_INTERPRETER_SWITCH = 236
EVENT_VMX_VMXON = 237
EVENT_VMX_VMXOFF = 238
EVENT_VMX_VMCLEAR = 239
EVENT_VMX_VMPTRLD = 240
EVENT_VMX_VMPTRST = 241
EVENT_VMX_VMREAD = 242
EVENT_VMX_VMWRITE = 243
EVENT_VMX_LAUNCH = 244
EVENT_VMX_ENTRY = 245
EVENT_VMX_VMCALL = 246
EVENT_VMX_INVEPT = 247
EVENT_VMX_INVVPID = 248
EVENT_SVM_VMRUN = 249
EVENT_SVM_VMLOAD = 250
EVENT_SVM_VMSAVE = 251
EVENT_SVM_VMCB_READ = 252
EVENT_SVM_VMCB_WRITE = 253
EVENT_SVM_STGI = 254
EVENT_SVM_CLGI = 255
EVENT_SVM_INVLPGA = 256
EVENT_EXIT_EXCEPTION_OR_NMI = 257
EVENT_EXIT_EXTERNAL_INTERRUPT = 258
EVENT_EXIT_TRIPLE_FAULT = 259
EVENT_EXIT_INTERRUPT_WINDOW = 260
EVENT_EXIT_NMI_WINDOW = 261
EVENT_EXIT_TASK_SWITCH = 262
EVENT_EXIT_CPUID = 263
EVENT_EXIT_HLT = 264
EVENT_EXIT_INVD = 265
EVENT_EXIT_INVLPG = 266
EVENT_EXIT_RDPMC = 267
EVENT_EXIT_RDTSC = 268
EVENT_EXIT_VMCALL = 269
EVENT_EXIT_VMCLEAR = 270
EVENT_EXIT_VMLAUNCH = 271
EVENT_EXIT_VMPTRLD = 272
EVENT_EXIT_VMPTRST = 273
EVENT_EXIT_VMREAD = 274
EVENT_EXIT_VMRESUME = 275
EVENT_EXIT_VMWRITE = 276
EVENT_EXIT_VMXOFF = 277
EVENT_EXIT_VMXON = 278
EVENT_EXIT_CR_ACCESS = 279
EVENT_EXIT_DR_ACCESS = 280
EVENT_EXIT_IO_INSTRUCTION = 281
EVENT_EXIT_MSR_READ = 282
EVENT_EXIT_MSR_WRITE = 283
EVENT_EXIT_ENTRY_FAILURE_GUEST_STATE = 284
EVENT_EXIT_ENTRY_FAILURE_MSR_LOADING = 285
EVENT_EXIT_MWAIT = 286
EVENT_EXIT_MONITOR = 287
EVENT_EXIT_PAUSE = 288
EVENT_EXIT_GDTR_IDTR = 289
EVENT_EXIT_LDTR_TR = 290
EVENT_EXIT_EPT_VIOLATION = 291
EVENT_EXIT_EPT_MISCONFIGURATION = 292
EVENT_EXIT_INVEPT = 293
EVENT_EXIT_PREEMPTION_TIMER = 294
EVENT_EXIT_INVVPID = 295
EVENT_EXIT_WBINVD = 296
EVENT_EXIT_RSM = 297
EVENT_EXIT_PUSHF = 298
EVENT_EXIT_POPF = 299
EVENT_EXIT_IRET = 300
EVENT_EXIT_INT_N = 301
EVENT_EXIT_ICEBP = 302
EVENT_EXIT_INVLPGA = 303
EVENT_EXIT_FERR_FREEZE = 304
EVENT_EXIT_VMRUN = 305
EVENT_EXIT_VMLOAD = 306
EVENT_EXIT_VMSAVE = 307
EVENT_EXIT_STGI = 308
EVENT_EXIT_CLGI = 309
EVENT_EXIT_SKINIT = 310
EVENT_WALK_NESTED_REFERENCE = 311
EVENT_WALK_POINTER_REFERENCE = 312
EVENT_WALK_NESTED_HIT = 313
EVENT_WALK_NESTED_SKIP = 314
EVENT_VMM_EXIT_DISPATCH = 315
EVENT_VMM_EXIT_CPUID = 316
EVENT_VMM_EXIT_PORT = 317
EVENT_VMM_EXIT_CONTROL_REGISTER = 318
EVENT_VMM_EXIT_MSR = 319
EVENT_VMM_EXIT_HALT = 320
EVENT_VMM_EXIT_INVLPG = 321
EVENT_VMM_EXIT_EXCEPTION = 322
EVENT_VMM_EXIT_INTERRUPT = 323
EVENT_VMM_EXIT_SKIP = 324
EVENT_VMM_EXIT_DECODE = 325
EVENT_VMM_INJECT = 326
EVENT_VMM_WINDOW = 327
EVENT_VMM_NESTED_FILL = 328
EVENT_VMM_NESTED_TABLE = 329
EVENT_VMM_NESTED_DROP = 330
EVENT_VMM_REAL_MODE_SWITCH = 331
EVENT_VMM_PAGING_SWITCH = 332
EVENT_NESTED_ENTRY = 333
EVENT_NESTED_LARGE_ENTRY = 334
EVENT_NESTED_TABLE = 335
EVENT_NESTED_ENTRY_DROPPED = 336
EVENT_NESTED_EVICTION = 337
EVENT_NESTED_HOLE = 338
EVENT_HARDWARE_IDENTITY_PAGING = 339
EVENT_HARDWARE_REAL_MODE = 340
EVENT_HARDWARE_REINJECTION = 341
EVENT_VMM_HYPERCALL = 342
EVENT_VMM_MULTICALL = 343
EVENT_VMM_SMALL_HYPERCALL = 344
EVENT_VMM_SET_TRAP_TABLE = 345
EVENT_VMM_SET_GDT = 346
EVENT_VMM_UPDATE_DESCRIPTOR = 347
EVENT_VMM_STACK_SWITCH = 348
EVENT_VMM_FPU_TASKSWITCH = 349
EVENT_VMM_BOUNCE = 350
EVENT_VMM_UPCALL = 351
EVENT_VMM_HYPERCALL_IRET = 352
EVENT_VMM_FORCED_CPUID = 353
EVENT_VMM_TABLE_UPDATE = 354
EVENT_VMM_DIRECTORY_UPDATE = 355
EVENT_VMM_MACHPHYS_UPDATE = 356
EVENT_VMM_MAPPING_UPDATE = 357
EVENT_VMM_TABLE_SCAN = 358
EVENT_VMM_ENTRY_REFERENCE = 359
EVENT_VMM_EXTENDED_OPERATION = 360
EVENT_VMM_BASE_SWITCH = 361
EVENT_VMM_WRITABLE_TABLE = 362
EVENT_VMM_MEMORY_OP = 363
EVENT_VMM_EVENT_CHANNEL_OP = 364
EVENT_VMM_EVENT_SEND = 365
EVENT_VMM_GRANT_MAP = 366
EVENT_VMM_GRANT_UNMAP = 367
EVENT_VMM_GRANT_COPY = 368
EVENT_VMM_SET_TIMER = 369
EVENT_VMM_TIME_UPDATE = 370
EVENT_VMM_TIMER_INTERRUPT = 371
EVENT_VMM_PHYSICAL_INTERRUPT = 372
EVENT_VMM_SCHEDULE = 373
EVENT_VMM_DOMAIN_SWITCH = 374
EVENT_VMM_CONSOLE_WRITE = 375
EVENT_XEN_FRAME_VALIDATED = 376
EVENT_XEN_FRAME_RELEASED = 377
EVENT_XEN_ENTRY_REFUSED = 378
EVENT_XEN_HYPERCALL_REFUSED = 379
EVENT_XEN_HYPERCALL_MISSING = 380
EVENT_XEN_EVENT = 381
EVENT_XEN_EVENT_MERGED = 382
EVENT_XEN_DOMAIN_SWITCH = 383
