"""The command line as a user meets it: exit statuses, streams, JSON, and one clear line for every bad input."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from command_line import assert_refused, kernel

from x86virt.guests import guests
from x86virt.profile import FOLDER as PROFILES

HELLO = guests()["hello"].path
MODES = {"guest_user", "guest_kernel", "vmm", "idle", "domain_0"}


# -- results ----------------------------------------------------------------------------------------------------------


def test_run_prints_the_guests_text_and_what_it_took(x86virt: Any) -> None:
    answer = x86virt("run", "hello")
    assert answer.status == 0
    assert answer.out.startswith("Hello from ring 0, paging on.\nhello: passed\n")
    assert "guest instructions" in answer.out and "sys.out_port_lpc" in answer.out
    assert "Hello" not in answer.err, "results go to stdout, progress to stderr"
    assert "\x1b" not in answer.out, "no colours where there is no terminal"


@pytest.mark.parametrize("strategy", ["native", "trap-and-emulate"])
def test_run_json_holds_the_whole_ledger(x86virt: Any, strategy: str) -> None:
    answer = x86virt("run", "syscall", "-s", strategy, "-c", "iterations=5", "--json", "-")
    assert answer.status == 0
    run = answer.json()
    assert run["schema_version"] == 1
    assert (run["guest"], run["strategy"], run["profile"]) == ("syscall", strategy, "p4_prescott")
    assert (run["outcome"], run["exit_code"]) == ("halted", 0)
    assert "syscall: passed" in run["console"]
    cells = [cell for modes in run["events"].values() for cell in modes.values()]
    assert set().union(*run["events"].values()) <= MODES
    assert sum(cell["cycles"] for cell in cells) == run["cycles"], "every cycle is in exactly one cell"
    assert [(region["number"], region["iterations"]) for region in run["regions"]] == [(0, 5), (1, 5)]
    assert run["instructions"] > 1000
    assert bool(run["exits"]) == (strategy != "native")


def test_run_under_several_strategies_gives_a_list(x86virt: Any) -> None:
    answer = x86virt("run", "hello", "-s", "all", "--json", "-")
    assert answer.status == 0
    runs = answer.json()["runs"]
    assert [run["strategy"] for run in runs][:1] == ["native"]
    there = [run for run in runs if not run["outcome"].startswith("unsupported: p4_prescott has no ")]
    assert {run["strategy"] for run in runs} - {run["strategy"] for run in there} == {"vtx-ept", "svm-npt", "svm-shadow"}
    assert {run["console"].replace("ring 1", "ring 0") for run in there} == {runs[0]["console"]}
    as_it_is = [run for run in there if run["strategy"] != "paravirtual"]
    assert {run["instructions"] for run in as_it_is} == {runs[0]["instructions"]} and len(as_it_is) == len(there) - 1


def test_what_is_unsupported_is_said_without_blaming_the_guest(x86virt: Any) -> None:
    answer = x86virt("run", "hello", "-s", "vtx-ept", "--json", "-")
    assert (answer.status, answer.err) == (5, answer.json()["outcome"] + "\n")
    assert answer.err.startswith("unsupported: p4_prescott has no nested paging") and "did not end well" not in answer.err


def test_json_goes_to_a_file(x86virt: Any, tmp_path: Path) -> None:
    target = tmp_path / "run.json"
    answer = x86virt("run", "hello", "--json", str(target))
    assert (answer.status, answer.out) == (0, "")
    assert json.loads(target.read_text(encoding="utf-8"))["outcome"] == "halted"


def test_the_same_run_gives_the_same_bytes(x86virt: Any) -> None:
    arguments = ("run", "pgfault", "-c", "iterations=20", "--json", "-")
    assert x86virt(*arguments).out == x86virt(*arguments).out


def test_options_reach_the_machine(x86virt: Any) -> None:
    base = x86virt("run", "portio", "-c", "iterations=2", "--json", "-").json()
    other = x86virt("run", "portio", "-c", "iterations=2", "-p", "nehalem", "--json", "-").json()
    assert other["profile"] == "nehalem" and other["cycles"] != base["cycles"]
    assert other["instructions"] == base["instructions"]
    cached = x86virt("run", "mix", "-c", "iterations=1", "--cache-model", "all", "--json", "-").json()
    assert cached["cache_model"] == "all" and "data.reference_memory" in cached["events"]
    assert x86virt("run", "hello", "--memory", "2G").status == 0


def test_compare_says_that_the_states_are_the_same(x86virt: Any) -> None:
    answer = x86virt("compare", "syscall", "-c", "iterations=3", "--json", "-")
    assert answer.status == 0
    comparison = answer.json()
    assert comparison["equal"] is True
    there = [run["strategy"] for run in comparison["runs"] if not run["outcome"].startswith("unsupported")]
    assert there == ["native", "binary-translation", "paravirtual", "trap-and-emulate", "vtx-shadow"]
    assert comparison["differences"]["trap-and-emulate"]["checkpoints"] > 0
    assert "the same as native" in x86virt("compare", "hello").out


def test_compare_has_status_1_where_the_technique_shows_through(x86virt: Any) -> None:
    """`stealth` reads what trap-and-emulate cannot hide: the sensitive unprivileged instructions of x86."""
    answer = x86virt("compare", "stealth", "-s", "trap-and-emulate", "--json", "-")
    assert answer.status == 1
    comparison = answer.json()
    assert comparison["equal"] is False
    assert comparison["differences"]["trap-and-emulate"]["divergences"]


REFUSING = """
from x86virt import Strategy
from x86virt.vmm import Unsupported


