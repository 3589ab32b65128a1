"""What an exit from translated code must not lose, and what it may do in the ring where it is served."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from small_kernel import DATA, EAX, ECX, IDT, STEPS, Kernel, Step, jump, log, mov, run, save, start, store, word
from timed_kernels import HANDLER, TICK, TICKS_SEEN, timed
from vmm_judge import EQUAL, VMMS, judge

from x86virt import Machine, find_guest, find_strategy, load_profile
from x86virt.core.layout import NEVER
from x86virt.gdb.snapshots import Camera
from x86virt.isa.events import EVENT_ID, MODE_GUEST_KERNEL
from x86virt.vmm.translation.translator import Translator

STEPPED = b"\x9c\x81\x0c\x24\x00\x01\x00\x00\x9d"  # PUSHF; OR dword [ESP], 0x100; POPF
THROUGH_GS = b"\x65\x8b\x0d" + word(DATA)  # MOV ECX, GS:[DATA], behind which translated code brings its own GS back
OVERFLOW = b"\xb0\x7f\xfe\xc0"  # MOV AL, 7F; INC AL


def pauses(machine: Machine) -> Iterator[None]:
    """Let a machine go on tick by tick until the guest's trap has been logged."""
    while machine.advance(NEVER, pause_ticks=int(machine.processor.cpu.ticks) + 1) and not log(machine):
        yield


@pytest.mark.parametrize("code", [THROUGH_GS, b"\xe8\x00\x00\x00\x00", b"\x90"])
def test_a_timer_of_the_host_between_a_stepped_instruction_and_its_trap_loses_nothing(code: bytes) -> None:
    kernel = Kernel([Step(STEPPED + code + b"\x90" * 3)])
    expected = log(run(kernel)[0])
    machine = start(kernel, find_strategy("binary-translation")())
    camera, cpu = Camera(machine), machine.processor.cpu
    moments = 0
    for _ in pauses(machine):
        if machine.vm.translator.trap_flag and machine.vm.translator.inside and cpu.cpl == 1:
            here = camera.take()
            cpu.timer = cpu.ticks
            machine.run()
            assert log(machine) == expected
            camera.put_back(here)
            machine.outcome = None
            moments += 1
    assert moments >= 2


def test_no_callout_asks_whether_an_interrupt_waits_that_has_been_delivered() -> None:
    """The handler sets IF before it acknowledges: nothing can wait for that."""
    kernel = timed([Step(b"\xfb" + mov(ECX, 0x20000) + b"\xe2\xfe")], 20)
    kernel.octets[TICK] = b"\xfb" + HANDLER
    machine, result = run(kernel, "binary-translation")
    assert result.outcome == "exited 1"
    assert int.from_bytes(machine.read_guest(TICKS_SEEN, 4), "little") > 3
    assert result.exits.get("open_window", (0, 0))[0] <= 1  # the STI of the kernel itself


def test_a_unit_that_is_made_behind_a_callout_of_ring_1_takes_the_vmm_to_ring_0(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that the guest has just written is about to hold code that is traced: its mapping goes by INVLPG."""
    other = 0x61000
    code = save(other + 0x800, EAX)
    where = STEPS + 10 + len(code)
    kernel = Kernel([Step(code + jump(where, other - 2))])
    kernel.octets[other - 2] = b"\xe4\x92" + jump(other, where + 5)  # IN AL, 0x92 at the end of the page before
    invlpg = EVENT_ID["sys.invlpg"]
    begun: list[int] = []
    leave_in_ring, come_back = Translator.leave_in_ring, Translator.come_back

    def invalidations(translator: Translator) -> int:
        return int(translator.vm.processor.cpu.ledger_count[invlpg].sum())

    def leaving(translator: Translator) -> object:
        begun.append(invalidations(translator))
        return leave_in_ring(translator)

    def coming_back(translator: Translator, image: object) -> None:
        assert invalidations(translator) == begun[-1], "INVLPG in ring 1"
        come_back(translator, image)

    monkeypatch.setattr(Translator, "leave_in_ring", leaving)
    monkeypatch.setattr(Translator, "come_back", coming_back)
    machine = start(kernel, find_strategy("binary-translation,chaining=off")())
    machine.exits_in_code.wanted = False
    assert machine.run().outcome == "exited 1"
    assert begun
    assert judge(kernel, "binary-translation,chaining=off", 1).kind == EQUAL


@pytest.mark.parametrize("options", ["", ",shadow=trace,adapt_after=1", ",shadow=out-of-sync,chaining=off"])
@pytest.mark.parametrize("guest", ["ptemod", "portio", "smc", "pgfault"])
def test_nothing_privileged_is_done_in_ring_1(guest: str, options: str) -> None:
    machine = Machine(find_strategy(f"binary-translation{options}")(), load_profile("p4_prescott"))
    machine.load(find_guest(guest), "iterations=20")
    assert machine.run().outcome == "halted"
    machine.processor.settle()
    events = [EVENT_ID[f"sys.{name}"] for name in ("invlpg", "mov_cr0_write", "mov_cr3_write", "mov_cr4_write", "wrmsr")]
    assert not machine.processor.cpu.ledger_count[events, MODE_GUEST_KERNEL].any()


@pytest.mark.parametrize("strategy", VMMS)
@pytest.mark.parametrize("code,vector", [(b"\xce", 4), (b"\xcd\x04", 4), (b"\xcc", 3), (b"\xcd\x03", 3)])
def test_a_gate_that_was_closed_meanwhile_refuses_the_instruction_where_it_stands(
    strategy: str, code: bytes, vector: int
) -> None:
    closed = store(IDT + 8 * vector + 4, 0x8E00)
    user = Step(OVERFLOW + code, ring=3)
    kernel = Kernel([user, user, Step(closed), user])
    assert judge(kernel, strategy, 1).kind == EQUAL
