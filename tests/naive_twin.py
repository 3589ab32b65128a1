"""The naive twin: counts instruction events by single steps, from each instruction's bytes, with a table of its own.

It takes nothing from the instruction table or the ledger: the bytes at CS:EIP before a step, whether the instruction
retired, and where control went. Capstone says which instruction the bytes are; the table below says what it is to be
priced as, from the sentences of `x86virt list events`.
"""

from __future__ import annotations

from collections import Counter

import capstone
from capstone import x86_const as x86

from x86virt.core.layout import BOARD, HOOK, MARK, OK, PROBE
from x86virt.machine import Machine

ARITHMETIC = {"add", "sub", "and", "or", "xor", "cmp", "test", "inc", "dec", "neg", "not"}
READS_ONLY = {"cmp", "test"}
SHIFTS = {"shl", "sal", "shr", "sar", "rol", "ror", "rcl", "rcr"}
CONDITIONAL = {f"j{name}" for name in "o no b ae e ne be a s ns p np l ge le g ecxz".split()}
PLAIN = {
    "nop": "ins.nop", "pause": "ins.pause", "lea": "ins.lea", "mul": "ins.mul", "div": "ins.div32",
    "idiv": "ins.idiv32", "leave": "ins.leave", "pushal": "ins.pusha", "popal": "ins.popa", "cld": "ins.cld",
    "std": "ins.std", "lodsb": "ins.lods", "lodsd": "ins.lods", "stosb": "ins.stos", "stosd": "ins.stos",
    "movsd": "ins.movs", "movsb": "ins.movs", "call": "ins.call", "ret": "ins.ret", "loop": "ins.loop",
    "cdq": "ins.cbw", "rdtsc": "ins.rdtsc", "bswap": "ins.bswap", "cli": "sys.cli", "sti": "sys.sti",
    "lgdt": "sys.lgdt", "lidt": "sys.lidt", "ltr": "sys.ltr", "lldt": "sys.lldt", "invlpg": "sys.invlpg",
    "rdmsr": "sys.rdmsr", "wrmsr": "sys.wrmsr", "clts": "sys.clts", "ljmp": "sys.far_jmp_same_cpl",
    "sysenter": "sys.sysenter", "sysexit": "sys.sysexit", "in": "sys.in_port_lpc", "out": "sys.out_port_lpc",
    "clc": "ins.flag", "stc": "ins.flag", "cmc": "ins.flag", "lfence": "ins.lfence", "mfence": "ins.mfence",
    "sfence": "ins.sfence",
}  # fmt: skip
REPEATED = {"stosb": ("ins.rep_stos_byte", 1), "stosd": ("ins.rep_stos_byte", 4)}
REPEATED |= {"movsb": ("ins.rep_movs_byte", 1), "movsd": ("ins.rep_movs_byte", 4)}
EXCEPTIONS = {0: "de", 1: "db", 6: "ud", 7: "nm", 10: "ts", 11: "np", 12: "ss", 13: "gp", 14: "pf"}
SEGMENTS = {x86.X86_REG_ES, x86.X86_REG_CS, x86.X86_REG_SS, x86.X86_REG_DS, x86.X86_REG_FS, x86.X86_REG_GS}
CONTROL = {x86.X86_REG_CR0: 0, x86.X86_REG_CR2: 2, x86.X86_REG_CR3: 3, x86.X86_REG_CR4: 4}
REG, IMM, MEM = x86.X86_OP_REG, x86.X86_OP_IMM, x86.X86_OP_MEM

_disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
_disassembler.detail = True


def cost_class(instruction: capstone.CsInsn) -> str:
    """The event that prices an instruction which does not change the CPL and moves no string by REP."""
    name, operands = instruction.mnemonic, instruction.operands
    if name in PLAIN:
        return PLAIN[name]
    if name in CONDITIONAL:
        return "ins.jcc_predicted"
    if name in ("mov", "movzx", "movsx"):
        return move_class(operands)
    if name in ARITHMETIC:
        return arithmetic_class(name, operands)
    if name in SHIFTS and operands[0].type == REG:
        return "ins.shift_imm" if operands[-1].type == IMM else "ins.shift_cl"
    if name == "imul":
        return "ins.imul" if len(operands) > 1 else "ins.mul"
    if name == "jmp":
        return "ins.jmp_taken" if operands[0].type == IMM else "ins.jmp_indirect"
    if name in ("push", "pop"):
        return f"sys.{name}_sreg" if is_one_of(operands[0], SEGMENTS) else f"ins.{name}"
    if name == "xchg" and instruction.bytes in (b"\x66\x87\xdb", b"\x66\x87\xc9"):
        return "ins.mark"
    if name == "xchg":
        return "ins.xchg_mem" if MEM in (operand.type for operand in operands) else "ins.xchg_rr"
    if name.startswith("set"):
        return "ins.setcc"
    raise AssertionError(f"the twin has no class for {name} {instruction.op_str}")


