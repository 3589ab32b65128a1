"""The page of hypercalls: an entry for each number, which loads EAX and executes int $0x82. That of iret does not return."""

import numpy as np

from ...core.jit import kernel
from ...core.physical import write_physical
from .interface import HYPERCALL_BYTES, HYPERCALL_VECTOR, NUMBER_OF
from .page_types import get_page_and_type, put_page_and_type
from .records import PGT_WRITABLE

ENTRIES = 0x1000 // HYPERCALL_BYTES
MOV_EAX, INT, RET, PUSH_EAX = 0xB8, 0xCD, 0xC3, 0x50
IRET = NUMBER_OF["iret"]


def entry_octets(number: int) -> bytes:
    """The code of an entry."""
    code = bytes([MOV_EAX]) + number.to_bytes(4, "little") + bytes([INT, HYPERCALL_VECTOR])
    return bytes([PUSH_EAX]) + code if number == IRET else code + bytes([RET])


def hypercall_page() -> bytes:
    """The whole page."""
    return b"".join(entry_octets(number).ljust(HYPERCALL_BYTES, b"\xcc") for number in range(ENTRIES))


# As doublewords: the first of an entry without its number, which begins in it.
WORDS = tuple(int(word) for word in np.frombuffer(hypercall_page(), "<u4"))


@kernel
def write_hypercall_page(cpu, ram, xen, domains, frames, low, high):
    """Fill the frame of the running domain's whose machine address is given, unless it is no frame that it may write."""
    frame = low >> 12
    domid = np.int64(domains[xen.current].domid)
    if low & 0xFFF != 0 or high != 0:
        return
    if get_page_and_type(cpu, ram, xen, domains, frames, frame, domid, PGT_WRITABLE) == 0:
        return
    for number in range(len(WORDS)):
        write_physical(cpu, ram, (frame << 12) + 4 * number, 4, WORDS[number])
    put_page_and_type(cpu, ram, xen, domains, frames, frame)
