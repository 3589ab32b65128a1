"""What becomes of one guest instruction in the cache: itself, a few injected instructions, or a callout.

Each function writes one instruction of the guest and says whether the unit goes on behind it. The rule of every
sequence: the guest's flags are never written, and one instruction commits (recovery.py).
"""

from collections.abc import Callable
from dataclasses import dataclass

from ...isa.registers import CS, DS, EAX, ECX, EDX, EFLAGS_IF, EFLAGS_IOPL_SHIFT, ES, FS, GS, SS
from .. import layout
from ..emulate.ports import port_bytes
from ..instruction import PREFIXES, STRING_OPCODES, Instruction
from .emitter import CS_PREFIX, GS_PREFIX, JUMP_BYTES, M32, Emitter, OwnAccess, Site, dword, through_gs
from .record import slot, vcpu_slot
from .recovery import Recovery

GOES_ON, ENDS = True, False
OPERAND_PREFIX = 0x66
ADDRESS_PREFIX = 0x67
INNERMOST_RING = 1  # of translated code
FLAG_KINDS = layout.VMM_BASE + layout.FLAG_TABLES
FLAG_INTERRUPTS = FLAG_KINDS + 256
OUTER_FLAG_KINDS = FLAG_INTERRUPTS + 4 * 256
CONTROL_REGISTERS = {0: "cr0", 2: "cr2", 3: "cr3", 4: "cr4"}
X87_IMAGES = ("FNSTENV", "FNSAVE", "FXSAVE")
# Behind these the code that follows may be other code, or be reached in another way.
CHANGES_CODE = frozenset({"REGISTER_TO_CR", "INVLPG", "LMSW", "LGDT", "LLDT", "REGISTER_TO_DR", "WRMSR", "HLT"})
TRANSFERS = frozenset(
    {
        "IRET", "JMP_FAR", "CALL_FAR", "JMP_FAR_INDIRECT", "CALL_FAR_INDIRECT", "RET_FAR", "INT_N", "INT3", "INTO", "INT1",
        "SYSENTER", "SYSEXIT", "UD2",
    }
)  # fmt: skip
# The VMM performs these without an instruction that ring 1 may not execute.
LIGHT = frozenset({"IN", "OUT", "CLI", "STI", "PUSHF", "POPF", "CR_TO_REGISTER", "SGDT", "SIDT", "SLDT", "STR", "SMSW"})
# MOV to memory of a register, of an immediate, of the accumulator; the lowest bit says whether all 32 bits.
STORE, STORE_IMMEDIATE, STORE_ACCUMULATOR = 0x88, 0xC6, 0xA2
PLAIN_STORES = (STORE, STORE_IMMEDIATE, STORE_ACCUMULATOR)
IDENTICAL_SYSTEM = frozenset({"CPUID", "RDTSC", "ARPL", "UD2", "INT1", "INTO"})


@dataclass(frozen=True)
class Context:
    """What a unit depends on besides the bytes it was made from: the guest's code segment and mode.

    `single` units hold one instruction and end in a callout whatever follows; `trap_flag` says that the guest has TF set.
    A program's code is that of one address space: `root` is the guest's CR3, 0 for its kernel, which all have in common.
    """

    selector: int  # the guest's CS
    segment_base: int
    limit: int
    iopl: int
    narrow_stack: bool = False  # the stack pointer is SP
    single: bool = False
    trap_flag: bool = False
    cpl: int = 0
    root: int = 0

    @property
    def ring(self) -> int:
        """The ring in which the code runs translated: the one that it would be given directly."""
        return max(self.cpl, INNERMOST_RING)

    @property
    def sets_interrupt_flag(self) -> bool:
        """Whether the guest's CPL and IOPL let it change IF."""
        return self.cpl <= self.iopl


@dataclass(frozen=True)
class Choices:
    """The optimisation that sequences know, and where the cache's common code begins."""

    inline_emulation: bool
    lookup: int
    outer_lookup: int  # of the guest's outer rings
    call: int  # where callouts begin that stay in the ring of translated code
    direct_callouts: bool
    port: int  # where direct ones begin, to access a port
    store: int  # and to store


