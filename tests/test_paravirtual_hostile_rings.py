"""Rings that no honest guest has: domain 0 answers errors, closes the device, or does not listen; it lives and harms nothing."""

from __future__ import annotations

import random
import struct

import pytest
from domain_0_guest import (
    BACK,
    BLOCK_PORT,
    ENTRIES,
    FRONT,
    IN_CONS,
    OUT_CONS,
    OUT_PROD,
    REQ,
    REQ_PROD,
    RING_REF,
    RSP,
    RSP_CONS,
    RSP_EVENT,
    Block,
    Console,
    Segment,
    Store,
)
from domain_0_rig import BLOCK_REFS, CONSOLE_PORT, PAGE, STORE_PORT, Rig
from ide_machine import SECTOR, pattern

from x86virt.vmm.paravirtual import interface as xen

SECTORS = 64
DISK = pattern(SECTORS)
INDICES = (0, 4, 8, 12, 64, 2048, 2052, 2056, 2060, 3072, 3076, 3080, 3084)  # of all three rings
GOOD, READ_ONLY, BAD = BLOCK_REFS, BLOCK_REFS + 1, BLOCK_REFS + 300


@pytest.fixture
def rig() -> Rig:
    """Domain 0 with a disk, and two grants."""
    rig = Rig(DISK)
    rig.grant(GOOD, 8)
    rig.grant(READ_ONLY, 9, read_only=True)
    return rig


@pytest.fixture
def store(rig: Rig) -> Store:
    return Store(rig)


@pytest.fixture
def block(rig: Rig, store: Store) -> Block:
    """A front end that is connected."""
    front = Block(rig, store)
    assert front.connect() == "4"
    return front


def disk(rig: Rig) -> bytes:
    return rig.ide.service.disks[0].read(0, SECTORS)


# -- requests ---------------------------------------------------------------------------------------------------------

WRITE, READ = xen.BLKIF_OP_WRITE, xen.BLKIF_OP_READ


@pytest.mark.parametrize(
    ("operation", "sector", "segments", "count", "status"),
    [
        (READ, SECTORS, [Segment(GOOD)], None, xen.BLKIF_RSP_ERROR),
        (READ, SECTORS - 7, [Segment(GOOD)], None, xen.BLKIF_RSP_ERROR),
        (READ, (1 << 64) - 4, [Segment(GOOD)], None, xen.BLKIF_RSP_ERROR),
        (READ, 1 << 32, [Segment(GOOD)], None, xen.BLKIF_RSP_ERROR),
        (READ, SECTORS - 8, [Segment(GOOD), Segment(GOOD, 0, 0)], None, xen.BLKIF_RSP_ERROR),
        (READ, 0, [], None, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(GOOD)] * 11, 12, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(GOOD)] * 11, 255, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(GOOD, 5, 4)], None, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(GOOD, 0, 8)], None, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(GOOD, 255, 255)], None, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(BAD)], None, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(GOOD), Segment(BAD)], None, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(0xFFFF_FFFF)], None, xen.BLKIF_RSP_ERROR),
        (READ, 0, [Segment(READ_ONLY)], None, xen.BLKIF_RSP_ERROR),
        (WRITE, SECTORS, [Segment(READ_ONLY)], None, xen.BLKIF_RSP_ERROR),
        (WRITE, 0, [Segment(BAD)], None, xen.BLKIF_RSP_ERROR),
        (xen.BLKIF_OP_WRITE_BARRIER, 0, [Segment(GOOD)], None, xen.BLKIF_RSP_EOPNOTSUPP),
        (6, 0, [Segment(GOOD)], None, xen.BLKIF_RSP_EOPNOTSUPP),
        (255, 0, [Segment(GOOD)], None, xen.BLKIF_RSP_EOPNOTSUPP),
    ],
)
def test_bad_requests_are_answered(
    rig: Rig, block: Block, operation: int, sector: int, segments: list[Segment], count: int | None, status: int
) -> None:
    assert block.ask(operation, sector, *segments, count=count) == status
    assert disk(rig) == DISK and not rig.held() and bytes(rig.pages[8].octets) == bytes(PAGE)
    assert block.ask(READ, 5, Segment(GOOD)) == xen.BLKIF_RSP_OKAY
    assert bytes(rig.pages[8].octets) == DISK[5 * SECTOR : 5 * SECTOR + PAGE]


def expected(octets: bytes) -> int:
    """What a request is answered with, written from the header's rules alone."""
    operation, count, _, _, sector = struct.unpack_from("<BBHQQ", octets)
    if operation == xen.BLKIF_OP_FLUSH_DISKCACHE:
        return xen.BLKIF_RSP_OKAY
    if operation not in (READ, WRITE):
        return xen.BLKIF_RSP_EOPNOTSUPP
    rows = [struct.unpack_from("<IBB", octets, 20 + 8 * number) for number in range(min(count, 11))]
    fits = sector + sum(last - first + 1 for _, first, last in rows) <= SECTORS
    sound = 0 < count <= 11 and fits and all(first <= last < 8 for _, first, last in rows)
    known = (GOOD,) if operation == READ else (GOOD, READ_ONLY)
    return xen.BLKIF_RSP_OKAY if sound and all(row[0] in known for row in rows) else xen.BLKIF_RSP_ERROR


