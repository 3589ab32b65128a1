"""System instructions: flags and interrupts, segments, descriptor tables, control registers, far transfers, ports.

The column that teaches is `sens`. A privileged instruction traps when it is executed deprivileged; a sensitive
unprivileged one does not, and answers with (or changes) the state of the processor instead of the virtual machine's:
`silent=True` marks those of them that then complete with another effect (J. S. Robin and C. E. Irvine, USENIX
Security 2000; Popek and Goldberg, CACM 1974).
"""

from ..registers import FEATURE_MSR, FEATURE_SEP, FEATURE_TSC
from ..rows import CPL0, IOPL, PRIVILEGED, SENSITIVE, Row, insn

SEGMENTS = ("ES", "CS", "SS", "DS", "FS", "GS")
LEAK = dict(sens=SENSITIVE, silent=True)
LOADS = dict(sens=SENSITIVE)
KERNEL = dict(priv=CPL0, sens=PRIVILEGED)
BY_IOPL = dict(priv=IOPL, sens=PRIVILEGED)
STORE_COST = "sys.store_desc_reg"
CHECK_COST = "sys.lar_lsl_verr_verw"


def port(mnemonic: str, opcode: str, operands: str, meaning: str) -> Row:
    """IN or OUT; the port is in DX when the operand says so."""
    cost = "sys.in_port_lpc" if mnemonic == "IN" else "sys.out_port_lpc"
    through_dx = int("DX" in operands)
    return insn(mnemonic, opcode, operands, f"system:{mnemonic}", cost, meaning, exits="IO_INSTRUCTION", condition=through_dx, **BY_IOPL)


