"""Random x87 cases on the host's x87 and on the simulated one: `python -m tests.fuzz_x87 --cases N`.

Operands are made of the patterns at which something changes (zeros, denormals, pseudo-denormals, unnormals, infinities,
NaNs, powers of two, halves, the ends of every range), of few bits, and of random ones; control words have every
rounding, every precision and random masks. Compared are all registers with what an empty one holds, the tags, the
status word, the operand in memory and the flags.
"""

import argparse
import pathlib
import sys

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent))

from x87_host import BATCH, RECORD, HostX87, SimulatedX87, host_has_x87, on_memory

SIGNIFICANDS = np.array(
    [
        0, 1, 2, 3, 0x7FF, 0x800, 0x400, 0xFF, 0x80 << 32, 0xFF << 32, 1 << 61, 1 << 62, (1 << 62) - 1, (1 << 63) - 1,
        1 << 63, 1 << 63 | 1, 3 << 62, 3 << 62 | 1, (1 << 64) - 1, (1 << 64) - 2, (1 << 64) - 0x800, (1 << 64) - 0x400,
        (1 << 64) - (1 << 40), (1 << 64) - (1 << 39), 1 << 63 | 0x400, 1 << 63 | 0xC00, 1 << 63 | 0x80 << 32,
        0xB504F333F9DE6484, 0xC90FDAA22168C235, 0xB17217F7D1CF79AC, 5 << 61,
    ],
    np.uint64,
)  # fmt: skip
BIAS = 16383
EXPONENTS = np.array(
    [
        0, 0, 0, 1, 2, 63, 64, 65, BIAS - 16, BIAS - 1, BIAS, BIAS, BIAS + 1, BIAS + 2, BIAS + 14, BIAS + 15, BIAS + 16,
        BIAS + 30,
        BIAS + 31, BIAS + 32, BIAS + 59, BIAS + 62, BIAS + 63, BIAS + 64, BIAS + 127, BIAS + 128, BIAS - 126, BIAS - 127,
        BIAS - 149, BIAS - 150, BIAS + 1023, BIAS + 1024, BIAS - 1022, BIAS - 1023, BIAS - 1074, BIAS - 1075, 0x7FFD, 0x7FFE,
        0x7FFF, 0x7FFF,
    ]
)  # fmt: skip
SINGLES = np.array(
    [0, 1 << 31, 1, 0x7FFFFF, 0x800000, 0x3F800000, 0x7F7FFFFF, 0x7F800000, 0x7FC00000, 0x7F800001, 0xFF800000],
    np.uint32,
)
DOUBLES = np.array(
    [0, 1 << 63, 1, (1 << 52) - 1, 1 << 52, 0x3FF << 52, 0x7FE << 52, 0x7FF << 52, 0x7FF8 << 48, 0x7FF << 52 | 1], np.uint64
)
TOP_BIT = np.uint64(1 << 63)


def significands(random: np.random.Generator, n: int) -> np.ndarray:
    """Significands: from the list, random, or with a run of random bits; the integer bit is mostly set."""
    some = random.integers(0, 1 << 64, n, np.uint64)
    shifted = some >> random.integers(0, 64, n).astype(np.uint64) << random.integers(0, 64, n).astype(np.uint64)
    value = np.choose(random.integers(0, 3, n), (random.choice(SIGNIFICANDS, n), some, shifted))
    return np.where(random.random(n) < 0.85, value | TOP_BIT, value)


def exponents(random: np.random.Generator, n: int) -> np.ndarray:
    """Exponents: from the list, near 0, or anything."""
    near = BIAS + random.integers(-80, 80, n)
    return np.choose(random.integers(0, 3, n), (random.choice(EXPONENTS, n), near, random.integers(0, 0x8000, n)))


def registers(random: np.random.Generator, n: int) -> np.ndarray:
    """(n, 8, 10) bytes of register contents; neighbours are often close to each other."""
    significand, exponent = significands(random, 8 * n).reshape(n, 8), exponents(random, 8 * n).reshape(n, 8)
    for number in range(1, 8):
        near = random.random(n) < 0.3
        close = exponent[:, number - 1] + random.integers(-3, 4, n)
        exponent[:, number] = np.where(near, np.clip(close, 0, 0x7FFF), exponent[:, number])
        same = random.random(n) < 0.1
        significand[:, number] = np.where(same, significand[:, number - 1], significand[:, number])
    sign = random.integers(0, 2, (n, 8))
    octets = np.zeros((n, 8, 10), np.uint8)
    octets[:, :, :8] = significand[..., None].view(np.uint8).reshape(n, 8, 8)
    octets[:, :, 8:] = (exponent | sign << 15).astype("<u2")[..., None].view(np.uint8).reshape(n, 8, 2)
    return octets


