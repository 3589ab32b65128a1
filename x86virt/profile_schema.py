"""The keys of a processor profile, each declared once: what it is, its unit, its kind, and who reads it.

A key that prices the event of its own name takes its sentence from that event. Every other key is written out here.
`reader` is empty for a key that the simulator reads today (it is *live*: changing it alone changes a price or a
behaviour); otherwise it names the part that will read it.
"""

from dataclasses import dataclass

from x86virt.isa.events import EVENTS

KINDS = {
    "price": "a number of cycles, or the rate that a price is made from",
    "geometry": "a whole number that shapes a TLB, a cache or an address",
    "clock": "a frequency",
    "feature": "0 or 1",
    "identity": "a whole number or a text that CPUID reports",
}


@dataclass(frozen=True)
class Key:
    """One key: its name, kind (of `KINDS`), unit, meaning, and the later part that will read it (empty when live)."""

    name: str
    kind: str
    unit: str
    sentence: str
    reader: str = ""
    characters: tuple[int, int] = (0, 0)  # how many a text may have

    @property
    def live(self) -> bool:
        """Whether something in the simulator reads it yet."""
        return not self.reader

    @property
    def is_text(self) -> bool:
        """Whether its value is a text and not a number."""
        return self.unit == "text"


# What the processor's virtual-machine extensions have, as the capability registers and CPUID 8000000A report it.
_VMX_FEATURES = {
    "virtual_nmis": "Whether VMX has virtual NMIs and NMI-window exiting.",
    "msr_bitmaps": "Whether VMX has MSR bitmaps; without them every RDMSR and WRMSR exits.",
    "true_controls": "Whether controls that are 1 by default may be 0, as CR3 exiting (IA32_VMX_BASIC bit 55).",
    "ins_outs_information": "Whether exits by INS and OUTS report instruction information (IA32_VMX_BASIC bit 54).",
    "secondary_controls": "Whether VMX has secondary processor-based controls.",
    "descriptor_table_exiting": "Whether accesses to GDTR, IDTR, LDTR and TR can exit.",
    "wbinvd_exiting": "Whether WBINVD can exit.",
    "preemption_timer": "Whether VMX has the preemption timer.",
    "pat": "Whether entries and exits can load and save IA32_PAT.",
    "efer": "Whether entries and exits can load and save IA32_EFER.",
    "ept_execute_only": "Whether EPT entries may allow fetches alone.",
    "ept_2mb_pages": "Whether EPT has pages of 2 MB.",
    "ept_1gb_pages": "Whether EPT has pages of 1 GB.",
}
_SVM_FEATURES = {
    "lock": "Whether VM_CR can lock SVME and SVM_KEY unlock it (CPUID 8000000A EDX bit 2).",
    "nrip_save": "Whether #VMEXIT saves the address of the next instruction (bit 3).",
    "flush_by_asid": "Whether VMRUN can flush one ASID alone (bit 6).",
    "decode_assists": "Whether #VMEXIT reports decoded operands and instruction bytes (bit 7).",
}

# Keys that price an event of their own name and are not live, with the part that will charge it.
_LATER_EVENTS = {
    "sys.mov_cr8_write": "long mode",
    "sys.syscall": "long mode",
    "sys.sysret": "long mode",
    "sys.exc_mf": "the floating-point unit",
    "sys.exc_nm": "the floating-point unit",
    "sys.in_port_chipset": "the PCI host bridge",
    "sys.ipi_send_to_handler": "several processors",
}

