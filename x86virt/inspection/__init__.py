"""Looking at a machine without touching it: no cycle is charged, no accessed bit set, no translation filled."""

from .descriptors import Row, descriptor_rows, gate_rows, task_rows
from .view import View
from .walk import Step, Tables, Walk, walk

__all__ = ["Row", "Step", "Tables", "View", "Walk", "descriptor_rows", "gate_rows", "task_rows", "walk"]
