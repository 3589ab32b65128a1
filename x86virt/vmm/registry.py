"""Finding strategies: the built-in ones in `strategies/`, installed ones by entry point, and a user's own file.

A built-in module `trap_and_emulate.py` holds the strategy `trap-and-emulate`: one class whose `name` says so. Nothing
is imported before a strategy is asked for. Behind any of these, `,option=value` chooses what the strategy leaves open.
"""

import importlib
import importlib.metadata
import importlib.util
import itertools
import pathlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import StrategyError, near_matches, show
from .options import split_options, with_options

if TYPE_CHECKING:
    from . import Strategy

PACKAGE = pathlib.Path(__file__).resolve().parent.parent
ENTRY_POINTS = "x86virt.strategies"
FIRST = ("native",)  # listed before all others: what they are compared with
_number = itertools.count()


def strategies_folder() -> pathlib.Path:
    """The folder `strategies/`, inside the installed package or beside it in a checkout."""
    inside = PACKAGE / "strategies"
    return inside if inside.is_dir() else PACKAGE.parent / "strategies"


def strategy_names() -> list[str]:
    """The names of all built-in and installed strategies, `native` first."""
    names = {*_built_in(), *_installed()}
    return [*(name for name in FIRST if name in names), *sorted(names.difference(FIRST))]


def find_strategy(name_or_file: str) -> "type[Strategy]":
    """The strategy class of that name, or of `path/to/file.py:Class` (the class may be left out if there is one), with
    the options that stand behind it: `trap-and-emulate,shadow=trace`.

    Raises StrategyError for a name or file that is not there, and for anything wrong in a user's file.
    """
    strategy, chosen = split_options(name_or_file)
    return with_options(_find(strategy), chosen)


def _find(name_or_file: str) -> "type[Strategy]":
    path, separator, class_name = name_or_file.rpartition(":")
    if separator and path.endswith(".py"):
        return _from_file(path, class_name)
    if name_or_file.endswith(".py"):
        return _from_file(name_or_file, "")
    built_in, installed = _built_in(), _installed()
    if name_or_file in built_in:
        return _only_strategy(_import_built_in(built_in[name_or_file]), name_or_file, "")
    if name_or_file in installed:
        return _from_entry_point(installed[name_or_file])
    names = strategy_names()
    first, comma, rest = name_or_file.partition(",")
    if comma and first in names:
        raise StrategyError(f"strategy {first}", f"{show(rest)} chooses nothing", f"write {first},option=value")
    advice = f"use one of {', '.join(names)}, or path/to/file.py:Class{near_matches(name_or_file, names)}"
    raise StrategyError(f"strategy {show(name_or_file)}", "no such strategy", advice)


def _built_in() -> dict[str, pathlib.Path]:
    files = strategies_folder().glob("[a-z]*.py")
    return {path.stem.replace("_", "-"): path for path in files}


def _installed() -> dict[str, importlib.metadata.EntryPoint]:
    return {entry.name: entry for entry in importlib.metadata.entry_points(group=ENTRY_POINTS)}


def _import_built_in(path: pathlib.Path) -> ModuleType:
    name = f"x86virt.strategies.{path.stem}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != "x86virt.strategies":
            raise
    return _import_file(path, name)  # a checkout that is not installed


def _import_file(path: pathlib.Path, name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None, "a .py file has a loader"
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _from_file(path: str, class_name: str) -> "type[Strategy]":
    if not pathlib.Path(path).is_file():
        raise StrategyError(path, "no such file", "give path/to/file.py:Class")
    try:
        module = _import_file(pathlib.Path(path).resolve(), f"x86virt_user_strategy_{next(_number)}")
    except Exception as error:
        raise StrategyError(path, f"does not load ({_describe(error)})", "correct the file") from error
    return _only_strategy(module, path, class_name)


def _describe(error: Exception) -> str:
    """An exception in one line, with the line of the user's file that it came from."""
    line = getattr(error, "lineno", None)
    trace = error.__traceback__
    while line is None and trace is not None:
        if trace.tb_next is None:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{type(error).__name__}: {show(error)}" + (f", line {line}" if line else "")


def _from_entry_point(entry: importlib.metadata.EntryPoint) -> "type[Strategy]":
    try:
        found = entry.load()
    except Exception as error:
        what = f"the installed package does not load ({_describe(error)})"
        raise StrategyError(f"strategy {entry.name}", what, "repair or remove the package") from error
    return _check(found, f"strategy {entry.name}", entry.value)


def _strategies_of(module: ModuleType) -> "dict[str, type[Strategy]]":
    from . import Strategy

    own = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    return {
        name: value
        for name, value in own.items()
        if isinstance(value, type) and issubclass(value, Strategy) and value.__module__ == module.__name__
    }


def _only_strategy(module: ModuleType, where: str, class_name: str) -> "type[Strategy]":
    """The class of that name in a module, or the only strategy there."""
    found = _strategies_of(module)
    if class_name:
        if not hasattr(module, class_name):
            names = ", ".join(found) or "none"
            hint = near_matches(class_name, found)
            raise StrategyError(where, f"no class {show(class_name)}", f"its strategies are: {names}{hint}")
        return _check(getattr(module, class_name), where, class_name)
    if len(found) != 1:
        names = ", ".join(found) or "none"
        advice = f"derive one class from x86virt.Strategy, or name it as in {where}:Class"
        raise StrategyError(where, f"not one strategy but {len(found)} ({names})", advice)
    return next(iter(found.values()))


def _check(found: Any, where: str, class_name: str) -> "type[Strategy]":
    from . import Strategy

    if not (isinstance(found, type) and issubclass(found, Strategy)):
        raise StrategyError(where, f"{show(class_name)} is not a strategy", "derive it from x86virt.Strategy")
    return found
