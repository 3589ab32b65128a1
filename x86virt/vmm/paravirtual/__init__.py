"""A VMM for guests that are ported to it: Xen's interface, direct paging, domains, events and grants."""
