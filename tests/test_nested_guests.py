"""Guests of VMX and SVM on nested tables: their code, data and stack lie where the tables say."""

from __future__ import annotations

import pytest
from bare_machine import CODE, DATA, DIRECTORY, EAX, EBX, ECX, ESP, STACK, TABLE
from svm_machine import GUEST, SvmMachine
from vmx_machine import HOST_RIP, VmxMachine

from x86virt.core.layout import HOOK, VMX_NON_ROOT
from x86virt.core.vmx_entries import vmx_invept, vmx_invvpid
from x86virt.isa.events import (
    EVENT_EXIT_EPT_VIOLATION,
    EVENT_WALK_NATIVE,
    EVENT_WALK_NESTED_REFERENCE,
)
from x86virt.isa.vmx import VMX_TRUE_PROCBASED

EPT = 0x70000  # four tables
MOVED = 0x60000  # where the guest's data lie
MOVED_CODE = 0x61000
READ, WRITE, FETCH, ALL = 1, 2, 4, 7
EPTP = EPT | 3 << 3 | 6
ACTIVATE_SECONDARY = 1 << 31
ENABLE_EPT, ENABLE_VPID = 1 << 1, 1 << 5
VMCALL = b"\x0f\x01\xc1"


def load(address: int) -> bytes:
    """MOV EAX, [address]."""
    return b"\xa1" + address.to_bytes(4, "little")


def store(address: int) -> bytes:
    """MOV [address], EAX."""
    return b"\xa3" + address.to_bytes(4, "little")


class NestedMachine(VmxMachine):
    """The machine of tests/vmx_machine.py with extended page tables that map its RAM to itself but for the data page."""

    def begin(self) -> None:
        """Enter VMX operation; the guest has extended page tables and VPID 1."""
        super().begin()
        self.put(EPT, EPT + 0x1000 | ALL, 8)
        self.put(EPT + 0x1000, EPT + 0x2000 | ALL, 8)
        self.put(EPT + 0x2000, EPT + 0x3000 | ALL, 8)
        for page in range(256):
            self.map(page << 12, page << 12)
        self.map(DATA, MOVED)
        self.fields["primary_processor_based_vm_execution_controls"] = (
            self.capability(VMX_TRUE_PROCBASED) & 0xFFFFFFFF | ACTIVATE_SECONDARY
        )
        self.fields |= {
            "secondary_processor_based_vm_execution_controls": ENABLE_EPT | ENABLE_VPID,
            "ept_pointer": EPTP,
            "virtual_processor_identifier": 1,
        }
        self.store(self.fields)

    def map(self, gpa: int, physical: int, permissions: int = ALL) -> None:
        """Map a guest-physical page; without INVEPT."""
        self.put(EPT + 0x3000 + (gpa >> 12) * 8, physical | permissions | 6 << 3 if permissions else 0, 8)

    def run(self, launch: int = 1) -> int:
        """Enter the guest, and run until it exits; returns the exit reason."""
        assert self.enter(launch) == "entered"
        assert self.cpu.world == VMX_NON_ROOT
        assert self.processor.run() == HOOK and self.cpu.rip == HOST_RIP
        return self.field("exit_reason")

    def violation(self) -> tuple[int, int, int]:
        """Qualification, guest-linear and guest-physical address of the last exit."""
        return (
            self.field("exit_qualification"),
            self.field("guest_linear_address"),
            self.field("guest_physical_address"),
        )


@pytest.fixture
def machine() -> NestedMachine:
    """A new machine."""
    return NestedMachine()


def test_data_lie_where_the_tables_say(machine: NestedMachine) -> None:
    """Loads, stores and what the host sees of them."""
    machine.put(MOVED, 0x11223344)
    machine.put(DATA, 0x55667788)
    machine.write_code(load(DATA) + b"\x40" + store(DATA + 4) + VMCALL)
    assert machine.run() == 18
    assert machine.gpr[EAX] == 0x11223345
    assert machine.get(MOVED + 4) == 0x11223345 and machine.get(DATA + 4) == 0 and machine.get(DATA) == 0x55667788


