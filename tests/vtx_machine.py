"""A small hypervisor over VtxControl: a Nehalem whose guest has 2 MB of RAM behind extended page tables.

Machine memory:

    001000 GDT, IDT and TSS of the host    03A000 VMX regions    080000 host's page directory    098000 identity tables
    100000 extended page tables            400000 the guest's RAM
"""

import numpy as np
from descriptor_machine import descriptor, gate

from x86virt.core.entries import enter_level
from x86virt.core.layout import HOOK, NEVER
from x86virt.isa.registers import CR0_ET, CR0_NE, CR0_PE, CR0_PG, CR4_PSE, CS, DS, ES, FS, GS, SS, TR
from x86virt.processor import Processor
from x86virt.profile import load_profile
from x86virt.vmm.exits import Exit
from x86virt.vmm.hardware.control import SEGMENT_KEYS
from x86virt.vmm.hardware.identity import IdentityTables
from x86virt.vmm.hardware.layout import GUEST_TABLES
from x86virt.vmm.hardware.vtx import VtxControl
from x86virt.vmm.hardware.vtx_state import VtxGuestState

RAM_BYTES, GUEST_RAM, GUEST_BYTES = 8 << 20, 0x400000, 2 << 20
GDT, IDT, TSS, DIRECTORY, EPT = 0x1000, 0x2000, 0x3000, 0x80000, 0x100000
HOST_ENTRY, HOST_VECTORS = 0x5FE0, 0x5000
CODE_SELECTOR, DATA_SELECTOR, TSS_SELECTOR = 0x08, 0x10, 0x28
FLAT, FLAT_CODE, FLAT_DATA, UNUSABLE = 0xFFFFFFFF, 0xC09B, 0xC093, 0x10000
REAL_DATA, REAL_CODE, BUSY_TASK, LOCAL_TABLE = 0x93, 0x93, 0x8B, 0x82
EPT_ALL, EPT_WRITE_BACK, EPT_READ = 7, 6 << 3, 1
TOP_FRAME = 0xFFE00  # the first frame of the last table
CODE, STACK, GUEST_DIRECTORY, GUEST_GDT, GUEST_IDT = 0x8000, 0x7000, 0x20000, 0x1000, 0x1800


