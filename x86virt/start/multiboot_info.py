"""The information structure that a Multiboot kernel finds at EBX (Multiboot Specification, section 3.3)."""

import struct
from collections.abc import Sequence

from .boot import HIGH_START, LOW_END

INFO_MEMORY = 1 << 0
INFO_COMMAND_LINE = 1 << 2
INFO_MODULES = 1 << 3
INFO_MEMORY_MAP = 1 << 6
INFO_LOADER_NAME = 1 << 9
INFO_BYTES = 116
MODULE_BYTES = 16
LOADER_NAME = b"x86virt\0"
RAM_AVAILABLE, RAM_RESERVED = 1, 2


def information_bytes(memory_bytes: int, line: bytes, texts: Sequence[bytes]) -> int:
    """How long the structure is with all that it points to."""
    fixed = INFO_BYTES + len(_memory_map(memory_bytes)) + len(line) + len(LOADER_NAME)
    return fixed + sum(MODULE_BYTES + len(text) for text in texts)


def information(
    address: int, memory_bytes: int, line: bytes, modules: Sequence[tuple[int, int]] = (), texts: Sequence[bytes] = ()
) -> bytes:
    """The structure at `address`, followed by what it points to: memory map, command line, loader's name, modules."""
    memory_map = _memory_map(memory_bytes)
    map_at = address + INFO_BYTES
    line_at = map_at + len(memory_map)
    name_at = line_at + len(line)
    modules_at = name_at + len(LOADER_NAME)
    fields = {
        0: INFO_MEMORY | INFO_COMMAND_LINE | INFO_MEMORY_MAP | INFO_LOADER_NAME,
        4: LOW_END >> 10,
        8: max(memory_bytes - HIGH_START, 0) >> 10,
        16: line_at,
        44: len(memory_map),
        48: map_at,
        64: name_at,
    }
    if modules:
        fields |= {0: fields[0] | INFO_MODULES, 20: len(modules), 24: modules_at}
    info = bytearray(INFO_BYTES)
    for offset, value in fields.items():
        struct.pack_into("<I", info, offset, value)
    return bytes(info) + memory_map + line + LOADER_NAME + _module_list(modules_at, modules, texts)


def _module_list(address: int, modules: Sequence[tuple[int, int]], texts: Sequence[bytes]) -> bytes:
    """The modules' entries (start, end, string, zero) and their strings."""
    text_at = address + MODULE_BYTES * len(modules)
    entries = b""
    for (start, end), text in zip(modules, texts, strict=True):
        entries += struct.pack("<4I", start, end, text_at, 0)
        text_at += len(text)
    return entries + b"".join(texts)


def _memory_map(memory_bytes: int) -> bytes:
    """The memory map: conventional memory, the reserved range below 1 MB, and the rest."""
    pieces = [(0, LOW_END, RAM_AVAILABLE), (LOW_END, HIGH_START - LOW_END, RAM_RESERVED)]
    if memory_bytes > HIGH_START:
        pieces.append((HIGH_START, memory_bytes - HIGH_START, RAM_AVAILABLE))
    return b"".join(struct.pack("<IQQI", 20, start, length, kind) for start, length, kind in pieces)
