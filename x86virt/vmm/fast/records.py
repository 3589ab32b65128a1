"""What Python and the jitted exits share: copied in before the guest runs, and back when an exit is left to Python."""

import numpy as np

from ...core.layout import SEGMENT as SEGMENT_CACHE
from ...isa.events import EVENT_ID
from ...isa.registers import GS
from .. import layout
from ..translation.index import MAX_PAGES as MAX_CODE_PAGES
from ..translation.index import SITE_KINDS
from ..translation.record import RECORD

# Outcomes of a handler.
NOT_FAST = 0  # left to Python, with no effect
DONE = 1
REST = 2  # begun; Python does what is left of it
# Outcomes of the loop, beside those of the processor (core/layout.py).
RESUME = 1000  # the exit was handled; Python sees to the way back to the guest
ATTENTION = 1001  # the exit was handled and the guest resumed; a virtual device asks for attention
FAULT_BEGUN = 1002  # a page fault was charged and looked up in the guest's tables; what came out is in `outcome`

PATHS = (
    "trap_dispatch", "emulate_flags", "emulate_control_register", "emulate_port", "device_request", "emulate_far_transfer",
    "reflect", "emulate_system_call", "emulate_invlpg", "shadow_fill", "shadow_table", "shadow_flush", "shadow_switch",
    "shadow_sync", "shadow_check", "light_dispatch", "callout", "recover", "enter_cache", "traced_write",
    "direct_port", "direct_store",
)  # fmt: skip
(
    TRAP_DISPATCH, EMULATE_FLAGS, EMULATE_CONTROL_REGISTER, EMULATE_PORT, DEVICE_REQUEST, EMULATE_FAR_TRANSFER, REFLECT,
    EMULATE_SYSTEM_CALL, EMULATE_INVLPG, SHADOW_FILL, SHADOW_TABLE, SHADOW_FLUSH, SHADOW_SWITCH, SHADOW_SYNC, SHADOW_CHECK,
    LIGHT_DISPATCH, CALLOUT, RECOVER, ENTER_CACHE, TRACED_WRITE, DIRECT_PORT, DIRECT_STORE,
) = range(len(PATHS))  # fmt: skip
PATH_EVENTS = tuple(EVENT_ID[f"vmm.{path}"] for path in PATHS)
N_VECTORS = 256
SYSTEM_CALL = N_VECTORS  # in the place of a vector: SYSENTER
FIRST_SITE = SYSTEM_CALL + 1  # and behind it: callouts of translated code, by their kind
N_ENTRIES = FIRST_SITE + len(SITE_KINDS)
MAX_REFERENCES = 64 + 2 * MAX_CODE_PAGES
MAX_HIDDEN = 32
MAX_PAGES = 4
MAX_PUSHES = 6  # of a delivery: SS, ESP, EFLAGS, CS, EIP, error code

# What the toolkit does for an exit; a strategy says which, by reason (Strategy.jitted).
ACTIONS = ("", "emulate", "reflect", "open_gate", "nothing", "system_call", "fill", "leave_unit", "simulate_write", "access_port")
(
    NO_ACTION, EMULATE, REFLECT_EXCEPTION, OPEN_GATE, NOTHING, ENTER_SYSTEM_CALL, FILL, LEAVE_UNIT, SIMULATE_WRITE, ACCESS_PORT,
) = range(len(ACTIONS))  # fmt: skip

SEGMENT = np.dtype([("selector", "i8"), ("seg_base", "i8"), ("limit", "i8"), ("access", "i8")])
N_DATA = GS + 1
NOTHING_HELD = -1  # as a selector
# GS while translated code has its own: the guest's, the VMM's as a callout found it, and what it was before an exit.
GUEST_GS, OWN_GS, GS_BEFORE = range(3)
N_SPILLED = 3  # EAX, ECX and EDX
N_POINTERS = 8  # doublewords of the page-directory-pointer entries

