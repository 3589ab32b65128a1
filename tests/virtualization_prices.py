"""Runs that charge what VMX and SVM price: every instruction of theirs, and an exit for each price of exits."""

from __future__ import annotations

from bare_machine import CODE, DATA, EAX, EBX, ECX, HLT, BareMachine
from svm_machine import GUEST, VMCB, SvmMachine
from test_nested_guests import DATA as GUEST_DATA
from test_nested_guests import NestedMachine, NptMachine, load

from x86virt.core.svm_entries import vmcb_read, vmcb_write
from x86virt.isa.events import EVENTS

GUEST_RIP = 0x681E
PAGE_FAULTS, ALL_PORTS = 1 << 14, 1 << 24
PRIMARY = "primary_processor_based_vm_execution_controls"
AT_DATA = DATA.to_bytes(4, "little")
AT_DESCRIPTOR = (DATA + 0x100).to_bytes(4, "little")  # zeros: of INVEPT and INVVPID


def charged(machine: BareMachine) -> dict[str, tuple[int, int]]:
    """Events charged so far: name -> (count, ticks)."""
    count, ticks = machine.cpu.ledger_count.sum(axis=1), machine.cpu.ledger_ticks.sum(axis=1)
    return {event.name: (int(count[n]), int(ticks[n])) for n, event in enumerate(EVENTS) if count[n]}


def instructions_of_vmx() -> NestedMachine:
    """Every instruction of VMX but entries, executed in root operation; then a guest, by VMLAUNCH and VMRESUME."""
    machine = NestedMachine()
    host = (
        b"\x0f\xc7\x3d" + AT_DATA,  # vmptrst [DATA]
        b"\x0f\x78\x05" + AT_DATA,  # vmread [DATA], eax
        b"\x0f\x79\x05" + AT_DATA,  # vmwrite eax, [DATA]
        b"\x0f\x01\xc1",  # vmcall
        b"\x66\x0f\x38\x80\x1d" + AT_DESCRIPTOR,  # invept ebx, [DATA + 0x100]
        b"\x66\x0f\x38\x81\x1d" + AT_DESCRIPTOR,  # invvpid ebx, [DATA + 0x100]
        HLT,
    )
    machine.write_code(b"".join(host))
    machine.gpr[EAX], machine.gpr[EBX] = GUEST_RIP, 2
    machine.go()
    machine.write_code(b"\x0f\xa2" + load(0x300000) + b"\xe4\x80" + load(GUEST_DATA) + b"\x0f\x01\xc1")  # cpuid, in al, 80
    machine.store({"exception_bitmap": PAGE_FAULTS, PRIMARY: machine.fields[PRIMARY] | ALL_PORTS, "guest_rip": CODE})
    machine.map(GUEST_DATA, 0, 0)
    for place, (reason, skipped) in enumerate(((10, 2), (0, 5), (30, 2), (48, 5), (18, 0))):
        assert machine.run(int(place == 0)) == reason
        machine.store({"guest_rip": machine.field("guest_rip") + skipped})
    # What ends VMX operation, and begins it.
    machine.put(DATA, 0x52000, 8)
    machine.put(DATA + 8, 0x50000, 8)
    at_next = (DATA + 8).to_bytes(4, "little")
    machine.write_code(
        b"\x66\x0f\xc7\x35" + AT_DATA + b"\x0f\xc7\x35" + AT_DATA + b"\x0f\x01\xc4" + b"\xf3\x0f\xc7\x35" + at_next + HLT
    )  # vmclear, vmptrld, vmxoff, vmxon
    machine.go()
    assert machine.cpu.vmx.operation == 1
    return machine


def instructions_of_svm() -> SvmMachine:
    """Every instruction of SVM, and the door for hypervisors in Python."""
    machine = SvmMachine()
    machine.run_guest()
    machine.gpr[EAX], machine.gpr[ECX] = VMCB, 0
    machine.write_code(bytes.fromhex("0f01dc 0f01dd 0f01da 0f01db 0f01df") + HLT)  # stgi clgi vmload vmsave invlpga
    machine.go()
    state, memory = machine.processor.state, machine.memory
    vmcb_write(state, memory, VMCB, 0x58, 4, 1)
    vmcb_read(state, memory, VMCB, 0x58, 4)
    return machine


def walks() -> NptMachine:
    """A guest with PAE on nested tables, whose pointers a walk reads again."""
    machine = NptMachine(3)
    pointers, directory, table = 0x42000, 0x44000, 0x45000
    machine.put(pointers, directory | 1, 8)
    machine.put(directory, table | 7, 8)
    for page in range(256):
        machine.put(table + 8 * page, page << 12 | 7, 8)
    for name, value in (("cr0", 1 << 31 | 0x11), ("cr4", 1 << 5), ("cr3", pointers), ("rip", GUEST)):
        machine.set(name, value)
    machine.run_guest()
    return machine
