"""Arrays of records that the jitted code shares with Python, whose fields Python reads and writes as attributes, quickly.

NumPy's own `recarray` finds each field by an exception that it catches, at ten times the price. Here a record's class
has a property for each field, so that the VMM's Python, and all of the core under the interpreter, wait less.
"""

import mmap
from functools import cache
from typing import Any

import numpy as np

GET, PUT = np.void.__getitem__, np.void.__setitem__
LARGE = 1 << 20  # bytes
METHODS = {"__getattribute__": np.void.__getattribute__, "__setattr__": PUT, "__getitem__": GET, "__setitem__": PUT}


def record_array(dtype: np.dtype, length: int = 1) -> np.ndarray:
    """A zeroed array of records, as the jitted code takes it; its elements read and write through."""
    return zeroed(with_attributes(dtype), length)


def zeroed(dtype: np.dtype, length: int) -> np.ndarray:
    """A zeroed array; of a large one each page is made when it is first touched.

    `np.zeros` clears memory that the process has used before, and the code of most guests fills little of its arrays.
    """
    octets = dtype.itemsize * length
    if octets < LARGE or not hasattr(mmap, "MAP_PRIVATE"):
        return np.zeros(length, dtype)
    return np.ndarray(length, dtype, mmap.mmap(-1, octets, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))


@cache
def with_attributes(dtype: np.dtype) -> np.dtype:
    """The same layout, with records, nested ones too, of a class whose attributes are the fields."""
    if dtype.subdtype is not None:
        element, dimensions = dtype.subdtype
        return np.dtype((with_attributes(element), dimensions))
    if dtype.names is None or dtype.fields is None:
        return dtype
    places = {name: dtype.fields[name] for name in dtype.names}
    layout: Any = {
        "names": list(places),
        "formats": [with_attributes(place[0]) for place in places.values()],
        "offsets": [place[1] for place in places.values()],
        "itemsize": dtype.itemsize,
    }
    members = METHODS | {name: field(name) for name in places} | {"__slots__": ()}
    return np.dtype((type("Record", (np.record,), members), np.dtype(layout, align=dtype.isalignedstruct)))


def field(name: str) -> property:
    """The attribute that reads a field; all are written by `__setattr__`, which is told the field by its name."""
    return property(lambda record: GET(record, name))
