"""The host, seen from the command line: where compiled code is kept, whether it is there, and the machine's name."""

import os
import pathlib
import platform
import tempfile

COMPILED = "run.*.run-*.nbi"  # Numba's index file of the loop
NOTICE = "compiling the simulated hardware: once, about a minute; later runs start at once"


def cache_root() -> pathlib.Path:
    """Where compiled code is to be kept; core/jit.py follows the same rule."""
    named = os.environ.get("X86VIRT_CACHE")
    if named is not None:
        return pathlib.Path(named)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return pathlib.Path(home) / "x86virt"


def prepare_cache() -> str:
    """Choose a folder for compiled code that can be written: a line to show if something is to be said, else ``.

    Must come before anything of the core is imported. Sets `X86VIRT_CACHE` if the usual folder cannot be used.
    """
    complaint = _ensure_writable(cache_root())
    from .core import jit

    if jit.JIT_DISABLED:
        return ""
    if complaint:
        return f"{complaint}; {NOTICE}"
    folder = pathlib.Path(os.environ.get("NUMBA_CACHE_DIR", ""))
    return "" if any(folder.rglob(COMPILED)) else NOTICE


def _ensure_writable(folder: pathlib.Path) -> str:
    """Use a temporary folder if this one cannot be written, and say so."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        os.environ["X86VIRT_CACHE"] = tempfile.mkdtemp(prefix="x86virt-")
        reason = error.strerror or type(error).__name__
        return f"{folder} cannot be written ({reason}): set X86VIRT_CACHE to a folder that can"


def machine_name() -> str:
    """The host: processor model, logical processors, Python."""
    return f"{_processor_model()}, {os.cpu_count()} logical processors, Python {platform.python_version()}"


def _processor_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine() or "unknown processor"
