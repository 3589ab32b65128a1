"""The instruction table: every row of every chapter, in a fixed order. A row's number is its place in ROWS."""

from ..rows import Row
from . import arithmetic, control, shifts, strings, system, transfer, vmx, x87

ROWS: tuple[Row, ...] = (
    *transfer.ROWS,
    *arithmetic.ROWS,
    *shifts.ROWS,
    *strings.ROWS,
    *control.ROWS,
    *system.ROWS,
    *x87.ROWS,
    *vmx.ROWS,
)
