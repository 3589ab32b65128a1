"""A bare machine with SVM: a host whose code is VMRUN, and a guest of a few bytes described by a VMCB.

Offsets and numbers are written here once more, from the tables of AMD's manual (volume 2, appendices B and C), so that
nothing is proven by the declarations of the core.

    50000 VMCB   51000 host state   52000 another VMCB   54000 I/O permission map (12 KB)   58000 MSR permission map (8 KB)
    18000 guest code   19000 the guest's handlers, 16 bytes each, all VMMCALL   5A000 the guest's IDT
"""

from bare_machine import CODE, EAX, ESP, GDT, BareMachine
from descriptor_machine import gate

from x86virt.core.layout import HALTED_FOREVER

VMCB, HSAVE, SECOND_VMCB, IOPM, MSRPM, GUEST_IDT = 0x50000, 0x51000, 0x52000, 0x54000, 0x58000, 0x5A000
GUEST, GUEST_HANDLERS, GUEST_STACK = 0x18000, 0x19000, 0x38000
VMRUN, VMMCALL, VMLOAD, VMSAVE = b"\x0f\x01\xd8", b"\x0f\x01\xd9", b"\x0f\x01\xda", b"\x0f\x01\xdb"
STGI, CLGI, SKINIT, INVLPGA = b"\x0f\x01\xdc", b"\x0f\x01\xdd", b"\x0f\x01\xde", b"\x0f\x01\xdf"
SVME = 1 << 12
EXIT_VMMCALL, EXIT_INVALID = 0x81, (1 << 64) - 1

# name: (offset, bytes)
FIELDS = {
    "cr_read": (0x000, 2), "cr_write": (0x002, 2), "dr_read": (0x004, 2), "dr_write": (0x006, 2), "exceptions": (0x008, 4),
    "intercepts_1": (0x00C, 4), "intercepts_2": (0x010, 4), "iopm": (0x040, 8), "msrpm": (0x048, 8), "tsc_offset": (0x050, 8),
    "asid": (0x058, 4), "tlb_control": (0x05C, 1), "v_tpr": (0x060, 1), "v_irq": (0x061, 1), "v_prio": (0x062, 1),
    "v_masking": (0x063, 1), "v_vector": (0x064, 1), "shadow": (0x068, 8), "exit_code": (0x070, 8), "info_1": (0x078, 8),
    "info_2": (0x080, 8), "int_info": (0x088, 4), "int_error": (0x08C, 4), "nested": (0x090, 8), "inject": (0x0A8, 4),
    "inject_error": (0x0AC, 4), "nested_cr3": (0x0B0, 8), "next_rip": (0x0C8, 8), "cpl": (0x4CB, 1), "efer": (0x4D0, 8),
    "cr4": (0x548, 8), "cr3": (0x550, 8), "cr0": (0x558, 8), "dr7": (0x560, 8), "dr6": (0x568, 8), "rflags": (0x570, 8),
    "rip": (0x578, 8), "rsp": (0x5D8, 8), "rax": (0x5F8, 8), "star": (0x600, 8), "lstar": (0x608, 8), "cstar": (0x610, 8),
    "sfmask": (0x618, 8), "kernel_gs": (0x620, 8), "sysenter_cs": (0x628, 8), "sysenter_esp": (0x630, 8),
    "sysenter_eip": (0x638, 8), "cr2": (0x640, 8), "pat": (0x668, 8),
}  # fmt: skip
SEGMENTS = {"es": 0x400, "cs": 0x410, "ss": 0x420, "ds": 0x430, "fs": 0x440, "gs": 0x450, "gdtr": 0x460, "ldtr": 0x470,
            "idtr": 0x480, "tr": 0x490}  # fmt: skip
PARTS = {"selector": (0, 2), "attributes": (2, 2), "limit": (4, 4), "base": (8, 8)}
for _name, _offset in SEGMENTS.items():
    for _part, (_at, _bytes) in PARTS.items():
        FIELDS[f"{_name}_{_part}"] = (_offset + _at, _bytes)
CODE_ATTRIBUTES, DATA_ATTRIBUTES, TSS_ATTRIBUTES = 0xC9B, 0xC93, 0x08B
FLAT = 0xFFFFFFFF
# What the bits of the two words of instruction intercepts are for (table B-1).
BITS_1 = {
    name: 1 << bit
    for bit, name in enumerate(
        (
            "intr", "nmi", "smi", "init", "vintr", "cr0_selective", "sidt", "sgdt", "sldt", "str", "lidt", "lgdt", "lldt", "ltr",
            "rdtsc", "rdpmc", "pushf", "popf", "cpuid", "rsm", "iret", "int_n", "invd", "pause", "hlt", "invlpg", "invlpga",
            "io", "msr", "task", "ferr", "shutdown",
        )
    )
}  # fmt: skip
BITS_2 = {
    name: 1 << bit
    for bit, name in enumerate(
        ("vmrun", "vmmcall", "vmload", "vmsave", "stgi", "clgi", "skinit", "rdtscp", "icebp", "wbinvd")
    )
}


