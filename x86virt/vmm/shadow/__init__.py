"""Shadow memory: the page tables that the processor really walks, made from the guest's tables and the p2m.

    records.py      what the VMM keeps of them, as records for jitted code
    guest_walk.py   the walk of the guest's own tables over the p2m
    pointers.py     the pointers that PAE paging loads with CR3
    chains.py       which entries map a frame writable, which directories hold a table
    pool.py         pages for shadow tables: found again, allocated, evicted
    tracing.py      frames whose modification must be seen
    fill.py         one entry made on demand
    follow.py       what a write to a table, INVLPG and MOV CR3 do, by policy
    calls.py        what Python calls of all these
    memory.py       the part of a virtual machine that strategies and the rest of the toolkit see

All but memory.py is jitted.
"""
