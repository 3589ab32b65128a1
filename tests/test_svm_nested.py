"""Guests of SVM on nested page tables, their address spaces, and the same through the door of hypervisors in Python."""

import pytest
from bare_machine import CODE, DATA, ECX, HLT
from svm_machine import EXIT_VMMCALL, FIELDS, FLAT, GUEST, INVLPGA, SVME, VMCB, VMMCALL, SvmMachine

from x86virt.core.layout import HOOK
from x86virt.core.svm_entries import (
    svm_invalidate,
    svm_load,
    svm_run,
    svm_save,
    svm_set_interrupts,
    svm_write_register,
    vmcb_read,
    vmcb_write,
)
from x86virt.isa.events import EVENT_ID
from x86virt.saved_guests import check_svm

NESTED_DIRECTORY, NESTED_TABLE, GUEST_DIRECTORY, GUEST_TABLE = 0x44000, 0x45000, 0x46000, 0x47000
P, RW, US, A, D = 1, 2, 4, 0x20, 0x40
NPF, GUEST_FINAL, GUEST_WALK = 0x400, 1 << 32, 1 << 33
PG = 1 << 31


@pytest.fixture(scope="module")
def machine() -> SvmMachine:
    """One machine for all tests."""
    return SvmMachine()


def nested_guest(machine: SvmMachine, paging: bool = False) -> None:
    """A guest on nested tables of two levels that map its physical pages to the same frames."""
    machine.prepare()
    machine.paging()
    machine.set("nested", 1)
    machine.set("nested_cr3", NESTED_DIRECTORY)
    machine.memory[NESTED_DIRECTORY : NESTED_DIRECTORY + 0x4000] = 0
    machine.put(NESTED_DIRECTORY, NESTED_TABLE | P | RW | US)
    machine.put(GUEST_DIRECTORY, GUEST_TABLE | P | RW | US)
    for page in range(0x100):
        machine.put(NESTED_TABLE + 4 * page, page << 12 | P | RW | US)
        machine.put(GUEST_TABLE + 4 * page, page << 12 | P | RW | US)
    if paging:
        machine.set("cr0", PG | 0x11)
        machine.set("cr3", GUEST_DIRECTORY)


def load_code(address: int = DATA) -> bytes:
    """MOV EAX, [address]."""
    return b"\xa1" + address.to_bytes(4, "little")


def store_code(address: int = DATA) -> bytes:
    """MOV [address], EAX."""
    return b"\xa3" + address.to_bytes(4, "little")


@pytest.mark.parametrize("paging", (False, True))
def test_guest_physical_addresses_are_translated(machine: SvmMachine, paging: bool) -> None:
    """The guest reads the frame that the nested table names, which gets its accessed bit; a write sets the dirty bit."""
    nested_guest(machine, paging)
    machine.put(NESTED_TABLE + 4 * (DATA >> 12), 0x21000 | P | RW | US)
    machine.put(0x21000, 0xCAFE)
    assert machine.run_guest(load_code() + VMMCALL) == EXIT_VMMCALL
    assert machine.field("rax") == 0xCAFE
    assert machine.get(NESTED_TABLE + 4 * (DATA >> 12)) & (A | D) == A
    machine.set("rip", GUEST)
    assert machine.run_guest(store_code() + VMMCALL) == EXIT_VMMCALL
    assert machine.get(NESTED_TABLE + 4 * (DATA >> 12)) & (A | D) == A | D


@pytest.mark.parametrize("paging", (False, True))
def test_nested_page_faults(machine: SvmMachine, paging: bool) -> None:
    """EXITINFO1: present, write, user and where it arose; EXITINFO2: the guest-physical address. RIP is at the instruction."""
    for entry, code, error in (
        (0, load_code(), US),
        (0, store_code(), US | RW),
        (0x21000 | P | US, store_code(), US | RW | P),
        (0x21000 | P | RW, load_code(), US | P),
    ):
        nested_guest(machine, paging)
        machine.put(NESTED_TABLE + 4 * (DATA >> 12), entry)
        machine.set("cr2", 0x77)
        assert machine.run_guest(code) == NPF
        assert machine.field("info_1") == error | GUEST_FINAL, f"{entry:x}"
        assert (machine.field("info_2"), machine.field("rip"), machine.field("cr2")) == (DATA, GUEST, 0x77)


