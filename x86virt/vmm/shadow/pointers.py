"""The pointers of PAE paging, which a guest's processor holds between two loads of CR3 (SDM volume 3, section 4.4.1)."""

from ...core.cache import VMM, reference
from ...core.jit import kernel, store_32
from ...isa.registers import CR3_PAE_ADDRESS, PDPTE_RESERVED, PTE_ADDRESS, PTE_HIGH_NX, PTE_P
from .guest_walk import POINTERS, machine_address, read_guest


@kernel
def load_pointers(cpu, ram, control, cr3):
    """Load the four entries, with one reference; False, and all as before, if a present one sets a reserved bit."""
    address = machine_address(cpu, ram, control, cr3 & CR3_PAE_ADDRESS)
    if address >= 0:
        reference(cpu, address, VMM)
    return set_pointers(cpu, ram, control, cr3)


@kernel
def set_pointers(cpu, ram, control, cr3):
    """What loading them does to the virtual processor."""
    table = cr3 & CR3_PAE_ADDRESS
    reserved_high = cpu.address_reserved_high | PTE_HIGH_NX
    for number in range(4):
        low = read_guest(cpu, ram, control, table + 8 * number)
        high = read_guest(cpu, ram, control, table + 8 * number + 4)
        if low & PTE_P != 0 and (low & PDPTE_RESERVED != 0 or high & reserved_high != 0):
            return False
    for number in range(4):
        low = read_guest(cpu, ram, control, table + 8 * number)
        high = read_guest(cpu, ram, control, table + 8 * number + 4)
        if low & PTE_P == 0:
            low = 0
            high = 0
        store_32(ram, POINTERS + 8 * number, low & (PTE_ADDRESS | PTE_P))
        store_32(ram, POINTERS + 8 * number + 4, high)
    return True
