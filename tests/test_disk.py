"""Raw disk images: every bad one by name, the overlay against a plain array, and that the host's file is never damaged."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from command_line import Answer, assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from ide_machine import COMMAND, ERR, PRIMARY, READY, IdeMachine, pattern

from x86virt.disk import HASH_CHUNK, OTHER_FORMATS, SECTOR, Disk, DiskError

FEW = settings(max_examples=60, deadline=None)
NOBODY = 65534


def image(folder: Path, content: bytes, name: str = "disk.img") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# -- bad images ---------------------------------------------------------------------------------------------------------


def test_a_missing_image(tmp_path):
    with pytest.raises(DiskError, match=r"none.img: cannot be opened \(No such file or directory\); give"):
        Disk.open(tmp_path / "none.img")


@pytest.mark.parametrize("writable", [False, True])
def test_an_empty_image(tmp_path, writable):
    with pytest.raises(DiskError, match="is empty"):
        Disk.open(image(tmp_path, b""), writable)
    with pytest.raises(DiskError, match="is empty"):
        Disk.of_bytes("nothing", b"")


def test_a_directory(tmp_path):
    with pytest.raises(DiskError, match=r"^[^ ]*: is a directory; give"):
        Disk.open(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no FIFOs")
def test_what_is_not_a_file_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(DiskError, match="is not a regular file"):
            Disk.open(path)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000])
def test_paths_that_are_none(path):
    with pytest.raises(DiskError, match="cannot be opened"):
        Disk.open(path)


@pytest.mark.parametrize("octets", [1, 511, 513, 1000])
def test_an_odd_size_is_padded_with_zeros(tmp_path, octets):
    content = pattern(2)[:octets]
    path = image(tmp_path, content)
    disk = Disk.open(path)
    assert disk.sectors == -(-octets // SECTOR)
    assert disk.read(0, disk.sectors) == content.ljust(disk.sectors * SECTOR, b"\0")
    disk.write(disk.sectors - 1, b"\xff" * SECTOR)
    assert disk.read(disk.sectors - 1, 1) == b"\xff" * SECTOR and path.read_bytes() == content
    disk.close()
    with pytest.raises(DiskError, match="are not whole sectors of 512"):
        Disk.open(path, writable=True)
    assert path.read_bytes() == content


@contextlib.contextmanager
def as_nobody():
    """Without the rights of the superuser, who may write anything."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if user == 0:
            os.seteuid(0)


def test_a_read_only_file_cannot_be_written_through():
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        path = image(Path(folder), pattern(1))
        path.chmod(0o444)
        with as_nobody():
            with pytest.raises(DiskError, match=r"cannot be opened \(Permission denied\); give it without --disk-write"):
                Disk.open(path, writable=True)
            disk = Disk.open(path)
        disk.write(0, bytes(SECTOR))
        assert disk.read(0, 1) == bytes(SECTOR) and path.read_bytes() == pattern(1)


@pytest.mark.parametrize("magic, words", sorted(OTHER_FORMATS.items()), ids=lambda value: str(value)[-8:])
def test_other_formats_are_named(tmp_path, magic, words):
    with pytest.raises(DiskError, match=f"is {words}; make a raw one of it"):
        Disk.open(image(tmp_path, magic + bytes(SECTOR)))
    Disk.open(image(tmp_path, magic[:-1] + bytes(SECTOR))).close()


def test_an_overlay_that_would_fill_the_hosts_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("x86virt.disk.MOST_OVERLAY", 1 << 12)
    disk = Disk("large", 1 << 40, None)
    for first in range(0, 1 << 12, 256):
        disk.write(first, bytes(256 * SECTOR))
    disk.write(7, bytes(SECTOR))
    with pytest.raises(DiskError, match="large: more than 2 MB were written to its overlay; give a copy of it"):
        disk.write(1 << 12, bytes(SECTOR))