class SvmMachine(BareMachine):
    """A host in ring 0 with EFER.SVME set, and a VMCB of a guest in flat protected mode."""

    def __init__(self, profile: str = "k10_barcelona") -> None:
        super().__init__(profile)
        self.prepare()

    def prepare(self) -> None:
        """Everything anew: the host, and a legal guest whose code is VMMCALL."""
        self.power_on()
        self.set_efer(SVME)
        self.cpu.msr.vm_hsave_pa = HSAVE
        self.cpu.hook_first, self.cpu.hook_last = 1, 0
        self.write_code(VMRUN + b"\xf4", CODE)
        for vector in range(32):
            self.put(GUEST_IDT + 8 * vector, gate(0x08, GUEST_HANDLERS + 16 * vector, 14, dpl=3), 8)
            self.write_code(VMMCALL, GUEST_HANDLERS + 16 * vector)
        self.write_code(VMMCALL, GUEST)
        self.fresh_guest()

    def set_efer(self, value: int) -> None:
        """EFER, as WRMSR would leave it."""
        self.cpu.efer = self.cpu.msr.efer = value

    def fresh_guest(self, vmcb: int = VMCB) -> None:
        """A VMCB of a guest in ring 0 of flat protected mode, without paging, that intercepts VMRUN and VMMCALL."""
        self.memory[vmcb : vmcb + 0x1000] = 0
        for name in ("es", "ss", "ds", "fs", "gs"):
            self.segment(name, 0x10, DATA_ATTRIBUTES, FLAT, 0, vmcb)
        self.segment("cs", 0x08, CODE_ATTRIBUTES, FLAT, 0, vmcb)
        self.segment("tr", 0x28, TSS_ATTRIBUTES, 0x67, 0x3000, vmcb)
        values = {
            "intercepts_2": BITS_2["vmrun"] | BITS_2["vmmcall"], "iopm": IOPM, "msrpm": MSRPM, "asid": 1, "efer": SVME,
            "cr0": 0x11, "dr6": 0xFFFF0FF0, "dr7": 0x400, "rflags": 2, "rip": GUEST, "rsp": GUEST_STACK,
            "gdtr_base": GDT, "gdtr_limit": 0x7F, "idtr_base": GUEST_IDT, "idtr_limit": 0xFF, "pat": 0x0007040600070406,
        }  # fmt: skip
        for name, value in values.items():
            self.set(name, value, vmcb)

    def segment(self, name: str, selector: int, attributes: int, limit: int, base: int, vmcb: int = VMCB) -> None:
        """Write a segment of the VMCB."""
        for part, value in zip(PARTS, (selector, attributes, limit, base), strict=True):
            self.set(f"{name}_{part}", value, vmcb)

    def set(self, name: str, value: int, vmcb: int = VMCB) -> None:
        """Write a field of the VMCB."""
        offset, count = FIELDS[name]
        self.put(vmcb + offset, value & (1 << 8 * count) - 1, count)

    def field(self, name: str, vmcb: int = VMCB) -> int:
        """Read a field of the VMCB."""
        offset, count = FIELDS[name]
        return self.get(vmcb + offset, count)

    def intercept(self, name: str, on: bool = True) -> None:
        """Set or clear an intercept by its name."""
        word, bits = ("intercepts_1", BITS_1) if name in BITS_1 else ("intercepts_2", BITS_2)
        value = self.field(word)
        self.set(word, value | bits[name] if on else value & ~bits[name])

    def run_guest(self, code: bytes | None = None) -> int:
        """VMRUN, up to the next #VMEXIT: its exit code. The host must be behind its VMRUN then, with GIF clear."""
        if code is not None:
            self.write_code(code, GUEST)
        self.gpr[EAX] = VMCB
        self.gpr[ESP] = 0x32000
        outcome = self.go(CODE)
        if outcome != HALTED_FOREVER or int(self.cpu.rip) != CODE + len(VMRUN) + 1 or int(self.cpu.svm.gif) != 0:
            raise AssertionError(f"outcome {outcome} at {int(self.cpu.rip):x}, world {int(self.cpu.world)}")
        return self.field("exit_code")

    def handler_reached(self) -> int | None:
        """The vector whose handler the guest was left in by its VMMCALL."""
        place = self.field("rip") - GUEST_HANDLERS
        return place // 16 if 0 <= place < 512 and place % 16 == 0 else None
