"""Random legal instructions on our core and on Unicorn: every row, both code, operand, address and stack sizes.

    python -m tests.fuzz_instructions --cases 1000000 --seed 1

Compares general registers, EIP, the flags that the manual defines, all of data and stack, and whether it faulted. Prints
the cases of each row, and the first divergence with disassembly and both states; the exit status says whether there was
one. Where Unicorn is wrong by the manual, `EXCLUSIONS` says so by name.
"""

import argparse
import pathlib
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import capstone
from bare_machine import ARITHMETIC, DF, EAX, EBP, EBX, ECX, EDI, EDX, ESI, ESP
from sized_machines import CODE_16, OPERANDS, SEGMENTS, SizedMachines
from test_instructions import Case, letters, operand_width, undefined_flags, undefined_result, value

from x86virt.isa.rows import ANY, Row
from x86virt.isa.table import ROWS, x87

# Rows that Unicorn 2.1.4 does not execute as the manual says, and why.
EXCLUSIONS = {
    "hint": "the hint space: Unicorn refuses register forms and takes others for MPX and CET",
    "undefined": "UD1 and RSM: Unicorn executes RSM",
    "TEST /1": "the undocumented aliases F6 /1 and F7 /1, which Unicorn refuses",
    "enter": "with unequal operand and stack sizes Unicorn writes the frame pointer by the stack's size; the 80386 "
    "manual and Bochs by the operand size",
    "ret": "RET releasing 8000 bytes or more: Unicorn extends the sign of the count",
    "bound": "BOUND whose operand reaches past 64 KB with a 16-bit address: the second bound's offset wraps, as in Bochs; "
    "Unicorn reads it beyond",
    "fences": "66 before a fence: an instruction of later processors, undefined on these; Unicorn executes the fence",
    "lock neg": "LOCK NEG: Unicorn takes the flags from the operand, not from the result",
}
SYSTEM = ("PUSHF", "PUSH_SREG", "SREG_TO_REGISTER")
FIXED_REGISTERS = {  # registers whose value an operation without a ModRM byte needs
    "xlat": (EBX,), "string": (ESI, EDI), "string_byte": (ESI, EDI),
}  # fmt: skip
FENCES = ("LFENCE", "MFENCE", "SFENCE")
OVERRIDES = (0x26, 0x36, 0x3E, 0x64, 0x65)
MARGIN = 0x1100  # FS and GS lie up to that much above DS
CENTRE = 0x8000
BATCH = 500


def is_compared(row: Row) -> bool:
    """Whether a row takes part: at CPL 0 without ports, far transfers, and system state."""
    if row in x87.ROWS:
        return False  # fuzz_x87 compares these
    if row.operation in ("hint", "undefined") or row.operation.startswith("port_string"):
        return False
    if row.mnemonic == "TEST" and row.modrm == "1":
        return False
    if row.operation.startswith("system:"):
        return row.operation.removeprefix("system:") in SYSTEM
    return row.privilege == ANY


COMPARED = [row for row in ROWS if is_compared(row)]


@dataclass
class Sizes:
    """What the prefixes and the code segment make of an instruction."""

    code_16: bool
    stack_16: bool
    width: int
    address: int


