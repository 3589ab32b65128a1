"""The operations of `core/system.py`: one number and one sentence each.

A decoded system instruction carries its operation in the micro-operation's `dst_shift`. The other fields are:

    src         slot of the register or loaded memory operand that is read
    dst         slot of the register (or temporary, for a memory operand) that is written
    width       operand size in bits: 8, 16 or 32
    imm         vector, port, bytes that RET releases, or a far pointer (offset in bits 31:0, selector in bits 47:32)
    condition   number of the control, debug or segment register; for IN and OUT 1 when the port is in DX
    segment and the address fields: the memory operand of LGDT, SGDT, INVLPG, LDS and indirect far transfers

Names are the SDM's mnemonics (volume 2); `_TO_` tells the two directions of MOV apart.
"""

OPERATIONS = (
    ("CLI", "clear IF, if CPL <= IOPL"),
    ("STI", "set IF, if CPL <= IOPL; interrupts stay held off for one more instruction"),
    ("PUSHF", "push FLAGS or EFLAGS with RF and VM as zero"),
    ("POPF", "pop the flags that the current privilege may change"),
    ("HLT", "stop until an interrupt comes"),
    ("INT_N", "software interrupt through the gate of the immediate vector"),
    ("INT3", "breakpoint trap, vector 3"),
    ("INTO", "overflow trap, vector 4, if OF is set"),
    ("IRET", "return from a handler, to the same or an outer ring"),
    ("IN", "read a port into AL, AX or EAX"),
    ("OUT", "write AL, AX or EAX to a port"),
    ("LGDT", "load GDTR from memory"),
    ("LIDT", "load IDTR from memory"),
    ("SGDT", "store GDTR to memory"),
    ("SIDT", "store IDTR to memory"),
    ("LLDT", "load LDTR from a selector"),
    ("LTR", "load the task register from a selector and mark its TSS busy"),
    ("SLDT", "store the selector of LDTR"),
    ("STR", "store the selector of the task register"),
    ("SMSW", "store the low bits of CR0"),
    ("LMSW", "load bits 3:0 of CR0; PE cannot be cleared"),
    ("CR_TO_REGISTER", "read a control register"),
    ("REGISTER_TO_CR", "write a control register"),
    ("DR_TO_REGISTER", "read a debug register"),
    ("REGISTER_TO_DR", "write a debug register"),
    ("CLTS", "clear the task-switched flag of CR0"),
    ("INVLPG", "forget the translation of one page"),
    ("CPUID", "report identity and features"),
    ("RDTSC", "read the time-stamp counter"),
    ("RDMSR", "read a model-specific register"),
    ("WRMSR", "write a model-specific register"),
    ("SYSENTER", "fast call to ring 0"),
    ("SYSEXIT", "fast return to ring 3"),
    ("LAR", "load access rights, telling by ZF whether the selector may be used"),
    ("LSL", "load a segment limit, telling by ZF whether the selector may be used"),
    ("VERR", "tell by ZF whether a segment may be read"),
    ("VERW", "tell by ZF whether a segment may be written"),
    ("ARPL", "raise the RPL of a selector to that of another"),
    ("REGISTER_TO_SREG", "load a segment register"),
    ("SREG_TO_REGISTER", "store the selector of a segment register"),
    ("PUSH_SREG", "push the selector of a segment register"),
    ("POP_SREG", "pop into a segment register"),
    ("LOAD_FAR_POINTER", "load a segment register and a general register from memory: LDS, LES, LSS, LFS, LGS"),
    ("JMP_FAR", "far jump to an immediate pointer"),
    ("CALL_FAR", "far call to an immediate pointer"),
    ("RET_FAR", "far return, releasing bytes of parameters"),
    ("JMP_FAR_INDIRECT", "far jump through a pointer in memory"),
    ("CALL_FAR_INDIRECT", "far call through a pointer in memory"),
    ("UD2", "raise the invalid-opcode exception"),
    ("WBINVD", "write back and invalidate the caches"),
    ("INVD", "invalidate the caches"),
    ("INT1", "debug trap, vector 1"),
    ("RDPMC", "read a performance counter"),
    ("VMCALL", "call the VMX monitor"),
    ("VMCLEAR", "make a VMCS clear and not current"),
    ("VMLAUNCH", "enter the guest of the current VMCS, which is clear"),
    ("VMPTRLD", "make a VMCS active and current"),
    ("VMPTRST", "store the pointer to the current VMCS"),
    ("VMREAD", "read a field of the current VMCS"),
    ("VMRESUME", "enter the guest of the current VMCS, which is launched"),
    ("VMWRITE", "write a field of the current VMCS"),
    ("VMXOFF", "leave VMX operation"),
    ("VMXON", "enter VMX operation"),
    ("INVEPT", "invalidate translations derived from extended page tables"),
    ("INVVPID", "invalidate translations of a virtual processor"),
    ("VMRUN", "enter the guest of a VMCB"),
    ("VMMCALL", "call the hypervisor"),
    ("VMLOAD", "load more of the processor's state from a VMCB"),
    ("VMSAVE", "save more of the processor's state to a VMCB"),
    ("STGI", "set the global interrupt flag"),
    ("CLGI", "clear the global interrupt flag"),
    ("SKINIT", "start a secure loader, which no processor here has"),
    ("INVLPGA", "forget the translation of one page in an address space"),
)
NUMBER = {name: number for number, (name, _) in enumerate(OPERATIONS)}

