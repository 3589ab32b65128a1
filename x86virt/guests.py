"""The guests that are shipped: found by name through the manifest, or an image of the user's own by its path."""

import functools
import json
import os
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from .errors import GuestError, ImageError, UnsupportedError, near_matches
from .start.boot import Bootable
from .start.recognise import NO_OPTIONS, Opened, StartOptions, open_start

if TYPE_CHECKING:
    from .vmm.strategy import Strategy

PARAVIRTUAL = "paravirtual"  # what Strategy.processor says of a VMM whose guests are ported to it
NOT_PORTED = "is about what only ring 0 has, so that there is no build of it for a paravirtual VMM"
PACKAGE = pathlib.Path(__file__).resolve().parent


@dataclass(frozen=True)
class Port:
    """The build of a guest for Xen's paravirtual interface, and the size of the port: of `lines` of code, so many changed.

    Both builds must agree on the dwords at the symbols of `results`, and on the console but for what the patterns of
    `own_lines` match. The regions `left_out` are those that it never reaches.
    """

    path: pathlib.Path
    changed_lines: int
    lines: int
    results: tuple[str, ...]
    own_lines: tuple[str, ...]
    left_out: tuple[int, ...]
    sha256: str


@dataclass(frozen=True)
class Guest:
    """A shipped guest: its image, what one iteration of each measured region is, and its default iterations."""

    name: str
    path: pathlib.Path
    regions: tuple[str, ...]
    default_iterations: int
    sha256: str
    port: Port | None = None
    disk_sectors: int = 0  # of the empty disk that it gets unless there is another


def benchmarks_folder() -> pathlib.Path:
    """The folder `benchmarks/`, inside the installed package or beside it in a checkout."""
    inside = PACKAGE / "benchmarks"
    return inside if inside.is_dir() else PACKAGE.parent / "benchmarks"


def images_folder() -> pathlib.Path:
    """Where the images of the shipped guests are, and the manifest that describes them."""
    return benchmarks_folder() / "guests" / "images"


@functools.cache
def manifest() -> dict[str, Any]:
    """The manifest of the shipped guests."""
    found: dict[str, Any] = json.loads((images_folder() / "manifest.json").read_text(encoding="utf-8"))
    return found


@functools.cache
def guests() -> dict[str, Guest]:
    """All shipped guests by name, from `benchmarks/guests/images/manifest.json`."""
    return {
        name: Guest(
            name, images_folder() / entry["image"], tuple(entry["regions"]), entry["default_iterations"], entry["sha256"],
            port_of(entry), entry.get("disk_sectors", 0),
        )
        for name, entry in sorted(manifest()["guests"].items())
    }  # fmt: skip


def port_of(entry: Mapping[str, Any]) -> Port | None:
    """The ported build of a guest, from its entry in the manifest."""
    port = entry.get("port")
    if port is None:
        return None
    return Port(
        images_folder() / port["image"], port["changed_lines"], port["lines"], tuple(port["results"]),
        tuple(port["own_lines"]), tuple(port["left_out"]), port["sha256"],
    )  # fmt: skip


def port_sizes() -> list[tuple[str, int, int]]:
    """Of the kernel library and of each ported guest: name, lines of code that the port changes or adds, all of its lines."""
    library = manifest()["library_port"]
    ported = [(guest.name, guest.port.changed_lines, guest.port.lines) for guest in guests().values() if guest.port]
    return [("the kernel library", library["changed_lines"], library["lines"]), *ported]


def build_for(strategy: "Strategy | type[Strategy]", image: Bootable) -> Bootable:
    """The build of a guest that suits a strategy: where its guests are ported to it, the ported one.

    What is no shipped guest's native image stays as it is. Raises UnsupportedError for a guest that has no ported build.
    """
    guest = next((guest for guest in guests().values() if guest.sha256 == image.sha256), None)
    if strategy.processor != PARAVIRTUAL or guest is None:
        return image
    if guest.port is None:
        raise UnsupportedError(f"strategy {strategy.name}", f"guest {guest.name} {NOT_PORTED}", "run it under another strategy")
    return replace(open_start(guest.port.path).bootable, name=image.name)  # type: ignore[type-var]


def scratch_sectors(image: Bootable) -> int:
    """The size of the empty disk that a shipped guest wants, 0 for others; it may be the native or the ported build."""
    for guest in guests().values():
        if image.sha256 == guest.sha256 or (guest.port is not None and image.sha256 == guest.port.sha256):
            return guest.disk_sectors
    return 0


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