ROWS: tuple[Row, ...] = (
    # flags, interrupts, halt
    insn("CLI", "FA", "", "system:CLI", "sys.cli", "clear IF", flags="I", **BY_IOPL),
    insn("STI", "FB", "", "system:STI", "sys.sti", "set IF after the next instruction", flags="I", **BY_IOPL),
    insn("PUSHF", "9C", "", "system:PUSHF", "ins.pushf", "push EFLAGS, IF and IOPL with them", kernel="sys.pushf_cpl0",
         capstone="pushfd", **LEAK),
    insn("POPF", "9D", "", "system:POPF", "ins.popf_cpl3", "pop EFLAGS; drops IF and IOPL silently without privilege",
         flags="OSZAPCDI", kernel="sys.popf_cpl0", capstone="popfd", **LEAK),
    insn("HLT", "F4", "", "system:HLT", "", "wait for an interrupt", exits="HLT", **KERNEL),
    insn("INT", "CD ib", "Ib", "system:INT_N", "", "software interrupt", sens=SENSITIVE),
    insn("INT3", "CC", "", "system:INT3", "", "breakpoint", sens=SENSITIVE),
    insn("INT1", "F1", "", "system:INT1", "", "debug trap", sens=SENSITIVE),
    insn("INTO", "CE", "", "system:INTO", "ins.into", "overflow trap if OF is set", sens=SENSITIVE),
    insn("IRET", "CF", "", "system:IRET", "", "return from an interrupt", capstone="iretd", flags="OSZAPCDI",
         silent_user=True, **LOADS),
    # ports
    port("IN", "E4 ib", "AL,Ib", "read a port"),
    port("IN", "E5 ib", "rAX,Ib", "read a port"),
    port("IN", "EC", "AL,DX", "read a port"),
    port("IN", "ED", "rAX,DX", "read a port"),
    port("OUT", "E6 ib", "Ib,AL", "write a port"),
    port("OUT", "E7 ib", "Ib,rAX", "write a port"),
    port("OUT", "EE", "DX,AL", "write a port"),
    port("OUT", "EF", "DX,rAX", "write a port"),
    # descriptor-table registers
    insn("SLDT", "0F 00 /0", "Ev", "system:SLDT", STORE_COST, "store the LDT selector", exits="LDTR_TR", **LEAK),
    insn("STR", "0F 00 /1", "Ev", "system:STR", STORE_COST, "store the task register", exits="LDTR_TR", **LEAK),
    insn("LLDT", "0F 00 /2", "Ew", "system:LLDT", "sys.lldt", "load the LDT register", exits="LDTR_TR", **KERNEL),
    insn("LTR", "0F 00 /3", "Ew", "system:LTR", "sys.ltr", "load the task register", exits="LDTR_TR", **KERNEL),
    insn("VERR", "0F 00 /4", "Ew", "system:VERR", CHECK_COST, "may this segment be read?", flags="Z", **LEAK),
    insn("VERW", "0F 00 /5", "Ew", "system:VERW", CHECK_COST, "may this segment be written?", flags="Z", **LEAK),
    insn("SGDT", "0F 01 /0", "Ms", "system:SGDT", STORE_COST, "store the GDT register", exits="GDTR_IDTR", **LEAK),
    insn("SIDT", "0F 01 /1", "Ms", "system:SIDT", STORE_COST, "store the IDT register", exits="GDTR_IDTR", **LEAK),
    insn("LGDT", "0F 01 /2", "Ms", "system:LGDT", "sys.lgdt", "load the GDT register", exits="GDTR_IDTR", **KERNEL),
    insn("LIDT", "0F 01 /3", "Ms", "system:LIDT", "sys.lidt", "load the IDT register", exits="GDTR_IDTR", **KERNEL),
    insn("SMSW", "0F 01 /4", "Ev", "system:SMSW", STORE_COST, "store the low word of CR0", exits="CR_ACCESS", **LEAK),
    insn("LMSW", "0F 01 /6", "Ew", "system:LMSW", "sys.mov_cr0_write", "load the low bits of CR0", exits="CR_ACCESS", **KERNEL),
    insn("INVLPG", "0F 01 /7", "Mb", "system:INVLPG", "sys.invlpg", "forget the translation of a page", exits="INVLPG", **KERNEL),
    insn("LAR", "0F 02 /r", "Gv,Ew", "system:LAR", CHECK_COST, "load access rights", flags="Z", **LEAK),
    insn("LSL", "0F 03 /r", "Gv,Ew", "system:LSL", CHECK_COST, "load a segment limit", flags="Z", **LEAK),
    # control and debug registers, caches, MSRs, identity, time
    insn("CLTS", "0F 06", "", "system:CLTS", "sys.clts", "clear CR0.TS", exits="CR_ACCESS", **KERNEL),
    insn("INVD", "0F 08", "", "system:INVD", "sys.wbinvd", "invalidate caches", exits="INVD", **KERNEL),
    insn("WBINVD", "0F 09", "", "system:WBINVD", "sys.wbinvd", "write back and invalidate caches", exits="WBINVD", **KERNEL),
    insn("UD2", "0F 0B", "", "system:UD2", "", "raise #UD"),
    insn("UD1", "0F B9 /r", "Gv,Ev", "undefined", "", "raise #UD"),
    insn("RSM", "0F AA", "", "undefined", "", "leave system-management mode; #UD outside it, where this machine always is"),
    insn("RDPMC", "0F 33", "", "system:RDPMC", "ins.rdpmc", "read a performance counter", exits="RDPMC"),
    *(  # CR1 and CR5 to CR7 are no registers: #UD, in any ring
        insn("MOV", f"0F 20 /{n}", "Rd,Cd", "system:CR_TO_REGISTER", "sys.mov_from_cr", "read a control register", exits="CR_ACCESS", **KERNEL)
        for n in (0, 2, 3, 4)
    ),
    insn("MOV", "0F 21 /r", "Rd,Dd", "system:DR_TO_REGISTER", "sys.mov_from_cr", "read a debug register", exits="DR_ACCESS", **KERNEL),
    *(
        insn("MOV", f"0F 22 /{n}", "Cd,Rd", "system:REGISTER_TO_CR", f"sys.mov_cr{n}_write", "write a control register",
             exits="CR_ACCESS", flags="OSZAPC", undefined="OSZAPC", **KERNEL)
        for n in (0, 2, 3, 4)
    ),
    insn("MOV", "0F 23 /r", "Dd,Rd", "system:REGISTER_TO_DR", "sys.mov_cr2_write", "write a debug register", exits="DR_ACCESS", **KERNEL),
    insn("WRMSR", "0F 30", "", "system:WRMSR", "sys.wrmsr", "write a model-specific register", exits="MSR_WRITE",
         feature=FEATURE_MSR, **KERNEL),
    insn("RDTSC", "0F 31", "", "system:RDTSC", "ins.rdtsc", "read the time-stamp counter", exits="RDTSC", feature=FEATURE_TSC),
    insn("RDMSR", "0F 32", "", "system:RDMSR", "sys.rdmsr", "read a model-specific register", exits="MSR_READ",
         feature=FEATURE_MSR, **KERNEL),
    insn("SYSENTER", "0F 34", "", "system:SYSENTER", "sys.sysenter", "fast call to ring 0", sens=SENSITIVE, feature=FEATURE_SEP),
    insn("SYSEXIT", "0F 35", "", "system:SYSEXIT", "sys.sysexit", "fast return to ring 3", feature=FEATURE_SEP, **KERNEL),
    insn("CPUID", "0F A2", "", "system:CPUID", "", "identity and features", exits="CPUID"),
    # SVM: #UD without EFER.SVME and outside protected mode, then #GP(0) outside ring 0
    *(
        insn(name, f"0F 01 {opcode}", "", f"system:{name}", "", meaning, exits=name, **KERNEL)
        for name, opcode, meaning in (
            ("VMRUN", "D8", "enter a guest"),
            ("VMLOAD", "DA", "load state from a VMCB"),
            ("VMSAVE", "DB", "save state to a VMCB"),
            ("STGI", "DC", "set the global interrupt flag"),
            ("CLGI", "DD", "clear the global interrupt flag"),
            ("SKINIT", "DE", "start a secure loader"),
            ("INVLPGA", "DF", "forget a translation of an address space"),
        )
    ),
    insn("VMMCALL", "0F 01 D9", "", "system:VMMCALL", "", "call the hypervisor; #UD if it does not intercept", exits="VMMCALL"),
    # segment registers
    insn("MOV", "8C /r", "Ev,Sw", "system:SREG_TO_REGISTER", "ins.mov_rr", "store a segment selector", memory="ins.store", **LEAK),
    insn("MOV", "8E /r", "Sw,Ew", "system:REGISTER_TO_SREG", "sys.mov_sreg", "load a segment register", **LOADS),
    *(
        insn("PUSH", encoding, name, "system:PUSH_SREG", "sys.push_sreg", "push a segment selector",
             condition=SEGMENTS.index(name), **LEAK)
        for name, encoding in (("ES", "06"), ("CS", "0E"), ("SS", "16"), ("DS", "1E"), ("FS", "0F A0"), ("GS", "0F A8"))
    ),
    *(
        insn("POP", encoding, name, "system:POP_SREG", "sys.pop_sreg", "pop into a segment register",
             condition=SEGMENTS.index(name), **LOADS)
        for name, encoding in (("ES", "07"), ("SS", "17"), ("DS", "1F"), ("FS", "0F A1"), ("GS", "0F A9"))
    ),
    *(
        insn(f"L{name}", encoding, "Gv,Mp", "system:LOAD_FAR_POINTER", "ins.lds", "load a far pointer",
             condition=SEGMENTS.index(name), **LOADS)
        for name, encoding in (("ES", "C4 /r"), ("DS", "C5 /r"), ("SS", "0F B2 /r"), ("FS", "0F B4 /r"), ("GS", "0F B5 /r"))
    ),
    insn("ARPL", "63 /r", "Ew,Gw", "system:ARPL", CHECK_COST, "raise a selector's RPL", flags="Z"),
    # far transfers
    insn("JMPF", "EA ap", "Ap", "system:JMP_FAR", "", "far jump", capstone="ljmp", **LOADS),
    insn("CALLF", "9A ap", "Ap", "system:CALL_FAR", "", "far call; pushes CS, whose RPL is the ring", capstone="lcall", **LEAK),
    insn("JMPF", "FF /5", "Mp", "system:JMP_FAR_INDIRECT", "", "far jump through memory", capstone="jmp", **LOADS),
    insn("CALLF", "FF /3", "Mp", "system:CALL_FAR_INDIRECT", "", "far call through memory", capstone="call", **LEAK),
    insn("RETF", "CB", "", "system:RET_FAR", "", "far return", capstone="retf", **LOADS),
    insn("RETF", "CA iw", "Iw", "system:RET_FAR", "", "far return and release parameters", capstone="retf", **LOADS),
)