def test_a_fault_of_the_guests_tables(machine: SvmMachine) -> None:
    """Where a table of the guest's is not mapped, EXITINFO1 says that it was met in the guest's walk."""
    nested_guest(machine, True)
    machine.put(NESTED_TABLE + 4 * (GUEST_TABLE >> 12), 0)
    assert machine.run_guest(load_code()) == NPF
    assert machine.field("info_1") & (GUEST_FINAL | GUEST_WALK) == GUEST_WALK
    assert machine.field("info_2") & ~0xFFF == GUEST_TABLE


def test_an_event_whose_delivery_meets_a_nested_fault(machine: SvmMachine) -> None:
    """EXITINTINFO names the event: here an exception whose IDT is not mapped."""
    nested_guest(machine)
    machine.put(NESTED_TABLE + 4 * 0x5A, 0)
    assert machine.run_guest(b"\x0f\x0b") == NPF
    assert machine.field("int_info") == 0x80000306
    assert machine.field("rip") == GUEST


def test_the_guest_has_a_pat_of_its_own(machine: SvmMachine) -> None:
    """RDMSR of PAT is that of the VMCB, WRMSR goes there, and the host's is untouched."""
    nested_guest(machine)
    machine.set("pat", 0x0606060606060606)
    host = int(machine.cpu.msr.pat)
    code = b"\xb9\x77\x02\x00\x00\x0f\x32\x89\xc3\xb8\x04\x04\x04\x04\x0f\x30"
    assert machine.run_guest(code + VMMCALL) == EXIT_VMMCALL
    assert int(machine.gpr[3]) == 0x06060606
    assert machine.field("pat") == 0x0606060604040404
    assert int(machine.cpu.msr.pat) == host


def test_nested_tables_of_a_host_in_pae_paging(machine: SvmMachine) -> None:
    """Three levels, as the host's paging mode has them."""
    nested_guest(machine)
    pointers, directory, table = 0x48000, 0x49000, 0x4A000
    machine.memory[pointers : table + 0x1000] = 0
    machine.put(pointers, directory | P, 8)
    machine.put(directory, table | P | RW | US, 8)
    for page in range(0x100):
        machine.put(table + 8 * page, page << 12 | P | RW | US, 8)
    machine.put(table + 8 * (DATA >> 12), 0x21000 | P | RW | US, 8)
    machine.put(0x21000, 0xBEEF)
    cpu = machine.cpu
    cpu.cr4, cpu.cr3 = 1 << 5, pointers
    cpu.pdpte[0] = directory | P
    machine.processor.empty_tlbs()
    machine.set("nested_cr3", pointers)
    assert machine.run_guest(load_code() + VMMCALL) == EXIT_VMMCALL
    assert machine.field("rax") == 0xBEEF


# -- address spaces ---------------------------------------------------------------------------------------------------


def walks(machine: SvmMachine) -> int:
    """Native and nested walks so far."""
    return int(machine.cpu.ledger_count[EVENT_ID["walk.native"]].sum())


def test_address_spaces_keep_their_translations(machine: SvmMachine) -> None:
    """A guest that comes back under its ASID walks no more; under another ASID, or with TLB_CONTROL, it does."""
    nested_guest(machine, True)
    machine.write_code(load_code() + VMMCALL, GUEST)

    def walked(asid: int, control: int = 0) -> bool:
        before = walks(machine)
        machine.set("asid", asid)
        machine.set("tlb_control", control)
        machine.set("rip", GUEST)
        assert machine.run_guest() == EXIT_VMMCALL
        return walks(machine) > before

    walked(1)
    walked(1)
    assert not walked(1)
    assert walked(2)
    assert not walked(2) and not walked(1)
    assert walked(1, 1)
    assert walked(2)


