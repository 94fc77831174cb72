from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from storage.arrays import pack, unpack
from storage.errors import NotStorable, StoreCorrupt

EXAMPLES = {
    "float16 with NaN": np.array([[1, np.nan], [np.inf, -0.0]], dtype=np.float16),
    "big-endian": np.arange(5, dtype=">i4"),
    "booleans": np.array([True, False]),
    "empty": np.empty((0, 3), dtype=np.float32),
    "scalar": np.array(2.5),
    "transposed": np.arange(6).reshape(2, 3).T,
    "every second": np.arange(10, dtype=np.uint8)[::2],
}


@pytest.mark.parametrize("array", EXAMPLES.values(), ids=EXAMPLES)
def test_an_array_comes_back_with_its_dtype_shape_and_bits(array):
    back = unpack(pack(array))
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()


def test_what_comes_back_may_be_written_to():
    back = unpack(pack(np.arange(3)))
    back[0] = 7
    assert back.tolist() == [7, 1, 2]


@pytest.mark.parametrize(
    "other",
    [np.arange(6, dtype=np.int32), np.arange(6).reshape(2, 3), np.arange(1, 7), np.arange(6, dtype=">i8")],
    ids=["dtype", "shape", "content", "byte order"],
)
def test_the_digest_tells_arrays_apart_by(other):
    assert pack(other).digest != pack(np.arange(6)).digest


def test_the_digest_does_not_depend_on_the_layout_in_memory():
    array = np.arange(12).reshape(3, 4)
    assert pack(np.asfortranarray(array)).digest == pack(array).digest


@pytest.mark.parametrize(
    "array",
    [np.array([{}], dtype=object), np.array(["text"]), np.array([1j]), np.zeros(2, dtype=[("a", "i4")])],
    ids=["objects", "text", "complex", "records"],
)
def test_arrays_that_are_not_plain_numbers_are_refused(array):
    with pytest.raises(NotStorable, match="boolean, integer or float, got dtype"):
        pack(array)


CHANGES = {
    "other bytes": {"data": pack(np.arange(1, 7)).data},
    "not zlib": {"data": b"rubbish"},
    "cut short": {"data": pack(np.arange(6)).data[:-6]},
    "other shape": {"shape": (3, 2)},
    "shape of another size": {"shape": (7,)},
    "unknown dtype": {"dtype": "nonsense"},
    "objects": {"dtype": "|O"},
    "bytes that unfold": {"data": pack(np.zeros(1_000_000)).data},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_array_is_noticed(change):
    with pytest.raises(StoreCorrupt, match="does not match its digest"):
        unpack(replace(pack(np.arange(6)), **change))