EXITS = np.dtype(
    [
        # copied in: what the exits depend on
        ("guest_frames", "i8"),  # length of the p2m
        ("retired_limit", "i8"),
        ("hidden_count", "i8"),
        ("hidden", "i8", MAX_HIDDEN),  # shadows that are present at CPL 3 and not at CPL 0: their high doublewords
        ("held", SEGMENT, N_DATA),  # by register: how the processor holds an inner ring's, whatever DPL it shows
        ("actions", "i8", N_ENTRIES),  # by entry: of ACTIONS
        ("event", "i8", len(PATHS)),
        ("price", "i8", len(PATHS)),  # ticks of one item of a path
        ("base_price", "i8", len(PATHS)),  # its parts: of the path, and of the item
        ("item_price", "i8", len(PATHS)),
        ("table_path", "i8"),  # numbers of paths, where other VMMs have others: shadow_table, shadow_sync, shadow_check
        ("sync_path", "i8"),
        ("check_path", "i8"),
        ("page_count", "i8"),
        ("pages", "i8", MAX_PAGES),  # linear pages with descriptors that are shadowed
        # of a binary translator
        ("translates", "i8"),
        ("chaining", "i8"),
        ("restore_after", "i8"),
        ("translate_user", "i8"),
        ("come_back_directly", "i8"),  # and a direct one
        ("come_back", "i8"),  # the address in the cache by which a callout in ring 1 returns
        ("context_cs", "i8"),  # the guest's code segment and IOPL in which it was last resumed, and their number
        ("context_iopl", "i8"),
        ("context", "i8"),
        # copied in and back
        ("inside", "i8"),  # Translator.inside and so on
        ("serving", "i8"),
        ("direct", "i8"),
        ("guest_cs", "i8"),
        ("gs", SEGMENT_CACHE, 3),
        ("interrupt_waits", "i8"),
        ("shadow_count", "i8"),
        ("own_resume", "i8"),
        ("resumed_at", "i8"),
        ("resumed_with_flag", "i8"),
        # the frame of the exit at hand; that of the last one, for Python
        ("eip", "i8"),
        ("cs", "i8"),
        ("eflags", "i8"),
        ("esp", "i8"),
        ("ss", "i8"),
        ("entry", "i8"),
        ("error", "i8"),
        ("outcome", "i8"),  # of a fill
        ("trap_resume", "i8"),  # what own_resume is at the exit
        ("begun", "i8"),  # ticks when it came
        ("site", "i8"),  # of a callout in ring 1: its place in the cache
        ("left", "i8"),  # 1: it came from translated code, and the registers were made the guest's
        ("spilled", "i8"),  # those that had been in the translator's record, one bit each, and what they were
        ("spilled_values", "i8", N_SPILLED),
        # what is to be charged for it
        ("reference_count", "i8"),
        ("references", "i8", MAX_REFERENCES),
        ("items", "i8", len(PATHS)),
        ("pointers", "i8", N_POINTERS),  # of PAE paging, before a MOV CR3
        ("push_count", "i8"),
        ("push_places", "i8", MAX_PUSHES),
        ("push_values", "i8", MAX_PUSHES),
        # what came since Python last looked: by entry, and the entries in the order of their first coming
        ("count", "i8", N_ENTRIES),
        ("ticks", "i8", N_ENTRIES),
        ("order_count", "i8"),
        ("order", "i8", N_ENTRIES),
    ]
)


def record_place(name: str) -> int:
    """The machine address of a field of the translator's record."""
    fields = RECORD.fields
    assert fields is not None
    return layout.TRANSLATOR + fields[name][1]


def vcpu_place(name: str) -> int:
    """The machine address of a field of the vCPU record."""
    fields = layout.VCPU.fields
    assert fields is not None
    return layout.VCPU_RECORD + fields[name][1]


CR0, CR2, CR3, CR4 = (vcpu_place(name) for name in ("cr0", "cr2", "cr3", "cr4"))
CPL, INTERRUPT_FLAG, IOPL = (vcpu_place(name) for name in ("cpl", "interrupt_flag", "iopl"))
DR7 = vcpu_place("dr") + 4 * 7
GDTR_BASE, GDTR_LIMIT = vcpu_place("gdtr_base"), vcpu_place("gdtr_limit")
IDTR_BASE, IDTR_LIMIT = vcpu_place("idtr_base"), vcpu_place("idtr_limit")
TR_BASE, TR_LIMIT, TR_ACCESS = vcpu_place("tr_base"), vcpu_place("tr_limit"), vcpu_place("tr_access")
SYSENTER_CS, SYSENTER_ESP, SYSENTER_EIP = (vcpu_place(f"sysenter_{name}") for name in ("cs", "esp", "eip"))
DETACHED_CS, DETACHED_SS = vcpu_place("detached_cs"), vcpu_place("detached_ss")