def operands(random: np.random.Generator, n: int) -> np.ndarray:
    """(n, 10) bytes of a memory operand: an extended value, a single, a double, a small integer, or anything."""
    octets = random.integers(0, 256, (n, 10), np.uint8)
    kind = random.integers(0, 6, n)
    octets[kind == 0] = registers(random, n)[kind == 0][:, 0]
    singles = random.choice(SINGLES, n)
    octets[kind == 1, :4] = singles[kind == 1, None].view(np.uint8)
    doubles = random.choice(DOUBLES, n)
    octets[kind == 2, :8] = doubles[kind == 2, None].view(np.uint8)
    small = random.integers(-3, 4, n)
    octets[kind == 3, :8] = small[kind == 3, None].view(np.uint8)
    digits = random.integers(0, 10, (n, 20), np.uint8)
    octets[kind == 4] = (digits[:, ::2] << 4 | digits[:, 1::2])[kind == 4]
    octets[kind == 4, 9] &= 0x80
    return octets


def records(random: np.random.Generator, n: int) -> np.ndarray:
    """Random cases."""
    cases = np.zeros(n, RECORD)
    masks = np.where(random.random(n) < 0.6, 0x3F, random.integers(0, 64, n))
    precision = random.choice(np.array([0, 2, 3, 3, 3]), n)
    cases["control"] = masks | 0x40 | precision << 8 | random.integers(0, 4, n) << 10
    flagged = random.integers(0, 64, n) & masks & -(random.random(n) < 0.3).astype(int)
    cases["status"] = flagged | random.integers(0, 8, n) << 11 | random.integers(0, 8, n) << 8 | random.integers(0, 2, n) << 14
    empty = np.where(random.random(n) < 0.5, 1 << 7, random.integers(0, 256, n) & random.integers(0, 256, n))
    empty = np.where(random.random(n) < 0.05, 0, empty)
    top = cases["status"] >> 11 & 7
    for number in range(8):
        cases["tag"] |= ((empty >> number & 1) * 3 << 2 * ((number + top) & 7)).astype(np.uint16)
    cases["registers"] = registers(random, n)
    cases["operand"] = operands(random, n)
    cases["eflags"] = random.integers(0, 256, n) << 8 & 0xD500 | 0x0200 | random.integers(0, 256, n)
    return cases


