"""A VMM for guests that are ported to it: Xen's interface, direct paging, domains, events and grants.

    interface.py, structures.py    Xen's public interface: numbers, structures; include.py writes them for our guests
    layout.py, records.py          where the VMM keeps what it has, and what that is
    vm.py, turns.py                the virtual machine, and what a machine calls of it
    loop.py, crossing.py           the processor and the VMM in turns; the ways between them (crossings.py: from Python)
    hypercalls.py, multicall.py    from EAX to the handler and back; lists of hypercalls
    charge.py                      what a handler charges

A domain comes to be:

    host.py, domains.py            the VMM's own descriptors and tables; a domain's record and first state
    builder.py, hypercall_page.py  its first memory
    domain_start.py                its events and time; the VMM's clock and interrupt controllers
    domain_zero.py                 the domain that drives the devices

The processor:

    traps.py, bounce.py, frames.py      exceptions, and the frames that they become on the kernel's stack
    trap_table.py                       where a domain wants to be entered; iret
    descriptors.py, descriptor_tables.py, local_table.py, debug_registers.py
    privileged.py, ports.py, forced_cpuid.py, instruction_fetch.py   instructions that the VMM performs
    x87_owner.py                        whose x87 state the processor holds
    guest_access.py                     the domain's memory, through the processor's own walk

Memory:

    frame_counts.py, page_types.py      references to frames, and what frames are used as
    table_entries.py, table_checks.py, table_updates.py   page tables: entries, what they refer to, updates
    mmu.py, extended.py, memory_op.py, assist.py          the hypercalls
    owners.py, recount.py, held.py      the checks: isolation, and all counts anew

Events, time and devices:

    events.py, shared_info.py      event channels, and the page where events become pending
    clock.py, time.py, waking.py   system time, timers, run states
    schedule.py, switch.py         who runs, and how the processor changes hands
    grants.py, grant_tables.py     frames that domains grant each other
    physical.py, lines.py          the machine's own interrupts and ports
    small.py                       xen_version, console_io

Handlers are kernels (core/jit.py) that work on the records alone, which lie in machine RAM, so that routines in assembly can do
the same work on the same bytes for the sake of its price (vmm/witness).
"""
