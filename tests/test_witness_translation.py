"""The witness routines of binary translation: a whole exit, from the cache back into the cache, beside the Python handlers."""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from witness_machine import (
    Effect,
    comparable,
    device_values,
    image_effect,
    make_machine,
    next_exit,
    python_effect,
)

from x86virt.core.layout import HOOK
from x86virt.isa.registers import EAX, ECX, ESP
from x86virt.machine import Machine
from x86virt.profile import load_profile
from x86virt.vmm import GuestFault, layout
from x86virt.vmm.translation.record import RECORD
from x86virt.vmm.translation.recovery import SLOT_OF_REGISTER, Recovery
from x86virt.vmm.vcpu import Frame
from x86virt.vmm.witness_made import ready_machine
from x86virt.vmm.witness_run import ADAPTED, DIRECT, REFUSED, Measured, Witness, device_record, symbols
from x86virt.vmm.witness_translation import (
    FROM_TARGET,
    HELD,
    RELEASE_SHIFT,
    SLOWER,
    SPILLED,
    UNSTORED,
    TooLarge,
    hashed,
    word_of,
)

PER_PLACE = 3  # exits at one place of the cache that are compared
IMAGE_BYTES = 36  # of a callout that stays in ring 1: general registers, flags
FRAME_AT = layout.STACK_TOP - 20
GUESTS = ("callret", "divzero", "hello", "irq", "pgfault", "portio", "ptemod", "syscall", "truefault")
TRANSLATION = "binary-translation"
GENERAL = f"{TRANSLATION},direct_callouts=off"
DETACHED = slice(layout.DETACHED_CODE_SELECTOR, layout.DETACHED_STACK_SELECTOR + 8)
OWN_PATHS = {"light_dispatch", "callout", "recover", "enter_cache", "direct_port", "direct_store"}


def is_light(vm) -> bool:
    """Whether the exit is a callout that stays in ring 1."""
    return int(vm.processor.cpu.rip) == layout.VMM_BASE + layout.CALLOUT_ENTRY


def is_direct(vm) -> bool:
    """Whether the exit is a direct callout."""
    return int(vm.processor.cpu.rip) - layout.VMM_BASE in layout.DIRECT_ENTRIES


def with_record(vm, effect: Effect) -> Effect:
    """The same, with the translator's record and its descriptor of the guest's GS."""
    octets = vm.processor.ram[layout.TRANSLATOR : layout.TRANSLATOR + RECORD.itemsize].copy()
    record = octets.view(RECORD)[0]
    effect.values |= {f"record {name}": np.asarray(record[name]).tolist() for name in RECORD.names}
    effect.regions["gdt"][DETACHED] = 0  # which Python takes away when CS and SS no longer need them
    return effect


def light_frame(vm) -> tuple[Frame, list[int]]:
    """Where the way back from a light callout leads, and the registers that it will load."""
    first = layout.CALLOUT_STACK_TOP - IMAGE_BYTES
    saved = vm.processor.ram[first : first + IMAGE_BYTES].view("<u4").tolist()
    record = vm.translation.record
    frame = Frame(int(record["jump"]), 0, saved[8], int(record["guest_esp"]), int(record["guest_ss"]))
    return frame, saved[7::-1]


def light_effect(vm, device) -> Effect:
    """What such a callout left."""
    frame, general = light_frame(vm)
    effect = Effect(vm, frame, general)
    effect.values |= device_values(device)
    return with_record(vm, effect)


def direct_effect(vm, device) -> Effect:
    """What a direct callout left. The virtual IF is where translated code has it, and the rest of the flags in the record."""
    record, general = vm.translation.record, [int(value) for value in vm.processor.cpu.gpr[:8]]
    for register, name in SLOT_OF_REGISTER.items():
        general[register] = int(record[name])
    frame = Frame(int(record["jump"]), 0, int(record["saved_flags"]), int(record["guest_esp"]), int(record["guest_ss"]))
    effect = Effect(vm, frame, general)
    effect.values["interrupt_flag"] = int(bool(int(record["interrupt_flag"])))
    del effect.regions["shadow"]  # what a store means for it is another path, shadow_check
    effect.values |= device_values(device)
    return with_record(vm, effect)


def frame_effect(vm, effect: Effect) -> Effect:
    """An exit through ring 0: the frame is what the processor will return through."""
    octets = vm.processor.read_physical(FRAME_AT, 20)
    frame = Frame.from_octets(octets)
    effect.values |= {name: getattr(frame, name) for name in ("eip", "cs", "eflags", "esp", "ss")}
    return with_record(vm, effect)


def devices_in_ram(vm):
    """The device record that the image worked on."""
    octets = vm.processor.ram[layout.DEVICES : layout.DEVICES + layout.DEVICE.itemsize]
    return octets.copy().view(layout.DEVICE)[0]


def image_left(witness: Witness, measured: Measured, light: bool) -> Effect:
    """What the image left, at the end of its way back."""
    vm = witness.vm
    if measured.ending in DIRECT.values():
        assert int(witness.cpu.gpr[ESP]) == layout.VMM_BASE + layout.CALLOUT_STACK_TOP
        return direct_effect(vm, devices_in_ram(vm))
    if light:
        assert int(witness.cpu.gpr[ESP]) == layout.VMM_BASE + layout.CALLOUT_STACK_TOP - IMAGE_BYTES
        return light_effect(vm, devices_in_ram(vm))
    return frame_effect(vm, image_effect(witness, measured.ending))