def test_a_stale_translation_goes_with_invlpga(machine: SvmMachine) -> None:
    """The page of the guest's address space, invalidated by its host."""
    nested_guest(machine, True)
    machine.put(0x21000, 0x1111)
    machine.put(0x22000, 0x2222)
    entry = GUEST_TABLE + 4 * (DATA >> 12)
    machine.put(entry, 0x21000 | P | RW | US)
    assert machine.run_guest(load_code() + VMMCALL) == EXIT_VMMCALL
    machine.put(entry, 0x22000 | P | RW | US)
    machine.set("rip", GUEST)
    assert machine.run_guest() == EXIT_VMMCALL and machine.field("rax") == 0x1111
    machine.write_code(INVLPGA + HLT, CODE + 0x80)
    machine.gpr[0], machine.gpr[ECX] = DATA, 1
    machine.go(CODE + 0x80)
    machine.set("rip", GUEST)
    assert machine.run_guest() == EXIT_VMMCALL and machine.field("rax") == 0x2222


# -- the door of hypervisors in Python --------------------------------------------------------------------------------


def test_a_hypervisor_in_python(machine: SvmMachine) -> None:
    """VMRUN from Python: the run ends at the host's EIP, an address of the entry range; each operation is priced."""
    machine.prepare()
    processor, cpu = machine.processor, machine.cpu
    machine.set_efer(0)
    assert svm_write_register(processor.state, 0xC0000080, SVME, 0)
    assert svm_write_register(processor.state, 0xC0010117, 0x51000, 0)
    cpu.hook_first, cpu.hook_last = 0x4000, 0x4FFF
    machine.write_code(b"\x40\x0f\xa2", GUEST)
    machine.intercept("cpuid")
    offset, _ = FIELDS["rip"]
    for turn in range(3):
        cpu.rip = 0x4010
        svm_set_interrupts(processor.state, 0)
        assert svm_run(processor.state, processor.memory, VMCB) == 0
        assert int(cpu.world) == 2
        assert processor.run(False) == HOOK
        assert (int(cpu.rip), int(cpu.world), int(cpu.svm.gif)) == (0x4010, 0, 0)
        assert machine.field("exit_code") == 0x72 and machine.field("rax") == turn + 1
        assert vmcb_read(processor.state, processor.memory, VMCB, offset, 4) == GUEST + 1
        vmcb_write(processor.state, processor.memory, VMCB, offset, 4, GUEST)
        svm_set_interrupts(processor.state, 1)
    counts = {name: int(cpu.ledger_count[EVENT_ID[name]].sum()) for name in ("svm.vmrun", "exit.cpuid", "svm.vmcb_read")}
    assert counts == {"svm.vmrun": 3, "exit.cpuid": 3, "svm.vmcb_read": 3}
    assert int(cpu.ledger_ticks.sum()) == int(cpu.ticks)


def test_the_other_operations_from_python(machine: SvmMachine) -> None:
    """VMSAVE and VMLOAD carry FS; INVLPGA takes an address space."""
    machine.prepare()
    processor = machine.processor
    machine.processor.set_segment(4, 0x23, 0x1230, FLAT, 0xC0F3)
    svm_save(processor.state, processor.memory, VMCB)
    machine.processor.set_segment(4, 0, 0, 0, 1 << 16)
    svm_load(processor.state, processor.memory, VMCB)
    assert (int(machine.cpu.seg[4].selector), int(machine.cpu.seg[4].seg_base)) == (0x23, 0x1230)
    svm_invalidate(processor.state, 0x5000, 1)


# -- saved in a guest -------------------------------------------------------------------------------------------------


def test_saved_records_out_of_bounds_are_refused(machine: SvmMachine) -> None:
    """No address of a saved guest lies outside of physical memory, and no other number outside of its field."""
    nested_guest(machine, True)
    assert machine.run_guest() == EXIT_VMMCALL
    svm, msr = machine.cpu.svm, machine.cpu.msr
    check_svm(svm, msr, 2)
    for name, value in (("vmcb", -4096), ("vmcb", 1), ("iopm", 1 << 60), ("msrpm", -1), ("v_intr_vector", 256), ("gif", 2)):
        before = int(svm[name])
        svm[name] = value
        with pytest.raises(ValueError, match="SVM"):
            check_svm(svm, msr, 2)
        svm[name] = before
    msr.vm_hsave_pa = -4096
    with pytest.raises(ValueError, match="SVM"):
        check_svm(svm, msr, 0)
    msr.vm_hsave_pa = 0x51000
    msr.has_svm = 0
    with pytest.raises(ValueError, match="SVM"):
        check_svm(svm, msr, 2)
    msr.has_svm = 1