def is_one_of(operand, registers) -> bool:
    """Whether an operand is one of some registers."""
    return operand.type == REG and operand.reg in registers


def move_class(operands) -> str:
    """MOV, MOVZX, MOVSX in all their forms."""
    to, source = operands
    if is_one_of(to, SEGMENTS):
        return "sys.mov_sreg"
    if is_one_of(source, SEGMENTS):
        return "sys.push_sreg"
    if is_one_of(to, CONTROL):
        return f"sys.mov_cr{CONTROL[to.reg]}_write"
    if is_one_of(source, CONTROL):
        return "sys.mov_from_cr"
    if to.type == MEM:
        return "ins.store"
    return "ins.load" if source.type == MEM else "ins.mov_rr"


def arithmetic_class(name: str, operands) -> str:
    """The two-operand arithmetic, and INC, DEC, NEG, NOT."""
    if operands[0].type == MEM:
        return "ins.alu_load" if name in READS_ONLY else "ins.alu_rmw"
    if len(operands) == 1:
        return "ins.alu_rr"
    return {REG: "ins.alu_rr", IMM: "ins.alu_ri", MEM: "ins.alu_load"}[operands[1].type]


class NaiveTwin:
    """Steps a machine to its end and counts."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.cpu = machine.processor.cpu
        self.counts: Counter[str] = Counter()
        self.retired = 0
        self.decoded: dict[bytes, capstone.CsInsn] = {}

    def run(self, most: int) -> None:
        """Step until the run ends."""
        for _ in range(most):
            if self.machine.outcome is not None:
                return
            self.step()
        raise AssertionError(f"not over after {most} steps")

    def step(self) -> None:
        """One instruction: look, execute, count."""
        cpu = self.cpu
        if cpu.halted:
            raise AssertionError("the twin does not follow interrupts: choose a guest without")
        octets = self.machine.bytes_at(int(cpu.rip) + int(cpu.seg[1].seg_base) & 0xFFFFFFFF, 15)
        cpl, retired, accumulator, counter = int(cpu.cpl), int(cpu.retired), int(cpu.gpr[0]), int(cpu.gpr[1])
        outcome = self.machine.processor.run(single=True)
        if outcome == PROBE:  # it is asked for before the instruction executes, which is looked at here
            cpu.probe_skip = 1
            outcome = self.machine.processor.run(single=True)
        assert outcome in (OK, MARK, BOARD, HOOK), f"outcome {outcome}"
        in_vmm = self.machine.vm is not None and cpl == 0
        if int(cpu.retired) > retired or (in_vmm and int(cpu.cpl) != 0):
            self.retired += not in_vmm
            self.count(octets, cpl, accumulator, counter)
        elif outcome != HOOK or not in_vmm:
            self.count_fault(cpl)
        if outcome:
            self.machine.act(outcome)

    def instruction(self, octets: bytes) -> capstone.CsInsn:
        """The instruction that some bytes begin with."""
        if octets not in self.decoded:
            self.decoded[octets] = next(_disassembler.disasm(octets, 0))
        return self.decoded[octets]

    def count(self, octets: bytes, cpl: int, accumulator: int, counter: int) -> None:
        """An instruction has retired."""
        instruction = self.instruction(octets)
        name = instruction.mnemonic
        inward, outward = int(self.cpu.cpl) < cpl, int(self.cpu.cpl) > cpl
        if name in ("int", "int3"):
            self.counts["sys.int_n_cpl3_to_cpl0" if inward else "sys.int_n_same_cpl"] += 1
        elif name == "iretd":
            self.counts["sys.iret_cpl0_to_cpl3" if outward else "sys.iret_same_cpl"] += 1
        elif name == "cpuid":
            self.counts["ins.cpuid_leaf1" if accumulator == 1 else "ins.cpuid_leaf0"] += 1
        elif name.startswith("rep "):
            event, width = REPEATED[name.split()[1]]
            self.counts["ins.rep_start"] += 1
            self.counts[event] += width * (counter - int(self.cpu.gpr[1]))
        else:
            self.counts[cost_class(instruction)] += 1

    def count_fault(self, cpl: int) -> None:
        """An exception was delivered: the gate whose handler control is at names the vector."""
        cpu = self.cpu
        gates = self.machine.bytes_at(int(cpu.idtr_base), 256)
        for vector in range(32):
            octets = gates[8 * vector : 8 * vector + 8]
            if octets[:2] + octets[6:8] == int(cpu.rip).to_bytes(4, "little"):
                inward = int(cpu.cpl) < cpl
                self.counts[f"sys.exc_{EXCEPTIONS[vector]}" if inward else "sys.exc_same_cpl"] += 1
                return
        raise AssertionError(f"no gate leads to {int(cpu.rip):#x}")
