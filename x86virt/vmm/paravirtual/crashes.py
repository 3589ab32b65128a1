"""Why the VMM gives a domain up: what XEN.crash says, by number. The run's outcome is `crashed: ...`."""

CRASHES = (
    "",
    "it shut itself down as crashed",
    "an exception found no handler that could be entered",
    "its failsafe callback could not be entered",
    "its kernel's stack for traps could not be written",
    "an iret hypercall found no frame on its stack",
    "the upcall found no callback",
    "an exception came while another was delivered",
    "an event of the processor could not be delivered",
)
(
    NO_CRASH, CRASH_BY_ITSELF, CRASH_NO_HANDLER, CRASH_FAILSAFE, CRASH_STACK, CRASH_IRET_FRAME, CRASH_NO_CALLBACK,
    CRASH_DOUBLE_FAULT, CRASH_DELIVERY,
) = range(len(CRASHES))  # fmt: skip