_WRITTEN_OUT = (
    Key("cpu.mhz", "clock", "MHz", "The core clock, which the time-stamp counter follows."),
    Key("cpu.bus_mhz", "clock", "MHz", "The bus clock, which the timer of the local APIC counts."),
    Key("ins.rep_movs_bytes_per_cycle", "price", "bytes per cycle", "The rate of REP MOVS in the L1 cache."),
    Key("ins.rep_stos_bytes_per_cycle", "price", "bytes per cycle", "The rate of REP STOS in the L1 cache."),
    Key("ins.rep_lods_bytes_per_cycle", "price", "bytes per cycle", "The rate of REP LODS in the L1 cache."),
    Key("mem.l1d_load", "price", "cycles", "The latency of a load that hits the L1 data cache."),
    Key("mem.l2_load", "price", "cycles", "The latency of a load that hits the L2 cache."),
    Key("mem.l3_load", "price", "cycles", "The latency of a load that hits the L3 cache; never charged without one."),
    Key("mem.dram_load", "price", "cycles", "The latency of a load from memory."),
    Key("cache.line_bytes", "geometry", "bytes", "The line size of every cache level."),
    Key("cache.l1d_kb", "geometry", "KB", "The size of the L1 data cache."),
    Key("cache.l1d_ways", "geometry", "ways", "The ways of the L1 data cache."),
    Key("cache.l1i_kb", "geometry", "KB", "The size of the L1 instruction cache, for CPUID."),
    Key("cache.l1i_ways", "geometry", "ways", "Its ways, for CPUID; 0 = a trace cache, which is not reported."),
    Key("cache.l2_kb", "geometry", "KB", "The size of the L2 cache."),
    Key("cache.l2_ways", "geometry", "ways", "The ways of the L2 cache."),
    Key("cache.l3_kb", "geometry", "KB", "The size of the L3 cache; 0 = none."),
    Key("cache.l3_ways", "geometry", "ways", "The ways of the L3 cache; 0 with a size of 0."),
    Key("tlb.itlb_4k_entries", "geometry", "entries", "First-level instruction TLB: entries for 4 KB pages."),
    Key("tlb.itlb_4k_ways", "geometry", "ways", "Its ways; 0 = fully associative."),
    Key("tlb.itlb_4k_l2_entries", "geometry", "entries", "Second-level instruction TLB, 4 KB pages; 0 = none."),
    Key("tlb.itlb_4k_l2_ways", "geometry", "ways", "Its ways; 0 = fully associative or absent."),
    Key("tlb.itlb_large_entries", "geometry", "entries", "Instruction TLB: entries for large pages."),
    Key("tlb.itlb_large_ways", "geometry", "ways", "Its ways; 0 = fully associative."),
    Key("tlb.dtlb_4k_l1_entries", "geometry", "entries", "First-level data TLB: entries for 4 KB pages."),
    Key("tlb.dtlb_4k_l1_ways", "geometry", "ways", "Its ways; 0 = fully associative."),
    Key("tlb.dtlb_4k_l2_entries", "geometry", "entries", "Second-level data TLB, 4 KB pages; 0 = none."),
    Key("tlb.dtlb_4k_l2_ways", "geometry", "ways", "Its ways; 0 = fully associative or absent."),
    Key("tlb.dtlb_large_entries", "geometry", "entries", "Data TLB: entries for large pages."),
    Key("tlb.dtlb_large_ways", "geometry", "ways", "Its ways; 0 = fully associative."),
    Key("tlb.l2_hit_penalty", "price", "cycles", "The extra cycles of a hit in the second TLB level."),
    Key("tlb.walk_native_cached", "price", "cycles", "A page walk whose entries are in the cache."),
    Key("cpuid.vendor", "identity", "text", "The vendor string, 12 characters.", characters=(12, 12)),
    Key("cpuid.brand", "identity", "text", "The brand string, at most 47 characters.", characters=(1, 47)),
    Key("cpuid.highest_leaf", "identity", "number", "The highest basic leaf of CPUID."),
    Key("cpuid.highest_extended_leaf", "identity", "bit mask", "The highest extended leaf of CPUID."),
    Key("cpuid.family", "identity", "number", "The displayed family (extended family added)."),
    Key("cpuid.model", "identity", "number", "The displayed model (extended model in bits 7:4)."),
    Key("cpuid.stepping", "identity", "number", "The stepping."),
    Key("cpuid.features", "identity", "bit mask", "Leaf 1 EDX: what the simulated machine offers of this processor."),
    Key("cpuid.extended_features", "identity", "bit mask", "Leaf 80000001 EDX, as far as the machine offers it."),
    *(
        Key(f"cpuid.descriptors_{name}", "identity", "bit mask", f"Leaf 2 {name.upper()}, Intel's: TLBs and caches by code.")
        for name in ("eax", "ebx", "ecx", "edx")
    ),
    Key("cpuid.physical_address_bits", "geometry", "bits", "The width of a physical address."),
    Key("pipe.mispredict", "price", "cycles", "A mispredicted branch.", "a branch predictor"),
    Key(
        "pipe.cpi_kernel_typical",
        "price",
        "cycles",
        "Cycles per instruction of typical kernel code with warm caches.",
        "VMM paths whose published length is a number of instructions",
    ),
    Key("virt.entry", "price", "cycles", "A VM entry (VMRESUME, VMRUN)."),
    Key("virt.launch", "price", "cycles", "A VMLAUNCH."),
    Key("virt.exit_vmcall", "price", "cycles", "A VM exit by VMCALL."),
    Key("virt.exit_cpuid", "price", "cycles", "A VM exit by CPUID."),
    Key("virt.exit_pf", "price", "cycles", "A VM exit by a page fault."),
    Key("virt.exit_io", "price", "cycles", "A VM exit by port I/O."),
    Key("virt.exit_ept", "price", "cycles", "A VM exit by an EPT violation."),
    Key("virt.ctl_read", "price", "cycles", "A read of the VMCS (VMREAD) or VMCB."),
    Key("virt.ctl_write", "price", "cycles", "A write of the VMCS (VMWRITE) or VMCB."),
    Key("virt.ptrld", "price", "cycles", "A VMPTRLD, or a VMLOAD."),
    Key("virt.clear", "price", "cycles", "A VMCLEAR, or a VMSAVE."),
    Key("virt.ptrst", "price", "cycles", "A VMPTRST."),
    Key("virt.on", "price", "cycles", "A VMXON."),
    Key("virt.off", "price", "cycles", "A VMXOFF."),
    Key("virt.roundtrip_min", "price", "cycles", "The shortest exit and entry.", "`validate`, as a cross-check"),
    Key("feature.hw_virt", "feature", "flag", "Whether VT-x or SVM is there."),
    Key(
        "feature.sensitive_instructions_trap",
        "feature",
        "flag",
        "Whether every sensitive instruction traps at CPL above 0, as on no x86: a processor that can be virtualized.",
    ),
    Key("feature.nested_paging", "feature", "flag", "Whether EPT or NPT is there."),
    Key("feature.tlb_vm_tag", "feature", "flag", "Whether the TLB has VPID or ASID tags."),
    *(
        Key(f"feature.{kind}_{name}", "feature", "flag", sentence)
        for kind, features in (("vmx", _VMX_FEATURES), ("svm", _SVM_FEATURES))
        for name, sentence in features.items()
    ),
    Key("vmx.revision", "geometry", "number", "The VMCS revision identifier; 0 without VMX."),
    Key("vmx.cr3_targets", "geometry", "number", "CR3-target values of a VMCS."),
    Key("vmx.timer_rate", "geometry", "bits", "The bit of the TSC that counts the preemption timer."),
    Key("svm.asids", "geometry", "number", "Address-space identifiers of SVM, the host's included."),
    Key("tlb.nested_entries", "geometry", "entries", "Nested TLB, guest-physical to physical; 0 = none."),
    Key(
        "tlb.nested_table_entries",
        "geometry",
        "entries",
        "Paging-structure cache of nested walks: entries that name a last-level table; 0 = none.",
    ),
)

_OWN_EVENTS = tuple(
    Key(event.name, "price", "cycles", event.sentence, _LATER_EVENTS.get(event.name, ""))
    for event in EVENTS
    if event.price == event.name
)

SCHEMA: dict[str, Key] = {key.name: key for key in (*_OWN_EVENTS, *_WRITTEN_OUT)}