REGISTER_FORMS = {
    **{name: (op, base) for name, op, base in (
        ("fadd", 0xD8, 0xC0), ("fmul", 0xD8, 0xC8), ("fcom", 0xD8, 0xD0), ("fcomp", 0xD8, 0xD8), ("fsub", 0xD8, 0xE0),
        ("fsubr", 0xD8, 0xE8), ("fdiv", 0xD8, 0xF0), ("fdivr", 0xD8, 0xF8), ("fadd_sti", 0xDC, 0xC0),
        ("fmul_sti", 0xDC, 0xC8), ("fcom2", 0xDC, 0xD0), ("fcomp3", 0xDC, 0xD8), ("fsubr_sti", 0xDC, 0xE0),
        ("fsub_sti", 0xDC, 0xE8), ("fdivr_sti", 0xDC, 0xF0), ("fdiv_sti", 0xDC, 0xF8), ("faddp", 0xDE, 0xC0),
        ("fmulp", 0xDE, 0xC8), ("fcomp5", 0xDE, 0xD0), ("fsubrp", 0xDE, 0xE0), ("fsubp", 0xDE, 0xE8),
        ("fdivrp", 0xDE, 0xF0), ("fdivp", 0xDE, 0xF8), ("fld_sti", 0xD9, 0xC0), ("fxch", 0xD9, 0xC8),
        ("fstp1", 0xD9, 0xD8), ("ffree", 0xDD, 0xC0), ("fxch4", 0xDD, 0xC8), ("fst_sti", 0xDD, 0xD0),
        ("fstp_sti", 0xDD, 0xD8), ("fucom", 0xDD, 0xE0), ("fucomp", 0xDD, 0xE8), ("ffreep", 0xDF, 0xC0),
        ("fxch7", 0xDF, 0xC8), ("fstp8", 0xDF, 0xD0), ("fstp9", 0xDF, 0xD8), ("fucomip", 0xDF, 0xE8),
        ("fcomip", 0xDF, 0xF0), ("fucomi", 0xDB, 0xE8), ("fcomi", 0xDB, 0xF0), ("fcmovb", 0xDA, 0xC0),
        ("fcmove", 0xDA, 0xC8), ("fcmovbe", 0xDA, 0xD0), ("fcmovu", 0xDA, 0xD8), ("fcmovnb", 0xDB, 0xC0),
        ("fcmovne", 0xDB, 0xC8), ("fcmovnbe", 0xDB, 0xD0), ("fcmovnu", 0xDB, 0xD8),
    )},
}  # fmt: skip
SINGLE_FORMS = {
    "fchs": b"\xd9\xe0", "fabs": b"\xd9\xe1", "ftst": b"\xd9\xe4", "fxam": b"\xd9\xe5", "fld1": b"\xd9\xe8",
    "fldl2t": b"\xd9\xe9",
    "fldl2e": b"\xd9\xea", "fldpi": b"\xd9\xeb", "fldlg2": b"\xd9\xec", "fldln2": b"\xd9\xed",
    "fldz": b"\xd9\xee", "fsqrt": b"\xd9\xfa",
    "fprem": b"\xd9\xf8", "fprem1": b"\xd9\xf5", "frndint": b"\xd9\xfc", "fscale": b"\xd9\xfd", "fxtract": b"\xd9\xf4",
    "fdecstp": b"\xd9\xf6", "fincstp": b"\xd9\xf7", "fnop": b"\xd9\xd0", "fcompp": b"\xde\xd9", "fucompp": b"\xda\xe9",
    "fnclex": b"\xdb\xe2", "fninit": b"\xdb\xe3", "fneni": b"\xdb\xe0", "fndisi": b"\xdb\xe1", "fnsetpm": b"\xdb\xe4",
    "fnstsw_ax": b"\xdf\xe0",
    "wait": b"\x9b",
}  # fmt: skip
TRANSCENDENTAL = {
    "f2xm1": b"\xd9\xf0", "fyl2x": b"\xd9\xf1", "fptan": b"\xd9\xf2", "fpatan": b"\xd9\xf3", "fyl2xp1": b"\xd9\xf9",
    "fsincos": b"\xd9\xfb", "fsin": b"\xd9\xfe", "fcos": b"\xd9\xff",
}  # fmt: skip
MEMORY_FORMS = {
    **{f"{name}_{form}": on_memory(op, reg) for form, op in (("m32", 0xD8), ("m64", 0xDC), ("i32", 0xDA), ("i16", 0xDE))
       for reg, name in enumerate(("fadd", "fmul", "fcom", "fcomp", "fsub", "fsubr", "fdiv", "fdivr"))},
    "fld_m32": on_memory(0xD9, 0), "fld_m64": on_memory(0xDD, 0), "fld_m80": on_memory(0xDB, 5), "fst_m32": on_memory(0xD9, 2),
    "fst_m64": on_memory(0xDD, 2), "fstp_m32": on_memory(0xD9, 3), "fstp_m64": on_memory(0xDD, 3), "fstp_m80": on_memory(0xDB, 7),
    "fild_i16": on_memory(0xDF, 0), "fild_i32": on_memory(0xDB, 0), "fild_i64": on_memory(0xDF, 5),
    "fist_i16": on_memory(0xDF, 2),
    "fist_i32": on_memory(0xDB, 2), "fistp_i16": on_memory(0xDF, 3), "fistp_i32": on_memory(0xDB, 3),
    "fistp_i64": on_memory(0xDF, 7),
    "fbld": on_memory(0xDF, 4), "fbstp": on_memory(0xDF, 6), "fnstcw": on_memory(0xD9, 7), "fnstsw": on_memory(0xDD, 7),
}  # fmt: skip
FORMS: dict[str, tuple[bytes, ...]] = {
    **{name: tuple(bytes([op, base + i]) for i in range(8)) for name, (op, base) in REGISTER_FORMS.items()},
    **{name: (octets,) for name, octets in SINGLE_FORMS.items()},
    **{name: (octets,) for name, octets in MEMORY_FORMS.items()},
    **{name: (octets,) for name, octets in TRANSCENDENTAL.items()},
}
COMPARED = ("control_after", "status_after", "tag_after", "registers_after", "operand", "eflags")


