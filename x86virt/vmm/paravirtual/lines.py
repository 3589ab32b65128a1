"""Which lines of the machine's interrupt controllers are open: a bit each, which the way out of the VMM writes to them."""

from ...core.jit import inline, kernel
from .records import ASK_BOARD

TIMER_LINE, CASCADE_LINE = 0, 2
ALL_MASKED = 0xFFFF & ~(1 << CASCADE_LINE)


@inline
def is_own_line(line):
    """Whether a line is the VMM's: the board's timer, and what joins the two controllers."""
    return line == TIMER_LINE or line == CASCADE_LINE


@kernel
def bind_line(xen, line):
    """A domain takes the interrupts of a line."""
    xen.masked_lines &= ~(1 << line)
    xen.waiting_lines &= ~(1 << line)
    xen.asked |= ASK_BOARD


@kernel
def unbind_line(xen, line):
    """No domain does any more."""
    xen.masked_lines |= 1 << line
    xen.waiting_lines &= ~(1 << line)
    xen.asked |= ASK_BOARD


@kernel
def hold_line(xen, line):
    """A line that stays high until its device is served is masked until then."""
    xen.waiting_lines |= 1 << line
    xen.asked |= ASK_BOARD


@kernel
def release_line(xen, line):
    """Its device has been served."""
    if (xen.waiting_lines >> line) & 1 != 0:
        xen.waiting_lines &= ~(1 << line)
        xen.asked |= ASK_BOARD
