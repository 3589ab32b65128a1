"""The bare machine's processor at a start's first instruction."""

from ..core.entries import enter_level
from ..core.local_apic import DELIVERY_SHIFT, EXTERNAL, LVT_LINT0, LVT_LINT1, SOFTWARE_ENABLED
from ..isa.registers import CS, DS, ES, FS, GS, SS
from ..processor import FLAT_CODE, FLAT_DATA, REAL_MODE_SEGMENT, Processor
from .boot import PROTECTED, REAL, RESET, Boot

SPURIOUS_VECTOR = 0xFF
NON_MASKABLE = 4  # delivery mode


def enter(processor: Processor, boot: Boot) -> None:
    """Give a processor that was just powered on the state that a start asks for."""
    if boot.mode == PROTECTED:
        _enter_protected(processor, boot)
    else:
        if boot.firmware:
            processor.install_firmware(boot.firmware, boot.vga_rom)
        processor.reset_real()
        if boot.mode == REAL:
            _enter_real(processor, boot)
    if boot.mode != RESET and processor.cpu.apic.present:
        _leave_virtual_wire(processor)
    for number, value in boot.registers.items():
        processor.cpu.gpr[number] = value


def _enter_protected(processor: Processor, boot: Boot) -> None:
    """Flat protected mode, with the selectors and the GDT that the start names."""
    cpu = processor.cpu
    for segment in (ES, SS, DS, FS, GS):
        processor.set_segment(segment, boot.data_selector, 0, 0xFFFFFFFF, FLAT_DATA)
    processor.set_segment(CS, boot.code_selector, 0, 0xFFFFFFFF, FLAT_CODE)
    cpu.gdtr_base, cpu.gdtr_limit = boot.gdt
    cpu.rip = boot.entry
    enter_level(processor.state, 0)


def _leave_virtual_wire(processor: Processor) -> None:
    """The local APIC as a BIOS leaves it: the PICs' interrupts come through it, by its pin LINT0, and NMI by LINT1.

    MultiProcessor Specification 1.4, section 3.6.2.1.
    """
    apic = processor.cpu.apic
    apic.spurious = SOFTWARE_ENABLED | SPURIOUS_VECTOR
    apic.local_vector[LVT_LINT0] = EXTERNAL << DELIVERY_SHIFT
    apic.local_vector[LVT_LINT1] = NON_MASKABLE << DELIVERY_SHIFT


def _enter_real(processor: Processor, boot: Boot) -> None:
    """Real-address mode at CS:IP, the stack below the code's usual place, as a BIOS jumps to a boot sector."""
    for segment in (ES, SS, DS, FS, GS):
        processor.set_segment(segment, boot.data_selector, boot.data_selector << 4, 0xFFFF, REAL_MODE_SEGMENT)
    processor.set_segment(CS, boot.code_selector, boot.code_selector << 4, 0xFFFF, REAL_MODE_SEGMENT)
    processor.cpu.rip = boot.entry
    enter_level(processor.state, 0)
