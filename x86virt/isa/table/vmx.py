"""The instructions of the virtual-machine extensions (VMX). All but VMCALL fault in virtual-8086 and real-address mode.

In VMX non-root operation each of them leaves the guest, whatever its ring. Elsewhere: #UD outside VMX operation (VMXON: while
CR4.VMXE is clear), then #GP(0) outside ring 0, then success or failure by CF and ZF.
"""

from ..rows import CPL0, PRIVILEGED, Row, insn

FLAGS = dict(flags="OSZAPC", priv=CPL0, sens=PRIVILEGED)


def row(mnemonic: str, encoding: str, operands: str, cost: str, meaning: str) -> Row:
    """One VMX instruction, whose exit has its own name."""
    return insn(mnemonic, encoding, operands, f"system:{mnemonic}", f"vmx.{cost}", meaning, exits=mnemonic, **FLAGS)


ROWS: tuple[Row, ...] = (
    row("VMCALL", "0F 01 C1", "", "vmcall", "call the VMX monitor"),
    row("VMLAUNCH", "0F 01 C2", "", "launch", "enter the guest of the current VMCS, which is clear"),
    row("VMRESUME", "0F 01 C3", "", "entry", "enter the guest of the current VMCS, which is launched"),
    row("VMXOFF", "0F 01 C4", "", "vmxoff", "leave VMX operation"),
    row("VMPTRLD", "0F C7 /6", "Mq", "vmptrld", "make a VMCS active and current"),
    row("VMCLEAR", "66 0F C7 /6", "Mq", "vmclear", "make a VMCS clear and not current"),
    row("VMXON", "F3 0F C7 /6", "Mq", "vmxon", "enter VMX operation"),
    row("VMPTRST", "0F C7 /7", "Mq", "vmptrst", "store the pointer to the current VMCS"),
    row("VMREAD", "0F 78 /r", "Ed,Gd", "vmread", "read a field of the current VMCS"),
    row("VMWRITE", "0F 79 /r", "Gd,Ed", "vmwrite", "write a field of the current VMCS"),
    row("INVEPT", "66 0F 38 80 /r", "Gd,Mdq", "invept", "forget translations derived from extended page tables"),
    row("INVVPID", "66 0F 38 81 /r", "Gd,Mdq", "invvpid", "forget translations of a virtual processor"),
)