class Generator:
    """Random instructions with their start states."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def case(self, code_16: bool, stack_16: bool) -> tuple[Case, Sizes]:
        """A random row in a random form."""
        rng = self.rng
        row = rng.choice(COMPARED)
        default = 16 if code_16 else 32
        width, address = (default if rng.random() < 0.6 else 48 - default for _ in range(2))
        if row.mnemonic in FENCES:
            width = default
        sizes = Sizes(code_16, stack_16, width, address)
        registers = [value(rng) for _ in range(8)]
        high = rng.getrandbits(16) << 16 if stack_16 else 0
        registers[ESP] = high | rng.randrange(0x4000, 0xC000)
        registers[EBP] = (rng.getrandbits(16) << 16 if stack_16 else 0) | rng.randrange(0x4000, 0xC000)
        override = rng.choice(OVERRIDES) if rng.random() < 0.25 else 0
        self.implied(row, sizes, registers)
        form, lockable = self.form(row, sizes, registers)
        repeat = rng.choice((0, 0xF2, 0xF3)) if row.operation in ("string", "string_byte") else 0
        locked = lockable and row.lockable and rng.random() < 0.2
        prefixes = [0x66] * (width != default) + [0x67] * (address != default)
        prefixes += [override] * bool(override) + [repeat] * bool(repeat) + [0xF0] * locked
        prefixes += [rng.choice(prefixes)] if prefixes and not repeat and not override and rng.random() < 0.1 else []
        rng.shuffle(prefixes)
        octets = bytes(prefixes) + self.opcode(row) + form + self.immediates(row, sizes)
        eflags = 2 | rng.getrandbits(12) & (ARITHMETIC | DF)
        return Case(row, width, octets, registers, eflags, {}, repeat != 0), sizes

    def opcode(self, row: Row) -> bytes:
        """The opcode bytes; PAUSE's F3 stands with them."""
        head = list(row.opcode)
        if "+r" in row.encoding:
            head[-1] += self.rng.randrange(8)
        return bytes(head)

    def immediates(self, row: Row, sizes: Sizes) -> bytes:
        """Immediates: boundary values and any; an absolute offset lies in the data."""
        rng, octets = self.rng, b""
        for name in row.immediates:
            size = {"ib": 1, "jb": 1, "iw": 2, "iz": sizes.width // 8, "jz": sizes.width // 8, "o": sizes.address // 8}[name]
            number = value(rng)
            if name == "o":
                number = self.target()
            elif name == "iw" and row.operation == "enter":
                number = rng.randrange(0x200)
            octets += (number & (1 << 8 * size) - 1).to_bytes(size, "little")
        return octets

    def target(self) -> int:
        """An offset in the data, far enough from its ends."""
        return self.rng.randrange(MARGIN, OPERANDS - MARGIN - 0x200)

    def implied(self, row: Row, sizes: Sizes, registers: list[int]) -> None:
        """Registers that operations name without a ModRM byte; with 16-bit addresses their upper halves are anything."""
        rng = self.rng
        if sizes.address == 32:
            for register in FIXED_REGISTERS.get(row.operation, ()):
                registers[register] = rng.randrange(MARGIN + 0x400, OPERANDS - MARGIN - 0x600)
        if row.operation.startswith("string"):
            registers[ECX] = rng.choice((0, 1, 2, 3, 17)) | (rng.getrandbits(16) << 16 if sizes.address == 16 else 0)
        if row.operation == "loop":
            registers[ECX] = rng.choice((0, 1, 2, 0xFFFF, 0x10000, 0x10001, 0xFFFFFFFF))
        if row.operation == "div" and rng.random() < 0.7:
            registers[EDX] = rng.choice((0, 1, 0xFFFFFFFF, rng.getrandbits(16)))
        if row.operation == "div":
            registers[EAX] |= registers[EDX] >> 31  # never the one dividend on which Unicorn's host division traps

    # -- the ModRM byte ---------------------------------------------------------------------------------------------

    def form(self, row: Row, sizes: Sizes, registers: list[int]) -> tuple[bytes, bool]:
        """A ModRM byte with what follows, and whether it names memory."""
        if not row.modrm:
            return b"", False
        rng = self.rng
        reg = int(row.modrm) if row.modrm.isdigit() else rng.randrange(6 if "Sw" in row.operands else 8)
        memory_only = any(code.startswith("M") for code in row.operands)
        if row.mnemonic in FENCES or (not memory_only and rng.random() < 0.4):
            return bytes([0xC0 | reg << 3 | rng.randrange(8)]), False
        if sizes.address == 16:
            return self.memory_16(reg), True
        return self.memory_32(row, reg, registers), True

    def memory_16(self, reg: int) -> bytes:
        """Any 16-bit form: whatever the registers hold, the offset stays within 64 KB."""
        rng = self.rng
        mod, rm = rng.randrange(3), rng.randrange(8)
        size = 2 if mod == 0 and rm == 6 else mod
        return bytes([mod << 6 | reg << 3 | rm]) + rng.randbytes(size)

    def memory_32(self, row: Row, reg: int, registers: list[int]) -> bytes:
        """Any 32-bit form, its displacement or base register mended so that the operand lies in the data."""
        rng = self.rng
        mod, rm = rng.randrange(3), rng.randrange(8)
        sib, base, index, scale = b"", rm, None, 0
        if rm == 4:
            sib = bytes([rng.randrange(256)])
            base, index, scale = sib[0] & 7, sib[0] >> 3 & 7, sib[0] >> 6
            index = None if index == 4 else index
        alone = mod == 0 and base == EBP
        bit_string = row.operation == "bit_string"
        if bit_string and reg not in (base, index, ESP):
            registers[reg] = rng.randrange(-0x10000, 0x10000) & 0xFFFFFFFF
        elif bit_string:
            registers[reg] &= 0xFFFF
            if reg == ESP:
                registers[reg] |= 0x4000
        if not alone and (base in (ESP, EBP) or base == index or (bit_string and base == reg)):
            mod = 2
        offset = self.target() if not bit_string else rng.randrange(CENTRE, CENTRE + 0x1000)
        rest = 0 if index is None else registers[index] << scale
        if alone or mod == 2:
            disp = offset - rest - (0 if alone else registers[base])
            return bytes([mod << 6 | reg << 3 | rm]) + sib + (disp & 0xFFFFFFFF).to_bytes(4, "little")
        disp = rng.randrange(-128, 128) if mod == 1 else 0
        registers[base] = (offset - rest - disp) & 0xFFFFFFFF
        return bytes([mod << 6 | reg << 3 | rm]) + sib + (disp & 0xFF).to_bytes(1, "little") * mod


class Fuzzer:
    """Runs cases on both machines and keeps count."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.generator = Generator(self.rng)
        self.machines = SizedMachines()
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.excluded: Counter[str] = Counter()
        self.divergences: list[str] = []

    def run(self, cases: int, most_divergences: int = 1) -> None:
        """Compare so many cases, in batches of one code and stack size."""
        machines = self.machines
        machines.set_operands(self.rng.randbytes(OPERANDS))
        while sum(self.counts.values()) < cases and len(self.divergences) < most_divergences:
            code_16, stack_16 = self.rng.random() < 0.5, self.rng.random() < 0.5
            machines.arrange(code_16, stack_16)
            for _ in range(min(BATCH, cases - sum(self.counts.values()))):
                self.one(code_16, stack_16)
                if len(self.divergences) >= most_divergences:
                    break

    def one(self, code_16: bool, stack_16: bool) -> None:
        """One case."""
        case, sizes = self.generator.case(code_16, stack_16)
        excuse = exclusion(case, sizes)
        if excuse:
            self.excluded[excuse] += 1
            return
        machines = self.machines
        before = machines.operands()[0]
        theirs = machines.theirs(case.octets, case.registers, case.eflags, case.repeats)
        ours = machines.ours(case.octets, case.registers, case.eflags)
        difference = self.compare(case, ours, theirs, before)
        self.counts[f"{case.row.name} ({case.row.encoding})"] += 1
        if difference:
            self.divergences.append(describe(case, sizes, difference, ours, theirs))
            machines.set_operands(before)

    def compare(self, case: Case, ours, theirs, before: bytes) -> str:
        """What differs, an empty string if nothing that is defined."""
        if ours[0] or theirs[0]:
            self.faults[ours[0] or theirs[0]] += 1
            self.machines.set_operands(before)
            if ours[0] != theirs[0]:
                return "fault"
            changed = [n for n in range(8) if n != ESP and ours[1][n] != case.registers[n]]
            return "registers of the faulting instruction" if changed else ""
        differences = []
        if ours[1] != theirs[1]:
            differences.append("registers")
        if ours[2] != theirs[2]:
            differences.append("EIP")
        if (ours[3] ^ theirs[3]) & (ARITHMETIC | DF) & ~undefined_flags(case):
            differences.append("EFLAGS")
        first, second = self.machines.operands()
        if first != second:
            place = next(n for n in range(OPERANDS) if first[n] != second[n])
            differences.append(f"memory from {place:#x}: {first[place : place + 8].hex()}/{second[place : place + 8].hex()}")
        return ", ".join(differences)


def exclusion(case: Case, sizes: Sizes) -> str:
    """Why a case is not compared: an undefined result, or a name of EXCLUSIONS; else an empty string."""
    if case.row.operation == "enter" and sizes.width != (16 if sizes.stack_16 else 32):
        return "enter"
    if case.row.operation == "bound" and sizes.address == 16 and reaches_past_64_kb(case):
        return "bound"
    if case.row.operation == "ret" and case.row.immediates and case.octets[-1] >= 0x80:
        return "ret"
    if case.row.mnemonic == "NEG" and 0xF0 in case.octets[:4]:
        return "lock neg"
    return undefined_result(case)


def reaches_past_64_kb(case: Case) -> bool:
    """Whether the second half of a memory operand with 16-bit addressing would begin beyond offset FFFF."""
    form = case.octets[case.octets.index(0x62) + 1 :]
    mod, rm = form[0] >> 6, form[0] & 7
    bases = ((EBX, ESI), (EBX, EDI), (EBP, ESI), (EBP, EDI), (ESI,), (EDI,), (EBP,), (EBX,))[rm]
    bases = () if mod == 0 and rm == 6 else bases
    displacement = int.from_bytes(form[1:], "little", signed=True)
    offset = sum(case.registers[base] for base in bases) + displacement & 0xFFFF
    return offset + case.width // 8 > 0xFFFF


def describe(case: Case, sizes: Sizes, difference: str, ours, theirs) -> str:
    """A divergence with disassembly and both states."""
    mode = capstone.CS_MODE_16 if sizes.code_16 else capstone.CS_MODE_32
    engine = capstone.Cs(capstone.CS_ARCH_X86, mode)
    text = " ".join(" ".join(line[2:]) for line in engine.disasm_lite(case.octets, 0, 1)) or "(not disassembled)"
    lines = [
        f"{case.octets.hex()}  {text}  [{case.row.name}; {sizes}]: {difference}",
        "  before  " + state("", case.registers, SEGMENTS[CODE_16][0] if sizes.code_16 else 0, case.eflags),
        "  ours    " + state(*ours),
        "  Unicorn " + state(*theirs),
        f"  undefined flags {undefined_flags(case):x}, operand width {operand_width(case.row, case.width)}, "
        f"declared {letters(case.row.flags_written):x}",
    ]
    return "\n".join(lines)


def state(fault: str, registers: list[int], eip: int, eflags: int) -> str:
    """One line of a processor's state."""
    names = ("eax", "ecx", "edx", "ebx", "esp", "ebp", "esi", "edi")
    values = " ".join(f"{name} {content:08x}" for name, content in zip(names, registers, strict=True))
    return f"{values} eip {eip:x} eflags {eflags:x} {fault}"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--divergences", type=int, default=1, help="stop after so many")
    parser.add_argument("--quiet", action="store_true", help="no counts per row")
    options = parser.parse_args()
    started = time.monotonic()
    fuzzer = Fuzzer(options.seed)
    fuzzer.run(options.cases, options.divergences)
    if not options.quiet:
        for name, count in sorted(fuzzer.counts.items()):
            print(f"{count:8d}  {name}")
    for title, counter in (("faults in both", fuzzer.faults), ("not compared", fuzzer.excluded)):
        print(f"{title}: " + (", ".join(f"{count} {name}" for name, count in sorted(counter.items())) or "none"))
    total = sum(fuzzer.counts.values())
    print(f"{total} cases of {len(fuzzer.counts)} rows (of {len(COMPARED)}), seed {options.seed}: "
          f"{len(fuzzer.divergences)} divergences, {time.monotonic() - started:.0f} s")  # fmt: skip
    for text in fuzzer.divergences:
        print(text)
    return int(bool(fuzzer.divergences))


if __name__ == "__main__":
    sys.exit(main())
