"""The interpreter's part of a saved machine: the virtual processor, where the interpreter holds it.

What only serves speed, its TLBs too, starts afresh: no cycle depends on the interpreter's.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.entries import enter_level, flush_translations, refresh_segment
from ..isa.registers import N_SEGMENTS
from ..processor import PAGE_BYTES
from ..saved_apics import check_apics
from .state import SegmentState

if TYPE_CHECKING:
    from .interpreter import Interpreter

FIELDS = (
    "gpr", "rip", "eflags", "flag_result", "flag_carry", "cr0", "cr2", "cr3", "cr4", "pdpte", "cpl", "seg", "gdtr_base",
    "gdtr_limit", "idtr_base", "idtr_limit", "sysenter_cs", "sysenter_esp", "sysenter_eip", "efer", "msr", "tsc_offset",
    "performance_select", "performance_start", "dr", "debug_hits", "shadow", "debug_pending", "halted", "event_vector",
    "event_kind", "event_error", "event_has_error", "idt_vector", "idt_kind", "idt_error", "fpu_value", "fpu_control",
    "fpu_status", "fpu_occupied", "fpu_instruction", "fpu_instruction_selector", "fpu_operand", "fpu_operand_selector",
    "fpu_opcode", "ticks", "retired", "apic", "io_apic", "begun", "mark",
)  # fmt: skip
# Fields that are used as numbers of something, with their bounds.
BOUNDS = {
    "rip": (0, 0xFFFFFFFF), "cpl": (0, 3), "event_vector": (0, 255), "idt_vector": (-1, 255), "shadow": (0, 2),
    "halted": (0, 1), "ticks": (0, 1 << 61), "retired": (0, 1 << 61), "mark": (0, 3), "begun": (0, 1),
}  # fmt: skip
SAVED, MADE = {"holds", "stride", "next_look", "loaded_segments"}, {"vm", "processor", "cpu"}
MOST_SEGMENT = (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0x1FFFF)  # selector, base, limit, access rights


def interpreter_state(interpreter: "Interpreter") -> dict[str, Any]:
    """What is in Python objects."""
    segments = [
        [state.selector, state.base, state.limit, state.access] for state in interpreter.loaded_segments
    ]
    return {
        "holds": int(interpreter.holds),
        "stride": interpreter.stride,
        "next_look": interpreter.next_look,
        "loaded_segments": segments,
        "written": interpreter.processor.written(),
    }


def interpreter_arrays(interpreter: "Interpreter") -> Iterator[tuple[str, np.ndarray]]:
    """The processor's fields."""
    state = interpreter.processor.state.view(np.ndarray)
    for name in FIELDS:
        yield name, np.ascontiguousarray(state[name]).reshape(-1)


def fill_interpreter(interpreter: "Interpreter", saved: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Put both back. Raises KeyError, TypeError or ValueError for anything that was not saved so."""
    processor = interpreter.processor
    state = processor.state.view(np.ndarray)
    fields = {name: arrays[f"vm.interpreter.{name}"] for name in FIELDS}
    for name, (least, most) in BOUNDS.items():
        if fields[name].min() < least or fields[name].max() > most:
            raise ValueError(f"its interpreter's {name} is out of range")
    check_apics(fields["apic"][0], fields["io_apic"][0], state["apic"].reshape(-1)[0])
    for name in FIELDS:
        state[name] = fields[name].reshape(state[name].shape)
    for segment in range(N_SEGMENTS):
        refresh_segment(processor.state, segment)
    for number in (0, 1, 2, 3, 6, 7):
        processor.set_debug_register(number, int(processor.cpu.dr[number]))
    processor.empty_tlbs()
    enter_level(processor.state, int(processor.cpu.cpl))
    interpreter.follow_chipset()
    processor.discard_host_state()
    flush_translations(processor.state)
    state["mark"] = fields["mark"]
    fill_python_state(interpreter, saved)


def fill_python_state(interpreter: "Interpreter", saved: dict[str, Any]) -> None:
    """Where the virtual processor is, and when it is looked whether it can run directly."""
    interpreter.holds = whole(saved["holds"], 1) == 1
    interpreter.stride = whole(saved["stride"], 1 << 16)
    interpreter.next_look = whole(saved["next_look"], 1 << 62)
    most = interpreter.vm.processor.ram_bytes // PAGE_BYTES - 1
    interpreter.processor.note_written(sorted({whole(frame, most) for frame in saved["written"]}))
    rows = saved["loaded_segments"]
    if len(rows) not in (0, N_SEGMENTS):
        raise ValueError("its interpreter's segments")
    interpreter.loaded_segments = [
        SegmentState(*(whole(value, most) for value, most in zip(row, MOST_SEGMENT, strict=True))) for row in rows
    ]


def whole(value: Any, most: int) -> int:
    """An integer from 0 to a bound."""
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"{value!r:.40} is not an integer from 0 to {most}")
    return value
