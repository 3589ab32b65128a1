"""Address spaces of guests in the TLBs: what VM entries and exits keep, and what the invalidating instructions drop.

A processor with VPIDs or ASIDs tags what its TLBs hold (SDM volume 3, section 28.3; AMD publication 24593, section 15.16): linear
mappings by VPID, combined mappings by VPID and extended page tables, everything of SVM's by ASID. Tag 0 is the host's, and
also that of guests without a tag of their own: then every transition flushes. Only `N_TLB_TAGS` spaces are held at a time; the
oldest is given up for another, as a processor may forget translations whenever it likes.
"""

from .jit import inline, kernel
from .layout import DTLB_LARGE, ITLB_LARGE, N_TLB_TAGS, NESTED_EPT, ROOT, SVM_GUEST, VMX_NON_ROOT
from .nested_cache import forget_all_spaces, forget_space, space_of_asid, space_of_ept
from .page_directory_pointers import set_large_page_size
from .tlb import drop_fetch_front, drop_front, flush_tlb, invalidate_page, new_generation

HOST_TAG = 0
EPT_ROOT = ~0xFFF  # of an EPTP: all but the memory type and the length of walks
INVEPT_SINGLE, INVEPT_ALL = 1, 2
INVVPID_ADDRESS, INVVPID_SINGLE, INVVPID_ALL, INVVPID_SINGLE_BUT_GLOBAL = range(4)


@inline
def root_of_space(cpu):
    """What besides its VPID tells the present guest's mappings from others: its extended page tables, plus 1; 0: none."""
    if cpu.world == VMX_NON_ROOT and cpu.nested_kind == NESTED_EPT:
        return cpu.nested_root + 1
    return 0


@kernel
def give_tag(cpu, identifier, root):
    """The tag of an address space: its own, or a new one, empty, that was another's."""
    for tag in range(1, N_TLB_TAGS):
        space = cpu.tlb_tags[tag]
        if space.generation != 0 and space.identifier == identifier and space.root == root:
            return tag
    tag = cpu.tlb_tag_victim + 1
    cpu.tlb_tag_victim = tag % (N_TLB_TAGS - 1)
    cpu.tlb_tags[tag].identifier = identifier
    cpu.tlb_tags[tag].root = root
    empty_space(cpu, tag)
    return tag


@kernel
def empty_space(cpu, tag):
    """Flush an address space that is not the present one."""
    space = cpu.tlb_tags[tag]
    space.generation = new_generation(cpu, tag)
    space.full_flush = space.generation


@kernel
def keep_globals(cpu, tag):
    """Flush all but the global entries of an address space that is not the present one."""
    cpu.tlb_tags[tag].generation = new_generation(cpu, tag)


@kernel
def put_space_aside(cpu):
    """Keep the present address space for later."""
    space = cpu.tlb_tags[cpu.tlb_tag]
    space.generation = cpu.tlb_generation
    space.full_flush = cpu.tlb_full_flush
    space.large_shift = cpu.tlb_units[DTLB_LARGE].shift


@kernel
def put_space_in_place(cpu, tag):
    """Make an address space the present one; the front caches know only the one before."""
    space = cpu.tlb_tags[tag]
    cpu.tlb_tag = tag
    cpu.tlb_generation = space.generation
    cpu.tlb_full_flush = space.full_flush
    drop_front(cpu)
    drop_fetch_front(cpu)


@kernel
def set_space_page_size(cpu):
    """Give the TLBs the large pages of the present address space, empty if it had others when it was put aside."""
    set_large_page_size(cpu)
    if cpu.tlb_units[DTLB_LARGE].shift != cpu.tlb_tags[cpu.tlb_tag].large_shift:
        flush_tlb(cpu, 0)


@kernel
def enter_address_space(cpu):
    """What a VM entry or exit does to the TLBs, after the new world's registers and nested tables are in place.

    The guest's VPID or ASID is cpu.address_space; 0 is a guest without one.
    """
    before = cpu.tlb_tag
    has_tag = cpu.world != ROOT and cpu.address_space != 0 and cpu.nested.has_tags == 1
    tag = HOST_TAG
    if has_tag:
        tag = give_tag(cpu, cpu.address_space, root_of_space(cpu))
    if tag != before:
        put_space_aside(cpu)
        put_space_in_place(cpu, tag)
        set_space_page_size(cpu)
    else:
        # Both sides share the tag: host and guest without tags, or a guest that is entered from itself, which is none.
        flush_tlb(cpu, 0)
        set_large_page_size(cpu)
    if cpu.nested.has_tags == 0 and cpu.world == SVM_GUEST:
        forget_all_spaces(cpu)


