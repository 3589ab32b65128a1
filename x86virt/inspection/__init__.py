"""Looking at a machine without touching it: no cycle is charged, no accessed bit set, no translation filled."""

from .descriptors import Row, descriptor_rows, gate_rows, task_rows
from .translated import Translated, TranslatedCode
from .view import View
from .walk import Step, Tables, Walk, walk

__all__ = [
    "Row", "Step", "Tables", "Translated", "TranslatedCode", "View", "Walk", "descriptor_rows", "gate_rows", "task_rows", "walk",
]  # fmt: skip
