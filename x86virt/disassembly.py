"""Text for instructions, by Capstone."""

import functools

import capstone


@functools.cache
def _disassembler(bits: int) -> capstone.Cs:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_16 if bits == 16 else capstone.CS_MODE_32)


def disassemble(octets: bytes, address: int, bits: int = 32) -> str:
    """The first instruction of `octets` in Intel syntax, or its bytes when there is none."""
    return decode_text(octets, address, bits)[1]


def decode_text(octets: bytes, address: int, bits: int = 32) -> tuple[int, str]:
    """Length and text of the first instruction of `octets`; all of the bytes, as `db`, when there is none.

    `bits` is the code segment's size, 16 or 32.
    """
    for _, length, mnemonic, operands in _disassembler(bits).disasm_lite(octets, address, 1):
        return length, f"{mnemonic} {operands}".strip()
    return len(octets), f"db {octets.hex(' ')}".strip()
