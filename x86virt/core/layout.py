"""Records of the simulated hardware: the processor, its TLBs and caches, decoded code, and outcome codes.

Every integer that takes part in arithmetic is a signed 64-bit field ("i8"), because Numba turns a mixture of unsigned
64-bit and signed integers into floating point; a 32-bit value is kept zero-extended. Field names avoid the names of
NumPy attributes, which would read wrongly with the JIT disabled.
"""

import numpy as np

from ..isa.events import N_EVENTS, N_MODES
from ..isa.registers import N_REGISTER_SLOTS, N_SEGMENTS
from ..isa.vmx import N_FIELDS

# -- outcomes of jitted calls -------------------------------------------------------------------------------------
OK = 0  # go on
FAULT = 1  # an exception is described by cpu.event_*; nothing of the instruction was committed
RESTART = 2  # nothing was committed; execute this instruction again by itself
NEW_TASK_FAULT = 3  # the instruction switched tasks, and cpu.event_* describes an exception of the new task
SHUTDOWN = 4  # triple fault
BUDGET = 5  # cpu.budget ticks reached
RETIRED_LIMIT = 6  # cpu.retired_limit guest instructions reached
HOOK = 7  # control arrived at an address of the VMM's entry range
PROBE = 8  # the next instruction's row is in the probe mask
MARK = 9  # a region mark was executed
BOARD = 10  # a device asks for attention: exit, shutdown, console
HALTED_FOREVER = 11  # HLT with nothing that could wake it
ISOLATION = 12  # an operand or a fetch reached a frame that is not the guest's; cpu.violation_* say which
TIME_LOG = 13  # recording: the log of time reads is full; replaying: it has no value for this read; nothing committed
STOPPED = 14  # a stop of the debugger's was met: cpu.stop_number says which (core/stops.py)
INTERRUPT = 15  # an external interrupt is about to be taken, and cpu.interrupt_exits asks for this outcome instead
VM_EXIT = 16  # the guest of a hypervisor is to be left; cpu.vm_exit says why, and nothing of the instruction was committed

# What cpu.mark says of the instruction that ended with MARK.
MARK_BEGIN, MARK_END = 1, 2  # of a measured region
MARK_PROTECTED = 3  # it changed CS, CPL or the mode, and protected mode is on now; only where cpu.protected_exits is 1

# Edges out of a block, as micro-operations report them.
EDGE_FALL = 0
EDGE_TAKEN = 1
EDGE_INDIRECT = 2
EDGE_SYSTEM = 3
EDGE_FAULT = 64  # EDGE_FAULT + outcome

# -- segments -----------------------------------------------------------------------------------------------------
SEGMENT = np.dtype(
    [
        ("selector", "i8"),
        ("access", "i8"),  # access rights as in a VMCS (isa.registers AR_*)
        ("limit", "i8"),  # bytes, granularity applied
        ("seg_base", "i8"),
        ("read_last", "i8"),  # last offset that a plain read may touch, -1 when only the slow path can tell
        ("write_last", "i8"),  # the same for a plain write
    ]
)

# -- TLBs and caches ----------------------------------------------------------------------------------------------
TLB_ENTRY = np.dtype(
    [
        ("page", "i8"),  # linear address >> the unit's shift; -1: never filled
        ("frame", "i8"),  # physical address of the page
        ("rights", "i8"),  # PTE_RW | PTE_US | PTE_D | PTE_G of the whole walk, and RIGHT_NX
        ("generation", "i8"),  # valid if equal to the TLB's, or global, of this address space, and since its last full flush
        ("following", "i8"),  # the next entry of its bucket, plus 1; 0: none
    ]
)
RIGHT_NX = 1 << 9  # among a TLB entry's rights: instructions may not be fetched from the page
MAX_TLB_SETS = 4096
TLB_UNIT = np.dtype(
    [("first", "i8"), ("sets", "i8"), ("ways", "i8"), ("shift", "i8"), ("victim", "i8", MAX_TLB_SETS)]
)
DTLB, DTLB_LARGE, DTLB_L2, ITLB, ITLB_LARGE, ITLB_L2 = range(6)
N_TLB_UNITS = 6
MAX_TLB_ENTRIES = 4096 * N_TLB_UNITS
TLB_BUCKETS = 512  # of each unit: where an entry is found by its page, whatever the unit's geometry

