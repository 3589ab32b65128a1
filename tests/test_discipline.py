"""The shipped guests keep the TLB rules, and one that does not is found."""

import pytest
from guest_sets import DISK_GUESTS, TIMED_GUESTS, short_line
from small_kernel import DATA, EAX, ECX, RAM_BYTES, TABLE, Kernel, Step, invlpg, load, store

from x86virt import find_guest, load_profile
from x86virt.discipline import VARIANTS, tlb_discipline
from x86virt.guests import guests

BREAK_THE_RULES: set[str] = set()  # guests that are declared not to keep them
PAGE = 0x80000


@pytest.mark.parametrize("name", [name for name in guests() if name not in BREAK_THE_RULES])
def test_guest_keeps_the_tlb_rules(name: str) -> None:
    command_line = short_line(name, 1 if name == "mix" else 3)
    rows = tlb_discipline(find_guest(name), load_profile("p4_prescott"), 8 << 20, command_line, 2 * 10**9)
    assert [row.variant for row in rows] == list(VARIANTS)
    for row in rows:
        assert row.differences == [], row.variant
        assert row.verdict_only == (name in (*TIMED_GUESTS, *DISK_GUESTS))
    walks = {row.variant: row.walks for row in rows}
    assert walks["one entry"] > walks["huge"] or name == "hello_pse"  # three large pages in all
    assert walks["flushed at random"] > walks["huge"]


REMAP = store(TABLE + (PAGE >> 12) * 4, DATA | 0x67)


@pytest.mark.parametrize(("tell", "keeps"), [(b"", False), (invlpg(PAGE), True)])
def test_a_guest_that_forgets_invlpg_is_found(tell: bytes, keeps: bool) -> None:
    kernel = Kernel([Step(store(DATA, 0x12345678) + load(EAX, PAGE) + REMAP + tell + b"\x90" * 8 + load(ECX, PAGE))])
    rows = tlb_discipline(kernel.image(), load_profile("p4_prescott"), RAM_BYTES, "", 10**7)
    assert all(not row.differences for row in rows) == keeps
    if not keeps:
        assert any(name == "ecx" for row in rows for name, _, _ in row.differences)