def python_left(vm, console: int, light: bool, direct: bool) -> Effect:
    """What the Python handlers left, when the guest is about to go on."""
    theirs = python_effect(vm, console)
    if direct:
        devices = {name: value for name, value in theirs.values.items() if name.startswith("device ")}
        effect = direct_effect(vm, device_record(vm)[0])
        effect.values |= devices
        return effect
    if light:
        devices = {name: value for name, value in theirs.values.items() if name.startswith("device ")}
        effect = Effect(vm, *light_frame(vm))
        effect.values |= devices
        return with_record(vm, effect)
    return frame_effect(vm, theirs)


def compare_exit(machine: Machine, seen: Counter) -> list[str]:
    """Do the work of the present exit twice, the second time for good; what differed."""
    vm = machine.vm
    if not comparable(vm):
        vm.handle_hook()
        return []
    witness, light, direct = Witness(vm), is_light(vm), is_direct(vm)
    try:
        measured = witness.effect()
    except GuestFault:  # on a page that the VMM itself touches
        measured = Measured(REFUSED)
    compared = measured.ending in ("trap_dispatch", "light_dispatch", *DIRECT.values())
    mine = image_left(witness, measured, light) if compared else None
    witness.restore()
    console, vm.last_delivery = int(vm.boards[0]["console_length"]), None
    vm.handle_hook()
    if mine is None:
        seen[REFUSED] += 1
        return []
    if vm.last_delivery is not None:  # the handlers keep the request that they have just served until they look again
        mine.values["record pending"] = int(vm.translation.record["pending"])
    way_back = vm.translation.cache.units[7 if direct else 3].address
    if (light or direct) and int(vm.processor.cpu.rip) != way_back:
        return [f"{vm.last_exit}: the guest does not go on from ring 1"]
    seen.update(dict.fromkeys((name for name, _ in measured.ticks), 1))
    return [f"{vm.last_exit}: {row}" for row in mine.differences(python_left(vm, console, light, direct))]


@cache
def compared(guest: str, technique: str = TRANSLATION) -> tuple[tuple[str, ...], dict[str, int]]:
    """Run a guest to its end, comparing its exits: what differed, and how often each path was compared.

    Where page tables are traced, whose faults the routines leave alone, these are the direct callouts.
    """
    machine, seen, places, rows = make_machine(guest, "iterations=4", strategy=technique), Counter(), Counter(), []
    while next_exit(machine):
        vm = machine.vm
        in_ring = is_light(vm) or is_direct(vm)
        place = int(vm.translation.record["site"]) if in_ring else vm.processor.read_physical(FRAME_AT, 4)
        places[place] += 1
        if places[place] <= PER_PLACE and (technique != ADAPTED or is_direct(vm)):
            rows += compare_exit(machine, seen)
        else:
            machine.act(HOOK)
    assert machine.outcome == "halted"
    return tuple(rows), dict(seen)


@pytest.mark.parametrize(
    ("guest", "technique"),
    [*((guest, TRANSLATION) for guest in GUESTS), ("portio", GENERAL), ("irq", GENERAL), ("ptemod", ADAPTED)],
)
def test_every_exit_has_the_same_effect(guest, technique):
    rows, seen = compared(guest, technique)
    assert rows == ()
    assert ("direct_store" if technique == ADAPTED else "enter_cache") in seen


def test_every_path_was_compared():
    runs = [compared(guest) for guest in GUESTS] + [compared("portio", GENERAL), compared("ptemod", ADAPTED)]
    assert set().union(*(seen for _, seen in runs)) >= OWN_PATHS


# -- the tables -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recovery", "word"),
    [
        (Recovery(5), 0),
        (Recovery(None, release=8), FROM_TARGET | 8 << RELEASE_SHIFT),
        (Recovery(5, frozenset({EAX, ECX}), held=True), SPILLED[EAX] | SPILLED[ECX] | HELD),
        (Recovery(5, unstored=True), UNSTORED),
        (Recovery(5, unpushed=True), SLOWER),
        (Recovery(None, called=True), FROM_TARGET | SLOWER),
        (Recovery(5, unflagged=True), SLOWER),
    ],
)
def test_the_word_of_a_recovery(recovery, word):
    assert word_of(recovery) == word


def test_rows_of_a_hash_table_are_found_by_probing():
    rows = [(7, 1), (15, 2), (8, 3), (16, 4)]
    table = hashed(iter(rows), 8, 2, 0)
    for row in rows:
        place = row[0] & 7
        while table[place] != row:
            assert table[place] != (0, 0)
            place = place + 1 & 7
    with pytest.raises(TooLarge):
        hashed(iter((number + 1, 0) for number in range(8)), 8, 2, 0)


# -- to ring 0 ----------------------------------------------------------------------------------------------------------


def test_the_frame_of_a_callout_moves_to_ring_0():
    """All nineteen doublewords, from above the stack of callouts to below the top of ring 0's; GS, FS and the registers of it."""
    witness = Witness(ready_machine(load_profile("p4_prescott")).vm)
    count, ram = 76, witness.processor.ram
    frame = np.arange(count, dtype=np.uint8) + 1
    frame[:8] = 0  # GS and FS
    first = layout.CALLOUT_STACK_TOP - 52
    ram[first : first + count] = frame
    assert witness.run(symbols()["leave_ring"]).ending == "leave_ring"
    assert ram[layout.STACK_TOP - count : layout.STACK_TOP].tolist() == frame.tolist()
    assert int(witness.cpu.gpr[ESP]) == layout.VMM_BASE + layout.STACK_TOP - count + 48  # where the vector is
    assert int(witness.cpu.gpr[EAX]) == int(frame[44:48].view("<u4")[0])
