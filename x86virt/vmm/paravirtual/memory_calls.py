"""What Python calls of the VMM's jitted code besides its loop: each function is an entry, kept in the cache directory."""

from ...core.jit import entry
from .assist import page_fault
from .extended import adopt, switch_base
from .frame_counts import root_of
from .guest_access import load_guest, load_words, store_guest, store_words
from .hypercalls import call_of_memory
from .owners import follow_domain
from .page_types import get_page_and_type, put_page_and_type


@entry
def adopt_base(state, memory, xen, domains, frames, channels, index, frame):
    """Take the first page tables of a domain as its base: 1, or 0."""
    return adopt(state[0], memory, xen[0], domains, frames, index, frame)


@entry
def root_address(state, memory, domains, index):
    """What CR3 is to name for a domain."""
    return root_of(state[0], memory, domains, index)


@entry
def hold_frame(state, memory, xen, domains, frames, frame, domid, kind):
    """Take a reference to a frame and its use as what `kind` says: 1, or 0."""
    return get_page_and_type(state[0], memory, xen[0], domains, frames, frame, domid, kind)


@entry
def release_frame(state, memory, xen, domains, frames, frame):
    """Give both back."""
    put_page_and_type(state[0], memory, xen[0], domains, frames, frame)


@entry
def call_memory(state, memory, xen, domains, frames, channels, number):
    """A hypercall of memory, with its arguments in the registers; its result."""
    return call_of_memory(state[0], memory, xen[0], domains, frames, channels, number)


@entry
def change_base(state, memory, xen, domains, frames, frame):
    """Another base for the domain that runs: 0, or a negated error."""
    return switch_base(state[0], memory, xen[0], domains, frames, frame)


@entry
def owners_follow(state, memory, xen, domains, frames):
    """The check of isolation goes by the domain that runs."""
    follow_domain(state[0], memory, xen[0], domains, frames)


# -- a domain's memory, as a handler reaches it -----------------------------------------------------------------------------


@entry
def load_memory(state, memory, domains, index, gla, n):
    """1, 2 or 4 bytes at a linear address of the domain that runs, or FAULTED."""
    return load_guest(state[0], memory, domains[index], gla, n)


@entry
def store_memory(state, memory, domains, index, gla, n, value):
    """Store 1, 2 or 4 bytes there: 0, or FAULTED."""
    return store_guest(state[0], memory, domains[index], gla, n, value)


@entry
def move_words(state, memory, xen, domains, index, gla, count, stores):
    """Load doublewords into xen.words, or store them (`stores` 1): 0, or FAULTED."""
    if stores == 1:
        return store_words(state[0], memory, xen[0], domains[index], gla, count)
    return load_words(state[0], memory, xen[0], domains[index], gla, count)


@entry
def table_write(state, memory, xen, domains, frames, error):
    """A page fault of the domain that runs, with its address in CR2: 1 if it was the VMM's affair."""
    return page_fault(state[0], memory, xen[0], domains, frames, error)