def odd_request(dice: random.Random) -> bytes:
    """A request of which something may be wrong, or nothing."""
    count = dice.choice((1, 1, 2, 3, 11, 0, 12, 255))
    operation = dice.choice((READ, READ, WRITE, WRITE, 3, 2, 6, dice.randrange(256)))
    sector = dice.choice((0, 5, dice.randrange(SECTORS + 2), SECTORS - 8, dice.getrandbits(64), (1 << 64) - 1))
    octets = struct.pack("<BBHQQ", operation, count, dice.getrandbits(16), dice.getrandbits(64), sector)
    for _ in range(11):
        first = dice.choice((0, 0, 0, dice.randrange(8), dice.randrange(256)))
        last = dice.choice((7, 7, first, first, dice.randrange(8), dice.randrange(256)))
        reference = dice.choice((GOOD, GOOD, GOOD, READ_ONLY, BAD, dice.getrandbits(32)))
        octets += struct.pack("<IBBH", reference, first, last, dice.getrandbits(16))
    return octets


def apply_to(content: bytearray, octets: bytes, memory: dict[int, bytes]) -> None:
    """What a good write does to the disk."""
    operation, count, _, _, sector = struct.unpack_from("<BBHQQ", octets)
    for number in range(count if operation == WRITE else 0):
        reference, first, last = struct.unpack_from("<IBB", octets, 20 + 8 * number)
        piece = memory[reference][first * SECTOR : (last + 1) * SECTOR]
        content[sector * SECTOR : sector * SECTOR + len(piece)] = piece
        sector += last - first + 1


@pytest.mark.parametrize("seed", range(6))
def test_random_requests(rig: Rig, block: Block, seed: int) -> None:
    dice = random.Random(seed)
    content, answered = bytearray(DISK), set()
    for _ in range(100):
        octets = odd_request(dice)
        memory = {GOOD: bytes(rig.pages[8].octets), READ_ONLY: bytes(rig.pages[9].octets)}
        block.put_octets(octets)
        if block.push():
            rig.notify(BLOCK_PORT)
        ((name, operation, status),) = block.take()
        assert (name, operation) == (struct.unpack_from("<Q", octets, 4)[0], octets[0])
        assert status == expected(octets)
        if status == xen.BLKIF_RSP_OKAY:
            apply_to(content, octets, memory)
        answered.add(status)
        assert disk(rig) == content and not rig.held()
        rig.pages[9].octets[:] = dice.randbytes(PAGE)
    assert len(answered) == 3


# -- the block ring ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [ENTRIES + 1, 1000, 0x8000_0000, 0xFFFF_FFFF])
def test_more_requests_than_a_ring_has_close_the_device(rig: Rig, store: Store, block: Block, ahead: int) -> None:
    block.page.put(REQ, ahead)
    rig.notify(BLOCK_PORT)
    assert store.read(f"{BACK}/state") == "6" and store.read(f"{BACK}/error") and len(rig.mapped) == 2
    assert disk(rig) == DISK and not rig.held()
    store.write(f"{FRONT}/state", 6)
    store.write(f"{FRONT}/state", 1)
    assert block.connect() == "4"
    assert block.ask(READ, 0, Segment(GOOD)) == xen.BLKIF_RSP_OKAY


def test_the_back_ends_own_indices_are_not_read_again(rig: Rig, block: Block) -> None:
    for place, value in ((RSP, 12345), (RSP_EVENT, 0x7FFF_FFFF)):
        block.page.put(place, value)
        block.put(READ, 0, Segment(GOOD))
        block.push()
        rig.notify(BLOCK_PORT)
    assert block.page.word(RSP) == 2 and not rig.held()


def test_a_request_changed_while_the_disk_works_changes_nothing(rig: Rig, block: Block) -> None:
    block.put(WRITE, 8, Segment(READ_ONLY), name=5)
    block.push()
    rig.notify(BLOCK_PORT, patience=0)
    block.page.octets[64:] = b"\xff" * (PAGE - 64)
    rig.go()
    assert block.take() == [(5, WRITE, xen.BLKIF_RSP_OKAY)]
    assert disk(rig) == DISK[: 8 * SECTOR] + bytes(PAGE) + DISK[16 * SECTOR :]


