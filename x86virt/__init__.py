"""x86virt: an x86 machine simulated cycle by cycle, whose hypervisor is a plug-in.

The names below are the public interface; each is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import bench, compare, make_setup, run, validate
    from .console.conversation import Conversation
    from .discipline import tlb_discipline
    from .errors import GuestError, ImageError, StrategyError, UnsupportedError, UserError
    from .guests import find_guest
    from .ledger import Ledger
    from .machine import Machine, Region, RunResult
    from .profile import Profile, ProfileError, load_profile
    from .saved import restore_machine, save_machine
    from .start.multiboot import Image, load_image
    from .start.recognise import StartOptions
    from .vmm import Strategy
    from .vmm.registry import find_strategy, strategy_names

_HOME = {
    "run": "api",
    "bench": "api",
    "compare": "api",
    "validate": "api",
    "make_setup": "api",
    "Conversation": "console.conversation",
    "StartOptions": "start.recognise",
    "Machine": "machine",
    "Region": "machine",
    "RunResult": "machine",
    "Strategy": "vmm",
    "find_strategy": "vmm.registry",
    "strategy_names": "vmm.registry",
    "Profile": "profile",
    "ProfileError": "profile",
    "load_profile": "profile",
    "Image": "start.multiboot",
    "load_image": "start.multiboot",
    "find_guest": "guests",
    "Ledger": "ledger",
    "restore_machine": "saved",
    "save_machine": "saved",
    "tlb_discipline": "discipline",
    "UserError": "errors",
    "ImageError": "errors",
    "GuestError": "errors",
    "StrategyError": "errors",
    "UnsupportedError": "errors",
}

__all__ = [
    "run",
    "bench",
    "compare",
    "validate",
    "make_setup",
    "Conversation",
    "StartOptions",
    "Machine",
    "Region",
    "RunResult",
    "Strategy",
    "find_strategy",
    "strategy_names",
    "Profile",
    "ProfileError",
    "load_profile",
    "Image",
    "load_image",
    "find_guest",
    "Ledger",
    "restore_machine",
    "save_machine",
    "tlb_discipline",
    "UserError",
    "ImageError",
    "GuestError",
    "StrategyError",
    "UnsupportedError",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """The public names, whether imported yet or not."""
    return sorted({*globals(), *__all__})
