"""What gdb is told about the machine: its registers, in which order, and how their values look in a packet.

The first feature is gdb's own for the i386 core and x87; the second one holds the system registers, which gdb shows behind
them.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..inspection import View

if TYPE_CHECKING:
    from ..vmm.state import SegmentState

CORE, SYSTEM = "org.gnu.gdb.i386.core", "org.x86virt.system"
FLAGS = (
    ("CF", 0), ("", 1), ("PF", 2), ("AF", 4), ("ZF", 6), ("SF", 7), ("TF", 8), ("IF", 9), ("DF", 10), ("OF", 11),
    ("NT", 14), ("RF", 16), ("VM", 17), ("AC", 18), ("VIF", 19), ("VIP", 20), ("ID", 21),
)  # fmt: skip


@dataclass(frozen=True)
class Register:
    """A register as gdb sees it."""

    name: str
    bits: int = 32
    kind: str = "int32"
    group: str = ""
    feature: str = CORE

    @property
    def octets(self) -> int:
        """Bytes in a packet."""
        return self.bits // 8


def system(name: str, bits: int = 32, kind: str = "uint32") -> Register:
    """A system register."""
    return Register(name, bits, kind, "system", SYSTEM)


GENERAL = (
    *(Register(name) for name in ("eax", "ecx", "edx", "ebx")),
    Register("esp", kind="data_ptr"), Register("ebp", kind="data_ptr"), Register("esi"), Register("edi"),
    Register("eip", kind="code_ptr"), Register("eflags", kind="i386_eflags"),
)  # fmt: skip
SEGMENTS = tuple(Register(name) for name in ("cs", "ss", "ds", "es", "fs", "gs"))
X87_STACK = tuple(Register(f"st{number}", 80, "i387_ext") for number in range(8))
X87_CONTROL = tuple(
    Register(name, group="float") for name in ("fctrl", "fstat", "ftag", "fiseg", "fioff", "foseg", "fooff", "fop")
)
SYSTEM_REGISTERS = (
    *(system(name, kind="data_ptr") for name in ("cs_base", "ss_base", "ds_base", "es_base", "fs_base", "gs_base")),
    *(system(name) for name in ("cr0", "cr2", "cr3", "cr4", "efer")),
    system("gdtr_base", kind="data_ptr"), system("gdtr_limit"), system("idtr_base", kind="data_ptr"),
    system("idtr_limit"), system("ldtr"), system("tr"),
    *(system(name) for name in ("dr0", "dr1", "dr2", "dr3", "dr6", "dr7")),
    system("cpl"), system("cycles", 64, "uint64"), system("instructions", 64, "uint64"),
)  # fmt: skip
REGISTERS = (*GENERAL, *SEGMENTS, *X87_STACK, *X87_CONTROL, *SYSTEM_REGISTERS)
NUMBER = {register.name: number for number, register in enumerate(REGISTERS)}


def description() -> bytes:
    """The target description, target.xml."""
    lines = ['<?xml version="1.0"?>', '<!DOCTYPE target SYSTEM "gdb-target.dtd">', "<target>"]
    lines.append("<architecture>i386</architecture>")
    for feature in (CORE, SYSTEM):
        lines.append(f'<feature name="{feature}">')
        if feature == CORE:
            lines.append('<flags id="i386_eflags" size="4">')
            lines += [f'<field name="{name}" start="{bit}" end="{bit}"/>' for name, bit in FLAGS]
            lines.append("</flags>")
        for number, register in enumerate(REGISTERS):
            if register.feature == feature:
                group = f' group="{register.group}"' if register.group else ""
                lines.append(
                    f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.kind}"{group} '
                    f'regnum="{number}"/>'
                )
        lines.append("</feature>")
    return "\n".join([*lines, "</target>", ""]).encode()


def values(view: View) -> dict[str, int]:
    """The value of every register by name."""
    registers, segments = view.state()
    cpu = view.machine.processor.cpu
    found = dict(registers)
    for name, segment in segments.items():
        found[name] = segment.selector
        found[f"{name}_base"] = segment.base
    found |= x87_values(registers, segments, int(cpu.fpu_instruction_selector), int(cpu.fpu_operand_selector))
    found["cycles"], found["instructions"] = int(cpu.ticks) >> 6, int(cpu.retired)
    return found


def x87_values(
    registers: dict[str, int], segments: "dict[str, SegmentState]", instruction_selector: int, operand_selector: int
) -> dict[str, int]:
    """The x87 registers as gdb names them: ST(0) is the register at TOP."""
    status = registers["fpu_status"]
    top = status >> 11 & 7
    found = {f"st{number}": registers[f"fpu_r{(top + number) & 7}"] for number in range(8)}
    tags = sum(tag(registers, number) << 2 * number for number in range(8))
    found |= {"fctrl": registers["fpu_control"], "fstat": status, "ftag": tags}
    found |= {"fiseg": instruction_selector, "fioff": registers["fpu_instruction"]}
    found |= {"foseg": operand_selector, "fooff": registers["fpu_operand"], "fop": registers["fpu_opcode"]}
    return found


def tag(registers: dict[str, int], number: int) -> int:
    """The tag of a physical x87 register: 0 valid, 1 zero, 2 special, 3 empty (SDM volume 1, section 8.1.7)."""
    if not registers["fpu_occupied"] >> number & 1:
        return 3
    value = registers[f"fpu_r{number}"]
    exponent, significand = value >> 64 & 0x7FFF, value & (1 << 64) - 1
    if exponent == 0 and significand == 0:
        return 1
    return 0 if 0 < exponent < 0x7FFF and significand >> 63 else 2


def in_hexadecimal(register: Register, value: int) -> bytes:
    """A register's value in a packet: bytes in the order of memory."""
    return (value & (1 << register.bits) - 1).to_bytes(register.octets, "little").hex().encode()
