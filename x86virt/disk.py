"""Raw disk images. The host's file is read only: what a guest writes goes to an overlay, unless the image is `writable`.

An image is a regular file, sector behind sector. A last sector that is not whole reads as padded with zeros. While a
machine has it open the file is locked, where the host can: many machines may read one image, and one may write it alone.
"""

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterator
from io import FileIO

from .errors import UserError

try:
    import fcntl
except ImportError:  # a host without such locks
    fcntl = None  # type: ignore[assignment]

SECTOR = 512
MOST_SECTORS = 1 << 48  # that a 48-bit address reaches
MOST_OVERLAY = 1 << 21  # sectors that a guest may write to an overlay, which is kept in the host's memory: 1 GB
OTHER_FORMATS = {
    b"QFI\xfb": "a QCOW image", b"KDMV": "a VMDK image", b"<<< ": "a VDI image", b"conectix": "a VHD image",
    b"vhdxfile": "a VHDX image",
}  # fmt: skip
HASH_CHUNK = 1 << 20
ZERO_CHUNK = bytes(HASH_CHUNK)
HEADS, TRACK = 16, 63
MOST_CYLINDERS = 16383  # that CHS addresses of 16 heads and 63 sectors may name (ATA/ATAPI-6, section 6.2.1)


class DiskError(UserError):
    """A disk image that cannot be used, or not any longer."""