def test_code_lies_where_the_tables_say(machine: NestedMachine) -> None:
    """A call into a page whose frame is another; the same linear address in the host is other code."""
    machine.map(CODE + 0x1000, MOVED_CODE)
    machine.write_code(b"\xbb\x01\x00\x00\x00\xc3", MOVED_CODE)  # mov ebx, 1; ret
    machine.write_code(b"\xbb\x02\x00\x00\x00\xc3", CODE + 0x1000)  # mov ebx, 2; ret
    machine.write_code(b"\xe8" + (0x1000 - 5).to_bytes(4, "little") + VMCALL)
    assert machine.run() == 18
    assert machine.gpr[EBX] == 1
    machine.write_code(b"\xf4", CODE + 5)
    machine.cpu.rip = CODE
    machine.processor.run()
    assert machine.gpr[EBX] == 2 and machine.cpu.world != VMX_NON_ROOT


ACCESSES = {
    "read": (load(DATA + 8), READ),
    "write": (store(DATA + 8), WRITE),
    "fetch": (b"\xe9" + (DATA + 8 - CODE - 5 - 7).to_bytes(4, "little", signed=True), FETCH),
}


@pytest.mark.parametrize("permissions", [0, READ, READ | WRITE, READ | FETCH, FETCH, ALL])
@pytest.mark.parametrize("access", ACCESSES)
def test_violations_and_how_they_are_answered(machine: NestedMachine, access: str, permissions: int) -> None:
    """Each access exits exactly where its permission is missing; once granted, without INVEPT, the instruction goes on."""
    code, needed = ACCESSES[access]
    machine.put(MOVED + 8, 0x00C1010F, 4)  # VMCALL, as data and as code
    machine.map(DATA, MOVED, permissions)
    machine.write_code(b"\xb8\x0f\x01\xc1\x00\x90\x90" + code + VMCALL)  # mov eax, VMCALL
    before = int(machine.cpu.retired)
    reason = machine.run()
    if permissions & needed:
        assert reason == 18
        return
    assert reason == 48
    assert machine.violation() == (needed | permissions << 3 | 1 << 7 | 1 << 8, DATA + 8, DATA + 8)
    # The exit is a fault: a fetch faults at the target of the jump, which has been executed.
    assert machine.field("guest_rip") == (DATA + 8 if access == "fetch" else CODE + 7)
    assert int(machine.cpu.retired) - before == 3 + (access == "fetch")
    assert int(machine.cpu.ledger_count[EVENT_EXIT_EPT_VIOLATION].sum()) == 1
    machine.map(DATA, MOVED, ALL)
    assert machine.run(0) == 18
    assert machine.get(MOVED + 8) == 0xC1010F
    assert int(machine.cpu.ledger_count[EVENT_EXIT_EPT_VIOLATION].sum()) == 1


def test_a_misconfigured_page(machine: NestedMachine) -> None:
    """Write permission without read permission."""
    machine.map(DATA, MOVED, WRITE)
    machine.write_code(load(DATA + 12) + VMCALL)
    assert machine.run() == 49
    assert machine.field("guest_physical_address") == DATA + 12
    machine.map(DATA, MOVED)
    assert machine.run(0) == 18


def test_the_guests_own_tables(machine: NestedMachine) -> None:
    """A guest whose page table is not there, then cannot be marked: the access counts as one to the tables."""
    machine.write_code(load(DATA) + VMCALL)
    machine.put(TABLE + (DATA >> 12) * 4, DATA | 7 | 1 << 6)
    machine.map(TABLE, TABLE, 0)
    assert machine.run() == 48
    assert machine.violation() == (READ | 1 << 7, CODE, TABLE + (CODE >> 12) * 4)
    machine.map(TABLE, TABLE)
    machine.put(TABLE + (CODE >> 12) * 4, CODE | 7 | 1 << 5)
    machine.map(TABLE, TABLE, READ)
    assert machine.run(0) == 48
    assert machine.violation() == (WRITE | READ << 3 | 1 << 7, DATA, TABLE + (DATA >> 12) * 4)
    machine.map(TABLE, TABLE, READ | WRITE)
    assert machine.run(0) == 18
    assert machine.get(TABLE + (DATA >> 12) * 4) == DATA | 7 | 1 << 5 | 1 << 6


def test_a_violation_in_a_delivery(machine: NestedMachine) -> None:
    """The stack of an exception's handler is not there: the exit says which event was being delivered, and it is not lost."""
    machine.map(STACK, STACK, 0)
    machine.gpr[ESP] = STACK + 0x1000
    machine.fields["guest_rsp"] = STACK + 0x1000
    machine.store({"guest_rsp": STACK + 0x1000})
    machine.write_code(b"\x0f\x0b" + VMCALL)  # ud2
    assert machine.run() == 48
    qualification, gla, gpa = machine.violation()
    assert qualification == WRITE | 1 << 7 | 1 << 8 and gla == gpa and STACK <= gpa < STACK + 0x1000
    assert machine.field("idt_vectoring_information") == 1 << 31 | 3 << 8 | 6
    assert machine.field("guest_rip") == CODE and machine.field("guest_rsp") == STACK + 0x1000


