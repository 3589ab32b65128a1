"""Records whose fields are attributes: those of NumPy's own, read and written through, at every level."""

import numba
import numpy as np
import pytest

from x86virt.core.layout import CPU
from x86virt.records import LARGE, record_array, with_attributes, zeroed

INNER = np.dtype([("first", "u1"), ("second", "<i8")], align=True)
OUTER = np.dtype([("word", "i8"), ("words", "i8", (2, 3)), ("one", INNER), ("many", INNER, 4), ("name", "S8")])


def test_attributes_are_the_fields_of_nested_records_too() -> None:
    array = record_array(OUTER, 2)
    record = array[1]
    record.word = -5
    record.words[1, 2] = 7
    record.one.second = 1 << 40
    record.many[3].first = 9
    record.name = b"abc"
    assert array[0].tobytes() == bytes(OUTER.itemsize)
    assert array["words"].tolist() == [[[0] * 3] * 2, [[0, 0, 0], [0, 0, 7]]]
    assert array["many"].tolist()[1] == [(0, 0)] * 3 + [(9, 0)] and array["name"].tolist() == [b"", b"abc"]
    assert (record.word, record["word"], record.one["second"], record["many"][3].first) == (-5, -5, 1 << 40, 9)
    record["one"] = (1, 2)
    assert (record.one.first, record.one.second) == (1, 2)


def test_what_is_no_field_is_no_attribute() -> None:
    record = record_array(OUTER)[0]
    with pytest.raises(ValueError, match="no field of name wrod"):
        record.wrod = 1
    with pytest.raises(AttributeError):
        record.one.third  # noqa: B018
    with pytest.raises(OverflowError):
        record.word = 1 << 64


@pytest.mark.parametrize("layout", (INNER, OUTER, CPU))
def test_the_layout_is_the_one_that_was_given(layout: np.dtype) -> None:
    made = with_attributes(layout)
    assert made.itemsize == layout.itemsize and made.names == layout.names
    assert [made.fields[name][1] for name in made.names] == [layout.fields[name][1] for name in layout.names]
    assert with_attributes(layout) is made
    assert numba.typeof(np.zeros(1, made)) == numba.typeof(np.zeros(1, layout))


@pytest.mark.parametrize("length", (1, LARGE // 8 - 1, LARGE // 8, LARGE))
def test_arrays_of_every_size_begin_as_zeros_and_are_their_own(length: int) -> None:
    one = zeroed(np.dtype(np.int64), length)
    assert one.shape == (length,) and one.flags.writeable and one.flags.aligned and not one.any()
    one[:] = -1
    other = zeroed(np.dtype(np.int64), length)
    assert not other.any() and one.all()
    assert numba.typeof(one) == numba.typeof(np.zeros(length, np.int64))