CACHE_LEVEL = np.dtype([("first", "i8"), ("sets", "i8"), ("ways", "i8"), ("line_shift", "i8")])
MAX_CACHE_LINES = 1 << 18

# The front cache is a direct-mapped strict subset of the modelled TLBs, banked by supervisor (0) and user (1).
# A tag is the linear page address with the generation in its low 12 bits.
FRONT_SLOTS = 256
FRONT_SIZE = 2 * FRONT_SLOTS
FRONT_MASK = FRONT_SLOTS - 1
MAX_GENERATION = 0xFFF

MAX_MODE_TABLE = 8
MAX_CONTEXTS = 64
CONTEXT = np.dtype([("cs_base", "i8"), ("cs_limit", "i8"), ("attributes", "i8")])
WRITTEN_FRAMES = 64  # of the log of writes that need no search
CODE_WRITES = 64  # pending writes to pages that hold decoded code
CODE_SHIFT = 7  # decoded code is tracked in pieces of 128 bytes

MAX_ROWS = 1024
MAX_INSTRUCTION = 15  # bytes
PROBE_SITES = 256

# A note on an instruction of translated code (core/retirement.py).
NOTE_RETIRES = 1  # a guest instruction completes with it
NOTE_OWN_DATA = 2  # the VMM put it there: it may reach records that are granted to it, through GS or CS
NOTE_OWN_STACK = 4  # likewise through SS
NOTE_EVENT_SHIFT = 3  # above: the number of an event that it counts, 0 none
UNIT_EVENTS = 16

# What a debugger outside the machine stops at (core/stops.py).
STOP_ON_CODE, STOP_ON_WRITES, STOP_ON_READS, STOP_ON_ACCESSES = range(4)
MAX_STOPS = 64  # that a debugger sets
MAX_PLACES = 1024  # of its stops on code in translated code, behind them in the table
DELIVERIES_IGNORED, DELIVERIES_OF_PROCESSOR, DELIVERIES_OF_VMM = range(3)  # whose deliveries of events are stops
DELIVERY_MET = MAX_STOPS + MAX_PLACES + 1  # instead of a stop's number: an event was delivered
STOP = np.dtype([("kind", "i8"), ("first", "i8"), ("last", "i8")])  # of the linear addresses; code: the first alone

HOLDS_INTERRUPTS = 1  # after STI
HOLDS_DEBUG = 2  # after MOV SS and POP SS: debug exceptions too

# SVM: not there, there, there but disabled and locked by firmware (VM_CR says so, EFER.SVME cannot be set).
SVM_ABSENT, SVM_PRESENT, SVM_DISABLED = range(3)
N_VMX_CAPABILITIES = 17  # IA32_VMX_BASIC to IA32_VMX_TRUE_ENTRY_CTLS
# Model-specific registers that only store, with what decides which there are (core/model_specific.py).
VARIABLE_RANGES = 8  # of MTRRs
MC_BANKS = 4
MODEL_SPECIFIC = np.dtype(
    [
        ("features", "i8"),  # CPUID leaf 1 EDX
        ("extended_features", "i8"),  # leaf 80000001 EDX
        ("is_intel", "i8"),
        ("physical_bits", "i8"),
        ("efer", "i8"),
        ("misc_enable", "i8"),
        ("pat", "i8"),
        ("mtrr_default", "i8"),
        ("mtrr_physical", "i8", 2 * VARIABLE_RANGES),  # base, mask, base, ...
        ("mtrr_fixed", "i8", 11),
        ("mcg_status", "i8"),
        ("mc_control", "i8", MC_BANKS),
        ("feature_control", "i8"),  # IA32_FEATURE_CONTROL
        ("vmx_capability", "i8", N_VMX_CAPABILITIES),  # IA32_VMX_BASIC and the registers behind it; all 0: no VMX
        ("has_svm", "i8"),  # SVM_
        ("svm_features", "i8"),  # CPUID leaf 8000000A EDX
        ("vm_cr", "i8"),
        ("vm_hsave_pa", "i8"),  # where VMRUN saves the host's state
        ("svm_key", "i8"),  # what unlocks VM_CR; 0: nothing does
    ]
)

