"""What Python calls of the shadow's jitted code: each function is an entry, kept in the cache directory."""


from ...core.jit import entry, load_32
from ...isa.registers import PTE_P, PTE_PS, PTE_RW
from .chains import is_vmms, page_of, put_first, slot_address
from .fill import fill
from .follow import after_write, change_space, forget_frames, invalidate_page, let_out_of_sync, synchronise_frame
from .guest_walk import walk
from .pointers import load_pointers
from .pool import NEXT, holds_tables
from .records import ENTRIES, FREE
from .tracing import flush_everything, trace, untrace


@entry
def guest_walk(state, memory, controls, links, gla, write, user, mark):
    """Walk the guest's tables; what was found is in the control record."""
    return walk(state[0], memory, controls[0], links[0], gla, write, user, mark)


@entry
def shadow_fill(state, memory, controls, links, gla, write, user):
    """Map the page of one access."""
    return fill(state[0], memory, controls[0], links[0], gla, write, user)


@entry
def shadow_change_space(state, memory, controls, links):
    """The guest's address space may be another one."""
    change_space(state[0], memory, controls[0], links[0])


@entry
def shadow_forget(state, controls, links):
    """Empty the TLBs if there may be global entries in them."""
    if controls[0].globals == 1 or controls[0].hardware == 1:
        flush_everything(state[0], controls[0], links[0])


@entry
def shadow_forget_frames(state, memory, controls, links):
    """Other memory is behind some guest frames."""
    forget_frames(state[0], memory, controls[0], links[0])


@entry
def shadow_invalidate(state, memory, controls, links, gla):
    """INVLPG of the guest."""
    invalidate_page(state[0], memory, controls[0], links[0], gla)


@entry
def shadow_trace(state, memory, controls, links, frame, kind):
    """Trace a guest frame."""
    trace(state[0], memory, controls[0], links[0], frame, kind)


@entry
def shadow_untrace(controls, links, frame, kind):
    """One reason less to trace a guest frame."""
    untrace(controls[0], links[0], frame, kind)


@entry
def shadow_written(state, memory, controls, links, frame, first, count):
    """Bytes of a guest's table were written."""
    after_write(state[0], memory, controls[0], links[0], frame, first, count)


@entry
def shadow_let_out_of_sync(state, controls, links, frame):
    """Let a page table be written, if the policy does."""
    return let_out_of_sync(state[0], controls[0], links[0], frame)


@entry
def shadow_synchronise(state, memory, controls, links, frame):
    """Compare a page table that was let out of sync."""
    synchronise_frame(state[0], memory, controls[0], links[0], frame)


@entry
def shadow_links(memory, controls, links):
    """Make the chains from the shadow tables and the records of their pages."""
    control = controls[0]
    for slot in range(ENTRIES * load_32(memory, NEXT)):
        page = control.pages[slot >> 10]
        value = load_32(memory, slot_address(slot))
        if page.kind == FREE or value & PTE_P == 0:
            continue
        if holds_tables(page.kind) and is_vmms(control, slot):
            continue
        if holds_tables(page.kind) and value & PTE_PS == 0:
            table = control.pages[page_of(value)]
            table.parents = put_first(links[0], slot, table.parents)
        elif value & PTE_RW != 0:
            links[0].writable[value >> 12] = put_first(links[0], slot, links[0].writable[value >> 12])


@entry
def guest_pointers(state, memory, controls, cr3):
    """Load the page-directory-pointer entries of the guest; False: #GP(0) is due."""
    return load_pointers(state[0], memory, controls[0], cr3)
