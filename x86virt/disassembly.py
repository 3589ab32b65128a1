"""Text for instructions, by Capstone."""

import functools

import capstone


@functools.cache
def _disassembler() -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)


def disassemble(octets: bytes, address: int) -> str:
    """The first instruction of `octets` in Intel syntax, or its bytes when there is none."""
    for _, _, mnemonic, operands in _disassembler().disasm_lite(octets, address, 1):
        return f"{mnemonic} {operands}".strip()
    return f"db {octets.hex(' ')}"
