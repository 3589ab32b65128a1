"""What one row of the instruction table says, and how rows are declared.

A row is one encoding. It names the operation that executes it (`x86virt.core` binds the name), the ledger events that
price its register and memory forms, what privilege it needs, whether it is sensitive in the sense of Popek and
Goldberg, the intercept that can make it exit, and which flags it writes and which it leaves undefined.

Encoding: opcode bytes in hexadecimal, then
    /r        ModRM with a register operand        /0 .. /7   ModRM whose reg field extends the opcode
    +r        the register is in the low three bits of the opcode
    ib iw iz  an immediate of 8 bits, 16 bits, the operand size (16 or 32 bits); ap a far pointer; o an address
    jb jz     a branch displacement of 8 bits or of the operand size
Operands: the manual's codes (SDM volume 2, appendix A.2), with Z for a register in the opcode, A for a far pointer.
"""

from dataclasses import dataclass

ANY, IOPL, CPL0 = "any", "iopl", "cpl0"
ALWAYS = -1  # no feature bit stands for it
INNOCUOUS, PRIVILEGED, SENSITIVE = "innocuous", "privileged", "sensitive_unprivileged"


@dataclass(frozen=True)
class Row:
    """One encoding of one instruction."""

    mnemonic: str
    encoding: str
    operands: tuple[str, ...]
    operation: str  # how it executes: a key of LOWERING in x86virt/core/tables.py
    cost: str  # ledger event that prices the register form; "" when execution charges its own
    cost_memory: str  # ledger event of the memory form
    cost_kernel: str  # ledger event at CPL 0, where it has another price
    privilege: str
    sensitivity: str
    intercept: str  # VMX exit reason that a control can turn this into; "" for none
    flags_written: str  # letters of OSZAPC, D, I
    flags_undefined: str
    lockable: bool
    section: str  # of the SDM
    meaning: str
    silent: bool = False  # sensitive, and deprivileged it completes without a trap and with another effect or answer
    silent_user: bool = False  # the same only in the guest's ring 3, where a virtual IOPL may allow what the real one does not
    condition: int = 0  # condition code, control number or variant that the operation takes
    feature: int = ALWAYS  # bit of CPUID leaf 1 EDX without which the processor does not have the instruction
    capstone: str = ""  # Capstone's mnemonic where it differs from ours in lower case

    @property
    def opcode(self) -> tuple[int, ...]:
        """The opcode bytes."""
        return tuple(int(part[:2], 16) for part in self.encoding.split() if is_byte(part))

    @property
    def modrm(self) -> str:
        """`r`, a digit, or an empty string when there is no ModRM byte."""
        for part in self.encoding.split():
            if part.startswith("/"):
                return part[1:]
        return ""

    @property
    def immediates(self) -> tuple[str, ...]:
        """The immediates in the order of the encoding."""
        return tuple(part for part in self.encoding.split() if part in IMMEDIATES)

    @property
    def name(self) -> str:
        """A unique name: mnemonic and operand codes, as in `mov_ev_gv`."""
        return "_".join([self.mnemonic.lower(), *(code.lower() for code in self.operands)])


IMMEDIATES = ("ib", "iw", "iz", "jb", "jz", "ap", "o")


def is_byte(part: str) -> bool:
    """Whether a part of an encoding is an opcode byte, perhaps with `+r`."""
    digits = part.split("+")[0]
    return len(digits) == 2 and all(character in "0123456789ABCDEF" for character in digits)


def insn(
    mnemonic: str,
    encoding: str,
    operands: str,
    operation: str,
    cost: str,
    meaning: str,
    *,
    memory: str = "",
    kernel: str = "",
    priv: str = ANY,
    sens: str = INNOCUOUS,
    exits: str = "",
    flags: str = "",
    undefined: str = "",
    lock: bool = False,
    section: str = "",
    silent: bool = False,
    silent_user: bool = False,
    condition: int = 0,
    feature: int = ALWAYS,
    capstone: str = "",
) -> Row:
    """Declare a row; `memory` and `kernel` are the events of the memory form and at CPL 0 where they differ."""
    return Row(
        mnemonic=mnemonic,
        encoding=encoding,
        operands=tuple(code for code in operands.replace(" ", "").split(",") if code),
        operation=operation,
        cost=cost,
        cost_memory=memory or cost,
        cost_kernel=kernel or cost,
        privilege=priv,
        sensitivity=sens,
        intercept=exits,
        flags_written=flags,
        flags_undefined=undefined,
        lockable=lock,
        section=section or f"volume 2, {mnemonic}",
        meaning=meaning,
        silent=silent,
        silent_user=silent_user,
        condition=condition,
        feature=feature,
        capstone=capstone,
    )
