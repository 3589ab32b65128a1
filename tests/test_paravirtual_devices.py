"""Domain 0's kernel against the interface: console, store and disk, as a guest sees them by its rings.

The kernel is the committed image; below it is a mock of Xen that the tests wrote for themselves (`domain_0_rig`).
"""

from __future__ import annotations

import pytest
from domain_0_guest import BACK, BLOCK_PORT, FRONT, RSP_EVENT, Block, Console, Segment, Store, StoreError
from domain_0_rig import BLOCK_REFS, CONSOLE_PORT, PAGE, STORE_PORT, Rig
from ide_machine import SECTOR, pattern

from x86virt.vmm.paravirtual import interface as xen

SECTORS = 256
DISK = pattern(SECTORS)


@pytest.fixture
def rig() -> Rig:
    """Domain 0 with a disk."""
    return Rig(DISK)


@pytest.fixture
def store(rig: Rig) -> Store:
    return Store(rig)


@pytest.fixture
def block(rig: Rig, store: Store) -> Block:
    """A front end that is connected."""
    front = Block(rig, store)
    assert front.connect() == "4"
    return front


def pages(rig: Rig, count: int, read_only: bool = False) -> list[int]:
    """Grants of so many pages, the first of which is page 8."""
    return [rig.grant(BLOCK_REFS + number, 8 + number, read_only) for number in range(count)]


def disk(rig: Rig) -> bytes:
    return rig.ide.service.disks[0].read(0, SECTORS)


# -- console ----------------------------------------------------------------------------------------------------------


def test_the_console_writes_what_the_guest_says(rig: Rig) -> None:
    console = Console(rig)
    console.say(b"hello\n")
    assert rig.console == b"hello\n" and rig.told == [CONSOLE_PORT]
    text = bytes(range(32, 127)) * 60  # goes twice around the ring
    console.say(text)
    assert rig.console == b"hello\n" + text


def test_an_event_without_text_is_not_answered(rig: Rig) -> None:
    rig.notify(CONSOLE_PORT)
    assert not rig.told and not rig.console


def test_the_serial_port_is_the_consoles_input(rig: Rig) -> None:
    console = Console(rig)
    for octet in b"ls\r":
        rig.type_serial(octet)
    assert console.heard() == b"ls\r" and rig.told == [CONSOLE_PORT] * 3


# -- store ------------------------------------------------------------------------------------------------------------


def test_a_guest_finds_itself(store: Store) -> None:
    assert store.read("domid") == "1" and store.read("/local/domain/1/name") == "test"
    assert store.read("memory/target") == "16384" and store.read("console/port") == str(CONSOLE_PORT)
    assert store.read("store/port") == str(STORE_PORT)
    assert store.directory("device/vbd") == ["768"] and "device" in store.directory("/local/domain/1")
    assert store.ask(xen.XS_GET_DOMAIN_PATH, b"1\0") == b"/local/domain/1\0"
    assert store.ask(xen.XS_GET_PERMS, f"{FRONT}\0".encode()) == b"n1\0r0\0"
    assert store.ask(xen.XS_GET_PERMS, f"{BACK}\0".encode()) == b"n0\0r1\0"


def test_values_are_written_read_and_removed(store: Store) -> None:
    store.write("data/a/b", "first")
    store.write("data/a/b", "second")
    store.write("data/a/c", "")
    assert store.read("data/a/b") == "second" and store.read("data/a/c") == "" and store.read("data/a") == ""
    assert store.directory("data/a") == ["b", "c"] and store.directory("data/a/b") == []
    store.ask(xen.XS_MKDIR, b"data/d\0")
    store.ask(xen.XS_RM, b"data/a\0")
    assert store.directory("data") == ["d"]
    with pytest.raises(StoreError, match="ENOENT"):
        store.read("data/a/b")
    for number in range(400):  # what is removed leaves room
        store.write(f"data/{number}/x/y", number)
        store.ask(xen.XS_RM, f"data/{number}\0".encode())