def test_a_huge_sparse_image(tmp_path):
    path = tmp_path / "huge.img"
    with path.open("wb") as file:
        file.truncate(4 << 40)
        file.seek(3 << 40)
        file.write(b"here")
    disk = Disk.open(path)
    assert disk.sectors == 1 << 33 and disk.geometry == (16383, 16, 63)
    assert disk.read(3 << 31, 1)[:4] == b"here" and disk.read((1 << 33) - 1, 1) == bytes(SECTOR)
    disk.write((1 << 33) - 1, b"z" * SECTOR)
    assert disk.read((1 << 33) - 2, 2) == bytes(SECTOR) + b"z" * SECTOR
    if hasattr(os, "SEEK_DATA"):
        assert disk.base_digest() == Disk.open(path).base_digest()


@pytest.mark.parametrize("writable", [False, True])
def test_a_file_that_shrinks_ends_in_one_line(tmp_path, writable):
    path = image(tmp_path, pattern(8))
    disk = Disk.open(path, writable)
    os.truncate(path, 5 * SECTOR)
    assert disk.read(4, 1) == pattern(8)[4 * SECTOR : 5 * SECTOR]
    with pytest.raises(DiskError, match="is shorter than when it was opened; leave it alone"):
        disk.read(4, 2)
    if writable:
        with pytest.raises(DiskError, match="is shorter"):
            disk.write(6, bytes(SECTOR))
        assert path.stat().st_size == 5 * SECTOR


def test_a_file_that_grows_stays_the_disk_that_it_was(tmp_path):
    path = image(tmp_path, pattern(2) + b"odd")
    disk = Disk.open(path)
    with path.open("ab") as file:
        file.write(b"x" * 5000)
    assert disk.sectors == 3 and disk.read(2, 1) == b"odd".ljust(SECTOR, b"\0")


def test_a_closed_disk_says_so(tmp_path):
    disk = Disk.open(image(tmp_path, pattern(2)))
    disk.close()
    disk.close()
    with pytest.raises(DiskError, match="was closed"):
        disk.read(0, 1)


def test_the_guests_run_ends_in_the_same_line(tmp_path):
    path = image(tmp_path, pattern(40))
    m = IdeMachine({0: Disk.open(path)})
    os.truncate(path, SECTOR)
    m.address(3, 1, "lba28")
    with pytest.raises(DiskError, match="is shorter than when it was opened"):
        m.put(COMMAND, 0x20)


def test_the_fifth_disk_and_a_place_that_is_taken():
    m = IdeMachine({number: pattern(1) for number in range(4)})
    with pytest.raises(DiskError, match="is the fifth disk: there are 4 places"):
        m.service.attach(Disk.of_bytes("e", pattern(1)))
    for place in (0, 4, -1):
        with pytest.raises(DiskError, match=f"there is no free place {place}"):
            m.service.attach(Disk.of_bytes("e", pattern(1)), place)


def test_disks_go_to_the_first_free_places():
    m = IdeMachine({1: pattern(1)})
    assert [m.service.attach(Disk.of_bytes("d", pattern(1))) for _ in range(3)] == [0, 2, 3]


# -- locks ----------------------------------------------------------------------------------------------------------------


def test_many_may_read_and_one_may_write(tmp_path):
    pytest.importorskip("fcntl")
    path = image(tmp_path, pattern(4))
    one, two = Disk.open(path), Disk.open(path)
    with pytest.raises(DiskError, match="is in use by another machine; wait"):
        Disk.open(path, writable=True)
    one.close()
    two.close()
    writer = Disk.open(path, writable=True)
    for writable in (False, True):
        with pytest.raises(DiskError, match="by another machine"):
            Disk.open(path, writable)
    writer.close()
    Disk.open(path).close()


# -- contents -------------------------------------------------------------------------------------------------------------

WRITES = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), st.binary(min_size=1, max_size=4)), max_size=20)


@FEW
@given(st.integers(1, 32 * SECTOR), WRITES)
def test_the_overlay_equals_a_plain_array(tmp_path_factory, octets, writes):
    content = pattern(32)[:octets]
    path = image(tmp_path_factory.mktemp("d"), content)
    disk = Disk.open(path)
    plain = bytearray(content.ljust(disk.sectors * SECTOR, b"\0"))
    for first, count, filling in writes:
        first, count = first % disk.sectors, min(count, disk.sectors - first % disk.sectors)
        octets_written = (filling * SECTOR)[:SECTOR] * count
        disk.write(first, octets_written)
        plain[first * SECTOR : (first + count) * SECTOR] = octets_written
        assert disk.read(first, count) == octets_written
    assert disk.read(0, disk.sectors) == plain
    assert path.read_bytes() == content
    disk.close()


