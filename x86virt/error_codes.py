"""What the error code of an exception says (SDM volume 3, sections 6.13 and 4.7)."""

from .isa.registers import ERROR_EXT, ERROR_IDT, ERROR_TI, PF_I, PF_P, PF_RSVD, PF_U, PF_W
from .isa.vectors import EXCEPTIONS, MNEMONIC, PF

WITH_ERROR_CODE = frozenset(row.vector for row in EXCEPTIONS if row.has_error_code)
ALWAYS_ZERO = frozenset((8, 17))  # #DF and #AC


def exception_text(vector: int, error: int | None) -> str:
    """An exception in the manual's notation: `#UD`, `#GP(0x18)`."""
    name = MNEMONIC.get(vector, f"vector {vector}")
    return name if error is None else f"{name}({error:#x})" if error else f"{name}(0)"


def describe_error(vector: int, error: int) -> str:
    """An error code in words."""
    if vector == PF:
        return describe_page_fault(error)
    if error == 0 or vector in ALWAYS_ZERO:
        return ""
    index = error >> 3
    if error & ERROR_IDT:
        text = f"IDT vector {index:#x}"
    else:
        text = f"selector {error & ~7:#x} of the {'LDT' if error & ERROR_TI else 'GDT'}"
    return text + (", in the delivery of an event" if error & ERROR_EXT else "")


def describe_page_fault(error: int) -> str:
    """The error code of a page fault in words."""
    access = "a fetch" if error & PF_I else "a write" if error & PF_W else "a read"
    ring = "in ring 3" if error & PF_U else "in rings 0 to 2"
    why = "the page is not present"
    if error & PF_P:
        why = "a reserved bit is set in a table" if error & PF_RSVD else "the page does not allow it"
    return f"{access} {ring}: {why}"
