"""Direct callouts of a translator being served: the way back that needs no look-up, and what they leave to a general one.

The routine that such a callout reaches knows what is asked (its operands are in the record) and where the guest goes on
(behind the site). Whatever else there is to see to makes it a callout as any other that stays in ring 1.
"""

from typing import TYPE_CHECKING

from ...core.entries import set_all_eflags
from ...isa.registers import EFLAGS_ARITHMETIC, EFLAGS_OF, ESP, GS
from .. import layout
from .common import COME_BACK_DIRECTLY
from .recovery import SLOT_OF_REGISTER

if TYPE_CHECKING:
    from ..vcpu import Frame
    from .translator import Translator


def returns_directly(translator: "Translator") -> bool:
    """Whether the guest goes on behind the callout that is being served, and nothing else is to be seen to."""
    vm, address = translator.vm, int(translator.record["site"])
    unit = translator.cache.unit_at(address)
    site = unit.sites.get(address - unit.address)
    if site is None or not site.direct or not unit.alive:
        return False
    behind = unit.recovery_at(site.offset + layout.DIRECT_SITE_BYTES).eip
    return vm.vcpu.frame.eip == behind and not vm.crossings.own_step and not vm.interrupts.held()


def come_back_directly(translator: "Translator", frame: "Frame") -> None:
    """Return behind it. The record is as it was, but for what may have changed."""
    vm, cpu, record = translator.vm, translator.vm.processor.cpu, translator.record
    record["jump"] = int(record["site"]) + layout.DIRECT_SITE_BYTES
    record["pending"] = int(vm.interrupts.waits)
    for register, name in SLOT_OF_REGISTER.items():
        record[name] = vm.register(register)
    cpu.gpr[ESP] = layout.VMM_BASE + layout.CALLOUT_STACK_TOP
    cpu.rip = translator.cache.units[COME_BACK_DIRECTLY].address
    set_all_eflags(vm.processor.state, frame.eflags)
    cpu.seg[GS] = translator.own_gs
    translator.serving, translator.direct, translator.inside, translator.site = False, False, True, None


def make_general(translator: "Translator") -> None:
    """A direct callout meets what it was not made for: from here on it is served as any other that stays in ring 1."""
    if translator.direct:
        translator.direct = False
        translator.vm.charge("callout", 1)
        translator.vm.charge("light_dispatch", 1)


def saved_flags(translator: "Translator") -> int:
    """The guest's arithmetic flags while the record has them: AH as LAHF left it, AL as SETO did."""
    saved = int(translator.record["saved_flags"])
    return saved >> 8 & EFLAGS_ARITHMETIC & 0xFF | (saved & 1) * EFLAGS_OF
