"""The disks of a saved machine: which image was at which place, and what the guest had written over it.

In the manifest a list, one table for each disk: place, path, bytes, whether it is writable, the digest of the image
(x86virt/disk.py, `base_digest`) and how many sectors lie in the overlay. Each disk has two arrays: `diskN.numbers`, the
ascending numbers of these sectors, and `diskN.sectors`, their bytes. The image itself is not saved: it must be there, and
the same, when the machine is restored. For an image in memory its bytes are saved as a third array, `diskN.image`.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from .core import ide_state
from .core.layout import NEVER
from .disk import MOST_OVERLAY, MOST_SECTORS, SECTOR, Disk, DiskError
from .disk_service import PLACES, DiskService

LARGEST_IMAGE = 1 << 31  # bytes of an image in memory
LONGEST_PATH = 4096
ALIKE = "give the image of then back, or save the machine again"

# -- saving -----------------------------------------------------------------------------------------------------------


def disks_state(service: DiskService) -> list[dict[str, Any]]:
    """What the manifest says of the disks. Raises DiskError if an image cannot be read."""
    return [
        {
            "place": place,
            "path": disk.name,
            "bytes": disk.octets,
            "writable": disk.writable,
            "in_memory": disk.in_memory,
            "digest": disk.base_digest(),
            "overlay": len(disk.overlay),
        }
        for place, disk in sorted(service.disks.items())
    ]


def disk_arrays(service: DiskService) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of all disks by name."""
    for place, disk in sorted(service.disks.items()):
        numbers = sorted(disk.overlay)
        yield f"disk{place}.numbers", np.array(numbers, np.int64)
        yield f"disk{place}.sectors", np.frombuffer(b"".join(disk.overlay[number] for number in numbers), np.uint8)
        if disk.in_memory:
            yield f"disk{place}.image", np.frombuffer(disk.read_image(), np.uint8)


# -- restoring --------------------------------------------------------------------------------------------------------


def number_of(row: dict[str, Any], name: str, least: int, most: int) -> int:
    """A number of the manifest within its bounds. Raises ValueError."""
    value = row[name]
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"its disks' {name} is out of range")
    return value


def truth_of(row: dict[str, Any], name: str) -> bool:
    """A truth value of the manifest. Raises ValueError."""
    if type(row[name]) is not bool:
        raise ValueError(f"its disks' {name} is no truth value")
    return bool(row[name])


def expected_disk_arrays(state: Any) -> dict[str, tuple[np.dtype, int]]:
    """Name -> dtype and count of every array that a file with this manifest has. Raises ValueError."""
    rows: dict[str, tuple[np.dtype, int]] = {}
    if not isinstance(state, list):
        raise ValueError("its disks are no list")
    for row in state:
        place, count = number_of(row, "place", 0, len(PLACES) - 1), number_of(row, "overlay", 0, MOST_OVERLAY)
        if f"disk{place}.numbers" in rows:
            raise ValueError("two of its disks are at one place")
        rows[f"disk{place}.numbers"] = np.dtype(np.int64), count
        rows[f"disk{place}.sectors"] = np.dtype(np.uint8), count * SECTOR
        if truth_of(row, "in_memory"):
            rows[f"disk{place}.image"] = np.dtype(np.uint8), number_of(row, "bytes", 1, LARGEST_IMAGE)
    return rows


def restore_disks(service: DiskService, state: list[dict[str, Any]], arrays: dict[str, np.ndarray]) -> None:
    """Plug the disks of a saved machine into one that has none. Raises DiskError or ValueError.

    The drives' records come afterwards, with the board; `check_drives` holds them to the disks.
    """
    try:
        for row in state:
            place = number_of(row, "place", 0, len(PLACES) - 1)
            disk = open_again(row, arrays.get(f"disk{place}.image"))
            service.attach(disk, place)
            restore_overlay(disk, arrays[f"disk{place}.numbers"], arrays[f"disk{place}.sectors"])
    except BaseException:
        service.close()
        raise


def open_again(row: dict[str, Any], image: np.ndarray | None) -> Disk:
    """The image of a disk, if it is still the same. Raises DiskError or ValueError."""
    path, octets = row["path"], number_of(row, "bytes", 1, MOST_SECTORS * SECTOR)
    if not isinstance(path, str) or len(path) > LONGEST_PATH:
        raise ValueError("its disks' path is no path")
    writable = truth_of(row, "writable")
    if writable and image is not None:
        raise ValueError("an image in memory is not written through")
    disk = Disk.open(path, writable) if image is None else Disk.of_bytes(path, image.tobytes())
    try:
        if disk.octets != octets:
            raise DiskError(path, f"has {disk.octets} bytes, and {octets} when the machine was saved", ALIKE)
        if disk.base_digest() != row["digest"]:
            raise DiskError(path, "has changed since the machine was saved", ALIKE)
    except BaseException:
        disk.close()
        raise
    return disk


def restore_overlays(service: DiskService, arrays: dict[str, np.ndarray]) -> None:
    """Bring the overlays of a machine's own disks back to what they were. What was written through stays."""
    for place, disk in service.disks.items():
        disk.overlay.clear()
        restore_overlay(disk, arrays[f"disk{place}.numbers"], arrays[f"disk{place}.sectors"])


