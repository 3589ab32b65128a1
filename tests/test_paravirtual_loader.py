"""Xen PV kernels as files: what their notes say, the older form, and every bad input in one line."""

import struct
from pathlib import Path

import pytest
from command_line import Answer, assert_refused
from hypothesis import given, settings
from hypothesis import strategies as st
from xen_images import CODE, CONTENT, ENTRY, HYPERCALLS, PAGE, elf, note, number, old_elf, text, usual

from x86virt.api import make_setup
from x86virt.errors import ImageError
from x86virt.guests import images_folder
from x86virt.start.boot import PARAVIRTUAL
from x86virt.start.recognise import StartOptions, open_start
from x86virt.start.xen import MAXIMUM_COMMAND_LINE_BYTES, XenImage, load_xen, parse_xen
from x86virt.start.xen_notes import (
    NOTE_ENTRY,
    NOTE_FEATURES,
    NOTE_HYPERCALL_PAGE,
    NOTE_PADDR_OFFSET,
    NOTE_PAE_MODE,
    NOTE_VIRT_BASE,
    NOTE_XEN_VERSION,
    is_xen,
)

MEGABYTE = 1 << 20
FEW = settings(deadline=None, max_examples=60)


def test_the_notes_say_where_a_kernel_is() -> None:
    image = parse_xen(elf(usual()), "kernel")
    assert (image.entry, image.virt_base, image.hypercall_page, image.is_pae) == (ENTRY, 0, HYPERCALLS, False)
    assert [(segment.address, segment.content) for segment in image.segments] == [(CODE, CONTENT)]
    assert image.end == CODE + len(CONTENT)


@pytest.mark.parametrize(
    ("mode", "is_pae"), [("no", False), ("yes", True), ("bimodal", True), ("yes,bimodal", True), ("yes[extended-cr3]", True)]
)
def test_the_pae_mode(mode: str, is_pae: bool) -> None:
    """A kernel that takes either has PAE tables."""
    assert parse_xen(elf(usual(mode)), "kernel").is_pae is is_pae


def test_a_kernel_that_is_linked_high() -> None:
    """`virt_base` is where pseudo-physical page 0 is; physical addresses count from `paddr_offset`."""
    base = 0xC0000000
    notes = number(NOTE_VIRT_BASE, base) + number(NOTE_ENTRY, base + ENTRY) + number(NOTE_HYPERCALL_PAGE, base + HYPERCALLS)
    image = parse_xen(elf(notes), "kernel")
    assert (image.segments[0].address, image.entry, image.virt_base) == (CODE, base + ENTRY, base)
    shifted = parse_xen(elf(notes + number(NOTE_PADDR_OFFSET, base), base + CODE), "kernel")
    assert shifted.segments[0].address == CODE


def test_without_a_note_the_entry_is_the_files() -> None:
    image = parse_xen(elf(text(NOTE_PAE_MODE, "no")), "kernel")
    assert (image.entry, image.hypercall_page) == (CODE, None)


def test_a_later_note_takes_the_place_of_an_earlier_one_and_others_are_passed_over() -> None:
    notes = usual() + note(1, b"GNU says", b"GNU\0") + number(NOTE_ENTRY, CODE + 4) + note(99, b"anything")
    assert parse_xen(elf(notes), "kernel").entry == CODE + 4


def test_a_last_description_that_is_longer_than_the_file() -> None:
    """As in the image that GRUB's own tool makes."""
    notes = number(NOTE_ENTRY, ENTRY) + struct.pack("<3I", 4, 12, NOTE_PAE_MODE) + b"Xen\0yes\0"
    assert parse_xen(elf(notes), "kernel").is_pae


def test_the_older_form() -> None:
    words = "GUEST_OS=linux,XEN_VER=xen-3.0,VIRT_BASE=0xC0000000,ELF_PADDR_OFFSET=0x0,HYPERCALL_PAGE=0x101,PAE=yes,LOADER=generic"
    image = parse_xen(old_elf(words + f",VIRT_ENTRY={0xC0000000 + ENTRY:#x}"), "kernel")
    assert (image.virt_base, image.hypercall_page, image.is_pae) == (0xC0000000, 0xC0000000 + HYPERCALLS, True)
    assert (image.entry, image.segments[0].address) == (0xC0000000 + ENTRY, CODE)


def test_in_the_older_form_physical_addresses_count_from_the_base() -> None:
    image = parse_xen(old_elf("VIRT_BASE=0xC0000000", 0xC0000000 + CODE), "kernel")
    assert (image.segments[0].address, image.entry) == (CODE, 0xC0000000 + CODE)


def test_what_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "kernel.elf"
    path.write_bytes(elf(usual()))
    disk = tmp_path / "disk"
    disk.write_bytes(b"a RAM disk")
    opened = open_start(path, StartOptions(initrd=(disk,))).bootable
    assert isinstance(opened, XenImage) and opened.ramdisk == b"a RAM disk"
    boot = opened.boot(16 * MEGABYTE, "a word")
    assert boot.mode == PARAVIRTUAL and boot.domain is not None and boot.domain.command_line == b"a word\0"
    with pytest.raises(ImageError, match="--bios does not go with it"):
        open_start(path, StartOptions(bios=path))


