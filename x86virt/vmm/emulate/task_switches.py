"""Hardware task switches of the guest (SDM volume 3, section 7.3): left to the VMM's interpreter."""


from typing import TYPE_CHECKING

from ..exits import Unsupported

if TYPE_CHECKING:
    from ..vm import VirtualMachine


class TaskSwitch(Exception):
    """The instruction switches to another task, or leaves a nested one."""


def switch_task(vm: "VirtualMachine") -> None:
    """The instruction at which the guest stands switches tasks."""
    raise Unsupported("a far transfer to a task gate or a task-state segment (a hardware task switch), or IRET from one")
