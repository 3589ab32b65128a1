"""Nested tables: what the processor translates a guest's physical addresses with, made from the p2m as the guest touches them.

    records.py   what the VMM keeps of them in machine RAM
    entries.py   the formats: extended page tables, and SVM's of two and three levels
    pool.py      pages for tables: allocated, evicted when the budget is spent
    fill.py      one entry made on demand, large where the p2m allows it; entries taken back
    check.py     what may stand in tables that come from a file
    calls.py     what Python calls of all these

All but check.py is jitted, and works on machine RAM alone. What the rest of the toolkit sees is vmm/hardware/nested.py.
"""
