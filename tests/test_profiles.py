"""Profiles: generated files are current, pricing rules hold, live keys are live, bad files end in one line."""

import csv
import importlib.util
import os
import pathlib
import re
import tomllib
from decimal import ROUND_HALF_EVEN, Decimal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from x86virt.isa.events import EVENT_ID, EVENTS, N_EVENTS
from x86virt.profile import EVIDENCE, FOLDER, ProfileError, load_profile, profile_names
from x86virt.profile_schema import KINDS, SCHEMA

ROOT = pathlib.Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "benchmarks" / "reference"
NAMES = profile_names()
PROFILES = {name: load_profile(name) for name in NAMES}
PRICE_KEYS = sorted({key for event in EVENTS for key in (event.price, event.above) if key})


def reference_rows():
    """The rows of primitives.csv."""
    with open(REFERENCE / "primitives.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def generator():
    """The module that makes the profiles."""
    spec = importlib.util.spec_from_file_location("make_profiles", REFERENCE / "make_profiles.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write(tmp_path):
    """Write a profile file and give its path."""

    def write(text, name="mine.toml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def table(key, value, extra=""):
    """A TOML table of one key with evidence and source."""
    return f'[{key}]\nvalue = {value}\nevidence = "estimated"\nsource = "a test"\n{extra}\n'


def inheriting(*tables, parent="nehalem"):
    """The text of a profile that inherits and overrides."""
    return f'inherits = "{parent}"\n' + "\n".join(tables)


def refused(path):
    """The one line with which a profile is refused."""
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    line = str(caught.value)
    assert "\n" not in line and line.isprintable() and len(line) < 1500, line
    return line


# The shipped profiles


def test_there_are_the_seven_profiles_of_the_reference():
    assert set(NAMES) == {row["profile"] for row in reference_rows()} and len(NAMES) == 7


def test_committed_profiles_are_current():
    generated = generator().generate()
    assert {name: (FOLDER / f"{name}.toml").read_bytes() for name in NAMES} == {
        name: text.encode() for name, text in generated.items()
    }


def test_the_one_rule_by_an_independent_reading_of_the_reference():
    """`ins.` rows that were read and whose low is a throughput charge the midpoint, all others their cycles."""
    compared = midpoints = 0
    for row in reference_rows():
        if row["event"] not in SCHEMA:
            continue
        value = PROFILES[row["profile"]].values[row["event"]]
        expected = float(row["cycles"])
        if row["event"][:4] == "ins." and row["evidence"] == "read" and row["note"].find("low=reciprocal") >= 0:
            expected = float((Decimal(row["low"]) + Decimal(row["cycles"])) / 2)
            midpoints += 1
        assert value.value == expected, row
        assert value.published == float(row["cycles"]) and value.evidence == row["evidence"], row
        assert value.source == row["source"] and value.note == row["note"], row
        assert value.low == (float(row["low"]) if row["low"] else None), row
        assert value.high == (float(row["high"]) if row["high"] else None), row
        compared += 1
    assert compared == 7 * 142 and midpoints > 200


def test_rows_that_no_profile_carries_are_declared_with_a_reason():
    unused = tomllib.loads((REFERENCE / "overlay.toml").read_text("utf-8"))["unused"]
    assert {row["event"] for row in reference_rows()} - set(SCHEMA) == set(unused)
    assert all(len(reason) > 20 for reason in unused.values())


def test_a_pair_is_split_into_two_halves():
    for row in reference_rows():
        if row["event"] == "ins.call_ret_pair":
            profile = PROFILES[row["profile"]]
            assert profile["ins.call"] + profile["ins.ret"] == float(row["cycles"])
            assert profile.values["ins.call"].published == float(row["cycles"])


def test_schema_is_well_declared():
    for name, key in SCHEMA.items():
        assert name == key.name and key.kind in KINDS and key.unit and key.sentence.endswith("."), key
        assert name.count(".") == 1
    assert all(key in SCHEMA for key in PRICE_KEYS)


def test_every_value_has_evidence_and_a_source():
    for profile in PROFILES.values():
        assert list(profile.values) == list(SCHEMA)
        assert all(value.evidence in EVIDENCE and value.source.strip() for value in profile.values.values())


def test_cpuid_signatures_are_those_of_the_parts():
    signatures = {name: profile.cpuid_signature() for name, profile in PROFILES.items()}
    for row in reference_rows():
        if row["event"] == "cpu.mhz":
            assert f"CPUID {signatures[row['profile']]:X})" in row["source"]


# Prices


@pytest.mark.parametrize("name", NAMES)
def test_prices_are_64_times_the_value_rounded_half_to_even(name):
    """Against a second computation in decimals with another rounding routine."""
    profile, prices = PROFILES[name], PROFILES[name].prices()
    assert prices.dtype == np.int64 and prices.shape == (N_EVENTS,) and (prices >= 0).all()
    for number, event in enumerate(EVENTS):
        if event.rule in ("dynamic", "free"):
            cycles = Decimal(0)
        else:
            cycles = Decimal(repr(profile[event.price]))
        if event.rule == "inverse":
            cycles = 1 / cycles
        if event.rule == "above":
            cycles -= Decimal(repr(profile[event.above]))
        assert prices[number] == (cycles * 64).quantize(Decimal(1), ROUND_HALF_EVEN), event


@pytest.mark.parametrize(
    ("cycles", "ticks"), [("0.0078125", 0), ("0.0234375", 2), ("0.0390625", 2), ("0.00781250001", 1)]
)
def test_ties_go_to_the_even_tick(write, cycles, ticks):
    assert load_profile(write(inheriting(table("sys.cli", cycles)))).price_ticks("sys.cli") == ticks


def test_the_marker_is_free_and_dynamic_events_have_no_price():
    profile = PROFILES["nehalem"]
    assert profile.price_ticks("ins.mark") == 0
    with pytest.raises(ValueError, match="no fixed price"):
        profile.price_ticks("idle.halt")
    with pytest.raises(KeyError):
        profile.price_ticks("ins.no_such_event")


@given(key=st.sampled_from(PRICE_KEYS), change=st.integers(2, 50))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_changing_a_price_key_alone_changes_exactly_the_events_that_it_prices(tmp_path, key, change):
    base = PROFILES["p4_prescott"]
    # A lower rate costs more; the L1 latency can only fall below the levels that are measured from it.
    value = Decimal(repr(base[key]))
    if SCHEMA[key].unit == "bytes per cycle":
        value /= 2 * change
    elif key == "mem.l1d_load":
        value -= Decimal(change) / 20
    else:
        value += change
    path = tmp_path / "changed.toml"
    path.write_text(inheriting(table(key, value), parent="p4_prescott"))
    changed = load_profile(path)
    expected = {event.name for event in EVENTS if key in (event.price, event.above)}
    assert expected
    assert {EVENTS[number].name for number in np.flatnonzero(changed.prices() != base.prices())} == expected
    assert changed.digest() != base.digest()


def test_every_live_price_prices_an_event():
    assert {key for key in SCHEMA if SCHEMA[key].kind == "price" and SCHEMA[key].live} <= set(PRICE_KEYS)


# Users' files


def test_a_users_file_inherits_and_overrides_whole_tables(write):
    path = write(
        'title = "Slow"\n' + inheriting(table("sys.sysenter", 1000, "low = 900\nhigh = 1100"), parent="k8_opteron")
    )
    profile = load_profile(str(path))
    assert (profile.name, profile.title, profile["sys.sysenter"]) == ("mine", "Slow", 1000)
    assert profile.values["sys.sysenter"].published is None and profile.values["sys.sysenter"].high == 1100
    assert profile["sys.sysexit"] == PROFILES["k8_opteron"]["sys.sysexit"]


def test_a_file_may_inherit_a_file_beside_it(write):
    write(inheriting(table("cpu.mhz", 1000)), "base.toml")
    profile = load_profile(write(inheriting(table("sys.cli", 5), parent="base.toml")))
    assert (profile["cpu.mhz"], profile["sys.cli"]) == (1000, 5)


def test_a_copy_of_a_shipped_file_is_the_same_profile(write):
    text = (FOLDER / "nehalem.toml").read_bytes()
    copied = load_profile(write(text))
    assert copied.digest() == PROFILES["nehalem"].digest()
    assert load_profile("nehalem").digest() == copied.digest()


@given(key=st.sampled_from(list(SCHEMA)))
@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_without_one_key_does_not_load_and_names_it(tmp_path, key):
    text = (FOLDER / "nehalem.toml").read_text("utf-8")
    start = text.index(f"[{key}]\n")
    end = text.find("\n[", start)
    path = tmp_path / "short.toml"
    path.write_text(text[:start] + (text[end + 1 :] if end > 0 else ""), "utf-8")
    assert f"missing key {key};" in refused(path)


BAD = {
    "unknown key": (inheriting(table("sys.sysentr", 1)), "unknown key sys.sysentr.*did you mean sys.sysenter"),
    "unknown prefix": (inheriting(table("sis.sysenter", 1)), "unknown key sis"),
    "unknown top level": ('inherit = "nehalem"\n', "unknown key inherit;.*did you mean inherits"),
    "key outside a table": ("sys = 1\n", "unknown key sys"),
    "key is no table": (inheriting("[sys]\nsysenter = 1\n"), "sys.sysenter: not a table"),
    "missing keys": ("title = 'empty'\n", "missing key ins.nop and .* more"),
    "unknown field": (inheriting(table("sys.cli", 1, "sorce = 'x'")), "unknown field sorce.*did you mean source"),
    "no value": (inheriting('[sys.cli]\nevidence = "read"\nsource = "x"\n'), "sys.cli: value is missing"),
    "no evidence": (inheriting('[sys.cli]\nvalue = 1\nsource = "x"\n'), "sys.cli: evidence is missing.*recalled"),
    "no source": (inheriting('[sys.cli]\nvalue = 1\nevidence = "read"\n'), "sys.cli: source is missing"),
    "empty source": (inheriting('[sys.cli]\nvalue = 1\nevidence = "read"\nsource = "  "\n'), "sys.cli: source: empty"),
    "unknown evidence": (
        inheriting('[sys.cli]\nvalue = 1\nevidence = "estimate"\nsource = "x"\n'),
        "unknown evidence estimate;.*did you mean estimated",
    ),
    "evidence of a wrong type": (
        inheriting('[sys.cli]\nvalue = 1\nevidence = 1\nsource = "x"\n'),
        "evidence: 1 is not a text",
    ),
    "text for a number": (inheriting(table("sys.cli", '"7"')), "value is 7, which is not a number"),
    "boolean": (inheriting(table("feature.hw_virt", "true")), "value is True, which is not a number"),
    "list": (inheriting(table("sys.cli", "[1]")), "which is not a number"),
    "date": (inheriting(table("sys.cli", "1979-05-27")), "which is not a number"),
    "negative": (inheriting(table("sys.cli", "-0.5")), "value -0.5 is negative"),
    "nan": (inheriting(table("sys.cli", "nan")), "value is NaN"),
    "infinity": (inheriting(table("sys.cli", "-inf")), "value is -Infinity"),
    "absurdly large": (inheriting(table("sys.cli", 10**9 + 1)), "absurdly large"),
    "absurd exponent": (inheriting(table("sys.cli", "1e999999999")), "absurdly large"),
    "absurd negative exponent": (inheriting(table("sys.cli", "1e-999999999")), "too many digits"),
    "exponent out of range": (inheriting(table("sys.cli", "1e99999999999999999999999")), "not TOML.*out of range"),
    "integer of a thousand digits": (inheriting(table("sys.cli", "9" * 1000)), "absurdly large"),
    "integer of ten thousand digits": (inheriting(table("sys.cli", "9" * 10000)), "not TOML"),
    "feature 2": (inheriting(table("feature.hw_virt", 2)), "absurdly large; at most 1"),
    "half a way": (inheriting(table("cache.l2_ways", "4.5")), "not a whole number"),
    "no clock": (inheriting(table("cpu.mhz", 0)), "cpu.mhz: value is 0"),
    "rate of zero": (inheriting(table("ins.rep_movs_bytes_per_cycle", 0)), "value is 0"),
    "absurd rate": (inheriting(table("ins.rep_movs_bytes_per_cycle", "1e-9")), "is absurd"),
    "wrong unit": (inheriting(table("cpu.mhz", 2, 'unit = "GHz"')), "the unit is MHz, not GHz"),
    "outside its interval": (inheriting(table("sys.cli", 5, "low = 6\nhigh = 9")), "outside low and high"),
    "interval of texts": (inheriting(table("sys.cli", 5, 'low = "1"')), "low is 1, which is not a number"),
    "vendor too short": (inheriting(table("cpuid.vendor", '"Intel"')), "wrong value Intel"),
    "vendor is a number": (inheriting(table("cpuid.vendor", 5)), "wrong value 5"),
    "vendor with an interval": (inheriting(table("cpuid.vendor", '"GenuineIntel"', "low = 1")), "a text has no low"),
    "sets are no power of two": (inheriting(table("tlb.dtlb_4k_l1_entries", 48)), "do not make a power of two of sets"),
    "cache without ways": (inheriting(table("cache.l1d_ways", 0)), "do not make a power of two"),
    "no first-level TLB": (inheriting(table("tlb.itlb_4k_entries", 0)), "do not make a power of two"),
    "line of 48 bytes": (inheriting(table("cache.line_bytes", 48)), "48 bytes"),
    "L2 faster than L1": (inheriting(table("mem.l2_load", 1)), "below mem.l1d_load"),
    "an APIC": (inheriting(table("cpuid.features", 0x200)), "0x200 is not simulated"),
    "long mode": (inheriting(table("cpuid.extended_features", 1 << 29)), "0x20000000 is not simulated"),
    "no leaf 16": (inheriting(table("cpuid.highest_leaf", 16)), "at most 15"),
    "no such extended leaf": (inheriting(table("cpuid.highest_extended_leaf", 0x80000020)), "0x80000008 to 0x8000001B"),
    "brand of 48 characters": (inheriting(table("cpuid.brand", '"' + 48 * "x" + '"')), "give 1 to 47 ASCII"),
    "31 address bits": (inheriting(table("cpuid.physical_address_bits", 31)), "give 32 to 36"),
    "40 address bits": (inheriting(table("cpuid.physical_address_bits", 40)), "give 32 to 36"),
    "TLB larger than the model": (inheriting(table("tlb.dtlb_4k_l1_entries", 8192)), "at most 4096"),
    "cache larger than the model": (inheriting(table("cache.l3_kb", 32768)), "at most 262144 in all levels"),
    "stepping 16": (inheriting(table("cpuid.stepping", 16)), "no CPUID signature"),
    "title is a number": ("title = 3\n", "title: 3 is not a text"),
    "inherits a number": ("inherits = 3\n", "inherits: 3 is not a text"),
    "inherits a misspelt name": ('inherits = "nehalm"\n', "no such profile.*did you mean nehalem"),
    "inherits a missing file": ('inherits = "nowhere.toml"\n', "no such file"),
    "inherits itself": ('inherits = "mine.toml"\n', "inherits itself"),
    "inherits itself by another spelling": ('inherits = "./mine.toml"\n', "inherits itself"),
    "inherits a zero byte": ('inherits = "a\\u0000b.toml"\n', "cannot be"),
    "not TOML": ("value = = 3\n", "not TOML"),
    "table twice": (inheriting(table("sys.cli", 1), table("sys.cli", 1)), "not TOML"),
    "Latin-1": ("title = 'é'\n".encode("latin-1"), "byte 9 is not UTF-8"),
    "UTF-16": ("title = 'x'\n".encode("utf-16"), "not UTF-8"),
    "deep nesting": (b"x = " + b"[" * 100000, "not TOML"),
    "too large": (b"# " + b"x" * (1 << 20), "larger than 1 MB"),
    "an ELF image": (b"\x7fELF\x01\x01\x01" + bytes(64), "not TOML"),
    "line breaks in a name": ('["a\\nb"."c\\nd"]\nvalue = 1\n', "unknown key"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_one_line_that_names_file_and_key(write, case):
    text, pattern = BAD[case]
    path = write(text)
    line = refused(path)
    assert re.search(pattern, line), line
    assert "mine.toml" in line or "nowhere.toml" in line or "inherits a misspelt" in case or "zero byte" in case, line


def test_a_misspelt_name_gets_near_matches_and_the_list():
    with pytest.raises(ProfileError) as caught:
        load_profile("p4_prescot")
    assert "did you mean p4_prescott" in str(caught.value) and "core2_harpertown" in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "\x00", "no\nsuch", "x" * 5000, "/nonexistent/p.toml", "/dev/null/p.toml", "a\x00.toml"]
)
def test_a_name_that_is_none_is_refused_with_one_line(name):
    refused(name)


def test_what_is_no_regular_file_is_refused(tmp_path):
    assert "not a regular file" in refused(tmp_path)
    os.mkfifo(tmp_path / "pipe.toml")
    assert "not a regular file" in refused(tmp_path / "pipe.toml")


def test_a_circle_and_a_long_chain_of_files_are_refused(write):
    write('inherits = "second.toml"\n', "first.toml")
    assert "inherits itself" in refused(write('inherits = "first.toml"\n', "second.toml"))
    for number in range(20):
        write(f'inherits = "link{number + 1}.toml"\n', f"link{number}.toml")
    assert "levels of `inherits`" in refused(write('inherits = "link0.toml"\n'))


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_bytes_never_load_and_never_crash(tmp_path, content):
    path = tmp_path / "random.toml"
    path.write_bytes(content)
    refused(path)


TOML_VALUES = st.one_of(
    st.integers().map(str),
    st.floats().map(lambda number: repr(number)),
    st.text("0123456789.eE+-_", min_size=1, max_size=12),
    st.sampled_from(["true", "[]", "{}", '""', "'x'", "1979-05-27T07:32:00Z", "0xFFFFFFFFFFFFFFFFFF"]),
)


@given(
    key=st.sampled_from(list(SCHEMA)), field=st.sampled_from(["value", "low", "high", "evidence"]), value=TOML_VALUES
)
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_of_any_field_loads_to_usable_prices_or_is_refused(tmp_path, key, field, value):
    fields = {"value": "5", "evidence": '"read"', "source": '"a test"'} | {field: value}
    path = tmp_path / "fuzz.toml"
    path.write_text(inheriting(f"[{key}]", *(f"{name} = {text}" for name, text in fields.items())))
    try:
        profile = load_profile(path)
    except ProfileError:
        refused(path)
    else:
        assert (profile.prices() >= 0).all() and (profile.prices() <= 64 * 10**9).all()
        assert EVENT_ID and profile.values[key].evidence == "read"
