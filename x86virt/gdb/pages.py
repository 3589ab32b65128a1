"""Copies of arrays by pages: a page that did not change since the last copy is shared with it."""

import numpy as np

PAGE_BYTES = 4096
BATCH = 4096  # pages that are put together at once


class PagedArray:
    """One array of bytes that is copied again and again, and put back. It must be a multiple of a page long."""

    def __init__(self, octets: np.ndarray) -> None:
        self.octets = octets
        zero = bytes(PAGE_BYTES)
        self.pages = [zero] * (len(octets) // PAGE_BYTES)
        self.mirror = np.zeros(len(octets), np.uint8)  # what `pages` hold

    def take(self) -> list[bytes]:
        """The array as it is, a page each."""
        words = self.octets.view(np.uint64).reshape(-1, PAGE_BYTES // 8)
        kept = self.mirror.view(np.uint64).reshape(-1, PAGE_BYTES // 8)
        for first in range(0, len(words), BATCH):
            changed = (words[first : first + BATCH] != kept[first : first + BATCH]).any(axis=1)
            for page in (np.nonzero(changed)[0] + first).tolist():
                kept[page] = words[page]
                self.pages[page] = words[page].tobytes()
        return list(self.pages)

    def put_back(self, pages: list[bytes]) -> None:
        """Make the array what it was when `pages` were taken."""
        for first in range(0, len(pages), BATCH):
            piece = np.frombuffer(b"".join(pages[first : first + BATCH]), np.uint8)
            place = first * PAGE_BYTES
            self.octets[place : place + len(piece)] = piece
            self.mirror[place : place + len(piece)] = piece
        self.pages = list(pages)