# Rows of CPU.cpuid: the basic leaves, the sub-leaves of leaf 4, the extended leaves.
CPUID_CACHES = 16
CPUID_EXTENDED = 24
CPUID_ROWS = 64
# The owner of a frame, as the table behind RAM says it, one byte each (core/isolation.py).
# Granted: the VMM's, reached by translated code as far as its notes say, by nothing else outside the VMM.
OWNER_VMM, OWNER_GUEST, OWNER_GRANTED = range(3)
ACCESS_READ, ACCESS_WRITE, ACCESS_FETCH = range(3)

# What becomes of time-dependent reads (core/time_log.py).
TIME_OFF, TIME_RECORD, TIME_REPLAY = range(3)
TIME_ENTRIES = 256
TIME_READ = np.dtype(
    [
        ("n", "i8"),  # guest instructions retired before it
        ("source", "i8"),  # as below
        ("value", "i8"),  # of a counter what was read, of an access to a device its tick
    ]
)
TIME_STAMP = -1
TIME_COUNTER = -2  # performance counter n is source TIME_COUNTER - n
TIME_OUT = 1 << 16  # a read from port n is source n, a write source TIME_OUT + n
TIME_APIC = 1 << 17  # an access to the local APIC
# -- x87 -----------------------------------------------------------------------------------------------------------
FLOAT80 = np.dtype(  # a value of the x87 FPU (core/float80.py)
    [
        ("sign", "i8"),
        ("exponent", "i8"),  # biased by 16383
        ("high", "i8"),  # significand, bits 63:32
        ("low", "i8"),  # significand, bits 31:0
        ("extra", "i8"),  # 32 bits below the significand, while an operation needs them; 0 in a register
    ]
)
N_FPU_VALUES = 24  # R0 to R7, then what an operation works on (core/x87_state.py)

# -- APICs ------------------------------------------------------------------------------------------------------------
N_LOCAL_VECTORS = 6
LOCAL_APIC = np.dtype(
    [
        ("present", "i8"),  # 1: the machine has one, and an I/O APIC
        ("bus_clock", "i8"),  # ticks of a bus clock, which the timer counts
        ("base_msr", "i8"),  # IA32_APIC_BASE
        ("enabled", "i8"),  # 1: present, and IA32_APIC_BASE.EN is set
        ("page", "i8"),  # physical address of its registers >> 12, -1 while it is not enabled
        ("identity", "i8"),  # the registers, as section 10.4.1 lists them
        ("task_priority", "i8"),
        ("logical_destination", "i8"),
        ("destination_format", "i8"),
        ("spurious", "i8"),
        ("in_service", "i8", 8),  # 256 bits in words of 32
        ("trigger_mode", "i8", 8),
        ("requested", "i8", 8),
        ("error_status", "i8"),  # as the last write showed it
        ("errors", "i8"),  # found since then
        ("command_low", "i8"),
        ("command_high", "i8"),
        ("local_vector", "i8", N_LOCAL_VECTORS),
        ("initial_count", "i8"),
        ("divide", "i8"),
        ("count_from", "i8"),  # the timer's count at tick `count_began`; 0: it stands still
        ("count_began", "i8"),
        ("deliverable", "i8"),  # the vector that the processor is asked to take, -1: none
    ]
)
N_INPUTS = 24
IO_APIC = np.dtype(
    [
        ("selected", "i8"),  # IOREGSEL
        ("identity", "i8"),  # bits 27:24, as the register has them
        ("arbitration", "i8"),
        ("entry_low", "i8", N_INPUTS),
        ("entry_high", "i8", N_INPUTS),
        ("levels", "i8"),  # of the inputs, when they were last looked at
        ("fresh", "i8"),  # inputs that were masked until a moment ago: edges up to now are ignored
        ("changed", "i8"),  # 1: a register of either APIC was written since
    ]
)