@FEW
@given(st.integers(1, 32), WRITES)
def test_writing_through_equals_a_plain_array(tmp_path_factory, sectors, writes):
    path = image(tmp_path_factory.mktemp("d"), pattern(sectors))
    disk = Disk.open(path, writable=True)
    plain = bytearray(pattern(sectors))
    for first, count, filling in writes:
        first, count = first % sectors, min(count, sectors - first % sectors)
        octets = (filling * SECTOR)[:SECTOR] * count
        disk.write(first, octets)
        plain[first * SECTOR : (first + count) * SECTOR] = octets
    disk.flush()
    assert not disk.overlay and disk.read(0, sectors) == plain == path.read_bytes()
    disk.close()


@pytest.mark.parametrize("sectors, geometry", [
    (1, (1, 16, 63)), (1007, (1, 16, 63)), (2016, (2, 16, 63)), (16383 * 1008 - 1, (16382, 16, 63)),
    (16383 * 1008, (16383, 16, 63)), (1 << 40, (16383, 16, 63)),
])  # fmt: skip
def test_geometry(sectors, geometry):
    assert Disk("g", sectors * SECTOR, None).geometry == geometry


def test_the_digest_does_not_depend_on_holes_or_the_overlay(tmp_path):
    content = bytes(2 * HASH_CHUNK) + b"x" * 1000 + bytes(HASH_CHUNK)
    whole, sparse = image(tmp_path, content), tmp_path / "sparse.img"
    with sparse.open("wb") as file:
        file.seek(2 * HASH_CHUNK)
        file.write(b"x" * 1000)
        file.truncate(len(content))
    one, two, three = Disk.open(whole), Disk.open(sparse), Disk.of_bytes("memory", content)
    two.write(0, b"y" * SECTOR)
    assert one.base_digest() == two.base_digest() == three.base_digest()
    others = (content + b"\0", content[:-1], content.replace(b"xx", b"xz", 1), b"x" + content[1:])
    assert len({Disk.of_bytes("o", other).base_digest() for other in others} | {one.base_digest()}) == 5


# -- the host's file --------------------------------------------------------------------------------------------------------


def test_a_guests_writes_do_not_reach_the_host(tmp_path):
    path = image(tmp_path, pattern(64))
    before, times = digest(path), path.stat().st_mtime_ns
    m = IdeMachine({0: Disk.open(path)})
    m.address(3, 4, "lba28")
    assert m.write(0x30, b"w" * 4 * SECTOR) == READY
    m.descriptors(0x1000, (0x20000, 8 * SECTOR))
    m.address(10, 8, "lba28")
    assert m.dma(0xCA, False) == (READY, 4)
    assert m.command(0xE7) == READY
    assert m.service.disks[0].read(2, 3) == pattern(64)[2 * SECTOR : 3 * SECTOR] + b"w" * 2 * SECTOR
    m.service.close()
    assert digest(path) == before and path.stat().st_mtime_ns == times


def test_a_guests_writes_reach_a_writable_image_and_stay_within(tmp_path):
    path = image(tmp_path, pattern(64))
    m = IdeMachine({2: Disk.open(path, writable=True)}, 0x170)
    m.address(62, 4, "lba28")
    assert m.write(0x30, b"w" * 2 * SECTOR) == READY | ERR
    assert m.command(0xE7) == READY
    m.service.close()
    assert path.read_bytes() == pattern(64)[: 62 * SECTOR] + b"w" * 2 * SECTOR


KILLED = """
import os, sys
sys.path.insert(0, sys.argv[2])
from ide_machine import IdeMachine
from x86virt.disk import Disk
m = IdeMachine({0: Disk.open(sys.argv[1])})
m.address(0, 200, "lba28")
m.write(0x30, b"w" * 512 * 3 + b"")
m.put(0x0, 0xFFFF, 2)
os.kill(os.getpid(), 9)
"""


