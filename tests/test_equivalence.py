"""E1: every shipped guest and random kernels behave under trap-and-emulate as on the bare machine, and the tool can fail.

The bare machine is checked elsewhere against Unicorn, QEMU and the manual's rules; here only equality is in question.
"""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from random_kernels import kernels
from small_kernel import (
    CODE_0,
    DATA,
    DATA_3,
    DIRECTORY,
    EAX,
    PTE_P,
    PTE_RW,
    TABLE,
    Kernel,
    Step,
    assert_equal,
    compare,
    invlpg,
    load,
    load_segment,
    push,
    set_cr,
    store,
    strategy,
)

from x86virt import find_guest, load_profile
from x86virt.core.entries import device_read
from x86virt.equivalence import Comparison, compare_runs
from x86virt.guests import guests
from x86virt.vmm import Exit, GuestFault, Strategy, VirtualMachine, find_strategy_class

MEMORY = 8 << 20
MAX_CYCLES = 2_000_000_000
TRAP_AND_EMULATE = type(strategy("trap-and-emulate"))
