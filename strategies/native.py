"""The bare machine: no VMM, the guest's kernel in ring 0 of the processor itself.

Every other strategy is compared with this one, in cycles and in what the guest can see.
"""

from x86virt.vmm import Strategy


class Native(Strategy):
    """The guest is the machine's only software."""

    name = "native"
    processor = "native"
    memory = "native"
    devices = "native"
    kernel_ring = 0
