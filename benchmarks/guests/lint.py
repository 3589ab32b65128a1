"""Prove that a guest image holds none of the instructions that would keep it from running outside of ring 0.

The images are disassembled from symbol to symbol over every executable section, without a gap. An instruction must be
one of a short list; what cannot be decoded is a finding too. Not on the list are, above all, the sensitive unprivileged
instructions of x86 (Robin and Irvine, "Analysis of the Intel Pentium's Ability to Support a Secure Virtual Machine
Monitor", 2000), far calls and returns, floating point and vector registers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import capstone
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import Section, SymbolTableSection

IMAGES = Path(__file__).resolve().parent / "images"
EXEMPT = frozenset({"hypervisor", "stealth", "tasks"})
"""The guests whose subject these instructions are: virtual-machine extensions, sensitive ones, and far calls to tasks."""

SH_EXECINSTR = 0x4

SENSITIVE_MNEMONICS = frozenset("sgdt sidt sldt str smsw pushf pushfd popf popfd lar lsl verr verw lcall retf".split())
CONDITIONS = "o no b ae e ne be a s ns p np l ge le g".split()
INNOCUOUS_MNEMONICS = frozenset(
    """mov movzx movsx lea push pop pushal popal xchg add adc sub sbb inc dec neg cmp and or xor not test
    shl shr sar shld shrd rol ror mul imul div idiv cdq bt bts btr bsf bsr bswap xadd cmpxchg
    jmp call ret leave loop jecxz nop cld std stc clc cmc
    movsb movsd stosb stosd lodsb lodsd scasb cmpsb cpuid rdtsc int3 ud2 vmcall vmmcall sysenter""".split()
) | {f"{prefix}{condition}" for prefix in ("j", "set", "cmov") for condition in CONDITIONS}
TRAPPING_MNEMONICS = frozenset(
    "cli sti hlt in out lgdt lidt lldt ltr lmsw clts invlpg wbinvd rdmsr wrmsr sysexit ljmp int iretd".split()
)
"""Instructions that fault outside of ring 0 (or do the same there, as a far jump and INT through an open gate do)."""
PORTED_MNEMONICS = frozenset("in out int iretd ud2 rdmsr wrmsr".split())
"""What a kernel that is ported to hypercalls still has of these: what its VMM performs for it, and the roads of traps."""
FORCED_EMULATION = b"\x0f\x0bxen"  # before an instruction that the VMM is to perform
PORTED_SUFFIX = ".xen.elf"
MOV_FROM_CONTROL, MOV_TO_CONTROL = 0x20, 0x22
READABLE_CONTROL = (0, 3)
MOV_FROM_SEGMENT = 0x8C
PUSH_SEGMENT = frozenset({(0x06, 0), (0x0E, 0), (0x16, 0), (0x1E, 0), (0x0F, 0xA0), (0x0F, 0xA8)})
POP_SEGMENT = frozenset({(0x07, 0), (0x17, 0), (0x1F, 0), (0x0F, 0xA1), (0x0F, 0xA9)})
INDIRECT_FAR_CALL = (0xFF, 3)


@dataclass(frozen=True)
class Finding:
    """One place in an image that breaks a rule: linear ``address``, nearest ``symbol``, the ``text``, and ``why``."""

    address: int
    symbol: str
    text: str
    why: str

    def __str__(self) -> str:
        return f"{self.address:#010x} <{self.symbol}> {self.text}: {self.why}"


def why_forbidden(instruction: capstone.CsInsn) -> str | None:
    """The rule that this decoded instruction breaks, or None."""
    first = instruction.opcode[0]
    leading = (first, instruction.opcode[1] if first == 0x0F else 0)
    mnemonic = instruction.mnemonic.split()[-1]
    if mnemonic in SENSITIVE_MNEMONICS or (first, instruction.modrm >> 3 & 7) == INDIRECT_FAR_CALL:
        return "sensitive and unprivileged, or a far transfer"
    if leading[0] == MOV_FROM_SEGMENT:
        return "MOV from a segment register shows the ring"
    if leading in PUSH_SEGMENT:
        return "PUSH of a segment register shows the ring"
    if leading in POP_SEGMENT:
        return "POP of a segment register"
    if instruction.addr_size != 4:
        return "16-bit address size"
    if mnemonic not in INNOCUOUS_MNEMONICS | TRAPPING_MNEMONICS:
        return "not on the list of instructions that guests may use"
    if instruction.group(capstone.x86.X86_GRP_JUMP) and 0x66 in instruction.prefix:
        return "16-bit branch"
    return None


def why_not_ported(instruction: capstone.CsInsn) -> str | None:
    """The rule for kernels in ring 1 of a VMM that this instruction breaks, or None: what would trap is a hypercall there."""
    mnemonic = instruction.mnemonic.split()[-1]
    if mnemonic in TRAPPING_MNEMONICS - PORTED_MNEMONICS:
        return "privileged: a hypercall or a store to shared memory stands in its place"
    if instruction.opcode[0] == 0x0F and instruction.opcode[1] == MOV_TO_CONTROL:
        return "a control register is written by hypercalls"
    from_control = instruction.opcode[0] == 0x0F and instruction.opcode[1] == MOV_FROM_CONTROL
    if from_control and instruction.modrm >> 3 & 7 not in READABLE_CONTROL:
        return "of the control registers only CR0 and CR3 are read"
    return None


def lint_bytes(code: bytes, address: int, symbol: str = "", ported: bool = False) -> Iterator[Finding]:
    """Disassemble ``code``, which lies at linear ``address``; yield what breaks a rule, undecodable bytes included."""
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    disassembler.detail = True
    end = address + len(code)
    if ported:
        code = code.replace(FORCED_EMULATION, b"\x90" * len(FORCED_EMULATION))
    reached = address
    for instruction in disassembler.disasm(code, address):
        reached = instruction.address + instruction.size
        why = why_forbidden(instruction) or (why_not_ported(instruction) if ported else None)
        if why:
            yield Finding(instruction.address, symbol, f"{instruction.mnemonic} {instruction.op_str}".strip(), why)
    if reached != end:
        left = code[reached - address :][:8].hex(" ")
        yield Finding(reached, symbol, left, "no instruction that fits before the next symbol")


def symbol_ranges(elf: ELFFile, section: Section, index: int) -> list[tuple[int, int, str]]:
    """Cut an executable section at its symbols: (start, end, symbol) by address, from its first byte to its last."""
    start = section["sh_addr"]
    end = start + section["sh_size"]
    names = {start: section.name}
    table = elf.get_section_by_name(".symtab")
    if isinstance(table, SymbolTableSection):
        for symbol in table.iter_symbols():
            if symbol["st_shndx"] == index and start <= symbol["st_value"] < end and symbol.name:
                names[symbol["st_value"]] = symbol.name
    cuts = sorted(names)
    return [(here, following, names[here]) for here, following in zip(cuts, [*cuts[1:], end], strict=True)]


def lint_image(image: Path) -> tuple[int, list[Finding]]:
    """Lint every executable section of an ELF32 ``image``.

    An image whose name ends with :data:`PORTED_SUFFIX` is held to the rules of a kernel in ring 1, too.
    Returns the number of bytes of code seen and the findings.
    Raises ``elftools.common.exceptions.ELFError`` if it is no ELF.
    """
    seen = 0
    findings: list[Finding] = []
    ported = image.name.endswith(PORTED_SUFFIX)
    with image.open("rb") as stream:
        elf = ELFFile(stream)
        for index, section in enumerate(elf.iter_sections()):
            if not section["sh_flags"] & SH_EXECINSTR:
                continue
            code = section.data()
            for start, end, symbol in symbol_ranges(elf, section, index):
                offset = start - section["sh_addr"]
                findings.extend(lint_bytes(code[offset : offset + end - start], start, symbol, ported))
                seen += end - start
    return seen, findings


def main() -> int:
    """Command line: images to lint, by default all but the exempt ones. Exit status 1 if anything was found."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("image", nargs="*", type=Path, help="ELF32 images (default: those of this folder)")
    images = parser.parse_args().image or [path for path in sorted(IMAGES.glob("*.elf")) if path.stem not in EXEMPT]
    found = False
    for image in images:
        seen, findings = lint_image(image)
        print(f"{image.name}: {seen} bytes of code, {len(findings)} findings")
        for finding in findings:
            print(f"  {finding}")
        found = found or bool(findings)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
