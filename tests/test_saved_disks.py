"""A saved machine with disks: cut anywhere it ends as the unbroken run; changed images and hostile files in one line."""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ide_machine import SECTOR, IdeMachine, pattern
from small_kernel import MAX_CYCLES
from test_ide_guest import IMAGE, check, machine

from x86virt.core import ide_state
from x86virt.disk import Disk
from x86virt.disk_service import DiskService
from x86virt.errors import UserError
from x86virt.machine import Machine
from x86virt.saved import (
    HASH_BYTES,
    HEAD,
    MAGIC,
    VERSION,
    machine_arrays,
    machine_bytes,
    machine_of,
    restore_machine_state,
)
from x86virt.saved_disks import check_ide, disk_arrays, disks_state, restore_disks

NEVER = 1 << 62
FEW = settings(max_examples=60, deadline=None)


def started(path: Path, name: str = "native", writable: bool = False) -> Machine:
    """The guest of test_ide_guest.py on an image file."""
    if not path.exists():
        path.write_bytes(IMAGE)
    return machine(name, Disk.open(path, writable))


@functools.cache
def unbroken(name: str) -> tuple[int, int, str]:
    """Ticks, instructions and state at the end of the run that is not cut."""
    made = machine(name, Disk.of_bytes("disk", IMAGE))
    result = made.run(MAX_CYCLES)
    return result.ticks, result.instructions, made.strategy.virtual_state(made).digest()