@inline
def is_used(cpu, tag):
    """Whether a tag other than the present one stands for an address space that may hold entries."""
    return tag != cpu.tlb_tag and cpu.tlb_tags[tag].generation != 0


@kernel
def flush_address_space(cpu, identifier):
    """Drop all mappings of a VPID, whatever their extended page tables, or of an ASID, its nested ones included."""
    if identifier == 0 or (cpu.tlb_tag != HOST_TAG and cpu.tlb_tags[cpu.tlb_tag].identifier == identifier):
        flush_host_or_present(cpu, identifier)
    for tag in range(1, N_TLB_TAGS):
        if is_used(cpu, tag) and cpu.tlb_tags[tag].identifier == identifier:
            empty_space(cpu, tag)
    forget_space(cpu, space_of_asid(identifier))


@kernel
def flush_host_or_present(cpu, identifier):
    """Drop the mappings of the present address space, or of the host's from outside."""
    if identifier == 0 and cpu.tlb_tag != HOST_TAG:
        empty_space(cpu, HOST_TAG)
    else:
        flush_tlb(cpu, 0)


@kernel
def flush_all_address_spaces(cpu):
    """Drop all mappings of all address spaces, nested ones too."""
    flush_tlb(cpu, 0)
    for tag in range(N_TLB_TAGS):
        if is_used(cpu, tag):
            empty_space(cpu, tag)
    forget_all_spaces(cpu)


@kernel
def invalidate_in_space(cpu, tag, gla):
    """Drop the mappings of one page in an address space, global or not."""
    present = cpu.tlb_tag
    if tag == present:
        invalidate_page(cpu, gla)
        return
    if cpu.tlb_tags[tag].in_pieces == cpu.tlb_tags[tag].full_flush + 1:
        empty_space(cpu, tag)
        return
    # The searches of the TLBs look for what is valid in the present space, and know the sizes of its pages.
    present_shift = cpu.tlb_units[DTLB_LARGE].shift
    put_space_aside(cpu)
    put_space_in_place(cpu, tag)
    cpu.tlb_units[DTLB_LARGE].shift = cpu.tlb_tags[tag].large_shift
    cpu.tlb_units[ITLB_LARGE].shift = cpu.tlb_tags[tag].large_shift
    invalidate_page(cpu, gla)
    put_space_in_place(cpu, present)
    cpu.tlb_units[DTLB_LARGE].shift = present_shift
    cpu.tlb_units[ITLB_LARGE].shift = present_shift


@kernel
def invalidate_in_spaces(cpu, identifier, gla):
    """Drop the mappings of one page in all address spaces of a VPID or ASID."""
    if identifier == 0:
        invalidate_in_space(cpu, HOST_TAG, gla)
        return
    for tag in range(1, N_TLB_TAGS):
        if (tag == cpu.tlb_tag or is_used(cpu, tag)) and cpu.tlb_tags[tag].identifier == identifier:
            invalidate_in_space(cpu, tag, gla)


@kernel
def invept(cpu, kind, eptp):
    """What INVEPT drops: guest-physical and combined mappings of one set of extended page tables, or all (section 28.3.3.1)."""
    if kind == INVEPT_ALL:
        flush_all_address_spaces(cpu)
        return
    root = eptp & EPT_ROOT
    for tag in range(1, N_TLB_TAGS):
        if is_used(cpu, tag) and cpu.tlb_tags[tag].root == root + 1:
            empty_space(cpu, tag)
    forget_space(cpu, space_of_ept(root))


@kernel
def invvpid(cpu, kind, vpid, gla):
    """What INVVPID drops: linear and combined mappings of one page, of one VPID, or of all but 0 (section 28.3.3.1)."""
    if kind == INVVPID_ADDRESS:
        invalidate_in_spaces(cpu, vpid, gla)
        return
    for tag in range(1, N_TLB_TAGS):
        if is_used(cpu, tag) and (kind == INVVPID_ALL or cpu.tlb_tags[tag].identifier == vpid):
            if kind == INVVPID_SINGLE_BUT_GLOBAL:
                keep_globals(cpu, tag)
            else:
                empty_space(cpu, tag)


@kernel
def invlpga(cpu, gla, asid):
    """What INVLPGA drops: the mapping of one page in an ASID, global or not. Without tags there is only the present space."""
    if cpu.nested.has_tags == 0:
        invalidate_page(cpu, gla)
    else:
        invalidate_in_spaces(cpu, asid, gla)
