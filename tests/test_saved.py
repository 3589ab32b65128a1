"""Save and restore: a run that was cut ends as the unbroken one, and a damaged file is refused in one line."""

from __future__ import annotations

import functools
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from guest_sets import short_line
from hypothesis import given, settings
from hypothesis import strategies as st
from profile_for import profile_for
from small_kernel import strategy

from x86virt.api import Setup, make_setup
from x86virt.errors import UserError
from x86virt.guests import find_guest, guests
from x86virt.machine import Machine, RunResult
from x86virt.replay import Recorder
from x86virt.saved import (
    HASH_BYTES,
    HEAD,
    MAGIC,
    VERSION,
    SavedError,
    machine_bytes,
    machine_of,
    restore_machine,
    save_machine,
    saved_fields,
)
from x86virt.vmm import saved_interpreter, saved_state
from x86virt.vmm.hardware import saving

MEMORY = 8 << 20
NAMES = list(guests())
UNDER = ("native", "trap-and-emulate")
COMMAND_LINE = {"mix": "iterations=1", "irq": "iterations=2", "clock": "iterations=3", "unix": short_line("unix", 2)}
TrapAndEmulate: type = type(strategy("trap-and-emulate"))


@functools.cache
def setup_of(name: str, cache_model: str = "tables") -> Setup:
    """A small machine."""
    return make_setup(name, profile_for(name), memory_bytes=MEMORY, cache_model=cache_model)


def loaded(guest: str, name: str, cache_model: str = "tables") -> Machine:
    """A machine whose guest is about to start."""
    machine = setup_of(name, cache_model).machine()
    machine.load(find_guest(guest), COMMAND_LINE.get(guest, "iterations=2"))
    return machine


def everything(machine: Machine, result: RunResult) -> dict[str, object]:
    """All that two runs can differ in."""
    state = machine.strategy.virtual_state(machine)
    return {
        "outcome": (result.outcome, result.exit_code, result.instructions, result.ticks),
        "count": result.ledger.count.tolist(),
        "ticks": result.ledger.ticks.tolist(),
        "regions": [(r.number, r.iterations, r.instructions, r.ticks, r.exits, r.ledger.ticks.tolist())
                    for r in result.regions],
        "console": result.console,
        "exits": result.exits,
        "divergences": [str(row) for row in result.divergences],
        "state": state.digest(),
        "cache": hashlib.sha256(machine.processor.cpu.cache_lines.tobytes()).hexdigest(),
        "tlb": machine.processor.state["tlb"].tolist(),
    }  # fmt: skip


@functools.cache
def unbroken(guest: str, name: str, cache_model: str = "tables") -> dict[str, object]:
    """The run in one piece."""
    machine = loaded(guest, name, cache_model)
    return everything(machine, machine.run())


def cut(guest: str, name: str, places: list[int], cache_model: str = "tables") -> dict[str, object]:
    """The run, saved and restored wherever the tick counter passes a place (in cycles)."""
    machine = loaded(guest, name, cache_model)
    for cycles in sorted(places):
        if not machine.advance(1 << 62, None, cycles):
            break
        machine = machine_of(machine_bytes(machine), "memory")
    return everything(machine, machine.run())


def assert_same(guest: str, name: str, places: list[int], cache_model: str = "tables") -> None:
    """Equal, with the first difference named."""
    whole = unbroken(guest, name, cache_model)
    other = cut(guest, name, places, cache_model)
    for field, value in whole.items():
        assert other[field] == value, (field, places)


@pytest.mark.parametrize("name", UNDER)
@pytest.mark.parametrize("guest", NAMES)
def test_a_restored_run_ends_as_the_unbroken_one(guest: str, name: str) -> None:
    cycles = unbroken(guest, name)["outcome"][3] // 64
    rng = np.random.default_rng(len(guest))
    assert_same(guest, name, [1, *(int(place) for place in rng.integers(2, cycles, 3))])


@settings(max_examples=12)
@given(
    guest=st.sampled_from([name for name in NAMES if name not in ("irq", "alu", "mix", "stealth", "unix")]),
    name=st.sampled_from(UNDER),
    parts=st.lists(st.floats(0, 1), min_size=1, max_size=3), cache_model=st.sampled_from(("tables", "all")),
)  # fmt: skip
def test_any_save_points(guest: str, name: str, parts: list[float], cache_model: str) -> None:
    cycles = unbroken(guest, name, cache_model)["outcome"][3] // 64
    assert_same(guest, name, [1 + int(part * cycles) for part in parts], cache_model)