class Writer:
    """Writes the instructions of one unit."""

    def __init__(self, emitter: Emitter, context: Context, choices: Choices) -> None:
        self.emitter, self.context, self.choices = emitter, context, choices

    def write(self, instruction: Instruction, eip: int, adapted: bool = False) -> bool:
        """Write one instruction of the guest, `adapted` or as it is; whether the unit goes on behind it."""
        self.instruction, self.eip = instruction, eip
        self.next_eip = eip + instruction.length & M32
        operation = instruction.row.operation
        if adapted:
            return self.simulated()
        if operation in NEAR_TRANSFERS:
            return self.near_transfer(NEAR_TRANSFERS[operation])
        if operation.startswith("system:"):
            return self.system(instruction.operation)
        if operation.startswith("port_string"):
            return self.sensitive()
        if instruction.row.mnemonic in X87_IMAGES:
            self.emitter.callout("x87_pointer")
        return self.identical()

    # -- innocuous instructions -------------------------------------------------------------------------------------------

    def identical(self) -> bool:
        """The instruction itself; one that goes through GS or CS does so with the guest's in GS."""
        override = self.instruction.override
        if self.context.trap_flag and self.instruction.repeated:
            return self.sensitive()  # each iteration traps
        if override in (GS, CS) and self.uses_segment():
            return self.through_segment("guest_gs" if override == GS else "guest_cs")
        self.emitter.commit(self.instruction.octets, Recovery(self.next_eip))
        return GOES_ON

    def uses_segment(self) -> bool:
        """Whether the instruction accesses memory through the segment that a prefix can name."""
        opcode = self.body()[0]
        return self.instruction.has_memory or opcode in STRING_OPCODES or opcode in (0xD7, 0xA0, 0xA1, 0xA2, 0xA3)

    def body(self) -> bytes:
        """The instruction without its prefixes."""
        octets = self.instruction.octets
        first = next(place for place, octet in enumerate(octets) if octet not in PREFIXES)
        return octets[first:]

    def prefixes(self) -> bytes:
        """Its prefixes alone; one that names CS names GS, which then holds the guest's CS."""
        octets = self.instruction.octets
        return bytes(GS_PREFIX if octet == CS_PREFIX else octet for octet in octets[: len(octets) - len(self.body())])

    def through_segment(self, name: str) -> bool:
        """An access through the guest's GS, or through its CS, of which a readable alias goes into GS."""
        e = self.emitter
        e.put(e.load_gs(name))
        e.commit(self.prefixes() + self.body(), Recovery(self.next_eip))
        e.put(e.load_gs("own_gs"))
        return GOES_ON

    # -- near transfers -----------------------------------------------------------------------------------------------------

    def near_transfer(self, sequence: "Callable[[Writer], bool]") -> bool:
        """Jumps, calls and returns; what the translator leaves alone, the VMM performs."""
        instruction = self.instruction
        releases = sequence is Writer.ret and instruction.imm & 0xFFFF
        if instruction.width != 32 or self.context.limit != M32 or (self.context.narrow_stack and releases):
            return self.sensitive(transfers=True)
        return sequence(self)

    def target(self) -> int:
        """Where a direct transfer goes."""
        return self.next_eip + self.instruction.imm & M32

    def chain(self, target: int, before: Recovery | None = None) -> Site:
        """Go on at a constant address of the guest's: a callout, which becomes a jump when it is first taken."""
        kind = "own_step" if self.context.single else "unchained_jump"
        self.emitter.now = Recovery(target, held=self.emitter.now.held)
        return self.emitter.callout(kind, target, before)

    def look_up(self) -> bool:
        """Go on at the guest address in the record's `target`."""
        if self.context.single:
            self.emitter.callout("own_step")
        else:
            self.emitter.jump(self.choices.lookup if self.context.ring == INNERMOST_RING else self.choices.outer_lookup)
        return ENDS

    def jcc(self) -> bool:
        """A conditional jump over the way that falls through to the way that is taken."""
        e, target = self.emitter, self.target()
        e.commit(bytes([0x0F, 0x80 | self.instruction.row.condition]) + dword(JUMP_BYTES), Recovery(self.next_eip))
        branch = len(e.octets) - 4
        self.chain(self.next_eip)
        self.chain(target).branch = branch
        return ENDS

    def loop(self) -> bool:
        """LOOP, LOOPE, LOOPNE and JECXZ, which reach eight bits far, likewise."""
        e, target = self.emitter, self.target()
        counter = b"" if self.instruction.address_width == 32 else bytes([ADDRESS_PREFIX])
        e.commit(counter + bytes([self.body()[0], JUMP_BYTES]), Recovery(self.next_eip))
        self.chain(self.next_eip)
        self.chain(target)
        return ENDS

    def jmp(self) -> bool:
        """A direct jump is nothing but the way on, which counts as it."""
        self.chain(self.target(), self.emitter.now)
        return ENDS

    def call(self) -> bool:
        """The return address on the guest's stack is the guest's."""
        self.emitter.commit(push_constant(self.next_eip), Recovery(self.target()))
        self.chain(self.target())
        return ENDS

    def ret(self) -> bool:
        """The address goes from the stack to the record, whence the look-up takes it."""
        e, release = self.emitter, self.instruction.imm & 0xFFFF
        e.commit(through_gs(b"\x8f\x05", slot("target")), Recovery(None, release=release))
        if release:
            e.put(b"\x8d\xa4\x24" + dword(release))  # LEA ESP, [ESP + release]
            e.now = Recovery(None)
        return self.look_up()

    def jmp_indirect(self) -> bool:
        """Through a register or memory."""
        e, instruction = self.emitter, self.instruction
        if not instruction.has_memory:
            e.commit(e.store(slot("target"), instruction.rm), Recovery(None))
            return self.look_up()
        self.fetch_target()
        e.commit(e.load(ECX, slot("saved_ecx")), Recovery(None))
        return self.look_up()

    def call_indirect(self) -> bool:
        """Through a register or memory; the target is read before anything is pushed."""
        e, instruction = self.emitter, self.instruction
        if instruction.has_memory:
            self.fetch_target()
            e.restore(ECX)
        else:
            e.put(e.store(slot("target"), instruction.rm))
        e.commit(push_constant(self.next_eip), Recovery(None))
        return self.look_up()

    def fetch_target(self) -> None:
        """Move the memory operand to the record; ECX stays spilled."""
        e, override = self.emitter, self.instruction.override
        e.spill(ECX)
        if override in (GS, CS):
            e.put(e.load_gs("guest_gs" if override == GS else "guest_cs"))
        e.put(self.prefixes() + with_register(b"\x8b" + self.body()[1:], ECX))
        if override in (GS, CS):
            e.put(e.load_gs("own_gs"))
        e.put(e.store(slot("target"), ECX))

    # -- sensitive instructions -----------------------------------------------------------------------------------------------

    def system(self, operation: str) -> bool:
        """A system instruction: inline where a few instructions do, else a callout."""
        inline = INLINE.get(operation)
        if inline is not None and self.choices.inline_emulation and not self.context.trap_flag and inline(self):
            return GOES_ON
        if operation in ("SREG_TO_REGISTER", "PUSH_SREG") and self.stored_segment() in (DS, ES, FS):
            return self.identical()  # these hold the guest's selectors
        if operation in IDENTICAL_SYSTEM:
            return self.identical()
        if operation in ("IN", "OUT") and self.access_port():
            return GOES_ON
        return self.sensitive(operation in TRANSFERS or operation in CHANGES_CODE)

    def stored_segment(self) -> int:
        """The segment register that MOV or PUSH stores."""
        instruction = self.instruction
        return instruction.reg if instruction.operation == "SREG_TO_REGISTER" else instruction.row.condition

    def sensitive(self, transfers: bool = False) -> bool:
        """A callout: the VMM performs the instruction on the virtual processor."""
        self.call_vmm("sensitive_instruction", self.instruction.operation in LIGHT)
        return ENDS if transfers else GOES_ON

    def call_vmm(self, kind: str, stays: bool, instruction: Instruction | None = None) -> None:
        """A callout for the whole instruction: one that stays in ring 1 if the VMM can serve it there."""
        if stays and self.context.ring == INNERMOST_RING:
            self.emitter.light_callout(kind, self.choices.call, instruction)
        else:
            self.emitter.callout(kind, instruction=instruction)
        self.emitter.now = Recovery(self.next_eip)

    def simulated(self) -> bool:
        """An instruction that has often written traced memory: the VMM performs it, so that it need not fault first."""
        operation = self.instruction.row.operation
        if operation.startswith(("system:", "port_string")):
            return self.sensitive(self.instruction.operation in TRANSFERS or self.instruction.operation in CHANGES_CODE)
        if self.may_call_directly() and self.body()[0] & ~1 in PLAIN_STORES and not self.prefixes():
            return self.direct_store()
        self.call_vmm("adapted_write", True, self.instruction)
        return ENDS if operation in NEAR_TRANSFERS else GOES_ON

    # -- direct callouts ------------------------------------------------------------------------------------------------------

    def may_call_directly(self) -> bool:
        """Whether a direct callout can serve the guest's kernel here: nothing but the instruction itself is to be seen to."""
        context = self.context
        return self.choices.direct_callouts and context.ring == INNERMOST_RING and context.cpl == 0 and not context.single

    def access_port(self) -> bool:
        """IN or OUT, which CPL 0 may execute whatever IOPL and the TSS say; the VMM finds port, bytes and direction."""
        if not self.may_call_directly():
            return False
        instruction = self.instruction
        operands = port_bytes(instruction) << layout.OPERANDS_BYTES_SHIFT
        operands |= layout.OPERANDS_IN_DX if instruction.row.condition == 1 else instruction.imm & 0xFFFF
        operands |= layout.OPERANDS_OUT if instruction.operation == "OUT" else 0
        self.emitter.spill(EAX)
        self.call_directly("port_access", self.choices.port, operands)
        return True

    def call_directly(self, kind: str, stub: int, operands: int) -> None:
        """The callout itself, with EAX saved."""
        e = self.emitter
        e.put(e.store_constant(slot("operands"), operands))
        e.direct_callout(kind, stub, self.instruction)
        e.now = Recovery(self.next_eip)

    def direct_store(self) -> bool:
        """MOV to memory: the VMM finds what is stored, and where in its segment."""
        e, instruction, body = self.emitter, self.instruction, self.body()
        n = 4 if body[0] & 1 else 1
        operands = n << layout.OPERANDS_BYTES_SHIFT | (layout.OPERANDS_IN_STACK if instruction.segment == SS else 0)
        if body[0] & ~1 == STORE_IMMEDIATE:
            e.put(e.store_constant(slot("operand_value"), instruction.imm))
        else:
            source = EAX if body[0] & ~1 == STORE_ACCUMULATOR else instruction.reg
            e.put(through_gs(bytes([0x88 | body[0] & 1, source << 3 | 5]), slot("operand_value")))
        e.spill(EAX)
        if body[0] & ~1 == STORE_ACCUMULATOR:
            e.put(e.store_constant(slot("operand_offset"), int.from_bytes(body[1:5], "little")))
        else:
            operand = body[1 : len(body) - (n if body[0] & ~1 == STORE_IMMEDIATE else 0)]
            e.put(with_register(b"\x8d" + operand, EAX))  # LEA EAX, its address in the segment
            e.put(e.store(slot("operand_offset"), EAX))
        self.call_directly("adapted_write", self.choices.store, operands)
        return GOES_ON

    # -- inline ---------------------------------------------------------------------------------------------------------------

    def cli(self) -> bool:
        """CLI is one store to the virtual flag."""
        e = self.emitter
        if not self.context.sets_interrupt_flag:
            return False
        e.commit(e.store_constant(slot("interrupt_flag"), 0), Recovery(self.next_eip))
        return True

    def sti(self) -> bool:
        """STI, and the question whether an interrupt has waited for it."""
        e = self.emitter
        if not self.context.sets_interrupt_flag:
            return False
        e.commit(e.store_constant(slot("interrupt_flag"), EFLAGS_IF), Recovery(self.next_eip, held=True))
        e.spill(ECX)
        self.test_pending([])
        return True

    def test_pending(self, skips: list[int]) -> None:
        """With ECX spilled: a callout if an interrupt waits. `skips` are jumps to the end that are still open."""
        e = self.emitter
        e.put(e.load(ECX, slot("pending")))
        e.put(b"\xe3\x00")  # JECXZ to the end
        skips = [*skips, len(e.octets)]
        spilled = e.now
        e.restore(ECX)
        e.callout("open_window")
        e.now = spilled
        for place in skips:
            e.octets[place - 1] = len(e.octets) - place
        e.restore(ECX)

    def pushf(self) -> bool:
        """PUSHF: the processor's image, then IF and IOPL in it as the guest has them."""
        e = self.emitter
        if self.instruction.width != 32 or self.context.narrow_stack:
            return False
        e.spill(ECX)
        e.spill(EDX)
        e.put(b"\x9c")
        e.now = Recovery(self.next_eip, e.now.spilled, unpushed=True)
        e.put(b"\x8b\x0c\x24")  # MOV ECX, [ESP]
        e.put(e.load(EDX, slot("interrupt_flag")))
        own = (self.context.iopl << EFLAGS_IOPL_SHIFT) - EFLAGS_IF
        e.put(b"\x8d\x8c\x11" + dword(own))  # LEA ECX, [ECX + EDX + own]
        e.commit(b"\x89\x0c\x24", Recovery(self.next_eip, e.now.spilled))  # MOV [ESP], ECX
        e.restore(EDX)
        e.restore(ECX)
        return True

    def popf(self) -> bool:
        """POPF of an image that changes nothing but IF and what the processor changes; others are the VMM's.

        Where the guest's CPL does not let it change IF, nothing is left to do behind the processor's own POPF.
        """
        e = self.emitter
        if self.instruction.width != 32 or self.context.narrow_stack:
            return False
        e.spill(ECX)
        self.load_image_byte()
        kinds = FLAG_KINDS if self.context.cpl == 0 else OUTER_FLAG_KINDS
        e.put(through_gs(b"\x0f\xb6\x89", kinds))  # MOVZX ECX, byte GS:[ECX + table]
        e.put(b"\xe3\x00")  # JECXZ to the usual case
        usual = len(e.octets)
        spilled = e.now
        e.restore(ECX)
        e.callout("sensitive_instruction")
        e.put(b"\xeb\x00")  # never reached: the VMM goes on behind the sequence
        e.octets[usual - 1] = len(e.octets) - usual
        e.now = spilled
        if not self.context.sets_interrupt_flag:
            e.commit(b"\x9d", Recovery(self.next_eip, spilled.spilled))
            e.restore(ECX)
            return True
        self.load_image_byte()
        e.put(through_gs(b"\x8b\x0c\x8d", FLAG_INTERRUPTS))  # MOV ECX, GS:[ECX * 4 + table]
        after = Recovery(self.next_eip, spilled.spilled)
        e.commit(b"\x9d", Recovery(self.next_eip, spilled.spilled, unstored=True))
        e.put(e.store(slot("interrupt_flag"), ECX))
        e.now = after
        e.put(b"\xe3\x00")  # JECXZ to the end: interrupts stay off
        self.test_pending([len(e.octets)])
        return True

    def load_image_byte(self) -> None:
        """Bits 15:8 of the image on the stack, in ECX."""
        self.emitter.put(b"\x8b\x0c\x24")  # MOV ECX, [ESP]
        self.emitter.put(b"\x0f\xb6\xcd")  # MOVZX ECX, CH

    def mov_from_cr(self) -> bool:
        """MOV from a control register: a load from the virtual processor's record."""
        if self.context.cpl != 0:
            return False
        e, name = self.emitter, CONTROL_REGISTERS[self.instruction.reg]
        e.commit(e.load(self.instruction.rm, vcpu_slot(name)), Recovery(self.next_eip))
        return True

    def push_segment(self) -> bool:
        """PUSH CS, SS or GS: the guest's selector, from the record."""
        segment = self.stored_segment()
        if segment not in (CS, SS, GS):
            return False
        octets = self.narrowing() + through_gs(b"\xff\x35", slot("selectors", segment))
        self.emitter.commit(OwnAccess(octets), Recovery(self.next_eip))
        return True

    def narrowing(self) -> bytes:
        """The operand-size prefix, if the instruction has 16 bits."""
        return bytes([OPERAND_PREFIX]) if self.instruction.width == 16 else b""

    def mov_from_segment(self) -> bool:
        """MOV from CS, SS or GS: the guest's selector, from the record."""
        e, instruction = self.emitter, self.instruction
        if instruction.reg not in (CS, SS, GS) or (instruction.has_memory and instruction.override in (CS, GS)):
            return False
        place = slot("selectors", instruction.reg)
        if not instruction.has_memory:
            e.commit(OwnAccess(self.narrowing() + e.load(instruction.rm, place)), Recovery(self.next_eip))
            return True
        scratch = next(number for number in (EAX, ECX, EDX) if number not in (instruction.base, instruction.index))
        e.spill(scratch)
        e.put(e.load(scratch, place))
        prefixes = bytes(octet for octet in self.prefixes() if octet != OPERAND_PREFIX) + bytes([OPERAND_PREFIX])
        e.commit(prefixes + with_register(b"\x89" + self.body()[1:], scratch), Recovery(self.next_eip, e.now.spilled))
        e.restore(scratch)
        return True


NEAR_TRANSFERS: dict[str, Callable[[Writer], bool]] = {
    "jcc": Writer.jcc, "loop": Writer.loop, "jmp": Writer.jmp, "call": Writer.call, "ret": Writer.ret,
    "jmp_indirect": Writer.jmp_indirect, "call_indirect": Writer.call_indirect,
}  # fmt: skip
INLINE: dict[str, Callable[[Writer], bool]] = {
    "CLI": Writer.cli, "STI": Writer.sti, "PUSHF": Writer.pushf, "POPF": Writer.popf, "CR_TO_REGISTER": Writer.mov_from_cr,
    "PUSH_SREG": Writer.push_segment, "SREG_TO_REGISTER": Writer.mov_from_segment,
}  # fmt: skip


def push_constant(value: int) -> bytes:
    """PUSH imm32."""
    return b"\x68" + dword(value)


def with_register(octets: bytes, register: int) -> bytes:
    """An opcode byte and its ModRM operand, with another register in the reg field."""
    return octets[:1] + bytes([octets[1] & 0xC7 | register << 3]) + octets[2:]
