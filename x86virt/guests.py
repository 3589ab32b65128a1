"""The guests that are shipped: found by name through the manifest, or an image of the user's own by its path."""

import functools
import json
import os
import pathlib
from dataclasses import dataclass

from .errors import GuestError, ImageError, near_matches
from .start.boot import Bootable
from .start.recognise import NO_OPTIONS, Opened, StartOptions, open_start

PACKAGE = pathlib.Path(__file__).resolve().parent


@dataclass(frozen=True)
class Guest:
    """A shipped guest: its image, what one iteration of each measured region is, and its default iterations."""

    name: str
    path: pathlib.Path
    regions: tuple[str, ...]
    default_iterations: int
    sha256: str


def benchmarks_folder() -> pathlib.Path:
    """The folder `benchmarks/`, inside the installed package or beside it in a checkout."""
    inside = PACKAGE / "benchmarks"
    return inside if inside.is_dir() else PACKAGE.parent / "benchmarks"


@functools.cache
def guests() -> dict[str, Guest]:
    """All shipped guests by name, from `benchmarks/guests/images/manifest.json`."""
    images = benchmarks_folder() / "guests" / "images"
    manifest = json.loads((images / "manifest.json").read_text(encoding="utf-8"))
    return {
        name: Guest(
            name, images / entry["image"], tuple(entry["regions"]), entry["default_iterations"], entry["sha256"]
        )
        for name, entry in sorted(manifest["guests"].items())
    }


def find_guest(name_or_path: str | os.PathLike[str]) -> Bootable:
    """The image of a shipped guest, or what the file at that path is. Raises GuestError or ImageError.

    A name without a slash or a dot is a guest's; a file of that name in the current folder is given as `./name`.
    """
    opened = open_guest(name_or_path)
    if opened.disk is not None:
        raise ImageError(name_or_path, "a boot disk, where a kernel is wanted", "start it by `x86virt run`")
    return opened.bootable


def open_guest(name_or_path: str | os.PathLike[str] | None, options: StartOptions = NO_OPTIONS) -> Opened:
    """The same with what a user says of the start; a boot disk starts by firmware, and nothing is the firmware alone.

    Raises GuestError or ImageError.
    """
    if name_or_path is None:
        return open_start(None, options)
    text = os.fspath(name_or_path)
    known = guests()
    if text in known:
        return open_start(known[text].path, options)
    looks_like_path = isinstance(name_or_path, os.PathLike) or os.sep in text or "/" in text or "." in text
    if looks_like_path or os.path.isfile(text):
        return open_start(name_or_path, options)
    advice = f"use one of {', '.join(known)}, or the path of an image{near_matches(text, known)}"
    raise GuestError(f"guest {text!r}" if not text else f"guest {text}", "no such guest", advice)
