"""The package: everything that is shipped is listed, public names exist, and the command line starts light."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import x86virt

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
TOOL = PROJECT["tool"]["setuptools"]


def folder_of(package: str) -> Path:
    """Where a package's files are in the checkout, by the mapping of pyproject.toml."""
    for name, folder in TOOL["package-dir"].items():
        if package == name or package.startswith(name + "."):
            return ROOT.joinpath(folder, *package[len(name) + 1 :].split("."))
    return ROOT.joinpath(*package.split("."))


def test_every_folder_with_python_files_is_a_listed_package() -> None:
    listed = {folder_of(package) for package in TOOL["packages"]}
    found = {
        path.parent
        for top in ("x86virt", "strategies", "benchmarks")
        for path in (ROOT / top).rglob("*.py")
        if "__pycache__" not in path.parts
    }
    assert found == listed


def test_every_image_profile_and_table_is_package_data() -> None:
    shipped = {
        path
        for package, patterns in TOOL["package-data"].items()
        for pattern in patterns
        for path in folder_of(package).glob(pattern)
    }
    for folder, pattern in (
        ("benchmarks/guests/images", "*"),
        ("benchmarks/guests", "**/*.asm"),
        ("benchmarks/guests", "**/*.inc"),
        ("benchmarks/reference", "*.csv"),
        ("x86virt/profiles", "*.toml"),
        ("x86virt/firmware", "*.asm"),
        ("x86virt/firmware", "*.inc"),
        ("x86virt/firmware", "bios.bin"),
    ):
        files = {path for path in (ROOT / folder).glob(pattern) if path.is_file()}
        assert files, f"{folder}/{pattern} is empty"
        assert files <= shipped, f"not shipped: {sorted(files - shipped)}"


def test_every_public_name_exists() -> None:
    for name in x86virt.__all__:
        assert getattr(x86virt, name) is not None
    assert sorted(x86virt.__all__) == sorted(x86virt._HOME)


def test_help_imports_neither_numba_nor_numpy() -> None:
    program = (
        "import sys, x86virt.cli as cli; status = cli.main(['--help']); "
        "sys.exit(status or any(name in sys.modules for name in ('numba', 'numpy', 'elftools', 'capstone')))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def imported_by(path: Path, package: str) -> set[str]:
    """The modules that a file imports, by full name."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            names.add(".".join([*parts, *([node.module] if node.module else [])]))
    return names


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "x86virt"}


def test_import_rules() -> None:
    """`isa` imports nothing of ours, `core` only `isa`, `strategies` only public packages; one module imports Numba."""
    for package, allowed in (
        ("x86virt.isa", ("x86virt.isa",)),
        ("x86virt.isa.table", ("x86virt.isa",)),
        ("x86virt.core", ("x86virt.isa", "x86virt.core")),
    ):
        for path in folder_of(package).glob("*.py"):
            for name in ours(imported_by(path, package)):
                assert name.startswith(allowed), f"{path} imports {name}"
    for path in folder_of("x86virt.strategies").glob("*.py"):
        for name in ours(imported_by(path, "x86virt.strategies")):
            assert name in ("x86virt", "x86virt.vmm"), f"{path} imports {name}"
    importers = {path.name for path in (ROOT / "x86virt").rglob("*.py") if "numba" in imported_by(path, "x86virt")}
    assert importers == {"jit.py"}


def test_numba_is_pinned_to_the_minor_version_that_the_core_reaches_into() -> None:
    assert "numba>=0.68,<0.69" in PROJECT["project"]["dependencies"]


def test_the_readme_shows_what_make_bench_prints() -> None:
    """Cycles are the same on every host, so that the README's table can be held to the figure."""
    assert (
        subprocess.run([sys.executable, str(ROOT / "benchmarks" / "readme.py"), "--check"], check=False).returncode == 0
    )