def restore_overlay(disk: Disk, numbers: np.ndarray, sectors: np.ndarray) -> None:
    """Lay what was written over an image again. Raises ValueError."""
    if len(numbers) and disk.writable:
        raise ValueError("a disk that is written through has no overlay")
    if len(numbers) and (numbers[0] < 0 or numbers[-1] >= disk.sectors or (np.diff(numbers) <= 0).any()):
        raise ValueError("its disks' sectors are out of range")
    octets = sectors.tobytes()
    for place, number in enumerate(numbers.tolist()):
        disk.overlay[number] = octets[place * SECTOR : (place + 1) * SECTOR]


# -- the drives' records ----------------------------------------------------------------------------------------------

CHANNEL_BOUNDS = {
    "selected": (0, 1), "control": (0, 0xFF), "line": (0, 1), "phase": (0, ide_state.N_PHASES - 1),
    "deadline": (0, NEVER), "command": (0, 0xFF), "lba": (-1, 1 << 50), "sectors_left": (0, 1 << 16),
    "block": (1, ide_state.MOST_MULTIPLE), "overhead": (0, 1 << 50), "failure": (0, 0xFF),
    "position": (0, ide_state.BUFFER_BYTES), "block_end": (0, ide_state.BUFFER_BYTES),
    "held": (0, ide_state.MOST_MULTIPLE), "request": (0, 0), "dma_outcome": (0, ide_state.N_DMA_OUTCOMES - 1),
    "command_ticks": (0, 1 << 50), "sector_ticks": (0, 1 << 40), "reset_ticks": (0, 1 << 50),
    "master_enabled": (0, 1), "master_command": (0, 9), "master_status": (0, 0x67), "master_table": (0, 0xFFFFFFFC),
}  # fmt: skip
DRIVE_BOUNDS = {
    "present": (0, 1), "capacity": (0, MOST_SECTORS), "default_cylinders": (0, 0xFFFF), "default_heads": (0, 16),
    "default_track": (0, 0xFF), "cylinders": (0, 0xFFFF), "heads": (1, 16), "track": (1, 0xFF),
    "multiple": (0, ide_state.MOST_MULTIPLE), "write_cache": (0, 1), "look_ahead": (0, 1), "reverts": (0, 1),
    "interrupt": (0, 1),
}  # fmt: skip


TRANSFERS = (
    ide_state.PHASE_FETCH, ide_state.PHASE_DATA_IN, ide_state.PHASE_DATA_OUT, ide_state.PHASE_STORE,
    ide_state.PHASE_DMA_WAIT, ide_state.PHASE_DMA,
)  # fmt: skip


def within(record: Any, bounds: dict[str, tuple[int, int]]) -> bool:
    """Whether fields of a record lie within their bounds."""
    return all(least <= record[name] <= most for name, (least, most) in bounds.items())


def check_ide(ide: Any) -> None:
    """No index of a board's IDE record lies outside of what it indexes. Raises ValueError."""
    good = 0 <= ide["deadline"] <= NEVER and ide["asks_host"] == 0 and not (ide["irq"] & ~1).any()
    for channel in ide["channels"]:
        good = good and within(channel, CHANNEL_BOUNDS)
        for drive in channel["drives"]:
            byte = [name for name in drive.dtype.names if name not in DRIVE_BOUNDS]
            good = good and within(drive, DRIVE_BOUNDS) and within(drive, dict.fromkeys(byte, (0, 0xFF)))
        if not good or not transfer_is_sound(channel):
            raise ValueError("its disk drives are out of range")


def transfer_is_sound(channel: Any) -> bool:
    """Whether a command in execution keeps to its buffer and its drive, as all that go on from here."""
    phase, drive = channel["phase"], channel["drives"][channel["selected"]]
    if phase in (ide_state.PHASE_IDLE, ide_state.PHASE_RESET, ide_state.PHASE_DIAGNOSTIC):
        return True
    if drive["present"] == 0:
        return False
    if phase not in TRANSFERS:
        return True
    if channel["sectors_left"] < 1 or not 0 <= channel["lba"] <= drive["capacity"] - 1:
        return False
    if phase == ide_state.PHASE_DMA_WAIT or phase == ide_state.PHASE_DMA:
        return bool(channel["lba"] + channel["sectors_left"] <= drive["capacity"])
    block = int(min(channel["block"], channel["sectors_left"]))
    first, position = int(channel["block_end"]) - block * SECTOR, int(channel["position"])
    if first < 0 or first % SECTOR or not first <= position <= first + block * SECTOR or position % 2:
        return False
    if phase == ide_state.PHASE_DATA_OUT or phase == ide_state.PHASE_STORE:
        return first == 0 and (phase == ide_state.PHASE_STORE or position < block * SECTOR)
    return block <= channel["held"] <= ide_state.MOST_MULTIPLE - first // SECTOR and position < first + block * SECTOR


def check_drives(ide: Any, service: DiskService) -> None:
    """The drives that are plugged in are those of the disks. Raises ValueError."""
    for place in range(len(PLACES)):
        drive, disk = ide["channels"][place >> 1]["drives"][place & 1], service.disks.get(place)
        there = (0, 0, (0, 0, 0)) if disk is None else (1, disk.sectors, disk.geometry)
        geometry = tuple(int(drive[name]) for name in ("default_cylinders", "default_heads", "default_track"))
        if (drive["present"], drive["capacity"], geometry) != there:
            raise ValueError("its disk drives are not those of its images")