@pytest.mark.parametrize("name", ["native", "trap-and-emulate"])
def test_cut_in_every_phase_it_ends_as_the_unbroken_run(tmp_path, name):
    path = tmp_path / "disk.img"
    made, phases = started(path, name), set()
    total = unbroken(name)[0] // 64
    for number in range(1, 40):
        made.advance(NEVER, MAX_CYCLES, total * number // 40)
        if made.outcome is not None:
            break
        phases.add(int(made.board.ide.channels[0].phase))
        content = machine_bytes(made)
        made.disks.close()
        made = machine_of(content, "saved")
    result = made.run(MAX_CYCLES)
    check(made, result)
    assert (result.ticks, result.instructions, made.strategy.virtual_state(made).digest()) == unbroken(name)
    assert phases >= {ide_state.PHASE_FETCH, ide_state.PHASE_STORE, ide_state.PHASE_DMA}
    made.disks.close()
    assert path.read_bytes() == IMAGE


def test_an_image_in_memory_is_saved_whole():
    made = machine("native", Disk.of_bytes("disk", IMAGE))
    made.advance(300, MAX_CYCLES)
    again = machine_of(machine_bytes(made), "saved")
    check(again, again.run(MAX_CYCLES))


def test_going_back_takes_the_overlay_along():
    """What reverse execution does: the arrays of an earlier moment are put back."""
    made = machine("native", Disk.of_bytes("disk", IMAGE))
    arrays = {name: array.copy() for name, array in machine_arrays(made)}
    first = made.run(MAX_CYCLES)
    restore_machine_state(made, arrays)
    assert made.disks.disks[0].read(0, 64) == IMAGE
    second = made.run(MAX_CYCLES)
    check(made, second)
    assert (first.ticks, first.instructions) == (second.ticks, second.instructions)


# -- images that are not what they were ---------------------------------------------------------------------------------


def refused(content: bytes) -> str:
    """The line with which a file is refused."""
    with pytest.raises(UserError) as caught:
        machine_of(content, "saved")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_images_that_are_not_what_they_were(tmp_path):
    path = tmp_path / "disk.img"
    made = started(path)
    made.advance(300, MAX_CYCLES)
    content = machine_bytes(made)
    made.disks.close()
    path.write_bytes(IMAGE[:-1] + b"!")
    assert "has changed since the machine was saved; give the image of then back" in refused(content)
    path.write_bytes(IMAGE + bytes(SECTOR))
    assert "has 33280 bytes, and 32768 when the machine was saved" in refused(content)
    path.unlink()
    assert "cannot be opened (No such file or directory)" in refused(content)
    path.mkdir()
    assert "is a directory" in refused(content)
    path.rmdir()
    path.write_bytes(IMAGE)
    machine_of(content, "saved").disks.close()


def test_a_writable_image_must_be_as_the_machine_left_it(tmp_path):
    path = tmp_path / "disk.img"
    made = started(path, writable=True)
    made.advance(300, MAX_CYCLES)
    content = machine_bytes(made)
    assert "is in use by another machine" in refused(content)
    check(made, made.run(MAX_CYCLES))
    made.disks.close()
    assert path.read_bytes() != IMAGE
    assert "has changed since the machine was saved" in refused(content)
    path.write_bytes(IMAGE)
    again = machine_of(content, "saved")
    check(again, again.run(MAX_CYCLES))
    again.disks.close()


# -- hostile files --------------------------------------------------------------------------------------------------------


@functools.cache
def good() -> tuple[dict[str, Any], bytes]:
    """The manifest and packed arrays of a machine whose guest has written."""
    made = machine("native", Disk.of_bytes("disk", IMAGE))
    made.advance(600, MAX_CYCLES)
    made.disks.disks[0].write(3, b"w" * 2 * SECTOR)
    content = machine_bytes(made)
    length = HEAD.unpack_from(content)[2]
    return json.loads(content[HEAD.size : HEAD.size + length]), content[HEAD.size + length : -HASH_BYTES]


def rewritten(manifest: dict[str, Any], packed: bytes) -> bytes:
    """A file whose hash is right."""
    head = json.dumps(manifest).encode()
    body = HEAD.pack(MAGIC, VERSION, len(head)) + head + packed
    return body + hashlib.sha256(body).digest()


def test_the_unchanged_file_is_taken():
    machine_of(rewritten(*good()), "saved")


VALUES = (None, -1, 4, 1 << 70, 0.5, "x", "", [], {}, True, False, "\0", "/dev/zero", "/", "x" * 5000)


@pytest.mark.parametrize("name", ["place", "path", "bytes", "writable", "in_memory", "digest", "overlay"])
@pytest.mark.parametrize("value", VALUES, ids=lambda value: repr(value)[:12])
def test_any_value_of_a_disk_in_the_manifest_is_refused_or_harmless(name, value):
    manifest, packed = good()
    changed = copy.deepcopy(manifest)
    if changed["disks"][0][name] == value or name == "path" and isinstance(value, str) and len(value) < 5000:
        return  # the name of an image in memory is only a name
    changed["disks"][0][name] = value
    assert refused(rewritten(changed, packed))


@pytest.mark.parametrize("disks", [None, 1, {}, [1], [[]], [{}]], ids=repr)
def test_disks_that_are_none(disks):
    manifest, packed = good()
    assert refused(rewritten(manifest | {"disks": disks}, packed))


def test_two_disks_at_one_place():
    manifest, packed = good()
    assert refused(rewritten(manifest | {"disks": manifest["disks"] * 2}, packed))


def with_array(name: str, change) -> bytes:
    """The good file with one array changed."""
    manifest, packed = good()
    content, place = bytearray(zlib.decompress(packed)), 0
    for listed, layout, count in manifest["arrays"]:
        length = array_bytes(layout) * count
        if listed == name:
            content[place : place + length] = change(bytes(content[place : place + length]))
        place += length
    return rewritten(manifest, zlib.compress(bytes(content), 1))


def array_bytes(layout: Any) -> int:
    """Bytes of one element of a layout."""
    if isinstance(layout, str):
        return int(layout[2:])
    return sum(array_bytes(inner) * int(np.prod(shape)) for _, inner, shape in layout)


@pytest.mark.parametrize("numbers", [(3, 3), (4, 3), (-1, 4), (3, 64), (3, 1 << 62)])
def test_sectors_that_are_not_on_the_disk(numbers):
    def change(octets: bytes) -> bytes:
        assert np.frombuffer(octets, "<i8")[:2].tolist() == [3, 4]
        return np.array(numbers, "<i8").tobytes() + octets[16:]

    assert "sectors are out of range" in refused(with_array("disk0.numbers", change))


def test_a_changed_image_in_memory():
    assert "has changed" in refused(with_array("disk0.image", lambda octets: b"!" + octets[1:]))


def state_after(steps: list[tuple[int, int, int]]) -> Any:
    """The IDE record after some accesses."""
    m = IdeMachine({0: pattern(64), 1: pattern(64)})
    for register, value, waits in steps:
        m.put(register, value)
        for _ in range(waits):
            m.wait()
    return m.board["ide"]


CHANNEL_FIELDS = [name for name in ide_state.IDE_CHANNEL.names or () if name not in ("drives", "buffer")]
DRIVE_FIELDS = list(ide_state.IDE_DRIVE.names or ())
STARTS = ([], [(2, 4, 0), (7, 0x20, 0)], [(2, 4, 0), (7, 0x20, 1)], [(2, 4, 0), (7, 0x30, 0)], [(7, 0xC8, 0)], [(7, 0xEC, 1)])
WORSE = st.sampled_from([-1, 0, 1, 2, 3, 511, 512, 513, 8190, 8191, 8192, 8193, 16384, 1 << 16, 1 << 40, 1 << 62, -(1 << 62)])


@FEW
@given(st.sampled_from(STARTS), st.booleans(), st.data())
def test_a_record_that_is_taken_keeps_to_its_buffer(start, of_drive, data):
    """Whatever numbers stand in it: refused, or harmless when the guest goes on."""
    m = IdeMachine({0: pattern(64), 1: pattern(64)})
    m.put(6, 0xE0)
    for register, value, waits in start:
        m.put(register, value)
        for _ in range(waits):
            m.wait()
    channel = m.board.ide.channels[0]
    target = channel.drives[0] if of_drive else channel
    for name in data.draw(st.lists(st.sampled_from(DRIVE_FIELDS if of_drive else CHANNEL_FIELDS), min_size=1, max_size=3)):
        target[name] = data.draw(WORSE)
    try:
        check_ide(m.board["ide"])
    except ValueError:
        return
    if channel.drives[0].present != 1 or channel.drives[0].capacity != 64:
        return  # refused by `check_drives`
    buffer_end = ide_state.BUFFER_BYTES
    for _ in range(40):
        for _ in range(32):
            if channel.phase in (ide_state.PHASE_DATA_IN, ide_state.PHASE_DATA_OUT):
                assert 0 <= channel.position < channel.block_end <= buffer_end
            m.get(0, 4)
            m.put(0, 0x12345678, 4)
        m.wait()
    assert all(0 <= number < 64 for number in m.service.disks[0].overlay)


@pytest.mark.parametrize("start", STARTS)
def test_what_a_guest_can_make_is_taken(start):
    check_ide(state_after(start))


def test_the_disks_part_alone_comes_back(tmp_path):
    path = tmp_path / "disk.img"
    path.write_bytes(IMAGE[:1000])
    m = IdeMachine({1: Disk.open(path), 2: pattern(9)})
    m.service.disks[1].write(1, b"z" * SECTOR)
    state, arrays = json.loads(json.dumps(disks_state(m.service))), dict(disk_arrays(m.service))
    empty = IdeMachine({})
    restore_disks(empty.service, state, arrays)
    assert sorted(empty.service.disks) == [1, 2]
    assert empty.service.disks[1].read(0, 2) == IMAGE[:SECTOR] + b"z" * SECTOR
    assert empty.service.disks[2].read(0, 9) == pattern(9)
    assert isinstance(empty.service, DiskService) and path.read_bytes() == IMAGE[:1000]