@pytest.mark.parametrize(
    ("kind", "payload", "error"),
    [
        (xen.XS_READ, b"nothing\0", "ENOENT"),
        (xen.XS_READ, b"/a//b\0", "EINVAL"),
        (xen.XS_READ, b"data/\0", "EINVAL"),
        (xen.XS_READ, b"", "EINVAL"),
        (xen.XS_READ, b"data/" + b"n" * 40 + b"\0", "EINVAL"),
        (xen.XS_READ, b"x" * 4096, "EINVAL"),
        (xen.XS_READ, b"data/a b\0", "EINVAL"),
        (xen.XS_DIRECTORY, b"nothing\0", "ENOENT"),
        (xen.XS_WRITE, b"name\0other", "EACCES"),
        (xen.XS_WRITE, b"/local/domain/0/backend/vbd/1/768/sectors\x001", "EACCES"),
        (xen.XS_WRITE, b"/new\0value", "EACCES"),
        (xen.XS_WRITE, b"data/a", "EINVAL"),
        (xen.XS_WRITE, b"data/a\0" + b"v" * 129, "ENOSPC"),
        (xen.XS_RM, b"device\0", "EACCES"),
        (xen.XS_RM, b"/\0", "EINVAL"),
        (xen.XS_RM, b"data/nothing\0", "ENOENT"),
        (xen.XS_SET_PERMS, b"name\0n1\0", "EACCES"),
        (xen.XS_SET_PERMS, b"data\0n0\0", "EINVAL"),
        (xen.XS_SET_PERMS, b"data\0x1\0", "EINVAL"),
        (xen.XS_SET_PERMS, b"data\0", "EINVAL"),
        (xen.XS_WATCH, b"data\0", "EINVAL"),
        (xen.XS_UNWATCH, b"data\0token\0", "ENOENT"),
        (xen.XS_TRANSACTION_END, b"T\0", "ENOENT"),
        (xen.XS_GET_DOMAIN_PATH, b"me\0", "EINVAL"),
        (xen.XS_INTRODUCE, b"1\x00100\x001\0", "ENOSYS"),
        (0xFFFF_FFFF, b"", "ENOSYS"),
    ],
)
def test_what_the_store_refuses(store: Store, kind: int, payload: bytes, error: str) -> None:
    with pytest.raises(StoreError, match=error):
        store.ask(kind, payload)
    assert store.read("domid") == "1"


def test_the_store_is_full_in_the_end(store: Store) -> None:
    with pytest.raises(StoreError, match="ENOSPC"):
        for number in range(200):
            store.write(f"data/{number}", number)
    assert store.read("data/0") == "0" and store.read("data/60") == "60"


def test_who_owns_a_node_says_who_else_may(store: Store) -> None:
    store.write("data/a", 1)
    store.ask(xen.XS_SET_PERMS, b"data/a\0n1\0r0\0")
    assert store.ask(xen.XS_GET_PERMS, b"data/a\0") == b"n1\0r0\0"
    store.ask(xen.XS_SET_PERMS, b"data/a\0n1\0")
    assert store.ask(xen.XS_GET_PERMS, b"data/a\0") == b"n1\0"


def test_a_transaction_is_seen_when_it_ends(store: Store) -> None:
    transaction = store.begin()
    store.write("data/a", 1, transaction)
    assert store.read("data/a", transaction) == "1" and store.directory("data") == []
    store.end(transaction)
    assert store.read("data/a") == "1"
    given_up = store.begin()
    store.ask(xen.XS_RM, b"data/a\0", given_up)
    store.end(given_up, commit=False)
    assert store.read("data/a") == "1"


def test_a_transaction_that_was_overtaken_is_refused(store: Store) -> None:
    transaction, reader = store.begin(), store.begin()
    store.write("data/a", 1, transaction)
    store.write("data/b", 2)
    with pytest.raises(StoreError, match="EAGAIN"):
        store.end(transaction)
    store.end(reader)
    assert store.directory("data") == ["b"]
    with pytest.raises(StoreError, match="ENOENT"):
        store.read("data/b", transaction)


def test_transactions_run_out(store: Store) -> None:
    open_ones = [store.begin() for _ in range(4)]
    with pytest.raises(StoreError, match="EBUSY"):
        store.begin()
    store.end(open_ones[2])
    store.end(store.begin())


def test_watches_tell_of_changes_at_and_below(store: Store) -> None:
    store.ask(xen.XS_WATCH, b"data\0mine\0")
    assert store.events() == [("data", "mine")]
    store.write("data/a/b", 1)
    store.write("device/x", 1)
    assert store.events() == [("data/a/b", "mine")]
    store.ask(xen.XS_WATCH, b"/local/domain/1/data/a/b\0deep\0")
    store.events()
    store.ask(xen.XS_RM, b"data/a\0")
    assert sorted(store.events()) == [("/local/domain/1/data/a/b", "deep"), ("data/a", "mine")]
    transaction = store.begin()
    store.write("data/c", 1, transaction)
    assert store.events() == []
    store.end(transaction)
    assert store.events() == [("data/c", "mine")]
    store.ask(xen.XS_UNWATCH, b"data\0mine\0")
    store.write("data/e", 1)
    assert store.events() == []


def test_watches_and_their_events_run_out(store: Store) -> None:
    for number in range(16):
        store.ask(xen.XS_WATCH, f"data\0{number}\0".encode())
    with pytest.raises(StoreError, match="ENOSPC"):
        store.ask(xen.XS_WATCH, b"data\x0017\0")
    store.events()
    for number in range(20):
        store.write(f"data/{number}", 1)
    assert store.events() and store.read("data/19") == "1"


def test_a_long_reply_waits_for_room(store: Store) -> None:
    for number in range(60):
        store.write(f"data/{number:030}", 1)
    assert store.directory("data") == [f"{number:030}" for number in range(60)]


# -- block ------------------------------------------------------------------------------------------------------------