def test_a_killed_machine_leaves_the_image_whole_and_unlocked(tmp_path):
    path = image(tmp_path, pattern(256))
    before = digest(path)
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-c", KILLED, str(path), str(Path(__file__).parent)]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False)
    assert ended.returncode == -9, ended.stderr
    assert digest(path) == before
    Disk.open(path, writable=True).close()


def test_both_channels_use_their_own_disks():
    m = IdeMachine({0: pattern(4), 2: pattern(4, 9)}, PRIMARY)
    for base, salt in ((PRIMARY, 0), (0x170, 9)):
        m.base = base
        m.address(1, 1, "lba28")
        assert m.read(0x20, 1) == pattern(4, salt)[SECTOR : 2 * SECTOR]


# -- the command line -------------------------------------------------------------------------------------------------------


@pytest.fixture
def x86virt(capsys):
    return lambda *arguments: Answer(capsys, *arguments)


def test_bad_disks_on_the_command_line(x86virt, tmp_path):
    odd, good = image(tmp_path, pattern(1)[:500], "odd.img"), image(tmp_path, pattern(4))
    (tmp_path / "empty.img").touch()
    for path, words in (
        ("none.img", "No such file"), ("empty.img", "is empty"), (".", "is a directory"), ("/dev/null", "not a regular file"),
    ):  # fmt: skip
        assert_refused(x86virt("run", "hello", "--disk", str(tmp_path / path)), words)
        assert_refused(x86virt("run", "hello", "--disk", str(tmp_path / path), "--disk-write"), words)
    assert_refused(x86virt("run", "hello", "--disk", str(odd), "--disk-write"), "are not whole sectors of 512")
    five = [word for _ in range(5) for word in ("--disk", str(good))]
    assert_refused(x86virt("run", "hello", *five), "is the fifth disk")
    assert_refused(x86virt("run", "hello", *five[:4], "--disk-write"), "by another machine")
    for path in (odd, good):
        before = digest(path)
        assert x86virt("run", "hello", "--disk", str(path)).status == 0
        assert digest(path) == before


def test_a_record_with_disks_is_accepted_with_the_same_disks_alone(x86virt, tmp_path):
    good, other = image(tmp_path, pattern(4)), image(tmp_path, pattern(5), "other.img")
    log = str(tmp_path / "log.json")
    recorded = x86virt("run", "hello", "--disk", str(good), "--record", log)
    assert recorded.status == 0 and recorded.err.startswith(f"{log}: "), recorded.err
    accepted = x86virt("run", "hello", "--disk", str(good), "--replay", log)
    assert accepted.status == 0 and "accepted" in accepted.err, accepted.err
    for disks in ((), ("--disk", str(other)), ("--disk", str(good), "--disk", str(other))):
        refused = x86virt("run", "hello", *disks, "--replay", log)
        assert (refused.status, refused.out) == (1, ""), refused.err
        assert "the bare machine refuses it: the log is of a machine with other disks" in refused.err


# -- a host that refuses ------------------------------------------------------------------------------------------------------


class Failing:
    """A file whose reads and writes fail."""

    def __init__(self, file: object, error: OSError) -> None:
        self.file, self.error = file, error

    def __getattr__(self, name: str) -> object:
        if name in ("read", "write"):
            raise self.error
        return getattr(self.file, name)


@pytest.mark.parametrize("number, words", [(errno.EIO, "Input/output error"), (errno.ENOSPC, "No space left on device")])
def test_what_the_host_refuses_is_said_in_one_line(tmp_path, number, words):
    path = image(tmp_path, pattern(40))
    disk = Disk.open(path, writable=True)
    m = IdeMachine({0: disk})
    disk._file = Failing(disk._file, OSError(number, os.strerror(number)))
    m.address(3, 1, "lba28")
    with pytest.raises(DiskError, match=rf"disk.img: cannot be read \({words}\); see to the host's disk"):
        m.put(COMMAND, 0x20)
    m = IdeMachine({0: disk})
    m.address(3, 1, "lba28")
    with pytest.raises(DiskError, match=rf"cannot be written \({words}\)"):
        m.write(0x30, bytes(SECTOR))
    assert path.read_bytes() == pattern(40)
