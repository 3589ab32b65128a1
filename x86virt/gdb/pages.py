"""Copies of arrays by pages: a page that did not change since the last copy is shared with it."""

from collections.abc import Iterator

import numpy as np

PAGE_BYTES = 4096
BATCH = 4096  # pages that are compared at once


class PagedArray:
    """One array of bytes that is copied again and again, and put back. It must be a multiple of a page long."""

    def __init__(self, octets: np.ndarray) -> None:
        self.octets = octets
        zero = bytes(PAGE_BYTES)
        self.pages = [zero] * (len(octets) // PAGE_BYTES)
        self.mirror = np.zeros(len(octets), np.uint8)  # what `pages` hold

    def changed(self) -> Iterator[int]:
        """The pages that are not what `pages` hold."""
        words = self.octets.view(np.uint64).reshape(-1, PAGE_BYTES // 8)
        kept = self.mirror.view(np.uint64).reshape(-1, PAGE_BYTES // 8)
        for first in range(0, len(words), BATCH):
            differs = (words[first : first + BATCH] != kept[first : first + BATCH]).any(axis=1)
            yield from (np.nonzero(differs)[0] + first).tolist()

    def take(self) -> list[bytes]:
        """The array as it is, a page each."""
        for page in self.changed():
            octets = self.octets[page * PAGE_BYTES : (page + 1) * PAGE_BYTES]
            self.mirror[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = octets
            self.pages[page] = octets.tobytes()
        return list(self.pages)

    def put_back(self, pages: list[bytes]) -> None:
        """Make the array what it was when `pages` were taken."""
        others = [page for page, (old, new) in enumerate(zip(self.pages, pages, strict=True)) if old is not new]
        for page in {*self.changed(), *others}:
            octets = np.frombuffer(pages[page], np.uint8)
            self.octets[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = octets
            self.mirror[page * PAGE_BYTES : (page + 1) * PAGE_BYTES] = octets
        self.pages = list(pages)