class Disk:
    """The sectors of one drive: a base that is only read, and over it what was written.

    `name` is the image's path, `sectors` its size. A `writable` disk has no overlay: its file is written through.
    """

    def __init__(self, name: str, octets: int, file: FileIO | None, content: bytes = b"", writable: bool = False) -> None:
        self.name, self.octets, self.writable = name, octets, writable
        self.sectors = -(-octets // SECTOR)
        self.overlay: dict[int, bytes] = {}
        self._file, self._content = file, content
        self._digest = ""

    # -- opening --------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike[str], writable: bool = False) -> "Disk":
        """The image of a file. Raises DiskError."""
        file = open_image(path, writable)
        try:
            refuse_other_formats(file, path)
            octets = size_of(file, path, writable)
            lock(file, path, writable)
        except BaseException:
            file.close()
            raise
        return cls(os.fspath(path), octets, file, writable=writable)

    @classmethod
    def of_bytes(cls, name: str, content: bytes) -> "Disk":
        """An image in memory. Raises DiskError if it is empty."""
        if not content:
            raise DiskError(name, "is empty", "give an image with at least one sector")
        return cls(name, len(content), None, bytes(content))

    def close(self) -> None:
        """Let go of the file; harmless if it was done before."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()

    # -- sectors --------------------------------------------------------------------------------------------------

    def read(self, first: int, count: int) -> bytes:
        """`count` sectors from sector `first`, all within the disk. Raises DiskError if the host's file fails."""
        content = self._read_base(first, count)
        written = [number for number in range(first, first + count) if number in self.overlay] if self.overlay else []
        if not written:
            return content
        merged = bytearray(content)
        for number in written:
            merged[(number - first) * SECTOR : (number - first + 1) * SECTOR] = self.overlay[number]
        return bytes(merged)

    def write(self, first: int, content: bytes) -> None:
        """Write whole sectors from sector `first` on, all within the disk. Raises DiskError if the host's file fails."""
        if not self.writable:
            for place in range(0, len(content), SECTOR):
                self.overlay[first + place // SECTOR] = bytes(content[place : place + SECTOR])
            if len(self.overlay) > MOST_OVERLAY:
                what = f"more than {MOST_OVERLAY * SECTOR >> 20} MB were written to its overlay"
                raise DiskError(self.name, what, "give a copy of it with --disk-write")
            return
        assert self._file is not None
        with self._host_errors("written"):
            self._check_size()
            self._file.seek(first * SECTOR)
            done = 0
            while done < len(content):
                done += self._file.write(content[done:])

    def flush(self) -> None:
        """See that what was written through is on the host's disk. Raises DiskError."""
        if self.writable and self._file is not None:
            with self._host_errors("written"):
                os.fsync(self._file.fileno())

    def _read_base(self, first: int, count: int) -> bytes:
        """Sectors of the image itself, the last one padded."""
        start, end = first * SECTOR, min((first + count) * SECTOR, self.octets)
        if self._file is None:
            content = self._content[start:end]
        else:
            content = self._read_file(start, end)
        return content + bytes(count * SECTOR - len(content))

    def _read_file(self, start: int, end: int) -> bytes:
        """Bytes of the host's file."""
        assert self._file is not None
        pieces = []
        with self._host_errors("read"):
            self._file.seek(start)
            while start < end:
                piece = self._file.read(end - start)
                if not piece:
                    raise DiskError(self.name, "is shorter than when it was opened", "leave it alone while it is in use")
                pieces.append(piece)
                start += len(piece)
        return b"".join(pieces)

    def _check_size(self) -> None:
        """A file that has shrunk must not be made longer again by a write."""
        assert self._file is not None
        if os.fstat(self._file.fileno()).st_size < self.octets:
            raise DiskError(self.name, "is shorter than when it was opened", "leave it alone while it is in use")

    @contextlib.contextmanager
    def _host_errors(self, what: str) -> Iterator[None]:
        """Say in one line what the host refuses."""
        try:
            yield
        except DiskError:
            raise
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise DiskError(self.name, f"cannot be {what} ({reason})", "see to the host's disk") from None
        except ValueError:
            raise DiskError(self.name, "was closed", "make a new machine") from None

    # -- what it is -----------------------------------------------------------------------------------------------

    @property
    def in_memory(self) -> bool:
        """Whether the image is no file."""
        return self._file is None

    def read_image(self) -> bytes:
        """All bytes of an image in memory, without its overlay."""
        return self._content

    @property
    def geometry(self) -> tuple[int, int, int]:
        """Cylinders, heads and sectors per track of CHS addresses; a large disk has more sectors than they name."""
        cylinders = min(max(self.sectors // (HEADS * TRACK), 1), MOST_CYLINDERS)
        return cylinders, HEADS, TRACK

    def base_digest(self) -> str:
        """The SHA-256 of the image without its overlay: of its size and of each megabyte that is not all zeros.

        The holes of a sparse file cost nothing. An image that is only read is hashed once."""
        if self.writable or not self._digest:
            self._digest = self._hash()
        return self._digest

    def _hash(self) -> str:
        """The digest, computed."""
        digest = hashlib.sha256(self.octets.to_bytes(8, "little"))
        start = 0
        while start < self.octets:
            start = self._next_content(start) // HASH_CHUNK * HASH_CHUNK
            if start >= self.octets:
                break
            end = min(start + HASH_CHUNK, self.octets)
            chunk = self._content[start:end] if self._file is None else self._read_file(start, end)
            if chunk != ZERO_CHUNK[: len(chunk)]:
                digest.update(start.to_bytes(8, "little") + chunk)
            start = end
        return digest.hexdigest()

    def _next_content(self, start: int) -> int:
        """The first byte from `start` on that is not in a hole of the file, as far as the host can tell."""
        if self._file is None or not hasattr(os, "SEEK_DATA"):
            return start
        try:
            return os.lseek(self._file.fileno(), start, os.SEEK_DATA)
        except OSError as error:
            return self.octets if error.errno == NO_MORE_DATA else start


NO_MORE_DATA = 6  # ENXIO: nothing but a hole up to the file's end


def open_image(path: str | os.PathLike[str], writable: bool) -> FileIO:
    """A file, opened without ever changing it."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISREG(mode):
            return open(path, "r+b" if writable else "rb", buffering=0)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        advice = "give it without --disk-write: writes go to an overlay then" if writable else "give a raw disk image"
        raise DiskError(path, f"cannot be opened ({reason})", advice) from None
    except ValueError as error:
        raise DiskError(path, f"cannot be opened ({error})", "give the path of a raw disk image") from None
    raise DiskError(path, "is a directory" if stat.S_ISDIR(mode) else "is not a regular file", "give a raw disk image")


def refuse_other_formats(file: FileIO, path: object) -> None:
    """Say so if an image is plainly of another format."""
    try:
        head = file.read(8)
    except OSError as error:
        raise DiskError(path, f"cannot be read ({error.strerror})", "give a raw disk image") from None
    for magic, what in OTHER_FORMATS.items():
        if head.startswith(magic):
            raise DiskError(path, f"is {what}", "make a raw one of it (`qemu-img convert -O raw`)")


def size_of(file: FileIO, path: object, writable: bool) -> int:
    """The size in bytes of an image that makes a disk."""
    octets = os.fstat(file.fileno()).st_size
    if octets == 0:
        raise DiskError(path, "is empty", "give an image with at least one sector (`truncate -s 16M FILE` makes one)")
    if octets > MOST_SECTORS * SECTOR:
        raise DiskError(path, "has more sectors than a 48-bit address names", "give a smaller image")
    if writable and octets % SECTOR:
        what = f"its {octets} bytes are not whole sectors of {SECTOR}"
        raise DiskError(path, what, "give it without --disk-write, or pad it")
    return octets


def lock(file: FileIO, path: object, writable: bool) -> None:
    """Take the file's lock: shared for reading, alone for writing. A file system without locks has none."""
    if fcntl is None:
        return
    try:
        fcntl.flock(file.fileno(), (fcntl.LOCK_EX if writable else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        what = "is in use by another machine" if writable else "is being written by another machine"
        raise DiskError(path, what, "wait for its end, or give a copy") from None
    except OSError:
        return