# -- virtual-machine extensions ---------------------------------------------------------------------------------------
# Where the processor is: in VMX root operation or without VMX and SVM, in VMX non-root operation, in SVM's guest mode.
ROOT, VMX_NON_ROOT, SVM_GUEST = range(3)
# Nested page tables of the guest: none, extended page tables (VMX), nested paging (SVM).
NESTED_OFF, NESTED_EPT, NESTED_NPT = range(3)
N_OPERATIONS = 128  # room for the numbers of isa/system_ops.py
N_TLB_TAGS = 64  # address spaces of VPIDs or ASIDs that the modelled TLB keeps apart at a time; a power of two
TLB_TAG = np.dtype(
    [
        ("identifier", "i8"),  # VPID or ASID
        ("root", "i8"),  # of extended page tables, plus 1; 0: none; SVM has no such distinction
        ("generation", "i8"),  # cpu.tlb_generation and the next two, while another address space is present; 0: unused
        ("full_flush", "i8"),
        ("large_shift", "i8"),
        # The `full_flush`, plus 1, since which it has entries for pieces of a page that is larger in the guest's own tables.
        ("in_pieces", "i8"),
    ]
)

# What walks of nested tables remember (core/nested_cache.py).
MAX_NESTED_ENTRIES = 64
NESTED_ENTRY = np.dtype(
    [
        ("space", "i8"),  # whose: a set of extended page tables or an ASID (core/nested_cache.py); 0: empty
        ("page", "i8"),  # guest-physical address >> 12, or of the region that a last-level table maps
        ("frame", "i8"),  # physical address of the page, or of that table
        ("rights", "i8"),  # NESTED_READ, NESTED_WRITE, NESTED_FETCH
    ]
)
NESTED_READ, NESTED_WRITE, NESTED_FETCH = 1, 2, 4  # as in an entry of extended page tables
GUEST_LEVELS = 3  # the guest's tables: directory, table, page-directory pointers
NESTED = np.dtype(
    [
        # the processor's features
        ("has_tags", "i8"),
        ("execute_only", "i8"),
        ("pages_2m", "i8"),
        ("pages_1g", "i8"),
        ("page_entries", "i8"),  # of the nested TLB
        ("table_entries", "i8"),  # of the cache of last-level tables
        # what it remembers
        ("page_victim", "i8"),
        ("table_victim", "i8"),
        ("pages", NESTED_ENTRY, MAX_NESTED_ENTRIES),
        ("tables", NESTED_ENTRY, MAX_NESTED_ENTRIES),
        # of the walk that is being made: the guest's entries, by level, and the nested ones
        ("guest_address", "i8", GUEST_LEVELS),
        ("guest_rights", "i8", GUEST_LEVELS),
        ("step_address", "i8", 4),
        ("step_entry", "i8", 4),
        ("result", "i8", 2),  # what core/extensions.py returns beside an outcome
    ]
)

VM_EXIT_INFORMATION = np.dtype(  # as the VMCS's exit-information fields have it (SDM volume 3, section 24.9)
    [
        ("reason", "i8"),  # basic exit reason of VMX, or the exit code of SVM
        ("qualification", "i8"),  # or EXITINFO1
        ("gla", "i8"),  # guest-linear address
        ("gpa", "i8"),  # guest-physical address, or EXITINFO2
        ("interruption", "i8"),  # VM-exit interruption information
        ("interruption_error", "i8"),
        ("vectoring", "i8"),  # IDT-vectoring information, or EXITINTINFO
        ("vectoring_error", "i8"),
        ("instruction_length", "i8"),
        ("instruction_information", "i8"),
    ]
)