def test_transitions_with_a_tag_keep_translations(machine: NestedMachine) -> None:
    """With a VPID a guest finds its translations again; without one they are gone, but not the guest-physical ones."""
    machine.write_code(load(DATA) + VMCALL)
    machine.run()
    for expected in (0, 0):
        machine.store({"guest_rip": CODE})
        before = int(machine.cpu.ledger_count[EVENT_WALK_NATIVE].sum())
        machine.run(0)
        assert int(machine.cpu.ledger_count[EVENT_WALK_NATIVE].sum()) - before == expected
    machine.store({"secondary_processor_based_vm_execution_controls": ENABLE_EPT, "virtual_processor_identifier": 0})
    machine.store({"guest_rip": CODE})
    walks = int(machine.cpu.ledger_count[EVENT_WALK_NATIVE].sum())
    references = int(machine.cpu.ledger_count[EVENT_WALK_NESTED_REFERENCE].sum())
    machine.run(0)
    assert int(machine.cpu.ledger_count[EVENT_WALK_NATIVE].sum()) - walks == 2
    assert int(machine.cpu.ledger_count[EVENT_WALK_NESTED_REFERENCE].sum()) - references == 2


def test_a_loop_walks_once(machine: NestedMachine) -> None:
    """A thousand stores through one translation: nested paging costs walks, not accesses."""
    machine.write_code(b"\xb9\xe8\x03\x00\x00" + store(DATA) + b"\x49\x75\xf8" + VMCALL)  # mov ecx, 1000; L: store; dec; jnz L
    assert machine.run() == 18
    assert machine.gpr[ECX] == 0
    assert int(machine.cpu.ledger_count[EVENT_WALK_NATIVE].sum()) == 2


def test_cr3_and_invlpg_do_not_exit(machine: NestedMachine) -> None:
    """With extended page tables a guest changes its address space by itself."""
    other = 0x42000
    machine.put(other, TABLE | 7)
    code = load(DATA) + b"\xbb" + other.to_bytes(4, "little") + b"\x0f\x22\xdb" + load(DATA)  # mov ebx, other; mov cr3, ebx
    code += b"\x0f\x01\x3d" + DATA.to_bytes(4, "little") + load(DATA) + VMCALL  # invlpg [DATA]
    machine.write_code(code)
    assert machine.run() == 18
    assert machine.field("guest_cr3") == other != DIRECTORY


@pytest.mark.parametrize("vpid", [0, 1])
def test_invlpg_drops_all_pieces_of_a_large_page(machine: NestedMachine, vpid: int) -> None:
    """One page of 4 MB in the guest's tables is many in the nested ones, and INVLPG of an address drops it as a whole."""
    machine.store({"guest_cr4": 1 << 13 | 1 << 4, "virtual_processor_identifier": vpid})  # PSE
    if not vpid:
        machine.store({"secondary_processor_based_vm_execution_controls": ENABLE_EPT})
    large, other, moved = 0x800000, 0x42000, 0x25000
    machine.put(DIRECTORY + 8, 0xE7)
    for page in range(256):
        machine.put(other + 4 * page, moved | 0x67)
    machine.put(MOVED, 11)
    machine.put(moved, 22)
    code = load(large + DATA) + b"\x89\xc1" + load(large + CODE)  # mov ecx, eax
    code += b"\xc7\x05" + (DIRECTORY + 8).to_bytes(4, "little") + (other | 0x67).to_bytes(4, "little")
    code += b"\x0f\x01\x3d" + (large + CODE).to_bytes(4, "little") + load(large + DATA) + VMCALL
    machine.write_code(code)
    assert machine.run() == 18
    assert machine.gpr[ECX] == 11 and machine.gpr[EAX] == 22
    # The same from outside: INVVPID of another address of the page.
    machine.put(DIRECTORY + 8, 0xE7)
    machine.store({"guest_rip": CODE + len(code) - len(VMCALL) - 5})
    vmx_invvpid(machine.processor.state, machine.memory, 0, 1, large + CODE)
    assert machine.run(0) == 18
    assert machine.gpr[EAX] == (22 if vpid else 11)