@pytest.mark.parametrize(
    ("reference", "port"), [(BAD, BLOCK_PORT), (0xFFFF_FFFF, BLOCK_PORT), (RING_REF, 0), (RING_REF, 5000)]
)
def test_a_ring_that_cannot_be_had(rig: Rig, store: Store, reference: int, port: int) -> None:
    front = Block(rig, store)
    if reference == RING_REF:
        assert front.connect(RING_REF, port) == "6"
    else:
        store.write(f"{FRONT}/ring-ref", reference)
        store.write(f"{FRONT}/event-channel", port)
        store.write(f"{FRONT}/state", 3)
        assert store.read(f"{BACK}/state") == "6"
    assert len(rig.mapped) == 2
    store.write(f"{FRONT}/state", 6)
    store.write(f"{FRONT}/state", 1)
    assert front.connect() == "4"


@pytest.mark.parametrize("value", ["", "x", "-1", "99999999999", "8 "])
def test_a_ring_reference_that_is_no_number(store: Store, value: str) -> None:
    store.write(f"{FRONT}/ring-ref", value)
    store.write(f"{FRONT}/event-channel", 3)
    store.write(f"{FRONT}/state", 3)
    assert store.read(f"{BACK}/state") == "6"


# -- console and store ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [2049, 0x8000_0000, 0xFFFF_FFFF])
def test_console_indices_that_make_no_sense(rig: Rig, ahead: int) -> None:
    console = Console(rig)
    console.say(b"one ")
    console.page.put(OUT_PROD, ahead)
    console.page.put(OUT_CONS, 0)
    rig.notify(CONSOLE_PORT)
    assert rig.console == b"one "
    console.page.put(OUT_PROD, 0)
    console.say(b"two")
    assert rig.console == b"one two"


def test_a_console_that_nobody_reads(rig: Rig) -> None:
    Console(rig).page.put(IN_CONS, 0x9000_0000)
    for octet in b"abc":
        rig.type_serial(octet)
    Console(rig).say(b"alive")
    assert rig.console == b"alive"


@pytest.mark.parametrize("ahead", [1025, 0x8000_0000, 0xFFFF_FFFF])
def test_store_indices_that_make_no_sense(rig: Rig, store: Store, ahead: int) -> None:
    store.page.put(REQ_PROD, ahead)
    rig.notify(STORE_PORT)
    rig.notify(STORE_PORT)
    assert store.page.word(RSP_CONS) == 0
    Console(rig).say(b"alive")
    assert rig.console == b"alive"


@pytest.mark.parametrize("length", [4097, 0x8000_0000, 0xFFFF_FFFF])
def test_a_store_request_that_is_too_long(rig: Rig, store: Store, length: int) -> None:
    store.send(struct.pack("<4I", xen.XS_READ, 1, 0, length) + bytes(100))
    Console(rig).say(b"alive")
    assert rig.console == b"alive"


def test_replies_that_nobody_reads(rig: Rig, store: Store) -> None:
    store.page.put(RSP_CONS, 0x7000_0000)
    store.send(struct.pack("<4I", xen.XS_READ, 1, 0, 6) + b"domid\0")
    Console(rig).say(b"alive")
    assert rig.console == b"alive"


@pytest.mark.parametrize("seed", range(8))
def test_random_store_requests(rig: Rig, store: Store, seed: int) -> None:
    """Random messages, most of them nearly right; every one is answered, and the guest still finds its number."""
    dice = random.Random(seed)
    words = [*b"data , / , a , device/vbd/768/state , \x00 , T , 1 , 6 , n1 , r0 , .. , \xff".split(b" , "), b"x" * 40]
    for _ in range(150):
        payload = b"".join(dice.choice(words) for _ in range(dice.randrange(8)))
        if dice.random() < 0.5:
            payload = dice.choice((b"data/a", b"data/a/b", b"data", b"device/vbd/768/state")) + b"\0" + payload
        kind = dice.choice((*range(16), dice.getrandbits(32)))
        transaction = dice.choice((0, 0, 0, 1, 2, 3, dice.getrandbits(32)))
        store.send(struct.pack("<4I", kind, 7, transaction, len(payload)) + payload)
        while store.message()[0] == xen.XS_WATCH_EVENT:
            pass
    assert store.read("domid") == "1" and store.directory("/local/domain/1/device/vbd") == ["768"]


@pytest.mark.parametrize("seed", range(8))
def test_pages_full_of_noise(rig: Rig, block: Block, store: Store, seed: int) -> None:
    """All three shared pages change at random under domain 0, again and again: it lives, and the disk keeps what it had."""
    dice = random.Random(seed)
    for _ in range(200):
        page = rig.pages[dice.choice((0, 1, 2))]
        places = INDICES if dice.random() < 0.7 else range(0, PAGE, 4)
        place = dice.choice(places)
        page.put(place, dice.choice((0, 1, 5, 33, 1024, 1025, 0xFFFF_FFFF, dice.getrandbits(32))))
        rig.notify(dice.choice((CONSOLE_PORT, STORE_PORT, BLOCK_PORT)))
    assert len(disk(rig)) == len(DISK) and not rig.held()