class Refusing(Strategy):
    name = "refusing"
    kernel_ring = 1
    needs_vmm = True

    def on_exit(self, vm, exit):
        raise Unsupported("nothing is served here")
"""


def test_a_guest_that_the_one_strategy_cannot_run_has_status_5(x86virt: Any, tmp_path: Path) -> None:
    """A technique that meets what it does not virtualize says so."""
    (tmp_path / "refusing.py").write_text(REFUSING)
    for command in ("run", "compare"):
        answer = x86virt(command, "hello", "-s", f"{tmp_path / 'refusing.py'}:Refusing")
        assert answer.status == 5, answer.err
        assert "nothing is served here" in answer.out


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("guests", "syscall"),
        ("strategies", "trap-and-emulate"),
        ("profiles", "p4_prescott"),
        ("suites", "speed"),
        ("events", "sys.iret_cpl0_to_cpl3"),
    ],
)
def test_list(x86virt: Any, what: str, name: str) -> None:
    assert name in x86virt("list", what).out
    rows = x86virt("list", what, "--json", "-").json()[what]
    assert name in [next(iter(row.values())) for row in rows]


def test_version_and_help(x86virt: Any) -> None:
    assert x86virt("--version").out.startswith("x86virt, version ")
    for command in ([], ["run"], ["bench"], ["compare"], ["list"]):
        assert "Usage: x86virt" in x86virt(*command, "--help").out


# -- how a guest can end ----------------------------------------------------------------------------------------------


def test_a_guest_that_never_ends_spends_its_budget(x86virt: Any, tmp_path: Path) -> None:
    answer = x86virt("run", kernel(tmp_path / "loop.elf", b"\xeb\xfe"), "--max-cycles", "100000")
    assert answer.status == 4
    assert "--max-cycles" in answer.err and "budget" in answer.out


def test_the_budget_is_on_by_default() -> None:
    from x86virt.api import DEFAULT_MAX_CYCLES, Setup

    assert Setup.__dataclass_fields__["max_cycles"].default == DEFAULT_MAX_CYCLES < 1 << 40


def test_a_triple_fault(x86virt: Any, tmp_path: Path) -> None:
    answer = x86virt("run", kernel(tmp_path / "fault.elf", b"\x0f\x0b"))
    assert answer.status == 3
    assert "triple_fault" in answer.out and len(answer.err.strip().splitlines()) == 1


def test_a_failed_self_check(x86virt: Any, tmp_path: Path) -> None:
    leave_with_7 = b"\xb0\x07\xe6\xf4\xfa\xf4\xeb\xfd"
    answer = x86virt("run", kernel(tmp_path / "seven.elf", leave_with_7), "--max-cycles", "1000000", "--json", "-")
    assert answer.status == 3
    assert answer.json()["exit_code"] == 7


@pytest.mark.parametrize("strategy", ["native", "trap-and-emulate"])
@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_as_a_kernel_end_in_a_named_outcome(
    x86virt: Any, tmp_path: Path, strategy: str, seed: int
) -> None:
    code = random.Random(seed).randbytes(4000)
    path = kernel(tmp_path / "noise.elf", code)
    answer = x86virt("run", path, "-s", strategy, "--max-cycles", "2000000", "--json", "-")
    assert answer.status in (0, 3, 4, 5), answer.err
    assert "Traceback" not in answer.err


# -- bad input --------------------------------------------------------------------------------------------------------


def test_bad_images(x86virt: Any, tmp_path: Path) -> None:
    content = HELLO.read_bytes()
    images = {
        "missing": (None, "no such file"),
        "empty": (b"", "empty"),
        "truncated": (content[: len(content) // 2], "truncated"),
        "stub": (content[:20], "truncated"),
        "wide": (content[:4] + b"\x02" + content[5:], "not a 32-bit ELF"),
        "text": (b"hello, world\n" * 99, "of no known kind"),
        "random": (random.Random(1).randbytes(5000), "of no known kind"),
    }
    for name, (octets, words) in images.items():
        path = tmp_path / f"{name}.elf"
        if octets is not None:
            path.write_bytes(octets)
        for command in ("run", "compare"):
            assert_refused(x86virt(command, str(path)), name, words)
    assert_refused(x86virt("run", str(tmp_path)), "not a regular file")


def test_a_segment_outside_of_ram(x86virt: Any, tmp_path: Path) -> None:
    path = kernel(tmp_path / "high.elf", b"\xf4", address=0x3F000000)
    for strategy in ("native", "trap-and-emulate"):
        assert_refused(x86virt("run", path, "-s", strategy), "outside RAM", "--memory")


def test_unknown_names_come_with_near_matches(x86virt: Any) -> None:
    assert_refused(x86virt("run", "sycall"), "no such guest", "did you mean syscall")
    assert_refused(
        x86virt("run", "hello", "-s", "trap-and-emulat"), "no such strategy", "did you mean trap-and-emulate"
    )
    assert_refused(x86virt("run", "hello", "-p", "p4_prescot"), "no such profile", "did you mean p4_prescott")
    assert_refused(x86virt("bench", "sycall"), "no such suite", "did you mean syscall")
    assert_refused(x86virt("run", ""), "no such guest")
    assert_refused(x86virt("benhc"), "benhc", "--help")
    assert_refused(x86virt("list", "gests"), "guests")


def test_profiles_with_a_missing_unknown_or_unsourced_key(x86virt: Any, tmp_path: Path) -> None:
    shutil.copy(PROFILES / "p4_prescott.toml", tmp_path / "base.toml")
    text = (tmp_path / "base.toml").read_text(encoding="utf-8")
    start = text.index("[sys.sysenter]")
    end = text.index("\n[", start)
    missing = tmp_path / "missing.toml"
    missing.write_text(text[:start] + text[end:], encoding="utf-8")
    unknown = tmp_path / "unknown.toml"
    unknown.write_text('inherits = "p4_prescott"\n[sys.sysentr]\nvalue = 1\nevidence = "read"\nsource = "x"\n')
    unsourced = tmp_path / "unsourced.toml"
    unsourced.write_text('inherits = "p4_prescott"\n[sys.sysenter]\nvalue = 1\nevidence = "read"\n')
    assert_refused(x86virt("run", "hello", "-p", str(missing)), "missing key sys.sysenter")
    assert_refused(x86virt("run", "hello", "-p", str(unknown)), "unknown key", "did you mean sys.sysenter")
    assert_refused(x86virt("bench", "-p", str(unsourced)), "sys.sysenter", "source is missing")
    assert_refused(x86virt("run", "hello", "-p", str(tmp_path / "none.toml")), "no such file")


@pytest.mark.parametrize(
    "size", ["16", "1.5G", "0M", "3G", "512K", "lots", "-1M", "1025.K", "٣M", "99999999999999999G"]
)
def test_bad_memory_sizes(x86virt: Any, size: str) -> None:
    assert_refused(x86virt("run", "hello", f"--memory={size}"), "--memory")


def test_other_bad_options(x86virt: Any, tmp_path: Path) -> None:
    for arguments in (
        ["run"],
        ["run", "hello", "--max-cycles", "0"],
        ["run", "hello", "--max-cycles", "many"],
        ["run", "hello", "--cache-model", "some"],
        ["run", "hello", "--nonsense"],
        ["run", "hello", "--json", str(tmp_path / "no" / "such" / "folder.json")],
        ["run", "hello", "--json", str(tmp_path)],
        ["bench", "syscall", "--iterations", "0"],
        ["bench", "syscall", "--cold"],
        ["compare", "hello", "-s", "native"],
    ):
        assert_refused(x86virt(*arguments))


def test_a_users_own_strategy_that_is_wrong(x86virt: Any, tmp_path: Path) -> None:
    texts = {
        "syntax": ("class Mine(\n", "SyntaxError"),
        "import": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
        "raises": ("\n1 / 0\n", "line 2"),
        "nothing": ("x = 1\n", "not one strategy but 0"),
        "other": ("class Mine: pass\n", "not one strategy"),
    }
    for name, (text, words) in texts.items():
        path = tmp_path / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        assert_refused(x86virt("run", "hello", "-s", str(path)), name, words)
    assert_refused(x86virt("run", "hello", "-s", f"{tmp_path}/none.py:Mine"), "no such file")
    assert_refused(x86virt("run", "hello", "-s", f"{tmp_path}/other.py:Mine"), "not a strategy")
    assert_refused(x86virt("run", "hello", "-s", f"{tmp_path}/other.py:Your"), "no class Your")


def test_a_users_own_strategy(x86virt: Any, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    text = 'from x86virt import Strategy\n\n\nclass Mine(Strategy):\n    """The bare machine."""\n\n    name = "mine"\n'
    path.write_text(text, encoding="utf-8")
    native = x86virt("run", "hello", "--json", "-").json()
    for strategy in (f"{path}:Mine", str(path)):
        mine = x86virt("run", "hello", "-s", strategy, "--json", "-").json()
        assert mine["strategy"] == "mine"
        assert mine["events"] == native["events"]


# -- whole processes --------------------------------------------------------------------------------------------------


def process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "x86virt", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, **options)


def test_a_process_ends_with_the_status() -> None:
    assert process("--help").returncode == 0
    refused = process("run", "nobody")
    assert refused.returncode == 2 and refused.stdout == "" and "no such guest" in refused.stderr


def test_a_closed_pipe_is_no_error() -> None:
    command = [sys.executable, "-m", "x86virt", "list", "events"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None and running.stderr is not None
        running.stdout.close()
        assert running.stderr.read() == ""


def test_a_cache_folder_that_cannot_be_made_is_said_and_survived(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    environment = {**os.environ, "X86VIRT_CACHE": str(file / "cache"), "TMPDIR": str(tmp_path)}
    program = "import sys; from x86virt.host import prepare_cache; sys.stdout.write(prepare_cache())"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60, env=environment
    )
    assert "cannot be written" in done.stdout and "X86VIRT_CACHE" in done.stdout
