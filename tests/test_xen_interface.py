"""The interface of paravirtual guests: the committed include files are current, and places are those of Xen's headers."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from x86virt.vmm.paravirtual import include
from x86virt.vmm.paravirtual.structures import STRUCTURES


def test_the_include_files_are_current() -> None:
    assert include.ASSEMBLER_INCLUDE.read_text(encoding="utf-8") == include.assembler_text()
    assert include.C_HEADER.read_text(encoding="utf-8") == include.c_text()


SIZES = {
    "trap_info": 8, "mmu_update": 16, "mmuext_op": 12, "multicall_entry": 32, "start_info": 1112, "vcpu_info": 64,
    "vcpu_time_info": 32, "grant_entry": 8, "gnttab_map_grant_ref": 32, "gnttab_unmap_grant_ref": 24, "gnttab_copy": 24,
    "blkif_request": 108, "blkif_response": 12, "xsd_sockmsg": 16, "vcpu_runstate_info": 44,
}  # fmt: skip
"""From Xen's table of the sizes that other compilers must find (xen/include/public/foreign), and by hand from the headers."""

PLACES = {
    ("start_info", "cmd_line"): 80, ("start_info", "pt_base"): 60, ("start_info", "console_evtchn"): 56,
    ("shared_info", "evtchn_pending"): 2048, ("shared_info", "evtchn_mask"): 2176, ("shared_info", "wc_version"): 2304,
    ("vcpu_info", "arch_cr2"): 8, ("vcpu_info", "time_system_time"): 48, ("vcpu_info", "evtchn_upcall_mask"): 1,
    ("xencons_interface", "out_prod"): 3084, ("xenstore_domain_interface", "rsp_prod"): 2060,
    ("blkif_request", "seg"): 20, ("gnttab_copy", "len"): 16, ("sched_poll", "timeout"): 8,
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_a_structure_has_the_size_of_the_interface(name: str) -> None:
    assert STRUCTURES[name].itemsize == SIZES[name]


@pytest.mark.parametrize(("structure", "field"), PLACES)
def test_a_field_stands_where_the_interface_has_it(structure: str, field: str) -> None:
    assert dict(include.places(STRUCTURES[structure]))[field] == PLACES[structure, field]


def test_the_numbers_are_those_of_the_headers() -> None:
    numbers = include.numbers()
    some = {"__HYPERVISOR_mmu_update": 1, "__HYPERVISOR_iret": 23, "__HYPERVISOR_sched_op": 29, "MMUEXT_NEW_BASEPTR": 5,
            "MMUEXT_SET_LDT": 13, "EVTCHNOP_bind_interdomain": 0, "EVTCHNOP_unmask": 9, "SCHEDOP_block": 1, "UVMF_INVLPG": 2,
            "GNTTABOP_setup_table": 2, "XENMEM_machphys_mapping": 12, "XS_WATCH_EVENT": 15}  # fmt: skip
    assert {name: numbers[name] for name in some} == some


if shutil.which("gcc"):

    def test_a_compiler_finds_the_same_sizes(tmp_path: Path) -> None:
        """The header asserts them; that the assertions hold is the compiler's word."""
        source = tmp_path / "header.c"
        source.write_text('#include "xen.h"\nint unused;\n', encoding="utf-8")
        command = ["gcc", "-m32", "-std=c11", "-ffreestanding", "-Wall", "-Werror", "-fsyntax-only"]
        done = subprocess.run(
            [*command, "-I", str(include.LIBRARY), str(source)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