SYSTEM_CLI, SYSTEM_STI, SYSTEM_PUSHF, SYSTEM_POPF, SYSTEM_HLT = range(5)
SYSTEM_INT_N, SYSTEM_INT3, SYSTEM_INTO, SYSTEM_IRET, SYSTEM_IN, SYSTEM_OUT = range(5, 11)
SYSTEM_LGDT, SYSTEM_LIDT, SYSTEM_SGDT, SYSTEM_SIDT, SYSTEM_LLDT, SYSTEM_LTR = range(11, 17)
SYSTEM_SLDT, SYSTEM_STR, SYSTEM_SMSW, SYSTEM_LMSW = range(17, 21)
SYSTEM_CR_TO_REGISTER, SYSTEM_REGISTER_TO_CR, SYSTEM_DR_TO_REGISTER, SYSTEM_REGISTER_TO_DR = range(21, 25)
SYSTEM_CLTS, SYSTEM_INVLPG, SYSTEM_CPUID, SYSTEM_RDTSC, SYSTEM_RDMSR, SYSTEM_WRMSR = range(25, 31)
SYSTEM_SYSENTER, SYSTEM_SYSEXIT = range(31, 33)
SYSTEM_LAR, SYSTEM_LSL, SYSTEM_VERR, SYSTEM_VERW, SYSTEM_ARPL = range(33, 38)
SYSTEM_REGISTER_TO_SREG, SYSTEM_SREG_TO_REGISTER, SYSTEM_PUSH_SREG, SYSTEM_POP_SREG = range(38, 42)
SYSTEM_LOAD_FAR_POINTER = 42
SYSTEM_JMP_FAR, SYSTEM_CALL_FAR, SYSTEM_RET_FAR = range(43, 46)
SYSTEM_JMP_FAR_INDIRECT, SYSTEM_CALL_FAR_INDIRECT = range(46, 48)
SYSTEM_UD2, SYSTEM_WBINVD, SYSTEM_INVD = range(48, 51)
SYSTEM_INT1, SYSTEM_RDPMC = range(51, 53)
# What a hypervisor can intercept without an operation of its own: room behind the operations for their numbers.
INTERCEPT_INS, INTERCEPT_OUTS, INTERCEPT_PAUSE, INTERCEPT_RSM = range(124, 128)
# The virtual-machine extensions.
SYSTEM_VMCALL, SYSTEM_VMCLEAR, SYSTEM_VMLAUNCH = NUMBER["VMCALL"], NUMBER["VMCLEAR"], NUMBER["VMLAUNCH"]
SYSTEM_VMPTRLD, SYSTEM_VMPTRST, SYSTEM_VMREAD = NUMBER["VMPTRLD"], NUMBER["VMPTRST"], NUMBER["VMREAD"]
SYSTEM_VMRESUME, SYSTEM_VMWRITE, SYSTEM_VMXOFF = NUMBER["VMRESUME"], NUMBER["VMWRITE"], NUMBER["VMXOFF"]
SYSTEM_VMXON, SYSTEM_INVEPT, SYSTEM_INVVPID = NUMBER["VMXON"], NUMBER["INVEPT"], NUMBER["INVVPID"]
SYSTEM_VMRUN, SYSTEM_VMMCALL = NUMBER["VMRUN"], NUMBER["VMMCALL"]
SYSTEM_VMLOAD, SYSTEM_VMSAVE = NUMBER["VMLOAD"], NUMBER["VMSAVE"]
SYSTEM_STGI, SYSTEM_CLGI, SYSTEM_SKINIT = NUMBER["STGI"], NUMBER["CLGI"], NUMBER["SKINIT"]
SYSTEM_INVLPGA = NUMBER["INVLPGA"]
