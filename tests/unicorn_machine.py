"""The oracle for single instructions: Unicorn in 32-bit protected mode, with the same RAM layout as `bare_machine`."""

import unicorn
from bare_machine import CODE, DATA, GDT, RAM_BYTES, STACK_END
from unicorn import x86_const as x86

GENERAL = (
    x86.UC_X86_REG_EAX, x86.UC_X86_REG_ECX, x86.UC_X86_REG_EDX, x86.UC_X86_REG_EBX,
    x86.UC_X86_REG_ESP, x86.UC_X86_REG_EBP, x86.UC_X86_REG_ESI, x86.UC_X86_REG_EDI,
)  # fmt: skip
STATE = (*GENERAL, x86.UC_X86_REG_EIP, x86.UC_X86_REG_EFLAGS)
SILENT = "an EIP that stays"  # all that Unicorn shows of #DE and #BR
FAULTS = {unicorn.UC_ERR_INSN_INVALID: "vector 6"}


class UnicornMachine:
    """One Unicorn instance with RAM, reused by a whole module."""

    def __init__(self) -> None:
        self.engine = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self.engine.mem_map(0, RAM_BYTES)
        self.engine.hook_add(unicorn.UC_HOOK_INTR, self.interrupted)
        self.raised = ""
        self.fresh = self.engine.context_save()

    def interrupted(self, engine: unicorn.Uc, vector: int, _: object) -> None:
        """Unicorn has no IDT: it reports exceptions here."""
        self.raised = f"vector {vector}"
        engine.emu_stop()

    def load_tables(self, octets: bytes, limit: int) -> None:
        """Put a GDT where the bare machine has it."""
        self.engine.mem_write(GDT, octets)
        self.engine.reg_write(x86.UC_X86_REG_GDTR, (0, GDT, limit, 0))

    def write(self, address: int, octets: bytes) -> None:
        """Store bytes; translated code there is forgotten."""
        self.engine.mem_write(address, octets)

    def operands(self) -> bytes:
        """Data and stack."""
        return bytes(self.engine.mem_read(DATA, STACK_END - DATA))

    def execute(
        self, octets: bytes, registers: list[int], eflags: int, repeats: bool
    ) -> tuple[str, list[int], int, int]:
        """Execute one instruction at CODE: ("" or "vector N", general registers, EIP, EFLAGS)."""
        engine = self.engine
        engine.mem_write(CODE, octets)
        engine.ctl_remove_cache(CODE, CODE + 16)
        engine.reg_write_batch(list(zip(STATE, (*registers, CODE, eflags), strict=True)))
        self.raised = fault = ""
        try:
            engine.emu_start(CODE, CODE + len(octets) if repeats else 0xFFFFFFFF, count=0 if repeats else 1)
        except unicorn.UcError as error:
            fault = FAULTS[error.errno]
        values = [value & 0xFFFFFFFF for value in engine.reg_read_batch(STATE)]
        if fault or self.raised or (values[8] == CODE and not repeats):
            # An exception that nobody handles would make the next one a double fault.
            engine.context_restore(self.fresh)
            return fault or self.raised or SILENT, values[:8], values[8], values[9]
        return "", values[:8], values[8], values[9]