BAD = {
    "no Xen": (elf(b""), "no ELF notes of the owner Xen"),
    "two bytes": (elf(note(NOTE_ENTRY, b"ab")), "note ENTRY has 2 bytes"),
    "beyond 4 GB": (elf(note(NOTE_ENTRY, struct.pack("<Q", 1 << 40))), "is no 32-bit address"),
    "unaligned base": (elf(usual(base=0x10)), "VIRT_BASE 0x10 is not at a page"),
    "unaligned page": (elf(usual(page=CODE + 8)), "is not at a page"),
    "entry outside": (elf(usual(entry=0x50)), "entry point 0x50 lies in no segment"),
    "page outside": (elf(usual(page=PAGE)), "HYPERCALL_PAGE 0x1000 lies in no segment"),
    "mode": (elf(usual("perhaps")), "its PAE mode is perhaps"),
    "version": (elf(usual() + text(NOTE_XEN_VERSION, "xen-2.0")), "made for the interface xen-2.0"),
    "feature": (elf(usual() + text(NOTE_FEATURES, "!auto_translated_physmap")), "needs the feature auto_translated_physmap"),
    "below the offset": (elf(usual() + number(NOTE_PADDR_OFFSET, CODE + 1)), "lies below its PADDR_OFFSET"),
    "too high": (elf(usual(base=0xFFFFF000, entry=0xFFFFF010), PAGE, CONTENT), "behind 4 GB from VIRT_BASE"),
    "old number": (old_elf("VIRT_BASE=many"), "says VIRT_BASE=many, no number"),
    "old sign": (old_elf("VIRT_BASE=-4096"), "is no 32-bit address"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_kernels_are_refused_in_one_line(case: str) -> None:
    content, words = BAD[case]
    with pytest.raises(ImageError) as found:
        parse_xen(content, "kernel", "a file")
    assert words in str(found.value) and "\n" not in str(found.value) and str(found.value).startswith("a file: ")


def test_features_that_are_there_or_optional() -> None:
    words = "!writable_page_tables|pae_pgdir_above_4gb|auto_translated_physmap"
    assert parse_xen(elf(usual() + text(NOTE_FEATURES, words)), "kernel").entry == ENTRY


def test_too_little_memory_and_too_long_a_line() -> None:
    image = parse_xen(elf(usual(), memory_bytes=4 * MEGABYTE), "kernel")
    with pytest.raises(ImageError, match="outside RAM"):
        image.boot(4 * MEGABYTE)
    with pytest.raises(ImageError, match="its command line has"):
        image.boot(16 * MEGABYTE, "x" * (MAXIMUM_COMMAND_LINE_BYTES + 1))


@FEW
@given(octets=st.binary(max_size=400), place=st.integers(0, 300))
def test_any_bytes_load_or_are_refused(octets: bytes, place: int) -> None:
    content = bytearray(elf(usual()) if place % 2 else old_elf("VIRT_BASE=0xC0000000,PAE=no"))
    content[place : place + len(octets)] = octets
    try:
        if is_xen(bytes(content)):
            parse_xen(bytes(content), "kernel").boot(16 * MEGABYTE)
    except ImageError as error:
        assert "\n" not in str(error)


@FEW
@given(notes=st.binary(max_size=200))
def test_any_notes_load_or_are_refused(notes: bytes) -> None:
    try:
        parse_xen(elf(notes), "kernel")
    except ImageError as error:
        assert "\n" not in str(error)


# -- where it does not go -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["native", "trap-and-emulate", "binary-translation", "vtx-ept"])
def test_a_ported_kernel_under_another_strategy_says_so_in_one_line(
    strategy: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kernel.elf"
    path.write_bytes(elf(usual()))
    profile = ["-p", "nehalem"] if strategy == "vtx-ept" else []
    answer = Answer(capsys, "run", str(path), "-s", strategy, *profile)
    assert_refused(answer, "is a kernel for Xen's paravirtual interface; run it with", status=5)


def test_another_kernel_under_paravirtual_says_so_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "own.elf"
    path.write_bytes((images_folder() / "hello.elf").read_bytes() + b"\0")
    answer = Answer(capsys, "run", str(path), "-s", "paravirtual")
    assert_refused(answer, "is no kernel for Xen's paravirtual interface; give a build", status=5)


def test_too_little_memory_for_the_builder_says_so_in_one_line() -> None:
    image = parse_xen(elf(usual(), memory_bytes=MEGABYTE - 4 * PAGE), "kernel")
    result = make_setup("paravirtual", memory_bytes=2 * MEGABYTE).run(image)
    assert result.outcome.startswith("unsupported: the domain's first memory takes")
    assert result.outcome.endswith("pages, and it has 512: give more memory (--memory)")


def test_domain_0_and_ported_guests_are_images_of_ours() -> None:
    paths = [*images_folder().glob("*.xen.elf"), images_folder() / "domain_0.elf"]
    assert len(paths) > 10
    for path in paths:
        assert load_xen(path).hypercall_page is not None, path


def test_only_what_says_so_is_a_xen_kernel() -> None:
    assert is_xen(elf(usual())) and is_xen(old_elf("PAE=no")) and not is_xen(elf(b""))