def test_pae_pointers_in_the_vmcs(machine: NestedMachine) -> None:
    """Entry takes the pointers from the VMCS, MOV to CR3 loads them through the tables, exit saves them."""
    pointers, other, directory = 0x42000, 0x43020, 0x44000
    machine.put(directory, 0x45000 | 7, 8)
    for page in range(256):
        machine.put(0x45000 + 8 * page, page << 12 | 7, 8)
    machine.put(0x63020, directory | 1, 8)
    machine.map(other & ~0xFFF, 0x63000)
    machine.store({"guest_cr4": 1 << 13 | 1 << 5, "guest_cr3": pointers, "guest_pdpte0": directory | 1})
    machine.write_code(b"\xbb" + other.to_bytes(4, "little") + b"\x0f\x22\xdb" + load(DATA) + VMCALL)
    machine.put(MOVED, 77)
    assert machine.run() == 18
    assert machine.gpr[EAX] == 77 and machine.field("guest_cr3") == other
    assert [machine.field(f"guest_pdpte{number}") for number in range(4)] == [directory | 1, 0, 0, 0]
    # A page of pointers that is not there: no linear address is valid, and CR3 keeps its value.
    machine.map(other & ~0xFFF, 0, 0)
    machine.store({"guest_cr3": pointers, "guest_rip": CODE})
    vmx_invept(machine.processor.state, machine.memory, 2, 0)
    assert machine.run(0) == 48
    assert machine.field("exit_qualification") & 0x187 == READ and machine.field("guest_physical_address") == other
    assert machine.field("guest_cr3") == pointers and machine.field("guest_rip") == CODE + 5


# -- SVM ------------------------------------------------------------------------------------------------------------------

NESTED = 0x70000
VMMCALL = b"\x0f\x01\xd9"
NPF, EXIT_VMMCALL = 0x400, 0x81
PAE, PG_PE = 1 << 5, 1 << 31 | 0x11
USER_PAGE = 7
FINAL, GUEST_TABLES = 1 << 32, 1 << 33


class NptMachine(SvmMachine):
    """The machine of tests/svm_machine.py with nested tables of 2 or 3 levels; the guest's data page lies elsewhere."""

    def __init__(self, levels: int) -> None:
        self.levels = levels
        super().__init__()

    def prepare(self) -> None:
        """A host with paging, in the mode whose format the nested tables have, and a guest without paging."""
        super().prepare()
        self.paging()
        self.leaves, self.entry_bytes = NESTED + 0x1000, 4
        if self.levels == 3:
            # The host's own tables serve as an example of the format: identity, in PAE.
            self.cpu.cr4 = int(self.cpu.cr4) | PAE
            self.cpu.cr3 = NESTED + 0x3000
            self.leaves, self.entry_bytes = NESTED + 0x2000, 8
            self.put(NESTED, NESTED + 0x1000 | 1, 8)
            self.put(NESTED + 0x1000, self.leaves | USER_PAGE, 8)
            self.put(NESTED + 0x3000, NESTED + 0x4000 | 1, 8)
            self.put(NESTED + 0x4000, NESTED + 0x5000 | USER_PAGE, 8)
            for page in range(256):
                self.put(NESTED + 0x5000 + 8 * page, page << 12 | USER_PAGE, 8)
            self.cpu.pdpte[0] = NESTED + 0x4000 | 1
        else:
            self.put(NESTED, self.leaves | USER_PAGE)
        self.processor.empty_tlbs()
        for page in range(256):
            self.map(page << 12, page << 12)
        self.map(DATA, MOVED)
        self.set("nested", 1)
        self.set("nested_cr3", NESTED)

    def map(self, gpa: int, physical: int, rights: int = USER_PAGE) -> None:
        """Map a guest-physical page."""
        self.put(self.leaves + (gpa >> 12) * self.entry_bytes, physical | rights, self.entry_bytes)

    def entry(self, gpa: int) -> int:
        """The nested entry of a page."""
        return self.get(self.leaves + (gpa >> 12) * self.entry_bytes, self.entry_bytes)

    def page_tables(self) -> None:
        """Turn the guest's 32-bit paging on, with the identity tables of tests/bare_machine.py."""
        self.set("cr0", PG_PE)
        self.set("cr3", DIRECTORY)


@pytest.fixture(params=[2, 3])
def npt(request: pytest.FixtureRequest) -> NptMachine:
    """A new machine with nested tables of 2 and 3 levels."""
    return NptMachine(request.param)


