"""The VMM's common exits in machine code: what the software techniques do for them, without a return to Python.

    records.py        what Python and machine code share
    guest_access.py   the guest's memory, where no bit of its tables changes
    descriptors.py    the guest's descriptors and their shadows
    crossing.py       what brought control here; the way back to the guest
    translated.py     the same where it was code of the translation cache; whether that code stays as it is
    exits.py          what an exit is charged
    instructions.py   the instruction at which the guest trapped, by its bytes
    privileged.py     CLI, STI, MOV from control registers, CLTS, MOV CR2
    operands.py       operands in memory, by their ModRM byte
    traced_writes.py  stores to page tables that are traced
    adapted_writes.py the callouts of a translator for such stores
    ports.py          IN and OUT
    apics.py          the guest's interrupt controllers and their deadlines
    returns.py        IRET
    delivery.py       events delivered through the guest's own IDT; INT n, SYSENTER and SYSEXIT
    loop.py           the processor and these, in turns
    calls.py          what a machine calls of all this

Each handler first works out what it would do, with no effect, and notes the references and paths that are to be charged. Only
when nothing is unusual does it commit: charges first, in the order of the Python handlers, then effects. Anything unusual (a
fault of the guest, a bit to be set in its tables, a descriptor that is not shadowed yet) is left, untouched, to the Python
handlers of `x86virt/vmm`: they define what happens, and the tests hold these to the last tick and byte against them.
"""