def test_the_file_is_the_same_bytes_for_the_same_machine(tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        machine = loaded("syscall", "trap-and-emulate")
        machine.advance(5000)
        contents.append(machine_bytes(machine))
    assert contents[0] == contents[1]
    save_machine(machine, tmp_path / "machine")
    restored = restore_machine(tmp_path / "machine")
    assert machine_bytes(restored) == contents[0] == (tmp_path / "machine").read_bytes()
    assert restored.guest == ("syscall", find_guest("syscall").sha256)


def test_every_attribute_of_the_vmm_is_saved_or_made_again() -> None:
    vm = loaded("hello", "trap-and-emulate").vm
    parts = {"VM": vm, "DESCRIPTORS": vm.descriptors, "SEGMENTS": vm.segments, "ENTRIES": vm.entries}
    parts |= {"CROSSINGS": vm.crossings, "INTERRUPTS": vm.interrupts, "DEVICES": vm.devices}
    for kind, thing in (parts | {"SHADOW": vm.shadow, "VCPU": vm.vcpu}).items():
        known = getattr(saved_state, f"SAVED_OF_{kind}") | getattr(saved_state, f"MADE_OF_{kind}")
        assert set(vars(thing)) == known, kind
    assert set(vars(vm.interpreter)) - {"_shared", "_returned", "_debugger"} == saved_interpreter.SAVED | saved_interpreter.MADE


@pytest.mark.parametrize("name", ["vtx-ept", "vtx-shadow", "svm-npt", "svm-shadow"])
def test_every_attribute_of_a_vmm_on_hardware_is_saved_or_made_again(name: str) -> None:
    vm = loaded("hello", name).vm
    parts = {"VM": vm, "VCPU": vm.vcpu, "CROSSINGS": vm.crossings, "INTERRUPTS": vm.interrupts, "SEGMENTS": vm.segments}
    for kind, thing in (parts | {"GUEST_STATE": vm.guest_state}).items():
        known = getattr(saving, f"SAVED_OF_{kind}") | getattr(saving, f"MADE_OF_{kind}")
        assert set(vars(thing)) <= known, kind
    for kind, thing in {"DEVICES": vm.devices, "SHADOW": vm.shadow}.items():
        assert set(vars(thing)) == getattr(saved_state, f"SAVED_OF_{kind}") | getattr(saved_state, f"MADE_OF_{kind}"), kind


# -- strategies with a state of their own -----------------------------------------------------------------------------


class Counts(TrapAndEmulate):
    """It counts its exits and does not say how to save them."""

    name = "counts"

    def __init__(self) -> None:
        self.count = 0

    def handle(self, vm, exit) -> None:
        """Count."""
        self.count += 1
        super().handle(vm, exit)


class SavesItsCount(Counts):
    """It says so."""

    name = "saves"

    def save(self) -> dict:
        """The count."""
        return {"count": self.count}

    def restore(self, state: dict) -> None:
        """Take it back."""
        self.count = state["count"]


def test_a_strategy_with_a_state_of_its_own_must_say_how_to_save_it() -> None:
    machine = make_setup(Counts, memory_bytes=MEMORY).machine()
    machine.load(find_guest("hello"))
    with pytest.raises(SavedError, match="strategy counts cannot be saved: it keeps count"):
        machine_bytes(machine)
    counted = []
    for at in (None, 1000):
        machine = make_setup(SavesItsCount, memory_bytes=MEMORY).machine()
        machine.load(find_guest("hello"))
        if at is not None:
            machine.advance(at)
            machine = machine_of(machine_bytes(machine), "memory", None, SavesItsCount)
        machine.run()
        counted.append(machine.strategy.count)
    assert counted[0] == counted[1] > 10


def test_a_recorded_run_is_not_saved() -> None:
    machine = setup_of("trap-and-emulate").machine()
    Recorder(machine)
    machine.load(find_guest("hello"))
    with pytest.raises(SavedError, match="recorded"):
        machine_bytes(machine)


# -- damaged files ----------------------------------------------------------------------------------------------------


@functools.cache
def good() -> bytes:
    """A file."""
    machine = loaded("syscall", "trap-and-emulate")
    machine.advance(20_000)
    return machine_bytes(machine)


def refuse(content: bytes) -> str:
    """Why a file is refused, in one line."""
    with pytest.raises(UserError) as caught:
        machine_of(content, "a file")
    text = str(caught.value)
    assert "\n" not in text and len(text) < 600
    assert text.startswith(("a file: ", "strategy ")), text
    return text


def test_every_truncation_is_refused() -> None:
    content = good()
    places = {*range(200), *range(200, len(content), 997), *range(len(content) - 100, len(content))}
    for length in places:
        refuse(content[:length])
    refuse(content + b"\0")


@settings(max_examples=300)
@given(st.data())
def test_every_flipped_bit_is_refused(data: st.DataObject) -> None:
    content = bytearray(good())
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    content[bit >> 3] ^= 1 << (bit & 7)
    refuse(bytes(content))


@settings(max_examples=100)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_refused(octets: bytes, with_magic: bool) -> None:
    refuse(MAGIC + octets if with_magic else octets)


def test_another_version_and_other_files_are_named() -> None:
    content = bytearray(good())
    content[16:20] = struct.pack("<I", VERSION + 1)
    assert f"version {VERSION + 1} of the format is not known" in refuse(bytes(content))
    assert "not a saved machine" in refuse(b"\x7fELF" + bytes(100))
    assert "not a saved machine" in refuse(b"")
    assert "truncated" in refuse(good()[:30])


def rewritten(change, arrays=lambda packed: packed) -> bytes:
    """A file whose manifest was changed and whose hash is right again."""
    content = good()
    _, version, length = HEAD.unpack_from(content)
    manifest = json.loads(content[HEAD.size : HEAD.size + length])
    manifest = change(manifest) or manifest
    head = json.dumps(manifest).encode()
    body = HEAD.pack(MAGIC, version, len(head)) + head + arrays(content[HEAD.size + length : -HASH_BYTES])
    return body + hashlib.sha256(body).digest()


def test_an_unchanged_manifest_is_accepted() -> None:
    assert machine_of(rewritten(lambda manifest: None), "a file").run().outcome == "halted"


def test_another_profile_is_refused() -> None:
    assert "another profile" in refuse(rewritten(lambda m: m.update(profile="core2_woodcrest")))
    assert "not built in" in refuse(rewritten(lambda m: m.update(profile="mine")))
    assert "another profile" in refuse(rewritten(lambda m: m.update(profile_digest="0" * 64)))


@pytest.mark.parametrize("value", (None, -1, "x", [[]], {}), ids=repr)
def test_any_value_in_the_manifest_is_refused_or_harmless(value: object) -> None:
    """Whatever stands in its place, by a file whose hash is right: one line, or a machine that ends."""
    content = good()
    _, _, length = HEAD.unpack_from(content)
    manifest = json.loads(content[HEAD.size : HEAD.size + length])
    for key, inner in ((key, None) for key in manifest):
        attempt(rewritten(lambda m, key=key: m.update({key: value})))
        inner = manifest[key]
        for name in inner if isinstance(inner, dict) else ():
            attempt(rewritten(lambda m, key=key, name=name: m[key].update({name: value})))


def attempt(content: bytes) -> None:
    """Refused in one line, or run to a named outcome."""
    try:
        machine_of(content, "a file")
    except UserError as error:
        assert "\n" not in str(error)


def test_indices_out_of_range_are_refused() -> None:
    """A file made on purpose: its hash is right, its fields are not."""
    bad = {
        "cpl": 4, "mode": -1, "event_vector": 1 << 40, "probe_row": 1 << 20, "rip": -5, "price": 7, "ram_last": 1 << 40,
        "code_map": 0, "cache_lines": -1, "ticks": -1, "owner_table": 3,
    }  # fmt: skip
    for name, value in bad.items():
        machine = loaded("syscall", "trap-and-emulate")
        machine.advance(1000)
        assert name in saved_fields()
        machine.processor.cpu[name] = value
        refuse(machine_bytes(machine))
    for unit, field, value in ((0, "victim", 10**6), (0, "ways", 1 << 30), (1, "first", -4)):
        machine = loaded("syscall", "trap-and-emulate")
        machine.processor.cpu.tlb_units[unit][field] = value
        refuse(machine_bytes(machine))
    for field, value in (("console_length", 1 << 20), ("shutdown_progress", 99), ("clock", -1), ("ticks_per_second", 0)):
        machine = loaded("syscall", "native")
        machine.dialogue.drain = lambda: None
        machine.board[field] = value
        refuse(machine_bytes(machine))
    machine = loaded("syscall", "trap-and-emulate")
    machine.vm.p2m[3] = 1 << 30
    refuse(machine_bytes(machine))


def test_files_that_are_not_there_or_cannot_be_written(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing", tmp_path / "folder" / "file", "\0"):
        with pytest.raises(SavedError) as caught:
            restore_machine(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(SavedError, match="cannot be written"):
        save_machine(loaded("hello", "native"), tmp_path / "folder" / "file")