VMX_SUCCEEDED, VMX_FAILED_INVALID, VMX_FAILED_VALID = range(3)  # how a VMX instruction ended
# VMX: what the processor holds beside the VMCS itself (core/vmcs.py, vmx_entry.py).
VMX = np.dtype(
    [
        ("field_offered", "i8", N_FIELDS),  # by slot: 1 if this processor's VMCS has the field
        ("operation", "i8"),  # 1: in VMX operation, root or non-root (cpu.world)
        ("vmxon_pointer", "i8"),
        ("current", "i8"),  # current-VMCS pointer, -1 for none
        ("place", "i8"),  # where its region lies, valid while there is one
        ("result", "i8"),  # VMX_SUCCEEDED, ...: of the last VMX instruction; a VM entry that came to the guest state succeeded
        ("nmi_blocked", "i8"),  # 1: blocking by NMI, or virtual-NMI blocking in a guest with virtual NMIs
        # of the guest that was entered last: what its VMCS said at VM entry
        ("pin", "i8"),
        ("processor", "i8"),
        ("secondary", "i8"),  # 0 unless activated
        ("exit_controls", "i8"),
        ("entry_controls", "i8"),
        ("exception_bitmap", "i8"),
        ("page_fault_mask", "i8"),
        ("page_fault_match", "i8"),
        ("cr0_mask", "i8"),
        ("cr4_mask", "i8"),
        ("cr0_shadow", "i8"),
        ("cr4_shadow", "i8"),
        ("cr3_targets", "i8"),  # how many of the next count
        ("cr3_target", "i8", 4),
        ("io_bitmap_a", "i8"),
        ("io_bitmap_b", "i8"),
        ("msr_bitmaps", "i8"),
        ("ept_pointer", "i8"),
        ("vpid", "i8"),  # 0 unless enabled
        ("timer_due", "i8"),  # the tick at which the VMX-preemption timer reaches 0; NEVER when it is off
    ]
)

# SVM: what the processor holds beside the VMCB (core/svm_run.py); all but the first two of the guest that was entered last.
N_SYSTEM_CALL_REGISTERS = 5
SVM = np.dtype(
    [
        ("gif", "i8"),  # the global interrupt flag
        ("system_call", "i8", N_SYSTEM_CALL_REGISTERS),  # STAR to KernelGSBase, which VMLOAD and VMSAVE alone can reach
        ("vmcb", "i8"),  # physical address
        ("cr_intercepts", "i8"),
        ("dr_intercepts", "i8"),
        ("exception_intercepts", "i8"),
        ("intercepts_1", "i8"),
        ("intercepts_2", "i8"),
        ("iopm", "i8"),
        ("msrpm", "i8"),
        ("asid", "i8"),  # 0 in the host
        ("v_tpr", "i8"),
        ("v_irq", "i8"),
        ("v_intr_prio", "i8"),
        ("v_ign_tpr", "i8"),
        ("v_intr_masking", "i8"),
        ("v_intr_vector", "i8"),
        ("nested_paging", "i8"),
        ("host_if", "i8"),  # EFLAGS.IF of the host, which masks physical interrupts under V_INTR_MASKING
        ("host_pat", "i8"),
        ("next_rip", "i8"),  # of an exit by an instruction: the address behind it; 0: none
    ]
)

