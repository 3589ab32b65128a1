"""The guest images: manifest, the rules of the kernel library, expected results, and QEMU as a second opinion."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import capstone
import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

GUESTS = Path(__file__).resolve().parent.parent / "benchmarks" / "guests"
IMAGES = GUESTS / "images"
MANIFEST = json.loads((IMAGES / "manifest.json").read_text(encoding="utf-8"))
NAMES = sorted(MANIFEST["guests"])

ASSEMBLED = [name for name in NAMES if str(MANIFEST["guests"][name]["source"]).endswith(".asm")]  # others: test_unix.py

LOAD_ADDRESS = 1 << 20
SMALLEST_MEMORY = 8 << 20
PAGE = 4096
MULTIBOOT_MAGIC = 0x1BADB002
MULTIBOOT_SEARCH = 8192
REGION_BEGIN = "xchg bx, bx"
REGION_END = "xchg cx, cx"


def load_script(name: str) -> ModuleType:
    """Import one of the scripts beside the guests, which need not be on the import path."""
    spec = importlib.util.spec_from_file_location(f"guest_{name}", GUESTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


build = load_script("build")
lint = load_script("lint")


def image_of(name: str) -> Path:
    """The committed image of the guest ``name``."""
    return IMAGES / str(MANIFEST["guests"][name]["image"])


def all_images() -> list[Path]:
    """Every committed image of the guests, ported builds included."""
    return [IMAGES / build.image_name(name, half) for name in NAMES for half in build.halves_of(name)]


def symbols_of(name: str) -> dict[str, int]:
    """Symbol name -> value in the image of the guest ``name`` (macro-local labels left out)."""
    with image_of(name).open("rb") as stream:
        table = ELFFile(stream).get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols() if not symbol.name.startswith("..@")}


def test_manifest_and_folder_agree() -> None:
    assert set(IMAGES.glob("*.elf")) == {*all_images(), build.DOMAIN_0}
    assert set(MANIFEST["guests"]) == set(build.GUESTS)
    sources = {guest.source for guest in build.GUESTS.values()}
    assert {path.name for path in GUESTS.glob("*.asm")} == {source for source in sources if not build.is_in_c(source)}
    assert {path.parent.name for path in GUESTS.glob("*/kernel")} == {source for source in sources if build.is_in_c(source)}


@pytest.mark.parametrize("name", NAMES)
def test_manifest_entry_is_that_of_the_image(name: str) -> None:
    assert json.loads(json.dumps(build.manifest_entry(name, IMAGES))) == MANIFEST["guests"][name]
    assert hashlib.sha256(image_of(name).read_bytes()).hexdigest() == MANIFEST["guests"][name]["sha256"]


@pytest.mark.parametrize("name", NAMES)
def test_image_is_an_elf32_that_fits_below_8_mb(name: str) -> None:
    with image_of(name).open("rb") as stream:
        elf = ELFFile(stream)
        assert (elf.elfclass, elf.little_endian, elf["e_machine"], elf["e_type"]) == (32, True, "EM_386", "ET_EXEC")
        segments = [segment.header for segment in elf.iter_segments() if segment["p_type"] == "PT_LOAD"]
    assert all(segment["p_paddr"] == segment["p_vaddr"] for segment in segments)
    assert min(segment["p_paddr"] for segment in segments) == LOAD_ADDRESS
    assert max(segment["p_paddr"] + segment["p_memsz"] for segment in segments) <= SMALLEST_MEMORY
    entry = elf["e_entry"]
    assert any(
        segment["p_flags"] & 1 and segment["p_vaddr"] <= entry < segment["p_vaddr"] + segment["p_filesz"]
        for segment in segments
    )


@pytest.mark.parametrize("name", NAMES)
def test_image_has_a_multiboot_header(name: str) -> None:
    head = image_of(name).read_bytes()[:MULTIBOOT_SEARCH]
    words = [struct.unpack_from("<3I", head, offset) for offset in range(0, len(head) - 12, 4)]
    headers = [fields for fields in words if fields[0] == MULTIBOOT_MAGIC]
    assert len(headers) == 1
    assert sum(headers[0]) % 2**32 == 0
    assert headers[0][1] == 0


@pytest.mark.parametrize("name", ASSEMBLED)
def test_tables_and_stacks_share_no_page(name: str) -> None:
    """A VMM may write-protect pages of tables: nothing else may lie in them, and each table has a page of its own."""
    with image_of(name).open("rb") as stream:
        sections = {section.name: section.header for section in ELFFile(stream).iter_sections() if section["sh_addr"]}
    for own in (".tables", ".stacks", ".user_bss"):
        assert sections[own]["sh_addr"] % PAGE == 0
        assert sections[own]["sh_size"] % PAGE == 0
    symbols = symbols_of(name)
    tables = [symbols[table] for table in ("gdt", "idt", "tss", "page_directory", "page_table_0", "page_table_1")]
    assert all(address % PAGE == 0 for address in tables)
    assert len(set(tables)) == len(tables)
    assert symbols["user_start"] % PAGE == 0 and symbols["user_end"] % PAGE == 0
    user = {".user_text", ".user_data", ".user_bss"}
    for section, header in sections.items():
        inside = symbols["user_start"] <= header["sh_addr"] < symbols["user_end"]
        assert inside == (section in user) or header["sh_size"] == 0, section


@pytest.mark.parametrize("name", [name for name in NAMES if name not in lint.EXEMPT])
def test_guest_uses_no_sensitive_instruction(name: str) -> None:
    seen, findings = lint.lint_image(image_of(name))
    with image_of(name).open("rb") as stream:
        sections = [section for section in ELFFile(stream).iter_sections() if section["sh_flags"] & lint.SH_EXECINSTR]
    assert seen == sum(section["sh_size"] for section in sections) > 1000
    assert findings == []


def test_stealth_uses_every_sensitive_instruction() -> None:
    _, findings = lint.lint_image(image_of("stealth"))
    used = {finding.text.split()[0] for finding in findings}
    assert used >= set("sgdt sidt sldt str smsw pushfd popfd lar lsl verr verw lcall retf mov push pop".split())


FORBIDDEN = {
    "sgdt [eax]": "0f0100",
    "sidt [eax]": "0f0108",
    "smsw eax": "0f01e0",
    "sldt ax": "660f00c0",
    "str [eax]": "0f0008",
    "verr ax": "0f00e0",
    "verw ax": "0f00e8",
    "lar eax, ecx": "0f02c1",
    "lsl eax, ecx": "0f03c1",
    "pushfd": "9c",
    "popf": "669d",
    "mov eax, cs": "8cc8",
    "mov [eax], ds": "8c18",
    "push cs": "0e",
    "push fs": "0fa0",
    "pop ds": "1f",
    "pop gs": "0fa9",
    "call far direct": "9a000000000800",
    "call far indirect": "ff18",
    "retf": "cb",
    "retf 4": "ca0400",
    "lds eax, [ecx]": "c501",
    "fld1": "d9e8",
    "movaps xmm0, xmm1": "0f28c1",
    "vaddps xmm0, xmm1, xmm1": "c5f058c1",
    "mov ax, [bx]": "66678b07",
    "jmp near 16-bit": "66e90000",
    "truncated mov eax, imm32": "b80000",
}


@pytest.mark.parametrize("code", FORBIDDEN.values(), ids=FORBIDDEN.keys())
def test_lint_finds(code: str) -> None:
    around = bytes.fromhex("90") + bytes.fromhex(code)
    findings = list(lint.lint_bytes(around, LOAD_ADDRESS))
    assert [finding.address for finding in findings] == [LOAD_ADDRESS + 1]


@pytest.mark.parametrize("name", ASSEMBLED)
def test_markers_are_those_of_the_manifest(name: str) -> None:
    """One begin and one end for each region, and the instruction before each begin puts its number into EDX."""
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    begun: list[int] = []
    ends = 0
    with image_of(name).open("rb") as stream:
        for section in ELFFile(stream).iter_sections():
            if section["sh_flags"] & lint.SH_EXECINSTR:
                before = ""
                for instruction in disassembler.disasm(section.data(), section["sh_addr"]):
                    text = f"{instruction.mnemonic} {instruction.op_str}"
                    if text == REGION_BEGIN:
                        assert before.startswith("mov edx, ")
                        begun.append(int(before.removeprefix("mov edx, "), 0))
                    ends += text == REGION_END
                    before = text
    assert sorted(begun) == list(range(len(MANIFEST["guests"][name]["regions"])))
    assert ends == len(begun)


def alu_block_result() -> int:
    """What one block of ``alu.asm`` leaves in EAX, by the words of that file."""
    mask = 0xFFFFFFFF
    a, b, c, d = 0x00000001, 0x9E3779B9, 0x2545F491, 0
    for _ in range(1000):
        a = (a + b) & mask
        c ^= a
        t = c >> 7
        b = (b + 4 * t + 3) & mask
        d = (d - a) & mask
        if a >= c:
            a ^= t
            a = (a >> 5 | a << 27) & mask
        c = (c + d) & mask
        t &= 0x0F0F0F0F
        d = (d + t + 1) & mask
        b ^= t << 3 & mask
        if d & 64:
            b = (b - c) & mask
    return a ^ b ^ c ^ d


def generator(count: int) -> list[int]:
    """The first ``count`` values of the generator of ``mix.asm``."""
    values = [0x2545F491]
    for _ in range(count):
        values.append((values[-1] * 1664525 + 1013904223) & 0xFFFFFFFF)
    return values[1:]


def mix_pass_result() -> int:
    """What one pass of ``mix.asm`` adds to its sum."""
    primes = sum(all(number % divisor for divisor in range(2, int(number**0.5) + 1)) for number in range(2, 8192))
    ranked = sum(rank * item for rank, item in enumerate(sorted(generator(128)), start=1))
    folded = 0
    for word in generator(4096):
        folded ^= word
    return (primes + ranked + folded) & 0xFFFFFFFF


def test_alu_expects_what_the_model_says() -> None:
    assert symbols_of("alu")["BLOCK_RESULT"] == alu_block_result()


def test_mix_expects_what_the_model_says() -> None:
    assert symbols_of("mix")["PASS_RESULT"] == mix_pass_result()


def test_stealth_results_are_named_by_symbols() -> None:
    symbols = symbols_of("stealth")
    start, end = symbols["stealth_results"], symbols["stealth_results_end"]
    words = sorted(value for name, value in symbols.items() if name.startswith("stealth_") and start <= value < end)
    assert sorted(set(words)) == list(range(start, end, 4))


def same_tools() -> bool:
    """Whether the assembler and linker of the manifest are installed."""
    try:
        return bool(build.tool_versions() == MANIFEST["tools"])
    except build.BuildError:
        return False


if same_tools():

    @pytest.mark.parametrize("name", NAMES)
    def test_rebuilt_image_has_the_committed_bytes(name: str, tmp_path: Path) -> None:
        for half in build.halves_of(name):
            build.build_image(name, tmp_path / "rebuilt.elf", half)
            assert (tmp_path / "rebuilt.elf").read_bytes() == (IMAGES / build.image_name(name, half)).read_bytes()


QEMU = shutil.which("qemu-system-i386")


def boot_on_qemu(name: str, command_line: str, *options: str) -> tuple[int, str]:
    """Boot a guest with 8 MB on QEMU, its time tied to the instructions done. Returns (exit code, console)."""
    assert QEMU is not None
    machine = "-display none -monitor none -serial none -debugcon stdio -m 8 -icount shift=0,sleep=off"
    command = [QEMU, *machine.split(), "-device", "isa-debug-exit,iobase=0xf4,iosize=4", *options]
    command += ["-kernel", str(image_of(name)), "-append", command_line]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode & 1, done.stderr  # isa-debug-exit ends with 2 * value + 1
    return done.returncode >> 1, done.stdout


def disk_on_qemu(name: str, path: Path) -> list[str]:
    """The options for the empty disk that a guest wants, in a new file."""
    sectors = int(MANIFEST["guests"][name].get("disk_sectors", 0))
    path.write_bytes(bytes(sectors * 512))
    return ["-drive", f"file={path},format=raw,if=ide,index=0"] if sectors else []


STEALTH_ON_THE_BARE_MACHINE = {
    "sgdt_limit": 0x2F, "sidt_limit": 0x7FF, "sldt": 0, "str": 0x28, "smsw": 0x33,
    "pushfd_if_off": 0x46, "pushfd_if_on": 0x246,
    "popfd_sets_if": 0x202, "popfd_clears_if": 0x2, "popfd_sets_iopl": 0x3002,
    "lar_code": 0x00C09B00, "lar_code_zf": 1, "lar_tss": 0x8B00, "lar_tss_zf": 1, "lar_beyond_zf": 0,
    "lsl_code": 0xFFFFFFFF, "lsl_code_zf": 1, "lsl_tss": 0x67, "lsl_tss_zf": 1, "lsl_beyond_zf": 0,
    "verr_code_zf": 1, "verr_beyond_zf": 0, "verw_data_zf": 1, "verw_code_zf": 0, "verw_beyond_zf": 0,
    "mov_cs": 0x08, "mov_ss": 0x10, "mov_ds": 0x23, "mov_cs_to_memory": 0x08, "push_cs": 0x08, "push_ss": 0x10,
    "push_ds": 0x23, "pop_ds": 0x10, "pop_es": 0x10, "call_far_cs": 0x08, "ret_far_cs": 0x08, "int_frame_cs": 0x08,
    "int_frame_eflags": 0x46, "int_handler_eflags": 0x46,
}  # fmt: skip
"""What the manual gives for each result of ``stealth`` in ring 0; table addresses are symbols of the image."""

QEMU_LAR_CODE = 0x00C09A00
"""QEMU does not set the accessed bit of a descriptor that it loads."""

if QEMU:

    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("command_line", ["", "iterations=10", "quiet iterations=257 iteration=x"])
    def test_guest_passes_on_qemu(name: str, command_line: str, tmp_path: Path) -> None:
        code, console = boot_on_qemu(name, command_line, *disk_on_qemu(name, tmp_path / "disk.img"))
        guest = "hello" if name == "hello_pse" else name
        assert console.endswith(f"{guest}: passed\n")
        assert code == 0

    @pytest.mark.parametrize("value", ["", "0", "-1", "12x", "0x10", "4294967296", "99999999999999999999"])
    def test_bad_iterations_are_refused_on_qemu(value: str) -> None:
        code, console = boot_on_qemu("hello", f"iterations={value}")
        assert code == 254 & 0x7F  # the exit status keeps eight bits of 2 * value + 1
        assert "(exit code 254)" in console

    def test_syscall_without_sysenter_on_qemu() -> None:
        code, console = boot_on_qemu("syscall", "", "-cpu", "pentium")
        assert (code, console) == (0, "syscall: no SYSENTER here, region 1 left out\nsyscall: passed\n")

    def test_stealth_sees_the_bare_machine_on_qemu() -> None:
        _, console = boot_on_qemu("stealth", "")
        seen = {key: int(value, 16) for key, value in (line.split("=") for line in console.splitlines() if "=" in line)}
        symbols = symbols_of("stealth")
        tables = {"sgdt_base": symbols["gdt"], "sidt_base": symbols["idt"], "lar_code": QEMU_LAR_CODE}
        assert seen == STEALTH_ON_THE_BARE_MACHINE | tables
