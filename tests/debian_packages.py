"""Files of Debian packages, fetched by the packages' names when a test wants them; nothing of theirs is kept here.

A package that is installed is used where it is. Any other is fetched by `apt-get download` and unpacked into a cache of
ours (`X86VIRT_IMAGES`, else a folder beside the compiler's cache). Packages of another architecture come through an
apt state of our own, so that the system's is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

FOREIGN = "i386"
REQUIRED = os.environ.get("X86VIRT_PACKAGES") == "required"  # continuous integration: what is missing fails
TIMEOUT = 300


class Missing(Exception):
    """A package cannot be had here; the text says why."""


def cache() -> Path:
    """The folder that fetched packages are unpacked in."""
    given = os.environ.get("X86VIRT_IMAGES")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = Path(given) if given else base / "x86virt-images"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def installed(package: str) -> bool:
    """Whether the system has a package."""
    query = ["dpkg-query", "--show", "--showformat=${db:Status-Abbrev}", package]
    if shutil.which(query[0]) is None:
        return False
    return subprocess.run(query, capture_output=True, text=True, check=False).stdout.startswith("ii")


def file_of(package: str, pattern: str, foreign: bool = False) -> Path:
    """The file of a package that matches a pattern such as `boot/vmlinuz-*`, the last if there are several.

    `foreign`: the package for i386 rather than the host's. Raises Missing.
    """
    root = Path("/") if not foreign and installed(package) else unpacked(package, foreign)
    found = sorted(root.glob(pattern))
    if not found:
        raise Missing(f"the package {package} holds no {pattern}")
    return found[-1]


def unpacked(package: str, foreign: bool) -> Path:
    """The folder with a package's files, fetched if it is not there yet. Raises Missing."""
    folder = cache() / (f"{package}-{FOREIGN}" if foreign else package)
    if folder.is_dir():
        return folder
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise Missing(f"the package {package} is not there, and without {tool} it cannot be fetched")
    options = foreign_state() if foreign else []
    partial = cache() / f"{package}.{os.getpid()}"
    partial.mkdir()
    try:
        run(package, ["apt-get", *options, "download", "-q", package], partial)
        run(package, ["dpkg-deb", "-x", str(next(partial.glob("*.deb"))), "files"], partial)
        shutil.rmtree(folder, ignore_errors=True)
        (partial / "files").rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def run(package: str, command: list[str], folder: Path) -> str:
    """A command's output. Raises Missing with what it said last."""
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise Missing(f"the package {package} could not be fetched within {TIMEOUT} seconds") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if not line.startswith("W:")] or ["no reason given"]
        raise Missing(f"the package {package} could not be fetched ({lines[-1]})")
    return done.stdout


def foreign_state() -> list[str]:
    """Options that give apt a state of its own for the foreign architecture, brought up to date once."""
    state = cache() / f"apt-{FOREIGN}"
    options = []
    for name, value in (
        ("Dir::State", state),
        ("Dir::State::status", state / "status"),
        ("Dir::Cache", state / "cache"),
        ("APT::Architecture", FOREIGN),
        ("APT::Architectures", FOREIGN),
        ("APT::Sandbox::User", "root"),
    ):
        options += ["-o", f"{name}={value}"]
    if not (state / "current").exists():
        (state / "lists" / "partial").mkdir(parents=True, exist_ok=True)
        (state / "cache" / "archives" / "partial").mkdir(parents=True, exist_ok=True)
        (state / "status").touch()
        # One repository of several that fails must not hide the others: whether the package is there shows later.
        subprocess.run(["apt-get", *options, "update", "-q"], capture_output=True, timeout=TIMEOUT, check=False)
        (state / "current").touch()
    return options


def dependency(package: str, beginning: str, foreign: bool = False) -> str:
    """The package that another, an empty one, depends on, by the beginning of its name. Raises Missing."""
    options = foreign_state() if foreign else []
    for line in run(package, ["apt-cache", *options, "depends", package], cache()).splitlines():
        kind, _, name = line.strip().partition(": ")
        if kind == "Depends" and name.startswith(beginning):
            return name
    raise Missing(f"the package {package} depends on no {beginning}*")