C1, PE, UE = 1 << 9, 1 << 5, 1 << 4


def ordered(octets: np.ndarray) -> np.ndarray:
    """Register contents as numbers of which neighbours are one unit in the last place apart: (n, 8) Python integers."""
    significand = octets[:, :, :8].copy().view("<u8")[:, :, 0].astype(object)
    exponent = octets[:, :, 8:].copy().view("<u2")[:, :, 0].astype(object)
    pseudo = significand >> 63 & (exponent & 0x7FFF == 0).astype(int)
    return (exponent << 63) + (significand & (1 << 63) - 1) + (pseudo << 63)


def excused(name: str, before: np.ndarray) -> np.ndarray:
    """Cases in which the manual leaves the result undefined: FYL2XP1 is defined for |x| < 1 - sqrt(1/2) only."""
    if name != "fyl2xp1":
        return np.zeros(len(before), bool)
    exponent = before["registers"][:, 0, 8:].copy().view("<u2")[:, 0] & 0x7FFF
    return (exponent >= BIAS - 2) & (exponent < 0x7FFF)


def differing(name: str, before: np.ndarray, host: np.ndarray, ours: np.ndarray) -> np.ndarray:
    """Which cases differ; transcendental results may by one unit in the last place, and so in C1 and in underflow."""
    wrong = np.zeros(len(host), bool)
    fields = COMPARED
    if name in TRANSCENDENTAL:
        fields = tuple(field for field in COMPARED if field not in ("registers_after", "status_after"))
        apart = abs(ordered(host["registers_after"]) - ordered(ours["registers_after"]))
        wrong |= (apart > 1).any(axis=1)
        ignored = np.where(host["status_after"] & PE, C1, 0) | np.where((apart == 1).any(axis=1), UE, 0)
        wrong |= ((host["status_after"] ^ ours["status_after"]) & ~ignored) != 0
    for field in fields:
        wrong |= (host[field] != ours[field]).reshape(len(host), -1).any(axis=1)
    return wrong & ~excused(name, before)


def text(case: np.ndarray) -> str:
    """A record in a line for each half."""
    lines = []
    for after in ("", "_after"):
        top = int(case[f"status{after}"]) >> 11 & 7
        stack = " ".join(bytes(case[f"registers{after}"][i][::-1]).hex() for i in range(3))
        words = " ".join(f"{name} {case[name + after]:04x}" for name in ("control", "status", "tag"))
        lines.append(
            f"    {words} top {top} st {stack} operand {bytes(case['operand'][::-1]).hex()} flags {case['eflags']:04x}"
        )
    return "\n".join(lines)


def campaign(
    host: HostX87, ours: SimulatedX87, names: list[str], cases: int, seed: int, show: int = 0
) -> tuple[int, dict[str, int]]:
    """At least `cases` cases over the named instructions: how many were run, and divergences by instruction."""
    random = np.random.default_rng(seed)
    done, found = 0, dict.fromkeys(names, 0)
    while done < cases:
        for name in names:
            forms = FORMS[name]
            octets = forms[int(random.integers(0, len(forms)))]
            before = records(random, BATCH)
            theirs, mine = host.run(octets, before), ours.run(octets, before)
            wrong = differing(name, before, theirs, mine)
            for number in np.nonzero(wrong)[0][: max(0, show - found[name])]:
                print(name, octets.hex(), text(before[number]).split("\n")[0], "\n  host", text(theirs[number]).split("\n")[1],
                      "\n  ours", text(mine[number]).split("\n")[1])
            found[name] += int(wrong.sum())
            done += BATCH
    return done, {name: count for name, count in found.items() if count}


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--show", type=int, default=2, help="divergences that are printed for each instruction")
    arguments = parser.parse_args()
    if not host_has_x87():
        print("fuzz_x87: the oracle is this host's x87, which needs Linux on x86-64", file=sys.stderr)
        return 2
    names = arguments.only.split(",") if arguments.only else list(FORMS)
    done, found = campaign(HostX87(), SimulatedX87(), names, arguments.cases, arguments.seed, arguments.show)
    print(f"{done} cases over {len(names)} instructions, {sum(found.values())} divergences {found}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
