"""What Python calls of the delivery for the interpreter, beyond what the core offers: each function is an entry."""

from ..core.deliver import deliver_event
from ..core.fault import raise_fault
from ..core.jit import entry


@entry
def deliver_exception(state, ram, vector, error):
    """Deliver an exception that pushes an error code, as if the processor had just raised it: OK or SHUTDOWN."""
    cpu = state[0]
    raise_fault(cpu, vector, error)
    return deliver_event(cpu, ram)