CPU = np.dtype(
    [
        # architectural state
        ("gpr", "i8", N_REGISTER_SLOTS),
        ("rip", "i8"),
        ("eflags", "i8"),  # all flags but the arithmetic ones, which the next two hold
        ("flag_result", "i8"),  # see core/alu_flags.py
        ("flag_carry", "i8"),
        ("cr0", "i8"),
        ("cr2", "i8"),
        ("cr3", "i8"),
        ("cr4", "i8"),
        ("pdpte", "i8", 4),  # PAE paging: the page-directory-pointer entries that the last load of CR3 read; 0: not present
        ("cpl", "i8"),
        ("world", "i8"),  # ROOT, VMX_NON_ROOT or SVM_GUEST
        ("nested_kind", "i8"),  # NESTED_
        ("tlb_tag", "i8"),  # index of the TLB's present address space; 0 is the host's
        ("injected", "i8"),  # 1 while the event that a VM entry injects is delivered
        ("held", "i8"),  # what `shadow` held off as the instruction began that executes by itself
        ("instruction_length", "i8"),  # of the instruction that a fault or an exit left, 0 where none was
        ("cr2_before", "i8"),
        ("fault_address", "i8"),
        ("idt_has_error", "i8"),
        ("nested_root", "i8"),  # physical address of the top table
        ("nested_levels", "i8"),  # 2 to 4
        ("nested_large", "i8"),  # nested paging of 2 levels: 1 if its directory may hold pages of 4 MB (the host's CR4.PSE)
        ("nested_no_execute", "i8"),  # nested paging of 3 and 4 levels: 1 if bit 63 forbids fetches (the host's EFER.NXE)
        ("address_space", "i8"),  # VPID or ASID of the guest that is entered; 0: none
        ("guest_tsc_offset", "i8"),  # added to the time-stamp counter in a guest that has an offset; else 0
        ("nmi_unblocked", "i8"),  # 1: the running IRET ended blocking by NMI, and then faulted
        ("seg", SEGMENT, N_SEGMENTS),
        ("gdtr_base", "i8"),
        ("gdtr_limit", "i8"),
        ("idtr_base", "i8"),
        ("idtr_limit", "i8"),
        ("sysenter_cs", "i8"),
        ("sysenter_esp", "i8"),
        ("sysenter_eip", "i8"),
        ("efer", "i8"),  # as in `msr`, where paging finds it
        ("tsc_offset", "i8"),  # cycles added to the tick counter by RDTSC
        ("performance_select", "i8", 2),  # event-select registers (core/performance.py)
        ("performance_start", "i8", 2),  # what a counter has beyond the source that it follows
        ("dr", "i8", 8),
        ("watch", "i8"),  # kinds of breakpoints that are enabled, WATCH_ bits of core/breakpoints.py
        # the debugger's stops: no guest sees them, and no cycle depends on them
        ("stop_count", "i8"),
        ("stops", STOP, MAX_STOPS + MAX_PLACES),
        ("stop_deliveries", "i8"),  # DELIVERIES_: whether an interrupt or exception that is delivered is a stop too
        ("stop_notes", "i8"),  # 1: a stop is only noted in the fields from stop_number on, and the run goes on
        ("stop_end_retired", "i8"),  # and a stop on code that is met at this place, or later, is not even noted
        ("stop_end_ticks", "i8"),
        ("stop_met", "i8"),  # the stop, plus 1, that the running instruction met, or DELIVERY_MET; 0: none
        ("stop_met_at", "i8"),  # and its linear address
        ("stop_number", "i8"),  # the last stop, plus 1
        ("stop_address", "i8"),  # where it was met
        ("stop_retired", "i8"),
        ("stop_ticks", "i8"),
        ("stop_passed", "i8"),  # the instruction there is no stop as long as `retired` has this value
        ("stop_passed_retired", "i8"),
        ("debug_hits", "i8"),  # DR6 bits of the data and port breakpoints that the running instruction met
        ("shadow", "i8"),  # what is held off for one instruction: 0, HOLDS_INTERRUPTS or HOLDS_DEBUG
        ("debug_pending", "i8"),  # DR6 bits of a debug trap that is raised at the next instruction boundary
        ("halted", "i8"),
        # the event being raised or delivered (numbers of the VMCS interruption information)
        ("event_vector", "i8"),
        ("event_kind", "i8"),
        ("event_error", "i8"),
        ("event_has_error", "i8"),
        ("idt_vector", "i8"),  # the event that was being delivered when this one arose, -1 none
        ("idt_kind", "i8"),
        ("idt_error", "i8"),
        # x87
        ("fpu_value", FLOAT80, N_FPU_VALUES),
        ("fpu_control", "i8"),
        ("fpu_status", "i8"),  # TOP is in place
        ("fpu_occupied", "i8"),  # bit n: R[n] is not empty
        ("fpu_instruction", "i8"),  # pointers to the last instruction that was no control instruction
        ("fpu_instruction_selector", "i8"),
        ("fpu_operand", "i8"),  # and to its memory operand
        ("fpu_operand_selector", "i8"),
        ("fpu_opcode", "i8"),  # 11 bits
        ("fpu_flags", "i8"),  # exceptions of the instruction that executes, at their places in the status word
        ("fpu_class", "i8", 2),  # of the operands of an operation
        ("fpu_integer", "i8", 3),  # an operand of up to 80 bits on its way to or from memory, in words of 32 bits
        ("fpu_range", "i8", 3),  # a translated range: its place (written: address), bytes on its first page, place of the rest
        # time and the ledger
        ("ticks", "i8"),
        ("limit_ticks", "i8"),  # the earlier of deadline and budget: blocks that reach it go by instruction
        ("deadline", "i8"),
        ("budget", "i8"),
        ("timer", "i8"),  # the host's one-shot timer, in ticks; NEVER when idle
        ("timer_vector", "i8"),
        ("timer_pending", "i8"),
        ("retired", "i8"),  # instructions retired outside the VMM's mode
        ("retired_limit", "i8"),
        ("mode", "i8"),
        ("mode_table", "i8", MAX_MODE_TABLE),  # mode by CPL, 4 to 7 in a hypervisor's guest (cpu.world)
        ("ledger_count", "i8", (N_EVENTS, N_MODES)),
        ("ledger_ticks", "i8", (N_EVENTS, N_MODES)),
        ("price", "i8", N_EVENTS),  # ticks
        # address translation
        ("bank", "i8"),  # FRONT_SLOTS when CPL is 3, else 0
        ("front_generation", "i8"),
        ("fetch_generation", "i8"),
        ("front_read", "i8", FRONT_SIZE),
        ("front_write", "i8", FRONT_SIZE),
        ("front_fetch", "i8", FRONT_SIZE),
        ("read_addend", "i8", FRONT_SIZE),
        ("write_addend", "i8", FRONT_SIZE),
        ("fetch_addend", "i8", FRONT_SIZE),
        ("a20_closed", "i8"),  # the bit of physical addresses that the A20 gate keeps at 0; 0 while it is open
        ("address_reserved_high", "i8"),  # bits 62:32 that are reserved in a 64-bit entry, shifted down to 30:0
        ("large_page_reserved", "i8"),  # bits that are reserved in the directory entry of a 4 MB page
        ("tlb_generation", "i8"),  # of the present address space: a number of its own, its tag in the low bits
        ("tlb_full_flush", "i8"),  # the generation that the last flush of all entries, global ones too, began
        ("tlb_buckets", "i8", N_TLB_UNITS * TLB_BUCKETS),  # the first entry of each bucket, plus 1; 0: none
        ("tlb_units", TLB_UNIT, N_TLB_UNITS),
        ("tlb", TLB_ENTRY, MAX_TLB_ENTRIES),
        ("cache_levels", CACHE_LEVEL, 3),
        ("cache_lines", "i8", MAX_CACHE_LINES),  # physical address >> line_shift, plus 1; 0 = invalid
        ("cache_all", "i8"),  # 1: data goes through the cache model too
        # registers in memory (core/memory_mapped.py)
        ("apic", LOCAL_APIC),
        ("io_apic", IO_APIC),
        # the physical map (core/physical_map.py)
        ("ram_last", "i8"),  # last physical byte of RAM
        ("place_last", "i8"),  # last byte of ROM, or of RAM if there is none
        ("rom_first", "i8"),  # the place of the BIOS image; the expansion ROM of the VGA follows it
        ("bios_bytes", "i8"),
        ("vga_rom_bytes", "i8"),
        ("vga_rom_address", "i8"),  # where the expansion ROM answers; 0: nowhere
        ("pam", "i8"),  # the host bridge's PAM registers 59 to 5F, 59 in the low byte
        ("pam_read", "i8"),  # made of them, bit n: reads of the 16 KB at C0000 + n * 4000 go to RAM
        ("pam_write", "i8"),  # the same for writes
        ("holes", "i8"),  # not 0: something hides parts of RAM, or the frame map moves it
        ("frame_map", "i8"),  # place of a table of the frame where each frame of RAM really lies, 4 bytes each; 0: no such map
        ("write_log", "i8"),  # place of a table of bytes, one per real frame: 1 where RAM was written through the frame map
        ("written_count", "i8"),  # frames that were marked there since the count was set to 0
        ("written", "i8", WRITTEN_FRAMES),  # the first of them
        # an address that a read-modify-write has translated for writing
        ("rmw_first", "i8"),  # physical address of the first byte
        ("rmw_split", "i8"),  # bytes on the first page, 0 when the operand does not cross; AT_PLACE of core/memory.py
        ("rmw_second", "i8"),  # physical address of the rest
        # code
        ("context", "i8"),  # index of the code context (CS base and limit, CPL, D bit, mode)
        ("context_count", "i8"),
        ("context_of_level", "i8", 4),  # by CPL: the context that this level ran in last
        ("contexts", CONTEXT, MAX_CONTEXTS),
        ("code_map", "i8"),  # where the masks are, one per page of RAM and ROM: bit n = bytes 128n..128n+127 hold decoded code
        ("code_write_count", "i8"),
        ("code_writes", "i8", CODE_WRITES),  # places >> CODE_SHIFT whose code is to be discarded
        ("in_block", "i8"),  # 1 while later instructions of the block are already charged
        ("begun", "i8"),  # 1: the next instruction's boundary is over, and its translations may have been charged
        ("uop_index", "i8"),  # where the last micro-operation loop stopped
        ("flush_code", "i8"),  # 1: every decoded block is to be discarded
        # the check of isolation: on if there is a table
        ("owner_table", "i8"),  # where the owners are, one per frame of RAM; 0 when off
        # while an access through a segment, an instruction's operand, is translated: the segment's number + 1; else 0
        ("operand_access", "i8"),
        ("code_place", "i8"),  # where the block begins that executes, which in the translation cache is one instruction
        ("violation_gla", "i8"),
        ("violation_hpa", "i8"),
        ("violation_access", "i8"),  # ACCESS_READ, ACCESS_WRITE or ACCESS_FETCH
        # the log of time-dependent reads
        ("time_mode", "i8"),
        ("time_count", "i8"),  # entries in the log
        ("time_next", "i8"),  # replaying: the next one
        ("time_log", TIME_READ, TIME_ENTRIES),
        ("probe_on", "i8"),
        ("probe_skip", "i8"),
        ("probe", "i8", MAX_ROWS),  # by row: bit n says that its execution in mode n is reported first
        ("probe_row", "i8"),
        ("probe_known", "i8"),  # instructions in `probe_sites`
        ("probe_sites", "i8", PROBE_SITES),  # that are not reported any more (core/code.py)
        ("hook_first", "i8"),  # linear range of VMM entry points; empty when first > last
        ("hook_last", "i8"),
        ("mark", "i8"),  # MARK_, or 0
        # exits that whoever runs the processor asks for
        ("interrupt_exits", "i8"),  # 1: INTERRUPT instead of an external interrupt
        ("protected_exits", "i8"),  # 1: MARK_PROTECTED where CS, CPL or the mode changed in protected mode
        ("hook_level", "i8"),  # the outermost privilege level at which arriving there counts
        # translated code, whose instructions are not the guest's one for one (core/retirement.py)
        ("unit_first", "i8"),  # places of the translation cache; empty when first > last
        ("unit_last", "i8"),
        ("unit_selector", "i8"),  # of the code segment in which the cache is executed, RPL 0
        ("unit_notes", "i8"),  # the place of its table of notes, a byte for each byte of the cache
        ("unit_events", "i8", UNIT_EVENTS),  # the ledger event that a note's number stands for
        # features and identity, from the profile
        ("cpuid", "i8", (CPUID_ROWS, 4)),  # EAX, EBX, ECX, EDX by row (core/identity.py)
        ("cpuid_highest", "i8"),
        ("cpuid_highest_extended", "i8"),
        ("cpuid_repeats", "i8"),  # 1: beyond the highest leaf CPUID answers as that one does
        ("cpuid_leaf1_edx", "i8"),  # the features
        ("sensitive_trap", "i8"),  # 1: every sensitive instruction is #GP(0) at CPL > 0
        # virtual-machine extensions
        ("msr", MODEL_SPECIFIC),
        ("vm_exit", VM_EXIT_INFORMATION),
        ("intercepted", "i8", N_OPERATIONS),  # by operation: 1 if the guest's controls may make it exit
        ("nested", NESTED),
        ("vmx", VMX),
        ("svm", SVM),
        ("tlb_tags", TLB_TAG, N_TLB_TAGS),
        ("tlb_tag_victim", "i8"),
        ("tlb_counter", "i8"),  # of the generations that were given out, times N_TLB_TAGS
        # the last page fault or debug exception that was raised, and what it changed: an exit instead of it takes that back
        ("debug_raised", "i8"),  # bits of DR6
        ("dr6_before", "i8"),
        ("dr7_before", "i8"),
    ]
)
NEVER = 1 << 62