def test_a_front_end_connects(block: Block, store: Store) -> None:
    assert store.read(f"{BACK}/sectors") == str(SECTORS) and store.read(f"{BACK}/sector-size") == str(SECTOR)
    assert store.read(f"{BACK}/feature-flush-cache") == "1" and store.read(f"{BACK}/info") == "0"


def test_without_a_disk_there_is_no_device() -> None:
    assert Store(Rig()).directory("device") == []


@pytest.mark.parametrize(("sector", "segments"), [(0, 1), (17, 1), (100, 11), (SECTORS - 8, 1)])
def test_a_read(rig: Rig, block: Block, sector: int, segments: int) -> None:
    references = pages(rig, segments)
    assert block.ask(xen.BLKIF_OP_READ, sector, *map(Segment, references)) == xen.BLKIF_RSP_OKAY
    got = b"".join(bytes(rig.pages[8 + number].octets) for number in range(segments))
    assert got == DISK[sector * SECTOR : sector * SECTOR + segments * PAGE]
    assert not rig.held()


def test_parts_of_pages(rig: Rig, block: Block) -> None:
    first, second = pages(rig, 2)
    assert block.ask(xen.BLKIF_OP_READ, 9, Segment(first, 3, 3), Segment(second, 6, 7)) == xen.BLKIF_RSP_OKAY
    assert bytes(rig.pages[8].octets) == bytes(3 * SECTOR) + DISK[9 * SECTOR : 10 * SECTOR] + bytes(4 * SECTOR)
    assert bytes(rig.pages[9].octets) == bytes(6 * SECTOR) + DISK[10 * SECTOR : 12 * SECTOR]


def test_a_write_and_a_flush(rig: Rig, block: Block) -> None:
    (reference,) = pages(rig, 1, read_only=True)
    rig.pages[8].octets[:] = pattern(8, 3)
    assert block.ask(xen.BLKIF_OP_WRITE, 40, Segment(reference)) == xen.BLKIF_RSP_OKAY
    assert block.ask(xen.BLKIF_OP_FLUSH_DISKCACHE, 0) == xen.BLKIF_RSP_OKAY
    assert disk(rig) == DISK[: 40 * SECTOR] + pattern(8, 3) + DISK[48 * SECTOR :]


def test_a_batch_is_told_once_and_answered_in_order(rig: Rig, block: Block) -> None:
    references = pages(rig, 24)
    for number, reference in enumerate(references):
        block.put(xen.BLKIF_OP_READ, 8 * number, Segment(reference), name=number)
    assert block.push()
    block.page.put(RSP_EVENT, 24)  # tell of the last one alone
    rig.told.clear()
    rig.notify(BLOCK_PORT)
    assert [row[0] for row in block.take()] == list(range(24)) and rig.told == [BLOCK_PORT]
    for number in range(24):
        assert bytes(rig.pages[8 + number].octets) == DISK[number * PAGE : (number + 1) * PAGE]


def test_the_ring_goes_round(rig: Rig, block: Block) -> None:
    (reference,) = pages(rig, 1)
    for number in range(80):
        sector = number * 3 % (SECTORS - 8)
        assert block.ask(xen.BLKIF_OP_READ, sector, Segment(reference)) == xen.BLKIF_RSP_OKAY
        assert bytes(rig.pages[8].octets) == DISK[sector * SECTOR : sector * SECTOR + PAGE]


def test_requests_behind_a_busy_back_end_need_no_event(rig: Rig, block: Block) -> None:
    first, second = pages(rig, 2)
    block.put(xen.BLKIF_OP_READ, 0, Segment(first))
    assert block.push()
    rig.notify(BLOCK_PORT, patience=0)  # the disk is at work
    block.put(xen.BLKIF_OP_READ, 8, Segment(second))
    assert not block.push()
    rig.go()
    assert len(block.take()) == 2 and bytes(rig.pages[9].octets) == DISK[PAGE : 2 * PAGE]


def test_a_front_end_closes_and_comes_back(rig: Rig, store: Store, block: Block) -> None:
    (reference,) = pages(rig, 1)
    store.write(f"{FRONT}/state", 6)
    assert store.read(f"{BACK}/state") == "6" and len(rig.mapped) == 2
    store.write(f"{FRONT}/state", 1)
    assert block.connect() == "4"
    assert block.ask(xen.BLKIF_OP_READ, 3, Segment(reference)) == xen.BLKIF_RSP_OKAY


def test_what_was_asked_before_a_front_end_closed_is_not_answered(rig: Rig, store: Store, block: Block) -> None:
    (reference,) = pages(rig, 1)
    block.put(xen.BLKIF_OP_READ, 0, Segment(reference))
    block.push()
    rig.notify(BLOCK_PORT, patience=0)
    rig.patience = 0
    store.write(f"{FRONT}/state", 6)
    store.write(f"{FRONT}/state", 1)
    assert block.connect() == "4"
    rig.patience = None
    rig.go()
    assert not rig.held() and block.take() == []
    assert block.ask(xen.BLKIF_OP_READ, 3, Segment(reference)) == xen.BLKIF_RSP_OKAY
