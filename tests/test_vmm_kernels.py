"""Random kernels that make a software VMM's life hard, under every strategy and every choice that it leaves: a slice.

The long run is `make conformance-vmm`.
"""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, seed, settings
from profile_for import profile_for
from small_kernel import DATA, EAX, EBX, EDI, EDX, TABLE, Kernel, Step, invlpg, load, mov, push, store, strategy
from timed_kernels import timed, timed_kernels
from vmm_judge import EQUAL, PLANNED, RULELESS, VARIANTS, VMMS, judge
from vmm_pieces import CLASSES, GLOBALS, PTE_G, UP, furnished, index, kernels_of

from x86virt import find_strategy, load_profile
from x86virt.discipline import tlb_discipline
from x86virt.equivalence import compare_runs

EXAMPLES, OF_VARIANTS, TIMED = 8, 4, 6
KERNEL_IN_RING_3 = "trap-and-emulate,ring=3"
ALLOWED = {EQUAL, PLANNED, RULELESS}
RAM_BYTES = 1 << 20
SOFTWARE_VMMS = [name for name in VMMS if find_strategy(name).processor not in ("vtx", "svm")]
NO_PORT = 0x3DB  # no device is there: it reads as ones


def run_class(name: str, under: str, examples: int, number: int = 0) -> list:
    """The verdicts on some kernels of a class; one that fails is made smaller by `make conformance-vmm`."""
    found = []
    kernels = timed_kernels if name == "timed" else kernels_of(name)

    @settings(max_examples=examples, database=None, phases=[Phase.generate])
    @seed(number)
    @given(kernels)
    def judged(kernel: Kernel) -> None:
        found.append(judge(kernel, under, 512 if name == "timed" else 64, name == "timed"))

    judged()
    return found


@pytest.mark.parametrize("under", (*VMMS, KERNEL_IN_RING_3))
@pytest.mark.parametrize("name", CLASSES)
def test_random_kernels_do_what_they_do_on_the_bare_machine(name: str, under: str) -> None:
    found = run_class(name, under, EXAMPLES)
    assert {verdict.kind for verdict in found} <= ALLOWED
    assert sum(verdict.instructions for verdict in found) > 50 * EXAMPLES


@pytest.mark.parametrize("under", VARIANTS)
@pytest.mark.parametrize("name", ("paging", "mixed"))
def test_every_choice_of_a_strategy_gives_the_same_guest(name: str, under: str) -> None:
    assert {verdict.kind for verdict in run_class(name, under, OF_VARIANTS, 1)} <= ALLOWED


@pytest.mark.parametrize("under", (*VMMS, KERNEL_IN_RING_3))
def test_interrupts_come_where_the_bare_machine_accepts_them(under: str) -> None:
    found = run_class("timed", under, TIMED)
    assert {verdict.kind for verdict in found} <= ALLOWED
    waits = judge(timed([Step(b"\xfb\xf4\x90\x90"), Step(b"\xfb\xf4\x90\x90")], 20), under, 64, True)  # however fast the VMM
    assert (waits.kind, waits.deliveries) == (EQUAL, 2)


@pytest.mark.parametrize("under", VMMS)
def test_every_instruction_boundary_is_the_bare_machines(under: str) -> None:
    """S is compared behind each single instruction."""

    @settings(max_examples=2, database=None, phases=[Phase.generate])
    @given(kernels_of("transfers"))
    def judged(kernel: Kernel) -> None:
        assert judge(kernel, under, 1).kind in ALLOWED

    judged()


def test_the_kernels_keep_the_tlb_rules() -> None:
    """Otherwise equivalence would not be claimed for them: one entry, many, and flushes at random end alike."""

    @settings(max_examples=6, database=None, phases=[Phase.generate])
    @given(kernels_of("paging"))
    def disciplined(kernel: Kernel) -> None:
        rows = tlb_discipline(kernel.image(), load_profile("p4_prescott"), RAM_BYTES, "", 10**7)
        assert all(not row.differences for row in rows), [(row.variant, row.differences) for row in rows]

    disciplined()


# -- that these can fail: shadows with one bug each -------------------------------------------------------------------

TrapAndEmulate: type = type(strategy("trap-and-emulate"))


