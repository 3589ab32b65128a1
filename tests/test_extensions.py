"""The virtual-machine extensions are compiled late: a guest that does not use them must not cause it (core/extensions.py)."""

import subprocess
import sys

RUN = """
import sys
from x86virt.cli import main
try:
    main(["run", "{guest}", "--profile", "{profile}"])
except SystemExit as end:
    assert not end.code, end.code
print("loaded:", "x86virt.core.extensions_entry" in sys.modules)
"""


def loads_extensions(guest: str, profile: str) -> bool:
    """Whether the run of a guest, in a process of its own, imported what is compiled late."""
    program = RUN.format(guest=guest, profile=profile)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1] == "loaded: True"


def test_a_guest_without_extensions_does_not_load_them() -> None:
    assert not loads_extensions("hello", "nehalem")


def test_a_hypervisor_does() -> None:
    assert loads_extensions("hypervisor", "nehalem")