@pytest.mark.parametrize("paged", [False, True])
def test_npt_moves_data(npt: NptMachine, paged: bool) -> None:
    """A guest with paging and one without: its data lie where the nested tables say, marked there as used and written."""
    if paged:
        npt.page_tables()
    npt.put(MOVED, 0x11223344)
    npt.put(DATA, 0x55667788)
    assert npt.run_guest(load(DATA) + b"\x40" + store(DATA + 4) + VMMCALL) == EXIT_VMMCALL
    assert npt.field("rax") == 0x11223345
    assert npt.get(MOVED + 4) == 0x11223345 and npt.get(DATA) == 0x55667788 and npt.get(DATA + 4) == 0
    assert npt.entry(DATA) == MOVED | USER_PAGE | 1 << 5 | 1 << 6
    # The guest's tables are taken for written, its code for read.
    assert npt.entry(GUEST) == GUEST | USER_PAGE | 1 << 5
    assert npt.entry(TABLE) == TABLE | USER_PAGE | (1 << 5 | 1 << 6) * paged


@pytest.mark.parametrize("rights", [0, 1, 3, 4 | 1, 4 | 2, 7])
@pytest.mark.parametrize("write", [False, True])
@pytest.mark.parametrize("paged", [False, True])
def test_nested_page_faults(npt: NptMachine, rights: int, write: bool, paged: bool) -> None:
    """EXITINFO1 is a user's error code and what was translated; the fault answered, the guest goes on where it was."""
    if paged:
        npt.page_tables()
    npt.map(DATA, MOVED, rights)
    code = (store if write else load)(DATA + 8) + VMMCALL
    left = npt.run_guest(code)
    allowed = rights & 5 == 5 and (not write or rights & 2 != 0)
    if allowed:
        assert left == EXIT_VMMCALL
        return
    assert left == NPF
    assert npt.field("info_1") == FINAL | 4 | 2 * write | rights & 1
    assert npt.field("info_2") == DATA + 8 and npt.field("rip") == GUEST
    assert npt.entry(DATA) == MOVED | rights
    npt.map(DATA, MOVED)
    assert npt.run_guest() == EXIT_VMMCALL


def test_the_guests_own_tables_under_npt(npt: NptMachine) -> None:
    """A page table that may not be written: every walk through it is a fault, as a write."""
    npt.page_tables()
    npt.map(TABLE, TABLE, 5)
    assert npt.run_guest(load(DATA) + VMMCALL) == NPF
    assert npt.field("info_1") == GUEST_TABLES | 4 | 2 | 1
    assert npt.field("info_2") == TABLE + (GUEST >> 12) * 4
    npt.map(TABLE, TABLE)
    assert npt.run_guest() == EXIT_VMMCALL


def test_asids_of_guests_on_npt(npt: NptMachine) -> None:
    """With the same ASID a guest finds its translations again, with another it does not; TLB_CONTROL drops all."""
    npt.page_tables()
    npt.run_guest(load(DATA) + VMMCALL)

    def walks(asid: int, control: int = 0) -> int:
        npt.set("asid", asid)
        npt.set("tlb_control", control)
        npt.set("rip", GUEST)
        before = int(npt.cpu.ledger_count[EVENT_WALK_NESTED_REFERENCE].sum())
        assert npt.run_guest() == EXIT_VMMCALL
        return int(npt.cpu.ledger_count[EVENT_WALK_NESTED_REFERENCE].sum()) - before

    assert walks(1) == 0
    first = walks(2)
    # Two addresses and the guest's two tables, the first through all levels, the others through the last alone.
    assert first == npt.levels + 3
    assert walks(2) == walks(1) == 0
    assert walks(1, 1) == first and walks(2) == first and walks(1) == 0


def test_pae_pointers_under_npt() -> None:
    """MOV to CR3 loads no pointers: a wrong one is a page fault of the guest's, at the access that needs it."""
    npt = NptMachine(3)
    pointers, directory, table = 0x42000, 0x44000, 0x45000
    npt.put(pointers, directory | 1, 8)
    npt.put(pointers + 8, directory | 1 | 2, 8)  # reserved
    npt.put(directory, table | 7, 8)
    for page in range(256):
        npt.put(table + 8 * page, page << 12 | 7, 8)
    npt.set("cr0", PG_PE)
    npt.set("cr4", PAE)
    npt.set("cr3", pointers)
    npt.put(MOVED, 99)
    code = b"\xbb" + pointers.to_bytes(4, "little") + b"\x0f\x22\xdb" + load(DATA) + b"\x89\xc1" + load(0x40000000 | DATA)
    assert npt.run_guest(code + VMMCALL) == EXIT_VMMCALL
    assert npt.handler_reached() == 14 and npt.field("cr2") == 0x40000000 | DATA
    assert npt.gpr[ECX] == 99
