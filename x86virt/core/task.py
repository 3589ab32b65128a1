"""Hardware task switching (SDM volume 3, chapter 7)."""

from .jit import kernel
from .layout import UNIMPLEMENTED

# What starts a task switch.
TASK_JUMP, TASK_CALL, TASK_EVENT = range(3)


@kernel
def enter_task(cpu, ram, selector, low, high, cause, ext):
    """Switch to the task whose TSS descriptor (`low`, `high`) `selector` names, after the checks of section 7.3.

    `cpu.rip` is where the old task goes on. With TASK_EVENT the error code in `cpu.event_*`, if there is one, is pushed
    on the new task's stack. `ext` is the EXT bit of error codes.
    """
    return UNIMPLEMENTED


@kernel
def enter_task_gate(cpu, ram, gate_low, cause, ext):
    """Switch through a task gate whose own privilege and presence have been checked."""
    return UNIMPLEMENTED


@kernel
def return_from_task(cpu, ram):
    """IRET with NT set: switch back to the task that the current TSS's link names."""
    return UNIMPLEMENTED