class ForgetsGlobal(TrapAndEmulate):
    """INVLPG has no effect on the pages that are global."""

    def on_general_protection(self, vm, exit) -> None:
        """Skip INVLPG of them."""
        instruction = vm.instruction()
        if instruction is not None and instruction.operation == "INVLPG" and instruction.disp in GLOBALS:
            vm.vcpu.frame.eip += instruction.length
            vm.retire()
        else:
            super().on_general_protection(vm, exit)


def test_a_forgotten_invalidation_is_found_by_a_kernel_of_the_class() -> None:
    page = GLOBALS[0]
    edit = store(TABLE + index(page), DATA | UP | PTE_G) + invlpg(page)
    kernel = furnished([Step(store(DATA, 0x1234) + load(EAX, page) + edit + load(EBX, page))], cr4=0x90)
    assert judge(kernel, "trap-and-emulate").kind == EQUAL
    with pytest.raises(AssertionError, match="first divergence"):
        judge(kernel, ForgetsGlobal)


@pytest.mark.parametrize("under", VMMS)
def test_a_kernel_that_relies_on_its_tlb_is_not_judged(under: str) -> None:
    """INS to a page that was mapped anew: the bare machine's TLB has the old frame, a VMM that performs INS walks the tables."""
    page = 0x80000
    remap = store(page, 0) + store(TABLE + index(page), DATA | UP)
    insb = mov(EDX, NO_PORT) + mov(EDI, page) + b"\x6c"
    forgets, tells = furnished([Step(remap + insb)]), furnished([Step(remap + invlpg(page) + insb)])
    assert judge(forgets, under).kind == RULELESS
    assert judge(tells, under).kind == EQUAL


@pytest.mark.parametrize("under", SOFTWARE_VMMS)
def test_a_kernel_whose_descriptors_are_in_its_tlb_alone_is_not_judged(under: str) -> None:
    """A program's store takes the mapping of the kernel's descriptors away, and nobody tells the TLB.

    A software VMM reads them by a walk. Under VT-x and SVM the processor itself does, by what its own TLB holds.
    """
    page, gdt = 0x80000, 0x1000
    forgets = [Step(store(TABLE + index(page), TABLE | UP)), Step(store(page + index(gdt), 0), 3)]
    tells = [Step(store(TABLE + index(page), TABLE | UP)), Step(store(page + index(page), 0) + b"\x90", 3), Step(invlpg(page))]
    assert judge(furnished(forgets), under).kind == RULELESS
    assert judge(furnished(tells), under).kind == EQUAL


@pytest.mark.parametrize("under", ("binary-translation", "binary-translation,translate_user=on"))
@pytest.mark.parametrize("code", (b"\x01\xd8\x40", b"\xeb\x00\x40", b"\x50\x58", b"\xe8\x00\x00\x00\x00\x5b"))
def test_the_trap_of_tf_comes_before_a_pause_behind_its_instruction(code: bytes, under: str) -> None:
    for step in (Step(push(0x302) + b"\x9d" + code), Step(code, 3, 0x302)):
        assert judge(furnished([step]), under, 1).kind == EQUAL


class Drifts(TrapAndEmulate):
    """Its interrupts find the guest one byte further."""

    def setup(self, machine) -> None:
        """Move EIP on before the delivery is logged."""
        vm = machine.vm
        take = vm.recorder.on_delivery if vm.recorder else None

        def drifted(vm, vector) -> None:
            vm.vcpu.frame.eip += 1
            take(vm, vector)

        if take:
            vm.recorder.on_delivery = drifted


def test_an_interrupt_at_a_wrong_place_is_found() -> None:
    kernel = timed([Step(b"\xfb\xf4\x90\x90"), Step(b"\xfb\xf4\x90\x90")], 20)
    assert judge(kernel, "trap-and-emulate", 64, True).deliveries == 2
    with pytest.raises(AssertionError):
        judge(kernel, Drifts, 64, True)


def test_the_comparison_of_the_command_line_agrees() -> None:
    kernel = furnished([Step(b"\x40" * 100)])
    for under in VMMS:
        comparison = compare_runs(
            kernel.image(),
            find_strategy(under)(),
            strategy("native"),
            load_profile(profile_for(under)),
            RAM_BYTES,
            "",
            10**7,
            16,
        )
        assert comparison.equal