class VtxMachine:
    """The machine, its control and its guest; `shown` are the frames of the VMM that the guest sees."""

    def __init__(self, profile: str = "nehalem") -> None:
        self.processor = Processor(load_profile(profile), RAM_BYTES)
        self.processor.reset()
        self.cpu = self.processor.cpu
        self.lay_host()
        self.shown: set[int] = set()
        self.forms: list[tuple[str, str]] = []
        self.control = VtxControl(self.processor)
        self.processor.write_physical(GUEST_TABLES, IdentityTables.octets())
        tables = IdentityTables(GUEST_TABLES, self.show, self.hide)
        self.state = VtxGuestState(self.control, tables, lambda *forms: self.forms.append(forms))
        self.lay_nested()
        self.control.start(DIRECTORY, HOST_ENTRY)
        self.control.set_nested(EPT, 4)
        for name in ("HLT exiting", "use I/O bitmaps", "use MSR bitmaps"):
            assert self.control.set_control(name)

    # -- the host -------------------------------------------------------------------------------------------------

    def lay_host(self) -> None:
        """Flat segments, an IDT into the hook range, 4 MB pages."""
        rows = {
            CODE_SELECTOR: descriptor(0, 0xFFFFF, 11, granular=1),
            DATA_SELECTOR: descriptor(0, 0xFFFFF, 3, granular=1),
        }
        rows[TSS_SELECTOR] = descriptor(TSS, 0x67, 11, s=0, db=0)
        for selector, value in rows.items():
            self.put(GDT + selector, value, 8)
        for vector in range(256):
            self.put(IDT + 8 * vector, gate(CODE_SELECTOR, HOST_VECTORS + 8 * vector, 14, dpl=0), 8)
        for number in range(2):
            self.put(DIRECTORY + 4 * number, number << 22 | 0x83)
        cpu, set_segment = self.cpu, self.processor.set_segment
        cpu.cr0, cpu.cr3, cpu.cr4 = CR0_ET | CR0_PE | CR0_PG | CR0_NE, DIRECTORY, CR4_PSE
        cpu.gdtr_base, cpu.gdtr_limit, cpu.idtr_base, cpu.idtr_limit = GDT, 0x7F, IDT, 0x7FF
        for segment in (ES, SS, DS, FS, GS):
            set_segment(segment, DATA_SELECTOR, 0, FLAT, FLAT_DATA)
        set_segment(CS, CODE_SELECTOR, 0, FLAT, FLAT_CODE)
        set_segment(TR, TSS_SELECTOR, TSS, 0x67, BUSY_TASK)
        cpu.gpr[4] = 0x7000
        enter_level(self.processor.state, 0)
        cpu.hook_first, cpu.hook_last = HOST_VECTORS, HOST_VECTORS + 0xFFF
        cpu.budget = cpu.retired_limit = NEVER

    def lay_nested(self) -> None:
        """Extended page tables: the guest's RAM, and a table of the last 2 MB that is empty."""
        pml4, pdpt, low, high, ram, top = (EPT + 0x1000 * number for number in range(6))
        self.put(pml4, pdpt | EPT_ALL, 8)
        self.put(pdpt, low | EPT_ALL, 8)
        self.put(pdpt + 8 * 3, high | EPT_ALL, 8)
        self.put(low, ram | EPT_ALL, 8)
        self.put(high + 8 * 511, top | EPT_ALL, 8)
        for frame in range(GUEST_BYTES >> 12):
            self.put(ram + 8 * frame, GUEST_RAM + (frame << 12) | EPT_ALL | EPT_WRITE_BACK, 8)

    def show(self, frame: int, machine_frame: int) -> None:
        """Let the guest see a frame of the VMM."""
        self.shown.add(frame)
        self.put(EPT + 0x5000 + 8 * (frame - TOP_FRAME), machine_frame << 12 | EPT_READ | EPT_WRITE_BACK, 8)
        self.flush()

    def hide(self, frame: int) -> None:
        """The opposite."""
        self.shown.discard(frame)
        self.put(EPT + 0x5000 + 8 * (frame - TOP_FRAME), 0, 8)
        self.flush()

    def flush(self) -> None:
        """After the tables changed."""
        if self.control.started:
            self.control.flush()

    def put(self, address: int, value: int, n: int = 4) -> None:
        """Store a number in machine RAM."""
        self.processor.memory[address : address + n] = np.frombuffer(value.to_bytes(n, "little"), np.uint8)

    def get(self, address: int, n: int = 4) -> int:
        """Load a number from machine RAM."""
        return int.from_bytes(self.processor.memory[address : address + n].tobytes(), "little")

    # -- the guest ------------------------------------------------------------------------------------------------

    def load(self, octets: bytes, gpa: int = CODE) -> None:
        """Guest memory."""
        self.processor.write_physical(GUEST_RAM + gpa, octets)

    def word(self, gpa: int, n: int = 2) -> int:
        """Guest memory."""
        return self.get(GUEST_RAM + gpa, n)

    def segment(self, number: int, selector: int, base: int, limit: int, access: int) -> None:
        """A segment register of the guest."""
        for key, value in zip(SEGMENT_KEYS[number], (selector, base, limit, access), strict=True):
            self.state.write(key, value)

    def begin(self, cr0: int, cr3: int = 0, cr4: int = 0, rip: int = CODE, flags: int = 2) -> None:
        """Registers that all starts have in common; the processor as after a reset otherwise."""
        values = {
            "guest_cr0": cr0 | CR0_ET, "guest_cr3": cr3, "guest_cr4": cr4, "guest_rip": rip, "guest_rsp": STACK,
            "guest_rflags": flags, "guest_dr7": 0x400, "guest_gdtr_base": GUEST_GDT, "guest_gdtr_limit": 0xFFFF,
            "guest_idtr_base": 0, "guest_idtr_limit": 0x3FF,
        }  # fmt: skip
        for key, value in values.items():
            self.state.write(key, value)
        self.segment(6, 0, 0, 0xFFFF, LOCAL_TABLE)
        self.segment(7, 0, 0, 0xFFFF, BUSY_TASK)

    def begin_real(self, octets: bytes, selector: int = 0, **values: int) -> None:
        """Real-address mode."""
        self.load(octets, (selector << 4) + values.get("rip", CODE))
        self.begin(0, **values)
        for number in range(6):
            self.segment(number, 0, 0, 0xFFFF, REAL_DATA)
        self.segment(CS, selector, selector << 4, 0xFFFF, REAL_CODE)

    def begin_flat(self, octets: bytes, cr0: int = 0, **values: int) -> None:
        """Flat protected mode, without paging unless CR0 says so; handlers of interrupts are HLTs from 9000."""
        self.load(octets)
        self.load(
            b"".join(descriptor(0, 0xFFFFF, kind, granular=1).to_bytes(8, "little") for kind in (11, 3)), GUEST_GDT + 8
        )
        gates = (gate(CODE_SELECTOR, 0x9000 + 16 * vector, 14, dpl=3) for vector in range(64))
        self.load(b"".join(which.to_bytes(8, "little") for which in gates), GUEST_IDT)
        self.load(b"\xf4" * 1024, 0x9000)
        self.begin(CR0_PE | cr0, **values)
        self.state.write("guest_idtr_base", GUEST_IDT)
        self.state.write("guest_idtr_limit", 0x1FF)
        for number in (ES, SS, DS, FS, GS):
            self.segment(number, DATA_SELECTOR, 0, FLAT, FLAT_DATA)
        self.segment(CS, CODE_SELECTOR, 0, FLAT, FLAT_CODE)

    def identity_paging(self) -> None:
        """Guest page tables: its first 4 MB to themselves, and the last to the last."""
        self.load((0x87).to_bytes(4, "little"), GUEST_DIRECTORY)
        self.load((0xFFC00087).to_bytes(4, "little"), GUEST_DIRECTORY + 4092)

    def run(self) -> Exit:
        """Enter the guest and run it until it exits."""
        assert self.state.settle()
        assert self.control.enter() == 0
        if self.control.in_guest:
            assert self.processor.run() == HOOK
        assert int(self.cpu.rip) == HOST_ENTRY
        return self.control.read_exit()

    def step(self) -> Exit:
        """Pass the instruction that exited, and run on."""
        exit = self.control.stored("vm_exit_instruction_length")
        self.control.skip(exit)
        return self.run()
